//! Conversions of small types, as expansions over their bytes: integers and the bits of f32, so that no interpreter and no
//! printer knows them. What they mean is [`crate::Minifloat`]'s, by arithmetic of its own.
//!
//! Floats take the way of F. Giesen, "half to float" (public domain gist, 2012): what is normal moves its bits and has its
//! exponent moved, what is subnormal is normalised and rounded by one addition of a number whose last digit is the format's.

use super::{Builder, V};
use crate::{Codes, DType, Minifloat, Small};

/// The exponent of f32 in its place.
const fn f32_exponent(e: i32) -> i128 {
    (e as i128) << 23
}

/// Infinity's bits.
const INFINITY: i128 = f32_exponent(255);

/// The bits of a quiet NaN.
const NAN: i128 = 0x7fc0_0000;

/// A value of a small type as a number: f32, i8 or u8.
pub(super) fn decode(b: &mut Builder, small: Small, v: V) -> V {
    let byte = b.bitcast(small.byte(), v);
    match small {
        Small::Signed(_) | Small::Unsigned(_) => byte,
        Small::Float(f) => {
            let code = b.cast(DType::I32, byte);
            let bits = if f.is_signed() {
                decode_float(b, f, code)
            } else {
                decode_scale(b, f, code)
            };
            b.bitcast(DType::F32, bits)
        }
    }
}

/// A number as a value of a small type, as [`crate::encode`] says.
pub(super) fn encode(b: &mut Builder, to: DType, small: Small, number: V) -> V {
    let code = match small {
        Small::Float(f) => {
            let x = b.cast(DType::F32, number);
            let bits = b.bitcast(DType::I32, x);
            if f.is_signed() {
                encode_float(b, f, bits)
            } else {
                encode_scale(b, f, bits)
            }
        }
        Small::Signed(n) | Small::Unsigned(n) => {
            let whole = b.cast(DType::I32, number);
            match small.range() {
                Some((least, most)) if b.dtype(number).is_float() => {
                    let (least, most) = (b.int(whole, least.into()), b.int(whole, most.into()));
                    let whole = b.max(whole, least);
                    b.min(whole, most)
                }
                Some((0, most)) => {
                    let low = b.int(whole, most.into());
                    b.and(whole, low)
                }
                _ => {
                    let by = b.int(whole, 32 - i128::from(n));
                    let high = b.shl(whole, by);
                    b.shr(high, by)
                }
            }
        }
    };
    let byte = b.cast(small.byte(), code);
    b.bitcast(to, byte)
}

/// The bits of f32 of a code with a sign.
fn decode_float(b: &mut Builder, f: Minifloat, code: V) -> V {
    let bias = i32::from(f.bias);
    let k = |b: &mut Builder, x: i128| b.int(code, x);
    let (rest, sign) = (k(b, (1 << f.magnitude_bits()) - 1), k(b, f.sign().into()));
    let magnitude = b.and(code, rest);
    let places = k(b, 23 - i128::from(f.mantissa));
    let shifted = b.shl(magnitude, places);
    let (rebias, one) = (k(b, f32_exponent(127 - bias)), k(b, f32_exponent(1)));
    let normal = b.add(shifted, rebias);
    let raised = b.add(normal, one);
    let magic = k(b, f32_exponent(128 - bias));
    let (raised, magic) = (b.bitcast(DType::F32, raised), b.bitcast(DType::F32, magic));
    let subnormal = b.sub(raised, magic);
    let subnormal = b.bitcast(DType::I32, subnormal);
    let is_subnormal = b.lt(shifted, one);
    let bits = b.select(is_subnormal, subnormal, normal);
    let bits = match f.codes {
        Codes::Finite => bits,
        Codes::Ieee => {
            let largest = k(b, f.largest().into());
            let is_special = b.lt(largest, magnitude);
            let infinity = k(b, INFINITY);
            let special = b.or(bits, infinity);
            b.select(is_special, special, bits)
        }
        Codes::Nan => {
            let nan_code = k(b, f.overflow().into());
            let (is_nan, nan) = (b.eq(magnitude, nan_code), k(b, NAN));
            b.select(is_nan, nan, bits)
        }
        Codes::NanForMinusZero => {
            let (is_nan, nan) = (b.eq(code, sign), k(b, NAN));
            b.select(is_nan, nan, bits)
        }
    };
    let up = k(b, 31 - i128::from(f.magnitude_bits()));
    let sign = b.and(code, sign);
    let sign = b.shl(sign, up);
    b.or(bits, sign)
}

