//! Trees: the kernel's own tree of loops and stages, for a group of points at a time. The points of a group are consecutive
//! along the innermost outer dimension, or along several where tiles see none of them; they are the rows of the tiles of stages
//! that sum products. Groups run in parallel, the loops of the tree in order inside them, and locals live in scratch memory, one
//! tile for each point of the group. Where workers share the tiles of a stage, the groups come in order too, and locals are the
//! kernel's. An iteration of a loop that no point of the group needs is left out.
//!
//! ```text
//! outer(n) { local l0: f32[64]  loop(T) { stage parallel(256) reduce(64) { … l1 } stage parallel(64) { … l0 } } }
//! -->
//! parallel (g in ceil(n / 14)) {
//!   for t in 0..T {
//!     for panel in 0..8 { tile l1[rows × 32] = Σ l0[…] · panel }
//!     for r in rows { for j in 64 / 8 { vector 8 { … } } }
//!   }
//! }
//! ```

use super::super::flat::{Flat, FlatStage, Node, local_len, look_up};
use super::super::nest::{Home, Nest, Point, collapse, unfold};
use super::super::packing::Packing;
use super::super::point;
use super::points::MAX_LANES;
use super::product::Product;
use super::rows::{cuts, row_stage};
use super::tile::{MAX_ROWS, balanced};
use super::{lanes, parallel};
use brolga_ir::dim::product as product_of;
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::loops::{Buf, Kernel, Scope, Stmt};
use brolga_ir::program::Storage;
use brolga_ir::schedule::{Tree, Way};
use brolga_ir::structured::{IterDim, IterKind, Local};
use brolga_ir::{DType, Dim};

/// Points that read a right operand in place: to pack it takes as long as some of them do, and writes as much memory as it reads, or more.
const FEW: i64 = 2;

/// The points that go through the tree together, at a point of its loops.
pub struct Group<'a> {
    /// The dimensions along which they lie, in row-major order; none for a single point.
    pub along: Dims<'a>,
    /// Where among all points along those the first of them is.
    pub first: Ix,
    /// How many there are here.
    pub rows: Ix,
    /// The most that there are anywhere.
    pub most: i64,
    /// What other variables are.
    pub at: &'a Point<'a>,
}

impl Group<'_> {
    /// What a variable is at a point of the group.
    pub fn coordinate(&self, point: &Ix, v: Var) -> Ix {
        match self.along.iter().any(|(u, _)| *u == v) {
            true => look_up(&unfold(self.along, &self.first + point), v),
            false => (self.at)(v),
        }
    }

    /// What holds wherever a bound holds at any point of the group; nothing where that cannot be told.
    fn ever(&self, b: &Bound) -> Option<Bound> {
        let stride = match self.along {
            [(row, _)] => b.index.stride(*row)?,
            along if along.iter().any(|(v, _)| b.index.uses(*v)) => return None,
            _ => Dim::ZERO,
        };
        // The last point is the farthest, by no more than that.
        let last = &self.rows + &Ix::constant(-1);
        stride.is_nonnegative().then(|| Bound {
            index: b.index.substitute(&|v| self.coordinate(&last, v), &Ix::reg),
            extent: &b.extent + &(&stride * (self.most - 1)),
        })
    }

    /// How far an index moves from one point to the next.
    pub fn stride(&self, index: &Ix) -> Dim {
        match self.along {
            [(row, _)] => index.stride(*row).unwrap_or(Dim::ZERO),
            _ => Dim::ZERO,
        }
    }
}

/// The elements from one point's tile of a local to the next one's: an odd number of cache lines, so that tiles whose sizes are
/// powers of 2 do not fall on one set of the cache.
pub fn tile_stride(l: &Local) -> Dim {
    let line = 64 / l.dtype.bytes() as i64;
    match local_len(l).as_const() {
        Some(n) if n > line => Dim::Const((((n + line - 1) / line) | 1) * line),
        _ => local_len(l),
    }
}

/// The innermost outer dimensions along which points can be rows together: the last one, and those that no tile sees.
fn together(flat: &Flat) -> usize {
    let seen = |v: Var| {
        let sums = flat.stages.iter().filter(|s| s.reduces());
        sums.into_iter().any(|s| {
            let mut uses = false;
            s.clone().each_index(&mut |ix, _| uses |= ix.uses(v));
            uses
        })
    };
    let unseen = flat.outer.iter().rev().take_while(|(v, _)| !seen(*v)).count();
    unseen.max(1).min(flat.outer.len())
}

