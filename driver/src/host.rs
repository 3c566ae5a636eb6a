//! Host operators by their reference evaluation.
//!
//! A program's metadata carries each host operator as a tensor graph of one node, with the types of its operands and
//! results; that text is all that is needed to evaluate it, so an artefact runs where it was not compiled.

use brolga_abi::Meta;
use brolga_ir::program::{Program, Step, nested};
use brolga_ir::{Graph, Op, Symbol, Tensor, Type};
use brolga_runtime::HostOps;
use std::sync::Arc;

/// The host operators of one program.
pub struct Reference {
    symbols: Vec<Symbol>,
    ops: Vec<HostOp>,
}

struct HostOp {
    op: Op,
    inputs: Vec<Type>,
    outputs: Vec<Type>,
}

impl Reference {
    /// The host operators of a program, from its metadata; `None` when it has none.
    ///
    /// # Errors
    /// When a text is no graph of one node, or this build cannot evaluate the operator.
    pub fn new(meta: &Meta) -> Result<Option<Arc<Reference>>, String> {
        if meta.host_ops.is_empty() {
            return Ok(None);
        }
        let mut ops = vec![];
        for h in &meta.host_ops {
            let fail = |e: String| format!("host operator of node `{}`: {e}", h.node);
            let graph = Graph::parse(&h.text, &|_| None).map_err(|e| fail(e.to_string()))?;
            let [node] = &graph.nodes[..] else {
                return Err(fail(format!("{} nodes, expected one", graph.nodes.len())));
            };
            node.op.def().available().map_err(fail)?;
            let types = |vs: &[brolga_ir::Value]| vs.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
            let op = HostOp {
                op: node.op.clone(),
                inputs: types(&node.inputs),
                outputs: types(&node.outputs),
            };
            if (op.inputs.len(), op.outputs.len()) != (h.inputs as usize, h.outputs as usize) {
                return Err(fail("its text and its counts of operands differ".into()));
            }
            ops.push(op);
        }
        let symbols = meta
            .symbols
            .iter()
            .chain(&meta.names)
            .map(|s| s.as_str().into())
            .collect();
        Ok(Some(Arc::new(Reference { symbols, ops })))
    }
}

/// The metadata's rows of a program's host operators.
///
/// # Errors
/// When an operator does not accept its operands.
pub fn describe(program: &Program) -> Result<Vec<brolga_abi::HostOp>, brolga_ir::NodeError> {
    let mut rows = vec![];
    for step in nested(&program.steps) {
        let Step::Host {
            op,
            inputs,
            outputs,
            origin,
        } = step
        else {
            continue;
        };
        let mut g = Graph::new("host");
        let operands: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(i, s)| g.input(&format!("x{i}"), program.slot(*s).ty.clone()))
            .collect();
        // Whatever a size is: of an input, or told by data.
        op.for_each_symbol(&mut |s| {
            if !g.symbols.contains(s) {
                g.symbols.push(s.clone());
            }
        });
        // Sizes that only the run tells are among those of its attributes.
        let names = program.visible_names();
        g.symbols = program.symbols.iter().chain(&names).cloned().collect();
        let results = g.add(op.clone(), &operands, origin)?;
        g.outputs = results.iter().enumerate().map(|(i, v)| (format!("y{i}"), *v)).collect();
        rows.push(brolga_abi::HostOp {
            text: g.to_string(),
            node: origin.to_string(),
            inputs: inputs.len() as u32,
            outputs: outputs.len() as u32,
        });
    }
    Ok(rows)
}

impl HostOps for Reference {
    fn call(&self, index: u32, dims: &[i64], inputs: &[*const u8], outputs: &[*mut u8]) -> Result<(), String> {
        let h = self
            .ops
            .get(index as usize)
            .ok_or_else(|| format!("no host operator has the number {index}"))?;
        let lookup = |s: &str| {
            self.symbols
                .iter()
                .position(|x| **x == *s)
                .and_then(|i| dims.get(i).copied())
        };
        let shape = |t: &Type| -> Result<Vec<usize>, String> {
            let extent = |d: &brolga_ir::Dim| d.eval(&lookup).and_then(|n| usize::try_from(n).ok());
            let all: Option<Vec<usize>> = t.shape.iter().map(extent).collect();
            all.ok_or_else(|| format!("type {t} has no known extents"))
        };
        let mut operands = vec![];
        for (t, &p) in h.inputs.iter().zip(inputs) {
            let shape = shape(t)?;
            let n = bytes(t, &shape)?;
            // SAFETY: the trait's contract: a dense tensor of the type that the operator's text gives it.
            let data = unsafe { std::slice::from_raw_parts(p, n) };
            operands.push(Tensor::new(t.dtype, shape, data)?);
        }
        let op = h.op.concrete(&lookup)?;
        let results = op.eval(&operands)?;
        for ((t, &p), r) in h.outputs.iter().zip(outputs).zip(results) {
            let shape = shape(t)?;
            if r.shape() != shape || r.dtype() != t.dtype {
                return Err(format!("{} gives {r:?}, expected {}{shape:?}", op.name(), t.dtype));
            }
            // SAFETY: the trait's contract: memory for a dense tensor of this type, which overlaps nothing.
            unsafe { std::ptr::copy_nonoverlapping(r.bytes().as_ptr(), p, r.bytes().len()) };
        }
        Ok(())
    }
}

fn bytes(t: &Type, shape: &[usize]) -> Result<usize, String> {
    let n = shape.iter().try_fold(t.dtype.bytes(), |n, &d| n.checked_mul(d));
    n.ok_or_else(|| format!("{}{shape:?} is too large", t.dtype))
}
