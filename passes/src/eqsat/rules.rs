//! Rewrite rules, read from text.
//!
//! ```text
//! ; a·(x·w) = x·(a·w): a per-channel scale moves into the weights.
//! rule conv-scale [reassociate]
//!   (mul~ (conv ?s ?d ?l ?h ?g ?cl ?acc ?out ?x ?w) (broadcast ?sh ?a))
//!   => (conv ?s ?d ?l ?h ?g ?cl ?acc ?out ?x (mul ?w (broadcast (shape-of ?w) (reshape (out-channels ?w ?cl) ?a))))
//!   if (is-constant ?a) (channel-only ?a ?cl)
//! ```
//!
//! A pattern names operators with their attributes first, in the definition's order, then the operands. `?x` is a
//! variable; a number in an operand's place matches any stream of which every element has that value (`1.4142135~` one
//! near it). `(add~ a b)` matches both orders of the operands. `(concat ?axis ?list)` binds the list of operands,
//! `(concat ?axis (cons ?first ?rest))` its parts. On the right, `(splat 0.5 ?x)` is a number in the type of `?x` (`(splat
//! ?a ?x)` the number that `?a` is everywhere), `(each ?y ?list body)` the list of `body` for every `?y` of a list, and
//! names from [`functions`](super::functions) compute attributes; after `if` stand its predicates, `(not …)` and `(= a b)`.
//! `for ?f in SET` makes one rule of every operator of a set. Rules are directed; there is no bare commutativity.
//!
//! A rule's class says what floating-point arithmetic may see: `exact` is bit equal, `reassociate` equal over the reals,
//! `approximate` neither.

use super::functions::{self, Function, Predicate};
use super::lang::{OpId, Term};
use super::sexp::{Place, Sexp, SyntaxError, parse as parse_sexps};
use brolga_ir::{Attr, DType, ops::AttrKind};
use egg::{ENodeOrVar, Id, Pattern, RecExpr, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What floating-point arithmetic may see of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exactness {
    /// Both sides are bit equal.
    Exact,
    /// Both sides are equal over the reals.
    Reassociate,
    /// Neither.
    Approximate,
}

/// What a variable stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VarKind {
    /// A stream.
    Stream,
    /// A list of streams.
    List,
    /// An attribute.
    Attr(AttrKind),
}

/// A left-hand side, as a tree (the checker instantiates it).
#[derive(Clone, Debug)]
pub enum Pat {
    /// A variable.
    Var(String),
    /// A literal attribute.
    Lit(Arc<Attr>),
    /// An operator: attributes, then operands.
    Op(OpId, Vec<Pat>),
    /// A tensor as a stream.
    Load(Box<Pat>),
    /// A stream in memory.
    Store(Box<Pat>),
    /// The empty list.
    Nil,
    /// A stream before a list.
    Cons(Box<Pat>, Box<Pat>),
}

