//! What of a pass with rules makes results wrong: one of its rewrites, or the folding of repeated layers.

use super::trace::Trace;
use super::{Bisect, Run, interpreted, plain};
use crate::caught::caught;
use crate::levels::{Module, Walk};
use brolga_passes::eqsat::NamedRewrite;

/// The first rewrite that makes results wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongRewrite {
    /// Its number, from 1: with `rewrites=` one less, results are right.
    pub number: usize,
    /// How many the pass applies without a limit of ours.
    pub of: usize,
    /// Its rule, and the model nodes that it rewrites.
    pub rewrite: NamedRewrite,
}

/// What of a pass with rules makes results wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A rewrite.
    Rewrite(WrongRewrite),
    /// The folding of repeated layers: with all rewrites and `fold=off`, results are right.
    Folding,
}

/// What a pass gave that was run again: the module, and its last rewrite; `None` where it failed.
type Again = Option<(Module, Option<NamedRewrite>)>;

impl Bisect<'_> {
    /// What of a step that is a pass with rules is wrong; `None` where results are wrong without any rewrite.
    pub(super) fn cause(&self, run: &Run, step: usize) -> Option<Cause> {
        match self.is_folding(run, step) {
            true => Some(Cause::Folding),
            false => self.rewrite(run, step).map(Cause::Rewrite),
        }
    }

    /// Whether results that are wrong behind a pass are right where it folds no layers.
    pub(super) fn is_folding(&self, run: &Run, step: usize) -> bool {
        self.is_right(run, &self.again(run, step, "fold", "off"))
    }

    fn is_right(&self, run: &Run, given: &Again) -> bool {
        let right = |m: &Module| run.off(interpreted(m, run.inputs)).is_within(self.tolerance);
        given.as_ref().is_some_and(|(module, _)| right(module))
    }

    /// The first rewrite of a pass that makes results wrong; `None` where they are wrong without any.
    fn rewrite(&self, run: &Run, step: usize) -> Option<WrongRewrite> {
        let limited = |n: usize| self.again(run, step, "rewrites", &n.to_string());
        let most = options_of(&run.traced.steps[step]).find_map(|o| o.strip_prefix("rewrites=")?.parse().ok());
        // Not as many as the pass counted: with a limit, repeated layers are rewritten one by one.
        let of = limited(most.unwrap_or(usize::MAX))?.1?.number;
        // Its results are wrong with all rewrites; without any, no rewrite is to blame.
        if !self.is_right(run, &limited(0)) {
            return None;
        }
        let (mut right, mut wrong) = (0, of);
        while right + 1 < wrong {
            let middle = right + (wrong - right) / 2;
            match self.is_right(run, &limited(middle)) {
                true => right = middle,
                false => wrong = middle,
            }
        }
        Some(WrongRewrite {
            number: wrong,
            of,
            rewrite: limited(wrong)?.1?,
        })
    }

    /// Runs a pass once more, with an option in place of what it was given of that name.
    fn again(&self, run: &Run, step: usize, option: &str, value: &str) -> Again {
        let (steps, named) = (&run.traced.steps, format!("{option}="));
        let from = match step.checked_sub(1) {
            Some(before) => steps[before].module.clone(),
            None => Module::Tensor(run.graph.clone()),
        };
        let given = options_of(&steps[step]).filter(|o| !o.starts_with(&named));
        let all: Vec<&str> = given.chain([&*named]).collect();
        let pipeline = format!("{}{{{}{value}}}", steps[step].name, all.join(" "));
        let options = plain(self.options, Some(pipeline));
        let walk = || {
            let mut walk = Walk::new(from, &options).ok()?;
            let rewrite = walk.take_rewrite();
            Some((walk.module, rewrite))
        };
        caught(walk).ok().flatten()
    }
}

/// The options that a pass was given, each as a pipeline writes it.
fn options_of(t: &Trace) -> impl Iterator<Item = &str> {
    t.options.split(' ').filter(|o| !o.is_empty())
}

/// Whether a pass applied a rule.
pub(super) fn fired(t: &Trace, rule: &str) -> bool {
    t.counts.get(&format!("rule {rule}")) > 0
}
