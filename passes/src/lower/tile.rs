//! Contractions on register tiles.
//!
//! A reducing stage whose body is one f32 product and whose combiner is a sum is a contraction, whatever operator it came
//! from. Its dimensions sort themselves by what strides over them: *rows* move the left operand and the result, the
//! *column* moves the right operand and the result, *batch* dimensions move both, *steps* are summed. The right operand is
//! read from panels `[batch…, ceil(N/32), K, 32]` ([`pack`] makes them, at compile time for weights), the left one in
//! place. The stages after the contraction are its epilogue: they run over the tile while it is in L1.
//!
//! ```text
//! parallel (batch, panel, outer rows, row tile) {
//!   tile C[rows × 32] = Σ A[…] · B[panel]
//!   for r in rows { for j in vector lanes { epilogue } }
//! }
//! ```

use super::flat::{Flat, FlatRead, FlatStage, Target, is_affine};
use super::nest::{Nest, collapse};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::loops::{Buf, Buffer, Expr, Kernel, LoopKind, RegInfo, Scope, Stmt, Tile};
use brolga_ir::scalar::{Inst, Prim};
use brolga_ir::structured::IterKind;
use brolga_ir::{DType, Dim};

/// Columns of a panel.
pub const PANEL: i64 = 32;

/// What the schedule of a contraction may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knobs {
    /// Rows of a tile at most: what the target's kernel family holds in registers.
    pub max_rows: i64,
    /// Bytes of right operand up to which all panels are visited for one group of rows; beyond, a panel is kept and all
    /// rows are visited for it.
    pub resident: i64,
}

/// A contraction recognised in the first stage of a flat kernel.
pub struct Contraction {
    /// Which of its two reads is the left operand.
    left: usize,
    batch: Vec<(Var, Dim)>,
    rows: Vec<(Var, Dim)>,
    column: (Var, Dim),
    steps: Vec<(Var, Dim)>,
}

/// How the right operand has to be packed: what [`pack`] needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packing {
    /// The right operand's parameter.
    pub operand: Buf,
    /// Batch extents and strides in the operand.
    pub batch: Vec<(Dim, Dim)>,
    /// Extents and strides of the summed dimensions, in order.
    pub steps: Vec<(Dim, Dim)>,
    /// Extent and stride of the column.
    pub column: (Dim, Dim),
    /// The first element's index.
    pub offset: Dim,
}

impl Packing {
    /// The logical shape `[batch…, K, N]` of the panels.
    pub fn shape(&self) -> Vec<Dim> {
        let mut s: Vec<Dim> = self.batch.iter().map(|b| b.0.clone()).collect();
        s.push(brolga_ir::dim::product(self.steps.iter().map(|s| &s.0)));
        s.push(self.column.0.clone());
        s
    }
}

fn element(r: &FlatRead) -> Option<(Buf, &Ix)> {
    match r {
        FlatRead::Element {
            target: Target::Buffer(b),
            index,
            guard,
            ..
        } if guard.is_empty() && is_affine(index) => Some((*b, index)),
        _ => None,
    }
}

impl Contraction {
    /// The contraction in a kernel's first stage, when it is one that tiles can do.
    pub fn find(flat: &Flat) -> Option<Contraction> {
        let s = flat.stages.first()?;
        let product = matches!(&s.body.insts[..], [Inst::Prim(Prim::Mul, [a, b, _])] if a.0 + b.0 == 1)
            && s.body.inputs == [DType::F32; 2]
            && s.reads.len() == 2;
        let sum = s.combine.as_ref().is_some_and(|c| {
            c.init == [0] && matches!(&c.body.insts[..], [Inst::Prim(Prim::Add, [a, b, _])] if a.0 + b.0 == 1)
        });
        let plain = s.dims.iter().all(|(_, d)| d.kind == IterKind::Reduction) && !s.scan && !s.scatter;
        if !product || !sum || !plain || s.dims.is_empty() || flat.stages[1..].iter().any(|s| !s.dims.is_empty()) {
            return None;
        }
        let write = flat.stages.last().and_then(|s| s.writes.first()).map(|w| &w.1)?;
        let candidates = [0, 1]
            .into_iter()
            .filter_map(|left| Contraction::oriented(flat, s, left));
        // Prefer the orientation whose columns are contiguous in the result, then the one with more columns.
        candidates.max_by_key(|c| {
            let contiguous = write.stride(c.column.0).is_some_and(|d| d.is(1));
            (contiguous, c.column.1.as_const().unwrap_or(64))
        })
    }

