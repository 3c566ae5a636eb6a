//! `brolga why-not`: why a rule did nothing to a node of a model.

use super::{CompileArgs, Outcome, print, print_json};
use brolga::explain::Explained;
use brolga::passes::eqsat::why::{Answer, why_not};
use brolga::source;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Say why a rewrite rule did nothing to a node of a model
#[derive(Args)]
#[command(after_help = "\
The answer is the part of the rule's pattern at which it fails, or the condition; or that it was applied, and what a program would cost
that uses what it made. Rules and their names: docs/rules.md, and `brolga verify-rules`.

Examples:
  brolga why-not conv-scale model.onnx BatchNormalization_3
  brolga why-not my-rule model.onnx Add_7 --add-rules my.rules")]
pub struct WhyNot {
    /// The rule
    rule: String,
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the text of a tensor graph
    model: PathBuf,
    /// The model node
    node: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl WhyNot {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.compile.options()?;
        let graph = source::graph_for(&self.model, &options)?;
        let explained = Explained::new(graph, &options.without_sizes())?;
        let (rule, nodes) = (explained.rule(&self.rule)?, explained.nodes(&self.node)?);
        let answer = why_not(&explained.derivation, &explained.graph, &explained.rules, rule, &nodes);
        match self.json {
            false => print(&format!("{} at {}: {answer}\n", self.rule, self.node)),
            true => print_json(&json!({
                "rule": self.rule,
                "node": self.node,
                "answer": match &answer {
                    Answer::Pattern { .. } => "pattern",
                    Answer::Condition(_) => "condition",
                    Answer::Kept(_) => "kept",
                    Answer::Used => "used",
                    Answer::Lost(_) => "lost",
                    Answer::Unused => "unused",
                    Answer::NoKernel => "no-kernel",
                },
                "seconds": match &answer {
                    Answer::Lost(s) => Some(s),
                    _ => None,
                },
                "text": answer.to_string(),
            })),
        }
    }
}
