//! How many cycles a kernel's instructions take on one core, wherever its data are.
//!
//! A statement costs what its instructions do where none waits for another; a loop at least as long as the longest chain from one of its
//! iterations to the next (a sum in one register adds once in four cycles, however many lanes it has); a tile what its steps take
//! by its height and width. What is the same in all iterations of a loop is computed once before it, as the printer of code does, and what
//! is the same in all lanes in one register.

use super::constants::{
    BRANCH, GUARD, ITERATION, LANE, LOAD, LOOP, QUOTIENT, SCALAR, STORE, TILE, TILE_LATENCY, TILE_LOADS, TILE_ROW,
    latency, throughput,
};
use super::nest::{Integer, Nest, Node};
use brolga_ir::figures::Figures;
use brolga_ir::index::{Bound, Ix, Reg, Term, Var};
use brolga_ir::loops::{Expr, LoopKind, Scope, Stmt, Tile};
use brolga_ir::{CpuTarget, DType};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;

/// Rounds of an unrolled loop that are followed; more go on like these.
const FOLLOWED: i64 = 8;

/// Cycles of a kernel, by what takes them.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cycles {
    /// Register tiles.
    pub tiles: f64,
    /// Arithmetic in vector loops.
    pub vectors: f64,
    /// Loads and stores in vector loops.
    pub moves: f64,
    /// Statements outside of vector loops.
    pub scalars: f64,
    /// Loops and branches themselves.
    pub control: f64,
    /// What chains of dependent operations take beyond all that.
    pub waits: f64,
}

impl Cycles {
    /// All of them.
    pub fn sum(&self) -> f64 {
        self.tiles + self.vectors + self.moves + self.scalars + self.control + self.waits
    }

    fn add(&mut self, o: &Cycles) {
        self.tiles += o.tiles;
        self.vectors += o.vectors;
        self.moves += o.moves;
        self.scalars += o.scalars;
        self.control += o.control;
        self.waits += o.waits;
    }
}

/// The cycles of a kernel.
pub(super) fn cycles(nest: &Nest, sizes: &dyn Fn(&str) -> Option<i64>, cpu: &CpuTarget, figures: &Figures) -> Cycles {
    let c = Counter {
        nest,
        sizes,
        cpu,
        figures,
        width: f64::from(cpu.body_lanes().unwrap_or(4)),
        varies: varies(nest),
        seen: RefCell::default(),
    };
    c.all(&nest.nodes, None, &mut vec![])
}

struct Counter<'a> {
    nest: &'a Nest<'a>,
    sizes: &'a dyn Fn(&str) -> Option<i64>,
    cpu: &'a CpuTarget,
    figures: &'a Figures,
    /// Lanes of 32 bits of a register.
    width: f64,
    /// The loops in whose iterations a register differs.
    varies: FxHashMap<Reg, FxHashSet<Var>>,
    /// Quotients that are counted, with whether lanes differ and how often they are computed.
    seen: RefCell<FxHashSet<(Term, bool, u64)>>,
}

/// Loops around a statement, outermost first, with the iterations of each.
type Around = Vec<(Var, f64)>;

