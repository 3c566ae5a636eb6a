//! The automatic check of rules: every rule is instantiated with random types, attributes and values, both sides are
//! evaluated by the reference interpreter, and the results compared by what the rule's class promises ([`compare`]).
//!
//! An instance is made by walking the left side: operands first, with a wanted type where one is known (the second operand
//! of an addition has the type of the first), attributes drawn so that they fit. Then the rule itself is matched in the
//! e-graph of that instance, so conditions and right sides go the way that they go in a compilation; every match at the
//! left side is compared ([`instance`]). Instances that the conditions refuse are thrown away; a rule for which too few remain
//! counts as untested. Half of the instances have ordinary values, a quarter zeros of both signs, infinities and NaN, a quarter
//! huge and tiny ones; of rules that only move elements, half have integers of which no two are alike.
//!
//! A counterexample is made small before it is told ([`shrink`]).
//!
//! Of rules that only move elements all small instances are gone through ([`enumerate`]).
//!
//! Rules that move elements are proved beside that ([`prove`]), where it can be done for all extents.
//!
//! What rewrites without being text is checked here too: the decompositions of operators ([`builtin`]) and
//! the folding of what is one number everywhere ([`check_splats`]).

use super::generate::{Generator, Instance, Size, Values};
use super::rules::{Expr, Head, Law, Pat, Rule, RuleSet};
use brolga_ir::DType;
use brolga_ir::ops::OpDef;
pub use builtin::check_splats;
pub use counterexample::{Counterexample, Difference};
pub use enumerate::Enumerated;
use instance::{Known, Outcome};
use prove::Proof;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

mod builtin;
pub mod compare;
mod counterexample;
mod enumerate;
mod instance;
#[cfg(test)]
mod mutants;
pub mod prove;
mod shrink;

/// Instances that a rule has to pass where nobody says otherwise.
pub const CASES: usize = 100;

/// Attempts for each instance before a rule counts as unreachable.
const ATTEMPTS: usize = 400;

/// Attempts without any instance after which the rest are spared.
const HOPELESS: usize = 4_000;

/// How rules are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// What decides the instances.
    pub seed: u64,
    /// How many instances each rule has to pass.
    pub cases: usize,
}

impl Default for Check {
    fn default() -> Check {
        Check { seed: 1, cases: CASES }
    }
}

/// What the check of a rule found.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It passed every instance.
    Tested,
    /// It is wrong.
    Wrong(Box<Counterexample>),
    /// It could not be checked: the reason.
    Untested(String),
}

/// The report on a rule.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rule.
    pub rule: String,
    /// Where it stands: file, line and column.
    pub origin: String,
    /// Instances that matched and agreed.
    pub accepted: usize,
    /// Attempts made.
    pub attempts: usize,
    /// True when an instance had rank 3 or more, an extent of 1, and extents that differ.
    pub varied: bool,
    /// The dtypes of the results of the instances, sorted.
    pub dtypes: Vec<DType>,
    /// The ranks of these results, sorted.
    pub ranks: Vec<usize>,
    /// What was found.
    pub verdict: Verdict,
    /// What was proved of a rule that passed.
    pub proof: Option<Proof>,
    /// The small instances that were gone through beside the random ones.
    pub enumerated: Option<Enumerated>,
}

impl Report {
    /// The report on a rule of which no instance has been tried.
    fn new(rule: &Rule) -> Report {
        Report {
            rule: rule.name.clone(),
            origin: rule.origin.clone(),
            accepted: 0,
            attempts: 0,
            varied: false,
            dtypes: vec![],
            ranks: vec![],
            verdict: Verdict::Tested,
            proof: None,
            enumerated: None,
        }
    }

    /// Notes an instance that agreed.
    fn agreed(&mut self, varied: bool, dtype: DType, rank: usize) {
        fn insert<T: Ord>(to: &mut Vec<T>, x: T) {
            if let Err(at) = to.binary_search(&x) {
                to.insert(at, x);
            }
        }
        self.accepted += 1;
        self.varied |= varied;
        insert(&mut self.dtypes, dtype);
        insert(&mut self.ranks, rank);
    }
}

/// Checks every rule of a set, `decompose` included.
pub fn check_rules(set: &RuleSet, check: Check) -> Vec<Report> {
    set.rules.iter().map(|r| check_rule(r, check)).collect()
}

/// The same on so many threads, 0 being one for each core, with all small instances of rules that only move elements, and a proof of each rule that has one; `seen` is shown each report when it is there.
pub fn check_on(set: &RuleSet, check: Check, threads: usize, seen: &(dyn Fn(&Report) + Sync)) -> Vec<Report> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        while let Some((at, rule)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            set.rules.get(at).map(|r| (at, r))
        } {
            let mut report = check_rule(rule, check);
            if let Verdict::Tested = report.verdict {
                go_through(rule, check.seed, &mut report);
            }
            if let Verdict::Tested = report.verdict {
                report.proof = prove::prove(rule);
            }
            seen(&report);
            done.push((at, report));
        }
        done
    };
    let mut all: Vec<(usize, Report)> = thread::scope(|s| {
        let others: Vec<_> = (1..threads.min(set.rules.len())).map(|_| s.spawn(work)).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, report)| report).collect()
}

