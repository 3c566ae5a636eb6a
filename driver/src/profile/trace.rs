//! A profile as a trace that Perfetto (<https://ui.perfetto.dev>) and `chrome://tracing` open: Chrome's JSON format.
//!
//! One process; a track for each worker. Complete events (`"ph": "X"`) are slices, in microseconds: a run, its steps inside of it, and on
//! every worker's track the pieces of parallel loops. Slices of a track nest, as the format asks for. Metadata (`"ph": "M"`) name and order
//! the tracks.

use super::Profile;
use brolga_runtime::profile::Span;
use serde_json::{Value, json};

/// Runs that a trace has, at most: the first ones.
const RUNS: usize = 50;

/// The number of the process; nothing else is in the trace.
const PROCESS: u32 = 1;

impl Profile {
    /// The trace.
    pub fn trace(&self) -> Value {
        let mut events = vec![json!({
            "ph": "M", "pid": PROCESS, "tid": 0, "name": "process_name", "args": {"name": format!("brolga {}", self.model)},
        })];
        for worker in 0..self.threads {
            let name = match worker {
                0 => "worker 0 (caller)".to_owned(),
                n => format!("worker {n}"),
            };
            events.push(json!({
                "ph": "M", "pid": PROCESS, "tid": worker, "name": "thread_name", "args": {"name": name},
            }));
            events.push(json!({
                "ph": "M", "pid": PROCESS, "tid": worker, "name": "thread_sort_index", "args": {"sort_index": worker},
            }));
        }
        let start = self.records.first().map_or(0, |r| r.begin);
        let slice = |name: &str, category: &str, worker: usize, (begin, end): (u64, u64), args: Value| {
            let micros = |ns: u64| ns as f64 / 1000.0;
            json!({
                "ph": "X", "pid": PROCESS, "tid": worker, "name": name, "cat": category,
                "ts": micros(begin - start), "dur": micros(end - begin), "args": args,
            })
        };
        for (n, run) in self.records.iter().take(RUNS).enumerate() {
            events.push(slice("run", "run", 0, (run.begin, run.end), json!({"run": n})));
            for s in &run.steps {
                let step = &self.steps[s.step as usize];
                let work = step.work;
                let args = json!({
                    "step": s.step, "nodes": step.nodes.join(", "), "flops": work.map(|w| w.flops),
                    "bytes": work.map(|w| w.bytes()),
                });
                events.push(slice(&step.name, step.kind.name(), 0, (s.begin, s.end), args));
            }
            for (worker, pieces) in run.pieces.iter().enumerate() {
                for Span { step, begin, end } in pieces {
                    let name = &self.steps[*step as usize].name;
                    events.push(slice(name, "piece", worker, (*begin, *end), json!({"step": step})));
                }
            }
        }
        json!({"displayTimeUnit": "ns", "traceEvents": events})
    }
}