impl Counter<'_> {
    fn all(&self, nodes: &[Node], lane: Option<Var>, around: &mut Around) -> Cycles {
        let mut sum = Cycles::default();
        for n in nodes {
            if n.times > 0.0 {
                sum.add(&self.node(n, lane, around));
            }
        }
        sum
    }

    fn inside(&self, n: &Node, var: Var, lane: Option<Var>, around: &mut Around) -> Cycles {
        around.push((var, (n.inside / n.times).max(1.0)));
        let c = self.all(&n.nodes, lane, around);
        around.pop();
        c
    }

    fn node(&self, n: &Node, lane: Option<Var>, around: &mut Around) -> Cycles {
        match n.stmt {
            Stmt::For { var, kind, .. } => match kind {
                LoopKind::Vector => self.all(&n.nodes, Some(*var), around),
                LoopKind::Unrolled => self.inside(n, *var, lane, around),
                LoopKind::Serial | LoopKind::Parallel(_) | LoopKind::Block(_) | LoopKind::Thread(_) => {
                    let mut c = self.inside(n, *var, lane, around);
                    let chain = self.chain(&n.nodes) * n.inside;
                    c.waits += (chain - c.sum()).max(0.0);
                    c.control += ITERATION * n.inside + LOOP * n.times;
                    c
                }
            },
            Stmt::If { .. } => {
                let mut c = self.all(&n.nodes, lane, around);
                c.control += BRANCH * n.times;
                c
            }
            Stmt::Tile(t) => Cycles {
                tiles: self.tile(n, t),
                ..Cycles::default()
            },
            Stmt::Set(r, e) if n.usual => self.assignment(n, *r, e, lane, around),
            Stmt::Store { buffer, index, .. } => {
                let d = self.nest.kernel.buffer(*buffer).dtype;
                let mut c = self.access(n.times, n.values(1), index, d, lane, STORE);
                c.add(&self.quotients(index, n.times, lane, n.values(1), around));
                c
            }
            Stmt::Set(..) | Stmt::Check { .. } | Stmt::Barrier => Cycles::default(),
        }
    }

    /// Registers that so many lanes of a dtype take: bytes are held in lanes of 32 bits.
    fn registers(&self, lanes: f64, d: DType) -> f64 {
        (lanes * d.bytes().max(4) as f64 / 4.0 / self.width).ceil().max(1.0)
    }

    fn assignment(&self, n: &Node, r: Reg, e: &Expr, lane: Option<Var>, around: &Around) -> Cycles {
        let info = self.nest.kernel.reg(r);
        let differs = |v: Var| self.varies.get(&r).is_some_and(|all| all.contains(&v));
        let times = hoisted(n.times, around, &differs);
        let lane = lane.filter(|v| differs(*v));
        let lanes = match lane {
            Some(_) => n.values(info.lanes),
            None => f64::from(info.lanes),
        };
        let registers = self.registers(lanes, info.dtype);
        let per = match e {
            Expr::Const(_) | Expr::Copy(_) => return Cycles::default(),
            Expr::Load {
                buffer, index, guard, ..
            } => {
                let d = self.nest.kernel.buffer(*buffer).dtype;
                let mut c = self.access(times, lanes, index, d, lane, LOAD);
                // These may stand before more loops than the load does.
                c.add(&self.quotients(index, n.times, lane, lanes, around));
                c.add(&self.bounds(guard, n.times, lane, lanes, registers, around));
                return c;
            }
            Expr::Index(ix) => {
                let mut c = self.quotients(ix, n.times, lane, lanes, around);
                c.scalars += 0.5 * registers * times;
                return c;
            }
            Expr::InBounds(bounds) => return self.bounds(bounds, n.times, lane, lanes, registers, around),
            Expr::Prim(p, args) => {
                let d = self.nest.kernel.reg(args[p.typed()]).dtype;
                let serial = !d.is_float() && throughput(*p, d) > 8.0;
                let times = if serial {
                    lanes
                } else {
                    self.registers(lanes, d).max(registers)
                };
                throughput(*p, d) * times
            }
            Expr::Lane(..) => 1.0,
        };
        let all = per * times;
        match lane.is_some() || info.lanes > 1 {
            true => Cycles {
                vectors: all,
                ..Cycles::default()
            },
            false => Cycles {
                scalars: all.max(SCALAR * times),
                ..Cycles::default()
            },
        }
    }

    /// A load or store of one value a lane.
    fn access(&self, times: f64, lanes: f64, index: &Ix, d: DType, lane: Option<Var>, one: f64) -> Cycles {
        let Some(v) = lane else {
            return Cycles {
                scalars: one * times,
                ..Cycles::default()
            };
        };
        let per = match stride(self.nest, index, v, self.sizes) {
            Some(0) => one,
            // A store of lanes that lie apart takes them out one by one as well.
            Some(1) => one * (lanes * d.bytes() as f64 / 4.0 / self.width).ceil().max(1.0),
            _ => LANE * lanes,
        };
        Cycles {
            moves: per * times,
            ..Cycles::default()
        }
    }

    /// Whether an index differs between the iterations of a loop.
    fn moves(&self, ix: &Ix, v: Var) -> bool {
        let mut moved = ix.uses(v);
        ix.for_each_reg(&mut |r| moved |= self.varies.get(&r).is_some_and(|all| all.contains(&v)));
        moved
    }

    /// What bounds take, where each is found out before the loops that it is the same in.
    fn bounds(
        &self,
        bounds: &[Bound],
        times: f64,
        lane: Option<Var>,
        lanes: f64,
        registers: f64,
        around: &Around,
    ) -> Cycles {
        let mut sum = Cycles::default();
        for b in bounds {
            let times_here = hoisted(times, around, &|v| self.moves(&b.index, v));
            match lane.is_some_and(|v| self.moves(&b.index, v)) {
                true => sum.moves += GUARD * registers * times_here,
                false => sum.scalars += GUARD * times_here,
            }
            sum.add(&self.quotients(&b.index, times, lane, lanes, around));
        }
        sum
    }

    /// What quotients and remainders in an index take, each before the loops that it is the same in: for each lane where it
    /// differs between lanes.
    fn quotients(&self, index: &Ix, times: f64, lane: Option<Var>, lanes: f64, around: &Around) -> Cycles {
        let mut sum = Cycles::default();
        for (t, _) in &index.terms {
            match t {
                Term::Div(e, d) | Term::Mod(e, d) => {
                    let each = lane.is_some_and(|v| self.moves(e, v));
                    let here = hoisted(times, around, &|v| self.moves(e, v));
                    // One that stands there already is used again.
                    if self.seen.borrow_mut().insert((t.clone(), each, here.to_bits())) {
                        let cost = QUOTIENT[usize::from(d.as_const().is_none())] * if each { lanes } else { 1.0 };
                        sum.scalars += cost * here;
                        sum.add(&self.quotients(e, times, lane, lanes, around));
                    }
                }
                Term::Min(e, _) => sum.add(&self.quotients(e, times, lane, lanes, around)),
                Term::Var(_) | Term::Reg(_) => {}
            }
        }
        sum
    }

    fn tile(&self, n: &Node, t: &Tile) -> f64 {
        let [rows, cols, ..] = n.largest.map(|n| n.max(1));
        let shape = self.cpu.tile.shape(t.kind, cols as u32);
        let groups = (rows as f64 / f64::from(shape.rows)).ceil();
        // Equal groups of rows.
        let height = (rows as f64 / groups).ceil();
        let panels = t.panels() as f64;
        let vector = f64::from(shape.cols).min(self.width);
        let (passes, vectors) = match panels > 1.0 {
            true => (1.0, cols as f64 / vector),
            false => (
                (cols as f64 / f64::from(shape.cols)).ceil(),
                f64::from(shape.cols) / vector,
            ),
        };
        let interleave = t.kind.interleave() as f64;
        let products = self.figures.tile(t.kind) / (2.0 * vector * interleave * self.figures.hertz);
        let step = (height * vectors / products)
            .max(TILE_LATENCY)
            .max((vectors + height) / TILE_LOADS);
        let steps = n.inside / (rows * cols) as f64 / interleave;
        steps * step * groups * passes + n.times * passes * groups * (TILE + TILE_ROW * height * vectors)
    }

    /// Cycles of the longest chain of operations from one iteration to the next.
    fn chain(&self, body: &[Node]) -> f64 {
        let mut carried = Carried::default();
        carried.find(body);
        let through: Vec<Reg> = carried.first_read.intersection(&carried.assigned).copied().collect();
        if through.is_empty() {
            return 0.0;
        }
        let mut depth: FxHashMap<Reg, f64> = through.iter().map(|r| (*r, 0.0)).collect();
        self.follow(body, &mut depth);
        through.iter().filter_map(|r| depth.get(r)).copied().fold(0.0, f64::max)
    }

    /// Adds what the operations of an iteration take to how deep registers are.
    fn follow(&self, body: &[Node], depth: &mut FxHashMap<Reg, f64>) {
        for n in body {
            match n.stmt {
                Stmt::Set(r, e) => {
                    let mut deepest: Option<f64> = None;
                    n.stmt.for_each_read(&mut |r| {
                        if let Some(d) = depth.get(&r) {
                            deepest = Some(deepest.map_or(*d, |x: f64| x.max(*d)));
                        }
                    });
                    let own = match e {
                        Expr::Prim(p, args) => latency(*p, self.nest.kernel.reg(args[p.typed()]).dtype),
                        Expr::Load { .. } => 5.0,
                        Expr::Lane(..) => 2.0,
                        _ => 0.0,
                    };
                    match deepest {
                        Some(d) => depth.insert(*r, d + own),
                        None => depth.remove(r),
                    };
                }
                Stmt::For {
                    var,
                    kind: LoopKind::Unrolled,
                    ..
                } => {
                    let rounds = self.nest.extents.get(var).copied().unwrap_or(0);
                    for _ in 0..rounds.min(FOLLOWED) {
                        self.follow(&n.nodes, depth);
                    }
                    if rounds > FOLLOWED {
                        let more = rounds as f64 / FOLLOWED as f64;
                        depth.values_mut().for_each(|d| *d *= more);
                    }
                }
                Stmt::For {
                    kind: LoopKind::Vector, ..
                }
                | Stmt::If { .. } => self.follow(&n.nodes, depth),
                // A loop inside has waited already.
                _ => {}
            }
        }
    }
}

