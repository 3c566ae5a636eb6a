//! `brolga verify-rules`: whether rewrite rules are what they say, by a proof or on random instances, with a small counterexample for
//! one that is not.

use super::inputs::threads;
use super::{Failure, Outcome, print, print_json};
use brolga::ir::{Graph, Number, Tensor};
use brolga::passes::eqsat::check::prove::smt2;
use brolga::passes::eqsat::check::{self, Check, Counterexample, Report, Verdict};
use brolga::passes::eqsat::hint::near;
use brolga::passes::eqsat::rules::{Rule, RuleSet};
use brolga::shell::quoted;
use brolga::{Error, npy, output, source};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check rewrite rules: proofs for all shapes, and random instances
#[derive(Args)]
#[command(after_help = "\
Without a file, the embedded rules are checked. A rule passes when both of its sides give what its class promises on as many instances as
--cases says: exact ones the same bits, reassociate ones the same up to rounding (docs/rules.md). A counterexample is made as small
as it can be. Rules that only move elements, or compute the same of each, are proved for all extents where that can be done; they are tested
all the same.

Exit status: 0 when every rule passes, 1 when one is wrong, or untested because too few instances of it can be made, 2 on any error.

Examples:
  brolga verify-rules
  brolga verify-rules my-own.rules --cases 1000 --seed 7
  brolga verify-rules --rule conv-scale --rule conv-pads
  brolga verify-rules my-own.rules --write counterexamples --json
  brolga verify-rules --rule transpose-compose --smt2 question.smt2")]
pub struct VerifyRules {
    /// Files of rules
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check only the rule of this name (may be repeated)
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// What decides the instances
    #[arg(long, value_name = "N", default_value_t = Check::default().seed)]
    seed: u64,
    /// Instances that each rule has to pass
    #[arg(long, value_name = "N", default_value_t = check::CASES as u32, value_parser = clap::value_parser!(u32).range(1..))]
    cases: u32,
    /// Write counterexamples to this folder: both sides as text IR, inputs, and what the left side gives
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Write what a proof would have to show as a question for an SMT solver (SMT-LIB 2): of one rule to this file, of more to a
    /// file each in this folder
    #[arg(long, value_name = "PATH")]
    smt2: Option<PathBuf>,
    /// Let rules pass that cannot be tested
    #[arg(long)]
    allow_untested: bool,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl VerifyRules {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let set = self.set()?;
        let check = Check {
            seed: self.seed,
            cases: self.cases as usize,
        };
        let questions = self.questions(&set)?;
        let bar = ProgressBar::with_draw_target(Some(set.rules.len() as u64), ProgressDrawTarget::stderr());
        let reports = check::check_on(&set, check, self.threads, &|_| bar.inc(1));
        bar.finish_and_clear();
        let mut findings = vec![];
        for (at, (rule, report)) in set.rules.iter().zip(reports).enumerate() {
            let replay = match &report.verdict {
                Verdict::Wrong(found) => Some(self.replay(at, rule, found)?),
                _ => None,
            };
            let question = questions.get(at);
            findings.push(Finding {
                rule,
                report,
                replay,
                question,
            });
        }
        let count = |is: fn(&Verdict) -> bool| findings.iter().filter(|f| is(&f.report.verdict)).count();
        let proved = findings.iter().filter(|f| f.report.proof.is_some()).count();
        let tested = count(|v| matches!(v, Verdict::Tested)) - proved;
        let wrong = count(|v| matches!(v, Verdict::Wrong(_)));
        let untested = count(|v| matches!(v, Verdict::Untested(_)));
        if self.json {
            let rules: Vec<Value> = findings.iter().map(Finding::json).collect();
            print_json(&json!({
                "seed": self.seed, "cases": self.cases, "proved": proved, "tested": tested, "wrong": wrong, "untested": untested, "rules": rules,
            }))?;
        } else {
            let lines: String = findings.iter().map(Finding::text).collect();
            let all = match findings.len() {
                1 => "1 rule".to_owned(),
                n => format!("{n} rules"),
            };
            let asked = self.smt2.as_ref().map(|path| {
                let asked = questions.iter().filter(|q| q.is_ok()).count();
                format!("{asked} as questions in {}\n", path.display())
            });
            print(&format!(
                "{lines}{all}: {proved} proved, {tested} tested, {wrong} wrong, {untested} untested\n{}",
                asked.unwrap_or_default()
            ))?;
        }
        match wrong == 0 && (untested == 0 || self.allow_untested) {
            true => Ok(()),
            false => Err(Failure::Reported),
        }
    }

