//! What was recorded, summed up: a row for each kernel, host operator and other kind of step.

use super::roof::Roof;
use super::steps::{Kind, Step};
use brolga_ir::structured;
use brolga_passes::cost::Work;
use brolga_passes::schedule::Part;
use brolga_runtime::profile::RunRecord;
use rustc_hash::FxHashMap;

/// How long something took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// As often longer as shorter.
    pub median: f64,
    /// A tenth took less.
    pub p10: f64,
    /// A tenth took more.
    pub p90: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
}

/// Times of measurements, of which there is at least one; none are 0.
pub(super) fn times(all: impl IntoIterator<Item = f64>) -> Times {
    let mut all: Vec<f64> = all.into_iter().collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| match all.len() {
        0 => 0.0,
        n => all[((n - 1) as f64 * share).round() as usize],
    };
    Times {
        median: at(0.5),
        p10: at(0.1),
        p90: at(0.9),
        min: at(0.0),
        max: at(1.0),
    }
}

/// What all steps of a kernel took, or all of a kind that are none.
#[derive(Clone, Debug)]
pub struct Row {
    /// What they are.
    pub kind: Kind,
    /// The kernel's name, or the host operator's, or the kind's.
    pub name: String,
    /// The kernel's index in the program.
    pub kernel: Option<u32>,
    /// The symbol of its function.
    pub symbol: Option<String>,
    /// Its steps, by their numbers.
    pub steps: Vec<u32>,
    /// The model's nodes that they come from, each once.
    pub nodes: Vec<String>,
    /// Calls in a run, on average.
    pub calls: f64,
    /// Times of a call.
    pub call: Times,
    /// Seconds of all calls of a run: the median.
    pub seconds: f64,
    /// Its part of the time of a run, from 0 to 1, by medians: a run that something else held up weighs no more than others.
    pub share: f64,
    /// What all calls of a run do, where sizes tell.
    pub work: Option<Work>,
    /// How fast they could be.
    pub roof: Option<Roof>,
    /// Threads that were at work in it: the median of the runs.
    pub busy: f64,
    /// The schedules that it was made by, each with its structured kernel.
    pub schedules: Vec<String>,
    /// What was counted in a call, by the numbers of the counters.
    pub counts: Option<Vec<f64>>,
}

impl Row {
    /// Operations on floats a second.
    pub fn flops(&self) -> Option<f64> {
        self.rate(self.work?.flops)
    }

    /// Bytes a second.
    pub fn bandwidth(&self) -> Option<f64> {
        self.rate(self.work?.bytes())
    }

    /// Its part of what the machine could do, from 0 on.
    pub fn efficiency(&self) -> Option<f64> {
        Some(self.roof?.seconds / self.seconds).filter(|x| x.is_finite())
    }

    fn rate(&self, amount: f64) -> Option<f64> {
        Some(amount / self.seconds).filter(|x| x.is_finite())
    }
}

/// What a schedule says of a loop kernel.
pub(super) fn schedule_text(kernel: &structured::Kernel, part: Part) -> String {
    let schedule = kernel.schedule.as_ref().map_or_else(String::new, ToString::to_string);
    match part {
        Part::Packing => format!("@{}: packs for {schedule}", kernel.name),
        Part::Piece(_) => format!("@{}: {schedule}", kernel.name),
    }
}

/// What steps have in common that are one row.
type Key = (Kind, Option<u32>, String);

/// What is summed up while runs are looked at.
#[derive(Default)]
struct Sum {
    calls: Vec<f64>,
    /// By run.
    runs: Vec<f64>,
    /// Seconds of all threads, by run.
    busy: Vec<f64>,
}

impl Sum {
    /// Adds seconds of threads to the last run.
    fn work(&mut self, seconds: f64) {
        *self.busy.last_mut().expect("there is a run") += seconds;
    }
}

