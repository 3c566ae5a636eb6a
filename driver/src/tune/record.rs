//! What tuning finds out, as lines of JSON: files that are put together with `cat`.
//!
//! | line | says |
//! | --- | --- |
//! | `{"workload": KEY, "text": …}` | the kernel that other lines mean by its key |
//! | `{"trial": KEY, "schedule": …, …}` | one candidate: what it took beside the incumbent, whether it computed the same |
//! | `{"kept": KEY, "schedule": …, …}` | a schedule that made a model faster, in place of the one that is chosen |
//! | `{"graph": KEY, "decisions": […], …}` | what was decided about a whole graph, and made the model faster |
//! | `{"model": NAME, …}` | a whole model, tuned and not |
//!
//! Every line names its target, its CPU and the compiler. Invariant: a line stands alone, so the order of lines and lines that stand twice
//! change nothing of what is applied ([`Log::best`]).

use crate::cache::of_user;
use crate::kernels::Workload;
use crate::{Error, Result};
use brolga_abi::artefact::OutputFile;
use brolga_ir::Target;
use brolga_ir::schedule::Schedule;
use brolga_passes::eqsat::Decision;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The compiler that writes records.
pub const COMPILER: &str = concat!("brolga ", env!("CARGO_PKG_VERSION"));

/// Where nothing was run, in place of a CPU's name and of a check.
pub const PREDICTED: &str = "predicted";

/// The machine that a record was made on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// What code was made for.
    pub target: String,
    /// The CPU, as it calls itself.
    pub cpu: String,
    /// Threads that ran it.
    pub threads: u32,
}

impl Place {
    /// This machine.
    pub fn here(target: &Target, threads: u32) -> Place {
        Place {
            target: target.name.into(),
            cpu: match target.gpu() {
                Some(_) => PREDICTED.into(),
                None => crate::machine::Machine::this(target).cpu,
            },
            threads,
        }
    }

    /// Whether nothing ran there: the cost model ranked candidates.
    pub fn predicted(&self) -> bool {
        self.cpu == PREDICTED
    }
}

/// What became of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was faster than the incumbent.
    Faster,
    /// It was not.
    NotFaster,
    /// It computed something else.
    Wrong,
    /// No code could be made.
    Refused,
    /// Its process died.
    Crashed,
    /// Its process was ended, since it did not.
    Hung,
}

impl Outcome {
    const ALL: [(Outcome, &'static str); 6] = [
        (Outcome::Faster, "faster"),
        (Outcome::NotFaster, "not-faster"),
        (Outcome::Wrong, "wrong"),
        (Outcome::Refused, "refused"),
        (Outcome::Crashed, "crashed"),
        (Outcome::Hung, "hung"),
    ];

    /// The word in records.
    pub fn name(self) -> &'static str {
        Outcome::ALL.iter().find(|(o, _)| *o == self).map_or("", |(_, n)| n)
    }

    /// The outcome of a word.
    pub fn by_name(name: &str) -> Option<Outcome> {
        Outcome::ALL.iter().find(|(_, n)| *n == name).map(|(o, _)| *o)
    }
}

/// One candidate.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    /// The workload's key.
    pub workload: String,
    /// The values of its symbols.
    pub sizes: Vec<i64>,
    /// The candidate.
    pub schedule: String,
    /// What it was timed against.
    pub incumbent: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How its results agreed ([`super::agree::Agreement`]), or what went wrong.
    pub check: String,
    /// Its median over the incumbent's, where it was timed.
    pub ratio: Option<f64>,
    /// Its time in seconds: median, and from the tenth part to nine tenths of all runs.
    pub seconds: Option<[f64; 3]>,
    /// How often it was run.
    pub runs: usize,
    /// Seconds to make its code.
    pub compile: f64,
}

