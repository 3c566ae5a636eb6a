//! Why a rule did not do something to a node of a model: at which part of its pattern or which condition it failed, or that it
//! was applied, and what the program would cost that uses it.
//!
//! The question is asked of the e-graph at its end. There the rule is matched part by part, wherever the node may be one of the parts;
//! of all tries the one is told that got furthest.

use super::apply::{Refusal, first_refused, keeps_roundings, replacement, stream_of};
use super::derive::Derivation;
use super::extract::settle;
use super::functions::Arg;
use super::journal::Reason;
use super::lang::{EGraph, Kind, OpId, Term};
use super::matching::{MOST, Match, above, is_matrix, is_number_at};
use super::rules::{Head, Law, Pat, Rule, RuleSet};
use super::saturate::Stop;
use super::search::{LEAST, Search, Way};
use super::sexp::{Sexp, parse};
use brolga_ir::Graph;
use egg::{Id, Language};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// Why a rule did not do what was expected of it, or that it did.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// A part of the pattern does not match.
    Pattern {
        /// The part.
        part: String,
        /// What stands in its place.
        found: String,
        /// The model nodes that this came from.
        nodes: Vec<String>,
        /// How many parts match before it, of how many.
        matched: (usize, usize),
    },
    /// The pattern matches, but a condition does not hold.
    Condition(String),
    /// The pattern matches and its conditions hold, but something else keeps it from being applied.
    Kept(String),
    /// It was applied, and the program uses what it made.
    Used,
    /// It was applied, and the program does not use what it made, which would take so many seconds more.
    Lost(f64),
    /// It was applied to what the program has no use for.
    Unused,
    /// It was applied, but what it made has no kernel.
    NoKernel,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Pattern {
                part,
                found,
                nodes,
                matched: (n, all),
            } => {
                write!(f, "its pattern does not match: expected {part}, found {found}")?;
                if !nodes.is_empty() {
                    write!(f, " of {}", nodes.join(" + "))?;
                }
                write!(f, " ({n} of {all} parts match before that)")
            }
            Answer::Condition(text) => write!(f, "its pattern matches, but a condition does not hold: {text}"),
            Answer::Kept(why) => write!(f, "its pattern matches, but {why}"),
            Answer::Used => f.write_str("it was applied, and the program uses what it made"),
            Answer::Lost(seconds) => write!(
                f,
                "it was applied, but a program that uses what it made takes {:.4} ms longer by the cost model's figures",
                seconds * 1e3
            ),
            Answer::Unused => f.write_str(
                "it was applied, but to a value that the program does not compute: other forms of what needs it are cheaper, \
                 which rules may have made of this one (brolga explain says which did)",
            ),
            Answer::NoKernel => f.write_str("it was applied, but no kernel computes what it made"),
        }
    }
}

/// What a part of a pattern was compared with.
struct Failure {
    matched: usize,
    part: String,
    found: String,
    class: Id,
}

/// A rule's variables as far as parts of its left sides match.
#[derive(Clone)]
struct Partial {
    found: Match,
    /// How many parts match.
    parts: usize,
    /// The classes that they match at.
    classes: Vec<Id>,
}

struct Tracer<'a> {
    eg: &'a EGraph,
    law: &'a Law,
    /// The classes that the question is about.
    own: &'a [Id],
    /// The conditions as they are written.
    conditions: Vec<String>,
    furthest: Option<Failure>,
    /// A condition that was the last thing in the way.
    refused: Option<(usize, String)>,
}

