//! `brolga run`: a model or an artefact on inputs from files, compared with references, timed.

use super::device::Loaded;
use super::{CompileArgs, Failure, Outcome, note, print, time};
use brolga::abi::{Dim, Input};
use brolga::ir::{DType, Number, Tensor};
use brolga::{Buffer, Error, View, npy, tensors};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Run a model or a compiled artefact
#[derive(Args)]
#[command(after_help = "\
Without any input, inputs are filled with reproducible pseudo-random numbers; --set then gives symbolic dimensions a size.
Exit status: 0 on success, 1 when --expect finds a difference above --tolerance, 2 on any error.

Examples:
  brolga run model.onnx --inputs inputs.npz --output outputs.npz
  brolga run model.onnx --input image=image.npy --input mask=mask.pb
  brolga run model.onnx --inputs inputs.npz --expect reference.npz --tolerance 1e-5
  brolga run model.onnx --set batch=8 --threads 1 --time 50
  brolga run model.brolga --inputs inputs.npz")]
pub struct Run {
    /// The model: ONNX, a printed tensor graph, or a compiled artefact
    model: PathBuf,
    /// One input: a .npy file or an ONNX tensor (.pb); may be repeated
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = named_file)]
    input: Vec<(String, PathBuf)>,
    /// Inputs by name in a .npz file
    #[arg(long, value_name = "FILE.npz")]
    inputs: Option<PathBuf>,
    /// Write the outputs, by name, to a .npz file
    #[arg(long, value_name = "FILE.npz")]
    output: Option<PathBuf>,
    /// Compare the outputs with those in a .npz file, or the only output with an ONNX tensor (.pb)
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    /// The largest error, over the largest magnitude of an output, that --expect accepts
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    tolerance: f64,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Run N times, and print the median, the spread, and the time of loading and compiling
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    time: Option<u32>,
    /// Where to run
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

impl Run {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let random = self.input.is_empty() && self.inputs.is_none();
        let mut options = self.compile.options()?;
        let artefact = brolga::source::kind(&self.model)? == brolga::source::Kind::Artefact;
        if artefact {
            options.sizes = vec![];
        }
        let limit = options.memory_limit;
        let session = Loaded::load(&self.device, &self.model, options, self.threads)?;
        let inputs = if random {
            self.random_inputs(&session)?
        } else {
            self.read_inputs(limit)?
        };
        let views: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
        let start = Instant::now();
        let outputs = session.run_named(&views)?;
        let first = start.elapsed().as_secs_f64();
        let named: Vec<(String, &Buffer)> = session.outputs().into_iter().zip(&outputs).collect();

        let mut times = vec![];
        for _ in 0..self.time.unwrap_or(0) {
            let start = Instant::now();
            session.run_named(&views)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        if let Some(path) = &self.output {
            let arrays: Vec<(String, Tensor)> = named.iter().map(|(n, b)| (n.clone(), tensors::to_tensor(b))).collect();
            npy::write_npz(path, &arrays)?;
        }
        let differences = match &self.expect {
            Some(path) => Some(compare(&named, &self.references(path, &session)?, path)?),
            None => None,
        };
        let report = Report {
            session: &session,
            outputs: &named,
            differences: differences.as_deref(),
            first,
            times: &times,
            tolerance: self.tolerance,
        };
        print(&if self.json {
            format!("{:#}\n", report.json())
        } else {
            report.text()
        })?;
        match differences.iter().flatten().all(|d| d.relative <= self.tolerance) {
            true => Ok(()),
            false => Err(Failure::Differs),
        }
    }

    fn read_inputs(&self, memory_limit: u64) -> Result<Vec<(String, Tensor)>, Failure> {
        let mut inputs = match &self.inputs {
            Some(path) => npy::read_npz(path)?,
            None => vec![],
        };
        for (name, path) in &self.input {
            let tensor = match path.extension().and_then(|e| e.to_str()) {
                Some("pb") => tensor_file(path, memory_limit)?,
                Some("npy") => npy::read_npy(path)?,
                _ => return Err(Error::file(path, "an input is a .npy or a .pb file").into()),
            };
            inputs.retain(|(n, _)| n != name);
            inputs.push((name.clone(), tensor));
        }
        Ok(inputs)
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
        Ok(vec![(output.clone(), tensor_file(path, self.compile.memory_limit)?)])
    }

