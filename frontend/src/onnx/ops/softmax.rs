//! `Softmax`, `LogSoftmax`, `Hardmax`. Before version 13 they see two dimensions: those before `axis` and the rest.

use super::*;
use brolga_ir::{Attr, DType, dim::product};

/// The operand as the operator sees it, and the axis to normalise over.
fn view<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Result<(Value, usize), Fail> {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let shape = im.shape(x);
    if ctx.version >= 13 {
        return Ok((x, node::axis(ctx.int("axis", -1)?, shape.len())?));
    }
    let axis = node::axis(ctx.int("axis", 1)?, shape.len())?;
    if shape[axis + 1..].iter().all(|d| d.is(1)) {
        return Ok((x, axis));
    }
    let flat = im.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])])?;
    Ok((flat, 1))
}

/// `Softmax` and `LogSoftmax`.
pub fn softmax<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (x, axis) = view(im, ctx)?;
    let name = if ctx.op() == "Softmax" {
        "softmax"
    } else {
        "log_softmax"
    };
    let y = im.op(name, &[Attr::Int(axis as i64)], &[x])?;
    let shape = im.shape(ctx.input(0)?);
    one(im.reshape(y, shape))
}

/// `Hardmax`: 1 at the first maximum, 0 elsewhere.
pub fn hardmax<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (x, axis) = view(im, ctx)?;
    let best = im.op(
        "arg_reduce",
        &[Attr::word("max"), Attr::Int(axis as i64), Attr::Bool(false)],
        &[x],
    )?;
    let at = im.shape(x);
    let at = im.iota(DType::I64, &at, axis)?;
    let hit = im.map("equal", &[best, at])?;
    let y = im.cast(hit, im.dtype(x))?;
    let shape = im.shape(ctx.input(0)?);
    one(im.reshape(y, shape))
}
