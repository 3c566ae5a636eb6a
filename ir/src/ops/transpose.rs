//! `transpose{perm}(x)`: axis `d` of the result is axis `perm[d]` of `x`.
//! Source: ONNX `Transpose`, XLA `Transpose`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, arity, shape};
use crate::{DType, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "transpose"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("perm", AttrKind::Ints)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, perm) = (&inputs[0], op.ints("perm"));
        shape::check_len("perm", perm.len(), x.rank())?;
        let perm = shape::check_axes("perm", perm, x.rank())?;
        Ok(vec![Type::new(
            x.dtype,
            perm.iter().map(|&p| x.shape[p].clone()).collect::<Vec<_>>(),
        )])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(vec![shape::permuted(&inputs[0], &op.axes("perm"))])
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |perm: &[i64], x| Sample::new(&[Attr::ints(perm)], &[x]);
        vec![
            s(&[1, 0], (DType::F32, &[3, 5])),
            s(&[2, 0, 1], (DType::F32, &[2, 3, 4])),
            s(&[0, 2, 3, 1], (DType::I64, &[2, 1, 3, 2])),
            s(&[1, 0, 2], (DType::U8, &[4, 0, 2])),
            s(&[], (DType::F32, &[])),
        ]
    }
}
