//! `brolga tune`: better schedules for a model's kernels; and what is done with its records.

use super::watch::WatchArgs;
use super::{CompileArgs, Failure, Outcome, note, print, print_to, size, time, warning};
use brolga::tune::record::{Line, Log, Outcome as Fate, Place, database};
use brolga::tune::worker::{Faults, Job, Measure, Worker, serve};
use brolga::tune::{Event, Home, Model, Ranked, Sessions, Settings, Task};
use brolga::{Error, ir};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Search better schedules for a model's kernels, on this machine
///
/// Every kernel's schedule is data: `brolga emit --stage structured` after the pass `choose` prints it. Tuning tries others, each in
/// a process of its own, keeps what is faster by more than the noise and computes the same, and writes it down when the whole
/// model is faster with it. The records are lines of JSON, which `brolga compile --tune` and `brolga run --tune` apply. For a GPU
/// nothing is run: the cost model ranks candidates.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Ctrl-C ends the search and keeps what was found; a second one ends the command. Called again with the same output, it goes on
where it ended.

Examples:
  brolga tune model.onnx -o model.tune
  brolga tune model.onnx && brolga compile model.onnx --tuned -o model.o
  brolga tune model.onnx -o model.tune --budget 60s --threads 2 --at batch=8
  brolga tune model.onnx --list
  brolga tune model.onnx -o h100.tune --target sm_90
  brolga compile model.onnx --tune model.tune -o model.o
  brolga tune show model.tune"
)]
pub struct Tune {
    #[command(subcommand)]
    log: Option<LogCommand>,
    /// The model: ONNX, or the printed text of any level down to structured kernels
    #[arg(required = true)]
    model: Option<PathBuf>,
    /// The records, else the user's own ones; those that are there already are kept, and the search begins with them
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time the kernels and print them, and search nothing
    #[arg(long)]
    list: bool,
    /// Leave out the whole model: what is found is recorded, and nothing of it to be applied
    #[arg(long)]
    search_only: bool,
    /// All of the time that it may take: 90s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    budget: Duration,
    /// Candidates of one kernel, at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    trials: usize,
    /// Threads that run the model; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Size of a symbolic dimension to time at, such as seq=128 (may be repeated); the records are for all sizes
    #[arg(long, value_name = "SYMBOL=N", value_parser = size)]
    at: Vec<(String, i64)>,
    /// Records of other models or machines, whose schedules are tried first (may be repeated)
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Only this kernel (may be repeated)
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// What the search's chances depend on: the same seed and the same times give the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// For tests: one candidate in so many crashes, hangs or is wrong
    #[arg(long, hide = true, value_parser = Faults::parse)]
    inject: Option<Faults>,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

/// What is done with records
#[derive(Subcommand)]
enum LogCommand {
    /// Sum up records: kernels, candidates, what became of them
    Show {
        /// Records, else the user's own ones
        files: Vec<PathBuf>,
    },
    /// Print the best schedule of each kernel on this machine, or on that of the records
    Best {
        /// Records, else the user's own ones
        files: Vec<PathBuf>,
        /// Those of every machine, not of this one alone
        #[arg(long)]
        all: bool,
    },
    /// Tell which kept schedules two files do not have in common
    Diff {
        /// Records
        left: PathBuf,
        /// Others
        right: PathBuf,
    },
    /// Put records together, each once
    Merge {
        /// Records
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Compile every kept schedule again, and check and time it
    Verify {
        /// Records, else the user's own ones
        files: Vec<PathBuf>,
    },
    /// Write candidates as comma-separated values
    Export {
        /// Records, else the user's own ones
        files: Vec<PathBuf>,
        /// The file to write instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Time candidates for `brolga tune`, over standard input and output
#[derive(Args)]
pub struct Serve {
    #[arg(long, value_parser = Faults::parse)]
    inject: Option<Faults>,
    #[arg(long, default_value_t = 0)]
    tried: u64,
}

impl Serve {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        match serve(self.inject.unwrap_or_default(), self.tried) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }
}

/// A time with its unit: 90s, 5m, 1h.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let number: f64 = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
    let seconds = match unit {
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit `{unit}`, expected s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is no time"))
}

/// A worker process of this executable.
fn worker(faults: Option<Faults>) -> Result<Worker, Failure> {
    let own = std::env::current_exe()?;
    let command = vec![own.to_string_lossy().into_owned(), "tune-worker".into()];
    Ok(Worker::new(command, faults.unwrap_or_default()))
}

/// The file of the user's own records, in a folder that is there.
fn own_records() -> Result<PathBuf, Failure> {
    let file = database()?;
    if let Some(folder) = file.parent() {
        brolga::output::folder(folder)?;
    }
    Ok(file)
}

/// The records of some files; of the user's own one where none is named.
fn read_or_own(files: &[PathBuf]) -> Result<Log, Failure> {
    match files {
        [] => Ok(Log::of_user()?),
        files => read(files),
    }
}

fn read(files: &[PathBuf]) -> Result<Log, Failure> {
    let mut all = Log::default();
    for path in files {
        all.lines.extend(Log::read(path)?.lines);
    }
    Ok(all)
}

impl Tune {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        if let Some(command) = self.log {
            return command.run();
        }
        let Some(model) = &self.model else {
            return Err("give a model".into());
        };
        if self.compile.has_records() {
            return Err("--tune and --tuned apply records; to begin with them, give --from".into());
        }
        let (options, watch) = self.watch.watched(&self.compile)?;
        let output = match &self.output {
            _ if self.list => None,
            Some(output) => Some(output.clone()),
            None => Some(own_records()?),
        };
        let mut from = read(&self.from)?;
        if let Some(output) = output.as_ref().filter(|o| o.exists()) {
            from.lines.extend(Log::read(output)?.lines);
        }
        let settings = Settings {
            budget: self.budget,
            trials: self.trials,
            threads: self.threads,
            sizes: self.at.clone(),
            only: self.kernel.clone(),
            from,
            seed: self.seed,
        };
        let target = options.target.clone();
        // Of what is timed by nobody the cost model tells, kernels and whole models.
        let (mut ranked, mut worker) = (Ranked::of(&target, &self.at), worker(self.inject)?);
        let mut whole_ranked = Ranked::of(&target, &self.at);
        let is_predicted = ranked.is_some();
        let measure: &mut dyn Measure = match &mut ranked {
            Some(r) => r,
            None => &mut worker,
        };
        if is_predicted {
            note(&format!(
                "nothing is run: the cost model ranks candidates for {}",
                target.name
            ));
        }
        let subject = Model::read(model, &options, &settings)?;
        if let Some(watch) = watch {
            watch.finish(None, None);
        }
        let options = options.unwatched();
        let Some(output) = &output else {
            let tasks = subject.tasks(&settings, measure)?;
            return print(&if self.json { list_json(&tasks) } else { list(&tasks) });
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        })?;
        let mut out = Output::open(output)?;
        let mut show = Show::new(self.budget);
        let mut home = Sessions {
            options,
            sizes: self.at.clone(),
            threads: self.threads,
            time: self.budget.mul_f64(0.1).max(Duration::from_secs(2)),
        };
        let mut failed = None;
        let home: Option<&mut dyn Home> = match &mut whole_ranked {
            _ if self.search_only => None,
            Some(r) => Some(r),
            None => Some(&mut home),
        };
        let result = subject.tune(&settings, measure, home, &mut |event| {
            if let Event::Tried(task, _, line) = &event {
                let lines = [Line::Workload(task.found.workload.clone()), (*line).clone()];
                failed = failed.take().or(out.add(&lines).err());
            }
            show.event(&event);
            failed.is_none() && !interrupted.load(Ordering::Relaxed)
        });
        show.end();
        if let Some(e) = failed {
            return Err(e);
        }
        let lines = result?;
        out.add(&lines)?;
        let Some(Line::Model(_, summary)) = lines.last() else {
            note(&format!("{} candidates of {} kernels", show.tried, show.kernels));
            return Ok(());
        };
        if self.json {
            let report = serde_json::json!({
                "model": summary.model, "untuned": summary.untuned, "ratio": summary.ratio, "kept": summary.kept,
                "decided": summary.decided, "predicted": is_predicted, "candidates": show.tried, "seconds": show.start.elapsed().as_secs_f64(), "output": output,
            });
            return print(&format!("{report:#}\n"));
        }
        let tuned = summary.untuned * summary.ratio;
        print(&match summary.kept + summary.decided {
            0 => format!(
                "{}: {} candidates, none {} the model faster than {}\n",
                summary.model,
                show.tried,
                if is_predicted { "is predicted to make" } else { "makes" },
                time(summary.untuned)
            ),
            _ => format!(
                "{}: {}{} for {} ({:.3} of the time), {} kernels of {} with another schedule, {} other decisions, {} candidates\n\
                 apply it: brolga {} {}\n",
                summary.model,
                if is_predicted { "predicted " } else { "" },
                time(tuned),
                time(summary.untuned),
                summary.ratio,
                summary.kept,
                show.kernels,
                summary.decided,
                show.tried,
                match is_predicted {
                    true => format!("emit {} --target {} --stage ptx", model.display(), target.name),
                    false => format!("compile {} -o model.o", model.display()),
                },
                match &self.output {
                    Some(output) => format!("--tune {}", output.display()),
                    None => "--tuned".into(),
                }
            ),
        })
    }
}

/// Kernels and their times, for people.
fn list(tasks: &[Task]) -> String {
    let row = |t: &Task| {
        format!(
            "{:>10} {:>6.1} %  {:>3} calls  @{}  {}\n",
            time(t.seconds * t.found.calls as f64),
            100.0 * t.share,
            t.found.calls,
            t.found.name,
            t.chosen
        )
    };
    tasks.iter().map(row).collect()
}

fn list_json(tasks: &[Task]) -> String {
    let row = |t: &Task| {
        serde_json::json!({
            "kernel": t.found.name, "workload": t.found.workload.key(), "seconds": t.seconds, "calls": t.found.calls,
            "share": t.share, "schedule": t.chosen.to_string(), "nodes": t.found.nodes.iter().map(|n| &**n).collect::<Vec<_>>(),
        })
    };
    format!(
        "{:#}\n",
        serde_json::Value::from(tasks.iter().map(row).collect::<Vec<_>>())
    )
}

/// The file that records are added to, line by line, so that what was found is there whatever happens.
struct Output {
    file: File,
    path: PathBuf,
    written: Vec<String>,
}

impl Output {
    fn open(path: &Path) -> Result<Output, Failure> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|e| Error::io(path, e))?;
        // A line that was not finished stays alone.
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        if text.last().is_some_and(|b| *b != b'\n') {
            file.write_all(b"\n").map_err(|e| Error::io(path, e))?;
        }
        Ok(Output {
            file,
            path: path.to_owned(),
            written: vec![],
        })
    }

    /// Adds lines; the text of a kernel once.
    fn add(&mut self, lines: &[Line]) -> Outcome {
        let mut text = String::new();
        for line in lines {
            if let Line::Workload(w) = line {
                if self.written.contains(&w.key()) {
                    continue;
                }
                self.written.push(w.key());
            }
            text += &line.text();
            text.push('\n');
        }
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|e| Error::io(&self.path, e))?;
        Ok(())
    }
}

