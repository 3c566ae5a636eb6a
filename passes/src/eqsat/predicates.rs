//! The side conditions of rules. **One name, one row**: what the checker of rules has to draw so that it often holds (where
//! chance would seldom do), what it says, and the test.

use super::functions::{Arg, Asks, Mark, Predicate, Stream, is_compute};
use super::lang::{EGraph, Term, op_of, operands};
use super::sorts::Sort;
use super::{parts, signs, windows};
use brolga_ir::ops::Role;
use brolga_ir::{DType, Dim, dim};

/// The type of a test: the e-graph, for the few that look at a class, and the arguments. `None` counts as false.
pub type Test = fn(&EGraph, &[Arg]) -> Option<bool>;

macro_rules! asks {
    () => {
        Asks::Nothing
    };
    ($asks:expr) => {
        $asks
    };
}

macro_rules! predicates {
    ($($name:literal ($($takes:ident)*) $([$($asks:tt)*])? $($mark:ident)* $doc:literal $run:expr;)*) => {
        /// Every predicate.
        pub static PREDICATES: &[Predicate] = &[$(Predicate {
            name: $name,
            takes: &[$(Sort::$takes),*],
            doc: $doc,
            run: $run,
            asks: asks!($($($asks)*)?),
            marks: &[$(Mark::$mark),*],
        }),*];
    };
}

