//! What decompositions share: element-wise calls, casts, sums and means that keep their dimensions, channel vectors.

use super::Attr;
use crate::{Build, DType, Dim, Value, dim};

/// An element-wise function of operands of one shape.
pub fn map(b: &mut dyn Build, name: &str, operands: &[Value]) -> Result<Value, String> {
    b.call(name, &[], operands)
}

/// `x` in another dtype; `x` itself when it has it.
pub fn cast(b: &mut dyn Build, x: Value, to: DType) -> Result<Value, String> {
    if b.type_of(x).dtype == to {
        Ok(x)
    } else {
        b.call("cast", &[Attr::DType(to)], &[x])
    }
}

/// `x` combined over axes.
pub fn reduce(b: &mut dyn Build, kind: &str, x: Value, axes: &[usize]) -> Result<Value, String> {
    b.call("reduce", &[Attr::word(kind), Attr::axes(axes)], &[x])
}

/// An element-wise function of `x` and a `y` that is broadcast to `x`'s shape.
pub fn with_spread(b: &mut dyn Build, name: &str, x: Value, y: Value) -> Result<Value, String> {
    let shape = b.type_of(x).shape;
    let y = b.spread(y, &shape)?;
    map(b, name, &[x, y])
}

/// An element-wise function of `x` and a number.
pub fn with_number(b: &mut dyn Build, name: &str, x: Value, y: f64) -> Result<Value, String> {
    let ty = b.type_of(x);
    let y = b.splat(ty.dtype, &ty.shape, y)?;
    map(b, name, &[x, y])
}

/// The mean of a float `x` over axes, whose extents may be symbolic.
pub fn mean(b: &mut dyn Build, x: Value, axes: &[usize]) -> Result<Value, String> {
    let ty = b.type_of(x);
    let n = dim::product(axes.iter().map(|&a| &ty.shape[a]));
    let sum = reduce(b, "sum", x, axes)?;
    if let Some(n) = n.as_const() {
        return with_number(b, "div", sum, n as f64);
    }
    let n = b.call("dims", &[Attr::Dims(vec![n])], &[])?;
    let n = cast(b, n, ty.dtype)?;
    let n = b.call("reshape", &[Attr::Dims(vec![Dim::ONE; ty.rank()])], &[n])?;
    with_spread(b, "div", sum, n)
}

/// `1 / sqrt(x + eps)`.
pub fn inverse_root(b: &mut dyn Build, x: Value, eps: f64) -> Result<Value, String> {
    let x = with_number(b, "add", x, eps)?;
    let x = map(b, "sqrt", &[x])?;
    map(b, "reciprocal", &[x])
}

/// A vector of channels `[C]` spread over the shape of `x`, whose dim 1 they are.
pub fn channels(b: &mut dyn Build, v: Value, x: Value) -> Result<Value, String> {
    let shape = b.type_of(x).shape;
    let mut wide = vec![Dim::ONE; shape.len()];
    wide[1] = shape[1].clone();
    let v = b.call("reshape", &[Attr::Dims(wide)], &[v])?;
    b.spread(v, &shape)
}
