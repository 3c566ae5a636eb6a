//! `DepthToSpace` and `SpaceToDepth`: a reshape, a transpose and a reshape.

use super::*;
use brolga_ir::Dim;

fn block(graph: &Builder<'_>, ctx: &NodeCtx<'_>) -> Result<(Value, Vec<Dim>, Dim), Fail> {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    if graph.rank(x) != 4 {
        return Err(Fail::Bad(format!("{}, expected rank 4", graph.ty(x))));
    }
    match ctx.int("blocksize", 0)? {
        b if (1..1 << 20).contains(&b) => Ok((x, graph.shape(x), Dim::Const(b))),
        b => Err(Fail::Bad(format!("blocksize {b}"))),
    }
}

/// `x` with a multiple of `b` along an axis, and how many times `b` that is.
fn parts(graph: &mut Builder<'_>, x: Value, axis: usize, b: &Dim, what: &str) -> Result<(Value, Dim), Fail> {
    let d = graph.shape(x)[axis].clone();
    let n = d.exact_div(b).unwrap_or_else(|| d.floor_div(b));
    let x = graph
        .fit(x, axis, &(&n * b))
        .map_err(|_| Fail::Bad(format!("{what} {} is no multiple of {b}", d.brief())))?;
    Ok((x, n))
}

/// `DepthToSpace`: [n, b·b·c, h, w] → [n, c, h·b, w·b], the block's position in front of the channel (DCR) or behind it.
pub fn depth_to_space(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (x, s, b) = block(graph, ctx)?;
    let (x, c) = parts(graph, x, 1, &(&b * &b), "the number of channels")?;
    let [n, h, w] = [&s[0], &s[2], &s[3]].map(Clone::clone);
    let (apart, perm) = match ctx.string("mode", "DCR")? {
        "DCR" => (
            vec![n.clone(), b.clone(), b.clone(), c.clone(), h.clone(), w.clone()],
            [0, 3, 4, 1, 5, 2],
        ),
        "CRD" => (
            vec![n.clone(), c.clone(), b.clone(), b.clone(), h.clone(), w.clone()],
            [0, 1, 4, 2, 5, 3],
        ),
        m => return Err(Fail::Bad(format!("mode `{m}`, expected DCR or CRD"))),
    };
    let y = graph.reshape(x, apart)?;
    let y = graph.transpose(y, &perm)?;
    one(graph.reshape(y, vec![n, c, &h * &b, &w * &b]))
}

/// `SpaceToDepth`: [n, c, h·b, w·b] → [n, b·b·c, h, w], in the same two orders of channels (DCR before version 28).
pub fn space_to_depth(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let (x, s, b) = block(graph, ctx)?;
    let (x, h) = parts(graph, x, 2, &b, "the height")?;
    let (x, w) = parts(graph, x, 3, &b, "the width")?;
    let (n, c) = (s[0].clone(), s[1].clone());
    let y = graph.reshape(
        x,
        vec![n.clone(), c.clone(), h.clone(), b.clone(), w.clone(), b.clone()],
    )?;
    let perm = match ctx.string("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        m => return Err(Fail::Bad(format!("mode `{m}`, expected DCR or CRD"))),
    };
    let y = graph.transpose(y, &perm)?;
    one(graph.reshape(y, vec![n, &(&b * &b) * &c, h, w]))
}
