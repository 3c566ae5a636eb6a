//! The stages of a product over blocks with scales, and how to tell that stages are such: what
//! [`block_product`](crate::ops) is made of, and register tiles do at once ([`crate::loops::Scales`]).
//!
//! Variables are the row, the column, and the block; operands those of the operator, in its order.

use super::build::{self, Reads, Reduction, reduction};
use super::{Place, Stage};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::scalar::{Body, Builder};
use crate::{DType, Dim, Number};

const ROW: Var = Var(0);
const COLUMN: Var = Var(1);
const OF: Var = Var(2);
/// A byte of the weights' block.
const BYTE: Var = Var(3);

/// The sum of a block's products in integers.
pub fn products(bits: i64, to: Place) -> Stage {
    let values = 8 / bits;
    let bytes = BLOCK / values;
    let mut reads = Reads::default();
    for v in 0..values {
        let first = &Ix::var(OF).scale(&Dim::Const(BLOCK)) + &Ix::constant(v * bytes);
        reads.element(
            Place::Operand(0),
            vec![Ix::var(ROW), &first + &Ix::var(BYTE)],
            DType::I8,
        );
    }
    let w = [COLUMN, OF, BYTE].map(Ix::var).to_vec();
    reads.element(Place::Operand(3), w, DType::U8);
    let sum = Reduction {
        init: 0,
        combine: Builder::add,
        merge: Builder::add,
    };
    let dims = vec![reduction(&Dim::Const(bytes))];
    build::reduce(dims, reads, products_body(bits), sum, (to, vec![]))
}

/// Of elements of rows, as many as a byte of weights holds, and the byte: the sum of their products.
pub fn products_body(bits: i64) -> Body {
    let values = 8 / bits;
    let mut inputs = vec![DType::I8; values as usize];
    inputs.push(DType::U8);
    let mut b = Builder::new(&inputs);
    let byte = b.input(values as usize);
    let mut sum = None;
    for v in 0..values {
        let mut w = byte;
        if v > 0 {
            let by = b.constant(DType::U8, Number::Int((v * bits).into()));
            w = b.shr(w, by);
        }
        // The highest value has nothing above it.
        if v + 1 < values {
            let mask = b.constant(DType::U8, Number::Int((1 << bits) - 1));
            w = b.and(w, mask);
        }
        let x = b.input(v as usize);
        let (x, w) = (b.cast(DType::I32, x), b.cast(DType::I32, w));
        let product = b.mul(x, w);
        sum = Some(sum.map_or(product, |sum| b.add(sum, product)));
    }
    b.finish(&[sum.expect("a byte holds values")])
}

/// Adds the sum of a block to that of all, scaled.
pub fn scaled(minima: bool, block: Place, sum: Place) -> Stage {
    let mut reads = Reads::default();
    let of_row = || [OF, ROW].map(Ix::var).to_vec();
    let of_column = || [COLUMN, OF].map(Ix::var).to_vec();
    reads.element(sum, vec![], DType::F32);
    reads.element(block, vec![], DType::I32);
    reads.element(Place::Operand(1), of_row(), DType::F32);
    reads.element(Place::Operand(2), of_row(), DType::I32);
    reads.element(Place::Operand(4), of_column(), DType::F16);
    if minima {
        reads.element(Place::Operand(5), of_row(), DType::F32);
        reads.element(Place::Operand(6), of_column(), DType::F16);
    }
    build::map(vec![], reads, scaled_body(minima), vec![(sum, vec![])])
}

/// Of the sum of all blocks, that of one, its row's scale and offset, and its column's scale, then where there are minima its row's total
/// and its column's minimum: the next sum of all.
pub fn scaled_body(minima: bool) -> Body {
    use DType::{F16, F32, I32};
    let inputs = [F32, I32, F32, I32, F16, F32, F16];
    let mut b = Builder::new(&inputs[..if minima { 7 } else { 5 }]);
    let [sum, block, scale, offset, column] = [0, 1, 2, 3, 4].map(|i| b.input(i));
    let whole = b.add(block, offset);
    let (whole, column) = (b.cast(F32, whole), b.cast(F32, column));
    let by = b.mul(scale, column);
    let mut sum = b.fma(whole, by, sum);
    if minima {
        let (total, least) = (b.input(5), b.input(6));
        let least = b.cast(F32, least);
        sum = b.fma(least, total, sum);
    }
    b.finish(&[sum])
}
