//! `concat{axis}(x…)`: the operands behind each other along an axis. Source: ONNX `Concat`, XLA `Concatenate`.

use super::{Accuracy, Assemble, Assembly, Attr, AttrKind, Draw, Drawn, Op, OpDef, Role, Sample, check_axis, draw};
use crate::{DType, Dim, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let first = inputs.first().ok_or("no operands, expected at least one")?;
        let axis = check_axis(op.int("axis"), first.rank())?;
        let mut out = first.shape.clone();
        out[axis] = Dim::ZERO;
        for t in inputs {
            let same = |d: usize| d == axis || t.shape[d] == first.shape[d];
            if t.dtype != first.dtype || t.rank() != first.rank() || !(0..t.rank()).all(same) {
                return Err(format!(
                    "operands {first} and {t}, expected them equal but for axis {axis}"
                ));
            }
            out[axis] = &out[axis] + &t.shape[axis];
        }
        Ok(vec![Type::new(first.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let axis = op.axis("axis");
        let mut shape = inputs[0].shape().to_vec();
        shape[axis] = inputs.iter().map(|t| t.shape()[axis]).sum();
        let mut bytes = vec![];
        let rows = if shape.contains(&0) {
            0
        } else {
            shape[..axis].iter().product()
        };
        for outer in 0..rows {
            for t in inputs {
                let n = t.shape()[axis..].iter().product::<usize>() * t.dtype().bytes();
                bytes.extend_from_slice(&t.bytes()[outer * n..(outer + 1) * n]);
            }
        }
        Ok(vec![Tensor::new(inputs[0].dtype(), shape, bytes)?])
    }
    fn role(&self) -> Role {
        Role::Assemble(&Def)
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn is_identity(&self, _: &Op, inputs: &[Type]) -> bool {
        inputs.len() == 1
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let mut inputs: Vec<Value> = vec![];
        let mut axis = None;
        loop {
            let mut want = None;
            if let Some(&first) = inputs.first() {
                let mut ty = d.ty(first);
                let axis = match axis {
                    Some(a) => a,
                    None => *axis.insert(draw::axis(d, 0, ty.rank())?),
                };
                ty.shape[axis] = Dim::from(d.extent());
                want = Some(ty);
            }
            match d.next_operand(want.as_ref())? {
                Some(v) => inputs.push(v),
                None => break,
            }
        }
        let rank = d.ty(*inputs.first()?).rank();
        let axis = axis.or_else(|| draw::axis(d, 0, rank))?;
        Some(Drawn {
            attrs: vec![Attr::Int(axis as i64)],
            inputs,
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::F32;
        let s = |axis, inputs: &[super::SampleType]| Sample::new(&[Attr::Int(axis)], inputs);
        vec![
            s(0, &[(F32, &[2, 3]), (F32, &[1, 3])]),
            s(1, &[(F32, &[2, 3, 2]), (F32, &[2, 0, 2]), (F32, &[2, 1, 2])]),
            s(2, &[(DType::I64, &[2, 1, 3]), (DType::I64, &[2, 1, 4])]),
            s(0, &[(DType::Bool, &[1])]),
            s(1, &[(F32, &[0, 3]), (F32, &[0, 2])]),
        ]
    }
}

impl Assemble for Def {
    fn assembly(&self, op: &Op) -> Assembly {
        Assembly::Concat { axis: op.axis("axis") }
    }
    fn only_moves(&self) -> bool {
        true
    }
    fn embeds(&self) -> bool {
        true
    }
}
