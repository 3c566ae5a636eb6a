//! Whether a kernel may write its result over an operand.
//!
//! Points run in any order, on several threads and in vectors, so an element must not be written before every read of it. The
//! rule: a stage reads the operand where it writes the result, or it stands before the only stage that writes, and an outer
//! point reads no elements but those that it writes itself.
//!
//! ```text
//! y[i, j] = relu(x[i, j])                      may be written over x
//! l = max over k of x[i, k]; y[i, j] = x[i, j] - l      may be: row i is read and written by point i only
//! y[i, j] = x[j, i]                            may not: another point reads what this one writes
//! ```
//!
//! In a kernel with loops neither what is read nor what is written may stand in one: an iteration would read what an earlier one
//! wrote.
//!
//! It rests on what the level's interpreter checks: no stage writes an element twice. A schedule that computes a stage again
//! where a later one reads it (`inline`) breaks the order of stages, and is refused where memory is shared.

use super::{IterKind, Kernel, Place, Read, Role, Stage};
use crate::index::{Ix, Var};
use crate::{Dim, Type};

impl Kernel {
    /// True when results stay what they are where the operand `read` is the same memory as the operand `written`.
    pub fn overwrites(&self, read: usize, written: usize) -> bool {
        let (Some(r), Some(w)) = (self.operands.get(read), self.operands.get(written)) else {
            return false;
        };
        let alike = r.role == Role::In
            && w.role != Role::In
            && r.layout.places_as(&r.ty.shape, &w.layout, &w.ty.shape)
            && r.ty.dtype.bytes() == w.ty.dtype.bytes()
            && r.ty.len() == w.ty.len();
        let stages = self.stages();
        if !alike || stages.iter().any(|s| s.scatter) {
            return false;
        }
        let touches = |s: &Stage| {
            let reads = |r: &Read| matches!(r, Read::Element { place: Place::Operand(o), .. } if *o as usize == read);
            let writes = |(p, _): &(Place, Vec<Ix>)| *p == Place::Operand(written as u32);
            s.reads.iter().any(reads) || s.writes.iter().any(writes)
        };
        if self.placed().iter().any(|(s, loops)| !loops.is_empty() && touches(s)) {
            return false;
        }
        let place = Place::Operand(written as u32);
        let write = |s: &Stage| {
            let own = s.writes.iter().find(|(p, _)| *p == place);
            own.map(|(_, map)| self.address(s, &w.ty, map))
        };
        let writers: Vec<(usize, Ix)> = (0..).zip(&stages).filter_map(|(i, s)| Some((i, write(s)?))).collect();
        let Some((first, to)) = writers.first() else {
            return false;
        };
        let last = stages[*first];
        (0..).zip(&stages).all(|(t, s)| {
            s.reads.iter().all(|read_of| {
                let Read::Element {
                    place: Place::Operand(o),
                    map,
                    ..
                } = read_of
                else {
                    return true;
                };
                if *o as usize != read {
                    return true;
                }
                let from = self.address(s, &r.ty, map);
                if t == *first {
                    return from == *to && (!s.scan || self.visits_once(s, &from));
                }
                // Before the only writer, over a row of the same extents.
                let extents = |s: &'_ Stage| s.dims.iter().map(|d| d.extent.clone()).collect::<Vec<Dim>>();
                t < *first && writers.len() == 1 && extents(s) == extents(last) && from == *to
            })
        })
    }

    /// The row-major position that a map leads to; variables of a single point are 0.
    fn address(&self, s: &Stage, ty: &Type, map: &[Ix]) -> Ix {
        let dims: Vec<&Dim> = self.outer.iter().chain(s.dims.iter().map(|d| &d.extent)).collect();
        let at = |v: Var| match dims.get(v.0 as usize) {
            Some(d) if d.is(1) => Ix::constant(0),
            _ => Ix::var(v),
        };
        let whole = map
            .iter()
            .zip(&ty.shape)
            .fold(Ix::constant(0), |f, (ix, d)| &f.scale(d) + ix);
        whole.substitute(&at, &Ix::reg)
    }

