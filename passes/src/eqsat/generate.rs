//! Random instances of a rule's left sides, for the checker.
//!
//! Types are drawn where nothing fixes them and follow from there: an operator that decides its own type (a contraction, a
//! reduction, a bound variable) is made first, its siblings are then made to fit. What does not fit in the end is no
//! instance; the checker tries the next seed.

use super::functions::Asks;
use super::lang::OpId;
use super::rules::{Allowance, Cond, Expr, Head, Law, Pat, Rule, Side};
use super::sorts::Sort;
use brolga_ir::ops::{Draw, Drawn};
use brolga_ir::{Attr, ConstData, Constant, DType, Def, Dim, Graph, Number, Op, Tensor, Type, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
pub use values::{Source, Values};

mod values;

/// What a variable of the left side was made.
#[derive(Clone, Debug)]
enum Bound {
    Stream(Value),
    Attr(Arc<Attr>),
    List,
}

/// What the conditions ask of a stream variable.
#[derive(Clone, Default)]
struct Hint {
    constant: bool,
    number: Option<Number>,
    any_number: bool,
    positive: bool,
    mean_of: Option<(usize, usize)>,
    rank: Option<usize>,
    /// Never -0.
    never_minus_zero: bool,
    /// Neither negative nor -0.
    nonnegative: bool,
    /// Positions below this extent.
    below: Option<usize>,
}

/// How large instances are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Ranks of shapes that nothing else decides, likelier where they stand more than once.
    pub ranks: &'static [usize],
    /// Extents, likewise.
    pub extents: &'static [usize],
    /// In so many percent of cases an extent is 0.
    pub empty: usize,
}

impl Size {
    /// What a rule is checked on.
    pub const ANY: Size = Size {
        ranks: &[0, 1, 2, 2, 3, 3, 3, 4, 4, 5],
        extents: &[1, 1, 2, 2, 3, 3, 4, 5],
        empty: 1,
    };
}

/// A left side for every root of a rule, in a graph.
#[derive(Clone)]
pub struct Instance {
    /// The graph; it has no outputs.
    pub graph: Graph,
    /// The left sides.
    pub lefts: Vec<Value>,
    /// The values of the graph's inputs.
    pub inputs: Vec<Tensor>,
    /// What elements are.
    pub values: Values,
}

/// Makes one instance.
pub struct Generator {
    draw: Source,
    size: Size,
    g: Graph,
    given: Vec<Tensor>,
    bound: BTreeMap<usize, Bound>,
    hints: BTreeMap<usize, Hint>,
    families: Vec<OpId>,
    dtype: DType,
    /// The variables that are made finite.
    finite: BTreeSet<usize>,
}

impl Generator {
    /// A generator for one attempt at a rule.
    pub fn new(seed: u64, values: Values, size: Size, rule: &Rule, law: &Law) -> Generator {
        Generator::from(Source::new(seed, values), size, rule, law)
    }

    /// A generator that draws from a source.
    pub fn from(draw: Source, size: Size, rule: &Rule, law: &Law) -> Generator {
        let mut g = Generator {
            draw,
            size,
            g: Graph::new("instance"),
            given: vec![],
            bound: BTreeMap::new(),
            hints: BTreeMap::new(),
            families: vec![],
            dtype: DType::F32,
            finite: BTreeSet::new(),
        };
        g.read_conditions(&law.conditions);
        law.sides.iter().for_each(|s| g.read_numbers(&s.right));
        if rule.allows.contains(&Allowance::FiniteWeights) {
            let constants = g.hints.iter().filter(|(_, h)| h.constant || h.any_number);
            g.finite = constants.map(|(v, _)| *v).collect();
            let lefts = law.sides.iter().map(|s| &s.left);
            lefts.for_each(|left| weights(left, false, &mut g.finite));
        }
        g
    }

    /// An instance of a rule's left sides.
    pub fn instance(self, law: &Law) -> Option<Instance> {
        self.draw(law).0
    }

    /// The same, with the source behind it.
    pub fn draw(mut self, law: &Law) -> (Option<Instance>, Source) {
        self.families = law.families.iter().map(|f| self.pick(f)).collect();
        self.dtype = self.pick_dtype(&law.conditions);
        let mut lefts = vec![];
        for Side { left, .. } in &law.sides {
            match self.pattern(left, None) {
                Some(left) => lefts.push(left),
                None => return (None, self.draw),
            }
        }
        let instance = Instance {
            graph: self.g,
            lefts,
            inputs: self.given,
            values: self.draw.values,
        };
        (Some(instance), self.draw)
    }

