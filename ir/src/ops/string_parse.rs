//! `string_parse{to}(x)`: text as numbers, in plain or scientific notation, `NaN`, `INF` and `-INF` in any case; a whole number may be written
//! as a float, whose fraction is dropped. What is no number is an error. A host operator. Source: ONNX `Cast`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, text};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The number that a text is.
fn number(text: &str, to: DType) -> Result<Number, String> {
    let trimmed = text.trim();
    if let (false, Ok(i)) = (to.is_float(), trimmed.parse::<i128>()) {
        return Ok(Number::Int(i));
    }
    let plain = trimmed.parse::<f64>();
    plain.map(Number::Float).map_err(|_| format!("`{text}` is no number"))
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_parse"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("to", AttrKind::DType)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 1)?;
        text::check("x", &inputs[0])?;
        match op.dtype("to") {
            DType::Str => Err("to str, expected numbers".to_owned()),
            to => Ok(vec![Type::new(to, inputs[0].shape.clone())]),
        }
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let to = op.dtype("to");
        let texts = text::of(&inputs[0])?;
        let all = texts.iter().map(|t| number(t, to)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![Tensor::from_fn(to, inputs[0].shape(), |i| all[i])])
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |to, shape| Sample::new(&[Attr::DType(to)], &[(DType::Str, shape)]);
        vec![s(DType::F32, &[2, 0, 1]), s(DType::I64, &[0])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strings;

    #[test]
    fn text_as_numbers() {
        let strings = Strings::default();
        let run = |to: DType, x: &[&str]| {
            let op = Op::new("string_parse", &[Attr::DType(to)]).unwrap();
            strings.scope(|| op.eval(&[strings.tensor(&[x.len()], x).unwrap()]))
        };
        let floats = run(DType::F32, &["0.5", " -1e3", "INF", "-inf"]).unwrap();
        assert_eq!(floats[0].to_f32s(), [0.5, -1000.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert!(run(DType::F64, &["NaN"]).unwrap()[0].to_f64s()[0].is_nan());
        assert_eq!(run(DType::I64, &["9223372036854775807", "-2.7"]).unwrap()[0].to_i64s(), [i64::MAX, -2]);
        assert_eq!(run(DType::I32, &["one"]).unwrap_err(), "`one` is no number");
    }
}
