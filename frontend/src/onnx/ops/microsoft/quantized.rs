//! Operators on bytes with a scale and a zero point, which compute in f32 and round as ONNX Runtime does. Where it folds a zero point into
//! a sum before rounding, so do these: a tie then goes to the even result, not to the even distance from the zero point.

use super::super::quantize::{self as onnx, range};
use super::super::{activation, node, pool};
use super::product::channels_last;
use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// Bytes with their parameters as scalars.
#[derive(Clone, Copy)]
struct Quantised {
    bytes: Value,
    scale: Value,
    zero: Option<Value>,
}

/// Parameters of a result as scalars.
#[derive(Clone, Copy)]
struct Target {
    scale: Value,
    zero: Option<Value>,
    dtype: DType,
}

/// A parameter for the whole tensor.
fn whole(graph: &mut Builder<'_>, v: Value) -> One {
    if !product(&graph.shape(v)).is(1) {
        return Err(Fail::Bad(format!(
            "parameter {}, expected a single element",
            graph.ty(v)
        )));
    }
    graph.reshape(v, vec![])
}

/// An optional one, none where it is 0.
fn zero(graph: &mut Builder<'_>, v: Option<Value>) -> Result<Option<Value>, Fail> {
    match v.filter(|&z| !graph.is_zero(z)) {
        Some(z) => whole(graph, z).map(Some),
        None => Ok(None),
    }
}

/// The operand of a position with its parameters behind it.
fn operand(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, i: usize) -> Result<Quantised, Fail> {
    let bytes = ctx.input(i)?;
    Ok(Quantised {
        bytes,
        scale: whole(graph, ctx.input(i + 1)?)?,
        zero: zero(graph, ctx.optional(i + 2))?,
    })
}

fn target(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, i: usize, dtype: DType) -> Result<Target, Fail> {
    Ok(Target {
        scale: whole(graph, ctx.input(i)?)?,
        zero: zero(graph, ctx.optional(i + 1))?,
        dtype,
    })
}

/// Bytes less their zero point, as floats.
fn centred(graph: &mut Builder<'_>, x: &Quantised) -> One {
    let y = graph.cast(x.bytes, DType::F32)?;
    match x.zero {
        Some(z) => {
            let z = graph.cast(z, DType::F32)?;
            graph.map("sub", &[y, z])
        }
        None => Ok(y),
    }
}

fn dequantised(graph: &mut Builder<'_>, x: &Quantised) -> One {
    let y = centred(graph, x)?;
    graph.map("mul", &[y, x.scale])
}

fn quantised(graph: &mut Builder<'_>, y: Value, to: &Target) -> One {
    graph.quantized(y, to.scale, to.zero, to.dtype)
}

/// What was scaled and shifted, rounded and bounded.
fn rounded(graph: &mut Builder<'_>, y: Value, to: DType) -> One {
    let (low, high) = range(to)?;
    let y = graph.op("round", &[], &[y])?;
    let y = graph.map_num("max", y, low)?;
    let y = graph.map_num("min", y, high)?;
    graph.cast(y, to)
}

/// A zero point as a float, 0 where there is none.
fn zero_of(graph: &mut Builder<'_>, z: Option<Value>) -> One {
    match z {
        Some(z) => graph.cast(z, DType::F32),
        None => Ok(graph.scalar(DType::F32, 0.0)),
    }
}

/// `QLinearAdd`: `a (A / C) + (b (B / C) + rest)` with what the zero points make of it in `rest`.
pub fn add(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(7, 8)?;
    let (a, b) = (operand(graph, ctx, 0)?, operand(graph, ctx, 3)?);
    let to = target(graph, ctx, 6, graph.dtype(a.bytes))?;
    let mut rest = zero_of(graph, to.zero)?;
    let (mut terms, mut taken) = (vec![], vec![]);
    for x in [&a, &b] {
        let ratio = graph.map("div", &[x.scale, to.scale])?;
        let z = zero_of(graph, x.zero)?;
        taken.push(graph.map("mul", &[ratio, z])?);
        let bytes = graph.cast(x.bytes, DType::F32)?;
        terms.push(graph.map("mul", &[bytes, ratio])?);
    }
    let taken = graph.map("add", &taken)?;
    rest = graph.map("sub", &[rest, taken])?;
    let y = graph.map("add", &[terms[1], rest])?;
    let y = graph.map("add", &[terms[0], y])?;
    one(rounded(graph, y, to.dtype))
}

