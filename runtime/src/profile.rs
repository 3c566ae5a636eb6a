//! What a profiled run notes: when each step, and each piece of a parallel loop, began and ended.
//!
//! Code that was made for it calls [`step_hook`](crate::step_hook) around each step of `NAME_run`, and parallel loops go through [`Recorder::share`].
//! Both read the clock and push to vectors that have room already; there is one for each worker, so nobody waits for another. Invariants:
//! spans of one worker nest and never cross; what an unfinished run left behind is none of the recording; runs of one recorder do not
//! overlap, those that would, wait.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pool::Pool;

/// Spans that a worker notes before its vector grows.
const ROOM: usize = 1 << 12;

/// Steps inside of one another, at most, that take no memory.
const DEPTH: usize = 64;

/// From when to when something was done; nanoseconds since the recorder was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The number of the step, blocks behind the steps that they belong to.
    pub step: u32,
    /// The begin.
    pub begin: u64,
    /// The end.
    pub end: u64,
}

impl Span {
    /// Its length in nanoseconds.
    pub fn ns(&self) -> u64 {
        self.end - self.begin
    }
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// When `NAME_run` was called.
    pub begin: u64,
    /// When it returned.
    pub end: u64,
    /// Its steps in the order in which they ended, those around others included. They ran on worker 0.
    pub steps: Vec<Span>,
    /// The parallel loops, as long as worker 0 was in them.
    pub loops: Vec<Span>,
    /// What each worker did of them, in pieces.
    pub pieces: Vec<Vec<Span>>,
    /// What the probe counted, by step: one number for each counter, of all times that the step ran. Empty without a probe.
    pub counts: Vec<(u32, Vec<u64>)>,
}

impl RunRecord {
    /// Its length in nanoseconds.
    pub fn ns(&self) -> u64 {
        self.end - self.begin
    }
}

/// Counters that are read at the begin and at the end of each step.
pub trait Probe: Send + Sync {
    /// Their number.
    fn counters(&self) -> usize;
    /// Reads them all.
    fn read(&self, values: &mut [u64]);
}

/// Notes what the runs of an executor do.
pub struct Recorder {
    born: Instant,
    /// The step that runs.
    current: AtomicU32,
    caller: Mutex<Caller>,
    pieces: Vec<Lane>,
    turn: Mutex<()>,
    done: Mutex<Vec<RunRecord>>,
}

/// What a worker has done; a line of its own.
#[repr(align(128))]
struct Lane(Mutex<Vec<Span>>);

/// What only worker 0 does.
struct Caller {
    open: Vec<(u32, u64)>,
    steps: Vec<Span>,
    loops: Vec<Span>,
    probe: Option<Arc<dyn Probe>>,
    /// The counters at the begin of the steps that are open, one behind the other, and then now.
    values: Vec<u64>,
    counts: Vec<(u32, Vec<u64>)>,
}

