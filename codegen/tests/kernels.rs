//! Loop kernels through the JIT against the interpreter of the level, bit for bit, on every level of CPU that runs here.

mod common;

use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Ahead, Expr, Grain, Kernel, LoopKind, RegInfo, Scope, Stmt, Tile};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim, TileKind};
use common::*;

fn random_bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut r = Random(seed);
    (0..n).map(|_| r.next() as u8).collect()
}

fn i64s(x: impl IntoIterator<Item = i64>) -> Vec<u8> {
    x.into_iter().flat_map(i64::to_le_bytes).collect()
}

fn bound(index: Ix, extent: impl Into<Dim>) -> Bound {
    Bound {
        index,
        extent: extent.into(),
    }
}

fn set(r: Reg, e: Expr) -> Stmt {
    Stmt::Set(r, e)
}

#[test]
fn a_map_with_a_tail() {
    let mut b = Build::new("map", &["n"]);
    let n = Dim::sym("n");
    let x = b.buffer(DType::F32, n.clone(), Scope::In);
    let y = b.buffer(DType::F32, n.clone(), Scope::Out);
    let (v, w) = (b.reg(DType::F32), b.reg(DType::F32));
    let (s, t) = (b.reg(DType::F32), b.reg(DType::F32));
    let at = affine(&[(0, 16), (1, 1)], 0);
    let whole = vec![bound(affine(&[(0, 16)], 15), n.clone())];
    let vector = each(
        1,
        LoopKind::Vector,
        16,
        vec![
            set(v, load(x, at.clone())),
            set(w, prim(Prim::Add, &[v, v])),
            store(y, at, w),
        ],
    );
    let rest = &Ix::constant(n.clone()) + &affine(&[(0, -16)], 0);
    let at = affine(&[(0, 16), (2, 1)], 0);
    let tail = Stmt::For {
        var: Var(2),
        kind: LoopKind::Serial,
        extent: rest.at_most(&Dim::Const(16)),
        body: vec![
            set(s, load(x, at.clone())),
            set(t, prim(Prim::Mul, &[s, s])),
            store(y, at, t),
        ],
    };
    b.k.body = vec![each(
        0,
        LoopKind::Parallel(Grain::ALWAYS),
        n.ceil_div(&Dim::Const(16)),
        vec![
            tail,
            Stmt::If {
                bounds: whole,
                then: vec![vector],
            },
        ],
    )];
    for n in [0, 1, 15, 16, 17, 100] {
        check(&b, &[n], &[random_f32(n as usize, 1), vec![0; 4 * n as usize]]);
    }
}

#[test]
fn every_dtype_and_number_of_lanes() {
    for d in DType::ALL {
        for lanes in [1, 2, 3, 4, 7, 8, 16, 33, 64] {
            let mut b = Build::new("copy", &[]);
            let n = 3 * lanes;
            let x = b.buffer(d, n, Scope::In);
            let y = b.buffer(d, n, Scope::Out);
            let z = b.buffer(d, 1, Scope::Out);
            let v = b.reg(d);
            let body = vec![
                set(v, load(x, affine(&[(0, lanes), (1, 1)], 0))),
                // The same lanes backwards, and all of them to one place.
                store(y, affine(&[(0, lanes), (1, -1)], lanes - 1), v),
                store(z, Ix::constant(0), v),
            ];
            b.k.body = vec![each(
                0,
                LoopKind::Serial,
                3,
                vec![each(1, LoopKind::Vector, lanes, body)],
            )];
            let bytes = |n: i64| n as usize * d.bytes();
            let mut input = random_bytes(bytes(n), 7);
            if d == DType::Bool {
                input.iter_mut().for_each(|x| *x &= 1);
            }
            check(&b, &[], &[input, vec![0; bytes(n)], vec![0; bytes(1)]]);
        }
    }
}

