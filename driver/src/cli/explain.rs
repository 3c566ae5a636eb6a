//! `brolga explain`: which rules made each kernel of a model, out of which of its nodes.

use super::{CompileArgs, Outcome, note, print, print_json, print_to, time};
use brolga::explain::{Explained, law};
use brolga::ir::plain;
use brolga::passes::eqsat::derive::{Kernel, NUMBER};
use brolga::passes::eqsat::rules::Rule;
use brolga::source;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Say which rules made each kernel of a model, out of which of its nodes
#[derive(Args)]
#[command(after_help = "\
Kernels are listed in the order in which they run, those of constants (they run once, when the model is compiled) left out unless a node
is asked for. With --proof the derivation is written as steps that `brolga check-proof` tries one by one.

Examples:
  brolga explain model.onnx
  brolga explain model.onnx Conv_12
  brolga explain model.onnx --proof model.proof
  brolga explain model.onnx --json")]
pub struct Explain {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the text of a tensor graph
    model: PathBuf,
    /// Only kernels that do work of these nodes
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Write the derivation of the whole program to this file
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl Explain {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.compile.options()?;
        let graph = source::graph_for(&self.model, &options)?;
        let options = options.without_sizes();
        let explained = Explained::new(graph, &options)?;
        let mut wanted = vec![];
        for name in &self.nodes {
            let nodes = explained.nodes(name)?;
            wanted.extend(nodes.into_iter().map(|n| explained.graph.nodes[n].origin.clone()));
        }
        let all = explained.derivation.kernels(&explained.graph);
        let is_asked_for = |k: &&Kernel| match &wanted[..] {
            [] => !k.constant,
            wanted => k.nodes.iter().any(|n| wanted.contains(n)),
        };
        let kernels: Vec<&Kernel> = all.iter().filter(is_asked_for).collect();
        let running = all.iter().filter(|k| !k.constant).count();
        let seconds = explained.derivation.seconds();
        if self.json {
            print_json(&json!({
                "model": explained.graph.name,
                "kernels": kernels.iter().map(|k| json(k)).collect::<Vec<_>>(),
                "running": running,
                "constant": all.len() - running,
                "predicted_s": seconds,
                "saturation": explained.derivation.report.to_string(),
            }))?;
        } else {
            let mut text = format!(
                "{}: {running} kernels, {} more at compile time; {} predicted\n",
                plain(&explained.graph.name),
                all.len() - running,
                time(seconds)
            );
            for k in &kernels {
                text += &shown(k, &explained.rules.rules);
            }
            print(&text)?;
        }
        if let Some(path) = &self.proof {
            let proof = explained.derivation.proof(&explained.graph)?;
            print_to(Some(path), &proof.to_string())?;
            note(&format!(
                "{}: {} steps of {} that were taken",
                path.display(),
                proof.steps.len(),
                explained
                    .derivation
                    .steps
                    .iter()
                    .filter(|s| !s.sides.is_empty())
                    .count()
            ));
        }
        Ok(())
    }
}

fn shown(k: &Kernel, rules: &[Rule]) -> String {
    let nodes: Vec<String> = k.nodes.iter().map(|n| plain(n).to_string()).collect();
    let nodes = match nodes.is_empty() {
        true => "(no node)".to_owned(),
        false => nodes.join(" + "),
    };
    let constant = if k.constant { ", at compile time" } else { "" };
    let operators: Vec<&str> = k.operators.iter().map(|o| o.name()).collect();
    let mut out = format!("\n{nodes}: {}{constant}\n  computes {}\n", k.ty, operators.join(", "));
    // Arithmetic on numbers is everywhere, and no news.
    let is_news = |(name, _): &&(String, usize)| name != NUMBER;
    let own = k.rules.iter().filter(is_news).map(|made| ("by", made));
    let read = (k.constants.iter().filter(is_news)).map(|made| ("reads what is made at compile time by", made));
    let made: Vec<(&str, &(String, usize))> = own.chain(read).collect();
    if made.is_empty() {
        out += "  as the model has it\n";
    }
    for (how, (name, times)) in made {
        let what = rules.iter().find(|r| r.name == *name).map_or("", law);
        let times = if *times > 1 {
            format!(" ×{times}")
        } else {
            String::new()
        };
        out += &format!("  {how} {name}{times}");
        out += &if what.is_empty() {
            "\n".to_owned()
        } else {
            format!(": {what}\n")
        };
    }
    out
}

fn json(k: &Kernel) -> serde_json::Value {
    let counted = |rules: &[(String, usize)]| -> Vec<serde_json::Value> {
        let row = |(rule, steps): &(String, usize)| json!({"rule": rule, "steps": steps});
        rules.iter().map(row).collect()
    };
    json!({
        "nodes": k.nodes.iter().map(|n| &**n).collect::<Vec<_>>(),
        "operators": k.operators.iter().map(|o| o.to_string()).collect::<Vec<_>>(),
        "type": k.ty.to_string(),
        "constant": k.constant,
        "rules": counted(&k.rules),
        "constants": counted(&k.constants),
    })
}
