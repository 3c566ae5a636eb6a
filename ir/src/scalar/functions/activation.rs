//! Activations: sigmoid and its relatives, `erf` and GELU.
//!
//! Those made of `e^x` divide once: with `e^x = q / d`, `sigmoid x = q / (q + d)`, where neither part overflows, so
//! that the tails are right down to subnormal results. `gelu` in f32 needs neither: `gelu x = max(x, 0) - a Phi(-a)` with
//! `a = |x|`, and `Phi(-a)` is one polynomial of the clamped `a` with a factor that vanishes at its end.
//! The f64 bounds of `erf` and `gelu` hold the error of their references; against a table they are within 2.5 ULP.
//! The error of `gelu` is absolute: the negative tail, below 1e-6, has few right digits.

use super::exponential::{Exp, exp_negative, log1p_unit};
use super::{ANY, Bound, Function, Rule, approximate, is_double, poly};
use crate::scalar::{Builder, V};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// The rows of this family.
pub fn rows() -> Vec<Function> {
    use Rule::Float;
    // Below -87 the sigmoid is subnormal, and products with it have few digits.
    const UPPER: (f64, f64) = (-87.0, f64::INFINITY);
    vec![
        approximate(
            "sigmoid",
            Float,
            |b, x| sigmoid(b, x[0]),
            ulp(2.5, 3.0),
            |x| logistic(x[0]),
            &[ANY],
        )
        .nonnegative(|_| true),
        approximate("silu", Float, silu, ulp(3.5, 4.0), |x| x[0] * logistic(x[0]), &[UPPER]),
        approximate(
            "softplus",
            Float,
            softplus,
            ulp(2.5, 3.0),
            |x| x[0].max(0.0) + (-x[0].abs()).exp().ln_1p(),
            &[ANY],
        )
        .nonnegative(|_| true),
        approximate("mish", Float, mish, ulp(4.0, 5.0), mish_reference, &[UPPER]),
        approximate("softsign", Float, softsign, ulp(1.5, 1.5), softsign_reference, &[ANY]),
        approximate(
            "erf",
            Float,
            |b, x| erf(b, x[0]),
            ulp(1.5, 6.0),
            |x| erf_reference(x[0]),
            &[ANY],
        ),
        approximate(
            "gelu",
            Float,
            gelu,
            Bound {
                f32: 3.0,
                f64: 8.0,
                floor: 0.25,
            },
            gelu_reference,
            &[ANY],
        ),
        approximate(
            "gelu_tanh",
            Float,
            gelu_tanh,
            Bound {
                f32: 2.0,
                f64: 3.0,
                floor: 0.25,
            },
            gelu_tanh_reference,
            &[ANY],
        ),
    ]
}

fn ulp(f32: f64, f64: f64) -> Bound {
    Bound { f32, f64, floor: 0.0 }
}

fn logistic(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

fn mish_reference(x: &[f64]) -> f64 {
    let n = if x[0] > 20.0 {
        return x[0];
    } else {
        x[0].exp() * (x[0].exp() + 2.0)
    };
    x[0] * (n / (n + 2.0))
}

fn softsign_reference(x: &[f64]) -> f64 {
    if x[0].is_infinite() {
        x[0].signum()
    } else {
        x[0] / (1.0 + x[0].abs())
    }
}

/// Below 2 the series with positive terms, `2 pi^-1/2 x e^(-x^2) (1 + 2x^2/3 (1 + 2x^2/5 (1 + …)))`, above it the
/// continued fraction of `erfc` (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erf_reference(x: f64) -> f64 {
    let (a, square) = (x.abs(), x * x);
    let r = if a.is_nan() || a > 7.0 {
        a.min(1.0)
    } else if a < 2.0 {
        let sum = (1..100)
            .rev()
            .fold(1.0, |sum, n| 1.0 + sum * (2.0 * square / (2 * n + 1) as f64));
        FRAC_2_SQRT_PI * a * ((-square).exp() * sum)
    } else {
        let fraction = (1..100).rev().fold(a, |d, n| a + n as f64 / 2.0 / d);
        1.0 - 0.5 * FRAC_2_SQRT_PI * (-square).exp() / fraction
    };
    if a.is_nan() { a } else { r.copysign(x) }
}

fn gelu_reference(x: &[f64]) -> f64 {
    if x[0] == f64::NEG_INFINITY {
        return f64::NAN;
    }
    let x = if x[0] < -1e3 { -1e3 } else { x[0] };
    0.5 * x * (1.0 + erf_reference(x * FRAC_1_SQRT_2))
}

fn gelu_tanh_reference(x: &[f64]) -> f64 {
    if x[0] == f64::NEG_INFINITY {
        return f64::NAN;
    }
    let x = if x[0] < -1e3 { -1e3 } else { x[0] };
    x * logistic(2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))
}

/// The square root of 2 over pi.
const SQRT_2_OVER_PI: f64 = 0.7978845608028654;

