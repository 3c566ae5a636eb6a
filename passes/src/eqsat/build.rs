//! From a graph to an e-graph: every operation a kernel of its own, `(store (op (load …) …))`.
//!
//! Fusion is not done here: it is the rule `(load (store ?s)) => ?s`. The same adding of terms serves the operators'
//! decompositions, which build into the e-graph through [`Build`].

use super::lang::{Children, EGraph, Facts, OpId, Term};
use super::saturate::Watch;
use brolga_ir::ops::Role;
use brolga_ir::{Build, DType, Def, Graph, Number, Op, Symbol, Type, Value};
use egg::{Id, Language};
use rustc_hash::FxHashMap;

/// A graph in an e-graph.
pub struct Built {
    /// The e-graph.
    pub eg: EGraph,
    /// The tensor class of every value of the graph.
    pub tensors: Vec<Id>,
    /// The tensor classes of what a run has to compute: the graph's [`Graph::roots`], in order.
    pub roots: Vec<Id>,
    /// The symbols that count examples, for the cost model.
    pub batches: Vec<Symbol>,
    /// For every constant of the graph the first that equals it, as far as constants are compared.
    pub same: Vec<u32>,
}

/// The e-graph of a graph.
///
/// # Errors
/// When the graph is not valid.
pub fn build(g: &Graph) -> Result<Built, String> {
    let mut eg = EGraph::new(Facts::new(g));
    let same = equal_constants(g, &eg.analysis);
    let mut tensors: Vec<Option<Id>> = vec![None; g.values.len()];
    for (i, v) in g.values.iter().enumerate() {
        tensors[i] = match v.def {
            Def::Input(k) => Some(eg.add(Term::Input(k))),
            Def::Const(k) => Some(eg.add(Term::Const(same[k as usize]))),
            Def::Node(..) => None,
        };
    }
    for (n, node) in g.nodes.iter().enumerate() {
        let this = [n as u32];
        eg.analysis.current = this.into_iter().collect();
        let operands: Option<Vec<Id>> = node.inputs.iter().map(|v| tensors[v.0 as usize]).collect();
        let operands = operands.ok_or_else(|| format!("node `{}` is not in topological order", node.origin))?;
        if matches!(node.op.role(), Role::Store) {
            tensors[node.outputs[0].0 as usize] = Some(operands[0]);
            continue;
        }
        if node.op.def().is_step() {
            let all = add_op(&mut eg, &node.op, &operands);
            for (o, part) in node.outputs.iter().zip(parts(&mut eg, all, node.outputs.len())) {
                tensors[o.0 as usize] = Some(part);
            }
            continue;
        }
        // A load is no work of the node that reads: fused, it is what made the operand, and keeps that one's name.
        eg.analysis.current.clear();
        let streams: Vec<Id> = operands.into_iter().map(|t| eg.add(Term::Load([t]))).collect();
        eg.analysis.current = this.into_iter().collect();
        let all = add_op(&mut eg, &node.op, &streams);
        for (o, stream) in node.outputs.iter().zip(parts(&mut eg, all, node.outputs.len())) {
            tensors[o.0 as usize] = Some(eg.add(Term::Store([stream])));
        }
    }
    eg.analysis.current.clear();
    rebuild(&mut eg);
    if let Some(e) = eg.analysis.failure.take() {
        return Err(e);
    }
    let tensors: Vec<Id> = tensors
        .into_iter()
        .map(|t| t.expect("every value has a definition"))
        .collect();
    let roots = g.roots().map(|v| tensors[v.0 as usize]).collect();
    Ok(Built {
        eg,
        tensors,
        roots,
        batches: super::cost::batches(g),
        same,
    })
}

/// The results of an operation: itself, or the parts of its tuple.
fn parts(eg: &mut EGraph, all: Id, results: usize) -> Vec<Id> {
    match results {
        1 => vec![all],
        n => (0..n as u32).map(|k| eg.add(Term::Proj(k, [all]))).collect(),
    }
}

