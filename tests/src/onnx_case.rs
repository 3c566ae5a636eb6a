//! A backend case of the ONNX project: a model, and folders of inputs and expected outputs.
//!
//! ```text
//! node/test_relu/model.onnx   node/test_relu/test_data_set_0/{input_0.pb, output_0.pb}
//! ```

use crate::linked::{Batch, Linked};
use crate::{TOLERANCES, mismatch, ulps};
use brolga::{Options, Session, tensors};
use brolga_frontend::onnx::{self, Contents, Error};
use brolga_ir::{DType, Graph, Strings, Tensor, Type};
use brolga_runtime::Executor;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

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
    /// An artefact that was written, mapped and run. `None` where there is no code.
    pub artefact: Option<Result<(), Failure>>,
    /// An object file that was linked and run. `None` where there is no code, and as long as it waits for its library.
    pub object: Option<Result<(), Failure>>,
}

impl Checked {
    /// Why the case does not pass in every way; `None` when it does.
    pub fn failure(&self) -> Option<Failure> {
        let ways = [
            ("", Some(&self.compiled)),
            ("artefact: ", self.artefact.as_ref()),
            ("object file: ", self.object.as_ref()),
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

/// A case: a model, what it is given and what has to come out.
pub struct Case {
    dir: PathBuf,
    summary: onnx::Summary,
    read: onnx::Options,
    tolerance: (f64, f64),
    sets: usize,
}

impl Case {
    /// Reads what there is to know before the model is imported; `name` is `FOLDER/CASE`, `home` is where FOLDER lies.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(home: &Path, name: &str, memory_limit: u64) -> Result<Case, Failure> {
        let dir = home.join(name);
        let summary = onnx::summary(dir.join("model.onnx")).map_err(|e| Failure::new("not read", e))?;
        let sets = (0..)
            .take_while(|n| dir.join(format!("test_data_set_{n}")).exists())
            .count();
        if sets == 0 {
            return Err(Failure::new("no data", format!("{} has no data set", dir.display())));
        }
        Ok(Case {
            dir,
            summary,
            read: onnx::Options {
                memory_limit,
                ..onnx::Options::default()
            },
            tolerance: TOLERANCES.get(name).copied().unwrap_or((1e-3, 1e-7)),
            sets,
        })
    }

    /// The value of an input or output, with strings of those given.
    fn contents(&self, set: usize, kind: &str, i: usize, strings: &Strings) -> Result<Contents, Failure> {
        let file = self.dir.join(format!("test_data_set_{set}/{kind}_{i}.pb"));
        let ports = match kind {
            "input" => &self.summary.inputs,
            _ => &self.summary.outputs,
        };
        let declared = ports.get(i).map_or("", |p| &p.dtype);
        let read = onnx::Options {
            strings: strings.clone(),
            ..self.read.clone()
        };
        onnx::contents_file(file, declared, &read).map_err(|e| Failure::new("not a value of a supported type", e))
    }

    /// The graph, and whether inputs had to be fixed.
    ///
    /// A shape, axes or a number of results that comes in as an input is fixed to its value when the model is read, as a
    /// caller of the library would; at least one input has to stay.
    fn import(&self) -> Result<(Graph, bool), Failure> {
        let model = self.dir.join("model.onnx");
        let ports = &self.summary.inputs;
        let first = |i| self.contents(0, "input", i, &self.read.strings);
        let mut read = self.read.clone();
        // What a declaration leaves open, the first data tell.
        for (i, port) in ports.iter().enumerate() {
            if port.shape.is_some() {
                continue;
            }
            let first = first(i)?;
            let types = first
                .tensors()
                .iter()
                .map(|t| Type::fixed(t.dtype(), t.shape()))
                .collect();
            let holds = (first != Contents::Nothing).then_some(types);
            read.holds.push((port.name.clone(), holds));
        }
        let e = match onnx::load(&model, &read) {
            Ok(g) => return Ok((g, false)),
            Err(e) => e,
        };
        let needs_values = matches!(&e, Error::Unsupported { items, .. }
            if items.iter().all(|i| i.feature.contains("computed from data")));
        if !needs_values {
            return Err(import(&e));
        }
        let small = |t: &Tensor| t.len() <= LARGEST_FIXED && !t.dtype().is_float();
        for (i, port) in ports.iter().enumerate() {
            if let Contents::Tensor(t) = first(i)?
                && small(&t)
            {
                read.fixed.push((port.name.clone(), t));
            }
        }
        if read.fixed.is_empty() || read.fixed.len() == ports.len() {
            return Err(import(&e));
        }
        Ok((onnx::load(&model, &read).map_err(|e| import(&e))?, true))
    }

    /// Compares the results of all data sets with the expected ones, for one way to run the model.
    fn hold(&self, strings: &Strings, run: &mut Way) -> Result<(), Failure> {
        strings.scope(|| (0..self.sets).try_for_each(|set| self.compare(set, strings, run)))
    }

    fn compare(&self, set: usize, strings: &Strings, run: &mut Way) -> Result<(), Failure> {
        let (rtol, atol) = self.tolerance;
        let mut given = BTreeMap::new();
        for (i, port) in self.summary.inputs.iter().enumerate() {
            given.extend(named(&port.name, &self.contents(set, "input", i, strings)?));
        }
        let outputs = run(&mut given)?;
        let mut expected = BTreeMap::new();
        for (i, port) in self.summary.outputs.iter().enumerate() {
            expected.extend(named(&port.name, &self.contents(set, "output", i, strings)?));
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

    /// Compiles the case and compares the results of all its data sets with the expected ones, in every way to run it but one:
    /// its object file goes into a batch, and [`Case::check_linked`] runs what is linked of it. `interpret` asks for the
    /// interpreter too.
    ///
    /// # Errors
    /// Why the case cannot be imported.
    pub fn check(
        &self,
        options: &Options,
        threads: usize,
        interpret: bool,
        batch: &mut Batch,
    ) -> Result<Checked, Failure> {
        let (graph, fixed) = self.import()?;
        let interpreter = interpret
            .then(|| guarded(|| self.hold(&Strings::new(&graph.strings), &mut |given| interpreted(&graph, given))));
        let compiled = guarded(|| brolga::compile(&graph, options).map_err(|e| Failure::new("not compiled", e)));
        let mut compiled = match compiled {
            Ok(c) => c,
            Err(f) => {
                return Ok(Checked {
                    fixed,
                    host: false,
                    interpreter,
                    compiled: Err(f),
                    artefact: None,
                    object: None,
                });
            }
        };
        let host = !compiled.meta.host_ops.is_empty();
        let object = guarded(|| batch.add(&mut compiled).map_err(|e| Failure::new("not written", e)));
        let artefact = guarded(|| {
            let dir = tempfile::tempdir().expect("there is room for temporary files");
            let path = dir.path().join("case.brolga");
            let written = compiled.write_artefact(&path);
            written.map_err(|e| Failure::new("not written", e))?;
            let session = Session::options().threads(threads).load(&path);
            let session = session.map_err(|e| Failure::new("not loaded", e))?;
            self.hold(&session.strings(), &mut |given| executed(session.executor(), given))
        });
        let compiled = guarded(|| {
            let session = compiled.session_with(threads, options.memory_limit);
            let session = session.map_err(|e| Failure::new("not compiled", e))?;
            self.hold(&session.strings(), &mut |given| executed(session.executor(), given))
        });
        Ok(Checked {
            fixed,
            host,
            interpreter,
            compiled,
            artefact: Some(artefact),
            object: object.err().map(Err),
        })
    }

    /// Compares the results of the case's linked object.
    ///
    /// # Errors
    /// How they differ, or why it does not run.
    pub fn check_linked(&self, linked: &Linked, threads: usize, memory_limit: u64) -> Result<(), Failure> {
        guarded(|| {
            let executor = linked.executor(threads, memory_limit);
            let executor = executor.map_err(|e| Failure::new("not loaded", e))?;
            let strings = Strings::new(&executor.program().meta().strings);
            self.hold(&strings, &mut |given| executed(&executor, given))
        })
    }
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
fn executed(executor: &Executor, given: &mut BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, Failure> {
    let meta = executor.program().meta();
    let mut inputs = vec![];
    for input in &meta.inputs {
        match given.remove(&input.name) {
            Some(t) => inputs.push((input.name.as_str(), t)),
            None if input.default.is_some() => {}
            None => return Err(Failure::new("not run", format!("there is no input `{}`", input.name))),
        }
    }
    let views: Vec<_> = inputs.iter().map(|(n, t)| (*n, tensors::view(t))).collect();
    let outputs = executor.run_named(&views).map_err(|e| Failure::new("not run", e))?;
    let names = meta.outputs.iter().map(|o| o.name.clone());
    Ok(names.zip(outputs.iter().map(tensors::to_tensor)).collect())
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
