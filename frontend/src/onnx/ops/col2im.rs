//! `Col2Im`: the sum of overlapping blocks, one axis after the other. A block of `k` elements every `s` is cut in pieces of
//! `s`; the pieces of one number lie side by side as the elements of a row do, so that the blocks are a sum of `k / s` rows,
//! rounded up, each `s` elements behind the one before.
//!
//! ```text
//! [blocks, k]  -->  [blocks, k / s, s]  -->  Σ_j  row j = [blocks · s], moved by j · s
//! ```

use super::*;
use brolga_ir::{Dim, dim::product};

/// The most pieces that blocks are cut into, along all axes.
const MOST_PIECES: i64 = 1 << 12;

/// `Col2Im`.
pub fn col2im(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 3)?;
    let x = ctx.input(0)?;
    let image = graph.dims_operand(ctx.input(1)?, "the image's shape")?;
    let block = graph.ints_operand(ctx.input(2)?, "the block's shape")?;
    let n = image.len();
    if n == 0 || block.len() != n || graph.rank(x) != 3 {
        return Err(Fail::Bad(format!(
            "{}, an image {image:?} and a block {block:?}, expected rank 3 and as many extents",
            graph.ty(x)
        )));
    }
    let win = conv::window(ctx, &image, block.clone())?;
    let lengths = (0..n).map(|i| piece(block[i], win.strides[i], win.dilations[i]));
    let pieces = lengths
        .zip(&block)
        .fold(0i64, |sum, (piece, k)| sum.saturating_add(k / piece));
    if pieces > MOST_PIECES {
        return unsupported(format!("blocks {block:?} in {pieces} pieces, more than {MOST_PIECES}"));
    }
    let mut blocks = vec![];
    for (i, d) in image.iter().enumerate() {
        graph.require_at_most(&Dim::ZERO, &win.room(i, d))?;
        blocks.push(&win.room(i, d).floor_div(&Dim::Const(win.strides[i])) + &Dim::ONE);
    }
    let shape = graph.shape(x);
    let size = block.iter().try_fold(1i64, |a, &b| a.checked_mul(b));
    let channels = size.and_then(|s| shape[1].exact_div(&Dim::Const(s)));
    let Some(channels) = channels else {
        return Err(Fail::Bad(format!("blocks {block:?} of {}", graph.ty(x))));
    };
    let x = graph.fit(x, 2, &product(&blocks))?;
    let taps: Vec<Dim> = block.iter().map(|&k| Dim::Const(k)).collect();
    let mut y = graph.reshape(x, [&[shape[0].clone(), channels][..], &taps, &blocks].concat())?;
    // The axes of what is left: blocks' elements, then numbers of blocks, then extents that are done.
    for (i, extent) in image.iter().take(n).enumerate() {
        let left = n - i;
        let rank = graph.rank(y);
        // [N, C, other taps, other blocks, done, blocks, taps].
        let perm: Vec<usize> = (0..rank)
            .filter(|&a| a != 2 && a != 2 + left)
            .chain([2 + left, 2])
            .collect();
        y = graph.transpose(y, &perm)?;
        let steps = Steps {
            stride: win.strides[i],
            dilation: win.dilations[i],
            low: win.low[i].clone(),
            extent: extent.clone(),
        };
        y = overlap(graph, y, &steps)?;
    }
    Ok(vec![y])
}

/// How many elements of a block of `taps` lie in a piece: those that lie apart are rows of their own.
fn piece(taps: i64, stride: i64, dilation: i64) -> i64 {
    if dilation == 1 { stride.min(taps) } else { 1 }
}

/// How blocks lie along an axis.
struct Steps {
    stride: i64,
    dilation: i64,
    low: Dim,
    extent: Dim,
}

/// [… blocks, taps] added up along an axis: [… extent].
fn overlap(graph: &mut Builder<'_>, x: Value, steps: &Steps) -> One {
    let shape = graph.shape(x);
    let axis = shape.len() - 2;
    let taps = shape[axis + 1].as_const().expect("a block's extents are known");
    let s = steps.stride;
    let piece = piece(taps, s, steps.dilation);
    let mut sum: Option<Value> = None;
    for first in (0..taps).step_by(piece as usize) {
        let part = graph.slice_axis(x, axis + 1, Dim::Const(first), Dim::Const(piece.min(taps - first)))?;
        let mut filled = vec![Dim::ZERO; axis + 2];
        filled[axis + 1] = Dim::Const(s - piece.min(taps - first));
        let part = graph.pad(part, vec![Dim::ZERO; axis + 2], filled, vec![0; axis + 2], 0)?;
        let row = &shape[axis] * s;
        let part = graph.reshape(part, [&shape[..axis], std::slice::from_ref(&row)].concat())?;
        let (mut low, mut high) = (vec![Dim::ZERO; axis + 1], vec![Dim::ZERO; axis + 1]);
        low[axis] = &Dim::Const(first * steps.dilation) - &steps.low;
        high[axis] = &(&steps.extent - &row) - &low[axis];
        let part = graph.pad(part, low, high, vec![0; axis + 1], 0)?;
        sum = Some(match sum {
            Some(sum) => graph.map("add", &[sum, part])?,
            None => part,
        });
    }
    Ok(sum.expect("a block has an element"))
}
