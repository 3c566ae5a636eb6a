//! What a dim is under known symbols: the one definition that the back ends follow, step by step.
//!
//! Invariant: a term is the product of its atoms from left to right, then times its coefficient; the sum runs from left
//! to right with the constant last; a result that leaves 64 bits at any step is none. So machine code that checks each
//! step finds a value exactly where this does.

use super::{Atom, Dim, DimOp};
use std::fmt;

/// Why a dim has no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoValue {
    /// A symbol without a value.
    Unknown(String),
    /// A division by zero; the dim that divides.
    DivisionByZero(String),
    /// A step whose result is beyond 64 bits; the dim that it is part of.
    TooLarge(String),
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoValue::Unknown(s) => write!(f, "the symbol `{s}` has no value"),
            NoValue::DivisionByZero(d) => write!(f, "`{d}` divides by zero"),
            NoValue::TooLarge(d) => write!(f, "`{d}` is too large: beyond 64 bits"),
        }
    }
}

impl DimOp {
    /// The value on integers.
    ///
    /// # Errors
    /// For a division by zero, and where the result is beyond 64 bits (only the quotient of the least integer and -1 is).
    pub fn eval(self, a: i64, b: i64) -> Result<i64, NoValue> {
        let shown = || format!("{}({a}, {b})", self.name());
        if b == 0 && !matches!(self, DimOp::Min | DimOp::Max) {
            return Err(NoValue::DivisionByZero(shown()));
        }
        // Division truncates, and the remainder has the sign of `a`.
        let quotient = || a.checked_div(b).ok_or_else(|| NoValue::TooLarge(shown()));
        let rest = || a.wrapping_rem(b);
        let signs_differ = (a < 0) != (b < 0);
        Ok(match self {
            DimOp::FloorDiv => quotient()? - i64::from(rest() != 0 && signs_differ),
            DimOp::CeilDiv => quotient()? + i64::from(rest() != 0 && !signs_differ),
            DimOp::Mod if rest() != 0 && signs_differ => rest() + b,
            DimOp::Mod => rest(),
            DimOp::Min => a.min(b),
            DimOp::Max => a.max(b),
        })
    }
}

impl Dim {
    /// The value under `lookup` of the symbols.
    ///
    /// # Errors
    /// Why there is none.
    pub fn value(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, NoValue> {
        if let Dim::Const(c) = self {
            return Ok(*c);
        }
        let too_large = || NoValue::TooLarge(self.to_string());
        let (mut sum, mut constant) = (0i64, 0);
        for (atoms, c) in self.terms() {
            if atoms.is_empty() {
                constant = c;
                continue;
            }
            let mut p = 1i64;
            for a in atoms {
                let x = match a {
                    Atom::Sym(s) => lookup(s).ok_or_else(|| NoValue::Unknown(s.to_string()))?,
                    Atom::Op(op, x, y) => op.eval(x.value(lookup)?, y.value(lookup)?).map_err(|e| match e {
                        NoValue::DivisionByZero(_) => NoValue::DivisionByZero(Dim::atom(a.clone()).to_string()),
                        _ => NoValue::TooLarge(Dim::atom(a.clone()).to_string()),
                    })?,
                    Atom::TooLarge => return Err(too_large()),
                };
                p = p.checked_mul(x).ok_or_else(too_large)?;
            }
            let p = p.checked_mul(c).ok_or_else(too_large)?;
            sum = sum.checked_add(p).ok_or_else(too_large)?;
        }
        sum.checked_add(constant).ok_or_else(too_large)
    }

    /// [`Dim::value`], where the reason does not matter.
    pub fn eval(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        self.value(lookup).ok()
    }
}
