//! Which memory is in use when: the arena's temporaries with their offsets and lives.

use super::shape;
use super::steps::Step;
use brolga_ir::Dim;
use brolga_ir::program::{Program, SlotId, Storage, nested};

/// The arena.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    /// Its bytes, without the scratch of workers.
    pub bytes: u64,
    /// What lies in it.
    pub blocks: Vec<Block>,
    /// Temporaries whose place or size only a run tells.
    pub unknown: usize,
}

/// A temporary.
#[derive(Clone, Debug)]
pub struct Block {
    /// The slot's name in the program's text.
    pub slot: String,
    /// Its type.
    pub ty: String,
    /// The byte where it begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The first step that touches it.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The model's nodes that write it first.
    pub nodes: Vec<String>,
}

/// The arena of a program under sizes.
pub(super) fn of(program: &Program, steps: &[Step], sizes: &dyn Fn(&str) -> Option<i64>) -> Arena {
    let late = program.bounds();
    let number = |d: &Dim| {
        let bound = d.upper_bound(&late)?;
        u64::try_from(bound.value(sizes).ok()?).ok()
    };
    let mut writers: Vec<Option<u32>> = vec![None; program.slots.len()];
    for (n, step) in (0..).zip(nested(&program.steps)) {
        for slot in program.accesses(step).1 {
            writers[program.root(slot).0 as usize].get_or_insert(n);
        }
    }
    let mut arena = Arena {
        bytes: program.arena.as_ref().and_then(&number).unwrap_or(0),
        ..Arena::default()
    };
    for ((n, slot), life) in (0..).zip(&program.slots).zip(program.lives()) {
        let (Storage::Temp(at), Some((first, last))) = (&slot.storage, life) else {
            continue;
        };
        let place = at.as_ref().and_then(&number).zip(number(&slot.bytes()));
        let Some((offset, bytes)) = place else {
            arena.unknown += 1;
            continue;
        };
        let writer = writers[n as usize].and_then(|w| steps.get(w as usize));
        arena.blocks.push(Block {
            slot: SlotId(n).to_string(),
            ty: shape(&slot.ty),
            offset,
            bytes,
            first: first as u32,
            last: last as u32,
            nodes: writer.map_or(vec![], |s| s.nodes.clone()),
        });
    }
    arena
}
