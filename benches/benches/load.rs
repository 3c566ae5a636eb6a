//! From a file to a session that is ready, phase by phase, against the limit that is set for networks below 20 MB: 4 ms and
//! 0.08 ms a node of the ONNX file.
//!
//! `cargo bench -p brolga-benches --bench load [-- FILE-OR-FOLDER …]`, without arguments for the small models of the tests. A
//! line a model and number of threads: nodes, the limit, milliseconds of each phase and of all, and all over the limit.
//! Medians of runs in this process, so what is done once a process (reading the rules, pages of the compiler's own code)
//! is left out.

use brolga::frontend::onnx;
use brolga::{Options, Session};
use brolga_benches::{chosen, name};
use std::path::Path;
use std::time::Instant;

/// Loads of each model, of which the median is printed.
const RUNS: usize = 7;

fn main() {
    println!(
        "{:24} {:>7} {:>6} {:>7} {:>7} {:>9} {:>7} {:>9} {:>8} {:>8} {:>6}",
        "model", "threads", "nodes", "limit", "load", "optimise", "lower", "constants", "codegen", "all", "ratio"
    );
    for path in chosen(brolga_tests::data) {
        for threads in [1, 2] {
            if let Err(e) = line(&path, threads) {
                println!("{:24} {threads:>7} {e}", name(&path));
            }
        }
    }
}

fn line(path: &Path, threads: usize) -> brolga::Result<()> {
    let options = Options {
        verify: false,
        ..Options::default()
    };
    let operators = onnx::summary(path)?.operators;
    let nodes: usize = operators.iter().map(|o| o.count).sum();
    let limit = 4.0 + 0.08 * nodes as f64;
    let mut runs = vec![];
    for _ in 0..RUNS {
        let start = Instant::now();
        let session = Session::options()
            .compile(options.clone())
            .threads(threads)
            .load(path)?;
        let all = start.elapsed();
        let t = session.timings();
        runs.push([t.load, t.optimise, t.lower, t.constants, t.codegen, all].map(|d| d.as_secs_f64() * 1e3));
    }
    let median = |phase: usize| {
        let mut times: Vec<f64> = runs.iter().map(|r| r[phase]).collect();
        times.sort_by(f64::total_cmp);
        times[RUNS / 2]
    };
    println!(
        "{:24} {threads:>7} {nodes:>6} {limit:7.2} {:7.2} {:9.2} {:7.2} {:9.2} {:8.2} {:8.2} {:6.2}",
        name(path),
        median(0),
        median(1),
        median(2),
        median(3),
        median(4),
        median(5),
        median(5) / limit
    );
    Ok(())
}
