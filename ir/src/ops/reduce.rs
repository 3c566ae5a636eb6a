//! `reduce{kind, axes}(x)`: the elements combined along the axes, which stay with extent 1; over no elements the identity.
//! `and` and `or` are of bools, `sum`, `prod`, `max` and `min` of everything else. f16 and bf16 are combined in f32, integers in
//! their own dtype, wrapping. Source: ONNX `ReduceSum`, `ReduceProd`, `ReduceMax`, `ReduceMin`; XLA `Reduce`.

use super::{Accuracy, Attr, AttrKind, Combine, Draw, Drawn, Merge, Op, OpDef, Role, Rows, Sample, Signs, arity, draw, shape};
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

const KINDS: &[Combine] = &Combine::ALL;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "reduce"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("kind", AttrKind::Word), ("axes", AttrKind::Ints)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let x = &inputs[0];
        Combine::of(op.word("kind"), KINDS)?.check(x.dtype)?;
        let mut out = x.shape.clone();
        for a in shape::check_axes("axes", op.ints("axes"), x.rank())? {
            out[a] = Dim::ONE;
        }
        Ok(vec![Type::new(x.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let (kind, compute) = (Combine::of(op.word("kind"), KINDS)?, x.dtype().compute());
        let acc = kind.exact(compute);
        let mut out = x.shape().to_vec();
        op.axes("axes").iter().for_each(|&a| out[a] = 1);
        let mut to = shape::strides(&out);
        op.axes("axes").iter().for_each(|&a| to[a] = 0);
        let mut values = vec![kind.identity(acc); out.iter().product()];
        let mut elements = x.iter();
        shape::walk(x.shape(), 0, &to, |p| {
            let e = elements.next().expect("the walk visits every element once");
            values[p] = kind.apply(acc, values[p], e);
        });
        Ok(vec![Tensor::from_fn(x.dtype(), &out, |p| values[p].to(compute))])
    }
    fn role(&self) -> Role {
        Role::Rows(&Def)
    }
    fn never_minus_zero(&self, op: &Op, of: &mut dyn Signs) -> bool {
        op.combine("kind").never_minus_zero(of)
    }
    fn is_nonnegative(&self, op: &Op, of: &mut dyn Signs) -> bool {
        op.combine("kind").is_nonnegative(of)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, None)?;
        let ty = d.ty(x);
        let words: &[&str] = if ty.dtype == DType::Bool {
            &["and", "or"]
        } else {
            &["sum", "sum", "max", "min", "prod"]
        };
        let kind = Attr::word(draw::pick(d, words));
        let kind = d.attr(0, kind)?;
        let (first, trailing) = (d.below(ty.rank()), d.chance(50));
        let mut axes = vec![];
        for a in 0..ty.rank() {
            if if trailing { a >= first } else { d.chance(50) } {
                axes.push(a as i64);
            }
        }
        if axes.is_empty() && d.fixed(1).is_none() {
            return None;
        }
        Some(Drawn {
            attrs: vec![kind, d.attr(1, Attr::Ints(axes))?],
            inputs: vec![x],
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |kind, axes: &[i64], x| Sample::new(&[Attr::word(kind), Attr::ints(axes)], &[x]);
        vec![
            s("sum", &[1], (DType::F32, &[2, 3, 4])),
            s("sum", &[0, 2], (DType::F16, &[3, 1, 5])),
            s("prod", &[0], (DType::I32, &[4, 3])),
            s("max", &[2], (DType::F32, &[2, 1, 7])),
            s("min", &[0, 1], (DType::I8, &[3, 4])),
            s("max", &[1], (DType::I64, &[2, 0])),
            s("sum", &[0], (DType::F64, &[0, 3])),
            s("and", &[1], (DType::Bool, &[3, 2])),
            s("or", &[0], (DType::Bool, &[3, 2])),
            s("sum", &[], (DType::F32, &[])),
        ]
    }
}

impl Rows for Def {
    fn axes(&self, op: &Op, _: &Type) -> Vec<usize> {
        op.axes("axes")
    }
    fn merge(&self, op: &Op) -> Option<Merge> {
        Some(Merge::Fold(op.combine("kind")))
    }
    fn operations(&self) -> f64 {
        1.0
    }
}
