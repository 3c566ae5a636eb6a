//! Normalisations: batch, layer, RMS, group, instance, local response, Lp, mean-variance.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `BatchNormalization`, by given statistics; with `training_mode` by those of the batch, whose running means are further
/// results.
pub fn batch(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(5, 5)?;
    let x = channels_of(graph, ctx.input(0)?, ctx.input(1)?)?;
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = graph.dtype(x);
    let channels = graph.shape(x)[1..2].to_vec();
    if !ctx.flag("spatial", true)? {
        return unsupported("spatial = 0");
    }
    let mut operands = vec![x];
    if !ctx.flag("training_mode", false)? {
        for i in 1..5 {
            let v = graph.fit_shape(ctx.input(i)?, &channels)?;
            operands.push(graph.cast(v, dtype)?);
        }
        return one(graph.op("batch_norm", &[Attr::num(eps)], &operands));
    }
    let axes: Vec<usize> = (0..graph.rank(x)).filter(|&a| a != 1).collect();
    let (mean, var) = moments(graph, x, &axes)?;
    let flat = |graph: &mut Builder<'_>, v: Value| graph.squeeze(v, &axes);
    let (mean, var) = (flat(graph, mean)?, flat(graph, var)?);
    for v in [ctx.input(1)?, ctx.input(2)?, mean, var] {
        let v = graph.fit_shape(v, &channels)?;
        operands.push(graph.cast(v, dtype)?);
    }
    let y = graph.op("batch_norm", &[Attr::num(eps)], &operands)?;
    let momentum = ctx.float("momentum", 0.9)?;
    let mut out = vec![y];
    for (old, new) in [(ctx.input(3)?, mean), (ctx.input(4)?, var)] {
        let old = graph.fit_shape(old, &channels)?;
        let kept = graph.map_num("mul", old, momentum)?;
        let new = graph.cast(new, graph.dtype(old))?;
        let fresh = graph.map_num("mul", new, 1.0 - momentum)?;
        out.push(graph.map("add", &[kept, fresh])?);
    }
    Ok(out)
}

/// A tensor [N, C, …] with as many channels as a vector of parameters has elements.
fn channels_of(graph: &mut Builder<'_>, x: Value, parameter: Value) -> One {
    if graph.rank(x) < 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2 or more", graph.ty(x))));
    }
    match &graph.shape(parameter)[..] {
        [c] if graph.shape(x)[1].as_const().is_none() => graph.fit(x, 1, c),
        _ => Ok(x),
    }
}

/// Mean and variance over axes, dimensions kept; in f32 for 16-bit floats.
pub fn moments(graph: &mut Builder<'_>, x: Value, axes: &[usize]) -> Result<(Value, Value), Fail> {
    let x = graph.widen(x)?;
    let mean = graph.mean(axes, x)?;
    let d = graph.map("sub", &[x, mean])?;
    let sq = graph.map("mul", &[d, d])?;
    Ok((mean, graph.mean(axes, sq)?))
}

/// `LayerNormalization`, with the optional results mean and inverse standard deviation.
pub fn layer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let axis = node::axis(ctx.int("axis", -1)?, graph.rank(ctx.input(0)?))?;
    let x = rows_of(graph, ctx.input(0)?, ctx.input(1)?, axis)?;
    let shape = graph.shape(x);
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = graph.dtype(x);
    let inner = &shape[axis..];
    let scale = parameter(graph, ctx.input(1)?, dtype, inner)?;
    let bias = match ctx.optional(2) {
        Some(b) => parameter(graph, b, dtype, inner)?,
        // x + -0 is x, and x + 0 is not.
        None => graph.splat(dtype, inner, -0.0)?,
    };
    let mut out = vec![graph.op(
        "layer_norm",
        &[Attr::Int(axis as i64), Attr::num(eps)],
        &[x, scale, bias],
    )?];
    if ctx.wants(1) || ctx.wants(2) {
        let axes: Vec<usize> = (axis..shape.len()).collect();
        let (mean, var) = moments(graph, x, &axes)?;
        let v = graph.map_num("add", var, eps)?;
        let sd = graph.op("sqrt", &[], &[v])?;
        out.push(mean);
        out.push(graph.op("reciprocal", &[], &[sd])?);
    }
    Ok(out)
}

/// A tensor with the known extents of its parameter from an axis on.
pub fn rows_of(graph: &mut Builder<'_>, x: Value, parameter: Value, axis: usize) -> One {
    let known = graph.shape(parameter);
    let (rank, mut x) = (graph.rank(x), x);
    for (back, d) in (1..=rank - axis).zip(known.iter().rev()) {
        if d.as_const().is_some_and(|c| c != 1) && graph.shape(x)[rank - back].as_const().is_none() {
            x = graph.fit(x, rank - back, d)?;
        }
    }
    Ok(x)
}

/// A parameter in a dtype, spread over the extents that are normalised.
pub fn parameter(graph: &mut Builder<'_>, v: Value, dtype: DType, shape: &[Dim]) -> One {
    let v = graph.cast(v, dtype)?;
    graph.spread(v, shape)
}

