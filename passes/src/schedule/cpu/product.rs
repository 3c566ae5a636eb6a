//! A stage of a tree as register tiles: the rows are the points that go through the tree together, the column is the innermost
//! of the stage's own dimensions that move only the right operand, which is read from panels.
//!
//! ```text
//! stage parallel(N) reduce(K) { l1[n] = Σ l0[k] · o1[n, k] }    for panel in 0..ceil(N/32) {
//!                                                         -->    tile l1[rows × 32] = Σ l0[rows, …] · o1[panel]
//!                                                              }
//! ```
//!
//! One dimension of the right operand may be visited in blocks by a loop around the stage, the last of which is cut short by a
//! guard: its panels are those of the whole dimension, and the tiles of the last block are as much smaller.
//!
//! ```text
//! loop(ceil(N/128)) { stage parallel(128) reduce(K) { l1[n] = Σ l0[k] · o1[128·block + n, k] where 128·block + n < N } }
//! ```

use super::super::contraction::is_sum;
use super::super::flat::{Flat, FlatRead, FlatStage, Target, is_affine, stride_is_one};
use super::super::nest::{Nest, Point};
use super::super::packing::{Beside, Packing, Prologue};
use super::super::sums::on_lanes;
use super::tile::runs;
use super::tree::{Group, tile_stride};
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Term, Var};
use brolga_ir::loops::{self, Buf, Expr, Grain, LoopKind, PANEL, Stmt, WIDEST};
use brolga_ir::scalar::{Body, Builder, Inst, Prim, V};
use brolga_ir::structured::IterKind;
use brolga_ir::{DType, Dim, Number, TileKind};

