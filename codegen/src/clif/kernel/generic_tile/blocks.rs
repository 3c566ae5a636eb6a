//! Sums over blocks that have scales: a block in integers, all of them in floats.

use super::{BLOCK as SHAPE, Fields, Scales, pair_sums, plus_product};
use crate::Error;
use crate::clif::emit::{Emit, element};
use brolga_ir::loops::{BLOCK, PANEL};
use brolga_ir::{DType, TileKind};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// The sums of some rows, from where A, B and their scales are.
pub(super) fn sums(e: &mut Emit, f: &Fields, [a, b]: [Value; 2], s: &Scales, rows: usize) -> Result<Vec<Value>, Error> {
    let n = rows * SHAPE.1;
    let zero = e.int(0);
    let blocks = e.floor_div_const(f.k, BLOCK);
    let none = e.float_const(types::F32X4, 0.0);
    let mut carried = vec![none; n];
    carried.extend([b, a, s.a, s.offset, s.total, s.b, s.minima]);
    let out = e.counted(zero, blocks, &carried, |e, _, carried| {
        let &[b, a, a_scale, offset, total, b_scale, minima] = &carried[n..] else {
            unreachable!("as many as are carried")
        };
        let whole = block(e, f, [a, b], offset, rows)?;
        let columns: Vec<Value> = (0..SHAPE.1).map(|v| halves(e, b_scale, v)).collect();
        let mut out = vec![];
        for (i, (sum, acc)) in whole.iter().zip(carried).enumerate() {
            let own = number(e, a_scale, i / SHAPE.1);
            let both = e.b.ins().fmul(own, columns[i % SHAPE.1]);
            let sum = e.b.ins().fcvt_from_sint(types::F32X4, *sum);
            out.push(plus_product(e, sum, both, *acc));
        }
        let given = e.b.ins().icmp_imm_s(IntCC::NotEqual, minima, 0);
        let mut out = e.either(
            given,
            &vec![types::F32X4; n],
            |e| {
                let columns: Vec<Value> = (0..SHAPE.1).map(|v| halves(e, minima, v)).collect();
                let each = out.iter().enumerate().map(|(i, acc)| {
                    let own = number(e, total, i / SHAPE.1);
                    plus_product(e, columns[i % SHAPE.1], own, *acc)
                });
                Ok(each.collect())
            },
            |_| Ok(out.clone()),
        )?;
        let panel = f.tile.0.panel_elements(BLOCK);
        out.push(e.b.ins().iadd_imm_s(b, panel));
        out.push(e.b.ins().iadd_imm_s(a, BLOCK));
        for pointer in [a_scale, offset, total] {
            out.push(e.b.ins().iadd(pointer, s.block));
        }
        out.push(e.b.ins().iadd_imm_s(b_scale, 2 * PANEL));
        let next = e.b.ins().iadd_imm_s(minima, 2 * PANEL);
        out.push(e.b.ins().select(given, next, minima));
        Ok(out)
    })?;
    Ok(out[..n].to_vec())
}

/// The sums of one block, in integers.
fn block(e: &mut Emit, f: &Fields, [a, b]: [Value; 2], offset: Value, rows: usize) -> Result<Vec<Value>, Error> {
    let n = rows * SHAPE.1;
    let kind = f.tile.0;
    let zero = e.int(0);
    let groups = e.int(BLOCK / 4 / kind.packed());
    let mut carried = vec![];
    for i in 0..n {
        let first = e.b.ins().load(types::I32, element(), offset, 4 * (i / SHAPE.1) as i32);
        carried.push(e.b.ins().splat(types::I32X4, first));
    }
    carried.extend([b, a]);
    let out = e.counted(zero, groups, &carried, |e, _, carried| {
        let (b, a) = (carried[n], carried[n + 1]);
        let bytes: Vec<Value> = (0..SHAPE.1 as i32)
            .map(|v| e.b.ins().load(types::I32X4, element(), b, 16 * v))
            .collect();
        let mut sums = carried[..n].to_vec();
        match kind {
            TileKind::Q4 => {
                // The steps of the first half of the block, then those of the second.
                let low = e.int_const(types::I32X4, 0x0f0f_0f0f);
                for (down, disp) in [(0, 0), (4, BLOCK as i32 / 2)] {
                    let half = |e: &mut Emit, v: &Value| {
                        let v = e.b.ins().ushr_imm_u(*v, down);
                        e.b.ins().band(v, low)
                    };
                    let half: Vec<Value> = bytes.iter().map(|v| half(e, v)).collect();
                    products(e, f, &mut sums, &half, (a, disp));
                }
            }
            _ => products(e, f, &mut sums, &bytes, (a, 0)),
        }
        sums.push(e.b.ins().iadd_imm_s(b, 4 * PANEL));
        sums.push(e.b.ins().iadd_imm_s(a, 4));
        Ok(sums)
    })?;
    Ok(out[..n].to_vec())
}

/// Adds the products of four steps, bytes without signs by those of each row.
fn products(e: &mut Emit, f: &Fields, sums: &mut [Value], columns: &[Value], (a, disp): (Value, i32)) {
    let low = e.int_const(types::I16X8, 0xff);
    let columns: Vec<[Value; 2]> = columns
        .iter()
        .map(|y| {
            let y = e.bits_as(*y, types::I16X8);
            [e.b.ins().band(y, low), e.b.ins().ushr_imm_u(y, 8)]
        })
        .collect();
    let mut row = a;
    for (r, sums) in sums.chunks_mut(SHAPE.1).enumerate() {
        if r > 0 {
            row = e.b.ins().iadd(row, f.a_row);
        }
        let x = e.b.ins().load(types::I32, element(), row, disp);
        let x = e.b.ins().splat(types::I32X4, x);
        let x = e.bits_as(x, types::I16X8);
        let even = e.b.ins().ishl_imm_u(x, 8);
        let words = [e.b.ins().sshr_imm_u(even, 8), e.b.ins().sshr_imm_u(x, 8)];
        for (sum, y) in sums.iter_mut().zip(&columns) {
            for (x, y) in words.iter().zip(y) {
                let pairs = pair_sums(e, *x, *y);
                *sum = e.b.ins().iadd(*sum, pairs);
            }
        }
    }
}

/// Four numbers of columns, stored in 16 bits.
fn halves(e: &mut Emit, at: Value, vector: usize) -> Value {
    let bits = e.b.ins().uload16x4(element(), at, 8 * vector as i32);
    e.float_from_16(DType::F16, bits)
}

/// A number of a row, on every lane.
fn number(e: &mut Emit, at: Value, row: usize) -> Value {
    let x = e.b.ins().load(types::F32, element(), at, 4 * row as i32);
    e.b.ins().splat(types::F32X4, x)
}
