//! `Dropout` in inference: the operand itself and a mask of all true.

use super::*;
use brolga_ir::DType;

/// `Dropout`. In training mode only a ratio of 0 is supported.
pub fn dropout(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 3)?;
    let x = ctx.input(0)?;
    if let Some(training) = ctx.optional(2) {
        let on = graph.ints_operand(training, "training_mode")?.first() != Some(&0);
        let ratio = match ctx.optional(1) {
            Some(r) => *graph.floats_operand(r, "the ratio")?.first().ok_or("an empty ratio")?,
            None => 0.5,
        };
        if on && ratio != 0.0 {
            return unsupported("training mode");
        }
    }
    if !ctx.wants(1) {
        return Ok(vec![x]);
    }
    // Before version 10 the mask has the operand's dtype.
    let dtype = if ctx.version < 10 { graph.dtype(x) } else { DType::Bool };
    let shape = graph.shape(x);
    let mask = graph.splat(dtype, &shape, 1.0)?;
    Ok(vec![x, mask])
}
