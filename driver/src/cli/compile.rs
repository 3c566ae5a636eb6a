//! `brolga compile`: a model becomes an object file, a static or shared library, or an artefact.

use super::watch::{Watch, WatchArgs};
use super::{CompileArgs, Outcome, is_stdout, note, print, print_json, time, warning};
use brolga::output::{Outputs, WeightsIn};
use brolga::report::{self, Report};
use brolga::{Options, source};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An object file
    Object,
    /// A static library
    Archive,
    /// A shared library
    Shared,
    /// An artefact for `brolga run`
    Artefact,
}

/// Compile a model ahead of time
#[derive(Args)]
#[command(after_help = "\
The extension of --output decides what is written, unless --kind does:
  .o, .obj       an object file
  .a, .lib       a static library
  .so            a shared library (linked by the C compiler that CC names, else cc)
  .brolga        an artefact, which `brolga run` maps and starts without compiling
Standard output (-), devices and pipes get an object file where neither says otherwise.

Examples:
  brolga compile model.onnx -o model.o --header model.h
  brolga compile model.onnx -o model.a --header model.h --weights model.bin
  brolga compile model.onnx -o model.o --report --no-host-ops
  brolga compile model.onnx -o model.brolga --target x86-64-v3
  brolga compile folder -o model.brolga --generator --weights int8
  brolga compile model.onnx -o model.o --target aarch64-unknown-linux-gnu")]