/// Dimensions with their variables.
type Dims<'f> = &'f [(Var, Dim)];

/// The outer dimensions of the parallel loop, and those of a group of so many points.
fn split(flat: &Flat, rows: i64) -> (Dims<'_>, Dims<'_>) {
    let inside = if rows > 1 { together(flat) } else { 0 };
    flat.outer.split_at(flat.outer.len() - inside)
}

/// The kernel, and which of its parameters are panels of what. Where `runs` is 0, which a version's is in runs of the other, there are none.
///
/// # Errors
/// Why the schedule does not fit the kernel.
pub fn kernel(flat: &Flat, s: &Tree, runs: Option<&Dim>) -> Result<(Kernel, Vec<(Buf, Packing)>), String> {
    if s.stages.len() != flat.stages.len() {
        let (found, want) = (s.stages.len(), flat.stages.len());
        return Err(format!("stages of {found} ways, but the kernel has {want} stages"));
    }
    if flat.stages.iter().any(|s| s.scatter) {
        return Err("a scatter visits its points in order, in a kernel of its own".into());
    }
    if !(1..=MAX_ROWS).contains(&s.rows) {
        return Err(format!("rows={}, expected 1 to {MAX_ROWS}", s.rows));
    }
    if s.rows > 1 && flat.outer.is_empty() {
        return Err(format!("rows={}, but there is a single point", s.rows));
    }
    flat.stages.iter().try_for_each(|s| cuts(s).map(drop))?;
    let (around, along) = split(flat, s.rows);
    let ways = ways(flat, s, around, along)?;
    let mut packed = packed(flat, &ways)?;
    if let Some(runs) = runs {
        for (_, packing) in &mut packed {
            let batch = packing
                .batch
                .first_mut()
                .ok_or("a version whose panels are no batches")?;
            batch.0 = &batch.0 * runs;
        }
    }
    let mut nest = Nest::new(flat);
    let points = product_of(along.iter().map(|(_, n)| n));
    let height = balanced(&points, s.rows);
    let most = height.as_const().unwrap_or(s.rows);
    let block = (!along.is_empty()).then(|| nest.var());
    let mut dims = around.to_vec();
    dims.extend(block.map(|b| (b, points.ceil_div(&height))));
    let shared = s.stages.contains(&Way::Shared);
    let p = nest.var();
    let (total, map) = collapse(&dims, p);
    let first = block.map_or(Ix::constant(0), |b| look_up(&map, b).scale(&height));
    let rows = match points.modulo(&height).is(0) {
        true => Ix::constant(height),
        false => (&first.scale(&Dim::Const(-1)) + &points).at_most(&height),
    };
    for (i, l) in flat.locals.iter().enumerate() {
        if flat.is_written(i) {
            let scope = if shared { Scope::Kernel } else { Scope::Worker };
            let b = nest.scratch(l.dtype, &tile_stride(l) * most, scope);
            nest.homes[i] = Some(Home::Buffer(b, Ix::constant(0)));
        }
    }
    let at = |u: Var| look_up(&map, u);
    let mut body = vec![];
    let group = Group {
        along,
        first,
        rows,
        most,
        at: &at,
    };
    match &flat.tree[..] {
        [] => (0..flat.stages.len()).for_each(|i| stage(&mut nest, &mut body, &ways, i, &group)),
        tree => nodes(&mut nest, &mut body, &ways, tree, &group),
    }
    // Panels are as many as are packed.
    for (b, packing) in packed.iter().filter(|_| runs.is_some()) {
        nest.kernel.buffers[b.0 as usize].len = packing.slot(DType::F32, Storage::Computed).elements();
    }
    nest.kernel.body = match shared {
        true => Nest::serial(&[(p, total)], body),
        false => vec![parallel(p, total, body)],
    };
    Ok((nest.kernel, packed))
}

/// True where tiles can do a stage, in a tree for so many points together.
pub fn tiles(flat: &Flat, rows: i64, stage: usize) -> bool {
    let (dims, along) = split(flat, rows);
    product(flat, stage, dims, along).is_ok_and(|p| packed(flat, &[Found::Tiles(Box::new(p), false)]).is_ok())
}

