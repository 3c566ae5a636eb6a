//! The float remainder, and fused multiply-add without the instruction: too long to repeat at every use.
//!
//! Invariant: they are exact. The remainder is integer arithmetic on significands; the f32 multiply-add rounds to odd in
//! f64 first (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008); the f64 one adds 128-bit
//! products as integers.

use super::emit::Emit;
use super::outline::Outline;
use super::unit::Unit;
use crate::Error;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// Float arithmetic in a function of its own.
#[derive(Clone, Copy)]
pub(crate) enum SoftFloat {
    /// `(a, b) -> a - b * trunc(a / b)`, f64, C's `fmod`.
    Rem64,
    /// `(a, b, c) -> a * b + c`, f32, one rounding.
    Fma32,
    /// The same in f64.
    Fma64,
}

impl Outline for SoftFloat {
    fn name(&self) -> Cow<'static, str> {
        match self {
            SoftFloat::Rem64 => "brolga_rem_f64",
            SoftFloat::Fma32 => "brolga_fma_f32",
            SoftFloat::Fma64 => "brolga_fma_f64",
        }
        .into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let (params, result): (&[Type], _) = match self {
            SoftFloat::Rem64 => (&[types::F64; 2], types::F64),
            SoftFloat::Fma32 => (&[types::F32; 3], types::F32),
            SoftFloat::Fma64 => (&[types::F64; 3], types::F64),
        };
        let signature = unit.signature(params, Some(result));
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e| {
            let p = e.params();
            let r = match self {
                SoftFloat::Rem64 => rem64(e, p[0], p[1])?,
                SoftFloat::Fma32 => e.soft_fma32(p[0], p[1], p[2]),
                SoftFloat::Fma64 => fma64(e, p[0], p[1], p[2])?,
            };
            e.b.ins().return_(&[r]);
            Ok(())
        })?;
        Ok(id)
    }
}

/// The significand of the magnitude bits of an f64, its leading bit at 52, and the exponent that belongs to it (1 for the
/// smallest normal numbers, less for subnormals).
fn normalised(e: &mut Emit, bits: Value) -> (Value, Value) {
    let field = e.b.ins().ushr_imm_u(bits, 52);
    let fraction = e.b.ins().band_imm_s(bits, (1 << 52) - 1);
    let implicit = e.b.ins().bor_imm_s(fraction, 1 << 52);
    let zeros = e.b.ins().clz(fraction);
    let shift = e.b.ins().iadd_imm_s(zeros, -11);
    let moved = e.b.ins().ishl(fraction, shift);
    let one = e.int(1);
    let low = e.b.ins().isub(one, shift);
    let normal = e.b.ins().icmp_imm_s(IntCC::NotEqual, field, 0);
    (
        e.b.ins().select(normal, implicit, moved),
        e.b.ins().select(normal, field, low),
    )
}

fn rem64(e: &mut Emit, x: Value, y: Value) -> Result<Value, Error> {
    let (ix, iy) = (e.bits_as(x, types::I64), e.bits_as(y, types::I64));
    let (ax, ay) = (e.b.ins().band_imm_s(ix, i64::MAX), e.b.ins().band_imm_s(iy, i64::MAX));
    // 0 * y / 0 is NaN wherever the remainder is none: y zero or NaN, x infinite or NaN.
    let infinity = e.int(0x7ff << 52);
    let undefined = {
        let zero = e.b.ins().icmp_imm_s(IntCC::Equal, ay, 0);
        let nan = e.b.ins().icmp(IntCC::SignedGreaterThan, ay, infinity);
        let large = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, ax, infinity);
        let either = e.b.ins().bor(zero, nan);
        e.b.ins().bor(either, large)
    };
    let r = e.either(
        undefined,
        &[types::F64],
        |e| Ok(vec![e.b.ins().f64const(f64::NAN)]),
        |e| {
            let smaller = e.b.ins().icmp(IntCC::SignedLessThan, ax, ay);
            // |x| < |y| is its own remainder; y is infinite only in this arm.
            e.either(
                smaller,
                &[types::F64],
                |_| Ok(vec![x]),
                |e| {
                    let (mx, ex) = normalised(e, ax);
                    let (my, ey) = normalised(e, ay);
                    let first = e.b.ins().urem(mx, my);
                    let distance = e.b.ins().isub(ex, ey);
                    let m = rem_steps(e, first, my, distance);
                    let r = assemble(e, m, ey);
                    let sign = e.b.ins().bxor(ix, ax);
                    let r = e.b.ins().bor(r, sign);
                    Ok(vec![e.bits_as(r, types::F64)])
                },
            )
        },
    )?;
    Ok(r[0])
}

