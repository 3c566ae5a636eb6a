//! What the taps of a convolution's windows see: with padding as wide as the image, as dilated convolutions have it, many see nothing
//! but zeros, for all windows or for a run of them.

use super::functions::Arg;
use brolga_ir::{Attr, Dim};
use std::ops::Range;

/// The least number of windows in a row that become a convolution of their own: fewer do not fill a register tile.
const LEAST_WINDOWS: i64 = 4;

/// The most runs of windows along one dimension: with more, the runs cost more than what they leave out.
const MOST_RUNS: usize = 4;

/// Windows are told apart where less than this share of their taps see elements.
const LITTLE: f64 = 0.8;

/// The most taps along a dimension that are looked at one by one.
const MOST_TAPS: i64 = 1024;

/// No number about windows is larger than this, so that no product of two of them is beyond 64 bits.
const LARGEST: i64 = 1 << 30;

/// Windows along one dimension.
#[derive(Clone, Copy)]
struct Slide {
    input: i64,
    kernel: i64,
    stride: i64,
    dilation: i64,
    low: i64,
    high: i64,
}

impl Slide {
    /// The number of windows.
    fn windows(&self) -> i64 {
        let room = self.input + self.low + self.high - self.covered();
        room.div_euclid(self.stride) + 1
    }
    /// The extent that a window covers.
    fn covered(&self) -> i64 {
        (self.kernel - 1) * self.dilation + 1
    }
    /// The windows that see an element through a tap.
    fn seeing(&self, tap: i64) -> Range<i64> {
        // Window o sees element o·stride - before.
        let before = self.low - tap * self.dilation;
        let first = (before + self.stride - 1).div_euclid(self.stride).max(0);
        let end = (self.input - 1 + before).div_euclid(self.stride) + 1;
        first..end.min(self.windows()).max(first)
    }
    /// The taps from the first that sees an element to the last; `None` where none does.
    fn taps(&self) -> Option<Range<i64>> {
        let sees = |tap: &i64| !self.seeing(*tap).is_empty();
        let first = (0..self.kernel).find(sees)?;
        let last = (first..self.kernel).rev().find(sees)?;
        Some(first..last + 1)
    }
    /// The share of pairs of a window and a tap that see an element.
    fn share(&self) -> f64 {
        let seen: i64 = (0..self.kernel).map(|tap| self.seeing(tap).count() as i64).sum();
        seen as f64 / (self.kernel * self.windows()) as f64
    }
    /// The first windows of all runs but the first, of windows that see elements through the same taps.
    fn changes(&self) -> Vec<i64> {
        let ends = (0..self.kernel)
            .map(|tap| self.seeing(tap))
            .flat_map(|r| [r.start, r.end]);
        let mut at: Vec<i64> = ends.filter(|o| (1..self.windows()).contains(o)).collect();
        at.sort_unstable();
        at.dedup();
        at
    }
    /// The first of these, where all runs are long enough.
    fn change(&self) -> Option<i64> {
        let at = self.changes();
        let bounds: Vec<i64> = [0]
            .into_iter()
            .chain(at.iter().copied())
            .chain([self.windows()])
            .collect();
        let long = bounds.windows(2).all(|b| b[1] - b[0] >= LEAST_WINDOWS);
        (at.len() < MOST_RUNS && long).then(|| at.first().copied())?
    }
}

/// The windows of a convolution, dimension by dimension: of the arguments strides, dilations, padding before and behind, operand
/// and weights. `None` where an extent is not known, and where there are no windows or no taps.
fn slides(a: &[Arg]) -> Option<Vec<Slide>> {
    let [s, d, low, high, x, w] = a else { return None };
    let (strides, dilations, low, high) = (s.ints()?, d.ints()?, low.dims()?, high.dims()?);
    let (x, w) = (x.shape()?.get(2..)?, w.shape()?.get(2..)?);
    if [dilations.len(), low.len(), high.len(), x.len(), w.len()] != [strides.len(); 5] {
        return None;
    }
    let slide = |i: usize| {
        let small = |n: i64| (-LARGEST..=LARGEST).contains(&n).then_some(n);
        Some(Slide {
            input: small(x[i].as_const()?)?,
            kernel: w[i].as_const().filter(|n| *n <= MOST_TAPS)?,
            stride: small(strides[i]).filter(|n| *n > 0)?,
            dilation: small(dilations[i])?,
            low: small(low[i].as_const()?)?,
            high: small(high[i].as_const()?)?,
        })
    };
    let slides: Vec<Slide> = (0..strides.len()).map(slide).collect::<Option<_>>()?;
    let some = |s: &Slide| s.kernel > 0 && s.windows() > 0;
    slides.iter().all(some).then_some(slides)
}

