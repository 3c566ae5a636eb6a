//! One case of a rule: ranks and integers are chosen, extents are symbols.
//!
//! A left side is made twice. The first time tells which equations its types and the rule's conditions demand of the symbols; solved
//! for single symbols, they are what these are the second time. An equation that has no such solution is not used.

use super::element;
use super::equations::solve;
use super::term::{Dtypes, Id, Kind, Scalar, Term, of_shape};
use crate::eqsat::choices::Choices;
use crate::eqsat::functions::{self, Arg, Asks, Mark, Stream};
use crate::eqsat::lang::{EGraph, Facts};
use crate::eqsat::rules::{Cond, Expr, Head, Law, Pat, VarKind};
use brolga_ir::dim;
use brolga_ir::ops::{Assembly, AttrKind, Op, Role};
use brolga_ir::scalar::Rule as Takes;
use brolga_ir::{Attr, DType, Dim, Graph, Type};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What integers that are no extents are chosen from.
pub const INTEGERS: [i64; 4] = [-1, 0, 1, 2];

/// The most streams of a list that a variable stands for.
const MOST_REST: usize = 2;

/// Why a case is not proved.
pub(super) enum Stop {
    /// The rule matches nothing here.
    Impossible,
    /// No proof is known.
    Unproved,
}

type Result<T> = std::result::Result<T, Stop>;

/// What a variable is.
#[derive(Clone)]
enum Bound {
    Stream(Id),
    Attr(Arc<Attr>),
    List(Vec<Id>),
}

/// What is wanted of a pattern's term.
#[derive(Clone)]
enum Want {
    Rank(usize),
    Shape(Vec<Dim>),
    /// Any rank.
    AnyRank,
}

pub(super) struct Case<'a> {
    pub law: &'a Law,
    /// The highest rank of a stream.
    rank: usize,
    choices: &'a mut Choices,
    pub solution: &'a BTreeMap<String, Dim>,
    pub symbols: usize,
    pub terms: Vec<Term>,
    pub dtypes: Dtypes,
    results: BTreeMap<(String, Vec<usize>), usize>,
    bound: Vec<Option<Bound>>,
    pub equations: Vec<(Dim, Dim)>,
    /// Numbers of elements that are equal.
    pub sizes: Vec<(Dim, Dim)>,
    /// What the types of right sides demand beyond that, where it is asked for.
    pub owed: Option<Vec<(Dim, Dim)>>,
    /// Whether a side is left: what it demands holds.
    left: bool,
    /// What was chosen from a few only.
    pub limits: Limits,
}

/// What was not gone through in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Integers that are no extent, axis or permutation were chosen from [`INTEGERS`].
    pub integers: bool,
    /// Lists of streams had up to this many more than the rule names; none where there are no such lists.
    pub rest: Option<usize>,
}

/// No class of an e-graph is asked about.
static EMPTY: LazyLock<std::sync::Mutex<EGraph>> =
    LazyLock::new(|| std::sync::Mutex::new(EGraph::new(Facts::new(&Graph::new("empty")))));

impl<'a> Case<'a> {
    /// Proves the next case; gives what it was limited to.
    pub fn prove(law: &'a Law, rank: usize, choices: &'a mut Choices) -> Result<Limits> {
        Case::with(law, rank, choices, None, |case, sides| {
            let equal = |&(left, right): &(Id, Id)| {
                case.terms[left].shape == case.terms[right].shape && element::same(case, left, right)
            };
            match sides.iter().all(equal) {
                true => Ok(case.limits),
                false => Err(Stop::Unproved),
            }
        })
    }

