//! Loads and stores of a vector loop.
//!
//! An access whose index moves by one element a lane is whole chunks; one whose index is the same on every lane is a
//! scalar; any other is done lane by lane. A guard that is the same on every lane guards the chunks; one that differs is
//! tested on the first and the last lane, and only when one of them is out of bounds is the access done lane by lane.

use super::Body;
use super::lanes::Motion;
use crate::Error;
use crate::clif::emit::element;
use crate::clif::vector::{Val, chunk, chunks, mask_type};
use brolga_ir::index::{Bound, Ix};
use brolga_ir::loops::Buf;
use brolga_ir::{DType, Dim};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// The dtype of an element's bytes: that of bools, before they are masks.
fn bytes_dtype(d: DType) -> DType {
    if d == DType::Bool { DType::U8 } else { d }
}

impl Body<'_, '_, '_> {
    pub fn load_lanes(&mut self, buffer: Buf, index: &Ix, guard: &[Bound], fill: u64) -> Result<Val, Error> {
        let d = self.k.buffer(buffer).dtype;
        let (mut fixed, mut moving, mut affine) = (vec![], vec![], true);
        for b in guard {
            match self.motion(&b.index)? {
                Motion::Fixed => fixed.push(b.clone()),
                m => {
                    affine &= matches!(m, Motion::Affine(_));
                    moving.push(b.clone());
                }
            }
        }
        let motion = self.motion(index)?;
        let whole = match &motion {
            Motion::Affine(s) => s.is(1),
            _ => false,
        };
        if moving.is_empty() {
            if matches!(motion, Motion::Fixed) {
                let cond = self.bounds(&fixed)?;
                let (at, offset) = self.address(buffer, index)?;
                let (at, offset) = self.guarded(cond, at, offset, d, fill);
                return Ok(Val::Uniform(self.load_scalar(d, at, offset)));
            }
            if whole {
                let cond = self.bounds(&fixed)?;
                let v = self.load_chunks(buffer, index, cond, fill)?;
                return Ok(self.loaded(d, v));
            }
            if let Motion::Affine(step) = &motion
                && step.is_broadcast_step()
            {
                let cond = self.bounds(&fixed)?;
                return self.load_broadcast(buffer, index, step, cond, fill);
            }
        }
        if moving.is_empty() || !affine {
            let v = self.load_each(buffer, index, guard, fill)?;
            return Ok(self.e.collect(d, &v));
        }
        // Affine bounds hold on all lanes when they hold on the first and the last.
        let first = self.bounds(guard)?;
        self.at_lane(self.lanes() - 1);
        let last = self.bounds(&moving)?;
        self.at_lane(0);
        let all = match (first, last) {
            (Some(a), Some(b)) => self.e.b.ins().band(a, b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => {
                let v = self.load_inside(whole, buffer, index)?;
                return Ok(self.loaded(d, v));
            }
        };
        let types = vec![chunk(d); chunks(self.lanes(), d.bits() as u32)];
        let fork = self.e.begin_fork(all, &types);
        let v = self.load_inside(whole, buffer, index)?;
        self.e.fork_else(&fork, &v);
        let none = self.outside(&fixed, &moving)?;
        let inner = self.e.begin_fork(none, &types);
        let bits = self.e.constant(bytes_dtype(d), fill);
        let bits = self.e.b.ins().splat(chunk(d), bits);
        let filled = vec![bits; types.len()];
        self.e.fork_else(&inner, &filled);
        let each = self.load_each(buffer, index, guard, fill)?;
        let each = self.each_as_chunks(d, &each);
        let v = self.e.end_fork(inner, &each);
        let v = self.e.end_fork(fork, &v);
        Ok(self.loaded(d, v))
    }

    /// Whole chunks where the step is 1, one element on all lanes where it is 0.
    fn load_broadcast(
        &mut self,
        buffer: Buf,
        index: &Ix,
        step: &Dim,
        cond: Option<Value>,
        fill: u64,
    ) -> Result<Val, Error> {
        let d = self.k.buffer(buffer).dtype;
        let types = vec![chunk(d); chunks(self.lanes(), d.bits() as u32)];
        let step = self.e.dim(step)?;
        let moves = self.e.b.ins().icmp_imm_s(IntCC::Equal, step, 1);
        let fork = self.e.begin_fork(moves, &types);
        let v = self.load_chunks(buffer, index, cond, fill)?;
        self.e.fork_else(&fork, &v);
        let (at, offset) = self.address(buffer, index)?;
        let (at, offset) = self.guarded(cond, at, offset, d, fill);
        let x = self.e.b.ins().load(chunk(d).lane_type(), element(), at, offset);
        let x = self.e.b.ins().splat(chunk(d), x);
        let v = self.e.end_fork(fork, &vec![x; types.len()]);
        Ok(self.loaded(d, v))
    }

    /// Chunks of elements that are all in bounds, as they came from memory.
    fn load_inside(&mut self, whole: bool, buffer: Buf, index: &Ix) -> Result<Vec<Value>, Error> {
        if whole {
            return self.load_chunks(buffer, index, None, 0);
        }
        let each = self.load_each(buffer, index, &[], 0)?;
        Ok(self.each_as_chunks(self.k.buffer(buffer).dtype, &each))
    }

    /// Scalars as chunks; bools stay bytes.
    fn each_as_chunks(&mut self, d: DType, each: &[Value]) -> Vec<Value> {
        match self.e.collect(bytes_dtype(d), each) {
            Val::Lanes(v) | Val::Mask(_, v) => v,
            Val::Uniform(v) => vec![v],
        }
    }

    /// Whether no lane is in bounds: a bound that is the same on all fails, or one that moves has both its ends on the
    /// same side.
    fn outside(&mut self, fixed: &[Bound], moving: &[Bound]) -> Result<Value, Error> {
        let mut none = match self.bounds(fixed)? {
            Some(all) => self.e.b.ins().bxor_imm_s(all, 1),
            None => self.e.constant(DType::Bool, 0),
        };
        for b in moving {
            let first = self.ix(&b.index)?;
            self.at_lane(self.lanes() - 1);
            let last = self.ix(&b.index)?;
            self.at_lane(0);
            let n = self.e.dim(&b.extent)?;
            let both = self.e.b.ins().band(first, last);
            let below = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, both, 0);
            let least = self.e.b.ins().smin(first, last);
            let above = self.e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, least, n);
            let out = self.e.b.ins().bor(below, above);
            none = self.e.b.ins().bor(none, out);
        }
        Ok(none)
    }

    /// Chunks as they came from memory become a value.
    fn loaded(&mut self, d: DType, v: Vec<Value>) -> Val {
        if d != DType::Bool {
            return Val::Lanes(v);
        }
        Val::Mask(8, v.into_iter().map(|v| self.e.not_zero(DType::U8, v)).collect())
    }

    fn load_each(&mut self, buffer: Buf, index: &Ix, guard: &[Bound], fill: u64) -> Result<Vec<Value>, Error> {
        let d = self.k.buffer(buffer).dtype;
        let mut out = vec![];
        for l in 0..self.lanes() {
            self.at_lane(l);
            let cond = self.bounds(guard)?;
            let (at, offset) = self.address(buffer, index)?;
            let (at, offset) = self.guarded(cond, at, offset, d, fill);
            out.push(self.load_scalar(d, at, offset));
        }
        self.at_lane(0);
        Ok(out)
    }

    fn load_chunks(&mut self, buffer: Buf, index: &Ix, cond: Option<Value>, fill: u64) -> Result<Vec<Value>, Error> {
        let d = self.k.buffer(buffer).dtype;
        let (at, offset) = self.address(buffer, index)?;
        let (at, offset) = self.guarded(cond, at, offset, d, fill);
        let per = (16 / d.bytes()) as u32;
        let mut out = vec![];
        for first in (0..self.lanes()).step_by(per as usize) {
            let offset = offset + (first as usize * d.bytes()) as i32;
            let n = per.min(self.lanes() - first);
            out.push(self.load_part(d, n, at, offset));
        }
        Ok(out)
    }

    /// A chunk of which only the first `n` lanes are there.
    fn load_part(&mut self, d: DType, n: u32, at: Value, offset: i32) -> Value {
        let ty = chunk(d);
        if n == ty.lane_count() {
            return self.e.b.ins().load(ty, element(), at, offset);
        }
        let whole = match n as usize * d.bytes() {
            4 => Some((types::I32, types::I32X4)),
            8 => Some((types::I64, types::I64X2)),
            _ => None,
        };
        if let Some((one, vector)) = whole {
            let v = self.e.b.ins().load(one, element(), at, offset);
            let v = self.e.b.ins().scalar_to_vector(vector, v);
            return self.e.bits_as(v, ty);
        }
        let bytes = d.bytes() as i32;
        let mut out = self.e.b.ins().load(ty.lane_type(), element(), at, offset);
        out = self.e.b.ins().splat(ty, out);
        for l in 1..n {
            let x = self
                .e
                .b
                .ins()
                .load(ty.lane_type(), element(), at, offset + l as i32 * bytes);
            out = self.e.b.ins().insertlane(out, x, l as u8);
        }
        out
    }

    pub fn store_lanes(&mut self, buffer: Buf, index: &Ix, v: &Val) -> Result<(), Error> {
        let d = self.k.buffer(buffer).dtype;
        let lanes = self.lanes();
        self.at_lane(0);
        match self.motion(index)? {
            Motion::Affine(s) if s.is(1) => {
                let values = if d == DType::Bool {
                    let m = self.e.mask_of(v, 8, lanes);
                    let one = self.e.int_const(mask_type(8), 1);
                    m.into_iter().map(|m| self.e.b.ins().band(m, one)).collect()
                } else {
                    self.e.chunks_of(v, d, lanes)
                };
                let (at, offset) = self.address(buffer, index)?;
                let per = (16 / d.bytes()) as u32;
                for (i, v) in values.into_iter().enumerate() {
                    let n = per.min(lanes - i as u32 * per);
                    self.store_part(d, n, v, at, offset + 16 * i as i32);
                }
            }
            Motion::Fixed => {
                // Lanes write one after the other, so the last one's value stays.
                let x = self.e.lane(v, d, lanes - 1);
                let (at, offset) = self.address(buffer, index)?;
                self.e.b.ins().store(element(), x, at, offset);
            }
            _ => {
                for l in 0..lanes {
                    self.at_lane(l);
                    let x = self.e.lane(v, d, l);
                    let (at, offset) = self.address(buffer, index)?;
                    self.e.b.ins().store(element(), x, at, offset);
                }
                self.at_lane(0);
            }
        }
        Ok(())
    }

    fn store_part(&mut self, d: DType, n: u32, v: Value, at: Value, offset: i32) {
        let ty = chunk(d);
        if n == ty.lane_count() {
            self.e.b.ins().store(element(), v, at, offset);
            return;
        }
        let vector = match n as usize * d.bytes() {
            4 => Some(types::I32X4),
            8 => Some(types::I64X2),
            _ => None,
        };
        if let Some(vector) = vector {
            let v = self.e.bits_as(v, vector);
            let x = self.e.b.ins().extractlane(v, 0);
            self.e.b.ins().store(element(), x, at, offset);
            return;
        }
        for l in 0..n {
            let x = self.e.b.ins().extractlane(v, l as u8);
            self.e
                .b
                .ins()
                .store(element(), x, at, offset + l as i32 * d.bytes() as i32);
        }
    }
}
