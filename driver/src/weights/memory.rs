//! Memory of constants: the bytes of the model where they are, the blob that is made, and what is needed on the way.

use super::{Constants, broken, too_large, touched};
use crate::Result;
use brolga_ir::program::{Program, SlotId, Storage};
use brolga_ir::{ConstData, DType, Number, encode};
use brolga_runtime::AlignedBytes;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock};

/// Bytes of a constant's memory.
pub(super) fn size(program: &Program, s: SlotId) -> Result<u64> {
    let bytes = program.slot(s).bytes();
    bytes.as_const().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        broken(
            program,
            format!("the constant {s} has a size of {bytes} bytes, expected a number"),
        )
    })
}

/// A weight's bytes where they are.
pub(super) fn in_place(program: &Program, s: SlotId, bytes: u64) -> Result<Option<&[u8]>> {
    let data = match &program.slot(s).storage {
        Storage::Weight(ConstData::Dense(t)) => t.bytes().get(..bytes as usize),
        Storage::Weight(ConstData::File { source, offset }) => {
            let end = offset.checked_add(bytes as usize);
            end.and_then(|end| source.bytes().get(*offset..end))
        }
        _ => return Ok(None),
    };
    match data {
        Some(d) => Ok(Some(d)),
        None => Err(broken(
            program,
            format!("the constant {s} has fewer than its {bytes} bytes"),
        )),
    }
}

pub(super) fn element(d: DType, x: Number) -> Vec<u8> {
    let mut e = vec![0; d.bytes()];
    encode(d, x, &mut e);
    e
}

/// Writes a weight's elements; a computed constant is left as it is.
pub(super) fn fill(program: &Program, s: SlotId, place: &mut [u8]) -> Result<()> {
    let slot = program.slot(s);
    if let Some(data) = in_place(program, s, place.len() as u64)? {
        place.copy_from_slice(data);
    } else if let Storage::Weight(ConstData::Splat(x)) = &slot.storage {
        let e = element(slot.ty.dtype, *x);
        if e.iter().any(|b| *b != 0) {
            place.chunks_exact_mut(e.len()).for_each(|c| c.copy_from_slice(&e));
        }
    }
    Ok(())
}

/// Blocks of memory that constants are computed in.
pub(super) struct Blocks {
    pub blob: AlignedBytes,
    /// Constants that only other constants are made of.
    temporaries: Vec<(SlotId, AlignedBytes)>,
    /// Bytes of `temporaries`.
    pub temporary: u64,
}

impl Blocks {
    /// Memory for all that steps touch and the main steps read, and that is not read where it is.
    pub fn new(program: &Program, constants: &Constants, limit: u64) -> Result<Blocks> {
        let here = constants.steps.iter().flat_map(|s| touched(program, s));
        let mut here: Vec<SlotId> = here.map(|s| constants.first(s)).collect();
        here.sort_unstable();
        here.dedup();
        let mut wanted = vec![];
        let mut needed = constants.bytes;
        for &s in &here {
            let bytes = size(program, s)?;
            if !constants.offsets.contains_key(&s) && in_place(program, s, bytes)?.is_none() {
                needed = needed.saturating_add(bytes);
                wanted.push((s, bytes));
            }
        }
        if needed > limit {
            return Err(too_large(program, needed, limit));
        }
        let block = |(s, bytes)| Ok((s, AlignedBytes::zeroed(bytes)?));
        Ok(Blocks {
            blob: AlignedBytes::zeroed(constants.bytes)?,
            temporaries: wanted.into_iter().map(block).collect::<Result<_>>()?,
            temporary: needed - constants.bytes,
        })
    }

    /// The memory of each constant.
    pub fn memory<'m>(&'m mut self, program: &'m Program, constants: &Constants) -> Result<Memory<'m>> {
        let mut laid: Vec<(u64, SlotId)> = constants.offsets.iter().map(|(s, at)| (*at, *s)).collect();
        laid.sort_unstable();
        let (mut rest, mut end): (&mut [u8], u64) = (&mut self.blob, 0);
        let mut places: FxHashMap<SlotId, Place> = FxHashMap::default();
        let mut given = FxHashMap::default();
        // Equal constants have one place; the first one is who it belongs to.
        for (at, s) in laid.into_iter().filter(|(_, s)| constants.first(*s) == *s) {
            let bytes = size(program, s)?;
            let (place, behind) = rest[(at - end) as usize..].split_at_mut(bytes as usize);
            (rest, end) = (behind, at + bytes);
            places.insert(s, RwLock::new(Room::Kept(place)));
        }
        let temporaries = std::mem::take(&mut self.temporaries).into_iter();
        places.extend(temporaries.map(|(s, block)| (s, RwLock::new(Room::Temporary(block)))));
        let read = constants.steps.iter().flat_map(|s| touched(program, s));
        let read: FxHashSet<SlotId> = read.map(|s| constants.first(s)).collect();
        for s in read {
            if let Some(data) = in_place(program, s, size(program, s)?)? {
                given.insert(s, data);
            }
        }
        Ok(Memory { given, places })
    }
}

/// Memory that steps write, and then read.
pub(super) type Place<'m> = RwLock<Room<'m>>;

/// The memory of a constant.
pub(super) enum Room<'m> {
    /// A part of the blob.
    Kept(&'m mut [u8]),
    /// What only other constants are made of. Pages are there once they are written.
    Temporary(AlignedBytes),
}

impl Deref for Room<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Room::Kept(bytes) => bytes,
            Room::Temporary(bytes) => bytes,
        }
    }
}

impl DerefMut for Room<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Room::Kept(bytes) => bytes,
            Room::Temporary(bytes) => bytes,
        }
    }
}

/// Where constants are.
pub(super) struct Memory<'m> {
    /// Bytes of the model, where steps read them.
    pub given: FxHashMap<SlotId, &'m [u8]>,
    /// Memory for what is computed, and for what the main steps read.
    pub places: FxHashMap<SlotId, Place<'m>>,
}

impl Memory<'_> {
    /// True for weights that have to be written before they can be read or shipped.
    pub fn is_filled(&self, program: &Program, s: SlotId) -> bool {
        matches!(program.slot(s).storage, Storage::Weight(_)) && self.places.contains_key(&s)
    }

    /// Gives back the memory of a constant that nothing is made of any more, unless it is kept.
    pub fn release(&self, s: SlotId) {
        if let Some(place) = self.places.get(&s)
            && let room @ Room::Temporary(_) = &mut *place.write().unwrap_or_else(PoisonError::into_inner)
        {
            *room = Room::Kept(&mut []);
        }
    }
}