/// A schedule that made a model faster.
#[derive(Clone, PartialEq, Debug)]
pub struct Kept {
    /// The workload's key.
    pub workload: String,
    /// The values of its symbols.
    pub sizes: Vec<i64>,
    /// The schedule.
    pub schedule: String,
    /// The one that is chosen without tuning.
    pub instead: String,
    /// The kernel's time over what it was.
    pub ratio: f64,
}

/// A whole model.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// Its name.
    pub model: String,
    /// Seconds of a run without tuning.
    pub untuned: f64,
    /// The tuned time over that: the median of pairs.
    pub ratio: f64,
    /// Kernels that got another schedule.
    pub kept: usize,
    /// Decisions about the whole program that were taken otherwise.
    pub decided: usize,
}

/// What was decided about a whole graph, and made a model faster.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    /// The key of the graph that it is about ([`super::programs::key`]).
    pub graph: String,
    /// What was decided otherwise than the compiler does, as text.
    pub decisions: Vec<String>,
    /// The key of what comes of it: if something else comes, the compiler is not the one that was measured.
    pub program: String,
    /// The model's time over what it was.
    pub ratio: f64,
}

/// A line.
#[derive(Clone, PartialEq, Debug)]
pub enum Line {
    /// A kernel's text.
    Workload(Workload),
    /// A candidate.
    Trial(Place, Trial),
    /// A schedule to apply.
    Kept(Place, Kept),
    /// Decisions about a graph.
    Graph(Place, Choice),
    /// A model.
    Model(Place, Summary),
}

