//! The schedule that a kernel gets when nobody says otherwise. Every heuristic of scheduling stands here; a number was
//! measured on a Zen 4 where nothing else is said.

use super::contraction::{Contraction, Moves};
use super::cpu::tile::Tiling;
use super::cpu::tree;
use super::flat::{Flat, FlatRead, FlatStage, Target, local_len, stride_is_one};
use super::gpu::contract::Blocks;
use super::knobs::{self, Family, grain};
use super::parts::{self, Part};
use super::{Gpu, Machine, Schedule, inline, stretch};
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{Buf, PANEL};
use brolga_ir::schedule::{
    Copy, GpuInOrder, GpuPoints, GpuRows, GpuTile, InOrder, Order, Points, Rows, Tile, Tree, Way,
};
use brolga_ir::structured::{self, IterKind};
use brolga_ir::{CpuTarget, DType, Dim, TileFamily, TileKind};

/// Iterations that a parallel loop should have at least, where there are as many and they are worth it.
const TASKS: i64 = 64;
/// Cycles that each of them is worth.
const TASK: i64 = 2500;
/// Iterations from which on a loop may be shared out where more would cost something.
const FEW_TASKS: i64 = 4;
/// The fewest lanes of a vector.
const FEWEST_LANES: i64 = 4;
/// Points that are computed side by side where they are windows.
const ACROSS: i64 = 4;
/// Places that a core of the Xeon fetches ahead of at once, as far as windows tell: 12 are faster than 9, 15 are slower.
const STREAMS: usize = 12;
/// Lanes of windows of products of bytes, for each lane of 32 bits: those of a register of bytes.
const BYTES_A_LANE: i64 = 4;
/// The most elements of a window.
const WINDOW: i64 = 121;
/// Lanes of vectors that are read or written one lane at a time.
const APART: i64 = 8;
/// Lanes of a register of the widest vectors.
const VECTOR: i64 = 16;
/// Registers of sums that a tile needs to hide how long an addition takes.
const CHAINS: i64 = 4;
/// Cycles of an addition, until its result is there.
const ADDITION: i64 = 4;
/// Cycles of the sum of a register's lanes.
const LANES_SUM: i64 = 8;
/// Products of a sum from which on it has several registers of its own.
const LONG_SUM: i64 = 512;
/// Rows up to this length are summed by the narrowest vectors, where little else is done: to sum up lanes takes longer than to load them.
const SHORT_SUM: i64 = 24;
/// Instructions that are little.
const LITTLE: usize = 14;
/// Points of a chunk, when a single long dimension is cut for the parallel loop.
const CHUNK: i64 = 4096;
/// From so many points on, a reduction decides how many lanes its kernel has.
const LONG: i64 = 8;
/// Up to this many parts of a kernel are kernels of their own; of more, those that only copy rows are steps, which cost no
/// code.
const FEW_PARTS: usize = 16;
/// How many times higher the tiles of a tree are whose right operands come from memory.
const STREAMED: i64 = 4;
/// Tiles that read the same panel up to which they fetch the next one meanwhile. Of ten, each of 768 steps, the first one would wait for
/// as long as another one takes; of many that is little, and to fetch takes one in a hundred of the cycles.
const AHEAD: i64 = 64;
/// Cycles of a stage in a loop from which on workers that are awake share it: to fork and to join takes some hundreds.
const SHARED: i64 = 3000;
/// Columns of a right operand in place that a stage of a tree sums side by side: several registers, so that none waits for its last sum.
const COLUMNS: i64 = 64;
/// Bytes of a row that a vector loop copies better.
const SHORT_ROW: i64 = 64;

/// Threads of a GPU block that computes points.
const POINT_THREADS: i64 = 256;
/// Threads of a GPU block that computes rows.
const ROW_THREADS: i64 = 128;
/// The tile of contractions that fill the GPU with it: 64 × 64, 4 × 4 a thread.
const LARGE: GpuTile = GpuTile {
    left: 0,
    rows: 64,
    columns: 64,
    depth: 16,
    row_threads: 16,
    column_threads: 16,
};
/// The tile of the others.
const SMALL: GpuTile = GpuTile {
    rows: 32,
    columns: 32,
    row_threads: 8,
    ..LARGE
};

