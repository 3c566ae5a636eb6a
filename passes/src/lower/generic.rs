//! Loop nests for everything that is no register tile: maps, row kernels, windows, scans and scatters.
//!
//! Two ways to vectorise:
//! - **points**: lanes run along one outer dimension, the one that is contiguous in the result; a reduction keeps one
//!   accumulator a lane;
//! - **rows**: lanes run along the innermost dimension of each stage; a reduction keeps partial accumulators a lane, merged
//!   at the end in a fixed order, so that the result does not depend on the number of threads.

use super::flat::{Flat, FlatRead, FlatStage, Target};
use super::nest::{Nest, Point, collapse};
use super::sums::{self, on_lanes};
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Stmt};
use brolga_ir::program::{Rows, SlotId};
use brolga_ir::structured::IterKind;
use brolga_ir::{DType, Dim};

/// Knobs of the generic schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knobs {
    /// Lanes of vector loops; 0 chooses by the size of the bodies.
    pub width: u32,
    /// Iterations that the parallel loop should have at least, where there are as many.
    pub tasks: i64,
    /// Elements of a chunk, when a single long dimension is cut for the parallel loop.
    pub chunk: i64,
}

impl Default for Knobs {
    fn default() -> Knobs {
        Knobs {
            width: 0,
            tasks: 64,
            chunk: 4096,
        }
    }
}

/// From so many points on, a reduction decides how many lanes its kernel has.
const LONG: i64 = 8;

/// The loop kernel of a part.
pub fn schedule(part: &Part, knobs: Knobs) -> Kernel {
    single(&part.flat, knobs)
}

/// What becomes a loop kernel of its own, and which of the kernel's parameters it has.
pub struct Part {
    /// The part; its buffers are its parameters, in order.
    pub flat: Flat,
    params: Vec<usize>,
}

impl Part {
    /// The part's arguments among those of the kernel.
    pub fn args(&self, args: &[SlotId]) -> Vec<SlotId> {
        self.params.iter().map(|&i| args[i]).collect()
    }
}

/// The parts of a flat kernel: itself, or its stages when they share no outer dimension. The dimensions of a lone parallel
/// stage are outer ones in them.
pub fn parts(flat: &Flat) -> Vec<Part> {
    let split = flat.outer.is_empty() && flat.stages.len() > 1 && flat.locals.is_empty();
    let mut out = match split {
        true => (0..).zip(&flat.stages).map(|(i, s)| alone(flat, i, s)).collect(),
        false => vec![Part {
            flat: flat.clone(),
            params: (0..flat.buffers.len()).collect(),
        }],
    };
    out.iter_mut().for_each(|p| absorb(&mut p.flat));
    out
}

/// One stage, with the buffers that it touches.
fn alone(flat: &Flat, number: usize, stage: &FlatStage) -> Part {
    let mut stage = stage.clone();
    let mut params = vec![];
    stage.each_target(&mut |t| params.extend(t.buffer()));
    params.sort_unstable();
    params.dedup();
    stage.each_target(&mut |t| {
        if let Target::Buffer(b) = t {
            *b = Buf(params.binary_search(b).expect("collected above") as u32);
        }
    });
    Part {
        flat: Flat {
            name: format!("{}_{number}", flat.name),
            symbols: flat.symbols.clone(),
            buffers: params.iter().map(|b| flat.buffers[b.0 as usize].clone()).collect(),
            locals: vec![],
            outer: vec![],
            stages: vec![stage],
            next_var: flat.next_var,
        },
        params: params.into_iter().map(|b| b.0 as usize).collect(),
    }
}

