//! `concat{axis}(x…)`: the operands behind each other along an axis. Source: ONNX `Concat`, XLA `Concatenate`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, check_axis};
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let first = inputs.first().ok_or("no operands, expected at least one")?;
        let axis = check_axis(op.int("axis"), first.rank())?;
        let mut out = first.shape.clone();
        out[axis] = Dim::ZERO;
        for t in inputs {
            let same = |d: usize| d == axis || t.shape[d] == first.shape[d];
            if t.dtype != first.dtype || t.rank() != first.rank() || !(0..t.rank()).all(same) {
                return Err(format!(
                    "operands {first} and {t}, expected them equal but for axis {axis}"
                ));
            }
            out[axis] = &out[axis] + &t.shape[axis];
        }
        Ok(vec![Type::new(first.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let axis = op.axis("axis");
        let mut shape = inputs[0].shape().to_vec();
        shape[axis] = inputs.iter().map(|t| t.shape()[axis]).sum();
        let mut bytes = vec![];
        let rows = if shape.contains(&0) {
            0
        } else {
            shape[..axis].iter().product()
        };
        for outer in 0..rows {
            for t in inputs {
                let n = t.shape()[axis..].iter().product::<usize>() * t.dtype().bytes();
                bytes.extend_from_slice(&t.bytes()[outer * n..(outer + 1) * n]);
            }
        }
        Ok(vec![Tensor::new(inputs[0].dtype(), shape, bytes)?])
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::F32;
        let s = |axis, inputs: &[super::SampleType]| Sample::new(&[Attr::Int(axis)], inputs);
        vec![
            s(0, &[(F32, &[2, 3]), (F32, &[1, 3])]),
            s(1, &[(F32, &[2, 3, 2]), (F32, &[2, 0, 2]), (F32, &[2, 1, 2])]),
            s(2, &[(DType::I64, &[2, 1, 3]), (DType::I64, &[2, 1, 4])]),
            s(0, &[(DType::Bool, &[1])]),
            s(1, &[(F32, &[0, 3]), (F32, &[0, 2])]),
        ]
    }
}
