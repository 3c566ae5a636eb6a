//! What saturation did, in terms that stay.
//!
//! Classes merge, and what a rule was applied to is soon one of many equal terms. The journal keeps every term that there was, as the
//! value of a graph of its own, and of every step what it says: that one term equals another. Loads and stores change no value and are
//! left out. Everything that an e-graph knows follows from the steps by congruence alone ([`closure`](crate::closure)), so
//! that they are the whole of its reasons.

use super::apply::{NewTerm, Ref, Replacement};
use super::build::Built;
use super::lang::{EGraph, Kind, OpId, Term, list_items, scalar_value};
use super::matching::{Match, is_matrix, is_number_at};
use super::rules::{Head, Law, Pat, RuleSet};
use super::saturate::{Report, Watch, saturate_watched};
use super::schedule::Course;
use brolga_ir::{Attr, Constant, DType, Dim, Graph, Number, Op, Tensor, Type, Value};
use egg::{Id, Language};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// Why two terms are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The rule at this position says so.
    Rule(usize),
    /// An operator is what it is defined as.
    Decompose,
    /// What is computed from numbers is a number.
    Number,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Why.
    pub reason: Reason,
    /// The round, from 1.
    pub round: usize,
    /// The terms that are equal, left and right; one pair for each root of a rule.
    pub sides: SmallVec<[(Value, Value); 1]>,
    /// What both sides are over: the terms that variables stand for.
    pub over: Vec<Value>,
    /// Whether it told anything new.
    pub is_news: bool,
    /// The classes that it merged with others; loads and stores are told apart there.
    pub merged: SmallVec<[Id; 1]>,
}

/// What an id of the e-graph stands for.
#[derive(Clone, Debug)]
enum Entry {
    Value(Value),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Attr(Arc<Attr>),
}

type Key = (OpId, SmallVec<[Attr; 2]>, Vec<Value>);

/// The journal of one e-graph.
pub struct Journal {
    /// All terms that there were. Results of nodes are equal where they are one value.
    pub terms: Graph,
    /// The tensor classes of the source graph's values.
    pub tensors: Vec<Id>,
    /// What the values of the source graph are.
    pub sources: Vec<Value>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// For every value the step that first named it; `None` for what the source graph has.
    pub made_by: Vec<Option<usize>>,
    known: FxHashMap<Key, Vec<Value>>,
    scalars: FxHashMap<(DType, u64), Value>,
    /// The source graph's constants, by position, and those that rules made.
    constants: Vec<Constant>,
    constant_values: FxHashMap<u32, Value>,
    dense: Vec<Value>,
    origins: Vec<Arc<str>>,
    /// What every id stands for.
    entries: Vec<Entry>,
    /// How many pairs of [`Facts::numbers`](super::lang::Facts::numbers) are steps.
    numbers: usize,
    round: usize,
}

impl Journal {
    /// The journal of a graph that was just built.
    pub fn new(g: &Graph, built: &Built) -> Journal {
        let mut terms = Graph::new(&g.name);
        for input in &g.inputs {
            terms.input(&input.name, g.ty(input.value).clone());
        }
        terms.symbols.clone_from(&g.symbols);
        terms.guards.clone_from(&g.guards);
        terms.strings.clone_from(&g.strings);
        let mut journal = Journal {
            terms,
            tensors: built.tensors.clone(),
            sources: vec![],
            steps: vec![],
            made_by: vec![],
            known: FxHashMap::default(),
            scalars: FxHashMap::default(),
            constants: g.constants.clone(),
            constant_values: FxHashMap::default(),
            dense: vec![],
            origins: g.nodes.iter().map(|n| n.origin.clone()).collect(),
            entries: vec![],
            numbers: 0,
            round: 1,
        };
        journal.follow(&built.eg);
        let source = |t: &Id| match &journal.entries[usize::from(*t)] {
            Entry::Value(v) => *v,
            e => unreachable!("a tensor is no {e:?}"),
        };
        journal.sources = built.tensors.iter().map(source).collect();
        journal
    }