/// What a part that only copies a whole buffer, row by row, reads and writes, and the rows, unless they are short ones.
///
/// ```text
/// for i0 in 0..n { for i1 in 0..64 { b1[256*i0 + i1 + 128] = b0[64*i0 + i1] } }  -->  rows(n, 256, 512, 1024)
/// ```
pub fn as_copy(flat: &Flat) -> Option<(Buf, Buf, Rows)> {
    /// Bytes of a row that a vector loop copies better.
    const SHORT: i64 = 64;
    let [stage] = &flat.stages[..] else { return None };
    let plain = !stage.scatter && !stage.scan && !stage.reduces() && stage.body.insts.is_empty();
    let (
        [
            FlatRead::Element {
                target, index, guard, ..
            },
        ],
        [(written, to)],
    ) = (&stage.reads[..], &stage.writes[..])
    else {
        return None;
    };
    let (from, into) = (target.buffer()?, written.buffer()?);
    if !plain || !guard.is_empty() || !index.offset.is(0) {
        return None;
    }
    let (rows, row) = match &flat.outer[..] {
        [row] => (None, row),
        [rows, row] => (Some(rows), row),
        _ => return None,
    };
    let size = Dim::Const(flat.dtype(*target).bytes() as i64);
    // Both indices are sums of the two variables and nothing else, by these strides.
    let affine = |ix: &Ix, strides: &[(Var, Dim)]| {
        ix.terms.len() == strides.len() && strides.iter().all(|(v, d)| ix.stride(*v).as_ref() == Some(d))
    };
    let (count, stride) = match rows {
        None => (Dim::ONE, row.1.clone()),
        Some((v, n)) => (n.clone(), to.stride(*v)?),
    };
    let outer = |stride: &Dim| rows.map(|(v, _)| (*v, stride.clone()));
    let strides = |stride: &Dim| -> Vec<(Var, Dim)> { outer(stride).into_iter().chain([(row.0, Dim::ONE)]).collect() };
    let fits = affine(index, &strides(&row.1)) && affine(to, &strides(&stride));
    let bytes = &row.1 * &size;
    let short = rows.is_some() && bytes.as_const().is_some_and(|n| n < SHORT);
    let whole = flat.buffers[from.0 as usize].len == &count * &row.1;
    (fits && whole && !short).then(|| {
        let rows = Rows {
            count,
            bytes,
            start: &to.offset * &size,
            stride: &stride * &size,
        };
        (from, into, rows)
    })
}

/// Makes the dimensions of a lone parallel stage outer ones.
fn absorb(flat: &mut Flat) {
    let [s] = &mut flat.stages[..] else { return };
    if s.scatter || s.scan || s.reduces() {
        return;
    }
    flat.outer.extend(s.dims.drain(..).map(|(v, d)| (v, d.extent)));
    flat.outer.retain(|(_, d)| !d.is(1));
    let units: Vec<Var> = flat.outer.iter().map(|(v, _)| *v).collect();
    let keep = |v: Var| {
        if units.contains(&v) {
            Ix::var(v)
        } else {
            Ix::constant(0)
        }
    };
    s.each_index(&mut |ix, _| *ix = ix.substitute(&keep, &Ix::reg));
}

fn single(flat: &Flat, knobs: Knobs) -> Kernel {
    if flat.stages.iter().any(|s| s.scatter) {
        return scatter(flat);
    }
    let tiles = flat.locals.iter().any(|l| !l.shape.is_empty());
    let vector = vector_dim(flat);
    let rows = tiles
        || flat
            .stages
            .iter()
            .any(|s| s.dims.iter().any(|(_, d)| d.kind == IterKind::Parallel))
        || {
            // Reductions along contiguous data: lanes along the reduction, unless an outer dimension is contiguous too.
            let reduces = flat.stages.iter().any(|s| s.reduces() && !s.scan);
            reduces && vector.is_none_or(|v| !contiguous_reads(flat, v)) && flat.stages.iter().all(reduction_contiguous)
        };
    if rows && flat.stages.iter().all(|s| !s.scan) {
        row_kernel(flat, knobs)
    } else {
        point_kernel(flat, vector, knobs)
    }
}

pub(super) fn stride_is_one(ix: &Ix, v: Var) -> bool {
    ix.stride(v).is_some_and(|s| s.is(1))
}

/// The outer dimension along which the result is contiguous; the last one when there is none.
fn vector_dim(flat: &Flat) -> Option<Var> {
    let write = flat.stages.last().and_then(|s| s.writes.first()).map(|w| &w.1)?;
    let found = flat.outer.iter().rev().find(|(v, _)| stride_is_one(write, *v));
    found.or(flat.outer.last()).map(|(v, _)| *v)
}

/// True when lanes along `v` read whole vectors or one value in every reducing stage.
fn contiguous_reads(flat: &Flat, v: Var) -> bool {
    flat.stages.iter().filter(|s| s.reduces()).all(|s| {
        s.reads.iter().all(|r| match r {
            FlatRead::Element { index, .. } => index
                .stride(v)
                .is_some_and(|d| d.is(1) || d.is(0) || d.is_broadcast_step()),
            _ => true,
        })
    })
}

