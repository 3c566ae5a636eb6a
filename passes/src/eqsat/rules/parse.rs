//! The parser of rules. Every mistake has a line and a column, says what was expected, and names what is likely meant.
//!
//! A rule is checked as far as its text alone tells: operators, functions and predicates exist and have arguments of the right
//! number and sort, keywords are some that the operator knows, variables on the right occur on the left, and several roots are
//! joined by streams.

use super::literals::{check_words, constant, literal, matrix, number};
use super::{Allowance, Cond, Exactness, Expr, Guard, Head, Law, Link, Pat, Rule, RuleSet, Side, VarKind};
use crate::eqsat::functions::{self, Function, Predicate};
use crate::eqsat::hint::near;
use crate::eqsat::lang::OpId;
use crate::eqsat::sexp::{Place, Sexp, SyntaxError, parse as parse_sexps};
use crate::eqsat::sorts::Sort;
use brolga_ir::ops;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is wrong, and where.
pub(super) type Fault = (Place, String);

/// What stands on a right side besides operators and functions.
const FORMS: [&str; 4] = ["splat", "dense", "cons", "each"];

impl RuleSet {
    /// Adds the rules of a text.
    ///
    /// # Errors
    /// The first mistake, with its line and column; a rule with the name of one that is there.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), SyntaxError> {
        let mut docs = docs(text);
        let mut items = parse_sexps(file, text)?.into_iter().peekable();
        while let Some(head) = items.next() {
            let fail = |place: Place, message: String| SyntaxError {
                file: file.to_string(),
                place,
                message,
            };
            if head.atom() != Some("rule") {
                let meant = near(head.atom().unwrap_or_default(), ["rule"]);
                return Err(fail(head.place(), format!("found `{head}`, expected `rule`{meant}")));
            }
            let mut body = vec![];
            while items.peek().is_some_and(|s| s.atom() != Some("rule")) {
                body.extend(items.next());
            }
            let doc = docs.remove(&head.place().line).unwrap_or_default();
            let end = items.peek().map_or(text.len(), |next| next.place().offset);
            let start = body.first().map_or(end, |name| name.place().offset);
            let rule = parse_rule(file, head.place(), &body, doc, &text[start..end]).map_err(|(p, m)| fail(p, m))?;
            if let Some(first) = self.rules.iter().find(|r| r.name == rule.name) {
                let message = format!(
                    "there is a rule `{}` at {}, expected another name",
                    rule.name, first.origin
                );
                return Err(fail(head.place(), message));
            }
            self.rules.push(rule);
        }
        Ok(())
    }
}

/// The comment that ends right above each line.
fn docs(text: &str) -> BTreeMap<usize, String> {
    let mut out = BTreeMap::new();
    let mut comment: Vec<&str> = vec![];
    for (i, line) in text.lines().enumerate() {
        match line.trim().strip_prefix(';') {
            Some(c) => comment.push(c.trim()),
            None => {
                if !comment.is_empty() {
                    out.insert(i + 1, comment.join(" "));
                }
                comment.clear();
            }
        }
    }
    out
}

/// A rule's class, and what it allows.
fn class(words: &[Sexp], place: Place) -> Result<(Exactness, Vec<Allowance>), Fault> {
    const EXPECTED: &str = "expected [exact], [reassociate] or [approximate]";
    let Some(first) = words.first() else {
        return Err((place, format!("found `[]`, {EXPECTED}")));
    };
    let Some((_, exactness)) = Exactness::ALL.iter().find(|c| Some(c.0) == first.atom()) else {
        let meant = near(first.atom().unwrap_or_default(), Exactness::ALL.map(|c| c.0));
        return Err((first.place(), format!("found `{first}`, {EXPECTED}{meant}")));
    };
    let mut allows = vec![];
    for word in &words[1..] {
        let found = Allowance::ALL.iter().find(|a| Some(a.0) == word.atom());
        match found {
            Some((_, a)) if *exactness == Exactness::Reassociate => allows.push(*a),
            Some(_) => {
                return Err((
                    word.place(),
                    "only a `reassociate` rule allows differences by name".into(),
                ));
            }
            None => {
                let names = Allowance::ALL.map(|a| a.0);
                let meant = near(word.atom().unwrap_or_default(), names);
                let message = format!("found `{word}`, expected {}{meant}", names.join(", "));
                return Err((word.place(), message));
            }
        }
    }
    Ok((*exactness, allows))
}

