//! Layouts of what is stored: images with their channels innermost where that is faster, row-major elsewhere.
//!
//! Streams have no layout, so rules and fusion know none; they take it that a convolution finds its data as it likes them.
//! When the kernels are chosen, every store of an image gets one of two layouts. A kernel costs more where it reads against the
//! order in which its result lies, and where a convolution or pooling has no channels innermost. What those slide over
//! starts channels-last, and so does what is computed from it where that is no dearer; then each is changed as long as that makes
//! the kernels around it cheaper (iterated conditional modes: Besag, "On the statistical analysis of dirty pictures", 1986).
//!
//! ```text
//! %2 = conv{…}(%0, %1)         %2 = conv{…}(%0, %1)
//! %3 = store(%2)          -->  %3 = store{layout=(0, 2, 3, 1)}(%2)
//! ```
//!
//! What the caller, a host operator, a region or a gather reads stays row-major, and what an operator with a kernel of its own
//! reads under another shape. What windows give the caller may be computed channels-last and copied.

mod penalty;

use super::cost::{self, CostModel, channels_last, varying};
use super::decision::{self, Alternative, Alternatives, Decided, Decision, To};
use crate::decompose::decompose_where;
use crate::lower::kernel::{self, Lowered, in_memory, stored};
use brolga_ir::index::Var;
use brolga_ir::ops::{Channels, Role, WindowShape};
use brolga_ir::structured::Stage;
use brolga_ir::target::Cost;
use brolga_ir::{Def, Dim, Graph, Layout, Node, NodeError, Op, Target, Type, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::fmt;

/// Strides in which the register tile sums over the operand that it reads in place.
const MOST_STRIDES: usize = 3;

/// How often all stores are tried.
const SWEEPS: usize = 8;

/// What was chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chosen {
    /// Stores of images.
    pub images: usize,
    /// Those with their channels innermost.
    pub last: usize,
    /// What reading against the order of layouts costs, in seconds.
    pub seconds: f64,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.seconds * 1e3;
        write!(
            f,
            "{} of {} images are stored channels-last, {ms:.3} ms for reads against the order",
            self.last, self.images
        )
    }
}

/// A cut graph with a layout for every store, and what was chosen; `None` where there are no images. Adds what became of decisions, and
/// what else could be decided where somebody asks.
///
/// # Errors
/// When a store is no kernel, naming the model node.
pub(super) fn choose(
    graph: &Graph,
    target: &Target,
    decisions: Vec<Decision>,
    decided: &mut Vec<Decided>,
    open: Option<&mut Alternatives>,
) -> Result<(Graph, Option<Chosen>), NodeError> {
    let ranks = cost::images(graph);
    if ranks.is_empty() {
        decided.extend(decisions.into_iter().map(|decision| Decided {
            decision,
            result: Err("there are no images".into()),
        }));
        return Ok((graph.clone(), None));
    }
    let (copied, images) = with_copies(graph, &ranks)?;
    let graph = &copied;
    // As kernels are built of it.
    let parts = decompose_where(graph, |op| !op.role().is_opaque())?;
    let mut c = Chooser::new(&parts, &ranks, target)?;
    c.spread();
    c.improve();
    if open.is_some() || !decisions.is_empty() {
        let names = decision::names(stores(&parts).map(|n| Some(&*n.origin)));
        let named = stores(&parts)
            .zip(names)
            .filter_map(|(n, name)| Some((n.outputs[0], name?)));
        let named: Vec<(Value, String)> = named.collect();
        decided.extend(decisions.into_iter().map(|d| c.decide(&named, d)));
        if let Some(open) = open {
            c.explore(&named, open);
        }
    }
    let chosen = Chosen {
        images: c.open.iter().filter(|o| **o).count(),
        last: c.last.iter().filter(|l| **l).count(),
        seconds: c.total(),
    };
    // Decomposing adds no stores, and takes none away.
    let last = stores(graph).zip(stores(&parts));
    let last = last.filter(|(_, part)| c.last[part.outputs[0].0 as usize]);
    let last: FxHashSet<Value> = last.map(|(n, _)| n.outputs[0]).collect();
    let whole: FxHashSet<Value> = images.difference(&last).copied().collect();
    Ok((with_layouts(graph, &last, &whole)?, Some(chosen)))
}

