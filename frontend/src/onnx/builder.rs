//! A graph under construction, and what is known of its values. It knows no names: the walk over the model does.
//!
//! Invariant: an operation whose operands are all small and known is evaluated at once by its reference evaluation, since
//! later nodes may need its value as a shape; it stays in the graph only when it merely spreads a constant (so that
//! `x + bias` stays a broadcast), or dequantises weights (so that products of bytes are found).

use super::error::Fail;
use super::model::Files;
use super::node::NodeCtx;
use super::ops::{self, Outcome};
use super::packed::Weights;
use super::ratio::Ratio;
use super::region::{Captured, Frame};
use super::symbolic;
use brolga_ir::dim::shorten;
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Graph, Node, Number, Op, Symbol, Tensor, Type, Value};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Values of up to this many elements are folded, and their contents known as dims.
pub const SMALL: usize = 1024;

/// Sizes that an operand may have whose elements only the run tells: more than any tensor has extents.
const MOST_SIZES: i64 = 256;

/// One value, or why there is none.
pub type One = Result<Value, Fail>;

/// A graph under construction. The methods that add one operation each are in [`super::emit`].
pub struct Builder<'f> {
    /// The graph.
    pub graph: Graph,
    /// The model's files.
    pub files: &'f mut Files,
    /// Bytes that one value may have.
    pub limit: u64,
    /// The name that new nodes carry.
    pub(super) origin: Arc<str>,
    /// Contents of small values that are known (constants and what is computed from them).
    pub(super) folded: FxHashMap<Value, Tensor>,
    /// Contents of small integer values that are known as dims.
    pub(super) known: FxHashMap<Value, Vec<Dim>>,
    /// What small floats that are computed from sizes are.
    pub(super) ratios: FxHashMap<Value, Vec<Ratio>>,
    pub(super) scalars: FxHashMap<(DType, u64), Value>,
    /// What is known of weights of few bits.
    pub(super) weights: Weights,
    /// The graphs around this one, from the model's own on; see [`super::region`].
    pub(super) around: Vec<Frame>,
    /// What this graph has of the one around it.
    pub(super) captured: Captured,
    /// Names of sizes that data tell, in all graphs.
    pub(super) sizes: FxHashSet<Symbol>,
    /// Dims that are extents here, or sums and products of some: they are not negative, though nothing in them says so.
    pub(super) extents: FxHashSet<Dim>,
}

fn number(dtype: DType, x: Number) -> Number {
    match x {
        Number::Float(x) if !dtype.is_real() => Number::Int(x as i128),
        x => x,
    }
}

/// `true` for extents that are all known and amount to a small tensor.
fn is_small(shape: &[Dim]) -> bool {
    let mut n = 1i64;
    shape.iter().all(|d| match d.as_const() {
        Some(c) if (0..=SMALL as i64).contains(&c) => {
            n *= c.max(1);
            n <= SMALL as i64
        }
        _ => false,
    })
}

