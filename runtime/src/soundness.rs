//! Sums of mapped weights that are checked beside the first run: what reading all of them takes does not delay it, and no result is given
//! out before it is known that they are as they were written.

use crate::{Error, Result};
use brolga_abi::artefact::{Artefact, BLOCK, FormatError, checksum, checksum_of_blocks};
use memmap2::Mmap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle, available_parallelism};

/// Weights up to this size are checked before anything else: it takes a few milliseconds.
const LITTLE: usize = 32 << 20;

/// Whether the weights of an artefact are as they were written.
pub(crate) struct Soundness {
    path: PathBuf,
    /// The check that goes on; it gives false where they are not.
    running: Mutex<Option<JoinHandle<bool>>>,
    sound: OnceLock<bool>,
    given_up: Arc<AtomicBool>,
}

impl Soundness {
    /// Checks weights, or begins to.
    pub(crate) fn of(path: &Path, map: &Arc<Mmap>, artefact: &Artefact<'_>) -> Soundness {
        let (range, sum) = (artefact.weights(), artefact.weights_checksum());
        let new = Soundness {
            path: path.to_owned(),
            running: Mutex::new(None),
            sound: OnceLock::new(),
            given_up: Arc::default(),
        };
        let here = || checksum_of_blocks(sums(&map[range.clone()]).into_iter()) == sum;
        if range.len() > LITTLE {
            let (map, given_up, range) = (map.clone(), new.given_up.clone(), range.clone());
            let beside = Builder::new().name("brolga-weights".into());
            let started = beside.spawn(move || in_turn(&map, range, &given_up) == Some(sum));
            if let Ok(running) = started {
                *new.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
                return new;
            }
        }
        new.sound.get_or_init(here);
        new
    }

    /// True where nothing has to be waited for.
    pub(crate) fn is_known(&self) -> bool {
        self.sound.get().is_some()
    }

    /// Waits until it is known.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn wait(&self) -> Result<()> {
        let sound = *self.sound.get_or_init(|| {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            running.is_some_and(|check| check.join().is_ok_and(|sound| sound))
        });
        if sound {
            return Ok(());
        }
        Err(Error::Artefact {
            path: self.path.clone(),
            source: FormatError::Checksum {
                part: "the weights".to_owned(),
            },
        })
    }
}

impl Drop for Soundness {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// The sum of weights, block by block on this thread; `None` when nobody waits for it any more.
fn in_turn(map: &Mmap, range: Range<usize>, given_up: &AtomicBool) -> Option<u64> {
    let blocks = map[range].chunks(BLOCK);
    let sums: Option<Vec<u64>> = blocks
        .map(|b| (!given_up.load(Ordering::Relaxed)).then(|| checksum(b)))
        .collect();
    Some(checksum_of_blocks(sums?.into_iter()))
}

/// The sums of blocks, by as many threads as there are cores.
fn sums(weights: &[u8]) -> Vec<u64> {
    let blocks: Vec<&[u8]> = weights.chunks(BLOCK).collect();
    let threads = available_parallelism().map_or(1, usize::from);
    let share = blocks.len().div_ceil(threads).max(4);
    let sum = |part: &[&[u8]]| part.iter().map(|b| checksum(b)).collect::<Vec<u64>>();
    let mut parts = blocks.chunks(share);
    let first = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|part| scope.spawn(move || sum(part))).collect();
        let mut sums = sum(first);
        for other in others {
            sums.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        sums
    })
}
