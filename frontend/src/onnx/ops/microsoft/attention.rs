//! `Attention`, `MultiHeadAttention` and `QAttention`: heads beside each other, biases of the projections, caches, masks of several
//! shapes. All of them are the operator of the IR.
//!
//! A mask is added to the scores, as `mask_filter_value` where it hides: a query that may see nothing weighs keys as if there were no
//! mask.

use super::super::rotary::turn_heads;
use super::*;
use brolga_ir::{Attr, DType, Dim};

/// The value that ONNX Runtime adds to hidden scores.
const FILTER: f32 = -10_000.0;

/// The most heads that there may be, so that sums of them are numbers.
const MOST_HEADS: i64 = 1 << 20;

/// The axes [batch, heads, sequence, size] of a tensor in that order.
pub const PLAIN: [usize; 4] = [0, 1, 2, 3];
/// The same of [batch, sequence, heads, size].
pub const BESIDE: [usize; 4] = [0, 2, 1, 3];

/// A side of an attention and where its logical axes are.
#[derive(Clone, Copy)]
pub struct Side {
    /// The tensor, of rank 4.
    pub value: Value,
    /// [`PLAIN`] or [`BESIDE`].
    pub order: [usize; 4],
}

impl Side {
    /// Heads that lie beside each other, with their axis apart.
    pub fn beside(value: Value) -> Side {
        Side { value, order: BESIDE }
    }
    /// Heads one after the other.
    pub fn plain(value: Value) -> Side {
        Side { value, order: PLAIN }
    }
    /// The logical extents.
    pub fn shape(self, graph: &Builder<'_>) -> Vec<Dim> {
        let s = graph.shape(self.value);
        self.order.map(|a| s[a].clone()).to_vec()
    }
}

/// What an attention is of.
pub struct Attend {
    /// Queries, keys and values.
    pub sides: [Side; 3],
    /// What is added to the scores, up to rank 4.
    pub bias: Option<Value>,
    /// Which scores count, of bools, up to rank 4.
    pub mask: Option<Value>,
    /// A factor of the scores, the usual one where there is none.
    pub scale: Option<f64>,
    /// The bound of the scores, 0 for none.
    pub softcap: f64,
    /// How many keys lie in front of the first query, where queries do not see those behind them.
    pub causal: Option<Dim>,
}

impl Builder<'_> {
    /// An attention, as [batch, sequence, heads · size] in the dtype of the queries; 16-bit floats are computed in f32.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn attend(&mut self, a: Attend) -> One {
        let [q, k, v] = a.sides;
        let (qs, ks) = (q.shape(self), k.shape(self));
        let Some(size) = qs[3].as_const() else {
            return unsupported("a symbolic head size");
        };
        if qs[1].exact_div(&ks[1]).is_none() {
            return Err(Fail::Bad(format!("{} query heads for {} of keys", qs[1], ks[1])));
        }
        let dtype = self.dtype(q.value);
        let mut operands = vec![self.widen(q.value)?];
        for (side, wants) in [
            (k, [Some(&qs[0]), None, None, Some(&qs[3])]),
            (v, [Some(&qs[0]), Some(&ks[1]), Some(&ks[2]), None]),
        ] {
            let mut x = side.value;
            for (axis, want) in side.order.into_iter().zip(wants) {
                if let Some(want) = want {
                    x = self.fit(x, axis, want)?;
                }
            }
            operands.push(self.widen(x)?);
        }
        let full = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
        for extra in [a.bias, a.mask].into_iter().flatten() {
            let missing: Vec<usize> = (0..4usize.saturating_sub(self.rank(extra))).collect();
            let mut extra = self.unsqueeze(extra, &missing)?;
            if self.shape(extra).iter().zip(&full).any(|(b, f)| !b.is(1) && b != f) {
                extra = self.spread(extra, &full)?;
            }
            operands.push(self.widen(extra)?);
        }
        let unseen = a.causal.is_some() || a.bias.is_some() || a.mask.is_some();
        let attrs = [
            Attr::axes(&q.order),
            Attr::axes(&k.order),
            Attr::axes(&v.order),
            Attr::axes(&BESIDE),
            Attr::num(a.scale.unwrap_or(1.0 / (size as f64).sqrt())),
            Attr::num(a.softcap),
            Attr::num(f64::NEG_INFINITY),
            Attr::Bool(a.causal.is_some()),
            Attr::Dims(vec![a.causal.unwrap_or(Dim::ZERO)]),
            Attr::word(if unseen { "unseen" } else { "never" }),
        ];
        let y = self.op("attention", &attrs, &operands)?;
        let s = self.shape(y);
        let y = self.reshape(y, vec![s[0].clone(), s[1].clone(), &s[2] * &s[3]])?;
        self.cast(y, dtype)
    }

    /// `[batch, sequence, heads · size]` with the heads apart.
    ///
    /// # Errors
    /// When they are no such number.
    pub fn heads_apart(&mut self, v: Value, heads: i64) -> One {
        let s = self.shape(v);
        match &s[..] {
            [b, l, all] => match all.exact_div(&Dim::Const(heads)) {
                Some(size) if heads > 0 => self.reshape(v, vec![b.clone(), l.clone(), Dim::Const(heads), size]),
                _ => Err(Fail::Bad(format!("{heads} heads of {}", self.ty(v)))),
            },
            _ => Err(Fail::Bad(format!("{}, expected rank 3", self.ty(v)))),
        }
    }
}

