//! What the normalisations share: statistics in the computing dtype, and the rounding that goes with it.

use super::{Attr, Draw, Drawn, compose, draw, shape};
use crate::{Build, DType, Number, Tensor, Type, Value};

/// A value rounded to the dtype that a normalisation of `dtype` elements computes in: f32, or f64 for f64.
pub fn rounded(dtype: DType, x: f64) -> f64 {
    Number::Float(x).to(dtype.compute()).f64()
}

/// Checks a normalisation over the dimensions `axis..`: `x` is a float, the parameters have its dtype and those dimensions.
///
/// # Errors
/// When something differs.
pub fn check_trailing(axis: i64, inputs: &[Type]) -> Result<(), String> {
    let x = &inputs[0];
    shape::check_float("x", x)?;
    let axis = super::check_axis(axis, x.rank())?;
    for (what, t) in ["scale", "bias"].into_iter().zip(&inputs[1..]) {
        shape::check_type(what, t, x.dtype, &x.shape[axis..])?;
    }
    Ok(())
}

/// Every row of `row` elements, normalised by `f(row)`, which gives what to subtract and what to multiply with, then
/// scaled and shifted by `scale` and `bias` of the element's place in the whole tensor.
pub fn rows(
    x: &Tensor,
    row: usize,
    f: impl Fn(&[f64]) -> (f64, f64),
    scale: impl Fn(usize) -> f64,
    bias: impl Fn(usize) -> f64,
) -> Tensor {
    let (dtype, mut values) = (x.dtype(), x.to_f64s());
    for (r, line) in values.chunks_exact_mut(row.max(1)).enumerate() {
        let (shift, factor) = f(line);
        for (i, v) in line.iter_mut().enumerate() {
            let p = r * row + i;
            *v = rounded(dtype, rounded(dtype, rounded(dtype, *v - shift) * factor) * scale(p)) + bias(p);
        }
    }
    Tensor::from_fn(dtype, x.shape(), |p| Number::Float(values[p]))
}

/// The mean of a row and `1 / sqrt(variance + eps)`, with the biased variance.
pub fn statistics(dtype: DType, line: &[f64], eps: f64) -> (f64, f64) {
    let n = line.len() as f64;
    // From +0: a sum of -0 is not -0.
    let sum = line.iter().fold(0.0, |sum, x| sum + x);
    let mean = rounded(dtype, sum / n);
    let variance = rounded(
        dtype,
        line.iter().map(|x| rounded(dtype, x - mean).powi(2)).sum::<f64>() / n,
    );
    (
        mean,
        rounded(dtype, 1.0 / rounded(dtype, variance + rounded(dtype, eps)).sqrt()),
    )
}

/// `(x - mean) / sqrt(variance + eps)` over axes, in the dtype of `x`.
///
/// # Errors
/// When `x` has no such axes.
pub fn normalized(b: &mut dyn Build, x: Value, axes: &[usize], eps: f64) -> Result<Value, String> {
    let mean = compose::mean(b, x, axes)?;
    let d = compose::with_spread(b, "sub", x, mean)?;
    let square = compose::map(b, "mul", &[d, d])?;
    let variance = compose::mean(b, square, axes)?;
    let factor = compose::inverse_root(b, variance, eps)?;
    compose::with_spread(b, "mul", d, factor)
}

/// An instance of a normalization of trailing dimensions, with factors (and terms) for each of their elements.
pub fn draw_rows(d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
    let float = Type::new(d.dtype(), d.shape(None));
    let x = d.operand(0, Some(want.unwrap_or(&float)))?;
    let ty = d.ty(x);
    let axis = draw::axis(d, 0, ty.rank())?;
    let eps = Attr::num(draw::pick(d, &[1e-2, 1e-3, 0.5]));
    let attrs = vec![Attr::Int(axis as i64), d.attr(1, eps)?];
    let tail = Type::new(ty.dtype, &ty.shape[axis..]);
    let mut inputs = vec![x];
    for i in 1..d.arity() {
        inputs.push(d.operand(i, Some(&tail))?);
    }
    Some(Drawn { attrs, inputs })
}