    /// Saturates the graph that this is the journal of.
    ///
    /// # Errors
    /// When a rule is wrong; the error names it.
    pub fn saturate(&mut self, mut built: Built, set: &RuleSet, course: &Course) -> Result<Report, String> {
        saturate_watched(&mut built.eg, set, course, self).map_err(|e| e.to_string())
    }

    /// The term of an e-node over terms of its operands, without loads and stores.
    pub fn add(&mut self, op: Op, operands: &[Value], origin: &Arc<str>) -> Vec<Value> {
        let id = OpId::of(op.name()).expect("an operator is in the registry");
        let key = (id, op.attrs().into(), operands.to_vec());
        if let Some(found) = self.known.get(&key) {
            return found.clone();
        }
        let made = self
            .terms
            .add(op, operands, origin)
            .expect("the e-graph's terms are typed");
        self.known.insert(key, made.clone());
        self.note();
        made
    }

    /// A number as a value of a type: the form that it has in e-graphs.
    pub fn number(&mut self, ty: &Type, x: Number) -> Value {
        let Term::Scalar(dtype, bits) = Term::scalar(ty.dtype, x) else {
            unreachable!("it is one")
        };
        let mut v = self.scalar(dtype, bits);
        let mut spread = |name, shape| {
            let op = Op::new(name, &[Attr::Dims(shape)]).expect("it is an operator");
            v = self.add(op, &[v], &"".into())[0];
        };
        if ty.rank() > 0 {
            spread("reshape", vec![Dim::ONE; ty.rank()]);
            if ty.shape.iter().any(|d| !d.is(1)) {
                spread("broadcast", ty.shape.clone());
            }
        }
        v
    }

    /// A constant: of the source graph, by its position there, or of an e-graph.
    pub fn constant(&mut self, eg: &EGraph, at: u32) -> Value {
        if let Some(v) = self.constant_values.get(&at) {
            return *v;
        }
        let v = match self.constants.get(at as usize) {
            Some(c) => self.terms.constant(c.clone()),
            None => self.matrix(eg.analysis.elements(at).expect("a rule made it")),
        };
        self.note();
        self.constant_values.insert(at, v);
        v
    }

    /// A number of rank 0.
    pub fn scalar(&mut self, dtype: DType, bits: u64) -> Value {
        let v = *self.scalars.entry((dtype, bits)).or_insert_with(|| {
            let scalar = Tensor::scalar(dtype, scalar_value(dtype, bits));
            self.terms.dense(scalar)
        });
        self.note();
        v
    }

    /// A matrix that a rule made.
    fn matrix(&mut self, x: &Tensor) -> Value {
        let same = |v: &&Value| self.terms.as_constant(**v).is_some_and(|c| c.to_tensor() == *x);
        let found = self.dense.iter().find(same).copied();
        found.unwrap_or_else(|| {
            let v = self.terms.dense(x.clone());
            self.dense.push(v);
            self.note();
            v
        })
    }

    /// What was named first now was so by the step at hand.
    fn note(&mut self) {
        let step = self.steps.len().checked_sub(1);
        self.made_by.resize(self.terms.values.len(), step);
    }

    /// The term of a class that stands in a step: the number that it is, or the first term that it was.
    pub fn value(&mut self, eg: &EGraph, class: Id) -> Value {
        let d = &eg[class].data;
        if let (Some(x), Kind::Value(ty), true) = (d.splat, &d.kind, d.stream) {
            return self.number(&ty.clone(), x);
        }
        match &self.entries[usize::from(class)] {
            Entry::Value(v) => *v,
            e => unreachable!("a stream is no {e:?}"),
        }
    }

    /// Names what was added to the e-graph, and notes what became a number.
    fn follow(&mut self, eg: &EGraph) {
        for id in self.entries.len()..eg.nodes().len() {
            let entry = self.entry(eg, &eg.nodes()[id]);
            self.entries.push(entry);
        }
        while let Some(&(class, number)) = eg.analysis.numbers.get(self.numbers) {
            self.numbers += 1;
            self.became_number(eg, class, number);
        }
    }

