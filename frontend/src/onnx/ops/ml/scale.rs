//! Operators that change features one by one: `Scaler`, `Normalizer`, `Imputer`, `Binarizer`.

use super::*;
use brolga_ir::{DType, Number, Tensor};

/// `Scaler`: `(x - offset) * scale`, one number for all features or one for each, in f32 (doubles are rounded at last).
pub fn scaler(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let wide = if graph.dtype(x) == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let mut y = graph.cast(x, wide)?;
    for (name, function) in [("offset", "sub"), ("scale", "mul")] {
        let values = floats(ctx, name)?;
        let v = graph.floats_constant(&[values.len()], values);
        let v = graph.cast(v, wide)?;
        y = graph.map(function, &[y, v])?;
    }
    if graph.rank(y) != graph.rank(x) {
        return Err(Fail::Bad(format!("{} for one number a feature", graph.ty(x))));
    }
    one(graph.cast(y, DType::F32))
}

/// `Normalizer`: rows divided by their norm; those of norm 0 stay as they are.
pub fn normalizer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let x = graph.cast(x, DType::F32)?;
    let axis = match graph.rank(x) {
        0 => return Err(Fail::Bad(format!("{}, expected rank 1 or more", graph.ty(x)))),
        1 => 0,
        _ => 1,
    };
    let norm = match ctx.string("norm", "MAX")? {
        "MAX" => graph.reduce("max", &[axis], x)?,
        "L1" => {
            let size = graph.map("abs", &[x])?;
            graph.reduce("sum", &[axis], size)?
        }
        "L2" => {
            let square = graph.map("mul", &[x, x])?;
            let sum = graph.reduce("sum", &[axis], square)?;
            graph.map("sqrt", &[sum])?
        }
        w => return Err(Fail::Bad(format!("norm `{w}`, expected MAX, L1 or L2"))),
    };
    let zero = graph.map_num("equal", norm, 0.0)?;
    let one_ = graph.scalar(DType::F32, 1.0);
    let by = graph.map("where", &[zero, one_, norm])?;
    one(graph.map("div", &[x, by]))
}

/// `Imputer`: one value, which may be NaN, is replaced, by the same for all features or by one for each.
pub fn imputer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let dtype = graph.dtype(x);
    let (missing, values): (Number, Vec<Number>) = if dtype.is_float() {
        let by = floats(ctx, "imputed_value_floats")?;
        let number = |v: &f32| Number::Float((*v).into());
        let missing = Number::Float(ctx.float("replaced_value_float", 0.0)?);
        (missing, by.iter().map(number).collect())
    } else {
        let by = ctx.ints("imputed_value_int64s")?.unwrap_or_default();
        let number = |v: &i64| Number::Int((*v).into());
        let missing = Number::Int(ctx.int("replaced_value_int64", 0)?.into());
        (missing, by.iter().map(number).collect())
    };
    let features = graph.shape(x).last().and_then(Dim::as_const);
    if values.is_empty() || (values.len() > 1 && features.is_some_and(|n| n != values.len() as i64)) {
        return Err(Fail::Bad(format!(
            "{} values to impute in {}",
            values.len(),
            graph.ty(x)
        )));
    }
    let by = graph.dense(Tensor::from_fn(dtype, &[values.len()], |i| values[i]));
    let is_missing = match missing {
        Number::Float(m) if m.is_nan() => graph.map("is_nan", &[x])?,
        m => graph.map_num("equal", x, m)?,
    };
    let shape = graph.shape(x);
    let by = graph.spread(by, &shape)?;
    one(graph.map("where", &[is_missing, by, x]))
}

/// `Binarizer`: 1 above the threshold, else 0.
pub fn binarizer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let dtype = graph.dtype(x);
    let threshold = ctx.float("threshold", 0.0)?;
    // Above a broken number is above the whole one below it.
    let threshold = if dtype.is_float() { threshold } else { threshold.floor() };
    let above = graph.map_num("greater", x, threshold)?;
    one(graph.cast(above, dtype))
}
