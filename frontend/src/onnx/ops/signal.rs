//! `HannWindow`, `HammingWindow`, `BlackmanWindow`, as sums of cosines.

use super::super::tensor;
use super::*;
use brolga_ir::{DType, Dim, Number, Tensor, Type};
use std::f64::consts::PI;

/// Windows are made at import: longer ones are refused.
const MAX_LENGTH: i64 = 1 << 24;

/// Any of the three.
pub fn window(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let size = ctx.input(0)?;
    if graph.contents(size).is_none() {
        return one(in_run(graph, ctx, size));
    }
    let n = *graph
        .ints_operand(ctx.input(0)?, "the size")?
        .first()
        .ok_or("an empty size")?;
    if !(0..=MAX_LENGTH).contains(&n) {
        return Err(Fail::Bad(format!("a size of {n}")));
    }
    let (dtype, [a, b, c]) = (dtype(ctx)?, coefficients(ctx));
    graph.check_size(&Type::fixed(dtype, &[n as usize]))?;
    let period = if ctx.flag("periodic", true)? { n } else { n - 1 } as f64;
    let value = |i: usize| {
        let t = 2.0 * PI * i as f64 / period;
        Number::Float(a - b * t.cos() + c * (2.0 * t).cos())
    };
    Ok(vec![graph.dense(Tensor::from_fn(dtype, &[n as usize], value))])
}

fn dtype(ctx: &NodeCtx<'_>) -> Result<DType, Fail> {
    match ctx.opt_int("output_datatype")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported),
        None => Ok(DType::F32),
    }
}

/// `a - b cos t + c cos 2t`.
fn coefficients(ctx: &NodeCtx<'_>) -> [f64; 3] {
    match ctx.op() {
        "HannWindow" => [0.5, 0.5, 0.0],
        "HammingWindow" => [25.0 / 46.0, 21.0 / 46.0, 0.0],
        _ => [0.42, 0.5, 0.08],
    }
}

/// A window whose length a symbol or data tell.
fn in_run(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, size: Value) -> One {
    let n = graph
        .sizes_operand(size, "the size", &[])?
        .first()
        .cloned()
        .ok_or("an empty size")?;
    let at = graph.iota(DType::F64, std::slice::from_ref(&n), 0)?;
    let periodic = ctx.flag("periodic", true)?;
    let period = graph.dim_scalar(&if periodic { n } else { &n - &Dim::ONE }, DType::F64)?;
    let turns = graph.map("div", &[at, period])?;
    let t = graph.map_num("mul", turns, 2.0 * PI)?;
    let [a, b, c] = coefficients(ctx);
    let first = graph.map("cos", &[t])?;
    let first = graph.map_num("mul", first, -b)?;
    let twice = graph.map_num("mul", t, 2.0)?;
    let second = graph.map("cos", &[twice])?;
    let second = graph.map_num("mul", second, c)?;
    let sum = graph.map("add", &[first, second])?;
    let sum = graph.map_num("add", sum, a)?;
    graph.cast(sum, dtype(ctx)?)
}
