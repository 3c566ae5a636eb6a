//! Does the check see a mistake? Every embedded rule is changed in every place, one at a time, and each change that is still a
//! rule has to be found wrong.
//!
//! What is changed: the order of operands, of list elements and of attributes; each literal; each attribute on the right side, to
//! another variable of its kind, to an argument of the function that makes it, to what another function with the same signature gives;
//! each side condition, which is left out and turned round.
//!
//! ```text
//! (sub ?x (neg ?y)) => (add ?x ?y)   -->   (sub (neg ?y) ?x) => (add ?x ?y)
//! ```
//!
//! Which changes mean nothing is told by what is known elsewhere: operands of an operator whose expansion is the same either way have no
//! order, and a condition that the table of predicates says to be about profit is no part of what a rule claims. Other changes that
//! mean nothing are written down with the reason, in `mutants/survivors.txt`.

use crate::eqsat::functions::{self, FUNCTIONS, Mark};
use crate::eqsat::lang::OpId;
use crate::eqsat::rules::{Law, Rule, VarKind};
use crate::eqsat::sexp::{Sexp, parse};
use crate::eqsat::sorts::Sort;
use brolga_ir::DType;
use brolga_ir::ops::{AttrKind, Combine, Role};
use brolga_ir::scalar::Builder;
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// A changed rule.
pub(super) struct Mutant {
    /// What was changed, unique among the changes of a rule.
    pub what: String,
    /// The text of the changed rule.
    pub text: String,
    /// A condition was left out or turned round that is about profit only.
    pub profit: bool,
}

/// All changes of a rule that is text.
pub(super) fn mutants(rule: &Rule) -> Vec<Mutant> {
    let law = rule.law.as_ref().expect("it is text");
    let text = rule.text();
    let items = parse("rule", &text).expect("it was parsed before");
    let place = |word: &str| items.iter().position(|s| s.atom() == Some(word));
    let arrow = place("=>").expect("a rule has one");
    let conditions = place("if").unwrap_or(items.len());
    let first = if items[2].atom() == Some("for") { 6 } else { 2 };
    let texts: Vec<String> = items.iter().map(Sexp::to_string).collect();
    let whole = |at: usize, changed: Option<String>| {
        let mut texts = texts.clone();
        match changed {
            Some(changed) => texts[at] = changed,
            None => drop(texts.remove(at)),
        }
        if texts.last().is_some_and(|t| t == "if") {
            texts.pop();
        }
        format!("rule {}", texts.join(" "))
    };
    let mut out = vec![];
    for (at, item) in items
        .iter()
        .enumerate()
        .skip(first)
        .filter(|(at, _)| *at != arrow && *at != conditions)
    {
        let part = match at {
            _ if at < arrow => Part::Left,
            _ if at < conditions => Part::Right,
            _ => Part::Condition,
        };
        for (what, changed) in (Changes { law, part }).of(item) {
            let text = whole(at, Some(changed));
            out.push(Mutant {
                what,
                text,
                profit: false,
            });
        }
        if part == Part::Condition {
            let profit = is_about_profit(item);
            let turned = match item {
                Sexp::Apply(v, _) if v[0].atom() == Some("not") => v[1].to_string(),
                _ => format!("(not {item})"),
            };
            let (without, turned) = (whole(at, None), whole(at, Some(turned)));
            out.push(Mutant {
                what: format!("without {item}"),
                text: without,
                profit,
            });
            out.push(Mutant {
                what: format!("opposite of {item}"),
                text: turned,
                profit,
            });
        }
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for m in &mut out {
        let n = seen.entry(m.what.clone()).or_default();
        *n += 1;
        if *n > 1 {
            m.what = format!("{} (place {n})", m.what);
        }
    }
    out
}

/// Whether a condition only says where a rule pays.
fn is_about_profit(condition: &Sexp) -> bool {
    match condition {
        Sexp::Apply(v, _) if v[0].atom() == Some("not") => is_about_profit(&v[1]),
        Sexp::Apply(v, _) => v[0]
            .atom()
            .and_then(functions::predicate)
            .is_some_and(|p| p.marks.contains(&Mark::Profit)),
        _ => false,
    }
}

/// Where in a rule something stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Left,
    Right,
    Condition,
}

