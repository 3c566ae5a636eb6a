//! `string_match(x, pattern) -> bool`: whether strings match a regular expression, a string of rank 0, from end to end. Its syntax is that
//! of the crate `regex`, which is RE2's but for rare classes. A host operator. Source: ONNX `RegexFullMatch`.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample, text};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_match"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 2)?;
        text::check("x", &inputs[0])?;
        super::shape::check_type("pattern", &inputs[1], DType::Str, &[])?;
        Ok(vec![Type::new(DType::Bool, inputs[0].shape.clone())])
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let texts = text::of(&inputs[0])?;
        let mut hits = vec![];
        if !texts.is_empty() {
            let pattern = text::of(&inputs[1])?;
            let full = format!(r"\A(?:{})\z", pattern[0]);
            let re = regex::Regex::new(&full).map_err(|e| format!("pattern `{}`: {e}", pattern[0]))?;
            hits.extend(texts.iter().map(|t| re.is_match(t)));
        }
        Ok(vec![Tensor::from_fn(DType::Bool, inputs[0].shape(), |i| Number::from(hits[i]))])
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new(&[], &[(DType::Str, &[2, 0, 1]), (DType::Str, &[])])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strings;

    #[test]
    fn from_end_to_end() {
        let strings = Strings::default();
        let x = strings.tensor(&[3], &["ab", "abc", "b"]).unwrap();
        let op = Op::new("string_match", &[]).unwrap();
        let run = |p: &str| strings.scope(|| op.eval(&[x.clone(), strings.tensor(&[], &[p]).unwrap()]));
        assert_eq!(run("a?b|c").unwrap()[0].to_i64s(), [1, 0, 1]);
        assert!(run("(").unwrap_err().contains("pattern `(`"));
    }
}
