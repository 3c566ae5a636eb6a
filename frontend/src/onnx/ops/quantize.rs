//! Quantisation, composed of casts, scalings and integer contractions: `QuantizeLinear`, `DequantizeLinear`,
//! `DynamicQuantizeLinear`, `QLinearMatMul`, `QLinearConv`, `MatMulInteger`, `ConvInteger`.
//!
//! Bytes are multiplied as they are, u8 by i8, and what their zero points `p` and `q` take away follows from sums of one operand,
//! all in wrapping i32: `Σ (a - p)(b - q) = Σ ab - p Σ (b - q) - q Σ a`. Bytes of the other sign are such ones but for an offset of 128,
//! which their zero points have too. Sums of weights are computed when the model is compiled.

use super::super::tensor;
use super::cast::Rounding;
use super::*;
use brolga_ir::{Attr, Constant, DType, Dim, Small, dim::product};

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

/// The range of a quantised dtype of integers.
pub fn range(dtype: DType) -> Result<(f64, f64), Fail> {
    if let Some((least, most)) = dtype.small().and_then(Small::range) {
        return Ok((least as f64, most as f64));
    }
    Ok(match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        d => return unsupported(format!("quantisation to {d}")),
    })
}

/// Bytes of one sign, less a zero point of the same dtype; none where it is 0.
pub(super) struct Bytes {
    value: Value,
    zero: Option<Value>,
}