fn parse_rule(file: &str, place: Place, body: &[Sexp], doc: String, source: &str) -> Result<Rule, Fault> {
    let mut items = body.iter();
    let name = items
        .next()
        .and_then(Sexp::atom)
        .ok_or((place, "expected the rule's name behind `rule`".to_string()))?;
    let (exactness, allows) = match items.next() {
        Some(Sexp::List(c, p)) => class(c, *p)?,
        found => {
            let place = found.map_or(place, Sexp::place);
            let message = format!("rule `{name}` has no class, expected [exact], [reassociate] or [approximate]");
            return Err((place, message));
        }
    };
    let mut rule = Rule {
        name: name.to_string(),
        doc,
        exactness,
        allows,
        law: None,
        origin: format!("{file}:{place}"),
        source: source.into(),
    };
    let rest: Vec<&Sexp> = items.collect();
    let mut rest = &rest[..];
    if let [Sexp::Atom(b, p)] = rest
        && *b == "builtin"
    {
        return if name == "decompose" {
            Ok(rule)
        } else {
            Err((*p, "the only built-in rule is `decompose`".to_string()))
        };
    }
    let mut families: Vec<(String, Vec<OpId>)> = vec![];
    while let [Sexp::Atom(f, p), tail @ ..] = rest
        && *f == "for"
    {
        let [Sexp::Atom(var, _), Sexp::Atom("in", _), Sexp::Atom(set, q), tail @ ..] = tail else {
            return Err((*p, "expected `for ?f in SET`".to_string()));
        };
        let names = functions::operator_set(set).ok_or_else(|| {
            let sets = functions::operator_sets();
            let meant = near(set, sets.iter().copied());
            let all = sets.join(", ");
            (
                *q,
                format!("there is no operator set `{set}`, expected one of {all}{meant}"),
            )
        })?;
        let mut ops: Vec<OpId> = names.iter().filter_map(|n| OpId::of(n)).collect();
        ops.sort_unstable();
        families.push(((*var).to_owned(), ops));
        rest = tail;
    }
    rule.law = Some(law(name, place, rest, families)?);
    Ok(rule)
}

/// `LEFT… => RIGHT… if CONDITION…`.
fn law(name: &str, place: Place, items: &[&Sexp], families: Vec<(String, Vec<OpId>)>) -> Result<Law, Fault> {
    let is = |s: &Sexp, word: &str| s.atom() == Some(word);
    let Some(arrow) = items.iter().position(|s| is(s, "=>")) else {
        let place = items.first().map_or(place, |s| s.place());
        return Err((place, format!("rule `{name}`: expected LEFT => RIGHT, found no `=>`")));
    };
    let (lefts, tail) = (&items[..arrow], &items[arrow + 1..]);
    let end = tail.iter().position(|s| is(s, "if")).unwrap_or(tail.len());
    let (rights, conditions) = (&tail[..end], tail.get(end + 1..).unwrap_or_default());
    if lefts.is_empty() || rights.is_empty() {
        return Err((items[arrow].place(), format!("rule `{name}`: expected LEFT => RIGHT")));
    }
    if rights.len() != lefts.len() {
        let (l, r) = (lefts.len(), rights.len());
        let at = rights.get(l).map_or(items[arrow].place(), |s| s.place());
        let message = match (l, rights.get(1)) {
            (1, Some(other)) => format!("found `{other}`, expected `if` or the next rule"),
            _ => format!("rule `{name}` has {l} left sides and {r} right sides, expected one for each"),
        };
        return Err((at, message));
    }
    if let (Some(at), true) = (tail.get(end), conditions.is_empty()) {
        return Err((at.place(), "expected a condition `(name …)` behind `if`".to_string()));
    }
    let mut p = Parser { vars: vec![], families };
    let mut patterns = vec![];
    for left in lefts {
        let pattern = p.pattern(left, VarKind::Stream)?;
        if let Pat::Var(_) = pattern {
            return Err((
                left.place(),
                "a left side that is a variable would match everything".to_string(),
            ));
        }
        patterns.push(pattern);
    }
    let links = links(&patterns, &p.vars).map_err(|i| {
        let message = "this left side shares no stream with the others, expected one of their variables as an operand";
        (lefts[i].place(), message.to_string())
    })?;
    let scope: Vec<(String, VarKind)> = p.vars.clone();
    let all: Result<Vec<Cond>, Fault> = conditions.iter().map(|c| p.condition(c, &scope)).collect();
    let rights: Result<Vec<Expr>, Fault> = rights.iter().map(|r| p.stream(r, &scope)).collect();
    let sides = patterns.into_iter().zip(rights?);
    let sides = sides.map(|(left, right)| Side { left, right }).collect();
    let families = p.families.into_iter().map(|f| f.1).collect();
    let (conditions, vars) = (all?, p.vars);
    let mut guards = vec![vec![]; vars.len()];
    let mut late = vec![];
    for (i, c) in conditions.iter().enumerate() {
        match single(c, true) {
            Some((var, guard)) if vars[var].1 == VarKind::Stream => guards[var].push(guard),
            _ => late.push(i),
        }
    }
    Ok(Law {
        sides,
        links,
        conditions,
        guards,
        late,
        vars,
        families,
    })
}

