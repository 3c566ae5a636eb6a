//! `pool{kind, kernel, strides, dilations, pads_low, pads_high, sizes}(x)`: with `x [N, C, spatial…]`, `out[n, c, o…]` combines (`max` or `sum`) `x[n, c, o·stride - low + k·dilation]` over the
//! taps `k` that fall within `x`; over none it is the identity. The spatial extents of the result are `sizes`, so that the
//! importer decides about ceil mode. f16 and bf16 are summed in f32. Source: ONNX `MaxPool`; `AveragePool` divides a sum.

use super::window::{self, Windows, reads};
use super::{Access, Accuracy, Attr, AttrKind, Channels, Combine, Draw, Drawn, Op, OpDef, Role, Sample, Signs, Window, WindowShape, arity, draw, shape};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

const KINDS: &[Combine] = &[Combine::Max, Combine::Sum];

/// The largest window: no model has one near it, and evaluations are bounded by it.
const MAX_TAPS: i64 = 1 << 24;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "pool"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("kind", AttrKind::Word),
            ("kernel", AttrKind::Ints),
            ("strides", AttrKind::Ints),
            ("dilations", AttrKind::Ints),
            ("pads_low", AttrKind::Dims),
            ("pads_high", AttrKind::Dims),
            ("sizes", AttrKind::Dims),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let x = &inputs[0];
        Combine::of(op.word("kind"), KINDS)?.check(x.dtype)?;
        shape::check_rank("x", x, 3)?;
        let spatial = x.rank() - 2;
        let (low, high) = (op.dims("pads_low"), op.dims("pads_high"));
        window::check(spatial, op.ints("strides"), op.ints("dilations"), low, high)?;
        shape::check_len("kernel", op.ints("kernel").len(), spatial)?;
        shape::check_steps("kernel", op.ints("kernel"), 1)?;
        let taps = op.ints("kernel").iter().try_fold(1i64, |n, k| n.checked_mul(*k));
        if taps.is_none_or(|n| n > MAX_TAPS) {
            return Err(format!(
                "kernel {:?}, expected at most {MAX_TAPS} taps",
                op.ints("kernel")
            ));
        }
        shape::check_len("sizes", op.dims("sizes").len(), spatial)?;
        shape::check_extents("sizes", op.dims("sizes"))?;
        let mut out = x.shape.clone();
        out[2..].clone_from_slice(op.dims("sizes"));
        Ok(vec![Type::new(x.dtype, out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = &inputs[0];
        let (rank, kind, compute) = (
            x.shape().len(),
            Combine::of(op.word("kind"), KINDS)?,
            x.dtype().compute(),
        );
        let acc = kind.exact(compute);
        let kernel: Vec<usize> = op.axes("kernel");
        let (sizes, low) = (shape::known(op.dims("sizes")), op.sizes("pads_low"));
        let windows = Windows {
            input: &x.shape()[2..],
            output: &sizes,
            kernel: &kernel,
            strides: op.ints("strides"),
            dilations: op.ints("dilations"),
            low: &low,
        };
        let step = windows.strides[rank - 3] as usize;
        let elements: Vec<Number> = x.iter().collect();
        let (plane_in, plane_out) = (
            x.shape()[2..].iter().product::<usize>(),
            sizes.iter().product::<usize>(),
        );
        let shape = [&x.shape()[..2], &sizes].concat();
        let runs = if x.is_empty() || shape.contains(&0) {
            vec![]
        } else {
            windows.runs()
        };
        let mut values = vec![kind.identity(acc); shape.iter().product()];
        for plane in 0..shape[0] * shape[1] {
            for r in &runs {
                for i in 0..r.count {
                    let value = &mut values[plane * plane_out + r.out + i];
                    *value = kind.apply(acc, *value, elements[plane * plane_in + r.input + i * step]);
                }
            }
        }
        Ok(vec![Tensor::from_fn(x.dtype(), &shape, |p| values[p].to(compute))])
    }
    fn role(&self) -> Role {
        Role::Window(&Def)
    }
    fn never_minus_zero(&self, op: &Op, of: &mut dyn Signs) -> bool {
        op.combine("kind").never_minus_zero(of)
    }
    fn is_nonnegative(&self, op: &Op, of: &mut dyn Signs) -> bool {
        op.combine("kind").is_nonnegative(of)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let n = 1 + d.below(2);
        let mut w = draw::windows(d, n);
        // A window as large as what it slides over, seldom with something around it.
        if d.chance(40) {
            w.kernel.clone_from(&w.extents);
            if d.chance(75) {
                w.low.fill(0);
                w.high.fill(0);
                w.dilations.fill(1);
            }
        }
        let (c, batch) = (1 + d.below(3) as i64, 1 + d.below(2) as i64);
        let x = [&[batch, c][..], &w.extents].concat();
        let sizes = (0..n).map(|i| {
            let covered = (w.kernel[i] - 1) * w.dilations[i] + 1;
            (w.extents[i] + w.low[i] + w.high[i] - covered).max(0) / w.strides[i] + 1
        });
        let sizes: Vec<i64> = sizes.collect();
        let x = d.operand(0, Some(&draw::known(d.dtype(), &x)))?;
        let drawn = vec![
            Attr::word(if d.chance(50) { "max" } else { "sum" }),
            Attr::Ints(w.kernel),
            Attr::Ints(w.strides),
            Attr::Ints(w.dilations),
            Attr::dims(&w.low),
            Attr::dims(&w.high),
            Attr::dims(&sizes),
        ];
        Some(Drawn {
            attrs: draw::attrs(d, drawn)?,
            inputs: vec![x],
        })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |kind, windows: [&[i64]; 6], x| {
            let [kernel, strides, dilations, low, high, sizes] = windows;
            Sample::new(
                &[
                    Attr::word(kind),
                    Attr::ints(kernel),
                    Attr::ints(strides),
                    Attr::ints(dilations),
                    Attr::dims(low),
                    Attr::dims(high),
                    Attr::dims(sizes),
                ],
                &[x],
            )
        };
        use DType::{F16, F32, I8};
        vec![
            s(
                "max",
                [&[2, 2], &[2, 2], &[1, 1], &[0, 0], &[0, 0], &[2, 3]],
                (F32, &[2, 3, 4, 6]),
            ),
            s(
                "max",
                [&[3, 2], &[2, 1], &[1, 2], &[1, 1], &[1, 1], &[3, 5]],
                (F32, &[1, 2, 5, 5]),
            ),
            s(
                "sum",
                [&[3, 3], &[1, 2], &[1, 1], &[1, 0], &[1, 1], &[5, 3]],
                (F32, &[1, 2, 5, 6]),
            ),
            s("sum", [&[2], &[1], &[1], &[0], &[0], &[6]], (F16, &[2, 1, 7])),
            s("max", [&[2], &[3], &[1], &[0], &[2], &[3]], (I8, &[1, 2, 6])),
            s(
                "max",
                [&[1, 1], &[1, 1], &[1, 1], &[3, 0], &[0, 0], &[4, 2]],
                (F32, &[1, 1, 2, 2]),
            ),
            s(
                "sum",
                [&[2, 2], &[1, 1], &[1, 1], &[0, 0], &[0, 0], &[0, 2]],
                (F32, &[1, 2, 1, 3]),
            ),
        ]
    }
}

impl Window for Def {
    fn extents(&self, op: &Op) -> Vec<Dim> {
        op.ints("kernel").iter().map(|&k| Dim::Const(k)).collect()
    }
    fn access(&self, op: &Op, operand: &Type, out: &Type) -> Access {
        let (kernel, strides, dilations) = (op.ints("kernel"), op.ints("strides"), op.ints("dilations"));
        let low = op.dims("pads_low");
        // The last tap of the last window: beyond the end only with padding or in ceil mode.
        let fits = |d: usize| {
            let last = &(&out.shape[2 + d] - 1) * strides[d];
            let reach = &last + &(&Dim::Const((kernel[d] - 1) * dilations[d]) - &low[d]);
            low[d].is(0) && (&(&operand.shape[2 + d] - 1) - &reach).is_nonnegative()
        };
        reads(operand, 2, strides, dilations, low, &fits)
    }
    fn combine(&self, op: &Op) -> Combine {
        op.combine("kind")
    }
    fn shape(&self, op: &Op) -> WindowShape {
        let zero = |name| op.dims(name).iter().all(|d| d.is(0));
        WindowShape {
            padded: !(zero("pads_low") && zero("pads_high")),
            channels: Channels::One,
        }
    }
}
