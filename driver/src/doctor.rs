//! `brolga doctor`: everything that keeps a model from being compiled, and what is worth knowing of it, before machine code is made.
//!
//! What the file shows is found by [`brolga_frontend::onnx::examine`]. A model that imports goes down to a program here, since
//! passes may refuse it, and since only kernels tell which operators run on the host and which products are of bytes.

use crate::levels::{self, Level, Module, Walk};
use crate::options::Options;
use crate::report::host_operators;
use crate::{Result, source};
use brolga_frontend::onnx::{self, Finding, Kind};
use brolga_ir::program::{Callable, Program, Step, nested};
use brolga_ir::{DType, plain};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Names of nodes that the text shows of one finding; all stand in the JSON.
const SHOWN: usize = 6;

/// What was found in a model.
pub struct Report {
    /// All findings, what stands in the way first.
    pub findings: Vec<Finding>,
}

/// Examines an ONNX model, or a model's folder.
///
/// # Errors
/// When the file cannot be read, is no ONNX model, or the options name what it does not have.
pub fn examine(path: &Path, options: &Options) -> Result<Report> {
    let kind = source::kind(path)?;
    if !matches!(kind, source::Kind::Onnx | source::Kind::Folder) {
        return Err(crate::Error::file(
            path,
            "expected an ONNX model, a model's folder or a GGUF file; what is printed or compiled has been read already",
        ));
    }
    // What is wrong with the options is no finding about the model.
    options.passes(Level::Tensor)?;
    let found = match kind {
        // What is wrong with a folder is told all at once as it is read.
        source::Kind::Folder => onnx::Examination {
            graph: Some(source::graph_for(path, options)?),
            ..onnx::Examination::default()
        },
        _ => onnx::examine(path, &source::reading(options)?)?,
    };
    let mut findings = found.findings;
    if let Some(graph) = found.graph {
        let options = options.without_sizes();
        let down = Walk::new(Module::Tensor(graph), &options).and_then(|w| w.down(Level::Program));
        match down {
            Ok(walk) => {
                let program = levels::into_program(walk.module);
                findings.extend(hosts(&program));
                findings.extend(found.quantised.iter().filter_map(|q| in_floats(&program, q)));
            }
            Err(e) => findings.insert(0, refused(&e)),
        }
    }
    Ok(Report { findings })
}

fn refused(e: &crate::Error) -> Finding {
    Finding {
        kind: Kind::Wrong,
        subject: "compiling".into(),
        detail: e.to_string(),
        nodes: vec![],
        way_out: "change the node that is named there, or fix sizes with --set".into(),
    }
}

/// Operators that run on the host.
fn hosts(program: &Program) -> Vec<Finding> {
    let finding = |(operator, nodes): (String, Vec<String>)| Finding {
        kind: Kind::Host,
        subject: operator,
        detail: "runs as its reference evaluation on the host, not in a kernel".into(),
        nodes,
        way_out: "fine in a session; an object file or library calls back into the context's `host` table \
            (`brolga compile --no-host-ops` refuses that)"
            .into(),
    };
    host_operators(program).into_iter().map(finding).collect()
}

/// A quantised product that is computed in floats, and why.
fn in_floats(program: &Program, q: &onnx::Quantised) -> Option<Finding> {
    let mut floats = false;
    for step in nested(&program.steps) {
        let Step::Call { kernel, origin, .. } = step else {
            continue;
        };
        if !origin.iter().any(|o| **o == *q.node) {
            continue;
        }
        let kernel = &program.kernels[*kernel as usize];
        let bytes = |p: &brolga_ir::program::Param| !p.written && matches!(p.dtype, DType::I8 | DType::U8);
        if Callable::params(kernel).iter().filter(|p| bytes(p)).count() >= 2 {
            return None;
        }
        floats |= ["contract", "conv"].iter().any(|k| kernel.name.starts_with(k));
    }
    if !floats {
        // No kernel says that it is its product.
        return None;
    }
    let reason = match &q.reason {
        Some(r) => r.clone(),
        None => "its scales and zero points have a form that no rule of the theme `quantize` takes".into(),
    };
    Some(Finding {
        kind: Kind::Quantised,
        subject: q.operator.clone(),
        detail: format!("multiplies in floats, not in bytes: {reason}"),
        nodes: vec![q.node.clone()],
        way_out: "quantise both operands with constant scales, weights to int8 \
            (onnxruntime.quantization.quantize_static, QDQ); it runs as it is, slower"
            .into(),
    })
}

impl Report {
    /// Whether the model compiles.
    pub fn compiles(&self) -> bool {
        !self.findings.iter().any(|f| f.kind.refuses())
    }

    /// The report for people.
    pub fn text(&self, model: &Path) -> String {
        let (bad, rest): (Vec<&Finding>, Vec<&Finding>) = self.findings.iter().partition(|f| f.kind.refuses());
        let mut out = match bad.len() {
            0 => format!("{}: compiles\n", model.display()),
            1 => format!("{}: does not compile: 1 thing stands in the way\n", model.display()),
            n => format!("{}: does not compile: {n} things stand in the way\n", model.display()),
        };
        for f in bad {
            show(&mut out, f);
        }
        if !rest.is_empty() {
            out += "\nworth knowing:\n";
        }
        for f in rest {
            show(&mut out, f);
        }
        out
    }

    /// The report for programs.
    pub fn json(&self, model: &Path) -> Value {
        let finding = |f: &Finding| {
            json!({
                "kind": f.kind.name(), "refuses": f.kind.refuses(), "subject": f.subject,
                "detail": f.detail, "nodes": f.nodes, "way_out": f.way_out,
            })
        };
        json!({
            "model": model.display().to_string(),
            "compiles": self.compiles(),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

fn show(out: &mut String, f: &Finding) {
    let title = match f.kind {
        Kind::Unsupported => "not supported",
        Kind::Wrong => "wrong",
        Kind::MissingData => "missing data",
        Kind::Unchecked => "not looked at closely",
        Kind::DynamicInput => "dynamic size",
        Kind::DynamicNode => "size from data",
        Kind::ShapeInput => "decides sizes",
        Kind::Declaration => "declared otherwise",
        Kind::Unread => "unread",
        Kind::Double => "wide floats",
        Kind::Quantised => "not in bytes",
        Kind::Host => "on the host",
    };
    let _ = writeln!(out, "\n  {title}: {}\n    {}", plain(&f.subject), plain(&f.detail));
    if !f.nodes.is_empty() {
        let mut names = f
            .nodes
            .iter()
            .take(SHOWN)
            .map(|n| plain(n))
            .collect::<Vec<_>>()
            .join(", ");
        if f.nodes.len() > SHOWN {
            let _ = write!(names, " and {} more", f.nodes.len() - SHOWN);
        }
        let _ = writeln!(out, "    at {names}");
    }
    if !f.way_out.is_empty() {
        let _ = writeln!(out, "    -> {}", plain(&f.way_out));
    }
}
