//! Weights of 8 or 4 bits: blocks of 32 elements along the inner dimension of a matrix with a scale each, and of 4 bits a minimum. They are made
//! of the stored ones by operators of the IR, once, when the model is compiled, those that are stored in llama.cpp's blocks of the same
//! integers where they are of as many bits. Products read them as they are packed, and their other
//! operand as integers of 8 bits in blocks of as many.
//!
//! ```text
//! w[n, 32 b + k] = scale[n, b] · (q[n, b, k] - zero) + minimum[n, b]
//! ```
//!
//! Of 8 bits the zero is 128, and there is no minimum; of 4 bits it is 8. The operator says how they are found.

use super::error::Fail;
use super::net::{Net, One};
use brolga_ir::{Attr, Build, DType, Dim, Op, Tensor, Value};

/// Elements of a block.
const BLOCK: usize = brolga_ir::loops::BLOCK as usize;

/// What matrices become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// f32.
    F32,
    /// bf16.
    Bf16,
    /// f16.
    F16,
    /// 8 bits, and a scale for each block.
    Int8,
    /// 4 bits, and a scale and a minimum for each block.
    Int4,
}

impl WeightType {
    /// Every type.
    pub const ALL: [WeightType; 5] = [
        WeightType::F32,
        WeightType::Bf16,
        WeightType::F16,
        WeightType::Int8,
        WeightType::Int4,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::Bf16 => "bf16",
            WeightType::F16 => "f16",
            WeightType::Int8 => "int8",
            WeightType::Int4 => "int4",
        }
    }

    /// The type of a name.
    pub fn named(name: &str) -> Option<WeightType> {
        WeightType::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The element type of a matrix of floats.
    fn float(self) -> Option<DType> {
        match self {
            WeightType::F32 => Some(DType::F32),
            WeightType::Bf16 => Some(DType::BF16),
            WeightType::F16 => Some(DType::F16),
            WeightType::Int8 | WeightType::Int4 => None,
        }
    }
}

/// What a product with weights of a type multiplies: the types of its other operand, and of the weights. bf16 has the range of f32, so that
/// activations fit; in f16 they may not, and stay f32.
pub fn multiplied(weights: DType) -> [DType; 2] {
    match weights {
        DType::BF16 => [DType::BF16; 2],
        DType::F16 => [DType::F32, DType::F16],
        _ => [DType::F32; 2],
    }
}

/// Bits of an element.
#[derive(Clone, Copy, PartialEq)]
enum Bits {
    Eight,
    Four,
}

/// A matrix of few bits.
#[derive(Clone, Copy)]
pub struct Compressed {
    bits: Bits,
    /// u8 `[rows, blocks, bytes]`.
    q: Value,
    /// f16 `[rows, blocks]`.
    scale: Value,
    /// f16 `[rows, blocks]`, of 4 bits.
    minima: Option<Value>,
    /// Rows and columns.
    shape: [usize; 2],
}

impl Bits {
    fn number(self) -> i64 {
        match self {
            Bits::Eight => 8,
            Bits::Four => 4,
        }
    }

    /// The integer of a zero.
    fn zero(self) -> i64 {
        match self {
            Bits::Eight => 128,
            Bits::Four => 8,
        }
    }
}

impl Compressed {
    /// Bytes of its integers, scales and minima.
    pub fn bytes(&self) -> u64 {
        let [rows, columns] = self.shape.map(|n| n as u64);
        let blocks = rows * columns / BLOCK as u64;
        let block = match self.bits {
            Bits::Eight => BLOCK as u64,
            Bits::Four => BLOCK as u64 / 2,
        };
        blocks * (block + if self.minima.is_some() { 4 } else { 2 })
    }
}

impl Net {
    /// A stored tensor in floats, of one that is packed in blocks what they say.
    ///
    /// # Errors
    /// Never.
    pub fn elements(&mut self, w: Value) -> One {
        let Some(p) = self.weights.packed(w) else { return Ok(w) };
        let v = self.call("decode_blocks", &[Attr::word(p.format.name())], &[w])?;
        match p.turned {
            true => Ok(self.call("transpose", &[Attr::ints(&[1, 0])], &[v])?),
            false => Ok(v),
        }
    }

    /// Rows of a matrix that is packed in blocks, and stays as it is: they are decoded as they are taken, so that they are exact, and no longer
    /// than they are stored.
    ///
    /// # Errors
    /// When the indices are no integers.
    pub fn packed_rows(&mut self, ids: Value, w: Value) -> Result<Option<Value>, Fail> {
        let packed = self
            .weights
            .packed(w)
            .filter(|p| !p.turned && self.weights_as.is_none());
        let Some(p) = packed else { return Ok(None) };
        let taken = self.call("gather", &[Attr::Int(0)], &[w, ids])?;
        let mut shape = self.shape(ids);
        let bytes = self.shape(taken).pop().expect("rows have an extent");
        let flat = self.reshaped(taken, &[brolga_ir::dim::product(&shape), bytes])?;
        let v = self.call("decode_blocks", &[Attr::word(p.format.name())], &[flat])?;
        shape.push(p.shape[1].into());
        Ok(Some(self.reshaped(v, &shape)?))
    }

    /// A matrix as the caller wants floats.
    ///
    /// # Errors
    /// Never.
    pub fn floats(&mut self, w: Value) -> One {
        let w = self.elements(w)?;
        match self.weights_as.and_then(WeightType::float) {
            Some(dtype) => self.cast(w, dtype),
            None => Ok(w),
        }
    }

