//! One kernel of the cut graph (the stream DAG between loads and a `store`) becomes a [`Kernel`] of structured stages.
//!
//! Values are composed from the store toward the loads: `emit` gives the scalar expression of a value at index
//! expressions. Movement turns into index maps on the way, so it leaves no trace. A reduction becomes a stage of its own
//! that fills a local, read by the stages after it.
//!
//! ```text
//! store(relu(add(contract(x, w), broadcast(b))))  -->  kernel outer(M, N) {
//!                                                        stage reduce(K) { x[i0,i2] * w[i2,i1] -> l0 }
//!                                                        stage { relu(l0 + b[i1]) -> out[i0,i1] } }
//! ```

mod assemble;
mod combine;
mod emit;
mod gather;
mod own;
mod reduce;
mod stage;
mod tree;

use brolga_ir::index::{Ix, Var};
use brolga_ir::ops::Role;
use brolga_ir::structured::{self, Combine, IterDim, IterKind, Kernel, Local, Operand, Part, Place, Read, Stage};
use brolga_ir::{DType, Def, Dim, Graph, Layout, Node, Symbol, Type, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use stage::{E, StageBuilder};
use std::sync::Arc;

pub use own::step;

/// A structured kernel and the tensors that its operands are.
pub struct Lowered {
    /// The kernel; its last operand is the result.
    pub kernel: Kernel,
    /// The value in memory behind each operand but the last.
    pub inputs: Vec<Value>,
    /// The model nodes that it came from.
    pub origin: Vec<Arc<str>>,
    /// The model node of each number of the kernel's checks.
    pub checks: Vec<Arc<str>>,
}

/// The tensor in memory that a value is, reshapes (which are free where memory is row-major) looked through; `None` for a
/// stream.
pub fn in_memory(graph: &Graph, v: Value) -> Option<Value> {
    let memory = stored(graph, v)?;
    (memory == v || layout(graph, memory).is_row_major()).then_some(memory)
}

/// The tensor in memory whose elements in order are those of a value; `None` for a stream.
pub fn stored(graph: &Graph, v: Value) -> Option<Value> {
    match graph.def(v) {
        Def::Input(_) | Def::Const(_) => Some(v),
        Def::Node(n, _) => {
            let node = &graph.nodes[n as usize];
            match node.op.role() {
                role if matches!(role, Role::Store) || role.is_step() => Some(v),
                Role::Reshape(_) => stored(graph, node.inputs[0]),
                _ => None,
            }
        }
    }
}

/// How a tensor in memory lies there.
pub fn layout(graph: &Graph, memory: Value) -> &Layout {
    static ROW_MAJOR: Layout = Layout::ROW_MAJOR;
    match graph.def(memory) {
        Def::Node(n, _) if matches!(graph.nodes[n as usize].op.role(), Role::Store) => {
            graph.nodes[n as usize].op.layout("layout")
        }
        _ => &ROW_MAJOR,
    }
}

struct KernelBuilder<'g> {
    graph: &'g Graph,
    kernel: Kernel,
    inputs: Vec<Value>,
    /// Operands before this one belong to the sides of a contraction.
    own: usize,
    origin: Vec<Arc<str>>,
    checks: Vec<Arc<str>>,
    /// Locals of reductions that stages have computed.
    reduced: FxHashMap<Value, u32>,
    /// Locals that hold rows of expensive values used more than once.
    rows: FxHashMap<Value, u32>,
    /// The reduced axes of a row kernel, in order.
    axes: Vec<usize>,
    /// For each dimension of the domain, its outer variable; `None` for a reduced axis.
    outer_of: Vec<Option<Var>>,
    /// For each axis of a contraction's or window's result, which axis of the domain it is: itself, but under transposes.
    anchored: Vec<usize>,
    /// The result's.
    layout: &'g Layout,
}

