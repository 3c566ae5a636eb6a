//! Aligned, zeroed memory whose lack is an error: arenas, outputs, owned weights.
//!
//! Invariant: the first byte lies at a multiple of [`ALIGN`], for as long as the value lives, moves included.
//!
//! Large blocks are anonymous mappings: their pages are zero without being written, a failure is an error instead of an
//! abort, and Linux is asked for huge pages. Small blocks come from the allocator, which reuses them.

use memmap2::MmapMut;

use crate::{Error, Result};

pub use brolga_abi::ctx::ALIGN;

/// Blocks of this size and above are mapped: two huge pages, of which at least one can be used whole.
const MAP_FROM: usize = 4 << 20;

/// A block of bytes at a multiple of 64.
#[derive(Debug)]
pub struct AlignedBytes {
    storage: Storage,
    start: usize,
    len: usize,
}

#[derive(Debug)]
enum Storage {
    Heap(Vec<u8>),
    Map(MmapMut),
}

impl AlignedBytes {
    /// `len` zeros.
    pub fn zeroed(len: u64) -> Result<Self> {
        let out_of_memory = || Error::OutOfMemory { bytes: len };
        let size = usize::try_from(len)
            .ok()
            .filter(|&size| size <= isize::MAX as usize - ALIGN);
        let len = size.ok_or_else(out_of_memory)?;
        let (storage, address) = if len >= MAP_FROM {
            let map = MmapMut::map_anon(len).map_err(|_| out_of_memory())?;
            #[cfg(target_os = "linux")]
            // Advice only: without it the pages are small, and everything else is the same.
            let _ = map.advise(memmap2::Advice::HugePage);
            let address = map.as_ptr().addr();
            (Storage::Map(map), address)
        } else {
            let block = vec![0; len + ALIGN - 1];
            let address = block.as_ptr().addr();
            (Storage::Heap(block), address)
        };
        Ok(AlignedBytes {
            storage,
            start: address.next_multiple_of(ALIGN) - address,
            len,
        })
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut block = Self::zeroed(bytes.len() as u64)?;
        block.copy_from_slice(bytes);
        Ok(block)
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.storage {
            Storage::Heap(block) => block,
            Storage::Map(map) => map,
        };
        &all[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        let all: &mut [u8] = match &mut self.storage {
            Storage::Heap(block) => block,
            Storage::Map(map) => map,
        };
        &mut all[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 4096, MAP_FROM - 1, MAP_FROM, MAP_FROM + 1] {
            let block = AlignedBytes::zeroed(len as u64).unwrap();
            let moved = Box::new(block);
            assert_eq!(moved.as_ptr().addr() % ALIGN, 0, "{len} bytes");
            assert_eq!(moved.len(), len);
            assert!(moved.iter().all(|&byte| byte == 0));
        }
        assert_eq!(&*AlignedBytes::copy_of(&[1, 2, 3]).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn too_much_is_an_error() {
        for bytes in [u64::MAX, i64::MAX as u64, 1 << 60] {
            assert!(matches!(AlignedBytes::zeroed(bytes), Err(Error::OutOfMemory { bytes: b }) if b == bytes));
        }
    }
}
