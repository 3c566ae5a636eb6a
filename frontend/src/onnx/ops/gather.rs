//! Reading by index: `Gather`, `GatherElements`, `GatherND`, `Compress`, `OneHot`, `ReverseSequence`, `Trilu`.

use super::*;
use brolga_ir::dim::product;
use brolga_ir::{Attr, DType, Dim};

/// `Gather`.
pub fn gather(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = node::axis(ctx.int("axis", 0)?, graph.rank(x))?;
    graph.check_indices(x, indices, &[axis])?;
    let n = graph.shape(x)[axis].clone();
    let index = graph
        .contents(indices)
        .filter(|t| t.dtype().is_int())
        .map(|t| t.to_i64s());
    // One known index is a slice, which later passes read through.
    if let Some([i]) = index.as_deref()
        && n.as_const().is_some()
    {
        let i = if *i < 0 { &n + &Dim::Const(*i) } else { Dim::Const(*i) };
        let y = graph.slice_axis(x, axis, i, Dim::ONE)?;
        let mut shape = graph.shape(x);
        shape.splice(axis..=axis, graph.shape(indices));
        return one(graph.reshape(y, shape));
    }
    one(graph.gather(axis, x, indices))
}

/// `GatherElements`.
pub fn gather_elements(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = node::axis(ctx.int("axis", 0)?, graph.rank(x))?;
    graph.check_indices(x, indices, &[axis])?;
    one(graph.op("gather_elements", &[Attr::Int(axis as i64)], &[x, indices]))
}

/// `GatherND`.
pub fn gather_nd(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let batch = ctx.int("batch_dims", 0)?;
    let (mut x, mut indices) = (ctx.input(0)?, ctx.input(1)?);
    let shared = graph
        .rank(x)
        .min(graph.rank(indices))
        .min(usize::try_from(batch).unwrap_or(0));
    for axis in 0..shared {
        let (n, m) = (graph.shape(x)[axis].clone(), graph.shape(indices)[axis].clone());
        let n = graph.require_equal(&n, &m)?;
        x = graph.fit(x, axis, &n)?;
        indices = graph.fit(indices, axis, &n)?;
    }
    let y = graph.op("gather_nd", &[Attr::Int(batch)], &[x, indices])?;
    let axes: Vec<usize> = (batch as usize..graph.rank(x)).collect();
    graph.check_indices(x, indices, &axes)?;
    one(Ok(y))
}

impl Builder<'_> {
    /// The positions of a vector of bools where it is true, in order: i64 of an extent that the run tells.
    ///
    /// # Errors
    /// Never for a vector of bools.
    pub fn selected(&mut self, mask: Value) -> One {
        let n = self.shape(mask)[0].clone();
        let ones = self.cast(mask, DType::I64)?;
        let count = self.reduce("sum", &[0], ones)?;
        let count = self.read(count, Some(n.clone()))?;
        // The number of those before it is where a position goes; behind all of them what is not selected.
        let attrs = [Attr::word("sum"), Attr::Int(0), Attr::Bool(true), Attr::Bool(false)];
        let before = self.op("scan", &attrs, &[ones])?;
        let dump = self.dim_scalar(&n, DType::I64)?;
        let to = self.map("where", &[mask, before, dump])?;
        let to = self.unsqueeze(to, &[1])?;
        let from = self.iota(DType::I64, std::slice::from_ref(&n), 0)?;
        let room = self.splat(DType::I64, &[&n + 1], 0)?;
        let all = self.op("scatter_nd", &[Attr::word("none")], &[room, to, from])?;
        self.slice_axis(all, 0, Dim::ZERO, count)
    }
}

/// `NonZero`: the coordinates of what is not zero, a row an axis.
pub fn nonzero(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let mut x = ctx.input(0)?;
    if graph.rank(x) == 0 {
        x = graph.reshape(x, vec![Dim::ONE])?;
    }
    let shape = graph.shape(x);
    let zero = graph.scalar(graph.dtype(x), 0);
    let equal = graph.map("equal", &[x, zero])?;
    let mask = graph.map("not", &[equal])?;
    let mask = graph.reshape(mask, vec![product(&shape)])?;
    let at = graph.selected(mask)?;
    let mut rows = vec![];
    for (axis, n) in shape.iter().enumerate() {
        let inner = graph.dim_scalar(&product(&shape[axis + 1..]), DType::I64)?;
        let outer = graph.map("div", &[at, inner])?;
        let n = graph.dim_scalar(n, DType::I64)?;
        let row = graph.map("mod", &[outer, n])?;
        rows.push(graph.unsqueeze(row, &[0])?);
    }
    one(graph.concat(0, &rows))
}

