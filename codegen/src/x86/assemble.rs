//! The vector IR to bytes.
//!
//! Each operation becomes one instruction, or a few that touch nothing but its registers. A function that uses
//! callee-saved registers pushes them on entry; one that keeps registers in its frame makes room for it, aligned to a vector,
//! and finds its way back by `rbp`. Every return undoes that, clears the upper halves of the vector registers (`vzeroupper`)
//! and returns. Branches take the 32-bit form and are filled in when all places are known; constants follow the code.

mod sequences;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

use super::encode::Map::{M0F, M0F3A, M0F38};
use super::encode::Prefix::{F2, F3, None as NP, P66};
use super::encode::{Address, Base, Encoder, Evex, Opcode, Rm, Vector};
use super::opcodes;
use super::regalloc::{Allocation, allocate};
use super::vir::{
    self, Class, Cond, Elem, Function, G, GeneralOp, K, Level, Logic, Mem, Op, Operand, Pool, Scalar, Slot, Type, V,
};
use super::{Error, Isa};

/// Allocates registers and assembles: a whole function, from its entry at byte 0, and its constants behind it.
///
/// # Errors
/// Those of [`allocate`], and [`Error::Encoding`] for what the level has no instruction for.
pub fn assemble(function: &Function) -> Result<Vec<u8>, Error> {
    let (function, allocation) = allocate(function)?;
    let places = function.label_places()?;
    let failed = |at: usize, what: String| Error::Malformed {
        function: function.name.clone(),
        at,
        what,
    };
    let saved = allocation.saved(&function);
    let (slots, frame) = frame(&function);
    let mut assembler = Assembler {
        isa: function.isa,
        allocation: &allocation,
        saved: &saved,
        slots,
        frame,
        pool: function.pool.clone(),
        encoder: Encoder::default(),
    };
    let mut starts = Vec::with_capacity(function.ops.len());
    let mut branches = Vec::new();
    assembler.prologue();
    for (at, op) in function.ops.iter().enumerate() {
        starts.push(assembler.encoder.bytes.len());
        assembler.op(op).map_err(|what| failed(at, format!("`{op}`: {what}")))?;
        if let Some(to) = op.target() {
            branches.push((assembler.encoder.bytes.len(), places[to.0 as usize], at));
        }
    }
    let code = &mut assembler.encoder.bytes;
    // A branch ends in its distance, counted from its end.
    for (end, to, at) in branches {
        let distance = starts[to] as i64 - end as i64;
        let Ok(distance) = i32::try_from(distance) else {
            return Err(failed(
                at,
                format!("a branch of {distance} bytes; expected at most 2 GiB"),
            ));
        };
        code[end - 4..end].copy_from_slice(&distance.to_le_bytes());
    }
    let pool = &assembler.pool;
    Ok(assembler.encoder.finish(pool.bytes(), pool.align()))
}

/// The instructions in `code`, one a line, in GNU syntax, with the offset of each.
pub fn disassemble(code: &[u8]) -> String {
    let mut formatter = GasFormatter::new();
    let mut text = String::new();
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        text.push_str(&format!("{:04x}: ", instruction.ip()));
        formatter.format(&instruction, &mut text);
        text.push('\n');
    }
    text
}

/// The offset of each slot of the frame, and the frame's bytes.
fn frame(function: &Function) -> (Vec<i32>, i32) {
    let mut offsets = vec![0; function.slots().len()];
    let mut bytes = 0;
    let width = |class: Class| match class {
        Class::General => 8,
        Class::Mask if function.isa.is_evex() => 8,
        Class::Vector | Class::Mask => function.isa.bytes() as i32,
    };
    // Vectors first, so that all are aligned.
    let mut order: Vec<usize> = (0..offsets.len()).collect();
    order.sort_by_key(|i| -width(function.slots()[*i]));
    for i in order {
        offsets[i] = bytes;
        bytes += width(function.slots()[i]);
    }
    (offsets, bytes)
}

const RSP: u8 = 4;
const RBP: u8 = 5;

/// Appends instructions for one function.
struct Assembler<'a> {
    isa: Isa,
    allocation: &'a Allocation,
    saved: &'a [u8],
    slots: Vec<i32>,
    frame: i32,
    pool: Pool,
    encoder: Encoder,
}

/// `Err` says what there is no instruction for.
type Done = Result<(), String>;