/// 1 where a run has more points to be rows of tiles than are worth packing right operands for, else 0.
///
/// # Errors
/// Where there are as many in every run.
pub fn many(flat: &Flat, rows: i64) -> Result<Dim, String> {
    let (_, along) = split(flat, rows);
    let points = product_of(along.iter().map(|(_, n)| n));
    match points.as_const() {
        Some(_) => Err("versions: a tree has as many points in every run".into()),
        None => Ok(Dim::min(&Dim::ONE, &points.floor_div(&Dim::Const(FEW + 1)))),
    }
}

/// True where a stage on tiles, in a tree for so many points together, has panels that each run packs for every batch, and can read what they
/// are packed of in place as well.
pub fn in_place(flat: &Flat, rows: i64, stage: usize) -> bool {
    let (dims, along) = split(flat, rows);
    let fits = |p: Product| p.has_batches() && p.can_be_read_in_place().is_ok();
    product(flat, stage, dims, along).is_ok_and(fits)
}

/// The groups of so many points that there are, where that is known.
pub fn groups(flat: &Flat, rows: i64) -> Option<i64> {
    let (around, along) = split(flat, rows);
    let points = product_of(along.iter().map(|(_, n)| n));
    let blocks = points.ceil_div(&balanced(&points, rows));
    (&product_of(around.iter().map(|(_, n)| n)) * &blocks).as_const()
}

/// True where workers can share the tiles of a stage inside of a loop, in a tree for so many points together, and a round of that
/// loop is worth it; from so many cycles on it is.
pub fn worth_sharing(flat: &Flat, rows: i64, stage: usize, cycles: i64) -> bool {
    let (dims, along) = split(flat, rows);
    let looped = loops_around(&flat.tree, stage, &mut vec![]);
    let most = product_of(along.iter().map(|(_, n)| n))
        .as_const()
        .map_or(rows, |n| n.min(rows));
    let work = |p: &Product| p.cycles(most).is_some_and(|n| n >= cycles);
    looped && product(flat, stage, dims, along).is_ok_and(|p| p.can_be_shared().is_ok() && work(&p))
}

/// How a stage runs.
enum Found<'f> {
    /// On tiles, which workers share or not.
    Tiles(Box<Product<'f>>, bool),
    /// Columns in place, so many at once.
    Columns(Box<Product<'f>>, u32),
    Lanes(u32),
}

fn ways<'f>(flat: &'f Flat, s: &Tree, dims: Dims, along: Dims) -> Result<Vec<Found<'f>>, String> {
    let one = |(i, way): (usize, &Way)| match way {
        Way::Lanes(n) => lanes(*n, MAX_LANES).map(Found::Lanes),
        Way::Columns(n) => product(flat, i, dims, along)
            .and_then(|p| {
                p.can_be_read_in_place()?;
                Ok(Found::Columns(Box::new(p), lanes(*n, MAX_LANES)?))
            })
            .map_err(|e| format!("stage {i} in place: {e}")),
        Way::Tile | Way::Shared => product(flat, i, dims, along)
            .and_then(|p| {
                let shared = *way == Way::Shared;
                if shared {
                    p.can_be_shared()?;
                }
                Ok(Found::Tiles(Box::new(p), shared))
            })
            .map_err(|e| format!("stage {i} on tiles: {e}")),
    };
    s.stages.iter().enumerate().map(one).collect()
}

/// The product that a stage is.
fn product<'f>(flat: &'f Flat, stage: usize, dims: Dims, along: Dims) -> Result<Product<'f>, String> {
    let mut outside = dims.to_vec();
    loops_around(&flat.tree, stage, &mut outside);
    let repeats = outside.get(dims.len()..).and_then(<[_]>::last).map(|l| l.0);
    Product::of(flat, &flat.stages[stage], &outside, along).map(|p| p.repeated(repeats))
}

/// Adds the loops around a stage, outermost first; false where it is none of these nodes'.
fn loops_around(nodes: &[Node], stage: usize, out: &mut Vec<(Var, Dim)>) -> bool {
    nodes.iter().any(|n| match n {
        Node::Stage(i) => *i == stage,
        Node::Loop { var, extent, body, .. } => {
            out.push((*var, extent.clone()));
            let here = loops_around(body, stage, out);
            if !here {
                out.pop();
            }
            here
        }
    })
}

