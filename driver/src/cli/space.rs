//! `brolga space`: the schedules that a kernel may have.

use super::{Outcome, print, target};
use brolga::ir::Target;
use brolga::kernels::Workload;
use brolga::passes::schedule::genes::Genes;
use brolga::passes::schedule::{Machine, space};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// List the schedules that a kernel may have
///
/// Every one that is listed is legal. `brolga tune` begins with these, and mixes them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  brolga space kernel.txt
  brolga space kernel.txt --list
  brolga space kernel.txt --target sm_80 --json")]
pub struct Space {
    /// The text of a structured kernel
    kernel: PathBuf,
    /// Print every schedule
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
        let (workload, _) = Workload::read(&self.kernel)?;
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
