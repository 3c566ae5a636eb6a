//! `brolga emit`: a model at one of the levels, as text.

use super::{CompileArgs, Outcome, print_to};
use brolga::codegen::ptx::{Arch, print_program};
use brolga::passes::lower::{GpuOptions, to_gpu_loops};
use brolga::source::{self, Model};
use brolga::{Error, levels};
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
    /// PTX for NVIDIA GPUs
    Ptx,
}

/// Print a model at one of the levels
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga emit model.onnx --stage tensor
  brolga emit model.onnx --stage asm --cpu x86-64-v4
  brolga emit model.onnx --stage ptx --arch sm_90")]
pub struct Emit {
    /// The model: ONNX, or the printed text of any level above the stage
    model: PathBuf,
    /// The level
    #[arg(long, value_name = "STAGE")]
    stage: Stage,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The GPU that PTX is for
    #[arg(long, value_name = "ARCH", default_value = "sm_80", value_parser = ["sm_80", "sm_90"])]
    arch: String,
    #[command(flatten)]
    compile: CompileArgs,
}

impl Emit {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        print_to(self.output.as_deref(), &self.text()?)
    }

    fn text(&self) -> Result<String, super::Failure> {
        let options = self.compile.options()?;
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
                let arch = Arch::ALL
                    .into_iter()
                    .find(|a| a.name() == self.arch)
                    .unwrap_or(Arch::Sm80);
                let program = to_gpu_loops(&structured, GpuOptions::default());
                print_program(&program, arch).map_err(|source| Error::Codegen {
                    model: program.name.clone(),
                    source,
                })?
            }
            _ => levels::program(&structured, &options)?.to_string(),
        })
    }
}
