//! `slice{starts, sizes, steps}(x)`: `out[i] = x[starts + i·steps]` in every dimension. Steps may be negative, not 0;
//! every element read is within `x`. Source: XLA `Slice`; ONNX `Slice` and `Split` clamp and normalise their bounds
//! before. A bound that depends on a symbol is checked when the symbol is known.

use super::{Access, Accuracy, Attr, AttrKind, Draw, Drawn, Movement, Op, OpDef, Role, Sample, arity, draw, shape};
use crate::index::Ix;
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("starts", AttrKind::Dims),
            ("sizes", AttrKind::Dims),
            ("steps", AttrKind::Ints),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (x, starts, sizes, steps) = (&inputs[0], op.dims("starts"), op.dims("sizes"), op.ints("steps"));
        shape::check_len("starts", starts.len(), x.rank())?;
        shape::check_len("sizes", sizes.len(), x.rank())?;
        shape::check_len("steps", steps.len(), x.rank())?;
        shape::check_extents("sizes", sizes)?;
        for (d, n) in x.shape.iter().enumerate() {
            let step = steps[d];
            if step == 0 {
                return Err(format!("the step of axis {d} is 0, expected any other"));
            }
            let (Some(start), Some(size)) = (starts[d].as_const(), sizes[d].as_const()) else {
                continue;
            };
            let last = start as i128 + (size as i128 - 1) * step as i128;
            let outside = |i: i128| i < 0 || n.as_const().is_some_and(|n| i >= n as i128);
            if size > 0 && (outside(start as i128) || outside(last)) {
                return Err(format!(
                    "axis {d} of {x} is read from {start} to {last}, which is outside"
                ));
            }
        }
        Ok(vec![Type::new(x.dtype, sizes)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, sizes) = (&inputs[0], shape::known(op.dims("sizes")));
        let strides = shape::strides(x.shape());
        if sizes.contains(&0) {
            return Ok(vec![shape::pick(x, &sizes, 0, &strides)]);
        }
        let base = op
            .sizes("starts")
            .iter()
            .zip(&strides)
            .map(|(start, stride)| start * stride)
            .sum();
        let steps = op.ints("steps").iter().zip(&strides).zip(&sizes);
        // A single element is not stepped over, and its step may be any number.
        let steps: Vec<i64> = steps
            .map(|((s, stride), &n)| if n > 1 { s * stride } else { 0 })
            .collect();
        Ok(vec![shape::pick(x, &sizes, base, &steps)])
    }
    fn role(&self) -> Role {
        Role::Move(&Def)
    }
    fn is_identity(&self, op: &Op, inputs: &[Type]) -> bool {
        op.dims("sizes") == inputs[0].shape
            && op.dims("starts").iter().all(|d| d.is(0))
            && op.ints("steps").iter().all(|&s| s == 1)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, None)?;
        let from: Vec<i64> = d.ty(x).shape.iter().map(Dim::as_const).collect::<Option<_>>()?;
        // Of a pad: the part that was padded, now and then.
        let padded = d.maker(x).filter(|(op, _)| op.name() == "pad");
        let inner = padded.filter(|_| d.chance(50));
        // What is a part already, or steps by 1 as another slice did, often is one end of the operand along one axis.
        let (given, steps) = (d.fixed(1), d.fixed(2));
        let plain = matches!(&steps, Some(Attr::Ints(v)) if v.iter().all(|&s| s == 1));
        if inner.is_none() && (plain && d.chance(80) || steps.is_none() && d.chance(30)) {
            let (starts, sizes) = end(d, &from, given.as_ref());
            return Some(Drawn {
                attrs: draw::attrs(d, vec![starts, sizes, Attr::Ints(vec![1; from.len()])])?,
                inputs: vec![x],
            });
        }
        let whole = d.chance(25);
        let (mut starts, mut sizes, mut steps) = (vec![], vec![], vec![]);
        for &n in &from {
            let step = if whole || inner.is_some() {
                1
            } else {
                draw::pick(d, &[1, 1, 2, 3, -1, -2])
            };
            let start = if whole { 0 } else { d.below(n as usize) as i64 };
            let room = if n == 0 {
                0
            } else if step > 0 {
                (n - 1 - start) / step + 1
            } else {
                start / -step + 1
            };
            let size = if whole { n } else { d.below(room as usize + 1) as i64 };
            starts.push(Dim::Const(start));
            sizes.push(Dim::Const(size));
            steps.push(step);
        }
        if let Some((pad, ty)) = inner {
            (starts, sizes) = (pad.dims("low").to_vec(), ty.shape);
            // Or what is nearly that part.
            if d.chance(40) && !steps.is_empty() {
                let axis = d.below(steps.len());
                match d.below(3) {
                    0 => starts[axis] = &starts[axis] + 1,
                    1 => starts[axis] = &starts[axis] - &Dim::ONE,
                    _ => steps[axis] = draw::pick(d, &[2, -1]),
                }
            }
        }
        Some(Drawn {
            attrs: draw::attrs(d, vec![Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)])?,
            inputs: vec![x],
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |starts: &[i64], sizes: &[i64], steps: &[i64], x| {
            Sample::new(&[Attr::dims(starts), Attr::dims(sizes), Attr::ints(steps)], &[x])
        };
        vec![
            s(&[1], &[3], &[2], (DType::F32, &[7])),
            s(&[0, 4, 2], &[2, 2, 1], &[1, -3, 1], (DType::F32, &[2, 5, 3])),
            s(&[3, 0], &[4, 1], &[-1, 5], (DType::I32, &[4, 1])),
            s(&[2, 0], &[0, 3], &[1, 1], (DType::F32, &[2, 3])),
            s(&[], &[], &[], (DType::F32, &[])),
        ]
    }
}

/// Starts and sizes of one end of extents along one axis, the last one likelier than others, and half of it likelier than another
/// part; of sizes that are given, of either end.
fn end(d: &mut dyn Draw, from: &[i64], given: Option<&Attr>) -> (Attr, Attr) {
    let mut sizes = from.to_vec();
    if let Some(Attr::Dims(v)) = given {
        sizes = v.iter().zip(from).map(|(z, &n)| z.as_const().unwrap_or(n)).collect();
    } else if let Some(last) = from.len().checked_sub(1) {
        let axis = if d.chance(60) { last } else { d.below(from.len()) };
        let n = from[axis];
        sizes[axis] = if n % 2 == 0 && d.chance(75) { n / 2 } else { d.below(n as usize + 1) as i64 };
    }
    let behind = d.chance(50);
    let start = |(&n, &z): (&i64, &i64)| if behind { (n - z).max(0) } else { 0 };
    let starts: Vec<i64> = from.iter().zip(&sizes).map(start).collect();
    (Attr::dims(&starts), Attr::dims(&sizes))
}

impl Movement for Def {
    fn source(&self, op: &Op, _: &Type, _: &Type, at: &[Ix]) -> Access {
        let (starts, steps) = (op.dims("starts"), op.ints("steps"));
        let along = |(d, ix): (usize, &Ix)| &ix.scale(&Dim::Const(steps[d])) + &starts[d];
        Access::of(at.iter().enumerate().map(along).collect())
    }
}
