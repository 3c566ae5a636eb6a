//! Broadcasts that only a run tells apart: most often they stretch nothing.
//!
//! Two extents that are written differently, such as `h` and `2*floordiv(h, 2)`, broadcast to each other where one of them
//! is 1; the index then has a coefficient that is 0 or 1, and no dimensions merge. A kernel with such reads is compiled a
//! second time, for the case that all of these extents are equal; a run takes one of the two, the other has no iterations.
//!
//! ```text
//! a[w*min(1, h - 1)*i + min(1, w - 1)*j] for i in 0..max(h, m) …  -->  a[w*i + j], where h is m
//! ```

use super::flat::Flat;
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::structured::{Kernel, Read};

/// A kernel where no read is stretched.
pub struct Plain {
    /// The kernel; the sizes of its buffers are those of the kernel that it is made of.
    pub flat: Flat,
    /// 0 where it may run, else 1.
    pub stretches: Dim,
}

/// The form of a kernel where nothing is stretched; `None` when it has no reads that only a run tells, or writes in order.
pub fn plain(kernel: &Kernel, general: &Flat) -> Option<Plain> {
    // A kernel with loops has one version.
    if kernel.list()?.iter().any(|s| s.scatter) {
        return None;
    }
    let mut plain = kernel.clone();
    let mut equal: Vec<(Dim, Dim)> = vec![];
    let outer = &kernel.outer;
    plain.for_each_stage_mut(&mut |s| {
        let extents: Vec<Dim> = outer.iter().chain(s.dims.iter().map(|d| &d.extent)).cloned().collect();
        let mut flatten = |ix: &mut Ix| {
            for (term, c) in &mut ix.terms {
                let Term::Var(Var(v)) = term else { continue };
                let Some(to) = extents.get(*v as usize) else { continue };
                for d in c.stretched() {
                    equal.push((d, to.clone()));
                    *c = Dim::ONE;
                }
            }
        };
        for r in &mut s.reads {
            if let Read::Element { map, .. } = r {
                map.iter_mut().for_each(&mut flatten);
            }
        }
    });
    equal.sort();
    equal.dedup();
    if equal.is_empty() {
        return None;
    }
    // One name for what is equal, so that dimensions merge.
    let rename = |d: &mut Dim| {
        if let Some((_, to)) = equal.iter().find(|(from, _)| from == d) {
            *d = to.clone();
        }
    };
    let shapes = plain.operands.iter_mut().map(|o| &mut o.ty.shape);
    shapes
        .chain(plain.locals.iter_mut().map(|l| &mut l.shape))
        .flatten()
        .for_each(rename);
    plain.outer.iter_mut().for_each(rename);
    plain.for_each_stage_mut(&mut |s| s.dims.iter_mut().for_each(|d| rename(&mut d.extent)));
    let apart = equal.iter().map(|(d, to)| d.differs(to));
    let apart = apart.fold(Dim::ZERO, |sum, d| &sum + &d);
    let mut flat = Flat::new(&plain);
    flat.buffers.clone_from(&general.buffers);
    Some(Plain {
        flat,
        stretches: Dim::min(&Dim::ONE, &apart),
    })
}