/// A legal schedule for a kernel of a lowered program.
pub fn choose(kernel: &structured::Kernel, machine: &Machine) -> Schedule {
    choose_flat(kernel, &Flat::new(kernel), machine)
}

/// [`choose`] for a kernel whose flat form is known.
pub fn choose_flat(kernel: &structured::Kernel, flat: &Flat, machine: &Machine) -> Schedule {
    let Machine::Cpu(target) = machine else {
        return of_parts(flat, machine, true);
    };
    if needs_tree(flat) {
        let tiled = if flat.has_loops() { tile(flat, target) } else { None };
        return tiled.unwrap_or_else(|| tree(flat, target));
    }
    if tile(flat, target).is_none()
        && let Some(plain) = stretch::plain(kernel, flat)
    {
        return Schedule::Versions(Box::new([
            of_parts(&plain.flat, machine, false),
            of_parts(flat, machine, false),
        ]));
    }
    of_parts(flat, machine, true)
}

/// The schedule of a kernel, part by part where it splits; some of many parts may be copies.
fn of_parts(flat: &Flat, machine: &Machine, copies: bool) -> Schedule {
    if !parts::splits(flat) {
        return part(&parts::whole(flat), machine, false);
    }
    let all = parts::split(flat);
    let many = copies && all.len() > FEW_PARTS;
    Schedule::Split(all.iter().map(|p| part(p, machine, many)).collect())
}

/// The schedule of a kernel, or of one of many stages of one.
fn part(part: &Part, machine: &Machine, many: bool) -> Schedule {
    let flat = &part.flat;
    let scatters = flat.stages.iter().any(|s| s.scatter);
    match machine {
        Machine::Cpu(target) if scatters => Schedule::InOrder(InOrder {
            knobs: knobs::defaults(target, Family::Points),
        }),
        Machine::Cpu(target) => None
            .or_else(|| tile(flat, target))
            .or_else(|| many.then(|| copy(flat))?)
            .unwrap_or_else(|| vectors(flat, target)),
        Machine::Gpu(_) if scatters => Schedule::GpuInOrder(GpuInOrder),
        Machine::Gpu(gpu) => gpu_tile(flat, gpu).unwrap_or_else(|| threads(flat, gpu)),
    }
}

/// Register tiles, when the kernel is a contraction that they can do.
fn tile(flat: &Flat, target: &CpuTarget) -> Option<Schedule> {
    let both = [0, 1]
        .into_iter()
        .filter_map(|left| Some((left, Tiling::best(flat, left, target.tile).ok()?)));
    // Best is the orientation whose columns are contiguous in the result, then the one with more columns.
    let (left, t) = both.max_by_key(|(_, t)| (t.writes_columns(), t.columns().as_const().unwrap_or(64)))?;
    // Half of L2 for the right operand, the rest for what streams by.
    let half = (target.l2_bytes / 2) as i64;
    let stays = t.panel_bytes().as_const().is_some_and(|b| b <= half);
    let columns = t.columns().as_const().map_or(PANEL, |n| n.clamp(1, PANEL)) as u32;
    // Few sums of elements that lie side by side are better summed in many parts each: a tile waits for each addition, and a sum by
    // itself ends with the sum of its lanes.
    let vectors = &t.rows() * &t.columns().ceil_div(&Dim::Const(VECTOR));
    let few = vectors.as_const().is_some_and(|n| n < CHAINS);
    let mut sums = flat.stages.iter().filter(|s| s.reduces());
    let steps = sums.clone().filter_map(|s| s.length().as_const()).max().unwrap_or(0);
    // What follows the sums is computed for one element at a time then.
    let behind = flat
        .stages
        .iter()
        .filter(|s| !s.reduces())
        .map(|s| s.body.usual() as i64);
    let each = steps / (2 * VECTOR) + LANES_SUM + behind.sum::<i64>();
    let apart = flat.points().as_const().map(|n| n * each);
    if few
        && !t.kind().has_scales()
        && apart.is_some_and(|n| n < ADDITION * steps)
        && sums.all(FlatStage::reads_contiguously)
    {
        return None;
    }
    let rows = i64::from(target.tile.shape(t.kind(), columns).rows);
    let resident = if stays { 0 } else { t.resident(rows, target.l2_bytes) };
    Some(Schedule::Tile(Tile {
        left,
        rows,
        order: if stays { Order::Panel } else { Order::Row },
        resident,
        lanes: lanes(t.epilogue_size(), target).max(8),
        direct: t.can_write(),
        ahead: !stays
            && !t.in_blocks()
            && t.rereads(rows, resident)
                .as_const()
                .is_none_or(|n| (2..=AHEAD).contains(&n)),
        pairs: t.kind() == TileKind::Bf16Pairs,
        knobs: knobs::defaults(target, Family::Points),
    }))
}

