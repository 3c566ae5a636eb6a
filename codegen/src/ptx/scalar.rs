//! The primitives, each with the bits that the scalar language defines.
//!
//! Where an instruction leaves a case open (division by zero and of the smallest integer, NaN in conversions to 64 bits,
//! `min` of f64), more instructions close it. Integers of 8 and 16 bits are computed in 32 and extended again. A result
//! is written by the last instruction only, because it may be an operand too.

use super::reg::{Asm, Class, R, put};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Format};

/// A constant's immediate: the value that a register of the dtype's class holds.
pub(super) fn immediate(dtype: DType, bits: u64) -> String {
    match dtype.format() {
        Format::F32 => format!("0f{bits:08X}"),
        Format::F64 => format!("0d{bits:016X}"),
        Format::Bool => if bits == 0 { "0" } else { "-1" }.into(),
        Format::Signed(n) => ((bits << (64 - n)) as i64 >> (64 - n)).to_string(),
        Format::Half | Format::Unsigned(_) | Format::Small(_) => bits.to_string(),
    }
}

/// The arithmetic type of a dtype's register.
fn ty(t: DType) -> &'static str {
    match t.format() {
        Format::F64 => "f64",
        Format::F32 => "f32",
        Format::Signed(64) => "s64",
        Format::Unsigned(64) => "u64",
        Format::Signed(_) => "s32",
        Format::Unsigned(_) | Format::Small(_) => "u32",
        Format::Half => "b16",
        Format::Bool => "pred",
    }
}

fn bits_ty(t: DType) -> &'static str {
    Class::of(t).ty()
}

impl Asm {
    /// `d = a`.
    pub fn mov(&mut self, d: R, a: R) {
        if d != a {
            put!(self, "mov.{} {d}, {a}", d.class.ty());
        }
    }

    /// Extends an integer of 8 or 16 bits to its register.
    fn extend(&mut self, t: DType, d: R, a: R) {
        match t {
            DType::I8 => put!(self, "cvt.s32.s8 {d}, {a}"),
            DType::I16 => put!(self, "cvt.s32.s16 {d}, {a}"),
            DType::U8 => put!(self, "cvt.u32.u8 {d}, {a}"),
            DType::U16 => put!(self, "cvt.u32.u16 {d}, {a}"),
            _ => self.mov(d, a),
        }
    }

    /// A place for a result of 32-bit arithmetic: the destination, or a temporary that [`Asm::extend`] finishes.
    fn unextended(&mut self, t: DType, d: R) -> R {
        if t.is_int() && t.bits() < 32 {
            self.reg(Class::B32)
        } else {
            d
        }
    }

    /// `d = p(args)`, for operands of dtype `t` (the last two, for `select`).
    pub fn prim(&mut self, p: Prim, t: DType, d: R, args: [R; 3]) {
        let [a, b, c] = args;
        match p {
            Prim::Cast(to) => self.cast(t, to, d, a),
            Prim::Bitcast(to) => self.bitcast(t, to, d, a),
            Prim::Select | Prim::Rarely if t == DType::Bool => {
                let (x, y) = (self.reg(Class::Pred), self.reg(Class::Pred));
                put!(self, "and.pred {x}, {a}, {b}");
                put!(self, "not.pred {y}, {a}");
                put!(self, "and.pred {y}, {y}, {c}");
                put!(self, "or.pred {d}, {x}, {y}");
            }
            Prim::Select | Prim::Rarely => put!(self, "selp.{} {d}, {b}, {c}, {a}", bits_ty(t)),
            Prim::Eq | Prim::Ne | Prim::Lt | Prim::Le => self.compare(p, t, d, a, b),
            Prim::And | Prim::Or | Prim::Xor => put!(self, "{}.{} {d}, {a}, {b}", p.name(), bits_ty(t)),
            Prim::Not => {
                let x = self.unextended(t, d);
                put!(self, "not.{} {x}, {a}", bits_ty(t));
                self.extend(t, d, x);
            }
            Prim::Shl | Prim::Shr => self.shift(p, t, d, a, b),
            _ if t.is_float() => self.float(p, t, d, args),
            _ => self.int(p, t, d, a, b),
        }
    }

