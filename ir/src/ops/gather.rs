//! `gather{axis}(data, indices)`: `out[o…, i…, r…] = data[o…, indices[i…], r…]`, the dimensions of `indices` in place of
//! the axis. A negative index counts from the end; an index out of range is an error. Source: ONNX `Gather`, numpy
//! `take`.

use super::{Accuracy, Attr, AttrKind, Coordinate, Draw, Drawn, Gather, Op, OpDef, Role, Sample, SampleType, arity, check_axis, draw, shape};
use crate::index::Ix;
use crate::{DType, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "gather"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (data, indices) = (&inputs[0], &inputs[1]);
        let axis = check_axis(op.int("axis"), data.rank())?;
        shape::check_index("indices", indices)?;
        let out = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
        shape::check_indexable(&data.shape[axis], &out)?;
        Ok(vec![Type::new(data.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (data, indices, axis) = (&inputs[0], &inputs[1], op.axis("axis"));
        let extent = data.shape()[axis];
        let out = [&data.shape()[..axis], indices.shape(), &data.shape()[axis + 1..]].concat();
        let mut bytes = vec![];
        if !out.contains(&0) {
            let row = data.shape()[axis + 1..].iter().product::<usize>() * data.dtype().bytes();
            for outer in 0..data.shape()[..axis].iter().product() {
                for i in indices.iter() {
                    let r = outer * extent + shape::element(i, axis, extent)?;
                    bytes.extend_from_slice(&data.bytes()[r * row..(r + 1) * row]);
                }
            }
        }
        Ok(vec![Tensor::new(data.dtype(), out, bytes)?])
    }
    fn role(&self) -> Role {
        Role::Gather(&Def)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, None)?;
        let ty = d.ty(x);
        let axis = draw::axis(d, 0, ty.rank())?;
        let n = ty.shape[axis].as_const().filter(|&n| n > 0)?;
        d.indexes(1, n as usize);
        let rank = draw::pick(d, &[1, 1, 2]);
        let shape = d.shape(Some(rank));
        Some(Drawn {
            attrs: vec![Attr::Int(axis as i64)],
            inputs: vec![x, d.operand(1, Some(&Type::new(DType::I64, shape)))?],
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, I32, I64};
        let s = |axis: i64, data: SampleType, indices| {
            Sample::new(&[Attr::Int(axis)], &[data, indices]).indexing(1, data.1[axis as usize])
        };
        vec![
            s(0, (F32, &[5, 3]), (I64, &[2, 4])),
            s(1, (F32, &[2, 6, 3]), (I32, &[])),
            s(2, (I64, &[2, 1, 4]), (I64, &[3])),
            s(0, (DType::U8, &[1]), (I64, &[1, 1, 2])),
            s(1, (F32, &[2, 0]), (I64, &[0])),
            s(0, (F32, &[3, 0, 2]), (I64, &[2])),
        ]
    }
}

impl Gather for Def {
    fn coordinates(&self, op: &Op, inputs: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        let (axis, rank) = (op.axis("axis"), inputs[1].rank());
        let mut out: Vec<Coordinate> = at[..axis].iter().cloned().map(Coordinate::At).collect();
        out.push(Coordinate::Indexed(at[axis..axis + rank].to_vec()));
        out.extend(at[axis + rank..].iter().cloned().map(Coordinate::At));
        Ok(out)
    }
}