/// `m * 2^distance mod my`, 11 bits at a time: the significand has 53 of 64.
fn rem_steps(e: &mut Emit, m: Value, my: Value, distance: Value) -> Value {
    let head = e.block(&[types::I64, types::I64]);
    let (body, exit) = (e.b.create_block(), e.b.create_block());
    e.b.ins().jump(head, &[m.into(), distance.into()]);
    e.b.switch_to_block(head);
    let (m, left) = (e.b.block_params(head)[0], e.b.block_params(head)[1]);
    let more = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, left, 0);
    e.b.ins().brif(more, body, &[], exit, &[]);
    e.b.switch_to_block(body);
    let eleven = e.int(11);
    let by = e.b.ins().smin(left, eleven);
    let shifted = e.b.ins().ishl(m, by);
    let next = e.b.ins().urem(shifted, my);
    let rest = e.b.ins().isub(left, by);
    e.b.ins().jump(head, &[next.into(), rest.into()]);
    e.b.seal_block(head);
    e.b.seal_block(body);
    e.b.seal_block(exit);
    e.b.switch_to_block(exit);
    m
}

/// The bits of the f64 `m * 2^(exponent - 1075)` for `m < 2^53` that is exact: normalised, or subnormal.
fn assemble(e: &mut Emit, m: Value, exponent: Value) -> Value {
    let zeros = e.b.ins().clz(m);
    let shift = e.b.ins().iadd_imm_s(zeros, -11);
    // Not below the exponent 1.
    let room = e.b.ins().iadd_imm_s(exponent, -1);
    let can = e.b.ins().smin(shift, room);
    let left = e.b.ins().ishl(m, can);
    let down = e.b.ins().ineg(can);
    let right = e.b.ins().ushr(m, down);
    let forward = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, can, 0);
    let m2 = e.b.ins().select(forward, left, right);
    let field = e.b.ins().isub(exponent, can);
    // The leading bit adds one to the exponent's field; a subnormal has none and keeps field 1 - 1.
    let field = e.b.ins().iadd_imm_s(field, -1);
    let field = e.b.ins().ishl_imm_u(field, 52);
    let bits = e.b.ins().iadd(m2, field);
    let zero = e.b.ins().icmp_imm_s(IntCC::Equal, m, 0);
    let none = e.int(0);
    e.b.ins().select(zero, none, bits)
}

impl Emit<'_, '_> {
    /// `a * b + c` in f32 with one rounding, by f64 arithmetic.
    fn soft_fma32(&mut self, a: Value, b: Value, c: Value) -> Value {
        let [a, b, c] = [a, b, c].map(|v| self.b.ins().fpromote(types::F64, v));
        let s = self.odd_sum(a, b, c);
        self.b.ins().fdemote(types::F32, s)
    }

