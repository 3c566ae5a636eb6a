//! Pooling over regions of interest: `RoiAlign` and `MaxRoiPool`.

use super::*;
use brolga_ir::{DType, Dim, dim::product};

/// What `RoiAlign` asks for.
struct Align {
    /// Extents of the result.
    bins: [Dim; 2],
    max: bool,
    /// [images · rows · columns, C]: channels are read at once.
    data: Value,
    height: Dim,
    width: Dim,
}

/// Regions along an axis, [R] each.
#[derive(Clone, Copy)]
struct Side {
    start: Value,
    bin: Value,
}

/// `RoiAlign`: the mean or maximum of samples at regular places of every bin, each interpolated of four elements. How many
/// samples a bin has along an axis is an attribute, or its size rounded up, which is data: a loop over as many samples as the
/// largest region has then. The maximum is that of elements times their weights, as ONNX has it.
///
/// Source: He et al., "Mask R-CNN", 2017.
pub fn align(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let (x, rois, images) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let dtype = graph.dtype(x);
    if graph.rank(x) != 4 || graph.rank(rois) != 2 || graph.rank(images) != 1 {
        return Err(Fail::Bad(format!(
            "operands {}, {} and {}, expected ranks 4, 2 and 1",
            graph.ty(x),
            graph.ty(rois),
            graph.ty(images)
        )));
    }
    let max = match ctx.string("mode", "avg")? {
        "avg" => false,
        "max" => true,
        m => return Err(Fail::Bad(format!("mode `{m}`, expected avg or max"))),
    };
    // Before version 16 there is no shift.
    let transformation = if ctx.version < 16 {
        "output_half_pixel"
    } else {
        "half_pixel"
    };
    let shifted = match ctx.string("coordinate_transformation_mode", transformation)? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        m => return Err(Fail::Bad(format!("coordinate_transformation_mode `{m}`"))),
    };
    let bins = [ctx.int("output_height", 1)?, ctx.int("output_width", 1)?];
    let samples = ctx.int("sampling_ratio", 0)?;
    if bins.iter().any(|b| !(1..1 << 20).contains(b)) || !(0..1 << 20).contains(&samples) {
        return Err(Fail::Bad(format!("{bins:?} bins of {samples} samples")));
    }
    let scale = ctx.float("spatial_scale", 1.0)?;
    let n = graph.require_equal(&graph.shape(rois)[0], &graph.shape(images)[0])?;
    let rois = graph.fit(rois, 0, &n)?;
    let rois = graph.fit(rois, 1, &Dim::Const(4))?;
    let images = graph.fit(images, 0, &n)?;

    let x = graph.widen(x)?;
    let compute = graph.dtype(x);
    let rois = graph.cast(rois, compute)?;
    let corner = |graph: &mut Builder<'_>, i: i64| {
        let v = graph.slice_axis(rois, 1, Dim::Const(i), Dim::ONE)?;
        let v = graph.squeeze(v, &[1])?;
        let v = graph.map_num("mul", v, scale)?;
        if shifted { graph.map_num("sub", v, 0.5) } else { Ok(v) }
    };
    let mut sides = vec![];
    for (axis, &count) in [1, 0].iter().zip(&bins) {
        let (start, end) = (corner(graph, *axis)?, corner(graph, axis + 2)?);
        let mut size = graph.map("sub", &[end, start])?;
        if !shifted {
            size = graph.map_num("max", size, 1.0)?;
        }
        // A quotient of f32 is rounded once, since it decides how many samples there are.
        let bin = graph.cast(size, DType::F64)?;
        let bin = graph.map_num("div", bin, count as f64)?;
        let bin = graph.cast(bin, compute)?;
        sides.push(Side { start, bin });
    }
    let shape = graph.shape(x);
    let channels_last = graph.transpose(x, &[0, 2, 3, 1])?;
    let flat = vec![product([&shape[0], &shape[2], &shape[3]]), shape[1].clone()];
    let align = Align {
        bins: bins.map(Dim::Const),
        max,
        data: graph.reshape(channels_last, flat)?,
        height: shape[2].clone(),
        width: shape[3].clone(),
    };
    let images = graph.cast(images, DType::I64)?;
    let y = match samples {
        0 => adaptive(graph, &align, [sides[0], sides[1]], images)?,
        s => regular(graph, &align, [sides[0], sides[1]], images, s)?,
    };
    // [R, rows, columns, C].
    let y = graph.transpose(y, &[0, 3, 1, 2])?;
    one(graph.cast(y, dtype))
}

