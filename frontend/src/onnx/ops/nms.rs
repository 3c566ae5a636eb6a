//! `NonMaxSuppression`: in every step of a loop each class of each image takes the best box that is left, and drops those that
//! overlap it. The loop ends when nothing is left anywhere, or each has as many as it may; how many were taken the run tells. Where
//! there is a threshold of scores, only the boxes above it take part: as many of each class as one of the classes has.

use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// `NonMaxSuppression`. Of equal scores the box of lower index is the better one.
pub fn non_max_suppression(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 5)?;
    let (boxes, scores) = (ctx.input(0)?, ctx.input(1)?);
    if graph.rank(boxes) != 3 || graph.rank(scores) != 3 {
        return Err(Fail::Bad(format!(
            "boxes {} and scores {}, expected rank 3",
            graph.ty(boxes),
            graph.ty(scores)
        )));
    }
    let boxes = graph.fit(boxes, 2, &Dim::Const(4))?;
    let [batch, n] = [graph.shape(boxes)[0].clone(), graph.shape(boxes)[1].clone()];
    let scores = graph.fit(scores, 0, &batch)?;
    let scores = graph.fit(scores, 2, &n)?;
    let dtype = graph.dtype(scores);
    let shape = graph.shape(scores);
    let scalar = |graph: &mut Builder<'_>, i: usize, dtype: DType| match ctx.optional(i) {
        Some(v) => {
            let v = graph.reshape_if_equal(v, vec![])?;
            graph.cast(v, dtype)
        }
        None => Ok(graph.scalar(dtype, 0)),
    };
    let most = scalar(graph, 2, DType::I64)?;
    let overlap = scalar(graph, 3, dtype)?;
    let sides = corners(graph, boxes, ctx.flag("center_point_box", false)?)?;

    // The key of a box that is taken, dropped or not good enough is 0, which is no number's.
    let key = graph.sort_key(scores, true)?;
    let at = graph.iota(DType::I64, std::slice::from_ref(&n), 0)?;
    let at = graph.spread(at, &shape)?;
    let (key, at) = match ctx.optional(4) {
        Some(_) => {
            let least = scalar(graph, 4, dtype)?;
            let good = graph.map("greater", &[scores, least])?;
            candidates(graph, key, good)?
        }
        None => (key, at),
    };
    let shape = graph.shape(key);
    let each = vec![shape[0].clone(), product(&shape[1..])];
    let flat = graph.reshape(at, each)?;
    let mut sides_of = vec![];
    for side in sides {
        let v = graph.op("gather_elements", &[Attr::Int(1)], &[side, flat])?;
        sides_of.push(graph.reshape(v, shape.clone())?);
    }
    let never = graph.splat(DType::I32, &shape, -1)?;
    let zero = graph.scalar(DType::I64, 0);
    let more = left(graph, key)?;
    let captures = [&[most, overlap][..], &sides_of].concat();
    let done = graph.repeat_while(
        &[zero, more, key, never],
        &captures,
        |b, v| {
            let room = b.map("less", &[v[0], v[4]])?;
            b.map("and", &[room, v[1]])
        },
        step,
    )?;

    // Those of a class lie in the order in which they were taken, behind those of the classes before.
    let taken = done[3];
    let all = product(&shape);
    let is_taken = graph.map_num("greater_or_equal", taken, 0)?;
    let ones = graph.cast(is_taken, DType::I64)?;
    let each = graph.reduce("sum", &[2], ones)?;
    let classes = product(&shape[..2]);
    let each = graph.reshape(each, vec![classes])?;
    let total = graph.reduce("sum", &[0], each)?;
    let count = graph.read(total, Some(all.clone()))?;
    let attrs = [Attr::word("sum"), Attr::Int(0), Attr::Bool(true), Attr::Bool(false)];
    let before = graph.op("scan", &attrs, &[each])?;
    let before = graph.reshape(before, vec![shape[0].clone(), shape[1].clone(), Dim::ONE])?;
    let place = graph.cast(taken, DType::I64)?;
    let place = graph.map("add", &[before, place])?;
    let behind = graph.dim_scalar(&all, DType::I64)?;
    let place = graph.map("where", &[is_taken, place, behind])?;
    let place = graph.reshape(place, vec![all.clone()])?;
    let from = graph.iota(DType::I64, std::slice::from_ref(&all), 0)?;
    let room = graph.splat(DType::I64, &[&all + &Dim::ONE], 0)?;
    let attrs = [Attr::Int(0), Attr::word("none")];
    let slots = graph.op("scatter_elements", &attrs, &[room, place, from])?;
    let found = graph.slice_axis(slots, 0, Dim::ZERO, count)?;
    // [batch, class, box] of each.
    let boxes = graph.dim_scalar(&shape[2], DType::I64)?;
    let classes = graph.dim_scalar(&shape[1], DType::I64)?;
    let at = graph.reshape(at, vec![all])?;
    let number = graph.gather(0, at, found)?;
    let outer = graph.map("div", &[found, boxes])?;
    let class = graph.map("mod", &[outer, classes])?;
    let image = graph.map("div", &[outer, classes])?;
    let mut columns = vec![];
    for v in [image, class, number] {
        columns.push(graph.unsqueeze(v, &[1])?);
    }
    one(graph.concat(1, &columns))
}

