//! `rms_norm{axis, eps}(x, scale)`: `x / sqrt(mean(x²) + eps) · scale`, the mean over the dimensions `axis..`, whose shape `scale`
//! has. Computed in f32, or f64 for f64, rounded at the end. Source: ONNX `RMSNormalization` (opset 23); Zhang and Sennrich,
//! arXiv 1910.07467.

use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Merge, Op, OpDef, Role, Rows, Sample, arity, compose, normalize};
use crate::{Build, DType, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "rms_norm"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int), ("eps", AttrKind::Num)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        normalize::check_trailing(op.int("axis"), inputs)?;
        Ok(vec![inputs[0].clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, scale) = (&inputs[0], inputs[1].to_f64s());
        let (row, dtype) = (scale.len(), x.dtype());
        let root = |line: &[f64]| {
            let mean = line.iter().map(|x| normalize::rounded(dtype, x * x)).sum::<f64>() / row as f64;
            let mean = normalize::rounded(dtype, normalize::rounded(dtype, mean) + op.num("eps"));
            (0.0, normalize::rounded(dtype, 1.0 / mean.sqrt()))
        };
        Ok(vec![normalize::rows(x, row, root, |p| scale[p % row], |_| -0.0)])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let ty = b.type_of(inputs[0]);
        let compute = ty.dtype.compute();
        let x = compose::cast(b, inputs[0], compute)?;
        let scale = compose::cast(b, inputs[1], compute)?;
        let axes: Vec<usize> = (op.axis("axis")..ty.rank()).collect();
        let square = compose::map(b, "mul", &[x, x])?;
        let mean = compose::mean(b, square, &axes)?;
        let factor = compose::inverse_root(b, mean, op.num("eps"))?;
        let y = compose::with_spread(b, "mul", x, factor)?;
        let y = compose::with_spread(b, "mul", y, scale)?;
        Ok(Some(vec![compose::cast(b, y, ty.dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Rows(&Def)
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        normalize::draw_rows(d, want)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{BF16, F32};
        let s = |axis, eps, x, p| Sample::new(&[Attr::Int(axis), Attr::num(eps)], &[x, p]);
        vec![
            s(1, 1e-5, (F32, &[3, 8]), (F32, &[8])),
            s(1, 1e-3, (F32, &[2, 3, 4]), (F32, &[3, 4])),
            s(2, 1e-5, (BF16, &[2, 1, 6]), (BF16, &[6])),
            s(0, 1e-5, (F32, &[0]), (F32, &[0])),
        ]
    }
}

impl Rows for Def {
    fn axes(&self, op: &Op, operand: &Type) -> Vec<usize> {
        (op.axis("axis")..operand.rank()).collect()
    }
    fn merge(&self, _: &Op) -> Option<Merge> {
        None
    }
    fn operations(&self) -> f64 {
        5.0
    }
}
