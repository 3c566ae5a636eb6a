//! Saturation: all rules, round after round, until nothing changes or a limit is met; phase after phase, where a schedule has several.
//!
//! Every round searches first and applies afterwards, in the order of rules, classes and substitutions, so that the
//! e-graph is a function of the graph and the rules alone. There is no limit in time: results would depend on the machine.

pub use super::apply::RuleError;
use super::apply::{Refusal, Replacement, keeps_roundings, replacement};
use super::build::{decompose_all, rebuild};
use super::lang::{EGraph, MAX_ORIGINS, Origins};
use super::matching::{Frontier, Index, Match, Root, matches_at};
use super::rules::{Law, RuleSet};
use super::schedule::{Course, Phased, Stretch};
use crate::pass::{Context, Counts};
use brolga_ir::{Graph, Op};
use egg::Id;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// What rewrites are called among the counts of the pass.
pub const REWRITES: &str = "rewrites";

/// How far saturation may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Rounds.
    pub iters: usize,
    /// E-nodes.
    pub nodes: usize,
    /// Rewrites: applications of rules that change something. Decompositions of operators are none of them.
    pub rewrites: usize,
}

/// A rewrite that changed something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// The rule's name.
    pub rule: String,
    /// Where the rule stands.
    pub origin: String,
    /// The operations of the graph that the left side came from, by their numbers.
    pub nodes: Vec<u32>,
}

impl Rewrite {
    /// The same, of this number from 1, with the names that the graph's operations have in the model.
    pub fn named(&self, g: &Graph, number: usize) -> NamedRewrite {
        let nodes = g.origins(self.nodes.iter().copied());
        NamedRewrite {
            number,
            rule: self.rule.clone(),
            origin: self.origin.clone(),
            nodes: nodes.into_iter().map(|n| n.to_string()).collect(),
        }
    }
}

/// A rewrite, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedRewrite {
    /// Its number among those of its pass, from 1.
    pub number: usize,
    /// The rule's name.
    pub rule: String,
    /// Where the rule stands.
    pub origin: String,
    /// The model's nodes that the left side came from.
    pub nodes: Vec<String>,
}

impl Limits {
    /// Rounds where nobody says otherwise: transposes move by one operation in each.
    pub const ROUNDS: usize = 40;

    /// Those for a graph where nobody says otherwise: the larger it is, the more e-nodes.
    pub fn of(g: &Graph) -> Limits {
        /// E-nodes that each operation is worth.
        const NODES_PER_OPERATION: usize = 60;
        /// E-nodes that the smallest graph may grow to.
        const LEAST_NODES: usize = 4000;
        Limits {
            iters: Limits::ROUNDS,
            nodes: (g.nodes.len() * NODES_PER_OPERATION).max(LEAST_NODES),
            rewrites: usize::MAX,
        }
    }
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
    /// The limit of rewrites.
    Rewrites,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Saturated => "saturated",
            Stop::Rounds => "stopped at the limit of rounds (iters=, or `rounds` of a schedule)",
            Stop::Nodes => "stopped at the limit of e-nodes (nodes=, or `nodes` of a schedule)",
            Stop::Rewrites => "stopped at the limit of rewrites (rewrites=)",
        })
    }
}

/// How large an e-graph is at a point of its saturation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// E-nodes.
    pub nodes: usize,
    /// Classes.
    pub classes: usize,
    /// Rewrites up to there that changed something.
    pub rewrites: usize,
}

