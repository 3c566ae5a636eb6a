//! Everything that can go wrong between a file and a running model. Each message names the file, and the model's node
//! where there is one.

use brolga_ir::NodeError;
use brolga_ir::text::ParseError;
use std::path::{Path, PathBuf};

/// Why a model could not be read, compiled or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be read.
    #[error(transparent)]
    Import(#[from] brolga_frontend::onnx::Error),
    /// The model's folder cannot be read.
    #[error(transparent)]
    Folder(#[from] brolga_frontend::safetensors::Error),
    /// The model cannot be optimised or lowered.
    #[error("{model}: {source}{}", reproducer.as_deref().map(crate::reproducer::advice).unwrap_or_default())]
    Passes {
        /// The model.
        model: String,
        /// What is wrong, and where.
        source: brolga_passes::pass::PassError,
        /// The file that shows it again, where one was written.
        reproducer: Option<PathBuf>,
    },
    /// The model cannot be lowered.
    #[error("{model}: {source}")]
    Lower {
        /// The model.
        model: String,
        /// What is wrong, and where.
        source: NodeError,
    },
    /// No code can be made.
    #[error("{model}: {source}")]
    Codegen {
        /// The model.
        model: String,
        /// What is wrong.
        source: brolga_codegen::Error,
    },
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Runtime(#[from] brolga_runtime::Error),
    /// The model cannot be loaded or run on a GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] brolga_runtime::cuda::Error),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A text is not what it should be.
    #[error("{}:{source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where, what was found and what was expected.
        source: ParseError,
    },
    /// A file holds something else than expected.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// Constants need more memory than they may have.
    #[error("{model}: its constants need {needed} bytes, the memory limit is {limit}; raise it with --memory-limit")]
    MemoryLimit {
        /// The model.
        model: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Option(String),
    /// The C compiler that links a shared library is missing or failed.
    #[error("{0}")]
    Linker(String),
}

impl Error {
    /// An error about a file.
    pub fn file(path: &Path, message: impl Into<String>) -> Error {
        Error::File {
            path: path.to_owned(),
            message: message.into(),
        }
    }
    /// An error of the system about a file.
    pub fn io(path: &Path, source: std::io::Error) -> Error {
        Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}
