//! `exp`, `log`, `pow`, and the kernels on which the other families stand.
//!
//! **exp.** `x = n ln 2 + r` with `|r| <= ln(2)/2`, and `e^x = e^r 2^i 2^j` with `i + j = n`: a minimax polynomial and
//! two multiplications. Because `n` is split into halves, each factor stays normal, and gradual underflow and overflow
//! need no branch. `n` falls out of the low bits of `x / ln 2 + 1.5 2^23`.
//!
//! **log.** The argument is split into `2^k m` with `m` near 1; `log m` is a polynomial in `m - 1` (f32), or fdlibm's
//! series in `s = (m - 1)/(m + 1)` (f64; Sun Microsystems 1993, the identity, not the code).
//!
//! **pow.** f32 goes through f64. f64 carries `log x` as an unevaluated sum of two doubles, about 2^-64 relative.
//!
//! Coefficients are our own (Remez exchange on the stated interval; rounded one after the other for f32).

use super::{Bound, Function, Rule, approximate, arithmetic, int_type, is_double, poly};
use crate::DType;
use crate::scalar::{Builder, V};
use std::f64::consts::{LN_2, LOG2_E};

/// `ln 2` minus its nearest f64.
const LN_2_TAIL: f64 = 2.319046813846299e-17;

/// The rows of this family.
pub fn rows() -> Vec<Function> {
    use super::ANY;
    vec![
        approximate(
            "exp",
            Rule::Float,
            |b, x| exp(b, x[0]),
            ulp(1.0, 1.5),
            |x| x[0].exp(),
            &[ANY],
        )
        .nonnegative(|_| true),
        approximate(
            "expm1",
            Rule::Float,
            |b, x| expm1(b, x[0]),
            ulp(2.0, 2.0),
            |x| x[0].exp_m1(),
            &[ANY],
        ),
        approximate(
            "log",
            Rule::Float,
            |b, x| log(b, x[0]),
            ulp(1.5, 1.5),
            |x| x[0].ln(),
            &[ANY],
        ),
        Function {
            arity: 2,
            ..approximate(
                "pow",
                Rule::Number,
                pow,
                ulp(1.0, 2.0),
                |x| x[0].powf(x[1]),
                &[ANY, ANY],
            )
        },
    ]
}

fn ulp(f32: f64, f64: f64) -> Bound {
    Bound { f32, f64, floor: 0.0 }
}

/// `e^x = p 2^i 2^j`.
pub struct Exp {
    /// `e^r - 1`, between -0.3 and 0.42.
    less: V,
    /// `e^r`.
    p: V,
    /// `2^i`.
    first: V,
    /// The bits of `2^i`.
    bits: V,
    /// `2^j`.
    second: V,
}

impl Exp {
    /// The parts of `e^(x + low)`. `x` must be within ±160 for f32 and ±1400 for f64, or NaN.
    pub fn new(b: &mut Builder, x: V, low: Option<V>) -> Exp {
        let (dtype, double) = (b.dtype(x), is_double(b, x));
        let (t, n) = whole_power(b, x, 2.0);
        // The first step does not round: multiples of the last place of ln 2 that are below 1/2 are exact.
        let (high, tail) = if double {
            (LN_2, LN_2_TAIL)
        } else {
            let high = LN_2 as f32 as f64;
            (high, LN_2 - high)
        };
        let (high, tail) = (b.lit(x, -high), b.lit(x, -tail));
        let r = b.fma(n, high, x);
        let mut r = b.fma(n, tail, r);
        if let Some(low) = low {
            r = b.add(r, low);
        }
        let slope = if double {
            poly(b, r, &EXP_64)
        } else {
            poly(b, r, &EXP_32)
        };
        let one = b.lit(x, 1.0);
        let (less, p) = (b.mul(slope, r), b.fma(slope, r, one));
        let t = b.bitcast(int_type(dtype), t);
        let (one, mantissa) = (b.int(t, 1), b.int(t, if double { 52 } else { 23 }));
        let i = b.shr(t, one);
        let j = b.sub(t, i);
        let (bits, second) = (b.shl(i, mantissa), b.shl(j, mantissa));
        Exp {
            less,
            p,
            first: b.bitcast(dtype, bits),
            bits,
            second: b.bitcast(dtype, second),
        }
    }

