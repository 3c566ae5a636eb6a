//! Schedules for a GPU: every kernel becomes a grid of blocks of threads.
//!
//! Three shapes, beside the contractions of [`super::gpu_contract`]:
//! - **points**: one point of the outer domain a thread; whatever a point reduces or scans, its thread does in order;
//! - **rows**: one row of the outer domain a block, or a few short ones; threads stride over the inner dimensions, and
//!   partial accumulators are merged by a tree in shared memory, in an order that only the row's length decides;
//! - **in order**: a scatter, whose writes may collide, is one thread.
//!
//! Invariant: a barrier stands where every thread of the block passes, and between any write of shared memory or of a
//! result and its reading by another thread. Every thread of a row computes the row's scalars for itself.
//!
//! ```text
//! for (block, thread) { p = 256*block + thread; if p < points { … } }              points
//! for (block = row, thread) {                                                       rows
//!   for i in thread, thread + 128, … { acc = merge(acc, value(i)) }
//!   shared[thread] = acc; barrier; tree; sum = shared[0]; … }
//! ```

use super::Structured;
use super::flat::{Flat, FlatRead, FlatStage, Target, is_affine, local_len};
use super::generic::{self, accumulators, look_up, merge, point_stages};
use super::gpu_contract::Contraction;
use super::nest::{Home, Nest, Point, collapse};
use super::schedule::{Emitter, Source};
use super::sums;
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Scope, Stmt};
use brolga_ir::program::{Program, Step};
use brolga_ir::scalar::{Body, Inst, V};
use brolga_ir::structured::{Check, IterKind};
use brolga_ir::{DType, Dim};

/// The block tile of a contraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockTile {
    /// Rows and columns that a block computes.
    pub size: (i64, i64),
    /// Steps of the sum that are staged in shared memory at once.
    pub depth: i64,
    /// Threads along the rows and along the columns; each computes `size / threads` of both.
    pub threads: (i64, i64),
}

/// What GPU schedules may assume, and choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuOptions {
    /// Threads of a block that computes points.
    pub point_threads: i64,
    /// Threads of a block that computes rows; a power of two.
    pub row_threads: i64,
    /// Bytes of shared memory that the tiles of a row kernel may have; larger ones are computed again where they are read.
    pub shared_bytes: i64,
    /// The tile of contractions that fill the GPU with it.
    pub large: BlockTile,
    /// The tile of the others.
    pub small: BlockTile,
    /// Blocks from which on a GPU counts as full.
    pub blocks: i64,
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            point_threads: 256,
            row_threads: 128,
            shared_bytes: 32 << 10,
            large: BlockTile {
                size: (64, 64),
                depth: 16,
                threads: (16, 16),
            },
            small: BlockTile {
                size: (32, 32),
                depth: 16,
                threads: (8, 16),
            },
            blocks: 96,
        }
    }
}

/// Schedules every kernel of a structured program for a GPU. Right operands are read in place: nothing is packed.
pub fn to_gpu_loops(structured: &Structured, options: GpuOptions) -> Program {
    let flats: Vec<Flat> = structured.kernels.iter().map(Flat::new).collect();
    let mut out = Emitter::new(structured);
    for (steps, init) in [(&structured.init, true), (&structured.steps, false)] {
        for step in steps {
            match step {
                Step::Call {
                    kernel,
                    args,
                    origin,
                    checks,
                } => {
                    let source = Source { origin, checks, init };
                    for part in generic::parts(&flats[*kernel as usize]) {
                        let args = part.args(args);
                        out.call(schedule(part.flat, &options), args, source);
                    }
                }
                other => out.step(other.clone(), init),
            }
        }
    }
    out.program
}

fn schedule(mut flat: Flat, options: &GpuOptions) -> Kernel {
    if flat.stages.iter().any(|s| s.scatter) {
        return in_order(&flat);
    }
    if let Some(c) = Contraction::find(&flat) {
        return c.schedule(&flat, options);
    }
    if row_shaped(&flat, options) {
        recompute(&mut flat, options.shared_bytes);
        rows(&flat, options)
    } else {
        points(&flat, options)
    }
}

/// The body for every thread of every block: grid dimension 0, block dimensions 0 and on.
pub(super) fn grid(blocks: (Var, Dim), threads: &[(Var, i64)], body: Vec<Stmt>) -> Vec<Stmt> {
    let nest = |body, (var, kind, extent)| {
        vec![Stmt::For {
            var,
            kind,
            extent,
            body,
        }]
    };
    let threads = threads
        .iter()
        .enumerate()
        .map(|(d, &(v, n))| (v, LoopKind::Thread(d as u8), Ix::constant(n)));
    let body = threads.fold(body, nest);
    nest(body, (blocks.0, LoopKind::Block(0), Ix::constant(blocks.1)))
}