/// `1 / (1 + e^-x)`.
fn sigmoid(b: &mut Builder, x: V) -> V {
    let low = b.lit(x, if is_double(b, x) { -746.0 } else { -105.0 });
    let x = b.max(x, low);
    sigmoid_from(b, x)
}

/// The sigmoid of a value that is not far below the range of `exp`.
fn sigmoid_from(b: &mut Builder, x: V) -> V {
    let high = b.lit(x, 40.0);
    let x = b.min(x, high);
    let (q, d) = Exp::new(b, x, None).quotient(b);
    let sum = b.add(q, d);
    b.div(q, sum)
}

/// `x sigmoid x`; NaN at minus infinity, as that product is.
fn silu(b: &mut Builder, x: &[V]) -> V {
    let low = b.lit(x[0], if is_double(b, x[0]) { -760.0 } else { -110.0 });
    let capped = b.max(x[0], low);
    let s = sigmoid_from(b, capped);
    b.mul(x[0], s)
}

/// `log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)`.
fn softplus(b: &mut Builder, x: &[V]) -> V {
    let x = x[0];
    let minus = b.neg(x);
    let (zero, below) = (b.lit(x, 0.0), b.min(x, minus));
    let e = exp_negative(b, below);
    let log = log1p_unit(b, e);
    let above = b.max(x, zero);
    b.add(above, log)
}

/// `x tanh(softplus x) = x n / (n + 2)` with `n = e^x (e^x + 2)`; NaN at minus infinity, as that product is.
fn mish(b: &mut Builder, x: &[V]) -> V {
    let (low, high) = if is_double(b, x[0]) {
        (-746.0, 40.0)
    } else {
        (-104.0, 20.0)
    };
    let (low, high, two) = (b.lit(x[0], low), b.lit(x[0], high), b.lit(x[0], 2.0));
    let capped = b.max(x[0], low);
    let capped = b.min(capped, high);
    let e = Exp::new(b, capped, None).value(b);
    let twice = b.add(e, e);
    let n = b.fma(e, e, twice);
    let d = b.add(n, two);
    let ratio = b.div(n, d);
    b.mul(x[0], ratio)
}

/// `x / (1 + |x|)`; 1 in the limit.
fn softsign(b: &mut Builder, x: &[V]) -> V {
    // Infinity would divide itself.
    let large = b.lit(x[0], if is_double(b, x[0]) { f64::MAX } else { f32::MAX as f64 });
    let (one, minus) = (b.lit(x[0], 1.0), b.neg(large));
    let x = b.min(x[0], large);
    let x = b.max(x, minus);
    let a = b.abs(x);
    let d = b.add(a, one);
    b.div(x, d)
}

/// `erf(x)/x - 1` in `x^2` for `|x| <= 1`; relative error 1.4e-9.
const ERF_SMALL_32: [f64; 7] = [
    0.12837916612625122,
    -0.3761262595653534,
    0.11283578723669052,
    -0.026853347197175026,
    0.005187162198126316,
    -0.0007997852517291903,
    7.806898065609857e-05,
];

/// `erf a` in `t = (2a - 4.92) / 2.92` for `1 <= a <= 3.92`; absolute error 6.6e-9, exactly 1 at the end.
const ERF_LARGE_32: [f64; 15] = [
    0.9994966387748718,
    0.003878111019730568,
    -0.013928987085819244,
    0.03059980645775795,
    -0.04504719004034996,
    0.0451081283390522,
    -0.028448184952139854,
    0.006491438951343298,
    0.0073494394309818745,
    -0.009024734608829021,
    0.0033340444788336754,
    0.0015822737477719784,
    -0.0016235036309808493,
    1.4571974134014454e-05,
    0.00021811806072946638,
];

/// `erf(x)/x - 1` in `x^2` for `|x| <= 1`; relative error 7.3e-18.
const ERF_SMALL_64: [f64; 12] = [
    0.12837916709551256,
    -0.3761263890318352,
    0.112837916709442,
    -0.026866170643113394,
    0.005223977606130813,
    -0.0008548325929766059,
    0.00012055293586936385,
    -1.4924712439533532e-05,
    1.6447132699784248e-06,
    -1.6206318752965553e-07,
    1.371098870418608e-08,
    -7.779462971758347e-10,
];
/// `e^(a^2) erfc a` in `t = (2a - 6.95) / 4.95` for `1 <= a <= 5.95`; absolute error 5e-17 of `e^(-a^2)`.
const ERFC_LARGE_64: [f64; 20] = [
    0.15633345028397433,
    -0.10360767707012093,
    0.06654931285181337,
    -0.04153070713872768,
    0.025233288616788422,
    -0.01495119733034558,
    0.008656675502151859,
    -0.004919967083809413,
    0.002628821855729072,
    -0.0016011492145017962,
    0.001005487423604532,
    0.0007565216888653621,
    0.002122864870341548,
    0.0005956318979161841,
    -0.0026971535813138455,
    -0.005903608081486094,
    -0.005959685377977179,
    -0.0035711892957770767,
    -0.0012116388396495223,
    -0.00018881092235725432,
];

