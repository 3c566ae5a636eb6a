//! What programs of an e-graph have in common, without what makes the choice between them hard: the problem of which
//! [`bound`](super::bound) gives a lower bound, and by which [`exact`](super::exact) leaves programs out.
//!
//! A **state** is a class in the form that a consumer sees it in: in memory, or inlined in a kernel. A **step** gives a class a
//! state by one of its e-nodes, over states of its operands that fusion accepts; so what has to be stored is known. A kernel
//! costs the larger of its arithmetic and its memory time, which is at least either of them: each kernel charges one, by what
//! its anchor or the class that it stores was bound by in a program that was found ([`build`]).
//!
//! ```text
//! relu(conv(x)) stored, bound by arithmetic  -->  conv's seconds + relu's + one kernel, and what x costs
//! ```
//!
//! Whatever is hard to tell is left out: that makes programs of states cheaper, never dearer. Left out are what is computed again
//! for places that it is spread to, rough reads, what kernels that embed operands do, and what a gather does not read.
//!
//! Classes that depend on each other are one **group**; a program gets into a group by an e-node that needs nothing of it.

mod build;
mod landmarks;

use super::extract::{At, Classes, Settling};
use super::plan::Plan;
use brolga_ir::ops::Role;
use std::ops::Range;

/// In place of an e-node where a class only gets another form.
const SAME: u32 = u32::MAX;

/// In place of a state or a group where there is none.
const NONE: u32 = u32::MAX;

/// An operand of a step: the edge by which its group is paid, and its state.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    /// The edge; [`INNER`] for a class of the same group.
    pub edge: u32,
    /// The state.
    pub state: u32,
}

/// The edge to one's own group, which is paid in full.
pub(super) const INNER: u32 = u32::MAX;

/// A way to give a class a state.
pub(super) struct Step {
    /// The class that pays, and its e-node; [`SAME`] where it is the same in another form.
    pub class: At,
    pub choice: u32,
    /// The state.
    pub to: u32,
    /// Its seconds, but for reading.
    pub charge: f64,
    /// What it needs among [`Relaxed::operands`]: its operands, and landmarks.
    pub operands: Range<u32>,
    /// What it reads among [`Relaxed::reads`].
    pub reads: Range<u32>,
}

/// Reading something in memory: the edge by which it is paid, and its seconds.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    /// The edge.
    pub edge: u32,
    /// Seconds.
    pub seconds: f64,
}

/// Who pays for a group, or for reading something.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    /// The class that pays; the number of classes and more for results.
    pub payer: usize,
    /// The group, or the class that is read.
    pub to: u32,
    /// True where a kernel has no other payer of this kind: it is its anchor.
    pub anchor: bool,
}

/// States, steps and groups.
pub(super) struct Relaxed {
    /// The class of each state.
    pub states: Vec<At>,
    /// The state of a class in memory, and in any form; [`NONE`] for a class that no result needs.
    pub tensor: Vec<u32>,
    pub any: Vec<u32>,
    /// The group of each class.
    pub group: Vec<u32>,
    /// The steps of each group, by position: operands' groups first.
    pub groups: Vec<Range<u32>>,
    /// The states of each group.
    pub states_of: Vec<Vec<u32>>,
    pub steps: Vec<Step>,
    pub operands: Vec<Operand>,
    pub reads: Vec<Reading>,
    /// Who pays for groups, results last, and those of each group.
    pub edges: Vec<Edge>,
    pub edges_of: Vec<Vec<u32>>,
    /// The edge of each result.
    pub roots: Vec<u32>,
    /// Who pays for reading, and those who read the same memory.
    pub readers: Vec<Edge>,
    pub readers_of: Vec<Vec<u32>>,
    /// The landmarks of each state.
    pub landmarks: Vec<Vec<u32>>,
}

/// True for an e-node that programs are made of: not one that has no kernel, and of a constant the one that is computed when the model
/// is compiled.
pub(super) fn is_usable(cs: &Classes, settling: &Settling, c: At, k: usize) -> bool {
    let choice = &cs.choices[c][k];
    let known = |o: &At| settling.of[*o].is_some();
    let settled = || settling.of[c].as_ref().is_some_and(|s| s.choice == k);
    !choice.part.is_some_and(|p| matches!(p.role, Role::Composite))
        && choice.distinct.iter().all(known)
        && (!cs.constant[c] || settled())
}

/// The operands of an e-node; none where the class is emitted as a number.
pub(super) fn operands(cs: &Classes, c: At, k: usize) -> &[At] {
    if cs.is_splat(c) {
        &[]
    } else {
        &cs.choices[c][k].distinct
    }
}

impl Relaxed {
    /// The relaxation for results, with sides as in a program that was found; `None` where it is too large.
    pub fn new(cs: &Classes, settling: &Settling, found: &Plan, roots: &[At]) -> Option<Relaxed> {
        build::relaxed(cs, settling, found, roots)
    }
}
