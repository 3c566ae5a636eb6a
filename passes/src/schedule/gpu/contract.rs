//! Contractions on block tiles of a GPU.
//!
//! *Rows* move the left operand, *columns* the right one, *batch* dimensions both (or neither), *steps* are summed. Rows,
//! columns and steps are each taken as one flat dimension, so a convolution is a matrix product whose operand is never
//! unrolled in memory: an element's place comes from its row and step by division, and the padding is the read's guard
//! (implicit GEMM; Chetlur et al., cuDNN, arXiv 1410.0759). Both operands are read in place.
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

use super::super::contraction::{Access, Contraction, Moves};
use super::super::flat::{Flat, look_up, stride_is_one};
use super::super::nest::Nest;
use super::grid::{check_threads, coordinates, grid, kept};
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Expr, Kernel, LoopKind, Scope, Stmt};
use brolga_ir::scalar::Prim;
use brolga_ir::schedule::GpuTile;
use brolga_ir::{DType, Dim};

/// Elements between the end of a shared row and the next one.
const SKEW: i64 = 2;

fn extent(dims: &[(Var, Dim)]) -> Dim {
    product(dims.iter().map(|(_, d)| d))
}

/// A contraction that block tiles can do.
pub struct Blocks<'f> {
    flat: &'f Flat,
    c: Contraction<'f>,
    batch: Vec<(Var, Dim)>,
    rows: Vec<(Var, Dim)>,
    columns: Vec<(Var, Dim)>,
}

impl<'f> Blocks<'f> {
    /// The kernel's contraction with this read of its product as the left operand.
    ///
    /// # Errors
    /// Why block tiles cannot do it.
    pub fn of(flat: &'f Flat, left: i64) -> Result<Blocks<'f>, String> {
        let c = Contraction::of(flat, left)?;
        if c.dtypes[2] != DType::F32 {
            return Err(format!("block tiles sum in f32, not in {}", c.dtypes[2]));
        }
        let (rows, columns) = (c.that(&[Moves::Left]), c.that(&[Moves::Right]));
        // A matrix-vector product, a depthwise convolution.
        let single = |dims: &[(Var, Dim)]| extent(dims).as_const().is_some_and(|n| n <= 1);
        if single(&rows) || single(&columns) {
            return Err("a single row or column wastes the tile".into());
        }
        Ok(Blocks {
            flat,
            batch: c.that(&[Moves::Both, Moves::Neither]),
            rows,
            columns,
            c,
        })
    }

    /// Whether some column is contiguous in the result.
    pub fn writes_columns(&self) -> bool {
        let write = self.flat.stages.last().and_then(|s| s.writes.first());
        write.is_some_and(|(_, ix)| self.columns.iter().any(|(v, _)| stride_is_one(ix, *v)))
    }

    /// Rows, columns and batches.
    pub fn extents(&self) -> [Dim; 3] {
        [extent(&self.rows), extent(&self.columns), extent(&self.batch)]
    }

    /// # Errors
    /// When threads cannot share a tile's work evenly.
    fn check(&self, tile: &GpuTile) -> Result<i64, String> {
        let sides = [
            ("rows", tile.rows, tile.row_threads, self.c.left),
            ("columns", tile.columns, tile.column_threads, self.c.right),
        ];
        for (name, size, threads, _) in sides {
            if size < 1 || threads < 1 || size % threads != 0 {
                return Err(format!("{threads} threads do not share {size} {name} evenly"));
            }
        }
        let threads = tile.row_threads.saturating_mul(tile.column_threads);
        check_threads(threads)?;
        for (name, size, _, operand) in sides {
            let width = if self.along_steps(operand) { tile.depth } else { size };
            if tile.depth < 1 || threads % width != 0 || size.saturating_mul(tile.depth) % threads != 0 {
                return Err(format!(
                    "{threads} threads do not fill {} steps of {size} {name} evenly",
                    tile.depth
                ));
            }
        }
        Ok(threads)
    }

    /// Whether an operand is contiguous along the summed dimensions: threads side by side then read side by side.
    fn along_steps(&self, operand: Access) -> bool {
        self.c.steps.iter().any(|(v, _)| stride_is_one(operand.index, *v))
    }

    /// The kernel.
    ///
    /// # Errors
    /// Why the schedule does not fit.
    pub fn kernel(&self, tile: &GpuTile) -> Result<Kernel, String> {
        let threads = self.check(tile)?;
        let flat = self.flat;
        let mut nest = Nest::new(flat);
        let stage = &flat.stages[0];
        let (block, thread) = (nest.var(), nest.var());
        let mut body = vec![];

        let (row_tile, column_tile) = (nest.var(), nest.var());
        let mut order = self.batch.clone();
        order.push((row_tile, extent(&self.rows).ceil_div(&Dim::Const(tile.rows))));
        order.push((column_tile, extent(&self.columns).ceil_div(&Dim::Const(tile.columns))));
        let at_block = coordinates(&mut nest, &mut body, &order, &Ix::var(block));
        let at = |v: Var| look_up(&at_block, v);
        let first = |v: Var, n: i64| at(v).scale(&Dim::Const(n));

        let slice = nest.var();
        let depth = Dim::Const(tile.depth);
        let steps = extent(&self.c.steps);
        let mut side = |nest: &mut Nest, operand: Access, dims: &[(Var, Dim)], first: Ix, size: i64| {
            let staging = Staging {
                dtype: flat.buffers[operand.buffer.0 as usize].dtype,
                operand,
                along_steps: self.along_steps(operand),
                dims,
                first,
                size,
                steps: &self.c.steps,
                at: &at,
                thread,
                threads,
                slice,
                depth: tile.depth,
            };
            staging.emit(nest, &mut body)
        };
        let (a, fill_a) = side(
            &mut nest,
            self.c.left,
            &self.rows,
            first(row_tile, tile.rows),
            tile.rows,
        );
        let (b, fill_b) = side(
            &mut nest,
            self.c.right,
            &self.columns,
            first(column_tile, tile.columns),
            tile.columns,
        );

        let across = Dim::Const(tile.column_threads);
        let my_row = kept(&mut nest, &mut body, Ix::var(thread).div(&across));
        let my_column = kept(&mut nest, &mut body, Ix::var(thread).modulo(&across));
        let (high, wide) = (tile.rows / tile.row_threads, tile.columns / tile.column_threads);
        // A thread's rows follow each other; its columns are `across` apart, so that threads side by side write so.
        let row = |i: i64| &my_row.scale(&Dim::Const(high)) + &Dim::Const(i);
        let column = |j: i64| &my_column + &Dim::Const(j * tile.column_threads);
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
        let xs: Vec<Reg> = (0..high).map(|i| load(&mut nest, a, tile.rows, row(i))).collect();
        let ys: Vec<Reg> = (0..wide).map(|j| load(&mut nest, b, tile.columns, column(j))).collect();
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
                let (first, n) = (first(column_tile, tile.columns), tile.columns);
                place(&mut nest, &mut body, &self.columns, first, column(j), n)
            })
            .collect();
        for (i, accs) in (0..).zip(&accs) {
            let (at_row, in_rows) = {
                let (first, n) = (first(row_tile, tile.rows), tile.rows);
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
        Ok(nest.kernel)
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
    operand: Access<'a>,
    /// Whether threads side by side read along the steps.
    along_steps: bool,
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
        let along_steps = self.along_steps;
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
            guard.extend(self.operand.guard.iter().map(|b| Bound {
                index: place(&b.index),
                extent: b.extent.clone(),
            }));
            let e = Expr::Load {
                buffer: self.operand.buffer,
                index: place(self.operand.index),
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
