//! Layouts of what is stored: channels last where convolutions and pooling are near, row-major elsewhere.
//!
//! Kernels are chosen; where their results and operands lie is not. Every store of the rank of images has one of two layouts,
//! and a kernel costs more where it reads against the order in which its result lies, or where a convolution cannot have its
//! channels innermost. Stores around windows start channels last, and each is changed as long as that makes the kernels
//! around it cheaper (iterated conditional modes: Besag, "On the statistical analysis of dirty pictures", 1986).
//!
//! ```text
//! %2 = conv{…}(%0, %1)         %2 = conv{…}(%0, %1)
//! %3 = store(%2)          -->  %3 = store{layout=(0, 2, 3, 1)}(%2)
//! ```

use crate::eqsat::cost::{self, CostModel};
use crate::lower::kernel::{self, in_memory, stored};
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::ops::{Channels, Role, WindowShape};
use brolga_ir::structured::{IterKind, Place, Read, Stage};
use brolga_ir::target::Cost;
use brolga_ir::{Attr, Def, Dim, Graph, Layout, Node, Op, Target, Type, Value};
use rustc_hash::FxHashSet;

/// How often all stores are tried.
const SWEEPS: usize = 8;

/// The graph with a layout for every store.
///
/// # Errors
/// When a store is no kernel.
pub fn choose(graph: &Graph, target: &Target) -> Result<Graph, String> {
    let Some(mut c) = Chooser::new(graph, target)? else {
        return Ok(graph.clone());
    };
    c.spread();
    c.improve();
    c.graph()
}

/// The layout of channels-last data.
fn last(rank: usize) -> Layout {
    let order: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    Layout::new(&order, &[], 0).expect("a permutation")
}

/// A kernel: what its stages read and write.
struct Kernel {
    result: Value,
    operands: Vec<(Value, Type)>,
    stages: Vec<Stage>,
    /// The seconds of its contraction or window as it should be, and its shape.
    heavy: Option<(f64, Option<WindowShape>)>,
}

struct Chooser<'g> {
    /// The graph, every store that may be channels last being so.
    graph: Graph,
    source: &'g Graph,
    model: CostModel,
    cost: Cost,
    varies: Vec<bool>,
    /// By value: whether it may be channels last, and whether it is.
    open: Vec<bool>,
    last: Vec<bool>,
    kernels: Vec<Kernel>,
    /// By value: the kernels that write or read it.
    around: Vec<Vec<usize>>,
}