#[test]
fn a_reduction_in_lanes() {
    for lanes in [4, 8, 16] {
        let mut b = Build::new("sum", &["m", "k"]);
        let (m, k) = (Dim::sym("m"), Dim::sym("k"));
        let x = b.buffer(DType::F32, &m * &(&k * lanes), Scope::In);
        let y = b.buffer(DType::F32, m.clone(), Scope::Out);
        let acc = b.lanes(DType::F32, lanes as u32);
        let (v, total, l) = (b.reg(DType::F32), b.reg(DType::F32), b.reg(DType::F32));
        let row = Ix::var(Var(0)).scale(&(&k * lanes));
        let at = &row + &affine(&[(1, lanes), (2, 1)], 0);
        let mut body = vec![
            set(acc, Expr::Const(0)),
            each(
                1,
                LoopKind::Serial,
                k.clone(),
                vec![each(
                    2,
                    LoopKind::Vector,
                    lanes,
                    vec![set(v, load(x, at)), set(acc, prim(Prim::Add, &[acc, v]))],
                )],
            ),
            set(total, Expr::Lane(acc, 0)),
        ];
        for i in 1..lanes as u32 {
            body.push(set(l, Expr::Lane(acc, i)));
            body.push(set(total, prim(Prim::Add, &[total, l])));
        }
        body.push(store(y, Ix::var(Var(0)), total));
        b.k.body = vec![each(0, LoopKind::Parallel(Grain::ALWAYS), m, body)];
        for (m, k) in [(3, 5), (1, 0), (0, 4)] {
            let n = (m * k * lanes) as usize;
            check(&b, &[m, k], &[random_f32(n, 3), vec![0; 4 * m as usize]]);
        }
    }
}

#[test]
fn a_maximum_with_its_place() {
    let mut b = Build::new("argmax", &["k"]);
    let k = Dim::sym("k");
    let x = b.buffer(DType::F32, &k * 8, Scope::In);
    let y = b.buffer(DType::I64, 8, Scope::Out);
    let (best, place) = (b.lanes(DType::F32, 8), b.lanes(DType::I64, 8));
    let any = b.lanes(DType::Bool, 8);
    let (v, i, c, d) = (
        b.reg(DType::F32),
        b.reg(DType::I64),
        b.reg(DType::Bool),
        b.reg(DType::I64),
    );
    let body = vec![
        set(v, load(x, affine(&[(0, 8), (1, 1)], 0))),
        set(i, Expr::Index(affine(&[(0, 8), (1, 1)], 5))),
        set(c, prim(Prim::Lt, &[best, v])),
        set(any, prim(Prim::Or, &[any, c])),
        set(best, prim(Prim::Select, &[c, v, best])),
        set(place, prim(Prim::Select, &[c, i, place])),
    ];
    b.k.body = vec![
        set(best, Expr::Const(u64::from(f32::NEG_INFINITY.to_bits()))),
        set(place, Expr::Const(u64::MAX)),
        set(any, Expr::Const(0)),
        each(0, LoopKind::Serial, k, vec![each(1, LoopKind::Vector, 8, body)]),
        each(
            2,
            LoopKind::Vector,
            8,
            vec![
                set(d, prim(Prim::Cast(DType::I64), &[any])),
                set(d, prim(Prim::Add, &[d, place])),
                store(y, Ix::var(Var(2)), d),
            ],
        ),
    ];
    for k in [0, 1, 9] {
        check(&b, &[k], &[random_f32(8 * k as usize, 5), vec![0; 64]]);
    }
}

