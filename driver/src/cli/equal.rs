//! `brolga equal`: whether two models compute the same by a set of rules, and by which steps.

use super::{CompileArgs, Failure, Outcome, print, print_json, print_to};
use brolga::explain::Equal;
use brolga::source;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Say whether two models are equal by rewrite rules, and by which steps
#[derive(Args)]
#[command(after_help = "\
Inputs and outputs are matched by their order. Models that the rules do not prove equal may be so all the same.

Exit status: 0 when they are equal, 1 when the rules do not show it, 2 on any error.

Examples:
  brolga equal a.txt b.txt
  brolga equal a.txt b.txt --rules my.rules --unchecked-rules
  brolga equal model.onnx simplified.onnx --proof equal.proof")]
pub struct EqualTo {
    /// A model, or the text of a tensor graph
    left: PathBuf,
    /// Another
    right: PathBuf,
    /// Write the steps to this file, for `brolga check-proof`
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl EqualTo {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.compile.options()?;
        let graph = |path| source::graph_for(path, &options);
        let equal = Equal::new(graph(&self.left)?, graph(&self.right)?, &options.without_sizes())?;
        let Some(proof) = &equal.proof else {
            let open: Vec<&str> = equal.open.iter().map(|n| &**n).collect();
            match self.json {
                true => print_json(&json!({
                    "equal": false, "open": open, "saturation": equal.report.to_string(),
                }))?,
                false => print(&format!(
                    "not shown to be equal: {}\n{}\n",
                    open.join(", "),
                    equal.report.stop
                ))?,
            }
            return Err(Failure::Reported);
        };
        let equations: Vec<String> = (0..proof.steps.len()).map(|k| proof.equation(k)).collect();
        if self.json {
            let steps = proof.steps.iter().zip(&equations);
            let steps: Vec<_> = steps
                .map(|(s, e)| json!({"rule": s.rule, "class": s.promise.to_string(), "equation": e}))
                .collect();
            print_json(&json!({"equal": true, "steps": steps}))?;
        } else {
            let lines = proof.steps.iter().zip(&equations).zip(1..);
            let lines: String = lines
                .map(|((s, e), n)| format!("{n}. {} [{}]: {e}\n", s.rule, s.promise))
                .collect();
            let steps = match proof.steps.len() {
                1 => "1 step".to_owned(),
                n => format!("{n} steps"),
            };
            print(&format!("equal by {steps}\n{lines}"))?;
        }
        match &self.proof {
            Some(path) => print_to(Some(path), &proof.to_string()),
            None => Ok(()),
        }
    }
}