/// True for kernels that run in order: those with loops, with several results of a reduction at one point, or with domains that
/// are cut short.
fn needs_tree(flat: &Flat) -> bool {
    let in_order = |s: &FlatStage| s.reduces() && !s.scan && has_row(s) || !s.guard.is_empty();
    flat.has_loops() || flat.stages.iter().any(in_order)
}

/// The kernel's own tree, with tiles wherever they can be: of as many rows as registers hold, or some times that, where every right
/// operand is the same for all points along the innermost outer dimension.
fn tree(flat: &Flat, target: &CpuTarget) -> Schedule {
    let with = |rows: i64| {
        let on_tiles = |i: usize| tree::tiles(flat, rows, i);
        let way = |(i, s): (usize, &FlatStage)| match on_tiles(i) {
            true => Way::Tile,
            false => Way::Lanes(fitting(width([s].into_iter(), target), [s].into_iter())),
        };
        Tree {
            rows,
            stages: flat.stages.iter().enumerate().map(way).collect(),
            knobs: knobs::defaults(target, Family::Points),
        }
    };
    let tiles = |t: &Tree| t.stages.iter().filter(|w| **w == Way::Tile).count();
    // A single group would leave all but one worker idle.
    let shared = |mut t: Tree| {
        for (i, way) in t.stages.iter_mut().enumerate() {
            let alone = tree::groups(flat, t.rows) == Some(1);
            if alone && *way == Way::Tile && tree::worth_sharing(flat, t.rows, i, SHARED) {
                *way = Way::Shared;
            }
        }
        Schedule::Tree(t)
    };
    // In runs of few points, right operands that each run would pack are read where they lie.
    let few = |many: &Tree| {
        let on_tiles: Vec<usize> = (0..many.stages.len())
            .filter(|&i| many.stages[i] == Way::Tile)
            .collect();
        let fits = target.has_fma
            && !flat.has_loops()
            && !on_tiles.is_empty()
            && tree::many(flat, many.rows).is_ok()
            && on_tiles.iter().all(|&i| tree::in_place(flat, many.rows, i));
        fits.then(|| {
            let mut few = Tree {
                rows: 1,
                ..many.clone()
            };
            on_tiles.iter().for_each(|&i| few.stages[i] = Way::Columns(COLUMNS));
            Schedule::Tree(few)
        })
    };
    let alone = with(1);
    if flat.outer.is_empty() || tiles(&alone) == 0 {
        return shared(alone);
    }
    let height = i64::from(target.tile.shape(TileKind::F32, PANEL as u32).rows);
    let rows = with(if streams(flat, target) {
        STREAMED * height
    } else {
        height
    });
    let many = if tiles(&rows) == tiles(&alone) { rows } else { alone };
    match few(&many).filter(|_| many.rows > 1) {
        Some(few) => Schedule::Versions(Box::new([few, Schedule::Tree(many)])),
        None => shared(many),
    }
}

