//! Pseudo-random inputs, for runs whose results nobody looks at.

use crate::{Error, Result, tensors};
use brolga_abi::{Dim, Input};
use brolga_ir::{DType, Number, Strings, Tensor, plain};

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
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
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
            let x = next();
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
