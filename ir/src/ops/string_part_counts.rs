//! `string_part_counts{most}(x, delimiter) -> i64`: into how many parts `string_parts` splits each string. A host operator.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, text};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_part_counts"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("most", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        text::check_parts(op, inputs)?;
        Ok(vec![Type::new(DType::I64, inputs[0].shape.clone())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let parts = text::parts(op, inputs)?;
        let count = |i: usize| Number::Int(parts[i].len() as i128);
        Ok(vec![Tensor::from_fn(DType::I64, inputs[0].shape(), count)])
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new(&[Attr::Int(-1)], &[(DType::Str, &[2, 0, 1]), (DType::Str, &[])])]
    }
}
