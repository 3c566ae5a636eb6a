//! `compress_blocks{bits, axis}(w) -> q, scale[, minimum]`: a matrix as integers of 8 or 4 bits in blocks of 32 elements along one of its
//! axes, for [`block_product`](super::block_product). With `N` the extent of the other axis and `B` blocks, `q` is u8 `[N, B, 32]`, or
//! `[N, B, 16]` where a byte holds an element of each half of its block, that of the first in its lower bits; `scale` and, of 4 bits,
//! `minimum` are f16 `[N, B]`, and integers are rounded by what these are then:
//!
//! ```text
//! w[n, 32 b + k] ≈ scale[n, b] · (q[n, b, k] - zero) + minimum[n, b]
//! ```
//!
//! Of 8 bits the zero is 128, there is no minimum, and the scale takes the largest magnitude to 127. Of 4 bits the zero is 8: integers are
//! rounded on the block's range, and scale and minimum are those of the straight line that fits them with the least squared error, on which they
//! are rounded again. On normally distributed weights the error is 7.5 % of them so (7.8 % on the range alone, 8.6 % with a scale
//! alone; 7.3 % for the best of six shrunken ranges, which took fifteen times as long).
//!
//! Source of the forms: Q8_0 and Q4_1 of llama.cpp.

mod kernel;

pub(super) use kernel::{eight_of_local, half as rounded};

use super::{Accuracy, Attr, AttrKind, InBlocks, Op, OpDef, OwnKernel, OwnStages, Role, Sample};
use crate::loops::BLOCK;
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The largest number of 16 bits.
const LARGEST: f32 = 65504.0;

/// A scale that is smaller counts as it where it divides.
const SMALLEST: f32 = f32::MIN_POSITIVE;

/// A block of 4 bits has at least this share of its elements' mean as a scale, so that one without a range keeps its value.
const FINEST: f32 = 1.0 / 16384.0;

/// The largest integer of 4 bits, and of 8 bits beside the zero.
const MOST: [f32; 2] = [15.0, 127.0];

/// Extents of an operand that fits, and how it is read.
struct Matrix {
    columns: Dim,
    blocks: Dim,
    /// The axis of the blocks.
    axis: usize,
    four: bool,
}

impl Matrix {
    fn of(op: &Op, inputs: &[Type]) -> Result<Matrix, String> {
        let [w] = inputs else {
            return Err(format!("{} operands, expected 1", inputs.len()));
        };
        if w.dtype.compute() != DType::F32 || w.rank() != 2 {
            return Err(format!("w {w}, expected f32, f16 or bf16 of rank 2"));
        }
        let (bits, axis) = (op.int("bits"), op.int("axis"));
        if ![4, 8].contains(&bits) || !(0..=1).contains(&axis) {
            return Err(format!("{bits} bits along axis {axis}, expected 4 or 8, and 0 or 1"));
        }
        let axis = axis as usize;
        match w.shape[axis].exact_div(&Dim::Const(BLOCK)) {
            Some(blocks) => Ok(Matrix {
                columns: w.shape[1 - axis].clone(),
                blocks,
                axis,
                four: bits == 4,
            }),
            None => Err(format!("w {w}, expected whole blocks of {BLOCK} along axis {axis}")),
        }
    }

    /// Bytes of a block.
    fn bytes(&self) -> i64 {
        if self.four { BLOCK / 2 } else { BLOCK }
    }
}

/// A number as 16 bits hold it.
pub(super) fn half(x: f32) -> f32 {
    DType::F16.from_half(DType::F16.to_half(x.clamp(-LARGEST, LARGEST)))
}

