//! Conversions between dtypes, of scalars and of the chunks of a vector loop.
//!
//! Invariant: floats become integers by saturating conversions; nothing calls a library. The conversions of f16 follow
//! F. Giesen, "half to float" (public domain gist, 2012): an addition of a magic number lets the float unit round and
//! normalise what is subnormal.

use super::emit::{Emit, clif};
use super::vector::{Val, chunk, chunks, mask_type};
use brolga_ir::DType;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

impl Emit<'_, '_> {
    /// A conversion of scalars.
    pub fn cast(&mut self, from: DType, to: DType, x: Value) -> Value {
        use DType::*;
        if from == to {
            return x;
        }
        match (from, to) {
            (F16 | BF16, Bool) => {
                let magnitude = self.b.ins().band_imm_s(x, 0x7fff);
                self.b.ins().icmp_imm_s(IntCC::NotEqual, magnitude, 0)
            }
            (F16 | BF16, _) => {
                let wide = self.b.ins().uextend(types::I32, x);
                let f = self.float_from_16(from, wide);
                self.cast(F32, to, f)
            }
            (_, F16 | BF16) => {
                let f = self.cast(from, F32, x);
                let bits = self.float_to_16(to, f);
                self.b.ins().ireduce(types::I16, bits)
            }
            (F32, F64) => self.b.ins().fpromote(types::F64, x),
            (F64, F32) => self.b.ins().fdemote(types::F32, x),
            (F32 | F64, Bool) => {
                let zero = self.float_const(clif(from), 0.0);
                self.b.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            (F32 | F64, I64 | I32) => self.b.ins().fcvt_to_sint_sat(clif(to), x),
            (F32 | F64, U64 | U32) => self.b.ins().fcvt_to_uint_sat(clif(to), x),
            (F32 | F64, _) => {
                let wide = self.b.ins().fcvt_to_sint_sat(types::I32, x);
                let wide = self.clamp_to(to, wide);
                self.b.ins().ireduce(clif(to), wide)
            }
            (Bool | I8 | I16 | U8 | U16, F32 | F64) => {
                let wide = self.extend(from, types::I32, x);
                self.b.ins().fcvt_from_sint(clif(to), wide)
            }
            (U32, F32 | F64) => {
                let wide = self.b.ins().uextend(types::I64, x);
                self.b.ins().fcvt_from_sint(clif(to), wide)
            }
            (U64, F32 | F64) => self.b.ins().fcvt_from_uint(clif(to), x),
            (_, F32 | F64) => self.b.ins().fcvt_from_sint(clif(to), x),
            (_, Bool) => self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0),
            _ => match to.bits().cmp(&from.bits()) {
                std::cmp::Ordering::Less => self.b.ins().ireduce(clif(to), x),
                std::cmp::Ordering::Equal => x,
                std::cmp::Ordering::Greater => self.extend(from, clif(to), x),
            },
        }
    }

    fn extend(&mut self, from: DType, ty: Type, x: Value) -> Value {
        if from.is_signed() {
            self.b.ins().sextend(ty, x)
        } else {
            self.b.ins().uextend(ty, x)
        }
    }

    /// Bounds 32-bit integers, scalars or vectors, to the range of an 8- or 16-bit dtype.
    pub fn clamp_to(&mut self, to: DType, x: Value) -> Value {
        let bits = to.bits() as u32;
        let (low, high) = if to.is_signed() {
            (-1i64 << (bits - 1), (1i64 << (bits - 1)) - 1)
        } else {
            (0, (1i64 << bits) - 1)
        };
        let ty = self.type_of(x);
        let (low, high) = (self.int_const(ty, low), self.int_const(ty, high));
        let x = self.b.ins().smax(x, low);
        self.b.ins().smin(x, high)
    }

