//! `string_format(x) -> str`: numbers as text, so that reading it gives the number again: whole ones in digits, floats in as few digits as
//! tell them apart from others of their type, `NaN`, `INF` and `-INF`, bools as `1` and `0`. A host operator. Source: ONNX `Cast`.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample};
use crate::{DType, Number, Strings, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// A float in the digits of its type.
fn float(x: f64, dtype: DType) -> String {
    match x {
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
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 1)?;
        match inputs[0].dtype {
            DType::Str => Err(format!("x is {}, expected numbers", inputs[0])),
            _ => Ok(vec![Type::new(DType::Str, inputs[0].shape.clone())]),
        }
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let text = |n: Number| match n {
            Number::Int(i) => i.to_string(),
            Number::Float(f) => float(f, x.dtype()),
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
            Sample::new(&[], &[(DType::F32, &[2, 0, 1])]),
            Sample::new(&[], &[(DType::I64, &[0])]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_they_are_read() {
        let strings = Strings::default();
        let op = Op::new("string_format", &[]).unwrap();
        let run = |t: Tensor| {
            let found = strings.scope(|| op.eval(&[t])).unwrap();
            strings.texts(&found[0]).unwrap().join(" ")
        };
        let floats = [0.1, -2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.5e-8];
        assert_eq!(run(Tensor::from_f32(&[6], &floats)), "0.1 -2 NaN INF -INF 0.000000035");
        assert_eq!(run(Tensor::from_i64(&[2], &[-7, i64::MAX])), "-7 9223372036854775807");
        assert_eq!(run(Tensor::scalar(DType::F64, Number::Float(0.1 + 0.2))), "0.30000000000000004");
    }
}
