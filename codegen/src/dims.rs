//! Dims in CLIF: polynomials over the values of the symbols.
//!
//! Invariant: nothing traps; a divisor that is not positive counts as 1 (dims with such a divisor have no value).

use crate::Error;
use crate::emit::Emit;
use brolga_ir::dim::Atom;
use brolga_ir::index::Ix;
use brolga_ir::{Dim, DimOp};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

impl Emit<'_, '_> {
    /// The value of a dim, i64, wrapping around.
    pub fn dim(&mut self, d: &Dim) -> Result<Value, Error> {
        if let Some(c) = d.as_const() {
            return Ok(self.int(c));
        }
        let key = Ix::constant(d.clone());
        if let Some(v) = self.scopes.iter().find_map(|s| s.get(&key)) {
            return Ok(*v);
        }
        let mut sum: Option<Value> = None;
        let mut constant = 0;
        for (atoms, c) in d.terms() {
            let mut product: Option<Value> = None;
            for a in atoms {
                let v = match a {
                    Atom::Sym(s) => self.symbol(s)?,
                    Atom::Op(op, x, y) => self.dim_op(*op, x, y)?,
                };
                product = Some(match product {
                    None => v,
                    Some(p) => self.b.ins().imul(p, v),
                });
            }
            match product {
                None => constant = c,
                Some(p) => {
                    let p = self.times(p, c);
                    sum = Some(match sum {
                        None => p,
                        Some(s) => self.b.ins().iadd(s, p),
                    });
                }
            }
        }
        let v = match sum {
            None => self.int(constant),
            Some(s) if constant == 0 => s,
            Some(s) => self.b.ins().iadd_imm_s(s, constant),
        };
        self.remember(key, v);
        Ok(v)
    }

    /// Keeps a value for the rest of the innermost scope.
    pub fn remember(&mut self, key: Ix, v: Value) {
        if let Some(s) = self.scopes.last_mut() {
            s.insert(key, v);
        }
    }

    fn dim_op(&mut self, op: DimOp, x: &Dim, y: &Dim) -> Result<Value, Error> {
        let (a, b) = (self.dim(x)?, self.dim(y)?);
        Ok(match op {
            DimOp::Min => self.b.ins().smin(a, b),
            DimOp::Max => self.b.ins().smax(a, b),
            DimOp::FloorDiv => self.floor_div(a, b, x.is_nonnegative()),
            DimOp::CeilDiv => {
                let b = self.positive(b);
                let up = self.b.ins().iadd_imm_s(b, -1);
                let a = self.b.ins().iadd(a, up);
                self.floor_div(a, b, x.is_nonnegative())
            }
            DimOp::Mod => self.floor_mod(a, b, x.is_nonnegative()),
        })
    }

    fn positive(&mut self, b: Value) -> Value {
        match self.known(b) {
            Some(c) if c > 0 => b,
            _ => {
                let one = self.int(1);
                self.b.ins().smax(b, one)
            }
        }
    }

    /// `floor(a / b)` for a positive `b`; `natural` when `a` is known not to be negative.
    pub fn floor_div(&mut self, a: Value, b: Value, natural: bool) -> Value {
        let b = self.positive(b);
        if let Some(c) = self.known(b)
            && c.count_ones() == 1
        {
            return self.b.ins().sshr_imm_u(a, i64::from(c.trailing_zeros()));
        }
        if natural {
            return self.b.ins().udiv(a, b);
        }
        let q = self.b.ins().sdiv(a, b);
        let whole = self.b.ins().imul(q, b);
        let rest = self.b.ins().isub(a, whole);
        // -1 when the remainder is negative: division rounded up.
        let down = self.b.ins().sshr_imm_u(rest, 63);
        self.b.ins().iadd(q, down)
    }

    /// `a - b * floor(a / b)` for a positive `b`.
    pub fn floor_mod(&mut self, a: Value, b: Value, natural: bool) -> Value {
        let b = self.positive(b);
        if let Some(c) = self.known(b)
            && c.count_ones() == 1
        {
            return self.b.ins().band_imm_s(a, c - 1);
        }
        if natural {
            return self.b.ins().urem(a, b);
        }
        let r = self.b.ins().srem(a, b);
        let zero = self.int(0);
        let negative = self.b.ins().icmp(IntCC::SignedLessThan, r, zero);
        let up = self.b.ins().iadd(r, b);
        self.b.ins().select(negative, up, r)
    }

    /// `v * c`.
    pub fn times(&mut self, v: Value, c: i64) -> Value {
        match c {
            1 => v,
            0 => self.int(0),
            -1 => self.b.ins().ineg(v),
            c if c > 0 && c.count_ones() == 1 => self.b.ins().ishl_imm_u(v, i64::from(c.trailing_zeros())),
            c => self.b.ins().imul_imm_s(v, c),
        }
    }

    /// The value of a dim in f64, which does not wrap around: for checks of size.
    pub fn dim_magnitude(&mut self, d: &Dim) -> Result<Value, Error> {
        let mut sum = self.b.ins().f64const(0.0);
        for (atoms, c) in d.terms() {
            let mut product = self.b.ins().f64const((c as f64).abs());
            for a in atoms {
                let v = match a {
                    Atom::Sym(s) => self.symbol(s)?,
                    Atom::Op(op, x, y) => self.dim_op(*op, x, y)?,
                };
                let v = self.b.ins().fcvt_from_sint(types::F64, v);
                let v = self.b.ins().fabs(v);
                product = self.b.ins().fmul(product, v);
            }
            sum = self.b.ins().fadd(sum, product);
        }
        Ok(sum)
    }
}