/// A rare side with several statements, one of them shared with the usual side, in lanes and in a scalar tail: no lane, some
/// lanes and all lanes ask for it.
#[test]
fn what_runs_rarely() {
    let mut b = Build::new("rare", &[]);
    let (x, y) = (
        b.buffer(DType::F32, 35, Scope::In),
        b.buffer(DType::F32, 35, Scope::Out),
    );
    let mut part = |var: u32, index: Ix, kind: LoopKind, n: i64| {
        let [v, one, c, square, sum, slow, usual, r] = [0; 8].map(|_| b.reg(DType::F32));
        let is_large = b.reg(DType::Bool);
        let body = vec![
            set(v, load(x, index.clone())),
            set(one, Expr::Const(u64::from(1f32.to_bits()))),
            set(is_large, prim(Prim::Lt, &[one, v])),
            set(square, prim(Prim::Mul, &[v, v])),
            set(c, Expr::Const(u64::from(3f32.to_bits()))),
            set(sum, prim(Prim::Fma, &[square, c, square])),
            set(usual, prim(Prim::Sub, &[square, one])),
            set(slow, prim(Prim::Mul, &[sum, c])),
            set(r, prim(Prim::Rarely, &[is_large, slow, usual])),
            store(y, index, r),
        ];
        each(var, kind, n, body)
    };
    let vectors = part(1, affine(&[(0, 8), (1, 1)], 0), LoopKind::Vector, 8);
    let tail = part(2, affine(&[(2, 1)], 32), LoopKind::Serial, 3);
    b.k.body = vec![each(0, LoopKind::Serial, 4, vec![vectors]), tail];
    for large in [0, 1, 2, 5] {
        let values: Vec<f32> = (0..35)
            .map(|i| {
                if large > 0 && i % (6 - large) == 0 {
                    2.0 + i as f32
                } else {
                    0.5
                }
            })
            .collect();
        check(&b, &[], &[f32s(&values), vec![0; 140]]);
    }
}

#[test]
fn guarded_loads_in_lanes() {
    // A window of three over a row with padding: the guard differs on the lanes; and one over rows, where it does not.
    for (d, fill) in [
        (DType::F32, 0x3f80_0000u64),
        (DType::I8, 0x81),
        (DType::Bool, 1),
        (DType::F64, 77),
    ] {
        let mut b = Build::new("pad", &["h", "w"]);
        let (h, w) = (Dim::sym("h"), Dim::sym("w"));
        let x = b.buffer(d, &h * &w, Scope::In);
        let y = b.buffer(d, &(&h + 2) * &(&(&w + 2) * 3), Scope::Out);
        let v = b.reg(d);
        let lanes = 8;
        let column = affine(&[(1, lanes), (2, 1), (3, 1)], -2);
        let row = affine(&[(0, 1)], -1);
        let guard = vec![bound(row.clone(), h.clone()), bound(column.clone(), w.clone())];
        let index = &row.scale(&w) + &column;
        // Output is [h + 2][3][w + 2], and only whole groups of lanes are written.
        let out = &(&Ix::var(Var(0)).scale(&(&(&w + 2) * 3)) + &Ix::var(Var(3)).scale(&(&w + 2)))
            + &affine(&[(1, lanes), (2, 1)], 0);
        let body = vec![
            set(
                v,
                Expr::Load {
                    buffer: x,
                    index,
                    guard,
                    fill,
                },
            ),
            store(y, out, v),
        ];
        let columns = each(
            1,
            LoopKind::Serial,
            (&w + 2).floor_div(&Dim::Const(lanes)),
            vec![each(2, LoopKind::Vector, lanes, body)],
        );
        b.k.body = vec![each(
            0,
            LoopKind::Parallel(Grain::ALWAYS),
            &h + 2,
            vec![each(3, LoopKind::Unrolled, 3, vec![columns])],
        )];
        for (h, w) in [(2, 6), (3, 22), (1, 40)] {
            let size = (h * w) as usize * d.bytes();
            let mut input = random_bytes(size, 11);
            if d == DType::Bool {
                input.iter_mut().for_each(|x| *x &= 1);
            }
            let out = ((h + 2) * (w + 2) * 3) as usize * d.bytes();
            check(&b, &[h, w], &[input, vec![0; out]]);
        }
    }
}

