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
//! names from `functions.rs` compute attributes; after `if` stand its predicates, `(not …)` and `(= a b)`.
//! `for ?f in SET` makes one rule of every operator of a set. Rules are directed; there is no bare commutativity.
//!
//! A rule's class says what floating-point arithmetic may see: `exact` is bit equal, `reassociate` equal over the reals,
//! `approximate` neither. A `reassociate` rule keeps NaN, infinities and the sign of zeros, but for what it names behind its
//! class ([`Allowance`]): `[reassociate range zero]`.

use super::functions::{self, Function, Predicate};
use super::lang::OpId;
pub use super::sexp::SyntaxError;
use super::sexp::{Place, Sexp, parse as parse_sexps};
use brolga_ir::{Attr, DType, Number, ops::AttrKind};
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

/// What a rule that is equal over the reals may do beyond rounding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Allowance {
    /// An intermediate result may overflow or underflow on one side and not on the other.
    Range,
    /// A zero may have the other sign.
    Zero,
    /// Constants, numbers and weights are taken to be finite.
    FiniteWeights,
}

impl Allowance {
    /// Every allowance with its name in rules.
    pub const ALL: [(&'static str, Allowance); 3] = [
        ("range", Allowance::Range),
        ("zero", Allowance::Zero),
        ("finite-weights", Allowance::FiniteWeights),
    ];
}

/// What a variable stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VarKind {
    /// A stream.
    Stream,
    /// A list of streams.
    List,
    /// An attribute.
    Attr(AttrKind),
}

/// The operator of a pattern's term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    /// One operator.
    Op(OpId),
    /// Any of a family of the variant, the same one everywhere.
    Family(usize),
}

/// A left-hand side. Variables are positions in [`Law::vars`].
#[derive(Clone, Debug)]
pub(crate) enum Pat {
    /// A variable.
    Var(usize),
    /// A literal attribute.
    Lit(Arc<Attr>),
    /// A stream that is a number everywhere (0 is not -0); near it, when the flag is set.
    Number(Number, bool),
    /// An operator: attributes, then operands; the two last in either order, when the flag is set.
    Op(Head, Vec<Pat>, bool),
    /// A tensor as a stream.
    Load(Box<Pat>),
    /// A stream in memory.
    Store(Box<Pat>),
    /// The empty list.
    Nil,
    /// A stream before a list.
    Cons(Box<Pat>, Box<Pat>),
}

impl Pat {
    /// The number of e-nodes between the root and the deepest leaf.
    pub fn depth(&self) -> usize {
        match self {
            Pat::Var(_) | Pat::Lit(_) | Pat::Number(..) | Pat::Nil => 0,
            Pat::Op(_, args, _) => 1 + args.iter().map(Pat::depth).max().unwrap_or(0),
            Pat::Load(x) | Pat::Store(x) => 1 + x.depth(),
            Pat::Cons(a, b) => 1 + a.depth().max(b.depth()),
        }
    }

    /// Calls `f` with every operator that is named, repetitions included.
    pub fn for_each_op(&self, f: &mut dyn FnMut(OpId)) {
        match self {
            Pat::Var(_) | Pat::Lit(_) | Pat::Number(..) | Pat::Nil => {}
            Pat::Op(head, args, _) => {
                if let Head::Op(op) = head {
                    f(*op);
                }
                args.iter().for_each(|a| a.for_each_op(f));
            }
            Pat::Load(x) | Pat::Store(x) => x.for_each_op(f),
            Pat::Cons(a, b) => {
                a.for_each_op(f);
                b.for_each_op(f);
            }
        }
    }
}

