//! One emitter a primitive, on scalars; those of floats and integers that CLIF spells alike for vectors serve both.
//!
//! Invariant: every case is as the table of [`Prim`] defines it, on every CPU: divisors and shift amounts are made safe with
//! selects, and what the CPU lacks (fused multiply-add, rounding before
//! SSE4.1, 16-bit floats everywhere) is expanded into instructions that it has, never into a library call.

use super::emit::{Emit, clif};
use super::soft_float::SoftFloat;
use crate::Error;
use brolga_ir::scalar::Prim;
use brolga_ir::{Cpu, DType};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, types};

impl Emit<'_, '_> {
    /// A constant's bits, zero-extended, as a scalar.
    pub fn constant(&mut self, d: DType, bits: u64) -> Value {
        match d {
            DType::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
            DType::F64 => self.b.ins().f64const(f64::from_bits(bits)),
            DType::Bool => self.b.ins().iconst(types::I8, i64::from(bits != 0)),
            _ => self.b.ins().iconst(clif(d), bits as i64),
        }
    }

    /// A primitive on scalars. `t` is the dtype of its operands (of the last two, for `select`).
    pub fn prim(&mut self, p: Prim, t: DType, x: [Value; 3]) -> Result<Value, Error> {
        let [a, b, c] = x;
        Ok(match p {
            Prim::Select | Prim::Rarely => self.b.ins().select(a, b, c),
            Prim::Cast(to) => self.cast(t, to, a),
            Prim::Bitcast(to) => self.bits_as(a, clif(to)),
            Prim::Rem if t.is_float() => self.float_rem(t, a, b)?,
            Prim::Fma if !self.unit.target.has_fma => {
                let fma = if t == DType::F32 {
                    SoftFloat::Fma32
                } else {
                    SoftFloat::Fma64
                };
                let f = self.unit.outline(&fma)?;
                self.call_value(f, &[a, b, c])
            }
            _ if t.is_float() => self.float(p, x),
            Prim::Div | Prim::Rem => self.int_div(p == Prim::Rem, t, a, b),
            Prim::Shl | Prim::Shr => self.shift(p == Prim::Shl, t, a, b),
            _ => self.integer(p, t, a, b),
        })
    }

    fn float_rem(&mut self, t: DType, a: Value, b: Value) -> Result<Value, Error> {
        let f = self.unit.outline(&SoftFloat::Rem64)?;
        if t == DType::F64 {
            return Ok(self.call_value(f, &[a, b]));
        }
        // Exact in f64, and so is the way back: the remainder has no more bits than its operands.
        let (a, b) = (
            self.b.ins().fpromote(types::F64, a),
            self.b.ins().fpromote(types::F64, b),
        );
        let r = self.call_value(f, &[a, b]);
        Ok(self.b.ins().fdemote(types::F32, r))
    }

    /// Floats, scalars or vectors. Comparisons give 0 or 1 for scalars, masks for vectors.
    pub fn float(&mut self, p: Prim, [a, b, c]: [Value; 3]) -> Value {
        let i = self.b.ins();
        match p {
            Prim::Add => i.fadd(a, b),
            Prim::Sub => i.fsub(a, b),
            Prim::Mul => i.fmul(a, b),
            Prim::Div => i.fdiv(a, b),
            Prim::Fma => i.fma(a, b, c),
            Prim::Neg => i.fneg(a),
            Prim::Abs => i.fabs(a),
            Prim::Min | Prim::Max => self.float_extreme(p == Prim::Max, a, b),
            Prim::Sqrt => i.sqrt(a),
            Prim::Eq => i.fcmp(FloatCC::Equal, a, b),
            Prim::Ne => i.fcmp(FloatCC::NotEqual, a, b),
            Prim::Lt => i.fcmp(FloatCC::LessThan, a, b),
            Prim::Le => i.fcmp(FloatCC::LessThanOrEqual, a, b),
            Prim::Floor | Prim::Ceil | Prim::Trunc | Prim::Round if self.unit.target.cpu == Cpu::X86_64 => {
                self.round_by_addition(p, a)
            }
            Prim::Floor => self.b.ins().floor(a),
            Prim::Ceil => self.b.ins().ceil(a),
            Prim::Trunc => self.b.ins().trunc(a),
            Prim::Round => self.b.ins().nearest(a),
            // The verifier admits nothing else for floats.
            _ => a,
        }
    }