/// Restores the e-graph's invariants.
///
/// egg reads the time for a log message, and its clock calibrates itself for up to 200 ms at first use: two compilations
/// of a small model. A clock that stands still spares that.
pub fn rebuild(eg: &mut EGraph) {
    let (clock, _) = quanta::Clock::mock();
    quanta::with_clock(&clock, || eg.rebuild());
}

/// For every constant the first that equals it; only small ones and splats are compared.
fn equal_constants(g: &Graph, facts: &Facts) -> Vec<u32> {
    let mut seen: FxHashMap<(&Type, &[u8]), u32> = FxHashMap::default();
    let mut out = vec![];
    for (i, c) in (0..).zip(&g.constants) {
        out.push(match facts.elements(i) {
            Some(t) => *seen.entry((&c.ty, t.bytes())).or_insert(i),
            None => i,
        });
    }
    out
}

/// Adds an operator's term.
pub(super) fn add_op(eg: &mut EGraph, op: &Op, operands: &[Id]) -> Id {
    let id = OpId::of(op.name()).expect("an operator is in the registry");
    let mut children: Children = op.attrs().iter().map(|a| eg.add(Term::attr(a.clone()))).collect();
    if id.arity().operands.is_none() {
        children.push(add_list(eg, operands));
    } else {
        children.extend_from_slice(operands);
    }
    eg.add(Term::Op(id, children))
}

/// An operator's term, where its attributes and its list of operands are in an e-graph.
pub(super) fn find_op(eg: &EGraph, op: &Op, operands: &[Id]) -> Option<Term> {
    let id = OpId::of(op.name()).expect("an operator is in the registry");
    let attrs = op.attrs().iter().map(|a| eg.lookup(Term::attr(a.clone())));
    let mut children: Children = attrs.collect::<Option<_>>()?;
    match id.arity().operands {
        Some(_) => children.extend_from_slice(operands),
        None => {
            let nil = eg.lookup(Term::Nil);
            let cons = |list: Option<Id>, &item: &Id| eg.lookup(Term::Cons([item, list?]));
            children.push(operands.iter().rev().fold(nil, cons)?);
        }
    }
    Some(Term::Op(id, children))
}

/// Adds a list.
pub(super) fn add_list(eg: &mut EGraph, items: &[Id]) -> Id {
    let mut list = eg.add(Term::Nil);
    for &item in items.iter().rev() {
        list = eg.add(Term::Cons([item, list]));
    }
    list
}

/// Builds decompositions into an e-graph; values are ids of stream classes.
pub(super) struct TermBuilder<'a> {
    /// The e-graph.
    pub eg: &'a mut EGraph,
}

impl TermBuilder<'_> {
    /// The value of a stream class.
    pub fn value(id: Id) -> Value {
        Value(usize::from(id) as u32)
    }
    /// The class of a value.
    pub fn id(v: Value) -> Id {
        Id::from(v.0 as usize)
    }
}

impl Build for TermBuilder<'_> {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        let types: Vec<Type> = inputs.iter().map(|&v| self.type_of(v)).collect();
        let results = op.infer(&types).map_err(|e| format!("{}: {e}", op.name()))?.len();
        let mut operands: Vec<Id> = inputs.iter().map(|&v| Self::id(v)).collect();
        let step = op.def().is_step();
        if step {
            // It takes and gives tensors in memory.
            operands.iter_mut().for_each(|o| *o = self.eg.add(Term::Store([*o])));
        }
        let all = add_op(self.eg, &op, &operands);
        let mut results = parts(self.eg, all, results);
        if step {
            results.iter_mut().for_each(|r| *r = self.eg.add(Term::Load([*r])));
        }
        Ok(results.into_iter().map(Self::value).collect())
    }
    fn type_of(&self, v: Value) -> Type {
        (**self.eg[Self::id(v)].data.ty()).clone()
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        let t = self.eg.add(Term::scalar(dtype, x));
        Self::value(self.eg.add(Term::Load([t])))
    }
}

