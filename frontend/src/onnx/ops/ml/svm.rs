//! `SVMClassifier`, `SVMRegressor`: products with support vectors, or with coefficients where there are none.

use super::linear::affine;
use super::*;
use brolga_ir::{Attr, DType};

/// What is computed of an example and a support vector.
enum Kernel {
    Linear,
    /// `(gamma x·v + coef0)^degree`
    Poly,
    /// `exp(-gamma |x - v|²)`
    Rbf,
    /// `tanh(gamma x·v + coef0)`
    Sigmoid,
}

/// The values `[N, V]` of the node's kernel at examples and support vectors.
fn kernels(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, vectors: &[f32], count: usize) -> One {
    let kind = match ctx.string("kernel_type", "LINEAR")? {
        "LINEAR" => Kernel::Linear,
        "POLY" => Kernel::Poly,
        "RBF" => Kernel::Rbf,
        "SIGMOID" => Kernel::Sigmoid,
        w => {
            return Err(Fail::Bad(format!(
                "kernel_type `{w}`, expected LINEAR, POLY, RBF or SIGMOID"
            )));
        }
    };
    let params = ctx.floats("kernel_params")?.unwrap_or_default();
    let [gamma, coef0, degree] = [0, 1, 2].map(|i| params.get(i).map_or(0.0, |&p| f64::from(p)));
    let features = vectors.len().checked_div(count).unwrap_or(0);
    if features * count != vectors.len() || features == 0 {
        return Err(Fail::Bad(format!(
            "{} numbers for {count} support vectors",
            vectors.len()
        )));
    }
    let x = graph.rows(x)?;
    let x = graph.cast(x, DType::F32)?;
    let v = graph.floats_constant(&[count, features], vectors);
    if let Kernel::Rbf = kind {
        let x = graph.unsqueeze(x, &[1])?;
        let difference = graph.map("sub", &[x, v])?;
        let square = graph.map("mul", &[difference, difference])?;
        let distance = graph.reduce("sum", &[2], square)?;
        let distance = graph.squeeze(distance, &[2])?;
        let scaled = graph.map_num("mul", distance, -gamma)?;
        return graph.op("exp", &[], &[scaled]);
    }
    let product = graph.contract(x, v, [&[], &[]], [&[1], &[1]])?;
    if let Kernel::Linear = kind {
        return Ok(product);
    }
    let scaled = graph.map_num("mul", product, gamma)?;
    let moved = graph.map_num("add", scaled, coef0)?;
    match kind {
        Kernel::Poly => graph.map_num("pow", moved, degree),
        _ => graph.op("tanh", &[], &[moved]),
    }
}

/// `SVMRegressor`: `kernels · coefficients + rho`, for one class its sign.
pub fn regressor(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let coefficients = floats(ctx, "coefficients")?;
    let rho = floats(ctx, "rho")?;
    let count = usize::try_from(ctx.int("n_supports", 0)?).unwrap_or(0);
    let y = if count == 0 {
        affine(graph, x, 1, coefficients, &rho[..1])?
    } else {
        let k = kernels(graph, ctx, x, floats(ctx, "support_vectors")?, count)?;
        affine(graph, k, 1, coefficients, &rho[..1])?
    };
    if !ctx.flag("one_class", false)? {
        return one(graph.post(Post::of(ctx)?, y));
    }
    let inside = graph.map_num("greater", y, 0.0)?;
    let (yes, no) = (graph.scalar(DType::F32, 1.0), graph.scalar(DType::F32, -1.0));
    one(graph.map("where", &[inside, yes, no]))
}

/// `SVMClassifier`. With support vectors every two classes are told apart, and the class that wins most often is the result.
pub fn classifier(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let labels = Labels::of(ctx, "classlabels_ints")?.ok_or("no labels of classes")?;
    let per_class = ctx.ints("vectors_per_class")?.unwrap_or_default();
    let per_class: Vec<usize> = per_class.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
    match total(&per_class) {
        0 => linear(graph, ctx, &labels),
        _ => pairs(graph, ctx, &labels, &per_class),
    }
}

/// The number of support vectors.
fn total(per_class: &[usize]) -> usize {
    per_class.iter().fold(0, |sum, &n| sum.saturating_add(n))
}

