//! Gathers: reads at positions that come from data. An index wraps once when negative, is checked, then clamps into range,
//! so that no data can make a kernel read out of bounds, and none that would is passed over.

use super::stage::{E, StageBuilder};
use super::{KernelBuilder, in_memory};
use brolga_ir::index::{Bound, Ix, Reg};
use brolga_ir::ops::{Coordinate, Gather};
use brolga_ir::structured::Read;
use brolga_ir::{DType, Node, Number, Type};

impl KernelBuilder<'_> {
    /// The expression of a gather's result at a point.
    pub(super) fn gather(
        &mut self,
        s: &mut StageBuilder,
        node: &Node,
        gather: &dyn Gather,
        at: &[Ix],
        guard: &[Bound],
    ) -> Result<E, String> {
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let memory = in_memory(self.graph, node.inputs[0]).ok_or("a gather's data is not in memory")?;
        let mut place = vec![];
        for (axis, c) in gather.coordinates(&node.op, &types, at)?.into_iter().enumerate() {
            place.push(match c {
                Coordinate::At(ix) => ix,
                Coordinate::Indexed(at) => self.clamped(s, node, &at, guard, axis)?,
            });
        }
        let data = &types[0];
        if let Some(x) = self.graph.as_constant(memory).and_then(|c| c.as_splat()) {
            return s.everywhere(x, guard, data.dtype);
        }
        // The clamped index is in bounds; what surrounds it may be guarded.
        let operand = self.operand(memory, data.clone());
        Ok(s.element(operand, place, guard.to_vec(), data.dtype))
    }

    /// One index, wrapped, checked, and clamped to `0..extent`.
    fn clamped(
        &mut self,
        s: &mut StageBuilder,
        node: &Node,
        at: &[Ix],
        guard: &[Bound],
        axis: usize,
    ) -> Result<Ix, String> {
        let (i, proven) = self.wrapped(s, node, at, guard, axis)?;
        if proven {
            return Ok(Ix::reg(i));
        }
        let extent = &self.graph.ty(node.inputs[0]).shape[axis];
        let i = s.value(i);
        let zero = s.constant(DType::I64, Number::Int(0));
        let last = s.read(Read::Index(Ix::constant(extent - 1)), DType::I64);
        let i = s.call("max", None, &[i, zero])?;
        let i = s.call("min", None, &[i, last])?;
        Ok(Ix::reg(s.index(i)?))
    }

    /// One index along an axis, with the axis's extent added when it is negative, and whether it is known to be in range;
    /// it is checked where it is not.
    pub(super) fn wrapped(
        &mut self,
        s: &mut StageBuilder,
        node: &Node,
        at: &[Ix],
        guard: &[Bound],
        axis: usize,
    ) -> Result<(Reg, bool), String> {
        let extent = self.graph.ty(node.inputs[0]).shape[axis].clone();
        let i = self.emit(s, node.inputs[1], at, guard)?;
        let i = s.cast(i, DType::I64)?;
        let zero = s.constant(DType::I64, Number::Int(0));
        let n = s.read(Read::Index(Ix::constant(extent.clone())), DType::I64);
        let negative = s.call("less", None, &[i, zero])?;
        let up = s.call("add", None, &[i, n])?;
        let i = s.call("where", None, &[negative, up, i])?;
        let i = s.index(i)?;
        let proven = self.is_proven(node, axis);
        if !proven {
            let number = self.check(node);
            s.check(number, i, &extent, guard);
        }
        Ok((i, proven))
    }

    /// True when the indices are constants that name elements of an axis of known extent: nothing is left to check.
    fn is_proven(&self, node: &Node, axis: usize) -> bool {
        let Some(n) = self.graph.ty(node.inputs[0]).shape[axis].as_const().map(i128::from) else {
            return false;
        };
        let memory = in_memory(self.graph, node.inputs[1]);
        memory
            .and_then(|m| self.graph.as_constant(m))
            .is_some_and(|c| c.to_tensor().iter().all(|i| (-n..n).contains(&i.int())))
    }
}
