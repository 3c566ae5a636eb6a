//! The scalar language: one tiny typed SSA expression form, used for map bodies, reductions, epilogues and PTX alike.
//!
//! A [`Body`] has inputs, instructions and outputs. Instructions are constants and [`Prim`]itives, each with one
//! emitter per back end. **Every other function is an expansion into primitives** ([`functions`]), shared by all back
//! ends and the interpreters, so that maps agree bit for bit everywhere; its accuracy is judged once, in ULP, against
//! higher precision. All primitives are total: the table in [`Prim`] defines every case, never a trap. f16 and bf16 are
//! storage types: only `Cast` and `Bitcast` accept or give them.

use crate::{DType, Number};
use std::fmt;

/// The id of a value of a body: inputs first, then instructions, in order. Printed `v3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct V(pub u32);

impl fmt::Display for V {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
impl fmt::Debug for V {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A primitive operation. `T` is the dtype of the operands: one for all, unless said otherwise; never f16 or bf16 but
/// for casts. Signed and unsigned integers wrap around.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Prim {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`; integers truncate, `x / 0 = 0`, `MIN / -1 = MIN`.
    Div,
    /// The remainder of [`Prim::Div`], with the sign of `a` (C's `%` and `fmod`); integers: `x % 0 = 0`, `MIN % -1 = 0`.
    Rem,
    /// `a * b + c` with one rounding; floats only.
    Fma,
    /// `-a`.
    Neg,
    /// `|a|`; `|MIN| = MIN`.
    Abs,
    /// The smaller; NaN when either is NaN; `min(-0, +0) = -0`.
    Min,
    /// The larger; NaN when either is NaN; `max(-0, +0) = +0`.
    Max,
    /// Toward minus infinity; floats only, as the next three.
    Floor,
    /// Toward plus infinity.
    Ceil,
    /// Toward zero.
    Trunc,
    /// To nearest, ties to even.
    Round,
    /// Square root, correctly rounded; NaN below zero.
    Sqrt,
    /// `a == b`, giving bool; with NaN false.
    Eq,
    /// `a != b`, giving bool; with NaN true.
    Ne,
    /// `a < b`, giving bool; with NaN false.
    Lt,
    /// `a <= b`, giving bool; with NaN false.
    Le,
    /// Bitwise, integers and bool; as the next three.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// Bitwise complement; of a bool its negation.
    Not,
    /// `a << b`, integers; `b` taken as unsigned; 0 when `b` is at least the width.
    Shl,
    /// `a >> b`: arithmetic for signed, logical for unsigned; `b` taken as unsigned; at least the width gives all sign
    /// bits (signed) or 0 (unsigned).
    Shr,
    /// `c ? a : b`; `c` is bool, `a` and `b` any one dtype.
    Select,
    /// Conversion: floats round to nearest even; float to integer truncates and saturates, NaN gives 0; integer to
    /// integer keeps the low bits (sign- or zero-extends); anything non-zero, NaN included, is true.
    Cast(DType),
    /// The same bits under another dtype of equal width; not for bool.
    Bitcast(DType),
}

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Inst {
    /// A constant: its dtype and its bits, zero-extended.
    Const(DType, u64),
    /// A primitive with up to three operands (unused ones repeat the first).
    Prim(Prim, [V; 3]),
}

/// A scalar function in SSA form: straight-line, total, without side effects.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Body {
    /// The inputs' dtypes.
    pub inputs: Vec<DType>,
    /// Instructions in order; instruction `i` defines `V(inputs.len() + i)`.
    pub insts: Vec<Inst>,
    /// The results.
    pub outputs: Vec<V>,
}