    /// Makes the next case, in which nothing is owed or so much as is found to be, and shows it with its sides.
    pub fn with<T>(
        law: &'a Law,
        rank: usize,
        choices: &'a mut Choices,
        owed: Option<Vec<(Dim, Dim)>>,
        show: impl FnOnce(&Case, &[(Id, Id)]) -> Result<T>,
    ) -> Result<T> {
        choices.restart();
        let none = BTreeMap::new();
        let mut first = Case::new(law, rank, choices, &none);
        first.lefts()?;
        let solution = solve(&first.equations)?;
        first.choices.restart();
        let choices = first.choices;
        let mut case = Case::new(law, rank, choices, &solution);
        let lefts = case.lefts()?;
        case.conditions()?;
        case.left = false;
        case.owed = owed;
        let mut sides = vec![];
        for (side, left) in law.sides.iter().zip(lefts) {
            sides.push((left, case.stream(&side.right, &mut vec![])?));
        }
        show(&case, &sides)
    }

    fn new(law: &'a Law, rank: usize, choices: &'a mut Choices, solution: &'a BTreeMap<String, Dim>) -> Case<'a> {
        Case {
            law,
            rank,
            choices,
            solution,
            symbols: 0,
            terms: vec![],
            dtypes: Dtypes::default(),
            results: BTreeMap::new(),
            bound: vec![None; law.vars.len()],
            equations: vec![],
            sizes: vec![],
            owed: None,
            left: true,
            limits: Limits::default(),
        }
    }

    /// Whether two numbers of elements are known to be equal.
    fn same_size(&self, a: &Dim, b: &Dim) -> bool {
        let mut known = vec![a.clone()];
        let mut at = 0;
        while at < known.len() {
            let now = known[at].clone();
            if now == *b {
                return true;
            }
            for (x, y) in &self.sizes {
                for (from, to) in [(x, y), (y, x)] {
                    if *from == now && !known.contains(to) {
                        known.push(to.clone());
                    }
                }
            }
            at += 1;
        }
        false
    }

    fn lefts(&mut self) -> Result<Vec<Id>> {
        let mut out = vec![];
        for side in &self.law.sides {
            out.push(self.pattern(&side.left, Want::AnyRank)?);
        }
        for c in &self.law.conditions {
            let Cond::Equal(a, b) = c else { continue };
            let (Ok(Arg::Attr(a)), Ok(Arg::Attr(b))) = (self.argument(a), self.argument(b)) else {
                continue;
            };
            if let (Some(a), Some(b)) = (Arg::Attr(a).dims(), Arg::Attr(b).dims()) {
                self.equal(&a, &b)?;
            }
        }
        Ok(out)
    }

    /// Leaves out what a condition that can be told refuses.
    fn conditions(&mut self) -> Result<()> {
        for c in &self.law.conditions {
            let (test, args, holds) = match c {
                Cond::Is(test, args) => (test, args, true),
                Cond::Not(c) => match &**c {
                    Cond::Is(test, args) => (test, args, false),
                    _ => continue,
                },
                Cond::Equal(..) => continue,
            };
            if !test.marks.contains(&Mark::Units) {
                continue;
            }
            let args: std::result::Result<Vec<Arg>, Stop> = args.iter().map(|a| self.argument(a)).collect();
            let Ok(args) = args else { continue };
            let empty = EMPTY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if (test.run)(&empty, &args).unwrap_or(false) != holds {
                return Err(Stop::Impossible);
            }
        }
        Ok(())
    }

    /// An integer that is at least 0 and else unknown.
    fn symbol(&mut self) -> Dim {
        self.symbols += 1;
        let name = format!("n{}", self.symbols);
        self.solution.get(&name).cloned().unwrap_or_else(|| Dim::sym(&name))
    }

    /// An unknown integer.
    fn integer(&mut self) -> Dim {
        &self.symbol() - &self.symbol()
    }

    /// An unknown shape.
    fn shape(&mut self, rank: usize) -> Vec<Dim> {
        let law = self.law;
        let units = law.conditions.iter().any(|c| match c {
            Cond::Is(p, _) => p.marks.contains(&Mark::Units),
            Cond::Not(c) => matches!(&**c, Cond::Is(p, _) if p.marks.contains(&Mark::Units)),
            Cond::Equal(..) => false,
        });
        let mut out = vec![];
        for _ in 0..rank {
            let n = self.symbol();
            let one = units && self.choices.choose(2) == 1;
            out.push(if one { Dim::ONE } else { n });
        }
        out
    }

    /// Demands that two shapes are equal, or, of a right side, asks.
    fn equal(&mut self, a: &[Dim], b: &[Dim]) -> Result<()> {
        if a.len() != b.len() {
            return Err(self.refused());
        }
        for (a, b) in a.iter().zip(b).filter(|(a, b)| a != b) {
            match self.left {
                true => self.equations.push((a.clone(), b.clone())),
                false => self.owe(a, b)?,
            }
        }
        Ok(())
    }

    /// A right side demands that two integers are equal, of which that is not known.
    fn owe(&mut self, a: &Dim, b: &Dim) -> Result<()> {
        self.owed.as_mut().ok_or(Stop::Unproved)?.push((a.clone(), b.clone()));
        Ok(())
    }

    /// What does not fit on the left is no instance; on the right it is no proof.
    fn refused(&self) -> Stop {
        if self.left { Stop::Impossible } else { Stop::Unproved }
    }

    fn add(&mut self, kind: Kind, shape: Vec<Dim>, dtype: usize) -> Id {
        self.terms.push(Term { kind, shape, dtype });
        self.terms.len() - 1
    }

    /// What the conditions say of a variable alone.
    fn asked(&self, var: usize) -> impl Iterator<Item = Asks> + 'a {
        let law = self.law;
        law.conditions.iter().filter_map(move |c| match c {
            Cond::Is(p, args) if matches!(args[0], Expr::Var(v) if v == var) => Some(p.asks),
            _ => None,
        })
    }

