//! Dims in CLIF: polynomials over the values of the symbols.
//!
//! Every function takes the steps of [`Dim::value`], in its order. In a function that checks ([`Emit::check_dims`]) a step
//! whose result leaves 64 bits, or that divides by zero, raises a flag, which [`Emit::take_flag`] hands out; everywhere
//! else steps wrap around, because `NAME_plan` has checked them.
//!
//! Invariant: nothing traps; where a dim has no value, its code gives some number.

use super::emit::Emit;
use crate::Error;
use brolga_ir::dim::Atom;
use brolga_ir::index::Ix;
use brolga_ir::{Dim, DimOp};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

impl Emit<'_, '_> {
    /// From now on, steps of dims that leave 64 bits or divide by zero raise the flag.
    pub fn check_dims(&mut self) {
        self.check = true;
    }

    /// Whether a step since the last call went wrong; `None` when none can have.
    pub fn take_flag(&mut self) -> Option<Value> {
        let flag = self.flag.take()?;
        Some(self.b.ins().icmp_imm_s(IntCC::SignedLessThan, flag, 0))
    }

    /// Raises the flag where an i64 is negative.
    pub fn raise(&mut self, wrong: Value) {
        self.flag = Some(match self.flag {
            None => wrong,
            Some(f) => self.b.ins().bor(f, wrong),
        });
    }

    fn raise_if(&mut self, cond: Value) {
        let wide = self.b.ins().uextend(types::I64, cond);
        let wrong = self.b.ins().ineg(wide);
        self.raise(wrong);
    }

    /// `a + b`.
    pub fn sum(&mut self, a: Value, b: Value) -> Value {
        let s = self.b.ins().iadd(a, b);
        if self.check {
            // The sign of a sum that overflows is that of neither operand.
            let (x, y) = (self.b.ins().bxor(a, s), self.b.ins().bxor(b, s));
            let wrong = self.b.ins().band(x, y);
            self.raise(wrong);
        }
        s
    }

    /// `a * b`.
    pub fn product(&mut self, a: Value, b: Value) -> Value {
        let p = self.b.ins().imul(a, b);
        if self.check {
            // The high half of a product that fits repeats the sign of the low one.
            let (high, sign) = (self.b.ins().smulhi(a, b), self.b.ins().sshr_imm_u(p, 63));
            let differ = self.b.ins().icmp(IntCC::NotEqual, high, sign);
            self.raise_if(differ);
        }
        p
    }

