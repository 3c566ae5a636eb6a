//! The vector IR to bytes, through `iced-x86`.
//!
//! Each operation becomes one instruction, or a few that touch nothing but its registers. A function that uses
//! callee-saved registers pushes them on entry; every return pops them, clears the upper halves of the vector registers
//! (`vzeroupper`) and returns. Branches take the 32-bit form and are filled in when all places are known.
//!
//! Decided: instructions are built from `iced`'s `Code` values and encoded one by one. Its `code_asm` methods are typed by
//! register width, which would write every operation twice, once for `ymm` and once for `zmm`; its block encoder, which
//! shortens branches, took 40 of the 80 µs of a 14x32 tile.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Formatter, GasFormatter, IcedError, Instruction, MemoryOperand, Register,
};

use super::regalloc::{Allocation, allocate};
use super::vir::{Binary, Cond, Function, G, GeneralOp, K, Mem, Op, Operand, Scalar, V};
use super::{Error, Isa};

/// Allocates registers and assembles: a whole function, from its entry at byte 0.
///
/// # Errors
/// Those of [`allocate`], and [`Error::Encoding`] for what the instruction set cannot express.
pub fn assemble(function: &Function) -> Result<Vec<u8>, Error> {
    let allocation = allocate(function)?;
    let places = function.label_places()?;
    let failed = |e: IcedError| Error::Encoding {
        function: function.name.clone(),
        what: e.to_string(),
    };
    let saved = allocation.saved(function);
    let mut assembler = Assembler {
        isa: function.isa,
        allocation: &allocation,
        saved: &saved,
        encoder: Encoder::new(64),
        length: 0,
    };
    let mut starts = Vec::with_capacity(function.ops.len());
    let mut branches = Vec::new();
    assembler.prologue().map_err(failed)?;
    for op in &function.ops {
        starts.push(assembler.length);
        assembler.op(op).map_err(failed)?;
        if let Some(to) = op.target() {
            branches.push((assembler.length, places[to.0 as usize]));
        }
    }
    let mut code = assembler.encoder.take_buffer();
    // A branch ends in its distance, counted from its end.
    for (end, to) in branches {
        let distance = starts[to] as i64 - end as i64;
        let Ok(distance) = i32::try_from(distance) else {
            let what = format!("a branch of {distance} bytes; expected at most 2 GiB");
            return Err(Error::Encoding {
                function: function.name.clone(),
                what,
            });
        };
        code[end - 4..end].copy_from_slice(&distance.to_le_bytes());
    }
    Ok(code)
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

/// Appends instructions for one function.
struct Assembler<'a> {
    isa: Isa,
    allocation: &'a Allocation,
    saved: &'a [u8],
    encoder: Encoder,
    length: usize,
}

type Done = Result<(), IcedError>;

