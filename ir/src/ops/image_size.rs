//! `image_size(bytes) -> i64[2]`: the rows and columns of the image that `image_decode` makes of the same bytes. It is decoded for that: of
//! a damaged one both are 0, and its first bytes do not tell. A host operator.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample, image};
use crate::{DType, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "image_size"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        image::check(inputs)?;
        Ok(vec![Type::fixed(DType::I64, &[2])])
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let size = image::pixels(inputs[0].bytes())?.map_or([0, 0], |p| p.size);
        Ok(vec![Tensor::from_i64(&[2], &size.map(|n| n as i64))])
    }
    fn available(&self) -> Result<(), String> {
        image::available()
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new(&[], &[(DType::U8, &[1])])]
    }
}
