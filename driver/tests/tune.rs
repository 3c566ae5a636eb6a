//! `brolga tune`, `bench` and `space`: candidates that crash, hang or are wrong are lost and no more; records are found again, merged,
//! applied where they fit, and refused with a word where they do not; a timer that lies makes no model slower.

mod common;

use brolga::Options;
use brolga::ir::Target;
use brolga::ir::schedule::Schedule;
use brolga::kernels::rig::Rig;
use brolga::kernels::{self, Workload};
use brolga::levels::{Module, Walk};
use brolga::passes::lower::Structured;
use brolga::passes::schedule::{Machine, choose, inlines, space};
use brolga::runtime::Pool;
use brolga::tune::agree::agree;
use brolga::tune::duel::{Duel, Verdict};
use brolga::tune::record::{Line, Log, Outcome, PREDICTED, Place};
use brolga::tune::worker::{Job, Measure, Measured};
use brolga::tune::{AtHome, Home, Model, Settings};
use common::{arg, brolga, digits, json, ok};
use serde_json::Value;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// The structured kernels of the digits model.
fn structured() -> Structured {
    let options = Options::default();
    let module = brolga::source::model(&digits(), &options).expect("a model");
    let walk = Walk::new(module, &options)
        .and_then(Walk::kernels)
        .expect("it goes down");
    match walk.module {
        Module::Structured(s) => s,
        other => panic!("{other}"),
    }
}

fn native() -> Target {
    brolga::codegen::target::native().expect("tests run where there is code")
}

#[test]
fn workloads_read_back_and_keep_their_keys() {
    let all = kernels::of_program(&structured()).expect("kernels");
    assert!(all.len() >= 6, "{}", all.len());
    for f in &all {
        let text = f.workload.to_string();
        let (again, schedule) = Workload::parse(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
        assert_eq!(again, f.workload, "{text}");
        assert_eq!(again.key(), f.workload.key());
        assert_eq!(schedule, None);
    }
    let dense = all
        .iter()
        .find(|f| f.name.starts_with("contract"))
        .expect("a dense layer");
    assert_eq!(
        dense.workload.constants().len(),
        2,
        "weights and bias: {}",
        dense.workload
    );
    // The key is that of the text, whatever the platform and the compiler: records are found by it.
    let text = "kernel @a(o0: f32[rows, 4] in, o1: f32[rows, 4] out) symbols(rows) outer(rows, 4) {
        stage { read o0[i0, i1] body (v0: f32) { } -> v0 write o1[i0, i1] } }";
    let (copy, _) = Workload::parse(text).expect("a workload");
    assert_eq!(copy.key(), "23e964c1d917d791b8cbde05aa3937a7");
}

#[test]
fn what_is_no_workload_is_refused() {
    let text = "kernel @a(o0: f32[n, 4] in, o1: f32[n, 4] out) symbols(n) outer(n, 4) {
        stage { read o0[i0, i1] body (v0: f32) { } -> v0 write o1[i0, i1] } }\n";
    for (constant, words) in [
        ("constant o0", "its size is 4*n0, expected a number"),
        ("constant o1", "the kernel writes it"),
        ("constant o7", "the kernel has 2 operands"),
        ("constant ox", "expected an operand such as o1"),
    ] {
        let e = Workload::parse(&format!("{text}{constant}\n")).expect_err(constant);
        assert!(e.contains(words), "{e}");
    }
}

