//! `TreeEnsembleRegressor`, `TreeEnsembleClassifier` and, since version 5 of the operator set, `TreeEnsemble`.
//!
//! Scores of two classes are what ONNX Runtime makes of them. Where only the first class has weights, the sum is the second's score and
//! the first's follows from it; the label is the second's where the sum is above 0, or above 1/2 when no weight is negative.

mod forest;
mod parse;
mod table;

use super::*;
use brolga_ir::{DType, Number, Tensor};
use forest::Forest;
use parse::Named;
use table::{Aggregate, aggregate};

/// Examples `[N, F]` as f64 where they or the trees are, else as f32.
fn examples(graph: &mut Builder<'_>, x: Value, double: bool) -> One {
    let x = graph.rows(x)?;
    let wide = double || graph.dtype(x) == DType::F64;
    graph.cast(x, if wide { DType::F64 } else { DType::F32 })
}

/// Scores with base values `[C]` added.
fn with_base(graph: &mut Builder<'_>, scores: Value, base: &[f64]) -> One {
    if base.is_empty() {
        return Ok(scores);
    }
    let base = Tensor::from_fn(graph.dtype(scores), &[base.len()], |i| Number::Float(base[i]));
    let base = graph.dense(base);
    graph.map("add", &[scores, base])
}

/// `TreeEnsembleRegressor`.
pub fn regressor(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let how = match ctx.string("aggregate_function", "SUM")? {
        "AVERAGE" => Aggregate::Average,
        "SUM" => Aggregate::Sum,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        w => {
            return Err(Fail::Bad(format!(
                "aggregate_function `{w}`, expected AVERAGE, SUM, MIN or MAX"
            )));
        }
    };
    let post = Post::of(ctx)?;
    let trees = Named::of(graph, ctx, "target")?;
    let targets = match ctx.opt_int("n_targets")? {
        Some(n) => usize::try_from(n).unwrap_or(0),
        None => trees.targets(),
    };
    if targets == 0 || !(trees.base.is_empty() || trees.base.len() == targets) {
        return Err(Fail::Bad(format!(
            "{} base values for {targets} targets",
            trees.base.len()
        )));
    }
    let x = examples(graph, ctx.input(0)?, trees.double)?;
    let scores = aggregate(graph, x, &trees.forest, targets, how)?;
    let scores = with_base(graph, scores, &trees.base)?;
    let scores = graph.post(post, scores)?;
    one(graph.cast(scores, DType::F32))
}

/// `TreeEnsemble`.
pub fn ensemble(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let how = match ctx.int("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        n => return Err(Fail::Bad(format!("aggregate_function {n}, expected 0 to 3"))),
    };
    let post = match ctx.int("post_transform", 0)? {
        0 => Post::None,
        1 => Post::Softmax,
        2 => Post::Logistic,
        3 => Post::SoftmaxZero,
        4 => Post::Probit,
        n => return Err(Fail::Bad(format!("post_transform {n}, expected 0 to 4"))),
    };
    let forest: Forest = parse::indexed(graph, ctx)?;
    let most = forest.leaves.iter().flatten().map(|w| w.0 + 1).max().unwrap_or(0);
    let targets = match ctx.opt_int("n_targets")? {
        Some(n) => usize::try_from(n).unwrap_or(0),
        None => most,
    };
    let given = ctx.input(0)?;
    let x = examples(graph, given, false)?;
    let scores = aggregate(graph, x, &forest, targets, how)?;
    let scores = graph.post(post, scores)?;
    one(graph.cast(scores, graph.dtype(given)))
}

/// `TreeEnsembleClassifier`.
pub fn classifier(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let labels = Labels::of(ctx, "classlabels_int64s")?.ok_or("no labels of classes")?;
    let post = Post::of(ctx)?;
    let trees = Named::of(graph, ctx, "class")?;
    let x = examples(graph, ctx.input(0)?, trees.double)?;
    let classes = labels.len();
    if classes < 2 {
        return unsupported("a classifier of one class");
    }
    let (best, scores) = match classes {
        2 => of_two(graph, post, trees, x)?,
        _ => of_many(graph, post, &trees, x, classes)?,
    };
    let label = labels.at(graph, best)?;
    Ok(vec![label, graph.cast(scores, DType::F32)?])
}

/// The class `[N]` and the scores `[N, C]` of more than two classes.
fn of_many(
    graph: &mut Builder<'_>,
    post: Post,
    trees: &Named,
    x: Value,
    classes: usize,
) -> Result<(Value, Value), Fail> {
    let scores = aggregate(graph, x, &trees.forest, classes, Aggregate::Sum)?;
    if trees.base.len() > classes {
        return Err(Fail::Bad(format!(
            "{} base values for {classes} classes",
            trees.base.len()
        )));
    }
    let base: Vec<f64> = match trees.base.is_empty() {
        true => vec![],
        false => (0..classes)
            .map(|c| trees.base.get(c).copied().unwrap_or(0.0))
            .collect(),
    };
    let scores = with_base(graph, scores, &base)?;
    // A class without weights has no score.
    let weighed = |c: usize| c < trees.base.len() || trees.weighs(c);
    let mut candidates = scores;
    if !(0..classes).all(weighed) {
        let out = |c: usize| Number::Float(if weighed(c) { 0.0 } else { f64::NEG_INFINITY });
        let out = graph.dense(Tensor::from_fn(graph.dtype(scores), &[classes], out));
        candidates = graph.map("add", &[scores, out])?;
    }
    Ok((graph.best(candidates)?, graph.post(post, scores)?))
}

/// The class `[N]` and the scores `[N, 2]` of two classes.
fn of_two(graph: &mut Builder<'_>, post: Post, trees: Named, x: Value) -> Result<(Value, Value), Fail> {
    let all_positive = trees.all_positive();
    let [first, second] = [0, 1].map(|c| trees.weighs(c));
    if trees.base.len() > 1 {
        return unsupported("base values of two classes");
    }
    let base = trees.base.first().copied().unwrap_or(0.0);
    let mut forest = trees.forest;
    let (decisive, limit, scores) = match (first, second) {
        (true, true) => {
            let scores = aggregate(graph, x, &forest, 2, Aggregate::Sum)?;
            let scores = with_base(graph, scores, &[base, 0.0])?;
            let positive = graph.slice_axis(scores, 1, Dim::ONE, Dim::ONE)?;
            (positive, 0.0, graph.post(post, scores)?)
        }
        (false, true) => {
            // A class without weights has the score 0, whatever its base value.
            forest.leaves.iter_mut().flatten().for_each(|w| w.0 -= 1);
            let score = aggregate(graph, x, &forest, 1, Aggregate::Sum)?;
            let shape = graph.shape(score);
            let zero = graph.splat(graph.dtype(score), &shape, 0.0)?;
            let scores = graph.concat(1, &[zero, score])?;
            (score, if all_positive { 0.5 } else { 0.0 }, graph.post(post, scores)?)
        }
        _ if post == Post::Probit => return unsupported("PROBIT of one score for two classes"),
        _ => {
            let score = aggregate(graph, x, &forest, 1, Aggregate::Sum)?;
            let score = with_base(graph, score, &[base])?;
            let logistic = post == Post::Logistic;
            let scores = graph.both_classes(score, logistic || !all_positive, logistic)?;
            (score, if all_positive { 0.5 } else { 0.0 }, scores)
        }
    };
    let above = graph.map_num("greater", decisive, limit)?;
    let above = graph.squeeze(above, &[1])?;
    Ok((graph.cast(above, DType::I64)?, scores))
}
