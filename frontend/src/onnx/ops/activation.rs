//! Activations with parameters, composed of element-wise functions and splats.

use super::*;

/// `Relu`, of integers too.
pub fn relu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    one(if im.dtype(x).is_float() {
        im.op("relu", &[], &[x])
    } else {
        im.map_num("max", x, 0.0)
    })
}

/// `LeakyRelu`: `x < 0 ? alpha x : x`.
pub fn leaky_relu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 0.01)?);
    let scaled = im.map_num("mul", x, alpha)?;
    one(negative(im, x, scaled))
}

/// `x < 0 ? other : x`.
fn negative(im: &mut Importer<'_>, x: Value, other: Value) -> One {
    let below = im.map_num("less", x, 0.0)?;
    im.map("where", &[below, other, x])
}

/// `PRelu`: `x < 0 ? slope x : x`. Before version 7 a slope of one dimension belongs to the channels.
pub fn prelu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, mut slope) = (ctx.input(0)?, ctx.input(1)?);
    if ctx.version < 7 && im.rank(slope) == 1 && im.rank(x) > 2 {
        let axes: Vec<usize> = (1..im.rank(x) - 1).collect();
        slope = im.unsqueeze(slope, &axes)?;
    }
    let shape = im.shape(x);
    let slope = im.spread(slope, &shape)?;
    let scaled = im.map("mul", &[x, slope])?;
    one(negative(im, x, scaled))
}

/// `ThresholdedRelu`: `x > alpha ? x : 0`.
pub fn thresholded_relu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let above = im.map_num("greater", x, alpha)?;
    let zero = im.scalar(im.dtype(x), 0.0);
    one(im.map("where", &[above, x, zero]))
}

/// `scale (e^(x / divisor) - 1)`, the negative branch of the Elu family.
fn exponential(im: &mut Importer<'_>, x: Value, divisor: f64, scale: f64) -> One {
    let mut e = x;
    if divisor != 1.0 {
        e = im.map_num("div", e, divisor)?;
    }
    e = im.op("expm1", &[], &[e])?;
    if scale != 1.0 {
        e = im.map_num("mul", e, scale)?;
    }
    Ok(e)
}

/// `Elu`: `x < 0 ? alpha (e^x - 1) : x`.
pub fn elu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let e = exponential(im, x, 1.0, alpha)?;
    one(negative(im, x, e))
}

/// `Celu`: `x < 0 ? alpha (e^(x/alpha) - 1) : x`.
pub fn celu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, alpha) = (ctx.input(0)?, ctx.float("alpha", 1.0)?);
    let e = exponential(im, x, alpha, alpha)?;
    one(negative(im, x, e))
}

/// `Selu`: `gamma (x < 0 ? alpha (e^x - 1) : x)`.
pub fn selu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (alpha, gamma) = (ctx.float("alpha", 1.673_263_2)?, ctx.float("gamma", 1.050_701)?);
    let e = exponential(im, x, 1.0, alpha)?;
    let y = negative(im, x, e)?;
    one(im.map_num("mul", y, gamma))
}

/// `Clip`: bounds are attributes before version 11, optional operands since.
pub fn clip<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 3)?;
    let mut x = ctx.input(0)?;
    let bounds: [Option<Value>; 2] = if ctx.version < 11 {
        let dtype = im.dtype(x);
        // Exporters write the largest finite floats where they mean "no bound", which changes nothing here.
        let mut bound = |name: &str, none: f32| -> Result<Option<Value>, Fail> {
            let b = ctx.opt_float(name)?.filter(|&b| b != none as f64);
            Ok(b.map(|b| im.scalar(dtype, b)))
        };
        [bound("min", f32::MIN)?, bound("max", f32::MAX)?]
    } else {
        [ctx.optional(1), ctx.optional(2)]
    };
    let shape = im.shape(x);
    for (bound, name) in bounds.into_iter().zip(["max", "min"]) {
        if let Some(b) = bound {
            let b = im.reshape(b, vec![])?;
            let b = im.spread(b, &shape)?;
            x = im.map(name, &[x, b])?;
        }
    }
    Ok(vec![x])
}

/// `HardSigmoid`: `max(0, min(1, alpha x + beta))`.
pub fn hard_sigmoid<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let (alpha, beta) = (ctx.float("alpha", 0.2)?, ctx.float("beta", 0.5)?);
    one(hard(im, ctx.input(0)?, alpha, beta))
}

fn hard(im: &mut Importer<'_>, x: Value, alpha: f64, beta: f64) -> One {
    let y = im.map_num("mul", x, alpha)?;
    let y = im.map_num("add", y, beta)?;
    let y = im.map_num("min", y, 1.0)?;
    im.map_num("max", y, 0.0)
}

/// `HardSwish`: `x max(0, min(1, x/6 + 1/2))`.
pub fn hard_swish<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let y = hard(im, x, 1.0 / 6.0, 0.5)?;
    one(im.map("mul", &[x, y]))
}

/// `Gelu`, exact or by tanh.
pub fn gelu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let name = match ctx.string("approximate", "none")? {
        "none" => "gelu",
        "tanh" => "gelu_tanh",
        a => return Err(Fail::Bad(format!("approximate `{a}`, expected none or tanh"))),
    };
    one(im.op(name, &[], &[ctx.input(0)?]))
}

fn swish_of(im: &mut Importer<'_>, x: Value, alpha: f64) -> One {
    if alpha == 1.0 {
        return im.op("silu", &[], &[x]);
    }
    let s = im.map_num("mul", x, alpha)?;
    let s = im.op("sigmoid", &[], &[s])?;
    im.map("mul", &[x, s])
}

/// `Swish`: `x sigmoid(alpha x)`.
pub fn swish<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let alpha = ctx.float("alpha", 1.0)?;
    one(swish_of(im, ctx.input(0)?, alpha))
}

/// `Shrink`: `x < -lambd ? x + bias : x > lambd ? x - bias : 0`.
pub fn shrink<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (bias, lambd) = (ctx.float("bias", 0.0)?, ctx.float("lambd", 0.5)?);
    let dtype = im.dtype(x);
    // Integers are compared and shifted as the floats that the attributes are.
    let wide = if dtype.is_float() {
        x
    } else {
        im.cast(x, brolga_ir::DType::F32)?
    };
    let (up, down) = (im.map_num("add", wide, bias)?, im.map_num("sub", wide, bias)?);
    let (low, high) = (im.map_num("less", wide, -lambd)?, im.map_num("greater", wide, lambd)?);
    let zero = im.scalar(im.dtype(wide), 0.0);
    let y = im.map("where", &[high, down, zero])?;
    let y = im.map("where", &[low, up, y])?;
    one(im.cast(y, dtype))
}

/// `SwiGLU`: the Swish of the first operand times the second.
pub fn swiglu<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if im.ty(a) != im.ty(b) {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected equal types",
            im.ty(a),
            im.ty(b)
        )));
    }
    let s = swish_of(im, a, ctx.float("alpha", 1.0)?)?;
    one(im.map("mul", &[s, b]))
}