/// What an instruction has beside its operands.
#[derive(Clone, Copy, Default)]
struct Extra {
    imm: Option<u8>,
    mask: u8,
    zero: bool,
    broadcast: bool,
    /// Bytes of the operand in memory, where they are not the instruction's width.
    bytes: Option<u32>,
}

fn imm(imm: u8) -> Extra {
    Extra {
        imm: Some(imm),
        ..Extra::default()
    }
}

fn none(op: impl std::fmt::Display, ty: Type, isa: Isa) -> String {
    format!("{isa} has no `{op}` of {ty}")
}

impl Assembler<'_> {
    fn g(&self, g: G) -> u8 {
        self.allocation.general(g)
    }

    fn v(&self, v: V) -> u8 {
        self.allocation.vector(v)
    }

    fn k(&self, k: K) -> u8 {
        self.allocation.mask(k)
    }

    fn address(&self, m: Mem) -> Address {
        Address {
            base: match m.base {
                vir::Base::General(g) => Base::General(self.g(g)),
                vir::Base::Pool => Base::Pool,
            },
            index: m.index.map(|(g, scale)| (self.g(g), scale)),
            disp: m.disp,
        }
    }

    fn mem(&self, m: Mem) -> Rm {
        Rm::Memory(self.address(m))
    }

    fn slot(&self, slot: Slot) -> Rm {
        Rm::Memory(Address {
            base: Base::General(RSP),
            index: None,
            disp: self.slots[slot.0 as usize],
        })
    }

    /// An operand, and whether it is one element for all lanes.
    fn operand(&self, o: Operand) -> (Rm, bool) {
        match o {
            Operand::Reg(v) => (Rm::Register(self.v(v)), false),
            Operand::Mem(m) => (self.mem(m), false),
            Operand::Broadcast(m) => (self.mem(m), true),
        }
    }

    /// A vector instruction in the encoding of the level.
    fn put(&mut self, opcode: Opcode, bits: u32, reg: u8, second: u8, rm: Rm, x: Extra) {
        let evex = self.isa.is_evex().then(|| Evex {
            mask: x.mask,
            zero: x.zero,
            broadcast: x.broadcast,
            bytes: x.bytes.unwrap_or(bits / 8),
        });
        self.encoder.vector(&Vector {
            opcode,
            bits,
            reg,
            second,
            rm,
            imm: x.imm,
            evex,
        });
    }

    /// An instruction in VEX on every level.
    fn put_vex(&mut self, opcode: Opcode, bits: u32, reg: u8, second: u8, rm: Rm, imm: Option<u8>) {
        self.encoder.vector(&Vector {
            opcode,
            bits,
            reg,
            second,
            rm,
            imm,
            evex: None,
        });
    }

    /// An instruction whose last source may be any operand.
    fn with(&mut self, opcode: Opcode, ty: Type, reg: u8, second: u8, o: Operand, x: Extra) {
        let (rm, broadcast) = self.operand(o);
        let bytes = if broadcast { Some(ty.elem.bytes()) } else { x.bytes };
        self.put(opcode, ty.bits(), reg, second, rm, Extra { broadcast, bytes, ..x });
    }

    /// An instruction on matrices, which are in VEX of 128 bits.
    fn matrix(&mut self, opcode: Opcode, reg: u32, second: u32, rm: Rm) -> Done {
        if !self.isa.is_evex() {
            return Err(format!("{} has no matrices", self.isa));
        }
        self.put_vex(opcode, 128, reg as u8, second as u8, rm, None);
        Ok(())
    }

    fn zero(&mut self, dst: u8) {
        let opcode = if self.isa.is_evex() {
            Opcode::new(P66, M0F, 0xef)
        } else {
            Opcode::new(NP, M0F, 0x57)
        };
        let bits = self.isa.bytes() * 8;
        self.put(opcode, bits, dst, dst, Rm::Register(dst), Extra::default());
    }

    fn move_vector(&mut self, dst: u8, src: u8) {
        if dst != src {
            let bits = self.isa.bytes() * 8;
            self.put(
                Opcode::new(NP, M0F, 0x28),
                bits,
                dst,
                0,
                Rm::Register(src),
                Extra::default(),
            );
        }
    }

    fn prologue(&mut self) {
        for r in self.saved {
            if *r >= 8 {
                self.encoder.bytes.push(0x41);
            }
            self.encoder.bytes.push(0x50 | r & 7);
        }
        if self.frame > 0 {
            self.encoder.general(&[0x8b], RBP, Rm::Register(RSP), &[]);
            self.encoder
                .general(&[0x81], 5, Rm::Register(RSP), &self.frame.to_le_bytes());
            self.encoder.general(&[0x83], 4, Rm::Register(RSP), &[-64i8 as u8]);
        }
    }

    fn epilogue(&mut self) {
        self.encoder.bytes.extend([0xc5, 0xf8, 0x77]);
        if self.frame > 0 {
            self.encoder.general(&[0x8b], RSP, Rm::Register(RBP), &[]);
        }
        for r in self.saved.iter().rev() {
            if *r >= 8 {
                self.encoder.bytes.push(0x41);
            }
            self.encoder.bytes.push(0x58 | r & 7);
        }
        self.encoder.bytes.push(0xc3);
    }

    fn op(&mut self, op: &Op) -> Done {
        let (isa, evex) = (self.isa, self.isa.is_evex());
        let plain = Extra::default();
        match *op {
            Op::Zero { dst } => self.zero(self.v(dst)),
            Op::Move { dst, src } => self.move_vector(self.v(dst), self.v(src)),
            Op::Load { ty, dst, mem, mask } => {
                let k = mask.map(|k| self.k(k));
                self.transfer(ty, self.v(dst), self.mem(mem), k, true)?;
            }
            Op::Store { ty, mem, src, mask } => {
                let k = mask.map(|k| self.k(k));
                self.transfer(ty, self.v(src), self.mem(mem), k, false)?;
            }
            Op::Broadcast { ty, dst, mem } => {
                let bytes = Some(ty.elem.bytes());
                let rm = self.mem(mem);
                self.put(
                    opcodes::splat(ty.elem, evex),
                    ty.bits(),
                    self.v(dst),
                    0,
                    rm,
                    Extra { bytes, ..plain },
                );
            }
            Op::Splat { ty, dst, src } => {
                let rm = Rm::Register(self.v(src));
                self.put(opcodes::splat(ty.elem, evex), ty.bits(), self.v(dst), 0, rm, plain);
            }
            Op::SplatGeneral { ty, dst, src } => {
                let (dst, src) = (self.v(dst), Rm::Register(self.g(src)));
                let wide = ty.elem.bytes() == 8;
                if ty.elem.bytes() < 4 {
                    return Err(none("splat", ty, isa));
                }
                if evex {
                    let opcode = Opcode::new(P66, M0F38, 0x7c).with_wide(wide);
                    self.put(opcode, ty.bits(), dst, 0, src, plain);
                } else {
                    self.put(Opcode::new(P66, M0F, 0x6e).with_wide(wide), 128, dst, 0, src, plain);
                    let rm = Rm::Register(dst);
                    self.put(opcodes::splat(ty.elem, evex), ty.bits(), dst, 0, rm, plain);
                }
            }
            Op::StoreLane { ty, mem, src } => {
                let (opcode, lane) = opcodes::store_lane(ty.elem, evex);
                let x = Extra {
                    bytes: Some(ty.elem.bytes()),
                    imm: lane.then_some(0),
                    ..plain
                };
                self.put(opcode, 128, self.v(src), 0, self.mem(mem), x);
            }
            Op::Insert {
                ty,
                dst,
                src,
                mem,
                lane,
            } => {
                let wide = match (ty.bytes(), ty.elem.bytes()) {
                    (16, 4) => false,
                    (16, 8) => true,
                    _ => return Err(none("insert", ty, isa)),
                };
                let opcode = Opcode::new(P66, M0F3A, 0x22).with_wide(wide);
                let bytes = Some(ty.elem.bytes());
                self.put(
                    opcode,
                    128,
                    self.v(dst),
                    self.v(src),
                    self.mem(mem),
                    Extra { bytes, ..imm(lane) },
                );
            }
            Op::Gather {
                ty,
                dst,
                mem,
                index,
                scale,
                wide,
                mask,
            } => {
                let opcode = opcodes::gather(ty.elem, wide).ok_or_else(|| none("gather", ty, isa))?;
                let (dst, mask) = (self.v(dst), self.k(mask));
                let mut address = self.address(mem);
                if address.index.is_some() || address.base == Base::Pool {
                    return Err("expected an address of a register and a displacement".into());
                }
                address.index = Some((self.v(index), scale));
                let indices = if wide { Elem::I64 } else { Elem::I32 };
                let bits = ty.bits().max(ty.of(indices).bits());
                self.zero(dst);
                let bytes = Some(ty.elem.bytes());
                let (second, k) = if evex { (0, mask) } else { (mask, 0) };
                let x = Extra {
                    mask: k,
                    bytes,
                    ..plain
                };
                self.put(opcode, bits, dst, second, Rm::Memory(address), x);
            }
            Op::Fma { ty, acc, a, b } => {
                let opcode = opcodes::fused(ty.elem, 0xb8).ok_or_else(|| none("fma", ty, isa))?;
                self.with(opcode, ty, self.v(acc), self.v(a), b, plain);
            }
            Op::MulAdd { ty, dst, a, b, c } => self.mul_add(ty, dst, a, b, c)?,
            Op::Dot { op, ty, acc, a, b } => {
                if !evex {
                    return Err(none(op, ty, isa));
                }
                self.with(opcodes::dot(op), ty, self.v(acc), self.v(a), b, plain);
            }
            Op::MatrixShapes { mem } => self.matrix(Opcode::new(NP, M0F38, 0x49), 0, 0, self.mem(mem))?,
            Op::MatrixRelease => self.matrix(Opcode::new(NP, M0F38, 0x49), 0, 0, Rm::Register(0))?,
            Op::MatrixZero { dst } => self.matrix(Opcode::new(F2, M0F38, 0x49), dst.0, 0, Rm::Register(0))?,
            Op::MatrixLoad { dst, mem } => self.matrix(Opcode::new(F2, M0F38, 0x4b), dst.0, 0, self.mem(mem))?,
            Op::MatrixStore { mem, src } => self.matrix(Opcode::new(F3, M0F38, 0x4b), src.0, 0, self.mem(mem))?,
            Op::MatrixDot { op, acc, a, b } => {
                self.matrix(opcodes::matrix_dot(op), acc.0, b.0, Rm::Register(a.0 as u8))?;
            }
            Op::Binary { op, ty, dst, a, b } => {
                let opcode = opcodes::binary(op, ty.elem, evex).ok_or_else(|| none(op, ty, isa))?;
                self.with(opcode, ty, self.v(dst), self.v(a), b, plain);
            }
            Op::Unary { op, ty, dst, a } => {
                let (opcode, how) = opcodes::unary(op, ty.elem, evex).ok_or_else(|| none(op, ty, isa))?;
                self.with(opcode, ty, self.v(dst), 0, a, Extra { imm: how, ..plain });
            }
            Op::Shift { op, ty, dst, a, by } => {
                let (opcode, digit) = opcodes::shift(op, ty.elem, evex).ok_or_else(|| none(op, ty, isa))?;
                let rm = Rm::Register(self.v(a));
                self.put(opcode, ty.bits(), digit, self.v(dst), rm, imm(by));
            }
            Op::Convert { from, to, dst, src } => self.convert(from, to, self.v(dst), src)?,
            Op::High { ty, dst, src } => {
                let (dst, src) = (self.v(dst), self.v(src));
                match ty.bytes() {
                    32 => self.put(
                        Opcode::new(P66, M0F3A, 0x3b).wide(),
                        512,
                        src,
                        0,
                        Rm::Register(dst),
                        imm(1),
                    ),
                    16 => self.put(Opcode::new(P66, M0F3A, 0x39), 256, src, 0, Rm::Register(dst), imm(1)),
                    8 => self.put(Opcode::new(P66, M0F, 0x70), 128, dst, 0, Rm::Register(src), imm(0xee)),
                    _ => return Err(none("high", ty, isa)),
                }
            }
            Op::Join { ty, dst, low, high } => {
                let (dst, low, high) = (self.v(dst), self.v(low), Rm::Register(self.v(high)));
                match ty.bytes() {
                    32 => self.put(Opcode::new(P66, M0F3A, 0x3a).wide(), 512, dst, low, high, imm(1)),
                    16 => self.put(Opcode::new(P66, M0F3A, 0x38), 256, dst, low, high, imm(1)),
                    8 => self.put(Opcode::new(P66, M0F, 0x6c).with_wide(evex), 128, dst, low, high, plain),
                    _ => return Err(none("join", ty, isa)),
                }
            }
            Op::Interleave { ty, dst, a, b, high } => {
                let opcode = opcodes::interleave(ty.elem, high, evex);
                let b = Rm::Register(self.v(b));
                self.put(opcode, ty.bits(), self.v(dst), self.v(a), b, plain);
            }
            Op::Blocks { ty, dst, a, b, pick } => self.blocks(ty, self.v(dst), self.v(a), self.v(b), pick)?,
            Op::Rotate {
                ty,
                dst,
                src,
                by,
                scratch,
            } => self.rotate(ty, self.v(dst), self.v(src), by, self.v(scratch))?,
            Op::Compare { op, ty, dst, a, b } => self.compare(op, ty, self.k(dst), self.v(a), b)?,
            Op::Select { ty, dst, mask, a, b } => {
                let (dst, k, a, b) = (self.v(dst), self.k(mask), Rm::Register(self.v(a)), self.v(b));
                if evex {
                    let x = Extra { mask: k, ..plain };
                    self.put(opcodes::blend(ty.elem), ty.bits(), dst, b, a, x);
                } else {
                    self.put(opcodes::blend_by_signs(ty.elem), ty.bits(), dst, b, a, imm(k << 4));
                }
            }
            Op::Logic { op, dst, a, b } => {
                let (dst, a, b) = (self.k(dst), self.k(a), Rm::Register(self.k(b)));
                self.put_vex(opcodes::logic(op, evex), 256, dst, a, b, None);
            }
            Op::MoveMask { dst, src } => self.move_mask(self.k(dst), self.k(src)),
            Op::FillMask { dst, all } => {
                let k = self.k(dst);
                let opcode = match (evex, all) {
                    (true, true) => Opcode::new(NP, M0F, 0x46),
                    (true, false) => opcodes::logic(Logic::Xor, true),
                    (false, true) => Opcode::new(P66, M0F, 0x76),
                    (false, false) => opcodes::logic(Logic::Xor, false),
                };
                self.put_vex(opcode, 256, k, k, Rm::Register(k), None);
            }
            Op::SplatMask { dst, src } => {
                let (k, g) = (self.k(dst), self.g(src));
                // All ones where it is not 0: negation borrows.
                self.encoder.general(&[0xf7], 3, Rm::Register(g), &[]);
                self.encoder.general(&[0x1b], g, Rm::Register(g), &[]);
                if evex {
                    self.put_vex(Opcode::new(NP, M0F, 0x92), 128, k, 0, Rm::Register(g), None);
                } else {
                    let wide = Opcode::new(P66, M0F, 0x6e).wide();
                    self.put_vex(wide, 128, k, 0, Rm::Register(g), None);
                    self.put_vex(opcodes::splat(Elem::I64, false), 256, k, 0, Rm::Register(k), None);
                }
            }
            Op::HalfMask { dst, src, high, lanes } => {
                let (dst, src) = (self.k(dst), self.k(src));
                let halves = Opcode::new(P66, M0F38, 0x25);
                match (evex, high) {
                    (true, true) => {
                        let shift = Opcode::new(P66, M0F3A, 0x30).wide();
                        self.put_vex(shift, 128, dst, 0, Rm::Register(src), Some(lanes));
                    }
                    (true, false) => self.move_mask(dst, src),
                    (false, _) if lanes != 4 => return Err(format!("expected 4 lanes, found {lanes}")),
                    (false, true) => {
                        let upper = Opcode::new(P66, M0F3A, 0x39);
                        self.put_vex(upper, 256, src, 0, Rm::Register(dst), Some(1));
                        self.put_vex(halves, 256, dst, 0, Rm::Register(dst), None);
                    }
                    (false, false) => self.put_vex(halves, 256, dst, 0, Rm::Register(src), None),
                }
            }
            Op::JoinMask { dst, low, high, lanes } => {
                let (dst, low, high) = (self.k(dst), self.k(low), self.k(high));
                match (evex, lanes) {
                    (true, 8) => {
                        let unpack = Opcode::new(P66, M0F, 0x4b);
                        self.put_vex(unpack, 256, dst, high, Rm::Register(low), None);
                    }
                    (false, 4) => {
                        let even = Opcode::new(NP, M0F, 0xc6);
                        self.put_vex(even, 256, dst, low, Rm::Register(high), Some(0x88));
                        let order = Opcode::new(P66, M0F3A, 0x00).wide();
                        self.put_vex(order, 256, dst, 0, Rm::Register(dst), Some(0xd8));
                    }
                    _ => return Err(format!("{isa} joins no masks of {lanes} lanes")),
                }
            }
            Op::FirstLanes {
                dst,
                count,
                skip,
                scratch: (g, v),
            } => self.first_lanes(self.k(dst), self.g(count), skip, self.g(g), self.v(v)),
            Op::BranchNone { mask, .. } => {
                let k = self.k(mask);
                if evex {
                    self.put_vex(Opcode::new(NP, M0F, 0x98), 128, k, 0, Rm::Register(k), None);
                } else {
                    self.put_vex(Opcode::new(P66, M0F38, 0x17), 256, k, 0, Rm::Register(k), None);
                }
                self.jump_if(Cond::Eq);
            }
            Op::Prefetch { mem, into } => {
                let hint = match into {
                    Level::L1 => 1,
                    Level::L2 => 2,
                };
                self.encoder.general32(&[0x0f, 0x18], hint, self.mem(mem), &[]);
            }
            Op::Imm { dst, value } => self.imm(self.g(dst), value),
            Op::Copy { dst, src } => {
                if self.g(dst) != self.g(src) {
                    self.encoder
                        .general(&[0x8b], self.g(dst), Rm::Register(self.g(src)), &[]);
                }
            }
            Op::CopyIf { cond, a, b, dst, src } => {
                self.scalar(GeneralCode::CMP, self.g(a), b);
                let code = [0x0f, 0x40 | condition(cond)];
                self.encoder.general(&code, self.g(dst), Rm::Register(self.g(src)), &[]);
            }
            Op::LoadGeneral { dst, mem } => self.encoder.general(&[0x8b], self.g(dst), self.mem(mem), &[]),
            Op::Lea { dst, mem } => self.encoder.general(&[0x8d], self.g(dst), self.mem(mem), &[]),
            Op::General { op, dst, src } => {
                let dst = self.g(dst);
                match (op, src) {
                    (GeneralOp::Add, _) => self.scalar(GeneralCode::ADD, dst, src),
                    (GeneralOp::Sub, _) => self.scalar(GeneralCode::SUB, dst, src),
                    (GeneralOp::Mul, Scalar::Imm(i)) => {
                        self.encoder.general(&[0x69], dst, Rm::Register(dst), &i.to_le_bytes());
                    }
                    (GeneralOp::Mul, _) => self.scalar(GeneralCode::MUL, dst, src),
                }
            }
            Op::Branch { cond, a, b, .. } => {
                self.scalar(GeneralCode::CMP, self.g(a), b);
                self.jump_if(cond);
            }
            Op::Jump { .. } => self.encoder.bytes.extend([0xe9, 0, 0, 0, 0]),
            Op::Label(_) => {}
            Op::SpillGeneral { slot, src } => self.encoder.general(&[0x89], self.g(src), self.slot(slot), &[]),
            Op::ReloadGeneral { dst, slot } => self.encoder.general(&[0x8b], self.g(dst), self.slot(slot), &[]),
            Op::SpillVector { slot, src } => self.spill(slot, self.v(src)),
            Op::ReloadVector { dst, slot } => self.reload(self.v(dst), slot),
            Op::SpillMask { slot, src } if evex => {
                self.put_vex(Opcode::new(NP, M0F, 0x91), 128, self.k(src), 0, self.slot(slot), None);
            }
            Op::ReloadMask { dst, slot } if evex => {
                self.put_vex(Opcode::new(NP, M0F, 0x90), 128, self.k(dst), 0, self.slot(slot), None);
            }
            // Without registers of their own masks are vectors.
            Op::SpillMask { slot, src } => self.spill(slot, self.k(src)),
            Op::ReloadMask { dst, slot } => self.reload(self.k(dst), slot),
            Op::Return => self.epilogue(),
        }
        Ok(())
    }

    /// A vector register to the frame, which is aligned.
    fn spill(&mut self, slot: Slot, src: u8) {
        let (bits, to) = (self.isa.bytes() * 8, self.slot(slot));
        self.put(Opcode::new(NP, M0F, 0x29), bits, src, 0, to, Extra::default());
    }

    /// A vector register from the frame.
    fn reload(&mut self, dst: u8, slot: Slot) {
        let (bits, from) = (self.isa.bytes() * 8, self.slot(slot));
        self.put(Opcode::new(NP, M0F, 0x28), bits, dst, 0, from, Extra::default());
    }

    fn move_mask(&mut self, dst: u8, src: u8) {
        match (dst == src, self.isa.is_evex()) {
            (true, _) => {}
            (false, true) => self.put_vex(Opcode::new(NP, M0F, 0x90), 128, dst, 0, Rm::Register(src), None),
            (false, false) => self.move_vector(dst, src),
        }
    }

    /// AVX-512: the low `count` bits of a word, shifted right by `skip`. AVX2: lane numbers, unpacked from the bytes of a
    /// constant, compared with `count`.
    fn first_lanes(&mut self, k: u8, count: u8, skip: u8, scratch: u8, lanes: u8) {
        let plain = Extra::default();
        match self.isa {
            Isa::Avx512 => {
                self.imm(scratch, -1);
                let bzhi = Opcode::new(NP, M0F38, 0xf5).wide();
                self.put_vex(bzhi, 128, scratch, count, Rm::Register(scratch), None);
                if skip > 0 {
                    self.encoder.general(&[0xc1], 5, Rm::Register(scratch), &[skip]);
                }
                self.put_vex(Opcode::new(NP, M0F, 0x92), 128, k, 0, Rm::Register(scratch), None);
            }
            Isa::Avx2 => {
                let numbers = u64::from_le_bytes(std::array::from_fn(|i| i as u8 + skip));
                self.imm(scratch, numbers as i64);
                let to_vector = Opcode::new(P66, M0F, 0x6e);
                self.put(to_vector.wide(), 128, lanes, 0, Rm::Register(scratch), plain);
                let unpack = Opcode::new(P66, M0F38, 0x31);
                self.put(unpack, 256, lanes, 0, Rm::Register(lanes), plain);
                self.put(to_vector, 128, k, 0, Rm::Register(count), plain);
                self.put(Opcode::new(P66, M0F38, 0x58), 256, k, 0, Rm::Register(k), plain);
                self.put(Opcode::new(P66, M0F, 0x66), 256, k, k, Rm::Register(lanes), plain);
            }
        }
    }

    fn imm(&mut self, g: u8, value: i64) {
        match i32::try_from(value) {
            Ok(value) => self.encoder.general(&[0xc7], 0, Rm::Register(g), &value.to_le_bytes()),
            Err(_) => {
                self.encoder.bytes.extend([0x48 | g >> 3, 0xb8 | g & 7]);
                self.encoder.bytes.extend(value.to_le_bytes());
            }
        }
    }

    fn scalar(&mut self, code: GeneralCode, dst: u8, src: Scalar) {
        match src {
            Scalar::Reg(g) => self.encoder.general(code.register, dst, Rm::Register(self.g(g)), &[]),
            Scalar::Mem(m) => self.encoder.general(code.register, dst, self.mem(m), &[]),
            Scalar::Imm(i) => match i8::try_from(i) {
                Ok(i) => self.encoder.general(&[0x83], code.digit, Rm::Register(dst), &[i as u8]),
                Err(_) => self
                    .encoder
                    .general(&[0x81], code.digit, Rm::Register(dst), &i.to_le_bytes()),
            },
        }
    }

    /// A branch whose distance is filled in later.
    fn jump_if(&mut self, cond: Cond) {
        self.encoder.bytes.extend([0x0f, 0x80 | condition(cond), 0, 0, 0, 0]);
    }
}

/// An operation of general registers: its opcode with a register or memory, its digit with a constant.
#[derive(Clone, Copy)]
struct GeneralCode {
    register: &'static [u8],
    digit: u8,
}

impl GeneralCode {
    const ADD: GeneralCode = GeneralCode {
        register: &[0x03],
        digit: 0,
    };
    const SUB: GeneralCode = GeneralCode {
        register: &[0x2b],
        digit: 5,
    };
    const CMP: GeneralCode = GeneralCode {
        register: &[0x3b],
        digit: 7,
    };
    /// Not with a constant.
    const MUL: GeneralCode = GeneralCode {
        register: &[0x0f, 0xaf],
        digit: 0,
    };
}

/// The number of a condition in `jcc` and `cmovcc`.
fn condition(cond: Cond) -> u8 {
    match cond {
        Cond::Below => 0x2,
        Cond::NotBelow => 0x3,
        Cond::Eq => 0x4,
        Cond::Ne => 0x5,
        Cond::Lt => 0xc,
        Cond::Ge => 0xd,
        Cond::Le => 0xe,
        Cond::Gt => 0xf,
    }
}
