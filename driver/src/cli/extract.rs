//! `brolga extract`: the cheapest terms of an e-graph in a file.

use super::{Outcome, print_json, print_to};
use brolga::Error;
use brolga::egraph::{self, With};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Choose the cheapest terms of an e-graph in a file
#[derive(Args)]
#[command(after_help = "\
The file is of the format of egraph-serialize, as `brolga emit --stage egraph` writes it. Costs of nodes add up, each class once. `tree`
chooses by trees, in which what is shared counts each time, `greedy` by sets, `exact` by branch and bound; whether that came to its end,
the field `proven` says. Printed are the cost and the node of each class, as JSON.

Examples:
  brolga emit model.onnx --stage egraph -o egraph.json
  brolga extract egraph.json --with exact -o chosen.json")]
pub struct Extract {
    /// The e-graph
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How nodes are chosen: tree, greedy or exact
    #[arg(long, value_name = "HOW", default_value = "greedy")]
    with: With,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Extract {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let eg = egraph::read(&self.file)?;
        let chosen = egraph::choose(&eg, self.with).map_err(|e| Error::file(&self.file, e))?;
        let nodes = chosen.nodes.iter();
        let choices: Map<String, Value> = nodes.map(|(c, n)| (c.to_string(), json!(n.to_string()))).collect();
        let report = json!({
            "extractor": self.with.name(), "cost": chosen.cost, "proven": chosen.proven, "choices": choices,
        });
        match &self.output {
            Some(path) => print_to(Some(path), &format!("{report:#}\n")),
            None => print_json(&report),
        }
    }
}