/// True where a stage that sums products reads more for one point than stays in L2: from memory for every group of points.
fn streams(flat: &Flat, target: &CpuTarget) -> bool {
    let sums = flat.stages.iter().filter(|s| s.reduces() && has_row(s));
    sums.into_iter().any(|s| {
        let bytes = |r: &FlatRead| match r {
            FlatRead::Element { target, index, .. } => {
                let moves = s.dims.iter().filter(|(v, _)| index.uses(*v)).map(|(_, d)| &d.extent);
                let buffer = target.buffer().map(|b| flat.buffers[b.0 as usize].dtype.bytes() as i64);
                Some(&brolga_ir::dim::product(moves) * buffer?)
            }
            _ => None,
        };
        let all = s.reads.iter().filter_map(bytes);
        all.filter_map(|b| b.as_const()).any(|b| b > target.l2_bytes as i64)
    })
}

fn copy(flat: &Flat) -> Option<Schedule> {
    let (_, _, rows) = parts::as_copy(flat, grain::DEFAULT)?;
    let short = !rows.count.is(1) && rows.bytes.as_const().is_some_and(|n| n < SHORT_ROW);
    (!short).then_some(Schedule::Copy(Copy { grain: grain::DEFAULT }))
}

/// Vectors of points or of rows.
fn vectors(flat: &Flat, target: &CpuTarget) -> Schedule {
    let keeps = flat.locals.iter().any(|l| !l.shape.is_empty());
    let columns = columns(flat);
    let along = columns.or_else(|| vector_dim(flat));
    let rows = keeps || flat.stages.iter().any(has_row) || {
        // Reductions along contiguous data: lanes along the reduction, unless an outer dimension is contiguous too.
        let reduces = flat.stages.iter().any(|s| s.reduces() && !s.scan);
        reduces
            && columns.is_none()
            && along.is_none_or(|i| !contiguous_reads(flat, flat.outer[i].0))
            && flat.stages.iter().all(FlatStage::reads_contiguously)
    };
    if rows && flat.stages.iter().all(|s| !s.scan) {
        return Schedule::Rows(Rows {
            lanes: fitting(width(flat.stages.iter(), target), flat.stages.iter()),
            outside: tasks(flat, flat.outer.iter().map(|(_, d)| d)) as i64,
            inline: vec![],
            knobs: knobs::defaults(target, Family::Rows),
        });
    }
    let Some(along) = along else {
        return Schedule::Points(Points {
            along: 0,
            lanes: 1,
            outside: 0,
            chunk: 0,
            across: 0,
            inline: vec![],
            knobs: knobs::defaults(target, Family::Points),
        });
    };
    let extent = &flat.outer[along].1;
    // What follows a long reduction runs once where that runs often.
    let often = |s: &FlatStage| s.reduces() && s.length().as_const().is_none_or(|n| n >= LONG);
    let reduces = flat.stages.iter().any(often);
    // Lanes that are apart are loaded one by one, as for narrow vectors.
    let narrow = CpuTarget {
        tile: TileFamily::Generic,
        ..target.clone()
    };
    let close = contiguous_reads(flat, flat.outer[along].0);
    let loads = if close { target } else { &narrow };
    let bytes = flat.stages.iter().any(|s| sums_bytes(s, flat.outer[along].0));
    let width = match loads.body_lanes() {
        Some(lanes) if bytes => BYTES_A_LANE * i64::from(lanes),
        _ => width(flat.stages.iter().filter(|s| !reduces || often(s)), loads),
    };
    let apart = !reduces && !beside(flat, flat.outer[along].0);
    // What only fills memory has nothing else in registers.
    let fills = flat.stages.iter().all(|s| s.reads.is_empty() && !s.reduces());
    let width = match apart {
        true if !long_and_near(flat, along) => width.min(APART),
        _ if fills => 2 * width,
        _ => width,
    };
    // A sum waits for each addition, so there are two of them where points are enough. Of windows there are several anyway, but two
    // registers side by side are read a line after the other.
    let windowed = flat.stages.iter().any(is_window);
    let register = target.body_lanes().map(i64::from) == Some(width);
    let waits = columns.is_none() && (reduces && !windowed || windowed && register);
    let words = || flat.stages.iter().flat_map(|s| &s.body.inputs).all(|d| d.bytes() == 4);
    let width = match extent.as_const() {
        Some(n) if waits && close && n >= 2 * width && words() => 2 * width,
        _ => width,
    };
    // Lanes beyond the extent would leave all of it to the tail.
    let lanes = match extent.as_const() {
        Some(n @ 4..) => width.min(1 << n.ilog2()),
        _ => width,
    };
    let rest = || {
        let others = flat.outer.iter().enumerate().filter(|(i, _)| *i != along);
        others.map(|(_, (_, d))| d)
    };
    let known = brolga_ir::dim::product(rest()).as_const();
    let long = extent.as_const().is_none_or(|n| n > CHUNK);
    // One long dimension is cut into chunks when there is nothing else to run in parallel.
    let cut = long && known.is_some_and(|n| n < TASKS);
    let others = flat.outer.len() as i64 - 1;
    let outside = tasks(flat, rest()) as i64;
    // Windows had better be computed several at once, where that leaves some tasks; and so had what is read or written lane by lane.
    let most: Vec<&Dim> = rest().take((others - 1).max(0) as usize).collect();
    let left = brolga_ir::dim::product(most.iter().copied()).as_const();
    let enough = outside == 0 || columns.is_some() || left.is_none_or(|n| n >= FEW_TASKS);
    let several = apart || fills || columns.is_some() || windowed;
    let windows = others > 0 && enough && target.body_lanes().is_some() && lanes > 1 && several;
    Schedule::Points(Points {
        along: along as i64,
        lanes,
        outside: if windows { outside.min(others - 1) } else { outside },
        chunk: if cut { CHUNK } else { 0 },
        across: if windows { across(flat, along, target) } else { 0 },
        inline: vec![],
        knobs: knobs::defaults(target, Family::Points),
    })
}