    fn oriented(flat: &Flat, s: &FlatStage, left: usize) -> Option<Contraction> {
        let (_, a) = element(&s.reads[left])?;
        let (_, b) = element(&s.reads[1 - left])?;
        let stride = |ix: &Ix, v: Var| ix.stride(v).expect("affine");
        let (mut batch, mut rows, mut columns) = (vec![], vec![], vec![]);
        for (v, d) in &flat.outer {
            match (stride(a, *v).is(0), stride(b, *v).is(0)) {
                (true, false) => columns.push((*v, d.clone())),
                (_, true) => rows.push((*v, d.clone())),
                (false, false) => batch.push((*v, d.clone())),
            }
        }
        let column = columns.pop()?;
        // Further columns are batches that do not move the left operand.
        batch.extend(columns);
        let steps: Vec<(Var, Dim)> = s.dims.iter().map(|(v, d)| (*v, d.extent.clone())).collect();
        let moves = |v: Var| !stride(b, v).is(0);
        if !steps.iter().all(|(v, d)| moves(*v) || d.is(1)) {
            return None;
        }
        // One row for every batch (a depthwise convolution, with its data on the right): packing would cost as much as the
        // product.
        if rows.is_empty() && !batch.is_empty() {
            return None;
        }
        // A single column wastes the tile.
        if column.1.as_const().is_some_and(|n| n < 2) {
            return None;
        }
        let c = Contraction {
            left,
            batch,
            rows,
            column,
            steps,
        };
        (c.runs(a).len() <= 3).then_some(c)
    }

