//! `brolga profile`: what each kernel of a model takes.

use super::inputs::{InputArgs, Ports, threads};
use super::watch::WatchArgs;
use super::{CompileArgs, Outcome, is_stdout, note, print, print_to, warning};
use brolga::profile::{Profiler, Runs};
use brolga::source::{self, Kind};
use brolga::{View, tensors};
use clap::Args;
use std::path::PathBuf;

/// Tell what each kernel of a model takes
#[derive(Args)]
#[command(after_help = "\
The model is compiled as ever, but for calls around each step that note the time; what they take is said. Kernels are sorted by their
share of the time. Columns: calls in a run; median, 10th and 90th percentile of a call; what is computed and moved in a second; the
part of what this machine could do at that (its roof), and what bounds it: tiles, vectors, a level of cache, memory; threads at work.
Roofs are those of `brolga machine`, where it has run, else of a common machine. Inputs are as those of `brolga run`.

Examples:
  brolga profile model.onnx
  brolga profile model.onnx --html profile.html
  brolga profile model.onnx --set batch=8 --threads 1 --all
  brolga profile model.onnx --trace trace.json --json")]
pub struct Profile {
    /// The model: ONNX, or the printed text of any level
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Run N times; without it, as often as takes a second, at least 5 times and at most 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Show all kernels, with their schedules and all nodes that they come from
    #[arg(long)]
    all: bool,
    /// Print JSON, with everything that is known
    #[arg(long)]
    json: bool,
    /// Write a trace for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write a page with roofline, timeline, memory and the code of each kernel
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Read the counters of CPU and system as well: cycles, instructions, cache misses, page faults
    #[arg(long)]
    counters: bool,
    /// Tell `perf` the names of kernels: write /tmp/perf-PID.map
    #[arg(long)]
    perf_map: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Profile {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        if [&self.trace, &self.html].into_iter().flatten().any(|p| is_stdout(p)) {
            return Err("standard output has the profile itself; give a file for --trace and --html".into());
        }
        let (mut options, watch) = self.watch.watched(&self.compile)?;
        options.perf_map = self.perf_map;
        if source::kind(&self.model)? == Kind::Program {
            // Symbols are settled; their sizes are those of the inputs.
            options.sizes = vec![];
            source::as_declared(&self.model, &options)?;
        }
        let profiler = Profiler::load(&self.model, &options, self.threads, self.html.is_some())?;
        self.watch.remark(profiler.session().remarks());
        if self.perf_map {
            note(&format!(
                "names of kernels for perf: {}",
                brolga::perf_map::path().display()
            ));
        }
        let strings = profiler.session().strings();
        strings.scope(|| {
            let session = profiler.session();
            let ports = Ports {
                inputs: session.inputs(),
                symbols: &session.meta().symbols,
                has_default: &|i| i.default.is_some(),
            };
            let inputs = self.inputs.tensors(&ports, &self.compile.model)?;
            let views: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
            let runs = Runs {
                runs: self.runs.map(|n| n as usize),
                counters: self.counters,
            };
            let profile = profiler.profile(&views, runs)?;
            if let Some(words) = &profile.warning {
                warning(words);
            }
            if let Some(path) = &self.trace {
                print_to(Some(path), &format!("{}\n", profile.trace()))?;
            }
            if let Some(path) = &self.html {
                print_to(Some(path), &profile.page())?;
            }
            let mut all = self.json.then(|| profile.json());
            if let Some(watch) = watch {
                watch.finish(Some(&session.timings()), all.as_mut());
            }
            match all {
                Some(all) => print(&format!("{all:#}\n")),
                None => print(&profile.text(self.all)),
            }
        })
    }
}
