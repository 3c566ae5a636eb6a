//! `ArgMax`, `ArgMin`, `TopK`.

use super::*;
use brolga_ir::{Attr, Dim};

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

/// `TopK`: `k` is an attribute before version 10, an operand since.
pub fn top_k(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", -1)?, graph.rank(x))?;
    let k = match ctx.optional(1) {
        Some(v) => {
            let most = graph.shape(x)[axis].clone();
            graph
                .sizes_operand(v, "k", &[Some(most)])?
                .first()
                .cloned()
                .ok_or("an empty k")?
        }
        None => Dim::Const(ctx.opt_int("k")?.ok_or("k is missing")?),
    };
    let n = graph.shape(x)[axis].clone();
    graph
        .require_at_most(&Dim::ZERO, &k)
        .and_then(|()| graph.require_at_most(&k, &n))
        .map_err(|_| Fail::Bad(format!("k = {} of {} elements", k.brief(), n.brief())))?;
    let largest = ctx.flag("largest", true)?;
    graph.ops(
        "top_k",
        &[Attr::Int(axis as i64), Attr::Dims(vec![k]), Attr::Bool(largest)],
        &[x],
    )
}
