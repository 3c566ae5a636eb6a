//! Applying a rule where it matches: its conditions, its right side, the union.
//!
//! The right side becomes a [`NewTerms`] first, typed term by term, and only then part of an e-graph (or, in the checker,
//! of a graph). So a rule that is wrong about types is refused by its name before it has done harm.

use super::build::{add_op, find_op};
use super::functions::{Arg, Stream};
use super::lang::{Data, EGraph, Kind, Term, list_items};
use super::matching::Match;
use super::rules::{Cond, Exactness, Expr, Head, Law, Rule};
use brolga_ir::ops::OpDef;
use brolga_ir::{Attr, Dim, Number, Op, Tensor, Type};
use egg::Id;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// A value on a right side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ref {
    /// A class that exists.
    Class(Id),
    /// A term of [`NewTerms`].
    New(usize),
}

/// A term to be made.
#[derive(Clone, Debug)]
pub enum NewTerm {
    /// An operator.
    Op(Op, Vec<Ref>),
    /// A constant, as a stream.
    Dense(Tensor),
    /// A rank-0 number, as a stream.
    Number(Term),
}

/// The terms of a rule's right sides, operands first.
#[derive(Clone, Debug, Default)]
pub struct NewTerms {
    /// The terms with their types.
    pub terms: Vec<(NewTerm, Stream)>,
}

/// The right sides of a rule for one match.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The new terms.
    pub new: NewTerms,
    /// The result for every root.
    pub roots: SmallVec<[Ref; 2]>,
}

/// Why a right side cannot be made.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// A function does not apply, or a condition does not hold.
    NoMatch,
    /// An operator on the right does not accept its operands, or the types of the sides differ: the rule is wrong.
    Wrong(String),
}

#[derive(Clone)]
enum Val {
    Attr(Arc<Attr>),
    Stream(Ref),
    List(Vec<Ref>),
}

/// The facts of a class, as an argument.
pub fn stream_of(data: &Data, class: Id) -> Option<Stream> {
    let Kind::Value(ty) = &data.kind else { return None };
    Some(Stream {
        ty: ty.clone(),
        constant: data.constant,
        splat: data.splat,
        class: Some(class),
    })
}

struct Maker<'a> {
    eg: &'a EGraph,
    law: &'a Law,
    found: &'a Match,
    new: NewTerms,
    locals: Vec<Val>,
}

/// The right sides of a rule for a match, when its conditions hold.
///
/// # Errors
/// See [`Refusal`].
pub fn replacement(eg: &EGraph, law: &Law, found: &Match) -> Result<Replacement, Refusal> {
    let mut m = Maker::new(eg, law, found);
    for &i in &law.late {
        if !m.holds(&law.conditions[i])? {
            return Err(Refusal::NoMatch);
        }
    }
    let mut roots = smallvec![];
    for (side, class) in law.sides.iter().zip(&found.roots) {
        let root = match m.value(&side.right)? {
            Val::Stream(r) => r,
            _ => return Err(Refusal::Wrong("the right side is an attribute or a list".into())),
        };
        let found = m.stream(root);
        if let Kind::Value(want) = &eg[*class].data.kind
            && found.ty != *want
        {
            // Under symbols two equal extents may be written differently: then the rule is not wrong, only of no use here.
            let known = |t: &Type| t.shape.iter().all(|d| d.as_const().is_some());
            return Err(if known(&found.ty) && known(want) {
                Refusal::Wrong(format!("the left side has type {want}, the right side {}", found.ty))
            } else {
                Refusal::NoMatch
            });
        }
        roots.push(root);
    }
    Ok(Replacement { new: m.new, roots })
}

/// The first of a rule's conditions that does not hold where its pattern matches; `None` where all hold.
pub fn first_refused(eg: &EGraph, law: &Law, found: &Match) -> Option<usize> {
    let mut m = Maker::new(eg, law, found);
    (law.late.iter().copied()).find(|&i| m.holds(&law.conditions[i]) != Ok(true))
}

