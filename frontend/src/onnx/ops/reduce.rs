//! The `Reduce…` operators, as compositions of the IR's reductions and element-wise functions.

use super::*;
use brolga_ir::DType;

/// Any of `ReduceSum`, `ReduceMean`, `ReduceMax`, `ReduceMin`, `ReduceProd`, `ReduceL1`, `ReduceL2`, `ReduceLogSum`,
/// `ReduceLogSumExp`, `ReduceSumSquare`. Axes are an attribute in older versions, an operand in newer ones.
pub fn reduce(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let given = match (ctx.optional(1), ctx.ints("axes")?) {
        (Some(v), _) => Some(graph.ints_operand(v, "axes")?),
        (None, a) => a.map(<[i64]>::to_vec),
    };
    let axes: Vec<usize> = match given {
        Some(a) if !a.is_empty() => node::axes(&a, rank)?,
        _ if ctx.flag("noop_with_empty_axes", false)? => vec![],
        _ => (0..rank).collect(),
    };
    let y = compute(graph, ctx.op(), x, &axes)?;
    one(if ctx.flag("keepdims", true)? {
        Ok(y)
    } else {
        graph.squeeze(y, &axes)
    })
}

fn compute(graph: &mut Builder<'_>, op: &str, x: Value, axes: &[usize]) -> One {
    let dtype = graph.dtype(x);
    match op {
        "ReduceSum" => graph.reduce("sum", axes, x),
        "ReduceMean" => graph.mean(axes, x),
        "ReduceProd" => graph.reduce("prod", axes, x),
        "ReduceMax" if dtype == DType::Bool => graph.reduce("or", axes, x),
        "ReduceMin" if dtype == DType::Bool => graph.reduce("and", axes, x),
        "ReduceMax" => graph.reduce("max", axes, x),
        "ReduceMin" => graph.reduce("min", axes, x),
        "ReduceL1" => {
            let a = graph.op("abs", &[], &[x])?;
            graph.reduce("sum", axes, a)
        }
        "ReduceSumSquare" => {
            let a = graph.map("mul", &[x, x])?;
            graph.reduce("sum", axes, a)
        }
        "ReduceL2" => {
            let wide = float(graph, x)?;
            let a = graph.map("mul", &[wide, wide])?;
            let s = graph.reduce("sum", axes, a)?;
            let r = graph.op("sqrt", &[], &[s])?;
            graph.cast(r, dtype)
        }
        "ReduceLogSum" => {
            let wide = float(graph, x)?;
            let s = graph.reduce("sum", axes, wide)?;
            let r = graph.op("log", &[], &[s])?;
            graph.cast(r, dtype)
        }
        "ReduceLogSumExp" => {
            // log Σ exp x = m + log Σ exp(x - m), with m = max x where that is finite and 0 elsewhere.
            let wide = float(graph, x)?;
            let max = graph.reduce("max", axes, wide)?;
            let infinite = graph.op("is_inf", &[], &[max])?;
            let zero = graph.scalar(graph.dtype(wide), 0.0);
            let m = graph.map("where", &[infinite, zero, max])?;
            let d = graph.map("sub", &[wide, m])?;
            let e = graph.op("exp", &[], &[d])?;
            let s = graph.reduce("sum", axes, e)?;
            let l = graph.op("log", &[], &[s])?;
            let r = graph.map("add", &[l, m])?;
            graph.cast(r, dtype)
        }
        _ => unreachable!("`{op}` is not in the table with this function"),
    }
}

/// The value as a float of at least 32 bits.
fn float(graph: &mut Builder<'_>, x: Value) -> One {
    match graph.dtype(x) {
        DType::F32 | DType::F64 => Ok(x),
        d if d.is_half() => graph.cast(x, DType::F32),
        _ => graph.cast(x, DType::F64),
    }
}
