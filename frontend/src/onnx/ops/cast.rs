//! `Cast`, `CastLike` and `BitCast`.

use super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType};

fn target<'m>(ctx: &NodeCtx<'m>) -> Result<DType, Fail> {
    let to = ctx.opt_int("to")?.ok_or("attribute `to` is missing")?;
    let code = i32::try_from(to).map_err(|_| Fail::Bad(format!("element type {to}")))?;
    tensor::dtype(code).map_err(Fail::Unsupported)
}

/// `Cast`.
pub fn cast<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let to = target(ctx)?;
    one(im.cast(ctx.input(0)?, to))
}

/// `CastLike`: to the second operand's dtype.
pub fn cast_like<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let to = im.dtype(ctx.input(1)?);
    one(im.cast(ctx.input(0)?, to))
}

/// `BitCast`: the same bits under a dtype of the same width.
pub fn bit_cast<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, to) = (ctx.input(0)?, target(ctx)?);
    if im.dtype(x) == to {
        return Ok(vec![x]);
    }
    // A bool is a byte that is 0 or 1.
    let x = if im.dtype(x) == DType::Bool {
        im.cast(x, DType::U8)?
    } else {
        x
    };
    if im.dtype(x) == to || (to == DType::Bool && im.dtype(x).bytes() == 1) {
        return one(im.cast(x, to));
    }
    one(im.op("bitcast", &[Attr::DType(to)], &[x]))
}
