//! Pseudo-random numbers, and inputs made of them for runs whose results nobody looks at.

use crate::{Error, Result, tensors};
use brolga_abi::{Dim, Input};
use brolga_ir::{DType, Number, Strings, Tensor, plain};

/// A generator: xorshift64 (Marsaglia, 2003).
pub struct Random(u64);

impl Random {
    /// One whose numbers a seed tells. Seeds that are near each other give other numbers, since splitmix64 (Steele et al., 2014) is between.
    pub fn new(seed: u64) -> Random {
        let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((x ^ (x >> 31)).max(1))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 on, below 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Inputs of these ports: floats from -1 to 1, integers and booleans 0 and 1, empty strings. Symbolic dimensions have the sizes given.
///
/// # Errors
/// Which dimension has no size; when an input has more than `limit` bytes.
pub fn inputs<'p>(
    ports: impl Iterator<Item = &'p Input>,
    symbols: &[String],
    sizes: &[(String, i64)],
    limit: u64,
) -> Result<Vec<(String, Tensor)>> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let fail = |input: &Input, what: String| Error::Option(format!("input `{}` {what}", plain(&input.name)));
    let mut out = vec![];
    for input in ports {
        let shape = extents(input, symbols, sizes)?;
        let dtype = tensors::ir_dtype(input.dtype);
        let Some(size) = brolga_runtime::tensor::byte_size(input.dtype, &shape) else {
            return Err(fail(
                input,
                format!("is {dtype}{shape:?}: more elements than 64 bits can count"),
            ));
        };
        if size > limit {
            return Err(fail(
                input,
                format!("has {size} bytes, over the memory limit of {limit}; raise it with --memory-limit"),
            ));
        }
        let empty = match dtype {
            DType::Str => {
                let strings = Strings::current().map_err(|e| fail(input, e.to_string()))?;
                Number::Int(strings.number("").into())
            }
            _ => Number::Int(0),
        };
        let tensor = Tensor::from_fn(dtype, &shape, |_| {
            let x = random.bits();
            if dtype == DType::Str {
                empty
            } else if dtype.is_real() {
                Number::Float((x >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
            } else {
                Number::Int((x >> 63) as i128)
            }
        });
        out.push((input.name.clone(), tensor));
    }
    Ok(out)
}

fn extents(input: &Input, symbols: &[String], sizes: &[(String, i64)]) -> Result<Vec<usize>> {
    let extent = |d: &Dim| match *d {
        Dim::Const(n) => Ok(n as usize),
        Dim::Symbol(s) => {
            let name = &symbols[s as usize];
            let given = sizes.iter().find(|(n, _)| n == name);
            given.map(|(_, n)| *n as usize).ok_or_else(|| {
                Error::Option(format!(
                    "input `{}` has the symbolic dimension `{name}`; give it a size with --set {name}=N, or give inputs with \
                     --inputs or --input",
                    plain(&input.name)
                ))
            })
        }
    };
    input.dims.iter().map(extent).collect()
}
