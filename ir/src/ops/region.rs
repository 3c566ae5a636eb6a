//! Regions: graphs as attributes, for operators that run some of them, and what such operators share.
//!
//! A region is isolated: it sees its own inputs only. Its inputs are the operator's captures, behind what the operator
//! itself gives; its symbols are those of the graph around it, by name. Its guards are checked whenever it runs, and not
//! before: what one branch assumes need not hold where the other one is taken.

use crate::{Dim, Graph, NodeError, Symbol, Tensor, Type};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A graph as an attribute. Regions that print alike are equal.
#[derive(Clone)]
pub struct Region(Arc<Graph>);

impl Region {
    /// The region of a valid graph.
    ///
    /// # Errors
    /// When the graph has defaults, which no operator gives.
    pub fn new(graph: Graph) -> Result<Region, NodeError> {
        let fail = |message| NodeError {
            node: String::new(),
            message,
        };
        if let Some((name, _)) = graph.defaults.first() {
            return Err(fail(format!("input `{name}` of a region has a default, expected none")));
        }
        Ok(Region(Arc::new(graph)))
    }
    /// Its graph.
    pub fn graph(&self) -> &Graph {
        &self.0
    }
    /// The types of its inputs.
    pub fn inputs(&self) -> Vec<Type> {
        self.graph()
            .inputs
            .iter()
            .map(|i| self.graph().ty(i.value).clone())
            .collect()
    }
    /// The types of its outputs.
    pub fn outputs(&self) -> Vec<Type> {
        self.graph()
            .outputs
            .iter()
            .map(|(_, v)| self.graph().ty(*v).clone())
            .collect()
    }
    /// True when no dim in it is unknown but those that its own values tell.
    pub fn is_concrete(&self) -> bool {
        is_closed(self.graph(), &mut vec![])
    }
    /// The region with symbols replaced; guards that become false fail the run that gets there.
    ///
    /// # Errors
    /// When an operator does not accept what its operands become.
    pub fn substitute(&self, value: &dyn Fn(&str) -> Option<Dim>) -> Result<Region, String> {
        self.map(|g| g.with_symbols(value, false))
    }
    /// The region of another graph, made from this one's.
    ///
    /// # Errors
    /// Those of `f`; when its result is no region.
    pub fn map(&self, f: impl FnOnce(&Graph) -> Result<Graph, NodeError>) -> Result<Region, String> {
        let place = |e: NodeError| format!("in region {}: {e}", crate::text::global(&self.graph().name));
        Region::new(f(self.graph()).map_err(place)?).map_err(place)
    }
    /// The region as it runs where symbols have these values. What its operators do not accept of them fails the run that gets there: a
    /// loop of no iterations may gather from an empty axis, as may a branch that is not taken.
    pub fn instantiate(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Region {
        if self.is_concrete() {
            return self.clone();
        }
        Region(Arc::new(self.graph().instantiate(lookup)))
    }
    /// Its outputs for inputs; it is concrete.
    ///
    /// # Errors
    /// As [`Graph::eval`].
    pub fn eval(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        self.graph().eval(inputs).map_err(|e| e.to_string())
    }

    /// Checks that operands are what the inputs take.
    ///
    /// # Errors
    /// When number or types differ.
    pub fn check_inputs(&self, name: &str, operands: &[Type]) -> Result<(), String> {
        let inputs = self.inputs();
        if inputs == operands {
            return Ok(());
        }
        let list = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
        Err(format!(
            "region `{name}` takes ({}), the operands are ({})",
            list(&inputs),
            list(operands)
        ))
    }
}

/// True when a graph has no symbol but some and those that it reads.
fn is_closed<'g>(graph: &'g Graph, known: &mut Vec<&'g Symbol>) -> bool {
    let outer = known.len();
    known.extend(graph.reads.iter().map(|r| &r.symbol));
    let mut closed = true;
    let mut check = |s: &Symbol| closed &= known.contains(&s);
    let dims = graph.values.iter().flat_map(|v| &v.ty.shape);
    dims.for_each(|d| d.for_each_symbol(&mut check));
    graph.nodes.iter().for_each(|n| n.op.for_each_symbol(&mut check));
    let mut regions = graph.nodes.iter().flat_map(|n| n.op.regions());
    closed = closed && regions.all(|r| is_closed(&r.0, known));
    known.truncate(outer);
    closed
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().trim_end().replace('\n', "\n  "))
    }
}
impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl PartialEq for Region {
    fn eq(&self, o: &Region) -> bool {
        self.cmp(o) == Ordering::Equal
    }
}
impl Eq for Region {}
impl PartialOrd for Region {
    fn partial_cmp(&self, o: &Region) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}
impl Ord for Region {
    fn cmp(&self, o: &Region) -> Ordering {
        match Arc::ptr_eq(&self.0, &o.0) {
            true => Ordering::Equal,
            false => self.0.to_string().cmp(&o.0.to_string()),
        }
    }
}
impl Hash for Region {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.0.name.hash(h);
        for node in &self.0.nodes {
            (&node.op, &node.inputs).hash(h);
        }
    }
}