/// What is shown meanwhile: a bar on a terminal, a line for each kernel elsewhere.
struct Show {
    bar: ProgressBar,
    start: Instant,
    tried: usize,
    kernels: usize,
    /// Of the model's time, what the kernels that were searched have gained.
    gained: f64,
}

impl Show {
    fn new(budget: Duration) -> Show {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(budget.as_millis() as u64),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg} (at most {eta} left)") {
            bar.set_style(style);
        }
        Show {
            bar,
            start: Instant::now(),
            tried: 0,
            kernels: 0,
            gained: 0.0,
        }
    }

    fn event(&mut self, event: &Event) {
        self.bar.set_position(self.start.elapsed().as_millis() as u64);
        let say = |text: String| match self.bar.is_hidden() {
            true => note(&text),
            false => self.bar.println(text),
        };
        match event {
            Event::Kernels(tasks) => {
                self.kernels = tasks.len();
                let all: f64 = tasks.iter().map(|t| t.seconds * t.found.calls as f64).sum();
                say(format!("{} kernels, {} together", tasks.len(), time(all)));
            }
            Event::Kernel(t) => self.bar.set_message(self.message(t)),
            Event::Tried(t, ..) => {
                self.tried += 1;
                self.bar.set_message(self.message(t));
            }
            Event::Found(t, winner) => {
                let gain = winner.map_or(1.0, |w| w.gain);
                self.gained += t.share * (1.0 - gain);
                say(match winner {
                    Some(w) => format!("@{}: {:.2} of the time by {}", t.found.name, w.gain, w.schedule),
                    None => format!("@{}: the chosen schedule stays", t.found.name),
                });
            }
            Event::Programs(n) => self.bar.set_message(format!("other programs, by {n} decisions")),
            Event::Decided(decisions, gain) => {
                let all: Vec<String> = decisions.iter().map(ToString::to_string).collect();
                say(format!("{:.1} % less: {}", 100.0 * gain, all.join(", ")));
            }
            Event::Inside(n) => self.bar.set_message(format!("{n} kernels inside of the model")),
            Event::Home(decisions, n) => {
                let text = format!("the whole model with {decisions} decisions and {n} schedules");
                say(text.clone());
                self.bar.set_message(text);
            }
        }
    }

    fn message(&self, task: &Task) -> String {
        format!(
            "@{} ({:.0} % of the time), {} candidates, gain so far {:.1} %",
            task.found.name,
            100.0 * task.share,
            self.tried,
            100.0 * self.gained
        )
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl LogCommand {
    fn run(self) -> Outcome {
        match self {
            LogCommand::Show { files } => print(&show(&read_or_own(&files)?)),
            LogCommand::Best { files, all } => print(&best(&read_or_own(&files)?, all)?),
            LogCommand::Diff { left, right } => print(&diff(&read(&[left])?, &read(&[right])?)),
            LogCommand::Merge { files, output } => {
                let mut merged = Log::default();
                let mut seen: Vec<String> = vec![];
                for line in read(&files)?.lines {
                    let text = line.text();
                    if let Err(at) = seen.binary_search(&text) {
                        seen.insert(at, text);
                        merged.lines.push(line);
                    }
                }
                merged.write(&output)?;
                Ok(())
            }
            LogCommand::Verify { files } => verify(&read_or_own(&files)?),
            LogCommand::Export { files, output } => print_to(output.as_deref(), &export(&read_or_own(&files)?)),
        }
    }
}

/// Trials and what was kept, kernel by kernel.
fn show(log: &Log) -> String {
    let mut out = String::new();
    let trials = || {
        log.lines.iter().filter_map(|l| match l {
            Line::Trial(_, t) => Some(t),
            _ => None,
        })
    };
    let fates = [
        Fate::Faster,
        Fate::NotFaster,
        Fate::Wrong,
        Fate::Refused,
        Fate::Crashed,
        Fate::Hung,
    ];
    for (key, workload) in log.workloads() {
        let own = || trials().filter(|t| t.workload == key);
        let head = workload.kernel().to_string();
        let _ = writeln!(
            out,
            "{key}  {}",
            head.lines().next().unwrap_or_default().trim_end_matches(" {")
        );
        let counts = fates.map(|f| (own().filter(|t| t.outcome == f).count(), f.name()));
        let counts: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, name)| format!("{n} {name}"))
            .collect();
        let _ = writeln!(out, "  {} candidates: {}", own().count(), counts.join(", "));
        for (place, k) in log.kept(&key) {
            let _ = writeln!(
                out,
                "  kept {}: {:.3} of the time of {}\n    on {}, {} threads, for {}",
                k.schedule, k.ratio, k.instead, place.cpu, place.threads, place.target
            );
        }
    }
    for line in &log.lines {
        if let Line::Graph(place, c) = line {
            let decisions = c.decisions.join("\n  ");
            let _ = writeln!(out, "graph {}: decided on {}\n  {decisions}", c.graph, place.cpu);
        }
        if let Line::Model(place, m) = line {
            let _ = writeln!(
                out,
                "model {}: {} untuned, {:.3} of it tuned, {} kernels, {} decisions ({}, {} threads)",
                m.model,
                time(m.untuned),
                m.ratio,
                m.kept,
                m.decided,
                place.cpu,
                place.threads
            );
        }
    }
    out
}