/// For every left side, the order in which the others are matched when it is matched first: each shares a stream with those before.
///
/// # Errors
/// The position of a left side that shares none.
fn links(patterns: &[Pat], vars: &[(String, VarKind)]) -> Result<Vec<Vec<Link>>, usize> {
    let streams = |p: &Pat| {
        let mut depths = BTreeMap::new();
        depths_of(p, 0, &mut depths);
        depths.retain(|v: &usize, _| vars[*v].1 == VarKind::Stream);
        depths
    };
    let depths: Vec<BTreeMap<usize, usize>> = patterns.iter().map(streams).collect();
    (0..patterns.len())
        .map(|first| {
            let mut bound: Vec<usize> = depths[first].keys().copied().collect();
            let mut left: Vec<usize> = (0..patterns.len()).filter(|i| *i != first).collect();
            let mut order = vec![];
            while !left.is_empty() {
                // The nearest shared stream: from it, the fewest classes lie on the way up.
                let shared = |side: usize| {
                    let shared = depths[side].iter().filter(|(v, _)| bound.contains(v));
                    shared.map(move |(&var, &depth)| Link { side, var, depth })
                };
                let next = left
                    .iter()
                    .flat_map(|&side| shared(side))
                    .min_by_key(|l| (l.depth, l.side));
                let Some(link) = next else {
                    return Err(left[0].max(first));
                };
                left.retain(|side| *side != link.side);
                bound.extend(depths[link.side].keys());
                order.push(link);
            }
            Ok(order)
        })
        .collect()
}

/// How many e-nodes below the root each variable stands, where it stands nearest.
fn depths_of(p: &Pat, depth: usize, out: &mut BTreeMap<usize, usize>) {
    match p {
        Pat::Var(v) => {
            let least = out.entry(*v).or_insert(depth);
            *least = depth.min(*least);
        }
        Pat::Lit(_) | Pat::Number(..) | Pat::Dense(_) | Pat::Nil => {}
        Pat::Op(_, args, _) => args.iter().for_each(|a| depths_of(a, depth + 1, out)),
        Pat::Load(x) | Pat::Store(x) => depths_of(x, depth + 1, out),
        Pat::Cons(a, b) => {
            depths_of(a, depth + 1, out);
            depths_of(b, depth + 1, out);
        }
    }
}

/// The variable and the guard of a condition that asks about one variable alone.
fn single(c: &Cond, holds: bool) -> Option<(usize, Guard)> {
    match c {
        Cond::Not(c) => single(c, !holds),
        Cond::Is(test, args) => match args[..] {
            [Expr::Var(var)] => Some((var, Guard { test, holds })),
            _ => None,
        },
        Cond::Equal(..) => None,
    }
}

struct Parser {
    vars: Vec<(String, VarKind)>,
    families: Vec<(String, Vec<OpId>)>,
}

/// Variables that an expression may use; those of an `each` stand behind those of the left side.
type Scope = [(String, VarKind)];