/// `QLinearMul`.
pub fn mul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(7, 8)?;
    let (a, b) = (operand(graph, ctx, 0)?, operand(graph, ctx, 3)?);
    let to = target(graph, ctx, 6, graph.dtype(a.bytes))?;
    let scale = graph.map("mul", &[a.scale, b.scale])?;
    let scale = graph.map("div", &[scale, to.scale])?;
    let (x, y) = (centred(graph, &a)?, centred(graph, &b)?);
    let y = graph.map("mul", &[x, y])?;
    let mut y = graph.map("mul", &[y, scale])?;
    if to.zero.is_some() {
        let z = zero_of(graph, to.zero)?;
        y = graph.map("add", &[y, z])?;
    }
    one(rounded(graph, y, to.dtype))
}

/// The same numbers under the parameters of a result.
fn requantised(graph: &mut Builder<'_>, x: &Quantised, to: &Target) -> One {
    let mut same = |a: Value, b: Value| a == b || graph.contents(a).is_some_and(|a| graph.contents(b) == Some(a));
    let zeros = match (x.zero, to.zero) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a == b,
    };
    if zeros && same(x.scale, to.scale) {
        return Ok(x.bytes);
    }
    let y = dequantised(graph, x)?;
    quantised(graph, y, to)
}

/// `QLinearConcat`: the result's parameters, then parts with theirs.
pub fn concat(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let n = ctx.inputs.len();
    if n < 5 || !(n - 2).is_multiple_of(3) && !(n - 1).is_multiple_of(3) {
        return Err(Fail::Bad(format!("{n} operands, expected two and three for each part")));
    }
    let mut parts = vec![];
    for i in (2..n).step_by(3) {
        let x = operand(graph, ctx, i)?;
        let to = target(graph, ctx, 0, graph.dtype(x.bytes))?;
        parts.push(requantised(graph, &x, &to)?);
    }
    let axis = ctx.opt_int("axis")?.ok_or("attribute `axis` is missing")?;
    let axis = node::axis(axis, graph.rank(parts[0]))?;
    one(graph.concat(axis, &parts))
}

/// `QLinearWhere`.
pub fn select(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(8, 9)?;
    let (x, y) = (operand(graph, ctx, 1)?, operand(graph, ctx, 4)?);
    let to = target(graph, ctx, 7, graph.dtype(x.bytes))?;
    let (x, y) = (requantised(graph, &x, &to)?, requantised(graph, &y, &to)?);
    one(graph.map("where", &[ctx.input(0)?, x, y]))
}

/// A function of the numbers that bytes stand for, of operands x, its parameters, and those of the result.
fn function(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    f: impl Fn(&mut Builder<'_>, &NodeCtx<'_>, Value) -> One,
) -> Outcome {
    ctx.arity(4, 5)?;
    let x = operand(graph, ctx, 0)?;
    let to = target(graph, ctx, 3, graph.dtype(x.bytes))?;
    let y = dequantised(graph, &x)?;
    let y = f(graph, &ctx.with(vec![Some(y)]), y)?;
    one(quantised(graph, y, &to))
}

/// `QLinearLeakyRelu`.
pub fn leaky_relu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    function(graph, ctx, |graph, ctx, _| Ok(activation::leaky_relu(graph, ctx)?[0]))
}

/// `QLinearSigmoid`.
pub fn sigmoid(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    function(graph, ctx, |graph, _, x| graph.op("sigmoid", &[], &[x]))
}

/// `QLinearSoftmax`: along an axis, or over all from an axis on before version 13 of the operator that it stands for.
pub fn softmax(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    function(graph, ctx, |graph, ctx, x| {
        let version = ctx.opt_int("opset")?.ok_or("attribute `opset` is missing")?;
        let shape = graph.shape(x);
        let axis = node::axis(ctx.int("axis", if version < 13 { 1 } else { -1 })?, shape.len())?;
        let softmax = |graph: &mut Builder<'_>, axis: usize, x: Value| {
            graph.op("softmax", &[Attr::Int(axis as i64), Attr::word("never")], &[x])
        };
        if version >= 13 {
            return softmax(graph, axis, x);
        }
        let flat = graph.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])])?;
        let y = softmax(graph, 1, flat)?;
        graph.reshape(y, shape)
    })
}