/// What dimensions are at the flat position `p`. Those that need a division are put into registers.
pub(super) fn coordinates(nest: &mut Nest, out: &mut Vec<Stmt>, dims: &[(Var, Dim)], p: &Ix) -> Vec<(Var, Ix)> {
    let v = nest.var();
    let (_, map) = collapse(dims, v);
    let put = |(u, ix): (Var, Ix)| {
        let ix = ix.substitute(&|w| if w == v { p.clone() } else { Ix::var(w) }, &Ix::reg);
        (u, kept(nest, out, ix))
    };
    map.into_iter().map(put).collect()
}

/// The expression, from a register when it divides.
pub(super) fn kept(nest: &mut Nest, out: &mut Vec<Stmt>, ix: Ix) -> Ix {
    if is_affine(&ix) {
        ix
    } else {
        Ix::reg(nest.set(out, DType::I64, Expr::Index(ix)))
    }
}

/// A scatter: everything by one thread. Its nest has no variables but the flat kernel's.
fn in_order(flat: &Flat) -> Kernel {
    let mut kernel = generic::scatter(flat);
    let (block, thread) = (Var(flat.next_var), Var(flat.next_var + 1));
    kernel.body = grid((block, Dim::ONE), &[(thread, 1)], kernel.body);
    kernel
}

fn points(flat: &Flat, options: &GpuOptions) -> Kernel {
    let mut nest = Nest::new(flat);
    let n = Dim::Const(options.point_threads);
    let (block, thread) = (nest.var(), nest.var());
    let total = product(flat.outer.iter().map(|(_, d)| d));
    let p = &Ix::var(block).scale(&n) + &Ix::var(thread);
    let mut body = vec![];
    let map = coordinates(&mut nest, &mut body, &flat.outer, &p);
    point_stages(&mut nest, &mut body, 1, &|u| look_up(&map, u));
    if total.exact_div(&n).is_none() {
        let bounds = vec![Bound {
            index: p,
            extent: total.clone(),
        }];
        body = vec![Stmt::If { bounds, then: body }];
    }
    nest.kernel.body = grid((block, total.ceil_div(&n)), &[(thread, options.point_threads)], body);
    nest.kernel
}

/// True for kernels whose threads had better share a row: those that keep rows, and those that reduce long ones that lie
/// contiguously or are too few to give every thread one.
fn row_shaped(flat: &Flat, options: &GpuOptions) -> bool {
    if flat.stages.iter().any(|s| s.scan) {
        return false;
    }
    let keeps = flat.locals.iter().any(|l| !l.shape.is_empty());
    let inner = |s: &FlatStage| s.dims.iter().any(|(_, d)| d.kind == IterKind::Parallel);
    if keeps || flat.stages.iter().any(inner) {
        return true;
    }
    let points = product(flat.outer.iter().map(|(_, d)| d)).as_const();
    let few = points.is_some_and(|n| n < options.blocks * options.point_threads);
    flat.stages.iter().any(|s| {
        let free = s.combine.as_ref().is_some_and(|c| c.free);
        let long = length(s).as_const().is_none_or(|n| n >= 64);
        s.reduces() && free && long && (few || generic::reduction_contiguous(s))
    })
}

