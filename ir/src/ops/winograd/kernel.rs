//! A convolution by minimal filtering as a tree: the points are tiles of the result, whose transformed data are the rows of one
//! product for each element of the transformed weights.
//!
//! ```text
//! outer(K/L, N, ceil(H/4), ceil(W/4)) {
//!   stage parallel(C) { v = Bᵀ d B, 36 elements of a channel }
//!   stage parallel(36, L) reduce(C) { s[e, k] = v[e, c] · u[e, c, L·i0 + k] }
//!   stage parallel(L) { t = Aᵀ s A, 16 elements of a channel }
//!   stage parallel(4, 4, L) where (4·i2 + i4 in 0..H, 4·i3 + i5 in 0..W) { y = t }
//! }
//! ```
//!
//! Where there are few tiles, as many as are rows of a product at once, blocks of `L` outputs are points of their own, which read
//! other weights and transform the data once more; elsewhere `L` is `K`.

use super::minimal::{Matrix, Transforms};
use super::{Extents, OVERLAP};
use crate::dim::product;
use crate::index::{Bound, Ix, Var};
use crate::ops::OwnStages;
use crate::scalar::{Body, V};
use crate::structured::build::{self, Reads, parallel, reduction};
use crate::structured::{IterDim, Kernel, Local, Part, Place, Stage};
use crate::{DType, Dim, Type};

/// What loads, the sums of the transform and stores take for a channel of a tile of `x`, in cycles of scalar arithmetic. Measured.
pub(super) fn input_cycles(tile: i64) -> i64 {
    if tile == 2 { 70 } else { 180 }
}

/// The same for a channel of a tile of the result.
pub(super) fn output_cycles(tile: i64) -> i64 {
    if tile == 2 { 50 } else { 150 }
}

const BLOCK: Var = Var(0);
const N: Var = Var(1);
const ROW: Var = Var(2);
const COLUMN: Var = Var(3);

/// Up to so many tiles outputs are cut into blocks.
const FEW_TILES: i64 = 64;
/// Outputs of a block: what its products take is more than ten times what transforming the data once more does.
const OUTPUTS: i64 = 128;

/// A stage's own dimensions come right behind these.
fn own(i: u32) -> Ix {
    Ix::var(Var(4 + i))
}

/// The kernel for operands of these types.
pub(super) fn kernel(e: &Extents, inputs: &[Type], results: &[Type]) -> OwnStages {
    let dtype = inputs[0].dtype;
    let side = Dim::Const((e.tile + OVERLAP) * (e.tile + OVERLAP));
    let tile = Dim::Const(e.tile);
    let local = |shape: &[&Dim]| Local {
        dtype,
        shape: shape.iter().map(|&d| d.clone()).collect(),
    };
    let t = Transforms::of(e.tile);
    let outputs = block(e);
    let stages = [
        transformed(e, dtype, &t),
        products(e, [&side, &outputs], dtype),
        results_of(e, &outputs, dtype, &t),
        written(e, &outputs, dtype),
    ];
    OwnStages {
        operands: vec![0, 1],
        kernel: Kernel {
            locals: vec![
                local(&[&side, &e.channels]),
                local(&[&side, &outputs]),
                local(&[&tile, &tile, &outputs]),
            ],
            outer: [&e.outputs.floor_div(&outputs), &e.batch]
                .into_iter()
                .chain(&e.tiles)
                .cloned()
                .collect(),
            parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
    }
}

/// Outputs that a point has.
fn block(e: &Extents) -> Dim {
    let tiles = product(e.tiles.iter().chain([&e.batch]));
    let few = tiles.as_const().is_some_and(|n| n <= FEW_TILES);
    match e.outputs.as_const() {
        Some(n) if few && n % OUTPUTS == 0 => Dim::Const(OUTPUTS),
        _ => e.outputs.clone(),
    }
}

/// The output of a place in the point's block.
fn in_block(outputs: &Dim, within: &Ix) -> Ix {
    &Ix::var(BLOCK).scale(outputs) + within
}

/// An element of the result's, or the data's, rows or columns, by tile and element of the tile.
fn at(tile: i64, v: Var, within: &Ix) -> Ix {
    &Ix::var(v).scale(&Dim::Const(tile)) + within
}

/// The elements of a square, by rows.
fn square(n: i64) -> impl Iterator<Item = [Ix; 2]> {
    (0..n * n).map(move |e| [Ix::constant(e / n), Ix::constant(e % n)])
}

fn transformed(e: &Extents, dtype: DType, t: &Transforms) -> Stage {
    let mut reads = Reads::default();
    let side = e.tile + OVERLAP;
    for [i, j] in square(side) {
        let place = vec![Ix::var(N), own(0), at(e.tile, ROW, &i), at(e.tile, COLUMN, &j)];
        reads.element(Place::Operand(0), place, dtype);
    }
    let body = transform(&reads, side, &t.input);
    let writes = (0..side * side).map(|e| (Place::Local(0), vec![Ix::constant(e), own(0)]));
    build::map(vec![parallel(&e.channels)], reads, body, writes.collect())
}

fn products(e: &Extents, [side, outputs]: [&Dim; 2], dtype: DType) -> Stage {
    let (element, output, channel) = (own(0), own(1), own(2));
    let mut reads = Reads::default();
    reads.element(Place::Local(0), vec![element.clone(), channel.clone()], dtype);
    reads.element(
        Place::Operand(1),
        vec![element.clone(), channel, in_block(outputs, &output)],
        dtype,
    );
    let dims = vec![parallel(side), parallel(outputs), reduction(&e.channels)];
    build::products(dims, reads, (Place::Local(1), vec![element, output]))
}

fn results_of(e: &Extents, outputs: &Dim, dtype: DType, t: &Transforms) -> Stage {
    let mut reads = Reads::default();
    let side = e.tile + OVERLAP;
    for e in 0..side * side {
        reads.element(Place::Local(1), vec![Ix::constant(e), own(0)], dtype);
    }
    let body = transform(&reads, side, &t.output);
    let writes = square(e.tile).map(|[i, j]| (Place::Local(2), vec![i, j, own(0)]));
    build::map(vec![parallel(outputs)], reads, body, writes.collect())
}

fn written(e: &Extents, outputs: &Dim, dtype: DType) -> Stage {
    let mut reads = Reads::default();
    reads.element(Place::Local(2), vec![own(0), own(1), own(2)], dtype);
    let b = reads.body();
    let y = b.input(0);
    let [row, column] = [at(e.tile, ROW, &own(0)), at(e.tile, COLUMN, &own(1))];
    let tile = Dim::Const(e.tile);
    let dims: Vec<IterDim> = [&tile, &tile, outputs].map(parallel).to_vec();
    let bounds = [&row, &column].into_iter().zip(&e.result);
    let cut = bounds.filter(|(_, extent)| !extent.modulo(&tile).is(0));
    let guard = cut.map(|(index, extent)| Bound {
        index: index.clone(),
        extent: extent.clone(),
    });
    let guard = guard.collect();
    let place = vec![Ix::var(N), in_block(outputs, &own(2)), row, column];
    Stage {
        guard,
        ..build::map(dims, reads, b.finish(&[y]), vec![(Place::Operand(2), place)])
    }
}

/// The body that transforms a square of `side` elements a row, which are all that is read.
fn transform(reads: &Reads, side: i64, matrix: &Matrix) -> Body {
    let mut b = reads.body();
    let x: Vec<V> = (0..(side * side) as usize).map(|i| b.input(i)).collect();
    let out = matrix.in_body(&mut b, &x);
    b.finish(&out)
}