/// How often something runs that stands before the loops that it is the same in.
fn hoisted(times: f64, around: &Around, differs: &dyn Fn(Var) -> bool) -> f64 {
    let same = around.iter().rev().take_while(|(v, _)| !differs(*v));
    times / same.map(|(_, trips)| trips).product::<f64>()
}

/// By how many elements neighbouring lanes lie apart; `None` where it is not the same between all.
pub(super) fn stride(nest: &Nest, index: &Ix, v: Var, sizes: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
    let mut moved = false;
    index.for_each_reg(&mut |r| {
        moved |= match nest.integers.get(&r) {
            Some(Integer::Index(e)) => e.uses(v),
            Some(Integer::Data(vars)) => vars.contains(&v),
            None => false,
        }
    });
    index.stride(v)?.eval(sizes).filter(|_| !moved)
}

/// The loops in whose iterations registers differ: those whose variables their operands depend on, or that they go through. What is read
/// from memory that the kernel writes differs everywhere.
fn varies(nest: &Nest) -> FxHashMap<Reg, FxHashSet<Var>> {
    let mut sets: FxHashMap<Reg, usize> = FxHashMap::default();
    nest.visit(&mut |n| {
        if let Stmt::Set(r, _) = n.stmt {
            *sets.entry(*r).or_default() += 1;
        }
    });
    fn go(
        nest: &Nest,
        nodes: &[Node],
        around: &mut Vec<Var>,
        sets: &FxHashMap<Reg, usize>,
        out: &mut FxHashMap<Reg, FxHashSet<Var>>,
    ) {
        for n in nodes {
            if let Stmt::For { var, .. } = n.stmt {
                around.push(*var);
                go(nest, &n.nodes, around, sets, out);
                around.pop();
                continue;
            }
            go(nest, &n.nodes, around, sets, out);
            let Stmt::Set(r, e) = n.stmt else { continue };
            let mut vars = FxHashSet::default();
            let own = |b| nest.kernel.buffer(b).scope != Scope::In;
            let lanes = nest.kernel.reg(*r).lanes > 1;
            let anywhere = sets[r] > 1 || lanes || matches!(e, Expr::Load { buffer, .. } if own(*buffer));
            if anywhere {
                vars.extend(around.iter().copied());
            }
            n.stmt
                .for_each_index(&mut |ix| ix.for_each_var(&mut |v| vars.extend([v])));
            n.stmt.for_each_read(&mut |x| {
                if let Some(of) = out.get(&x) {
                    vars.extend(of.iter().copied());
                } else if sets.contains_key(&x) {
                    // It is assigned further on.
                    vars.extend(around.iter().copied());
                }
            });
            out.entry(*r).or_default().extend(vars);
        }
    }
    let mut out = FxHashMap::default();
    go(nest, &nest.nodes, &mut vec![], &sets, &mut out);
    out
}

/// Registers that go from one iteration to the next.
#[derive(Default)]
struct Carried {
    assigned: FxHashSet<Reg>,
    /// Read before they are assigned.
    first_read: FxHashSet<Reg>,
}

impl Carried {
    fn find(&mut self, body: &[Node]) {
        for n in body {
            n.stmt.for_each_read(&mut |r| {
                if !self.assigned.contains(&r) {
                    self.first_read.insert(r);
                }
            });
            if let Stmt::Set(r, _) = n.stmt {
                self.assigned.insert(*r);
            }
            self.find(&n.nodes);
        }
    }
}
