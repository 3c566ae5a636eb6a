//! Random numbers: `RandomUniform`, `RandomNormal`, their `Like` forms, `Bernoulli`, `Multinomial`, and the mask of `Dropout`.
//!
//! The generator is Philox-2x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): the position of an
//! element is the counter, so that numbers are element-wise functions of positions, and depend on nothing else. The key is
//! the bits of the attribute `seed`, an f32 (of `Dropout` the low bits of its integer), or where there is none a hash of the
//! node's name (FNV-1a). Nodes of the same seed draw the same numbers, and so does every run.

use super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType, Dim, dim::product};
use std::f64::consts::PI;

const MULTIPLIER: u64 = 0xD256_D193;
const WEYL: u32 = 0x9E37_79B9;
const ROUNDS: u32 = 10;
/// Set in the counters of a second pair of words for each element.
const SECOND: u32 = 1 << 31;

/// The key of a node.
pub fn key(ctx: &NodeCtx<'_>) -> Result<u32, Fail> {
    if ctx.op() == "Dropout" {
        if let Some(seed) = ctx.opt_int("seed")? {
            return Ok(seed as u32);
        }
    } else if let Some(seed) = ctx.opt_float("seed")? {
        return Ok((seed as f32).to_bits());
    }
    let hash = |h: u32, b: u8| (h ^ b as u32).wrapping_mul(0x0100_0193);
    Ok(ctx.name.bytes().fold(0x811c_9dc5, hash))
}

/// Two words for each position of a shape.
fn words(graph: &mut Builder<'_>, shape: &[Dim], key: u32, second: bool) -> Result<[Value; 2], Fail> {
    let flat = graph.iota(DType::U64, &[product(shape)], 0)?;
    let flat = graph.reshape(flat, shape.to_vec())?;
    let high = graph.map_num("shift_right", flat, 32)?;
    let (mut left, mut right) = (graph.cast(flat, DType::U32)?, graph.cast(high, DType::U32)?);
    if second {
        right = graph.map_num("bitwise_xor", right, SECOND as i64)?;
    }
    for round in 0..ROUNDS {
        let key = key.wrapping_add(WEYL.wrapping_mul(round));
        let wide = graph.cast(left, DType::U64)?;
        let product = graph.map_num("mul", wide, MULTIPLIER as i64)?;
        let high = graph.map_num("shift_right", product, 32)?;
        let high = graph.cast(high, DType::U32)?;
        let mixed = graph.map("bitwise_xor", &[high, right])?;
        left = graph.map_num("bitwise_xor", mixed, key as i64)?;
        right = graph.cast(product, DType::U32)?;
    }
    Ok([left, right])
}

/// A number in [0, 1) of 24 bits of a word as f32, or of 53 bits of two as f64.
fn fraction(graph: &mut Builder<'_>, words: [Value; 2], dtype: DType) -> One {
    if dtype == DType::F32 {
        let top = graph.map_num("shift_right", words[0], 8)?;
        let x = graph.cast(top, DType::F32)?;
        return graph.map_num("mul", x, 2f64.powi(-24));
    }
    let (high, low) = (graph.cast(words[0], DType::U64)?, graph.cast(words[1], DType::U64)?);
    let high = graph.map_num("shift_left", high, 21)?;
    let low = graph.map_num("shift_right", low, 11)?;
    let bits = graph.map("bitwise_or", &[high, low])?;
    let x = graph.cast(bits, DType::F64)?;
    graph.map_num("mul", x, 2f64.powi(-53))
}

/// Numbers in [0, 1), evenly distributed, as f32 or f64.
pub fn even(graph: &mut Builder<'_>, shape: &[Dim], key: u32, dtype: DType) -> One {
    let words = words(graph, shape, key, false)?;
    fraction(graph, words, dtype)
}

/// Normally distributed numbers, as f32 or f64: `√(-2·ln(1 - u))·cos(2π·v)` (Box and Muller, 1958).
fn normal_numbers(graph: &mut Builder<'_>, shape: &[Dim], key: u32, dtype: DType) -> One {
    let first = words(graph, shape, key, false)?;
    let (u, v) = match dtype {
        DType::F32 => (
            fraction(graph, first, dtype)?,
            fraction(graph, [first[1], first[0]], dtype)?,
        ),
        _ => {
            let second = words(graph, shape, key, true)?;
            (fraction(graph, first, dtype)?, fraction(graph, second, dtype)?)
        }
    };
    let one = graph.scalar(dtype, 1.0);
    let rest = graph.map("sub", &[one, u])?;
    let log = graph.op("log", &[], &[rest])?;
    let square = graph.map_num("mul", log, -2.0)?;
    let radius = graph.op("sqrt", &[], &[square])?;
    let angle = graph.map_num("mul", v, 2.0 * PI)?;
    let cos = graph.op("cos", &[], &[angle])?;
    graph.map("mul", &[radius, cos])
}