impl Size {
    fn of(eg: &EGraph, rewrites: usize) -> Size {
        Size {
            nodes: eg.total_size(),
            classes: eg.number_of_classes(),
            rewrites,
        }
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
    /// Rewrites that changed something.
    pub rewrites: usize,
    /// The last of them.
    pub last: Option<Rewrite>,
    /// How often each rule changed something, for rules that did, in the order of the rules.
    pub applied: Vec<(String, usize)>,
    /// What each phase did that ran.
    pub phases: Vec<Phased>,
    /// How many searches of each rule at a class ended at its most matches, for rules of which any did: there may be more.
    pub cut: Vec<(String, usize)>,
    /// What each rule did that matched, in the order of the rules.
    pub effects: Vec<Effect>,
    /// Sizes: before the first round, and behind each.
    pub growth: Vec<Size>,
}

/// What a rule did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effect {
    /// Its name.
    pub rule: String,
    /// Matches whose conditions held, those that told nothing new included.
    pub matches: usize,
    /// E-nodes that it made. Some of them may have become equal later.
    pub nodes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} after {} rounds: {} e-nodes in {} classes",
            self.stop, self.rounds, self.nodes, self.classes
        )?;
        let list = |rules: &[(String, usize)]| {
            let items: Vec<String> = rules.iter().map(|(r, n)| format!("{r} {n}")).collect();
            items.join(", ")
        };
        write!(f, "; {}", list(&self.applied))?;
        if !self.cut.is_empty() {
            write!(f, "; searches that ended at the most matches: {}", list(&self.cut))?;
        }
        Ok(())
    }
}

impl Report {
    /// Tells what was done to a graph: a remark, the counts of the pass, the last rewrite.
    pub(super) fn tell(&self, g: &Graph, cx: &mut Context) {
        tracing::debug!("eqsat: {self}");
        cx.remarks.push(format!("eqsat: {self}"));
        if self.phases.len() > 1 {
            let each = self.phases.iter().zip(1..);
            cx.remarks.extend(each.map(|(p, n)| format!("eqsat: phase {n}: {p}")));
        }
        self.count(&mut cx.counts);
        if let Some(last) = &self.last {
            let number = cx.counts.get(REWRITES) as usize;
            cx.rewrite = Some(last.named(g, number));
        }
    }

    /// Adds what it says to the counts of the pass.
    fn count(&self, counts: &mut Counts) {
        counts.add("rounds", self.rounds);
        counts.add("e-nodes", self.nodes);
        counts.add("e-classes", self.classes);
        counts.add(REWRITES, self.rewrites);
        counts.add("rules that fired", self.applied.len());
        for (rule, n) in &self.applied {
            counts.add(format!("rule {rule}"), *n);
        }
        counts.add("searches cut", self.cut.iter().map(|(_, n)| n).sum());
    }
}

/// A match of a rule.
type Found = (usize, Match);

/// A match of a rule in few bytes, but whole: were it a hash, the second of two that collide would be overlooked.
fn key_of(rule: usize, m: &Match) -> SmallVec<[u32; 16]> {
    let class_of = |c: &Id| usize::from(*c) as u32;
    let mut key: SmallVec<[u32; 16]> = smallvec![rule as u32];
    key.extend(m.roots.iter().map(class_of));
    key.extend(m.vars.iter().map(|v| v.as_ref().map_or(u32::MAX, class_of)));
    key.extend(m.ops.iter().map(|o| o.map_or(u32::MAX, |o| o.index() as u32)));
    key
}

/// What became of a match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It was applied, and needs no second look.
    Applied,
    /// Its conditions did not hold; they may when a class that it binds changes.
    Refused,
}

/// Matches that were looked at, by their keys.
type Known = FxHashMap<Box<[u32]>, Seen>;

/// The classes that rules with several roots have joined. Each is a root of one application of each such rule: n products that
/// share an operand are joined n - 1 times (two, their whole and the next), where all pairs, and pairs of those, would be
/// more than exponentially many.
#[derive(Default)]
struct Joined(FxHashSet<(usize, Id)>);

impl Joined {
    /// Takes classes that were merged for one.
    fn refresh(&mut self, eg: &EGraph) {
        self.0 = self.0.drain().map(|(r, c)| (r, eg.find(c))).collect();
    }
    /// Whether a match may be applied.
    fn is_free(&self, rule: usize, m: &Match) -> bool {
        let distinct = || (1..m.roots.len()).all(|i| !m.roots[..i].contains(&m.roots[i]));
        m.roots.len() == 1 || distinct() && m.roots.iter().all(|c| !self.0.contains(&(rule, *c)))
    }
    /// Notes a match that is applied.
    fn note(&mut self, rule: usize, m: &Match) {
        if m.roots.len() > 1 {
            self.0.extend(m.roots.iter().map(|c| (rule, *c)));
        }
    }
}

