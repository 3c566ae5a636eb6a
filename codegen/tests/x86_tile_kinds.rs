//! The register tiles that are not of f32, run on this CPU against a loop in Rust: 16-bit floats bit for bit as `f32::mul_add` of the
//! converted operands in the order of the steps, or, by pairs, in that of the family's instruction; bytes as exact sums that wrap in 32
//! bits.
//!
//! A family that this CPU lacks is skipped with a word.

#![cfg(target_arch = "x86_64")]

use brolga_codegen::x86::tile::PANEL;
use brolga_codegen::x86::{TileArgs, TileKey, assemble_tile, max_rows, symbol};
use brolga_ir::{DType, TileFamily, TileKind};
use memmap2::MmapMut;

const FAMILIES: [TileFamily; 5] = [
    TileFamily::Avx2,
    TileFamily::Avx512,
    TileFamily::Avx512Vnni,
    TileFamily::Avx512Bf16,
    TileFamily::Amx,
];

/// Kinds of 16-bit floats, of which every step counts alike.
const HALVES: [TileKind; 4] = [TileKind::F16, TileKind::Bf16, TileKind::F32ByF16, TileKind::F32ByBf16];

/// Every kernel of a kind that this CPU runs.
fn kernels(kind: TileKind) -> Vec<TileKey> {
    let strides = if kind.interleave() > 1 {
        vec![true]
    } else {
        vec![true, false]
    };
    let mut out = vec![];
    for family in FAMILIES {
        for vectors in [1, 2] {
            for rows in 1..=max_rows(family, kind, vectors) {
                let both = strides.iter().flat_map(|&unit_k| [(unit_k, false), (unit_k, true)]);
                out.extend(both.map(|(unit_k, ahead)| TileKey {
                    family,
                    kind,
                    rows,
                    vectors,
                    unit_k,
                    ahead,
                }));
            }
        }
    }
    let all = out.len();
    out.retain(|k| k.available());
    if out.len() < all {
        println!(
            "skipped: {} kernels of {} that this CPU lacks",
            all - out.len(),
            kind.name()
        );
    }
    out
}

/// Extents, and distances in elements.
#[derive(Clone, Copy, Debug)]
struct Case {
    k: usize,
    blocks: [usize; 2],
    row: i64,
    block: [i64; 2],
}

const fn plain(k: usize) -> Case {
    Case {
        k,
        blocks: [1, 1],
        row: k as i64 + 3,
        block: [0, 0],
    }
}

/// Groups of steps whole and cut, rounds of the inner loop whole and cut, windows that overlap, and backwards.
const CASES: [Case; 10] = [
    plain(0),
    plain(1),
    plain(2),
    plain(3),
    plain(4),
    plain(16),
    plain(23),
    plain(33),
    Case {
        k: 7,
        blocks: [3, 2],
        row: 14,
        block: [70, 7],
    },
    Case {
        k: 18,
        blocks: [2, 3],
        row: -11,
        block: [-29, -13],
    },
];

/// Where A starts in its buffer, in elements, so that negative distances stay inside.
const ORIGIN: i64 = 600;
const C_ROW: usize = 37;
const UNTOUCHED: u32 = 0xdead_beef;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 >> 33
    }

    /// The bits of an element: any byte, or a float between -1 and 1.
    fn element(&mut self, dtype: DType, extreme: bool) -> u64 {
        match dtype {
            DType::U8 if extreme => 255,
            DType::I8 if extreme => 0x80,
            DType::U8 | DType::I8 => self.next() & 0xff,
            DType::F32 => (self.next() as f32 / (1u64 << 30) as f32 - 1.0).to_bits().into(),
            half => half.to_half((self.next() & 0xffff) as f32 / 32768.0 - 1.0).into(),
        }
    }
}

/// The float of these bits.
fn float(dtype: DType, bits: u64) -> f32 {
    match dtype {
        DType::F32 => f32::from_bits(bits as u32),
        half => half.from_half(bits as u16),
    }
}

/// The sum of one element of C as its 32 bits, before what C held is added.
trait Sum {
    fn bits(&self, old: u32, accumulate: bool) -> u32;
}

#[derive(Clone, Copy)]
enum Chain {
    Float(f32),
    Int(i32),
    /// `VDPBF16PS`: the odd step of a pair comes first. The even one waits.
    Pairs(f32, f32),
    /// `TDPBF16PS`: even and odd ones of 32 steps each have a sum; how many steps there were.
    Matrix(f32, [f32; 2], usize),
}

impl Chain {
    fn new(key: TileKey) -> Chain {
        match (key.kind, key.family) {
            (TileKind::U8I8, _) => Chain::Int(0),
            (TileKind::Bf16Pairs, TileFamily::Avx512Bf16) => Chain::Pairs(0.0, f32::NAN),
            (TileKind::Bf16Pairs, TileFamily::Amx) => Chain::Matrix(0.0, [0.0; 2], 0),
            _ => Chain::Float(0.0),
        }
    }

