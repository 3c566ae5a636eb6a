//! `scan{kind, axis, exclusive, reverse}(x)`: running sums or products along the axis: `out[i]` combines `x[0..=i]`, or
//! `x[0..i]` when exclusive (the identity first); from the end when reverse. f16 and bf16 are cast to f32 beforehand: a
//! running value is kept in the type that arithmetic is done in. Source: ONNX `CumSum`, numpy `cumsum` and `cumprod`.

use super::{Accuracy, Assemble, Assembly, Attr, AttrKind, Combine, Op, OpDef, Role, Sample, arity, check_axis, shape};
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

const KINDS: &[Combine] = &[Combine::Sum, Combine::Prod];

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "scan"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("kind", AttrKind::Word),
            ("axis", AttrKind::Int),
            ("exclusive", AttrKind::Bool),
            ("reverse", AttrKind::Bool),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        Combine::of(op.word("kind"), KINDS)?.check(inputs[0].dtype)?;
        check_axis(op.int("axis"), inputs[0].rank())?;
        if inputs[0].dtype.is_half() {
            return Err(format!("an operand of {}, expected it cast to f32", inputs[0].dtype));
        }
        Ok(inputs.to_vec())
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, axis) = (&inputs[0], op.axis("axis"));
        let (kind, acc) = (Combine::of(op.word("kind"), KINDS)?, x.dtype());
        let strides = shape::strides(x.shape());
        let (n, step) = (x.shape()[axis], strides[axis] as usize);
        let mut lines = x.shape().to_vec();
        lines[axis] = n.min(1);
        let mut out = vec![Number::Int(0); x.len()];
        shape::walk(&lines, 0, &strides, |base| {
            let mut sum = kind.identity(acc);
            for i in 0..n {
                let p = base + step * if op.flag("reverse") { n - 1 - i } else { i };
                let next = kind.apply(acc, sum, x.get(p));
                out[p] = if op.flag("exclusive") { sum } else { next };
                sum = next;
            }
        });
        Ok(vec![Tensor::from_fn(x.dtype(), x.shape(), |p| out[p])])
    }
    fn role(&self) -> Role {
        Role::Assemble(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |kind, axis, exclusive, reverse, x| {
            Sample::new(
                &[
                    Attr::word(kind),
                    Attr::Int(axis),
                    Attr::Bool(exclusive),
                    Attr::Bool(reverse),
                ],
                &[x],
            )
        };
        vec![
            s("sum", 0, false, false, (DType::F32, &[9])),
            s("sum", 1, true, false, (DType::I64, &[2, 5, 3])),
            s("sum", 2, false, true, (DType::F64, &[2, 1, 6])),
            s("prod", 0, true, true, (DType::F32, &[4, 3])),
            s("sum", 1, false, false, (DType::F32, &[3, 0])),
        ]
    }
}

impl Assemble for Def {
    fn assembly(&self, op: &Op) -> Assembly {
        Assembly::Scan {
            axis: op.axis("axis"),
            combine: op.combine("kind"),
            exclusive: op.flag("exclusive"),
            reverse: op.flag("reverse"),
        }
    }
}
