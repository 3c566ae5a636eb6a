//! Contractions on register tiles.
//!
//! Of a contraction's dimensions, *rows* are those that do not move the right operand, the *column* is the innermost of
//! those that move only it, the others are *batches*. The right operand is read from panels ([`super::super::packing`] makes
//! them, at compile time for weights), the left one in place. The stages after the contraction are its epilogue: they run over
//! the tile while it is in L1.
//!
//! ```text
//! parallel (batch, panel, outer rows, row tile) {     or (batch, outer rows, block of rows, panel, row tile)
//!   tile C[rows × 32] = Σ A[…] · B[panel]
//!   for r in rows { for j in vector lanes { epilogue } }
//! }
//! ```

use super::super::contraction::{Contraction, Moves};
use super::super::flat::{Flat, Target, is_affine, look_up, stride_is_one};
use super::super::nest::{Nest, collapse};
use super::super::packing::Packing;
use super::blocks::{self, Scaled};
use super::{lanes, parallel};
use brolga_ir::dim::product;
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{self, Ahead, BLOCK, Buf, Expr, Kernel, LoopKind, PANEL, Scope, Stmt};
use brolga_ir::schedule::{Order, Tile};
use brolga_ir::{DType, Dim, TileFamily, TileKind};

/// The most rows of a tile: its sums take 128 bytes of scratch a row.
pub const MAX_ROWS: i64 = 1024;

/// The part of L2 that rows of a left operand take while panels pass, in eighths.
const RESIDENT_EIGHTHS: i64 = 5;

