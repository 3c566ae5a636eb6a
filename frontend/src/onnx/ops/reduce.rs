//! The `Reduce…` operators, as compositions of the IR's reductions and element-wise functions.

use super::*;
use brolga_ir::{DType, Dim};

/// Any of `ReduceSum`, `ReduceMean`, `ReduceMax`, `ReduceMin`, `ReduceProd`, `ReduceL1`, `ReduceL2`, `ReduceLogSum`,
/// `ReduceLogSumExp`, `ReduceSumSquare`. Axes are an attribute in older versions, an operand in newer ones, which may be data.
pub fn reduce(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let given = match (ctx.optional(1), ctx.ints("axes")?) {
        (Some(v), _) if graph.dims_of(v).is_none() && !graph.ty(v).len().is(0) => return one(told(graph, ctx, x, v)),
        (Some(v), _) if graph.ty(v).len().is(0) => Some(vec![]),
        (Some(v), _) => Some(graph.ints_operand(v, "axes")?),
        (None, a) => a.map(<[i64]>::to_vec),
    };
    let axes: Vec<usize> = match given {
        Some(a) if !a.is_empty() => node::axes(&a, rank)?,
        _ if ctx.flag("noop_with_empty_axes", false)? => vec![],
        _ => (0..rank).collect(),
    };
    let y = compute(graph, ctx.op(), x, Axes::Known(&axes))?;
    one(if ctx.flag("keepdims", true)? {
        Ok(y)
    } else {
        graph.squeeze(y, &axes)
    })
}

/// What is reduced over.
#[derive(Clone, Copy)]
enum Axes<'a> {
    Known(&'a [usize]),
    /// Whether each axis is one of them, bools of rank 0.
    Told(&'a [Value]),
}

/// A reduction over axes that data tell. A dimension that may be one of them keeps its extent, or gets one of 1, until all is
/// computed; its size is then read.
fn told(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, axes: Value) -> One {
    if !ctx.flag("keepdims", true)? {
        return unsupported("axes computed from data, whose dimensions are not kept");
    }
    let shape = graph.shape(x);
    let axes = graph.axes_in_run(axes, shape.len())?;
    let n = graph.ty(axes).len();
    let axes = graph.reshape(axes, vec![n])?;
    let mut flags = vec![];
    for a in 0..shape.len() {
        let named = graph.map_num("equal", axes, a as i64)?;
        let named = graph.reduce("or", &[0], named)?;
        flags.push(graph.reshape(named, vec![])?);
    }
    let mut y = compute(graph, ctx.op(), x, Axes::Told(&flags))?;
    for (a, (n, flag)) in shape.iter().zip(&flags).enumerate() {
        let (one, whole) = (graph.scalar(DType::I64, 1), graph.dim_scalar(n, DType::I64)?);
        let size = graph.map("where", &[*flag, one, whole])?;
        let size = graph.read(size, Some(graph.shape(y)[a].clone()))?;
        y = graph.slice_axis(y, a, Dim::ZERO, size)?;
    }
    Ok(y)
}

/// A reduction of some kind, or the mean.
fn along(graph: &mut Builder<'_>, kind: &str, axes: Axes<'_>, x: Value) -> One {
    let over = |graph: &mut Builder<'_>, axes: &[usize], x: Value| match kind {
        "mean" => graph.mean(axes, x),
        _ => graph.reduce(kind, axes, x),
    };
    let flags = match axes {
        Axes::Known(axes) => return over(graph, axes, x),
        Axes::Told(flags) => flags,
    };
    let mut y = x;
    for (a, &flag) in flags.iter().enumerate() {
        let reduced = over(graph, &[a], y)?;
        // An empty dimension has one element where it is reduced.
        let n = graph.shape(y)[a].clone();
        let rank = graph.rank(y);
        let mut high = vec![Dim::ZERO; rank];
        high[a] = &Dim::max(&n, &Dim::ONE) - &n;
        let kept = graph.pad(y, vec![Dim::ZERO; rank], high, vec![0; rank], 0)?;
        y = graph.map("where", &[flag, reduced, kept])?;
    }
    Ok(y)
}

fn compute(graph: &mut Builder<'_>, op: &str, x: Value, axes: Axes<'_>) -> One {
    let dtype = graph.dtype(x);
    match op {
        "ReduceSum" => along(graph, "sum", axes, x),
        "ReduceMean" => along(graph, "mean", axes, x),
        "ReduceProd" => along(graph, "prod", axes, x),
        "ReduceMax" if dtype == DType::Bool => along(graph, "or", axes, x),
        "ReduceMin" if dtype == DType::Bool => along(graph, "and", axes, x),
        "ReduceMax" => along(graph, "max", axes, x),
        "ReduceMin" => along(graph, "min", axes, x),
        "ReduceL1" => {
            let a = graph.op("abs", &[], &[x])?;
            along(graph, "sum", axes, a)
        }
        "ReduceSumSquare" => {
            let a = graph.map("mul", &[x, x])?;
            along(graph, "sum", axes, a)
        }
        "ReduceL2" => {
            let wide = float(graph, x)?;
            let a = graph.map("mul", &[wide, wide])?;
            let s = along(graph, "sum", axes, a)?;
            let r = graph.op("sqrt", &[], &[s])?;
            graph.cast(r, dtype)
        }
        "ReduceLogSum" => {
            let wide = float(graph, x)?;
            let s = along(graph, "sum", axes, wide)?;
            let r = graph.op("log", &[], &[s])?;
            graph.cast(r, dtype)
        }
        "ReduceLogSumExp" => {
            // log Σ exp x = m + log Σ exp(x - m), with m = max x where that is finite and 0 elsewhere.
            let wide = float(graph, x)?;
            let max = along(graph, "max", axes, wide)?;
            let infinite = graph.op("is_inf", &[], &[max])?;
            let zero = graph.scalar(graph.dtype(wide), 0.0);
            let m = graph.map("where", &[infinite, zero, max])?;
            let d = graph.map("sub", &[wide, m])?;
            let e = graph.op("exp", &[], &[d])?;
            let s = along(graph, "sum", axes, e)?;
            let l = graph.op("log", &[], &[s])?;
            let r = graph.map("add", &[l, m])?;
            graph.cast(r, dtype)
        }
        _ => unreachable!("`{op}` is not in the table with this function"),
    }
}

/// The value as a float of at least 32 bits.
fn float(graph: &mut Builder<'_>, x: Value) -> One {
    match graph.dtype(x) {
        DType::F32 | DType::F64 => Ok(x),
        d if d.is_half() => graph.cast(x, DType::F32),
        _ => graph.cast(x, DType::F64),
    }
}
