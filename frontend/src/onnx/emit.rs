//! How operators' importers add nodes: one method per IR operator that they need, with explicit numpy broadcasting (whose
//! shapes come from `extents`).
//!
//! Invariant: a reshape of a constant is that constant under another type: nothing is copied.

use super::builder::{Builder, One};
use super::error::Fail;
use brolga_ir::{Attr, ConstData, Constant, DType, Dim, Number, Tensor, Type, Value};

impl Builder<'_> {
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
        let out = self.op("transpose", &[Attr::axes(perm)], &[v])?;
        if perm == [1, 0] {
            self.note_transposed(v, out);
        }
        Ok(out)
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
    /// When a position is beyond the result's rank.
    pub fn unsqueeze(&mut self, v: Value, axes: &[usize]) -> One {
        let mut shape = self.shape(v);
        for &a in axes {
            if a > shape.len() {
                return Err(Fail::Bad(format!("{} has no place for an axis {a}", self.ty(v))));
            }
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
    /// See [`Builder::slice`].
    pub fn slice_axis(&mut self, v: Value, axis: usize, start: Dim, size: Dim) -> One {
        let mut sizes = self.shape(v);
        if axis >= sizes.len() {
            return Err(Fail::Bad(format!("{} has no axis {axis}", self.ty(v))));
        }
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
        if self.dtype(v) == DType::Str && low.iter().chain(&high).any(|d| d.as_const().is_none_or(|c| c > 0)) {
            return Err(Fail::Unsupported("padding of strings".into()));
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
        match self.dtype(v).is_half() {
            true => self.cast(v, DType::F32),
            false => Ok(v),
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
    /// See [`Builder::map`].
    pub fn map_num(&mut self, name: &str, v: Value, x: impl Into<Number>) -> One {
        let s = self.scalar(self.dtype(v), x);
        self.map(name, &[v, s])
    }

    /// A contraction: batch dimensions, free dimensions of `lhs`, free dimensions of `rhs`.
    ///
    /// # Errors
    /// When extents differ.
    pub fn contract(&mut self, lhs: Value, rhs: Value, batch: [&[usize]; 2], over: [&[usize]; 2]) -> One {
        self.contract_to(self.dtype(lhs), lhs, rhs, batch, over)
    }

    /// The same, as another dtype: what is added to it before it is rounded wants that of the sum, and bytes a wider one.
    ///
    /// # Errors
    /// See [`Builder::contract`].
    pub fn contract_to(
        &mut self,
        out: DType,
        lhs: Value,
        rhs: Value,
        batch: [&[usize]; 2],
        over: [&[usize]; 2],
    ) -> One {
        if let ([], &[k], &[axis]) = (batch[0], over[0], over[1])
            && k + 1 == self.rank(lhs)
            && out == DType::F32
            && let Some(y) = self.packed_product(lhs, rhs, axis)?
        {
            return Ok(y);
        }
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
        let acc = match self.dtype(lhs).is_float() {
            true => self.dtype(lhs).compute(),
            false => out,
        };
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
