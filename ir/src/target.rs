//! The plain facts of a machine and of its kernel families: what the cost model and the tilers ask, and nothing more.
//!
//! A target is a CPU or a GPU, and has costs of its own. Adding one is a function here and a row of [`Target::CPUS`] or [`Target::GPUS`]; the
//! command line takes its names from there.
//!
//! Invariant: a [`Target`] never says how something is done, only what there is; two targets of the same name are equal.
//! Figures are those of common server machines (a Zen 4 for x86-64-v4, an A100 for sm_80); a wrong one costs speed, never
//! results.

use crate::DType;

/// The level of CPU that code is made for, as the x86-64 psABI names them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cpu {
    /// x86-64 with SSE2 only.
    X86_64,
    /// With AVX2, FMA, F16C and BMI2.
    X86_64V3,
    /// With AVX-512 F, BW, CD, DQ and VL.
    X86_64V4,
    /// AArch64 with Advanced SIMD.
    Aarch64,
}

/// What a register tile multiplies, and what it sums in: which operands it takes, left and right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TileKind {
    /// f32 by f32, summed in f32.
    F32,
    /// f16 by f16, converted in registers and summed in f32.
    F16,
    /// bf16 by bf16, converted in registers and summed in f32.
    Bf16,
    /// f32 by f16, which is converted in registers, summed in f32: what is stored in fewer bits is packed as it is stored.
    F32ByF16,
    /// f32 by bf16, in the same way.
    F32ByBf16,
    /// bf16 by bf16, summed in f32 by pairs of steps: by instructions that add up in an order of their own and take what is below the
    /// smallest normal number for 0, where there are some. Of one run of whole [`BLOCK`](crate::loops::BLOCK)s of steps.
    Bf16Pairs,
    /// u8 by i8, summed in i32, which wraps. Other pairs of bytes are such a one but for an offset.
    U8I8,
    /// i8 by u8 in blocks of [`BLOCK`](crate::loops::BLOCK) steps, of which each row and each column has a scale: blocks are summed in i32,
    /// and their sums in f32.
    Q8,
    /// The same by 4 bits: a byte holds a step of each half of a block, that of the first half in its lower bits.
    Q4,
}

impl TileKind {
    /// Every kind.
    pub const ALL: [TileKind; 9] = [
        TileKind::F32,
        TileKind::F16,
        TileKind::Bf16,
        TileKind::F32ByF16,
        TileKind::F32ByBf16,
        TileKind::Bf16Pairs,
        TileKind::U8I8,
        TileKind::Q8,
        TileKind::Q4,
    ];

    /// The dtypes of the left operand, the right one and the sums.
    pub const fn dtypes(self) -> [DType; 3] {
        match self {
            TileKind::F32 => [DType::F32; 3],
            TileKind::F16 => [DType::F16, DType::F16, DType::F32],
            TileKind::F32ByF16 => [DType::F32, DType::F16, DType::F32],
            TileKind::F32ByBf16 => [DType::F32, DType::BF16, DType::F32],
            TileKind::Bf16 | TileKind::Bf16Pairs => [DType::BF16, DType::BF16, DType::F32],
            TileKind::U8I8 => [DType::U8, DType::I8, DType::I32],
            TileKind::Q8 | TileKind::Q4 => [DType::I8, DType::U8, DType::F32],
        }
    }

    /// The kind of tiles with these operands and sums, of which every step counts alike, on any machine; `None` where there is none.
    pub fn of(dtypes: [DType; 3]) -> Option<TileKind> {
        let all = TileKind::ALL.into_iter();
        all.filter(|k| !k.has_scales() && *k != TileKind::Bf16Pairs)
            .find(|k| k.dtypes() == dtypes)
    }

    /// The kind that sums the same by pairs of steps; `None` where there is none.
    pub const fn by_pairs(self) -> Option<TileKind> {
        match self {
            TileKind::Bf16 => Some(TileKind::Bf16Pairs),
            _ => None,
        }
    }

    /// True where blocks of steps have scales.
    pub const fn has_scales(self) -> bool {
        matches!(self, TileKind::Q8 | TileKind::Q4)
    }

    /// Steps in an element of the right operand.
    pub const fn packed(self) -> i64 {
        match self {
            TileKind::Q4 => 2,
            _ => 1,
        }
    }