/// True when a reducing stage reads contiguously along its innermost dimension.
pub(super) fn reduction_contiguous(s: &FlatStage) -> bool {
    let Some((v, d)) = s.dims.last() else { return true };
    let few = d.extent.as_const().is_some_and(|n| n < 8);
    !few && s
        .reads
        .iter()
        .any(|r| matches!(r, FlatRead::Element { index, .. } if stride_is_one(index, *v)))
}

/// Lanes for a kernel: fewer the larger the bodies of stages, so that values stay in registers.
fn width<'s>(stages: impl Iterator<Item = &'s FlatStage>, knobs: Knobs) -> u32 {
    if knobs.width != 0 {
        return knobs.width;
    }
    let size = stages.map(|s| s.body.usual() + s.reads.len()).max().unwrap_or(0);
    match size {
        0..=10 => 16,
        11..=48 => 8,
        _ => 4,
    }
}

/// How many of the outer dimensions the parallel loop takes; the others run serially inside it.
fn parallel_dims(outer: &[(Var, Dim)], tasks: i64) -> usize {
    let mut n = 1i64;
    for (i, (_, d)) in outer.iter().enumerate() {
        n = n.saturating_mul(d.as_const().unwrap_or(16));
        if n >= tasks {
            return i + 1;
        }
    }
    outer.len()
}

pub(super) fn look_up(map: &[(Var, Ix)], v: Var) -> Ix {
    map.iter()
        .find(|(u, _)| *u == v)
        .map_or_else(|| Ix::var(v), |(_, ix)| ix.clone())
}

fn parallel(p: Var, extent: Ix, body: Vec<Stmt>) -> Stmt {
    Stmt::For {
        var: p,
        kind: LoopKind::Parallel,
        extent,
        body,
    }
}

