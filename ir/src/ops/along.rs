//! What passes that follow channels through a graph ask of operators: which axis of an operand is one of the result, and what multiplies by weights.

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
