//! The register tiles that Cranelift compiles, for any CPU: one of each kind.
//!
//! Bytes are multiplied as words, whose products and sums of two fit in 32 bits: of four steps side by side the even ones and the
//! odd ones each make a vector of words, so that nothing has to change its place.

mod blocks;

use crate::Error;
use crate::clif::emit::{CONSTANT, Emit, element};
use crate::clif::outline::Outline;
use crate::clif::unit::Unit;
use crate::x86::TileArgs;
use brolga_ir::loops::PANEL;
use brolga_ir::{DType, TileKind};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// Rows of the block that the compiled kernel keeps in registers, and vectors of sums in a row of it.
const BLOCK: (usize, usize) = (4, 2);

/// The kernel for any CPU: `void(TileArgs*, i64 rows)`, any number of rows, up to 32 columns.
pub(super) struct GenericTile(pub TileKind);

impl GenericTile {
    /// The type of a vector of sums.
    fn sums(&self) -> Type {
        match self.0.dtypes() {
            [.., DType::F32] => types::F32X4,
            _ => types::I32X4,
        }
    }

    /// Bytes of a column of the panel: of one step, or of those that are interleaved.
    fn column(&self) -> i64 {
        let [_, right, _] = self.0.dtypes();
        right.bytes() as i64 * self.0.interleave()
    }
}

impl Outline for GenericTile {
    fn name(&self) -> Cow<'static, str> {
        format!("brolga_tile_generic_{}", self.0.name()).into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let signature = unit.signature(&[types::I64, types::I64], None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e| {
            let p = e.params();
            let f = Fields::new(e, self, p[0]);
            let zero = e.int(0);
            let whole = e.floor_div_const(p[1], BLOCK.0 as i64);
            e.counted(zero, whole, &[], |e, i, _| {
                let r = e.times(i, BLOCK.0 as i64);
                columns(e, &f, r, BLOCK.0)?;
                Ok(vec![])
            })?;
            let first = e.times(whole, BLOCK.0 as i64);
            e.counted(first, p[1], &[], |e, r, _| {
                columns(e, &f, r, 1)?;
                Ok(vec![])
            })?;
            e.b.ins().return_(&[]);
            Ok(())
        })?;
        Ok(id)
    }
}

/// The arguments, loaded.
struct Fields<'t> {
    tile: &'t GenericTile,
    a: Value,
    b: Value,
    c: Value,
    a_row: Value,
    a_k: Value,
    c_row: Value,
    k: Value,
    blocks: [(Value, Value); 2],
    cols: Value,
    accumulate: Value,
    scales: Scales,
}

/// Where scales and what belongs to them are; see [`TileArgs`].
#[derive(Clone, Copy)]
struct Scales {
    a: Value,
    offset: Value,
    total: Value,
    block: Value,
    b: Value,
    minima: Value,
}

impl Fields<'_> {
    fn new<'t>(e: &mut Emit, tile: &'t GenericTile, args: Value) -> Fields<'t> {
        let mut get = |offset: usize| e.b.ins().load(types::I64, CONSTANT, args, offset as i32);
        Fields {
            tile,
            a: get(TileArgs::A),
            b: get(TileArgs::B),
            c: get(TileArgs::C),
            a_row: get(TileArgs::A_ROW),
            a_k: get(TileArgs::A_K),
            c_row: get(TileArgs::C_ROW),
            k: get(TileArgs::K),
            blocks: [
                (get(TileArgs::BLOCKS0), get(TileArgs::A_BLOCK0)),
                (get(TileArgs::BLOCKS1), get(TileArgs::A_BLOCK1)),
            ],
            cols: get(TileArgs::COLS),
            accumulate: get(TileArgs::ACCUMULATE),
            scales: Scales {
                a: get(TileArgs::A_SCALE),
                offset: get(TileArgs::A_OFFSET),
                total: get(TileArgs::A_TOTAL),
                block: get(TileArgs::A_SCALE_BLOCK),
                b: get(TileArgs::B_SCALE),
                minima: get(TileArgs::B_MINIMA),
            },
        }
    }
}

impl Emit<'_, '_> {
    fn floor_div_const(&mut self, a: Value, b: i64) -> Value {
        let b = self.int(b);
        self.floor_div(a, b, false)
    }
}

