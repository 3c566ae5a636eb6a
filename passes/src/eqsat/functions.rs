//! The names that rules may use: attribute functions, predicates, operator sets. **One name, one row** of a table.
//!
//! A function that does not apply to its arguments gives `None`, and the rule does not match there.

use super::parts;
use super::predicates;
use super::sorts::Sort;
use super::windows;
use brolga_ir::{Attr, DType, Dim, Number, Type, ops, scalar};
use egg::Id;
use std::sync::Arc;

/// What is known of a stream that a variable is bound to.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its type.
    pub ty: Arc<Type>,
    /// True when no input is needed to compute it.
    pub constant: bool,
    /// The value of every element, when known.
    pub splat: Option<Number>,
    /// Its class; `None` for a term that a right side makes.
    pub class: Option<Id>,
}

/// An argument of a function or predicate.
#[derive(Clone, Debug)]
pub enum Arg {
    /// An attribute.
    Attr(Arc<Attr>),
    /// A stream.
    Stream(Stream),
    /// A list of streams.
    List(Vec<Stream>),
}

impl Arg {
    /// The integers of an attribute.
    pub fn ints(&self) -> Option<&[i64]> {
        match self {
            Arg::Attr(a) => match &**a {
                Attr::Ints(v) => Some(v),
                _ => None,
            },
            _ => None,
        }
    }
    /// The dims of an attribute; integers count as dims.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        match self {
            Arg::Attr(a) => match &**a {
                Attr::Dims(v) => Some(v.clone()),
                Attr::Ints(v) => Some(v.iter().map(|&i| Dim::Const(i)).collect()),
                _ => None,
            },
            _ => None,
        }
    }
    /// An integer attribute.
    pub fn int(&self) -> Option<i64> {
        match self {
            Arg::Attr(a) => match **a {
                Attr::Int(i) => Some(i),
                _ => None,
            },
            _ => None,
        }
    }
    /// A boolean attribute.
    pub fn flag(&self) -> Option<bool> {
        match self {
            Arg::Attr(a) => match **a {
                Attr::Bool(b) => Some(b),
                _ => None,
            },
            _ => None,
        }
    }
    /// A number, as an f64: an attribute, or what a stream is everywhere.
    pub fn num(&self) -> Option<f64> {
        self.number().map(Number::f64)
    }
    /// A number, without loss; one that an f64 holds is a float.
    pub fn number(&self) -> Option<Number> {
        match self {
            Arg::Attr(a) => number(a),
            Arg::Stream(s) => s.splat,
            Arg::List(_) => None,
        }
    }
    /// A stream.
    pub fn stream(&self) -> Option<&Stream> {
        match self {
            Arg::Stream(s) => Some(s),
            _ => None,
        }
    }
    /// A stream's extents.
    pub fn shape(&self) -> Option<&[Dim]> {
        Some(&self.stream()?.ty.shape)
    }
    /// A stream's rank.
    pub fn rank(&self) -> Option<usize> {
        Some(self.shape()?.len())
    }
}

/// The number of an attribute; one that an f64 holds is a float.
pub fn number(a: &Attr) -> Option<Number> {
    match *a {
        Attr::Num(b) => Some(Number::Float(f64::from_bits(b))),
        Attr::Whole(i) => Some(Number::Int(i)),
        Attr::Int(i) => number(&Attr::number(i.into())),
        _ => None,
    }
}

/// An attribute function.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The sorts of its arguments.
    pub takes: &'static [Sort],
    /// The sort of what it gives.
    pub gives: Sort,
    /// What it gives.
    pub doc: &'static str,
    /// What is known of it.
    pub marks: &'static [Mark],
    /// The function. It may rely on arguments of these sorts only as far as their number goes: what a variable is bound to may
    /// be written in another way.
    pub run: fn(&[Arg]) -> Option<Attr>,
}

/// A side condition.
pub struct Predicate {
    /// Its name.
    pub name: &'static str,
    /// The sorts of its arguments.
    pub takes: &'static [Sort],
    /// When it holds.
    pub doc: &'static str,
    /// The test.
    pub run: predicates::Test,
    /// What an instance that satisfies it has, where chance would seldom draw it.
    pub asks: Asks,
    /// What is known of the test.
    pub marks: &'static [Mark],
}