/// Lanes along an outer dimension.
fn point_kernel(flat: &Flat, vector: Option<Var>, knobs: Knobs) -> Kernel {
    let mut nest = Nest::new(flat);
    let p = nest.var();
    let Some(v) = vector else {
        let mut body = vec![];
        point_stages(&mut nest, &mut body, 1, &Ix::var);
        nest.kernel.body = vec![parallel(p, Ix::constant(1), body)];
        return nest.kernel;
    };
    let extent = flat
        .outer
        .iter()
        .find(|(u, _)| *u == v)
        .map(|(_, d)| d.clone())
        .expect("the vector dim is outer");
    // What follows a long reduction runs once where that runs often.
    let long = |s: &FlatStage| {
        let points = brolga_ir::dim::product(s.dims.iter().map(|(_, d)| &d.extent));
        s.reduces() && points.as_const().is_none_or(|n| n >= LONG)
    };
    let reduces = flat.stages.iter().any(long);
    let often = flat.stages.iter().filter(|s| !reduces || long(s));
    // Lanes beyond the extent would leave all of it to the scalar tail.
    let lanes = match (width(often, knobs), extent.as_const()) {
        (lanes, Some(n @ 4..)) if knobs.width == 0 => lanes.min(1 << n.ilog2().min(4)),
        (lanes, _) => lanes,
    };
    let rest: Vec<(Var, Dim)> = flat.outer.iter().filter(|(u, _)| *u != v).cloned().collect();
    let known = brolga_ir::dim::product(rest.iter().map(|(_, d)| d)).as_const();
    let cut = extent.as_const().is_none_or(|n| n > knobs.chunk);
    let (outside, inside) = rest.split_at(parallel_dims(&rest, knobs.tasks));
    let mut dims = outside.to_vec();
    // One long dimension is cut into chunks when there is nothing else to run in parallel.
    let chunk = (cut && known.is_some_and(|n| n < knobs.tasks)).then(|| {
        let c = nest.var();
        dims.push((c, extent.ceil_div(&Dim::Const(knobs.chunk))));
        c
    });
    let (total, map) = collapse(&dims, p);
    let (first, count) = match chunk {
        Some(c) => {
            let first = look_up(&map, c).scale(&Dim::Const(knobs.chunk));
            let left = &first.scale(&Dim::Const(-1)) + &extent;
            (first, left.at_most(&Dim::Const(knobs.chunk)))
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
        point_stages(nest, &mut stmts, lanes, &at);
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
    nest.kernel
}

/// All stages at a point (or at `lanes` points).
pub(super) fn point_stages(nest: &mut Nest, out: &mut Vec<Stmt>, lanes: u32, at: &Point) {
    let flat = nest.flat;
    for stage in &flat.stages {
        if !stage.reduces() {
            let mut body = vec![];
            let reads = nest.reads(&mut body, stage, at);
            let values = nest.body(&mut body, &stage.body, &reads);
            let values = keep_lanes(nest, &mut body, stage, values, lanes);
            nest.writes(&mut body, stage, &values, &reads, at);
            let loops: Vec<(Var, Ix)> = stage
                .dims
                .iter()
                .map(|(v, d)| (*v, Ix::constant(d.extent.clone())))
                .collect();
            out.extend(Nest::serial(&loops, on_lanes(nest, lanes, body)));
            continue;
        }
        let combine = stage.combine.as_ref().expect("a reducing stage has a combiner");
        let accs = accumulators(nest, out, stage, lanes);
        let loops: Vec<(Var, Ix)> = stage
            .dims
            .iter()
            .map(|(v, d)| (*v, Ix::constant(d.extent.clone())))
            .collect();
        if stage.scan {
            let mut body = vec![];
            let values = nest.values(&mut body, stage, at);
            merge(nest, &mut body, &combine.body, &accs, &values);
            nest.writes(&mut body, stage, &accs, &[], at);
            out.extend(Nest::serial(&loops, on_lanes(nest, lanes, body)));
            continue;
        }
        sums::reduce(nest, out, combine, &accs, lanes, &loops, &mut |nest, accs, of_loop| {
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
            on_lanes(nest, lanes, body)
        });
        finish(nest, out, stage, &accs, lanes, at);
    }
}

/// Scalars that a later stage reads are kept in registers with lanes.
fn keep_lanes(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, values: Vec<Reg>, lanes: u32) -> Vec<Reg> {
    if lanes == 1 {
        return values;
    }
    let mut keep = |nest: &mut Nest, (w, v): (&(Target, Ix), Reg)| match w.0 {
        Target::Local(l) if nest.flat.locals[l as usize].shape.is_empty() => {
            let r = nest.reg(nest.kernel.reg(v).dtype, lanes);
            out.push(Stmt::Set(r, Expr::Copy(v)));
            r
        }
        _ => v,
    };
    stage.writes.iter().zip(values).map(|x| keep(nest, x)).collect()
}

pub(super) fn accumulators(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32) -> Vec<Reg> {
    let combine = stage.combine.as_ref().expect("a reducing stage has a combiner");
    let dtypes: Vec<DType> = combine.body.output_dtypes();
    let init = combine.init.iter().zip(dtypes).map(|(&bits, dtype)| {
        let r = nest.reg(dtype, lanes);
        out.push(Stmt::Set(r, Expr::Const(bits)));
        r
    });
    init.collect()
}

/// `accs = body(accs, values)`.
pub(super) fn merge(
    nest: &mut Nest,
    out: &mut Vec<Stmt>,
    body: &brolga_ir::scalar::Body,
    accs: &[Reg],
    values: &[Reg],
) {
    let inputs = [accs, values].concat();
    let merged = nest.body(out, body, &inputs);
    for (&a, m) in accs.iter().zip(merged) {
        out.push(Stmt::Set(a, Expr::Copy(m)));
    }
}

/// Writes finished accumulators: to their locals' registers, or to memory.
fn finish(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, accs: &[Reg], lanes: u32, at: &Point) {
    let mut body = vec![];
    nest.writes(&mut body, stage, accs, &[], at);
    if !body.is_empty() {
        out.extend(on_lanes(nest, lanes, body));
    }
}

/// Lanes along the innermost dimension of every stage.
fn row_kernel(flat: &Flat, knobs: Knobs) -> Kernel {
    let lanes = width(flat.stages.iter(), knobs);
    let mut nest = Nest::new(flat);
    nest.house_tiles();
    let p = nest.var();
    let (dims, inside) = flat.outer.split_at(parallel_dims(&flat.outer, knobs.tasks));
    let (total, map) = collapse(dims, p);
    let at = |u: Var| look_up(&map, u);
    let mut body = vec![];
    for stage in &flat.stages {
        row_stage(&mut nest, &mut body, stage, lanes, &at);
    }
    let inside: Vec<(Var, Ix)> = inside.iter().map(|(u, d)| (*u, Ix::constant(d.clone()))).collect();
    nest.kernel.body = vec![parallel(p, total, Nest::serial(&inside, body))];
    nest.kernel
}

fn row_stage(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32, at: &Point) {
    let Some(((v, last), before)) = stage.dims.split_last() else {
        let reads = nest.reads(out, stage, at);
        let values = nest.body(out, &stage.body, &reads);
        nest.writes(out, stage, &values, &reads, at);
        return;
    };
    let loops: Vec<(Var, Ix)> = before
        .iter()
        .map(|(u, d)| (*u, Ix::constant(d.extent.clone())))
        .collect();
    let w = Dim::Const(lanes as i64);
    let extent = Ix::constant(last.extent.clone());
    let (full, tail) = (extent.div(&w), extent.modulo(&w));
    let combine = stage.combine.as_ref().filter(|_| stage.reduces());
    let wide = lanes > 1 && full.as_const() != Some(0) && combine.is_none_or(|c| c.free);
    // The innermost dimension: its whole vectors first, then the tail, lane by lane. `c` counts one or the other.
    let done = if wide { full.scale(&w) } else { Ix::constant(0) };
    let place = |c: Ix, lane: Var, vector: bool| match vector {
        true => &c.scale(&w) + &Ix::var(lane),
        false => &done + &c,
    };
    let Some(combine) = combine else {
        let pass = |nest: &mut Nest, wide: bool, count: &Ix| -> Vec<Stmt> {
            let (c, lane) = (nest.var(), nest.var());
            let here = place(Ix::var(c), lane, wide);
            let point = |u: Var| if u == *v { here.clone() } else { at(u) };
            let mut body = vec![];
            let reads = nest.reads(&mut body, stage, &point);
            let values = nest.body(&mut body, &stage.body, &reads);
            nest.writes(&mut body, stage, &values, &reads, &point);
            nest.lane = lane;
            let body = on_lanes(nest, if wide { lanes } else { 1 }, body);
            Nest::serial(&[(c, count.clone())], body)
        };
        let mut body = vec![];
        if wide {
            body.extend(pass(nest, true, &full));
        }
        let rest = if wide { &tail } else { &extent };
        if rest.as_const() != Some(0) {
            body.extend(pass(nest, false, rest));
        }
        out.extend(Nest::serial(&loops, body));
        return;
    };
    let pass = |nest: &mut Nest, out: &mut Vec<Stmt>, wide: bool, count: &Ix, accs: &[Reg]| {
        let (c, lane) = (nest.var(), nest.var());
        nest.lane = lane;
        let lanes = if wide { lanes } else { 1 };
        let nested = [&loops[..], &[(c, count.clone())]].concat();
        sums::reduce(nest, out, combine, accs, lanes, &nested, &mut |nest, accs, of_loop| {
            let here = place(of_loop(c), lane, wide);
            let point = |u: Var| {
                if u == *v {
                    here.clone()
                } else if loops.iter().any(|(l, _)| *l == u) {
                    of_loop(u)
                } else {
                    at(u)
                }
            };
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

/// Merges the lanes of partial accumulators pairwise: lane `i` with lane `i + n/2`.
fn merge_lanes(
    nest: &mut Nest,
    out: &mut Vec<Stmt>,
    merge: &brolga_ir::scalar::Body,
    partial: &[Reg],
    lanes: u32,
) -> Vec<Reg> {
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

/// Everything in order, in one task: writes may collide.
pub(super) fn scatter(flat: &Flat) -> Kernel {
    let mut nest = Nest::new(flat);
    let stage = &flat.stages[0];
    let mut body = vec![];
    let reads = nest.reads(&mut body, stage, &Ix::var);
    let values = nest.body(&mut body, &stage.body, &reads);
    let mut then = vec![];
    nest.writes(&mut then, stage, &values, &reads, &Ix::var);
    let resolve = |b: &brolga_ir::index::Bound| brolga_ir::index::Bound {
        index: b.index.substitute(&Ix::var, &super::flat::by_read(&reads)),
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
    nest.kernel
}
