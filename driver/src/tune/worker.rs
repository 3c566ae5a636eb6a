//! Candidates are compiled and timed in a process of their own: one that crashes, hangs or takes all memory is a candidate lost,
//! and no more.
//!
//! ```text
//! tuner                                            worker
//!   {"job": {workload, sizes, threads, …}}  ──▶      makes code by the incumbent, times it
//!                                           ◀──    {"ready": seconds}
//!   {"try": schedule}                       ──▶      makes code
//!                                           ◀──    {"compiled": seconds}
//!                                                    compares results, runs both in turn until it is decided
//!                                           ◀──    {"done": {outcome, check, pairs, …}}
//!   {"take": schedule}                      ──▶      the schedule is the incumbent from now on
//! ```
//!
//! Messages are lines of JSON over the worker's standard input and output. The tuner waits for each answer for as long as it
//! may reasonably take, then ends the worker and begins with a new one.

use super::agree::agree;
use super::duel::{Duel, Verdict, median};
use super::record::Outcome;
use crate::kernels::Workload;
use crate::kernels::rig::{Handle, Rig};
use brolga_ir::Target;
use brolga_ir::schedule::Schedule;
use brolga_runtime::Pool;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What candidates are candidates for.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// The kernel.
    pub workload: Workload,
    /// The values of its symbols.
    pub sizes: Vec<i64>,
    /// The target's name.
    pub target: String,
    /// Threads that run it.
    pub threads: u32,
    /// Bytes of copies of its constants: as many as the model has constants, so that they are as far away as there.
    pub spread: u64,
    /// Bytes that its operands may take.
    pub limit: u64,
    /// The schedule whose results candidates have to have.
    pub chosen: Schedule,
}

/// How a candidate did.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// What became of it.
    pub outcome: Outcome,
    /// How its results agreed, or what went wrong.
    pub check: String,
    /// Seconds of the incumbent and of the candidate, in turn.
    pub pairs: Vec<(f64, f64)>,
    /// Seconds to make its code.
    pub compile: f64,
}

impl Measured {
    pub(super) fn lost(outcome: Outcome, check: String) -> Measured {
        Measured {
            outcome,
            check,
            pairs: vec![],
            compile: 0.0,
        }
    }

    /// The candidate's time over the incumbent's.
    pub fn ratio(&self) -> Option<f64> {
        median(self.pairs.iter().map(|(a, b)| b / a))
    }
}

/// Whoever times candidates: a worker, or something else in tests.
pub trait Measure {
    /// Begins with a job, whose incumbent is this schedule; gives its seconds.
    ///
    /// # Errors
    /// When there is no code for it, or no memory.
    fn start(&mut self, job: &Job, incumbent: &Schedule) -> Result<f64, String>;

    /// Times a candidate against the incumbent of the job that was started last.
    fn trial(&mut self, candidate: &Schedule) -> Measured;

    /// Makes a candidate that was tried the incumbent.
    fn take(&mut self, candidate: &Schedule);
}

/// How often a worker is to go wrong, for tests of whoever has one: one candidate in so many, 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// It ends.
    pub crash: u64,
    /// It never answers.
    pub hang: u64,
    /// The candidate's results are wrong.
    pub wrong: u64,
}

impl Faults {
    /// Reads `crash=300,hang=500,wrong=200`.
    ///
    /// # Errors
    /// Where the text is none.
    pub fn parse(text: &str) -> Result<Faults, String> {
        let mut out = Faults::default();
        for part in text.split(',') {
            let (name, n) = part.split_once('=').ok_or("expected NAME=N")?;
            let n = n.parse().map_err(|_| format!("`{n}` is no number"))?;
            match name {
                "crash" => out.crash = n,
                "hang" => out.hang = n,
                "wrong" => out.wrong = n,
                _ => return Err(format!("found `{name}`, expected crash, hang or wrong")),
            }
        }
        Ok(out)
    }

    fn text(self) -> String {
        format!("crash={},hang={},wrong={}", self.crash, self.hang, self.wrong)
    }
}

/// Whether the candidate of this number is one in `n`.
fn one_in(n: u64, number: u64) -> bool {
    n > 0 && number % n == n - 1
}

/// A worker process.
pub struct Worker {
    command: Vec<String>,
    faults: Faults,
    process: Option<Process>,
    job: Option<(Job, Schedule)>,
    /// Seconds of the job's incumbent.
    seconds: f64,
    tried: u64,
}

struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

/// How long making code of a candidate may take.
const COMPILE: Duration = Duration::from_secs(20);
/// How long a run may take beyond some times what the incumbent takes.
const RUN: Duration = Duration::from_secs(1);
/// Runs of the incumbent that comparing and timing a candidate may take.
const RUNS: f64 = 400.0;
/// How long a worker may take until it is ready for a job.
const START: Duration = Duration::from_secs(120);
/// A sample is at least this long: a kernel that takes less is run several times for one.
const SAMPLE: f64 = 20e-6;
/// A candidate that takes so many times as long as the incumbent when it is first run is no faster however near its constants are.
const SLOW: f64 = 3.0;
/// Samples of the incumbent before anything is tried.
const FIRST: usize = 7;

impl Worker {
    /// A worker that is started with this command line, which has to call [`serve`].
    pub fn new(command: Vec<String>, faults: Faults) -> Worker {
        Worker {
            command,
            faults,
            process: None,
            job: None,
            seconds: 0.0,
            tried: 0,
        }
    }

    fn process(&mut self) -> Result<&mut Process, String> {
        if self.process.is_none() {
            let (program, arguments) = self.command.split_first().ok_or("no command for workers")?;
            let mut command = Command::new(program);
            command
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            if self.faults != Faults::default() {
                command.args(["--inject", &self.faults.text(), "--tried", &self.tried.to_string()]);
            }
            // What interrupts the tuner is not the worker's to answer.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
            let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(format!("{program}: no pipes"));
            };
            let (sender, lines) = channel();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
            self.process = Some(Process { child, input, lines });
        }
        self.process.as_mut().ok_or_else(|| "no worker".into())
    }

    /// Sends a message.
    fn send(&mut self, message: &Value) -> Result<(), String> {
        let process = self.process()?;
        let sent = writeln!(process.input, "{message}").and_then(|()| process.input.flush());
        sent.map_err(|e| e.to_string())
    }

    /// The next message.
    fn receive(&mut self, within: Duration) -> Result<Value, (Outcome, String)> {
        let Some(process) = &mut self.process else {
            return Err((Outcome::Crashed, "there is no worker".into()));
        };
        match process.lines.recv_timeout(within) {
            Ok(line) => {
                serde_json::from_str(&line).map_err(|e| (Outcome::Crashed, format!("it answers `{line}`: {e}")))
            }
            Err(RecvTimeoutError::Timeout) => {
                Err((Outcome::Hung, format!("no answer within {:.1} s", within.as_secs_f64())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = process.child.wait();
                Err((
                    Outcome::Crashed,
                    status.map_or_else(|e| e.to_string(), |s| s.to_string()),
                ))
            }
        }
    }

    /// Ends the process; the next message begins another.
    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }

    /// Begins the job again with a new process.
    fn again(&mut self) -> Result<f64, String> {
        let Some((job, incumbent)) = self.job.clone() else {
            return Err("no job was started".into());
        };
        let message = json!({"job": {
            "workload": job.workload.to_string(), "sizes": job.sizes, "target": job.target, "threads": job.threads,
            "spread": job.spread, "limit": job.limit, "chosen": job.chosen.to_string(), "incumbent": incumbent.to_string(),
        }});
        let begin = |w: &mut Worker| -> Result<f64, String> {
            w.send(&message)?;
            let answer = w.receive(START).map_err(|(_, why)| why)?;
            match (answer["ready"].as_f64(), answer["error"].as_str()) {
                (Some(seconds), _) => Ok(seconds),
                (None, Some(e)) => Err(e.to_owned()),
                (None, None) => Err(format!("a worker answers `{answer}`")),
            }
        };
        let begun = begin(self);
        if begun.is_err() {
            self.end();
        }
        begun
    }
}

impl Measure for Worker {
    fn start(&mut self, job: &Job, incumbent: &Schedule) -> Result<f64, String> {
        self.job = Some((job.clone(), incumbent.clone()));
        self.seconds = self.again()?;
        Ok(self.seconds)
    }

    fn trial(&mut self, candidate: &Schedule) -> Measured {
        if self.process.is_none()
            && let Err(e) = self.again()
        {
            return Measured::lost(Outcome::Crashed, format!("no worker for it: {e}"));
        }
        self.tried += 1;
        let measured = self.exchange(candidate);
        measured.unwrap_or_else(|(outcome, why)| {
            self.end();
            Measured::lost(outcome, why)
        })
    }