/// What is known of a test or a function, beside what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A test that only says where a rule pays: no rule is wrong without it.
    Profit,
    /// Of shapes, a test looks at ranks and at which extents are 1, and at nothing else.
    Units,
    /// A function that does the same whatever extents are: for symbols it gives what it would give for their values.
    Uniform,
}

/// What a predicate asks of its first argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// What chance often draws.
    Nothing,
    /// A constant.
    Constant,
    /// One number everywhere.
    Number,
    /// One positive number everywhere.
    Positive,
    /// The number that the second argument is, everywhere.
    ThisNumber,
    /// One over the number of elements of the second argument along the axes that the third is.
    MeanFactor,
    /// No element is -0.
    NeverMinusZero,
    /// No element is below 0 or -0.
    Nonnegative,
    /// The rank that the second argument is.
    Rank,
    /// One of these dtypes, likelier where it stands more than once.
    DType(&'static [DType]),
    /// A list of which every entry is this, and no other list.
    Every(i64),
    /// A list without an entry below 0, and no other list.
    Natural,
    /// The permutation that moves nothing, and no other one.
    Identity,
}

macro_rules! named_debug {
    ($($t:ty),*) => {$(
        impl std::fmt::Debug for $t {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name)
            }
        }
    )*};
}
named_debug!(Function, Predicate);

/// The attribute function of a name.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

/// Every predicate.
pub fn predicates() -> &'static [Predicate] {
    predicates::PREDICATES
}

/// The predicate of a name.
pub fn predicate(name: &str) -> Option<&'static Predicate> {
    predicates::PREDICATES.iter().find(|f| f.name == name)
}

/// The names of the sets of operators that rules may range over.
pub fn operator_sets() -> Vec<&'static str> {
    let mut names: Vec<&str> = ops::all().iter().filter_map(|d| d.family()).collect();
    names.extend(["unary-map", "binary-map"]);
    names.sort_unstable();
    names.dedup();
    names
}

/// The operators of a set that rules may range over.
pub fn operator_set(name: &str) -> Option<Vec<&'static str>> {
    let maps = |n: usize| {
        scalar::functions()
            .iter()
            .filter(|f| f.arity == n && !f.is_cast())
            .map(|f| f.name)
            .collect()
    };
    match name {
        "unary-map" => Some(maps(1)),
        "binary-map" => Some(maps(2)),
        _ => {
            let members = ops::all().iter().filter(|d| d.family() == Some(name));
            let names: Vec<&str> = members.map(|d| d.name()).collect();
            (!names.is_empty()).then_some(names)
        }
    }
}

macro_rules! functions {
    ($($name:literal ($($takes:ident)*) $gives:ident $([$($mark:ident)*])? $doc:literal $run:expr;)*) => {
        /// Every attribute function: its name, what it takes, what it gives.
        pub static FUNCTIONS: &[Function] = &[$(Function {
            name: $name,
            takes: &[$(Sort::$takes),*],
            gives: Sort::$gives,
            doc: $doc,
            marks: &[$($(Mark::$mark),*)?],
            run: $run,
        }),*];
    };
}