impl Builder<'_> {
    /// `saturate(round(x / scale) + zero)` in a quantised dtype, computed in f32 or f64.
    pub(super) fn quantized(&mut self, x: Value, scale: Value, zero: Option<Value>, to: DType) -> One {
        let (low, high) = range(to)?;
        let y = self.map("div", &[x, scale])?;
        let y = self.op("round", &[], &[y])?;
        let mut y = self.widen(y)?;
        if let Some(z) = zero.filter(|&z| !self.is_zero(z)) {
            let z = self.cast(z, self.dtype(y))?;
            y = self.map("add", &[y, z])?;
        }
        let y = self.map_num("max", y, low)?;
        let y = self.map_num("min", y, high)?;
        self.cast(y, to)
    }

    /// `x / scale + zero` as a float of 8 bits or fewer.
    fn quantized_float(&mut self, x: Value, scale: Value, zero: Option<Value>, to: DType, saturate: bool) -> One {
        let mut y = self.map("div", &[x, scale])?;
        if let Some(z) = zero.filter(|&z| !self.is_zero(z)) {
            y = self.widen(y)?;
            let z = self.cast(z, self.dtype(y))?;
            y = self.map("add", &[y, z])?;
        }
        self.minifloat(y, to, saturate, Rounding::Nearest)
    }

    /// An operand of an integer product as bytes of one sign, with its zero point.
    pub(super) fn bytes(&mut self, value: Value, zero: Option<Value>, to: DType) -> Result<Bytes, Fail> {
        let own = self.dtype(value);
        if !matches!(own, DType::U8 | DType::I8) {
            return Err(Fail::Bad(format!("an operand {}, expected u8 or i8", self.ty(value))));
        }
        let zero = zero.filter(|&z| !self.is_zero(z));
        let zero = match zero {
            Some(z) => z,
            None if own == to => return Ok(Bytes { value, zero: None }),
            None => self.scalar(own, 0),
        };
        let [value, zero] = [self.offset(value, to)?, self.offset(zero, to)?];
        let zero = (!self.is_zero(zero)).then_some(zero);
        Ok(Bytes { value, zero })
    }

    /// Bytes as bytes of another sign, 128 more or less.
    fn offset(&mut self, bytes: Value, to: DType) -> One {
        if self.dtype(bytes) == to {
            return Ok(bytes);
        }
        let bytes = self.cast(bytes, to)?;
        self.map_num("add", bytes, if to == DType::U8 { 128 } else { -128 })
    }

    /// True for a constant that is 0 everywhere.
    pub fn is_zero(&self, v: Value) -> bool {
        let all = |c: &Constant| c.to_tensor().iter().all(|x| x.f64() == 0.0);
        self.graph.as_constant(v).is_some_and(all)
    }

    /// True for constant bytes of at least two dimensions.
    fn is_weight(&self, v: Value) -> bool {
        let dtype = self.dtype(v);
        dtype.is_int() && dtype.bits() == 8 && self.rank(v) >= 2 && self.graph.as_constant(v).is_some()
    }

    /// Bytes less their zero point, in i32.
    fn centered(&mut self, x: &Bytes) -> One {
        let wide = self.cast(x.value, DType::I32)?;
        match x.zero {
            None => Ok(wide),
            Some(z) => {
                let z = self.cast(z, DType::I32)?;
                self.map("sub", &[wide, z])
            }
        }
    }

    /// A sum of products without what its operands' zero points add to it: given sums of the left operand, and of the right one
    /// less its zero point.
    fn corrected(
        &mut self,
        mut y: Value,
        [p, q]: [Option<Value>; 2],
        left: impl FnOnce(&mut Self) -> One,
        right: impl FnOnce(&mut Self) -> One,
    ) -> One {
        let mut less = |graph: &mut Self, zero: Value, sum: Value| {
            let zero = graph.cast(zero, DType::I32)?;
            let by = graph.map("mul", &[zero, sum])?;
            y = graph.map("sub", &[y, by])?;
            Ok::<(), Fail>(())
        };
        if let Some(p) = p {
            let sum = right(self)?;
            less(self, p, sum)?;
        }
        if let Some(q) = q {
            let sum = left(self)?;
            less(self, q, sum)?;
        }
        Ok(y)
    }

    /// numpy's matmul of bytes less their zero points, in i32; zero points broadcast against their operands.
    pub(super) fn matmul_bytes(&mut self, [a, b]: [(Value, Option<Value>); 2]) -> One {
        let (ra, rb) = (self.rank(a.0), self.rank(b.0));
        let mut left = self.bytes(a.0, a.1, DType::U8)?;
        let mut right = self.bytes(b.0, b.1, DType::I8)?;
        if ra == 1 {
            left.value = self.unsqueeze(left.value, &[0])?;
        }
        if rb == 1 {
            right.value = self.unsqueeze(right.value, &[1])?;
        }
        let y = self.matmul_to(DType::I32, left.value, right.value)?;
        let zeros = [left.zero, right.zero];
        let along = |graph: &mut Self, x: Value, back: usize| graph.reduce("sum", &[graph.rank(x) - back], x);
        let mut y = self.corrected(
            y,
            zeros,
            |graph| {
                let wide = graph.cast(left.value, DType::I32)?;
                along(graph, wide, 1)
            },
            |graph| {
                let wide = graph.centered(&right)?;
                along(graph, wide, 2)
            },
        )?;
        if rb == 1 {
            y = self.squeeze(y, &[self.rank(y) - 1])?;
        }
        if ra == 1 {
            let axis = self.rank(y) - if rb == 1 { 1 } else { 2 };
            y = self.squeeze(y, &[axis])?;
        }
        Ok(y)
    }

    /// A convolution of bytes less their zero points, in i32: that of `x` a scalar, that of `w` one for each output channel, `[O, 1, …]`,
    /// or a scalar.
    pub(super) fn conv_bytes(
        &mut self,
        ctx: &NodeCtx<'_>,
        x: (Value, Option<Value>),
        w: (Value, Option<Value>),
    ) -> One {
        let x = self.bytes(x.0, x.1, DType::U8)?;
        let w = self.bytes(w.0, w.1, DType::I8)?;
        let around = match x.zero {
            Some(z) => z,
            None => self.scalar(DType::U8, 0),
        };
        let y = self.conv_nodes(ctx, x.value, w.value, Some(around))?;
        // What there is one of for each output channel, against the result.
        let channels = |graph: &mut Self, v: Value| match graph.shape(v).split_first() {
            None => Ok(v),
            Some((_, rest)) if !rest.iter().all(|d| d.is(1)) => Err(Fail::Bad(format!(
                "{} for the weight {}",
                graph.ty(v),
                graph.ty(w.value)
            ))),
            Some((channels, rest)) => {
                let mut shape = vec![channels.clone()];
                shape.extend_from_slice(&rest[1.min(rest.len())..]);
                graph.reshape(v, shape)
            }
        };
        let q = match w.zero {
            Some(z) => Some(channels(self, z)?),
            None => None,
        };
        self.corrected(
            y,
            [x.zero, q],
            |graph| {
                let ty = graph.ty(w.value).clone();
                let ones = graph.splat(DType::I8, &ty.shape, 1)?;
                graph.conv_nodes(ctx, x.value, ones, Some(around))
            },
            |graph| {
                let wide = graph.centered(&w)?;
                let axes: Vec<usize> = (1..graph.rank(wide)).collect();
                let sums = graph.reduce("sum", &axes, wide)?;
                channels(graph, sums)
            },
        )
    }

    /// Parameters of each row (or of all) of a matrix operand, against its last two dimensions.
    pub(super) fn per_row(&mut self, p: Value) -> One {
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
        (None, code) => tensor::dtype(code).map_err(Fail::Unsupported)?,
    };
    if let Some(code) = ctx.opt_int("precision")?.filter(|&c| c != 0) {
        let precision = tensor::dtype(code).map_err(Fail::Unsupported)?;
        x = graph.cast(x, precision)?;
        scale = graph.cast(scale, precision)?;
    }
    if graph.dtype(scale).small().is_some() {
        scale = graph.cast(scale, DType::F32)?;
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
    one(match to.small() {
        Some(Small::Float(_)) => graph.quantized_float(x, scale, zero, to, ctx.int("saturate", 1)? != 0),
        _ => graph.quantized(x, scale, zero, to),
    })
}