/// As many samples in every bin: [R, rows, columns, C].
fn regular(graph: &mut Builder<'_>, align: &Align, sides: [Side; 2], images: Value, samples: i64) -> One {
    let mut places = vec![];
    for (i, side) in sides.iter().enumerate() {
        // [R, bins, 1, samples, 1], or with both pairs the other way round.
        let mut shape = vec![Dim::ONE; 4];
        (shape[i], shape[2 + i]) = (align.bins[i].clone(), Dim::Const(samples));
        let compute = graph.dtype(side.start);
        let (bin, sample) = (graph.iota(compute, &shape, i)?, graph.iota(compute, &shape, 2 + i)?);
        let sample = graph.map_num("add", sample, 0.5)?;
        let sample = graph.map_num("div", sample, samples as f64)?;
        let at = graph.map("add", &[bin, sample])?;
        places.push(place(graph, *side, at, 4)?);
    }
    let images = graph.unsqueeze(images, &[1, 2, 3, 4])?;
    let values = sample(graph, align, &places, images)?;
    let y = match align.max {
        true => graph.reduce("max", &[3, 4], values)?,
        false => graph.mean(&[3, 4], values)?,
    };
    graph.squeeze(y, &[3, 4])
}

/// As many samples as elements that a bin is wide, rounded up: [R, rows, columns, C].
fn adaptive(graph: &mut Builder<'_>, align: &Align, sides: [Side; 2], images: Value) -> One {
    let compute = graph.dtype(align.data);
    let mut counts = vec![];
    let mut most = vec![];
    for side in sides {
        let count = graph.op("ceil", &[], &[side.bin])?;
        let count = graph.map_num("max", count, 0.0)?;
        counts.push(count);
        let m = graph.reduce("max", &[0], count)?;
        let m = graph.map_num("max", m, 0.0)?;
        let m = graph.reshape(m, vec![])?;
        most.push(graph.cast(m, DType::I64)?);
    }
    let total = graph.map("mul", &[most[0], most[1]])?;
    let regions = graph.shape(images)[0].clone();
    let shape = [
        regions,
        align.bins[0].clone(),
        align.bins[1].clone(),
        graph.shape(align.data)[1].clone(),
    ];
    let first = if align.max { f64::NEG_INFINITY } else { 0.0 };
    let sum = graph.splat(compute, &shape, first)?;
    let step = graph.scalar(DType::I64, 0);
    let captures = [
        total,
        most[1],
        align.data,
        images,
        sides[0].start,
        sides[0].bin,
        sides[1].start,
        sides[1].bin,
        counts[0],
        counts[1],
    ];
    let done = graph.repeat_while(
        &[step, sum],
        &captures,
        |b, v| b.map("less", &[v[0], v[2]]),
        |b, v| {
            let (step, sum, columns) = (v[0], v[1], v[3]);
            let inner = Align {
                bins: align.bins.clone(),
                max: align.max,
                data: v[4],
                height: align.height.clone(),
                width: align.width.clone(),
            };
            let number = [b.map("div", &[step, columns])?, b.map("mod", &[step, columns])?];
            let mut places = vec![];
            let mut taken = None;
            for i in 0..2 {
                let (start, bin, count) = (v[6 + 2 * i], v[7 + 2 * i], v[10 + i]);
                let number = b.cast(number[i], compute)?;
                let less = b.map("less", &[number, count])?;
                taken = Some(match taken {
                    Some(t) => b.map("and", &[t, less])?,
                    None => less,
                });
                let mut shape = vec![Dim::ONE; 2];
                shape[i] = inner.bins[i].clone();
                let at = b.iota(compute, &shape, i)?;
                let sample = b.map_num("add", number, 0.5)?;
                let parts = b.map_num("max", count, 1.0)?;
                let sample = b.map("div", &[sample, parts])?;
                let sample = b.unsqueeze(sample, &[1, 2])?;
                let at = b.map("add", &[at, sample])?;
                places.push(place(b, Side { start, bin }, at, 2)?);
            }
            let images = b.unsqueeze(v[5], &[1, 2])?;
            let values = sample(b, &inner, &places, images)?;
            let taken = b.unsqueeze(taken.expect("there are two axes"), &[1, 2, 3])?;
            let new = b.map(if inner.max { "max" } else { "add" }, &[sum, values])?;
            let sum = b.map("where", &[taken, new, sum])?;
            Ok(vec![b.map_num("add", step, 1)?, sum])
        },
    )?;
    let count = graph.map("mul", &[counts[0], counts[1]])?;
    let count = graph.unsqueeze(count, &[1, 2, 3])?;
    if align.max {
        let any = graph.map_num("greater", count, 0.0)?;
        let zero = graph.scalar(compute, 0.0);
        return graph.map("where", &[any, done[1], zero]);
    }
    let count = graph.map_num("max", count, 1.0)?;
    graph.map("div", &[done[1], count])
}

