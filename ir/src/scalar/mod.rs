//! The scalar language: one tiny typed SSA expression form, used for map bodies, reductions, epilogues and PTX alike.
//!
//! A [`Body`] has inputs, instructions and outputs. Instructions are constants and [`Prim`]itives, each with one
//! emitter per back end. **Every other function is an expansion into primitives** ([`functions`]), shared by all back
//! ends and the interpreters, so that maps agree bit for bit everywhere; its accuracy is judged once, in ULP, against
//! higher precision. All primitives are total: the table in [`Prim`] defines every case, never a trap. f16 and bf16 are
//! storage types: only `Cast` and `Bitcast` accept or give them. Of small types (8 bits and fewer) only `Bitcast` does, from and to
//! the byte that they are; their conversions are expansions (`small`).
//!
//! A NaN that arithmetic makes has no defined sign or payload (the evaluator gives the canonical quiet one), so results
//! are compared with any NaN equal to any other; `neg`, `abs`, `select` and `bitcast` move bits and keep them.
//!
//! Text: `(v0: f32, v1: f32) { v2 = add v0 v1; v3 = const f32 1.0; v4 = max v2 v3 } -> v4`.

use crate::DType;
use std::fmt;

mod build;
mod eval;
mod functions;
mod prim;
mod rows;
mod small;
mod text;

#[cfg(test)]
mod tests;

pub use build::Builder;
pub use eval::{Scalar, eval_prim};
pub(crate) use functions::exp_weight;
pub use functions::{Bound, Function, Rule, functions, lookup};
pub(crate) use rows::eval_rows;

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
/// for casts, and no small type but for `bitcast`. Signed and unsigned integers wrap around.
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
    /// The same, where `c` is expected to be false nearly always: a back end may leave out what only `a` needs, as long
    /// as no lane needs it.
    Rarely,
    /// Conversion: floats round to nearest even; float to integer truncates and saturates, NaN gives 0; integer to
    /// integer keeps the low bits (sign- or zero-extends); anything non-zero, NaN included, is true. f16 and bf16 are
    /// converted from and to f32; any other type gets there by way of f32, rounding twice.
    Cast(DType),
    /// The same bits under another dtype of equal width; not for bool.
    Bitcast(DType),
}

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Inst {
    /// A constant: its dtype and its bits, zero-extended (see [`Scalar`]).
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

impl Body {
    /// The body that gives its only input.
    pub fn identity(dtype: DType) -> Body {
        Body {
            inputs: vec![dtype],
            insts: vec![],
            outputs: vec![V(0)],
        }
    }

    /// The number of values: inputs and instructions.
    pub fn len(&self) -> usize {
        self.inputs.len() + self.insts.len()
    }

    /// True when there are neither inputs nor instructions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of primitives that usually run: what an evaluation costs, constants being free.
    pub fn cost(&self) -> usize {
        let usual = self.insts.iter().zip(self.rare()).filter(|(_, rare)| !rare);
        usual.filter(|(i, _)| matches!(i, Inst::Prim(..))).count()
    }

    /// About how many cycles an evaluation takes where all units are busy: [`Body::cost`], with a division, remainder or root
    /// counted as four.
    pub fn cycles(&self) -> f64 {
        let usual = self.insts.iter().zip(self.rare()).filter(|(_, rare)| !rare);
        usual
            .map(|(i, _)| match i {
                Inst::Const(..) => 0.0,
                Inst::Prim(Prim::Div | Prim::Rem | Prim::Sqrt, _) => 4.0,
                Inst::Prim(..) => 1.0,
            })
            .sum()
    }

    /// The number of instructions, constants included, that usually run.
    pub fn usual(&self) -> usize {
        self.rare().into_iter().filter(|rare| !rare).count()
    }

    /// Which instructions only the rare side of a [`Prim::Rarely`] needs.
    fn rare(&self) -> Vec<bool> {
        let n = self.inputs.len();
        let mut usual = vec![false; self.len()];
        self.outputs.iter().for_each(|v| usual[v.0 as usize] = true);
        for (i, inst) in self.insts.iter().enumerate().rev() {
            if let (true, Inst::Prim(p, args)) = (usual[n + i], inst) {
                let needed = |k: &usize| *p != Prim::Rarely || *k != 1;
                (0..3).filter(needed).for_each(|k| usual[args[k].0 as usize] = true);
            }
        }
        usual[n..].iter().map(|u| !u).collect()
    }

    /// The instruction that defines a value; `None` for an input.
    pub fn inst(&self, v: V) -> Option<Inst> {
        (v.0 as usize).checked_sub(self.inputs.len()).map(|i| self.insts[i])
    }

    /// The dtype of a value of a valid body. It follows operands back to where the dtype is said; for many values use
    /// [`Body::dtypes`].
    pub fn dtype(&self, mut v: V) -> DType {
        loop {
            match self.inst(v) {
                None => return self.inputs[v.0 as usize],
                Some(Inst::Const(d, _)) => return d,
                Some(Inst::Prim(Prim::Cast(d) | Prim::Bitcast(d), _)) => return d,
                Some(Inst::Prim(Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le, _)) => return DType::Bool,
                Some(Inst::Prim(p, args)) => v = args[p.typed()],
            }
        }
    }

    /// The dtypes of all values of a valid body, by id.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut out = self.inputs.clone();
        for inst in &self.insts {
            out.push(match *inst {
                Inst::Const(d, _) => d,
                Inst::Prim(Prim::Cast(d) | Prim::Bitcast(d), _) => d,
                Inst::Prim(Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le, _) => DType::Bool,
                Inst::Prim(p, args) => out[args[p.typed()].0 as usize],
            });
        }
        out
    }

    /// The dtypes of the outputs of a valid body.
    pub fn output_dtypes(&self) -> Vec<DType> {
        let all = self.dtypes();
        self.outputs.iter().map(|v| all[v.0 as usize]).collect()
    }

    /// Checks that every operand is defined before its use, that dtypes fit, and that constants fit their dtype.
    ///
    /// # Errors
    /// The first violation, with the value's name.
    pub fn verify(&self) -> Result<(), String> {
        let mut dtypes = self.inputs.clone();
        for inst in &self.insts {
            let id = V(dtypes.len() as u32);
            dtypes.push(match *inst {
                Inst::Const(DType::Bool, bits) if bits > 1 => return Err(format!("{id}: a bool of bits {bits:#x}")),
                Inst::Const(d, bits) if bits.checked_shr(d.bits() as u32).unwrap_or(0) != 0 => {
                    return Err(format!("{id}: bits {bits:#x} do not fit in {d}"));
                }
                Inst::Const(d, _) => d,
                Inst::Prim(p, args) => {
                    let (used, unused) = args.split_at(p.arity());
                    if let Some(v) = used.iter().find(|&&v| v >= id) {
                        return Err(format!("{id}: operand {v} is not defined before"));
                    }
                    if unused.iter().any(|&v| v != args[0]) {
                        return Err(format!("{id}: unused operands of `{}` must repeat the first", p.name()));
                    }
                    let types: Vec<DType> = used.iter().map(|v| dtypes[v.0 as usize]).collect();
                    p.result(&types).map_err(|m| format!("{id}: {m}"))?
                }
            });
        }
        match self.outputs.iter().find(|v| v.0 as usize >= dtypes.len()) {
            Some(v) => Err(format!("output {v} is not defined")),
            None => Ok(()),
        }
    }
}
