//! Which pass, and which single rewrite, makes a model's results wrong.
//!
//! Every level has an interpreter; that of the imported graph says what is right. Between two passes one of which is the first whose module
//! gives something else, a binary search needs a few runs. Machine code is last: where the program's interpreter is right still, its
//! making is what is wrong. A pass with rules is run again with fewer and fewer rewrites (`eqsat{rewrites=N}`, as LLVM's
//! `-opt-bisect-limit`); where it folds repeated layers, first without that. In the end the model is cut down ([`crate::reduce`]) to what shows the same.
//!
//! Invariant: what is found is shown, not inferred: the module before the pass (with one rewrite less) is right, and that behind it wrong. With
//! several faults at once it is one of them.

mod cause;
mod difference;
mod trace;

use crate::caught::caught;
use crate::compile::compile_module;
use crate::levels::Module;
use crate::options::Options;
use crate::reduce::{Better, Case, Tried, reduce};
use crate::{Error, Result, tensors};
use brolga_ir::{Graph, NodeError, Tensor, program};
use brolga_passes::eqsat::EqSat;
use brolga_passes::pass::Settings;
use cause::fired;
pub use cause::{Cause, WrongRewrite};
pub use difference::{Apart, apart};
use std::str::FromStr;
use trace::{Traced, trace};

/// What runs a planned program as machine code, with a thread: gives its results.
pub type Machine<'a> = &'a (dyn Fn(&Module, &[Tensor]) -> Result<Vec<Tensor>> + Sync);

/// Compiles a program for this machine and runs it.
///
/// # Errors
/// When it cannot be compiled, or a run fails.
pub fn compiled(options: &Options) -> impl Fn(&Module, &[Tensor]) -> Result<Vec<Tensor>> + Sync {
    let options = plain(options, Some(String::new()));
    move |module, inputs| {
        let session = compile_module(module.clone(), &options)?.session_with(1, options.memory_limit)?;
        let views: Vec<_> = inputs.iter().map(tensors::view).collect();
        Ok(session.run(&views)?.iter().map(tensors::to_tensor).collect())
    }
}

/// What results are compared by.
pub struct Bisect<'a> {
    /// How the model is compiled.
    pub options: &'a Options,
    /// The largest error, over the largest magnitude of a result, that is accepted; see [`Apart`].
    pub tolerance: f64,
    /// What errors are measured against.
    pub against: Against,
    /// What runs machine code.
    pub machine: Machine<'a>,
}

/// What the error of a result is measured against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Against {
    /// The largest magnitude of the result.
    #[default]
    Results,
    /// The largest magnitude of all values that are computed on the way, where that is larger: what two large numbers leave of each other is as
    /// exact as they are.
    Values,
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Against, String> {
        match text {
            "results" => Ok(Against::Results),
            "values" => Ok(Against::Values),
            _ => Err("expected results or values".into()),
        }
    }
}

/// Where results became wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Behind a pass, as a pipeline writes it.
    Pass {
        /// Its number, from 0.
        number: usize,
        /// Its name.
        name: String,
    },
    /// In machine code: of a kernel, of the steps, or of what computed constants.
    Code,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Pass { name, .. } => write!(f, "pass `{name}`"),
            Place::Code => f.write_str("code generation"),
        }
    }
}

/// What was looked at.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What gave the results.
    pub at: Place,
    /// How far they are off.
    pub apart: Apart,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// How far its results are off.
    pub apart: Apart,
    /// Everything that was looked at, in the order of passes.
    pub looked: Vec<Looked>,
    /// For a pass that rewrites by rules: what of it, where that was found.
    pub cause: Option<Cause>,
}

