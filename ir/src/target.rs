//! The plain facts of a machine and of its kernel families: what the cost model and the tilers ask, and nothing more.
//!
//! Invariant: a [`Target`] never says how something is done, only what there is; two targets of the same name are equal.
//! Figures are those of common server cores of each level (a Zen 4 for x86-64-v4); a wrong one costs speed, never results.

/// The level of CPU that code is made for, as the x86-64 psABI names them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cpu {
    /// x86-64 with SSE2 only.
    X86_64,
    /// With AVX2, FMA and BMI2.
    X86_64V3,
    /// With AVX-512 F, BW, CD, DQ and VL.
    X86_64V4,
    /// AArch64 with Advanced SIMD.
    Aarch64,
}

/// The family of kernels that a register-tile contraction becomes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TileFamily {
    /// Assembled, 512-bit vectors.
    Avx512,
    /// Assembled, 256-bit vectors.
    Avx2,
    /// Compiled from 128-bit vectors, any CPU.
    Generic,
}

impl TileFamily {
    /// The most rows that one kernel keeps in registers for this many columns (at most 32). A tile may have more; it is
    /// then cut.
    pub const fn max_rows(self, cols: u32) -> u32 {
        match self {
            TileFamily::Avx512 if cols > 16 => 14,
            TileFamily::Avx512 => 28,
            TileFamily::Avx2 => 6,
            TileFamily::Generic => 4,
        }
    }
    /// Columns that one kernel computes at once.
    pub const fn cols(self) -> u32 {
        match self {
            TileFamily::Avx512 => 32,
            TileFamily::Avx2 => 16,
            TileFamily::Generic => 8,
        }
    }
}

/// A machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// The name on the command line.
    pub name: &'static str,
    /// The level.
    pub cpu: Cpu,
    /// The target triple of object files.
    pub triple: &'static str,
    /// Width of the vectors of compiled loops, in bits.
    pub vector_bits: u32,
    /// Whether `a * b + c` with one rounding is an instruction.
    pub has_fma: bool,
    /// What a contraction's register tile becomes.
    pub tile: TileFamily,
    /// Bytes of L1 data cache of a core.
    pub l1_bytes: u64,
    /// Bytes of L2 cache of a core.
    pub l2_bytes: u64,
    /// f32 operations a cycle and core in a register tile (a fused multiply-add counts as two).
    pub tile_flops_per_cycle: f64,
    /// f32 operations a cycle and core in compiled vector loops.
    pub vector_flops_per_cycle: f64,
    /// Clock, in GHz.
    pub ghz: f64,
    /// Bytes a cycle from L1, L2 and memory.
    pub bytes_per_cycle: [f64; 3],
}

impl Target {
    /// The names that [`Target::by_name`] knows.
    pub const NAMES: [&'static str; 4] = ["x86-64", "x86-64-v3", "x86-64-v4", "aarch64"];

    /// x86-64 with SSE2.
    pub const fn baseline() -> Target {
        Target {
            name: "x86-64",
            cpu: Cpu::X86_64,
            triple: "x86_64-unknown-linux-gnu",
            vector_bits: 128,
            has_fma: false,
            tile: TileFamily::Generic,
            l1_bytes: 32 << 10,
            l2_bytes: 256 << 10,
            tile_flops_per_cycle: 8.0,
            vector_flops_per_cycle: 4.0,
            ghz: 3.0,
            bytes_per_cycle: [32.0, 16.0, 4.0],
        }
    }
    /// x86-64 with AVX2 and FMA.
    pub const fn x86_64_v3() -> Target {
        Target {
            name: "x86-64-v3",
            cpu: Cpu::X86_64V3,
            has_fma: true,
            tile: TileFamily::Avx2,
            l2_bytes: 512 << 10,
            tile_flops_per_cycle: 32.0,
            vector_flops_per_cycle: 8.0,
            ghz: 3.5,
            ..Target::baseline()
        }
    }
    /// x86-64 with AVX-512.
    pub const fn x86_64_v4() -> Target {
        Target {
            name: "x86-64-v4",
            cpu: Cpu::X86_64V4,
            tile: TileFamily::Avx512,
            l2_bytes: 1 << 20,
            ghz: 3.7,
            ..Target::x86_64_v3()
        }
    }
    /// AArch64.
    pub const fn aarch64() -> Target {
        Target {
            name: "aarch64",
            cpu: Cpu::Aarch64,
            triple: "aarch64-unknown-linux-gnu",
            has_fma: true,
            tile: TileFamily::Generic,
            l1_bytes: 64 << 10,
            l2_bytes: 1 << 20,
            tile_flops_per_cycle: 16.0,
            vector_flops_per_cycle: 8.0,
            ..Target::baseline()
        }
    }
    /// The target of a name.
    pub fn by_name(name: &str) -> Option<Target> {
        [
            Target::baseline(),
            Target::x86_64_v3(),
            Target::x86_64_v4(),
            Target::aarch64(),
        ]
        .into_iter()
        .find(|t| t.name == name)
    }
    /// Lanes of a compiled vector for elements of this many bits.
    pub const fn lanes(&self, bits: usize) -> usize {
        self.vector_bits as usize / bits
    }
    /// Names of the CPU features that code for this target needs, as Rust spells them.
    pub const fn features(&self) -> &'static [&'static str] {
        match self.cpu {
            Cpu::X86_64 => &[],
            Cpu::X86_64V3 => &["avx2", "bmi1", "bmi2", "fma", "lzcnt", "popcnt", "sse4.2"],
            Cpu::X86_64V4 => &[
                "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "bmi1", "bmi2", "fma", "lzcnt",
                "popcnt", "sse4.2",
            ],
            Cpu::Aarch64 => &[],
        }
    }
}
