//! Tiles whose operands are integers in blocks of [`BLOCK`] steps with scales ([`brolga_ir::loops::Scales`]).
//!
//! ```text
//! for each block {
//!   S[r][v]    = broadcast offset[r]                        32 bits
//!   S[r][v]   += W[v] · broadcast A[r][4 steps]             8 groups of four steps; of 4 bits a vector is two groups
//!   acc[r][v]  = f32(S[r][v]) · (a[r] · b[v]) + acc[r][v]   acc stands in scratch memory
//!   acc[r][v] += minimum[v] · total[r]
//! }
//! ```
//!
//! Decided: the sums of a block fill the registers, and what is added up over all blocks stands in the first level of cache. A block of
//! a row and a vector is 8 products and 3 operations for its scale, 4 where there are minima, so that the most that a core reaches is 73 % of
//! its products of bytes, and of 4 bits 62; with half the rows and both kinds of sums in registers, unpacking 4 bits would take twice as much of
//! that. Measured on a Xeon (Golden Cove) from L1: 65 and 54 %.
//!
//! Rejected: minima in a pass of their own, which stores every accumulator twice (of 4 bits 315 GOP/s instead of 362 at 504x2048x2048).

use super::{LOW_BYTES, Part, Rows, TileArgs, TileKey, add_bytes, shifted, store, symbol};
use crate::x86::Isa;
use crate::x86::vir::{Binary, Cond, Elem, Function, G, GeneralOp, Level, Mem, Op, Operand, Scalar, Shift, Type, V};
use brolga_ir::TileKind;
use brolga_ir::loops::{BLOCK, PANEL};

/// How far ahead of its use a line of the panel is fetched to L1.
pub(super) const PREFETCH_BYTES: i32 = 2048;

/// Bytes of scratch memory: the accumulators of any kernel.
pub(super) const SCRATCH_BYTES: usize = 24 * 64;

/// The lower half of every byte.
pub(super) const LOW_HALVES: u64 = 0x0f0f_0f0f;

/// What a block of the loop needs.
struct Blocks<'a> {
    key: TileKey,
    isa: Isa,
    a: &'a Rows,
    b: G,
    scratch: G,
    /// How far on the block's scales are, and what belongs to them: of rows, and of columns.
    of_rows: G,
    of_columns: G,
    field: &'a dyn Fn(usize) -> Mem,
}

/// The kernel in the vector IR.
pub(super) fn build(key: TileKey, isa: Isa) -> Function {
    let mut f = Function::new(symbol(key), isa);
    let args = f.param();
    let field = |offset: usize| Mem::at(args, offset as i32);
    let first = f.load_general(field(TileArgs::A));
    let a = Rows::new(&mut f, first, field(TileArgs::A_ROW), key.rows);
    let [of_rows, of_columns] = [0, 0].map(|value| {
        let dst = f.general();
        f.push(Op::Imm { dst, value });
        dst
    });
    let blocks = Blocks {
        key,
        isa,
        a: &a,
        b: f.load_general(field(TileArgs::B)),
        scratch: f.load_general(field(TileArgs::SCRATCH)),
        of_rows,
        of_columns,
        field: &field,
    };
    let steps = f.load_general(field(TileArgs::K));
    let floats = f.whole(Elem::F32);
    let zero = f.zero();
    for (row, v) in blocks.each() {
        blocks.keep(&mut f, row, v, zero);
    }
    f.counted_loop(steps, BLOCK as i32, |f| blocks.block(f));
    let acc: Vec<Vec<V>> = (0..usize::from(key.rows))
        .map(|row| {
            let vectors = 0..usize::from(key.vectors);
            vectors.map(|v| f.load(floats, blocks.kept(row, v), None)).collect()
        })
        .collect();
    store(&mut f, key, isa, args, &acc);
    f
}