/// A right-hand side or an argument of a condition.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    /// A variable of the left side, or of an `each`, which are numbered behind those.
    Var(usize),
    /// A literal attribute.
    Lit(Arc<Attr>),
    /// An operator: attributes, then operands.
    Op(Head, Vec<Expr>),
    /// A named attribute function.
    Call(&'static Function, Vec<Expr>),
    /// A number in the type of a stream.
    Splat(Box<Expr>, Box<Expr>),
    /// A number in the dtype of a stream, of given extents.
    SplatIn(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A list made from another.
    Each(Box<Expr>, Box<Expr>),
    /// The empty list.
    Nil,
    /// A stream before a list.
    Cons(Box<Expr>, Box<Expr>),
}

/// A side condition.
#[derive(Clone, Debug)]
pub(crate) enum Cond {
    /// A named predicate.
    Is(&'static Predicate, Vec<Expr>),
    /// Its negation.
    Not(Box<Cond>),
    /// Two attributes are equal.
    Equal(Expr, Expr),
}

/// A predicate of one variable, and whether it has to hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    /// The predicate.
    pub test: &'static Predicate,
    /// Whether it has to hold.
    pub holds: bool,
}

/// What a rule that is text consists of.
#[derive(Clone, Debug)]
pub(crate) struct Law {
    /// The left side.
    pub left: Pat,
    /// The right side.
    pub right: Expr,
    /// The side conditions.
    pub conditions: Vec<Cond>,
    /// Those conditions that ask about one variable alone, by variable: the matcher tests them where it binds it.
    pub guards: Vec<Vec<Guard>>,
    /// The other conditions, by position.
    pub late: Vec<usize>,
    /// The variables, in the order of their first occurrence.
    pub vars: Vec<(String, VarKind)>,
    /// The operators that each family variable ranges over; all of a family take the same arguments.
    pub families: Vec<Vec<OpId>>,
}

/// A rule.
#[derive(Clone)]
pub struct Rule {
    /// Its name, `subject-law`.
    pub name: String,
    /// What it says: the comment above it.
    pub doc: String,
    /// What floating-point arithmetic may see.
    pub exactness: Exactness,
    /// What it may do beyond rounding.
    pub allows: Vec<Allowance>,
    /// Its sides; none for the built-in rule `decompose`.
    pub(crate) law: Option<Law>,
    /// Where it stands.
    pub origin: String,
    /// The rule as it is written, from its name on.
    source: Box<str>,
}

impl Rule {
    /// True for the rule that is no text: the decomposition of composite operators by their definitions.
    pub fn is_decompose(&self) -> bool {
        self.law.is_none()
    }

    /// The rule without comments and with single blanks.
    pub fn text(&self) -> String {
        let items = parse_sexps(&self.origin, &self.source).unwrap_or_default();
        items.iter().map(Sexp::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Its theme: the name of its file, without `.rules`.
    pub fn theme(&self) -> &str {
        theme_of(&self.origin)
    }
}

/// The theme of a file of rules, or of a place in one.
pub fn theme_of(file: &str) -> &str {
    file.split_once(".rules").map_or(file, |(theme, _)| theme)
}

/// Rules, in the order in which they are tried.
#[derive(Clone, Default)]
pub struct RuleSet {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// The embedded rule files.
pub const EMBEDDED: [(&str, &str); 8] = [
    ("fusion.rules", include_str!("../../rules/fusion.rules")),
    ("algebra.rules", include_str!("../../rules/algebra.rules")),
    ("movement.rules", include_str!("../../rules/movement.rules")),
    ("conv.rules", include_str!("../../rules/conv.rules")),
    ("contract.rules", include_str!("../../rules/contract.rules")),
    ("norm.rules", include_str!("../../rules/norm.rules")),
    ("attention.rules", include_str!("../../rules/attention.rules")),
    ("quantize.rules", include_str!("../../rules/quantize.rules")),
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

    fn extend(&mut self, file: &str, text: &str) -> Result<(), SyntaxError> {
        let mut docs = docs(text);
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
            let doc = docs.remove(&head.place().line).unwrap_or_default();
            let end = items.peek().map_or(text.len(), |next| next.place().offset);
            let start = body.first().map_or(end, |name| name.place().offset);
            let rule = parse_rule(file, head.place(), &body, doc, &text[start..end]).map_err(|(p, m)| fail(p, m))?;
            if self.rules.iter().any(|r| r.name == rule.name) {
                return Err(fail(head.place(), format!("there are two rules `{}`", rule.name)));
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

type Fault = (Place, String);

const CLASSES: &str = "expected [exact], [reassociate] or [approximate]";

/// A rule's class, and what it allows.
fn class(words: &[Sexp], place: Place) -> Result<(Exactness, Vec<Allowance>), Fault> {
    let exactness = match words.first().and_then(Sexp::atom) {
        Some("exact") => Exactness::Exact,
        Some("reassociate") => Exactness::Reassociate,
        Some("approximate") => Exactness::Approximate,
        _ => return Err((place, CLASSES.to_string())),
    };
    let mut allows = vec![];
    for word in &words[1..] {
        let found = Allowance::ALL.iter().find(|a| Some(a.0) == word.atom());
        match found {
            Some((_, a)) if exactness == Exactness::Reassociate => allows.push(*a),
            Some(_) => {
                return Err((
                    word.place(),
                    "only a `reassociate` rule allows differences by name".into(),
                ));
            }
            None => {
                let names: Vec<&str> = Allowance::ALL.iter().map(|a| a.0).collect();
                return Err((word.place(), format!("found `{word}`, expected {}", names.join(", "))));
            }
        }
    }
    Ok((exactness, allows))
}

fn parse_rule(file: &str, place: Place, body: &[Sexp], doc: String, source: &str) -> Result<Rule, Fault> {
    let mut items = body.iter();
    let name = items
        .next()
        .and_then(Sexp::atom)
        .ok_or((place, "expected the rule's name".to_string()))?;
    let (exactness, allows) = match items.next() {
        Some(Sexp::List(c, p)) => class(c, *p)?,
        _ => return Err((place, format!("rule `{name}` has no class, {CLASSES}"))),
    };
    let mut rule = Rule {
        name: name.to_string(),
        doc,
        exactness,
        allows,
        law: None,
        origin: format!("{file}:{}", place.line),
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
        let [Sexp::Atom(var, _), Sexp::Atom(_, _), Sexp::Atom(set, q), tail @ ..] = tail else {
            return Err((*p, "expected `for ?f in SET`".to_string()));
        };
        let names = functions::operator_set(set).ok_or_else(|| (*q, format!("there is no operator set `{set}`")))?;
        let mut ops: Vec<OpId> = names.iter().filter_map(|n| OpId::of(n)).collect();
        ops.sort_unstable();
        families.push(((*var).to_owned(), ops));
        rest = tail;
    }
    let [left, Sexp::Atom(arrow, p), right, tail @ ..] = rest else {
        return Err((place, format!("rule `{name}`: expected LEFT => RIGHT")));
    };
    if *arrow != "=>" {
        return Err((*p, format!("found `{arrow}`, expected `=>`")));
    }
    let conditions = match tail {
        [] => &[][..],
        [Sexp::Atom(i, _), conditions @ ..] if *i == "if" => conditions,
        [other, ..] => {
            return Err((
                other.place(),
                format!("found `{other}`, expected `if` or the next rule"),
            ));
        }
    };
    let mut p = Parser { vars: vec![], families };
    let pat = p.pattern(left, VarKind::Stream)?;
    if let Pat::Var(_) = pat {
        return Err((
            left.place(),
            "a left side that is a variable would match everything".to_string(),
        ));
    }
    let scope: Vec<String> = p.vars.iter().map(|v| v.0.clone()).collect();
    let all: Result<Vec<Cond>, Fault> = conditions.iter().map(|c| p.condition(c, &scope)).collect();
    let right = p.expression(right, &scope, None)?;
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
    rule.law = Some(Law {
        left: pat,
        right,
        conditions,
        guards,
        late,
        vars,
        families,
    });
    Ok(rule)
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

impl Parser {
    /// The operator of a name, or the family of a variable, with one operator to ask for arguments.
    fn head(&self, name: &str, place: Place, what: &str) -> Result<(Head, OpId), Fault> {
        if let Some(i) = self.families.iter().position(|f| f.0 == name) {
            return Ok((Head::Family(i), self.families[i].1[0]));
        }
        let op = OpId::of(name).ok_or_else(|| (place, format!("there is no {what} `{name}`")))?;
        Ok((Head::Op(op), op))
    }

    fn bind(&mut self, name: &str, kind: VarKind, place: Place) -> Result<Pat, Fault> {
        match self.vars.iter().position(|v| v.0 == name) {
            Some(i) if self.vars[i].1 != kind => Err((place, format!("`{name}` is {:?} and {kind:?}", self.vars[i].1))),
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
                let x = number(text).ok_or_else(|| (place, format!("found `{a}`, expected an operand")))?;
                Ok(Pat::Number(x, near))
            }
            Sexp::Atom(..) | Sexp::List(..) => match kind {
                VarKind::Attr(k) => Ok(Pat::Lit(Arc::new(literal(s, k)?))),
                _ => Err((place, format!("found `{s}`, expected an operand"))),
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
                        let (head, op) = self.head(name, place, "operator")?;
                        let kinds = argument_kinds(op, args.len(), place)?;
                        if either && op.arity().operands.is_none_or(|n| n < 2) {
                            return Err((place, format!("`{name}` has no two operands to be in either order")));
                        }
                        let args: Result<Vec<Pat>, Fault> =
                            args.iter().zip(kinds).map(|(a, k)| self.pattern(a, k)).collect();
                        Ok(Pat::Op(head, args?, either))
                    }
                    _ => Err((place, format!("found `{s}`, expected an attribute or a list"))),
                }
            }
        }
    }

    fn expression(&mut self, s: &Sexp, scope: &[String], kind: Option<AttrKind>) -> Result<Expr, Fault> {
        let place = s.place();
        let Sexp::Apply(items, _) = s else {
            return match s.atom() {
                Some(a) if a.starts_with('?') => match scope.iter().rposition(|v| v == a) {
                    Some(i) => Ok(Expr::Var(i)),
                    None => Err((place, format!("`{a}` does not occur on the left"))),
                },
                Some("nil") => Ok(Expr::Nil),
                _ => Ok(Expr::Lit(Arc::new(match kind {
                    Some(k) => literal(s, k)?,
                    None => bare_literal(s)?,
                }))),
            };
        };
        let (name, args) = split(items, place)?;
        let boxed = |p: &mut Self, s: &Sexp| p.expression(s, scope, None).map(Box::new);
        match (name, args) {
            ("splat", [x, rest @ ..]) => {
                let x = Box::new(self.expression(x, scope, Some(AttrKind::Num))?);
                match rest {
                    [like] => Ok(Expr::Splat(x, boxed(self, like)?)),
                    [dtype, shape] => Ok(Expr::SplatIn(x, boxed(self, dtype)?, boxed(self, shape)?)),
                    _ => Err((
                        place,
                        "expected `(splat x ?like)` or `(splat x ?dtype shape)`".to_string(),
                    )),
                }
            }
            ("cons", [a, b]) => Ok(Expr::Cons(boxed(self, a)?, boxed(self, b)?)),
            ("each", [Sexp::Atom(v, _), list, body]) => {
                let list = boxed(self, list)?;
                let mut inner = scope.to_vec();
                inner.push((*v).to_owned());
                let body = Box::new(self.expression(body, &inner, None)?);
                Ok(Expr::Each(list, body))
            }
            _ => {
                if let Some(f) = functions::function(name) {
                    let args: Result<Vec<Expr>, Fault> = args.iter().map(|a| self.expression(a, scope, None)).collect();
                    return Ok(Expr::Call(f, args?));
                }
                let (head, op) = self.head(name, place, "operator or function")?;
                let kinds = argument_kinds(op, args.len(), place)?;
                let mut out = vec![];
                for (a, k) in args.iter().zip(kinds) {
                    out.push(match (k, a.atom()) {
                        (VarKind::Attr(k), _) => self.expression(a, scope, Some(k))?,
                        (_, Some(n)) if !n.starts_with('?') && n != "nil" => {
                            let m = format!("found `{n}`, expected an operand: a number is `(splat {n} ?like)`");
                            return Err((a.place(), m));
                        }
                        _ => self.expression(a, scope, None)?,
                    });
                }
                Ok(Expr::Op(head, out))
            }
        }
    }

    fn condition(&mut self, s: &Sexp, scope: &[String]) -> Result<Cond, Fault> {
        let place = s.place();
        let Sexp::Apply(items, _) = s else {
            return Err((place, format!("found `{s}`, expected a condition `(name …)`")));
        };
        let (name, args) = split(items, place)?;
        match (name, args) {
            ("not", [c]) => Ok(Cond::Not(Box::new(self.condition(c, scope)?))),
            ("=", [a, b]) => Ok(Cond::Equal(
                self.expression(a, scope, None)?,
                self.expression(b, scope, None)?,
            )),
            _ => {
                let p = functions::predicate(name).ok_or_else(|| (place, format!("there is no predicate `{name}`")))?;
                let args: Result<Vec<Expr>, Fault> = args.iter().map(|a| self.expression(a, scope, None)).collect();
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
        (AttrKind::Num, Sexp::Atom(a, _)) => number(a).map(Attr::number).ok_or_else(bad),
        (AttrKind::DType, Sexp::Atom(a, _)) => a.parse::<DType>().map(Attr::DType).map_err(|_| bad()),
        (AttrKind::Word, Sexp::Atom(a, _)) => Ok(Attr::word(a)),
        (AttrKind::Ints, Sexp::List(v, _)) => Ok(Attr::Ints(ints(v)?)),
        (AttrKind::Dims, Sexp::List(v, _)) => Ok(Attr::dims(&ints(v)?)),
        _ => Err(bad()),
    }
}

/// A number without loss: what an f64 holds is a float.
fn number(text: &str) -> Option<Number> {
    let rounds = |&i: &i128| i as f64 as i128 != i;
    match text.parse::<i128>().ok().filter(rounds) {
        Some(i) => Some(Number::Int(i)),
        None => text.parse().ok().map(Number::Float),
    }
}

/// A literal where no kind is known: an argument of a function.
fn bare_literal(s: &Sexp) -> Result<Attr, Fault> {
    match s {
        Sexp::List(..) => literal(s, AttrKind::Ints),
        Sexp::Atom(a, _) => Ok(match (a.parse::<i64>(), number(a), *a) {
            (Ok(i), ..) => Attr::Int(i),
            (_, Some(x), _) => Attr::number(x),
            (_, _, "true" | "false") => Attr::Bool(*a == "true"),
            _ => Attr::word(a),
        }),
        Sexp::Apply(_, p) => Err((*p, format!("found `{s}`, expected a literal"))),
    }
}
