//! The register tile: a batch-reduce matrix product of a few rows by one packed panel, of any [`TileKind`].
//!
//! `C[r][j] (+)= sum over b0 < blocks0, b1 < blocks1, kk < k of A[b0, b1, r, kk] * B[step][j]`, with
//! `A[b0, b1, r, kk]` at `a + b0*a_block0 + b1*a_block1 + r*a_row + kk*a_k` bytes, read in place, and `B` packed: row `step`
//! (counting through all blocks) lies [`PANEL`] elements after the one before. A kernel narrower than the panel (one
//! AVX-512 vector, any AVX2 kernel) reads its half or quarter at the same stride: the caller offsets `b` and `c`. A kernel of one row
//! may read several panels side by side: one panel has two sums there, and each addition waits for the one before.
//!
//! ```text
//!            B: one panel                 14x32 on AVX-512, one step of k:
//!        [k][32] ───────────▶ j             2 loads of B
//!   A  ┌──────────────┐                     28 x  acc[r][v] += B[v] * broadcast A[r][k]
//!   r  │ accumulators │
//!   ▼  └──────────────┘
//! ```
//!
//! | kind | B | A | a step |
//! | --- | --- | --- | --- |
//! | f32 | as it lies | broadcast | `vfmadd231ps` |
//! | f16 | converted by a load | a vector of steps converted, then broadcast | the same |
//! | bf16 | converted by a load | broadcast and converted | the same |
//! | f32 by f16 or bf16 | converted by a load | broadcast | the same |
//! | bf16 in pairs | `[k/2][32][2]` | two steps broadcast | `vdpbf16ps`: two steps |
//! | bf16 in pairs | the same; even and odd steps made f32 | the same | `vfmadd231ps`, twice: two steps |
//! | u8 by i8, VNNI | `[k/4][32][4]` | four bytes broadcast | `vpdpbusd`: four steps |
//! | u8 by i8 | the same; even and odd bytes made words | the same | `vpmaddwd`, `vpaddd`, twice: four steps |
//! | i8 by 8 or 4 bits with scales | module `blocks` | | the same two |
//! | these and bf16 in pairs, AMX | module `matrix` | | |
//!
//! Invariants: every `C[r][j]` of floats is one chain of fused multiply-adds from +0 in the order of the steps, then one addition of
//! the old `C` if asked. So the result does not depend on the ISA level, the tile's shape, or how rows are balanced: all
//! kernels agree with `f32::mul_add` in a loop, bit for bit (NaN payloads excepted). Of pairs of bf16 that holds for families without an
//! instruction for them; on each of the others all kernels agree, whatever their rows. Sums of bytes are exact but that they wrap in
//! 32 bits. Nothing behind the steps of A is read: what is left of a group of four is taken a byte at a time.
//!
//! Decided, by measurement on Zen 4: two-vector kernels of f32 load a broadcast of A once and use it twice, one-vector kernels on
//! AVX-512 take it as a memory operand. The memory operand everywhere is as fast from L1 (14x32 at K = 256: 99.8 % of peak
//! against 99.0) but needs twice the loads: 4x32 fell from 97 to 85 %, and 1024^3 with rows 4 KiB apart from 75 to 53 %.
//! A 28x16 kernel without it fell from 99 to 75 %.
//!
//! With a conversion of f16 a row and step the 14x32 kernel of AVX-512 reached 87 % of peak and the 6x16 of AVX2 73.
//!
//! Rejected: `vpmaddubsw`, which adds two products in 16 bits and saturates at 255 · 127 · 2.
//!
//! Source: E. Georganas et al., High-Performance Deep Learning via a Single Building Block, arXiv 1906.06440.

mod address;
mod args;
mod blocks;
mod matrix;
mod store;

pub use args::TileArgs;

