//! Register tiles over blocks with scales, through the JIT against the interpreter, bit for bit, on every level of CPU that runs here.

mod common;

use brolga_ir::index::Ix;
use brolga_ir::loops::{BLOCK, Grain, LoopKind, Minima, PANEL, Scales, Scope, Stmt, Tile};
use brolga_ir::{DType, Dim, TileKind};
use common::*;

/// A product `[m, k] * [k, n]` in tiles of so many rows.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: TileKind,
    rows: i64,
    m: i64,
    k: i64,
    n: i64,
    minima: bool,
    /// The number of rows is known at run time only.
    cut: bool,
}

fn product(c: Case) -> (Build, Vec<Vec<u8>>) {
    let Case {
        kind, rows, m, k, n, ..
    } = c;
    let mut b = Build::new("product", if c.cut { &["m"] } else { &[] });
    let md = if c.cut { Dim::sym("m") } else { Dim::Const(m) };
    let (blocks, panels) = (k / BLOCK, (n + PANEL - 1) / PANEL);
    let panel = kind.panel_elements(k);
    let x = b.buffer(DType::I8, &md * k, Scope::In);
    let w = b.buffer(DType::U8, panels * panel, Scope::In);
    let a = b.buffer(DType::F32, &md * blocks, Scope::In);
    let offset = b.buffer(DType::I32, &md * blocks, Scope::In);
    let scale = b.buffer(DType::F16, panels * blocks * PANEL, Scope::In);
    let least = b.buffer(DType::F16, panels * blocks * PANEL, Scope::In);
    let total = b.buffer(DType::F32, &md * blocks, Scope::In);
    let y = b.buffer(DType::F32, &md * n, Scope::Out);
    let rest = &Ix::constant(md.clone()) + &affine(&[(0, -rows)], 0);
    let columns = &Ix::constant(n) + &affine(&[(1, -PANEL)], 0);
    let one = (Ix::constant(1), Ix::constant(0));
    let tile = Tile {
        kind,
        a: x,
        a_index: affine(&[(0, rows * k)], 0),
        a_row: Ix::constant(k),
        a_k: Ix::constant(1),
        blocks: [one.clone(), one],
        k: Ix::constant(k),
        b: w,
        b_index: affine(&[(1, panel)], 0),
        c: y,
        c_index: affine(&[(0, rows * n), (1, PANEL)], 0),
        c_row: Ix::constant(n),
        rows: rest.at_most(&Dim::Const(rows)),
        max_rows: rows as u32,
        cols: if n < PANEL {
            Ix::constant(n)
        } else {
            columns.at_most(&Dim::Const(PANEL))
        },
        accumulate: false,
        ahead: None,
        scales: Some(Box::new(Scales {
            a,
            offset,
            a_index: affine(&[(0, rows)], 0),
            a_block: Ix::constant(md.clone()),
            b: scale,
            b_index: affine(&[(1, blocks * PANEL)], 0),
            minima: c.minima.then_some(Minima { b: least, total }),
        })),
    };
    b.k.body = vec![each(
        0,
        LoopKind::Parallel(Grain::ALWAYS),
        md.ceil_div(&Dim::Const(rows)),
        vec![each(1, LoopKind::Serial, panels, vec![Stmt::Tile(Box::new(tile))])],
    )];
    let mut r = Random(5);
    let bytes = |r: &mut Random, n: i64| (0..n).map(|_| r.next() as u8).collect::<Vec<u8>>();
    let floats = |r: &mut Random, n: i64| f32s(&(0..n).map(|_| r.f32()).collect::<Vec<_>>());
    let halves = |r: &mut Random, n: i64| -> Vec<u8> {
        (0..n).flat_map(|_| DType::F16.to_half(r.f32()).to_le_bytes()).collect()
    };
    let of_columns = panels * blocks * PANEL;
    let buffers = vec![
        bytes(&mut r, m * k),
        bytes(&mut r, panels * panel),
        floats(&mut r, m * blocks),
        (0..m * blocks)
            .flat_map(|_| (r.next() as i32 % 100_000).to_le_bytes())
            .collect(),
        halves(&mut r, of_columns),
        halves(&mut r, of_columns),
        floats(&mut r, m * blocks),
        vec![0; (4 * m * n) as usize],
    ];
    (b, buffers)
}

#[test]
fn blocks_are_summed_in_integers_and_then_in_floats() {
    for kind in [TileKind::Q8, TileKind::Q4] {
        for minima in [false, true] {
            for [rows, m, k, n] in [
                [1, 1, 96, 64],
                [1, 1, 32, 7],
                [12, 30, 64, 70],
                [5, 17, 128, 33],
                [24, 26, 32, 16],
                [3, 7, 0, 33],
                [40, 100, 64, 32],
            ] {
                for cut in [false, true] {
                    let case = Case {
                        kind,
                        rows,
                        m,
                        k,
                        n,
                        minima,
                        cut,
                    };
                    let (b, buffers) = product(case);
                    assert_eq!(b.k.verify(), Ok(()), "{case:?}");
                    let text = b.k.to_string();
                    assert_eq!(text.parse(), Ok(b.k.clone()), "{text}");
                    let dims: &[i64] = if cut { &[m] } else { &[] };
                    check_within(&b, dims, &buffers, 1e-3);
                }
            }
        }
    }
}

/// Every height of a kernel.
#[test]
fn any_number_of_rows() {
    for kind in [TileKind::Q8, TileKind::Q4] {
        for rows in 1..=33 {
            let (b, buffers) = product(Case {
                kind,
                rows,
                m: rows,
                k: 224,
                n: 45,
                minima: true,
                cut: false,
            });
            check_within(&b, &[], &buffers, 1e-3);
        }
    }
}

/// The largest products: -128 by 255, of which two leave 16 bits, with an offset at which the sum wraps.
#[test]
fn the_largest_bytes() {
    let (b, mut buffers) = product(Case {
        kind: TileKind::Q8,
        rows: 3,
        m: 3,
        k: 64,
        n: 40,
        minima: false,
        cut: false,
    });
    buffers[0].fill(0x80);
    buffers[1].fill(0xff);
    for offset in [0, i32::MIN, i32::MAX] {
        buffers[3] = (0..6).flat_map(|_| offset.to_le_bytes()).collect();
        check_within(&b, &[], &buffers, 1e-3);
    }
}
