//! Contractions on block tiles of a GPU.
//!
//! A reducing stage that sums one product is a contraction, whatever operator it came from. Its dimensions sort
//! themselves by which operand they move: *rows* the left one, *columns* the right one, *batch* dimensions both (or
//! neither), *steps* are summed. Rows, columns and steps are each taken as one flat dimension, so a convolution is a
//! matrix product whose operand is never unrolled in memory: an element's place comes from its row and step by division,
//! and the padding is the read's guard (implicit GEMM; Chetlur et al., cuDNN, arXiv 1410.0759). Both operands are read in
//! place.
//!
//! ```text
//! for (block = batch, row tile, column tile; thread) {
//!   acc[4][4] = 0
//!   for slice in steps / 16 {
//!     shared A[16][64], B[16][64] = the slice (0 outside of the matrix); barrier
//!     for k in 0..16 { acc[i][j] = fma(A[k][i], B[k][j], acc[i][j]) }; barrier }
//!   for i, j { epilogue }
//! }
//! ```
//!
//! Shared rows are two elements longer than the tile: a warp that fills 16 steps of two columns then meets 32 banks.

use super::flat::{Flat, FlatRead, FlatStage, Target};
use super::generic::look_up;
use super::gpu::{BlockTile, GpuOptions, coordinates, grid, kept};
use super::nest::Nest;
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Scope, Stmt};
use brolga_ir::scalar::{Inst, Prim, V};
use brolga_ir::structured::IterKind;
use brolga_ir::{DType, Dim};

/// Elements between the end of a shared row and the next one.
const SKEW: i64 = 2;

/// A contraction recognised in a flat kernel's first stage.
pub(super) struct Contraction {
    /// Which of the two reads is the left operand.
    left: usize,
    batch: Vec<(Var, Dim)>,
    rows: Vec<(Var, Dim)>,
    columns: Vec<(Var, Dim)>,
    steps: Vec<(Var, Dim)>,
}

/// An operand's buffer, index and guard.
type Access<'f> = (Buf, &'f Ix, &'f [Bound]);

/// A read that can be staged: no gather, and 0 out of bounds.
fn access(r: &FlatRead) -> Option<Access<'_>> {
    let FlatRead::Element {
        target: Target::Buffer(b),
        index,
        guard,
        fill: 0,
    } = r
    else {
        return None;
    };
    let mut gathers = false;
    index.for_each_reg(&mut |_| gathers = true);
    guard.iter().for_each(|b| b.index.for_each_reg(&mut |_| gathers = true));
    (!gathers).then_some((*b, index, guard))
}

fn uses((_, index, guard): Access, v: Var) -> bool {
    index.uses(v) || guard.iter().any(|b| b.index.uses(v))
}

/// True for the product of two f32 values that are the inputs, or conversions of them.
fn is_product(s: &FlatStage) -> bool {
    let body = &s.body;
    let source = |v: V| match body.inst(v) {
        None => Some(v),
        Some(Inst::Prim(Prim::Cast(DType::F32), [x, ..])) if body.inst(x).is_none() => Some(x),
        _ => None,
    };
    let [out] = body.outputs[..] else { return false };
    let Some(Inst::Prim(Prim::Mul, [a, b, _])) = body.inst(out) else {
        return false;
    };
    let both = matches!((source(a), source(b)), (Some(x), Some(y)) if x.0 + y.0 == 1);
    let floats = body.inputs.iter().all(|d| d.compute() == DType::F32);
    body.inputs.len() == 2 && both && floats && body.dtype(out) == DType::F32
}

fn extent(dims: &[(Var, Dim)]) -> Dim {
    product(dims.iter().map(|(_, d)| d))
}