    pub fn cast_lanes(&mut self, from: DType, to: DType, x: &Val, lanes: u32) -> Option<Val> {
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

    /// f32 from the zero-extended bits of an f16 or bf16, scalars or vectors.
    pub fn float_from_16(&mut self, from: DType, x: Value) -> Value {
        let ints = self.type_of(x);
        let floats = if ints.is_vector() { types::F32X4 } else { types::F32 };
        if from == DType::BF16 {
            let bits = self.b.ins().ishl_imm_u(x, 16);
            return self.bits_as(bits, floats);
        }
        let k = |e: &mut Self, c: i64| e.int_const(ints, c);
        let (rest, exponent) = (k(self, 0x7fff), k(self, 0x7c00 << 13));
        let magnitude = self.b.ins().band(x, rest);
        let shifted = self.b.ins().ishl_imm_u(magnitude, 13);
        let e = self.b.ins().band(shifted, exponent);
        let (rebias, more) = (k(self, (127 - 15) << 23), k(self, (128 - 16) << 23));
        let normal = self.b.ins().iadd(shifted, rebias);
        // Infinity and NaN.
        let special = self.b.ins().iadd(normal, more);
        // Zero and subnormals: the subtraction normalises.
        let one = k(self, 1 << 23);
        let magic = k(self, 113 << 23);
        let raised = self.b.ins().iadd(normal, one);
        let (raised, magic) = (self.bits_as(raised, floats), self.bits_as(magic, floats));
        let small = self.b.ins().fsub(raised, magic);
        let small = self.bits_as(small, ints);
        let zero = k(self, 0);
        let is_special = self.b.ins().icmp(IntCC::Equal, e, exponent);
        let is_small = self.b.ins().icmp(IntCC::Equal, e, zero);
        let bits = self.choose(is_special, special, normal);
        let bits = self.choose(is_small, small, bits);
        let sign = self.b.ins().bxor(x, magnitude);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let bits = self.b.ins().bor(bits, sign);
        self.bits_as(bits, floats)
    }

    /// The bits of f32 rounded to f16 or bf16, zero-extended to 32 bits; scalars or vectors.
    pub fn float_to_16(&mut self, to: DType, x: Value) -> Value {
        let floats = self.type_of(x);
        let ints = if floats.is_vector() { types::I32X4 } else { types::I32 };
        let k = |e: &mut Self, c: i64| e.int_const(ints, c);
        let bits = self.bits_as(x, ints);
        let rest = k(self, 0x7fff_ffff);
        let magnitude = self.b.ins().band(bits, rest);
        let sign = self.b.ins().bxor(bits, magnitude);
        let sign = self.b.ins().ushr_imm_u(sign, 16);
        let infinity = k(self, 255 << 23);
        let is_nan = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, infinity);
        let one = k(self, 1);
        let result = if to == DType::BF16 {
            let odd = self.b.ins().ushr_imm_u(magnitude, 16);
            let odd = self.b.ins().band(odd, one);
            let half = k(self, 0x7fff);
            let up = self.b.ins().iadd(magnitude, half);
            let up = self.b.ins().iadd(up, odd);
            let rounded = self.b.ins().ushr_imm_u(up, 16);
            let nan = k(self, 0x7fc0);
            self.choose(is_nan, nan, rounded)
        } else {
            let odd = self.b.ins().ushr_imm_u(magnitude, 13);
            let odd = self.b.ins().band(odd, one);
            let rebias = k(self, ((15 - 127) << 23) + 0xfff);
            let normal = self.b.ins().iadd(magnitude, rebias);
            let normal = self.b.ins().iadd(normal, odd);
            let normal = self.b.ins().ushr_imm_u(normal, 13);
            // Below the smallest normal f16 the addition rounds.
            let magic = k(self, ((127 - 15) + (23 - 10) + 1) << 23);
            let (m, f) = (self.bits_as(magic, floats), self.bits_as(magnitude, floats));
            let sum = self.b.ins().fadd(f, m);
            let sum = self.bits_as(sum, ints);
            let small = self.b.ins().isub(sum, magic);
            let smallest = k(self, 113 << 23);
            let is_small = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, smallest);
            let r = self.choose(is_small, small, normal);
            let limit = k(self, (127 + 16) << 23);
            let fits = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, limit);
            let overflow = k(self, 0x7c00);
            let r = self.choose(fits, r, overflow);
            let nan = k(self, 0x7e00);
            self.choose(is_nan, nan, r)
        };
        self.b.ins().bor(result, sign)
    }
}
