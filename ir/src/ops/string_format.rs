//! `string_format{decimals}(x) -> str`: numbers as text. With -1 decimals reading it gives the number again: whole ones in digits, floats in
//! as few digits as tell them apart from others of their type, `NaN`, `INF` and `-INF`, bools as `1` and `0`; source: ONNX `Cast`. With
//! others floats have so many digits behind the point, as C's `%f`: `nan`, `inf` and `-inf`; source: ONNX Runtime's `CastMap`. A host
//! operator.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample};
use crate::{DType, Number, Strings, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The most digits behind the point.
const MOST_DECIMALS: i64 = 64;

/// A float in so many digits behind the point, or in those of its type.
fn float(x: f64, dtype: DType, decimals: i64) -> String {
    match x {
        x if x.is_nan() && decimals >= 0 => "nan".to_owned(),
        x if decimals >= 0 => format!("{x:.0$}", decimals as usize),
        x if x.is_nan() => "NaN".to_owned(),
        x if x.is_infinite() => if x > 0.0 { "INF" } else { "-INF" }.to_owned(),
        x if dtype == DType::F64 => format!("{x}"),
        x => format!("{}", x as f32),
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_format"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("decimals", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 1)?;
        let decimals = op.int("decimals");
        if !(-1..=MOST_DECIMALS).contains(&decimals) {
            return Err(format!("{decimals} decimals, expected -1 to {MOST_DECIMALS}"));
        }
        match inputs[0].dtype {
            DType::Str => Err(format!("x is {}, expected numbers", inputs[0])),
            _ => Ok(vec![Type::new(DType::Str, inputs[0].shape.clone())]),
        }
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let text = |n: Number| match n {
            Number::Int(i) => i.to_string(),
            Number::Float(f) => float(f, x.dtype(), op.int("decimals")),
        };
        let all: Vec<String> = x.iter().map(text).collect();
        match all.is_empty() {
            true => Ok(vec![Tensor::new(DType::Str, x.shape().to_vec(), vec![])?]),
            false => Ok(vec![Strings::current()?.tensor(x.shape(), &all)?]),
        }
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![
            Sample::new(&[Attr::Int(6)], &[(DType::F32, &[2, 0, 1])]),
            Sample::new(&[Attr::Int(-1)], &[(DType::I64, &[0])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_they_are_read() {
        let strings = Strings::default();
        let run_with = |decimals: i64, t: Tensor| {
            let op = Op::new("string_format", &[Attr::Int(decimals)]).unwrap();
            let found = strings.scope(|| op.eval(&[t])).unwrap();
            strings.texts(&found[0]).unwrap().join(" ")
        };
        let run = |t| run_with(-1, t);
        let floats = [0.1, -2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.5e-8];
        assert_eq!(run(Tensor::from_f32(&[6], &floats)), "0.1 -2 NaN INF -INF 0.000000035");
        let c = "0.100000 -2.000000 nan inf -inf 0.000000";
        assert_eq!(run_with(6, Tensor::from_f32(&[6], &floats)), c);
        assert_eq!(run(Tensor::from_i64(&[2], &[-7, i64::MAX])), "-7 9223372036854775807");
        assert_eq!(run(Tensor::scalar(DType::F64, Number::Float(0.1 + 0.2))), "0.30000000000000004");
    }
}