/// What is left when taps that see no element are dropped: a list of one entry a dimension.
fn seen(a: &[Arg], entry: fn(&Slide, Range<i64>) -> i64) -> Option<Vec<Dim>> {
    let entries = slides(a)?.into_iter().map(|s| Some(Dim::Const(entry(&s, s.taps()?))));
    entries.collect()
}

/// The padding before, without what only dropped taps see.
pub(super) fn seen_low(a: &[Arg]) -> Option<Attr> {
    seen(a, |s, taps| s.low - taps.start * s.dilation).map(Attr::Dims)
}

/// The padding behind, without what only dropped taps see.
pub(super) fn seen_high(a: &[Arg]) -> Option<Attr> {
    seen(a, |s, taps| s.high - (s.kernel - taps.end) * s.dilation).map(Attr::Dims)
}

/// Where the weights of the taps that are kept start, for all dims of the weights.
pub(super) fn seen_start(a: &[Arg]) -> Option<Attr> {
    let taps = seen(a, |_, taps| taps.start)?;
    Some(Attr::Dims([vec![Dim::ZERO, Dim::ZERO], taps].concat()))
}

/// The extents of the weights of the taps that are kept.
pub(super) fn seen_size(a: &[Arg]) -> Option<Attr> {
    let taps = seen(a, |_, taps| taps.end - taps.start)?;
    Some(Attr::Dims([&a[5].shape()?[..2], &taps].concat()))
}

/// True when a tap before the first or behind the last that sees an element can be dropped, and some see one.
pub(super) fn has_blind_taps(a: &[Arg]) -> Option<bool> {
    let blind = |s: Slide| Some(s.taps()? != (0..s.kernel));
    let all: Vec<bool> = slides(a)?.into_iter().map(blind).collect::<Option<_>>()?;
    Some(all.contains(&true))
}

/// The dimension in which windows are cut apart, and the first window behind the cut.
fn cut(a: &[Arg]) -> Option<(usize, Slide, i64)> {
    let slides = slides(a)?;
    if slides.iter().map(Slide::share).product::<f64>() >= LITTLE {
        return None;
    }
    let cuts = slides
        .iter()
        .enumerate()
        .filter_map(|(d, s)| Some((d, *s, s.change()?)));
    cuts.min_by(|(_, s, _), (_, t, _)| s.share().total_cmp(&t.share()))
}

/// True when few taps see an element, and runs of windows see through the same ones.
pub(super) fn sees_little(a: &[Arg]) -> Option<bool> {
    cut(a).map(|_| true)
}

/// The axis along which results of windows that are cut apart follow each other.
pub(super) fn cut_axis(a: &[Arg]) -> Option<Attr> {
    cut(a).map(|(d, ..)| Attr::Int(2 + d as i64))
}

/// The padding behind the windows before the cut.
pub(super) fn cut_high(a: &[Arg]) -> Option<Attr> {
    let (d, s, at) = cut(a)?;
    let mut high = a[3].dims()?;
    high[d] = Dim::Const((at - 1) * s.stride + s.covered() - s.input - s.low);
    Some(Attr::Dims(high))
}

/// The padding before the windows behind the cut.
pub(super) fn cut_low(a: &[Arg]) -> Option<Attr> {
    let (d, s, at) = cut(a)?;
    let mut low = a[2].dims()?;
    low[d] = Dim::Const(s.low - at * s.stride);
    Some(Attr::Dims(low))
}

/// How many taps the windows of one convolution have beyond those of another on one side: of their dilations, and the paddings of both on
/// that side. `None` where taps do not coincide, or the first's begin behind the other's.
pub fn taps_around(a: &[Arg]) -> Option<Attr> {
    let (dilations, wide, narrow) = (a[0].ints()?, a[1].dims()?, a[2].dims()?);
    let taps = |i: usize| {
        let apart = (&wide[i] - &narrow[i]).as_const()?;
        let whole = apart >= 0 && apart.checked_rem(dilations[i])? == 0;
        whole.then(|| Dim::Const(apart / dilations[i]))
    };
    let fits = [wide.len(), narrow.len()] == [dilations.len(); 2];
    let all: Option<Vec<Dim>> = (0..dilations.len()).filter(|_| fits).map(taps).collect();
    all.filter(|_| fits).map(Attr::Dims)
}
