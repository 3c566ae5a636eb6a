//! The domain `ai.onnx.preview.training`: one step of an optimiser for any number of tensors. `Gradient` is not here: a graph
//! of derivatives is for who trains.

use super::*;
use brolga_ir::DType;

/// The domain's operators, sorted.
pub static TABLE: &[(&str, Handler)] = &[
    ("Adagrad", Node(adagrad)),
    ("Adam", Node(adam)),
    ("Momentum", Node(momentum)),
];

/// The rate, the number of updates, and what is known of each tensor: `kinds` values, among them itself and its gradient.
struct Step {
    rate: Value,
    count: Value,
    tensors: Vec<Vec<Value>>,
}

fn operands(ctx: &NodeCtx<'_>, kinds: usize) -> Result<Step, Fail> {
    let all = ctx.variadic()?;
    let n = all.len().saturating_sub(2) / kinds;
    if n == 0 || all.len() != 2 + n * kinds {
        return Err(Fail::Bad(format!(
            "{} operands, expected 2 and a multiple of {kinds}",
            all.len()
        )));
    }
    let of = |i: usize| (0..kinds).map(|k| all[2 + k * n + i]).collect();
    Ok(Step {
        rate: all[0],
        count: all[1],
        tensors: (0..n).map(of).collect(),
    })
}

/// Results of each tensor, all of the first kind before those of the second.
fn by_kind(results: Vec<Vec<Value>>) -> Outcome {
    let kinds = results[0].len();
    Ok((0..kinds).flat_map(|k| results.iter().map(move |r| r[k])).collect())
}

/// A number as a scalar of a dtype.
fn scalar(graph: &mut Builder<'_>, v: Value, dtype: DType) -> One {
    let v = graph.reshape(v, vec![])?;
    graph.cast(v, dtype)
}

/// `g + norm · x`.
fn regularised(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, g: Value) -> One {
    let pull = graph.map_num("mul", x, ctx.float("norm_coefficient", 0.0)?)?;
    graph.map("add", &[pull, g])
}

/// `old · kept + new · (1 - kept)`.
fn average(graph: &mut Builder<'_>, old: Value, new: Value, kept: f64) -> One {
    let old = graph.map_num("mul", old, kept)?;
    let new = graph.map_num("mul", new, 1.0 - kept)?;
    graph.map("add", &[old, new])
}

/// `Adagrad`. Source: Duchi et al., "Adaptive subgradient methods", 2011.
fn adagrad(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let step = operands(ctx, 3)?;
    let (decay, eps) = (ctx.float("decay_factor", 0.0)?, ctx.float("epsilon", 1e-6)?);
    let mut results = vec![];
    for t in &step.tensors {
        let (x, squares) = (t[0], t[2]);
        let dtype = graph.dtype(x);
        let count = scalar(graph, step.count, dtype)?;
        let slower = graph.map_num("mul", count, decay)?;
        let slower = graph.map_num("add", slower, 1.0)?;
        let rate = scalar(graph, step.rate, dtype)?;
        let rate = graph.map("div", &[rate, slower])?;
        let g = regularised(graph, ctx, x, t[1])?;
        let square = graph.map("mul", &[g, g])?;
        let squares = graph.map("add", &[squares, square])?;
        let root = graph.op("sqrt", &[], &[squares])?;
        let root = graph.map_num("add", root, eps)?;
        let moved = graph.map("mul", &[rate, g])?;
        let moved = graph.map("div", &[moved, root])?;
        results.push(vec![graph.map("sub", &[x, moved])?, squares]);
    }
    by_kind(results)
}

/// `Adam`. Source: Kingma and Ba, "Adam: a method for stochastic optimization", 2014.
fn adam(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let step = operands(ctx, 4)?;
    let (alpha, beta) = (ctx.float("alpha", 0.9)?, ctx.float("beta", 0.999)?);
    let (eps, post) = (ctx.float("epsilon", 1e-6)?, ctx.float("norm_coefficient_post", 0.0)?);
    // The rate that makes up for averages which began at 0: rate · √(1 - beta^t) / (1 - alpha^t).
    let count = scalar(graph, step.count, DType::F64)?;
    let rate = scalar(graph, step.rate, DType::F64)?;
    let missing = |graph: &mut Builder<'_>, base: f64| {
        let base = graph.scalar(DType::F64, base);
        let power = graph.map("pow", &[base, count])?;
        let one = graph.scalar(DType::F64, 1.0);
        graph.map("sub", &[one, power])
    };
    let (a, b) = (missing(graph, alpha)?, missing(graph, beta)?);
    let root = graph.op("sqrt", &[], &[b])?;
    let corrected = graph.map("mul", &[rate, root])?;
    let corrected = graph.map("div", &[corrected, a])?;
    let later = graph.map_num("greater", count, 0.0)?;
    let rate = graph.map("where", &[later, corrected, rate])?;
    let mut results = vec![];
    for t in &step.tensors {
        let x = t[0];
        let rate = graph.cast(rate, graph.dtype(x))?;
        let g = regularised(graph, ctx, x, t[1])?;
        let mean = average(graph, t[2], g, alpha)?;
        let square = graph.map("mul", &[g, g])?;
        let squares = average(graph, t[3], square, beta)?;
        let root = graph.op("sqrt", &[], &[squares])?;
        let root = graph.map_num("add", root, eps)?;
        let moved = graph.map("div", &[mean, root])?;
        let moved = graph.map("mul", &[rate, moved])?;
        let x = graph.map("sub", &[x, moved])?;
        results.push(vec![graph.map_num("mul", x, 1.0 - post)?, mean, squares]);
    }
    by_kind(results)
}

/// `Momentum`, standard or Nesterov's.
fn momentum(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let step = operands(ctx, 3)?;
    let required = |name: &str| {
        let v = ctx.opt_float(name)?;
        v.ok_or_else(|| Fail::Bad(format!("attribute `{name}` is missing")))
    };
    let (alpha, beta) = (required("alpha")?, required("beta")?);
    let nesterov = match ctx.string("mode", "standard")? {
        "standard" => false,
        "nesterov" => true,
        m => return Err(Fail::Bad(format!("mode `{m}`, expected standard or nesterov"))),
    };
    let mut results = vec![];
    for t in &step.tensors {
        let x = t[0];
        let dtype = graph.dtype(x);
        let rate = scalar(graph, step.rate, dtype)?;
        let count = scalar(graph, step.count, DType::I64)?;
        let later = graph.map_num("greater", count, 0)?;
        let (beta, one) = (graph.scalar(dtype, beta), graph.scalar(dtype, 1.0));
        let share = graph.map("where", &[later, beta, one])?;
        let g = regularised(graph, ctx, x, t[1])?;
        let kept = graph.map_num("mul", t[2], alpha)?;
        let new = graph.map("mul", &[share, g])?;
        let v = graph.map("add", &[kept, new])?;
        let mut direction = v;
        if nesterov {
            let ahead = graph.map_num("mul", v, alpha)?;
            direction = graph.map("add", &[g, ahead])?;
        }
        let moved = graph.map("mul", &[rate, direction])?;
        results.push(vec![graph.map("sub", &[x, moved])?, v]);
    }
    by_kind(results)
}
