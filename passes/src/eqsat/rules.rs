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
//! A matrix of numbers in an operand's place, `[[1 0] [0 1]]`, matches a constant of the model that has these extents and
//! elements, each rounded to its dtype; on the right `(dense [[1 0] [0 1]] ?x)` is one in the dtype of `?x`.
//!
//! A rule may have several roots, which share streams: as many left sides before `=>` as right sides behind it. Where all match, at
//! classes that differ, each equals its right side.
//!
//! ```text
//! ; x·a and x·b are halves of x·[a b].
//! rule merge-products [reassociate]
//!   (contract [] [] [1] [0] ?acc ?out ?x ?a)
//!   (contract [] [] [1] [0] ?acc ?out ?x ?b)
//!   => (slice [0 0] …) (slice …)
//! ```
//!
//! A rule's class says what floating-point arithmetic may see: `exact` is bit equal, `reassociate` equal over the reals,
//! `approximate` neither. A `reassociate` rule keeps NaN, infinities and the sign of zeros, but for what it names behind its
//! class ([`Allowance`]): `[reassociate range zero]`.

use super::functions::{Function, Predicate};
use super::lang::OpId;
pub use super::sexp::SyntaxError;
use super::sexp::{Sexp, parse as parse_sexps};
use brolga_ir::{Attr, DType, Number, Tensor, ops::AttrKind};
use std::sync::Arc;

mod literals;
mod parse;

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

impl Exactness {
    /// Every class with its name in rules.
    pub const ALL: [(&'static str, Exactness); 3] = [
        ("exact", Exactness::Exact),
        ("reassociate", Exactness::Reassociate),
        ("approximate", Exactness::Approximate),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Exactness::ALL[self as usize].0
    }
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

    /// Its name.
    pub fn name(self) -> &'static str {
        Allowance::ALL[self as usize].0
    }
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

/// A matrix of numbers in a rule's text.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Literal {
    /// Its extents; no element is missing.
    pub shape: Vec<usize>,
    /// Its elements, row by row.
    pub elements: Vec<Number>,
}

impl Literal {
    /// The matrix in a dtype, its elements rounded.
    pub fn tensor(&self, dtype: DType) -> Tensor {
        Tensor::from_fn(dtype, &self.shape, |i| self.elements[i].to(dtype))
    }
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
    /// A constant of the model with these elements, rounded to its dtype.
    Dense(Literal),
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
            Pat::Var(_) | Pat::Lit(_) | Pat::Number(..) | Pat::Dense(_) | Pat::Nil => 0,
            Pat::Op(_, args, _) => 1 + args.iter().map(Pat::depth).max().unwrap_or(0),
            Pat::Load(x) | Pat::Store(x) => 1 + x.depth(),
            Pat::Cons(a, b) => 1 + a.depth().max(b.depth()),
        }
    }

    /// Calls `f` with every operator that is named, repetitions included.
    pub fn for_each_op(&self, f: &mut dyn FnMut(OpId)) {
        match self {
            Pat::Var(_) | Pat::Lit(_) | Pat::Number(..) | Pat::Dense(_) | Pat::Nil => {}
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

    fn for_each_matrix(&self, f: &mut dyn FnMut(&Literal)) {
        match self {
            Pat::Var(_) | Pat::Lit(_) | Pat::Number(..) | Pat::Nil => {}
            Pat::Dense(x) => f(x),
            Pat::Op(_, args, _) => args.iter().for_each(|a| a.for_each_matrix(f)),
            Pat::Load(x) | Pat::Store(x) => x.for_each_matrix(f),
            Pat::Cons(a, b) => {
                a.for_each_matrix(f);
                b.for_each_matrix(f);
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
    /// A matrix in the dtype of a stream.
    Dense(Literal, Box<Expr>),
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

impl Expr {
    fn for_each_matrix(&self, f: &mut dyn FnMut(&Literal)) {
        match self {
            Expr::Var(_) | Expr::Lit(_) | Expr::Nil => {}
            Expr::Dense(x, like) => {
                f(x);
                like.for_each_matrix(f);
            }
            Expr::Op(_, args) | Expr::Call(_, args) => args.iter().for_each(|a| a.for_each_matrix(f)),
            Expr::Splat(a, b) | Expr::Each(a, b) | Expr::Cons(a, b) => {
                a.for_each_matrix(f);
                b.for_each_matrix(f);
            }
            Expr::SplatIn(a, b, c) => [a, b, c].iter().for_each(|e| e.for_each_matrix(f)),
        }
    }
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

/// A root of a rule: what is matched, and what equals it.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// The left side.
    pub left: Pat,
    /// The right side.
    pub right: Expr,
}

/// How a root of a rule with several is found from those before it: above a stream that they share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The root.
    pub side: usize,
    /// The variable that is bound already.
    pub var: usize,
    /// How many e-nodes it stands below the root.
    pub depth: usize,
}

/// What a rule that is text consists of.
#[derive(Clone, Debug)]
pub(crate) struct Law {
    /// The roots, at least one.
    pub sides: Vec<Side>,
    /// For each root that is matched first, the others in the order in which they are.
    pub links: Vec<Vec<Link>>,
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

impl Law {
    /// Calls `f` with every operator that a left side names, repetitions included.
    pub fn for_each_op(&self, f: &mut dyn FnMut(OpId)) {
        self.sides.iter().for_each(|s| s.left.for_each_op(f));
    }

    /// Calls `f` with every matrix of the sides.
    pub fn for_each_matrix(&self, f: &mut dyn FnMut(&Literal)) {
        for side in &self.sides {
            side.left.for_each_matrix(f);
            side.right.for_each_matrix(f);
        }
    }
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
    /// Where it stands: file, line and column.
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
pub const EMBEDDED: [(&str, &str); 9] = [
    ("fusion.rules", include_str!("../../rules/fusion.rules")),
    ("algebra.rules", include_str!("../../rules/algebra.rules")),
    ("movement.rules", include_str!("../../rules/movement.rules")),
    ("conv.rules", include_str!("../../rules/conv.rules")),
    ("contract.rules", include_str!("../../rules/contract.rules")),
    ("merge.rules", include_str!("../../rules/merge.rules")),
    ("norm.rules", include_str!("../../rules/norm.rules")),
    ("attention.rules", include_str!("../../rules/attention.rules")),
    ("quantize.rules", include_str!("../../rules/quantize.rules")),
];

impl RuleSet {
    /// The embedded rules.
    pub fn embedded() -> RuleSet {
        let mut all = RuleSet::default();
        for (file, text) in EMBEDDED {
            all.add(file, text)
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
        set.add(file, text)?;
        Ok(set)
    }
}

#[cfg(test)]
mod tests;
