//! Nests that become functions in vectors of 256 and 512 bits: which are taken, and what they touch. That they give the bits of
//! the interpreter is tested with all other kernels (`kernels.rs`, `prims.rs`, `random_kernels.rs`).

#![cfg(target_arch = "x86_64")]

mod common;

use brolga_codegen::Jit;
use brolga_codegen::program::compile_kernel;
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::loops::interp::{self, BufferData};
use brolga_ir::loops::{Expr, Grain, Kernel, LoopKind, Scope, Stmt};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim, Target};
use common::*;
use expect_test::expect;
use memmap2::{MmapMut, MmapOptions};

/// The levels with bodies of their own that run here.
fn wide() -> Vec<Target> {
    targets()
        .into_iter()
        .filter(|t| t.cpu().unwrap().body_lanes().is_some())
        .collect()
}

/// A kernel's texts: those of its bodies, in order, and its own.
fn texts(target: &Target, k: &Kernel) -> (Vec<String>, String) {
    let mut listings = vec![];
    Jit::new(target, "t", &k.symbols, |u| {
        u.keep_listings();
        let id = compile_kernel(u, k)?;
        listings = u.take_listings();
        Ok(id)
    })
    .unwrap_or_else(|e| panic!("{e}\n{k}"));
    let (bodies, own): (Vec<_>, Vec<_>) = listings.into_iter().partition(|l| l.name.contains("_wide"));
    let own = own
        .into_iter()
        .find(|l| l.name.ends_with(&k.name))
        .expect("the kernel itself");
    (bodies.into_iter().map(|l| l.ir).collect(), own.ir)
}

/// `y[i] = p(x[i], …)` on 16 lanes.
fn one(p: Prim, x: &[DType], to: DType) -> Kernel {
    let mut b = Build::new("one", &["m"]);
    let ins: Vec<_> = x.iter().map(|d| b.buffer(*d, 64, Scope::In)).collect();
    let out = b.buffer(to, 64, Scope::Out);
    let at = affine(&[(0, 16), (1, 1)], 0);
    let mut body = vec![];
    let mut regs = vec![];
    for (buffer, d) in ins.iter().zip(x) {
        let r = b.reg(*d);
        body.push(Stmt::Set(r, load(*buffer, at.clone())));
        regs.push(r);
    }
    let r = b.reg(to);
    body.push(Stmt::Set(r, prim(p, &regs)));
    body.push(store(out, at, r));
    b.k.body = vec![each(
        0,
        LoopKind::Serial,
        Dim::sym("m"),
        vec![each(1, LoopKind::Vector, 16, body)],
    )];
    b.k
}

/// What stays in 128 bits, of all primitives on all dtypes.
#[test]
fn primitives_that_are_not_taken() {
    let refused = |name: &str| {
        let target = wide().into_iter().find(|t| t.name == name)?;
        let mut all: Vec<String> = vec![];
        for p in Prim::all() {
            for t in DType::ALL {
                let mut x = vec![t; p.arity()];
                if p.chooses() {
                    x[0] = DType::Bool;
                }
                let Ok(to) = p.result(&x) else { continue };
                let (bodies, own) = texts(&target, &one(p, &x, to));
                match bodies.len() {
                    0 => {
                        assert!(own.starts_with("; in 128 bits: "), "{own}");
                        all.push(match p.target() {
                            Some(to) => format!("{} {t} {to}", p.name()),
                            None => format!("{} {t}", p.name()),
                        });
                    }
                    _ => assert!(!own.contains("; in 128 bits"), "{own}"),
                }
            }
        }
        Some(all.join(", "))
    };
    if let Some(refused) = refused("x86-64-v4") {
        expect!["div i64, div i32, div i16, div i8, div u64, div u32, div u16, div u8, rem f64, rem f32, rem i64, rem i32, rem i16, rem i8, rem u64, rem u32, rem u16, rem u8, bitcast i16 f16, bitcast u16 f16, bitcast i16 bf16, bitcast u16 bf16, bitcast f16 i16, bitcast bf16 i16, bitcast f16 u16, bitcast bf16 u16"].assert_eq(&refused);
    }
    if let Some(refused) = refused("x86-64-v3") {
        expect!["mul i64, mul u64, div i64, div i32, div i16, div i8, div u64, div u32, div u16, div u8, rem f64, rem f32, rem i64, rem i32, rem i16, rem i8, rem u64, rem u32, rem u16, rem u8, abs i64, min u64, max u64, shr i64, cast f16 f64, cast i64 f64, cast u64 f64, cast u32 f64, cast f16 f32, cast i64 f32, cast u64 f32, cast u32 f32, cast f64 f16, cast f32 f16, cast bf16 f16, cast i64 f16, cast i32 f16, cast i16 f16, cast i8 f16, cast u64 f16, cast u32 f16, cast u16 f16, cast u8 f16, cast bool f16, cast f16 bf16, cast i64 bf16, cast u64 bf16, cast u32 bf16, cast bool bf16, cast f64 i64, cast f32 i64, cast f16 i64, cast bf16 i64, cast f64 i32, cast f16 i32, cast f16 i16, cast f16 i8, cast f64 u64, cast f32 u64, cast f16 u64, cast bf16 u64, cast f64 u32, cast f32 u32, cast f16 u32, cast bf16 u32, cast f16 u16, cast f16 u8, bitcast i16 f16, bitcast u16 f16, bitcast i16 bf16, bitcast u16 bf16, bitcast f16 i16, bitcast bf16 i16, bitcast f16 u16, bitcast bf16 u16"].assert_eq(&refused);
    }
}