/// Builds the kernel whose result is `root`, the operand of a `store`, in a layout. Its points are visited in the order in
/// which the result lies in memory.
///
/// # Errors
/// When the streams below `root` do not form one kernel, with the reason.
pub fn build(graph: &Graph, root: Value, layout: &Layout) -> Result<Lowered, String> {
    // A reshape at the root changes nothing in row-major memory.
    let mut root = root;
    while layout.is_row_major()
        && in_memory(graph, root).is_none()
        && let Def::Node(n, _) = graph.def(root)
        && matches!(graph.nodes[n as usize].op.role(), Role::Reshape(_))
    {
        root = graph.nodes[n as usize].inputs[0];
    }
    let kernel = Kernel {
        name: String::new(),
        symbols: graph.symbols.clone(),
        operands: vec![],
        locals: vec![],
        outer: vec![],
        schedule: None,
        parts: vec![],
    };
    let mut l = KernelBuilder {
        graph,
        kernel,
        inputs: vec![],
        own: 0,
        origin: vec![],
        checks: vec![],
        reduced: FxHashMap::default(),
        rows: FxHashMap::default(),
        axes: vec![],
        outer_of: vec![],
        anchored: vec![],
        layout,
    };
    l.run(root)?;
    let ty = graph.ty(root).clone();
    let out = l.kernel.operands.len() as u32;
    l.kernel.operands.push(Operand {
        ty,
        role: structured::Role::Out,
        layout: layout.clone(),
    });
    // The result's operand comes last, when all inputs are known.
    l.kernel.for_each_stage_mut(&mut |stage| {
        for place in stage
            .writes
            .iter_mut()
            .map(|w| &mut w.0)
            .chain(stage.reads.iter_mut().filter_map(|r| match r {
                Read::Element { place, .. } => Some(place),
                _ => None,
            }))
        {
            if *place == RESULT {
                *place = Place::Operand(out);
            }
        }
    });
    Ok(Lowered {
        kernel: l.kernel,
        inputs: l.inputs,
        origin: l.origin,
        checks: l.checks,
    })
}

/// The cycles from which on a value of a row is kept instead of computed again.
const WORTH_KEEPING: f64 = 8.0;

/// The result's place until the operands are numbered.
const RESULT: Place = Place::Operand(u32::MAX);

impl<'g> KernelBuilder<'g> {
    fn run(&mut self, root: Value) -> Result<(), String> {
        let shape = self.graph.ty(root).shape.clone();
        let streams = self.streams(root);
        self.origin = origins(streams.iter().map(|&n| &self.graph.nodes[n]));
        if let Some(node) = self.node(root)
            && let Role::Assemble(assembly) = node.op.role()
        {
            return self.assemble(node, assembly);
        }
        if let Some(node) = self.node(root)
            && let Role::Tree(tree) = node.op.role()
        {
            return self.tree(node, tree);
        }
        let own = streams.iter().find_map(|&n| match self.graph.nodes[n].op.role() {
            Role::Own(own) => Some((&self.graph.nodes[n], own)),
            _ => None,
        });
        if let Some((node, own)) = own {
            return self.own(node, own, root);
        }
        let reduction = streams.iter().find_map(|&n| {
            let node = &self.graph.nodes[n];
            let Role::Rows(rows) = node.op.role() else { return None };
            let operand = self.graph.ty(node.inputs[0]);
            Some((rows.axes(&node.op, operand), &operand.shape))
        });
        let domain = reduction.as_ref().map_or(&shape, |(_, domain)| domain).clone();
        self.axes = reduction.map_or(vec![], |(axes, _)| axes);
        self.outer_of = vec![None; domain.len()];
        for d in self.layout.order(domain.len()) {
            if !self.axes.contains(&d) {
                self.outer_of[d] = Some(Var(self.kernel.outer.len() as u32));
                self.kernel.outer.push(domain[d].clone());
            }
        }
        self.anchored = self.order(root, domain.len());
        // Reductions, innermost first; before each, rows of expensive values that more than one stage reads.
        for &n in &streams {
            let node = &self.graph.nodes[n];
            match node.op.role() {
                Role::Rows(_) | Role::Window(_) | Role::Contract(_) => self.reduction(node)?,
                Role::Map(_) if !self.axes.is_empty() && self.worth_keeping(node, &streams) => {
                    self.keep_row(node.outputs[0])?
                }
                _ => {}
            }
        }
        self.last_stage(root, &domain)
    }

