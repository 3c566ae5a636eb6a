//! `Cast`, `CastLike` and `BitCast`.

use super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType};

fn target(ctx: &NodeCtx<'_>) -> Result<DType, Fail> {
    let to = ctx.opt_int("to")?.ok_or("attribute `to` is missing")?;
    let code = i32::try_from(to).map_err(|_| Fail::Bad(format!("element type {to}")))?;
    tensor::dtype(code).map_err(Fail::Unsupported)
}

/// `Cast`.
pub fn cast(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let to = target(ctx)?;
    one(graph.cast(ctx.input(0)?, to))
}

/// `CastLike`: to the second operand's dtype.
pub fn cast_like(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let to = graph.dtype(ctx.input(1)?);
    one(graph.cast(ctx.input(0)?, to))
}

/// `BitCast`: the same bits under a dtype of the same width.
pub fn bit_cast(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, to) = (ctx.input(0)?, target(ctx)?);
    if graph.dtype(x) == to {
        return Ok(vec![x]);
    }
    // A bool is a byte that is 0 or 1.
    let x = if graph.dtype(x) == DType::Bool {
        graph.cast(x, DType::U8)?
    } else {
        x
    };
    if graph.dtype(x) == to || (to == DType::Bool && graph.dtype(x).bytes() == 1) {
        return one(graph.cast(x, to));
    }
    one(graph.op("bitcast", &[Attr::DType(to)], &[x]))
}