/// The attribute `num_heads`.
pub fn heads(ctx: &NodeCtx<'_>, name: &str) -> Result<i64, Fail> {
    match ctx.opt_int(name)? {
        Some(n) if (1..=MOST_HEADS).contains(&n) => Ok(n),
        Some(n) => Err(Fail::Bad(format!(
            "attribute `{name}` is {n}, expected 1 to {MOST_HEADS}"
        ))),
        None => Err(Fail::Bad(format!("attribute `{name}` is missing"))),
    }
}

/// The attribute `scale`, where 0 means the usual one.
pub fn scale(ctx: &NodeCtx<'_>) -> Result<Option<f64>, Fail> {
    Ok(ctx.opt_float("scale")?.filter(|&s| s != 0.0))
}

/// What a mask of integers adds to the scores of [batch, heads, queries, keys]: end positions of the keys of each sequence, those and
/// start positions, or 0 for what is hidden, for keys or for queries and keys.
fn padding(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    mask: Option<Value>,
    full: &[Dim; 4],
) -> Result<Option<Value>, Fail> {
    let Some(mask) = mask else {
        return Ok(None);
    };
    let [batch, _, queries, keys] = full;
    let shape = graph.shape(mask);
    let seen = match &shape[..] {
        [n] => {
            let mask = graph.cast(mask, DType::I64)?;
            let at = graph.iota(DType::I64, &[Dim::ONE, keys.clone()], 1)?;
            let part = |graph: &mut Builder<'_>, first: &Dim| {
                let v = graph.slice_axis(mask, 0, first.clone(), batch.clone())?;
                graph.unsqueeze(v, &[1])
            };
            if *n == &(batch * 3) + 2 && *n != *batch {
                return unsupported("a mask of cumulated lengths, [3 batch + 2]");
            }
            let both = *n == batch * 2 && *n != *batch;
            if !both {
                graph.require_equal(n, batch).map_err(|_| {
                    Fail::Bad(format!(
                        "mask {} for a batch of {batch}, expected as many or twice",
                        graph.ty(mask)
                    ))
                })?;
            }
            let end = part(graph, &Dim::ZERO)?;
            let below = graph.map("less", &[at, end])?;
            match both {
                false => below,
                true => {
                    let start = part(graph, batch)?;
                    let behind = graph.map("greater_or_equal", &[at, start])?;
                    graph.map("and", &[below, behind])?
                }
            }
        }
        [_, _] => {
            let mask = graph.fit_shape(mask, &[batch.clone(), keys.clone()])?;
            graph.map_num("greater", mask, 0)?
        }
        [_, _, _] => {
            let mask = graph.fit_shape(mask, &[batch.clone(), queries.clone(), keys.clone()])?;
            graph.map_num("greater", mask, 0)?
        }
        _ => return unsupported(format!("a mask of rank {}", shape.len())),
    };
    let (zero, hidden) = (
        graph.scalar(DType::F32, 0.0),
        graph.scalar(DType::F32, ctx.float("mask_filter_value", FILTER)?),
    );
    let bias = graph.map("where", &[seen, zero, hidden])?;
    let axes: &[usize] = if graph.rank(bias) == 2 { &[1, 2] } else { &[1] };
    graph.unsqueeze(bias, axes).map(Some)
}

