//! `MatMul` and `Gemm`, as contractions.

use super::*;
use brolga_ir::{DType, Dim, dim::product};

impl Builder<'_> {
    /// numpy's matmul, in the dtype of the left operand.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn matmul(&mut self, a: Value, b: Value) -> One {
        self.matmul_to(self.dtype(a), a, b)
    }

    /// The same in another dtype, see [`Builder::contract_to`]. Batch dimensions of the right operand that are all 1 (or none)
    /// need no batch: the left operand's are then free. Others are broadcast where they differ.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn matmul_to(&mut self, to: DType, a: Value, b: Value) -> One {
        let (sa, sb) = (self.shape(a), self.shape(b));
        if sa.is_empty() || sb.is_empty() {
            return Err(Fail::Bad(format!(
                "operands {} and {}, expected rank 1 or more",
                self.ty(a),
                self.ty(b)
            )));
        }
        let (ra, rb) = (sa.len(), sb.len());
        if rb == 1 {
            return self.contract_to(to, a, b, [&[], &[]], [&[ra - 1], &[0]]);
        }
        if ra == 1 && rb == 2 {
            return self.contract_to(to, a, b, [&[], &[]], [&[0], &[0]]);
        }
        if ra == 1 {
            let a = self.unsqueeze(a, &[0])?;
            let y = self.matmul_to(to, a, b)?;
            let axis = self.rank(y) - 2;
            return self.squeeze(y, &[axis]);
        }
        let (ba, bb) = (&sa[..ra - 2], &sb[..rb - 2]);
        if bb.iter().all(|d| d.is(1)) {
            let flat = self.reshape(b, sb[rb - 2..].to_vec())?;
            let y = self.contract_to(to, a, flat, [&[], &[]], [&[ra - 1], &[0]])?;
            let lead = rb.saturating_sub(ra);
            let mut shape = vec![Dim::ONE; lead];
            shape.extend(self.shape(y));
            return self.reshape(y, shape);
        }
        let batch = self.broadcast_shapes(&[ba.to_vec(), bb.to_vec()])?;
        let mut side = |v: Value, s: &[Dim]| {
            let shape = [&batch[..], &s[s.len() - 2..]].concat();
            self.spread(v, &shape)
        };
        let (a, b) = (side(a, &sa)?, side(b, &sb)?);
        let n = batch.len();
        let axes: Vec<usize> = (0..n).collect();
        self.contract_to(to, a, b, [&axes, &axes], [&[n + 1], &[n]])
    }
}

/// `MatMul`.
pub fn matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    one(graph.matmul(ctx.input(0)?, ctx.input(1)?))
}

/// `Gemm`: `alpha A' B' + beta C`; transposed operands are contracted over their other dimension.
pub fn gemm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 3)?;
    let (mut a, b) = (ctx.input(0)?, ctx.input(1)?);
    if graph.rank(a) > 2 && ctx.version < 7 {
        let s = graph.shape(a);
        a = graph.reshape(a, vec![s[0].clone(), product(&s[1..])])?;
    }
    if graph.rank(a) != 2 || graph.rank(b) != 2 {
        return Err(Fail::Bad(format!(
            "operands {} and {}, expected rank 2",
            graph.ty(a),
            graph.ty(b)
        )));
    }
    let (ta, tb) = (ctx.flag("transA", false)?, ctx.flag("transB", false)?);
    // A result of 16 bits is rounded once, after everything has been added.
    let (dtype, acc) = (graph.dtype(a), graph.dtype(a).compute());
    let mut y = graph.contract_to(acc, a, b, [&[], &[]], [&[usize::from(!ta)], &[usize::from(tb)]])?;
    let (alpha, beta) = (ctx.float("alpha", 1.0)?, ctx.float("beta", 1.0)?);
    if alpha != 1.0 {
        y = scale(graph, y, alpha)?;
    }
    let Some(mut c) = ctx.optional(2) else {
        return one(graph.cast(y, dtype));
    };
    c = graph.cast(c, acc)?;
    if beta != 1.0 {
        c = scale(graph, c, beta)?;
    }
    let shape = graph.shape(y);
    let c = graph.spread(c, &shape)?;
    let y = graph.map("add", &[y, c])?;
    one(graph.cast(y, dtype))
}

/// A value times a float, which an integer Gemm rounds toward zero at the end.
fn scale(graph: &mut Builder<'_>, v: Value, by: f64) -> One {
    let dtype = graph.dtype(v);
    if dtype.is_float() || by.fract() == 0.0 {
        return graph.map_num("mul", v, by);
    }
    let wide = graph.cast(v, DType::F64)?;
    let y = graph.map_num("mul", wide, by)?;
    graph.cast(y, dtype)
}
