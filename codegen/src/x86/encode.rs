//! Instructions as bytes: the legacy, VEX and EVEX encodings of x86-64.
//!
//! An instruction is its [`Opcode`], as the manual writes it, and its operands by hardware number; the encoder knows the
//! prefixes, the byte that names registers and memory, and displacements, which EVEX counts in units of what is accessed.
//! Memory behind the code (the pool of constants) is addressed from the instruction pointer; those places are filled in at
//! the end, when it is known where the pool stands.
//!
//! Source: Intel's Software Developer's Manual, volume 2, chapter 2. Decided: `iced`'s encoder needs a name for every
//! instruction at every width, which a typed IR would list four times; it took three times as long, too. It stays as the
//! disassembler, which reads in tests what this module writes.

/// Where memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// At a general register.
    General(u8),
    /// In the pool of constants.
    Pool,
}

/// An address: base, index register (a vector register in gathers) with its scale, displacement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub base: Base,
    pub index: Option<(u8, u8)>,
    pub disp: i32,
}

/// The operand that may be in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rm {
    Register(u8),
    Memory(Address),
}

/// The prefix that is part of an opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefix {
    None,
    P66,
    F3,
    F2,
}

/// The table that an opcode stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Map {
    M0F = 1,
    M0F38 = 2,
    M0F3A = 3,
}

/// An opcode: `66.0F38.W1 98` is `Opcode::new(P66, M0F38, 0x98).wide()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opcode {
    prefix: Prefix,
    map: Map,
    wide: bool,
    code: u8,
}

impl Opcode {
    pub const fn new(prefix: Prefix, map: Map, code: u8) -> Opcode {
        Opcode {
            prefix,
            map,
            wide: false,
            code,
        }
    }

    /// With W set.
    pub const fn wide(self) -> Opcode {
        Opcode { wide: true, ..self }
    }

    /// With W as said.
    pub const fn with_wide(self, wide: bool) -> Opcode {
        Opcode { wide, ..self }
    }
}

/// What only EVEX says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evex {
    /// The opmask; 0 for all lanes.
    pub mask: u8,
    /// Lanes outside the mask become zero instead of staying.
    pub zero: bool,
    /// The operand in memory is one element for all lanes.
    pub broadcast: bool,
    /// Bytes of the operand in memory.
    pub bytes: u32,
}

/// A vector instruction, or another one in these encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector {
    pub opcode: Opcode,
    /// 128, 256 or 512.
    pub bits: u32,
    pub reg: u8,
    /// The register in the prefix; 0 where there is none.
    pub second: u8,
    pub rm: Rm,
    pub imm: Option<u8>,
    /// VEX without it.
    pub evex: Option<Evex>,
}

/// Where a displacement to the pool stands.
struct PoolUse {
    /// Its four bytes.
    at: usize,
    /// The end of its instruction.
    end: usize,
    /// The place in the pool.
    place: i32,
}

/// Code under construction.
#[derive(Default)]
pub struct Encoder {
    pub bytes: Vec<u8>,
    pool: Vec<PoolUse>,
}

impl Encoder {
    /// A legacy instruction: `opcode` with its prefixes, the register (or digit), the other operand, an immediate.
    pub fn general(&mut self, opcode: &[u8], reg: u8, rm: Rm, imm: &[u8]) {
        self.legacy(true, opcode, reg, rm, imm);
    }

    /// The same on 32 bits.
    pub fn general32(&mut self, opcode: &[u8], reg: u8, rm: Rm, imm: &[u8]) {
        self.legacy(false, opcode, reg, rm, imm);
    }

    fn legacy(&mut self, wide: bool, opcode: &[u8], reg: u8, rm: Rm, imm: &[u8]) {
        let (x, b) = high_bits(rm);
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | x << 1 | b;
        if rex != 0x40 {
            self.bytes.push(rex);
        }
        self.bytes.extend_from_slice(opcode);
        self.operands(reg, rm, 1, imm.len());
        self.bytes.extend_from_slice(imm);
    }