    /// Pseudo-random inputs: floats from -1 to 1, integers and booleans 0 and 1.
    fn random_inputs(&self, session: &Loaded) -> Result<Vec<(String, Tensor)>, Failure> {
        let (ports, symbols) = session.inputs();
        if !ports.is_empty() {
            note("no inputs given; running on pseudo-random numbers");
        }
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            // xorshift64 (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut inputs = vec![];
        for input in ports {
            let shape = self.extents(input, &symbols)?;
            let dtype = tensors::ir_dtype(input.dtype);
            let size = brolga::runtime::tensor::byte_size(input.dtype, &shape).unwrap_or(u64::MAX);
            if size > self.compile.memory_limit {
                return Err(format!(
                    "input `{}` has {size} bytes, over the memory limit of {}",
                    input.name, self.compile.memory_limit
                )
                .into());
            }
            let tensor = Tensor::from_fn(dtype, &shape, |_| {
                let x = next();
                if dtype.is_float() {
                    Number::Float((x >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
                } else {
                    Number::Int((x >> 63) as i128)
                }
            });
            inputs.push((input.name.clone(), tensor));
        }
        Ok(inputs)
    }

    fn extents(&self, input: &Input, symbols: &[String]) -> Result<Vec<usize>, Failure> {
        let mut shape = vec![];
        for d in &input.dims {
            shape.push(match *d {
                Dim::Const(n) => n as usize,
                Dim::Symbol(s) => {
                    let name = &symbols[s as usize];
                    let given = self.compile.sizes.iter().find(|(n, _)| n == name);
                    let Some((_, n)) = given else {
                        return Err(format!(
                            "input `{}` has the symbolic dimension `{name}`; give it a size with --set {name}=N, or give \
                             inputs with --inputs or --input",
                            input.name
                        )
                        .into());
                    };
                    *n as usize
                }
            });
        }
        Ok(shape)
    }
}

fn tensor_file(path: &Path, memory_limit: u64) -> Result<Tensor, Failure> {
    let options = brolga::frontend::onnx::Options {
        memory_limit,
        ..Default::default()
    };
    Ok(brolga::frontend::onnx::tensor_file(path, &options)?.1)
}

/// How an output differs from its reference.
struct Difference {
    name: String,
    /// Largest absolute error.
    absolute: f64,
    /// That, over the largest magnitude of the reference.
    relative: f64,
}

fn compare(
    outputs: &[(String, &Buffer)],
    expected: &[(String, Tensor)],
    path: &Path,
) -> Result<Vec<Difference>, Failure> {
    let mut all = vec![];
    for (name, want) in expected {
        let Some((_, got)) = outputs.iter().find(|(n, _)| n == name) else {
            let names: Vec<&str> = outputs.iter().map(|(n, _)| n.as_str()).collect();
            let message = format!("the model has no output `{name}`; its outputs are {}", names.join(", "));
            return Err(Error::file(path, message).into());
        };
        let got = tensors::to_tensor(got);
        if got.shape() != want.shape() {
            let message = format!(
                "output `{name}` has shape {:?}, expected {:?}",
                got.shape(),
                want.shape()
            );
            return Err(Error::file(path, message).into());
        }
        let (mut absolute, mut largest) = (0f64, 0f64);
        for (g, w) in got.iter().zip(want.iter()) {
            let (g, w) = (g.f64(), w.f64());
            let error = if g == w || (g.is_nan() && w.is_nan()) {
                0.0
            } else {
                (g - w).abs()
            };
            absolute = absolute.max(if error.is_nan() { f64::INFINITY } else { error });
            if w.is_finite() {
                largest = largest.max(w.abs());
            }
        }
        let relative = if absolute == 0.0 { 0.0 } else { absolute / largest };
        all.push(Difference {
            name: name.clone(),
            absolute,
            relative,
        });
    }
    Ok(all)
}

/// What the command prints.
struct Report<'a> {
    session: &'a Loaded,
    outputs: &'a [(String, &'a Buffer)],
    differences: Option<&'a [Difference]>,
    first: f64,
    /// Sorted.
    times: &'a [f64],
    tolerance: f64,
}

/// The value below which this share of sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut out = String::new();
        if self.differences.is_none() && self.times.is_empty() {
            for (name, b) in self.outputs {
                let t = tensors::to_tensor(b);
                let few: Vec<String> = t.iter().take(8).map(|x| value(t.dtype(), x)).collect();
                let more = if t.len() > few.len() { ", …" } else { "" };
                out += &format!("{name}: {}{:?} = [{}{more}]\n", b.dtype(), b.shape(), few.join(", "));
            }
        }
        for d in self.differences.unwrap_or_default() {
            let verdict = if d.relative <= self.tolerance { "ok" } else { "DIFFERS" };
            out += &format!(
                "{}: largest absolute error {:.3e}, relative to the largest magnitude {:.3e}: {verdict}\n",
                d.name, d.absolute, d.relative
            );
        }
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
        let number = |x: f64| {
            if x.is_finite() {
                serde_json::json!(x)
            } else {
                serde_json::json!(x.to_string())
            }
        };
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
        if let Some(ds) = self.differences {
            report["tolerance"] = number(self.tolerance);
            report["differences"] = ds
                .iter()
                .map(|d| {
                    serde_json::json!({
                        "output": d.name, "absolute": number(d.absolute), "relative": number(d.relative),
                        "ok": d.relative <= self.tolerance,
                    })
                })
                .collect();
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
        (_, Number::Int(i)) => i.to_string(),
        (_, Number::Float(f)) => format!("{:.6}", f)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}
