//! What a model demands of its extents. What is true for all values of the symbols costs nothing; what may be true becomes
//! a guard of the graph, which every run checks; the rest is an error.
//!
//! Invariant: a value that is cut or spread to an extent by a guard has that very extent in its type afterwards, so that
//! later shapes agree structurally.

use super::builder::{Builder, One};
use super::error::Fail;
use brolga_ir::dim::product;
use brolga_ir::{Attr, Dim, Guard, Relation, Value};

impl Builder<'_> {
    fn guard(&mut self, left: &Dim, relation: Relation, right: &Dim) {
        let guards = &mut self.graph.guards;
        let known = |g: &Guard| g.left == *left && g.relation == relation && g.right == *right;
        if !guards.iter().any(known) {
            let reason = match &*self.origin {
                "" => String::new(),
                node => format!("node `{node}`"),
            };
            guards.push(Guard::new(left.clone(), relation, right.clone(), reason));
        }
    }

    /// Whether an extent is 1 in every valid run: it is, or something demanded it.
    pub fn is_one(&self, d: &Dim) -> bool {
        let demands = |g: &Guard| {
            g.relation == Relation::Equal && (g.left == *d && g.right.is(1) || g.right == *d && g.left.is(1))
        };
        d.is(1) || self.graph.guards.iter().any(demands)
    }

    /// Notes that two extents are equal in every valid run, and returns the simpler one.
    ///
    /// # Errors
    /// When they differ in every run.
    pub fn require_equal(&mut self, a: &Dim, b: &Dim) -> Result<Dim, Fail> {
        if a == b {
            return Ok(a.clone());
        }
        if (a - b).as_const().is_some() {
            let (a, b) = (a.brief(), b.brief());
            return Err(Fail::Bad(format!("extents {a} and {b}, expected equal ones")));
        }
        let (simple, other) = if weight(b) < weight(a) { (b, a) } else { (a, b) };
        // 2*n == 6 says no more than n == 3.
        let by = Dim::Const(a.common_factor(b));
        let part = |d: &Dim| d.exact_div(&by).unwrap_or_else(|| d.clone());
        self.guard(&part(other), Relation::Equal, &part(simple));
        Ok(simple.clone())
    }

    /// Notes that `a <= b` in every valid run.
    ///
    /// # Errors
    /// When it holds in none.
    pub fn require_at_most(&mut self, a: &Dim, b: &Dim) -> Result<(), Fail> {
        if a.at_most(b) {
            return Ok(());
        }
        if (a - b).is_at_least(1) {
            return Err(Fail::Bad(format!("{} is larger than {}", a.brief(), b.brief())));
        }
        match (a.as_const(), b.as_const()) {
            // Constants stand alone: `3 <= n` instead of `0 <= n - 3`.
            (Some(least), None) => {
                let known = b.terms().iter().find(|(m, _)| m.is_empty()).map_or(0, |t| t.1);
                let (least, rest) = (least.saturating_sub(known), b - &Dim::Const(known));
                self.guard(&Dim::Const(least), Relation::AtMost, &rest);
            }
            _ => self.guard(a, Relation::AtMost, b),
        }
        Ok(())
    }

    /// The extent that extents broadcast to. Of different ones that are not known to be 1, all but those that are 1 when
    /// the model runs are equal then, which becomes a guard.
    ///
    /// # Errors
    /// When they do not broadcast in any run.
    fn broadcast_extent(&mut self, dims: &[Dim]) -> Result<Dim, Fail> {
        let mut all: Vec<&Dim> = dims.iter().filter(|d| !d.is(1)).collect();
        all.sort_by_key(|d| weight(d));
        let mut open: Vec<&Dim> = vec![];
        for d in all {
            // Those that cannot be stretched to each other are one.
            match open.iter().find(|o| !d.may_stretch_to(o) && !o.may_stretch_to(d)) {
                Some(o) => drop(self.require_equal(o, d)?),
                None => open.push(d),
            }
        }
        let fixed = open
            .iter()
            .copied()
            .filter(|d| d.is_never_one())
            .min_by_key(|d| weight(d));
        let to = match fixed {
            Some(d) => d.clone(),
            None => open.iter().fold(Dim::ONE, |to, d| to.broadcast(d)),
        };
        for d in open {
            self.require_broadcast(d, &to)?;
        }
        Ok(to)
    }

    /// Notes that an extent is 1 or equal to another in every valid run.
    fn require_broadcast(&mut self, d: &Dim, to: &Dim) -> Result<(), Fail> {
        if d.is(1) || d == to {
            return Ok(());
        }
        if to.is(1) || !d.may_stretch_to(to) {
            return self.require_equal(d, to).map(|_| ());
        }
        self.guard(d, Relation::Broadcasts, to);
        Ok(())
    }

    /// The extents that all of the values broadcast to.
    ///
    /// # Errors
    /// When they do not.
    pub fn broadcast_shape(&mut self, vs: &[Value]) -> Result<Vec<Dim>, Fail> {
        let shapes: Vec<Vec<Dim>> = vs.iter().map(|&v| self.shape(v)).collect();
        self.broadcast_shapes(&shapes)
    }

    /// The extents that shapes broadcast to, as numpy does it, with guards for what only a run tells.
    ///
    /// # Errors
    /// When they do not broadcast.
    pub fn broadcast_shapes(&mut self, shapes: &[Vec<Dim>]) -> Result<Vec<Dim>, Fail> {
        let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
        let along = |back: usize| {
            let axis = |s: &Vec<Dim>| s.len().checked_sub(back).map(|a| s[a].clone());
            shapes.iter().filter_map(axis).collect::<Vec<Dim>>()
        };
        let extent = |back: usize| {
            self.broadcast_extent(&along(back)).map_err(|_| {
                let show: Vec<String> = shapes.iter().map(|s| format!("{s:?}")).collect();
                Fail::Bad(format!("shapes {} do not broadcast", show.join(" and ")))
            })
        };
        (1..=rank).rev().map(extent).collect()
    }

    /// `v` broadcast to a shape as numpy does it. What has to be equal to the wanted extent is cut to it.
    ///
    /// # Errors
    /// When it does not broadcast.
    pub fn spread(&mut self, v: Value, shape: &[Dim]) -> One {
        let ty = self.ty(v).clone();
        if ty.shape == shape {
            return Ok(v);
        }
        let bad = || Fail::Bad(format!("{ty} does not broadcast to {shape:?}"));
        if ty.rank() > shape.len() {
            return Err(bad());
        }
        let mut wide = vec![Dim::ONE; shape.len() - ty.rank()];
        wide.extend(ty.shape.iter().cloned());
        let mut v = self.reshape(v, wide)?;
        for (a, want) in shape.iter().enumerate() {
            let have = self.shape(v)[a].clone();
            self.require_broadcast(&have, want).map_err(|_| bad())?;
            if have.as_const().is_none() && (want.is(1) || !have.may_stretch_to(want)) {
                v = self.fit(v, a, want)?;
            }
        }
        if self.shape(v) == shape {
            return Ok(v);
        }
        self.op("broadcast", &[Attr::Dims(shape.to_vec())], &[v])
    }

    /// `v` with this extent along an axis, which its own has to be.
    ///
    /// # Errors
    /// When it is another in every run.
    pub fn fit(&mut self, v: Value, axis: usize, want: &Dim) -> One {
        let Some(have) = self.shape(v).get(axis).cloned() else {
            return Err(Fail::Bad(format!("{} has no axis {axis}", self.ty(v))));
        };
        if have == *want {
            return Ok(v);
        }
        self.require_equal(&have, want).map_err(|_| {
            let (have, want) = (have.brief(), want.brief());
            Fail::Bad(format!(
                "{} has the extent {have} along axis {axis}, expected {want}",
                self.ty(v)
            ))
        })?;
        self.slice_axis(v, axis, Dim::ZERO, want.clone())
    }

    /// `v` of this shape, which its own has to be.
    ///
    /// # Errors
    /// When the ranks differ, or an extent is another in every run.
    pub fn fit_shape(&mut self, v: Value, want: &[Dim]) -> One {
        if self.rank(v) != want.len() {
            return Err(Fail::Bad(format!("{}, expected the shape {want:?}", self.ty(v))));
        }
        want.iter().enumerate().try_fold(v, |v, (a, d)| self.fit(v, a, d))
    }

    /// The elements of `v` under another shape, where only a run tells whether it has as many.
    ///
    /// # Errors
    /// When the numbers of elements differ in every run.
    pub fn reshape_if_equal(&mut self, v: Value, to: Vec<Dim>) -> One {
        let from = self.shape(v);
        let (total, wanted) = (product(&from), product(&to));
        if total == wanted {
            return self.reshape(v, to);
        }
        let (left, rest) = uncommon(&from, &to);
        // Where one symbolic extent is left, it alone has to make up for what is wanted.
        let open: Vec<usize> = left.iter().copied().filter(|&i| from[i].as_const().is_none()).collect();
        let known = product(left.iter().filter(|i| !open.contains(i)).map(|&i| &from[i]));
        if let ([axis], Some(want)) = (&open[..], product(rest.iter().map(|&i| &to[i])).exact_div(&known)) {
            let v = self.fit(v, *axis, &want)?;
            return self.reshape(v, to);
        }
        self.require_equal(&total, &wanted).map_err(|_| {
            let (n, m) = (total.brief(), wanted.brief());
            Fail::Bad(format!("{} has {n} elements, the shape {to:?} has {m}", self.ty(v)))
        })?;
        let flat = self.reshape(v, vec![total])?;
        let cut = self.slice_axis(flat, 0, Dim::ZERO, wanted)?;
        self.reshape(cut, to)
    }
}

/// How hard an extent is to work with: a number, a symbol, an expression.
fn weight(d: &Dim) -> (bool, bool, usize) {
    (d.as_const().is_none(), d.as_symbol().is_none(), d.terms().len())
}

/// Positions of the extents of two shapes that are left when equal ones are taken away in pairs.
pub fn uncommon(a: &[Dim], b: &[Dim]) -> (Vec<usize>, Vec<usize>) {
    let (mut left, mut right) = (vec![], (0..b.len()).collect::<Vec<_>>());
    for (i, d) in a.iter().enumerate() {
        match right.iter().position(|&j| b[j] == *d) {
            Some(p) => {
                right.remove(p);
            }
            None => left.push(i),
        }
    }
    (left, right)
}

/// True when a dim can be shown to be at least `least` unless an input is empty.
pub fn known_for_inputs(d: &Dim, least: i64) -> bool {
    d.substitute(&|s| Some(&Dim::sym(s) + 1)).is_at_least(least)
}
