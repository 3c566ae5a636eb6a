//! `Pad`: by a constant as the IR's `pad`; by reflection, repetition or wrapping as a gather with known indices, or, for a
//! symbolic extent, with computed ones.

use super::*;
use brolga_ir::{DType, Dim};

/// Lists of indices are made at import: longer ones are refused.
const MAX_INDEX: i64 = 1 << 26;

/// `Pad`: amounts are an attribute before version 11, an operand since.
pub fn pad(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 4)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let amounts: Vec<Dim> = match (ctx.optional(1), ctx.ints("pads")?) {
        (Some(v), _) => match graph.dims_of(v) {
            Some(known) => known,
            None => graph.signed_sizes(v, "pads")?,
        },
        (None, Some(p)) => p.iter().map(|&p| Dim::Const(p)).collect(),
        (None, None) => return Err("pads are missing".into()),
    };
    let axes: Vec<usize> = match ctx.optional(3) {
        Some(v) => graph
            .ints_operand(v, "axes")?
            .iter()
            .map(|&a| node::axis(a, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if amounts.len() != 2 * axes.len() {
        return Err(Fail::Bad(format!("{} pads for {} axes", amounts.len(), axes.len())));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (i, &a) in axes.iter().enumerate() {
        low[a] = amounts[i].clone();
        high[a] = amounts[axes.len() + i].clone();
    }
    let mode = ctx.string("mode", "constant")?;
    if mode != "constant" {
        return one(graph.pad_by_index(x, &low, &high, mode));
    }
    let value = match ctx.optional(2) {
        Some(v) => match graph.contents(v) {
            Some(t) if t.len() == 1 => t.get(0),
            Some(t) => return Err(Fail::Bad(format!("a value of {} elements, expected one", t.len()))),
            None => {
                // What is padded is told apart from what was there.
                let shape = graph.shape(x);
                let there = graph.splat(DType::Bool, &shape, 1)?;
                let there = graph.pad(there, low.clone(), high.clone(), vec![0; rank], 0)?;
                let y = graph.pad(x, low, high, vec![0; rank], 0)?;
                let v = graph.reshape_if_equal(v, vec![])?;
                return one(graph.map("where", &[there, y, v]));
            }
        },
        None => ctx.float("value", 0.0)?.into(),
    };
    one(graph.pad(x, low, high, vec![0; rank], value))
}

impl Builder<'_> {
    /// Padding whose elements are copies of the operand's.
    ///
    /// # Errors
    /// When there is nothing to copy, or there is no such mode.
    pub fn pad_by_index(&mut self, x: Value, low: &[Dim], high: &[Dim], mode: &str) -> One {
        if !["edge", "reflect", "wrap"].contains(&mode) {
            return Err(Fail::Bad(format!(
                "mode `{mode}`, expected constant, edge, reflect or wrap"
            )));
        }
        let mut y = x;
        for (axis, (low, high)) in low.iter().zip(high).enumerate() {
            if low.is(0) && high.is(0) {
                continue;
            }
            let n = self.shape(y)[axis].clone();
            let index = match (n.as_const(), low.as_const(), high.as_const()) {
                (Some(n), Some(low), Some(high)) => {
                    let index = known_index(n, low, high, mode)?;
                    self.ints(&index)
                }
                _ => self.index_of_padding(&n, low, high, mode)?,
            };
            y = self.gather(axis, y, index)?;
        }
        Ok(y)
    }

    /// The positions that a padded dimension of symbolic extent is made of.
    fn index_of_padding(&mut self, n: &Dim, low: &Dim, high: &Dim, mode: &str) -> One {
        let size = &(n + low) + high;
        self.require_at_most(&Dim::ONE, n)?;
        self.require_at_most(&Dim::ZERO, &size)?;
        let at = self.iota(DType::I64, &[size], 0)?;
        let number = |graph: &mut Self, d: &Dim| graph.dim_scalar(d, DType::I64);
        let (low, n_value) = (number(self, low)?, number(self, n)?);
        let last = number(self, &(n - &Dim::ONE))?;
        let i = self.map("sub", &[at, low])?;
        match mode {
            "edge" => {
                let i = self.map_num("max", i, 0.0)?;
                self.map("min", &[i, last])
            }
            "wrap" => self.map("mod", &[i, n_value]),
            _ => {
                // last - |i mod 2·last - last|, where the only element of an extent of 1 has the period 1.
                let period = number(self, &Dim::max(&(&(n * 2) - &Dim::Const(2)), &Dim::ONE))?;
                let p = self.map("mod", &[i, period])?;
                let away = self.map("sub", &[p, last])?;
                let away = self.op("abs", &[], &[away])?;
                self.map("sub", &[last, away])
            }
        }
    }
}

/// The positions that a padded dimension is made of.
fn known_index(n: i64, low: i64, high: i64, mode: &str) -> Result<Vec<i64>, Fail> {
    let size = n.checked_add(low).and_then(|s| s.checked_add(high));
    let Some(size) = size.filter(|s| (0..MAX_INDEX).contains(s) && n < 1 << 40) else {
        return Err(Fail::Bad(format!("pads {low} and {high} of extent {n}")));
    };
    if n == 0 && size > 0 {
        return Err(Fail::Bad(format!("mode {mode} of an empty dimension")));
    }
    let source = |i: i64| match mode {
        "edge" => i.clamp(0, n - 1),
        "wrap" => i.rem_euclid(n),
        _ if n == 1 => 0,
        _ => {
            let p = i.rem_euclid(2 * (n - 1));
            if p < n { p } else { 2 * (n - 1) - p }
        }
    };
    Ok((0..size).map(|i| source(i - low)).collect())
}