functions! {
    "shape-of" (Stream) Dims [Uniform] "the extents of a stream" |a| Some(Attr::Dims(a[0].shape()?.to_vec()));
    "dtype-of" (Stream) DType "the dtype of a stream" |a| Some(Attr::DType(a[0].stream()?.ty.dtype));
    "number-of" (Num) Num "the number that a stream is everywhere" |a| Some(Attr::number(a[0].number()?));
    "compose-perm" (Ints Ints) Ints [Uniform] "the transpose that is the first of the second" |a| {
        let (p, q) = (a[0].ints()?, a[1].ints()?);
        at(q, p).map(Attr::Ints)
    };
    "inverse-perm" (Ints) Ints [Uniform] "the transpose that undoes one" |a| inverse(a[0].ints()?).map(Attr::Ints);
    "permute" (Ints Entries) Entries [Uniform] "a list of one entry for every dim, transposed" |a| permuted(&a[1], a[0].ints()?);
    "unpermute" (Ints Entries) Entries [Uniform] "a list of one entry for every dim, before the transpose" |a| permuted(&a[1], &inverse(a[0].ints()?)?);
    "axes-through-perm" (Ints Ints) Ints [Uniform] "axes of a transpose's result as axes of its operand" |a| at(a[0].ints()?, a[1].ints()?).map(Attr::Ints);
    "axes-after-perm" (Ints Ints) Ints [Uniform] "axes of a transpose's operand as axes of its result" |a| at(&inverse(a[0].ints()?)?, a[1].ints()?).map(Attr::Ints);
    "sorted-axes-through-perm" (Ints Ints) Ints [Uniform] "the same, in ascending order" |a| {
        let mut v = at(a[0].ints()?, a[1].ints()?)?;
        v.sort_unstable();
        Some(Attr::Ints(v))
    };
    "axis-through-perm" (Ints Int) Int [Uniform] "the same for one axis" |a| Some(Attr::Int(*a[0].ints()?.get(a[1].int()? as usize)?));
    "identity-perm" (Stream) Ints [Uniform] "the transpose of a stream that moves nothing" |a| Some(Attr::Ints((0..a[0].rank()? as i64).collect()));
    "row-order" (Ints Ints Stream) Ints "for an operand of a product of matrices: its batch axes, the only other one, and the one that is summed over" |a| {
        let (batch, summed) = (a[0].ints()?, a[1].ints()?);
        Some(Attr::Ints([batch, &[single_free(batch, summed, a[2].rank()?)?], summed].concat()))
    };
    "column-order" (Ints Ints Stream) Ints "the same with the one that is summed over before the other one" |a| {
        let (batch, summed) = (a[0].ints()?, a[1].ints()?);
        Some(Attr::Ints([batch, summed, &[single_free(batch, summed, a[2].rank()?)?]].concat()))
    };
    "add-dims" (Dims Dims) Dims [Uniform] "the sums of two lists" |a| zip(&a[0].dims()?, &a[1].dims()?, |x, y| x + y).map(Attr::Dims);
    "scale-dims" (Dims Dims) Dims [Uniform] "the products of two lists" |a| zip(&a[0].dims()?, &a[1].dims()?, |x, y| x * y).map(Attr::Dims);
    "mul-ints" (Ints Ints) Ints [Uniform] "the products of two lists of integers" |a| zip(a[0].ints()?, a[1].ints()?, |x, y| x * y).map(Attr::Ints);
    "zeros" (Dims) Dims [Uniform] "as many dims, all 0" |a| Some(Attr::Dims(vec![Dim::ZERO; a[0].dims()?.len()]));
    "zeros-for" (Stream) Ints [Uniform] "integers 0, one for every dim of a stream" |a| Some(Attr::Ints(vec![0; a[0].rank()?]));
    "ones-for" (Stream) Ints [Uniform] "integers 1, one for every dim of a stream" |a| Some(Attr::Ints(vec![1; a[0].rank()?]));
    "margins" (Dims) Dims "what of paddings is added" |a| parted(&a[0], |d| if d.is_nonnegative() { d.clone() } else { Dim::ZERO });
    "crops" (Dims) Dims "what of paddings is taken away" |a| parted(&a[0], |d| if d.is_nonnegative() { Dim::ZERO } else { d.clone() });
    "seen-low" (Ints Ints Dims Dims Stream Stream) Dims "of a convolution's strides, dilations, paddings, operand and weights: the padding before, for taps that see an element"
        windows::seen_low;
    "seen-high" (Ints Ints Dims Dims Stream Stream) Dims "the same behind" windows::seen_high;
    "seen-start" (Ints Ints Dims Dims Stream Stream) Dims "where the weights of these taps start" windows::seen_start;
    "seen-size" (Ints Ints Dims Dims Stream Stream) Dims "the extents of the weights of these taps" windows::seen_size;
    "cut-axis" (Ints Ints Dims Dims Stream Stream) Int "see `sees-little`: the axis along which windows are cut apart" windows::cut_axis;
    "cut-high" (Ints Ints Dims Dims Stream Stream) Dims "see `sees-little`: the padding behind the windows before the cut" windows::cut_high;
    "cut-low" (Ints Ints Dims Dims Stream Stream) Dims "see `sees-little`: the padding before the windows behind the cut" windows::cut_low;
    "taps-around" (Ints Dims Dims) Dims "of the dilations of two convolutions and their paddings on one side: how many taps the first's windows have there beyond the second's"
        windows::taps_around;
    "around-spatial" (Dims) Dims "margins of the spatial dims, for all dims" |a| {
        Some(Attr::Dims([&[Dim::ZERO, Dim::ZERO][..], &a[0].dims()?].concat()))
    };
    "window-positions" (Dims Dims Stream Stream) Dims "where windows of weights fit into the spatial dims of a stream with margins, one step apart: how many" |a| {
        let (low, high, x, w) = (a[0].dims()?, a[1].dims()?, a[2].shape()?.get(2..)?, a[3].shape()?.get(2..)?);
        let wide = zip(&zip(&low, &high, |l, h| l + h)?, x, |margins, x| x + margins)?;
        zip(&wide, w, |x, w| &(x - w) + 1).map(Attr::Dims)
    };
    "around-tiles" (Int Dims Dims) Dims "the second argument's margins of the spatial dims, for all dims, and beyond them what fills whole tiles" |a| {
        let (tile, high, results) = (Dim::Const(a[0].int()?), a[1].dims()?, a[2].dims()?);
        let left = |n: &Dim| &(&n.ceil_div(&tile) * &tile) - n;
        let margins = zip(&high, &results, |h, n| h + &left(n))?;
        Some(Attr::Dims([&[Dim::ZERO, Dim::ZERO][..], &margins].concat()))
    };
    "perm-last" (Stream) Ints "the transpose that moves dim 1 to the end" |a| {
        let r = a[0].rank()? as i64;
        (r >= 2).then(|| Attr::Ints([0].into_iter().chain(2..r).chain([1]).collect()))
    };
    "perm-first" (Stream) Ints "the transpose that moves the last dim to place 1" |a| {
        let r = a[0].rank()? as i64;
        (r >= 2).then(|| Attr::Ints([0, r - 1].into_iter().chain(1..r - 1).collect()))
    };
    "last-axis" (Stream) Ints [Uniform] "the last axis, as a list" |a| Some(Attr::Ints(vec![a[0].rank()?.checked_sub(1)? as i64]));
    "axis-vector" (Stream Int) Dims "a stream's extents with all but one axis 1" |a| axis_vector(a[0].shape()?, usize::try_from(a[1].int()?).ok()?);
    "spatial-axes" (Stream) Ints "the axes of windows" |a| {
        Some(Attr::Ints((2..a[0].rank()? as i64).collect()))
    };
    "spatial-extents" (Stream) Ints "the extents of the axes of windows, where known" |a| {
        a[0].shape()?.get(2..)?.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>().map(Attr::Ints)
    };
    "window-of" (Stream) Ints "the extents of the weights' window, where known" |a| {
        a[0].shape()?.get(2..)?.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>().map(Attr::Ints)
    };
    "shuffle-matrix" (Stream) Dims "the extents [C, window·O] of transposed-convolution weights" |a| {
        let [c, o, window @ ..] = a[0].shape()? else { return None };
        Some(Attr::Dims(vec![c.clone(), &brolga_ir::dim::product(window) * o]))
    };
    "shuffle-split" (Stream Stream) Dims "the extents [N, spatial…, window…, O] of a transposed convolution's products" |a| {
        let (x, w) = (a[0].shape()?, a[1].shape()?);
        Some(Attr::Dims([x.get(..1)?, x.get(2..)?, w.get(2..)?, w.get(1..2)?].concat()))
    };
    "shuffle-perm" (Stream) Ints "the transpose that puts each window dim behind its spatial dim" |a| {
        let n = a[0].rank()? as i64 - 2;
        Some(Attr::Ints([0].into_iter().chain((0..n).flat_map(|i| [1 + i, 1 + n + i])).chain([1 + 2 * n]).collect()))
    };
    "shuffle-merged" (Stream Stream) Dims "the extents [N, spatial·window…, O]" |a| {
        let (x, w) = (a[0].shape()?, a[1].shape()?);
        let spatial = zip(x.get(2..)?, w.get(2..)?, |p, q| p * q)?;
        Some(Attr::Dims([x.get(..1)?, &spatial, w.get(1..2)?].concat()))
    };
    "perm-after-reshape" (Ints Stream Dims) Ints "see `regroup`: the transpose that remains" |a| {
        regroup(a[0].ints()?, a[1].shape()?, &a[2].dims()?).map(|r| Attr::Ints(r.1))
    };
    "shape-before-perm" (Ints Stream Dims) Dims "see `regroup`: the extents that the reshape gives" |a| {
        regroup(a[0].ints()?, a[1].shape()?, &a[2].dims()?).map(|r| Attr::Dims(r.0))
    };
    "perm-of-free" (Ints Ints Stream Ints) Ints "the order of a contraction's free dims that a transpose of its left operand makes" |a| {
        let (p, lc) = (a[0].ints()?, a[1].ints()?);
        let free: Vec<i64> = (0..p.len() as i64).filter(|d| !lc.contains(d)).map(|d| p[d as usize]).collect();
        let mut sorted = free.clone();
        sorted.sort_unstable();
        let mut out: Vec<i64> = free.iter().filter_map(|f| sorted.iter().position(|s| s == f)).map(|i| i as i64).collect();
        let right = a[2].rank()?.checked_sub(a[3].ints()?.len())?;
        out.extend((0..right).map(|i| (free.len() + i) as i64));
        Some(Attr::Ints(out))
    };
    "unbatched" (Ints Ints) Ints "contracted axes after leading batch axes are dropped" |a| {
        let (rb, rc) = (a[0].ints()?, a[1].ints()?);
        Some(Attr::Ints(rc.iter().map(|c| c - rb.iter().filter(|b| *b < c).count() as i64).collect()))
    };
    "without-dims" (Ints Stream) Dims [Uniform] "a stream's extents but for some axes" |a| {
        let (drop, x) = (a[0].ints()?, a[1].shape()?);
        Some(Attr::Dims(x.iter().enumerate().filter(|(d, _)| !drop.contains(&(*d as i64))).map(|(_, e)| e.clone()).collect()))
    };
    "inner-axes" (Stream) Ints [Uniform] "all axes of a stream but the first" |a| Some(Attr::Ints((1..a[0].rank()? as i64).collect()));
    "as-channels" (Stream) Dims "the extents of a stream that varies along dim 0 only, along dim 1" |a| {
        let v = a[0].shape()?;
        let ones = vec![Dim::ONE; v.len().checked_sub(2)?];
        Some(Attr::Dims([&[Dim::ONE, v[0].clone()][..], &ones].concat()))
    };
    "behind-free" (Stream Ints Stream Ints) Dims "for a contraction: 1 for every free dim of the left operand, then a stream's extents but for contracted axes" |a| {
        let (lc, v, rc) = (a[1].ints()?, a[2].shape()?, a[3].ints()?);
        let ones = vec![Dim::ONE; a[0].rank()?.checked_sub(lc.len())?];
        let free = v.iter().enumerate().filter(|(d, _)| !rc.contains(&(*d as i64))).map(|(_, e)| e.clone());
        Some(Attr::Dims(ones.into_iter().chain(free).collect()))
    };
    "first-axis" (Ints) Int [Uniform] "the first of a list of axes" |a| Some(Attr::Int(*a[0].ints()?.first()?));
    "free-axis" (Ints Stream) Int "the only axis of a stream that is none of a list" |a| single_free(&[], a[0].ints()?, a[1].rank()?).map(Attr::Int);
    "past" (Stream Int) Dims "where what lies behind a stream along an axis starts" parts::past;
    "sub-dims" (Dims Dims) Dims "the differences of two lists" |a| zip(&a[0].dims()?, &a[1].dims()?, |x, y| x - y).map(Attr::Dims);
    "axis-of-halves" (Dims Dims Dims Dims Stream) Int "of the starts and sizes of two slices that are next to each other and together a whole stream: the axis along which they are" parts::axis_of_halves;
    "joined-sizes" (Dims Dims Dims Dims Int) Dims "of the starts and sizes of two slices that are next to each other along an axis: the sizes of both as one" parts::joined_sizes;
    "tail-shape" (Stream Int) Dims [Uniform] "the extents from an axis on" |a| {
        Some(Attr::Dims(a[0].shape()?.get(usize::try_from(a[1].int()?).ok()?..)?.to_vec()))
    };
}

