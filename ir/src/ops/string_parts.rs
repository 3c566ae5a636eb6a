//! `string_parts{most, count}(x, delimiter) -> str[…, count]`: strings split wherever the delimiter (of rank 0) stands, filled up with empty
//! ones; an empty delimiter stands for any white space, of which none begins or ends a part. No more than `most` times where that is not
//! negative: the rest stays whole. `count` holds one dim. A host operator. Source: ONNX `StringSplit`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, shape, text};
use crate::{DType, Strings, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "string_parts"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("most", AttrKind::Int), ("count", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        text::check_parts(op, inputs)?;
        let count = op.dims("count");
        shape::check_len("count", count.len(), 1)?;
        shape::check_extents("count", count)?;
        Ok(vec![Type::new(DType::Str, [&inputs[0].shape, count].concat())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let count = op.sizes("count")[0] as usize;
        let shape = [inputs[0].shape(), &[count]].concat();
        let mut all = vec![];
        for parts in text::parts(op, inputs)? {
            if parts.len() > count {
                return Err(format!("{} parts, expected at most {count}", parts.len()));
            }
            let fill = count - parts.len();
            all.extend(parts);
            all.extend(std::iter::repeat_n(String::new(), fill));
        }
        match all.is_empty() {
            true => Ok(vec![Tensor::new(DType::Str, shape, vec![])?]),
            false => Ok(vec![Strings::current()?.tensor(&shape, &all)?]),
        }
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let attrs = [Attr::Int(2), Attr::dims(&[3])];
        vec![Sample::new(&attrs, &[(DType::Str, &[2, 0, 1]), (DType::Str, &[])])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_splits() {
        let strings = Strings::default();
        let run = |x: &str, by: &str, most: i64| {
            let operands = [strings.tensor(&[1], &[x]).unwrap(), strings.tensor(&[], &[by]).unwrap()];
            strings.scope(|| {
                let counts = Op::new("string_part_counts", &[Attr::Int(most)]).unwrap();
                let count = counts.eval(&operands).unwrap()[0].to_i64s()[0];
                let op = Op::new("string_parts", &[Attr::Int(most), Attr::dims(&[count])]).unwrap();
                strings.texts(&op.eval(&operands).unwrap()[0]).unwrap().join("|")
            })
        };
        assert_eq!(run("a,,b,", ",", -1), "a||b|");
        assert_eq!(run("a,b,c", ",", 1), "a|b,c");
        assert_eq!(run("  a  b c ", "", -1), "a|b|c");
        assert_eq!(run("  a  b c ", "", 1), "a|b c ");
        assert_eq!(run("", ",", -1), "");
        assert_eq!(run("", "", -1), "");
    }
}