    fn leaf(&mut self, var: usize, want: Want) -> Id {
        let shape = self.wanted(want);
        let dtype = self.dtypes.fresh();
        let number = |a: Asks| matches!(a, Asks::Number | Asks::Positive | Asks::ThisNumber);
        let kind = match self.asked(var).any(number) {
            true => Kind::NumberOf(var),
            false => Kind::Leaf(var),
        };
        self.add(kind, shape, dtype)
    }

    fn wanted(&mut self, want: Want) -> Vec<Dim> {
        match want {
            Want::Shape(shape) => shape,
            Want::Rank(rank) => self.shape(rank),
            Want::AnyRank => {
                let rank = self.choices.choose(self.rank + 1);
                self.shape(rank)
            }
        }
    }

    fn pattern(&mut self, p: &Pat, want: Want) -> Result<Id> {
        match p {
            Pat::Var(v) => match self.bound[*v].clone() {
                Some(Bound::Stream(id)) => {
                    let shape = self.terms[id].shape.clone();
                    match want {
                        Want::Shape(s) => self.equal(&shape, &s)?,
                        Want::Rank(r) if r != shape.len() => return Err(Stop::Impossible),
                        _ => {}
                    }
                    Ok(id)
                }
                Some(_) => Err(Stop::Unproved),
                None => {
                    let id = self.leaf(*v, want);
                    self.bound[*v] = Some(Bound::Stream(id));
                    Ok(id)
                }
            },
            Pat::Number(x, false) => {
                let (shape, dtype) = (self.wanted(want), self.dtypes.fresh());
                Ok(self.add(Kind::Number(*x), shape, dtype))
            }
            Pat::Op(head, args, either) => {
                let mut args: Vec<&Pat> = args.iter().collect();
                let n = args.len();
                if *either && self.choices.choose(2) == 1 {
                    args.swap(n - 1, n - 2);
                }
                self.left_operator(*head, &args, want)
            }
            _ => Err(Stop::Unproved),
        }
    }