use self::address::{Panels, Rows};
use self::store::store;
use super::assemble::assemble;
use super::vir::{Binary, Cond, Dot, Elem, Function, G, GeneralOp, Level, Mem, Op, Operand, Scalar, Shift, Type, V};
use super::{Error, Isa};
use brolga_ir::{DType, TileFamily, TileKind};

/// Columns of a packed panel of B, on every level.
pub const PANEL: usize = brolga_ir::loops::PANEL as usize;

/// Steps of `k`, or groups of them, in one round of the inner loop.
const UNROLL: i32 = 4;

/// How far ahead of its use a line of B is fetched to L1.
const PREFETCH_BYTES: i32 = 1024;

/// Which kernel of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileKey {
    /// The family; the compiled one has no kernels here.
    pub family: TileFamily,
    /// What is multiplied.
    pub kind: TileKind,
    /// Rows of C, from 1 to [`max_rows`].
    pub rows: u8,
    /// Vectors in a row of C, 1 or 2, or whole panels up to [`MOST_VECTORS`] in one row of floats: the width is this times [`Isa::lanes`].
    pub vectors: u8,
    /// Whether the steps of A are contiguous, so that they need no pointer of their own.
    pub unit_k: bool,
    /// Whether it fetches lines for later ones: [`TileArgs::ahead`].
    pub ahead: bool,
}

impl TileKey {
    /// The level that the kernel is assembled for.
    ///
    /// # Errors
    /// [`Error::NoSuchTile`] for the compiled family.
    pub fn isa(self) -> Result<Isa, Error> {
        Isa::of(self.family).ok_or(Error::NoSuchTile {
            family: self.family,
            kind: self.kind,
            rows: self.rows,
            vectors: self.vectors,
            max_rows: 0,
        })
    }

    /// Whether the products of a group of steps are one instruction.
    const fn dots(self) -> bool {
        match self.kind {
            TileKind::Bf16Pairs => self.family.sums_pairs(),
            _ => self.is_bytes() && self.family.sums_bytes(),
        }
    }

    /// Whether matrix registers are used: for bytes from some rows on, since all kernels of them agree.
    const fn is_matrix(self) -> bool {
        let some = matches!(self.kind, TileKind::Bf16Pairs) || self.kind.has_scales() && self.rows >= matrix::SOME_ROWS;
        matches!(self.family, TileFamily::Amx) && some
    }

    /// Whether bytes are multiplied.
    const fn is_bytes(self) -> bool {
        matches!(self.kind, TileKind::U8I8 | TileKind::Q8 | TileKind::Q4)
    }

    /// Whether the CPU that this runs on has the instructions.
    pub fn available(self) -> bool {
        let own = match self.kind {
            _ if self.is_matrix() => brolga_abi::has_matrices(),
            _ if !self.dots() => true,
            TileKind::Bf16Pairs => has("avx512bf16"),
            _ => has("avx512vnni"),
        };
        self.isa().is_ok_and(Isa::available) && own
    }

    /// Columns that the kernel computes; 0 in the compiled family.
    pub fn width(self) -> usize {
        Isa::of(self.family).map_or(0, Isa::lanes) * usize::from(self.vectors)
    }
}

/// The most vectors in a row: as many sums as hide the latency of an addition, four cycles of two each.
pub const MOST_VECTORS: u8 = 8;

fn has(feature: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    return match feature {
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        _ => is_x86_feature_detected!("avx512bf16"),
    };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = feature;
        false
    }
}

/// The most rows of a tile with this many vectors in a row, as [`TileFamily`] has them; 0 where there is no such tile.
pub fn max_rows(family: TileFamily, kind: TileKind, vectors: u8) -> u8 {
    let cols = Isa::of(family).map_or(0, Isa::lanes) * usize::from(vectors);
    let found = family.shapes(kind).iter().find(|s| s.cols as usize == cols);
    let wide = cols > 0 && cols.is_multiple_of(PANEL) && vectors <= MOST_VECTORS && kind.interleave() == 1;
    found.map_or(u8::from(wide), |s| s.rows as u8)
}