    fn compare(&mut self, p: Prim, t: DType, d: R, a: R, b: R) {
        if t == DType::Bool {
            let x = self.reg(Class::Pred);
            match p {
                Prim::Eq | Prim::Ne => put!(self, "xor.pred {x}, {a}, {b}"),
                _ => put!(self, "not.pred {x}, {a}"),
            }
            return match p {
                Prim::Eq => put!(self, "not.pred {d}, {x}"),
                Prim::Ne => self.mov(d, x),
                Prim::Lt => put!(self, "and.pred {d}, {x}, {b}"),
                _ => put!(self, "or.pred {d}, {x}, {b}"),
            };
        }
        let name = match p {
            Prim::Eq => "eq",
            Prim::Ne if t.is_float() => "neu",
            Prim::Ne => "ne",
            Prim::Lt => "lt",
            _ => "le",
        };
        put!(self, "setp.{name}.{} {d}, {a}, {b}", ty(t));
    }

    fn float(&mut self, p: Prim, t: DType, d: R, [a, b, c]: [R; 3]) {
        let ty = ty(t);
        match p {
            Prim::Add | Prim::Sub | Prim::Mul | Prim::Div => put!(self, "{}.rn.{ty} {d}, {a}, {b}", p.name()),
            Prim::Fma => put!(self, "fma.rn.{ty} {d}, {a}, {b}, {c}"),
            Prim::Neg | Prim::Abs => put!(self, "{}.{ty} {d}, {a}", p.name()),
            Prim::Sqrt => put!(self, "sqrt.rn.{ty} {d}, {a}"),
            Prim::Floor => put!(self, "cvt.rmi.{ty}.{ty} {d}, {a}"),
            Prim::Ceil => put!(self, "cvt.rpi.{ty}.{ty} {d}, {a}"),
            Prim::Trunc => put!(self, "cvt.rzi.{ty}.{ty} {d}, {a}"),
            Prim::Round => put!(self, "cvt.rni.{ty}.{ty} {d}, {a}"),
            Prim::Min | Prim::Max if t == DType::F32 => put!(self, "{}.NaN.f32 {d}, {a}, {b}", p.name()),
            Prim::Min | Prim::Max => {
                let (nan, sum, best) = (self.reg(Class::Pred), self.of(t), self.of(t));
                put!(self, "setp.nan.f64 {nan}, {a}, {b}");
                put!(self, "add.rn.f64 {sum}, {a}, {b}");
                put!(self, "{}.f64 {best}, {a}, {b}", p.name());
                put!(self, "selp.f64 {d}, {sum}, {best}, {nan}");
            }
            _ => self.remainder(t, d, a, b),
        }
    }

    /// The remainder of truncated division, exact: `|b|` is doubled up to `|a|` and taken away wherever it fits on the way
    /// back (each step is exact, by Sterbenz's lemma). NaN when `a` is no finite number, or `b` is 0 or NaN.
    fn remainder(&mut self, t: DType, d: R, a: R, b: R) {
        let ty = ty(t);
        let (nan, zero, inf) = match t {
            DType::F32 => (0x7fc0_0000, 0, 0x7f80_0000),
            _ => (0x7ff8 << 48, 0, 0x7ff0 << 48),
        };
        let zero = immediate(t, zero);
        let (r, x, y, step, next) = (self.of(t), self.of(t), self.of(t), self.of(t), self.of(t));
        let (p, q) = (self.reg(Class::Pred), self.reg(Class::Pred));
        let n = self.label();
        put!(self, "mov.{ty} {r}, {}", immediate(t, nan));
        put!(self, "abs.{ty} {x}, {a}");
        put!(self, "abs.{ty} {y}, {b}");
        put!(self, "setp.lt.{ty} {p}, {x}, {}", immediate(t, inf));
        put!(self, "setp.gt.and.{ty} {p}, {y}, {zero}, {p}");
        put!(self, "@!{p} bra $R{n}_end");
        put!(self, "mov.{ty} {step}, {y}");
        self.place(format_args!("$R{n}_up"));
        put!(self, "add.rn.{ty} {next}, {step}, {step}");
        put!(self, "setp.le.{ty} {q}, {next}, {x}");
        put!(self, "@{q} mov.{ty} {step}, {next}");
        put!(self, "@{q} bra $R{n}_up");
        self.place(format_args!("$R{n}_down"));
        put!(self, "setp.ge.{ty} {q}, {x}, {step}");
        put!(self, "@{q} sub.rn.{ty} {x}, {x}, {step}");
        put!(self, "setp.gt.{ty} {q}, {step}, {y}");
        put!(self, "@{q} mul.rn.{ty} {step}, {step}, {}", immediate(t, half(t)));
        put!(self, "@{q} bra $R{n}_down");
        put!(self, "copysign.{ty} {r}, {a}, {x}");
        self.place(format_args!("$R{n}_end"));
        self.mov(d, r);
    }