impl<'f> Builder<'f> {
    /// An empty graph.
    pub fn new(name: &str, files: &'f mut Files, limit: u64) -> Builder<'f> {
        Builder {
            graph: Graph::new(name),
            files,
            limit,
            origin: "".into(),
            folded: FxHashMap::default(),
            known: FxHashMap::default(),
            ratios: FxHashMap::default(),
            scalars: FxHashMap::default(),
            weights: Weights::default(),
            around: vec![],
            captured: Captured::default(),
            sizes: FxHashSet::default(),
            extents: FxHashSet::default(),
        }
    }

    /// Imports a node that is no control flow; the results in the node's order.
    ///
    /// # Errors
    /// When the node is wrong, or uses what is not supported.
    pub fn node(&mut self, ctx: &NodeCtx<'_>) -> Outcome {
        match symbolic::evaluate(self, ctx)? {
            Some(values) => Ok(values),
            None => ops::run(self, ctx),
        }
    }

    /// A failure whose message is short, and says which of the operands' symbols it is about.
    pub fn explain(&self, operands: &[Option<Value>], fail: Fail) -> Fail {
        const SHOWN: usize = 4;
        let mut symbols: Vec<Symbol> = vec![];
        for v in operands.iter().flatten() {
            for d in self
                .graph
                .ty(*v)
                .shape
                .iter()
                .chain(self.known.get(v).into_iter().flatten())
            {
                d.for_each_symbol(&mut |s| symbols.push(s.clone()));
            }
        }
        symbols.sort();
        symbols.dedup();
        let told = |message: String| {
            let words = || message.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let any = words().any(|w| w == "symbolic");
            let names = symbols.iter().filter(|s| any || words().any(|w| *w == ***s));
            let names: Vec<&Symbol> = names.take(SHOWN).collect();
            let hint = names.first().map(|first| {
                let all: Vec<String> = names.iter().map(|s| format!("`{s}`")).collect();
                format!("; a size for {} (--set {first}=N) settles it", all.join(" or "))
            });
            shorten(&message) + &hint.unwrap_or_default()
        };
        match fail {
            Fail::Bad(m) => Fail::Bad(told(m)),
            Fail::Unsupported(m) => Fail::Unsupported(told(m)),
            other => other,
        }
    }

    /// A value's type.
    pub fn ty(&self, v: Value) -> &Type {
        self.graph.ty(v)
    }

    /// A value's extents.
    pub fn shape(&self, v: Value) -> Vec<Dim> {
        self.graph.ty(v).shape.clone()
    }

    /// A value's element type.
    pub fn dtype(&self, v: Value) -> DType {
        self.graph.ty(v).dtype
    }

    /// The number of a value's dimensions.
    pub fn rank(&self, v: Value) -> usize {
        self.graph.ty(v).rank()
    }

    /// A value's extents, when all are known.
    pub fn fixed_shape(&self, v: Value) -> Option<Vec<usize>> {
        brolga_ir::dim::constants(&self.graph.ty(v).shape)
    }

    /// The contents of a small value, when they are known.
    pub fn contents(&mut self, v: Value) -> Option<Tensor> {
        if let Some(t) = self.folded.get(&v) {
            return Some(t.clone());
        }
        let c = self.graph.as_constant(v)?;
        if !is_small(&c.ty.shape) {
            return None;
        }
        let t = c.to_tensor();
        self.folded.insert(v, t.clone());
        Some(t)
    }

    /// The contents of a small integer or boolean value as dims, when they are known.
    pub fn dims_of(&mut self, v: Value) -> Option<Vec<Dim>> {
        if let Some(d) = self.known.get(&v) {
            return Some(d.clone());
        }
        if !self.counts(v) {
            return None;
        }
        let t = self.contents(v)?;
        t.iter().map(|x| i64::try_from(x.int()).ok().map(Dim::Const)).collect()
    }

    /// True for what no run that gets here makes negative.
    pub fn is_nonnegative(&self, d: &Dim) -> bool {
        d.is_nonnegative() || self.extents.contains(d) || self.around.iter().any(|f| f.extents.contains(d))
    }

    /// A dim, or 0 where it is negative.
    pub fn or_zero(&self, d: Dim) -> Dim {
        if self.is_nonnegative(&d) {
            d
        } else {
            Dim::max(&d, &Dim::ZERO)
        }
    }

    /// True for types whose elements may be dims.
    fn counts(&self, v: Value) -> bool {
        self.dtype(v).is_int() || self.dtype(v) == DType::Bool
    }

    /// The contents of an operand that the IR wants as a list of dims.
    ///
    /// # Errors
    /// When they are computed from data.
    pub fn dims_operand(&mut self, v: Value, what: &str) -> Result<Vec<Dim>, Fail> {
        if !self.counts(v) {
            return Err(Fail::Bad(format!("{what} is {}, expected integers", self.ty(v))));
        }
        self.dims_of(v)
            .ok_or_else(|| Fail::Unsupported(format!("{what} computed from data")))
    }

    /// The contents of an operand that are sizes: what is computed from data is read in the run, which fails when a size is
    /// negative or above its bound (one for all, or one each).
    ///
    /// # Errors
    /// When it is no list of integers of a known length.
    pub fn sizes_operand(&mut self, v: Value, what: &str, bounds: &[Option<Dim>]) -> Result<Vec<Dim>, Fail> {
        if let Some(known) = self.dims_of(v) {
            return Ok(known);
        }
        let n = self.size_count(v, what)?;
        let list = self.reshape(v, vec![Dim::Const(n)])?;
        let mut sizes = vec![];
        for k in 0..n {
            let bound = bounds.get(k as usize).or(bounds.first()).cloned().flatten();
            let element = self.slice_axis(list, 0, Dim::Const(k), Dim::ONE)?;
            sizes.push(self.read(element, bound)?);
        }
        self.known.insert(v, sizes.clone());
        Ok(sizes)
    }

    /// How many sizes an operand holds that data tell.
    ///
    /// # Errors
    /// When it holds no integers, an unknown number of them, or too many.
    pub fn size_count(&self, v: Value, what: &str) -> Result<i64, Fail> {
        if !self.counts(v) {
            return Err(Fail::Bad(format!("{what} is {}, expected integers", self.ty(v))));
        }
        match self.ty(v).len().as_const() {
            Some(n) if n <= MOST_SIZES => Ok(n),
            Some(n) => Err(Fail::Unsupported(format!(
                "{what} of {n} numbers computed from data, more than {MOST_SIZES}"
            ))),
            None => Err(Fail::Unsupported(format!("{what} of an unknown length"))),
        }
    }

    /// As [`Builder::sizes_operand`], of integers that may be negative.
    ///
    /// # Errors
    /// As there.
    pub fn signed_sizes(&mut self, v: Value, what: &str) -> Result<Vec<Dim>, Fail> {
        if !self.counts(v) {
            return Err(Fail::Bad(format!("{what} is {}, expected integers", self.ty(v))));
        }
        let zero = self.scalar(self.dtype(v), 0);
        let above = self.map("max", &[v, zero])?;
        let below = self.map("min", &[v, zero])?;
        let below = self.map("sub", &[zero, below])?;
        let above = self.sizes_operand(above, what, &[])?;
        let below = self.sizes_operand(below, what, &[])?;
        Ok(above.iter().zip(&below).map(|(a, b)| a - b).collect())
    }

    /// The contents of an operand that must be known integers.
    ///
    /// # Errors
    /// When they are not known.
    pub fn ints_operand(&mut self, v: Value, what: &str) -> Result<Vec<i64>, Fail> {
        self.dims_operand(v, what)?
            .iter()
            .map(|d| {
                d.as_const()
                    .ok_or_else(|| Fail::Unsupported(format!("{what} that depends on a dimension ({d})")))
            })
            .collect()
    }

    /// The contents of an operand that must be known numbers.
    ///
    /// # Errors
    /// When they are not known.
    pub fn floats_operand(&mut self, v: Value, what: &str) -> Result<Vec<f64>, Fail> {
        match self.contents(v) {
            Some(t) => Ok(t.to_f64s()),
            None => Err(Fail::Unsupported(format!("{what} computed from data"))),
        }
    }

    /// Adds an operation, folding it where its operands are small and known.
    ///
    /// # Errors
    /// When the operator does not accept the operands, or a result is larger than the memory limit.
    pub fn ops(&mut self, name: &str, attrs: &[Attr], inputs: &[Value]) -> Result<Vec<Value>, Fail> {
        let op = Op::new(name, attrs)?;
        match self.fold(&op, inputs)? {
            Some(out) => Ok(out),
            None => self.add(op, inputs),
        }
    }

    /// Adds an operation of one operand that stays in the graph, though the operand may be small and known.
    ///
    /// # Errors
    /// See [`Builder::ops`].
    pub fn unfolded(&mut self, name: &str, attrs: &[Attr], input: Value) -> One {
        Ok(self.unfolded_ops(name, attrs, &[input])?[0])
    }

    /// Adds an operation that stays in the graph, such as a loop, which nobody knows to end when it is evaluated.
    ///
    /// # Errors
    /// See [`Builder::ops`].
    pub fn unfolded_ops(&mut self, name: &str, attrs: &[Attr], inputs: &[Value]) -> Result<Vec<Value>, Fail> {
        self.add(Op::new(name, attrs)?, inputs)
    }

    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, Fail> {
        let origin = self.origin.clone();
        let out = self.graph.add(op, inputs, &origin).map_err(|e| e.message)?;
        let limits = |n: &Node| n.op.at_most(&|i| self.ty(n.inputs[i]).clone());
        for (a, b) in self.graph.nodes.last().map_or(vec![], limits) {
            self.require_at_most(&a, &b)?;
        }
        for &v in &out {
            self.check_size(self.graph.ty(v))?;
        }
        Ok(out)
    }

    /// Checks that a value fits the memory limit, where its extents are numbers.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_size(&self, ty: &Type) -> Result<(), Fail> {
        let Some(fixed) = ty.shape.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() else {
            return Ok(());
        };
        let (_, bytes) = super::tensor::extents(&fixed, ty.dtype)?;
        if bytes as u64 > self.limit {
            return Err(Fail::Bad(format!(
                "a result {ty} of {bytes} bytes, over the memory limit of {}; raise it with --memory-limit",
                self.limit
            )));
        }
        Ok(())
    }

