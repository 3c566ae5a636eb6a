//! A backend case of the ONNX project: a model, and folders of inputs and expected outputs.
//!
//! ```text
//! node/test_relu/model.onnx   node/test_relu/test_data_set_0/{input_0.pb, output_0.pb}
//! ```

use crate::{TOLERANCES, mismatch, run, ulps};
use brolga::{Options, Session};
use brolga_frontend::onnx::{self, Contents, Error};
use brolga_ir::{DType, Graph, Strings, Tensor, Type};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Inputs of up to this many elements may be fixed when a model's shapes depend on their values.
const LARGEST_FIXED: usize = 64;

/// The least relative tolerance of bf16 results: two units in the last place, as ONNX's own runner of these cases has it.
/// Their references were computed in bf16 step by step, softmax's sum included.
const BF16_TOLERANCE: f64 = 1.0 / 64.0;

/// Why a case does not pass: a class that stays the same when a message is worded better, and the message.
#[derive(Clone, Debug)]
pub struct Failure {
    /// One or a few words.
    pub class: String,
    /// How far a wrong result is off, in few words.
    pub figure: Option<String>,
    /// All there is to say.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(class: impl Into<String>, message: impl ToString) -> Failure {
        Failure {
            class: class.into(),
            figure: None,
            message: message.to_string(),
        }
    }

    /// A result that is not the expected one.
    fn wrong(found: &Tensor, expected: &Tensor, message: String) -> Failure {
        let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
        let figure = match ty(found) == ty(expected) {
            false => format!("{}, not {}", ty(found), ty(expected)),
            true if expected.dtype().is_float() => {
                // Units of the found value may be halves of those of the expected one.
                let ulps = ulps(found, expected);
                let ulps = match ulps < 1e4 {
                    true => ((ulps * 10.0).round() / 10.0).to_string(),
                    false => format!("{ulps:.1e}"),
                };
                format!("up to {ulps} ulp of {}", expected.dtype())
            }
            true => format!("off by up to {}", ulps(found, expected)),
        };
        Failure {
            class: "wrong".into(),
            figure: Some(figure),
            message,
        }
    }
}

/// What became of a case that imports.
#[derive(Debug)]
pub struct Checked {
    /// Whether inputs had to be fixed.
    pub fixed: bool,
    /// Whether an operator runs on the host.
    pub host: bool,
    /// The tensor IR's interpreter; `None` where the case is too large for it.
    pub interpreter: Option<Result<(), Failure>>,
    /// Machine code made in memory.
    pub compiled: Result<(), Failure>,
    /// Machine code from a file: an artefact that was written, mapped and run. `None` where there is no code.
    pub file: Option<Result<(), Failure>>,
}

impl Checked {
    /// Why the case does not pass in every way; `None` when it does.
    pub fn failure(&self) -> Option<Failure> {
        let ways = [
            ("", Some(&self.compiled)),
            ("from a file: ", self.file.as_ref()),
            ("interpreter: ", self.interpreter.as_ref()),
        ];
        ways.into_iter().find_map(|(way, result)| {
            let f = result?.as_ref().err()?;
            Some(Failure {
                class: format!("{way}{}", f.class),
                figure: f.figure.clone(),
                message: f.message.clone(),
            })
        })
    }
}

/// The operators of a case, with the version of the operator set that each is of.
///
/// # Panics
/// When the model cannot be read.
pub fn operators(home: &Path, name: &str) -> Vec<(String, i64)> {
    let summary = onnx::summary(home.join(name).join("model.onnx")).unwrap_or_else(|e| panic!("{e}"));
    let version = |operator: &str| {
        let domain = operator.rsplit_once("::").map_or("", |(d, _)| d);
        let known = summary.opsets.iter().find(|(d, _)| d == domain);
        known.map_or(0, |(_, v)| *v)
    };
    let all = summary.operators.iter();
    all.map(|o| (o.operator.clone(), version(&o.operator))).collect()
}

