//! The e-graph's language: one generic e-node, and the facts known of every e-class.
//!
//! Two sorts of values: a *tensor* is in memory (a graph input, a constant, what a host operator gives, a `store`); a
//! *stream* is an element-wise view. Every operator takes streams to a stream; `load` and `store` are the cuts. A host
//! operator takes tensors to a tensor. An operator with several results gives a tuple of them. Attributes are leaf children, before
//! the operands; the operands of an operator of any number of operands are one cons-list.
//!
//! ```text
//! relu(conv(x, w))  -->  (store (relu (load (store (conv … (load x) (load w))))))
//! ```
//!
//! Invariant: the terms of a class have one type; a rule that would merge two types is refused before it does.

use brolga_ir::ops::Role;
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Graph, Number, Op, Tensor, Type, decode, encode, ops};
use egg::{Analysis, DidMerge, Id, Language};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::sync::{Arc, LazyLock};

/// The e-graph.
pub type EGraph = egg::EGraph<Term, Facts>;

/// An operator: its position in [`ops::all`], which is sorted by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(u16);

/// What is known of an operator's operands and results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arity {
    /// The number of operands; `None` for any number.
    pub operands: Option<usize>,
    /// The number of results.
    pub results: usize,
}

static ARITIES: LazyLock<Vec<Arity>> = LazyLock::new(|| {
    let arity = |def: &&'static dyn ops::OpDef| {
        let (operands, results) = def.arity();
        Arity {
            operands: (!def.is_variadic()).then_some(operands),
            results,
        }
    };
    ops::all().iter().map(arity).collect()
});

impl OpId {
    /// The operator of a name.
    pub fn of(name: &str) -> Option<OpId> {
        ops::position(name).map(|i| OpId(i as u16))
    }
    /// The operator's position.
    pub fn index(self) -> usize {
        self.0 as usize
    }
    /// The operator's definition.
    pub fn def(self) -> &'static dyn ops::OpDef {
        ops::all()[self.index()]
    }
    /// The operator's name.
    pub fn name(self) -> &'static str {
        self.def().name()
    }
    /// The numbers of operands and results.
    pub fn arity(self) -> Arity {
        ARITIES[self.index()]
    }
}

/// The children of an operator's term.
pub type Children = SmallVec<[Id; 4]>;

/// An e-node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Term {
    /// An operator: attributes, then operands.
    Op(OpId, Children),
    /// An attribute.
    Attr(Arc<Attr>),
    /// The graph's input of this position (tensor).
    Input(u32),
    /// The constant of this position (tensor): the graph's, then those that rules make.
    Const(u32),
    /// A constant of rank 0: dtype and bits (tensor).
    Scalar(DType, u64),
    /// A tensor as a stream.
    Load([Id; 1]),
    /// A stream, in memory.
    Store([Id; 1]),
    /// The empty list.
    Nil,
    /// A stream (or tensor) before a list.
    Cons([Id; 2]),
    /// A result of an operator with several.
    Proj(u32, [Id; 1]),
}

impl Term {
    /// A rank-0 constant.
    pub fn scalar(dtype: DType, x: Number) -> Term {
        let mut bytes = [0; 8];
        encode(dtype, x, &mut bytes[..dtype.bytes()]);
        Term::Scalar(dtype, u64::from_le_bytes(bytes))
    }
    /// An attribute.
    pub fn attr(a: Attr) -> Term {
        Term::Attr(Arc::new(a))
    }
    fn kind(&self) -> u8 {
        match self {
            Term::Op(..) => 0,
            Term::Attr(_) => 1,
            Term::Input(_) => 2,
            Term::Const(_) => 3,
            Term::Scalar(..) => 4,
            Term::Load(_) => 5,
            Term::Store(_) => 6,
            Term::Nil => 7,
            Term::Cons(_) => 8,
            Term::Proj(..) => 9,
        }
    }
}

/// The value of a [`Term::Scalar`].
pub fn scalar_value(dtype: DType, bits: u64) -> Number {
    decode(dtype, &bits.to_le_bytes()[..dtype.bytes()])
}

impl Language for Term {
    type Discriminant = (u8, u16, u32);