#[test]
fn every_schedule_of_a_space_computes_the_same() {
    let machine = Machine::of(&native());
    for f in kernels::of_program(&structured()).expect("kernels") {
        let sizes = vec![3; f.symbols.len()];
        let new = || Rig::new(f.workload.clone(), &sizes, &native(), Pool::shared(2), 0, 1 << 30).expect("memory");
        let mut rig = new();
        let chosen = rig.add(None).expect("code");
        let expected = rig.results(chosen);
        let all = space(f.workload.kernel(), &machine);
        // A part of them, other ones for each kernel.
        for s in all.iter().skip(all.len() % 7).step_by(7) {
            let mut rig = new();
            let handle = rig
                .add(Some(s.clone()))
                .unwrap_or_else(|e| panic!("{}: {s}: {e}", f.name));
            let found = rig.results(handle);
            agree(&f.workload, &sizes, &expected, &found).unwrap_or_else(|e| panic!("{}: {s}: {e}", f.name));
        }
    }
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// What a time is taken for: mostly a little more than it is, now and then ten times that.
    fn noisy(&mut self, time: f64) -> f64 {
        let tail = if self.next() > 0.95 { 10.0 * self.next() } else { 0.0 };
        time * (1.0 + 0.2 * self.next() + tail)
    }
}

