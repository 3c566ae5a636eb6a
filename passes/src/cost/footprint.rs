//! How many elements an index expression touches while some loops run.
//!
//! ```text
//! b0[40*i1 + i2], i1 in 0..3, i2 in 0..8        24 elements in a span of 88
//! b0[i1 + i2], i1 in 0..3, i2 in 0..8           10 elements in a span of 10
//! ```

use super::nest::{Integer, Nest, size};
use brolga_ir::index::{Ix, Reg, Term, Var};
use std::cell::Cell;

/// A set of places in a buffer.
#[derive(Clone, PartialEq, Debug)]
pub struct Footprint {
    /// The lowest place, but for what does not move.
    pub low: i64,
    /// How many of them, as well as it can be told: never fewer.
    pub count: i64,
    /// From the lowest place to the highest one, both included.
    pub span: i64,
    /// What moves through them: steps with how many there are, the smallest step first.
    pub steps: Vec<(i64, i64)>,
}

/// What moves an index: a step and how often it is taken.
type Steps = Vec<(i64, i64)>;

impl Footprint {
    /// The places of an expression while the loops run that `moves` is true for; the others stand still.
    pub fn of(ix: &Ix, nest: &Nest, sizes: &dyn Fn(&str) -> Option<i64>, moves: &dyn Fn(Var) -> bool) -> Footprint {
        let walk = Walk { nest, sizes, moves };
        let (low, steps) = walk.steps(ix);
        Footprint::from_steps(low, steps)
    }

    /// The places `low + Σ step * (0..count)`.
    pub fn from_steps(mut low: i64, steps: Steps) -> Footprint {
        let mut steps: Steps = steps.into_iter().filter(|&(s, n)| s != 0 && n > 1).collect();
        for (step, n) in &mut steps {
            if *step < 0 {
                low = low.saturating_add(step.saturating_mul(*n - 1));
                *step = step.saturating_neg();
            }
        }
        steps.sort_unstable();
        let (mut count, mut span, mut unit) = (1i64, 1i64, 0);
        for &(step, n) in &steps {
            unit = gcd(unit, step);
            let reach = step.saturating_mul(n - 1).saturating_add(span);
            count = count.saturating_mul(n);
            // What steps by less than what is there already meets places again.
            if step < span {
                count = count.min((reach - 1) / unit + 1);
            }
            span = reach;
        }
        Footprint {
            low,
            count,
            span,
            steps,
        }
    }

    /// How many places several of them have together, of a buffer of `len` elements: never fewer, where `len` is right.
    pub fn union(all: &[Footprint], len: i64) -> i64 {
        let mut different: Vec<&Footprint> = vec![];
        for f in all {
            if !different.contains(&f) {
                different.push(f);
            }
        }
        let low = different.iter().map(|f| f.low).min().unwrap_or(0);
        let high = different
            .iter()
            .map(|f| f.low.saturating_add(f.span))
            .max()
            .unwrap_or(0);
        let sum = different.iter().fold(0i64, |n, f| n.saturating_add(f.count));
        sum.min(high.saturating_sub(low)).min(len.max(0))
    }
}

struct Walk<'a> {
    nest: &'a Nest<'a>,
    sizes: &'a dyn Fn(&str) -> Option<i64>,
    moves: &'a dyn Fn(Var) -> bool,
}

impl Walk<'_> {
    /// The lowest value of an expression, where nothing steps back, and its steps.
    fn steps(&self, ix: &Ix) -> (i64, Steps) {
        let value = |d| size(d, self.sizes, &Cell::new(true));
        let mut low = value(&ix.offset);
        let mut steps: Steps = vec![];
        for (t, c) in &ix.terms {
            let c = value(c);
            let (least, inner) = self.term(t);
            low = low.wrapping_add(c.wrapping_mul(least));
            steps.extend(inner.into_iter().map(|(s, n)| (s.wrapping_mul(c), n)));
        }
        (low, steps)
    }

    fn term(&self, t: &Term) -> (i64, Steps) {
        let value = |d| size(d, self.sizes, &Cell::new(true)).max(1);
        match t {
            Term::Var(v) => (0, vec![(1, self.trips(*v))]),
            Term::Reg(r) => self.register(*r),
            Term::Div(e, d) => {
                let (f, d) = (self.within(e), value(d));
                let (from, to) = (f.low.div_euclid(d), (f.low + f.span - 1).div_euclid(d));
                (from, vec![(1, to - from + 1)])
            }
            Term::Mod(e, d) => {
                let (f, d) = (self.within(e), value(d));
                // It starts again where it passes a multiple.
                let whole = f.low.rem_euclid(d) + f.span <= d;
                match whole {
                    true => (f.low.rem_euclid(d), f.steps),
                    false => (0, vec![(1, d.min(f.count))]),
                }
            }
            Term::Min(e, d) => {
                let (f, d) = (self.within(e), value(d));
                let (least, most) = (f.low.min(d), (f.low + f.span - 1).min(d));
                let count = f.count.min(most - least + 1);
                // As far apart as they can be.
                (least, vec![((most - least) / (count - 1).max(1), count)])
            }
        }
    }

    fn within(&self, ix: &Ix) -> Footprint {
        let (low, steps) = self.steps(ix);
        Footprint::from_steps(low, steps)
    }

    fn register(&self, r: Reg) -> (i64, Steps) {
        match self.nest.integers.get(&r) {
            Some(Integer::Index(e)) => self.steps(e),
            // Another value in every iteration, wherever it points.
            Some(Integer::Data(vars)) => {
                let times = vars.iter().fold(1i64, |n, v| n.saturating_mul(self.trips(*v)));
                (0, vec![(1, times)])
            }
            None => (0, vec![]),
        }
    }

    fn trips(&self, v: Var) -> i64 {
        match (self.moves)(v) {
            true => self.nest.extents.get(&v).copied().unwrap_or(1),
            false => 1,
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(steps: &[(i64, i64)]) -> (i64, i64) {
        let f = Footprint::from_steps(0, steps.to_vec());
        (f.count, f.span)
    }

    /// The places themselves.
    fn places(steps: &[(i64, i64)]) -> usize {
        let mut all = vec![0];
        for (s, n) in steps {
            all = all.iter().flat_map(|p| (0..*n).map(move |i| p + s * i)).collect();
        }
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    #[test]
    fn places_are_counted_and_never_too_few() {
        assert_eq!(counted(&[(40, 3), (1, 8)]), (24, 88));
        assert_eq!(counted(&[(1, 3), (1, 8)]), (10, 10));
        assert_eq!(counted(&[(2, 10), (2, 3)]), (12, 23));
        assert_eq!(counted(&[(-1, 5), (0, 9)]), (5, 5));
        for steps in [
            vec![(56, 5), (1, 3), (56, 3), (2, 9)],
            vec![(3, 4), (7, 5), (1, 2)],
            vec![(6, 4), (4, 5), (100, 3)],
        ] {
            assert!(counted(&steps).0 >= places(&steps) as i64, "{steps:?}");
        }
    }

    #[test]
    fn what_several_share_counts_once() {
        let f = |low, steps: &[(i64, i64)]| Footprint::from_steps(low, steps.to_vec());
        let taps = [f(0, &[(1, 10)]), f(1, &[(1, 10)]), f(2, &[(1, 10)])];
        assert_eq!(Footprint::union(&taps, 100), 12);
        assert_eq!(Footprint::union(&taps, 11), 11);
        let same = [f(0, &[(64, 10)]), f(0, &[(64, 10)])];
        assert_eq!(Footprint::union(&same, 1000), 10);
        assert_eq!(Footprint::union(&[], 1000), 0);
    }
}
