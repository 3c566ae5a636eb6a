//! Finding where a left side matches: backtracking over the e-nodes of a class.
//!
//! egg's own matcher knows neither operands in either order nor families of operators; both would have to be written out,
//! which for the longest rules is thousands of patterns. It also searches everything in every round, while what is new is
//! at most a pattern's depth above a class that changed ([`Frontier`]).
//!
//! The roots of a rule with several are joined: where one matches, the next is looked for above a stream that they share, and
//! nowhere else.

use super::apply::stream_of;
use super::functions::Arg;
use super::lang::{EGraph, Kind, OpId, Term};
use super::rules::{Head, Law, Link, Literal, Pat, Side};
use brolga_ir::{DType, Number, Tensor, ops};
use egg::Id;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

/// What the variables of a rule's left sides are bound to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Match {
    /// The class of every root.
    pub roots: SmallVec<[Id; 2]>,
    /// The class of every variable.
    pub vars: SmallVec<[Option<Id>; 8]>,
    /// The operator of every family.
    pub ops: SmallVec<[Option<OpId>; 2]>,
}

/// What is still to be matched: a list on the stack, shared by the branches of the search.
enum Goals<'a> {
    Done,
    Then(&'a Pat, Id, &'a Goals<'a>),
}

/// Most matches of one rule at one class, where a schedule has no other number: what is beyond is noise, and reported.
pub const MOST: usize = 64;

/// Where a rule matches with a root at a class.
pub struct Matches {
    /// The matches, sorted, without repetitions.
    pub all: Vec<Match>,
    /// True when the search ended at the most matches before everything was tried.
    pub cut: bool,
}

/// The matches of a rule with one of its roots at a class, about so many at most.
pub fn matches_at(eg: &EGraph, law: &Law, side: usize, class: Id, most: usize) -> Matches {
    let mut m = Matcher {
        eg,
        law,
        links: &law.links[side],
        now: Match {
            roots: smallvec![class; law.sides.len()],
            vars: smallvec![None; law.vars.len()],
            ops: smallvec![None; law.families.len()],
        },
        found: vec![],
        most,
        cut: false,
    };
    m.go(&Goals::Then(&law.sides[side].left, class, &Goals::Done));
    m.found.sort();
    m.found.dedup();
    Matches {
        all: m.found,
        cut: m.cut,
    }
}

struct Matcher<'a> {
    eg: &'a EGraph,
    law: &'a Law,
    /// The roots that are still to be matched.
    links: &'a [Link],
    now: Match,
    found: Vec<Match>,
    most: usize,
    cut: bool,
}

impl<'a> Matcher<'a> {
    fn go(&mut self, goals: &Goals) {
        let Goals::Then(pat, class, rest) = *goals else {
            match self.links.split_first() {
                None => self.found.push(self.now.clone()),
                Some((link, others)) => self.join(link, others),
            }
            return;
        };
        if self.found.len() >= self.most {
            self.cut = true;
            return;
        }
        let eg = self.eg;
        let class = eg.find(class);
        match pat {
            Pat::Var(i) => match self.now.vars[*i] {
                Some(bound) if bound == class => self.go(rest),
                Some(_) => {}
                None if self.passes(*i, class) => {
                    self.now.vars[*i] = Some(class);
                    self.go(rest);
                    self.now.vars[*i] = None;
                }
                None => {}
            },
            Pat::Lit(a) => {
                if eg[class].data.attr() == Some(a) {
                    self.go(rest);
                }
            }
            Pat::Number(x, near) => {
                if is_number_at(eg, class, *x, *near) {
                    self.go(rest);
                }
            }
            Pat::Dense(x) => {
                if is_matrix(self.eg, class, x) {
                    self.go(rest);
                }
            }
            Pat::Nil => {
                if eg[class].nodes.contains(&Term::Nil) {
                    self.go(rest);
                }
            }
            Pat::Load(x) => {
                for t in &eg[class].nodes {
                    if let Term::Load([c]) = t {
                        self.go(&Goals::Then(x, *c, rest));
                    }
                }
            }
            Pat::Store(x) => {
                for t in &eg[class].nodes {
                    if let Term::Store([c]) = t {
                        self.go(&Goals::Then(x, *c, rest));
                    }
                }
            }
            Pat::Cons(a, b) => {
                for t in &eg[class].nodes {
                    if let Term::Cons([head, tail]) = t {
                        self.go(&Goals::Then(a, *head, &Goals::Then(b, *tail, rest)));
                    }
                }
            }
            Pat::Op(head, args, either) => {
                for t in &eg[class].nodes {
                    let Term::Op(op, children) = t else { continue };
                    // The family that this operator binds, to be unbound afterwards.
                    let binds = match head {
                        Head::Op(want) if want == op => None,
                        Head::Op(_) => continue,
                        Head::Family(f) => match self.now.ops[*f] {
                            Some(bound) if bound == *op => None,
                            None if self.law.families[*f].binary_search(op).is_ok() => Some(*f),
                            _ => continue,
                        },
                    };
                    if let Some(f) = binds {
                        self.now.ops[f] = Some(*op);
                    }
                    let n = children.len();
                    if n == args.len() {
                        if self.may_match(args, children) {
                            self.arguments(args, children, rest);
                        }
                        let swaps = || {
                            let operands = [children[n - 1], children[n - 2]];
                            operands[0] != operands[1] && self.may_match(&args[n - 2..], &operands)
                        };
                        if *either && swaps() {
                            let last = Goals::Then(&args[n - 1], children[n - 2], rest);
                            let swapped = Goals::Then(&args[n - 2], children[n - 1], &last);
                            self.arguments(&args[..n - 2], &children[..n - 2], &swapped);
                        }
                    }
                    if let Some(f) = binds {
                        self.now.ops[f] = None;
                    }
                }
            }
        }
    }

