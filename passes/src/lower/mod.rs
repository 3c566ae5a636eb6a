//! From the cut tensor graph to a program of structured kernels ([`kernel`]): steps over slots.
//!
//! A `store` becomes a kernel call, a host operator a host step; what depends on constants only becomes an initial step,
//! run at compile time. Structurally equal kernels are emitted once. Inputs, outputs and constants are slots of their
//! own; every other stored value is a temporary, placed by [`crate::memory`].

pub(crate) mod kernel;
mod region;
pub(crate) mod sizes;

use crate::decompose::decompose_where;
use brolga_ir::ops::{OwnKernel, Role};
use brolga_ir::program::{Program, Slot, SlotId, Step, Storage};
use brolga_ir::{Def, Dim, Graph, Layout, Node, NodeError, Symbol, Type, Value, structured};
use kernel::{Lowered, in_memory, stored};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A model at level 2: steps over slots that call structured kernels.
pub type Structured = Program<structured::Kernel>;

/// Lowers a cut graph to structured kernels.
///
/// # Errors
/// When a stream between stores is no single kernel, naming the model node.
pub fn to_structured(graph: &Graph) -> Result<Structured, NodeError> {
    // The kernels that composite operators are part of see core operators only.
    let graph = decompose_where(graph, |op| !op.role().brings_kernel())?;
    let mut l = ProgramBuilder::new(&graph);
    l.nodes()?;
    l.outputs().map_err(no_node)?;
    sizes::allocate(&mut l.program);
    Ok(l.program)
}

/// The program of a graph, before anything is in it.
fn empty_program(graph: &Graph) -> Structured {
    Program {
        name: graph.name.clone(),
        symbols: graph.symbols.clone(),
        guards: sizes::at_entry(graph),
        strings: graph.strings.clone(),
        lets: vec![],
        aliases: vec![],
        inputs: vec![],
        outputs: vec![],
        slots: vec![],
        kernels: vec![],
        init: vec![],
        steps: vec![],
        arena: None,
    }
}

fn no_node(message: String) -> NodeError {
    NodeError {
        node: String::new(),
        message,
    }
}

struct ProgramBuilder<'g> {
    graph: &'g Graph,
    program: Structured,
    /// The first output that each value in memory is.
    outputs: FxHashMap<Value, usize>,
    /// The slots that values in memory are to be written to, where these are there before.
    targets: FxHashMap<Value, SlotId>,
    /// Slots of values in memory.
    slots: FxHashMap<Value, SlotId>,
    /// Row-major copies of values that lie otherwise.
    copies: FxHashMap<Value, SlotId>,
    /// Slots of the same memory under other shapes.
    aliases: FxHashMap<(SlotId, Type), SlotId>,
    /// Kernels by structure (their names cleared).
    known: FxHashMap<structured::Kernel, u32>,
    /// Slots whose contents depend on constants only.
    constant: Vec<bool>,
    /// The sizes of the graph that data tell and that are read already.
    late: Vec<Symbol>,
}

