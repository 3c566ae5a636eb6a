//! Shape computations, done at import: integer tensors whose elements are known as dims (`Shape` and what is computed
//! from it) are followed through the operators that exporters use between `Shape` and `Reshape`.
//!
//! Movement operators need no code of their own here: they are run on constants that hold *positions* in a list of dims,
//! through their ordinary importers, and what comes out says which dim went where.
//!
//! ```text
//! Concat(Unsqueeze(Gather(Shape(x: [batch, seq, 64]), 1)), [8])  -->  dims [seq, 8]
//! ```

use super::builder::{Builder, SMALL};
use super::error::Fail;
use super::extents::known_for_inputs;
use super::import::domain;
use super::node::NodeCtx;
use super::ops;
use super::ratio;
use brolga_ir::dim::product;
use brolga_ir::{DType, Dim, Tensor, Value};

/// The results of a node, when they are known dims and the ordinary importer would lose that.
///
/// # Errors
/// When the node is wrong.
pub fn evaluate(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    if !domain(&ctx.proto.domain).is_empty() {
        return Ok(None);
    }
    match ctx.op() {
        "Shape" | "Size" => return shape(graph, ctx),
        _ => {}
    }
    if let Some(out) = ratio::evaluate(graph, ctx)? {
        return Ok(Some(out));
    }
    // Without a symbolic operand, folding of constants does all there is to do.
    if !ctx.inputs.iter().flatten().any(|v| graph.known.contains_key(v)) {
        return Ok(None);
    }
    match ctx.op() {
        "Gather" | "GatherND" | "GatherElements" | "Slice" | "Reshape" | "Squeeze" | "Unsqueeze" | "Expand"
        | "Split" | "Transpose" | "Tile" | "Flatten" => movement(graph, ctx, 1),
        "Concat" => movement(graph, ctx, ctx.inputs.len()),
        "Cast" => {
            let to = super::tensor::dtype(ctx.int("to", 0)?);
            if to.is_ok_and(|t| t.is_int()) {
                elementwise(graph, ctx)
            } else {
                Ok(None)
            }
        }
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Min" | "Max" | "Equal" | "Where" | "Neg" | "Less" | "Greater"
        | "LessOrEqual" | "GreaterOrEqual" => elementwise(graph, ctx),
        "ReduceProd" | "ReduceSum" | "ReduceMin" | "ReduceMax" => reduce(graph, ctx),
        _ => Ok(None),
    }
}

fn shape(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    ctx.arity(1, 1)?;
    let dims = graph.shape(ctx.input(0)?);
    graph
        .extents
        .extend(dims.iter().filter(|d| !d.is_nonnegative()).cloned());
    if ctx.op() == "Size" {
        return Ok(Some(vec![graph.dims_value(DType::I64, &[], vec![product(&dims)])?]));
    }
    let rank = dims.len() as i64;
    let clamp = |x: i64| (if x < 0 { x.saturating_add(rank) } else { x }).clamp(0, rank) as usize;
    let start = clamp(ctx.int("start", 0)?);
    let end = clamp(ctx.int("end", rank)?).max(start);
    let dims = dims[start..end].to_vec();
    Ok(Some(vec![graph.dims_value(DType::I64, &[dims.len()], dims)?]))
}

/// The dims and the shape of a value whose elements are known.
fn operand(graph: &mut Builder<'_>, v: Value) -> Option<Elements<Dim>> {
    let shape = graph.fixed_shape(v)?;
    let dims = graph.dims_of(v)?;
    (dims.len() == shape.iter().product::<usize>() && dims.len() <= SMALL).then_some((shape, dims))
}

/// The elements of a value, with its extents.
type Elements<T> = (Vec<usize>, Vec<T>);

