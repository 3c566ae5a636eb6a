//! A dense tensor in memory: what the reference interpreters compute on, and what small constants are.
//!
//! Elements are row-major, little-endian, without padding. Interpreters read and write single elements as
//! [`Number`], which holds every dtype without loss, so that no operator's reference evaluation is written
//! once per dtype.

use crate::{DType, Format, Small};
use std::sync::Arc;

/// A dense row-major tensor. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Arc<[u8]>,
}

/// One element of any dtype, without loss. Booleans are `Int(0)` or `Int(1)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Number {
    /// Values of all floats (every narrower one is exact in f64).
    Float(f64),
    /// Every integer and bool (i128 holds both i64 and u64).
    Int(i128),
}

impl Number {
    /// The value that an element of a dtype takes when this is written to it, see [`encode`].
    pub fn to(self, dtype: DType) -> Number {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..dtype.bytes()];
        encode(dtype, self, bytes);
        decode(dtype, bytes)
    }
    /// The value as f64, rounding large integers to nearest.
    pub fn f64(self) -> f64 {
        match self {
            Number::Float(x) => x,
            Number::Int(x) => x as f64,
        }
    }
    /// The value as f32, rounding to nearest.
    pub fn f32(self) -> f32 {
        match self {
            Number::Float(x) => x as f32,
            Number::Int(x) => x as f32,
        }
    }
    /// The value as an integer: floats truncate toward zero and saturate, NaN is 0.
    pub fn int(self) -> i128 {
        match self {
            Number::Float(x) => x as i128,
            Number::Int(x) => x,
        }
    }
    /// False for zero, true for everything else, NaN included.
    pub fn truth(self) -> bool {
        match self {
            Number::Float(x) => x != 0.0,
            Number::Int(x) => x != 0,
        }
    }
}

impl From<bool> for Number {
    fn from(b: bool) -> Number {
        Number::Int(b as i128)
    }
}
impl From<f64> for Number {
    fn from(x: f64) -> Number {
        Number::Float(x)
    }
}
impl From<i64> for Number {
    fn from(x: i64) -> Number {
        Number::Int(x as i128)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Float(x) => write!(f, "{x}"),
            Number::Int(x) => write!(f, "{x}"),
        }
    }
}

impl Tensor {
    /// A tensor over existing bytes.
    ///
    /// # Errors
    /// When the number of bytes is not the product of `shape` times the dtype's size.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: impl Into<Arc<[u8]>>) -> Result<Tensor, String> {
        let bytes = bytes.into();
        let want = element_count(&shape).and_then(|n| n.checked_mul(dtype.bytes()));
        if want != Some(bytes.len()) {
            return Err(format!("{dtype}{shape:?} has {} bytes of data", bytes.len()));
        }
        Ok(Tensor { dtype, shape, bytes })
    }

    /// A tensor whose element at each row-major position is `f(position)`.
    pub fn from_fn(dtype: DType, shape: &[usize], f: impl FnMut(usize) -> Number) -> Tensor {
        let n = shape.iter().product::<usize>();
        let mut bytes = vec![0u8; n * dtype.bytes()];
        for (chunk, x) in bytes.chunks_exact_mut(dtype.bytes()).zip((0..n).map(f)) {
            encode(dtype, x, chunk);
        }
        Tensor {
            dtype,
            shape: shape.to_vec(),
            bytes: bytes.into(),
        }
    }

    /// A tensor from f32 values, one an element; panics when their number does not fit `shape` (for tests and examples).
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor::from_fn(DType::F32, shape, |i| Number::Float(values[i] as f64))
    }

    /// A tensor from i64 values, one an element; panics when their number does not fit `shape`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor::from_fn(DType::I64, shape, |i| Number::Int(values[i] as i128))
    }

    /// A rank-0 tensor.
    pub fn scalar(dtype: DType, x: Number) -> Tensor {
        Tensor::from_fn(dtype, &[], |_| x)
    }

    /// A tensor of one value.
    pub fn splat(dtype: DType, shape: &[usize], x: Number) -> Tensor {
        Tensor::from_fn(dtype, shape, |_| x)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// True when an extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements' bytes, little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The element at a row-major position.
    pub fn get(&self, i: usize) -> Number {
        let n = self.dtype.bytes();
        decode(self.dtype, &self.bytes[i * n..(i + 1) * n])
    }

    /// The element at an index.
    pub fn at(&self, index: &[usize]) -> Number {
        self.get(self.position(index))
    }

    /// The row-major position of an index.
    pub fn position(&self, index: &[usize]) -> usize {
        debug_assert_eq!(index.len(), self.shape.len());
        index.iter().zip(&self.shape).fold(0, |p, (&i, &n)| p * n + i)
    }

    /// All elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = Number> + '_ {
        self.bytes
            .chunks_exact(self.dtype.bytes())
            .map(|b| decode(self.dtype, b))
    }

    /// The elements as i64 (small integer tensors: axes, shapes).
    pub fn to_i64s(&self) -> Vec<i64> {
        self.iter().map(|x| x.int() as i64).collect()
    }

    /// The elements as f64.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.iter().map(Number::f64).collect()
    }

    /// The elements as f32.
    pub fn to_f32s(&self) -> Vec<f32> {
        self.iter().map(|x| x.f64() as f32).collect()
    }

    /// The same elements under another shape; panics when the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), self.len());
        Tensor {
            dtype: self.dtype,
            shape: shape.to_vec(),
            bytes: self.bytes.clone(),
        }
    }

    /// The same values in another dtype, converted as [`encode`] says.
    pub fn cast(&self, to: DType) -> Tensor {
        Tensor::from_fn(to, &self.shape, |i| self.get(i))
    }

    /// The value of every element, when they are all bitwise equal and there is at least one.
    pub fn as_splat(&self) -> Option<Number> {
        let n = self.dtype.bytes();
        let first = self.bytes.get(..n)?;
        self.bytes.chunks_exact(n).all(|c| c == first).then(|| self.get(0))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        let shown: Vec<String> = self.iter().take(8).map(|x| x.to_string()).collect();
        write!(f, "{{{}{}}}", shown.join(", "), if self.len() > 8 { ", …" } else { "" })
    }
}