/// The sum of what is there.
fn both(graph: &mut Builder<'_>, a: Option<Value>, b: Option<Value>) -> Result<Option<Value>, Fail> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let (a, b) = (graph.widen(a)?, graph.widen(b)?);
            graph.map("add", &[a, b]).map(Some)
        }
        (a, b) => Ok(a.or(b)),
    }
}

/// Keys or values behind those of a cache, in their order.
fn behind(graph: &mut Builder<'_>, side: Side, past: Value) -> Result<Side, Fail> {
    let v = graph.transpose(side.value, &side.order)?;
    let s = graph.shape(v);
    if graph.rank(past) != 4 {
        return Err(Fail::Bad(format!("a cache {}, expected rank 4", graph.ty(past))));
    }
    let want = [s[0].clone(), s[1].clone(), graph.shape(past)[2].clone(), s[3].clone()];
    let past = graph.fit_shape(past, &want)?;
    Ok(Side::plain(graph.concat(2, &[past, v])?))
}

/// `RotaryEmbedding`: angles by position, from tables.
pub fn rotary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(4, 4)?;
    if ctx.flag("is_packed_batching", false)? {
        return unsupported("is_packed_batching");
    }
    if ctx.float("scale", 1.0)? != 1.0 {
        return unsupported("a scale other than 1");
    }
    let (x, ids) = (ctx.input(0)?, ctx.input(1)?);
    let s = graph.shape(x);
    let sequence = match s.len() {
        3 => s[1].clone(),
        4 => s[2].clone(),
        _ => return Err(Fail::Bad(format!("{}, expected rank 3 or 4", graph.ty(x)))),
    };
    // One position is that of the first of a sequence.
    let ids = match &graph.shape(ids)[..] {
        [_] => {
            let first = graph.fit(ids, 0, &Dim::ONE)?;
            let first = graph.reshape(first, vec![Dim::ONE, Dim::ONE])?;
            let at = graph.iota(DType::I64, &[Dim::ONE, sequence], 1)?;
            let first = graph.cast(first, DType::I64)?;
            graph.map("add", &[at, first])?
        }
        _ => ids,
    };
    let mut angles = [ctx.input(2)?, ctx.input(3)?];
    for table in &mut angles {
        if graph.rank(*table) != 2 {
            return Err(Fail::Bad(format!("a table {}, expected rank 2", graph.ty(*table))));
        }
        graph.check_indices(*table, ids, &[0])?;
        *table = graph.gather(0, *table, ids)?;
    }
    one(turn_heads(graph, ctx, x, angles))
}

/// Refuses attributes that say 1 to what is not supported.
pub fn refuse(ctx: &NodeCtx<'_>, names: &[&str]) -> Result<(), Fail> {
    for name in names {
        if ctx.flag(name, false)? {
            return unsupported(format!("{name} = 1"));
        }
    }
    Ok(())
}

/// `Attention`: of one projection of the input.
pub fn attention(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 7)?;
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    let dtype = graph.dtype(x);
    let mut projected = graph.matmul_to(dtype.compute(), x, w)?;
    if let Some(bias) = ctx.optional(2) {
        let bias = graph.cast(bias, dtype.compute())?;
        projected = graph.map("add", &[projected, bias])?;
    }
    let projected = graph.cast(projected, dtype)?;
    if ctx.optional(6).is_some() {
        return unsupported("past_sequence_length");
    }
    self_attention(
        graph,
        ctx,
        projected,
        [ctx.optional(3), ctx.optional(4), ctx.optional(5)],
    )
}