predicates! {
    "is-constant" (Stream) [Asks::Constant] Profit "no input is needed to compute the stream" |_, a| Some(a[0].stream()?.constant);
    "is-fixed" (Stream) [Asks::Constant] Profit "no element of an input is needed to compute the stream: a constant, or one moved or spread"
        is_fixed;
    "is-stored" (Stream) [Asks::Constant] Profit "the stream is constant, and loaded, moved or put beside others in the last step to it" parts::is_stored;
    "is-number" (Stream) [Asks::Number] Profit "the stream is one known value everywhere" |_, a| Some(a[0].stream()?.splat.is_some());
    "is-splat" (Stream Num) [Asks::ThisNumber] "the stream is this number, rounded to its dtype, everywhere" |_, a| {
        let s = a[0].stream()?;
        Some(s.splat? == a[1].number()?.to(s.ty.dtype))
    };
    "is-invertible" (Stream) [Asks::Number] "the stream is a number of which neither it nor its reciprocal overflows or is subnormal" |_, a| {
        let (x, least) = (a[0].num()?.abs(), a[0].stream()?.ty.dtype.least_normal()?);
        Some(x.is_finite() && x >= least && 1.0 / x >= least)
    };
    "is-scale" (Stream) [Asks::Number] "the stream is a finite number above 0" |_, a| {
        let x = a[0].num()?;
        Some(x.is_finite() && x > 0.0)
    };
    "never-minus-zero" (Stream) [Asks::NeverMinusZero] "no element can be -0, as far as the terms say" |eg, a| {
        Some(signs::never_minus_zero(eg, a[0].stream()?.class?))
    };
    "is-nonnegative" (Stream) [Asks::Nonnegative] "every element is +0, above 0 or NaN, as far as the terms say" |eg, a| {
        Some(signs::is_nonnegative(eg, a[0].stream()?.class?))
    };
    "is-positive" (Stream) [Asks::Positive] "the stream is one known number everywhere, not below 0" |_, a| Some(a[0].num()? >= 0.0);
    "is-float" (Stream) [Asks::DType(&DType::FLOATS)] "the dtype is a float" |_, a| Some(a[0].stream()?.ty.dtype.is_float());
    "is-compute" (Stream) [Asks::DType(&[DType::F32, DType::F32, DType::F64])] "the dtype is f32 or f64" |_, a| Some(is_compute(a[0].stream()?.ty.dtype));
    "is-double" (Stream) [Asks::DType(&[DType::F64])] "the dtype is f64" |_, a| Some(a[0].stream()?.ty.dtype == DType::F64);
    "is-half" (Stream) [Asks::DType(&DType::HALVES)] "the dtype is f16 or bf16" |_, a| Some(a[0].stream()?.ty.dtype.is_half());
    "is-integer" (Stream) [Asks::DType(&[DType::I64, DType::I32, DType::I16, DType::I8, DType::U32, DType::U8])] "the dtype is an integer" |_, a| Some(a[0].stream()?.ty.dtype.is_int());
    "is-bytes" (Stream) [Asks::DType(&[DType::F32])] "the dtype is an integer of 8 bits" |_, a| {
        let dtype = a[0].stream()?.ty.dtype;
        Some(dtype.is_int() && dtype.bits() == 8)
    };
    "multiplies-bytes" (Stream Stream Ints) [Asks::DType(&[DType::F32])] "u8 by i8, and so few of them along the second's axes that their sums fit in i32"
        multiplies_bytes;
    "is-zero-point" (Stream) [Asks::Number] "the stream is one whole number everywhere that a u8 holds" |_, a| {
        let x = a[0].num()?;
        Some((0.0..=255.0).contains(&x) && x.fract() == 0.0 && x.is_sign_positive())
    };
    "scales-free" (Stream Stream Ints) "the stream has extents of 1 along axes, and 1 or another's elsewhere" |_, a| {
        let (v, w, axes) = (a[0].shape()?, a[1].shape()?, a[2].ints()?);
        let fits = |d: usize| v[d].is(1) || v[d] == w[d] && !axes.contains(&(d as i64));
        Some(v.len() == w.len() && (0..v.len()).all(fits))
    };
    "every-window-covers" (Ints Ints Ints Dims Dims Stream) "windows of these extents, strides, dilations and margins before, so many of them, each cover an element of the stream"
        every_window_covers;
    "has-rank" (Stream Int) [Asks::Rank] Units "the stream has this rank" |_, a| Some(a[0].rank()? as i64 == a[1].int()?);
    "is-identity" (Ints) [Asks::Identity] "the permutation moves nothing" |_, a| Some(a[0].ints()?.iter().enumerate().all(|(i, &p)| p == i as i64));
    "is-zeros" (Dims) [Asks::Every(0)] "every entry is 0" |_, a| Some(a[0].dims()?.iter().all(|d| d.is(0)));
    "is-ones" (Dims) [Asks::Every(1)] "every entry is 1" |_, a| Some(a[0].dims()?.iter().all(|d| d.is(1)));
    "is-zeros-both" (Dims Dims) "every entry of both is 0" |_, a| {
        Some(a[0].dims()?.iter().chain(&a[1].dims()?).all(|d| d.is(0)))
    };
    "are-halves" (Dims Dims Dims Dims Stream) "two slices of these starts and sizes are next to each other and together a whole stream" |_, a| {
        Some(parts::axis_of_halves(a).is_some())
    };
    "reads-first" (Dims Dims Ints Int Stream) "a slice of these starts, sizes and steps of a stream and what lies behind it along an axis reads the stream alone"
        parts::reads_first;
    "reads-behind" (Dims Dims Ints Int Stream) "such a slice reads nothing of the stream" parts::reads_behind;
    "is-natural" (Dims) [Asks::Natural] "every entry is known not to be negative" |_, a| Some(a[0].dims()?.iter().all(Dim::is_nonnegative));
    "adds-margin" (Dims Dims) Profit "an entry of one is known to be above 0, or may be" |_, a| {
        let adds = |d: &Dim| d.is_nonnegative() && !d.is(0);
        Some(a[0].dims()?.iter().chain(&a[1].dims()?).any(adds))
    };
    "has-blind-taps" (Ints Ints Dims Dims Stream Stream) Profit "taps at an end of a convolution's windows see no element" |_, a| windows::has_blind_taps(a);
    "sees-little" (Ints Ints Dims Dims Stream Stream) Profit "few taps of a convolution's windows see an element, and runs of windows see through the same ones"
        |_, a| windows::sees_little(a);
    "is-nonempty" (Ints) "the list has an entry" |_, a| Some(!a[0].ints()?.is_empty());
    "single" (Ints) "the list has one entry" |_, a| Some(a[0].ints()?.len() == 1);
    "leading" (Ints) "the axes are 0, 1, …" |_, a| Some(a[0].ints()?.iter().enumerate().all(|(i, &d)| d == i as i64));
    "trailing-axes" (Ints Stream) "the axes are the last of the stream, in order" |_, a| {
        let (axes, r) = (a[0].ints()?, a[1].rank()?);
        let first = r.checked_sub(axes.len())?;
        Some(!axes.is_empty() && axes.iter().enumerate().all(|(i, &d)| d == (first + i) as i64))
    };
    "moves-only-units" (Ints Stream) Units "the permutation moves something, and leaves the extents other than 1 in order" |_, a| {
        Some(moves(a[0].ints()?, a[1].shape()?) == Some(true))
    };
    "moves-data" (Ints Stream) Profit "the permutation changes the order of the extents other than 1" |_, a| {
        Some(moves(a[0].ints()?, a[1].shape()?) == Some(false))
    };
    "takes-transpose" (Streams) Profit "transposing costs nothing: a constant, what is spread, or what a transpose made" takes_transpose;
    "vector-on-axis" (Stream Int Stream Int) "all but one axis of the first have extent 1, and that one is an axis of the second" |_, a| {
        let (v, w) = (a[0].shape()?, a[2].shape()?);
        let (at, o) = (usize::try_from(a[1].int()?).ok()?, usize::try_from(a[3].int()?).ok()?);
        Some(is_vector(v, at, w.get(o)?))
    };
    "vector-on-last" (Stream Stream Int) "all but the last axis of the first have extent 1, and that one is an axis of the second" |_, a| {
        let (v, w) = (a[0].shape()?, a[1].shape()?);
        Some(is_vector(v, v.len().checked_sub(1)?, w.get(usize::try_from(a[2].int()?).ok()?)?))
    };
    "keeps-free-order" (Ints Ints Ints) "the permutation leaves the dims that are neither batch nor contracted in order" |_, a| {
        let (p, b, c) = (a[0].ints()?, a[1].ints()?, a[2].ints()?);
        let free = |d: &i64| !b.contains(d) && !c.contains(d);
        let kept: Vec<i64> = (0..p.len() as i64).filter(free).map(|d| p[d as usize]).collect();
        Some(kept.is_sorted())
    };
    "swaps-free" (Ints Stream Stream Ints Ints) "the permutation swaps a contraction's free dims of both sides" |_, a| {
        let (p, nb, nc) = (a[0].ints()?, a[3].ints()?.len(), a[4].ints()?.len());
        let (l, r) = (a[1].rank()?.checked_sub(nb + nc)?, a[2].rank()?.checked_sub(nb + nc)?);
        let want = (0..nb).chain(nb + l..nb + l + r).chain(nb..nb + l);
        Some(l > 0 && r > 0 && p.len() == nb + l + r && want.eq(p.iter().map(|&d| d as usize)))
    };
    "spreads-only" (Dims Stream Ints) "the broadcast of the stream stretches these axes, which have extent 1, and no others" |_, a| {
        let (to, from, axes) = (a[0].dims()?, a[1].shape()?, a[2].ints()?);
        let stretched = |d: usize| axes.contains(&(d as i64));
        let fits = |d: usize| if stretched(d) { from[d].is(1) } else { from[d] == to[d] };
        Some(from.len() == to.len() && (0..from.len()).all(fits))
    };
    "is-finite" (Stream) [Asks::Number] "the stream is a finite number everywhere" |_, a| Some(a[0].num()?.is_finite());
    "attends" (Ints Ints Int Ints) "weights are summed along their last axis, which is that of a softmax, in batches of all axes but the last two, those of their scores" |_, a| {
        let (batch, summed, axis, scores) = (a[0].ints()?, a[1].ints()?, a[2].int()?, a[3].ints()?.len() as i64);
        Some(batch.iter().copied().eq(0..scores) && *summed == [scores + 1] && axis == scores + 1)
    };
    "untransposed" (Ints Stream) Profit "the batch axes are the first ones, or nothing transposes the stream" untransposed;
    "keeps-lines" (Int Dims Stream) "the axis is the last one of a reshape that leaves the last extent of the stream as it is" |_, a| {
        let (axis, to, from) = (usize::try_from(a[0].int()?).ok()?, a[1].dims()?, a[2].shape()?);
        Some(axis + 1 == to.len() && to.last()? == from.last()?)
    };
    "is-mean-factor" (Stream Stream Ints) [Asks::MeanFactor] "the number is one over the number of elements of a stream along axes" |_, a| {
        let (n, x) = (a[0].num()?, a[1].shape()?);
        let count = extent_of(x, a[2].ints()?)? as f64;
        let rounding = if a[0].stream()?.ty.dtype == DType::F64 { f64::EPSILON } else { f32::EPSILON as f64 };
        Some(count > 0.0 && (n * count - 1.0).abs() <= rounding)
    };
    "is-tail" (Stream Stream Int) "the stream has extent 1 before the axis and the extents of the other from it on" |_, a| {
        let (w, x, axis) = (a[0].shape()?, a[1].shape()?, usize::try_from(a[2].int()?).ok()?);
        let same = |d: usize| if d < axis { w[d].is(1) } else { w[d] == x[d] };
        Some(w.len() == x.len() && (0..x.len()).all(same))
    };
}

