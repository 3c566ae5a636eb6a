//! Writing by index: `ScatterND`, `ScatterElements` (`Scatter` before version 11), `TensorScatter`.

use super::*;
use brolga_ir::{Attr, DType};

fn reduction(ctx: &NodeCtx<'_>) -> Result<Attr, Fail> {
    match ctx.string("reduction", "none")? {
        r @ ("none" | "add" | "mul" | "min" | "max") => Ok(Attr::word(r)),
        r => Err(Fail::Bad(format!(
            "reduction `{r}`, expected none, add, mul, min or max"
        ))),
    }
}

/// `ScatterND`.
pub fn nd(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let (data, indices, mut updates) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let (shape, index) = (graph.shape(data), graph.shape(indices));
    if let Some((k, leading)) = index.split_last()
        && let Some(tail) = k.as_const().and_then(|k| shape.get(usize::try_from(k).ok()?..))
    {
        updates = graph.fit_shape(updates, &[leading, tail].concat())?;
    }
    let y = graph.op("scatter_nd", &[reduction(ctx)?], &[data, indices, updates])?;
    let axes: Vec<usize> = (0..graph.rank(data)).collect();
    graph.check_indices(data, indices, &axes)?;
    one(Ok(y))
}

/// `ScatterElements`.
pub fn elements(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = node::axis(ctx.int("axis", 0)?, graph.rank(data))?;
    graph.check_indices(data, indices, &[axis])?;
    let updates = graph.fit_shape(ctx.input(2)?, &graph.shape(indices))?;
    one(graph.op(
        "scatter_elements",
        &[Attr::Int(axis as i64), reduction(ctx)?],
        &[data, indices, updates],
    ))
}

/// `TensorScatter`: `update` written into a cache along an axis, from a position of each batch entry on.
pub fn tensor_scatter(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (past, update) = (ctx.input(0)?, ctx.input(1)?);
    let rank = graph.rank(past);
    let axis = node::axis(ctx.int("axis", -2)?, rank)?;
    if axis == 0 || graph.rank(update) != rank {
        return Err(Fail::Bad(format!(
            "axis {axis} of {} and {}",
            graph.ty(past),
            graph.ty(update)
        )));
    }
    let shape = graph.shape(update);
    let mut index = graph.iota(DType::I64, &shape, axis)?;
    if let Some(start) = ctx.optional(2) {
        let start = graph.cast(start, DType::I64)?;
        let axes: Vec<usize> = (1..rank).collect();
        let start = graph.unsqueeze(start, &axes)?;
        index = graph.map("add", &[index, start])?;
    }
    match ctx.string("mode", "linear")? {
        "linear" => {}
        "circular" => {
            let n = graph.shape(past)[axis].clone();
            let n = graph.dim_scalar(&n, DType::I64)?;
            index = graph.map("mod", &[index, n])?;
        }
        m => return Err(Fail::Bad(format!("mode `{m}`, expected linear or circular"))),
    }
    let attrs = [Attr::Int(axis as i64), Attr::word("none")];
    one(graph.op("scatter_elements", &attrs, &[past, index, update]))
}