    /// The whole value.
    pub fn value(&self, b: &mut Builder) -> V {
        let v = b.mul(self.p, self.second);
        b.mul(v, self.first)
    }

    /// Half the value, which overflows later.
    pub fn half(&self, b: &mut Builder) -> V {
        let half = b.lit(self.p, 0.5);
        let p = b.mul(self.p, half);
        let v = b.mul(p, self.second);
        b.mul(v, self.first)
    }

    /// The whole value minus 1, for `x` above -50 or so: `((e^r - 1) + (1 - 2^-n)) 2^n`, of which the second term is exact
    /// or outweighs the first.
    fn minus_one(&self, b: &mut Builder) -> V {
        let dtype = b.dtype(self.p);
        let inverse = |b: &mut Builder, power: V| {
            let bits = b.bitcast(int_type(dtype), power);
            let sum = b.int(bits, if dtype == DType::F64 { 2046 << 52 } else { 254 << 23 });
            let bits = b.sub(sum, bits);
            b.bitcast(dtype, bits)
        };
        let (first, second) = (inverse(b, self.first), inverse(b, self.second));
        let (one, down) = (b.lit(self.p, 1.0), b.mul(first, second));
        let rest = b.sub(one, down);
        let v = b.add(self.less, rest);
        let v = b.mul(v, self.second);
        b.mul(v, self.first)
    }

    /// `q` and `d` with `e^x = q / d`, neither of them subnormal or infinite.
    pub fn quotient(&self, b: &mut Builder) -> (V, V) {
        let dtype = b.dtype(self.p);
        let q = b.mul(self.p, self.second);
        let sum = if dtype == DType::F64 { 2046i128 << 52 } else { 254 << 23 };
        let sum = b.int(self.bits, sum);
        let bits = b.sub(sum, self.bits);
        (q, b.bitcast(dtype, bits))
    }
}

/// `(e^r - 1) / r` for `|r| <= ln(2)/2`; relative error of `e^r` 3.2e-9.
const EXP_32: [f64; 6] = [
    1.0,
    0.4999999403953552,
    0.16666516661643982,
    0.041668105870485306,
    0.008369134739041328,
    0.0013836511643603444,
];
/// The same; relative error 1.4e-19.
const EXP_64: [f64; 12] = [
    1.0,
    0.5,
    0.16666666666666688,
    0.041666666666666824,
    0.00833333333331395,
    0.0013888888888782384,
    0.0001984126990310026,
    2.480158754331189e-05,
    2.7557229061265616e-06,
    2.7557087897416273e-07,
    2.511377226522886e-08,
    2.0969562216874483e-09,
];

/// Where `e^x` is zero or infinite for certain.
fn exp_range(b: &Builder, x: V) -> (f64, f64) {
    if b.dtype(x) == DType::F64 {
        (-746.0, 710.0)
    } else {
        (-104.0, 89.0)
    }
}

/// `e^x`.
pub fn exp(b: &mut Builder, x: V) -> V {
    let (low, high) = exp_range(b, x);
    let (low, high) = (b.lit(x, low), b.lit(x, high));
    let x = b.max(x, low);
    let x = b.min(x, high);
    Exp::new(b, x, None).value(b)
}

/// `e^x` for `x <= 0`.
pub fn exp_negative(b: &mut Builder, x: V) -> V {
    let low = exp_range(b, x).0;
    let low = b.lit(x, low);
    let x = b.max(x, low);
    Exp::new(b, x, None).value(b)
}

