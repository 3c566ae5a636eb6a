//! Operators that make tensors from little: `Constant`, `ConstantOfShape`, `Range`, `EyeLike`, `Shape`, `Size`.

use super::super::ratio::Ratio;
use super::super::{symbolic, tensor};
use super::*;
use brolga_ir::{ConstData, Constant, DType, Dim, Tensor, dim};

/// `Constant`, in any of its forms.
pub fn constant(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(0, 0)?;
    if let Some(t) = ctx.tensor("value")? {
        return one(graph.tensor(t));
    }
    let t = if let Some(x) = ctx.opt_float("value_float")? {
        Tensor::from_f32(&[], &[x as f32])
    } else if let Some(x) = ctx.floats("value_floats")? {
        Tensor::from_f32(&[x.len()], x)
    } else if let Some(x) = ctx.opt_int("value_int")? {
        Tensor::from_i64(&[], &[x])
    } else if let Some(x) = ctx.ints("value_ints")? {
        Tensor::from_i64(&[x.len()], x)
    } else if let Some((name, _)) = ctx.attrs.first() {
        return unsupported(format!("attribute `{name}`"));
    } else {
        return Err("no value".into());
    };
    Ok(vec![graph.dense(t)])
}

fn constant_of(graph: &mut Builder<'_>, t: &onnx_protobuf::TensorProto) -> Result<Constant, Fail> {
    tensor::constant(t, graph.files, graph.limit).map_err(|e| {
        if e.starts_with("element type") {
            Fail::Unsupported(e)
        } else {
            Fail::Bad(e)
        }
    })
}

/// `ConstantOfShape`: one value, which is never spread out in memory.
pub fn constant_of_shape(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let shape = graph.sizes_operand(ctx.input(0)?, "the shape", &[])?;
    let value = match ctx.tensor("value")? {
        Some(t) => constant_of(graph, t)?.to_tensor(),
        None => Tensor::from_f32(&[1], &[0.0]),
    };
    if value.len() != 1 {
        return Err(Fail::Bad(format!("a value of {} elements, expected one", value.len())));
    }
    if let Some(d) = shape.iter().find(|d| d.as_const().is_some_and(|c| c < 0)) {
        return Err(Fail::Bad(format!("an extent of {d}")));
    }
    match dim::constants(&shape) {
        Some(fixed) => one(graph.splat_constant(value.dtype(), &fixed, value.get(0))),
        None => {
            let scalar = graph.constant(Constant {
                ty: brolga_ir::Type::new(value.dtype(), []),
                data: ConstData::Dense(value.reshaped(&[])),
            });
            one(graph.spread(scalar, &shape))
        }
    }
}

/// `Range`: of integers with symbolic bounds, or of floats that are known or computed from sizes.
pub fn range(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let bounds = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let dtype = graph.dtype(bounds[0]);
    if bounds.iter().any(|&b| graph.dtype(b) != dtype) {
        return Err("bounds of different dtypes".into());
    }
    let n = if let Some(n) = counted_in_run(graph, bounds)? {
        n
    } else if dtype.is_float() {
        float_count(graph, bounds)?
    } else {
        let mut b = vec![];
        for &v in &bounds {
            b.push(
                graph
                    .dims_operand(v, "a bound")?
                    .first()
                    .cloned()
                    .ok_or("an empty bound")?,
            );
        }
        let span = &b[1] - &b[0];
        match b[2].as_const() {
            Some(0) => return Err("a step of 0".into()),
            Some(1) => graph.or_zero(span),
            Some(c) if c > 0 => Dim::max(&span.ceil_div(&b[2]), &Dim::ZERO),
            Some(c) => Dim::max(&(&span * -1).ceil_div(&Dim::Const(c.saturating_neg())), &Dim::ZERO),
            None if b[2].is_nonnegative() => {
                graph.require_at_most(&Dim::ONE, &b[2])?;
                Dim::max(&span.ceil_div(&b[2]), &Dim::ZERO)
            }
            None => return unsupported(format!("a step of unknown sign ({})", b[2].brief())),
        }
    };
    let (start, delta) = (bounds[0], bounds[2]);
    let steps = graph.iota(dtype, std::slice::from_ref(&n), 0)?;
    let (start, delta) = (graph.reshape(start, vec![])?, graph.reshape(delta, vec![])?);
    let is = |graph: &mut Builder<'_>, v, x: f64| graph.contents(v).is_some_and(|t| t.get(0).f64() == x);
    let mut y = steps;
    if !is(graph, delta, 1.0) {
        y = graph.map("mul", &[y, delta])?;
    }
    if !is(graph, start, 0.0) {
        y = graph.map("add", &[y, start])?;
    }
    Ok(vec![y])
}

