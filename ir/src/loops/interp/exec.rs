//! The statements, one at a time: each runs on all its lanes before the next one does.

use super::lower::{Lanes, SetCode, StoreCode, TileCode, Value};
use super::{Machine, Thread};
use crate::loops::PANEL;
use crate::scalar::eval_rows;

/// Sets the vector loop's variable.
fn enter(t: &mut Thread, lanes: Lanes, lane: usize) {
    if let Some(v) = lanes.var {
        t.vars[v] = lane as i64;
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
        let (rows, cols) = (c.rows.at(&t.vars, &t.regs, 0), c.cols.at(&t.vars, &t.regs, 0));
        if !(0..=c.max_rows).contains(&rows) || !(0..=PANEL).contains(&cols) {
            return Err(format!(
                "a tile of {rows} rows and {cols} columns, expected at most {} and {PANEL}",
                c.max_rows
            ));
        }
        let (rows, cols) = (rows as usize, cols as usize);
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
        let mut sums = vec![0f32; rows * cols];
        let mut line = [0f32; PANEL as usize];
        for p in 0..ps.0 {
            for q in 0..qs.0 {
                for step in 0..k {
                    let block = p.wrapping_mul(qs.0).wrapping_add(q);
                    let panel = b.wrapping_add(block.wrapping_mul(k).wrapping_add(step).wrapping_mul(PANEL));
                    self.memory.load_row(c.b, t.who, panel, &mut line[..cols])?;
                    let parts = [(p, ps.1), (q, qs.1), (step, a_k)];
                    let first = parts.iter().fold(a, |s, (i, by)| s.wrapping_add(i.wrapping_mul(*by)));
                    for (r, row) in (0..).zip(sums.chunks_exact_mut(cols.max(1))) {
                        let x = f32::from_bits(self.memory.load(
                            c.a,
                            t.who,
                            first.wrapping_add(a_row.wrapping_mul(r)),
                        )? as u32);
                        for (s, y) in row.iter_mut().zip(&line) {
                            *s = x.mul_add(*y, *s);
                        }
                    }
                }
            }
        }
        for (r, row) in (0..).zip(sums.chunks_exact_mut(cols.max(1))) {
            if c.accumulate {
                self.memory
                    .load_row(c.c, t.who, out.wrapping_add(c_row.wrapping_mul(r)), &mut line[..cols])?;
                row.iter_mut().zip(&line).for_each(|(s, old)| *s += old);
            }
            for (j, x) in (0..).zip(row) {
                self.memory.store(
                    c.c,
                    t.who,
                    out.wrapping_add(c_row.wrapping_mul(r)).wrapping_add(j),
                    x.to_bits() as u64,
                )?;
            }
        }
        Ok(())
    }
}