/// `DequantizeLinear`: `(x - zero) scale`.
pub fn dequantize(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (x, scale) = (ctx.input(0)?, ctx.input(1)?);
    let to = match ctx.int("output_dtype", 0)? {
        0 if graph.dtype(scale).is_float() => graph.dtype(scale),
        0 => {
            let ty = graph.ty(scale);
            return Err(Fail::Bad(format!(
                "a scale {ty} without `output_dtype`, which it needs"
            )));
        }
        code => tensor::dtype(code).map_err(Fail::Unsupported)?,
    };
    let own = scale;
    let scale = parameter(graph, ctx, scale, x)?;
    let mut y = match graph.is_weight(x) {
        // Rules look for the bytes that products are of.
        true => graph.unfolded("cast", &[Attr::DType(DType::F32)], x)?,
        false => graph.cast(x, DType::F32)?,
    };
    let zero = ctx.optional(2).filter(|&z| !graph.is_zero(z));
    // Of weights no 0 is taken away; data has it written, so that rules find one form.
    let is_small = graph.dtype(x).small().is_some();
    if zero.is_some() || graph.graph.as_constant(x).is_none() && !is_small {
        let z = match zero {
            Some(z) => parameter(graph, ctx, z, x)?,
            None => graph.scalar(DType::F32, 0.0),
        };
        let z = graph.cast(z, DType::F32)?;
        y = graph.map("sub", &[y, z])?;
    }
    let scale = graph.cast(scale, DType::F32)?;
    let y = graph.map("mul", &[y, scale])?;
    if to == DType::F32 && is_small && graph.rank(x) == 2 {
        let axis = node::axis(ctx.int("axis", 1)?, 2)?;
        let block = usize::try_from(ctx.int("block_size", 0)?).ok().filter(|&b| b > 0);
        graph.note_dequantised(y, x, (own, zero), (axis, block));
    }
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
    one(graph.matmul_bytes([(ctx.input(0)?, za), (ctx.input(1)?, ctx.optional(3))]))
}

/// `QLinearMatMul`: operands a, its scale and zero point, b likewise, and those of the result.
pub fn qlinear_matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(8, 8)?;
    let za = graph.per_row(ctx.input(2)?)?;
    let y = graph.matmul_bytes([(ctx.input(0)?, Some(za)), (ctx.input(3)?, Some(ctx.input(5)?))])?;
    let sa = graph.per_row(ctx.input(1)?)?;
    let scale = [sa, ctx.input(4)?, ctx.input(6)?];
    one(requantize(graph, y, scale, ctx.input(7)?))
}

/// An i32 accumulator scaled by a scale product over the result's scale.
pub fn requantize(graph: &mut Builder<'_>, y: Value, [sa, sb, sy]: [Value; 3], zero: Value) -> One {
    let to = graph.dtype(zero);
    let y = graph.cast(y, DType::F32)?;
    let mut wide = |v: Value| graph.cast(v, DType::F32);
    let (sa, sb, sy) = (wide(sa)?, wide(sb)?, wide(sy)?);
    let s = graph.map("mul", &[sa, sb])?;
    let y = graph.map("mul", &[y, s])?;
    graph.quantized(y, sy, Some(zero), to)
}

/// A parameter of each output channel, against [O, …].
pub fn per_channel(graph: &mut Builder<'_>, p: Value, trailing: usize) -> One {
    if product(&graph.shape(p)).is(1) {
        return graph.reshape(p, vec![]);
    }
    let axes: Vec<usize> = (1..=trailing).collect();
    graph.unsqueeze(p, &axes)
}

/// `ConvInteger`, to i32.
pub fn conv_integer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 4)?;
    let w = ctx.input(1)?;
    let zx = match ctx.optional(2) {
        Some(z) => Some(graph.reshape(z, vec![])?),
        None => None,
    };
    let zw = match ctx.optional(3) {
        Some(z) => Some(per_channel(graph, z, graph.rank(w).saturating_sub(1))?),
        None => None,
    };
    one(graph.conv_bytes(ctx, (ctx.input(0)?, zx), (w, zw)))
}

/// `QLinearConv`: operands x, its scale and zero point, w likewise, those of the result, and a bias in i32.
pub fn qlinear_conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(8, 9)?;
    let zx = graph.reshape(ctx.input(2)?, vec![])?;
    let w = ctx.input(3)?;
    let rank = graph.rank(w);
    let zw = per_channel(graph, ctx.input(5)?, rank.saturating_sub(1))?;
    let mut y = graph.conv_bytes(ctx, (ctx.input(0)?, Some(zx)), (w, Some(zw)))?;
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
