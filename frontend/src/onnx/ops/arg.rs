//! `ArgMax` and `ArgMin`.

use super::*;
use brolga_ir::Attr;

/// `ArgMax` and `ArgMin`.
pub fn arg_reduce(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", 0)?, graph.rank(x))?;
    let kind = if ctx.op() == "ArgMax" { "max" } else { "min" };
    let last = ctx.flag("select_last_index", false)?;
    let y = graph.op(
        "arg_reduce",
        &[Attr::word(kind), Attr::Int(axis as i64), Attr::Bool(last)],
        &[x],
    )?;
    one(if ctx.flag("keepdims", true)? {
        Ok(y)
    } else {
        graph.squeeze(y, &[axis])
    })
}
