//! Errors of the ONNX importer. Each names the file, and the model's node where there is one.

use brolga_ir::plain;
use std::fmt;

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or mapped.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model, or the model as a whole contradicts itself.
    #[error("{file}: {}", plain(.message))]
    Model {
        /// The file.
        file: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A node is wrong.
    #[error("{file}: node `{}`: {}", plain(.node), plain(.message))]
    Node {
        /// The file.
        file: String,
        /// The node's name.
        node: String,
        /// What was found and what was expected.
        message: String,
    },
    /// The model is valid but uses what is not supported; everything that it uses is listed.
    #[error("{file}: {}", list(.items))]
    Unsupported {
        /// The file.
        file: String,
        /// Every unsupported operator or feature.
        items: Vec<Unsupported>,
    },
}

/// One operator, or one feature of an operator, that is not supported, with the nodes that use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The operator's name, with its domain when that is not the default one.
    pub operator: String,
    /// Which feature of it; empty when the operator as such is not supported.
    pub feature: String,
    /// The names of the nodes.
    pub nodes: Vec<String>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.operator))?;
        if !self.feature.is_empty() {
            write!(f, " ({})", plain(&self.feature))?;
        }
        write!(f, " at {}", plain(&self.nodes.join(", ")))
    }
}

fn list(items: &[Unsupported]) -> String {
    let lines: Vec<String> = items.iter().map(|u| format!("\n  {u}")).collect();
    let plural = if items.len() == 1 { "" } else { "s" };
    format!("{} unsupported operator{plural}:{}", items.len(), lines.concat())
}

/// What an operator's importer returns when it cannot go on.
#[derive(Debug)]
pub enum Fail {
    /// The node is wrong.
    Bad(String),
    /// The node uses a feature that is not supported.
    Unsupported(String),
    /// The result is unknown because of something unsupported that is listed already.
    Skipped,
    /// A node of an inlined body is wrong.
    Nested(Box<Error>),
}

impl From<String> for Fail {
    fn from(s: String) -> Fail {
        Fail::Bad(s)
    }
}
impl From<&str> for Fail {
    fn from(s: &str) -> Fail {
        Fail::Bad(s.to_string())
    }
}

/// A failure for a feature that is not supported.
pub fn unsupported<T>(feature: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Unsupported(feature.into()))
}
