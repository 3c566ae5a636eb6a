//! `RotaryEmbedding`: pairs of elements rotated by angles whose sines and cosines are given.

use super::*;
use brolga_ir::Dim;

/// `RotaryEmbedding`, in halves or interleaved pairs, of all or of the first elements of each head.
pub fn rotary(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 4)?;
    let input = ctx.input(0)?;
    let shape = graph.shape(input);
    // As [batch, sequence, heads, size].
    let x = match shape.len() {
        4 => graph.transpose(input, &[0, 2, 1, 3])?,
        3 => {
            let heads = ctx.int("num_heads", 0)?;
            let size = match shape[2].exact_div(&Dim::Const(heads)) {
                Some(size) if heads > 0 => size,
                _ => return Err(Fail::Bad(format!("{heads} heads of {}", graph.ty(input)))),
            };
            graph.reshape(input, vec![shape[0].clone(), shape[1].clone(), Dim::Const(heads), size])?
        }
        _ => return Err(Fail::Bad(format!("{}, expected rank 3 or 4", graph.ty(input)))),
    };
    let Some(size) = graph.shape(x)[3].as_const() else {
        return unsupported("a symbolic head size");
    };
    let rotated = match ctx.int("rotary_embedding_dim", 0)? {
        0 => size,
        n => n,
    };
    if rotated < 0 || rotated > size || rotated % 2 != 0 {
        return Err(Fail::Bad(format!(
            "{rotated} of {size} elements to rotate, expected an even number of them"
        )));
    }
    let half = Dim::Const(rotated / 2);
    let (mut cos, mut sin) = (ctx.input(1)?, ctx.input(2)?);
    if let Some(ids) = ctx.optional(3) {
        cos = graph.gather(0, cos, ids)?;
        sin = graph.gather(0, sin, ids)?;
    }
    for c in [&mut cos, &mut sin] {
        if graph.rank(*c) != 3 || graph.shape(*c)[2] != half {
            return Err(Fail::Bad(format!(
                "angles {}, expected [batch, sequence, {half}]",
                graph.ty(*c)
            )));
        }
        *c = graph.unsqueeze(*c, &[2])?;
    }
    let turn = graph.slice_axis(x, 3, Dim::ZERO, Dim::Const(rotated))?;
    let rest = (rotated < size).then(|| graph.slice_axis(x, 3, Dim::Const(rotated), Dim::Const(size - rotated)));
    let interleaved = ctx.flag("interleaved", false)?;
    let turned = graph.shape(turn);
    let (a, b) = if interleaved {
        let mut sizes = turned.clone();
        sizes[3] = half.clone();
        let mut part = |start: i64| {
            let starts = vec![Dim::ZERO, Dim::ZERO, Dim::ZERO, Dim::Const(start)];
            graph.slice(turn, starts, sizes.clone(), vec![1, 1, 1, 2])
        };
        (part(0)?, part(1)?)
    } else {
        (
            graph.slice_axis(turn, 3, Dim::ZERO, half.clone())?,
            graph.slice_axis(turn, 3, half.clone(), half.clone())?,
        )
    };
    let product = |graph: &mut Builder<'_>, x: Value, y: Value| graph.map("mul", &[x, y]);
    let (ca, sb) = (product(graph, cos, a)?, product(graph, sin, b)?);
    let (sa, cb) = (product(graph, sin, a)?, product(graph, cos, b)?);
    let (re, imag) = (graph.map("sub", &[ca, sb])?, graph.map("add", &[sa, cb])?);
    let mut y = if interleaved {
        let (re, imag) = (graph.unsqueeze(re, &[4])?, graph.unsqueeze(imag, &[4])?);
        let pairs = graph.concat(4, &[re, imag])?;
        graph.reshape(pairs, turned)?
    } else {
        graph.concat(3, &[re, imag])?
    };
    if let Some(rest) = rest {
        y = graph.concat(3, &[y, rest?])?;
    }
    one(if shape.len() == 4 {
        graph.transpose(y, &[0, 2, 1, 3])
    } else {
        graph.reshape(y, shape)
    })
}
