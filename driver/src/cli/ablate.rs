//! `brolga ablate`: what a model costs without each theme of rules, with each alone, or without each rule.

use super::compare::Comparison;
use super::inputs::{InputArgs, Ports, threads};
use super::run::tolerance;
use super::{Failure, Outcome, ReadArgs, is_stdout, note, print, print_json, print_to, target, time, warning};
use brolga::ablate::measure::{Budget, CONFIDENCE, Interval, MOST_ROUNDS, Measured};
use brolga::ablate::plot::{Bar, Panel, svg};
use brolga::ablate::{Ablation, By, Change, Variant};
use brolga::ir::{Target, plain};
use brolga::passes::eqsat::rules::Rule;
use brolga::{Options, Session, View, source, tensors};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A theme or a rule that makes a run longer by more than this costs something.
const COSTS: f64 = 1.03;

/// Say what a model costs without each theme of rules, with each alone, or without each rule
#[derive(Args)]
#[command(after_help = "\
Rows: all rules; none (every operator is a kernel of its own); -THEME without a theme; THEME alone (with fusion, which cannot be off). A
file of rules is a theme of its own. With --by rule, each rule that matches is left out in turn: of --add-rules where that is given, of all otherwise.
Bytes and the predicted time are those of the cost model. Programs that are the same are compiled and timed once. Runs go in turn, in an
order that the seed tells; a time is the median, `of all` the median of its ratios to that of all rules in the same round, with the interval
of order statistics that holds the median with a probability of 95 % or more (less below 6 rounds). `passes` is the median of 5.
Exit status: 1 when results differ from those of all rules by more than --tolerance, 2 on any error.

Examples:
  brolga ablate model.onnx
  brolga ablate model.onnx --no-measure --by rule
  brolga ablate model.onnx --inputs inputs.npz --threads 1 --seconds 10 --plot ablation.svg
  brolga ablate model.onnx --add-rules my.rules --by rule --json")]
pub struct Ablate {
    /// Models: ONNX, folders of safetensors, GGUF files, or the text of tensor graphs
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    #[command(flatten)]
    inputs: InputArgs,
    /// What is switched off in turn: theme or rule
    #[arg(long, value_name = "WHAT", default_value = "theme")]
    by: By,
    /// Predict only: nothing is compiled to machine code or run
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "seed", "threads", "tolerance", "input", "inputs"])]
    no_measure: bool,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Rounds, in place of as many as the seconds are enough for
    #[arg(long, value_name = "N", value_parser = rounds)]
    rounds: Option<usize>,
    /// Seconds that the rounds of a model take together; at least 7 rounds are run
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds, conflicts_with = "rounds")]
    seconds: f64,
    /// What the order of programs in a round comes from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The largest difference of results, relative to the largest magnitude of an output, that is accepted
    #[arg(long, value_name = "X", default_value_t = 1e-3, value_parser = tolerance)]
    tolerance: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a plot (SVG)
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[arg(long, alias = "cpu", value_name = "TARGET", value_parser = target, help = super::targets())]
    target: Option<Target>,
    #[command(flatten)]
    read: ReadArgs,
}

/// What measuring gave.
struct Times {
    measured: Measured,
    /// Seconds of the passes of each variant.
    passes: Vec<Interval>,
    /// Seconds that each program took to compile, the passes apart.
    below: Vec<f64>,
    /// Each program beside that of all rules, where it differs.
    different: Vec<Option<String>>,
}

/// A model's ablation.
struct Found {
    model: String,
    by: By,
    ablation: Ablation,
    times: Option<Times>,
}

