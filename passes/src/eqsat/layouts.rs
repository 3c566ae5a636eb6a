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

use super::cost::{self, CostModel, channels_last, varying};
use super::decision::{self, Alternative, Alternatives, Decided, Decision, To};
use crate::decompose::decompose_where;
use crate::lower::kernel::{self, Lowered, in_memory, stored};
use crate::schedule::contraction::multiplied;
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::ops::{Channels, Role, WindowShape};
use brolga_ir::structured::{IterKind, Place, Read, Stage};
use brolga_ir::target::Cost;
use brolga_ir::{DType, Def, Dim, Graph, Layout, Node, NodeError, Op, Target, TileKind, Type, Value};
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

    /// The seconds that layouts cost a kernel.
    fn penalty(&self, k: &Kernel) -> f64 {
        // The variable along which what a stage writes is contiguous.
        let along = |s: &Stage| {
            let (place, map) = s.writes.first()?;
            let inner = match place {
                Place::Operand(i) => {
                    let (v, ty) = &k.operands[*i as usize];
                    let order = self.layout(*v, ty.rank()).order(ty.rank());
                    order.into_iter().rev().find(|&a| !ty.shape[a].is(1))?
                }
                Place::Local(_) => map.len().checked_sub(1)?,
            };
            let by = |one: bool| {
                map[inner].terms.iter().find_map(move |(t, c)| match t {
                    Term::Var(v) if c.is(1) == one => Some(*v),
                    _ => None,
                })
            };
            by(true).or_else(|| by(false))
        };
        let whole = k.stages.last().and_then(|(s, _)| along(s));
        let copied = |o: &&(Value, Type)| self.copies.contains(&o.0) && self.last[o.0.0 as usize];
        // A copy reads and writes, one of them against the order.
        let copying = |o: &(Value, Type)| (2.0 + self.cost.strided) * self.model.traffic(&o.1);
        let mut sum: f64 = k.operands.last().filter(copied).map_or(0.0, copying);
        for (i, (s, first)) in k.stages.iter().enumerate() {
            let Some(v) = along(s).or(whole) else { continue };
            let product = (i == 0 && s.combine.is_some()).then(|| multiplied(&s.body)).flatten();
            match (k.heavy, product) {
                (Some((seconds, w)), Some(dtype)) => sum += self.product(k, (s, *first), v, seconds, w, dtype),
                _ => {
                    sum += (0..s.reads.len())
                        .map(|r| self.read(k, (s, *first), (i, r), v))
                        .sum::<f64>()
                }
            }
        }
        sum
    }

    /// What a read costs that does not run along a variable, nor along the stage's sum.
    fn read(&self, k: &Kernel, (s, first): (&Stage, usize), at: At, v: Var) -> f64 {
        let Some((operand, step)) = self.step(k, at, v) else {
            return 0.0;
        };
        let window = match k.heavy {
            Some((seconds, Some(_))) if at.0 == 0 => Some(seconds),
            _ => None,
        };
        let reduced = s.dims.iter().rposition(|d| d.kind == IterKind::Reduction);
        let summed = reduced.filter(|_| k.heavy.is_none()).map(|d| Var((first + d) as u32));
        let along_sum = || summed.and_then(|v| self.step(k, at, v)?.1).is_some_and(|d| d.is(1));
        if step.is_some_and(|d| d.is(1) || d.is(0)) || along_sum() {
            return 0.0;
        }
        match window {
            Some(seconds) => seconds * self.against_windows(),
            None => self.cost.strided * self.model.traffic(&operand.1),
        }
    }

    /// What a contraction or convolution loses whose result is contiguous along a variable.
    fn product(
        &self,
        k: &Kernel,
        (s, first): (&Stage, usize),
        v: Var,
        seconds: f64,
        w: Option<WindowShape>,
        dtype: DType,
    ) -> f64 {
        let mut steps = (0..s.reads.len()).map(|r| self.step(k, (0, r), v));
        let (Some(Some((a, x))), Some(Some((b, y)))) = (steps.next(), steps.next()) else {
            return 0.0;
        };
        let is = |d: &Option<Dim>, n: i64| d.as_ref().is_some_and(|d| d.is(n));
        let varies = |o: &(Value, Type)| self.varies[o.0.0 as usize];
        match (is(&x, 0), is(&y, 0)) {
            // Vectors over both.
            (false, false) if (is(&x, 1) || !varies(a)) && (is(&y, 1) || !varies(b)) => 0.0,
            (false, false) => seconds * self.against_windows(),
            (true, true) => seconds * self.against_windows(),
            // Columns of the operand that moves, packed; ahead, where it is constant.
            (false, true) | (true, false) => {
                let (at, left, right) = if is(&x, 0) { (0, a, b) } else { (1, b, a) };
                let kind = |l: &(Value, Type), r: &(Value, Type)| TileKind::of([l.1.dtype, r.1.dtype, dtype]);
                match (kind(left, right), kind(right, left)) {
                    // Tiles take these operands the other way round only: their columns are apart in the result.
                    (None, Some(kind)) => {
                        let result = &k.operands.last().expect("a result").1;
                        let apart = self.cost.strided * self.model.traffic(result);
                        apart + self.tile(k, (s, first), (1 - at, right, left), kind, seconds, w)
                    }
                    (kind, _) => {
                        let kind = kind.unwrap_or(TileKind::F32);
                        self.tile(k, (s, first), (at, left, right), kind, seconds, w)
                    }
                }
            }
        }
    }

    /// What a contraction loses on tiles whose left operand is that of a read, and whose columns are those of the right one.
    fn tile(
        &self,
        k: &Kernel,
        (s, first): (&Stage, usize),
        (at, left, right): (usize, &(Value, Type), &(Value, Type)),
        kind: TileKind,
        seconds: f64,
        w: Option<WindowShape>,
    ) -> f64 {
        let varies = |o: &(Value, Type)| self.varies[o.0.0 as usize];
        let summed: SmallVec<[usize; 4]> = (0..s.dims.len()).filter(|&d| !s.dims[d].extent.is(1)).collect();
        let taps = w.is_some() && summed.len() > 1;
        let faster = if kind == TileKind::U8I8 {
            self.cost.byte_tiles
        } else {
            1.0
        };
        let slow = || seconds * (faster * self.cost.contraction / self.cost.channels_first - 1.0);
        let packing = match (varies(right), taps) {
            (false, _) => 0.0,
            (true, true) => slow(),
            (true, false) => 2.0 * self.model.traffic(&right.1),
        };
        // The other one is read in place: along the innermost sum, and in few strides.
        let group = kind.interleave();
        let inner = summed.last().map(|&d| Var((first + d) as u32));
        let along = inner.and_then(|v| self.step(k, (0, at), v)?.1);
        let strides = match along {
            _ if summed.len() > MOST_STRIDES && varies(left) => slow(),
            _ if group > 1 => match self.run(k, (s, first), at) {
                // Steps are taken side by side.
                Some(1) if !summed.is_empty() => slow(),
                Some(run) => seconds * (((run / group + run % group) * group) as f64 / run as f64 - 1.0),
                None => 0.0,
            },
            Some(d) if d.is(1) => 0.0,
            _ if !varies(left) || inner.is_none() => 0.0,
            _ => self.cost.strided * self.model.traffic(&left.1),
        };
        packing + strides
    }

    /// How many summed elements lie side by side in an operand; `None` where a symbol says so. Of groups of steps that are left behind whole
    /// ones, each step takes as long as a group.
    fn run(&self, k: &Kernel, (s, first): (&Stage, usize), read: usize) -> Option<i64> {
        let mut open: Vec<usize> = (0..s.dims.len())
            .filter(|&d| s.dims[d].kind == IterKind::Reduction && !s.dims[d].extent.is(1))
            .collect();
        let stride = |d: usize| self.step(k, (0, read), Var((first + d) as u32))?.1;
        let mut run = 1;
        while let Some(at) = open.iter().position(|&d| stride(d).is_some_and(|by| by.is(run))) {
            run *= s.dims[open.remove(at)].extent.as_const()?;
        }
        Some(run)
    }

    /// What a window loses that is read against the order, of what it takes.
    fn against_windows(&self) -> f64 {
        self.cost.depthwise / self.cost.window_first - 1.0
    }

    /// The operand of which a read takes an element, and how far from it the next one along a variable is; `None` for other
    /// reads.
    fn step<'k>(&self, k: &'k Kernel, at: At, v: Var) -> Option<(&'k (Value, Type), Option<Dim>)> {
        let Read::Element {
            place: Place::Operand(i),
            map,
            ..
        } = &k.stages[at.0].0.reads[at.1]
        else {
            return None;
        };
        let operand = &k.operands[*i as usize];
        let last = self.last[operand.0.0 as usize];
        let mut steps = k.steps.borrow_mut();
        let far = steps.entry((at, last, v)).or_insert_with(|| {
            let layout = self.layout(operand.0, operand.1.rank());
            step(&layout.index(map, &operand.1.shape), v)
        });
        Some((operand, far.clone()))
    }
}

/// How far an index moves with a variable, but where a quotient changes; `None` where data says how far.
fn step(ix: &Ix, v: Var) -> Option<Dim> {
    let mut sum = Dim::ZERO;
    for (t, c) in &ix.terms {
        let one = match t {
            Term::Var(u) if *u == v => Dim::ONE,
            Term::Mod(e, _) | Term::Min(e, _) => step(e, v)?,
            Term::Reg(_) => return None,
            Term::Var(_) | Term::Div(..) => continue,
        };
        sum = &sum + &(&one * c);
    }
    Some(sum)
}
