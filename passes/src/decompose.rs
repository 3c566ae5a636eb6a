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

use crate::fusion::{Class, class};
use crate::pass::{Context, Pass, PassError};
use brolga_ir::{Build, DType, Graph, NodeError, Number, Op, Tensor, Type, Value};
use std::sync::Arc;

/// The pass; it has no options.
#[derive(Clone, Default)]
pub struct Decompose;

impl Pass for Decompose {
    fn name(&self) -> &'static str {
        "decompose"
    }
    fn options(&self) -> String {
        String::new()
    }
    fn run(&self, g: &Graph, _: &mut Context) -> Result<Graph, PassError> {
        decompose(g).map_err(|error| PassError {
            pass: "decompose",
            error,
        })
    }
}

/// The graph without composite operators.
///
/// # Errors
/// When a decomposition does not fit its operator.
pub fn decompose(g: &Graph) -> Result<Graph, NodeError> {
    let mut out = Graph::new(&g.name);
    out.guards.clone_from(&g.guards);
    let mut map = copy_leaves(g, &mut out);
    let mut d = Decomposer {
        graph: out,
        origin: "".into(),
    };
    for node in &g.nodes {
        d.origin = node.origin.clone();
        let inputs: Vec<Value> = node
            .inputs
            .iter()
            .map(|v| map[v.0 as usize].expect("operands come first"))
            .collect();
        let fail = |message| NodeError {
            node: node.origin.to_string(),
            message,
        };
        let outs = d.node(&node.op, &inputs).map_err(fail)?;
        for (o, v) in node.outputs.iter().zip(outs) {
            map[o.0 as usize] = Some(v);
        }
    }
    let mut out = d.graph;
    for (name, v) in &g.outputs {
        out.outputs
            .push((name.clone(), map[v.0 as usize].expect("outputs are defined")));
    }
    out.prune();
    Ok(out)
}

/// Copies inputs, symbols and constants; gives the new values by old value.
pub fn copy_leaves(g: &Graph, out: &mut Graph) -> Vec<Option<Value>> {
    let mut map: Vec<Option<Value>> = vec![None; g.values.len()];
    for i in &g.inputs {
        map[i.value.0 as usize] = Some(out.input(&i.name, g.ty(i.value).clone()));
    }
    out.symbols.clone_from(&g.symbols);
    for (v, info) in g.values.iter().enumerate() {
        if let brolga_ir::Def::Const(c) = info.def {
            map[v] = Some(out.constant(g.constants[c as usize].clone()));
        }
    }
    map
}

struct Decomposer {
    graph: Graph,
    origin: Arc<str>,
}

impl Decomposer {
    fn node(&mut self, op: &Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        if class(op) == Class::Composite
            && let Some(outs) = op.def().decompose(op, self, inputs)?
        {
            return Ok(outs);
        }
        self.graph.add(op.clone(), inputs, &self.origin).map_err(|e| e.message)
    }
}

impl Build for Decomposer {
    fn op(&mut self, op: Op, inputs: &[Value]) -> Result<Value, String> {
        Ok(self.node(&op, inputs)?[0])
    }
    fn type_of(&self, v: Value) -> Type {
        self.graph.ty(v).clone()
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.graph.dense(Tensor::scalar(dtype, x))
    }
}