/// `QAttention`: the same of bytes.
pub fn quantized(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(5, 9)?;
    let single = |graph: &mut Builder<'_>, v: Option<Value>| v.map(|v| graph.single(v)).transpose();
    let zeros = [single(graph, ctx.optional(6))?, single(graph, ctx.optional(7))?];
    let y = graph.matmul_bytes([(ctx.input(0)?, zeros[0]), (ctx.input(1)?, zeros[1])])?;
    let scales = [graph.single(ctx.input(3)?)?, graph.single(ctx.input(4)?)?];
    let scale = graph.map("mul", &scales)?;
    let bias = ctx.input(2)?;
    let projected = graph.scaled(y, scale, Some(bias))?;
    self_attention(graph, ctx, projected, [ctx.optional(5), ctx.optional(8), None])
}

/// Queries, keys and values beside each other in one tensor, with a mask, a cache `[2, batch, heads, past, size]` and a bias of the
/// scores; the next cache is a result.
fn self_attention(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    projected: Value,
    [mask, past, bias]: [Option<Value>; 3],
) -> Outcome {
    refuse(ctx, &["do_rotary", "past_present_share_buffer"])?;
    let n = heads(ctx, "num_heads")?;
    let shape = graph.shape(projected);
    let [_, sequence, width] = &shape[..] else {
        return Err(Fail::Bad(format!(
            "a projection {}, expected rank 3",
            graph.ty(projected)
        )));
    };
    let widths: Vec<Dim> = match ctx.ints("qkv_hidden_sizes")?.filter(|s| !s.is_empty()) {
        Some(&[q, k, v]) => vec![Dim::Const(q), Dim::Const(k), Dim::Const(v)],
        Some(s) => return Err(Fail::Bad(format!("qkv_hidden_sizes {s:?}, expected 3"))),
        None => match width.exact_div(&Dim::Const(3)) {
            Some(third) => vec![third; 3],
            None => {
                return Err(Fail::Bad(format!(
                    "a projection of {width} columns, expected a multiple of 3"
                )));
            }
        },
    };
    if width != &(&(&widths[0] + &widths[1]) + &widths[2]) {
        return Err(Fail::Bad(format!("qkv_hidden_sizes {widths:?} for {width} columns")));
    }
    let mut first = Dim::ZERO;
    let mut sides = vec![];
    for width in &widths {
        let v = graph.slice_axis(projected, 2, first.clone(), width.clone())?;
        sides.push(Side::beside(graph.heads_apart(v, n)?));
        first = &first + width;
    }
    let mut out = vec![];
    let mut offset = Dim::ZERO;
    if let Some(past) = past {
        if graph.rank(past) != 5 {
            return Err(Fail::Bad(format!("a cache {}, expected rank 5", graph.ty(past))));
        }
        offset = graph.shape(past)[3].clone();
        for (i, side) in sides[1..].iter_mut().enumerate() {
            let own = graph.slice_axis(past, 0, Dim::from(i), Dim::ONE)?;
            let own = graph.squeeze(own, &[0])?;
            *side = behind(graph, *side, own)?;
        }
    }
    if past.is_some() || ctx.wants(1) {
        let mut parts = vec![];
        for side in &sides[1..] {
            let v = graph.transpose(side.value, &side.order)?;
            parts.push(graph.unsqueeze(v, &[0])?);
        }
        out.push(graph.concat(0, &parts)?);
    }
    let (qs, ks) = (sides[0].shape(graph), sides[1].shape(graph));
    let full = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
    let causal = ctx.flag("unidirectional", false)? && !sequence.is(1);
    let mask = padding(graph, ctx, mask, &full)?;
    let bias = both(graph, mask, bias)?;
    let y = graph.attend(Attend {
        sides: [sides[0], sides[1], sides[2]],
        bias,
        mask: None,
        scale: scale(ctx)?,
        softcap: 0.0,
        causal: causal.then_some(offset),
    })?;
    out.insert(0, y);
    Ok(out)
}