impl Parser {
    /// The operator of a name, or the family of a variable, with one operator to ask for arguments. `others` are names of what
    /// else may stand here.
    fn head(&self, name: &str, place: Place, what: &str, others: &[&str]) -> Result<(Head, OpId), Fault> {
        if let Some(i) = self.families.iter().position(|f| f.0 == name) {
            return Ok((Head::Family(i), self.families[i].1[0]));
        }
        let op = OpId::of(name).ok_or_else(|| {
            let families = self.families.iter().map(|f| &*f.0);
            let known = ops::all().iter().map(|d| d.name()).chain(families);
            let meant = near(name, known.chain(others.iter().copied()));
            (place, format!("there is no {what} `{name}`{meant}"))
        })?;
        Ok((Head::Op(op), op))
    }

    fn bind(&mut self, name: &str, kind: VarKind, place: Place) -> Result<Pat, Fault> {
        match self.vars.iter().position(|v| v.0 == name) {
            Some(i) if self.vars[i].1 != kind => {
                let (first, second) = (Sort::from(self.vars[i].1).name(), Sort::from(kind).name());
                Err((place, format!("`{name}` is {first} before, expected {second} here")))
            }
            Some(i) => Ok(Pat::Var(i)),
            None => {
                self.vars.push((name.to_string(), kind));
                Ok(Pat::Var(self.vars.len() - 1))
            }
        }
    }

    fn pattern(&mut self, s: &Sexp, kind: VarKind) -> Result<Pat, Fault> {
        let place = s.place();
        match s {
            Sexp::Atom(a, _) if a.starts_with('?') => self.bind(a, kind, place),
            Sexp::Atom(a, _) if kind == VarKind::List && *a == "nil" => Ok(Pat::Nil),
            Sexp::Atom(a, _) if kind == VarKind::Stream => {
                let (text, near) = a.strip_suffix('~').map_or((*a, false), |t| (t, true));
                let x = number(text).ok_or_else(|| {
                    let message =
                        format!("found `{a}`, expected an operand: a variable `?x`, a number or `(operator …)`");
                    (place, message)
                })?;
                Ok(Pat::Number(x, near))
            }
            Sexp::List(items, _) if kind == VarKind::Stream => matrix(items, place).map(Pat::Dense),
            Sexp::Atom(..) | Sexp::List(..) => match kind {
                VarKind::Attr(k) => Ok(Pat::Lit(Arc::new(literal(s, k)?))),
                _ => Err((
                    place,
                    format!("found `{s}`, expected a list of operands: `?list`, `nil` or `(cons ?x ?list)`"),
                )),
            },
            Sexp::Apply(items, _) => {
                let (name, args) = split(items, place)?;
                match (name, args, kind) {
                    ("load", [x], VarKind::Stream) => Ok(Pat::Load(Box::new(self.pattern(x, kind)?))),
                    ("store", [x], VarKind::Stream) => Ok(Pat::Store(Box::new(self.pattern(x, kind)?))),
                    ("cons", [a, b], VarKind::List) => {
                        let a = self.pattern(a, VarKind::Stream)?;
                        Ok(Pat::Cons(Box::new(a), Box::new(self.pattern(b, VarKind::List)?)))
                    }
                    (_, _, VarKind::Stream) => {
                        let (name, either) = name.strip_suffix('~').map_or((name, false), |n| (n, true));
                        let (head, op) = self.head(name, items[0].place(), "operator", &["load", "store"])?;
                        let kinds = argument_kinds(op, args.len(), place)?;
                        if either && op.arity().operands.is_none_or(|n| n < 2) {
                            return Err((place, format!("`{name}` has no two operands to be in either order")));
                        }
                        check_words(op, args)?;
                        let args: Result<Vec<Pat>, Fault> =
                            args.iter().zip(kinds).map(|(a, k)| self.pattern(a, k)).collect();
                        Ok(Pat::Op(head, args?, either))
                    }
                    (_, _, VarKind::List) => Err((
                        place,
                        format!("found `{s}`, expected a list of operands: `?list`, `nil` or `(cons ?x ?list)`"),
                    )),
                    (_, _, VarKind::Attr(k)) => {
                        let what = Sort::from(k).name();
                        Err((
                            place,
                            format!("found `{s}`, expected an attribute: a variable or {what}"),
                        ))
                    }
                }
            }
        }
    }

