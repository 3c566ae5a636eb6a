//! `Resize` and `Upsample`. Interpolation is linear in the data and separable, so each axis is a contraction with a
//! constant matrix [in, out] whose column `o` holds the weights of the input elements for output position `o`. Nearest
//! neighbours are gathers, or, where every element is repeated equally often, a broadcast (which symbolic extents allow
//! too).

use super::interpolate::Stretch;
use super::*;
use brolga_ir::{Attr, DType, Dim, Number, Tensor, Type};

/// Index lists and matrices are made at import: larger ones are refused.
const MAX_MADE: i64 = 1 << 26;

/// What of a node is the same for all axes.
pub struct Mode {
    /// An element of the operand for each of the result.
    pub nearest: bool,
    /// Cubic, where it is neither nearest nor linear.
    pub cubic: bool,
    /// How positions are rounded to the nearest.
    pub rounding: String,
    /// How positions in the result are mapped to those in the operand.
    pub coordinates: String,
    /// The coefficient of the cubic filter.
    pub cubic_a: f64,
    /// Elements outside weigh nothing.
    pub exclude_outside: bool,
    /// The filter is as wide as an element of the result.
    pub antialias: bool,
    /// What stands where the region of interest leaves the operand.
    pub extrapolation: f64,
}

impl Mode {
    /// Whether scaling by a whole number repeats every element as often.
    fn repeats(&self) -> bool {
        let shift_free = self.coordinates == "asymmetric" && self.rounding == "floor"
            || self.coordinates.starts_with("half_pixel") && self.rounding.starts_with("round");
        self.nearest && shift_free
    }
}

/// One axis: its extents, the scale that maps between them, and the region of interest.
struct Axis {
    from: i64,
    to: i64,
    scale: f64,
    roi: (f64, f64),
}

