//! `DeformConv`: a convolution whose taps are moved by offsets that are data. What every tap sees is sampled, [N, C, taps,
//! points], and multiplied with the weights as matrices are.
//!
//! Sources: Dai et al., "Deformable convolutional networks", 2017; Zhu et al., "Deformable ConvNets v2", 2018.

use super::sample::{Beside, Interpolation, Sampler};
use super::*;
use brolga_ir::{Dim, dim::product};

/// `DeformConv`.
pub fn deform_conv(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 5)?;
    let (x, w, offset) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let dtype = graph.dtype(x);
    let kernel = conv::kernel_of(graph, ctx, x, w)?;
    let n = kernel.len();
    let (groups, parts) = (ctx.int("group", 1)?, ctx.int("offset_group", 1)?);
    let weight = graph.shape(w);
    let (Some(out), Some(within)) = (weight[0].as_const(), weight[1].as_const()) else {
        return unsupported("symbolic numbers of channels");
    };
    let channels = within.saturating_mul(groups);
    if groups < 1 || parts < 1 || out % groups != 0 || channels % parts != 0 {
        return Err(Fail::Bad(format!(
            "{groups} groups and {parts} groups of offsets for the weight {}",
            graph.ty(w)
        )));
    }
    let x = graph.fit(x, 1, &Dim::Const(channels))?;
    let shape = graph.shape(x);
    let win = conv::window(ctx, &shape[2..], kernel.clone())?;
    let sizes: Vec<Dim> = (0..n)
        .map(|i| &win.room(i, &shape[2 + i]).floor_div(&Dim::Const(win.strides[i])) + &Dim::ONE)
        .collect();
    let batch = shape[0].clone();
    let taps: Vec<Dim> = kernel.iter().map(|&k| Dim::Const(k)).collect();
    let (tap_count, point_count) = (product(&taps), product(&sizes));
    let want = [&[batch.clone(), &tap_count * (parts * n as i64)][..], &sizes].concat();
    let offset = graph.fit_shape(offset, &want)?;
    let images = &batch * parts;
    let count = &tap_count * &point_count;

    // Where each tap of each window falls, moved by its offset: [N · offset groups, taps · points].
    let split = [&[images.clone()][..], &taps, &[Dim::from(n)], &sizes].concat();
    let offset = graph.widen(offset)?;
    let offset = graph.reshape(offset, split)?;
    let float = graph.dtype(offset);
    let mut positions = vec![];
    for i in 0..n {
        let moved = graph.slice_axis(offset, 1 + n, Dim::from(i), Dim::ONE)?;
        let moved = graph.squeeze(moved, &[1 + n])?;
        let mut around = [&taps[..], &sizes].concat();
        (0..2 * n).filter(|&a| a % n != i).for_each(|a| around[a] = Dim::ONE);
        let tap = graph.iota(float, &around, i)?;
        let tap = graph.map_num("mul", tap, win.dilations[i] as f64)?;
        let start = graph.iota(float, &around, n + i)?;
        let start = graph.map_num("mul", start, win.strides[i] as f64)?;
        let low = graph.dim_scalar(&win.low[i], float)?;
        let start = graph.map("sub", &[start, low])?;
        let place = graph.map("add", &[start, tap])?;
        let place = graph.map("add", &[moved, place])?;
        positions.push(graph.reshape(place, vec![images.clone(), count.clone()])?);
    }
    let planes = [&[images.clone(), Dim::Const(channels / parts)][..], &shape[2..]].concat();
    let planes = graph.reshape(x, planes)?;
    let sampler = Sampler::new(graph, planes, Interpolation::Linear, Beside::Zeros)?;
    let mut seen = sampler.at(graph, &positions)?;
    let compute = graph.dtype(seen);
    if let Some(mask) = ctx.optional(4) {
        let want = [&[batch.clone(), &tap_count * parts][..], &sizes].concat();
        let mask = graph.fit_shape(mask, &want)?;
        let mask = graph.cast(mask, compute)?;
        let mask = graph.reshape(mask, vec![images, Dim::ONE, count])?;
        seen = graph.map("mul", &[seen, mask])?;
    }

    // [N, groups, channels, taps, points] times [groups, results, channels, taps].
    let (g, inner) = (Dim::Const(groups), Dim::Const(within));
    let seen = graph.reshape(
        seen,
        vec![
            batch.clone(),
            g.clone(),
            inner.clone(),
            tap_count.clone(),
            point_count.clone(),
        ],
    )?;
    let w = graph.cast(w, compute)?;
    let w = graph.reshape(w, vec![g, Dim::Const(out / groups), inner, tap_count])?;
    let y = graph.contract(w, seen, [&[0], &[1]], [&[2, 3], &[2, 3]])?;
    let y = graph.transpose(y, &[2, 0, 1, 3])?;
    let y = graph.reshape(y, [&[batch, Dim::Const(out)][..], &sizes].concat())?;
    let y = conv::add_bias(graph, y, ctx.optional(3))?;
    one(graph.cast(y, dtype))
}