/// Adds to the class of every composite operator that is new, and is one of `which`, what it decomposes into.
fn decompose(eg: &mut EGraph, which: &dyn Fn(OpId) -> bool, watch: &mut dyn Watch) -> Result<usize, String> {
    let mut found: Vec<(Id, OpId, Children)> = vec![];
    let mut changed: Vec<Id> = eg.analysis.changed.iter().map(|&c| eg.find(c)).collect();
    changed.sort_unstable();
    changed.dedup();
    for class in changed {
        for t in &eg[class].nodes {
            if let Term::Op(op, c) = t
                && which(*op)
            {
                found.push((class, *op, c.clone()));
            }
        }
    }
    if found.is_empty() {
        return Ok(0);
    }
    found.sort();
    let mut changed = 0;
    for (class, id, children) in found {
        let op = super::lang::op_of(eg, id, &children)?;
        eg.analysis.current = eg[class].data.origins.clone();
        let operands = spread(eg, id, &children);
        let inputs: Vec<Value> = operands.iter().copied().map(TermBuilder::value).collect();
        let out = op.def().decompose(&op, &mut TermBuilder { eg }, &inputs)?;
        let Some(outs) = out else { continue };
        let outs: Vec<Id> = outs.into_iter().map(TermBuilder::id).collect();
        watch.decomposes(eg, &op, &operands, &outs);
        let olds = parts(eg, class, outs.len());
        for (old, new) in olds.into_iter().zip(outs) {
            if eg[new].data.kind != eg[old].data.kind {
                let (a, b) = (eg[old].data.ty(), eg[new].data.ty());
                return Err(format!("{} has type {a}, its decomposition {b}", op.name()));
            }
            changed += eg.union(old, new) as usize;
        }
    }
    eg.analysis.current.clear();
    rebuild(eg);
    Ok(changed)
}

/// Decomposes new composite operators, and those that they decompose into: the built-in rule `decompose`. A tree that a rule made,
/// which equals what it was made of, is left whole where `imported` is false. Gives the number of classes that changed.
///
/// # Errors
/// When a decomposition does not have the type of its operator.
pub(super) fn decompose_all(eg: &mut EGraph, imported: bool, watch: &mut dyn Watch) -> Result<usize, String> {
    let always = |op: OpId| match op.def().role() {
        Role::Composite => true,
        Role::Own(own) => own.is_fused(),
        _ => false,
    };
    let which: &dyn Fn(OpId) -> bool = match imported {
        true => &|op| always(op) || matches!(op.def().role(), Role::Tree(_)),
        false => &always,
    };
    let mut changed = 0;
    loop {
        match decompose(eg, which, watch)? {
            0 => return Ok(changed),
            n => changed += n,
        }
    }
}

/// The operators of an e-graph's classes that need no decomposition: of a graph just built, those that it has.
pub(super) fn operations(eg: &EGraph) -> Vec<(Id, Term)> {
    let mut out = vec![];
    for class in eg.classes() {
        for t in &class.nodes {
            if matches!(t, Term::Op(op, _) if !matches!(op.def().role(), Role::Composite)) {
                out.push((class.id, t.clone()));
            }
        }
    }
    out
}

/// The operands of an operator, lists spread out.
fn spread(eg: &EGraph, op: OpId, children: &[Id]) -> Vec<Id> {
    let mut out = vec![];
    for &c in super::lang::operands(op, children) {
        match eg[c].data.kind {
            super::lang::Kind::List(_) => out.extend(super::lang::list_items(eg, c)),
            _ => out.push(c),
        }
    }
    out
}

/// The streams of a term's operands, lists spread out.
pub(super) fn streams(eg: &EGraph, op: OpId, term: &Term) -> Vec<Id> {
    let mut out = spread(eg, op, term.children());
    out.iter_mut().for_each(|c| *c = eg.find(*c));
    out
}