/// What an argument is to what it is given to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An operand of an operator.
    Operand,
    /// An attribute.
    Attr(AttrKind),
    /// An argument of a function.
    Argument(Sort),
    /// A number that a stream is made of.
    Number,
    /// Anything else.
    Other,
}

/// A change: what it is, and the text of the expression with it.
type Change = (String, String);

struct Changes<'a> {
    law: &'a Law,
    part: Part,
}

impl Changes<'_> {
    /// The changes of a whole side or condition.
    fn of(&self, s: &Sexp) -> Vec<Change> {
        let mut out = vec![];
        self.visit(s, Place::Other, &mut out);
        out
    }

    fn visit(&self, s: &Sexp, place: Place, out: &mut Vec<Change>) {
        match s {
            Sexp::Atom(a, _) => out.extend(self.atom(a, place).into_iter().map(|to| (format!("{a} => {to}"), to))),
            Sexp::List(items, _) => {
                if items.is_empty() && place == Place::Attr(AttrKind::Ints) {
                    out.push(("[] => [0]".into(), "[0]".into()));
                }
                let items: Vec<String> = items.iter().map(Sexp::to_string).collect();
                for (i, item) in items.iter().enumerate() {
                    for to in next(item) {
                        let mut changed = items.clone();
                        changed[i] = to;
                        let changed = format!("[{}]", changed.join(" "));
                        out.push((format!("{s} => {changed}"), changed));
                    }
                }
            }
            Sexp::Apply(items, _) => self.apply(s, items, place, out),
        }
    }

    fn apply(&self, s: &Sexp, items: &[Sexp], place: Place, out: &mut Vec<Change>) {
        let Some(head) = items[0].atom() else { return };
        let texts: Vec<String> = items.iter().map(Sexp::to_string).collect();
        let with = |texts: &[String]| format!("({})", texts.join(" "));
        let places = self.places(head, items.len() - 1);
        let mut push = |changed: String| out.push((format!("{s} => {changed}"), changed));
        // The order of arguments.
        let fixed = head.ends_with('~') || commutes(head);
        for i in 1..items.len() {
            for j in i + 1..items.len() {
                let alike = match (places[i - 1], places[j - 1]) {
                    (Place::Operand, Place::Operand) => !fixed,
                    // Variables are exchanged with each other below.
                    (Place::Attr(a), Place::Attr(b)) => a == b && (is_call(&items[i]) || is_call(&items[j])),
                    (Place::Argument(a), Place::Argument(b)) => a == b,
                    _ => false,
                };
                if alike && self.part != Part::Condition && texts[i] != texts[j] {
                    let mut swapped = texts.clone();
                    swapped.swap(i, j);
                    push(with(&swapped));
                }
            }
        }
        if let ("cons", Some(Sexp::Apply(tail, _))) = (head, items.get(2)) {
            let swapped = format!("(cons {} (cons {} {}))", tail[1], items[1], tail[2]);
            push(swapped);
        }
        // What makes an attribute.
        if let (Some(f), Part::Right) = (functions::function(head), self.part) {
            for (argument, sort) in items[1..].iter().zip(f.takes) {
                if *sort == f.gives || accepts(place).is_some_and(|wanted| wanted.accepts(*sort)) {
                    push(argument.to_string());
                }
            }
            for other in FUNCTIONS
                .iter()
                .filter(|o| o.name != f.name && o.takes == f.takes && o.gives == f.gives)
            {
                let mut texts = texts.clone();
                texts[0] = other.name.to_owned();
                push(with(&texts));
            }
        }
        for (i, item) in items.iter().enumerate().skip(1) {
            let mut inner = vec![];
            self.visit(item, places[i - 1], &mut inner);
            for (what, changed) in inner {
                let mut texts = texts.clone();
                texts[i] = changed;
                // What is no application says nothing without what it stands in.
                let what = match places[i - 1] {
                    _ if is_call(item) => what,
                    Place::Attr(_) => format!("{} of {head}: {item} => {}", attribute(head, i - 1), texts[i]),
                    _ => format!("{s} => {}", with(&texts)),
                };
                out.push((what, with(&texts)));
            }
        }
    }

    /// What the arguments of something are to it.
    fn places(&self, head: &str, n: usize) -> Vec<Place> {
        if let Some(f) = functions::function(head) {
            return f.takes.iter().map(|s| Place::Argument(*s)).collect();
        }
        if let Some(p) = functions::predicate(head) {
            return p.takes.iter().map(|s| Place::Argument(*s)).collect();
        }
        if head.starts_with('?') {
            return vec![Place::Operand; n];
        }
        if let Some(op) = OpId::of(head.trim_end_matches('~')) {
            let attrs = op.def().attrs().iter().map(|a| Place::Attr(a.1));
            return attrs.chain(std::iter::repeat(Place::Operand)).take(n).collect();
        }
        let first = if head == "splat" { Place::Number } else { Place::Other };
        let mut out = vec![Place::Other; n];
        out[0] = first;
        out
    }

    /// What an atom may be changed to.
    fn atom(&self, a: &str, place: Place) -> Vec<String> {
        if a.starts_with('?') {
            return self.variable(a, place);
        }
        match place {
            Place::Attr(AttrKind::Bool) => vec![(a == "false").to_string()],
            Place::Attr(AttrKind::DType) => DType::FLOATS.iter().map(|d| d.to_string()).filter(|d| d != a).collect(),
            Place::Attr(AttrKind::Word) => words(a),
            Place::Operand | Place::Number => signed_zero(a).into_iter().chain(next(a)).collect(),
            Place::Attr(_) | Place::Argument(_) => next(a),
            Place::Other => vec![],
        }
    }

    /// Other variables of the kind, where an attribute or what one is made of stands.
    fn variable(&self, a: &str, place: Place) -> Vec<String> {
        let makes = matches!(place, Place::Attr(_) | Place::Argument(_) | Place::Number);
        let Some((_, kind)) = self.law.vars.iter().find(|v| v.0 == a) else {
            return vec![];
        };
        if self.part != Part::Right || !makes {
            return vec![];
        }
        let others = self
            .law
            .vars
            .iter()
            .filter(|(name, k)| name != a && k == kind && *k != VarKind::List);
        others.map(|v| v.0.clone()).collect()
    }
}