/// A stage that register tiles can do.
pub struct Product<'f> {
    flat: &'f Flat,
    /// The left operand: a local, or a parameter in place.
    left: (Target, &'f Ix),
    /// The right operand, or the first that its elements are computed of.
    right: (Buf, &'f Ix),
    /// How they are computed, where that is not what lies there.
    prologue: Option<Computed<'f>>,
    /// The result.
    out: (Target, &'f Ix),
    /// What moves the right operand beside the column and the steps.
    batch: Vec<(Var, Dim)>,
    /// The stage's own dimensions but the column.
    around: Vec<(Var, Dim)>,
    column: (Var, Dim),
    steps: Vec<(Var, Dim)>,
    /// The dimension of the stage that is visited in blocks.
    blocked: Option<Blocked>,
    /// The innermost loop around the stage, where each of its iterations reads the same panels.
    repeated: Option<Var>,
}

/// How elements of a right operand are computed.
struct Computed<'f> {
    /// Of the operand's element, and those beside it.
    body: Body,
    /// What else is read.
    beside: Vec<(Buf, &'f Ix)>,
}

/// A dimension in blocks.
struct Blocked {
    /// The stage's variable inside of a block.
    within: Var,
    /// The loop's variable that counts blocks.
    block: Var,
    /// Elements of a block.
    size: Dim,
    /// Elements of the dimension.
    extent: Dim,
}

impl Blocked {
    /// The elements of a block, from this one of it on, that are there; all where none is cut short.
    fn left(&self, block: &Ix, first: &Ix, most: &Dim) -> Ix {
        let done = &block.scale(&self.size) + first;
        (&done.scale(&Dim::Const(-1)) + &self.extent).at_most(most)
    }
}

/// Columns that tiles of one width do.
struct Span {
    /// Panels before the first.
    before: i64,
    /// Panels of a tile.
    panels: i64,
    /// How many tiles; as many as there are panels left where nothing is said.
    tiles: Option<i64>,
    /// Whether workers share them.
    shared: bool,
}

/// The two factors of a stage's f32 value.
fn factors(stage: &FlatStage) -> Option<[V; 2]> {
    let [out] = stage.body.outputs[..] else { return None };
    match stage.body.inst(out) {
        Some(Inst::Prim(Prim::Mul, [a, b, _])) if stage.body.dtype(out) == DType::F32 => Some([a, b]),
        _ => None,
    }
}

/// A body with other values as its results, and no more than they need.
fn results(body: &Body, values: &[V]) -> Body {
    let mut b = Builder::new(&body.inputs);
    let args: Vec<V> = (0..body.inputs.len()).map(|i| b.input(i)).collect();
    let whole = Body {
        outputs: values.to_vec(),
        ..body.clone()
    };
    let out = b.inline(&whole, &args);
    b.finish(&out)
}

/// How many variables move a read.
fn uses(read: &FlatRead) -> usize {
    match read {
        FlatRead::Element { index, .. } => index.terms.len(),
        _ => 0,
    }
}

/// What a value of a body is computed by, and of which inputs: first the one that counts most.
fn part(body: &Body, v: V, counts: impl Fn(usize) -> usize) -> (Body, Vec<usize>) {
    let mut needed = vec![false; body.len()];
    needed[v.0 as usize] = true;
    let n = body.inputs.len();
    for (i, inst) in body.insts.iter().enumerate().rev() {
        if let (true, Inst::Prim(_, args)) = (needed[n + i], inst) {
            args.iter().for_each(|a| needed[a.0 as usize] = true);
        }
    }
    let mut inputs: Vec<usize> = (0..n).filter(|&i| needed[i]).collect();
    inputs.sort_by_key(|&i| std::cmp::Reverse(counts(i)));
    let mut b = Builder::new(&inputs.iter().map(|&i| body.inputs[i]).collect::<Vec<_>>());
    let args: Vec<V> = (0..n)
        .map(|i| match inputs.iter().position(|&j| j == i) {
            Some(at) => b.input(at),
            None => b.constant(body.inputs[i], Number::Int(0)),
        })
        .collect();
    let whole = Body {
        outputs: vec![v],
        ..body.clone()
    };
    let out = b.inline(&whole, &args);
    (b.finish(&out), inputs)
}

/// A number below `n`, upwards as the variable goes in even iterations of a loop around, downwards in odd ones: of panels that do
/// not all fit in a cache, those that were read last are there when the next iteration starts with them.
fn there_and_back(iteration: &Ix, v: Var, n: i64) -> Ix {
    let way = (&iteration.scale(&Dim::Const(n)) + &Ix::var(v)).modulo(&Dim::Const(2 * n));
    // From n on it is 2n - 1 - way.
    let back = &way.scale(&Dim::Const(-2)) + &Dim::Const(2 * n - 1);
    &way + &back.at_most(&Dim::ZERO)
}

/// The blocks that the guard of a right operand tells of.
fn blocked(stage: &FlatStage, index: &Ix, guard: &[Bound], outside: &[(Var, Dim)]) -> Option<Blocked> {
    let [bound] = guard else { return None };
    let (within, d) = stage.dims.iter().find(|(v, _)| bound.index.uses(*v))?;
    let (block, _) = outside.iter().find(|(v, _)| bound.index.uses(*v))?;
    let size = &d.extent;
    let whole = &Ix::var(*block).scale(size) + &Ix::var(*within);
    let moves = index.stride(*block)? == &index.stride(*within)? * size;
    (bound.index == whole && moves).then(|| Blocked {
        within: *within,
        block: *block,
        size: size.clone(),
        extent: bound.extent.clone(),
    })
}

impl<'f> Product<'f> {
    /// The product that a stage is, inside these dimensions of the kernel; its rows lie along others.
    ///
    /// # Errors
    /// Why tiles cannot do it.
    pub fn of(
        flat: &'f Flat,
        stage: &'f FlatStage,
        outside: &[(Var, Dim)],
        along: &[(Var, Dim)],
    ) -> Result<Product<'f>, String> {
        let plain = !stage.scan && !stage.scatter && stage.checks.is_empty();
        let sums = stage.combine.as_ref().is_some_and(is_sum);
        let Some(factors) = factors(stage).filter(|_| plain && sums) else {
            return Err("it is no sum of products of f32 values, of which one is read".into());
        };
        Product::with(flat, stage, outside, along, factors)
            .or_else(|_| Product::with(flat, stage, outside, along, [factors[1], factors[0]]))
    }

    /// The product with this one of the factors as left operand, which is read; the other may be computed of what is read.
    fn with(
        flat: &'f Flat,
        stage: &'f FlatStage,
        outside: &[(Var, Dim)],
        along: &[(Var, Dim)],
        [left_of, right_of]: [V; 2],
    ) -> Result<Product<'f>, String> {
        let read = |r: &'f FlatRead| match r {
            FlatRead::Element {
                target,
                index,
                guard,
                fill,
            } if is_affine(index) && (guard.is_empty() || *fill == 0) => Ok((*target, index, guard)),
            _ => Err("an operand lies at no affine places"),
        };
        if stage.body.inst(left_of).is_some() {
            return Err("the left operand is computed".into());
        }
        let (target, index, padding) = read(&stage.reads[left_of.0 as usize])?;
        let left = (target, index);
        let (body, inputs) = part(&stage.body, right_of, |i| uses(&stage.reads[i]));
        if inputs.contains(&(left_of.0 as usize)) {
            return Err("the right operand is computed of the left one".into());
        }
        let Some((&first, others)) = inputs.split_first() else {
            return Err("the right operand is a constant".into());
        };
        let (right, place, guard) = read(&stage.reads[first])?;
        let mut beside = vec![];
        for &i in others {
            let (target, index, bounds) = read(&stage.reads[i])?;
            let fits = bounds == guard && !along.iter().any(|(r, _)| index.uses(*r));
            match target {
                Target::Buffer(b) if fits && flat.buffers[b.0 as usize].scope == loops::Scope::In => {
                    beside.push((b, index));
                }
                _ => return Err("the right operand is computed of what lies in no panels".into()),
            }
        }
        let prologue = (!body.insts.is_empty()).then_some(Computed { body, beside });
        let blocked = blocked(stage, place, guard, outside);
        if !padding.is_empty() || (blocked.is_none() && !guard.is_empty()) {
            return Err("an operand has padding".into());
        }
        let right = match right {
            Target::Buffer(b) if flat.buffers[b.0 as usize].scope == loops::Scope::In => (b, place),
            _ => return Err("the right operand is computed in the kernel, and so cannot lie in panels".into()),
        };
        let own = |kind: IterKind| {
            let some = stage.dims.iter().filter(move |(_, d)| d.kind == kind);
            some.map(|(v, d)| (*v, d.extent.clone()))
        };
        let mut around: Vec<(Var, Dim)> = own(IterKind::Parallel).collect();
        let column = around.iter().rposition(|(v, _)| right.1.uses(*v) && !left.1.uses(*v));
        let column = around.remove(column.ok_or("no dimension of the stage moves the right operand alone")?);
        let steps: Vec<(Var, Dim)> = own(IterKind::Reduction).collect();
        if along.iter().any(|(r, _)| right.1.uses(*r)) {
            return Err("each row has a right operand of its own".into());
        }
        if !steps.iter().all(|(v, d)| right.1.uses(*v) || d.is(1)) {
            return Err("a summed dimension does not move the right operand".into());
        }
        let out = (stage.writes[0].0, &stage.writes[0].1);
        if !stride_is_one(out.1, column.0) || !is_affine(out.1) {
            return Err("the columns are not contiguous in the result".into());
        }
        if runs(left.1, &steps).len() > 3 {
            return Err("the left operand is summed over in more than 3 strides".into());
        }
        if let Some(b) = &blocked {
            let column = b.within == column.0 && b.size.modulo(&Dim::Const(PANEL)).is(0);
            if !column && !matches!(steps[..], [(v, _)] if v == b.within) {
                return Err("blocks of no whole panels, or of one of several summed dimensions".into());
            }
        }
        let counts = |v: Var| blocked.as_ref().is_some_and(|b| b.block == v);
        let moves = |d: &&(Var, Dim)| right.1.uses(d.0) && !counts(d.0);
        let known = |v: Var| right.1.uses(v) || !outside.iter().chain(&around).any(|d| d.0 == v);
        if let Some(c) = &prologue
            && !c
                .beside
                .iter()
                .all(|(_, ix)| ix.terms.iter().all(|(t, _)| matches!(t, Term::Var(v) if known(*v))))
        {
            return Err("the right operand is computed of what is moved by more than itself".into());
        }
        Ok(Product {
            flat,
            left,
            right,
            prologue,
            out,
            batch: outside.iter().chain(&around).filter(moves).cloned().collect(),
            around,
            column,
            steps,
            blocked,
            repeated: None,
        })
    }

    /// The product inside of a loop.
    pub fn repeated(self, by: Option<Var>) -> Product<'f> {
        let repeated = by.filter(|v| !self.right.1.uses(*v));
        Product { repeated, ..self }
    }

    /// About how many cycles it takes for so many rows, where that is known: a step of a panel is one.
    pub fn cycles(&self, rows: i64) -> Option<i64> {
        let own = self.around.iter().chain(&self.steps).map(|(_, d)| d);
        let panels = self.column.1.ceil_div(&Dim::Const(PANEL));
        (&(&product(own) * &panels) * rows).as_const()
    }

    /// The extent of a dimension in the panels.
    fn extent(&self, (v, d): &(Var, Dim)) -> Dim {
        match &self.blocked {
            Some(b) if b.within == *v => b.extent.clone(),
            _ => d.clone(),
        }
    }

    /// The right operand's parameter, and how it is packed.
    pub fn packed(&self) -> (Buf, Packing) {
        let of = |d: &(Var, Dim)| (self.extent(d), self.right.1.stride(d.0).expect("affine"));
        let beside = |&(operand, ix): &(Buf, &Ix)| {
            let of = |dims: &[(Var, Dim)]| dims.iter().map(|d| ix.stride(d.0).expect("affine")).collect();
            Beside {
                operand,
                batch: of(&self.batch),
                steps: of(&self.steps),
                column: ix.stride(self.column.0).expect("affine"),
                offset: ix.offset.clone(),
            }
        };
        let packing = Packing {
            prologue: self.prologue.as_ref().map(|c| Prologue {
                body: c.body.clone(),
                beside: c.beside.iter().map(beside).collect(),
            }),
            kind: TileKind::F32,
            run: self.steps.len(),
            batch: self.batch.iter().map(of).collect(),
            steps: self.steps.iter().map(of).collect(),
            column: of(&self.column),
            offset: self.right.1.offset.clone(),
        };
        (self.right.0, packing)
    }

    /// Whether workers can share the tiles: there are several, as many in every iteration of the loops around.
    ///
    /// # Errors
    /// Why not.
    pub fn can_be_shared(&self) -> Result<(), String> {
        match (&self.blocked, self.column.1.as_const()) {
            (Some(_), _) => Err("workers cannot share blocks of a dimension".into()),
            (None, Some(..=PANEL) | None) => {
                Err("workers cannot share one panel, or a number of them that is not known".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether columns can be read where they lie, side by side.
    ///
    /// # Errors
    /// Why not.
    pub fn can_be_read_in_place(&self) -> Result<(), String> {
        let beside = self.prologue.iter().flat_map(|c| &c.beside);
        let near = |ix: &Ix| !ix.uses(self.column.0) || stride_is_one(ix, self.column.0);
        match (&self.blocked, stride_is_one(self.right.1, self.column.0)) {
            (Some(_), _) => Err("columns in blocks of a dimension".into()),
            (None, true) if beside.into_iter().all(|(_, ix)| near(ix)) => Ok(()),
            _ => Err("the columns are not contiguous in the right operand".into()),
        }
    }

    /// Whether each of several batches has panels of its own.
    pub fn has_batches(&self) -> bool {
        !self.batch.is_empty()
    }

    /// The stage at one point, columns side by side: steps are added in the order and with the rounding of tiles.
    ///
    /// ```text
    /// for columns in N / 64 { acc = 0  for k in 0..K { vector 64 { acc = fma(left[k], right[k, column], acc) } }  out[column] = acc }
    /// ```
    pub fn columns(&self, nest: &mut Nest, stage: &FlatStage, lanes: u32, at: &Point) -> Vec<Stmt> {
        let (column, extent) = &self.column;
        let own = |u: Var| self.around.iter().chain(&self.steps).any(|d| d.0 == u);
        let factors = results(&stage.body, &factors(stage).expect("a product"));
        let loops = |dims: &[(Var, Dim)]| -> Vec<(Var, Ix)> {
            dims.iter().map(|(v, d)| (*v, Ix::constant(d.clone()))).collect()
        };
        let mut body = vec![];
        let (mut done, mut left) = (Ix::constant(0), Ix::constant(extent.clone()));
        for lanes in [lanes]
            .into_iter()
            .chain([16, 8, 4, 1].into_iter().filter(|n| *n < lanes))
        {
            let w = Dim::Const(lanes.into());
            let count = left.div(&w);
            if count.as_const() != Some(0) {
                let (c, lane) = (nest.var(), nest.var());
                let first = &done + &Ix::var(c).scale(&w);
                let here = if lanes > 1 { &first + &Ix::var(lane) } else { first };
                let point = |u: Var| match u {
                    u if u == *column => here.clone(),
                    u if own(u) => Ix::var(u),
                    u => at(u),
                };
                let sum = nest.reg(DType::F32, lanes);
                let mut step = vec![];
                let reads = nest.reads(&mut step, stage, &point);
                let both = nest.body(&mut step, &factors, &reads);
                let next = nest.set(&mut step, DType::F32, Expr::Prim(Prim::Fma, [both[0], both[1], sum]));
                step.push(Stmt::Set(sum, Expr::Copy(next)));
                nest.lane = lane;
                let step = on_lanes(nest, lanes, step);
                let mut tile = vec![Stmt::Set(sum, Expr::Const(0))];
                tile.extend(Nest::serial(&loops(&self.steps), step));
                let mut last = vec![];
                nest.writes(&mut last, stage, &[sum], &[], &point);
                tile.extend(on_lanes(nest, lanes, last));
                body.extend(Nest::serial(&[(c, count.clone())], tile));
            }
            done = &done + &count.scale(&w);
            left = left.modulo(&w);
            if left.as_const() == Some(0) {
                break;
            }
        }
        Nest::serial(&loops(&self.around), body)
    }

    /// The tiles for a group of points, which workers may share. Those of a single row are as wide as can be.
    pub fn tiles(&self, nest: &mut Nest, group: &Group, shared: bool) -> Vec<Stmt> {
        let whole = match (&self.blocked, self.column.1.as_const()) {
            (None, Some(n)) if group.most == 1 => n / WIDEST,
            _ => 0,
        };
        let wide = (whole > 0).then_some(Span {
            before: 0,
            panels: WIDEST / PANEL,
            tiles: Some(whole),
            shared,
        });
        let rest = (self.column.1.as_const() != Some(whole * WIDEST)).then_some(Span {
            before: whole * (WIDEST / PANEL),
            panels: 1,
            tiles: None,
            // What is left beside wide tiles is less than one of them.
            shared: shared && whole == 0,
        });
        let spans = wide.into_iter().chain(rest);
        spans.flat_map(|span| self.span(nest, group, &span)).collect()
    }

    /// The tiles over some of the columns.
    fn span(&self, nest: &mut Nest, group: &Group, span: &Span) -> Vec<Stmt> {
        let panels = self.extent(&self.column).ceil_div(&Dim::Const(PANEL));
        let panel_size = &product(self.steps.iter().map(|s| self.extent(s)).collect::<Vec<_>>().iter()) * PANEL;
        let batches = product(self.batch.iter().map(|b| &b.1));
        let packed = &mut nest.kernel.buffers[self.right.0.0 as usize];
        (packed.dtype, packed.len) = (DType::F32, &(&batches * &panels) * &panel_size);
        let tile = nest.var();
        // Workers turn in what they had.
        let by = self.repeated.map(|by| (group.at)(by));
        let repeated = by.as_ref().filter(|_| !span.shared);
        let turn = match (repeated, span.tiles) {
            (Some(by), Some(tiles)) => there_and_back(by, tile, tiles),
            _ => Ix::var(tile),
        };
        let panel = &turn.scale(&Dim::Const(span.panels)) + &Dim::Const(span.before);
        let first = panel.scale(&Dim::Const(PANEL));
        let at = |v: Var| match v {
            v if v == self.column.0 => first.clone(),
            v if self.steps.iter().any(|s| s.0 == v) => Ix::constant(0),
            v if self.around.iter().any(|s| s.0 == v) => Ix::var(v),
            v => group.coordinate(&Ix::constant(0), v),
        };
        // Where a target lies for the first row, and how far the next row is.
        let place = |nest: &Nest, (target, index): (Target, &Ix)| match target {
            Target::Buffer(b) => (b, index.substitute(&at, &Ix::reg), Ix::constant(group.stride(index))),
            Target::Local(l) => {
                let row = tile_stride(&self.flat.locals[l as usize]);
                (nest.tile_of(l), index.substitute(&at, &Ix::reg), Ix::constant(row))
            }
        };
        let runs = runs(self.left.1, &self.steps);
        let (run, blocks) = runs.split_last().expect("at least one");
        let block = |i: usize| match blocks.len().checked_sub(2 - i).and_then(|j| blocks.get(j)) {
            Some((n, s)) => (Ix::constant(n.clone()), Ix::constant(s.clone())),
            None => (Ix::constant(1), Ix::constant(0)),
        };
        let batch = self
            .batch
            .iter()
            .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &at(*v));
        let (a, a_index, a_row) = place(nest, self.left);
        let (c, c_index, c_row) = place(nest, self.out);
        let whole = Dim::Const(PANEL);
        let mut count = match span.tiles {
            Some(n) => Ix::constant(n),
            None => Ix::constant(&self.column.1.ceil_div(&whole) - span.before),
        };
        let mut cols = match self.column.1.as_const() {
            _ if span.tiles.is_some() => Ix::constant(span.panels * PANEL),
            Some(n) if n % PANEL == 0 => Ix::constant(PANEL),
            _ => (&first.scale(&Dim::Const(-1)) + &self.column.1).at_most(&whole),
        };
        let mut k = Ix::constant(run.0.clone());
        let mut b_index = (&batch.scale(&panels) + &panel).scale(&panel_size);
        if let Some(b) = &self.blocked {
            let block = (group.at)(b.block);
            let done = block.scale(&b.size);
            if b.within == self.column.0 {
                let blocks = b.size.floor_div(&whole);
                count = (&block.scale(&(&blocks * -1)) + &panels).at_most(&blocks);
                cols = b.left(&block, &first, &whole);
                b_index = &b_index + &done.scale(&panel_size.floor_div(&whole));
            } else {
                k = b.left(&block, &Ix::constant(0), &b.size);
                b_index = &b_index + &done.scale(&whole);
            }
        }
        let product = Stmt::Tile(Box::new(loops::Tile {
            kind: TileKind::F32,
            a,
            a_index,
            a_row,
            a_k: Ix::constant(run.1.clone()),
            blocks: [block(0), block(1)],
            k,
            b: self.right.0,
            b_index,
            c,
            c_index,
            c_row,
            rows: group.rows.clone(),
            max_rows: group.most as u32,
            cols,
            accumulate: false,
            ahead: None,
            scales: None,
        }));
        let tiles = match span.shared {
            true => vec![Stmt::For {
                var: tile,
                kind: LoopKind::Parallel(Grain {
                    turn: by.and_then(|by| by.as_var()),
                    ..Grain::ALWAYS
                }),
                extent: count,
                body: vec![product],
            }],
            false => Nest::serial(&[(tile, count)], vec![product]),
        };
        let around: Vec<(Var, Ix)> = self.around.iter().map(|(v, d)| (*v, Ix::constant(d.clone()))).collect();
        Nest::serial(&around, tiles)
    }
}
