//! Values of a vector loop: one for all lanes, or 128-bit chunks.
//!
//! A register of `L` lanes of `b` bits is `ceil(L / (128 / b))` chunks; lanes past `L` in the last one hold anything.
//! A bool with lanes is a **mask**: integer chunks of the width of what was compared, all ones or all zeros a lane; it is
//! narrowed or widened where it meets another width. One value for all lanes stays a scalar until a chunk is needed.
//!
//! Invariant: every primitive works on every dtype and number of lanes. What has no good SIMD form is done lane by lane by
//! the scalar emitter, so both give the same bits.

use super::emit::{CONSTANT, Emit, clif};
use crate::Error;
use brolga_ir::DType;
use brolga_ir::scalar::Prim;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{ConstantData, InstBuilder, Type, Value, types};

/// A register inside a vector loop.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    /// The same on every lane.
    Uniform(Value),
    /// Chunks of the dtype's own type.
    Lanes(Vec<Value>),
    /// A bool: masks of this many bits a lane.
    Mask(u32, Vec<Value>),
}

/// The type of a chunk.
pub(crate) fn chunk(d: DType) -> Type {
    let t = clif(d);
    t.by(128 / t.bits())
        .expect("128-bit vectors of every element type exist")
}

pub(crate) fn mask_type(bits: u32) -> Type {
    match bits {
        8 => types::I8X16,
        16 => types::I16X8,
        32 => types::I32X4,
        _ => types::I64X2,
    }
}

/// How many chunks hold `lanes` lanes of `bits` bits.
pub(crate) fn chunks(lanes: u32, bits: u32) -> usize {
    lanes.div_ceil(128 / bits) as usize
}

/// A float constant's bits, repeated to 64.
pub(crate) fn float_pattern(d: DType, c: f64) -> u64 {
    match d {
        DType::F64 => c.to_bits(),
        _ => u64::from((c as f32).to_bits()) * 0x1_0000_0001,
    }
}

/// The dtype of operand `i` of a primitive over `t`.
fn operand(p: Prim, t: DType, i: usize) -> DType {
    if p.chooses() && i == 0 { DType::Bool } else { t }
}

impl Emit<'_, '_> {
    /// A primitive in a vector loop. `t` as in [`Emit::prim`].
    pub fn prim_lanes(&mut self, p: Prim, t: DType, x: [&Val; 3], lanes: u32) -> Result<Val, Error> {
        let used = &x[..p.arity()];
        if used.iter().all(|v| matches!(v, Val::Uniform(_))) {
            let x = x.map(|v| match v {
                Val::Uniform(v) => *v,
                Val::Lanes(v) | Val::Mask(_, v) => v[0],
            });
            return Ok(Val::Uniform(self.prim(p, t, x)?));
        }
        if let Some(v) = self.simd(p, t, x, lanes) {
            return Ok(v);
        }
        let to = match p {
            Prim::Cast(to) | Prim::Bitcast(to) => to,
            Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le => DType::Bool,
            _ => t,
        };
        let mut results = vec![];
        for l in 0..lanes {
            let mut args = [None; 3];
            for (i, v) in used.iter().enumerate() {
                args[i] = Some(self.lane(v, operand(p, t, i), l));
            }
            let first = args[0].expect("every primitive has an operand");
            results.push(self.prim(p, t, args.map(|a| a.unwrap_or(first)))?);
        }
        Ok(self.collect(to, &results))
    }

    /// One lane of a value, as a scalar.
    pub fn lane(&mut self, v: &Val, d: DType, l: u32) -> Value {
        match v {
            Val::Uniform(v) => *v,
            Val::Lanes(c) => {
                let k = 128 / clif(d).bits();
                self.b.ins().extractlane(c[(l / k) as usize], (l % k) as u8)
            }
            Val::Mask(bits, c) => {
                let k = 128 / bits;
                let m = self.b.ins().extractlane(c[(l / k) as usize], (l % k) as u8);
                let m = if *bits > 8 {
                    self.b.ins().ireduce(types::I8, m)
                } else {
                    m
                };
                self.b.ins().band_imm_s(m, 1)
            }
        }
    }

    /// Chunks from scalars, one a lane.
    pub fn collect(&mut self, d: DType, scalars: &[Value]) -> Val {
        let ty = chunk(d);
        let mut out = vec![];
        for part in scalars.chunks(ty.lane_count() as usize) {
            let mut v: Option<Value> = None;
            for (l, x) in part.iter().enumerate() {
                let x = if d == DType::Bool { self.b.ins().ineg(*x) } else { *x };
                v = Some(match v {
                    None if ty.lane_bits() >= 32 => self.b.ins().scalar_to_vector(ty, x),
                    None => self.b.ins().splat(ty, x),
                    Some(v) => self.b.ins().insertlane(v, x, l as u8),
                });
            }
            out.extend(v);
        }
        if d == DType::Bool {
            Val::Mask(8, out)
        } else {
            Val::Lanes(out)
        }
    }