/// The bytes, scale and minimum of a block's elements, of 4 bits or of 8; see the operator `compress_blocks`.
pub fn compress_block(block: &[f32], four: bool) -> (Vec<u8>, f32, f32) {
    let [most_four, most_eight] = MOST;
    if !four {
        let most = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = half(most / most_eight);
        let by = 1.0 / scale.max(SMALLEST);
        let q = block.iter().map(|v| ((v * by).round_ties_even() + 128.0).clamp(0.0, 255.0) as u8);
        return (q.collect(), scale, 0.0);
    }
    let n = block.len() as f32;
    let low = block.iter().copied().fold(f32::INFINITY, f32::min);
    let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mean = block.iter().sum::<f32>() / n;
    let by = most_four / (high - low).max(SMALLEST * 16.0);
    let first: Vec<f32> = block.iter().map(|v| ((v - low) * by).round_ties_even().min(most_four)).collect();
    let middle = first.iter().sum::<f32>() / n;
    let squares = first.iter().map(|q| q * q).sum::<f32>() - n * middle * middle;
    let both = first.iter().zip(block).map(|(q, v)| q * (v - mean)).sum::<f32>();
    let scale = half((both / squares.max(SMALLEST)).max(mean.abs() * FINEST));
    let least = half(mean - (middle - 8.0) * scale);
    let by = 1.0 / scale.max(SMALLEST);
    let q: Vec<u8> = block
        .iter()
        .map(|v| (((v - least) * by).round_ties_even() + 8.0).clamp(0.0, most_four) as u8)
        .collect();
    let (lower, upper) = q.split_at(q.len() / 2);
    (lower.iter().zip(upper).map(|(l, u)| l | u << 4).collect(), scale, least)
}

/// The elements of a block, of its bytes, scale and minimum.
pub fn restore_block(q: &[u8], scale: f32, minimum: f32, four: bool) -> Vec<f32> {
    let value = |q: u8, zero: u8| scale * (f32::from(q) - f32::from(zero)) + minimum;
    match four {
        true => {
            let halves = [0, 4].into_iter().flat_map(|by| q.iter().map(move |q| q >> by & 15));
            halves.map(|q| value(q, 8)).collect()
        }
        false => q.iter().map(|q| value(*q, 128)).collect(),
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "compress_blocks"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("bits", AttrKind::Int), ("axis", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let m = Matrix::of(op, inputs)?;
        let each = vec![m.columns.clone(), m.blocks.clone()];
        let q = Type::new(DType::U8, [&each[..], &[Dim::Const(m.bytes())]].concat());
        let halves = vec![Type::new(DType::F16, each); if m.four { 2 } else { 1 }];
        Ok([vec![q], halves].concat())
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (axis, four) = (op.int("axis") as usize, op.int("bits") == 4);
        let w = inputs[0].to_f64s();
        let shape = inputs[0].shape();
        let (size, columns) = (BLOCK as usize, shape[1 - axis]);
        let blocks = shape[axis] / size;
        let at = |n: usize, k: usize| w[if axis == 1 { n * shape[1] + k } else { k * shape[1] + n }] as f32;
        let (mut q, mut scales, mut minima) = (vec![], vec![], vec![]);
        for n in 0..columns {
            for b in 0..blocks {
                let block: Vec<f32> = (0..size).map(|k| at(n, b * size + k)).collect();
                let (own, scale, least) = compress_block(&block, four);
                q.extend(own);
                scales.push(scale);
                minima.push(least);
            }
        }
        let bytes = if four { size / 2 } else { size };
        let halves = |x: &[f32]| {
            Tensor::from_fn(DType::F16, &[columns, blocks], |p| Number::Float(x[p].into()))
        };
        let mut out = vec![Tensor::new(DType::U8, vec![columns, blocks, bytes], q)?, halves(&scales)];
        if four {
            out.push(halves(&minima));
        }
        Ok(out)
    }
    fn in_blocks(&self, op: &Op) -> Option<InBlocks> {
        Some(InBlocks::Weights(op.axis("axis")))
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |bits: i64, axis: i64, dtype: DType, shape: &'static [usize]| {
            Sample::new(&[Attr::Int(bits), Attr::Int(axis)], &[(dtype, shape)])
        };
        vec![
            s(8, 1, DType::F32, &[3, 64]),
            s(8, 0, DType::BF16, &[32, 5]),
            s(4, 1, DType::BF16, &[4, 96]),
            s(4, 0, DType::F32, &[64, 3]),
            s(4, 1, DType::F16, &[1, 32]),
            s(4, 1, DType::F16, &[0, 32]),
        ]
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        Ok(kernel::kernel(&Matrix::of(op, inputs)?, inputs, results))
    }
}
