//! One emitter a primitive, on all lanes of a vector loop.
//!
//! Invariant: every primitive works on every dtype and number of lanes. What has no good SIMD form is done lane by lane by
//! the scalar emitter, so both give the same bits.

use super::emit::{Emit, clif};
use super::vector::{Val, chunk, mask_type};
use crate::Error;
use brolga_ir::DType;
use brolga_ir::scalar::Prim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// The dtype of operand `i` of a primitive over `t`.
fn operand(p: Prim, t: DType, i: usize) -> DType {
    if p.chooses() && i == 0 { DType::Bool } else { t }
}

impl Emit<'_, '_> {
    /// A primitive in a vector loop. `t` as in [`Emit::prim`].
    pub fn prim_lanes(&mut self, p: Prim, t: DType, x: [&Val; 3], lanes: u32) -> Result<Val, Error> {
        let used = &x[..p.arity()];
        if used.iter().all(|v| matches!(v, Val::Uniform(_))) {
            let x = x.map(|v| match v {
                Val::Uniform(v) => *v,
                Val::Lanes(v) | Val::Mask(_, v) => v[0],
            });
            return Ok(Val::Uniform(self.prim(p, t, x)?));
        }
        if let Some(v) = self.simd(p, t, x, lanes) {
            return Ok(v);
        }
        let to = match p {
            Prim::Cast(to) | Prim::Bitcast(to) => to,
            Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le => DType::Bool,
            _ => t,
        };
        let mut results = vec![];
        for l in 0..lanes {
            let mut args = [None; 3];
            for (i, v) in used.iter().enumerate() {
                args[i] = Some(self.lane(v, operand(p, t, i), l));
            }
            let first = args[0].expect("every primitive has an operand");
            results.push(self.prim(p, t, args.map(|a| a.unwrap_or(first)))?);
        }
        Ok(self.collect(to, &results))
    }

    /// The SIMD form of a primitive of which not all operands are uniform; `None` when there is no good one.
    fn simd(&mut self, p: Prim, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        use DType::*;
        match p {
            Prim::Select | Prim::Rarely => return self.select_lanes(t, x, lanes),
            Prim::Cast(to) => return self.cast_lanes(t, to, x[0], lanes),
            Prim::Bitcast(to) => {
                let c = self.chunks_of(x[0], t, lanes);
                return Some(Val::Lanes(c.into_iter().map(|v| self.bits_as(v, chunk(to))).collect()));
            }
            _ => {}
        }
        if t == Bool {
            return Some(self.bool_lanes(p, x, lanes));
        }
        let bits = t.bits() as u32;
        let unsigned64 = matches!(t, U64);
        let comparison = matches!(p, Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le);
        if !t.is_float() {
            match p {
                Prim::Div | Prim::Rem => return None,
                Prim::Mul if bits == 8 => return None,
                Prim::Shl | Prim::Shr => return self.shift_lanes(p == Prim::Shl, t, x, lanes),
                _ => {}
            }
        } else if p == Prim::Rem || p == Prim::Fma && !self.unit.target.has_fma && t == F64 {
            return None;
        }
        let arity = p.arity();
        let extreme = matches!(p, Prim::Min | Prim::Max);
        let args: Vec<Vec<Value>> = x[..arity]
            .iter()
            .map(|v| {
                // A known operand of these is worth more than its register.
                if extreme {
                    self.chunks_of(v, t, lanes)
                } else {
                    self.operand_chunks(v, t, lanes)
                }
            })
            .collect();
        let mut out = vec![];
        for (i, &a) in args[0].iter().enumerate() {
            let b = args.get(1).map_or(a, |x| x[i]);
            let c = args.get(2).map_or(a, |x| x[i]);
            out.push(if t.is_float() {
                if p == Prim::Fma && !self.unit.target.has_fma {
                    self.soft_fma32x4(a, b, c)
                } else {
                    let r = self.float(p, [a, b, c]);
                    if comparison {
                        self.bits_as(r, mask_type(bits))
                    } else {
                        r
                    }
                }
            } else if bits == 64 {
                self.wide_integer(p, t, unsigned64, a, b)
            } else {
                self.integer(p, t, a, b)
            });
        }
        Some(if comparison {
            Val::Mask(bits, out)
        } else {
            Val::Lanes(out)
        })
    }

