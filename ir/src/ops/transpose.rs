//! `transpose{perm}(x)`: axis `d` of the result is axis `perm[d]` of `x`.
//! Source: ONNX `Transpose`, XLA `Transpose`.

use super::{Access, Accuracy, Along, Attr, AttrKind, Draw, Drawn, Movement, Op, OpDef, Role, Sample, arity, draw, shape};
use crate::index::Ix;
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "transpose"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("perm", AttrKind::Ints)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, perm) = (&inputs[0], op.ints("perm"));
        shape::check_len("perm", perm.len(), x.rank())?;
        let perm = shape::check_axes("perm", perm, x.rank())?;
        Ok(vec![Type::new(
            x.dtype,
            perm.iter().map(|&p| x.shape[p].clone()).collect::<Vec<_>>(),
        )])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        Ok(vec![shape::permuted(&inputs[0], &op.axes("perm"))])
    }
    fn along(&self, op: &Op, _: &Type, _: &Type, axis: usize) -> Along {
        Along::Axis(op.axes("perm")[axis])
    }
    fn role(&self) -> Role {
        Role::Move(&Def)
    }
    fn is_identity(&self, op: &Op, _: &[Type]) -> bool {
        op.axes("perm").is_sorted()
    }
    fn takes_transpose(&self) -> bool {
        true
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        if let Some(t) = want
            && !d.is_natural(0)
        {
            let drawn = Attr::Ints(draw::permutation(d, t.rank()));
            let Attr::Ints(perm) = d.attr(0, drawn)? else { return None };
            if perm.len() != t.rank() {
                return None;
            }
            let mut shape = vec![Dim::ZERO; perm.len()];
            perm.iter().zip(&t.shape).for_each(|(&p, e)| shape[p as usize] = e.clone());
            let x = d.operand(0, Some(&Type::new(t.dtype, shape)))?;
            return Some(Drawn {
                attrs: vec![Attr::Ints(perm)],
                inputs: vec![x],
            });
        }
        let x = d.operand(0, None)?;
        let rank = d.ty(x).rank();
        let mut perm = draw::permutation(d, rank);
        // Now and then the one that swaps the two last dims, which contractions ask about.
        if rank >= 2 && d.chance(30) {
            perm = (0..rank as i64).collect();
            perm.swap(rank - 2, rank - 1);
        }
        Some(Drawn {
            attrs: vec![d.attr(0, Attr::Ints(perm))?],
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
        let s = |perm: &[i64], x| Sample::new(&[Attr::ints(perm)], &[x]);
        vec![
            s(&[1, 0], (DType::F32, &[3, 5])),
            s(&[2, 0, 1], (DType::F32, &[2, 3, 4])),
            s(&[0, 2, 3, 1], (DType::I64, &[2, 1, 3, 2])),
            s(&[1, 0, 2], (DType::U8, &[4, 0, 2])),
            s(&[], (DType::F32, &[])),
        ]
    }
}

impl Movement for Def {
    fn permutation(&self, op: &Op) -> Option<Vec<usize>> {
        Some(op.axes("perm"))
    }
    fn source(&self, op: &Op, _: &Type, _: &Type, at: &[Ix]) -> Access {
        let mut inner = vec![Ix::constant(0); at.len()];
        op.axes("perm").iter().zip(at).for_each(|(&p, ix)| inner[p] = ix.clone());
        Access::of(inner)
    }
    /// When the innermost axis of more than one element moves.
    fn strides(&self, op: &Op, from: &Type) -> bool {
        let wide = |d: &usize| !from.shape[*d].is(1);
        op.axes("perm").into_iter().rfind(wide) != (0..from.rank()).rfind(wide)
    }
}
