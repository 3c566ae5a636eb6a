//! `arg_reduce{kind, axis, last}(x) -> i64`: the position of the largest (`max`) or smallest (`min`) element along the axis,
//! which stays with extent 1: the first such position, or the last. NaN counts as the extreme for both kinds, -0 equals +0;
//! over an empty axis the result is 0. Source: ONNX `ArgMax` and `ArgMin` with `select_last_index`; NaN as numpy's `argmax`.

use super::{Accuracy, Attr, AttrKind, Combine, Merge, Op, OpDef, Role, Rows, Sample, arity, check_axis, shape};
use crate::{DType, Dim, Number, Tensor, Type};
use std::cmp::Ordering;

/// The operator's definition.
pub struct Def;

const KINDS: &[Combine] = &[Combine::Max, Combine::Min];

/// The order of elements, with NaN above everything.
pub fn nan_last(a: Number, b: Number) -> Ordering {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.f64(), b.f64());
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "arg_reduce"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("kind", AttrKind::Word),
            ("axis", AttrKind::Int),
            ("last", AttrKind::Bool),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let x = &inputs[0];
        Combine::of(op.word("kind"), KINDS)?.check(x.dtype)?;
        let mut out = x.shape.clone();
        out[check_axis(op.int("axis"), x.rank())?] = Dim::ONE;
        Ok(vec![Type::new(DType::I64, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, axis) = (&inputs[0], op.axis("axis"));
        let wanted = if op.word("kind") == "max" {
            Ordering::Greater
        } else {
            Ordering::Less
        };
        let better = |new: Number, old: Number| match (new.f64().is_nan(), old.f64().is_nan()) {
            (true, true) => op.flag("last"),
            (new, old) if new != old => new,
            _ => match nan_last(new, old) {
                Ordering::Equal => op.flag("last"),
                order => order == wanted,
            },
        };
        let strides = shape::strides(x.shape());
        let (n, step) = (x.shape()[axis], strides[axis] as usize);
        let mut out = x.shape().to_vec();
        out[axis] = 1;
        let mut positions = vec![];
        shape::walk(&out, 0, &strides, |base| {
            let best = (1..n).fold(0, |best, i| {
                if better(x.get(base + i * step), x.get(base + best * step)) {
                    i
                } else {
                    best
                }
            });
            positions.push(best as i64);
        });
        Ok(vec![Tensor::from_i64(&out, &positions)])
    }
    fn role(&self) -> Role {
        Role::Rows(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |kind, axis, last, x| Sample::new(&[Attr::word(kind), Attr::Int(axis), Attr::Bool(last)], &[x]);
        vec![
            s("max", 1, false, (DType::F32, &[3, 7])),
            s("max", 1, true, (DType::I8, &[2, 9, 3])),
            s("min", 0, false, (DType::F32, &[4, 1, 2])),
            s("min", 2, true, (DType::F16, &[2, 3, 5])),
            s("max", 0, false, (DType::F32, &[0, 2])),
            s("max", 0, false, (DType::F32, &[3, 0])),
        ]
    }
}

impl Rows for Def {
    fn axes(&self, op: &Op, _: &Type) -> Vec<usize> {
        vec![op.axis("axis")]
    }
    fn merge(&self, op: &Op) -> Option<Merge> {
        Some(Merge::Position {
            max: op.word("kind") == "max",
            last: op.flag("last"),
        })
    }
    fn operations(&self) -> f64 {
        1.0
    }
}
