//! `conv{strides, dilations, pads_low, pads_high, groups, channels_last, acc, out}(x, w)`: with `x [N, C, spatial…]`, or
//! `[N, spatial…, C]` when `channels_last`; `w [O, C/groups, kernel…]`, or `[kernel…, C/groups, O]` when `channels_last` (so
//! that it reshapes to the right operand of a matrix product):
//! `out[n, o, p…] = Σ_{c, k…} x[n, g(o)·C/groups + c, p·stride - low + k·dilation] · w[o, c, k…]`, zero outside `x`; layout as
//! `x`. Output extents are `floordiv(n + low + high - dilation·(kernel - 1) - 1, stride) + 1`. Source: ONNX `Conv`.

use super::accumulate::{Accumulator, add_scaled, check_dtypes, load, store};
use super::window::{self, Windows};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, arity, shape};
use crate::{DType, Dim, Tensor, Type};
use std::num::Wrapping;

/// The operator's definition.
pub struct Def;

/// Checks `groups` against the channels of an operand, and gives the channels of a group.
///
/// # Errors
/// When they cannot be divided evenly.
pub fn per_group(what: &str, channels: &Dim, groups: i64) -> Result<Dim, String> {
    if groups < 1 {
        return Err(format!("groups is {groups}, expected at least 1"));
    }
    channels
        .exact_div(&Dim::Const(groups))
        .ok_or_else(|| format!("{channels} {what}, expected a multiple of groups = {groups}"))
}

