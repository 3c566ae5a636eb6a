//! Hyperbolic functions and their inverses. f32 is computed in f64, but for `tanh`, which is hot and has its own.
//!
//! `sinh` and `cosh` take `e^x / 2` as one value, which overflows only where they do. The inverses are written with
//! `log(1 + y)`, which keeps their digits near zero (as in Kahan, "Branch cuts for complex elementary functions", 1987).

use super::exponential::{Exp, log1p_64};
use super::{ANY, Bound, Function, Rule, approximate, copy_sign, in_double, is_double, poly};
use crate::scalar::{Builder, V};
use std::f64::consts::{LN_2, LOG2_E};

/// The rows of this family.
pub fn rows() -> Vec<Function> {
    use Rule::Float;
    vec![
        approximate(
            "tanh",
            Float,
            |b, x| tanh(b, x[0]),
            ulp(2.0, 2.0),
            |x| x[0].tanh(),
            &[ANY],
        ),
        approximate(
            "sinh",
            Float,
            |b, x| in_double(b, x[0], sinh),
            ulp(0.6, 2.0),
            |x| x[0].sinh(),
            &[ANY],
        ),
        approximate(
            "cosh",
            Float,
            |b, x| in_double(b, x[0], cosh),
            ulp(0.6, 2.0),
            |x| x[0].cosh(),
            &[ANY],
        ),
        approximate(
            "asinh",
            Float,
            |b, x| in_double(b, x[0], asinh),
            ulp(0.6, 3.0),
            |x| asinh_reference(x[0].abs()).copysign(x[0]),
            &[ANY],
        ),
        approximate(
            "acosh",
            Float,
            |b, x| in_double(b, x[0], acosh),
            ulp(0.6, 3.0),
            acosh_reference,
            &[ANY],
        ),
        approximate(
            "atanh",
            Float,
            |b, x| in_double(b, x[0], atanh),
            ulp(0.6, 3.0),
            |x| atanh_reference(x[0].abs()).copysign(x[0]),
            &[ANY],
        ),
    ]
}

fn ulp(f32: f64, f64: f64) -> Bound {
    Bound { f32, f64, floor: 0.0 }
}

// std's inverses overflow for large arguments and lose digits near 1.

fn asinh_reference(a: f64) -> f64 {
    if a > 1e9 {
        a.ln() + LN_2
    } else {
        (a + a * a / (1.0 + (1.0 + a * a).sqrt())).ln_1p()
    }
}

fn atanh_reference(a: f64) -> f64 {
    if a < 0.5 {
        0.5 * (2.0 * a + 2.0 * a * a / (1.0 - a)).ln_1p()
    } else {
        0.5 * (2.0 * a / (1.0 - a)).ln_1p()
    }
}

fn acosh_reference(x: &[f64]) -> f64 {
    let t = x[0] - 1.0;
    if t < 0.0 {
        return f64::NAN;
    }
    if t > 1e9 {
        x[0].ln() + LN_2
    } else {
        (t + (t * (t + 2.0)).sqrt()).ln_1p()
    }
}

/// `(tanh(x)/x - 1) / x^2` in `x^2` for `|x| <= 0.55`; relative error 3.7e-8.
const TANH_SMALL_32: [f64; 4] = [
    -0.3333294689655304,
    0.1332072913646698,
    -0.0526718869805336,
    0.016437403857707977,
];

/// `e^2r` for `|r| <= ln(2)/4`; relative error 4.4e-9.
const EXP_TWICE_32: [f64; 7] = [
    1.0,
    2.0,
    2.0,
    1.333319067955017,
    0.6666488647460938,
    0.2679130434989929,
    0.0898241251707077,
];

/// `(tanh(x)/x - 1) / x^2` in `x^2` for `|x| <= 0.55`; relative error 3e-18.
const TANH_SMALL_64: [f64; 12] = [
    -0.3333333333333333,
    0.13333333333333067,
    -0.053968253968043375,
    0.0218694885278175,
    -0.008863235336080492,
    0.0035921251606842192,
    -0.001455805830586623,
    0.0005898329324200223,
    -0.00023821361348970332,
    9.396578881301313e-05,
    -3.296357936031069e-05,
    7.447189066674225e-06,
];

