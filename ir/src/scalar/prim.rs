//! Names, arities and typing of the primitives.

use super::Prim;
use crate::DType;

impl Prim {
    /// Every primitive; the two casts once for every target dtype that they have.
    pub fn all() -> impl Iterator<Item = Prim> {
        use Prim::*;
        let plain = [
            Add, Sub, Mul, Div, Rem, Fma, Neg, Abs, Min, Max, Floor, Ceil, Trunc, Round, Sqrt, Eq, Ne, Lt, Le, And, Or,
            Xor, Not, Shl, Shr, Select, Rarely,
        ];
        let casts = DType::ALL.into_iter().filter(|d| d.small().is_none()).map(Cast);
        plain.into_iter().chain(casts).chain(DType::ALL.map(Bitcast))
    }

    /// The name in the text form (the target dtype of the casts follows it there).
    pub const fn name(self) -> &'static str {
        match self {
            Prim::Add => "add",
            Prim::Sub => "sub",
            Prim::Mul => "mul",
            Prim::Div => "div",
            Prim::Rem => "rem",
            Prim::Fma => "fma",
            Prim::Neg => "neg",
            Prim::Abs => "abs",
            Prim::Min => "min",
            Prim::Max => "max",
            Prim::Floor => "floor",
            Prim::Ceil => "ceil",
            Prim::Trunc => "trunc",
            Prim::Round => "round",
            Prim::Sqrt => "sqrt",
            Prim::Eq => "eq",
            Prim::Ne => "ne",
            Prim::Lt => "lt",
            Prim::Le => "le",
            Prim::And => "and",
            Prim::Or => "or",
            Prim::Xor => "xor",
            Prim::Not => "not",
            Prim::Shl => "shl",
            Prim::Shr => "shr",
            Prim::Select => "select",
            Prim::Rarely => "rarely",
            Prim::Cast(_) => "cast",
            Prim::Bitcast(_) => "bitcast",
        }
    }

    /// The primitive of a name, given the dtype that the casts go to.
    pub fn from_name(name: &str, to: Option<DType>) -> Option<Prim> {
        let string = [Prim::Bitcast(DType::Str)];
        Prim::all().chain(string).find(|p| p.name() == name && p.target() == to)
    }

    /// The dtype that a cast goes to.
    pub const fn target(self) -> Option<DType> {
        match self {
            Prim::Cast(d) | Prim::Bitcast(d) => Some(d),
            _ => None,
        }
    }

    /// The number of operands.
    pub const fn arity(self) -> usize {
        match self {
            Prim::Fma | Prim::Select | Prim::Rarely => 3,
            Prim::Neg
            | Prim::Abs
            | Prim::Floor
            | Prim::Ceil
            | Prim::Trunc
            | Prim::Round
            | Prim::Sqrt
            | Prim::Not
            | Prim::Cast(_)
            | Prim::Bitcast(_) => 1,
            _ => 2,
        }
    }

    /// True for those that give one of two operands, as the first one, a bool, says.
    pub const fn chooses(self) -> bool {
        matches!(self, Prim::Select | Prim::Rarely)
    }

    /// The operand whose dtype the primitive works on: the first, or the second of those that choose.
    pub const fn typed(self) -> usize {
        self.chooses() as usize
    }

    /// True when the order of the two operands does not matter (but for which NaN comes out).
    pub const fn is_commutative(self) -> bool {
        use Prim::*;
        matches!(self, Add | Mul | Min | Max | Eq | Ne | And | Or | Xor)
    }

    /// The result's dtype for operands of these dtypes.
    ///
    /// # Errors
    /// When their number or dtypes do not fit.
    pub fn result(self, operands: &[DType]) -> Result<DType, String> {
        use Prim::*;
        let bad = |want: &str| {
            let found: Vec<_> = operands.iter().map(|d| d.name()).collect();
            Err(format!("`{}` of ({}), expected {want}", self.name(), found.join(", ")))
        };
        if operands.len() != self.arity() {
            return bad(&format!("{} operands", self.arity()));
        }
        let t = operands[0];
        match self {
            Cast(to) if t.small().is_some() || to.small().is_some() => {
                return bad(&format!("a bitcast, for {to}: only that takes and gives small types"));
            }
            Cast(to) if (t == DType::Str) != (to == DType::Str) => {
                return bad("no strings: `bitcast` gives their numbers");
            }
            Cast(to) => return Ok(to),
            Bitcast(to) if t == DType::Bool || to == DType::Bool || t.bits() != to.bits() => {
                return bad(&format!("an operand of {} bits that is no bool, for {to}", to.bits()));
            }
            Bitcast(to) => return Ok(to),
            Eq | Ne | Select | Rarely => {}
            _ if t == DType::Str => return bad("no strings"),
            _ => {}
        }
        if operands.iter().any(|d| d.is_half()) {
            return bad("no f16 and bf16: only casts take them");
        }
        if operands.iter().any(|d| d.small().is_some()) {
            return bad("no small types: only bitcasts take them");
        }
        if self.chooses() {
            return if t == DType::Bool && operands[1] == operands[2] {
                Ok(operands[1])
            } else {
                bad("a bool and two of one dtype")
            };
        }
        if operands.iter().any(|&d| d != t) {
            return bad("equal dtypes");
        }
        match self {
            Eq | Ne | Lt | Le => Ok(DType::Bool),
            Fma | Floor | Ceil | Trunc | Round | Sqrt if !t.is_float() => bad("floats"),
            And | Or | Xor | Not if t.is_float() => bad("integers or bool"),
            Shl | Shr if !t.is_int() => bad("integers"),
            Add | Sub | Mul | Div | Rem | Neg | Abs | Min | Max if t == DType::Bool => bad("numbers"),
            _ => Ok(t),
        }
    }
}
