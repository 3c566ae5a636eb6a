//! `string_case{to}(x) -> str`: strings in lower or upper case letters, as Unicode has it. A host operator. Source: ONNX `StringNormalizer`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, text};
use crate::{DType, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_case"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("to", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        super::arity(inputs, 1)?;
        text::check("x", &inputs[0])?;
        match op.word("to") {
            "lower" | "upper" => Ok(inputs.to_vec()),
            w => Err(format!("to `{w}`, expected lower or upper")),
        }
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let lower = op.word("to") == "lower";
        text::made(inputs[0].shape(), &text::of(&inputs[0])?, |s| match lower {
            true => s.to_lowercase(),
            false => s.to_uppercase(),
        })
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |to, shape| Sample::new(&[Attr::word(to)], &[(DType::Str, shape)]);
        vec![s("lower", &[2, 0, 1]), s("upper", &[0])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strings;

    #[test]
    fn letters_change_as_unicode_has_it() {
        let strings = Strings::new(["Straße 1"]);
        let t = strings.tensor(&[1], &["Straße 1"]).unwrap();
        for (to, wanted) in [("lower", "straße 1"), ("upper", "STRASSE 1")] {
            let op = Op::new("string_case", &[Attr::word(to)]).unwrap();
            let found = strings.scope(|| op.eval(std::slice::from_ref(&t))).unwrap();
            assert_eq!(*strings.texts(&found[0]).unwrap()[0], *wanted);
        }
    }
}
