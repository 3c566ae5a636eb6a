//! `GroupQueryAttention`: heads of keys and values that several query heads share, with a cache in which every sequence has a length of
//! its own.
//!
//! New keys and values are written into the cache behind what each sequence has there; a cache that is as long as the next one is a buffer
//! that may be updated in place. Queries see the keys up to their own place. What a sequence has behind its end is not said: its results for
//! padding, and the cache there.

use super::attention::{Attend, Side, heads, refuse, scale};
use super::*;
use brolga_ir::{Attr, DType, Dim};

/// How many keys of a sequence are in the cache before.
enum Before {
    /// As many for every sequence.
    Known(Dim),
    /// `[batch]` in i64.
    Data(Value),
}

impl Before {
    /// As a value that spreads over the batch along axis 0 of so many axes.
    fn value(&self, graph: &mut Builder<'_>, rank: usize) -> One {
        match self {
            Before::Known(d) => graph.dim_scalar(d, DType::I64),
            Before::Data(v) => {
                let axes: Vec<usize> = (1..rank).collect();
                graph.unsqueeze(*v, &axes)
            }
        }
    }
}

/// The operands by name, behind queries, keys and values.
const NAMES: [(usize, &str); 2] = [(12, "k_scale"), (13, "v_scale")];

/// `GroupQueryAttention`.
pub fn grouped(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(6, 17)?;
    refuse(ctx, &["sliding_window_cache"])?;
    for (i, name) in NAMES {
        if ctx.optional(i).is_some() {
            return unsupported(format!("a quantised cache ({name})"));
        }
    }
    if ctx.int("qk_output", 0)? != 0 {
        return unsupported("qk_output");
    }
    let (n, shared) = (heads(ctx, "num_heads")?, heads(ctx, "kv_num_heads")?);
    let [mut q, mut k, v] = projections(graph, ctx, n, shared)?;
    let eps = ctx.float("qk_norm_epsilon", 1e-6)?;
    for (side, i, own) in [(&mut q, 14, "q_norm_epsilon"), (&mut k, 15, "k_norm_epsilon")] {
        if let Some(weight) = ctx.optional(i) {
            let attrs = [Attr::Int(3), Attr::num(ctx.opt_float(own)?.unwrap_or(eps))];
            let weight = graph.cast(weight, graph.dtype(*side))?;
            *side = graph.op("rms_norm", &attrs, &[*side, weight])?;
        }
    }
    let shape = graph.shape(q);
    let [batch, sequence] = [0, 1].map(|a| shape[a].clone());
    let before = before(graph, ctx, &batch, &sequence)?;
    if ctx.flag("do_rotary", false)? {
        let angles = angles(graph, ctx, &before, &sequence)?;
        let interleaved = ctx.flag("rotary_interleaved", false)?;
        q = graph.turned(q, 1, angles, interleaved)?;
        k = graph.turned(k, 1, angles, interleaved)?;
    }
    let total = match ctx.optional(6) {
        Some(t) => graph.dims_of(t).and_then(|d| d.first().cloned()),
        None => None,
    };
    let mut present = vec![];
    for (new, past) in [(k, ctx.optional(3)), (v, ctx.optional(4))] {
        let new = graph.transpose(new, &[0, 2, 1, 3])?;
        present.push(match past {
            Some(past) => cached(graph, new, past, &before, total.as_ref())?,
            None => new,
        });
    }
    // Of a buffer, only what is in use is read, where that is a size.
    let length = graph.shape(present[0])[2].clone();
    let keys = match total {
        Some(t) if ctx.optional(3).is_some() && t != length => {
            graph.require_at_most(&t, &length)?;
            t
        }
        _ => length,
    };
    let mut sides = vec![];
    for &p in &present {
        sides.push(graph.slice_axis(p, 2, Dim::ZERO, keys.clone())?);
    }
    let (causal, mask) = visible(graph, ctx, &before, [&sequence, &keys])?;
    let mut bias = ctx.optional(10);
    if let Some(b) = bias {
        bias = Some(reaching(graph, b, &keys)?);
    }
    let sink = sink(graph, ctx, n)?;
    // A sink is one more key in front.
    let causal = causal.map(|c| if sink.is_some() { &c + 1 } else { c });
    let (bias, mask) = match sink {
        Some(sink) => with_sink(graph, &mut sides, sink, [bias, mask], &keys)?,
        None => (bias, mask),
    };
    let y = graph.attend(Attend {
        sides: [Side::beside(q), Side::plain(sides[0]), Side::plain(sides[1])],
        bias,
        mask,
        scale: scale(ctx)?,
        softcap: ctx.float("softcap", 0.0)?.max(0.0),
        causal,
    })?;
    Ok(vec![y, present[0], present[1]])
}

