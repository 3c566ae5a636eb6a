//! What is known of a dim's value for all values of its symbols, and extents that broadcast.
//!
//! Symbols are extents, so every bound follows from "at least 0". [`Dim::is_at_least`] is sound and quick rather than
//! complete: what it cannot show becomes a guard of the model, which the entry checks.

use super::{Atom, Dim, DimOp, Symbol};
use rustc_hash::FxHashMap;

/// Steps that a proof may take: every one replaces one operation by what bounds it.
const MAX_STEPS: u32 = 24;
/// Divisors and coefficients up to this are multiplied through in a proof.
const MAX_FACTOR: i64 = 1 << 31;

/// Values of a symbol that are tried out where a bound is not enough.
const MAX_TRIED: i64 = 1024;

type Range = (Option<i64>, Option<i64>);

impl Dim {
    /// True when `self <= large` can be shown for all values of the symbols.
    pub fn at_most(&self, large: &Dim) -> bool {
        match (self, large) {
            (Dim::Const(a), Dim::Const(b)) => a <= b,
            _ => (large - self).is_at_least(0),
        }
    }

    /// True when the dim can be shown to be at least `least` for all values of the symbols.
    pub fn is_at_least(&self, least: i64) -> bool {
        (self - &Dim::Const(least)).proves(&mut MAX_STEPS.clone())
    }

    /// True when the bounds of its terms show that the dim is not negative.
    pub fn is_nonnegative(&self) -> bool {
        self.range().0.is_some_and(|low| low >= 0)
    }

    /// The largest number that every term of both is a multiple of; 0 where both are 0.
    pub fn common_factor(&self, other: &Dim) -> i64 {
        i64::try_from(gcd(self.content(), other.content())).unwrap_or(1)
    }

    fn content(&self) -> u64 {
        self.terms().iter().fold(0, |g, (_, c)| gcd(g, c.unsigned_abs()))
    }

    /// True when the dim can be shown to be no 1.
    pub fn is_never_one(&self) -> bool {
        self.content() != 1 || self.is_at_least(2)
    }

    /// False when the dim can be shown to be no 1 wherever `to` is larger than 1: it never broadcasts to it, but is equal.
    pub fn may_stretch_to(&self, to: &Dim) -> bool {
        if self == to || self.is_never_one() {
            return false;
        }
        let mut symbols = vec![];
        for d in [self, to] {
            d.for_each_symbol(&mut |s| symbols.push(s.clone()));
        }
        symbols.sort();
        symbols.dedup();
        if symbols.len() != 1 || !self.is_growing() {
            return true;
        }
        // Of one symbol that it grows with, it is 1 before it is larger.
        for v in 0..MAX_TRIED {
            match (self.eval(&|_| Some(v)), to.eval(&|_| Some(v))) {
                (Some(d), _) if d > 1 => return false,
                (Some(1), Some(to)) if to > 1 => return true,
                (Some(_), Some(_)) => {}
                _ => return true,
            }
        }
        true
    }

    /// True when the dim can be shown to be no smaller where its symbols are larger.
    fn is_growing(&self) -> bool {
        let growing = |a: &Atom| match a {
            Atom::Sym(_) => true,
            Atom::Op(DimOp::Min | DimOp::Max, x, y) => x.is_growing() && y.is_growing(),
            Atom::Op(DimOp::FloorDiv | DimOp::CeilDiv, x, y) => x.is_growing() && y.as_const().is_some_and(|k| k > 0),
            Atom::Op(DimOp::Mod, ..) | Atom::TooLarge => false,
        };
        let factor = |a: &Atom| growing(a) && atom_range(a).0.is_some_and(|low| low >= 0);
        self.terms().iter().all(|(m, c)| match m {
            [] => true,
            [a] => *c > 0 && growing(a),
            m => *c > 0 && m.iter().all(factor),
        })
    }

    /// Whether `self >= 0` follows: by the bounds of its terms, or with one operation after the other replaced by a bound.
    fn proves(&self, steps: &mut u32) -> bool {
        if self.is_nonnegative() {
            return true;
        }
        for (m, c) in self.terms() {
            let [Atom::Op(op, x, y)] = m else { continue };
            let Some(left) = steps.checked_sub(1) else { return false };
            *steps = left;
            let rest = self - &(&Dim::atom(m[0].clone()) * c);
            let mut with = |d: &Dim| (&rest + &(d * c)).proves(steps);
            let found = match (op, c > 0, y.as_const()) {
                // No larger (no smaller) than either side: one bound is enough.
                (DimOp::Min, false, _) | (DimOp::Max, true, _) => with(x) || with(y),
                // One of both sides: both have to do.
                (DimOp::Min, true, _) | (DimOp::Max, false, _) => with(x) && with(y),
                // x/k is less than one away from its rounded value; everything is multiplied by k.
                (DimOp::FloorDiv | DimOp::CeilDiv, _, Some(k))
                    if (1..MAX_FACTOR).contains(&k) && c.abs() < MAX_FACTOR =>
                {
                    let away = match (op, c > 0) {
                        (DimOp::FloorDiv, true) => -c * (k - 1),
                        (DimOp::CeilDiv, false) => c * (k - 1),
                        _ => 0,
                    };
                    (&(&(&rest * k) + &(x * c)) + away).proves(steps)
                }
                _ => false,
            };
            if found {
                return true;
            }
        }
        false
    }