    /// `a * b + c` rounded to odd, for f64 values (scalars or vectors) that are f32 values, so that the product is exact.
    pub fn odd_sum(&mut self, a: Value, b: Value, c: Value) -> Value {
        let floats = self.type_of(a);
        let ints = if floats.is_vector() { types::I64X2 } else { types::I64 };
        let p = self.b.ins().fmul(a, b);
        let s = self.b.ins().fadd(p, c);
        // Knuth's two-sum: s + err = p + c exactly.
        let c2 = self.b.ins().fsub(s, p);
        let p2 = self.b.ins().fsub(s, c2);
        let (dc, dp) = (self.b.ins().fsub(c, c2), self.b.ins().fsub(p, p2));
        let err = self.b.ins().fadd(dc, dp);
        let zero = self.float_const(floats, 0.0);
        // An infinite or NaN sum has a NaN error, which is not greater than anything.
        let magnitude = self.b.ins().fabs(err);
        let inexact = self.b.ins().fcmp(FloatCC::GreaterThan, magnitude, zero);
        let bits = self.bits_as(s, ints);
        let one = self.int_const(ints, 1);
        let odd = self.b.ins().band(bits, one);
        let (none, minus) = (self.int_const(ints, 0), self.int_const(ints, -1));
        let even = self.b.ins().icmp(IntCC::Equal, odd, none);
        // Away from zero when error and sum have one sign.
        let same = {
            let e = self.bits_as(err, ints);
            let x = self.b.ins().bxor(e, bits);
            self.b.ins().icmp(IntCC::SignedGreaterThan, x, minus)
        };
        let step = self.choose(same, one, minus);
        let moved = self.b.ins().iadd(bits, step);
        let fix = self.b.ins().band(inexact, even);
        let r = self.choose(fix, moved, bits);
        self.bits_as(r, floats)
    }
}

/// `a * b + c` in f64: significands as integers, the sum in 128 bits with a sticky bit, rounded once.
fn fma64(e: &mut Emit, a: Value, b: Value, c: Value) -> Result<Value, Error> {
    let bits: Vec<Value> = [a, b, c].iter().map(|v| e.bits_as(*v, types::I64)).collect();
    let magnitudes: Vec<Value> = bits.iter().map(|v| e.b.ins().band_imm_s(*v, i64::MAX)).collect();
    let infinity = e.int(0x7ff << 52);
    // Where an operand is infinite or NaN, or the product is zero, two roundings do as well as one: the product is exact.
    // With c zero the product alone is rounded, and keeps its sign.
    let mut simple = e.b.ins().icmp_imm_s(IntCC::Equal, magnitudes[2], 0);
    for m in &magnitudes {
        let special = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, *m, infinity);
        simple = e.b.ins().bor(simple, special);
    }
    for m in &magnitudes[..2] {
        let zero = e.b.ins().icmp_imm_s(IntCC::Equal, *m, 0);
        simple = e.b.ins().bor(simple, zero);
    }
    let r = e.either(
        simple,
        &[types::F64],
        |e| {
            let p = e.b.ins().fmul(a, b);
            let sum = e.b.ins().fadd(p, c);
            // A finite product that overflows keeps its infinity only without an infinite c of the other sign: c decides.
            let finite_factors = {
                let fa = e.b.ins().icmp(IntCC::SignedLessThan, magnitudes[0], infinity);
                let fb = e.b.ins().icmp(IntCC::SignedLessThan, magnitudes[1], infinity);
                e.b.ins().band(fa, fb)
            };
            let c_special = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, magnitudes[2], infinity);
            let take_c = e.b.ins().band(finite_factors, c_special);
            // The product may underflow to zero while c is zero: then the product's own sign and rounding count.
            let c_zero = e.b.ins().icmp_imm_s(IntCC::Equal, magnitudes[2], 0);
            let p_real = {
                let za = e.b.ins().icmp_imm_s(IntCC::NotEqual, magnitudes[0], 0);
                let zb = e.b.ins().icmp_imm_s(IntCC::NotEqual, magnitudes[1], 0);
                e.b.ins().band(za, zb)
            };
            let take_p = e.b.ins().band(c_zero, p_real);
            let sum = e.b.ins().select(take_p, p, sum);
            Ok(vec![e.b.ins().select(take_c, c, sum)])
        },
        |e| Ok(vec![fma64_finite(e, &bits, &magnitudes)?]),
    )?;
    Ok(r[0])
}

