//! Gathers: reads at positions that come from data. An index wraps once when negative, is checked, then clamps into range,
//! so that no data can make a kernel read out of bounds, and none that would is passed over.

use super::group::{Lowerer, in_memory};
use super::stage::{E, StageBuilder};
use brolga_ir::index::{Bound, Ix, Reg};
use brolga_ir::structured::Read;
use brolga_ir::{DType, Node, Number};

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
            let i = index(l, s, node, &at[axis..axis + index_rank], guard, axis)?;
            place.extend_from_slice(&at[..axis]);
            place.push(i);
            place.extend_from_slice(&at[axis + index_rank..]);
        }
        "gather_elements" => {
            let axis = op.axis("axis");
            place.extend_from_slice(at);
            place[axis] = index(l, s, node, at, guard, axis)?;
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
                place.push(index(l, s, node, &where_, guard, batch + k as usize)?);
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

/// One index, wrapped, checked, and clamped to `0..extent`.
pub fn index(
    l: &mut Lowerer,
    s: &mut StageBuilder,
    node: &Node,
    at: &[Ix],
    guard: &[Bound],
    axis: usize,
) -> Result<Ix, String> {
    let extent = l.graph().ty(node.inputs[0]).shape[axis].clone();
    let i = wrapped(l, s, node, at, guard, axis)?;
    if is_proven(l, node, axis) {
        return Ok(Ix::reg(i));
    }
    let i = s.value(i);
    let zero = s.constant(DType::I64, Number::Int(0));
    let last = s.read(Read::Index(Ix::constant(&extent - 1)), DType::I64);
    let i = s.call("max", None, &[i, zero])?;
    let i = s.call("min", None, &[i, last])?;
    Ok(Ix::reg(s.index(i)?))
}

/// One index along an axis, with the axis's extent added when it is negative; checked where it is not known to be in range.
pub fn wrapped(
    l: &mut Lowerer,
    s: &mut StageBuilder,
    node: &Node,
    at: &[Ix],
    guard: &[Bound],
    axis: usize,
) -> Result<Reg, String> {
    let extent = l.graph().ty(node.inputs[0]).shape[axis].clone();
    let i = l.emit(s, node.inputs[1], at, guard)?;
    let i = s.cast(i, DType::I64)?;
    let zero = s.constant(DType::I64, Number::Int(0));
    let n = s.read(Read::Index(Ix::constant(extent.clone())), DType::I64);
    let negative = s.call("less", None, &[i, zero])?;
    let up = s.call("add", None, &[i, n])?;
    let i = s.call("where", None, &[negative, up, i])?;
    let i = s.index(i)?;
    if !is_proven(l, node, axis) {
        let number = l.check(node);
        s.check(number, i, &extent, guard);
    }
    Ok(i)
}

/// True when the indices are constants that name elements of an axis of known extent: nothing is left to check.
fn is_proven(l: &Lowerer, node: &Node, axis: usize) -> bool {
    let graph = l.graph();
    let Some(n) = graph.ty(node.inputs[0]).shape[axis].as_const().map(i128::from) else {
        return false;
    };
    let memory = in_memory(graph, node.inputs[1]);
    memory
        .and_then(|m| graph.as_constant(m))
        .is_some_and(|c| c.to_tensor().iter().all(|i| (-n..n).contains(&i.int())))
}
