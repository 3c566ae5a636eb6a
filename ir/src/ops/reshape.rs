//! `reshape{shape}(x)`: the elements of `x`, in row-major order, under another shape with as many elements.
//! Source: XLA `Reshape`. ONNX `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` are this with a computed shape.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, arity, shape};
use crate::{DType, Tensor, Type, dim};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("shape", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, to) = (&inputs[0], op.dims("shape"));
        shape::check_extents("shape", to)?;
        if x.len() != dim::product(to) {
            return Err(format!(
                "operand {x} has {} elements, shape {} has {}",
                x.len(),
                shape::list(to),
                dim::product(to)
            ));
        }
        Ok(vec![Type::new(x.dtype, to)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(vec![inputs[0].reshaped(&shape::known(op.dims("shape")))])
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |to: &[i64], from| Sample::new(&[Attr::dims(to)], &[from]);
        vec![
            s(&[2, 12], (DType::F32, &[2, 3, 4])),
            s(&[3, 1, 8], (DType::I8, &[4, 6])),
            s(&[], (DType::F32, &[1, 1])),
            s(&[1], (DType::Bool, &[])),
            s(&[0, 7], (DType::F32, &[3, 0])),
        ]
    }
}
