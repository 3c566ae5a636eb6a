//! The evaluator: the definition of every primitive, bit for bit.
//!
//! Every back end is judged against it. A NaN that arithmetic makes is the canonical quiet one here; its sign and
//! payload are not part of the definition, so comparisons of results must take any NaN for any other.
//! `neg`, `abs`, `select` and `bitcast` only move or change bits and keep a NaN's payload.

use super::{Body, Inst, Prim};
use crate::{DType, Format, Number, decode, encode};

/// A value of any dtype: its bits, zero-extended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scalar {
    /// The dtype.
    pub dtype: DType,
    /// The bits; those above the dtype's width are 0, and a bool is 0 or 1.
    pub bits: u64,
}

impl Scalar {
    /// The value nearest to a number, by the rules of [`Prim::Cast`].
    pub fn new(dtype: DType, x: Number) -> Scalar {
        let bits = match (dtype.format(), x) {
            (Format::F32, Number::Int(v)) => from_f32(v as f32),
            (Format::Half, Number::Int(v)) => float_to(dtype, v as f32 as f64),
            (Format::F64, Number::Int(v)) => from_f64(v as f64),
            (Format::Bool, x) => x.truth() as u64,
            (Format::Small(_), x) => {
                let mut byte = [0];
                encode(dtype, x, &mut byte);
                byte[0].into()
            }
            (_, Number::Float(v)) => float_to(dtype, v),
            (_, Number::Int(v)) => v as u64 & mask(dtype),
        };
        Scalar { dtype, bits }
    }

    /// The value as a number.
    pub fn number(self) -> Number {
        if self.dtype.small().is_some() {
            decode(self.dtype, &[self.bits as u8])
        } else if self.dtype.is_float() {
            Number::Float(to_float(self.dtype, self.bits))
        } else if self.dtype.is_signed() {
            Number::Int(sign_extend(self.dtype, self.bits) as i128)
        } else {
            Number::Int(self.bits as i128)
        }
    }
}

impl From<f32> for Scalar {
    fn from(x: f32) -> Scalar {
        Scalar {
            dtype: DType::F32,
            bits: x.to_bits() as u64,
        }
    }
}
impl From<f64> for Scalar {
    fn from(x: f64) -> Scalar {
        Scalar {
            dtype: DType::F64,
            bits: x.to_bits(),
        }
    }
}
impl From<bool> for Scalar {
    fn from(x: bool) -> Scalar {
        Scalar {
            dtype: DType::Bool,
            bits: x as u64,
        }
    }
}

/// The value of a primitive. `t` is the dtype of its operands (of the last two, for `select` and `rarely`); operands whose dtypes
/// [`Prim::result`] rejects give an unspecified value.
pub fn eval_prim(p: Prim, t: DType, x: &[Scalar]) -> Scalar {
    let bits = |i: usize| x.get(i).map_or(0, |s: &Scalar| s.bits);
    Scalar {
        dtype: result(p, t),
        bits: eval_bits(p, t, bits(0), bits(1), bits(2)),
    }
}

fn result(p: Prim, t: DType) -> DType {
    match p {
        Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le => DType::Bool,
        Prim::Cast(to) | Prim::Bitcast(to) => to,
        _ => t,
    }
}

impl Body {
    /// The results for these inputs, which are converted to the inputs' dtypes first. Panics when their number differs.
    pub fn eval(&self, inputs: &[Number]) -> Vec<Number> {
        assert_eq!(inputs.len(), self.inputs.len(), "inputs of a body");
        let mut values = Vec::with_capacity(inputs.len() + self.insts.len());
        values.extend(self.inputs.iter().zip(inputs).map(|(&d, &x)| Scalar::new(d, x)));
        self.run(&mut values);
        self.outputs.iter().map(|v| values[v.0 as usize].number()).collect()
    }