/// Compiles a case and compares the results of all its data sets with the expected ones, in every way to run it; `interpret`
/// asks for the interpreter too. `name` is `FOLDER/CASE`, `home` is where FOLDER lies.
///
/// A shape, axes or a number of results that comes in as an input is fixed to its value when the model is read, as a
/// caller of the library would; at least one input has to stay.
///
/// # Errors
/// Why the case cannot be read or imported.
pub fn check(home: &Path, name: &str, options: &Options, threads: usize, interpret: bool) -> Result<Checked, Failure> {
    let dir = home.join(name);
    let model = dir.join("model.onnx");
    let summary = onnx::summary(&model).map_err(|e| Failure::new("not read", e))?;
    let names: Vec<String> = summary.inputs.iter().map(|p| p.name.clone()).collect();
    let mut read = onnx::Options {
        memory_limit: options.memory_limit,
        ..onnx::Options::default()
    };
    let limits = read.clone();
    let value = |set: usize, kind: &str, i: usize, limits: &onnx::Options| {
        let file = dir.join(format!("test_data_set_{set}/{kind}_{i}.pb"));
        let ports = if kind == "input" {
            &summary.inputs
        } else {
            &summary.outputs
        };
        let declared = ports.get(i).map_or("", |p| &p.dtype);
        onnx::contents_file(file, declared, limits).map_err(|e| Failure::new("not a value of a supported type", e))
    };
    let contents = |set: usize, kind: &str, i: usize| value(set, kind, i, &limits);
    // What a declaration leaves open, the first data tell.
    for (i, port) in summary.inputs.iter().enumerate() {
        if port.shape.is_some() {
            continue;
        }
        let first = contents(0, "input", i)?;
        let types = first
            .tensors()
            .iter()
            .map(|t| Type::fixed(t.dtype(), t.shape()))
            .collect();
        let holds = (first != Contents::Nothing).then_some(types);
        read.holds.push((port.name.clone(), holds));
    }
    let (graph, fixed) = match onnx::load(&model, &read) {
        Ok(g) => (g, false),
        Err(e) => {
            let needs_values = matches!(&e, Error::Unsupported { items, .. }
                if items.iter().all(|i| i.feature.contains("computed from data")));
            if !needs_values {
                return Err(import(&e));
            }
            let small = |t: &Tensor| t.len() <= LARGEST_FIXED && !t.dtype().is_float();
            let mut fixed = vec![];
            for (i, n) in names.iter().enumerate() {
                if let Contents::Tensor(t) = contents(0, "input", i)?
                    && small(&t)
                {
                    fixed.push((n.clone(), t));
                }
            }
            if fixed.is_empty() || fixed.len() == names.len() {
                return Err(import(&e));
            }
            let read = onnx::Options { fixed, ..read.clone() };
            (onnx::load(&model, &read).map_err(|e| import(&e))?, true)
        }
    };
    let (rtol, atol) = TOLERANCES.get(name).copied().unwrap_or((1e-3, 1e-7));
    let mut sets = 0;
    while dir.join(format!("test_data_set_{sets}")).exists() {
        sets += 1;
    }
    if sets == 0 {
        return Err(Failure::new("no data", format!("{} has no data set", dir.display())));
    }
    let every = |strings: &Strings, run: &mut Way| -> Result<(), Failure> {
        let limits = onnx::Options {
            strings: strings.clone(),
            ..limits.clone()
        };
        let one = |set| compare(run, &summary, (rtol, atol), &|kind, i| value(set, kind, i, &limits));
        strings.scope(|| (0..sets).try_for_each(one))
    };
    let interpreter =
        interpret.then(|| guarded(|| every(&Strings::new(&graph.strings), &mut |given| interpreted(&graph, given))));
    let compiled = match guarded(|| brolga::compile(&graph, options).map_err(|e| Failure::new("not compiled", e))) {
        Ok(c) => c,
        Err(f) => {
            return Ok(Checked {
                fixed,
                host: false,
                interpreter,
                compiled: Err(f),
                file: None,
            });
        }
    };
    let host = !compiled.meta.host_ops.is_empty();
    let file = guarded(|| {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let path = dir.path().join("case.brolga");
        let written = compiled.write_artefact(&path);
        written.map_err(|e| Failure::new("not written", e))?;
        let session = Session::options().threads(threads).load(&path);
        let session = session.map_err(|e| Failure::new("not loaded", e))?;
        every(&session.strings(), &mut |given| by_session(&session, given))
    });
    let compiled = guarded(|| {
        let session = compiled.session_with(threads, options.memory_limit);
        let session = session.map_err(|e| Failure::new("not compiled", e))?;
        every(&session.strings(), &mut |given| by_session(&session, given))
    });
    Ok(Checked {
        fixed,
        host,
        interpreter,
        compiled,
        file: Some(file),
    })
}

