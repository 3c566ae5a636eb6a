//! Sample instances of operators, and operands for them.

use super::Attr;
use crate::{DType, Number, Tensor};

/// An operand's type in sample form: dtype and known extents.
pub type SampleType = (DType, &'static [usize]);

/// One instance of an operator, for the differential tests.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Attributes in the definition's order.
    pub attrs: Vec<Attr>,
    /// Operand types.
    pub inputs: Vec<SampleType>,
    /// The operand that holds indices, and the extent that they index.
    pub indices: Option<(usize, usize)>,
}

impl Sample {
    /// A sample.
    pub fn new(attrs: &[Attr], inputs: &[SampleType]) -> Sample {
        Sample {
            attrs: attrs.to_vec(),
            inputs: inputs.to_vec(),
            indices: None,
        }
    }

    /// The sample with an operand of indices into an extent `n`: its values are in `-n..n`.
    pub fn indexing(self, operand: usize, n: usize) -> Sample {
        Sample {
            indices: Some((operand, n)),
            ..self
        }
    }

    /// Operands of the sample's types: floats are multiples of 1/64 in -2..2, integers -4..8 (indices what their extent
    /// allows), bools are both. The same for the same seed, everywhere.
    pub fn operands(&self, seed: u64) -> Vec<Tensor> {
        let mut state = seed;
        let mut next = move || {
            // SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut element = |operand: usize, dtype: DType| match dtype {
            d if self.indices.is_some_and(|(k, _)| k == operand) => {
                let n = self.indices.map_or(1, |(_, n)| n.max(1)) as u64;
                let span = if d.is_signed() { 2 * n } else { n };
                Number::Int((next() % span) as i128 - (span - n) as i128)
            }
            DType::Bool => Number::Int((next() & 1) as i128),
            d if d.is_real() => Number::Float(((next() % 256) as f64 - 128.0) / 64.0),
            d if d.is_signed() => Number::Int((next() % 12) as i128 - 4),
            _ => Number::Int((next() % 12) as i128),
        };
        self.inputs
            .iter()
            .enumerate()
            .map(|(k, (dtype, shape))| Tensor::from_fn(*dtype, shape, |_| element(k, *dtype)))
            .collect()
    }
}
