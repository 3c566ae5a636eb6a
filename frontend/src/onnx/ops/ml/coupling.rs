//! Probabilities of classes from those of every two, by the second method of Wu, Lin and Weng, "Probability estimates for multi-class
//! classification by pairwise coupling", JMLR 5, 2004: `p` minimises `pᵀ Q p`, which is approached one class after the other until no
//! component of `Q p` is further from `pᵀ Q p` than a small number, as LIBSVM and ONNX Runtime do it. An example that is there is left
//! alone while others go on.

use super::*;
use brolga_ir::{DType, Tensor};

/// Up to so many classes: each is a few operations of a round.
const MOST: usize = 64;
/// Rounds at most.
const ROUNDS: i64 = 100;
/// Probabilities of pairs are kept so far from 0 and 1.
const LEAST: f32 = 1e-7;
/// What is near enough, for one class.
const NEAR: f64 = 0.005;

/// Probabilities `[N, C]` from the scores `[N, P]` of pairs, whose first class has the probability `1 - σ(a s + b)`.
///
/// # Errors
/// When there are too many classes.
pub fn probabilities(
    graph: &mut Builder<'_>,
    scores: Value,
    [a, b]: [&[f32]; 2],
    pairs: &[(usize, usize)],
    classes: usize,
) -> One {
    if classes > MOST {
        return unsupported(format!("probabilities of {classes} classes, {MOST} at most"));
    }
    let (a, b) = (
        graph.floats_constant(&[a.len()], a),
        graph.floats_constant(&[b.len()], b),
    );
    let scaled = graph.map("mul", &[scores, a])?;
    let moved = graph.map("add", &[scaled, b])?;
    let other = graph.op("sigmoid", &[], &[moved])?;
    let one = graph.scalar(DType::F32, 1.0);
    let first = graph.map("sub", &[one, other])?;
    let first = graph.map_num("max", first, f64::from(LEAST))?;
    let first = graph.map_num("min", first, f64::from(1.0 - LEAST))?;
    let second = graph.map("sub", &[one, first])?;
    let q = quadratic(graph, [first, second], pairs, classes)?;

    let rows = graph.shape(scores)[0].clone();
    let shape = vec![rows, Dim::from(classes)];
    let p = graph.splat(DType::F32, &shape, f64::from(1.0 / classes as f32))?;
    let step = graph.scalar(DType::I64, 0);
    let unfinished = |g: &mut Builder<'_>, v: &[Value]| {
        let (_, _, open) = errors(g, v[1], v[2], classes)?;
        let open = g.cast(open, DType::I32)?;
        let open = g.reduce("max", &[0], open)?;
        let open = g.reshape(open, vec![])?;
        let open = g.map_num("greater", open, 0)?;
        let left = g.map_num("less", v[0], ROUNDS)?;
        g.map("and", &[open, left])
    };
    let out = graph.repeat_while(&[step, p], &[q], unfinished, |g, v| {
        let next = g.map_num("add", v[0], 1)?;
        Ok(vec![next, round(g, v[1], v[2], classes)?])
    })?;
    Ok(out[1])
}

/// `Q [N, C, C]`: `Q_ii = Σ r_ji²`, `Q_ij = - r_ji r_ij`, where `r_ij` is the probability of `i` among `i` and `j`.
fn quadratic(graph: &mut Builder<'_>, [first, second]: [Value; 2], pairs: &[(usize, usize)], classes: usize) -> One {
    let (n, pairs_n) = (classes * classes, pairs.len());
    // Which elements the squares and products of each pair take part in.
    let place = |i: usize, j: usize, p: usize| (i * classes + j) * pairs_n + p;
    let [mut of_first, mut of_second, mut of_both] = [0; 3].map(|_| vec![0f32; n * pairs_n]);
    for (p, &(i, j)) in pairs.iter().enumerate() {
        of_second[place(i, i, p)] = 1.0;
        of_first[place(j, j, p)] = 1.0;
        of_both[place(i, j, p)] = -1.0;
        of_both[place(j, i, p)] = -1.0;
    }
    let mut sum = None;
    for (x, y, matrix) in [
        (first, first, of_first),
        (second, second, of_second),
        (first, second, of_both),
    ] {
        let product = graph.map("mul", &[x, y])?;
        let part = super::linear::affine(graph, product, n, &matrix, &[])?;
        sum = Some(match sum {
            None => part,
            Some(s) => graph.map("add", &[s, part])?,
        });
    }
    let q = sum.expect("there are three terms");
    let c = Dim::from(classes);
    let rows = graph.shape(q)[0].clone();
    graph.reshape(q, vec![rows, c.clone(), c])
}

/// `Q p [N, C]`, `pᵀ Q p [N, 1]`, and where they are still far apart `[N, 1]`.
fn errors(graph: &mut Builder<'_>, p: Value, q: Value, classes: usize) -> Result<(Value, Value, Value), Fail> {
    let row = graph.unsqueeze(p, &[1])?;
    let terms = graph.map("mul", &[q, row])?;
    let qp = graph.reduce("sum", &[2], terms)?;
    let qp = graph.squeeze(qp, &[2])?;
    let terms = graph.map("mul", &[p, qp])?;
    let pqp = graph.reduce("sum", &[1], terms)?;
    let error = graph.map("sub", &[qp, pqp])?;
    let error = graph.map("abs", &[error])?;
    let most = graph.reduce("max", &[1], error)?;
    let near = f64::from((NEAR as f32) / classes as f32);
    let open = graph.map_num("greater_or_equal", most, near)?;
    Ok((qp, pqp, open))
}

/// The probabilities after a round over the classes.
fn round(graph: &mut Builder<'_>, before: Value, q: Value, classes: usize) -> One {
    let (mut qp, mut pqp, open) = errors(graph, before, q, classes)?;
    let mut p = before;
    for i in 0..classes {
        let row = graph.slice_axis(q, 1, Dim::from(i), Dim::ONE)?;
        let row = graph.squeeze(row, &[1])?;
        let own = graph.slice_axis(row, 1, Dim::from(i), Dim::ONE)?;
        let qp_i = graph.slice_axis(qp, 1, Dim::from(i), Dim::ONE)?;
        let gap = graph.map("sub", &[pqp, qp_i])?;
        let diff = graph.map("div", &[gap, own])?;
        let scale = graph.map_num("add", diff, 1.0)?;
        // pᵀ Q p becomes (pᵀ Q p + d (d Q_ii + 2 (Q p)_i)) / (1 + d)².
        let square = graph.map("mul", &[diff, own])?;
        let twice = graph.map_num("mul", qp_i, 2.0)?;
        let more = graph.map("add", &[square, twice])?;
        let more = graph.map("mul", &[diff, more])?;
        pqp = graph.map("add", &[pqp, more])?;
        pqp = graph.map("div", &[pqp, scale])?;
        pqp = graph.map("div", &[pqp, scale])?;
        let change = graph.map("mul", &[diff, row])?;
        qp = graph.map("add", &[qp, change])?;
        qp = graph.map("div", &[qp, scale])?;
        let unit = Tensor::from_f32(
            &[1, classes],
            &(0..classes).map(|j| f32::from(u8::from(j == i))).collect::<Vec<_>>(),
        );
        let unit = graph.dense(unit);
        let change = graph.map("mul", &[diff, unit])?;
        p = graph.map("add", &[p, change])?;
        p = graph.map("div", &[p, scale])?;
    }
    graph.map("where", &[open, p, before])
}
