//! Register tiles: calls of the assembled kernels where the target has them, else of one that Cranelift compiles.
//!
//! A tile may be larger than a kernel of the target's family: rows are cut into groups, as equal as can be where their
//! number is known, and columns into kernels beside each other: on AVX2 a panel of 32 columns is two. Where the number of rows is known
//! only at run time, a jump table leads to the kernel.

use super::Body;
use super::generic_tile::GenericTile;
use crate::Error;
use crate::clif::outline::Outline;
use crate::clif::unit::Unit;
use crate::listing::Listing;
use crate::x86::{self, Isa, TileArgs, TileKey, balance_rows};
use brolga_ir::index::{Ix, Term};
use brolga_ir::loops::{Ahead, Buf, PANEL, Scales, Tile};
use brolga_ir::{Dim, TileFamily, TileKind};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockCall, InstBuilder, JumpTableData, MemFlagsData, StackSlot, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// A tile on an assembled family.
struct Plan {
    family: TileFamily,
    kind: TileKind,
    vectors: u8,
    unit_k: bool,
    ahead: bool,
    limit: u8,
    /// The numbers of rows that occur.
    rows: Vec<u32>,
}

const ARGS: MemFlagsData = MemFlagsData::trusted();

/// Up to how many numbers of rows are told apart by comparisons instead of a table.
const MAX_COMPARED: usize = 3;

/// Bytes of an element of the left operand, the right one and the result.
fn bytes(t: &Tile) -> [i64; 3] {
    t.kind.dtypes().map(|d| d.bytes() as i64)
}

/// The fields that seldom depend on a loop, with what one unit of them is in the arguments.
fn strides(t: &Tile) -> [(usize, &Ix, i64); 8] {
    let [(blocks0, step0), (blocks1, step1)] = &t.blocks;
    let [a, _, c] = bytes(t);
    [
        (TileArgs::A_ROW, &t.a_row, a),
        (TileArgs::A_K, &t.a_k, a),
        (TileArgs::C_ROW, &t.c_row, c),
        (TileArgs::K, &t.k, 1),
        (TileArgs::BLOCKS0, blocks0, 1),
        (TileArgs::A_BLOCK0, step0, a),
        (TileArgs::BLOCKS1, blocks1, 1),
        (TileArgs::A_BLOCK1, step1, a),
    ]
}

/// The fields of a tile's arguments that differ with its columns.
struct Pointers {
    b: Value,
    c: Value,
    cols: Value,
}

/// What depends on the first row of a kernel: a field of the arguments, its value for the first row of the tile, and how far on the
/// next row is.
type ByRow = (usize, Value, Value);