/// Where samples are, counted in bins from a region's start: `at` has `rank` dimensions, before which that of regions comes where it
/// is not there yet.
fn place(graph: &mut Builder<'_>, side: Side, at: Value, rank: usize) -> One {
    let axes: Vec<usize> = (1..=rank).collect();
    let (start, bin) = (graph.unsqueeze(side.start, &axes)?, graph.unsqueeze(side.bin, &axes)?);
    let at = graph.map("mul", &[at, bin])?;
    graph.map("add", &[start, at])
}

/// The values at places, which broadcast to [R, …], of all channels: [R, …, C].
fn sample(graph: &mut Builder<'_>, align: &Align, places: &[Value], images: Value) -> One {
    let compute = graph.dtype(align.data);
    // Along each axis two elements and their weights. What lies more than one element outside is 0.
    let mut taps = vec![];
    let mut inside: Option<Value> = None;
    for (&p, n) in places.iter().zip([&align.height, &align.width]) {
        let extent = graph.dim_scalar(n, compute)?;
        let last = graph.map_num("sub", extent, 1.0)?;
        let low = graph.map_num("greater_or_equal", p, -1.0)?;
        let high = graph.map("less_or_equal", &[p, extent])?;
        for b in [low, high] {
            inside = Some(match inside {
                Some(i) => graph.map("and", &[i, b])?,
                None => b,
            });
        }
        let p = graph.map("min", &[p, last])?;
        let p = graph.map_num("max", p, 0.0)?;
        let first = graph.op("floor", &[], &[p])?;
        let second = graph.map_num("add", first, 1.0)?;
        let second = graph.map("min", &[second, last])?;
        let t = graph.map("sub", &[p, first])?;
        let one = graph.scalar(compute, 1.0);
        let rest = graph.map("sub", &[one, t])?;
        let (first, second) = (graph.cast(first, DType::I64)?, graph.cast(second, DType::I64)?);
        taps.push([(first, rest), (second, t)]);
    }
    let inside = inside.expect("there are two axes");
    let height = graph.dim_scalar(&align.height, DType::I64)?;
    let width = graph.dim_scalar(&align.width, DType::I64)?;
    let above = graph.map("mul", &[images, height])?;
    let mut value: Option<Value> = None;
    for (row, v) in taps[0] {
        for (column, w) in taps[1] {
            let index = graph.map("add", &[above, row])?;
            let index = graph.map("mul", &[index, width])?;
            let index = graph.map("add", &[index, column])?;
            let read = graph.gather(0, align.data, index)?;
            let weight = graph.map("mul", &[v, w])?;
            let weight = graph.unsqueeze(weight, &[graph.rank(weight)])?;
            let part = graph.map("mul", &[read, weight])?;
            value = Some(match value {
                Some(old) => graph.map(if align.max { "max" } else { "add" }, &[old, part])?,
                None => part,
            });
        }
    }
    let inside = graph.unsqueeze(inside, &[graph.rank(inside)])?;
    let zero = graph.scalar(compute, 0.0);
    graph.map("where", &[inside, value.expect("there are four elements"), zero])
}

