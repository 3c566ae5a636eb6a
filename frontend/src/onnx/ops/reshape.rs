//! Operators that only rename positions: `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`, `Expand`, `Tile`, `Transpose`,
//! `Identity`.

use super::super::extents::uncommon;
use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// `Reshape`: 0 copies an extent (unless `allowzero`), one -1 is inferred.
pub fn reshape(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = ctx.input(0)?;
    let from = graph.shape(x);
    let shape = ctx.input(1)?;
    let mut to = match graph.dims_of(shape) {
        Some(known) => known,
        None => {
            let read = graph.shape_from_data(x, shape, !ctx.flag("allowzero", false)?)?;
            return one(graph.reshape_if_equal(x, read));
        }
    };
    if !ctx.flag("allowzero", false)? {
        for (i, d) in to.iter_mut().enumerate() {
            if d.is(0) {
                *d = from
                    .get(i)
                    .cloned()
                    .ok_or_else(|| Fail::Bad(format!("extent {i} is copied from {}", graph.ty(x))))?;
            }
        }
    }
    let open: Vec<usize> = (0..to.len()).filter(|&i| to[i].is(-1)).collect();
    let show = format!("{to:?}");
    match open[..] {
        [] => {}
        [i] => {
            let mut others = to.clone();
            others.remove(i);
            // Common factors cancel by extent, those that are no single term, such as (seq + 1), included.
            let (left, rest) = uncommon(&from, &others);
            let total = product(left.iter().map(|&k| &from[k]));
            let rest = product(rest.iter().map(|&k| &others[k]));
            if rest.is(0) || others.iter().any(|d| d.is(0)) {
                return Err(Fail::Bad(format!("the open extent of {show} cannot be inferred")));
            }
            let by = Dim::Const(total.common_factor(&rest));
            let part = |d: &Dim| d.exact_div(&by).unwrap_or_else(|| d.clone());
            to[i] = total
                .exact_div(&rest)
                .unwrap_or_else(|| part(&total).floor_div(&part(&rest)));
        }
        _ => return Err(Fail::Bad(format!("shape {show} has more than one -1"))),
    }
    if let Some(d) = to.iter().find(|d| d.as_const().is_some_and(|c| c < 0)) {
        return Err(Fail::Bad(format!("shape {show} has the extent {d}")));
    }
    one(graph.reshape_if_equal(x, to))
}

impl Builder<'_> {
    /// The extents that a `Reshape` by a shape from data gives, read in the run.
    fn shape_from_data(&mut self, x: Value, shape: Value, copies: bool) -> Result<Vec<Dim>, Fail> {
        let from = self.shape(x);
        let total = product(&from);
        let rank = self.size_count(shape, "the shape")?;
        let mut to = self.cast(shape, DType::I64)?;
        if copies {
            let mut own = from.clone();
            own.resize(rank as usize, Dim::ZERO);
            let own = self.dims_value(DType::I64, &[rank as usize], own)?;
            let zero = self.scalar(DType::I64, 0);
            let copied = self.map("equal", &[to, zero])?;
            to = self.map("where", &[copied, own, to])?;
        }
        let minus = self.scalar(DType::I64, -1);
        let open = self.map("equal", &[to, minus])?;
        let one = self.scalar(DType::I64, 1);
        let known = self.map("where", &[open, one, to])?;
        let known = self.reduce("prod", &[0], known)?;
        let known = self.map("max", &[known, one])?;
        let all = self.dim_scalar(&total, DType::I64)?;
        let rest = self.map("div", &[all, known])?;
        let to = self.map("where", &[open, rest, to])?;
        // Of no elements at all, an extent may be any.
        self.sizes_operand(to, "the shape", &[Some(total).filter(|n| n.is_at_least(1))])
    }
}

/// `Flatten`: two dimensions, split at `axis`.
pub fn flatten(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    // Unlike an axis, the split may also stand after the last dimension.
    let axis = match ctx.int("axis", 1)? {
        a if a == shape.len() as i64 => shape.len(),
        a => node::axis(a, shape.len())?,
    };
    one(graph.reshape(x, vec![product(&shape[..axis]), product(&shape[axis..])]))
}

/// The axes of `Squeeze` and `Unsqueeze`: an attribute before version 13, an operand since.
fn axes_of(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<i64>>, Fail> {
    match (ctx.optional(1), ctx.ints("axes")?) {
        (Some(v), _) => Ok(Some(graph.ints_operand(v, "axes")?)),
        (None, a) => Ok(a.map(<[i64]>::to_vec)),
    }
}

/// `Squeeze`; without axes, what is assumed of extents that are no numbers tells whether they are taken.
pub fn squeeze(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let axes = match axes_of(graph, ctx)? {
        Some(a) => node::axes(&a, shape.len())?,
        None => {
            let is_open = |d: &Dim| d.as_const().is_none() && !graph.is_one(d);
            let open: Vec<usize> = (0..shape.len()).filter(|&i| is_open(&shape[i])).collect();
            ctx.assumed.squeezes.set(ctx.assumed.squeezes.get() || !open.is_empty());
            for &i in open.iter().filter(|_| ctx.assumed.ones) {
                graph.require_equal(&shape[i], &Dim::ONE)?;
            }
            (0..shape.len()).filter(|&i| graph.is_one(&shape[i])).collect()
        }
    };
    one(graph.squeeze(x, &axes))
}

/// `Unsqueeze`.
pub fn unsqueeze(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let axes = axes_of(graph, ctx)?.ok_or("axes are missing")?;
    let axes = node::axes(&axes, graph.rank(x) + axes.len())?;
    one(graph.unsqueeze(x, &axes))
}

/// `Expand`: both the operand and the shape broadcast.
pub fn expand(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = ctx.input(0)?;
    let to = graph.sizes_operand(ctx.input(1)?, "the shape", &[])?;
    let shape = graph.broadcast_shapes(&[graph.shape(x), to])?;
    one(graph.spread(x, &shape))
}

/// `Tile`: every axis repeated, as a broadcast along a new axis before it.
pub fn tile(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let repeats = graph.sizes_operand(ctx.input(1)?, "repeats", &[])?;
    if repeats.len() != shape.len() {
        return Err(Fail::Bad(format!("{} repeats for {}", repeats.len(), graph.ty(x))));
    }
    let (mut apart, mut wide, mut to) = (vec![], vec![], vec![]);
    for (d, r) in shape.iter().zip(&repeats) {
        if !r.is(1) {
            apart.push(Dim::ONE);
            wide.push(r.clone());
        }
        apart.push(d.clone());
        wide.push(d.clone());
        to.push(d * r);
    }
    let y = graph.reshape(x, apart)?;
    let y = if wide == graph.shape(y) {
        y
    } else {
        graph.op("broadcast", &[Attr::Dims(wide)], &[y])?
    };
    one(graph.reshape(y, to))
}

/// `Transpose`: reversed dimensions unless `perm` says otherwise.
pub fn transpose(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let perm: Vec<usize> = match ctx.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(p) => {
            node::axes(p, rank)?;
            if p.len() != rank {
                return Err(Fail::Bad(format!("a permutation {p:?} of {}", graph.ty(x))));
            }
            p.iter().map(|&a| node::axis(a, rank)).collect::<Result<_, _>>()?
        }
    };
    one(graph.transpose(x, &perm))
}
