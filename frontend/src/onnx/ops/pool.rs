//! `MaxPool`, `AveragePool`, `LpPool` and their global forms.
//!
//! The result's extents are `floor((in + pads - reach) / stride) + 1`, or the same with `ceil` under `ceil_mode`, where a
//! window that would start in the padding after the end is dropped (a window starts before `in + pads_low`). Of a kernel that
//! is larger than the padded input the division truncates, as in ONNX's shape inference and in runtimes: a kernel of 2 in
//! steps of 2 has one window on a single element, and one in steps of 1 has none.

use super::super::extents::known_for_inputs;
use super::conv::{Window, window};
use super::*;
use brolga_ir::{Attr, DType, Dim, Number, Tensor};

/// Counts are made at import where they are this few, by a pool of ones elsewhere.
const MAX_COUNTED: i64 = 1 << 22;

/// A pool over the spatial dimensions of an operand.
pub struct Pool {
    /// Its window.
    pub window: Window,
    /// The result's spatial extents.
    pub sizes: Vec<Dim>,
    /// The operand's spatial extents.
    pub spatial: Vec<Dim>,
}

fn plan(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value) -> Result<Pool, Fail> {
    if graph.rank(x) < 3 {
        return Err(Fail::Bad(format!("{}, expected rank 3 or more", graph.ty(x))));
    }
    let spatial = graph.shape(x)[2..].to_vec();
    let kernel = ctx
        .ints("kernel_shape")?
        .ok_or("attribute `kernel_shape` is missing")?
        .to_vec();
    let w = window(ctx, &spatial, kernel)?;
    let ceil = ctx.flag("ceil_mode", false)?;
    let sizes = (0..spatial.len())
        .map(|i| {
            let stride = Dim::Const(w.strides[i]);
            let room = w.room(i, &spatial[i]);
            let fits = known_for_inputs(&room, 0);
            if !fits {
                // A symbolic extent has at least one window, or none in steps of 1.
                let least = if room.as_const().is_some() {
                    -2 * w.strides[i] + 1
                } else {
                    (1 - w.strides[i]).min(-1)
                };
                graph.require_at_most(&Dim::Const(least), &room).map_err(|_| {
                    Fail::Bad(format!(
                        "kernel {:?} is larger than the padded input {}",
                        w.kernel,
                        graph.ty(x)
                    ))
                })?;
            }
            let up = || &room.ceil_div(&stride) + 1;
            let down = || &room.floor_div(&stride) + 1;
            Ok(match room.as_const() {
                _ if ceil => Dim::min(&up(), &(&spatial[i] + &w.low[i]).ceil_div(&stride)),
                Some(c) if c < 0 => up(),
                None if !fits && w.strides[i] > 1 => Dim::max(&down(), &Dim::ONE),
                _ => down(),
            })
        })
        .collect::<Result<_, Fail>>()?;
    Ok(Pool {
        window: w,
        sizes,
        spatial,
    })
}

impl Pool {
    fn emit(&self, graph: &mut Builder<'_>, kind: &str, x: Value) -> One {
        let w = &self.window;
        let attrs = [
            Attr::word(kind),
            Attr::Ints(w.kernel.clone()),
            Attr::Ints(w.strides.clone()),
            Attr::Ints(w.dilations.clone()),
            Attr::Dims(w.low.clone()),
            Attr::Dims(w.high.clone()),
            Attr::Dims(self.sizes.clone()),
        ];
        graph.op("pool", &attrs, &[x])
    }

    /// How many elements each window averages over, as a constant where extents are known; a pool of ones elsewhere.
    fn counts(&self, graph: &mut Builder<'_>, include_pad: bool, dtype: DType) -> One {
        let n = self.spatial.len();
        let mut known: Option<Vec<Vec<usize>>> = Some(vec![]);
        for i in 0..n {
            let axis = self.axis_counts(i, include_pad);
            known = known.zip(axis).map(|(mut all, a)| {
                all.push(a);
                all
            });
        }
        let made = |axes: &Vec<Vec<usize>>| axes.iter().try_fold(1usize, |n, a| n.checked_mul(a.len()));
        if let Some(axes) = known.filter(|a| made(a).is_some_and(|n| n <= MAX_COUNTED as usize)) {
            if let Some(same) = axes.iter().map(|a| all_equal(a)).collect::<Option<Vec<usize>>>() {
                return Ok(graph.scalar(dtype, same.iter().product::<usize>() as f64));
            }
            let shape: Vec<usize> = axes.iter().map(Vec::len).collect();
            let values: Vec<usize> = brolga_ir::indices(&shape)
                .map(|index| index.iter().zip(&axes).map(|(&i, a)| a[i]).product())
                .collect();
            let t = Tensor::from_fn(dtype, &shape, |p| Number::Float(values[p] as f64));
            return Ok(graph.dense(t));
        }
        let mut shape = vec![Dim::ONE; 2];
        shape.extend(self.spatial.iter().cloned());
        let mut ones = graph.splat(dtype, &shape, 1.0)?;
        if include_pad {
            let edge = |d: &[Dim]| [&[Dim::ZERO, Dim::ZERO][..], d].concat();
            let (low, high) = (edge(&self.window.low), edge(&self.window.high));
            ones = graph.pad(ones, low, high, vec![0; n + 2], 1.0)?;
            let bare = Pool {
                window: Window {
                    low: vec![Dim::ZERO; n],
                    high: vec![Dim::ZERO; n],
                    kernel: self.window.kernel.clone(),
                    strides: self.window.strides.clone(),
                    dilations: self.window.dilations.clone(),
                },
                sizes: self.sizes.clone(),
                spatial: self.spatial.clone(),
            };
            return bare.emit(graph, "sum", ones);
        }
        self.emit(graph, "sum", ones)
    }

