//! A backend case of the ONNX project: a model, and folders of inputs and expected outputs.
//!
//! ```text
//! node/test_relu/model.onnx   node/test_relu/test_data_set_0/{input_0.pb, output_0.pb}
//! ```

use crate::{TOLERANCES, mismatch, run, ulps};
use brolga::{Options, Session};
use brolga_frontend::onnx::{self, Contents, Error};
use brolga_ir::{DType, Tensor, Type};
use std::collections::BTreeMap;
use std::path::Path;

/// Inputs of up to this many elements may be fixed when a model's shapes depend on their values.
const LARGEST_FIXED: usize = 64;

/// The least relative tolerance of bf16 results: two units in the last place, as ONNX's own runner of these cases has it.
/// Their references were computed in bf16 step by step, softmax's sum included.
const BF16_TOLERANCE: f64 = 1.0 / 64.0;

/// Why a case does not pass: a class that stays the same when a message is worded better, and the message.
#[derive(Debug)]
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

/// Compiles a case and compares the results of all its data sets with the expected ones. `name` is `FOLDER/CASE`, `home`
/// is where FOLDER lies. Gives whether inputs had to be fixed.
///
/// A shape, axes or a number of results that comes in as an input is fixed to its value when the model is read, as a
/// caller of the library would; at least one input has to stay.
///
/// # Errors
/// Why the case does not pass.
pub fn check(home: &Path, name: &str, options: &Options, threads: usize) -> Result<bool, Failure> {
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
    let session = brolga::compile(&graph, options)
        .and_then(|c| c.session_with(threads, options.memory_limit))
        .map_err(|e| Failure::new("not compiled", e))?;
    let limits = onnx::Options {
        strings: session.strings(),
        ..limits
    };
    let contents = |set: usize, kind: &str, i: usize| value(set, kind, i, &limits);
    let mut sets = 0;
    while dir.join(format!("test_data_set_{sets}")).exists() {
        let strings = &limits.strings;
        strings.scope(|| compare(&session, &summary, (rtol, atol), &|kind, i| contents(sets, kind, i)))?;
        sets += 1;
    }
    match sets {
        0 => Err(Failure::new("no data", format!("{} has no data set", dir.display()))),
        _ => Ok(fixed),
    }
}

fn compare(
    session: &Session,
    summary: &onnx::Summary,
    (rtol, atol): (f64, f64),
    contents: &dyn Fn(&str, usize) -> Result<Contents, Failure>,
) -> Result<(), Failure> {
    let mut given = BTreeMap::new();
    for (i, port) in summary.inputs.iter().enumerate() {
        given.extend(named(&port.name, &contents("input", i)?));
    }
    let mut inputs = BTreeMap::new();
    for input in session.inputs() {
        match given.remove(&input.name) {
            Some(t) => drop(inputs.insert(input.name.clone(), t)),
            None if input.default.is_some() => {}
            None => return Err(Failure::new("not run", format!("there is no input `{}`", input.name))),
        }
    }
    let outputs = run(session, &inputs).map_err(|e| Failure::new("not run", e))?;
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
