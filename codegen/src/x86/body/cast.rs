//! Conversions between dtypes.
//!
//! Invariant: as [`Prim::Cast`] says: floats become integers by truncation, what does not fit becomes the nearest end, and NaN 0.
//! The instructions give a value of their own for all of these, which is put right by comparisons.

use super::value::{Val, held};
use super::{Builder, Made};
use crate::x86::vir::{Binary, Comparison, Elem, Op, Operand, Shift, Type, V};
use brolga_ir::DType;

impl Builder<'_> {
    pub(super) fn bitcast(&mut self, from: DType, to: DType, v: &Val) -> Made<Val> {
        if from.bits() < 32 && (from.is_half() != to.is_half()) {
            return Err(format!("the bits of {from} as {to}"));
        }
        if from.bits() >= 32 || from.is_half() {
            return Ok(v.clone());
        }
        self.each(from, to, v, &mut |this, v, ty| Ok(this.normal(to, ty, v)))
    }

    /// The same of every register, where their number stays.
    fn each(
        &mut self,
        from: DType,
        to: DType,
        v: &Val,
        one: &mut dyn FnMut(&mut Self, V, Type) -> Made<V>,
    ) -> Made<Val> {
        let depth = self.depth(v);
        match v {
            Val::Lanes(v) => {
                let ty = self.part(from);
                debug_assert_eq!(self.parts_of(from), self.parts_of(to));
                self.early(depth, |this| {
                    let out: Made<Vec<V>> = v.iter().map(|v| one(this, *v, ty)).collect();
                    Ok(Val::Lanes(out?))
                })
            }
            _ => {
                let v = self.splat(from, v)?;
                let ty = self.whole(from);
                self.early(depth, |this| Ok(Val::Splat(one(this, v, ty)?)))
            }
        }
    }

    pub(super) fn cast(&mut self, from: DType, to: DType, v: &Val) -> Made<Val> {
        if from == to {
            return Ok(v.clone());
        }
        if from == DType::Bool {
            let one = match to {
                DType::F64 => 1f64.to_bits(),
                DType::F32 => u64::from(1f32.to_bits()),
                DType::F16 => 0x3c00,
                DType::BF16 => 0x3f80,
                _ => 1,
            };
            return self.choose(to, v, &Val::Const(one), &Val::Const(0));
        }
        if to == DType::Bool {
            return self.truth(from, v);
        }
        // 16-bit floats by way of f32.
        if to.is_half() && from != DType::F32 {
            let v = self.cast(from, DType::F32, v)?;
            return self.cast(DType::F32, to, &v);
        }
        if from.is_half() && to != DType::F32 {
            let v = self.cast(from, DType::F32, v)?;
            return self.cast(DType::F32, to, &v);
        }
        let depth = self.depth(v);
        match v {
            Val::Lanes(v) => {
                let (unit, parts) = (self.unit(), self.parts_of(from));
                self.early(depth, |this| {
                    let mut out = vec![];
                    for unit_parts in v.chunks(parts) {
                        out.extend(this.unit_cast(from, to, unit_parts, unit)?);
                    }
                    Ok(Val::Lanes(out))
                })
            }
            _ => {
                let v = self.splat(from, v)?;
                // A whole unit of the value, of which the first part says all.
                let unit = self.f.isa.lanes() as u8;
                let parts = if held(from).bytes() == 8 { 2 } else { 1 };
                self.early(depth, |this| {
                    let out = this.unit_cast(from, to, &vec![v; parts], unit)?;
                    Ok(Val::Splat(out[0]))
                })
            }
        }
    }

    /// Whether lanes are not zero, NaN included.
    fn truth(&mut self, from: DType, v: &Val) -> Made<Val> {
        if !from.is_half() {
            return self.prim(brolga_ir::scalar::Prim::Ne, from, &[v.clone(), Val::Const(0)]);
        }
        let Val::Lanes(v) = v else {
            return Err(format!("one {from} as a bool"));
        };
        let ty = self.part(from);
        let mut masks = vec![];
        for v in v {
            let wide = self.f.convert(ty, Elem::I32, Operand::Reg(*v));
            let ty = ty.of(Elem::I32);
            let rest = self.f.constant(ty, 0x7fff);
            let magnitude = self.f.binary(Binary::And, ty, wide, rest);
            let zero = self.f.zero();
            masks.push(self.compare(Comparison::Ne, ty, magnitude, Operand::Reg(zero))?);
        }
        Ok(Val::Masks(masks))
    }

    /// The parts of a unit as those of another dtype.
    fn unit_cast(&mut self, from: DType, to: DType, v: &[V], unit: u8) -> Made<Vec<V>> {
        let evex = self.f.isa.is_evex();
        let no = || Err(format!("a cast of {from} to {to}"));
        let (a, b) = (held(from), held(to));
        let whole = self.f.isa.bytes();
        let parts = |e: Elem| (e.bytes() * u32::from(unit)).div_ceil(whole) as u8;
        let (ta, tb) = (a.by(unit / parts(a)), b.by(unit / parts(b)));
        let small = |d: DType| !d.is_float() && d.bits() < 32;
        match (from, to) {
            (DType::BF16, _) => {
                let wide = self.f.convert(ta, Elem::I32, Operand::Reg(v[0]));
                Ok(vec![self.shift(Shift::Left, ta.of(Elem::I32), wide, 16)])
            }
            (DType::F16, _) if evex => Ok(vec![self.f.convert(ta.of(Elem::F16), Elem::F32, Operand::Reg(v[0]))]),
            (_, DType::F16) if evex => Ok(vec![self.f.convert(ta, Elem::F16, Operand::Reg(v[0]))]),
            (_, DType::BF16) => {
                let bits = self.rounded(ta.of(Elem::I32), v[0]);
                Ok(vec![self.f.convert(ta.of(Elem::I32), Elem::U16, Operand::Reg(bits))])
            }
            (DType::F16, _) | (_, DType::F16) => no(),
            (DType::F32 | DType::F64, _) if small(to) => self.saturated(to, ta, tb, v),
            (DType::F32, DType::U32) | (DType::F64, DType::U32 | DType::U64) | (DType::F32, DType::U64) if evex => {
                // What is below zero, and NaN, is zero; above all, the instruction gives all ones.
                let zero = self.f.zero();
                let not_less: Vec<V> = v
                    .iter()
                    .map(|v| self.f.binary(Binary::Max, ta, *v, Operand::Reg(zero)))
                    .collect();
                self.converted(ta, tb, &not_less, None)
            }
            (DType::F32 | DType::F64, DType::I32) if evex || from == DType::F32 => {
                self.converted(ta, tb, v, Some(i32::MAX as u64))
            }
            (DType::F32 | DType::F64, DType::I64) if evex => self.converted(ta, tb, v, Some(i64::MAX as u64)),
            (DType::F32, DType::F64) | (DType::F64, DType::F32) => self.converted(ta, tb, v, None),
            (DType::F32 | DType::F64, _) => no(),
            (_, DType::F32 | DType::F64) => {
                let signed = a == Elem::I32;
                if !evex && !signed {
                    return no();
                }
                self.converted(ta, tb, v, None)
            }
            _ => {
                let wide = match (ta.elem.bytes(), tb.elem.bytes()) {
                    (4, 4) | (8, 8) => v.to_vec(),
                    _ => self.converted(ta, tb, v, None)?,
                };
                if a.bytes() == 4 && !small(to) {
                    return Ok(wide);
                }
                Ok(wide.into_iter().map(|v| self.normal(to, tb, v)).collect())
            }
        }
    }

    fn shift(&mut self, op: Shift, ty: Type, a: V, by: u8) -> V {
        let dst = self.f.vector();
        self.f.push(Op::Shift { op, ty, dst, a, by });
        dst
    }

    /// Floats as integers of 8 or 16 bits: bounded first, so that all of them fit.
    fn saturated(&mut self, to: DType, from: Type, into: Type, v: &[V]) -> Made<Vec<V>> {
        let bits = to.bits() as u32;
        let (low, high) = if to.is_signed() {
            (-1i32 << (bits - 1), (1i32 << (bits - 1)) - 1)
        } else {
            (0, (1i32 << bits) - 1)
        };
        let number = |x: i32| match from.elem {
            Elem::F64 => f64::from(x).to_bits(),
            _ => u64::from((x as f32).to_bits()),
        };
        let mut bounded = vec![];
        for &v in v {
            let mut v = v;
            // The larger of NaN and the least number is the latter, which for integers without a sign is 0 as it should be.
            if low < 0 {
                let nan = self.f.compare(Comparison::Unordered, from, v, Operand::Reg(v));
                let zero = self.f.zero();
                v = self.f.select(from, nan, zero, v);
            }
            for (op, end) in [(Binary::Max, low), (Binary::Min, high)] {
                let end = self.f.constant(from, number(end));
                v = self.f.binary(op, from, v, end);
            }
            bounded.push(v);
        }
        self.converted(from, into, &bounded, None)
    }

    /// Parts by the instruction; `most` is the largest integer, for floats that may not fit.
    fn converted(&mut self, from: Type, to: Type, v: &[V], most: Option<u64>) -> Made<Vec<V>> {
        // As many lanes as the fuller of the two registers has.
        let lanes = from.lanes.min(to.lanes);
        let (a, b) = (from.elem.by(lanes), to.elem.by(lanes));
        let mut pieces = vec![];
        for v in v {
            pieces.push(*v);
            if lanes < from.lanes {
                let dst = self.f.vector();
                self.f.push(Op::High { ty: a, dst, src: *v });
                pieces.push(dst);
            }
        }
        let mut out = vec![];
        for v in pieces {
            let r = self.f.convert(a, b.elem, Operand::Reg(v));
            let Some(most) = most else {
                out.push(r);
                continue;
            };
            // 2^31 or 2^63, from which on nothing fits.
            let limit = match (a.elem, b.elem.bytes()) {
                (Elem::F64, n) => f64::powi(2.0, 8 * n as i32 - 1).to_bits(),
                (_, n) => u64::from(f32::powi(2.0, 8 * n as i32 - 1).to_bits()),
            };
            let limit = self.f.constant_register(a, limit);
            let over = self.f.compare(Comparison::Le, a, limit, Operand::Reg(v));
            let most = self.f.constant_register(b, most);
            let r = self.f.select(b, over, most, r);
            let nan = self.f.compare(Comparison::Unordered, a, v, Operand::Reg(v));
            let zero = self.f.zero();
            out.push(self.f.select(b, nan, zero, r));
        }
        if lanes < to.lanes {
            let mut whole = vec![];
            for pair in out.chunks(2) {
                let dst = self.f.vector();
                let (low, high) = (pair[0], pair[pair.len() - 1]);
                self.f.push(Op::Join { ty: b, dst, low, high });
                whole.push(dst);
            }
            out = whole;
        }
        Ok(out)
    }

    /// The bits of f32 rounded to those of bf16, to nearest even, in the low halves of lanes.
    fn rounded(&mut self, ty: Type, v: V) -> V {
        let unsigned = ty.of(Elem::U32);
        let op = |this: &mut Self, op: Binary, a: V, c: u64| {
            let c = this.f.constant(ty, c);
            this.f.binary(op, ty, a, c)
        };
        let magnitude = op(self, Binary::And, v, 0x7fff_ffff);
        let sign = self.f.binary(Binary::Xor, ty, v, Operand::Reg(magnitude));
        let sign = self.shift(Shift::Right, unsigned, sign, 16);
        let odd = self.shift(Shift::Right, unsigned, magnitude, 16);
        let odd = op(self, Binary::And, odd, 1);
        let up = op(self, Binary::Add, magnitude, 0x7fff);
        let up = self.f.binary(Binary::Add, ty, up, Operand::Reg(odd));
        let result = self.shift(Shift::Right, unsigned, up, 16);
        let infinity = self.f.constant_register(ty, 255 << 23);
        let is_nan = self.f.compare(Comparison::Lt, ty, infinity, Operand::Reg(magnitude));
        let nan = self.f.constant_register(ty, 0x7fc0);
        let result = self.f.select(ty, is_nan, nan, result);
        self.f.binary(Binary::Or, ty, result, Operand::Reg(sign))
    }
}
