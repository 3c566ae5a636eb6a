//! `LinearClassifier`, `LinearRegressor`.

use super::*;
use brolga_ir::DType;

/// `x [N, F] · coefficients [C, F]ᵀ + intercepts [C]` in f32.
///
/// # Errors
/// When the numbers of coefficients and intercepts do not fit.
pub(super) fn affine(
    graph: &mut Builder<'_>,
    x: Value,
    outputs: usize,
    coefficients: &[f32],
    intercepts: &[f32],
) -> One {
    let x = graph.rows(x)?;
    let x = graph.cast(x, DType::F32)?;
    let features = coefficients.len().checked_div(outputs).unwrap_or(0);
    if features == 0 || features * outputs != coefficients.len() || ![0, 1, outputs].contains(&intercepts.len()) {
        return Err(Fail::Bad(format!(
            "{} coefficients and {} intercepts for {outputs} scores",
            coefficients.len(),
            intercepts.len()
        )));
    }
    let w = graph.floats_constant(&[outputs, features], coefficients);
    let mut y = graph.contract(x, w, [&[], &[]], [&[1], &[1]])?;
    if !intercepts.is_empty() {
        let b = graph.floats_constant(&[intercepts.len()], intercepts);
        y = graph.map("add", &[y, b])?;
    }
    Ok(y)
}

/// `LinearClassifier`. A single score is that of the second of two classes.
pub fn classifier(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let labels = Labels::of(ctx, "classlabels_ints")?.ok_or("no labels of classes")?;
    let coefficients = floats(ctx, "coefficients")?;
    let intercepts = ctx.floats("intercepts")?.unwrap_or_default();
    let post = Post::of(ctx)?;
    let outputs = if intercepts.is_empty() {
        labels.len()
    } else {
        intercepts.len()
    };
    let scores = affine(graph, ctx.input(0)?, outputs, coefficients, intercepts)?;
    if outputs > 1 {
        if labels.len() != outputs {
            return Err(Fail::Bad(format!("{} labels for {outputs} scores", labels.len())));
        }
        let best = graph.best(scores)?;
        return Ok(vec![labels.at(graph, best)?, graph.post(post, scores)?]);
    }
    if labels.len() != 2 {
        return unsupported(format!("one score for {} classes", labels.len()));
    }
    if post == Post::Probit {
        return unsupported("PROBIT of one score for two classes");
    }
    let flat = graph.squeeze(scores, &[1])?;
    let positive = graph.map_num("greater", flat, 0.0)?;
    let label = labels.second_where(graph, positive)?;
    let logistic = post == Post::Logistic;
    Ok(vec![label, graph.both_classes(scores, logistic, logistic)?])
}

/// `LinearRegressor`.
pub fn regressor(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let targets = usize::try_from(ctx.int("targets", 1)?).unwrap_or(0);
    let coefficients = floats(ctx, "coefficients")?;
    let intercepts = ctx.floats("intercepts")?.unwrap_or_default();
    let scores = affine(graph, ctx.input(0)?, targets, coefficients, intercepts)?;
    one(graph.post(Post::of(ctx)?, scores))
}