    /// A value's chunks; not for bools.
    pub fn chunks_of(&mut self, v: &Val, d: DType, lanes: u32) -> Vec<Value> {
        match v {
            Val::Uniform(x) => {
                let c = self.b.ins().splat(chunk(d), *x);
                vec![c; chunks(lanes, d.bits() as u32)]
            }
            Val::Lanes(c) | Val::Mask(_, c) => c.clone(),
        }
    }

    /// The same for an operand of arithmetic: a constant comes from memory where the kernel has more of them than
    /// registers. Left in registers they would be moved out of the loop, spilled there, and loaded from the stack anyway.
    fn operand_chunks(&mut self, v: &Val, d: DType, lanes: u32) -> Vec<Value> {
        if let (Val::Uniform(x), Some(table)) = (v, &self.constants)
            && let Some(c) = self.known_float(*x)
            && let Some(&offset) = table.offsets.get(&float_pattern(d, c))
        {
            let (base, copies) = (table.base, table.copies);
            let load = |i: usize| {
                let offset = offset + 16 * (i % copies) as i32;
                self.b.ins().load(chunk(d), CONSTANT, base, offset)
            };
            return (0..chunks(lanes, d.bits() as u32)).map(load).collect();
        }
        self.chunks_of(v, d, lanes)
    }

    /// A bool's masks of a width.
    pub fn mask_of(&mut self, v: &Val, bits: u32, lanes: u32) -> Vec<Value> {
        let n = chunks(lanes, bits);
        match v {
            Val::Uniform(x) => {
                let ty = mask_type(bits);
                let wide = if bits > 8 {
                    self.b.ins().uextend(ty.lane_type(), *x)
                } else {
                    *x
                };
                let m = self.b.ins().ineg(wide);
                vec![self.b.ins().splat(ty, m); n]
            }
            Val::Mask(from, c) => {
                let (mut have, mut c) = (*from, c.clone());
                while have < bits {
                    c = self.widen(&c, true);
                    have *= 2;
                }
                while have > bits {
                    c = self.narrow(&c, true);
                    have /= 2;
                }
                c.truncate(n);
                c
            }
            Val::Lanes(c) => c.clone(),
        }
    }

    /// Whether a bool holds on all lanes, as 0 or 1.
    pub fn all_lanes(&mut self, v: &Val, lanes: u32) -> Value {
        let (bits, chunks) = match v {
            Val::Uniform(x) => return *x,
            Val::Mask(bits, c) => (*bits, c.clone()),
            Val::Lanes(c) => (8, c.clone()),
        };
        let mut all: Option<Value> = None;
        for (i, chunk) in (0..).zip(chunks) {
            let mut chunk = self.bits_as(chunk, types::I8X16);
            let bytes = (lanes * bits / 8 - 16 * i).min(16) as usize;
            if bytes < 16 {
                // What lies behind the last lane does not count.
                let mut behind = [0u8; 16];
                behind[bytes..].fill(0xff);
                let c = self.b.func.dfg.constants.insert(behind.as_slice().into());
                let c = self.b.ins().vconst(types::I8X16, c);
                chunk = self.b.ins().bor(chunk, c);
            }
            all = Some(match all {
                None => chunk,
                Some(a) => self.b.ins().band(a, chunk),
            });
        }
        match all {
            Some(a) => self.b.ins().vall_true(a),
            None => self.constant(DType::Bool, 1),
        }
    }

    /// Every lane twice as wide.
    fn widen(&mut self, c: &[Value], signed: bool) -> Vec<Value> {
        c.iter()
            .flat_map(|v| {
                if signed {
                    [self.b.ins().swiden_low(*v), self.b.ins().swiden_high(*v)]
                } else {
                    [self.b.ins().uwiden_low(*v), self.b.ins().uwiden_high(*v)]
                }
            })
            .collect()
    }

    /// The low half of every lane's bits. `small`: lanes are known to fit as signed numbers.
    fn narrow(&mut self, c: &[Value], small: bool) -> Vec<Value> {
        let ty = self.type_of(c[0]);
        c.chunks(2)
            .map(|pair| {
                let (a, b) = (pair[0], pair[pair.len() - 1]);
                if ty == types::I64X2 {
                    return self.even_words(a, b);
                }
                if small {
                    return self.b.ins().snarrow(a, b);
                }
                let low = self.int_const(ty, (1 << (ty.lane_bits() / 2)) - 1);
                let (a, b) = (self.b.ins().band(a, low), self.b.ins().band(b, low));
                self.b.ins().unarrow(a, b)
            })
            .collect()
    }

