//! `Conv` and `ConvTranspose`, with explicit or automatic padding.

use super::super::extents::known_for_inputs;
use super::*;
use brolga_ir::{Attr, DType, Dim};

/// Attributes that convolutions and pools share, over the spatial dimensions.
pub struct Window {
    /// The kernel's extents.
    pub kernel: Vec<i64>,
    /// Steps between windows.
    pub strides: Vec<i64>,
    /// Steps between a window's taps.
    pub dilations: Vec<i64>,
    /// Padding before.
    pub low: Vec<Dim>,
    /// Padding after.
    pub high: Vec<Dim>,
}

impl Window {
    /// How far the last window of a padded dimension could be moved: negative where the kernel is larger.
    pub fn room(&self, i: usize, extent: &Dim) -> Dim {
        let reach = (self.kernel[i] - 1) * self.dilations[i] + 1;
        &(&(extent + &self.low[i]) + &self.high[i]) - &Dim::Const(reach)
    }
}

/// Extents, strides and dilations are at most this: products of them with each other do not overflow.
const MAX_WINDOW: i64 = 1 << 30;

/// A list of one positive number for each spatial dimension.
pub fn per_axis(ctx: &NodeCtx<'_>, name: &str, n: usize, least: i64) -> Result<Option<Vec<i64>>, Fail> {
    match ctx.ints(name)? {
        None => Ok(None),
        Some(l) if l.is_empty() && least == 1 => Ok(None),
        Some(l) if l.len() == n && l.iter().all(|x| (least..=MAX_WINDOW).contains(x)) => Ok(Some(l.to_vec())),
        Some(l) => Err(Fail::Bad(format!("{name} {l:?} for {n} spatial dimensions"))),
    }
}

/// The window of a convolution or pool over an input of these spatial extents.
pub fn window(ctx: &NodeCtx<'_>, spatial: &[Dim], kernel: Vec<i64>) -> Result<Window, Fail> {
    let n = spatial.len();
    if kernel.len() != n || kernel.iter().any(|k| !(1..=MAX_WINDOW).contains(k)) {
        return Err(Fail::Bad(format!("kernel {kernel:?} for {n} spatial dimensions")));
    }
    let strides = per_axis(ctx, "strides", n, 1)?.unwrap_or(vec![1; n]);
    let dilations = per_axis(ctx, "dilations", n, 1)?.unwrap_or(vec![1; n]);
    let (mut low, mut high) = (vec![Dim::ZERO; n], vec![Dim::ZERO; n]);
    match ctx.string("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {
            if let Some(p) = per_axis(ctx, "pads", 2 * n, -MAX_WINDOW)? {
                low = p[..n].iter().map(|&p| Dim::Const(p)).collect();
                high = p[n..].iter().map(|&p| Dim::Const(p)).collect();
            }
        }
        "VALID" => {}
        mode @ ("SAME_UPPER" | "SAME_LOWER") => {
            for i in 0..n {
                // The result has ceil(in / stride) windows.
                let stride = Dim::Const(strides[i]);
                let reach = (kernel[i] - 1) * dilations[i] + 1;
                let last = &(&spatial[i].ceil_div(&stride) + &Dim::Const(-1)) * &stride;
                let total = Dim::max(&(&(&last + &Dim::Const(reach)) - &spatial[i]), &Dim::ZERO);
                let half = total.floor_div(&Dim::Const(2));
                let rest = &total - &half;
                (low[i], high[i]) = if mode == "SAME_UPPER" {
                    (half, rest)
                } else {
                    (rest, half)
                };
            }
        }
        m => return Err(Fail::Bad(format!("auto_pad `{m}`"))),
    }
    Ok(Window {
        kernel,
        strides,
        dilations,
        low,
        high,
    })
}

/// Adds a bias [C] to [N, C, …], both of which may be wider than what the operator gives: a result is rounded once.
pub fn add_bias(graph: &mut Builder<'_>, y: Value, bias: Option<Value>) -> One {
    let Some(b) = bias else {
        return Ok(y);
    };
    let b = graph.cast(b, graph.dtype(y))?;
    let shape = graph.shape(y);
    let b = graph
        .fit_shape(b, &shape[1..2])
        .map_err(|_| Fail::Bad(format!("bias {} for the result {}", graph.ty(b), graph.ty(y))))?;
    let axes: Vec<usize> = (1..shape.len() - 1).collect();
    let b = graph.unsqueeze(b, &axes)?;
    graph.map("add", &[y, b])
}

