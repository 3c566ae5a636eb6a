//! `brolga emit`: a model at one of the levels, as text.

use super::{CompileArgs, Outcome, print_to};
use brolga::ir::Target;
use brolga::source::{self, Model};
use brolga::{Error, backend, levels};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// A level to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The optimised tensor graph
    Tensor,
    /// Structured kernels
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
  brolga emit model.onnx --stage asm --target x86-64-v4
  brolga emit model.onnx --stage ptx --target sm_90")]
pub struct Emit {
    /// The model: ONNX, or the printed text of any level above the stage
    model: PathBuf,
    /// The level
    #[arg(long, value_name = "STAGE")]
    stage: Stage,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArgs,
}

impl Emit {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        print_to(self.output.as_deref(), &self.text()?)
    }

    fn text(&self) -> Result<String, super::Failure> {
        let mut options = self.compile.options()?;
        if self.stage == Stage::Ptx && options.target.gpu().is_none() {
            options.target = Target::sm_80();
        }
        let model = source::model(&self.model, &options)?;
        let options = options.without_sizes();
        if matches!(self.stage, Stage::Clif | Stage::Asm) {
            let compiled = brolga::compile::compile_model(model, &options)?;
            self.compile.remark(&compiled.remarks);
            let parts = compiled.listings()?.into_iter().map(|l| {
                let body = if self.stage == Stage::Clif { &l.ir } else { &l.asm };
                format!("; {} ({} bytes)\n{}\n\n", l.name, l.bytes, body.trim_end())
            });
            return Ok(parts.collect());
        }
        let structured = match model {
            Model::Tensor(graph) => {
                let (cut, remarks) = levels::optimise(&graph, &options)?;
                self.compile.remark(&remarks);
                if self.stage == Stage::Tensor {
                    return Ok(cut.to_string());
                }
                levels::structured(&cut, &options)?
            }
            Model::Structured(s) if self.stage != Stage::Tensor => s,
            Model::Program(p) if self.stage == Stage::Loops => return Ok(p.to_string()),
            Model::Program(p) if self.stage == Stage::Program => return Ok(levels::planned(p, &options)?.to_string()),
            _ => {
                let message = "a program that is below this stage already; levels go down only";
                return Err(Error::file(&self.model, message).into());
            }
        };
        Ok(match self.stage {
            Stage::Structured => structured.to_string(),
            Stage::Loops => levels::loops(&structured, &options.target).to_string(),
            Stage::Ptx => {
                let program = levels::loops(&structured, &options.target);
                let input = backend::Input {
                    program: &program,
                    target: &options.target,
                    prefix: &program.name,
                    constants: &Default::default(),
                };
                let listings = backend::of(&options.target).listings(input);
                let listings = listings.map_err(|source| Error::Codegen {
                    model: program.name.clone(),
                    source,
                })?;
                listings.into_iter().map(|l| l.asm).collect()
            }
            _ => levels::program(&structured, &options)?.to_string(),
        })
    }
}