/// All columns of some rows.
fn columns(e: &mut Emit, f: &Fields, row: Value, rows: usize) -> Result<(), Error> {
    let width = 4 * BLOCK.1 as i64;
    let at = e.b.ins().imul(row, f.a_row);
    let a = e.b.ins().iadd(f.a, at);
    let at = e.b.ins().imul(row, f.c_row);
    let c = e.b.ins().iadd(f.c, at);
    let up = e.b.ins().iadd_imm_s(f.cols, width - 1);
    let groups = e.floor_div_const(up, width);
    let zero = e.int(0);
    e.counted(zero, groups, &[], |e, i, _| {
        let (to_b, to_c) = (e.times(i, f.tile.column() * width), e.times(i, 4 * width));
        let (b, c) = (e.b.ins().iadd(f.b, to_b), e.b.ins().iadd(c, to_c));
        let acc = match f.tile.0.has_scales() {
            true => {
                let scales = f.scales.from(e, row, i);
                blocks::sums(e, f, [a, b], &scales, rows)?
            }
            false => sums(e, f, a, b, rows)?,
        };
        let taken = e.times(i, width);
        let left = e.b.ins().isub(f.cols, taken);
        let full = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, left, width);
        let fork = e.begin_fork(full, &[]);
        store(e, f, c, &acc)?;
        e.fork_else(&fork, &[]);
        store_some(e, f, c, &acc, left)?;
        e.end_fork(fork, &[]);
        Ok(vec![])
    })?;
    Ok(())
}

impl Scales {
    /// The same from a row on, and a group of columns.
    fn from(&self, e: &mut Emit, row: Value, group: Value) -> Scales {
        let rows = e.times(row, 4);
        let columns = e.times(group, 2 * 4 * BLOCK.1 as i64);
        let mut add = |to: Value, by: Value| e.b.ins().iadd(to, by);
        let (a, offset, total) = (add(self.a, rows), add(self.offset, rows), add(self.total, rows));
        let b = add(self.b, columns);
        // None of all columns is none of these.
        let none = e.b.ins().icmp_imm_s(IntCC::Equal, self.minima, 0);
        let own = e.b.ins().iadd(self.minima, columns);
        let minima = e.b.ins().select(none, self.minima, own);
        Scales {
            a,
            offset,
            total,
            b,
            minima,
            ..*self
        }
    }
}

/// The sums of a block: `rows` times [`BLOCK`]`.1` vectors.
fn sums(e: &mut Emit, f: &Fields, a: Value, b: Value, rows: usize) -> Result<Vec<Value>, Error> {
    let zero = e.int(0);
    let none = match f.tile.sums() {
        types::F32X4 => e.float_const(types::F32X4, 0.0),
        ty => e.int_const(ty, 0),
    };
    let mut carried = vec![none; rows * BLOCK.1];
    carried.push(b);
    let acc = e.counted(zero, f.blocks[0].0, &carried, |e, p, carried| {
        let at = e.b.ins().imul(p, f.blocks[0].1);
        let a = e.b.ins().iadd(a, at);
        e.counted(zero, f.blocks[1].0, carried, |e, q, carried| {
            let at = e.b.ins().imul(q, f.blocks[1].1);
            let a = e.b.ins().iadd(a, at);
            let mut carried = carried.to_vec();
            carried.push(a);
            let mut out = match f.tile.0 {
                TileKind::U8I8 => groups(e, f, &carried, rows)?,
                TileKind::Bf16Pairs => {
                    let pairs = e.floor_div_const(f.k, 2);
                    e.counted(zero, pairs, &carried, |e, _, carried| Ok(pair(e, f, carried, rows)))?
                }
                _ => e.counted(zero, f.k, &carried, |e, _, carried| Ok(step(e, f, carried, rows)))?,
            };
            out.pop();
            Ok(out)
        })
    })?;
    Ok(acc[..rows * BLOCK.1].to_vec())
}

/// One step of a sum of floats: the accumulators, the pointers to B and A, before and after.
fn step(e: &mut Emit, f: &Fields, carried: &[Value], rows: usize) -> Vec<Value> {
    let n = rows * BLOCK.1;
    let (b, a) = (carried[n], carried[n + 1]);
    let [left, right, _] = f.tile.0.dtypes();
    let vector = 4 * f.tile.column() as i32;
    let panel: Vec<Value> = (0..BLOCK.1 as i32)
        .map(|v| match right {
            DType::F32 => e.b.ins().load(types::F32X4, element(), b, vector * v),
            half => {
                let bits = e.b.ins().uload16x4(element(), b, vector * v);
                e.float_from_16(half, bits)
            }
        })
        .collect();
    let mut out = vec![];
    let mut row = a;
    for r in 0..rows {
        if r > 0 {
            row = e.b.ins().iadd(row, f.a_row);
        }
        let x = match left {
            DType::F32 => e.b.ins().load(types::F32, element(), row, 0),
            half => {
                let bits = e.b.ins().uload16(types::I32, element(), row, 0);
                e.float_from_16(half, bits)
            }
        };
        let x = e.b.ins().splat(types::F32X4, x);
        for (v, y) in panel.iter().enumerate() {
            let acc = carried[r * BLOCK.1 + v];
            out.push(plus_product(e, x, *y, acc));
        }
    }
    out.push(e.b.ins().iadd_imm_s(b, f.tile.column() * PANEL));
    out.push(e.b.ins().iadd(a, f.a_k));
    out
}