/// The dtype that random numbers of a dtype are computed in.
fn compute(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// The shape and dtype of `RandomUniform` and `RandomNormal` and of their `Like` forms.
fn form(graph: &Builder<'_>, ctx: &NodeCtx<'_>) -> Result<(Vec<Dim>, DType), Fail> {
    let given = match ctx.opt_int("dtype")? {
        Some(code) => Some(tensor::dtype(code).map_err(Fail::Unsupported)?),
        None => None,
    };
    let (shape, dtype) = if ctx.op().ends_with("Like") {
        ctx.arity(1, 1)?;
        let x = ctx.input(0)?;
        (graph.shape(x), given.unwrap_or(graph.dtype(x)))
    } else {
        ctx.arity(0, 0)?;
        let shape = ctx.ints("shape")?.ok_or("attribute `shape` is missing")?;
        if let Some(d) = shape.iter().find(|d| **d < 0) {
            return Err(Fail::Bad(format!("an extent of {d}")));
        }
        (
            shape.iter().map(|&d| Dim::Const(d)).collect(),
            given.unwrap_or(DType::F32),
        )
    };
    if !dtype.is_float() {
        return Err(Fail::Bad(format!("random numbers of {dtype}, expected floats")));
    }
    Ok((shape, dtype))
}

/// `RandomUniform` and `RandomUniformLike`: `low + u·(high - low)`.
pub fn uniform(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (shape, dtype) = form(graph, ctx)?;
    let (low, high) = (ctx.float("low", 0.0)?, ctx.float("high", 1.0)?);
    let u = even(graph, &shape, key(ctx)?, compute(dtype))?;
    let u = graph.map_num("mul", u, high - low)?;
    let y = graph.map_num("add", u, low)?;
    one(graph.cast(y, dtype))
}

/// `RandomNormal` and `RandomNormalLike`: `mean + z·scale`.
pub fn normal(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (shape, dtype) = form(graph, ctx)?;
    let (mean, scale) = (ctx.float("mean", 0.0)?, ctx.float("scale", 1.0)?);
    let z = normal_numbers(graph, &shape, key(ctx)?, compute(dtype))?;
    let z = graph.map_num("mul", z, scale)?;
    let y = graph.map_num("add", z, mean)?;
    one(graph.cast(y, dtype))
}

/// `Bernoulli`: 1 where a number below 1 is below the operand's element.
pub fn bernoulli(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let p = ctx.input(0)?;
    let dtype = match ctx.opt_int("dtype")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None => graph.dtype(p),
    };
    let p = graph.widen(p)?;
    let shape = graph.shape(p);
    let u = even(graph, &shape, key(ctx)?, graph.dtype(p))?;
    let drawn = graph.map("less", &[u, p])?;
    one(graph.cast(drawn, dtype))
}

/// `Multinomial`: the number of classes whose running sum of probabilities a number does not reach.
pub fn multinomial(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    if graph.rank(x) != 2 {
        return Err(Fail::Bad(format!("{}, expected rank 2", graph.ty(x))));
    }
    let dtype = match ctx.opt_int("dtype")? {
        Some(code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
        None => DType::I32,
    };
    let samples = ctx.int("sample_size", 1)?;
    if samples < 0 {
        return Err(Fail::Bad(format!("sample_size {samples}")));
    }
    let shape = graph.shape(x);
    graph.require_at_most(&Dim::ONE, &shape[1])?;
    // Running sums of many small numbers want digits.
    let x = graph.cast(x, DType::F64)?;
    let max = graph.reduce("max", &[1], x)?;
    let x = graph.map("sub", &[x, max])?;
    let p = graph.op("exp", &[], &[x])?;
    let attrs = [Attr::word("sum"), Attr::Int(1), Attr::Bool(false), Attr::Bool(false)];
    let sums = graph.op("scan", &attrs, &[p])?;
    let total = graph.slice_axis(sums, 1, &shape[1] - &Dim::ONE, Dim::ONE)?;
    let u = even(graph, &[shape[0].clone(), Dim::Const(samples)], key(ctx)?, DType::F64)?;
    let reach = graph.map("mul", &[u, total])?;
    let (reach, sums) = (graph.unsqueeze(reach, &[2])?, graph.unsqueeze(sums, &[1])?);
    let below = graph.map("less_or_equal", &[sums, reach])?;
    let below = graph.cast(below, DType::I64)?;
    let class = graph.reduce("sum", &[2], below)?;
    let class = graph.squeeze(class, &[2])?;
    // A product may be rounded up to the whole sum.
    let last = graph.dim_scalar(&(&shape[1] - &Dim::ONE), DType::I64)?;
    let class = graph.map("min", &[class, last])?;
    one(graph.cast(class, dtype))
}
