//! Values, and registers that are assigned again.
//!
//! The lanes of a vector loop stand in *units* of as many lanes as a machine register has of 32 bits (or as the loop has, if
//! those are fewer). A unit of 64-bit lanes is two registers, its *parts*; a unit of a bool is one mask.

use super::{Builder, Made};
use crate::x86::vir::{Class, Elem, K, Logic, Mem, Op, Operand, Role, Type, V};
use brolga_ir::DType;
use brolga_ir::index::Reg;
use brolga_ir::loops::Expr;

/// A register's value.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// The same bits on every lane.
    Const(u64),
    /// The same value on every lane of a machine register.
    Splat(V),
    /// The value of one lane of a register of so many.
    At { v: V, lanes: u8, lane: u8 },
    /// The lanes of a vector loop: the parts of its units, in order.
    Lanes(Vec<V>),
    /// A bool, the same on every lane.
    SplatMask(K),
    /// A bool with lanes: a mask for each unit.
    Masks(Vec<K>),
}

/// The machine registers of a register that is assigned more than once: one for a scalar, on every lane, or those of its lanes.
#[derive(Clone, Debug)]
pub(super) enum Variable {
    Vector(Vec<V>),
    Mask(Vec<K>),
}

/// An operand in one machine register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Src {
    Const(u64),
    Reg(V),
}

/// What lanes of a dtype are held as; masks hold bools.
pub(super) fn held(d: DType) -> Elem {
    match d {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::I64 => Elem::I64,
        DType::U64 => Elem::U64,
        DType::U32 | DType::Str => Elem::U32,
        d if d.is_half() => Elem::U16,
        _ => Elem::I32,
    }
}

/// The bits of a constant as it is held.
pub(super) fn held_bits(d: DType, bits: u64) -> u64 {
    let shift = 64 - d.bits() as u32;
    match held(d) {
        Elem::I32 if d.is_signed() => u64::from(((bits << shift) as i64 >> shift) as u32),
        _ => bits,
    }
}

/// What elements of a dtype are in memory.
pub(super) fn stored(d: DType) -> Elem {
    match d {
        DType::I8 => Elem::I8,
        DType::I16 => Elem::I16,
        DType::Bool | DType::U8 => Elem::U8,
        DType::U16 => Elem::U16,
        _ => held(d),
    }
}

