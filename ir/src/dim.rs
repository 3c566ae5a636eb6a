//! Symbolic dimensions: canonical integer expressions over named symbols.
//!
//! A [`Dim`] is a polynomial with integer coefficients over *atoms*: a symbol (`seq`), or floordiv, ceildiv, mod, min
//! or max of two dims. Construction canonicalises (terms sorted, like terms merged, constants folded), so equal
//! polynomials are structurally equal, and equality of dims is `==`. Convolution, ceil-mode pooling, Slice and window
//! padding need no more than this. Symbols are non-negative.
//!
//! Invariant: arithmetic is exact or has no value. A constant or a coefficient beyond 64 bits makes the whole dim
//! [`Dim::too_large`], as does every dim that is made from one; an evaluation whose steps leave 64 bits gives [`NoValue`].
//! Nothing wraps and nothing saturates.
//!
//! Text: `2*batch*seq + 3`, `floordiv(seq + 1, 2)`, `min(seq, 16)`.

mod bounds;
mod eval;
#[cfg(test)]
mod tests;
mod text;

pub use eval::NoValue;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use bounds::shorten;

/// A named unknown extent, at least 0.
pub type Symbol = Arc<str>;

/// The operator of a non-polynomial atom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DimOp {
    /// Division rounding toward minus infinity.
    FloorDiv,
    /// Division rounding toward plus infinity.
    CeilDiv,
    /// The remainder of [`DimOp::FloorDiv`].
    Mod,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

impl DimOp {
    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            DimOp::FloorDiv => "floordiv",
            DimOp::CeilDiv => "ceildiv",
            DimOp::Mod => "mod",
            DimOp::Min => "min",
            DimOp::Max => "max",
        }
    }
}

/// What a polynomial is over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Atom {
    /// A symbol.
    Sym(Symbol),
    /// An operation that is no polynomial.
    Op(DimOp, Dim, Dim),
    /// Some integer beyond 64 bits; always the only term of its dim, see [`Dim::too_large`].
    TooLarge,
}

type Monomial = Vec<Atom>;

/// A symbolic integer. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A known integer.
    Const(i64),
    /// A sum of at least one non-constant term: (sorted atoms, coefficient), sorted by atoms.
    Sum(Arc<[(Monomial, i64)]>),
}

impl Dim {
    /// The extent 1.
    pub const ONE: Dim = Dim::Const(1);
    /// The extent 0.
    pub const ZERO: Dim = Dim::Const(0);

    /// A symbol's dim.
    pub fn sym(name: &str) -> Dim {
        Dim::atom(Atom::Sym(name.into()))
    }

    /// The single term of an atom.
    pub fn atom(a: Atom) -> Dim {
        Dim::Sum(Arc::new([(vec![a], 1)]))
    }

    /// A dim that no 64 bits hold. It has no value, and neither has what is computed from it (but for its product with 0).
    pub fn too_large() -> Dim {
        Dim::atom(Atom::TooLarge)
    }

