//! The domain `ai.onnx.preview`: `FlexAttention`.

use super::super::tensor;
use super::attention::repeat_heads;
use super::*;
use brolga_ir::{Attr, DType};

/// The domain's operators, sorted.
pub static TABLE: &[(&str, Handler)] = &[("FlexAttention", Walk(flex_attention))];

/// `FlexAttention`: scores and probabilities go through subgraphs, which stand in the place of the node.
fn flex_attention<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, _: &[Slot]) -> Result<Vec<Slot>, Fail> {
    ctx.arity(3, 3)?;
    let [q, k, v] = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let graph = &mut im.graph;
    let dtype = graph.dtype(q);
    if let Some(x) = [q, k, v].into_iter().find(|&x| graph.rank(x) != 4) {
        return Err(Fail::Bad(format!("{}, expected rank 4", graph.ty(x))));
    }
    let precision = match ctx.opt_int("softmax_precision")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None if dtype == DType::F64 => DType::F64,
        None => DType::F32,
    };
    let shape = graph.shape(q);
    let scale = match (ctx.opt_float("scale")?, shape[3].as_const()) {
        (Some(s), _) => s,
        (None, Some(size)) => 1.0 / (size as f64).sqrt(),
        (None, None) => return unsupported("a symbolic head size"),
    };
    let (k, v) = (graph.fit(k, 0, &shape[0])?, graph.fit(v, 0, &shape[0])?);
    let k = graph.fit(k, 3, &shape[3])?;
    let keys = graph.shape(k)[2].clone();
    let v = graph.fit(v, 2, &keys)?;
    let (q, k) = (graph.widen(q)?, graph.widen(k)?);
    let (k, v) = (repeat_heads(graph, k, &shape[1])?, repeat_heads(graph, v, &shape[1])?);
    let scores = graph.contract(q, k, [&[0, 1], &[0, 1]], [&[3], &[3]])?;
    let scores = graph.map_num("mul", scores, scale)?;
    let scores = graph.cast(scores, precision)?;
    let scores = modified(im, ctx, "score_mod", scores)?;
    let p = im
        .graph
        .op("softmax", &[Attr::Int(3), Attr::word("never")], &[scores])?;
    let p = modified(im, ctx, "prob_mod", p)?;
    let graph = &mut im.graph;
    let v = graph.cast(v, precision)?;
    let y = graph.contract(p, v, [&[0, 1], &[0, 1]], [&[3], &[2]])?;
    Ok(vec![Slot::Value(graph.cast(y, dtype)?)])
}

/// What a subgraph makes of a value, which is of the same type; the value itself where there is none.
fn modified<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, name: &str, x: Value) -> One {
    if !ctx.attrs.iter().any(|a| a.0 == name) {
        return Ok(x);
    }
    let origin = im.graph.origin.clone();
    let made = im.inline(ctx.graph(name)?, &format!("{}/{name}", ctx.name), &[Slot::Value(x)])?;
    im.graph.origin = origin;
    let ty = im.graph.ty(x).clone();
    match made[..] {
        [Slot::Value(y)] if im.graph.dtype(y) == ty.dtype => im.graph.fit_shape(y, &ty.shape),
        _ => Err(Fail::Bad(format!("{name} does not give one {ty}"))),
    }
}