/// How many points side by side: fewer of windows of what is far away, which the CPU fetches ahead in few places at once.
fn across(flat: &Flat, along: usize, target: &CpuTarget) -> i64 {
    let next = flat.outer.iter().enumerate().rev().find(|(i, _)| *i != along);
    let Some((_, (v, _))) = next else { return ACROSS };
    let far = |b: Buf| {
        let buffer = &flat.buffers[b.0 as usize];
        let bytes = &buffer.len * buffer.dtype.bytes() as i64;
        bytes.as_const().is_some_and(|n| n > target.l2_bytes as i64)
    };
    let mut reads = vec![];
    for s in flat.stages.iter().filter(|s| is_window(s)) {
        reads.extend(s.reads.iter().filter_map(|r| match r {
            FlatRead::Element {
                target: Target::Buffer(b),
                index,
                ..
            } if far(*b) => Some((s, index)),
            _ => None,
        }));
    }
    // One point is as good as none beside it; where that is too many already, nothing is gained.
    let fits = |points: &i64| {
        reads
            .iter()
            .all(|(s, index)| places(s, index, (*v, (*points).max(1))) <= STREAMS)
    };
    [ACROSS, ACROSS / 2, 0].into_iter().find(fits).unwrap_or(ACROSS)
}

/// How many places a window reads for so many points along a variable.
fn places(s: &FlatStage, index: &Ix, (v, points): (Var, i64)) -> usize {
    let window = s.dims.iter().map(|(u, d)| (*u, d.extent.as_const().unwrap_or(1)));
    let mut all = vec![0];
    for (u, n) in window.chain([(v, points)]) {
        let step = index.stride(u).and_then(|d| d.as_const()).unwrap_or(0);
        all = (0..n).flat_map(|i| all.iter().map(move |at| at + i * step)).collect();
    }
    all.sort_unstable();
    all.dedup();
    all.len()
}

/// True for reductions over a few elements, each of which many points read.
fn is_window(s: &FlatStage) -> bool {
    s.reduces() && !s.scan && s.length().as_const().is_some_and(|n| (2..=WINDOW).contains(&n))
}

/// True for windows of products of bytes that lie side by side along `v`.
fn sums_bytes(s: &FlatStage, v: Var) -> bool {
    let beside = |r: &FlatRead| match r {
        FlatRead::Element { index, .. } => stride_is_one(index, v),
        _ => false,
    };
    is_window(s)
        && matches!(s.body.inputs[..], [DType::U8, DType::I8] | [DType::I8, DType::U8])
        && s.body.output_dtypes() == [DType::I32]
        && s.reads.iter().all(beside)
}