    fn left_operator(&mut self, head: Head, args: &[&Pat], want: Want) -> Result<Id> {
        let Head::Op(op) = head else {
            return self.left_map(head, args, want);
        };
        let def = op.def();
        let (attrs, operands) = args.split_at(def.attrs().len());
        let rank_of = |want: &Want| match want {
            Want::Shape(s) => Want::Rank(s.len()),
            other => other.clone(),
        };
        let ids = match def.role() {
            Role::Map(_) if attrs.is_empty() => return self.left_map(head, args, want),
            Role::Map(_) => {
                // A cast.
                let x = self.pattern(operands[0], want)?;
                let Attr::DType(to) = self.attribute(attrs[0], AttrKind::DType, 0)? else {
                    return Err(Stop::Unproved);
                };
                return self.operator(head, vec![Attr::DType(to)], vec![x]);
            }
            Role::Move(_) => vec![self.pattern(operands[0], rank_of(&want))?],
            Role::Reshape(_) => vec![self.pattern(operands[0], Want::AnyRank)?],
            Role::Gather(_) => {
                let data = self.pattern(operands[0], Want::AnyRank)?;
                vec![data, self.pattern(operands[1], Want::AnyRank)?]
            }
            Role::Assemble(_) => self.list(operands[0], rank_of(&want))?,
            _ => return Err(Stop::Unproved),
        };
        let attrs = self.attributes(head, attrs, &ids, &want)?;
        let id = self.operator(head, attrs, ids)?;
        if let Want::Shape(s) = want {
            let shape = self.terms[id].shape.clone();
            self.equal(&shape, &s)?;
        }
        Ok(id)
    }

    fn left_map(&mut self, head: Head, args: &[&Pat], want: Want) -> Result<Id> {
        let mut want = want;
        let mut ids = vec![];
        for a in args {
            let id = self.pattern(a, want)?;
            want = Want::Shape(self.terms[id].shape.clone());
            ids.push(id);
        }
        self.operator(head, vec![], ids)
    }

    /// The operands of a list: of one rank, whose extents may differ.
    fn list(&mut self, p: &Pat, want: Want) -> Result<Vec<Id>> {
        match p {
            Pat::Nil => Ok(vec![]),
            Pat::Cons(head, tail) => {
                let first = self.pattern(head, want)?;
                let want = Want::Rank(self.terms[first].shape.len());
                Ok([vec![first], self.list(tail, want)?].concat())
            }
            Pat::Var(v) if self.bound[*v].is_none() => {
                let n = self.choices.choose(MOST_REST + 1);
                self.limits.rest = Some(MOST_REST);
                // Each is a stream of its own, numbered behind the variables.
                let number = |k: usize| self.law.vars.len() * (k + 1) + v;
                let vars: Vec<usize> = (0..n).map(number).collect();
                let ids: Vec<Id> = vars.into_iter().map(|v| self.leaf(v, want.clone())).collect();
                self.bound[*v] = Some(Bound::List(ids.clone()));
                Ok(ids)
            }
            _ => Err(Stop::Unproved),
        }
    }