    fn fold(&mut self, op: &Op, inputs: &[Value]) -> Result<Option<Vec<Value>>, Fail> {
        let mut args = Vec::with_capacity(inputs.len());
        for &v in inputs {
            match self.contents(v) {
                Some(t) => args.push(t),
                None => return Ok(None),
            }
        }
        let types: Vec<Type> = inputs.iter().map(|&v| self.ty(v).clone()).collect();
        let outs = op.infer(&types).map_err(|e| format!("{}: {e}", op.name()))?;
        if !outs.iter().all(|t| is_small(&t.shape)) {
            return Ok(None);
        }
        let Ok(op_known) = op.concrete(&|_| None) else {
            return Ok(None);
        };
        let tensors = op_known.eval(&args).map_err(|e| format!("{}: {e}", op.name()))?;
        if op.name() == "broadcast" {
            let origin = self.origin.clone();
            let out = self.graph.add(op.clone(), inputs, &origin).map_err(|e| e.message)?;
            self.folded.insert(out[0], tensors[0].clone());
            return Ok(Some(out));
        }
        Ok(Some(tensors.into_iter().map(|t| self.dense(t)).collect()))
    }

    /// Adds an operation with one result.
    ///
    /// # Errors
    /// See [`Builder::ops`].
    pub fn op(&mut self, name: &str, attrs: &[Attr], inputs: &[Value]) -> One {
        Ok(self.ops(name, attrs, inputs)?[0])
    }

