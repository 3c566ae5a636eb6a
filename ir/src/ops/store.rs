//! `store(x)`: x, materialised in memory. The identity, and the cut between kernels: what lies between stores is fused
//! into one kernel, consumers of a store load from memory. The e-graph's extraction decides where they stand.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample, arity};
use crate::{DType, Tensor, Type};

/// See the module.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "store"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        Ok(inputs.to_vec())
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(inputs.to_vec())
    }
    fn role(&self) -> Role {
        Role::Store
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::new(&[], &[(DType::F32, &[2, 1, 3])]),
            Sample::new(&[], &[(DType::I64, &[])]),
        ]
    }
}