impl Body<'_, '_, '_> {
    /// Makes a tile's arguments, and fills in what does not depend on loops; for the entry block.
    pub fn prepare_tile(&mut self, t: &Tile) -> Result<StackSlot, Error> {
        const LINE: usize = 64;
        let scratch = TileArgs::scratch_bytes(self.e.unit.target.tile, t.kind);
        let aligned = if scratch > 0 { LINE - 8 } else { 0 };
        let slot = self.e.slot((TileArgs::SIZE + scratch + aligned) as u32, 3);
        let args = self.e.slot_addr(slot);
        if scratch > 0 {
            let at = self.e.b.ins().iadd_imm_s(args, (TileArgs::SIZE + aligned) as i64);
            let at = self.e.b.ins().band_imm_s(at, -(LINE as i64));
            self.e.b.ins().store(ARGS, at, args, TileArgs::SCRATCH as i32);
        }
        for (offset, e, scale) in strides(t) {
            if e.as_dim().is_some() {
                self.store_field(args, offset, e, scale)?;
            }
        }
        let v = self.e.int(i64::from(t.accumulate));
        self.e.b.ins().store(ARGS, v, args, TileArgs::ACCUMULATE as i32);
        Ok(slot)
    }

    fn store_field(&mut self, args: Value, offset: usize, e: &Ix, scale: i64) -> Result<(), Error> {
        let v = self.ix(e)?;
        let v = self.e.times(v, scale);
        self.e.b.ins().store(ARGS, v, args, offset as i32);
        Ok(())
    }

    pub fn tile(&mut self, t: &Tile) -> Result<(), Error> {
        let Some(slot) = self.tile_args(t) else {
            return Err(self.error("a tile that is not among the kernel's statements".into()));
        };
        let args = self.e.slot_addr(slot);
        for (offset, e, scale) in strides(t) {
            if e.as_dim().is_none() {
                self.store_field(args, offset, e, scale)?;
            }
        }
        let a = self.pointer(t.a, &t.a_index)?;
        let first = Pointers {
            b: self.pointer(t.b, &t.b_index)?,
            c: self.pointer(t.c, &t.c_index)?,
            cols: self.ix(&t.cols)?,
        };
        let [a_bytes, b_bytes, c_bytes] = bytes(t);
        let a_row = self.bytes(&t.a_row, a_bytes)?;
        let c_row = self.bytes(&t.c_row, c_bytes)?;
        let rows = self.ix(&t.rows)?;
        let plan = self.plan(t);
        let width = plan.as_ref().map_or(PANEL, Plan::width);
        let step = PANEL * t.kind.interleave() * b_bytes;
        let mut by_row = vec![(TileArgs::A, a, a_row)];
        if let Some(s) = &t.scales {
            by_row.extend(self.scales(s, args)?);
        }
        if let (Some(ahead), Some(plan)) = (&t.ahead, &plan) {
            by_row.push(self.ahead(t, ahead, plan, args, first.b)?);
        }
        let panel = match t.panels() {
            1 => None,
            _ => Some(self.panel_bytes(t, step)?),
        };
        let known = t.cols.as_const();
        for start in (0..known.unwrap_or(PANEL)).step_by(width as usize) {
            let mut b = self.e.b.ins().iadd_imm_s(first.b, start % PANEL * (step / PANEL));
            if let Some(panel) = panel {
                let before = self.e.times(panel, start / PANEL);
                b = self.e.b.ins().iadd(b, before);
            }
            let here = Pointers {
                b,
                c: self.e.b.ins().iadd_imm_s(first.c, start * c_bytes),
                cols: match known {
                    Some(n) => self.e.int(width.min(n - start)),
                    None => self.e.b.ins().iadd_imm_s(first.cols, -start),
                },
            };
            // Where the number of columns is not known, those of later kernels may not be there.
            let open = (start > 0 && known.is_none()).then(|| {
                let more = self.e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, here.cols, 0);
                self.e.begin_if(more)
            });
            self.point(args, &here);
            if let Some(s) = &t.scales {
                self.column_scales(s, args, start)?;
            }
            for &(offset, first, _) in &by_row {
                self.e.b.ins().store(ARGS, first, args, offset as i32);
            }
            match &plan {
                Some(plan) => {
                    let own = (TileArgs::C, here.c, c_row);
                    self.rows(plan, args, rows, &[&by_row[..], &[own]].concat())?;
                }
                None => {
                    let f = self.e.unit.outline(&GenericTile(t.kind))?;
                    self.e.call(f, &[args, rows]);
                }
            }
            if let Some(open) = open {
                self.e.end_if(open);
            }
        }
        Ok(())
    }

    /// Writes from a block of the scales of rows to the next, and gives those of the first one.
    fn scales(&mut self, s: &Scales, args: Value) -> Result<Vec<ByRow>, Error> {
        self.store_field(args, TileArgs::A_SCALE_BLOCK, &s.a_block, 4)?;
        let next = self.e.int(4);
        let total = s.minima.map_or(s.a, |m| m.total);
        let fields = [
            (TileArgs::A_SCALE, s.a),
            (TileArgs::A_OFFSET, s.offset),
            (TileArgs::A_TOTAL, total),
        ];
        let one = |(field, b)| Ok((field, self.pointer(b, &s.a_index)?, next));
        fields.into_iter().map(one).collect()
    }

    /// Writes where the scales of columns are, from this one on.
    fn column_scales(&mut self, s: &Scales, args: Value, start: i64) -> Result<(), Error> {
        let fields = [
            (TileArgs::B_SCALE, Some(s.b)),
            (TileArgs::B_MINIMA, s.minima.map(|m| m.b)),
        ];
        for (field, b) in fields {
            let at = match b {
                Some(b) => {
                    let first = self.pointer(b, &s.b_index)?;
                    self.e.b.ins().iadd_imm_s(first, 2 * start)
                }
                None => self.e.int(0),
            };
            self.e.b.ins().store(ARGS, at, args, field as i32);
        }
        Ok(())
    }

    fn pointer(&mut self, b: Buf, index: &Ix) -> Result<Value, Error> {
        let (at, offset) = self.address(b, index)?;
        Ok(self.e.b.ins().iadd_imm_s(at, i64::from(offset)))
    }

    /// Writes how far on a tile fetches at each step, and gives where it begins: in the panel behind its own. All kernels of a tile
    /// together do its part of that, so that each does a part of the part.
    fn ahead(&mut self, t: &Tile, ahead: &Ahead, plan: &Plan, args: Value, b: Value) -> Result<ByRow, Error> {
        let [_, b_bytes, _] = bytes(t);
        let step = PANEL * t.kind.interleave() * b_bytes;
        let steps = self.panel_bytes(t, PANEL * b_bytes)?;
        let (turn, of) = (self.ix(&ahead.turn)?, self.ix(&ahead.of)?);
        let one = self.e.int(1);
        let of = self.e.b.ins().smax(of, one);
        let part = self.e.b.ins().udiv(steps, of);
        let before = self.e.b.ins().imul(part, turn);
        let next = self.e.b.ins().iadd(b, steps);
        let first = self.e.b.ins().iadd(next, before);
        let kernels = t.max_rows.div_ceil(u32::from(plan.limit)).max(1);
        let parts = self.e.times(of, i64::from(kernels));
        let up = self.e.b.ins().iadd_imm_s(parts, step - 1);
        let each = self.e.b.ins().udiv(up, parts);
        self.e.b.ins().store(ARGS, each, args, TileArgs::AHEAD_STEP as i32);
        let most = self.e.int(i64::from(t.max_rows.max(1)));
        let by_row = self.e.b.ins().udiv(part, most);
        Ok((TileArgs::AHEAD, first, by_row))
    }

    /// The kernels of the target's family for a tile; `None` where it has none.
    fn plan(&self, t: &Tile) -> Option<Plan> {
        let family = self.e.unit.target.tile;
        let isa = Isa::of(family)?;
        let shape = family.shape(t.kind, t.cols.as_const().unwrap_or(PANEL).min(PANEL) as u32);
        let (mut vectors, mut limit) = ((shape.cols as usize / isa.lanes()) as u8, shape.rows as u8);
        if t.panels() > 1 {
            // Kernels of equally many panels.
            let one = PANEL as u8 / isa.lanes() as u8;
            let beside = (1..=x86::MOST_VECTORS / one)
                .rev()
                .find(|n| t.panels() % i64::from(*n) == 0);
            (vectors, limit) = (one * beside.unwrap_or(1), 1);
        }
        Some(Plan {
            family,
            kind: t.kind,
            vectors,
            unit_k: t.a_k.as_const() == Some(1),
            ahead: t.ahead.is_some(),
            limit,
            rows: self.row_counts(t),
        })
    }

    /// Bytes of all steps of a panel, of which a step takes so many.
    fn panel_bytes(&mut self, t: &Tile, step: i64) -> Result<Value, Error> {
        let [(p, _), (q, _)] = &t.blocks;
        let (k, p, q) = (self.ix(&t.k)?, self.ix(p)?, self.ix(q)?);
        let blocks = self.e.b.ins().imul(p, q);
        let steps = self.e.b.ins().imul(k, blocks);
        Ok(self.e.times(steps, step))
    }

    fn point(&mut self, args: Value, p: &Pointers) {
        for (offset, v) in [(TileArgs::B, p.b), (TileArgs::C, p.c), (TileArgs::COLS, p.cols)] {
            self.e.b.ins().store(ARGS, v, args, offset as i32);
        }
    }

    /// A distance in bytes, between elements of so many.
    fn bytes(&mut self, e: &Ix, element: i64) -> Result<Value, Error> {
        let v = self.ix(e)?;
        Ok(self.e.times(v, element))
    }

    /// All rows of a tile, whose arguments stand for the first.
    fn rows(&mut self, plan: &Plan, args: Value, rows: Value, by_row: &[ByRow]) -> Result<(), Error> {
        let limit = i64::from(plan.limit);
        if let Some(n) = self.e.known(rows) {
            let n = usize::try_from(n).unwrap_or(0);
            let (big, size, small, less) = balance_rows(n, usize::from(plan.limit));
            let sizes = std::iter::repeat_n(size, big).chain(std::iter::repeat_n(less, small));
            let mut first = 0;
            for size in sizes {
                if first > 0 {
                    let r = self.e.int(first);
                    self.start_at(args, r, by_row);
                }
                let f = self.e.unit.outline(&plan.key(size as u8))?;
                self.e.call(f, &[args]);
                first += size as i64;
            }
            return Ok(());
        }
        if plan.rows.iter().all(|n| *n <= u32::from(plan.limit)) {
            return self.switch(plan, args, rows, &plan.rows);
        }
        // Whole groups, and what is left of any number of rows.
        let most = u32::from(plan.limit);
        let mut sizes: Vec<u32> = plan.rows.iter().flat_map(|n| [(*n).min(most), n % most]).collect();
        sizes.retain(|n| *n > 0);
        sizes.sort_unstable();
        sizes.dedup();
        let up = self.e.b.ins().iadd_imm_s(rows, limit - 1);
        let by = self.e.int(limit);
        let zero = self.e.int(0);
        let up = self.e.b.ins().smax(up, zero);
        let groups = self.e.b.ins().udiv(up, by);
        let open = self.e.begin_loop(zero, groups, &[]);
        let first = self.e.times(open.i, limit);
        let rest = self.e.b.ins().isub(rows, first);
        let n = self.e.b.ins().smin(rest, by);
        self.start_at(args, first, by_row);
        self.switch(plan, args, n, &sizes)?;
        self.e.end_loop(open, &[]);
        Ok(())
    }

    fn start_at(&mut self, args: Value, row: Value, by_row: &[ByRow]) {
        for &(offset, first, step) in by_row {
            let d = self.e.b.ins().imul(row, step);
            let at = self.e.b.ins().iadd(first, d);
            self.e.b.ins().store(ARGS, at, args, offset as i32);
        }
    }

    /// Calls the kernel of `rows`, which is one of `sizes` or at most 0: then there is none.
    fn switch(&mut self, plan: &Plan, args: Value, rows: Value, sizes: &[u32]) -> Result<(), Error> {
        let done = self.e.b.create_block();
        let cases: Vec<_> = sizes.iter().map(|_| self.e.b.create_block()).collect();
        if sizes.len() <= MAX_COMPARED {
            for (size, case) in sizes.iter().zip(&cases) {
                let next = self.e.b.create_block();
                let this = self.e.b.ins().icmp_imm_s(IntCC::Equal, rows, i64::from(*size));
                self.e.b.ins().brif(this, *case, &[], next, &[]);
                self.e.b.switch_to_block(next);
                self.e.b.seal_block(next);
            }
            self.e.b.ins().jump(done, &[]);
        } else {
            let most = sizes.iter().copied().max().unwrap_or(0);
            let pool = &mut self.e.b.func.dfg.value_lists;
            let call = |b, pool: &mut _| BlockCall::new(b, [], pool);
            let default = call(done, pool);
            let place = |n: u32| sizes.iter().position(|s| *s == n).map_or(done, |i| cases[i]);
            let table: Vec<_> = (0..=most).map(|n| call(place(n), pool)).collect();
            let table = self.e.b.create_jump_table(JumpTableData::new(default, &table));
            let n = self.e.b.ins().ireduce(types::I32, rows);
            self.e.b.ins().br_table(n, table);
        }
        for (size, case) in sizes.iter().zip(cases) {
            self.e.b.switch_to_block(case);
            self.e.b.seal_block(case);
            let f = self.e.unit.outline(&plan.key(*size as u8))?;
            self.e.call(f, &[args]);
            self.e.b.ins().jump(done, &[]);
        }
        self.e.b.switch_to_block(done);
        self.e.b.seal_block(done);
        Ok(())
    }

    /// The numbers of rows that a tile may have beside 0. Of `min(K - d*x, d)` with constants these are `d` and the remainder of
    /// `K`, whatever `x` is, also where what is below 0 is none (`-min(-…, 0)`); otherwise all up to the most.
    fn row_counts(&self, t: &Tile) -> Vec<u32> {
        let mut rows = self.settled(&t.rows);
        if let [(Term::Min(minus, d), one)] = &rows.terms[..]
            && d.is(0)
            && one.is(-1)
        {
            rows = minus.scale(&Dim::Const(-1));
        }
        if let [(Term::Min(e, d), one)] = &rows.terms[..]
            && one.is(1)
            && rows.offset.is(0)
            && let [(_, c)] = &e.terms[..]
            && let (Some(k), Some(d), Some(c)) = (e.offset.as_const(), d.as_const(), c.as_const())
            && d > 0
            && c == -d
            && d <= i64::from(t.max_rows)
        {
            let mut sizes = vec![k.rem_euclid(d) as u32, d as u32];
            sizes.retain(|n| *n > 0);
            return sizes;
        }
        (1..=t.max_rows.max(1)).collect()
    }
}

impl Plan {
    /// The columns of a kernel.
    fn width(&self) -> i64 {
        self.key(1).width() as i64
    }
    fn key(&self, rows: u8) -> TileKey {
        TileKey {
            family: self.family,
            kind: self.kind,
            rows,
            vectors: self.vectors,
            unit_k: self.unit_k,
            ahead: self.ahead && x86::can_fetch_ahead(self.kind, rows, self.unit_k),
        }
    }
}

/// The kernel that is assembled for a key.
impl Outline for TileKey {
    fn name(&self) -> Cow<'static, str> {
        x86::symbol(*self).into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let bytes = x86::assemble_tile(*self)?;
        let signature = unit.signature(&[types::I64], None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        if let Some(listings) = &mut unit.listings {
            let vir = x86::tile::build(*self)?.to_string();
            listings.push(Listing::new(
                name.to_owned(),
                vir,
                &bytes,
                String::new(),
                unit.target.cpu,
            ));
        }
        unit.define_bytes(id, bytes)?;
        Ok(id)
    }
}
