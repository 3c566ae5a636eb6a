//! Vector loops: every statement once, on all lanes.

use super::Body;
use super::index::VarValue;
use crate::Error;
use crate::clif::vector::{Val, chunk, chunks};
use crate::rare::Rare;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Expr, Stmt};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim};
use cranelift_codegen::ir::{InstBuilder, types};
use rustc_hash::FxHashMap;

/// An open vector loop.
pub(crate) struct Vector {
    /// Its variable; none where a register with lanes is assigned outside of a vector loop.
    var: Option<Var>,
    lanes: u32,
    /// Registers that live only in the loop.
    pub locals: FxHashMap<Reg, Val>,
    /// The lane that scalars are read of.
    pub lane: u32,
}

/// How an index moves over the lanes.
pub(crate) enum Motion {
    Fixed,
    Affine(Dim),
    Free,
}

impl Body<'_, '_, '_> {
    pub fn vector_loop(&mut self, var: Var, lanes: u32, body: &[Stmt]) -> Result<(), Error> {
        if self.vector.is_some() {
            return Err(self.error(format!("vector loop over {var} inside another")));
        }
        self.vector = Some(Vector {
            var: Some(var),
            lanes,
            locals: FxHashMap::default(),
            lane: 0,
        });
        let before = self.vars.values.insert(var, VarValue::Known(0));
        self.e.constants_in_loop(true);
        let rare = Rare::of(body, &self.uses, self.k);
        for (i, s) in body.iter().enumerate().filter(|(i, _)| !rare.moved(*i)) {
            match s {
                Stmt::Set(r, e) => {
                    let v = match (e, rare.cone(i)) {
                        (Expr::Prim(_, x), Some(cone)) => {
                            self.rarely_lanes(*r, e, x, cone.iter().map(|&j| &body[j]))?
                        }
                        _ => self.expr_lanes(self.k.reg(*r).dtype, e)?,
                    };
                    self.set_lanes(*r, v)?;
                }
                Stmt::Store { buffer, index, value } => {
                    let v = self.read(*value)?;
                    self.store_lanes(*buffer, index, &v)?;
                }
                Stmt::Check { number, holds } => {
                    let v = self.read(*holds)?;
                    let all = self.e.all_lanes(&v, lanes);
                    self.check(*number, all)?;
                }
                _ => {
                    return Err(self.error(format!(
                        "the vector loop over {var} holds more than sets, stores and checks"
                    )));
                }
            }
        }
        self.e.constants_in_loop(false);
        self.restore(var, before);
        self.vector = None;
        Ok(())
    }

    /// The value of a `rarely`, `e`, with the statements that only its rare side needs behind a branch that is taken when
    /// any lane asks for it.
    fn rarely_lanes<'s>(
        &mut self,
        r: Reg,
        e: &Expr,
        x: &[Reg; 3],
        cone: impl Iterator<Item = &'s Stmt>,
    ) -> Result<Val, Error> {
        let (d, lanes) = (self.k.reg(r).dtype, self.lanes());
        let any = match self.read(x[0])? {
            Val::Uniform(c) => c,
            Val::Lanes(c) | Val::Mask(_, c) => {
                let all = c.into_iter().reduce(|a, b| self.e.b.ins().bor(a, b));
                let all = all.expect("a value with lanes has a chunk");
                self.e.b.ins().vany_true(all)
            }
        };
        let usual = self.read(x[2])?;
        let usual = self.e.chunks_of(&usual, d, lanes);
        let fork = self.e.begin_fork(any, &vec![chunk(d); usual.len()]);
        self.e.cold();
        for s in cone {
            let Stmt::Set(r, e) = s else { continue };
            let v = self.expr_lanes(self.k.reg(*r).dtype, e)?;
            self.set_lanes(*r, v)?;
        }
        let v = self.expr_lanes(d, e)?;
        let v = self.e.chunks_of(&v, d, lanes);
        self.e.fork_else(&fork, &v);
        Ok(Val::Lanes(self.e.end_fork(fork, &usual)))
    }

    /// Assigns all lanes of a register, outside of a vector loop.
    pub fn set_all_lanes(&mut self, r: Reg, e: &Expr) -> Result<(), Error> {
        self.vector = Some(Vector {
            var: None,
            lanes: self.k.reg(r).lanes,
            locals: FxHashMap::default(),
            lane: 0,
        });
        let v = self.expr_lanes(self.k.reg(r).dtype, e)?;
        self.set_lanes(r, v)?;
        self.vector = None;
        Ok(())
    }

    pub fn lanes(&self) -> u32 {
        self.vector.as_ref().map_or(1, |v| v.lanes)
    }

    fn set_lanes(&mut self, r: Reg, v: Val) -> Result<(), Error> {
        let (info, lanes) = (self.k.reg(r), self.lanes());
        if info.lanes <= 1 {
            if let Some(open) = &mut self.vector {
                open.locals.insert(r, v);
            }
            return Ok(());
        }
        if info.lanes != lanes {
            return Err(self.error(format!(
                "{r} has {} lanes and is assigned in a vector loop of {lanes}",
                info.lanes
            )));
        }
        let values = if info.dtype == DType::Bool {
            self.e.mask_of(&v, 8, lanes)
        } else {
            self.e.chunks_of(&v, info.dtype, lanes)
        };
        self.write_variable(r, &values)
    }

    /// Makes a lane the one that indices and scalars are of.
    pub fn at_lane(&mut self, l: u32) {
        if let Some(v) = &mut self.vector {
            v.lane = l;
            if let Some(var) = v.var {
                self.vars.values.insert(var, VarValue::Known(i64::from(l)));
            }
        }
    }

    pub fn motion(&mut self, e: &Ix) -> Result<Motion, Error> {
        let mut regs = vec![];
        e.for_each_reg(&mut |r| regs.push(r));
        for r in regs {
            if !matches!(self.read(r)?, Val::Uniform(_)) {
                return Ok(Motion::Free);
            }
        }
        let Some(var) = self.vector.as_ref().and_then(|v| v.var) else {
            return Ok(Motion::Fixed);
        };
        Ok(match e.stride(var) {
            None => Motion::Free,
            Some(s) if s.is(0) => Motion::Fixed,
            Some(s) => Motion::Affine(s),
        })
    }

    fn expr_lanes(&mut self, d: DType, e: &Expr) -> Result<Val, Error> {
        self.at_lane(0);
        match e {
            Expr::Const(bits) => Ok(Val::Uniform(self.e.constant(d, *bits))),
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => self.load_lanes(*buffer, index, guard, *fill),
            Expr::Index(i) => self.index_lanes(i),
            Expr::InBounds(b) => self.bounds_lanes(b),
            Expr::Prim(p, x) => {
                let t = self.prim_dtype(*p, x);
                let a = self.read(x[0])?;
                let b = if p.arity() > 1 { self.read(x[1])? } else { a.clone() };
                let c = if p.arity() > 2 { self.read(x[2])? } else { a.clone() };
                self.e.prim_lanes(*p, t, [&a, &b, &c], self.lanes())
            }
            Expr::Copy(r) => self.read(*r),
            Expr::Lane(r, l) => Ok(Val::Uniform(self.read_lane(*r, *l)?)),
        }
    }

    /// The value of an index on every lane, i64.
    fn index_lanes(&mut self, e: &Ix) -> Result<Val, Error> {
        let lanes = self.lanes();
        self.at_lane(0);
        match self.motion(e)? {
            Motion::Fixed => Ok(Val::Uniform(self.ix(e)?)),
            Motion::Affine(s) if s.as_const().is_some() => {
                let s = s.as_const().unwrap_or_default();
                let first = self.ix(e)?;
                let first = self.e.b.ins().splat(types::I64X2, first);
                let mut out = vec![];
                for i in 0..chunks(lanes, 64) as i64 {
                    let bytes: Vec<u8> = [2 * i, 2 * i + 1]
                        .iter()
                        .flat_map(|l| l.wrapping_mul(s).to_le_bytes())
                        .collect();
                    let c = self.e.b.func.dfg.constants.insert(bytes.as_slice().into());
                    let c = self.e.b.ins().vconst(types::I64X2, c);
                    out.push(self.e.b.ins().iadd(first, c));
                }
                Ok(Val::Lanes(out))
            }
            _ => {
                let mut each = vec![];
                for l in 0..lanes {
                    self.at_lane(l);
                    each.push(self.ix(e)?);
                }
                self.at_lane(0);
                Ok(self.e.collect(DType::I64, &each))
            }
        }
    }

    fn bounds_lanes(&mut self, bounds: &[Bound]) -> Result<Val, Error> {
        let lanes = self.lanes();
        let mut all: Option<Val> = None;
        for b in bounds {
            let i = self.index_lanes(&b.index)?;
            let n = Val::Uniform(self.e.dim(&b.extent)?);
            let inside = if b.extent.is_nonnegative() {
                // One unsigned comparison, as for scalars.
                self.e.prim_lanes(Prim::Lt, DType::U64, [&i, &n, &n], lanes)?
            } else {
                let zero = Val::Uniform(self.e.int(0));
                let from = self.e.prim_lanes(Prim::Le, DType::I64, [&zero, &i, &i], lanes)?;
                let to = self.e.prim_lanes(Prim::Lt, DType::I64, [&i, &n, &n], lanes)?;
                self.e.prim_lanes(Prim::And, DType::Bool, [&from, &to, &to], lanes)?
            };
            all = Some(match all {
                None => inside,
                Some(a) => self
                    .e
                    .prim_lanes(Prim::And, DType::Bool, [&a, &inside, &inside], lanes)?,
            });
        }
        match all {
            Some(all) => Ok(all),
            None => Ok(Val::Uniform(self.e.constant(DType::Bool, 1))),
        }
    }
}