    /// The least and the largest value, by the bounds of the terms.
    fn range(&self) -> Range {
        self.terms()
            .into_iter()
            .fold((Some(0), Some(0)), |(low, high), (m, c)| {
                let (l, h) = product_range(m);
                let scaled = |x: Option<i64>| x.and_then(|x| x.checked_mul(c));
                let (l, h) = if c > 0 {
                    (scaled(l), scaled(h))
                } else {
                    (scaled(h), scaled(l))
                };
                (both(low, l, i64::checked_add), both(high, h, i64::checked_add))
            })
    }

    /// The extent that two extents broadcast to, given that they are equal or one of them is 1: `min(a*b, max(a, b))`, which
    /// is right for 0 as well. The same for any order in which several extents are broadcast.
    pub fn broadcast(&self, other: &Dim) -> Dim {
        match (self, other) {
            (a, b) if a == b || b.is(1) => a.clone(),
            (a, b) if a.is(1) || b.is_never_one() => b.clone(),
            (a, _) if a.is_never_one() => a.clone(),
            (a, b) => {
                let (mut parts, mut more) = (vec![], vec![]);
                a.broadcast_parts(&mut parts);
                b.broadcast_parts(&mut more);
                parts.append(&mut more);
                parts.sort();
                parts.dedup();
                let join = |a: Dim, b: &Dim| Dim::min(&(&a * b), &Dim::max(&a, b));
                parts[1..].iter().fold(parts[0].clone(), join)
            }
        }
    }

    /// The extents that an extent was broadcast from; itself when it was not.
    fn broadcast_parts(&self, parts: &mut Vec<Dim>) {
        if let [([Atom::Op(DimOp::Min, x, y)], 1)] = self.terms()[..] {
            for (product, larger) in [(x, y), (y, x)] {
                if let [([Atom::Op(DimOp::Max, a, b)], 1)] = larger.terms()[..]
                    && a * b == *product
                {
                    a.broadcast_parts(parts);
                    b.broadcast_parts(parts);
                    return;
                }
            }
        }
        parts.push(self.clone());
    }

    /// What an index is multiplied by along a dimension of this extent that is broadcast to one that only a run tells: 0
    /// where the extent is 1, else 1.
    pub fn broadcast_step(&self) -> Dim {
        Dim::min(&Dim::ONE, &(self - &Dim::ONE))
    }

    /// True for what [`Dim::broadcast_step`] makes: 0 or 1 wherever an element is read.
    pub fn is_broadcast_step(&self) -> bool {
        matches!(&self.terms()[..], [([Atom::Op(DimOp::Min, a, b)], 1)] if a.is(1) || b.is(1))
    }

    /// The extents whose [`broadcast steps`](Dim::broadcast_step) the dim is the product of; none for any other dim.
    pub fn stretched(&self) -> Vec<Dim> {
        let step = |a: &Atom| match a {
            Atom::Op(DimOp::Min, a, b) if a.is(1) => Some(b + 1),
            Atom::Op(DimOp::Min, a, b) if b.is(1) => Some(a + 1),
            _ => None,
        };
        match self.terms()[..] {
            [(atoms, 1)] => atoms.iter().map(step).collect::<Option<_>>().unwrap_or_default(),
            _ => vec![],
        }
    }

    /// 0 where both are equal, else 1.
    pub fn differs(&self, other: &Dim) -> Dim {
        Dim::min(&Dim::ONE, &(&Dim::max(self, other) - &Dim::min(self, other)))
    }

    /// A dim without the symbols of `late` that is no smaller, given how large each of these can be; `None` where one has no
    /// bound, or none follows.
    pub fn upper_bound(&self, late: &FxHashMap<Symbol, Option<Dim>>) -> Option<Dim> {
        let is_late = |m: &[Atom]| m.iter().any(|a| a.uses(late));
        let mut sum = Dim::ZERO;
        for (m, c) in self.terms() {
            let product = || m.iter().fold(Dim::Const(c), |p, a| &p * &Dim::atom(a.clone()));
            let natural = || m.len() == 1 || m.iter().all(|a| atom_range(a).0.is_some_and(|low| low >= 0));
            if !is_late(m) {
                sum = &sum + &product();
            } else if c > 0 && natural() {
                let mut p = Dim::Const(c);
                for a in m {
                    p = &p * &a.upper_bound(late)?;
                }
                sum = &sum + &p;
            } else if c > 0 || product_range(m).0.is_none_or(|low| low < 0) {
                return None;
            }
            // What is taken away is 0 at least.
        }
        Some(sum)
    }

