//! Index expressions, shared by the structured level (over iteration dimensions) and the loop level (over loop
//! variables): affine sums with symbolic coefficients, plus floor division and remainder where a reshape needs them.
//!
//! Canonical: like terms are merged, zero terms dropped, terms sorted. `stride of a variable` is therefore a look-up.
//!
//! Invariant: index arithmetic is modulo 2^64 on every level, in interpreters and machine code alike, and nothing in a
//! kernel checks it. That is right because the dims in it are checked before a kernel runs (`NAME_plan`, [`Dim::value`]):
//! every buffer has fewer than 2^63 bytes, so an index that lies in its buffer comes out exact whatever the partial sums
//! were; and a division, a minimum or a bound sees loop positions, which are below extents that were checked.

mod code;
mod text;

use crate::Dim;
use std::fmt;

pub(crate) use code::{BoundCode, IxCode, Slots, Src};
pub use text::{bounds_text, parse_bound, parse_bounds, parse_ix, parse_range_start};

/// The id of an iteration dimension (level 2) or a loop variable (level 3), printed `i3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Var(pub u32);

/// The id of an integer read at run time that takes part in an index, printed `r3`: a read of the same stage (level 2),
/// an i64 register (level 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u32);

impl fmt::Display for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}
impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}
impl fmt::Debug for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a coefficient multiplies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Term {
    /// A variable.
    Var(Var),
    /// An integer read at run time.
    Reg(Reg),
    /// `floor(e / d)`, `d` positive.
    Div(Box<Ix>, Dim),
    /// `e - d * floor(e / d)`, `d` positive.
    Mod(Box<Ix>, Dim),
    /// The smaller of `e` and `d`: the extent of a last, partial block.
    Min(Box<Ix>, Dim),
}

/// An integer expression: `offset + Σ coefficient * term`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ix {
    /// Terms, sorted, each once, no coefficient zero.
    pub terms: Vec<(Term, Dim)>,
    /// The constant part.
    pub offset: Dim,
}

impl Ix {
    /// A constant.
    pub fn constant(d: impl Into<Dim>) -> Ix {
        Ix {
            terms: vec![],
            offset: d.into(),
        }
    }
    /// A variable.
    pub fn var(v: Var) -> Ix {
        Ix::term(Term::Var(v))
    }
    /// A run-time integer.
    pub fn reg(r: Reg) -> Ix {
        Ix::term(Term::Reg(r))
    }
    /// One term.
    pub fn term(t: Term) -> Ix {
        Ix {
            terms: vec![(t, Dim::ONE)],
            offset: Dim::ZERO,
        }
    }

    /// The dim, when no term is left.
    pub fn as_dim(&self) -> Option<&Dim> {
        self.terms.is_empty().then_some(&self.offset)
    }
    /// The integer, when known.
    pub fn as_const(&self) -> Option<i64> {
        self.as_dim()?.as_const()
    }
    /// The variable, when the expression is just one.
    pub fn as_var(&self) -> Option<Var> {
        match &self.terms[..] {
            [(Term::Var(v), c)] if c.is(1) && self.offset.is(0) => Some(*v),
            _ => None,
        }
    }

    fn build(terms: impl IntoIterator<Item = (Term, Dim)>, offset: Dim) -> Ix {
        let mut merged: Vec<(Term, Dim)> = vec![];
        for (t, c) in terms {
            match merged.iter_mut().find(|(u, _)| *u == t) {
                Some((_, d)) => *d = &*d + &c,
                None => merged.push((t, c)),
            }
        }
        merged.retain(|(_, c)| !c.is(0));
        merged.sort();
        Ix { terms: merged, offset }
    }

    /// `self * d`.
    pub fn scale(&self, d: &Dim) -> Ix {
        Ix::build(self.terms.iter().map(|(t, c)| (t.clone(), c * d)), &self.offset * d)
    }

    /// `floor(self / d)`; terms and offset that `d` divides are taken out when the rest is known to be in `0..d`
    /// because nothing is left.
    pub fn div(&self, d: &Dim) -> Ix {
        if d.is(1) {
            return self.clone();
        }
        if let (Some(c), Some(k)) = (self.as_const(), d.as_const())
            && k > 0
        {
            return Ix::constant(c.div_euclid(k));
        }
        let (whole, rest) = self.split(d);
        if rest == Ix::constant(0) {
            return whole;
        }
        &whole + &Ix::term(Term::Div(Box::new(rest), d.clone()))
    }

    /// `self - d * floor(self / d)`.
    pub fn modulo(&self, d: &Dim) -> Ix {
        if d.is(1) {
            return Ix::constant(0);
        }
        if let (Some(c), Some(k)) = (self.as_const(), d.as_const())
            && k > 0
        {
            return Ix::constant(c.rem_euclid(k));
        }
        let (_, rest) = self.split(d);
        if rest == Ix::constant(0) {
            rest
        } else {
            Ix::term(Term::Mod(Box::new(rest), d.clone()))
        }
    }

    /// The smaller of the expression and `d`.
    pub fn at_most(&self, d: &Dim) -> Ix {
        match self.as_dim() {
            Some(e) => Ix::constant(e.min(d)),
            None => Ix::term(Term::Min(Box::new(self.clone()), d.clone())),
        }
    }

