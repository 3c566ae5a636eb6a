//! Loop nests for CPUs: register tiles, points, rows, trees, and scatters in order.

mod blocks;
pub mod points;
mod product;
pub mod rows;
pub mod tile;
pub mod tree;

use super::flat::{Flat, by_read};
use super::nest::Nest;
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::loops::{Grain, Kernel, LoopKind, Stmt};

/// Lanes of a vector loop.
///
/// # Errors
/// When there cannot be so many.
fn lanes(n: i64, most: i64) -> Result<u32, String> {
    match u32::try_from(n) {
        Ok(lanes) if lanes.is_power_of_two() && n <= most => Ok(lanes),
        _ => Err(format!("lanes={n}, expected a power of two up to {most}")),
    }
}

/// How many outer dimensions the parallel loop takes.
///
/// # Errors
/// When there are not so many.
fn outside(n: i64, dims: usize) -> Result<usize, String> {
    let found = usize::try_from(n).ok().filter(|n| *n <= dims);
    found.ok_or_else(|| format!("outside={n}, but the number of such dimensions is {dims}"))
}

/// The parallel loop; [`super::settle`] says from when on it is worth the workers.
fn parallel(p: Var, extent: Ix, body: Vec<Stmt>) -> Stmt {
    Stmt::For {
        var: p,
        kind: LoopKind::Parallel(Grain::ALWAYS),
        extent,
        body,
    }
}

/// A scatter: everything in order, in one task, since writes may collide.
///
/// # Errors
/// When the kernel is none.
pub fn in_order(flat: &Flat) -> Result<Kernel, String> {
    let [stage] = &flat.stages[..] else {
        return Err(format!("a scatter of {} stages, expected one", flat.stages.len()));
    };
    if !stage.scatter {
        return Err("the kernel scatters nothing: its points may run in any order".into());
    }
    let mut nest = Nest::new(flat);
    let mut body = vec![];
    let reads = nest.reads(&mut body, stage, &Ix::var);
    let values = nest.body(&mut body, &stage.body, &reads);
    let mut then = vec![];
    nest.writes(&mut then, stage, &values, &reads, &Ix::var);
    let resolve = |b: &Bound| Bound {
        index: b.index.substitute(&Ix::var, &by_read(&reads)),
        extent: b.extent.clone(),
    };
    body.push(Stmt::If {
        bounds: stage.write_bounds.iter().map(resolve).collect(),
        then,
    });
    let dims = flat
        .outer
        .iter()
        .cloned()
        .chain(stage.dims.iter().map(|(v, d)| (*v, d.extent.clone())));
    let loops: Vec<(Var, Ix)> = dims.map(|(v, d)| (v, Ix::constant(d))).collect();
    nest.kernel.body = Nest::serial(&loops, body);
    Ok(nest.kernel)
}