impl Line {
    /// The line's text, without its end.
    pub fn text(&self) -> String {
        let at = |place: &Place, mut own: Value| {
            own["target"] = json!(place.target);
            own["cpu"] = json!(place.cpu);
            own["threads"] = json!(place.threads);
            own["compiler"] = json!(COMPILER);
            own.to_string()
        };
        match self {
            Line::Workload(w) => json!({"workload": w.key(), "text": w.to_string()}).to_string(),
            Line::Trial(place, t) => {
                let mut own = json!({
                    "trial": t.workload, "sizes": t.sizes, "schedule": t.schedule, "incumbent": t.incumbent,
                    "outcome": t.outcome.name(), "check": t.check, "runs": t.runs, "compile": t.compile,
                });
                if let Some(r) = t.ratio {
                    own["ratio"] = json!(r);
                }
                if let Some([median, low, high]) = t.seconds {
                    own["seconds"] = json!({"median": median, "p10": low, "p90": high});
                }
                at(place, own)
            }
            Line::Kept(place, k) => at(
                place,
                json!({
                    "kept": k.workload, "sizes": k.sizes, "schedule": k.schedule, "instead": k.instead, "ratio": k.ratio,
                }),
            ),
            Line::Graph(place, c) => at(
                place,
                json!({"graph": c.graph, "decisions": c.decisions, "program": c.program, "ratio": c.ratio}),
            ),
            Line::Model(place, m) => at(
                place,
                json!({"model": m.model, "untuned": m.untuned, "ratio": m.ratio, "kept": m.kept, "decided": m.decided}),
            ),
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(text: &str) -> Result<Line, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        let Value::Object(o) = &value else {
            return Err(format!("found {value}, expected an object"));
        };
        let fields = Fields(o);
        let place = || -> Result<Place, String> {
            Ok(Place {
                target: fields.text("target")?,
                cpu: fields.text("cpu")?,
                threads: fields.number("threads")? as u32,
            })
        };
        if let Ok(key) = fields.text("workload") {
            let (w, _) = Workload::parse(&fields.text("text")?)?;
            return match w.key() {
                own if own == key => Ok(Line::Workload(w)),
                own => Err(format!("the text of workload {key} has the key {own}")),
            };
        }
        if let Ok(workload) = fields.text("trial") {
            let outcome = fields.text("outcome")?;
            let seconds = |s: &Value| -> Option<[f64; 3]> {
                Some([s["median"].as_f64()?, s["p10"].as_f64()?, s["p90"].as_f64()?])
            };
            let trial = Trial {
                workload,
                sizes: fields.sizes()?,
                schedule: fields.schedule("schedule")?,
                incumbent: fields.schedule("incumbent")?,
                outcome: Outcome::by_name(&outcome).ok_or_else(|| format!("there is no outcome `{outcome}`"))?,
                check: fields.text("check")?,
                ratio: o.get("ratio").and_then(Value::as_f64),
                seconds: o.get("seconds").and_then(seconds),
                runs: fields.number("runs")? as usize,
                compile: fields.number("compile")?,
            };
            return Ok(Line::Trial(place()?, trial));
        }
        if let Ok(workload) = fields.text("kept") {
            let kept = Kept {
                workload,
                sizes: fields.sizes()?,
                schedule: fields.schedule("schedule")?,
                instead: fields.schedule("instead")?,
                ratio: fields.number("ratio")?,
            };
            return Ok(Line::Kept(place()?, kept));
        }
        if let Ok(graph) = fields.text("graph") {
            let choice = Choice {
                graph,
                decisions: fields.decisions()?,
                program: fields.text("program")?,
                ratio: fields.number("ratio")?,
            };
            return Ok(Line::Graph(place()?, choice));
        }
        if let Ok(model) = fields.text("model") {
            let summary = Summary {
                model,
                untuned: fields.number("untuned")?,
                ratio: fields.number("ratio")?,
                kept: fields.number("kept")? as usize,
                // Lines that were written before there were any have none.
                decided: fields.number("decided").unwrap_or(0.0) as usize,
            };
            return Ok(Line::Model(place()?, summary));
        }
        Err("expected one of `workload`, `trial`, `kept`, `graph`, `model`".into())
    }
}

struct Fields<'v>(&'v Map<String, Value>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        let found = self.0.get(name).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| format!("no text `{name}`"))
    }
    fn number(&self, name: &str) -> Result<f64, String> {
        let found = self.0.get(name).and_then(Value::as_f64);
        found.filter(|n| *n >= 0.0).ok_or_else(|| format!("no number `{name}`"))
    }
    fn sizes(&self) -> Result<Vec<i64>, String> {
        let all = self.0.get("sizes").and_then(Value::as_array);
        let all = all.and_then(|all| all.iter().map(Value::as_i64).collect());
        all.ok_or_else(|| "no whole numbers `sizes`".into())
    }
    /// Decisions, as they print.
    fn decisions(&self) -> Result<Vec<String>, String> {
        let all = self.0.get("decisions").and_then(Value::as_array);
        let texts = all.and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
        let one = |text: &str| {
            let decision: Result<Decision, _> = text.parse();
            decision.map(|d| d.to_string()).map_err(|e| format!("`decisions`: {e}"))
        };
        texts.ok_or("no texts `decisions`")?.into_iter().map(one).collect()
    }
    /// The text of a schedule, as it prints.
    fn schedule(&self, name: &str) -> Result<String, String> {
        let schedule: Schedule = self.text(name)?.parse().map_err(|e| format!("`{name}`: {e}"))?;
        Ok(schedule.to_string())
    }
}

/// The user's own records: `brolga/records.tune` in `XDG_DATA_HOME`, else in `.local/share` in the home folder.
///
/// # Errors
/// When neither is an absolute path.
pub fn database() -> Result<PathBuf> {
    let folder = of_user("XDG_DATA_HOME", ".local/share");
    let none = "there is no folder for records: set XDG_DATA_HOME or HOME to an absolute path, or name a file";
    let folder = folder.ok_or_else(|| Error::Option(none.into()))?;
    Ok(folder.join("records.tune"))
}

/// Lines, as a file has them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Log {
    /// In order.
    pub lines: Vec<Line>,
}

/// Why a workload has no schedule of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// It has no record.
    None,
    /// Its records are for another target.
    Target(String),
    /// They were made on another CPU.
    Cpu(String),
}

