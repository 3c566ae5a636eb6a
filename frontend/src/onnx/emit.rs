//! How operators' importers add nodes: one method per IR operator that they need, with explicit numpy broadcasting (whose
//! shapes come from `extents`).
//!
//! Invariant: an operation whose operands are all small and known is evaluated at once by its reference evaluation, since
//! later nodes may need its value as a shape; it stays in the graph only when it merely spreads a constant (so that
//! `x + bias` stays a broadcast). A reshape of a constant is that constant under another type: nothing is copied.

use super::error::Fail;
use super::import::Importer;
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Number, Op, Tensor, Type, Value};

/// Values of up to this many elements are folded, and their contents known as dims.
pub const SMALL: usize = 1024;

/// One value, or why there is none.
pub type One = Result<Value, Fail>;

fn number(dtype: DType, x: Number) -> Number {
    match x {
        Number::Float(x) if !dtype.is_float() => Number::Int(x as i128),
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

impl Importer<'_> {
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
        if self.dtype(v).is_float() {
            return None;
        }
        let t = self.contents(v)?;
        t.iter().map(|x| i64::try_from(x.int()).ok().map(Dim::Const)).collect()
    }

    /// The contents of an operand that the IR wants as a list of dims.
    ///
    /// # Errors
    /// When they are computed from data.
    pub fn dims_operand(&mut self, v: Value, what: &str) -> Result<Vec<Dim>, Fail> {
        if self.dtype(v).is_float() {
            return Err(Fail::Bad(format!("{what} is {}, expected integers", self.ty(v))));
        }
        self.dims_of(v)
            .ok_or_else(|| Fail::Unsupported(format!("{what} computed from data")))
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
        if let Some(out) = self.fold(&op, inputs)? {
            return Ok(out);
        }
        let origin = self.origin.clone();
        let out = self.graph.add(op, inputs, &origin).map_err(|e| e.message)?;
        for &v in &out {
            self.check_size(self.graph.ty(v))?;
        }
        Ok(out)
    }

    fn check_size(&self, ty: &Type) -> Result<(), Fail> {
        let Some(fixed) = ty.shape.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() else {
            return Ok(());
        };
        let (_, bytes) = super::tensor::extents(&fixed, ty.dtype)?;
        if bytes as u64 > self.limit {
            return Err(Fail::Bad(format!(
                "a result {ty} of {bytes} bytes, over the memory limit of {}",
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
    /// See [`Importer::ops`].
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
        let t = Tensor::scalar(dtype, number(dtype, x.into()));
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

    /// An i64 constant of rank 1.
    pub fn ints(&mut self, values: &[i64]) -> Value {
        self.dense(Tensor::from_i64(&[values.len()], values))
    }

    /// A scalar spread over a shape.
    ///
    /// # Errors
    /// When the shape is invalid.
    pub fn splat(&mut self, dtype: DType, shape: &[Dim], x: impl Into<Number>) -> One {
        let s = self.scalar(dtype, x);
        self.spread(s, shape)
    }

    /// An integer value whose elements are dims.
    ///
    /// # Errors
    /// When `shape` does not have as many elements as there are dims.
    pub fn dims_value(&mut self, dtype: DType, shape: &[usize], dims: Vec<Dim>) -> One {
        if let Some(c) = dims.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>() {
            let t = Tensor::from_i64(&[c.len()], &c).cast(dtype);
            if brolga_ir::dim::product(&shape.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>()) != Dim::from(c.len()) {
                return Err(Fail::Bad(format!("{} values for the shape {shape:?}", c.len())));
            }
            return Ok(self.dense(t.reshaped(shape)));
        }
        let v = self.op("dims", &[Attr::Dims(dims.clone())], &[])?;
        let v = self.reshape(v, shape.iter().map(|&d| Dim::from(d)).collect())?;
        let v = self.cast(v, dtype)?;
        self.known.insert(v, dims);
        Ok(v)
    }

    /// A rank-0 value that is a dim (a number of elements to divide by).
    ///
    /// # Errors
    /// When the dtype has no cast from i64.
    pub fn dim_scalar(&mut self, d: &Dim, dtype: DType) -> One {
        match d.as_const() {
            Some(c) => Ok(self.scalar(dtype, c)),
            None => {
                let v = self.dims_value(DType::I64, &[], vec![d.clone()])?;
                self.cast(v, dtype)
            }
        }
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// When the numbers of elements differ.
    pub fn reshape(&mut self, v: Value, shape: Vec<Dim>) -> One {
        let ty = self.ty(v).clone();
        if ty.shape == shape {
            return Ok(v);
        }
        let known = self.known.get(&v).cloned();
        let constant = self.graph.as_constant(v).cloned();
        let fixed = brolga_ir::dim::constants(&shape);
        let out = match (constant, fixed) {
            (Some(c), Some(fixed)) if ty.len() == brolga_ir::dim::product(&shape) => {
                let data = match c.data {
                    ConstData::Dense(t) => ConstData::Dense(t.reshaped(&fixed)),
                    other => other,
                };
                self.graph.constant(Constant {
                    ty: Type::new(ty.dtype, shape),
                    data,
                })
            }
            _ => self.op("reshape", &[Attr::Dims(shape)], &[v])?,
        };
        if let Some(d) = known {
            self.known.insert(out, d);
        }
        Ok(out)
    }

    /// Permutes dimensions.
    ///
    /// # Errors
    /// When `perm` is no permutation.
    pub fn transpose(&mut self, v: Value, perm: &[usize]) -> One {
        if perm.iter().enumerate().all(|(i, &p)| i == p) && perm.len() == self.rank(v) {
            return Ok(v);
        }
        self.op("transpose", &[Attr::axes(perm)], &[v])
    }

    /// Removes dimensions of extent 1.
    ///
    /// # Errors
    /// When an extent is not 1.
    pub fn squeeze(&mut self, v: Value, axes: &[usize]) -> One {
        let shape = self.shape(v);
        if let Some(a) = axes.iter().find(|&&a| shape[a].as_const().is_some_and(|c| c != 1)) {
            return Err(Fail::Bad(format!("axis {a} of {} has not the extent 1", self.ty(v))));
        }
        let mut v = v;
        for &a in axes {
            v = self.fit(v, a, &Dim::ONE)?;
        }
        let kept = (0..shape.len())
            .filter(|i| !axes.contains(i))
            .map(|i| shape[i].clone())
            .collect();
        self.reshape(v, kept)
    }

    /// Inserts dimensions of extent 1 at these positions of the result (sorted).
    ///
    /// # Errors
    /// Never for distinct positions within the result's rank.
    pub fn unsqueeze(&mut self, v: Value, axes: &[usize]) -> One {
        let mut shape = self.shape(v);
        for &a in axes {
            shape.insert(a, Dim::ONE);
        }
        self.reshape(v, shape)
    }

    /// Every `step`-th element from `start` on, per dimension.
    ///
    /// # Errors
    /// When the range is not inside the operand.
    pub fn slice(&mut self, v: Value, starts: Vec<Dim>, sizes: Vec<Dim>, steps: Vec<i64>) -> One {
        if starts.iter().all(|s| s.is(0)) && steps.iter().all(|&s| s == 1) && self.ty(v).shape == sizes {
            return Ok(v);
        }
        self.op(
            "slice",
            &[Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)],
            &[v],
        )
    }

    /// `size` elements from `start` on, along one axis.
    ///
    /// # Errors
    /// See [`Importer::slice`].
    pub fn slice_axis(&mut self, v: Value, axis: usize, start: Dim, size: Dim) -> One {
        let mut sizes = self.shape(v);
        let mut starts = vec![Dim::ZERO; sizes.len()];
        starts[axis] = start;
        sizes[axis] = size;
        let steps = vec![1; sizes.len()];
        self.slice(v, starts, sizes, steps)
    }

    /// Adds elements around (or, for negative amounts, removes them) and between.
    ///
    /// # Errors
    /// When the operator does not accept the amounts.
    pub fn pad(&mut self, v: Value, low: Vec<Dim>, high: Vec<Dim>, interior: Vec<i64>, fill: impl Into<Number>) -> One {
        if low.iter().chain(&high).all(|d| d.is(0)) && interior.iter().all(|&i| i == 0) {
            return Ok(v);
        }
        self.op(
            "pad",
            &[
                Attr::Dims(low),
                Attr::Dims(high),
                Attr::Ints(interior),
                Attr::number(fill.into()),
            ],
            &[v],
        )
    }

    /// Joins values along an axis.
    ///
    /// # Errors
    /// When other extents differ.
    pub fn concat(&mut self, axis: usize, vs: &[Value]) -> One {
        if let [v] = vs {
            return Ok(*v);
        }
        self.op("concat", &[Attr::Int(axis as i64)], vs)
    }

    /// `take` along an axis.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    pub fn gather(&mut self, axis: usize, data: Value, indices: Value) -> One {
        self.op("gather", &[Attr::Int(axis as i64)], &[data, indices])
    }

    /// Checks indices that are constants. With several axes their last dimension holds one index for each of the first
    /// axes.
    ///
    /// # Errors
    /// When an index names no element of an axis of known extent.
    pub fn check_indices(&mut self, data: Value, indices: Value, axes: &[usize]) -> Result<(), Fail> {
        let known = self.contents(indices);
        let Some(t) = known.or_else(|| Some(self.graph.as_constant(indices)?.to_tensor())) else {
            return Ok(());
        };
        let depth = match axes {
            [_] => 1,
            _ => t.shape().last().copied().unwrap_or(1),
        };
        for (&axis, k) in axes.iter().zip(0..depth) {
            let Some(n) = self.shape(data)[axis].as_const().map(i128::from) else {
                continue;
            };
            let mut along = t.iter().skip(k).step_by(depth).map(Number::int);
            if let Some(i) = along.find(|i| !(-n..n).contains(i)) {
                let ty = self.ty(data);
                return Err(Fail::Bad(format!("index {i} into axis {axis} of {ty} is out of range")));
            }
        }
        Ok(())
    }

    /// 0, 1, 2 … along an axis.
    ///
    /// # Errors
    /// When the axis is out of range.
    pub fn iota(&mut self, dtype: DType, shape: &[Dim], axis: usize) -> One {
        self.op(
            "iota",
            &[Attr::DType(dtype), Attr::Dims(shape.to_vec()), Attr::Int(axis as i64)],
            &[],
        )
    }

    /// A reduction that keeps dimensions. No axes: the value itself.
    ///
    /// # Errors
    /// When the operator does not accept the dtype.
    pub fn reduce(&mut self, kind: &str, axes: &[usize], v: Value) -> One {
        if axes.is_empty() {
            return Ok(v);
        }
        self.op("reduce", &[Attr::word(kind), Attr::axes(axes)], &[v])
    }

    /// The mean over axes, dimensions kept; 16-bit floats in f32.
    ///
    /// # Errors
    /// When the dtype has no division.
    pub fn mean(&mut self, axes: &[usize], v: Value) -> One {
        let (dtype, shape) = (self.dtype(v), self.shape(v));
        let wide = self.widen(v)?;
        let sum = self.reduce("sum", axes, wide)?;
        let n = brolga_ir::dim::product(axes.iter().map(|&a| &shape[a]));
        let n = self.dim_scalar(&n, self.dtype(sum))?;
        let mean = self.map("div", &[sum, n])?;
        self.cast(mean, dtype)
    }

    /// 16-bit floats as f32, everything else as it is.
    ///
    /// # Errors
    /// Never.
    pub fn widen(&mut self, v: Value) -> One {
        match self.dtype(v) {
            DType::F16 | DType::BF16 => self.cast(v, DType::F32),
            _ => Ok(v),
        }
    }

    /// The value in another dtype.
    ///
    /// # Errors
    /// When there is no such cast.
    pub fn cast(&mut self, v: Value, to: DType) -> One {
        if self.dtype(v) == to {
            return Ok(v);
        }
        let known = self.known.get(&v).cloned();
        let out = self.op("cast", &[Attr::DType(to)], &[v])?;
        if let Some(d) = known
            && to.is_int()
        {
            self.known.insert(out, d);
        }
        Ok(out)
    }

    /// An element-wise function of numpy-broadcast operands.
    ///
    /// # Errors
    /// When shapes do not broadcast or the function does not accept the dtypes.
    pub fn map(&mut self, name: &str, vs: &[Value]) -> One {
        let shape = self.broadcast_shape(vs)?;
        let vs = vs
            .iter()
            .map(|&v| self.spread(v, &shape))
            .collect::<Result<Vec<_>, _>>()?;
        self.op(name, &[], &vs)
    }

    /// An element-wise function of a value and a number.
    ///
    /// # Errors
    /// See [`Importer::map`].
    pub fn map_num(&mut self, name: &str, v: Value, x: impl Into<Number>) -> One {
        let s = self.scalar(self.dtype(v), x);
        self.map(name, &[v, s])
    }

    /// The dtype in which sums of products are accumulated.
    pub fn accumulator(&self, dtype: DType) -> DType {
        match dtype {
            DType::F16 | DType::BF16 => DType::F32,
            d => d,
        }
    }

    /// A contraction: batch dimensions, free dimensions of `lhs`, free dimensions of `rhs`.
    ///
    /// # Errors
    /// When extents differ.
    pub fn contract(&mut self, lhs: Value, rhs: Value, batch: [&[usize]; 2], over: [&[usize]; 2]) -> One {
        self.contract_to(self.dtype(lhs), lhs, rhs, batch, over)
    }

    /// The same, as another dtype: what is added to it before it is rounded wants that of the sum.
    ///
    /// # Errors
    /// See [`Importer::contract`].
    pub fn contract_to(
        &mut self,
        out: DType,
        lhs: Value,
        rhs: Value,
        batch: [&[usize]; 2],
        over: [&[usize]; 2],
    ) -> One {
        let mut sides = [lhs, rhs];
        for (pairs, what) in [(batch, "batch"), (over, "contracted")] {
            for (&a, &b) in pairs[0].iter().zip(pairs[1]) {
                let (x, y) = (self.shape(sides[0])[a].clone(), self.shape(sides[1])[b].clone());
                let d = self.require_equal(&x, &y).map_err(|_| {
                    let (l, r) = (self.ty(lhs), self.ty(rhs));
                    Fail::Bad(format!("{what} extents {x} of {l} and {y} of {r}, expected equal ones"))
                })?;
                sides = [self.fit(sides[0], a, &d)?, self.fit(sides[1], b, &d)?];
            }
        }
        let acc = self.accumulator(self.dtype(lhs));
        let attrs = [
            Attr::axes(batch[0]),
            Attr::axes(batch[1]),
            Attr::axes(over[0]),
            Attr::axes(over[1]),
            Attr::DType(acc),
            Attr::DType(out),
        ];
        self.op("contract", &attrs, &sides)
    }
}
