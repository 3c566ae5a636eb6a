//! `Det`: the product of the pivots of Gaussian elimination with partial pivoting, a loop over columns.

use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};

/// `Det`.
pub fn det(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let rank = shape.len();
    if rank < 2 || !graph.dtype(x).is_float() {
        return Err(Fail::Bad(format!(
            "{}, expected square matrices of floats",
            graph.ty(x)
        )));
    }
    let n = graph.require_equal(&shape[rank - 2], &shape[rank - 1])?;
    let x = graph.fit(x, rank - 2, &n)?;
    let x = graph.fit(x, rank - 1, &n)?;
    let batch = &shape[..rank - 2];
    let count = product(batch);
    let wide = graph.widen(x)?;
    let dtype = graph.dtype(wide);
    let a = graph.reshape(wide, vec![count.clone(), n.clone(), n.clone()])?;
    let ones = graph.splat(dtype, &[count, Dim::ONE, Dim::ONE], 1.0)?;
    let zero = graph.scalar(DType::I64, 0);
    let end = graph.dim_scalar(&n, DType::I64)?;
    let done = graph.repeat_while(
        &[zero, ones, a],
        &[end],
        |b, v| b.map("less", &[v[0], v[3]]),
        |b, v| {
            let (column, det, a) = (v[0], v[1], v[2]);
            let at = b.reshape(column, vec![Dim::ONE])?;
            let row = b.iota(DType::I64, &[n.clone(), Dim::ONE], 0)?;
            // The largest element of the column at or below the diagonal.
            let values = b.gather(2, a, at)?;
            let sizes = b.op("abs", &[], &[values])?;
            let least = b.scalar(dtype, -1.0);
            let above = b.map("less", &[row, at])?;
            let sizes = b.map("where", &[above, least, sizes])?;
            let best = b.op(
                "arg_reduce",
                &[Attr::word("max"), Attr::Int(1), Attr::Bool(false)],
                &[sizes],
            )?;
            // Its row and the diagonal's change places.
            let on = b.map("equal", &[row, at])?;
            let other = b.map("equal", &[row, best])?;
            let from = b.map("where", &[other, at, row])?;
            let from = b.map("where", &[on, best, from])?;
            let from = b.spread(from, &b.shape(a))?;
            let a = b.op("gather_elements", &[Attr::Int(1)], &[a, from])?;
            let moved = b.map("not_equal", &[best, at])?;
            let pivot_row = b.gather(1, a, at)?;
            let pivot = b.gather(2, pivot_row, at)?;
            let minus = b.op("neg", &[], &[pivot])?;
            let signed = b.map("where", &[moved, minus, pivot])?;
            let det = b.map("mul", &[det, signed])?;
            // Rows below lose the column; where the pivot is 0 there is nothing to lose.
            let values = b.gather(2, a, at)?;
            let factor = b.map("div", &[values, pivot])?;
            let below = b.map("greater", &[row, at])?;
            let some = b.map_num("not_equal", pivot, 0.0)?;
            let take = b.map("and", &[below, some])?;
            let none = b.scalar(dtype, 0.0);
            let factor = b.map("where", &[take, factor, none])?;
            let taken = b.map("mul", &[factor, pivot_row])?;
            let a = b.map("sub", &[a, taken])?;
            Ok(vec![b.map_num("add", column, 1)?, det, a])
        },
    )?;
    let y = graph.reshape(done[1], batch.to_vec())?;
    one(graph.cast(y, graph.dtype(x)))
}
