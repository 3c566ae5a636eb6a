//! One point of the outer domain a thread; whatever a point reduces or scans, its thread does in order.
//!
//! ```text
//! for (block, thread) { p = 256*block + thread; if p < points { … } }
//! ```

use super::super::flat::{Flat, look_up};
use super::super::nest::Nest;
use super::super::point;
use super::grid::{check_threads, coordinates, grid};
use brolga_ir::Dim;
use brolga_ir::index::{Bound, Ix};
use brolga_ir::loops::{Kernel, Stmt};
use brolga_ir::schedule::GpuPoints;

/// The kernel.
///
/// # Errors
/// Why the schedule does not fit the kernel.
pub fn kernel(flat: &Flat, s: &GpuPoints) -> Result<Kernel, String> {
    point::check(flat)?;
    check_threads(s.threads)?;
    let mut nest = Nest::new(flat);
    let n = Dim::Const(s.threads);
    let (block, thread) = (nest.var(), nest.var());
    let total = flat.points();
    let p = &Ix::var(block).scale(&n) + &Ix::var(thread);
    let mut body = vec![];
    let map = coordinates(&mut nest, &mut body, &flat.outer, &p);
    point::stages(&mut nest, &mut body, 1, &[&|u| look_up(&map, u)]);
    if total.exact_div(&n).is_none() {
        let bounds = vec![Bound {
            index: p,
            extent: total.clone(),
        }];
        body = vec![Stmt::If { bounds, then: body }];
    }
    nest.kernel.body = grid((block, total.ceil_div(&n)), &[(thread, s.threads)], body);
    Ok(nest.kernel)
}