    /// `self = d * whole + rest`, with every part that is a multiple of `d` in `whole`.
    fn split(&self, d: &Dim) -> (Ix, Ix) {
        let (mut whole, mut rest) = (vec![], vec![]);
        for (t, c) in &self.terms {
            match c.exact_div(d) {
                Some(q) => whole.push((t.clone(), q)),
                None => rest.push((t.clone(), c.clone())),
            }
        }
        let (w, r) = match self.offset.exact_div(d) {
            Some(q) => (q, Dim::ZERO),
            None => (Dim::ZERO, self.offset.clone()),
        };
        (Ix::build(whole, w), Ix::build(rest, r))
    }

    /// The coefficient of a variable at the top level (0 when absent); `None` when it also occurs under a division.
    pub fn stride(&self, v: Var) -> Option<Dim> {
        let mut out = Dim::ZERO;
        for (t, c) in &self.terms {
            match t {
                Term::Var(u) if *u == v => out = c.clone(),
                Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) if e.uses(v) => return None,
                _ => {}
            }
        }
        Some(out)
    }

    /// True when a variable occurs.
    pub fn uses(&self, v: Var) -> bool {
        self.terms.iter().any(|(t, _)| match t {
            Term::Var(u) => *u == v,
            Term::Reg(_) => false,
            Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) => e.uses(v),
        })
    }

    /// Calls `f` with every variable, repetitions included.
    pub fn for_each_var(&self, f: &mut dyn FnMut(Var)) {
        for (t, _) in &self.terms {
            match t {
                Term::Var(v) => f(*v),
                Term::Reg(_) => {}
                Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) => e.for_each_var(f),
            }
        }
    }

    /// Calls `f` with every run-time integer, repetitions included.
    pub fn for_each_reg(&self, f: &mut dyn FnMut(Reg)) {
        for (t, _) in &self.terms {
            match t {
                Term::Var(_) => {}
                Term::Reg(r) => f(*r),
                Term::Div(e, _) | Term::Mod(e, _) | Term::Min(e, _) => e.for_each_reg(f),
            }
        }
    }

    /// Calls `f` with every dim: offsets, coefficients and divisors.
    pub fn for_each_dim(&self, f: &mut dyn FnMut(&Dim)) {
        f(&self.offset);
        for (t, c) in &self.terms {
            f(c);
            if let Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) = t {
                f(d);
                e.for_each_dim(f);
            }
        }
    }

    /// Calls `f` with every dim, to be replaced by one that is no number where this is none.
    pub fn for_each_dim_mut(&mut self, f: &mut dyn FnMut(&mut Dim)) {
        f(&mut self.offset);
        for (t, c) in &mut self.terms {
            f(c);
            if let Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) = t {
                f(d);
                e.for_each_dim_mut(f);
            }
        }
    }

    /// The expression with variables and run-time integers replaced.
    pub fn substitute(&self, var: &dyn Fn(Var) -> Ix, reg: &dyn Fn(Reg) -> Ix) -> Ix {
        let mut sum = Ix::constant(self.offset.clone());
        for (t, c) in &self.terms {
            let e = match t {
                Term::Var(v) => var(*v),
                Term::Reg(r) => reg(*r),
                Term::Div(e, d) => e.substitute(var, reg).div(d),
                Term::Mod(e, d) => e.substitute(var, reg).modulo(d),
                Term::Min(e, d) => e.substitute(var, reg).at_most(d),
            };
            sum = &sum + &e.scale(c);
        }
        sum
    }

    /// The value; `None` when a dim has none or a divisor is not positive.
    pub fn eval(
        &self,
        var: &dyn Fn(Var) -> i64,
        reg: &dyn Fn(Reg) -> i64,
        dim: &dyn Fn(&Dim) -> Option<i64>,
    ) -> Option<i64> {
        let mut sum = dim(&self.offset)?;
        for (t, c) in &self.terms {
            let x = match t {
                Term::Var(v) => var(*v),
                Term::Reg(r) => reg(*r),
                Term::Min(e, d) => e.eval(var, reg, dim)?.min(dim(d)?),
                Term::Div(e, d) | Term::Mod(e, d) => {
                    let (e, d) = (e.eval(var, reg, dim)?, dim(d)?);
                    if d <= 0 {
                        return None;
                    }
                    if matches!(t, Term::Div(..)) {
                        e.div_euclid(d)
                    } else {
                        e.rem_euclid(d)
                    }
                }
            };
            sum = sum.wrapping_add(x.wrapping_mul(dim(c)?));
        }
        Some(sum)
    }
}

impl std::ops::Add for &Ix {
    type Output = Ix;
    fn add(self, o: &Ix) -> Ix {
        Ix::build(self.terms.iter().chain(&o.terms).cloned(), &self.offset + &o.offset)
    }
}
impl std::ops::Add<&Dim> for &Ix {
    type Output = Ix;
    fn add(self, o: &Dim) -> Ix {
        Ix {
            terms: self.terms.clone(),
            offset: &self.offset + o,
        }
    }
}

/// One condition of a guard: `0 <= index < extent`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bound {
    /// The index.
    pub index: Ix,
    /// The exclusive upper bound.
    pub extent: Dim,
}