/// The power of 2 nearest to `e^x`: a number in whose low bits stand its exponent and so many times the exponent's bias, and the
/// exponent.
fn whole_power(b: &mut Builder, x: V, biases: f64) -> (V, V) {
    let (magic, bias) = if is_double(b, x) {
        (6755399441055744.0, 1023.0)
    } else {
        (12582912.0, 127.0)
    };
    let magic = b.lit(x, magic + biases * bias);
    let per = b.lit(x, LOG2_E);
    let t = b.fma(x, per, magic);
    (t, b.sub(t, magic))
}

/// `e^x` for `x <= 0` as a weight beside that of 0, which is 1: within 3 units in the last place where `x` is above -20, and 0 where
/// it would be subnormal.
pub fn exp_weight(b: &mut Builder, x: V) -> V {
    let double = is_double(b, x);
    let (t, n) = whole_power(b, x, 1.0);
    let high = b.lit(x, if double { -LN_2 } else { -f64::from(LN_2 as f32) });
    let mut r = b.fma(n, high, x);
    if double {
        let tail = b.lit(x, -LN_2_TAIL);
        r = b.fma(n, tail, r);
    }
    let slope = if double {
        poly(b, r, &EXP_64)
    } else {
        poly(b, r, &EXP_32)
    };
    let one = b.lit(x, 1.0);
    let p = b.fma(slope, r, one);
    let dtype = b.dtype(x);
    let t = b.bitcast(int_type(dtype), t);
    let mantissa = b.int(t, if double { 52 } else { 23 });
    let power = b.shl(t, mantissa);
    let power = b.bitcast(dtype, power);
    let v = b.mul(p, power);
    let (least, zero) = (b.lit(x, if double { -708.0 } else { -87.0 }), b.lit(x, 0.0));
    let subnormal = b.lt(x, least);
    b.select(subnormal, zero, v)
}

/// `e^x - 1`, which keeps its digits near zero.
fn expm1(b: &mut Builder, x: V) -> V {
    // The result is -1 below -40.
    let (low, high, zero) = (b.lit(x, -40.0), b.lit(x, exp_range(b, x).1), b.lit(x, 0.0));
    let a = b.max(x, low);
    let a = b.min(a, high);
    let v = Exp::new(b, a, None).minus_one(b);
    let is_zero = b.eq(x, zero);
    b.select(is_zero, x, v)
}

/// `x = 2^k m` with `m` near 1, for positive finite `x`: `k` as a float, and `m`.
fn split(b: &mut Builder, x: V) -> (V, V) {
    let dtype = b.dtype(x);
    // The least m is 2/3 for f32 and the root of a half for f64.
    let (least, mantissa, tiny, up) = match dtype {
        DType::F64 => (0x3fe6_a09e_6000_0000i128, 52, f64::MIN_POSITIVE, 54),
        _ => (0x3f2a_aaab, 23, f32::MIN_POSITIVE as f64, 24),
    };
    let (tiny, scale) = (b.lit(x, tiny), b.lit(x, (up as f64).exp2()));
    let subnormal = b.lt(x, tiny);
    let scaled = b.mul(x, scale);
    let x = b.select(subnormal, scaled, x);
    let i = b.bitcast(int_type(dtype), x);
    let (least, mantissa) = (b.int(i, least), b.int(i, mantissa));
    let above = b.sub(i, least);
    let k = b.shr(above, mantissa);
    let exponent = b.shl(k, mantissa);
    let m = b.sub(i, exponent);
    let m = b.bitcast(dtype, m);
    let (up, zero) = (b.int(k, up), b.int(k, 0));
    let correction = b.select(subnormal, up, zero);
    let k = b.sub(k, correction);
    if dtype != DType::F64 {
        return (b.cast(dtype, k), m);
    }
    // Few machines convert vectors of 64-bit integers: k goes into the low bits of 1.5 2^52.
    let magic = b.lit(m, 6755399441055744.0);
    let bits = b.bitcast(DType::I64, magic);
    let bits = b.add(bits, k);
    let k = b.bitcast(DType::F64, bits);
    (b.sub(k, magic), m)
}

