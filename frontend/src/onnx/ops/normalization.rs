//! Normalisations: batch, layer, RMS, group, instance, local response, Lp, mean-variance.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `BatchNormalization`, by given statistics; with `training_mode` by those of the batch, whose running means are further
/// results.
pub fn batch<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(5, 5)?;
    let x = channels_of(im, ctx.input(0)?, ctx.input(1)?)?;
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = im.dtype(x);
    let channels = im.shape(x)[1..2].to_vec();
    if !ctx.flag("spatial", true)? {
        return unsupported("spatial = 0");
    }
    let mut operands = vec![x];
    if !ctx.flag("training_mode", false)? {
        for i in 1..5 {
            let v = im.fit_shape(ctx.input(i)?, &channels)?;
            operands.push(im.cast(v, dtype)?);
        }
        return one(im.op("batch_norm", &[Attr::num(eps)], &operands));
    }
    let axes: Vec<usize> = (0..im.rank(x)).filter(|&a| a != 1).collect();
    let (mean, var) = moments(im, x, &axes)?;
    let flat = |im: &mut Importer<'m>, v: Value| im.squeeze(v, &axes);
    let (mean, var) = (flat(im, mean)?, flat(im, var)?);
    for v in [ctx.input(1)?, ctx.input(2)?, mean, var] {
        let v = im.fit_shape(v, &channels)?;
        operands.push(im.cast(v, dtype)?);
    }
    let y = im.op("batch_norm", &[Attr::num(eps)], &operands)?;
    let momentum = ctx.float("momentum", 0.9)?;
    let mut out = vec![y];
    for (old, new) in [(ctx.input(3)?, mean), (ctx.input(4)?, var)] {
        let old = im.fit_shape(old, &channels)?;
        let kept = im.map_num("mul", old, momentum)?;
        let new = im.cast(new, im.dtype(old))?;
        let fresh = im.map_num("mul", new, 1.0 - momentum)?;
        out.push(im.map("add", &[kept, fresh])?);
    }
    Ok(out)
}

/// A tensor [N, C, …] with as many channels as a vector of parameters has elements.
fn channels_of(im: &mut Importer<'_>, x: Value, parameter: Value) -> One {
    if im.rank(x) < 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2 or more", im.ty(x))));
    }
    match &im.shape(parameter)[..] {
        [c] if im.shape(x)[1].as_const().is_none() => im.fit(x, 1, c),
        _ => Ok(x),
    }
}

/// Mean and variance over axes, dimensions kept; in f32 for 16-bit floats.
fn moments(im: &mut Importer<'_>, x: Value, axes: &[usize]) -> Result<(Value, Value), Fail> {
    let x = im.widen(x)?;
    let mean = im.mean(axes, x)?;
    let d = im.map("sub", &[x, mean])?;
    let sq = im.map("mul", &[d, d])?;
    Ok((mean, im.mean(axes, sq)?))
}

/// `LayerNormalization`, with the optional results mean and inverse standard deviation.
pub fn layer<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 3)?;
    let axis = node::axis(ctx.int("axis", -1)?, im.rank(ctx.input(0)?))?;
    let x = rows_of(im, ctx.input(0)?, ctx.input(1)?, axis)?;
    let shape = im.shape(x);
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = im.dtype(x);
    let inner = &shape[axis..];
    let scale = parameter(im, ctx.input(1)?, dtype, inner)?;
    let bias = match ctx.optional(2) {
        Some(b) => parameter(im, b, dtype, inner)?,
        // x + -0 is x, and x + 0 is not.
        None => im.splat(dtype, inner, -0.0)?,
    };
    let mut out = vec![im.op(
        "layer_norm",
        &[Attr::Int(axis as i64), Attr::num(eps)],
        &[x, scale, bias],
    )?];
    if ctx.wants(1) || ctx.wants(2) {
        let axes: Vec<usize> = (axis..shape.len()).collect();
        let (mean, var) = moments(im, x, &axes)?;
        let v = im.map_num("add", var, eps)?;
        let sd = im.op("sqrt", &[], &[v])?;
        out.push(mean);
        out.push(im.op("reciprocal", &[], &[sd])?);
    }
    Ok(out)
}

/// A tensor with the known extents of its parameter from an axis on.
fn rows_of(im: &mut Importer<'_>, x: Value, parameter: Value, axis: usize) -> One {
    let known = im.shape(parameter);
    let (rank, mut x) = (im.rank(x), x);
    for (back, d) in (1..=rank - axis).zip(known.iter().rev()) {
        if d.as_const().is_some_and(|c| c != 1) && im.shape(x)[rank - back].as_const().is_none() {
            x = im.fit(x, rank - back, d)?;
        }
    }
    Ok(x)
}