/// A way to run a model: inputs by name to outputs by name.
type Way<'a> = dyn FnMut(&mut BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, Failure> + 'a;

/// A result, or the failure that a panic is.
fn guarded<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(e) => {
            let text = e.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| e.downcast_ref::<&str>().copied());
            Err(Failure::new("panic", text.unwrap_or("something else than a text")))
        }
    }
}

/// Runs the tensor IR's interpreter.
fn interpreted(graph: &Graph, given: &mut BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, Failure> {
    let mut inputs = vec![];
    for input in &graph.inputs {
        let default = || graph.defaults.iter().find(|(n, _)| *n == input.name);
        match given.remove(&input.name) {
            Some(t) => inputs.push(t),
            None => match default() {
                Some((_, c)) => inputs.push(c.to_tensor()),
                None => return Err(Failure::new("not run", format!("there is no input `{}`", input.name))),
            },
        }
    }
    let outputs = graph.eval(&inputs).map_err(|e| Failure::new("not run", e))?;
    let names = graph.outputs.iter().map(|(n, _)| n.clone());
    Ok(names.zip(outputs).collect())
}

/// Runs machine code.
fn by_session(session: &Session, given: &mut BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, Failure> {
    let mut inputs = BTreeMap::new();
    for input in session.inputs() {
        match given.remove(&input.name) {
            Some(t) => drop(inputs.insert(input.name.clone(), t)),
            None if input.default.is_some() => {}
            None => return Err(Failure::new("not run", format!("there is no input `{}`", input.name))),
        }
    }
    run(session, &inputs).map_err(|e| Failure::new("not run", e))
}

fn compare(
    run: &mut Way,
    summary: &onnx::Summary,
    (rtol, atol): (f64, f64),
    contents: &dyn Fn(&str, usize) -> Result<Contents, Failure>,
) -> Result<(), Failure> {
    let mut given = BTreeMap::new();
    for (i, port) in summary.inputs.iter().enumerate() {
        given.extend(named(&port.name, &contents("input", i)?));
    }
    let outputs = run(&mut given)?;
    let mut expected = BTreeMap::new();
    for (i, port) in summary.outputs.iter().enumerate() {
        expected.extend(named(&port.name, &contents("output", i)?));
    }
    if outputs.len() != expected.len() {
        let message = format!("{} outputs, expected {}", outputs.len(), expected.len());
        return Err(Failure::new("wrong", message));
    }
    for (n, found) in &outputs {
        let wanted = expected.remove(n);
        let wanted = wanted.ok_or_else(|| Failure::new("wrong", format!("an output `{n}`, expected none")))?;
        let rtol = match wanted.dtype() {
            DType::BF16 => rtol.max(BF16_TOLERANCE),
            _ => rtol,
        };
        if let Some(m) = mismatch(found, &wanted, rtol, atol) {
            return Err(Failure::wrong(found, &wanted, format!("output `{n}`: {m}")));
        }
    }
    Ok(())
}

/// The tensors of a value, by the names that they have as inputs and outputs of a graph.
fn named(name: &str, contents: &Contents) -> Vec<(String, Tensor)> {
    match contents {
        Contents::Tensor(t) => vec![(name.to_owned(), t.clone())],
        Contents::Sequence(all) => (0..)
            .zip(all)
            .map(|(k, t)| (format!("{name}[{k}]"), t.clone()))
            .collect(),
        Contents::Nothing => vec![],
    }
}

fn import(e: &Error) -> Failure {
    match e {
        Error::Unsupported { items, .. } => {
            let mut what: Vec<String> = items
                .iter()
                .map(|i| match i.feature.as_str() {
                    "" => i.operator.clone(),
                    f => format!("{} ({f})", i.operator),
                })
                .collect();
            what.sort();
            what.dedup();
            Failure::new(format!("unsupported: {}", what.join(", ")), e)
        }
        _ => Failure::new("not imported", e),
    }
}