/// `log(1 + f)` for `-1/3 <= f <= 1/3`, f32: `f - f^2/2 + f^3 p(f)`; relative error 3.7e-8.
fn log1p_near_zero(b: &mut Builder, f: V) -> V {
    const P: [f64; 8] = [
        -0.5,
        0.3333326578140259,
        -0.2500424385070801,
        0.20007939636707306,
        -0.16472128033638,
        0.1404189169406891,
        -0.15123623609542847,
        0.13822688162326813,
    ];
    let square = b.mul(f, f);
    let p = poly(b, f, &P);
    b.fma(square, p, f)
}

/// `log x` for positive finite `x`. `c` is a small correction to add to the logarithm.
fn log_core(b: &mut Builder, x: V, c: Option<V>) -> V {
    let (k, m) = split(b, x);
    let one = b.lit(m, 1.0);
    let f = b.sub(m, one);
    if !is_double(b, x) {
        let log = log1p_near_zero(b, f);
        let ln2 = b.lit(x, LN_2);
        return b.fma(k, ln2, log);
    }
    // log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2)))
    const R: [f64; 7] = [
        0.666666666666674,
        0.3999999999937648,
        0.2857142875168138,
        0.22222197544478084,
        0.1818362140312579,
        0.1531250376801346,
        0.14812242230711534,
    ];
    let (two, half) = (b.lit(f, 2.0), b.lit(f, 0.5));
    let d = b.add(f, two);
    let s = b.div(f, d);
    let z = b.mul(s, s);
    let r = poly(b, z, &R);
    let r = b.mul(z, r);
    let h = b.mul(f, half);
    let h = b.mul(h, f);
    let inner = b.add(h, r);
    let inner = b.mul(s, inner);
    // The top 32 bits of ln 2, so that its product with k is exact, and the rest.
    let high = f64::from_bits(LN_2.to_bits() & !0xffff_ffff);
    let (high, low) = (b.lit(k, high), b.lit(k, LN_2 - high + LN_2_TAIL));
    let mut tail = b.fma(k, low, inner);
    if let Some(c) = c {
        tail = b.add(tail, c);
    }
    let rest = b.sub(h, tail);
    let rest = b.sub(rest, f);
    let whole = b.mul(k, high);
    b.sub(whole, rest)
}

/// `log x`.
pub fn log(b: &mut Builder, x: V) -> V {
    let log = log_core(b, x, None);
    let (zero, inf) = (b.lit(x, 0.0), b.lit(x, f64::INFINITY));
    let (minus_inf, nan) = (b.lit(x, f64::NEG_INFINITY), b.lit(x, f64::NAN));
    let (is_zero, positive, finite) = (b.eq(x, zero), b.lt(zero, x), b.lt(x, inf));
    let outside = b.select(is_zero, minus_inf, nan);
    // Infinity and NaN are their own logarithm.
    let log = b.select(finite, log, x);
    b.select(positive, log, outside)
}

/// `log(1 + x)` for `x >= 0` or NaN, in f64.
pub fn log1p_64(b: &mut Builder, x: V) -> V {
    let (one, inf) = (b.lit(x, 1.0), b.lit(x, f64::INFINITY));
    let u = b.add(x, one);
    // What rounding 1 + x has lost.
    let back = b.sub(u, one);
    let lost = b.sub(x, back);
    let c = b.div(lost, u);
    let log = log_core(b, u, Some(c));
    let finite = b.lt(x, inf);
    b.select(finite, log, x)
}

/// `log(1 + e)` for `0 <= e <= 1` or NaN.
pub fn log1p_unit(b: &mut Builder, e: V) -> V {
    if is_double(b, e) {
        return log1p_64(b, e);
    }
    let (third, half, minus) = (b.lit(e, 1.0 / 3.0), b.lit(e, 0.5), b.lit(e, -0.5));
    let upper = b.lt(third, e);
    // 1 + e = 2 (1 + (e - 1)/2)
    let halved = b.fma(e, half, minus);
    let f = b.select(upper, halved, e);
    let log = log1p_near_zero(b, f);
    let ln2 = b.lit(e, LN_2);
    let more = b.add(log, ln2);
    b.select(upper, more, log)
}

