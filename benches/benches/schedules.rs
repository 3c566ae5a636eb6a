//! The cost model and the schedules that are chosen, against times of kernels.
//!
//! `cargo bench -p brolga-benches --bench schedules [-- OPTION … FILE-OR-FOLDER …]`, without models for the small ones of the tests. Every
//! kernel of the models is timed alone, again and again on the same memory; sizes are those of `NAME.in.npz` beside the model, else
//! 16.
//!
//! | option | what it does |
//! | --- | --- |
//! | `--schedules=N` | times so many schedules of each kernel beside the chosen one, drawn from its space (default 0) |
//! | `--kernels=N` | of each model the kernels that take longest (default: all) |
//! | `--threads=N` | threads of parallel loops (default 1) |
//! | `--records=FILE` | appends what was timed to a file, a line of JSON a schedule |
//! | `--from=FILE` | predicts what stands in such a file, and times nothing |
//! | `--predictions=FILE` | writes every schedule with what is predicted, and of which parts, a line of JSON each |
//! | `--list` | prints every chosen schedule with its times and predicted cycles, and where another one was faster |
//!
//! Printed: the rank correlation (Spearman) of predicted and measured times over all kernels as they are chosen, and over all of each
//! model; by which factor predictions are off; within kernels, the correlation over schedules, what the schedule that the model
//! ranks first loses, and the best of all against the chosen one. The best of many times is the luckiest too, so that one is found by a
//! second timing of those that were fastest, and compared by a third one, in turn with the chosen schedule.

use brolga::ir::schedule::Schedule;
use brolga::ir::{Figures, Graph, Target};
use brolga::kernels::{self, Workload, rig::Rig};
use brolga::levels::{Module, Walk};
use brolga::passes::bufferize::Bufferize;
use brolga::passes::cost::{Model, Predictor, Time};
use brolga::passes::schedule::{Machine, space, to_loops};
use brolga::runtime::Pool;
use brolga::{Options, levels, machine, npy, source};
use brolga_benches::{chosen, name, option};
use brolga_ir::program::Step;
use brolga_tests::random::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a run of repetitions takes at least.
const SAMPLE: Duration = Duration::from_micros(500);
/// Runs, the best of which counts.
const SAMPLES: usize = 7;
/// The fastest schedules of a kernel, which are timed again.
const FINALISTS: usize = 5;
/// Turns in which the fastest of these and the chosen one are timed once more.
const TURNS: usize = 15;
/// The most bytes of a kernel's operands.
const LIMIT: u64 = 2 << 30;
/// The size of a symbol that nothing tells.
const SIZE: i64 = 16;

/// A kernel by a schedule, and how long a run took.
struct Record {
    model: String,
    workload: Arc<Workload>,
    sizes: Vec<i64>,
    schedule: Schedule,
    chosen: bool,
    threads: usize,
    seconds: f64,
    /// Of the chosen one and the best one of a kernel: when both were timed in turn.
    in_turn: Option<f64>,
}

fn main() {
    let target = Options::default().target;
    let (figures, why_not) = machine::figures(&target);
    if let Some(why_not) = why_not {
        println!("{why_not}");
    }
    println!("figures: {:?}, spread {:.3}", figures.origin, figures.spread);
    let records = match option("from") {
        Some(file) => read(Path::new(&file)),
        None => measure(&target),
    };
    report(&records, &target, &figures);
}

