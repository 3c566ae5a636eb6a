//! Windows of known length: `HannWindow`, `HammingWindow`, `BlackmanWindow`, as sums of cosines.

use super::super::tensor;
use super::*;
use brolga_ir::{DType, Number, Tensor};
use std::f64::consts::PI;

/// Windows are made at import: longer ones are refused.
const MAX_LENGTH: i64 = 1 << 24;

/// Any of the three.
pub fn window(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let n = *graph
        .ints_operand(ctx.input(0)?, "the size")?
        .first()
        .ok_or("an empty size")?;
    if !(0..=MAX_LENGTH).contains(&n) {
        return Err(Fail::Bad(format!("a size of {n}")));
    }
    let dtype = match ctx.opt_int("output_datatype")? {
        Some(code) => tensor::dtype(code as i32).map_err(Fail::Unsupported)?,
        None => DType::F32,
    };
    let [a, b, c] = match ctx.op() {
        "HannWindow" => [0.5, 0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, 21.0 / 46.0, 0.0],
        _ => [0.42, 0.5, 0.08],
    };
    let period = if ctx.flag("periodic", true)? { n } else { n - 1 } as f64;
    let value = |i: usize| {
        let t = 2.0 * PI * i as f64 / period;
        Number::Float(a - b * t.cos() + c * (2.0 * t).cos())
    };
    Ok(vec![graph.dense(Tensor::from_fn(dtype, &[n as usize], value))])
}
