//! Tiles of up to 32 rows by 32 columns on the matrix registers of AMX.
//!
//! ```text
//!                  B: 16 columns        16 columns
//!                  m6 [k/g][16][g]      m7
//!   A: 16 rows  m4    m0                  m1        m0 += m4 · m6, …
//!      16 rows  m5    m2                  m3
//! ```
//!
//! Pairs of bf16 are summed over all steps in m0 to m3. Bytes with scales are summed over one block of [`BLOCK`] steps, and what a block gives goes
//! through memory: so many of them ([`CHUNK`]) that neither side waits for the other are multiplied, of one row of matrices, and then scaled in vectors
//! as module [`blocks`](super::blocks) does it, operation by operation, so that all kernels give the same bits.
//!
//! Decided, on a Xeon with AMX, in cycles of a matrix of 16 by 16 and a block: a product takes 16, a store of the sums 16 more, scales in vectors 24 to 30,
//! and none overlaps with another, whatever their order; with operands from L2 all take about half as long again. So bytes gain a tenth against VNNI (products
//! of a LLaMA of 1.1 B parameters 456 to 502 GOP/s in place of 401 to 452), while bf16, whose sums stay, gains four times and more. Matrices are
//! stored in fours of blocks: with one or two vectors wait, with eight what is stored leaves L1.
//!
//! Rejected: steps of two blocks in one product, which adds them up; a product with a matrix of ones for offsets, which takes as long as adding them.
//!
//! Source: Intel's Architecture Instruction Set Extensions Programming Reference, chapter 3; Optimization Reference Manual, chapter 20.

use super::blocks::{LOW_HALVES, PREFETCH_BYTES};
use super::{PANEL, TileArgs, TileKey, shifted, symbol};
use crate::x86::Isa;
use crate::x86::vir::{
    Binary, Cond, Elem, Function, G, GeneralOp, K, Level, M, MatrixDot, Mem, Op, Operand, Scalar, Shift, V,
};
use brolga_ir::TileKind;
use brolga_ir::loops::BLOCK;

/// From how many rows on tiles of bytes use matrices: a store of one takes as long for few rows as for all.
pub(super) const SOME_ROWS: u8 = 8;

/// Rows, or columns, of a matrix of sums.
const SIDE: usize = 16;

/// Bytes of a matrix of sums, whose rows lie side by side.
const MATRIX: i32 = 1024;

/// Blocks that are multiplied before they are scaled.
const CHUNK: i32 = 4;

/// Where in scratch memory sums over all steps stand: the rows of a tile, 32 columns each.
const SUMS: i32 = 0;

/// Sums of blocks, of one row of matrices.
const BLOCKS: i32 = SUMS + 4 * MATRIX;

/// Bytes of the right operand, where a byte holds two steps.
const UNPACKED: i32 = BLOCKS + 2 * MATRIX * CHUNK;

/// Bytes of a block of the right operand there.
const UNPACKED_BLOCK: i32 = PANEL as i32 * BLOCK as i32;

/// Bytes of scratch memory: those of any kernel.
pub(super) const SCRATCH_BYTES: usize = (UNPACKED + CHUNK * UNPACKED_BLOCK) as usize;

/// A kernel being written.
struct Kernel<'f> {
    f: &'f mut Function,
    key: TileKey,
    isa: Isa,
    args: G,
    /// The next steps of the first row, and of the second row of matrices.
    a: Vec<G>,
    a_row: G,
    b: G,
    scratch: G,
    /// How far apart rows of a matrix are: of the panel, and of sums.
    group: G,
    line: G,
}

