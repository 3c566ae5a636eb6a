//! What `brolga run --expect` finds: each output beside its reference.
//!
//! Invariant: outputs agree only when both sides have the same names, and under each name the same dtype and shape. NumPy's
//! files have no bfloat16; an output of it is compared with the f32 that stands for it, and one of a small type with the integers
//! that its bytes are.

use brolga::ir::{DType, Number, Tensor, plain};
use brolga::{Buffer, npy, tensors};
use serde_json::{Value, json};

/// All outputs beside all references.
pub struct Comparison {
    rows: Vec<Row>,
    /// The largest relative error that is accepted; `None` accepts the same bits only.
    tolerance: Option<f64>,
}

struct Row {
    output: String,
    finding: Finding,
}

enum Finding {
    /// Same dtype, same shape.
    Error {
        /// Largest absolute error.
        absolute: f64,
        /// That, over the largest magnitude of the reference.
        relative: f64,
        /// How many elements have other bits, NaN beside NaN apart.
        others: usize,
    },
    /// Why there is nothing to subtract.
    Unlike(String),
}

impl Comparison {
    /// Compares outputs with references of the same names.
    pub fn new(outputs: &[(String, &Buffer)], references: &[(String, Tensor)], tolerance: Option<f64>) -> Comparison {
        let mut rows: Vec<Row> = vec![];
        for (name, found) in outputs {
            let finding = match references.iter().find(|(n, _)| n == name) {
                Some((_, expected)) => {
                    let found = tensors::to_tensor(found);
                    match tensors::typed(expected.clone(), found.dtype()) {
                        Ok(expected) => finding(&found, &expected),
                        Err(e) => Finding::Unlike(format!("in the reference {e}")),
                    }
                }
                None => Finding::Unlike("missing in the reference".into()),
            };
            rows.push(Row {
                output: name.clone(),
                finding,
            });
        }
        for (name, _) in references {
            if outputs.iter().all(|(n, _)| n != name) {
                let names: Vec<String> = outputs.iter().map(|(n, _)| format!("`{n}`")).collect();
                let outputs = if names.is_empty() {
                    "none".into()
                } else {
                    names.join(", ")
                };
                rows.push(Row {
                    output: name.clone(),
                    finding: Finding::Unlike(format!("no output of the model; its outputs are {outputs}")),
                });
            }
        }
        Comparison { rows, tolerance }
    }

    /// Whether all is as expected.
    pub fn agrees(&self) -> bool {
        self.rows.iter().all(|r| self.accepts(&r.finding))
    }

    fn accepts(&self, finding: &Finding) -> bool {
        match finding {
            Finding::Error { relative, others, .. } => self.tolerance.map_or(*others == 0, |t| *relative <= t),
            Finding::Unlike(_) => false,
        }
    }

    /// A line for each output.
    pub fn text(&self) -> String {
        let line = |row: &Row| {
            let verdict = if self.accepts(&row.finding) { "ok" } else { "DIFFERS" };
            match &row.finding {
                Finding::Error { others, .. } if self.tolerance.is_none() => {
                    format!("{}: {others} elements have other bits: {verdict}\n", plain(&row.output))
                }
                Finding::Error { absolute, relative, .. } => format!(
                    "{}: largest absolute error {absolute:.3e}, relative to the largest magnitude {relative:.3e}: {verdict}\n",
                    plain(&row.output)
                ),
                Finding::Unlike(what) => format!("{}: {}: {verdict}\n", plain(&row.output), plain(what)),
            }
        };
        self.rows.iter().map(line).collect()
    }

    /// Puts the tolerance and the differences into a report.
    pub fn json(&self, report: &mut Value) {
        // JSON has no infinities.
        let number = |x: f64| if x.is_finite() { json!(x) } else { json!(x.to_string()) };
        let row = |row: &Row| {
            let ok = self.accepts(&row.finding);
            match &row.finding {
                Finding::Error {
                    absolute,
                    relative,
                    others,
                } => json!({
                    "output": row.output, "absolute": number(*absolute), "relative": number(*relative), "other_bits": others,
                    "ok": ok,
                }),
                Finding::Unlike(what) => json!({"output": row.output, "problem": what, "ok": ok}),
            }
        };
        report["tolerance"] = self.tolerance.map_or(Value::Null, number);
        report["differences"] = self.rows.iter().map(row).collect();
    }
}

fn finding(found: &Tensor, expected: &Tensor) -> Finding {
    if ![found.dtype(), npy::stored(found.dtype())].contains(&expected.dtype()) {
        return Finding::Unlike(format!("it is {}, expected {}", found.dtype(), expected.dtype()));
    }
    if found.shape() != expected.shape() {
        return Finding::Unlike(format!(
            "it has shape {:?}, expected {:?}",
            found.shape(),
            expected.shape()
        ));
    }
    if found.dtype() == DType::Str {
        // Numbers of strings are no magnitudes: strings are equal or not.
        let mut others = (0..)
            .zip(found.iter().zip(expected.iter()))
            .filter(|(_, (f, e))| f != e);
        if let Some((first, _)) = others.next() {
            let n = 1 + others.count();
            let all = expected.len();
            return Finding::Unlike(format!("{n} of {all} strings differ, the first at element {first}"));
        }
    }
    let same = |f: Number, e: Number| match (f, e) {
        (Number::Float(f), Number::Float(e)) => f.to_bits() == e.to_bits() || f.is_nan() && e.is_nan(),
        (f, e) => f == e,
    };
    let others = found.iter().zip(expected.iter()).filter(|(f, e)| !same(*f, *e)).count();
    let (mut absolute, mut largest) = (0f64, 0f64);
    for (f, e) in found.iter().zip(expected.iter()) {
        let error = match (f, e) {
            // Through f64, integers beyond 2^53 would be equal to their neighbours.
            (Number::Int(f), Number::Int(e)) => (f - e).unsigned_abs() as f64,
            (f, e) if f.f64() == e.f64() || (f.f64().is_nan() && e.f64().is_nan()) => 0.0,
            (f, e) => (f.f64() - e.f64()).abs(),
        };
        absolute = absolute.max(if error.is_nan() { f64::INFINITY } else { error });
        if e.f64().is_finite() {
            largest = largest.max(e.f64().abs());
        }
    }
    let relative = if absolute == 0.0 { 0.0 } else { absolute / largest };
    Finding::Error {
        absolute,
        relative,
        others,
    }
}