/// Times the kernels of all models.
fn measure(target: &Target) -> Vec<Record> {
    let number = |name: &str, default: usize| option(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (schedules, most) = (number("schedules", 0), number("kernels", usize::MAX));
    let pool = Pool::shared(number("threads", 1));
    let mut file = option("records").map(|f| {
        let opened = OpenOptions::new().create(true).append(true).open(f);
        opened.expect("the file of records can be written")
    });
    let mut out: Vec<Record> = vec![];
    for path in chosen(brolga_tests::data) {
        let before = out.len();
        let found = match found(&path, target) {
            Ok(found) => found,
            Err(e) => {
                println!("{:24} {e}", name(&path));
                continue;
            }
        };
        let mut mine = vec![];
        for (workload, sizes) in found {
            let known = |r: &Record| *r.workload == workload && r.sizes == sizes;
            if out.iter().chain(&mine).any(known) {
                continue;
            }
            let workload = Arc::new(workload);
            match time_one(&name(&path), &workload, &sizes, target, &pool) {
                Ok(r) => mine.push(r),
                Err(e) => println!("{:24} {e}", name(&path)),
            }
        }
        mine.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        mine.truncate(most);
        if schedules > 0 {
            for r in &mut mine {
                out.extend(time_others(r, schedules, target, &pool));
            }
        }
        out.extend(mine);
        println!("{:24} {} times", name(&path), out.len() - before);
        if let Some(file) = &mut file {
            for r in &out[before..] {
                writeln!(file, "{}", line(r)).expect("the file of records can be written");
            }
        }
    }
    out
}

/// The kernels of a model and the values of their symbols.
fn found(path: &Path, target: &Target) -> Result<Vec<(Workload, Vec<i64>)>, String> {
    let options = Options {
        target: target.clone(),
        verify: false,
        ..Options::default()
    };
    let fail = |e: &dyn std::fmt::Display| e.to_string();
    let graph = source::graph(path, options.memory_limit).map_err(|e| fail(&e))?;
    let given = sizes(&graph, &path.with_extension("in.npz"));
    let walk = Walk::new(Module::Tensor(graph), &options).and_then(|w| w.down(levels::Level::Structured));
    let mut walk = walk.map_err(|e| fail(&e))?;
    walk.run(vec![Box::new(Bufferize { aliases: vec![] })])
        .map_err(|e| fail(&e))?;
    let Module::Structured(program) = &walk.module else {
        return Err("no structured kernels".into());
    };
    let lookup = |s: &str| Some(given.get(s).copied().unwrap_or(SIZE));
    let all = kernels::of_program(program)?;
    all.into_iter()
        .map(|f| Ok((f.workload, kernels::sizes(&f.symbols, &lookup)?)))
        .collect()
}

/// The sizes that inputs in a file have.
fn sizes(graph: &Graph, inputs: &Path) -> BTreeMap<String, i64> {
    let mut out = BTreeMap::new();
    let Ok(given) = npy::read_npz(inputs) else {
        return out;
    };
    for input in &graph.inputs {
        let Some((_, t)) = given.iter().find(|(n, _)| **n == *input.name) else {
            continue;
        };
        for (d, n) in graph.ty(input.value).shape.iter().zip(t.shape()) {
            if let Some(s) = d.as_symbol() {
                out.insert(s.to_string(), *n as i64);
            }
        }
    }
    out
}

/// Times a kernel as it is chosen.
fn time_one(
    model: &str,
    w: &Arc<Workload>,
    sizes: &[i64],
    target: &Target,
    pool: &Arc<Pool>,
) -> brolga::Result<Record> {
    let mut rig = Rig::new((**w).clone(), sizes, target, pool.clone(), 0, LIMIT)?;
    let handle = rig.add(None)?;
    Ok(Record {
        model: model.to_owned(),
        workload: w.clone(),
        sizes: sizes.to_vec(),
        schedule: brolga::passes::schedule::choose(w.kernel(), &Machine::of(target)),
        chosen: true,
        threads: pool.workers() as usize,
        seconds: best(&mut || rig.run(handle), SAMPLES),
        in_turn: None,
    })
}

/// Times other schedules of a kernel, drawn from its space, and the best of them in turn with the chosen one.
fn time_others(r: &mut Record, most: usize, target: &Target, pool: &Arc<Pool>) -> Vec<Record> {
    let mut all = space(r.workload.kernel(), &Machine::of(target));
    all.retain(|s| *s != r.schedule);
    let mut random = Random(1);
    while all.len() > most {
        all.swap_remove(random.below(all.len()));
    }
    let Ok(mut rig) = Rig::new((*r.workload).clone(), &r.sizes, target, pool.clone(), 0, LIMIT) else {
        return vec![];
    };
    let mut out: Vec<Record> = vec![];
    for schedule in all {
        let Ok(handle) = rig.add(Some(schedule.clone())) else {
            continue;
        };
        let seconds = best(&mut || rig.run(handle), 3);
        rig.pop();
        out.push(Record {
            model: r.model.clone(),
            workload: r.workload.clone(),
            sizes: r.sizes.clone(),
            schedule,
            chosen: false,
            threads: r.threads,
            seconds,
            in_turn: None,
        });
    }
    let mut fastest: Vec<usize> = (0..out.len()).collect();
    fastest.sort_by(|a, b| out[*a].seconds.total_cmp(&out[*b].seconds));
    fastest.truncate(FINALISTS);
    let mut handles = vec![];
    for &i in &fastest {
        let Ok(handle) = rig.add(Some(out[i].schedule.clone())) else {
            continue;
        };
        handles.push((best(&mut || rig.run(handle), SAMPLES), i, handle));
    }
    let winner = handles.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some((_, i, other)), Ok(chosen)) = (winner, rig.add(Some(r.schedule.clone()))) {
        let (mut mine, mut its) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..TURNS {
            mine = mine.min(best(&mut || rig.run(chosen), 1));
            its = its.min(best(&mut || rig.run(other), 1));
        }
        (r.in_turn, out[i].in_turn) = (Some(mine), Some(its));
    }
    out
}

