//! `winograd{tile, extents}(x, u)`: a convolution with a window of 3 × 3 by minimal filtering, `tile` × `tile` results at a time.
//! With `x [N, C, tile·ceil(H/tile) + 2, tile·ceil(W/tile) + 2]`, margins included, `u [(tile + 2)², C, K]` of `winograd_weights`
//! and `extents` `[H, W]`, the result is `[N, K, H, W]`: for a tile `d` of `x`, which overlap by 2, and every channel `k`
//! `y = Aᵀ [Σ_c u_ck ⊙ (Bᵀ d_c B)] A`, with the matrices of [`minimal`]; of the last tiles as much is kept as there is room.
//! f32 or f64.
//!
//! The products are a quarter of the convolution's where `tile` is 4, and 1 / 2.25 where it is 2. Over the reals the result is
//! the same; a NaN or an infinity reaches all results of its tiles. Source: Lavin and Gray, "Fast algorithms for convolutional
//! neural networks", 2015.

mod kernel;
pub(super) mod minimal;

use super::{
    Accuracy, Attr, AttrKind, Channels, Op, OpDef, OwnKernel, OwnStages, OwnWork, Role, Sample, SampleType,
    WindowShape, arity, shape,
};
use crate::{DType, Dim, Number, Tensor, Type, dim};
use minimal::{TAPS, Transforms};

/// The operator's definition.
pub struct Def;

/// Elements that a tile shares with the next one.
pub const OVERLAP: i64 = TAPS - 1;

/// The extents of operands that fit.
struct Extents {
    tile: i64,
    batch: Dim,
    channels: Dim,
    outputs: Dim,
    /// Of the result, in rows and columns.
    result: [Dim; 2],
    /// Tiles in rows and columns.
    tiles: [Dim; 2],
}

fn extents(op: &Op, inputs: &[Type]) -> Result<Extents, String> {
    arity(inputs, 2)?;
    let (x, u) = (&inputs[0], &inputs[1]);
    let tile = minimal::check_tile(op.int("tile"))?;
    shape::check_len("the shape of x", x.rank(), 4)?;
    shape::check_len("the shape of u", u.rank(), 3)?;
    if !matches!(x.dtype, DType::F32 | DType::F64) || u.dtype != x.dtype {
        return Err(format!("x {x} and u {u}, expected f32 or f64, both the same"));
    }
    let [height, width] = op.dims("extents") else {
        return Err(format!("{} extents, expected 2", op.dims("extents").len()));
    };
    let result = [height.clone(), width.clone()];
    shape::check_extents("extents", &result)?;
    let tiles = result.each_ref().map(|d| d.ceil_div(&Dim::Const(tile)));
    let covered = tiles.each_ref().map(|t| &(t * tile) + OVERLAP);
    if x.shape[2..] != covered {
        return Err(format!("x {x}, expected {} behind its channels", shape::list(&covered)));
    }
    let side = tile + OVERLAP;
    if !u.shape[0].is(side * side) || u.shape[1] != x.shape[1] {
        return Err(format!(
            "u {u}, expected {} products of the {} channels of x",
            side * side,
            x.shape[1]
        ));
    }
    Ok(Extents {
        tile,
        batch: x.shape[0].clone(),
        channels: x.shape[1].clone(),
        outputs: u.shape[2].clone(),
        result,
        tiles,
    })
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "winograd"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("tile", AttrKind::Int), ("extents", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let e = extents(op, inputs)?;
        let [height, width] = e.result;
        Ok(vec![Type::new(
            inputs[0].dtype,
            vec![e.batch, e.outputs, height, width],
        )])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let tile = op.int("tile") as usize;
        let (side, t) = (tile + OVERLAP as usize, Transforms::of(op.int("tile")));
        let (x, u) = (inputs[0].to_f64s(), inputs[1].to_f64s());
        let &[batch, channels, rows, columns] = inputs[0].shape() else {
            return Err("x is no image".into());
        };
        let outputs = inputs[1].shape()[2];
        let [height, width] = op.sizes("extents")[..] else {
            return Err("no two extents".into());
        };
        let (height, width) = (height as usize, width as usize);
        let mut y = vec![0.0; batch * outputs * height * width];
        let firsts = |extent: usize| (0..extent).step_by(tile);
        for (n, top, left) in
            (0..batch).flat_map(|n| firsts(height).flat_map(move |t| firsts(width).map(move |l| (n, t, l))))
        {
            let mut sums = vec![vec![0.0; side * side]; outputs];
            for c in 0..channels {
                let at = |i: usize, j: usize| ((n * channels + c) * rows + top + i) * columns + left + j;
                let d: Vec<f64> = (0..side * side).map(|e| x[at(e / side, e % side)]).collect();
                for (e, v) in t.input.on_both_sides(&d).into_iter().enumerate() {
                    let of = |k: usize| u[(e * channels + c) * outputs + k];
                    sums.iter_mut().enumerate().for_each(|(k, sum)| sum[e] += v * of(k));
                }
            }
            for (k, sum) in sums.iter().enumerate() {
                for (e, v) in t.output.on_both_sides(sum).into_iter().enumerate() {
                    let (i, j) = (top + e / tile, left + e % tile);
                    if i < height && j < width {
                        y[((n * outputs + k) * height + i) * width + j] = v;
                    }
                }
            }
        }
        let shape = [batch, outputs, height, width];
        Ok(vec![Tensor::from_fn(inputs[0].dtype(), &shape, |p| {
            Number::Float(y[p])
        })])
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn weights(&self) -> Option<usize> {
        Some(1)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, F64};
        let s = |tile: i64, extents: [i64; 2], x: SampleType, u: SampleType| {
            Sample::new(&[Attr::Int(tile), Attr::dims(&extents)], &[x, u])
        };
        vec![
            s(2, [4, 6], (F32, &[1, 3, 6, 8]), (F32, &[16, 3, 5])),
            s(4, [7, 4], (F32, &[2, 2, 10, 6]), (F32, &[36, 2, 3])),
            s(4, [9, 30], (F32, &[1, 17, 14, 34]), (F32, &[36, 17, 40])),
            s(2, [1, 3], (F64, &[1, 2, 4, 6]), (F64, &[16, 2, 2])),
            s(4, [1, 1], (F64, &[1, 1, 6, 6]), (F64, &[36, 1, 1])),
            s(2, [2, 2], (F32, &[0, 2, 4, 4]), (F32, &[16, 2, 2])),
        ]
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        Ok(kernel::kernel(&extents(op, inputs)?, inputs, results))
    }
    fn is_fused(&self) -> bool {
        true
    }
    /// Margins are part of `x`.
    fn window(&self, _: &Op, _: &[Type]) -> Option<WindowShape> {
        Some(WindowShape {
            padded: false,
            channels: Channels::All,
        })
    }
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork {
        let e = extents(op, inputs).expect("the operands fit");
        let tiles = &dim::product(&e.tiles) * &e.batch;
        let side = e.tile + OVERLAP;
        let per_channel = &(&e.channels * kernel::input_cycles(e.tile)) + &(&e.outputs * kernel::output_cycles(e.tile));
        OwnWork {
            products: &(&tiles * (side * side)) * &(&e.channels * &e.outputs),
            cycles: &tiles * &per_channel,
        }
    }
}