/// The number of inner points of a stage.
fn length(s: &FlatStage) -> Dim {
    product(s.dims.iter().map(|(_, d)| &d.extent))
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

fn rows(flat: &Flat, options: &GpuOptions) -> Kernel {
    let mut nest = Nest::new(flat);
    let short = flat
        .stages
        .iter()
        .all(|s| length(s).as_const().is_some_and(|n| n <= 32));
    let total = product(flat.outer.iter().map(|(_, d)| d));
    let lanes = if short {
        options.row_threads.min(32)
    } else {
        options.row_threads
    };
    let mut slots = options.row_threads / lanes;
    while slots > 1 && total.exact_div(&Dim::Const(slots)).is_none() {
        slots /= 2;
    }
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
        if is_written(flat, i) {
            let b = nest.scratch(l.dtype, &len * slots, Scope::Shared);
            nest.homes[i] = Some(Home::Buffer(b));
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
    let blocks = total.exact_div(&Dim::Const(slots)).unwrap_or(total);
    nest.kernel.body = grid((block, blocks), &[(team.lane, lanes), (team.slot, slots)], body);
    nest.kernel
}

fn reads(s: &FlatStage, t: Target) -> bool {
    let of = |r: &FlatRead| matches!(r, FlatRead::Element { target, .. } if *target == t);
    s.reads.iter().any(of)
}

fn is_written(flat: &Flat, local: usize) -> bool {
    let t = Target::Local(local as u32);
    flat.stages.iter().any(|s| s.writes.iter().any(|w| w.0 == t))
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
        sums::reduce(nest, out, combine, &accs, 1, &loops, &mut |nest, accs, of_loop| {
            let point = |u: Var| {
                if loops.iter().any(|(v, _)| *v == u) {
                    of_loop(u)
                } else {
                    at(u)
                }
            };
            let mut body = vec![];
            let values = nest.values(&mut body, stage, &point);
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
            sums::reduce(nest, out, c, &accs, 1, &own, &mut |nest, accs, of_loop| {
                at_shared(nest, &merged, team, &of_loop(own[0].0), at, |nest, body, at| {
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

/// Kept rows that do not fit into shared memory are computed again wherever they are read.
fn recompute(flat: &mut Flat, shared_bytes: i64) {
    let mut left = shared_bytes;
    for l in 0..flat.locals.len() {
        let local = &flat.locals[l];
        if local.shape.is_empty() {
            continue;
        }
        match (&local_len(local) * local.dtype.bytes() as i64).as_const() {
            Some(n) if n <= left => left -= n,
            _ => inline(flat, l as u32),
        }
    }
}

/// Replaces reads of a local by what its stage computes. A stage that reduces keeps its local.
fn inline(flat: &mut Flat, local: u32) {
    let target = Target::Local(local);
    let Some(i) = flat.stages.iter().position(|s| s.writes.iter().any(|w| w.0 == target)) else {
        return;
    };
    let maker = flat.stages[i].clone();
    if maker.reduces() || maker.writes.len() != 1 {
        return;
    }
    let dims: Vec<(Var, Dim)> = maker.dims.iter().map(|(v, d)| (*v, d.extent.clone())).collect();
    for s in &mut flat.stages[i + 1..] {
        while let Some(k) = s
            .reads
            .iter()
            .position(|r| matches!(r, FlatRead::Element { target: t, .. } if *t == target))
        {
            let FlatRead::Element { index, .. } = s.reads[k].clone() else {
                return;
            };
            let p = Var(u32::MAX);
            let map: Vec<(Var, Ix)> = collapse(&dims, p)
                .1
                .into_iter()
                .map(|(v, ix)| (v, ix.substitute(&|_| index.clone(), &Ix::reg)))
                .collect();
            let n = maker.reads.len() as u32;
            let mut reads: Vec<FlatRead> = maker.reads.iter().map(|r| moved(r, &|v| look_up(&map, v), 0)).collect();
            reads.extend(s.reads.iter().map(|r| moved(r, &Ix::var, n)));
            reads[k + n as usize] = FlatRead::Computed(maker.body.clone(), (0..n).collect());
            s.reads = reads;
            let own = s.checks.iter().map(|c| moved_check(c, &Ix::var, n));
            let makers = maker.checks.iter().map(|c| moved_check(c, &|v| look_up(&map, v), 0));
            s.checks = makers.chain(own).collect();
            s.body = shifted(&s.body, &maker.body.inputs);
        }
    }
    flat.stages.remove(i);
}

/// An index at another point, with the numbers of the reads that it uses moved up.
fn moved_index(ix: &Ix, at: &Point, by: u32) -> Ix {
    ix.substitute(at, &|Reg(k)| Ix::reg(Reg(k + by)))
}

fn moved_bounds(bounds: &[Bound], at: &Point, by: u32) -> Vec<Bound> {
    let one = |b: &Bound| Bound {
        index: moved_index(&b.index, at, by),
        extent: b.extent.clone(),
    };
    bounds.iter().map(one).collect()
}

fn moved_check(c: &Check, at: &Point, by: u32) -> Check {
    Check {
        number: c.number,
        bounds: moved_bounds(&c.bounds, at, by),
        guard: moved_bounds(&c.guard, at, by),
    }
}

fn moved(r: &FlatRead, at: &Point, by: u32) -> FlatRead {
    let place = |ix: &Ix| moved_index(ix, at, by);
    let bounds = |g: &[Bound]| moved_bounds(g, at, by);
    match r {
        FlatRead::Element {
            target,
            index,
            guard,
            fill,
        } => FlatRead::Element {
            target: *target,
            index: place(index),
            guard: bounds(guard),
            fill: *fill,
        },
        FlatRead::Index(ix) => FlatRead::Index(place(ix)),
        FlatRead::InBounds(b) => FlatRead::InBounds(bounds(b)),
        FlatRead::Computed(body, args) => FlatRead::Computed(body.clone(), args.iter().map(|a| a + by).collect()),
    }
}

/// The body with further inputs, which it ignores, before its own.
fn shifted(body: &Body, first: &[DType]) -> Body {
    let by = first.len() as u32;
    let up = |v: V| V(v.0 + by);
    let inst = |i: &Inst| match *i {
        Inst::Prim(p, args) => Inst::Prim(p, args.map(up)),
        constant => constant,
    };
    Body {
        inputs: [first, &body.inputs].concat(),
        insts: body.insts.iter().map(inst).collect(),
        outputs: body.outputs.iter().map(|&v| up(v)).collect(),
    }
}