    /// Matches the next root at every class above the stream that it shares with those before.
    fn join(&mut self, link: &Link, others: &'a [Link]) {
        let Some(shared) = self.now.vars[link.var] else { return };
        let (law, before) = (self.law, self.links);
        for class in above(self.eg, shared, link.depth) {
            // Roots that are not matched yet stand as the first one. A number is emitted as a constant, whatever its terms.
            if self.now.roots.contains(&class) || self.eg[class].data.splat.is_some() {
                continue;
            }
            let first = std::mem::replace(&mut self.now.roots[link.side], class);
            self.links = others;
            self.go(&Goals::Then(&law.sides[link.side].left, class, &Goals::Done));
            self.links = before;
            self.now.roots[link.side] = first;
        }
    }

    /// False when a literal among the arguments is another one: seen before any condition is tried.
    fn may_match(&self, args: &[Pat], children: &[Id]) -> bool {
        args.iter().zip(children).all(|(arg, &c)| match arg {
            Pat::Lit(a) => self.eg[c].data.attr() == Some(a),
            Pat::Number(x, near) => is_number_at(self.eg, c, *x, *near),
            _ => true,
        })
    }

    /// True when the conditions on one variable alone hold for a class.
    fn passes(&self, var: usize, class: Id) -> bool {
        let guards = &self.law.guards[var];
        if guards.is_empty() {
            return true;
        }
        let Some(stream) = stream_of(&self.eg[class].data, class) else {
            return false;
        };
        let arg = [Arg::Stream(stream)];
        guards
            .iter()
            .all(|g| (g.test.run)(self.eg, &arg).unwrap_or(false) == g.holds)
    }

    /// Puts the arguments before the rest, the first in front.
    fn arguments(&mut self, args: &[Pat], children: &[Id], rest: &Goals) {
        match (args.split_last(), children.split_last()) {
            (Some((a, args)), Some((c, children))) => self.arguments(args, children, &Goals::Then(a, *c, rest)),
            _ => self.go(rest),
        }
    }
}

/// Whether a stream is a constant of the model with a matrix's elements.
pub(super) fn is_matrix(eg: &EGraph, class: Id, x: &Literal) -> bool {
    let d = &eg[class].data;
    let Kind::Value(ty) = &d.kind else { return false };
    let extents = ty.shape.iter().zip(&x.shape);
    if ty.rank() != x.shape.len() || !extents.into_iter().all(|(d, n)| d.is(*n as i64)) {
        return false;
    }
    let same = |found: &Tensor| {
        let mut pairs = found.iter().zip(&x.elements);
        pairs.all(|(found, literal)| is_number(found, ty.dtype, *literal, false))
    };
    if let Some(found) = d.splat {
        return x
            .elements
            .iter()
            .all(|literal| is_number(found, ty.dtype, *literal, false));
    }
    let constants = eg[class].nodes.iter().filter_map(|t| match t {
        Term::Load([c]) => Some(&eg[*c].nodes),
        _ => None,
    });
    constants.flatten().any(|t| match t {
        Term::Const(i) => eg.analysis.elements(*i).is_some_and(same),
        _ => false,
    })
}

/// True when a class is a rule's number everywhere; near it, when that is asked for.
pub(super) fn is_number_at(eg: &EGraph, class: Id, x: Number, near: bool) -> bool {
    let d = &eg[class].data;
    d.splat.is_some_and(|found| is_number(found, d.ty().dtype, x, near))
}

/// The classes so many e-nodes above a class, sorted.
pub(super) fn above(eg: &EGraph, class: Id, distance: usize) -> Vec<Id> {
    let mut level = vec![eg.find(class)];
    for _ in 0..distance {
        let mut next: Vec<Id> = level
            .iter()
            .flat_map(|c| eg[*c].parents())
            .map(|p| eg.find(p))
            .collect();
        next.sort_unstable();
        next.dedup();
        level = next;
    }
    level
}

