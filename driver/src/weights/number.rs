//! Constants by value, as in global value numbering: weights by their content, computed ones by the calls that make them.

use super::memory::{element, in_place, size};
use super::{not_evaluated, touched, writes};
use crate::Result;
use brolga_ir::program::{Program, Rows, SlotId, Step, Storage};
use brolga_ir::{ConstData, Dim};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::Hasher;

/// What a computed constant is made by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum By<'p> {
    Kernel(u32),
    Copy(Option<&'p Rows>),
}

/// How a computed constant comes to its value.
#[derive(PartialEq, Eq, Hash)]
enum Made<'p> {
    /// So many bytes, which nothing has written yet.
    Nothing(u64),
    /// What a step makes of the slots that it touches: their values before it, and the byte of each where it begins.
    Step {
        by: By<'p>,
        before: Vec<(u32, Dim)>,
        slot: usize,
    },
}

/// Gives every constant the first one of the same value.
pub(super) fn number(
    program: &Program,
    steps: &[&Step],
    used: &FxHashSet<SlotId>,
) -> Result<FxHashMap<SlotId, SlotId>> {
    let mut all: Vec<SlotId> = steps
        .iter()
        .flat_map(|s| touched(program, s))
        .chain(used.iter().copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    let weights: Vec<SlotId> = all
        .iter()
        .copied()
        .filter(|s| matches!(program.slot(*s).storage, Storage::Weight(_)))
        .collect();
    let mut value: FxHashMap<SlotId, u32> = FxHashMap::default();
    let mut next = by_content(program, &weights, &mut value)?;

    let mut interned: FxHashMap<Made, u32> = FxHashMap::default();
    let mut intern = |made| {
        *interned.entry(made).or_insert_with(|| {
            next += 1;
            next - 1
        })
    };
    for step in steps {
        let by = match step {
            Step::Call { kernel, .. } => By::Kernel(*kernel),
            Step::Copy { rows, .. } => By::Copy(rows.as_ref()),
            _ => return Err(not_evaluated(program, step)),
        };
        let mut slots = vec![];
        step.for_each_slot(&mut |s| slots.push(program.place(s)));
        let mut before = vec![];
        for (s, at) in &slots {
            let known = match value.get(s) {
                Some(&v) => v,
                None => intern(Made::Nothing(size(program, *s)?)),
            };
            before.push((known, at.clone()));
        }
        let written = writes(program, step);
        for (i, (s, _)) in slots.iter().enumerate().filter(|(_, (s, _))| written.contains(s)) {
            let (by, before) = (by.clone(), before.clone());
            value.insert(*s, intern(Made::Step { by, before, slot: i }));
        }
    }
    let mut first: FxHashMap<u32, SlotId> = FxHashMap::default();
    Ok(all
        .into_iter()
        .map(|s| match value.get(&s) {
            Some(&v) => (s, *first.entry(v).or_insert(s)),
            None => (s, s),
        })
        .collect())
}

/// Numbers weights by their bytes; gives the next free number.
fn by_content(program: &Program, weights: &[SlotId], value: &mut FxHashMap<SlotId, u32>) -> Result<u32> {
    let mut sizes: FxHashMap<u64, Vec<SlotId>> = FxHashMap::default();
    for &s in weights {
        sizes.entry(size(program, s)?).or_default().push(s);
    }
    let mut seen: FxHashMap<(u64, u64), Vec<(SlotId, u32)>> = FxHashMap::default();
    let mut next = 0;
    for &s in weights {
        let bytes = size(program, s)?;
        // Most sizes that occur once need no hash of their contents.
        let hash = if sizes[&bytes].len() == 1 {
            0
        } else {
            content_hash(program, s, bytes)?
        };
        let alike = seen.entry((bytes, hash)).or_default();
        let mut found = None;
        for (other, n) in alike.iter() {
            if equal(program, s, *other, bytes)? {
                found = Some(*n);
                break;
            }
        }
        let n = found.unwrap_or_else(|| {
            alike.push((s, next));
            next += 1;
            next - 1
        });
        value.insert(s, n);
    }
    Ok(next)
}

fn content_hash(program: &Program, s: SlotId, bytes: u64) -> Result<u64> {
    let mut h = FxHasher::default();
    match (in_place(program, s, bytes)?, &program.slot(s).storage) {
        (Some(data), _) => h.write(data),
        (None, Storage::Weight(ConstData::Splat(x))) => {
            h.write(program.slot(s).ty.dtype.name().as_bytes());
            h.write(&element(program.slot(s).ty.dtype, *x));
        }
        _ => {}
    }
    Ok(h.finish())
}

fn equal(program: &Program, a: SlotId, b: SlotId, bytes: u64) -> Result<bool> {
    Ok(match (in_place(program, a, bytes)?, in_place(program, b, bytes)?) {
        (Some(x), Some(y)) => std::ptr::eq(x, y) || x == y,
        (None, None) => match (&program.slot(a).storage, &program.slot(b).storage) {
            (Storage::Weight(ConstData::Splat(x)), Storage::Weight(ConstData::Splat(y))) => {
                let d = program.slot(a).ty.dtype;
                d == program.slot(b).ty.dtype && element(d, *x) == element(d, *y)
            }
            _ => false,
        },
        _ => false,
    })
}
