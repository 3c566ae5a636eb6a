//! What signs the elements of a stream can have, as far as its terms say: for laws that hold but for the sign of a zero.
//!
//! Every term of a class gives a bound on all of it, so one term that is never -0 is enough. Terms are followed to a limited
//! depth and number; beyond, nothing is known.

use super::lang::{EGraph, Term, op_of, operands};
use brolga_ir::Op;
use brolga_ir::ops::Signs;
use egg::Id;

/// How deep terms are followed.
const DEPTH: usize = 16;

/// How many classes are looked at for one question.
const BUDGET: usize = 256;

/// True when no element of a stream can be -0 (any may be NaN).
pub fn never_minus_zero(eg: &EGraph, stream: Id) -> bool {
    Seeker { eg, budget: BUDGET }.never_minus_zero(stream, DEPTH)
}

/// True when every element of a stream is +0, above 0, or NaN.
pub fn is_nonnegative(eg: &EGraph, stream: Id) -> bool {
    Seeker { eg, budget: BUDGET }.is_nonnegative(stream, DEPTH)
}

struct Seeker<'a> {
    eg: &'a EGraph,
    budget: usize,
}

impl Seeker<'_> {
    /// Whether any term of a class answers yes.
    fn any(&mut self, class: Id, depth: usize, f: fn(&mut Self, &Term, usize) -> bool) -> bool {
        if depth == 0 || self.budget == 0 {
            return false;
        }
        self.budget -= 1;
        let eg = self.eg;
        eg[class].nodes.iter().any(|t| match t {
            // What memory holds is the stream that was written.
            Term::Load([x]) | Term::Store([x]) => self.any(*x, depth - 1, f),
            t => f(self, t, depth - 1),
        })
    }

    fn never_minus_zero(&mut self, class: Id, depth: usize) -> bool {
        let data = &self.eg[class].data;
        if let Some(x) = data.splat {
            return !(x.f64() == 0.0 && x.f64().is_sign_negative());
        }
        !data.ty().dtype.is_float() || self.any(class, depth, Self::term_never_minus_zero)
    }

    fn term_never_minus_zero(&mut self, t: &Term, depth: usize) -> bool {
        self.ask(t, depth, |op, of| op.def().never_minus_zero(op, of))
    }

    fn is_nonnegative(&mut self, class: Id, depth: usize) -> bool {
        let data = &self.eg[class].data;
        if let Some(x) = data.splat {
            return x.f64().is_nan() || !x.f64().is_sign_negative();
        }
        let dtype = data.ty().dtype;
        !(dtype.is_float() || dtype.is_signed()) || self.any(class, depth, Self::term_is_nonnegative)
    }

    fn term_is_nonnegative(&mut self, t: &Term, depth: usize) -> bool {
        self.ask(t, depth, |op, of| op.def().is_nonnegative(op, of))
    }

    /// Asks a term's operator.
    fn ask(&mut self, t: &Term, depth: usize, question: fn(&Op, &mut dyn Signs) -> bool) -> bool {
        let Term::Op(id, children) = t else { return false };
        let operands = operands(*id, children);
        let Ok(op) = op_of(self.eg, *id, children) else {
            return false;
        };
        question(
            &op,
            &mut Operands {
                seeker: self,
                operands,
                depth,
            },
        )
    }
}

/// The operands of a term that is asked about.
struct Operands<'a, 'e> {
    seeker: &'a mut Seeker<'e>,
    operands: &'a [Id],
    depth: usize,
}

impl Signs for Operands<'_, '_> {
    fn never_minus_zero(&mut self, operand: usize) -> bool {
        self.seeker.never_minus_zero(self.operands[operand], self.depth)
    }
    fn is_nonnegative(&mut self, operand: usize) -> bool {
        self.seeker.is_nonnegative(self.operands[operand], self.depth)
    }
    fn is_float(&self, operand: usize) -> bool {
        self.seeker.eg[self.operands[operand]].data.ty().dtype.is_float()
    }
    fn are_one(&self) -> bool {
        self.seeker.eg.find(self.operands[0]) == self.seeker.eg.find(self.operands[1])
    }
}
