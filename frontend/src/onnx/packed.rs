//! Tensors of a model's file, and those of 4 and 2 bits among them: a large one stays packed, and is unpacked by operators
//! that whatever reads it does with the rest, so that the artefact holds what the file holds.
//!
//! ```text
//! i4[64, 256] in 8192 bytes  -->  u8[64, 128, 1] spread to [64, 128, 2], shifted left by [4, 0], as i8 shifted right by 4,
//!                                 as i4, reshaped to [64, 256]
//! ```
//!
//! A product reads matrices in memory, and what makes them of constants would run when the model is compiled. So products with such
//! weights that are dequantised are `packed_product`, with one scale for all, a column, or a block of a column. Its bytes are as
//! many, in another order.

use super::builder::{Builder, One, SMALL};
use super::error::Fail;
use super::tensor;
use brolga_ir::dim::product;
use brolga_ir::{Attr, Constant, DType, Dim, Tensor, Value};
use onnx_protobuf::TensorProto;
use rustc_hash::FxHashMap;

/// Rows up to which each of them unpacks the weights. On 4,096 × 4,096 weights of 4 bits a row takes 0.7 ms on a Zen 5 so, and tiles of up
/// to 32 rows take 6 ms.
const FEW: i64 = 8;

/// What is known of weights of few bits.
#[derive(Clone, Default)]
pub struct Weights {
    /// Matrices of integers.
    packed: FxHashMap<Value, Packed>,
    /// What they are as numbers.
    dequantised: FxHashMap<Value, Dequantised>,
}

/// A matrix of integers in bytes.
#[derive(Clone)]
struct Packed {
    /// u8 `[rows, columns / values, 1]`.
    bytes: Value,
    dtype: DType,
    shape: [usize; 2],
}

/// `(packed - zero) scale`, in f32.
#[derive(Clone)]
struct Dequantised {
    packed: Packed,
    scale: Value,
    zero: Option<Value>,
    /// The axis along which scales lie, where there are several, and how many elements of it have one; `None` where each index
    /// has one.
    along: (usize, Option<usize>),
    transposed: bool,
}

