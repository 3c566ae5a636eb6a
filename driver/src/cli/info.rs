//! `brolga info`: what a model holds, supported or not.

use super::{ModelArgs, Outcome, print, print_json};
use brolga::abi::Meta;
use brolga::compression::Matrix;
use brolga::frontend::onnx::{self, Port, Summary};
use brolga::frontend::safetensors;
use brolga::ir::{Dim, Graph, plain};
use brolga::source::{self, Kind};
use brolga::{Error, Options};
use clap::Args;
use std::fmt::Write;
use std::path::PathBuf;

/// Tell what a model holds
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga info model.onnx
  brolga info model.onnx --set seq=128 --json
  brolga info folder --weights int4                     what each matrix takes then, and loses")]
pub struct Info {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or a compiled artefact
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ModelArgs,
}

impl Info {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.read.options()?;
        match source::kind(&self.model)? {
            Kind::Onnx => {}
            Kind::Folder => return self.folder(&options),
            Kind::Artefact => {
                source::as_declared(&self.model, &options)?;
                source::without_sizes(&self.model, &options)?;
                return self.artefact();
            }
            Kind::Text | Kind::Program => {
                let message = "printed IR, expected an ONNX model or an artefact; it tells what it holds itself";
                return Err(Error::file(&self.model, message).into());
            }
        }
        let summary = onnx::summary(&self.model)?;
        let imported = source::graph_for(&self.model, &options);
        let (flops, problem) = match imported {
            Ok(g) => (Some(flops(&g)), None),
            Err(e) => (None, Some(e.to_string())),
        };
        if self.json {
            return print_json(&json(&summary, flops.as_ref(), problem.as_deref()));
        }
        print(&text(&summary, flops.as_ref(), problem.as_deref()))
    }

    fn folder(&self, options: &Options) -> Outcome {
        let summary = safetensors::summary(&self.model, &options.folder)?;
        let graph = source::graph_for(&self.model, options)?;
        let port = |name: &str, v: brolga::ir::Value| format!("{}: {}", plain(name), graph.ty(v));
        let inputs: Vec<String> = graph.inputs.iter().map(|i| port(&i.name, i.value)).collect();
        let outputs: Vec<String> = graph.outputs.iter().map(|(name, v)| port(name, *v)).collect();
        let flops = flops(&graph);
        let matrices = brolga::compression::matrices(&graph);
        if self.json {
            let report = serde_json::json!({
                "name": graph.name, "family": summary.family, "tensors": summary.tensors, "parameters": summary.parameters,
                "weights_bytes": summary.bytes, "inputs": inputs, "outputs": outputs, "flops": flops.to_string(),
                "compressed": matrices.iter().map(|m| serde_json::json!({
                    "module": m.module, "shape": m.shape, "stored_bytes": m.stored, "bytes": m.kept, "error": m.error,
                })).collect::<Vec<_>>(),
            });
            return print_json(&report);
        }
        let dtypes: Vec<&str> = summary.bytes.keys().map(String::as_str).collect();
        let bytes: u64 = summary.bytes.values().sum();
        let mut out = format!(
            "{:<12} {}, a model of the family {}\nweights      {} tensors of {}, {} parameters, {bytes} bytes\n",
            if self.model.is_dir() { "folder" } else { "GGUF file" },
            plain(&graph.name),
            plain(&summary.family),
            summary.tensors,
            dtypes.join(" and "),
            summary.parameters
        );
        list(&mut out, "inputs", inputs.into_iter());
        list(&mut out, "outputs", outputs.into_iter());
        let _ = writeln!(out, "flops        {flops}");
        compressed(&mut out, &matrices);
        print(&out)
    }

    fn artefact(&self) -> Outcome {
        let bytes = std::fs::read(&self.model).map_err(|e| brolga::Error::io(&self.model, e))?;
        let artefact = brolga::abi::artefact::Artefact::parse(&bytes)
            .map_err(|e| brolga::Error::file(&self.model, e.to_string()))?;
        artefact
            .check_weights(&bytes)
            .map_err(|e| brolga::Error::file(&self.model, e.to_string()))?;
        let programs = artefact.programs().iter().map(|p| &p.meta);
        if self.json {
            let mut reports = programs.map(report);
            let mut first = reports.next().expect("an artefact has a program");
            let beside: Vec<_> = reports.collect();
            if !beside.is_empty() {
                first["beside"] = beside.into();
            }
            return print_json(&first);
        }
        let mut out = String::new();
        programs.for_each(|m| describe(&mut out, m));
        let _ = writeln!(out, "weights      {} bytes", artefact.weights().len());
        print(&out)
    }
}

/// Its inputs and its outputs, with their types.
fn ports(m: &Meta) -> [Vec<String>; 2] {
    let inputs = m.inputs.iter();
    let inputs = inputs.map(|i| format!("{}: {}{}", i.name, i.dtype, m.input_shape(i)));
    let outputs = m.outputs.iter().map(|o| format!("{}: {}{}", o.name, o.dtype, o.shape));
    [inputs.collect(), outputs.collect()]
}

fn report(m: &Meta) -> serde_json::Value {
    let [inputs, outputs] = ports(m);
    let hosts: Vec<&str> = m.host_ops.iter().map(|h| h.node.as_str()).collect();
    serde_json::json!({
        "name": m.name, "compiler": m.compiler, "target": m.target, "features": m.features,
        "inputs": inputs, "outputs": outputs, "kernels": m.kernels.len(),
        "weights_bytes": m.weights_bytes, "host_operators": hosts,
    })
}