/// True for stages with a row of results.
fn has_row(s: &FlatStage) -> bool {
    s.dims.iter().any(|(_, d)| d.kind == IterKind::Parallel)
}

/// The outer dimension of the columns of a product that no tile computes, where that is better than any other: of small numbers, whose
/// rows are short, or where the result has no other dimension that fills a vector.
fn columns(flat: &Flat) -> Option<usize> {
    /// Elements of a row that fill a few vectors.
    const ROW: i64 = 128;
    let both = [0, 1].into_iter().filter_map(|left| Contraction::of(flat, left).ok());
    // The weights are read without bounds.
    let c = both
        .into_iter()
        .find(|c| c.right.guard.is_empty() && !c.that(&[Moves::Right]).is_empty())?;
    let wide = |(_, d): &&(Var, Dim)| d.as_const().is_some_and(|n| n >= VECTOR);
    let columns = c.that(&[Moves::Right]);
    let (v, _) = columns.iter().filter(wide).max_by_key(|(_, d)| d.as_const())?;
    let at = flat.outer.iter().position(|(o, _)| o == v)?;
    let small = c.dtypes[..2].iter().all(|d| d.bytes() < 4);
    let short = c
        .steps
        .last()
        .is_some_and(|(_, d)| d.as_const().is_some_and(|n| n < ROW));
    let narrow = vector_dim(flat).is_some_and(|i| flat.outer[i].1.as_const().is_some_and(|n| n < APART));
    let across = vector_dim(flat).is_some_and(|i| contiguous_reads(flat, flat.outer[i].0));
    (narrow || small && short && !across).then_some(at)
}

/// True where lanes along `v` read elements that data tell.
fn gathers(s: &FlatStage, v: Var) -> bool {
    let mut moved: Vec<bool> = vec![];
    let mut found = false;
    for r in &s.reads {
        let by = |index: &Ix, from_data: &mut bool| {
            index.for_each_reg(&mut |r| *from_data |= moved.get(r.0 as usize).copied().unwrap_or(false));
            index.uses(v)
        };
        let mut data = false;
        let moves = match r {
            FlatRead::Element { index, .. } => {
                let moves = by(index, &mut data);
                found |= data;
                moves
            }
            FlatRead::Index(index) => by(index, &mut data),
            FlatRead::InBounds(bounds) => bounds.iter().any(|b| by(&b.index, &mut data)),
            FlatRead::Computed(_, args) => args.iter().any(|a| moved[*a as usize]),
        };
        moved.push(moves || data);
    }
    found
}

/// The outer dimension along which the result is contiguous; the last one when there is none. One that fills no vector gives way to
/// another along which everything that is read is contiguous, or the same; one along which data tell what is read to another one along
/// which they do not.
fn vector_dim(flat: &Flat) -> Option<usize> {
    let write = flat.stages.last().and_then(|s| s.writes.first()).map(|w| &w.1)?;
    let found = flat.outer.iter().rposition(|(v, _)| stride_is_one(write, *v));
    let found = found.or(flat.outer.len().checked_sub(1))?;
    let fills = |i: usize| flat.outer[i].1.as_const().is_none_or(|n| n >= FEWEST_LANES);
    let gathered = |i: usize| flat.stages.iter().any(|s| gathers(s, flat.outer[i].0));
    if gathered(found)
        && let Some(other) = (0..flat.outer.len()).rfind(|&i| fills(i) && !gathered(i))
    {
        return Some(other);
    }
    if fills(found) {
        return Some(found);
    }
    let reads = || flat.stages.iter().flat_map(|s| &s.reads);
    let close = |v: Var| {
        reads().all(|r| match r {
            FlatRead::Element { index, .. } => index.stride(v).is_some_and(|d| d.is(1) || d.is(0)),
            _ => true,
        })
    };
    let other = (0..flat.outer.len()).rfind(|&i| fills(i) && !gathered(i) && close(flat.outer[i].0));
    Some(other.unwrap_or(found))
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

/// True when elements that lanes along `v` read and write lie side by side, or are the same.
fn beside(flat: &Flat, v: Var) -> bool {
    let near = |index: &Ix| {
        index
            .stride(v)
            .is_some_and(|d| d.is(1) || d.is(0) || d.is_broadcast_step())
    };
    flat.stages.iter().all(|s| {
        let reads = s.reads.iter().all(|r| match r {
            FlatRead::Element { index, .. } => near(index),
            _ => true,
        });
        reads && s.writes.iter().all(|(_, index)| near(index))
    })
}

/// True for a long dimension along which elements lie so near that several lanes are in one line: wide vectors of them pay.
fn long_and_near(flat: &Flat, along: usize) -> bool {
    let (v, extent) = &flat.outer[along];
    let near = |index: &Ix| {
        index
            .stride(*v)
            .and_then(|d| d.as_const())
            .is_some_and(|n| (0..=4).contains(&n))
    };
    let mut writes = flat.stages.iter().flat_map(|s| &s.writes);
    let mut reads = flat.stages.iter().flat_map(|s| &s.reads);
    let reads_near = reads.all(|r| match r {
        FlatRead::Element { index, .. } => near(index),
        _ => true,
    });
    extent.as_const().is_some_and(|n| n >= 64) && reads_near && writes.all(|(_, index)| near(index))
}

/// Lanes for a kernel: fewer the larger the bodies of stages, so that values stay in registers.
fn width<'s>(stages: impl Iterator<Item = &'s FlatStage>, target: &CpuTarget) -> i64 {
    let sizes = stages.map(|s| s.body.usual() + s.reads.len());
    lanes(sizes.max().unwrap_or(0), target)
}