/// `Resize`: scales or sizes, from operands that moved between versions 10 and 11.
pub fn resize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let (roi, scales, sizes) = if ctx.version < 11 {
        (None, ctx.optional(1), None)
    } else {
        (ctx.optional(1), ctx.optional(2), ctx.optional(3))
    };
    let axes: Vec<usize> = match ctx.ints("axes")? {
        Some(a) => a.iter().map(|&a| node::axis(a, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    let legacy = ctx.version < 11;
    let kind = ctx.string("mode", "nearest")?;
    let mode = Mode {
        nearest: kind == "nearest",
        cubic: kind == "cubic",
        rounding: ctx
            .string("nearest_mode", if legacy { "floor" } else { "round_prefer_floor" })?
            .into(),
        coordinates: ctx
            .string(
                "coordinate_transformation_mode",
                if legacy { "asymmetric" } else { "half_pixel" },
            )?
            .into(),
        cubic_a: ctx.float("cubic_coeff_a", -0.75)?,
        exclude_outside: ctx.flag("exclude_outside", false)?,
        antialias: ctx.flag("antialias", false)?,
        extrapolation: ctx.float("extrapolation_value", 0.0)?,
    };
    if !["nearest", "linear", "cubic", "bilinear"].contains(&kind) {
        return Err(Fail::Bad(format!("mode `{kind}`, expected nearest, linear or cubic")));
    }
    let scales = scales.filter(|&v| graph.ty(v).len().as_const() != Some(0));
    let policy = ctx.string("keep_aspect_ratio_policy", "stretch")?;
    let region = roi.filter(|_| mode.coordinates == "tf_crop_and_resize");
    if policy == "stretch" && graph.is_told_by_run(x, &axes, scales, sizes, region, &mode) {
        return one(graph.resize_in_run(x, &axes, scales, sizes, region, &mode));
    }
    let scales = match scales {
        Some(v) => Some(graph.floats_operand(v, "scales")?),
        None => None,
    };
    let sizes = match sizes {
        Some(v) => Some(graph.dims_operand(v, "sizes")?),
        None => None,
    };
    let roi = match roi {
        Some(v) if mode.coordinates == "tf_crop_and_resize" => graph.floats_operand(v, "the region")?,
        _ => vec![],
    };
    let n = scales
        .as_ref()
        .map(Vec::len)
        .or(sizes.as_ref().map(Vec::len))
        .ok_or("neither scales nor sizes")?;
    if n != axes.len() || !(roi.is_empty() || roi.len() == 2 * n) {
        return Err(Fail::Bad(format!(
            "{n} scales or sizes and a region of {} for {} axes",
            roi.len(),
            axes.len()
        )));
    }
    one(graph.resize_axes(x, &axes, scales, sizes, &roi, policy, &mode))
}

/// `Upsample` (version 9 and before): asymmetric coordinates, rounded down.
pub fn upsample(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let axes: Vec<usize> = (0..graph.rank(x)).collect();
    let mode = Mode {
        nearest: ctx.string("mode", "nearest")? == "nearest",
        cubic: false,
        rounding: "floor".into(),
        coordinates: "asymmetric".into(),
        cubic_a: -0.75,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.0,
    };
    let scales: Vec<f64> = match (ctx.optional(1), ctx.floats("scales")?) {
        (Some(v), _) if graph.is_told_by_run(x, &axes, Some(v), None, None, &mode) => {
            return one(graph.resize_in_run(x, &axes, Some(v), None, None, &mode));
        }
        (Some(v), _) => graph.floats_operand(v, "scales")?,
        (None, Some(s)) => s.iter().map(|&s| s as f64).collect(),
        (None, None) => return Err("scales are missing".into()),
    };
    if scales.len() != axes.len() {
        return Err(Fail::Bad(format!("{} scales for {}", scales.len(), graph.ty(x))));
    }
    one(graph.resize_axes(x, &axes, Some(scales), None, &[], "stretch", &mode))
}

impl Builder<'_> {
    /// Whether only a run tells where elements go: an extent that changes by more than whole repetitions, a scale, a size, the region.
    fn is_told_by_run(
        &mut self,
        x: Value,
        axes: &[usize],
        scales: Option<Value>,
        sizes: Option<Value>,
        roi: Option<Value>,
        mode: &Mode,
    ) -> bool {
        if roi.is_some_and(|v| self.contents(v).is_none()) {
            return true;
        }
        let shape = self.shape(x);
        let open: Vec<bool> = axes.iter().map(|&a| shape[a].as_const().is_none()).collect();
        if let Some(v) = scales {
            let Some(known) = self.contents(v) else { return true };
            let repeats = |s: f64| (1.0..65536.0).contains(&s) && s.fract() == 0.0 && (s == 1.0 || mode.repeats());
            return known.to_f64s().iter().zip(open).any(|(s, open)| open && !repeats(*s));
        }
        let Some(v) = sizes else { return false };
        let Some(known) = self.dims_of(v) else { return true };
        let repeats = |to: &Dim, a: usize| {
            *to == shape[a] || mode.repeats() && to.exact_div(&shape[a]).is_some_and(|s| s.as_const().is_some())
        };
        let fixed =
            |(to, &a): (&Dim, &usize)| (shape[a].as_const().is_some() && to.as_const().is_some()) || repeats(to, a);
        known.len() == axes.len() && !known.iter().zip(axes).all(fixed)
    }

    /// `x` resized by what the run tells.
    fn resize_in_run(
        &mut self,
        x: Value,
        axes: &[usize],
        scales: Option<Value>,
        sizes: Option<Value>,
        roi: Option<Value>,
        mode: &Mode,
    ) -> One {
        let given = scales.or(sizes).ok_or("neither scales nor sizes")?;
        if self.ty(given).len().as_const() != Some(axes.len() as i64) {
            let ty = self.ty(given);
            return Err(Fail::Bad(format!("scales or sizes {ty} for {} axes", axes.len())));
        }
        let sizes = sizes
            .filter(|_| scales.is_none())
            .map(|v| self.sizes_operand(v, "sizes", &[]))
            .transpose()?;
        let element = |graph: &mut Self, v: Value, k: usize| {
            let v = graph.slice_axis(v, 0, Dim::from(k), Dim::ONE)?;
            let v = graph.reshape(v, vec![])?;
            graph.cast(v, DType::F64)
        };
        let mut y = x;
        for (k, &axis) in axes.iter().enumerate() {
            let from = self.shape(x)[axis].clone();
            let n = self.dim_scalar(&from, DType::F64)?;
            let roi = match roi {
                Some(v) => Some((element(self, v, k)?, element(self, v, axes.len() + k)?)),
                None => None,
            };
            let (to, scale) = match &sizes {
                Some(sizes) => {
                    let to = self.dim_scalar(&sizes[k], DType::F64)?;
                    (sizes[k].clone(), self.map("div", &[to, n])?)
                }
                None => {
                    let scale = element(self, given, k)?;
                    if roi.is_none() && self.contents(scale).is_some_and(|s| s.get(0).f64() == 1.0) {
                        continue;
                    }
                    let mut extent = self.map("mul", &[n, scale])?;
                    if let Some((start, end)) = roi {
                        let part = self.map("sub", &[end, start])?;
                        extent = self.map("mul", &[extent, part])?;
                    }
                    let extent = self.map("floor", &[extent])?;
                    let extent = self.cast(extent, DType::I64)?;
                    (self.read(extent, None)?, scale)
                }
            };
            if to == from && roi.is_none() {
                continue;
            }
            y = self.interpolate(y, &Stretch { axis, to, scale, roi }, mode)?;
        }
        Ok(y)
    }

    #[allow(clippy::too_many_arguments)] // the operator's own operands, resolved
    fn resize_axes(
        &mut self,
        x: Value,
        axes: &[usize],
        scales: Option<Vec<f64>>,
        sizes: Option<Vec<Dim>>,
        roi: &[f64],
        policy: &str,
        mode: &Mode,
    ) -> One {
        let shape = self.shape(x);
        let mut plan = vec![];
        for (i, &a) in axes.iter().enumerate() {
            let roi = roi
                .get(i)
                .zip(roi.get(axes.len() + i))
                .map_or((0.0, 1.0), |(s, e)| (*s, *e));
            let from = shape[a].as_const();
            if let Some(scales) = &scales {
                let s = scales[i];
                if !(s > 0.0 && s.is_finite()) {
                    return Err(Fail::Bad(format!("a scale of {s}")));
                }
                if s == 1.0 && mode.coordinates != "tf_crop_and_resize" {
                    continue;
                }
                match from {
                    Some(from) => {
                        let to = (from as f64 * s * if roi == (0.0, 1.0) { 1.0 } else { roi.1 - roi.0 }).floor() as i64;
                        plan.push((
                            a,
                            Axis {
                                from,
                                to,
                                scale: s,
                                roi,
                            },
                        ));
                    }
                    None => plan.push((
                        a,
                        Axis {
                            from: -1,
                            to: 0,
                            scale: s,
                            roi,
                        },
                    )),
                }
                continue;
            }
            let Some(to) = sizes.as_ref().map(|s| s[i].clone()) else {
                continue;
            };
            if to == shape[a] && mode.coordinates != "tf_crop_and_resize" && policy == "stretch" {
                continue;
            }
            match (from, to.as_const()) {
                (Some(from), Some(to)) => {
                    let scale = to as f64 / from as f64;
                    plan.push((a, Axis { from, to, scale, roi }));
                }
                _ => match to.exact_div(&shape[a]).and_then(|s| s.as_const()) {
                    Some(s) => plan.push((
                        a,
                        Axis {
                            from: -1,
                            to: 0,
                            scale: s as f64,
                            roi,
                        },
                    )),
                    None => return unsupported("sizes that depend on a dimension"),
                },
            }
        }
        if policy != "stretch" && scales.is_none() {
            let ratios = plan.iter().map(|(_, p)| p.scale);
            let scale = match policy {
                "not_larger" => ratios.fold(f64::INFINITY, f64::min),
                "not_smaller" => ratios.fold(0.0, f64::max),
                p => return Err(Fail::Bad(format!("keep_aspect_ratio_policy `{p}`"))),
            };
            for (_, p) in &mut plan {
                p.scale = scale;
                // Halves round up.
                p.to = (scale * p.from as f64 + 0.5).floor() as i64;
            }
        }
        let mut y = x;
        for (a, p) in plan {
            if p.from >= 0 && !(0..1 << 32).contains(&p.to) {
                return Err(Fail::Bad(format!("axis {a} of {} scaled by {}", self.ty(x), p.scale)));
            }
            y = self.resize_axis(y, a, &p, mode)?;
        }
        Ok(y)
    }

    fn resize_axis(&mut self, x: Value, axis: usize, p: &Axis, mode: &Mode) -> One {
        let whole = p.scale >= 1.0 && p.scale.fract() == 0.0 && p.scale < 65536.0;
        if p.from < 0 {
            if whole && mode.repeats() {
                return self.repeat(x, axis, p.scale as i64);
            }
            return unsupported("interpolation of symbolic extents");
        }
        if p.from == 0 && p.to > 0 {
            return Err("an empty dimension, expected at least one element".into());
        }
        let made = if mode.nearest {
            p.to
        } else {
            p.from.max(1).saturating_mul(p.to)
        };
        if made > MAX_MADE {
            return Err(Fail::Bad(format!("axis {axis} from {} to {} elements", p.from, p.to)));
        }
        if mode.nearest {
            let index: Vec<i64> = (0..p.to).map(|o| nearest(coordinate(o, p, mode), p, mode)).collect();
            if whole
                && index.iter().enumerate().all(|(o, &i)| i == o as i64 / p.scale as i64)
                && p.to == p.from * p.scale as i64
            {
                return self.repeat(x, axis, p.scale as i64);
            }
            let outside = |o: i64| outside(coordinate(o, p, mode), p, mode);
            let v = self.ints(&index);
            let y = self.gather(axis, x, v)?;
            if (0..p.to).any(outside) {
                return self.extrapolate(y, axis, &(0..p.to).map(outside).collect::<Vec<_>>(), mode.extrapolation);
            }
            return Ok(y);
        }
        let dtype = self.dtype(x);
        let compute = if dtype.is_float() { dtype } else { DType::F32 };
        let extents = vec![Dim::Const(p.from), Dim::Const(p.to)];
        self.check_size(&Type::new(compute, extents))?;
        let (from, to) = (p.from as usize, p.to as usize);
        let mut matrix = vec![0.0; from * to];
        let mut outer = vec![false; to];
        for o in 0..to {
            let c = coordinate(o as i64, p, mode);
            if outside(c, p, mode) {
                outer[o] = true;
                continue;
            }
            for (i, w) in weights(c, p, mode) {
                matrix[i.clamp(0, p.from - 1) as usize * to + o] += w;
            }
        }
        let m = self.dense(Tensor::from_fn(compute, &[from, to], |i| Number::Float(matrix[i])));
        let x = self.cast(x, compute)?;
        let y = self.contract(x, m, [&[], &[]], [&[axis], &[0]])?;
        let rank = self.rank(y);
        let mut perm: Vec<usize> = (0..rank - 1).collect();
        perm.insert(axis, rank - 1);
        let mut y = self.transpose(y, &perm)?;
        if outer.contains(&true) {
            y = self.extrapolate(y, axis, &outer, mode.extrapolation)?;
        }
        self.cast(y, dtype)
    }

    /// Every element `times` times.
    fn repeat(&mut self, x: Value, axis: usize, times: i64) -> One {
        let shape = self.shape(x);
        let y = self.unsqueeze(x, &[axis + 1])?;
        let mut wide = self.shape(y);
        wide[axis + 1] = Dim::Const(times);
        let y = self.op("broadcast", &[Attr::Dims(wide)], &[y])?;
        let mut to = shape;
        to[axis] = &to[axis] * times;
        self.reshape(y, to)
    }

    /// `y` with one value where the positions along the axis are outside.
    fn extrapolate(&mut self, y: Value, axis: usize, outside: &[bool], value: f64) -> One {
        let rank = self.rank(y);
        let mask = Tensor::from_fn(DType::Bool, &[outside.len()], |i| outside[i].into());
        let mask = self.dense(mask);
        let axes: Vec<usize> = (1..rank - axis).collect();
        let mask = self.unsqueeze(mask, &axes)?;
        let fill = self.scalar(self.dtype(y), value);
        self.map("where", &[mask, fill, y])
    }
}

/// The input coordinate of an output position.
fn coordinate(o: i64, p: &Axis, mode: &Mode) -> f64 {
    let (o, from, to) = (o as f64, p.from as f64, p.to as f64);
    match mode.coordinates.as_str() {
        "asymmetric" => o / p.scale,
        "align_corners" if p.to <= 1 => 0.0,
        // The result's extent before rounding is what corners are aligned to.
        "align_corners" => o * (from - 1.0) / (from * p.scale - 1.0).max(f64::MIN_POSITIVE),
        "pytorch_half_pixel" if p.to <= 1 => 0.0,
        "half_pixel_symmetric" => {
            let adjustment = to / (p.scale * from);
            from / 2.0 * (1.0 - adjustment) + (o + 0.5) / p.scale - 0.5
        }
        "tf_half_pixel_for_nn" => (o + 0.5) / p.scale,
        "tf_crop_and_resize" if p.to > 1 => {
            p.roi.0 * (from - 1.0) + o * (p.roi.1 - p.roi.0) * (from - 1.0) / (to - 1.0)
        }
        "tf_crop_and_resize" => 0.5 * (p.roi.0 + p.roi.1) * (from - 1.0),
        _ => (o + 0.5) / p.scale - 0.5,
    }
}

fn outside(c: f64, p: &Axis, mode: &Mode) -> bool {
    mode.coordinates == "tf_crop_and_resize" && (c < 0.0 || c > (p.from - 1) as f64)
}

fn nearest(c: f64, p: &Axis, mode: &Mode) -> i64 {
    let i = match mode.rounding.as_str() {
        "floor" => c.floor(),
        "ceil" => c.ceil(),
        "round_prefer_ceil" => (c + 0.5).floor(),
        _ => (c - 0.5).ceil(),
    };
    (i as i64).clamp(0, p.from - 1)
}

/// The input positions (not clamped yet) and weights that make the element at a coordinate.
fn weights(c: f64, p: &Axis, mode: &Mode) -> Vec<(i64, f64)> {
    // When shrinking with antialiasing, the filter is stretched to cover all input elements.
    let stretch = if mode.antialias { p.scale.min(1.0) } else { 1.0 };
    let radius = if mode.cubic { 2.0 } else { 1.0 } / stretch;
    let a = mode.cubic_a;
    let filter = |d: f64| {
        let d = (d * stretch).abs();
        match mode.cubic {
            false => (1.0 - d).max(0.0),
            true if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            true if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            true => 0.0,
        }
    };
    let first = (c - radius).floor() as i64 + 1;
    let last = (c + radius).ceil() as i64 - 1;
    let mut taps: Vec<(i64, f64)> = (first..=last.max(first)).map(|i| (i, filter(i as f64 - c))).collect();
    if mode.exclude_outside {
        taps.retain(|t| (0..p.from).contains(&t.0));
    }
    if mode.exclude_outside || mode.antialias {
        let sum: f64 = taps.iter().map(|t| t.1).sum();
        if sum != 0.0 {
            taps.iter_mut().for_each(|t| t.1 /= sum);
        }
    }
    taps
}
