//! `conv{strides, dilations, pads_low, pads_high, groups, acc, out}(x, w)`: with `x [N, C, spatial…]` and
//! `w [O, C/groups, kernel…]`:
//! `out[n, o, p…] = Σ_{c, k…} x[n, g(o)·C/groups + c, p·stride - low + k·dilation] · w[o, c, k…]`, zero outside `x`. Where
//! channels lie in memory, layouts say. Output extents are `floordiv(n + low + high - dilation·(kernel - 1) - 1, stride) + 1`. Source: ONNX `Conv`.

use super::accumulate::{Accumulator, add_scaled, check_dtypes, check_one_float, load, store};
use super::window::{self, Windows, reads};
use super::{Access, Accuracy, Attr, AttrKind, Channels, Draw, Drawn, Op, OpDef, Products, Role, Sample, Sides, Weighing, WindowShape, arity, draw, shape};
use crate::index::{Ix, Var};
use crate::{DType, Dim, Tensor, Type, dim};
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
        let (strides, dilations) = (op.ints("strides"), op.ints("dilations"));
        let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
        window::check(x.rank() - 2, strides, dilations, low, high)?;
        let groups = op.int("groups");
        per_group("output channels", &w.shape[0], groups)?;
        if per_group("input channels", &x.shape[1], groups)? != w.shape[1] {
            return Err(format!(
                "x {x} and w {w} in {groups} groups, expected {} channels in w",
                x.shape[1]
            ));
        }
        let mut out = x.shape.clone();
        out[1] = w.shape[0].clone();
        for d in 0..x.rank() - 2 {
            let room = &(&(&x.shape[2 + d] + &low[d]) + &high[d]) - &window::covered(&w.shape[2 + d], dilations[d]);
            out[2 + d] = &room.floor_div(&Dim::Const(strides[d])) + 1;
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
    fn weighing(&self, op: &Op, _: [usize; 2]) -> Option<Weighing> {
        (op.int("groups") == 1).then_some(Weighing {
            x: 1,
            inner: 1,
            outer: 0,
            y: 1,
        })
    }
    fn role(&self) -> Role {
        Role::Contract(&Def)
    }
    fn weights(&self) -> Option<usize> {
        Some(1)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let n = 1 + d.below(2);
        let w = draw::windows(d, n);
        let groups = Attr::Int(draw::pick(d, &[1, 1, 2, 3]));
        let Attr::Int(g) = d.attr(4, groups)? else { return None };
        let (c, o) = (1 + d.below(3) as i64, g * (1 + d.below(3) as i64));
        let batch = 1 + d.below(2) as i64;
        let x = draw::known(d.dtype(), &[&[batch, g * c][..], &w.extents].concat());
        let x = d.operand(0, Some(&x))?;
        // An image that is there already has channels of its own.
        let channels = d.ty(x).shape.get(1).and_then(Dim::as_const).filter(|n| n % g == 0);
        let c = channels.map_or(c, |n| n / g);
        let weights = draw::known(d.dtype(), &[&[o, c][..], &w.kernel].concat());
        let inputs = vec![x, d.operand(1, Some(&weights))?];
        let (acc, out) = draw::sum_dtypes(d);
        let drawn = vec![
            Attr::Ints(w.strides),
            Attr::Ints(w.dilations),
            Attr::dims(&w.low),
            Attr::dims(&w.high),
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
        use DType::{F16, F32, F64, I8, I32, U8};
        let s = |windows: [&[i64]; 4], groups, acc, out, x, w| {
            let [strides, dilations, low, high] = windows;
            Sample::new(
                &[
                    Attr::ints(strides),
                    Attr::ints(dilations),
                    Attr::dims(low),
                    Attr::dims(high),
                    Attr::Int(groups),
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
                F32,
                F32,
                (F32, &[2, 3, 5, 4]),
                (F32, &[4, 3, 3, 3]),
            ),
            s(
                [&[2, 1], &[1, 2], &[0, 2], &[1, 1]],
                2,
                F32,
                F32,
                (F32, &[1, 4, 7, 6]),
                (F32, &[6, 2, 3, 2]),
            ),
            s(
                [&[2, 2], &[1, 1], &[1, 1], &[0, 0]],
                3,
                F32,
                F32,
                (F32, &[1, 3, 6, 5]),
                (F32, &[3, 1, 3, 3]),
            ),
            s(one, 1, F64, F64, (F64, &[1, 5, 2, 3]), (F64, &[2, 5, 1, 1])),
            s(
                [&[2], &[1], &[3], &[1]],
                1,
                F32,
                F16,
                (F16, &[2, 1, 8]),
                (F16, &[3, 1, 4]),
            ),
            s(
                [&[1], &[1], &[-1], &[2]],
                1,
                I32,
                I32,
                (U8, &[1, 2, 6]),
                (I8, &[2, 2, 3]),
            ),
            s(
                [&[1, 2], &[1, 1], &[0, 0], &[0, 0]],
                1,
                I32,
                I32,
                (U8, &[1, 3, 5, 7]),
                (I8, &[4, 3, 3, 2]),
            ),
            s(
                [&[1, 1, 2], &[1, 1, 1], &[0, 1, 0], &[1, 0, 0]],
                1,
                F32,
                F32,
                (F32, &[1, 2, 2, 3, 4]),
                (F32, &[3, 2, 2, 2, 1]),
            ),
            s(one, 1, F32, F32, (F32, &[0, 2, 3, 3]), (F32, &[4, 2, 2, 2])),
            s(one, 1, F32, F32, (F32, &[1, 0, 3, 3]), (F32, &[2, 0, 2, 2])),
        ]
    }
}

impl Products for Def {
    /// Terms are kernel positions and then input channels, which lie innermost where that is fast.
    fn sides(&self, op: &Op, inputs: &[Type], out: &Type) -> Sides {
        let (x, w) = (&inputs[0], &inputs[1]);
        let (strides, dilations) = (op.ints("strides"), op.ints("dilations"));
        let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
        let (spatial, rank) = (strides.len(), x.rank());
        let (per_group, groups) = (&w.shape[1], op.int("groups"));
        let unpadded = |d: usize| window::stays_inside(&low[d], &high[d]);
        let mut x_access = reads(x, 2, strides, dilations, low, &unpadded);
        let (oc, ic) = (Ix::var(Var(1)), Ix::var(Var((rank + spatial) as u32)));
        let out_per_group = out.shape[1].floor_div(&Dim::Const(groups));
        x_access.at[1] = match (groups, per_group.is(1)) {
            (1, _) => ic.clone(),
            (_, true) => oc.div(&out_per_group),
            _ => &oc.div(&out_per_group).scale(per_group) + &ic,
        };
        let tap = (0..spatial).map(|d| Ix::var(Var((rank + d) as u32)));
        let weight: Vec<Ix> = [oc, ic].into_iter().chain(tap).collect();
        let kernel = w.shape[2..].iter();
        Sides {
            reads: [x_access, Access::of(weight)],
            extents: kernel.chain([per_group]).cloned().collect(),
        }
    }
    fn depth(&self, _: &Op, inputs: &[Type]) -> Dim {
        dim::product(&inputs[1].shape[1..])
    }
    fn window(&self, op: &Op, inputs: &[Type]) -> Option<WindowShape> {
        let mut pads = op.dims("pads_low").iter().zip(op.dims("pads_high"));
        Some(WindowShape {
            padded: !pads.all(|(low, high)| window::stays_inside(low, high)),
            channels: match op.int("groups") {
                1 => Channels::All,
                _ if inputs[1].shape[1].is(1) => Channels::One,
                _ => Channels::Group,
            },
        })
    }
}

/// Plane by plane.
fn convolve<T: Accumulator>(op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let (x, w) = (&inputs[0], &inputs[1]);
    let rank = x.shape().len();
    let types = [x, w].map(|t| Type::fixed(t.dtype(), t.shape()));
    let out = shape::known(&Def.infer(op, &types)?[0].shape);
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
    let (xs, ws) = (load::<T>(x), load::<T>(w));
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
    Ok(vec![store(&sums, op.dtype("acc"), op.dtype("out"), &out)])
}