    fn entry(&mut self, eg: &EGraph, term: &Term) -> Entry {
        let of = |j: &Journal, c: &Id| j.entries[usize::from(*c)].clone();
        let value = |j: &Journal, c: &Id| match of(j, c) {
            Entry::Value(v) => v,
            e => unreachable!("a stream is no {e:?}"),
        };
        match term {
            Term::Attr(a) => Entry::Attr(a.clone()),
            Term::Input(i) => {
                self.note();
                Entry::Value(self.terms.inputs[*i as usize].value)
            }
            Term::Const(i) => Entry::Value(self.constant(eg, *i)),
            Term::Scalar(dtype, bits) => Entry::Value(self.scalar(*dtype, *bits)),
            Term::Load([c]) | Term::Store([c]) => of(self, c),
            Term::Nil => Entry::List(vec![]),
            Term::Cons([head, tail]) => match of(self, tail) {
                Entry::List(l) => Entry::List([vec![value(self, head)], l].concat()),
                e => unreachable!("a list is no {e:?}"),
            },
            Term::Proj(k, [c]) => match of(self, c) {
                Entry::Tuple(all) => Entry::Value(all[*k as usize]),
                e => unreachable!("results are no {e:?}"),
            },
            Term::Op(id, children) => {
                let (op, operands) = operation(*id, children.iter().map(|c| of(self, c)));
                let origin = match eg.analysis.current.first() {
                    Some(&n) if self.steps.is_empty() => self.origins[n as usize].clone(),
                    _ => "".into(),
                };
                match &self.add(op, &operands, &origin)[..] {
                    [one] => Entry::Value(*one),
                    all => Entry::Tuple(all.to_vec()),
                }
            }
        }
    }

    fn became_number(&mut self, eg: &EGraph, class: Id, number: Id) {
        let Entry::Value(right) = self.entries[usize::from(number)] else {
            return;
        };
        let known = |c: Id| eg[c].data.splat.is_some() || eg[c].data.attr().is_some();
        // Of the terms of the class one over numbers says why, best that which was there first; else what made it does.
        let own = std::iter::once(eg.id_to_node(class)).chain(&eg[class].nodes);
        let over_numbers: Vec<&Term> = own.filter(|t| matches!(t, Term::Op(..)) && t.all(known)).collect();
        let mut left = match self.entries[usize::from(class)] {
            Entry::Value(v) => v,
            _ => return,
        };
        for t in over_numbers {
            let Term::Op(id, children) = t else { continue };
            let parts: Vec<Entry> = children.iter().map(|c| self.class(eg, eg.find(*c))).collect();
            let (op, operands) = operation(*id, parts);
            let term = self.add(op, &operands, &"".into())[0];
            if term != right {
                left = term;
                break;
            }
        }
        let step = self.begin(Reason::Number, vec![]);
        self.finish(step, [(left, right)]);
    }

    /// Begins a step: what is named from here on is so by it. Gives its position.
    fn begin(&mut self, reason: Reason, over: Vec<Value>) -> usize {
        self.steps.push(Step {
            reason,
            round: self.round,
            sides: SmallVec::new(),
            over,
            is_news: false,
            merged: SmallVec::new(),
        });
        self.steps.len() - 1
    }

    /// Says what a step tells.
    fn finish(&mut self, step: usize, sides: impl IntoIterator<Item = (Value, Value)>) {
        let step = &mut self.steps[step];
        step.sides = sides.into_iter().filter(|(a, b)| a != b).collect();
        step.is_news = !step.sides.is_empty();
    }

