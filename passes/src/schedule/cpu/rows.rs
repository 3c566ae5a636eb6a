//! Rows: lanes run along the innermost dimension of each stage; a reduction keeps partial accumulators a lane, merged at the
//! end in a fixed order, so that the result does not depend on the number of threads. Loops are as much shorter as a stage's guard says.

use super::super::flat::{Flat, FlatStage, is_affine, look_up, stride_is_one};
use super::super::nest::{Domain, Nest, Point, collapse};
use super::super::point::{accumulators, finish, merge};
use super::super::sums::{self, on_lanes};
use super::points::MAX_LANES;
use super::{lanes, outside, parallel};
use brolga_ir::Dim;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Expr, Kernel, Stmt};
use brolga_ir::scalar::Body;
use brolga_ir::schedule::Rows;
use brolga_ir::structured::{IterDim, IterKind};

/// The kernel.
///
/// # Errors
/// Why the schedule does not fit the kernel.
pub fn kernel(flat: &Flat, s: &Rows) -> Result<Kernel, String> {
    if flat.stages.iter().any(|s| s.scan || s.scatter) {
        return Err("a scan or a scatter visits its points in order, not as vectors of a row".into());
    }
    let kinds = |s: &FlatStage| s.dims.iter().any(|(_, d)| d.kind == IterKind::Parallel) && s.reduces();
    if let Some(i) = flat.stages.iter().position(kinds) {
        return Err(format!("stage {i} has several results of a reduction in one row"));
    }
    let lanes = lanes(s.lanes, MAX_LANES)?;
    let mut nest = Nest::new(flat);
    nest.house_tiles();
    let p = nest.var();
    let (dims, inside) = flat.outer.split_at(outside(s.outside, flat.outer.len())?);
    let (total, map) = collapse(dims, p);
    let at = |u: Var| look_up(&map, u);
    let mut body = vec![];
    for stage in &flat.stages {
        row_stage(&mut nest, &mut body, stage, lanes, &at);
    }
    let inside: Vec<(Var, Ix)> = inside.iter().map(|(u, d)| (*u, Ix::constant(d.clone()))).collect();
    nest.kernel.body = vec![parallel(p, total, Nest::serial(&inside, body))];
    Ok(nest.kernel)
}

/// A stage at a point of the outer domain: it reduces all its dimensions or none.
pub fn row_stage(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32, at: &Point) {
    let Some(((v, last), before)) = stage.dims.split_last() else {
        let reads = nest.reads(out, stage, at);
        let values = nest.body(out, &stage.body, &reads);
        nest.writes(out, stage, &values, &reads, at);
        return;
    };
    let cuts = cuts(stage).expect("a schedule is refused where there are others");
    let count = |(u, d): &(Var, IterDim)| (*u, iterations(&cuts, *u, &d.extent, at));
    let loops: Vec<(Var, Ix)> = before.iter().map(count).collect();
    let extent = iterations(&cuts, *v, &last.extent, at);
    let combine = stage.combine.as_ref().filter(|_| stage.reduces());
    let Some(combine) = combine else {
        // Whole vectors, then what is left in ever shorter ones.
        let mut body = vec![];
        let (mut done, mut left) = (Ix::constant(0), extent.clone());
        let known = extent.as_const().is_some();
        let shorter = |n: &u32| (*n > 4).then_some(if known { n / 2 } else { 4 });
        let widths = std::iter::successors(Some(lanes), shorter).filter(|n| *n > 1);
        for lanes in widths.chain([1]) {
            let w = Dim::Const(lanes.into());
            let count = left.div(&w);
            if count.as_const() != Some(0) {
                let (c, lane) = (nest.var(), nest.var());
                let mut here = &done + &Ix::var(c).scale(&w);
                if lanes > 1 {
                    here = &here + &Ix::var(lane);
                }
                let point = |u: Var| if u == *v { here.clone() } else { at(u) };
                let mut stmts = vec![];
                let reads = nest.reads(&mut stmts, stage, &point);
                let values = nest.body(&mut stmts, &stage.body, &reads);
                nest.writes(&mut stmts, stage, &values, &reads, &point);
                nest.lane = lane;
                let stmts = on_lanes(nest, lanes, stmts);
                body.extend(Nest::serial(&[(c, count.clone())], stmts));
            }
            done = &done + &count.scale(&w);
            left = left.modulo(&w);
            if left.as_const() == Some(0) {
                break;
            }
        }
        out.extend(Nest::serial(&loops, body));
        return;
    };
    let w = Dim::Const(lanes as i64);
    let (full, tail) = (extent.div(&w), extent.modulo(&w));
    let wide = lanes > 1 && full.as_const() != Some(0) && combine.free;
    // The innermost dimension: its whole vectors first, then the tail, lane by lane. `c` counts one or the other.
    let done = if wide { full.scale(&w) } else { Ix::constant(0) };
    let place = |c: Ix, lane: Var, vector: bool| match vector {
        true => &c.scale(&w) + &Ix::var(lane),
        false => &done + &c,
    };
    let pass = |nest: &mut Nest, out: &mut Vec<Stmt>, wide: bool, count: &Ix, accs: &[Reg]| {
        let (c, lane) = (nest.var(), nest.var());
        nest.lane = lane;
        let lanes = if wide { lanes } else { 1 };
        let nested = [&loops[..], &[(c, count.clone())]].concat();
        let domain = Domain { loops: &nested, at };
        sums::reduce(nest, out, combine, accs, lanes, domain, &mut |nest, accs, at| {
            let here = place(at(c), lane, wide);
            let point = |u: Var| if u == *v { here.clone() } else { at(u) };
            let mut body = vec![];
            let values = nest.values(&mut body, stage, &point);
            merge(nest, &mut body, &combine.body, accs, &values);
            on_lanes(nest, lanes, body)
        });
    };
    let accs = accumulators(nest, out, stage, 1);
    if wide {
        let partial = accumulators(nest, out, stage, lanes);
        pass(nest, out, true, &full, &partial);
        let total = merge_lanes(nest, out, &combine.merge, &partial, lanes);
        merge(nest, out, &combine.merge, &accs, &total);
    }
    let rest = if wide { &tail } else { &extent };
    if rest.as_const() != Some(0) {
        pass(nest, out, false, rest, &accs);
    }
    finish(nest, out, stage, &accs, 1, at);
}