/// Whether a kernel of so many rows has a register left to fetch lines for later ones: strides of steps and scratch take one too.
pub fn can_fetch_ahead(kind: TileKind, rows: u8, unit_k: bool) -> bool {
    usize::from(rows) <= 3 * Rows::PER_BASE || unit_k && kind != TileKind::F16
}

/// Cuts `m` rows into the fewest tiles of at most `max` rows, as equal as can be: `(count_big, big, count_small, small)`,
/// with `count_big * big + count_small * small == m` and `small == big - 1`, or no small ones (`0, 0`).
///
/// `max` is at least 1. For no rows the answer is all zeros.
///
/// ```
/// use brolga_codegen::x86::balance_rows;
/// assert_eq!(balance_rows(128, 14), (8, 13, 2, 12));
/// assert_eq!(balance_rows(28, 14), (2, 14, 0, 0));
/// ```
pub fn balance_rows(m: usize, max: usize) -> (usize, usize, usize, usize) {
    let tiles = m.div_ceil(max.max(1));
    if tiles == 0 {
        return (0, 0, 0, 0);
    }
    let (small, count_big) = (m / tiles, m % tiles);
    match count_big {
        0 => (tiles, small, 0, 0),
        _ => (count_big, small + 1, tiles - count_big, small),
    }
}

/// The kernel's symbol: `brolga_tile_avx512_14x32_k1` (`_k1` for contiguous steps of A, `_ks` for any stride).
pub fn symbol(key: TileKey) -> String {
    let k = if key.unit_k { "k1" } else { "ks" };
    let ahead = if key.ahead { "_ahead" } else { "" };
    format!("brolga_tile_{}_{}x{}_{k}{ahead}", name(key), key.rows, key.width())
}

/// What the kernel multiplies and by which instructions, as symbols name it: tiles of f32 are the same in all families of
/// AVX-512.
fn name(key: TileKey) -> String {
    let family = match key.family {
        TileFamily::Generic => "generic",
        TileFamily::Avx2 => "avx2",
        _ if key.is_matrix() => "amx",
        _ if key.kind == TileKind::Bf16Pairs && key.dots() => "avx512bf16",
        _ if key.dots() => "avx512vnni",
        _ => "avx512",
    };
    match key.kind {
        TileKind::F32 => family.to_owned(),
        kind => format!("{family}_{}", kind.name()),
    }
}

/// The kernel's bytes, to be defined under [`symbol`].
///
/// # Errors
/// [`Error::NoSuchTile`] for a key outside the family.
pub fn assemble_tile(key: TileKey) -> Result<Vec<u8>, Error> {
    assemble(&build(key)?)
}