/// The values of the n-th instance.
fn values_of(n: usize, moves: bool) -> Values {
    match moves {
        true => [Values::Places, Values::Special, Values::Places, Values::Plain][n % 4],
        false => [Values::Plain, Values::Special, Values::Plain, Values::Extreme][n % 4],
    }
}

/// The seed of an attempt.
fn seed_of(seed: u64, attempt: usize) -> u64 {
    seed ^ (attempt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How long instances of a rule are looked for.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Instances that it has to pass.
    cases: usize,
    /// Most attempts at an instance.
    attempts: usize,
    /// Attempts without any instance after which the rest are spared.
    hopeless: usize,
}

/// Checks one rule.
pub fn check_rule(rule: &Rule, check: Check) -> Report {
    let Some(law) = &rule.law else {
        return builtin::check_decompositions(rule, check);
    };
    let mut report = Report::new(rule);
    let effort = Effort {
        cases: check.cases,
        attempts: ATTEMPTS.saturating_mul(check.cases),
        hopeless: HOPELESS,
    };
    let (made, failure) = hunt(rule, law, check.seed, effort, &mut report, &mut |_, _| false);
    if let Some((instance, found)) = failure {
        let found = shrink::smallest(rule, law, check.seed, instance, found);
        report.verdict = Verdict::Wrong(found);
    } else if report.accepted < check.cases {
        report.verdict = Verdict::Untested(if made == 0 {
            format!(
                "no instance of its left side could be made in {} attempts",
                report.attempts
            )
        } else {
            format!(
                "it matched only {} of {} instances of its left side, expected {}; do its conditions ever hold?",
                report.accepted, made, check.cases
            )
        });
    }
    report
}

/// Adds all small instances of a rule that only moves elements.
fn go_through(rule: &Rule, seed: u64, report: &mut Report) {
    let Some(law) = &rule.law else { return };
    match enumerate::enumerate(rule, law) {
        Ok(enumerated) => report.enumerated = enumerated,
        Err(wrong) => {
            let (instance, found) = *wrong;
            let found = shrink::smallest(rule, law, seed, instance, Box::new(found));
            report.verdict = Verdict::Wrong(found);
        }
    }
}

/// Looks for an instance on which a rule is wrong; gives how many instances were made, and the first such. What
/// `known` says to be right is not compared.
fn hunt(
    rule: &Rule,
    law: &Law,
    seed: u64,
    effort: Effort,
    report: &mut Report,
    known: &mut Known,
) -> (usize, Option<(Instance, Box<Counterexample>)>) {
    let moves = only_moves(law);
    let mut made = 0;
    while report.accepted < effort.cases
        && report.attempts < effort.attempts
        && (made > 0 || report.attempts < effort.hopeless)
    {
        let values = values_of(report.accepted, moves);
        let generator = Generator::new(seed_of(seed, report.attempts), values, Size::ANY, rule, law);
        report.attempts += 1;
        let Some(instance) = generator.instance(law) else {
            continue;
        };
        made += 1;
        match instance::attempt(rule, law, &instance, known) {
            Ok(Outcome::NoMatch) => {}
            Ok(Outcome::Agrees { varied, dtype, rank }) => {
                report.agreed(varied, dtype, rank);
            }
            Err(found) => return (made, Some((instance, found))),
        }
    }
    (made, None)
}

/// Whether all that a rule names only moves elements.
fn only_moves(law: &Law) -> bool {
    fn right(e: &Expr, f: &mut dyn FnMut(Head)) {
        match e {
            Expr::Var(_) | Expr::Lit(_) | Expr::Call(..) | Expr::Nil => {}
            Expr::Dense(..) | Expr::Splat(..) | Expr::SplatIn(..) => {}
            Expr::Op(head, args) => {
                f(*head);
                args.iter().for_each(|a| right(a, f));
            }
            Expr::Each(a, b) | Expr::Cons(a, b) => {
                right(a, f);
                right(b, f);
            }
        }
    }
    let mut all = law.families.is_empty();
    let moves = |def: &dyn OpDef| def.role().only_moves();
    law.for_each_op(&mut |op| all &= moves(op.def()));
    for side in &law.sides {
        // A rule about numbers is no rule about places.
        all &= !matches!(side.left, Pat::Load(_) | Pat::Store(_));
        right(&side.right, &mut |head| {
            all &= matches!(head, Head::Op(op) if moves(op.def()));
        });
    }
    all
}
