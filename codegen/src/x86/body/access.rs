//! Loads, stores and bounds.
//!
//! An access whose index moves by one element a lane is whole registers; one that does not move is one element for all; any
//! other is a gather. A guard that is the same on every lane chooses between the element and a fill value in memory; one that
//! moves is a mask, and lanes outside it are not touched.

use super::address::{Parts, Stream};
use super::value::{Val, held, stored};
use super::{Arg, Builder, Made};
use crate::x86::vir::{Binary, Comparison, Cond, Elem, G, GeneralOp, K, Logic, Mem, Op, Operand, Scalar, V};
use brolga_ir::index::{Bound, Ix, Reg};
use brolga_ir::loops::{Buf, Scope};
use brolga_ir::{DType, Dim};

impl Builder<'_> {
    pub(super) fn load(&mut self, buffer: Buf, index: &Ix, guard: &[Bound], fill: u64) -> Made<Val> {
        let d = self.k.buffer(buffer).dtype;
        let p = self.parts(Some(buffer), index)?;
        let bytes = d.bytes() as i64;
        let (fixed, moving) = self.guards(guard)?;
        let lanes = if p.reg.is_some() {
            Lane::Gather
        } else {
            match p.lane.as_const() {
                Some(0) => Lane::Fixed,
                Some(1) => Lane::Whole,
                Some(s) => Lane::Stride(s),
                None => return Err(format!("lanes {} elements apart", p.lane)),
            }
        };
        if let (Lane::Gather, Some((r, _))) = (&lanes, &p.reg)
            && self.vector.is_none()
        {
            return Err(format!("{r} in an address, computed in the same nest"));
        }
        if !moving.is_empty() {
            let masks = self.bounds_masks(&fixed, &moving)?;
            return self.load_masked(d, &p, &lanes, &masks, fill);
        }
        if fixed.is_empty() {
            // What the innermost loop neither moves nor writes is loaded before it.
            let kept = self.k.buffer(buffer).scope == Scope::In && !self.stored.contains(&buffer);
            let key = (
                p.stream.clone(),
                p.constant,
                p.lane.clone(),
                self.vector.map(|l| l.count),
            );
            if let Some(v) = self.loaded.get(&key) {
                return Ok(v.clone());
            }
            let moved = self
                .levels
                .len()
                .checked_sub(1)
                .is_none_or(|l| self.stride(&p.stream, l).is_some());
            let depth = self.levels.len() - usize::from(kept && !moved && lanes.is_plain());
            let v = self.early(depth, |this| {
                let place = |this: &mut Self, more: i64| {
                    let constant = p.constant.wrapping_mul(bytes).wrapping_add(more);
                    this.address(&p.stream, bytes, constant, lanes.is_plain())
                };
                match lanes {
                    Lane::Fixed => {
                        let mem = place(this, 0)?;
                        this.load_splat(d, mem)
                    }
                    Lane::Whole => {
                        let mut out = vec![];
                        for i in 0..this.registers_of(d) {
                            let mem = place(this, this.register_bytes(d) * i as i64)?;
                            out.push(this.load_part(d, mem, None)?);
                        }
                        this.as_value(d, out)
                    }
                    Lane::Stride(s) => this.collect(d, &p, s),
                    Lane::Gather => {
                        let mem = place(this, 0)?;
                        this.gather(d, mem, &p, None)
                    }
                }
            })?;
            if kept && p.reg.is_none() {
                self.loaded.insert(key, v.clone());
            }
            return Ok(v);
        }
        if !lanes.is_plain() {
            return Err("a guarded load of lanes that are apart".into());
        }
        // The element, or the fill value.
        let count = self.vector.map_or(1, |l| l.count as usize);
        let pattern = fill.to_le_bytes()[..d.bytes()].repeat(count);
        let place = self.f.pool.place(&pattern);
        let constant = p.constant.wrapping_mul(bytes);
        let mem = self.address(&p.stream, bytes, constant, true)?;
        let (at, instead) = (self.f.lea(mem), self.f.lea(Mem::pool(place)));
        for b in &fixed {
            self.unless_inside(b, at, instead)?;
        }
        match lanes {
            Lane::Fixed => self.load_splat(d, Mem::at(at, 0)),
            _ => {
                let mut out = vec![];
                for i in 0..self.registers_of(d) {
                    let more = self.register_bytes(d) as i32 * i as i32;
                    out.push(self.load_part(d, Mem::at(at, more), None)?);
                }
                self.as_value(d, out)
            }
        }
    }

    /// `dst = instead` where a bound does not hold.
    fn unless_inside(&mut self, b: &Bound, dst: G, instead: G) -> Made<()> {
        let i = self.value(&b.index)?;
        let n = self.bound(&b.extent);
        self.f.push(Op::CopyIf {
            cond: Cond::NotBelow,
            a: i,
            b: n,
            dst,
            src: instead,
        });
        Ok(())
    }

    /// An extent, at least 0, as an operand.
    fn bound(&mut self, d: &Dim) -> Scalar {
        if d.is_nonnegative() {
            return self.number(d);
        }
        let at = self.arg(Arg::Extent(d.clone()));
        Scalar::Mem(Mem::at(self.at, at))
    }

    /// Registers of a value with lanes.
    fn registers_of(&self, d: DType) -> usize {
        self.units() * self.parts_of(d)
    }

    /// Bytes of memory that one of them is.
    fn register_bytes(&self, d: DType) -> i64 {
        i64::from(self.part(d).lanes) * d.bytes() as i64
    }

    /// One register of elements, as they are held; bools as bytes in lanes of 32 bits.
    fn load_part(&mut self, d: DType, mem: Mem, mask: Option<K>) -> Made<V> {
        let ty = self.part(d);
        if stored(d) == ty.elem {
            return Ok(self.f.load(ty, mem, mask));
        }
        let from = ty.of(stored(d));
        let src = match mask {
            None => Operand::Mem(mem),
            Some(_) if !self.f.isa.is_evex() => return Err(format!("a masked load of {d}")),
            Some(_) => Operand::Reg(self.f.load(from, mem, mask)),
        };
        Ok(self.f.convert(from, ty.elem, src))
    }

    /// What was loaded, as a value.
    fn as_value(&mut self, d: DType, v: Vec<V>) -> Made<Val> {
        if d != DType::Bool {
            return Ok(Val::Lanes(v));
        }
        let ty = self.part(d);
        let mut masks = vec![];
        for v in v {
            masks.push(self.not_zero(ty, v)?);
        }
        Ok(Val::Masks(masks))
    }

    fn not_zero(&mut self, ty: crate::x86::vir::Type, v: V) -> Made<K> {
        let zero = self.f.zero();
        self.compare(Comparison::Ne, ty, v, Operand::Reg(zero))
    }

    /// One element on every lane.
    pub(super) fn load_splat(&mut self, d: DType, mem: Mem) -> Made<Val> {
        let ty = self.whole(d);
        let from = ty.of(stored(d));
        let v = self.f.broadcast(from, mem);
        if d == DType::Bool {
            let v = self.f.convert(from, ty.elem, Operand::Reg(v));
            return Ok(Val::SplatMask(self.not_zero(ty, v)?));
        }
        if stored(d) == ty.elem {
            return Ok(Val::Splat(v));
        }
        Ok(Val::Splat(self.f.convert(from, ty.elem, Operand::Reg(v))))
    }

    /// Lanes a known distance apart, one by one: two instructions of a gather's four times as many.
    fn collect(&mut self, d: DType, p: &Parts, stride: i64) -> Made<Val> {
        let ty = self.part(d);
        if stored(d) != ty.elem || ty.elem.bytes() < 4 || ty.bytes() < 16 {
            return Err(format!("lanes of {d} that are apart"));
        }
        let bytes = i64::from(ty.elem.bytes());
        let quarter = ty.elem.by((16 / bytes) as u8);
        let mut lane = 0i64;
        let mut out = vec![];
        for _ in 0..self.registers_of(d) {
            let mut pieces = vec![];
            for _ in 0..ty.lanes / quarter.lanes {
                let mut piece: Option<V> = None;
                for l in 0..quarter.lanes {
                    let constant = p.constant.wrapping_add(lane.wrapping_mul(stride)).wrapping_mul(bytes);
                    let mem = self.address(&p.stream, bytes, constant, true)?;
                    piece = Some(match piece {
                        None => self.f.load(ty.elem.by(1), mem, None),
                        Some(src) => {
                            let dst = self.f.vector();
                            self.f.push(Op::Insert {
                                ty: quarter,
                                dst,
                                src,
                                mem,
                                lane: l,
                            });
                            dst
                        }
                    });
                    lane += 1;
                }
                pieces.extend(piece);
            }
            let mut half = quarter;
            while pieces.len() > 1 {
                let mut whole = vec![];
                for pair in pieces.chunks(2) {
                    let dst = self.f.vector();
                    let (low, high) = (pair[0], pair[1]);
                    self.f.push(Op::Join {
                        ty: half,
                        dst,
                        low,
                        high,
                    });
                    whole.push(dst);
                }
                pieces = whole;
                half = half.elem.by(2 * half.lanes);
            }
            out.extend(pieces);
        }
        self.as_value(d, out)
    }

    /// Lanes apart, from an address without an index; under masks, of which there is one a unit.
    fn gather(&mut self, d: DType, mem: Mem, p: &Parts, masks: Option<&[K]>) -> Made<Val> {
        let ty = self.part(d);
        if stored(d) != ty.elem || ty.elem.bytes() < 4 {
            return Err(format!("lanes of {d} that are apart"));
        }
        let bytes = ty.elem.bytes();
        let parts = self.parts_of(d);
        let indices = match &p.reg {
            None => None,
            Some((r, c)) if c.is(1) && p.lane.is(0) => match self.read(*r)? {
                Val::Lanes(v) => Some(v),
                _ => return Err(format!("{r} in an address")),
            },
            Some((r, _)) => return Err(format!("a multiple of {r} in an address")),
        };
        let mut out = vec![];
        for i in 0..self.registers_of(d) {
            let (index, wide, ty, halves) = match &indices {
                // Indices of 64 bits lie in two registers where data of 32 bits lie in one.
                Some(v) if v.len() == self.registers_of(d) => (v[i], true, ty, None),
                Some(v) => {
                    let half = ty.elem.by(ty.lanes / 2);
                    (v[2 * i], true, half, Some(v[2 * i + 1]))
                }
                None => {
                    let s = p.lane.as_const().ok_or("lanes an unknown distance apart")?;
                    let first = i as i64 * i64::from(ty.lanes);
                    let numbers = (0..i64::from(ty.lanes)).map(|l| (first + l).wrapping_mul(s));
                    let mut bytes = vec![];
                    for n in numbers {
                        bytes.extend(i32::try_from(n).map_err(|_| "lanes far apart")?.to_le_bytes());
                    }
                    let place = self.f.pool.place(&bytes);
                    let index = self.f.load(Elem::I32.by(ty.lanes), Mem::pool(place), None);
                    (index, false, ty, None)
                }
            };
            let k = match masks {
                None => None,
                Some(k) => Some(self.part_mask(k[i / parts], i % parts, parts, false)),
            };
            if halves.is_some() && k.is_some() {
                return Err("a guarded load at places from data".into());
            }
            let one = |this: &mut Self, index: V| -> V {
                let mask = this.f.mask();
                match k {
                    Some(src) => this.f.push(Op::MoveMask { dst: mask, src }),
                    None => this.f.push(Op::FillMask { dst: mask, all: true }),
                }
                let dst = this.f.vector();
                this.f.push(Op::Gather {
                    ty,
                    dst,
                    mem,
                    index,
                    scale: bytes as u8,
                    wide,
                    mask,
                });
                dst
            };
            let low = one(self, index);
            out.push(match halves {
                None => low,
                Some(index) => {
                    let high = one(self, index);
                    let dst = self.f.vector();
                    self.f.push(Op::Join { ty, dst, low, high });
                    dst
                }
            });
        }
        self.as_value(d, out)
    }

    fn load_masked(&mut self, d: DType, p: &Parts, lanes: &Lane, masks: &[K], fill: u64) -> Made<Val> {
        let bytes = d.bytes() as i64;
        let parts = self.parts_of(d);
        let constant = p.constant.wrapping_mul(bytes);
        let loaded = match lanes {
            Lane::Whole => {
                let mut out = vec![];
                for i in 0..self.registers_of(d) {
                    let more = self.register_bytes(d) * i as i64;
                    let mem = self.address(&p.stream, bytes, constant.wrapping_add(more), true)?;
                    let k = self.part_mask(masks[i / parts], i % parts, parts, false);
                    out.push(self.load_part(d, mem, Some(k))?);
                }
                self.as_value(d, out)?
            }
            Lane::Stride(_) | Lane::Gather => {
                let mem = self.address(&p.stream, bytes, constant, false)?;
                self.gather(d, mem, p, Some(masks))?
            }
            Lane::Fixed => {
                // One element, which is read where any lane wants it.
                return Err("one element under bounds that move".into());
            }
        };
        if fill == 0 {
            return Ok(loaded);
        }
        if d == DType::Bool {
            return Err("a guarded load of bools that are true outside".into());
        }
        self.choose(d, &Val::Masks(masks.to_vec()), &loaded, &Val::Const(fill))
    }

    /// Bounds that are the same on every lane, and those that move.
    fn guards(&self, guard: &[Bound]) -> Made<(Vec<Bound>, Vec<Bound>)> {
        let (mut fixed, mut moving) = (vec![], vec![]);
        for b in guard {
            let index = self.settled(&b.index);
            if let (Some(i), Some(n)) = (index.as_const(), b.extent.as_const())
                && (0..n).contains(&i)
            {
                continue;
            }
            let p = self.parts(None, &b.index)?;
            if p.reg.is_some() {
                return Err("bounds of an index from data".into());
            }
            match p.lane.is(0) {
                true => fixed.push(b.clone()),
                false => moving.push(b.clone()),
            }
        }
        Ok((fixed, moving))
    }

    /// The lanes of which all bounds hold: from a first one on, before a last one.
    fn bounds_masks(&mut self, fixed: &[Bound], moving: &[Bound]) -> Made<Vec<K>> {
        let lanes = self.vector.map_or(1, |l| l.count);
        let unit = self.unit();
        let mut all: Option<Vec<K>> = None;
        let mut fixed = fixed;
        for b in moving {
            let p = self.parts(None, &b.index)?;
            if !p.lane.is(1) {
                let masks = self.bound_by_lanes(b, &p)?;
                all = Some(self.both(all, masks));
                continue;
            }
            let mem = self.address(&p.stream, 1, p.constant, true)?;
            let first = self.f.lea(mem);
            let clamp = |this: &mut Self, g: G| {
                for (cond, limit) in [(Cond::Lt, 0), (Cond::Gt, lanes)] {
                    let src = this.f.general();
                    this.f.push(Op::Imm {
                        dst: src,
                        value: limit.into(),
                    });
                    this.f.push(Op::CopyIf {
                        cond,
                        a: g,
                        b: Scalar::Imm(limit as i32),
                        dst: g,
                        src,
                    });
                }
            };
            // Lanes before `low` are below the bound, those from `high` on above it.
            let (low, high) = (self.f.general(), self.f.general());
            self.f.push(Op::Imm { dst: low, value: 0 });
            self.f.general_op(GeneralOp::Sub, low, Scalar::Reg(first));
            let n = self.bound(&b.extent);
            match n {
                Scalar::Imm(value) => self.f.push(Op::Imm {
                    dst: high,
                    value: value.into(),
                }),
                Scalar::Mem(mem) => self.f.push(Op::LoadGeneral { dst: high, mem }),
                Scalar::Reg(src) => self.f.push(Op::Copy { dst: high, src }),
            }
            self.f.general_op(GeneralOp::Sub, high, Scalar::Reg(first));
            clamp(self, low);
            clamp(self, high);
            // Where one that does not move fails, no lane is inside.
            if !fixed.is_empty() {
                let zero = self.f.general();
                self.f.push(Op::Imm { dst: zero, value: 0 });
                for b in std::mem::take(&mut fixed) {
                    self.unless_inside(b, high, zero)?;
                }
            }
            let mut masks = vec![];
            for u in 0..self.units() {
                let skip = u as u8 * unit;
                let before = self.f.first_lanes(low, skip);
                let inside = self.f.first_lanes(high, skip);
                masks.push(self.f.logic(Logic::AndNot, before, inside));
            }
            all = Some(self.both(all, masks));
        }
        if !fixed.is_empty() {
            let holds = self.all_inside(fixed)?;
            let masks = vec![holds; self.units()];
            all = Some(self.both(all, masks));
        }
        all.ok_or_else(|| "bounds without one that moves".into())
    }

    fn both(&mut self, all: Option<Vec<K>>, masks: Vec<K>) -> Vec<K> {
        match all {
            None => masks,
            Some(all) => (all.iter().zip(masks))
                .map(|(a, b)| self.f.logic(Logic::And, *a, b))
                .collect(),
        }
    }

    /// A bound whose index moves by other steps, compared lane by lane.
    fn bound_by_lanes(&mut self, b: &Bound, p: &Parts) -> Made<Vec<K>> {
        let index = self.index_lanes(&p.stream, p.constant, &p.lane)?;
        let n = match self.bound(&b.extent) {
            Scalar::Imm(i) => Val::Const(i as i64 as u64),
            Scalar::Mem(mem) => self.load_splat(DType::I64, mem)?,
            Scalar::Reg(_) => return Err("a bound in a register".into()),
        };
        match self.prim(brolga_ir::scalar::Prim::Lt, DType::U64, &[index, n])? {
            Val::Masks(k) => Ok(k),
            _ => Err("a bound that does not move".into()),
        }
    }

    /// The value of an index.
    pub(super) fn index(&mut self, e: &Ix) -> Made<Val> {
        let p = self.parts(None, e)?;
        if p.reg.is_some() {
            return Err("an index from data as a number".into());
        }
        if p.lane.is(0) {
            let src = self.value(e)?;
            return Ok(Val::Splat(self.splat_general(src)));
        }
        self.index_lanes(&p.stream, p.constant, &p.lane)
    }

    fn splat_general(&mut self, src: G) -> V {
        let (ty, dst) = (self.f.whole(Elem::I64), self.f.vector());
        self.f.push(Op::SplatGeneral { ty, dst, src });
        dst
    }

    fn index_lanes(&mut self, s: &Stream, constant: i64, lane: &Dim) -> Made<Val> {
        let step = lane
            .as_const()
            .ok_or("an index that moves an unknown distance a lane")?;
        let mem = self.address(s, 1, constant, true)?;
        let first = self.f.lea(mem);
        let first = self.splat_general(first);
        let ty = self.part(DType::I64);
        let mut out = vec![];
        for i in 0..self.registers_of(DType::I64) {
            let numbers = (0..i64::from(ty.lanes)).map(|l| (i as i64 * i64::from(ty.lanes) + l).wrapping_mul(step));
            let bytes: Vec<u8> = numbers.flat_map(i64::to_le_bytes).collect();
            let place = self.f.pool.place(&bytes);
            out.push(self.f.binary(Binary::Add, ty, first, Operand::Mem(Mem::pool(place))));
        }
        Ok(Val::Lanes(out))
    }

    pub(super) fn in_bounds(&mut self, bounds: &[Bound]) -> Made<Val> {
        let (fixed, moving) = self.guards(bounds)?;
        if !moving.is_empty() {
            return Ok(Val::Masks(self.bounds_masks(&fixed, &moving)?));
        }
        if fixed.is_empty() {
            return Ok(Val::Const(1));
        }
        Ok(Val::SplatMask(self.all_inside(&fixed)?))
    }

    /// Every lane where bounds that do not move hold.
    fn all_inside(&mut self, fixed: &[Bound]) -> Made<K> {
        let (holds, zero, dst) = (self.f.general(), self.f.general(), self.f.mask());
        self.f.push(Op::Imm { dst: holds, value: 1 });
        self.f.push(Op::Imm { dst: zero, value: 0 });
        for b in fixed {
            self.unless_inside(b, holds, zero)?;
        }
        self.f.push(Op::SplatMask { dst, src: holds });
        Ok(dst)
    }

    pub(super) fn store(&mut self, buffer: Buf, index: &Ix, value: Reg) -> Made<()> {
        let d = self.k.buffer(buffer).dtype;
        let v = self.read(value)?;
        let p = self.parts(Some(buffer), index)?;
        if p.reg.is_some() {
            return Err("a store at a place from data".into());
        }
        let bytes = d.bytes() as i64;
        let constant = p.constant.wrapping_mul(bytes);
        if self.vector.is_none() {
            let mem = self.address(&p.stream, bytes, constant, true)?;
            return self.store_scalar(d, &v, mem);
        }
        match p.lane.as_const() {
            Some(1) => {}
            Some(0) if matches!(v, Val::Const(_) | Val::Splat(_)) => {
                let mem = self.address(&p.stream, bytes, constant, true)?;
                return self.store_scalar(d, &v, mem);
            }
            _ => return Err(format!("a store of lanes {} elements apart", p.lane)),
        }
        let ty = self.part(d);
        let n = self.registers_of(d);
        let registers = if d == DType::Bool {
            let masks = self.masks(&v)?;
            let mut out = vec![];
            for u in 0..n {
                out.push(self.bytes_of(masks[u.min(masks.len() - 1)], ty));
            }
            out
        } else {
            let sources = self.registers(d, &v, n, true)?;
            sources.into_iter().map(|s| self.register(ty, s)).collect()
        };
        for (i, v) in registers.into_iter().enumerate() {
            let more = self.register_bytes(d) * i as i64;
            let mem = self.address(&p.stream, bytes, constant.wrapping_add(more), true)?;
            let (to, src) = if stored(d) == ty.elem {
                (ty, v)
            } else {
                (ty.of(stored(d)), self.f.convert(ty, stored(d), Operand::Reg(v)))
            };
            self.f.push(Op::Store {
                ty: to,
                mem,
                src,
                mask: None,
            });
        }
        Ok(())
    }

    /// A mask as 0 and 1 in lanes of 32 bits.
    fn bytes_of(&mut self, k: K, ty: crate::x86::vir::Type) -> V {
        let (one, zero) = (self.f.constant_register(ty, 1), self.f.zero());
        self.f.select(ty, k, one, zero)
    }

    pub(super) fn store_scalar(&mut self, d: DType, v: &Val, mem: Mem) -> Made<()> {
        let src = match v {
            Val::SplatMask(_) | Val::Const(_) if d == DType::Bool => {
                let k = self.masks(v)?[0];
                let ty = self.whole(d);
                self.bytes_of(k, ty)
            }
            Val::Lanes(_) | Val::Masks(_) => return Err("lanes where one value is stored".into()),
            _ => self.first(d, v)?,
        };
        // The low bytes of a lane are the element.
        let ty = held(d).by(1).of(stored(d));
        self.f.push(Op::StoreLane { ty, mem, src });
        Ok(())
    }
}

/// How an index moves over the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Fixed,
    Whole,
    Stride(i64),
    /// By a register.
    Gather,
}

impl Lane {
    /// Whether it is an address with an index register like any other.
    fn is_plain(self) -> bool {
        matches!(self, Lane::Fixed | Lane::Whole)
    }
}