/// The kernel in the vector IR.
///
/// # Errors
/// [`Error::NoSuchTile`] for a key outside the family.
pub fn build(key: TileKey) -> Result<Function, Error> {
    let TileKey {
        family,
        kind,
        rows,
        vectors,
        ..
    } = key;
    let isa = key.isa()?;
    let max_rows = max_rows(family, kind, vectors);
    let grouped = kind.interleave() > 1;
    if rows == 0 || rows > max_rows || grouped && !key.unit_k {
        return Err(Error::NoSuchTile {
            family,
            kind,
            rows,
            vectors,
            max_rows,
        });
    }
    if key.is_matrix() {
        return Ok(matrix::build(key, isa));
    }
    if kind.has_scales() {
        return Ok(blocks::build(key, isa));
    }
    let mut f = Function::new(symbol(key), isa);
    let args = f.param();
    let field = |offset: usize| Mem::at(args, offset as i32);
    let acc: Vec<Vec<V>> = (0..rows).map(|_| (0..vectors).map(|_| f.zero()).collect()).collect();

    let epilogue = f.label();
    let outer = f.load_general(field(TileArgs::BLOCKS0));
    f.branch(Cond::Le, outer, Scalar::Imm(0), epilogue);
    let inner = f.load_general(field(TileArgs::BLOCKS1));
    f.branch(Cond::Le, inner, Scalar::Imm(0), epilogue);
    let steps = f.load_general(field(TileArgs::K));
    f.branch(Cond::Le, steps, Scalar::Imm(0), epilogue);

    let first = f.load_general(field(TileArgs::A));
    let a = Rows::new(&mut f, first, field(TileArgs::A_ROW), rows);
    let b = f.load_general(field(TileArgs::B));
    let panels = Panels::new(&mut f, key, &field);
    let a_k = (!key.unit_k).then(|| f.load_general(field(TileArgs::A_K)));
    let ahead = key
        .ahead
        .then(|| (f.load_general(field(TileArgs::AHEAD)), field(TileArgs::AHEAD_STEP)));
    let body = Body {
        key,
        isa,
        a: &a,
        b,
        panels: &panels,
        a_k,
        ahead,
        acc: &acc,
        low: (grouped && !key.dots()).then(|| {
            let ty = f.whole(Elem::U32);
            let low = if kind == TileKind::U8I8 { LOW_BYTES } else { HIGH_HALF };
            f.constant_register(ty, low)
        }),
    };
    let scratch = (kind == TileKind::F16 && key.unit_k).then(|| f.load_general(field(TileArgs::SCRATCH)));
    let [element, ..] = key.kind.dtypes().map(|d| d.bytes() as i32);

    // After a block the pointers have gone k steps on; the way to the next block is measured from there.
    let travelled = |f: &mut Function| {
        let bytes = f.load_general(field(TileArgs::K));
        f.general_op(GeneralOp::Mul, bytes, a_k.map_or(Scalar::Imm(element), Scalar::Reg));
        bytes
    };
    let (block, next_outer) = (f.label(), f.label());
    f.place(block);
    let group = kind.interleave() as i32;
    match scratch {
        Some(scratch) => f.counted_loop(steps, isa.lanes() as i32, |f| body.chunk(f, scratch)),
        None => f.counted_loop(steps, UNROLL * group, |f| body.groups(f, UNROLL)),
    }
    f.counted_loop(steps, group, |f| body.groups(f, 1));
    if kind == TileKind::U8I8 {
        body.rest(&mut f, steps);
    }
    f.push(Op::LoadGeneral {
        dst: steps,
        mem: field(TileArgs::K),
    });
    f.general_op(GeneralOp::Sub, inner, Scalar::Imm(1));
    f.branch(Cond::Eq, inner, Scalar::Imm(0), next_outer);
    let back = travelled(&mut f);
    a.advance(&mut f, GeneralOp::Sub, Scalar::Reg(back));
    a.advance(&mut f, GeneralOp::Add, Scalar::Mem(field(TileArgs::A_BLOCK1)));
    f.push(Op::Jump { to: block });

    f.place(next_outer);
    f.general_op(GeneralOp::Sub, outer, Scalar::Imm(1));
    f.branch(Cond::Eq, outer, Scalar::Imm(0), epilogue);
    f.push(Op::LoadGeneral {
        dst: inner,
        mem: field(TileArgs::BLOCKS1),
    });
    let back = travelled(&mut f);
    let across = f.lea(Mem::at(inner, -1));
    f.general_op(GeneralOp::Mul, across, Scalar::Mem(field(TileArgs::A_BLOCK1)));
    f.general_op(GeneralOp::Add, back, Scalar::Reg(across));
    a.advance(&mut f, GeneralOp::Sub, Scalar::Reg(back));
    a.advance(&mut f, GeneralOp::Add, Scalar::Mem(field(TileArgs::A_BLOCK0)));
    f.push(Op::Jump { to: block });

    f.place(epilogue);
    store(&mut f, key, isa, args, &acc);
    Ok(f)
}

/// The even bytes of words.
const LOW_BYTES: u64 = 0x00ff_00ff;

/// The odd one of two bf16.
const HIGH_HALF: u64 = 0xffff_0000;

