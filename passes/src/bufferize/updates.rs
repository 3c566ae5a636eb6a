//! Updates: a kernel that copies an operand and then writes some of it over leaves the copy out, where the result may be the
//! operand's memory.
//!
//! ```text
//! call @scatter_nd_0(s0, s1, s2, s3)      copy s0 -> s3                    does nothing where both are one memory
//!   stage { s0 to s3 }               -->  call @scatter_nd_0(s1, s2, s3)
//!   stage scatter { s2 into s3 }            stage scatter { s2 into s3 }
//! ```
//!
//! The operand is a temporary that nothing reads afterwards, and the result a view of it (or it one of the result); or it is an
//! input, the result the output that may be its memory, and a copy stands before the call. A scatter is one of these, and so is
//! a concatenation of slices of a tensor and what takes the place of the rest.

use super::copies::{Copying, ends};
use super::in_place::{Memory, calls};
use super::variants::{Kernels, only};
use crate::lower::Structured;
use brolga_ir::program::Step;
use brolga_ir::structured::{Kernel, Place, Read, Stage};

/// Leaves copies out.
pub(super) fn run(p: &mut Structured) {
    let mut changes = vec![];
    let mut memory = Memory::of(p);
    let calls = calls(&memory.p.steps);
    // The last one comes first: what it updates is then the memory of its result for those before.
    for c in calls.iter().rev() {
        let k = &memory.p.kernels[c.kernel as usize];
        let Some(u) = update(k) else { continue };
        let (from, to) = (c.args[u.operand], c.args[u.result]);
        // The other operands are not the memory that is written.
        let root = memory.p.root(from);
        if c.args.iter().filter(|s| memory.p.root(**s) == root).count() != 1 {
            continue;
        }
        let result = memory.p.root(to);
        if memory.p.aliased(result) == Some(root) {
            // Whether something reads the input afterwards is checked when all is placed.
            if !c.repeats() && memory.is_born(to, c.number) {
                changes.push((c.number, u, Some((root, result))));
            }
        } else if memory.merge(from, to, c, &|memory, number| {
            let input = memory.p.aliased(result);
            calls.iter().find(|c| c.number == number).is_some_and(|c| {
                let u = update(&memory.p.kernels[c.kernel as usize]);
                u.is_some_and(|u| Some(memory.p.root(c.args[u.operand])) == input)
            })
        }) {
            changes.push((c.number, u, None));
        }
    }
    changes.reverse();
    let mut known = Kernels::default();
    let mut changed = std::mem::take(&mut p.steps);
    let mut changes = changes.into_iter().peekable();
    rewrite(&mut changed, &mut 0, &mut |number, steps, step| {
        let Some((_, u, alias)) = changes.next_if(|(n, ..)| *n == number) else {
            return steps.push(step);
        };
        let Step::Call {
            kernel,
            args,
            origin,
            checks,
        } = step
        else {
            return steps.push(step);
        };
        if let Some((from, to)) = alias {
            steps.push(Step::Copy { from, to, rows: None });
        }
        let (rest, kept) = only(&p.kernels[kernel as usize], &u.left);
        steps.push(Step::Call {
            kernel: known.number(p, rest),
            args: kept.iter().map(|&i| args[i]).collect(),
            origin,
            checks,
        });
    });
    p.steps = changed;
}

/// A kernel that copies an operand to the places that it has in the result, and then does the rest.
pub(super) struct Update {
    /// What is copied.
    pub operand: usize,
    /// Where to.
    pub result: usize,
    /// The other stages.
    pub left: Vec<usize>,
}

/// What a kernel is an update of, where it is one.
pub(super) fn update(k: &Kernel) -> Option<Update> {
    if !k.outer.is_empty() || !k.locals.is_empty() || k.schedule.is_some() {
        return None;
    }
    let stages = k.list().filter(|l| l.len() >= 2)?;
    let alike = |s: &Stage| ends(s).is_some_and(|(from, to)| k.operands[from].ty.len() == k.operands[to].ty.len());
    if !stages.iter().any(|s| alike(s)) {
        return None;
    }
    let copies: Vec<Option<Copying>> = stages
        .iter()
        .map(|s| Copying::of(k, s).filter(Copying::stays))
        .collect();
    let first = copies.iter().flatten().next()?;
    let (operand, result) = (first.from, first.to);
    let whole = [operand, result].map(|o| &k.operands[o].ty);
    if whole[0].len() != whole[1].len() || whole[0].dtype.bytes() != whole[1].dtype.bytes() {
        return None;
    }
    let left: Vec<usize> = (0..stages.len())
        .filter(|&i| copies[i].as_ref().is_none_or(|c| (c.from, c.to) != (operand, result)))
        .collect();
    let reads = |i: usize| {
        let place = Place::Operand(operand as u32);
        (stages[i].reads.iter()).any(|r| matches!(r, Read::Element { place: p, .. } if *p == place))
    };
    // What is scattered before it is copied over would stay.
    let scatter = stages.iter().position(|s| s.scatter).unwrap_or(stages.len());
    let last = (0..stages.len()).rev().find(|i| !left.contains(i))?;
    let fits = last < scatter && !left.is_empty() && !left.iter().any(|&i| reads(i));
    fits.then_some(Update { operand, result, left })
}

/// Hands every step to `f`, with its number and the steps before it in its block, which takes it.
fn rewrite(steps: &mut Vec<Step>, number: &mut usize, f: &mut dyn FnMut(usize, &mut Vec<Step>, Step)) {
    for mut s in std::mem::take(steps) {
        let this = *number;
        *number += 1;
        s.blocks_mut().into_iter().for_each(|b| rewrite(b, number, f));
        f(this, steps, s);
    }
}