    /// Elements of a panel that so many steps take, in whole groups.
    pub const fn panel_elements(self, steps: i64) -> i64 {
        let by = self.interleave();
        crate::loops::PANEL * by * ((steps + by * self.packed() - 1) / (by * self.packed()))
    }

    /// Steps of the sum that lie side by side in a panel, column by column: as many as an instruction multiplies at once.
    pub const fn interleave(self) -> i64 {
        match self {
            TileKind::F32 | TileKind::F16 | TileKind::Bf16 | TileKind::F32ByF16 | TileKind::F32ByBf16 => 1,
            TileKind::Bf16Pairs => 2,
            TileKind::U8I8 | TileKind::Q8 | TileKind::Q4 => 4,
        }
    }

    /// The name in text forms and symbols.
    pub const fn name(self) -> &'static str {
        match self {
            TileKind::F32 => "f32",
            TileKind::F16 => "f16",
            TileKind::Bf16 => "bf16",
            TileKind::F32ByF16 => "f32f16",
            TileKind::F32ByBf16 => "f32bf16",
            TileKind::Bf16Pairs => "bf16x2",
            TileKind::U8I8 => "u8i8",
            TileKind::Q8 => "q8",
            TileKind::Q4 => "q4",
        }
    }
}

/// The family of kernels that a register-tile contraction becomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TileFamily {
    /// As the one with products of bf16, and matrices of 16 rows by 16 columns in registers of their own (AMX).
    Amx,
    /// As the one with products of bytes, and sums of two products of bf16 in one instruction.
    Avx512Bf16,
    /// Assembled, 512-bit vectors, sums of four products of bytes in one instruction.
    Avx512Vnni,
    /// Assembled, 512-bit vectors.
    Avx512,
    /// Assembled, 256-bit vectors.
    Avx2,
    /// Compiled from 128-bit vectors, any CPU.
    Generic,
}

/// A kernel of a family: the block of a result that it keeps in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileShape {
    /// Columns that it computes at once.
    pub cols: u32,
    /// The most rows: its accumulators fill the register file but for the vectors of the right operand, one of the left, and
    /// what it takes to multiply them.
    pub rows: u32,
}

const fn shape(rows: u32, cols: u32) -> TileShape {
    TileShape { cols, rows }
}

impl TileFamily {
    /// The kernels of the family, the widest first. The cost model, the schedules and the assembler of tiles read this table.
    pub const fn shapes(self, kind: TileKind) -> &'static [TileShape] {
        use TileFamily::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni, Generic};
        match (self, kind) {
            // Two matrices of rows by two of columns; sums of a block are scaled in vectors.
            (Amx, TileKind::Q8 | TileKind::Q4 | TileKind::Bf16Pairs) => const { &[shape(32, 32), shape(32, 16)] },
            // Bytes become words here, and bf16 f32: pairs of steps take two vectors where others take one, and a sum of its own.
            (Avx512, TileKind::U8I8) | (Avx512Vnni | Avx512, TileKind::Bf16Pairs) => {
                const { &[shape(12, 32), shape(24, 16)] }
            }
            (Avx2, TileKind::U8I8 | TileKind::Bf16Pairs) => const { &[shape(4, 16), shape(8, 8)] },
            // Sums of a block stand in registers, those of all blocks in memory.
            (Avx512Bf16 | Avx512Vnni, TileKind::Q8 | TileKind::Q4) => const { &[shape(12, 32), shape(24, 16)] },
            (Avx512, TileKind::Q8 | TileKind::Q4) => const { &[shape(10, 32), shape(20, 16)] },
            (Avx2, TileKind::Q8 | TileKind::Q4) => const { &[shape(3, 16), shape(6, 8)] },
            (Amx | Avx512Bf16 | Avx512Vnni | Avx512, _) => const { &[shape(14, 32), shape(28, 16)] },
            (Avx2, _) => const { &[shape(6, 16), shape(12, 8)] },
            (Generic, _) => const { &[shape(4, 8)] },
        }
    }

    /// Whether sums of four products of bytes are one instruction.
    pub const fn sums_bytes(self) -> bool {
        matches!(self, TileFamily::Amx | TileFamily::Avx512Bf16 | TileFamily::Avx512Vnni)
    }

    /// Whether sums of two products of bf16 are one instruction.
    pub const fn sums_pairs(self) -> bool {
        matches!(self, TileFamily::Amx | TileFamily::Avx512Bf16)
    }

    /// Whether registers have 512 bits.
    const fn is_avx512(self) -> bool {
        self.sums_bytes() || matches!(self, TileFamily::Avx512)
    }

    /// The kernel for tiles of this many columns. A tile may have more rows or columns; it is then cut.
    pub const fn shape(self, kind: TileKind, cols: u32) -> TileShape {
        match (self, self.shapes(kind)) {
            // On AVX2 the wide kernel does tiles of few columns as well.
            (family, [_, narrow]) if family.is_avx512() && cols <= narrow.cols => *narrow,
            (_, shapes) => shapes[0],
        }
    }
}