/// Whether a permutation that is not the identity moves only extents of 1; `None` for the identity, and one of another rank.
fn moves(p: &[i64], x: &[Dim]) -> Option<bool> {
    let moved = p.iter().enumerate().any(|(i, &d)| d != i as i64);
    let kept = |d: &&i64| x.get(**d as usize).is_some_and(|e| !e.is(1));
    (moved && p.len() == x.len()).then(|| p.iter().filter(kept).is_sorted())
}

/// How many elements some axes hold.
fn extent_of(shape: &[Dim], axes: &[i64]) -> Option<i64> {
    let extents = axes.iter().map(|&d| shape.get(usize::try_from(d).ok()?));
    dim::product(extents.collect::<Option<Vec<&Dim>>>()?).as_const()
}

fn is_vector(v: &[Dim], at: usize, extent: &Dim) -> bool {
    v.iter()
        .enumerate()
        .all(|(d, e)| if d == at { e == extent } else { e.is(1) })
}

fn is_fixed(eg: &EGraph, a: &[Arg]) -> Option<bool> {
    let s = a[0].stream()?;
    let moved = |t: &Term| match t {
        Term::Op(op, children) if matches!(op.def().role(), Role::Move(_)) => {
            operands(*op, children).iter().all(|&c| eg[c].data.constant)
        }
        _ => false,
    };
    Some(s.constant || s.class.is_some_and(|c| eg[c].nodes.iter().any(moved)))
}

