//! `rotary{interleaved}(x, cos, sin)`: of each row of `x` `[…, D]` the first `2·H` elements are `H` pairs, turned by the angles whose
//! cosines and sines are `[…, H]`: `(a, b) → (a cos - b sin, a sin + b cos)`. A pair is `x[i]` and `x[i + H]`, or, interleaved,
//! `x[2 i]` and `x[2 i + 1]`; the other elements stay. Leading extents of the angles are those of `x`, or 1. f16 and bf16 in f32, rounded
//! at the end. Source: ONNX `RotaryEmbedding`; Su et al., "RoFormer", arXiv 2104.09864.

use super::normalize::rounded;
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, SampleType, arity, compose, shape};
use crate::{Build, DType, Dim, Number, Tensor, Type, Value, indices};

/// The operator's definition.
pub struct Def;

/// The part of `x` along its last axis from `first` on, every `step`-th element.
fn part(b: &mut dyn Build, x: Value, first: &Dim, count: &Dim, step: i64) -> Result<Value, String> {
    let mut sizes = b.type_of(x).shape;
    let (mut starts, mut steps) = (vec![Dim::ZERO; sizes.len()], vec![1; sizes.len()]);
    let last = sizes.len() - 1;
    (starts[last], sizes[last], steps[last]) = (first.clone(), count.clone(), step);
    b.call("slice", &[Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)], &[x])
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "rotary"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("interleaved", AttrKind::Bool)]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 3)?;
        let (x, cos, sin) = (&inputs[0], &inputs[1], &inputs[2]);
        shape::check_float("x", x)?;
        shape::check_rank("x", x, 1)?;
        let last = x.rank() - 1;
        let fits = cos.rank() == x.rank()
            && cos.dtype == x.dtype
            && (cos.shape.iter().zip(&x.shape).take(last)).all(|(c, x)| c.is(1) || c == x)
            && (&x.shape[last] - &(&cos.shape[last] * 2)).is_nonnegative();
        if !fits || cos != sin {
            return Err(format!("angles {cos} and {sin} for x {x}, expected equal types that spread over it"));
        }
        Ok(vec![x.clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, dtype) = (&inputs[0], inputs[0].dtype());
        let (last, half) = (x.shape().len() - 1, inputs[1].shape()[x.shape().len() - 1]);
        let interleaved = op.flag("interleaved");
        let values: Vec<Number> = indices(x.shape())
            .map(|index| {
                let i = index[last];
                if i >= 2 * half {
                    return x.at(&index);
                }
                let (pair, second) = match interleaved {
                    true => (i / 2, i % 2 == 1),
                    false => (i % half, i >= half),
                };
                let of = |t: &Tensor, i: usize| {
                    let mut at: Vec<usize> = index.iter().zip(t.shape()).map(|(&i, &n)| if n == 1 { 0 } else { i }).collect();
                    at[last] = i;
                    t.at(&at).f64()
                };
                let (a, b) = match interleaved {
                    true => (of(x, 2 * pair), of(x, 2 * pair + 1)),
                    false => (of(x, pair), of(x, pair + half)),
                };
                let (cos, sin) = (of(&inputs[1], pair), of(&inputs[2], pair));
                let product = |x: f64, y: f64| rounded(dtype, x * y);
                Number::Float(match second {
                    false => product(a, cos) - product(b, sin),
                    true => product(a, sin) + product(b, cos),
                })
            })
            .collect();
        Ok(vec![Tensor::from_fn(dtype, x.shape(), |p| values[p])])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let ty = b.type_of(inputs[0]);
        let compute = ty.dtype.compute();
        let x = compose::cast(b, inputs[0], compute)?;
        let (last, half) = (ty.rank() - 1, b.type_of(inputs[1]).shape[ty.rank() - 1].clone());
        let turned = &half * 2;
        let interleaved = op.flag("interleaved");
        let (low, high) = match interleaved {
            true => (part(b, x, &Dim::ZERO, &half, 2)?, part(b, x, &Dim::ONE, &half, 2)?),
            false => (part(b, x, &Dim::ZERO, &half, 1)?, part(b, x, &half, &half, 1)?),
        };
        let plane = b.type_of(low).shape;
        let angles = |b: &mut dyn Build, v: Value| {
            let v = compose::cast(b, v, compute)?;
            b.spread(v, &plane)
        };
        let (cos, sin) = (angles(b, inputs[1])?, angles(b, inputs[2])?);
        let product = |b: &mut dyn Build, x: Value, y: Value| compose::map(b, "mul", &[x, y]);
        let (ac, bs) = (product(b, low, cos)?, product(b, high, sin)?);
        let (as_, bc) = (product(b, low, sin)?, product(b, high, cos)?);
        let mut sides = [compose::map(b, "sub", &[ac, bs])?, compose::map(b, "add", &[as_, bc])?];
        let mut y = match interleaved {
            false => b.call("concat", &[Attr::Int(last as i64)], &sides)?,
            true => {
                let apart = [&plane[..], &[Dim::ONE]].concat();
                for side in &mut sides {
                    *side = b.reshaped(*side, &apart)?;
                }
                let pairs = b.call("concat", &[Attr::Int(last as i64 + 1)], &sides)?;
                b.reshaped(pairs, &[&plane[..last], std::slice::from_ref(&turned)].concat())?
            }
        };
        if ty.shape[last] != turned {
            let rest = part(b, x, &turned, &(&ty.shape[last] - &turned), 1)?;
            y = b.call("concat", &[Attr::Int(last as i64)], &[y, rest])?;
        }
        Ok(Some(vec![compose::cast(b, y, ty.dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{BF16, F16, F32, F64};
        let s = |interleaved, x: SampleType, angles: SampleType| Sample::new(&[Attr::Bool(interleaved)], &[x, angles, angles]);
        vec![
            s(false, (F32, &[2, 3, 4, 8]), (F32, &[2, 1, 4, 4])),
            s(true, (F32, &[1, 5, 2, 6]), (F32, &[1, 5, 1, 3])),
            s(false, (F16, &[2, 7]), (F16, &[1, 2])),
            s(true, (BF16, &[3, 5]), (BF16, &[3, 2])),
            s(false, (F64, &[4]), (F64, &[2])),
            s(false, (F32, &[0, 4]), (F32, &[1, 2])),
        ]
    }
}
