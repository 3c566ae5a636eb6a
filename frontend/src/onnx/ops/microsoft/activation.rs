//! Activations, those that are fused behind products too.

use super::super::activation::{exponential, hard, negative, swish_of};
use super::*;

/// `BiasAdd`: the sum with a bias and a skip connection.
pub fn bias_add(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let y = graph.map("add", &[ctx.input(0)?, ctx.input(1)?])?;
    one(graph.map("add", &[y, ctx.input(2)?]))
}

/// `BiasGelu`: the exact function of a sum.
pub fn bias_gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = graph.map("add", &[ctx.input(0)?, ctx.input(1)?])?;
    one(graph.op("gelu", &[], &[x]))
}

/// `FastGelu`: by tanh, of the sum with a bias if there is one.
pub fn fast_gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = match ctx.optional(1) {
        Some(bias) => graph.map("add", &[ctx.input(0)?, bias])?,
        None => ctx.input(0)?,
    };
    one(graph.op("gelu_tanh", &[], &[x]))
}

/// `QuickGelu`: `x sigmoid(alpha x)`.
pub fn quick_gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let alpha = ctx.float("alpha", 1.702)?;
    one(swish_of(graph, ctx.input(0)?, alpha))
}

/// `BiasSplitGelu`: of the sum with a bias, the first half of each row times the exact function of the second.
pub fn bias_split_gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = graph.map("add", &[ctx.input(0)?, ctx.input(1)?])?;
    let shape = graph.shape(x);
    let last = shape.len().saturating_sub(1);
    let Some(half) = shape.last().and_then(|d| d.exact_div(&2.into())) else {
        return Err(Fail::Bad(format!(
            "{}, expected an even number of columns",
            graph.ty(x)
        )));
    };
    let left = graph.slice_axis(x, last, 0.into(), half.clone())?;
    let right = graph.slice_axis(x, last, half.clone(), half)?;
    let right = graph.op("gelu", &[], &[right])?;
    one(graph.map("mul", &[left, right]))
}

/// An activation by ONNX's name of it, with those of its parameters that are given.
///
/// # Errors
/// When there is none of that name.
pub fn activate(graph: &mut Builder<'_>, name: &str, x: Value, given: [Option<f64>; 2]) -> One {
    let [a, b] = given;
    let or = |p: Option<f64>, default: f32| p.unwrap_or(f64::from(default));
    match name {
        "" | "Identity" => Ok(x),
        "Relu" => graph.op("relu", &[], &[x]),
        "Sigmoid" => graph.op("sigmoid", &[], &[x]),
        "Softplus" => graph.op("softplus", &[], &[x]),
        "Softsign" => graph.op("softsign", &[], &[x]),
        "Tanh" => graph.op("tanh", &[], &[x]),
        "Gelu" => graph.op("gelu", &[], &[x]),
        "HardSigmoid" => hard(graph, x, or(a, 0.2), or(b, 0.5)),
        "HardSwish" => {
            let y = hard(graph, x, 1.0 / 6.0, 0.5)?;
            graph.map("mul", &[x, y])
        }
        "LeakyRelu" => {
            let y = graph.map_num("mul", x, or(a, 0.01))?;
            negative(graph, x, y)
        }
        "Elu" => {
            let y = exponential(graph, x, 1.0, or(a, 1.0))?;
            negative(graph, x, y)
        }
        "Clip" => {
            let y = match a {
                Some(least) => graph.map_num("max", x, least)?,
                None => x,
            };
            match b {
                Some(most) => graph.map_num("min", y, most),
                None => Ok(y),
            }
        }
        _ => unsupported(format!("the activation `{name}`")),
    }
}