fn describe(out: &mut String, m: &Meta) {
    let _ = writeln!(
        out,
        "artefact     {}, compiled by {} for {}",
        m.name, m.compiler, m.target
    );
    let _ = writeln!(out, "CPU features {}", m.features.join(" "));
    let [inputs, outputs] = ports(m);
    list(out, "inputs", inputs.into_iter());
    list(out, "outputs", outputs.into_iter());
    let _ = writeln!(out, "kernels      {}", m.kernels.len());
    if !m.host_ops.is_empty() {
        let hosts: Vec<&str> = m.host_ops.iter().map(|h| h.node.as_str()).collect();
        let _ = writeln!(out, "host ops     {}", hosts.join(", "));
    }
}

/// Floating-point operations of the contractions and convolutions, which are nearly all: a multiplication and an addition
/// for each product.
fn flops(g: &Graph) -> Dim {
    let mut sum = Dim::ZERO;
    for n in &g.nodes {
        let ty = |i: usize| g.ty(n.inputs[i]);
        let products = match n.op.name() {
            "contract" => {
                let summed = n.op.axes("lhs_contract").into_iter().map(|a| ty(0).shape[a].clone());
                summed.fold(g.ty(n.outputs[0]).len(), |p, d| &p * &d)
            }
            "block_product" | "packed_product" => &ty(0).len() * &g.ty(n.outputs[0]).shape[1],
            // Weights are [out, in / groups, window…].
            "conv" => brolga::ir::dim::product(ty(1).shape.iter().skip(1)) * g.ty(n.outputs[0]).len(),
            _ => continue,
        };
        sum = &sum + &(&products * 2);
    }
    sum
}

/// What each matrix takes in fewer bits, and loses.
fn compressed(out: &mut String, matrices: &[Matrix]) {
    if matrices.is_empty() {
        return;
    }
    let [stored, kept] =
        [|m: &Matrix| m.stored, |m: &Matrix| m.kept].map(|bytes| matrices.iter().map(bytes).sum::<u64>());
    let _ = writeln!(
        out,
        "compressed   {} matrices of {stored} bytes in {kept}, {:.1} %\n\n{:>12}{:>14}{:>12}{:>9}  module",
        matrices.len(),
        100.0 * kept as f64 / stored as f64,
        "extents",
        "stored bytes",
        "bytes",
        "error"
    );
    for m in matrices {
        let [a, b] = m.shape;
        let error = m.error.map_or("computed".into(), |e| format!("{:.2} %", 100.0 * e));
        let extents = format!("{a} x {b}");
        let module = plain(&m.module);
        let _ = writeln!(out, "{extents:>12}{:>14}{:>12}{error:>9}  {module}", m.stored, m.kept);
    }
}

fn shape(p: &Port) -> String {
    match &p.shape {
        Some(dims) => format!("{}: {}[{}]", p.name, p.dtype, dims.join(", ")),
        None => format!("{}: {} of unknown rank", p.name, p.dtype),
    }
}

fn list(out: &mut String, title: &str, rows: impl Iterator<Item = String>) {
    let mut title = title;
    for row in rows {
        let _ = writeln!(out, "{title:<12} {}", plain(&row));
        title = "";
    }
}

fn text(s: &Summary, flops: Option<&Dim>, problem: Option<&str>) -> String {
    let mut out = format!("model        {}\nproducer     {}\n", plain(&s.name), plain(&s.producer));
    list(
        &mut out,
        "opset",
        s.opsets
            .iter()
            .map(|(d, v)| format!("{} {v}", if d.is_empty() { "ai.onnx" } else { d })),
    );
    list(&mut out, "inputs", s.inputs.iter().map(shape));
    list(&mut out, "outputs", s.outputs.iter().map(shape));
    let _ = writeln!(out, "parameters   {} ({} bytes)", s.parameters, s.parameter_bytes);
    if let Some(f) = flops {
        let _ = writeln!(out, "FLOPs        {f} in contractions and convolutions");
    }
    list(
        &mut out,
        "operators",
        s.operators.iter().map(|o| {
            let mark = if o.supported { "" } else { "   (not supported)" };
            format!("{:>5} {}{mark}", o.count, o.operator)
        }),
    );
    let _ = match problem {
        Some(p) => writeln!(out, "not supported: {p}"),
        None => writeln!(out, "supported    yes"),
    };
    out
}

fn json(s: &Summary, flops: Option<&Dim>, problem: Option<&str>) -> serde_json::Value {
    let port = |p: &Port| serde_json::json!({"name": p.name, "dtype": p.dtype, "shape": p.shape});
    let operators = s
        .operators
        .iter()
        .map(|o| serde_json::json!({"operator": o.operator, "count": o.count, "supported": o.supported}));
    serde_json::json!({
        "name": s.name,
        "producer": s.producer,
        "opsets": s.opsets.iter().map(|(d, v)| serde_json::json!({"domain": d, "version": v})).collect::<Vec<_>>(),
        "inputs": s.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": s.outputs.iter().map(port).collect::<Vec<_>>(),
        "parameters": s.parameters,
        "parameter_bytes": s.parameter_bytes,
        "flops": flops.map(|f| f.as_const().map_or_else(|| serde_json::json!(f.to_string()), |n| serde_json::json!(n))),
        "operators": operators.collect::<Vec<_>>(),
        "problem": problem,
    })
}
