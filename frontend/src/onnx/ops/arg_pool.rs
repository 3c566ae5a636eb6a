//! `MaxPool` with the positions of its maxima, and `MaxUnpool`, which reads them.
//!
//! A position is that of the element in the whole operand. Values and positions go through a window together: of two of
//! them the later one is taken where its value is larger, so that the first maximum wins. Axis by axis, the last one first,
//! a window of `k` taps comes of two windows of fewer, which may overlap: of `2·m` taps from two of `m`, and the last from
//! two of the largest power of two. There are as many steps as `k` has binary digits.
//!
//! NaN and padding count as the smallest value there is on the way. At the end the window's first element is put before
//! the rest, and what is not larger than it does not replace it: so padding never wins, and NaN does where it comes first,
//! as in ONNX Runtime. The values are those at the positions; without positions `pool` makes them, where NaN always wins.

use super::conv::Window;
use super::pool::Pool;
use super::*;
use brolga_ir::{Attr, DType, Dim, Number, dim::product, ops::Combine};

/// A value of an operand and its position.
#[derive(Clone, Copy)]
struct Element {
    value: Value,
    at: Value,
}

impl Element {
    fn each(self, mut f: impl FnMut(Value) -> One) -> Result<Element, Fail> {
        Ok(Element {
            value: f(self.value)?,
            at: f(self.at)?,
        })
    }

    /// The later one where it is larger.
    fn or_larger(self, graph: &mut Builder<'_>, later: Element) -> Result<Element, Fail> {
        let larger = graph.map("greater", &[later.value, self.value])?;
        Ok(Element {
            value: graph.map("where", &[larger, later.value, self.value])?,
            at: graph.map("where", &[larger, later.at, self.at])?,
        })
    }
}

/// Both results of `MaxPool`: the maxima, and where they are.
pub fn max(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, pool: &Pool, x: Value) -> Outcome {
    let column_major = ctx.flag("storage_order", false)?;
    every_window_has_an_element(graph, pool, x)?;
    let all = Element {
        value: x,
        at: positions(graph, &graph.shape(x), column_major)?,
    };
    let dtype = graph.dtype(x);
    let lowest = Combine::Max.identity(dtype);
    let mut best = all;
    if dtype.is_float() {
        let nan = graph.op("is_nan", &[], &[x])?;
        let low = graph.scalar(dtype, lowest);
        best.value = graph.map("where", &[nan, low, x])?;
    }
    for i in (0..pool.spatial.len()).rev() {
        best = along(graph, pool, i, best, lowest)?;
    }
    let mut first = all;
    for i in 0..pool.spatial.len() {
        first = first_along(graph, pool, i, first)?;
    }
    let found = first.or_larger(graph, best)?;
    Ok(vec![found.value, graph.cast(found.at, DType::I64)?])
}

/// A window without an element has no maximum: one that lies in the padding.
fn every_window_has_an_element(graph: &mut Builder<'_>, pool: &Pool, x: Value) -> Result<(), Fail> {
    let w = &pool.window;
    for (i, n) in pool.spatial.iter().enumerate() {
        let empty = match pool.axis_counts(i, false) {
            Some(counts) => counts.contains(&0),
            // The taps of the first window fall on an element, or step over all of them.
            None => {
                let reach = Dim::Const((w.kernel[i] - 1) * w.dilations[i]);
                graph.require_at_most(&w.low[i], &reach).is_err()
                    || !w.low[i].at_most(&Dim::ZERO) && graph.require_at_most(&Dim::Const(w.dilations[i]), n).is_err()
            }
        };
        if empty {
            return Err(Fail::Bad(format!(
                "a window of {:?} in the padding of {}, whose maximum has no position",
                w.kernel,
                graph.ty(x)
            )));
        }
    }
    Ok(())
}

/// The position of every element of a tensor: counted along rows, or along columns of the spatial dimensions.
fn positions(graph: &mut Builder<'_>, shape: &[Dim], column_major: bool) -> One {
    let count = product(shape);
    // Half as wide where they fit, which is as wide as most values are.
    let dtype = match count.at_most(&Dim::Const(i32::MAX as i64)) {
        true => DType::I32,
        false => DType::I64,
    };
    let flat = graph.iota(dtype, &[count], 0)?;
    if !column_major {
        return graph.reshape(flat, shape.to_vec());
    }
    let order: Vec<usize> = (0..2).chain((2..shape.len()).rev()).collect();
    let turned = graph.reshape(flat, order.iter().map(|&a| shape[a].clone()).collect())?;
    graph.transpose(turned, &order)
}