/// `Compress`.
pub fn compress(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (mut x, condition) = (ctx.input(0)?, ctx.input(1)?);
    let axis = match ctx.opt_int("axis")? {
        Some(a) => node::axis(a, graph.rank(x))?,
        None => {
            let n = graph.ty(x).len();
            x = graph.reshape(x, vec![n])?;
            0
        }
    };
    if graph.contents(condition).is_none() {
        let n = graph.shape(condition).first().cloned();
        let n = n.ok_or("a condition of rank 0")?;
        graph.require_at_most(&n, &graph.shape(x)[axis].clone())?;
        let at = graph.selected(condition)?;
        return one(graph.gather(axis, x, at));
    }
    let keep = graph.ints_operand(condition, "a condition")?;
    let n = graph.shape(x)[axis].as_const();
    let chosen: Vec<i64> = (0..).zip(&keep).filter(|(_, k)| **k != 0).map(|(i, _)| i).collect();
    if let (Some(n), Some(last)) = (n, chosen.last())
        && *last >= n
    {
        return Err(Fail::Bad(format!(
            "a condition that selects element {last} of axis {axis} of {}",
            graph.ty(x)
        )));
    }
    let indices = graph.ints(&chosen);
    one(graph.gather(axis, x, indices))
}

/// `OneHot`: `indices == 0, 1, 2 …` along a new axis selects `on` or `off`.
pub fn one_hot(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let (indices, depth, values) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let depth = graph.cast(depth, DType::I64)?;
    let depth = graph.sizes_operand(depth, "the depth", &[])?;
    let depth = depth.first().cloned().ok_or("an empty depth")?;
    if depth.as_const().is_some_and(|d| d < 0) {
        return Err(Fail::Bad(format!("a depth of {depth}")));
    }
    let rank = graph.rank(indices) + 1;
    let axis = node::axis(ctx.int("axis", -1)?, rank)?;
    let i = graph.cast(indices, DType::I64)?;
    let d = graph.dim_scalar(&depth, DType::I64)?;
    let wrapped = graph.map("add", &[i, d])?;
    let below = graph.map_num("less", i, 0.0)?;
    let i = graph.map("where", &[below, wrapped, i])?;
    let i = graph.unsqueeze(i, &[axis])?;
    let mut shape = graph.shape(i);
    shape[axis] = depth;
    let classes = graph.iota(DType::I64, &shape, axis)?;
    let hit = graph.map("equal", &[i, classes])?;
    let off = graph.slice_axis(values, 0, Dim::ZERO, Dim::ONE)?;
    let on = graph.slice_axis(values, 0, Dim::ONE, Dim::ONE)?;
    let (off, on) = (graph.reshape(off, vec![])?, graph.reshape(on, vec![])?);
    one(graph.map("where", &[hit, on, off]))
}

/// `ReverseSequence`: the first `sequence_lens[b]` elements of every batch entry reversed.
pub fn reverse_sequence(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, lengths) = (ctx.input(0)?, ctx.input(1)?);
    let shape = graph.shape(x);
    let time = node::axis(ctx.int("time_axis", 0)?, shape.len())?;
    let batch = node::axis(ctx.int("batch_axis", 1)?, shape.len())?;
    if time == batch {
        return Err("the time axis is the batch axis".into());
    }
    let at = graph.iota(DType::I64, &shape, time)?;
    let lengths = graph.cast(lengths, DType::I64)?;
    let lengths = graph.fit_shape(lengths, &shape[batch..=batch])?;
    let mut wide = vec![Dim::ONE; shape.len()];
    wide[batch] = shape[batch].clone();
    let lengths = graph.reshape(lengths, wide)?;
    let lengths = graph.spread(lengths, &shape)?;
    let last = graph.map_num("sub", lengths, 1.0)?;
    let back = graph.map("sub", &[last, at])?;
    let inside = graph.map("less", &[at, lengths])?;
    let index = graph.map("where", &[inside, back, at])?;
    one(graph.op("gather_elements", &[Attr::Int(time as i64)], &[x, index]))
}

/// `Trilu`: the upper (`column - row >= k`) or lower (`<= k`) part, zero elsewhere.
pub fn trilu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let rank = shape.len();
    if rank < 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2 or more", graph.ty(x))));
    }
    let k = match ctx.optional(1) {
        Some(k) => graph.reshape(k, vec![])?,
        None => graph.scalar(DType::I64, 0.0),
    };
    let plane = &shape[rank - 2..];
    let (row, column) = (graph.iota(DType::I64, plane, 0)?, graph.iota(DType::I64, plane, 1)?);
    let distance = graph.map("sub", &[column, row])?;
    let test = if ctx.flag("upper", true)? {
        "greater_or_equal"
    } else {
        "less_or_equal"
    };
    let keep = graph.map(test, &[distance, k])?;
    let zero = graph.scalar(graph.dtype(x), 0.0);
    one(graph.map("where", &[keep, x, zero]))
}
