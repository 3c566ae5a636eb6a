//! `LinearAttention`: a state [B, H, keys, values] for every head, which each position decays, corrects and adds to before its
//! query reads it. One position, as in decoding, is computed as it stands; several are steps of a loop. Computed in f32, or
//! f64 where the operands are.
//!
//! ```text
//! S ← exp(g) ⊙ S      v ← β·(v - Sᵀk)      S ← S + k vᵀ      y = scale · Sᵀq
//! ```
//!
//! Sources: Katharopoulos et al., "Transformers are RNNs", 2020; Yang et al., "Gated delta networks", 2024.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// What all steps share.
#[derive(Clone)]
struct Heads {
    /// Queries for each head of keys.
    group: Dim,
    scale: f64,
    gated: bool,
    delta: bool,
}

/// `LinearAttention`.
pub fn linear_attention(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 6)?;
    let q = ctx.input(0)?;
    let dtype = graph.dtype(q);
    let (heads, keys) = match (ctx.opt_int("q_num_heads")?, ctx.opt_int("kv_num_heads")?) {
        (Some(q), Some(k)) if k > 0 && q > 0 && q % k == 0 => (q, k),
        (q, k) => {
            return Err(Fail::Bad(format!(
                "q_num_heads {q:?} and kv_num_heads {k:?}, expected a positive multiple"
            )));
        }
    };
    let (gated, delta) = match ctx.string("update_rule", "gated_delta")? {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        r => {
            return Err(Fail::Bad(format!(
                "update_rule `{r}`, expected linear, gated, delta or gated_delta"
            )));
        }
    };
    for (i, wanted, what) in [(4, gated, "decay"), (5, delta, "beta")] {
        if ctx.optional(i).is_some() != wanted {
            let wanted = if wanted { "is missing" } else { "is given" };
            return Err(Fail::Bad(format!("the operand {what} {wanted} for this update_rule")));
        }
    }
    // Positions first: [T, B, heads, size].
    let q = positions(graph, q, heads)?;
    let shape = graph.shape(q);
    let (length, batch, size) = (shape[0].clone(), shape[1].clone(), shape[3].clone());
    let known = [length.clone(), batch.clone()];
    let mut rows = vec![q];
    for i in 1..3 {
        let v = positions(graph, ctx.input(i)?, keys)?;
        rows.push(fit_leading(graph, v, &known)?);
    }
    rows[1] = graph.fit(rows[1], 3, &size)?;
    if let Some(g) = ctx.optional(4) {
        let g = positions(graph, g, keys)?;
        let g = graph.op("exp", &[], &[g])?;
        rows.push(fit_leading(graph, g, &known)?);
    }
    if let Some(b) = ctx.optional(5) {
        let each = graph.shape(b).last().is_some_and(|d| d.is(keys));
        let b = positions(graph, b, if each { keys } else { 1 })?;
        rows.push(fit_leading(graph, b, &known)?);
    }
    let compute = graph.dtype(q);
    let values = graph.shape(rows[2])[3].clone();
    let state_shape = [batch.clone(), Dim::Const(keys), size.clone(), values.clone()];
    let (state, state_dtype) = match ctx.optional(3) {
        Some(past) => {
            let kept = graph.fit_shape(past, &state_shape)?;
            (graph.cast(kept, compute)?, graph.dtype(past))
        }
        None => (graph.splat(compute, &state_shape, 0.0)?, dtype),
    };
    let scale = match (ctx.float("scale", 0.0)?, size.as_const()) {
        (0.0, Some(size)) => 1.0 / (size as f64).sqrt(),
        (0.0, None) => return unsupported("a symbolic head size"),
        (s, _) => s,
    };
    let how = Heads {
        group: Dim::Const(heads / keys),
        scale,
        gated,
        delta,
    };
    let (state, y) = if length.is(1) {
        let now = rows
            .iter()
            .map(|&v| graph.squeeze(v, &[0]))
            .collect::<Result<Vec<_>, _>>()?;
        let (state, y) = step(graph, &how, state, &now)?;
        (state, graph.unsqueeze(y, &[0])?)
    } else {
        steps(graph, &how, state, &rows)?
    };
    // [T, B, heads, size] to [B, T, heads · size].
    let y = graph.transpose(y, &[1, 0, 2, 3])?;
    let y = graph.reshape(y, vec![batch, length, &values * heads])?;
    Ok(vec![graph.cast(y, dtype)?, graph.cast(state, state_dtype)?])
}

