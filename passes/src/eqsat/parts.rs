//! Parts of a stream: slices that lie next to each other along one axis, and what a slice of streams behind each other reads.
//!
//! ```text
//! x[:, 0:a] and x[:, a:a+b]      next to each other along axis 1; both together all of x where its extent there is a + b
//! ```

use super::functions::Arg;
use super::lang::{EGraph, Term};
use brolga_ir::{Attr, Dim};

/// The axis along which two slices of a stream without steps are next to each other, the first in front, and all of it: of
/// starts and sizes of both, and the stream.
pub fn axis_of_halves(a: &[Arg]) -> Option<Attr> {
    let (starts, sizes, after, behind) = (a[0].dims()?, a[1].dims()?, a[2].dims()?, a[3].dims()?);
    let x = a[4].shape()?;
    let lengths = [starts.len(), sizes.len(), after.len(), behind.len()];
    if lengths != [x.len(); 4] || !starts.iter().all(|d| d.is(0)) {
        return None;
    }
    let mut axes = (0..x.len()).filter(|&d| !after[d].is(0));
    let axis = axes.next().filter(|_| axes.next().is_none())?;
    let whole = |d: usize| match d == axis {
        true => after[d] == sizes[d] && &sizes[d] + &behind[d] == x[d],
        false => sizes[d] == x[d] && behind[d] == x[d],
    };
    (0..x.len()).all(whole).then_some(Attr::Int(axis as i64))
}

/// The sizes of two slices without steps that are next to each other along an axis, taken as one: of starts and sizes of both,
/// and the axis.
pub fn joined_sizes(a: &[Arg]) -> Option<Attr> {
    let (starts, sizes, after, behind) = (a[0].dims()?, a[1].dims()?, a[2].dims()?, a[3].dims()?);
    let axis = usize::try_from(a[4].int()?).ok().filter(|&d| d < starts.len())?;
    let next = |d: usize| match d == axis {
        true => after[d] == &starts[d] + &sizes[d],
        false => after[d] == starts[d] && behind[d] == sizes[d],
    };
    let fits = [sizes.len(), after.len(), behind.len()] == [starts.len(); 3] && (0..starts.len()).all(next);
    fits.then(|| {
        let mut joined = sizes.clone();
        joined[axis] = &sizes[axis] + &behind[axis];
        Attr::Dims(joined)
    })
}

/// Where what lies behind a stream along an axis starts.
pub fn past(a: &[Arg]) -> Option<Attr> {
    let (x, axis) = (a[0].shape()?, usize::try_from(a[1].int()?).ok()?);
    let mut starts = vec![Dim::ZERO; x.len()];
    starts.get_mut(axis)?.clone_from(&x[axis]);
    Some(Attr::Dims(starts))
}

/// The first and the last place that a slice reads along an axis, where it reads any: of its starts, sizes and steps.
fn read(a: &[Arg], axis: usize) -> Option<(i64, i64)> {
    let (start, size) = (a[0].dims()?.get(axis)?.as_const()?, a[1].dims()?.get(axis)?.as_const()?);
    let last = (size - 1).checked_mul(*a[2].ints()?.get(axis)?)?.checked_add(start)?;
    (size > 0).then_some((start.min(last), start.max(last)))
}

/// Whether a slice of a stream and what lies behind it along an axis reads the stream alone: of the slice's starts, sizes and
/// steps, the axis and the stream.
pub fn reads_first(_: &EGraph, a: &[Arg]) -> Option<bool> {
    let axis = usize::try_from(a[3].int()?).ok()?;
    Some(read(a, axis)?.1 < a[4].shape()?.get(axis)?.as_const()?)
}

/// Whether such a slice reads nothing of the stream.
pub fn reads_behind(_: &EGraph, a: &[Arg]) -> Option<bool> {
    let axis = usize::try_from(a[3].int()?).ok()?;
    Some(read(a, axis)?.0 >= a[4].shape()?.get(axis)?.as_const()?)
}

/// Whether a stream is constant, and loaded, moved or put beside others in the last step to it.
pub fn is_stored(eg: &EGraph, a: &[Arg]) -> Option<bool> {
    let s = a[0].stream()?;
    let moved = |t: &Term| match t {
        Term::Load(_) => true,
        Term::Op(op, _) => op.def().role().only_moves(),
        _ => false,
    };
    Some(s.constant && s.class.is_some_and(|c| eg[c].nodes.iter().all(moved)))
}
