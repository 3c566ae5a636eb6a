//! `lrn{size, alpha, beta, bias}(x)`: `x / (bias + alpha/size · Σ x[c']²)^beta`, the sum over the `size` channels (dim 1) around
//! `c`: `c - floor((size-1)/2) ..= c + ceil((size-1)/2)`, those that exist. f16 and bf16 in f32, rounded at the end.
//! Source: ONNX `LRN`; Krizhevsky, Sutskever and Hinton, "ImageNet classification", 2012.

use super::normalize::rounded;
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, arity, compose, shape};
use crate::{Build, DType, Dim, Number, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "lrn"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("size", AttrKind::Int),
            ("alpha", AttrKind::Num),
            ("beta", AttrKind::Num),
            ("bias", AttrKind::Num),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        shape::check_float("x", &inputs[0])?;
        shape::check_rank("x", &inputs[0], 2)?;
        shape::check_steps("size", &[op.int("size")], 1)?;
        Ok(inputs.to_vec())
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, dtype) = (&inputs[0], inputs[0].dtype());
        let (channels, inner) = (x.shape()[1], x.shape()[2..].iter().product::<usize>());
        let size = op.int("size") as usize;
        let (before, after) = ((size - 1) / 2, size / 2);
        let values = x.to_f64s();
        Ok(vec![Tensor::from_fn(dtype, x.shape(), |p| {
            let c = p / inner % channels;
            let around = c.saturating_sub(before)..c.saturating_add(after).saturating_add(1).min(channels);
            let sum: f64 = around.map(|k| values[p + k * inner - c * inner].powi(2)).sum();
            let base = rounded(dtype, op.num("bias") + op.num("alpha") / size as f64 * sum);
            Number::Float(values[p] / rounded(dtype, base.powf(op.num("beta"))))
        })])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let (ty, size) = (b.type_of(inputs[0]), op.int("size"));
        let x = compose::cast(b, inputs[0], ty.dtype.compute())?;
        let square = compose::map(b, "mul", &[x, x])?;
        // The channels become the first spatial dimension of a sum pool.
        let mut wide = ty.shape.clone();
        wide.insert(1, Dim::ONE);
        let spatial = ty.rank() - 1;
        let first = |n: i64, rest: i64| {
            (0..spatial)
                .map(|d| if d == 0 { n } else { rest })
                .collect::<Vec<i64>>()
        };
        let square = b.call("reshape", &[Attr::Dims(wide.clone())], &[square])?;
        let attrs = [
            Attr::word("sum"),
            Attr::Ints(first(size, 1)),
            Attr::Ints(first(1, 1)),
            Attr::Ints(first(1, 1)),
            Attr::dims(&first((size - 1) / 2, 0)),
            Attr::dims(&first(size / 2, 0)),
            Attr::Dims(wide[2..].to_vec()),
        ];
        let sum = b.call("pool", &attrs, &[square])?;
        let sum = b.call("reshape", &[Attr::Dims(ty.shape)], &[sum])?;
        let base = compose::with_number(b, "mul", sum, op.num("alpha") / size as f64)?;
        let base = compose::with_number(b, "add", base, op.num("bias"))?;
        let root = compose::with_number(b, "pow", base, op.num("beta"))?;
        let y = compose::map(b, "div", &[x, root])?;
        Ok(Some(vec![compose::cast(b, y, ty.dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |size, alpha, x| {
            Sample::new(
                &[Attr::Int(size), Attr::num(alpha), Attr::num(0.75), Attr::num(1.0)],
                &[x],
            )
        };
        vec![
            s(3, 0.5, (DType::F32, &[2, 5, 3, 4])),
            s(4, 1e-4, (DType::F32, &[1, 7, 2])),
            s(9, 0.25, (DType::F16, &[2, 3])),
            s(1, 0.5, (DType::F64, &[1, 1, 2])),
            s(3, 0.5, (DType::F32, &[2, 0, 3])),
        ]
    }
}
