//! What is known of the signs of elements, for laws that hold but for the sign of a zero.

/// What an operator may ask of its operands' elements. Every answer is a bound: "no" may mean "not known".
pub trait Signs {
    /// True when no element of an operand can be -0 (any may be NaN).
    fn never_minus_zero(&mut self, operand: usize) -> bool;
    /// True when every element of an operand is +0, above 0 or NaN.
    fn is_nonnegative(&mut self, operand: usize) -> bool;
    /// True when the elements of an operand are floats.
    fn is_float(&self, operand: usize) -> bool;
    /// True when the first two operands are one value.
    fn are_one(&self) -> bool;
}

/// How the sign of a function's result follows from those of its operands.
#[derive(Clone, Copy)]
pub struct SignLaw {
    /// When no result is -0.
    pub never_minus_zero: fn(&mut dyn Signs) -> bool,
    /// When every result is +0, above 0 or NaN.
    pub is_nonnegative: fn(&mut dyn Signs) -> bool,
}

impl SignLaw {
    /// Nothing is known.
    pub const NONE: SignLaw = SignLaw {
        never_minus_zero: |_| false,
        is_nonnegative: |_| false,
    };
}
