//! One row of the outer domain for a team of threads, a block or a part of one; threads stride over the inner dimensions,
//! and partial accumulators are merged by a tree in shared memory, in an order that only the row's length decides.
//!
//! Invariant: a barrier stands where every thread of the block passes, and between any write of shared memory or of a
//! result and its reading by another thread. Every thread of a row computes the row's scalars for itself.
//!
//! ```text
//! for (block = row, thread) {
//!   for i in thread, thread + 128, … { acc = merge(acc, value(i)) }
//!   shared[thread] = acc; barrier; tree; sum = shared[0]; … }
//! ```

use super::super::flat::{Flat, FlatRead, FlatStage, Target, local_len, look_up};
use super::super::nest::{Domain, Home, Nest, Point};
use super::super::point::{accumulators, merge};
use super::super::sums;
use super::grid::{check_threads, coordinates, grid};
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, Scope, Stmt};
use brolga_ir::scalar::Body;
use brolga_ir::schedule::GpuRows;
use brolga_ir::structured::IterKind;
use brolga_ir::{DType, Dim};

/// The kernel.
///
/// # Errors
/// Why the schedule does not fit the kernel.
pub fn kernel(flat: &Flat, s: &GpuRows) -> Result<Kernel, String> {
    if flat.stages.iter().any(|s| s.scan || s.scatter) {
        return Err("a scan or a scatter visits its points in order, not by a team of threads".into());
    }
    if s.lanes < 1 || !s.lanes.cast_unsigned().is_power_of_two() {
        return Err(format!("lanes={}, expected a power of two", s.lanes));
    }
    check_threads(s.lanes.saturating_mul(s.slots))?;
    let total = flat.points();
    let (lanes, slots) = (s.lanes, s.slots);
    let blocks = total
        .exact_div(&Dim::Const(slots))
        .ok_or_else(|| format!("slots={slots} does not divide the {total} rows"))?;
    let mut nest = Nest::new(flat);
    let block = nest.var();
    let team = Team {
        lane: nest.var(),
        lanes,
        slot: nest.var(),
        slots,
    };
    let mut tiles: Vec<(Buf, Dim)> = vec![];
    for (i, l) in flat.locals.iter().enumerate().filter(|(_, l)| !l.shape.is_empty()) {
        let len = local_len(l);
        if flat.is_written(i) {
            if len.as_const().is_none() {
                return Err(format!(
                    "l{i} has {len} elements: shared memory has a constant size; compute it again, inline=[l{i}]"
                ));
            }
            let b = nest.scratch(l.dtype, &len * slots, Scope::Shared);
            nest.homes[i] = Some(Home::Buffer(b, Ix::constant(0)));
            tiles.push((b, len));
        }
    }
    let row = &Ix::var(block).scale(&Dim::Const(slots)) + &Ix::var(team.slot);
    let mut body = vec![];
    let map = coordinates(&mut nest, &mut body, &flat.outer, &row);
    let at = |u: Var| look_up(&map, u);
    for (i, stage) in flat.stages.iter().enumerate() {
        row_stage(&mut nest, &mut body, stage, &team, &at);
        let shared = |t: Target| match t {
            Target::Local(l) => !flat.locals[l as usize].shape.is_empty(),
            Target::Buffer(_) => true,
        };
        let read_later = |t: Target| flat.stages[i + 1..].iter().any(|s| reads(s, t));
        if stage.writes.iter().any(|&(t, _)| shared(t) && read_later(t)) {
            body.push(Stmt::Barrier);
        }
    }
    shift(&mut body, &|b| {
        let tile = tiles.iter().find(|(t, _)| *t == b)?;
        Some(Ix::var(team.slot).scale(&tile.1))
    });
    nest.kernel.body = grid((block, blocks), &[(team.lane, lanes), (team.slot, slots)], body);
    Ok(nest.kernel)
}

/// The threads that share a row.
struct Team {
    /// A thread's number in the row.
    lane: Var,
    /// Threads of a row.
    lanes: i64,
    /// The row's number in the block.
    slot: Var,
    /// Rows of a block.
    slots: i64,
}

impl Team {
    /// Runs only in the first thread of a row.
    fn first(&self, then: Vec<Stmt>) -> Stmt {
        let bounds = vec![Bound {
            index: Ix::var(self.lane),
            extent: Dim::ONE,
        }];
        Stmt::If { bounds, then }
    }
    /// The place of a thread's element in a shared buffer, `by` lanes on.
    fn place(&self, by: i64) -> Ix {
        &(&Ix::var(self.slot).scale(&Dim::Const(self.lanes)) + &Ix::var(self.lane)) + &Dim::Const(by)
    }
}

fn reads(s: &FlatStage, t: Target) -> bool {
    let of = |r: &FlatRead| matches!(r, FlatRead::Element { target, .. } if *target == t);
    s.reads.iter().any(of)
}

/// Adds an offset to every access of some buffers.
fn shift(stmts: &mut [Stmt], by: &dyn Fn(Buf) -> Option<Ix>) {
    for s in stmts {
        match s {
            Stmt::Set(_, Expr::Load { buffer, index, .. }) | Stmt::Store { buffer, index, .. } => {
                if let Some(offset) = by(*buffer) {
                    *index = &*index + &offset;
                }
            }
            Stmt::For { body, .. } | Stmt::If { then: body, .. } => shift(body, by),
            Stmt::Set(..) | Stmt::Check { .. } | Stmt::Barrier | Stmt::Tile(_) => {}
        }
    }
}