/// Queries, keys and values as [batch, sequence, heads, size], apart or packed in one.
fn projections(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, n: i64, shared: i64) -> Result<[Value; 3], Fail> {
    let query = ctx.input(0)?;
    let (Some(key), Some(value)) = (ctx.optional(1), ctx.optional(2)) else {
        let all = graph.heads_apart(query, n + 2 * shared)?;
        let mut part = |first: i64, count: i64| graph.slice_axis(all, 2, Dim::Const(first), Dim::Const(count));
        return Ok([part(0, n)?, part(n, shared)?, part(n + shared, shared)?]);
    };
    let q = graph.heads_apart(query, n)?;
    let shape = graph.shape(q);
    let want = [shape[0].clone(), shape[1].clone(), Dim::Const(shared), shape[3].clone()];
    let mut side = |v: Value| {
        let v = graph.heads_apart(v, shared)?;
        graph.fit_shape(v, &want)
    };
    Ok([q, side(key)?, side(value)?])
}

/// How many keys there were, of the lengths that there are after this step, less one.
fn before(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, batch: &Dim, sequence: &Dim) -> Result<Before, Fail> {
    if ctx.optional(3).is_none() {
        return Ok(Before::Known(Dim::ZERO));
    }
    let lengths = ctx.input(5)?;
    let counts = ctx.optional(16);
    if let (Some(dims), None) = (graph.dims_of(lengths), counts)
        && let Some((first, rest)) = dims.split_first()
        && rest.iter().all(|d| d == first)
    {
        return Ok(Before::Known(Dim::max(&(&(first + 1) - sequence), &Dim::ZERO)));
    }
    let flat = |graph: &mut Builder<'_>, v: Value| {
        let n = graph.ty(v).len();
        let v = graph.reshape(v, vec![n])?;
        let v = graph.fit(v, 0, batch)?;
        graph.cast(v, DType::I64)
    };
    let lengths = flat(graph, lengths)?;
    let total = graph.map_num("add", lengths, 1)?;
    Ok(Before::Data(match counts {
        Some(counts) => {
            let counts = flat(graph, counts)?;
            graph.map("sub", &[total, counts])?
        }
        None => {
            let n = graph.dim_scalar(sequence, DType::I64)?;
            let before = graph.map("sub", &[total, n])?;
            graph.map_num("max", before, 0)?
        }
    }))
}

/// The cosines and sines of the new positions.
fn angles(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, before: &Before, sequence: &Dim) -> Result<[Value; 2], Fail> {
    let mut angles = [ctx.input(7)?, ctx.input(8)?];
    let mut positions = ctx.optional(9);
    if let (Before::Data(_), None) = (before, positions) {
        let at = graph.iota(DType::I64, &[Dim::ONE, sequence.clone()], 1)?;
        let first = before.value(graph, 2)?;
        positions = Some(graph.map("add", &[at, first])?);
    }
    for table in &mut angles {
        if graph.rank(*table) != 2 {
            return Err(Fail::Bad(format!("a table {}, expected rank 2", graph.ty(*table))));
        }
        *table = match (positions, before) {
            (None, Before::Known(first)) => {
                let most = graph.shape(*table)[0].clone();
                graph.require_at_most(&(first + sequence), &most)?;
                let rows = graph.slice_axis(*table, 0, first.clone(), sequence.clone())?;
                graph.unsqueeze(rows, &[0])?
            }
            (Some(at), _) => graph.gather(0, *table, at)?,
            (None, Before::Data(_)) => unreachable!("positions were made above"),
        };
    }
    Ok(angles)
}

/// A cache with new keys or values `[batch, heads, sequence, size]` behind what there was; as long as the whole is at most, where that is
/// known and more.
fn cached(graph: &mut Builder<'_>, new: Value, past: Value, before: &Before, total: Option<&Dim>) -> One {
    if graph.rank(past) != 4 {
        return Err(Fail::Bad(format!("a cache {}, expected rank 4", graph.ty(past))));
    }
    let s = graph.shape(new);
    let held = graph.shape(past)[2].clone();
    let past = graph.fit_shape(past, &[s[0].clone(), s[1].clone(), held.clone(), s[3].clone()])?;
    if let Before::Known(d) = before
        && *d == held
    {
        return graph.concat(2, &[past, new]);
    }
    let mut all = past;
    if let Some(total) = total {
        let length = Dim::max(&held, total);
        if length != held {
            let mut high = vec![Dim::ZERO; 4];
            high[2] = &length - &held;
            all = graph.pad(past, vec![Dim::ZERO; 4], high, vec![0; 4], 0.0)?;
        }
    }
    let mut index = graph.iota(DType::I64, &s, 2)?;
    let first = before.value(graph, 4)?;
    index = graph.map("add", &[index, first])?;
    let attrs = [Attr::Int(2), Attr::word("none")];
    graph.op("scatter_elements", &attrs, &[all, index, new])
}