    fn operator_of(&self, head: Head) -> OpId {
        match head {
            Head::Op(op) => op,
            Head::Family(f) => self.families[f],
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.draw.below(n)
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.draw.chance(percent)
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        self.draw.pick(from)
    }
    fn extent(&mut self) -> usize {
        self.pick(self.size.extents)
    }

    fn pick_dtype(&mut self, conditions: &[Cond]) -> DType {
        use DType::*;
        let asked = |f: fn(Asks) -> Option<&'static [DType]>| {
            conditions.iter().find_map(|c| match c {
                Cond::Is(p, _) => f(p.asks),
                _ => None,
            })
        };
        let of_dtype = asked(|asks| match asks {
            Asks::DType(all) => Some(all),
            _ => None,
        });
        let asked = of_dtype.or_else(|| asked(|asks| (asks == Asks::MeanFactor).then_some(&DType::FLOATS[..])));
        if self.draw.values == Values::Places && asked.is_none_or(|all| all.contains(&I32)) {
            return I32;
        }
        let integers = [I64, I32, I16, I8, U64, U32, U16, U8, Bool];
        let any = [&DType::FLOATS[..], &[F32, F32, F32, F32, F32, F64, F64], &integers].concat();
        self.pick(asked.unwrap_or(&any))
    }

    /// Notes what the conditions ask of variables, so that instances often satisfy them.
    fn read_conditions(&mut self, conditions: &[Cond]) {
        for c in conditions {
            let Cond::Is(p, args) = c else { continue };
            let Some(Expr::Var(i)) = args.first() else { continue };
            let hint = self.hints.entry(*i).or_default();
            match (p.asks, &args[1..]) {
                (Asks::Constant, _) => hint.constant = true,
                (Asks::Number, _) => hint.any_number = true,
                (Asks::Positive, _) => hint.positive = true,
                (Asks::NeverMinusZero, _) => hint.never_minus_zero = true,
                (Asks::Nonnegative, _) => hint.nonnegative = true,
                (Asks::ThisNumber, [Expr::Lit(a)]) => hint.number = super::functions::number(a),
                (Asks::MeanFactor, [Expr::Var(x), Expr::Var(a)]) => hint.mean_of = Some((*x, *a)),
                (Asks::Rank, [Expr::Lit(a)]) => {
                    if let Attr::Int(i) = **a {
                        hint.rank = Some(i as usize);
                    }
                }
                _ => {}
            }
        }
    }

    /// Notes of which streams a right side asks what number they are: it can be made of nothing else.
    fn read_numbers(&mut self, e: &Expr) {
        let number = match e {
            Expr::Splat(x, _) | Expr::SplatIn(x, ..) => Some(&**x),
            Expr::Call(f, args) if f.takes == [Sort::Num] => args.first(),
            _ => None,
        };
        if let Some(Expr::Var(i)) = number {
            self.hints.entry(*i).or_default().any_number = true;
        }
        match e {
            Expr::Var(_) | Expr::Lit(_) | Expr::Nil => {}
            Expr::Op(_, args) | Expr::Call(_, args) => args.iter().for_each(|a| self.read_numbers(a)),
            Expr::Dense(_, like) => self.read_numbers(like),
            Expr::SplatIn(x, like, shape) => [x, like, shape].into_iter().for_each(|a| self.read_numbers(a)),
            Expr::Splat(a, b) | Expr::Each(a, b) | Expr::Cons(a, b) => {
                self.read_numbers(a);
                self.read_numbers(b);
            }
        }
    }

    fn shape(&mut self, rank: Option<usize>) -> Vec<Dim> {
        let rank = rank.unwrap_or_else(|| self.pick(self.size.ranks));
        (0..rank)
            .map(|_| {
                if self.chance(self.size.empty) {
                    Dim::ZERO
                } else {
                    Dim::from(self.extent())
                }
            })
            .collect()
    }