/// The schedules that would be applied.
fn best(log: &Log, all: bool) -> Result<String, Failure> {
    let native =
        brolga::codegen::target::native().ok_or("this machine's architecture is none that Brolga makes code for")?;
    let here = Place::here(&native, 0);
    let mut out = String::new();
    let mut none = 0;
    for key in log.workloads().into_keys() {
        let mut places: Vec<&Place> = log.kept(&key).map(|(p, _)| p).collect();
        if !all {
            places = vec![&here];
        }
        places.sort();
        places.dedup_by(|a, b| a.target == b.target && a.cpu == b.cpu);
        for place in places {
            match log.best(&key, place) {
                Ok(k) => {
                    let _ = writeln!(out, "{key}  {:.3}  {}", k.ratio, k.schedule);
                }
                Err(_) => none += 1,
            }
        }
    }
    if none > 0 {
        note(&format!("{none} kernels have no kept schedule for this machine"));
    }
    Ok(out)
}

/// What was kept in one of two logs only.
fn diff(left: &Log, right: &Log) -> String {
    let kept = |log: &Log| -> Vec<String> {
        let own = log.lines.iter().filter_map(|l| match l {
            Line::Kept(p, k) => Some(format!("{}  {}  ({}, {})", k.workload, k.schedule, p.target, p.cpu)),
            Line::Graph(p, c) => Some(format!(
                "{}  {}  ({}, {})",
                c.graph,
                c.decisions.join(", "),
                p.target,
                p.cpu
            )),
            _ => None,
        });
        let mut all: Vec<String> = own.collect();
        all.sort();
        all.dedup();
        all
    };
    let (left, right) = (kept(left), kept(right));
    let only = |a: &[String], b: &[String], sign: &str| -> String {
        let own = a.iter().filter(|x| !b.contains(x));
        own.map(|x| format!("{sign} {x}\n")).collect()
    };
    only(&left, &right, "-") + &only(&right, &left, "+")
}

