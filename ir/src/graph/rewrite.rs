//! Rewriting: a graph made from another, node by node, from the operands toward the results.

use super::{Def, Graph, Node, NodeError, Read, Type, Value};
use crate::{Dim, Symbol};

/// A graph that becomes another. Inputs, constants, guards and defaults are there from the start; nodes follow in
/// [`Rewriter::run`].
pub struct Rewriter<'g> {
    from: &'g Graph,
    /// What has been built.
    pub graph: Graph,
    map: Vec<Option<Value>>,
}

impl<'g> Rewriter<'g> {
    /// A rewriting that keeps the types of inputs.
    pub fn new(from: &'g Graph) -> Rewriter<'g> {
        Rewriter::with_types(from, &Type::clone)
    }

    /// A rewriting in which inputs get other types.
    pub fn with_types(from: &'g Graph, ty: &dyn Fn(&Type) -> Type) -> Rewriter<'g> {
        let mut graph = Graph::new(&from.name);
        let mut map = vec![None; from.values.len()];
        for i in &from.inputs {
            map[i.value.0 as usize] = Some(graph.input(&i.name, ty(from.ty(i.value))));
        }
        graph.symbols.clone_from(&from.symbols);
        graph.guards.clone_from(&from.guards);
        graph.defaults.clone_from(&from.defaults);
        graph.strings.clone_from(&from.strings);
        for (v, info) in from.values.iter().enumerate() {
            if let Def::Const(c) = info.def {
                map[v] = Some(graph.constant(from.constants[c as usize].clone()));
            }
        }
        Rewriter { from, graph, map }
    }

    /// What a value of the old graph is in the new one; `None` before its node's turn.
    pub fn get(&self, old: Value) -> Option<Value> {
        self.map[old.0 as usize]
    }

    /// Lets a value of the old graph be another one of the new graph.
    pub fn set(&mut self, old: Value, new: Value) {
        self.map[old.0 as usize] = Some(new);
    }

    /// Gives every node's results the values that `node` adds for them, and drops what no output needs. It gets the new
    /// graph, the node and its operands in the new graph.
    ///
    /// # Errors
    /// The first of `node`'s, with the node's origin.
    pub fn run(
        mut self,
        mut node: impl FnMut(&mut Graph, &Node, &[Value]) -> Result<Vec<Value>, String>,
    ) -> Result<Graph, NodeError> {
        for old in &self.from.nodes {
            let inputs: Vec<Value> = old.inputs.iter().map(|&v| self.defined(v)).collect();
            let outputs = node(&mut self.graph, old, &inputs).map_err(|message| NodeError {
                node: old.origin.to_string(),
                message,
            })?;
            old.outputs.iter().zip(outputs).for_each(|(&o, v)| self.set(o, v));
        }
        for read in &self.from.reads {
            let value = self.defined(read.value);
            self.graph.reads.push(Read { value, ..read.clone() });
        }
        let outputs = self.from.outputs.iter();
        self.graph.outputs = outputs.map(|(name, v)| (name.clone(), self.defined(*v))).collect();
        self.graph.prune();
        Ok(self.graph)
    }

    fn defined(&self, old: Value) -> Value {
        self.get(old).expect("nodes stand in topological order")
    }
}

impl Graph {
    /// The graph in which every node is what `node` adds for it; see [`Rewriter::run`].
    ///
    /// # Errors
    /// As there.
    pub fn rewrite(
        &self,
        node: impl FnMut(&mut Graph, &Node, &[Value]) -> Result<Vec<Value>, String>,
    ) -> Result<Graph, NodeError> {
        Rewriter::new(self).run(node)
    }

    /// The graph with symbols replaced. Guards that become true are dropped.
    ///
    /// # Errors
    /// When a guard becomes false, or an operator does not accept what its operands become.
    pub fn substitute(&self, value: &dyn Fn(&str) -> Option<Dim>) -> Result<Graph, NodeError> {
        self.with_symbols(value, true)
    }

    /// The graph in which the sizes that it reads, and its regions do, have other names: a copy that may stand beside it.
    ///
    /// # Errors
    /// Never for a valid graph.
    pub fn with_fresh_reads(&self, fresh: &mut dyn FnMut(&Symbol) -> Symbol) -> Result<Graph, NodeError> {
        let names: Vec<(Symbol, Symbol)> = self
            .reads
            .iter()
            .map(|r| (r.symbol.clone(), fresh(&r.symbol)))
            .collect();
        let new = |s: &str| names.iter().find(|(old, _)| **old == *s).map(|(_, new)| Dim::sym(new));
        let mut graph = self.with_symbols(&new, false)?;
        for (read, (_, new)) in graph.reads.iter_mut().zip(&names) {
            read.symbol = new.clone();
        }
        for node in &mut graph.nodes {
            if node.op.regions().next().is_some() {
                let place = |message| NodeError {
                    node: node.origin.to_string(),
                    message,
                };
                node.op = node
                    .op
                    .map_regions(&mut |g| g.with_fresh_reads(&mut *fresh))
                    .map_err(place)?;
            }
        }
        Ok(graph)
    }

    /// The graph with symbols replaced; a guard that becomes false is an error where it is `checked` now.
    pub(crate) fn with_symbols(&self, value: &dyn Fn(&str) -> Option<Dim>, checked: bool) -> Result<Graph, NodeError> {
        let known = |t: &Type| {
            let shape: Vec<Dim> = t.shape.iter().map(|d| d.substitute(value)).collect();
            Type::new(t.dtype, shape)
        };
        let mut rewriter = Rewriter::with_types(self, &known);
        let mut symbols: Vec<Symbol> = vec![];
        for s in &self.symbols {
            let mut note = |s: &Symbol| {
                if !symbols.contains(s) {
                    symbols.push(s.clone());
                }
            };
            match value(s) {
                Some(d) => d.for_each_symbol(&mut note),
                None => note(s),
            }
        }
        rewriter.graph.symbols = symbols;
        rewriter.graph.guards.clear();
        for guard in &self.guards {
            let known = guard.substitute(value);
            match known.decided() {
                Some(true) => {}
                Some(false) if checked => {
                    let (left, right) = (&known.left, &known.right);
                    return Err(NodeError {
                        node: String::new(),
                        message: format!("{guard} does not hold with these sizes: found {left} and {right}"),
                    });
                }
                _ => rewriter.graph.guards.push(known),
            }
        }
        let mut graph = rewriter.run(|out, node, inputs| {
            let op = node.op.substitute(value)?;
            out.add(op, inputs, &node.origin).map_err(|e| e.message)
        })?;
        let bounds = graph.reads.iter_mut().filter_map(|r| r.bound.as_mut());
        bounds.for_each(|d| *d = d.substitute(value));
        Ok(graph)
    }

    /// The graph where symbols have these values, as a run sees it: nothing is inferred anew, and what an operator does not accept of its
    /// operands is an error of the run that gets to it.
    pub(crate) fn instantiate(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Graph {
        let value = |s: &str| lookup(s).map(Dim::Const);
        let mut graph = self.clone();
        graph.symbols.retain(|s| lookup(s).is_none());
        graph.guards.iter_mut().for_each(|g| *g = g.substitute(&value));
        let types = graph.values.iter_mut().flat_map(|v| &mut v.ty.shape);
        let bounds = graph.reads.iter_mut().filter_map(|r| r.bound.as_mut());
        types.chain(bounds).for_each(|d| *d = d.substitute(&value));
        graph.nodes.iter_mut().for_each(|n| n.op = n.op.instantiate(lookup));
        graph
    }
}