impl Blocks<'_> {
    /// Every row with every vector.
    fn each(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let vectors = usize::from(self.key.vectors);
        (0..usize::from(self.key.rows)).flat_map(move |row| (0..vectors).map(move |v| (row, v)))
    }

    /// Where an accumulator stands.
    fn kept(&self, row: usize, v: usize) -> Mem {
        let place = row * usize::from(self.key.vectors) + v;
        Mem::at(self.scratch, (place * self.isa.lanes() * 4) as i32)
    }

    fn keep(&self, f: &mut Function, row: usize, v: usize, src: V) {
        f.push(Op::Store {
            ty: f.whole(Elem::F32),
            mem: self.kept(row, v),
            src,
            mask: None,
        });
    }

    fn block(&self, f: &mut Function) {
        let vectors = usize::from(self.key.vectors);
        let ints = f.whole(Elem::I32);
        let offsets = self.here(f, TileArgs::A_OFFSET, self.of_rows);
        let sums: Vec<Vec<V>> = (0..i32::from(self.key.rows))
            .map(|row| {
                let offset = Mem::at(offsets, 4 * row);
                (0..vectors).map(|_| f.broadcast(ints, offset)).collect()
            })
            .collect();
        let step = PANEL as i32 * 4;
        let groups = (BLOCK / 4 / self.key.kind.packed()) as i32;
        for at in 0..groups {
            let bytes: Vec<V> = (0..vectors)
                .map(|v| {
                    let disp = at * step + (v * self.isa.lanes() * 4) as i32;
                    let ahead = Mem::at(self.b, disp + PREFETCH_BYTES);
                    f.push(Op::Prefetch {
                        mem: ahead,
                        into: Level::L1,
                    });
                    f.load(f.whole(Elem::U32), Mem::at(self.b, disp), None)
                })
                .collect();
            if self.key.kind == TileKind::Q8 {
                self.products(f, &sums, 4 * at, &bytes);
                continue;
            }
            // The steps of the first half, then those of the second.
            let lower: Vec<V> = bytes.iter().map(|v| self.lower(f, *v)).collect();
            self.products(f, &sums, 4 * at, &lower);
            let words = f.whole(Elem::U16);
            let upper = bytes.iter().map(|v| {
                let down = shifted(f, Shift::Right, words, *v, 4);
                self.lower(f, down)
            });
            let upper: Vec<V> = upper.collect();
            self.products(f, &sums, BLOCK as i32 / 2 + 4 * at, &upper);
        }
        self.a.advance(f, GeneralOp::Add, Scalar::Imm(BLOCK as i32));
        f.general_op(GeneralOp::Add, self.b, Scalar::Imm(groups * step));
        // With minima there is one pass over the accumulators too, which are stored once.
        let (plain, done) = (f.label(), f.label());
        let minima = f.load_general((self.field)(TileArgs::B_MINIMA));
        f.branch(Cond::Eq, minima, Scalar::Imm(0), plain);
        self.scale(f, &sums, true);
        f.push(Op::Jump { to: done });
        f.place(plain);
        self.scale(f, &sums, false);
        f.place(done);
        let next = Scalar::Mem((self.field)(TileArgs::A_SCALE_BLOCK));
        f.general_op(GeneralOp::Add, self.of_rows, next);
        f.general_op(GeneralOp::Add, self.of_columns, Scalar::Imm(PANEL as i32 * 2));
    }

    /// What a field points to, at this block.
    fn here(&self, f: &mut Function, field: usize, by: G) -> G {
        let at = f.load_general((self.field)(field));
        f.general_op(GeneralOp::Add, at, Scalar::Reg(by));
        at
    }

    /// The lower half of every byte.
    fn lower(&self, f: &mut Function, bytes: V) -> V {
        let group = f.whole(Elem::U32);
        let mask = f.constant(group, LOW_HALVES);
        f.binary(Binary::And, group, bytes, mask)
    }

    /// Adds the products of four steps of every row.
    fn products(&self, f: &mut Function, sums: &[Vec<V>], disp: i32, columns: &[V]) {
        let columns: Vec<Part> = columns.iter().map(|v| self.column(f, *v)).collect();
        for (row, sums) in sums.iter().enumerate() {
            let x = self.row(f, self.a.at(row, disp));
            for (sum, w) in sums.iter().zip(&columns) {
                add_bytes(f, *sum, *w, x);
            }
        }
    }

    /// Bytes of the right operand, of values from 0 to 255.
    fn column(&self, f: &mut Function, bytes: V) -> Part {
        if self.key.dots() {
            return Part::One(bytes);
        }
        let group = f.whole(Elem::U32);
        let low = f.constant(group, LOW_BYTES);
        let even = f.binary(Binary::And, group, bytes, low);
        Part::Words([even, shifted(f, Shift::Right, f.whole(Elem::U16), bytes, 8)])
    }

    /// Bytes of the left operand, of values from -128 to 127.
    fn row(&self, f: &mut Function, mem: Mem) -> Part {
        let bytes = f.broadcast(f.whole(Elem::U32), mem);
        if self.key.dots() {
            return Part::One(bytes);
        }
        let words = f.whole(Elem::I16);
        let even = shifted(f, Shift::Left, words, bytes, 8);
        Part::Words([even, bytes].map(|v| shifted(f, Shift::Right, words, v, 8)))
    }

    /// Adds the sums of a block, scaled, to the accumulators; and what minima contribute.
    fn scale(&self, f: &mut Function, sums: &[Vec<V>], minima: bool) {
        let (ints, floats) = (f.whole(Elem::I32), f.whole(Elem::F32));
        let columns = self.halves(f, TileArgs::B_SCALE);
        let rows = self.here(f, TileArgs::A_SCALE, self.of_rows);
        let least = minima.then(|| {
            let columns = self.halves(f, TileArgs::B_MINIMA);
            (columns, self.here(f, TileArgs::A_TOTAL, self.of_rows))
        });
        for (row, sums) in sums.iter().enumerate() {
            let own = self.of_row(f, floats, rows, row);
            let total = least.as_ref().map(|(_, totals)| self.of_row(f, floats, *totals, row));
            for (v, sum) in sums.iter().enumerate() {
                let both = f.binary(Binary::Mul, floats, columns[v], own);
                let whole = f.convert(ints, Elem::F32, Operand::Reg(*sum));
                let acc = f.vector();
                f.push(Op::MulAdd {
                    ty: floats,
                    dst: acc,
                    a: whole,
                    b: Operand::Reg(both),
                    c: Operand::Mem(self.kept(row, v)),
                });
                if let (Some((columns, _)), Some(total)) = (&least, total) {
                    f.push(Op::Fma {
                        ty: floats,
                        acc,
                        a: columns[v],
                        b: total,
                    });
                }
                self.keep(f, row, v, acc);
            }
        }
    }

    /// A number of each column, stored in 16 bits.
    fn halves(&self, f: &mut Function, field: usize) -> Vec<V> {
        let at = self.here(f, field, self.of_columns);
        let lanes = self.isa.lanes();
        let halves = Elem::F16.by(lanes as u8);
        (0..usize::from(self.key.vectors))
            .map(|v| {
                let mem = Mem::at(at, (2 * v * lanes) as i32);
                f.convert(halves, Elem::F32, Operand::Mem(mem))
            })
            .collect()
    }

    /// A number of a row, on every lane.
    fn of_row(&self, f: &mut Function, ty: Type, at: G, row: usize) -> Operand {
        let mem = Mem::at(at, 4 * row as i32);
        match self.isa.is_evex() {
            true => Operand::Broadcast(mem),
            false => Operand::Reg(f.broadcast(ty, mem)),
        }
    }
}