    /// The attributes of an operator on the left, for its operands.
    fn attributes(&mut self, head: Head, attrs: &[&Pat], ids: &[Id], want: &Want) -> Result<Vec<Attr>> {
        let Head::Op(op) = head else { return Err(Stop::Unproved) };
        let def = op.def();
        let rank = self.terms[ids.first().copied().ok_or(Stop::Impossible)?].shape.len();
        let mut out = vec![];
        for (at, (p, (_, kind))) in attrs.iter().zip(def.attrs()).enumerate() {
            let known = match p {
                Pat::Lit(a) => Some((**a).clone()),
                Pat::Var(v) => match &self.bound[*v] {
                    Some(Bound::Attr(a)) => Some((**a).clone()),
                    Some(_) => return Err(Stop::Unproved),
                    None => None,
                },
                _ => return Err(Stop::Unproved),
            };
            let attr = match (known, def.role(), *kind) {
                (Some(a), ..) => a,
                (None, Role::Reshape(_), AttrKind::Dims) => match want {
                    Want::Shape(s) => Attr::Dims(s.clone()),
                    Want::Rank(r) => Attr::Dims(self.shape_of_symbols(*r)),
                    Want::AnyRank => {
                        let rank = self.choices.choose(self.rank + 1);
                        Attr::Dims(self.shape_of_symbols(rank))
                    }
                },
                (None, Role::Move(_), AttrKind::Dims) if is_result(head, at, rank) => {
                    Attr::Dims(self.shape_of_symbols(rank))
                }
                (None, Role::Move(m), AttrKind::Ints) if m.permutation(&probe(head, rank)?).is_some() => {
                    let Pat::Var(v) = p else { return Err(Stop::Unproved) };
                    match self.asked(*v).any(|a| a == Asks::Identity) {
                        true => Attr::Ints((0..rank as i64).collect()),
                        false => Attr::Ints(self.permutation(rank)),
                    }
                }
                (None, Role::Move(_), AttrKind::Int) => return Err(Stop::Unproved),
                (None, _, kind) => self.attribute(p, kind, rank)?,
            };
            if let Pat::Var(v) = p {
                self.bound[*v] = Some(Bound::Attr(Arc::new(attr.clone())));
            }
            out.push(attr);
        }
        Ok(out)
    }

    fn shape_of_symbols(&mut self, rank: usize) -> Vec<Dim> {
        (0..rank).map(|_| self.symbol()).collect()
    }

    fn permutation(&mut self, rank: usize) -> Vec<i64> {
        let mut left: Vec<i64> = (0..rank as i64).collect();
        (0..rank)
            .map(|_| left.remove(self.choices.choose(left.len())))
            .collect()
    }

    /// An attribute that is no permutation and no shape.
    fn attribute(&mut self, p: &Pat, kind: AttrKind, rank: usize) -> Result<Attr> {
        let var = match p {
            Pat::Lit(a) => return Ok((**a).clone()),
            Pat::Var(v) => *v,
            _ => return Err(Stop::Unproved),
        };
        if let Some(Bound::Attr(a)) = &self.bound[var] {
            return Ok((**a).clone());
        }
        let every = self.asked(var).find_map(|a| match a {
            Asks::Every(x) => Some(x),
            _ => None,
        });
        let natural = self.asked(var).any(|a| a == Asks::Natural);
        let attr = match (kind, every) {
            (AttrKind::Dims, Some(x)) => Attr::Dims(vec![Dim::Const(x); rank]),
            (AttrKind::Ints, Some(x)) => Attr::Ints(vec![x; rank]),
            (AttrKind::Dims, None) if natural => Attr::Dims(self.shape_of_symbols(rank)),
            (AttrKind::Dims, None) => Attr::Dims((0..rank).map(|_| self.integer()).collect()),
            (AttrKind::Ints, None) => {
                self.limits.integers = true;
                Attr::Ints(
                    (0..rank)
                        .map(|_| INTEGERS[self.choices.choose(INTEGERS.len())])
                        .collect(),
                )
            }
            // Of a concatenation and a gather, an axis.
            (AttrKind::Int, None) if rank > 0 => Attr::Int(self.choices.choose(rank) as i64),
            (AttrKind::Int, None) => return Err(Stop::Impossible),
            (AttrKind::DType, None) => Attr::DType(DType::ALL[self.choices.choose(DType::ALL.len())]),
            // What is filled is only handed on: a number stands for all, and another one, so that neither is what a rule's text names.
            (AttrKind::Num, None) => Attr::num([0.123, 0.456][self.choices.choose(2)] + var as f64),
            _ => return Err(Stop::Unproved),
        };
        self.bound[var] = Some(Bound::Attr(Arc::new(attr.clone())));
        Ok(attr)
    }

