//! Quantisation, composed of casts, scalings and integer contractions: `QuantizeLinear`, `DequantizeLinear`,
//! `DynamicQuantizeLinear`, `QLinearMatMul`, `QLinearConv`, `MatMulInteger`, `ConvInteger`.

use super::super::tensor;
use super::*;
use brolga_ir::{DType, Dim, dim::product};

/// A scale or zero point in a form that broadcasts against `x`: for all, for each index of an axis, or for each block of
/// an axis.
fn parameter(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, p: Value, x: Value) -> One {
    let (shape, own) = (graph.shape(x), graph.shape(p));
    if product(&own).is(1) {
        return graph.reshape(p, vec![]);
    }
    let axis = node::axis(ctx.int("axis", 1)?, shape.len())?;
    let block = ctx.int("block_size", 0)?;
    if block == 0 {
        if own.len() != 1 {
            return Err(Fail::Bad(format!(
                "parameter {} for axis {axis} of {}",
                graph.ty(p),
                graph.ty(x)
            )));
        }
        let mut wide = vec![Dim::ONE; shape.len()];
        wide[axis] = own[0].clone();
        return graph.reshape(p, wide);
    }
    if own.len() != shape.len() || block < 0 {
        return Err(Fail::Bad(format!(
            "parameter {} for blocks of {block} of {}",
            graph.ty(p),
            graph.ty(x)
        )));
    }
    let mut wide = own;
    wide.insert(axis + 1, Dim::Const(block));
    let p = graph.unsqueeze(p, &[axis + 1])?;
    let p = graph.spread(p, &wide)?;
    let mut flat = wide;
    let length = flat.remove(axis + 1);
    flat[axis] = &flat[axis] * &length;
    let p = graph.reshape(p, flat)?;
    // The last block may be cut short.
    graph.slice_axis(p, axis, Dim::ZERO, shape[axis].clone())
}

/// The range of a quantised dtype.
fn range(dtype: DType) -> Result<(f64, f64), Fail> {
    Ok(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        d => return unsupported(format!("quantisation to {d}")),
    })
}

impl Builder<'_> {
    /// `saturate(round(x / scale) + zero)` in a quantised dtype, computed in f32 or f64.
    fn quantized(&mut self, x: Value, scale: Value, zero: Option<Value>, to: DType) -> One {
        let (low, high) = range(to)?;
        let y = self.map("div", &[x, scale])?;
        let y = self.op("round", &[], &[y])?;
        let mut y = self.widen(y)?;
        if let Some(z) = zero {
            let z = self.cast(z, self.dtype(y))?;
            y = self.map("add", &[y, z])?;
        }
        let y = self.map_num("max", y, low)?;
        let y = self.map_num("min", y, high)?;
        self.cast(y, to)
    }

    /// An integer operand less its zero point, in i32.
    fn centered(&mut self, x: Value, zero: Option<Value>) -> One {
        let x = self.cast(x, DType::I32)?;
        match zero {
            None => Ok(x),
            Some(z) => {
                let z = self.cast(z, DType::I32)?;
                self.map("sub", &[x, z])
            }
        }
    }

    /// Parameters of each row (or of all) of a matrix operand, against its last two dimensions.
    fn per_row(&mut self, p: Value) -> One {
        match self.rank(p) {
            0 => Ok(p),
            1 if product(&self.shape(p)).is(1) => self.reshape(p, vec![]),
            1 => self.unsqueeze(p, &[1]),
            _ => Ok(p),
        }
    }
}

/// `QuantizeLinear`.
pub fn quantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (mut x, mut scale) = (ctx.input(0)?, ctx.input(1)?);
    let to = match (ctx.optional(2), ctx.int("output_dtype", 0)?) {
        (Some(z), _) => graph.dtype(z),
        (None, 0) => DType::U8,
        (None, code) => tensor::dtype(code as i32).map_err(Fail::Unsupported)?,
    };
    if let Some(code) = ctx.opt_int("precision")?.filter(|&c| c != 0) {
        let precision = tensor::dtype(code as i32).map_err(Fail::Unsupported)?;
        x = graph.cast(x, precision)?;
        scale = graph.cast(scale, precision)?;
    }
    if !graph.dtype(x).is_float() {
        x = graph.cast(x, graph.dtype(scale))?;
    } else {
        scale = graph.cast(scale, graph.dtype(x))?;
    }
    let scale = parameter(graph, ctx, scale, x)?;
    let zero = match ctx.optional(2) {
        Some(z) => Some(parameter(graph, ctx, z, x)?),
        None => None,
    };
    one(graph.quantized(x, scale, zero, to))
}