/// An operand of a step, or of a group: a vector; of bytes that become words, or bf16 that become f32, the even ones and the odd ones.
#[derive(Clone, Copy)]
enum Part {
    One(V),
    Words([V; 2]),
}

/// What the steps of the inner loop need.
struct Body<'a> {
    key: TileKey,
    isa: Isa,
    a: &'a Rows,
    b: G,
    panels: &'a Panels,
    a_k: Option<G>,
    /// The line to fetch for a later tile, and where it says how far on the next one is.
    ahead: Option<(G, Mem)>,
    acc: &'a [Vec<V>],
    /// [`LOW_BYTES`] for bytes that become words, [`HIGH_HALF`] for bf16 that become f32.
    low: Option<V>,
}

impl Body<'_> {
    /// Bytes of a column of the panel: of a step, or of a group.
    fn column(&self) -> i32 {
        let [_, right, _] = self.key.kind.dtypes();
        right.bytes() as i32 * self.key.kind.interleave() as i32
    }

    /// Bytes from one step (or group) of the panel to the next.
    fn step(&self) -> i32 {
        PANEL as i32 * self.column()
    }

    /// `count` steps of `k`, or groups of them, and the pointers moved past them.
    fn groups(&self, f: &mut Function, count: i32) {
        let [left, ..] = self.key.kind.dtypes();
        let bytes = left.bytes() as i32 * self.key.kind.interleave() as i32;
        // Contiguous steps of A are displacements, and one addition moves the pointers past all of them.
        let stride = if self.a_k.is_some() { 0 } else { bytes };
        for at in 0..count {
            let b_disp = at * self.step();
            if self.key.width() <= PANEL {
                self.prefetch(f, b_disp + PREFETCH_BYTES);
            }
            self.fetch_ahead(f);
            if self.left_is_f32() && self.isa.is_evex() && self.key.vectors == 1 {
                let Part::One(b) = self.right(f, b_disp, 0, None) else {
                    unreachable!("only bytes become words")
                };
                for (row, acc) in self.acc.iter().enumerate() {
                    f.push(Op::Fma {
                        ty: self.floats(),
                        acc: acc[0],
                        a: b,
                        b: Operand::Broadcast(self.a.at(row, stride * at)),
                    });
                }
            } else {
                self.products(f, b_disp, None, &|f, row| self.left(f, self.a.at(row, stride * at)));
            }
            if let Some(a_k) = self.a_k {
                self.a.advance(f, GeneralOp::Add, Scalar::Reg(a_k));
            }
        }
        if self.a_k.is_none() {
            self.a.advance(f, GeneralOp::Add, Scalar::Imm(bytes * count));
        }
        f.general_op(GeneralOp::Add, self.b, Scalar::Imm(self.step() * count));
    }

    /// As many steps as there are lanes, of f16 side by side in A: a vector of each row is converted at once, and its elements are
    /// broadcast from scratch. A conversion a row and step takes as many cycles as the products do.
    fn chunk(&self, f: &mut Function, scratch: G) {
        let (floats, count) = (self.floats(), self.isa.lanes() as i32);
        for _ in 0..count {
            self.fetch_ahead(f);
        }
        let place = |row: usize, at: i32| Mem::at(scratch, row as i32 * floats.bytes() as i32 + 4 * at);
        for row in 0..self.acc.len() {
            let wide = self.widened(f, Operand::Mem(self.a.at(row, 0)));
            f.push(Op::Store {
                ty: floats,
                mem: place(row, 0),
                src: wide,
                mask: None,
            });
        }
        for at in 0..count {
            self.products(f, at * self.step(), None, &|f, row| {
                Part::One(f.broadcast(floats, place(row, at)))
            });
        }
        self.a.advance(f, GeneralOp::Add, Scalar::Imm(2 * count));
        f.general_op(GeneralOp::Add, self.b, Scalar::Imm(self.step() * count));
    }

    /// The steps behind whole groups, one at a time, and the panel's pointer moved past their group. A byte of A is broadcast to all
    /// four places of a group, and of B the one that it belongs to is kept.
    fn rest(&self, f: &mut Function, steps: G) {
        let done = f.label();
        f.branch(Cond::Le, steps, Scalar::Imm(0), done);
        let group = f.whole(Elem::U32);
        let mask = f.constant_register(group, 0xff);
        f.counted_loop(steps, 1, |f| {
            self.products(f, 0, Some(mask), &|f, row| {
                let byte = f.broadcast(f.whole(Elem::U8), self.a.at(row, 0));
                match self.low {
                    None => Part::One(byte),
                    Some(low) => Part::Words([f.binary(Binary::And, group, byte, Operand::Reg(low)); 2]),
                }
            });
            self.a.advance(f, GeneralOp::Add, Scalar::Imm(1));
            f.push(Op::Shift {
                op: Shift::Left,
                ty: group,
                dst: mask,
                a: mask,
                by: 8,
            });
        });
        f.general_op(GeneralOp::Add, self.b, Scalar::Imm(self.step()));
        f.place(done);
    }

    /// Adds the products of a step or group, which lies so far behind the panel's pointer; of bytes those under a mask.
    fn products(&self, f: &mut Function, disp: i32, mask: Option<V>, left: &dyn Fn(&mut Function, usize) -> Part) {
        if let [acc] = self.acc {
            let a = left(f, 0);
            for (v, acc) in acc.iter().enumerate() {
                let b = self.right(f, disp, v, mask);
                self.multiply(f, *acc, a, b);
            }
            return;
        }
        let b: Vec<Part> = (0..usize::from(self.key.vectors))
            .map(|v| self.right(f, disp, v, mask))
            .collect();
        for (row, acc) in self.acc.iter().enumerate() {
            let a = left(f, row);
            acc.iter().zip(&b).for_each(|(acc, b)| self.multiply(f, *acc, a, *b));
        }
    }

    /// Fetches the lines of a step or group.
    fn prefetch(&self, f: &mut Function, disp: i32) {
        for byte in (0..self.key.width() as i32 * self.column()).step_by(64) {
            let mem = self.line(byte, disp);
            f.push(Op::Prefetch { mem, into: Level::L1 });
        }
    }

    /// Fetches a line for a later tile, once a step or group.
    fn fetch_ahead(&self, f: &mut Function) {
        if let Some((line, step)) = self.ahead {
            let mem = Mem::at(line, 0);
            f.push(Op::Prefetch { mem, into: Level::L2 });
            f.general_op(GeneralOp::Add, line, Scalar::Mem(step));
        }
    }

    /// Where bytes of a step or group lie, counted through all panels.
    fn line(&self, byte: i32, disp: i32) -> Mem {
        let panel = (byte / self.step()) as usize;
        self.panels.at(self.b, panel, disp + byte % self.step())
    }

    /// A vector of the right operand at a step or group; of bytes those under a mask.
    fn right(&self, f: &mut Function, disp: i32, v: usize, mask: Option<V>) -> Part {
        let mem = self.line(v as i32 * self.isa.lanes() as i32 * self.column(), disp);
        let group = f.whole(Elem::U32);
        match (self.key.kind, mask) {
            (TileKind::F32, _) => Part::One(f.load(self.floats(), mem, None)),
            (TileKind::F16 | TileKind::Bf16 | TileKind::F32ByF16 | TileKind::F32ByBf16, _) => {
                Part::One(self.widened(f, Operand::Mem(mem)))
            }
            (TileKind::Q8 | TileKind::Q4, _) => unreachable!("kinds with scales have kernels of their own"),
            (TileKind::Bf16Pairs, _) => {
                let pairs = f.load(group, mem, None);
                self.pair(f, pairs)
            }
            (TileKind::U8I8, mask) => {
                let bytes = match mask {
                    None => f.load(group, mem, None),
                    Some(mask) => f.binary(Binary::And, group, mask, Operand::Mem(mem)),
                };
                if self.low.is_none() {
                    return Part::One(bytes);
                }
                let words = f.whole(Elem::I16);
                let even = shifted(f, Shift::Left, words, bytes, 8);
                Part::Words([even, bytes].map(|v| shifted(f, Shift::Right, words, v, 8)))
            }
        }
    }

    /// Whether elements of the left operand are used as they lie.
    fn left_is_f32(&self) -> bool {
        let [left, ..] = self.key.kind.dtypes();
        left == DType::F32
    }

    /// As many 16-bit floats as there are sums in a vector, converted.
    fn widened(&self, f: &mut Function, bits: Operand) -> V {
        let floats = self.floats();
        let [_, right, _] = self.key.kind.dtypes();
        if right == DType::F16 {
            return f.convert(floats.of(Elem::F16), Elem::F32, bits);
        }
        let wide = f.convert(floats.of(Elem::U16), Elem::U32, bits);
        shifted(f, Shift::Left, floats.of(Elem::U32), wide, 16)
    }

    /// A vector of f32.
    fn floats(&self) -> Type {
        Elem::F32.by(self.isa.lanes() as u8)
    }

    /// An element of the left operand, or a group of them, on every lane.
    fn left(&self, f: &mut Function, mem: Mem) -> Part {
        let group = f.whole(Elem::U32);
        match (self.key.kind, self.low) {
            (TileKind::F32 | TileKind::F32ByF16 | TileKind::F32ByBf16, _) => Part::One(f.broadcast(self.floats(), mem)),
            (TileKind::U8I8, None) => Part::One(f.broadcast(group, mem)),
            (TileKind::U8I8, Some(low)) => {
                let bytes = f.broadcast(group, mem);
                let even = f.binary(Binary::And, group, bytes, Operand::Reg(low));
                let odd = shifted(f, Shift::Right, f.whole(Elem::U16), bytes, 8);
                Part::Words([even, odd])
            }
            (TileKind::F16, _) => {
                let bits = f.broadcast(self.floats().of(Elem::U16), mem);
                Part::One(self.widened(f, Operand::Reg(bits)))
            }
            (TileKind::Bf16, _) => {
                // Of both copies in 32 bits the upper one stays.
                let bits = f.broadcast(f.whole(Elem::U16), mem);
                Part::One(shifted(f, Shift::Left, group, bits, 16))
            }
            (TileKind::Bf16Pairs, _) => {
                let pairs = f.broadcast(group, mem);
                self.pair(f, pairs)
            }
            (TileKind::Q8 | TileKind::Q4, _) => unreachable!("kinds with scales have kernels of their own"),
        }
    }

    /// Pairs of bf16 as their instruction takes them, or as f32.
    fn pair(&self, f: &mut Function, pairs: V) -> Part {
        let group = f.whole(Elem::U32);
        match self.low {
            None => Part::One(pairs),
            Some(high) => {
                let even = shifted(f, Shift::Left, group, pairs, 16);
                Part::Words([even, f.binary(Binary::And, group, pairs, Operand::Reg(high))])
            }
        }
    }

    /// Adds a product.
    fn multiply(&self, f: &mut Function, acc: V, a: Part, b: Part) {
        match (a, b) {
            (Part::One(a), Part::One(b)) if self.key.kind == TileKind::Bf16Pairs => f.push(Op::Dot {
                op: Dot::Brain,
                ty: self.floats(),
                acc,
                a: b,
                b: Operand::Reg(a),
            }),
            (Part::One(a), Part::One(b)) if !self.key.is_bytes() => self.fma(f, acc, a, b),
            (Part::Words(a), Part::Words(b)) if self.key.kind == TileKind::Bf16Pairs => {
                a.into_iter().zip(b).for_each(|(a, b)| self.fma(f, acc, a, b));
            }
            _ => add_bytes(f, acc, a, b),
        }
    }

    fn fma(&self, f: &mut Function, acc: V, a: V, b: V) {
        f.push(Op::Fma {
            ty: self.floats(),
            acc,
            a: b,
            b: Operand::Reg(a),
        });
    }
}