/// Lanes for rows: as many as that, or a half or a quarter where fewer vectors and lone elements of the stages' rows are left; twice as
/// many for long sums alone.
fn fitting<'s>(most: i64, stages: impl Iterator<Item = &'s FlatStage>) -> i64 {
    let stages: Vec<&FlatStage> = stages.filter(|s| !s.dims.is_empty()).collect();
    let length = |s: &&FlatStage| s.dims.last().and_then(|(_, d)| d.extent.as_const());
    let rows: Vec<i64> = stages.iter().filter_map(length).collect();
    let sums = || stages.iter().filter(|s| s.reduces() && !has_row(s));
    if sums().count() == stages.len() && rows.iter().all(|n| *n >= LONG_SUM) && !rows.is_empty() {
        return 2 * most;
    }
    let little = stages.iter().all(|s| s.body.usual() <= LITTLE);
    if sums().next().is_some() && little && rows.len() == stages.len() && rows.iter().all(|n| *n <= SHORT_SUM) {
        return FEWEST_LANES;
    }
    let steps = |lanes: &i64| rows.iter().map(|n| n / lanes + n % lanes).sum::<i64>();
    let widths = [most, most / 2, most / 4].into_iter().filter(|w| *w >= FEWEST_LANES);
    widths.min_by_key(steps).unwrap_or(most)
}

/// Lanes for a body of so many instructions and reads: those of a register where it is as wide as the CPU has them, several
/// registers of 128 bits else.
fn lanes(size: usize, target: &CpuTarget) -> i64 {
    match (target.body_lanes(), size) {
        (Some(16), _) | (_, 0..=10) => 16,
        (Some(_), _) => 8,
        (None, 11..=48) => 8,
        (None, _) => 4,
    }
}

/// How many dimensions, from the outermost, make enough tasks: none where workers would not be woken for all of it.
fn tasks<'d>(flat: &Flat, dims: impl Iterator<Item = &'d Dim>) -> usize {
    /// What an extent that is not known counts as.
    const UNKNOWN: i64 = 16;
    let enough = match cycles(flat) {
        Some(n) if n <= grain::DEFAULT / 2 => return 0,
        Some(n) => (n / TASK).clamp(FEW_TASKS, TASKS),
        None => TASKS,
    };
    let (mut n, mut taken) = (1i64, 0);
    for d in dims {
        n = n.saturating_mul(d.as_const().unwrap_or(UNKNOWN));
        taken += 1;
        if n >= enough {
            break;
        }
    }
    taken
}

