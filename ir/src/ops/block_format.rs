//! How llama.cpp packs matrices of few bits: a row is blocks of 32 or 256 elements, a block its scales, perhaps minima, and integers, in bytes
//! behind each other. What [`decode_blocks`](super::decode_blocks) and [`unpack_blocks`](super::unpack_blocks) read.
//!
//! | format | elements | bytes | an element |
//! | --- | --- | --- | --- |
//! | `q4_0` | 32 | 18 | `d · (q - 8)` |
//! | `q4_1` | 32 | 20 | `d · q + m` |
//! | `q5_0` | 32 | 22 | `d · (q - 16)` |
//! | `q5_1` | 32 | 24 | `d · q + m` |
//! | `q8_0` | 32 | 34 | `d · q`, q of 8 bits with a sign |
//! | `q4_k` | 256 | 144 | `(d · s) · q - e · m`, s and m of 6 bits for each 32 elements |
//! | `q5_k` | 256 | 176 | the same with q of 5 bits |
//! | `q6_k` | 256 | 210 | `(d · s) · (q - 32)`, s of 8 bits with a sign for each 16 elements |
//!
//! `d`, `e` and the first four `m` are f16, and all arithmetic is in f32. Sources: ggml's `block_q4_0` and its like (`ggml-common.h`), and
//! `dequantize_row_q4_0` and its like (`ggml-quants.c`).

mod stages;

pub(super) use stages::{decoded, kept, kept_numbers, numbers};

use super::compress_blocks::{compress_block, half};
use super::{Attr, Op, Sample};
use crate::loops::BLOCK;
use crate::structured::Local;
use crate::{DType, Dim, Type};

/// Elements that share a scale in what is made of these formats.
const SIZE: usize = BLOCK as usize;

/// A format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockFormat {
    /// 4 bits, a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits, a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits, a scale.
    Q8_0,
    /// 4 bits, scales and minima of 6 bits.
    Q4K,
    /// 5 bits, scales and minima of 6 bits.
    Q5K,
    /// 6 bits, scales of 8 bits.
    Q6K,
}

/// The bytes, the scale and the minimum of 32 elements.
pub(super) type Unpacked = (Vec<u8>, f32, f32);

use BlockFormat::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