    /// A constant with its elements in memory.
    pub fn dense(&mut self, t: Tensor) -> Value {
        let small = t.len() <= SMALL;
        let v = self.graph.dense(t.clone());
        if small {
            self.folded.insert(v, t);
        }
        v
    }

    /// A constant, in whatever form.
    pub fn constant(&mut self, c: Constant) -> Value {
        self.graph.constant(c)
    }

    /// A constant of one value.
    ///
    /// # Errors
    /// When it is larger than the memory limit.
    pub fn splat_constant(&mut self, dtype: DType, shape: &[usize], x: Number) -> One {
        let ty = Type::fixed(dtype, shape);
        self.check_size(&ty)?;
        Ok(self.graph.constant(Constant {
            ty,
            data: ConstData::Splat(x),
        }))
    }

    /// A rank-0 constant.
    pub fn scalar(&mut self, dtype: DType, x: impl Into<Number>) -> Value {
        let x = match dtype {
            // What is 0 among numbers is empty among strings.
            DType::Str => Number::Int(self.files.strings.number("").into()),
            _ => number(dtype, x.into()),
        };
        let t = Tensor::scalar(dtype, x);
        let mut bits = [0; 8];
        bits[..dtype.bytes()].copy_from_slice(t.bytes());
        let key = (dtype, u64::from_le_bytes(bits));
        if let Some(&v) = self.scalars.get(&key) {
            return v;
        }
        let v = self.dense(t);
        self.scalars.insert(key, v);
        v
    }

    /// A constant of strings.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn strings(&mut self, shape: &[usize], texts: &[&str]) -> One {
        let t = self.files.strings.tensor(shape, texts)?;
        Ok(self.dense(t))
    }

    /// An i64 constant of rank 1.
    pub fn ints(&mut self, values: &[i64]) -> Value {
        self.dense(Tensor::from_i64(&[values.len()], values))
    }
}