/// The case of three finite operands that are not zero.
fn fma64_finite(e: &mut Emit, bits: &[Value], magnitudes: &[Value]) -> Result<Value, Error> {
    let (ma, ea) = normalised(e, magnitudes[0]);
    let (mb, eb) = normalised(e, magnitudes[1]);
    let (mc, ec) = normalised(e, magnitudes[2]);
    let signs = e.b.ins().bxor(bits[0], bits[1]);
    // The product has its leading bit at 125 or 126 once both factors stand at bit 63 and 62: a 128-bit number (hi, lo)
    // with the weight 2^(ep) at bit 0.
    let (ma, mb) = (e.b.ins().ishl_imm_u(ma, 10), e.b.ins().ishl_imm_u(mb, 10));
    let (ph, pl) = (e.b.ins().umulhi(ma, mb), e.b.ins().imul(ma, mb));
    let ep = e.b.ins().iadd(ea, eb);
    let ep = e.b.ins().iadd_imm_s(ep, -2 * (1075 + 10));
    // c with its leading bit at 124 of (hi, lo).
    let ch = e.b.ins().ishl_imm_u(mc, 8);
    let cl = e.int(0);
    let ec = e.b.ins().iadd_imm_s(ec, -(1075 + 72));
    // The smaller exponent's number is shifted right, what falls off is kept as a sticky lowest bit. Both leading bits are
    // between 124 and 125, so nothing is lost when the exponents are near and cancellation may happen.
    let p_first = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, ep, ec);
    let pick = |e: &mut Emit, x: Value, y: Value| e.b.ins().select(p_first, x, y);
    let (bh, bl, be) = (pick(e, ph, ch), pick(e, pl, cl), pick(e, ep, ec));
    let (sh, sl, se) = (pick(e, ch, ph), pick(e, cl, pl), pick(e, ec, ep));
    let (big_sign, small_sign) = (pick(e, signs, bits[2]), pick(e, bits[2], signs));
    let distance = e.b.ins().isub(be, se);
    let (sh, sl) = shift_right_sticky(e, sh, sl, distance);
    let differ = e.b.ins().bxor(big_sign, small_sign);
    let subtract = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, differ, 0);
    let all = e.b.ins().sshr_imm_u(differ, 63);
    // big + (small ^ all) - all, in 128 bits.
    let (xh, xl) = (e.b.ins().bxor(sh, all), e.b.ins().bxor(sl, all));
    let carry_in = e.b.ins().ineg(all);
    let (l, c1) = add_carry(e, bl, xl);
    let (l, c2) = add_carry(e, l, carry_in);
    let h = e.b.ins().iadd(bh, xh);
    let carries = e.b.ins().iadd(c1, c2);
    let h = e.b.ins().iadd(h, carries);
    // A negative difference: the smaller exponent had the larger number.
    let h_negative = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, h, 0);
    let negative = e.b.ins().band(subtract, h_negative);
    let (zero, ones) = (e.int(0), e.int(-1));
    let flip = e.b.ins().select(negative, ones, zero);
    let (h, l) = (e.b.ins().bxor(h, flip), e.b.ins().bxor(l, flip));
    let one = e.b.ins().ineg(flip);
    let (l, carry) = add_carry(e, l, one);
    let h = e.b.ins().iadd(h, carry);
    let sign = e.b.ins().bxor(big_sign, flip);
    let sign = e.b.ins().band_imm_s(sign, i64::MIN);
    let any = e.b.ins().bor(h, l);
    let empty = e.b.ins().icmp_imm_s(IntCC::Equal, any, 0);
    let rounded = round128(e, h, l, be);
    let value = e.b.ins().bor(rounded, sign);
    // An exact cancellation is +0.
    let value = e.b.ins().select(empty, zero, value);
    Ok(e.bits_as(value, types::F64))
}

fn add_carry(e: &mut Emit, a: Value, b: Value) -> (Value, Value) {
    let s = e.b.ins().iadd(a, b);
    let c = e.b.ins().icmp(IntCC::UnsignedLessThan, s, a);
    (s, e.b.ins().uextend(types::I64, c))
}