    /// The term of a left side where it matches at a class.
    fn left(&mut self, eg: &EGraph, found: &Match, pat: &Pat, class: Id) -> Option<Entry> {
        let class = eg.find(class);
        let terms = &eg[class].nodes;
        match pat {
            Pat::Var(i) if eg.find(found.vars[*i]?) != class => None,
            Pat::Var(_) => Some(self.class(eg, class)),
            Pat::Lit(a) => (eg[class].data.attr() == Some(a)).then(|| Entry::Attr(a.clone())),
            Pat::Number(x, near) => is_number_at(eg, class, *x, *near).then(|| self.class(eg, class)),
            Pat::Dense(x) => is_matrix(eg, class, x).then(|| self.class(eg, class)),
            Pat::Load(x) => terms.iter().find_map(|t| match t {
                Term::Load([c]) => self.left(eg, found, x, *c),
                _ => None,
            }),
            Pat::Store(x) => terms.iter().find_map(|t| match t {
                Term::Store([c]) => self.left(eg, found, x, *c),
                _ => None,
            }),
            Pat::Nil => terms.contains(&Term::Nil).then(|| Entry::List(vec![])),
            Pat::Cons(a, b) => terms.iter().find_map(|t| match t {
                Term::Cons([head, tail]) => {
                    let (head, tail) = (self.left(eg, found, a, *head)?, self.left(eg, found, b, *tail)?);
                    match (head, tail) {
                        (Entry::Value(v), Entry::List(l)) => Some(Entry::List([vec![v], l].concat())),
                        _ => None,
                    }
                }
                _ => None,
            }),
            Pat::Op(head, args, either) => terms.iter().find_map(|t| {
                let Term::Op(op, children) = t else { return None };
                let wanted = match head {
                    Head::Op(want) => Some(*want),
                    Head::Family(f) => found.ops[*f],
                };
                if wanted != Some(*op) || children.len() != args.len() {
                    return None;
                }
                let straight = self.arguments(eg, found, args, children);
                let n = children.len();
                let swapped = |j: &mut Journal| {
                    let mut swapped = args.to_vec();
                    swapped.swap(n - 2, n - 1);
                    j.arguments(eg, found, &swapped, children)
                };
                let parts = straight.or_else(|| if *either { swapped(self) } else { None })?;
                let (op, operands) = operation(*op, parts);
                Some(Entry::Value(self.add(op, &operands, &"".into())[0]))
            }),
        }
    }

    /// The terms of arguments, all of which match children.
    fn arguments(&mut self, eg: &EGraph, found: &Match, args: &[Pat], children: &[Id]) -> Option<Vec<Entry>> {
        let pairs = args.iter().zip(children);
        pairs.map(|(a, c)| self.left(eg, found, a, *c)).collect()
    }

    /// What a class stands for in a step.
    fn class(&mut self, eg: &EGraph, class: Id) -> Entry {
        match &eg[class].data.kind {
            Kind::Value(_) => Entry::Value(self.value(eg, class)),
            Kind::List(_) => {
                let items = list_items(eg, class);
                Entry::List(items.into_iter().map(|c| self.value(eg, eg.find(c))).collect())
            }
            Kind::Attr(_) | Kind::Tuple(_) => self.entries[usize::from(class)].clone(),
        }
    }

    /// The terms of right sides.
    fn rights(&mut self, eg: &EGraph, right: &Replacement) -> Vec<Value> {
        let needed = right.needed();
        let mut made: Vec<Option<Value>> = vec![];
        for ((term, _), needed) in right.new.terms.iter().zip(needed) {
            made.push(needed.then(|| match term {
                NewTerm::Number(Term::Scalar(dtype, bits)) => self.scalar(*dtype, *bits),
                NewTerm::Number(t) => unreachable!("{t:?} is no number"),
                NewTerm::Dense(x) => self.matrix(x),
                NewTerm::Op(op, operands) => {
                    let of = |j: &mut Journal, r: &Ref| match r {
                        Ref::Class(c) => j.value(eg, eg.find(*c)),
                        Ref::New(i) => made[*i].expect("operands come first"),
                    };
                    let operands: Vec<Value> = operands.iter().map(|r| of(self, r)).collect();
                    self.add(op.clone(), &operands, &"".into())[0]
                }
            }));
        }
        let root = |j: &mut Journal, r: &Ref| match r {
            Ref::Class(c) => j.value(eg, eg.find(*c)),
            Ref::New(i) => made[*i].expect("roots are needed"),
        };
        right.roots.iter().map(|r| root(self, r)).collect()
    }

