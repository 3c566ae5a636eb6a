//! `Slice`, `Split`, `Concat`.

use super::*;
use brolga_ir::{DType, Dim};

/// `Concat`.
pub fn concat(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let mut vs = ctx.variadic()?;
    let rank = graph.rank(vs[0]);
    let axis = ctx.opt_int("axis")?.ok_or("attribute `axis` is missing")?;
    let axis = node::axis(axis, rank)?;
    if let Some(&v) = vs.iter().find(|&&v| graph.rank(v) != rank) {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected equal ranks",
            graph.ty(vs[0]),
            graph.ty(v)
        )));
    }
    // Other extents must agree; symbolic ones that are not the same expression get a guard.
    for other in (0..rank).filter(|&a| a != axis) {
        let mut d = graph.shape(vs[0])[other].clone();
        for &v in &vs[1..] {
            let e = graph.shape(v)[other].clone();
            d = graph.require_equal(&d, &e).map_err(|_| {
                Fail::Bad(format!(
                    "operands {} and {} to be joined along axis {axis}",
                    graph.ty(vs[0]),
                    graph.ty(v)
                ))
            })?;
        }
        for v in &mut vs {
            *v = graph.fit(*v, other, &d)?;
        }
    }
    one(graph.concat(axis, &vs))
}

/// `Slice`: bounds are attributes before version 10, operands since.
pub fn slice(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 5)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let dims = |l: &[i64]| l.iter().map(|&i| Dim::Const(i)).collect::<Vec<_>>();
    let (starts, ends, axes, steps) = if ctx.version < 10 {
        let list = |name: &str| -> Result<Vec<Dim>, Fail> {
            Ok(dims(
                ctx.ints(name)?
                    .ok_or_else(|| Fail::Bad(format!("attribute `{name}` is missing")))?,
            ))
        };
        (
            list("starts")?,
            list("ends")?,
            ctx.ints("axes")?.map(<[i64]>::to_vec),
            None,
        )
    } else {
        let (starts, ends) = (ctx.input(1)?, ctx.input(2)?);
        let known = [starts, ends].map(|v| graph.dims_of(v));
        if known.contains(&None) && graph.dtype(starts).is_int() {
            return one(graph.slice_by_data(ctx, x, starts, ends));
        }
        let starts = graph.dims_operand(starts, "starts")?;
        let ends = graph.dims_operand(ends, "ends")?;
        let axes = ctx.optional(3).map(|v| graph.ints_operand(v, "axes")).transpose()?;
        let steps = ctx.optional(4).map(|v| graph.ints_operand(v, "steps")).transpose()?;
        (starts, ends, axes, steps)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps_in = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps_in.len()] != [starts.len(); 3] {
        return Err(Fail::Bad(format!(
            "{} starts, {} ends, {} axes and {} steps, expected equal numbers",
            starts.len(),
            ends.len(),
            axes.len(),
            steps_in.len()
        )));
    }
    node::axes(&axes, shape.len())?;
    let mut from = vec![Dim::ZERO; shape.len()];
    let mut sizes = shape.clone();
    let mut steps = vec![1i64; shape.len()];
    for (i, &a) in axes.iter().enumerate() {
        let a = node::axis(a, shape.len())?;
        (from[a], sizes[a]) = range(graph, &starts[i], &ends[i], steps_in[i], &shape[a])?;
        // Steps beyond any extent read at most one element; the arithmetic on them is kept small.
        steps[a] = steps_in[i].clamp(-(1 << 40), 1 << 40);
    }
    one(graph.slice(x, from, sizes, steps))
}

impl Builder<'_> {
    /// A `Slice` whose bounds data tell: clamped in the run, as numpy does, to a first position and a size that are read.
    fn slice_by_data(&mut self, ctx: &NodeCtx<'_>, x: Value, starts: Value, ends: Value) -> One {
        let shape = self.shape(x);
        let n = self.size_count(starts, "starts")?;
        if self.size_count(ends, "ends")? != n {
            return Err(Fail::Bad(format!("{n} starts, and ends {}", self.ty(ends))));
        }
        let axes = ctx.optional(3).map(|v| self.ints_operand(v, "axes")).transpose()?;
        let axes = axes.unwrap_or_else(|| (0..n).collect());
        let steps_in = ctx.optional(4).map(|v| self.ints_operand(v, "steps")).transpose()?;
        let steps_in = steps_in.unwrap_or_else(|| vec![1; n as usize]);
        if [axes.len(), steps_in.len()] != [n as usize; 2] || steps_in.contains(&0) {
            return Err(Fail::Bad(format!("{n} starts, axes {axes:?} and steps {steps_in:?}")));
        }
        node::axes(&axes, shape.len())?;
        let (starts, ends) = (self.cast(starts, DType::I64)?, self.cast(ends, DType::I64)?);
        let mut from = vec![Dim::ZERO; shape.len()];
        let mut sizes = shape.clone();
        let mut steps = vec![1i64; shape.len()];
        for (k, (&a, &step)) in axes.iter().zip(&steps_in).enumerate() {
            let a = node::axis(a, shape.len())?;
            let extent = self.dim_scalar(&shape[a], DType::I64)?;
            let step = step.clamp(-(1 << 40), 1 << 40);
            let (low, high) = if step > 0 { (0, 0) } else { (-1, -1) };
            let high = self.map_num("add", extent, high)?;
            let bound = |graph: &mut Self, all: Value| {
                let v = graph.slice_axis(all, 0, Dim::Const(k as i64), Dim::ONE)?;
                let v = graph.reshape(v, vec![])?;
                let zero = graph.scalar(DType::I64, 0);
                let negative = graph.map("less", &[v, zero])?;
                let wrapped = graph.map("add", &[v, extent])?;
                let v = graph.map("where", &[negative, wrapped, v])?;
                let v = graph.map_num("max", v, low)?;
                graph.map("min", &[v, high])
            };
            let (first, last) = (bound(self, starts)?, bound(self, ends)?);
            // (last - first) / step, rounded up.
            let span = self.map("sub", &[last, first])?;
            let span = self.map_num("add", span, step - step.signum())?;
            let by = self.scalar(DType::I64, step);
            let size = self.map("div", &[span, by])?;
            let size = self.map_num("max", size, 0)?;
            let first = self.map_num("max", first, 0)?;
            from[a] = self.read(first, Some(shape[a].clone()))?;
            sizes[a] = self.read(size, Some(shape[a].clone()))?;
            steps[a] = step;
        }
        self.slice(x, from, sizes, steps)
    }
}

