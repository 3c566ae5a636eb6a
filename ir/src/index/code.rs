//! Index expressions under known symbols, as sums over slots: what the interpreters evaluate millions of times.

use super::{Bound, Ix, Reg, Term, Var};
use crate::Dim;

/// A register's lanes in a register file: lane `l` is at `base + l*step`.
#[derive(Clone, Copy)]
pub(crate) struct Src {
    pub base: usize,
    pub step: usize,
}

/// What an index expression is lowered with.
pub(crate) struct Slots<'a> {
    /// The values of the symbols.
    pub symbols: &'a dyn Fn(&str) -> Option<i64>,
    /// The slot of a variable.
    pub var: &'a mut dyn FnMut(Var) -> usize,
    /// The place of a run-time integer.
    pub reg: &'a dyn Fn(Reg) -> Src,
    /// The slot of the variable that counts lanes.
    pub lane: Option<usize>,
}

impl Slots<'_> {
    /// The value of a dim.
    pub fn dim(&self, d: &Dim) -> Result<i64, String> {
        d.value(self.symbols).map_err(|e| e.to_string())
    }
}

/// An index expression over slots.
pub(crate) struct IxCode {
    offset: i64,
    vars: Box<[(usize, i64)]>,
    regs: Box<[(Src, i64)]>,
    nested: Box<[Nested]>,
    /// The distance between lanes, when it is the same between all.
    pub stride: Option<i64>,
}

struct Nested {
    of: IxCode,
    by: i64,
    coefficient: i64,
    kind: Kind,
}

enum Kind {
    Div,
    Mod,
    Min,
}

impl IxCode {
    /// Lowers an expression.
    ///
    /// # Errors
    /// When a dim has no value, or a divisor is not positive.
    pub fn new(e: &Ix, slots: &mut Slots) -> Result<IxCode, String> {
        let (mut vars, mut regs, mut nested) = (vec![], vec![], vec![]);
        let mut stride = Some(0i64);
        for (t, c) in &e.terms {
            let c = slots.dim(c)?;
            match t {
                Term::Var(v) => {
                    let slot = (slots.var)(*v);
                    if Some(slot) == slots.lane {
                        stride = stride.map(|s| s.wrapping_add(c));
                    }
                    vars.push((slot, c));
                }
                Term::Reg(r) => {
                    let src = (slots.reg)(*r);
                    if src.step > 0 {
                        stride = None;
                    }
                    regs.push((src, c));
                }
                Term::Div(e, d) | Term::Mod(e, d) | Term::Min(e, d) => {
                    let by = slots.dim(d)?;
                    let kind = match t {
                        Term::Div(..) => Kind::Div,
                        Term::Mod(..) => Kind::Mod,
                        _ => Kind::Min,
                    };
                    if by <= 0 && !matches!(kind, Kind::Min) {
                        return Err(format!("a division by `{d}`, which is {by}"));
                    }
                    let of = IxCode::new(e, slots)?;
                    if of.stride != Some(0) {
                        stride = None;
                    }
                    nested.push(Nested {
                        of,
                        by,
                        coefficient: c,
                        kind,
                    });
                }
            }
        }
        let offset = slots.dim(&e.offset)?;
        Ok(IxCode {
            offset,
            vars: vars.into(),
            regs: regs.into(),
            nested: nested.into(),
            stride,
        })
    }

    /// The value in a lane; the variable that counts lanes must have been set to it.
    pub fn at(&self, vars: &[i64], regs: &[u64], lane: usize) -> i64 {
        let mut sum = self.offset;
        for &(v, c) in &self.vars {
            sum = sum.wrapping_add(vars[v].wrapping_mul(c));
        }
        for (r, c) in &self.regs {
            sum = sum.wrapping_add((regs[r.base + lane * r.step] as i64).wrapping_mul(*c));
        }
        for n in &self.nested {
            let x = n.of.at(vars, regs, lane);
            let x = match n.kind {
                Kind::Div => x.div_euclid(n.by),
                Kind::Mod => x.rem_euclid(n.by),
                Kind::Min => x.min(n.by),
            };
            sum = sum.wrapping_add(x.wrapping_mul(n.coefficient));
        }
        sum
    }
}

/// A bound over slots.
pub(crate) struct BoundCode {
    index: IxCode,
    extent: i64,
}

impl BoundCode {
    /// Lowers bounds.
    ///
    /// # Errors
    /// As [`IxCode::new`].
    pub fn all(bounds: &[Bound], slots: &mut Slots) -> Result<Box<[BoundCode]>, String> {
        let one = |b: &Bound| {
            Ok(BoundCode {
                index: IxCode::new(&b.index, slots)?,
                extent: slots.dim(&b.extent)?,
            })
        };
        bounds.iter().map(one).collect()
    }

    /// The index, and the exclusive upper bound.
    pub fn parts(&self) -> (&IxCode, i64) {
        (&self.index, self.extent)
    }

    /// Whether it holds in a lane.
    pub fn holds(&self, vars: &[i64], regs: &[u64], lane: usize) -> bool {
        (0..self.extent).contains(&self.index.at(vars, regs, lane))
    }
}