impl<'a> Maker<'a> {
    fn new(eg: &'a EGraph, law: &'a Law, found: &'a Match) -> Maker<'a> {
        Maker {
            eg,
            law,
            found,
            new: NewTerms::default(),
            locals: vec![],
        }
    }

    fn stream(&self, r: Ref) -> Stream {
        match r {
            Ref::Class(id) => stream_of(&self.eg[id].data, id).expect("a variable of streams is bound to one"),
            Ref::New(i) => self.new.terms[i].1.clone(),
        }
    }

    fn holds(&mut self, c: &Cond) -> Result<bool, Refusal> {
        match c {
            Cond::Not(c) => Ok(!self.holds(c)?),
            Cond::Equal(a, b) => match (self.argument(a)?, self.argument(b)?) {
                (Arg::Attr(a), Arg::Attr(b)) => {
                    Ok(a == b || Arg::Attr(a).dims().is_some_and(|x| Some(x) == Arg::Attr(b).dims()))
                }
                _ => Err(Refusal::Wrong("`=` compares attributes".into())),
            },
            Cond::Is(p, args) => {
                let args: Result<Vec<Arg>, Refusal> = args.iter().map(|a| self.argument(a)).collect();
                Ok((p.run)(self.eg, &args?).unwrap_or(false))
            }
        }
    }

    fn argument(&mut self, e: &Expr) -> Result<Arg, Refusal> {
        Ok(match self.value(e)? {
            Val::Attr(a) => Arg::Attr(a),
            Val::Stream(r) => Arg::Stream(self.stream(r)),
            Val::List(l) => Arg::List(l.into_iter().map(|r| self.stream(r)).collect()),
        })
    }

    fn value(&mut self, e: &Expr) -> Result<Val, Refusal> {
        match e {
            Expr::Lit(a) => Ok(Val::Attr(a.clone())),
            Expr::Var(i) => self.variable(*i),
            Expr::Call(f, args) => {
                let args: Result<Vec<Arg>, Refusal> = args.iter().map(|a| self.argument(a)).collect();
                (f.run)(&args?).map(|a| Val::Attr(Arc::new(a))).ok_or(Refusal::NoMatch)
            }
            Expr::Dense(x, like) => {
                let Arg::Stream(like) = self.argument(like)? else {
                    return Err(Refusal::Wrong("`dense` takes the dtype of a stream".into()));
                };
                let x = x.tensor(like.ty.dtype);
                let stream = Stream {
                    ty: Arc::new(Type::fixed(x.dtype(), x.shape())),
                    constant: true,
                    splat: x.as_splat(),
                    class: None,
                };
                self.new.terms.push((NewTerm::Dense(x), stream));
                Ok(Val::Stream(Ref::New(self.new.terms.len() - 1)))
            }
            Expr::Splat(x, like) => self.splat(x, like),
            Expr::SplatIn(x, dtype, shape) => {
                let shape = self.argument(shape)?.dims().ok_or(Refusal::NoMatch)?;
                let Arg::Stream(d) = self.argument(dtype)? else {
                    return Err(Refusal::Wrong("`splat` takes the dtype of a stream".into()));
                };
                let x = self.argument(x)?.number().ok_or(Refusal::NoMatch)?;
                self.spread(x.to(d.ty.dtype), &Type::new(d.ty.dtype, shape))
            }
            Expr::Nil => Ok(Val::List(vec![])),
            Expr::Cons(a, b) => match (self.value(a)?, self.value(b)?) {
                (Val::Stream(a), Val::List(b)) => Ok(Val::List([vec![a], b].concat())),
                _ => Err(Refusal::Wrong("`cons` takes a stream and a list".into())),
            },
            Expr::Each(list, body) => {
                let Val::List(items) = self.value(list)? else {
                    return Err(Refusal::Wrong("`each` takes a list".into()));
                };
                let mut out = vec![];
                for item in items {
                    self.locals.push(Val::Stream(item));
                    let v = self.value(body);
                    self.locals.pop();
                    match v? {
                        Val::Stream(r) => out.push(r),
                        _ => return Err(Refusal::Wrong("`each` makes streams".into())),
                    }
                }
                Ok(Val::List(out))
            }
            Expr::Op(head, args) => {
                let id = match head {
                    Head::Op(id) => *id,
                    Head::Family(f) => self.found.ops[*f].expect("a match binds every family"),
                };
                let n = id.def().attrs().len();
                let mut attrs: SmallVec<[Attr; 2]> = smallvec![];
                let mut operands: Vec<Ref> = vec![];
                for (i, a) in args.iter().enumerate() {
                    match self.value(a)? {
                        Val::Attr(a) if i < n => attrs.push((*a).clone()),
                        Val::Stream(r) if i >= n => operands.push(r),
                        Val::List(l) if i >= n => operands.extend(l),
                        _ => {
                            return Err(Refusal::Wrong(format!(
                                "argument {i} of {} is of the wrong sort",
                                id.name()
                            )));
                        }
                    }
                }
                // A list of integers may stand for dims.
                for (a, (_, kind)) in attrs.iter_mut().zip(id.def().attrs()) {
                    if *kind == brolga_ir::ops::AttrKind::Dims
                        && let Attr::Ints(v) = a
                    {
                        *a = Attr::dims(v);
                    }
                }
                let op = Op::of(id.def(), attrs).map_err(Refusal::Wrong)?;
                self.add(op, operands).map(Val::Stream)
            }
        }
    }

    fn variable(&self, i: usize) -> Result<Val, Refusal> {
        let n = self.law.vars.len();
        if i >= n {
            return Ok(self.locals[i - n].clone());
        }
        let id = self.eg.find(self.found.vars[i].expect("a match binds every variable"));
        Ok(match &self.eg[id].data.kind {
            Kind::Attr(a) => Val::Attr(a.clone()),
            Kind::List(_) => Val::List(list_items(self.eg, id).into_iter().map(Ref::Class).collect()),
            Kind::Value(_) => Val::Stream(Ref::Class(id)),
            Kind::Tuple(_) => return Err(Refusal::NoMatch),
        })
    }

    fn splat(&mut self, x: &Expr, like: &Expr) -> Result<Val, Refusal> {
        let Arg::Stream(like) = self.argument(like)? else {
            return Err(Refusal::Wrong("`splat` takes the type of a stream".into()));
        };
        let x = match self.argument(x)? {
            Arg::Stream(s) => s.splat.ok_or(Refusal::NoMatch)?,
            a => a.number().ok_or(Refusal::NoMatch)?.to(like.ty.dtype),
        };
        self.spread(x, &like.ty.clone())
    }

    fn spread(&mut self, x: Number, ty: &Type) -> Result<Val, Refusal> {
        let scalar = Stream {
            ty: Arc::new(Type::new(ty.dtype, vec![])),
            constant: true,
            splat: Some(x),
            class: None,
        };
        self.new
            .terms
            .push((NewTerm::Number(Term::scalar(ty.dtype, x)), scalar));
        let mut r = Ref::New(self.new.terms.len() - 1);
        let op = |name, shape: Vec<Dim>| Op::new(name, &[Attr::Dims(shape)]).map_err(Refusal::Wrong);
        if ty.rank() > 0 {
            r = self.add(op("reshape", vec![Dim::ONE; ty.rank()])?, vec![r])?;
            if ty.shape.iter().any(|d| !d.is(1)) {
                r = self.add(op("broadcast", ty.shape.clone())?, vec![r])?;
            }
        }
        Ok(Val::Stream(r))
    }

    fn add(&mut self, op: Op, operands: Vec<Ref>) -> Result<Ref, Refusal> {
        let streams: Vec<Stream> = operands.iter().map(|&r| self.stream(r)).collect();
        let types: Vec<Type> = streams.iter().map(|s| (*s.ty).clone()).collect();
        let symbolic = types.iter().any(|t| t.shape.iter().any(|d| d.as_const().is_none()));
        let out = match op.infer(&types) {
            Ok(mut t) if t.len() == 1 => t.remove(0),
            Ok(_) => return Err(Refusal::Wrong(format!("{} has several results", op.name()))),
            Err(_) if symbolic => return Err(Refusal::NoMatch),
            Err(e) => {
                return Err(Refusal::Wrong(format!(
                    "what it makes is not valid: {}: {e}",
                    op.name()
                )));
            }
        };
        let constant = streams.iter().all(|s| s.constant);
        let splats: Vec<Option<Number>> = streams.iter().map(|s| s.splat).collect();
        let splat = super::lang::splat_of(&op, &splats, &types, &out);
        let stream = Stream {
            ty: Arc::new(out),
            constant,
            splat,
            class: None,
        };
        self.new.terms.push((NewTerm::Op(op, operands), stream));
        Ok(Ref::New(self.new.terms.len() - 1))
    }
}

/// True unless a rule that is no exact one would round 16-bit floats elsewhere than the operators of the model do: every
/// result of type f16 or bf16 is rounded to it, whatever it is fused with. Rules that only change in which order one
/// operator sums have no arithmetic besides that operator, and go on.
pub fn keeps_roundings(eg: &EGraph, rule: &Rule, found: &Match, right: &Replacement) -> bool {
    let narrow = |t: &Type| t.dtype.is_half();
    let Some(law) = rule.law.as_ref().filter(|_| rule.exactness != Exactness::Exact) else {
        return true;
    };
    let made = || right.new.terms.iter().zip(right.needed());
    let is_narrow = |class: &Id| matches!(&eg[*class].data.kind, Kind::Value(t) if narrow(t));
    let touched = found.roots.iter().any(is_narrow) || made().any(|((_, s), needed)| needed && narrow(&s.ty));
    if !touched {
        return true;
    }
    let is_map = |def: &dyn OpDef| def.role().function().is_some();
    let mut arithmetic = !law.families.is_empty() && law.families.iter().flatten().any(|op| is_map(op.def()));
    law.for_each_op(&mut |op| arithmetic |= is_map(op.def()));
    let new = made().any(|((term, _), needed)| matches!(term, NewTerm::Op(op, _) if needed && is_map(op.def())));
    !arithmetic && !new
}

impl Replacement {
    /// Adds the terms that the results need to the e-graph; gives the class of each.
    pub fn add_to(&self, eg: &mut EGraph) -> SmallVec<[Id; 2]> {
        let needed = self.needed();
        let mut ids: Vec<Option<Id>> = vec![None; self.new.terms.len()];
        let id_of = |ids: &[Option<Id>], r: Ref| match r {
            Ref::Class(id) => id,
            Ref::New(i) => ids[i].expect("operands come first"),
        };
        for (i, (term, _)) in self.new.terms.iter().enumerate() {
            if !needed[i] {
                continue;
            }
            ids[i] = Some(match term {
                NewTerm::Number(t) => {
                    let t = eg.add(t.clone());
                    eg.add(Term::Load([t]))
                }
                NewTerm::Dense(x) => {
                    let constant = Term::Const(eg.analysis.constant(x));
                    let t = eg.add(constant);
                    eg.add(Term::Load([t]))
                }
                NewTerm::Op(op, operands) => {
                    let operands: Vec<Id> = operands.iter().map(|&r| id_of(&ids, r)).collect();
                    add_op(eg, op, &operands)
                }
            });
        }
        self.roots.iter().map(|&r| id_of(&ids, r)).collect()
    }

