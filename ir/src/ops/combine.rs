//! The associative operations of reductions, scans, pooling and scatters: identity and combination in every dtype.

use super::Signs;
use crate::{DType, Number};

/// An associative operation with an identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Combine {
    /// `a + b`, identity 0.
    Sum,
    /// `a * b`, identity 1.
    Prod,
    /// The larger, NaN when either is; identity `-inf` or the smallest integer.
    Max,
    /// The smaller, NaN when either is; identity `inf` or the largest integer.
    Min,
    /// Of bools; identity true.
    And,
    /// Of bools; identity false.
    Or,
}

impl Combine {
    /// Every one.
    pub const ALL: [Combine; 6] = [
        Combine::Sum,
        Combine::Prod,
        Combine::Max,
        Combine::Min,
        Combine::And,
        Combine::Or,
    ];

    /// True when no combination of an operand's elements can be -0: a sum starts from +0, and only -0 + -0 is -0.
    /// (A sum of products is another matter: with one rounding for both, a product that underflows below 0 gives -0.)
    pub fn never_minus_zero(self, of: &mut dyn Signs) -> bool {
        match self {
            Combine::Sum => true,
            Combine::Max | Combine::Min => of.never_minus_zero(0),
            _ => false,
        }
    }

    /// True when no combination of an operand's elements is below 0 or -0. The maximum of nothing is -inf, and sums of
    /// integers wrap.
    pub fn is_nonnegative(self, of: &mut dyn Signs) -> bool {
        matches!(self, Combine::Sum | Combine::Prod) && of.is_float(0) && of.is_nonnegative(0)
    }

    /// The scalar function that combines two elements of a dtype.
    pub const fn function(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Combine::Sum, _) => "add",
            (Combine::Prod, _) => "mul",
            (Combine::Max, DType::Bool) | (Combine::Or, _) => "or",
            (Combine::Min, DType::Bool) | (Combine::And, _) => "and",
            (Combine::Max, _) => "max",
            (Combine::Min, _) => "min",
        }
    }

    /// The operation of a keyword.
    ///
    /// # Errors
    /// When the keyword is not among `allowed`.
    pub fn of(word: &str, allowed: &[Combine]) -> Result<Combine, String> {
        allowed.iter().copied().find(|c| c.word() == word).ok_or_else(|| {
            let words: Vec<&str> = allowed.iter().map(|c| c.word()).collect();
            format!("kind `{word}`, expected one of {}", words.join(", "))
        })
    }

    /// The keyword of attributes.
    pub const fn word(self) -> &'static str {
        match self {
            Combine::Sum => "sum",
            Combine::Prod => "prod",
            Combine::Max => "max",
            Combine::Min => "min",
            Combine::And => "and",
            Combine::Or => "or",
        }
    }

    /// Checks that it is defined on a dtype: `and` and `or` on bool, the others on everything else.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(self, dtype: DType) -> Result<(), String> {
        if matches!(self, Combine::And | Combine::Or) == (dtype == DType::Bool) {
            Ok(())
        } else {
            Err(format!("`{}` of {dtype} elements, which is not defined", self.word()))
        }
    }

    /// The dtype in which a reference evaluation combines elements of a computing dtype: sums of f32 in f64, so that long
    /// ones are right to the last place.
    pub fn exact(self, dtype: DType) -> DType {
        match (self, dtype) {
            (Combine::Sum, DType::F32) => DType::F64,
            _ => dtype,
        }
    }

    /// The identity in a dtype.
    pub fn identity(self, dtype: DType) -> Number {
        let (min, max) = range(dtype);
        match self {
            Combine::Sum => Number::Int(0).to(dtype),
            Combine::Prod | Combine::And => Number::Int(1).to(dtype),
            Combine::Or => Number::Int(0),
            Combine::Max => min,
            Combine::Min => max,
        }
    }

    /// The combination of two values of a computing dtype (never f16 or bf16): floats round to it, integers wrap.
    pub fn apply(self, dtype: DType, a: Number, b: Number) -> Number {
        match (a, b) {
            (Number::Int(a), Number::Int(b)) => match self {
                Combine::Sum => Number::Int(a.wrapping_add(b)).to(dtype),
                Combine::Prod => Number::Int(a.wrapping_mul(b)).to(dtype),
                Combine::Max | Combine::Or => Number::Int(a.max(b)),
                Combine::Min | Combine::And => Number::Int(a.min(b)),
            },
            _ => {
                let (a, b) = (a.f64(), b.f64());
                // Sums and products of two f32 in f64 round to f32 as if computed in it: 53 bits hold 2·24 + 2.
                let x = match self {
                    Combine::Sum => a + b,
                    Combine::Prod => a * b,
                    Combine::Max | Combine::Or => maximum(a, b),
                    Combine::Min | Combine::And => -maximum(-a, -b),
                };
                Number::Float(if dtype == DType::F32 { x as f32 as f64 } else { x })
            }
        }
    }
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a > b || (a == b && b.is_sign_negative()) {
        a
    } else {
        b
    }
}

fn range(dtype: DType) -> (Number, Number) {
    if dtype.is_float() {
        return (Number::Float(f64::NEG_INFINITY), Number::Float(f64::INFINITY));
    }
    let magnitude = 1i128 << (dtype.bits() - dtype.is_signed() as usize);
    match dtype {
        DType::Bool => (Number::Int(0), Number::Int(1)),
        d if d.is_signed() => (Number::Int(-magnitude), Number::Int(magnitude - 1)),
        _ => (Number::Int(0), Number::Int(magnitude - 1)),
    }
}
