//! Element-wise operators that are one function of the IR, after numpy broadcasting, and the few with an attribute.

use super::*;
use brolga_ir::{DType, Dim};

/// The IR's name of an ONNX operator.
fn name(op: &str) -> &'static str {
    match op {
        "Abs" => "abs",
        "Acos" => "acos",
        "Acosh" => "acosh",
        "Add" | "Sum" => "add",
        "And" => "and",
        "Asin" => "asin",
        "Asinh" => "asinh",
        "Atan" => "atan",
        "Atanh" => "atanh",
        "BitwiseAnd" => "bitwise_and",
        "BitwiseNot" => "bitwise_not",
        "BitwiseOr" => "bitwise_or",
        "BitwiseXor" => "bitwise_xor",
        "Ceil" => "ceil",
        "Cos" => "cos",
        "Cosh" => "cosh",
        "Div" => "div",
        "Equal" => "equal",
        "Erf" => "erf",
        "Exp" => "exp",
        "Floor" => "floor",
        "Greater" => "greater",
        "GreaterOrEqual" => "greater_or_equal",
        "IsNaN" => "is_nan",
        "Less" => "less",
        "LessOrEqual" => "less_or_equal",
        "Log" => "log",
        "Max" => "max",
        "Min" => "min",
        "Mish" => "mish",
        "Mul" => "mul",
        "Neg" => "neg",
        "Not" => "not",
        "Or" => "or",
        "Reciprocal" => "reciprocal",
        "Round" => "round",
        "Sigmoid" => "sigmoid",
        "Sign" => "sign",
        "Sin" => "sin",
        "Sinh" => "sinh",
        "Softplus" => "softplus",
        "Softsign" => "softsign",
        "Sqrt" => "sqrt",
        "Sub" => "sub",
        "Tan" => "tan",
        "Tanh" => "tanh",
        "Xor" => "xor",
        _ => unreachable!("`{op}` is not in the table with this function"),
    }
}

/// An operator of one operand.
pub fn unary<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    one(im.op(name(ctx.op()), &[], &[ctx.input(0)?]))
}

/// An operator of two operands, which broadcast (before version 7: the second to the first, from `axis` on).
pub fn binary<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (a, b) = operands(im, ctx)?;
    one(im.map(name(ctx.op()), &[a, b]))
}

/// The two operands of a binary operator, the second with trailing extents of 1 where version 6 aligns it at an axis.
fn operands<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Result<(Value, Value), Fail> {
    ctx.arity(2, 2)?;
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let Some(axis) = ctx.opt_int("axis")?.filter(|_| ctx.version < 7) else {
        return Ok((a, b));
    };
    let axis = node::axis(axis, im.rank(a).max(1))?;
    let mut shape = im.shape(b);
    while axis + shape.len() < im.rank(a) {
        shape.push(Dim::ONE);
    }
    Ok((a, im.reshape(b, shape)?))
}

/// `Max`, `Min` and `Sum`: any number of operands.
pub fn variadic<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let vs = ctx.variadic()?;
    one(fold(im, name(ctx.op()), &vs))
}

fn fold(im: &mut Importer<'_>, name: &str, vs: &[Value]) -> One {
    let shape = im.broadcast_shape(vs)?;
    let mut sum = im.spread(vs[0], &shape)?;
    for &v in &vs[1..] {
        sum = im.map(name, &[sum, v])?;
    }
    Ok(sum)
}

/// `Mean` of any number of operands.
pub fn mean<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let vs = ctx.variadic()?;
    let sum = fold(im, "add", &vs)?;
    one(im.map_num("div", sum, vs.len() as f64))
}

/// `Mod`: the sign of the divisor, or with `fmod` that of the dividend.
pub fn modulo<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let name = if ctx.flag("fmod", false)? { "fmod" } else { "mod" };
    one(im.map(name, &[ctx.input(0)?, ctx.input(1)?]))
}

/// `Pow`, whose exponent may be of another dtype than the base and the result.
pub fn pow<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (x, y) = operands(im, ctx)?;
    let (dx, dy) = (im.dtype(x), im.dtype(y));
    if dx == dy {
        return one(im.map("pow", &[x, y]));
    }
    // An integer to a broken power is computed in the exponent's dtype.
    let common = if dx.is_float() || !dy.is_float() { dx } else { dy };
    let (x, y) = (im.cast(x, common)?, im.cast(y, common)?);
    let p = im.map("pow", &[x, y])?;
    one(im.cast(p, dx))
}

/// `Where`.
pub fn select<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(3, 3)?;
    one(im.map("where", &[ctx.input(0)?, ctx.input(1)?, ctx.input(2)?]))
}

/// `BitShift`.
pub fn bit_shift<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(2, 2)?;
    let name = match ctx.string("direction", "")? {
        "LEFT" => "shift_left",
        "RIGHT" => "shift_right",
        d => return Err(Fail::Bad(format!("direction `{d}`, expected LEFT or RIGHT"))),
    };
    one(im.map(name, &[ctx.input(0)?, ctx.input(1)?]))
}

/// `IsInf`, of either sign or of one.
pub fn is_inf<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let (negative, positive) = (ctx.flag("detect_negative", true)?, ctx.flag("detect_positive", true)?);
    one(match (negative, positive) {
        (true, true) => im.op("is_inf", &[], &[x]),
        (false, true) => im.map_num("equal", x, f64::INFINITY),
        (true, false) => im.map_num("equal", x, f64::NEG_INFINITY),
        (false, false) => {
            let shape = im.shape(x);
            im.splat(DType::Bool, &shape, 0.0)
        }
    })
}