/// Without support vectors: a score for each class.
fn linear(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, labels: &Labels<'_>) -> Outcome {
    let coefficients = floats(ctx, "coefficients")?;
    let rho = floats(ctx, "rho")?;
    let scores = affine(graph, ctx.input(0)?, labels.len(), coefficients, &rho[..1])?;
    let mut best = graph.best(scores)?;
    if labels.len() == 2 {
        // Of two classes the second is taken, too, where any score is on its side.
        let most = graph.reduce("max", &[1], scores)?;
        let most = graph.squeeze(most, &[1])?;
        let above = match coefficients.iter().all(|&c| c >= 0.0) {
            true => graph.map_num("greater_or_equal", most, 0.5)?,
            false => graph.map_num("greater", most, 0.0)?,
        };
        let second = graph.scalar(DType::I64, 1);
        best = graph.map("where", &[above, second, best])?;
    }
    let label = labels.at(graph, best)?;
    Ok(vec![label, graph.post(Post::of(ctx)?, scores)?])
}

/// With support vectors: a score for every two classes.
fn pairs(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, labels: &Labels<'_>, per_class: &[usize]) -> Outcome {
    let classes = labels.len();
    let vectors = total(per_class);
    let coefficients = floats(ctx, "coefficients")?;
    let rho = floats(ctx, "rho")?;
    let post = Post::of(ctx)?;
    if classes < 2 || per_class.len() != classes {
        return Err(Fail::Bad(format!(
            "support vectors of {} classes for {classes}",
            per_class.len()
        )));
    }
    if coefficients.len() != (classes - 1).saturating_mul(vectors) || rho.len() != classes * (classes - 1) / 2 {
        return Err(Fail::Bad(format!(
            "{} coefficients and {} rho for {classes} classes with {vectors} support vectors",
            coefficients.len(),
            rho.len()
        )));
    }
    let list: Vec<(usize, usize)> = (0..classes)
        .flat_map(|i| (i + 1..classes).map(move |j| (i, j)))
        .collect();
    let k = kernels(graph, ctx, ctx.input(0)?, floats(ctx, "support_vectors")?, vectors)?;
    // The vectors of class i against j, and of j against i, take part in the score of the pair.
    let start: Vec<usize> = (0..classes).map(|c| per_class[..c].iter().sum()).collect();
    let mut w = vec![0f32; list.len() * vectors];
    for (p, &(i, j)) in list.iter().enumerate() {
        for (of, row) in [(i, j - 1), (j, i)] {
            for v in start[of]..start[of] + per_class[of] {
                w[p * vectors + v] = coefficients[row * vectors + v];
            }
        }
    }
    let scores = affine(graph, k, list.len(), &w, rho)?;
    let votes = votes(graph, scores, &list, classes)?;
    let best = graph.best(votes)?;
    let label = labels.at(graph, best)?;
    if let Some(a) = ctx.floats("prob_a")?.filter(|a| !a.is_empty()) {
        let b = floats(ctx, "prob_b")?;
        if a.len() != list.len() || b.len() != list.len() {
            return Err(Fail::Bad(format!(
                "{} prob_a and {} prob_b for {} scores",
                a.len(),
                b.len(),
                list.len()
            )));
        }
        let p = super::coupling::probabilities(graph, scores, [a, b], &list, classes)?;
        return Ok(vec![label, graph.post(post, p)?]);
    }
    let scores = match (classes, post) {
        (2, Post::None) => graph.both_classes(scores, true, false)?,
        (2, Post::Probit) => return unsupported("PROBIT of one score for two classes"),
        (2, Post::Logistic) => graph.both_classes(scores, true, true)?,
        (2, _) => graph.both_classes(scores, false, false)?,
        _ => graph.post(post, scores)?,
    };
    Ok(vec![label, scores])
}

/// How many pairs `[N, C]` each class wins: the first of a pair where the score is above 0.
fn votes(graph: &mut Builder<'_>, scores: Value, list: &[(usize, usize)], classes: usize) -> One {
    let mut first = vec![0f32; classes * list.len()];
    let mut second = vec![0f32; classes];
    for (p, &(i, j)) in list.iter().enumerate() {
        first[i * list.len() + p] += 1.0;
        first[j * list.len() + p] -= 1.0;
        second[j] += 1.0;
    }
    let above = graph.map_num("greater", scores, 0.0)?;
    let above = graph.op("cast", &[Attr::DType(DType::F32)], &[above])?;
    affine(graph, above, classes, &first, &second)
}