/// `x[0]` to the power of `x[1]`, as C's `pow` (floats) and [`arithmetic::integer_pow`] define it.
fn pow(b: &mut Builder, x: &[V]) -> V {
    match b.dtype(x[0]) {
        DType::F64 => pow_double(b, x[0], x[1], true),
        DType::F32 => {
            let wide = [b.cast(DType::F64, x[0]), b.cast(DType::F64, x[1])];
            let r = pow_double(b, wide[0], wide[1], false);
            b.cast(DType::F32, r)
        }
        _ => arithmetic::integer_pow(b, x),
    }
}

/// `x^y` in f64; unless `precise`, with 35 bits or so, which suffice for f32.
fn pow_double(b: &mut Builder, x: V, y: V, precise: bool) -> V {
    let (zero, one, half) = (b.lit(x, 0.0), b.lit(x, 1.0), b.lit(x, 0.5));
    let (inf, nan) = (b.lit(x, f64::INFINITY), b.lit(x, f64::NAN));
    let a = b.abs(x);
    // A power of 1e22 is 0, 1 or infinite already, and its products stay finite.
    let (least, most) = (b.lit(y, -1e22), b.lit(y, 1e22));
    let e = b.max(y, least);
    let e = b.min(e, most);
    let (low, high) = (b.lit(x, -750.0), b.lit(x, 711.0));
    let magnitude = if precise {
        let (log, tail) = log_double_double(b, a);
        let h = b.mul(e, log);
        let minus = b.neg(h);
        let rest = b.fma(e, log, minus);
        let rest = b.fma(e, tail, rest);
        let minus_one = b.lit(x, -1.0);
        let rest = b.max(rest, minus_one);
        let rest = b.min(rest, one);
        let h = b.max(h, low);
        let h = b.min(h, high);
        Exp::new(b, h, Some(rest)).value(b)
    } else {
        let log = log_core(b, a, None);
        let h = b.mul(e, log);
        let h = b.max(h, low);
        let h = b.min(h, high);
        Exp::new(b, h, None).value(b)
    };
    // Bases of magnitude 0 and infinity.
    let (is_zero, is_inf, rises) = (b.eq(a, zero), b.eq(a, inf), b.lt(zero, y));
    let large = b.eq(is_inf, rises);
    let extreme = b.select(large, inf, zero);
    let is_extreme = b.or(is_zero, is_inf);
    let magnitude = b.select(is_extreme, extreme, magnitude);
    // Negative bases: the sign of odd powers; no value for a fraction.
    let whole = b.floor(y);
    let integral = b.eq(whole, y);
    let halved = b.mul(y, half);
    let whole = b.floor(halved);
    let even_or_fraction = b.eq(whole, halved);
    let odd = b.not(even_or_fraction);
    let odd = b.and(odd, integral);
    let (xi, mi) = (b.bitcast(DType::I64, x), b.bitcast(DType::I64, magnitude));
    let sign = b.int(xi, i64::MIN as i128);
    let (sign, none) = (b.and(xi, sign), b.int(xi, 0));
    let sign = b.select(odd, sign, none);
    let signed = b.or(mi, sign);
    let power = b.bitcast(DType::F64, signed);
    let negative = b.lt(x, zero);
    let fraction = b.not(integral);
    let finite_base = b.not(is_extreme);
    let undefined = b.and(negative, fraction);
    let undefined = b.and(undefined, finite_base);
    let power = b.select(undefined, nan, power);
    let (x_nan, y_nan) = (b.ne(x, x), b.ne(y, y));
    let any_nan = b.or(x_nan, y_nan);
    let power = b.select(any_nan, nan, power);
    let (trivial_power, trivial_base) = (b.eq(y, zero), b.eq(x, one));
    let trivial = b.or(trivial_power, trivial_base);
    b.select(trivial, one, power)
}

