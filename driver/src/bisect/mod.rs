//! Which pass, and which single rewrite, makes a model's results wrong.
//!
//! Every level has an interpreter; that of the imported graph says what is right. Between two passes one of which is the first whose module
//! gives something else, a binary search needs a few runs. Machine code is last: where the program's interpreter is right still, its
//! making is what is wrong. A pass with rules is run again with fewer and fewer rewrites (`eqsat{rewrites=N}`, as LLVM's
//! `-opt-bisect-limit`). In the end the model is cut down ([`crate::reduce`]) to what shows the same.
//!
//! Invariant: what is found is shown, not inferred: the module before the pass (with one rewrite less) is right, and that behind it wrong. With
//! several faults at once it is one of them.

mod difference;
mod trace;

use crate::compile::compile_module;
use crate::levels::Module;
use crate::options::Options;
use crate::reduce::{Better, Case, Tried, reduce};
use crate::reproducer::panic_message;
use crate::{Error, Result, tensors};
use brolga_ir::{Graph, NodeError, Tensor, program};
use brolga_passes::eqsat::{EqSat, NamedRewrite};
use brolga_passes::pass::Settings;
pub use difference::{Apart, apart};
use std::panic::{AssertUnwindSafe, catch_unwind};
use trace::{Trace, trace};

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
    /// What runs machine code.
    pub machine: Machine<'a>,
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

/// The first rewrite that makes results wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongRewrite {
    /// Its number, from 1: with `rewrites=` one less, results are right.
    pub number: usize,
    /// How many the pass applies without a limit.
    pub of: usize,
    /// Its rule, and the model nodes that it rewrites.
    pub rewrite: NamedRewrite,
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
    /// For a pass that rewrites by rules, where it is a rewrite that is wrong.
    pub rewrite: Option<WrongRewrite>,
}