/// The bits of f32 of a scale.
fn decode_scale(b: &mut Builder, f: Minifloat, code: V) -> V {
    let k = |b: &mut Builder, x: i128| b.int(code, x);
    // The smallest one is a subnormal f32.
    let (places, zero, half) = (k(b, 23), k(b, 0), k(b, f32_exponent(1) / 2));
    let bits = b.shl(code, places);
    let is_least = b.eq(code, zero);
    let bits = b.select(is_least, half, bits);
    let (nan_code, nan) = (k(b, f.overflow().into()), k(b, NAN));
    let is_nan = b.eq(code, nan_code);
    b.select(is_nan, nan, bits)
}

/// The code of the bits of f32, with a sign.
fn encode_float(b: &mut Builder, f: Minifloat, bits: V) -> V {
    let (bias, digits) = (i32::from(f.bias), i32::from(f.mantissa));
    let k = |b: &mut Builder, x: i128| b.int(bits, x);
    let rest = k(b, 0x7fff_ffff);
    let magnitude = b.and(bits, rest);
    let (places, one) = (k(b, 23 - i128::from(f.mantissa)), k(b, 1));
    let odd = b.shr(magnitude, places);
    let odd = b.and(odd, one);
    let rebias = k(b, f32_exponent(bias - 127) + (1 << (22 - f.mantissa)) - 1);
    let normal = b.add(magnitude, rebias);
    let normal = b.add(normal, odd);
    let normal = b.shr(normal, places);
    // A number whose last digit is that of the format's subnormal ones: the addition rounds.
    let magic = k(b, f32_exponent(127 + 24 - bias - digits));
    let (number, ruler) = (b.bitcast(DType::F32, magnitude), b.bitcast(DType::F32, magic));
    let sum = b.add(number, ruler);
    let sum = b.bitcast(DType::I32, sum);
    let subnormal = b.sub(sum, magic);
    let least = k(b, f32_exponent(128 - bias));
    let is_subnormal = b.lt(magnitude, least);
    let code = b.select(is_subnormal, subnormal, normal);
    let (largest, overflow) = (k(b, f.largest().into()), k(b, f.overflow().into()));
    let exceeds = b.lt(largest, code);
    let code = b.select(exceeds, overflow, code);
    let nan = f.nan().unwrap_or(0);
    let code = if nan == f.overflow() {
        code
    } else {
        let (infinity, nan) = (k(b, INFINITY), k(b, nan.into()));
        let is_nan = b.lt(infinity, magnitude);
        b.select(is_nan, nan, code)
    };
    let (down, sign) = (k(b, 31 - i128::from(f.magnitude_bits())), k(b, f.sign().into()));
    let own = b.shr(bits, down);
    let own = b.and(own, sign);
    let signed = b.or(code, own);
    if f.codes != Codes::NanForMinusZero {
        return signed;
    }
    let (rest, zero) = (k(b, (1 << f.magnitude_bits()) - 1), k(b, 0));
    let low = b.and(code, rest);
    let is_unsigned = b.eq(low, zero);
    b.select(is_unsigned, code, signed)
}

/// The code of the bits of f32, for a scale.
fn encode_scale(b: &mut Builder, f: Minifloat, bits: V) -> V {
    let k = |b: &mut Builder, x: i128| b.int(bits, x);
    let (half, places) = (k(b, f32_exponent(1) / 2), k(b, 23));
    let up = b.add(bits, half);
    let code = b.shr(up, places);
    // 2^-127 is a subnormal f32 of one digit; from 1.5 of it on the next power of two is the nearest.
    let (next, zero) = (k(b, f32_exponent(3) / 4), k(b, 0));
    let is_least = b.lt(bits, next);
    let code = b.select(is_least, zero, code);
    let nan = k(b, f.overflow().into());
    // What is negative has negative bits.
    let below = b.lt(bits, half);
    let code = b.select(below, nan, code);
    let limit = k(b, INFINITY - f32_exponent(1) / 2);
    let above = b.le(limit, bits);
    b.select(above, nan, code)
}
