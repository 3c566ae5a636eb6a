//! What commands that compile show of passes: the IR before and after them, what each changed, took, counted and remarked.

use super::{CompileArgs, named, note, shown, time};
use brolga::aligned::aligned;
use brolga::instrument::{Instrument, Ran};
use brolga::levels::{Level, Module};
use brolga::passes::pass::Pass;
use brolga::passes::registry::Registry;
use brolga::{Options, Timings};
use clap::Args;
use serde_json::{Value, json};
use similar::TextDiff;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The fields of [`WatchArgs`], as clap names them.
pub const WATCHED: [&str; 6] = [
    "print_ir_before",
    "print_ir_after",
    "print_ir_after_change",
    "time_passes",
    "pass_stats",
    "remarks",
];

/// Options about what is shown.
#[derive(Args, Clone)]
pub struct WatchArgs {
    /// Print the IR before these passes, or before all, to standard error
    #[arg(long, value_name = "PASS,…|all", value_delimiter = ',')]
    pub print_ir_before: Vec<String>,
    /// Print the IR after these passes, or after all, to standard error
    #[arg(long, value_name = "PASS,…|all", value_delimiter = ',')]
    pub print_ir_after: Vec<String>,
    /// Print what each pass changed in the IR's text, as a unified diff, to standard error
    #[arg(long)]
    pub print_ir_after_change: bool,
    /// Print how long each pass took, the evaluation of constants and code generation, to standard error (with --json: in the JSON)
    #[arg(long)]
    pub time_passes: bool,
    /// Print what each pass counted, to standard error (with --json: in the JSON)
    #[arg(long)]
    pub pass_stats: bool,
    /// Say what was optimised, and what was not fused and why, the worst first
    #[arg(long)]
    pub remarks: bool,
}

impl WatchArgs {
    /// The options of a command, and who watches the passes, who has the last word.
    pub fn watched(&self, compile: &CompileArgs) -> Result<(Options, Option<Arc<Watch>>), String> {
        let mut options = compile.options()?;
        let watch = self.watch(&options.registry)?;
        options.judge = self.remarks;
        options.instrument = watch.clone().map(|w| w as Arc<dyn Instrument>);
        Ok((options, watch))
    }

    /// Says what passes remarked, where that is asked for.
    pub fn remark(&self, remarks: &[String]) {
        if self.remarks {
            remarks.iter().for_each(|r| note(r));
        }
    }

    /// Who watches for these options; nobody where nothing is to be shown.
    fn watch(&self, registry: &Registry) -> Result<Option<Arc<Watch>>, String> {
        let printed = [("before", &self.print_ir_before), ("after", &self.print_ir_after)];
        for (when, passes) in printed {
            if let Some(pass) = passes.iter().find(|p| *p != "all" && registry.find(p).is_none()) {
                let known = registry.names().join(", ");
                return Err(format!(
                    "there is no pass `{pass}` to print {when}, expected all or one of {known}"
                ));
            }
        }
        Ok((!self.of_passes().is_empty()).then(|| {
            Arc::new(Watch {
                args: self.clone(),
                seen: Mutex::default(),
            })
        }))
    }

    /// The options that are given.
    pub fn given(&self) -> Vec<&'static str> {
        let remarks = self.remarks.then_some("--remarks");
        self.of_passes().into_iter().chain(remarks).collect()
    }

    /// Those of what is shown of each pass.
    fn of_passes(&self) -> Vec<&'static str> {
        named(&[
            ("--print-ir-before", !self.print_ir_before.is_empty()),
            ("--print-ir-after", !self.print_ir_after.is_empty()),
            ("--print-ir-after-change", self.print_ir_after_change),
            ("--time-passes", self.time_passes),
            ("--pass-stats", self.pass_stats),
        ])
    }
}

/// Prints what is to be shown at once, and keeps the rest for the end.
pub struct Watch {
    args: WatchArgs,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The level and the text before the pass that runs, where a diff is made of it.
    before: Option<(Level, String)>,
    rows: Vec<Row>,
}

/// A pass that has run.
struct Row {
    pass: String,
    took: Duration,
    before: String,
    after: String,
    counts: Vec<(String, u64)>,
}

/// Whether passes that are asked for are this one.
fn names(asked: &[String], pass: &dyn Pass) -> bool {
    asked.iter().any(|a| a == "all" || a == pass.name())
}

/// Prints text of the IR.
fn show(text: &str) {
    // Where standard error is closed, nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{}", shown(text));
}

