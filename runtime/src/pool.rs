//! The threads that parallel loops run on.
//!
//! A pool of `n` workers is the calling thread and `n - 1` threads of its own. A loop is published, whoever comes takes
//! pieces of it, and the caller returns when all pieces are done. A thread that is not there in time is not waited for,
//! so a loop never takes longer than the caller alone would need, however busy the machine is.
//!
//! **Protocol.** One word, `state`, is OPEN bit, STOP bit, number of threads inside the loop (ACTIVE), and a count of loops
//! (EPOCH).
//! 1. The caller (one at a time, by `busy`) stores the address of the loop, then adds EPOCH and sets OPEN.
//! 2. A thread joins by adding ACTIVE with a compare-and-swap that requires OPEN. Its acquire reads from the release
//!    sequence that step 1 heads, so it sees the loop's address and everything that the caller wrote before.
//! 3. All claim pieces by compare-and-swap on the loop's counter. It needs no ordering: it orders no data, only hands out
//!    disjoint ranges.
//! 4. A thread leaves by subtracting ACTIVE with release. The caller clears OPEN, after which nobody can join, and waits
//!    with acquire until ACTIVE is 0: all effects of the bodies are visible to it, and nobody holds the loop's address.
//!
//! **Sleep.** A thread looks at `state` for a while, then sleeps: under the lock it announces itself in `sleepers`, looks at
//! `state` once more, and waits. The caller changes `state` and then reads `sleepers`. These four accesses are sequentially
//! consistent: if the thread's look misses the change, its announcement comes before it in the single order, and the
//! caller sees it, takes the lock — which the thread gives up only in waiting — and wakes it. So no wake-up is lost.
//!
//! A model of these two parts with `loom` 0.7 (two loops, one thread, five preemptions; two threads, two preemptions; one
//! loop without a bound) found no data race, lost wake-up or deadlock in 2.3 million executions, and finds the race when
//! step 4's release is weakened (2026-11-23).
//!
//! **Nesting.** A loop inside a body runs on the thread that meets it, with that thread's worker number; so does a loop
//! of a caller that finds the pool taken. Invariant: two bodies of one loop that run at once have different worker
//! numbers, all below `workers()`.
//!
//! **Busy machines.** A thread that the system stops in the middle of a piece holds the caller up, by a time slice of some
//! milliseconds. A core that is taken once is likely to be taken again: after waits that were longer than the caller's own work in the
//! loops, loops run on the caller alone for a few times as long, so that no more than a part of the time is lost in waiting. Waits of short
//! loops add up, and loops without one make up for them.
//!
//! Pieces shrink as the loop goes on (guided self-scheduling, Polychronopoulos and Kuck, 1987): few claims at the
//! beginning, little waiting at the end.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const OPEN: u64 = 1;
const STOP: u64 = 2;
const ACTIVE: u64 = 4;
const ACTIVE_MASK: u64 = EPOCH - ACTIVE;
const EPOCH: u64 = 1 << 32;

/// How often a thread looks before it sleeps; with a pause of some 20 ns between looks, longer than the gap between the
/// kernels of a network, shorter than a time slice.
const SPINS: u32 = 4096;

/// The same when the machine has fewer cores than the pool has workers: whoever looks takes the core from who works.
const SPINS_CROWDED: u32 = 16;

/// How often a thread looks, the caller for the others to finish, another one for a loop, before it offers its core. Short: on a busy
/// machine the one that it waits for may be waiting for this very core.
const SPINS_AT_END: u32 = 256;

/// How often a thread that waits for a loop looks before it offers its core again.
const LOOKS_A_TURN: u32 = 16;

/// A piece is what remains, divided by this many times the workers.
const PIECES_PER_WORKER: i64 = 2;

/// So much time may be lost in waits that are longer than the caller's work in a loop.
const SLACK: Duration = Duration::from_micros(100);

/// The part of the lost time that is made up for by a loop in which nobody is waited for.
const MADE_UP: u64 = 64;

/// For how many times the time that was lost the caller works alone.
const ALONE: u64 = 4;

/// More are not made, whatever is asked for: no machine has them, and a slip of the pen should not start a million threads.
const MAX_WORKERS: usize = 1024;

/// The body of a loop: a range of iterations and the number of the worker.
type LoopBody<'a> = &'a (dyn Fn(Range<i64>, u32) + Sync);