/// The architecture of a GPU, by NVIDIA's compute capability.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arch {
    /// Ampere (A100), and every later one by way of the driver's assembler.
    Sm80,
    /// Hopper (H100, H200).
    Sm90,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Arch; 2] = [Arch::Sm80, Arch::Sm90];

    /// The name, as `.target` and `ptxas` spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm90 => "sm_90",
        }
    }

    /// The best architecture for a device of a compute capability; `None` when it is older than all.
    pub fn for_capability(major: i32, minor: i32) -> Option<Arch> {
        Arch::ALL.into_iter().rev().find(|a| match a {
            Arch::Sm90 => (major, minor) >= (9, 0),
            Arch::Sm80 => (major, minor) >= (8, 0),
        })
    }

    /// The target with this architecture.
    pub const fn target(self) -> Target {
        match self {
            Arch::Sm80 => Target::sm_80(),
            Arch::Sm90 => Target::sm_90(),
        }
    }
}

/// What a CPU has.
#[derive(Clone, PartialEq, Debug)]
pub struct CpuTarget {
    /// The level.
    pub cpu: Cpu,
    /// The target triple of object files.
    pub triple: &'static str,
    /// Vector registers that compiled loops have.
    pub vector_registers: u32,
    /// Whether `a * b + c` with one rounding is an instruction.
    pub has_fma: bool,
    /// What a contraction's register tile becomes.
    pub tile: TileFamily,
    /// Bytes of L2 cache of a core.
    pub l2_bytes: u64,
}

/// What kind of machine a target is, and what it has.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// A CPU.
    Cpu(CpuTarget),
    /// A GPU.
    Gpu(Arch),
}

/// What work costs, in the schedules that there are for a target: a core of a CPU, all of a GPU.
#[derive(Clone, PartialEq, Debug)]
pub struct Cost {
    /// Cycles of a core.
    pub hertz: f64,
    /// f32 operations a second in the tile of a contraction (a fused multiply-add counts as two).
    pub tile_flops: f64,
    /// How much faster tiles of bytes are than those of f32.
    pub byte_tiles: f64,
    /// How much faster tiles of pairs of bf16 are than those of f32.
    pub pair_tiles: f64,
    /// f32 operations a second in loops over vectors.
    pub vector_flops: f64,
    /// Bytes that are read fast once they have been read.
    pub cache_bytes: f64,
    /// Bytes a second from there.
    pub cache_speed: f64,
    /// Bytes a second from memory.
    pub memory_speed: f64,
    /// Seconds that a kernel costs beyond its work.
    pub per_kernel: f64,
    /// What a strided access costs, in accesses of consecutive elements. It is not hidden behind arithmetic, as bandwidth is.
    pub strided: f64,
    /// The share of `tile_flops` that a contraction reaches.
    pub contraction: f64,
    /// The same of a convolution with channels first.
    pub channels_first: f64,
    /// The same of a window, or a convolution of one channel a group, with channels last.
    pub depthwise: f64,
    /// The same with channels first.
    pub window_first: f64,
    /// A window in which bounds are tested at every tap, against one whose padding its producer laid out.
    pub guarded: f64,
}

impl Cost {
    /// The costs of a core, from operations and bytes a cycle.
    const fn core(ghz: f64, tile_flops: f64, vector_flops: f64, l2_bytes: u64) -> Cost {
        let hertz = ghz * 1e9;
        Cost {
            hertz,
            tile_flops: tile_flops * hertz,
            // Where bytes become words.
            byte_tiles: 1.1,
            pair_tiles: 0.9,
            vector_flops: vector_flops * hertz,
            cache_bytes: l2_bytes as f64,
            cache_speed: 16.0 * hertz,
            memory_speed: 4.0 * hertz,
            // The call, the prologue, the parallel region.
            per_kernel: 1.0e-6,
            // Elements are taken one at a time, and the arithmetic on them too.
            strided: 5.0,
            // See the design's measurements.
            contraction: 0.9,
            // It strides through its operand and reaches no tile.
            channels_first: 0.02,
            // There is no reduction to tile.
            depthwise: 0.15,
            // Scalar loads.
            window_first: 0.03,
            guarded: 0.3,
        }
    }
}

