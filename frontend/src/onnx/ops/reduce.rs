//! The `Reduce…` operators, as compositions of the IR's reductions and element-wise functions.

use super::*;
use brolga_ir::DType;

/// Any of `ReduceSum`, `ReduceMean`, `ReduceMax`, `ReduceMin`, `ReduceProd`, `ReduceL1`, `ReduceL2`, `ReduceLogSum`,
/// `ReduceLogSumExp`, `ReduceSumSquare`. Axes are an attribute in older versions, an operand in newer ones.
pub fn reduce<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let rank = im.rank(x);
    let given = match (ctx.optional(1), ctx.ints("axes")?) {
        (Some(v), _) => Some(im.ints_operand(v, "axes")?),
        (None, a) => a.map(<[i64]>::to_vec),
    };
    let axes: Vec<usize> = match given {
        Some(a) if !a.is_empty() => node::axes(&a, rank)?,
        _ if ctx.flag("noop_with_empty_axes", false)? => vec![],
        _ => (0..rank).collect(),
    };
    let y = compute(im, ctx.op(), x, &axes)?;
    one(if ctx.flag("keepdims", true)? {
        Ok(y)
    } else {
        im.squeeze(y, &axes)
    })
}

fn compute(im: &mut Importer<'_>, op: &str, x: Value, axes: &[usize]) -> One {
    let dtype = im.dtype(x);
    match op {
        "ReduceSum" => im.reduce("sum", axes, x),
        "ReduceMean" => im.mean(axes, x),
        "ReduceProd" => im.reduce("prod", axes, x),
        "ReduceMax" if dtype == DType::Bool => im.reduce("or", axes, x),
        "ReduceMin" if dtype == DType::Bool => im.reduce("and", axes, x),
        "ReduceMax" => im.reduce("max", axes, x),
        "ReduceMin" => im.reduce("min", axes, x),
        "ReduceL1" => {
            let a = im.op("abs", &[], &[x])?;
            im.reduce("sum", axes, a)
        }
        "ReduceSumSquare" => {
            let a = im.map("mul", &[x, x])?;
            im.reduce("sum", axes, a)
        }
        "ReduceL2" => {
            let wide = float(im, x)?;
            let a = im.map("mul", &[wide, wide])?;
            let s = im.reduce("sum", axes, a)?;
            let r = im.op("sqrt", &[], &[s])?;
            im.cast(r, dtype)
        }
        "ReduceLogSum" => {
            let wide = float(im, x)?;
            let s = im.reduce("sum", axes, wide)?;
            let r = im.op("log", &[], &[s])?;
            im.cast(r, dtype)
        }
        "ReduceLogSumExp" => {
            // log Σ exp x = m + log Σ exp(x - m), with m = max x where that is finite and 0 elsewhere.
            let wide = float(im, x)?;
            let max = im.reduce("max", axes, wide)?;
            let infinite = im.op("is_inf", &[], &[max])?;
            let zero = im.scalar(im.dtype(wide), 0.0);
            let m = im.map("where", &[infinite, zero, max])?;
            let d = im.map("sub", &[wide, m])?;
            let e = im.op("exp", &[], &[d])?;
            let s = im.reduce("sum", axes, e)?;
            let l = im.op("log", &[], &[s])?;
            let r = im.map("add", &[l, m])?;
            im.cast(r, dtype)
        }
        _ => unreachable!("`{op}` is not in the table with this function"),
    }
}

/// The value as a float of at least 32 bits.
fn float(im: &mut Importer<'_>, x: Value) -> One {
    match im.dtype(x) {
        DType::F32 | DType::F64 => Ok(x),
        DType::F16 | DType::BF16 => im.cast(x, DType::F32),
        _ => im.cast(x, DType::F64),
    }
}