/// Where the output channels, a group's input channels and the first kernel dimension stand in the weights.
fn weight_dims(rank: usize, channels_last: bool) -> (usize, usize, usize) {
    if channels_last {
        (rank - 1, rank - 2, 0)
    } else {
        (0, 1, 2)
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "conv"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("strides", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("pads_low", AttrKind::Dims),
            ("pads_high", AttrKind::Dims),
            ("groups", AttrKind::Int),
            ("channels_last", AttrKind::Bool),
            ("acc", AttrKind::DType),
            ("out", AttrKind::DType),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (x, w) = (&inputs[0], &inputs[1]);
        check_dtypes(x, w, op.dtype("acc"), op.dtype("out"))?;
        shape::check_rank("x", x, 3)?;
        shape::check_len("the shape of w", w.rank(), x.rank())?;
        let (strides, dilations) = (op.ints("strides"), op.ints("dilations"));
        let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
        window::check(x.rank() - 2, strides, dilations, low, high)?;
        let last = op.flag("channels_last");
        let (channel, spatial) = if last { (x.rank() - 1, 1) } else { (1, 2) };
        let groups = op.int("groups");
        let (outputs, inner, taps) = weight_dims(w.rank(), last);
        per_group("output channels", &w.shape[outputs], groups)?;
        if per_group("input channels", &x.shape[channel], groups)? != w.shape[inner] {
            return Err(format!(
                "x {x} and w {w} in {groups} groups, expected {} channels in w",
                x.shape[channel]
            ));
        }
        let mut out = x.shape.clone();
        out[channel] = w.shape[outputs].clone();
        for d in 0..x.rank() - 2 {
            let room =
                &(&(&x.shape[spatial + d] + &low[d]) + &high[d]) - &window::covered(&w.shape[taps + d], dilations[d]);
            out[spatial + d] = &room.floor_div(&Dim::Const(strides[d])) + 1;
        }
        shape::check_extents("result", &out)?;
        Ok(vec![Type::new(op.dtype("out"), out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match op.dtype("acc") {
            DType::F64 => convolve::<f64>(op, inputs),
            DType::F32 => convolve::<f32>(op, inputs),
            _ => convolve::<Wrapping<i64>>(op, inputs),
        }
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32, F64, I8, I32, U8};
        let s = |windows: [&[i64]; 4], groups, last, acc, out, x, w| {
            let [strides, dilations, low, high] = windows;
            Sample::new(
                &[
                    Attr::ints(strides),
                    Attr::ints(dilations),
                    Attr::dims(low),
                    Attr::dims(high),
                    Attr::Int(groups),
                    Attr::Bool(last),
                    Attr::DType(acc),
                    Attr::DType(out),
                ],
                &[x, w],
            )
        };
        let one: [&[i64]; 4] = [&[1, 1], &[1, 1], &[0, 0], &[0, 0]];
        vec![
            s(
                [&[1, 1], &[1, 1], &[1, 1], &[1, 1]],
                1,
                false,
                F32,
                F32,
                (F32, &[2, 3, 5, 4]),
                (F32, &[4, 3, 3, 3]),
            ),
            s(
                [&[2, 1], &[1, 2], &[0, 2], &[1, 1]],
                2,
                false,
                F32,
                F32,
                (F32, &[1, 4, 7, 6]),
                (F32, &[6, 2, 3, 2]),
            ),
            s(
                [&[2, 2], &[1, 1], &[1, 1], &[0, 0]],
                3,
                true,
                F32,
                F32,
                (F32, &[1, 6, 5, 3]),
                (F32, &[3, 3, 1, 3]),
            ),
            s(one, 1, false, F64, F64, (F64, &[1, 5, 2, 3]), (F64, &[2, 5, 1, 1])),
            s(
                [&[2], &[1], &[3], &[1]],
                1,
                false,
                F32,
                F16,
                (F16, &[2, 1, 8]),
                (F16, &[3, 1, 4]),
            ),
            s(
                [&[1], &[1], &[-1], &[2]],
                1,
                false,
                I32,
                I32,
                (U8, &[1, 2, 6]),
                (I8, &[2, 2, 3]),
            ),
            s(
                [&[1, 1, 2], &[1, 1, 1], &[0, 1, 0], &[1, 0, 0]],
                1,
                true,
                F32,
                F32,
                (F32, &[1, 2, 3, 4, 2]),
                (F32, &[2, 2, 1, 2, 3]),
            ),
            s(one, 1, false, F32, F32, (F32, &[0, 2, 3, 3]), (F32, &[4, 2, 2, 2])),
            s(one, 1, false, F32, F32, (F32, &[1, 0, 3, 3]), (F32, &[2, 0, 2, 2])),
        ]
    }
}

/// Plane by plane, in the channels-first layout, whatever the operand's.
fn convolve<T: Accumulator>(op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let (x, w) = (&inputs[0], &inputs[1]);
    let rank = x.shape().len();
    let types = [x, w].map(|t| Type::fixed(t.dtype(), t.shape()));
    let mut out = shape::known(&Def.infer(op, &types)?[0].shape);
    let last = op.flag("channels_last");
    let first = window::channels_first(rank);
    let x = if last { shape::permuted(x, &first) } else { x.clone() };
    let w = if last {
        let perm: Vec<usize> = [rank - 1, rank - 2].into_iter().chain(0..rank - 2).collect();
        &shape::permuted(w, &perm)
    } else {
        w
    };
    if last {
        out = first.iter().map(|&d| out[d]).collect();
    }
    let low = op.sizes("pads_low");
    let windows = Windows {
        input: &x.shape()[2..],
        output: &out[2..],
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
    let step = windows.strides[rank - 3] as usize;
    let count = |x: &[usize]| x.iter().product::<usize>();
    let (plane_in, plane_out, taps) = (count(&x.shape()[2..]), count(&out[2..]), count(&w.shape()[2..]));
    let (channels, outputs, depth) = (x.shape()[1], out[1], w.shape()[1]);
    let per_group = outputs / op.int("groups") as usize;
    let (xs, ws) = (load::<T>(&x), load::<T>(w));
    let mut sums = vec![T::ZERO; count(&out)];
    for plane in 0..out[0] * outputs {
        let (n, o) = (plane / outputs, plane % outputs);
        let sums = &mut sums[plane * plane_out..][..plane_out];
        for c in 0..depth {
            let from = n * channels + o / per_group * depth + c;
            let (xs, ws) = (
                &xs[from * plane_in..][..plane_in],
                &ws[(o * depth + c) * taps..][..taps],
            );
            for r in &runs {
                add_scaled(&mut sums[r.out..r.out + r.count], &xs[r.input..], step, ws[r.tap]);
            }
        }
    }
    let result = store(&sums, op.dtype("acc"), op.dtype("out"), &out);
    Ok(vec![if last {
        shape::permuted(&result, &window::channels_last(rank))
    } else {
        result
    }])
}
