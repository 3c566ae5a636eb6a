//! Schedules of saturation, as text: which rules run for how many rounds, phase after phase.
//!
//! ```text
//! ; Movements first, then everything that does not merge.
//! (phase (rules fusion movement) (rounds 3) (nodes 5000))
//! (repeat 2
//!   (phase (rules all -merge) (rounds 20)))
//! ```
//!
//! `(rules …)` names `all`, themes and rules, and takes away what has a `-` from what stands before it; `decompose` is part of every phase, since
//! an operator without a kernel cannot stay. The other forms are limits ([`Phase`]); what is left out is what it is without a schedule, and without
//! a schedule there is one phase of all rules. A phase whose limit of e-nodes is exceeded when it begins ends behind its first rewrite.
//! What is printed of a run ([`printed`]) is such a text again.
//!
//! The form is that of egglog's `run-schedule` (Zhang et al., "Better Together: Unifying Datalog and Equality Saturation", PLDI 2023).

use super::hint::near;
use super::matching::MOST;
use super::rules::{Rule, RuleSet};
use super::saturate::{Limits, Stop};
use super::sexp::{Place, Sexp, SyntaxError, parse as parse_sexps};
use brolga_ir::Graph;
use std::fmt;

mod parse;

/// Most phases of a schedule, repetitions unrolled.
const MOST_PHASES: usize = 1000;

/// What stands in `(rules …)`.
#[derive(Clone, Debug)]
struct Named {
    /// `all`, a theme or a rule.
    name: String,
    /// Whether it is taken away.
    without: bool,
    /// Where it stands.
    place: Place,
}

/// A phase: rules that run until nothing changes or a limit is met.
#[derive(Clone, Debug)]
pub struct Phase {
    rules: Vec<Named>,
    /// `(rounds N)`: rounds at most; `None` for the default.
    rounds: Option<usize>,
    /// `(nodes N)`: e-nodes of the graph at which it ends; `None`, written `(nodes by-size)`, chooses by the graph's size.
    nodes: Option<usize>,
    /// `(matches N)`: matches of one rule at one class at most, in one search; `None` for the default.
    matches: Option<usize>,
}

impl Phase {
    /// All rules; limits of 0 are the defaults.
    fn of_all(rounds: usize, nodes: usize) -> Phase {
        let given = |n: usize| (n > 0).then_some(n);
        Phase {
            rules: vec![Named {
                name: "all".into(),
                without: false,
                place: Place::default(),
            }],
            rounds: given(rounds),
            nodes: given(nodes),
            matches: None,
        }
    }

    /// Whether a rule is part of it.
    fn has(&self, rule: &Rule) -> bool {
        let names = |n: &&Named| n.name == "all" || n.name == rule.theme() || n.name == rule.name;
        rule.is_decompose() || self.rules.iter().rev().find(names).is_some_and(|n| !n.without)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = (self.rules.iter()).map(|n| format!(" {}{}", if n.without { "-" } else { "" }, n.name));
        write!(f, "(phase (rules{})", names.collect::<String>())?;
        write!(f, " (rounds {})", self.rounds.unwrap_or(Limits::ROUNDS))?;
        match self.nodes {
            Some(n) => write!(f, " (nodes {n})")?,
            None => write!(f, " (nodes by-size)")?,
        }
        write!(f, " (matches {}))", self.matches.unwrap_or(MOST))
    }
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The phases in their order, repetitions unrolled; at least one.
    phases: Vec<Phase>,
}

impl Schedule {
    /// What runs without a schedule: one phase of all rules; limits of 0 are the defaults.
    pub fn usual(rounds: usize, nodes: usize) -> Schedule {
        Schedule {
            phases: vec![Phase::of_all(rounds, nodes)],
        }
    }

    /// How a graph is saturated with some rules.
    pub fn course(&self, g: &Graph, set: &RuleSet) -> Course {
        let usual = Limits::of(g);
        let stretch = |p: &Phase| Stretch {
            rules: Some(set.rules.iter().map(|r| p.has(r)).collect()),
            rounds: p.rounds.unwrap_or(usual.iters),
            nodes: p.nodes.unwrap_or(usual.nodes),
            matches: p.matches.unwrap_or(MOST),
        };
        Course {
            stretches: self.phases.iter().map(stretch).collect(),
            rounds: usize::MAX,
            rewrites: usual.rewrites,
        }
    }
}

/// How an e-graph is saturated: a schedule for the rules that are used, and limits of all of it together.
#[derive(Clone, Debug)]
pub struct Course {
    /// What runs, one after the other.
    pub(super) stretches: Vec<Stretch>,
    /// Rounds of all of them.
    pub rounds: usize,
    /// Rewrites of all of them: applications of rules that change something. Decompositions of operators are none of them.
    pub rewrites: usize,
}

impl Course {
    /// Whether a rule, by its position, runs in the last phase.
    pub(super) fn ends_with(&self, rule: usize) -> bool {
        self.stretches.last().is_some_and(|s| s.has(rule))
    }
}

/// A phase for the rules that are used.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    /// Which rules run, by position; `None` for all.
    rules: Option<Vec<bool>>,
    /// Rounds.
    pub rounds: usize,
    /// E-nodes.
    pub nodes: usize,
    /// Matches of one rule at one class.
    pub matches: usize,
}

impl Stretch {
    /// Whether a rule runs.
    pub fn has(&self, rule: usize) -> bool {
        self.rules.as_ref().is_none_or(|r| r[rule])
    }
}

impl From<Limits> for Course {
    /// All rules within limits.
    fn from(limits: Limits) -> Course {
        Course {
            stretches: vec![Stretch {
                rules: None,
                rounds: limits.iters,
                nodes: limits.nodes,
                matches: MOST,
            }],
            rounds: usize::MAX,
            rewrites: limits.rewrites,
        }
    }
}

/// What a phase did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phased {
    /// Why it ended.
    pub stop: Stop,
    /// Its rounds.
    pub rounds: usize,
    /// E-nodes behind it.
    pub nodes: usize,
    /// Classes behind it.
    pub classes: usize,
    /// The e-nodes at which it would have ended.
    pub most: usize,
}

impl fmt::Display for Phased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stop, rounds) = (self.stop, self.rounds);
        let (nodes, most, classes) = (self.nodes, self.most, self.classes);
        write!(
            f,
            "{rounds} rounds, {stop}: {nodes} e-nodes (limit {most}) in {classes} classes"
        )
    }
}

/// What a schedule did to a graph.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The graph's name, and whether its repeated layers were folded.
    pub graph: String,
    /// The schedule.
    pub schedule: Schedule,
    /// What each phase did that ran.
    pub phases: Vec<Phased>,
}

/// The schedule that graphs of a model were saturated by, as its text, with what each phase did as comments.
pub fn printed(ran: &[Ran]) -> String {
    let Some(first) = ran.first() else {
        return String::new();
    };
    let mut out = String::new();
    for (n, phase) in first.schedule.phases.iter().enumerate() {
        out += &format!("{phase}\n");
        for r in ran {
            match r.phases.get(n) {
                Some(did) => out += &format!("; {}: {did}\n", r.graph),
                None => out += &format!("; {}: did not run\n", r.graph),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