/// The origins of what a match makes: those of all roots.
fn origins(eg: &EGraph, m: &Match) -> Origins {
    let mut all: Origins = m.roots.iter().flat_map(|c| eg[*c].data.origins.clone()).collect();
    all.sort_unstable();
    all.dedup();
    all.truncate(MAX_ORIGINS);
    all
}

/// Parts of the work of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// What is done for no rule by itself.
    Common,
    /// Matches of the rule at this position are searched.
    Search(usize),
    /// A match of the rule at this position is looked at, and applied where its conditions hold.
    Apply(usize),
}

/// Who looks on while an e-graph is saturated.
pub(super) trait Watch {
    /// Composite operators are decomposed for the first time, and no other rule has run.
    fn decomposed(&mut self, _eg: &EGraph) {}
    /// An operator over some streams equals what it is defined as: one stream for each of its results.
    fn decomposes(&mut self, _eg: &EGraph, _op: &Op, _operands: &[Id], _definition: &[Id]) {}
    /// A rule is about to be applied: its position, its match, and its right sides.
    fn applies(&mut self, _eg: &EGraph, _rule: (usize, &Law), _found: &Match, _right: &Replacement) {}
    /// It was, and that merged classes, or told nothing new.
    fn applied(&mut self, _eg: &EGraph, _changed: bool) {}
    /// All that was found in a round was applied.
    fn round(&mut self, _eg: &EGraph) {}
    /// What was done since this was told last is this kind of work.
    fn worked(&mut self, _work: Work) {}
}

/// Nobody.
impl Watch for () {}

/// Several, one after the other.
impl<A: Watch, B: Watch> Watch for (&mut A, &mut B) {
    fn decomposed(&mut self, eg: &EGraph) {
        self.0.decomposed(eg);
        self.1.decomposed(eg);
    }
    fn decomposes(&mut self, eg: &EGraph, op: &Op, operands: &[Id], definition: &[Id]) {
        self.0.decomposes(eg, op, operands, definition);
        self.1.decomposes(eg, op, operands, definition);
    }
    fn applies(&mut self, eg: &EGraph, rule: (usize, &Law), found: &Match, right: &Replacement) {
        self.0.applies(eg, rule, found, right);
        self.1.applies(eg, rule, found, right);
    }
    fn applied(&mut self, eg: &EGraph, changed: bool) {
        self.0.applied(eg, changed);
        self.1.applied(eg, changed);
    }
    fn round(&mut self, eg: &EGraph) {
        self.0.round(eg);
        self.1.round(eg);
    }
    fn worked(&mut self, work: Work) {
        self.0.worked(work);
        self.1.worked(work);
    }
}

/// Applies rules until nothing changes or a limit is met.
///
/// # Errors
/// When a rule makes an ill-typed term or would merge two types; the error names it.
pub fn saturate(eg: &mut EGraph, set: &RuleSet, limits: impl Into<Course>) -> Result<Report, RuleError> {
    saturate_watched(eg, set, &limits.into(), &mut ())
}

/// The same, with somebody who looks on.
///
/// # Errors
/// As [`saturate`].
pub(super) fn saturate_watched(
    eg: &mut EGraph,
    set: &RuleSet,
    course: &Course,
    watch: &mut dyn Watch,
) -> Result<Report, RuleError> {
    let index = Index::new(set.rules.iter().map(|r| r.law.as_ref()));
    let mut state = State::new(eg, set.rules.len());
    let (mut stop, mut phases) = (Stop::Saturated, vec![]);
    for phase in &course.stretches {
        if !phases.is_empty() {
            if state.rounds == course.rounds {
                stop = Stop::Rounds;
                break;
            }
            // Rules that have not run see all of it.
            let all: Vec<Id> = eg.classes().map(|c| c.id).collect();
            eg.analysis.changed.extend(all);
        }
        let before = state.rounds;
        stop = run(eg, set, &index, (course, phase), &mut state, watch)?;
        phases.push(Phased {
            stop,
            rounds: state.rounds - before,
            nodes: eg.total_size(),
            classes: eg.number_of_classes(),
            most: phase.nodes,
        });
        if stop == Stop::Rewrites {
            break;
        }
    }
    Ok(report(eg, set, (stop, phases), state))
}