impl Ablate {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        if self.plot.as_deref().is_some_and(is_stdout) {
            return Err("standard output has the table; give a file for --plot".into());
        }
        if self.models.len() > 1 && self.inputs.are_given() {
            return Err("inputs are those of one model; give one, or no inputs".into());
        }
        let mut options = self.read.options()?;
        if let Some(target) = &self.target {
            options.target = target.clone();
        }
        let mut all = vec![];
        for model in &self.models {
            all.push(self.model(model, &options)?);
        }
        if let Some(path) = &self.plot {
            let panels: Vec<Panel> = all.iter().map(Found::panel).collect();
            print_to(Some(path), &svg(&panels))?;
        }
        match self.json {
            true => print_json(&all.iter().map(Found::json).collect())?,
            false => print(&all.iter().map(Found::text).collect::<Vec<_>>().join("\n"))?,
        }
        let mut agree = true;
        for (found, times) in all.iter().filter_map(|f| Some((f, f.times.as_ref()?))) {
            for v in &found.ablation.variants {
                if let Some(words) = &times.different[v.program] {
                    agree = false;
                    let (model, change) = (plain(&found.model), &v.change);
                    warning(&format!(
                        "{model}: results of `{change}` are not those of all rules: {words}"
                    ));
                }
            }
        }
        match agree {
            true => Ok(()),
            false => Err(Failure::Reported),
        }
    }

    fn model(&self, path: &Path, options: &Options) -> Result<Found, Failure> {
        let graph = source::graph_for(path, options)?;
        let options = options.without_sizes();
        let model = graph.name.clone();
        let progress = |what: &str| note(&format!("{}: {what}", plain(&model)));
        let own = &self.read.rules.add_rules;
        let is_asked_for =
            |r: &Rule| own.is_empty() || own.iter().any(|file| r.origin.starts_with(&format!("{file}:")));
        let ablation = Ablation::new(graph, &options, self.by, &is_asked_for, &progress)?;
        let times = match self.no_measure {
            true => None,
            false => Some(self.measure(&ablation, &progress)?),
        };
        Ok(Found {
            model,
            by: self.by,
            ablation,
            times,
        })
    }

    fn measure(&self, ablation: &Ablation, progress: &dyn Fn(&str)) -> Result<Times, Failure> {
        let sessions = ablation.sessions(self.threads, progress)?;
        let below = sessions
            .iter()
            .map(|s| (s.timings().compile() - s.timings().optimise).as_secs_f64());
        let below = below.collect();
        progress("timing the passes");
        let passes = ablation.passes()?;
        progress(&format!("timing {} programs in turn", sessions.len()));
        let all = &sessions[0];
        all.strings().scope(|| {
            let ports = Ports {
                inputs: all.inputs(),
                symbols: &all.meta().symbols,
                has_default: &|i| i.default.is_some(),
            };
            let inputs = self.inputs.tensors(&ports, &self.read.model)?;
            let views: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (n.as_str(), tensors::view(t))).collect();
            let budget = Budget {
                rounds: self.rounds,
                seconds: self.seconds,
                seed: self.seed,
            };
            let measured = Measured::new(&sessions, &views, budget)?;
            let different = differences(&sessions, &measured, self.tolerance);
            Ok(Times {
                measured,
                passes,
                below,
                different,
            })
        })
    }
}

/// What is different about the results of each program, beside those of the first.
fn differences(sessions: &[Session], measured: &Measured, tolerance: f64) -> Vec<Option<String>> {
    let names = |p: usize| sessions[p].outputs().iter().map(|o| o.name.clone());
    let tensors = measured.outputs[0].iter().map(tensors::to_tensor);
    let expected: Vec<_> = names(0).zip(tensors).collect();
    let each = |p: usize| {
        let found: Vec<_> = names(p).zip(&measured.outputs[p]).collect();
        let comparison = Comparison::new(&found, &expected, Some(tolerance));
        (!comparison.agrees()).then(|| comparison.text().trim_end().replace('\n', "; "))
    };
    (0..sessions.len()).map(each).collect()
}

impl Found {
    /// The time of a variant over that of all rules: measured, or predicted, and its interval where it was measured. The program of all rules is
    /// 1, as is every other one that is the same.
    fn ratio(&self, v: &Variant) -> (f64, Option<Interval>) {
        let measured = self.times.as_ref().filter(|_| v.program > 0);
        match measured.and_then(|t| t.measured.ratio(v.program)) {
            Some(i) => (i.median, Some(i)),
            None if self.times.is_some() => (1.0, None),
            None => (v.account.seconds / self.ablation.variants[0].account.seconds, None),
        }
    }

    /// Without which parts of the rules a run is shorter by more than can be noise, and by how much.
    fn costs(&self) -> Vec<(&str, Interval)> {
        let cost = |v: &Variant| {
            self.ratio(v)
                .1
                .filter(|i| i.confidence >= CONFIDENCE && i.high < 1.0 / COSTS)
        };
        let mut all = vec![];
        for v in &self.ablation.variants {
            if let (Change::Without(what), Some(i)) = (&v.change, cost(v)) {
                all.push((what.as_str(), i));
            }
        }
        all
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .ablation
            .variants
            .iter()
            .enumerate()
            .map(|(n, v)| self.row(n, v))
            .collect();
        let mut head = vec!["rules", "kernels", "MB read", "written", "predicted"];
        head.extend(self.times.iter().flat_map(|_| ["passes", "compile", "run", "of all"]));
        if self.by == By::Rule {
            head.extend(["matches", "e-nodes"]);
        }
        let mut out = plain(&self.model).to_string();
        if let Some(t) = &self.times {
            out += &format!(
                ": {} programs, {} rounds",
                self.ablation.firsts().count(),
                t.measured.rounds()
            );
        }
        out += "\n";
        out += &columns(&[vec![head.into_iter().map(str::to_owned).collect()], rows].concat());
        for (what, i) in self.costs() {
            out += &format!(
                "`{what}` costs more than {:.0} %: without it a run takes {:.3} of the time ({:.3} to {:.3})\n",
                (COSTS - 1.0) * 100.0,
                i.median,
                i.low,
                i.high
            );
        }
        out
    }