/// A machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is and has.
    pub kind: Kind,
    /// What work costs on it.
    pub cost: Cost,
}

impl Target {
    /// Every CPU.
    pub const CPUS: [Target; 7] = [
        Target::baseline(),
        Target::x86_64_v3(),
        Target::x86_64_v4(),
        Target::x86_64_v4_vnni(),
        Target::x86_64_v4_bf16(),
        Target::x86_64_v4_amx(),
        Target::aarch64(),
    ];

    /// Every GPU.
    pub const GPUS: [Target; 2] = [Arch::Sm80.target(), Arch::Sm90.target()];

    /// x86-64 with SSE2.
    pub const fn baseline() -> Target {
        const L2: u64 = 256 << 10;
        Target {
            name: "x86-64",
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::X86_64,
                triple: X86_64,
                vector_registers: 16,
                has_fma: false,
                tile: TileFamily::Generic,
                l2_bytes: L2,
            }),
            cost: Cost::core(3.0, 8.0, 4.0, L2),
        }
    }
    /// x86-64 with AVX2 and FMA.
    pub const fn x86_64_v3() -> Target {
        const L2: u64 = 512 << 10;
        Target {
            name: "x86-64-v3",
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::X86_64V3,
                triple: X86_64,
                vector_registers: 16,
                has_fma: true,
                tile: TileFamily::Avx2,
                l2_bytes: L2,
            }),
            cost: Cost::core(3.5, 32.0, 8.0, L2),
        }
    }
    /// x86-64 with AVX-512.
    pub const fn x86_64_v4() -> Target {
        const L2: u64 = 1 << 20;
        Target {
            name: "x86-64-v4",
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::X86_64V4,
                triple: X86_64,
                vector_registers: 16,
                has_fma: true,
                tile: TileFamily::Avx512,
                l2_bytes: L2,
            }),
            cost: Cost::core(3.7, 32.0, 8.0, L2),
        }
    }
    /// x86-64 with AVX-512, VNNI among it.
    pub const fn x86_64_v4_vnni() -> Target {
        const L2: u64 = 1 << 20;
        Target {
            name: "x86-64-v4+vnni",
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::X86_64V4,
                triple: X86_64,
                vector_registers: 16,
                has_fma: true,
                tile: TileFamily::Avx512Vnni,
                l2_bytes: L2,
            }),
            cost: Cost {
                byte_tiles: 3.8,
                ..Target::x86_64_v4().cost
            },
        }
    }
    /// x86-64 with AVX-512, VNNI and products of bf16 among it (Zen 4, Cooper Lake).
    pub const fn x86_64_v4_bf16() -> Target {
        Target::like_vnni("x86-64-v4+bf16", TileFamily::Avx512Bf16, 1.9, 1 << 20)
    }
    /// The same with AMX for bytes and bf16 (Sapphire Rapids).
    pub const fn x86_64_v4_amx() -> Target {
        Target::like_vnni("x86-64-v4+amx", TileFamily::Amx, 7.0, 2 << 20)
    }
    const fn like_vnni(name: &'static str, tile: TileFamily, pair_tiles: f64, l2_bytes: u64) -> Target {
        Target {
            name,
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::X86_64V4,
                triple: X86_64,
                vector_registers: 16,
                has_fma: true,
                tile,
                l2_bytes,
            }),
            cost: Cost {
                pair_tiles,
                cache_bytes: l2_bytes as f64,
                ..Target::x86_64_v4_vnni().cost
            },
        }
    }
    /// AArch64.
    pub const fn aarch64() -> Target {
        const L2: u64 = 1 << 20;
        Target {
            name: "aarch64",
            kind: Kind::Cpu(CpuTarget {
                cpu: Cpu::Aarch64,
                triple: "aarch64-unknown-linux-gnu",
                vector_registers: 32,
                has_fma: true,
                tile: TileFamily::Generic,
                l2_bytes: L2,
            }),
            cost: Cost::core(3.0, 16.0, 8.0, L2),
        }
    }
    /// An A100.
    ///
    /// Peaks and bandwidths are the data sheet's (19.5 Tflop/s in f32, 40 MB of L2, 1.56 TB/s of memory), a launch is what
    /// the driver takes for one behind another. The shares follow from the schedules: tiles are staged in shared memory
    /// without tensor cores, and windows are a thread a point, which neighbours read together in both layouts.
    pub const fn sm_80() -> Target {
        Target {
            name: Arch::Sm80.name(),
            kind: Kind::Gpu(Arch::Sm80),
            cost: Cost {
                hertz: 1.41e9,
                tile_flops: 19.5e12,
                byte_tiles: 0.5,
                pair_tiles: 1.0,
                vector_flops: 9.7e12,
                cache_bytes: (40u64 << 20) as f64,
                cache_speed: 4.0e12,
                memory_speed: 1.56e12,
                per_kernel: 3.0e-6,
                strided: 8.0,
                contraction: 0.5,
                channels_first: 0.1,
                depthwise: 0.1,
                window_first: 0.1,
                guarded: 0.8,
            },
        }
    }
    /// An H100: 67 Tflop/s in f32, 50 MB of L2, 3.35 TB/s of memory; see [`Target::sm_80`].
    pub const fn sm_90() -> Target {
        let a100 = Target::sm_80();
        Target {
            name: Arch::Sm90.name(),
            kind: Kind::Gpu(Arch::Sm90),
            cost: Cost {
                hertz: 1.83e9,
                tile_flops: 67.0e12,
                vector_flops: 33.5e12,
                cache_bytes: (50u64 << 20) as f64,
                cache_speed: 5.5e12,
                memory_speed: 3.35e12,
                ..a100.cost
            },
        }
    }

    /// Every target.
    pub fn all() -> impl Iterator<Item = Target> {
        Target::CPUS.into_iter().chain(Target::GPUS)
    }

    /// The target of a name.
    pub fn by_name(name: &str) -> Option<Target> {
        Target::all().find(|t| t.name == name)
    }

    /// What the CPU has; `None` for a GPU.
    pub const fn cpu(&self) -> Option<&CpuTarget> {
        match &self.kind {
            Kind::Cpu(c) => Some(c),
            Kind::Gpu(_) => None,
        }
    }

    /// The architecture of the GPU; `None` for a CPU.
    pub const fn gpu(&self) -> Option<Arch> {
        match self.kind {
            Kind::Cpu(_) => None,
            Kind::Gpu(g) => Some(g),
        }
    }
}