#[test]
fn guarded_loads_at_strides() {
    // Groups of lanes that are inside, outside on either side, and across a bound; one bound fixed, one moving.
    for (d, stride, start) in [
        (DType::F32, 2, -20),
        (DType::F32, -1, 30),
        (DType::F64, 3, -9),
        (DType::Bool, -2, 60),
        (DType::I16, 5, -64),
    ] {
        let mut b = Build::new("strided", &["n"]);
        let n = Dim::sym("n");
        let x = b.buffer(d, n.clone(), Scope::In);
        let y = b.buffer(d, 2 * 64, Scope::Out);
        let v = b.reg(d);
        let index = affine(&[(1, 8 * stride), (2, stride)], start);
        let guard = vec![
            bound(index.clone(), n.clone()),
            bound(affine(&[(0, 3), (1, 1)], -2), 6),
            bound(affine(&[(1, 8), (2, 1)], -3), &n + 7),
        ];
        let e = Expr::Load {
            buffer: x,
            index,
            guard,
            fill: 1,
        };
        let body = vec![set(v, e), store(y, affine(&[(0, 64), (1, 8), (2, 1)], 0), v)];
        let groups = each(1, LoopKind::Serial, 8, vec![each(2, LoopKind::Vector, 8, body)]);
        b.k.body = vec![each(0, LoopKind::Serial, 2, vec![groups])];
        for n in [0, 1, 17, 50] {
            let mut input = random_bytes(n as usize * d.bytes(), 13);
            if d == DType::Bool {
                input.iter_mut().for_each(|x| *x &= 1);
            }
            check(&b, &[n], &[input, vec![0; 128 * d.bytes()]]);
        }
    }
}

#[test]
fn gathers_and_scatters() {
    let mut b = Build::new("gather", &["n"]);
    let n = Dim::sym("n");
    let x = b.buffer(DType::F32, &n * 3, Scope::In);
    let i = b.buffer(DType::I64, 24, Scope::In);
    let y = b.buffer(DType::F32, 24, Scope::Out);
    let z = b.buffer(DType::F32, n.clone(), Scope::Out);
    let (at, v, g) = (b.reg(DType::I64), b.reg(DType::F32), b.reg(DType::F32));
    let place = affine(&[(0, 8), (1, 1)], 0);
    let index = &Ix::reg(at).scale(&Dim::Const(3)) + &Ix::constant(1);
    let body = vec![
        set(at, load(i, place.clone())),
        set(
            v,
            Expr::Load {
                buffer: x,
                index,
                guard: vec![bound(Ix::reg(at), n.clone())],
                fill: 0x4000_0000,
            },
        ),
        store(y, place.clone(), v),
    ];
    let (s, t) = (b.reg(DType::I64), b.reg(DType::F32));
    let scatter = vec![
        set(s, load(i, place.clone())),
        set(g, load(y, place)),
        set(t, prim(Prim::Neg, &[g])),
        Stmt::If {
            bounds: vec![bound(Ix::reg(s), n.clone())],
            then: vec![store(z, Ix::reg(s), t)],
        },
    ];
    b.k.body = vec![
        each(0, LoopKind::Serial, 3, vec![each(1, LoopKind::Vector, 8, body)]),
        each(0, LoopKind::Serial, 3, vec![each(1, LoopKind::Serial, 8, scatter)]),
    ];
    let n = 7;
    let indices = i64s((0..24).map(|i| (i * 5) % 11 - 2));
    check(&b, &[n], &[random_f32(21, 2), indices, vec![0; 96], vec![0; 28]]);
}

#[test]
fn divisions_strides_and_index_values() {
    let mut b = Build::new("strides", &["s", "w"]);
    let (s, w) = (Dim::sym("s"), Dim::sym("w"));
    let x = b.buffer(DType::I32, 400, Scope::In);
    let y = b.buffer(DType::I64, 5 * 16 * 8, Scope::Out);
    let linear = affine(&[(0, 16), (1, 1)], 3);
    let parts = [
        linear.div(&w),
        linear.modulo(&w),
        affine(&[(0, 16), (1, 1)], -37).div(&Dim::Const(6)),
        affine(&[(0, 16), (1, 1)], -37).modulo(&Dim::Const(8)),
        linear.at_most(&Dim::Const(30)),
        Ix::var(Var(1)).scale(&s),
        &Ix::var(Var(1)).scale(&Dim::Const(-3)) + &Ix::var(Var(0)).scale(&s),
    ];
    let mut body = vec![];
    let out = |p: i64| affine(&[(0, 16), (1, 1)], p * 80);
    for (p, e) in parts.iter().enumerate() {
        let (r, q, t) = (b.reg(DType::I64), b.reg(DType::I32), b.reg(DType::I64));
        // As a value, and as an address (moved so that it is inside).
        body.push(set(r, Expr::Index(e.clone())));
        body.push(set(q, load(x, e + &Dim::Const(100))));
        body.push(set(t, prim(Prim::Cast(DType::I64), &[q])));
        body.push(set(t, prim(Prim::Xor, &[t, r])));
        body.push(store(y, out(p as i64), t));
    }
    let (c, t) = (b.reg(DType::Bool), b.reg(DType::I64));
    body.push(set(
        c,
        Expr::InBounds(vec![
            bound(affine(&[(1, 1)], -2), &s + 1),
            bound(linear, &w * 2),
            bound(affine(&[(0, 1)], 0), 4),
        ]),
    ));
    body.push(set(t, prim(Prim::Cast(DType::I64), &[c])));
    body.push(store(y, out(7), t));
    for kind in [LoopKind::Vector, LoopKind::Serial, LoopKind::Unrolled] {
        b.k.body = vec![each(0, LoopKind::Serial, 5, vec![each(1, kind, 16, body.clone())])];
        for dims in [[1, 1], [7, 5], [0, 16], [13, 3]] {
            check(&b, &dims, &[random_bytes(1600, 9), vec![0; 5 * 16 * 8 * 8]]);
        }
    }
}

