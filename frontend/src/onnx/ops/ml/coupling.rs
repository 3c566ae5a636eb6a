//! Probabilities of classes from those of every two.

use super::*;

/// Probabilities `[N, C]` from the scores `[N, P]` of pairs.
pub fn probabilities(
    _: &mut Builder<'_>,
    _: Value,
    _: [&[f32]; 2],
    _: &[(usize, usize)],
    _: usize,
) -> One {
    unsupported("probabilities from pairs of classes")
}
