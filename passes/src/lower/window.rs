//! Operators over windows: pooling and convolution as reductions whose index maps add kernel offsets to positions.

use super::group::Lowerer;
use super::stage::{E, StageBuilder};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::structured::{IterDim, IterKind, Read};
use brolga_ir::{DType, Dim, Node};

/// Position in the input along one spatial dimension: `o * stride + k * dilation - pad`.
fn position(out: Var, kernel: Var, stride: i64, dilation: i64, pad: &Dim) -> Ix {
    let o = Ix::var(out).scale(&Dim::Const(stride));
    let k = Ix::var(kernel).scale(&Dim::Const(dilation));
    &(&o + &k) + &(&Dim::ZERO - pad)
}

/// The value that a pooling stage merges, and its window dimensions (variables from `n`).
pub fn pool(l: &mut Lowerer, s: &mut StageBuilder, node: &Node, n: u32) -> Result<(E, Vec<IterDim>), String> {
    let op = &node.op;
    let (x, out) = (
        l.graph().ty(node.inputs[0]).clone(),
        l.graph().ty(node.outputs[0]).clone(),
    );
    let (kernel, strides, dilations) = (op.ints("kernel"), op.ints("strides"), op.ints("dilations"));
    let (low, spatial) = (op.dims("pads_low"), kernel.len());
    let first = if op.flag("channels_last") { 1 } else { 2 };
    let mut at: Vec<Ix> = (0..x.rank()).map(|d| Ix::var(Var(d as u32))).collect();
    let mut guard = vec![];
    for d in 0..spatial {
        let axis = first + d;
        at[axis] = position(Var(axis as u32), Var(n + d as u32), strides[d], dilations[d], &low[d]);
        // The last tap of the last window: beyond the end only with padding or ceil mode.
        let reach = &(&(&out.shape[axis] - 1) * strides[d]) + &(&Dim::Const((kernel[d] - 1) * dilations[d]) - &low[d]);
        let fits = (&(&x.shape[axis] - 1) - &reach).is_nonnegative();
        if !(low[d].is(0) && fits) {
            guard.push(Bound {
                index: at[axis].clone(),
                extent: x.shape[axis].clone(),
            });
        }
    }
    let dims = kernel
        .iter()
        .map(|&k| IterDim {
            extent: Dim::Const(k),
            kind: IterKind::Reduction,
        })
        .collect();
    let value = l.emit(s, node.inputs[0], &at, &guard)?;
    let acc = x.dtype.compute();
    if guard.is_empty() || op.word("kind") == "sum" && s.refill(value, &guard, 0).is_some() {
        return Ok((s.cast(value, acc)?, dims));
    }
    let identity = super::group::combiner(op.word("kind"), acc)?.init[0];
    if x.dtype == acc
        && let Some(e) = s.refill(value, &guard, identity)
    {
        return Ok((e, dims));
    }
    let value = s.cast(value, acc)?;
    let inside = s.read(Read::InBounds(guard), DType::Bool);
    let identity = brolga_ir::decode(acc, &identity.to_le_bytes()[..acc.bytes()]);
    let identity = s.constant(acc, identity);
    Ok((s.call("where", None, &[inside, value, identity])?, dims))
}

/// Both factors of a convolution stage, and its reduction dimensions (variables from `n`): kernel positions and then input
/// channels, which is the order in which channels-last weights are stored.
pub fn conv(l: &mut Lowerer, s: &mut StageBuilder, node: &Node, n: u32) -> Result<(E, E, Vec<IterDim>), String> {
    let op = &node.op;
    let (x, w) = (
        l.graph().ty(node.inputs[0]).clone(),
        l.graph().ty(node.inputs[1]).clone(),
    );
    let out = l.graph().ty(node.outputs[0]).clone();
    let (strides, dilations) = (op.ints("strides"), op.ints("dilations"));
    let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
    let last = op.flag("channels_last");
    let (spatial, rank) = (strides.len(), x.rank());
    let (first, channel) = if last { (1, rank - 1) } else { (2, 1) };
    let kernel: Vec<Dim> = (0..spatial)
        .map(|d| w.shape[if last { d } else { 2 + d }].clone())
        .collect();
    let per_group = &w.shape[if last { spatial } else { 1 }];
    let groups = op.int("groups");
    let mut at: Vec<Ix> = (0..rank).map(|d| Ix::var(Var(d as u32))).collect();
    let mut guard = vec![];
    for d in 0..spatial {
        let axis = first + d;
        at[axis] = position(Var(axis as u32), Var(n + d as u32), strides[d], dilations[d], &low[d]);
        if !(low[d].is(0) && high[d].is(0)) {
            guard.push(Bound {
                index: at[axis].clone(),
                extent: x.shape[axis].clone(),
            });
        }
    }
    let oc = Ix::var(Var(channel as u32));
    let ic = Ix::var(Var(n + spatial as u32));
    let out_per_group = out.shape[channel].floor_div(&Dim::Const(groups));
    at[channel] = match (groups, per_group.is(1)) {
        (1, _) => ic.clone(),
        (_, true) => oc.div(&out_per_group),
        _ => &oc.div(&out_per_group).scale(per_group) + &ic,
    };
    let taps = (0..spatial).map(|d| Ix::var(Var(n + d as u32)));
    let weight: Vec<Ix> = if last {
        taps.chain([ic, oc]).collect()
    } else {
        [oc, ic].into_iter().chain(taps).collect()
    };
    let reduction = |extent: Dim| IterDim {
        extent,
        kind: IterKind::Reduction,
    };
    let dims = kernel.into_iter().chain([per_group.clone()]).map(reduction).collect();
    let a = l.side(s, node.inputs[0], &at, &guard)?;
    let b = l.side(s, node.inputs[1], &weight, &[])?;
    Ok((a, b, dims))
}