#[test]
fn scratch_and_private_memory() {
    let mut b = Build::new("scratch", &["n"]);
    let n = Dim::sym("n");
    let x = b.buffer(DType::F32, &n * 8, Scope::In);
    let y = b.buffer(DType::F32, &n * 8, Scope::Out);
    let first = b.buffer(DType::F32, &n + 3, Scope::Worker);
    let second = b.buffer(DType::F32, 8, Scope::Worker);
    let third = b.buffer(DType::F32, 8, Scope::Private);
    let (v, w) = (b.reg(DType::F32), b.reg(DType::F32));
    let all = |var: u32, from, to, flip: bool| {
        let index = if flip {
            affine(&[(var, -1)], 7)
        } else {
            affine(&[(var, 1)], 0)
        };
        each(
            var,
            LoopKind::Serial,
            8,
            vec![set(v, load(from, affine(&[(var, 1)], 0))), store(to, index, v)],
        )
    };
    b.k.body = vec![each(
        0,
        LoopKind::Parallel(Grain::ALWAYS),
        n.clone(),
        vec![
            set(w, load(x, affine(&[(0, 8)], 2))),
            store(first, Ix::constant(&n + 2), w),
            each(
                1,
                LoopKind::Vector,
                8,
                vec![
                    set(v, load(x, affine(&[(0, 8), (1, 1)], 0))),
                    store(second, Ix::var(Var(1)), v),
                ],
            ),
            all(2, second, third, true),
            all(3, third, second, true),
            each(
                4,
                LoopKind::Vector,
                8,
                vec![
                    set(v, load(second, affine(&[(4, -1)], 7))),
                    set(w, load(first, Ix::constant(&n + 2))),
                    set(w, prim(Prim::Mul, &[w, v])),
                    store(y, affine(&[(0, 8), (4, 1)], 0), w),
                ],
            ),
        ],
    )];
    check(&b, &[10], &[random_f32(80, 4), vec![0; 320]]);
}

#[test]
fn more_constants_than_registers() {
    for lanes in [2, 4, 16, 64] {
        let k = polynomial(DType::F32, lanes, 128);
        check(&Build { k }, &[], &[random_f32(128, 6), vec![0; 512]]);
        let k = polynomial(DType::F64, lanes, 128);
        let mut r = Random(8);
        let x: Vec<u8> = (0..128).flat_map(|_| f64::from(r.f32()).to_le_bytes()).collect();
        check(&Build { k }, &[], &[x, vec![0; 1024]]);
    }
}

/// The elements of an operand, their bytes random (floats of 16 bits are made of ordinary numbers), or the largest there are.
fn elements(dtype: DType, n: usize, seed: u64, extreme: bool) -> Vec<u8> {
    let mut r = Random(seed);
    let one = |_| match dtype {
        DType::F32 => r.f32().to_le_bytes().to_vec(),
        DType::I32 => (r.next() as i32).to_le_bytes().to_vec(),
        DType::U8 if extreme => vec![255],
        DType::I8 if extreme => vec![-128i8 as u8],
        DType::U8 | DType::I8 => vec![r.next() as u8],
        half => half.to_half(r.f32()).to_le_bytes().to_vec(),
    };
    (0..n).flat_map(one).collect()
}