    /// The rules that are asked for.
    fn set(&self) -> Result<RuleSet, Failure> {
        let mut set = match &self.files[..] {
            [] => brolga::passes::eqsat::embedded().clone(),
            _ => RuleSet::default(),
        };
        for file in &self.files {
            let text = source::text(file)?;
            let before = set.rules.len();
            set.add(&file.display().to_string(), &text)?;
            if set.rules.len() == before {
                return Err(Error::file(file, "it has no rules, so there is nothing to check").into());
            }
        }
        for name in &self.rules {
            if set.rules.iter().all(|r| r.name != *name) {
                let meant = near(name, set.rules.iter().map(|r| &*r.name));
                return Err(format!("--rule {name}: there is no rule of this name{meant}").into());
            }
        }
        if !self.rules.is_empty() {
            set.rules.retain(|r| self.rules.contains(&r.name));
        }
        Ok(set)
    }

    /// Writes the questions that are asked for: of each rule its file, or why there is none. Nothing where none is asked for.
    fn questions(&self, set: &RuleSet) -> Result<Vec<Result<PathBuf, String>>, Failure> {
        let Some(path) = &self.smt2 else { return Ok(vec![]) };
        if let [rule] = &set.rules[..] {
            let question =
                smt2::question(rule).map_err(|why| format!("--smt2: rule {} is no question: {why}", rule.name))?;
            output::write(path, question.text.as_bytes())?;
            return Ok(vec![Ok(path.clone())]);
        }
        output::folder(path)?;
        let mut all = vec![];
        for (at, rule) in set.rules.iter().enumerate() {
            all.push(match smt2::question(rule) {
                Ok(question) => {
                    let file = path.join(format!("{}.smt2", file_name(at, rule)));
                    output::write(&file, question.text.as_bytes())?;
                    Ok(file)
                }
                Err(why) => Err(why),
            });
        }
        Ok(all)
    }

    /// The command that shows a counterexample again; its files are written where that is asked for.
    fn replay(&self, at: usize, rule: &Rule, found: &Counterexample) -> Result<String, Failure> {
        if let (Some(dir), Some(right), Some([result, _])) = (&self.write, &found.right, &found.results) {
            output::folder(dir)?;
            return Files::new(dir, at, rule).write(found, right, result);
        }
        let files: Vec<String> = self
            .files
            .iter()
            .map(|f| quoted(&f.display().to_string()) + " ")
            .collect();
        let (files, name) = (files.concat(), quoted(&rule.name));
        Ok(format!(
            "brolga verify-rules {files}--rule {name} --seed {} --cases {}",
            self.seed, self.cases
        ))
    }
}

/// What is said of a rule.
struct Finding<'a> {
    rule: &'a Rule,
    report: Report,
    /// For a wrong one: the command that shows it.
    replay: Option<String>,
    /// Where it is written as a question, or why it is not, where that is asked for.
    question: Option<&'a Result<PathBuf, String>>,
}