/// A calling thread and its helpers.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Padded<AtomicU64>,
    sleepers: Padded<AtomicU32>,
    current: AtomicPtr<Loop<'static>>,
    busy: AtomicBool,
    /// Until when the caller works alone, in nanoseconds since `born`.
    alone_until: AtomicU64,
    /// Time lost in waits of late, in nanoseconds.
    lost: AtomicU64,
    born: Instant,
    spins: u32,
    lock: Mutex<()>,
    wake: Condvar,
}

/// Keeps what one thread writes often away from what others read; 128 because x86 fetches lines in pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Loop<'a> {
    next: Padded<AtomicI64>,
    end: i64,
    divisor: i64,
    body: LoopBody<'a>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

thread_local! {
    /// The pool whose loop this thread is inside of (the address of its `Shared`, 0 for none), and the worker number.
    static INSIDE: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

impl Pool {
    /// A pool of `workers` workers, the caller included; 0 counts as 1. Threads that the system refuses are done without.
    pub fn new(workers: usize) -> Pool {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            sleepers: Padded(AtomicU32::new(0)),
            current: AtomicPtr::new(ptr::null_mut()),
            busy: AtomicBool::new(false),
            alone_until: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            born: Instant::now(),
            spins: if workers > cores { SPINS_CROWDED } else { SPINS },
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = workers.clamp(1, MAX_WORKERS) as u32;
        let spawn = |worker: u32| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("brolga-worker-{worker}"));
            thread.spawn(move || shared.work(worker)).ok()
        };
        let threads = (1..workers).map_while(spawn).collect();
        Pool { shared, threads }
    }

    /// The pool of `workers` workers that the whole process shares; it ends with its last user.
    pub fn shared(workers: usize) -> Arc<Pool> {
        static POOLS: Mutex<BTreeMap<usize, Weak<Pool>>> = Mutex::new(BTreeMap::new());
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&workers).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool::new(workers));
        pools.retain(|_, pool| pool.strong_count() > 0);
        pools.insert(workers, Arc::downgrade(&pool));
        pool
    }

    /// How many workers there are; worker numbers are below it.
    pub fn workers(&self) -> u32 {
        self.threads.len() as u32 + 1
    }

    /// Calls `body` with ranges that together cover `0..n` once, and returns when all calls have. A panic in a body
    /// is carried on here, after all workers have left.
    pub fn run(&self, n: i64, body: LoopBody<'_>) {
        if n <= 0 {
            return;
        }
        let (inside, worker) = INSIDE.get();
        if inside != 0 {
            // Another pool's worker number means nothing here; but then no other worker of this pool has this loop.
            body(0..n, if inside == self.shared.address() { worker } else { 0 });
        } else if n == 1 || self.threads.is_empty() {
            body(0..n, 0);
        } else if self.shared.busy.swap(true, Ordering::Acquire) {
            let _inside = Inside::enter(&self.shared, 0);
            body(0..n, 0);
        } else {
            let panic = if self.shared.works_alone() {
                self.shared.alone(n, body)
            } else {
                self.shared.run(n, i64::from(self.workers()), body)
            };
            self.shared.busy.store(false, Ordering::Release);
            if let Some(panic) = panic {
                resume_unwind(panic);
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, Ordering::SeqCst);
        self.shared.wake_all();
        for thread in self.threads.drain(..) {
            // A body's panic was caught on the way, so the only error left is none of the pool's.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Publishes a loop, takes part in it, and waits for the others. Returns the first panic.
    fn run(&self, n: i64, workers: i64, body: LoopBody<'_>) -> Option<Box<dyn Any + Send>> {
        let divisor = PIECES_PER_WORKER * workers;
        let job = Loop {
            next: Padded(AtomicI64::new(0)),
            end: n,
            divisor,
            body,
            panic: Mutex::new(None),
        };
        // The lifetime is given up here; the wait below is what keeps the loop alive for as long as it is reachable.
        self.current
            .store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        let begin = Instant::now();
        self.state.0.fetch_add(EPOCH | OPEN, Ordering::SeqCst);
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
        self.take_part(&job, 0);
        self.state.0.fetch_and(!OPEN, Ordering::Relaxed);
        let mut looks = 0;
        let mut worked = None;
        while self.state.0.load(Ordering::Acquire) & ACTIVE_MASK != 0 {
            worked.get_or_insert_with(|| begin.elapsed());
            pause(&mut looks);
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if let Some(worked) = worked.filter(|_| looks == SPINS_AT_END) {
            let mut lost = lost + begin.elapsed().saturating_sub(2 * worked).as_nanos() as u64;
            if u128::from(lost) > SLACK.as_nanos() {
                let until = self.born.elapsed().as_nanos() as u64 + lost * ALONE;
                self.alone_until.store(until, Ordering::Relaxed);
                lost = 0;
            }
            self.lost.store(lost, Ordering::Relaxed);
        } else if lost > 0 {
            self.lost.store(lost - lost.div_ceil(MADE_UP), Ordering::Relaxed);
        }
        job.panic.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller has lost so much time to threads without a core that it works alone for now.
    fn works_alone(&self) -> bool {
        let until = self.alone_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let alone = (self.born.elapsed().as_nanos() as u64) < until;
        if !alone {
            self.alone_until.store(0, Ordering::Relaxed);
        }
        alone
    }

    /// A loop on the calling thread. Returns its panic.
    fn alone(&self, n: i64, body: LoopBody<'_>) -> Option<Box<dyn Any + Send>> {
        let _inside = Inside::enter(self, 0);
        catch_unwind(AssertUnwindSafe(|| body(0..n, 0))).err()
    }

    /// The life of a thread of the pool.
    fn work(&self, worker: u32) {
        let mut seen = 0;
        while self.wait_and_join(&mut seen) {
            // SAFETY: this thread counts in ACTIVE, so the caller is still in `Shared::run`, where the loop lives; the
            // address is the one that it stored before it set OPEN (steps 1, 2 and 4 of the protocol).
            let job = unsafe { &*self.current.load(Ordering::Relaxed) };
            self.take_part(job, worker);
            self.state.0.fetch_sub(ACTIVE, Ordering::Release);
        }
    }

    /// Waits for a loop later than `seen` and joins it; false when the pool ends.
    fn wait_and_join(&self, seen: &mut u32) -> bool {
        let mut looks = 0;
        loop {
            let state = self.state.0.load(Ordering::Relaxed);
            if state & STOP != 0 {
                return false;
            }
            if is_news(state, *seen) {
                let joined = state + ACTIVE;
                let order = (Ordering::Acquire, Ordering::Relaxed);
                if self
                    .state
                    .0
                    .compare_exchange_weak(state, joined, order.0, order.1)
                    .is_ok()
                {
                    *seen = epoch(state);
                    return true;
                }
            } else if looks < self.spins {
                looks += 1;
                match looks % LOOKS_A_TURN {
                    // The caller may want this very core.
                    0 if looks >= SPINS_AT_END => thread::yield_now(),
                    _ => std::hint::spin_loop(),
                }
            } else {
                self.sleep(*seen);
                looks = 0;
            }
        }
    }

    fn sleep(&self, seen: u32) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.0.load(Ordering::SeqCst);
            if state & STOP != 0 || is_news(state, seen) {
                break;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Takes pieces until none are left. A panic ends the loop for all.
    fn take_part(&self, job: &Loop<'_>, worker: u32) {
        let _inside = Inside::enter(self, worker);
        let result = catch_unwind(AssertUnwindSafe(|| {
            while let Some(piece) = job.claim() {
                (job.body)(piece, worker);
            }
        }));
        if let Err(panic) = result {
            job.next.0.store(job.end, Ordering::Relaxed);
            job.panic
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(panic);
        }
    }
}

impl Loop<'_> {
    fn claim(&self) -> Option<Range<i64>> {
        let mut begin = self.next.0.load(Ordering::Relaxed);
        while begin < self.end {
            let after = begin + ((self.end - begin) / self.divisor).max(1);
            match self
                .next
                .0
                .compare_exchange_weak(begin, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(begin..after),
                Err(moved) => begin = moved,
            }
        }
        None
    }
}

/// Marks the thread as inside a loop until dropped.
struct Inside;

impl Inside {
    fn enter(shared: &Shared, worker: u32) -> Inside {
        INSIDE.set((shared.address(), worker));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set((0, 0));
    }
}

fn epoch(state: u64) -> u32 {
    (state >> EPOCH.trailing_zeros()) as u32
}

fn is_news(state: u64, seen: u32) -> bool {
    state & OPEN != 0 && epoch(state) != seen
}

/// Looks again soon, and lets others run when it takes longer.
fn pause(looks: &mut u32) {
    if *looks < SPINS_AT_END {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests;