/// A pair of steps of bf16, as [`step`].
fn pair(e: &mut Emit, f: &Fields, carried: &[Value], rows: usize) -> Vec<Value> {
    let n = rows * BLOCK.1;
    let (b, a) = (carried[n], carried[n + 1]);
    // The even step in the upper half of its f32, the odd one where it is.
    let both = |e: &mut Emit, bits: Value| {
        let high = e.int_const(types::I32X4, 0xffff_0000);
        let steps = [e.b.ins().ishl_imm_u(bits, 16), e.b.ins().band(bits, high)];
        steps.map(|v| e.bits_as(v, types::F32X4))
    };
    let panel: Vec<[Value; 2]> = (0..BLOCK.1 as i32)
        .map(|v| {
            let bits = e.b.ins().load(types::I32X4, element(), b, 16 * v);
            both(e, bits)
        })
        .collect();
    let mut out = vec![];
    let mut row = a;
    for r in 0..rows {
        if r > 0 {
            row = e.b.ins().iadd(row, f.a_row);
        }
        let bits = e.b.ins().load(types::I32, element(), row, 0);
        let bits = e.b.ins().splat(types::I32X4, bits);
        let x = both(e, bits);
        for (v, y) in panel.iter().enumerate() {
            let acc = plus_product(e, x[0], y[0], carried[r * BLOCK.1 + v]);
            out.push(plus_product(e, x[1], y[1], acc));
        }
    }
    out.push(e.b.ins().iadd_imm_s(b, f.tile.column() * PANEL));
    out.push(e.b.ins().iadd_imm_s(a, 4));
    out
}

/// `x * y + acc`, rounded once where the CPU can.
fn plus_product(e: &mut Emit, x: Value, y: Value, acc: Value) -> Value {
    if e.unit.target.has_fma {
        return e.b.ins().fma(x, y, acc);
    }
    let p = e.b.ins().fmul(x, y);
    e.b.ins().fadd(acc, p)
}

/// A run of a sum of bytes: groups of four steps, then those that are left, one at a time.
fn groups(e: &mut Emit, f: &Fields, carried: &[Value], rows: usize) -> Result<Vec<Value>, Error> {
    let (n, by) = (rows * BLOCK.1, f.tile.0.interleave());
    let zero = e.int(0);
    let whole = e.floor_div_const(f.k, by);
    let mut out = e.counted(zero, whole, carried, |e, _, carried| {
        let all = e.b.ins().iconst(types::I32, -1);
        let load = |e: &mut Emit, row: Value| e.b.ins().load(types::I32, element(), row, 0);
        let mut out = group(e, f, carried, rows, all, &load);
        out.push(e.b.ins().iadd_imm_s(carried[n], f.tile.column() * PANEL));
        out.push(e.b.ins().iadd_imm_s(carried[n + 1], by));
        Ok(out)
    })?;
    let taken = e.times(whole, by);
    let rest = e.b.ins().isub(f.k, taken);
    // A byte of A at each of the four places, and of B the one that it belongs to.
    out.push(e.b.ins().iconst(types::I32, 0xff));
    out = e.counted(zero, rest, &out, |e, _, carried| {
        let mask = carried[n + 2];
        let load = |e: &mut Emit, row: Value| {
            let x = e.b.ins().uload8(types::I32, element(), row, 0);
            e.b.ins().imul_imm_s(x, 0x0101_0101)
        };
        let mut out = group(e, f, carried, rows, mask, &load);
        out.push(carried[n]);
        out.push(e.b.ins().iadd_imm_s(carried[n + 1], 1));
        out.push(e.b.ins().ishl_imm_u(mask, 8));
        Ok(out)
    })?;
    out.pop();
    // Behind what is left of a group the next run begins with another.
    let some = e.b.ins().iadd_imm_s(rest, by - 1);
    let some = e.floor_div_const(some, by);
    let past = e.times(some, f.tile.column() * PANEL);
    out[n] = e.b.ins().iadd(out[n], past);
    Ok(out)
}