/// `erf x` for `|x| <= 1`.
fn erf_small(b: &mut Builder, x: V) -> V {
    let z = b.mul(x, x);
    let p = if is_double(b, x) {
        poly(b, z, &ERF_SMALL_64)
    } else {
        poly(b, z, &ERF_SMALL_32)
    };
    b.fma(p, x, x)
}

/// `erfc a` for `a >= 1`, f64.
fn erfc_large(b: &mut Builder, a: V) -> V {
    let (end, scale, shift) = (b.lit(a, 5.95), b.lit(a, 2.0 / 4.95), b.lit(a, -6.95 / 4.95));
    let a = b.min(a, end);
    let t = b.fma(a, scale, shift);
    let w = poly(b, t, &ERFC_LARGE_64);
    let minus = b.neg(a);
    let square = b.mul(a, minus);
    let e = Exp::new(b, square, None).value(b);
    b.mul(e, w)
}

/// The error function: a polynomial on each side of 1.
pub fn erf(b: &mut Builder, x: V) -> V {
    let (one, zero) = (b.lit(x, 1.0), b.lit(x, 0.0));
    let a = b.abs(x);
    let small = erf_small(b, x);
    let large = if is_double(b, x) {
        let c = erfc_large(b, a);
        b.sub(one, c)
    } else {
        let (end, scale, shift) = (b.lit(a, 3.92), b.lit(a, 2.0 / 2.92), b.lit(a, -4.92 / 2.92));
        let capped = b.min(a, end);
        let t = b.fma(capped, scale, shift);
        poly(b, t, &ERF_LARGE_32)
    };
    let minus = b.neg(large);
    let (negative, near) = (b.lt(x, zero), b.lt(a, one));
    let large = b.select(negative, minus, large);
    b.select(near, small, large)
}

/// `-Phi(-a) / (1 - t)` in `t = a / 2.8 - 1` for `0 <= a <= 5.6`; absolute error 1.3e-8.
const GELU_32: [f64; 18] = [
    -0.002555118640884757,
    0.019608158618211746,
    -0.06727205216884613,
    0.1308136284351349,
    -0.14390479028224945,
    0.05392768234014511,
    0.08251474797725677,
    -0.13433310389518738,
    0.054749272763729095,
    0.05614669248461723,
    -0.07901830971240997,
    0.014304214157164097,
    0.03906218707561493,
    -0.02418540045619011,
    -0.009485057555139065,
    0.010531572625041008,
    0.0009089613449759781,
    -0.001813613693229854,
];

/// `x Phi(x)`, Phi being the normal distribution; NaN at minus infinity, as that product is.
fn gelu(b: &mut Builder, x: &[V]) -> V {
    let x = x[0];
    let (zero, one) = (b.lit(x, -0.0), b.lit(x, 1.0));
    let a = b.abs(x);
    // max(x, -0), but NaN at minus infinity.
    let below = b.min(x, zero);
    let minus = b.sub(below, x);
    let positive = b.neg(minus);
    if !is_double(b, x) {
        let (end, scale, minus) = (b.lit(a, 5.6), b.lit(a, 2.0 / 5.6), b.lit(a, -1.0));
        let a = b.min(a, end);
        let t = b.fma(a, scale, minus);
        let factor = b.sub(one, t);
        let p = poly(b, t, &GELU_32);
        let p = b.mul(p, factor);
        return b.fma(a, p, positive);
    }
    let (half, root) = (b.lit(x, 0.5), b.lit(x, FRAC_1_SQRT_2));
    let z = b.mul(x, root);
    let small = erf_small(b, z);
    let h = b.mul(x, half);
    let small = b.fma(h, small, h);
    let z = b.abs(z);
    let c = erfc_large(b, z);
    // Beyond the end of the table the tail is nothing, and infinity times nothing must not be NaN.
    let (end, minus_half) = (b.lit(a, 9.0), b.lit(a, -0.5));
    let capped = b.min(a, end);
    let m = b.mul(capped, minus_half);
    let large = b.fma(m, c, positive);
    let near = b.lt(z, one);
    let value = b.select(near, small, large);
    // The sum has lost the sign of -0.
    let is_zero = b.eq(x, zero);
    b.select(is_zero, x, value)
}

/// `x sigmoid(2 (2/pi)^1/2 (x + 0.044715 x^3))`; NaN at minus infinity, as that product is.
fn gelu_tanh(b: &mut Builder, x: &[V]) -> V {
    const LINEAR: f64 = 2.0 * SQRT_2_OVER_PI;
    // The sigmoid is 0 there.
    let low = b.lit(x[0], if is_double(b, x[0]) { -22.0 } else { -11.0 });
    let capped = b.max(x[0], low);
    let (linear, cubic) = (b.lit(capped, LINEAR), b.lit(capped, LINEAR * 0.044715));
    let square = b.mul(capped, capped);
    let slope = b.fma(square, cubic, linear);
    let argument = b.mul(capped, slope);
    let s = sigmoid_from(b, argument);
    b.mul(x[0], s)
}
