//! `DepthToSpace` and `SpaceToDepth`: a reshape, a transpose and a reshape.

use super::*;
use brolga_ir::Dim;

fn block<'m>(im: &Importer<'m>, ctx: &NodeCtx<'m>) -> Result<(Value, Vec<Dim>, Dim), Fail> {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    if im.rank(x) != 4 {
        return Err(Fail::Bad(format!("{}, expected rank 4", im.ty(x))));
    }
    match ctx.int("blocksize", 0)? {
        b if (1..1 << 20).contains(&b) => Ok((x, im.shape(x), Dim::Const(b))),
        b => Err(Fail::Bad(format!("blocksize {b}"))),
    }
}

fn part(d: &Dim, b: &Dim, what: &str) -> Result<Dim, Fail> {
    d.exact_div(b)
        .ok_or_else(|| Fail::Bad(format!("{what} {d} is no multiple of {b}")))
}

/// `DepthToSpace`: [n, b·b·c, h, w] → [n, c, h·b, w·b], the block's position in front of the channel (DCR) or behind it.
pub fn depth_to_space<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (x, s, b) = block(im, ctx)?;
    let c = part(&s[1], &(&b * &b), "the number of channels")?;
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
    let y = im.reshape(x, apart)?;
    let y = im.transpose(y, &perm)?;
    one(im.reshape(y, vec![n, c, &h * &b, &w * &b]))
}

/// `SpaceToDepth`: [n, c, h·b, w·b] → [n, b·b·c, h, w], in the same two orders of channels (DCR before version 28).
pub fn space_to_depth<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>) -> Outcome {
    let (x, s, b) = block(im, ctx)?;
    let (h, w) = (part(&s[2], &b, "the height")?, part(&s[3], &b, "the width")?);
    let (n, c) = (s[0].clone(), s[1].clone());
    let y = im.reshape(
        x,
        vec![n.clone(), c.clone(), h.clone(), b.clone(), w.clone(), b.clone()],
    )?;
    let perm = match ctx.string("mode", "DCR")? {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        m => return Err(Fail::Bad(format!("mode `{m}`, expected DCR or CRD"))),
    };
    let y = im.transpose(y, &perm)?;
    one(im.reshape(y, vec![n, &(&b * &b) * &c, h, w]))
}