/// Compiles, checks and times what was kept for this machine.
fn verify(log: &Log) -> Outcome {
    let mut worker = worker(None)?;
    let workloads = log.workloads();
    let (mut good, mut bad, mut foreign) = (0, 0, 0);
    for line in &log.lines {
        let Line::Kept(place, k) = line else { continue };
        let target = ir::Target::by_name(&place.target);
        let here = target.as_ref().map(|t| Place::here(t, place.threads));
        if here.as_ref() != Some(place) {
            foreign += 1;
            continue;
        }
        let Some(workload) = workloads.get(&k.workload) else {
            warning(&format!("{}: its kernel's text is not among the records", k.workload));
            bad += 1;
            continue;
        };
        let chosen: ir::schedule::Schedule = k.instead.parse()?;
        let job = Job {
            workload: (*workload).clone(),
            sizes: k.sizes.clone(),
            target: place.target.clone(),
            threads: place.threads,
            spread: 0,
            limit: 16 << 30,
            chosen: chosen.clone(),
        };
        let mut ranked = target.and_then(|t| Ranked::of(&t, &[]));
        let measure: &mut dyn Measure = match &mut ranked {
            Some(r) => r,
            None => &mut worker,
        };
        let measured = measure
            .start(&job, &chosen)
            .map_err(|e| format!("{}: {e}", k.workload))
            .and_then(|_| Ok(measure.trial(&k.schedule.parse().map_err(|e| format!("{}: {e}", k.workload))?)));
        let measured = match measured {
            Ok(m) => m,
            Err(e) => {
                warning(&e);
                bad += 1;
                continue;
            }
        };
        let fine = matches!(measured.outcome, Fate::Faster | Fate::NotFaster);
        if fine {
            good += 1;
        } else {
            bad += 1;
        }
        let ratio = measured.ratio().map_or("not timed".to_owned(), |r| {
            format!("{r:.3} of the time, {:.3} in the record", k.ratio)
        });
        print(&format!(
            "{}  {} ({}): {ratio}\n",
            k.workload,
            measured.outcome.name(),
            measured.check
        ))?;
    }
    print(&format!(
        "{good} checked, {bad} failed, {foreign} of other machines left out\n"
    ))?;
    match bad {
        0 => Ok(()),
        _ => Err(Failure::Reported),
    }
}

/// Candidates as a table.
fn export(log: &Log) -> String {
    let mut out =
        "workload,target,cpu,threads,sizes,schedule,outcome,check,ratio,median,p10,p90,runs,compile\n".to_owned();
    let quoted = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
    for line in &log.lines {
        let Line::Trial(p, t) = line else { continue };
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        let [median, p10, p90] = t.seconds.map_or([None; 3], |s| s.map(Some)).map(number);
        let sizes: Vec<String> = t.sizes.iter().map(i64::to_string).collect();
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{median},{p10},{p90},{},{}",
            t.workload,
            p.target,
            quoted(&p.cpu),
            p.threads,
            quoted(&sizes.join(" ")),
            quoted(&t.schedule),
            t.outcome.name(),
            quoted(&t.check),
            number(t.ratio),
            t.runs,
            t.compile
        );
    }
    out
}
