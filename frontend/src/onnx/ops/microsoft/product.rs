//! Products and convolutions with what is fused into them: transposes, sums, activations; images with their channels last.

use super::super::conv::add_bias;
use super::super::{matmul, pool};
use super::activation::activate;
use super::*;

/// `FusedMatMul` (`TransposeMatMul`): `alpha A' B'`, each side transposed in its last two dimensions, or with its first dimension behind
/// those of the batch; `FusedMatMulActivation`: with an activation.
pub fn fused_matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let mut sides = [ctx.input(0)?, ctx.input(1)?];
    let dtype = graph.dtype(sides[0]);
    let flags = [("transA", "transBatchA"), ("transB", "transBatchB")];
    for (v, (columns, batch)) in sides.iter_mut().zip(flags) {
        let rank = graph.rank(*v);
        let mut order: Vec<usize> = (0..rank).collect();
        if ctx.flag(batch, false)? && rank > 2 {
            order[..rank - 1].rotate_left(1);
        }
        if ctx.flag(columns, false)? && rank > 1 {
            order.swap(rank - 2, rank - 1);
        }
        *v = graph.transpose(*v, &order)?;
    }
    let mut y = graph.matmul_to(dtype.compute(), sides[0], sides[1])?;
    let alpha = ctx.float("alpha", 1.0)?;
    if alpha != 1.0 {
        y = graph.map_num("mul", y, alpha)?;
    }
    let name = ctx.string("activation", "")?;
    let given = [ctx.opt_float("activation_alpha")?, ctx.opt_float("activation_beta")?];
    y = activate(graph, name, y, given)?;
    one(graph.cast(y, dtype))
}

/// `FusedGemm`: a Gemm and an activation.
pub fn fused_gemm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let y = matmul::gemm(graph, ctx)?[0];
    let given = [ctx.opt_float("activation_alpha")?, ctx.opt_float("activation_beta")?];
    one(activate(graph, ctx.string("activation", "")?, y, given))
}

/// `GemmFastGelu`: the approximation of Gelu by tanh, of a product and a bias.
pub fn gemm_fast_gelu(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let mut y = graph.matmul(ctx.input(0)?, ctx.input(1)?)?;
    if let Some(bias) = ctx.optional(2) {
        y = graph.map("add", &[y, bias])?;
    }
    one(graph.op("gelu_tanh", &[], &[y]))
}

/// `FusedConv`: a convolution, a bias, a sum and an activation, rounded once.
pub fn fused_conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    let y = graph.conv_nodes(ctx, x, w, None)?;
    let mut y = add_bias(graph, y, ctx.optional(2))?;
    if let Some(z) = ctx.optional(3) {
        let z = graph.cast(z, graph.dtype(y))?;
        let z = graph.fit_shape(z, &graph.shape(y))?;
        y = graph.map("add", &[y, z])?;
    }
    let numbers = ctx.floats("activation_params")?.unwrap_or(&[]);
    let given = [0, 1].map(|i| numbers.get(i).map(|&p| f64::from(p)));
    y = activate(graph, ctx.string("activation", "")?, y, given)?;
    one(graph.cast(y, graph.dtype(x)))
}

/// `NhwcConv` and `NhwcFusedConv`: images with their channels last, weights as those of `Conv`.
pub fn nhwc_conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    channels_last(graph, ctx, &[0, 3], fused_conv)
}

/// `NhwcMaxPool`.
pub fn nhwc_max_pool(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    channels_last(graph, ctx, &[0], pool::max)
}

/// A node's only result by an operator for images whose channels are axis 1, where those of these operands are the last one.
///
/// # Errors
/// Those of the operator.
pub fn channels_last(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    images: &[usize],
    operator: impl Fn(&mut Builder<'_>, &NodeCtx<'_>) -> Outcome,
) -> Outcome {
    let mut inputs = ctx.inputs.clone();
    for &i in images {
        let Some(Some(v)) = inputs.get_mut(i) else { continue };
        let rank = graph.rank(*v);
        if rank < 3 {
            return Err(Fail::Bad(format!("{}, expected rank 3 or more", graph.ty(*v))));
        }
        let mut order: Vec<usize> = (0..rank).collect();
        order[1..].rotate_right(1);
        *v = graph.transpose(*v, &order)?;
    }
    let y = operator(graph, &ctx.with(inputs))?[0];
    let mut order: Vec<usize> = (0..graph.rank(y)).collect();
    order[1..].rotate_left(1);
    one(graph.transpose(y, &order))
}