    fn add(&mut self, kind: TileKind, a: u64, b: u64) {
        let [left, right, _] = kind.dtypes();
        // Two bf16 have a product that is a number of f32.
        let product = || float(left, a) * float(right, b);
        match self {
            Chain::Float(s) => *s = float(left, a).mul_add(float(right, b), *s),
            Chain::Int(s) => *s = s.wrapping_add(i32::from(a as u8) * i32::from(b as i8)),
            Chain::Pairs(_, even) if even.is_nan() => *even = product(),
            Chain::Pairs(s, even) => {
                *s += product();
                *s += std::mem::replace(even, f32::NAN);
            }
            Chain::Matrix(s, halves, steps) => {
                halves[*steps % 2] += product();
                *steps += 1;
                if steps.is_multiple_of(32) {
                    let [even, odd] = std::mem::take(halves);
                    *s += even + odd;
                }
            }
        }
    }
}

impl Sum for Chain {
    fn bits(&self, old: u32, accumulate: bool) -> u32 {
        match *self {
            Chain::Float(s) | Chain::Pairs(s, _) | Chain::Matrix(s, ..) if accumulate => {
                (s + f32::from_bits(old)).to_bits()
            }
            Chain::Float(s) | Chain::Pairs(s, _) | Chain::Matrix(s, ..) => s.to_bits(),
            Chain::Int(s) if accumulate => s.wrapping_add(old as i32) as u32,
            Chain::Int(s) => s as u32,
        }
    }
}

/// Runs a kernel and compares all of C, a margin around the tile included.
fn check(key: TileKey, case: Case, extreme: bool) {
    let mut r = Random(7 + case.k as u64);
    let [left, right, _] = key.kind.dtypes();
    let (by, rows) = (key.kind.interleave() as usize, usize::from(key.rows));
    let step: i64 = if key.unit_k { 1 } else { -3 };
    let a: Vec<u64> = (0..2400 + 32 * case.k).map(|_| r.element(left, extreme)).collect();
    let filled = case.k.div_ceil(by) * by;
    let mut panel = vec![0u64; case.blocks[0] * case.blocks[1] * filled * PANEL];
    let place = |block: usize, t: usize, j: usize| (block * filled + t / by * by) * PANEL + j * by + t % by;
    for block in 0..case.blocks[0] * case.blocks[1] {
        for (t, j) in (0..case.k).flat_map(|t| (0..PANEL).map(move |j| (t, j))) {
            panel[place(block, t, j)] = r.element(right, extreme);
        }
    }
    let bytes = |x: &[u64], dtype: DType| -> Vec<u8> {
        x.iter()
            .flat_map(|x| x.to_le_bytes()[..dtype.bytes()].to_vec())
            .collect()
    };
    let (a_bytes, b_bytes) = (bytes(&a, left), bytes(&panel, right));
    let code = {
        let bytes = assemble_tile(key).expect("a kernel of the family");
        let mut map = MmapMut::map_anon(bytes.len()).expect("memory");
        map.copy_from_slice(&bytes);
        map.make_exec().expect("executable memory")
    };
    let size = left.bytes() as i64;
    let mut scratch = vec![0u32; TileArgs::scratch_bytes(key.family, key.kind) / 4];
    for cols in [1, key.width() / 2 + 1, key.width()] {
        for accumulate in [false, true] {
            let old: Vec<u32> = (0..rows * cols)
                .map(|i| match key.kind {
                    TileKind::U8I8 => (i as u32).wrapping_mul(0x9e37_79b9),
                    _ => (i as f32 / 7.0).to_bits(),
                })
                .collect();
            let mut c = vec![UNTOUCHED; (rows + 2) * C_ROW];
            for (i, old) in old.iter().enumerate() {
                c[(i / cols + 1) * C_ROW + 2 + i % cols] = *old;
            }
            let args = TileArgs {
                a: a_bytes[(ORIGIN * size) as usize..].as_ptr().cast(),
                b: b_bytes.as_ptr().cast(),
                c: c[C_ROW + 2..].as_mut_ptr().cast(),
                a_row: case.row * size,
                // A kernel for contiguous steps must not look at this.
                a_k: if key.unit_k { 1 << 40 } else { step * size },
                c_row: C_ROW as i64 * 4,
                k: case.k as i64,
                blocks0: case.blocks[0] as i64,
                a_block0: case.block[0] * size,
                blocks1: case.blocks[1] as i64,
                a_block1: case.block[1] * size,
                cols: cols as i64,
                accumulate: i64::from(accumulate),
                scratch: scratch.as_mut_ptr().cast(),
                ahead: std::ptr::null(),
                ahead_step: 64,
                ..TileArgs::NONE
            };
            // SAFETY: the bytes are the kernel of `key`, this CPU has its instructions, and cases keep addresses in their buffers.
            let function: extern "sysv64" fn(*const TileArgs) = unsafe { std::mem::transmute(code.as_ptr()) };
            function(&args);
            for (i, found) in c.iter().enumerate() {
                let (row, col) = (i / C_ROW, i % C_ROW);
                let inside = (1..=rows).contains(&row) && (2..2 + cols).contains(&col);
                let want = if inside {
                    let (r, j) = (row - 1, col - 2);
                    let mut sum = Chain::new(key);
                    for block in 0..case.blocks[0] * case.blocks[1] {
                        let (p, q) = ((block / case.blocks[1]) as i64, (block % case.blocks[1]) as i64);
                        for t in 0..case.k {
                            let at =
                                ORIGIN + p * case.block[0] + q * case.block[1] + r as i64 * case.row + t as i64 * step;
                            sum.add(key.kind, a[at as usize], panel[place(block, t, j)]);
                        }
                    }
                    sum.bits(old[r * cols + j], accumulate)
                } else {
                    UNTOUCHED
                };
                assert_eq!(*found, want, "{} {case:?} {cols} columns, C[{row}][{col}]", symbol(key));
            }
        }
    }
}

