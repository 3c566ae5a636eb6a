//! `brolga run`: a model or an artefact on inputs from files, compared with references, timed.

use super::compare::Comparison;
use super::device::Loaded;
use super::inputs::{InputArgs, Ports, tensor_file, threads};
use super::watch::{Watch, WatchArgs};
use super::{CompileArgs, Failure, Outcome, is_stdout, note, print, print_json, time};
use brolga::abi::Dim;
use brolga::ir::{DType, Number, Strings, Tensor, plain};
use brolga::source::{self, Kind};
use brolga::{Buffer, Error, View, npy, tensors};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Run a model or a compiled artefact
#[derive(Args)]
#[command(after_help = "\
Without any input, inputs are filled with reproducible pseudo-random numbers; --set then gives symbolic dimensions a size.
With inputs, --set has to agree with theirs.
Exit status: 0 on success, 1 when --expect finds a difference above --tolerance (with --bits, any), another dtype or shape, or a
name that only one side has, 2 on any error.

Examples:
  brolga run model.onnx --inputs inputs.npz --output outputs.npz
  brolga run model.onnx --input image=image.npy --input mask=mask.pb
  brolga run model.onnx --inputs inputs.npz --expect reference.npz --tolerance 1e-5
  brolga run model.onnx --set batch=8 --threads 1 --time 50
  brolga run folder --input input_ids=tokens.npy --output logits.npz
  brolga run model.brolga --inputs inputs.npz")]
pub struct Run {
    /// The model: ONNX, a folder of safetensors, a GGUF file, the printed text of any level, or a compiled artefact
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    /// Write the outputs, by name, to a .npz file, or to standard output (-); what is printed then goes to standard error
    #[arg(long, value_name = "FILE.npz")]
    output: Option<PathBuf>,
    /// Compare the outputs with those in a .npz file, or the only output with an ONNX tensor (.pb)
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The largest error, over the largest magnitude of an output, that --expect accepts
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = tolerance, requires = "expect")]
    tolerance: f64,
    /// Of --expect, accept the same bits only, but for those of NaN: zeros of the other sign differ
    #[arg(long, requires = "expect", conflicts_with = "tolerance")]
    bits: bool,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Run N times, and print the median, the spread, and the time of loading and compiling
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    time: Option<u32>,
    /// Where to run
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// Compile the model once more for the sizes of the inputs, and run that
    #[arg(long)]
    specialise: bool,
    /// Tell `perf` the names of kernels: write /tmp/perf-PID.map, as BROLGA_PERF_MAP=1 does for every program that uses Brolga
    #[arg(long)]
    perf_map: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Run {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let to_stdout = self.output.as_deref().is_some_and(is_stdout);
        if to_stdout && self.json {
            return Err("standard output can take one of --output and --json; give a file".into());
        }
        let (mut options, watch) = self.watch.watched(&self.compile)?;
        options.perf_map = self.perf_map;
        let kind = source::kind(&self.model)?;
        if kind == Kind::Folder {
            options.folder.with.extend(self.inputs.optional(&options.folder.with)?);
        }
        let lowered = matches!(kind, Kind::Artefact | Kind::Program);
        if lowered {
            // Symbols are settled; what is said of their sizes is compared with the inputs' below.
            options.sizes = vec![];
        }
        if lowered {
            source::as_declared(&self.model, &options)?;
        }
        if kind == Kind::Artefact {
            self.without_passes();
            if self.perf_map {
                note("--perf-map names code that is compiled here; an artefact's code has no names");
            }
        }
        let session = Loaded::load(&self.device, &self.model, options, self.threads, self.specialise)?;
        self.compile.say_tuned(&session.tuned());
        self.watch.remark(session.remarks());
        session.strings().scope(|| {
            let (ports, symbols) = session.inputs();
            let ports = Ports {
                inputs: ports,
                symbols: &symbols,
                has_default: &|i| session.has_default(i),
            };
            let inputs = self.inputs.tensors(&ports, &self.compile.model)?;
            if lowered {
                self.check_sizes(&session, &inputs)?;
            }
            self.run_on(&session, &inputs, watch.as_deref())
        })
    }

    /// Runs, and says what was asked for.
    fn run_on(&self, session: &Loaded, inputs: &[(String, Tensor)], watch: Option<&Watch>) -> Outcome {
        let to_stdout = self.output.as_deref().is_some_and(is_stdout);
        let views: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
        let start = Instant::now();
        let outputs = session.run_named(&views)?;
        let first = start.elapsed().as_secs_f64();
        for sizes in session.specialised() {
            let named = session.inputs().1.into_iter().zip(sizes);
            let sizes: Vec<String> = named.map(|(s, n)| format!("{s}={n}")).collect();
            note(&format!("ran a version for {}", sizes.join(" ")));
        }
        let named: Vec<(String, &Buffer)> = session.outputs().into_iter().zip(&outputs).collect();

        let mut times = vec![];
        for _ in 0..self.time.unwrap_or(0) {
            let start = Instant::now();
            session.run_named(&views)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        if let Some(path) = &self.output {
            let mut arrays: Vec<(String, Tensor)> = vec![];
            for (name, buffer) in &named {
                // A model may list an output twice; a file holds it once.
                if arrays.iter().all(|(n, _)| n != name) {
                    arrays.push((name.clone(), tensors::to_tensor(buffer)));
                }
            }
            npy::write_npz(path, &arrays)?;
        }
        let comparison = match &self.expect {
            Some(path) => Some(Comparison::new(
                &named,
                &self.references(path, session)?,
                (!self.bits).then_some(self.tolerance),
            )),
            None => None,
        };
        let report = Report {
            session,
            outputs: &named,
            comparison: comparison.as_ref(),
            first,
            times: &times,
        };
        let mut all = self.json.then(|| report.json());
        if let Some(watch) = watch {
            watch.finish(Some(&session.timings()), all.as_mut());
        }
        if let Some(all) = all {
            print_json(&all)?;
        } else if to_stdout {
            report.text().lines().for_each(note);
        } else {
            print(&report.text())?;
        }
        match comparison.is_none_or(|c| c.agrees()) {
            true => Ok(()),
            false => Err(Failure::Reported),
        }
    }

    /// Says which options are for passes that ran long before.
    fn without_passes(&self) {
        for option in [self.compile.of_passes(), self.watch.given()].concat() {
            note(&format!(
                "{}: it is compiled already; {option} changes nothing",
                self.model.display()
            ));
        }
    }

    /// Compares what --set says with the inputs.
    fn check_sizes(&self, session: &Loaded, inputs: &[(String, Tensor)]) -> Outcome {
        let (ports, symbols) = session.inputs();
        for (symbol, n) in &self.compile.model.sizes {
            let Some(at) = symbols.iter().position(|s| s == symbol) else {
                return Err(Error::file(
                    &self.model,
                    match &symbols[..] {
                        [] => format!("it has no symbolic dimension `{symbol}`; all its sizes are known"),
                        all => format!("it has no symbolic dimension `{symbol}`; it has `{}`", all.join("`, `")),
                    },
                )
                .into());
            };
            for port in ports {
                let Some((_, tensor)) = inputs.iter().find(|(name, _)| *name == port.name) else {
                    continue;
                };
                let mut extents = port.dims.iter().zip(tensor.shape());
                if let Some((_, found)) = extents.find(|(d, e)| **d == Dim::Symbol(at as u32) && **e as i64 != *n) {
                    return Err(format!(
                        "--set {symbol}={n}, but by input `{}`, of shape {:?}, `{symbol}` is {found}",
                        plain(&port.name),
                        tensor.shape()
                    )
                    .into());
                }
            }
        }
        Ok(())
    }

    /// The outputs that are expected, by name.
    fn references(&self, path: &Path, session: &Loaded) -> Result<Vec<(String, Tensor)>, Failure> {
        if path.extension().is_none_or(|e| e != "pb") {
            return Ok(npy::read_npz(path)?);
        }
        let outputs = session.outputs();
        let [output] = &outputs[..] else {
            let message = format!(
                "one tensor, but the model has {} outputs; give a .npz file",
                outputs.len()
            );
            return Err(Error::file(path, message).into());
        };
        Ok(vec![(
            output.clone(),
            tensor_file(path, self.compile.model.memory_limit)?,
        )])
    }
}

