//! What a parallel loop costs when the workers are awake: to fork, to run an empty body once a worker, to join.
//!
//! `cargo bench -p brolga-benches --bench fork_join`: nanoseconds for each number of workers up to the machine's, of our pool and of
//! `rayon`'s (`broadcast`, which wakes all, and a `join` a worker fewer), medians of interleaved rounds. The last columns are the
//! same loop with a body of 2 µs a worker: the share of the ideal speed that is left.

use brolga::runtime::Pool;
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

/// Rounds, of which the median is printed.
const ROUNDS: usize = 25;
/// Loops in a round.
const LOOPS: u32 = 2000;
/// What a worker does in the second part.
const WORK: Duration = Duration::from_micros(2);

fn main() {
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{:>7} {:>9} {:>16} {:>11} {:>13} {:>12}",
        "workers", "pool, ns", "rayon broadcast", "rayon join", "pool at 2 µs", "rayon at 2 µs"
    );
    for workers in 1..=most {
        let pool = Pool::new(workers);
        let rayon = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .build()
            .expect("threads can be made");
        let n = workers as i64;
        let ours = |body: &(dyn Fn() + Sync)| pool.run(n, &|range, _| range.for_each(|_| body()));
        let joined = |body: &(dyn Fn() + Sync)| fork(workers, body);
        let empty = || {
            black_box(());
        };
        let mut times = [const { vec![] }; 5];
        for _ in 0..ROUNDS {
            times[0].push(time(|| ours(&empty)));
            times[1].push(time(|| drop(rayon.broadcast(|_| empty()))));
            times[2].push(rayon.install(|| time(|| joined(&empty))));
            times[3].push(time(|| ours(&work)));
            times[4].push(rayon.install(|| time(|| joined(&work))));
        }
        let [pool, broadcast, join, at_work, rayon_at_work] = times.map(median);
        let share = |ns: f64| WORK.as_nanos() as f64 / ns;
        println!(
            "{workers:>7} {pool:>9.0} {broadcast:>16.0} {join:>11.0} {:>13.2} {:>13.2}",
            share(at_work),
            share(rayon_at_work)
        );
    }
}

/// Calls a body so many times, as `rayon` forks: one half beside the other.
fn fork(times: usize, body: &(dyn Fn() + Sync)) {
    match times {
        0 => {}
        1 => body(),
        _ => drop(rayon::join(|| fork(times / 2, body), || fork(times - times / 2, body))),
    }
}

/// Keeps a core busy for [`WORK`].
fn work() {
    let start = Instant::now();
    while start.elapsed() < WORK {
        spin_loop();
    }
}

/// Nanoseconds of a call, by the mean of many.
fn time(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..LOOPS).for_each(|_| f());
    start.elapsed().as_nanos() as f64 / f64::from(LOOPS)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
