//! What would be copied is made where it is to lie: the state of a loop by the iteration before, and what it begins with.
//!
//! ```text
//! while s7 {                                   view s9 = s5
//!   call @add_2(s5, s1, s9)                    while s7 {
//!   …                                     -->    call @add_2(s5, s1, s9)
//!   copy s9 -> s5                                …
//! }                                            }
//! ```
//!
//! A step makes the new state, all of it, and nothing reads the old one between that step and the copy. Where the step reads the old
//! state itself, it must be one that may write over it, or an [`update`](super::updates) of it, which then copies nothing: what
//! the iterations of a loop give is collected in rows of one tensor so.

use super::updates::{Update, update};
use super::variants::{Kernels, only};
use crate::lower::Structured;
use brolga_ir::Dim;
use brolga_ir::program::{SlotId, Step, Storage, nested};
use brolga_ir::structured::Role;
use rustc_hash::{FxHashMap, FxHashSet};

/// Makes states in place.
pub(super) fn run(p: &mut Structured) {
    let mut uses: FxHashMap<SlotId, usize> = FxHashMap::default();
    for s in nested(&p.steps) {
        let mut roots = FxHashSet::default();
        s.for_each_slot(&mut |slot| _ = roots.insert(p.root(slot)));
        if !matches!(s, Step::Alloc { .. }) {
            roots.into_iter().for_each(|r| *uses.entry(r).or_default() += 1);
        }
    }
    let outputs: FxHashSet<SlotId> = p.outputs.iter().map(|(_, s)| p.root(*s)).collect();
    let mut steps = std::mem::take(&mut p.steps);
    let mut known = Kernels::default();
    let mut gone = FxHashSet::default();
    blocks(&mut steps, &mut |body| {
        for copy in (0..body.len()).rev() {
            let Some((from, to)) = state(p, &body[copy]).filter(|(from, _)| !outputs.contains(from)) else {
                continue;
            };
            let Some((maker, updated)) = maker(p, body, copy, (from, to), uses[&from]) else {
                continue;
            };
            p.slots[from.0 as usize].storage = Storage::View {
                of: to,
                offset: Dim::ZERO,
            };
            // Memory that only the run sizes is given to the one of them that is there first.
            let given = |body: &[Step], s: SlotId| {
                body.iter()
                    .position(|b| matches!(b, Step::Alloc { slot, .. } if *slot == s))
            };
            if let (Some(first), Some(second)) = (given(body, from), given(body, to))
                && first < second
            {
                body.swap(first, second);
            }
            gone.insert(from);
            body.remove(copy);
            // Steps that used both count twice, which only keeps more apart.
            let both = uses[&from] + uses[&to] - 2;
            uses.insert(to, both);
            if let (Some(u), Step::Call { kernel, args, .. }) = (updated, &mut body[maker]) {
                let (rest, kept) = only(&p.kernels[*kernel as usize], &u.left);
                *args = kept.iter().map(|&i| args[i]).collect();
                *kernel = known.number(p, rest);
            }
        }
    });
    forget(&mut steps, &gone);
    p.steps = steps;
}

/// Calls `f` with every block, inner ones first.
fn blocks(steps: &mut Vec<Step>, f: &mut dyn FnMut(&mut Vec<Step>)) {
    for s in steps.iter_mut() {
        s.blocks_mut().into_iter().for_each(|b| blocks(b, f));
    }
    f(steps);
}

/// Drops steps that give memory to what has that of another slot now.
fn forget(steps: &mut Vec<Step>, gone: &FxHashSet<SlotId>) {
    steps.retain(|s| !matches!(s, Step::Alloc { slot, .. } if gone.contains(slot)));
    for s in steps {
        s.blocks_mut().into_iter().for_each(|b| forget(b, gone));
    }
}

/// How many steps, a step itself and those in its blocks, use the memory of a slot.
fn users(p: &Structured, step: &Step, root: SlotId) -> usize {
    let uses = |s: &&Step| {
        let mut found = false;
        s.for_each_slot(&mut |slot| found |= p.root(slot) == root);
        found && !matches!(s, Step::Alloc { .. })
    };
    nested(std::slice::from_ref(step))
        .iter()
        .copied()
        .filter(|s| uses(s))
        .count()
}

/// A temporary, and the state that all of it is copied to.
fn state(p: &Structured, step: &Step) -> Option<(SlotId, SlotId)> {
    let Step::Copy { from, to, rows: None } = step else {
        return None;
    };
    let whole = |s: SlotId| {
        let (root, start) = p.place(s);
        let owner = p.slot(root);
        let all = start.is(0) && owner.layout.is_row_major() && p.slot(s).bytes() == owner.bytes();
        all.then_some(root)
    };
    let (from, to) = (whole(*from)?, whole(*to)?);
    let (made, kept) = (p.slot(from), p.slot(to));
    let fits = from != to && made.bytes() == kept.bytes() && matches!(made.storage, Storage::Temp(_));
    let kept = matches!(kept.storage, Storage::Temp(_) | Storage::Output(_)) && p.aliased(to).is_none();
    (fits && kept).then_some((from, to))
}

/// The step of a loop's body that makes the new state of a copy, where it may make it in place, and what it is an update of.
fn maker(
    p: &Structured,
    body: &[Step],
    copy: usize,
    (from, to): (SlotId, SlotId),
    uses: usize,
) -> Option<(usize, Option<Update>)> {
    let used: Vec<usize> = body[..=copy].iter().map(|s| users(p, s, from)).collect();
    // Nothing else in the program knows it, and nothing between reads or writes what was there.
    let first = used.iter().position(|n| *n > 0)?;
    let kept = |s: &Step| users(p, s, to) == 0;
    if used.iter().sum::<usize>() != uses || !body[first + 1..copy].iter().all(kept) {
        return None;
    }
    let (kernel, args) = match &body[first] {
        Step::Call { kernel, args, .. } => (&p.kernels[*kernel as usize], args),
        Step::Host { inputs, .. } => return inputs.iter().all(|s| p.root(*s) != to).then_some((first, None)),
        _ => return None,
    };
    let of = |root: SlotId| (0..args.len()).filter(move |&i| p.root(args[i]) == root);
    let mut results = of(from);
    let result = results.next().filter(|_| results.next().is_none())?;
    let writes = |i: usize| kernel.operands[i].role != Role::In;
    if !writes(result) {
        return None;
    }
    let old: Vec<usize> = of(to).collect();
    // Element by element, the old state is where the new one is.
    let whole = |i: usize| p.place(args[i]).1.is(0) && p.slot(args[i]).bytes() == p.slot(to).bytes();
    if !old.iter().all(|&i| whole(i)) {
        return None;
    }
    if old.iter().all(|&i| !writes(i) && kernel.overwrites(i, result)) {
        return Some((first, None));
    }
    let u = update(kernel)?;
    (old == [u.operand] && u.result == result).then_some((first, Some(u)))
}
