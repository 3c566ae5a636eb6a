//! `brolga bench`: one kernel alone, by one schedule or by two in turn; or a folder's language model (`bench_folder`).

use super::{Failure, Outcome, ReadArgs, note, print, target, time};
use brolga::ir::program::Step;
use brolga::ir::schedule::Schedule;
use brolga::ir::{Symbol, Target};
use brolga::kernels::Workload;
use brolga::kernels::rig::Rig;
use brolga::machine;
use brolga::passes::cost::{self, Work};
use brolga::passes::schedule::{Machine, choose, to_loops};
use brolga::runtime::Pool;
use brolga::source::{self, Kind};
use brolga::tune::duel::quantile;
use clap::Args;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time one kernel alone, or what a language model takes
///
/// Of a folder of safetensors or a GGUF file, a prompt and the tokens behind it are timed with 1, 2, 4 … threads, in turn with a loop that reads memory:
/// decoding a token reads all weights, so that its share of that is how near it is to what the machine can do.
///
/// The kernel is a structured one, as `brolga emit --stage structured` prints it, with a line `constant o1` where an operand is a
/// constant of the model, which is packed once. It runs on random data of its types.
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga bench kernel.txt
  brolga bench kernel.txt --at n0=128 --threads 1
  brolga bench kernel.txt --schedule 'copy{grain=40000}' --schedule 'copy{grain=0}'
  brolga bench folder --prompt 512 --tokens 32")]
pub struct Bench {
    /// The kernel's text, a folder of safetensors, or a GGUF file
    pub(super) kernel: PathBuf,
    /// Its schedule, in place of the one in the text or the one that is chosen; a second one is run in turn with the first
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Vec<String>,
    /// Value of a symbol (may be repeated)
    #[arg(long, value_name = "SYMBOL=N", value_parser = super::size)]
    at: Vec<(String, i64)>,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) threads: usize,
    /// Tokens of a language model's prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) prompt: usize,
    /// Tokens behind it that are timed
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(super) tokens: usize,
    /// How long to go on
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Bytes of copies of the constants, which are taken in turn, as in a model with so many constants
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = super::bytes)]
    spread: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) read: ReadArgs,
    #[arg(long, alias = "cpu", value_name = "TARGET", value_parser = target, help = super::targets())]
    target: Option<Target>,
}

/// A schedule's times.
struct Timed {
    schedule: Schedule,
    work: Work,
    /// Seconds.
    times: Vec<f64>,
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let native = brolga::codegen::target::native();
        let target = self
            .target
            .clone()
            .or(native)
            .ok_or("this machine's architecture is none that Brolga makes code for")?;
        if source::kind(&self.kernel)? == Kind::Folder {
            return super::bench_folder::run(&self, &target);
        }
        self.read.rules.none_for_kernels()?;
        if self.schedule.len() > 2 {
            return Err("at most two schedules are run in turn".into());
        }
        let (workload, own) = Workload::read(&self.kernel)?;
        let text = brolga::source::text(&self.kernel)?;
        let sizes = self.sizes(&workload, &text)?;
        let machine = Machine::of(&target);
        let mut schedules = vec![];
        for s in &self.schedule {
            let schedule: Schedule = s.parse().map_err(|e| format!("--schedule {s}: {e}"))?;
            schedules.push(schedule);
        }
        if schedules.is_empty() {
            schedules.push(own.unwrap_or_else(|| choose(workload.kernel(), &machine)));
        }
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let mut rig = Rig::new(
            workload.clone(),
            &sizes,
            &target,
            Pool::shared(threads),
            self.spread,
            16 << 30,
        )?;
        let mut all = vec![];
        for schedule in schedules {
            let handle = rig.add(Some(schedule.clone()))?;
            let work = work(&workload, &schedule, &sizes, &machine)?;
            all.push((
                handle,
                Timed {
                    schedule,
                    work,
                    times: vec![],
                },
            ));
        }
        let budget = Duration::try_from_secs_f64(self.seconds).map_err(|_| "--seconds is no time")?;
        all.iter().for_each(|(h, _)| rig.run(*h));
        let start = Instant::now();
        loop {
            for (handle, timed) in &mut all {
                let start = Instant::now();
                rig.run(*handle);
                timed.times.push(start.elapsed().as_secs_f64());
            }
            if start.elapsed() >= budget {
                break;
            }
        }
        let (figures, why) = machine::figures(&target);
        why.iter().for_each(|w| note(w));
        let timed: Vec<Timed> = all.into_iter().map(|(_, t)| t).collect();
        if self.json {
            let rows: Vec<_> = timed.iter().map(|t| t.json(&figures, threads)).collect();
            return print(&format!(
                "{:#}\n",
                serde_json::json!({"kernel": workload.key(), "threads": threads, "schedules": rows})
            ));
        }
        let rows: Vec<String> = timed.iter().map(|t| t.text(&figures, threads)).collect();
        print(&rows.concat())
    }

    /// Values of the workload's symbols, by the names that they have in the file.
    fn sizes(&self, workload: &Workload, text: &str) -> Result<Vec<i64>, Failure> {
        let kernel: Vec<&str> = text
            .lines()
            .filter(|l| !l.trim_start().starts_with("constant o"))
            .collect();
        let kernel: brolga::ir::structured::Kernel = kernel.join("\n").parse().map_err(|e| format!("{e}"))?;
        let names: Vec<Symbol> = kernel.canonical().1;
        debug_assert_eq!(names.len(), workload.kernel().symbols.len());
        let given = |s: &str| self.at.iter().find(|(n, _)| n == s).map(|(_, n)| *n);
        if let Some((unknown, _)) = self.at.iter().find(|(n, _)| names.iter().all(|s| **s != **n)) {
            let known: Vec<&str> = names.iter().map(|s| &**s).collect();
            return Err(match known[..] {
                [] => format!("--at {unknown}: the kernel has no symbols").into(),
                _ => format!("--at {unknown}: the kernel has the symbols {}", known.join(", ")).into(),
            });
        }
        let value =
            |s: &Symbol| given(s).ok_or_else(|| format!("the symbol `{s}` has no value; give it one with --at {s}=N"));
        Ok(names.iter().map(value).collect::<Result<_, _>>()?)
    }
}

