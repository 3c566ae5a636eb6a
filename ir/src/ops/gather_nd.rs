//! `gather_nd{batch_dims}(data, indices)`: the last dimension of `indices` holds positions in the dimensions of `data` that
//! follow the `batch_dims` leading ones: `out[b…, i…, r…] = data[b…, indices[b…, i…, :], r…]`. Indices are those of
//! `gather`. Source: ONNX `GatherND`.

use super::{Accuracy, Attr, AttrKind, Coordinate, Gather, Op, OpDef, Role, Sample, SampleType, arity, shape};
use crate::index::Ix;
use crate::{DType, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "gather_nd"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("batch_dims", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (data, indices, batch) = (&inputs[0], &inputs[1], op.int("batch_dims"));
        shape::check_index("indices", indices)?;
        shape::check_rank("indices", indices, 1)?;
        let q = indices.rank() - 1;
        if batch < 0 || batch as usize > q || batch as usize >= data.rank() {
            return Err(format!(
                "batch_dims {batch} for data {data} and indices {indices}, expected fewer"
            ));
        }
        let batch = batch as usize;
        if data.shape[..batch] != indices.shape[..batch] {
            return Err(format!(
                "data {data} and indices {indices}, expected {batch} equal leading extents"
            ));
        }
        let k = depth(indices, data.rank() - batch)?;
        let out = [&indices.shape[..q], &data.shape[batch + k..]].concat();
        for d in &data.shape[batch..batch + k] {
            shape::check_indexable(d, &out)?;
        }
        Ok(vec![Type::new(data.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (data, indices, batch) = (&inputs[0], &inputs[1], op.axis("batch_dims"));
        let (q, n) = (indices.shape().len() - 1, data.dtype().bytes());
        let k = indices.shape()[q];
        let out = [&indices.shape()[..q], &data.shape()[batch + k..]].concat();
        let mut bytes = vec![];
        if !out.contains(&0) {
            let row: usize = data.shape()[batch + k..].iter().product();
            for (p, at) in crate::indices(&indices.shape()[..q]).enumerate() {
                let outer = at[..batch]
                    .iter()
                    .zip(data.shape())
                    .fold(0, |r, (i, extent)| r * extent + i);
                let r = (0..k).try_fold(outer, |r, j| {
                    let (axis, extent) = (batch + j, data.shape()[batch + j]);
                    Ok::<_, String>(r * extent + shape::element(indices.get(p * k + j), axis, extent)?)
                })?;
                bytes.extend_from_slice(&data.bytes()[r * row * n..(r + 1) * row * n]);
            }
        }
        Ok(vec![Tensor::new(data.dtype(), out, bytes)?])
    }
    fn role(&self) -> Role {
        Role::Gather(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, I32, I64};
        let s = |batch: i64, data: SampleType, indices: SampleType| {
            let (first, depth) = (batch as usize, indices.1[indices.1.len() - 1]);
            let least = data.1[first..first + depth].iter().min();
            Sample::new(&[Attr::Int(batch)], &[data, indices]).indexing(1, *least.expect("a position"))
        };
        vec![
            s(0, (F32, &[3, 4]), (I64, &[5, 2])),
            s(0, (F32, &[3, 4, 2]), (I32, &[2, 1, 1])),
            s(1, (F32, &[2, 3, 4]), (I64, &[2, 2, 1])),
            s(1, (I64, &[2, 3, 1]), (I64, &[2, 2])),
            s(0, (F32, &[0, 2]), (I64, &[0, 1])),
        ]
    }
}

impl Gather for Def {
    fn coordinates(&self, op: &Op, inputs: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        let batch = op.axis("batch_dims");
        let depth = depth(&inputs[1], inputs[0].rank() - batch)?;
        Ok(tuple(batch, inputs[1].rank() - 1, depth, at))
    }
}

/// Coordinates of which `depth` after the first `batch` are a tuple that the indices hold: at the first `rank` of the point.
pub fn tuple(batch: usize, rank: usize, depth: usize, at: &[Ix]) -> Vec<Coordinate> {
    let mut out: Vec<Coordinate> = at[..batch].iter().cloned().map(Coordinate::At).collect();
    out.extend((0..depth).map(|k| Coordinate::Indexed([&at[..rank], &[Ix::constant(k as i64)]].concat())));
    out.extend(at[rank..].iter().cloned().map(Coordinate::At));
    out
}

/// The known number of positions in the last dimension of `indices`, at least 1 and at most `max`.
///
/// # Errors
/// When it is symbolic or out of range.
pub fn depth(indices: &Type, max: usize) -> Result<usize, String> {
    match indices.shape.last().and_then(|d| d.as_const()) {
        Some(k) if k >= 1 && k as usize <= max => Ok(k as usize),
        _ => Err(format!("indices {indices}, expected a last extent from 1 to {max}")),
    }
}