    /// An operator of either side; of the left one, what its types demand is noted, of the right one it has to hold.
    fn operator(&mut self, head: Head, attrs: Vec<Attr>, ids: Vec<Id>) -> Result<Id> {
        let shapes: Vec<Vec<Dim>> = ids.iter().map(|&i| self.terms[i].shape.clone()).collect();
        let Head::Op(op) = head else {
            return self.map(Scalar::Any(family_of(head)), ids, shapes);
        };
        let role = op.def().role();
        if let Role::Map(f) = role {
            let to = match attrs[..] {
                [] => None,
                [Attr::DType(to)] => Some(to),
                _ => return Err(Stop::Unproved),
            };
            return self.map(Scalar::Known(f, to), ids, shapes);
        }
        let op = Op::of(op.def(), attrs.into()).map_err(|_| Stop::Unproved)?;
        let types: Vec<Type> = match role {
            Role::Gather(_) => vec![of_shape(&shapes[0]), Type::new(DType::I64, shapes[1].clone())],
            _ => shapes.iter().map(|s| of_shape(s)).collect(),
        };
        let dtype = self.terms[*ids.first().ok_or(Stop::Impossible)?].dtype;
        // A reshape's sizes are compared below, and a concatenation's extents; they are equal in ways that types do not know.
        let infer = |types: &[Type]| op.infer(types).map(|mut t| t.remove(0).shape);
        let (kind, shape) = match role {
            Role::Move(m) => {
                let to = infer(&types).map_err(|_| self.refused())?;
                if m.spreads() {
                    self.spread(&shapes[0], &to)?;
                }
                (Kind::Move(op, m, ids[0]), to)
            }
            Role::Reshape(_) => {
                let to = op.attrs().iter().find_map(|a| Arg::Attr(Arc::new(a.clone())).dims());
                let to = to.ok_or(Stop::Unproved)?;
                let (a, b) = (dim::product(&shapes[0]), dim::product(&to));
                match self.left {
                    true => self.sizes.push((a, b)),
                    false if !self.same_size(&a, &b) => self.owe(&a, &b)?,
                    false => {}
                }
                (Kind::Reshape(ids[0]), to)
            }
            Role::Gather(g) => {
                let to = infer(&types).map_err(|_| self.refused())?;
                (Kind::Gather(op, g, ids[0], ids[1]), to)
            }
            Role::Assemble(a) => {
                let Assembly::Concat { axis } = a.assembly(&op) else {
                    return Err(Stop::Unproved);
                };
                let mut to = shapes[0].clone();
                for other in &shapes[1..] {
                    if other.len() != to.len() || axis >= to.len() {
                        return Err(self.refused());
                    }
                    let but = |s: &[Dim]| [&s[..axis], &s[axis + 1..]].concat();
                    self.equal(&but(&shapes[0]), &but(other))?;
                    to[axis] = &to[axis] + &other[axis];
                }
                for &id in &ids[1..] {
                    let other = self.terms[id].dtype;
                    self.one_dtype(dtype, other)?;
                }
                (Kind::Concat(axis, ids), to)
            }
            _ => return Err(Stop::Unproved),
        };
        Ok(self.add(kind, shape, dtype))
    }

    /// Along each dim an operand that is spread has the extent of the result, or 1.
    fn spread(&mut self, from: &[Dim], to: &[Dim]) -> Result<()> {
        for (from, to) in from.iter().zip(to) {
            if self.left {
                let other = [&Dim::ONE, to][self.choices.choose(2)];
                self.equations.push((from.clone(), other.clone()));
            } else if from != to && !from.is(1) {
                return Err(Stop::Unproved);
            }
        }
        Ok(())
    }

    fn one_dtype(&mut self, a: usize, b: usize) -> Result<()> {
        if self.left {
            self.dtypes.join(a, b);
            return Ok(());
        }
        match self.dtypes.find(a) == self.dtypes.find(b) {
            true => Ok(()),
            false => Err(Stop::Unproved),
        }
    }