impl Contraction {
    /// The contraction in a kernel's first stage, when it is one that block tiles can do.
    pub fn find(flat: &Flat) -> Option<Contraction> {
        let s = flat.stages.first()?;
        let sum = s.combine.as_ref().is_some_and(|c| {
            c.init == [0] && matches!(&c.body.insts[..], [Inst::Prim(Prim::Add, [a, b, _])] if a.0 + b.0 == 1)
        });
        let plain = s.dims.iter().all(|(_, d)| d.kind == IterKind::Reduction) && !s.scan;
        let scalar = |s: &FlatStage| s.dims.is_empty() && s.combine.is_none();
        if !is_product(s) || !sum || !plain || s.dims.is_empty() || !flat.stages[1..].iter().all(scalar) {
            return None;
        }
        let write = flat.stages.last().and_then(|s| s.writes.first()).map(|w| &w.1)?;
        let contiguous = |c: &Contraction| c.columns.iter().any(|(v, _)| super::generic::stride_is_one(write, *v));
        let candidates = [0, 1]
            .into_iter()
            .filter_map(|left| Contraction::oriented(flat, s, left));
        // Threads side by side had better write side by side; else more columns than rows.
        candidates.max_by_key(|c| (contiguous(c), extent(&c.columns).as_const().unwrap_or(i64::MAX)))
    }

    fn oriented(flat: &Flat, s: &FlatStage, left: usize) -> Option<Contraction> {
        let (a, b) = (access(&s.reads[left])?, access(&s.reads[1 - left])?);
        let (mut batch, mut rows, mut columns) = (vec![], vec![], vec![]);
        for (v, d) in &flat.outer {
            match (uses(a, *v), uses(b, *v)) {
                (true, false) => rows.push((*v, d.clone())),
                (false, true) => columns.push((*v, d.clone())),
                _ => batch.push((*v, d.clone())),
            }
        }
        // A single row or column (a matrix-vector product, a depthwise convolution) wastes the tile.
        let wide = |dims: &[(Var, Dim)]| extent(dims).as_const().is_none_or(|n| n > 1);
        let steps = s.dims.iter().map(|(v, d)| (*v, d.extent.clone())).collect();
        (wide(&rows) && wide(&columns)).then_some(Contraction {
            left,
            batch,
            rows,
            columns,
            steps,
        })
    }

    /// The large tile, where enough blocks of it keep the GPU busy.
    fn tile(&self, options: &GpuOptions) -> BlockTile {
        let (rows, columns) = (extent(&self.rows), extent(&self.columns));
        let (m, n) = options.large.size;
        let narrow = |d: &Dim, n: i64| d.as_const().is_some_and(|d| d <= n);
        let blocks = &(&rows.ceil_div(&Dim::Const(m)) * &columns.ceil_div(&Dim::Const(n))) * &extent(&self.batch);
        let few = blocks.as_const().is_some_and(|b| b < options.blocks);
        let (m, n) = options.small.size;
        if few || narrow(&rows, m) || narrow(&columns, n) {
            options.small
        } else {
            options.large
        }
    }

