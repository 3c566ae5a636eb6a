//! How an axis goes through an operator: which axis of an operand has the elements that stand along one of the result.
//!
//! | operator | along an axis of the result |
//! | --- | --- |
//! | element-wise ones | the same axis of each operand |
//! | `transpose` | the axis that was put there |
//! | `reshape` | the axis with as many elements in it, before it and behind it |
//! | `broadcast` | the same axis, or the same elements everywhere |
//! | others | not told |

use super::{Op, Role};
use crate::loops::BLOCK;
use crate::{Attr, Dim, Type, dim};

/// Where an operand's elements come from along an axis of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Along {
    /// From this axis of the operand, each in its place.
    Axis(usize),
    /// The same ones everywhere.
    Spread,
    /// Not told.
    Mixed,
}

/// What stands along `axis` of the result `to` of an operand `from`.
pub fn along(op: &Op, from: &Type, to: &Type, axis: usize) -> Along {
    match (op.role(), op.name()) {
        (Role::Map(_), _) => Along::Axis(axis),
        (_, "transpose") => Along::Axis(op.axes("perm")[axis]),
        (_, "reshape") => kept_axis(&to.shape, &from.shape, axis).map_or(Along::Mixed, Along::Axis),
        (_, "broadcast") if from.shape[axis] == to.shape[axis] => Along::Axis(axis),
        (_, "broadcast") => Along::Spread,
        _ => Along::Mixed,
    }
}

/// The axis of `to` that a row-major reshape makes of an axis of `from` as it is: as many elements before and behind it.
fn kept_axis(from: &[Dim], to: &[Dim], axis: usize) -> Option<usize> {
    let inner = dim::product(&from[axis + 1..]);
    let outer = dim::product(&from[..axis]);
    (0..to.len())
        .find(|&a| to[a] == from[axis] && dim::product(&to[a + 1..]) == inner && dim::product(&to[..a]) == outer)
}

/// The operator for a result of these extents, where its attributes name them.
///
/// # Errors
/// When it does not take them.
pub fn with_shape(op: &Op, shape: &[Dim]) -> Result<Op, String> {
    let names = op.def().attrs().iter();
    let attrs = names.zip(op.attrs()).map(|((name, _), attr)| match *name {
        "shape" => Attr::Dims(shape.to_vec()),
        _ => attr.clone(),
    });
    Op::of(op.def(), attrs.collect())
}

/// True for a product of elements, which is zero where one of them is, and the others are finite.
pub fn multiplies(op: &Op) -> bool {
    op.name() == "mul"
}

/// A sum of products of one axis of activations with one of a matrix, or of filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weighing {
    /// The axis of the first operand that is summed over.
    pub x: usize,
    /// The axis of the second operand that is summed over.
    pub inner: usize,
    /// Its axis that the result's channels are.
    pub outer: usize,
    /// The axis of the result's channels.
    pub y: usize,
}

/// The axes of a plain product of activations and weights, of these ranks; `None` for other operators.
pub fn weighing(op: &Op, [x, w]: [usize; 2]) -> Option<Weighing> {
    match op.name() {
        "contract" if op.ints("lhs_batch").is_empty() && op.ints("lhs_contract").len() == 1 && w == 2 => {
            let inner = op.axes("rhs_contract")[0];
            Some(Weighing {
                x: op.axes("lhs_contract")[0],
                inner,
                outer: 1 - inner,
                y: x - 1,
            })
        }
        "conv" if op.int("groups") == 1 => Some(Weighing {
            x: 1,
            inner: 1,
            outer: 0,
            y: 1,
        }),
        _ => None,
    }
}

/// What an operator is to products of integers in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InBlocks {
    /// The product: its first operand is what [`InBlocks::Activations`] made, its fourth what [`InBlocks::Weights`] did.
    Product,
    /// Makes integers of rows of activations, `[M, K]`.
    Activations,
    /// Makes integers of a matrix along this axis: the operands 3, 4 and 6 of the product.
    Weights(usize),
}

/// The elements of a block.
pub const STEP: usize = BLOCK as usize;

/// What an operator is to products of integers in blocks, if anything.
pub fn in_blocks(op: &Op) -> Option<InBlocks> {
    match op.name() {
        "block_product" => Some(InBlocks::Product),
        "quantize_blocks" => Some(InBlocks::Activations),
        "compress_blocks" => Some(InBlocks::Weights(op.axis("axis"))),
        _ => None,
    }
}