/// How many values a range has whose bounds data tell; `None` where they are known.
fn counted_in_run(graph: &mut Builder<'_>, bounds: [Value; 3]) -> Result<Option<Dim>, Fail> {
    let dtype = graph.dtype(bounds[0]);
    let known = |graph: &mut Builder<'_>, v: Value| match dtype.is_float() {
        true => graph.contents(v).is_some() || graph.ratios_of(v).is_some(),
        false => graph.dims_of(v).is_some(),
    };
    if bounds.iter().all(|&v| known(graph, v)) {
        return Ok(None);
    }
    let [start, limit, step] = bounds;
    let span = graph.map("sub", &[limit, start])?;
    let count = match dtype.is_float() {
        true => {
            let wide = DType::F64;
            let (span, step) = (graph.cast(span, wide)?, graph.cast(step, wide)?);
            let n = graph.map("div", &[span, step])?;
            let n = graph.map("ceil", &[n])?;
            let n = graph.map_num("max", n, 0.0)?;
            graph.cast(n, DType::I64)?
        }
        false => {
            let (span, step) = (graph.cast(span, DType::I64)?, graph.cast(step, DType::I64)?);
            let size = graph.map("abs", &[step])?;
            let size = graph.read(size, None)?;
            graph.require_at_most(&Dim::ONE, &size)?;
            // Rounded up: (span + step - 1) / step, or + 1 for a negative step.
            let sign = graph.map("sign", &[step])?;
            let n = graph.map("add", &[span, step])?;
            let n = graph.map("sub", &[n, sign])?;
            let n = graph.map("div", &[n, step])?;
            graph.map_num("max", n, 0)?
        }
    };
    graph.read(count, None).map(Some)
}

/// How many values a range of floats has: of known ones, or of sizes in floats in known steps.
fn float_count(graph: &mut Builder<'_>, bounds: [Value; 3]) -> Result<Dim, Fail> {
    let mut known = vec![];
    for &v in &bounds {
        let first = graph
            .contents(v)
            .map(|t| t.to_f64s().first().copied().ok_or("an empty bound"));
        known.push(first.transpose()?);
    }
    if known[2] == Some(0.0) {
        return Err("a step of 0".into());
    }
    if let [Some(from), Some(to), Some(step)] = known[..] {
        let n = ((to - from) / step).ceil();
        if !n.is_finite() || n > i64::MAX as f64 {
            return Err(Fail::Bad(format!("a range from {from} to {to} in steps of {step}")));
        }
        return Ok(Dim::Const(n.max(0.0) as i64));
    }
    // A step is a number that is divided by once: it may have many digits.
    let step = known[2].and_then(|x| Ratio::number(x, 1 << 30));
    let (from, to) = (graph.ratios_of(bounds[0]), graph.ratios_of(bounds[1]));
    let count = || {
        let span = to?.first()?.plus(from?.first()?, -1).filter(Ratio::is_dyadic)?;
        let step = step?;
        let by = step.num.as_const()?;
        let num = &span.num * (step.den * by.signum());
        Some(Dim::max(
            &num.ceil_div(&Dim::Const(span.den.checked_mul(by.abs())?)),
            &Dim::ZERO,
        ))
    };
    count().ok_or_else(|| Fail::Unsupported("a bound computed from data".into()))
}

/// `EyeLike`: ones on a diagonal.
pub fn eye_like(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    if shape.len() != 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2", graph.ty(x))));
    }
    let dtype = match ctx.opt_int("dtype")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None => graph.dtype(x),
    };
    let (row, column) = (graph.iota(DType::I64, &shape, 0)?, graph.iota(DType::I64, &shape, 1)?);
    let k = ctx.int("k", 0)?;
    let row = graph.map_num("add", row, k)?;
    let on = graph.map("equal", &[row, column])?;
    one(graph.cast(on, dtype))
}

/// `Shape` and `Size`, which are shape computations.
pub fn shape(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    symbolic::evaluate(graph, ctx)?.ok_or_else(|| Fail::Bad("not a tensor".into()))
}
