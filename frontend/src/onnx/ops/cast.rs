//! `Cast`, `CastLike` and `BitCast`.

use super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType, Small};

fn target(ctx: &NodeCtx<'_>) -> Result<DType, Fail> {
    let to = ctx.opt_int("to")?.ok_or("attribute `to` is missing")?;
    let code = i32::try_from(to).map_err(|_| Fail::Bad(format!("element type {to}")))?;
    tensor::dtype(code).map_err(Fail::Unsupported)
}

/// `Cast`.
pub fn cast(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let to = target(ctx)?;
    one(converted(graph, ctx, ctx.input(0)?, to))
}

/// `CastLike`: to the second operand's dtype.
pub fn cast_like(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let to = graph.dtype(ctx.input(1)?);
    one(converted(graph, ctx, ctx.input(0)?, to))
}

/// A value in another dtype, by the attributes `saturate` and `round_mode`. Numbers become strings, and strings numbers, by host
/// operators.
fn converted(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, to: DType) -> One {
    let from = graph.dtype(x);
    match to.small() {
        _ if from == to => Ok(x),
        _ if from == DType::Str => graph.op("string_parse", &[Attr::DType(to)], &[x]),
        _ if to == DType::Str => graph.op("string_format", &[Attr::Int(-1)], &[x]),
        Some(Small::Float(f)) => {
            let rounding = match ctx.string("round_mode", "up")? {
                _ if f.is_signed() => Rounding::Nearest,
                "up" => Rounding::Up,
                "down" => Rounding::Down,
                "nearest" => Rounding::Nearest,
                other => return Err(Fail::Bad(format!("round_mode `{other}`, expected up, down or nearest"))),
            };
            let saturate = ctx.int("saturate", 1)? != 0;
            graph.minifloat(x, to, saturate, rounding)
        }
        // ONNX leaves open what becomes of numbers that do not fit; its cases keep the low bits.
        Some(_) if from.is_real() => {
            let whole = graph.cast(x, DType::I32)?;
            graph.cast(whole, to)
        }
        _ => graph.cast(x, to),
    }
}

/// Where numbers between two powers of two go that become scales.
#[derive(Clone, Copy, PartialEq)]
pub enum Rounding {
    Nearest,
    Up,
    Down,
}

impl Builder<'_> {
    /// Numbers as floats of 8 bits or fewer. What is too large becomes the largest number with `saturate`, else infinity or
    /// NaN, where the type has one; so does what is too small for a scale.
    ///
    /// # Errors
    /// When `to` is no such type.
    pub fn minifloat(&mut self, x: Value, to: DType, saturate: bool, rounding: Rounding) -> One {
        let Some(Small::Float(f)) = to.small() else {
            return Err(Fail::Bad(format!("{to}, expected a float of 8 bits or fewer")));
        };
        let mut x = self.cast(x, DType::F32)?;
        if saturate && f.overflow() != f.largest() {
            let most = f64::from(f.most());
            let least = if f.is_signed() { -most } else { f64::from(f.decode(0)) };
            x = self.map_num("min", x, most)?;
            x = self.map_num("max", x, least)?;
        }
        let y = self.cast(x, to)?;
        if f.is_signed() || rounding == Rounding::Nearest {
            return Ok(y);
        }
        // One power of two further, where the nearest lies on the other side.
        let near = self.cast(y, DType::F32)?;
        let code = self.op("bitcast", &[Attr::DType(DType::U8)], &[y])?;
        let (beyond, step) = match rounding {
            Rounding::Up => (self.map("less", &[near, x])?, "add"),
            _ => (self.map("less", &[x, near])?, "sub"),
        };
        let beyond = self.cast(beyond, DType::U8)?;
        let code = self.map(step, &[code, beyond])?;
        self.op("bitcast", &[Attr::DType(to)], &[code])
    }
}

/// `BitCast`: the same bits under a dtype of the same width. Elements of fewer than 8 bits go by way of unsigned integers.
pub fn bit_cast(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let (x, to) = (ctx.input(0)?, target(ctx)?);
    let from = graph.dtype(x);
    if from == to {
        return Ok(vec![x]);
    }
    if from.packed_bits() < 8 || to.packed_bits() < 8 {
        if from.packed_bits() != to.packed_bits() {
            return Err(Fail::Bad(format!("the bits of {from} as {to}")));
        }
        let byte = match from.small() {
            // The bits of a signed integer, without its sign above.
            Some(Small::Signed(n)) => {
                let wide = graph.cast(x, DType::U8)?;
                graph.map_num("bitwise_and", wide, (1i64 << n) - 1)?
            }
            _ => graph.op("bitcast", &[Attr::DType(DType::U8)], &[x])?,
        };
        return one(match to.small() {
            Some(Small::Signed(_)) => graph.cast(byte, to),
            _ => graph.op("bitcast", &[Attr::DType(to)], &[byte]),
        });
    }
    // A bool is a byte that is 0 or 1.
    let x = if graph.dtype(x) == DType::Bool {
        graph.cast(x, DType::U8)?
    } else {
        x
    };
    if graph.dtype(x) == to || (to == DType::Bool && graph.dtype(x).bytes() == 1) {
        return one(graph.cast(x, to));
    }
    one(graph.op("bitcast", &[Attr::DType(to)], &[x]))
}
