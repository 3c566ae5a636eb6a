//! Ways to choose a program from an e-graph, side by side: greedy, local search, branch and bound, egg's extractor of trees; and the lower
//! bound, which says how far from the optimum any of them can be.
//!
//! Predicted milliseconds, how much dearer the search's program is than the bound at most, and the milliseconds that each way took. `≥`
//! stands before what branch and bound has not proven within its limit. Trees are chosen by what each e-node costs alone; stores are decided
//! as for the greedy choice then.

use brolga::ir::ops::Role;
use brolga::passes::eqsat::bound::lower_bound;
use brolga::passes::eqsat::exact::exact;
use brolga::passes::eqsat::extract::{self, Classes};
use brolga::passes::eqsat::lang::{EGraph, Term};
use brolga::passes::eqsat::search::Search;
use brolga::passes::eqsat::{Choices, Extract, Plan};
use egg::{CostFunction, Extractor, Id, Language};
use std::collections::HashMap;
use std::time::Instant;

/// Partial programs that branch and bound may look at.
const PROGRAMS: usize = 20_000;

/// The head of the table.
pub const HEAD: &str = "\
| model | greedy | search | exact | tree | bound | gap | ms: greedy | search | exact | tree | bound |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

/// Runs something; what it gives, and its milliseconds.
fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let out = run();
    (out, start.elapsed().as_secs_f64() * 1e3)
}

/// The row of a model, without its name.
///
/// # Errors
/// When a result has no kernel.
pub fn line(choices: &Choices) -> Result<String, String> {
    let cs = &choices.classes;
    let settling = extract::settle(cs, &|_, _| true);
    let (greedy, greedy_ms) = timed(|| choices.chosen(Extract::Greedy));
    let (search, search_ms) = timed(|| choices.chosen(Extract::Search));
    let ((_, greedy), (plan, search)) = (greedy?, search?);
    let (best, exact_ms) = timed(|| exact(cs, &settling, &plan, &choices.roots, PROGRAMS));
    let (tree, tree_ms) = timed(|| by_trees(choices));
    let (bound, bound_ms) = timed(|| lower_bound(cs, &settling, &plan, &choices.roots));
    let ms = |s: f64| format!("{:.4}", s * 1e3);
    let or = |x: Option<String>| x.unwrap_or_else(|| "-".into());
    Ok([
        ms(greedy),
        ms(search),
        format!("{}{}", if best.proven { "" } else { "≥ " }, ms(best.seconds)),
        or(tree.map(ms)),
        or(bound.map(ms)),
        or(bound.map(|b| format!("{:.1} %", (search / b - 1.0) * 100.0))),
        format!("{greedy_ms:.2}"),
        format!("{search_ms:.2}"),
        format!("{exact_ms:.1}"),
        format!("{tree_ms:.2}"),
        format!("{bound_ms:.2}"),
    ]
    .join(" | "))
}

/// What each e-node costs alone.
struct Alone<'a> {
    seconds: HashMap<&'a Term, f64>,
}

impl CostFunction<Term> for Alone<'_> {
    type Cost = f64;

    fn cost<C: FnMut(Id) -> f64>(&mut self, term: &Term, mut of: C) -> f64 {
        let own = self.seconds.get(term).copied().unwrap_or(0.0);
        term.children().iter().fold(own, |sum, &c| sum + of(c)).min(f64::MAX)
    }
}

fn alone<'a>(cs: &'a Classes) -> Alone<'a> {
    let mut seconds = HashMap::new();
    for (c, choice) in cs
        .choices
        .iter()
        .enumerate()
        .flat_map(|(c, ks)| ks.iter().map(move |k| (c, k)))
    {
        let own = match (&choice.term, choice.part) {
            (Term::Store(_), _) => cs.model.per_kernel() + cs.traffic[c],
            (Term::Load(_), _) => cs.traffic[c],
            (_, Some(p)) if matches!(p.role, Role::Composite) => 1e6,
            (_, Some(p)) if p.role.is_step() => cs.model.kernel(choice.work.compute, choice.work.memory),
            _ => choice.work.arithmetic(false).0,
        };
        seconds.insert(&choice.term, if cs.constant[c] { own * 1e-6 } else { own });
    }
    Alone { seconds }
}

/// The seconds of the program whose e-nodes are those of the cheapest trees; `None` where it has no kernels.
fn by_trees(choices: &Choices) -> Option<f64> {
    let (eg, cs): (&EGraph, &Classes) = (&choices.eg, &choices.classes);
    let trees = Extractor::new(eg, alone(cs));
    let best = |c: usize| {
        let term = trees.find_best_node(cs.ids[c]);
        cs.choices[c].iter().position(|k| k.term == *term)
    };
    let best: Vec<Option<usize>> = (0..cs.ids.len()).map(best).collect();
    let settling = extract::settle(cs, &|c, k| best[c] == Some(k));
    let plan = Plan::new(cs, &settling.of, &choices.roots).ok()?;
    Some(Search::new(cs, &settling, &plan, &choices.roots).cost()).filter(|s| s.is_finite())
}
