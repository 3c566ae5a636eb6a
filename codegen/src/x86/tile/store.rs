//! What is done with a tile's sums at the end.

use super::address::Rows;
use super::{PANEL, TileArgs, TileKey};
use crate::x86::Isa;
use crate::x86::vir::{Binary, Cond, Elem, Function, G, Mem, Op, Operand, Scalar, V};
use brolga_ir::TileKind;

/// `C = acc` or `C += acc`, in full or by masked columns.
pub(super) fn store(f: &mut Function, key: TileKey, isa: Isa, args: G, acc: &[Vec<V>]) {
    let field = |offset: usize| Mem::at(args, offset as i32);
    let lanes = isa.lanes();
    let ty = f.whole(match key.kind {
        TileKind::U8I8 => Elem::I32,
        _ => Elem::F32,
    });
    let first = f.load_general(field(TileArgs::C));
    let c = Rows::new(f, first, field(TileArgs::C_ROW), key.rows);
    let cols = f.load_general(field(TileArgs::COLS));
    let accumulate = f.load_general(field(TileArgs::ACCUMULATE));
    let at = |row: usize, v: usize| c.at(row, (v * lanes * 4) as i32);
    let (masked, full, part) = (f.label(), f.label(), f.label());

    let partly = key.width() <= PANEL;
    if partly {
        f.branch(Cond::Lt, cols, Scalar::Imm(key.width() as i32), masked);
    }
    f.branch(Cond::Eq, accumulate, Scalar::Imm(0), full);
    for (row, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            f.push(Op::Binary {
                op: Binary::Add,
                ty,
                dst: *acc,
                a: *acc,
                b: Operand::Mem(at(row, v)),
            });
        }
    }
    f.place(full);
    for (row, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            f.push(Op::Store {
                ty,
                mem: at(row, v),
                src: *acc,
                mask: None,
            });
        }
    }
    f.push(Op::Return);
    if !partly {
        return;
    }

    f.place(masked);
    f.branch(Cond::Eq, accumulate, Scalar::Imm(0), part);
    for v in 0..usize::from(key.vectors) {
        let mask = f.first_lanes(cols, (v * lanes) as u8);
        for (row, acc) in acc.iter().enumerate() {
            let old = f.load(ty, at(row, v), Some(mask));
            f.push(Op::Binary {
                op: Binary::Add,
                ty,
                dst: acc[v],
                a: acc[v],
                b: Operand::Reg(old),
            });
        }
    }
    f.place(part);
    for v in 0..usize::from(key.vectors) {
        let mask = f.first_lanes(cols, (v * lanes) as u8);
        for (row, acc) in acc.iter().enumerate() {
            f.push(Op::Store {
                ty,
                mem: at(row, v),
                src: acc[v],
                mask: Some(mask),
            });
        }
    }
    f.push(Op::Return);
}