    fn int(&mut self, p: Prim, t: DType, d: R, a: R, b: R) {
        let ty = ty(t);
        let x = self.unextended(t, d);
        match p {
            Prim::Add | Prim::Sub => put!(self, "{}.{ty} {x}, {a}, {b}", p.name()),
            Prim::Mul => put!(self, "mul.lo.{ty} {x}, {a}, {b}"),
            Prim::Neg => self.negate(t, x, a),
            Prim::Abs if t.is_signed() => {
                let n = self.reg(a.class);
                self.negate(t, n, a);
                put!(self, "max.{ty} {x}, {a}, {n}");
            }
            Prim::Abs => self.mov(x, a),
            Prim::Min | Prim::Max => put!(self, "{}.{ty} {x}, {a}, {b}", p.name()),
            _ => self.divide(p, t, x, a, b),
        }
        if x != d {
            self.extend(t, d, x);
        }
    }

    fn negate(&mut self, t: DType, d: R, a: R) {
        let zero = self.reg(a.class);
        put!(self, "mov.{} {zero}, 0", zero.class.ty());
        put!(self, "sub.{} {d}, {zero}, {a}", ty(t));
    }

    /// `x / 0 = 0` and `x % 0 = 0`; the quotient by -1 is the negation, the remainder 0.
    fn divide(&mut self, p: Prim, t: DType, d: R, a: R, b: R) {
        let ty = ty(t);
        let (zero, by, q) = (self.reg(Class::Pred), self.reg(a.class), self.reg(a.class));
        let name = if p == Prim::Div { "div" } else { "rem" };
        put!(self, "setp.eq.{ty} {zero}, {b}, 0");
        put!(self, "selp.{} {by}, 1, {b}, {zero}", by.class.ty());
        if t.is_signed() {
            let (minus, special) = (self.reg(Class::Pred), self.reg(a.class));
            put!(self, "setp.eq.{ty} {minus}, {b}, -1");
            put!(self, "selp.{} {by}, 1, {by}, {minus}", by.class.ty());
            match p {
                Prim::Div => self.negate(t, special, a),
                _ => put!(self, "mov.{} {special}, 0", special.class.ty()),
            }
            put!(self, "{name}.{ty} {q}, {a}, {by}");
            put!(self, "selp.{} {q}, {special}, {q}, {minus}", q.class.ty());
        } else {
            put!(self, "{name}.{ty} {q}, {a}, {by}");
        }
        put!(self, "selp.{} {d}, 0, {q}, {zero}", d.class.ty());
    }

    /// Amounts are clamped to the width, and a narrow integer's register holds it extended, so that the rest follows.
    fn shift(&mut self, p: Prim, t: DType, d: R, a: R, b: R) {
        let amount = match b.class {
            Class::B64 => {
                let (clamped, amount) = (self.reg(Class::B64), self.reg(Class::B32));
                put!(self, "min.u64 {clamped}, {b}, 64");
                put!(self, "cvt.u32.u64 {amount}, {clamped}");
                amount
            }
            _ => b,
        };
        let x = self.unextended(t, d);
        match p {
            Prim::Shl => put!(self, "shl.{} {x}, {a}, {amount}", bits_ty(t)),
            _ => put!(self, "shr.{} {x}, {a}, {amount}", ty(t)),
        }
        if x != d {
            self.extend(t, d, x);
        }
    }

    fn bitcast(&mut self, from: DType, to: DType, d: R, a: R) {
        match (a.class, d.class) {
            (Class::B16, Class::B32) => {
                let x = self.reg(Class::B32);
                put!(self, "cvt.u32.u16 {x}, {a}");
                self.extend(to, d, x);
            }
            (Class::B32, Class::B16) => put!(self, "cvt.u16.u32 {d}, {a}"),
            (Class::B32, Class::B32) if from != to => self.extend(to, d, a),
            (x, y) if x == y => self.mov(d, a),
            _ if to.bits() == 64 => put!(self, "mov.b64 {d}, {a}"),
            _ => put!(self, "mov.b32 {d}, {a}"),
        }
    }