    fn row(&self, n: usize, v: &Variant) -> Vec<String> {
        let mb = |bytes: f64| format!("{:.3}", bytes / 1e6);
        let a = &v.account;
        let mut row = vec![
            v.change.to_string(),
            a.kernels.to_string(),
            mb(a.read),
            mb(a.written),
            time(a.seconds),
        ];
        if let Some(t) = &self.times {
            row.push(time(t.passes[n].median));
            row.push(time(t.passes[n].median + t.below[v.program]));
            row.push(
                t.measured
                    .seconds(v.program)
                    .map_or_else(String::new, |i| time(i.median)),
            );
            row.push(match self.ratio(v) {
                (_, Some(i)) => format!("{:.3} ({:.3} to {:.3})", i.median, i.low, i.high),
                (_, None) if n == 0 => "1".into(),
                (_, None) => "same program".into(),
            });
        }
        if let Some(e) = &v.effect {
            row.extend([e.matches.to_string(), e.nodes.to_string()]);
        }
        row
    }

    fn json(&self) -> Value {
        let interval =
            |i: Interval| json!({"median": i.median, "low": i.low, "high": i.high, "confidence": i.confidence});
        let variant = |(n, v): (usize, &Variant)| {
            let kind = match &v.change {
                Change::All => json!({"rules": "all"}),
                Change::None => json!({"rules": "none"}),
                Change::Without(what) => json!({"without": what}),
                Change::Alone(theme) => json!({"alone": theme}),
            };
            let mut out = json!({
                "change": kind,
                "kernels": v.account.kernels,
                "bytes_read": v.account.read,
                "bytes_written": v.account.written,
                "predicted_s": v.account.seconds,
                "program": v.program,
            });
            if let Some(e) = &v.effect {
                out["matches"] = json!(e.matches);
                out["new_nodes"] = json!(e.nodes);
            }
            if let Some(t) = &self.times {
                out["passes_s"] = interval(t.passes[n]);
                out["compile_s"] = json!(t.passes[n].median + t.below[v.program]);
                out["run_s"] = t.measured.seconds(v.program).map_or(Value::Null, interval);
                out["ratio"] = self.ratio(v).1.map_or(Value::Null, interval);
                out["different"] = json!(t.different[v.program]);
            }
            out
        };
        let costs = self
            .costs()
            .into_iter()
            .map(|(what, i)| json!({"without": what, "ratio": interval(i)}));
        json!({
            "model": self.model,
            "rounds": self.times.as_ref().map(|t| t.measured.rounds()),
            "variants": self.ablation.variants.iter().enumerate().map(variant).collect::<Vec<_>>(),
            "costs": self.times.as_ref().map(|_| costs.collect::<Vec<_>>()),
        })
    }

    fn panel(&self) -> Panel {
        let what = if self.times.is_some() { "measured" } else { "predicted" };
        let bar = |v: &Variant| {
            let (ratio, interval) = self.ratio(v);
            Bar {
                change: v.change.clone(),
                ratio,
                interval: interval.map(|i| (i.low, i.high)),
            }
        };
        Panel {
            title: format!("{} ({what})", plain(&self.model)),
            bars: self.ablation.variants.iter().map(bar).collect(),
        }
    }
}

/// Rows of a table, the first column to the left and the others to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let most = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max();
    let widths: Vec<usize> = (0..most).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (s, &w))| match c {
            0 => format!("{s:<w$}"),
            _ => format!("{s:>w$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MOST_ROUNDS).contains(&n) => Ok(n),
        _ => Err(format!("expected a number from 1 to {MOST_ROUNDS}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if s > 0.0 && f64::is_finite(s) => Ok(s),
        _ => Err("expected a number above 0".into()),
    }
}
