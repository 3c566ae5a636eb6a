//! The accumulators of contractions and convolutions: products summed in the `acc` dtype, then given as `out`.
//!
//! Integers of every width are summed in 64 wrapping bits, whose low bits are what a narrower wrapping sum has.

use crate::{DType, Number, Tensor, Type};
use std::num::Wrapping;

/// A type that products are summed in.
pub trait Accumulator: Copy {
    /// An operand's element.
    fn from_number(x: Number) -> Self;
    /// `self + a * b`.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum.
    fn number(self) -> Number;
    /// The empty sum.
    const ZERO: Self;
}

impl Accumulator for f32 {
    fn from_number(x: Number) -> f32 {
        x.f64() as f32
    }
    #[inline]
    fn add_product(self, a: f32, b: f32) -> f32 {
        self + a * b
    }
    fn number(self) -> Number {
        Number::Float(self as f64)
    }
    const ZERO: f32 = 0.0;
}

impl Accumulator for f64 {
    fn from_number(x: Number) -> f64 {
        x.f64()
    }
    #[inline]
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
    fn number(self) -> Number {
        Number::Float(self)
    }
    const ZERO: f64 = 0.0;
}

impl Accumulator for Wrapping<i64> {
    fn from_number(x: Number) -> Self {
        Wrapping(x.int() as i64)
    }
    #[inline]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    fn number(self) -> Number {
        Number::Int(self.0 as i128)
    }
    const ZERO: Self = Wrapping(0);
}

/// Checks operands' dtypes against the accumulator's and the result's: all floats or all integers, no operand loses
/// bits in the accumulator, and sums are in a computing dtype. Operands need not be of one dtype.
pub fn check_dtypes(lhs: &Type, rhs: &Type, acc: DType, out: DType) -> Result<(), String> {
    let fits =
        |d: DType| d == acc || (d.is_float() && acc.is_float() || d.is_int() && acc.is_int()) && d.bits() < acc.bits();
    if acc == DType::Bool || acc.is_half() {
        return Err(format!("accumulator {acc}, expected f32, f64 or an integer dtype"));
    }
    for t in [lhs, rhs] {
        if !fits(t.dtype) {
            return Err(format!(
                "operand {t} with accumulator {acc}, which cannot hold its elements"
            ));
        }
    }
    if out == DType::Bool || out.is_float() != acc.is_float() {
        return Err(format!(
            "result dtype {out} from accumulator {acc}, expected both floats or both integers"
        ));
    }
    Ok(())
}

/// Checks that operands that are floats have one dtype.
pub fn check_one_float(lhs: &Type, rhs: &Type) -> Result<(), String> {
    match lhs.dtype.is_float() && lhs.dtype != rhs.dtype {
        true => Err(format!("operands {lhs} and {rhs}, expected one float dtype")),
        false => Ok(()),
    }
}

/// Adds `x · factor` to every sum, with every `step`-th element of `xs`.
pub fn add_scaled<T: Accumulator>(sums: &mut [T], xs: &[T], step: usize, factor: T) {
    if step == 1 {
        // The common case on its own is three times as fast: a variable step hides from the compiler what is contiguous.
        for (sum, &x) in sums.iter_mut().zip(xs) {
            *sum = sum.add_product(x, factor);
        }
    } else {
        for (sum, &x) in sums.iter_mut().zip(xs.iter().step_by(step)) {
            *sum = sum.add_product(x, factor);
        }
    }
}

/// The elements of an operand.
pub fn load<T: Accumulator>(x: &Tensor) -> Vec<T> {
    x.iter().map(T::from_number).collect()
}

/// The tensor of sums: each is a value of `acc`, converted to `out`.
pub fn store<T: Accumulator>(sums: &[T], acc: DType, out: DType, shape: &[usize]) -> Tensor {
    Tensor::from_fn(out, shape, |i| sums[i].number().to(acc))
}