    /// True for what [`Dim::too_large`] gives.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Dim::Sum(t) if matches!(&t[..], [(m, _)] if matches!(m[..], [Atom::TooLarge])))
    }

    /// The integer, when known.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(c) => Some(*c),
            Dim::Sum(_) => None,
        }
    }

    /// The symbol, when the dim is nothing else.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match self {
            Dim::Sum(t) => match &t[..] {
                [(m, 1)] => match &m[..] {
                    [Atom::Sym(s)] => Some(s),
                    _ => None,
                },
                _ => None,
            },
            Dim::Const(_) => None,
        }
    }

    /// True for the known integer `n`.
    pub fn is(&self, n: i64) -> bool {
        *self == Dim::Const(n)
    }

    /// The terms of the polynomial, the constant term (no atoms) included.
    pub fn terms(&self) -> Vec<(&[Atom], i64)> {
        match self {
            Dim::Const(0) => vec![],
            Dim::Const(c) => vec![(&[], *c)],
            Dim::Sum(t) => t.iter().map(|(m, c)| (&m[..], *c)).collect(),
        }
    }

    /// The dim without its constant term, and that term.
    pub fn split_constant(&self) -> (Dim, i64) {
        match self {
            Dim::Const(c) => (Dim::ZERO, *c),
            Dim::Sum(t) => match &t[..] {
                // The constant term has no atoms, so it is the first.
                [(m, c), rest @ ..] if m.is_empty() => (Dim::Sum(rest.into()), *c),
                _ => (self.clone(), 0),
            },
        }
    }

    fn from_terms(terms: impl IntoIterator<Item = (Monomial, i64)>) -> Dim {
        let mut sum: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, c) in terms {
            if m.contains(&Atom::TooLarge) {
                return Dim::too_large();
            }
            let e = sum.entry(m).or_insert(0);
            match e.checked_add(c) {
                Some(c) => *e = c,
                None => return Dim::too_large(),
            }
        }
        sum.retain(|_, c| *c != 0);
        match sum.len() {
            0 => Dim::Const(0),
            1 if sum.contains_key(&vec![]) => Dim::Const(sum[&vec![]]),
            _ => Dim::Sum(sum.into_iter().collect()),
        }
    }

    fn owned(&self) -> impl Iterator<Item = (Monomial, i64)> + '_ {
        self.terms().into_iter().map(|(m, c)| (m.to_vec(), c))
    }

    /// One of the non-polynomial operations, folded where both sides are known or a law applies.
    pub fn op(op: DimOp, a: Dim, b: Dim) -> Dim {
        if a.is_too_large() || b.is_too_large() {
            return Dim::too_large();
        }
        if let (Dim::Const(x), Dim::Const(y)) = (&a, &b) {
            match op.eval(*x, *y) {
                Ok(v) => return Dim::Const(v),
                Err(NoValue::TooLarge(_)) => return Dim::too_large(),
                // A division by zero stays, and has no value.
                Err(_) => {}
            }
        }
        match op {
            DimOp::FloorDiv | DimOp::CeilDiv if b.is(1) => return a,
            DimOp::FloorDiv | DimOp::CeilDiv => {
                if let Some(q) = a.exact_div(&b) {
                    return q;
                }
            }
            DimOp::Mod if b.is(1) || a.exact_div(&b).is_some() => return Dim::ZERO,
            DimOp::Min | DimOp::Max if a == b => return a,
            DimOp::Min | DimOp::Max => {
                let (small, large) = if op == DimOp::Min {
                    (a.clone(), b.clone())
                } else {
                    (b.clone(), a.clone())
                };
                if small.at_most(&large) {
                    return a;
                }
                if large.at_most(&small) {
                    return b;
                }
            }
            DimOp::Mod => {}
        }
        let (a, b) = if matches!(op, DimOp::Min | DimOp::Max) && b < a {
            (b, a)
        } else {
            (a, b)
        };
        Dim::atom(Atom::Op(op, a, b))
    }

    /// `floor(self / b)`.
    pub fn floor_div(&self, b: &Dim) -> Dim {
        Dim::op(DimOp::FloorDiv, self.clone(), b.clone())
    }
    /// `ceil(self / b)`.
    pub fn ceil_div(&self, b: &Dim) -> Dim {
        Dim::op(DimOp::CeilDiv, self.clone(), b.clone())
    }
    /// `self - b*floor(self / b)`.
    pub fn modulo(&self, b: &Dim) -> Dim {
        Dim::op(DimOp::Mod, self.clone(), b.clone())
    }
    /// The smaller of both. Write `Dim::min(&a, &b)`: on an owned dim, `a.min(b)` is the structural order's `Ord::min`.
    pub fn min(&self, b: &Dim) -> Dim {
        Dim::op(DimOp::Min, self.clone(), b.clone())
    }
    /// The larger of both. Write `Dim::max(&a, &b)`, as for [`Dim::min`].
    pub fn max(&self, b: &Dim) -> Dim {
        Dim::op(DimOp::Max, self.clone(), b.clone())
    }

    /// `q` with `self == q * b` for all values of the symbols (where `b` is not zero), when `b` is a single term.
    pub fn exact_div(&self, b: &Dim) -> Option<Dim> {
        if self.is_too_large() || b.is_too_large() {
            return None;
        }
        let bt = b.terms();
        let [(bm, bc)] = bt[..] else {
            return (self == b && !b.is(0)).then_some(Dim::ONE);
        };
        let mut out = vec![];
        for (m, c) in self.terms() {
            if c.checked_rem(bc)? != 0 {
                return None;
            }
            let mut m = m.to_vec();
            for a in bm {
                m.remove(m.iter().position(|x| x == a)?);
            }
            out.push((m, c / bc));
        }
        Some(Dim::from_terms(out))
    }

    /// The dim with symbols replaced where `f` gives a dim.
    pub fn substitute(&self, f: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        if matches!(self, Dim::Const(_)) {
            return self.clone();
        }
        let mut sum = Dim::ZERO;
        for (m, c) in self.terms() {
            let mut p = Dim::Const(c);
            for a in m {
                p = &p
                    * &match a {
                        Atom::Sym(s) => f(s).unwrap_or_else(|| Dim::sym(s)),
                        Atom::Op(op, x, y) => Dim::op(*op, x.substitute(f), y.substitute(f)),
                        Atom::TooLarge => Dim::too_large(),
                    };
            }
            sum = &sum + &p;
        }
        sum
    }

    /// Calls `f` with every symbol, repetitions included.
    pub fn for_each_symbol(&self, f: &mut dyn FnMut(&Symbol)) {
        for (m, _) in self.terms() {
            for a in m {
                match a {
                    Atom::Sym(s) => f(s),
                    Atom::Op(_, x, y) => {
                        x.for_each_symbol(f);
                        y.for_each_symbol(f);
                    }
                    Atom::TooLarge => {}
                }
            }
        }
    }
}