thread_local! {
    /// Whether this thread is in a piece that is being noted; loops inside of it are part of it.
    static IN_PIECE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the piece returns or panics, the thread is in none behind it.
struct InPiece;

impl InPiece {
    fn enter() -> InPiece {
        IN_PIECE.set(true);
        InPiece
    }
}

impl Drop for InPiece {
    fn drop(&mut self) {
        IN_PIECE.set(false);
    }
}

impl Recorder {
    /// A recorder for so many workers.
    pub fn new(workers: u32) -> Recorder {
        let lane = |_| Lane(Mutex::new(Vec::with_capacity(ROOM)));
        Recorder {
            born: Instant::now(),
            current: AtomicU32::new(0),
            caller: Mutex::new(Caller {
                open: Vec::with_capacity(DEPTH),
                steps: Vec::with_capacity(ROOM),
                loops: Vec::with_capacity(ROOM),
                probe: None,
                values: vec![],
                counts: vec![],
            }),
            pieces: (0..workers.max(1)).map(lane).collect(),
            turn: Mutex::new(()),
            done: Mutex::new(vec![]),
        }
    }

    /// Reads these counters as well from the next run on, or none any more.
    pub fn count(&self, probe: Option<Arc<dyn Probe>>) {
        lock(&self.caller).probe = probe;
    }

    /// The runs since this was asked last, but those that failed.
    pub fn take(&self) -> Vec<RunRecord> {
        std::mem::take(&mut lock(&self.done))
    }

    /// What the hooks of a step take: the time of a pair of them that finds nothing to note in between.
    pub fn overhead() -> Duration {
        const PAIRS: u32 = 2000;
        let recorder = black_box(Recorder::new(1));
        let pass = || {
            let start = Instant::now();
            for n in 0..PAIRS {
                recorder.step(n, false);
                recorder.step(n, true);
            }
            lock(&recorder.caller).steps.clear();
            start.elapsed()
        };
        let passes = (0..9).map(|_| pass());
        passes.min().unwrap_or_default() / PAIRS
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_nanos() as u64
    }

    /// Begins a run; others wait until it ends.
    pub(crate) fn begin(&self) -> Running<'_> {
        Running {
            _turn: lock(&self.turn),
            recorder: self,
            begin: self.now(),
        }
    }

    /// Notes that a step begins, or has ended.
    pub(crate) fn step(&self, step: u32, end: bool) {
        let mut c = lock(&self.caller);
        if !end {
            self.current.store(step, Ordering::Relaxed);
            c.read_counters();
            c.open.push((step, self.now()));
            return;
        }
        let now = self.now();
        let Some((step, begin)) = c.open.pop() else {
            return;
        };
        c.steps.push(Span { step, begin, end: now });
        c.add_counters(step);
    }

    /// Runs a parallel loop on a pool, as [`Pool::run`].
    pub(crate) fn share(&self, pool: &Pool, n: i64, body: &(dyn Fn(std::ops::Range<i64>, u32) + Sync)) {
        if IN_PIECE.get() {
            return pool.run(n, body);
        }
        let step = self.current.load(Ordering::Relaxed);
        let begin = self.now();
        pool.run(n, &|piece, worker| {
            let begin = self.now();
            let inside = InPiece::enter();
            body(piece, worker);
            drop(inside);
            let end = self.now();
            if let Some(lane) = self.pieces.get(worker as usize) {
                lock(&lane.0).push(Span { step, begin, end });
            }
        });
        let end = self.now();
        lock(&self.caller).loops.push(Span { step, begin, end });
    }
}

impl Caller {
    /// Notes what the counters show, behind what they showed at the begin of the steps around.
    fn read_counters(&mut self) {
        let Some(probe) = &self.probe else {
            return;
        };
        let at = self.values.len();
        self.values.resize(at + probe.counters(), 0);
        probe.read(&mut self.values[at..]);
    }

    /// Adds what the counters have counted since a step began to its counts.
    fn add_counters(&mut self, step: u32) {
        let Some(probe) = &self.probe else {
            return;
        };
        let n = probe.counters();
        let Some(before) = self.values.len().checked_sub(n) else {
            return;
        };
        self.values.resize(before + 2 * n, 0);
        let (then, now) = self.values[before..].split_at_mut(n);
        probe.read(now);
        let counts = match self.counts.iter_mut().find(|(s, _)| *s == step) {
            Some((_, counts)) => counts,
            None => {
                self.counts.push((step, vec![0; n]));
                &mut self.counts.last_mut().expect("it was pushed").1
            }
        };
        for (sum, (then, now)) in counts.iter_mut().zip(then.iter().zip(now)) {
            *sum += now.saturating_sub(*then);
        }
        self.values.truncate(before);
    }
}

/// A run that is being recorded.
pub(crate) struct Running<'r> {
    recorder: &'r Recorder,
    begin: u64,
    _turn: MutexGuard<'r, ()>,
}