/// About how many cycles a kernel takes, as [`grain`] counts them: an instruction on four lanes is one. `None` where sizes are not known.
fn cycles(flat: &Flat) -> Option<i64> {
    let points = flat.points();
    let stage = |s: &FlatStage| {
        let each = (s.body.usual() + s.reads.len() + 1) as i64;
        (&(&points * &s.length()) * each).as_const()
    };
    let all: Option<Vec<i64>> = flat.stages.iter().map(stage).collect();
    Some(all?.iter().fold(0i64, |sum, n| sum.saturating_add(*n)) / 4)
}

/// Block tiles, when the kernel is a contraction that they can do: large ones where enough of them keep the GPU busy.
fn gpu_tile(flat: &Flat, gpu: &Gpu) -> Option<Schedule> {
    let both = [0, 1]
        .into_iter()
        .filter_map(|left| Some((left, Blocks::of(flat, left).ok()?)));
    // Threads side by side had better write side by side; else more columns than rows.
    let (left, b) = both.max_by_key(|(_, b)| {
        let [_, columns, _] = b.extents();
        (b.writes_columns(), columns.as_const().unwrap_or(i64::MAX))
    })?;
    let [rows, columns, batch] = b.extents();
    let narrow = |d: &Dim, n: i64| d.as_const().is_some_and(|d| d <= n);
    let across = |d: &Dim, n: i64| d.ceil_div(&Dim::Const(n));
    let blocks = &(&across(&rows, LARGE.rows) * &across(&columns, LARGE.columns)) * &batch;
    let few = blocks.as_const().is_some_and(|b| b < gpu.blocks);
    let tile = if few || narrow(&rows, SMALL.rows) || narrow(&columns, SMALL.columns) {
        SMALL
    } else {
        LARGE
    };
    Some(Schedule::GpuTile(GpuTile { left, ..tile }))
}

/// A thread a point, or a team of them a row.
fn threads(flat: &Flat, gpu: &Gpu) -> Schedule {
    if !row_shaped(flat, gpu) {
        return Schedule::GpuPoints(GpuPoints {
            threads: POINT_THREADS,
            inline: vec![],
        });
    }
    let inline = recomputed(flat, gpu);
    let makers: Vec<usize> = inline.iter().filter_map(|&l| inline::maker(flat, l).ok()).collect();
    let mut left = flat.stages.iter().enumerate().filter(|(i, _)| !makers.contains(i));
    let short = left.all(|(_, s)| s.length().as_const().is_some_and(|n| n <= 32));
    let lanes = if short { ROW_THREADS.min(32) } else { ROW_THREADS };
    let mut slots = ROW_THREADS / lanes;
    while slots > 1 && flat.points().exact_div(&Dim::Const(slots)).is_none() {
        slots /= 2;
    }
    Schedule::GpuRows(GpuRows { lanes, slots, inline })
}

/// True for kernels whose threads had better share a row: those that keep rows, and those that reduce long ones that lie
/// contiguously or are too few to give every thread one.
fn row_shaped(flat: &Flat, gpu: &Gpu) -> bool {
    if flat.stages.iter().any(|s| s.scan) {
        return false;
    }
    let keeps = flat.locals.iter().any(|l| !l.shape.is_empty());
    if keeps || flat.stages.iter().any(has_row) {
        return true;
    }
    let few = flat.points().as_const().is_some_and(|n| n < gpu.blocks * POINT_THREADS);
    flat.stages.iter().any(|s| {
        let free = s.combine.as_ref().is_some_and(|c| c.free);
        let long = s.length().as_const().is_none_or(|n| n >= 64);
        s.reduces() && free && long && (few || s.reads_contiguously())
    })
}

/// Kept rows that do not fit into shared memory are computed again wherever they are read.
fn recomputed(flat: &Flat, gpu: &Gpu) -> Vec<u32> {
    let mut left = gpu.shared_bytes;
    let mut out = vec![];
    for (i, l) in (0..).zip(&flat.locals).filter(|(_, l)| !l.shape.is_empty()) {
        match (&local_len(l) * l.dtype.bytes() as i64).as_const() {
            Some(n) if n <= left => left -= n,
            _ if inline::maker(flat, i).is_ok() => out.push(i),
            _ => {}
        }
    }
    out
}