/// A number from 0 to 1 that a text has.
fn of_text(text: &str, salt: u64) -> f64 {
    let mut h = DefaultHasher::new();
    (text, salt).hash(&mut h);
    (h.finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// What a kernel's schedule takes in truth, over what the chosen one does.
fn truth(schedule: &str, chosen: &str) -> f64 {
    if schedule == chosen {
        1.0
    } else {
        0.9 + 0.4 * of_text(schedule, 1)
    }
}

/// What a kernel takes in truth by the schedule that is chosen.
fn truth_of_kernel(key: &str) -> f64 {
    0.5 + of_text(key, 3)
}

/// A timer of kernels alone that is noisy, and lies: a third of all candidates, and of all kernels, seem to take a third less than they
/// do.
struct Liar {
    random: Random,
    chosen: String,
    incumbent: String,
}

impl Liar {
    fn told(&self, schedule: &str) -> f64 {
        let lie = schedule != self.chosen && of_text(schedule, 2) < 1.0 / 3.0;
        truth(schedule, &self.chosen) * if lie { 2.0 / 3.0 } else { 1.0 }
    }
}

impl Measure for Liar {
    fn start(&mut self, job: &Job, incumbent: &Schedule) -> Result<f64, String> {
        self.chosen = job.chosen.to_string();
        self.incumbent = incumbent.to_string();
        let key = job.workload.key();
        let lie = if of_text(&key, 4) < 1.0 / 3.0 { 2.0 / 3.0 } else { 1.0 };
        Ok(1e-3 * lie * self.random.noisy(truth_of_kernel(&key)))
    }
    fn trial(&mut self, candidate: &Schedule) -> Measured {
        let (a, b) = (self.told(&self.incumbent), self.told(&candidate.to_string()));
        let mut duel = Duel::new();
        let outcome = loop {
            match duel.pair(self.random.noisy(a), self.random.noisy(b)) {
                Verdict::Open => {}
                Verdict::Faster => break Outcome::Faster,
                Verdict::NotFaster => break Outcome::NotFaster,
            }
        };
        Measured {
            outcome,
            check: "bits".into(),
            pairs: duel.pairs().to_vec(),
            compile: 0.0,
        }
    }
    fn take(&mut self, candidate: &Schedule) {
        self.incumbent = candidate.to_string();
    }
}

/// Whole models by the truth, and noise.
struct Truth {
    random: Random,
    /// The true time of a program over that of the untuned one.
    last: f64,
}

impl Home for Truth {
    fn kernels(&mut self, programs: &[Structured], round: &mut dyn FnMut(&[Vec<f64>]) -> bool) -> brolga::Result<()> {
        let machine = Machine::of(&native());
        let times = |p: &Structured| -> Vec<f64> {
            let mut out = vec![0.0; p.kernels.len()];
            for f in kernels::of_program(p).expect("kernels") {
                let chosen = choose(f.workload.kernel(), &machine).to_string();
                let own = p.kernels[f.kernel].schedule.as_ref();
                let own = own.map_or(chosen.clone(), ToString::to_string);
                out[f.kernel] = truth_of_kernel(&f.workload.key()) * truth(&own, &chosen);
            }
            out
        };
        let times: Vec<Vec<f64>> = programs.iter().map(times).collect();
        loop {
            let noisy = |t: &Vec<f64>, r: &mut Random| t.iter().map(|t| r.noisy(*t)).collect();
            let all: Vec<Vec<f64>> = times.iter().map(|t| noisy(t, &mut self.random)).collect();
            if !round(&all) {
                return Ok(());
            }
        }
    }

    fn compare(&mut self, untuned: &Structured, tuned: &Structured) -> brolga::Result<AtHome> {
        let machine = Machine::of(&native());
        let time = |p: &Structured| -> f64 {
            let called = kernels::of_program(p).expect("kernels");
            let own = called.iter().map(|f| {
                let chosen = choose(f.workload.kernel(), &machine).to_string();
                let own = p.kernels[f.kernel]
                    .schedule
                    .as_ref()
                    .map_or(chosen.clone(), ToString::to_string);
                f.calls as f64 * truth_of_kernel(&f.workload.key()) * truth(&own, &chosen)
            });
            own.sum()
        };
        self.last = time(tuned) / time(untuned);
        let mut duel = Duel::at_home(200);
        loop {
            let verdict = duel.pair(self.random.noisy(1.0), self.random.noisy(self.last));
            if verdict != Verdict::Open {
                return Ok(AtHome {
                    kept: verdict == Verdict::Faster,
                    ratio: duel.ratio().unwrap_or(1.0),
                    untuned: 1.0,
                });
            }
        }
    }
}

#[test]
fn a_timer_that_lies_makes_no_model_slower() {
    let options = Options::default();
    let (mut kept, mut gained) = (0, 0);
    for seed in 1..=40 {
        let settings = Settings {
            trials: 60,
            seed,
            sizes: vec![("batch".into(), 2)],
            ..Settings::default()
        };
        let model = Model::read(&digits(), &options, &settings).expect("a model");
        let random = |n: u64| Random(n.wrapping_mul(seed));
        let (mut liar, mut home) = (
            Liar {
                random: random(0x9e37_79b9_7f4a_7c15),
                chosen: String::new(),
                incumbent: String::new(),
            },
            Truth {
                random: random(0xd1b5_4a32_d192_ed03),
                last: 1.0,
            },
        );
        let lines = model
            .tune(&settings, &mut liar, Some(&mut home), &mut |_| true)
            .expect("it ends");
        let Some(Line::Model(_, summary)) = lines.last() else {
            panic!("{lines:?}")
        };
        if summary.kept + summary.decided > 0 {
            kept += 1;
            gained += usize::from(home.last < 1.0);
            assert!(
                home.last <= 1.0,
                "seed {seed}: the tuned model takes {} of the time",
                home.last
            );
        }
    }
    // The timer lies a lot, but not always: something is found.
    assert!(kept > 0 && gained == kept, "{kept} kept, {gained} gained");
}

/// Tunes the digits model into a file; gives what was printed.
fn tune(dir: &Path, arguments: &[&str]) -> Value {
    let model = digits();
    let all = [
        &["tune", arg(&model), "-o", "digits.tune", "--at", "batch=4", "--json"],
        arguments,
    ]
    .concat();
    let done = ok(dir, &all);
    serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {}", done.out))
}

#[test]
fn a_model_is_tuned_and_its_records_are_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let report = tune(dir, &["--budget", "3s", "--trials", "20"]);
    assert!(report["candidates"].as_u64() > Some(5), "{report:#}");
    let log = Log::read(&dir.join("digits.tune")).expect("records");
    let trials = log.lines.iter().filter(|l| matches!(l, Line::Trial(..))).count();
    assert_eq!(trials as u64, report["candidates"].as_u64().expect("a number"));
    for line in &log.lines {
        assert_eq!(Line::parse(&line.text()).as_ref(), Ok(line));
    }

    // Whatever was found: with a record of each kernel, all are applied.
    let here = Place::here(&native(), 2);
    let program = structured();
    let machine = Machine::of(&native());
    let mut lines = vec![];
    let mut given = HashMap::new();
    for f in kernels::of_program(&program).expect("kernels") {
        let all = space(f.workload.kernel(), &machine);
        let other = all
            .iter()
            .skip(1)
            .find(|s| !(f.in_place && inlines(s)))
            .unwrap_or(&all[0]);
        given.insert(f.workload.key(), other.to_string());
        lines.push(Line::Kept(
            here.clone(),
            brolga::tune::record::Kept {
                workload: f.workload.key(),
                sizes: vec![],
                schedule: other.to_string(),
                instead: all[0].to_string(),
                ratio: 0.5,
            },
        ));
    }
    let whole = Log { lines: lines.clone() };
    std::fs::write(dir.join("all.tune"), whole.text()).expect("room");
    let model = digits();
    let digits = arg(&model);
    let compile = |tune: &str, out: &str| ok(dir, &["compile", digits, "--tune", tune, "-o", out, "--remarks"]);
    let said = compile("all.tune", "a.o").err;
    let n = given.len();
    assert!(said.contains(&format!("{n} of {n} kernels are tuned")), "{said}");
    assert!(said.contains("kernel @contract_11: tuned, "), "{said}");
    compile("all.tune", "b.o");
    let read = |name: &str| std::fs::read(dir.join(name)).expect("an object");
    assert_eq!(read("a.o"), read("b.o"), "the same records give the same bytes");
    ok(dir, &["compile", digits, "-o", "plain.o"]);
    assert!(read("a.o") != read("plain.o"), "the schedules are others");

    // The result is the same, but for the order of sums.
    ok(dir, &["run", digits, "--set", "batch=4", "--output", "plain.npz"]);
    ok(
        dir,
        &[
            "run",
            digits,
            "--set",
            "batch=4",
            "--expect",
            "plain.npz",
            "--tolerance",
            "1e-5",
        ],
    );
    let said = ok(
        dir,
        &[
            "run",
            digits,
            "--set",
            "batch=4",
            "--tune",
            "all.tune",
            "--expect",
            "plain.npz",
            "--tolerance",
            "1e-5",
        ],
    )
    .err;
    // With another size compiled in, these are other kernels.
    assert!(said.contains("kernels are tuned"), "{said}");

    // Records of another machine are refused with a word.
    let foreign = |change: &dyn Fn(&mut Place)| {
        let others = lines.iter().map(|l| match l {
            Line::Kept(p, k) => {
                let mut p = p.clone();
                change(&mut p);
                Line::Kept(p, k.clone())
            }
            l => l.clone(),
        });
        let log = Log {
            lines: others.collect(),
        };
        std::fs::write(dir.join("foreign.tune"), log.text()).expect("room");
        compile("foreign.tune", "foreign.o").err
    };
    let said = foreign(&|p| p.cpu = "Another CPU".into());
    assert!(
        said.contains("0 of") && said.contains("made on another CPU, Another CPU"),
        "{said}"
    );
    assert_eq!(read("foreign.o"), read("plain.o"));
    let said = foreign(&|p| p.target = "sm_80".into());
    assert!(said.contains("its records are for sm_80"), "{said}");
    assert_eq!(read("foreign.o"), read("plain.o"));
}

#[test]
fn kernels_are_listed_and_searched_without_the_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let model = digits();
    let listed = ok(dir, &["tune", arg(&model), "--list", "--at", "batch=2"]).out;
    assert_eq!(
        listed.lines().count(),
        kernels::of_program(&structured()).expect("kernels").len(),
        "{listed}"
    );
    let json: Value = serde_json::from_str(&ok(dir, &["tune", arg(&model), "--list", "--at", "batch=2", "--json"]).out)
        .expect("JSON");
    let shares: Vec<f64> = json
        .as_array()
        .expect("kernels")
        .iter()
        .filter_map(|k| k["share"].as_f64())
        .collect();
    assert!(
        (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6 && shares.is_sorted_by(|a, b| a >= b),
        "{shares:?}"
    );
    let search = [
        "-o",
        "x.tune",
        "--search-only",
        "--kernel",
        "contract_12",
        "--trials",
        "5",
        "--at",
        "batch=2",
    ];
    ok(dir, &[&["tune", arg(&model)], &search[..]].concat());
    let log = Log::read(&dir.join("x.tune")).expect("records");
    assert!(
        log.lines
            .iter()
            .all(|l| matches!(l, Line::Workload(_) | Line::Trial(..)))
            && log.lines.len() == 6
    );
    let unknown = brolga(
        dir,
        &[
            "tune",
            arg(&model),
            "-o",
            "x.tune",
            "--kernel",
            "dense",
            "--at",
            "batch=2",
        ],
    );
    assert_eq!(unknown.status, 2);
    assert!(
        unknown.err.contains("runs call no kernel @dense; they call @"),
        "{}",
        unknown.err
    );
    let unsized_ = brolga(dir, &["tune", arg(&model), "--list"]);
    assert!(
        unsized_
            .err
            .contains("the dimension `batch` has no size; give it one with --at batch=N"),
        "{}",
        unsized_.err
    );
}

#[test]
fn records_that_are_not_legal_are_not_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let f = kernels::of_program(&structured()).expect("kernels").remove(0);
    let kept = |schedule: &str| {
        serde_json::json!({
            "kept": f.workload.key(), "sizes": [], "schedule": schedule, "instead": schedule, "ratio": 0.5,
            "target": native().name, "cpu": Place::here(&native(), 1).cpu, "threads": 1,
        })
        .to_string()
    };
    let write = |text: &str| std::fs::write(dir.path().join("x.tune"), text).expect("room");
    let model = digits();
    let digits = arg(&model);
    let compile = || {
        brolga(
            dir.path(),
            &["compile", digits, "--tune", "x.tune", "-o", "x.o", "--remarks"],
        )
    };
    write(&(kept("copy{grain=40000}") + "\n"));
    let said = compile();
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(
        said.err
            .contains("not applied: its record is not legal any more: copy: "),
        "{}",
        said.err
    );
    write(&(kept("points{along=0, speed=9}") + "\n"));
    let said = compile();
    assert_eq!(said.status, 2);
    assert!(said.err.contains("x.tune: line 1: `schedule`: "), "{}", said.err);
    // A line that was being written when its writer ended.
    write(&(kept("copy{grain=40000}") + "\n{\"kept\": \"12"));
    assert_eq!(compile().status, 0);
    write("{\"kept\": \"12\n{}\n");
    assert!(compile().err.contains("x.tune: line 1: no JSON"), "{}", compile().err);
}

