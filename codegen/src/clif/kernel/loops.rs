//! Loops: those that run as loops, those that are repeated in code, and those that are shared out.

use super::Body;
use super::index::VarValue;
use crate::Error;
use brolga_ir::Dim;
use brolga_ir::index::{Ix, Term, Var};
use brolga_ir::loops::{LoopKind, Stmt, visit, visit_indices};
use cranelift_codegen::ir::{InstBuilder, Value};

/// The most products of a loop variable that an innermost loop carries; more would only spill.
const MAX_PRODUCTS: usize = 6;

impl Body<'_, '_, '_> {
    pub fn for_loop(&mut self, var: Var, kind: &LoopKind, extent: &Ix, body: &[Stmt]) -> Result<(), Error> {
        let constant = |this: &Self| {
            let n = extent.as_const();
            n.ok_or_else(|| {
                this.error(format!(
                    "{kind:?} loop over {var} has extent {extent}, expected a constant"
                ))
            })
        };
        match kind {
            LoopKind::Serial => {
                let (from, to) = (self.e.int(0), self.ix(extent)?);
                self.computed_loop(var, from, to, body)
            }
            LoopKind::Parallel(_) if self.k.parallel().is_some() => {
                let (from, to) = self.range;
                self.computed_loop(var, from, to, body)
            }
            LoopKind::Parallel(grain) => self.fork(var, extent, grain, body),
            LoopKind::Unrolled => {
                let n = constant(self)?;
                self.unrolled(var, n, body)
            }
            LoopKind::Vector => {
                let lanes = constant(self)?;
                let Ok(lanes @ 1..) = u32::try_from(lanes) else {
                    return Ok(());
                };
                self.vector_loop(var, lanes, body)
            }
            LoopKind::Block(_) | LoopKind::Thread(_) => Err(self.error(format!("{kind:?} loop, which CPUs have not"))),
        }
    }

    fn unrolled(&mut self, var: Var, n: i64, body: &[Stmt]) -> Result<(), Error> {
        for i in 0..n {
            let before = self.vars.values.insert(var, VarValue::Known(i));
            self.stmts(body)?;
            self.restore(var, before);
        }
        Ok(())
    }

    pub fn restore(&mut self, var: Var, before: Option<VarValue>) {
        match before {
            Some(v) => self.vars.values.insert(var, v),
            None => self.vars.values.remove(&var),
        };
    }

    /// A share of a parallel loop, from its last iteration on where the variable is odd that it is turned by.
    pub(super) fn share(
        &mut self,
        var: Var,
        turn: Option<Var>,
        (from, to): (Value, Value),
        body: &[Stmt],
    ) -> Result<(), Error> {
        let Some(turn) = turn else {
            return self.computed_loop(var, from, to, body);
        };
        let round = self.ix(&Ix::var(turn))?;
        let odd = self.e.b.ins().band_imm_s(round, 1);
        let both = self.e.b.ins().iadd(from, to);
        let both = self.e.b.ins().iadd_imm_s(both, -1);
        let open = self.e.begin_loop(from, to, &[]);
        self.vars.depth += 1;
        let back = self.e.b.ins().isub(both, open.i);
        let here = self.e.b.ins().select(odd, back, open.i);
        let before = self.vars.values.insert(var, VarValue::Value(here, self.vars.depth));
        self.divide_early(body)?;
        self.stmts(body)?;
        self.e.end_loop(open, &[]);
        self.vars.depth -= 1;
        self.restore(var, before);
        Ok(())
    }

    pub(super) fn computed_loop(&mut self, var: Var, from: Value, to: Value, body: &[Stmt]) -> Result<(), Error> {
        let coefficients = if innermost(body) { products(body, var) } else { vec![] };
        let mut steps = vec![];
        let mut first = vec![];
        for c in &coefficients {
            let step = self.e.dim(c)?;
            let zero = self.e.known(from) == Some(0);
            first.push(if zero { from } else { self.e.b.ins().imul(from, step) });
            steps.push(step);
        }
        let open = self.e.begin_loop(from, to, &first);
        self.vars.depth += 1;
        let before = self.vars.values.insert(var, VarValue::Value(open.i, self.vars.depth));
        for (c, v) in coefficients.iter().zip(&open.carried) {
            self.vars.products.insert((var, c.clone()), *v);
        }
        self.divide_early(body)?;
        self.stmts(body)?;
        let next: Vec<Value> = open
            .carried
            .iter()
            .zip(&steps)
            .map(|(v, s)| self.e.b.ins().iadd(*v, *s))
            .collect();
        self.e.end_loop(open, &next);
        for c in &coefficients {
            self.vars.products.remove(&(var, c.clone()));
        }
        self.vars.depth -= 1;
        self.restore(var, before);
        Ok(())
    }
}

/// True when no loop of several iterations but those over lanes stands inside.
fn innermost(body: &[Stmt]) -> bool {
    let mut inner = true;
    visit(body, &mut |s, _| {
        if let Stmt::For { kind, extent, .. } = s {
            inner &= *kind == LoopKind::Vector || extent.as_const().is_some_and(|n| n <= 1);
        }
    });
    inner
}

/// The coefficients of a variable in the indices of a body that a shift cannot apply.
fn products(body: &[Stmt], var: Var) -> Vec<Dim> {
    let mut out: Vec<Dim> = vec![];
    visit_indices(body, &mut |e| {
        for (t, c) in &e.terms {
            let shift = c.as_const().is_some_and(|c| c.unsigned_abs().count_ones() == 1);
            if *t == Term::Var(var) && !shift && !out.contains(c) && out.len() < MAX_PRODUCTS {
                out.push(c.clone());
            }
        }
    });
    out
}
