//! Exact functions: arithmetic, rounding, comparisons, logic and bits. Most are one primitive.
//!
//! `mod` has the sign of the divisor (ONNX `Mod`, Python), `fmod` that of the dividend. An integer `pow` wraps around;
//! a negative exponent gives the truncated quotient (0 but for the bases 1 and -1), and odd bases take an exponent
//! above 63 modulo 64.

use super::{Function, Rule, copy_sign, exact};
use crate::ops::Signs;
use crate::scalar::{Builder, V};

/// The rows of this family.
pub fn rows() -> Vec<Function> {
    use Rule::*;
    vec![
        exact("add", 2, Number, |b, x| b.add(x[0], x[1]), |x| x[0] + x[1])
            .never_minus_zero(|s| s.never_minus_zero(0) || s.never_minus_zero(1))
            .nonnegative(both),
        exact("sub", 2, Number, |b, x| b.sub(x[0], x[1]), |x| x[0] - x[1]).never_minus_zero(|s| s.never_minus_zero(0)),
        exact("mul", 2, Number, |b, x| b.mul(x[0], x[1]), |x| x[0] * x[1])
            .nonnegative(|s| s.is_float(0) && s.are_one() || both(s)),
        exact("div", 2, Number, |b, x| b.div(x[0], x[1]), |x| x[0] / x[1]).nonnegative(both),
        exact("mod", 2, Number, modulo, python_mod),
        exact("fmod", 2, Number, |b, x| b.rem(x[0], x[1]), |x| x[0] % x[1]),
        exact(
            "fma",
            3,
            Float,
            |b, x| b.fma(x[0], x[1], x[2]),
            |x| x[0].mul_add(x[1], x[2]),
        ),
        exact("min", 2, Number, |b, x| b.min(x[0], x[1]), |x| smaller(x[0], x[1]))
            .never_minus_zero(|s| s.never_minus_zero(0) && s.never_minus_zero(1))
            .nonnegative(|s| s.is_nonnegative(0) && s.is_nonnegative(1)),
        exact("max", 2, Number, |b, x| b.max(x[0], x[1]), |x| -smaller(-x[0], -x[1]))
            .never_minus_zero(|s| s.never_minus_zero(0) && s.never_minus_zero(1))
            .nonnegative(|s| s.is_nonnegative(0) || s.is_nonnegative(1)),
        exact("neg", 1, Number, |b, x| b.neg(x[0]), |x| -x[0]),
        exact("abs", 1, Number, |b, x| b.abs(x[0]), |x| x[0].abs()).nonnegative(|s| s.is_float(0)),
        exact(
            "sign",
            1,
            Number,
            sign,
            |x| if x[0] == 0.0 { x[0] } else { x[0].signum() },
        ),
        exact("floor", 1, Float, |b, x| b.floor(x[0]), |x| x[0].floor()),
        exact("ceil", 1, Float, |b, x| b.ceil(x[0]), |x| x[0].ceil()),
        exact("round", 1, Float, |b, x| b.round(x[0]), |x| x[0].round_ties_even()),
        exact("sqrt", 1, Float, |b, x| b.sqrt(x[0]), |x| x[0].sqrt()).nonnegative(|s| s.never_minus_zero(0)),
        exact("reciprocal", 1, Float, reciprocal, |x| 1.0 / x[0]).nonnegative(|s| s.is_nonnegative(0)),
        exact("relu", 1, Number, relu, |x| -smaller(-x[0], -0.0)).nonnegative(|s| s.is_float(0)),
        exact("equal", 2, Equality, |b, x| b.eq(x[0], x[1]), |x| bit(x[0] == x[1])),
        exact("not_equal", 2, Equality, |b, x| b.ne(x[0], x[1]), |x| bit(x[0] != x[1])),
        exact("less", 2, Order, |b, x| b.lt(x[0], x[1]), |x| bit(x[0] < x[1])),
        exact(
            "less_or_equal",
            2,
            Order,
            |b, x| b.le(x[0], x[1]),
            |x| bit(x[0] <= x[1]),
        ),
        exact("greater", 2, Order, |b, x| b.lt(x[1], x[0]), |x| bit(x[0] > x[1])),
        exact(
            "greater_or_equal",
            2,
            Order,
            |b, x| b.le(x[1], x[0]),
            |x| bit(x[0] >= x[1]),
        ),
        exact("is_nan", 1, Test, |b, x| b.ne(x[0], x[0]), |x| bit(x[0].is_nan())),
        exact("is_inf", 1, Test, is_inf, |x| bit(x[0].is_infinite())),
        exact(
            "and",
            2,
            Logic,
            |b, x| b.and(x[0], x[1]),
            |x| bit(x[0] != 0.0 && x[1] != 0.0),
        ),
        exact(
            "or",
            2,
            Logic,
            |b, x| b.or(x[0], x[1]),
            |x| bit(x[0] != 0.0 || x[1] != 0.0),
        ),
        exact(
            "xor",
            2,
            Logic,
            |b, x| b.xor(x[0], x[1]),
            |x| bit((x[0] != 0.0) != (x[1] != 0.0)),
        ),
        exact("not", 1, Logic, |b, x| b.not(x[0]), |x| bit(x[0] == 0.0)),
        exact(
            "bitwise_and",
            2,
            Bits,
            |b, x| b.and(x[0], x[1]),
            |x| (x[0] as i64 & x[1] as i64) as f64,
        ),
        exact(
            "bitwise_or",
            2,
            Bits,
            |b, x| b.or(x[0], x[1]),
            |x| (x[0] as i64 | x[1] as i64) as f64,
        ),
        exact(
            "bitwise_xor",
            2,
            Bits,
            |b, x| b.xor(x[0], x[1]),
            |x| (x[0] as i64 ^ x[1] as i64) as f64,
        ),
        exact("bitwise_not", 1, Bits, |b, x| b.not(x[0]), |x| !(x[0] as i64) as f64),
        exact("shift_left", 2, Bits, |b, x| b.shl(x[0], x[1]), |x| x[0] * x[1].exp2()),
        exact(
            "shift_right",
            2,
            Bits,
            |b, x| b.shr(x[0], x[1]),
            |x| (x[0] / x[1].exp2()).floor(),
        ),
        exact(
            "where",
            3,
            Where,
            |b, x| b.select(x[0], x[1], x[2]),
            |x| if x[0] != 0.0 { x[1] } else { x[2] },
        )
        .never_minus_zero(|s| s.never_minus_zero(1) && s.never_minus_zero(2))
        .nonnegative(|s| s.is_nonnegative(1) && s.is_nonnegative(2)),
        exact("cast", 1, Cast, |_, x| x[0], |x| x[0])
            .never_minus_zero(|s| !s.is_float(0))
            .nonnegative(|s| s.is_float(0) && s.is_nonnegative(0)),
        exact("bitcast", 1, Bitcast, |_, x| x[0], |x| x[0]),
    ]
}

