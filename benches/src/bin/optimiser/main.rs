//! What the optimiser does to models: `cargo run --release -p brolga-benches --bin optimiser [-- FILE-OR-FOLDER …]` prints the tables of
//! `docs/optimiser.md` in Markdown, without arguments for the small models of the tests. All figures but the milliseconds of passes and extractors are those of
//! the cost model and depend on the target alone, which `--target=NAME` gives.
//!
//! Kernels without rules and with all of them, e-graphs and passes; what each theme of rules is worth, by leaving it out and by having it alone
//! beside fusion; ways to choose a program from the e-graph.

mod extractors;

use brolga::ablate::{Ablation, By, Change, Variant};
use brolga::ir::{Graph, Target};
use brolga::levels::{Module, Walk, saturated};
use brolga::passes::eqsat::Choices;
use brolga::{Options, source};
use brolga_benches::{chosen, name, option};
use std::path::Path;

/// Runs of the passes, of which the shortest counts.
const RUNS: usize = 5;

/// Predicted times within this share of each other are shown as equal.
const EQUAL: f64 = 0.0005;

/// A model, and what the optimiser makes of it.
struct Row {
    name: String,
    graph: Graph,
    ablation: Ablation,
    choices: Choices,
    egraph: String,
    /// Milliseconds of the passes.
    passes: f64,
}

fn main() -> Result<(), String> {
    let mut options = Options {
        verify: false,
        ..Options::default()
    };
    if let Some(target) = option("target") {
        options.target =
            Target::by_name(&target).ok_or_else(|| format!("--target={target}: there is no such target"))?;
    }
    let mut rows = vec![];
    for path in chosen(brolga_tests::data) {
        eprintln!("{}", name(&path));
        rows.push(row(&path, &options)?);
    }
    println!("Target {}.\n", options.target.name);
    egraphs(&rows);
    themes(&rows, "without", |c| match c {
        Change::Without(theme) => Some(theme),
        _ => None,
    });
    themes(&rows, "alone", |c| match c {
        Change::Alone(theme) => Some(theme),
        _ => None,
    });
    println!("{}", extractors::HEAD);
    for r in &rows {
        println!("| {} | {} |", r.name, extractors::line(&r.choices)?);
    }
    Ok(())
}

fn row(path: &Path, options: &Options) -> Result<Row, String> {
    let fail = |e: brolga::Error| format!("{}: {e}", path.display());
    let graph = source::graph_for(path, options).map_err(fail)?;
    let kept = saturated(&graph, options, None).map_err(fail)?;
    let report = &kept.report;
    let mut passes = f64::INFINITY;
    for _ in 0..RUNS {
        let walk = Walk::new(Module::Tensor(graph.clone()), options).map_err(fail)?;
        passes = passes.min(walk.optimise.as_secs_f64() * 1e3);
    }
    Ok(Row {
        name: name(path),
        ablation: Ablation::new(graph.clone(), options, By::Theme, &|_| true, &|_| {}).map_err(fail)?,
        egraph: format!(
            "{} | {} | {} | {}",
            report.nodes, report.classes, report.rounds, report.rewrites
        ),
        choices: kept.choices,
        graph,
        passes,
    })
}

/// Kernels before and after, e-graphs, and the time of the passes.
fn egraphs(rows: &[Row]) {
    println!(
        "| model | operations | kernels without rules | with | predicted ms without | with | e-nodes | classes | rounds | rewrites | passes, ms |"
    );
    println!("| --- | {}", "---: | ".repeat(10).trim_end());
    for r in rows {
        let of = |change: &Change| r.ablation.variants.iter().find(|v| v.change == *change);
        let [none, all] = [Change::None, Change::All].map(|c| of(&c).expect("every ablation has it").account);
        println!(
            "| {} | {} | {} | {} | {:.4} | {:.4} | {} | {:.1} |",
            r.name,
            r.graph.nodes.len(),
            none.kernels,
            all.kernels,
            none.seconds * 1e3,
            all.seconds * 1e3,
            r.egraph,
            r.passes
        );
    }
    println!();
}

/// Kernels and predicted times, over those of all rules, of the variants that are of a theme.
fn themes(rows: &[Row], what: &str, theme: impl Fn(&Change) -> Option<&str>) {
    let of_theme = |v: &Variant| theme(&v.change).map(str::to_owned);
    let Some(first) = rows.first() else { return };
    let names: Vec<String> = first.ablation.variants.iter().filter_map(of_theme).collect();
    let heads = names.iter().map(|n| match what {
        "alone" => format!("{n} alone"),
        _ => format!("-{n}"),
    });
    println!("| model | all | {} |", heads.collect::<Vec<_>>().join(" | "));
    println!("| --- | {}", "---: | ".repeat(names.len() + 1).trim_end());
    for r in rows {
        let all = r.ablation.variants[0].account;
        let cell = |v: &Variant| {
            let ratio = v.account.seconds / all.seconds;
            match v.program == 0 {
                true => String::new(),
                false if (ratio - 1.0).abs() < EQUAL => v.account.kernels.to_string(),
                false => format!("{}, ×{ratio:.3}", v.account.kernels),
            }
        };
        let cells = r
            .ablation
            .variants
            .iter()
            .filter(|v| theme(&v.change).is_some())
            .map(cell);
        println!(
            "| {} | {} | {} |",
            r.name,
            all.kernels,
            cells.collect::<Vec<_>>().join(" | ")
        );
    }
    println!();
}
