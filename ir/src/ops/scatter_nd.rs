//! `scatter_nd{reduction}(data, indices, updates)`: a copy of `data` in which, for every `i…` in row-major order,
//! `out[indices[i…, :], r…] = reduction(out[…], updates[i…, r…])`; reduction `none` replaces. A negative index counts from the
//! end; an index out of range is an error. f16 and bf16 combine in f32 and round at every update. Source: ONNX `ScatterND`.

use super::{Accuracy, Assemble, Assembly, Attr, AttrKind, Combine, Coordinate, Op, OpDef, Role, Sample, SampleType, arity, gather_nd, shape};
use crate::index::Ix;
use crate::{DType, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The combination of a reduction keyword; `None` replaces.
///
/// # Errors
/// When there is no such keyword, or it is not defined on the dtype.
pub fn reduction(word: &str, dtype: DType) -> Result<Option<Combine>, String> {
    let combine = of_word(word);
    match combine {
        None if word != "none" => return Err(format!("reduction `{word}`, expected none, add, mul, min or max")),
        None => {}
        Some(c) => c.check(dtype)?,
    }
    Ok(combine)
}

/// The combination of a valid keyword; `None` replaces.
pub fn of_word(word: &str) -> Option<Combine> {
    match word {
        "add" => Some(Combine::Sum),
        "mul" => Some(Combine::Prod),
        "min" => Some(Combine::Min),
        "max" => Some(Combine::Max),
        _ => None,
    }
}

/// What an element becomes by an update.
pub fn updated(combine: Option<Combine>, dtype: DType, old: Number, new: Number) -> Number {
    combine.map_or(new, |c| c.apply(dtype.compute(), old, new).to(dtype))
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "scatter_nd"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("reduction", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 3)?;
        let (data, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        reduction(op.word("reduction"), data.dtype)?;
        shape::check_index("indices", indices)?;
        let k = gather_nd::depth(indices, data.rank())?;
        let want = [&indices.shape[..indices.rank() - 1], &data.shape[k..]].concat();
        shape::check_type("updates", updates, data.dtype, &want)?;
        Ok(vec![data.clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (data, indices, updates) = (&inputs[0], &inputs[1], &inputs[2]);
        let combine = reduction(op.word("reduction"), data.dtype())?;
        let k = indices.shape()[indices.shape().len() - 1];
        let row: usize = data.shape()[k..].iter().product();
        let mut out: Vec<Number> = data.iter().collect();
        // Where a row is empty, no index is looked at.
        for i in 0..if row == 0 { 0 } else { indices.len() / k } {
            let at = (0..k).try_fold(0, |r, j| {
                let extent = data.shape()[j];
                Ok::<_, String>(r * extent + shape::element(indices.get(i * k + j), j, extent)?)
            });
            let r = at?;
            for j in 0..row {
                let old = &mut out[r * row + j];
                *old = updated(combine, data.dtype(), *old, updates.get(i * row + j));
            }
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
        use DType::{F16, F32, I32, I64};
        let s = |word, data: SampleType, indices: SampleType, updates| {
            let least = data.1[..indices.1[indices.1.len() - 1]].iter().min();
            let operands = [data, indices, updates];
            Sample::new(&[Attr::word(word)], &operands).indexing(1, *least.expect("a position"))
        };
        vec![
            s("none", (F32, &[5, 3]), (I64, &[2, 1]), (F32, &[2, 3])),
            s("add", (F32, &[3, 2, 4]), (I32, &[2, 3, 2]), (F32, &[2, 3, 4])),
            s("mul", (F16, &[4]), (I64, &[6, 1]), (F16, &[6])),
            s("max", (I64, &[1, 4]), (I64, &[3, 2]), (I64, &[3])),
            s("min", (F32, &[2, 0]), (I64, &[1, 1]), (F32, &[1, 0])),
            s("none", (DType::Bool, &[0]), (I64, &[0, 1]), (DType::Bool, &[0])),
        ]
    }
}

impl Assemble for Def {
    fn assembly(&self, op: &Op) -> Assembly {
        Assembly::Scatter {
            combine: of_word(op.word("reduction")),
        }
    }
    fn coordinates(&self, _: &Op, inputs: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        let depth = gather_nd::depth(&inputs[1], inputs[0].rank())?;
        Ok(gather_nd::tuple(0, inputs[1].rank() - 1, depth, at))
    }
}
