//! What a pass over the tensor IR is.

use brolga_ir::{Graph, NodeError, Target};

/// What passes share: the machine to optimise for, and where they say what they did.
pub struct Context {
    /// The machine.
    pub target: Target,
    /// What was done, and what was not and why, in the order in which it was said.
    pub remarks: Vec<String>,
}

impl Context {
    /// A context without remarks.
    pub fn new(target: Target) -> Context {
        Context {
            target,
            remarks: vec![],
        }
    }
}

/// Why a pass failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("pass `{pass}`: {error}")]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// The error, with the model node where there is one.
    pub error: NodeError,
}

impl PassError {
    /// An error that belongs to no node.
    pub fn new(pass: &'static str, message: impl Into<String>) -> PassError {
        PassError {
            pass,
            error: NodeError {
                node: String::new(),
                message: message.into(),
            },
        }
    }
}

/// A pass: a struct whose fields are its options. Valid IR in, valid IR out.
pub trait Pass: Send + Sync {
    /// The name in pipelines.
    fn name(&self) -> &'static str;
    /// The options that differ from their defaults, as a pipeline writes them: `nodes=50000 rules=exact`.
    fn options(&self) -> String;
    /// The graph after the pass.
    ///
    /// # Errors
    /// When the graph cannot be transformed; the error names the pass and the node.
    fn run(&self, g: &Graph, cx: &mut Context) -> Result<Graph, PassError>;
}
