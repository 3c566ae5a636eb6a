//! `Softmax`, `LogSoftmax`, `Hardmax`. Before version 13 they see two dimensions: those before `axis` and the rest.

use super::*;
use brolga_ir::{Attr, DType, dim::product};

/// The operand as the operator sees it, and the axis to normalise over.
fn view(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<(Value, usize), Fail> {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    if ctx.version >= 13 {
        return Ok((x, node::axis(ctx.int("axis", -1)?, shape.len())?));
    }
    let axis = node::axis(ctx.int("axis", 1)?, shape.len())?;
    if shape[axis + 1..].iter().all(|d| d.is(1)) {
        return Ok((x, axis));
    }
    let flat = graph.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])])?;
    Ok((flat, 1))
}

/// `Softmax` and `LogSoftmax`.
pub fn softmax(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (x, axis) = view(graph, ctx)?;
    let axis = Attr::Int(axis as i64);
    let y = match ctx.op() {
        "Softmax" => graph.op("softmax", &[axis, Attr::word("never")], &[x])?,
        _ => graph.op("log_softmax", &[axis], &[x])?,
    };
    let shape = graph.shape(ctx.input(0)?);
    one(graph.reshape(y, shape))
}

/// `Hardmax`: 1 at the first maximum, 0 elsewhere.
pub fn hardmax(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (x, axis) = view(graph, ctx)?;
    let best = graph.op(
        "arg_reduce",
        &[Attr::word("max"), Attr::Int(axis as i64), Attr::Bool(false)],
        &[x],
    )?;
    let at = graph.shape(x);
    let at = graph.iota(DType::I64, &at, axis)?;
    let hit = graph.map("equal", &[best, at])?;
    let y = graph.cast(hit, graph.dtype(x))?;
    let shape = graph.shape(ctx.input(0)?);
    one(graph.reshape(y, shape))
}
