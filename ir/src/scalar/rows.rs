//! Primitives on many values at once: what [`super::eval_prim`] gives for each lane, with the choice of the operation made
//! once. The interpreters of kernels run on it.

use super::Prim;
use super::eval::eval_bits;
use crate::DType;

/// Evaluates a primitive on `n` lanes of a register file: operand `i` of lane `l` is `file[at[i].0 + l * at[i].1]`, the
/// result goes to `file[to + l]`. Lanes are evaluated in order.
pub(crate) fn eval_rows(p: Prim, t: DType, file: &mut [u64], at: [(usize, usize); 3], to: usize, n: usize) {
    // Each use has its own loop, in which the primitive and the dtype are constants.
    macro_rules! lanes {
        ($p:expr, $t:expr) => {{
            let [(a, i), (b, j), (c, k)] = at;
            for l in 0..n {
                file[to + l] = eval_bits($p, $t, file[a + l * i], file[b + l * j], file[c + l * k]);
            }
        }};
    }
    match (p, t) {
        (Prim::Add, DType::F32) => lanes!(Prim::Add, DType::F32),
        (Prim::Sub, DType::F32) => lanes!(Prim::Sub, DType::F32),
        (Prim::Mul, DType::F32) => lanes!(Prim::Mul, DType::F32),
        (Prim::Div, DType::F32) => lanes!(Prim::Div, DType::F32),
        (Prim::Fma, DType::F32) => lanes!(Prim::Fma, DType::F32),
        (Prim::Max, DType::F32) => lanes!(Prim::Max, DType::F32),
        (Prim::Min, DType::F32) => lanes!(Prim::Min, DType::F32),
        (Prim::Lt, DType::F32) => lanes!(Prim::Lt, DType::F32),
        (Prim::Select | Prim::Rarely, _) => lanes!(Prim::Select, DType::F32),
        _ => lanes!(p, t),
    }
}