impl Log {
    /// Reads a log.
    ///
    /// # Errors
    /// The first line that is none, with its number.
    pub fn parse(text: &str) -> Result<Log, String> {
        let mut lines = vec![];
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            lines.push(Line::parse(line).map_err(|e| format!("line {}: {e}", i + 1))?);
        }
        Ok(Log { lines })
    }

    /// Reads the log of a file. A last line without an end that is none was being written when its writer ended: it is left out.
    ///
    /// # Errors
    /// When it cannot be read; as [`Log::parse`].
    pub fn read(path: &Path) -> Result<Log> {
        let text = crate::source::text(path)?;
        let whole = match text.rsplit_once('\n') {
            Some((whole, last)) if !last.is_empty() && Line::parse(last).is_err() => whole,
            _ => &text,
        };
        Log::parse(whole).map_err(|e| Error::file(path, e))
    }

    /// The user's own records ([`database`]).
    ///
    /// # Errors
    /// As [`Log::read`]; when there are none.
    pub fn of_user() -> Result<Log> {
        let path = database()?;
        if !path.exists() {
            return Err(Error::file(
                &path,
                "there are no records yet; `brolga tune MODEL` without -o makes some",
            ));
        }
        Log::read(&path)
    }

    /// The text of all lines.
    pub fn text(&self) -> String {
        let lines = self.lines.iter().map(|l| l.text() + "\n");
        lines.collect()
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || {
            let mut file = OutputFile::create(path)?;
            file.write_all(self.text().as_bytes())?;
            file.commit()
        };
        write().map(|_| ()).map_err(|e| Error::io(path, e))
    }

    /// The texts of workloads, by their keys.
    pub fn workloads(&self) -> BTreeMap<String, &Workload> {
        let own = self.lines.iter().filter_map(|l| match l {
            Line::Workload(w) => Some((w.key(), w)),
            _ => None,
        });
        own.collect()
    }

    /// The schedules that were kept for a workload.
    pub fn kept<'l>(&'l self, key: &'l str) -> impl Iterator<Item = (&'l Place, &'l Kept)> {
        self.lines.iter().filter_map(move |l| match l {
            Line::Kept(place, k) if k.workload == key => Some((place, k)),
            _ => None,
        })
    }

    /// What was decided about a graph.
    pub fn choices<'l>(&'l self, graph: &'l str) -> impl Iterator<Item = (&'l Place, &'l Choice)> {
        self.lines.iter().filter_map(move |l| match l {
            Line::Graph(place, c) if c.graph == graph => Some((place, c)),
            _ => None,
        })
    }

    /// The schedule to apply to a workload on a machine: of those that were kept there, the one that gained most; of equal ones the
    /// first by its text.
    ///
    /// # Errors
    /// Why there is none.
    pub fn best<'l>(&'l self, key: &'l str, here: &Place) -> Result<&'l Kept, Missing> {
        best(self.kept(key), here, |k| (k.ratio, k.schedule.clone()))
    }

    /// The decisions to take about a graph on a machine, in the same way.
    ///
    /// # Errors
    /// Why there are none.
    pub fn choice<'l>(&'l self, graph: &'l str, here: &Place) -> Result<&'l Choice, Missing> {
        best(self.choices(graph), here, |c| (c.ratio, c.decisions.join("\n")))
    }
}

/// The record of a machine that ranks first.
fn best<'l, T>(
    records: impl Iterator<Item = (&'l Place, &'l T)>,
    here: &Place,
    rank: impl Fn(&T) -> (f64, String),
) -> Result<&'l T, Missing> {
    let mut missing = Missing::None;
    let mut best: Option<&T> = None;
    for (place, record) in records {
        if place.target != here.target {
            missing = Missing::Target(place.target.clone());
        } else if place.cpu != here.cpu {
            missing = Missing::Cpu(place.cpu.clone());
        } else if best.is_none_or(|b| rank(record) < rank(b)) {
            best = Some(record);
        }
    }
    best.ok_or(missing)
}