impl Builder<'_> {
    /// The value of a TensorProto.
    ///
    /// # Errors
    /// See [`tensor::constant`]; an element type that the IR lacks is unsupported.
    pub fn tensor(&mut self, t: &TensorProto) -> One {
        let fail = |e: String| match e.starts_with("element type") {
            true => Fail::Unsupported(e),
            false => Fail::Bad(e),
        };
        let packed = tensor::packed(t, self.files, self.limit).map_err(fail)?;
        match packed.filter(|(_, _, shape)| shape.iter().product::<usize>() > SMALL) {
            Some((bytes, dtype, shape)) => self.unpack(bytes, dtype, &shape),
            None => {
                let c = tensor::constant(t, self.files, self.limit).map_err(fail)?;
                Ok(self.constant(c))
            }
        }
    }

    /// The elements of a small type that packed bytes hold, the first one in the lowest bits.
    fn unpack(&mut self, bytes: Constant, dtype: DType, shape: &[usize]) -> One {
        let bits = dtype.packed_bits();
        let each = 8 / bits;
        // Where no byte holds elements of two rows, rows stay apart.
        let rows = shape.split_last().filter(|(last, _)| last.is_multiple_of(each));
        let mut wide: Vec<Dim> = match rows {
            Some((last, outer)) => outer.iter().chain([&(last / each)]).map(|&n| n.into()).collect(),
            None => bytes.ty.shape.clone(),
        };
        let v = self.constant(bytes);
        let axis = wide.len();
        let bytes = self.reshape(v, [&wide[..], &[Dim::ONE]].concat())?;
        wide.push(each.into());
        let v = self.spread(bytes, &wide)?;
        let at = |i: usize| match dtype.stored() {
            // To the top of a byte, from where the sign comes down with it.
            DType::I8 => 8 - bits - bits * i,
            _ => bits * i,
        };
        let places: Vec<u8> = (0..each).map(|i| at(i) as u8).collect();
        let places = self.dense(Tensor::new(DType::U8, vec![each], places)?);
        let v = match dtype.stored() {
            DType::I8 => {
                let v = self.map("shift_left", &[v, places])?;
                let v = self.op("bitcast", &[Attr::DType(DType::I8)], &[v])?;
                self.map_num("shift_right", v, 8 - bits as i64)?
            }
            _ => {
                let v = self.map("shift_right", &[v, places])?;
                self.map_num("bitwise_and", v, (1i64 << bits) - 1)?
            }
        };
        let v = self.op("bitcast", &[Attr::DType(dtype)], &[v])?;
        let extents: Vec<Dim> = shape.iter().map(|&n| n.into()).collect();
        if rows.is_some() {
            let v = self.reshape(v, extents)?;
            if let (&[rows, columns], false) = (shape, dtype.is_real()) {
                let shape = [rows, columns];
                self.weights.packed.insert(v, Packed { bytes, dtype, shape });
            }
            return Ok(v);
        }
        // The last byte may hold fewer.
        let whole = &wide[axis - 1] * &wide[axis];
        let v = self.reshape(v, vec![whole])?;
        let v = self.slice_axis(v, 0, Dim::ZERO, brolga_ir::dim::product(&extents))?;
        self.reshape(v, extents)
    }

    /// Notes that `y` is `(x - zero) scale` in f32, with one scale, or one for each block of an axis, or each of its indices.
    pub fn note_dequantised(
        &mut self,
        y: Value,
        x: Value,
        (scale, zero): (Value, Option<Value>),
        along: (usize, Option<usize>),
    ) {
        if let Some(packed) = self.weights.packed.get(&x).cloned() {
            let noted = Dequantised {
                packed,
                scale,
                zero,
                along,
                transposed: false,
            };
            self.weights.dequantised.insert(y, noted);
        }
    }

    /// Notes that `to` is `from` with its two axes exchanged.
    pub fn note_transposed(&mut self, from: Value, to: Value) {
        if let Some(d) = self.weights.dequantised.get(&from).cloned() {
            let transposed = !d.transposed;
            self.weights.dequantised.insert(to, Dequantised { transposed, ..d });
        }
    }

    /// The product of `x`'s last axis with an axis of weights of few bits; `None` where they are none, or have other scales than the
    /// product takes.
    ///
    /// # Errors
    /// When extents differ.
    pub fn packed_product(&mut self, x: Value, weights: Value, axis: usize) -> Result<Option<Value>, Fail> {
        let Some(w) = self.weights.dequantised.get(&weights).cloned() else {
            return Ok(None);
        };
        let bits = w.packed.dtype.packed_bits();
        let values = 8 / bits;
        // Of the matrix as it is packed.
        let depth_axis = if w.transposed { 1 - axis } else { axis };
        let (depth, columns) = (w.packed.shape[depth_axis], w.packed.shape[1 - depth_axis]);
        let single = product(&self.shape(w.scale)).is(1);
        let block = match w.along {
            _ if single => depth,
            (axis, Some(block)) if axis == depth_axis => block,
            (axis, None) if axis != depth_axis => depth,
            // A scale of several columns, or of whole rows.
            _ => return Ok(None),
        };
        let whole = block.is_multiple_of(values) && depth.is_multiple_of(block);
        if !whole || self.dtype(x) != DType::F32 || self.dtype(w.scale) != DType::F32 {
            return Ok(None);
        }
        let (blocks, bytes) = (depth / block, block / values);
        let q = self.repacked(&w.packed, depth_axis, [columns, blocks, bytes])?;
        let each = [columns, blocks].map(Dim::from);
        let offset = match w.packed.dtype.stored() {
            DType::I8 => 1i64 << (bits - 1),
            _ => 0,
        };
        let mut lead = self.shape(x);
        lead.truncate(self.rank(x) - 1);
        let x = self.fit(x, lead.len(), &depth.into())?;
        let rows = product(&lead);
        let x = self.reshape(x, vec![rows.clone(), depth.into()])?;
        let scale = self.of_columns(w.scale, depth_axis, single, &each)?;
        let mut operands = vec![x, q, scale];
        if let Some(z) = w.zero {
            let mut z = self.cast(z, w.packed.dtype.stored())?;
            if offset > 0 {
                z = self.map_num("add", z, offset)?;
                z = self.cast(z, DType::U8)?;
            }
            operands.push(self.of_columns(z, depth_axis, single, &each)?);
        }
        let y = self.bits_product(&operands, &rows, bits as i64, offset as f64)?;
        self.reshape(y, [&lead[..], &[columns.into()]].concat()).map(Some)
    }

    /// `packed_product` of so many rows.
    ///
    /// # Errors
    /// When the operator does not accept the operands.
    pub fn bits_product(&mut self, operands: &[Value], rows: &Dim, bits: i64, zero: f64) -> One {
        let product = |few: bool| {
            let attrs = [Attr::Int(bits), Attr::num(zero), Attr::Bool(few)];
            move |graph: &mut Builder<'_>, v: &[Value]| Ok(vec![graph.op("packed_product", &attrs, v)?])
        };
        // A language model has many rows once and then one again and again: where only a run tells, it has both.
        let y = match rows.as_const() {
            Some(n) => product(n <= FEW)(self, operands)?,
            None => {
                let n = self.dim_scalar(rows, DType::I64)?;
                let few = self.map_num("less_or_equal", n, FEW)?;
                self.choose(few, operands, product(true), product(false))?
            }
        };
        Ok(y[0])
    }

    /// Integers from 0 on, as `packed_product` wants them: `[columns, blocks, bytes]`, where the values of a byte stand as far apart as
    /// a block has bytes.
    fn repacked(&mut self, w: &Packed, depth_axis: usize, [columns, blocks, bytes]: [usize; 3]) -> One {
        let bits = w.dtype.packed_bits();
        let values = 8 / bits;
        let places: Vec<u8> = (0..values).map(|i| (bits * i) as u8).collect();
        let places = self.dense(Tensor::new(DType::U8, vec![values], places)?);
        let mut wide = self.shape(w.bytes);
        wide[2] = values.into();
        let v = self.spread(w.bytes, &wide)?;
        let v = self.map("shift_right", &[v, places])?;
        let mut v = self.map_num("bitwise_and", v, (1i64 << bits) - 1)?;
        if w.dtype.stored() == DType::I8 {
            // Two's complement, from the least number on.
            v = self.map_num("bitwise_xor", v, 1i64 << (bits - 1))?;
        }
        let v = match depth_axis {
            0 => {
                let v = self.reshape(v, [blocks, values, bytes, columns].map(Dim::from).to_vec())?;
                self.transpose(v, &[3, 0, 2, 1])?
            }
            _ => {
                let v = self.reshape(v, [columns, blocks, values, bytes].map(Dim::from).to_vec())?;
                self.transpose(v, &[0, 1, 3, 2])?
            }
        };
        let v = self.map("shift_left", &[v, places])?;
        let v = self.reduce("sum", &[3], v)?;
        self.reshape(v, [columns, blocks, bytes].map(Dim::from).to_vec())
    }

    /// Parameters of blocks along an axis, of columns, or of all, as those of each block of each column.
    fn of_columns(&mut self, p: Value, depth_axis: usize, single: bool, each: &[Dim; 2]) -> One {
        if single {
            let p = self.reshape(p, vec![])?;
            return self.spread(p, each);
        }
        let p = match (self.rank(p), depth_axis) {
            (2, 0) => self.transpose(p, &[1, 0])?,
            _ => p,
        };
        self.reshape(p, each.to_vec())
    }
}