/// What saturation knows from one phase to the next, by rule where it is a list.
struct State {
    applied: Vec<usize>,
    effects: Vec<Effect>,
    cut: Vec<usize>,
    known: Known,
    joined: Joined,
    rounds: usize,
    rewrites: usize,
    last: Option<(usize, Origins)>,
    /// Sizes at the beginning and behind each round.
    growth: Vec<Size>,
}

impl State {
    fn new(eg: &EGraph, rules: usize) -> State {
        State {
            applied: vec![0; rules],
            effects: vec![Effect::default(); rules],
            cut: vec![0; rules],
            known: Known::default(),
            joined: Joined::default(),
            rounds: 0,
            rewrites: 0,
            last: None,
            growth: vec![Size::of(eg, 0)],
        }
    }
}

/// Runs a phase of a course. Says why it ended.
fn run(
    eg: &mut EGraph,
    set: &RuleSet,
    index: &Index,
    (course, phase): (&Course, &Stretch),
    state: &mut State,
    watch: &mut dyn Watch,
) -> Result<Stop, RuleError> {
    let end = course.rounds.min(state.rounds.saturating_add(phase.rounds));
    let State {
        applied,
        effects,
        cut,
        known,
        joined,
        rounds,
        rewrites,
        last,
        growth,
    } = state;
    loop {
        if *rounds == end {
            return Ok(Stop::Rounds);
        }
        *rounds += 1;
        for (r, rule) in set.rules.iter().enumerate().filter(|(_, r)| r.is_decompose()) {
            watch.worked(Work::Common);
            applied[r] += decompose_all(eg, *rounds == 1, watch).map_err(|e| RuleError::new(rule, e))?;
            watch.worked(Work::Apply(r));
        }
        if *rounds == 1 {
            watch.decomposed(eg);
        }
        let changed = std::mem::take(&mut eg.analysis.changed);
        if changed.is_empty() {
            growth.push(Size::of(eg, *rewrites));
            watch.round(eg);
            return Ok(Stop::Saturated);
        }
        let frontier = Frontier::above(eg, &changed, index.deepest);
        let found = search(eg, (set, phase), index, &frontier, known, cut, watch);
        joined.refresh(eg);
        let mut stop = None;
        for (r, mut m) in found {
            if *rewrites == course.rewrites {
                stop = Some(Stop::Rewrites);
                break;
            }
            let rule = &set.rules[r];
            let law = rule.law.as_ref().expect("only rules that are text are searched");
            let key = key_of(r, &m).into_boxed_slice();
            m.roots.iter_mut().for_each(|c| *c = eg.find(*c));
            if !joined.is_free(r, &m) {
                watch.worked(Work::Apply(r));
                continue;
            }
            let right = match replacement(eg, law, &m) {
                Ok(right) if keeps_roundings(eg, rule, &m, &right) => right,
                Ok(_) | Err(Refusal::NoMatch) => {
                    known.insert(key, Seen::Refused);
                    watch.worked(Work::Apply(r));
                    continue;
                }
                Err(Refusal::Wrong(e)) => return Err(RuleError::new(rule, e)),
            };
            watch.applies(eg, (r, law), &m, &right);
            eg.analysis.current = origins(eg, &m);
            let before = eg.total_size();
            let rights = right.add_to(eg);
            effects[r].matches += 1;
            effects[r].nodes += eg.total_size() - before;
            known.insert(key, Seen::Applied);
            joined.note(r, &m);
            let mut merged = 0;
            for (&at, id) in m.roots.iter().zip(rights) {
                merged += eg.union(at, id) as usize;
            }
            applied[r] += merged;
            watch.applied(eg, merged > 0);
            watch.worked(Work::Apply(r));
            if merged > 0 {
                *rewrites += 1;
                *last = Some((r, eg.analysis.current.clone()));
            }
            if let Some(e) = eg.analysis.failure.take() {
                return Err(RuleError::new(rule, e));
            }
            if eg.total_size() > phase.nodes {
                stop = Some(Stop::Nodes);
                break;
            }
        }
        eg.analysis.current.clear();
        rebuild(eg);
        growth.push(Size::of(eg, *rewrites));
        watch.round(eg);
        if let Some(stop) = stop {
            return Ok(stop);
        }
    }
}

