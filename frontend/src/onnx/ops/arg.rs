//! `ArgMax`, `ArgMin`, `TopK`.

use super::*;
use brolga_ir::{Attr, Dim};

/// `ArgMax` and `ArgMin`.
pub fn arg_reduce<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", 0)?, im.rank(x))?;
    let kind = if ctx.op() == "ArgMax" { "max" } else { "min" };
    let last = ctx.flag("select_last_index", false)?;
    let y = im.op(
        "arg_reduce",
        &[Attr::word(kind), Attr::Int(axis as i64), Attr::Bool(last)],
        &[x],
    )?;
    one(if ctx.flag("keepdims", true)? {
        Ok(y)
    } else {
        im.squeeze(y, &[axis])
    })
}

/// `TopK`: `k` is an attribute before version 10, an operand since.
pub fn top_k<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", -1)?, im.rank(x))?;
    let k = match ctx.optional(1) {
        Some(v) => im.dims_operand(v, "k")?.first().cloned().ok_or("an empty k")?,
        None => Dim::Const(ctx.opt_int("k")?.ok_or("k is missing")?),
    };
    let n = im.shape(x)[axis].clone();
    im.require_at_most(&Dim::ZERO, &k)
        .and_then(|()| im.require_at_most(&k, &n))
        .map_err(|_| Fail::Bad(format!("k = {} of {} elements", k.brief(), n.brief())))?;
    let largest = ctx.flag("largest", true)?;
    im.ops(
        "top_k",
        &[Attr::Int(axis as i64), Attr::Dims(vec![k]), Attr::Bool(largest)],
        &[x],
    )
}