impl<'g> ProgramBuilder<'g> {
    fn new(graph: &'g Graph) -> ProgramBuilder<'g> {
        let program = empty_program(graph);
        let outputs = graph.outputs.iter().enumerate();
        let mut l = ProgramBuilder {
            graph,
            program,
            outputs: outputs
                .rev()
                .filter_map(|(i, (_, o))| Some((row_major(graph, *o)?, i)))
                .collect(),
            targets: FxHashMap::default(),
            slots: FxHashMap::default(),
            copies: FxHashMap::default(),
            aliases: FxHashMap::default(),
            known: FxHashMap::default(),
            constant: vec![],
            late: vec![],
        };
        for (i, input) in graph.inputs.iter().enumerate() {
            let s = l.slot(graph.ty(input.value).clone(), Storage::Input(i as u32), false);
            l.slots.insert(input.value, s);
            l.program.inputs.push((input.name.clone(), s));
        }
        l
    }

    fn slot(&mut self, ty: Type, storage: Storage, constant: bool) -> SlotId {
        self.program.slots.push(Slot::new(ty, storage));
        self.constant.push(constant);
        SlotId(self.program.slots.len() as u32 - 1)
    }

    /// The slot of a value in memory, row-major and of its type; a constant's is made when it is first used.
    fn memory(&mut self, v: Value) -> Result<SlotId, String> {
        let s = self.plain_root(v)?;
        Ok(self.under(s, self.graph.ty(v).clone()))
    }

    /// The slot of the memory that a value lies in, or of a row-major copy of it.
    fn plain_root(&mut self, v: Value) -> Result<SlotId, String> {
        match stored(self.graph, v) {
            Some(m) if !kernel::layout(self.graph, m).is_row_major() => self.copied(m),
            _ => self.root(v),
        }
    }

    /// A row-major copy of a value that lies otherwise.
    fn copied(&mut self, v: Value) -> Result<SlotId, String> {
        if let Some(&s) = self.copies.get(&v) {
            return Ok(s);
        }
        let constant = self.root(v).map(|s| self.constant[s.0 as usize])?;
        let storage = if constant {
            Storage::Computed
        } else {
            Storage::Temp(None)
        };
        let to = self.slot(self.graph.ty(v).clone(), storage, constant);
        self.call(v, &Layout::ROW_MAJOR, to)?;
        self.copies.insert(v, to);
        Ok(to)
    }

    /// The slot of the memory that a value, or what it is a reshape of, lies in.
    fn root(&mut self, v: Value) -> Result<SlotId, String> {
        let v = in_memory(self.graph, v).ok_or_else(|| format!("{v} is not in memory"))?;
        if let Some(&s) = self.slots.get(&v) {
            return Ok(s);
        }
        let c = self
            .graph
            .as_constant(v)
            .ok_or_else(|| format!("{v} is used before it is stored"))?;
        let s = self.slot(c.ty.clone(), Storage::Weight(c.data.clone()), true);
        self.slots.insert(v, s);
        Ok(s)
    }

    /// The same memory under another shape.
    fn under(&mut self, s: SlotId, ty: Type) -> SlotId {
        if self.program.slot(s).ty == ty {
            return s;
        }
        if let Some(&alias) = self.aliases.get(&(s, ty.clone())) {
            return alias;
        }
        let view = Storage::View {
            of: s,
            offset: Dim::ZERO,
        };
        let alias = self.slot(ty.clone(), view, self.constant[s.0 as usize]);
        self.aliases.insert((s, ty), alias);
        alias
    }

    /// The slot that a node's result gets: the caller's buffer for an output, a temporary, or a computed constant.
    fn result(&mut self, v: Value, constant: bool) -> SlotId {
        let ty = self.graph.ty(v).clone();
        if let (false, Some(&s)) = (constant, self.targets.get(&v)) {
            self.slots.insert(v, s);
            return s;
        }
        let output = self.outputs.get(&v).copied();
        let (storage, place) = match (constant, output) {
            (true, _) => (Storage::Computed, ty.clone()),
            // The output may be a reshape of the result.
            (false, Some(i)) => (
                Storage::Output(i as u32),
                self.graph.ty(self.graph.outputs[i].1).clone(),
            ),
            (false, None) => (Storage::Temp(None), ty.clone()),
        };
        let s = self.slot(place, storage, constant);
        self.program.slots[s.0 as usize].layout = kernel::layout(self.graph, v).clone();
        self.slots.insert(v, s);
        self.under(s, ty)
    }

    fn nodes(&mut self) -> Result<(), NodeError> {
        let graph = self.graph;
        let mut reads = graph.reads.iter();
        for n in 0..=graph.nodes.len() {
            // A size is read as soon as its value is there.
            while let Some(r) = reads.as_slice().first()
                && let Ok(from) = self.memory(r.value)
            {
                self.read(r, from);
                reads.next();
            }
            if let Some(node) = graph.nodes.get(n) {
                self.node(node).map_err(|message| NodeError {
                    node: node.origin.to_string(),
                    message,
                })?;
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &'g Node) -> Result<(), String> {
        match node.op.role() {
            Role::Store => self.store(node),
            Role::Own(own) if !own.is_fused() => self.own(node, own),
            Role::Host => {
                let inputs = node
                    .inputs
                    .iter()
                    .map(|&v| self.memory(v))
                    .collect::<Result<Vec<_>, _>>()?;
                let outputs = node.outputs.iter().map(|&v| self.result(v, false)).collect();
                let origin = node.origin.clone();
                self.program.steps.push(Step::Host {
                    op: node.op.clone(),
                    inputs,
                    outputs,
                    origin,
                });
                Ok(())
            }
            Role::Region(control) => self.regions(node, control.regions(&node.op)),
            _ => Ok(()),
        }
    }

    /// Calls the kernel that an operator brings along.
    fn own(&mut self, node: &'g Node, own: &dyn OwnKernel) -> Result<(), String> {
        let Lowered {
            kernel,
            inputs,
            origin,
            checks,
            ..
        } = kernel::step(self.graph, node, own)?;
        let inputs = inputs.into_iter().map(|v| match in_memory(self.graph, v) {
            Some(memory) if memory == v => self.root(v),
            _ => self.memory(v),
        });
        let mut args = inputs.collect::<Result<Vec<_>, _>>()?;
        let known = args.iter().all(|s| self.constant[s.0 as usize]);
        let fixed = |v: &Value| self.graph.ty(*v).shape.iter().all(|d| d.as_const().is_some());
        let constant = known && node.outputs.iter().all(fixed);
        for &v in &node.outputs {
            let result = self.result(v, constant);
            args.push(self.under(result, self.graph.ty(v).clone()));
        }
        self.step(node.op.name(), kernel, args, origin, checks, constant);
        Ok(())
    }

    fn store(&mut self, node: &'g Node) -> Result<(), String> {
        let (x, v) = (node.inputs[0], node.outputs[0]);
        if let Some(memory) = in_memory(self.graph, x)
            && kernel::layout(self.graph, memory) == node.op.layout("layout")
        {
            // A store of something in memory is that memory.
            let s = self.root(memory)?;
            self.slots.insert(v, s);
            return Ok(());
        }
        let group = kernel::build(self.graph, x, node.op.layout("layout"))?;
        let args = self.args(&group)?;
        let constant = args.iter().all(|s| self.constant[s.0 as usize]) && !self.is_symbolic(x);
        let result = self.result(v, constant);
        self.push_call(x, group, args, result)
    }

    /// Calls the kernel that writes a value to a slot.
    fn call(&mut self, v: Value, layout: &Layout, result: SlotId) -> Result<(), String> {
        let group = kernel::build(self.graph, v, layout)?;
        let args = self.args(&group)?;
        self.push_call(v, group, args, result)
    }

    /// The slots that a kernel reads.
    fn args(&mut self, group: &Lowered) -> Result<Vec<SlotId>, String> {
        let mut args = vec![];
        for (&i, operand) in group.inputs.iter().zip(&group.kernel.operands) {
            let s = self.root(i)?;
            args.push(self.under(s, operand.ty.clone()));
        }
        Ok(args)
    }

    fn push_call(&mut self, x: Value, group: Lowered, mut args: Vec<SlotId>, result: SlotId) -> Result<(), String> {
        let constant = self.constant[result.0 as usize];
        let written = group.kernel.operands[group.inputs.len()].ty.clone();
        args.push(self.under(self.program.root(result), written));
        if self.program.slot(result).ty.is_empty() {
            return Ok(());
        }
        let name = self.kernel_name(x);
        self.step(name, group.kernel, args, group.origin, group.checks, constant);
        Ok(())
    }

    /// Adds a call of a kernel, which is a new one where none is like it.
    fn step(
        &mut self,
        name: &str,
        kernel: structured::Kernel,
        args: Vec<SlotId>,
        origin: Vec<Arc<str>>,
        checks: Vec<Arc<str>>,
        constant: bool,
    ) {
        let mut kernel = kernel;
        // Before the run nobody knows what it reads.
        if !constant {
            kernel.symbols.extend(self.late.iter().cloned());
        }
        let kernels = &mut self.program.kernels;
        let name = format!("{name}_{}", kernels.len());
        let kernel = *self.known.entry(kernel.clone()).or_insert_with(|| {
            kernels.push(structured::Kernel { name, ..kernel });
            kernels.len() as u32 - 1
        });
        let steps = if constant {
            &mut self.program.init
        } else {
            &mut self.program.steps
        };
        steps.push(Step::Call {
            kernel,
            args,
            origin,
            checks,
        });
    }

    /// A kernel's name: its heaviest operator's.
    fn kernel_name(&self, root: Value) -> &'static str {
        let mut best = (0, "map");
        self.for_each_node(root, &mut |node| {
            let weight = match node.op.role() {
                Role::Contract(_) | Role::Own(_) | Role::Tree(_) => 5,
                Role::Window(_) | Role::Assemble(_) => 4,
                Role::Rows(_) => 3,
                Role::Gather(_) => 2,
                _ => 1,
            };
            if weight > best.0 {
                best = (weight, node.op.name());
            }
        });
        best.1
    }

    /// True when a stream depends on a symbol: then it is no constant, even where its operands are.
    fn is_symbolic(&self, root: Value) -> bool {
        let unknown = |d: &Dim| d.as_const().is_none();
        let mut found = false;
        self.for_each_node(root, &mut |node| {
            let shape = |v: &Value| self.graph.ty(*v).shape.iter().any(unknown);
            found |= !node.op.is_concrete() || node.outputs.iter().any(shape);
        });
        found
    }

    /// Visits the nodes of a stream, down to what is in memory.
    fn for_each_node(&self, root: Value, f: &mut dyn FnMut(&Node)) {
        let mut todo = vec![root];
        let mut seen = rustc_hash::FxHashSet::default();
        while let Some(v) = todo.pop() {
            let Def::Node(n, _) = self.graph.def(v) else { continue };
            if in_memory(self.graph, v).is_some() || !seen.insert(n) {
                continue;
            }
            let node = &self.graph.nodes[n as usize];
            f(node);
            todo.extend(&node.inputs);
        }
    }

    /// Outputs that are inputs, constants, or the same value as an earlier output are copied.
    fn outputs(&mut self) -> Result<(), String> {
        for (i, (name, v)) in self.graph.outputs.iter().enumerate() {
            let from = self.plain_root(*v).map_err(|e| {
                format!("output `{name}`: {e}; a graph is lowered after `eqsat` has chosen its kernels")
            })?;
            let here = matches!(self.program.slot(from).storage, Storage::Output(k) if k as usize == i);
            let slot = if here {
                from
            } else {
                let to = self.slot(self.graph.ty(*v).clone(), Storage::Output(i as u32), false);
                self.program.steps.push(Step::Copy { from, to, rows: None });
                to
            };
            self.program.outputs.push((name.clone(), slot));
        }
        Ok(())
    }
}

/// The tensor in memory that a value is, where it is row-major.
fn row_major(graph: &Graph, v: Value) -> Option<Value> {
    in_memory(graph, v).filter(|m| kernel::layout(graph, *m).is_row_major())
}

/// Bytes rounded up to a cache line.
pub fn aligned(bytes: &Dim) -> Dim {
    &(bytes + 63).floor_div(&Dim::Const(64)) * 64
}