    /// The nodes of the group, in topological order.
    fn streams(&self, root: Value) -> Vec<usize> {
        let (mut seen, mut todo) = (std::collections::BTreeSet::new(), vec![root]);
        while let Some(v) = todo.pop() {
            if let Some(n) = self.stream_node(v)
                && seen.insert(n)
            {
                todo.extend(&self.graph.nodes[n].inputs);
            }
        }
        seen.into_iter().collect()
    }

    /// For each axis of the result of the contraction, window or operator with a kernel of its own below a stream, which axis of
    /// the stream it is; as it is where there is none.
    fn order(&self, root: Value, rank: usize) -> Vec<usize> {
        let plain: Vec<usize> = (0..rank).collect();
        let (mut todo, mut seen) = (vec![(root, plain.clone())], FxHashSet::default());
        while let Some((v, axes)) = todo.pop() {
            let Some(node) = self.node(v).filter(|_| seen.insert(v)) else {
                continue;
            };
            let below = match node.op.role() {
                Role::Contract(_) | Role::Window(_) | Role::Own(_) => return axes,
                Role::Map(_) => axes,
                Role::Move(m) => {
                    let Some(p) = m.permutation(&node.op) else { continue };
                    let mut below = axes.clone();
                    p.iter().zip(axes).for_each(|(&from, axis)| below[from] = axis);
                    below
                }
                _ => continue,
            };
            todo.extend(node.inputs.iter().map(|&i| (i, below.clone())));
        }
        plain
    }

    fn stream_node(&self, v: Value) -> Option<usize> {
        match self.graph.def(v) {
            Def::Node(n, _) if in_memory(self.graph, v).is_none() => Some(n as usize),
            _ => None,
        }
    }