impl Assembler<'_> {
    fn general(&self, g: G) -> Register {
        Register::RAX + u32::from(self.allocation.general(g))
    }

    fn vector(&self, v: V) -> Register {
        self.wide(self.allocation.vector(v))
    }

    fn wide(&self, number: u8) -> Register {
        let first = match self.isa {
            Isa::Avx2 => Register::YMM0,
            Isa::Avx512 => Register::ZMM0,
        };
        first + u32::from(number)
    }

    fn mask(&self, k: K) -> Register {
        let number = self.allocation.mask(k);
        match self.isa {
            Isa::Avx2 => self.wide(number),
            Isa::Avx512 => Register::K0 + u32::from(number),
        }
    }

    fn mem(&self, mem: Mem) -> MemoryOperand {
        self.memory(mem, false)
    }

    fn memory(&self, mem: Mem, broadcast: bool) -> MemoryOperand {
        let (index, scale) = match mem.index {
            Some((index, scale)) => (self.general(index), u32::from(scale)),
            None => (Register::None, 1),
        };
        let displacement_size = u32::from(mem.disp != 0);
        let base = self.general(mem.base);
        MemoryOperand::new(
            base,
            index,
            scale,
            mem.disp.into(),
            displacement_size,
            broadcast,
            Register::None,
        )
    }

    fn push(&mut self, instruction: Result<Instruction, IcedError>) -> Done {
        self.length += self.encoder.encode(&instruction?, 0)?;
        Ok(())
    }

    /// Pushes an AVX-512 instruction under an opmask; lanes outside it are zeroed in a register, kept in memory.
    fn push_masked(&mut self, instruction: Result<Instruction, IcedError>, mask: Register, zero: bool) -> Done {
        let mut instruction = instruction?;
        instruction.set_op_mask(mask);
        instruction.set_zeroing_masking(zero);
        self.push(Ok(instruction))
    }

    fn prologue(&mut self) -> Done {
        for r in self.saved {
            self.push(Instruction::with1(Code::Push_r64, Register::RAX + u32::from(*r)))?;
        }
        Ok(())
    }

    fn epilogue(&mut self) -> Done {
        self.push(Ok(Instruction::with(Code::VEX_Vzeroupper)))?;
        for r in self.saved.iter().rev() {
            self.push(Instruction::with1(Code::Pop_r64, Register::RAX + u32::from(*r)))?;
        }
        self.push(Ok(Instruction::with(Code::Retnq)))
    }

    fn op(&mut self, op: &Op) -> Done {
        let avx512 = self.isa.is_evex();
        match *op {
            Op::Zero { dst } => {
                let dst = self.vector(dst);
                let code = if avx512 {
                    Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32
                } else {
                    Code::VEX_Vxorps_ymm_ymm_ymmm256
                };
                self.push(Instruction::with3(code, dst, dst, dst))
            }
            Op::Load { dst, mem, mask } => {
                let (dst, mem) = (self.vector(dst), self.mem(mem));
                match (mask.map(|k| self.mask(k)), avx512) {
                    (None, false) => self.push(Instruction::with2(Code::VEX_Vmovups_ymm_ymmm256, dst, mem)),
                    (None, true) => self.push(Instruction::with2(Code::EVEX_Vmovups_zmm_k1z_zmmm512, dst, mem)),
                    (Some(k), false) => self.push(Instruction::with3(Code::VEX_Vmaskmovps_ymm_ymm_m256, dst, k, mem)),
                    (Some(k), true) => self.push_masked(
                        Instruction::with2(Code::EVEX_Vmovups_zmm_k1z_zmmm512, dst, mem),
                        k,
                        true,
                    ),
                }
            }
            Op::Store { mem, src, mask } => {
                let (src, mem) = (self.vector(src), self.mem(mem));
                match (mask.map(|k| self.mask(k)), avx512) {
                    (None, false) => self.push(Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, mem, src)),
                    (None, true) => self.push(Instruction::with2(Code::EVEX_Vmovups_zmmm512_k1z_zmm, mem, src)),
                    (Some(k), false) => self.push(Instruction::with3(Code::VEX_Vmaskmovps_m256_ymm_ymm, mem, k, src)),
                    (Some(k), true) => self.push_masked(
                        Instruction::with2(Code::EVEX_Vmovups_zmmm512_k1z_zmm, mem, src),
                        k,
                        false,
                    ),
                }
            }
            Op::Broadcast { dst, mem } => {
                let code = if avx512 {
                    Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32
                } else {
                    Code::VEX_Vbroadcastss_ymm_m32
                };
                self.push(Instruction::with2(code, self.vector(dst), self.mem(mem)))
            }
            Op::Fma { acc, a, b } => {
                let code = if avx512 {
                    Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er
                } else {
                    Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256
                };
                self.three(code, acc, a, b)
            }
            Op::Binary { op, dst, a, b } => {
                let code = match (op, avx512) {
                    (Binary::Add, false) => Code::VEX_Vaddps_ymm_ymm_ymmm256,
                    (Binary::Add, true) => Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
                    (Binary::Sub, false) => Code::VEX_Vsubps_ymm_ymm_ymmm256,
                    (Binary::Sub, true) => Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er,
                    (Binary::Mul, false) => Code::VEX_Vmulps_ymm_ymm_ymmm256,
                    (Binary::Mul, true) => Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er,
                    (Binary::Max, false) => Code::VEX_Vmaxps_ymm_ymm_ymmm256,
                    (Binary::Max, true) => Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae,
                    (Binary::Min, false) => Code::VEX_Vminps_ymm_ymm_ymmm256,
                    (Binary::Min, true) => Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae,
                };
                self.three(code, dst, a, b)
            }
            Op::FirstLanes {
                dst,
                count,
                skip,
                scratch,
            } => self.first_lanes(dst, count, skip, scratch),
            Op::Prefetch { mem } => self.push(Instruction::with1(Code::Prefetcht0_m8, self.mem(mem))),
            Op::Imm { dst, value } => {
                let dst = self.general(dst);
                match i32::try_from(value) {
                    Ok(value) => self.push(Instruction::with2(Code::Mov_rm64_imm32, dst, value)),
                    Err(_) => self.push(Instruction::with2(Code::Mov_r64_imm64, dst, value)),
                }
            }
            Op::Copy { dst, src } => self.push(Instruction::with2(
                Code::Mov_r64_rm64,
                self.general(dst),
                self.general(src),
            )),
            Op::LoadGeneral { dst, mem } => {
                self.push(Instruction::with2(Code::Mov_r64_rm64, self.general(dst), self.mem(mem)))
            }
            Op::Lea { dst, mem } => self.push(Instruction::with2(Code::Lea_r64_m, self.general(dst), self.mem(mem))),
            Op::General { op, dst, src } => {
                let dst = self.general(dst);
                let (register, immediate, short) = match op {
                    GeneralOp::Add => (Code::Add_r64_rm64, Code::Add_rm64_imm32, Code::Add_rm64_imm8),
                    GeneralOp::Sub => (Code::Sub_r64_rm64, Code::Sub_rm64_imm32, Code::Sub_rm64_imm8),
                    GeneralOp::Mul => {
                        if let Scalar::Imm(i) = src {
                            return self.push(Instruction::with3(Code::Imul_r64_rm64_imm32, dst, dst, i));
                        }
                        (Code::Imul_r64_rm64, Code::INVALID, Code::INVALID)
                    }
                };
                self.scalar([register, immediate, short], dst, src)
            }
            Op::Branch { cond, a, b, .. } => {
                let a = self.general(a);
                self.scalar([Code::Cmp_r64_rm64, Code::Cmp_rm64_imm32, Code::Cmp_rm64_imm8], a, b)?;
                let code = match cond {
                    Cond::Eq => Code::Je_rel32_64,
                    Cond::Ne => Code::Jne_rel32_64,
                    Cond::Lt => Code::Jl_rel32_64,
                    Cond::Le => Code::Jle_rel32_64,
                    Cond::Gt => Code::Jg_rel32_64,
                    Cond::Ge => Code::Jge_rel32_64,
                };
                self.push(Instruction::with_branch(code, 0))
            }
            Op::Jump { .. } => self.push(Instruction::with_branch(Code::Jmp_rel32_64, 0)),
            Op::Label(_) => Ok(()),
            Op::Return => self.epilogue(),
        }
    }

    fn three(&mut self, code: Code, dst: V, a: V, b: Operand) -> Done {
        let (dst, a) = (self.vector(dst), self.vector(a));
        match b {
            Operand::Reg(b) => self.push(Instruction::with3(code, dst, a, self.vector(b))),
            Operand::Mem(m) => self.push(Instruction::with3(code, dst, a, self.memory(m, false))),
            Operand::Broadcast(m) => self.push(Instruction::with3(code, dst, a, self.memory(m, true))),
        }
    }

    /// `codes`: with a register or memory, with a 32-bit constant, with an 8-bit one.
    fn scalar(&mut self, codes: [Code; 3], dst: Register, src: Scalar) -> Done {
        let [general, immediate, short] = codes;
        match src {
            Scalar::Reg(g) => self.push(Instruction::with2(general, dst, self.general(g))),
            Scalar::Mem(m) => self.push(Instruction::with2(general, dst, self.mem(m))),
            Scalar::Imm(i) if i8::try_from(i).is_ok() => self.push(Instruction::with2(short, dst, i)),
            Scalar::Imm(i) => self.push(Instruction::with2(immediate, dst, i)),
        }
    }

    /// AVX-512: the low `count` bits of a word, shifted right by `skip`. AVX2: lane numbers, unpacked from the bytes of a
    /// constant, compared with `count`.
    fn first_lanes(&mut self, dst: K, count: G, skip: u8, (scratch, lanes): (G, V)) -> Done {
        let scratch = self.general(scratch);
        let k = self.mask(dst);
        match self.isa {
            Isa::Avx512 => {
                let count = self.general(count);
                self.push(Instruction::with2(Code::Mov_rm64_imm32, scratch, -1i32))?;
                self.push(Instruction::with3(Code::VEX_Bzhi_r64_rm64_r64, scratch, scratch, count))?;
                if skip > 0 {
                    self.push(Instruction::with2(Code::Shr_rm64_imm8, scratch, u32::from(skip)))?;
                }
                let low = Register::EAX + (scratch as u32 - Register::RAX as u32);
                self.push(Instruction::with2(Code::VEX_Kmovw_kr_r32, k, low))
            }
            Isa::Avx2 => {
                let count = Register::EAX + u32::from(self.allocation.general(count));
                let xmm = |number: u8| Register::XMM0 + u32::from(number);
                let (ymm, half) = (self.vector(lanes), xmm(self.allocation.vector(lanes)));
                let k_half = xmm(self.allocation.mask(dst));
                let numbers = u64::from_le_bytes(std::array::from_fn(|i| i as u8 + skip));
                self.push(Instruction::with2(Code::Mov_r64_imm64, scratch, numbers))?;
                self.push(Instruction::with2(Code::VEX_Vmovq_xmm_rm64, half, scratch))?;
                self.push(Instruction::with2(Code::VEX_Vpmovzxbd_ymm_xmmm64, ymm, half))?;
                self.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, k_half, count))?;
                self.push(Instruction::with2(Code::VEX_Vpbroadcastd_ymm_xmmm32, k, k_half))?;
                self.push(Instruction::with3(Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, k, k, ymm))
            }
        }
    }
}
