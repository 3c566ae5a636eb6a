//! `MelWeightMatrix`.

use super::super::tensor;
use super::*;
use brolga_ir::{DType, Dim};

/// `MelWeightMatrix`: triangles over the bins of a spectrum, [bins, bands], whose corners are equally far apart on the mel
/// scale, `2595·log10(1 + f / 700)`, and rounded down to bins. In f64.
pub fn mel_weights(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(5, 5)?;
    let dtype = match ctx.opt_int("output_datatype")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None => DType::F32,
    };
    let size = |graph: &mut Builder<'_>, i: usize, what: &str| {
        let d = graph.dims_operand(ctx.input(i)?, what)?.first().cloned();
        d.ok_or_else(|| Fail::Bad(format!("{what} is empty")))
    };
    let (bands, length) = (size(graph, 0, "the number of bands")?, size(graph, 1, "the length")?);
    graph.require_at_most(&Dim::ZERO, &bands)?;
    graph.require_at_most(&Dim::ONE, &length)?;
    let scalar = |graph: &mut Builder<'_>, i: usize| {
        let v = graph.reshape(ctx.input(i)?, vec![])?;
        graph.cast(v, DType::F64)
    };
    let scale = 2595.0 / std::f64::consts::LN_10;
    let rate = scalar(graph, 2)?;
    let mut ends = vec![];
    for i in 3..5 {
        let hertz = scalar(graph, i)?;
        let f = graph.map_num("div", hertz, 700.0)?;
        let f = graph.map_num("add", f, 1.0)?;
        let f = graph.op("log", &[], &[f])?;
        ends.push(graph.map_num("mul", f, scale)?);
    }
    let corners = &bands + &Dim::Const(2);
    let count = graph.dim_scalar(&corners, DType::F64)?;
    let span = graph.map("sub", &[ends[1], ends[0]])?;
    let step = graph.map("div", &[span, count])?;
    let at = graph.iota(DType::F64, &[corners], 0)?;
    let mel = graph.map("mul", &[at, step])?;
    let mel = graph.map("add", &[mel, ends[0]])?;
    let f = graph.map_num("div", mel, scale)?;
    let f = graph.op("expm1", &[], &[f])?;
    let hertz = graph.map_num("mul", f, 700.0)?;
    let bins = graph.dim_scalar(&(&length + &Dim::ONE), DType::F64)?;
    let bin = graph.map("mul", &[hertz, bins])?;
    let bin = graph.map("div", &[bin, rate])?;
    let bin = graph.op("floor", &[], &[bin])?;
    let corner = |graph: &mut Builder<'_>, i: i64| graph.slice_axis(bin, 0, Dim::Const(i), bands.clone());
    let (left, peak, right) = (corner(graph, 0)?, corner(graph, 1)?, corner(graph, 2)?);
    let rows = &length.floor_div(&Dim::Const(2)) + &Dim::ONE;
    let row = graph.iota(DType::F64, &[rows, Dim::ONE], 0)?;
    let zero = graph.scalar(DType::F64, 0.0);
    // From the left corner to the peak; where both are one bin, it has the weight 1.
    let width = graph.map("sub", &[peak, left])?;
    let flat = graph.map_num("equal", width, 0.0)?;
    let far = graph.map("sub", &[row, left])?;
    let rise = graph.map("div", &[far, width])?;
    let one = graph.scalar(DType::F64, 1.0);
    let rise = graph.map("where", &[flat, one, rise])?;
    let (from, to) = (
        graph.map("greater_or_equal", &[row, left])?,
        graph.map("less_or_equal", &[row, peak])?,
    );
    let rising = graph.map("and", &[from, to])?;
    let y = graph.map("where", &[rising, rise, zero])?;
    // From the peak to the right corner.
    let width = graph.map("sub", &[right, peak])?;
    let far = graph.map("sub", &[right, row])?;
    let fall = graph.map("div", &[far, width])?;
    let (from, to) = (
        graph.map("greater_or_equal", &[row, peak])?,
        graph.map("less", &[row, right])?,
    );
    let falling = graph.map("and", &[from, to])?;
    let y = graph.map("where", &[falling, fall, y])?;
    Ok(vec![graph.cast(y, dtype)?])
}
