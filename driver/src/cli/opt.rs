//! `brolga opt`: text IR of any level in, a pipeline, text IR of whatever level it leads to out.

use super::watch::WatchArgs;
use super::{CompileArgs, Outcome, print_to};
use brolga::levels::Walk;
use brolga::reproducer::Reproducer;
use brolga::{Error, source};
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Run passes over a model, from any level's text to any other's below it
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga opt graph.txt --pipeline canonicalize
  brolga emit model.onnx --stage tensor --pipeline '' | brolga opt - --pipeline eqsat
  brolga opt model.onnx --passes canonicalize,eqsat,lower,bufferize,choose -o kernels.txt
  brolga opt kernels.txt --passes schedule,plan-memory
  brolga opt model.onnx --print-ir-after-change -o cut.txt
  brolga opt model.onnx --passes canonicalize,eqsat,lower --time-passes --pass-stats -o kernels.txt")]
pub struct Opt {
    /// The text of any level, an ONNX model, a folder of safetensors, a GGUF file, or - for text from standard input
    input: PathBuf,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replay a reproducer, which an error about a pass names: its passes on its module
    #[arg(long, conflicts_with_all = ["pipeline", "target", "aliases", "rules", "add_rules", "fp"])]
    run_reproducer: bool,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl Opt {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let (mut options, watch) = self.watch.watched(&self.compile)?;
        if self.run_reproducer {
            options = Reproducer::read(&self.input)?.options(&options)?;
        }
        let module = if self.input == Path::new("-") {
            let mut text = String::new();
            let path = Path::new("<stdin>");
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Error::io(path, e))?;
            source::parse(&text, path, &options)?
        } else {
            source::model(&self.input, &options)?
        };
        let options = options.without_sizes();
        let walk = Walk::new(module, &options)?;
        if let Some(watch) = watch {
            watch.finish(None, None);
        }
        self.watch.remark(walk.remarks());
        print_to(self.output.as_deref(), &walk.module.to_string())
    }
}
