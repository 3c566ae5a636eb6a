//! `brolga compile`: a model becomes an object file, a static or shared library, or an artefact.

use super::{CompileArgs, Outcome, note, print, time};
use brolga::output::WeightsIn;
use clap::Args;
use std::path::PathBuf;

/// Compile a model ahead of time
#[derive(Args)]
#[command(after_help = "\
The extension of --output decides what is written:
  .o, .obj       an object file
  .a, .lib       a static library
  .so            a shared library (linked by the C compiler that CC names, else cc)
  .brolga        an artefact, which `brolga run` maps and starts without compiling

Examples:
  brolga compile model.onnx -o model.o --header model.h
  brolga compile model.onnx -o model.a --header model.h --weights model.bin
  brolga compile model.onnx -o model.brolga --cpu x86-64-v3
  brolga compile model.onnx -o model.o --target aarch64-unknown-linux-gnu")]
pub struct Compile {
    /// The model: ONNX, or a printed tensor graph
    model: PathBuf,
    /// What to write; the extension decides the kind
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write a C header
    #[arg(long, value_name = "FILE")]
    header: Option<PathBuf>,
    /// Write the weights to a file of their own instead of into the object
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What symbols begin with, instead of the model's name
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// Print what was written, and the time of each phase, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl Compile {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let extension = self
            .output
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !["o", "obj", "a", "lib", "so", "brolga"].contains(&extension.as_str()) {
            return Err(format!(
                "{}: cannot tell what to write from the extension; expected .o, .a, .so or .brolga",
                self.output.display()
            )
            .into());
        }
        if extension == "brolga" && (self.header.is_some() || self.weights.is_some()) {
            return Err("an artefact holds its weights and has no C header; leave out --header and --weights".into());
        }
        let mut c = brolga::compile_file(&self.model, &self.compile.options()?)?;
        self.compile.remark(&c.remarks);
        if let Some(p) = &self.prefix {
            c.prefix = brolga::abi::symbol_prefix(p);
        }
        if !c.meta.host_ops.is_empty() && extension != "brolga" {
            let ops: Vec<String> = c.meta.host_ops.iter().map(|h| format!("`{}`", h.node)).collect();
            note(&format!(
                "the caller has to supply {} host operators (see the header): nodes {}",
                ops.len(),
                ops.join(", ")
            ));
        }
        let place = if self.weights.is_some() {
            WeightsIn::File
        } else {
            WeightsIn::Object
        };
        let start = std::time::Instant::now();
        match extension.as_str() {
            "o" | "obj" => c.write_object(&self.output, place)?,
            "a" | "lib" => c.write_archive(&self.output, place)?,
            "so" => c.write_shared(&self.output, place)?,
            _ => c.write_artefact(&self.output)?,
        }
        c.timings.codegen = start.elapsed();
        if let Some(path) = &self.weights {
            c.write_weights(path)?;
        }
        if let Some(path) = &self.header {
            c.write_header(path, place)?;
        }
        let size = std::fs::metadata(&self.output).map_or(0, |m| m.len());
        let t = c.timings;
        if self.json {
            let report = serde_json::json!({
                "output": self.output.display().to_string(),
                "bytes": size,
                "weights_bytes": c.meta.weights_bytes,
                "kernels": c.program.kernels.len(),
                "target": c.target.name,
                "seconds": {
                    "load": t.load.as_secs_f64(),
                    "optimise": t.optimise.as_secs_f64(),
                    "lower": t.lower.as_secs_f64(),
                    "constants": t.constants.as_secs_f64(),
                    "codegen": t.codegen.as_secs_f64(),
                },
            });
            return print(&format!("{report:#}\n"));
        }
        note(&format!(
            "wrote {} ({size} bytes) for {}: load {}, optimise {}, lower {}, constants {}, codegen {}",
            self.output.display(),
            c.target.name,
            time(t.load.as_secs_f64()),
            time(t.optimise.as_secs_f64()),
            time(t.lower.as_secs_f64()),
            time(t.constants.as_secs_f64()),
            time(t.codegen.as_secs_f64()),
        ));
        Ok(())
    }
}
