//! Every iteration exactly once, whoever calls, and no thread left waiting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::*;

/// Runs a loop and checks its promises.
fn check(pool: &Pool, n: usize) {
    let hits: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
    let taken: Vec<AtomicBool> = (0..pool.workers()).map(|_| AtomicBool::new(false)).collect();
    pool.run(n as i64, &|piece, worker| {
        assert!(
            !taken[worker as usize].swap(true, Ordering::Acquire),
            "two bodies have worker number {worker}"
        );
        for i in piece {
            hits[i as usize].fetch_add(1, Ordering::Relaxed);
        }
        taken[worker as usize].store(false, Ordering::Release);
    });
    assert!(
        hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1),
        "{n} iterations, {} workers",
        pool.workers()
    );
}

#[test]
fn every_iteration_runs_once() {
    for workers in [0, 1, 2, 3, 8] {
        let pool = Pool::new(workers);
        assert_eq!(pool.workers() as usize, workers.max(1));
        for n in [0, 1, 2, 3, 7, 64, 1000] {
            check(&pool, n);
        }
    }
    Pool::new(2).run(-1, &|_, _| panic!("a loop of fewer than no iterations has no body"));
}

#[test]
fn a_long_range_does_not_overflow() {
    let pool = Pool::new(2);
    let (covered, pieces) = (AtomicI64::new(0), AtomicUsize::new(0));
    pool.run(i64::MAX, &|piece, _| {
        covered.fetch_add(piece.end - piece.start, Ordering::Relaxed);
        pieces.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(covered.into_inner(), i64::MAX);
    assert!(pieces.into_inner() < 1000, "pieces shrink, so they are few");
}

/// Threads fall asleep between some of the loops and not between others.
#[test]
fn many_short_loops() {
    for workers in [2, 3] {
        let pool = Pool::new(workers);
        for round in 0..3000 {
            check(&pool, 1 + round % 17);
            if round % 500 == 0 {
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}

/// Both workers are needed, so a wake-up that got lost would hang.
#[test]
fn a_second_worker_comes() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        // However late the second one was before.
        pool.shared.alone_until.store(0, Ordering::Relaxed);
        let meeting = Barrier::new(2);
        let workers = Mutex::new(Vec::new());
        pool.run(2, &|piece, worker| {
            assert_eq!(piece.end - piece.start, 1);
            workers.lock().unwrap().push(worker);
            meeting.wait();
        });
        let mut workers = workers.into_inner().unwrap();
        workers.sort_unstable();
        assert_eq!(workers, [0, 1]);
    }
}

#[test]
fn callers_do_not_disturb_each_other() {
    let pool = Pool::new(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|round| check(&pool, round % 40)));
        }
    });
}

#[test]
fn nested_loops_keep_the_worker_number() {
    let (pool, other) = (Pool::new(3), Pool::new(2));
    let count = AtomicUsize::new(0);
    pool.run(50, &|piece, worker| {
        for _ in piece {
            pool.run(10, &|inner, same| {
                assert_eq!(same, worker);
                count.fetch_add(inner.count(), Ordering::Relaxed);
            });
            other.run(10, &|inner, zero| {
                assert_eq!(zero, 0);
                count.fetch_add(inner.count(), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(count.into_inner(), 1000);
    check(&pool, 100);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3);
    for _ in 0..50 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, &|piece, _| assert!(!piece.contains(&60), "iteration 60"));
        }));
        let panic = result.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"iteration 60"));
        check(&pool, 30);
    }
}

#[test]
fn threads_end_with_the_pool() {
    for _ in 0..200 {
        let pool = Pool::new(3);
        let shared = Arc::downgrade(&pool.shared);
        check(&pool, 5);
        drop(pool);
        assert_eq!(shared.strong_count(), 0, "a thread still holds the pool");
    }
}

#[test]
fn pools_of_one_size_are_shared() {
    let (first, second, third) = (Pool::shared(5), Pool::shared(5), Pool::shared(6));
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &third));
    let gone = Arc::downgrade(&third);
    drop(third);
    assert!(gone.upgrade().is_none());
    assert_eq!(Pool::shared(6).workers(), 6);
}

/// A thread that is stopped in the middle of a piece is not asked for a while.
#[test]
fn a_late_worker_is_left_alone() {
    let pool = Pool::new(2);
    let (meeting, late) = (Barrier::new(2), Duration::from_millis(20));
    pool.run(2, &|_, worker| {
        meeting.wait();
        if worker > 0 {
            thread::sleep(late);
        }
    });
    let begin = Instant::now();
    let mut loops = 0;
    while begin.elapsed() < late {
        pool.run(8, &|_, worker| assert_eq!(worker, 0));
        loops += 1;
    }
    assert!(loops > 0);
    while pool.shared.works_alone() {
        thread::yield_now();
    }
    let meeting = Barrier::new(2);
    pool.run(2, &|_, _| {
        meeting.wait();
    });
}