/// `MultiHeadAttention`: queries, keys and values apart, or packed in `[batch, sequence, heads, 2 or 3, size]`; keys and values that are
/// `[batch, heads, sequence, size]` are read as they are.
pub fn multi_head(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 10)?;
    for (i, name) in [(8, "past_sequence_length"), (9, "cache_indirection")] {
        if ctx.optional(i).is_some() {
            return unsupported(name);
        }
    }
    let n = heads(ctx, "num_heads")?;
    let query = ctx.input(0)?;
    let mut sides = vec![];
    // One of several that lie beside each other, by axis 3.
    let packed = |graph: &mut Builder<'_>, v: Value, i: i64, count: i64| {
        let s = graph.shape(v);
        if s.len() != 5 || !s[2].is(n) || !s[3].is(count) {
            let ty = graph.ty(v);
            return Err(Fail::Bad(format!(
                "{ty}, expected [batch, sequence, {n}, {count}, size]"
            )));
        }
        let v = graph.slice_axis(v, 3, Dim::Const(i), Dim::ONE)?;
        graph.squeeze(v, &[3]).map(Side::beside)
    };
    match (ctx.optional(1), ctx.optional(2)) {
        (None, None) => {
            for i in 0..3 {
                sides.push(packed(graph, query, i, 3)?);
            }
        }
        (Some(kv), None) => {
            sides.push(Side::beside(graph.heads_apart(query, n)?));
            for i in 0..2 {
                sides.push(packed(graph, kv, i, 2)?);
            }
        }
        (key, value) => {
            sides.push(Side::beside(graph.heads_apart(query, n)?));
            for v in [key, value] {
                let v = v.ok_or_else(|| Fail::Bad("a value without a key".into()))?;
                sides.push(match graph.rank(v) {
                    4 => Side::plain(v),
                    _ => Side::beside(graph.heads_apart(v, n)?),
                });
            }
        }
    }
    if let Some(bias) = ctx.optional(3) {
        if graph.rank(bias) != 1 {
            return Err(Fail::Bad(format!("a bias {}, expected rank 1", graph.ty(bias))));
        }
        let mut first = Dim::ZERO;
        for side in &mut sides {
            let s = side.shape(graph);
            let width = &s[1] * &s[3];
            let own = graph.slice_axis(bias, 0, first.clone(), width.clone())?;
            first = &first + &width;
            // Keys and values that come with their heads in front are projected already.
            if side.order == BESIDE {
                let own = graph.reshape(own, vec![s[1].clone(), s[3].clone()])?;
                side.value = graph.map("add", &[side.value, own])?;
            }
        }
    }
    let (mut offset, mut present) = (Dim::ZERO, vec![]);
    for i in 0..2 {
        let past = ctx.optional(6 + i);
        let side = &mut sides[1 + i];
        if let Some(past) = past {
            offset = graph.shape(past).get(2).cloned().unwrap_or(Dim::ZERO);
            *side = behind(graph, *side, past)?;
        } else if ctx.wants(1 + i) {
            *side = Side::plain(graph.transpose(side.value, &side.order)?);
        }
        present.push(side.value);
    }
    let (qs, ks) = (sides[0].shape(graph), sides[1].shape(graph));
    let full = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
    let causal = ctx.flag("unidirectional", false)? && !qs[2].is(1);
    let mask = padding(graph, ctx, ctx.optional(4), &full)?;
    if ctx.wants(3) {
        return unsupported("result 3");
    }
    let bias = both(graph, mask, ctx.optional(5))?;
    let y = graph.attend(Attend {
        sides: [sides[0], sides[1], sides[2]],
        bias,
        mask: None,
        scale: scale(ctx)?,
        softcap: 0.0,
        causal: causal.then_some(offset),
    })?;
    Ok([y].into_iter().chain(present).collect())
}
