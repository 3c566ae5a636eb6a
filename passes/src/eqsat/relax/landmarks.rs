//! What every program of a state needs in memory: its **landmarks**.
//!
//! ```text
//! c = conv(pad(x)) or conv_padded(x)     both need x: c pays for it, whichever way it goes, and the pad does not
//! ```
//!
//! Without them a class that is needed by either e-node of another, but through different classes, would have its cost shared out among
//! those, of which a program has one. Only the nearest are kept: to know fewer makes a bound lower, not wrong.

use super::{Operand, Relaxed, SAME, Step};
use crate::eqsat::extract::{At, Classes};
use rustc_hash::{FxHashMap, FxHashSet};

/// Landmarks of a state that are kept: the nearest.
const MOST: usize = 32;

/// Sweeps over a group after which it is taken to have none.
const SWEEPS: usize = 100;

/// States in memory, sorted by how near they are; `None` for a state that nothing gives so far, of which all is a landmark.
type Landmarks = Option<Vec<u32>>;

/// Lets every class pay for what all of its e-nodes need.
pub(super) fn imply(r: &mut Relaxed, cs: &Classes, mut edge: impl FnMut(&mut Relaxed, At, u32) -> u32) {
    let of = all(r, cs);
    let mut by_class: FxHashMap<At, Vec<u32>> = FxHashMap::default();
    for (i, step) in (0..).zip(&r.steps) {
        if step.choice != SAME && !cs.constant[step.class] {
            by_class.entry(step.class).or_default().push(i);
        }
    }
    let mut added: FxHashMap<u32, Vec<Operand>> = FxHashMap::default();
    let mut classes: Vec<At> = by_class.keys().copied().collect();
    classes.sort_unstable();
    for c in classes {
        let steps = &by_class[&c];
        let first = r.steps[steps[0] as usize].choice;
        if steps.iter().all(|&i| r.steps[i as usize].choice == first) {
            continue;
        }
        let needs: Vec<Landmarks> = steps.iter().map(|&i| of_step(r, &of, &r.steps[i as usize])).collect();
        let states = |i: u32| -> Vec<u32> { of_range(r, &r.steps[i as usize]).iter().map(|o| o.state).collect() };
        let direct: Vec<Vec<u32>> = steps.iter().map(|&i| states(i)).collect();
        // What some e-node needs directly, and the nearest that all need.
        let mut wanted: Vec<u32> = direct.concat();
        if let Some(common) = needs.iter().flatten().cloned().reduce(|a, b| common(&a, &b)) {
            let below: FxHashSet<u32> = common
                .iter()
                .filter_map(|&s| of[s as usize].as_ref().map(|n| (s, n)))
                .flat_map(|(s, n)| n.iter().copied().filter(move |&m| m != s))
                .collect();
            wanted.extend(common.into_iter().filter(|s| !below.contains(s)));
        }
        wanted.sort_unstable();
        wanted.dedup();
        for ((&i, needs), known) in steps.iter().zip(&needs).zip(&direct) {
            let Some(needs) = needs else { continue };
            for &s in wanted.iter().filter(|s| needs.contains(s) && !known.contains(s)) {
                let group = r.group[r.states[s as usize]];
                if group != r.group[c] {
                    let edge = edge(r, c, group);
                    added.entry(i).or_default().push(Operand { edge, state: s });
                }
            }
        }
    }
    // The steps with what was added.
    let mut operands = vec![];
    for i in 0..r.steps.len() {
        let from = operands.len() as u32;
        operands.extend_from_slice(of_range(r, &r.steps[i]));
        if let Some(more) = added.get(&(i as u32)) {
            operands.extend_from_slice(more);
            operands[from as usize..].sort_by_key(|o: &Operand| o.edge);
        }
        r.steps[i].operands = from..operands.len() as u32;
    }
    r.operands = operands;
    r.landmarks = of.into_iter().map(Option::unwrap_or_default).collect();
}

/// The landmarks of all states.
fn all(r: &Relaxed, cs: &Classes) -> Vec<Landmarks> {
    let mut of: Vec<Landmarks> = vec![None; r.states.len()];
    for g in 0..r.groups.len() {
        let mut settled = false;
        for _ in 0..SWEEPS {
            let mut next: FxHashMap<u32, Landmarks> = FxHashMap::default();
            for step in &r.steps[r.groups[g].start as usize..r.groups[g].end as usize] {
                let Some(mut needs) = of_step(r, &of, step) else {
                    continue;
                };
                if is_kept(r, cs, step.to) {
                    insert(r, &mut needs, step.to);
                }
                let known = next.entry(step.to).or_default();
                *known = Some(match known.take() {
                    None => needs,
                    Some(known) => common(&known, &needs),
                });
            }
            settled = true;
            for (s, needs) in next {
                if of[s as usize] != needs {
                    settled = false;
                    of[s as usize] = needs;
                }
            }
            if settled {
                break;
            }
        }
        if !settled {
            r.states_of[g].iter().for_each(|&s| of[s as usize] = Some(vec![]));
        }
    }
    of
}

/// True for a state in memory that is worth something.
fn is_kept(r: &Relaxed, cs: &Classes, s: u32) -> bool {
    let c = r.states[s as usize];
    r.tensor[c] == s && !cs.constant[c] && !cs.is_splat(c)
}

/// What a step needs, as its operands.
fn of_range<'a>(r: &'a Relaxed, step: &Step) -> &'a [Operand] {
    &r.operands[step.operands.start as usize..step.operands.end as usize]
}

/// What a step needs in memory; `None` where it needs what nothing gives.
fn of_step(r: &Relaxed, of: &[Landmarks], step: &Step) -> Landmarks {
    let mut out: Vec<u32> = vec![];
    for o in of_range(r, step) {
        let needs = of[o.state as usize].as_ref()?;
        needs.iter().for_each(|&s| insert(r, &mut out, s));
    }
    Some(out)
}

/// Adds a landmark, the nearest first; the one farthest away is left out where they are too many.
fn insert(r: &Relaxed, all: &mut Vec<u32>, s: u32) {
    let key = |s: u32| (std::cmp::Reverse(r.group[r.states[s as usize]]), s);
    if let Err(at) = all.binary_search_by_key(&key(s), |&t| key(t)) {
        all.insert(at, s);
        all.truncate(MOST);
    }
}

/// What two lists have in common.
fn common(a: &[u32], b: &[u32]) -> Vec<u32> {
    a.iter().copied().filter(|s| b.contains(s)).collect()
}