    /// True when a scan's position moves with every dimension that it visits in order.
    fn visits_once(&self, s: &Stage, at: &Ix) -> bool {
        let inner = (self.outer.len() as u32..).zip(&s.dims);
        inner
            .filter(|(_, d)| d.kind == IterKind::Reduction && !d.extent.is(1))
            .all(|(v, _)| at.uses(Var(v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the first operand of a kernel may be overwritten by the last.
    fn may(operands: &str, rest: &str) -> bool {
        let k: Kernel = format!("kernel @k({operands}) {rest}")
            .parse()
            .unwrap_or_else(|e| panic!("{e} in {rest}"));
        k.verify().expect("a valid kernel");
        k.overwrites(0, k.operands.len() - 1)
    }

    #[test]
    fn own_points_may_be_overwritten() {
        let relu = |read: &str| {
            let body = "body (v0: f32) { v1 = const f32 0.0; v2 = max v0 v1 } -> v2";
            may(
                "o0: f32[4, 4] in, o1: f32[1, 4, 4] out",
                &format!("outer(1, 4, 4) {{ stage {{ read {read} {body} write o1[i0, i1, i2] }} }}"),
            )
        };
        assert!(relu("o0[i1, i2]"));
        assert!(relu("o0[i1, i2] where (i2 - 1 in 0..4) else f32 0.0"));
        assert!(!relu("o0[i2, i1]"), "a transpose");
        assert!(!relu("o0[i1, 0]"), "a broadcast");
        assert!(!relu("o0[i1, i2 + 1] where (i2 + 1 in 0..4) else f32 0.0"), "a shift");
    }

    #[test]
    fn rows_may_be_overwritten_when_they_were_read() {
        let softmax = |first: &str, dims: &str| {
            may(
                "o0: f32[4, 6] in, o1: f32[4, 6] out",
                &format!(
                    "outer(4) {{ local l0: f32[]
                      stage reduce({dims}) {{ read o0[{first}] body (v0: f32) {{ }} -> v0
                        combine free init(f32 0.0) (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                          merge (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                        write l0[] }}
                      stage parallel(6) {{ read o0[i0, i1] read l0[]
                        body (v0: f32, v1: f32) {{ v2 = sub v0 v1 }} -> v2 write o1[i0, i1] }} }}"
                ),
            )
        };
        assert!(softmax("i0, i1", "6"));
        assert!(!softmax("3 - i0, i1", "6"), "another point's row");
        assert!(!softmax("i1, 0", "4"), "a column");
    }

    #[test]
    fn what_later_stages_read_stays() {
        let rest = "outer() {
            stage parallel(4) { read o0[i0] body (v0: f32) { } -> v0 write o1[i0] }
            stage parallel(4) { read o0[i0] body (v0: f32) { } -> v0 write o1[i0 + 4] } }";
        // A different number of elements, and an operand that the second stage reads as well.
        assert!(!may("o0: f32[4] in, o1: f32[8] out", rest));
        let two = "outer(4) {
            stage { read o0[i0] body (v0: f32) { } -> v0 write o1[i0] }
            stage { read o0[i0] body (v0: f32) { } -> v0 write o2[i0] } }";
        let k: Kernel = format!("kernel @k(o0: f32[4] in, o1: f32[4] out, o2: f32[4] out) {two}")
            .parse()
            .expect("a kernel");
        assert!(!k.overwrites(0, 1) && k.overwrites(0, 2));
    }

    #[test]
    fn a_scan_overwrites_what_it_has_visited() {
        let scan = |read: &str| {
            may(
                "o0: f32[4, 6] in, o1: f32[4, 6] out",
                &format!(
                    "outer(4) {{ stage reduce(6) scan {{ read {read} body (v0: f32) {{ }} -> v0
                        combine free init(f32 0.0) (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                          merge (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                        write o1[i0, i1] }} }}"
                ),
            )
        };
        assert!(scan("o0[i0, i1]"));
        assert!(
            !scan("o0[i0, i1 - 1] where (i1 - 1 in 0..6) else f32 0.0"),
            "the one before"
        );
    }
}