    fn cast(&mut self, from: DType, to: DType, d: R, a: R) {
        if from == to {
            return self.mov(d, a);
        }
        // The 16-bit floats are reached through f32.
        if (from.is_half() && to != DType::F32) || (to.is_half() && from != DType::F32) {
            let f = self.of(DType::F32);
            self.cast(from, DType::F32, f, a);
            return self.cast(DType::F32, to, d, f);
        }
        match (from, to) {
            (DType::F16, _) => put!(self, "cvt.f32.f16 {d}, {a}"),
            (DType::BF16, _) => {
                let (x, y) = (self.reg(Class::B32), self.reg(Class::B32));
                put!(self, "cvt.u32.u16 {x}, {a}");
                put!(self, "shl.b32 {y}, {x}, 16");
                put!(self, "mov.b32 {d}, {y}");
            }
            (_, DType::F16) => put!(self, "cvt.rn.f16.f32 {d}, {a}"),
            (_, DType::BF16) => put!(self, "cvt.rn.bf16.f32 {d}, {a}"),
            (DType::F32, DType::F64) => put!(self, "cvt.f64.f32 {d}, {a}"),
            (DType::F64, DType::F32) => put!(self, "cvt.rn.f32.f64 {d}, {a}"),
            (DType::F32 | DType::F64, DType::Bool) => {
                put!(self, "setp.neu.{} {d}, {a}, {}", ty(from), immediate(from, 0))
            }
            (DType::F32 | DType::F64, _) => self.float_to_int(from, to, d, a),
            (DType::Bool, _) => {
                let one = match to {
                    DType::F32 => 0x3f80_0000,
                    DType::F64 => 0x3ff0 << 48,
                    _ => 1,
                };
                let (one, zero) = (immediate(to, one), immediate(to, 0));
                put!(self, "selp.{} {d}, {one}, {zero}, {a}", bits_ty(to));
            }
            (_, DType::Bool) => put!(self, "setp.ne.{} {d}, {a}, 0", ty(from)),
            (_, DType::F32 | DType::F64) => put!(self, "cvt.rn.{}.{} {d}, {a}", ty(to), ty(from)),
            _ => match (a.class, d.class) {
                (Class::B64, Class::B32) => {
                    let x = self.unextended(to, d);
                    put!(self, "cvt.u32.u64 {x}, {a}");
                    if x != d {
                        self.extend(to, d, x);
                    }
                }
                (Class::B32, Class::B64) => put!(self, "cvt.{}.{} {d}, {a}", wide(from), ty(from)),
                _ => self.extend(to, d, a),
            },
        }
    }

    /// Conversions truncate and saturate; NaN gives 0, which PTX promises only from f32 to 32 bits.
    fn float_to_int(&mut self, from: DType, to: DType, d: R, a: R) {
        let via = match to.bits() {
            8 | 16 => DType::I32,
            _ => to,
        };
        let x = self.of(via);
        put!(self, "cvt.rzi.{}.{} {x}, {a}", ty(via), ty(from));
        let nan = self.reg(Class::Pred);
        put!(self, "setp.nan.{} {nan}, {a}, {a}", ty(from));
        put!(self, "selp.{} {x}, 0, {x}, {nan}", x.class.ty());
        if via != to {
            let (least, most) = match to {
                DType::I8 => (i8::MIN as i32, i8::MAX as i32),
                DType::U8 => (0, u8::MAX as i32),
                DType::I16 => (i16::MIN as i32, i16::MAX as i32),
                _ => (0, u16::MAX as i32),
            };
            put!(self, "max.s32 {x}, {x}, {least}");
            put!(self, "min.s32 {x}, {x}, {most}");
        }
        self.mov(d, x);
    }
}

/// The 64-bit type of the same sign.
fn wide(t: DType) -> &'static str {
    if t.is_signed() { "s64" } else { "u64" }
}

/// The bits of 0.5.
fn half(t: DType) -> u64 {
    if t == DType::F32 { 0x3f00_0000 } else { 0x3fe0 << 48 }
}