    /// The terms of the results where they are in an e-graph: for each an e-node, or `None` for a class that was there before; nothing
    /// where a term is not in it.
    pub fn find_in(&self, eg: &EGraph) -> Option<SmallVec<[Option<Term>; 2]>> {
        let needed = self.needed();
        let mut found: Vec<Option<(Id, Term)>> = vec![None; self.new.terms.len()];
        let look = |t: Term| eg.lookup(t.clone()).map(|id| (id, t));
        for (i, (term, _)) in self.new.terms.iter().enumerate().filter(|(i, _)| needed[*i]) {
            found[i] = Some(match term {
                NewTerm::Number(t) => look(Term::Load([look(t.clone())?.0]))?,
                NewTerm::Dense(x) => {
                    let at = eg.analysis.position(x)?;
                    look(Term::Load([look(Term::Const(at))?.0]))?
                }
                NewTerm::Op(op, operands) => {
                    let operands: Option<Vec<Id>> = operands
                        .iter()
                        .map(|r| match r {
                            Ref::Class(id) => Some(*id),
                            Ref::New(j) => found[*j].as_ref().map(|(id, _)| *id),
                        })
                        .collect();
                    look(find_op(eg, op, &operands?)?)?
                }
            });
        }
        let root = |r: &Ref| match r {
            Ref::Class(_) => None,
            Ref::New(i) => found[*i].clone().map(|(_, t)| t),
        };
        Some(self.roots.iter().map(root).collect())
    }

    /// Which terms the results need: some are made only for their types.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.new.terms.len()];
        for r in &self.roots {
            if let Ref::New(i) = r {
                needed[*i] = true;
            }
        }
        for i in (0..needed.len()).rev() {
            if let (true, (NewTerm::Op(_, operands), _)) = (needed[i], &self.new.terms[i]) {
                for r in operands {
                    if let Ref::New(j) = r {
                        needed[*j] = true;
                    }
                }
            }
        }
        needed
    }
}

/// A rule that is wrong.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("rule `{rule}` ({origin}): {message}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// Where it stands.
    pub origin: String,
    /// What is wrong.
    pub message: String,
}

impl RuleError {
    /// An error of a rule.
    pub fn new(rule: &Rule, message: String) -> RuleError {
        RuleError {
            rule: rule.name.clone(),
            origin: rule.origin.clone(),
            message,
        }
    }
}