    fn node(&self, v: Value) -> Option<&'g Node> {
        self.stream_node(v).map(|n| &self.graph.nodes[n])
    }

    /// True for an expensive full-row value that at least two nodes of the group use.
    fn worth_keeping(&self, node: &Node, streams: &[usize]) -> bool {
        let v = node.outputs[0];
        let users = streams
            .iter()
            .filter(|&&n| self.graph.nodes[n].inputs.contains(&v))
            .count();
        let ty = self.graph.ty(v);
        let full = ty.rank() == self.outer_of.len() && self.axes.iter().any(|&a| !ty.shape[a].is(1));
        let cycles = node.op.role().function().map_or(0.0, |f| f.cycles());
        users > 1 && full && cycles >= WORTH_KEEPING && self.has_scratch(node)
    }

    /// Whether there is memory for a row before the run: not where data tell its length and nothing bounds it.
    fn has_scratch(&self, node: &Node) -> bool {
        let mut late: FxHashMap<Symbol, Option<Dim>> = FxHashMap::default();
        for read in &self.graph.reads {
            let bound = read.bound.as_ref().and_then(|d| d.upper_bound(&late));
            late.insert(read.symbol.clone(), bound);
        }
        let shape = &self.graph.ty(node.outputs[0]).shape;
        self.axes.iter().all(|&a| shape[a].upper_bound(&late).is_some())
    }

    fn keep_row(&mut self, v: Value) -> Result<(), String> {
        let ty = self.graph.ty(v).clone();
        let shape: Vec<Dim> = self.axes.iter().map(|&a| ty.shape[a].clone()).collect();
        let local = self.local(ty.dtype, shape.clone());
        let at = self.row_coordinates();
        let mut s = StageBuilder::default();
        let e = self.emit(&mut s, v, &at, &[])?;
        let inner = self.inner_vars().into_iter().map(Ix::var).collect();
        let dims = shape
            .into_iter()
            .map(|extent| IterDim {
                extent,
                kind: IterKind::Parallel,
            })
            .collect();
        self.push_stage(s, dims, &[e], None, vec![(Place::Local(local), inner)])?;
        self.rows.insert(v, local);
        Ok(())
    }

    fn local(&mut self, dtype: DType, shape: Vec<Dim>) -> u32 {
        self.kernel.locals.push(Local { dtype, shape });
        self.kernel.locals.len() as u32 - 1
    }

    fn inner_vars(&self) -> Vec<Var> {
        let n = self.kernel.outer.len();
        (0..self.axes.len()).map(|i| Var((n + i) as u32)).collect()
    }

    /// Coordinates of the whole domain: outer variables, and inner variables along the reduced axes.
    fn row_coordinates(&self) -> Vec<Ix> {
        let mut inner = self.inner_vars().into_iter();
        let next = |o: &Option<Var>| Ix::var(o.unwrap_or_else(|| inner.next().expect("one a reduced axis")));
        self.outer_of.iter().map(next).collect()
    }

    fn push_stage(
        &mut self,
        s: StageBuilder,
        dims: Vec<IterDim>,
        outputs: &[E],
        combine: Option<Combine>,
        writes: Vec<(Place, Vec<Ix>)>,
    ) -> Result<&mut Stage, String> {
        let checks = s.checks.clone();
        let (reads, body) = s.finish(outputs)?;
        self.kernel.parts.push(Part::Stage(Stage {
            dims,
            guard: vec![],
            reads,
            checks,
            body,
            combine,
            writes,
            scan: false,
            scatter: false,
        }));
        match self.kernel.parts.last_mut() {
            Some(Part::Stage(s)) => Ok(s),
            _ => unreachable!("just pushed"),
        }
    }

    /// The stage that writes the result.
    fn last_stage(&mut self, root: Value, domain: &[Dim]) -> Result<(), String> {
        let shape = &self.graph.ty(root).shape;
        let mut s = StageBuilder::default();
        // A result that is itself reduced has extent 1 along the axes: nothing to iterate over.
        let inner: Vec<usize> = self
            .axes
            .iter()
            .copied()
            .filter(|&a| !shape[a].is(1) || domain[a].is(1))
            .collect();
        let whole = inner.len() == self.axes.len();
        if !whole && !inner.is_empty() && inner.iter().any(|&a| !domain[a].is(1)) {
            return Err("the result is reduced along some of the row's axes only".to_string());
        }
        let at = if whole {
            self.row_coordinates()
        } else {
            self.outer_of
                .iter()
                .map(|o| o.map_or(Ix::constant(0), Ix::var))
                .collect()
        };
        let dims = if whole {
            self.axes
                .iter()
                .map(|&a| IterDim {
                    extent: domain[a].clone(),
                    kind: IterKind::Parallel,
                })
                .collect()
        } else {
            vec![]
        };
        let e = self.emit(&mut s, root, &at, &[])?;
        self.push_stage(s, dims, &[e], None, vec![(RESULT, at)])?;
        Ok(())
    }

    /// The operand that reads a tensor in memory under a type.
    fn operand(&mut self, memory: Value, ty: Type) -> Place {
        let known =
            (self.own..self.inputs.len()).find(|&i| self.inputs[i] == memory && self.kernel.operands[i].ty == ty);
        let layout = layout(self.graph, memory);
        Place::Operand(known.unwrap_or_else(|| {
            self.inputs.push(memory);
            self.kernel.operands.push(Operand {
                ty,
                role: structured::Role::In,
                layout: layout.clone(),
            });
            self.inputs.len() - 1
        }) as u32)
    }

    /// The number of the checks of a node's indices.
    fn check(&mut self, node: &Node) -> u32 {
        let known = self.checks.iter().position(|n| *n == node.origin);
        known.unwrap_or_else(|| {
            self.checks.push(node.origin.clone());
            self.checks.len() - 1
        }) as u32
    }
}

/// Names of the model nodes behind a list of nodes, each once.
fn origins<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<Arc<str>> {
    let mut out: Vec<Arc<str>> = vec![];
    for n in nodes {
        if !n.origin.is_empty() && !out.contains(&n.origin) {
            out.push(n.origin.clone());
        }
    }
    out
}
