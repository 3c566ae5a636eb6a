//! `conv_transpose{strides, dilations, pads_low, pads_high, output_pad, groups, acc, out}(x, w)`: the adjoint of `conv`: with
//! `x [N, C, spatial…]` and `w [C, O/groups, kernel…]`, every `x[n, c, i…] · w[c, o, k…]` is added to
//! `out[n, g(c)·O/groups + o, i·stride - low + k·dilation]`. Output extents are
//! `(n - 1)·stride + dilation·(kernel - 1) + 1 - low - high + output_pad`. Source: ONNX `ConvTranspose`.
//!
//! It decomposes into a convolution whose results for one element of `x` are the `stride` elements that begin there, side by side in
//! the channels, and these are then laid out one after the other. Groups, dilations and kernels shorter than the stride have a pad
//! between the elements and a convolution with the kernel reversed and its channels exchanged. The first is the sub-pixel convolution of W. Shi et al., Is the deconvolution layer the same as a
//! convolutional layer?, arXiv 1609.07009.

use super::accumulate::{Accumulator, check_dtypes, check_one_float, load, store};
use super::window::{self, Windows};
use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Op, OpDef, Role, Sample, arity, conv, draw, pad, shape};
use crate::{Build, DType, Dim, Tensor, Type, Value};
use std::num::Wrapping;

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("strides", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("pads_low", AttrKind::Dims),
            ("pads_high", AttrKind::Dims),
            ("output_pad", AttrKind::Ints),
            ("groups", AttrKind::Int),
            ("acc", AttrKind::DType),
            ("out", AttrKind::DType),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (x, w) = (&inputs[0], &inputs[1]);
        check_dtypes(x, w, op.dtype("acc"), op.dtype("out"))?;
        check_one_float(x, w)?;
        shape::check_rank("x", x, 3)?;
        shape::check_len("the shape of w", w.rank(), x.rank())?;
        let (strides, dilations, extra) = (op.ints("strides"), op.ints("dilations"), op.ints("output_pad"));
        let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
        window::check(x.rank() - 2, strides, dilations, low, high)?;
        shape::check_len("output_pad", extra.len(), x.rank() - 2)?;
        shape::check_steps("output_pad", extra, 0)?;
        conv::per_group("input channels", &x.shape[1], op.int("groups"))?;
        if x.shape[1] != w.shape[0] {
            return Err(format!("x {x} and w {w}, expected {} channels first in w", x.shape[1]));
        }
        let mut out = vec![x.shape[0].clone(), &w.shape[1] * op.int("groups")];
        for d in 0..x.rank() - 2 {
            let spread = pad::spread_extent(&x.shape[2 + d], strides[d] - 1)?;
            let full = &(&spread + &window::covered(&w.shape[2 + d], dilations[d])) - &Dim::ONE;
            out.push(&(&(&full - &low[d]) - &high[d]) + extra[d]);
        }
        shape::check_extents("result", &out)?;
        Ok(vec![Type::new(op.dtype("out"), out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match op.dtype("acc") {
            DType::F64 => scatter::<f64>(op, inputs),
            DType::F32 => scatter::<f32>(op, inputs),
            _ => scatter::<Wrapping<i64>>(op, inputs),
        }
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let (x, w) = (b.type_of(inputs[0]), b.type_of(inputs[1]));
        let (rank, groups) = (x.rank(), op.int("groups"));
        let spatial = rank - 2;
        let (strides, dilations) = (op.ints("strides"), op.ints("dilations"));
        let mut y = inputs[0];
        if strides.iter().any(|&s| s > 1) {
            if let Some(form) = SubPixel::of(op, x.clone(), w.clone()) {
                return Ok(Some(vec![form.result(b, inputs)?]));
            }
            let none = vec![Dim::ZERO; rank];
            let mut interior = vec![0; 2];
            interior.extend(strides.iter().map(|s| s - 1));
            let attrs = [
                Attr::Dims(none.clone()),
                Attr::Dims(none),
                Attr::Ints(interior),
                Attr::num(0.0),
            ];
            y = b.call("pad", &attrs, &[y])?;
        }
        // w [g·C', O', k…] → [g·O', C', k… reversed]
        let (depth, outputs) = (
            conv::per_group("input channels", &w.shape[0], groups)?,
            w.shape[1].clone(),
        );
        let kernel = &w.shape[2..];
        let with_kernel = |front: &[Dim]| Attr::Dims([front, kernel].concat());
        let split = with_kernel(&[Dim::Const(groups), depth.clone(), outputs.clone()]);
        let merged = with_kernel(&[&outputs * groups, depth.clone()]);
        let mut perm = vec![0, 2, 1];
        perm.extend(3..rank + 1);
        let mut v = b.call("reshape", &[split], &[inputs[1]])?;
        v = b.call("transpose", &[Attr::axes(&perm)], &[v])?;
        v = b.call("reshape", &[merged], &[v])?;
        let mut starts = vec![Dim::ZERO; 2];
        starts.extend(kernel.iter().map(|k| k - &Dim::ONE));
        let mut steps = vec![1; 2];
        steps.resize(rank, -1);
        let sizes = b.type_of(v).shape;
        v = b.call(
            "slice",
            &[Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)],
            &[v],
        )?;
        let edge = |pads: &[Dim], extra: &[i64]| {
            let edges = (0..spatial).map(|d| {
                let reach = &window::covered(&kernel[d], dilations[d]) - &Dim::ONE;
                &(&reach - &pads[d]) + extra[d]
            });
            Attr::Dims(edges.collect())
        };
        let attrs = [
            Attr::Ints(vec![1; spatial]),
            Attr::ints(dilations),
            edge(op.dims("pads_low"), &vec![0; spatial]),
            edge(op.dims("pads_high"), op.ints("output_pad")),
            Attr::Int(groups),
            Attr::DType(op.dtype("acc")),
            Attr::DType(op.dtype("out")),
        ];
        Ok(Some(vec![b.call("conv", &attrs, &[y, v])?]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn weights(&self) -> Option<usize> {
        Some(1)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let n = 1 + d.below(2);
        let mut w = draw::windows(d, n);
        let mut extra = vec![0; n];
        // Windows that do not overlap, seldom cropped or with space between their taps.
        if d.chance(60) {
            w.strides.clone_from(&w.kernel);
            if d.chance(75) {
                w.low.fill(0);
                w.high.fill(0);
                w.dilations.fill(1);
            }
        } else if d.chance(50) {
            extra = w.strides.iter().map(|s| s - 1).collect();
        }
        let groups = Attr::Int(draw::pick(d, &[1, 2]));
        let Attr::Int(g) = d.attr(5, groups)? else { return None };
        let mut small = || 1 + d.below(3) as i64;
        let (c, o) = (small(), small());
        let batch = 1 + d.below(2) as i64;
        let x = draw::known(d.dtype(), &[&[batch, g * c][..], &w.extents].concat());
        let weights = draw::known(d.dtype(), &[&[g * c, o][..], &w.kernel].concat());
        let inputs = vec![d.operand(0, Some(&x))?, d.operand(1, Some(&weights))?];
        let (acc, out) = draw::sum_dtypes(d);
        let drawn = vec![
            Attr::Ints(w.strides),
            Attr::Ints(w.dilations),
            Attr::dims(&w.low),
            Attr::dims(&w.high),
            Attr::Ints(extra),
            Attr::Int(g),
            Attr::DType(acc),
            Attr::DType(out),
        ];
        Some(Drawn {
            attrs: draw::attrs(d, drawn)?,
            inputs,
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32, I8, I32};
        let s = |windows: [&[i64]; 5], groups, acc, out, x, w| {
            let [strides, dilations, low, high, extra] = windows;
            Sample::new(
                &[
                    Attr::ints(strides),
                    Attr::ints(dilations),
                    Attr::dims(low),
                    Attr::dims(high),
                    Attr::ints(extra),
                    Attr::Int(groups),
                    Attr::DType(acc),
                    Attr::DType(out),
                ],
                &[x, w],
            )
        };
        vec![
            s(
                [&[2, 2], &[1, 1], &[0, 0], &[0, 0], &[0, 0]],
                1,
                F32,
                F32,
                (F32, &[1, 3, 4, 2]),
                (F32, &[3, 2, 2, 2]),
            ),
            s(
                [&[2, 1], &[1, 2], &[1, 0], &[1, 2], &[1, 0]],
                2,
                F32,
                F32,
                (F32, &[2, 4, 3, 5]),
                (F32, &[4, 3, 3, 2]),
            ),
            s(
                [&[1], &[1], &[2], &[2], &[0]],
                1,
                F32,
                F16,
                (F16, &[1, 2, 5]),
                (F16, &[2, 1, 3]),
            ),
            s(
                [&[3], &[1], &[0], &[1], &[2]],
                1,
                I32,
                I32,
                (I8, &[2, 1, 1]),
                (I8, &[1, 2, 2]),
            ),
            s(
                [&[2], &[1], &[0], &[0], &[0]],
                1,
                F32,
                F32,
                (F32, &[0, 2, 3]),
                (F32, &[2, 2, 2]),
            ),
            // Kernels that are no multiple of the stride, crops of more than one, what no window reaches.
            s(
                [&[3, 2], &[1, 1], &[4, 1], &[2, 0], &[1, 1]],
                1,
                F32,
                F32,
                (F32, &[2, 3, 4, 5]),
                (F32, &[3, 2, 4, 3]),
            ),
            s(
                [&[4], &[1], &[1], &[0], &[3]],
                1,
                I32,
                I32,
                (I8, &[1, 2, 3]),
                (I8, &[2, 2, 2]),
            ),
        ]
    }
}

/// The results for the windows that begin in an element of `x`, as channels, laid out one after the other.
///
/// Along a dimension, `out[i·s + t·s + r] += x[i] · w[t·s + r]` with `r < s`: with `q = i + t`, result `r` of `q` is a
/// convolution of `x` with the taps `t` of `w`, reversed. Where `s` does not divide the kernel, the last results have a tap less,
/// and are a convolution of their own: no weight is multiplied that is not there.
struct SubPixel<'a> {
    op: &'a Op,
    x: Type,
    w: Type,
    /// The results of an element along each dimension: ranges that have as many taps each.
    phases: Vec<Vec<Phases>>,
    strides: Vec<i64>,
    /// Along each dimension: q that are cropped, elements behind the last of `x` that windows of others reach, and q that are left.
    skipped: Vec<Dim>,
    after: Vec<Dim>,
    count: Vec<Dim>,
}

/// Results from `start` to before `end`, of so many taps.
#[derive(Clone)]
struct Phases {
    start: i64,
    end: i64,
    taps: i64,
}

impl SubPixel<'_> {
    /// The form of an operator; `None` for one with groups, dilations, or kernels of unknown extents or shorter than the stride.
    fn of(op: &Op, x: Type, w: Type) -> Option<SubPixel<'_>> {
        let strides = op.ints("strides").to_vec();
        let phases = |(k, &s): (&Dim, &i64)| {
            let k = k.as_const().filter(|&k| k >= s)?;
            let (whole, rest) = (k / s, k % s);
            let long = (0, rest, whole + 1);
            let ranges = [long, (rest, s, whole)].into_iter().filter(|(start, end, _)| start < end);
            Some(ranges.map(|(start, end, taps)| Phases { start, end, taps }).collect())
        };
        let phases: Vec<Vec<Phases>> = w.shape[2..].iter().zip(&strides).map(phases).collect::<Option<_>>()?;
        if op.int("groups") != 1 || op.ints("dilations").iter().any(|&d| d > 1) {
            return None;
        }
        Some(SubPixel {
            op,
            x,
            w,
            phases,
            strides,
            skipped: vec![],
            after: vec![],
            count: vec![],
        })
    }

    /// The operator's result.
    fn result(mut self, b: &mut dyn Build, inputs: &[Value]) -> Result<Value, String> {
        let out = Def.infer(self.op, &[self.x.clone(), self.w.clone()])?.remove(0).shape;
        let spatial = self.strides.len();
        let mut start = vec![Dim::ZERO; 2];
        for d in 0..spatial {
            // Of the first and last q, only those are computed of which some results are not cropped.
            let (s, crop) = (Dim::Const(self.strides[d]), &self.op.dims("pads_low")[d]);
            let reach = self.phases[d].iter().map(|p| p.taps - 1).min().unwrap_or(0);
            let skipped = Dim::min(&crop.floor_div(&s), &Dim::Const(reach));
            let first = crop - &(&skipped * &s);
            let needed = (&first + &out[2 + d]).ceil_div(&s);
            let after = Dim::max(&Dim::ZERO, &(&(&needed - &self.x.shape[2 + d]) + &skipped));
            self.count.push(&(&self.x.shape[2 + d] + &after) - &skipped);
            self.skipped.push(skipped);
            self.after.push(after);
            start.push(first);
        }
        let mut y = self.along(b, inputs, &mut vec![])?;
        // [N, s…, O, q…] → [N, O, (q, s)…] → [N, O, q·s…] → [N, O, out…]
        let each = (0..spatial).flat_map(|d| [2 + spatial + d, 1 + d]);
        let perm: Vec<usize> = [0, 1 + spatial].into_iter().chain(each).collect();
        y = b.call("transpose", &[Attr::axes(&perm)], &[y])?;
        let whole = (0..spatial).map(|d| &self.count[d] * self.strides[d]);
        let whole = [self.x.shape[0].clone(), self.w.shape[1].clone()].into_iter().chain(whole);
        y = b.call("reshape", &[Attr::Dims(whole.collect())], &[y])?;
        let steps = vec![1; out.len()];
        b.call("slice", &[Attr::Dims(start), Attr::Dims(out), Attr::Ints(steps)], &[y])
    }

    /// The results of those phases along the first dimensions, and all along the others: `[N, s…, O, q…]`.
    fn along(&self, b: &mut dyn Build, inputs: &[Value], chosen: &mut Vec<Phases>) -> Result<Value, String> {
        let d = chosen.len();
        let Some(all) = self.phases.get(d) else {
            return self.convolution(b, inputs, chosen);
        };
        let mut parts = vec![];
        for p in all {
            chosen.push(p.clone());
            parts.push(self.along(b, inputs, chosen)?);
            chosen.pop();
        }
        match &parts[..] {
            [one] => Ok(*one),
            _ => b.call("concat", &[Attr::Int(1 + d as i64)], &parts),
        }
    }

    fn convolution(&self, b: &mut dyn Build, inputs: &[Value], chosen: &[Phases]) -> Result<Value, String> {
        let (rank, spatial) = (self.x.rank(), chosen.len());
        let zeros = || Attr::Dims(vec![Dim::ZERO; rank]);
        // w [C, O, k…] → [C, O, (taps, s)…] → [s…, O, C, taps…] → [s…·O, C, taps… reversed]
        let whole = |d: usize| self.phases[d].iter().map(|p| p.taps).max().unwrap_or(0);
        let more = (0..spatial).map(|d| &Dim::Const(whole(d) * self.strides[d]) - &self.w.shape[2 + d]);
        let high = Attr::Dims([Dim::ZERO, Dim::ZERO].into_iter().chain(more).collect());
        let attrs = [zeros(), high, Attr::Ints(vec![0; rank]), Attr::num(0.0)];
        let mut v = b.call("pad", &attrs, &[inputs[1]])?;
        let dims = |each: &dyn Fn(usize) -> [i64; 2]| -> Vec<Dim> {
            let both = (0..spatial).flat_map(each).map(Dim::Const);
            self.w.shape[..2].iter().cloned().chain(both).collect()
        };
        v = b.call("reshape", &[Attr::Dims(dims(&|d| [whole(d), self.strides[d]]))], &[v])?;
        let from = (0..spatial).flat_map(|d| [0, chosen[d].start]).map(Dim::Const);
        let starts = [Dim::ZERO, Dim::ZERO].into_iter().chain(from).collect();
        let sizes = dims(&|d| [chosen[d].taps, chosen[d].end - chosen[d].start]);
        let steps = Attr::Ints(vec![1; sizes.len()]);
        v = b.call("slice", &[Attr::Dims(starts), Attr::Dims(sizes), steps], &[v])?;
        let perm: Vec<usize> = (0..spatial).map(|d| 3 + 2 * d).chain([1, 0]).chain((0..spatial).map(|d| 2 + 2 * d)).collect();
        v = b.call("transpose", &[Attr::axes(&perm)], &[v])?;
        let results: Vec<Dim> = chosen.iter().map(|p| Dim::Const(p.end - p.start)).collect();
        let channels = results.iter().fold(self.w.shape[1].clone(), |n, s| &n * s);
        let taps = || chosen.iter().map(|p| Dim::Const(p.taps));
        let merged: Vec<Dim> = [channels, self.w.shape[0].clone()].into_iter().chain(taps()).collect();
        v = b.call("reshape", &[Attr::Dims(merged.clone())], &[v])?;
        let last = [Dim::ZERO, Dim::ZERO].into_iter().chain(taps().map(|t| &t - &Dim::ONE));
        let steps = [1, 1].into_iter().chain((0..spatial).map(|_| -1)).collect();
        v = b.call("slice", &[Attr::Dims(last.collect()), Attr::Dims(merged), Attr::Ints(steps)], &[v])?;
        let low = (0..spatial).map(|d| &Dim::Const(chosen[d].taps - 1) - &self.skipped[d]);
        let attrs = [
            Attr::Ints(vec![1; spatial]),
            Attr::Ints(vec![1; spatial]),
            Attr::Dims(low.collect()),
            Attr::Dims(self.after.clone()),
            Attr::Int(1),
            Attr::DType(self.op.dtype("acc")),
            Attr::DType(self.op.dtype("out")),
        ];
        let y = b.call("conv", &attrs, &[inputs[0], v])?;
        let split = [&self.x.shape[..1], &results, &self.w.shape[1..2], &self.count].concat();
        b.call("reshape", &[Attr::Dims(split)], &[y])
    }
}

/// The windows of the adjoint convolution slide over the result, one at every element of `x`.
fn scatter<T: Accumulator>(op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let (x, w) = (&inputs[0], &inputs[1]);
    let types = [x, w].map(|t| Type::fixed(t.dtype(), t.shape()));
    let out = shape::known(&Def.infer(op, &types)?[0].shape);
    let low = op.sizes("pads_low");
    let windows = Windows {
        input: &out[2..],
        output: &x.shape()[2..],
        kernel: &w.shape()[2..],
        strides: op.ints("strides"),
        dilations: op.ints("dilations"),
        low: &low,
    };
    let runs = if x.is_empty() || out.contains(&0) {
        vec![]
    } else {
        windows.runs()
    };
    let step = windows.strides[out.len() - 3] as usize;
    let count = |x: &[usize]| x.iter().product::<usize>();
    let (plane_in, plane_out, taps) = (count(&x.shape()[2..]), count(&out[2..]), count(&w.shape()[2..]));
    let (channels, outputs) = (x.shape()[1], w.shape()[1]);
    let depth = channels / op.int("groups") as usize;
    let (xs, ws) = (load::<T>(x), load::<T>(w));
    let mut sums = vec![T::ZERO; count(&out)];
    for from in 0..x.shape()[0] * channels {
        let (n, c) = (from / channels, from % channels);
        let xs = &xs[from * plane_in..][..plane_in];
        for o in 0..outputs {
            let to = n * out[1] + c / depth * outputs + o;
            let (sums, ws) = (
                &mut sums[to * plane_out..][..plane_out],
                &ws[(c * outputs + o) * taps..][..taps],
            );
            for r in &runs {
                let seen = sums[r.input..].iter_mut().step_by(step);
                for (sum, &x) in seen.zip(&xs[r.out..r.out + r.count]) {
                    *sum = sum.add_product(x, ws[r.tap]);
                }
            }
        }
    }
    Ok(vec![store(&sums, op.dtype("acc"), op.dtype("out"), &out)])
}