    fn discriminant(&self) -> Self::Discriminant {
        match self {
            Term::Op(op, c) => (0, op.0, c.len() as u32),
            Term::Proj(i, _) => (self.kind(), 0, *i),
            _ => (self.kind(), 0, 0),
        }
    }
    fn matches(&self, other: &Term) -> bool {
        match (self, other) {
            (Term::Op(a, x), Term::Op(b, y)) => a == b && x.len() == y.len(),
            (Term::Proj(i, _), Term::Proj(j, _)) => i == j,
            (Term::Load(_), Term::Load(_)) | (Term::Store(_), Term::Store(_)) | (Term::Cons(_), Term::Cons(_)) => true,
            (Term::Load(_) | Term::Store(_) | Term::Cons(_) | Term::Op(..) | Term::Proj(..), _) => false,
            _ => self == other,
        }
    }
    fn children(&self) -> &[Id] {
        match self {
            Term::Op(_, c) => c,
            Term::Load(c) | Term::Store(c) | Term::Proj(_, c) => c,
            Term::Cons(c) => c,
            _ => &[],
        }
    }
    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Term::Op(_, c) => c,
            Term::Load(c) | Term::Store(c) | Term::Proj(_, c) => c,
            Term::Cons(c) => c,
            _ => &mut [],
        }
    }
}

/// What the terms of a class are.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// An attribute.
    Attr(Arc<Attr>),
    /// A stream or a tensor of a type.
    Value(Arc<Type>),
    /// The results of an operator with several.
    Tuple(Vec<Type>),
    /// A list of this many streams. Their types are those of the items: kept in every tail, they would be quadratic.
    List(usize),
}

/// Positions of graph nodes, sorted, without repetitions.
pub type Origins = SmallVec<[u32; 2]>;

/// How many origins a class remembers: enough to say what was merged, bounded so that merging stays cheap.
pub(super) const MAX_ORIGINS: usize = 4;

/// The facts known of a class.
#[derive(Clone, Debug)]
pub struct Data {
    /// What its terms are.
    pub kind: Kind,
    /// True when no input is needed to compute it and its extents are known.
    pub constant: bool,
    /// The value that all elements have, when known.
    pub splat: Option<Number>,
    /// True for a stream, false for what is in memory.
    pub stream: bool,
    /// The nodes of the source graph that it came from.
    pub origins: Origins,
}

impl Data {
    /// The type of a stream or tensor; panics for anything else, which well-sorted terms do not ask for.
    pub fn ty(&self) -> &Arc<Type> {
        match &self.kind {
            Kind::Value(t) => t,
            k => panic!("a value was expected, found {k:?}"),
        }
    }
    /// The attribute, if it is one.
    pub fn attr(&self) -> Option<&Arc<Attr>> {
        match &self.kind {
            Kind::Attr(a) => Some(a),
            _ => None,
        }
    }
}

/// What is known of a constant.
struct Leaf {
    ty: Arc<Type>,
    splat: Option<Number>,
    /// The elements of a small one.
    small: Option<Tensor>,
}

impl Leaf {
    fn new(c: &Constant) -> Leaf {
        let small = c.ty.len().as_const().is_some_and(|n| n <= SMALL);
        Leaf {
            ty: Arc::new(c.ty.clone()),
            splat: c.as_splat().map(|x| x.to(c.ty.dtype)),
            small: small.then(|| c.to_tensor()),
        }
    }
}

/// The most elements of constants that are compared with others, and with those of rules.
const SMALL: i64 = 4096;

/// The analysis: types, constants and origins.
#[derive(Default)]
pub struct Facts {
    inputs: Vec<Arc<Type>>,
    constants: Vec<Leaf>,
    /// The origins that newly made classes get.
    pub current: Origins,
    /// The operators that occur.
    pub ops: FxHashSet<OpId>,
    /// The classes that were made or changed since this was last emptied.
    pub changed: Vec<Id>,
    /// Classes that are one number everywhere, with that number's own: each pair was merged, in this order.
    pub numbers: Vec<(Id, Id)>,
    /// The first contradiction met, which only an unsound term can cause.
    pub failure: Option<String>,
}

impl Facts {
    /// The facts of a graph's leaves.
    pub fn new(g: &Graph) -> Facts {
        Facts {
            inputs: g.inputs.iter().map(|i| Arc::new(g.ty(i.value).clone())).collect(),
            constants: g.constants.iter().map(Leaf::new).collect(),
            ..Facts::default()
        }
    }

    /// The elements of a constant, where they are few.
    pub fn elements(&self, constant: u32) -> Option<&Tensor> {
        self.constants[constant as usize].small.as_ref()
    }