#[test]
fn candidates_that_go_wrong_are_lost_and_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let report = tune(
        dir,
        &[
            "--budget",
            "60s",
            "--trials",
            "30",
            "--kernel",
            "contract_12",
            "--inject",
            "crash=11,hang=17,wrong=7",
        ],
    );
    let log = Log::read(&dir.join("digits.tune")).expect("records");
    let count = |o: Outcome| {
        log.lines
            .iter()
            .filter(|l| matches!(l, Line::Trial(_, t) if t.outcome == o))
            .count()
    };
    let tried = report["candidates"].as_u64().expect("a number");
    let refused = count(Outcome::Refused) as u64;
    // Some of each were noticed; of what was refused none is injected.
    for fate in [Outcome::Crashed, Outcome::Hung, Outcome::Wrong] {
        assert!(count(fate) >= 1, "{fate:?}: none of {tried}, {refused} refused");
    }
    for line in &log.lines {
        if let Line::Trial(_, t) = line {
            let lost = matches!(t.outcome, Outcome::Crashed | Outcome::Hung | Outcome::Wrong);
            let kept = log.kept(&t.workload).any(|(_, k)| k.schedule == t.schedule);
            assert!(!(lost && kept), "{} was kept", t.schedule);
        }
    }
    // It goes on where it ended, with what it knows.
    let again = tune(dir, &["--budget", "2s", "--trials", "5", "--kernel", "contract_12"]);
    assert!(again["candidates"].as_u64() > Some(0));
}

