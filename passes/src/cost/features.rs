//! What a learned model may look at: named numbers of a kernel's loops.
//!
//! Every kernel has all of them, in the same order. Amounts are logarithms (of 1 + x, base 2), so that a factor is a difference; shares lie
//! between 0 and 1. The prediction of the analytic model is one of them: what is learned is where it is wrong.

use super::cycles::stride;
use super::nest::{Nest, Node};
use super::predict::{Model, Time};
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{self, Expr, LoopKind, Scope, Stmt};
use brolga_ir::program::{Program, Step, nested};

/// Levels beyond the smallest cache that have a feature each: farther ones count as the last.
const LEVELS: usize = 3;

/// Named numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct Features(pub Vec<(&'static str, f64)>);

impl Features {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, x)| *x)
    }

    /// The values, in the order of all kernels.
    pub fn values(&self) -> Vec<f64> {
        self.0.iter().map(|(_, x)| *x).collect()
    }
}

impl Model<'_> {
    /// The features of a loop kernel.
    pub fn features(&self, kernel: &loops::Kernel, sizes: &dyn Fn(&str) -> Option<i64>) -> Features {
        let time = self.kernel(kernel, sizes);
        let nest = Nest::new(kernel, sizes);
        let mut seen = Seen::default();
        seen.nodes(&nest, &nest.nodes, None, 0, sizes);
        seen.features(kernel, &time, self.threads)
    }

    /// The features of all that a program calls: those of the kernel that takes longest, with the time of all and how many there are.
    /// `None` where no kernel is called.
    pub fn features_of(&self, program: &Program, sizes: &dyn Fn(&str) -> Option<i64>) -> Option<Features> {
        let called: Vec<&loops::Kernel> = nested(&program.steps)
            .into_iter()
            .filter_map(|s| match s {
                Step::Call { kernel, .. } => Some(&program.kernels[*kernel as usize]),
                _ => None,
            })
            .collect();
        let longest = called
            .iter()
            .max_by(|a, b| self.kernel(a, sizes).seconds.total_cmp(&self.kernel(b, sizes).seconds))?;
        let mut out = self.features(longest, sizes);
        out.0.push(("seconds of all", log(self.program(program, sizes) * 1e9)));
        out.0.push(("kernels", called.len() as f64));
        Some(out)
    }
}

fn log(x: f64) -> f64 {
    (1.0 + x.max(0.0)).log2()
}

/// What stands in a nest.
#[derive(Default)]
struct Seen {
    /// Loads and stores of vectors, by how lanes lie: one for all, side by side, apart.
    strides: [f64; 3],
    /// Iterations of innermost loops beside vectors, and how often they are entered.
    innermost: [f64; 2],
    depth: usize,
    statements: usize,
    guards: usize,
    unrolled: f64,
    lanes: u32,
    tiles: f64,
    height: i64,
    columns: i64,
    steps: i64,
}

impl Seen {
    fn nodes(
        &mut self,
        nest: &Nest,
        nodes: &[Node],
        lane: Option<Var>,
        depth: usize,
        sizes: &dyn Fn(&str) -> Option<i64>,
    ) {
        self.depth = self.depth.max(depth);
        for n in nodes {
            self.statements += 1;
            match n.stmt {
                Stmt::For { var, kind, .. } => match kind {
                    LoopKind::Vector => {
                        let lanes = nest.extents.get(var).copied().unwrap_or(1);
                        self.lanes = self.lanes.max(lanes as u32);
                        self.nodes(nest, &n.nodes, Some(*var), depth, sizes);
                    }
                    LoopKind::Unrolled => {
                        self.unrolled = self.unrolled.max(n.inside / n.times.max(1.0));
                        self.nodes(nest, &n.nodes, lane, depth, sizes);
                    }
                    _ => {
                        if !n.nodes.iter().any(holds_loop) {
                            self.innermost[0] += n.inside;
                            self.innermost[1] += n.times;
                        }
                        self.nodes(nest, &n.nodes, lane, depth + 1, sizes);
                    }
                },
                Stmt::Tile(_) => {
                    self.tiles += n.times;
                    self.height = self.height.max(n.largest[0]);
                    self.columns = self.columns.max(n.largest[1]);
                    self.steps = self.steps.max(n.largest[2] * n.largest[3] * n.largest[4]);
                }
                Stmt::Set(_, Expr::Load { index, guard, .. }) => {
                    self.guards += guard.len();
                    self.access(n, along(index, nest, lane, sizes));
                }
                Stmt::Store { index, .. } => self.access(n, along(index, nest, lane, sizes)),
                _ => self.nodes(nest, &n.nodes, lane, depth, sizes),
            }
        }
    }