impl<'g> Chooser<'g> {
    fn new(source: &'g Graph, target: &Target) -> Result<Option<Chooser<'g>>, String> {
        let mut ranks: Vec<usize> = vec![];
        for n in &source.nodes {
            if window(source, n).is_some() {
                ranks.push(source.ty(n.inputs[0]).rank());
            }
        }
        if ranks.is_empty() {
            return Ok(None);
        }
        let n = source.values.len();
        let mut varies: Vec<bool> = source.values.iter().map(|v| matches!(v.def, Def::Input(_))).collect();
        let mut open = vec![false; n];
        for node in &source.nodes {
            let v = node.inputs.iter().any(|i| varies[i.0 as usize]) || !node.op.is_concrete();
            node.outputs.iter().for_each(|o| varies[o.0 as usize] = v);
            if matches!(node.op.role(), Role::Store) && v && in_memory(source, node.inputs[0]).is_none() {
                let ty = source.ty(node.outputs[0]);
                open[node.outputs[0].0 as usize] = ty.rank() >= 3 && ranks.contains(&ty.rank());
            }
        }
        // What has to be row-major.
        let mut close = |v: Value| {
            if let Some(m) = stored(source, v) {
                open[m.0 as usize] = false;
            }
        };
        for (_, v) in &source.outputs {
            close(*v);
        }
        for node in &source.nodes {
            match node.op.role() {
                Role::Host | Role::Region(_) => node.inputs.iter().for_each(|v| close(*v)),
                Role::Gather(_) => close(node.inputs[0]),
                _ => {}
            }
        }
        let mut graph = source.clone();
        for node in &mut graph.nodes {
            if matches!(node.op.role(), Role::Store) && open[node.outputs[0].0 as usize] {
                let rank = source.ty(node.outputs[0]).rank();
                node.op = Op::new("store", &[Attr::Layout(last(rank))])?;
            }
        }
        let mut c = Chooser {
            model: CostModel::new(target).with_batches(cost::batches(source)),
            cost: target.cost.clone(),
            graph,
            source,
            varies,
            open,
            last: vec![false; n],
            kernels: vec![],
            around: vec![vec![]; n],
        };
        c.kernels()?;
        Ok(Some(c))
    }

    fn kernels(&mut self) -> Result<(), String> {
        for n in 0..self.graph.nodes.len() {
            let node = &self.graph.nodes[n];
            let result = node.outputs[0];
            if !matches!(node.op.role(), Role::Store)
                || !self.varies[result.0 as usize]
                || in_memory(&self.graph, node.inputs[0]).is_some()
            {
                continue;
            }
            let built = kernel::build(&self.graph, node.inputs[0], node.op.layout("layout"))?;
            let types = built.kernel.operands.iter().map(|o| o.ty.clone());
            let operands: Vec<(Value, Type)> = built.inputs.iter().copied().chain([result]).zip(types).collect();
            let at = self.kernels.len();
            for (v, _) in &operands {
                if !self.around[v.0 as usize].contains(&at) {
                    self.around[v.0 as usize].push(at);
                }
            }
            let heavy = self.heavy(node.inputs[0]);
            // Around a window, stores start channels last.
            if heavy.is_some_and(|(_, w)| w.is_some()) {
                for (v, _) in &operands {
                    self.last[v.0 as usize] = self.open[v.0 as usize];
                }
            }
            self.kernels.push(Kernel {
                result,
                operands,
                stages: built.kernel.stages,
                heavy,
            });
        }
        Ok(())
    }

    /// The contraction or window of a kernel.
    fn heavy(&self, root: Value) -> Option<(f64, Option<WindowShape>)> {
        let (mut todo, mut seen) = (vec![root], FxHashSet::default());
        while let Some(v) = todo.pop() {
            let Def::Node(n, _) = self.graph.def(v) else { continue };
            if in_memory(&self.graph, v).is_some() || !seen.insert(n) {
                continue;
            }
            let node = &self.graph.nodes[n as usize];
            if matches!(node.op.role(), Role::Contract(_) | Role::Window(_)) {
                let types: Vec<Type> = node.inputs.iter().map(|&i| self.graph.ty(i).clone()).collect();
                let work = self.model.operator(&node.op, &types, self.graph.ty(node.outputs[0]));
                return Some((work.compute, window(&self.graph, node)));
            }
            todo.extend(&node.inputs);
        }
        None
    }

    /// Results of kernels that read channels-last data of their rank are so too.
    fn spread(&mut self) {
        for k in &self.kernels {
            let r = k.result;
            let rank = self.graph.ty(r).rank();
            let reads = |(v, t): &(Value, Type)| self.last[v.0 as usize] && t.rank() == rank;
            if self.open[r.0 as usize] && k.operands.iter().any(reads) {
                self.last[r.0 as usize] = true;
            }
        }
    }

    fn improve(&mut self) {
        for _ in 0..SWEEPS {
            let mut changed = false;
            for v in 0..self.open.len() {
                if !self.open[v] {
                    continue;
                }
                let cost = |c: &Self| c.around[v].iter().map(|&k| c.penalty(&c.kernels[k])).sum::<f64>();
                let before = cost(self);
                self.last[v] ^= true;
                if cost(self) < before {
                    changed = true;
                } else {
                    self.last[v] ^= true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn layout(&self, v: Value, rank: usize) -> Layout {
        if self.last[v.0 as usize] {
            last(rank)
        } else {
            Layout::ROW_MAJOR
        }
    }

    /// The seconds that layouts cost a kernel.
    fn penalty(&self, k: &Kernel) -> f64 {
        let shape = &self.graph.ty(k.result).shape;
        let order = self.layout(k.result, shape.len()).order(shape.len());
        let inner = order.iter().rev().find(|&&a| !shape[a].is(1));
        let result = Place::Operand(k.operands.len() as u32 - 1);
        let along = |s: &Stage| -> Option<Var> {
            let (_, map) = s.writes.iter().find(|(p, _)| *p == result)?;
            let ix = map.get(*inner?)?;
            ix.terms.iter().find_map(|(t, _)| match t {
                Term::Var(v) => Some(*v),
                _ => None,
            })
        };
        let whole = k.stages.last().and_then(along);
        let mut sum = 0.0;
        for (i, s) in k.stages.iter().enumerate() {
            let Some(v) = along(s).or(whole) else { continue };
            let product = i == 0 && s.reads.len() == 2 && s.combine.is_some() && s.body.insts.len() == 1;
            if let (true, Some((seconds, w))) = (product, k.heavy) {
                sum += self.product(k, s, v, seconds, w);
                continue;
            }
            let reduced = s.dims.iter().rposition(|d| d.kind == IterKind::Reduction);
            let reduced = reduced.map(|d| Var((self.outer(k) + d) as u32));
            for r in &s.reads {
                let Some((operand, step)) = self.step(k, r, v) else { continue };
                let runs = |x: &Option<Dim>| x.as_ref().is_some_and(|d| d.is(1) || d.is(0));
                let along_sum = || reduced.and_then(|d| self.step(k, r, d)).is_some_and(|(_, x)| x.is_some_and(|d| d.is(1)));
                if runs(&step) || (k.heavy.is_none() && along_sum()) {
                    continue;
                }
                sum += match k.heavy {
                    Some((seconds, Some(_))) if i == 0 => seconds * (self.cost.depthwise / self.cost.window_first - 1.0),
                    _ => self.cost.strided * self.model.traffic(&operand.1),
                };
            }
        }
        sum
    }

    /// The number of outer dimensions of a kernel.
    fn outer(&self, k: &Kernel) -> usize {
        // A last stage writes at outer variables, and its own.
        self.graph.ty(k.result).rank() - k.stages.last().map_or(0, |s| s.dims.len())
    }

    /// What a contraction or convolution loses.
    fn product(&self, k: &Kernel, s: &Stage, v: Var, seconds: f64, w: Option<WindowShape>) -> f64 {
        let steps: Vec<Option<(&(Value, Type), Option<Dim>)>> = s.reads.iter().map(|r| self.step(k, r, v)).collect();
        let [Some((a, x)), Some((b, y))] = &steps[..] else { return 0.0 };
        let moved = |d: &Option<Dim>| !d.as_ref().is_some_and(|d| d.is(0));
        let varies = |o: &(Value, Type)| self.varies[o.0.0 as usize];
        match (moved(x), moved(y)) {
            (true, true) => {
                let run = |d: &Option<Dim>, o| !varies(o) || d.as_ref().is_some_and(|d| d.is(1));
                if run(x, a) && run(y, b) {
                    0.0
                } else {
                    seconds * (self.cost.depthwise / self.cost.window_first - 1.0)
                }
            }
            (true, false) | (false, true) => {
                let right = if moved(x) { a } else { b };
                let windowed = w.is_some_and(|w| w.channels != Channels::One) && s.dims.len() > 1;
                match (varies(right), windowed) {
                    (false, _) => 0.0,
                    (true, true) => seconds * (self.cost.contraction / self.cost.channels_first - 1.0),
                    (true, false) => 2.0 * self.model.traffic(&right.1),
                }
            }
            (false, false) => seconds * 4.0,
        }
    }

    /// The operand that an element is read of, and how far the next point along a variable is from it; `None` for other
    /// reads, and of what is no array.
    fn step<'k>(&self, k: &'k Kernel, r: &Read, v: Var) -> Option<(&'k (Value, Type), Option<Dim>)> {
        let Read::Element {
            place: Place::Operand(i),
            map,
            ..
        } = r
        else {
            return None;
        };
        let operand = &k.operands[*i as usize];
        let layout = self.layout(operand.0, operand.1.rank());
        Some((operand, step(&layout.index(map, &operand.1.shape), v)))
    }

    /// The graph, with weights of windows without sums over channels in the order of their channels.
    fn graph(&self) -> Result<Graph, String> {
        let mut shared: FxHashSet<Value> = FxHashSet::default();
        let g = self.source.rewrite(|out, node, inputs| {
            let v = node.outputs[0];
            let mut inputs = inputs.to_vec();
            let mut op = node.op.clone();
            if matches!(op.role(), Role::Store) && self.last[v.0 as usize] {
                op = Op::new("store", &[Attr::Layout(last(self.source.ty(v).rank()))])?;
            }
            let one = window(self.source, node).is_some_and(|w| w.channels == Channels::One);
            if one && node.inputs.len() == 2 && !self.varies[node.inputs[1].0 as usize] {
                let rank = self.source.ty(node.inputs[1]).rank();
                let order: Vec<usize> = (2..rank).chain([1, 0]).collect();
                let layout = Layout::new(&order, &[], 0)?;
                shared.insert(node.inputs[1]);
                let store = Op::new("store", &[Attr::Layout(layout)])?;
                inputs[1] = out.add(store, &[inputs[1]], &node.origin).map_err(|e| e.message)?[0];
            }
            out.add(op, &inputs, &node.origin).map_err(|e| e.message)
        });
        g.map_err(|e| e.to_string())
    }
}

fn window(g: &Graph, node: &Node) -> Option<WindowShape> {
    match node.op.role() {
        Role::Window(w) => Some(w.shape(&node.op)),
        Role::Contract(c) => {
            let types: Vec<Type> = node.inputs.iter().map(|&v| g.ty(v).clone()).collect();
            c.window(&node.op, &types)
        }
        _ => None,
    }
}

/// How far an index moves with a variable, but where a quotient changes.
fn step(ix: &Ix, v: Var) -> Option<Dim> {
    let mut sum = Dim::ZERO;
    for (t, c) in &ix.terms {
        let one = match t {
            Term::Var(u) if *u == v => Dim::ONE,
            Term::Mod(e, _) | Term::Min(e, _) => step(e, v)?,
            Term::Reg(_) => return None,
            _ => continue,
        };
        sum = &sum + &(&one * c);
    }
    Some(sum)
}