/// [B, T, heads · size] as [T, B, heads, size], in the dtype that is computed in.
fn positions(graph: &mut Builder<'_>, v: Value, heads: i64) -> One {
    let s = graph.shape(v);
    let size = s.get(2).and_then(|d| d.exact_div(&Dim::Const(heads)));
    let (3, Some(size)) = (s.len(), size) else {
        return Err(Fail::Bad(format!("{heads} heads of {}, expected rank 3", graph.ty(v))));
    };
    let v = graph.widen(v)?;
    let v = graph.reshape(v, vec![s[0].clone(), s[1].clone(), Dim::Const(heads), size])?;
    graph.transpose(v, &[1, 0, 2, 3])
}

fn fit_leading(graph: &mut Builder<'_>, v: Value, known: &[Dim]) -> One {
    known.iter().enumerate().try_fold(v, |v, (a, d)| graph.fit(v, a, d))
}

/// One position: the new state, and what the queries read of it, [B, query heads, size].
fn step(graph: &mut Builder<'_>, how: &Heads, state: Value, now: &[Value]) -> Result<(Value, Value), Fail> {
    let (q, k, mut v) = (now[0], now[1], now[2]);
    let mut state = state;
    let mut rest = now[3..].iter().copied();
    if how.gated {
        let decay = rest.next().expect("it was checked");
        let decay = graph.unsqueeze(decay, &[3])?;
        state = graph.map("mul", &[state, decay])?;
    }
    if how.delta {
        let beta = rest.next().expect("it was checked");
        let read = graph.contract(state, k, [&[0, 1], &[0, 1]], [&[2], &[2]])?;
        let wanted = graph.map("sub", &[v, read])?;
        v = graph.map("mul", &[wanted, beta])?;
    }
    let (column, row) = (graph.unsqueeze(k, &[3])?, graph.unsqueeze(v, &[2])?);
    let outer = graph.map("mul", &[column, row])?;
    let state = graph.map("add", &[state, outer])?;
    let s = graph.shape(q);
    let heads = graph.shape(k)[1].clone();
    let grouped = vec![s[0].clone(), heads, how.group.clone(), s[2].clone()];
    let q = graph.reshape(q, grouped)?;
    let y = graph.contract(q, state, [&[0, 1], &[0, 1]], [&[3], &[2]])?;
    let y = graph.map_num("mul", y, how.scale)?;
    let size = graph.shape(y)[3].clone();
    let y = graph.reshape(y, vec![s[0].clone(), s[1].clone(), size])?;
    Ok((state, y))
}

/// All positions, one after the other: the last state, and what was read, [T, B, query heads, size].
fn steps(graph: &mut Builder<'_>, how: &Heads, state: Value, rows: &[Value]) -> Result<(Value, Value), Fail> {
    let (q, v) = (graph.shape(rows[0]), graph.shape(rows[2]));
    let compute = graph.dtype(state);
    let y = graph.splat(compute, &[q[0].clone(), q[1].clone(), q[2].clone(), v[3].clone()], 0.0)?;
    let zero = graph.scalar(DType::I64, 0);
    let end = graph.dim_scalar(&q[0], DType::I64)?;
    let captures = [&[end][..], rows].concat();
    let done = graph.repeat_while(
        &[zero, state, y],
        &captures,
        |b, v| b.map("less", &[v[0], v[3]]),
        |b, v| {
            let (at, state, y) = (v[0], v[1], v[2]);
            let now = v[4..]
                .iter()
                .map(|&r| b.gather(0, r, at))
                .collect::<Result<Vec<_>, _>>()?;
            let (state, row) = step(b, how, state, &now)?;
            let index = b.reshape(at, vec![Dim::ONE, Dim::ONE])?;
            let row = b.unsqueeze(row, &[0])?;
            let y = b.op("scatter_nd", &[Attr::word("none")], &[y, index, row])?;
            Ok(vec![b.map_num("add", at, 1)?, state, y])
        },
    )?;
    Ok((done[1], done[2]))
}