    /// The kernel.
    pub fn schedule(&self, flat: &Flat, options: &GpuOptions) -> Kernel {
        let tile = self.tile(options);
        let mut nest = Nest::new(flat);
        let stage = &flat.stages[0];
        let (block, thread) = (nest.var(), nest.var());
        let threads = tile.threads.0 * tile.threads.1;
        let mut body = vec![];

        let (row_tile, column_tile) = (nest.var(), nest.var());
        let mut order = self.batch.clone();
        order.push((row_tile, extent(&self.rows).ceil_div(&Dim::Const(tile.size.0))));
        order.push((column_tile, extent(&self.columns).ceil_div(&Dim::Const(tile.size.1))));
        let at_block = coordinates(&mut nest, &mut body, &order, &Ix::var(block));
        let at = |v: Var| look_up(&at_block, v);
        let first = |v: Var, n: i64| at(v).scale(&Dim::Const(n));

        let slice = nest.var();
        let depth = Dim::Const(tile.depth);
        let steps = extent(&self.steps);
        let mut side = |nest: &mut Nest, read: usize, dims: &[(Var, Dim)], first: Ix, size: i64| {
            let (buffer, index, guard) = access(&stage.reads[read]).expect("checked when found");
            let staging = Staging {
                dtype: stage.body.inputs[read],
                buffer,
                index,
                guard,
                dims,
                first,
                size,
                steps: &self.steps,
                at: &at,
                thread,
                threads,
                slice,
                depth: tile.depth,
            };
            staging.emit(nest, &mut body)
        };
        let (left, right) = (self.left, 1 - self.left);
        let (a, fill_a) = side(&mut nest, left, &self.rows, first(row_tile, tile.size.0), tile.size.0);
        let (b, fill_b) = side(
            &mut nest,
            right,
            &self.columns,
            first(column_tile, tile.size.1),
            tile.size.1,
        );

        let across = Dim::Const(tile.threads.1);
        let my_row = kept(&mut nest, &mut body, Ix::var(thread).div(&across));
        let my_column = kept(&mut nest, &mut body, Ix::var(thread).modulo(&across));
        let (high, wide) = (tile.size.0 / tile.threads.0, tile.size.1 / tile.threads.1);
        // A thread's rows follow each other; its columns are `across` apart, so that threads side by side write so.
        let row = |i: i64| &my_row.scale(&Dim::Const(high)) + &Dim::Const(i);
        let column = |j: i64| &my_column + &Dim::Const(j * tile.threads.1);
        let zero = |nest: &mut Nest, out: &mut Vec<Stmt>| nest.set(out, DType::F32, Expr::Const(0));
        let accs: Vec<Vec<Reg>> = (0..high)
            .map(|_| (0..wide).map(|_| zero(&mut nest, &mut body)).collect())
            .collect();

        let k = nest.var();
        let mut inner = vec![];
        let mut load = |nest: &mut Nest, buffer: Buf, size: i64, x: Ix| {
            let index = &Ix::var(k).scale(&Dim::Const(size + SKEW)) + &x;
            let e = Expr::Load {
                buffer,
                index,
                guard: vec![],
                fill: 0,
            };
            nest.set(&mut inner, DType::F32, e)
        };
        let xs: Vec<Reg> = (0..high).map(|i| load(&mut nest, a, tile.size.0, row(i))).collect();
        let ys: Vec<Reg> = (0..wide).map(|j| load(&mut nest, b, tile.size.1, column(j))).collect();
        for (acc, &x) in accs.iter().zip(&xs) {
            for (&acc, &y) in acc.iter().zip(&ys) {
                inner.push(Stmt::Set(acc, Expr::Prim(Prim::Fma, [x, y, acc])));
            }
        }
        let unrolled = Stmt::For {
            var: k,
            kind: LoopKind::Unrolled,
            extent: Ix::constant(tile.depth),
            body: inner,
        };
        let mut round = fill_a;
        round.extend(fill_b);
        round.extend([Stmt::Barrier, unrolled, Stmt::Barrier]);
        body.push(Stmt::For {
            var: slice,
            kind: LoopKind::Serial,
            extent: Ix::constant(steps.ceil_div(&depth)),
            body: round,
        });

        let place = |nest: &mut Nest, out: &mut Vec<Stmt>, dims: &[(Var, Dim)], tile: Ix, x: Ix, size: i64| {
            let p = &tile + &x;
            let total = extent(dims);
            let ragged = total.exact_div(&Dim::Const(size)).is_none();
            let at = coordinates(nest, out, dims, &p);
            let bounds = ragged.then_some(Bound {
                index: p,
                extent: total,
            });
            (at, bounds)
        };
        let columns: Vec<_> = (0..wide)
            .map(|j| {
                let (first, n) = (first(column_tile, tile.size.1), tile.size.1);
                place(&mut nest, &mut body, &self.columns, first, column(j), n)
            })
            .collect();
        for (i, accs) in (0..).zip(&accs) {
            let (at_row, in_rows) = {
                let (first, n) = (first(row_tile, tile.size.0), tile.size.0);
                place(&mut nest, &mut body, &self.rows, first, row(i), n)
            };
            let mut line = vec![];
            for (acc, (at_column, in_columns)) in accs.iter().zip(&columns) {
                let point = |v: Var| {
                    let found = at_row.iter().chain(at_column).find(|(u, _)| *u == v);
                    found.map_or_else(|| at(v), |(_, ix)| ix.clone())
                };
                let mut one = vec![];
                nest.writes(&mut one, stage, &[*acc], &[], &point);
                for s in &flat.stages[1..] {
                    let reads = nest.reads(&mut one, s, &point);
                    let values = nest.body(&mut one, &s.body, &reads);
                    nest.writes(&mut one, s, &values, &reads, &point);
                }
                line.extend(guarded(in_columns.clone(), one));
            }
            body.extend(guarded(in_rows, line));
        }
        let blocks = extent(&order);
        nest.kernel.body = grid((block, blocks), &[(thread, threads)], body);
        nest.kernel
    }
}