/// The kernel in the vector IR.
pub(super) fn build(key: TileKey, isa: Isa) -> Function {
    let mut function = Function::new(symbol(key), isa);
    let f = &mut function;
    let args = f.param();
    let field = |offset: usize| Mem::at(args, offset as i32);
    let place = f.pool.place(&shapes(key));
    f.push(Op::MatrixShapes { mem: Mem::pool(place) });
    let [group, line] = [PANEL as i64 * 4, SIDE as i64 * 4].map(|value| {
        let dst = f.general();
        f.push(Op::Imm { dst, value });
        dst
    });
    let a_row = f.load_general(field(TileArgs::A_ROW));
    let mut a = vec![f.load_general(field(TileArgs::A))];
    if usize::from(key.rows) > SIDE {
        let by = f.lea(Mem::at(a_row, 0));
        f.general_op(GeneralOp::Mul, by, Scalar::Imm(SIDE as i32));
        f.general_op(GeneralOp::Add, by, Scalar::Reg(a[0]));
        a.push(by);
    }
    let b = f.load_general(field(TileArgs::B));
    let scratch = f.load_general(field(TileArgs::SCRATCH));
    let mut kernel = Kernel {
        f,
        key,
        isa,
        args,
        a,
        a_row,
        b,
        scratch,
        group,
        line,
    };
    match key.kind {
        TileKind::Bf16Pairs => kernel.pairs(),
        _ => kernel.bytes(),
    }
    kernel.f.push(Op::MatrixRelease);
    kernel.store();
    function
}

/// What the registers of a kernel are: 64 bytes, as `LDTILECFG` takes them.
fn shapes(key: TileKey) -> [u8; 64] {
    let (row, rows) = match key.kind {
        TileKind::Bf16Pairs => (64, 16),
        _ => (BLOCK as u8, BLOCK as u8 / 4),
    };
    let mut out = [0; 64];
    // The only palette there is.
    out[0] = 1;
    let mut set = |m: usize, bytes: u8, rows: u8| (out[16 + 2 * m], out[48 + m]) = (bytes, rows);
    for (i, count) in heights(key).into_iter().enumerate() {
        for v in 0..2 {
            set(2 * i + v, 64, count);
        }
        set(4 + i, row, count);
    }
    set(6, 64, rows);
    set(7, 64, rows);
    out
}

/// The rows of each row of matrices.
fn heights(key: TileKey) -> Vec<u8> {
    let first = key.rows.min(SIDE as u8);
    [first, key.rows - first].into_iter().filter(|n| *n > 0).collect()
}

