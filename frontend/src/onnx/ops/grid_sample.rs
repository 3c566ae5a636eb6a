//! `GridSample`: an image read where a grid says, in any number of spatial dimensions.

use super::sample::{Beside, Interpolation, Sampler};
use super::*;
use brolga_ir::{Dim, dim::product};

/// `GridSample`. The grid's last dimension holds a position, the innermost axis first, where -1 and 1 are the outer edges of
/// the data, or with `align_corners` the centres of its outermost elements.
pub fn grid_sample(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(2, 2)?;
    let (x, grid) = (ctx.input(0)?, ctx.input(1)?);
    let dtype = graph.dtype(x);
    let r = graph.rank(x).saturating_sub(2);
    let corners = ctx.flag("align_corners", false)?;
    let interpolation = match ctx.string("mode", "linear")? {
        "nearest" => Interpolation::Nearest,
        "linear" | "bilinear" => Interpolation::Linear,
        "cubic" | "bicubic" => Interpolation::Cubic,
        m => return Err(Fail::Bad(format!("mode `{m}`, expected nearest, linear or cubic"))),
    };
    let beside = match ctx.string("padding_mode", "zeros")? {
        "zeros" => Beside::Zeros,
        "border" => Beside::Border,
        "reflection" => Beside::Reflection { corners },
        m => {
            return Err(Fail::Bad(format!(
                "padding_mode `{m}`, expected zeros, border or reflection"
            )));
        }
    };
    if r == 0 || graph.rank(grid) != r + 2 || !graph.dtype(grid).is_float() {
        return Err(Fail::Bad(format!(
            "a grid {} for {}, expected floats, and equal ranks of 3 or more",
            graph.ty(grid),
            graph.ty(x)
        )));
    }
    let shape = graph.shape(x);
    let batch = graph.require_equal(&shape[0], &graph.shape(grid)[0])?;
    let x = graph.fit(x, 0, &batch)?;
    let grid = graph.fit(grid, 0, &batch)?;
    let grid = graph.fit(grid, r + 1, &Dim::from(r))?;
    let points = graph.shape(grid)[1..=r].to_vec();
    let count = product(&points);
    let grid = graph.reshape(grid, vec![batch.clone(), count.clone(), Dim::from(r)])?;
    let grid = graph.widen(grid)?;
    let mut positions = vec![];
    for (i, n) in shape[2..].iter().enumerate() {
        let at = graph.slice_axis(grid, 2, Dim::from(r - 1 - i), Dim::ONE)?;
        let at = graph.squeeze(at, &[2])?;
        let at = graph.map_num("add", at, 1.0)?;
        let extent = graph.dim_scalar(n, graph.dtype(at))?;
        positions.push(if corners {
            let half = graph.map_num("mul", at, 0.5)?;
            let last = graph.map_num("sub", extent, 1.0)?;
            graph.map("mul", &[half, last])?
        } else {
            let twice = graph.map("mul", &[at, extent])?;
            let twice = graph.map_num("sub", twice, 1.0)?;
            graph.map_num("mul", twice, 0.5)?
        });
    }
    let sampler = Sampler::new(graph, x, interpolation, beside)?;
    let y = sampler.at(graph, &positions)?;
    let y = graph.reshape(y, [&[batch, shape[1].clone()][..], &points].concat())?;
    one(graph.cast(y, dtype))
}