/// The stores of a graph.
fn stores(graph: &Graph) -> impl Iterator<Item = &Node> {
    graph.nodes.iter().filter(|n| matches!(n.op.role(), Role::Store))
}

/// The layout of an image with its channels innermost.
fn innermost(rank: usize) -> Layout {
    Layout::new(&channels_last(rank), &[], 0).expect("a permutation")
}

/// The graph in which images that windows give the caller are stored, and then copied to where the caller wants them; and those
/// images.
fn with_copies(graph: &Graph, ranks: &[usize]) -> Result<(Graph, FxHashSet<Value>), NodeError> {
    let results: FxHashSet<Value> = graph.roots().collect();
    let mut images = FxHashSet::default();
    let copied = graph.rewrite(|out, node, inputs| {
        let add = |out: &mut Graph, inputs: &[Value]| {
            let added = out.add(node.op.clone(), inputs, &node.origin);
            added.map_err(|e| e.message)
        };
        let v = node.outputs[0];
        let image = matches!(node.op.role(), Role::Store) && ranks.contains(&graph.ty(v).rank());
        let windowed = |x: Value| {
            Stream::of(graph, x)
                .heavy
                .is_some_and(|n| window(graph, &graph.nodes[n]).is_some())
        };
        let apart = image && results.contains(&v) && windowed(node.inputs[0]);
        if !apart {
            return add(out, inputs);
        }
        let stored = add(out, inputs)?;
        images.extend(&stored);
        add(out, &stored)
    })?;
    Ok((copied, images))
}

/// The stores that are there to be copied, see [`with_copies`].
fn copies(graph: &Graph) -> FxHashSet<Value> {
    let operand = |v: Value| match graph.def(v) {
        Def::Node(n, _) => {
            let node = &graph.nodes[n as usize];
            matches!(node.op.role(), Role::Store).then(|| node.inputs[0])
        }
        _ => None,
    };
    let read = |(_, v): &(String, Value)| operand(*v).filter(|x| operand(*x).is_some());
    graph.outputs.iter().filter_map(read).collect()
}

/// The graph with these stores channels-last. Of those that are `whole` no copies are made. Constant weights that are read side by
/// side for all channels lie so as well.
fn with_layouts(graph: &Graph, last: &FxHashSet<Value>, whole: &FxHashSet<Value>) -> Result<Graph, NodeError> {
    let varies = varying(graph);
    graph.rewrite(|out, node, inputs| {
        if matches!(node.op.role(), Role::Store) && whole.contains(&node.inputs[0]) {
            return Ok(inputs.to_vec());
        }
        let mut inputs: SmallVec<[Value; 4]> = inputs.into();
        let mut op = node.op.clone();
        if last.contains(&node.outputs[0]) {
            op = Op::store(innermost(graph.ty(node.outputs[0]).rank()));
        }
        let one = window(graph, node).is_some_and(|w| w.channels == Channels::One);
        if let (true, [_, w]) = (one, &node.inputs[..])
            && !varies[w.0 as usize]
        {
            let rank = graph.ty(*w).rank();
            let order: Vec<usize> = (2..rank).chain([1, 0]).collect();
            let store = Op::store(Layout::new(&order, &[], 0)?);
            inputs[1] = out.add(store, &[inputs[1]], &node.origin).map_err(|e| e.message)?[0];
        }
        out.add(op, &inputs, &node.origin).map_err(|e| e.message)
    })
}

/// The shape of a convolution's or pooling's windows.
fn window(g: &Graph, node: &Node) -> Option<WindowShape> {
    let types: Vec<Type> = node.inputs.iter().map(|&v| g.ty(v).clone()).collect();
    cost::window(&node.op, &types)
}

/// What a kernel of the graph is made of.
struct Stream {
    /// What it reads from memory.
    reads: Vec<Value>,
    /// The node of its contraction or window.
    heavy: Option<usize>,
}

