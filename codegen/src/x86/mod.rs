//! x86-64 vector code: a small vector IR, its register allocator and assembler, and the kernels written in it.
//!
//! Cranelift lowers no vector wider than 128 bits on x86-64; the innermost vector region of a kernel is therefore
//! written in the vector IR ([`vir`]), allocated ([`regalloc`], `spill`), assembled for AVX2 or AVX-512 ([`assemble`](mod@assemble),
//! `opcodes`, `encode`) and defined in
//! the same Cranelift module as everything else, through `Module::define_function_bytes`. The first kernel family is the
//! register tile of a contraction ([`tile`]).
//!
//! Invariants: bytes depend on nothing but the function (compiling twice gives the same bytes); they are position
//! independent, without relocations, and follow the System V calling convention on every operating system, so a caller
//! declares them `extern "sysv64"`.

use brolga_ir::{TileFamily, TileKind};
use std::fmt;

use thiserror::Error as ThisError;

pub mod assemble;
pub(crate) mod body;
#[cfg(test)]
mod checker;
pub mod cpu;
mod encode;
mod opcodes;
pub mod regalloc;
mod spill;
pub mod tile;
pub mod vir;

pub use assemble::{assemble, disassemble};
pub use tile::{MOST_VECTORS, TileArgs, TileKey, assemble_tile, balance_rows, can_fetch_ahead, max_rows, symbol};

/// The level of vector instructions that a function is assembled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// AVX2, FMA, F16C and BMI2: 16 registers of 8 `f32` (x86-64-v3).
    Avx2,
    /// AVX-512 F, VL, BW and DQ beside those: 32 registers of 16 `f32` (x86-64-v4).
    Avx512,
}

impl Isa {
    /// Both, the older first.
    pub const ALL: [Isa; 2] = [Isa::Avx2, Isa::Avx512];

    /// The level that a family of tiles is assembled for, where it is assembled.
    pub const fn of(family: TileFamily) -> Option<Isa> {
        match family {
            TileFamily::Amx | TileFamily::Avx512Bf16 | TileFamily::Avx512Vnni | TileFamily::Avx512 => Some(Isa::Avx512),
            TileFamily::Avx2 => Some(Isa::Avx2),
            TileFamily::Generic => None,
        }
    }

    /// Whether masks have registers of their own (else they are vectors of sign bits) and an operand in memory may be one
    /// number for every lane: instructions in EVEX encoding.
    pub const fn is_evex(self) -> bool {
        matches!(self, Isa::Avx512)
    }

    /// `f32` lanes of a vector register.
    pub const fn lanes(self) -> usize {
        self.bytes() as usize / 4
    }

    /// Bytes of a vector register.
    pub const fn bytes(self) -> u32 {
        match self {
            Isa::Avx2 => 32,
            Isa::Avx512 => 64,
        }
    }

    /// Vector registers of the machine.
    pub fn vector_registers(self) -> usize {
        match self {
            Isa::Avx2 => 16,
            Isa::Avx512 => 32,
        }
    }

    /// Whether the CPU that this runs on has the level.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let base = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi2");
            match self {
                Isa::Avx2 => base,
                Isa::Avx512 => {
                    base && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

/// Why vector code could not be made.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// One operation needs more registers at once than the machine has.
    #[error("{function}: operation {at}: needs more than the {available} {class} registers of {isa} at once")]
    TooManyRegisters {
        /// The function.
        function: String,
        /// The operation at which they ran out.
        at: usize,
        /// The registers there are.
        available: usize,
        /// `vector`, `general` or `mask`.
        class: &'static str,
        /// The level.
        isa: Isa,
    },
    /// A function that is not well formed.
    #[error("{function}: operation {at}: {what}")]
    Malformed {
        /// The function.
        function: String,
        /// The operation.
        at: usize,
        /// What was found and what was expected.
        what: String,
    },
    /// A tile that no kernel exists for.
    #[error(
        "tile of {} with {rows}x{vectors} vectors in the family {family:?}: expected 1 or 2 vectors and 1 to {max_rows} rows",
        kind.name()
    )]
    NoSuchTile {
        /// The family.
        family: TileFamily,
        /// What is multiplied.
        kind: TileKind,
        /// Rows asked for.
        rows: u8,
        /// Vectors asked for.
        vectors: u8,
        /// The most rows that this number of vectors allows.
        max_rows: u8,
    },
    /// An instruction that cannot be encoded.
    #[error("{function}: {what}")]
    Encoding {
        /// The function.
        function: String,
        /// The assembler's words.
        what: String,
    },
}
