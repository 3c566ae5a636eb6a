//! Weights of several programs in one blob: what steers any of them in front, and what they have in common once.
//!
//! ```text
//! decoder [ table | layers | head ]   encoder [ table | layers ]   joined: [ table | layers | head | layers ]
//! ```

use super::Packed;
use brolga_ir::program::SlotId;
use rustc_hash::FxHashMap;
use std::io::Write;

/// Where the constants of programs lie in a blob of all.
pub struct Joined<'a> {
    pieces: Vec<&'a [u8]>,
    /// For each program, where what lay at an offset of its own blob lies.
    moved: Vec<FxHashMap<u64, u64>>,
    /// Bytes of all.
    pub bytes: u64,
    /// So many bytes at the beginning steer.
    pub steering_bytes: u64,
}

impl<'a> Joined<'a> {
    /// Those of these programs.
    pub fn of(parts: &[&'a Packed]) -> Joined<'a> {
        let mut joined = Joined {
            pieces: vec![],
            moved: vec![FxHashMap::default(); parts.len()],
            bytes: 0,
            steering_bytes: 0,
        };
        let mut places: FxHashMap<&[u8], u64> = FxHashMap::default();
        for steering in [true, false] {
            for (part, moved) in parts.iter().zip(&mut joined.moved) {
                let steers = |at: u64| at < part.steering_bytes;
                for (at, piece) in pieces(part).into_iter().filter(|(at, _)| steers(*at) == steering) {
                    let to = *places.entry(piece).or_insert_with(|| {
                        joined.pieces.push(piece);
                        joined.bytes += piece.len() as u64;
                        joined.bytes - piece.len() as u64
                    });
                    moved.insert(at, to);
                }
            }
            if steering {
                joined.steering_bytes = joined.bytes;
            }
        }
        joined
    }

    /// Where what lay at an offset of a program's own blob lies.
    pub fn place(&self, program: usize, at: u64) -> u64 {
        self.moved[program].get(&at).copied().unwrap_or(at)
    }

    /// Where the constants of a program lie.
    pub fn offsets(&self, program: usize, own: &Packed) -> FxHashMap<SlotId, u64> {
        let moved = own.offsets().iter().map(|(s, at)| (*s, self.place(program, *at)));
        moved.collect()
    }

    /// Writes the blob.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.pieces.iter().try_for_each(|piece| out.write_all(piece))
    }
}

/// The constants of a blob with their padding, and where they lie.
fn pieces(packed: &Packed) -> Vec<(u64, &[u8])> {
    let mut starts: Vec<u64> = packed.offsets().values().copied().collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([packed.bytes().len() as u64]);
    let all = starts.iter().zip(ends);
    all.map(|(&at, end)| (at, &packed.bytes()[at as usize..end as usize]))
        .collect()
}