    /// The position of the first constant with these elements.
    pub fn position(&self, x: &Tensor) -> Option<u32> {
        let same = |l: &Leaf| {
            let equal = |t: &Tensor| t.dtype() == x.dtype() && t.shape() == x.shape() && t.bytes() == x.bytes();
            l.small.as_ref().is_some_and(equal)
        };
        self.constants.iter().position(same).map(|at| at as u32)
    }

    /// The position of the first constant with these elements; a new one where there is none.
    pub fn constant(&mut self, x: &Tensor) -> u32 {
        self.position(x).unwrap_or_else(|| {
            self.constants.push(Leaf::new(&dense_constant(x.clone())));
            self.constants.len() as u32 - 1
        })
    }
}

/// The types of the operands of an operator's term: lists are spread out.
pub fn operand_types(eg: &EGraph, operands: &[Id]) -> Vec<Type> {
    let mut out = vec![];
    for &id in operands {
        match &eg[id].data.kind {
            Kind::Value(t) => out.push((**t).clone()),
            Kind::List(_) => out.extend(list_items(eg, id).into_iter().map(|c| (**eg[c].data.ty()).clone())),
            Kind::Attr(_) | Kind::Tuple(_) => {}
        }
    }
    out
}

/// The operator, with its attributes, of a term's head.
///
/// # Errors
/// When a child in an attribute's place is none, or of the wrong kind.
pub fn op_of(eg: &EGraph, op: OpId, children: &[Id]) -> Result<Op, String> {
    let n = op.def().attrs().len();
    let attrs: Option<_> = children[..n]
        .iter()
        .map(|&c| eg[c].data.attr().map(|a| (**a).clone()))
        .collect();
    let attrs = attrs.ok_or_else(|| format!("an operand in the place of an attribute of {}", op.name()))?;
    Op::of(op.def(), attrs)
}

/// The operands of a term's children.
pub fn operands(op: OpId, children: &[Id]) -> &[Id] {
    &children[op.def().attrs().len()..]
}

/// The streams of a list's class, by any of its (equal) terms.
pub fn list_items(eg: &EGraph, mut list: Id) -> Vec<Id> {
    let mut out = vec![];
    loop {
        let cell = eg[list].nodes.iter().find_map(|t| match t {
            Term::Cons(c) => Some(*c),
            _ => None,
        });
        match cell {
            Some([head, tail]) => {
                out.push(head);
                list = tail;
            }
            None => return out,
        }
    }
}

/// The value that an operator's result has everywhere, when its operands' values say so.
pub fn splat_of(op: &Op, splats: &[Option<Number>], types: &[Type], out: &Type) -> Option<Number> {
    if types.is_empty() || out.is_empty() {
        return None;
    }
    match op.role() {
        role if role.keeps_splat() => splats[0],
        Role::Map(_) => {
            let scalars: Option<Vec<Tensor>> = splats
                .iter()
                .zip(types)
                .map(|(s, t)| Some(Tensor::scalar(t.dtype, (*s)?)))
                .collect();
            Some(op.eval(&scalars?).ok()?[0].get(0))
        }
        _ => None,
    }
}

fn make_op(eg: &EGraph, op: OpId, children: &[Id]) -> Result<(Kind, bool, Option<Number>), String> {
    let built = op_of(eg, op, children)?;
    let ids = operands(op, children);
    let types = operand_types(eg, ids);
    let mut outs = built.infer(&types).map_err(|e| format!("{}: {e}", op.name()))?;
    let host = op.def().is_step();
    let known = outs.iter().all(|t| t.shape.iter().all(|d| d.as_const().is_some())) && built.is_concrete();
    let constant = known && !host && ids.iter().all(|&c| eg[c].data.constant);
    if outs.len() != 1 {
        return Ok((Kind::Tuple(outs), constant, None));
    }
    let out = outs.remove(0);
    let splats: Vec<Option<Number>> = ids.iter().map(|&c| eg[c].data.splat).collect();
    let splat = splat_of(&built, &splats, &types, &out);
    Ok((Kind::Value(Arc::new(out)), constant, splat))
}

impl Analysis<Term> for Facts {
    type Data = Data;