/// Floats neither of which is negative.
fn both(s: &mut dyn Signs) -> bool {
    s.is_float(0) && s.is_nonnegative(0) && s.is_nonnegative(1)
}

fn bit(b: bool) -> f64 {
    b as u8 as f64
}

/// NaN when either is; -0 is smaller than +0.
fn smaller(a: f64, b: f64) -> f64 {
    match a.partial_cmp(&b) {
        None => f64::NAN,
        Some(std::cmp::Ordering::Equal) if b.is_sign_negative() => b,
        Some(std::cmp::Ordering::Greater) => b,
        _ => a,
    }
}

fn python_mod(x: &[f64]) -> f64 {
    let r = x[0] % x[1];
    if r == 0.0 {
        r.copysign(x[1])
    } else if (r < 0.0) != (x[1] < 0.0) {
        r + x[1]
    } else {
        r
    }
}

fn modulo(b: &mut Builder, x: &[V]) -> V {
    let (n, d) = (x[0], x[1]);
    let r = b.rem(n, d);
    let dtype = b.dtype(r);
    if !dtype.is_signed() {
        return r;
    }
    let zero = b.lit(r, 0.0);
    let (r_below, d_below) = (b.lt(r, zero), b.lt(d, zero));
    let differ = b.ne(r_below, d_below);
    let shifted = b.add(r, d);
    let is_zero = b.eq(r, zero);
    let at_zero = if dtype.is_float() { copy_sign(b, zero, d) } else { zero };
    let r = b.select(differ, shifted, r);
    b.select(is_zero, at_zero, r)
}

fn sign(b: &mut Builder, x: &[V]) -> V {
    let x = x[0];
    let (zero, one) = (b.lit(x, 0.0), b.lit(x, 1.0));
    if !b.dtype(x).is_signed() {
        return b.min(x, one);
    }
    let minus = b.lit(x, -1.0);
    let (above, below) = (b.lt(zero, x), b.lt(x, zero));
    // Zeros and NaN are their own sign.
    let rest = b.select(below, minus, x);
    b.select(above, one, rest)
}

fn reciprocal(b: &mut Builder, x: &[V]) -> V {
    let one = b.lit(x[0], 1.0);
    b.div(one, x[0])
}

fn relu(b: &mut Builder, x: &[V]) -> V {
    if !b.dtype(x[0]).is_signed() {
        return x[0];
    }
    let zero = b.lit(x[0], 0.0);
    b.max(x[0], zero)
}

fn is_inf(b: &mut Builder, x: &[V]) -> V {
    let m = b.abs(x[0]);
    let inf = b.lit(m, f64::INFINITY);
    b.eq(m, inf)
}

/// `x[0]` to the power of `x[1]`, for integers.
pub fn integer_pow(b: &mut Builder, x: &[V]) -> V {
    let (base, e) = (x[0], x[1]);
    let (zero, one) = (b.lit(base, 0.0), b.lit(base, 1.0));
    let (mut power, mut square) = (one, base);
    for i in 0..6 {
        let mask = b.int(e, 1 << i);
        let set = b.and(e, mask);
        let set = b.ne(set, zero);
        let product = b.mul(power, square);
        power = b.select(set, product, power);
        square = b.mul(square, square);
    }
    // An even base to a power of 64 or more is a multiple of 2^64.
    let limit = b.int(e, 63);
    let (large, low) = (b.lt(limit, e), b.and(base, one));
    let even = b.eq(low, zero);
    let vanish = b.and(large, even);
    let power = b.select(vanish, zero, power);
    if !b.dtype(base).is_signed() {
        return power;
    }
    // For bases of 1 and -1 the low bits of a negative exponent give the right sign already.
    let (negative, magnitude) = (b.lt(e, zero), b.abs(base));
    let not_unit = b.ne(magnitude, one);
    let vanish = b.and(negative, not_unit);
    b.select(vanish, zero, power)
}