/// `C[m, n] = A[m, k] B`, with B in panels, in tiles of `rows`.
fn matmul(kind: TileKind, [rows, m, k, n]: [i64; 4], cut: bool, extreme: bool) -> (Build, Vec<Vec<u8>>) {
    let mut b = Build::new("matmul", if cut { &["m"] } else { &[] });
    let [left, right, sum] = kind.dtypes();
    let by = kind.interleave();
    let filled = (k + by - 1) / by * by;
    let panels = (n + 31) / 32;
    let md = if cut { Dim::sym("m") } else { Dim::Const(m) };
    let a = b.buffer(left, &md * k, Scope::In);
    let p = b.buffer(right, panels * filled * 32, Scope::In);
    let c = b.buffer(sum, &md * n, Scope::Out);
    let rest = &Ix::constant(md.clone()) + &affine(&[(0, -rows)], 0);
    let columns = &Ix::constant(n) + &affine(&[(1, -32)], 0);
    let tile = Tile {
        kind,
        a,
        a_index: affine(&[(0, rows * k)], 0),
        a_row: Ix::constant(k),
        a_k: Ix::constant(1),
        blocks: [(Ix::constant(1), Ix::constant(0)), (Ix::constant(1), Ix::constant(0))],
        k: Ix::constant(k),
        b: p,
        b_index: affine(&[(1, 32 * filled)], 0),
        c,
        c_index: affine(&[(0, rows * n), (1, 32)], 0),
        c_row: Ix::constant(n),
        rows: if cut || m % rows != 0 {
            rest.at_most(&Dim::Const(rows))
        } else {
            Ix::constant(rows)
        },
        max_rows: rows as u32,
        cols: if n < 32 {
            Ix::constant(n)
        } else {
            columns.at_most(&Dim::Const(32))
        },
        accumulate: false,
        ahead: None,
        scales: None,
    };
    b.k.body = vec![each(
        0,
        LoopKind::Parallel(Grain::ALWAYS),
        md.ceil_div(&Dim::Const(rows)),
        vec![each(1, LoopKind::Serial, panels, vec![Stmt::Tile(Box::new(tile))])],
    )];
    let bytes = right.bytes();
    let numbers = elements(right, (n * k) as usize, 21, extreme);
    let mut packed = vec![0; (panels * filled * 32) as usize * bytes];
    for (i, x) in numbers.chunks(bytes).enumerate() {
        let (j, t) = (i as i64 / k, i as i64 % k);
        let at = (j / 32 * filled + t / by * by) * 32 + j % 32 * by + t % by;
        packed[at as usize * bytes..][..bytes].copy_from_slice(x);
    }
    let buffers = vec![
        elements(left, (m * k) as usize, 22, extreme),
        packed,
        vec![0; (4 * m * n) as usize],
    ];
    (b, buffers)
}

/// Tiles are as the interpreter says: sums of integers in every bit, of floats up to the multiply-adds that a target lacks.
fn check_tile(kind: TileKind, b: &Build, symbols: &[i64], buffers: &[Vec<u8>]) {
    match kind {
        TileKind::U8I8 => check(b, symbols, buffers),
        _ => check_within(b, symbols, buffers, 1e-5),
    }
}

/// Those of any runs of steps.
fn plain_kinds() -> impl Iterator<Item = TileKind> {
    TileKind::ALL
        .into_iter()
        .filter(|kind| !kind.has_scales() && *kind != TileKind::Bf16Pairs)
}

#[test]
fn tiles_of_pairs() {
    for shape in [
        [4, 8, 32, 32],
        [32, 70, 96, 70],
        [6, 20, 64, 16],
        [28, 30, 0, 9],
        [17, 17, 160, 64],
    ] {
        let (b, buffers) = matmul(TileKind::Bf16Pairs, shape, false, false);
        check_tile(TileKind::Bf16Pairs, &b, &[], &buffers);
        let (b, buffers) = matmul(TileKind::Bf16Pairs, shape, true, false);
        check_tile(TileKind::Bf16Pairs, &b, &[shape[1]], &buffers);
    }
}

