//! Products of bytes with results in floats.

use super::*;
use brolga_ir::{DType, dim::product};

impl Builder<'_> {
    /// A sum of products of bytes, in i32, times a scale, and a bias.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub(super) fn scaled(&mut self, y: Value, scale: Value, bias: Option<Value>) -> One {
        let y = self.cast(y, DType::F32)?;
        let y = self.map("mul", &[y, scale])?;
        match bias {
            Some(b) => self.map("add", &[y, b]),
            None => Ok(y),
        }
    }

    /// A parameter of one element as a scalar, others as they are.
    ///
    /// # Errors
    /// Never.
    pub(super) fn single(&mut self, v: Value) -> One {
        match product(&self.shape(v)).is(1) {
            true => self.reshape(v, vec![]),
            false => Ok(v),
        }
    }

    fn single_of(&mut self, v: Option<Value>) -> Result<Option<Value>, Fail> {
        v.map(|v| self.single(v)).transpose()
    }
}

/// `MatMulIntegerToFloat`.
pub fn matmul_to_float(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(4, 7)?;
    let zeros = [graph.single_of(ctx.optional(4))?, graph.single_of(ctx.optional(5))?];
    let y = graph.matmul_bytes([(ctx.input(0)?, zeros[0]), (ctx.input(1)?, zeros[1])])?;
    let scales = [graph.single(ctx.input(2)?)?, graph.single(ctx.input(3)?)?];
    let scale = graph.map("mul", &scales)?;
    one(graph.scaled(y, scale, ctx.optional(6)))
}

/// `DynamicQuantizeMatMul`: the left side becomes u8 by its range.
pub fn dynamic_matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 5)?;
    let a = graph.ops("dynamic_quantize", &[], &[ctx.input(0)?])?;
    let zero = graph.single_of(ctx.optional(3))?;
    let y = graph.matmul_bytes([(a[0], Some(a[2])), (ctx.input(1)?, zero)])?;
    let scale = graph.single(ctx.input(2)?)?;
    let scale = graph.map("mul", &[a[1], scale])?;
    one(graph.scaled(y, scale, ctx.optional(4)))
}

/// `QGemm`: `alpha A' B' + C` of bytes and a bias in i32, as floats or, with parameters of a result, as bytes.
pub fn gemm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(6, 9)?;
    let mut sides = [ctx.input(0)?, ctx.input(3)?];
    for (v, flag) in sides.iter_mut().zip(["transA", "transB"]) {
        if graph.rank(*v) != 2 {
            return Err(Fail::Bad(format!("an operand {}, expected rank 2", graph.ty(*v))));
        }
        if ctx.flag(flag, false)? {
            *v = graph.transpose(*v, &[1, 0])?;
        }
    }
    let zeros = [graph.single_of(ctx.optional(2))?, graph.single_of(ctx.optional(5))?];
    let mut y = graph.matmul_bytes([(sides[0], zeros[0]), (sides[1], zeros[1])])?;
    if let Some(c) = ctx.optional(6) {
        let shape = graph.shape(y);
        let c = graph.spread(c, &shape)?;
        y = graph.map("add", &[y, c])?;
    }
    let mut scales = [graph.single(ctx.input(1)?)?, graph.single(ctx.input(4)?)?];
    let alpha = ctx.float("alpha", 1.0)?;
    if alpha != 1.0 {
        scales[0] = graph.map_num("mul", scales[0], alpha)?;
    }
    let scale = graph.map("mul", &scales)?;
    let Some(to) = ctx.optional(7) else {
        return one(graph.scaled(y, scale, None));
    };
    let to = graph.single(to)?;
    let scale = graph.map("div", &[scale, to])?;
    let y = graph.scaled(y, scale, None)?;
    let unit = graph.scalar(DType::F32, 1.0);
    let zero = graph.single_of(ctx.optional(8))?;
    let dtype = zero.map_or(graph.dtype(sides[0]), |z| graph.dtype(z));
    one(graph.quantized(y, unit, zero, dtype))
}