/// The sums with four steps added, of which B keeps the bytes under a mask.
fn group(
    e: &mut Emit,
    f: &Fields,
    carried: &[Value],
    rows: usize,
    mask: Value,
    load: &dyn Fn(&mut Emit, Value) -> Value,
) -> Vec<Value> {
    let n = rows * BLOCK.1;
    let mask = e.b.ins().splat(types::I32X4, mask);
    let panel: Vec<[Value; 2]> = (0..BLOCK.1)
        .map(|v| {
            let y = e.b.ins().load(types::I32X4, element(), carried[n], 16 * v as i32);
            let y = e.b.ins().band(y, mask);
            let y = e.bits_as(y, types::I16X8);
            let even = e.b.ins().ishl_imm_u(y, 8);
            [e.b.ins().sshr_imm_u(even, 8), e.b.ins().sshr_imm_u(y, 8)]
        })
        .collect();
    let low = e.int_const(types::I16X8, 0xff);
    let mut out = vec![];
    let mut row = carried[n + 1];
    for r in 0..rows {
        if r > 0 {
            row = e.b.ins().iadd(row, f.a_row);
        }
        let x = load(e, row);
        let x = e.b.ins().splat(types::I32X4, x);
        let x = e.bits_as(x, types::I16X8);
        let words = [e.b.ins().band(x, low), e.b.ins().ushr_imm_u(x, 8)];
        for (v, y) in panel.iter().enumerate() {
            let mut acc = carried[r * BLOCK.1 + v];
            for (x, y) in words.iter().zip(y) {
                let pairs = pair_sums(e, *x, *y);
                acc = e.b.ins().iadd(acc, pairs);
            }
            out.push(acc);
        }
    }
    out
}

/// Writes or adds whole vectors.
fn store(e: &mut Emit, f: &Fields, c: Value, acc: &[Value]) -> Result<(), Error> {
    let mut row = c;
    for (r, vectors) in acc.chunks(BLOCK.1).enumerate() {
        if r > 0 {
            row = e.b.ins().iadd(row, f.c_row);
        }
        for (v, acc) in vectors.iter().enumerate() {
            let offset = 16 * v as i32;
            let ty = f.tile.sums();
            let sum = e.either(
                f.accumulate,
                &[ty],
                |e| {
                    let old = e.b.ins().load(ty, element(), row, offset);
                    Ok(vec![plus(e, *acc, old)])
                },
                |_| Ok(vec![*acc]),
            )?;
            e.b.ins().store(element(), sum[0], row, offset);
        }
    }
    Ok(())
}

/// Writes or adds the first `left` columns.
fn store_some(e: &mut Emit, f: &Fields, c: Value, acc: &[Value], left: Value) -> Result<(), Error> {
    let mut row = c;
    for (r, vectors) in acc.chunks(BLOCK.1).enumerate() {
        if r > 0 {
            row = e.b.ins().iadd(row, f.c_row);
        }
        for j in 0..4 * vectors.len() {
            let inside = e.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, left, j as i64);
            let open = e.begin_if(inside);
            let x = e.b.ins().extractlane(vectors[j / 4], (j % 4) as u8);
            let ty = f.tile.sums().lane_type();
            let sum = e.either(
                f.accumulate,
                &[ty],
                |e| {
                    let old = e.b.ins().load(ty, element(), row, 4 * j as i32);
                    Ok(vec![plus(e, x, old)])
                },
                |_| Ok(vec![x]),
            )?;
            e.b.ins().store(element(), sum[0], row, 4 * j as i32);
            e.end_if(open);
        }
    }
    Ok(())
}

/// The sums of two neighbouring products of words: one instruction on x86-64, four on AArch64.
fn pair_sums(e: &mut Emit, x: Value, y: Value) -> Value {
    let [low, high] = [false, true].map(|high| {
        let [x, y] = [x, y].map(|v| match high {
            true => e.b.ins().swiden_high(v),
            false => e.b.ins().swiden_low(v),
        });
        e.b.ins().imul(x, y)
    });
    e.b.ins().iadd_pairwise(low, high)
}

/// The sum of two numbers, or of two vectors of them.
fn plus(e: &mut Emit, x: Value, y: Value) -> Value {
    match e.type_of(x).lane_type() {
        types::F32 => e.b.ins().fadd(x, y),
        _ => e.b.ins().iadd(x, y),
    }
}