const X86_64: &str = "x86_64-unknown-linux-gnu";

/// Features of the levels with AVX-512: those that all have ([`PLAIN`] of them), then VNNI, bf16, and what matrices take.
const V4: &[&str] = &[
    "avx2",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512f",
    "avx512vl",
    "bmi1",
    "bmi2",
    "f16c",
    "fma",
    "lzcnt",
    "popcnt",
    "sse4.2",
    "avx512vnni",
    "avx512bf16",
    "amx-tile",
    "amx-int8",
    "amx-bf16",
];
const PLAIN: usize = 13;
const WITH_VNNI: usize = PLAIN + 1;
const WITH_BF16: usize = WITH_VNNI + 1;

impl CpuTarget {
    /// Lanes of 32 bits that the registers of assembled bodies have; `None` where vector loops are compiled from 128-bit
    /// vectors.
    pub const fn body_lanes(&self) -> Option<u32> {
        match self.tile {
            TileFamily::Avx2 => Some(8),
            TileFamily::Amx | TileFamily::Avx512Bf16 | TileFamily::Avx512Vnni | TileFamily::Avx512 => Some(16),
            TileFamily::Generic => None,
        }
    }

    /// Names of the CPU features that code for this target needs, as Rust spells them.
    pub const fn features(&self) -> &'static [&'static str] {
        match self.cpu {
            Cpu::X86_64 => &[],
            Cpu::X86_64V3 => &["avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "popcnt", "sse4.2"],
            Cpu::X86_64V4 => match self.tile {
                TileFamily::Amx => V4,
                TileFamily::Avx512Bf16 => V4.split_at(WITH_BF16).0,
                TileFamily::Avx512Vnni => V4.split_at(WITH_VNNI).0,
                _ => V4.split_at(PLAIN).0,
            },
            Cpu::Aarch64 => &[],
        }
    }
}
