//! `dynamic_quantize(x) -> u8 y, scale, u8 zero`: `x` as u8, by the range of its elements made to contain 0:
//! `scale = (max - min) / 255` (1/255 where that is 0), `zero = round(clamp(-min / scale, 0, 255))` and
//! `y = clamp(round(x / scale) + zero, 0, 255)`, all in the dtype of `x`, f32 or f64. Three results.
//! Source: ONNX `DynamicQuantizeLinear`.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample, arity, compose, shape};
use crate::{Build, DType, Number, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

/// The largest u8.
const MOST: f64 = 255.0;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "dynamic_quantize"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        shape::check_float("x", &inputs[0])?;
        let dtype = inputs[0].dtype;
        if dtype.is_half() {
            return Err(format!("an operand of {dtype}, expected it cast to f32"));
        }
        Ok(vec![
            Type::new(DType::U8, inputs[0].shape.clone()),
            Type::new(dtype, vec![]),
            Type::new(DType::U8, vec![]),
        ])
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, dtype) = (&inputs[0], inputs[0].dtype());
        let rounded = |v: f64| Number::Float(v).to(dtype).f64();
        let nan = |a: f64, b: f64| a.is_nan() || b.is_nan();
        let larger = |a: f64, b: f64| if nan(a, b) { f64::NAN } else { a.max(b) };
        let smaller = |a: f64, b: f64| if nan(a, b) { f64::NAN } else { a.min(b) };
        let clamp = |v: f64| smaller(larger(v, 0.0), MOST);
        let xs = x.to_f64s();
        let (max, min) = (
            xs.iter().copied().fold(0.0, larger),
            xs.iter().copied().fold(0.0, smaller),
        );
        let width = rounded(max - min);
        let scale = rounded(if width == 0.0 { 1.0 } else { width } / MOST);
        let zero = clamp(-rounded(min / scale)).round_ties_even();
        let y = |i: usize| Number::Float(clamp(rounded(rounded(xs[i] / scale).round_ties_even() + zero))).to(DType::U8);
        Ok(vec![
            Tensor::from_fn(DType::U8, x.shape(), y),
            Tensor::scalar(dtype, Number::Float(scale)),
            Tensor::scalar(DType::U8, Number::Float(zero).to(DType::U8)),
        ])
    }
    fn decompose(&self, _: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let x = inputs[0];
        let ty = b.type_of(x);
        let axes: Vec<usize> = (0..ty.rank()).collect();
        let clamp = |b: &mut dyn Build, v: Value| {
            let v = compose::with_number(b, "max", v, 0.0)?;
            compose::with_number(b, "min", v, MOST)
        };
        let bound = |b: &mut dyn Build, kind: &str| {
            let r = compose::reduce(b, kind, x, &axes)?;
            let r = b.reshaped(r, &[])?;
            compose::with_number(b, kind, r, 0.0)
        };
        let (max, min) = (bound(b, "max")?, bound(b, "min")?);
        let width = compose::map(b, "sub", &[max, min])?;
        let flat = compose::with_number(b, "equal", width, 0.0)?;
        let one = b.splat(ty.dtype, &[], 1.0)?;
        let width = compose::map(b, "where", &[flat, one, width])?;
        let scale = compose::with_number(b, "div", width, MOST)?;
        let zero = compose::map(b, "div", &[min, scale])?;
        let zero = compose::map(b, "neg", &[zero])?;
        let zero = clamp(b, zero)?;
        let zero = compose::map(b, "round", &[zero])?;
        let y = compose::with_spread(b, "div", x, scale)?;
        let y = compose::map(b, "round", &[y])?;
        let y = compose::with_spread(b, "add", y, zero)?;
        let y = clamp(b, y)?;
        let (y, bytes) = (compose::cast(b, y, DType::U8)?, compose::cast(b, zero, DType::U8)?);
        Ok(Some(vec![y, scale, bytes]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    /// One rounding of a quotient near a half moves a byte by one.
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |x| Sample::new(&[], &[x]);
        vec![
            s((DType::F32, &[3, 9])),
            s((DType::F64, &[2, 1, 5])),
            s((DType::F32, &[])),
            s((DType::F32, &[0, 3])),
        ]
    }
}
