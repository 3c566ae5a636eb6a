//! Normalisations of a sum.

use super::super::normalization::{moments, parameter, rows_of};
use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `SkipLayerNormalization`: of `input + skip + bias`, which is a result too; with mean and inverse standard deviation where asked for.
pub fn skip(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 5)?;
    let (x, dtype) = sum(graph, ctx, ctx.optional(4))?;
    let y = layer_norm(graph, ctx, x, ctx.input(2)?, ctx.optional(3))?;
    let mut out = vec![graph.cast(y, dtype)?];
    let axis = graph.rank(x) - 1;
    let (mean, var) = moments(graph, x, &[axis])?;
    let var = graph.map_num("add", var, ctx.float("epsilon", 1e-12)?)?;
    let root = graph.op("sqrt", &[], &[var])?;
    out.extend([mean, graph.op("reciprocal", &[], &[root])?, graph.cast(x, dtype)?]);
    Ok(out)
}

/// `SkipSimplifiedLayerNormalization`: by the root of the mean square.
pub fn skip_simplified(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 4)?;
    let (x, dtype) = sum(graph, ctx, ctx.optional(3))?;
    let x = rows_of(graph, x, ctx.input(2)?, graph.rank(x) - 1)?;
    let axis = graph.rank(x) - 1;
    let inner = &graph.shape(x)[axis..];
    let scale = parameter(graph, ctx.input(2)?, graph.dtype(x), inner)?;
    let eps = ctx.float("epsilon", 1e-12)?;
    let y = graph.op("rms_norm", &[Attr::Int(axis as i64), Attr::num(eps)], &[x, scale])?;
    let square = graph.map("mul", &[x, x])?;
    let mean = graph.mean(&[axis], square)?;
    let mean_eps = graph.map_num("add", mean, eps)?;
    let root = graph.op("sqrt", &[], &[mean_eps])?;
    let inverse = graph.op("reciprocal", &[], &[root])?;
    Ok(vec![graph.cast(y, dtype)?, mean, inverse, graph.cast(x, dtype)?])
}

/// The sum of the first two operands and a bias, in f32 where they have 16 bits, and their dtype. A skip connection may lack the batch.
fn sum(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, bias: Option<Value>) -> Result<(Value, DType), Fail> {
    let x = ctx.input(0)?;
    let (dtype, shape) = (graph.dtype(x), graph.shape(x));
    if shape.len() < 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2 or 3", graph.ty(x))));
    }
    let mut y = graph.widen(x)?;
    for other in [ctx.optional(1), bias].into_iter().flatten() {
        let other = graph.widen(other)?;
        let other = graph.spread(other, &shape)?;
        y = graph.map("add", &[y, other])?;
    }
    Ok((y, dtype))
}

fn layer_norm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, gamma: Value, beta: Option<Value>) -> One {
    let axis = graph.rank(x) - 1;
    let x = rows_of(graph, x, gamma, axis)?;
    let (dtype, inner) = (graph.dtype(x), &graph.shape(x)[axis..]);
    let scale = parameter(graph, gamma, dtype, inner)?;
    let bias = match beta {
        Some(b) => parameter(graph, b, dtype, inner)?,
        None => graph.splat(dtype, inner, -0.0)?,
    };
    let attrs = [Attr::Int(axis as i64), Attr::num(ctx.float("epsilon", 1e-12)?)];
    graph.op("layer_norm", &attrs, &[x, scale, bias])
}

/// `EmbedLayerNormalization`: the sum of the embeddings of words, positions and segments, normalised; the number of words of each
/// sequence by its mask; that sum.
pub fn embed(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(7, 9)?;
    let (ids, words, positions) = (ctx.input(0)?, ctx.input(2)?, ctx.input(3)?);
    let shape = graph.shape(ids);
    let [batch, sequence] = &shape[..] else {
        return Err(Fail::Bad(format!("words {}, expected rank 2", graph.ty(ids))));
    };
    let dtype = graph.dtype(words);
    for table in [Some(words), Some(positions), ctx.optional(4)].into_iter().flatten() {
        if graph.rank(table) != 2 {
            return Err(Fail::Bad(format!("a table {}, expected rank 2", graph.ty(table))));
        }
    }
    graph.check_indices(words, ids, &[0])?;
    let w = graph.gather(0, words, ids)?;
    let mut x = graph.widen(w)?;
    let p = match ctx.optional(8) {
        Some(at) => graph.gather(0, positions, at)?,
        None => {
            let most = graph.shape(positions)[0].clone();
            graph.require_at_most(sequence, &most)?;
            graph.slice_axis(positions, 0, Dim::ZERO, sequence.clone())?
        }
    };
    let p = graph.widen(p)?;
    x = graph.map("add", &[x, p])?;
    if let (Some(segments), Some(table)) = (ctx.optional(1), ctx.optional(4)) {
        let s = graph.gather(0, table, segments)?;
        let s = graph.widen(s)?;
        x = graph.map("add", &[x, s])?;
    }
    let y = layer_norm(graph, ctx, x, ctx.input(5)?, Some(ctx.input(6)?))?;
    let count = match ctx.optional(7) {
        Some(mask) => {
            let there = graph.map_num("equal", mask, 1)?;
            let there = graph.cast(there, DType::I32)?;
            let n = graph.reduce("sum", &[1], there)?;
            graph.squeeze(n, &[1])?
        }
        None => graph.splat(DType::I32, std::slice::from_ref(batch), 0)?,
    };
    Ok(vec![graph.cast(y, dtype)?, count, graph.cast(x, dtype)?])
}
