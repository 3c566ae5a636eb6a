//! Trigonometric functions and their inverses. f32 is computed in f64, but for `sin` and `cos`, which have their own.
//!
//! **Reduction**: `x = n pi/2 + r` with pi/2 in three parts and fused multiply-adds (Cody and Waite 1980). With a fused
//! multiply-add the first step is exact, so three parts serve as long as `n` itself is right: up to [`NEAR`]. Beyond that
//! the quarter turns come from integer arithmetic ([`turns`]), which no model needs often, and the rest from f64.

use super::{ANY, Bound, Function, Rule, approximate, copy_sign, in_double, int_type, is_double, poly, turns};
use crate::DType;
use crate::scalar::{Builder, V};
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, PI};

/// pi/2 minus its nearest f64.
const PI_2_TAIL: f64 = 6.123233995736766e-17;

/// The rows of this family.
pub fn rows() -> Vec<Function> {
    use Rule::Float;
    vec![
        approximate("sin", Float, |b, x| sin(b, x[0]), ulp(1.6, 2.0), |x| x[0].sin(), &[ANY]),
        approximate("cos", Float, |b, x| cos(b, x[0]), ulp(1.6, 2.0), |x| x[0].cos(), &[ANY]),
        approximate(
            "tan",
            Float,
            |b, x| in_double(b, x[0], tan),
            ulp(0.6, 3.0),
            |x| x[0].tan(),
            &[ANY],
        ),
        approximate(
            "asin",
            Float,
            |b, x| in_double(b, x[0], asin),
            ulp(0.6, 2.0),
            |x| x[0].asin(),
            &[ANY],
        ),
        approximate(
            "acos",
            Float,
            |b, x| in_double(b, x[0], acos),
            ulp(0.6, 2.0),
            |x| x[0].acos(),
            &[ANY],
        ),
        approximate(
            "atan",
            Float,
            |b, x| in_double(b, x[0], atan),
            ulp(0.6, 2.0),
            |x| x[0].atan(),
            &[ANY],
        ),
    ]
}

fn ulp(f32: f64, f64: f64) -> Bound {
    Bound { f32, f64, floor: 0.0 }
}

/// The largest magnitudes that three parts of pi/2 reduce, in f32 and in f64.
const NEAR: [f64; 2] = [1e5, 1e9];

/// The sine and the cosine of the reduced argument, and the quadrant, an integer.
struct Reduced {
    sin: V,
    cos: V,
    quadrant: V,
}

/// Reduces an argument that is not beyond [`NEAR`].
fn reduce(b: &mut Builder, x: V) -> Reduced {
    let double = is_double(b, x);
    let parts: [f64; 3] = if double {
        [FRAC_PI_2, PI_2_TAIL, -1.4973849048591698e-33]
    } else {
        [1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15]
    };
    // Rounds to an integer, whose low bits are then those of t.
    let (per, magic) = (
        b.lit(x, FRAC_2_PI),
        b.lit(x, if double { 6755399441055744.0 } else { 12582912.0 }),
    );
    let t = b.fma(x, per, magic);
    let n = b.sub(t, magic);
    let r = parts.into_iter().fold(x, |r, part| {
        let part = b.lit(x, -part);
        b.fma(n, part, r)
    });
    let quadrant = b.bitcast(int_type(b.dtype(x)), t);
    of_rest(b, r, None, quadrant)
}

/// Reduces an f64 of any magnitude beyond.
fn reduce_large(b: &mut Builder, x: V) -> Reduced {
    let t = turns::reduce(b, x);
    of_rest(b, t.rest, Some(t.tail), t.quadrant)
}