    /// 64-bit lanes, for which SSE has signed comparisons only and no minimum.
    fn wide_integer(&mut self, p: Prim, t: DType, unsigned: bool, a: Value, b: Value) -> Value {
        let less = |e: &mut Self, a: Value, b: Value| {
            let (a, b) = if unsigned {
                let flip = e.int_const(types::I64X2, i64::MIN);
                (e.b.ins().bxor(a, flip), e.b.ins().bxor(b, flip))
            } else {
                (a, b)
            };
            e.b.ins().icmp(IntCC::SignedGreaterThan, b, a)
        };
        match p {
            Prim::Lt => less(self, a, b),
            Prim::Le => {
                let over = less(self, b, a);
                self.b.ins().bnot(over)
            }
            Prim::Min => {
                let c = less(self, a, b);
                self.b.ins().bitselect(c, a, b)
            }
            Prim::Max => {
                let c = less(self, a, b);
                self.b.ins().bitselect(c, b, a)
            }
            _ => self.integer(p, t, a, b),
        }
    }

    /// `a * b + c` with one rounding where the CPU has no such instruction.
    fn soft_fma32x4(&mut self, a: Value, b: Value, c: Value) -> Value {
        let low = [a, b, c].map(|v| self.b.ins().fvpromote_low(v));
        let high = [a, b, c].map(|v| {
            let h = self.high_half(v);
            self.b.ins().fvpromote_low(h)
        });
        let low = self.odd_sum(low[0], low[1], low[2]);
        let high = self.odd_sum(high[0], high[1], high[2]);
        self.demote_pair(low, high)
    }

    fn bool_lanes(&mut self, p: Prim, x: [&Val; 3], lanes: u32) -> Val {
        let width = |v: &Val| if let Val::Mask(b, _) = v { Some(*b) } else { None };
        let bits = x[..p.arity()].iter().find_map(|v| width(v)).unwrap_or(8);
        let a = self.mask_of(x[0], bits, lanes);
        let b = self.mask_of(x[1], bits, lanes);
        let out = a.iter().zip(&b).map(|(&a, &b)| {
            let i = self.b.ins();
            match p {
                Prim::And => i.band(a, b),
                Prim::Or => i.bor(a, b),
                Prim::Xor | Prim::Ne => i.bxor(a, b),
                Prim::Eq => {
                    let d = i.bxor(a, b);
                    self.b.ins().bnot(d)
                }
                // false < true.
                Prim::Lt => {
                    let n = i.bnot(a);
                    self.b.ins().band(n, b)
                }
                Prim::Le => {
                    let n = i.bnot(a);
                    self.b.ins().bor(n, b)
                }
                _ => i.bnot(a),
            }
        });
        Val::Mask(bits, out.collect())
    }

    fn select_lanes(&mut self, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        if t == DType::Bool {
            let a = self.bool_lanes(Prim::And, [x[0], x[1], x[1]], lanes);
            let n = match x[0] {
                Val::Uniform(c) => Val::Uniform(self.b.ins().bxor_imm_s(*c, 1)),
                v => self.bool_lanes(Prim::Not, [v, v, v], lanes),
            };
            let b = self.bool_lanes(Prim::And, [&n, x[2], x[2]], lanes);
            return Some(self.bool_lanes(Prim::Or, [&a, &b, &b], lanes));
        }
        let (a, b) = (self.chunks_of(x[1], t, lanes), self.chunks_of(x[2], t, lanes));
        if let Val::Uniform(c) = x[0] {
            let out = a.iter().zip(&b).map(|(a, b)| self.b.ins().select(*c, *a, *b));
            return Some(Val::Lanes(out.collect()));
        }
        let m = self.mask_of(x[0], t.bits() as u32, lanes);
        let out = (0..a.len()).map(|i| self.choose(m[i], a[i], b[i]));
        Some(Val::Lanes(out.collect()))
    }

    fn shift_lanes(&mut self, left: bool, t: DType, x: [&Val; 3], lanes: u32) -> Option<Val> {
        // There is one amount for all lanes, or the shift is done lane by lane.
        let Val::Uniform(by) = *x[1] else { return None };
        let bits = t.bits() as i64;
        let lane = clif(t);
        let width = self.b.ins().iconst(lane, bits);
        let inside = self.b.ins().icmp(IntCC::UnsignedLessThan, by, width);
        let most = self.b.ins().iconst(lane, bits - 1);
        let by = self.b.ins().umin(by, most);
        let zero = self.int_const(chunk(t), 0);
        let c = self.chunks_of(x[0], t, lanes);
        let out = c.iter().map(|&a| {
            if !left && t.is_signed() {
                return self.b.ins().sshr(a, by);
            }
            let s = if left {
                self.b.ins().ishl(a, by)
            } else {
                self.b.ins().ushr(a, by)
            };
            self.b.ins().select(inside, s, zero)
        });
        Some(Val::Lanes(out.collect()))
    }
}