/// `(h, l) >> by` for `by >= 0`, the lost bits or-ed into the lowest.
fn shift_right_sticky(e: &mut Emit, h: Value, l: Value, by: Value) -> (Value, Value) {
    let limit = e.int(127);
    let by = e.b.ins().smin(by, limit);
    let zero = e.int(0);
    let far = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, by, 64);
    // Shift by 64 first where needed, then by less than 64.
    let lost_low = e.b.ins().select(far, l, zero);
    let (h, l) = (e.b.ins().select(far, zero, h), e.b.ins().select(far, h, l));
    let by = e.b.ins().band_imm_s(by, 63);
    let none = e.b.ins().icmp_imm_s(IntCC::Equal, by, 0);
    let back = e.b.ins().ineg(by);
    let back = e.b.ins().band_imm_s(back, 63);
    let fallen = e.b.ins().ishl(l, back);
    let fallen = e.b.ins().select(none, zero, fallen);
    let across = e.b.ins().ishl(h, back);
    let across = e.b.ins().select(none, zero, across);
    let (h2, l2) = (e.b.ins().ushr(h, by), e.b.ins().ushr(l, by));
    let l2 = e.b.ins().bor(l2, across);
    let lost = e.b.ins().bor(lost_low, fallen);
    let sticky = e.b.ins().icmp_imm_s(IntCC::NotEqual, lost, 0);
    let sticky = e.b.ins().uextend(types::I64, sticky);
    (h2, e.b.ins().bor(l2, sticky))
}

/// The bits of the f64 nearest to `(h, l) * 2^exponent`, ties to even; the lowest bit is sticky.
fn round128(e: &mut Emit, h: Value, l: Value, exponent: Value) -> Value {
    // Leading bit to 127.
    let (zh, zl) = (e.b.ins().clz(h), e.b.ins().clz(l));
    let zl = e.b.ins().iadd_imm_s(zl, 64);
    let no_high = e.b.ins().icmp_imm_s(IntCC::Equal, h, 0);
    let zeros = e.b.ins().select(no_high, zl, zh);
    let zero = e.int(0);
    let far = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, zeros, 64);
    let (h, l) = (e.b.ins().select(far, l, h), e.b.ins().select(far, zero, l));
    let by = e.b.ins().band_imm_s(zeros, 63);
    let none = e.b.ins().icmp_imm_s(IntCC::Equal, by, 0);
    let back = e.b.ins().ineg(by);
    let back = e.b.ins().band_imm_s(back, 63);
    let across = e.b.ins().ushr(l, back);
    let across = e.b.ins().select(none, zero, across);
    let h = e.b.ins().ishl(h, by);
    let h = e.b.ins().bor(h, across);
    let l = e.b.ins().ishl(l, by);
    // value = (h, l) * 2^(exponent - zeros), 2^127 <= (h, l): the biased exponent is exponent - zeros + 127 + 1023.
    let biased = e.b.ins().isub(exponent, zeros);
    let biased = e.b.ins().iadd_imm_s(biased, 127 + 1023);
    // Subnormal: shift further, so that the field becomes 0.
    let one = e.int(1);
    let lack = e.b.ins().isub(one, biased);
    let lack = e.b.ins().smax(lack, zero);
    let (h, l) = shift_right_sticky(e, h, l, lack);
    let field = e.b.ins().smax(biased, one);
    // 53 bits are kept: bits 127..75 of (h, l).
    let kept = e.b.ins().ushr_imm_u(h, 11);
    let rest = e.b.ins().ishl_imm_u(h, 53);
    let low = e.b.ins().icmp_imm_s(IntCC::NotEqual, l, 0);
    let low = e.b.ins().uextend(types::I64, low);
    let rest = e.b.ins().bor(rest, low);
    let half = e.int(i64::MIN);
    let above = e.b.ins().icmp(IntCC::UnsignedGreaterThan, rest, half);
    let tie = e.b.ins().icmp(IntCC::Equal, rest, half);
    let odd = e.b.ins().band_imm_s(kept, 1);
    let odd = e.b.ins().ireduce(types::I8, odd);
    let tie_up = e.b.ins().band(tie, odd);
    let up = e.b.ins().bor(above, tie_up);
    let up = e.b.ins().uextend(types::I64, up);
    let kept = e.b.ins().iadd(kept, up);
    // The leading bit adds one to the field; a carry out of the significand does so once more.
    let field_bits = e.b.ins().iadd_imm_s(field, -1);
    let field_bits = e.b.ins().ishl_imm_u(field_bits, 52);
    let r = e.b.ins().iadd(kept, field_bits);
    let infinity = e.int(0x7ff << 52);
    let too_large = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, field, 0x7ff);
    let r = e.b.ins().umin(r, infinity);
    e.b.ins().select(too_large, infinity, r)
}
