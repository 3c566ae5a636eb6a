//! `CumSum` and `CumProd`.

use super::*;
use brolga_ir::Attr;

/// Both: the axis is an operand.
pub fn cumulative(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = ctx.input(0)?;
    let axis = graph.ints_operand(ctx.input(1)?, "the axis")?;
    let axis = node::axis(*axis.first().ok_or("an empty axis")?, graph.rank(x))?;
    let kind = if ctx.op() == "CumSum" { "sum" } else { "prod" };
    let attrs = [
        Attr::word(kind),
        Attr::Int(axis as i64),
        Attr::Bool(ctx.flag("exclusive", false)?),
        Attr::Bool(ctx.flag("reverse", false)?),
    ];
    // A running value is kept in the type that arithmetic is done in.
    let dtype = graph.dtype(x);
    let x = graph.cast(x, dtype.compute())?;
    let y = graph.op("scan", &attrs, &[x])?;
    one(graph.cast(y, dtype))
}