/// A dimension of a stage that a bound of its guard cuts short: what the bound's index is at its first point, and the bound's end.
pub struct Cut {
    of: Var,
    first: Ix,
    end: Dim,
}

/// The dimensions that a stage's guard cuts short.
///
/// # Errors
/// When a bound cuts none, or one that another bound cuts.
pub fn cuts(stage: &FlatStage) -> Result<Vec<Cut>, String> {
    let one = |bound: &Bound| {
        let of = stage
            .dims
            .iter()
            .map(|d| d.0)
            .find(|v| stride_is_one(&bound.index, *v))?;
        let others = |v: Var| if v == of { Ix::constant(0) } else { Ix::var(v) };
        let first = bound.index.substitute(&others, &Ix::reg);
        // Variables are not negative, and so no such sum of them is.
        let positive = first.offset.is_nonnegative() && first.terms.iter().all(|(_, c)| c.is_nonnegative());
        let free = is_affine(&first) && !stage.dims.iter().any(|d| first.uses(d.0));
        let end = bound.extent.clone();
        (positive && free).then_some(Cut { of, first, end })
    };
    let mut out: Vec<Cut> = vec![];
    for b in &stage.guard {
        match one(b) {
            Some(c) if out.iter().all(|other| other.of != c.of) => out.push(c),
            _ => return Err(format!("{b} cuts no dimension of the stage short, or a second time")),
        }
    }
    Ok(out)
}

/// How many points of a stage's dimension there are.
fn iterations(cuts: &[Cut], v: Var, extent: &Dim, at: &Point) -> Ix {
    match cuts.iter().find(|c| c.of == v) {
        Some(c) => (&c.first.substitute(at, &Ix::reg).scale(&Dim::Const(-1)) + &c.end).at_most(extent),
        None => Ix::constant(extent.clone()),
    }
}

/// Merges the lanes of partial accumulators pairwise: lane `i` with lane `i + n/2`.
fn merge_lanes(nest: &mut Nest, out: &mut Vec<Stmt>, merge: &Body, partial: &[Reg], lanes: u32) -> Vec<Reg> {
    let mut level: Vec<Vec<Reg>> = (0..lanes)
        .map(|i| {
            let pick = |nest: &mut Nest, out: &mut Vec<Stmt>, &r: &Reg| {
                let dtype = nest.kernel.reg(r).dtype;
                nest.set(out, dtype, Expr::Lane(r, i))
            };
            partial.iter().map(|r| pick(nest, out, r)).collect()
        })
        .collect();
    while level.len() > 1 {
        let half = level.len() / 2;
        let (low, high) = level.split_at(half);
        level = low
            .iter()
            .zip(high)
            .map(|(a, b)| nest.body(out, merge, &[&a[..], &b[..]].concat()))
            .collect();
    }
    level.pop().expect("at least one lane")
}
