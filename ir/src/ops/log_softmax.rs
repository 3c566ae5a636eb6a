//! `log_softmax{axis}(x)`: `x - max - log Σ exp(x - max)`, maximum and sum along the axis; f16 and bf16 in f32, rounded at
//! the end. Source: ONNX `LogSoftmax` (opset 13).

use super::softmax::{by_line, check, maximum, shifted};
use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Merge, Op, OpDef, Role, Rows, Sample, compose, draw};
use crate::{Build, DType, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "log_softmax"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        check(op, inputs)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(vec![by_line(op, &inputs[0], |line| {
            let max = maximum(line);
            let log = line.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            line.iter_mut().for_each(|x| *x = *x - max - log);
        })])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let (dtype, axis) = (b.type_of(inputs[0]).dtype, op.axis("axis"));
        let (x, _) = shifted(b, inputs[0], axis)?;
        let e = compose::map(b, "exp", &[x])?;
        let sum = compose::reduce(b, "sum", e, &[axis])?;
        let log = compose::map(b, "log", &[sum])?;
        let y = compose::with_spread(b, "sub", x, log)?;
        Ok(Some(vec![compose::cast(b, y, dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Rows(&Def)
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, want)?;
        let rank = d.ty(x).rank();
        let axis = draw::axis(d, 0, rank)?;
        Some(Drawn {
            attrs: vec![Attr::Int(axis as i64)],
            inputs: vec![x],
        })
    }
    fn follows(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |axis, x| Sample::new(&[Attr::Int(axis)], &[x]);
        vec![
            s(1, (DType::F32, &[3, 9])),
            s(0, (DType::F32, &[2, 5, 3])),
            s(2, (DType::BF16, &[2, 1, 7])),
            s(1, (DType::F32, &[3, 0])),
        ]
    }
}

impl Rows for Def {
    fn axes(&self, op: &Op, _: &Type) -> Vec<usize> {
        vec![op.axis("axis")]
    }
    fn merge(&self, _: &Op) -> Option<Merge> {
        None
    }
    fn operations(&self) -> f64 {
        25.0
    }
}