    /// An expression that is a stream.
    fn stream(&self, s: &Sexp, scope: &Scope) -> Result<Expr, Fault> {
        self.argument(s, scope, Sort::Stream)
    }

    /// An expression of a sort.
    fn argument(&self, s: &Sexp, scope: &Scope, wanted: Sort) -> Result<Expr, Fault> {
        let (e, found) = self.expression(s, scope, Some(wanted))?;
        match wanted.accepts(found) {
            true => Ok(e),
            false => {
                let (found, wanted) = (found.name(), wanted.name());
                Err((s.place(), format!("`{s}` is {found}, expected {wanted}")))
            }
        }
    }

    /// An expression and its sort; literals are read as what is wanted.
    fn expression(&self, s: &Sexp, scope: &Scope, wanted: Option<Sort>) -> Result<(Expr, Sort), Fault> {
        let place = s.place();
        let Sexp::Apply(items, _) = s else {
            return match s.atom() {
                Some(a) if a.starts_with('?') => match scope.iter().rposition(|v| v.0 == a) {
                    Some(i) => Ok((Expr::Var(i), scope[i].1.into())),
                    None => {
                        let meant = near(a, scope.iter().map(|v| &*v.0));
                        Err((place, format!("`{a}` does not occur on the left{meant}")))
                    }
                },
                Some("nil") if wanted.is_none_or(|w| w.accepts(Sort::List)) => Ok((Expr::Nil, Sort::List)),
                _ => constant(s, wanted),
            };
        };
        let (name, args) = split(items, place)?;
        match (name, args) {
            ("splat", [x, like]) => {
                let x = Box::new(self.argument(x, scope, Sort::Num)?);
                Ok((Expr::Splat(x, Box::new(self.stream(like, scope)?)), Sort::Stream))
            }
            ("splat", [x, dtype, shape]) => {
                let x = Box::new(self.argument(x, scope, Sort::Num)?);
                let dtype = Box::new(self.stream(dtype, scope)?);
                let shape = Box::new(self.argument(shape, scope, Sort::Dims)?);
                Ok((Expr::SplatIn(x, dtype, shape), Sort::Stream))
            }
            ("dense", [Sexp::List(rows, at), like]) => {
                let like = Box::new(self.stream(like, scope)?);
                Ok((Expr::Dense(matrix(rows, *at)?, like), Sort::Stream))
            }
            ("cons", [a, b]) => {
                let a = Box::new(self.stream(a, scope)?);
                Ok((
                    Expr::Cons(a, Box::new(self.argument(b, scope, Sort::List)?)),
                    Sort::List,
                ))
            }
            ("each", [Sexp::Atom(v, _), list, body]) => {
                let list = Box::new(self.argument(list, scope, Sort::List)?);
                let mut inner = scope.to_vec();
                inner.push(((*v).to_owned(), VarKind::Stream));
                let body = Box::new(self.stream(body, &inner)?);
                Ok((Expr::Each(list, body), Sort::List))
            }
            ("splat", _) => Err((
                place,
                "expected `(splat x ?like)` or `(splat x ?dtype shape)`".to_string(),
            )),
            ("dense", _) => Err((place, "expected `(dense [[1 2] [3 4]] ?like)`".to_string())),
            ("cons", _) => Err((place, "expected `(cons ?x ?list)`".to_string())),
            ("each", _) => Err((place, "expected `(each ?y ?list body)`".to_string())),
            _ => {
                if let Some(f) = functions::function(name) {
                    return Ok((self.call(f, args, place, scope)?, f.gives));
                }
                let others = functions::FUNCTIONS.iter().map(|f| f.name).chain(FORMS);
                let others: Vec<&str> = others.collect();
                let (head, op) = self.head(name, items[0].place(), "operator or function", &others)?;
                let kinds = argument_kinds(op, args.len(), place)?;
                check_words(op, args)?;
                let mut out = vec![];
                for (a, k) in args.iter().zip(kinds) {
                    if let (VarKind::Stream, Some(n)) = (k, a.atom())
                        && number(n).is_some()
                    {
                        let m = format!("found `{n}`, expected an operand: a number is `(splat {n} ?like)`");
                        return Err((a.place(), m));
                    }
                    if let (VarKind::Stream, Sexp::List(..)) = (k, a) {
                        let m = format!("found `{a}`, expected an operand: a matrix is `(dense {a} ?like)`");
                        return Err((a.place(), m));
                    }
                    out.push(self.argument(a, scope, k.into())?);
                }
                Ok((Expr::Op(head, out), Sort::Stream))
            }
        }
    }