fn at(list: &[i64], positions: &[i64]) -> Option<Vec<i64>> {
    positions
        .iter()
        .map(|&p| list.get(usize::try_from(p).ok()?).copied())
        .collect()
}

/// The only axis that is neither a batch axis nor the one that is summed over.
fn single_free(batch: &[i64], summed: &[i64], rank: usize) -> Option<i64> {
    let mut free = (0..rank as i64).filter(|d| !batch.contains(d) && !summed.contains(d));
    let only = free.next().filter(|_| free.next().is_none());
    only.filter(|_| summed.len() == 1)
}

/// The inverse of a permutation; `None` for what is none.
fn inverse(p: &[i64]) -> Option<Vec<i64>> {
    let mut out = vec![None; p.len()];
    for (i, &d) in p.iter().enumerate() {
        let place = out.get_mut(usize::try_from(d).ok()?)?;
        if place.replace(i as i64).is_some() {
            return None;
        }
    }
    out.into_iter().collect()
}

fn permuted(list: &Arg, p: &[i64]) -> Option<Attr> {
    match list.ints() {
        Some(v) => at(v, p).map(Attr::Ints),
        None => {
            let v = list.dims()?;
            let picked: Option<Vec<Dim>> = p.iter().map(|&d| v.get(usize::try_from(d).ok()?).cloned()).collect();
            picked.map(Attr::Dims)
        }
    }
}