impl Builder<'_> {
    /// Lanes of a unit.
    pub(super) fn unit(&self) -> u8 {
        let whole = self.f.isa.lanes() as u32;
        self.vector.map_or(whole, |l| l.count.min(whole)) as u8
    }

    /// Units of the open vector loop.
    pub(super) fn units(&self) -> usize {
        self.vector
            .map_or(1, |l| l.count.div_ceil(self.f.isa.lanes() as u32) as usize)
    }

    /// Registers of a unit.
    pub(super) fn parts_of(&self, d: DType) -> usize {
        let bytes = held(d).bytes() * u32::from(self.unit());
        bytes.div_ceil(self.f.isa.bytes()) as usize
    }

    /// What an operation on one of them works on.
    pub(super) fn part(&self, d: DType) -> Type {
        held(d).by(self.unit() / self.parts_of(d) as u8)
    }

    /// What an operation on one value for all lanes works on.
    pub(super) fn whole(&self, d: DType) -> Type {
        match held(d) {
            e if e.bytes() < 4 => e.by(self.f.isa.lanes() as u8),
            e => self.f.whole(e),
        }
    }

    pub(super) fn new_variable(&mut self, d: DType, lanes: u32) -> Variable {
        let unit = self.f.isa.lanes() as u32;
        let units = if lanes > 1 { lanes.div_ceil(unit) } else { 1 };
        if d == DType::Bool {
            return Variable::Mask((0..units).map(|_| self.f.mask()).collect());
        }
        let bytes = held(d).bytes() * lanes.min(unit);
        let parts = if lanes > 1 {
            bytes.div_ceil(self.f.isa.bytes())
        } else {
            1
        };
        Variable::Vector((0..units * parts).map(|_| self.f.vector()).collect())
    }

    /// A register as its readers find it.
    pub(super) fn read(&mut self, r: Reg) -> Made<Val> {
        let info = self.k.reg(r);
        if let Some(variable) = self.variables.get(&r) {
            if info.lanes > 1 && self.vector.is_none_or(|l| l.count != info.lanes) {
                return Err(format!("{r} has {} lanes and is read by others", info.lanes));
            }
            return Ok(match (variable, info.lanes > 1) {
                (Variable::Vector(v), true) => Val::Lanes(v.clone()),
                (Variable::Vector(v), false) => Val::Splat(v[0]),
                (Variable::Mask(k), true) => Val::Masks(k.clone()),
                (Variable::Mask(k), false) => Val::SplatMask(k[0]),
            });
        }
        if let Some(v) = self.env.get(&r) {
            return Ok(v.clone());
        }
        if info.lanes > 1 {
            return Err(format!("{r} has lanes and is assigned elsewhere"));
        }
        self.given(r, info.dtype)
    }

    /// A scalar that the caller gives, read once.
    pub(super) fn given(&mut self, r: Reg, d: DType) -> Made<Val> {
        let at = self.arg(super::Arg::Register(r));
        let mem = Mem::at(self.at, at);
        let here = std::mem::take(&mut self.f.ops);
        let made = if d == DType::Bool {
            let src = self.f.load_general(mem);
            let dst = self.f.mask();
            self.f.push(Op::SplatMask { dst, src });
            Ok(Val::SplatMask(dst))
        } else {
            self.load_splat(d, mem)
        };
        let code = std::mem::replace(&mut self.f.ops, here);
        self.entry.extend(code);
        let v = made?;
        if let Val::Splat(v) = v {
            self.born.insert(v, 0);
        }
        self.env.insert(r, v.clone());
        Ok(v)
    }

    /// Assigns a register. `e` is what gave the value.
    pub(super) fn set(&mut self, r: Reg, v: Val, e: &Expr) -> Made<()> {
        let info = self.k.reg(r);
        let Some(variable) = self.variables.get(&r).cloned() else {
            let v = self.lasting(v);
            self.own(&v);
            self.env.insert(r, v);
            return Ok(());
        };
        let here = self.vector.map_or(1, |l| l.count);
        if info.lanes.max(1) != here {
            return Err(format!("{r} has {} lanes and is assigned by {here}", info.lanes));
        }
        // What only this reads may go there at once.
        let owners = match e {
            Expr::Copy(m) if self.reads.get(*m) == 1 => 1,
            _ => 0,
        };
        self.memo.clear();
        match variable {
            Variable::Vector(to) => {
                // Lanes that were picked of it are no more what they were.
                for v in self.env.values_mut() {
                    if matches!(v, Val::At { v, .. } if to.contains(v)) {
                        *v = Val::Lanes(vec![]);
                    }
                }
                let from = self.registers(info.dtype, &v, to.len(), info.lanes > 1)?;
                for (to, from) in to.iter().zip(from) {
                    match from {
                        Src::Reg(from)
                            if self.owners.get(&from).copied().unwrap_or(0) <= owners && self.redirect(from, *to) => {}
                        Src::Reg(from) => self.f.push(Op::Move { dst: *to, src: from }),
                        Src::Const(bits) => {
                            let ty = self.f.whole(held(info.dtype));
                            self.put_constant(ty, *to, bits);
                        }
                    }
                }
            }
            Variable::Mask(to) => {
                let from = self.masks(&v)?;
                for (i, to) in to.iter().enumerate() {
                    let src = from[i.min(from.len() - 1)];
                    self.f.push(Op::MoveMask { dst: *to, src });
                }
            }
        }
        Ok(())
    }

    /// Notes that a register has a value, from here on.
    fn own(&mut self, v: &Val) {
        let here = self.levels.len();
        let registers = match v {
            Val::Splat(v) | Val::At { v, .. } => std::slice::from_ref(v),
            Val::Lanes(v) => v,
            Val::Const(_) | Val::SplatMask(_) | Val::Masks(_) => return,
        };
        for v in registers {
            *self.owners.entry(*v).or_default() += 1;
            self.born.entry(*v).or_insert(here);
        }
    }

    fn put_constant(&mut self, ty: Type, dst: V, bits: u64) {
        if bits == 0 {
            return self.f.push(Op::Zero { dst });
        }
        match self.f.constant(ty, bits) {
            Operand::Broadcast(mem) => self.f.push(Op::Broadcast { ty, dst, mem }),
            Operand::Mem(mem) => self.f.push(Op::Load {
                ty,
                dst,
                mem,
                mask: None,
            }),
            Operand::Reg(src) => self.f.push(Op::Move { dst, src }),
        }
    }

    /// Lets one of the last operations write `to` instead of `from`, if nothing has touched `to` since.
    fn redirect(&mut self, from: V, to: V) -> bool {
        const LAST: usize = 12;
        if self.variable_of.contains_key(&from) {
            return false;
        }
        let last = self.f.ops.len().saturating_sub(LAST);
        for op in self.f.ops[last..].iter_mut().rev() {
            let (mut defines, mut touches, mut reads) = (false, false, false);
            op.visit(|class, n, role| {
                if class == Class::Vector {
                    defines |= V(n) == from && role == Role::Def;
                    reads |= V(n) == from && role.reads();
                    touches |= V(n) == to;
                }
            });
            if defines && !reads {
                op.visit_mut(|class, n, role| {
                    if class == Class::Vector && *n == from.0 && role.writes() {
                        *n = to.0;
                    }
                });
                return true;
            }
            // A branch may lead past what comes before it.
            if touches || reads || matches!(op, Op::Label(_)) || op.target().is_some() {
                return false;
            }
        }
        false
    }

    /// A value that does not change when a register is assigned again.
    fn lasting(&mut self, v: Val) -> Val {
        let keep = |this: &mut Self, v: &V| {
            if !this.variable_of.contains_key(v) {
                return *v;
            }
            let dst = this.f.vector();
            this.f.push(Op::Move { dst, src: *v });
            dst
        };
        let is_variable = |this: &Self, k: &K| {
            let mut masks = this.variables.values().filter_map(|v| match v {
                Variable::Mask(k) => Some(k),
                Variable::Vector(_) => None,
            });
            masks.any(|m| m.contains(k))
        };
        let keep_mask = |this: &mut Self, k: &K| {
            if !is_variable(this, k) {
                return *k;
            }
            let dst = this.f.mask();
            this.f.push(Op::MoveMask { dst, src: *k });
            dst
        };
        match v {
            Val::Splat(v) => Val::Splat(keep(self, &v)),
            Val::Lanes(v) => Val::Lanes(v.iter().map(|v| keep(self, v)).collect()),
            Val::SplatMask(k) => Val::SplatMask(keep_mask(self, &k)),
            Val::Masks(k) => Val::Masks(k.iter().map(|k| keep_mask(self, k)).collect()),
            v @ (Val::Const(_) | Val::At { .. }) => v,
        }
    }

    /// A value as `n` machine registers: its lanes, or one for all.
    pub(super) fn registers(&mut self, d: DType, v: &Val, n: usize, lanes: bool) -> Made<Vec<Src>> {
        Ok(match v {
            Val::Const(bits) => vec![Src::Const(held_bits(d, *bits)); n],
            Val::Lanes(v) if v.len() == n && lanes => v.iter().map(|v| Src::Reg(*v)).collect(),
            Val::Lanes(_) => return Err("lanes where one value is expected".into()),
            Val::Splat(v) => vec![Src::Reg(*v); n],
            Val::At { .. } => vec![Src::Reg(self.splat(d, v)?); n],
            Val::SplatMask(_) | Val::Masks(_) => return Err("a bool as a number".into()),
        })
    }

    /// A value in new registers that may be overwritten.
    pub(super) fn fresh(&mut self, d: DType, v: &Val, lanes: bool) -> Made<Val> {
        if d == DType::Bool {
            return Err("a bool of two branches".into());
        }
        let n = if lanes { self.units() * self.parts_of(d) } else { 1 };
        let mut out = vec![];
        for src in self.registers(d, v, n, lanes)? {
            let dst = self.f.vector();
            match src {
                Src::Reg(src) => self.f.push(Op::Move { dst, src }),
                Src::Const(bits) => {
                    let ty = self.whole(d);
                    self.put_constant(ty, dst, bits);
                }
            }
            out.push(dst);
        }
        Ok(if lanes { Val::Lanes(out) } else { Val::Splat(out[0]) })
    }

    /// Overwrites what [`Builder::fresh`] made.
    pub(super) fn overwrite(&mut self, d: DType, out: &Val, v: &Val) -> Made<()> {
        let (to, lanes) = match out {
            Val::Lanes(v) => (v.clone(), true),
            Val::Splat(v) => (vec![*v], false),
            _ => return Err("a value of two branches".into()),
        };
        for (dst, src) in to.iter().zip(self.registers(d, v, to.len(), lanes)?) {
            match src {
                Src::Reg(src) => self.f.push(Op::Move { dst: *dst, src }),
                Src::Const(bits) => {
                    let ty = self.whole(d);
                    self.put_constant(ty, *dst, bits);
                }
            }
        }
        Ok(())
    }

    /// A scalar on every lane of a machine register.
    pub(super) fn splat(&mut self, d: DType, v: &Val) -> Made<V> {
        match v {
            Val::Splat(v) => Ok(*v),
            Val::Const(bits) => {
                let ty = self.whole(d);
                Ok(self.f.constant_register(ty, held_bits(d, *bits)))
            }
            Val::At { .. } => {
                let src = self.first(d, v)?;
                let (ty, dst) = (self.f.whole(held(d)), self.f.vector());
                self.f.push(Op::Splat { ty, dst, src });
                Ok(dst)
            }
            _ => Err("lanes where one value is expected".into()),
        }
    }

    /// A register whose lane 0 is a scalar.
    pub(super) fn first(&mut self, d: DType, v: &Val) -> Made<V> {
        match *v {
            Val::At { v, lane: 0, .. } => Ok(v),
            Val::At { v, lanes, lane } => self.turn(held(d).by(lanes), v, lane),
            _ => self.splat(d, v),
        }
    }

    /// Picks a lane of a register that is kept across loops.
    pub(super) fn lane(&mut self, r: Reg, l: u32, d: DType) -> Made<Val> {
        let info = self.k.reg(r);
        let Some(Variable::Vector(v)) = self.variables.get(&r) else {
            return Err(format!("a lane of {r}"));
        };
        if info.lanes <= 1 {
            return Ok(Val::Splat(v[0]));
        }
        if held(d).bytes() < 4 {
            return Err(format!("a lane of {d}"));
        }
        let per = info.lanes / v.len() as u32;
        if per * held(d).bytes() < 16 {
            return Err("a lane of less than a register".into());
        }
        Ok(Val::At {
            v: v[(l / per) as usize],
            lanes: per as u8,
            lane: (l % per) as u8,
        })
    }

    /// A bool's masks, one a unit; one alone stands for all.
    pub(super) fn masks(&mut self, v: &Val) -> Made<Vec<K>> {
        match v {
            Val::Const(bits) => {
                let dst = self.f.mask();
                self.f.push(Op::FillMask { dst, all: *bits != 0 });
                Ok(vec![dst])
            }
            Val::SplatMask(k) => Ok(vec![*k]),
            Val::Masks(k) => Ok(k.clone()),
            _ => Err("a number as a bool".into()),
        }
    }

    /// The mask of a part of a unit that has `parts`.
    pub(super) fn part_mask(&mut self, k: K, part: usize, parts: usize, splat: bool) -> K {
        if parts == 1 || splat {
            return k;
        }
        let dst = self.f.mask();
        self.f.push(Op::HalfMask {
            dst,
            src: k,
            high: part == 1,
            lanes: self.unit() / 2,
        });
        dst
    }

    /// `!k`.
    pub(super) fn not(&mut self, k: K) -> K {
        let all = self.f.mask();
        self.f.push(Op::FillMask { dst: all, all: true });
        self.f.logic(Logic::AndNot, k, all)
    }
}