    /// The smaller or larger float. CLIF's own instructions are what the table asks for, but take nine instructions on
    /// x86-64, whose `min` and `max` give the second operand when one is NaN or both are zero. Hence: with a known operand,
    /// one instruction that has it first; between vectors, both orders joined bit by bit, which settles zeros, and all ones
    /// where an operand is NaN.
    fn float_extreme(&mut self, larger: bool, a: Value, b: Value) -> Value {
        if self.unit.target.cpu == Cpu::Aarch64 {
            return if larger {
                self.b.ins().fmax(a, b)
            } else {
                self.b.ins().fmin(a, b)
            };
        }
        for (known, x) in [(a, b), (b, a)] {
            match self.known_float(known) {
                // min(-0, +0) would be the second, +0.
                Some(c) if c.is_nan() || !larger && c == 0.0 && c.is_sign_negative() => {}
                Some(c) => {
                    let m = self.first_or(larger, known, x);
                    // max(+0, -0) is now -0, which the addition makes +0.
                    let fix = larger && c == 0.0 && c.is_sign_positive();
                    return if fix { self.b.ins().fadd(m, known) } else { m };
                }
                None => {}
            }
        }
        let ty = self.type_of(a);
        if !ty.is_vector() {
            // A scalar is the first lane of its register: there and back costs nothing, and spares the branches that the
            // scalar form has.
            let vector = if ty == types::F64 { types::F64X2 } else { types::F32X4 };
            let [a, b] = [a, b].map(|v| self.b.ins().scalar_to_vector(vector, v));
            let r = self.float_extreme(larger, a, b);
            return self.b.ins().extractlane(r, 0);
        }
        let ints = ty.as_truthy();
        let (m, n) = (self.first_or(larger, a, b), self.first_or(larger, b, a));
        let (m, n) = (self.bits_as(m, ints), self.bits_as(n, ints));
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, a, b);
        let both = if larger {
            self.b.ins().band(m, n)
        } else {
            self.b.ins().bor(m, n)
        };
        let r = self.b.ins().bor(both, unordered);
        self.bits_as(r, ty)
    }

    /// `a` where it is smaller (larger), else `b`: one instruction on x86-64.
    fn first_or(&mut self, larger: bool, a: Value, b: Value) -> Value {
        let (x, y) = if larger { (b, a) } else { (a, b) };
        let c = self.b.ins().fcmp(FloatCC::LessThan, x, y);
        self.choose(c, a, b)
    }

    /// The float that a value is known to be, on every lane.
    pub fn known_float(&self, v: Value) -> Option<f64> {
        let dfg = &self.b.func.dfg;
        match dfg.insts[dfg.value_def(v).inst()?] {
            InstructionData::UnaryIeee32 { imm, .. } => Some(f64::from(imm.as_f32())),
            InstructionData::UnaryIeee64 { imm, .. } => Some(imm.as_f64()),
            InstructionData::Unary {
                opcode: Opcode::Splat,
                arg,
            } => self.known_float(arg),
            _ => None,
        }
    }

    /// Rounding without SSE4.1: adding and subtracting 2^23 (2^52) rounds to nearest even what is smaller; what is not
    /// smaller is whole, infinite or NaN.
    fn round_by_addition(&mut self, p: Prim, x: Value) -> Value {
        let ty = self.type_of(x);
        let wide = ty.lane_type() == types::F64;
        let limit = self.float_const(ty, if wide { 2f64.powi(52) } else { 2f64.powi(23) });
        let one = self.float_const(ty, 1.0);
        let magnitude = self.b.ins().fabs(x);
        let small = self.b.ins().fcmp(FloatCC::LessThan, magnitude, limit);
        let up = self.b.ins().fadd(magnitude, limit);
        let nearest = self.b.ins().fsub(up, limit);
        let rounded = match p {
            Prim::Round => nearest,
            Prim::Trunc => {
                let over = self.b.ins().fcmp(FloatCC::GreaterThan, nearest, magnitude);
                let less = self.b.ins().fsub(nearest, one);
                self.choose(over, less, nearest)
            }
            _ => {
                let signed = self.with_sign_of(nearest, x);
                let (cc, step) = if p == Prim::Floor {
                    (FloatCC::GreaterThan, self.b.ins().fsub(signed, one))
                } else {
                    (FloatCC::LessThan, self.b.ins().fadd(signed, one))
                };
                let beyond = self.b.ins().fcmp(cc, signed, x);
                let r = self.choose(beyond, step, signed);
                self.b.ins().fabs(r)
            }
        };
        let signed = self.with_sign_of(rounded, x);
        self.choose(small, signed, x)
    }

    /// A float constant, on every lane.
    pub fn float_const(&mut self, ty: Type, x: f64) -> Value {
        let scalar = if ty.lane_type() == types::F64 {
            self.b.ins().f64const(x)
        } else {
            self.b.ins().f32const(x as f32)
        };
        if ty.is_vector() {
            self.b.ins().splat(ty, scalar)
        } else {
            scalar
        }
    }

    /// An integer constant, on every lane.
    pub fn int_const(&mut self, ty: Type, x: i64) -> Value {
        let mask = if ty.lane_bits() == 64 {
            x
        } else {
            x & ((1 << ty.lane_bits()) - 1)
        };
        let scalar = self.b.ins().iconst(ty.lane_type(), mask);
        if ty.is_vector() {
            self.b.ins().splat(ty, scalar)
        } else {
            scalar
        }
    }

    /// The magnitude of `m`, which is not negative, with the sign of `s`.
    fn with_sign_of(&mut self, m: Value, s: Value) -> Value {
        let ty = self.type_of(m);
        if !ty.is_vector() {
            return self.b.ins().fcopysign(m, s);
        }
        let ints = ty.as_truthy();
        let sign = self.int_const(ints, i64::MIN >> (64 - ty.lane_bits()));
        let (mi, si) = (self.bits_as(m, ints), self.bits_as(s, ints));
        let si = self.b.ins().band(si, sign);
        let r = self.b.ins().bor(mi, si);
        self.bits_as(r, ty)
    }

    /// `cond ? a : b`, where `cond` is what a comparison gave: 0 or 1 for scalars, a mask for vectors.
    pub fn choose(&mut self, cond: Value, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        if ty.is_vector() {
            let cond = self.bits_as(cond, ty);
            self.b.ins().bitselect(cond, a, b)
        } else {
            self.b.ins().select(cond, a, b)
        }
    }

    /// The same bits as another type of the same width.
    pub fn bits_as(&mut self, v: Value, ty: Type) -> Value {
        let from = self.type_of(v);
        if from == ty {
            return v;
        }
        // The order of lanes matters on big-endian machines only, but must be named when the lanes' width changes.
        let flags = if from.lane_bits() == ty.lane_bits() {
            MemFlagsData::new()
        } else {
            MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
        };
        self.b.ins().bitcast(ty, flags, v)
    }

    /// Integers and bools but for division, shifts and casts; scalars, or vectors where CLIF has the instruction.
    pub fn integer(&mut self, p: Prim, t: DType, a: Value, b: Value) -> Value {
        let signed = t.is_signed();
        let cc = |s, u| if signed { s } else { u };
        match p {
            Prim::Add => self.b.ins().iadd(a, b),
            Prim::Sub => self.b.ins().isub(a, b),
            Prim::Mul => self.b.ins().imul(a, b),
            Prim::Neg => self.b.ins().ineg(a),
            Prim::Abs if signed => self.b.ins().iabs(a),
            Prim::Abs => a,
            Prim::Min if signed => self.b.ins().smin(a, b),
            Prim::Min => self.b.ins().umin(a, b),
            Prim::Max if signed => self.b.ins().smax(a, b),
            Prim::Max => self.b.ins().umax(a, b),
            Prim::Eq => self.b.ins().icmp(IntCC::Equal, a, b),
            Prim::Ne => self.b.ins().icmp(IntCC::NotEqual, a, b),
            Prim::Lt => {
                let cc = cc(IntCC::SignedLessThan, IntCC::UnsignedLessThan);
                self.b.ins().icmp(cc, a, b)
            }
            Prim::Le => {
                let cc = cc(IntCC::SignedLessThanOrEqual, IntCC::UnsignedLessThanOrEqual);
                self.b.ins().icmp(cc, a, b)
            }
            Prim::And => self.b.ins().band(a, b),
            Prim::Or => self.b.ins().bor(a, b),
            Prim::Xor => self.b.ins().bxor(a, b),
            Prim::Not if t == DType::Bool => self.b.ins().bxor_imm_s(a, 1),
            Prim::Not => self.b.ins().bnot(a),
            // The verifier admits nothing else for integers.
            _ => a,
        }
    }

    fn int_div(&mut self, rem: bool, t: DType, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        let known = self.known(b).map(|k| k << (64 - ty.bits()) >> (64 - ty.bits()));
        if matches!(known, Some(k) if k != 0 && k != -1) {
            return match (t.is_signed(), rem) {
                (true, false) => self.b.ins().sdiv(a, b),
                (true, true) => self.b.ins().srem(a, b),
                (false, false) => self.b.ins().udiv(a, b),
                (false, true) => self.b.ins().urem(a, b),
            };
        }
        let (zero, one) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, 1));
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        if !t.is_signed() {
            let safe = self.b.ins().select(by_zero, one, b);
            return if rem {
                // x % 1 is the 0 that is wanted.
                self.b.ins().urem(a, safe)
            } else {
                let q = self.b.ins().udiv(a, safe);
                self.b.ins().select(by_zero, zero, q)
            };
        }
        let minus = self.int_const(ty, -1);
        let by_minus = self.b.ins().icmp(IntCC::Equal, b, minus);
        let unsafe_divisor = self.b.ins().bor(by_zero, by_minus);
        let safe = self.b.ins().select(unsafe_divisor, one, b);
        if rem {
            return self.b.ins().srem(a, safe);
        }
        let q = self.b.ins().sdiv(a, safe);
        let negated = self.b.ins().ineg(a);
        let q = self.b.ins().select(by_minus, negated, q);
        self.b.ins().select(by_zero, zero, q)
    }

    fn shift(&mut self, left: bool, t: DType, a: Value, b: Value) -> Value {
        let ty = self.type_of(a);
        let bits = i64::from(ty.bits());
        if !left && t.is_signed() {
            let most = self.b.ins().iconst(ty, bits - 1);
            let by = self.b.ins().umin(b, most);
            return self.b.ins().sshr(a, by);
        }
        let shifted = if left {
            self.b.ins().ishl(a, b)
        } else {
            self.b.ins().ushr(a, b)
        };
        let width = self.b.ins().iconst(ty, bits);
        let (inside, zero) = (
            self.b.ins().icmp(IntCC::UnsignedLessThan, b, width),
            self.b.ins().iconst(ty, 0),
        );
        self.b.ins().select(inside, shifted, zero)
    }
}