impl Instrument for Watch {
    fn before(&self, pass: &dyn Pass, module: &Module) {
        let prints = names(&self.args.print_ir_before, pass);
        if !prints && !self.args.print_ir_after_change {
            return;
        }
        let text = module.to_string();
        if prints {
            show(&format!("// before {}\n{text}", pass.name()));
        }
        self.seen().before = Some((module.level(), text));
    }

    fn after(&self, ran: &Ran) {
        let name = ran.pass.name();
        let prints = names(&self.args.print_ir_after, ran.pass);
        let diffs = self.args.print_ir_after_change;
        let text = match prints || diffs {
            true => ran.module.to_string(),
            false => String::new(),
        };
        let mut seen = self.seen();
        let before = seen.before.take();
        // Of another level, every line is another one.
        let descends = |level: &Level| diffs && *level != ran.module.level();
        if prints || before.as_ref().is_some_and(|(level, _)| descends(level)) {
            show(&format!("// after {name}\n{text}"));
        }
        if let Some((level, before)) = before
            && diffs
            && !descends(&level)
            && text != before
        {
            let diff = TextDiff::from_lines(before.as_str(), text.as_str());
            let mut unified = diff.unified_diff();
            let (before, after) = (format!("before {name}"), format!("after {name}"));
            show(unified.header(&before, &after).to_string().trim_end());
        }
        seen.rows.push(Row {
            pass: name.to_owned(),
            took: ran.took,
            before: ran.before.to_string(),
            after: ran.module.size().to_string(),
            counts: ran.counts.iter().map(|(what, n)| (what.to_owned(), n)).collect(),
        });
    }
}

impl Watch {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the tables that were asked for, or puts them into the command's report. Constants and code take what `timings` say.
    pub fn finish(&self, timings: Option<&Timings>, report: Option<&mut Value>) {
        let seen = self.seen();
        let later = |t: &Timings| [("constants", t.constants), ("code generation", t.codegen)];
        let later: Vec<(&str, Duration)> = timings.map(later).into_iter().flatten().collect();
        let Some(report) = report else {
            if self.args.time_passes {
                note(&times(&seen.rows, &later));
            }
            if self.args.pass_stats {
                note(&stats(&seen.rows));
            }
            return;
        };
        let pass = |r: &Row| {
            let mut row = json!({ "pass": r.pass });
            if self.args.time_passes {
                row["seconds"] = json!(r.took.as_secs_f64());
                (row["before"], row["after"]) = (json!(r.before), json!(r.after));
            }
            if self.args.pass_stats {
                let counts = r.counts.iter().map(|(what, n)| (what.clone(), json!(n)));
                row["counts"] = Value::Object(counts.collect());
            }
            row
        };
        let mut rows: Vec<Value> = seen.rows.iter().map(pass).collect();
        if self.args.time_passes {
            rows.extend(
                later
                    .iter()
                    .map(|(what, took)| json!({"phase": what, "seconds": took.as_secs_f64()})),
            );
        }
        if self.args.time_passes || self.args.pass_stats {
            report["passes"] = rows.into();
        }
    }
}

/// The table of times: pass, time, share, size before and after.
fn times(rows: &[Row], later: &[(&str, Duration)]) -> String {
    let all: Duration = rows.iter().map(|r| r.took).chain(later.iter().map(|l| l.1)).sum();
    let share = |took: Duration| {
        format!(
            "{:.1} %",
            100.0 * took.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE)
        )
    };
    let line = |what: &str, took: Duration, before: &str, after: &str| {
        vec![
            what.to_owned(),
            time(took.as_secs_f64()),
            share(took),
            before.to_owned(),
            after.to_owned(),
        ]
    };
    let mut lines = vec![["pass", "time", "share", "before", "after"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|r| line(&r.pass, r.took, &r.before, &r.after)));
    lines.extend(later.iter().map(|(what, took)| line(what, *took, "", "")));
    lines.push(line("total", all, "", ""));
    table("what passes took", &lines, &|column| matches!(column, 1 | 2))
}

/// The table of counts: pass, what, how many.
fn stats(rows: &[Row]) -> String {
    let mut lines = vec![["pass", "what", "count"].map(str::to_owned).to_vec()];
    for r in rows {
        lines.extend(
            r.counts
                .iter()
                .map(|(what, n)| vec![r.pass.clone(), what.clone(), n.to_string()]),
        );
    }
    table("what passes counted", &lines, &|column| column == 2)
}

/// A table below its title.
fn table(title: &str, rows: &[Vec<String>], right: &dyn Fn(usize) -> bool) -> String {
    let lines = aligned(rows, right);
    lines.iter().fold(title.to_owned(), |all, line| all + "\n  " + line)
}
