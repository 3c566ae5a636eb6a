//! `RotaryEmbedding`: pairs of elements turned by angles whose sines and cosines are given; the operator of the IR.

use super::*;
use brolga_ir::{Attr, Dim};

/// `RotaryEmbedding`, in halves or interleaved pairs, of all or of the first elements of each head.
pub fn rotary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 4)?;
    let (mut cos, mut sin) = (ctx.input(1)?, ctx.input(2)?);
    if let Some(ids) = ctx.optional(3) {
        cos = graph.gather(0, cos, ids)?;
        sin = graph.gather(0, sin, ids)?;
    }
    one(turn_heads(graph, ctx, ctx.input(0)?, [cos, sin]))
}

/// Heads of `[batch, heads, sequence, size]`, or of `[batch, sequence, heads · size]` with the attribute `num_heads`, turned by angles
/// `[batch or 1, sequence, pairs]`, with the attributes `rotary_embedding_dim` and `interleaved`.
///
/// # Errors
/// When operands or attributes do not fit.
pub fn turn_heads(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, input: Value, angles: [Value; 2]) -> One {
    let shape = graph.shape(input);
    let [cos, _] = angles;
    let rotated = ctx.int("rotary_embedding_dim", 0)?;
    let (x, sequence) = match shape.len() {
        4 => (input, 2),
        3 => {
            let size = match ctx.int("num_heads", 0)? {
                // Without a number of heads their size is that of the angles.
                0 if rotated == 0 && graph.rank(cos) == 3 => &graph.shape(cos)[2] * 2,
                heads => match shape[2].exact_div(&Dim::Const(heads)) {
                    Some(size) if heads > 0 => size,
                    _ => return Err(Fail::Bad(format!("{heads} heads of {}", graph.ty(input)))),
                },
            };
            let Some(heads) = shape[2].exact_div(&size) else {
                return Err(Fail::Bad(format!("heads of {size} elements of {}", graph.ty(input))));
            };
            (
                graph.reshape(input, vec![shape[0].clone(), shape[1].clone(), heads, size])?,
                1,
            )
        }
        _ => return Err(Fail::Bad(format!("{}, expected rank 3 or 4", graph.ty(input)))),
    };
    let Some(size) = graph.shape(x)[3].as_const() else {
        return unsupported("a symbolic head size");
    };
    let rotated = if rotated == 0 { size } else { rotated };
    if rotated < 0 || rotated > size || rotated % 2 != 0 {
        return Err(Fail::Bad(format!(
            "{rotated} of {size} elements to rotate, expected an even number of them"
        )));
    }
    for c in angles {
        if graph.rank(c) != 3 || graph.shape(c)[2] != Dim::Const(rotated / 2) {
            return Err(Fail::Bad(format!(
                "angles {}, expected [batch, sequence, {}]",
                graph.ty(c),
                rotated / 2
            )));
        }
    }
    let interleaved = ctx.flag("interleaved", false)?;
    let y = graph.turned(x, sequence, angles, interleaved)?;
    graph.reshape(y, shape)
}

impl Builder<'_> {
    /// Heads turned by angles `[batch or 1, sequence, pairs]`: of `[batch, heads, sequence, size]` where the sequence is axis 2, of
    /// `[batch, sequence, heads, size]` where it is axis 1.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn turned(&mut self, x: Value, sequence: usize, angles: [Value; 2], interleaved: bool) -> One {
        let shape = self.shape(x);
        let heads = 3 - sequence;
        let mut operands = vec![x];
        for c in angles {
            if self.rank(c) != 3 {
                return Err(Fail::Bad(format!(
                    "angles {}, expected [batch, sequence, pairs]",
                    self.ty(c)
                )));
            }
            let mut c = self.cast(c, self.dtype(x))?;
            if !self.shape(c)[0].is(1) {
                c = self.fit(c, 0, &shape[0])?;
            }
            c = self.fit(c, 1, &shape[sequence])?;
            operands.push(self.unsqueeze(c, &[heads])?);
        }
        self.op("rotary", &[Attr::Bool(interleaved)], &operands)
    }
}