impl Finding<'_> {
    fn text(&self) -> String {
        let (name, origin) = (&self.rule.name, &self.rule.origin);
        match &self.report.verdict {
            Verdict::Tested => {
                let proved = self.report.proof.map(|p| format!("proved {p}; ")).unwrap_or_default();
                let all = self
                    .report
                    .enumerated
                    .map(|e| format!("right on {e}; "))
                    .unwrap_or_default();
                format!(
                    "{name} ({origin}): {proved}{all}tested {} times\n",
                    self.report.accepted
                )
            }
            Verdict::Untested(why) => format!("{name} ({origin}): untested: {why}\n"),
            Verdict::Wrong(found) => {
                let replay = self.replay.as_deref().unwrap_or_default();
                format!("{name} ({origin}): wrong: {found}\n  replay: {replay}\n")
            }
        }
    }

    fn json(&self) -> Value {
        let mut out = json!({
            "rule": self.rule.name,
            "origin": self.rule.origin,
            "text": self.rule.text(),
            "verdict": match &self.report.verdict {
                Verdict::Tested if self.report.proof.is_some() => "proved",
                Verdict::Tested => "tested",
                Verdict::Wrong(_) => "wrong",
                Verdict::Untested(_) => "untested",
            },
            "tested": self.report.accepted,
            "attempts": self.report.attempts,
            "dtypes": self.report.dtypes.iter().map(|d| d.name()).collect::<Vec<_>>(),
            "ranks": self.report.ranks,
        });
        if let Some(proof) = self.report.proof {
            out["proof"] = json!({"of": proof.to_string(), "rank": proof.rank, "cases": proof.cases});
        }
        if let Some(e) = self.report.enumerated {
            out["enumerated"] = json!({"instances": e.instances, "rank": e.rank, "extent": e.extent});
        }
        match self.question {
            Some(Ok(file)) => out["smt2"] = json!(file.display().to_string()),
            Some(Err(why)) => out["no_smt2"] = json!(why),
            None => {}
        }
        match &self.report.verdict {
            Verdict::Tested => {}
            Verdict::Untested(why) => out["reason"] = json!(why),
            Verdict::Wrong(found) => {
                let names = found.left.inputs.iter().map(|i| i.name.to_string());
                let inputs: serde_json::Map<String, Value> = names.zip(found.inputs.iter().map(array)).collect();
                out["counterexample"] = json!({
                    "difference": found.difference.text,
                    "left": found.left.to_string(),
                    "right": found.right.as_ref().map(Graph::to_string),
                    "inputs": inputs,
                    "results": found.results.as_ref().map(|r| r.each_ref().map(array)),
                });
                out["replay"] = json!(self.replay);
            }
        }
        out
    }
}

/// A tensor with all of its elements.
fn array(t: &Tensor) -> Value {
    let element = |x: Number| match x {
        // JSON has no NaN, no infinities, and integers of 64 bits at most by every reader.
        Number::Float(x) if x.is_finite() => json!(x),
        Number::Float(x) => json!(x.to_string()),
        Number::Int(i) => i64::try_from(i).map_or_else(|_| json!(i.to_string()), |i| json!(i)),
    };
    json!({"dtype": t.dtype().name(), "shape": t.shape(), "values": t.iter().map(element).collect::<Vec<_>>()})
}

/// The name of a rule's files; one that cannot be a file's is replaced.
fn file_name(at: usize, rule: &Rule) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match rule.name.chars().all(is_plain) {
        true => rule.name.clone(),
        false => format!("rule {at}"),
    }
}

/// The files of a counterexample.
struct Files {
    left: PathBuf,
    right: PathBuf,
    inputs: PathBuf,
    result: PathBuf,
}

impl Files {
    fn new(dir: &Path, at: usize, rule: &Rule) -> Files {
        let name = file_name(at, rule);
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        Files {
            left: file("left.txt"),
            right: file("right.txt"),
            inputs: file("inputs.npz"),
            result: file("left.npz"),
        }
    }

    /// Writes them; gives the command that runs the right side and compares it with the left one's result.
    fn write(self, found: &Counterexample, right: &Graph, result: &Tensor) -> Result<String, Failure> {
        output::write(&self.left, found.left.to_string().as_bytes())?;
        output::write(&self.right, right.to_string().as_bytes())?;
        let names = found.left.inputs.iter().map(|i| i.name.to_string());
        let inputs: Vec<(String, Tensor)> = names.zip(found.inputs.iter().cloned()).collect();
        let path = |p: &Path| quoted(&p.display().to_string());
        let mut given = String::new();
        if !inputs.is_empty() {
            npy::write_npz(&self.inputs, &inputs)?;
            given = format!(" --inputs {}", path(&self.inputs));
        }
        let outputs = found
            .left
            .outputs
            .iter()
            .map(|(name, _)| (name.to_string(), result.clone()));
        npy::write_npz(&self.result, &outputs.collect::<Vec<_>>())?;
        let accepts = match found.difference.tolerance {
            Some(t) => format!("--tolerance {t:e}"),
            None => "--bits".into(),
        };
        let (right, result) = (path(&self.right), path(&self.result));
        Ok(format!(
            "brolga run {right}{given} --expect {result} {accepts} --rules none"
        ))
    }
}
