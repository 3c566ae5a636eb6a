//! `batch_norm{eps}(x, scale, bias, mean, var)`: `(x - mean[c]) / sqrt(var[c] + eps) · scale[c] + bias[c]`, with `c` the index of
//! dim 1. Computed in f32, or f64 for f64, rounded at the end. Decomposed as `x·a + b` with `a = scale / sqrt(var + eps)` and
//! `b = bias - mean·a`, which are constants of a trained network. Source: ONNX `BatchNormalization` (inference); Ioffe and
//! Szegedy, arXiv 1502.03167.

use super::normalize::rounded;
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, arity, compose, shape};
use crate::{Build, DType, Number, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

/// Checks an operand of rank 2 or more and the vectors of its channels.
///
/// # Errors
/// When something differs.
pub fn check_channels(names: &[&str], inputs: &[Type]) -> Result<(), String> {
    arity(inputs, names.len() + 1)?;
    let x = &inputs[0];
    shape::check_float("x", x)?;
    shape::check_rank("x", x, 2)?;
    for (what, t) in names.iter().zip(&inputs[1..]) {
        shape::check_type(what, t, x.dtype, &x.shape[1..2])?;
    }
    Ok(())
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("eps", AttrKind::Num)]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        check_channels(&["scale", "bias", "mean", "var"], inputs)?;
        Ok(vec![inputs[0].clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, dtype) = (&inputs[0], inputs[0].dtype());
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| inputs[i].to_f64s());
        let inner: usize = x.shape()[2..].iter().product();
        Ok(vec![Tensor::from_fn(dtype, x.shape(), |p| {
            let c = p / inner % scale.len();
            let factor = rounded(dtype, scale[c] / rounded(dtype, var[c] + op.num("eps")).sqrt());
            let centred = rounded(dtype, x.get(p).f64() - mean[c]);
            Number::Float(rounded(dtype, rounded(dtype, centred * factor) + bias[c]))
        })])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let dtype = b.type_of(inputs[0]).dtype;
        let mut v = vec![];
        for &x in inputs {
            v.push(compose::cast(b, x, dtype.compute())?);
        }
        let root = compose::inverse_root(b, v[4], op.num("eps"))?;
        let factor = compose::map(b, "mul", &[v[1], root])?;
        let shift = compose::map(b, "mul", &[v[3], factor])?;
        let shift = compose::map(b, "sub", &[v[2], shift])?;
        let factor = compose::channels(b, factor, v[0])?;
        let shift = compose::channels(b, shift, v[0])?;
        let y = compose::map(b, "mul", &[v[0], factor])?;
        let y = compose::map(b, "add", &[y, shift])?;
        Ok(Some(vec![compose::cast(b, y, dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32, F64};
        // Sample operands reach down to -2, which this much keeps positive under the root.
        let s = |x, c| Sample::new(&[Attr::num(3.0)], &[x, c, c, c, c]);
        vec![
            s((F32, &[2, 3, 4, 5]), (F32, &[3])),
            s((F32, &[4, 1]), (F32, &[1])),
            s((F16, &[1, 2, 6]), (F16, &[2])),
            s((F64, &[2, 3, 1, 2, 2]), (F64, &[3])),
            s((F32, &[0, 3, 2]), (F32, &[3])),
        ]
    }
}
