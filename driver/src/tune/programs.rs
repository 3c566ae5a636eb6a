//! Other programs for a model: what is fused, which operator computes a value, how images lie in memory.
//!
//! ```text
//! graph ─▶ what could be decided otherwise ─▶ kernels that change ─▶ by prediction ─▶ timed before and after ─▶ decisions
//! ```
//!
//! A program's time is the sum of its kernels' times, so of two programs only those kernels are timed that they do not have in common.
//! A decision is taken when these take less in each of some rounds, and the next is tried on top of it. That is a proposal: the
//! whole model decides ([`super::Home`]).

use crate::kernels::{self, Found};
use crate::levels::{Module, Walk};
use crate::options::Options;
use crate::tune::duel::median;
use crate::{Error, Result};
use brolga_abi::artefact::checksum;
use brolga_ir::{ConstData, Graph, Number};
use brolga_passes::eqsat::{Alternative, Decide, Decision};
use brolga_passes::lower::Structured;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Constants of up to this many elements are part of what a graph is known by.
const SMALL: i64 = 16;

/// Alternatives that are lowered, at most, the cheapest by the extraction's figures first.
const MOST: usize = 200;

/// Rounds in which a decision has to win.
const ROUNDS: usize = 4;

/// By how much: a part of what changes, and of the whole model.
const OF_CHANGE: f64 = 0.02;
const OF_MODEL: f64 = 0.002;

/// A change that is predicted to make the model so much slower is not timed.
const HOPELESS: f64 = 0.2;

/// What a graph is known by: 128 bits of its text, in hexadecimal, without its name and the values of what is large, so that models
/// of other weights share what is decided about them.
pub fn key(graph: &Graph) -> String {
    let mut g = graph.clone();
    g.name.clear();
    let defaults = g.defaults.iter_mut().map(|(_, c)| c);
    for c in g.constants.iter_mut().chain(defaults) {
        let count = c.ty.len().as_const();
        if count.is_none_or(|n| n > SMALL) || matches!(c.data, ConstData::File { .. }) {
            c.data = ConstData::Splat(Number::Int(0));
        }
    }
    let text = g.to_string();
    let sum = |word: &str| checksum(format!("{word} 1\n{text}").as_bytes());
    format!("{:016x}{:016x}", sum("graph"), sum("program"))
}

/// A program for a model.
#[derive(Clone)]
pub struct Program {
    /// What was decided otherwise than the compiler does.
    pub decisions: Vec<Decision>,
    /// Its kernels.
    pub structured: Structured,
    /// The keys of the graph that it was decided about and of what came of it; nothing where there was no graph.
    pub keys: Option<(String, String)>,
    /// Kernels by the keys of their workloads.
    found: BTreeMap<String, Found>,
}

/// Decisions, and whom they were put to.
struct Noted {
    decisions: Vec<Decision>,
    keys: Mutex<Option<(String, String)>>,
}

impl Decide for Noted {
    fn decisions(&self, _graph: &Graph) -> Vec<Decision> {
        self.decisions.clone()
    }
    fn accepts(&self, graph: &Graph, cut: &Graph) -> bool {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some((key(graph), key(cut)));
        true
    }
}

impl Program {
    /// The program of a module by these decisions.
    ///
    /// # Errors
    /// As compiling it; when a decision cannot be taken, saying which.
    pub fn of(module: &Module, options: &Options, decisions: Vec<Decision>) -> Result<Program> {
        let noted = Arc::new(Noted {
            decisions: decisions.clone(),
            keys: Mutex::new(None),
        });
        let walk = Walk::decided(module.clone(), options, Some(noted.clone()), false)?;
        if let Some(missed) = walk.decisions().iter().find(|d| d.result.is_err()) {
            return Err(Error::Option(missed.to_string()));
        }
        let walk = walk.kernels()?;
        let Module::Structured(structured) = walk.module else {
            let name = walk.module.name();
            let message = format!("{name}: it is loop nests already, which have no schedules");
            return Err(Error::Option(message));
        };
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for f in kernels::of_program(&structured).map_err(Error::Option)? {
            let key = f.workload.key();
            let calls = found.get(&key).map_or(0, |other| other.calls);
            found.entry(key).or_insert(f).calls += calls;
        }
        let keys = noted.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Program {
            decisions,
            structured,
            keys,
            found,
        })
    }

    /// The kernels that runs call, by the keys of their workloads.
    pub fn kernels(&self) -> impl Iterator<Item = &Found> {
        self.found.values()
    }

    /// The kernels that this program calls more often than another one, and how often.
    fn beside(&self, other: &Program) -> Vec<(&Found, usize)> {
        let calls = |p: &Program, key: &str| p.found.get(key).map_or(0, |f| f.calls);
        let more = self
            .found
            .iter()
            .map(|(key, f)| (f, f.calls.saturating_sub(calls(other, key))));
        more.filter(|(_, n)| *n > 0).collect()
    }

    /// What tells it from another one.
    fn difference(&self, other: &Program) -> Vec<(String, usize)> {
        let key = |(f, n): (&Found, usize)| (f.workload.key(), n);
        self.beside(other).into_iter().map(key).collect()
    }
}