/// Which keys a query sees: by a causal frontier where that is a size, and by a mask.
fn visible(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    before: &Before,
    [sequence, keys]: [&Dim; 2],
) -> Result<(Option<Dim>, Option<Value>), Fail> {
    let window = ctx.int("local_window_size", -1)?;
    let causal = ctx.flag("causal", true)?;
    if !causal && window > 0 {
        return Err(Fail::Bad(format!("local_window_size {window} where causal is 0")));
    }
    let plane = [sequence.clone(), keys.clone()];
    let key = graph.iota(DType::I64, &plane, 1)?;
    let mut frontier = None;
    let mut seen = None;
    let first = before.value(graph, 4)?;
    match (causal, before) {
        (true, Before::Known(d)) => frontier = Some(d.clone()),
        (true, Before::Data(_)) => {
            let row = graph.iota(DType::I64, &plane, 0)?;
            let own = graph.map("add", &[row, first])?;
            seen = Some(graph.map("less_or_equal", &[key, own])?);
        }
        (false, _) => {
            // Keys behind the end of a sequence are none.
            let lengths = ctx.input(5)?;
            let lengths = graph.cast(lengths, DType::I64)?;
            let n = graph.ty(lengths).len();
            let lengths = graph.reshape(lengths, vec![n, Dim::ONE, Dim::ONE, Dim::ONE])?;
            seen = Some(graph.map("less_or_equal", &[key, lengths])?);
        }
    }
    if window > 0 {
        let row = graph.iota(DType::I64, &plane, 0)?;
        let own = graph.map("add", &[row, first])?;
        let least = graph.map_num("sub", own, window)?;
        let near = graph.map("greater", &[key, least])?;
        seen = Some(match seen {
            Some(seen) => graph.map("and", &[seen, near])?,
            None => near,
        });
    }
    Ok((frontier, seen))
}

/// A bias whose last axis reaches as far as there are keys; those beyond are not seen.
fn reaching(graph: &mut Builder<'_>, bias: Value, keys: &Dim) -> One {
    let rank = graph.rank(bias);
    let Some(last) = graph.shape(bias).last().cloned() else {
        return Err(Fail::Bad(format!("attention_bias {}, expected rank 4", graph.ty(bias))));
    };
    if last.is(1) || last == *keys {
        return Ok(bias);
    }
    let short = keys - &last;
    if short.as_const().is_none() {
        return graph.fit(bias, rank - 1, keys);
    }
    let mut high = vec![Dim::ZERO; rank];
    high[rank - 1] = short;
    graph.pad(bias, vec![Dim::ZERO; rank], high, vec![0; rank], 0.0)
}

/// What a softmax has in its sum beside the keys: a number of each head `[1, heads, 1, 1]`, 0 for `smooth_softmax`.
fn sink(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, n: i64) -> Result<Option<Value>, Fail> {
    let shape = [Dim::ONE, Dim::Const(n), Dim::ONE, Dim::ONE];
    if let Some(sink) = ctx.optional(11) {
        let sink = graph.widen(sink)?;
        return graph.reshape(sink, shape.to_vec()).map(Some);
    }
    match ctx.flag("smooth_softmax", false)? {
        true => graph.splat(DType::F32, &shape, 0.0).map(Some),
        false => Ok(None),
    }
}

/// The sink as one more key, of zeros, whose bias it is, with a value of zeros. It lies in front, where everyone sees it.
fn with_sink(
    graph: &mut Builder<'_>,
    sides: &mut [Value],
    sink: Value,
    [bias, mask]: [Option<Value>; 2],
    keys: &Dim,
) -> Result<(Option<Value>, Option<Value>), Fail> {
    for side in sides.iter_mut() {
        let mut shape = graph.shape(*side);
        shape[2] = Dim::ONE;
        let none = graph.splat(graph.dtype(*side), &shape, 0.0)?;
        *side = graph.concat(2, &[none, *side])?;
    }
    let bias = match bias {
        Some(b) => {
            let missing: Vec<usize> = (0..4usize.saturating_sub(graph.rank(b))).collect();
            let b = graph.widen(b)?;
            graph.unsqueeze(b, &missing)?
        }
        None => graph.splat(DType::F32, &[Dim::ONE, Dim::ONE, Dim::ONE, keys.clone()], 0.0)?,
    };
    let mut shape = graph.broadcast_shape(&[bias, sink])?;
    let column = [&shape[..3], &[Dim::ONE]].concat();
    shape[3] = keys.clone();
    let (sink, bias) = (graph.spread(sink, &column)?, graph.spread(bias, &shape)?);
    let bias = graph.concat(3, &[sink, bias])?;
    let mask = match mask {
        Some(m) => {
            let missing: Vec<usize> = (0..4 - graph.rank(m)).collect();
            let m = graph.unsqueeze(m, &missing)?;
            let mut shape = graph.shape(m);
            shape[3] = Dim::ONE;
            let always = graph.splat(DType::Bool, &shape, 1)?;
            Some(graph.concat(3, &[always, m])?)
        }
        None => None,
    };
    Ok((Some(bias), mask))
}
