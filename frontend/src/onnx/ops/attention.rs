//! `Attention` (versions 23 and newer): the operator of the IR, or, where the scores are a result too, composed of contractions,
//! masks and a softmax. 16-bit floats are computed in f32.
//!
//! Heads of keys and values that several query heads share are repeated. A query that may attend to nothing gets zeros,
//! decided on the mask alone, so that infinities in masked scores do no harm.

use super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType, Dim};

/// The operands in [batch, heads, sequence, size] form.
struct Heads {
    q: Value,
    k: Value,
    v: Value,
}

/// `Attention`.
pub fn attention(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 7)?;
    let double = match ctx.opt_int("softmax_precision")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)? == DType::F64,
        None => false,
    };
    match ctx.wants(3) || (double && graph.dtype(ctx.input(0)?) != DType::F64) {
        true => composed(graph, ctx),
        false => whole(graph, ctx),
    }
}

/// As the operator of the IR; heads are read where they lie.
fn whole(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    const PLAIN: [usize; 4] = [0, 1, 2, 3];
    const HEADS: [usize; 4] = [0, 2, 1, 3];
    let dtype = graph.dtype(ctx.input(0)?);
    let rank = graph.rank(ctx.input(0)?);
    // As [batch, heads, sequence, size] by an order of the axes.
    let mut sides = vec![];
    for (i, name) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
        let (v, order) = match graph.rank(ctx.input(i)?) {
            3 => (apart(graph, ctx, ctx.input(i)?, name)?, HEADS),
            _ => (ctx.input(i)?, PLAIN),
        };
        if graph.rank(v) != 4 {
            return Err(Fail::Bad(format!("{}, expected rank 3 or 4", graph.ty(v))));
        }
        sides.push((v, order));
    }
    let mut present = vec![];
    for (i, (v, order)) in sides[1..].iter_mut().enumerate() {
        let past = ctx.optional(4 + i);
        if past.is_some() || ctx.wants(1 + i) {
            *v = graph.transpose(*v, &*order)?;
            *order = PLAIN;
        }
        if let Some(p) = past {
            *v = graph.concat(2, &[p, *v])?;
        }
        present.push(*v);
    }
    let logical = |graph: &Builder<'_>, (v, order): (Value, [usize; 4])| {
        let s = graph.shape(v);
        order.map(|a| s[a].clone())
    };
    let (qs, ks) = (logical(graph, sides[0]), logical(graph, sides[1]));
    if qs[1].exact_div(&ks[1]).is_none() {
        return Err(Fail::Bad(format!("{} query heads for {} of keys", qs[1], ks[1])));
    }
    let Some(size) = qs[3].as_const() else {
        return unsupported("a symbolic head size");
    };
    // The causal frontier is the operator's, where its place is a size.
    let causal = ctx.flag("is_causal", false)? && ctx.optional(6).is_none();
    let offset = match ctx.optional(4) {
        Some(past) => graph.shape(past)[2].clone(),
        None => Dim::ZERO,
    };
    let mut operands = vec![];
    for (i, (v, order)) in sides.iter().enumerate() {
        let v = match i {
            0 => *v,
            // What has to be equal becomes so.
            1 => graph.fit(*v, order[3], &qs[3])?,
            _ => graph.fit(*v, order[2], &ks[2])?,
        };
        let v = if i > 0 { graph.fit(v, order[0], &qs[0])? } else { v };
        operands.push(graph.widen(v)?);
    }
    let bias = mask(graph, ctx, &qs, &ks, !causal)?;
    let zeros = if causal || bias.is_some() { "unseen" } else { "never" };
    if let Some(bias) = bias {
        let full = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
        let missing: Vec<usize> = (0..4 - graph.rank(bias)).collect();
        let mut bias = graph.unsqueeze(bias, &missing)?;
        if graph.shape(bias).iter().zip(&full).any(|(b, f)| !b.is(1) && b != f) {
            bias = graph.spread(bias, &full)?;
        }
        operands.push(graph.widen(bias)?);
    }
    let y_order = if rank == 3 { HEADS } else { PLAIN };
    let attrs = [
        Attr::axes(&sides[0].1),
        Attr::axes(&sides[1].1),
        Attr::axes(&sides[2].1),
        Attr::axes(&y_order),
        Attr::num(ctx.opt_float("scale")?.unwrap_or(1.0 / (size as f64).sqrt())),
        Attr::num(ctx.float("softcap", 0.0)?),
        Attr::num(f64::NEG_INFINITY),
        Attr::Bool(causal),
        Attr::Dims(vec![offset]),
        Attr::word(zeros),
    ];
    let mut y = graph.op("attention", &attrs, &operands)?;
    if rank == 3 {
        let s = graph.shape(y);
        y = graph.reshape(y, vec![s[0].clone(), s[1].clone(), &s[2] * &s[3]])?;
    }
    let y = graph.cast(y, dtype)?;
    Ok([y].into_iter().chain(present).collect())
}

