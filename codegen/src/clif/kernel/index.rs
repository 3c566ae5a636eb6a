//! Index expressions in CLIF.
//!
//! An affine index is summed in the order of the loops that its terms come from, outermost first, and every prefix of the
//! sum is remembered for its scope; Cranelift's loop-invariant code motion then moves each prefix to the loop that it
//! belongs to. Constant parts stay apart, as displacements. In an innermost loop a coefficient that is no power of two
//! is not multiplied: the product is carried around the loop and advanced by the coefficient.

use super::Body;
use crate::Error;
use brolga_ir::Dim;
use brolga_ir::index::{Bound, Ix, Reg, Term, Var};
use brolga_ir::loops::{Stmt, visit_indices};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use rustc_hash::FxHashMap;

/// What a loop variable is at this point of the code.
#[derive(Clone, Copy)]
pub(crate) enum VarValue {
    /// Computed, in a loop at this depth.
    Value(Value, usize),
    /// Known: an unrolled iteration, or a lane.
    Known(i64),
}

/// The loop variables in scope.
#[derive(Default)]
pub(crate) struct Vars {
    pub values: FxHashMap<Var, VarValue>,
    /// `variable * coefficient`, where a loop carries it.
    pub products: FxHashMap<(Var, Dim), Value>,
    /// How many computed loops are open.
    pub depth: usize,
}

/// Terms with registers come after all others.
const LATE: usize = usize::MAX;