    /// The number of counted taps of each window along one axis, where extents are known and amount to few.
    pub fn axis_counts(&self, i: usize, include_pad: bool) -> Option<Vec<usize>> {
        let w = &self.window;
        let (size, low) = (self.sizes[i].as_const()?, w.low[i].as_const()?);
        let (extent, high) = (self.spatial[i].as_const()?, w.high[i].as_const()?);
        let (first, end) = if include_pad {
            (-low, extent + high)
        } else {
            (0, extent)
        };
        if size < 0 || size.checked_mul(w.kernel[i])? > MAX_COUNTED {
            return None;
        }
        let count = |o: i64| {
            let taps = (0..w.kernel[i]).map(|k| o * w.strides[i] - low + k * w.dilations[i]);
            taps.filter(|p| (first..end).contains(p)).count()
        };
        Some((0..size).map(count).collect())
    }
}

fn all_equal(counts: &[usize]) -> Option<usize> {
    let first = *counts.first()?;
    counts.iter().all(|&c| c == first).then_some(first)
}

/// `MaxPool`.
pub fn max(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let p = plan(graph, ctx, x)?;
    if ctx.wants(1) {
        return arg_pool::max(graph, ctx, &p, x);
    }
    one(p.emit(graph, "max", x))
}

/// `AveragePool`.
pub fn average(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    average_by(graph, ctx, |pool, graph, dtype, include_pad| {
        pool.counts(graph, include_pad, dtype)
    })
}

/// The same, but what lies behind the padding, where the result was rounded up, counts as padding does.
pub fn average_of_kernel(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    average_by(graph, ctx, |pool, graph, dtype, include_pad| match include_pad {
        true => Ok(graph.scalar(dtype, pool.window.kernel.iter().product::<i64>() as f64)),
        false => pool.counts(graph, false, dtype),
    })
}

fn average_by(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    counts: impl FnOnce(&Pool, &mut Builder<'_>, DType, bool) -> One,
) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let dtype = graph.dtype(x);
    let p = plan(graph, ctx, x)?;
    let wide = graph.widen(x)?;
    let sum = p.emit(graph, "sum", wide)?;
    let counts = counts(&p, graph, graph.dtype(sum), ctx.flag("count_include_pad", false)?)?;
    let y = graph.map("div", &[sum, counts])?;
    one(graph.cast(y, dtype))
}

/// `LpPool`: `(Σ |x|^p)^(1/p)`.
pub fn lp(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let p = ctx.int("p", 2)?;
    let pool = plan(graph, ctx, x)?;
    one(norm(graph, x, p, |graph, v| pool.emit(graph, "sum", v)))
}

fn norm(graph: &mut Builder<'_>, x: Value, p: i64, sum: impl FnOnce(&mut Builder<'_>, Value) -> One) -> One {
    if p < 1 {
        return Err(Fail::Bad(format!("p = {p}, expected 1 or more")));
    }
    let a = graph.op("abs", &[], &[x])?;
    let powered = match p {
        1 => a,
        2 => graph.map("mul", &[x, x])?,
        _ => graph.map_num("pow", a, p as f64)?,
    };
    let s = sum(graph, powered)?;
    match p {
        1 => Ok(s),
        2 => graph.op("sqrt", &[], &[s]),
        _ => graph.map_num("pow", s, 1.0 / p as f64),
    }
}

fn spatial_axes(graph: &Builder<'_>, x: Value) -> Result<Vec<usize>, Fail> {
    match graph.rank(x) {
        0..2 => Err(Fail::Bad(format!("{}, expected rank 2 or more", graph.ty(x)))),
        r => Ok((2..r).collect()),
    }
}

/// `GlobalAveragePool`.
pub fn global_average(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axes = spatial_axes(graph, x)?;
    one(graph.mean(&axes, x))
}

/// `GlobalMaxPool`.
pub fn global_max(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axes = spatial_axes(graph, x)?;
    one(graph.reduce("max", &axes, x))
}

/// `GlobalLpPool`.
pub fn global_lp(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let axes = spatial_axes(graph, x)?;
    let p = ctx.int("p", 2)?;
    one(norm(graph, x, p, |graph, v| graph.reduce("sum", &axes, v)))
}
