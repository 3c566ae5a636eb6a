//! What operators share when they check shapes and walk indices: axis lists, extents, strides.
//!
//! Every check is on symbolic extents and decides structurally: what cannot be shown equal is reported as unequal. An
//! evaluation checks again with every extent known, so walks need no checks of their own.

use crate::{DType, Dim, Number, Tensor, Type};

/// A list of dims in an error message.
pub fn list(dims: &[Dim]) -> String {
    let parts: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", parts.join(", "))
}

/// Checks the length of an attribute's list.
pub fn check_len(what: &str, found: usize, want: usize) -> Result<(), String> {
    if found == want {
        Ok(())
    } else {
        Err(format!("{what} has {found} entries, expected {want}"))
    }
}

/// Checks that axes are distinct and below a rank.
pub fn check_axes(what: &str, axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut out: Vec<usize> = vec![];
    for &a in axes {
        let a = super::check_axis(a, rank).map_err(|e| format!("{what}: {e}"))?;
        if out.contains(&a) {
            return Err(format!("{what} {axes:?} names axis {a} twice"));
        }
        out.push(a);
    }
    Ok(out)
}

/// The largest known extent or padding: no address space holds more, and sums of a few never reach where dims saturate.
const MAX_EXTENT: i64 = 1 << 47;

/// Checks that no known extent is negative or beyond reason.
pub fn check_extents(what: &str, shape: &[Dim]) -> Result<(), String> {
    check_known(what, shape, 0)
}

/// Checks that no known padding is beyond reason; negative ones crop.
pub fn check_pads(what: &str, pads: &[Dim]) -> Result<(), String> {
    check_known(what, pads, -MAX_EXTENT)
}

fn check_known(what: &str, dims: &[Dim], min: i64) -> Result<(), String> {
    let good = |c: i64| (min..=MAX_EXTENT).contains(&c);
    match dims.iter().find(|d| d.as_const().is_some_and(|c| !good(c))) {
        Some(d) => Err(format!(
            "{what} {} holds {d}, expected {min} to {MAX_EXTENT}",
            list(dims)
        )),
        None => Ok(()),
    }
}

/// Checks that every number of a list is at least `min`, and no more than 2^31 - 1: strides, dilations and their like.
pub fn check_steps(what: &str, xs: &[i64], min: i64) -> Result<(), String> {
    let max = i32::MAX as i64;
    match xs.iter().find(|x| !(min..=max).contains(x)) {
        Some(x) => Err(format!("{what} {xs:?} holds {x}, expected {min} to {max}")),
        None => Ok(()),
    }
}

/// Checks that an operand is of a floating-point type.
pub fn check_float(what: &str, found: &Type) -> Result<(), String> {
    if found.dtype.is_float() {
        Ok(())
    } else {
        Err(format!("{what} is {found}, expected a float dtype"))
    }
}

/// Checks that an operand can hold indices.
pub fn check_index(what: &str, found: &Type) -> Result<(), String> {
    if found.dtype.is_int() {
        Ok(())
    } else {
        Err(format!("{what} are {found}, expected an integer dtype"))
    }
}

/// Checks that an operand has a dtype and a shape.
pub fn check_type(what: &str, found: &Type, dtype: DType, shape: &[Dim]) -> Result<(), String> {
    if found.dtype == dtype && found.shape == shape {
        Ok(())
    } else {
        Err(format!("{what} is {found}, expected {dtype}{}", list(shape)))
    }
}

/// Checks that an operand has at least a rank.
pub fn check_rank(what: &str, found: &Type, min: usize) -> Result<(), String> {
    if found.rank() >= min {
        Ok(())
    } else {
        Err(format!("{what} is {found}, expected rank {min} or more"))
    }
}

/// Checks that there is an element to index, unless the result is known to have none.
pub fn check_indexable(extent: &Dim, result: &[Dim]) -> Result<(), String> {
    if extent.is(0) && !result.iter().any(|d| d.is(0)) {
        return Err("an empty dimension is indexed, expected at least one element".to_string());
    }
    Ok(())
}

/// True when `a > b` can be shown. What symbols leave open is a guard of the graph, checked before it runs.
pub fn is_larger(a: &Dim, b: &Dim) -> bool {
    (a - b).is_at_least(1)
}

/// The extents of `small` and of `large`, of the same rank, but for an axis.
pub fn but_for(axis: usize, small: &Type, large: &Type) -> Vec<(Dim, Dim)> {
    let both = small.shape.iter().cloned().zip(large.shape.iter().cloned());
    let others = both.enumerate().filter(|(d, _)| *d != axis);
    others.map(|(_, pair)| pair).collect()
}

/// The extents, which are all known in an evaluation.
pub fn known(shape: &[Dim]) -> Vec<usize> {
    crate::dim::constants(shape).expect("an evaluation has known extents")
}

/// The row-major strides of a shape, in elements.
pub fn strides(shape: &[usize]) -> Vec<i64> {
    let mut out = vec![1i64; shape.len()];
    for d in (1..shape.len()).rev() {
        out[d - 1] = out[d] * shape[d] as i64;
    }
    out
}

/// Calls `f` with `base + Σ index·strides` for every index of `shape`, in row-major order.
pub fn walk(shape: &[usize], base: i64, strides: &[i64], mut f: impl FnMut(usize)) {
    let (Some((&inner, outer)), Some((&step, steps))) = (shape.split_last(), strides.split_last()) else {
        return f(base as usize);
    };
    if shape.contains(&0) {
        return;
    }
    let (mut index, mut row) = (vec![0; outer.len()], base);
    loop {
        for i in 0..inner as i64 {
            f((row + i * step) as usize);
        }
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            row += steps[d];
            if index[d] < outer[d] {
                break;
            }
            row -= steps[d] * outer[d] as i64;
            index[d] = 0;
        }
    }
}

/// The tensor of `shape` whose element at an index is `x`'s element at position `base + Σ index·strides`.
pub fn pick(x: &Tensor, shape: &[usize], base: i64, strides: &[i64]) -> Tensor {
    let (n, src) = (x.dtype().bytes(), x.bytes());
    let mut bytes = Vec::with_capacity(n * shape.iter().product::<usize>());
    walk(shape, base, strides, |p| {
        bytes.extend_from_slice(&src[p * n..(p + 1) * n])
    });
    Tensor::new(x.dtype(), shape.to_vec(), bytes).expect("one element for every index")
}

/// `x` with its axes permuted: axis `d` of the result is axis `perm[d]` of `x`.
pub fn permuted(x: &Tensor, perm: &[usize]) -> Tensor {
    let s = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|&p| x.shape()[p]).collect();
    pick(x, &shape, 0, &perm.iter().map(|&p| s[p]).collect::<Vec<_>>())
}

/// The element along an axis that an index from data names; a negative index counts from the end.
///
/// # Errors
/// When it names none.
pub fn element(index: Number, axis: usize, extent: usize) -> Result<usize, String> {
    let (i, n) = (index.int(), extent as i128);
    let wrapped = if i < 0 { i + n } else { i };
    if (0..n).contains(&wrapped) {
        return Ok(wrapped as usize);
    }
    let expected = match extent {
        0 => "but the axis is empty".to_string(),
        _ => format!("expected {} to {}", -n, n - 1),
    };
    Err(format!("index {i} along axis {axis} is out of range, {expected}"))
}
