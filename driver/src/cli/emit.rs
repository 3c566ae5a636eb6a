//! `brolga emit`: a model at one of the levels, as text.

use super::watch::{WATCHED, WatchArgs};
use super::{CompileArgs, Outcome, print_to};
use brolga::ir::{Graph, Target};
use brolga::levels::{self, Level, Module, Walk};
use brolga::passes::eqsat::saturate::Stop;
use brolga::passes::lower::Structured;
use brolga::{Error, Options, Timings, backend, egraph, source};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A level to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The e-graph that the optimised tensor graph is chosen from, as JSON (the format of egraph-serialize)
    Egraph,
    /// The schedule that rules ran by, for `eqsat{schedule=FILE}`, with what each phase did
    Schedule,
    /// The optimised tensor graph
    Tensor,
    /// Structured kernels, with their schedules
    Structured,
    /// The program of loop nests, before the memory is planned
    Loops,
    /// The program of loop nests with the memory plan
    Program,
    /// Cranelift's IR, and the vector IR of assembled kernels
    Clif,
    /// Assembly
    Asm,
    /// PTX for NVIDIA GPUs: for the target, or sm_80 where it is a CPU
    Ptx,
}

/// Print a model at one of the levels
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga emit model.onnx --stage tensor
  brolga emit model.onnx --stage egraph -o egraph.json
  brolga emit model.onnx --stage egraph --rounds rounds
  brolga emit model.onnx --stage schedule -o as-it-was.txt
  brolga emit model.onnx --stage structured --kernel conv_3 -o kernel.txt
  brolga emit model.onnx --stage asm --target x86-64-v4
  brolga emit model.onnx --stage ptx --target sm_90")]
pub struct Emit {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the printed text of any level above the stage
    model: PathBuf,
    /// The level
    #[arg(long, value_name = "STAGE")]
    stage: Stage,
    /// Only this structured kernel, with what its time depends on, for `brolga bench` and `brolga space`
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Write the e-graph after each round of rewriting to this folder: round-1.json and so on
    #[arg(long, value_name = "DIR", conflicts_with_all = WATCHED)]
    rounds: Option<PathBuf>,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "rounds")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Emit {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        match &self.rounds {
            Some(_) if self.stage != Stage::Egraph => Err("--rounds is for --stage egraph".into()),
            Some(dir) => self.each_round(dir, self.compile.options()?),
            None => print_to(self.output.as_deref(), &self.text()?),
        }
    }

    /// The model, and the options behind it, where it is a tensor graph.
    fn graph(&self, options: Options) -> Result<(Graph, Options), super::Failure> {
        match source::model(&self.model, &options)? {
            Module::Tensor(graph) => Ok((graph, options.without_sizes())),
            _ => Err(Error::file(&self.model, "e-graphs are made of tensor graphs; levels go down only").into()),
        }
    }

    /// Writes the e-graph after each round until there are no more. Each is made from the beginning: rounds depend on the graph alone.
    fn each_round(&self, dir: &Path, options: Options) -> Outcome {
        let (graph, options) = self.graph(options)?;
        brolga::output::folder(dir)?;
        for round in 1.. {
            let kept = levels::saturated(&graph, &options, Some(round))?;
            if kept.report.rounds < round {
                break;
            }
            let text = format!("{:#}\n", egraph::serialized(&kept).to_json());
            brolga::output::write(&dir.join(format!("round-{round}.json")), text.as_bytes())?;
            if kept.report.stop != Stop::Rounds {
                break;
            }
        }
        Ok(())
    }

    fn text(&self) -> Result<String, super::Failure> {
        let (mut options, watch) = self.watch.watched(&self.compile)?;
        if self.kernel.is_some() && self.stage != Stage::Structured {
            return Err("--kernel is for --stage structured".into());
        }
        if self.stage == Stage::Schedule {
            let (graph, options) = self.graph(options)?;
            let schedule = levels::schedule(&graph, &options)?;
            if let Some(watch) = watch {
                watch.finish(None, None);
            }
            return Ok(schedule);
        }
        if self.stage == Stage::Egraph {
            let (graph, options) = self.graph(options)?;
            let kept = levels::saturated(&graph, &options, None)?;
            if let Some(watch) = watch {
                watch.finish(None, None);
            }
            self.watch.remark(&kept.remarks);
            return Ok(format!("{:#}\n", egraph::serialized(&kept).to_json()));
        }
        if self.stage == Stage::Ptx && options.target.gpu().is_none() {
            options.target = Target::sm_80();
        }
        let module = source::model(&self.model, &options)?;
        let options = options.without_sizes();
        if matches!(self.stage, Stage::Clif | Stage::Asm) {
            let compiled = brolga::compile::compile_module(module, &options)?;
            self.compile.say_tuned(&compiled.tuned);
            self.watch.remark(&compiled.remarks);
            let start = Instant::now();
            let listings = compiled.listings()?;
            if let Some(watch) = watch {
                let codegen = start.elapsed();
                let timings = Timings {
                    codegen,
                    ..compiled.timings
                };
                watch.finish(Some(&timings), None);
            }
            let parts = listings.into_iter().map(|l| {
                let body = if self.stage == Stage::Clif { &l.ir } else { &l.asm };
                format!("; {} ({} bytes)\n{}\n\n", l.name, l.bytes, body.trim_end())
            });
            return Ok(parts.collect());
        }
        let level = match self.stage {
            Stage::Egraph | Stage::Schedule | Stage::Tensor => Level::Tensor,
            Stage::Structured => Level::Structured,
            Stage::Loops | Stage::Ptx => Level::Loops,
            Stage::Program | Stage::Clif | Stage::Asm => Level::Program,
        };
        if module.level() > level {
            let message = "a program that is below this stage already; levels go down only";
            return Err(Error::file(&self.model, message).into());
        }
        let walk = Walk::new(module, &options)?.shown(level)?;
        if let Some(watch) = watch {
            watch.finish(None, None);
        }
        self.compile.say_tuned(&walk.tuned);
        self.watch.remark(walk.remarks());
        match (self.stage, &walk.module) {
            (Stage::Ptx, Module::Loops(program)) => {
                let input = backend::Input {
                    program,
                    target: &options.target,
                    prefix: &program.name,
                    constants: &Default::default(),
                };
                let listings = backend::of(&options.target).listings(input);
                let listings = listings.map_err(|source| Error::Codegen {
                    model: program.name.clone(),
                    source,
                })?;
                Ok(listings.into_iter().map(|l| l.asm).collect())
            }
            (Stage::Structured, Module::Structured(program)) if let Some(name) = &self.kernel => kernel(program, name),
            (_, module) => Ok(module.to_string()),
        }
    }
}

/// A kernel as a workload, by the name that it has in the program.
fn kernel(program: &Structured, name: &str) -> Result<String, super::Failure> {
    let all = brolga::kernels::of_program(program)?;
    let Some(found) = all.iter().find(|f| f.name == name) else {
        let known: Vec<&str> = all.iter().map(|f| &*f.name).collect();
        return Err(format!("runs call no kernel @{name}; they call @{}", known.join(", @")).into());
    };
    let mut text = format!("{}\n", program.kernels[found.kernel]);
    let constants: Vec<String> = found.workload.constants().iter().map(|c| format!("o{c}")).collect();
    if !constants.is_empty() {
        text += &format!("constant {}\n", constants.join(", "));
    }
    Ok(text)
}
