//! What signs the elements of a stream can have, as far as its terms say: for laws that hold but for the sign of a zero.
//!
//! Every term of a class gives a bound on all of it, so one term that is never -0 is enough. Terms are followed to a limited
//! depth and number; beyond, nothing is known.

use super::lang::{EGraph, OpId, Term, operands};
use brolga_ir::Attr;
use egg::Id;

/// How deep terms are followed.
const DEPTH: usize = 16;

/// How many classes are looked at for one question.
const BUDGET: usize = 256;

/// True when no element of a stream can be -0 (any may be NaN).
pub fn never_minus_zero(eg: &EGraph, stream: Id) -> bool {
    Signs { eg, budget: BUDGET }.never_minus_zero(stream, DEPTH)
}

/// True when every element of a stream is +0, above 0, or NaN.
pub fn is_nonnegative(eg: &EGraph, stream: Id) -> bool {
    Signs { eg, budget: BUDGET }.is_nonnegative(stream, DEPTH)
}

struct Signs<'a> {
    eg: &'a EGraph,
    budget: usize,
}

impl Signs<'_> {
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
        let Term::Op(op, children) = t else { return false };
        let of = operands(*op, children);
        let never = |s: &mut Self, i: usize| s.never_minus_zero(of[i], depth);
        match op.name() {
            // A sum starts from +0, and only -0 + -0 is -0; rounding to a narrower dtype may still give it.
            "contract" | "conv" | "conv_transpose" => {
                let attrs = &children[..op.def().attrs().len()];
                let [.., acc, out] = attrs else { return false };
                self.eg.find(*acc) == self.eg.find(*out)
            }
            "reduce" | "pool" => match self.word(*op, children) {
                Some("sum") => true,
                Some("max" | "min") => never(self, 0),
                _ => false,
            },
            "add" => never(self, 0) || never(self, 1),
            "sub" | "sqrt" | "reshape" | "transpose" | "broadcast" | "slice" | "gather" => never(self, 0),
            "min" => never(self, 0) && never(self, 1),
            "max" => {
                self.is_nonnegative(of[0], depth)
                    || self.is_nonnegative(of[1], depth)
                    || self.never_minus_zero(of[0], depth) && self.never_minus_zero(of[1], depth)
            }
            "where" => never(self, 1) && never(self, 2),
            "cast" => !self.eg[of[0]].data.ty().dtype.is_float() || self.term_is_nonnegative(t, depth),
            _ => self.term_is_nonnegative(t, depth),
        }
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
        let Term::Op(op, children) = t else { return false };
        let of = operands(*op, children);
        let is = |s: &mut Self, i: usize| s.is_nonnegative(of[i], depth);
        match op.name() {
            "exp" | "sigmoid" | "softplus" | "abs" | "relu" | "softmax" => self.eg[of[0]].data.ty().dtype.is_float(),
            "sqrt" => self.never_minus_zero(of[0], depth),
            "mul" if self.eg.find(of[0]) == self.eg.find(of[1]) => self.eg[of[0]].data.ty().dtype.is_float(),
            "mul" | "div" | "add" => self.eg[of[0]].data.ty().dtype.is_float() && is(self, 0) && is(self, 1),
            "min" => is(self, 0) && is(self, 1),
            "max" => is(self, 0) || is(self, 1),
            "where" => is(self, 1) && is(self, 2),
            // The maximum of nothing is -inf.
            "reduce" | "pool" => matches!(self.word(*op, children), Some("sum" | "prod")) && is(self, 0),
            "reciprocal" | "reshape" | "transpose" | "broadcast" | "slice" | "gather" => is(self, 0),
            "cast" => self.eg[of[0]].data.ty().dtype.is_float() && is(self, 0),
            _ => false,
        }
    }

    /// The first attribute of an operator, where it is a word.
    fn word(&self, op: OpId, children: &[Id]) -> Option<&str> {
        let first = op.def().attrs().first().map(|_| children[0])?;
        match &**self.eg[first].data.attr()? {
            Attr::Word(w) => Some(w),
            _ => None,
        }
    }
}
