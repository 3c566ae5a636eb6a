//! Primitives on lanes.
//!
//! Each is written once, for one machine register of each operand; [`Builder::prim`] runs it for every register of a value, for
//! the one register of a scalar, or for the lanes that two scalars stand in.

use super::value::{Src, Val, held, held_bits};
use super::{Builder, Made};
use crate::x86::vir::{Binary, Comparison, Elem, K, Logic, Op, Operand, Shift, Type, Unary, V};
use brolga_ir::DType;
use brolga_ir::scalar::{Prim, Scalar, eval_prim};

/// An operation whose result is known by its operands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Known {
    /// On single lanes.
    Prim(Prim, DType, [Src; 3]),
    /// On one value for all lanes.
    Splat(Prim, DType, [Src; 3]),
    Turn(V, u8),
}

/// The dtype of a primitive's result.
fn result(p: Prim, t: DType) -> DType {
    match p {
        Prim::Cast(to) | Prim::Bitcast(to) => to,
        Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le => DType::Bool,
        _ => t,
    }
}

impl Builder<'_> {
    /// A primitive over `t`, as [`Prim`] means it.
    pub(super) fn prim(&mut self, p: Prim, t: DType, args: &[Val]) -> Made<Val> {
        let constants: Option<Vec<u64>> = args
            .iter()
            .map(|v| match v {
                Val::Const(bits) => Some(*bits),
                _ => None,
            })
            .collect();
        if let Some(bits) = constants {
            let dtypes = (0..args.len()).map(|i| if p.chooses() && i == 0 { DType::Bool } else { t });
            let scalars: Vec<Scalar> = dtypes.zip(bits).map(|(dtype, bits)| Scalar { dtype, bits }).collect();
            return Ok(Val::Const(eval_prim(p, t, &scalars).bits));
        }
        match p {
            Prim::Cast(to) => return self.cast(t, to, &args[0]),
            Prim::Bitcast(to) => return self.bitcast(t, to, &args[0]),
            Prim::Select | Prim::Rarely => return self.choose(t, &args[0], &args[1], &args[2]),
            _ if t == DType::Bool => return self.bools(p, args),
            _ => {}
        }
        if args.iter().any(|v| matches!(v, Val::Lanes(_))) {
            return self.on_lanes(p, t, args);
        }
        let single = args.iter().filter_map(|v| match v {
            Val::At { lanes, lane, .. } => Some((*lanes, *lane)),
            _ => None,
        });
        let places: Vec<(u8, u8)> = single.collect();
        let first = places.first().copied();
        if let Some((lanes, lane)) = first.filter(|f| result(p, t) == t && places.iter().all(|p| p.0 == f.0)) {
            return self.on_lane(p, t, args, lanes, lane);
        }
        let mut src = [Src::Const(0); 3];
        for (s, v) in src.iter_mut().zip(args) {
            *s = self.registers(t, v, 1, false)?[0];
        }
        let depth = args.iter().map(|v| self.depth(v)).max().unwrap_or(0);
        let ty = self.f.whole(held(t));
        if result(p, t) == DType::Bool {
            let k = self.comparison(p, t, ty, src)?;
            // Of 64-bit lanes there are half as many as a mask has.
            let k = if self.f.isa.is_evex() && ty.elem.bytes() == 8 {
                let dst = self.f.mask();
                self.f.push(Op::JoinMask {
                    dst,
                    low: k,
                    high: k,
                    lanes: 8,
                });
                dst
            } else {
                k
            };
            return Ok(Val::SplatMask(k));
        }
        // The copies of an unrolled loop compute what is the same in all of them once.
        let key = Known::Splat(p, t, src);
        if let Some(v) = self.memo.get(&key) {
            return Ok(Val::Splat(*v));
        }
        let v = self.early(depth, |this| this.one(p, t, ty, src))?;
        self.memo.insert(key, v);
        Ok(Val::Splat(v))
    }

    /// On every register of values with lanes.
    fn on_lanes(&mut self, p: Prim, t: DType, args: &[Val]) -> Made<Val> {
        let n = self.units() * self.parts_of(t);
        let mut sources = vec![];
        for v in args {
            sources.push(self.registers(t, v, n, true)?);
        }
        let ty = self.part(t);
        let at = |i: usize| -> [Src; 3] { std::array::from_fn(|j| sources.get(j).map_or(Src::Const(0), |s| s[i])) };
        if result(p, t) != DType::Bool {
            let depth = args.iter().map(|v| self.depth(v)).max().unwrap_or(0);
            return self.early(depth, |this| {
                let mut out = vec![];
                for i in 0..n {
                    out.push(this.one(p, t, ty, at(i))?);
                }
                Ok(Val::Lanes(out))
            });
        }
        let mut masks = vec![];
        for i in 0..n {
            masks.push(self.comparison(p, t, ty, at(i))?);
        }
        self.joined(t, masks)
    }

    /// Masks of parts as those of units.
    fn joined(&mut self, t: DType, masks: Vec<K>) -> Made<Val> {
        if self.parts_of(t) == 1 {
            // A mask of vectors is as wide as what was compared, and all masks are of 32 bits a lane.
            if held(t).bytes() == 8 && !self.f.isa.is_evex() {
                return Err(format!("few lanes of {t} compared"));
            }
            return Ok(Val::Masks(masks));
        }
        let lanes = self.unit() / 2;
        let mut out = vec![];
        for pair in masks.chunks(2) {
            let dst = self.f.mask();
            self.f.push(Op::JoinMask {
                dst,
                low: pair[0],
                high: pair[1],
                lanes,
            });
            out.push(dst);
        }
        Ok(Val::Masks(out))
    }

    /// On one lane of registers: the operands are turned to the same lane, and all lanes computed, since the other lanes are
    /// likely to be asked for next.
    fn on_lane(&mut self, p: Prim, t: DType, args: &[Val], lanes: u8, lane: u8) -> Made<Val> {
        let ty = held(t).by(lanes);
        let mut src = [Src::Const(0); 3];
        for (s, v) in src.iter_mut().zip(args) {
            *s = match *v {
                Val::Const(bits) => Src::Const(held_bits(t, bits)),
                Val::At { v, lane: from, .. } => Src::Reg(self.turn(ty, v, (from + lanes - lane) % lanes)?),
                Val::Splat(v) => Src::Reg(v),
                _ => return Err("lanes where one value is expected".into()),
            };
        }
        let key = Known::Prim(p, t, src);
        let v = match self.memo.get(&key) {
            Some(v) => *v,
            None => {
                let v = self.one(p, t, ty, src)?;
                self.memo.insert(key, v);
                v
            }
        };
        Ok(Val::At { v, lanes, lane })
    }

    /// Lanes turned by so many.
    pub(super) fn turn(&mut self, ty: Type, src: V, by: u8) -> Made<V> {
        if by == 0 {
            return Ok(src);
        }
        if let Some(v) = self.memo.get(&Known::Turn(src, by)) {
            return Ok(*v);
        }
        let (dst, scratch) = (self.f.vector(), self.f.vector());
        self.f.push(Op::Rotate {
            ty,
            dst,
            src,
            by,
            scratch,
        });
        self.memo.insert(Known::Turn(src, by), dst);
        Ok(dst)
    }

    /// An operand in a register.
    pub(super) fn register(&mut self, ty: Type, s: Src) -> V {
        match s {
            Src::Reg(v) => v,
            Src::Const(0) => self.f.zero(),
            Src::Const(bits) => self.f.constant_register(ty, bits),
        }
    }

    /// An operand where instructions take it.
    pub(super) fn operand(&mut self, ty: Type, s: Src) -> Operand {
        match s {
            Src::Reg(v) => Operand::Reg(v),
            Src::Const(bits) => self.f.constant(ty, bits),
        }
    }

    fn binary(&mut self, op: Binary, ty: Type, a: Src, b: Src) -> V {
        let commutes = !matches!(
            op,
            Binary::Sub | Binary::Div | Binary::Shl | Binary::Shr | Binary::AndNot | Binary::Min | Binary::Max
        );
        let (a, b) = match (a, b) {
            (Src::Const(_), Src::Reg(_)) if commutes => (b, a),
            _ => (a, b),
        };
        let a = self.register(ty, a);
        let b = self.operand(ty, b);
        self.f.binary(op, ty, a, b)
    }

    /// A primitive that gives a number, in one register.
    fn one(&mut self, p: Prim, t: DType, ty: Type, [a, b, c]: [Src; 3]) -> Made<V> {
        let sign = 1u64 << (8 * ty.elem.bytes() - 1);
        let none = || Err(format!("`{}` of {t}", p.name()));
        if t.is_half() {
            return none();
        }
        if t.is_float() {
            let bits = ty.of(if ty.elem == Elem::F64 { Elem::I64 } else { Elem::I32 });
            return Ok(match p {
                Prim::Add => self.binary(Binary::Add, ty, a, b),
                Prim::Sub => self.binary(Binary::Sub, ty, a, b),
                Prim::Mul => self.binary(Binary::Mul, ty, a, b),
                Prim::Div => self.binary(Binary::Div, ty, a, b),
                Prim::Fma => self.fused(ty, a, b, c),
                Prim::Neg => self.binary(Binary::Xor, bits, a, Src::Const(sign)),
                Prim::Abs => self.binary(Binary::And, bits, a, Src::Const(sign - 1)),
                Prim::Min | Prim::Max => self.extreme(p == Prim::Max, ty, a, b)?,
                Prim::Floor => self.unary(Unary::Floor, ty, a),
                Prim::Ceil => self.unary(Unary::Ceil, ty, a),
                Prim::Trunc => self.unary(Unary::Trunc, ty, a),
                Prim::Round => self.unary(Unary::Round, ty, a),
                Prim::Sqrt => self.unary(Unary::Sqrt, ty, a),
                _ => return none(),
            });
        }
        let long = ty.elem.bytes() == 8 && !self.f.isa.is_evex();
        let signed = !ty.elem.is_unsigned();
        let v = match p {
            Prim::Add => self.binary(Binary::Add, ty, a, b),
            Prim::Sub => self.binary(Binary::Sub, ty, a, b),
            Prim::Mul if !long => self.binary(Binary::Mul, ty, a, b),
            Prim::Neg => self.binary(Binary::Sub, ty, Src::Const(0), a),
            Prim::Abs if !t.is_signed() => return Ok(self.register(ty, a)),
            Prim::Abs if !long => self.unary(Unary::Abs, ty, a),
            Prim::Min if !long => return Ok(self.binary(Binary::Min, ty, a, b)),
            Prim::Max if !long => return Ok(self.binary(Binary::Max, ty, a, b)),
            Prim::Min | Prim::Max if signed => {
                let (a, b) = (self.register(ty, a), self.register(ty, b));
                let less = self.compare(Comparison::Lt, ty, a, Operand::Reg(b))?;
                let (x, y) = if p == Prim::Min { (a, b) } else { (b, a) };
                return Ok(self.f.select(ty, less, x, y));
            }
            Prim::And => self.binary(Binary::And, ty, a, b),
            Prim::Or => self.binary(Binary::Or, ty, a, b),
            Prim::Xor => self.binary(Binary::Xor, ty, a, b),
            Prim::Not => {
                let all = u64::MAX >> (64 - 8 * ty.elem.bytes());
                self.binary(Binary::Xor, ty, a, Src::Const(all))
            }
            Prim::Shl => self.binary(Binary::Shl, ty, a, b),
            Prim::Shr if !(long && signed) => self.binary(Binary::Shr, ty, a, b),
            _ => return none(),
        };
        Ok(self.normal(t, ty, v))
    }

    /// Lanes of 32 bits that hold 8 or 16: their bits beyond are what the sign says.
    pub(super) fn normal(&mut self, t: DType, ty: Type, v: V) -> V {
        let bits = t.bits() as u8;
        if ty.elem.bytes() != 4 || bits >= 32 {
            return v;
        }
        if !t.is_signed() {
            return self.binary(Binary::And, ty, Src::Reg(v), Src::Const((1 << bits) - 1));
        }
        let (high, dst) = (self.f.vector(), self.f.vector());
        for (op, dst, a) in [(Shift::Left, high, v), (Shift::Right, dst, high)] {
            self.f.push(Op::Shift {
                op,
                ty,
                dst,
                a,
                by: 32 - bits,
            });
        }
        dst
    }

    fn unary(&mut self, op: Unary, ty: Type, a: Src) -> V {
        let a = self.operand(ty, a);
        self.f.unary(op, ty, a)
    }

    /// `a * b + c`, with a known operand in memory.
    fn fused(&mut self, ty: Type, a: Src, b: Src, c: Src) -> V {
        let (a, b) = match (a, b) {
            (Src::Const(_), Src::Reg(_)) => (b, a),
            _ => (a, b),
        };
        let a = self.register(ty, a);
        let c = self.operand(ty, c);
        let b = match (b, c.mem()) {
            (Src::Const(_), Some(_)) => Operand::Reg(self.register(ty, b)),
            _ => self.operand(ty, b),
        };
        let dst = self.f.vector();
        self.f.push(Op::MulAdd { ty, dst, a, b, c });
        dst
    }

    /// The smaller or larger float. The instruction gives its second operand where one is NaN or both are zero; so a known
    /// number comes first, and of two unknown ones both orders are joined bit by bit, which settles zeros (and NaN, for the
    /// smaller), and what is unordered is NaN.
    fn extreme(&mut self, larger: bool, ty: Type, a: Src, b: Src) -> Made<V> {
        let op = if larger { Binary::Max } else { Binary::Min };
        let number = |bits: u64| match ty.elem {
            Elem::F64 => f64::from_bits(bits),
            _ => f64::from(f32::from_bits(bits as u32)),
        };
        for (known, x) in [(a, b), (b, a)] {
            if let Src::Const(bits) = known {
                let c = number(bits);
                // min(-0, +0) would be the second, +0.
                if c.is_nan() || !larger && c == 0.0 && c.is_sign_negative() {
                    continue;
                }
                let m = self.binary(op, ty, known, x);
                // max(+0, -0) is now -0, which the addition makes +0.
                let fix = larger && c == 0.0 && c.is_sign_positive();
                return Ok(if fix {
                    self.binary(Binary::Add, ty, Src::Reg(m), known)
                } else {
                    m
                });
            }
        }
        let (a, b) = (self.register(ty, a), self.register(ty, b));
        let (m, n) = (
            self.f.binary(op, ty, a, Operand::Reg(b)),
            self.f.binary(op, ty, b, Operand::Reg(a)),
        );
        let bits = ty.of(if ty.elem == Elem::F64 { Elem::I64 } else { Elem::I32 });
        let join = if larger { Binary::And } else { Binary::Or };
        let both = self.f.binary(join, bits, m, Operand::Reg(n));
        if !larger {
            return Ok(both);
        }
        let unordered = self.f.compare(Comparison::Unordered, ty, a, Operand::Reg(b));
        let nan = self.f.constant_register(ty, u64::MAX >> (64 - 8 * ty.elem.bytes()));
        Ok(self.f.select(ty, unordered, nan, both))
    }

    /// A comparison of one register each.
    fn comparison(&mut self, p: Prim, t: DType, ty: Type, [a, b, _]: [Src; 3]) -> Made<K> {
        if t.is_half() {
            return Err(format!("`{}` of {t}", p.name()));
        }
        let op = match p {
            Prim::Eq => Comparison::Eq,
            Prim::Ne => Comparison::Ne,
            Prim::Lt => Comparison::Lt,
            Prim::Le => Comparison::Le,
            _ => return Err(format!("`{}` of {t}", p.name())),
        };
        let a = self.register(ty, a);
        let b = self.operand(ty, b);
        self.compare(op, ty, a, b)
    }

    /// `a op b`, in the forms that the level has.
    pub(super) fn compare(&mut self, op: Comparison, ty: Type, a: V, b: Operand) -> Made<K> {
        if self.f.isa.is_evex() || ty.elem.is_float() {
            return Ok(self.f.compare(op, ty, a, b));
        }
        let mut b = match b {
            Operand::Reg(v) => v,
            Operand::Mem(m) => self.f.load(ty, m, None),
            Operand::Broadcast(m) => self.f.broadcast(ty, m),
        };
        let (mut a, mut ty) = (a, ty);
        if ty.elem.is_unsigned() && !matches!(op, Comparison::Eq | Comparison::Ne) {
            // Signed order, once the top bits are flipped.
            let top = Src::Const(1 << (8 * ty.elem.bytes() - 1));
            (a, b) = (
                self.binary(Binary::Xor, ty, Src::Reg(a), top),
                self.binary(Binary::Xor, ty, Src::Reg(b), top),
            );
            ty = ty.of(if ty.elem.bytes() == 8 { Elem::I64 } else { Elem::I32 });
        }
        Ok(match op {
            Comparison::Eq | Comparison::Lt => self.f.compare(op, ty, a, Operand::Reg(b)),
            Comparison::Ne => {
                let k = self.f.compare(Comparison::Eq, ty, a, Operand::Reg(b));
                self.not(k)
            }
            Comparison::Le => {
                let k = self.f.compare(Comparison::Lt, ty, b, Operand::Reg(a));
                self.not(k)
            }
            Comparison::Unordered => return Err("integers are ordered".into()),
        })
    }

    /// `c ? a : b`.
    pub(super) fn choose(&mut self, t: DType, c: &Val, a: &Val, b: &Val) -> Made<Val> {
        if let Val::Const(bits) = c {
            return Ok(if *bits != 0 { a.clone() } else { b.clone() });
        }
        if t == DType::Bool {
            let both = self.bools(Prim::And, &[c.clone(), a.clone()])?;
            let not = self.bools(Prim::Not, std::slice::from_ref(c))?;
            let other = self.bools(Prim::And, &[not, b.clone()])?;
            return self.bools(Prim::Or, &[both, other]);
        }
        let splat = matches!(c, Val::SplatMask(_));
        let lanes = !splat || matches!(a, Val::Lanes(_)) || matches!(b, Val::Lanes(_));
        if held(t).bytes() < 4 && !self.f.isa.is_evex() {
            return Err(format!("`select` of {t}"));
        }
        if held(t).bytes() == 8 && !self.f.isa.is_evex() && !splat && self.parts_of(t) == 1 {
            return Err("few lanes of 64 bits chosen".into());
        }
        let masks = self.masks(c)?;
        let parts = self.parts_of(t);
        let (n, ty) = if lanes {
            (self.units() * parts, self.part(t))
        } else {
            (1, self.whole(t))
        };
        let (a, b) = (self.registers(t, a, n, lanes)?, self.registers(t, b, n, lanes)?);
        let mut out = vec![];
        for i in 0..n {
            let unit = if splat { 0 } else { i / parts };
            let k = self.part_mask(masks[unit], i % parts, parts, splat);
            let (a, b) = (self.register(ty, a[i]), self.register(ty, b[i]));
            out.push(self.f.select(ty, k, a, b));
        }
        Ok(if lanes { Val::Lanes(out) } else { Val::Splat(out[0]) })
    }

    fn bools(&mut self, p: Prim, args: &[Val]) -> Made<Val> {
        let mut masks = vec![];
        for v in args {
            masks.push(self.masks(v)?);
        }
        let lanes = args.iter().any(|v| matches!(v, Val::Masks(_)));
        let n = masks.iter().map(Vec::len).max().unwrap_or(1);
        let mut out = vec![];
        for i in 0..n {
            let at = |j: usize| masks[j][i.min(masks[j].len() - 1)];
            let a = at(0);
            out.push(match p {
                Prim::And => self.f.logic(Logic::And, a, at(1)),
                Prim::Or => self.f.logic(Logic::Or, a, at(1)),
                Prim::Xor | Prim::Ne => self.f.logic(Logic::Xor, a, at(1)),
                Prim::Not => self.not(a),
                Prim::Eq => {
                    let k = self.f.logic(Logic::Xor, a, at(1));
                    self.not(k)
                }
                // false < true.
                Prim::Lt => self.f.logic(Logic::AndNot, a, at(1)),
                Prim::Le => {
                    let k = self.not(a);
                    self.f.logic(Logic::Or, k, at(1))
                }
                _ => return Err(format!("`{}` of bools", p.name())),
            });
        }
        Ok(if lanes { Val::Masks(out) } else { Val::SplatMask(out[0]) })
    }
}