/// `tanh x`: a polynomial near zero, `1 - 2 / (e^2|x| + 1)` elsewhere.
fn tanh(b: &mut Builder, x: V) -> V {
    let double = is_double(b, x);
    let (one, minus_two) = (b.lit(x, 1.0), b.lit(x, -2.0));
    let a = b.abs(x);
    let z = b.mul(x, x);
    let p = if double {
        poly(b, z, &TANH_SMALL_64)
    } else {
        poly(b, z, &TANH_SMALL_32)
    };
    let cube = b.mul(a, z);
    let small = b.fma(cube, p, a);
    let end = b.lit(a, if double { 20.0 } else { 9.02 });
    let capped = b.min(a, end);
    let sum = if double {
        let twice = b.add(capped, capped);
        let e = Exp::new(b, twice, None).value(b);
        b.add(e, one)
    } else {
        // The error of ln 2 does not matter here: where it grows, the quotient is small.
        let (magic, per, step) = (
            b.lit(a, 12582912.0 + 127.0),
            b.lit(a, 2.0 * LOG2_E),
            b.lit(a, -LN_2 / 2.0),
        );
        let t = b.fma(capped, per, magic);
        let n = b.sub(t, magic);
        let r = b.fma(n, step, capped);
        let p = poly(b, r, &EXP_TWICE_32);
        let t = b.bitcast(crate::DType::I32, t);
        let shift = b.int(t, 23);
        let t = b.shl(t, shift);
        let scale = b.bitcast(crate::DType::F32, t);
        b.fma(p, scale, one)
    };
    let q = b.div(minus_two, sum);
    let large = b.add(q, one);
    let threshold = b.lit(a, 0.55);
    let near = b.lt(a, threshold);
    let r = b.select(near, small, large);
    copy_sign(b, r, x)
}

/// `e^|x| / 2`.
fn half_exp(b: &mut Builder, a: V) -> V {
    let end = b.lit(a, 712.0);
    let a = b.min(a, end);
    Exp::new(b, a, None).half(b)
}

fn sinh(b: &mut Builder, x: V) -> V {
    /// `(sinh(x)/x - 1) / x^2` in `x^2` for `|x| <= 1`.
    const P: [f64; 8] = [
        0.16666666666666666,
        0.008333333333333333,
        0.000198412698412696,
        2.7557319224116297e-06,
        2.5052108346507378e-08,
        1.6059050601487424e-10,
        7.646482880145277e-13,
        2.8482334346631e-15,
    ];
    let (one, quarter) = (b.lit(x, 1.0), b.lit(x, 0.25));
    let a = b.abs(x);
    let z = b.mul(x, x);
    let p = poly(b, z, &P);
    let cube = b.mul(x, z);
    let small = b.fma(cube, p, x);
    let h = half_exp(b, a);
    let rest = b.div(quarter, h);
    let large = b.sub(h, rest);
    let large = copy_sign(b, large, x);
    let near = b.lt(a, one);
    b.select(near, small, large)
}

fn cosh(b: &mut Builder, x: V) -> V {
    let quarter = b.lit(x, 0.25);
    let a = b.abs(x);
    let h = half_exp(b, a);
    let rest = b.div(quarter, h);
    b.add(h, rest)
}

/// `log(1 + a + a^2 / (1 + (1 + a^2)^1/2))`; `log a + log 2` where the square would overflow.
fn asinh(b: &mut Builder, x: V) -> V {
    let (one, huge) = (b.lit(x, 1.0), b.lit(x, 500f64.exp2()));
    let a = b.abs(x);
    let square = b.mul(a, a);
    let sum = b.add(square, one);
    let root = b.sqrt(sum);
    let d = b.add(root, one);
    let q = b.div(square, d);
    let y = b.add(a, q);
    let is_huge = b.lt(huge, a);
    let r = log1p_or_log_twice(b, is_huge, a, y);
    copy_sign(b, r, x)
}

/// `log(1 + t + (2t + t^2)^1/2)` with `t = x - 1`.
fn acosh(b: &mut Builder, x: V) -> V {
    let (one, two, huge, nan) = (
        b.lit(x, 1.0),
        b.lit(x, 2.0),
        b.lit(x, 500f64.exp2()),
        b.lit(x, f64::NAN),
    );
    let t = b.sub(x, one);
    let sum = b.add(t, two);
    let square = b.mul(t, sum);
    let root = b.sqrt(square);
    let y = b.add(t, root);
    let is_huge = b.lt(huge, x);
    let r = log1p_or_log_twice(b, is_huge, x, y);
    let below = b.lt(x, one);
    b.select(below, nan, r)
}

/// `huge ? log(2a) : log(1 + y)`.
fn log1p_or_log_twice(b: &mut Builder, huge: V, a: V, y: V) -> V {
    let (ln2, zero) = (b.lit(a, LN_2), b.lit(a, 0.0));
    let y = b.select(huge, a, y);
    let more = b.select(huge, ln2, zero);
    let log = log1p_64(b, y);
    b.add(log, more)
}

/// `log(1 + 2a / (1 - a)) / 2`, the quotient as `2a + 2a^2 / (1 - a)` below a half.
fn atanh(b: &mut Builder, x: V) -> V {
    let (one, half, nan) = (b.lit(x, 1.0), b.lit(x, 0.5), b.lit(x, f64::NAN));
    let a = b.abs(x);
    let d = b.sub(one, a);
    let twice = b.add(a, a);
    let near = b.lt(a, half);
    let square = b.mul(twice, a);
    let n = b.select(near, square, twice);
    let q = b.div(n, d);
    let sum = b.add(twice, q);
    let y = b.select(near, sum, q);
    let log = log1p_64(b, y);
    let r = b.mul(log, half);
    let r = copy_sign(b, r, x);
    let outside = b.lt(one, a);
    b.select(outside, nan, r)
}