/// How many of the points of `dims` are a thread's, when the threads of a row share them.
fn shared_points(dims: &[(Var, Dim)], team: &Team) -> Ix {
    let lanes = Dim::Const(team.lanes);
    let total = product(dims.iter().map(|(_, d)| d));
    match total.exact_div(&lanes) {
        Some(n) => Ix::constant(n),
        None => (&Ix::var(team.lane).scale(&Dim::Const(-1)) + &(&total + (team.lanes - 1))).div(&lanes),
    }
}

/// What a thread does at the `i`-th of its points of `dims`.
fn at_shared(
    nest: &mut Nest,
    dims: &[(Var, Dim)],
    team: &Team,
    i: &Ix,
    at: &Point,
    fill: impl FnOnce(&mut Nest, &mut Vec<Stmt>, &Point),
) -> Vec<Stmt> {
    let here = &i.scale(&Dim::Const(team.lanes)) + &Ix::var(team.lane);
    let mut body = vec![];
    let map = coordinates(nest, &mut body, dims, &here);
    let point = |u: Var| match map.iter().find(|(w, _)| *w == u) {
        Some((_, ix)) => ix.clone(),
        None => at(u),
    };
    fill(nest, &mut body, &point);
    body
}

fn row_stage(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, team: &Team, at: &Point) {
    let of = |kind: IterKind| -> Vec<(Var, Dim)> {
        let dims = stage.dims.iter().filter(|(_, d)| d.kind == kind);
        dims.map(|(v, d)| (*v, d.extent.clone())).collect()
    };
    let (inner, merged) = (of(IterKind::Parallel), of(IterKind::Reduction));
    let combine = stage.combine.as_ref().filter(|_| stage.reduces());
    let reduce = |nest: &mut Nest, out: &mut Vec<Stmt>, at: &Point| -> Vec<Reg> {
        let combine = combine.expect("it reduces");
        let accs = accumulators(nest, out, stage, 1);
        let loops: Vec<(Var, Ix)> = merged.iter().map(|(v, d)| (*v, Ix::constant(d.clone()))).collect();
        let domain = Domain { loops: &loops, at };
        sums::reduce(nest, out, combine, &accs, 1, domain, &mut |nest, accs, at| {
            let mut body = vec![];
            let values = nest.values(&mut body, stage, at);
            merge(nest, &mut body, &combine.body, accs, &values);
            body
        });
        accs
    };
    if !inner.is_empty() {
        let var = nest.var();
        let body = at_shared(nest, &inner, team, &Ix::var(var), at, |nest, body, at| {
            if combine.is_some() {
                let accs = reduce(nest, body, at);
                nest.writes(body, stage, &accs, &[], at);
            } else {
                let reads = nest.reads(body, stage, at);
                let values = nest.body(body, &stage.body, &reads);
                nest.writes(body, stage, &values, &reads, at);
            }
        });
        out.extend(Nest::serial(&[(var, shared_points(&inner, team))], body));
        return;
    }
    let (values, regs) = match combine {
        None => {
            let regs = nest.reads(out, stage, at);
            (nest.body(out, &stage.body, &regs), regs)
        }
        Some(c) if c.free => {
            let accs = accumulators(nest, out, stage, 1);
            let own = [(nest.var(), shared_points(&merged, team))];
            let domain = Domain { loops: &own, at };
            sums::reduce(nest, out, c, &accs, 1, domain, &mut |nest, accs, at| {
                at_shared(nest, &merged, team, &at(own[0].0), at, |nest, body, at| {
                    let values = nest.values(body, stage, at);
                    merge(nest, body, &c.body, accs, &values);
                })
            });
            (tree(nest, out, &c.merge, &accs, team), vec![])
        }
        Some(_) => (reduce(nest, out, at), vec![]),
    };
    let mut stores = vec![];
    nest.writes(&mut stores, stage, &values, &regs, at);
    if !stores.is_empty() {
        out.push(team.first(stores));
    }
}

/// Merges the accumulators of a row's threads; every thread gets the result. The shared memory is this stage's own, so
/// that no barrier has to keep an earlier reader from it.
fn tree(nest: &mut Nest, out: &mut Vec<Stmt>, body: &Body, accs: &[Reg], team: &Team) -> Vec<Reg> {
    let dtypes: Vec<DType> = accs.iter().map(|&r| nest.kernel.reg(r).dtype).collect();
    let len = Dim::Const(team.lanes * team.slots);
    let shared: Vec<Buf> = dtypes
        .iter()
        .map(|&d| nest.scratch(d, len.clone(), Scope::Shared))
        .collect();
    let store = |out: &mut Vec<Stmt>, values: &[Reg]| {
        for (&buffer, &value) in shared.iter().zip(values) {
            out.push(Stmt::Store {
                buffer,
                index: team.place(0),
                value,
            });
        }
    };
    let load = |nest: &mut Nest, out: &mut Vec<Stmt>, index: Ix| -> Vec<Reg> {
        let one = |(&buffer, &dtype): (&Buf, &DType)| {
            let e = Expr::Load {
                buffer,
                index: index.clone(),
                guard: vec![],
                fill: 0,
            };
            nest.set(out, dtype, e)
        };
        shared.iter().zip(&dtypes).map(one).collect()
    };
    store(out, accs);
    out.push(Stmt::Barrier);
    let mut half = team.lanes / 2;
    while half > 0 {
        let mut then = vec![];
        let low = load(nest, &mut then, team.place(0));
        let high = load(nest, &mut then, team.place(half));
        let merged = nest.body(&mut then, body, &[low, high].concat());
        store(&mut then, &merged);
        let bounds = vec![Bound {
            index: Ix::var(team.lane),
            extent: Dim::Const(half),
        }];
        out.push(Stmt::If { bounds, then });
        out.push(Stmt::Barrier);
        half /= 2;
    }
    load(nest, out, Ix::var(team.slot).scale(&Dim::Const(team.lanes)))
}