/// `MaxRoiPool`: the maximum of the elements in every bin, whose borders are rounded outwards; 0 where a bin is empty. First
/// along rows, then along columns. Source: Girshick, "Fast R-CNN", 2015.
pub fn max_pool(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, rois) = (ctx.input(0)?, ctx.input(1)?);
    let bins = ctx.ints("pooled_shape")?.ok_or("attribute `pooled_shape` is missing")?;
    if graph.rank(x) != 4 || graph.rank(rois) != 2 || bins.len() != 2 || bins.iter().any(|b| !(1..1 << 20).contains(b))
    {
        return Err(Fail::Bad(format!(
            "operands {} and {} and {bins:?} bins, expected ranks 4 and 2 and two extents",
            graph.ty(x),
            graph.ty(rois)
        )));
    }
    let scale = ctx.float("spatial_scale", 1.0)?;
    let dtype = graph.dtype(x);
    let rois = graph.fit(rois, 1, &Dim::Const(5))?;
    let rois = graph.widen(rois)?;
    let column = |graph: &mut Builder<'_>, i: i64| {
        let v = graph.slice_axis(rois, 1, Dim::Const(i), Dim::ONE)?;
        graph.squeeze(v, &[1])
    };
    let images = column(graph, 0)?;
    let images = graph.cast(images, DType::I64)?;
    let x = graph.gather(0, x, images)?;
    let shape = graph.shape(x);
    // Whether an element is in a bin, for either axis: [R, bins, extent].
    let mut within = vec![];
    for (i, (&count, n)) in bins.iter().zip(&shape[2..]).enumerate() {
        let mut ends = vec![];
        for corner in [2 - i as i64, 4 - i as i64] {
            let v = column(graph, corner)?;
            let v = graph.map_num("mul", v, scale)?;
            // Halves are rounded away from zero.
            let size = graph.op("abs", &[], &[v])?;
            let size = graph.map_num("add", size, 0.5)?;
            let size = graph.op("floor", &[], &[size])?;
            let sign = graph.op("sign", &[], &[v])?;
            let v = graph.map("mul", &[size, sign])?;
            let v = graph.cast(v, DType::I64)?;
            ends.push(graph.unsqueeze(v, &[1])?);
        }
        let size = graph.map("sub", &[ends[1], ends[0]])?;
        let size = graph.map_num("add", size, 1)?;
        let size = graph.map_num("max", size, 1)?;
        // From the quotient rounded down to that of the next bin rounded up.
        let number = graph.iota(DType::I64, &[Dim::Const(count)], 0)?;
        let next = graph.map_num("add", number, 1)?;
        let low = graph.map("mul", &[number, size])?;
        let low = graph.map_num("div", low, count)?;
        let high = graph.map("mul", &[next, size])?;
        let high = graph.map_num("add", high, count - 1)?;
        let high = graph.map_num("div", high, count)?;
        let (low, high) = (graph.map("add", &[low, ends[0]])?, graph.map("add", &[high, ends[0]])?);
        let (low, high) = (graph.unsqueeze(low, &[2])?, graph.unsqueeze(high, &[2])?);
        let at = graph.iota(DType::I64, std::slice::from_ref(n), 0)?;
        let (from, to) = (
            graph.map("greater_or_equal", &[at, low])?,
            graph.map("less", &[at, high])?,
        );
        within.push(graph.map("and", &[from, to])?);
    }
    let least = graph.scalar(dtype, f64::NEG_INFINITY);
    // [R, C, rows, bins, columns] over columns, then [R, C, bins, bins, rows] over rows.
    let across = graph.unsqueeze(within[1], &[1, 2])?;
    let x = graph.unsqueeze(x, &[3])?;
    let y = graph.map("where", &[across, x, least])?;
    let y = graph.reduce("max", &[4], y)?;
    let y = graph.squeeze(y, &[4])?;
    let y = graph.transpose(y, &[0, 1, 3, 2])?;
    let y = graph.unsqueeze(y, &[2])?;
    let down = graph.unsqueeze(within[0], &[1, 3])?;
    let y = graph.map("where", &[down, y, least])?;
    let y = graph.reduce("max", &[4], y)?;
    let y = graph.squeeze(y, &[4])?;
    let mut any = vec![];
    for w in &within {
        let some = graph.cast(*w, DType::U8)?;
        let some = graph.reduce("max", &[2], some)?;
        let some = graph.squeeze(some, &[2])?;
        any.push(graph.cast(some, DType::Bool)?);
    }
    let (rows, columns) = (graph.unsqueeze(any[0], &[1, 3])?, graph.unsqueeze(any[1], &[1, 2])?);
    let some = graph.map("and", &[rows, columns])?;
    let zero = graph.scalar(dtype, 0.0);
    one(graph.map("where", &[some, y, zero]))
}