impl Body<'_, '_, '_> {
    /// The index with known variables put in.
    pub fn settled(&self, e: &Ix) -> Ix {
        let mut known = false;
        e.for_each_var(&mut |v| known |= matches!(self.vars.values.get(&v), Some(VarValue::Known(_))));
        if !known {
            return e.clone();
        }
        let var = |v: Var| match self.vars.values.get(&v) {
            Some(VarValue::Known(c)) => Ix::constant(*c),
            _ => Ix::var(v),
        };
        e.substitute(&var, &Ix::reg)
    }

    fn depth_of(&self, t: &Term) -> usize {
        match t {
            Term::Var(v) => match self.vars.values.get(v) {
                Some(VarValue::Value(_, depth)) => *depth,
                _ => 0,
            },
            Term::Reg(_) => LATE,
            Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) => {
                e.terms.iter().map(|(t, _)| self.depth_of(t)).max().unwrap_or(0)
            }
        }
    }

    /// The value of an index, i64.
    pub fn ix(&mut self, e: &Ix) -> Result<Value, Error> {
        let (sum, constant) = self.ix_parts(e)?;
        Ok(match sum {
            None => self.e.int(constant),
            Some(s) if constant == 0 => s,
            Some(s) => self.e.b.ins().iadd_imm_s(s, constant),
        })
    }

    /// An index as a computed part, where there is one, and a constant part.
    pub fn ix_parts(&mut self, e: &Ix) -> Result<(Option<Value>, i64), Error> {
        let e = self.settled(e);
        let (symbolic, constant) = e.offset.split_constant();
        let mut terms = e.terms.clone();
        terms.sort_by_key(|(t, _)| self.depth_of(t));

        let mut prefix = Ix::constant(symbolic.clone());
        let mut sum = match symbolic.as_const() {
            Some(_) => None,
            None => Some(self.e.dim(&symbolic)?),
        };
        for (t, c) in terms {
            let late = self.depth_of(&t) == LATE;
            prefix.terms.push((t.clone(), c.clone()));
            if !late && let Some(v) = self.e.scopes.iter().rev().find_map(|s| s.get(&prefix)) {
                sum = Some(*v);
                continue;
            }
            let v = self.scaled(&t, &c)?;
            let v = match sum {
                None => v,
                Some(s) => self.e.b.ins().iadd(s, v),
            };
            if !late {
                self.e.remember(prefix.clone(), v);
            }
            sum = Some(v);
        }
        Ok((sum, constant))
    }

    fn scaled(&mut self, t: &Term, c: &Dim) -> Result<Value, Error> {
        if let Term::Var(v) = t
            && let Some(p) = self.vars.products.get(&(*v, c.clone()))
        {
            return Ok(*p);
        }
        let v = self.term(t)?;
        Ok(match c.as_const() {
            Some(c) => self.e.times(v, c),
            None => {
                let c = self.e.dim(c)?;
                self.e.b.ins().imul(v, c)
            }
        })
    }

    fn term(&mut self, t: &Term) -> Result<Value, Error> {
        Ok(match t {
            Term::Var(v) => match self.vars.values.get(v) {
                Some(VarValue::Value(v, _)) => *v,
                Some(VarValue::Known(c)) => {
                    let c = *c;
                    self.e.int(c)
                }
                None => return Err(self.error(format!("{v} is used outside its loop"))),
            },
            Term::Reg(r) => self.index_reg(*r)?,
            Term::Div(e, d) => {
                if let Some(v) = self.divided(t) {
                    return Ok(v);
                }
                let (natural, a, b) = (self.natural(e), self.ix(e)?, self.e.dim(d)?);
                self.e.floor_div(a, b, natural)
            }
            Term::Mod(e, d) => {
                if let Some(v) = self.divided(t) {
                    return Ok(v);
                }
                let (natural, a, b) = (self.natural(e), self.ix(e)?, self.e.dim(d)?);
                self.e.floor_mod(a, b, natural)
            }
            Term::Min(e, d) => {
                let (a, b) = (self.ix(e)?, self.e.dim(d)?);
                self.e.b.ins().smin(a, b)
            }
        })
    }

    /// A quotient or remainder that [`Body::divide_early`] computed.
    fn divided(&self, t: &Term) -> Option<Value> {
        let key = Ix::term(t.clone());
        self.e.scopes.iter().rev().find_map(|s| s.get(&key)).copied()
    }

    /// Computes, at the top of a loop, what indices in its body divide by run-time extents and is known there. A division
    /// may trap, so that Cranelift leaves it where it stands: in the innermost loop.
    pub fn divide_early(&mut self, body: &[Stmt]) -> Result<(), Error> {
        let mut found: Vec<Term> = vec![];
        visit_indices(body, &mut |e| divisions(&self.settled(e), &mut found));
        for t in found {
            let (Term::Div(e, d) | Term::Mod(e, d)) = &t else {
                continue;
            };
            let mut known = true;
            e.for_each_var(&mut |v| known &= self.vars.values.contains_key(&v));
            e.for_each_reg(&mut |_| known = false);
            if !known || self.divided(&t).is_some() {
                continue;
            }
            let quotient = Term::Div(e.clone(), d.clone());
            let q = self.term(&quotient)?;
            self.e.remember(Ix::term(quotient), q);
            // A remainder is left of what its quotient takes: one division gives both.
            let (a, b) = (self.ix(e)?, self.e.dim(d)?);
            let whole = self.e.b.ins().imul(q, b);
            let rest = self.e.b.ins().isub(a, whole);
            self.e.remember(Ix::term(Term::Mod(e.clone(), d.clone())), rest);
        }
        Ok(())
    }

    /// An i64 register in an index; inside a vector loop, of the lane that is being addressed.
    fn index_reg(&mut self, r: Reg) -> Result<Value, Error> {
        let v = self.read_scalar(r)?;
        if self.e.type_of(v) == types::I64 {
            return Ok(v);
        }
        Err(self.error(format!("{r} is used in an index, expected an i64 register")))
    }

    /// True when an index is known not to be negative.
    fn natural(&self, e: &Ix) -> bool {
        e.offset.is_nonnegative()
            && e.terms.iter().all(|(t, c)| {
                c.is_nonnegative()
                    && match t {
                        Term::Var(_) => true,
                        Term::Reg(_) => false,
                        Term::Div(e, _) => self.natural(e),
                        Term::Mod(..) => true,
                        Term::Min(e, d) => self.natural(e) && d.is_nonnegative(),
                    }
            })
    }

    /// Whether all bounds hold, as 0 or 1; `None` when there are none to check.
    pub fn bounds(&mut self, bounds: &[Bound]) -> Result<Option<Value>, Error> {
        let mut all: Option<Value> = None;
        for b in bounds {
            let index = self.settled(&b.index);
            if let (Some(i), Some(n)) = (index.as_const(), b.extent.as_const())
                && (0..n).contains(&i)
            {
                continue;
            }
            let i = self.ix(&index)?;
            let n = self.e.dim(&b.extent)?;
            // One unsigned comparison, once a negative extent is taken for the empty one that it is.
            let n = if b.extent.is_nonnegative() {
                n
            } else {
                let zero = self.e.int(0);
                self.e.b.ins().smax(n, zero)
            };
            let inside = self.e.b.ins().icmp(IntCC::UnsignedLessThan, i, n);
            all = Some(match all {
                None => inside,
                Some(a) => self.e.b.ins().band(a, inside),
            });
        }
        Ok(all)
    }
}

/// The quotients and remainders by run-time extents in an index, those inside others first.
fn divisions(e: &Ix, found: &mut Vec<Term>) {
    for (t, _) in &e.terms {
        if let Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) = t {
            divisions(e, found);
        }
        if let Term::Div(_, d) | Term::Mod(_, d) = t
            && d.as_const().is_none()
            && !found.contains(t)
        {
            found.push(t.clone());
        }
    }
}
