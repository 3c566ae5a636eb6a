//! `scatter_elements{axis, reduction}(data, indices, updates)`: a copy of `data` in which, for every index `i` of `indices` in
//! row-major order, the element at `i` with `i[axis]` replaced by `indices[i]` becomes `reduction(old, updates[i])`. Indices
//! and reductions are those of `scatter_nd`. Source: ONNX `ScatterElements`.

use super::scatter_nd::{of_word, reduction, updated};
use super::{Accuracy, Assemble, Assembly, Attr, AttrKind, Coordinate, Op, OpDef, Role, Sample, SampleType, arity, check_axis, gather_elements, shape};
use crate::index::Ix;
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "scatter_elements"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int), ("reduction", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 3)?;
        let (data, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        let axis = check_axis(op.int("axis"), data.rank())?;
        reduction(op.word("reduction"), data.dtype)?;
        shape::check_index("indices", indices)?;
        let fits = |d: usize| d == axis || !shape::is_larger(&indices.shape[d], &data.shape[d]);
        if indices.rank() != data.rank() || !(0..data.rank()).all(fits) {
            return Err(format!(
                "data {data} and indices {indices}, expected no larger extents but for axis {axis}"
            ));
        }
        shape::check_type("updates", updates, data.dtype, &indices.shape)?;
        Ok(vec![data.clone()])
    }
    fn at_most(&self, op: &Op, input: &dyn Fn(usize) -> Type) -> Vec<(Dim, Dim)> {
        shape::but_for(op.axis("axis"), &input(1), &input(0))
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (data, indices, updates, axis) = (&inputs[0], &inputs[1], &inputs[2], op.axis("axis"));
        let combine = reduction(op.word("reduction"), data.dtype())?;
        let mut out: Vec<Number> = data.iter().collect();
        for (p, mut index) in crate::indices(indices.shape()).enumerate() {
            index[axis] = shape::element(indices.get(p), axis, data.shape()[axis])?;
            let old = &mut out[data.position(&index)];
            *old = updated(combine, data.dtype(), *old, updates.get(p));
        }
        Ok(vec![Tensor::from_fn(data.dtype(), data.shape(), |p| out[p])])
    }
    fn role(&self) -> Role {
        Role::Assemble(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, I32, I64};
        let s = |axis: i64, word, data: SampleType, indices, updates| {
            let attrs = [Attr::Int(axis), Attr::word(word)];
            Sample::new(&attrs, &[data, indices, updates]).indexing(1, data.1[axis as usize])
        };
        vec![
            s(0, "none", (F32, &[3, 4]), (I64, &[2, 4]), (F32, &[2, 4])),
            s(2, "add", (F32, &[2, 3, 4]), (I32, &[2, 1, 6]), (F32, &[2, 1, 6])),
            s(1, "mul", (I64, &[1, 5]), (I64, &[1, 5]), (I64, &[1, 5])),
            s(0, "max", (F32, &[4]), (I64, &[3]), (F32, &[3])),
            s(1, "min", (F32, &[2, 3, 0]), (I64, &[2, 2, 0]), (F32, &[2, 2, 0])),
        ]
    }
}

impl Assemble for Def {
    fn assembly(&self, op: &Op) -> Assembly {
        Assembly::Scatter {
            combine: of_word(op.word("reduction")),
        }
    }
    fn coordinates(&self, op: &Op, _: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        Ok(gather_elements::along(op.axis("axis"), at))
    }
}