/// A right-hand side or an argument of a condition.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A variable.
    Var(String),
    /// A literal attribute.
    Lit(Arc<Attr>),
    /// An operator: attributes, then operands.
    Op(OpId, Vec<Expr>),
    /// A named attribute function.
    Call(&'static Function, Vec<Expr>),
    /// A number in the type of a stream.
    Splat(Box<Expr>, Box<Expr>),
    /// A number in the dtype of a stream, of given extents.
    SplatIn(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A list made from another.
    Each(String, Box<Expr>, Box<Expr>),
    /// The empty list.
    Nil,
    /// A stream before a list.
    Cons(Box<Expr>, Box<Expr>),
}

/// A side condition.
#[derive(Clone, Debug)]
pub enum Cond {
    /// A named predicate.
    Is(&'static Predicate, Vec<Expr>),
    /// Its negation.
    Not(Box<Cond>),
    /// Two attributes are equal.
    Equal(Expr, Expr),
}

/// One pattern of a rule; operand orders and operator sets make several.
#[derive(Clone)]
pub struct Variant {
    /// The left side.
    pub left: Pat,
    /// The right side.
    pub right: Expr,
    /// The side conditions.
    pub conditions: Vec<Cond>,
    /// The variables, in the order of their first occurrence.
    pub vars: Vec<(String, VarKind)>,
    /// The left side, compiled.
    pub pattern: Pattern<Term>,
}

/// A rule.
#[derive(Clone)]
pub struct Rule {
    /// Its name, `subject-law`.
    pub name: String,
    /// Its law: the comment above it.
    pub law: String,
    /// What floating-point arithmetic may see.
    pub exactness: Exactness,
    /// Its patterns; none for the built-in rule `decompose`.
    pub variants: Vec<Variant>,
    /// Where it stands.
    pub origin: String,
}

impl Rule {
    /// True for the rule that is no text: the decomposition of composite operators by their definitions.
    pub fn is_decompose(&self) -> bool {
        self.variants.is_empty()
    }
}

/// Rules, in the order in which they are tried.
#[derive(Clone, Default)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// The embedded rule files.
pub const EMBEDDED: [(&str, &str); 6] = [
    ("fusion.rules", include_str!("../../rules/fusion.rules")),
    ("algebra.rules", include_str!("../../rules/algebra.rules")),
    ("movement.rules", include_str!("../../rules/movement.rules")),
    ("conv.rules", include_str!("../../rules/conv.rules")),
    ("contract.rules", include_str!("../../rules/contract.rules")),
    ("norm.rules", include_str!("../../rules/norm.rules")),
];

impl RuleSet {
    /// The embedded rules.
    pub fn embedded() -> RuleSet {
        let mut all = RuleSet::default();
        for (file, text) in EMBEDDED {
            all.extend(file, text)
                .unwrap_or_else(|e| panic!("an embedded rule file: {e}"));
        }
        all
    }

    /// The rules of a text.
    ///
    /// # Errors
    /// The first mistake, with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<RuleSet, SyntaxError> {
        let mut set = RuleSet::default();
        set.extend(file, text)?;
        Ok(set)
    }

    /// Those rules that are at most so inexact.
    pub fn up_to(mut self, class: Exactness) -> RuleSet {
        self.rules.retain(|r| r.exactness <= class || r.is_decompose());
        self
    }

    fn extend(&mut self, file: &str, text: &str) -> Result<(), SyntaxError> {
        let laws = laws(text);
        let mut items = parse_sexps(file, text)?.into_iter().peekable();
        while let Some(head) = items.next() {
            let fail = |place: Place, message: String| SyntaxError {
                file: file.to_string(),
                place,
                message,
            };
            if head.atom() != Some("rule") {
                return Err(fail(head.place(), format!("found `{head}`, expected `rule`")));
            }
            let mut body = vec![];
            while items.peek().is_some_and(|s| s.atom() != Some("rule")) {
                body.extend(items.next());
            }
            let law = laws.get(&head.place().line).cloned().unwrap_or_default();
            let rule = parse_rule(file, head.place(), &body, law).map_err(|(p, m)| fail(p, m))?;
            if self.rules.iter().any(|r| r.name == rule.name) {
                return Err(fail(head.place(), format!("there are two rules `{}`", rule.name)));
            }
            self.rules.push(rule);
        }
        Ok(())
    }
}

/// The comment that ends right above each line.
fn laws(text: &str) -> BTreeMap<usize, String> {
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

type Fault = (Place, String);

fn parse_rule(file: &str, place: Place, body: &[Sexp], law: String) -> Result<Rule, Fault> {
    let mut items = body.iter();
    let name = items
        .next()
        .and_then(Sexp::atom)
        .ok_or((place, "expected the rule's name".to_string()))?;
    let exactness = match items.next() {
        Some(Sexp::List(c, p)) => match c.first().and_then(Sexp::atom) {
            Some("exact") => Exactness::Exact,
            Some("reassociate") => Exactness::Reassociate,
            Some("approximate") => Exactness::Approximate,
            _ => return Err((*p, "expected [exact], [reassociate] or [approximate]".to_string())),
        },
        _ => {
            return Err((
                place,
                format!("rule `{name}` has no class, expected [exact], [reassociate] or [approximate]"),
            ));
        }
    };
    let mut rule = Rule {
        name: name.to_string(),
        law,
        exactness,
        variants: vec![],
        origin: format!("{file}:{}", place.line),
    };
    let rest: Vec<&Sexp> = items.collect();
    let mut rest = &rest[..];
    if let [Sexp::Atom(b, p)] = rest
        && b == "builtin"
    {
        return if name == "decompose" {
            Ok(rule)
        } else {
            Err((*p, "the only built-in rule is `decompose`".to_string()))
        };
    }
    let mut families: Vec<(&str, Vec<&'static str>)> = vec![];
    while let [Sexp::Atom(f, p), tail @ ..] = rest
        && f == "for"
    {
        let [Sexp::Atom(var, _), Sexp::Atom(_, _), Sexp::Atom(set, q), tail @ ..] = tail else {
            return Err((*p, "expected `for ?f in SET`".to_string()));
        };
        let ops = functions::operator_set(set).ok_or_else(|| (*q, format!("there is no operator set `{set}`")))?;
        families.push((var, ops));
        rest = tail;
    }
    let [left, Sexp::Atom(arrow, p), right, tail @ ..] = rest else {
        return Err((place, format!("rule `{name}`: expected LEFT => RIGHT")));
    };
    if arrow != "=>" {
        return Err((*p, format!("found `{arrow}`, expected `=>`")));
    }
    let conditions = match tail {
        [] => &[][..],
        [Sexp::Atom(i, _), conditions @ ..] if i == "if" => conditions,
        [other, ..] => {
            return Err((
                other.place(),
                format!("found `{other}`, expected `if` or the next rule"),
            ));
        }
    };
    let mut instances = vec![(
        (*left).clone(),
        (*right).clone(),
        conditions.iter().map(|c| (*c).clone()).collect::<Vec<_>>(),
    )];
    for (var, ops) in &families {
        let swap = |(l, r, c): &(Sexp, Sexp, Vec<Sexp>), op: &str| {
            (
                l.replaced(var, op),
                r.replaced(var, op),
                c.iter().map(|c| c.replaced(var, op)).collect(),
            )
        };
        instances = instances
            .iter()
            .flat_map(|i| ops.iter().map(|op| swap(i, op)).collect::<Vec<_>>())
            .collect();
    }
    for (l, r, c) in &instances {
        for l in orders(l) {
            rule.variants.push(variant(&l, r, c)?);
        }
    }
    Ok(rule)
}

/// Every order of the operands of the operators marked `~`.
fn orders(s: &Sexp) -> Vec<Sexp> {
    let Sexp::Apply(items, place) = s else {
        return vec![s.clone()];
    };
    let mut all: Vec<Vec<Sexp>> = vec![vec![]];
    for item in items {
        let choices = orders(item);
        all = all
            .iter()
            .flat_map(|v| choices.iter().map(|c| [&v[..], &[c.clone()]].concat()))
            .collect();
    }
    if let Some(name) = items.first().and_then(Sexp::atom).and_then(|a| a.strip_suffix('~')) {
        let head = Sexp::Atom(name.to_string(), items[0].place());
        let mut both = vec![];
        for mut v in all {
            v[0] = head.clone();
            let n = v.len();
            let mut swapped = v.clone();
            if n >= 3 {
                swapped.swap(n - 1, n - 2);
            }
            let differ = swapped != v;
            both.push(v);
            if differ {
                both.push(swapped);
            }
        }
        all = both;
    }
    all.into_iter().map(|v| Sexp::Apply(v, *place)).collect()
}

fn variant(left: &Sexp, right: &Sexp, conditions: &[Sexp]) -> Result<Variant, Fault> {
    let mut p = PatParser {
        vars: vec![],
        numbers: vec![],
    };
    let pat = p.pattern(left, VarKind::Stream)?;
    if let Pat::Var(_) = pat {
        return Err((
            left.place(),
            "a left side that is a variable would match everything".to_string(),
        ));
    }
    let scope: Vec<String> = p.vars.iter().map(|v| v.0.clone()).collect();
    let mut all = p.numbers;
    for c in conditions {
        all.push(condition(c, &scope)?);
    }
    let right = expression(right, &scope, None)?;
    let mut nodes = RecExpr::default();
    compile(&pat, &mut nodes);
    Ok(Variant {
        left: pat,
        right,
        conditions: all,
        vars: p.vars,
        pattern: Pattern::new(nodes),
    })
}

/// The egg variable of a name.
pub fn egg_var(name: &str) -> Var {
    name.parse().expect("names of variables begin with a question mark")
}

fn compile(p: &Pat, out: &mut RecExpr<ENodeOrVar<Term>>) -> Id {
    let node = match p {
        Pat::Var(v) => ENodeOrVar::Var(egg_var(v)),
        Pat::Lit(a) => ENodeOrVar::ENode(Term::Attr(a.clone())),
        Pat::Op(op, args) => {
            let children = args.iter().map(|a| compile(a, out)).collect();
            ENodeOrVar::ENode(Term::Op(*op, children))
        }
        Pat::Load(x) => ENodeOrVar::ENode(Term::Load([compile(x, out)])),
        Pat::Store(x) => ENodeOrVar::ENode(Term::Store([compile(x, out)])),
        Pat::Nil => ENodeOrVar::ENode(Term::Nil),
        Pat::Cons(a, b) => {
            let c = [compile(a, out), compile(b, out)];
            ENodeOrVar::ENode(Term::Cons(c))
        }
    };
    out.add(node)
}

struct PatParser {
    vars: Vec<(String, VarKind)>,
    numbers: Vec<Cond>,
}

impl PatParser {
    fn bind(&mut self, name: &str, kind: VarKind, place: Place) -> Result<Pat, Fault> {
        match self.vars.iter().find(|v| v.0 == name) {
            Some((_, k)) if *k != kind => {
                return Err((place, format!("`{name}` is {k:?} and {kind:?}")));
            }
            Some(_) => {}
            None => self.vars.push((name.to_string(), kind)),
        }
        Ok(Pat::Var(name.to_string()))
    }

    fn pattern(&mut self, s: &Sexp, kind: VarKind) -> Result<Pat, Fault> {
        let place = s.place();
        match s {
            Sexp::Atom(a, _) if a.starts_with('?') => self.bind(a, kind, place),
            Sexp::Atom(a, _) if kind == VarKind::List && a == "nil" => Ok(Pat::Nil),
            Sexp::Atom(a, _) if kind == VarKind::Stream => {
                // A number: any stream that is it everywhere.
                let (text, near) = a.strip_suffix('~').map_or((a.as_str(), false), |t| (t, true));
                let x: f64 = text
                    .parse()
                    .map_err(|_| (place, format!("found `{a}`, expected an operand")))?;
                let name = format!("?#{}", self.numbers.len());
                let var = self.bind(&name, kind, place)?;
                let test = functions::predicate(if near { "is-near" } else { "is-splat" }).expect("it is in the table");
                let args = vec![Expr::Var(name), Expr::Lit(Arc::new(Attr::num(x)))];
                self.numbers.push(Cond::Is(test, args));
                Ok(var)
            }
            Sexp::Atom(..) | Sexp::List(..) => match kind {
                VarKind::Attr(k) => Ok(Pat::Lit(Arc::new(literal(s, k)?))),
                _ => Err((place, format!("found `{s}`, expected an operand"))),
            },
            Sexp::Apply(items, _) => {
                let (head, args) = split(items, place)?;
                match (head, args, kind) {
                    ("load", [x], VarKind::Stream) => Ok(Pat::Load(Box::new(self.pattern(x, kind)?))),
                    ("store", [x], VarKind::Stream) => Ok(Pat::Store(Box::new(self.pattern(x, kind)?))),
                    ("cons", [a, b], VarKind::List) => {
                        let a = self.pattern(a, VarKind::Stream)?;
                        Ok(Pat::Cons(Box::new(a), Box::new(self.pattern(b, VarKind::List)?)))
                    }
                    (_, _, VarKind::Stream) => {
                        let op = OpId::of(head).ok_or_else(|| (place, format!("there is no operator `{head}`")))?;
                        let kinds = argument_kinds(op, args.len(), place)?;
                        let args: Result<Vec<Pat>, Fault> =
                            args.iter().zip(kinds).map(|(a, k)| self.pattern(a, k)).collect();
                        Ok(Pat::Op(op, args?))
                    }
                    _ => Err((place, format!("found `{s}`, expected an attribute or a list"))),
                }
            }
        }
    }
}

fn split(items: &[Sexp], place: Place) -> Result<(&str, &[Sexp]), Fault> {
    match items.split_first() {
        Some((Sexp::Atom(head, _), args)) => Ok((head, args)),
        _ => Err((place, "expected a name after `(`".to_string())),
    }
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

/// A literal attribute of a kind.
fn literal(s: &Sexp, kind: AttrKind) -> Result<Attr, Fault> {
    let bad = || (s.place(), format!("found `{s}`, expected {kind:?}"));
    let ints = |v: &[Sexp]| -> Result<Vec<i64>, Fault> {
        v.iter()
            .map(|i| i.atom().and_then(|a| a.parse().ok()).ok_or_else(bad))
            .collect()
    };
    match (kind, s) {
        (AttrKind::Int, Sexp::Atom(a, _)) => a.parse().map(Attr::Int).map_err(|_| bad()),
        (AttrKind::Bool, Sexp::Atom(a, _)) => a.parse().map(Attr::Bool).map_err(|_| bad()),
        (AttrKind::Num, Sexp::Atom(a, _)) => a.parse().map(Attr::num).map_err(|_| bad()),
        (AttrKind::DType, Sexp::Atom(a, _)) => a.parse::<DType>().map(Attr::DType).map_err(|_| bad()),
        (AttrKind::Word, Sexp::Atom(a, _)) => Ok(Attr::word(a)),
        (AttrKind::Ints, Sexp::List(v, _)) => Ok(Attr::Ints(ints(v)?)),
        (AttrKind::Dims, Sexp::List(v, _)) => Ok(Attr::dims(&ints(v)?)),
        _ => Err(bad()),
    }
}

/// A literal where no kind is known: an argument of a function.
fn bare_literal(s: &Sexp) -> Result<Attr, Fault> {
    match s {
        Sexp::List(..) => literal(s, AttrKind::Ints),
        Sexp::Atom(a, _) => Ok(match (a.parse::<i64>(), a.parse::<f64>(), a.as_str()) {
            (Ok(i), ..) => Attr::Int(i),
            (_, Ok(x), _) => Attr::num(x),
            (_, _, "true" | "false") => Attr::Bool(a == "true"),
            _ => Attr::word(a),
        }),
        Sexp::Apply(_, p) => Err((*p, format!("found `{s}`, expected a literal"))),
    }
}

fn expression(s: &Sexp, scope: &[String], kind: Option<AttrKind>) -> Result<Expr, Fault> {
    let place = s.place();
    let Sexp::Apply(items, _) = s else {
        return match s.atom() {
            Some(a) if a.starts_with('?') => {
                if scope.iter().any(|v| v == a) {
                    Ok(Expr::Var(a.to_string()))
                } else {
                    Err((place, format!("`{a}` does not occur on the left")))
                }
            }
            Some("nil") => Ok(Expr::Nil),
            _ => Ok(Expr::Lit(Arc::new(match kind {
                Some(k) => literal(s, k)?,
                None => bare_literal(s)?,
            }))),
        };
    };
    let (head, args) = split(items, place)?;
    let sub = |s: &Sexp| expression(s, scope, None).map(Box::new);
    match (head, args) {
        ("splat", [x, like]) => Ok(Expr::Splat(
            Box::new(expression(x, scope, Some(AttrKind::Num))?),
            sub(like)?,
        )),
        ("splat", [x, dtype, shape]) => Ok(Expr::SplatIn(
            Box::new(expression(x, scope, Some(AttrKind::Num))?),
            sub(dtype)?,
            sub(shape)?,
        )),
        ("cons", [a, b]) => Ok(Expr::Cons(sub(a)?, sub(b)?)),
        ("each", [Sexp::Atom(v, _), list, body]) => {
            let mut inner = scope.to_vec();
            inner.push(v.clone());
            Ok(Expr::Each(
                v.clone(),
                sub(list)?,
                Box::new(expression(body, &inner, None)?),
            ))
        }
        _ => {
            if let Some(f) = functions::function(head) {
                let args: Result<Vec<Expr>, Fault> = args.iter().map(|a| expression(a, scope, None)).collect();
                return Ok(Expr::Call(f, args?));
            }
            let op = OpId::of(head).ok_or_else(|| (place, format!("there is no operator or function `{head}`")))?;
            let kinds = argument_kinds(op, args.len(), place)?;
            let args: Result<Vec<Expr>, Fault> = args
                .iter()
                .zip(kinds)
                .map(|(a, k)| match k {
                    VarKind::Attr(k) => expression(a, scope, Some(k)),
                    _ => match a.atom() {
                        Some(n) if !n.starts_with('?') && n != "nil" => Err((
                            a.place(),
                            format!("found `{n}`, expected an operand: a number is `(splat {n} ?like)`"),
                        )),
                        _ => expression(a, scope, None),
                    },
                })
                .collect();
            Ok(Expr::Op(op, args?))
        }
    }
}

fn condition(s: &Sexp, scope: &[String]) -> Result<Cond, Fault> {
    let place = s.place();
    let Sexp::Apply(items, _) = s else {
        return Err((place, format!("found `{s}`, expected a condition `(name …)`")));
    };
    let (head, args) = split(items, place)?;
    match (head, args) {
        ("not", [c]) => Ok(Cond::Not(Box::new(condition(c, scope)?))),
        ("=", [a, b]) => Ok(Cond::Equal(expression(a, scope, None)?, expression(b, scope, None)?)),
        _ => {
            let p = functions::predicate(head).ok_or_else(|| (place, format!("there is no predicate `{head}`")))?;
            let args: Result<Vec<Expr>, Fault> = args.iter().map(|a| expression(a, scope, None)).collect();
            Ok(Cond::Is(p, args?))
        }
    }
}