    fn map(&mut self, f: Scalar, ids: Vec<Id>, shapes: Vec<Vec<Dim>>) -> Result<Id> {
        for shape in &shapes[1..] {
            self.equal(&shapes[0], shape)?;
        }
        // Operands have one dtype, but for the condition of a choice.
        let takes = |f: &Scalar| match f {
            Scalar::Known(f, _) => vec![f.rule],
            Scalar::Any(family) => {
                let functions = self.law.families[*family]
                    .iter()
                    .filter_map(|op| op.def().role().function());
                functions.map(|f| f.rule).collect()
            }
        };
        let first = takes(&f).contains(&Takes::Where) as usize;
        let dtypes: Vec<usize> = ids.iter().map(|&i| self.terms[i].dtype).collect();
        for &other in dtypes.iter().skip(first + 1) {
            self.one_dtype(dtypes[first], other)?;
        }
        let key = (f.name(), dtypes.iter().map(|&d| self.dtypes.find(d)).collect());
        let dtype = match (&f, self.results.get(&key)) {
            (Scalar::Known(f, None), _) if first == 1 || keeps_dtype(f.rule) => dtypes[first],
            (_, Some(d)) => *d,
            _ => {
                let d = self.dtypes.fresh();
                self.results.insert(key, d);
                d
            }
        };
        Ok(self.add(Kind::Map(f, ids), shapes[0].clone(), dtype))
    }

    /// A stream of the right side.
    fn stream(&mut self, e: &Expr, locals: &mut Vec<Id>) -> Result<Id> {
        match e {
            Expr::Var(v) if *v >= self.law.vars.len() => Ok(locals[*v - self.law.vars.len()]),
            Expr::Var(v) => match &self.bound[*v] {
                Some(Bound::Stream(id)) => Ok(*id),
                _ => Err(Stop::Unproved),
            },
            Expr::Splat(x, like) => {
                let like = self.stream(like, locals)?;
                let (shape, dtype) = (self.terms[like].shape.clone(), self.terms[like].dtype);
                let number = match &**x {
                    Expr::Lit(a) => Kind::Number(functions::number(a).ok_or(Stop::Unproved)?),
                    Expr::Var(_) => {
                        let id = self.stream(x, locals)?;
                        let Kind::NumberOf(var) = self.terms[id].kind else {
                            return Err(Stop::Unproved);
                        };
                        let own = self.terms[id].dtype;
                        self.one_dtype(own, dtype)?;
                        Kind::NumberOf(var)
                    }
                    _ => return Err(Stop::Unproved),
                };
                Ok(self.add(number, shape, dtype))
            }
            Expr::Op(head, args) => {
                let n = match head {
                    Head::Op(op) => op.def().attrs().len(),
                    Head::Family(_) => 0,
                };
                let mut attrs = vec![];
                for (i, a) in args[..n].iter().enumerate() {
                    let Arg::Attr(a) = self.argument(a)? else {
                        return Err(Stop::Unproved);
                    };
                    let Head::Op(op) = head else { return Err(Stop::Unproved) };
                    attrs.push(match (&*a, op.def().attrs()[i].1) {
                        (Attr::Ints(v), AttrKind::Dims) => Attr::dims(v),
                        (a, _) => a.clone(),
                    });
                }
                let mut ids = vec![];
                for a in &args[n..] {
                    match a {
                        Expr::Cons(..) | Expr::Nil | Expr::Each(..) => ids.extend(self.streams(a, locals)?),
                        Expr::Var(v) if self.is_list(*v) => ids.extend(self.streams(a, locals)?),
                        _ => ids.push(self.stream(a, locals)?),
                    }
                }
                self.operator(*head, attrs, ids)
            }
            _ => Err(Stop::Unproved),
        }
    }

    fn is_list(&self, var: usize) -> bool {
        self.law.vars.get(var).is_some_and(|v| v.1 == VarKind::List)
    }