    /// A stored matrix with few bits, where the caller wants that and its inner dimension has whole blocks, or where it is stored so and the
    /// caller says nothing.
    ///
    /// # Errors
    /// Never.
    pub fn compressed(&mut self, w: Value, over: usize) -> Result<Option<Compressed>, Fail> {
        let packed = self.weights.packed(w).filter(|p| p.axis() == over);
        let own = packed.map(|p| match p.format.unpacked_bits() {
            8 => Bits::Eight,
            _ => Bits::Four,
        });
        let bits = match self.weights_as {
            Some(WeightType::Int8) => Bits::Eight,
            Some(WeightType::Int4) => Bits::Four,
            Some(_) => return Ok(None),
            None => match own {
                Some(bits) => bits,
                None => return Ok(None),
            },
        };
        if let Some(c) = self.packed.get(&(w, over)) {
            return Ok(Some(*c));
        }
        let (made, shape) = match packed.filter(|_| own == Some(bits)) {
            Some(p) => {
                let op = Op::new("unpack_blocks", &[Attr::word(p.format.name())])?;
                (self.add(op, &[w])?, p.shape)
            }
            None => {
                let w = self.elements(w)?;
                let ty = self.type_of(w);
                let shape = brolga_ir::dim::constants(&ty.shape).unwrap_or_default();
                let &[a, b] = &shape[..] else { return Ok(None) };
                let [rows, inner] = if over == 1 { [a, b] } else { [b, a] };
                if !inner.is_multiple_of(BLOCK) {
                    return Ok(None);
                }
                let attrs = [bits.number(), over as i64].map(Attr::Int);
                (self.add(Op::new("compress_blocks", &attrs)?, &[w])?, [rows, inner])
            }
        };
        let c = Compressed {
            bits,
            q: made[0],
            scale: made[1],
            minima: made.get(2).copied(),
            shape,
        };
        self.packed.insert((w, over), c);
        Ok(Some(c))
    }

    /// The product of `x`'s last dimension with the rows of such a matrix.
    ///
    /// # Errors
    /// When `x` has no such last extent.
    pub fn compressed_product(&mut self, x: Value, w: &Compressed) -> One {
        let mut shape = self.shape(x);
        shape.pop();
        let rows = brolga_ir::dim::product(&shape);
        let [q, scale, offset, total] = self.quantized(x, [rows, w.shape[1].into()], w.bits.zero())?;
        let minima = w.minima.map(|m| [total, m]);
        let operands: Vec<Value> = [q, scale, offset, w.q, w.scale]
            .into_iter()
            .chain(minima.into_iter().flatten())
            .collect();
        let y = self.call("block_product", &[Attr::Int(w.bits.number())], &operands)?;
        shape.push(w.shape[0].into());
        Ok(self.reshaped(y, &shape)?)
    }

    /// `x` as rows of integers, with what belongs to them; once for all products of it.
    fn quantized(&mut self, x: Value, shape: [Dim; 2], zero: i64) -> Result<[Value; 4], Fail> {
        if let Some(known) = self.quantized.get(&(x, zero)) {
            return Ok(*known);
        }
        let rows = self.reshaped(x, &shape)?;
        let all = self.add(Op::new("quantize_blocks", &[Attr::Int(zero)])?, &[rows])?;
        let all = all.try_into().expect("it has four results");
        self.quantized.insert((x, zero), all);
        Ok(all)
    }

    /// Rows of such a matrix, in f32.
    ///
    /// # Errors
    /// When the indices are no integers.
    pub fn compressed_rows(&mut self, ids: Value, w: &Compressed) -> One {
        let mut take = |v: Value| self.call("gather", &[Attr::Int(0)], &[v, ids]);
        let (q, scale) = (take(w.q)?, take(w.scale)?);
        let minima = w.minima.map(&mut take).transpose()?;
        let shape = self.shape(ids);
        let blocks = w.shape[1] / BLOCK;
        let with =
            |more: &[usize]| -> Vec<Dim> { shape.iter().cloned().chain(more.iter().map(|&n| n.into())).collect() };
        let q = match w.bits {
            Bits::Eight => q,
            Bits::Four => {
                let apart = self.reshaped(q, &with(&[blocks, 1, BLOCK / 2]))?;
                let wide = self.spread(apart, &with(&[blocks, 2, BLOCK / 2]))?;
                let by = self.graph.dense(Tensor::new(DType::U8, vec![2, 1], vec![0, 4])?);
                let down = self.map("shift_right", &[wide, by])?;
                let mask = self.splat(DType::U8, &self.shape(down), 15.0)?;
                let low = self.map("bitwise_and", &[down, mask])?;
                self.reshaped(low, &with(&[blocks, BLOCK]))?
            }
        };
        let q = self.cast(q, DType::F32)?;
        let mut of_block = |v: Value| -> One {
            let v = self.cast(v, DType::F32)?;
            Ok(self.reshaped(v, &with(&[blocks, 1]))?)
        };
        let scale = of_block(scale)?;
        let minima = minima.map(of_block).transpose()?;
        let q = self.map_num("sub", q, w.bits.zero() as f64)?;
        let mut v = self.map("mul", &[q, scale])?;
        if let Some(least) = minima {
            v = self.map("add", &[v, least])?;
        }
        Ok(self.reshaped(v, &with(&[w.shape[1]]))?)
    }
}