impl Running<'_> {
    /// Keeps what was noted.
    pub fn done(self) {
        let end = self.recorder.now();
        let mut c = lock(&self.recorder.caller);
        let record = RunRecord {
            begin: self.begin,
            end,
            steps: c.steps.clone(),
            loops: c.loops.clone(),
            pieces: self.recorder.pieces.iter().map(|l| lock(&l.0).clone()).collect(),
            counts: std::mem::take(&mut c.counts),
        };
        drop(c);
        lock(&self.recorder.done).push(record);
    }
}

impl Drop for Running<'_> {
    /// Nothing of the run stays in the vectors, whether it was kept or has failed.
    fn drop(&mut self) {
        let mut c = lock(&self.recorder.caller);
        c.open.clear();
        c.steps.clear();
        c.loops.clear();
        c.values.clear();
        c.counts.clear();
        self.recorder.pieces.iter().for_each(|l| lock(&l.0).clear());
    }
}

/// A lock; who panicked while holding it left whole spans.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("workers", &self.pieces.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe that counts how often it was read.
    struct Reads(AtomicU32);
    impl Probe for Reads {
        fn counters(&self) -> usize {
            2
        }
        fn read(&self, values: &mut [u64]) {
            let n = u64::from(self.0.fetch_add(1, Ordering::Relaxed));
            values.copy_from_slice(&[n, 10 * n]);
        }
    }

    #[test]
    fn steps_nest_and_pieces_cover_the_loop() {
        let (pool, recorder) = (Pool::new(3), Recorder::new(3));
        let run = recorder.begin();
        recorder.step(0, false);
        recorder.step(1, false);
        let seen = std::sync::atomic::AtomicI64::new(0);
        recorder.share(&pool, 1000, &|piece, worker| {
            assert!(worker < 3);
            // A loop inside of a piece is part of it.
            recorder.share(&pool, 2, &|inner, _| {
                seen.fetch_add((inner.end - inner.start) * (piece.end - piece.start), Ordering::Relaxed);
            });
        });
        recorder.step(1, true);
        recorder.step(0, true);
        run.done();
        assert_eq!(seen.into_inner(), 2000);
        let runs = recorder.take();
        let [run] = &runs[..] else { panic!("{runs:?}") };
        let [inner, outer] = run.steps[..] else {
            panic!("{run:?}")
        };
        assert_eq!((inner.step, outer.step, run.loops.len()), (1, 0, 1));
        let within = |a: Span, b: Span| b.begin <= a.begin && a.begin <= a.end && a.end <= b.end;
        assert!(within(inner, outer) && within(run.loops[0], inner));
        assert!(run.begin <= outer.begin && outer.end <= run.end);
        assert_eq!(run.pieces.len(), 3);
        for lane in &run.pieces {
            assert!(lane.iter().all(|p| p.step == 1 && within(*p, inner)));
            assert!(lane.windows(2).all(|w| w[0].end <= w[1].begin));
        }
        assert!(recorder.take().is_empty());
    }

    #[test]
    fn a_failed_run_leaves_nothing_behind() {
        let recorder = Recorder::new(1);
        let run = recorder.begin();
        recorder.step(0, false);
        recorder.step(3, false);
        recorder.step(3, true);
        drop(run);
        let run = recorder.begin();
        recorder.step(5, false);
        recorder.step(5, true);
        run.done();
        let runs = recorder.take();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].steps.iter().map(|s| s.step).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn counters_are_summed_by_step() {
        let recorder = Recorder::new(1);
        recorder.count(Some(Arc::new(Reads(AtomicU32::new(0)))));
        let run = recorder.begin();
        recorder.step(0, false);
        for _ in 0..3 {
            recorder.step(1, false);
            recorder.step(1, true);
        }
        recorder.step(0, true);
        run.done();
        // Every pair of hooks reads twice; the outer one has the inner ones inside of it.
        assert_eq!(recorder.take()[0].counts, [(1, vec![3, 30]), (0, vec![7, 70])]);
    }

    #[test]
    fn a_pair_of_hooks_is_timed() {
        assert!(Recorder::overhead() > Duration::ZERO);
    }
}