#[test]
fn records_are_shown_compared_and_merged() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    tune(dir, &["--budget", "2s", "--trials", "10", "--kernel", "contract_12"]);
    let one = Log::read(&dir.join("digits.tune")).expect("records");
    let shown = ok(dir, &["tune", "show", "digits.tune"]).out;
    assert!(
        shown.contains("candidates: ") && shown.contains("model digits: "),
        "{shown}"
    );
    // What `cat` puts together is a log, and merging leaves each line once.
    let text = std::fs::read_to_string(dir.join("digits.tune")).expect("records");
    std::fs::write(dir.join("twice.tune"), format!("{text}{text}")).expect("room");
    ok(
        dir,
        &["tune", "merge", "twice.tune", "digits.tune", "-o", "merged.tune"],
    );
    assert_eq!(
        Log::read(&dir.join("merged.tune")).expect("records").lines.len(),
        one.lines.len()
    );
    assert_eq!(ok(dir, &["tune", "diff", "digits.tune", "merged.tune"]).out, "");
    let table = ok(dir, &["tune", "export", "digits.tune"]).out;
    let trials = one.lines.iter().filter(|l| matches!(l, Line::Trial(..))).count();
    assert_eq!(table.lines().count(), trials + 1);

    let f = kernels::of_program(&structured()).expect("kernels");
    let dense = f.iter().find(|f| f.name == "contract_12").expect("a dense layer");
    let all = space(dense.workload.kernel(), &Machine::of(&native()));
    let kept = Line::Kept(
        Place::here(&native(), 1),
        brolga::tune::record::Kept {
            workload: dense.workload.key(),
            sizes: vec![4],
            schedule: all[1].to_string(),
            instead: all[0].to_string(),
            ratio: 0.5,
        },
    );
    let own = Log {
        lines: vec![Line::Workload(dense.workload.clone()), kept],
    };
    own.write(&dir.join("own.tune")).expect("room");
    let best = ok(dir, &["tune", "best", "own.tune"]).out;
    assert!(best.contains(&all[1].to_string()), "{best}");
    assert!(
        ok(dir, &["tune", "diff", "digits.tune", "own.tune"])
            .out
            .contains(&format!("+ {}", dense.workload.key()))
    );
    let verified = ok(dir, &["tune", "verify", "own.tune"]).out;
    assert!(
        verified.contains("1 checked, 0 failed, 0 of other machines"),
        "{verified}"
    );
}