/// What the command prints.
struct Report<'a> {
    session: &'a Loaded,
    outputs: &'a [(String, &'a Buffer)],
    comparison: Option<&'a Comparison>,
    first: f64,
    /// Sorted.
    times: &'a [f64],
}

/// The value below which this share of sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut out = String::new();
        if self.comparison.is_none() && self.times.is_empty() {
            for (name, b) in self.outputs {
                let t = tensors::to_tensor(b);
                let few: Vec<String> = t.iter().take(8).map(|x| value(t.dtype(), x)).collect();
                let more = if t.len() > few.len() { ", …" } else { "" };
                out += &format!(
                    "{}: {}{:?} = [{}{more}]\n",
                    plain(name),
                    b.dtype(),
                    b.shape(),
                    few.join(", ")
                );
            }
        }
        out += &self.comparison.map(Comparison::text).unwrap_or_default();
        if !self.times.is_empty() {
            let t = self.session.timings();
            let q = |share| time(quantile(self.times, share));
            out += &format!(
                "load {}, compile {} (optimise {}, lower {}, constants {}, codegen {}), first run {}\n\
                 run: median {}, from {} to {} (10th to 90th percentile of {} runs, {} threads)\n",
                time(t.load.as_secs_f64()),
                time(t.compile().as_secs_f64()),
                time(t.optimise.as_secs_f64()),
                time(t.lower.as_secs_f64()),
                time(t.constants.as_secs_f64()),
                time(t.codegen.as_secs_f64()),
                time(self.first),
                q(0.5),
                q(0.1),
                q(0.9),
                self.times.len(),
                self.session.workers(),
            );
        }
        out
    }

    fn json(&self) -> serde_json::Value {
        let outputs = self
            .outputs
            .iter()
            .map(|(name, b)| serde_json::json!({"name": name, "dtype": b.dtype().name(), "shape": b.shape()}));
        let t = self.session.timings();
        let mut report = serde_json::json!({
            "outputs": outputs.collect::<Vec<_>>(),
            "seconds": {
                "load": t.load.as_secs_f64(),
                "compile": t.compile().as_secs_f64(),
                "first_run": self.first,
            },
            "threads": self.session.workers(),
        });
        if let Some(c) = self.comparison {
            c.json(&mut report);
        }
        if !self.times.is_empty() {
            let q = |share| quantile(self.times, share);
            report["seconds"]["run"] = serde_json::json!({
                "median": q(0.5), "p10": q(0.1), "p90": q(0.9), "min": q(0.0), "max": q(1.0), "runs": self.times.len(),
            });
        }
        report
    }
}

fn value(dtype: DType, x: Number) -> String {
    match (dtype, x) {
        (DType::Bool, x) => x.truth().to_string(),
        (DType::Str, x) => match Strings::current().ok().and_then(|s| s.text(x.int() as u32)) {
            Some(s) => format!("{s:?}"),
            None => "?".to_owned(),
        },
        (_, Number::Int(i)) => i.to_string(),
        (_, Number::Float(f)) => format!("{:.6}", f)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}

/// An error that is accepted.
pub fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(x) if x >= 0.0 => Ok(x),
        _ => Err("expected a number from 0 on".to_owned()),
    }
}
