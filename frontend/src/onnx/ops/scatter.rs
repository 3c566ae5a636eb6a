//! Writing by index: `ScatterND`, `ScatterElements` (`Scatter` before version 11), `TensorScatter`.

use super::*;
use brolga_ir::{Attr, DType};

fn reduction<'m>(ctx: &NodeCtx<'m>) -> Result<Attr, Fail> {
    match ctx.string("reduction", "none")? {
        r @ ("none" | "add" | "mul" | "min" | "max") => Ok(Attr::word(r)),
        r => Err(Fail::Bad(format!(
            "reduction `{r}`, expected none, add, mul, min or max"
        ))),
    }
}

/// `ScatterND`.
pub fn nd<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(3, 3)?;
    let operands = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let y = im.op("scatter_nd", &[reduction(ctx)?], &operands)?;
    let axes: Vec<usize> = (0..im.rank(operands[0])).collect();
    im.check_indices(operands[0], operands[1], &axes)?;
    one(Ok(y))
}

/// `ScatterElements`.
pub fn elements<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(3, 3)?;
    let operands = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let axis = node::axis(ctx.int("axis", 0)?, im.rank(operands[0]))?;
    im.check_indices(operands[0], operands[1], &[axis])?;
    one(im.op(
        "scatter_elements",
        &[Attr::Int(axis as i64), reduction(ctx)?],
        &operands,
    ))
}

/// `TensorScatter`: `update` written into a cache along an axis, from a position of each batch entry on.
pub fn tensor_scatter<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 3)?;
    let (past, update) = (ctx.input(0)?, ctx.input(1)?);
    let rank = im.rank(past);
    let axis = node::axis(ctx.int("axis", -2)?, rank)?;
    if axis == 0 || im.rank(update) != rank {
        return Err(Fail::Bad(format!(
            "axis {axis} of {} and {}",
            im.ty(past),
            im.ty(update)
        )));
    }
    let shape = im.shape(update);
    let mut index = im.iota(DType::I64, &shape, axis)?;
    if let Some(start) = ctx.optional(2) {
        let start = im.cast(start, DType::I64)?;
        let axes: Vec<usize> = (1..rank).collect();
        let start = im.unsqueeze(start, &axes)?;
        index = im.map("add", &[index, start])?;
    }
    match ctx.string("mode", "linear")? {
        "linear" => {}
        "circular" => {
            let n = im.shape(past)[axis].clone();
            let n = im.dim_scalar(&n, DType::I64)?;
            index = im.map("mod", &[index, n])?;
        }
        m => return Err(Fail::Bad(format!("mode `{m}`, expected linear or circular"))),
    }
    let attrs = [Attr::Int(axis as i64), Attr::word("none")];
    one(im.op("scatter_elements", &attrs, &[past, index, update]))
}
