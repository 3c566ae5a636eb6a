//! `brolga opt`: text IR in, a pipeline, text IR out.

use super::{CompileArgs, Outcome, print_to};
use brolga::{Error, levels, source};
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Run passes over a printed tensor graph
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga opt graph.txt --pipeline canonicalize
  brolga emit model.onnx --stage tensor --pipeline '' | brolga opt - --pipeline eqsat")]
pub struct Opt {
    /// The graph as text, an ONNX model, or - for text from standard input
    input: PathBuf,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
}

impl Opt {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.compile.options()?;
        let graph = if self.input == Path::new("-") {
            let mut text = String::new();
            let path = Path::new("<stdin>");
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|e| Error::io(path, e))?;
            levels::specialise(&source::parse_graph(&text, path)?, &options.sizes)?
        } else {
            source::graph_for(&self.input, &options)?
        };
        let (graph, remarks) = levels::optimise(&graph, &options)?;
        self.compile.remark(&remarks);
        print_to(self.output.as_deref(), &graph.to_string())
    }
}