/// Why a rule did not do something to the model nodes at some positions of a graph.
pub fn why_not(d: &Derivation, g: &Graph, set: &RuleSet, rule: usize, nodes: &[usize]) -> Answer {
    let eg = &d.choices.eg;
    let at = rule;
    let rule = &set.rules[at];
    let Some(law) = &rule.law else {
        return decomposed(d, g, nodes);
    };
    let own = classes_of(d, g, nodes);
    let mut tracer = Tracer {
        eg,
        law,
        own: &own,
        conditions: conditions(rule),
        furthest: None,
        refused: None,
    };
    let deepest = law.sides.iter().map(|s| s.left.depth()).max().unwrap_or(0);
    let mut matches: Vec<Match> = vec![];
    let mut roots: Vec<Id> = own.clone();
    for distance in 0..=deepest {
        for c in own.iter().flat_map(|&c| above(eg, c, distance)) {
            if !roots.contains(&c) {
                roots.push(c);
            }
        }
    }
    let in_memory = law.sides.iter().any(|s| matches!(s.left, Pat::Load(_) | Pat::Store(_)));
    let may_match = |c: &Id| eg[*c].data.splat.is_none() && (in_memory || eg[*c].data.stream);
    for root in roots.into_iter().filter(may_match) {
        for partial in tracer.whole(root) {
            if partial.classes.iter().any(|c| own.contains(c)) && !matches.contains(&partial.found) {
                matches.push(partial.found);
            }
        }
    }
    let settling = settle(&d.choices.classes, &|_, _| true);
    let mut search = Search::new(&d.choices.classes, &settling, &d.plan, &d.choices.roots);
    let answers = matches.iter().map(|m| match first_refused(eg, law, m) {
        Some(i) => Answer::Condition(tracer.conditions[i].clone()),
        None => answer(d, (at, rule), m, &mut search),
    });
    // What was used tells most, then what lost by least.
    let rank = |a: &Answer| match a {
        Answer::Used => (0, 0.0),
        Answer::Lost(s) => (1, *s),
        Answer::Unused => (2, 0.0),
        Answer::NoKernel => (3, 0.0),
        Answer::Kept(_) => (4, 0.0),
        Answer::Condition(_) => (5, 0.0),
        Answer::Pattern { .. } => (6, 0.0),
    };
    let best = answers.min_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    if let Some(best) = best {
        return best;
    }
    let reach = tracer.furthest.as_ref().map_or(0, |f| f.matched);
    if let Some((matched, text)) = tracer.refused
        && matched >= reach
    {
        return Answer::Condition(text);
    }
    match tracer.furthest {
        Some(f) => Answer::Pattern {
            part: f.part,
            found: f.found,
            nodes: (g.origins(eg[f.class].data.origins.iter().copied()).into_iter())
                .map(|n| n.to_string())
                .collect(),
            matched: (f.matched, law.sides.iter().map(|s| parts(&s.left)).sum()),
        },
        None => Answer::Kept("the node is one number everywhere, which is emitted as a constant".into()),
    }
}

/// What became of the definition of nodes.
fn decomposed(d: &Derivation, g: &Graph, nodes: &[usize]) -> Answer {
    let terms = |n: &usize| g.nodes[*n].outputs.iter().map(|v| d.journal.sources[v.0 as usize]);
    let own: Vec<_> = nodes.iter().flat_map(terms).collect();
    let mut steps = d.journal.steps.iter().filter(|s| s.reason == Reason::Decompose);
    match steps.any(|s| s.sides.iter().any(|(left, _)| own.contains(left))) {
        true => Answer::Used,
        false => Answer::Kept("the operator has a kernel of its own, or no definition by others".into()),
    }
}