impl Kernel<'_> {
    fn field(&self, offset: usize) -> Mem {
        Mem::at(self.args, offset as i32)
    }

    fn vectors(&self) -> usize {
        usize::from(self.key.vectors)
    }

    /// The sums of a row of matrices and 16 columns.
    fn sum(row: usize, v: usize) -> M {
        M::number((2 * row + v) as u32)
    }

    fn load(&mut self, m: u32, base: G, stride: G, disp: i32) {
        self.f.push(Op::MatrixLoad {
            dst: M::number(m),
            mem: Mem::indexed(base, stride, 1, disp),
        });
    }

    /// A line of 64 bytes, kept in scratch memory.
    fn keep(&mut self, ty: Elem, base: G, disp: i32, src: V) {
        self.f.push(Op::Store {
            ty: self.f.whole(ty),
            mem: Mem::at(base, disp),
            src,
            mask: None,
        });
    }

    /// All steps of bf16, and their sums to scratch memory.
    fn pairs(&mut self) {
        let (heights, vectors) = (heights(self.key).len(), self.vectors());
        for (row, v) in (0..heights).flat_map(|r| (0..vectors).map(move |v| (r, v))) {
            self.f.push(Op::MatrixZero { dst: Self::sum(row, v) });
        }
        let steps = self.f.load_general(self.field(TileArgs::K));
        let group = PANEL as i32 * 4;
        let (head, done) = (self.f.label(), self.f.label());
        self.f.branch(Cond::Lt, steps, Scalar::Imm(BLOCK as i32), done);
        self.f.place(head);
        self.fetch(0, group * BLOCK as i32 / 2);
        for row in 0..heights {
            self.load(4 + row as u32, self.a[row], self.a_row, 0);
        }
        for v in 0..vectors {
            self.load(6 + v as u32, self.b, self.group, 64 * v as i32);
            for row in 0..heights {
                self.f.push(Op::MatrixDot {
                    op: MatrixDot::Brain,
                    acc: Self::sum(row, v),
                    a: M::number(4 + row as u32),
                    b: M::number(6 + v as u32),
                });
            }
        }
        self.advance_rows(2 * BLOCK as i32);
        self.f
            .general_op(GeneralOp::Add, self.b, Scalar::Imm(group * BLOCK as i32 / 2));
        self.f.general_op(GeneralOp::Sub, steps, Scalar::Imm(BLOCK as i32));
        self.f.branch(Cond::Ge, steps, Scalar::Imm(BLOCK as i32), head);
        self.f.place(done);
        for (row, v) in (0..heights).flat_map(|r| (0..vectors).map(move |v| (r, v))) {
            // Rows of 32 columns are as far apart as groups of the panel.
            let disp = SUMS + row as i32 * 2 * MATRIX + v as i32 * 64;
            self.f.push(Op::MatrixStore {
                mem: Mem::indexed(self.scratch, self.group, 1, disp),
                src: Self::sum(row, v),
            });
        }
    }

    fn advance_rows(&mut self, bytes: i32) {
        for a in &self.a {
            self.f.general_op(GeneralOp::Add, *a, Scalar::Imm(bytes));
        }
    }

    /// All blocks of bytes, and their scaled sums to scratch memory.
    fn bytes(&mut self) {
        let zero = self.f.zero();
        for row in 0..i32::from(self.key.rows) {
            for v in 0..self.vectors() as i32 {
                self.keep(Elem::F32, self.scratch, SUMS + row * 128 + v * 64, zero);
            }
        }
        // How far on the block's scales are, of rows and of columns.
        let [of_rows, of_columns] = [0, 0].map(|value| {
            let dst = self.f.general();
            self.f.push(Op::Imm { dst, value });
            dst
        });
        let steps = self.f.load_general(self.field(TileArgs::K));
        for blocks in [CHUNK, 1] {
            let (head, done) = (self.f.label(), self.f.label());
            let count = Scalar::Imm(blocks * BLOCK as i32);
            self.f.branch(Cond::Lt, steps, count, done);
            self.f.place(head);
            self.chunk(blocks, of_rows, of_columns);
            self.f.general_op(GeneralOp::Sub, steps, count);
            self.f.branch(Cond::Ge, steps, count, head);
            self.f.place(done);
        }
    }

    /// Some blocks: multiplied, then scaled, a row of matrices after the other.
    fn chunk(&mut self, blocks: i32, of_rows: G, of_columns: G) {
        let four = self.key.kind == TileKind::Q4;
        let bytes = UNPACKED_BLOCK / self.key.kind.packed() as i32;
        for block in 0..blocks {
            match four {
                true => self.unpack(block),
                false => self.fetch(block * bytes, bytes),
            }
        }
        let (right, first) = if four { (self.scratch, UNPACKED) } else { (self.b, 0) };
        for (row, height) in heights(self.key).into_iter().enumerate() {
            let own = 4 + row as u32;
            for block in 0..blocks {
                self.load(own, self.a[row], self.a_row, block * BLOCK as i32);
                for v in 0..self.vectors() {
                    let (sum, disp) = (Self::sum(row, v), first + block * UNPACKED_BLOCK + 64 * v as i32);
                    self.load(6 + v as u32, right, self.group, disp);
                    self.f.push(Op::MatrixZero { dst: sum });
                    self.f.push(Op::MatrixDot {
                        op: MatrixDot::I8U8,
                        acc: sum,
                        a: M::number(own),
                        b: M::number(6 + v as u32),
                    });
                    let disp = BLOCKS + (v as i32 * CHUNK + block) * MATRIX;
                    self.f.push(Op::MatrixStore {
                        mem: Mem::indexed(self.scratch, self.line, 1, disp),
                        src: sum,
                    });
                }
            }
            let (plain, done) = (self.f.label(), self.f.label());
            let minima = self.f.load_general(self.field(TileArgs::B_MINIMA));
            self.f.branch(Cond::Eq, minima, Scalar::Imm(0), plain);
            self.scale(row, height, blocks, [of_rows, of_columns], true);
            self.f.push(Op::Jump { to: done });
            self.f.place(plain);
            self.scale(row, height, blocks, [of_rows, of_columns], false);
            self.f.place(done);
        }
        self.advance_rows(blocks * BLOCK as i32);
        self.f.general_op(GeneralOp::Add, self.b, Scalar::Imm(blocks * bytes));
        for _ in 0..blocks {
            let next = Scalar::Mem(self.field(TileArgs::A_SCALE_BLOCK));
            self.f.general_op(GeneralOp::Add, of_rows, next);
        }
        let columns = Scalar::Imm(blocks * PANEL as i32 * 2);
        self.f.general_op(GeneralOp::Add, of_columns, columns);
    }

    /// Asks for lines of the panel.
    fn fetch(&mut self, first: i32, bytes: i32) {
        for disp in (first..first + bytes).step_by(64) {
            self.f.push(Op::Prefetch {
                mem: Mem::at(self.b, disp + PREFETCH_BYTES),
                into: Level::L1,
            });
        }
    }

    /// The steps of a block of four bits, a byte each: those of the first half, then those of the second.
    fn unpack(&mut self, block: i32) {
        let half = UNPACKED_BLOCK / 2;
        self.fetch(block * half, half);
        let [groups, words] = [Elem::U32, Elem::U16].map(|e| self.f.whole(e));
        let mask = self.f.constant(groups, LOW_HALVES);
        for disp in (0..half).step_by(64) {
            let (from, to) = (block * half + disp, UNPACKED + block * UNPACKED_BLOCK + disp);
            let bytes = self.f.load(groups, Mem::at(self.b, from), None);
            let lower = self.f.binary(Binary::And, groups, bytes, mask);
            self.keep(Elem::U32, self.scratch, to, lower);
            let down = shifted(self.f, Shift::Right, words, bytes, 4);
            let upper = self.f.binary(Binary::And, groups, down, mask);
            self.keep(Elem::U32, self.scratch, to + half, upper);
        }
    }

    /// Adds the sums of some blocks of a row of matrices, scaled, to those of all; and what minima contribute.
    fn scale(&mut self, row: usize, height: u8, blocks: i32, [of_rows, of_columns]: [G; 2], minima: bool) {
        let (ints, floats) = (self.f.whole(Elem::I32), self.f.whole(Elem::F32));
        let first = row as i32 * SIDE as i32;
        for v in 0..self.vectors() as i32 {
            let kept = |r: i32| SUMS + (first + r) * 128 + v * 64;
            let sums: Vec<V> = (0..i32::from(height))
                .map(|r| self.f.load(floats, Mem::at(self.scratch, kept(r)), None))
                .collect();
            let from = self.f.lea(Mem::at(self.scratch, BLOCKS + v * CHUNK * MATRIX));
            let [rows, columns] = [of_rows, of_columns].map(|g| self.f.lea(Mem::at(g, 0)));
            let count = self.f.general();
            self.f.push(Op::Imm {
                dst: count,
                value: i64::from(blocks),
            });
            let head = self.f.label();
            self.f.place(head);
            let here = |k: &mut Self, field: usize, by: G| {
                let at = k.f.load_general(k.field(field));
                k.f.general_op(GeneralOp::Add, at, Scalar::Reg(by));
                at
            };
            let halves = Elem::F16.by(SIDE as u8);
            let of_column = |k: &mut Self, field: usize| {
                let at = here(k, field, columns);
                k.f.convert(halves, Elem::F32, Operand::Mem(Mem::at(at, 2 * SIDE as i32 * v)))
            };
            let scales = of_column(self, TileArgs::B_SCALE);
            let least = minima.then(|| of_column(self, TileArgs::B_MINIMA));
            let [own, offsets] = [TileArgs::A_SCALE, TileArgs::A_OFFSET].map(|field| here(self, field, rows));
            let totals = minima.then(|| here(self, TileArgs::A_TOTAL, rows));
            for (r, sum) in (0..).zip(&sums) {
                let of_row = |at: G| Operand::Broadcast(Mem::at(at, 4 * (first + r)));
                let products = self.f.load(ints, Mem::at(from, 64 * r), None);
                let all = self.f.binary(Binary::Add, ints, products, of_row(offsets));
                let whole = self.f.convert(ints, Elem::F32, Operand::Reg(all));
                let both = self.f.binary(Binary::Mul, floats, scales, of_row(own));
                self.f.push(Op::Fma {
                    ty: floats,
                    acc: *sum,
                    a: whole,
                    b: Operand::Reg(both),
                });
                if let (Some(least), Some(totals)) = (least, totals) {
                    self.f.push(Op::Fma {
                        ty: floats,
                        acc: *sum,
                        a: least,
                        b: of_row(totals),
                    });
                }
            }
            self.f.general_op(GeneralOp::Add, from, Scalar::Imm(MATRIX));
            let next = Scalar::Mem(self.field(TileArgs::A_SCALE_BLOCK));
            self.f.general_op(GeneralOp::Add, rows, next);
            self.f
                .general_op(GeneralOp::Add, columns, Scalar::Imm(PANEL as i32 * 2));
            self.f.general_op(GeneralOp::Sub, count, Scalar::Imm(1));
            self.f.branch(Cond::Gt, count, Scalar::Imm(0), head);
            for (r, sum) in (0..).zip(sums) {
                self.keep(Elem::F32, self.scratch, kept(r), sum);
            }
        }
    }

    /// `C = sums` or `C += sums` of scratch memory, a row at a time.
    fn store(&mut self) {
        let floats = self.f.whole(Elem::F32);
        let cols = self.f.load_general(self.field(TileArgs::COLS));
        let masks: Vec<K> = (0..self.vectors())
            .map(|v| self.f.first_lanes(cols, (v * self.isa.lanes()) as u8))
            .collect();
        let accumulate = self.f.load_general(self.field(TileArgs::ACCUMULATE));
        let c = self.f.load_general(self.field(TileArgs::C));
        let c_row = self.f.load_general(self.field(TileArgs::C_ROW));
        let from = self.f.lea(Mem::at(self.scratch, SUMS));
        let rows = self.f.general();
        self.f.push(Op::Imm {
            dst: rows,
            value: i64::from(self.key.rows),
        });
        let (alone, done) = (self.f.label(), self.f.label());
        self.f.branch(Cond::Eq, accumulate, Scalar::Imm(0), alone);
        for added in [true, false] {
            if !added {
                self.f.place(alone);
            }
            let head = self.f.label();
            self.f.place(head);
            for (v, mask) in masks.iter().enumerate() {
                let at = Mem::at(c, 64 * v as i32);
                let mut sum = self.f.load(floats, Mem::at(from, 64 * v as i32), None);
                if added {
                    let old = self.f.load(floats, at, Some(*mask));
                    sum = self.f.binary(Binary::Add, floats, sum, Operand::Reg(old));
                }
                self.f.push(Op::Store {
                    ty: floats,
                    mem: at,
                    src: sum,
                    mask: Some(*mask),
                });
            }
            self.f.general_op(GeneralOp::Add, from, Scalar::Imm(128));
            self.f.general_op(GeneralOp::Add, c, Scalar::Reg(c_row));
            self.f.general_op(GeneralOp::Sub, rows, Scalar::Imm(1));
            self.f.branch(Cond::Gt, rows, Scalar::Imm(0), head);
            if added {
                self.f.push(Op::Jump { to: done });
            }
        }
        self.f.place(done);
        self.f.push(Op::Return);
    }
}
