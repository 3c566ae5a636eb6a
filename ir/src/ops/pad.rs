//! `pad{low, high, interior, fill}(x)`: `interior` fills between neighbours, then `low` and `high` fills at the ends of
//! each dimension; negative `low` and `high` crop. `out[low + i·(interior + 1)] = x[i]`, `fill` elsewhere.
//! Source: XLA `Pad`. ONNX `Pad` in mode `constant` has no interior. `fill` converts to the dtype as a cast does.
//! An empty dimension has no interior to fill: that is an error, so that symbolic extents need no case for it.

use super::{Access, Accuracy, Attr, AttrKind, Draw, Drawn, Movement, Op, OpDef, Role, Sample, arity, draw, shape};
use crate::index::{Bound, Ix};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The extent with `interior` elements between neighbours.
///
/// # Errors
/// When there are no elements but an interior.
pub fn spread_extent(extent: &Dim, interior: i64) -> Result<Dim, String> {
    if interior != 0 && extent.is(0) {
        return Err("an empty dimension has no space between elements, expected at least one element".to_string());
    }
    Ok(extent + &(&(extent - &Dim::ONE) * interior))
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("low", AttrKind::Dims),
            ("high", AttrKind::Dims),
            ("interior", AttrKind::Ints),
            ("fill", AttrKind::Num),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, low, high, interior) = (&inputs[0], op.dims("low"), op.dims("high"), op.ints("interior"));
        shape::check_len("low", low.len(), x.rank())?;
        shape::check_len("high", high.len(), x.rank())?;
        shape::check_len("interior", interior.len(), x.rank())?;
        shape::check_pads("low", low)?;
        shape::check_pads("high", high)?;
        shape::check_steps("interior", interior, 0)?;
        let mut out = vec![];
        for (d, n) in x.shape.iter().enumerate() {
            out.push(&(&spread_extent(n, interior[d])? + &low[d]) + &high[d]);
        }
        shape::check_extents("padded shape", &out)?;
        Ok(vec![Type::new(x.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, low, interior) = (&inputs[0], op.sizes("low"), op.ints("interior"));
        let shape = shape::known(&self.infer(op, &[Type::fixed(x.dtype(), x.shape())])?[0].shape);
        let n = x.dtype().bytes();
        let mut bytes = Tensor::splat(x.dtype(), &shape, op.number("fill").to(x.dtype()))
            .bytes()
            .to_vec();
        if x.is_empty() || shape.contains(&0) {
            return Ok(vec![Tensor::new(x.dtype(), shape, bytes)?]);
        }
        let places: Vec<Vec<Option<usize>>> = (0..shape.len())
            .map(|d| {
                let place = |i: usize| low[d] as i128 + i as i128 * (interior[d] as i128 + 1);
                let within = |p: i128| (0..shape[d] as i128).contains(&p).then_some(p as usize);
                (0..x.shape()[d]).map(|i| within(place(i))).collect()
            })
            .collect();
        let (Some((&row, outer)), Some(&to_row)) = (x.shape().split_last(), shape.last()) else {
            return Ok(vec![x.clone()]);
        };
        let columns = &places[outer.len()];
        for (r, index) in crate::indices(outer).enumerate() {
            let to = index
                .iter()
                .enumerate()
                .try_fold(0, |to, (d, &i)| Some(to * shape[d] + places[d][i]?));
            let Some(to) = to else { continue };
            for (i, column) in columns.iter().enumerate() {
                if let Some(column) = column {
                    let (p, to) = (r * row + i, to * to_row + column);
                    bytes[to * n..(to + 1) * n].copy_from_slice(&x.bytes()[p * n..(p + 1) * n]);
                }
            }
        }
        Ok(vec![Tensor::new(x.dtype(), shape, bytes)?])
    }
    fn role(&self) -> Role {
        Role::Move(&Def)
    }
    fn is_identity(&self, op: &Op, _: &[Type]) -> bool {
        let zero = |name| op.dims(name).iter().all(|d| d.is(0));
        zero("low") && zero("high") && op.ints("interior").iter().all(|&i| i == 0)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, None)?;
        let rank = d.ty(x).rank();
        let style = d.below(3);
        let side = |d: &mut dyn Draw| {
            let mut one = |_| match style {
                0 => Dim::ZERO,
                _ => Dim::Const(d.below(4) as i64 - (style == 2) as i64),
            };
            Attr::Dims((0..rank).map(&mut one).collect())
        };
        let (low, high) = (side(d), side(d));
        let plain = d.chance(60);
        let interior = (0..rank).map(|_| if plain { 0 } else { d.below(3) as i64 }).collect();
        let fill = Attr::num(draw::pick(d, &[0.0, 1.0, -2.0]));
        Some(Drawn {
            attrs: draw::attrs(d, vec![low, high, Attr::Ints(interior), fill])?,
            inputs: vec![x],
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let filled = |low: &[i64], high: &[i64], interior: &[i64], fill: Number, x| {
            Sample::new(
                &[Attr::dims(low), Attr::dims(high), Attr::ints(interior), Attr::number(fill)],
                &[x],
            )
        };
        let s = |low: &[i64], high: &[i64], interior: &[i64], fill: f64, x| filled(low, high, interior, fill.into(), x);
        vec![
            s(&[1, 0], &[2, 3], &[0, 0], 0.0, (DType::F32, &[2, 3])),
            s(&[0, 1, -1], &[0, -1, 2], &[0, 2, 1], 1.5, (DType::F32, &[2, 3, 4])),
            s(&[-2], &[-1], &[0], 7.0, (DType::I64, &[5])),
            s(&[0, 2], &[1, 0], &[0, 0], -1.0, (DType::I8, &[0, 1])),
            s(&[-3], &[1], &[0], f64::NEG_INFINITY, (DType::F32, &[2])),
            filled(&[1], &[2], &[1], Number::Int((1 << 53) + 1), (DType::I64, &[3])),
            filled(&[0], &[3], &[0], Number::Int(u64::MAX as i128), (DType::U64, &[2])),
        ]
    }
}

impl Movement for Def {
    fn source(&self, op: &Op, from: &Type, to: &Type, at: &[Ix]) -> Access {
        let (low, interior) = (op.dims("low"), op.ints("interior"));
        let (mut inner, mut guard) = (vec![], vec![]);
        for d in 0..at.len() {
            let e = &at[d] + &(&Dim::ZERO - &low[d]);
            let step = Dim::Const(interior[d] + 1);
            if from.shape[d] != to.shape[d] || !low[d].is(0) || interior[d] != 0 {
                guard.push(Bound {
                    index: e.div(&step),
                    extent: from.shape[d].clone(),
                });
                if interior[d] != 0 {
                    guard.push(Bound {
                        index: e.modulo(&step),
                        extent: Dim::ONE,
                    });
                }
            }
            inner.push(e.div(&step));
        }
        Access { at: inner, guard }
    }
    fn fills(&self) -> bool {
        true
    }
    fn fill(&self, op: &Op) -> Number {
        op.number("fill")
    }
    fn embeds(&self, op: &Op) -> bool {
        let margins = |name| op.dims(name).iter().all(|d| d.is_at_least(0));
        margins("low") && margins("high") && op.ints("interior").iter().all(|&i| i == 0)
    }
}