/// `DequantizeLinear`: `(x - zero) scale`.
pub fn dequantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (x, scale) = (ctx.input(0)?, ctx.input(1)?);
    let to = match ctx.int("output_dtype", 0)? {
        0 => graph.dtype(scale),
        code => tensor::dtype(code as i32).map_err(Fail::Unsupported)?,
    };
    let scale = parameter(graph, ctx, scale, x)?;
    let mut y = graph.cast(x, DType::F32)?;
    if let Some(z) = ctx.optional(2) {
        let z = parameter(graph, ctx, z, x)?;
        let z = graph.cast(z, DType::F32)?;
        y = graph.map("sub", &[y, z])?;
    }
    let scale = graph.cast(scale, DType::F32)?;
    let y = graph.map("mul", &[y, scale])?;
    one(graph.cast(y, to))
}

/// `DynamicQuantizeLinear`: to u8, by the range of the data, which is made to contain 0.
pub fn dynamic_quantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    graph.ops("dynamic_quantize", &[], &[x])
}

/// `MatMulInteger`, to i32.
pub fn matmul_integer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let za = match ctx.optional(2) {
        Some(z) => Some(graph.per_row(z)?),
        None => None,
    };
    let a = graph.centered(ctx.input(0)?, za)?;
    let b = graph.centered(ctx.input(1)?, ctx.optional(3))?;
    one(graph.matmul(a, b))
}

/// `QLinearMatMul`: operands a, its scale and zero point, b likewise, and those of the result.
pub fn qlinear_matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(8, 8)?;
    let za = graph.per_row(ctx.input(2)?)?;
    let a = graph.centered(ctx.input(0)?, Some(za))?;
    let b = graph.centered(ctx.input(3)?, Some(ctx.input(5)?))?;
    let y = graph.matmul(a, b)?;
    let sa = graph.per_row(ctx.input(1)?)?;
    let scale = [sa, ctx.input(4)?, ctx.input(6)?];
    one(requantize(graph, y, scale, ctx.input(7)?))
}

/// An i32 accumulator scaled by a scale product over the result's scale.
fn requantize(graph: &mut Builder<'_>, y: Value, [sa, sb, sy]: [Value; 3], zero: Value) -> One {
    let to = graph.dtype(zero);
    let y = graph.cast(y, DType::F32)?;
    let mut wide = |v: Value| graph.cast(v, DType::F32);
    let (sa, sb, sy) = (wide(sa)?, wide(sb)?, wide(sy)?);
    let s = graph.map("mul", &[sa, sb])?;
    let y = graph.map("mul", &[y, s])?;
    graph.quantized(y, sy, Some(zero), to)
}

/// A parameter of each output channel, against [O, …].
fn per_channel(graph: &mut Builder<'_>, p: Value, trailing: usize) -> One {
    if product(&graph.shape(p)).is(1) {
        return graph.reshape(p, vec![]);
    }
    let axes: Vec<usize> = (1..=trailing).collect();
    graph.unsqueeze(p, &axes)
}

/// `ConvInteger`, to i32.
pub fn conv_integer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let x = graph.centered(ctx.input(0)?, ctx.optional(2))?;
    let w = ctx.input(1)?;
    let zw = match ctx.optional(3) {
        Some(z) => Some(per_channel(graph, z, graph.rank(w).saturating_sub(1))?),
        None => None,
    };
    let w = graph.centered(w, zw)?;
    one(graph.conv_nodes(ctx, x, w))
}

/// `QLinearConv`: operands x, its scale and zero point, w likewise, those of the result, and a bias in i32.
pub fn qlinear_conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(8, 9)?;
    let zx = graph.reshape(ctx.input(2)?, vec![])?;
    let x = graph.centered(ctx.input(0)?, Some(zx))?;
    let w = ctx.input(3)?;
    let rank = graph.rank(w);
    let zw = per_channel(graph, ctx.input(5)?, rank.saturating_sub(1))?;
    let w = graph.centered(w, Some(zw))?;
    let mut y = graph.conv_nodes(ctx, x, w)?;
    let spatial = rank - 2;
    if let Some(b) = ctx.optional(8) {
        let axes: Vec<usize> = (1..=spatial).collect();
        let b = graph.unsqueeze(b, &axes)?;
        y = graph.map("add", &[y, b])?;
    }
    let scale_w = per_channel(graph, ctx.input(4)?, spatial)?;
    let scale_x = graph.reshape(ctx.input(1)?, vec![])?;
    let scale_y = graph.reshape(ctx.input(6)?, vec![])?;
    let zero = graph.reshape(ctx.input(7)?, vec![])?;
    one(requantize(graph, y, [scale_x, scale_w, scale_y], zero))
}