pub struct Compile {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the printed text of any level
    model: PathBuf,
    /// What to write, or - for standard output; the extension decides the kind
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The kind of output, whatever its extension
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Write a C header
    #[arg(long, value_name = "FILE")]
    header: Option<PathBuf>,
    /// Compile the language model of a folder or a GGUF file for generation: in steps, with its tokenizer and template of chats, into an artefact; an
    /// encoder with its decoder
    #[arg(long)]
    generator: bool,
    /// What symbols begin with, instead of the model's name
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,
    /// Say which nodes of the model became which kernels, and which stayed operators of the host
    #[arg(long)]
    report: bool,
    /// Refuse a model that needs an operator of the host
    #[arg(long)]
    no_host_ops: bool,
    /// Print what was written, and the time of each phase, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Compile {
    /// Runs the command.
    pub fn run(mut self) -> Outcome {
        let kind = self.kind()?;
        let weights = self.compile.model.take_weights_file()?;
        if kind == Kind::Artefact && (self.header.is_some() || weights.is_some() || self.prefix.is_some()) {
            let message = "an artefact holds its weights, and has no C header and no symbols; leave out --header, --weights \
                and --prefix";
            return Err(message.into());
        }
        let outputs = [Some(&self.output), self.header.as_ref(), weights.as_ref()];
        let to_stdout = outputs.into_iter().flatten().filter(|p| is_stdout(p)).count();
        if to_stdout + usize::from(self.json) > 1 {
            return Err("standard output can take one of --output, --header, --weights and --json; give files".into());
        }
        if to_stdout > 0 && self.report {
            return Err(
                "standard output can take one of --output, --header, --weights and --report; give files".into(),
            );
        }
        self.no_overwriting(&outputs)?;
        let (options, watch) = self.watch.watched(&self.compile)?;
        if self.generator {
            return self.generator(kind, &options, watch.as_deref());
        }
        let start = std::time::Instant::now();
        let module = source::model(&self.model, &options)?;
        let load = start.elapsed();
        let nodes = report::nodes(&module);
        let mut c = brolga::compile::compile_module(module, &options.without_sizes())?;
        c.timings.load = load;
        let report = Report::new(&nodes, &c.program);
        self.host_operators(&report, kind)?;
        self.compile.say_tuned(&c.tuned);
        self.watch.remark(&c.remarks);
        if let Some(p) = &self.prefix {
            c.prefix = brolga::abi::symbol_prefix(p);
        }
        let place = if weights.is_some() {
            WeightsIn::File
        } else {
            WeightsIn::Object
        };
        let start = std::time::Instant::now();
        // Nothing is in its place before everything is written.
        let mut files = Outputs::default();
        if let Some(path) = &self.header {
            files.add(path, c.header(place).as_bytes())?;
        }
        if let Some(path) = &weights {
            files.add(path, c.packed.bytes())?;
        }
        let size = match kind {
            Kind::Object => files.add(&self.output, &c.object(place)?)?,
            Kind::Archive => files.add(&self.output, &c.archive(place)?)?,
            Kind::Shared => files.add(&self.output, &c.shared(place)?)?,
            Kind::Artefact => c.write_artefact(&self.output)?,
        };
        files.commit()?;
        c.timings.codegen = start.elapsed();
        let t = c.timings;
        if self.json {
            let mut all = serde_json::json!({
                "output": self.output.display().to_string(),
                "bytes": size,
                "weights_bytes": c.meta.weights_bytes,
                "kernels": report.kernels,
                "calls": report.calls.len(),
                "host_operators": c.meta.host_ops.iter().map(|h| h.node.as_str()).collect::<Vec<_>>(),
                "target": c.target.name,
                "seconds": {
                    "load": t.load.as_secs_f64(),
                    "optimise": t.optimise.as_secs_f64(),
                    "lower": t.lower.as_secs_f64(),
                    "constants": t.constants.as_secs_f64(),
                    "codegen": t.codegen.as_secs_f64(),
                },
            });
            if self.report {
                all["report"] = report.json();
            }
            if let Some(watch) = watch {
                watch.finish(Some(&t), Some(&mut all));
            }
            return print_json(&all);
        }
        if let Some(watch) = watch {
            watch.finish(Some(&t), None);
        }
        if self.report {
            print(&report.text())?;
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

    /// Writes an artefact that generates.
    fn generator(&self, kind: Kind, options: &Options, watch: Option<&Watch>) -> Outcome {
        if kind != Kind::Artefact {
            return Err("--generator makes an artefact; give --output FILE.brolga, or --kind artefact".into());
        }
        let c = brolga::generate::model::compile(&self.model, options)?;
        for program in [&c].into_iter().chain(&c.beside) {
            self.compile.say_tuned(&program.tuned);
            self.watch.remark(&program.remarks);
        }
        let size = c.write_artefact(&self.output)?;
        let t = c.timings;
        if self.json {
            let mut all = serde_json::json!({
                "output": self.output.display().to_string(), "bytes": size,
                "seconds": { "load": t.load.as_secs_f64(), "compile": t.compile().as_secs_f64() },
            });
            if let Some(watch) = watch {
                watch.finish(Some(&t), Some(&mut all));
            }
            return print_json(&all);
        }
        if let Some(watch) = watch {
            watch.finish(Some(&t), None);
        }
        note(&format!(
            "{}: {size} bytes, compiled in {}",
            self.output.display(),
            time(t.compile().as_secs_f64())
        ));
        Ok(())
    }

    /// Checks that no output would take the place of the model or of another one.
    fn no_overwriting(&self, outputs: &[Option<&PathBuf>]) -> Result<(), String> {
        let place = |p: &Path| p.canonicalize().or_else(|_| std::path::absolute(p));
        let special = |p: &Path| std::fs::metadata(p).is_ok_and(|m| !m.is_file());
        let mut taken = vec![("the model".to_owned(), place(&self.model).ok())];
        for p in outputs.iter().flatten().filter(|p| !is_stdout(p) && !special(p)) {
            let here = place(p).ok();
            if let Some((what, _)) = taken.iter().find(|(_, other)| here.is_some() && *other == here) {
                return Err(format!("{}: it is {what} already; give another file", p.display()));
            }
            taken.push(("another output".to_owned(), here));
        }
        Ok(())
    }

    /// Says which operators run on the host, or refuses them.
    fn host_operators(&self, report: &Report, kind: Kind) -> Outcome {
        if report.host.is_empty() {
            return Ok(());
        }
        let named = |(operator, nodes): &(String, Vec<String>)| format!("`{operator}` at {}", nodes.join(", "));
        let all = report.host.iter().map(named).collect::<Vec<_>>().join("; ");
        if self.no_host_ops {
            return Err(format!("operators of the host, which --no-host-ops refuses: {all}").into());
        }
        warning(&match kind {
            Kind::Artefact => format!("operators run on the host, as their reference evaluation: {all}"),
            _ => format!("the caller has to supply operators of the host (see the header): {all}"),
        });
        Ok(())
    }

    /// What is asked for, by name, by the extension or by default.
    fn kind(&self) -> Result<Kind, String> {
        if let Some(kind) = self.kind {
            return Ok(kind);
        }
        let special = || std::fs::metadata(&self.output).is_ok_and(|m| !m.is_file() && !m.is_dir());
        match self.output.extension().and_then(|e| e.to_str()) {
            Some("o" | "obj") => Ok(Kind::Object),
            Some("a" | "lib") => Ok(Kind::Archive),
            Some("so") => Ok(Kind::Shared),
            Some("brolga") => Ok(Kind::Artefact),
            _ if is_stdout(&self.output) || special() => Ok(Kind::Object),
            _ => Err(format!(
                "{}: cannot tell what to write from the extension; expected .o, .a, .so or .brolga, or --kind",
                self.output.display()
            )),
        }
    }
}
