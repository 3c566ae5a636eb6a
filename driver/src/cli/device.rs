//! Where `brolga run` runs a model: on the CPU, or on a GPU.

use super::Failure;
use brolga::abi::Input;
#[cfg(feature = "cuda")]
use brolga::cuda::CudaSession;
use brolga::ir::Strings;
use brolga::tune::applied::Tuned;
use brolga::{Buffer, Options, Session, SessionOptions, Specialise, Timings, View};
use std::path::Path;

/// A loaded model.
pub enum Loaded {
    /// On the CPU.
    Cpu(Box<Session>),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaSession>),
}

impl Loaded {
    /// Loads a model for `cpu` or `cuda`; on the CPU, one version may be made for the sizes of the inputs.
    pub fn load(
        device: &str,
        path: &Path,
        options: Options,
        threads: usize,
        specialise: bool,
    ) -> Result<Loaded, Failure> {
        if device == "cpu" {
            let how = Specialise {
                versions: usize::from(specialise),
                at_once: true,
            };
            let session = SessionOptions::default()
                .compile(options)
                .threads(threads)
                .specialise(how);
            return Ok(Loaded::Cpu(Box::new(session.load(path)?)));
        }
        if specialise {
            return Err("--specialise is for the CPU; --set gives symbolic dimensions their sizes everywhere".into());
        }
        #[cfg(feature = "cuda")]
        return Ok(Loaded::Cuda(Box::new(CudaSession::load(path, &options)?)));
        #[cfg(not(feature = "cuda"))]
        return Err("this build has no CUDA support; build it with the feature `cuda`, or run on the CPU".into());
    }

    /// Runs on inputs by name.
    pub fn run_named(&self, inputs: &[(&str, View)]) -> Result<Vec<Buffer>, brolga::Error> {
        match self {
            Loaded::Cpu(s) => s.run_named(inputs),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => s.run_named(inputs),
        }
    }

    /// The inputs, and the names of the symbols in their shapes.
    pub fn inputs(&self) -> (&[Input], Vec<String>) {
        match self {
            Loaded::Cpu(s) => (s.inputs(), s.meta().symbols.clone()),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => {
                let symbols = s.model().program.symbols.iter();
                (s.inputs(), symbols.map(|s| s.to_string()).collect())
            }
        }
    }

    /// Whether an input has a value where none is given.
    pub fn has_default(&self, input: &Input) -> bool {
        match self {
            Loaded::Cpu(_) => input.default.is_some(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => s.has_default(&input.name),
        }
    }

    /// The outputs' names, in the order of the results.
    pub fn outputs(&self) -> Vec<String> {
        match self {
            Loaded::Cpu(s) => s.outputs().iter().map(|o| o.name.clone()).collect(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => s.model().program.outputs.iter().map(|(n, _)| n.clone()).collect(),
        }
    }

    /// The strings of a run.
    pub fn strings(&self) -> Strings {
        match self {
            Loaded::Cpu(s) => s.strings(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => Strings::new(&s.model().program.strings),
        }
    }

    /// How long loading and compiling took.
    pub fn timings(&self) -> Timings {
        match self {
            Loaded::Cpu(s) => s.timings(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => s.timings(),
        }
    }

    /// What passes remarked; none for what was compiled before.
    pub fn remarks(&self) -> &[String] {
        match self {
            Loaded::Cpu(s) => s.remarks(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(s) => &s.model().remarks,
        }
    }

    /// What became of the records that it was compiled with.
    pub fn tuned(&self) -> Tuned {
        match self {
            Loaded::Cpu(s) => s.tuned().clone(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(_) => Tuned::default(),
        }
    }

    /// The sizes that there are versions of the model for.
    pub fn specialised(&self) -> Vec<Vec<i64>> {
        match self {
            Loaded::Cpu(s) => s.specialised(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(_) => vec![],
        }
    }

    /// Threads of the CPU that take part.
    pub fn workers(&self) -> u32 {
        match self {
            Loaded::Cpu(s) => s.executor().workers(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda(_) => 1,
        }
    }
}