    fn take(&mut self, candidate: &Schedule) {
        if let Some((_, incumbent)) = &mut self.job {
            incumbent.clone_from(candidate);
        }
        // A worker that does not take it begins again with it.
        if self.process.is_some() && self.send(&json!({"take": candidate.to_string()})).is_err() {
            self.end();
        }
    }
}

impl Worker {
    fn exchange(&mut self, candidate: &Schedule) -> Result<Measured, (Outcome, String)> {
        let crashed = |e| (Outcome::Crashed, e);
        self.send(&json!({"try": candidate.to_string()})).map_err(crashed)?;
        let compiled = self.receive(COMPILE)?;
        let Some(compile) = compiled["compiled"].as_f64() else {
            let why = compiled["refused"].as_str().unwrap_or_default();
            return Ok(Measured::lost(Outcome::Refused, why.to_owned()));
        };
        let answer = self.receive(RUN + Duration::from_secs_f64(RUNS * self.seconds.clamp(0.0, 10.0)))?;
        let done = &answer["done"];
        let outcome = done["outcome"].as_str().and_then(Outcome::by_name);
        let pair = |p: &Value| Some((p[0].as_f64()?, p[1].as_f64()?));
        let pairs = done["pairs"].as_array().and_then(|all| all.iter().map(pair).collect());
        match (outcome, pairs, done["check"].as_str()) {
            (Some(outcome), Some(pairs), Some(check)) => Ok(Measured {
                outcome,
                check: check.to_owned(),
                pairs,
                compile,
            }),
            _ => Err((Outcome::Crashed, format!("it answers `{answer}`"))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves a tuner over standard input and output, until the input ends.
///
/// # Errors
/// When the output is closed.
pub fn serve(faults: Faults, mut tried: u64) -> std::io::Result<()> {
    // Where memory runs out, Linux ends this process before the tuner.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut bench: Option<Bench> = None;
    for line in std::io::stdin().lock().lines() {
        let message: Value = match serde_json::from_str(&line?) {
            Ok(m) => m,
            Err(e) => {
                say(&json!({"error": format!("no JSON: {e}")}))?;
                continue;
            }
        };
        if !message["job"].is_null() {
            // The memory of the job before is free first.
            drop(bench.take());
            match Bench::begin(&message["job"]) {
                Ok(mut b) => {
                    let seconds = b.first();
                    say(&json!({"ready": seconds}))?;
                    bench = Some(b);
                }
                Err(e) => say(&json!({"error": e}))?,
            }
            continue;
        }
        let Some(b) = &mut bench else {
            say(&json!({"error": "no job"}))?;
            continue;
        };
        if let Some(schedule) = message["try"].as_str() {
            let start = Instant::now();
            match add(&mut b.rig, schedule) {
                Err(e) => say(&json!({"refused": e}))?,
                Ok(candidate) => {
                    say(&json!({"compiled": start.elapsed().as_secs_f64()}))?;
                    if one_in(faults.crash, tried) {
                        std::process::abort();
                    }
                    while one_in(faults.hang, tried) {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                    let done = b.decide(candidate, one_in(faults.wrong, tried));
                    say(&json!({"done": done}))?;
                    b.rig.pop();
                }
            }
            tried += 1;
        } else if let Some(schedule) = message["take"].as_str()
            && let Err(e) = b.take(schedule)
        {
            say(&json!({"error": e}))?;
        }
    }
    Ok(())
}

fn say(message: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{message}")?;
    out.flush()
}

fn add(rig: &mut Rig, schedule: &str) -> Result<Handle, String> {
    let schedule: Schedule = schedule.parse().map_err(|e| format!("{schedule}: {e}"))?;
    rig.add(Some(schedule)).map_err(|e| e.to_string())
}

/// A job on the worker's side.
struct Bench {
    rig: Rig,
    sizes: Vec<i64>,
    incumbent: Handle,
    reference: Vec<(usize, Vec<u8>)>,
    /// Runs of a sample.
    repeats: u32,
}

impl Bench {
    fn begin(job: &Value) -> Result<Bench, String> {
        let text = |name: &str| job[name].as_str().ok_or_else(|| format!("a job without `{name}`"));
        let number = |name: &str| job[name].as_u64().ok_or_else(|| format!("a job without `{name}`"));
        let (workload, _) = Workload::parse(text("workload")?)?;
        let sizes: Option<Vec<i64>> = job["sizes"]
            .as_array()
            .and_then(|a| a.iter().map(Value::as_i64).collect());
        let sizes = sizes.ok_or("a job without `sizes`")?;
        let target = Target::by_name(text("target")?).ok_or("a job for an unknown target")?;
        let threads = number("threads")? as usize;
        pin(threads);
        let pool = Pool::shared(threads);
        let mut rig = Rig::new(workload, &sizes, &target, pool, number("spread")?, number("limit")?)
            .map_err(|e| e.to_string())?;
        let (chosen, incumbent) = (text("chosen")?, text("incumbent")?);
        let reference = add(&mut rig, chosen).map(|h| rig.results(h))?;
        rig.clear();
        let incumbent = add(&mut rig, incumbent)?;
        Ok(Bench {
            rig,
            sizes,
            incumbent,
            reference,
            repeats: 1,
        })
    }

    /// The incumbent's seconds.
    fn first(&mut self) -> f64 {
        let incumbent = self.incumbent;
        let one = median((0..FIRST).map(|_| self.time(incumbent))).unwrap_or(0.0);
        self.repeats = (SAMPLE / one.max(1e-9)).ceil().clamp(1.0, 1000.0) as u32;
        median((0..FIRST).map(|_| self.time(incumbent))).unwrap_or(0.0)
    }

    fn take(&mut self, schedule: &str) -> Result<(), String> {
        self.rig.clear();
        self.incumbent = add(&mut self.rig, schedule)?;
        Ok(())
    }

    /// Seconds of a run.
    fn time(&mut self, which: Handle) -> f64 {
        let start = Instant::now();
        for _ in 0..self.repeats {
            self.rig.run(which);
        }
        start.elapsed().as_secs_f64() / f64::from(self.repeats)
    }

    /// Compares a candidate with what it has to compute, then times it beside the incumbent.
    fn decide(&mut self, candidate: Handle, spoilt: bool) -> Value {
        let mut found = self.rig.results(candidate);
        if spoilt && let Some(byte) = found.first_mut().and_then(|(_, b)| b.last_mut()) {
            *byte ^= 0x7f;
        }
        let agreement = match agree(self.rig.workload(), &self.sizes, &self.reference, &found) {
            Ok(a) => a,
            Err(e) => return json!({"outcome": Outcome::Wrong.name(), "check": e, "pairs": []}),
        };
        let mut duel = Duel::new();
        let incumbent = self.incumbent;
        // What was made just now is still near: both go through all copies once, so that both find theirs as far away. What is much slower
        // need not.
        if self.time(candidate) < SLOW * self.time(incumbent) {
            for _ in 1..self.rig.copies() {
                self.rig.run(incumbent);
                self.rig.run(candidate);
            }
        }
        let outcome = loop {
            // Each is the first one as often as the other.
            let (a, b) = match duel.pairs().len() % 2 {
                0 => {
                    let a = self.time(incumbent);
                    (a, self.time(candidate))
                }
                _ => {
                    let b = self.time(candidate);
                    (self.time(incumbent), b)
                }
            };
            match duel.pair(a, b) {
                Verdict::Open => {}
                Verdict::Faster => break Outcome::Faster,
                Verdict::NotFaster => break Outcome::NotFaster,
            }
        };
        let pairs: Vec<[f64; 2]> = duel.pairs().iter().map(|(a, b)| [*a, *b]).collect();
        json!({"outcome": outcome.name(), "check": agreement.name(), "pairs": pairs})
    }
}

/// Keeps this process and its threads on the first cores that it may be on, so that neither wanders off.
#[cfg(target_os = "linux")]
fn pin(threads: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(all) = sched_getaffinity(None) else { return };
    let mut own = CpuSet::new();
    let usable = (0..CpuSet::MAX_CPU).filter(|&c| all.is_set(c));
    usable.take(threads.max(1)).for_each(|c| own.set(c));
    // Where the system does not let it, threads wander.
    let _ = sched_setaffinity(None, &own);
}

/// Other systems place threads themselves.
#[cfg(not(target_os = "linux"))]
fn pin(_: usize) {}
