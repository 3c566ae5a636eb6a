//! `layer_norm{axis, eps}(x, scale, bias)`: `(x - mean) / sqrt(variance + eps) · scale + bias`, with mean and biased variance
//! over the dimensions `axis..`; `scale` and `bias` have the shape of those. Computed in f32, or f64 for f64, rounded at the end.
//! Source: ONNX `LayerNormalization`; Ba, Kiros and Hinton, arXiv 1607.06450.

use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Merge, Op, OpDef, Role, Rows, Sample, arity, compose, normalize};
use crate::{Build, DType, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "layer_norm"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int), ("eps", AttrKind::Num)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 3)?;
        normalize::check_trailing(op.int("axis"), inputs)?;
        Ok(vec![inputs[0].clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, scale, bias) = (&inputs[0], inputs[1].to_f64s(), inputs[2].to_f64s());
        let row = scale.len();
        let statistics = |line: &[f64]| normalize::statistics(x.dtype(), line, op.num("eps"));
        Ok(vec![normalize::rows(
            x,
            row,
            statistics,
            |p| scale[p % row],
            |p| bias[p % row],
        )])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let ty = b.type_of(inputs[0]);
        let compute = ty.dtype.compute();
        let x = compose::cast(b, inputs[0], compute)?;
        let scale = compose::cast(b, inputs[1], compute)?;
        let bias = compose::cast(b, inputs[2], compute)?;
        let axes: Vec<usize> = (op.axis("axis")..ty.rank()).collect();
        let y = normalize::normalized(b, x, &axes, op.num("eps"))?;
        let y = compose::with_spread(b, "mul", y, scale)?;
        let y = compose::with_spread(b, "add", y, bias)?;
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
        use DType::{F16, F32, F64};
        let s = |axis, eps, x, p| Sample::new(&[Attr::Int(axis), Attr::num(eps)], &[x, p, p]);
        vec![
            s(1, 1e-5, (F32, &[3, 8]), (F32, &[8])),
            s(1, 1e-3, (F32, &[2, 3, 4]), (F32, &[3, 4])),
            s(2, 1e-5, (F16, &[2, 1, 6]), (F16, &[6])),
            s(0, 1e-12, (F64, &[5]), (F64, &[5])),
            s(1, 1e-5, (F32, &[0, 4]), (F32, &[4])),
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
        8.0
    }
}
