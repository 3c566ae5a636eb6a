//! `brolga egraph`: how the e-graph of a model grew, what was chosen from it, and what was rejected.

use super::{CompileArgs, Outcome, is_stdout, note, print, print_json, print_to, time};
use brolga::aligned::aligned;
use brolga::egraph::View;
use brolga::explain::Explained;
use brolga::source;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Rows of a table of the report: the first in its order.
const TOP: usize = 12;

/// Show how the e-graph of a model grew, what was chosen from it, and what was rejected
#[derive(Args)]
#[command(after_help = "\
Printed are the e-nodes and classes behind each round, the rules that took longest, the predicted time of the program, and what else
could be decided about it, the cheapest first: a decision as `decide=FILE` takes it, and the time that it adds. --html writes all of it as one
page that needs no network: growth, rules, kernels, every class with its e-nodes, and a picture that can be searched and zoomed.

Examples:
  brolga egraph model.onnx
  brolga egraph model.onnx --html egraph.html
  brolga egraph model.onnx --pipeline 'canonicalize,prune,eqsat{extract=exact}' --html egraph.html
  brolga egraph model.onnx --json")]
pub struct EGraph {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or the text of a tensor graph
    model: PathBuf,
    /// Write a page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON, with everything that the page shows
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl EGraph {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        if self.html.as_deref().is_some_and(is_stdout) {
            return Err("standard output has the report itself; give a file for --html".into());
        }
        let options = self.compile.options()?;
        let graph = source::graph_for(&self.model, &options)?;
        let options = options.without_sizes();
        let explained = Explained::new(graph, &options)?;
        explained.derivation.decided.iter().for_each(|d| note(&d.to_string()));
        let view = View::new(&explained, &options.target)?;
        if let Some(path) = &self.html {
            print_to(Some(path), &view.page())?;
        }
        match self.json {
            true => print_json(&view.json()),
            false => print(&text(&explained, &view)),
        }
    }
}

fn text(explained: &Explained, view: &View) -> String {
    let d = &explained.derivation;
    let running = view.kernels.iter().filter(|k| !k.constant).count();
    let bound = view.bound.map_or_else(
        || "the e-graph is too large for a lower bound".to_owned(),
        |b| format!("lower bound {}", time(b)),
    );
    format!(
        "{}: {} after {} rounds in {}\n\n{}\n{}\n{running} kernels, {} more at compile time; {} predicted, {bound}\n{}",
        explained.graph.name,
        d.report.stop,
        d.report.rounds,
        time(d.times.rounds.iter().sum::<Duration>().as_secs_f64()),
        growth(explained),
        rules(explained),
        view.kernels.len() - running,
        time(d.seconds()),
        alternatives(view),
    )
}

/// Rows of a table, the first column to the left and the others to the right.
fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, &|column| column > 0).join("\n") + "\n"
}

/// Sizes before the first round and behind each.
fn growth(explained: &Explained) -> String {
    let d = &explained.derivation;
    let title = ["round", "e-nodes", "classes", "rewrites", "time"].map(str::to_owned);
    let mut rows = vec![title.to_vec()];
    for (round, size) in d.report.growth.iter().enumerate() {
        let took = round.checked_sub(1).map(|i| time(d.times.rounds[i].as_secs_f64()));
        rows.push(vec![
            round.to_string(),
            size.nodes.to_string(),
            size.classes.to_string(),
            size.rewrites.to_string(),
            took.unwrap_or_default(),
        ]);
    }
    table(&rows)
}

/// The rules that took longest.
fn rules(explained: &Explained) -> String {
    let d = &explained.derivation;
    let took = |r: usize| d.times.rules[r].search + d.times.rules[r].apply;
    let mut order: Vec<usize> = (0..d.times.rules.len()).collect();
    order.sort_by_key(|&r| std::cmp::Reverse(took(r)));
    let title = ["rule", "rewrites", "matches", "new e-nodes", "search", "apply"].map(str::to_owned);
    let mut rows = vec![title.to_vec()];
    for &r in order.iter().take(TOP) {
        let name = &explained.rules.rules[r].name;
        let applied = d.report.applied.iter().find(|(n, _)| n == name).map_or(0, |(_, n)| *n);
        let effect = d.report.effects.iter().find(|e| e.rule == *name);
        rows.push(vec![
            name.clone(),
            applied.to_string(),
            effect.map_or(0, |e| e.matches).to_string(),
            effect.map_or(0, |e| e.nodes).to_string(),
            time(d.times.rules[r].search.as_secs_f64()),
            time(d.times.rules[r].apply.as_secs_f64()),
        ]);
    }
    table(&rows)
}

/// The cheapest decisions that were not taken.
fn alternatives(view: &View) -> String {
    let priced = view
        .open
        .iter()
        .filter_map(|o| Some((o.decision.as_ref()?, o.price.ok()?)));
    let mut all: Vec<_> = priced.collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    let rows = all
        .iter()
        .take(TOP)
        .map(|(decision, seconds)| format!("  {:+.4} µs  {decision}\n", seconds * 1e6));
    let rows: String = rows.collect();
    let more = match all.len().saturating_sub(TOP) {
        0 => String::new(),
        n => format!("  and {n} more\n"),
    };
    match all.is_empty() {
        true => "nothing could be decided otherwise\n".to_owned(),
        false => format!("what could be decided otherwise:\n{rows}{more}"),
    }
}
