//! Element-wise operators that are one function of the IR, after numpy broadcasting, and the few with an attribute.

use super::*;
use brolga_ir::{DType, Dim};

/// An operator of one operand.
pub fn unary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, name: &str) -> Outcome {
    ctx.arity(1, 1)?;
    one(graph.op(name, &[], &[ctx.input(0)?]))
}

/// An operator of two operands, which broadcast (before version 7: the second to the first, from `axis` on).
pub fn binary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, name: &str) -> Outcome {
    let (a, b) = operands(graph, ctx)?;
    one(graph.map(name, &[a, b]))
}

/// The two operands of a binary operator, the second with trailing extents of 1 where version 6 aligns it at an axis.
fn operands(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<(Value, Value), Fail> {
    ctx.arity(2, 2)?;
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let Some(axis) = ctx.opt_int("axis")?.filter(|_| ctx.version < 7) else {
        return Ok((a, b));
    };
    let axis = node::axis(axis, graph.rank(a).max(1))?;
    let mut shape = graph.shape(b);
    while axis + shape.len() < graph.rank(a) {
        shape.push(Dim::ONE);
    }
    Ok((a, graph.reshape(b, shape)?))
}

/// `Max`, `Min` and `Sum`: any number of operands.
pub fn variadic(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, name: &str) -> Outcome {
    let vs = ctx.variadic()?;
    one(fold(graph, name, &vs))
}

fn fold(graph: &mut Builder<'_>, name: &str, vs: &[Value]) -> One {
    let shape = graph.broadcast_shape(vs)?;
    let mut sum = graph.spread(vs[0], &shape)?;
    for &v in &vs[1..] {
        sum = graph.map(name, &[sum, v])?;
    }
    Ok(sum)
}

/// `Mean` of any number of operands.
pub fn mean(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let vs = ctx.variadic()?;
    let sum = fold(graph, "add", &vs)?;
    one(graph.map_num("div", sum, vs.len() as f64))
}

/// `Mod`: the sign of the divisor, or with `fmod` that of the dividend.
pub fn modulo(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let name = if ctx.flag("fmod", false)? { "fmod" } else { "mod" };
    one(graph.map(name, &[ctx.input(0)?, ctx.input(1)?]))
}

/// `Pow`, whose exponent may be of another dtype than the base and the result.
pub fn pow(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (x, y) = operands(graph, ctx)?;
    let (dx, dy) = (graph.dtype(x), graph.dtype(y));
    if dx == dy {
        return one(graph.map("pow", &[x, y]));
    }
    // An integer to a broken power is computed in the exponent's dtype.
    let common = if dx.is_float() || !dy.is_float() { dx } else { dy };
    let (x, y) = (graph.cast(x, common)?, graph.cast(y, common)?);
    let p = graph.map("pow", &[x, y])?;
    one(graph.cast(p, dx))
}

/// `Where`.
pub fn select(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    one(graph.map("where", &[ctx.input(0)?, ctx.input(1)?, ctx.input(2)?]))
}

/// `BitShift`.
pub fn bit_shift(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let name = match ctx.string("direction", "")? {
        "LEFT" => "shift_left",
        "RIGHT" => "shift_right",
        d => return Err(Fail::Bad(format!("direction `{d}`, expected LEFT or RIGHT"))),
    };
    one(graph.map(name, &[ctx.input(0)?, ctx.input(1)?]))
}

/// `IsInf`, of either sign or of one.
pub fn is_inf(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (negative, positive) = (ctx.flag("detect_negative", true)?, ctx.flag("detect_positive", true)?);
    one(match (negative, positive) {
        (true, true) => graph.op("is_inf", &[], &[x]),
        (false, true) => graph.map_num("equal", x, f64::INFINITY),
        (true, false) => graph.map_num("equal", x, f64::NEG_INFINITY),
        (false, false) => {
            let shape = graph.shape(x);
            graph.splat(DType::Bool, &shape, 0.0)
        }
    })
}