/// What the elements of a movement operator's results are: its importer is run on positions in a list of all elements.
///
/// # Errors
/// When the node is wrong.
pub fn moved<T: Clone>(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    data: usize,
    elements: impl Fn(&mut Builder<'_>, Value) -> Option<Elements<T>>,
) -> Result<Option<Vec<Elements<T>>>, Fail> {
    let mut pool: Vec<T> = vec![];
    let mut inputs = ctx.inputs.clone();
    for (i, slot) in inputs.iter_mut().enumerate() {
        let Some(v) = *slot else { continue };
        if i < data {
            let Some((shape, all)) = elements(graph, v) else {
                return Ok(None);
            };
            let first = pool.len() as i64;
            let positions: Vec<i64> = (first..first + all.len() as i64).collect();
            pool.extend(all);
            *slot = Some(graph.dense(Tensor::from_i64(&[positions.len()], &positions).reshaped(&shape)));
        } else if graph.dtype(v).is_int() && graph.known.contains_key(&v) {
            // A symbolic shape operand: the result has no known number of elements, unless the dims are known after all.
            return Ok(None);
        }
    }
    let mut out = vec![];
    for v in ops::apply(graph, &ctx.with(inputs))? {
        let (Some(positions), Some(shape)) = (graph.contents(v), graph.fixed_shape(v)) else {
            return Ok(None);
        };
        let all = positions.to_i64s().iter().map(|&p| pool[p as usize].clone()).collect();
        out.push((shape, all));
    }
    Ok(Some(out))
}

fn movement(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, data: usize) -> Result<Option<Vec<Value>>, Fail> {
    let dtype = graph.dtype(ctx.input(0)?);
    let Some(moved) = moved(graph, ctx, data, operand)? else {
        return Ok(None);
    };
    let values = moved
        .into_iter()
        .map(|(shape, dims)| graph.dims_value(dtype, &shape, dims));
    values.collect::<Result<_, _>>().map(Some)
}

/// A function of the elements of operands that broadcast to a shape; `None` where it is not known of one.
pub fn pointwise<T>(shape: &[usize], operands: &[Elements<T>], f: impl Fn(&[&T]) -> Option<T>) -> Option<Vec<T>> {
    if shape.iter().product::<usize>() > SMALL {
        return None;
    }
    let element = |index: Vec<usize>| {
        let args: Vec<&T> = operands
            .iter()
            .map(|(s, all)| {
                let lead = shape.len() - s.len();
                let p = s
                    .iter()
                    .zip(&index[lead..])
                    .fold(0, |p, (&n, &i)| p * n + if n == 1 { 0 } else { i });
                &all[p]
            })
            .collect();
        f(&args)
    };
    brolga_ir::indices(shape).map(element).collect()
}

fn elementwise(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    let values = ctx.variadic()?;
    match ctx.op() {
        "Cast" | "Neg" => ctx.arity(1, 1)?,
        "Where" => ctx.arity(3, 3)?,
        "Min" | "Max" => {}
        _ => ctx.arity(2, 2)?,
    }
    let mut operands = vec![];
    for &v in &values {
        match operand(graph, v) {
            Some(o) => operands.push(o),
            None => return Ok(None),
        }
    }
    let shape = graph.broadcast_shape(&values)?;
    let Some(shape) = brolga_ir::dim::constants(&shape) else {
        return Ok(None);
    };
    let nonnegative = |d: &Dim| graph.is_nonnegative(d);
    let Some(out) = pointwise(&shape, &operands, |args| function(ctx.op(), args, &nonnegative)) else {
        return Ok(None);
    };
    if matches!(ctx.op(), "Add" | "Mul" | "Max") && operands.iter().all(|(_, all)| all.iter().all(nonnegative)) {
        graph
            .extents
            .extend(out.iter().filter(|d| !d.is_nonnegative()).cloned());
    }
    let dtype = match ctx.op() {
        "Cast" => super::tensor::dtype(ctx.int("to", 0)?)?,
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" => DType::Bool,
        "Where" => graph.dtype(values[1]),
        _ => graph.dtype(values[0]),
    };
    Ok(Some(vec![graph.dims_value(dtype, &shape, out)?]))
}

/// One element of an element-wise operator, when it is a dim.
fn function(op: &str, args: &[&Dim], nonnegative: &dyn Fn(&Dim) -> bool) -> Option<Dim> {
    let fold = |f: &dyn Fn(&Dim, &Dim) -> Dim| args[1..].iter().fold(args[0].clone(), |a, b| f(&a, b));
    let sign = |d: &Dim| match d {
        Dim::Const(c) => Some(c.signum()),
        // A symbol may be 0, so that nothing more than "not negative" is ever known of a sum without a constant.
        d => d.is_at_least(1).then_some(1),
    };
    // The sign of a - b, or None when it depends on the symbols.
    let order = |a: &Dim, b: &Dim| sign(&(a - b)).or_else(|| sign(&(b - a)).map(|s| -s));
    let bool_dim = |b: bool| Some(Dim::from(b as i64));
    let (a, b) = (args[0], *args.get(1).unwrap_or(&args[0]));
    Some(match op {
        "Cast" => a.clone(),
        "Neg" => a * -1,
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        // Integers divide toward zero; both are the floor where neither is negative.
        "Div" => match (a.as_const(), b.as_const()) {
            (Some(x), Some(y)) => Dim::Const(x.checked_div(y)?),
            _ if b.is(0) => return None,
            _ if nonnegative(a) && nonnegative(b) => a.floor_div(b),
            (_, Some(k)) if k > 0 && a.exact_div(b).is_none() && !known_for_inputs(a, 0) => {
                // Rounded up where it is negative, and down where it is not.
                Dim::max(&a.floor_div(b), &Dim::min(&a.ceil_div(b), &Dim::ZERO))
            }
            (_, Some(k)) if k > 0 => a.floor_div(b),
            _ => a.exact_div(b)?,
        },
        "Mod" if b.is(0) => return None,
        "Mod" => a.modulo(b),
        "Min" => fold(&|x, y| x.min(y)),
        "Max" => fold(&|x, y| x.max(y)),
        "Equal" if a == b => Dim::ONE,
        "Equal" if args.iter().all(|d| d.as_const().is_some()) => Dim::ZERO,
        // A dim is never the -1 of Reshape and Expand.
        "Equal" => match order(a, b) {
            Some(s) => return bool_dim(s == 0),
            None if (nonnegative(a) && b.as_const().is_some_and(|c| c < 0))
                || (nonnegative(b) && a.as_const().is_some_and(|c| c < 0)) =>
            {
                Dim::ZERO
            }
            None => return None,
        },
        "Less" => return order(a, b).and_then(|s| bool_dim(s < 0)),
        "Greater" => return order(a, b).and_then(|s| bool_dim(s > 0)),
        "LessOrEqual" => return order(a, b).and_then(|s| bool_dim(s <= 0)),
        "GreaterOrEqual" => return order(a, b).and_then(|s| bool_dim(s >= 0)),
        "Where" => match a.as_const()? {
            0 => args[2].clone(),
            _ => b.clone(),
        },
        _ => return None,
    })
}

fn reduce(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    let v = ctx.input(0)?;
    let Some((shape, dims)) = operand(graph, v) else {
        return Ok(None);
    };
    if shape.len() != 1 || dims.is_empty() {
        return Ok(None);
    }
    // The only axis is reduced, whichever way it is named; with no axes and the no-op flag nothing is.
    let axes = match (ctx.optional(1), ctx.ints("axes")?) {
        (Some(a), _) => graph.ints_operand(a, "axes")?,
        (None, Some(a)) => a.to_vec(),
        (None, None) => vec![],
    };
    if axes.is_empty() && ctx.flag("noop_with_empty_axes", false)? {
        return Ok(None);
    }
    super::node::axes(&axes, 1)?;
    let total = dims[1..].iter().fold(dims[0].clone(), |a, b| match ctx.op() {
        "ReduceProd" => &a * b,
        "ReduceSum" => &a + b,
        "ReduceMin" => Dim::min(&a, b),
        _ => Dim::max(&a, b),
    });
    let shape: &[usize] = if ctx.flag("keepdims", true)? { &[1] } else { &[] };
    let dtype = graph.dtype(v);
    Ok(Some(vec![graph.dims_value(dtype, shape, vec![total])?]))
}
