//! Sequences of tensors, and optionals. Both are resolved at import: how many tensors a sequence has is known, and whether an optional
//! has a value; a position in a sequence that data tell chooses among tensors of one type.

use super::*;
use brolga_ir::{DType, Dim};

/// The most tensors that a tensor is split into.
const MOST_PARTS: i64 = 1 << 16;

type Slots = Result<Vec<Slot>, Fail>;

/// The tensors of a sequence.
fn tensors(im: &Importer<'_>, slots: &[Slot], k: usize) -> Result<Vec<Value>, Fail> {
    match slots.get(k) {
        Some(Slot::Sequence(s)) => Ok(im.sequences[*s as usize].clone()),
        _ => Err(Fail::Bad(format!("operand {k} is no sequence"))),
    }
}

/// A known position of a sequence of `n`, which may count from the end, up to `n - 1 + more`.
fn known(im: &mut Importer<'_>, v: Value, n: usize, more: usize) -> Result<usize, Fail> {
    let at = im.graph.ints_operand(v, "a position in a sequence")?;
    let at = *at.first().ok_or("an empty position")?;
    let from = if at < 0 { at.checked_add(n as i64) } else { Some(at) };
    let found = from.and_then(|p| usize::try_from(p).ok()).filter(|p| *p < n + more);
    found.ok_or_else(|| Fail::Bad(format!("position {at} in a sequence of {n} tensors")))
}

/// `SequenceConstruct`.
pub fn construct<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, _: &[Slot]) -> Slots {
    let all = ctx.variadic()?;
    Ok(vec![im.sequence(all)])
}

/// `SequenceEmpty`.
pub fn empty<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, _: &[Slot]) -> Slots {
    ctx.arity(0, 0)?;
    Ok(vec![im.sequence(vec![])])
}

/// `SequenceLength`.
pub fn length<'m>(im: &mut Importer<'m>, _: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let n = tensors(im, slots, 0)?.len();
    Ok(vec![Slot::Value(im.graph.scalar(DType::I64, n as i64))])
}

/// `SequenceAt`.
pub fn at<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let all = tensors(im, slots, 0)?;
    let position = ctx.input(1)?;
    if im.graph.contents(position).is_some() {
        let at = known(im, position, all.len(), 0)?;
        return Ok(vec![Slot::Value(all[at])]);
    }
    let Some(first) = all.first() else {
        return Err("a tensor of an empty sequence".into());
    };
    let ty = im.graph.ty(*first).clone();
    if let Some(other) = all.iter().find(|v| *im.graph.ty(**v) != ty) {
        return unsupported(format!(
            "a position computed from data, among {ty} and {}",
            im.graph.ty(*other)
        ));
    }
    let mut rows = vec![];
    for v in all {
        rows.push(im.graph.unsqueeze(v, &[0])?);
    }
    let all = im.graph.concat(0, &rows)?;
    let position = im.graph.reshape_if_equal(position, vec![])?;
    im.graph.check_indices(all, position, &[0])?;
    Ok(vec![Slot::Value(im.graph.gather(0, all, position)?)])
}

/// `SequenceInsert`.
pub fn insert<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let mut all = tensors(im, slots, 0)?;
    let at = match ctx.optional(2) {
        Some(v) => known(im, v, all.len(), 1)?,
        None => all.len(),
    };
    all.insert(at, ctx.input(1)?);
    Ok(vec![im.sequence(all)])
}

/// `SequenceErase`.
pub fn erase<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let mut all = tensors(im, slots, 0)?;
    let at = match ctx.optional(1) {
        Some(v) => known(im, v, all.len(), 0)?,
        None => all.len().checked_sub(1).ok_or("a tensor of an empty sequence")?,
    };
    all.remove(at);
    Ok(vec![im.sequence(all)])
}

/// `ConcatFromSequence`.
pub fn concat<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let mut all = tensors(im, slots, 0)?;
    let Some(first) = all.first() else {
        return Err("an empty sequence".into());
    };
    let new = ctx.flag("new_axis", false)?;
    let rank = im.graph.rank(*first) + new as usize;
    let axis = ctx.opt_int("axis")?.ok_or("attribute `axis` is missing")?;
    let axis = node::axis(axis, rank)?;
    if new {
        for v in &mut all {
            *v = im.graph.unsqueeze(*v, &[axis])?;
        }
    }
    Ok(vec![Slot::Value(im.graph.concat(axis, &all)?)])
}