/// Seconds of a run, at best.
fn best(run: &mut dyn FnMut(), samples: usize) -> f64 {
    run();
    let mut repetitions = 1u32;
    let mut least = f64::INFINITY;
    let mut taken = 0;
    while taken < samples {
        let start = Instant::now();
        (0..repetitions).for_each(|_| run());
        let time = start.elapsed();
        least = least.min(time.as_secs_f64() / f64::from(repetitions));
        match time >= SAMPLE || repetitions > 1 << 20 {
            true => taken += 1,
            false => repetitions *= 2,
        }
    }
    least
}

fn line(r: &Record) -> Value {
    let mut line = json!({
        "model": r.model, "kernel": r.workload.to_string(), "sizes": r.sizes, "schedule": r.schedule.to_string(),
        "chosen": r.chosen, "threads": r.threads, "seconds": r.seconds,
    });
    if let Some(seconds) = r.in_turn {
        line["in_turn"] = json!(seconds);
    }
    line
}

fn read(file: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(file).expect("the file of records can be read");
    let mut known: BTreeMap<String, Arc<Workload>> = BTreeMap::new();
    let mut out = vec![];
    for l in text.lines() {
        let v: Value = serde_json::from_str(l).expect("a record is JSON");
        let text = |name: &str| v[name].as_str().unwrap_or_default().to_owned();
        let workload = known
            .entry(text("kernel"))
            .or_insert_with_key(|k| Arc::new(Workload::parse(k).expect("the kernel of a record").0));
        out.push(Record {
            model: text("model"),
            workload: workload.clone(),
            sizes: v["sizes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_i64)
                .collect(),
            schedule: text("schedule").parse().expect("the schedule of a record"),
            chosen: v["chosen"].as_bool() == Some(true),
            threads: v["threads"].as_u64().unwrap_or(1) as usize,
            seconds: v["seconds"].as_f64().expect("the time of a record"),
            in_turn: v["in_turn"].as_f64(),
        });
    }
    out
}

/// What predicts a record.
fn model<'a>(r: &Record, target: &'a Target, figures: &'a Figures) -> Option<Model<'a>> {
    Some(Model {
        cpu: target.cpu()?,
        figures,
        threads: r.threads,
        between: 0.0,
    })
}

/// What takes the time of a record's kernels, as predicted.
fn kernels_of(r: &Record, target: &Target, figures: &Figures) -> Vec<Value> {
    let program = to_loops(&r.workload.program(Some(r.schedule.clone())), &Machine::of(target));
    let (Ok(program), Some(model)) = (program, model(r, target, figures)) else {
        return vec![];
    };
    let symbols = &r.workload.kernel().symbols;
    let lookup = |s: &str| symbols.iter().position(|x| **x == *s).map(|i| r.sizes[i]);
    let kernels = program.steps.iter().filter_map(|s| match s {
        Step::Call { kernel, .. } => Some(model.kernel(&program.kernels[*kernel as usize], &lookup)),
        _ => None,
    });
    kernels.map(|t| parts(&t)).collect()
}

/// What takes a kernel's time, as predicted.
fn parts(t: &Time) -> Value {
    let c = &t.cycles;
    json!({
        "tiles": c.tiles, "vectors": c.vectors, "moves": c.moves, "scalars": c.scalars, "control": c.control, "waits": c.waits,
        "moving": t.moving, "flops": t.work.flops,
    })
}

/// A record with the seconds that are predicted for it.
type Predicted<'r> = (&'r Record, f64);

