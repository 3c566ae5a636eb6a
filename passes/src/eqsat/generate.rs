//! Random instances of a rule's left side, for the checker.
//!
//! Types are drawn where nothing fixes them and follow from there: an operator that decides its own type (a contraction, a
//! reduction, a bound variable) is made first, its siblings are then made to fit. What does not fit in the end is no
//! instance; the checker tries the next seed.

use super::lang::OpId;
use super::rules::{Allowance, Cond, Expr, Head, Law, Pat, Rule};
use brolga_ir::scalar::{self, Rule as MapRule};
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Graph, Number, Op, Tensor, Type, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
pub use values::{Draw, Values};

mod operators;
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

/// Makes one instance.
pub struct Generator {
    draw: Draw,
    g: Graph,
    given: Vec<Tensor>,
    bound: BTreeMap<usize, Bound>,
    hints: BTreeMap<usize, Hint>,
    families: Vec<OpId>,
    dtype: DType,
    /// The variables that are made finite.
    finite: BTreeSet<usize>,
}

const WIDE: [usize; 8] = [1, 1, 2, 2, 3, 3, 4, 5];

impl Generator {
    /// A generator for one attempt at a rule.
    pub fn new(seed: u64, values: Values, rule: &Rule, law: &Law) -> Generator {
        let mut g = Generator {
            draw: Draw::new(seed, values),
            g: Graph::new("instance"),
            given: vec![],
            bound: BTreeMap::new(),
            hints: BTreeMap::new(),
            families: vec![],
            dtype: DType::F32,
            finite: BTreeSet::new(),
        };
        g.read_conditions(&law.conditions, false);
        if rule.allows.contains(&Allowance::FiniteWeights) {
            let constants = g.hints.iter().filter(|(_, h)| h.constant || h.any_number);
            g.finite = constants.map(|(v, _)| *v).collect();
            weights(&law.left, false, &mut g.finite);
        }
        g
    }

    /// The values of an instance's inputs.
    pub fn inputs(&self) -> Vec<Tensor> {
        self.given.clone()
    }

    /// What elements are.
    pub fn values(&self) -> Values {
        self.draw.values
    }

    /// A graph with the left side of a rule, and its value.
    pub fn instance(&mut self, v: &Law) -> Option<(Graph, Value)> {
        self.families = v.families.iter().map(|f| self.pick(f)).collect();
        self.dtype = self.pick_dtype(&v.conditions);
        let root = self.pattern(&v.left, None)?;
        Some((std::mem::take(&mut self.g), root))
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
        self.pick(&WIDE)
    }

    fn pick_dtype(&mut self, conditions: &[Cond]) -> DType {
        let asks = |name: &str| conditions.iter().any(|c| matches!(c, Cond::Is(p, _) if p.name == name));
        use DType::*;
        if asks("is-integer") {
            return self.pick(&[I64, I32, I16, I8, U32, U8]);
        }
        if asks("is-compute") || asks("is-mean-factor") {
            return self.pick(&[F32, F32, F64]);
        }
        if asks("is-float") {
            return self.pick(&[F32, F32, F32, F64, F64, F16, BF16]);
        }
        self.pick(&[F32, F32, F32, F32, F32, F64, F64, F16, BF16, I64, I32, I8, U8, Bool])
    }