/// A row as the schedules write it: whole vectors, then what is left one by one; kept lanes are merged in pairs.
fn softmax_row(lanes: i64) -> Kernel {
    format!(
        "loops @row(b0: f32[m*n] in, b1: f32[m*n] out) symbols(m, n) {{
          for i0 parallel 0..m {{
            r0: f32x{lanes} = const f32 0.0
            for i1 serial 0..floordiv(n, {lanes}) {{
              for i2 vector 0..{lanes} {{
                r1: f32 = load b0[(n)*i0 + {lanes}*i1 + i2]
                r2: f32 = mul r1 r1
                r3: f32 = add r0 r2
                r0: f32x{lanes} = copy r3
              }}
            }}
            MERGE
            for i3 serial 0..n - {lanes}*floordiv(n, {lanes}) {{
              r5: f32 = load b0[(n)*i0 + ({lanes}*floordiv(n, {lanes})) + i3]
              r6: f32 = mul r5 r5
              r7: f32 = add r4 r6
              r4: f32 = copy r7
            }}
            for i1 serial 0..floordiv(n, {lanes}) {{
              for i2 vector 0..{lanes} {{
                r1: f32 = load b0[(n)*i0 + {lanes}*i1 + i2]
                r8: f32 = sqrt r4
                r2: f32 = div r1 r8
                store b1[(n)*i0 + {lanes}*i1 + i2] = r2
              }}
            }}
            for i3 serial 0..n - {lanes}*floordiv(n, {lanes}) {{
              r5: f32 = load b0[(n)*i0 + ({lanes}*floordiv(n, {lanes})) + i3]
              r6: f32 = sqrt r4
              r7: f32 = div r5 r6
              store b1[(n)*i0 + ({lanes}*floordiv(n, {lanes})) + i3] = r7
            }}
          }}
        }}"
    )
    .replace("MERGE", &merge(lanes))
    .parse()
    .unwrap_or_else(|e| panic!("{e}"))
}

/// The sum of `r0`'s lanes, in pairs, as `r4`.
fn merge(lanes: i64) -> String {
    let (mut text, mut next) = (String::new(), 9);
    let mut level: Vec<i64> = vec![];
    for l in 0..lanes {
        text += &format!("r{next}: f32 = lane r0 {l}\n");
        level.push(next);
        next += 1;
    }
    while level.len() > 1 {
        let (low, high) = level.split_at(level.len() / 2);
        let mut sums = vec![];
        for (a, b) in low.iter().zip(high) {
            text += &format!("r{next}: f32 = add r{a} r{b}\n");
            sums.push(next);
            next += 1;
        }
        level = sums;
    }
    text + &format!("r4: f32 = copy r{}\n", level[0])
}