    fn streams(&mut self, e: &Expr, locals: &mut Vec<Id>) -> Result<Vec<Id>> {
        match e {
            Expr::Nil => Ok(vec![]),
            Expr::Cons(a, b) => {
                let first = self.stream(a, locals)?;
                Ok([vec![first], self.streams(b, locals)?].concat())
            }
            Expr::Each(list, body) => {
                let mut out = vec![];
                for item in self.streams(list, locals)? {
                    locals.push(item);
                    let made = self.stream(body, locals);
                    locals.pop();
                    out.push(made?);
                }
                Ok(out)
            }
            Expr::Var(v) => match &self.bound[*v] {
                Some(Bound::List(ids)) => Ok(ids.clone()),
                _ => Err(Stop::Unproved),
            },
            _ => Err(Stop::Unproved),
        }
    }

    /// An argument of a function, by the very definitions of functions; those that look at extents are not used.
    fn argument(&self, e: &Expr) -> Result<Arg> {
        match e {
            Expr::Lit(a) => Ok(Arg::Attr(a.clone())),
            Expr::Var(v) => match self.bound.get(*v) {
                Some(Some(Bound::Attr(a))) => Ok(Arg::Attr(a.clone())),
                Some(Some(Bound::Stream(id))) => Ok(Arg::Stream(Stream {
                    ty: Arc::new(of_shape(&self.terms[*id].shape)),
                    constant: false,
                    splat: None,
                    class: None,
                })),
                _ => Err(Stop::Unproved),
            },
            Expr::Call(f, args) if f.marks.contains(&Mark::Uniform) => {
                let args: Result<Vec<Arg>> = args.iter().map(|a| self.argument(a)).collect();
                (f.run)(&args?).map(|a| Arg::Attr(Arc::new(a))).ok_or(Stop::Impossible)
            }
            _ => Err(Stop::Unproved),
        }
    }
}

fn family_of(head: Head) -> usize {
    match head {
        Head::Family(f) => f,
        Head::Op(_) => unreachable!("an operator is no family"),
    }
}

/// Whether results have the dtype of the operands.
fn keeps_dtype(rule: Takes) -> bool {
    matches!(rule, Takes::Number | Takes::Float | Takes::Logic | Takes::Bits)
}

/// A movement with plain attributes, to ask what it is.
fn probe(head: Head, rank: usize) -> Result<Op> {
    let Head::Op(op) = head else { return Err(Stop::Unproved) };
    let attrs = op.def().attrs().iter().map(|(_, kind)| match kind {
        AttrKind::Ints => Ok(Attr::Ints((0..rank as i64).collect())),
        AttrKind::Dims => Ok(Attr::Dims(vec![Dim::ONE; rank])),
        AttrKind::Num => Ok(Attr::num(0.0)),
        _ => Err(Stop::Unproved),
    });
    Op::of(op.def(), attrs.collect::<Result<_>>()?).map_err(|_| Stop::Unproved)
}

/// Whether an attribute of a movement is the shape of its result.
fn is_result(head: Head, at: usize, rank: usize) -> bool {
    let Head::Op(op) = head else { return false };
    let symbols = |letter: &str| -> Vec<Dim> { (0..rank).map(|d| Dim::sym(&format!("{letter}{d}"))).collect() };
    let attrs = op.def().attrs().iter().enumerate().map(|(i, (_, kind))| match kind {
        AttrKind::Dims if i == at => Attr::Dims(symbols("to")),
        AttrKind::Dims => Attr::Dims(symbols("other")),
        AttrKind::Ints => Attr::Ints(vec![1; rank]),
        _ => Attr::num(0.0),
    });
    let op = Op::of(op.def(), attrs.collect());
    let made = op.and_then(|op| op.infer(&[of_shape(&symbols("from"))]));
    made.is_ok_and(|t| rank > 0 && t[0].shape == symbols("to"))
}