    /// The value of a dim, i64.
    pub fn dim(&mut self, d: &Dim) -> Result<Value, Error> {
        if let Some(c) = d.as_const() {
            return Ok(self.int(c));
        }
        let key = Ix::constant(d.clone());
        if !self.again
            && let Some(v) = self.scopes.iter().find_map(|s| s.get(&key))
        {
            return Ok(*v);
        }
        let mut sum: Option<Value> = None;
        let mut constant = 0;
        for (atoms, c) in d.terms() {
            let mut product: Option<Value> = None;
            for a in atoms {
                let v = self.atom(a)?;
                product = Some(match product {
                    None => v,
                    Some(p) => self.product(p, v),
                });
            }
            match product {
                None => constant = c,
                Some(p) => {
                    let p = if self.check && c != 1 {
                        let c = self.int(c);
                        self.product(p, c)
                    } else {
                        self.times(p, c)
                    };
                    sum = Some(match sum {
                        None => p,
                        Some(s) => self.sum(s, p),
                    });
                }
            }
        }
        let v = match sum {
            None => self.int(constant),
            Some(s) if constant == 0 => s,
            Some(s) => {
                let c = self.int(constant);
                self.sum(s, c)
            }
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

    fn atom(&mut self, a: &Atom) -> Result<Value, Error> {
        let (op, x, y) = match a {
            Atom::Sym(s) => return self.symbol(s),
            Atom::Op(op, x, y) => (*op, x, y),
            Atom::TooLarge => {
                return Err(Error::Program {
                    program: self.unit.prefix.clone(),
                    what: "a size or an offset is beyond 64 bits".into(),
                });
            }
        };
        let (a, b) = (self.dim(x)?, self.dim(y)?);
        let natural = x.is_nonnegative();
        Ok(match op {
            DimOp::Min => self.b.ins().smin(a, b),
            DimOp::Max => self.b.ins().smax(a, b),
            _ if y.as_const().is_some_and(|c| c > 0) => match op {
                DimOp::Mod => self.floor_mod(a, b, natural),
                DimOp::FloorDiv => self.floor_div(a, b, natural),
                _ => {
                    let down = self.floor_div(a, b, natural);
                    let whole = self.b.ins().imul(down, b);
                    let some = self.b.ins().icmp(IntCC::NotEqual, whole, a);
                    let some = self.b.ins().uextend(types::I64, some);
                    self.b.ins().iadd(down, some)
                }
            },
            _ => self.divide(op, a, b),
        })
    }

    /// Floor, ceiling or remainder for any divisor.
    pub fn divide(&mut self, op: DimOp, a: Value, b: Value) -> Value {
        // What the machine traps on is divided by 1: 0, and -1 where the quotient of the least integer would be 2^63.
        let none = self.b.ins().icmp_imm_s(IntCC::Equal, b, 0);
        let least = self.b.ins().icmp_imm_s(IntCC::Equal, a, i64::MIN);
        let minus = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let beyond = self.b.ins().band(least, minus);
        if self.check {
            self.raise_if(none);
        }
        if self.check && op != DimOp::Mod {
            self.raise_if(beyond);
        }
        let trap = self.b.ins().bor(none, beyond);
        let one = self.int(1);
        let b = self.b.ins().select(trap, one, b);
        // Truncated division, corrected where the remainder is not 0 and the signs differ (or, rounding up, agree).
        let q = self.b.ins().sdiv(a, b);
        let whole = self.b.ins().imul(q, b);
        let rest = self.b.ins().isub(a, whole);
        let signs = self.b.ins().bxor(a, b);
        let on = if op == DimOp::CeilDiv {
            IntCC::SignedGreaterThanOrEqual
        } else {
            IntCC::SignedLessThan
        };
        let signs = self.b.ins().icmp_imm_s(on, signs, 0);
        let some = self.b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
        let wrong = self.b.ins().band(signs, some);
        let (to, by) = match op {
            DimOp::Mod => (rest, b),
            DimOp::FloorDiv => (q, self.int(-1)),
            _ => (q, one),
        };
        let corrected = self.b.ins().iadd(to, by);
        self.b.ins().select(wrong, corrected, to)
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

    /// `floor(a / b)` for a positive `b`, which an index divides by; `natural` when `a` is known not to be negative. In a
    /// loop that does not run `b` may be 0: it counts as 1.
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

    /// A bound on the magnitude of a dim, f64: it neither wraps around nor raises the flag.
    pub fn dim_bound(&mut self, d: &Dim) -> Result<Value, Error> {
        let mut sum: Option<Value> = None;
        for (atoms, c) in d.terms() {
            let mut product: Option<Value> = None;
            for a in atoms {
                let v = match a {
                    Atom::Op(DimOp::FloorDiv | DimOp::CeilDiv, x, y) => {
                        let by = y.as_const().map_or(1.0, |c| (c as f64).abs().max(1.0));
                        let (x, share, one) = (
                            self.dim_bound(x)?,
                            self.float_const(types::F64, 1.0 / by),
                            self.float_const(types::F64, 1.0),
                        );
                        let x = self.b.ins().fmul(x, share);
                        self.b.ins().fadd(x, one)
                    }
                    Atom::Op(_, x, y) => {
                        let (x, y) = (self.dim_bound(x)?, self.dim_bound(y)?);
                        self.b.ins().fmax(x, y)
                    }
                    Atom::Sym(_) | Atom::TooLarge => {
                        let v = self.atom(a)?;
                        self.b.ins().fcvt_from_sint(types::F64, v)
                    }
                };
                product = Some(match product {
                    None => v,
                    Some(p) => self.b.ins().fmul(p, v),
                });
            }
            let c = self.float_const(types::F64, (c as f64).abs());
            let term = match product {
                None => c,
                Some(p) => self.b.ins().fmul(p, c),
            };
            sum = Some(match sum {
                None => term,
                Some(s) => self.b.ins().fadd(s, term),
            });
        }
        Ok(sum.unwrap_or_else(|| self.float_const(types::F64, 0.0)))
    }
}