impl Stream {
    fn of(graph: &Graph, root: Value) -> Stream {
        let mut s = Stream {
            reads: vec![],
            heavy: None,
        };
        let (mut todo, mut seen) = (vec![root], FxHashSet::default());
        while let Some(v) = todo.pop() {
            if !seen.insert(v) {
                continue;
            }
            match (in_memory(graph, v), graph.def(v)) {
                (Some(m), _) => s.reads.push(m),
                (None, Def::Node(n, _)) => {
                    let node = &graph.nodes[n as usize];
                    if matches!(node.op.role(), Role::Contract(_) | Role::Window(_) | Role::Own(_)) {
                        s.heavy = Some(n as usize);
                    }
                    todo.extend(&node.inputs);
                }
                _ => {}
            }
        }
        s
    }
}

/// Leaves open only what a chain of kernels joins to a window: kernels that read and write images, and are no matrix products.
fn join(graph: &Graph, ranks: &[usize], open: &mut [bool]) {
    let mut chains: Vec<Vec<Value>> = vec![];
    let mut near = vec![false; open.len()];
    for node in graph.nodes.iter().filter(|n| matches!(n.op.role(), Role::Store)) {
        let stream = Stream::of(graph, node.inputs[0]);
        let windows = stream.heavy.map(|n| window(graph, &graph.nodes[n]).is_some());
        let all = stream.reads.into_iter().chain([node.outputs[0]]);
        let images: Vec<Value> = all
            .filter(|v| open[v.0 as usize] && ranks.contains(&graph.ty(*v).rank()))
            .collect();
        if windows == Some(true) {
            images.iter().for_each(|v| near[v.0 as usize] = true);
        }
        if windows != Some(false) {
            chains.push(images);
        }
    }
    let mut grows = true;
    while grows {
        grows = false;
        for images in &chains {
            let joined = images.iter().filter(|v| near[v.0 as usize]).count();
            if joined > 0 && joined < images.len() {
                images.iter().for_each(|v| near[v.0 as usize] = true);
                grows = true;
            }
        }
    }
    open.iter_mut().zip(near).for_each(|(open, near)| *open &= near);
}

/// A kernel: what its stages read and write.
struct Kernel {
    /// What operands are, results last.
    operands: Vec<(Value, Type)>,
    /// Each with its first own variable.
    stages: Vec<(Stage, usize)>,
    /// The seconds of its contraction or window where layouts are as it likes them, and the windows.
    heavy: Option<(f64, Option<WindowShape>)>,
    /// How far reads move, as far as that was asked for: it is asked again and again.
    steps: RefCell<FxHashMap<(At, bool, Var), Option<Dim>>>,
}

/// A read of a kernel: the stage's position, and the read's in it.
type At = (usize, usize);

struct Chooser {
    /// The graph, every image being stored channels-last.
    graph: Graph,
    model: CostModel,
    cost: Cost,
    varies: Vec<bool>,
    /// The stores that are there to be copied.
    copies: FxHashSet<Value>,
    /// By value: whether it may be channels-last, and whether it is.
    open: Vec<bool>,
    last: Vec<bool>,
    /// Which were decided about.
    fixed: Vec<bool>,
    kernels: Vec<Kernel>,
    /// By value: the kernels that write or read it.
    around: Vec<SmallVec<[u32; 4]>>,
}