    /// The summed dimensions as the left operand sees them: (extent, stride), merged where contiguous, innermost last.
    fn runs(&self, a: &Ix) -> Vec<(Dim, Dim)> {
        let mut out: Vec<(Dim, Dim)> = vec![];
        for (v, d) in self.steps.iter().filter(|(_, d)| !d.is(1)) {
            let s = a.stride(*v).expect("affine");
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

    fn right<'a>(&self, flat: &'a Flat) -> (Buf, &'a Ix) {
        element(&flat.stages[0].reads[1 - self.left]).expect("checked when found")
    }

    /// How the right operand is packed.
    pub fn packing(&self, flat: &Flat) -> Packing {
        let (operand, b) = self.right(flat);
        let stride = |v: Var| b.stride(v).expect("affine");
        let of = |(v, d): &(Var, Dim)| (d.clone(), stride(*v));
        Packing {
            operand,
            batch: self.batch.iter().map(of).collect(),
            steps: self.steps.iter().map(of).collect(),
            column: of(&self.column),
            offset: b.offset.clone(),
        }
    }

    /// The kernel, whose right operand's parameter is the panels.
    pub fn schedule(&self, flat: &Flat, knobs: Knobs) -> Kernel {
        let packing = self.packing(flat);
        let mut nest = Nest::new(flat);
        let k = brolga_ir::dim::product(self.steps.iter().map(|s| &s.1));
        let panels = self.column.1.ceil_div(&Dim::Const(PANEL));
        let panel_size = &k * PANEL;
        let batches = brolga_ir::dim::product(self.batch.iter().map(|b| &b.1));
        nest.kernel.buffers[packing.operand.0 as usize].len = &(&batches * &panels) * &panel_size;

        // Rows: the innermost row dimension is cut into tiles of balanced height.
        let (row, outer_rows) = match self.rows.split_last() {
            Some(((v, d), rest)) => ((*v, d.clone()), rest.to_vec()),
            None => ((nest.var(), Dim::ONE), vec![]),
        };
        let height = balanced(&row.1, knobs.max_rows);
        let most = height.as_const().unwrap_or(knobs.max_rows);
        let tile_var = (nest.var(), row.1.ceil_div(&height));
        let panel_var = (nest.var(), panels.clone());
        let small = (&(&panels * &panel_size) * 4)
            .as_const()
            .is_some_and(|b| b <= knobs.resident);
        let mut order = self.batch.clone();
        if small {
            order.extend(outer_rows);
            order.push(tile_var.clone());
            order.push(panel_var.clone());
        } else {
            order.push(panel_var.clone());
            order.extend(outer_rows);
            order.push(tile_var.clone());
        }
        let p = nest.var();
        let (total, map) = collapse(&order, p);
        let look = |v: Var| {
            map.iter()
                .find(|(u, _)| *u == v)
                .map_or_else(|| Ix::var(v), |(_, ix)| ix.clone())
        };
        let first_row = look(tile_var.0).scale(&height);
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
        let rows = left_in(&first_row, &row.1, &height);
        let columns = left_in(&first_column, &self.column.1, &Dim::Const(PANEL));
        let base = |v: Var| match v {
            v if v == row.0 => first_row.clone(),
            v if v == self.column.0 => first_column.clone(),
            v if self.steps.iter().any(|s| s.0 == v) => Ix::constant(0),
            v => look(v),
        };

        let stage = &flat.stages[0];
        let (a_buf, a) = element(&stage.reads[self.left]).expect("checked when found");
        let runs = self.runs(a);
        let (run, blocks) = runs.split_last().expect("at least one");
        let block = |i: usize| match blocks.len().checked_sub(2 - i).and_then(|j| blocks.get(j)) {
            Some((n, s)) => (Ix::constant(n.clone()), Ix::constant(s.clone())),
            None => (Ix::constant(1), Ix::constant(0)),
        };
        let batch_index = self
            .batch
            .iter()
            .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &look(*v));
        let b_index = (&batch_index.scale(&panels) + &panel).scale(&panel_size);
        let row_stride = |ix: &Ix| Ix::constant(ix.stride(row.0).expect("affine"));

        // Without an epilogue the tile writes the result itself, when that is contiguous along the columns.
        let last = flat.stages.last().expect("a kernel has stages");
        let (out, write) = (&last.writes[0].0, &last.writes[0].1);
        let direct = flat.stages.len() <= 2
            && last.body.insts.is_empty()
            && is_affine(write)
            && flat.dtype(*out) == DType::F32
            && write.stride(self.column.0).is_some_and(|d| d.is(1));
        let (c, c_index, c_row) = match (direct, out) {
            (true, Target::Buffer(b)) => (*b, write.substitute(&base, &Ix::reg), row_stride(write)),
            _ => {
                let c = nest.scratch(DType::F32, Dim::Const(most * PANEL), Scope::Worker);
                (c, Ix::constant(0), Ix::constant(PANEL))
            }
        };
        let mut body = vec![Stmt::Tile(Box::new(Tile {
            a: a_buf,
            a_index: a.substitute(&base, &Ix::reg),
            a_row: row_stride(a),
            a_k: Ix::constant(run.1.clone()),
            blocks: [block(0), block(1)],
            k: Ix::constant(run.0.clone()),
            b: packing.operand,
            b_index,
            c,
            c_index,
            c_row,
            rows: rows.clone(),
            max_rows: most as u32,
            cols: columns.clone(),
            accumulate: false,
        }))];
        if !direct {
            self.epilogue(&mut nest, &mut body, c, &rows, &columns, row.0, &base);
        }
        nest.kernel.body = vec![Stmt::For {
            var: p,
            kind: LoopKind::Parallel,
            extent: total,
            body,
        }];
        nest.kernel
    }

