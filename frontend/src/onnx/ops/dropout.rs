//! `Dropout`: in inference the operand itself and a mask of all true; in training random elements are 0, and the others larger.

use super::*;
use brolga_ir::DType;

/// `Dropout`. Ratio and mode may be data. The numbers are those of [`random`].
pub fn dropout(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 3)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    // Before version 12 the mode is no operand: inference.
    let training = ctx.optional(2);
    let on = match training {
        None => Some(false),
        Some(t) => graph.contents(t).map(|t| !t.is_empty() && t.get(0).int() != 0),
    };
    if on == Some(false) {
        if !ctx.wants(1) {
            return Ok(vec![x]);
        }
        // Before version 10 the mask has the operand's dtype.
        let dtype = if ctx.version < 10 { graph.dtype(x) } else { DType::Bool };
        let mask = graph.splat(dtype, &shape, 1.0)?;
        return Ok(vec![x, mask]);
    }
    let dtype = graph.dtype(x);
    let wide = graph.widen(x)?;
    let compute = graph.dtype(wide);
    let ratio = match ctx.optional(1) {
        Some(r) => {
            let r = graph.reshape(r, vec![])?;
            graph.cast(r, compute)?
        }
        None => graph.scalar(compute, 0.5),
    };
    let u = random::even(graph, &shape, random::key(ctx)?, compute)?;
    let mut mask = graph.map("greater_or_equal", &[u, ratio])?;
    let one = graph.scalar(compute, 1.0);
    let kept = graph.map("sub", &[one, ratio])?;
    let scaled = graph.map("div", &[wide, kept])?;
    let zero = graph.scalar(compute, 0.0);
    let mut y = graph.map("where", &[mask, scaled, zero])?;
    if on.is_none() {
        let training = graph.reshape(training.expect("it is no constant"), vec![])?;
        y = graph.map("where", &[training, y, wide])?;
        let off = graph.op("not", &[], &[training])?;
        mask = graph.map("or", &[mask, off])?;
    }
    Ok(vec![graph.cast(y, dtype)?, mask])
}
