//! The register tile that Cranelift compiles, for any CPU.

use crate::Error;
use crate::clif::emit::{CONSTANT, Emit, element};
use crate::clif::outline::Outline;
use crate::clif::unit::Unit;
use crate::x86::TileArgs;
use brolga_ir::loops::PANEL;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_module::{FuncId, Linkage};
use std::borrow::Cow;

/// Rows of the block that the compiled kernel keeps in registers, and `f32` vectors in a row of it.
const BLOCK: (usize, usize) = (4, 2);

/// The kernel for any CPU: `void(TileArgs*, i64 rows)`, any number of rows, up to 32 columns.
pub(super) struct GenericTile;

impl Outline for GenericTile {
    fn name(&self) -> Cow<'static, str> {
        "brolga_tile_generic".into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let signature = unit.signature(&[types::I64, types::I64], None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        unit.define(id, |e| {
            let p = e.params();
            let f = Fields::new(e, p[0]);
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
struct Fields {
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
}

impl Fields {
    fn new(e: &mut Emit, args: Value) -> Fields {
        let mut get = |offset: usize| e.b.ins().load(types::I64, CONSTANT, args, offset as i32);
        Fields {
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
        let j = e.times(i, 4 * width);
        let (b, c) = (e.b.ins().iadd(f.b, j), e.b.ins().iadd(c, j));
        let acc = sums(e, f, a, b, rows)?;
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

/// The sums of a block: `rows` times [`BLOCK`]`.1` vectors.
fn sums(e: &mut Emit, f: &Fields, a: Value, b: Value, rows: usize) -> Result<Vec<Value>, Error> {
    let zero = e.int(0);
    let none = e.float_const(types::F32X4, 0.0);
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
            let mut out = e.counted(zero, f.k, &carried, |e, _, carried| Ok(step(e, f, carried, rows)))?;
            out.pop();
            Ok(out)
        })
    })?;
    Ok(acc[..rows * BLOCK.1].to_vec())
}

/// One step of the sum: the accumulators, the pointers to B and A, before and after.
fn step(e: &mut Emit, f: &Fields, carried: &[Value], rows: usize) -> Vec<Value> {
    let n = rows * BLOCK.1;
    let (b, a) = (carried[n], carried[n + 1]);
    let panel: Vec<Value> = (0..BLOCK.1)
        .map(|v| e.b.ins().load(types::F32X4, element(), b, 16 * v as i32))
        .collect();
    let mut out = vec![];
    let mut row = a;
    for r in 0..rows {
        if r > 0 {
            row = e.b.ins().iadd(row, f.a_row);
        }
        let x = e.b.ins().load(types::F32, element(), row, 0);
        let x = e.b.ins().splat(types::F32X4, x);
        for (v, y) in panel.iter().enumerate() {
            let acc = carried[r * BLOCK.1 + v];
            out.push(if e.unit.target.has_fma {
                e.b.ins().fma(x, *y, acc)
            } else {
                let p = e.b.ins().fmul(x, *y);
                e.b.ins().fadd(acc, p)
            });
        }
    }
    out.push(e.b.ins().iadd_imm_s(b, 4 * PANEL));
    out.push(e.b.ins().iadd(a, f.a_k));
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
            let sum = e.either(
                f.accumulate,
                &[types::F32X4],
                |e| {
                    let old = e.b.ins().load(types::F32X4, element(), row, offset);
                    Ok(vec![e.b.ins().fadd(*acc, old)])
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
            let sum = e.either(
                f.accumulate,
                &[types::F32],
                |e| {
                    let old = e.b.ins().load(types::F32, element(), row, 4 * j as i32);
                    Ok(vec![e.b.ins().fadd(x, old)])
                },
                |_| Ok(vec![x]),
            )?;
            e.b.ins().store(element(), sum[0], row, 4 * j as i32);
            e.end_if(open);
        }
    }
    Ok(())
}