impl BlockFormat {
    /// Every format.
    pub const ALL: [BlockFormat; 8] = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Q4_0 => "q4_0",
            Q4_1 => "q4_1",
            Q5_0 => "q5_0",
            Q5_1 => "q5_1",
            Q8_0 => "q8_0",
            Q4K => "q4_k",
            Q5K => "q5_k",
            Q6K => "q6_k",
        }
    }

    /// The format of a name.
    pub fn named(name: &str) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Elements of a block.
    pub fn elements(self) -> usize {
        match self {
            Q4K | Q5K | Q6K => 256,
            _ => SIZE,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Q4_0 => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q5_1 => 24,
            Q8_0 => 34,
            Q4K => 144,
            Q5K => 176,
            Q6K => 210,
        }
    }

    /// Bits of the integers that [`unpack_blocks`](super::unpack_blocks) makes of it.
    pub fn unpacked_bits(self) -> i64 {
        match self {
            Q4_0 | Q4_1 | Q4K => 4,
            _ => 8,
        }
    }

    /// Whether [`unpack_blocks`](super::unpack_blocks) gives a minimum for each 32 elements.
    pub fn has_minima(self) -> bool {
        matches!(self, Q4_1 | Q4K)
    }

    /// Whether its blocks have minima.
    fn stores_minima(self) -> bool {
        matches!(self, Q4_1 | Q5_1 | Q4K | Q5K)
    }

    /// Where the integers begin in a block.
    fn integers(self) -> usize {
        match self {
            Q4_0 | Q8_0 => 2,
            Q4_1 => 4,
            Q5_0 => 6,
            Q5_1 => 8,
            Q4K => 16,
            Q5K => 48,
            Q6K => 0,
        }
    }

    /// What is taken off an integer.
    fn zero(self) -> i64 {
        match self {
            Q4_0 => 8,
            Q5_0 => 16,
            Q6K => 32,
            _ => 0,
        }
    }

    /// That of an operator's attribute.
    pub(super) fn of(op: &Op) -> Result<BlockFormat, String> {
        let name = op.word("format");
        BlockFormat::named(name).ok_or_else(|| {
            let known: Vec<&str> = BlockFormat::ALL.iter().map(|f| f.name()).collect();
            format!("format `{name}`, expected {}", known.join(", "))
        })
    }

    /// An instance of each format, and one without rows.
    pub(super) fn samples() -> Vec<Sample> {
        const SHAPES: [(BlockFormat, &[usize]); 9] = [
            (Q4_0, &[3, 36]),
            (Q4_1, &[2, 60]),
            (Q5_0, &[1, 44]),
            (Q5_1, &[3, 24]),
            (Q8_0, &[2, 68]),
            (Q4K, &[2, 288]),
            (Q5K, &[1, 176]),
            (Q6K, &[2, 420]),
            (Q4K, &[0, 144]),
        ];
        let one = |(format, shape): (BlockFormat, &'static [usize])| {
            Sample::new(&[Attr::word(format.name())], &[(DType::U8, shape)])
        };
        SHAPES.into_iter().map(one).collect()
    }

    /// Whether [`unpack_blocks`](super::unpack_blocks) takes the integers as they are.
    pub(super) fn keeps_integers(self) -> bool {
        self.unpacked_bits() == 4 || self == Q8_0
    }

    /// Locals of a kernel for the scale and the minimum, as stages write them.
    pub(super) fn locals(self) -> Vec<Local> {
        let local = |shape: &[i64]| Local {
            dtype: DType::F32,
            shape: shape.iter().map(|&n| Dim::Const(n)).collect(),
        };
        let halves: &[i64] = if self == Q6K { &[2] } else { &[] };
        vec![local(halves), local(&[])]
    }

    /// The rows of bytes and the number of 32 elements in each, of an operand that fits.
    pub(super) fn extents(self, inputs: &[Type]) -> Result<[Dim; 2], String> {
        let [x] = inputs else {
            return Err(format!("{} operands, expected 1", inputs.len()));
        };
        if x.dtype != DType::U8 || x.rank() != 2 {
            return Err(format!("bytes {x}, expected u8 of rank 2"));
        }
        let bytes = self.bytes();
        match x.shape[1].exact_div(&Dim::from(bytes)) {
            Some(blocks) => Ok([x.shape[0].clone(), &blocks * (self.elements() / SIZE) as i64]),
            None => Err(format!("bytes {x}, expected rows of whole blocks of {bytes}")),
        }
    }

    /// The scale and the minimum of 16 elements, of which this is number `part` of a block.
    fn scale_and_minimum(self, block: &[u8], part: usize) -> (f32, f32) {
        let float = |at: usize| DType::F16.from_half(u16::from_le_bytes([block[at], block[at + 1]]));
        match self {
            Q4_0 | Q5_0 | Q8_0 => (float(0), 0.0),
            Q4_1 | Q5_1 => (float(0), float(2)),
            Q4K | Q5K => {
                let (j, s) = (part / 2, &block[4..16]);
                let (scale, least) = match j {
                    0..4 => (s[j] & 63, s[j + 4] & 63),
                    _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
                };
                (float(0) * f32::from(scale), -(float(2) * f32::from(least)))
            }
            Q6K => (float(208) * f32::from(block[192 + part] as i8), 0.0),
        }
    }

    /// Element `e` of a block before scale and minimum.
    fn integer(self, block: &[u8], e: usize) -> f32 {
        let (j, k) = (e / SIZE, e % SIZE);
        let nibble = |at: usize, upper: bool| i64::from(if upper { block[at] >> 4 } else { block[at] & 15 });
        let own = self.integers();
        let q = match self {
            Q8_0 => i64::from(block[own + k] as i8),
            Q4_0 | Q4_1 => nibble(own + k % 16, k >= 16),
            Q5_0 | Q5_1 => {
                let high = block[own - 4 + k / 8] >> (k % 8) & 1;
                nibble(own + k % 16, k >= 16) | i64::from(high) << 4
            }
            Q4K => nibble(own + j / 2 * 32 + k, j % 2 == 1),
            Q5K => nibble(own + j / 2 * 32 + k, j % 2 == 1) | i64::from(block[16 + k] >> j & 1) << 4,
            Q6K => {
                let (half, g) = (j / 4, j % 4);
                let high = block[128 + 32 * half + k] >> (2 * g) & 3;
                nibble(64 * half + g % 2 * 32 + k, g >= 2) | i64::from(high) << 4
            }
        };
        (q - self.zero()) as f32
    }

    /// The elements of rows of whole blocks.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let blocks = bytes.chunks_exact(self.bytes());
        let one = |block: &[u8]| -> Vec<f32> {
            let part = |p: usize| {
                let (scale, least) = self.scale_and_minimum(block, p);
                (16 * p..16 * p + 16).map(move |e| scale * self.integer(block, e) + least)
            };
            (0..self.elements() / 16).flat_map(part).collect()
        };
        blocks.flat_map(one).collect()
    }

    /// For each 32 elements of rows of whole blocks the bytes, scale and minimum that [`unpack_blocks`](super::unpack_blocks) makes of them.
    pub fn unpack(self, bytes: &[u8]) -> Vec<Unpacked> {
        let mut all = vec![];
        for block in bytes.chunks_exact(self.bytes()) {
            let again = if self.keeps_integers() {
                vec![]
            } else {
                self.decode(block)
            };
            for j in 0..self.elements() / SIZE {
                let (scale, least) = self.scale_and_minimum(block, 2 * j);
                let whole = |k: usize| self.integer(block, j * SIZE + k) as i64;
                all.push(match self {
                    Q8_0 => ((0..SIZE).map(|k| (whole(k) + 128) as u8).collect(), scale, 0.0),
                    Q4_0 | Q4_1 | Q4K => {
                        let q = |k: usize| (whole(k) + self.zero()) as u8;
                        let bytes = (0..SIZE / 2).map(|k| q(k) | q(k + SIZE / 2) << 4).collect();
                        let least = if self.has_minima() {
                            half(scale * 8.0 + least)
                        } else {
                            0.0
                        };
                        (bytes, half(scale), least)
                    }
                    Q5_0 | Q5_1 | Q5K | Q6K => compress_block(&again[j * SIZE..][..SIZE], false),
                });
            }
        }
        all
    }
}