    /// The expression with long operations left out, for messages.
    pub fn brief(&self) -> String {
        shorten(&self.to_string())
    }
}

impl Atom {
    fn uses(&self, late: &FxHashMap<Symbol, Option<Dim>>) -> bool {
        let mut found = false;
        Dim::atom(self.clone()).for_each_symbol(&mut |s| found |= late.contains_key(s));
        found
    }

    /// As [`Dim::upper_bound`].
    fn upper_bound(&self, late: &FxHashMap<Symbol, Option<Dim>>) -> Option<Dim> {
        if !self.uses(late) {
            return Some(Dim::atom(self.clone()));
        }
        match self {
            Atom::Sym(s) => late.get(s)?.clone(),
            Atom::TooLarge => None,
            Atom::Op(DimOp::Min, x, y) => match (x.upper_bound(late), y.upper_bound(late)) {
                (Some(x), Some(y)) => Some(Dim::min(&x, &y)),
                (x, y) => x.or(y),
            },
            Atom::Op(DimOp::Max, x, y) => Some(Dim::max(&x.upper_bound(late)?, &y.upper_bound(late)?)),
            Atom::Op(op, x, y) => match y.as_const() {
                Some(k) if k > 0 && *op == DimOp::Mod => Some(Dim::Const(k - 1)),
                Some(k) if k > 0 => Some(Dim::op(*op, x.upper_bound(late)?, y.clone())),
                _ => None,
            },
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn both(a: Option<i64>, b: Option<i64>, f: impl Fn(i64, i64) -> Option<i64>) -> Option<i64> {
    a.zip(b).and_then(|(a, b)| f(a, b))
}

/// The bounds of a product, where no factor can be negative.
fn product_range(atoms: &[Atom]) -> Range {
    let mut range = (Some(1), Some(1));
    for a in atoms {
        let (low, high) = atom_range(a);
        if low.is_none_or(|l| l < 0) {
            // A lone factor has its bounds all the same.
            return if atoms.len() == 1 { (low, high) } else { (None, None) };
        }
        range = (
            both(range.0, low, i64::checked_mul),
            both(range.1, high, i64::checked_mul),
        );
    }
    range
}

fn atom_range(a: &Atom) -> Range {
    let (op, x, y) = match a {
        Atom::Sym(_) => return (Some(0), None),
        Atom::TooLarge => return (None, None),
        Atom::Op(op, x, y) => (op, x, y),
    };
    let ((xl, xh), (yl, yh)) = (x.range(), y.range());
    let either = |a: Option<i64>, b: Option<i64>, f: fn(i64, i64) -> i64| match (a, b) {
        (Some(a), Some(b)) => Some(f(a, b)),
        (a, b) => a.or(b),
    };
    let smaller = |a, b| Some(i64::min(a, b));
    let larger = |a, b| Some(i64::max(a, b));
    match op {
        DimOp::Min => (both(xl, yl, smaller), either(xh, yh, i64::min)),
        DimOp::Max => (either(xl, yl, i64::max), both(xh, yh, larger)),
        DimOp::Mod if yl.is_some_and(|l| l >= 0) => (Some(0), yh.map(|h| (h - 1).max(0))),
        DimOp::Mod => (None, None),
        DimOp::FloorDiv | DimOp::CeilDiv => match y.as_const() {
            Some(k) if k > 0 => (xl.and_then(|l| op.eval(l, k).ok()), xh.and_then(|h| op.eval(h, k).ok())),
            // A divisor of 0 has no value; a larger one makes the quotient smaller.
            None if yl.is_some_and(|l| l >= 0) && xl.is_some_and(|l| l >= 0) => (Some(0), xh),
            _ => (None, None),
        },
    }
}

/// The longest operation that [`shorten`] leaves as it is.
const MAX_SHOWN: usize = 40;

/// A message in which long operations on dims, such as those of a deep network's heights, are left out.
pub fn shorten(message: &str) -> String {
    const NAMES: [&str; 5] = ["floordiv(", "ceildiv(", "mod(", "min(", "max("];
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((at, name)) = NAMES.iter().filter_map(|n| Some((rest.find(n)?, *n))).min() {
        let open = at + name.len();
        out += &rest[..open];
        rest = &rest[open..];
        let mut depth = 1;
        let end = rest.find(|c: char| {
            depth += (c == '(') as i32 - (c == ')') as i32;
            depth == 0
        });
        let Some(end) = end else { break };
        out += if end > MAX_SHOWN { "…" } else { &rest[..end] };
        rest = &rest[end..];
    }
    out + rest
}