fn guarded(bound: Option<Bound>, then: Vec<Stmt>) -> Vec<Stmt> {
    match bound {
        Some(b) => vec![Stmt::If { bounds: vec![b], then }],
        None => then,
    }
}

/// How one operand's slices come into shared memory: `shared[k][x]`, `x` along the rows or columns of the tile.
struct Staging<'a> {
    dtype: DType,
    buffer: Buf,
    index: &'a Ix,
    guard: &'a [Bound],
    /// The dimensions that `x` is flat over.
    dims: &'a [(Var, Dim)],
    /// The tile's first `x`.
    first: Ix,
    /// Extent of the tile along `x`.
    size: i64,
    steps: &'a [(Var, Dim)],
    at: &'a dyn Fn(Var) -> Ix,
    thread: Var,
    threads: i64,
    slice: Var,
    depth: i64,
}

impl Staging<'_> {
    /// The shared buffer, and the statements of a slice. What does not change from slice to slice goes to `out`.
    fn emit(&self, nest: &mut Nest, out: &mut Vec<Stmt>) -> (Buf, Vec<Stmt>) {
        let shared = nest.scratch(DType::F32, Dim::Const(self.depth * (self.size + SKEW)), Scope::Shared);
        // Threads side by side read side by side: along the steps where those are contiguous in memory.
        let along_steps = self
            .steps
            .iter()
            .any(|(v, _)| super::generic::stride_is_one(self.index, *v));
        let width = Dim::Const(if along_steps { self.depth } else { self.size });
        let fast = kept(nest, out, Ix::var(self.thread).modulo(&width));
        let slow = kept(nest, out, Ix::var(self.thread).div(&width));
        // A thread's elements: each of them as far from the last as all threads reach.
        let stride = self.threads / if along_steps { self.depth } else { self.size };
        let count = self.size * self.depth / self.threads;
        let (total, sum) = (extent(self.dims), extent(self.steps));
        let mut body = vec![];
        let from = Ix::var(self.slice).scale(&Dim::Const(self.depth));
        let mut at_fast: Option<Vec<(Var, Ix)>> = None;
        for i in 0..count {
            let next = &slow + &Dim::Const(i * stride);
            let (x, k) = if along_steps { (&next, &fast) } else { (&fast, &next) };
            let (gx, gk) = (&self.first + x, &from + k);
            // Where `x` or `k` is the same for all of the thread's elements, its coordinates are too.
            let (at_x, at_k) = if along_steps {
                let at_x = coordinates(nest, out, self.dims, &gx);
                let at_k = at_fast
                    .get_or_insert_with(|| coordinates(nest, &mut body, self.steps, &gk))
                    .clone();
                (at_x, at_k)
            } else {
                let at_x = at_fast
                    .get_or_insert_with(|| coordinates(nest, out, self.dims, &gx))
                    .clone();
                (at_x, coordinates(nest, &mut body, self.steps, &gk))
            };
            let point = |v: Var| {
                let found = at_x.iter().chain(&at_k).find(|(u, _)| *u == v);
                found.map_or_else(|| (self.at)(v), |(_, ix)| ix.clone())
            };
            let place = |ix: &Ix| ix.substitute(&point, &Ix::reg);
            let mut guard: Vec<Bound> = vec![];
            if total.exact_div(&Dim::Const(self.size)).is_none() {
                guard.push(Bound {
                    index: gx,
                    extent: total.clone(),
                });
            }
            if sum.exact_div(&Dim::Const(self.depth)).is_none() {
                guard.push(Bound {
                    index: gk,
                    extent: sum.clone(),
                });
            }
            guard.extend(self.guard.iter().map(|b| Bound {
                index: place(&b.index),
                extent: b.extent.clone(),
            }));
            let e = Expr::Load {
                buffer: self.buffer,
                index: place(self.index),
                guard,
                fill: 0,
            };
            let mut value = nest.set(&mut body, self.dtype, e);
            if self.dtype != DType::F32 {
                value = nest.set(&mut body, DType::F32, Expr::Prim(Prim::Cast(DType::F32), [value; 3]));
            }
            body.push(Stmt::Store {
                buffer: shared,
                index: &k.scale(&Dim::Const(self.size + SKEW)) + x,
                value,
            });
        }
        (shared, body)
    }
}