/// `QLinearAveragePool`.
pub fn average_pool(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let pooled = |graph: &mut Builder<'_>, ctx: &NodeCtx<'_>| {
        function(graph, ctx, |graph, ctx, _| Ok(pool::average_of_kernel(graph, ctx)?[0]))
    };
    match ctx.flag("channels_last", false)? {
        true => channels_last(graph, ctx, &[0], pooled),
        false => pooled(graph, ctx),
    }
}

/// `QLinearGlobalAveragePool`: the sum of bytes, exact in i32, scaled and rounded once.
pub fn global_average_pool(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(5, 5)?;
    let rank = graph.rank(ctx.input(0)?);
    let axes: Vec<usize> = match ctx.flag("channels_last", false)? {
        true => (1..rank.saturating_sub(1)).collect(),
        false => (2..rank).collect(),
    };
    one(mean(graph, ctx, &axes))
}

/// `QLinearReduceMean`.
pub fn reduce_mean(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(4, 5)?;
    let rank = graph.rank(ctx.input(0)?);
    let axes = match ctx.ints("axes")?.filter(|a| !a.is_empty()) {
        Some(list) => node::axes(list, rank)?,
        None => (0..rank).collect(),
    };
    let y = mean(graph, ctx, &axes)?;
    one(match ctx.flag("keepdims", true)? {
        true => Ok(y),
        false => graph.squeeze(y, &axes),
    })
}

fn mean(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, axes: &[usize]) -> One {
    let x = operand(graph, ctx, 0)?;
    let to = target(graph, ctx, 3, graph.dtype(x.bytes))?;
    let shape = graph.shape(x.bytes);
    let n: Dim = product(axes.iter().map(|&a| &shape[a]));
    let wide = graph.cast(x.bytes, DType::I32)?;
    let mut sum = graph.reduce("sum", axes, wide)?;
    if let Some(z) = x.zero {
        let n = graph.dim_scalar(&n, DType::I32)?;
        let z = graph.cast(z, DType::I32)?;
        let z = graph.map("mul", &[z, n])?;
        sum = graph.map("sub", &[sum, z])?;
    }
    let n = graph.dim_scalar(&n, DType::F32)?;
    let by = graph.map("mul", &[to.scale, n])?;
    let by = graph.map("div", &[x.scale, by])?;
    let y = graph.cast(sum, DType::F32)?;
    let y = graph.map("mul", &[y, by])?;
    let mut y = graph.op("round", &[], &[y])?;
    if to.zero.is_some() {
        let z = zero_of(graph, to.zero)?;
        y = graph.map("add", &[y, z])?;
    }
    rounded(graph, y, to.dtype)
}

/// `QLinearConv`, which may have its channels last.
pub fn conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    match ctx.flag("channels_last", false)? {
        true => channels_last(graph, ctx, &[0], onnx::qlinear_conv),
        false => onnx::qlinear_conv(graph, ctx),
    }
}

/// `QuantizeLinear`, to 16 bits too; for each index of an axis only where that is named.
pub fn quantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    per_axis(graph, ctx)?;
    onnx::quantize(graph, ctx)
}

/// `DequantizeLinear`, likewise.
pub fn dequantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    per_axis(graph, ctx)?;
    onnx::dequantize(graph, ctx)
}

/// Checks that parameters of many elements have an axis.
fn per_axis(graph: &Builder<'_>, ctx: &NodeCtx<'_>) -> Result<(), Fail> {
    let scale = ctx.input(1)?;
    match ctx.opt_int("axis")?.is_some() || product(&graph.shape(scale)).is(1) {
        true => Ok(()),
        false => Err(Fail::Bad(format!(
            "scales {} without the attribute `axis`",
            graph.ty(scale)
        ))),
    }
}