    fn call(&self, f: &'static Function, args: &[Sexp], place: Place, scope: &Scope) -> Result<Expr, Fault> {
        check_number(f.name, f.takes, args.len(), place)?;
        let args: Result<Vec<Expr>, Fault> = args
            .iter()
            .zip(f.takes)
            .map(|(a, sort)| self.argument(a, scope, *sort))
            .collect();
        Ok(Expr::Call(f, args?))
    }

    fn condition(&self, s: &Sexp, scope: &Scope) -> Result<Cond, Fault> {
        let place = s.place();
        let Sexp::Apply(items, _) = s else {
            return Err((place, format!("found `{s}`, expected a condition `(name …)`")));
        };
        let (name, args) = split(items, place)?;
        match (name, args) {
            ("not", [c]) => Ok(Cond::Not(Box::new(self.condition(c, scope)?))),
            ("=", [a, b]) => {
                let (left, sort) = self.expression(a, scope, None)?;
                let (right, other) = self.expression(b, scope, Some(sort))?;
                match sort {
                    Sort::Stream | Sort::List => Err((
                        a.place(),
                        format!("`{a}` is {}, expected an attribute: `=` compares those", sort.name()),
                    )),
                    _ if sort.accepts(other) || other.accepts(sort) => Ok(Cond::Equal(left, right)),
                    _ => {
                        let (found, wanted) = (other.name(), sort.name());
                        Err((b.place(), format!("`{b}` is {found}, expected {wanted} as `{a}` is")))
                    }
                }
            }
            ("not", _) => Err((place, "expected `(not (name …))`".to_string())),
            ("=", _) => Err((place, "expected `(= a b)`".to_string())),
            _ => {
                let p: &'static Predicate = functions::predicate(name).ok_or_else(|| {
                    let known = functions::predicates().iter().map(|p| p.name);
                    (
                        items[0].place(),
                        format!("there is no predicate `{name}`{}", near(name, known)),
                    )
                })?;
                check_number(p.name, p.takes, args.len(), place)?;
                let args: Result<Vec<Expr>, Fault> = args
                    .iter()
                    .zip(p.takes)
                    .map(|(a, sort)| self.argument(a, scope, *sort))
                    .collect();
                Ok(Cond::Is(p, args?))
            }
        }
    }
}

fn split<'s, 'a>(items: &'s [Sexp<'a>], place: Place) -> Result<(&'a str, &'s [Sexp<'a>]), Fault> {
    match items.split_first() {
        Some((Sexp::Atom(head, _), args)) => Ok((head, args)),
        _ => Err((place, "expected a name after `(`".to_string())),
    }
}

/// That a function or a predicate has as many arguments as it takes.
fn check_number(name: &str, takes: &[Sort], found: usize, place: Place) -> Result<(), Fault> {
    if takes.len() == found {
        return Ok(());
    }
    let all: Vec<&str> = takes.iter().map(|s| s.name()).collect();
    let message = format!(
        "`{name}` with {found} arguments, expected {}: {}",
        takes.len(),
        all.join(", ")
    );
    Err((place, message))
}

/// The kinds of the arguments of an operator: attributes, then operands (one list for an operator of any number).
fn argument_kinds(op: OpId, found: usize, place: Place) -> Result<Vec<VarKind>, Fault> {
    let attrs = op.def().attrs();
    let mut kinds: Vec<VarKind> = attrs.iter().map(|a| VarKind::Attr(a.1)).collect();
    match op.arity().operands {
        Some(n) => kinds.extend(std::iter::repeat_n(VarKind::Stream, n)),
        None => kinds.push(VarKind::List),
    }
    if kinds.len() != found {
        let names: Vec<&str> = attrs.iter().map(|a| a.0).collect();
        return Err((
            place,
            format!(
                "`{}` with {found} arguments, expected {}: attributes [{}], then {} operands",
                op.name(),
                kinds.len(),
                names.join(" "),
                kinds.len() - attrs.len()
            ),
        ));
    }
    Ok(kinds)
}