fn report(records: &[Record], target: &Target, figures: &Figures) {
    let list = std::env::args().any(|a| a == "--list");
    let start = Instant::now();
    let machine = Machine::of(target);
    let predict = |r: &Record| {
        r.workload.predict(
            &r.schedule,
            &r.sizes,
            &machine,
            &Predictor::Cpu(model(r, target, figures)?),
        )
    };
    let pairs: Vec<Predicted> = records.iter().filter_map(|r| Some((r, predict(r)?))).collect();
    let each = start.elapsed().as_secs_f64() / pairs.len().max(1) as f64;
    if let Some(file) = option("predictions") {
        let line = |(r, p): &Predicted| {
            let mut line = line(r);
            line["predicted"] = json!(p);
            line["kernels"] = json!(kernels_of(r, target, figures));
            format!("{line}\n")
        };
        let text: String = pairs.iter().map(line).collect();
        std::fs::write(file, text).expect("the file of predictions can be written");
    }
    for (r, p) in pairs.iter().filter(|(r, _)| list && r.chosen) {
        println!(
            "{:16} {:>10.2} µs {:>10.2} µs predicted, {:>6.2}: {}; {}",
            r.model,
            r.seconds * 1e6,
            p * 1e6,
            p / r.seconds,
            json!(kernels_of(r, target, figures)),
            r.schedule
        );
    }
    println!("{} times, a prediction takes {:.0} µs", pairs.len(), each * 1e6);
    let chosen: Vec<_> = pairs.iter().filter(|(r, _)| r.chosen).collect();
    let (measured, predicted): (Vec<f64>, Vec<f64>) = chosen.iter().map(|(r, p)| (r.seconds, *p)).unzip();
    println!(
        "chosen schedules: {} kernels, rank correlation {:.4}",
        chosen.len(),
        spearman(&measured, &predicted)
    );
    let mut off: Vec<f64> = chosen.iter().map(|(r, p)| (p / r.seconds).ln()).collect();
    off.sort_by(f64::total_cmp);
    let at = |share: f64| {
        off.get(((off.len() as f64 - 1.0) * share) as usize)
            .map_or(1.0, |x| x.exp())
    };
    println!(
        "predicted ÷ measured: tenth part {:.2}, median {:.2}, nine tenths {:.2}",
        at(0.1),
        at(0.5),
        at(0.9)
    );

    let mut kernels: BTreeMap<(String, &[i64]), Vec<Predicted>> = BTreeMap::new();
    for (r, p) in &pairs {
        kernels.entry((r.workload.key(), &r.sizes)).or_default().push((r, *p));
    }
    kernels.retain(|_, all| all.len() > 3 && all.iter().any(|(r, _)| r.chosen));
    if kernels.is_empty() {
        return;
    }
    let (mut within, mut lost, mut reached) = (vec![], vec![], vec![]);
    for all in kernels.values() {
        let (measured, predicted): (Vec<f64>, Vec<f64>) = all.iter().map(|(r, p)| (r.seconds, *p)).unzip();
        within.push(spearman(&measured, &predicted));
        let best = measured.iter().copied().fold(f64::INFINITY, f64::min);
        let first = all
            .iter()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(best, |(r, _)| r.seconds);
        let chosen = all.iter().find(|(r, _)| r.chosen).map_or(best, |(r, _)| r.seconds);
        lost.push(best / first);
        let in_turn = |chosen: bool| {
            all.iter()
                .filter(|(r, _)| r.chosen == chosen)
                .find_map(|(r, _)| r.in_turn)
        };
        reached.push(match (in_turn(false), in_turn(true)) {
            (Some(best), Some(chosen)) => best / chosen,
            _ => best / chosen,
        });
        if list && best / chosen < 0.9 {
            let winner = all
                .iter()
                .min_by(|a, b| a.0.seconds.total_cmp(&b.0.seconds))
                .expect("there is one");
            let mine = all.iter().find(|(r, _)| r.chosen).expect("there is one");
            println!(
                "{}: {:.2} µs by {}\n    {:.2} µs by {}",
                mine.0.model,
                mine.0.seconds * 1e6,
                mine.0.schedule,
                winner.0.seconds * 1e6,
                winner.0.schedule
            );
        }
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let geometric = |x: &[f64]| (x.iter().map(|x| x.ln()).sum::<f64>() / x.len() as f64).exp();
    println!(
        "{} kernels with other schedules: rank correlation within a kernel {:.3}",
        kernels.len(),
        mean(&within)
    );
    println!(
        "best ÷ chosen {:.3}, best ÷ first of the model {:.3} (geometric means)",
        geometric(&reached),
        geometric(&lost)
    );
}

/// The rank correlation.
fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (ranks(x), ranks(y));
    let mean = (x.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt().max(f64::MIN_POSITIVE)
}

/// Ranks from 0 on; equal ones share theirs.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
    let mut out = vec![0.0; x.len()];
    let mut i = 0;
    while i < order.len() {
        let mut end = i + 1;
        while end < order.len() && x[order[end]] == x[order[i]] {
            end += 1;
        }
        order[i..end].iter().for_each(|&k| out[k] = (i + end - 1) as f64 / 2.0);
        i = end;
    }
    out
}