/// The known kernel extents of a weight, which `kernel_shape` may repeat but not contradict.
pub fn kernel_of(graph: &Builder<'_>, ctx: &NodeCtx<'_>, x: Value, w: Value) -> Result<Vec<i64>, Fail> {
    if graph.rank(x) < 3 || graph.rank(w) != graph.rank(x) {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected equal ranks of 3 or more",
            graph.ty(x),
            graph.ty(w)
        )));
    }
    let kernel: Option<Vec<i64>> = graph.shape(w)[2..].iter().map(Dim::as_const).collect();
    let Some(kernel) = kernel else {
        return unsupported("a kernel of symbolic extents");
    };
    match ctx.ints("kernel_shape")? {
        Some(k) if k != kernel => Err(Fail::Bad(format!("kernel_shape {k:?} for the weight {}", graph.ty(w)))),
        _ => Ok(kernel),
    }
}

fn groups(ctx: &NodeCtx<'_>) -> Result<i64, Fail> {
    match ctx.int("group", 1)? {
        n if n < 1 => Err(Fail::Bad(format!("attribute `group` is {n}, expected 1 or more"))),
        n => Ok(n),
    }
}

/// `Conv`.
pub fn conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    let y = graph.conv_nodes(ctx, x, w, None)?;
    let y = add_bias(graph, y, ctx.optional(2))?;
    one(graph.cast(y, graph.dtype(x)))
}

impl Builder<'_> {
    /// A convolution with a node's window attributes, without bias, in the dtype of its sums: i32 for bytes. Around `x` is 0, or a
    /// scalar of its dtype.
    ///
    /// # Errors
    /// When shapes or attributes do not fit.
    pub fn conv_nodes<'c>(&mut self, ctx: &NodeCtx<'c>, x: Value, w: Value, around: Option<Value>) -> One {
        let kernel = kernel_of(self, ctx, x, w)?;
        let mut win = window(ctx, &self.shape(x)[2..], kernel)?;
        let groups = groups(ctx)?;
        let channels = &self.shape(w)[1] * groups;
        let mut x = self.fit(x, 1, &channels)?;
        for (i, n) in self.shape(x)[2..].iter().enumerate() {
            // A kernel is never larger than the padded input; where there is no input, there is no result.
            let room = win.room(i, n);
            if !known_for_inputs(&room, 0) {
                self.require_at_most(&Dim::ZERO, &room).map_err(|_| {
                    Fail::Bad(format!(
                        "kernel {:?} is larger than the padded input {}",
                        win.kernel,
                        self.ty(x)
                    ))
                })?;
            }
        }
        if let Some(around) = around {
            x = self.pad_with(x, &mut win, around)?;
        }
        let acc = match self.dtype(x) {
            DType::U8 | DType::I8 => DType::I32,
            other => other.compute(),
        };
        let attrs = [
            Attr::Ints(win.strides),
            Attr::Ints(win.dilations),
            Attr::Dims(win.low),
            Attr::Dims(win.high),
            Attr::Int(groups),
            Attr::DType(acc),
            Attr::DType(acc),
        ];
        self.op("conv", &attrs, &[x, w])
    }

    /// `x` with a window's padding around it, which holds a scalar of the dtype of `x`, an integer: `(x - c)` is padded with 0, and `c`
    /// added everywhere. The window has none then.
    fn pad_with(&mut self, x: Value, win: &mut Window, c: Value) -> One {
        let spatial = win.low.len();
        let none = || vec![Dim::ZERO; spatial];
        let [low, high] = [&mut win.low, &mut win.high].map(|side| std::mem::replace(side, none()));
        if low.iter().chain(&high).all(|d| d.is(0)) {
            return Ok(x);
        }
        let [low, high] = [low, high].map(|side| [&[Dim::ZERO, Dim::ZERO][..], &side].concat());
        let x = self.map("sub", &[x, c])?;
        let x = self.pad(x, low, high, vec![0; spatial + 2], 0)?;
        self.map("add", &[x, c])
    }
}