/// The name of an operator's attribute.
fn attribute(head: &str, at: usize) -> &'static str {
    OpId::of(head.trim_end_matches('~')).map_or("", |op| op.def().attrs()[at].0)
}

fn is_call(s: &Sexp) -> bool {
    matches!(s, Sexp::Apply(..))
}

/// The sort that a place asks for.
fn accepts(place: Place) -> Option<Sort> {
    match place {
        Place::Attr(kind) => Some(kind.into()),
        Place::Argument(sort) => Some(sort),
        Place::Number => Some(Sort::Num),
        Place::Operand | Place::Other => None,
    }
}

/// A number and one more.
fn next(a: &str) -> Vec<String> {
    let (text, near) = a.strip_suffix('~').map_or((a, ""), |t| (t, "~"));
    let next = match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(n), _) => Some((n + 1).to_string()),
        (_, Ok(x)) => Some((x + 1.0).to_string()),
        _ => None,
    };
    next.map(|n| n + near).into_iter().collect()
}

/// A zero of the other sign.
fn signed_zero(a: &str) -> Option<String> {
    match a {
        "0" => Some("-0".into()),
        "-0" => Some("0".into()),
        _ => None,
    }
}

/// Other keywords; those that an operator does not know are no rules.
fn words(a: &str) -> Vec<String> {
    let combines = Combine::ALL.iter().map(|c| c.word());
    let all = combines.chain(["never", "undefined"]);
    all.filter(|w| *w != a).map(str::to_owned).collect()
}

/// Whether the operands of an operator have no order: its expansion is the same either way.
fn commutes(head: &str) -> bool {
    let Some(Role::Map(f)) = OpId::of(head).map(|op| op.def().role()) else {
        return false;
    };
    let same = |d: DType| {
        f.result(&[d, d], None).ok()?;
        let mut b = Builder::new(&[d, d]);
        let (x, y) = (b.input(0), b.input(1));
        Some(f.expand(&mut b, &[x, y], None).ok()? == f.expand(&mut b, &[y, x], None).ok()?)
    };
    let known: Vec<bool> = DType::ALL
        .iter()
        .filter(|d| d.small().is_none())
        .filter_map(|d| same(*d))
        .collect();
    f.arity == 2 && !known.is_empty() && known.iter().all(|s| *s)
}