fn multiplies_bytes(_: &EGraph, a: &[Arg]) -> Option<bool> {
    const MOST: i64 = i32::MAX as i64 / (255 * 128);
    let (x, w) = (a[0].stream()?, a[1].stream()?);
    let depth = extent_of(&w.ty.shape, a[2].ints()?)?;
    Some((x.ty.dtype, w.ty.dtype) == (DType::U8, DType::I8) && depth <= MOST)
}

fn every_window_covers(_: &EGraph, a: &[Arg]) -> Option<bool> {
    let (kernel, strides, dilations) = (a[0].ints()?, a[1].ints()?, a[2].ints()?);
    let (low, sizes, x) = (a[3].dims()?, a[4].dims()?, a[5].shape()?);
    let covers = |i: usize| {
        let (low, size, extent) = (low[i].as_const()?, sizes[i].as_const()?, x[2 + i].as_const()?);
        let last = (size - 1).checked_mul(strides[i])?.checked_sub(low)?;
        Some(dilations[i] == 1 && low < kernel[i] && last < extent)
    };
    let n = kernel.len();
    let lengths = [
        strides.len(),
        dilations.len(),
        low.len(),
        sizes.len(),
        x.len().checked_sub(2)?,
    ];
    Some(lengths == [n; 5] && (0..n).all(|i| covers(i) == Some(true)))
}

fn untransposed(eg: &EGraph, a: &[Arg]) -> Option<bool> {
    let (batch, class) = (a[0].ints()?, a[1].stream()?.class?);
    let transposes = |t: &Term| match t {
        Term::Op(op, children) if operands(*op, children) == [class] => match op.def().role() {
            Role::Move(m) => op_of(eg, *op, children).is_ok_and(|op| m.permutation(&op).is_some()),
            _ => false,
        },
        _ => false,
    };
    let leading = batch.iter().copied().eq(0..batch.len() as i64);
    Some(leading || !eg[class].parents().any(|p| eg[eg.find(p)].nodes.iter().any(transposes)))
}

fn takes_transpose(eg: &EGraph, a: &[Arg]) -> Option<bool> {
    let one = |s: &Stream| {
        let made = |t: &Term| matches!(t, Term::Op(op, _) if op.def().takes_transpose());
        s.constant || s.class.is_some_and(|c| eg[c].nodes.iter().any(made))
    };
    Some(match &a[0] {
        Arg::Stream(s) => one(s),
        Arg::List(items) => items.iter().all(one),
        Arg::Attr(_) => false,
    })
}