/// `ConvTranspose`. With `output_shape` (or automatic padding) the padding follows from the result's extents.
pub fn conv_transpose(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    let groups = groups(ctx)?;
    let kernel = kernel_of(graph, ctx, x, w)?;
    let channels = graph.shape(w)[0].clone();
    let x = graph.fit(x, 1, &channels)?;
    let n = kernel.len();
    let spatial = graph.shape(x)[2..].to_vec();
    let strides = per_axis(ctx, "strides", n, 1)?.unwrap_or(vec![1; n]);
    let dilations = per_axis(ctx, "dilations", n, 1)?.unwrap_or(vec![1; n]);
    let extra = per_axis(ctx, "output_padding", n, 0)?.unwrap_or(vec![0; n]);
    let wanted = ctx.ints("output_shape")?.filter(|s| !s.is_empty());
    if let Some(s) = wanted
        && s.len() != n
    {
        return Err(Fail::Bad(format!("output_shape {s:?} for {n} spatial dimensions")));
    }
    let auto = ctx.string("auto_pad", "NOTSET")?;
    let (mut low, mut high) = (vec![Dim::ZERO; n], vec![Dim::ZERO; n]);
    if wanted.is_some() || auto.starts_with("SAME") {
        for i in 0..n {
            let reach = (kernel[i] - 1) * dilations[i] + 1 + extra[i];
            let full = &(&(&spatial[i] + &Dim::Const(-1)) * strides[i]) + &Dim::Const(reach);
            let out = match wanted {
                Some(s) => Dim::Const(s[i]),
                None => &spatial[i] * strides[i],
            };
            // A result larger than all that the kernel reaches is filled up at its end.
            let total = &full - &out;
            let half = total.floor_div(&Dim::Const(2));
            let rest = &total - &half;
            (low[i], high[i]) = match auto {
                _ if total.as_const().is_some_and(|t| t < 0) => (Dim::ZERO, total),
                "SAME_UPPER" => (half, rest),
                _ => (rest, half),
            };
        }
    } else if let Some(p) = per_axis(ctx, "pads", 2 * n, -MAX_WINDOW)? {
        low = p[..n].iter().map(|&p| Dim::Const(p)).collect();
        high = p[n..].iter().map(|&p| Dim::Const(p)).collect();
    }
    let (dtype, acc) = (graph.dtype(x), graph.dtype(x).compute());
    let attrs = [
        Attr::Ints(strides),
        Attr::Ints(dilations),
        Attr::Dims(low),
        Attr::Dims(high),
        Attr::Ints(extra),
        Attr::Int(groups),
        Attr::DType(acc),
        Attr::DType(acc),
    ];
    let y = graph.op("conv_transpose", &attrs, &[x, w])?;
    let y = add_bias(graph, y, ctx.optional(2))?;
    one(graph.cast(y, dtype))
}

/// `CausalConvWithState`: a depthwise convolution over [state, input], where the state is the end of what came before
/// (zeros at first); the end of both together is the next state.
pub fn causal(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    if graph.rank(x) != 3 || graph.rank(w) != 3 {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected rank 3",
            graph.ty(x),
            graph.ty(w)
        )));
    }
    let channels = graph.shape(w)[0].clone();
    let x = graph.fit(x, 1, &channels)?;
    let shape = graph.shape(x);
    let (Some(channels), Some(k)) = (shape[1].as_const(), graph.shape(w)[2].as_const()) else {
        return unsupported("symbolic channels");
    };
    let dtype = graph.dtype(x);
    let state = [shape[0].clone(), shape[1].clone(), Dim::Const(k - 1)];
    let past = match ctx.optional(3) {
        Some(p) => p,
        None => graph.splat(dtype, &state, 0.0)?,
    };
    let all = graph.concat(2, &[past, x])?;
    let attrs = [
        Attr::Ints(vec![1]),
        Attr::Ints(vec![1]),
        Attr::Dims(vec![Dim::ZERO]),
        Attr::Dims(vec![Dim::ZERO]),
        Attr::Int(channels),
        Attr::DType(dtype.compute()),
        Attr::DType(dtype.compute()),
    ];
    let y = graph.op("conv", &attrs, &[all, w])?;
    let mut y = add_bias(graph, y, ctx.optional(2))?;
    match ctx.string("activation", "none")? {
        "none" => {}
        "silu" | "swish" => y = graph.op("silu", &[], &[y])?,
        a => return Err(Fail::Bad(format!("activation `{a}`, expected none, silu or swish"))),
    }
    let y = graph.cast(y, dtype)?;
    let next = graph.slice_axis(all, 2, shape[2].clone(), Dim::Const(k - 1))?;
    Ok(vec![y, next])
}