impl Chooser {
    fn new(source: &Graph, ranks: &[usize], target: &Target) -> Result<Chooser, NodeError> {
        let n = source.values.len();
        let varies = varying(source);
        let mut open = vec![false; n];
        for node in &source.nodes {
            let (v, image) = (node.outputs[0], |v: Value| ranks.contains(&source.ty(v).rank()));
            open[v.0 as usize] = matches!(node.op.role(), Role::Store)
                && varies[v.0 as usize]
                && image(v)
                && in_memory(source, node.inputs[0]).is_none();
        }
        let mut close = |v: Value| {
            if let Some(m) = stored(source, v) {
                open[m.0 as usize] = false;
            }
        };
        source.roots().for_each(&mut close);
        for node in &source.nodes {
            match node.op.role() {
                Role::Own(_) => {
                    let reshaped = node.inputs.iter().filter(|&&v| stored(source, v) != Some(v));
                    reshaped.for_each(|v| close(*v));
                }
                Role::Host | Role::Region(_) => node.inputs.iter().for_each(|v| close(*v)),
                Role::Gather(_) => close(node.inputs[0]),
                _ => {}
            }
        }
        join(source, ranks, &mut open);
        let mut graph = source.clone();
        for node in &mut graph.nodes {
            if open[node.outputs[0].0 as usize] {
                node.op = Op::store(innermost(source.ty(node.outputs[0]).rank()));
            }
        }
        let mut c = Chooser {
            model: CostModel::new(target).of_graph(cost::batches(source), ranks.to_vec()),
            cost: target.cost.clone(),
            graph,
            varies,
            copies: copies(source),
            open,
            last: vec![false; n],
            fixed: vec![false; n],
            kernels: vec![],
            around: vec![SmallVec::new(); n],
        };
        for n in 0..c.graph.nodes.len() {
            c.kernel(n)?;
        }
        Ok(c)
    }

    /// Adds the kernel of a node that has one. Images that windows slide over start channels-last.
    fn kernel(&mut self, n: usize) -> Result<(), NodeError> {
        let node = &self.graph.nodes[n];
        let built = self.built(node).map_err(|message| NodeError {
            node: node.origin.to_string(),
            message,
        })?;
        let Some(built) = built else { return Ok(()) };
        let first = |loops: usize| built.kernel.outer.len() + loops;
        let placed = built.kernel.placed().into_iter();
        let stages = placed.map(|(s, loops)| (s.clone(), first(loops.len()))).collect();
        let types = built.kernel.operands.into_iter().map(|o| o.ty);
        let results = node.outputs.iter().copied();
        let operands: Vec<(Value, Type)> = built.inputs.into_iter().chain(results).zip(types).collect();
        let heavy = self.heavy(node);
        for (v, _) in &operands {
            let around = &mut self.around[v.0 as usize];
            if around.last() != Some(&(self.kernels.len() as u32)) {
                around.push(self.kernels.len() as u32);
            }
            let windowed = !node.outputs.contains(v) && matches!(heavy, Some((_, Some(_))));
            self.last[v.0 as usize] |= windowed && self.open[v.0 as usize];
        }
        self.kernels.push(Kernel {
            operands,
            stages,
            heavy,
            steps: RefCell::default(),
        });
        Ok(())
    }