/// Extents from this on are assumed to be larger than those of any tensor, where a model slices up to them: exporters write
/// them for "to the end", and their negatives for "from the begin". A run with a larger extent is refused by a guard.
const BEYOND: u64 = 1_000_000_000;

/// The first position and the number of elements of `start:end:step` on an extent, as numpy clamps them.
fn range(graph: &mut Builder<'_>, start: &Dim, end: &Dim, step: i64, n: &Dim) -> Result<(Dim, Dim), Fail> {
    if step == 0 {
        return Err("a step of 0".into());
    }
    // A negative bound counts from the end.
    let absolute = |d: &Dim| match d.as_const() {
        // From here on constants are small enough that sums of them do not overflow.
        Some(c) if c < 0 => n + &Dim::Const(c.max(-(1 << 60))),
        Some(c) => Dim::Const(c.min(1 << 60)),
        None if d.is_nonnegative() => d.clone(),
        None if (d * -1).is_at_least(1) => d + n,
        // 1 where the bound is negative, else 0.
        None => d + &(n * &Dim::min(&Dim::ONE, &Dim::max(&Dim::ZERO, &(d * -1)))),
    };
    let (low, high) = if step > 0 {
        (Dim::ZERO, n.clone())
    } else {
        (Dim::Const(-1), n - &Dim::ONE)
    };
    let mut clamp = |d: &Dim| -> Result<Dim, Fail> {
        match d.as_const() {
            Some(c) if c.unsigned_abs() >= BEYOND && n.as_const().is_none() => {
                // What no i32 is beyond means the end, or the begin, whatever the extent.
                if (i32::MIN as i64 + 1..i32::MAX as i64).contains(&c) {
                    graph.require_at_most(n, &Dim::Const(c.abs()))?;
                }
                Ok(if c < 0 { low.clone() } else { high.clone() })
            }
            _ => Ok(Dim::min(&Dim::max(&absolute(d), &low), &high)),
        }
    };
    let (first, last) = (clamp(start)?, clamp(end)?);
    let (span, stride) = if step > 0 {
        (&last - &first, step)
    } else {
        (&first - &last, step.saturating_neg())
    };
    let size = Dim::max(&span.ceil_div(&Dim::Const(stride.min(1 << 40))), &Dim::ZERO);
    // An empty range reads nothing; its start is put where it is inside.
    let first = if size.is(0) { Dim::ZERO } else { first };
    Ok((first, size))
}

/// `Split`: by sizes (an attribute before version 13, an operand since) or into equal parts, the last of which may be
/// smaller.
pub fn split(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let axis = node::axis(ctx.int("axis", 0)?, shape.len())?;
    let n = shape[axis].clone();
    let parts = ctx.proto.output.len();
    let sizes: Vec<Dim> = match (ctx.optional(1), ctx.ints("split")?) {
        (Some(v), _) => graph.sizes_operand(v, "sizes", &[Some(n.clone())])?,
        (None, Some(s)) => s.iter().map(|&s| Dim::Const(s)).collect(),
        (None, None) => {
            let given = ctx.int("num_outputs", parts as i64)?;
            let parts = parts as i64;
            if given != parts || parts == 0 {
                return Err(Fail::Bad(format!("{given} parts for {parts} results")));
            }
            let size = n.ceil_div(&Dim::Const(parts));
            let whole = n.exact_div(&Dim::Const(parts)).is_some();
            (0..parts)
                .map(|i| {
                    if whole || i + 1 < parts && n.as_const().is_none() {
                        size.clone()
                    } else {
                        Dim::max(&Dim::min(&(&n - &(&size * i)), &size), &Dim::ZERO)
                    }
                })
                .collect()
        }
    };
    if sizes.len() < parts {
        return Err(Fail::Bad(format!("{} sizes for {parts} results", sizes.len())));
    }
    let total = sizes.iter().fold(Dim::ZERO, |s, d| &s + d);
    if sizes.iter().any(|d| d.as_const().is_some_and(|c| c < 0)) || graph.require_equal(&total, &n).is_err() {
        return Err(Fail::Bad(format!("sizes {sizes:?} of axis {axis} of {}", graph.ty(x))));
    }
    let mut start = Dim::ZERO;
    let mut out = vec![];
    for s in sizes {
        out.push(graph.slice_axis(x, axis, start.clone(), s.clone())?);
        start = &start + &s;
    }
    Ok(out)
}
