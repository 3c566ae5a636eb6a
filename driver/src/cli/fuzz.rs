//! `brolga fuzz`: random models on every level and in machine code, with each new finding cut down and kept.

use super::bisect::report;
use super::kept::Kept;
use super::{CompileArgs, Failure, Outcome, note, print, print_json};
use brolga::bisect::{Against, compiled};
use brolga::fuzz::{Finding, Fuzz};
use brolga::output;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Compare random models on every level, and keep new findings
#[derive(Args)]
#[group(skip)]
#[command(group(ArgGroup::new("until").args(["seconds", "models"]).required(true).multiple(true)))]
#[command(after_help = "\
Models are small and valid: half of them compute with operators of which every way to compute them gives the same bits, the others are layers of
networks. Each is run by the interpreter of every level and as machine code. Where one gives something else than the interpreter of the graph,
or a pass fails, the model is cut down and written to the folder of --findings, with a command that shows it again. What goes wrong at the
same place, in the same way and by the same operators as a finding of the folder is known, and only counted.

Exit status: 0 when nothing new was found, 1 when something was, 2 on any error.

Examples:
  brolga fuzz --seconds 60
  brolga fuzz --seconds 60 --seed 7 --findings my-findings
  brolga fuzz --models 1000 --add-rules my-own.rules")]
pub struct FuzzCommand {
    /// How long to go on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How many models to look at, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    models: Option<u64>,
    /// What decides the models
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The folder of findings
    #[arg(long, value_name = "DIR", default_value = "brolga-findings")]
    findings: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

impl FuzzCommand {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.compile.options_without_reproducers()?;
        // What is found after hours has to have its place.
        output::folder(&self.findings)?;
        let machine = compiled(&options);
        let fuzz = Fuzz {
            options: &options,
            machine: &machine,
            seed: self.seed,
        };
        let (start, limit) = (Instant::now(), self.seconds.map(Duration::from_secs));
        let (mut models, mut all, mut new) = (0, 0, vec![]);
        while self.models.is_none_or(|n| models < n) && limit.is_none_or(|l| start.elapsed() < l) {
            let found = fuzz.look(models)?;
            models += 1;
            let Some(finding) = found else { continue };
            all += 1;
            if self.file(&finding).exists() {
                continue;
            }
            let replay = self.keep(&finding)?;
            if !self.json {
                print(&format!(
                    "{}\n{}replay with: {replay}\n",
                    finding.signature,
                    report(&finding.found)
                ))?;
            }
            new.push(json!({
                "signature": finding.signature,
                "model": finding.number,
                "nodes": finding.case.graph.nodes.len(),
                "file": self.file(&finding).display().to_string(),
                "replay": replay,
            }));
        }
        let count = new.len();
        if self.json {
            print_json(&json!({"models": models, "findings": all, "new": Value::from(new)}))?;
        } else {
            note(&format!("{models} models, {all} findings, {count} of them new"));
        }
        match count {
            0 => Ok(()),
            _ => Err(Failure::Reported),
        }
    }

    fn file(&self, finding: &Finding) -> PathBuf {
        self.findings.join(format!("{}.txt", finding.name()))
    }

    /// Writes a finding; gives the command that shows it again.
    fn keep(&self, finding: &Finding) -> Result<String, Failure> {
        let file = self.file(finding);
        let kept = Kept {
            file: &file,
            tolerance: finding.tolerance,
            against: Against::Values,
            compile: &self.compile,
        };
        let replay = kept.replay();
        let head = format!(
            "{}\nmodel {} of seed {}\nreplay with: {replay}",
            finding.signature, finding.number, self.seed
        );
        kept.write(&finding.case, &head)?;
        Ok(replay)
    }
}