impl Bisect<'_> {
    /// Where the results of a graph become wrong; `None` where machine code gives the right ones.
    ///
    /// # Errors
    /// When the graph cannot be interpreted on these inputs, or a pass fails.
    pub fn search(&self, case: &Case) -> Result<Option<Found>> {
        let inputs = inputs(case)?;
        let wanted = evaluated(&case.graph, inputs)?;
        let traced = trace(&case.graph, self.options)?;
        let at = |k: usize| -> Apart {
            match traced.get(k) {
                Some(t) => apart(interpreted(&t.module, inputs), &wanted),
                None => self.code(&traced, inputs, &wanted),
            }
        };
        let mut looked = vec![];
        let mut is_wrong = |k: usize| {
            let apart = at(k);
            let wrong = !apart.is_within(self.tolerance);
            looked.push((k, apart));
            wrong
        };
        let (mut right, mut wrong) = (0, traced.len() + 1);
        if !is_wrong(traced.len()) {
            return Ok(None);
        }
        // `right` counts the steps behind which results are right: none is the imported graph.
        wrong -= 1;
        while right < wrong {
            let middle = right + (wrong - right) / 2;
            match is_wrong(middle) {
                true => wrong = middle,
                false => right = middle + 1,
            }
        }
        looked.sort_by_key(|l| l.0);
        let place = |k: usize| place(&traced, k);
        let looked: Vec<Looked> = looked
            .into_iter()
            .map(|(k, apart)| Looked { at: place(k), apart })
            .collect();
        let found = looked.iter().find(|l| l.at == place(wrong)).expect("it was looked at");
        let rewrite = match traced.get(wrong) {
            Some(t) if t.name == EqSat::NAME => self.rewrite(&case.graph, &traced[..=wrong], inputs, &wanted)?,
            _ => None,
        };
        Ok(Some(Found {
            place: found.at.clone(),
            apart: found.apart.clone(),
            rewrite,
            looked,
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
            let inputs = inputs(case)?;
            let wanted = evaluated(&case.graph, inputs)?;
            let steps = trace(&case.graph, self.options)?;
            let k = match &found.place {
                Place::Code => steps.len(),
                Place::Pass { number, .. } => *number,
            };
            if place(&steps, k) != found.place {
                return Ok(false);
            }
            let before = k.checked_sub(1).and_then(|k| steps.get(k));
            let is_right = |t: &Trace| apart(interpreted(&t.module, inputs), &wanted).is_within(self.tolerance);
            let wrong = match steps.get(k) {
                Some(t) => !is_right(t) && self.fired(t, found),
                None => !self.code(&steps, inputs, &wanted).is_within(self.tolerance),
            };
            Ok(wrong && before.is_none_or(is_right))
        };
        catch_unwind(AssertUnwindSafe(attempt)).unwrap_or(Ok(false))
    }

    /// Whether the rule that was found was applied, where one was.
    fn fired(&self, t: &Trace, found: &Found) -> bool {
        let rule = found.rewrite.as_ref().map(|r| format!("rule {}", r.rewrite.rule));
        rule.is_none_or(|rule| t.counts.get(&rule) > 0)
    }

    fn code(&self, traced: &[Trace], inputs: &[Tensor], wanted: &[Tensor]) -> Apart {
        let program = &traced.last().expect("a graph is lowered by passes").module;
        let run = || (self.machine)(program, inputs).map_err(|e| e.to_string());
        let found = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panic_message(&*payload)));
        apart(found, wanted)
    }

    /// The first rewrite of the last of these passes that makes results wrong; `None` where they are wrong without any.
    fn rewrite(
        &self,
        g: &Graph,
        steps: &[Trace],
        inputs: &[Tensor],
        wanted: &[Tensor],
    ) -> Result<Option<WrongRewrite>> {
        let (last, before) = steps.split_last().expect("the pass itself is one");
        let from = match before.last() {
            Some(t) => t.module.clone(),
            None => Module::Tensor(g.clone()),
        };
        let limited = |n: usize| {
            let given = last
                .options
                .split(' ')
                .filter(|o| !o.is_empty() && !o.starts_with("rewrites="));
            let all: Vec<String> = given.map(str::to_owned).chain([format!("rewrites={n}")]).collect();
            let pipeline = format!("{}{{{}}}", last.name, all.join(" "));
            let options = plain(self.options, Some(pipeline));
            let mut walk = crate::levels::Walk::new(from.clone(), &options)?;
            Ok::<_, Error>((walk.take_rewrite(), walk.module))
        };
        let of = last.counts.get("rewrites") as usize;
        let is_wrong = |n: usize| {
            let (_, module) = limited(n)?;
            Ok::<_, Error>(!apart(interpreted(&module, inputs), wanted).is_within(self.tolerance))
        };
        // Its results are wrong with all rewrites; without any, no rewrite is to blame.
        if of == 0 || is_wrong(0)? {
            return Ok(None);
        }
        let (mut right, mut wrong) = (0, of);
        while right + 1 < wrong {
            let middle = right + (wrong - right) / 2;
            match is_wrong(middle)? {
                true => wrong = middle,
                false => right = middle,
            }
        }
        let rewrite = limited(wrong)?.0;
        Ok(rewrite.map(|rewrite| WrongRewrite {
            number: wrong,
            of,
            rewrite,
        }))
    }
}

/// The options with a pipeline of their own, and nobody who watches or keeps files.
fn plain(options: &Options, pipeline: Option<String>) -> Options {
    Options {
        pipeline,
        rules: None,
        sizes: vec![],
        instrument: None,
        reproducers: None,
        ..options.clone()
    }
}

fn place(traced: &[Trace], k: usize) -> Place {
    match traced.get(k) {
        None => Place::Code,
        Some(t) => Place::Pass {
            number: k,
            name: t.name.clone(),
        },
    }
}

fn inputs(case: &Case) -> Result<&[Tensor]> {
    let missing = || Error::Option("a model is compared on inputs, and there are none".into());
    case.inputs.as_deref().ok_or_else(missing)
}

/// What a graph gives by its interpreter.
fn evaluated(g: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    g.eval(inputs).map_err(|source: NodeError| Error::Lower {
        model: g.name.clone(),
        source,
    })
}

/// What a module of any level gives by its interpreter, or why nothing.
fn interpreted(module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let run = || match module {
        Module::Tensor(g) => g.eval(inputs).map_err(|e| e.to_string()),
        Module::Structured(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
        Module::Loops(p) => program::interp::run(p, inputs).map_err(|e| e.to_string()),
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panic_message(&*payload)))
}