/// The product of the extents, or `None` when it does not fit.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Every index of a shape in row-major order (none when an extent is zero; one, empty, for rank 0).
pub fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..shape.iter().product::<usize>()).map(move |mut p| {
        let mut index = vec![0; shape.len()];
        for d in (0..shape.len()).rev() {
            index[d] = p % shape[d];
            p /= shape[d];
        }
        index
    })
}

/// Reads one element.
pub fn decode(dtype: DType, b: &[u8]) -> Number {
    use Number::{Float, Int};
    macro_rules! le {
        ($t:ty) => {
            <$t>::from_le_bytes(b.try_into().expect("an element has its dtype's size"))
        };
    }
    match dtype.format() {
        Format::F64 => Float(le!(f64)),
        Format::F32 => Float(le!(f32) as f64),
        Format::Half => Float(dtype.from_half(le!(u16)).into()),
        Format::Signed(_) => {
            let mut all = [if b[b.len() - 1] >> 7 == 0 { 0 } else { 0xff }; 8];
            all[..b.len()].copy_from_slice(b);
            Int(i64::from_le_bytes(all).into())
        }
        Format::Unsigned(_) => {
            let mut all = [0; 8];
            all[..b.len()].copy_from_slice(b);
            Int(u64::from_le_bytes(all).into())
        }
        Format::Bool => Int((b[0] != 0) as i128),
        Format::Small(Small::Float(f)) => Float(f.decode(b[0]).into()),
        Format::Small(Small::Signed(_)) => Int((b[0] as i8).into()),
        Format::Small(Small::Unsigned(_)) => Int(b[0].into()),
    }
}

/// Writes one element. Floats round to nearest even (those of 16 bits and fewer by way of f32, see also
/// [`crate::Minifloat::encode`]); a float given for an integer truncates and saturates (NaN: 0); an integer given for a narrower
/// integer keeps its low bits; anything non-zero, NaN included, is true.
pub fn encode(dtype: DType, x: Number, out: &mut [u8]) {
    match dtype.format() {
        Format::F64 => out.copy_from_slice(&x.f64().to_le_bytes()),
        Format::F32 => out.copy_from_slice(&x.f32().to_le_bytes()),
        Format::Half => out.copy_from_slice(&dtype.to_half(x.f32()).to_le_bytes()),
        Format::Signed(n) => out.copy_from_slice(&whole(x, true, n).to_le_bytes()[..usize::from(n) / 8]),
        Format::Unsigned(n) => out.copy_from_slice(&whole(x, false, n).to_le_bytes()[..usize::from(n) / 8]),
        Format::Bool => out[0] = x.truth() as u8,
        Format::Small(Small::Float(f)) => out[0] = f.encode(x.f32()),
        Format::Small(Small::Signed(n)) => out[0] = whole(x, true, n.into()) as u8,
        Format::Small(Small::Unsigned(n)) => out[0] = whole(x, false, n.into()) as u8,
    }
}

/// The integer of so many bits that a number becomes.
fn whole(x: Number, signed: bool, bits: u16) -> i128 {
    let (least, most) = match signed {
        true => (-1i128 << (bits - 1), (1 << (bits - 1)) - 1),
        false => (0, (1 << bits) - 1),
    };
    match x {
        Number::Float(v) => (v as i128).clamp(least, most),
        Number::Int(v) if signed => v << (128 - bits) >> (128 - bits),
        Number::Int(v) => v & most,
    }
}
