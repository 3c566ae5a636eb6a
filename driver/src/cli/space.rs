//! `brolga space`: the schedules that a kernel may have, and what could be decided otherwise about a model.

use super::{Outcome, RuleArgs, print, target};
use brolga::Options;
use brolga::ir::Target;
use brolga::kernels::Workload;
use brolga::levels::Walk;
use brolga::passes::eqsat::{Alternative, Selection};
use brolga::passes::schedule::genes::Genes;
use brolga::passes::schedule::{Machine, space};
use brolga::source::{self, Kind};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// List the schedules that a kernel may have, or what could be decided otherwise about a model
///
/// Every schedule that is listed is legal. `brolga tune` begins with these, and mixes them. Of a model it lists decisions about fusion,
/// operators and layouts that could be taken otherwise, with what that adds to its time by the figures that they were taken by; a
/// file of such lines is taken by the pass `eqsat{decide=FILE}`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga space kernel.txt
  brolga space kernel.txt --list
  brolga space model.onnx
  brolga space kernel.txt --target sm_80 --json")]
pub struct Space {
    /// The text of a structured kernel, or a model
    #[arg(value_name = "KERNEL|MODEL")]
    file: PathBuf,
    /// Print every schedule
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rules: RuleArgs,
    #[arg(long, alias = "cpu", value_name = "TARGET", value_parser = target, help = super::targets())]
    target: Option<Target>,
}

impl Space {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let native = brolga::codegen::target::native();
        let target = self
            .target
            .or(native)
            .ok_or("this machine's architecture is none that Brolga makes code for")?;
        if source::kind(&self.file)? != Kind::Program {
            return decisions(&self.file, target, self.rules.selection()?, self.json);
        }
        self.rules.none_for_kernels()?;
        let (workload, _) = Workload::read(&self.file)?;
        let all = space(workload.kernel(), &Machine::of(&target));
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        // Families in the order of their first schedules, with the values of every place.
        let mut families: Vec<(String, Vec<Vec<String>>, usize)> = vec![];
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for s in &all {
            let genes = Genes::of(s);
            let family = genes.family();
            let i = *at.entry(family.clone()).or_insert_with(|| {
                families.push((family, vec![vec![]; genes.values.len()], 0));
                families.len() - 1
            });
            families[i].2 += 1;
            for (known, v) in families[i].1.iter_mut().zip(&genes.values) {
                if !known.contains(v) {
                    known.push(v.clone());
                }
            }
        }
        if self.json {
            let rows: Vec<_> = families
                .iter()
                .map(|(f, values, n)| serde_json::json!({"family": f, "values": values, "schedules": n}))
                .collect();
            let report = serde_json::json!({
                "kernel": workload.key(), "target": target.name, "schedules": texts, "families": rows, "chosen": texts.first(),
            });
            return print(&format!("{report:#}\n"));
        }
        if self.list {
            return print(&(texts.join("\n") + "\n"));
        }
        let mut out = format!(
            "{} schedules for {}; chosen is\n  {}\n",
            all.len(),
            target.name,
            texts[0]
        );
        for (family, values, n) in &families {
            let places = values.iter().map(|v| match &v[..] {
                [one] => one.clone(),
                many => format!("{{{}}}", many.join(" | ")),
            });
            let mut text = String::new();
            for (around, place) in family.split('·').zip(places.chain([String::new()])) {
                text += around;
                text += &place;
            }
            let _ = writeln!(out, "{n:>6}  {text}");
        }
        print(&out)
    }
}

/// Lists what could be decided otherwise about a model.
fn decisions(file: &Path, target: Target, rules: Option<Selection>, json: bool) -> Outcome {
    let options = Options {
        target,
        rules,
        ..Options::default()
    };
    let module = source::model(file, &options)?;
    let walk = Walk::decided(module, &options, None, true)?;
    let alternatives = walk.alternatives();
    let texts = |a: &Alternative| -> Vec<String> { a.decisions.iter().map(ToString::to_string).collect() };
    if json {
        let rows: Vec<_> = alternatives
            .iter()
            .map(|a| serde_json::json!({"decisions": texts(a), "about": a.about, "seconds": a.seconds}))
            .collect();
        return print(&format!("{:#}\n", serde_json::Value::from(rows)));
    }
    let mut out = format!("// {} decisions could be taken otherwise\n", alternatives.len());
    for a in alternatives {
        let _ = writeln!(
            out,
            "// {:+.3} µs: {}\n{}",
            a.seconds * 1e6,
            a.about,
            texts(a).join("\n")
        );
    }
    print(&out)
}