/// The sine and the cosine of `r`, or of `r + tail`, within 45 degrees.
fn of_rest(b: &mut Builder, r: V, tail: Option<V>, quadrant: V) -> Reduced {
    const SIN_32: [f64; 3] = [-0.16666653752326965, 0.008332106284797192, -0.00019507823162712157];
    const COS_32: [f64; 3] = [0.04166664555668831, -0.0013887297827750444, 2.4430069970549084e-05];
    const SIN_64: [f64; 6] = [
        -0.16666666666666627,
        0.008333333333321069,
        -0.00019841269828697132,
        2.7557313297667827e-06,
        -2.505069524476317e-08,
        1.5893095129067856e-10,
    ];
    const COS_64: [f64; 6] = [
        0.04166666666666658,
        -0.001388888888887097,
        2.4801587287527944e-05,
        -2.755731379155321e-07,
        2.0875647487122775e-09,
        -1.1355743782854882e-11,
    ];
    let z = b.mul(r, r);
    let (s, c) = if is_double(b, r) {
        (poly(b, z, &SIN_64), poly(b, z, &COS_64))
    } else {
        (poly(b, z, &SIN_32), poly(b, z, &COS_32))
    };
    let cube = b.mul(r, z);
    let (one, minus_half) = (b.lit(r, 1.0), b.lit(r, -0.5));
    let c = b.fma(z, c, minus_half);
    let (sin, cos) = match tail {
        None => (b.fma(cube, s, r), b.fma(z, c, one)),
        Some(tail) => {
            // sin' = cos and cos' = -sin; near enough for the tail's 53rd place.
            let more = b.fma(cube, s, tail);
            let lost = b.mul(r, tail);
            let rest = b.mul(z, c);
            let rest = b.sub(rest, lost);
            (b.add(r, more), b.add(rest, one))
        }
    };
    Reduced { sin, cos, quadrant }
}

/// `far(x)` in f64 where the magnitude is beyond [`NEAR`], `near(x)` elsewhere.
fn by_magnitude(b: &mut Builder, x: V, near: V, far: fn(&mut Builder, V) -> V) -> V {
    let limit = b.lit(x, NEAR[is_double(b, x) as usize]);
    let a = b.abs(x);
    let is_far = b.lt(limit, a);
    let far = in_double(b, x, far);
    b.rarely(is_far, far, near)
}

/// True where bit `bit` of an integer is set.
fn bit_set(b: &mut Builder, i: V, bit: i128) -> V {
    let (mask, zero) = (b.int(i, bit), b.int(i, 0));
    let i = b.and(i, mask);
    b.ne(i, zero)
}

/// The sine, `shift` quarter turns further.
fn turned(b: &mut Builder, r: &Reduced, shift: i128) -> V {
    let dtype = b.dtype(r.sin);
    let shifted = b.int(r.quadrant, shift);
    let quadrant = b.add(r.quadrant, shifted);
    let swap = bit_set(b, quadrant, 1);
    let v = b.select(swap, r.cos, r.sin);
    // Bit 1 of the quadrant is the sign.
    let (two, up) = (b.int(quadrant, 2), b.int(quadrant, dtype.bits() as i128 - 2));
    let sign = b.and(quadrant, two);
    let sign = b.shl(sign, up);
    let v = b.bitcast(int_type(dtype), v);
    let v = b.xor(v, sign);
    b.bitcast(dtype, v)
}

fn sin(b: &mut Builder, x: V) -> V {
    let r = reduce(b, x);
    let v = turned(b, &r, 0);
    // The reduction gives +0 for -0.
    let zero = b.lit(x, 0.0);
    let is_zero = b.eq(x, zero);
    let near = b.select(is_zero, x, v);
    by_magnitude(b, x, near, |b, x| {
        let a = b.abs(x);
        let r = reduce_large(b, a);
        let v = turned(b, &r, 0);
        flip(b, v, x)
    })
}

fn cos(b: &mut Builder, x: V) -> V {
    let r = reduce(b, x);
    let near = turned(b, &r, 1);
    by_magnitude(b, x, near, |b, x| {
        let a = b.abs(x);
        let r = reduce_large(b, a);
        turned(b, &r, 1)
    })
}

/// `v`, negated where `x` is negative.
fn flip(b: &mut Builder, v: V, x: V) -> V {
    let (bits, sign) = (b.bitcast(DType::I64, v), b.bitcast(DType::I64, x));
    let mask = b.int(sign, i64::MIN as i128);
    let sign = b.and(sign, mask);
    let bits = b.xor(bits, sign);
    b.bitcast(DType::F64, bits)
}

/// The quotient of sine and cosine; `tan(r + pi/2) = -cos r / sin r`.
fn slope(b: &mut Builder, r: &Reduced) -> V {
    let swap = bit_set(b, r.quadrant, 1);
    let minus = b.neg(r.cos);
    let n = b.select(swap, minus, r.sin);
    let d = b.select(swap, r.sin, r.cos);
    b.div(n, d)
}

