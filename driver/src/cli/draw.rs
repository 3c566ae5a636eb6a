//! `brolga draw`: a picture of a model at one of the levels.

use super::watch::WatchArgs;
use super::{CompileArgs, Outcome, print_to};
use brolga::draw::{Drawing, dot, svg};
use brolga::levels::{Level, Walk};
use brolga::{Error, source};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is drawn.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The model as it was read, at whatever level, before passes
    Imported,
    /// The optimised tensor graph
    Tensor,
    /// Structured kernels, over the memory between them
    Structured,
    /// The program of loop nests, before the memory is planned
    Loops,
    /// The program of loop nests with the memory plan
    Program,
}

/// The form of a picture.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A picture that browsers show
    Svg,
    /// Text for Graphviz
    Dot,
}

/// Draw a model at one of the levels
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga draw model.onnx -o model.svg
  brolga draw model.onnx --level imported -o imported.svg
  brolga draw model.onnx --level structured --format dot -o kernels.dot
  brolga draw model.onnx --level loops --kernel add_relu -o nest.svg")]
pub struct Draw {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the printed text of any level above what is drawn
    model: PathBuf,
    /// What is drawn, named as the stages of `brolga emit`
    #[arg(long, alias = "stage", value_name = "LEVEL", default_value = "tensor")]
    level: Stage,
    /// Only this kernel, as a tree of its loops
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// The form; by default that of the output's name, or svg
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Draw {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let drawing = self.drawing()?;
        let is_dot = |path: &PathBuf| path.extension().is_some_and(|e| e == "dot" || e == "gv");
        let named = self.output.as_ref().filter(|p| is_dot(p)).map(|_| Format::Dot);
        let text = match self.format.or(named).unwrap_or(Format::Svg) {
            Format::Svg => svg::text(&drawing),
            Format::Dot => dot::text(&drawing),
        };
        print_to(self.output.as_deref(), &text)
    }

    fn drawing(&self) -> Result<Drawing, super::Failure> {
        let (options, watch) = self.watch.watched(&self.compile)?;
        let module = source::model(&self.model, &options)?;
        let options = options.without_sizes();
        let level = match self.level {
            Stage::Imported => return Ok(Drawing::new(&module, self.kernel.as_deref())?),
            Stage::Tensor => Level::Tensor,
            Stage::Structured => Level::Structured,
            Stage::Loops => Level::Loops,
            Stage::Program => Level::Program,
        };
        if module.level() > level {
            let message = "a program that is below this level already; levels go down only";
            return Err(Error::file(&self.model, message).into());
        }
        let walk = Walk::new(module, &options)?.shown(level)?;
        if let Some(watch) = watch {
            watch.finish(None, None);
        }
        self.compile.say_tuned(&walk.tuned);
        self.watch.remark(walk.remarks());
        Ok(Drawing::new(&walk.module, self.kernel.as_deref())?)
    }
}
