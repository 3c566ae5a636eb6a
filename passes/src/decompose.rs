//! `decompose`: composite operators that no kernel is written for become others.
//!
//! ```text
//! %5 = batch_norm{eps: 1e-5}(%0, %1, %2, %3, %4)
//! -->
//! %5 = reshape{shape: [1, 8, 1, 1]}(%4)
//! …
//! %17 = add(%15, %16)
//! ```
//!
//! The e-graph pass does the same as a rule, where recognised forms and decompositions compete. This pass is for pipelines
//! without rules.

use crate::pass::{Context, Setting, Settings, TensorPass};
use brolga_ir::ops::Role;
use brolga_ir::{Build, DType, Graph, NodeError, Number, Op, Tensor, Type, Value};
use std::sync::Arc;

/// The pass; it has no options.
#[derive(Clone, Default)]
pub struct Decompose;

impl Settings for Decompose {
    const NAME: &'static str = "decompose";
    const SUMMARY: &'static str = "rewrites composite operators without a kernel into others";
    const SETTINGS: &'static [Setting<Decompose>] = &[];
}

impl TensorPass for Decompose {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        let composite = g.nodes.iter().filter(|n| is_composite(&n.op)).count();
        cx.counts.add("operations decomposed", composite);
        decompose(g)
    }
}

/// The graph without operators that have no kernel of their own.
///
/// # Errors
/// When a decomposition does not fit its operator.
pub fn decompose(g: &Graph) -> Result<Graph, NodeError> {
    decompose_where(g, is_composite)
}

fn is_composite(op: &Op) -> bool {
    matches!(op.role(), Role::Composite)
}

/// The graph in which operators that `which` says are decomposed, and those of their decompositions.
///
/// # Errors
/// When a decomposition does not fit its operator.
pub fn decompose_where(g: &Graph, which: fn(&Op) -> bool) -> Result<Graph, NodeError> {
    g.rewrite(|graph, node, inputs| {
        let origin = &node.origin;
        Decomposer { graph, origin, which }.node(&node.op, inputs)
    })
}

struct Decomposer<'a> {
    graph: &'a mut Graph,
    origin: &'a Arc<str>,
    which: fn(&Op) -> bool,
}

impl Decomposer<'_> {
    fn node(&mut self, op: &Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        if (self.which)(op)
            && let Some(outs) = op.def().decompose(op, self, inputs)?
        {
            return Ok(outs);
        }
        self.graph.add(op.clone(), inputs, self.origin).map_err(|e| e.message)
    }
}

impl Build for Decomposer<'_> {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        self.node(&op, inputs)
    }
    fn type_of(&self, v: Value) -> Type {
        self.graph.ty(v).clone()
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.graph.dense(Tensor::scalar(dtype, x))
    }
}