fn tan(b: &mut Builder, x: V) -> V {
    let r = reduce(b, x);
    let q = slope(b, &r);
    let zero = b.lit(x, 0.0);
    let is_zero = b.eq(x, zero);
    let near = b.select(is_zero, x, q);
    by_magnitude(b, x, near, |b, x| {
        let a = b.abs(x);
        let r = reduce_large(b, a);
        let q = slope(b, &r);
        flip(b, q, x)
    })
}

/// `asin s` for `0 <= s <= 0.5` and `z = s^2`; relative error 1.7e-17.
fn asin_small(b: &mut Builder, s: V, z: V) -> V {
    const P: [f64; 12] = [
        0.16666666666665403,
        0.07500000000338698,
        0.04464285682687801,
        0.030381959198968314,
        0.022371756516640983,
        0.017359728541518266,
        0.01388499467750197,
        0.012170829039194003,
        0.006520830782364023,
        0.019548208132186863,
        -0.016256137366156453,
        0.03193451557164817,
    ];
    let p = poly(b, z, &P);
    let cube = b.mul(s, z);
    b.fma(cube, p, s)
}

/// `asin` of the smaller of `|x|` and `((1 - |x|)/2)^1/2`, and whether it is `|x|`.
fn asin_parts(b: &mut Builder, x: V) -> (V, V) {
    let (half, minus_half) = (b.lit(x, 0.5), b.lit(x, -0.5));
    let a = b.abs(x);
    let near = b.lt(a, half);
    let square = b.mul(a, a);
    let rest = b.fma(a, minus_half, half);
    let z = b.select(near, square, rest);
    // Below zero, where |x| > 1: NaN.
    let root = b.sqrt(z);
    let s = b.select(near, a, root);
    (asin_small(b, s, z), near)
}

/// `asin x = pi/2 - 2 asin(((1 - x)/2)^1/2)` above a half.
fn asin(b: &mut Builder, x: V) -> V {
    let (r, near) = asin_parts(b, x);
    let (quarter_turn, tail) = (b.lit(x, FRAC_PI_2), b.lit(x, PI_2_TAIL));
    let twice = b.add(r, r);
    let twice = b.sub(twice, tail);
    let far = b.sub(quarter_turn, twice);
    let r = b.select(near, r, far);
    copy_sign(b, r, x)
}

fn acos(b: &mut Builder, x: V) -> V {
    let (r, near) = asin_parts(b, x);
    let (quarter_turn, tail, half_turn, zero) = (b.lit(x, FRAC_PI_2), b.lit(x, PI_2_TAIL), b.lit(x, PI), b.lit(x, 0.0));
    let signed = copy_sign(b, r, x);
    let small = b.sub(signed, tail);
    let small = b.sub(quarter_turn, small);
    let twice = b.add(r, r);
    let twice_tail = b.lit(x, 2.0 * PI_2_TAIL);
    let left = b.sub(twice, twice_tail);
    let left = b.sub(half_turn, left);
    let negative = b.lt(x, zero);
    let far = b.select(negative, left, twice);
    b.select(near, small, far)
}

/// `atan x = pi/2 - atan(1/x)` above 1.
fn atan(b: &mut Builder, x: V) -> V {
    /// `(atan(x)/x - 1) / x^2` in `x^2` for `|x| <= 1`; relative error 4.2e-17.
    const P: [f64; 20] = [
        -0.3333333333333307,
        0.19999999999951495,
        -0.14285714282577233,
        0.1111111100709255,
        -0.09090907004235532,
        0.07692279854521661,
        -0.06666404186719244,
        0.05880528605105026,
        -0.052535221475415866,
        0.04722334605410993,
        -0.04219211742347665,
        0.03664258218700281,
        -0.029904923900351786,
        0.021986159519757378,
        -0.013901784415884385,
        0.00719736386250587,
        -0.0028853574422283684,
        0.0008314751809255681,
        -0.00015219366188828093,
        1.3228314335537377e-05,
    ];
    let (one, quarter_turn, tail) = (b.lit(x, 1.0), b.lit(x, FRAC_PI_2), b.lit(x, PI_2_TAIL));
    let a = b.abs(x);
    let far = b.lt(one, a);
    let inverse = b.div(one, a);
    let w = b.select(far, inverse, a);
    let z = b.mul(w, w);
    let p = poly(b, z, &P);
    let cube = b.mul(w, z);
    let near = b.fma(cube, p, w);
    let less = b.sub(near, tail);
    let complement = b.sub(quarter_turn, less);
    let r = b.select(far, complement, near);
    copy_sign(b, r, x)
}