/// Heads that lie beside each other, apart: [batch, sequence, heads, size].
fn apart(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, v: Value, name: &str) -> One {
    let n = ctx
        .opt_int(name)?
        .ok_or_else(|| Fail::Bad(format!("attribute `{name}` is missing")))?;
    let s = graph.shape(v);
    let size = match s[2].exact_div(&Dim::Const(n)) {
        Some(size) if n > 0 => size,
        _ => return Err(Fail::Bad(format!("{n} heads of {}", graph.ty(v)))),
    };
    graph.reshape(v, vec![s[0].clone(), s[1].clone(), Dim::Const(n), size])
}

fn composed(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let rank = graph.rank(ctx.input(0)?);
    let mut h = heads(graph, ctx)?;
    let dtype = graph.dtype(h.q);
    for (new, past) in [(&mut h.k, ctx.optional(4)), (&mut h.v, ctx.optional(5))] {
        if let Some(p) = past {
            *new = graph.concat(2, &[p, *new])?;
        }
    }
    let (present_k, present_v) = (h.k, h.v);
    let (qs, ks) = (graph.shape(h.q), graph.shape(h.k));
    for side in [&mut h.k, &mut h.v] {
        *side = repeat_heads(graph, *side, &qs[1])?;
    }
    // The scale is split over both operands of the product, as the definition does.
    let size = qs[3]
        .as_const()
        .ok_or_else(|| Fail::Unsupported("a symbolic head size".into()))?;
    let scale = ctx.opt_float("scale")?.unwrap_or(1.0 / (size as f64).sqrt()).sqrt();
    let q = graph.map_num("mul", h.q, scale)?;
    let k = graph.map_num("mul", h.k, scale)?;
    let mut scores = graph.contract(q, k, [&[0, 1], &[0, 1]], [&[3], &[3]])?;
    let mut shown = scores;
    let mode = ctx.int("qk_matmul_output_mode", 0)?;
    let cap = ctx.float("softcap", 0.0)?;
    if cap > 0.0 {
        let s = graph.map_num("div", scores, cap)?;
        let s = graph.op("tanh", &[], &[s])?;
        scores = graph.map_num("mul", s, cap)?;
        shown = scores;
    }
    let bias = mask(graph, ctx, &qs, &ks, true)?;
    if let Some(b) = bias {
        scores = graph.map("add", &[scores, b])?;
    }
    if mode == 2 {
        shown = scores;
    }
    let precision = match ctx.opt_int("softmax_precision")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None => dtype,
    };
    let wide = graph.cast(scores, precision)?;
    let mut p = graph.op("softmax", &[Attr::Int(3), Attr::word("never")], &[wide])?;
    if let Some(b) = bias {
        let last = graph.rank(b) - 1;
        let best = graph.reduce("max", &[last], b)?;
        let nothing = graph.map_num("equal", best, f64::NEG_INFINITY)?;
        let zero = graph.scalar(precision, 0.0);
        p = graph.map("where", &[nothing, zero, p])?;
    }
    let p = graph.cast(p, dtype)?;
    if mode == 3 {
        shown = p;
    }
    let mut y = graph.contract(p, h.v, [&[0, 1], &[0, 1]], [&[3], &[2]])?;
    if rank == 3 {
        y = graph.transpose(y, &[0, 2, 1, 3])?;
        let s = graph.shape(y);
        y = graph.reshape(y, vec![s[0].clone(), s[1].clone(), &s[2] * &s[3]])?;
    }
    Ok(vec![y, present_k, present_v, shown])
}