    fn make(eg: &mut EGraph, term: &Term, _: Id) -> Data {
        let value = |ty: Arc<Type>, constant, splat| (Kind::Value(ty), constant, splat);
        let (kind, constant, splat) = match term {
            Term::Attr(a) => (Kind::Attr(a.clone()), true, None),
            Term::Input(i) => value(eg.analysis.inputs[*i as usize].clone(), false, None),
            Term::Const(i) => {
                let leaf = &eg.analysis.constants[*i as usize];
                value(leaf.ty.clone(), true, leaf.splat)
            }
            Term::Scalar(dtype, bits) => value(
                Arc::new(Type::new(*dtype, vec![])),
                true,
                Some(scalar_value(*dtype, *bits)),
            ),
            Term::Load([x]) | Term::Store([x]) => {
                let d = &eg[*x].data;
                (d.kind.clone(), d.constant, d.splat)
            }
            Term::Nil => (Kind::List(0), true, None),
            Term::Cons([head, tail]) => {
                let (h, t) = (&eg[*head].data, &eg[*tail].data);
                let rest = if let Kind::List(n) = t.kind { n } else { 0 };
                (Kind::List(rest + 1), h.constant && t.constant, None)
            }
            Term::Proj(i, [x]) => {
                let d = &eg[*x].data;
                let ty = match &d.kind {
                    Kind::Tuple(ts) => ts[*i as usize].clone(),
                    _ => Type::new(DType::Bool, vec![]),
                };
                value(Arc::new(ty), d.constant, None)
            }
            Term::Op(op, children) => {
                eg.analysis.ops.insert(*op);
                make_op(eg, *op, children).unwrap_or_else(|e| {
                    eg.analysis.failure.get_or_insert(e);
                    value(Arc::new(Type::new(DType::Bool, vec![])), false, None)
                })
            }
        };
        Data {
            kind,
            constant,
            splat,
            stream: match term {
                Term::Input(_) | Term::Const(_) | Term::Scalar(..) | Term::Store(_) => false,
                Term::Op(op, _) => !op.def().is_step(),
                Term::Proj(_, [x]) => eg[*x].data.stream,
                Term::Load(_) | Term::Attr(_) | Term::Nil | Term::Cons(_) => true,
            },
            origins: eg.analysis.current.clone(),
        }
    }

    fn merge(&mut self, to: &mut Data, from: Data) -> DidMerge {
        if to.kind != from.kind {
            self.failure
                .get_or_insert_with(|| format!("{:?} was merged with {:?}", to.kind, from.kind));
        }
        let constant = to.constant || from.constant;
        let splat = to.splat.or(from.splat);
        let changed = DidMerge(
            to.constant != constant || to.splat.is_some() != splat.is_some(),
            from.constant != constant || from.splat.is_some() != splat.is_some(),
        );
        (to.constant, to.splat) = (constant, splat);
        for o in from.origins {
            if let Err(at) = to.origins.binary_search(&o) {
                to.origins.insert(at, o);
            }
        }
        to.origins.truncate(MAX_ORIGINS);
        changed
    }

    /// Streams of one value everywhere are one class for every type and value.
    fn modify(eg: &mut EGraph, id: Id) {
        eg.analysis.changed.push(id);
        let d = &eg[id].data;
        if let (Some(x), Kind::Value(ty), true) = (d.splat, &d.kind, d.stream) {
            let ty = ty.clone();
            let scalar = eg.add(Term::scalar(ty.dtype, x));
            let mut spread = eg.add(Term::Load([scalar]));
            let mut steps = vec![];
            if ty.rank() > 0 {
                steps.push(("reshape", vec![Dim::ONE; ty.rank()]));
                if ty.shape.iter().any(|d| !d.is(1)) {
                    steps.push(("broadcast", ty.shape.clone()));
                }
            }
            for (name, shape) in steps {
                let attr = eg.add(Term::attr(Attr::Dims(shape)));
                let op = OpId::of(name).expect("it is an operator");
                spread = eg.add(Term::Op(op, [attr, spread].into_iter().collect()));
            }
            if eg.union(id, spread) {
                eg.analysis.numbers.push((id, spread));
            }
        }
    }
}

/// The value that a constant has everywhere, as the graph constant of a type.
pub fn splat_constant(ty: &Type, x: Number) -> Constant {
    Constant {
        ty: ty.clone(),
        data: ConstData::Splat(x),
    }
}

/// Elements as a graph's constant.
pub fn dense_constant(x: Tensor) -> Constant {
    Constant {
        ty: Type::fixed(x.dtype(), x.shape()),
        data: ConstData::Dense(x),
    }
}