#[test]
fn tiles() {
    for kind in plain_kinds() {
        for shape in [
            [4, 8, 13, 32],
            [14, 14, 7, 70],
            [6, 20, 1, 16],
            [28, 30, 5, 9],
            [3, 7, 0, 33],
            [17, 17, 3, 64],
            [24, 26, 36, 40],
        ] {
            let (b, buffers) = matmul(kind, shape, false, false);
            check_tile(kind, &b, &[], &buffers);
            let (b, buffers) = matmul(kind, shape, true, false);
            check_tile(kind, &b, &[shape[1]], &buffers);
        }
    }
}

/// Where sums of two products of bytes leave 16 bits, beyond the whole numbers of f32, and where sums wrap.
#[test]
fn tiles_of_the_largest_bytes() {
    for (k, n) in [(2, 41), (4, 41), (1025, 41), (70_001, 2)] {
        let (b, buffers) = matmul(TileKind::U8I8, [5, 7, k, n], false, true);
        check(&b, &[], &buffers);
    }
}

#[test]
fn a_tile_over_blocks_at_strides() {
    for (kind, k) in plain_kinds().flat_map(|kind| [5, 8].map(|k| (kind, k))) {
        let mut b = Build::new("blocks", &[]);
        let ([left, right, sum], by) = (kind.dtypes(), kind.interleave());
        let panel = (6 * ((k + by - 1) / by * by) * 32) as usize;
        let a = b.buffer(left, 4000, Scope::In);
        let p = b.buffer(right, panel as i64, Scope::In);
        let c = b.buffer(sum, 13 * 40, Scope::Out);
        let c0 = |x: i64| Ix::constant(x);
        let tile = |accumulate| {
            Stmt::Tile(Box::new(Tile {
                kind,
                a,
                a_index: c0(11),
                a_row: c0(19),
                // Steps that are interleaved lie side by side in the left operand too.
                a_k: c0(if by > 1 { 1 } else { 23 }),
                blocks: [(c0(2), c0(301)), (c0(3), c0(97))],
                k: c0(k),
                b: p,
                b_index: c0(0),
                c,
                c_index: affine(&[], 3),
                c_row: c0(40),
                rows: c0(13),
                max_rows: 13,
                cols: c0(29),
                accumulate,
                // Nothing is behind the panel: nothing is read there.
                ahead: accumulate.then(|| Ahead { turn: c0(1), of: c0(3) }),
                scales: None,
            }))
        };
        b.k.body = vec![tile(false), each(0, LoopKind::Serial, 3, vec![tile(true)])];
        let buffers =
            [(left, 4000, 1), (right, panel, 2), (sum, 520, 3)].map(|(d, n, seed)| elements(d, n, seed, false));
        match kind {
            TileKind::U8I8 => check(&b, &[], &buffers),
            _ => check_within(&b, &[], &buffers, 1e-4),
        }
    }
}

#[test]
fn a_row_over_several_panels() {
    let floats = plain_kinds().filter(|kind| kind.interleave() == 1);
    for (kind, panels) in floats.flat_map(|kind| [2, 3, 4].map(|n| (kind, n))) {
        let mut b = Build::new("row", &[]);
        let (n, [left, right, sum]) = (32 * panels, kind.dtypes());
        let parts = [(left, 35, Scope::In), (right, 35 * n, Scope::In), (sum, n, Scope::Out)];
        let [a, p, c] = parts.map(|(dtype, len, scope)| b.buffer(dtype, len, scope));
        let [zero, one] = [0, 1].map(|x: i64| Ix::constant(x));
        let tile = |accumulate| Tile {
            kind,
            a,
            a_index: zero.clone(),
            a_row: zero.clone(),
            a_k: one.clone(),
            blocks: [(one.clone(), zero.clone()), (Ix::constant(5), Ix::constant(7))],
            k: Ix::constant(7),
            b: p,
            b_index: zero.clone(),
            c,
            c_index: zero.clone(),
            c_row: zero.clone(),
            rows: one.clone(),
            max_rows: 1,
            cols: Ix::constant(n),
            accumulate,
            ahead: None,
            scales: None,
        };
        b.k.body = [false, true].map(|more| Stmt::Tile(Box::new(tile(more)))).to_vec();
        let buffers = parts.map(|(dtype, len, _)| elements(dtype, len as usize, 1, false));
        check_within(&b, &[], &buffers, 1e-5);
    }
}

