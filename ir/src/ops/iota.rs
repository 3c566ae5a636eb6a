//! `iota{dtype, shape, axis}()`: `out[i] = i[axis]`, converted to the dtype (integers wrap, floats round).
//! Source: XLA `Iota`; ONNX `Range` is `start + iota·delta`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, Source, arity, check_axis, shape};
use crate::index::{Bound, Ix};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "iota"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("dtype", AttrKind::DType),
            ("shape", AttrKind::Dims),
            ("axis", AttrKind::Int),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 0)?;
        let (dtype, to) = (op.dtype("dtype"), op.dims("shape"));
        if dtype == DType::Bool {
            return Err("iota of bool, expected a number dtype".to_string());
        }
        shape::check_extents("shape", to)?;
        check_axis(op.int("axis"), to.len())?;
        Ok(vec![Type::new(dtype, to)])
    }
    fn eval(&self, op: &Op, _: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (to, axis) = (shape::known(op.dims("shape")), op.axis("axis"));
        let inner: usize = to[axis + 1..].iter().product();
        let value = |p: usize| Number::Int((p / inner % to[axis]) as i128);
        Ok(vec![Tensor::from_fn(op.dtype("dtype"), &to, value)])
    }
    fn role(&self) -> Role {
        Role::Source(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |dtype, to: &[i64], axis| Sample::new(&[Attr::DType(dtype), Attr::dims(to), Attr::Int(axis)], &[]);
        vec![
            s(DType::I64, &[7], 0),
            s(DType::F32, &[2, 3, 4], 1),
            s(DType::I8, &[1, 5], 1),
            s(DType::F16, &[3, 2], 0),
            s(DType::U32, &[3, 0], 1),
        ]
    }
}

impl Source for Def {
    fn element(&self, op: &Op, at: &[Ix]) -> Vec<(Option<Bound>, Ix)> {
        vec![(None, at[op.axis("axis")].clone())]
    }
    fn is_index(&self) -> bool {
        true
    }
}