impl std::ops::Add for &Dim {
    type Output = Dim;
    fn add(self, b: &Dim) -> Dim {
        match (self, b) {
            (Dim::Const(x), Dim::Const(y)) => x.checked_add(*y).map_or_else(Dim::too_large, Dim::Const),
            _ => Dim::from_terms(self.owned().chain(b.owned())),
        }
    }
}

impl std::ops::Sub for &Dim {
    type Output = Dim;
    fn sub(self, b: &Dim) -> Dim {
        match (self, b) {
            (Dim::Const(x), Dim::Const(y)) => x.checked_sub(*y).map_or_else(Dim::too_large, Dim::Const),
            _ => self + &(b * &Dim::Const(-1)),
        }
    }
}

impl std::ops::Mul for &Dim {
    type Output = Dim;
    fn mul(self, b: &Dim) -> Dim {
        if let (Dim::Const(x), Dim::Const(y)) = (self, b) {
            return x.checked_mul(*y).map_or_else(Dim::too_large, Dim::Const);
        }
        let mut out = vec![];
        for (m, c) in self.terms() {
            for (n, d) in b.terms() {
                let Some(c) = c.checked_mul(d) else {
                    return Dim::too_large();
                };
                let mut p = [m, n].concat();
                p.sort();
                out.push((p, c));
            }
        }
        Dim::from_terms(out)
    }
}

macro_rules! by_value {
    ($($trait:ident $f:ident),*) => {$(
        impl std::ops::$trait for Dim {
            type Output = Dim;
            fn $f(self, b: Dim) -> Dim {
                std::ops::$trait::$f(&self, &b)
            }
        }
        impl std::ops::$trait<i64> for &Dim {
            type Output = Dim;
            fn $f(self, b: i64) -> Dim {
                std::ops::$trait::$f(self, &Dim::Const(b))
            }
        }
    )*};
}
by_value!(Add add, Sub sub, Mul mul);

impl From<i64> for Dim {
    fn from(c: i64) -> Dim {
        Dim::Const(c)
    }
}

impl From<i32> for Dim {
    fn from(c: i32) -> Dim {
        Dim::Const(c.into())
    }
}

impl From<usize> for Dim {
    fn from(c: usize) -> Dim {
        i64::try_from(c).map_or_else(|_| Dim::too_large(), Dim::Const)
    }
}

/// The product of extents.
pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    dims.into_iter().fold(Dim::ONE, |p, d| &p * d)
}

/// The known extents, when all are known and non-negative.
pub fn constants(dims: &[Dim]) -> Option<Vec<usize>> {
    dims.iter()
        .map(|d| d.as_const().and_then(|c| usize::try_from(c).ok()))
        .collect()
}
