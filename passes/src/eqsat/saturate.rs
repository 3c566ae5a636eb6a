//! Saturation: all rules, round after round, until nothing changes or a limit is met.
//!
//! Every round searches first and applies afterwards, in the order of rules, classes and substitutions, so that the
//! e-graph is a function of the graph and the rules alone. There is no limit in time: results would depend on the machine.

use super::apply::{Refusal, RuleError, replacement};
use super::build::decompose;
use super::lang::EGraph;
use super::rules::{RuleSet, egg_var};
use egg::{Id, Searcher, Subst, Var};
use rustc_hash::FxHashSet;
use std::fmt;

/// How far saturation may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Rounds.
    pub iters: usize,
    /// E-nodes.
    pub nodes: usize,
}

/// Why saturation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// No rule changes anything any more.
    Saturated,
    /// The limit of rounds.
    Rounds,
    /// The limit of e-nodes.
    Nodes,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Saturated => "saturated",
            Stop::Rounds => "stopped at the limit of rounds (iters=)",
            Stop::Nodes => "stopped at the limit of e-nodes (nodes=)",
        })
    }
}

/// What saturation did.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Why it ended.
    pub stop: Stop,
    /// Rounds.
    pub rounds: usize,
    /// E-nodes at the end.
    pub nodes: usize,
    /// Classes at the end.
    pub classes: usize,
    /// How often each rule changed something, for rules that did, in the order of the rules.
    pub applied: Vec<(String, usize)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} after {} rounds: {} e-nodes in {} classes",
            self.stop, self.rounds, self.nodes, self.classes
        )?;
        let rules: Vec<String> = self.applied.iter().map(|(r, n)| format!("{r} {n}")).collect();
        write!(f, "; {}", rules.join(", "))
    }
}

/// Applies rules until nothing changes or a limit is met.
///
/// # Errors
/// When a rule makes an ill-typed term or would merge two types; the error names it.
pub fn saturate(eg: &mut EGraph, set: &RuleSet, limits: Limits) -> Result<Report, RuleError> {
    let vars: Vec<Vec<Vec<Var>>> = set
        .rules
        .iter()
        .map(|r| {
            r.variants
                .iter()
                .map(|v| v.vars.iter().map(|x| egg_var(&x.0)).collect())
                .collect()
        })
        .collect();
    let mut applied = vec![0usize; set.rules.len()];
    let mut done: FxHashSet<(u32, Id, Vec<Id>)> = FxHashSet::default();
    let (mut rounds, mut stop) = (0, Stop::Saturated);
    'rounds: loop {
        if rounds == limits.iters {
            stop = Stop::Rounds;
            break;
        }
        rounds += 1;
        let mut changed = false;
        // (rule, variant, number of the variant, matches), searched before anything is applied.
        let mut found: Vec<(usize, usize, Vec<(Id, Vec<Id>, Subst)>)> = vec![];
        let mut number = 0u32;
        let mut numbers = vec![];
        for (r, rule) in set.rules.iter().enumerate() {
            for (v, variant) in rule.variants.iter().enumerate() {
                number += 1;
                let mut matches = vec![];
                for m in variant.pattern.search(eg) {
                    for subst in m.substs {
                        let ids: Vec<Id> = vars[r][v]
                            .iter()
                            .map(|&x| eg.find(*subst.get(x).expect("it is bound")))
                            .collect();
                        if !done.contains(&(number, m.eclass, ids.clone())) {
                            matches.push((m.eclass, ids, subst));
                        }
                    }
                }
                if !matches.is_empty() {
                    matches.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                    found.push((r, v, matches));
                    numbers.push(number);
                }
            }
        }
        for (r, rule) in set.rules.iter().enumerate() {
            if rule.is_decompose() {
                let n = decompose(eg).map_err(|e| RuleError::new(rule, e))?;
                applied[r] += n;
                changed |= n > 0;
            }
        }
        for ((r, v, matches), number) in found.into_iter().zip(numbers) {
            let (rule, variant) = (&set.rules[r], &set.rules[r].variants[v]);
            for (class, ids, subst) in matches {
                let at = eg.find(class);
                let right = match replacement(eg, variant, at, &subst) {
                    Ok(right) => right,
                    Err(Refusal::NoMatch) => continue,
                    Err(Refusal::Wrong(e)) => return Err(RuleError::new(rule, e)),
                };
                eg.analysis.current = eg[at].data.origins.clone();
                let id = right.add_to(eg);
                done.insert((number, class, ids));
                if eg.union(at, id) {
                    applied[r] += 1;
                    changed = true;
                }
                if let Some(e) = eg.analysis.failure.take() {
                    return Err(RuleError::new(rule, e));
                }
            }
            if eg.total_size() > limits.nodes {
                stop = Stop::Nodes;
                break;
            }
        }
        eg.analysis.current.clear();
        eg.rebuild();
        if stop == Stop::Nodes || !changed {
            break 'rounds;
        }
    }
    let applied = set
        .rules
        .iter()
        .zip(applied)
        .filter(|(_, n)| *n > 0)
        .map(|(r, n)| (r.name.clone(), n))
        .collect();
    Ok(Report {
        stop,
        rounds,
        nodes: eg.total_size(),
        classes: eg.number_of_classes(),
        applied,
    })
}
