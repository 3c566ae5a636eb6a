//! Loop nests for GPUs: every kernel becomes a grid of blocks of threads. Right operands are read in place: nothing is packed.

pub mod contract;
mod grid;
pub mod points;
pub mod rows;

use super::cpu;
use super::flat::Flat;
use brolga_ir::Dim;
use brolga_ir::index::Var;
use brolga_ir::loops::Kernel;

/// A scatter: everything by one thread. Its nest has no variables but the flat kernel's.
///
/// # Errors
/// When the kernel is none.
pub fn in_order(flat: &Flat) -> Result<Kernel, String> {
    let mut kernel = cpu::in_order(flat)?;
    let (block, thread) = (Var(flat.next_var), Var(flat.next_var + 1));
    kernel.body = grid::grid((block, Dim::ONE), &[(thread, 1)], kernel.body);
    Ok(kernel)
}
