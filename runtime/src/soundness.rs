//! Whether mapped weights are as they were written: what steers a run is checked when they are mapped, the rest behind that, before the first
//! run or beside it.
//!
//! ```text
//! open:    what steers, then helpers begin with the rest ▤▤▤▤▤▤
//! 2 cores, a run on one:                    tokenizer …  ▤▤▤▤▤▤▤▤▤▤▤▤ beside the run, whose results wait for the verdict
//! 2 cores, a run on both:                   tokenizer …  ▤▤▤ by all cores, then the run
//! ```
//!
//! What a run reads and writes, and when it ends, depends on no weights but those that steer
//! ([`brolga_abi::Meta::steering_bytes`]), so that a run on others that are damaged does nothing but compute wrong numbers, which nobody
//! is given.
//!
//! Decision (2026-11-28): a run on all cores comes behind the check. Its workers wait for each other, so that a thread beside them costs more
//! than it does, and pages that they are the first to touch are faults. Of 1.17 GB on two cores, prompts of 1, 16 and 128 tokens
//! took 0.16, 0.17 and 0.20 s more than once the weights were checked when the check went on behind the run, and 0.16, 0.15 and 0.18 s
//! when it ended before. Mapping the pages alone takes two threads 90 ms in calls for a MiB each, and 30 ms in calls for 16 MiB.

use crate::{Error, Result};
use brolga_abi::artefact::{BLOCK, FormatError, Sums};
use memmap2::Mmap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Builder, JoinHandle, available_parallelism};

/// Weights up to this size are checked at once: it takes a few milliseconds.
const LITTLE: usize = 32 << 20;

/// So many blocks are taken at once: threads that map pages of the same 2 MB wait for each other.
const GROUP: usize = 16;

/// Whether the weights of an artefact are as they were written.
pub(crate) struct Soundness {
    path: PathBuf,
    check: Arc<Check>,
    /// Those that have begun.
    helpers: Mutex<Vec<JoinHandle<()>>>,
    verdict: OnceLock<std::result::Result<(), FormatError>>,
}

/// What the threads share that check.
struct Check {
    map: Arc<Mmap>,
    weights: Range<usize>,
    sums: Sums,
    /// The next block to be taken.
    next: AtomicUsize,
    /// Helpers from this number on make way.
    staying: AtomicUsize,
    /// The first block that was found to be damaged.
    damaged: AtomicUsize,
    given_up: AtomicBool,
}

impl Soundness {
    /// Checks the weights that steer, which lie at the beginning, and all if they are few; begins with the others.
    ///
    /// # Errors
    /// When those that are checked are damaged.
    pub(crate) fn of(
        path: PathBuf,
        map: Arc<Mmap>,
        weights: Range<usize>,
        sums: Sums,
        steering: u64,
    ) -> Result<Soundness> {
        let all = sums.blocks();
        let first = match weights.len() <= LITTLE {
            true => all,
            false => usize::try_from(steering).map_or(all, |n| n.div_ceil(BLOCK)),
        };
        let soundness = Soundness {
            path,
            check: Arc::new(Check {
                map,
                weights,
                sums,
                next: AtomicUsize::new(0),
                staying: AtomicUsize::new(0),
                damaged: AtomicUsize::new(usize::MAX),
                given_up: AtomicBool::new(false),
            }),
            helpers: Mutex::default(),
            verdict: OnceLock::new(),
        };
        soundness.check.by(cores(), first.min(all));
        if first >= all || soundness.check.damage().is_err() {
            soundness.wait()?;
            return Ok(soundness);
        }
        let mut helpers = soundness.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        soundness.check.staying.store(cores(), Ordering::Relaxed);
        for number in 0..cores() {
            let check = soundness.check.clone();
            let started = Builder::new()
                .name("brolga-weights".into())
                .spawn(move || check.help(number));
            helpers.extend(started.ok());
        }
        drop(helpers);
        Ok(soundness)
    }

    /// Gives a run on so many threads the cores that it needs.
    ///
    /// # Errors
    /// When it needs all of them, and the weights are damaged.
    pub(crate) fn make_way(&self, workers: u32) -> Result<()> {
        if self.verdict.get().is_some() {
            return Ok(());
        }
        match cores().checked_sub(workers as usize) {
            None | Some(0) => self.wait(),
            Some(staying) => {
                self.check.staying.fetch_min(staying, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Waits until it is known, and helps.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn wait(&self) -> Result<()> {
        let verdict = self.verdict.get_or_init(|| {
            let there = self.check.staying.load(Ordering::Relaxed).min(cores());
            let all = self.check.sums.blocks();
            self.check.by(cores() - there, all);
            let mut helpers = self.helpers.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = helpers.drain(..).all(|h| h.join().is_ok());
            // What a helper left that made way meanwhile, or never began.
            self.check.by(cores(), all);
            self.check.damage()?;
            match ended {
                true => Ok(()),
                false => Err(FormatError::Malformed("its weights could not be checked".to_owned())),
            }
        });
        verdict.clone().map_err(|source| Error::Artefact {
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Soundness {
    fn drop(&mut self) {
        self.check.given_up.store(true, Ordering::Relaxed);
    }
}

impl Check {
    /// Checks the next blocks of those before `end`; false where there is none.
    fn next(&self, end: usize) -> bool {
        let take = |n: usize| (n < end).then(|| end.min(n + GROUP));
        let Ok(first) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return false;
        };
        let blocks = first..end.min(first + GROUP);
        self.fetch(&blocks);
        let damaged = |block: &usize| self.sums.check_block(self.bytes(), *block).is_err();
        if let Some(block) = blocks.clone().find(damaged) {
            self.damaged.fetch_min(block, Ordering::Relaxed);
        }
        true
    }

    /// Maps the pages of blocks at once, in place of a fault for each few of them. It may be left out.
    fn fetch(&self, blocks: &Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            let start = blocks.start * BLOCK;
            let end = self.weights.len().min(blocks.end * BLOCK);
            let advice = memmap2::Advice::PopulateRead;
            // A kernel that does not know it maps pages as they are touched.
            let _ = self.map.advise_range(advice, self.weights.start + start, end - start);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = blocks;
    }

    /// Checks what is left of the blocks before `end` on so many threads; what others have taken may not be done at the end.
    fn by(&self, threads: usize, end: usize) {
        let left = end.saturating_sub(self.next.load(Ordering::Relaxed)).div_ceil(GROUP);
        thread::scope(|scope| {
            for _ in 1..threads.min(left) {
                scope.spawn(|| while self.next(end) {});
            }
            while threads > 0 && self.next(end) {}
        });
    }

    /// Checks until nothing is left, the helper of this number has to make way, or nobody waits any more.
    fn help(&self, number: usize) {
        let goes_on = || !self.given_up.load(Ordering::Relaxed) && number < self.staying.load(Ordering::Relaxed);
        while goes_on() && self.next(self.sums.blocks()) {}
    }

    /// What is wrong with the blocks that were checked.
    fn damage(&self) -> std::result::Result<(), FormatError> {
        match self.damaged.load(Ordering::Relaxed) {
            usize::MAX => Ok(()),
            block => self.sums.check_block(self.bytes(), block),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.map[self.weights.clone()]
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
