//! Reduction of large arguments by whole quarter turns (Payne and Hanek 1983), in integers.
//!
//! `x = m 2^e`, so of the binary digits of `1/(2 pi)` those before the e-th give whole turns, and 192 from there on, times
//! `m`, give the fraction of a turn to 2^-128: no f64 comes nearer than 2^-64 or so to a quarter turn. Everything here
//! stands behind [`crate::scalar::Prim::Rarely`].

use super::exponential::two_sum;
use crate::DType;
use crate::scalar::{Builder, V};
use std::f64::consts::PI;

/// 64 zeros, then the binary digits of `1/(2 pi)` behind the point.
const PER_TURN: [u64; 20] = [
    0,
    0x28be_60db_9391_054a,
    0x7f09_d5f4_7d4d_3770,
    0x36d8_a566_4f10_e410,
    0x7f94_58ea_f7ae_f158,
    0x6dc9_1b8e_9093_74b8,
    0x0192_4bba_8274_6487,
    0x3f87_7ac7_2c4a_69cf,
    0xba20_8d7d_4bae_d121,
    0x3a67_1c09_ad17_df90,
    0x4e64_758e_60d4_ce7d,
    0x2721_17e2_ef7e_4a0e,
    0xc7fe_25ff_f781_6603,
    0xfbcb_c462_d682_9b47,
    0xdb4d_9fb3_c9f2_c26d,
    0xd3d1_8fd9_a797_fa8b,
    0x5d49_eeb1_faf9_7c5e,
    0xcf41_ce7d_e294_a4ba,
    0x9afe_d7ec_47e3_5742,
    0x1580_cc11_bf1e_daea,
];

/// pi minus its nearest f64.
const PI_TAIL: f64 = 1.2246467991473532e-16;

/// An argument without its whole quarter turns.
pub struct Turned {
    /// What is left, within 45 degrees, in radians.
    pub rest: V,
    /// What rounding `rest` has lost.
    pub tail: V,
    /// The number of quarter turns, modulo 4; i64.
    pub quadrant: V,
}

/// Reduces a finite f64 of at least 2^-11; infinity and NaN leave NaN.
pub fn reduce(b: &mut Builder, x: V) -> Turned {
    let bits = b.bitcast(DType::U64, x);
    let (mantissa, one) = (b.int(bits, (1 << 52) - 1), b.int(bits, 1 << 52));
    let m = b.and(bits, mantissa);
    let m = b.or(m, one);
    let (e, bias) = (shr(b, bits, 52), b.int(bits, 1075 - 64));
    let at = b.sub(e, bias);
    let [high, middle, low] = digits(b, at);
    let carried = product_high(b, m, low);
    let product = b.mul(m, middle);
    let fine = b.add(product, carried);
    let over = b.lt(fine, carried);
    let over = b.cast(DType::U64, over);
    let product = b.mul(m, high);
    let carried = product_high(b, m, middle);
    let turns = b.add(product, carried);
    let turns = b.add(turns, over);
    // To the nearest quarter.
    let eighth = b.int(turns, 1 << 61);
    let rounded = b.add(turns, eighth);
    let quadrant = shr(b, rounded, 62);
    let quarters = shl(b, quadrant, 62);
    let rest = b.sub(turns, quarters);
    let rest = b.bitcast(DType::I64, rest);
    let (sum, tail) = as_floats(b, rest, fine);
    // From 2^-64 turns to radians.
    let unit = 63f64.exp2();
    let (per, per_tail) = (b.lit(x, PI / unit), b.lit(x, PI_TAIL / unit));
    let r = b.mul(sum, per);
    let minus = b.neg(r);
    let lost = b.fma(sum, per, minus);
    let lost = b.fma(sum, per_tail, lost);
    let lost = b.fma(tail, per, lost);
    // 0, or NaN.
    let undefined = b.sub(x, x);
    Turned {
        rest: b.add(r, undefined),
        tail: lost,
        quadrant: b.bitcast(DType::I64, quadrant),
    }
}

fn shl(b: &mut Builder, x: V, by: i128) -> V {
    let by = b.int(x, by);
    b.shl(x, by)
}

fn shr(b: &mut Builder, x: V, by: i128) -> V {
    let by = b.int(x, by);
    b.shr(x, by)
}

/// The low 32 bits.
fn low_half(b: &mut Builder, x: V) -> V {
    let mask = b.int(x, 0xffff_ffff);
    b.and(x, mask)
}

/// 192 digits of [`PER_TURN`] from the one at `at` on.
fn digits(b: &mut Builder, at: V) -> [V; 3] {
    let word = shr(b, at, 6);
    let mut window: Vec<V> = PER_TURN.iter().map(|&w| b.int(at, w as i128)).collect();
    for step in [16usize, 8, 4, 2, 1] {
        let bit = b.int(word, step as i128);
        let skip = b.and(word, bit);
        let zero = b.int(word, 0);
        let skip = b.ne(skip, zero);
        // What is left to skip is less than the step, and four words are wanted.
        let keep = (step + 3).min(window.len());
        window = (0..keep)
            .map(|j| match window.get(j + step) {
                Some(&far) => b.select(skip, far, window[j]),
                None => window[j],
            })
            .collect();
    }
    let (bits, width) = (b.int(at, 63), b.int(at, 64));
    let left = b.and(at, bits);
    let right = b.sub(width, left);
    [0, 1, 2].map(|i| {
        // A shift by 64 gives 0.
        let (upper, lower) = (b.shl(window[i], left), b.shr(window[i + 1], right));
        b.or(upper, lower)
    })
}

/// The upper 64 bits of a product, the first factor being below 2^53.
fn product_high(b: &mut Builder, m: V, w: V) -> V {
    let (m1, m0) = (shr(b, m, 32), low_half(b, m));
    let (w1, w0) = (shr(b, w, 32), low_half(b, w));
    let low = b.mul(m0, w0);
    let low = shr(b, low, 32);
    let cross = b.mul(m0, w1);
    let cross = b.add(cross, low);
    let other = b.mul(m1, w0);
    let rest = low_half(b, cross);
    let other = b.add(other, rest);
    let (cross, other) = (shr(b, cross, 32), shr(b, other, 32));
    let high = b.mul(m1, w1);
    let high = b.add(high, cross);
    b.add(high, other)
}

/// `whole + fine 2^-64` as a sum of two f64, `whole` being an i64 and `fine` a u64.
fn as_floats(b: &mut Builder, whole: V, fine: V) -> (V, V) {
    let fine = b.bitcast(DType::I64, fine);
    let parts = [
        shr(b, whole, 32),
        low_half(b, whole),
        shr(b, fine, 32),
        low_half(b, fine),
    ];
    let upper = low_half(b, parts[2]);
    let [d0, d1, d2, d3] = [parts[0], parts[1], upper, parts[3]].map(|i| b.cast(DType::F64, i));
    let (up, down) = (b.lit(d0, 32f64.exp2()), b.lit(d0, (-32f64).exp2()));
    let d0 = b.mul(d0, up);
    let (sum, lost) = two_sum(b, d0, d1);
    let f = b.fma(d3, down, d2);
    let rest = b.fma(f, down, lost);
    two_sum(b, sum, rest)
}
