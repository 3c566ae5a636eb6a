//! `top_k{axis, k, largest}(x) -> values, i64 indices`: the `k` largest (or smallest) elements along the axis, sorted, the
//! extreme first; of equal elements the one of lower index comes first. NaN counts as the largest, -0 equals +0. `k` holds
//! one dim. A host operator. Source: ONNX `TopK` with `sorted = 1`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, arg_reduce, arity, check_axis, shape};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "top_k"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("axis", AttrKind::Int),
            ("k", AttrKind::Dims),
            ("largest", AttrKind::Bool),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, k) = (&inputs[0], op.dims("k"));
        let axis = check_axis(op.int("axis"), x.rank())?;
        shape::check_len("k", k.len(), 1)?;
        shape::check_extents("k", k)?;
        if shape::is_larger(&k[0], &x.shape[axis]) {
            return Err(format!(
                "k = {} along axis {axis} of {x}, expected no more than its extent",
                k[0]
            ));
        }
        let mut out = x.shape.clone();
        out[axis] = k[0].clone();
        Ok(vec![Type::new(x.dtype, out.clone()), Type::new(DType::I64, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, axis, k) = (&inputs[0], op.axis("axis"), op.sizes("k")[0] as usize);
        let strides = shape::strides(x.shape());
        let (n, step) = (x.shape()[axis], strides[axis] as usize);
        let mut out = x.shape().to_vec();
        out[axis] = k;
        let to = shape::strides(&out);
        let mut lines = out.clone();
        lines[axis] = k.min(1);
        let (mut from, mut at) = (vec![], vec![]);
        shape::walk(&lines, 0, &strides, |base| from.push(base));
        shape::walk(&lines, 0, &to, |base| at.push(base));
        let mut best = vec![(Number::Int(0), 0); out.iter().product()];
        for (base, at) in from.into_iter().zip(at) {
            let mut line: Vec<(Number, usize)> = (0..n).map(|i| (x.get(base + i * step), i)).collect();
            // The sort is stable: equal elements keep their order.
            line.sort_by(|(a, _), (b, _)| {
                let order = arg_reduce::nan_last(*a, *b);
                if op.flag("largest") { order.reverse() } else { order }
            });
            for (j, found) in line.into_iter().take(k).enumerate() {
                best[at + j * to[axis] as usize] = found;
            }
        }
        Ok(vec![
            Tensor::from_fn(x.dtype(), &out, |p| best[p].0),
            Tensor::from_fn(DType::I64, &out, |p| Number::Int(best[p].1 as i128)),
        ])
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |axis, k, largest, x| Sample::new(&[Attr::Int(axis), Attr::dims(&[k]), Attr::Bool(largest)], &[x]);
        vec![
            s(1, 3, true, (DType::F32, &[2, 7])),
            s(0, 2, false, (DType::I64, &[5, 1, 3])),
            s(2, 4, true, (DType::F16, &[2, 3, 4])),
            s(0, 0, true, (DType::F32, &[3, 2])),
            s(1, 0, true, (DType::F32, &[2, 0])),
        ]
    }
}