    /// The results for these inputs, which must have the inputs' dtypes. Panics when their number differs.
    pub fn eval_scalars(&self, inputs: &[Scalar]) -> Vec<Scalar> {
        assert_eq!(inputs.len(), self.inputs.len(), "inputs of a body");
        let mut values = Vec::with_capacity(inputs.len() + self.insts.len());
        values.extend_from_slice(inputs);
        self.run(&mut values);
        self.outputs.iter().map(|v| values[v.0 as usize]).collect()
    }

    /// Evaluates in place: `values` holds the inputs, and afterwards every value of the body by its id. Callers that
    /// evaluate a body many times keep one vector.
    pub fn run(&self, values: &mut Vec<Scalar>) {
        debug_assert_eq!(values.len(), self.inputs.len());
        for inst in &self.insts {
            let s = match *inst {
                Inst::Const(dtype, bits) => Scalar { dtype, bits },
                Inst::Prim(p, args) => {
                    let [a, b, c] = args.map(|v| values[v.0 as usize]);
                    let t = if p.chooses() { b.dtype } else { a.dtype };
                    Scalar {
                        dtype: result(p, t),
                        bits: eval_bits(p, t, a.bits, b.bits, c.bits),
                    }
                }
            };
            values.push(s);
        }
    }
}

const fn mask(t: DType) -> u64 {
    u64::MAX >> (64 - t.bits())
}

fn sign_extend(t: DType, bits: u64) -> i64 {
    let shift = 64 - t.bits();
    ((bits << shift) as i64) >> shift
}

fn from_f32(x: f32) -> u64 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() as u64 }
}

fn from_f64(x: f64) -> u64 {
    if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() }
}

/// One float primitive. The body is the same for both widths, and std has no trait for it.
macro_rules! float_prim {
    ($p:expr, $x:expr, $y:expr, $z:expr, $pack:ident, $bits:expr, $sign:expr) => {{
        let (x, y) = ($x, $y);
        match $p {
            Prim::Add => $pack(x + y),
            Prim::Sub => $pack(x - y),
            Prim::Mul => $pack(x * y),
            Prim::Div => $pack(x / y),
            Prim::Rem => $pack(x % y),
            Prim::Fma => $pack(x.mul_add(y, $z)),
            Prim::Neg => $bits ^ $sign,
            Prim::Abs => $bits & !$sign,
            Prim::Min if x.is_nan() || y.is_nan() => $pack(x + y),
            Prim::Min => $pack(if x < y || (x == y && x.is_sign_negative()) {
                x
            } else {
                y
            }),
            Prim::Max if x.is_nan() || y.is_nan() => $pack(x + y),
            Prim::Max => $pack(if x > y || (x == y && x.is_sign_positive()) {
                x
            } else {
                y
            }),
            Prim::Floor => $pack(x.floor()),
            Prim::Ceil => $pack(x.ceil()),
            Prim::Trunc => $pack(x.trunc()),
            Prim::Round => $pack(x.round_ties_even()),
            Prim::Sqrt => $pack(x.sqrt()),
            Prim::Eq => (x == y) as u64,
            Prim::Ne => (x != y) as u64,
            Prim::Lt => (x < y) as u64,
            Prim::Le => (x <= y) as u64,
            _ => $bits,
        }
    }};
}
#[inline(always)]
pub(super) fn eval_bits(p: Prim, t: DType, a: u64, b: u64, c: u64) -> u64 {
    match p {
        Prim::Select | Prim::Rarely => return if a != 0 { b } else { c },
        Prim::Bitcast(_) => return a,
        Prim::Cast(to) => return cast(t, to, a),
        _ => {}
    }
    match t.format() {
        Format::F32 => {
            let f = |x: u64| f32::from_bits(x as u32);
            float_prim!(p, f(a), f(b), f(c), from_f32, a, 1u64 << 31)
        }
        Format::F64 => {
            let f = f64::from_bits;
            float_prim!(p, f(a), f(b), f(c), from_f64, a, 1u64 << 63)
        }
        // Not operand dtypes of any other primitive.
        Format::Half | Format::Small(_) => a,
        Format::Signed(_) => {
            let (x, y) = (sign_extend(t, a), sign_extend(t, b));
            let r = match p {
                Prim::Add => x.wrapping_add(y),
                Prim::Sub => x.wrapping_sub(y),
                Prim::Mul => x.wrapping_mul(y),
                Prim::Div if y == 0 => 0,
                Prim::Div => x.wrapping_div(y),
                Prim::Rem if y == 0 => 0,
                Prim::Rem => x.wrapping_rem(y),
                Prim::Neg => x.wrapping_neg(),
                Prim::Abs => x.wrapping_abs(),
                Prim::Min => x.min(y),
                Prim::Max => x.max(y),
                Prim::Lt => (x < y) as i64,
                Prim::Le => (x <= y) as i64,
                Prim::Shr => x >> b.min(63),
                _ => bitwise(p, t, a, b) as i64,
            };
            r as u64 & mask(t)
        }
        Format::Unsigned(_) | Format::Bool => {
            let r = match p {
                Prim::Add => a.wrapping_add(b),
                Prim::Sub => a.wrapping_sub(b),
                Prim::Mul => a.wrapping_mul(b),
                Prim::Div => a.checked_div(b).unwrap_or(0),
                Prim::Rem => a.checked_rem(b).unwrap_or(0),
                Prim::Neg => a.wrapping_neg(),
                Prim::Abs => a,
                Prim::Min => a.min(b),
                Prim::Max => a.max(b),
                Prim::Lt => (a < b) as u64,
                Prim::Le => (a <= b) as u64,
                Prim::Shr if b > 63 => 0,
                Prim::Shr => a >> b,
                Prim::Not if t == DType::Bool => a ^ 1,
                _ => bitwise(p, t, a, b),
            };
            r & mask(t)
        }
    }
}