fn heads(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Heads, Fail> {
    let mut split = |v: Value, name: &str| -> One {
        match graph.rank(v) {
            4 => Ok(v),
            3 => {
                let v = apart(graph, ctx, v, name)?;
                graph.transpose(v, &[0, 2, 1, 3])
            }
            _ => Err(Fail::Bad(format!("{}, expected rank 3 or 4", graph.ty(v)))),
        }
    };
    Ok(Heads {
        q: split(ctx.input(0)?, "q_num_heads")?,
        k: split(ctx.input(1)?, "kv_num_heads")?,
        v: split(ctx.input(2)?, "kv_num_heads")?,
    })
}

/// Every head as often in a row as `wanted` heads need.
pub fn repeat_heads(graph: &mut Builder<'_>, v: Value, wanted: &Dim) -> One {
    let s = graph.shape(v);
    if s[1] == *wanted {
        return Ok(v);
    }
    let Some(times) = wanted.exact_div(&s[1]) else {
        return Err(Fail::Bad(format!("{wanted} query heads for {}", graph.ty(v))));
    };
    let v = graph.unsqueeze(v, &[2])?;
    let mut wide = graph.shape(v);
    wide[2] = times;
    let v = graph.spread(v, &wide)?;
    graph.reshape(v, vec![s[0].clone(), wanted.clone(), s[2].clone(), s[3].clone()])
}

/// What is added to the scores: the given mask, the causal frontier where asked for, the window and the padding of keys; 0 or -inf
/// (or a given bias), broadcast against [batch, heads, queries, keys].
fn mask(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    qs: &[Dim],
    ks: &[Dim],
    causal: bool,
) -> Result<Option<Value>, Fail> {
    let dtype = graph.dtype(ctx.input(0)?);
    let (queries, keys) = (qs[2].clone(), ks[2].clone());
    let mut bias = match ctx.optional(3) {
        Some(m) => Some(given_mask(graph, m, dtype, &keys)?),
        None => None,
    };
    let lengths = match ctx.optional(6) {
        Some(v) => {
            let v = graph.cast(v, DType::I64)?;
            let n = graph.ty(v).len();
            Some(graph.reshape(v, vec![n, Dim::ONE, Dim::ONE, Dim::ONE])?)
        }
        None => None,
    };
    // The position of the first query among the keys.
    let offset = match (ctx.optional(4), lengths) {
        (Some(past), _) => {
            let n = graph.shape(past)[2].clone();
            graph.dim_scalar(&n, DType::I64)?
        }
        (None, Some(l)) => {
            let n = graph.dim_scalar(&queries, DType::I64)?;
            graph.map("sub", &[l, n])?
        }
        (None, None) => graph.scalar(DType::I64, 0.0),
    };
    let plane = [queries, keys.clone()];
    let (row, column) = (graph.iota(DType::I64, &plane, 0)?, graph.iota(DType::I64, &plane, 1)?);
    let position = graph.map("add", &[row, offset])?;
    let mut allowed = vec![];
    if causal && ctx.flag("is_causal", false)? {
        allowed.push(graph.map("less_or_equal", &[column, position])?);
    }
    let (left, right) = (ctx.int("left_window_size", -1)?, ctx.int("right_window_size", -1)?);
    if left >= 0 {
        let first = graph.map_num("sub", position, left)?;
        allowed.push(graph.map("greater_or_equal", &[column, first])?);
    }
    if right >= 0 {
        let last = graph.map_num("add", position, right)?;
        allowed.push(graph.map("less_or_equal", &[column, last])?);
    }
    if let Some(l) = lengths {
        let at = graph.iota(DType::I64, &[keys], 0)?;
        allowed.push(graph.map("less", &[at, l])?);
    }
    for a in allowed {
        let b = additive(graph, a, dtype)?;
        bias = Some(match bias {
            Some(old) => graph.map("add", &[old, b])?,
            None => b,
        });
    }
    Ok(bias)
}

/// 0 where true, -inf where false.
fn additive(graph: &mut Builder<'_>, allowed: Value, dtype: DType) -> One {
    let (zero, never) = (graph.scalar(dtype, 0.0), graph.scalar(dtype, f64::NEG_INFINITY));
    graph.map("where", &[allowed, zero, never])
}

/// A mask operand as an additive bias; keys beyond its last extent are masked.
fn given_mask(graph: &mut Builder<'_>, m: Value, dtype: DType, keys: &Dim) -> One {
    let mut m = if graph.dtype(m) == DType::Bool {
        additive(graph, m, dtype)?
    } else {
        graph.cast(m, dtype)?
    };
    let rank = graph.rank(m);
    if rank > 4 {
        return Err(Fail::Bad(format!("a mask {}, expected rank 4 or less", graph.ty(m))));
    }
    let last = graph.shape(m).last().cloned().ok_or("a mask of rank 0")?;
    if !last.is(1) && (keys - &last).as_const().is_some_and(|short| short > 0) {
        let (low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
        high[rank - 1] = keys - &last;
        m = graph.pad(m, low, high, vec![0; rank], f64::NEG_INFINITY)?;
    }
    Ok(m)
}