fn zip<T, U>(a: &[T], b: &[T], f: impl Fn(&T, &T) -> U) -> Option<Vec<U>> {
    (a.len() == b.len()).then(|| a.iter().zip(b).map(|(x, y)| f(x, y)).collect())
}

/// Part of every entry; `None` where it is not known whether one is negative.
fn parted(list: &Arg, part: fn(&Dim) -> Dim) -> Option<Attr> {
    let v = list.dims()?;
    let known = |d: &Dim| d.is_nonnegative() || d.as_const().is_some();
    v.iter().all(known).then(|| Attr::Dims(v.iter().map(part).collect()))
}

fn axis_vector(shape: &[Dim], axis: usize) -> Option<Attr> {
    let mut out = vec![Dim::ONE; shape.len()];
    out.get_mut(axis)?.clone_from(&shape[axis]);
    Some(Attr::Dims(out))
}

/// `reshape{s}(transpose{p}(x)) = transpose{q}(reshape{t}(x))`: gives `(t, q)` when the reshape only merges or splits
/// dims that are neighbours in `x` too. The dims of both shapes are cut into the smallest groups of equal size.
fn regroup(p: &[i64], x: &[Dim], s: &[Dim]) -> Option<(Vec<Dim>, Vec<i64>)> {
    inverse(p).filter(|_| p.len() == x.len())?;
    let from: Vec<&Dim> = p.iter().map(|&d| &x[d as usize]).collect();
    let (mut i, mut j) = (0, 0);
    // (first operand dim of x, dims of s)
    let mut groups: Vec<(i64, std::ops::Range<usize>)> = vec![];
    while i < from.len() && j < s.len() {
        let (i0, j0) = (i, j);
        let (mut a, mut b) = (from[i].clone(), s[j].clone());
        (i, j) = (i + 1, j + 1);
        while a != b {
            if b.exact_div(&a).is_some() && i < from.len() {
                a = &a * from[i];
                i += 1;
            } else if a.exact_div(&b).is_some() && j < s.len() {
                b = &b * &s[j];
                j += 1;
            } else {
                return None;
            }
        }
        if i0 + 1 < i && (i0 + 1..i).any(|k| p[k] != p[k - 1] + 1) {
            return None;
        }
        groups.push((p[i0], j0..j));
    }
    if i < from.len() || j < s.len() {
        return None;
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&g| groups[g].0);
    let (mut shape, mut place) = (vec![], vec![0; s.len()]);
    for &g in &order {
        for d in groups[g].1.clone() {
            place[d] = shape.len() as i64;
            shape.push(s[d].clone());
        }
    }
    Some((shape, place))
}

/// True for the dtypes in which arithmetic is done.
pub fn is_compute(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64)
}