/// `log x` for positive finite `x` as a sum of two doubles.
fn log_double_double(b: &mut Builder, x: V) -> (V, V) {
    // log m = 2s + s z (2/3 + z Q(z)) with z = s^2
    const Q: [f64; 8] = [
        0.39999999999999974,
        0.28571428571446267,
        0.22222222217254944,
        0.18181818904943017,
        0.15384554505002038,
        0.13336408504604377,
        0.11672969617323663,
        0.12004401926537166,
    ];
    const TWO_THIRDS: f64 = 2.0 / 3.0;
    const TWO_THIRDS_TAIL: f64 = 3.700743415417188e-17;
    let (k, m) = split(b, x);
    let (one, two) = (b.lit(m, 1.0), b.lit(m, 2.0));
    let f = b.sub(m, one);
    let d = b.add(f, two);
    let d_back = b.sub(d, two);
    let d_tail = b.sub(f, d_back);
    // s + s_tail = f / (d + d_tail)
    let s = b.div(f, d);
    let minus_s = b.neg(s);
    let rest = b.fma(minus_s, d, f);
    let rest = b.fma(minus_s, d_tail, rest);
    let s_tail = b.div(rest, d);
    let (z, z_tail) = product(b, (s, s_tail), (s, s_tail));
    let q = poly(b, z, &Q);
    let (third, third_tail) = (b.lit(m, TWO_THIRDS), b.lit(m, TWO_THIRDS_TAIL));
    let zq = b.mul(z, q);
    let (p, p_tail) = quick_sum(b, third, zq);
    let p_tail = b.add(p_tail, third_tail);
    let sz = product(b, (s, s_tail), (z, z_tail));
    let (cubic, cubic_tail) = product(b, sz, (p, p_tail));
    let (s2, s2_tail) = (b.add(s, s), b.add(s_tail, s_tail));
    let (l, l_tail) = quick_sum(b, s2, cubic);
    let tails = b.add(s2_tail, cubic_tail);
    let l_tail = b.add(l_tail, tails);
    // k ln 2, whose head is exact.
    let head = f64::from_bits(LN_2.to_bits() & !0xffff_ffff);
    let rest = LN_2 - head;
    let (head, rest, last) = (b.lit(k, head), b.lit(k, rest), b.lit(k, LN_2_TAIL));
    let whole = b.mul(k, head);
    let (sum, sum_tail) = quick_sum(b, whole, l);
    // When k is 0 the first summand is the smaller one, and exactly 0: nothing is lost.
    let part = b.mul(k, rest);
    let minus = b.neg(part);
    let part_tail = b.fma(k, rest, minus);
    let part_tail = b.fma(k, last, part_tail);
    let (sum, more) = two_sum(b, sum, part);
    let tail = b.add(sum_tail, more);
    let tail = b.add(tail, l_tail);
    let tail = b.add(tail, part_tail);
    quick_sum(b, sum, tail)
}

/// The rounded sum and its error, for `|x| >= |y|` (Dekker 1971).
fn quick_sum(b: &mut Builder, x: V, y: V) -> (V, V) {
    let sum = b.add(x, y);
    let back = b.sub(sum, x);
    (sum, b.sub(y, back))
}

/// The rounded sum and its error (Knuth, volume 2).
pub fn two_sum(b: &mut Builder, x: V, y: V) -> (V, V) {
    let sum = b.add(x, y);
    let y_part = b.sub(sum, x);
    let x_part = b.sub(sum, y_part);
    let (dx, dy) = (b.sub(x, x_part), b.sub(y, y_part));
    (sum, b.add(dx, dy))
}

/// The product of two sums of two doubles.
fn product(b: &mut Builder, x: (V, V), y: (V, V)) -> (V, V) {
    let p = b.mul(x.0, y.0);
    let minus = b.neg(p);
    let tail = b.fma(x.0, y.0, minus);
    let tail = b.fma(x.0, y.1, tail);
    (p, b.fma(x.1, y.0, tail))
}