/// The parameters that are panels. Such a one is read by tiles alone, all in the same panels.
fn packed(flat: &Flat, ways: &[Found]) -> Result<Vec<(Buf, Packing)>, String> {
    let mut out: Vec<(Buf, Packing)> = vec![];
    let mut rights = 0;
    for way in ways {
        let Found::Tiles(p, _) = way else { continue };
        let (buffer, packing) = p.packed();
        rights += 1;
        match out.iter().find(|(b, _)| *b == buffer) {
            Some((_, other)) if *other != packing => return Err(format!("{buffer} is a right operand in two ways")),
            Some(_) => {}
            None => out.push((buffer, packing)),
        }
    }
    let mut reads = 0;
    for s in &flat.stages {
        s.clone()
            .each_target(&mut |t| reads += usize::from(out.iter().any(|(b, _)| t.buffer() == Some(*b))));
    }
    match reads == rights {
        true => Ok(out),
        false => Err("a right operand of tiles is read otherwise too".into()),
    }
}

fn nodes(nest: &mut Nest, out: &mut Vec<Stmt>, ways: &[Found], tree: &[Node], group: &Group) {
    for n in tree {
        match n {
            Node::Stage(i) => stage(nest, out, ways, *i, group),
            Node::Loop {
                var,
                extent,
                needed,
                body,
            } => {
                let v = nest.var();
                let at = |u: Var| if u == *var { Ix::var(v) } else { (group.at)(u) };
                let inside = Group {
                    first: group.first.clone(),
                    rows: group.rows.clone(),
                    at: &at,
                    ..*group
                };
                let mut stmts = vec![];
                nodes(nest, &mut stmts, ways, body, &inside);
                let bounds: Vec<Bound> = needed.iter().filter_map(|b| inside.ever(b)).collect();
                if !bounds.is_empty() {
                    stmts = vec![Stmt::If { bounds, then: stmts }];
                }
                out.extend(Nest::serial(&[(v, Ix::constant(extent.clone()))], stmts));
            }
        }
    }
}

fn stage(nest: &mut Nest, out: &mut Vec<Stmt>, ways: &[Found], number: usize, group: &Group) {
    if let Found::Tiles(p, shared) = &ways[number] {
        return out.extend(p.tiles(nest, group, *shared));
    }
    let flat = nest.flat;
    let r = nest.var();
    let here = if group.most > 1 { Ix::var(r) } else { Ix::constant(0) };
    for (l, home) in flat.locals.iter().zip(&mut nest.homes) {
        if let Some(Home::Buffer(_, first)) = home {
            *first = here.scale(&tile_stride(l));
        }
    }
    let at = |u: Var| group.coordinate(&here, u);
    let mut body = vec![];
    match &ways[number] {
        Found::Columns(p, lanes) => body.extend(p.columns(nest, &flat.stages[number], *lanes, &at)),
        Found::Lanes(lanes) => point_stage(nest, &mut body, &flat.stages[number], *lanes, &at),
        Found::Tiles(..) => unreachable!("tiles are for all points of a group"),
    }
    match group.most {
        1 => out.extend(body),
        _ => out.extend(Nest::serial(&[(r, group.rows.clone())], body)),
    }
}

/// A stage at one point.
fn point_stage(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32, at: &Point) {
    if stage.scan {
        return point::scan(nest, out, stage, 1, at);
    }
    let several = |(_, d): &(Var, IterDim)| d.kind == IterKind::Parallel;
    if !stage.reduces() || !stage.dims.iter().any(several) {
        return row_stage(nest, out, stage, lanes, at);
    }
    // Several results: one reduction after the other.
    let (own, sum): (Vec<_>, Vec<_>) = stage.dims.iter().cloned().partition(several);
    let one = FlatStage {
        dims: sum,
        ..stage.clone()
    };
    let inside = |u: Var| {
        if own.iter().any(|(v, _)| *v == u) {
            Ix::var(u)
        } else {
            at(u)
        }
    };
    let mut body = vec![];
    row_stage(nest, &mut body, &one, lanes, &inside);
    let loops: Vec<(Var, Ix)> = own.iter().map(|(v, d)| (*v, Ix::constant(d.extent.clone()))).collect();
    out.extend(Nest::serial(&loops, body));
}
