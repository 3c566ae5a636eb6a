//! Random instances of a rule's left side, for the checker.
//!
//! Types are drawn where nothing fixes them and follow from there: an operator that decides its own type (a contraction, a
//! reduction, a bound variable) is made first, its siblings are then made to fit. What does not fit in the end is no
//! instance; the checker tries the next seed.

use super::functions::is_compute;
use super::lang::OpId;
use super::rules::{Cond, Exactness, Expr, Head, Law, Pat};
use brolga_ir::scalar::{self, Rule as MapRule};
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Graph, Number, Op, Tensor, Type, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

mod operators;

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
}

/// Makes one instance.
pub struct Generator {
    state: u64,
    exactness: Exactness,
    g: Graph,
    given: Vec<Tensor>,
    bound: BTreeMap<usize, Bound>,
    hints: BTreeMap<usize, Hint>,
    families: Vec<OpId>,
    dtype: DType,
}

const WIDE: [usize; 8] = [1, 1, 2, 2, 3, 3, 4, 5];

impl Generator {
    /// A generator for one attempt.
    pub fn new(seed: u64, exactness: Exactness) -> Generator {
        Generator {
            state: seed,
            exactness,
            g: Graph::new("instance"),
            given: vec![],
            bound: BTreeMap::new(),
            hints: BTreeMap::new(),
            families: vec![],
            dtype: DType::F32,
        }
    }

    /// The values of an instance's inputs.
    pub fn inputs(&self) -> Vec<Tensor> {
        self.given.clone()
    }

    /// A graph with the left side of a rule, and its value.
    pub fn instance(&mut self, v: &Law) -> Option<(Graph, Value)> {
        self.families = v.families.iter().map(|f| self.pick(f)).collect();
        self.read_conditions(&v.conditions, false);
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

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    fn extent(&mut self) -> usize {
        self.pick(&WIDE)
    }

    fn pick_dtype(&mut self, conditions: &[Cond]) -> DType {
        let asks = |name: &str| conditions.iter().any(|c| matches!(c, Cond::Is(p, _) if p.name == name));
        if asks("is-integer") {
            return self.pick(&[DType::I64, DType::I32, DType::U8]);
        }
        if asks("is-compute") || asks("is-mean-factor") || self.exactness != Exactness::Exact {
            return self.pick(&[DType::F32, DType::F32, DType::F32, DType::F64]);
        }
        if asks("is-float") {
            return self.pick(&[DType::F32, DType::F64, DType::F16]);
        }
        self.pick(&[
            DType::F32,
            DType::F32,
            DType::F32,
            DType::F64,
            DType::I64,
            DType::I32,
            DType::Bool,
        ])
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
                        ("is-number" | "is-invertible", _) => hint.any_number = true,
                        ("is-positive", _) => hint.positive = true,
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

    fn element(&mut self, dtype: DType) -> Number {
        let special = self.exactness == Exactness::Exact && self.chance(4);
        match dtype {
            DType::Bool => Number::Int(self.below(2) as i128),
            d if d.is_float() && special => {
                Number::Float(self.pick(&[-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]))
            }
            // Few values are exact in binary, so that every rounding shows.
            d if d.is_float() => Number::Float((self.below(4001) as f64 - 2000.0) / 997.0),
            d if d.is_signed() => Number::Int(self.below(15) as i128 - 7),
            _ => Number::Int(self.below(15) as i128),
        }
    }

    fn tensor(&mut self, ty: &Type) -> Option<Tensor> {
        let shape: Vec<usize> = ty
            .shape
            .iter()
            .map(|d| usize::try_from(d.as_const()?).ok())
            .collect::<Option<_>>()?;
        if shape.iter().product::<usize>() > 20_000 {
            return None;
        }
        let n: usize = shape.iter().product();
        let values: Vec<Number> = (0..n).map(|_| self.element(ty.dtype)).collect();
        Some(Tensor::from_fn(ty.dtype, &shape, |i| values[i]))
    }

    fn leaf(&mut self, hint: Hint, ty: &Type) -> Option<Value> {
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
            let x = self.pick(&[1e-5, 1e-2, 0.25, 1.0]);
            return Some(self.g.constant(splat(x.into())));
        }
        if hint.any_number {
            let x = self.pick(&[0.5, 2.0, -1.5, 3.0, 0.25, 1.0, -4.0]);
            return Some(self.g.constant(splat(x.into())));
        }
        let t = self.tensor(ty)?;
        if hint.constant || self.chance(20) {
            return Some(self.g.dense(t));
        }
        self.given.push(t);
        Some(self.g.input(&format!("x{}", self.given.len()), ty.clone()))
    }

    /// True when the pattern's type is not free: it holds a bound variable or an operator that decides its own type.
    fn natural(&self, p: &Pat) -> bool {
        match p {
            Pat::Var(v) => matches!(self.bound.get(v), Some(Bound::Stream(_) | Bound::List)),
            Pat::Op(head, args, _) => {
                let op = self.operator_of(*head);
                let decides = [
                    "contract",
                    "conv",
                    "conv_transpose",
                    "pool",
                    "concat",
                    "gather",
                    "reduce",
                    "slice",
                    "pad",
                    "layer_norm",
                    "rms_norm",
                ];
                decides.contains(&op.name()) || args[op.def().attrs().len()..].iter().any(|a| self.natural(a))
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
                let v = self.leaf(hint, &ty)?;
                self.bound.insert(*i, Bound::Stream(v));
                Some(v)
            }
            // The rule of fusion: the stream of a tensor that something else reads.
            Pat::Load(_) => {
                let ty = Type::new(DType::F32, self.shape(None));
                let x = self.leaf(Hint::default(), &ty)?;
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
                self.leaf(hint, &ty)
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
                let from = self.pick(&[self.dtype, DType::F32, DType::F64, DType::I64]);
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
                let n = self.extent();
                let i = self.pattern(&operands[1], Some(&Type::fixed(DType::I64, &[n])))?;
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
                None => None,
            },
        }
    }

    fn map(&mut self, op: OpId, f: &scalar::Function, operands: &[Pat], want: Option<&Type>) -> Option<Value> {
        let shape = want.map(|t| t.shape.clone());
        let wanted = want.map_or(self.dtype, |t| t.dtype);
        let dtype = match f.rule {
            MapRule::Order | MapRule::Test => self.pick(&[DType::F32, DType::F64]),
            MapRule::Equality => self.pick(&[DType::F32, DType::I64]),
            MapRule::Logic => DType::Bool,
            MapRule::Bits if !wanted.is_int() => self.pick(&[DType::I64, DType::I32, DType::U8]),
            MapRule::Float if !is_compute(wanted) && wanted != DType::F16 => DType::F32,
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
