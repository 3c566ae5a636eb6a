//! Operations of which the level has several instructions, or none that does it alone.

use super::super::encode::Map::{M0F, M0F3A, M0F38};
use super::super::encode::Prefix::{F3, P66};
use super::super::encode::{Address, Base, Opcode, Rm};
use super::super::opcodes;
use super::super::vir::{Comparison, Elem, Operand, Type, V};
use super::{Assembler, Done, Extra, imm, none};

impl Assembler<'_> {
    /// A load (or store) of a vector, or of a part of one register.
    pub(super) fn transfer(&mut self, ty: Type, v: u8, rm: Rm, mask: Option<u8>, load: bool) -> Done {
        let evex = self.isa.is_evex();
        let plain = Extra::default();
        let one = |pair: (Opcode, Opcode)| if load { pair.0 } else { pair.1 };
        if let Some(k) = mask {
            if evex {
                let x = Extra {
                    mask: k,
                    zero: load,
                    bytes: Some(ty.bits() / 8),
                    ..plain
                };
                self.put(one(opcodes::moves(ty.elem, true)), ty.bits(), v, 0, rm, x);
            } else {
                let pair = opcodes::moves_by_signs(ty.elem).ok_or_else(|| none("masked load", ty, self.isa))?;
                self.put(one(pair), ty.bits(), v, k, rm, plain);
            }
            return Ok(());
        }
        let part = Extra {
            bytes: Some(ty.bytes()),
            ..plain
        };
        match ty.bytes() {
            4 => {
                let code = if load { 0x6e } else { 0x7e };
                self.put(Opcode::new(P66, M0F, code), 128, v, 0, rm, part);
            }
            8 => {
                let opcode = if load {
                    Opcode::new(F3, M0F, 0x7e)
                } else {
                    Opcode::new(P66, M0F, 0xd6)
                };
                self.put(opcode.with_wide(evex), 128, v, 0, rm, part);
            }
            16 | 32 | 64 => self.put(one(opcodes::moves(Elem::F32, evex)), ty.bits(), v, 0, rm, plain),
            _ => return Err(none("load or store", ty, self.isa)),
        }
        Ok(())
    }

    /// The one of three instructions whose overwritten operand is where the result goes; else the first factor is copied.
    pub(super) fn mul_add(&mut self, ty: Type, dst: V, a: V, b: Operand, c: Operand) -> Done {
        let plain = Extra::default();
        let code = |code| opcodes::fused(ty.elem, code).ok_or_else(|| none("fma", ty, self.isa));
        let (m132, m213, m231) = (code(0x98)?, code(0xa8)?, code(0xb8)?);
        let (dst, a) = (self.v(dst), self.v(a));
        let reg = |o: Operand| match o {
            Operand::Reg(v) => Some(self.v(v)),
            _ => None,
        };
        match (reg(b), reg(c)) {
            (_, Some(c)) if c == dst => self.with(m231, ty, dst, a, b, plain),
            (Some(b), _) if b == dst => self.with(m213, ty, dst, a, c, plain),
            (Some(b), _) => {
                self.move_vector(dst, a);
                self.with(m213, ty, dst, b, c, plain);
            }
            (None, Some(c)) => {
                self.move_vector(dst, a);
                self.with(m132, ty, dst, c, b, plain);
            }
            (None, None) => return Err("two operands in memory".into()),
        }
        Ok(())
    }

    pub(super) fn convert(&mut self, from: Type, to: Elem, dst: u8, src: Operand) -> Done {
        let evex = self.isa.is_evex();
        let result = from.of(to);
        let bits = from.bits().max(result.bits());
        if let Some((opcode, stores, how)) = opcodes::convert(from.elem, to, evex) {
            let (rm, broadcast) = self.operand(src);
            let bytes = if broadcast { from.elem.bytes() } else { from.bytes() };
            let x = Extra {
                imm: how,
                broadcast,
                bytes: Some(bytes),
                ..Extra::default()
            };
            match (stores, rm) {
                (false, _) => self.put(opcode, bits, dst, 0, rm, x),
                (true, Rm::Register(src)) => self.put(opcode, bits, src, 0, Rm::Register(dst), x),
                (true, Rm::Memory(_)) => return Err("expected its operand in a register".into()),
            }
            return Ok(());
        }
        let narrows = !from.elem.is_float() && !to.is_float() && from.elem.bytes() > to.bytes();
        match src {
            Operand::Reg(v) if narrows && from.elem.bytes() >= 4 && bits <= 256 => {
                self.narrow(from, to, dst, self.v(v))
            }
            _ => Err(format!("{} has no conversion of {from} to {}", self.isa, to.name())),
        }
    }

    /// The low parts of lanes, side by side, on AVX2: within each half by a shuffle, then the halves.
    fn narrow(&mut self, from: Type, to: Elem, dst: u8, src: u8) -> Done {
        let (wide, narrow) = (from.elem.bytes() as u8, to.bytes() as u8);
        let mut bytes = [0x80u8; 16];
        for (i, b) in bytes.iter_mut().take(usize::from(16 / wide * narrow)).enumerate() {
            *b = i as u8 / narrow * wide + i as u8 % narrow;
        }
        let place = self.pool.place(&bytes.repeat(from.bits() as usize / 128));
        let shuffle = Rm::Memory(Address {
            base: Base::Pool,
            index: None,
            disp: place,
        });
        let plain = Extra::default();
        self.put(Opcode::new(P66, M0F38, 0x00), from.bits(), dst, src, shuffle, plain);
        if from.bits() == 256 {
            // Quarters 0 and 2, of which less than half may be filled.
            let rm = Rm::Register(dst);
            self.put(Opcode::new(P66, M0F3A, 0x00).wide(), 256, dst, 0, rm, imm(0b1000));
            match 16 / wide * narrow {
                8 => {}
                4 => self.put(Opcode::new(P66, M0F, 0x70), 128, dst, 0, rm, imm(0b1000)),
                _ => return Err(format!("AVX2 has no conversion of {from} to {}", to.name())),
            }
        }
        Ok(())
    }

    pub(super) fn blocks(&mut self, ty: Type, dst: u8, a: u8, b: u8, pick: [u8; 4]) -> Done {
        let [p, q, r, s] = pick;
        let (code, how) = match (ty.bits(), self.isa.is_evex()) {
            (512, true) => (0x43, p | q << 2 | r << 4 | s << 6),
            (256, true) => (0x43, p | q << 1),
            (256, false) => (0x46, p | (q | 2) << 4),
            _ => return Err(none("blocks", ty, self.isa)),
        };
        let opcode = Opcode::new(P66, M0F3A, code);
        self.put(opcode, ty.bits(), dst, a, Rm::Register(b), imm(how));
        Ok(())
    }

    pub(super) fn rotate(&mut self, ty: Type, dst: u8, src: u8, by: u8, scratch: u8) -> Done {
        if ty.elem.bytes() < 4 || ty.bytes() < 16 {
            return Err(none("rotate", ty, self.isa));
        }
        let rm = Rm::Register(src);
        if self.isa.is_evex() {
            let opcode = Opcode::new(P66, M0F3A, 0x03).with_wide(ty.elem.bytes() == 8);
            self.put(opcode, ty.bits(), dst, src, rm, imm(by));
            return Ok(());
        }
        let align = Opcode::new(P66, M0F3A, 0x0f);
        let bytes = by * ty.elem.bytes() as u8;
        if ty.bits() == 128 {
            self.put(align, 128, dst, src, rm, imm(bytes));
            return Ok(());
        }
        // The halves changed over, and between them.
        let half = Opcode::new(P66, M0F3A, 0x46);
        match bytes {
            16 => self.put(half, 256, dst, src, rm, imm(1)),
            0..16 => {
                self.put(half, 256, scratch, src, rm, imm(1));
                self.put(align, 256, dst, scratch, rm, imm(bytes));
            }
            _ => {
                self.put(half, 256, scratch, src, rm, imm(1));
                self.put(align, 256, dst, src, Rm::Register(scratch), imm(bytes - 16));
            }
        }
        Ok(())
    }

    pub(super) fn compare(&mut self, op: Comparison, ty: Type, dst: u8, a: u8, b: Operand) -> Done {
        let evex = self.isa.is_evex();
        if op == Comparison::Unordered && !ty.elem.is_float() {
            return Err(none(op, ty, self.isa));
        }
        if let Some(opcode) = opcodes::compare(ty.elem, evex) {
            self.with(opcode, ty, dst, a, b, imm(opcodes::predicate(op)));
            return Ok(());
        }
        let opcode = match op {
            Comparison::Eq => opcodes::compare_integers(false, ty.elem),
            Comparison::Lt => opcodes::compare_integers(true, ty.elem),
            _ => None,
        };
        let opcode = opcode.ok_or_else(|| none(op, ty, self.isa))?;
        match (op, b) {
            (Comparison::Eq, _) => self.with(opcode, ty, dst, a, b, Extra::default()),
            // a < b is b > a.
            (_, Operand::Reg(b)) => {
                let b = self.v(b);
                self.put(opcode, ty.bits(), dst, b, Rm::Register(a), Extra::default());
            }
            _ => return Err("expected the larger operand in a register".into()),
        }
        Ok(())
    }
}
