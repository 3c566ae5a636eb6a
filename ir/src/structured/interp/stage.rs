//! Running a stage on the lanes of one strip of the outer domain.

use super::lower::{Access, CombineCode, DimCode, Op, ReadCode, StageCode};
use super::memory::Row;
use super::{LANES, Machine, Points};
use crate::index::{BoundCode, IxCode};
use crate::scalar::eval_rows;

impl Machine<'_> {
    /// Runs a stage; `number` tells this run from others. `lanes` is the number of outer lanes, when the outer domain has
    /// lanes.
    pub fn stage(&mut self, s: &mut StageCode, number: u32, lanes: Option<usize>) -> Result<(), String> {
        let lane_dim = s.lane_dim.map(|i| s.dims[i]);
        let is_lane = |d: &&DimCode| lane_dim.is_some_and(|l| l.var == d.var);
        let reduced: Vec<DimCode> = s.dims.iter().filter(|d| d.reduced).copied().collect();
        let parallel: Vec<DimCode> = s.dims.iter().filter(|d| !d.reduced && !is_lane(d)).copied().collect();
        if s.dims.iter().any(|d| !d.reduced && d.extent <= 0) {
            return Ok(());
        }
        start(&mut self.vars[s.vars - s.dims.len()..]);
        loop {
            let there = s.guard.iter().all(|b| b.holds(&self.vars, &s.file, 0));
            match lane_dim {
                _ if !there => {}
                None => self.lanes(s, number, &reduced, lanes.unwrap_or(1))?,
                Some(d) => {
                    for first in (0..d.extent).step_by(LANES) {
                        self.vars[d.var] = first;
                        self.lanes(s, number, &reduced, (d.extent - first).min(LANES as i64) as usize)?;
                    }
                }
            }
            if !next(&mut self.vars, &parallel) {
                return Ok(());
            }
        }
    }

    /// Runs one row of parallel points, with all their reduction points.
    fn lanes(&mut self, s: &mut StageCode, number: u32, reduced: &[DimCode], n: usize) -> Result<(), String> {
        let points = self.points;
        let Some(CombineCode { rows, init, .. }) = &s.combine else {
            self.values(s, n, points)?;
            return self.write(s, number, n, points);
        };
        for (row, bits) in rows.iter().zip(init) {
            s.file[*row..row + n].fill(*bits);
        }
        let mut more = reduced.iter().all(|d| d.extent > 0);
        while more {
            self.values(s, n, points)?;
            if let Some(c) = &s.combine {
                run(&c.ops, &mut s.file, n);
            }
            if s.scan {
                self.write(s, number, n, points)?;
            }
            more = next(&mut self.vars, reduced);
        }
        if s.scan {
            Ok(())
        } else {
            self.write(s, number, n, points)
        }
    }

    /// Reads, and evaluates the body.
    fn values(&mut self, s: &mut StageCode, n: usize, points: Points) -> Result<(), String> {
        for (i, r) in s.reads.iter().enumerate() {
            let to = i * LANES;
            match r {
                ReadCode::Element { from, guard, fill } => {
                    let lane_var = s.lane_var;
                    self.read(from, guard, *fill, &mut s.file, to, n, lane_var, points)
                        .map_err(|e| format!("read {i}: {e}"))?;
                }
                ReadCode::Index(ix) => self.each_lane(s.lane_var, n, |vars, lane| {
                    s.file[to + lane] = ix.at(vars, &s.file, lane) as u64;
                }),
                ReadCode::InBounds(b) => self.each_lane(s.lane_var, n, |vars, lane| {
                    s.file[to + lane] = b.iter().all(|b| b.holds(vars, &s.file, lane)) as u64;
                }),
                ReadCode::Computed(ops, row) => {
                    run(ops, &mut s.file, n);
                    s.file.copy_within(*row..row + n, to);
                }
            }
        }
        let mut failed = self.failed;
        for c in &s.checks {
            self.each_lane(s.lane_var, n, |vars, lane| {
                let hold = |bounds: &[BoundCode]| bounds.iter().all(|b| b.holds(vars, &s.file, lane));
                if hold(&c.guard) && !hold(&c.bounds) {
                    failed = failed.or(Some(c.number));
                }
            });
        }
        self.failed = failed;
        run(&s.body, &mut s.file, n);
        Ok(())
    }

    /// Calls `f` with the variables of each lane.
    fn each_lane(&mut self, var: Option<usize>, n: usize, mut f: impl FnMut(&[i64], usize)) {
        let first = var.map(|v| self.vars[v]);
        for lane in 0..n {
            if let (Some(v), Some(first)) = (var, first) {
                self.vars[v] = first + lane as i64;
            }
            f(&self.vars, lane);
        }
        if let (Some(v), Some(first)) = (var, first) {
            self.vars[v] = first;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn read(
        &mut self,
        from: &Access,
        guard: &[BoundCode],
        fill: u64,
        file: &mut [u64],
        to: usize,
        n: usize,
        lane_var: Option<usize>,
        points: Points,
    ) -> Result<(), String> {
        // The lanes that the guard lets through are an interval, when all its indices are affine in the lane.
        let mut inside = Some((0, n));
        for b in guard {
            inside = inside.and_then(|(lo, hi)| {
                let (a, z) = b.interval(&self.vars, file, n)?;
                Some((lo.max(a), hi.min(z)))
            });
        }
        if let Some((lo, hi)) = inside
            && let Some(row) = self.row(from, file, lo, hi)
        {
            let (lo, hi) = (lo.min(n), hi.min(n));
            file[to..to + lo].fill(fill);
            file[to + hi.max(lo)..to + n].fill(fill);
            if lo < hi {
                self.places[from.place].load(row, lo, points, &mut file[to + lo..to + hi])?;
            }
            return Ok(());
        }
        let mut failed = Ok(());
        let first = lane_var.map(|v| self.vars[v]);
        for lane in 0..n {
            if let (Some(v), Some(first)) = (lane_var, first) {
                self.vars[v] = first + lane as i64;
            }
            if !guard.iter().all(|b| b.holds(&self.vars, file, lane)) {
                file[to + lane] = fill;
                continue;
            }
            let loaded = self.position(from, file, lane).and_then(|first| {
                let row = Row { first, step: 0 };
                self.places[from.place].load(row, lane, points, &mut file[to + lane..to + lane + 1])
            });
            if loaded.is_err() {
                // The variables stay at the lane that failed, for the report.
                failed = loaded;
                break;
            }
        }
        if let (Some(v), Some(first), Ok(())) = (lane_var, first, &failed) {
            self.vars[v] = first;
        }
        failed
    }

    /// The positions of lanes `lo..hi`, when they are affine in the lane and all in bounds.
    fn row(&self, a: &Access, file: &[u64], lo: usize, hi: usize) -> Option<Row> {
        let mut row = Row { first: 0, step: 0 };
        for (e, &n) in a.map.iter().zip(&self.places[a.place].shape) {
            let step = e.stride?;
            let first = e.at(&self.vars, file, 0);
            let range = 0..n;
            let end = |lane: usize| step.checked_mul(lane as i64).and_then(|d| first.checked_add(d));
            let within = |lane| end(lane).is_some_and(|i| range.contains(&i));
            if lo < hi && !(within(lo) && within(hi - 1)) {
                return None;
            }
            // Exact where every index is within its extent; no lane reads what is not.
            row = Row {
                first: row.first.wrapping_mul(n).wrapping_add(first),
                step: row.step.wrapping_mul(n).wrapping_add(step),
            };
        }
        Some(row)
    }

    /// The row-major position of one lane's element; the variables must be that lane's.
    fn position(&self, a: &Access, file: &[u64], lane: usize) -> Result<i64, String> {
        let mut at = 0i64;
        for (d, (e, &n)) in a.map.iter().zip(&self.places[a.place].shape).enumerate() {
            let i = e.at(&self.vars, file, lane);
            if !(0..n).contains(&i) {
                return Err(format!("index {i} of dimension {d}, which has extent {n}"));
            }
            at = n
                .checked_mul(at)
                .and_then(|at| at.checked_add(i))
                .ok_or("a position beyond 64 bits")?;
        }
        Ok(at)
    }

    fn write(&mut self, s: &StageCode, number: u32, n: usize, points: Points) -> Result<(), String> {
        let once = !s.scan && !s.scatter;
        for (i, (to, row)) in s.writes.iter().enumerate() {
            let fail = |e: String| format!("write {i}: {e}");
            if let Some(at) = self.row(to, &s.file, 0, n) {
                let values = &s.file[*row..row + n];
                self.places[to.place]
                    .store(at, 0, points, number, once, values)
                    .map_err(fail)?;
                continue;
            }
            let first = s.lane_var.map(|v| self.vars[v]);
            for lane in 0..n {
                if let (Some(v), Some(first)) = (s.lane_var, first) {
                    self.vars[v] = first + lane as i64;
                }
                let at = match self.position(to, &s.file, lane) {
                    Ok(first) => Row { first, step: 0 },
                    Err(_) if s.scatter => continue,
                    Err(e) => return Err(fail(e)),
                };
                let value = &s.file[row + lane..row + lane + 1];
                self.places[to.place]
                    .store(at, lane, points, number, once, value)
                    .map_err(fail)?;
            }
            if let (Some(v), Some(first)) = (s.lane_var, first) {
                self.vars[v] = first;
            }
        }
        Ok(())
    }
}

fn run(ops: &[Op], file: &mut [u64], n: usize) {
    for op in ops {
        match op {
            Op::Prim(p, t, from, to) => eval_rows(*p, *t, file, from.map(|r| (r, 1)), *to, n),
            Op::Copy(from, to) => file.copy_within(*from..from + n, *to),
        }
    }
}

fn start(vars: &mut [i64]) {
    vars.fill(0);
}

/// Steps to the next point in row-major order; false, and back at the first, after the last.
fn next(vars: &mut [i64], dims: &[DimCode]) -> bool {
    for d in dims.iter().rev() {
        vars[d.var] += 1;
        if vars[d.var] < d.extent {
            return true;
        }
        vars[d.var] = 0;
    }
    false
}

impl BoundCode {
    /// The lanes of `0..n` in which the bound holds, when its index is affine in the lane.
    fn interval(&self, vars: &[i64], file: &[u64], n: usize) -> Option<(usize, usize)> {
        let (index, extent): (&IxCode, i64) = self.parts();
        // In 128 bits, so that no sum of them leaves it.
        let (step, extent) = (i128::from(index.stride?), i128::from(extent));
        let first = i128::from(index.at(vars, file, 0));
        let n = n as i128;
        let (lo, hi) = match step {
            0 if (0..extent).contains(&first) => (0, n),
            0 => (0, 0),
            // first + step*l >= 0, and first + step*l < extent.
            1.. => (-first.div_euclid(step), -(first - extent).div_euclid(step)),
            _ => ((first - extent).div_euclid(-step) + 1, first.div_euclid(-step) + 1),
        };
        Some((lo.clamp(0, n) as usize, hi.clamp(0, n) as usize))
    }
}