    fn access(&mut self, n: &Node, stride: Option<Option<i64>>) {
        let kind = match stride {
            None => return,
            Some(Some(0)) => 0,
            Some(Some(1)) => 1,
            Some(_) => 2,
        };
        self.strides[kind] += n.times;
    }

    fn features(&self, kernel: &loops::Kernel, time: &Time, threads: usize) -> Features {
        let (w, c) = (&time.work, &time.cycles);
        let strides = self.strides.iter().sum::<f64>().max(1.0);
        let cycles = c.sum().max(1.0);
        let from = |i: usize| match i + 1 < LEVELS {
            true => time.bytes.get(i).copied().unwrap_or(0.0),
            false => time.bytes.iter().skip(i).sum(),
        };
        let scratch = kernel
            .buffers
            .iter()
            .filter(|b| matches!(b.scope, Scope::Worker | Scope::Kernel));
        let trips = self.innermost[0] / self.innermost[1].max(1.0);
        Features(vec![
            ("seconds", log(time.seconds * 1e9)),
            ("compute", log(time.compute * 1e9)),
            ("moving", log(time.moving.iter().sum::<f64>() * 1e9)),
            ("flops", log(w.flops)),
            ("integer operations", log(w.int_ops)),
            ("bytes read", log(w.bytes_read)),
            ("bytes written", log(w.bytes_written)),
            ("footprint", log(time.footprint)),
            ("bytes of level 2", log(from(0))),
            ("bytes of level 3", log(from(1))),
            ("bytes beyond", log(from(2))),
            ("tiles' share", c.tiles / cycles),
            ("vectors' share", c.vectors / cycles),
            ("moves' share", c.moves / cycles),
            ("scalars' share", c.scalars / cycles),
            ("control's share", c.control / cycles),
            ("waits' share", c.waits / cycles),
            ("parallel iterations", log(w.parallel)),
            ("forks", log(w.forks)),
            (
                "iterations a thread",
                log(w.parallel / w.forks.max(1.0) / threads as f64),
            ),
            ("innermost iterations", log(trips)),
            ("loops", log(self.innermost[1])),
            ("depth", self.depth as f64),
            ("statements", log(self.statements as f64)),
            ("bounds", log(self.guards as f64)),
            ("unrolled", log(self.unrolled)),
            ("lanes", log(f64::from(self.lanes))),
            ("broadcast", self.strides[0] / strides),
            ("side by side", self.strides[1] / strides),
            ("apart", self.strides[2] / strides),
            ("tiles", log(self.tiles)),
            ("tile's rows", self.height as f64),
            ("tile's columns", log(self.columns as f64)),
            ("tile's steps", log(self.steps as f64)),
            ("buffers", kernel.buffers.len() as f64),
            ("scratch", scratch.count() as f64),
        ])
    }
}

/// By how many elements neighbouring lanes lie apart, in a vector loop.
fn along(index: &Ix, nest: &Nest, lane: Option<Var>, sizes: &dyn Fn(&str) -> Option<i64>) -> Option<Option<i64>> {
    Some(stride(nest, index, lane?, sizes))
}

fn holds_loop(n: &Node) -> bool {
    match n.stmt {
        Stmt::For { kind, .. } => {
            !matches!(kind, LoopKind::Vector | LoopKind::Unrolled) || n.nodes.iter().any(holds_loop)
        }
        Stmt::If { .. } => n.nodes.iter().any(holds_loop),
        _ => false,
    }
}