    /// The term that every class of a program is, for its e-nodes over those of its operands.
    pub fn program_term(&mut self, eg: &EGraph, term: &Term, op: Option<&Op>, operands: &[Vec<Value>]) -> Vec<Value> {
        match term {
            Term::Input(i) => vec![self.terms.inputs[*i as usize].value],
            Term::Const(i) => vec![self.constant(eg, *i)],
            Term::Scalar(dtype, bits) => vec![self.scalar(*dtype, *bits)],
            Term::Proj(k, _) => vec![operands[0][*k as usize]],
            Term::Op(..) => {
                let operands: Vec<Value> = operands.iter().map(|o| o[0]).collect();
                self.add(op.expect("a term with an operator").clone(), &operands, &"".into())
            }
            Term::Load(_) | Term::Store(_) => operands[0].clone(),
            Term::Attr(_) | Term::Nil | Term::Cons(_) => unreachable!("{term:?} is no value"),
        }
    }

    /// The first value that a class was.
    pub fn first(&self, class: Id) -> Option<Value> {
        match self.entries.get(usize::from(class)) {
            Some(Entry::Value(v)) => Some(*v),
            _ => None,
        }
    }
}

/// An operator with its operands, lists spread out, of what its children stand for.
fn operation(op: OpId, children: impl IntoIterator<Item = Entry>) -> (Op, Vec<Value>) {
    let (mut attrs, mut operands) = (SmallVec::new(), vec![]);
    for child in children {
        match child {
            Entry::Attr(a) => attrs.push((*a).clone()),
            Entry::Value(v) => operands.push(v),
            Entry::List(l) => operands.extend(l),
            Entry::Tuple(_) => unreachable!("no operator takes several results"),
        }
    }
    let op = Op::of(op.def(), attrs).expect("the e-graph's terms are well-sorted");
    (op, operands)
}

impl Watch for Journal {
    fn decomposes(&mut self, eg: &EGraph, op: &Op, operands: &[Id], definition: &[Id]) {
        let over: Vec<Value> = operands.iter().map(|c| self.value(eg, eg.find(*c))).collect();
        let step = self.begin(Reason::Decompose, over.clone());
        let lefts = self.add(op.clone(), &over, &"".into());
        self.follow(eg);
        let rights: Vec<Value> = definition.iter().filter_map(|c| self.first(*c)).collect();
        self.finish(step, lefts.into_iter().zip(rights));
        self.steps[step].merged.extend_from_slice(definition);
    }

    fn applies(&mut self, eg: &EGraph, (at, law): (usize, &Law), found: &Match, right: &Replacement) {
        self.follow(eg);
        let bound = found.vars.iter().flatten().map(|c| eg.find(*c));
        let mut over = vec![];
        for class in bound {
            match self.class(eg, class) {
                Entry::Value(v) => over.push(v),
                Entry::List(l) => over.extend(l),
                Entry::Attr(_) | Entry::Tuple(_) => {}
            }
        }
        let step = self.begin(Reason::Rule(at), over);
        let mut sides = vec![];
        let rights = self.rights(eg, right);
        for ((side, root), right) in law.sides.iter().zip(&found.roots).zip(rights) {
            match self.left(eg, found, &side.left, *root) {
                Some(Entry::Value(left)) => sides.push((left, right)),
                _ => debug_assert!(false, "a rule matches where it was found"),
            }
        }
        self.finish(step, sides);
        self.steps[step].merged.extend_from_slice(&found.roots);
    }

    fn applied(&mut self, eg: &EGraph, changed: bool) {
        let at = self.steps.iter().rposition(|s| matches!(s.reason, Reason::Rule(_)));
        let step = &mut self.steps[at.expect("it was about to be applied")];
        step.is_news &= changed;
        if !changed {
            step.merged.clear();
        }
        self.follow(eg);
    }

    fn round(&mut self, eg: &EGraph) {
        self.follow(eg);
        self.round += 1;
    }
}
