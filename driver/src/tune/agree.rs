//! Whether a candidate computes what the incumbent does.
//!
//! A schedule changes nothing of what a kernel means, so results are equal bit for bit, but for sums of floats in another order.
//! Those differ by no more than rounding does: two orders of a sum of `n` terms that are at most `m` differ by at
//! most about `n ε` times the sum of their magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, 4.2).
//! The terms are not seen here; the largest result stands for that sum. A kernel that turns rounding into
//! something else (a comparison, a whole number) has to give the same bits.

use crate::kernels::Workload;
use brolga_ir::structured::{IterKind, Kernel, Stage};
use brolga_ir::{DType, Number, decode, encode};

/// How results agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// Bit for bit, but for the bits of NaN.
    Bits,
    /// Up to the rounding of sums in another order.
    Rounding,
}

impl Agreement {
    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Agreement::Bits => "bits",
            Agreement::Rounding => "rounding",
        }
    }
}

/// Compares results of a workload, by operand, with sizes for its symbols.
///
/// # Errors
/// Where they differ by more than they may.
pub fn agree(
    workload: &Workload,
    sizes: &[i64],
    expected: &[(usize, Vec<u8>)],
    found: &[(usize, Vec<u8>)],
) -> Result<Agreement, String> {
    let kernel = workload.kernel();
    let terms = terms(kernel, sizes);
    let mut all = Agreement::Bits;
    for ((operand, expected), (_, found)) in expected.iter().zip(found) {
        let dtype = kernel.operands[*operand].ty.dtype;
        let one = tensor(dtype, expected, found, terms).map_err(|e| format!("o{operand}: {e}"))?;
        if one == Agreement::Rounding {
            all = one;
        }
    }
    Ok(all)
}

fn tensor(dtype: DType, expected: &[u8], found: &[u8], terms: Option<f64>) -> Result<Agreement, String> {
    if expected == found {
        return Ok(Agreement::Bits);
    }
    let bytes = dtype.bytes();
    let numbers = |all: &'_ [u8]| {
        all.chunks_exact(bytes)
            .map(|b| decode(dtype, b).f64())
            .collect::<Vec<f64>>()
    };
    let (expected, found) = (numbers(expected), numbers(found));
    let differs = |(a, b): &(&f64, &f64)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    let both = || expected.iter().zip(&found);
    let Some(first) = both().position(|x| differs(&x)) else {
        return Ok(Agreement::Bits);
    };
    let words = |i: usize, why: &str| format!("element {i} is {}, expected {}{why}", found[i], expected[i]);
    let Some(terms) = terms.filter(|_| dtype.is_float()) else {
        return Err(words(first, ""));
    };
    let largest = expected
        .iter()
        .filter(|x| x.is_finite())
        .fold(0.0, |m: f64, x| m.max(x.abs()));
    let bound = terms * epsilon(dtype).max(epsilon(DType::F32)) * largest;
    // A result in fewer bits rounds once more.
    let bound = |e: f64| bound + epsilon(dtype) * e.abs();
    let wrong = both().position(|(e, f)| {
        let close = e == f || e.is_nan() && f.is_nan() || (e - f).abs() <= bound(*e);
        !close
    });
    match wrong {
        None => Ok(Agreement::Rounding),
        Some(i) => Err(words(i, &format!(" within {:.3e}", bound(expected[i])))),
    }
}

/// The distance from 1 to the next number.
fn epsilon(dtype: DType) -> f64 {
    let stands = |x: f64| {
        let mut bytes = [0; 8];
        encode(dtype, Number::Float(x), &mut bytes[..dtype.bytes()]);
        decode(dtype, &bytes[..dtype.bytes()]).f64() == x
    };
    let mut e = 1.0;
    while 1.0 + e / 2.0 > 1.0 && stands(1.0 + e / 2.0) {
        e /= 2.0;
    }
    e
}

/// The most terms of the sums of a kernel, one behind the other counted together; `None` where no sum of floats may be in another
/// order.
fn terms(kernel: &Kernel, sizes: &[i64]) -> Option<f64> {
    let number = |d: &brolga_ir::Dim| crate::kernels::number(d, &kernel.symbols, sizes).unwrap_or(i64::MAX) as f64;
    let free = |s: &&Stage| {
        let floats = s
            .combine
            .as_ref()
            .is_some_and(|c| c.free && c.body.inputs.iter().any(|t| t.is_float()));
        floats && s.dims.iter().any(|d| d.kind == IterKind::Reduction)
    };
    let length = |s: &Stage| -> f64 {
        let reduced = s.dims.iter().filter(|d| d.kind == IterKind::Reduction);
        reduced.map(|d| number(&d.extent)).product()
    };
    let all: Vec<f64> = kernel.stages().into_iter().filter(free).map(length).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(n: usize) -> Workload {
        let text = format!(
            "kernel @sum(o0: f32[4, {n}] in, o1: f32[4] out) outer(4) {{
               stage reduce({n}) {{
                 read o0[i0, i1]
                 body (v0: f32) {{ }} -> v0
                 combine free init(f32 0.0) (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                   merge (v0: f32, v1: f32) {{ v2 = add v0 v1 }} -> v2
                 write o1[i0]
               }}
             }}"
        );
        Workload::parse(&text).expect("a workload").0
    }

    fn copy() -> Workload {
        let text = "kernel @copy(o0: f32[4] in, o1: f32[4] out) outer(4) {
            stage { read o0[i0] body (v0: f32) { } -> v0 write o1[i0] }
        }";
        Workload::parse(text).expect("a workload").0
    }

    fn bytes(values: [f32; 4]) -> Vec<(usize, Vec<u8>)> {
        vec![(1, values.iter().flat_map(|x| x.to_le_bytes()).collect())]
    }

    #[test]
    fn sums_may_round_and_copies_may_not() {
        let exact = bytes([1.0, 2.0, 3.0, f32::NAN]);
        let rounded = bytes([1.0, 2.0, 3.000_001, f32::from_bits(f32::NAN.to_bits() | 1)]);
        let wrong = bytes([1.0, 2.1, 3.0, f32::NAN]);
        assert_eq!(agree(&sum(100), &[], &exact, &exact), Ok(Agreement::Bits));
        assert_eq!(agree(&sum(100), &[], &exact, &rounded), Ok(Agreement::Rounding));
        let error = agree(&sum(100), &[], &exact, &wrong).expect_err("it is wrong");
        assert!(error.starts_with("o1: element 1 is 2.0999"), "{error}");
        assert!(agree(&copy(), &[], &exact, &rounded).is_err());
        assert!(agree(&copy(), &[], &exact, &exact).is_ok());
    }

    #[test]
    fn the_next_number() {
        assert_eq!(epsilon(DType::F32), f64::from(f32::EPSILON));
        assert_eq!(epsilon(DType::F64), f64::EPSILON);
        assert_eq!(epsilon(DType::F16), 1.0 / 1024.0);
    }

    #[test]
    fn a_number_is_no_nan() {
        let exact = bytes([1.0, 2.0, 3.0, f32::NAN]);
        assert!(agree(&sum(100), &[], &exact, &bytes([1.0, 2.0, 3.0, 4.0])).is_err());
        assert!(agree(&sum(100), &[], &exact, &bytes([f32::NAN, 2.0, 3.0, f32::NAN])).is_err());
    }
}