/// `RMSNormalization`.
pub fn rms(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let axis = node::axis(ctx.int("axis", -1)?, graph.rank(ctx.input(0)?))?;
    let x = rows_of(graph, ctx.input(0)?, ctx.input(1)?, axis)?;
    let shape = graph.shape(x);
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = graph.dtype(x);
    let scale = parameter(graph, ctx.input(1)?, dtype, &shape[axis..])?;
    one(graph.op("rms_norm", &[Attr::Int(axis as i64), Attr::num(eps)], &[x, scale]))
}

/// `SimplifiedLayerNormalization`, which exporters wrote before version 23 had `RMSNormalization`; with the inverse root as an optional
/// result.
pub fn simplified(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let mut out = rms(graph, ctx)?;
    if ctx.wants(1) {
        let x = graph.widen(ctx.input(0)?)?;
        let axis = node::axis(ctx.int("axis", -1)?, graph.rank(x))?;
        let axes: Vec<usize> = (axis..graph.rank(x)).collect();
        let square = graph.map("mul", &[x, x])?;
        let mean = graph.mean(&axes, square)?;
        let mean = graph.map_num("add", mean, ctx.float("epsilon", 1e-5)?)?;
        let root = graph.op("sqrt", &[], &[mean])?;
        out.push(graph.op("reciprocal", &[], &[root])?);
    }
    Ok(out)
}

/// `GroupNormalization`: scale and bias belong to groups before version 21, to channels since.
pub fn group(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let groups = ctx.opt_int("num_groups")?.ok_or("attribute `num_groups` is missing")?;
    grouped(graph, ctx, Some(groups))
}

/// `InstanceNormalization`: every channel is a group.
pub fn instance(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    grouped(graph, ctx, None)
}

fn grouped(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, groups: Option<i64>) -> Outcome {
    let mut x = ctx.input(0)?;
    // Where scale and bias belong to groups, they do not tell the channels.
    if groups.is_none() || ctx.version >= 21 {
        x = channels_of(graph, x, ctx.input(1)?)?;
    }
    let Some(channels) = graph.shape(x).get(1).cloned() else {
        return Err(Fail::Bad(format!("{}, expected rank 2 or more", graph.ty(x))));
    };
    let Some(c) = channels.as_const() else {
        return unsupported("a symbolic number of channels");
    };
    let groups = groups.unwrap_or(c);
    if groups < 1 || c % groups != 0 {
        return Err(Fail::Bad(format!("{groups} groups of {c} channels")));
    }
    let dtype = graph.dtype(x);
    let mut operands = vec![x];
    for i in 1..3 {
        let mut v = graph.cast(ctx.input(i)?, dtype)?;
        if ctx.version < 21 && groups != c && graph.shape(v) == [Dim::Const(groups)] {
            v = graph.unsqueeze(v, &[1])?;
            v = graph.spread(v, &[Dim::Const(groups), Dim::Const(c / groups)])?;
            v = graph.reshape(v, vec![channels.clone()])?;
        }
        operands.push(v);
    }
    let eps = ctx.float("epsilon", 1e-5)?;
    one(graph.op("group_norm", &[Attr::Int(groups), Attr::num(eps)], &operands))
}

/// `LRN`.
pub fn lrn(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let attrs = [
        Attr::Int(ctx.opt_int("size")?.ok_or("attribute `size` is missing")?),
        Attr::num(ctx.float("alpha", 1e-4)?),
        Attr::num(ctx.float("beta", 0.75)?),
        Attr::num(ctx.float("bias", 1.0)?),
    ];
    one(graph.op("lrn", &attrs, &[ctx.input(0)?]))
}

/// `LpNormalization`: by the 1-norm or the 2-norm along an axis; where that is 0, the result is 0.
pub fn lp(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", -1)?, graph.rank(x))?;
    let norm = match ctx.int("p", 2)? {
        1 => {
            let a = graph.op("abs", &[], &[x])?;
            graph.reduce("sum", &[axis], a)?
        }
        2 => {
            let sq = graph.map("mul", &[x, x])?;
            let s = graph.reduce("sum", &[axis], sq)?;
            graph.op("sqrt", &[], &[s])?
        }
        p => return Err(Fail::Bad(format!("p = {p}, expected 1 or 2"))),
    };
    let y = graph.map("div", &[x, norm])?;
    let none = graph.map_num("equal", norm, 0.0)?;
    let zero = graph.scalar(graph.dtype(x), 0.0);
    one(graph.map("where", &[none, zero, y]))
}

/// `MeanVarianceNormalization`: `(x - mean) / (sd + 1e-9)`.
pub fn mean_variance(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axes = node::axes(ctx.ints("axes")?.unwrap_or(&[0, 2, 3]), graph.rank(x))?;
    let (mean, var) = moments(graph, x, &axes)?;
    let wide = graph.widen(x)?;
    let d = graph.map("sub", &[wide, mean])?;
    let sd = graph.op("sqrt", &[], &[var])?;
    let sd = graph.map_num("add", sd, 1e-9)?;
    let y = graph.map("div", &[d, sd])?;
    one(graph.cast(y, graph.dtype(x)))
}