/// A contraction that register tiles can do.
#[derive(Clone)]
pub struct Tiling<'f> {
    flat: &'f Flat,
    kind: TileKind,
    /// The stage that writes the sums; those behind it are the epilogue.
    summed: usize,
    scaled: Option<Scaled<'f>>,
    /// The left operand.
    a: (Buf, &'f Ix),
    /// The right one.
    b: (Buf, &'f Ix),
    batch: Vec<(Var, Dim)>,
    rows: Vec<(Var, Dim)>,
    column: (Var, Dim),
    steps: Vec<(Var, Dim)>,
}

impl<'f> Tiling<'f> {
    /// The kernel's contraction with this read of its product as the left operand.
    ///
    /// # Errors
    /// Why tiles cannot do it.
    pub fn of(flat: &'f Flat, left: i64) -> Result<Tiling<'f>, String> {
        if flat.has_loops() {
            return Tiling::of_blocks(flat, left);
        }
        let c = Contraction::of(flat, left)?;
        let kind = TileKind::of(c.dtypes).ok_or_else(|| {
            let [left, right, sum] = c.dtypes;
            format!("there are no register tiles of {left} by {right}, summed in {sum}")
        })?;
        let plain = [c.left, c.right]
            .iter()
            .all(|x| x.guard.is_empty() && is_affine(x.index));
        if !plain {
            return Err("register tiles take operands without padding at affine places".into());
        }
        let mut columns = c.that(&[Moves::Right]);
        let column = columns
            .pop()
            .ok_or("no dimension moves the right operand alone: there are no columns")?;
        if column.1.as_const().is_some_and(|n| n < 2) {
            return Err("a single column wastes the tile".into());
        }
        let rows = c.that(&[Moves::Left, Moves::Neither]);
        // Further columns are batches that do not move the left operand.
        let batch = [c.that(&[Moves::Both]), columns].concat();
        if rows.is_empty() && !batch.is_empty() {
            // A depthwise convolution, with its data on the right.
            return Err("one row for every batch: packing would cost as much as the product".into());
        }
        if !c.steps.iter().all(|(v, d)| c.right.index.uses(*v) || d.is(1)) {
            return Err("a summed dimension does not move the right operand".into());
        }
        let mut steps = c.steps;
        if kind.interleave() > 1 {
            // A sum of integers is the same in any order: that of steps side by side is the innermost.
            let beside = |(v, d): &(Var, Dim)| !d.is(1) && stride_is_one(c.left.index, *v);
            steps.sort_by_key(beside);
        }
        let t = Tiling {
            flat,
            kind,
            summed: 0,
            scaled: None,
            a: (c.left.buffer, c.left.index),
            b: (c.right.buffer, c.right.index),
            batch,
            rows,
            column,
            steps,
        };
        let runs = runs(t.a.1, &t.steps);
        if runs.len() > 3 {
            let n = runs.len();
            return Err(format!(
                "the left operand is summed over in {n} strides, expected at most 3"
            ));
        }
        if kind.interleave() > 1 && !runs.last().is_some_and(|(_, stride)| stride.is(1)) {
            return Err("tiles that interleave steps take them side by side from the left operand".into());
        }
        Ok(t)
    }

    /// A product over blocks with scales.
    fn of_blocks(flat: &'f Flat, left: i64) -> Result<Tiling<'f>, String> {
        let fail = |why: &str| Err(format!("no product over blocks: {why}"));
        if left != 0 {
            return fail(&format!("left={left}, expected 0"));
        }
        let Some(found) = blocks::find(flat) else {
            return fail("the kernel has loops, which only a tree keeps in order");
        };
        let moved = |v: Var| Moves::of(found.a.1.uses(v), found.b.1.uses(v));
        let that = |all: &[Moves]| -> Vec<(Var, Dim)> {
            let dims = flat.outer.iter().filter(|(v, _)| all.contains(&moved(*v)));
            dims.cloned().collect()
        };
        let mut columns = that(&[Moves::Right]);
        let Some(column) = columns.pop() else {
            return fail("no dimension moves the right operand alone: there are no columns");
        };
        if !that(&[Moves::Both, Moves::Neither]).is_empty() {
            return fail("a batch of them");
        }
        Ok(Tiling {
            flat,
            kind: found.kind,
            summed: blocks::SUMMED,
            a: found.a,
            b: found.b,
            batch: columns,
            rows: that(&[Moves::Left]),
            column,
            steps: found.steps,
            scaled: Some(found.scaled),
        })
    }

    /// The same with steps of bf16 summed by pairs.
    ///
    /// # Errors
    /// Why they cannot be.
    pub fn in_pairs(self) -> Result<Tiling<'f>, String> {
        let runs = runs(self.a.1, &self.steps);
        let whole = matches!(&runs[..], [(n, stride)] if stride.is(1) && n.modulo(&Dim::Const(BLOCK)).is(0));
        match self.kind.by_pairs() {
            Some(kind) if whole => Ok(Tiling { kind, ..self }),
            Some(_) => Err(format!(
                "pairs=true, but the left operand is not summed over whole blocks of {BLOCK} steps side by side"
            )),
            None => Err(format!("pairs=true, but there are no pairs of {}", self.kind.name())),
        }
    }

    /// A contraction as a schedule has it.
    ///
    /// # Errors
    /// Why tiles cannot do it.
    pub fn scheduled(flat: &'f Flat, s: &Tile) -> Result<Tiling<'f>, String> {
        let tiling = Tiling::of(flat, s.left)?;
        if s.pairs { tiling.in_pairs() } else { Ok(tiling) }
    }

    /// A contraction in the kind of tiles that a family does it best with.
    ///
    /// # Errors
    /// Why tiles cannot do it.
    pub fn best(flat: &'f Flat, left: i64, family: TileFamily) -> Result<Tiling<'f>, String> {
        let tiling = Tiling::of(flat, left)?;
        if family.sums_pairs() {
            return tiling.clone().in_pairs().or(Ok(tiling));
        }
        Ok(tiling)
    }

    /// What is multiplied, and summed in what.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Whether tiles are over whole blocks of steps, and fetch nothing ahead.
    pub fn in_blocks(&self) -> bool {
        self.scaled.is_some() || self.kind == TileKind::Bf16Pairs
    }

    /// Whether the columns are contiguous in the result.
    pub fn writes_columns(&self) -> bool {
        let write = self.flat.stages.last().and_then(|s| s.writes.first());
        write.is_some_and(|(_, ix)| stride_is_one(ix, self.column.0))
    }

    /// The extent of the columns.
    pub fn columns(&self) -> &Dim {
        &self.column.1
    }

    /// The number of rows.
    pub fn rows(&self) -> Dim {
        brolga_ir::dim::product(self.rows.iter().map(|(_, d)| d))
    }

    /// The dtype of the sums.
    fn sum(&self) -> DType {
        let [_, _, sum] = self.kind.dtypes();
        sum
    }

    /// About how many rows of the left operand stay in L2 beside panels that pass, in tiles of so many: 0 where all of them do, or where rows
    /// overlap (windows).
    pub fn resident(&self, rows: i64, l2_bytes: u64) -> i64 {
        let [left, ..] = self.kind.dtypes();
        let steps = match (&self.scaled, &runs(self.a.1, &self.steps)[..]) {
            (Some(s), _) => s.depth.as_const(),
            (None, [(run, _)]) => run.as_const(),
            _ => None,
        };
        let Some(steps) = steps.filter(|n| *n > 0) else {
            return 0;
        };
        let fit = (l2_bytes as i64 * RESIDENT_EIGHTHS / 8) / (steps * left.bytes() as i64);
        match self.rows.last().map(|(_, n)| n.as_const()) {
            None => 0,
            Some(Some(n)) if n <= fit => 0,
            Some(_) => (fit / rows * rows).max(rows),
        }
    }

    /// How the innermost row dimension is cut.
    fn cut(&self, n: &Dim, rows: i64, resident: i64) -> Cut {
        let block = if resident > 0 { balanced(n, resident) } else { n.clone() };
        let height = balanced(&block, rows);
        let tiles = block.ceil_div(&height);
        // Tiles behind the last row do nothing.
        let blocks = match resident {
            0 => Dim::ONE,
            _ => n.ceil_div(&(&tiles * &height)),
        };
        Cut { height, tiles, blocks }
    }

    /// How many tiles of so many rows read the same panel one after the other.
    pub fn rereads(&self, rows: i64, resident: i64) -> Dim {
        let Some(((_, innermost), others)) = self.rows.split_last() else {
            return Dim::ONE;
        };
        let tiles = self.cut(innermost, rows, resident).tiles;
        match resident {
            0 => &product(others.iter().map(|(_, d)| d)) * &tiles,
            _ => tiles,
        }
    }

    /// Bytes of the right operand of one batch.
    pub fn panel_bytes(&self) -> Dim {
        let [_, right, _] = self.kind.dtypes();
        &(&self.column.1.ceil_div(&Dim::Const(PANEL)) * &self.packing().panel_size()) * right.bytes() as i64
    }

    /// How much the epilogue does at a point, in instructions and reads.
    pub fn epilogue_size(&self) -> usize {
        let rest = &self.flat.stages[self.summed + 1..];
        rest.iter().map(|s| s.body.usual() + s.reads.len()).sum()
    }

    /// The parameters that are panels, and how each is packed: the right operand, and what belongs to its columns.
    pub fn packed(&self) -> Vec<(Buf, Packing)> {
        let scales = self.scaled.iter().flat_map(|s| &s.of_columns);
        let steps = &self.steps[..1];
        let scales = scales.map(|&(b, index)| (b, self.panels_of(TileKind::F32, index, steps, steps.len())));
        [(self.b.0, self.packing())].into_iter().chain(scales).collect()
    }

    /// How the right operand is packed.
    fn packing(&self) -> Packing {
        if self.scaled.is_some() {
            return self.panels_of(self.kind, self.b.1, &self.steps, 1);
        }
        // Of the last run are the dimensions along which the left operand's strides go on as one.
        let (run, _) = runs(self.a.1, &self.steps).pop().expect("at least one");
        let steps = self.steps.len();
        let is_run = |n: &usize| product(self.steps[steps - n..].iter().map(|s| &s.1)) == run;
        let last = (0..=steps).find(is_run).expect("a run is made of the last dimensions");
        // Without groups of steps it does not matter where runs end.
        let run = if self.kind.interleave() > 1 { last } else { steps };
        self.panels_of(self.kind, self.b.1, &self.steps, run)
    }

    /// Panels for tiles of a kind, of what lies at an index.
    fn panels_of(&self, kind: TileKind, b: &Ix, steps: &[(Var, Dim)], run: usize) -> Packing {
        let of = |(v, d): &(Var, Dim)| (d.clone(), b.stride(*v).expect("affine"));
        Packing {
            kind,
            run,
            batch: self.batch.iter().map(of).collect(),
            steps: steps.iter().map(of).collect(),
            column: of(&self.column),
            offset: b.offset.clone(),
            prologue: None,
        }
    }

    /// Whether tiles can write the result themselves: no epilogue computes, and the columns are contiguous there.
    pub fn can_write(&self) -> bool {
        let last = self.flat.stages.last().expect("a contraction has a stage");
        let (out, write) = (&last.writes[0].0, &last.writes[0].1);
        self.flat.stages.len() <= self.summed + 2
            && last.body.insts.is_empty()
            && out.buffer().is_some()
            && is_affine(write)
            && self.flat.dtype(*out) == self.sum()
            && self.writes_columns()
    }

    /// The kernel, whose right operand's parameter is the panels.
    ///
    /// # Errors
    /// Why the schedule does not fit.
    pub fn kernel(&self, s: &Tile) -> Result<Kernel, String> {
        let lanes = i64::from(lanes(s.lanes, PANEL)?);
        if !(1..=MAX_ROWS).contains(&s.rows) {
            return Err(format!("rows={}, expected 1 to {MAX_ROWS}", s.rows));
        }
        if s.direct && !self.can_write() {
            return Err(
                "direct=true, but there is an epilogue, or the columns are not contiguous in the result".into(),
            );
        }
        let flat = self.flat;
        let mut nest = Nest::new(flat);
        let panels = self.column.1.ceil_div(&Dim::Const(PANEL));
        let batches = product(self.batch.iter().map(|b| &b.1));
        for (b, packing) in self.packed() {
            nest.kernel.buffers[b.0 as usize].len = &(&batches * &panels) * &packing.panel_size();
        }

        // Rows: the innermost row dimension is cut into tiles of balanced height, and these into blocks that stay in L2.
        let (row, outer_rows) = match self.rows.split_last() {
            Some(((v, d), rest)) => ((*v, d.clone()), rest.to_vec()),
            None => ((nest.var(), Dim::ONE), vec![]),
        };
        if s.resident < 0 || s.resident > 0 && s.order == Order::Panel {
            return Err(format!(
                "resident={}, expected 0, or with order=row a number of rows",
                s.resident
            ));
        }
        let Cut { height, tiles, blocks } = self.cut(&row.1, s.rows, s.resident);
        let most = height.as_const().unwrap_or(s.rows);
        let tile_var = (nest.var(), tiles.clone());
        let block_var = (s.resident > 0).then(|| (nest.var(), blocks));
        let reread = self.rereads(s.rows, s.resident);
        if s.ahead && (s.order == Order::Panel || reread.is(1)) {
            return Err("ahead=true, but no tiles one after the other read the same panel".into());
        }
        if s.ahead && self.in_blocks() {
            return Err("ahead=true, but tiles of blocks fetch nothing ahead".into());
        }
        let panel_var = (nest.var(), panels.clone());
        let mut order = self.batch.clone();
        match (s.order, &block_var) {
            (Order::Panel, _) => {
                order.extend(outer_rows);
                order.push(tile_var.clone());
                order.push(panel_var.clone());
            }
            (Order::Row, Some(block)) => {
                order.extend(outer_rows);
                order.extend([block.clone(), panel_var.clone(), tile_var.clone()]);
            }
            (Order::Row, None) => {
                order.push(panel_var.clone());
                order.extend(outer_rows);
                order.push(tile_var.clone());
            }
        }
        let p = nest.var();
        let (total, map) = collapse(&order, p);
        let ahead = s.ahead.then(|| Ahead {
            turn: Ix::var(p).modulo(&reread),
            of: Ix::constant(reread.clone()),
        });
        let look = |v: Var| look_up(&map, v);
        let first_tile = match &block_var {
            None => look(tile_var.0),
            Some((block, _)) => &look(*block).scale(&tiles) + &look(tile_var.0),
        };
        let first_row = first_tile.scale(&height);
        let panel = look(panel_var.0);
        let first_column = panel.scale(&Dim::Const(PANEL));
        let left_in = |first: &Ix, n: &Dim, most: &Dim| {
            let rest = &first.scale(&Dim::Const(-1)) + n;
            if n.modulo(most).is(0) {
                Ix::constant(most.clone())
            } else {
                rest.at_most(most)
            }
        };
        // Of the last block some tiles may lie behind the last row.
        let behind = block_var.as_ref().is_some_and(|(_, blocks)| {
            let last = &(&(blocks * &tiles) - 1) * &height;
            last.as_const().zip(row.1.as_const()).is_none_or(|(last, n)| last >= n)
        });
        let rows = if behind {
            let minus = Dim::Const(-1);
            let rest = &first_row.scale(&minus) + &row.1;
            rest.at_most(&height).scale(&minus).at_most(&Dim::ZERO).scale(&minus)
        } else {
            left_in(&first_row, &row.1, &height)
        };
        let columns = left_in(&first_column, &self.column.1, &Dim::Const(PANEL));
        let base = |v: Var| match v {
            v if v == row.0 => first_row.clone(),
            v if v == self.column.0 => first_column.clone(),
            v if self.steps.iter().any(|s| s.0 == v) => Ix::constant(0),
            v => look(v),
        };

        let (a_buf, a) = self.a;
        let runs = match &self.scaled {
            Some(s) => vec![(s.depth.clone(), Dim::ONE)],
            None => runs(self.a.1, &self.steps),
        };
        let (run, blocks) = runs.split_last().expect("at least one");
        let block = |i: usize| match blocks.len().checked_sub(2 - i).and_then(|j| blocks.get(j)) {
            Some((n, s)) => (Ix::constant(n.clone()), Ix::constant(s.clone())),
            None => (Ix::constant(1), Ix::constant(0)),
        };
        let batch_index = self
            .batch
            .iter()
            .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &look(*v));
        let in_panels = |packing: &Packing| (&batch_index.scale(&panels) + &panel).scale(&packing.panel_size());
        let b_index = in_panels(&self.packing());
        let scales = self.scaled.as_ref().map(|s| {
            let (_, packing) = self.packed().pop().expect("the scales of columns");
            Box::new(s.of_tile(self.steps[0].0, &base, in_panels(&packing)))
        });
        let row_stride = |ix: &Ix| Ix::constant(ix.stride(row.0).expect("affine"));

        let last = flat.stages.last().expect("a contraction has a stage");
        let (out, write) = (&last.writes[0].0, &last.writes[0].1);
        let (c, c_index, c_row) = match (s.direct, out) {
            (true, Target::Buffer(b)) => (*b, write.substitute(&base, &Ix::reg), row_stride(write)),
            _ => {
                let c = nest.scratch(self.sum(), Dim::Const(most * PANEL), Scope::Worker);
                (c, Ix::constant(0), Ix::constant(PANEL))
            }
        };
        let mut body = vec![Stmt::Tile(Box::new(loops::Tile {
            kind: self.kind,
            a: a_buf,
            a_index: a.substitute(&base, &Ix::reg),
            a_row: row_stride(a),
            a_k: Ix::constant(run.1.clone()),
            blocks: [block(0), block(1)],
            k: Ix::constant(run.0.clone()),
            b: self.b.0,
            b_index,
            c,
            c_index,
            c_row,
            rows: rows.clone(),
            max_rows: most as u32,
            cols: columns.clone(),
            accumulate: false,
            ahead,
            scales,
        }))];
        if !s.direct {
            let tile = Computed {
                sums: c,
                dtype: self.sum(),
                rows,
                columns,
                row: row.0,
                column: &self.column,
                base: &base,
                stage: self.summed,
            };
            tile.epilogue(&mut nest, &mut body, lanes);
        }
        nest.kernel.body = vec![parallel(p, total, body)];
        Ok(nest.kernel)
    }
}

/// How rows are cut: tiles of a height, so many in each of some blocks.
struct Cut {
    height: Dim,
    tiles: Dim,
    blocks: Dim,
}

/// The summed dimensions as the left operand sees them, which lies at an affine index: (extent, stride), merged where
/// contiguous, innermost last.
pub fn runs(left: &Ix, steps: &[(Var, Dim)]) -> Vec<(Dim, Dim)> {
    let mut out: Vec<(Dim, Dim)> = vec![];
    for (v, d) in steps.iter().filter(|(_, d)| !d.is(1)) {
        let s = left.stride(*v).expect("affine");
        match out.last_mut() {
            Some((n, t)) if *t == &s * d => (*n, *t) = (&*n * d, s),
            _ => out.push((d.clone(), s)),
        }
    }
    if out.is_empty() {
        out.push((Dim::ONE, Dim::ONE));
    }
    out
}

/// A tile whose sums stand in scratch memory.
struct Computed<'t> {
    sums: Buf,
    dtype: DType,
    rows: Ix,
    columns: Ix,
    row: Var,
    column: &'t (Var, Dim),
    /// What variables are at its first row and column.
    base: &'t dyn Fn(Var) -> Ix,
    /// The stage that writes the sums.
    stage: usize,
}

impl Computed<'_> {
    /// The stages after the contraction.
    fn epilogue(&self, nest: &mut Nest, out: &mut Vec<Stmt>, lanes: i64) {
        let flat = nest.flat;
        let (columns, base) = (&self.columns, self.base);
        let r = nest.var();
        let part = |nest: &mut Nest, lanes: i64, start: &Ix, count: Ix| -> Vec<Stmt> {
            let (j, lane) = (nest.var(), nest.var());
            let mut column = start + &Ix::var(j).scale(&Dim::Const(lanes));
            if lanes > 1 {
                column = &column + &Ix::var(lane);
            }
            let at = |v: Var| {
                if v == self.row {
                    &base(v) + &Ix::var(r)
                } else if v == self.column.0 {
                    &base(v) + &column
                } else {
                    base(v)
                }
            };
            let mut body = vec![];
            let index = &Ix::var(r).scale(&Dim::Const(PANEL)) + &column;
            let sum = nest.set(
                &mut body,
                self.dtype,
                Expr::Load {
                    buffer: self.sums,
                    index,
                    guard: vec![],
                    fill: 0,
                },
            );
            nest.writes(&mut body, &flat.stages[self.stage], &[sum], &[], &at);
            for stage in &flat.stages[self.stage + 1..] {
                let reads = nest.reads(&mut body, stage, &at);
                let values = nest.body(&mut body, &stage.body, &reads);
                nest.writes(&mut body, stage, &values, &reads, &at);
            }
            if lanes > 1 {
                let extent = Ix::constant(lanes);
                body = vec![Stmt::For {
                    var: lane,
                    kind: LoopKind::Vector,
                    extent,
                    body,
                }];
            }
            vec![Stmt::For {
                var: j,
                kind: LoopKind::Serial,
                extent: count,
                body,
            }]
        };
        // Whole vectors, then what is left in shorter ones; a panel has a multiple of both.
        let (mut body, mut done, mut left) = (vec![], Ix::constant(0), columns.clone());
        for lanes in [lanes].into_iter().chain([8, 4, 1].into_iter().filter(|n| *n < lanes)) {
            let w = Dim::Const(lanes);
            let vectors = left.div(&w);
            if vectors.as_const() != Some(0) {
                body.extend(part(nest, lanes, &done, vectors.clone()));
            }
            if self.column.1.as_const().is_some_and(|n| n % lanes == 0) {
                break;
            }
            done = &done + &vectors.scale(&w);
            left = left.modulo(&w);
        }
        out.push(Stmt::For {
            var: r,
            kind: LoopKind::Serial,
            extent: self.rows.clone(),
            body,
        });
    }
}

/// The height of row tiles for `n` rows: as equal as can be, at most `most`.
pub fn balanced(n: &Dim, most: i64) -> Dim {
    let some = |d: Dim| Dim::max(&Dim::ONE, &d);
    let tiles = some(n.ceil_div(&Dim::Const(most)));
    some(n.ceil_div(&tiles))
}