/// The maxima over the windows along one spatial axis, whose extent becomes the result's.
fn along(graph: &mut Builder<'_>, pool: &Pool, i: usize, x: Element, lowest: Number) -> Result<Element, Fail> {
    let (w, axis) = (&pool.window, i + 2);
    let (kernel, stride, dilation) = (w.kernel[i], w.strides[i], w.dilations[i]);
    let size = &pool.sizes[i];
    // Up to where the taps of the last window reach. Of no windows there is room for a tap of each.
    let last = match stride {
        1 => size - &Dim::ONE,
        _ => &Dim::max(size, &Dim::ONE) - &Dim::ONE,
    };
    let extent = &(&last * stride) + &Dim::Const((kernel - 1) * dilation + 1);
    let rank = pool.spatial.len() + 2;
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    low[axis] = w.low[i].clone();
    high[axis] = &(&extent - &pool.spatial[i]) - &w.low[i];
    let mut made = Element {
        value: graph.pad(x.value, low.clone(), high.clone(), vec![0; rank], lowest)?,
        at: graph.pad(x.at, low, high, vec![0; rank], 0)?,
    };
    let mut taps = 1;
    while 2 * taps < kernel {
        let size = &graph.shape(made.value)[axis] - &Dim::Const(taps * dilation);
        let mut part = |start: i64| made.each(|v| graph.slice_axis(v, axis, Dim::Const(start), size.clone()));
        let (earlier, later) = (part(0)?, part(taps * dilation)?);
        made = earlier.or_larger(graph, later)?;
        taps *= 2;
    }
    let mut windows = |start: i64| made.each(|v| every(graph, v, axis, start, size, stride));
    let earlier = windows(0)?;
    if kernel == 1 {
        return Ok(earlier);
    }
    let later = windows((kernel - taps) * dilation)?;
    earlier.or_larger(graph, later)
}

/// `size` elements along an axis, `step` apart.
fn every(graph: &mut Builder<'_>, v: Value, axis: usize, start: i64, size: &Dim, step: i64) -> One {
    let mut sizes = graph.shape(v);
    let (mut starts, mut steps) = (vec![Dim::ZERO; sizes.len()], vec![1; sizes.len()]);
    (starts[axis], sizes[axis], steps[axis]) = (Dim::Const(start), size.clone(), step);
    graph.slice(v, starts, sizes, steps)
}

/// The first element of each window along one spatial axis.
fn first_along(graph: &mut Builder<'_>, pool: &Pool, i: usize, x: Element) -> Result<Element, Fail> {
    let Window {
        strides,
        dilations,
        low,
        ..
    } = &pool.window;
    let (axis, size) = (i + 2, &pool.sizes[i]);
    if low[i].is(0) {
        return x.each(|v| every(graph, v, axis, 0, size, strides[i]));
    }
    // A window that starts before the first element has its first one where its taps come to it.
    let at = graph.iota(DType::I64, std::slice::from_ref(size), 0)?;
    let at = graph.map_num("mul", at, strides[i])?;
    let low = graph.dim_scalar(&low[i], DType::I64)?;
    let start = graph.map("sub", &[at, low])?;
    let come_to = graph.map_num("mod", start, dilations[i])?;
    let index = graph.map("max", &[start, come_to])?;
    x.each(|v| graph.gather(axis, v, index))
}

/// `MaxUnpool`: the elements of a pool's result where they were, among zeros.
pub fn unpool(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (x, at) = (ctx.input(0)?, ctx.input(1)?);
    let shape = graph.shape(x);
    let n = shape.len().saturating_sub(2);
    if n == 0 {
        return Err(Fail::Bad(format!("{}, expected rank 3 or more", graph.ty(x))));
    }
    let at = graph.fit_shape(at, &shape)?;
    let kernel = ctx.ints("kernel_shape")?.ok_or("attribute `kernel_shape` is missing")?;
    let w = conv::window(ctx, &shape[2..], kernel.to_vec())?;
    // What a pool without rounding would have been given, unless the result's shape is told: positions count in that,
    // as in ONNX Runtime, since they are `MaxPool`'s. ONNX's own case counts in the former and pads.
    let mut pooled = shape[..2].to_vec();
    for i in 0..n {
        let last = &(&shape[2 + i] - &Dim::ONE) * w.strides[i];
        pooled.push(&(&(&last - &w.low[i]) - &w.high[i]) + &Dim::Const(w.kernel[i]));
    }
    let to = match ctx.optional(2) {
        Some(v) => graph.dims_operand(v, "output_shape")?,
        None => pooled,
    };
    if to.len() != n + 2 {
        return Err(Fail::Bad(format!("output_shape {to:?} for {}", graph.ty(x))));
    }
    let flat = |graph: &mut Builder<'_>, v: Value| graph.reshape(v, vec![product(&shape)]);
    let (x, at) = (flat(graph, x)?, flat(graph, at)?);
    let zeros = graph.splat(graph.dtype(x), &[product(&to)], 0)?;
    graph.check_indices(zeros, at, &[0])?;
    let attrs = [Attr::Int(0), Attr::word("none")];
    let y = graph.op("scatter_elements", &attrs, &[zeros, at, x])?;
    one(graph.reshape(y, to))
}