/// What does not depend on the sign.
fn bitwise(p: Prim, t: DType, a: u64, b: u64) -> u64 {
    match p {
        Prim::Eq => (a == b) as u64,
        Prim::Ne => (a != b) as u64,
        Prim::And => a & b,
        Prim::Or => a | b,
        Prim::Xor => a ^ b,
        Prim::Not => !a,
        Prim::Shl if b >= t.bits() as u64 => 0,
        Prim::Shl => a << b,
        _ => a,
    }
}

fn to_float(t: DType, bits: u64) -> f64 {
    match t.format() {
        Format::F64 => f64::from_bits(bits),
        Format::F32 => f32::from_bits(bits as u32) as f64,
        _ => t.from_half(bits as u16) as f64,
    }
}

/// A float in any dtype. The 16-bit floats are reached through f32.
fn float_to(to: DType, x: f64) -> u64 {
    match to.format() {
        Format::F64 => from_f64(x),
        Format::F32 => from_f32(x as f32),
        Format::Half if x.is_nan() => to.to_half(f32::NAN) as u64,
        Format::Half => to.to_half(x as f32) as u64,
        Format::Signed(n) => {
            let most = i64::MAX >> (64 - n);
            (x as i64).clamp(!most, most) as u64 & mask(to)
        }
        Format::Unsigned(_) => (x as u64).min(mask(to)),
        Format::Bool => (x != 0.0) as u64,
        // No primitive converts to them.
        Format::Small(_) => 0,
    }
}

fn cast(from: DType, to: DType, a: u64) -> u64 {
    if from == to {
        return a;
    }
    if from.is_float() {
        return float_to(to, to_float(from, a));
    }
    let signed = from.is_signed();
    let x = if signed { sign_extend(from, a) } else { a as i64 };
    match to.format() {
        Format::Bool => (a != 0) as u64,
        Format::F64 => from_f64(if signed { x as f64 } else { a as f64 }),
        Format::F32 | Format::Half => {
            let f = if signed { x as f32 } else { a as f32 };
            float_to(to, f as f64)
        }
        _ => x as u64 & mask(to),
    }
}
