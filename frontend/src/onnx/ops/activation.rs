//! Activations with parameters, composed of element-wise functions and splats.

use super::*;

/// `Relu`, of integers too.
pub fn relu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    one(if graph.dtype(x).is_float() {
        graph.op("relu", &[], &[x])
    } else {
        graph.map_num("max", x, 0.0)
    })
}

/// `LeakyRelu`: `x < 0 ? alpha x : x`.
pub fn leaky_relu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 0.01)?);
    let scaled = graph.map_num("mul", x, alpha)?;
    one(negative(graph, x, scaled))
}

/// `x < 0 ? other : x`.
pub fn negative(graph: &mut Builder<'_>, x: Value, other: Value) -> One {
    let below = graph.map_num("less", x, 0.0)?;
    graph.map("where", &[below, other, x])
}

/// `PRelu`: `x < 0 ? slope x : x`. Before version 7 a slope of one dimension belongs to the channels.
pub fn prelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, mut slope) = (ctx.input(0)?, ctx.input(1)?);
    if ctx.version < 7 && graph.rank(slope) == 1 && graph.rank(x) > 2 {
        let axes: Vec<usize> = (1..graph.rank(x) - 1).collect();
        slope = graph.unsqueeze(slope, &axes)?;
    }
    let shape = graph.shape(x);
    let slope = graph.spread(slope, &shape)?;
    let scaled = graph.map("mul", &[x, slope])?;
    one(negative(graph, x, scaled))
}

/// `ThresholdedRelu`: `x > alpha ? x : 0`.
pub fn thresholded_relu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let above = graph.map_num("greater", x, alpha)?;
    let zero = graph.scalar(graph.dtype(x), 0.0);
    one(graph.map("where", &[above, x, zero]))
}

/// `scale (e^(x / divisor) - 1)`, the negative branch of the Elu family.
pub fn exponential(graph: &mut Builder<'_>, x: Value, divisor: f64, scale: f64) -> One {
    let mut e = x;
    if divisor != 1.0 {
        e = graph.map_num("div", e, divisor)?;
    }
    e = graph.op("expm1", &[], &[e])?;
    if scale != 1.0 {
        e = graph.map_num("mul", e, scale)?;
    }
    Ok(e)
}

/// `Elu`: `x < 0 ? alpha (e^x - 1) : x`.
pub fn elu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let e = exponential(graph, x, 1.0, alpha)?;
    one(negative(graph, x, e))
}

/// `Celu`: `x < 0 ? alpha (e^(x/alpha) - 1) : x`.
pub fn celu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let e = exponential(graph, x, alpha, alpha)?;
    one(negative(graph, x, e))
}

/// `Selu`: `gamma (x < 0 ? alpha (e^x - 1) : x)`.
pub fn selu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (alpha, gamma) = (ctx.float("alpha", 1.673_263_2)?, ctx.float("gamma", 1.050_701)?);
    let e = exponential(graph, x, 1.0, alpha)?;
    let y = negative(graph, x, e)?;
    one(graph.map_num("mul", y, gamma))
}

/// `Clip`: bounds are attributes before version 11, optional operands since.
pub fn clip(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 3)?;
    let mut x = ctx.input(0)?;
    let bounds: [Option<Value>; 2] = if ctx.version < 11 {
        let dtype = graph.dtype(x);
        // Exporters write the largest finite floats where they mean "no bound", which changes nothing here.
        let mut bound = |name: &str, none: f32| -> Result<Option<Value>, Fail> {
            let b = ctx.opt_float(name)?.filter(|&b| b != none as f64);
            Ok(b.map(|b| graph.scalar(dtype, b)))
        };
        [bound("min", f32::MIN)?, bound("max", f32::MAX)?]
    } else {
        [ctx.optional(1), ctx.optional(2)]
    };
    let shape = graph.shape(x);
    for (bound, name) in bounds.into_iter().zip(["max", "min"]) {
        if let Some(b) = bound {
            let b = graph.reshape(b, vec![])?;
            let b = graph.spread(b, &shape)?;
            x = graph.map(name, &[x, b])?;
        }
    }
    Ok(vec![x])
}

/// `HardSigmoid`: `max(0, min(1, alpha x + beta))`.
pub fn hard_sigmoid(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (alpha, beta) = (ctx.float("alpha", 0.2)?, ctx.float("beta", 0.5)?);
    one(hard(graph, ctx.input(0)?, alpha, beta))
}

/// `max(0, min(1, alpha x + beta))`.
pub fn hard(graph: &mut Builder<'_>, x: Value, alpha: f64, beta: f64) -> One {
    let y = graph.map_num("mul", x, alpha)?;
    let y = graph.map_num("add", y, beta)?;
    let y = graph.map_num("min", y, 1.0)?;
    graph.map_num("max", y, 0.0)
}

/// `HardSwish`: `x max(0, min(1, x/6 + 1/2))`.
pub fn hard_swish(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let y = hard(graph, x, 1.0 / 6.0, 0.5)?;
    one(graph.map("mul", &[x, y]))
}

/// `Gelu`, exact or by tanh.
pub fn gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let name = match ctx.string("approximate", "none")? {
        "none" => "gelu",
        "tanh" => "gelu_tanh",
        a => return Err(Fail::Bad(format!("approximate `{a}`, expected none or tanh"))),
    };
    one(graph.op(name, &[], &[ctx.input(0)?]))
}

/// `x sigmoid(alpha x)`.
pub fn swish_of(graph: &mut Builder<'_>, x: Value, alpha: f64) -> One {
    if alpha == 1.0 {
        return graph.op("silu", &[], &[x]);
    }
    let s = graph.map_num("mul", x, alpha)?;
    let s = graph.op("sigmoid", &[], &[s])?;
    graph.map("mul", &[x, s])
}

/// `Swish`: `x sigmoid(alpha x)`.
pub fn swish(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let alpha = ctx.float("alpha", 1.0)?;
    one(swish_of(graph, ctx.input(0)?, alpha))
}

/// `Shrink`: `x < -lambd ? x + bias : x > lambd ? x - bias : 0`.
pub fn shrink(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (bias, lambd) = (ctx.float("bias", 0.0)?, ctx.float("lambd", 0.5)?);
    let dtype = graph.dtype(x);
    // Integers are compared and shifted as the floats that the attributes are.
    let wide = if dtype.is_float() {
        x
    } else {
        graph.cast(x, brolga_ir::DType::F32)?
    };
    let (up, down) = (graph.map_num("add", wide, bias)?, graph.map_num("sub", wide, bias)?);
    let (low, high) = (
        graph.map_num("less", wide, -lambd)?,
        graph.map_num("greater", wide, lambd)?,
    );
    let zero = graph.scalar(graph.dtype(wide), 0.0);
    let y = graph.map("where", &[high, down, zero])?;
    let y = graph.map("where", &[low, up, y])?;
    one(graph.cast(y, dtype))
}

/// `SwiGLU`: the Swish of the first operand times the second.
pub fn swiglu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if graph.ty(a) != graph.ty(b) {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected equal types",
            graph.ty(a),
            graph.ty(b)
        )));
    }
    let s = swish_of(graph, a, ctx.float("alpha", 1.0)?)?;
    one(graph.map("mul", &[s, b]))
}
