//! `brolga doctor`: what keeps a model from being compiled, all at once.

use super::watch::WatchArgs;
use super::{CompileArgs, Failure, Outcome, print, print_json};
use clap::Args;
use std::path::PathBuf;

/// Say what keeps a model from being compiled, all at once, and what is worth knowing of it
#[derive(Args)]
#[command(after_help = "\
Exit status: 0 when the model compiles, 1 when it does not, 2 when it cannot be read.

Examples:
  brolga doctor model.onnx
  brolga doctor model.onnx --pin sr=16000 --input-shape x=1,?
  brolga doctor model.onnx --json")]
pub struct Doctor {
    /// The model: ONNX, a folder of safetensors, or a GGUF file
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Doctor {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let (options, watch) = self.watch.watched(&self.compile)?;
        let report = brolga::doctor::examine(&self.model, &options)?;
        let mut all = self.json.then(|| report.json(&self.model));
        if let Some(watch) = watch {
            watch.finish(None, all.as_mut());
        }
        match all {
            Some(all) => print_json(&all)?,
            None => print(&report.text(&self.model))?,
        }
        match report.compiles() {
            true => Ok(()),
            false => Err(Failure::Reported),
        }
    }
}