    /// The kernel of a store, or of a step with one, that depends on an input and reads or writes what is open.
    fn built(&self, node: &Node) -> Result<Option<Lowered>, String> {
        let (graph, near) = (&self.graph, |v: &Value| self.open[v.0 as usize]);
        if !node.outputs.iter().any(|v| self.varies[v.0 as usize]) {
            return Ok(None);
        }
        match node.op.role() {
            Role::Store if in_memory(graph, node.inputs[0]).is_none() => {
                let x = node.inputs[0];
                let concerns = near(&node.outputs[0]) || Stream::of(graph, x).reads.iter().any(near);
                concerns
                    .then(|| kernel::build(graph, x, node.op.layout("layout")))
                    .transpose()
            }
            Role::Own(own) if !own.is_fused() && node.inputs.iter().any(near) => {
                kernel::step(graph, node, own).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The seconds of a kernel's contraction or window where layouts are as it likes them, and its windows.
    fn heavy(&self, kernel: &Node) -> Option<(f64, Option<WindowShape>)> {
        let root = matches!(kernel.op.role(), Role::Store).then(|| kernel.inputs[0])?;
        let node = &self.graph.nodes[Stream::of(&self.graph, root).heavy?];
        let types: Vec<Type> = node.inputs.iter().map(|&i| self.graph.ty(i).clone()).collect();
        let work = self.model.operator(&node.op, &types, self.graph.ty(node.outputs[0]));
        Some((work.compute, window(&self.graph, node)))
    }

    /// What windows give, or is computed from channels-last images, becomes one, where its kernel is no dearer by that.
    fn spread(&mut self) {
        for k in 0..self.kernels.len() {
            let (result, _) = self.kernels[k].operands.last().expect("a result");
            let at = result.0 as usize;
            let mut operands = self.kernels[k].operands.iter();
            let windowed = matches!(self.kernels[k].heavy, Some((_, Some(_))));
            let near = windowed || operands.any(|(v, _)| self.last[v.0 as usize]);
            if self.last[at] || !self.open[at] || !near {
                continue;
            }
            let before = self.penalty(&self.kernels[k]);
            self.last[at] = true;
            self.last[at] = self.penalty(&self.kernels[k]) <= before;
        }
    }

    /// Changes stores while that makes the kernels around them cheaper.
    fn improve(&mut self) {
        for _ in 0..SWEEPS {
            let mut changed = false;
            for v in (0..self.open.len())
                .filter(|&v| self.open[v] && !self.fixed[v])
                .collect::<Vec<_>>()
            {
                let around = |c: &Self| -> f64 {
                    let kernels = c.around[v].iter();
                    kernels.map(|&k| c.penalty(&c.kernels[k as usize])).sum()
                };
                let before = around(self);
                self.last[v] ^= true;
                if around(self) < before {
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

    /// The seconds that layouts cost all kernels.
    fn total(&self) -> f64 {
        self.kernels.iter().map(|k| self.penalty(k)).sum()
    }

    /// Gives a store the other layout, and what is around it the best ones then; the seconds that this adds.
    fn turn(&mut self, v: usize) -> f64 {
        let before = self.total();
        self.last[v] ^= true;
        self.fixed[v] = true;
        self.improve();
        self.total() - before
    }

    fn decide(&mut self, named: &[(Value, String)], decision: Decision) -> Decided {
        let named = named.iter().find(|(_, n)| *n == decision.value);
        let last = decision.to == To::Last;
        let result = match named.map(|(v, _)| v.0 as usize) {
            None => Err("nothing of that name is stored"),
            Some(v) if !self.open[v] => Err("it has one layout only"),
            Some(v) if self.last[v] == last => Err("it is so already"),
            Some(v) => Ok(self.turn(v)),
        };
        Decided {
            decision,
            result: result.map_err(str::to_owned),
        }
    }

    /// What else could be decided: the other layout for each store, and one layout for all of them.
    fn explore(&mut self, named: &[(Value, String)], found: &mut Alternatives) {
        let to = |last: bool| if last { To::Last } else { To::Rows };
        let images: Vec<&(Value, String)> = named.iter().filter(|(v, _)| self.open[v.0 as usize]).collect();
        for (v, name) in &images {
            let at = v.0 as usize;
            let (last, fixed) = (self.last.clone(), self.fixed.clone());
            let seconds = self.turn(at);
            (self.last, self.fixed) = (last, fixed);
            let value = name.clone();
            let to = to(!self.last[at]);
            found.add(Decision { value, to }, format!("image {}", self.graph.ty(*v)), seconds);
        }
        for last in [false, true] {
            let turned = images.iter().filter(|(v, _)| self.last[v.0 as usize] != last);
            let turned: Vec<&&(Value, String)> = turned.collect();
            if turned.len() < 2 {
                continue;
            }
            let (before, kept) = (self.total(), self.last.clone());
            images.iter().for_each(|(v, _)| self.last[v.0 as usize] = last);
            let seconds = self.total() - before;
            self.last = kept;
            let decisions = turned.iter().map(|(_, name)| Decision {
                value: name.clone(),
                to: to(last),
            });
            found.push(Alternative {
                decisions: decisions.collect(),
                about: "all images".into(),
                seconds,
            });
        }
    }

    fn layout(&self, v: Value, rank: usize) -> Layout {
        if self.last[v.0 as usize] {
            innermost(rank)
        } else {
            Layout::ROW_MAJOR
        }
    }
}
