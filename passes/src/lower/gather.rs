//! Gathers: reads at positions that come from data. An index wraps once when negative, then clamps into range, so that no
//! data can make a kernel read out of bounds.

use super::group::{Lowerer, in_memory};
use super::stage::{E, StageBuilder};
use brolga_ir::index::{Bound, Ix};
use brolga_ir::structured::Read;
use brolga_ir::{DType, Dim, Node, Number, Value};

/// The expression of a gather's result at a point.
pub fn lower(l: &mut Lowerer, s: &mut StageBuilder, node: &Node, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
    let (op, data, indices) = (&node.op, node.inputs[0], node.inputs[1]);
    let data_ty = l.graph().ty(data).clone();
    let index_rank = l.graph().ty(indices).rank();
    let memory = in_memory(l.graph(), data).ok_or("a gather's data is not in memory")?;
    let mut place = vec![];
    match op.name() {
        "gather" => {
            let axis = op.axis("axis");
            let i = index(l, s, indices, &at[axis..axis + index_rank], guard, &data_ty.shape[axis])?;
            place.extend_from_slice(&at[..axis]);
            place.push(i);
            place.extend_from_slice(&at[axis + index_rank..]);
        }
        "gather_elements" => {
            let axis = op.axis("axis");
            place.extend_from_slice(at);
            place[axis] = index(l, s, indices, at, guard, &data_ty.shape[axis])?;
        }
        _ => {
            let batch = op.axis("batch_dims");
            let depth = l.graph().ty(indices).shape[index_rank - 1]
                .as_const()
                .ok_or("an index tuple of unknown size")?;
            place.extend_from_slice(&at[..batch]);
            for k in 0..depth {
                let mut where_ = at[..index_rank - 1].to_vec();
                where_.push(Ix::constant(k));
                place.push(index(
                    l,
                    s,
                    indices,
                    &where_,
                    guard,
                    &data_ty.shape[batch + k as usize],
                )?);
            }
            place.extend_from_slice(&at[index_rank - 1..]);
        }
    }
    if let Some(x) = l.graph().as_constant(memory).and_then(|c| c.as_splat()) {
        return Ok(s.constant(data_ty.dtype, x));
    }
    // The clamped index is in bounds; what surrounds it may be guarded.
    let operand = l.operand(memory, data_ty.clone());
    Ok(s.element(operand, place, guard.to_vec(), data_ty.dtype))
}

/// One index, wrapped and clamped to `0..extent`.
pub fn index(
    l: &mut Lowerer,
    s: &mut StageBuilder,
    indices: Value,
    at: &[Ix],
    guard: &[Bound],
    extent: &Dim,
) -> Result<Ix, String> {
    let i = wrapped(l, s, indices, at, guard, extent)?;
    let zero = s.constant(DType::I64, Number::Int(0));
    let last = s.read(Read::Index(Ix::constant(extent - 1)), DType::I64);
    let i = s.call("max", None, &[i, zero])?;
    let i = s.call("min", None, &[i, last])?;
    Ok(Ix::reg(s.index(i)?))
}

/// One index, with `extent` added when it is negative.
pub fn wrapped(
    l: &mut Lowerer,
    s: &mut StageBuilder,
    indices: Value,
    at: &[Ix],
    guard: &[Bound],
    extent: &Dim,
) -> Result<E, String> {
    let i = l.emit(s, indices, at, guard)?;
    let i = s.cast(i, DType::I64)?;
    let zero = s.constant(DType::I64, Number::Int(0));
    let n = s.read(Read::Index(Ix::constant(extent.clone())), DType::I64);
    let negative = s.call("less", None, &[i, zero])?;
    let up = s.call("add", None, &[i, n])?;
    s.call("where", None, &[negative, up, i])
}
