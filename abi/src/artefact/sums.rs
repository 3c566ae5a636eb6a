//! Checksums: of sections as a whole, of weights block by block.

use super::FormatError;

/// Bytes of weights that have a checksum of their own.
pub const BLOCK: usize = 1 << 20;

/// So many bytes before they are summed, lines are asked for: what the hardware fetches by itself ends with each page.
const AHEAD: usize = 8 << 10;

/// The checksums of the blocks of weights, of [`BLOCK`] bytes each; the last may be shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(Vec<u64>);

impl Sums {
    /// Those that a section holds, where they are as many as these weights have blocks.
    pub(super) fn read(section: &[u8], weights: usize) -> Option<Sums> {
        let (words, rest) = section.as_chunks::<8>();
        let fits = rest.is_empty() && words.len() == weights.div_ceil(BLOCK);
        fits.then(|| Sums(words.iter().map(|w| u64::from_le_bytes(*w)).collect()))
    }

    /// Takes the next block.
    pub(super) fn push(&mut self, block: &[u8]) {
        self.0.push(checksum(block));
    }

    /// As a section holds them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.0.len()
    }

    /// Checks one block of these weights.
    pub fn check_block(&self, weights: &[u8], block: usize) -> Result<(), FormatError> {
        let start = block * BLOCK;
        let bytes = weights.get(start..weights.len().min(start + BLOCK));
        if bytes.map(checksum).as_ref() == self.0.get(block) {
            return Ok(());
        }
        Err(FormatError::Checksum {
            part: format!("the weights from byte {start} on"),
        })
    }

    /// Checks all blocks.
    pub fn check(&self, weights: &[u8]) -> Result<(), FormatError> {
        (0..self.blocks()).try_for_each(|block| self.check_block(weights, block))
    }
}

/// A checksum that finds every change within one aligned group of 8 bytes, and others with probability 1 - 2^-64: each
/// step is a bijection of the state (after FNV-1a, eight bytes at a time). It guards against damage, not against malice.
///
/// Eight states take turns, because one would wait for its own product: 64 bytes are summed in the time of eight.
pub fn checksum(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME).rotate_left(29);
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (groups, rest) = bytes.as_chunks::<64>();
    let mut lanes = [OFFSET; 8];
    for (at, group) in groups.iter().enumerate() {
        fetch(bytes, 64 * at + AHEAD);
        for (lane, bytes) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
            *lane = step(*lane, word(bytes));
        }
    }
    let (words, tail) = rest.as_chunks::<8>();
    let hash = lanes.into_iter().chain(words.iter().map(word)).fold(OFFSET, step);
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    // The length tells a tail of zeros from no tail.
    step(step(hash, word(&last)), bytes.len() as u64)
}

/// Asks for a line of memory.
#[inline(always)]
fn fetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}
