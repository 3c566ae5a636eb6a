//! The statements, one at a time: each runs on all its lanes before the next one does.

use super::lower::{Lanes, ScalesCode, SetCode, StoreCode, TileCode, Value};
use super::{Machine, Thread};
use crate::DType;
use crate::index::IxCode;
use crate::loops::{BLOCK, PANEL, WIDEST};
use crate::scalar::eval_rows;
use std::num::Wrapping;

/// Sets the vector loop's variable.
fn enter(t: &mut Thread, lanes: Lanes, lane: usize) {
    if let Some(v) = lanes.var {
        t.vars[v] = lane as i64;
    }
}

/// What a tile sums in.
trait Sum: Copy {
    /// The empty sum.
    const ZERO: Self;
    /// An operand's element, or a sum, by its bits.
    fn of(dtype: DType, bits: u64) -> Self;
    /// `self + a * b`.
    fn product(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
    /// The bits of a sum.
    fn bits(self) -> u64;
}

impl Sum for f32 {
    const ZERO: f32 = 0.0;
    fn of(dtype: DType, bits: u64) -> f32 {
        match dtype.is_half() {
            true => dtype.from_half(bits as u16),
            false => f32::from_bits(bits as u32),
        }
    }
    fn product(self, a: f32, b: f32) -> f32 {
        a.mul_add(b, self)
    }
    fn plus(self, other: f32) -> f32 {
        self + other
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Sum for Wrapping<i32> {
    const ZERO: Wrapping<i32> = Wrapping(0);
    fn of(dtype: DType, bits: u64) -> Self {
        Wrapping(match dtype {
            DType::I8 => i32::from(bits as i8),
            _ => bits as i32,
        })
    }
    fn product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn bits(self) -> u64 {
        (self.0 as u32).into()
    }
}

impl Machine<'_> {
    pub(super) fn set(&mut self, t: &mut Thread, s: &SetCode) -> Result<(), String> {
        let (n, to) = (s.lanes.n, s.to);
        match &s.value {
            Value::Const(bits) => t.regs[to..to + n].fill(*bits),
            Value::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                if let (Some(stride), true) = (index.stride, guard.is_empty()) {
                    enter(t, s.lanes, 0);
                    let first = index.at(&t.vars, &t.regs, 0);
                    return self
                        .memory
                        .load_lanes(*buffer, t.who, first, stride, &mut t.regs[to..to + n]);
                }
                for lane in 0..n {
                    enter(t, s.lanes, lane);
                    t.regs[to + lane] = if guard.iter().all(|b| b.holds(&t.vars, &t.regs, lane)) {
                        self.memory.load(*buffer, t.who, index.at(&t.vars, &t.regs, lane))?
                    } else {
                        *fill
                    };
                }
            }
            Value::Index(ix) => {
                for lane in 0..n {
                    enter(t, s.lanes, lane);
                    t.regs[to + lane] = ix.at(&t.vars, &t.regs, lane) as u64;
                }
            }
            Value::InBounds(bounds) => {
                for lane in 0..n {
                    enter(t, s.lanes, lane);
                    t.regs[to + lane] = bounds.iter().all(|b| b.holds(&t.vars, &t.regs, lane)) as u64;
                }
            }
            Value::Prim(p, dtype, from) => {
                eval_rows(*p, *dtype, &mut t.regs, from.map(|r| (r.base, r.step)), to, n);
            }
            Value::Copy(a) => {
                for lane in 0..n {
                    t.regs[to + lane] = t.regs[a.base + lane * a.step];
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(&mut self, t: &mut Thread, s: &StoreCode) -> Result<(), String> {
        for lane in 0..s.lanes.n {
            enter(t, s.lanes, lane);
            let bits = t.regs[s.value.base + lane * s.value.step];
            self.memory
                .store(s.buffer, t.who, s.index.at(&t.vars, &t.regs, lane), bits)?;
        }
        Ok(())
    }

    pub(super) fn tile(&mut self, t: &mut Thread, c: &TileCode) -> Result<(), String> {
        let [_, _, sum] = c.kind.dtypes();
        match (&c.scales, sum.is_float()) {
            (Some(scales), _) => self.tile_of_blocks(t, c, scales),
            (None, true) => self.tile_of::<f32>(t, c),
            (None, false) => self.tile_of::<Wrapping<i32>>(t, c),
        }
    }

    /// The number of rows and columns.
    fn extents(t: &Thread, c: &TileCode) -> Result<[usize; 2], String> {
        let (rows, cols) = (c.rows.at(&t.vars, &t.regs, 0), c.cols.at(&t.vars, &t.regs, 0));
        let most = if c.panels > 1 { WIDEST } else { PANEL };
        if !(0..=c.max_rows).contains(&rows) || !(0..=most).contains(&cols) {
            return Err(format!(
                "a tile of {rows} rows and {cols} columns, expected at most {} and {most}",
                c.max_rows
            ));
        }
        Ok([rows as usize, cols as usize])
    }

    fn tile_of_blocks(&mut self, t: &mut Thread, c: &TileCode, s: &ScalesCode) -> Result<(), String> {
        let [rows, cols] = Self::extents(t, c)?;
        let at = |ix: &IxCode| ix.at(&t.vars, &t.regs, 0);
        let (k, a_row, c_row) = (at(&c.k), at(&c.a_row), at(&c.c_row));
        let (a, b, out) = (at(&c.a_index), at(&c.b_index), at(&c.c_index));
        let (a_scale, a_block, b_scale) = (at(&s.a_index), at(&s.a_block), at(&s.b_index));
        let group = c.kind.interleave();
        let values = c.kind.packed();
        let bits = 8 / values;
        let block_size = c.kind.panel_elements(BLOCK);
        let mut sums = vec![0f32; rows * cols];
        for block in 0..k.max(0) / BLOCK {
            for (r, row) in (0..).zip(sums.chunks_exact_mut(cols.max(1))) {
                let of_row = a_scale.wrapping_add(r).wrapping_add(block.wrapping_mul(a_block));
                let scale = f32::from_bits(self.memory.load(s.a, t.who, of_row)? as u32);
                let offset = self.memory.load(s.offset, t.who, of_row)? as i32;
                for (j, sum) in (0..).zip(row) {
                    let mut whole = Wrapping(offset);
                    for step in 0..BLOCK {
                        let first = a.wrapping_add(a_row.wrapping_mul(r));
                        let x = self.memory.load(c.a, t.who, first.wrapping_add(block * BLOCK + step))? as i8;
                        let (half, own) = (step / (BLOCK / values), step % (BLOCK / values));
                        let place = block * block_size + (own / group * PANEL + j) * group + own % group;
                        let byte = self.memory.load(c.b, t.who, b.wrapping_add(place))?;
                        let w = byte >> (half * bits) & ((1 << bits) - 1);
                        whole += Wrapping(i32::from(x) * w as i32);
                    }
                    let column = b_scale.wrapping_add(block * PANEL + j);
                    let half = |bits: u64| DType::F16.from_half(bits as u16);
                    let of_column = half(self.memory.load(s.b, t.who, column)?);
                    *sum = (whole.0 as f32).mul_add(scale * of_column, *sum);
                    if let Some([minima, totals]) = s.minima {
                        let least = half(self.memory.load(minima, t.who, column)?);
                        let total = f32::from_bits(self.memory.load(totals, t.who, of_row)? as u32);
                        *sum = least.mul_add(total, *sum);
                    }
                }
            }
        }
        for (r, row) in (0..).zip(sums.chunks_exact(cols.max(1))) {
            let first = out.wrapping_add(c_row.wrapping_mul(r));
            for (j, x) in (0..).zip(row) {
                self.memory.store(c.c, t.who, first.wrapping_add(j), x.bits())?;
            }
        }
        Ok(())
    }

    fn tile_of<T: Sum>(&mut self, t: &mut Thread, c: &TileCode) -> Result<(), String> {
        let [left, right, sum] = c.kind.dtypes();
        let group = c.kind.interleave();
        let [rows, cols] = Self::extents(t, c)?;
        let [ps, qs] = [0, 1].map(|i| {
            (
                c.blocks[i].0.at(&t.vars, &t.regs, 0),
                c.blocks[i].1.at(&t.vars, &t.regs, 0),
            )
        });
        let k = c.k.at(&t.vars, &t.regs, 0);
        let (a_row, a_k, c_row) = (
            c.a_row.at(&t.vars, &t.regs, 0),
            c.a_k.at(&t.vars, &t.regs, 0),
            c.c_row.at(&t.vars, &t.regs, 0),
        );
        let (a, b, out) = (
            c.a_index.at(&t.vars, &t.regs, 0),
            c.b_index.at(&t.vars, &t.regs, 0),
            c.c_index.at(&t.vars, &t.regs, 0),
        );
        // What a block of steps takes in a panel, in whole groups.
        let filled = (k.max(0) as u64).div_ceil(group as u64) as i64 * group;
        let mut sums = vec![T::ZERO; rows * cols];
        let mut line = [0u64; WIDEST as usize];
        let next = ps.0.wrapping_mul(qs.0).wrapping_mul(filled).wrapping_mul(PANEL);
        for p in 0..ps.0 {
            for q in 0..qs.0 {
                for step in 0..k {
                    let block = p.wrapping_mul(qs.0).wrapping_add(q);
                    let before = block.wrapping_mul(filled).wrapping_add(step - step % group);
                    let panel = b.wrapping_add(before.wrapping_mul(PANEL)).wrapping_add(step % group);
                    for (i, part) in (0..).zip(line[..cols].chunks_mut(PANEL as usize)) {
                        let first = panel.wrapping_add(next.wrapping_mul(i));
                        self.memory.load_lanes(c.b, t.who, first, group, part)?;
                    }
                    let parts = [(p, ps.1), (q, qs.1), (step, a_k)];
                    let first = parts.iter().fold(a, |s, (i, by)| s.wrapping_add(i.wrapping_mul(*by)));
                    for (r, row) in (0..).zip(sums.chunks_exact_mut(cols.max(1))) {
                        let at = first.wrapping_add(a_row.wrapping_mul(r));
                        let x = T::of(left, self.memory.load(c.a, t.who, at)?);
                        for (s, y) in row.iter_mut().zip(&line) {
                            *s = s.product(x, T::of(right, *y));
                        }
                    }
                }
            }
        }
        for (r, row) in (0..).zip(sums.chunks_exact_mut(cols.max(1))) {
            let first = out.wrapping_add(c_row.wrapping_mul(r));
            if c.accumulate {
                self.memory.load_lanes(c.c, t.who, first, 1, &mut line[..cols])?;
                let old = line.iter().map(|bits| T::of(sum, *bits));
                row.iter_mut().zip(old).for_each(|(s, old)| *s = s.plus(old));
            }
            for (j, x) in (0..).zip(row) {
                self.memory.store(c.c, t.who, first.wrapping_add(j), x.bits())?;
            }
        }
        Ok(())
    }
}