/// What saturation did.
fn report(eg: &mut EGraph, set: &RuleSet, (stop, phases): (Stop, Vec<Phased>), state: State) -> Report {
    eg.analysis.changed.clear();
    let counted = |counts: Vec<usize>| {
        let counts = set.rules.iter().zip(counts).filter(|(_, n)| *n > 0);
        counts.map(|(r, n)| (r.name.clone(), n)).collect()
    };
    Report {
        stop,
        rounds: state.rounds,
        nodes: eg.total_size(),
        classes: eg.number_of_classes(),
        rewrites: state.rewrites,
        last: state.last.map(|(r, nodes)| Rewrite {
            rule: set.rules[r].name.clone(),
            origin: set.rules[r].origin.clone(),
            nodes: nodes.to_vec(),
        }),
        applied: counted(state.applied),
        phases,
        cut: counted(state.cut),
        effects: (set.rules.iter().zip(state.effects))
            .filter(|(_, e)| e.matches > 0)
            .map(|(r, e)| Effect {
                rule: r.name.clone(),
                ..e
            })
            .collect(),
        growth: state.growth,
    }
}

/// The new matches of a round, in the order of rules, classes and bindings; counts the searches of each rule that were cut.
fn search(
    eg: &EGraph,
    (set, phase): (&RuleSet, &Stretch),
    index: &Index,
    frontier: &Frontier,
    known: &Known,
    cut: &mut [usize],
    watch: &mut dyn Watch,
) -> Vec<Found> {
    // Classes come in order, and so do the matches at one: only rules have to be brought into theirs.
    let mut found: Vec<Vec<Found>> = vec![vec![]; set.rules.len()];
    let possible = index.possible(eg);
    let fresh: FxHashSet<Id> = frontier.classes.iter().filter(|c| c.1 == 0).map(|c| c.0).collect();
    watch.worked(Work::Common);
    for &(class, distance) in &frontier.classes {
        // A number is emitted as a constant, whatever its terms.
        if eg[class].data.splat.is_some() {
            continue;
        }
        for Root { rule, side, .. } in index.roots_at(eg, class, distance) {
            let (r, side) = (rule as usize, side as usize);
            if !possible[r] || !phase.has(r) {
                continue;
            }
            let Some(law) = &set.rules[r].law else { continue };
            let matches = matches_at(eg, law, side, class, phase.matches);
            cut[r] += matches.cut as usize;
            for m in matches.all {
                let new = (r, m);
                let again = |new: &Found| new.1.vars.iter().flatten().any(|v| fresh.contains(v));
                let look = match known.get(&key_of(new.0, &new.1)[..]) {
                    Some(Seen::Applied) => false,
                    Some(Seen::Refused) => again(&new),
                    None => true,
                };
                if look {
                    found[r].push(new);
                }
            }
            watch.worked(Work::Search(r));
        }
    }
    // Those of rules with several roots are found at each of them.
    let several = |r: usize| set.rules[r].law.as_ref().is_some_and(|l| l.sides.len() > 1);
    for all in (0..).zip(&mut found).filter(|(r, _)| several(*r)).map(|(_, all)| all) {
        all.sort();
        all.dedup();
    }
    watch.worked(Work::Common);
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