    /// A vector instruction.
    pub fn vector(&mut self, i: &Vector) {
        let (x, b) = high_bits(i.rm);
        let Opcode {
            prefix,
            map,
            wide,
            code,
        } = i.opcode;
        let (prefix, wide) = (prefix as u8, u8::from(wide));
        let r = i.reg >> 3 & 1;
        match i.evex {
            None => {
                let last = (!i.second & 15) << 3 | u8::from(i.bits == 256) << 2 | prefix;
                if (x, b, wide, map) == (0, 0, 0, Map::M0F) {
                    self.bytes.extend([0xc5, (r ^ 1) << 7 | last]);
                } else {
                    let first = (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | map as u8;
                    self.bytes.extend([0xc4, first, wide << 7 | last]);
                }
            }
            Some(e) => {
                // The fifth bit of the operand: X where it is a register, V' where it is the index of a gather.
                let (x, v) = match i.rm {
                    Rm::Register(n) => (n >> 4 & 1, i.second >> 4 & 1),
                    Rm::Memory(Address {
                        index: Some((n, _)), ..
                    }) if n >= 16 => (x, 1),
                    Rm::Memory(_) => (x, i.second >> 4 & 1),
                };
                let r2 = i.reg >> 4 & 1;
                let p0 = (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | (r2 ^ 1) << 4 | map as u8;
                let p1 = wide << 7 | (!i.second & 15) << 3 | 1 << 2 | prefix;
                let length = match i.bits {
                    512 => 2,
                    256 => 1,
                    _ => 0,
                };
                let p2 = u8::from(e.zero) << 7 | length << 5 | u8::from(e.broadcast) << 4 | (v ^ 1) << 3 | e.mask;
                self.bytes.extend([0x62, p0, p1, p2]);
            }
        }
        self.bytes.push(code);
        let unit = i.evex.map_or(1, |e| e.bytes as i32);
        self.operands(i.reg, i.rm, unit, usize::from(i.imm.is_some()));
        self.bytes.extend(i.imm);
    }

    /// The bytes that name a register and the other operand; displacements of 8 bits count in `unit` bytes. `behind` bytes
    /// of the instruction follow.
    fn operands(&mut self, reg: u8, rm: Rm, unit: i32, behind: usize) {
        let reg = (reg & 7) << 3;
        let a = match rm {
            Rm::Register(n) => return self.bytes.push(0xc0 | reg | n & 7),
            Rm::Memory(a) => a,
        };
        let Base::General(base) = a.base else {
            self.bytes.push(reg | 5);
            let at = self.bytes.len();
            self.bytes.extend([0; 4]);
            self.pool.push(PoolUse {
                at,
                end: at + 4 + behind,
                place: a.disp,
            });
            return;
        };
        let short = (a.disp % unit == 0).then(|| i8::try_from(a.disp / unit).ok()).flatten();
        // Without a displacement, rbp and r13 mean something else.
        let mode = match short {
            Some(0) if base & 7 != 5 => 0,
            Some(_) => 1,
            None => 2,
        };
        match a.index {
            None if base & 7 != 4 => self.bytes.push(mode << 6 | reg | base & 7),
            index => {
                let (index, scale) = index.map_or((4, 0), |(n, s)| (n & 7, s.trailing_zeros() as u8));
                self.bytes.push(mode << 6 | reg | 4);
                self.bytes.push(scale << 6 | index << 3 | base & 7);
            }
        }
        match (mode, short) {
            (0, _) => {}
            (1, Some(d)) => self.bytes.push(d as u8),
            _ => self.bytes.extend(a.disp.to_le_bytes()),
        }
    }

    /// Appends the pool at a multiple of its alignment, and fills in where it is used.
    pub fn finish(mut self, pool: &[u8], align: usize) -> Vec<u8> {
        if !pool.is_empty() {
            let first = self.bytes.len().next_multiple_of(align);
            // What lies between is never run: `int3`.
            self.bytes.resize(first, 0xcc);
            self.bytes.extend_from_slice(pool);
            for u in &self.pool {
                let distance = (first as i64 + i64::from(u.place) - u.end as i64) as i32;
                self.bytes[u.at..u.at + 4].copy_from_slice(&distance.to_le_bytes());
            }
        }
        self.bytes
    }
}

/// The fourth bits of the index and of the base (or register).
fn high_bits(rm: Rm) -> (u8, u8) {
    match rm {
        Rm::Register(n) => (0, n >> 3 & 1),
        Rm::Memory(a) => {
            let base = match a.base {
                Base::General(n) => n >> 3 & 1,
                Base::Pool => 0,
            };
            (a.index.map_or(0, |(n, _)| n >> 3 & 1), base)
        }
    }
}