/// The keys of boxes that are good enough and their positions, [batch, classes, M] each, in the order of positions: M is as many as
/// the class with the most of them has, and the keys of what a class lacks are 0.
fn candidates(graph: &mut Builder<'_>, key: Value, good: Value) -> Result<(Value, Value), Fail> {
    let shape = graph.shape(key);
    let n = shape[2].clone();
    let flags = graph.cast(good, DType::I64)?;
    let counts = graph.reduce("sum", &[2], flags)?;
    let most = graph.reduce("max", &[0, 1], counts)?;
    let most = graph.map_num("max", most, 0)?;
    let size = graph.read(most, Some(n.clone()))?;
    let attrs = [Attr::word("sum"), Attr::Int(2), Attr::Bool(true), Attr::Bool(false)];
    let place = graph.op("scan", &attrs, &[flags])?;
    let behind = graph.dim_scalar(&n, DType::I64)?;
    let place = graph.map("where", &[good, place, behind])?;
    let position = graph.iota(DType::I64, &shape, 2)?;
    let room = [shape[0].clone(), shape[1].clone(), &n + &Dim::ONE];
    let room = graph.splat(DType::I64, &room, 0)?;
    let attrs = [Attr::Int(2), Attr::word("none")];
    let slots = graph.op("scatter_elements", &attrs, &[room, place, position])?;
    let at = graph.slice_axis(slots, 2, Dim::ZERO, size.clone())?;
    let chosen = graph.op("gather_elements", &[Attr::Int(2)], &[key, at])?;
    let number = graph.iota(DType::I64, &[size], 0)?;
    let there = graph.map("less", &[number, counts])?;
    let none = graph.scalar(graph.dtype(key), 0);
    Ok((graph.map("where", &[there, chosen, none])?, at))
}

/// The lower and upper ends of boxes along both axes, and their areas: [batch, boxes] each.
fn corners(graph: &mut Builder<'_>, boxes: Value, centred: bool) -> Result<[Value; 5], Fail> {
    let column = |graph: &mut Builder<'_>, i: i64| {
        let v = graph.slice_axis(boxes, 2, Dim::Const(i), Dim::ONE)?;
        graph.squeeze(v, &[2])
    };
    let mut ends = vec![];
    for axis in 0..2 {
        let (a, b) = (column(graph, axis)?, column(graph, axis + 2)?);
        if centred {
            let half = graph.map_num("mul", b, 0.5)?;
            ends.push([graph.map("sub", &[a, half])?, graph.map("add", &[a, half])?]);
        } else {
            ends.push([graph.map("min", &[a, b])?, graph.map("max", &[a, b])?]);
        }
    }
    let height = graph.map("sub", &[ends[0][1], ends[0][0]])?;
    let width = graph.map("sub", &[ends[1][1], ends[1][0]])?;
    let area = graph.map("mul", &[height, width])?;
    Ok([ends[0][0], ends[0][1], ends[1][0], ends[1][1], area])
}

/// Whether a key is not 0.
fn left(graph: &mut Builder<'_>, key: Value) -> One {
    let some = graph.map_num("greater", key, 0)?;
    let some = graph.reduce("or", &[0, 1, 2], some)?;
    graph.reshape(some, vec![])
}

/// One box of each class: the number of steps, whether any is left, keys, and in which step boxes were taken.
fn step(b: &mut Builder<'_>, v: &[Value]) -> Result<Vec<Value>, Fail> {
    let [number, _, key, taken, _, overlap, low_y, high_y, low_x, high_x, area] = v[..] else {
        unreachable!("there are four values of state and seven others");
    };
    let attrs = [Attr::word("max"), Attr::Int(2), Attr::Bool(false)];
    let best = b.op("arg_reduce", &attrs, &[key])?;
    // Each end of all boxes of a class, and of the chosen one.
    let mut ends = vec![];
    for end in [low_y, high_y, low_x, high_x, area] {
        ends.push([end, b.op("gather_elements", &[Attr::Int(2)], &[end, best])?]);
    }
    let common = |b: &mut Builder<'_>, low: [Value; 2], high: [Value; 2]| {
        let (from, to) = (b.map("max", &low)?, b.map("min", &high)?);
        b.map("sub", &[to, from])
    };
    let (height, width) = (common(b, ends[0], ends[1])?, common(b, ends[2], ends[3])?);
    let both = b.map("mul", &[height, width])?;
    let areas = b.map("add", &ends[4])?;
    let either = b.map("sub", &[areas, both])?;
    let ratio = b.map("div", &[both, either])?;
    let mut dropped = b.map("greater", &[ratio, overlap])?;
    for positive in [height, width, both, ends[4][0], ends[4][1], either] {
        let is = b.map_num("greater", positive, 0.0)?;
        dropped = b.map("and", &[dropped, is])?;
    }
    let n = b.shape(key)[2].clone();
    let at = b.iota(DType::I64, &[n], 0)?;
    let is_best = b.map("equal", &[at, best])?;
    let good = b.map_num("greater", key, 0)?;
    let take = b.map("and", &[is_best, good])?;
    let now = b.cast(number, DType::I32)?;
    let taken = b.map("where", &[take, now, taken])?;
    let out = b.map("or", &[dropped, is_best])?;
    let none = b.scalar(b.dtype(key), 0);
    let key = b.map("where", &[out, none, key])?;
    let more = left(b, key)?;
    Ok(vec![b.map_num("add", number, 1)?, more, key, taken])
}