    /// The 32-bit lanes 0 and 2 of `a` and then of `b`.
    fn even_words(&mut self, a: Value, b: Value) -> Value {
        let r = self.shuffle(a, b, [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27]);
        self.bits_as(r, types::I32X4)
    }

    fn shuffle(&mut self, a: Value, b: Value, bytes: [u8; 16]) -> Value {
        let (a, b) = (self.bits_as(a, types::I8X16), self.bits_as(b, types::I8X16));
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes.as_slice()));
        self.b.ins().shuffle(a, b, mask)
    }

    /// The high 64 bits, moved to the low ones.
    fn high_half(&mut self, v: Value) -> Value {
        let ty = self.type_of(v);
        let r = self.shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
        self.bits_as(r, ty)
    }

    /// The SIMD form of a primitive of which not all operands are uniform; `None` when there is no good one.
    fn simd(&mut self, p: Prim, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        use DType::*;
        match p {
            Prim::Select | Prim::Rarely => return self.select_lanes(t, x, lanes),
            Prim::Cast(to) => return self.cast_lanes(t, to, x[0], lanes),
            Prim::Bitcast(to) => {
                let c = self.chunks_of(x[0], t, lanes);
                return Some(Val::Lanes(c.into_iter().map(|v| self.bits_as(v, chunk(to))).collect()));
            }
            _ => {}
        }
        if t == Bool {
            return Some(self.bool_lanes(p, x, lanes));
        }
        let bits = t.bits() as u32;
        let unsigned64 = matches!(t, U64);
        let comparison = matches!(p, Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le);
        if !t.is_float() {
            match p {
                Prim::Div | Prim::Rem => return None,
                Prim::Mul if bits == 8 => return None,
                Prim::Shl | Prim::Shr => return self.shift_lanes(p == Prim::Shl, t, x, lanes),
                _ => {}
            }
        } else if p == Prim::Rem || p == Prim::Fma && !self.unit.target.has_fma && t == F64 {
            return None;
        }
        let arity = p.arity();
        let extreme = matches!(p, Prim::Min | Prim::Max);
        let args: Vec<Vec<Value>> = x[..arity]
            .iter()
            .map(|v| {
                // A known operand of these is worth more than its register.
                if extreme {
                    self.chunks_of(v, t, lanes)
                } else {
                    self.operand_chunks(v, t, lanes)
                }
            })
            .collect();
        let mut out = vec![];
        for (i, &a) in args[0].iter().enumerate() {
            let b = args.get(1).map_or(a, |x| x[i]);
            let c = args.get(2).map_or(a, |x| x[i]);
            out.push(if t.is_float() {
                if p == Prim::Fma && !self.unit.target.has_fma {
                    self.soft_fma32x4(a, b, c)
                } else {
                    let r = self.float(p, [a, b, c]);
                    if comparison {
                        self.bits_as(r, mask_type(bits))
                    } else {
                        r
                    }
                }
            } else if bits == 64 {
                self.wide_integer(p, t, unsigned64, a, b)
            } else {
                self.integer(p, t, a, b)
            });
        }
        Some(if comparison {
            Val::Mask(bits, out)
        } else {
            Val::Lanes(out)
        })
    }

    /// 64-bit lanes, for which SSE has signed comparisons only and no minimum.
    fn wide_integer(&mut self, p: Prim, t: DType, unsigned: bool, a: Value, b: Value) -> Value {
        let less = |e: &mut Self, a: Value, b: Value| {
            let (a, b) = if unsigned {
                let flip = e.int_const(types::I64X2, i64::MIN);
                (e.b.ins().bxor(a, flip), e.b.ins().bxor(b, flip))
            } else {
                (a, b)
            };
            e.b.ins().icmp(IntCC::SignedGreaterThan, b, a)
        };
        match p {
            Prim::Lt => less(self, a, b),
            Prim::Le => {
                let over = less(self, b, a);
                self.b.ins().bnot(over)
            }
            Prim::Min => {
                let c = less(self, a, b);
                self.b.ins().bitselect(c, a, b)
            }
            Prim::Max => {
                let c = less(self, a, b);
                self.b.ins().bitselect(c, b, a)
            }
            _ => self.integer(p, t, a, b),
        }
    }

    /// `a * b + c` with one rounding where the CPU has no such instruction.
    fn soft_fma32x4(&mut self, a: Value, b: Value, c: Value) -> Value {
        let low = [a, b, c].map(|v| self.b.ins().fvpromote_low(v));
        let high = [a, b, c].map(|v| {
            let h = self.high_half(v);
            self.b.ins().fvpromote_low(h)
        });
        let low = self.odd_sum(low[0], low[1], low[2]);
        let high = self.odd_sum(high[0], high[1], high[2]);
        self.demote_pair(low, high)
    }

    fn demote_pair(&mut self, low: Value, high: Value) -> Value {
        let (low, high) = (self.b.ins().fvdemote(low), self.b.ins().fvdemote(high));
        let r = self.shuffle(low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
        self.bits_as(r, types::F32X4)
    }

    fn bool_lanes(&mut self, p: Prim, x: [&Val; 3], lanes: u32) -> Val {
        let width = |v: &Val| if let Val::Mask(b, _) = v { Some(*b) } else { None };
        let bits = x[..p.arity()].iter().find_map(|v| width(v)).unwrap_or(8);
        let a = self.mask_of(x[0], bits, lanes);
        let b = self.mask_of(x[1], bits, lanes);
        let out = a.iter().zip(&b).map(|(&a, &b)| {
            let i = self.b.ins();
            match p {
                Prim::And => i.band(a, b),
                Prim::Or => i.bor(a, b),
                Prim::Xor | Prim::Ne => i.bxor(a, b),
                Prim::Eq => {
                    let d = i.bxor(a, b);
                    self.b.ins().bnot(d)
                }
                // false < true.
                Prim::Lt => {
                    let n = i.bnot(a);
                    self.b.ins().band(n, b)
                }
                Prim::Le => {
                    let n = i.bnot(a);
                    self.b.ins().bor(n, b)
                }
                _ => i.bnot(a),
            }
        });
        Val::Mask(bits, out.collect())
    }

    fn select_lanes(&mut self, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        if t == DType::Bool {
            let a = self.bool_lanes(Prim::And, [x[0], x[1], x[1]], lanes);
            let n = match x[0] {
                Val::Uniform(c) => Val::Uniform(self.b.ins().bxor_imm_s(*c, 1)),
                v => self.bool_lanes(Prim::Not, [v, v, v], lanes),
            };
            let b = self.bool_lanes(Prim::And, [&n, x[2], x[2]], lanes);
            return Some(self.bool_lanes(Prim::Or, [&a, &b, &b], lanes));
        }
        let (a, b) = (self.chunks_of(x[1], t, lanes), self.chunks_of(x[2], t, lanes));
        if let Val::Uniform(c) = x[0] {
            let out = a.iter().zip(&b).map(|(a, b)| self.b.ins().select(*c, *a, *b));
            return Some(Val::Lanes(out.collect()));
        }
        let m = self.mask_of(x[0], t.bits() as u32, lanes);
        let out = (0..a.len()).map(|i| self.choose(m[i], a[i], b[i]));
        Some(Val::Lanes(out.collect()))
    }

    fn shift_lanes(&mut self, left: bool, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        // There is one amount for all lanes, or the shift is done lane by lane.
        let Val::Uniform(by) = *x[1] else { return None };
        let bits = t.bits() as i64;
        let lane = clif(t);
        let width = self.b.ins().iconst(lane, bits);
        let inside = self.b.ins().icmp(IntCC::UnsignedLessThan, by, width);
        let most = self.b.ins().iconst(lane, bits - 1);
        let by = self.b.ins().umin(by, most);
        let zero = self.int_const(chunk(t), 0);
        let c = self.chunks_of(x[0], t, lanes);
        let out = c.iter().map(|&a| {
            if !left && t.is_signed() {
                return self.b.ins().sshr(a, by);
            }
            let s = if left {
                self.b.ins().ishl(a, by)
            } else {
                self.b.ins().ushr(a, by)
            };
            self.b.ins().select(inside, s, zero)
        });
        Some(Val::Lanes(out.collect()))
    }

    fn cast_lanes(&mut self, from: DType, to: DType, x: &Val, lanes: u32) -> Option<Val> {
        if from == to {
            return Some(x.clone());
        }
        if from == DType::Bool {
            let bits = to.bits() as u32;
            let m = self.mask_of(x, bits, lanes);
            let one = match to {
                DType::F64 => 1f64.to_bits() as i64,
                DType::F32 => i64::from(1f32.to_bits()),
                DType::F16 => 0x3c00,
                DType::BF16 => 0x3f80,
                _ => 1,
            };
            let one = self.int_const(mask_type(bits), one);
            let out = m.into_iter().map(|v| {
                let v = self.b.ins().band(v, one);
                self.bits_as(v, chunk(to))
            });
            return Some(Val::Lanes(out.collect()));
        }
        let c = self.chunks_of(x, from, lanes);
        if to == DType::Bool {
            let bits = from.bits() as u32;
            let out = c.into_iter().map(|v| self.not_zero(from, v));
            return Some(Val::Mask(bits, out.collect()));
        }
        let mut out = self.cast_chunks(from, to, c)?;
        out.truncate(chunks(lanes, to.bits() as u32));
        Some(Val::Lanes(out))
    }

    /// A mask of the lanes that are not zero.
    pub fn not_zero(&mut self, d: DType, v: Value) -> Value {
        let ty = self.type_of(v);
        if matches!(d, DType::F32 | DType::F64) {
            let zero = self.float_const(ty, 0.0);
            let r = self.b.ins().fcmp(FloatCC::NotEqual, v, zero);
            return self.bits_as(r, mask_type(d.bits() as u32));
        }
        let v = if d.is_float() {
            let rest = self.int_const(ty, 0x7fff);
            self.b.ins().band(v, rest)
        } else {
            v
        };
        let zero = self.int_const(ty, 0);
        self.b.ins().icmp(IntCC::NotEqual, v, zero)
    }

    /// Chunks of another dtype; there may be more than the lanes need.
    fn cast_chunks(&mut self, from: DType, to: DType, mut c: Vec<Value>) -> Option<Vec<Value>> {
        use DType::*;
        if from == to {
            return Some(c);
        }
        match (from, to) {
            (F16 | BF16, _) => {
                let wide = self.widen(&c, false);
                let f = wide.into_iter().map(|v| self.float_from_16(from, v)).collect();
                self.cast_chunks(F32, to, f)
            }
            (_, F16 | BF16) => {
                let f = self.cast_chunks(from, F32, c)?;
                let bits: Vec<_> = f.into_iter().map(|v| self.float_to_16(to, v)).collect();
                Some(self.narrow(&bits, false))
            }
            (F32, F64) => Some(
                c.into_iter()
                    .flat_map(|v| {
                        let high = self.high_half(v);
                        [self.b.ins().fvpromote_low(v), self.b.ins().fvpromote_low(high)]
                    })
                    .collect(),
            ),
            (F64, F32) => Some(c.chunks(2).map(|p| self.demote_pair(p[0], p[p.len() - 1])).collect()),
            (F32, I32) => Some(
                c.into_iter()
                    .map(|v| self.b.ins().fcvt_to_sint_sat(types::I32X4, v))
                    .collect(),
            ),
            (F32, U32) => Some(
                c.into_iter()
                    .map(|v| self.b.ins().fcvt_to_uint_sat(types::I32X4, v))
                    .collect(),
            ),
            (F32, I8 | U8 | I16 | U16) => {
                let words = c
                    .into_iter()
                    .map(|v| {
                        let v = self.b.ins().fcvt_to_sint_sat(types::I32X4, v);
                        self.clamp_to(to, v)
                    })
                    .collect();
                self.cast_chunks(I32, to, words)
            }
            (F32 | F64, _) => None,
            (I64 | U64, F32 | F64) => None,
            (I32 | U32, F32) => Some(
                c.into_iter()
                    .map(|v| {
                        if from == I32 {
                            self.b.ins().fcvt_from_sint(types::F32X4, v)
                        } else {
                            self.b.ins().fcvt_from_uint(types::F32X4, v)
                        }
                    })
                    .collect(),
            ),
            (I32 | U32, F64) => Some(
                c.into_iter()
                    .flat_map(|v| {
                        let high = self.high_half(v);
                        [v, high].map(|v| {
                            if from == I32 {
                                let w = self.b.ins().swiden_low(v);
                                self.b.ins().fcvt_from_sint(types::F64X2, w)
                            } else {
                                let w = self.b.ins().uwiden_low(v);
                                self.b.ins().fcvt_from_uint(types::F64X2, w)
                            }
                        })
                    })
                    .collect(),
            ),
            (_, F32 | F64) => {
                let wide = if from.is_signed() { I32 } else { U32 };
                let words = self.cast_chunks(from, wide, c)?;
                // Small unsigned numbers are signed ones too, and those convert in one instruction.
                self.cast_chunks(I32, to, words)
            }
            _ => {
                let mut bits = from.bits();
                while bits < to.bits() {
                    c = self.widen(&c, from.is_signed());
                    bits *= 2;
                }
                while bits > to.bits() {
                    c = self.narrow(&c, false);
                    bits /= 2;
                }
                Some(c)
            }
        }
    }
}
