//! `brolga bench` of a folder: what its language model takes, for every number of threads.

use super::bench::Bench;
use super::{Outcome, note, print, print_json, time};
use brolga::generate::Model;
use brolga::generate::bench::{Measured, measure};
use brolga::ir::Target;

/// Runs the command.
pub fn run(bench: &Bench, target: &Target) -> Outcome {
    let mut options = bench.read.options()?;
    options.target = target.clone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<usize> = match bench.threads {
        0 => (0..)
            .map(|i| 1 << i)
            .take_while(|n| *n < cores)
            .chain([cores])
            .collect(),
        n => vec![n],
    };
    let mut model = Model::load(&bench.kernel, &options, cores)?;
    let t = model.session().timings();
    note(&format!(
        "loaded in {}, compiled in {}",
        time(t.load.as_secs_f64()),
        time(t.compile().as_secs_f64())
    ));
    let mut all = vec![];
    for threads in counts {
        model = model.with_threads(threads)?;
        all.push(measure(&model, target, threads, [bench.prompt, bench.tokens])?);
    }
    match bench.json {
        true => print_json(&json(bench, &model, &all)),
        false => print(&text(bench, &model, &all)),
    }
}

fn text(bench: &Bench, model: &Model, all: &[Measured]) -> String {
    const GIGA: f64 = 1e9;
    let mut out = format!(
        "{} reads {:.2} GB of weights for each token, and keeps keys and values in {:.2} GB\n\n{:>7}  {:>22}  {:>24}  {:>12}  {:>10}  {:>8}\n",
        model.session().meta().name,
        model.facts().streamed as f64 / GIGA,
        all.iter().map(|m| m.cache).max().unwrap_or(0) as f64 / GIGA,
        "threads",
        format!("prompt of {}", bench.prompt),
        "each token behind it",
        "weights read",
        "memory",
        "share",
    );
    for m in all {
        out += &format!(
            "{:>7}  {:>10} {:>7.0} t/s  {:>12} {:>7.1} t/s  {:>7.2} GB/s  {:>5.2} GB/s  {:>6.1} %\n",
            m.threads,
            time(m.prefill),
            bench.prompt as f64 / m.prefill,
            time(m.decode),
            1.0 / m.decode,
            m.weights(model) / GIGA,
            m.memory / GIGA,
            100.0 * m.weights(model) / m.memory,
        );
    }
    out
}

fn json(bench: &Bench, model: &Model, all: &[Measured]) -> serde_json::Value {
    let rows = all.iter().map(|m| {
        serde_json::json!({
            "threads": m.threads, "prefill_seconds": m.prefill, "decode_seconds": m.decode,
            "cache_bytes": m.cache, "weights_bytes_per_second": m.weights(model), "memory_bytes_per_second": m.memory,
        })
    });
    serde_json::json!({
        "model": model.session().meta().name, "prompt": bench.prompt, "tokens": bench.tokens,
        "weights_bytes_per_token": model.facts().streamed, "threads": rows.collect::<Vec<_>>(),
    })
}
