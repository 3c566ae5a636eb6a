//! `dims{values}()`: the values of dims as an i64 vector. Source: ONNX `Shape`, whose result is known but for symbols.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, Source, arity};
use crate::index::{Bound, Ix};
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "dims"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("values", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 0)?;
        Ok(vec![Type::fixed(DType::I64, &[op.dims("values").len()])])
    }
    fn eval(&self, op: &Op, _: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let values = op.sizes("values");
        Ok(vec![Tensor::from_i64(&[values.len()], &values)])
    }
    fn role(&self) -> Role {
        Role::Source(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |values: &[i64]| Sample::new(&[Attr::dims(values)], &[]);
        vec![s(&[3, 0, -1]), s(&[5]), s(&[])]
    }
}

impl Source for Def {
    fn element(&self, op: &Op, at: &[Ix]) -> Vec<(Option<Bound>, Ix)> {
        let here = |i: usize| Bound {
            index: &at[0] + &Dim::Const(-(i as i64)),
            extent: Dim::ONE,
        };
        let values = op.dims("values").iter().enumerate();
        let mut all: Vec<_> = values.map(|(i, d)| (Some(here(i)), Ix::constant(d.clone()))).collect();
        if let Some(last) = all.last_mut() {
            last.0 = None;
        }
        all
    }
    fn is_index(&self) -> bool {
        false
    }
}