fn parameter(im: &mut Importer<'_>, v: Value, dtype: DType, shape: &[Dim]) -> One {
    let v = im.cast(v, dtype)?;
    im.spread(v, shape)
}

/// `RMSNormalization`.
pub fn rms<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let axis = node::axis(ctx.int("axis", -1)?, im.rank(ctx.input(0)?))?;
    let x = rows_of(im, ctx.input(0)?, ctx.input(1)?, axis)?;
    let shape = im.shape(x);
    let eps = ctx.float("epsilon", 1e-5)?;
    let dtype = im.dtype(x);
    let scale = parameter(im, ctx.input(1)?, dtype, &shape[axis..])?;
    one(im.op("rms_norm", &[Attr::Int(axis as i64), Attr::num(eps)], &[x, scale]))
}

/// `GroupNormalization`: scale and bias belong to groups before version 21, to channels since.
pub fn group<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(3, 3)?;
    let groups = ctx.opt_int("num_groups")?.ok_or("attribute `num_groups` is missing")?;
    grouped(im, ctx, Some(groups))
}

/// `InstanceNormalization`: every channel is a group.
pub fn instance<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(3, 3)?;
    grouped(im, ctx, None)
}

fn grouped<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, groups: Option<i64>) -> Outcome {
    let mut x = ctx.input(0)?;
    // Where scale and bias belong to groups, they do not tell the channels.
    if groups.is_none() || ctx.version >= 21 {
        x = channels_of(im, x, ctx.input(1)?)?;
    }
    let Some(channels) = im.shape(x).get(1).cloned() else {
        return Err(Fail::Bad(format!("{}, expected rank 2 or more", im.ty(x))));
    };
    let Some(c) = channels.as_const() else {
        return unsupported("a symbolic number of channels");
    };
    let groups = groups.unwrap_or(c);
    if groups < 1 || c % groups != 0 {
        return Err(Fail::Bad(format!("{groups} groups of {c} channels")));
    }
    let dtype = im.dtype(x);
    let mut operands = vec![x];
    for i in 1..3 {
        let mut v = im.cast(ctx.input(i)?, dtype)?;
        if ctx.version < 21 && groups != c && im.shape(v) == [Dim::Const(groups)] {
            v = im.unsqueeze(v, &[1])?;
            v = im.spread(v, &[Dim::Const(groups), Dim::Const(c / groups)])?;
            v = im.reshape(v, vec![channels.clone()])?;
        }
        operands.push(v);
    }
    let eps = ctx.float("epsilon", 1e-5)?;
    one(im.op("group_norm", &[Attr::Int(groups), Attr::num(eps)], &operands))
}

/// `LRN`.
pub fn lrn<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let attrs = [
        Attr::Int(ctx.opt_int("size")?.ok_or("attribute `size` is missing")?),
        Attr::num(ctx.float("alpha", 1e-4)?),
        Attr::num(ctx.float("beta", 0.75)?),
        Attr::num(ctx.float("bias", 1.0)?),
    ];
    one(im.op("lrn", &attrs, &[ctx.input(0)?]))
}

/// `LpNormalization`: by the 1-norm or the 2-norm along an axis; where that is 0, the result is 0.
pub fn lp<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", -1)?, im.rank(x))?;
    let norm = match ctx.int("p", 2)? {
        1 => {
            let a = im.op("abs", &[], &[x])?;
            im.reduce("sum", &[axis], a)?
        }
        2 => {
            let sq = im.map("mul", &[x, x])?;
            let s = im.reduce("sum", &[axis], sq)?;
            im.op("sqrt", &[], &[s])?
        }
        p => return Err(Fail::Bad(format!("p = {p}, expected 1 or 2"))),
    };
    let y = im.map("div", &[x, norm])?;
    let none = im.map_num("equal", norm, 0.0)?;
    let zero = im.scalar(im.dtype(x), 0.0);
    one(im.map("where", &[none, zero, y]))
}

/// `MeanVarianceNormalization`: `(x - mean) / (sd + 1e-9)`.
pub fn mean_variance<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axes = node::axes(ctx.ints("axes")?.unwrap_or(&[0, 2, 3]), im.rank(x))?;
    let (mean, var) = moments(im, x, &axes)?;
    let wide = im.widen(x)?;
    let d = im.map("sub", &[wide, mean])?;
    let sd = im.op("sqrt", &[], &[var])?;
    let sd = im.map_num("add", sd, 1e-9)?;
    let y = im.map("div", &[d, sd])?;
    one(im.cast(y, im.dtype(x)))
}