/// The rows of some runs, the largest share first.
pub(super) fn of(steps: &[Step], records: &[RunRecord], threads: u32) -> Vec<Row> {
    let key = |s: &Step| -> Key { (s.kind, s.kernel, s.name.clone()) };
    let mut places: FxHashMap<Key, usize> = FxHashMap::default();
    let mut rows: Vec<Row> = vec![];
    let mut place = vec![];
    for (n, s) in (0..).zip(steps) {
        let at = *places.entry(key(s)).or_insert_with(|| {
            rows.push(Row {
                kind: s.kind,
                name: s.name.clone(),
                kernel: s.kernel,
                symbol: None,
                steps: vec![],
                nodes: vec![],
                calls: 0.0,
                call: Times::default(),
                seconds: 0.0,
                share: 0.0,
                work: Some(Work::NONE),
                roof: None,
                busy: 0.0,
                schedules: vec![],
                counts: None,
            });
            rows.len() - 1
        });
        let row = &mut rows[at];
        row.steps.push(n);
        row.calls += s.calls;
        for node in &s.nodes {
            if !row.nodes.contains(node) {
                row.nodes.push(node.clone());
            }
        }
        row.work = row.work.zip(s.work).map(|(sum, w)| sum + times_of(w, s.calls));
        place.push(at);
    }
    let mut sums: Vec<Sum> = rows.iter().map(|_| Sum::default()).collect();
    for run in records {
        for sum in &mut sums {
            sum.runs.push(0.0);
            sum.busy.push(0.0);
        }
        for (step, ns) in own_times(steps, run) {
            let sum = &mut sums[place[step as usize]];
            let seconds = ns * 1e-9;
            sum.calls.push(seconds);
            *sum.runs.last_mut().expect("there is a run") += seconds;
            // Outside of parallel loops the caller works alone; the loops are taken off below.
            sum.work(seconds);
        }
        for l in &run.loops {
            sums[place[l.step as usize]].work(-(l.ns() as f64) * 1e-9);
        }
        for piece in run.pieces.iter().flatten() {
            sums[place[piece.step as usize]].work(piece.ns() as f64 * 1e-9);
        }
    }
    for (row, sum) in rows.iter_mut().zip(sums) {
        let ran = sum.busy.iter().zip(&sum.runs).filter(|(_, seconds)| **seconds > 0.0);
        let busy = times(ran.map(|(busy, seconds)| busy / seconds)).median;
        row.busy = busy.clamp(0.0, f64::from(threads));
        row.seconds = times(sum.runs).median;
        row.call = times(sum.calls);
    }
    rows.retain(|r| r.calls > 0.0);
    let all = rows.iter().map(|r| r.seconds).sum::<f64>() + outside(steps, records);
    for row in &mut rows {
        row.share = row.seconds / all.max(f64::MIN_POSITIVE);
    }
    rows.sort_by(|a, b| b.share.total_cmp(&a.share));
    rows
}

fn times_of(w: Work, n: f64) -> Work {
    Work {
        flops: w.flops * n,
        int_ops: w.int_ops * n,
        bytes_read: w.bytes_read * n,
        bytes_written: w.bytes_written * n,
        ..w
    }
}

/// The steps of a run with their nanoseconds, without those of the steps inside of them.
fn own_times<'r>(steps: &'r [Step], run: &'r RunRecord) -> impl Iterator<Item = (u32, f64)> + 'r {
    // Those inside of a step end before it does.
    let mut inside: FxHashMap<u32, f64> = FxHashMap::default();
    run.steps.iter().map(move |s| {
        let own = s.ns() as f64 - inside.remove(&s.step).unwrap_or(0.0);
        if let Some(parent) = steps[s.step as usize].parent {
            *inside.entry(parent).or_default() += s.ns() as f64;
        }
        (s.step, own.max(0.0))
    })
}

/// Seconds of a run that are in no step: the median.
pub(super) fn outside(steps: &[Step], records: &[RunRecord]) -> f64 {
    let of = |r: &RunRecord| {
        let top = r.steps.iter().filter(|s| steps[s.step as usize].parent.is_none());
        (r.ns() as f64 - top.map(|s| s.ns() as f64).sum::<f64>()) * 1e-9
    };
    times(records.iter().map(of)).median
}