/// What became of a match all conditions of which hold.
fn answer(d: &Derivation, (at, rule): (usize, &Rule), m: &Match, search: &mut Search) -> Answer {
    let eg = &d.choices.eg;
    let law = rule.law.as_ref().expect("a rule that matches is text");
    let right = match replacement(eg, law, m) {
        Ok(right) => right,
        Err(Refusal::NoMatch) => return Answer::Kept("a function on its right side does not apply".into()),
        Err(Refusal::Wrong(e)) => return Answer::Kept(format!("the rule is wrong: {e}")),
    };
    if !keeps_roundings(eg, rule, m, &right) {
        return Answer::Kept("results of 16-bit operators would be rounded elsewhere".into());
    }
    let Some(made) = right.find_in(eg) else {
        let why = match d.report.stop {
            Stop::Saturated if !d.course.ends_with(at) => "the last phase of the schedule does not run the rule",
            Stop::Saturated if law.sides.len() > 1 => "each of its roots was joined once already, with another",
            Stop::Saturated => "there were too many matches at once to try all of them",
            Stop::Rounds => "saturation stopped at the limit of rounds before (iters=, or `rounds` of a schedule)",
            Stop::Nodes => "saturation stopped at the limit of e-nodes before (nodes=, or `nodes` of a schedule)",
            Stop::Rewrites => "saturation stopped at the limit of rewrites before (rewrites=)",
        };
        return Answer::Kept(why.into());
    };
    let (mut best, mut unused): (Option<f64>, bool) = (None, false);
    for (root, term) in m.roots.iter().zip(made) {
        let Some(term) = term else { return Answer::Used };
        let Some(c) = d.choices.classes.at.get(&eg.find(*root)).copied() else {
            continue;
        };
        if d.uses(c, &term) {
            return Answer::Used;
        }
        if d.choices.classes.constant[c] {
            return Answer::Kept("what it made is computed at compile time, by other operators".into());
        }
        unused |= d.plan.choice[c].is_none();
        let term = term.map_children(|i| eg.find(i));
        let at = d.choices.classes.choices[c].iter().position(|k| k.term == term);
        let price = at.and_then(|k| search.price(c, Way::By(k)).ok());
        best = match (best, price) {
            (Some(a), Some(b)) => Some(f64::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    match best {
        Some(seconds) if seconds < LEAST => Answer::Lost(0.0),
        Some(seconds) => Answer::Lost(seconds),
        None if unused => Answer::Unused,
        None => Answer::NoKernel,
    }
}

/// The classes of nodes' results: the streams and the tensors.
fn classes_of(d: &Derivation, g: &Graph, nodes: &[usize]) -> Vec<Id> {
    let eg = &d.choices.eg;
    let mut out: Vec<Id> = vec![];
    for v in nodes.iter().flat_map(|&n| &g.nodes[n].outputs) {
        let tensor = eg.find(d.journal.tensors[v.0 as usize]);
        let streams = eg[tensor].nodes.iter().filter_map(|t| match t {
            Term::Store([s]) => Some(eg.find(*s)),
            _ => None,
        });
        out.extend(streams);
        out.extend(eg.lookup(Term::Load([tensor])).map(|c| eg.find(c)));
        out.push(tensor);
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// A rule's conditions as they are written.
fn conditions(rule: &Rule) -> Vec<String> {
    let text = rule.text();
    let items = parse(&rule.origin, &text).unwrap_or_default();
    let behind = items.iter().skip_while(|i| i.atom() != Some("if")).skip(1);
    behind.map(Sexp::to_string).collect()
}

/// The number of parts of a pattern: operators, and what has to be a certain attribute or number.
fn parts(pat: &Pat) -> usize {
    match pat {
        Pat::Var(_) => 0,
        Pat::Lit(_) | Pat::Number(..) | Pat::Dense(_) | Pat::Nil => 1,
        Pat::Op(_, args, _) => 1 + args.iter().map(parts).sum::<usize>(),
        Pat::Load(x) | Pat::Store(x) => 1 + parts(x),
        Pat::Cons(a, b) => 1 + parts(a) + parts(b),
    }
}

impl Tracer<'_> {
    /// The matches of the whole rule with one of its roots at a class.
    fn whole(&mut self, root: Id) -> Vec<Partial> {
        let (eg, law) = (self.eg, self.law);
        let mut out = vec![];
        for (side, links) in law.links.iter().enumerate() {
            let start = Partial {
                found: Match {
                    roots: smallvec![eg.find(root); law.sides.len()],
                    vars: smallvec![None; law.vars.len()],
                    ops: smallvec![None; law.families.len()],
                },
                parts: 0,
                classes: vec![],
            };
            let mut all = self.part(&law.sides[side].left, root, start);
            for link in links {
                let mut next = vec![];
                for partial in all {
                    let Some(shared) = partial.found.vars[link.var] else {
                        continue;
                    };
                    for class in above(eg, shared, link.depth) {
                        if partial.found.roots.contains(&class) {
                            continue;
                        }
                        let mut with = partial.clone();
                        with.found.roots[link.side] = class;
                        next.extend(self.part(&law.sides[link.side].left, class, with));
                    }
                }
                all = next;
            }
            out.extend(all);
        }
        out
    }

    /// The ways in which a part matches at a class, given what parts before it are; notes where it does not.
    fn part(&mut self, pat: &Pat, class: Id, mut so_far: Partial) -> Vec<Partial> {
        let eg = self.eg;
        let class = eg.find(class);
        let before = so_far.parts;
        so_far.classes.push(class);
        let is_about = self.is_about(&so_far.classes);
        let literal = |holds: bool, mut so_far: Partial| match holds {
            true => {
                so_far.parts += 1;
                vec![so_far]
            }
            false => vec![],
        };
        let out = match pat {
            Pat::Var(i) => match so_far.found.vars[*i] {
                Some(bound) if eg.find(bound) == class => return vec![so_far],
                Some(_) => vec![],
                None => {
                    if !self.passes(*i, class, &so_far) {
                        return vec![];
                    }
                    so_far.found.vars[*i] = Some(class);
                    return vec![so_far];
                }
            },
            Pat::Lit(a) => literal(eg[class].data.attr() == Some(a), so_far),
            Pat::Number(x, near) => literal(is_number_at(eg, class, *x, *near), so_far),
            Pat::Dense(x) => literal(is_matrix(eg, class, x), so_far),
            Pat::Nil => literal(eg[class].nodes.contains(&Term::Nil), so_far),
            Pat::Load(_) | Pat::Store(_) | Pat::Cons(..) | Pat::Op(..) => {
                let mut out = vec![];
                let mut head = false;
                for t in &eg[class].nodes {
                    for (args, children, found) in self.unfold(pat, t, &so_far.found) {
                        head = true;
                        let mut all = vec![Partial {
                            found,
                            parts: before + 1,
                            classes: so_far.classes.clone(),
                        }];
                        for (arg, child) in args.iter().zip(children) {
                            all = all.into_iter().flat_map(|p| self.part(arg, child, p)).collect();
                            all.truncate(MOST);
                        }
                        out.extend(all);
                    }
                }
                if head {
                    return out;
                }
                vec![]
            }
        };
        if out.is_empty() && is_about && self.furthest.as_ref().is_none_or(|f| f.matched < before) {
            self.furthest = Some(Failure {
                matched: before,
                part: self.shown(pat),
                found: found(eg, class),
                class,
            });
        }
        out
    }

    /// What is left to match where a pattern's head is that of an e-node: its arguments with its children, in each order.
    fn unfold<'p>(&self, pat: &'p Pat, t: &Term, found: &Match) -> Vec<(Vec<&'p Pat>, Vec<Id>, Match)> {
        match (pat, t) {
            (Pat::Load(x), Term::Load([c])) | (Pat::Store(x), Term::Store([c])) => {
                vec![(vec![&**x], vec![*c], found.clone())]
            }
            (Pat::Cons(a, b), Term::Cons([head, tail])) => vec![(vec![&**a, &**b], vec![*head, *tail], found.clone())],
            (Pat::Op(head, args, either), Term::Op(op, children)) if args.len() == children.len() => {
                let mut found = found.clone();
                match head {
                    Head::Op(want) if want != op => return vec![],
                    Head::Op(_) => {}
                    Head::Family(f) => match found.ops[*f] {
                        Some(bound) if bound != *op => return vec![],
                        None if self.law.families[*f].binary_search(op).is_err() => return vec![],
                        _ => found.ops[*f] = Some(*op),
                    },
                }
                let args: Vec<&Pat> = args.iter().collect();
                let mut out = vec![(args.clone(), children.to_vec(), found.clone())];
                let n = children.len();
                if *either && children[n - 1] != children[n - 2] {
                    let mut swapped = children.to_vec();
                    swapped.swap(n - 1, n - 2);
                    out.push((args, swapped, found));
                }
                out
            }
            _ => vec![],
        }
    }

    /// Whether what a pattern was compared with has to do with the question.
    fn is_about(&self, classes: &[Id]) -> bool {
        classes.iter().any(|c| self.own.contains(c))
    }

    /// True when the conditions on one variable alone hold for a class; notes which does not.
    fn passes(&mut self, var: usize, class: Id, so_far: &Partial) -> bool {
        let law = self.law;
        let guards = &law.guards[var];
        let stream = stream_of(&self.eg[class].data, class);
        let holds = |g: &super::rules::Guard| {
            let arg = [Arg::Stream(stream.clone()?)];
            Some((g.test.run)(self.eg, &arg).unwrap_or(false) == g.holds)
        };
        let Some(failed) = guards.iter().find(|g| holds(g) != Some(true)) else {
            return true;
        };
        let name = &law.vars[var].0;
        let test = format!("({} {name})", failed.test.name);
        let text = match failed.holds {
            true => test,
            false => format!("(not {test})"),
        };
        let matched = so_far.parts;
        if self.is_about(&so_far.classes) && self.refused.as_ref().is_none_or(|(m, _)| *m <= matched) {
            let found = found(self.eg, class);
            self.refused = Some((matched, format!("{text}, where {name} is {found}")));
        }
        false
    }

    /// A pattern as it is written.
    fn shown(&self, pat: &Pat) -> String {
        let many = |ps: &[Pat]| ps.iter().map(|p| format!(" {}", self.shown(p))).collect::<String>();
        match pat {
            Pat::Var(i) => self.law.vars[*i].0.clone(),
            Pat::Lit(a) => a.to_string(),
            Pat::Number(x, near) => format!("{}{}", x.f64(), if *near { "~" } else { "" }),
            Pat::Dense(x) => format!("a matrix of {:?}", x.shape),
            Pat::Op(head, args, either) => {
                let name = match head {
                    Head::Op(op) => op.name().to_owned(),
                    Head::Family(f) => {
                        let names: Vec<&str> = self.law.families[*f].iter().map(|op: &OpId| op.name()).collect();
                        names.join("|")
                    }
                };
                format!("({name}{}{})", if *either { "~" } else { "" }, many(args))
            }
            Pat::Load(x) => format!("(load {})", self.shown(x)),
            Pat::Store(x) => format!("(store {})", self.shown(x)),
            Pat::Nil => "nil".into(),
            Pat::Cons(a, b) => format!("(cons {} {})", self.shown(a), self.shown(b)),
        }
    }
}

/// What a class holds, in a few words.
fn found(eg: &EGraph, class: Id) -> String {
    let d = &eg[class].data;
    let what = match (&d.kind, d.splat) {
        (Kind::Attr(a), _) => return a.to_string(),
        (Kind::List(n), _) => return format!("a list of {n}"),
        (Kind::Tuple(_), _) => return "several results".into(),
        (Kind::Value(ty), Some(x)) => return format!("the number {} as {ty}", x.f64()),
        (Kind::Value(ty), None) => ty,
    };
    let mut names: SmallVec<[&str; 4]> = (eg[class].nodes.iter())
        .map(|t| match t {
            Term::Op(op, _) => op.name(),
            Term::Input(_) => "an input",
            Term::Const(_) | Term::Scalar(..) => "a constant",
            Term::Load([c]) if eg[*c].data.constant => "a constant",
            Term::Load([c]) if eg[*c].nodes.iter().any(|t| matches!(t, Term::Input(_))) => "an input",
            Term::Load(_) => "a tensor in memory",
            Term::Store(_) => "a stored stream",
            Term::Proj(..) => "a result of several",
            Term::Attr(_) | Term::Nil | Term::Cons(_) => "an attribute",
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    format!("{} : {what}", names.join(" or "))
}
