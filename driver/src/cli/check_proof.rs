//! `brolga check-proof`: whether a derivation holds, step by step, through the interpreter.

use super::inputs::threads;
use super::{Failure, Outcome, print, print_json, size};
use brolga::Error;
use brolga::passes::proof::{Check, Fault, Proof, check};
use brolga::source::{self, map_beside};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Check the derivation of a program, step by step through the interpreter
#[derive(Args)]
#[command(after_help = "\
Every step says of two terms that they are equal, whatever the values are that it is over. It is tried on random ones; steps that differ
only in what they are over are tried once. That the claims follow is checked by congruence closure. None of this uses the e-graph, or
the rules.

Exit status: 0 when everything holds, 1 when a step is wrong or a claim does not follow, 2 on any error.

Examples:
  brolga explain model.onnx --proof model.proof
  brolga check-proof model.proof
  brolga check-proof model.proof --seed 7 --json")]
pub struct CheckProof {
    /// The proof
    file: PathBuf,
    /// Size of a symbolic dimension, such as seq=128; others are small (may be repeated)
    #[arg(long = "set", value_name = "SYMBOL=N", value_parser = size)]
    sizes: Vec<(String, i64)>,
    /// What decides the values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CheckProof {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let text = source::text(&self.file)?;
        let proof = Proof::parse(&text, &|name| map_beside(&self.file, name)).map_err(|source| Error::Text {
            path: self.file.clone(),
            source,
        })?;
        if proof.claims.is_empty() {
            let message = "it claims nothing, so there is nothing to check; `brolga explain --proof` and `brolga equal --proof` write proofs";
            return Err(Error::file(&self.file, message).into());
        }
        let how = Check {
            seed: self.seed,
            threads: match self.threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                n => n,
            },
            sizes: self.sizes.iter().map(|(s, n)| (s.as_str().into(), *n)).collect(),
        };
        let checked = check(&proof, &how);
        let told = |f: &Fault| match f {
            Fault::Step(k, why) => format!("{}\n  {why}\n  {}", proof.steps[*k], proof.equation(*k)),
            Fault::Claim(c) => format!("claim {:?} does not follow: {} = {}", c.name, c.left, c.right),
            Fault::Sizes(why) => format!("{why}; give sizes by --set"),
        };
        if self.json {
            print_json(&json!({
                "steps": proof.steps.len(),
                "distinct": checked.distinct,
                "claims": proof.claims.iter().map(|c| &*c.name).collect::<Vec<_>>(),
                "faults": checked.faults.iter().map(told).collect::<Vec<_>>(),
            }))?;
        } else {
            let mut text: String = checked.faults.iter().map(|f| format!("wrong: {}\n", told(f))).collect();
            let claims: Vec<String> = proof.claims.iter().map(|c| format!("`{}`", c.name)).collect();
            if checked.faults.is_empty() {
                text += &format!("proved: {}\n", claims.join(", "));
            }
            text += &format!(
                "{} steps, {} of them distinct: {} wrong\n",
                proof.steps.len(),
                checked.distinct,
                checked.faults.len()
            );
            print(&text)?;
        }
        match checked.faults.is_empty() {
            true => Ok(()),
            false => Err(Failure::Reported),
        }
    }
}