#[test]
fn a_kernel_is_timed_alone_and_its_space_is_listed() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let f = kernels::of_program(&structured()).expect("kernels");
    let dense = f.iter().find(|f| f.name == "contract_11").expect("a dense layer");
    std::fs::write(dir.join("kernel.txt"), dense.workload.to_string()).expect("room");
    let all = space(dense.workload.kernel(), &Machine::of(&native()));

    let listed = ok(dir, &["space", "kernel.txt", "--list"]).out;
    assert_eq!(listed.lines().count(), all.len());
    let shown = ok(dir, &["space", "kernel.txt"]).out;
    assert!(
        shown.contains("tile{left={0 | 1}, rows={") && shown.contains("grain="),
        "{shown}"
    );
    let json: Value = serde_json::from_str(&ok(dir, &["space", "kernel.txt", "--json"]).out).expect("JSON");
    assert_eq!(json["schedules"].as_array().map(Vec::len), Some(all.len()));
    assert!(
        ok(dir, &["space", "kernel.txt", "--target", "sm_80"])
            .out
            .contains("gpu-tile{")
    );

    let bench = |more: &[&str]| {
        let all = [&["bench", "kernel.txt", "--seconds", "0.05"], more].concat();
        brolga(dir, &all)
    };
    let missing = bench(&[]);
    assert_eq!(missing.status, 2);
    assert!(
        missing
            .err
            .contains("the symbol `n0` has no value; give it one with --at n0=N"),
        "{}",
        missing.err
    );
    assert!(bench(&["--at", "m=1"]).err.contains("the kernel has the symbols n0"));
    let timed = bench(&[
        "--at",
        "n0=8",
        "--threads",
        "1",
        "--json",
        "--schedule",
        &all[0].to_string(),
        "--schedule",
        &all[1].to_string(),
    ]);
    assert_eq!(timed.status, 0, "{}", timed.err);
    let json: Value = serde_json::from_str(&timed.out).expect("JSON");
    let schedules = json["schedules"].as_array().expect("both");
    assert_eq!(schedules.len(), 2);
    // 8 rows of 128 products for 160 columns, and an epilogue.
    assert!(
        schedules[0]["operations"].as_f64() >= Some(2.0 * 8.0 * 128.0 * 160.0),
        "{json:#}"
    );
    let text = bench(&["--at", "n0=8"]);
    assert!(
        text.out.contains("GFLOP/s") && text.out.contains("of the roofline"),
        "{}",
        text.out
    );
    let wrong = bench(&["--at", "n0=8", "--schedule", "copy{grain=1}"]);
    assert_eq!(wrong.status, 2);
    assert!(wrong.err.contains("its schedule is not legal: copy: "), "{}", wrong.err);
}

