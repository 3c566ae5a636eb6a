//! `CumSum` and `CumProd`.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// Both: the axis is an operand. Where it is data, that of the running values along every axis is taken which it names.
pub fn cumulative(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, axis) = (ctx.input(0)?, ctx.input(1)?);
    let kind = if ctx.op() == "CumSum" { "sum" } else { "prod" };
    let (exclusive, reverse) = (ctx.flag("exclusive", false)?, ctx.flag("reverse", false)?);
    // A running value is kept in the type that arithmetic is done in.
    let (dtype, rank) = (graph.dtype(x), graph.rank(x));
    let x = graph.cast(x, dtype.compute())?;
    let along = |graph: &mut Builder<'_>, axis: usize| {
        let attrs = [
            Attr::word(kind),
            Attr::Int(axis as i64),
            Attr::Bool(exclusive),
            Attr::Bool(reverse),
        ];
        let y = graph.op("scan", &attrs, &[x])?;
        graph.cast(y, dtype)
    };
    if graph.contents(axis).is_some() {
        let axis = graph.ints_operand(axis, "the axis")?;
        let axis = node::axis(*axis.first().ok_or("an empty axis")?, rank)?;
        return one(along(graph, axis));
    }
    if rank == 0 {
        return Err("an axis of a number".into());
    }
    let axis = graph.reshape_if_equal(axis, vec![])?;
    let axis = graph.axes_in_run(axis, rank)?;
    let mut y = along(graph, 0)?;
    for a in 1..rank {
        let other = along(graph, a)?;
        let named = graph.map_num("equal", axis, a as i64)?;
        y = graph.map("where", &[named, other, y])?;
    }
    Ok(vec![y])
}

impl Builder<'_> {
    /// Axes that are data, counted from the first one; the run fails for one that there is not.
    ///
    /// # Errors
    /// When they are no integers.
    pub fn axes_in_run(&mut self, axes: Value, rank: usize) -> One {
        let all = self.iota(DType::I64, &[Dim::from(rank)], 0)?;
        self.gather(0, all, axes)
    }
}