#[test]
fn a_row_is_one_function_and_its_lanes_are_merged_in_registers() {
    for target in wide() {
        let lanes = i64::from(target.cpu().unwrap().body_lanes().unwrap());
        let (bodies, own) = texts(&target, &softmax_row(lanes));
        assert_eq!(bodies.len(), 1, "{}: {own}", target.name);
        // One turn and one addition for each halving.
        let turns = bodies[0].matches(" = rotate ").count() as u32;
        assert!((lanes.ilog2()..=lanes.ilog2() + 1).contains(&turns), "{}", bodies[0]);
        // The root is the same for all: it stands before the loops.
        let root = bodies[0].find("sqrt").unwrap();
        assert!(bodies[0][root..].matches("div").count() >= 2, "{}", bodies[0]);
    }
}

/// Memory behind which there is none: pages of a file, with the next one beyond the file's end.
struct Edge {
    map: MmapMut,
    /// Where the file ends.
    end: usize,
    len: usize,
}

const PAGE: usize = 4096;

impl Edge {
    /// Bytes that end where the last page does.
    fn new(bytes: &[u8]) -> Edge {
        let path = std::env::temp_dir().join(format!(
            "brolga-edge-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let (len, end) = (bytes.len(), bytes.len().max(1).next_multiple_of(PAGE));
        file.set_len(end as u64).unwrap();
        // SAFETY: the file is this test's alone.
        let mut map = unsafe { MmapOptions::new().len(end + PAGE).map_mut(&file).unwrap() };
        map[end - len..end].copy_from_slice(bytes);
        Edge { map, end, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.map[self.end - self.len..self.end]
    }

    fn ptr(&mut self) -> *mut u8 {
        // SAFETY: it is inside the mapping.
        unsafe { self.map.as_mut_ptr().add(self.end - self.len) }
    }
}

/// Runs a kernel on buffers at the edges of pages, and compares with the interpreter.
fn at_edges(target: &Target, k: &Kernel, inputs: &[Vec<u8>], dims: &[i64]) {
    let lookup = |s: &str| k.symbols.iter().position(|x| &**x == s).map(|i| dims[i]);
    let mut want = inputs.to_vec();
    let data: Vec<BufferData> = k
        .params()
        .zip(&mut want)
        .map(|(p, bytes)| match p.scope {
            Scope::In => BufferData::from(&bytes[..]),
            _ => BufferData::from(&mut bytes[..]),
        })
        .collect();
    interp::run(k, &lookup, &data).unwrap_or_else(|e| panic!("{e:?}\n{k}"));
    let (_jit, at) = jit(target, k);
    // SAFETY: the address is a kernel's, which has the signature of the ABI's loop body.
    let body: brolga_abi::Body = unsafe { std::mem::transmute(at) };
    let mut memory: Vec<Edge> = inputs.iter().map(|b| Edge::new(b)).collect();
    let mut args: Vec<*mut u8> = memory.iter_mut().map(Edge::ptr).collect();
    args.push(dims.as_ptr().cast_mut().cast());
    args.extend([std::ptr::null_mut(); 3]);
    let n = k
        .parallel()
        .map_or(1, |(n, _)| n.as_dim().unwrap().eval(&lookup).unwrap());
    // SAFETY: the arguments are laid out as the kernel expects; what it touches outside ends the test.
    unsafe { body(args.as_mut_ptr().cast(), 0, n, 0) };
    for (i, (m, want)) in memory.iter().zip(&want).enumerate() {
        assert_eq!(m.bytes(), want, "{}: b{i} of\n{k}", target.name);
    }
}

#[test]
fn rows_of_every_length_stay_inside() {
    for target in wide() {
        let lanes = i64::from(target.cpu().unwrap().body_lanes().unwrap());
        let k = softmax_row(lanes);
        for n in 0..40 {
            let mut r = Random(n as u64);
            let x = f32s(&(0..3 * n).map(|_| r.f32()).collect::<Vec<_>>());
            at_edges(&target, &k, &[x.clone(), vec![0; x.len()]], &[3, n]);
        }
    }
}

/// Guarded loads at every distance from an end, of every size of element that is taken.
#[test]
fn guarded_lanes_stay_inside() {
    for target in wide() {
        let mut taken = 0;
        for d in [
            DType::F32,
            DType::F64,
            DType::I64,
            DType::U8,
            DType::I16,
            DType::F16,
            DType::Bool,
        ] {
            for (stride, start) in [(1, -9), (1, 3), (2, -7), (-1, 20)] {
                let mut b = Build::new("guarded", &["n", "m"]);
                let n = Dim::sym("n");
                let (x, y) = (b.buffer(d, n.clone(), Scope::In), b.buffer(d, 64, Scope::Out));
                let v = b.reg(d);
                let index = affine(&[(0, 16 * stride), (1, stride)], start);
                let e = Expr::Load {
                    buffer: x,
                    index: index.clone(),
                    guard: vec![Bound { index, extent: n }],
                    fill: 0,
                };
                let body = vec![Stmt::Set(v, e), store(y, affine(&[(0, 16), (1, 1)], 0), v)];
                b.k.body = vec![each(
                    0,
                    LoopKind::Serial,
                    Dim::sym("m"),
                    vec![each(1, LoopKind::Vector, 16, body)],
                )];
                let (bodies, _) = texts(&target, &b.k);
                taken += bodies.len();
                for n in [0, 1, 7, 15, 16, 17, 33, 64] {
                    let mut r = Random(n as u64);
                    let x: Vec<u8> = (0..n as usize * d.bytes()).map(|_| r.next() as u8 & 1).collect();
                    at_edges(&target, &b.k, &[x, vec![0; 64 * d.bytes()]], &[n, 4]);
                }
            }
        }
        assert!(taken >= 6, "{}: {taken} of 28 were taken", target.name);
    }
}

/// Buffers at addresses that are multiples of an element only.
#[test]
fn unaligned_elements() {
    for target in wide() {
        for lanes in [16, 32] {
            let mut b = Build::new("unaligned", &["m"]);
            let n = 3 * lanes + 1;
            let (x, y) = (b.buffer(DType::F32, n, Scope::In), b.buffer(DType::F32, n, Scope::Out));
            let (v, w) = (b.reg(DType::F32), b.reg(DType::F32));
            let at = affine(&[(0, lanes), (1, 1)], 1);
            let body = vec![
                Stmt::Set(v, load(x, at.clone())),
                Stmt::Set(w, prim(Prim::Mul, &[v, v])),
                store(y, at, w),
            ];
            b.k.body = vec![each(
                0,
                LoopKind::Parallel(Grain::ALWAYS),
                Dim::sym("m"),
                vec![each(1, LoopKind::Vector, lanes, body)],
            )];
            assert_eq!(texts(&target, &b.k).0.len(), 1, "{} lanes", lanes);
            let mut r = Random(5);
            let x = f32s(&(0..n).map(|_| r.f32()).collect::<Vec<_>>());
            at_edges(&target, &b.k, &[x.clone(), vec![0; x.len()]], &[3]);
        }
    }
}

/// What the caller computes, and what the function does: a nest inside a loop whose variable is divided.
#[test]
fn outer_loops_with_divided_variables_stay_outside() {
    let mut b = Build::new("divided", &["m"]);
    let (x, y) = (
        b.buffer(DType::F32, 6 * 4 * 32, Scope::In),
        b.buffer(DType::F32, 24 * 32, Scope::Out),
    );
    let (v, w) = (b.reg(DType::F32), b.reg(DType::F32));
    let p = Ix::var(Var(0));
    let from = &(&p.div(&Dim::Const(4)).scale(&Dim::Const(32)) + &p.modulo(&Dim::Const(4)).scale(&Dim::Const(192)))
        + &affine(&[(1, 16), (2, 1)], 0);
    let body = vec![
        Stmt::Set(v, load(x, from)),
        Stmt::Set(w, prim(Prim::Neg, &[v])),
        store(y, affine(&[(0, 32), (1, 16), (2, 1)], 0), w),
    ];
    let inner = each(
        1,
        LoopKind::Serial,
        Dim::sym("m"),
        vec![each(2, LoopKind::Vector, 16, body)],
    );
    b.k.body = vec![each(0, LoopKind::Parallel(Grain::ALWAYS), 24, vec![inner])];
    for target in wide() {
        let (bodies, _) = texts(&target, &b.k);
        assert_eq!(bodies.len(), 1);
        let mut r = Random(9);
        let x = f32s(&(0..6 * 4 * 32).map(|_| r.f32()).collect::<Vec<_>>());
        at_edges(&target, &b.k, &[x, vec![0; 24 * 32 * 4]], &[2]);
    }
}

/// A depthwise convolution of bytes: `points` side by side in rows of `n` places, windows of `rows` by `columns`, sums that start
/// from `start`.
fn windows_of_bytes(lanes: i64, [rows, columns]: [i64; 2], points: i64, kind: &str, start: i64) -> Kernel {
    let (channels, width) = (2 * lanes, points * 2 + columns);
    let mut body = String::new();
    let sum = |p: i64| 5 * points + p;
    for p in 0..points {
        let [x, w, a, b, c] = std::array::from_fn(|i| 5 * p + i as i64);
        let s = sum(p);
        body += &format!(
            "r{x}: u8 = load b0[{}*i3 + {channels}*i4 + {lanes}*i1 + {}*i2 + i5 + {}]
             r{w}: i8 = load b1[{}*i3 + {channels}*i4 + {lanes}*i1 + i5]
             r{a}: i32 = cast i32 r{x}\n r{b}: i32 = cast i32 r{w}\n r{c}: i32 = mul r{a} r{b}
             r{}: i32 = add r{s} r{c}\n r{s}: i32x{lanes} = copy r{}\n",
            channels * width,
            channels * points,
            p * channels,
            columns * channels,
            sum(points) + p,
            sum(points) + p,
        );
    }
    let each = |f: &dyn Fn(i64) -> String| (0..points).map(f).collect::<String>();
    let text = format!(
        "loops @windows(b0: u8[{}] in, b1: i8[{}] in, b2: i32[{}] out) symbols(n) {{
           for i0 parallel 0..1 {{ for i1 serial 0..2 {{ for i2 serial 0..n {{
             {}
             for i3 {kind} 0..{rows} {{ for i4 {kind} 0..{columns} {{ for i5 vector 0..{lanes} {{ {body} }} }} }}
             for i5 vector 0..{lanes} {{ {} }}
           }} }} }}
         }}",
        channels * width * rows,
        channels * rows * columns,
        2 * channels * points,
        each(&|p| format!("r{}: i32x{lanes} = const i32 {start}\n", sum(p))),
        each(&|p| format!(
            "store b2[{}*i2 + {lanes}*i1 + i5 + {}] = r{}\n",
            channels * points,
            channels * p,
            sum(p)
        )),
    );
    text.parse().unwrap_or_else(|e| panic!("{e} in {text}"))
}

/// Sums of every number of taps, from bytes at the ends of their ranges.
#[test]
fn windows_of_bytes_are_sums_of_four_products() {
    for target in wide() {
        let most = 4 * i64::from(target.cpu().unwrap().body_lanes().unwrap());
        for (lanes, window, points, kind, start) in [
            (64, [3, 3], 4, "unrolled", 0),
            (64, [3, 3], 1, "serial", -7),
            (32, [3, 3], 4, "unrolled", 0),
            (32, [5, 5], 2, "serial", 0),
            (32, [1, 3], 2, "unrolled", 3),
            (16, [4, 2], 3, "unrolled", 0),
            (16, [2, 1], 1, "serial", 0),
            (8, [3, 3], 2, "unrolled", 0),
            (32, [1, 1], 1, "unrolled", 0),
        ] {
            let k = windows_of_bytes(lanes, window, points, kind, start);
            let taken = (16..=most).contains(&lanes) && window != [1, 1];
            let (bodies, _) = texts(&target, &k);
            let interleaves = bodies.iter().any(|b| b.contains("interleave"));
            assert_eq!(interleaves, taken, "{}: {lanes} lanes, {window:?}", target.name);
            let mut r = Random(lanes as u64);
            let mut inputs: Vec<Vec<u8>> = vec![];
            for b in k.params() {
                let n = b.len.as_const().unwrap() as usize * b.dtype.bytes();
                let edge = |r: &mut Random| [0, 1, 127, 128, 255][r.next() as usize % 5];
                inputs.push((0..n).map(|_| edge(&mut r)).collect());
            }
            for n in 0..3 {
                at_edges(&target, &k, &inputs, &[n]);
            }
        }
    }
}