/// What a workload does by a schedule, all pieces together.
fn work(workload: &Workload, schedule: &Schedule, sizes: &[i64], machine: &Machine) -> Result<Work, Failure> {
    let program = to_loops(&workload.program(Some(schedule.clone())), machine)?;
    let symbols = &workload.kernel().symbols;
    let lookup = |s: &str| symbols.iter().position(|x| **x == *s).map(|i| sizes[i]);
    let of = |step: &Step| match step {
        Step::Call { kernel, .. } => cost::work(&program.kernels[*kernel as usize], &lookup),
        Step::Copy { rows: Some(rows), .. } => cost::copied(rows, &lookup),
        _ => Work::NONE,
    };
    Ok(program.steps.iter().map(of).fold(Work::NONE, |a, b| a + b))
}

impl Timed {
    fn quantile(&self, share: f64) -> f64 {
        quantile(self.times.iter().copied(), share).unwrap_or(0.0)
    }

    /// The share of what the machine can do at most, and whether arithmetic or memory limits it.
    fn roofline(&self, f: &brolga::ir::Figures, threads: usize) -> (f64, &'static str) {
        let peak = f.tiles[0].max(f.vectors) * threads.min(f.cores) as f64;
        let cache = f.caches.iter().find(|c| {
            let all = if c.shared { c.bytes } else { c.bytes * threads as f64 };
            self.work.bytes() <= all
        });
        let speed = cache.map_or(f.memory.at(threads), |c| c.speeds.at(threads));
        let (arithmetic, memory) = (self.work.ops() / peak, self.work.bytes() / speed);
        let floor = arithmetic.max(memory);
        let which = if arithmetic >= memory { "arithmetic" } else { "memory" };
        (floor / self.quantile(0.5).max(f64::MIN_POSITIVE), which)
    }

    fn text(&self, f: &brolga::ir::Figures, threads: usize) -> String {
        let t = self.quantile(0.5);
        let (share, roof) = self.roofline(f, threads);
        format!(
            "{}\n  median {}, from {} to {} (10th to 90th percentile of {} runs, {threads} threads)\n  \
             {:.2} GFLOP/s, {:.2} GB/s, {:.0} % of the roofline ({roof})\n",
            self.schedule,
            time(t),
            time(self.quantile(0.1)),
            time(self.quantile(0.9)),
            self.times.len(),
            self.work.ops() / t / 1e9,
            self.work.bytes() / t / 1e9,
            100.0 * share
        )
    }

    fn json(&self, f: &brolga::ir::Figures, threads: usize) -> serde_json::Value {
        let (share, roof) = self.roofline(f, threads);
        serde_json::json!({
            "schedule": self.schedule.to_string(),
            "seconds": {"median": self.quantile(0.5), "p10": self.quantile(0.1), "p90": self.quantile(0.9), "runs": self.times.len()},
            "operations": self.work.ops(), "bytes": self.work.bytes(), "roofline": share, "roof": roof,
        })
    }
}