    /// The remaining stages over the tile in `c`.
    #[allow(clippy::too_many_arguments)]
    fn epilogue(
        &self,
        nest: &mut Nest,
        out: &mut Vec<Stmt>,
        c: Buf,
        rows: &Ix,
        columns: &Ix,
        row: Var,
        base: &dyn Fn(Var) -> Ix,
    ) {
        let flat = nest.flat;
        let insts: usize = flat.stages[1..].iter().map(|s| s.body.usual() + s.reads.len()).sum();
        let lanes: i64 = if insts <= 10 { 16 } else { 8 };
        let r = nest.var();
        let part = |nest: &mut Nest, lanes: i64, start: &Ix, count: Ix| -> Vec<Stmt> {
            let (j, lane) = (nest.var(), nest.var());
            let mut column = start + &Ix::var(j).scale(&Dim::Const(lanes));
            if lanes > 1 {
                column = &column + &Ix::var(lane);
            }
            let at = |v: Var| {
                if v == row {
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
                DType::F32,
                Expr::Load {
                    buffer: c,
                    index,
                    guard: vec![],
                    fill: 0,
                },
            );
            nest.writes(&mut body, &flat.stages[0], &[sum], &[], &at);
            for stage in &flat.stages[1..] {
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
        for lanes in [lanes, 4, 1] {
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
            extent: rows.clone(),
            body,
        });
    }
}

/// The height of row tiles for `n` rows: as equal as can be, at most `most`.
fn balanced(n: &Dim, most: i64) -> Dim {
    let some = |d: Dim| Dim::max(&Dim::ONE, &d);
    let tiles = some(n.ceil_div(&Dim::Const(most)));
    some(n.ceil_div(&tiles))
}

/// The kernel that packs a right operand into panels: parameter 0 is the operand, parameter 1 the panels.
///
/// ```text
/// for (batch, panel, k, j) { panels[batch, panel, k, j] = 32*panel + j < N ? operand[…] : 0 }
/// ```
pub fn pack(packing: &Packing, operand: &Buffer, name: String, symbols: Vec<brolga_ir::Symbol>) -> Kernel {
    let shape = packing.shape();
    let (n, k) = (shape[shape.len() - 1].clone(), shape[shape.len() - 2].clone());
    let panels = n.ceil_div(&Dim::Const(PANEL));
    let batches = brolga_ir::dim::product(&shape[..shape.len() - 2]);
    let len = &(&(&batches * &panels) * &k) * PANEL;
    let mut next = 0;
    let mut var = || {
        next += 1;
        Var(next - 1)
    };
    let (p, panel) = (var(), var());
    let batch: Vec<(Var, Dim)> = packing.batch.iter().map(|(d, _)| (var(), d.clone())).collect();
    let steps: Vec<(Var, Dim)> = packing.steps.iter().map(|(d, _)| (var(), d.clone())).collect();
    let (block, lane) = (var(), var());
    let order: Vec<(Var, Dim)> = batch.iter().cloned().chain([(panel, panels.clone())]).collect();
    let (total, map) = collapse(&order, p);
    let look = |v: Var| {
        map.iter()
            .find(|(u, _)| *u == v)
            .map_or_else(|| Ix::var(v), |(_, ix)| ix.clone())
    };
    let j = &Ix::var(block).scale(&Dim::Const(16)) + &Ix::var(lane);
    let column = &look(panel).scale(&Dim::Const(PANEL)) + &j;
    let mut from = &Ix::constant(packing.offset.clone()) + &column.scale(&packing.column.1);
    for ((v, _), (_, s)) in batch.iter().zip(&packing.batch).chain(steps.iter().zip(&packing.steps)) {
        from = &from + &look(*v).scale(s);
    }
    let step = steps
        .iter()
        .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &Ix::var(*v));
    let b = batch.iter().fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &look(*v));
    let panel_at = &b.scale(&panels) + &look(panel);
    let to = &(&panel_at.scale(&k) + &step).scale(&Dim::Const(PANEL)) + &j;
    let whole = n.as_const().is_some_and(|n| n % PANEL == 0);
    let guard = if whole {
        vec![]
    } else {
        vec![Bound {
            index: column,
            extent: n,
        }]
    };
    let r = brolga_ir::index::Reg(0);
    let inner = vec![
        Stmt::Set(
            r,
            Expr::Load {
                buffer: Buf(0),
                index: from,
                guard,
                fill: 0,
            },
        ),
        Stmt::Store {
            buffer: Buf(1),
            index: to,
            value: r,
        },
    ];
    let vector = Stmt::For {
        var: lane,
        kind: LoopKind::Vector,
        extent: Ix::constant(16),
        body: inner,
    };
    let halves = Stmt::For {
        var: block,
        kind: LoopKind::Serial,
        extent: Ix::constant(2),
        body: vec![vector],
    };
    let loops: Vec<(Var, Ix)> = steps.into_iter().map(|(v, d)| (v, Ix::constant(d))).collect();
    let body = Nest::serial(&loops, vec![halves]);
    Kernel {
        name,
        symbols,
        buffers: vec![
            Buffer {
                scope: Scope::In,
                ..operand.clone()
            },
            Buffer {
                dtype: operand.dtype,
                len,
                scope: Scope::Out,
            },
        ],
        regs: vec![RegInfo {
            dtype: operand.dtype,
            lanes: 1,
        }],
        body: vec![Stmt::For {
            var: p,
            kind: LoopKind::Parallel,
            extent: total,
            body,
        }],
    }
}
