//! Operators on images: `ImageDecoder`, `CenterCropPad` and `AffineGrid`.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// `ImageDecoder`: pixels `[rows, columns, channels]` of a file's bytes. Both operators that it becomes decode, since memory is asked for
/// in between.
pub fn decoder(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let bytes = ctx.input(0)?;
    let pixels = match ctx.string("pixel_format", "RGB")? {
        "RGB" => "rgb",
        "BGR" => "bgr",
        "Grayscale" => "gray",
        w => {
            return Err(Fail::Bad(format!("pixel_format `{w}`, expected RGB, BGR or Grayscale")));
        }
    };
    let size = graph.op("image_size", &[], &[bytes])?;
    let size = graph.sizes_operand(size, "the size of the image", &[])?;
    one(graph.op("image_decode", &[Attr::word(pixels), Attr::Dims(size)], &[bytes]))
}

/// `CenterCropPad`: every axis cut or filled with zeros on both sides, the odd element at the end.
pub fn center_crop_pad(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let x = ctx.input(0)?;
    let shape = graph.shape(x);
    let target = graph.dims_operand(ctx.input(1)?, "the shape")?;
    let axes: Vec<usize> = match ctx.ints("axes")? {
        Some(a) => a
            .iter()
            .map(|&a| node::axis(a, shape.len()))
            .collect::<Result<_, _>>()?,
        None => (0..shape.len()).collect(),
    };
    if axes.len() != target.len() {
        return Err(Fail::Bad(format!("{} extents for {} axes", target.len(), axes.len())));
    }
    let mut y = x;
    for (&a, want) in axes.iter().zip(&target) {
        let (Some(have), Some(want)) = (shape[a].as_const(), want.as_const()) else {
            return unsupported("symbolic extents");
        };
        if want < 0 {
            return Err(Fail::Bad(format!("an extent of {want}")));
        }
        if want <= have {
            y = graph.slice_axis(y, a, Dim::Const((have - want) / 2), Dim::Const(want))?;
        } else {
            let (mut low, mut high) = (vec![Dim::ZERO; shape.len()], vec![Dim::ZERO; shape.len()]);
            low[a] = Dim::Const((want - have) / 2);
            high[a] = Dim::Const(want - have - (want - have) / 2);
            y = graph.pad(y, low, high, vec![0; shape.len()], 0.0)?;
        }
    }
    Ok(vec![y])
}

/// `AffineGrid`: `theta` times every point of [-1, 1]², or ³, with a 1 behind it.
pub fn affine_grid(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let theta = ctx.input(0)?;
    let size = graph.dims_operand(ctx.input(1)?, "the size")?;
    let n = size.len().saturating_sub(2);
    if graph.rank(theta) != 3 || !(2..=3).contains(&n) {
        return Err(Fail::Bad(format!(
            "theta {} for {n} spatial dimensions, expected rank 3 and 2 or 3",
            graph.ty(theta)
        )));
    }
    let spatial = &size[2..];
    let corners = ctx.flag("align_corners", false)?;
    let mut parts = vec![];
    for i in (0..n).rev() {
        // Positions -1 … 1 of corners, or of centres.
        let at = graph.iota(DType::F32, spatial, i)?;
        let extent = graph.dim_scalar(&spatial[i], DType::F32)?;
        let (scaled, steps) = if corners {
            (graph.map_num("mul", at, 2.0)?, graph.map_num("sub", extent, 1.0)?)
        } else {
            let twice = graph.map_num("mul", at, 2.0)?;
            (graph.map_num("add", twice, 1.0)?, extent)
        };
        let p = graph.map("div", &[scaled, steps])?;
        let p = graph.map_num("sub", p, 1.0)?;
        parts.push(graph.unsqueeze(p, &[n])?);
    }
    let mut unit = spatial.to_vec();
    unit.push(Dim::ONE);
    parts.push(graph.splat(DType::F32, &unit, 1.0)?);
    let points = graph.concat(n, &parts)?;
    let points = graph.cast(points, graph.dtype(theta))?;
    // [batch, rows, points…] with the rows moved behind the points.
    let y = graph.contract(theta, points, [&[], &[]], [&[2], &[n]])?;
    let mut perm: Vec<usize> = vec![0];
    perm.extend(2..n + 2);
    perm.push(1);
    one(graph.transpose(y, &perm))
}
