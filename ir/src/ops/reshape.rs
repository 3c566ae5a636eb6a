//! `reshape{shape}(x)`: the elements of `x`, in row-major order, under another shape with as many elements.
//! Source: XLA `Reshape`. ONNX `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` are this with a computed shape.

use super::{Access, Accuracy, Along, Attr, AttrKind, Draw, Drawn, Movement, Op, OpDef, Role, Sample, arity, draw, shape};
use crate::index::Ix;
use crate::{DType, Dim, Tensor, Type, dim};

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
    /// The axis with as many elements in it, before it and behind it.
    fn along(&self, _: &Op, from: &Type, to: &Type, axis: usize) -> Along {
        let sides = |shape: &[Dim], a: usize| [dim::product(&shape[..a]), dim::product(&shape[a + 1..])];
        let wanted = sides(&to.shape, axis);
        let same = |&a: &usize| from.shape[a] == to.shape[axis] && sides(&from.shape, a) == wanted;
        (0..from.rank()).find(same).map_or(Along::Mixed, Along::Axis)
    }
    fn role(&self) -> Role {
        Role::Reshape(&Def)
    }
    fn is_identity(&self, op: &Op, inputs: &[Type]) -> bool {
        op.dims("shape") == inputs[0].shape
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        let x = match want {
            Some(t) if !d.is_natural(0) => {
                let shape = draw::refactored(d, &t.shape)?;
                d.operand(0, Some(&Type::new(t.dtype, shape)))?
            }
            _ => d.operand(0, None)?,
        };
        let shape = match want {
            Some(t) => t.shape.clone(),
            None => {
                let from = d.ty(x).shape;
                draw::refactored(d, &from)?
            }
        };
        Some(Drawn {
            attrs: vec![d.attr(0, Attr::Dims(shape))?],
            inputs: vec![x],
        })
    }
    fn follows(&self) -> bool {
        true
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

impl Movement for Def {
    /// Dimensions are matched in groups of equal products, so that splits stay affine and only merges divide.
    fn source(&self, _: &Op, from: &Type, to: &Type, at: &[Ix]) -> Access {
        if from.is_empty() {
            // Nobody reads it, and there is nothing to divide by.
            return Access::of(vec![Ix::constant(0); from.rank()]);
        }
        let (from, to) = (&from.shape, &to.shape);
        let mut out = vec![];
        let (mut i, mut j) = (0, 0);
        while j < from.len() {
            // Grow both groups until their products agree.
            let (i0, j0) = (i, j);
            let (mut p, mut q) = (Dim::ONE, from[j].clone());
            j += 1;
            while p != q && (i < to.len() || j < from.len()) {
                let take_to =
                    i < to.len() && (j == from.len() || q.exact_div(&p).is_some() || p.exact_div(&q).is_none());
                if take_to {
                    p = &p * &to[i];
                    i += 1;
                } else {
                    q = &q * &from[j];
                    j += 1;
                }
            }
            let mut rest = (i0..i).fold(Ix::constant(0), |f, d| &f.scale(&to[d]) + &at[d]);
            let mut group = vec![];
            for d in (j0 + 1..j).rev() {
                group.push(rest.modulo(&from[d]));
                rest = rest.div(&from[d]);
            }
            group.push(rest);
            out.extend(group.into_iter().rev());
        }
        Access::of(out)
    }
}