/// Adds four products of bytes without signs by bytes with signs on each lane.
fn add_bytes(f: &mut Function, acc: V, unsigned: Part, signed: Part) {
    let ty = f.whole(Elem::I32);
    match (unsigned, signed) {
        (Part::One(a), Part::One(b)) => f.push(Op::Dot {
            op: Dot::U8I8,
            ty,
            acc,
            a,
            b: Operand::Reg(b),
        }),
        (Part::Words(a), Part::Words(b)) => {
            for (a, b) in a.into_iter().zip(b) {
                let pairs = f.binary(Binary::PairSum, f.whole(Elem::I16), a, Operand::Reg(b));
                f.push(Op::Binary {
                    op: Binary::Add,
                    ty,
                    dst: acc,
                    a: acc,
                    b: Operand::Reg(pairs),
                });
            }
        }
        _ => unreachable!("both operands are words or neither is"),
    }
}

fn shifted(f: &mut Function, op: Shift, ty: Type, a: V, by: u8) -> V {
    let dst = f.vector();
    f.push(Op::Shift { op, ty, dst, a, by });
    dst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_rows_cover_m_with_the_fewest_tiles() {
        for m in 0..200 {
            for max in 1..30 {
                let (count_big, big, count_small, small) = balance_rows(m, max);
                assert_eq!(count_big * big + count_small * small, m);
                assert_eq!(count_big + count_small, m.div_ceil(max), "{m} rows by {max}");
                assert!(
                    big <= max && (count_small == 0 || small + 1 == big),
                    "{m} rows by {max}"
                );
            }
        }
    }

    #[test]
    fn a_tile_outside_the_family_is_an_error() {
        for (rows, vectors) in [(0, 1), (15, 2), (29, 1), (1, 0), (1, 3)] {
            let key = TileKey {
                family: TileFamily::Avx512,
                kind: TileKind::F32,
                rows,
                vectors,
                unit_k: true,
                ahead: false,
            };
            assert!(matches!(assemble_tile(key), Err(Error::NoSuchTile { .. })), "{key:?}");
        }
        assert_eq!(
            assemble_tile(TileKey {
                family: TileFamily::Avx2,
                kind: TileKind::F32,
                rows: 7,
                vectors: 2,
                unit_k: true,
                ahead: false
            })
            .unwrap_err()
            .to_string(),
            "tile of f32 with 7x2 vectors in the family Avx2: expected 1 or 2 vectors and 1 to 6 rows"
        );
    }

    #[test]
    fn a_line_is_fetched_ahead_at_every_step() {
        let fetched = |ahead| {
            let key = TileKey {
                family: TileFamily::Avx512,
                kind: TileKind::F32,
                rows: 14,
                vectors: 2,
                unit_k: true,
                ahead,
            };
            let function = build(key).unwrap();
            let into_l2 = |op: &&Op| matches!(op, Op::Prefetch { into: Level::L2, .. });
            function.ops.iter().filter(into_l2).count()
        };
        // A round of the loop, and a step by itself.
        assert_eq!([false, true].map(fetched), [0, UNROLL as usize + 1]);
    }

    #[test]
    fn symbols_name_the_kernel() {
        let key = TileKey {
            family: TileFamily::Avx512,
            kind: TileKind::F32,
            rows: 14,
            vectors: 2,
            unit_k: true,
            ahead: false,
        };
        assert_eq!(symbol(key), "brolga_tile_avx512_14x32_k1");
        assert_eq!(
            symbol(TileKey {
                family: TileFamily::Avx2,
                kind: TileKind::F32,
                rows: 6,
                vectors: 2,
                unit_k: false,
                ahead: true,
            }),
            "brolga_tile_avx2_6x16_ks_ahead"
        );
    }
}