impl Bisect<'_> {
    /// Where the results of a graph become wrong; `None` where machine code gives the right ones.
    ///
    /// # Errors
    /// When the graph cannot be interpreted on these inputs, or the pipeline's text is wrong.
    pub fn search(&self, case: &Case) -> Result<Option<Found>> {
        let run = self.run(case)?;
        if run.traced.failed.is_some() {
            return self.found(&run, run.last(), &[]);
        }
        let mut looked = vec![];
        let mut is_wrong = |k: usize| {
            let apart = run.apart(k);
            let wrong = !apart.is_within(self.tolerance);
            looked.push((k, apart));
            wrong
        };
        // The steps behind which results are right: none is the imported graph.
        let (mut right, mut wrong) = (0, run.last());
        if !is_wrong(wrong) {
            return Ok(None);
        }
        while right < wrong {
            let middle = right + (wrong - right) / 2;
            match is_wrong(middle) {
                true => wrong = middle,
                false => right = middle + 1,
            }
        }
        self.found(&run, wrong, &looked)
    }

    /// The first level of all that gives wrong results, machine code being the last.
    ///
    /// # Errors
    /// As [`Bisect::search`].
    pub fn check(&self, case: &Case) -> Result<Option<Found>> {
        let run = self.run(case)?;
        let mut looked = vec![];
        for k in 0..=run.last() {
            let apart = run.apart(k);
            let wrong = !apart.is_within(self.tolerance);
            looked.push((k, apart));
            if wrong {
                return self.found(&run, k, &looked);
            }
        }
        Ok(None)
    }

    /// What is right for a case, and what passes make of it.
    fn run<'c>(&'c self, case: &'c Case) -> Result<Run<'c>> {
        let inputs = inputs(case)?;
        let (wanted, floor) = evaluated(&case.graph, inputs, self.against)?;
        Ok(Run {
            graph: &case.graph,
            inputs,
            wanted,
            floor,
            traced: trace(&case.graph, self.options)?,
            machine: self.machine,
        })
    }

    /// What is to be told of a step that is wrong.
    fn found(&self, run: &Run, wrong: usize, looked: &[(usize, Apart)]) -> Result<Option<Found>> {
        let mut looked = looked.to_vec();
        if looked.iter().all(|l| l.0 != wrong) {
            looked.push((wrong, run.apart(wrong)));
        }
        looked.sort_by_key(|l| l.0);
        let apart = looked.iter().find(|l| l.0 == wrong).map(|l| l.1.clone());
        let is_rules = run.traced.steps.get(wrong).is_some_and(|t| t.name == EqSat::NAME);
        Ok(Some(Found {
            place: run.place(wrong),
            apart: apart.expect("it was looked at"),
            cause: if is_rules { self.cause(run, wrong) } else { None },
            looked: looked
                .into_iter()
                .map(|(k, apart)| Looked {
                    at: run.place(k),
                    apart,
                })
                .collect(),
        }))
    }

    /// The smallest model found in which the same is wrong.
    ///
    /// # Errors
    /// Those of `better`.
    pub fn smallest(&self, case: Case, found: &Found, better: Better) -> Result<(Case, Tried)> {
        let mut shows = |case: &Case| Ok(self.shows(case, found).unwrap_or(false));
        reduce(case, &mut shows, better)
    }

    /// Whether the same step is wrong for a case: results before it are right.
    ///
    /// # Errors
    /// When the case cannot be interpreted or lowered.
    fn shows(&self, case: &Case, found: &Found) -> Result<bool> {
        let attempt = || {
            let run = self.run(case)?;
            let k = match &found.place {
                Place::Code => run.traced.steps.len(),
                Place::Pass { number, .. } => *number,
            };
            if k > run.last() || run.place(k) != found.place {
                return Ok(false);
            }
            let is_right = |k: usize| run.apart(k).is_within(self.tolerance);
            if is_right(k) || (k > 0 && !is_right(k - 1)) {
                return Ok(false);
            }
            match &found.cause {
                _ if found.cause.is_some() && k >= run.traced.steps.len() => Ok(false),
                Some(Cause::Rewrite(r)) => Ok(fired(&run.traced.steps[k], &r.rewrite.rule)),
                Some(Cause::Folding) => Ok(self.is_folding(&run, k)),
                None => Ok(true),
            }
        };
        caught(attempt).unwrap_or(Ok(false))
    }
}

/// The options with a pipeline of their own, and nobody who watches or keeps files.
fn plain(options: &Options, pipeline: Option<String>) -> Options {
    Options {
        pipeline,
        rules: None,
        sizes: vec![],
        ..options.unwatched()
    }
}

/// A case on its way down.
struct Run<'c> {
    graph: &'c Graph,
    inputs: &'c [Tensor],
    wanted: Vec<Tensor>,
    /// Errors are measured against at least this.
    floor: f64,
    traced: Traced,
    machine: Machine<'c>,
}

impl Run<'_> {
    /// The number of the last step: machine code, or the pass that failed.
    fn last(&self) -> usize {
        self.traced.steps.len()
    }

    /// How far the results of a step are off.
    fn apart(&self, k: usize) -> Apart {
        match (self.traced.steps.get(k), &self.traced.failed) {
            (Some(t), _) => self.off(interpreted(&t.module, self.inputs)),
            (None, Some((_, why))) => Apart::Unlike(why.clone()),
            (None, None) => self.off(self.code()),
        }
    }

    fn off(&self, found: Result<Vec<Tensor>, String>) -> Apart {
        apart(found, &self.wanted, self.floor)
    }

    fn code(&self) -> Result<Vec<Tensor>, String> {
        let program = &self.traced.steps.last().expect("a graph is lowered by passes").module;
        caught(|| (self.machine)(program, self.inputs).map_err(|e| e.to_string())).unwrap_or_else(Err)
    }

    fn place(&self, k: usize) -> Place {
        let failed = self.traced.failed.as_ref().map(|f| &f.0);
        match self.traced.steps.get(k).map(|t| &t.name).or(failed) {
            None => Place::Code,
            Some(name) => Place::Pass {
                number: k,
                name: name.clone(),
            },
        }
    }
}

fn inputs(case: &Case) -> Result<&[Tensor]> {
    let missing = || Error::Option("a model is compared on inputs, and there are none".into());
    case.inputs.as_deref().ok_or_else(missing)
}

/// What a graph gives by its interpreter, and what errors are measured against at least.
fn evaluated(g: &Graph, inputs: &[Tensor], against: Against) -> Result<(Vec<Tensor>, f64)> {
    let fail = |source: NodeError| Error::Lower {
        model: g.name.clone(),
        source,
    };
    if against == Against::Results {
        return Ok((g.eval(inputs).map_err(fail)?, 0.0));
    }
    let mut all = g.clone();
    let values = g.nodes.iter().flat_map(|n| n.outputs.iter().copied());
    all.outputs.extend(values.map(|v| (v.to_string(), v)));
    let mut found = all.eval(inputs).map_err(fail)?;
    let magnitudes = found.iter().chain(inputs).flat_map(|t| t.iter().map(|x| x.f64().abs()));
    let floor = magnitudes.filter(|x| x.is_finite()).fold(0.0, f64::max);
    found.truncate(g.outputs.len());
    Ok((found, floor))
}

/// What a module of any level gives by its interpreter, or why nothing.
fn interpreted(module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let run = || match module {
        Module::Tensor(g) => g.eval(inputs).map_err(|e| e.to_string()),
        Module::Structured(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
        Module::Loops(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
    };
    caught(run).unwrap_or_else(Err)
}
