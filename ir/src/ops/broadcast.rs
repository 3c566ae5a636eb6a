//! `broadcast{shape}(x)`: `out[i] = x[i]`, where along dimensions of extent 1 of `x` the index is 0. The rank stays:
//! leading dimensions are added by `reshape`. Where an extent of `x` is symbolic and not the result's, it is one of both
//! when the model runs, which a guard of the graph says. Source: numpy's broadcasting, XLA `BroadcastInDim`, ONNX `Expand`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, arity, shape};
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "broadcast"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("shape", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, to) = (&inputs[0], op.dims("shape"));
        shape::check_extents("shape", to)?;
        shape::check_len("shape", to.len(), x.rank())?;
        let differ = |from: &Dim, to: &Dim| from.as_const().zip(to.as_const()).is_some_and(|(f, t)| f != 1 && f != t);
        if x.shape.iter().zip(to).any(|(from, to)| differ(from, to)) {
            return Err(format!(
                "operand {x} to shape {}, expected equal extents or 1",
                shape::list(to)
            ));
        }
        Ok(vec![Type::new(x.dtype, to)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let mut strides = shape::strides(x.shape());
        for (stride, &n) in strides.iter_mut().zip(x.shape()) {
            if n == 1 {
                *stride = 0;
            }
        }
        Ok(vec![shape::pick(x, &shape::known(op.dims("shape")), 0, &strides)])
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |to: &[i64], x| Sample::new(&[Attr::dims(to)], &[x]);
        vec![
            s(&[2, 3, 4], (DType::F32, &[2, 1, 4])),
            s(&[5, 3], (DType::F32, &[1, 1])),
            s(&[2, 3], (DType::I32, &[2, 3])),
            s(&[3, 0], (DType::F32, &[3, 1])),
            s(&[], (DType::Bool, &[])),
        ]
    }
}
