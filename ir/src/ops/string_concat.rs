//! `string_concat(a, b) -> str`: strings of two tensors of one shape, one behind the other. A host operator. Source: ONNX `StringConcat`.

use super::{Accuracy, AttrKind, Op, OpDef, Role, Sample, text};
use crate::{DType, Strings, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_concat"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[]
    }
    fn infer(&self, _: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 2)?;
        text::check("a", &inputs[0])?;
        super::shape::check_type("b", &inputs[1], DType::Str, &inputs[0].shape)?;
        Ok(inputs[..1].to_vec())
    }
    fn eval(&self, _: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (a, b) = (text::of(&inputs[0])?, text::of(&inputs[1])?);
        let both: Vec<String> = a.iter().zip(&b).map(|(a, b)| format!("{a}{b}")).collect();
        match both.is_empty() {
            true => Ok(inputs[..1].to_vec()),
            false => Ok(vec![Strings::current()?.tensor(inputs[0].shape(), &both)?]),
        }
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        vec![Sample::new(&[], &[(DType::Str, &[2, 0, 1]), (DType::Str, &[2, 0, 1])])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_behind_the_other() {
        let strings = Strings::new(["a", "b"]);
        let t = |x: &str| strings.tensor(&[], &[x]).unwrap();
        let op = Op::new("string_concat", &[]).unwrap();
        let found = strings.scope(|| op.eval(&[t("a"), t("bé")])).unwrap();
        assert_eq!(*strings.texts(&found[0]).unwrap()[0], *"abé");
        assert!(op.eval(&[t("a"), t("b")]).is_err(), "nobody holds the result");
    }
}