#[test]
fn sixteen_bit_floats_are_chains_of_fused_multiply_adds() {
    for kind in HALVES {
        for key in kernels(kind) {
            CASES.into_iter().for_each(|case| check(key, case, false));
        }
    }
}

/// Their tiles are of one run of whole blocks of 32 steps.
#[test]
fn pairs_of_bf16_are_summed_as_their_instructions_do() {
    for key in kernels(TileKind::Bf16Pairs).into_iter().filter(|k| !k.ahead) {
        [0, 32, 64, 160].into_iter().for_each(|k| check(key, plain(k), false));
    }
}

#[test]
fn sums_of_bytes_are_exact() {
    for key in kernels(TileKind::U8I8) {
        CASES.into_iter().for_each(|case| check(key, case, false));
    }
}

/// 255 times -128: two such products leave 16 bits, 515 of them the whole numbers of f32.
#[test]
fn sums_of_the_largest_bytes_are_exact() {
    for key in kernels(TileKind::U8I8).into_iter().filter(|k| k.rows <= 2) {
        for k in [2, 5, 600, 1203] {
            check(key, plain(k), true);
        }
    }
}

/// Infinities, NaN, subnormals and zeros of both signs become what they are in f32.
#[test]
fn every_sixteen_bit_float_is_converted() {
    for kind in HALVES {
        let [left, half, _] = kind.dtypes();
        for key in kernels(kind).into_iter().filter(|k| k.rows == 1 && k.vectors == 2) {
            let one: u32 = match left {
                DType::F32 => 1f32.to_bits(),
                half => half.to_half(1.0).into(),
            };
            let mut map = MmapMut::map_anon(4096 * 2).expect("memory");
            let bytes = assemble_tile(key).expect("a kernel of the family");
            map[..bytes.len()].copy_from_slice(&bytes);
            let code = map.make_exec().expect("executable memory");
            let mut scratch = vec![0u32; TileArgs::scratch_bytes(key.family, kind) / 4];
            for first in (0..=u16::MAX).step_by(PANEL) {
                let b: Vec<u16> = (0..PANEL as u16).map(|j| first + j).collect();
                let mut c = vec![0f32; PANEL];
                let args = TileArgs {
                    a: (&raw const one).cast(),
                    b: b.as_ptr().cast(),
                    c: c.as_mut_ptr().cast(),
                    a_row: 0,
                    a_k: left.bytes() as i64,
                    c_row: 0,
                    k: 1,
                    blocks0: 1,
                    a_block0: 0,
                    blocks1: 1,
                    a_block1: 0,
                    cols: key.width() as i64,
                    accumulate: 0,
                    scratch: scratch.as_mut_ptr().cast(),
                    ahead: std::ptr::null(),
                    ahead_step: 64,
                    ..TileArgs::NONE
                };
                // SAFETY: the bytes are the kernel of `key`, this CPU has its instructions, and a row of the panel is there.
                let function: extern "sysv64" fn(*const TileArgs) = unsafe { std::mem::transmute(code.as_ptr()) };
                function(&args);
                for (bits, found) in b.iter().zip(&c[..key.width()]) {
                    let want = half.from_half(*bits) + 0.0;
                    let same = want.to_bits() == found.to_bits() || want.is_nan() && found.is_nan();
                    assert!(same, "{} {bits:#x}: {found}, not {want}", symbol(key));
                }
            }
        }
    }
}