/// `SplitToSequence`.
pub fn split<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, _: &[Slot]) -> Slots {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let axis = node::axis(ctx.int("axis", 0)?, im.graph.rank(x))?;
    let extent = im.graph.shape(x)[axis].clone();
    // The extent, of which parts have `n`.
    let total = |n: i64| match extent.as_const() {
        Some(total) if total / n < MOST_PARTS => Ok(total),
        Some(total) => Err(Fail::Unsupported(format!(
            "an extent of {total} in parts of {n}, more than {MOST_PARTS}"
        ))),
        None => Err(Fail::Unsupported(format!("a symbolic extent ({extent})"))),
    };
    let (sizes, squeezed) = match ctx.optional(1) {
        None => (vec![Dim::ONE; total(1)? as usize], !ctx.flag("keepdims", true)?),
        Some(v) => {
            if im.graph.rank(v) > 0 {
                (im.graph.sizes_operand(v, "sizes", &[Some(extent.clone())])?, false)
            } else {
                let given = im.graph.ints_operand(v, "the size of parts")?;
                let Some(n) = given.first().copied().filter(|n| *n > 0) else {
                    return Err(Fail::Bad(format!("parts of {given:?}, expected a positive size")));
                };
                let total = total(n)?;
                let parts = (0..total).step_by(n as usize);
                (parts.map(|start| Dim::Const((total - start).min(n))).collect(), false)
            }
        }
    };
    let total = sizes.iter().fold(Dim::ZERO, |s, n| &s + n);
    if sizes.iter().any(|n| n.as_const().is_some_and(|n| n < 0)) || im.graph.require_equal(&total, &extent).is_err() {
        return Err(Fail::Bad(format!(
            "sizes {sizes:?} of axis {axis} of {}",
            im.graph.ty(x)
        )));
    }
    let (mut all, mut start) = (vec![], Dim::ZERO);
    for n in sizes {
        let mut part = im.graph.slice_axis(x, axis, start.clone(), n.clone())?;
        if squeezed {
            part = im.graph.squeeze(part, &[axis])?;
        }
        all.push(part);
        start = &start + &n;
    }
    Ok(vec![im.sequence(all)])
}

/// `SequenceMap`: the body for each position of the sequences.
pub fn map<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let body = ctx.graph("body")?;
    let n = tensors(im, slots, 0)?.len();
    let mut results: Vec<Vec<Value>> = vec![vec![]; body.output.len()];
    for k in 0..n {
        let mut arguments = vec![];
        for (i, s) in slots.iter().enumerate() {
            arguments.push(match s {
                Slot::Sequence(_) => {
                    let all = tensors(im, slots, i)?;
                    let v = all
                        .get(k)
                        .ok_or_else(|| Fail::Bad(format!("sequences of {n} and {} tensors", all.len())))?;
                    Slot::Value(*v)
                }
                other => *other,
            });
        }
        for (all, s) in results
            .iter_mut()
            .zip(im.inline(body, &format!("{}/{k}", ctx.name), &arguments)?)
        {
            let Slot::Value(v) = s else {
                return unsupported("a sequence of sequences");
            };
            all.push(v);
        }
    }
    Ok(results.into_iter().map(|all| im.sequence(all)).collect())
}

/// `Identity`, of whatever there is.
pub fn identity<'m>(_: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    match slots {
        [s] => Ok(vec![*s]),
        _ => Err(Fail::Bad(format!("{} operands, expected 1", ctx.inputs.len()))),
    }
}

/// `Optional`: what it is given, or nothing.
pub fn optional<'m>(_: &mut Importer<'m>, _: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    Ok(vec![slots.first().copied().unwrap_or(Slot::Nothing)])
}

/// `OptionalGetElement`.
pub fn optional_element<'m>(_: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    match slots.first() {
        Some(Slot::Nothing) => Err("the element of an optional without one".into()),
        Some(s) => Ok(vec![*s]),
        None => ctx.input(0).map(|v| vec![Slot::Value(v)]),
    }
}

/// `OptionalHasElement`.
pub fn has_element<'m>(im: &mut Importer<'m>, _: &NodeCtx<'m>, slots: &[Slot]) -> Slots {
    let some = !matches!(slots.first(), None | Some(Slot::Nothing | Slot::Absent));
    Ok(vec![Slot::Value(im.graph.scalar(DType::Bool, some as i64))])
}
