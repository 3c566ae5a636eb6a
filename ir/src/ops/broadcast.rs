//! `broadcast{shape}(x)`: `out[i] = x[i]`, where along dimensions of extent 1 of `x` the index is 0. The rank stays:
//! leading dimensions are added by `reshape`. Where an extent of `x` is symbolic and not the result's, it is one of both
//! when the model runs, which a guard of the graph says. Source: numpy's broadcasting, XLA `BroadcastInDim`, ONNX `Expand`.

use super::{Access, Accuracy, Along, Attr, AttrKind, Draw, Drawn, Movement, Op, OpDef, Role, Sample, arity, shape};
use crate::index::Ix;
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "broadcast"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("shape", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, to) = (&inputs[0], op.dims("shape"));
        shape::check_extents("shape", to)?;
        shape::check_len("shape", to.len(), x.rank())?;
        let differ = |from: &Dim, to: &Dim| from.as_const().zip(to.as_const()).is_some_and(|(f, t)| f != 1 && f != t);
        if x.shape.iter().zip(to).any(|(from, to)| differ(from, to)) {
            return Err(format!(
                "operand {x} to shape {}, expected equal extents or 1",
                shape::list(to)
            ));
        }
        Ok(vec![Type::new(x.dtype, to)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let mut strides = shape::strides(x.shape());
        for (stride, &n) in strides.iter_mut().zip(x.shape()) {
            if n == 1 {
                *stride = 0;
            }
        }
        Ok(vec![shape::pick(x, &shape::known(op.dims("shape")), 0, &strides)])
    }
    fn along(&self, _: &Op, from: &Type, to: &Type, axis: usize) -> Along {
        match from.shape[axis] == to.shape[axis] {
            true => Along::Axis(axis),
            false => Along::Spread,
        }
    }
    fn role(&self) -> Role {
        Role::Move(&Def)
    }
    fn is_identity(&self, op: &Op, inputs: &[Type]) -> bool {
        op.dims("shape") == inputs[0].shape
    }
    fn takes_transpose(&self) -> bool {
        true
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        if d.is_natural(0) {
            let x = d.operand(0, None)?;
            let mut shape = d.ty(x).shape;
            for e in shape.iter_mut().filter(|e| e.is(1)) {
                *e = Dim::from(d.extent());
            }
            if let Some(t) = want {
                shape.clone_from(&t.shape);
            }
            return Some(Drawn {
                attrs: vec![d.attr(0, Attr::Dims(shape))?],
                inputs: vec![x],
            });
        }
        let dtype = want.map_or(d.dtype(), |t| t.dtype);
        let shape = match (d.fixed(0), want) {
            (Some(Attr::Dims(s)), _) => s,
            (_, Some(t)) => t.shape.clone(),
            _ => d.shape(None),
        };
        // Vectors along one axis, leading ones, or any subset.
        let mut small = shape.clone();
        let style = d.below(3);
        let (at, first) = (d.below(shape.len()), d.below(shape.len() + 1));
        for (i, e) in small.iter_mut().enumerate() {
            let one = match style {
                0 => i != at,
                1 => i < first,
                _ => d.chance(50),
            };
            if one {
                *e = Dim::ONE;
            }
        }
        let x = d.operand(0, Some(&Type::new(dtype, small)))?;
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
        let s = |to: &[i64], x| Sample::new(&[Attr::dims(to)], &[x]);
        vec![
            s(&[2, 3, 4], (DType::F32, &[2, 1, 4])),
            s(&[5, 3], (DType::F32, &[1, 1])),
            s(&[2, 3], (DType::I32, &[2, 3])),
            s(&[3, 0], (DType::F32, &[3, 1])),
            s(&[], (DType::Bool, &[])),
        ]
    }
}

impl Movement for Def {
    fn source(&self, _: &Op, from: &Type, to: &Type, at: &[Ix]) -> Access {
        let along = |(d, ix): (usize, &Ix)| match &from.shape[d] {
            n if n.is(1) => Ix::constant(0),
            n if n.as_const().is_some() || *n == to.shape[d] => ix.clone(),
            // Only a run tells whether the extent is 1.
            n => ix.scale(&n.broadcast_step()),
        };
        Access::of(at.iter().enumerate().map(along).collect())
    }
    fn spreads(&self) -> bool {
        true
    }
}
