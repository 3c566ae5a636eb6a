//! The test of all changes of all rules.

use super::{Mutant, mutants};
use crate::eqsat::apply::{NewTerm, Ref, Replacement};
use crate::eqsat::check::instance::Prepared;
use crate::eqsat::check::prove::prove;
use crate::eqsat::check::{Effort, Report, hunt};
use crate::eqsat::embedded;
use crate::eqsat::rules::{Allowance, Law, Rule, RuleSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Changes that the check lets pass, and why each is right: `rule: change — why`.
const SURVIVORS: &str = include_str!("survivors.txt");

const SEED: u64 = 3;

/// Looks for an instance first with little effort and then, of what is left, with more; what is about profit only is not, for that is
/// expected.
const EFFORTS: [Effort; 2] = [
    Effort {
        cases: 60,
        attempts: 3_000,
        hopeless: 1_500,
    },
    Effort {
        cases: 250,
        attempts: 12_000,
        hopeless: 1_500,
    },
];

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// The reader refuses it.
    Unread,
    /// The check does.
    Caught,
    /// The check does, and it is proved.
    Proved,
    /// It never matches.
    Vacuous,
    /// Wherever it matches, it makes what the rule makes.
    Same,
    /// The check lets it pass.
    Survives,
}

fn law(rule: &Rule) -> &Law {
    rule.law.as_ref().expect("it is text")
}

fn fate(rule: &Rule, mutant: &Mutant) -> Fate {
    let Ok(set) = RuleSet::parse("mutant", &mutant.text) else {
        return Fate::Unread;
    };
    let changed = &set.rules[0];
    let efforts = if mutant.profit { &EFFORTS[..1] } else { &EFFORTS[..] };
    let mut fate = Fate::Survives;
    for &effort in efforts {
        let mut report = Report::new(changed);
        let mut same = true;
        // What the rule itself makes is right, as another test sees to.
        let mut known = |prepared: &Prepared, made: &[Replacement]| {
            let known = makes_the_same(rule, prepared, made);
            same &= known;
            known
        };
        let (_, failure) = hunt(changed, law(changed), SEED, effort, &mut report, &mut known);
        fate = match report.accepted {
            _ if failure.is_some() && prove(changed).is_some() => return Fate::Proved,
            _ if failure.is_some() => return Fate::Caught,
            0 => Fate::Vacuous,
            _ if same => return Fate::Same,
            _ => Fate::Survives,
        };
    }
    fate
}

/// Whether what a changed rule makes in an instance of its left side is what the rule itself makes.
fn makes_the_same(rule: &Rule, prepared: &Prepared, made: &[Replacement]) -> bool {
    let own = prepared.replacements(law(rule)).unwrap_or_default();
    let own: BTreeSet<String> = own.iter().map(terms).collect();
    made.iter().all(|m| own.contains(&terms(m)))
}

/// What right sides are made of, without what is made only for its type.
fn terms(r: &Replacement) -> String {
    let needed = r.needed();
    let mut places = vec![0; needed.len()];
    let place = |places: &[usize], r: &Ref| match r {
        Ref::Class(id) => format!("class {id}"),
        Ref::New(i) => format!("term {}", places[*i]),
    };
    let mut out = vec![];
    for (i, (term, _)) in r.new.terms.iter().enumerate().filter(|(i, _)| needed[*i]) {
        places[i] = out.len();
        out.push(match term {
            NewTerm::Op(op, operands) => {
                let operands: Vec<String> = operands.iter().map(|r| place(&places, r)).collect();
                format!("{op:?} {operands:?}")
            }
            other => format!("{other:?}"),
        });
    }
    out.extend(r.roots.iter().map(|r| place(&places, r)));
    out.join("\n")
}

/// The fates of all changes of all rules, in order, on two threads.
fn fates(all: &[(&Rule, Mutant)]) -> Vec<Fate> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut out = vec![];
        while let Some((at, (rule, mutant))) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            all.get(at).map(|m| (at, m))
        } {
            out.push((at, fate(rule, mutant)));
        }
        out
    };
    let mut found = thread::scope(|s| {
        let other = s.spawn(work);
        let mine = work();
        [other.join().expect("no change brings the check down"), mine].concat()
    });
    found.sort_unstable();
    found.into_iter().map(|(_, fate)| fate).collect()
}

#[test]
fn what_changes_the_meaning_of_a_rule_is_caught() {
    let rules: Vec<&Rule> = embedded().rules.iter().filter(|r| !r.is_decompose()).collect();
    let changes = |r: &'static Rule| mutants(r).into_iter().map(move |m| (r, m));
    let all: Vec<(&Rule, Mutant)> = rules.iter().flat_map(|r| changes(r)).collect();
    let fates = fates(&all);
    let mut answered: BTreeMap<&str, &str> = BTreeMap::new();
    for line in SURVIVORS.lines().filter(|l| !l.is_empty() && !l.starts_with(';')) {
        let (change, why) = line.split_once(" — ").unwrap_or_else(|| panic!("no reason: {line}"));
        assert!(answered.insert(change, why).is_none(), "twice: {change}");
    }
    let mut problems = vec![];
    for ((rule, mutant), fate) in all.iter().zip(&fates) {
        let name = format!("{}: {}", rule.name, mutant.what);
        let listed = answered.remove(&*name).is_some();
        match fate {
            // What constants are taken to be is the only thing that a rule may ask of what is about profit.
            Fate::Caught if mutant.profit && !rule.allows.contains(&Allowance::FiniteWeights) => {
                problems.push(format!("is not about profit only: {name}"));
            }
            Fate::Proved => problems.push(format!("is proved, and wrong: {name}")),
            Fate::Survives if !listed && !mutant.profit => problems.push(format!("survives: {name}")),
            _ => {}
        }
        if listed && (*fate != Fate::Survives || mutant.profit) {
            problems.push(format!("needs no answer: {name} ({fate:?})"));
        }
    }
    problems.extend(answered.keys().map(|change| format!("is no change: {change}")));
    let count = |f: Fate| fates.iter().filter(|x| **x == f).count();
    let counts = [Fate::Unread, Fate::Caught, Fate::Vacuous, Fate::Same, Fate::Survives].map(|f| (f, count(f)));
    assert!(problems.is_empty(), "{counts:?}\n{}", problems.join("\n"));
    assert!(count(Fate::Caught) > 2_000, "{counts:?}");
}