/// For a GPU nothing is run: what is kept is predicted, says so, and is applied to PTX.
#[test]
fn candidates_for_a_gpu_are_ranked() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dir, model) = (dir.path(), digits());
    let at = [
        "--target", "sm_90", "--at", "batch=64", "--budget", "20s", "--trials", "60", "--json",
    ];
    let report = json(dir, &[&["tune", arg(&model), "-o", "h100.tune"], &at[..]].concat());
    assert_eq!(report["predicted"], true, "{report}");
    assert!(report["candidates"].as_u64() > Some(50), "{report}");
    assert!(report["kept"].as_u64() > Some(0), "{report}");
    assert!(report["ratio"].as_f64() < Some(1.0), "{report}");
    let records = Log::read(&dir.join("h100.tune")).expect("records");
    for line in &records.lines {
        match line {
            Line::Trial(place, t) => {
                assert!(place.predicted() && place.target == "sm_90", "{place:?}");
                assert!(t.check == PREDICTED || t.outcome == Outcome::Refused, "{t:?}");
            }
            Line::Kept(place, k) => assert!(place.predicted() && k.schedule.contains("gpu-"), "{k:?}"),
            _ => {}
        }
    }
    let emit = ["emit", arg(&model), "--stage", "ptx", "--target", "sm_90"];
    let ptx = |tune: &[&str]| ok(dir, &[&emit[..], tune].concat()).out;
    let (before, after) = (ptx(&[]), ptx(&["--tune", "h100.tune"]));
    assert_ne!(before, after);
    assert_eq!(after, ptx(&["--tune", "h100.tune"]));
    let verified = ok(dir, &["tune", "verify", "h100.tune"]).out;
    assert!(
        verified.ends_with("0 failed, 0 of other machines left out\n"),
        "{verified}"
    );
    // A CPU takes none of it, and says why.
    let compiled = ok(dir, &["compile", arg(&model), "--tune", "h100.tune", "-o", "model.o"]);
    assert!(
        compiled.err.contains("records of another machine only"),
        "{}",
        compiled.err
    );
}