    fn leaf(&mut self, hint: Hint, ty: &Type, finite: bool) -> Option<Value> {
        let splat = |x: Number| Constant {
            ty: ty.clone(),
            data: ConstData::Splat(x.to(ty.dtype)),
        };
        if let Some(x) = hint.number {
            return Some(self.g.constant(splat(x)));
        }
        if let Some((x, axes)) = &hint.mean_of {
            let (Some(Bound::Stream(x)), Some(Bound::Attr(axes))) = (self.bound.get(x), self.bound.get(axes)) else {
                return None;
            };
            let Attr::Ints(axes) = &**axes else { return None };
            let shape = &self.g.ty(*x).shape;
            let count: i64 = axes
                .iter()
                .map(|&a| shape[a as usize].as_const().unwrap_or(1))
                .product();
            let x = 1.0 / count.max(1) as f64;
            return Some(self.g.constant(splat(x.into())));
        }
        if hint.positive {
            let x = self.draw.positive();
            return Some(self.g.constant(splat(x.into())));
        }
        if hint.any_number {
            let x = self.draw.number(ty.dtype, finite);
            return Some(self.g.constant(splat(x)));
        }
        let t = match hint.below {
            Some(n) => self.draw.indices(ty, n)?,
            None => self.draw.tensor(ty, finite)?,
        };
        let signed = !hint.nonnegative && !hint.never_minus_zero;
        if hint.constant || signed && self.chance(20) {
            return Some(self.g.dense(t));
        }
        self.given.push(t);
        let x = self.g.input(&format!("x{}", self.given.len()), ty.clone());
        if hint.nonnegative {
            return self.add(OpId::of("abs")?, &[], &[x]);
        }
        if hint.never_minus_zero && ty.dtype.is_float() {
            let zero = self.g.constant(splat(Number::Float(0.0)));
            return self.add(OpId::of("add")?, &[], &[x, zero]);
        }
        Some(x)
    }

    /// True when the pattern's type is not free: it holds a bound variable or an operator that decides its own type.
    fn natural(&self, p: &Pat) -> bool {
        match p {
            Pat::Var(v) => matches!(self.bound.get(v), Some(Bound::Stream(_) | Bound::List)),
            Pat::Op(head, args, _) => {
                let op = self.operator_of(*head);
                !op.def().follows() || args[op.def().attrs().len()..].iter().any(|a| self.natural(a))
            }
            Pat::Cons(a, b) => self.natural(a) || self.natural(b),
            Pat::Dense(_) => true,
            _ => false,
        }
    }

    fn add(&mut self, op: OpId, attrs: &[Attr], operands: &[Value]) -> Option<Value> {
        let op = Op::new(op.name(), attrs).ok()?;
        Some(self.g.add(op, operands, &"left".into()).ok()?[0])
    }

    fn pattern(&mut self, p: &Pat, want: Option<&Type>) -> Option<Value> {
        match p {
            Pat::Var(i) => {
                if let Some(b) = self.bound.get(i) {
                    return match b {
                        Bound::Stream(v) => Some(*v),
                        _ => None,
                    };
                }
                let rank = self.hints.get(i).and_then(|h| h.rank);
                let ty = match want {
                    Some(t) => t.clone(),
                    None => Type::new(self.dtype, self.shape(rank)),
                };
                let hint = self.hints.get(i).cloned().unwrap_or_default();
                let v = self.leaf(hint, &ty, self.finite.contains(i))?;
                self.bound.insert(*i, Bound::Stream(v));
                Some(v)
            }
            // The rule of fusion: the stream of a tensor that something else reads.
            Pat::Load(_) => {
                let ty = Type::new(DType::F32, self.shape(None));
                let x = self.leaf(Hint::default(), &ty, false)?;
                let neg = OpId::of("neg")?;
                let a = self.add(neg, &[], &[x])?;
                self.add(neg, &[], &[a])?;
                Some(a)
            }
            Pat::Number(x, _) => {
                let hint = Hint {
                    number: Some(*x),
                    ..Hint::default()
                };
                let ty = match want {
                    Some(t) => t.clone(),
                    None => Type::new(self.dtype, self.shape(None)),
                };
                self.leaf(hint, &ty, false)
            }
            Pat::Dense(x) => {
                let dtype = want.map_or(self.dtype, |t| t.dtype);
                Some(self.g.dense(x.tensor(dtype)))
            }
            Pat::Op(head, args, either) => {
                let op = self.operator_of(*head);
                let mut args = args.clone();
                let n = args.len();
                if *either && self.chance(50) {
                    args.swap(n - 1, n - 2);
                }
                let (attrs, operands) = args.split_at(op.def().attrs().len());
                let mut term = Term {
                    generator: self,
                    attrs,
                    operands,
                    rest: None,
                    list: operands.first().unwrap_or(&Pat::Nil),
                };
                let Drawn { attrs, inputs } = op.def().draw(&mut term, want)?;
                self.add(op, &attrs, &inputs)
            }
            _ => None,
        }
    }

