//! What the e-graph's choice costs, against the program as it was imported: work, bytes, kernels, predicted time.
//!
//! `cargo bench -p brolga-benches --bench extraction [-- FILE-OR-FOLDER …]`, without arguments for the small models of the
//! tests. A line a model: multiply-adds, reduced elements, elements read in strides, bytes, kernels and predicted time,
//! each with `--rules none` and with the default rules; the ratio of multiply-adds; the time of the passes. Below, each
//! model whose multiply-adds grew, with the bytes that it saved for them.

use brolga::passes::eqsat::account::{Account, account};
use brolga::{Options, levels, source};
use brolga_benches::{chosen, name};
use std::path::Path;
use std::time::Instant;

/// Runs of the passes, of which the median is printed.
const RUNS: usize = 3;

fn main() {
    println!(
        "{:24} {:>10} {:>10} {:>6}  {:>9} {:>9}  {:>9} {:>9}  {:>8} {:>8}  {:>5} {:>5}  {:>9} {:>9}  {:>8}",
        "model",
        "M madds",
        "",
        "ratio",
        "K reduced",
        "",
        "K strided",
        "",
        "MB",
        "",
        "kern.",
        "",
        "ms pred.",
        "",
        "ms eqsat"
    );
    let mut grown = vec![];
    for path in chosen(brolga_tests::data) {
        match compare(&path) {
            Ok((none, all, ms)) => {
                let name = name(&path);
                line(&name, &none, &all, ms);
                if all.multiply_adds > none.multiply_adds * 1.001 {
                    grown.push((name, none, all));
                }
            }
            Err(e) => println!("{:24} {e}", name(&path)),
        }
    }
    for (name, none, all) in grown {
        let saved = none.read + none.written - all.read - all.written;
        println!(
            "{name}: {:.3} M multiply-adds more, {:.3} MB less",
            (all.multiply_adds - none.multiply_adds) / 1e6,
            saved / 1e6
        );
    }
}

/// Both accounts, and the milliseconds of the passes.
fn compare(path: &Path) -> brolga::Result<(Account, Account, f64)> {
    let graph = source::graph(path, Options::default().memory_limit)?;
    let with = |rules: Option<&str>| Options {
        rules: rules.map(|r| r.parse().expect("these rules are embedded")),
        verify: false,
        ..Options::default()
    };
    let (none, _) = levels::optimise(&graph, &with(Some("none")))?;
    let all = with(None);
    let mut times = vec![];
    let mut cut = None;
    for _ in 0..RUNS {
        let start = Instant::now();
        cut = Some(levels::optimise(&graph, &all)?.0);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let cut = cut.expect("there was a run");
    Ok((account(&none, &all.target), account(&cut, &all.target), times[RUNS / 2]))
}

fn line(name: &str, none: &Account, all: &Account, ms: f64) {
    let megabytes = |a: &Account| (a.read + a.written) / 1e6;
    let ratio = if none.multiply_adds > 0.0 {
        format!("{:.3}", all.multiply_adds / none.multiply_adds)
    } else {
        "-".into()
    };
    println!(
        "{name:24} {:10.3} {:10.3} {ratio:>6}  {:9.1} {:9.1}  {:9.1} {:9.1}  {:8.3} {:8.3}  {:5} {:5}  {:9.4} {:9.4}  {ms:8.2}",
        none.multiply_adds / 1e6,
        all.multiply_adds / 1e6,
        none.reduced / 1e3,
        all.reduced / 1e3,
        none.strided / 1e3,
        all.strided / 1e3,
        megabytes(none),
        megabytes(all),
        none.kernels,
        all.kernels,
        none.seconds * 1e3,
        all.seconds * 1e3,
    );
}
