//! A kernel by what it means: without its name, its schedule and the names of its symbols.
//!
//! ```text
//! kernel @dense_7(o0: f32[batch, 8] in, …) symbols(batch, seq) outer(batch) { schedule …   -->
//! kernel @kernel(o0: f32[n0, 8] in, …) symbols(n0) outer(n0) {
//! ```
//!
//! Invariant: the canonical form of a canonical kernel is itself.

use super::{Kernel, Part, Read, Stage};
use crate::index::{Bound, Ix};
use crate::{Dim, Symbol};
use rustc_hash::FxHashMap;

/// The name of a canonical kernel.
const NAME: &str = "kernel";

impl Kernel {
    /// The kernel without its schedule, its symbols `n0`, `n1` … in the order in which they first stand in it; and the symbols
    /// that these were.
    pub fn canonical(&self) -> (Kernel, Vec<Symbol>) {
        let mut out = Kernel {
            name: NAME.into(),
            schedule: None,
            ..self.clone()
        };
        let mut known: Vec<Symbol> = vec![];
        out.for_each_dim_mut(&mut |d| {
            d.for_each_symbol(&mut |s| {
                if !known.contains(s) {
                    known.push(s.clone());
                }
            });
        });
        let named = |i: usize| -> Symbol { format!("n{i}").into() };
        let names: FxHashMap<&str, Dim> = (0..).zip(&known).map(|(i, s)| (&**s, Dim::sym(&named(i)))).collect();
        out.for_each_dim_mut(&mut |d| {
            if d.as_const().is_none() {
                *d = d.substitute(&|s| names.get(s).cloned());
            }
        });
        out.symbols = (0..known.len()).map(named).collect();
        (out, known)
    }

    /// Calls `f` with every extent, bound and coefficient, in a fixed order.
    pub fn for_each_dim_mut(&mut self, f: &mut dyn FnMut(&mut Dim)) {
        self.operands
            .iter_mut()
            .flat_map(|o| &mut o.ty.shape)
            .chain(self.locals.iter_mut().flat_map(|l| &mut l.shape))
            .chain(&mut self.outer)
            .for_each(&mut *f);
        parts(&mut self.parts, f);
    }
}

fn parts(all: &mut [Part], f: &mut dyn FnMut(&mut Dim)) {
    for p in all {
        match p {
            Part::Stage(s) => stage(s, f),
            Part::Loop(l) => {
                f(&mut l.extent);
                bounds(&mut l.needed, f);
                parts(&mut l.body, f);
            }
        }
    }
}

fn stage(s: &mut Stage, f: &mut dyn FnMut(&mut Dim)) {
    s.dims.iter_mut().for_each(|d| f(&mut d.extent));
    bounds(&mut s.guard, f);
    for r in &mut s.reads {
        match r {
            Read::Element { map, guard, .. } => {
                indices(map, f);
                bounds(guard, f);
            }
            Read::Index(ix) => ix.for_each_dim_mut(f),
            Read::InBounds(b) => bounds(b, f),
            Read::Computed(..) => {}
        }
    }
    for c in &mut s.checks {
        bounds(&mut c.bounds, f);
        bounds(&mut c.guard, f);
    }
    s.writes.iter_mut().for_each(|(_, map)| indices(map, f));
}

fn indices(all: &mut [Ix], f: &mut dyn FnMut(&mut Dim)) {
    all.iter_mut().for_each(|ix| ix.for_each_dim_mut(f));
}

fn bounds(all: &mut [Bound], f: &mut dyn FnMut(&mut Dim)) {
    for b in all {
        b.index.for_each_dim_mut(f);
        f(&mut b.extent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(rows: &str, name: &str) -> Kernel {
        format!(
            "kernel @{name}(o0: f32[{rows}, 4] in, o1: f32[{rows}, 4] out) symbols(other, {rows}) outer({rows}, 4) {{
               schedule copy{{grain=40000}}
               stage {{ read o0[i0, i1] where (i0 in 0..{rows}) else f32 0.0 body (v0: f32) {{ }} -> v0 write o1[i0, i1] }}
             }}"
        )
        .parse()
        .expect("a kernel")
    }

    #[test]
    fn names_and_schedules_do_not_matter() {
        let (a, symbols) = kernel("batch", "copy_3").canonical();
        let (b, _) = kernel("N", "copy_9").canonical();
        assert_eq!(a, b);
        assert_eq!(symbols, ["batch".into()] as [Symbol; 1]);
        assert_eq!(a.canonical().0, a);
        let text = a.to_string();
        assert!(
            text.starts_with("kernel @kernel(o0: f32[n0, 4] in, o1: f32[n0, 4] out) symbols(n0) outer(n0, 4) {"),
            "{text}"
        );
        assert!(
            text.contains("where (i0 in 0..n0)") && !text.contains("schedule"),
            "{text}"
        );
        a.verify().expect("it is a kernel");
    }
}