#[test]
fn what_a_cpu_cannot_do_is_an_error() {
    let mut b = Build::new("gpu", &[]);
    b.k.body = vec![each(0, LoopKind::Thread(0), 32, vec![Stmt::Barrier])];
    let k: &Kernel = &b.k;
    let target = &targets()[0];
    let e = brolga_codegen::Jit::new(target, "t", &[], |u| brolga_codegen::program::compile_kernel(u, k)).unwrap_err();
    assert_eq!(e.to_string(), "kernel `gpu`: Thread(0) loop, which CPUs have not");
    b.k.regs.push(RegInfo {
        dtype: DType::F32,
        lanes: 1,
    });
    b.k.body = vec![each(0, LoopKind::Vector, 4, vec![set(Reg(0), Expr::Const(0))])];
    let out = b.buffer(DType::F32, 1, Scope::Out);
    b.k.body.push(store(out, Ix::constant(0), Reg(0)));
    let k: &Kernel = &b.k;
    let e = brolga_codegen::Jit::new(target, "t", &[], |u| brolga_codegen::program::compile_kernel(u, k)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "kernel `gpu`: r0 is read outside the vector loop that assigns it"
    );
}

#[test]
fn checks_report_any_lane() {
    for target in targets() {
        for lanes in [1, 4, 8, 16] {
            // An index from memory in bounds, and a bool from memory.
            let mut b = Build::new("check", &[]);
            let (indices, flags) = (
                b.buffer(DType::I64, 2 * lanes, Scope::In),
                b.buffer(DType::Bool, 2 * lanes, Scope::In),
            );
            let out = b.buffer(DType::I64, 2 * lanes, Scope::Out);
            let at = affine(&[(0, lanes), (1, 1)], 0);
            let (i, inside, flag) = (b.reg(DType::I64), b.reg(DType::Bool), b.reg(DType::Bool));
            let bounds = vec![Bound {
                index: Ix::reg(i),
                extent: Dim::Const(5),
            }];
            let body = vec![
                Stmt::Set(i, load(indices, at.clone())),
                Stmt::Set(inside, Expr::InBounds(bounds)),
                Stmt::Check {
                    number: 4,
                    holds: inside,
                },
                Stmt::Set(flag, load(flags, at.clone())),
                Stmt::Check { number: 1, holds: flag },
                store(out, at, i),
            ];
            let kind = if lanes == 1 { LoopKind::Serial } else { LoopKind::Vector };
            b.k.body = vec![each(
                0,
                LoopKind::Parallel(Grain::ALWAYS),
                2,
                vec![each(1, kind, lanes, body)],
            )];
            b.k.verify().unwrap();
            let n = 2 * lanes as usize;
            for bad in 0..=n {
                for (value, flag, want) in [(5, 1, 5), (-1, 1, 5), (3, 0, 2), (i64::MIN, 0, 5)] {
                    let index = |k: usize| if k == bad { value } else { (k % 5) as i64 };
                    let bytes: Vec<u8> = (0..n).flat_map(|k| index(k).to_le_bytes()).collect();
                    let flags: Vec<u8> = (0..n).map(|k| if k == bad { flag } else { 1 }).collect();
                    let mut buffers = vec![bytes.clone(), flags, vec![0; 8 * n]];
                    let failed = run(&target, &b.k, &mut buffers, &[], 1);
                    let want = if bad == n { 0 } else { want };
                    assert_eq!(failed, want, "{} lanes, {value} at {bad} for {}", lanes, target.name);
                    assert_eq!(buffers[2], bytes);
                }
            }
        }
    }
}
