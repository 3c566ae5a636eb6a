//! Points: lanes run along one outer dimension, best the one that is contiguous in the result; a reduction keeps one
//! accumulator a lane.
//!
//! ```text
//! parallel (some outer dims) { for others { for i in n / 8 { vector 8 { point 8*i + lane } } for i in n % 8 { point … } } }
//! ```
//!
//! With `across`, the innermost of the others runs inside the loop over the vectors, so many points at once: what does not move
//! along it, such as the weights of a window, is the same for all of them, and windows that overlap read their elements once.

use super::super::flat::{Flat, look_up};
use super::super::nest::{Nest, Point, collapse};
use super::super::point;
use super::{lanes, outside, parallel};
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{Kernel, LoopKind, Stmt};
use brolga_ir::schedule::Points;

/// The most lanes of a vector loop.
pub const MAX_LANES: i64 = 64;

/// The most points of one dimension that are computed side by side.
const MAX_ACROSS: i64 = 8;

/// The kernel.
///
/// # Errors
/// Why the schedule does not fit the kernel.
pub fn kernel(flat: &Flat, s: &Points) -> Result<Kernel, String> {
    point::check(flat)?;
    let mut nest = Nest::new(flat);
    let p = nest.var();
    let lanes = lanes(s.lanes, MAX_LANES)?;
    let Some((v, extent)) = usize::try_from(s.along).ok().and_then(|i| flat.outer.get(i)) else {
        if flat.outer.is_empty() && (s.along, s.lanes, s.outside, s.chunk, s.across) == (0, 1, 0, 0, 0) {
            let mut body = vec![];
            point::stages(&mut nest, &mut body, 1, &[&Ix::var]);
            nest.kernel.body = vec![parallel(p, Ix::constant(1), body)];
            return Ok(nest.kernel);
        }
        return Err(match flat.outer.len() {
            0 => "a single point takes along=0, lanes=1, outside=0, chunk=0, across=0".into(),
            n => format!("along={}, but there are {n} outer dimensions", s.along),
        });
    };
    let (v, extent) = (*v, extent.clone());
    let rest: Vec<(Var, Dim)> = flat.outer.iter().filter(|(u, _)| *u != v).cloned().collect();
    let (outer, inside) = rest.split_at(outside(s.outside, rest.len())?);
    let (inside, across) = match (s.across, inside.split_last()) {
        (0, _) => (inside, None),
        (1..=MAX_ACROSS, Some((last, before))) => (before, Some(last)),
        (1..=MAX_ACROSS, None) => return Err(format!("across={}, but no dimension runs inside", s.across)),
        (n, _) => return Err(format!("across={n}, expected up to {MAX_ACROSS}")),
    };
    let mut dims = outer.to_vec();
    let chunk = match s.chunk {
        0 => None,
        1.. => {
            let c = nest.var();
            dims.push((c, extent.ceil_div(&Dim::Const(s.chunk))));
            Some(c)
        }
        n => return Err(format!("chunk={n}, expected 0 or a number of points")),
    };
    let (total, map) = collapse(&dims, p);
    let (first, count) = match chunk {
        Some(c) => {
            let first = look_up(&map, c).scale(&Dim::Const(s.chunk));
            let left = &first.scale(&Dim::Const(-1)) + &extent;
            (first, left.at_most(&Dim::Const(s.chunk)))
        }
        None => (Ix::constant(0), Ix::constant(extent.clone())),
    };
    let mut body = vec![];
    let mut part = |nest: &mut Nest, lanes: u32, start: Ix, count: Ix| {
        if count.as_const() == Some(0) {
            return;
        }
        let (c, lane) = (nest.var(), nest.var());
        let base = &(&first + &start) + &Ix::var(c).scale(&Dim::Const(lanes as i64));
        let here = if lanes > 1 { &base + &Ix::var(lane) } else { base };
        let at = |u: Var| if u == v { here.clone() } else { look_up(&map, u) };
        let mut stmts = vec![];
        nest.lane = lane;
        match across {
            None => point::stages(nest, &mut stmts, lanes, &[&at]),
            Some(across) => side_by_side(nest, &mut stmts, lanes, &at, across, s.across),
        }
        body.push(Stmt::For {
            var: c,
            kind: LoopKind::Serial,
            extent: count,
            body: stmts,
        });
    };
    // Whole vectors, then what is left in ever shorter ones: of a short dimension the tail is much of the work.
    let (mut done, mut left) = (Ix::constant(0), count);
    let shorter = |n: u32| if extent.as_const().is_some() { n / 2 } else { 4 };
    let widths = std::iter::successors(Some(lanes), |&n| (n > 4 && chunk.is_none()).then(|| shorter(n)));
    for lanes in widths.chain([1]) {
        let w = Dim::Const(lanes.into());
        let vectors = left.div(&w);
        part(&mut nest, lanes, done.clone(), vectors.clone());
        done = &done + &vectors.scale(&w);
        left = left.modulo(&w);
        if lanes == 1 || left.as_const() == Some(0) {
            break;
        }
    }
    let inside: Vec<(Var, Ix)> = inside.iter().map(|(u, d)| (*u, Ix::constant(d.clone()))).collect();
    let body = Nest::serial(&inside, body);
    nest.kernel.body = vec![parallel(p, total, body)];
    Ok(nest.kernel)
}

/// The loop over a dimension inside that over the vectors: groups of points, then what is left one by one.
fn side_by_side(nest: &mut Nest, out: &mut Vec<Stmt>, lanes: u32, at: &Point, (u, extent): &(Var, Dim), count: i64) {
    let group = Dim::Const(count);
    let extent = Ix::constant(extent.clone());
    let (groups, rest) = (extent.div(&group), extent.modulo(&group));
    for (n, first, loops) in [
        (count, Ix::constant(0), groups.clone()),
        (1, groups.scale(&group), rest),
    ] {
        if loops.as_const() == Some(0) {
            continue;
        }
        let j = nest.var();
        let here = |b: i64| &(&first + &Ix::var(j).scale(&Dim::Const(n))) + &Dim::Const(b);
        let points: Vec<_> = (0..n)
            .map(|b| {
                let here = here(b);
                move |v: Var| if v == *u { here.clone() } else { at(v) }
            })
            .collect();
        let points: Vec<&Point> = points.iter().map(|p| p as &Point).collect();
        let mut body = vec![];
        point::stages(nest, &mut body, lanes, &points);
        out.extend(Nest::serial(&[(j, loops)], body));
    }
}
