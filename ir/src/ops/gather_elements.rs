//! `gather_elements{axis}(data, indices)`: `out[i] = data[i with i[axis] replaced by indices[i]]`. The result has the shape
//! of `indices`, whose other extents are at most those of `data`. Indices are those of `gather`.
//! Source: ONNX `GatherElements`, numpy `take_along_axis`.

use super::{Accuracy, Attr, AttrKind, Coordinate, Gather, Op, OpDef, Role, Sample, SampleType, arity, check_axis, shape};
use crate::index::Ix;
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "gather_elements"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (data, indices) = (&inputs[0], &inputs[1]);
        let axis = check_axis(op.int("axis"), data.rank())?;
        shape::check_index("indices", indices)?;
        let fits = |d: usize| d == axis || !shape::is_larger(&indices.shape[d], &data.shape[d]);
        if indices.rank() != data.rank() || !(0..data.rank()).all(fits) {
            return Err(format!(
                "data {data} and indices {indices}, expected no larger extents but for axis {axis}"
            ));
        }
        shape::check_indexable(&data.shape[axis], &indices.shape)?;
        Ok(vec![Type::new(data.dtype, indices.shape.clone())])
    }
    fn at_most(&self, op: &Op, input: &dyn Fn(usize) -> Type) -> Vec<(Dim, Dim)> {
        shape::but_for(op.axis("axis"), &input(1), &input(0))
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (data, indices, axis) = (&inputs[0], &inputs[1], op.axis("axis"));
        let mut from = vec![];
        for (i, mut at) in indices.iter().zip(crate::indices(indices.shape())) {
            at[axis] = shape::element(i, axis, data.shape()[axis])?;
            from.push(data.position(&at));
        }
        Ok(vec![Tensor::from_fn(data.dtype(), indices.shape(), |p| {
            data.get(from[p])
        })])
    }
    fn role(&self) -> Role {
        Role::Gather(&Def)
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
            s(0, (F32, &[3, 4]), (I64, &[2, 4])),
            s(2, (F32, &[2, 3, 4]), (I32, &[2, 1, 5])),
            s(1, (DType::I8, &[2, 1, 3]), (I64, &[1, 2, 3])),
            s(0, (F32, &[0, 2]), (I64, &[0, 2])),
        ]
    }
}

impl Gather for Def {
    fn coordinates(&self, op: &Op, _: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        Ok(along(op.axis("axis"), at))
    }
}

/// The point itself, but for what the indices hold at it along an axis.
pub fn along(axis: usize, at: &[Ix]) -> Vec<Coordinate> {
    let mut out: Vec<Coordinate> = at.iter().cloned().map(Coordinate::At).collect();
    out[axis] = Coordinate::Indexed(at.to_vec());
    out
}