    fn read_conditions(&mut self, conditions: &[Cond], negated: bool) {
        for c in conditions {
            match c {
                Cond::Not(c) => self.read_conditions(std::slice::from_ref(c), !negated),
                Cond::Is(p, args) if !negated => {
                    let Some(Expr::Var(i)) = args.first() else { continue };
                    let hint = self.hints.entry(*i).or_default();
                    match (p.name, &args[1..]) {
                        ("is-constant", _) => hint.constant = true,
                        ("is-number" | "is-invertible" | "is-scale", _) => hint.any_number = true,
                        ("is-positive", _) => hint.positive = true,
                        ("never-minus-zero", _) => hint.never_minus_zero = true,
                        ("is-nonnegative", _) => hint.nonnegative = true,
                        ("is-splat", [Expr::Lit(a)]) => {
                            hint.number = super::functions::number(a);
                        }
                        ("is-mean-factor", [Expr::Var(x), Expr::Var(a)]) => hint.mean_of = Some((*x, *a)),
                        ("has-rank", [Expr::Lit(a)]) => {
                            if let Attr::Int(i) = **a {
                                hint.rank = Some(i as usize);
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    fn shape(&mut self, rank: Option<usize>) -> Vec<Dim> {
        let rank = rank.unwrap_or_else(|| self.pick(&[1, 2, 3, 3, 4, 4]));
        (0..rank)
            .map(|_| {
                if self.chance(1) {
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
                // These take the type that is wanted, as element-wise functions do.
                let follows = ["transpose", "reshape", "broadcast", "softmax", "log_softmax", "cast"];
                let decides = !follows.contains(&op.name()) && scalar::lookup(op.name()).is_none();
                decides || args[op.def().attrs().len()..].iter().any(|a| self.natural(a))
            }
            Pat::Cons(a, b) => self.natural(a) || self.natural(b),
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
            Pat::Op(head, args, either) => {
                let op = self.operator_of(*head);
                let mut args = args.clone();
                let n = args.len();
                if *either && self.chance(50) {
                    args.swap(n - 1, n - 2);
                }
                let (attrs, operands) = args.split_at(op.def().attrs().len());
                self.operator(op, attrs, operands, want)
            }
            _ => None,
        }
    }

    /// The attribute of a pattern, drawn by `draw` when nothing has fixed it.
    fn attr(&mut self, p: &Pat, draw: impl FnOnce(&mut Self) -> Option<Attr>) -> Option<Attr> {
        match p {
            Pat::Lit(a) => Some((**a).clone()),
            Pat::Var(name) => match self.bound.get(name) {
                Some(Bound::Attr(a)) => Some((**a).clone()),
                Some(_) => None,
                None => {
                    let a = draw(self)?;
                    self.bound.insert(*name, Bound::Attr(Arc::new(a.clone())));
                    Some(a)
                }
            },
            _ => None,
        }
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

    fn operator(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat], want: Option<&Type>) -> Option<Value> {
        match op.name() {
            "transpose" => self.transpose(op, attrs, operands, want),
            "reshape" => {
                let natural = self.natural(&operands[0]);
                let target = want.cloned().unwrap_or_else(|| Type::new(self.dtype, vec![]));
                let x = if natural || want.is_none() {
                    self.pattern(&operands[0], None)?
                } else {
                    let shape = self.refactored(&target.shape)?;
                    self.pattern(&operands[0], Some(&Type::new(target.dtype, shape)))?
                };
                let from = self.g.ty(x).shape.clone();
                let shape = self.attr(&attrs[0], |r| match want {
                    Some(t) => Some(Attr::Dims(t.shape.clone())),
                    None => r.refactored(&from).map(Attr::Dims),
                })?;
                self.add(op, &[shape], &[x])
            }
            "broadcast" => self.broadcast(op, attrs, operands, want),
            "reduce" => self.reduce(op, attrs, operands, want),
            "softmax" | "log_softmax" => {
                let x = self.pattern(&operands[0], want)?;
                let rank = self.g.ty(x).rank();
                let axis = self.attr(&attrs[0], |r| (rank > 0).then(|| Attr::Int(r.below(rank) as i64)))?;
                self.add(op, &[axis], &[x])
            }
            "cast" => {
                let from = self.pick(&[self.dtype, DType::F32, DType::F64, DType::I64, DType::F16, DType::U8]);
                let shape = want.map_or_else(|| self.shape(None), |t| t.shape.clone());
                let x = self.pattern(&operands[0], Some(&Type::new(from, shape)))?;
                let to = want.map_or(self.g.ty(x).dtype, |t| t.dtype);
                let to = self.attr(&attrs[0], |r| {
                    Some(Attr::DType(if r.chance(50) {
                        to
                    } else {
                        r.pick(&[DType::F32, DType::I64])
                    }))
                })?;
                self.add(op, &[to], &[x])
            }
            "pad" => self.pad(op, attrs, operands),
            "slice" => self.slice(op, attrs, operands),
            "concat" => self.concat(op, attrs, operands),
            "gather" => {
                let x = self.pattern(&operands[0], None)?;
                let rank = self.g.ty(x).rank();
                let axis = self.attr(&attrs[0], |r| (rank > 0).then(|| Attr::Int(r.below(rank) as i64)))?;
                let Attr::Int(at) = axis else { return None };
                let n = self.g.ty(x).shape.get(at as usize)?.as_const()? as usize;
                self.index(&operands[1], n)?;
                let rank = self.pick(&[1, 1, 2]);
                let shape = self.shape(Some(rank));
                let i = self.pattern(&operands[1], Some(&Type::new(DType::I64, shape)))?;
                self.add(op, &[axis], &[x, i])
            }
            "contract" => self.contract(op, attrs, operands),
            "conv" => self.conv(op, attrs, operands),
            "conv_transpose" => self.conv_transpose(op, attrs, operands),
            "pool" => self.pool(op, attrs, operands),
            "layer_norm" | "rms_norm" => {
                let float = Type::new(self.dtype, self.shape(None));
                let x = self.pattern(&operands[0], Some(want.unwrap_or(&float)))?;
                let ty = self.g.ty(x).clone();
                let axis = self.attr(&attrs[0], |r| {
                    (ty.rank() > 0).then(|| Attr::Int(r.below(ty.rank()) as i64))
                })?;
                let eps = self.attr(&attrs[1], |r| Some(Attr::num(r.pick(&[1e-2, 1e-3, 0.5]))))?;
                let Attr::Int(at) = axis else { return None };
                let tail = Type::new(ty.dtype, ty.shape[at as usize..].to_vec());
                let mut all = vec![x];
                for p in &operands[1..] {
                    all.push(self.pattern(p, Some(&tail))?);
                }
                self.add(op, &[axis, eps], &all)
            }
            name => match scalar::lookup(name) {
                Some(f) => self.map(op, f, operands, want),
                None => self.sampled(op, attrs, operands),
            },
        }
    }

    /// An operator in one of the forms that its definition has as samples.
    fn sampled(&mut self, op: OpId, attrs: &[Pat], operands: &[Pat]) -> Option<Value> {
        let sample = self.pick(&op.def().samples());
        if op.def().is_host() || operands.len() != sample.inputs.len() {
            return None;
        }
        let mut all = vec![];
        for (p, a) in attrs.iter().zip(&sample.attrs) {
            all.push(self.attr(p, |_| Some(a.clone()))?);
        }
        let least = sample.inputs[0].1.iter().copied().min().unwrap_or(1);
        let mut values = vec![];
        for (p, (dtype, shape)) in operands.iter().zip(&sample.inputs) {
            if dtype.is_int() && !values.is_empty() {
                self.index(p, least)?;
            }
            values.push(self.pattern(p, Some(&Type::fixed(*dtype, shape)))?);
        }
        self.add(op, &all, &values)
    }

    /// Notes that an operand holds positions below `n`.
    fn index(&mut self, operand: &Pat, n: usize) -> Option<()> {
        if n == 0 {
            return None;
        }
        if let Pat::Var(v) = operand {
            self.hints.entry(*v).or_default().below = Some(n);
        }
        Some(())
    }

    fn map(&mut self, op: OpId, f: &scalar::Function, operands: &[Pat], want: Option<&Type>) -> Option<Value> {
        let shape = want.map(|t| t.shape.clone());
        let wanted = want.map_or(self.dtype, |t| t.dtype);
        let dtype = match f.rule {
            MapRule::Order => self.pick(&[DType::F32, DType::F64, DType::BF16, DType::I32, DType::U8]),
            MapRule::Test => self.pick(&[DType::F32, DType::F64, DType::F16]),
            MapRule::Equality => self.pick(&[DType::F32, DType::I64, DType::Bool, DType::F16]),
            MapRule::Logic => DType::Bool,
            MapRule::Bits if !wanted.is_int() => self.pick(&[DType::I64, DType::I32, DType::U8]),
            MapRule::Float if !wanted.is_float() => DType::F32,
            MapRule::Number if wanted == DType::Bool => DType::I64,
            _ => wanted,
        };
        // Operands whose types are not free come first; the others follow them.
        let mut order: Vec<usize> = (0..operands.len()).collect();
        order.sort_by_key(|&i| !self.natural(&operands[i]));
        let mut values: Vec<Option<Value>> = vec![None; operands.len()];
        let mut shape = shape;
        for i in order {
            let d = if f.rule == MapRule::Where && i == 0 {
                DType::Bool
            } else {
                dtype
            };
            let s = match &shape {
                Some(s) => s.clone(),
                None => self.shape(None),
            };
            let natural = self.natural(&operands[i]);
            let ask = Type::new(d, s);
            let v = self.pattern(&operands[i], if natural && shape.is_none() { None } else { Some(&ask) })?;
            shape = Some(self.g.ty(v).shape.clone());
            values[i] = Some(v);
        }
        let values: Vec<Value> = values.into_iter().flatten().collect();
        self.add(op, &[], &values)
    }
}

/// The variables of a left side that stand for the weights of contractions and convolutions.
fn weights(p: &Pat, inside: bool, out: &mut BTreeSet<usize>) {
    match p {
        Pat::Var(v) if inside => {
            out.insert(*v);
        }
        Pat::Op(head, args, _) => {
            let name = match head {
                Head::Op(op) => op.name(),
                Head::Family(_) => "",
            };
            let sums = ["contract", "conv", "conv_transpose"].contains(&name);
            for (i, a) in args.iter().enumerate() {
                weights(a, inside || sums && i + 1 == args.len(), out);
            }
        }
        _ => {}
    }
}