    /// An operand of a list that a rule takes as a whole: what a transpose made, or not; rules ask for either.
    fn element(&mut self, want: Option<&Type>) -> Option<Value> {
        let ty = match want {
            Some(t) => t.clone(),
            None => Type::new(self.dtype, self.shape(Some(3))),
        };
        let v = self.leaf(Hint::default(), &ty, false)?;
        if !self.chance(60) {
            return Some(v);
        }
        let perm = [Attr::Ints((0..ty.rank() as i64).rev().collect())];
        let transpose = OpId::of("transpose")?;
        let there = self.add(transpose, &perm, &[v])?;
        self.add(transpose, &perm, &[there])
    }

    /// What an attribute is already, if it is.
    fn fixed(&self, p: &Pat) -> Option<Attr> {
        match p {
            Pat::Lit(a) => Some((**a).clone()),
            Pat::Var(name) => match self.bound.get(name) {
                Some(Bound::Attr(a)) => Some((**a).clone()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// An operator of the pattern, while its instance is drawn.
struct Term<'a> {
    generator: &'a mut Generator,
    attrs: &'a [Pat],
    operands: &'a [Pat],
    /// Operands of a list that is bound as a whole, still to come.
    rest: Option<usize>,
    /// What is left of a list of operands.
    list: &'a Pat,
}

impl Draw for Term<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.generator.below(n)
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.generator.chance(percent)
    }
    fn extent(&mut self) -> usize {
        self.generator.extent()
    }
    fn shape(&mut self, rank: Option<usize>) -> Vec<Dim> {
        self.generator.shape(rank)
    }
    fn dtype(&self) -> DType {
        self.generator.dtype
    }
    fn fixed(&self, attr: usize) -> Option<Attr> {
        self.generator.fixed(&self.attrs[attr])
    }
    fn attr(&mut self, attr: usize, drawn: Attr) -> Option<Attr> {
        let pattern = &self.attrs[attr];
        if let Some(a) = self.generator.fixed(pattern) {
            return Some(a);
        }
        match pattern {
            Pat::Var(name) if !self.generator.bound.contains_key(name) => {
                let bound = Bound::Attr(Arc::new(drawn.clone()));
                self.generator.bound.insert(*name, bound);
                Some(drawn)
            }
            _ => None,
        }
    }
    fn arity(&self) -> usize {
        self.operands.len()
    }
    fn is_natural(&self, operand: usize) -> bool {
        self.generator.natural(&self.operands[operand])
    }
    fn operand(&mut self, operand: usize, want: Option<&Type>) -> Option<Value> {
        self.generator.pattern(&self.operands[operand], want)
    }
    fn next_operand(&mut self, want: Option<&Type>) -> Option<Option<Value>> {
        match self.list {
            Pat::Nil => Some(None),
            Pat::Cons(head, tail) => {
                self.list = tail;
                self.generator.pattern(head, want).map(Some)
            }
            Pat::Var(name) => {
                let left = match self.rest {
                    Some(n) => n,
                    None => 1 + self.below(2),
                };
                self.rest = Some(left.saturating_sub(1));
                if left == 0 {
                    self.generator.bound.insert(*name, Bound::List);
                    return Some(None);
                }
                self.generator.element(want).map(Some)
            }
            _ => None,
        }
    }
    fn indexes(&mut self, operand: usize, n: usize) {
        if let Pat::Var(v) = &self.operands[operand] {
            self.generator.hints.entry(*v).or_default().below = Some(n);
        }
    }
    fn ty(&self, v: Value) -> Type {
        self.generator.g.ty(v).clone()
    }
    fn maker(&self, v: Value) -> Option<(Op, Type)> {
        let g = &self.generator.g;
        let Def::Node(n, _) = g.def(v) else { return None };
        let node = &g.nodes[n as usize];
        Some((node.op.clone(), g.ty(*node.inputs.first()?).clone()))
    }
}

/// The variables of a left side that stand for the weights of contractions and convolutions.
fn weights(p: &Pat, inside: bool, out: &mut BTreeSet<usize>) {
    match p {
        Pat::Var(v) if inside => {
            out.insert(*v);
        }
        Pat::Op(head, args, _) => {
            let (held, first) = match head {
                Head::Op(op) => (op.def().weights(), op.def().attrs().len()),
                Head::Family(_) => (None, 0),
            };
            for (i, a) in args.iter().enumerate() {
                weights(a, inside || held.is_some_and(|w| i == first + w), out);
            }
        }
        _ => {}
    }
}