/// True when a value is a rule's literal: rounded to its dtype, or near it.
fn is_number(found: Number, dtype: DType, literal: Number, near: bool) -> bool {
    match (found, literal.to(dtype)) {
        (Number::Float(x), _) if near => (x - literal.f64()).abs() <= NEAR * literal.f64().abs(),
        (Number::Float(x), Number::Float(exact)) => x == exact && x.is_sign_negative() == exact.is_sign_negative(),
        // An integer that is the literal, not what a fraction or a number out of range becomes.
        (found, exact) => found == exact && exact.f64() == literal.f64(),
    }
}

/// How far a stream may be from a literal marked `~`: two units in the last place of an f32.
const NEAR: f64 = 4e-7;

/// The classes at which something new may match: those that changed, and those above them.
pub struct Frontier {
    /// The classes with their distance above one that changed, sorted by class.
    pub classes: Vec<(Id, usize)>,
}

impl Frontier {
    /// The classes up to a distance above those that changed.
    pub fn above(eg: &EGraph, changed: &[Id], distance: usize) -> Frontier {
        let mut level: FxHashMap<Id, usize> = FxHashMap::default();
        let mut edge: Vec<Id> = changed.iter().map(|&c| eg.find(c)).collect();
        edge.sort_unstable();
        edge.dedup();
        level.extend(edge.iter().map(|&c| (c, 0)));
        for d in 1..=distance {
            let mut next = vec![];
            for &c in &edge {
                for p in eg[c].parents() {
                    let p = eg.find(p);
                    if let std::collections::hash_map::Entry::Vacant(e) = level.entry(p) {
                        e.insert(d);
                        next.push(p);
                    }
                }
            }
            edge = next;
        }
        let mut classes: Vec<(Id, usize)> = level.into_iter().collect();
        classes.sort_unstable();
        Frontier { classes }
    }
}

/// Which rules can match at a class that holds a term, and with which root: a rule and a root of it are a pair.
pub struct Index {
    /// By the operator's position.
    by_op: Vec<Vec<Root>>,
    loads: Vec<Root>,
    /// The operators that a rule's left sides cannot match without.
    needs: Vec<Vec<OpId>>,
    /// The depth of the deepest left side.
    pub deepest: usize,
}

/// A root of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Root {
    /// The rule's position.
    pub rule: u32,
    /// The root's.
    pub side: u16,
    /// The depth of its left side.
    depth: u16,
}

impl Index {
    /// The index of laws, by their position.
    pub fn new<'a>(laws: impl Iterator<Item = Option<&'a Law>>) -> Index {
        let mut index = Index {
            by_op: vec![vec![]; ops::all().len()],
            loads: vec![],
            needs: vec![],
            deepest: 0,
        };
        for (rule, law) in (0..).zip(laws) {
            let mut needs = vec![];
            law.iter().for_each(|l| l.for_each_op(&mut |op| needs.push(op)));
            needs.sort_unstable();
            needs.dedup();
            index.needs.push(needs);
            let Some(law) = law else { continue };
            for (side, Side { left, .. }) in (0..).zip(&law.sides) {
                let depth = left.depth();
                index.deepest = index.deepest.max(depth);
                let root = Root {
                    rule,
                    side,
                    depth: u16::try_from(depth).unwrap_or(u16::MAX),
                };
                match left {
                    Pat::Op(Head::Op(op), ..) => index.by_op[op.index()].push(root),
                    Pat::Op(Head::Family(f), ..) => {
                        law.families[*f]
                            .iter()
                            .for_each(|op| index.by_op[op.index()].push(root));
                    }
                    _ => index.loads.push(root),
                }
            }
        }
        index
    }

    /// The rules whose operators all occur.
    pub fn possible(&self, eg: &EGraph) -> Vec<bool> {
        let occurs = |op: &OpId| eg.analysis.ops.contains(op);
        self.needs.iter().map(|n| n.iter().all(occurs)).collect()
    }

    /// The roots that may match at a class when something changed at a distance below it, sorted.
    pub fn roots_at(&self, eg: &EGraph, class: Id, distance: usize) -> SmallVec<[Root; 64]> {
        let mut out = SmallVec::new();
        let deep = |r: &Root| r.depth as usize >= distance;
        for t in &eg[class].nodes {
            let roots = match t {
                Term::Op(op, _) => &self.by_op[op.index()],
                Term::Load(_) | Term::Store(_) => &self.loads,
                _ => continue,
            };
            out.extend(roots.iter().copied().filter(deep));
        }
        // Those of one operator are in order.
        if eg[class].nodes.len() > 1 {
            out.sort_unstable();
            out.dedup();
        }
        out
    }
}
