//! Sliding windows, shared by conv, pool and conv_transpose: output `o` sees, by tap `k`, input `o·stride - low + k·dilation`.

use super::Access;
use super::shape::{check_len, check_pads, check_steps};
use crate::index::{Bound, Ix, Var};
use crate::{Dim, Type, indices};

/// Checks strides and dilations (at least 1 each, one per spatial dimension) and the paddings' numbers.
pub fn check(spatial: usize, strides: &[i64], dilations: &[i64], low: &[Dim], high: &[Dim]) -> Result<(), String> {
    check_len("strides", strides.len(), spatial)?;
    check_len("dilations", dilations.len(), spatial)?;
    check_len("pads_low", low.len(), spatial)?;
    check_len("pads_high", high.len(), spatial)?;
    check_pads("pads_low", low)?;
    check_pads("pads_high", high)?;
    check_steps("strides", strides, 1)?;
    check_steps("dilations", dilations, 1)
}

/// The extent that a window of `kernel` taps covers.
pub fn covered(kernel: &Dim, dilation: i64) -> Dim {
    &(&(kernel - &Dim::ONE) * dilation) + 1
}

/// True when no window of a dimension with these paddings reaches beyond the operand.
pub fn stays_inside(low: &Dim, high: &Dim) -> bool {
    let none = |pad: &Dim| (&Dim::ZERO - pad).is_nonnegative();
    none(low) && none(high)
}

/// Where the windows of a result read their operand: at the result's own point (variables from 0), but along the spatial
/// dimensions, from `first` on, at `o·stride - low + k·dilation` with the tap `k` (variables from the rank on). Dimensions in
/// which windows may lie partly outside are guarded.
pub fn reads(
    operand: &Type,
    first: usize,
    strides: &[i64],
    dilations: &[i64],
    low: &[Dim],
    inside: &dyn Fn(usize) -> bool,
) -> Access {
    let var = |d: usize| Ix::var(Var(d as u32));
    let mut access = Access::of((0..operand.rank()).map(var).collect());
    for d in 0..strides.len() {
        let (axis, tap) = (first + d, var(operand.rank() + d));
        let (o, k) = (
            access.at[axis].scale(&Dim::Const(strides[d])),
            tap.scale(&Dim::Const(dilations[d])),
        );
        access.at[axis] = &(&o + &k) + &(&Dim::ZERO - &low[d]);
        if !inside(d) {
            access.guard.push(Bound {
                index: access.at[axis].clone(),
                extent: operand.shape[axis].clone(),
            });
        }
    }
    access
}

/// The windows of all spatial dimensions, with known extents.
pub struct Windows<'a> {
    /// The extents that the windows slide over.
    pub input: &'a [usize],
    /// The number of windows in each dimension.
    pub output: &'a [usize],
    /// Taps in each dimension.
    pub kernel: &'a [usize],
    /// Distance between windows.
    pub strides: &'a [i64],
    /// Distance between taps.
    pub dilations: &'a [i64],
    /// Elements missing before the input; negative ones are skipped.
    pub low: &'a [i64],
}

/// Some windows in a row, seen through one tap: window `out + i` sees element `input + i·stride` of the last dimension.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Row-major position of the tap in the kernel.
    pub tap: usize,
    /// Row-major position of the first window.
    pub out: usize,
    /// Row-major position of the element that it sees.
    pub input: usize,
    /// How many windows.
    pub count: usize,
}

impl Windows<'_> {
    /// Everything that windows see within the input, tap by tap. There is at least one spatial dimension.
    pub fn runs(&self) -> Vec<Run> {
        let last = self.input.len() - 1;
        let mut runs: Vec<Run> = vec![];
        for (tap, k) in indices(self.kernel).enumerate() {
            let seen = |d: usize, o: usize| {
                let i = o as i128 * self.strides[d] as i128 + k[d] as i128 * self.dilations[d] as i128;
                let i = i - self.low[d] as i128;
                (0..self.input[d] as i128).contains(&i).then_some(i as usize)
            };
            let in_row = |o: &usize| seen(last, *o).is_some();
            let row = self.output[last];
            let Some(first) = (0..row).find(in_row) else { continue };
            let count = (first..row).take_while(in_row).count();
            let start = seen(last, first).expect("the first window sees an element");
            for (r, outer) in indices(&self.output[..last]).enumerate() {
                let place = outer
                    .iter()
                    .enumerate()
                    .try_fold(0, |p, (d, &o)| Some(p * self.input[d] + seen(d, o)?));
                let Some(p) = place else { continue };
                let run = Run {
                    tap,
                    out: r * row + first,
                    input: p * self.input[last] + start,
                    count,
                };
                match runs.last_mut() {
                    // Whole rows that follow each other on both sides are one run: a 1×1 convolution is one per plane.
                    Some(prev)
                        if prev.tap == tap
                            && self.strides[last] == 1
                            && prev.out + prev.count == run.out
                            && prev.input + prev.count == run.input =>
                    {
                        prev.count += count;
                    }
                    _ => runs.push(run),
                }
            }
        }
        runs
    }
}