/// A search of programs.
pub struct Search<'s> {
    /// The model, as it was imported.
    pub module: &'s Module,
    /// How it is compiled.
    pub options: &'s Options,
    /// Seconds that a call of a kernel takes, as predicted.
    pub predict: &'s dyn Fn(&Found) -> Option<f64>,
    /// When it has to end.
    pub until: Instant,
    /// Seconds of a run of the whole model.
    pub whole: f64,
}

/// A decision that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What was decided, about all values that are alike.
    pub decisions: Vec<Decision>,
    /// Seconds that a run gains by it.
    pub gain: f64,
}

impl Search<'_> {
    /// Decides otherwise where that makes kernels faster, as `measure` has it, which gives the seconds of a call of one. What was
    /// recorded is tried first. Gives what was taken, in order. `go_on` is asked at every step, with what was taken in it.
    pub fn run(
        &self,
        base: &Program,
        alternatives: &[Alternative],
        recorded: Vec<Vec<Decision>>,
        measure: &mut dyn FnMut(&Found) -> Option<f64>,
        go_on: &mut dyn FnMut(Option<&Taken>) -> bool,
    ) -> Vec<Taken> {
        let mut predicted: BTreeMap<String, Option<f64>> = BTreeMap::new();
        let mut predict = |p: &Program, than: &Program| -> Option<f64> {
            let seconds = |(f, n): (&Found, usize)| {
                let one = predicted.entry(f.workload.key()).or_insert_with(|| (self.predict)(f));
                Some((*one)? * n as f64)
            };
            p.beside(than).into_iter().map(seconds).sum()
        };
        // What each of them changes by itself, and by how much that is predicted to be slower.
        let mut open: Vec<(f64, Vec<Decision>)> = vec![];
        let mut seen = vec![];
        let start = Instant::now();
        let half = start + self.until.saturating_duration_since(start) / 2;
        for a in alternatives.iter().take(MOST) {
            if Instant::now() > half || !go_on(None) {
                break;
            }
            let Ok(p) = Program::of(self.module, self.options, a.decisions.clone()) else {
                continue;
            };
            let difference = (p.difference(base), base.difference(&p));
            if difference.0.is_empty() || seen.contains(&difference) {
                continue;
            }
            seen.push(difference);
            if let (Some(new), Some(old)) = (predict(&p, base), predict(base, &p))
                && new - old < HOPELESS * self.whole
            {
                open.push((new - old, a.decisions.clone()));
            }
        }
        open.sort_by(|a, b| a.0.total_cmp(&b.0));
        let recorded = recorded.into_iter().filter(|r| !r.is_empty());
        let all: Vec<Vec<Decision>> = recorded.chain(open.into_iter().map(|(_, d)| d)).collect();
        let (mut taken, mut best) = (vec![], base.clone());
        for decisions in all {
            if Instant::now() > self.until || !go_on(None) {
                break;
            }
            let mut together = best.decisions.clone();
            together.extend(decisions.iter().filter(|d| !best.decisions.contains(d)).cloned());
            let Ok(p) = Program::of(self.module, self.options, together) else {
                continue;
            };
            let Some(gain) = self.gain(&best, &p, measure) else {
                continue;
            };
            best = p;
            taken.push(Taken { decisions, gain });
            if !go_on(taken.last()) {
                break;
            }
        }
        taken
    }

    /// The seconds that a run gains by another program, where it gains any beyond doubt.
    fn gain(&self, old: &Program, new: &Program, measure: &mut dyn FnMut(&Found) -> Option<f64>) -> Option<f64> {
        let (gone, come) = (old.beside(new), new.beside(old));
        let mut gains = vec![];
        for _ in 0..ROUNDS {
            let mut seconds = |kernels: &[(&Found, usize)]| -> Option<f64> {
                let one = |(f, n): &(&Found, usize)| Some(measure(f)? * *n as f64);
                kernels.iter().map(one).sum()
            };
            let (before, after) = (seconds(&gone)?, seconds(&come)?);
            if after * (1.0 + OF_CHANGE) >= before {
                return None;
            }
            gains.push(before - after);
        }
        median(gains.into_iter()).filter(|g| *g > OF_MODEL * self.whole)
    }
}
