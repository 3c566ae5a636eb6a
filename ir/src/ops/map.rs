//! Element-wise operators: one for every row of [`crate::scalar::functions`], by the row's name. All operands have one
//! shape, which is the result's. The reference evaluation evaluates the row's body on every element.

use super::{Accuracy, AttrKind, Op, OpDef, Sample};
use crate::scalar::{self, Function, Scalar};
use crate::{DType, Tensor, Type};
use std::sync::LazyLock;

/// The operator of one scalar function.
pub struct Map(pub &'static Function);

/// The operators of all scalar functions.
pub fn all() -> Vec<&'static dyn OpDef> {
    static MAPS: LazyLock<Vec<Map>> = LazyLock::new(|| scalar::functions().iter().map(Map).collect());
    MAPS.iter().map(|m| m as &dyn OpDef).collect()
}

impl OpDef for Map {
    fn name(&self) -> &'static str {
        self.0.name
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        if self.0.is_cast() {
            &[("to", AttrKind::DType)]
        } else {
            &[]
        }
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let dtypes: Vec<_> = inputs.iter().map(|t| t.dtype).collect();
        let to = self.0.is_cast().then(|| op.dtype("to"));
        let dtype = self.0.result(&dtypes, to)?;
        if let Some(t) = inputs.iter().find(|t| t.shape != inputs[0].shape) {
            return Err(format!(
                "operands of shapes {} and {t}, expected equal shapes",
                inputs[0]
            ));
        }
        Ok(vec![Type::new(dtype, inputs[0].shape.clone())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let dtypes: Vec<_> = inputs.iter().map(Tensor::dtype).collect();
        let to = self.0.is_cast().then(|| op.dtype("to"));
        let body = self.0.body(&dtypes, to)?;
        let out = self.0.result(&dtypes, to)?;
        // By their bits: a number would not carry the payload of a NaN, which `bitcast` shows.
        let (mut values, mut bytes) = (vec![], Vec::with_capacity(inputs[0].len() * out.bytes()));
        for i in 0..inputs[0].len() {
            values.clear();
            values.extend(inputs.iter().map(|t| scalar_at(t, i)));
            body.run(&mut values);
            let result = values[body.outputs[0].0 as usize];
            bytes.extend_from_slice(&result.bits.to_le_bytes()[..out.bytes()]);
        }
        Ok(vec![Tensor::new(out, inputs[0].shape().to_vec(), bytes)?])
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        self.0.samples()
    }
}

/// The element at a row-major position.
fn scalar_at(t: &Tensor, i: usize) -> Scalar {
    let (dtype, n) = (t.dtype(), t.dtype().bytes());
    let mut bits = [0; 8];
    bits[..n].copy_from_slice(&t.bytes()[i * n..(i + 1) * n]);
    let bits = u64::from_le_bytes(bits);
    let bits = if dtype == DType::Bool { (bits != 0) as u64 } else { bits };
    Scalar { dtype, bits }
}
