//! The register tiles of the x86 vector IR, run on this CPU against a loop in Rust.
//!
//! The loop is `f32::mul_add` in the order of the steps, which every kernel must equal bit for bit; the loop itself is
//! held against `f64`. A level that this CPU lacks is skipped with a word; its bytes are still compared with a listing.

#![cfg(target_arch = "x86_64")]

use brolga_codegen::x86::tile::{MOST_VECTORS, PANEL};
use brolga_codegen::x86::vir::{Binary, Cond, Elem, Function, GeneralOp, Mem, Op, Operand, Scalar};
use brolga_codegen::x86::{Isa, TileArgs, TileKey, assemble, assemble_tile, max_rows, symbol};
use brolga_ir::{TileFamily, TileKind};
use memmap2::{Mmap, MmapMut};

/// Code that can be called, of a function of one pointer.
struct Code(Mmap);

impl Code {
    fn new(bytes: &[u8]) -> Code {
        let mut map = MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(bytes);
        Code(map.make_exec().unwrap())
    }

    /// # Safety
    /// The bytes are a System V function of one `*const T` that is sound for what `argument` points to.
    unsafe fn call<T>(&self, argument: *const T) {
        // SAFETY: the caller says that the bytes are such a function.
        let function: extern "sysv64" fn(*const T) = unsafe { std::mem::transmute(self.0.as_ptr()) };
        function(argument);
    }
}

/// The levels of this CPU; the others are named on standard output.
fn levels() -> Vec<Isa> {
    let missing = |isa: &Isa| {
        let has = isa.available();
        if !has {
            println!("skipped: this CPU has no {isa}");
        }
        has
    };
    Isa::ALL.into_iter().filter(missing).collect()
}

/// The kernels of f32.
fn kernels(isa: Isa) -> impl Iterator<Item = TileKey> {
    let (family, kind) = (family(isa), TileKind::F32);
    (1..=2u8).flat_map(move |vectors| {
        (1..=max_rows(family, kind, vectors)).flat_map(move |rows| {
            [(true, false), (true, true), (false, false), (false, true)].map(|(unit_k, ahead)| TileKey {
                family,
                kind,
                rows,
                vectors,
                unit_k,
                ahead,
            })
        })
    })
}

fn family(isa: Isa) -> TileFamily {
    match isa {
        Isa::Avx2 => TileFamily::Avx2,
        Isa::Avx512 => TileFamily::Avx512,
    }
}

/// Numbers in -1..1 that look random and do not change.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// One problem: extents, and strides in elements.
#[derive(Clone, Copy, Debug)]
struct Case {
    k: i64,
    blocks: [i64; 2],
    row: i64,
    step: i64,
    block: [i64; 2],
}

const CASES: [Case; 7] = [
    // A plain matrix, a single step, no step, no block of either kind.
    Case {
        k: 13,
        blocks: [1, 1],
        row: 19,
        step: 1,
        block: [0, 0],
    },
    Case {
        k: 1,
        blocks: [1, 1],
        row: 3,
        step: 1,
        block: [0, 0],
    },
    Case {
        k: 0,
        blocks: [2, 2],
        row: 8,
        step: 1,
        block: [4, 4],
    },
    Case {
        k: 3,
        blocks: [0, 2],
        row: 8,
        step: 1,
        block: [4, 4],
    },
    Case {
        k: 3,
        blocks: [2, 0],
        row: 8,
        step: 1,
        block: [4, 4],
    },
    // A window of a convolution: rows overlap, blocks go down and across.
    Case {
        k: 7,
        blocks: [3, 3],
        row: 14,
        step: 1,
        block: [70, 7],
    },
    // Everything runs backwards.
    Case {
        k: 8,
        blocks: [2, 3],
        row: -11,
        step: 1,
        block: [-29, -13],
    },
];

/// Where A starts in its buffer, so that negative strides stay inside.
const ORIGIN: i64 = 600;

/// What the kernels run on: elements of A, the packed B, and C as it was, in rows of [`PANEL`].
struct Data {
    a: Vec<f32>,
    b: Vec<f32>,
    old: Vec<f32>,
}

impl Data {
    fn new(seed: u32) -> Data {
        Data {
            a: numbers(2000, seed),
            b: numbers(128 * PANEL, seed + 1),
            old: numbers(28 * PANEL, seed + 2),
        }
    }
}

/// The sums of `rows` by `cols`: chains of f32 fused multiply-add, held against f64.
fn reference(case: &Case, Data { a, b, .. }: &Data, rows: usize, cols: usize) -> Vec<Vec<f32>> {
    let sum = |r: usize, j: usize| {
        let (mut chain, mut exact, mut magnitude, mut step) = (0f32, 0f64, 0f64, 0);
        for b0 in 0..case.blocks[0] {
            for b1 in 0..case.blocks[1] {
                for k in 0..case.k {
                    let at = ORIGIN + b0 * case.block[0] + b1 * case.block[1] + r as i64 * case.row + k * case.step;
                    let (x, y) = (a[at as usize], b[step * PANEL + j]);
                    chain = x.mul_add(y, chain);
                    exact += f64::from(x) * f64::from(y);
                    magnitude += (f64::from(x) * f64::from(y)).abs();
                    step += 1;
                }
            }
        }
        assert!((f64::from(chain) - exact).abs() <= 1e-6 * magnitude * (1.0 + step as f64 / 64.0));
        chain
    };
    (0..rows).map(|r| (0..cols).map(|j| sum(r, j)).collect()).collect()
}

const C_ROW: usize = 133;
const UNTOUCHED: f32 = -77.25;

/// Runs the kernel over `old`, with a margin around the tile that must stay as it was, and gives back the tile.
fn run(code: &Code, key: TileKey, case: &Case, data: &Data, cols: usize, acc: bool) -> Vec<f32> {
    let Data { a, b, old } = data;
    let rows = usize::from(key.rows);
    let mut c = vec![UNTOUCHED; (rows + 2) * C_ROW];
    for r in 0..rows {
        let at = (r + 1) * C_ROW + 2;
        c[at..at + cols].copy_from_slice(&old[r * PANEL..r * PANEL + cols]);
    }
    let args = TileArgs {
        a: a[ORIGIN as usize..].as_ptr().cast(),
        b: b.as_ptr().cast(),
        c: c[C_ROW + 2..].as_mut_ptr().cast(),
        a_row: case.row * 4,
        // A kernel for contiguous steps must not look at this.
        a_k: if key.unit_k { 1 << 40 } else { case.step * 4 },
        c_row: C_ROW as i64 * 4,
        k: case.k,
        blocks0: case.blocks[0],
        a_block0: case.block[0] * 4,
        blocks1: case.blocks[1],
        a_block1: case.block[1] * 4,
        cols: cols as i64,
        accumulate: i64::from(acc),
        scratch: std::ptr::null_mut(),
        // Nothing is there, and nothing is read there.
        ahead: std::ptr::null(),
        ahead_step: 64,
        ..TileArgs::NONE
    };
    // SAFETY: the bytes are the kernel of `key`, this CPU has its level, and the cases keep every address in its buffer.
    unsafe { code.call(&args) };
    let inside = |i: usize| (1..=rows).contains(&(i / C_ROW)) && (2..2 + cols).contains(&(i % C_ROW));
    for (i, value) in c.iter().enumerate() {
        assert!(
            inside(i) || *value == UNTOUCHED,
            "{}: element {i} outside the tile was written",
            symbol(key)
        );
    }
    (0..rows)
        .flat_map(|r| c[(r + 1) * C_ROW + 2..][..cols].to_vec())
        .collect()
}

fn same(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
}

#[test]
fn every_kernel_equals_a_chain_of_fused_multiply_adds() {
    let data = Data::new(1);
    for isa in levels() {
        for key in kernels(isa) {
            let code = Code::new(&assemble_tile(key).unwrap());
            let cases = CASES.into_iter().map(|case| Case {
                step: if key.unit_k { 1 } else { -3 },
                ..case
            });
            for case in cases {
                let (rows, width) = (usize::from(key.rows), key.width());
                let sums = reference(&case, &data, rows, width);
                for cols in [1, width / 2, width / 2 + 1, width - 1, width] {
                    for acc in [false, true] {
                        let got = run(&code, key, &case, &data, cols, acc);
                        for (i, got) in got.iter().enumerate() {
                            let (r, j) = (i / cols, i % cols);
                            let want = if acc {
                                sums[r][j] + data.old[r * PANEL + j]
                            } else {
                                sums[r][j]
                            };
                            assert!(
                                same(*got, want),
                                "{} {case:?} C[{r}][{j}]: {got}, not {want}",
                                symbol(key)
                            );
                        }
                    }
                }
            }
        }
    }
}

/// One row of C over whole panels, each of which starts where the steps of the one before end.
#[test]
fn a_row_over_several_panels_equals_each_of_them() {
    let case = Case {
        k: 5,
        blocks: [2, 3],
        row: 0,
        step: 1,
        block: [-70, 9],
    };
    let (steps, data) = (5 * 2 * 3, Data::new(9));
    for isa in levels() {
        for vectors in (PANEL / isa.lanes()..=usize::from(MOST_VECTORS)).step_by(PANEL / isa.lanes()) {
            for unit_k in [true, false] {
                let key = TileKey {
                    family: family(isa),
                    kind: TileKind::F32,
                    rows: 1,
                    vectors: vectors as u8,
                    unit_k,
                    ahead: false,
                };
                let code = Code::new(&assemble_tile(key).unwrap());
                let case = Case {
                    step: if unit_k { 1 } else { -3 },
                    ..case
                };
                let panels = data.b.chunks(steps * PANEL).take(key.width() / PANEL);
                let sums: Vec<f32> = panels
                    .flat_map(|b| {
                        let panel = Data {
                            a: data.a.clone(),
                            b: b.to_vec(),
                            old: vec![],
                        };
                        reference(&case, &panel, 1, PANEL).remove(0)
                    })
                    .collect();
                for acc in [false, true] {
                    let got = run(&code, key, &case, &data, key.width(), acc);
                    for (j, (got, sum)) in got.iter().zip(&sums).enumerate() {
                        let want = if acc { sum + data.old[j] } else { *sum };
                        assert!(same(*got, want), "{} C[{j}]: {got}, not {want}", symbol(key));
                    }
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_go_where_they_belong() {
    let case = Case {
        k: 5,
        blocks: [1, 1],
        row: 9,
        step: 1,
        block: [0, 0],
    };
    let mut data = Data::new(4);
    let Data { a, b, .. } = &mut data;
    a[ORIGIN as usize + 9 + 2] = f32::INFINITY;
    b[3 * PANEL + 4] = f32::NAN;
    b[PANEL + 2] = f32::NEG_INFINITY;
    b[2 * PANEL + 6] = 0.0;
    let Data { a, b, .. } = &data;
    for isa in levels() {
        for key in kernels(isa).filter(|key| key.rows > 1) {
            let code = Code::new(&assemble_tile(key).unwrap());
            let cols = key.width() - 1;
            let got = run(&code, key, &case, &data, cols, false);
            for (i, got) in got.iter().enumerate() {
                let (r, j) = (i / cols, i % cols);
                let want = (0..5).fold(0f32, |sum, k| {
                    a[ORIGIN as usize + r * 9 + k].mul_add(b[k * PANEL + j], sum)
                });
                assert!(same(*got, want), "{} C[{r}][{j}]: {got}, not {want}", symbol(key));
            }
            let row = |r: usize| &got[r * cols..][..cols];
            assert!(row(0)[4].is_nan() && row(1)[4].is_nan() && row(1)[6].is_nan());
            assert!(row(0)[2].is_infinite() && row(1)[1].is_infinite() && row(0)[1].is_finite());
        }
    }
}

#[test]
fn levels_agree_bit_for_bit() {
    if levels().len() < 2 {
        println!("skipped: one level to compare with nothing");
        return;
    }
    let data = Data::new(7);
    for unit_k in [true, false] {
        let narrow = TileKey {
            family: TileFamily::Avx2,
            kind: TileKind::F32,
            rows: 6,
            vectors: 2,
            unit_k,
            ahead: false,
        };
        let wide = TileKey {
            family: TileFamily::Avx512,
            kind: TileKind::F32,
            rows: 6,
            vectors: 1,
            unit_k,
            ahead: false,
        };
        let tile = |key: TileKey| {
            let code = Code::new(&assemble_tile(key).unwrap());
            let bits = |x: f32| x.to_bits();
            run(&code, key, &CASES[5], &data, 16, true)
                .into_iter()
                .map(bits)
                .collect::<Vec<u32>>()
        };
        assert_eq!(tile(narrow), tile(wide));
    }
}

#[test]
fn assembling_twice_gives_the_same_bytes() {
    for key in Isa::ALL.into_iter().flat_map(kernels) {
        assert_eq!(assemble_tile(key).unwrap(), assemble_tile(key).unwrap());
    }
}

/// A small map body: `out[i] = max(min((x[i] - y[i]) * x[i] + x[i], y[i]), 0)` over a buffer, with a tail.
#[test]
fn a_map_over_a_buffer_runs() {
    #[repr(C)]
    struct Args {
        x: *const f32,
        y: *const f32,
        out: *mut f32,
        count: i64,
    }
    let build = |isa: Isa| {
        let mut f = Function::new("map", isa);
        let args = f.param();
        let [x, y, out, left] = [0, 8, 16, 24].map(|offset| f.load_general(Mem::at(args, offset)));
        let offset = f.general();
        f.push(Op::Imm { dst: offset, value: 0 });
        let zero = f.zero();
        let (ty, lanes) = (f.whole(Elem::F32), isa.lanes() as i32);
        let body = |f: &mut Function, mask| {
            let a = f.load(ty, Mem::indexed(x, offset, 1, 0), mask);
            let b = f.load(ty, Mem::indexed(y, offset, 1, 0), mask);
            let d = f.binary(Binary::Sub, ty, a, Operand::Reg(b));
            let m = f.binary(Binary::Mul, ty, d, Operand::Reg(a));
            let s = f.binary(Binary::Add, ty, m, Operand::Reg(a));
            let low = f.binary(Binary::Min, ty, s, Operand::Reg(b));
            let high = f.binary(Binary::Max, ty, low, Operand::Reg(zero));
            f.push(Op::Store {
                ty,
                mem: Mem::indexed(out, offset, 1, 0),
                src: high,
                mask,
            });
            f.general_op(GeneralOp::Add, offset, Scalar::Imm(4 * lanes));
        };
        f.counted_loop(left, lanes, |f| body(f, None));
        let done = f.label();
        f.branch(Cond::Eq, left, Scalar::Imm(0), done);
        let mask = f.first_lanes(left, 0);
        body(&mut f, Some(mask));
        f.place(done);
        f.push(Op::Return);
        f
    };
    let (x, y) = (numbers(100, 10), numbers(100, 11));
    for isa in levels() {
        let code = Code::new(&assemble(&build(isa)).unwrap());
        for count in 0..100 {
            let mut out = vec![UNTOUCHED; 100];
            let args = Args {
                x: x.as_ptr(),
                y: y.as_ptr(),
                out: out.as_mut_ptr(),
                count: count as i64,
            };
            // SAFETY: the function reads and writes `count` elements of buffers of 100, and this CPU has its level.
            unsafe { code.call(&args) };
            for i in 0..100 {
                let value = ((x[i] - y[i]) * x[i] + x[i]).min(y[i]).max(0.0);
                assert_eq!(
                    out[i],
                    if i < count { value } else { UNTOUCHED },
                    "{isa} {i} of {count}"
                );
            }
        }
    }
}

#[test]
fn a_function_that_keeps_many_pointers_restores_what_it_used() {
    // Twelve general registers live at once: callee-saved ones among them. The sum of 1..=12 comes out, and the caller's
    // own registers are as they were, or this loop would go astray.
    let mut f = Function::new("sum", Isa::Avx2);
    let args = f.param();
    let values: Vec<_> = (0..12).map(|i| f.load_general(Mem::at(args, 8 * i))).collect();
    for value in &values[1..] {
        f.general_op(GeneralOp::Add, values[0], Scalar::Reg(*value));
    }
    let index = f.general();
    f.push(Op::Imm { dst: index, value: 0 });
    // There is no store of a general register: count up to the sum by adding ones to a float.
    let ty = f.whole(Elem::F32);
    let one = f.broadcast(ty, Mem::at(args, 96));
    let total = f.zero();
    f.counted_loop(values[0], 1, |f| {
        f.push(Op::Binary {
            op: Binary::Add,
            ty,
            dst: total,
            a: total,
            b: Operand::Reg(one),
        })
    });
    f.push(Op::Store {
        ty,
        mem: Mem::indexed(args, index, 8, 100),
        src: total,
        mask: None,
    });
    f.push(Op::Return);
    if !Isa::Avx2.available() {
        println!("skipped: this CPU has no avx2");
        return;
    }
    let code = Code::new(&assemble(&f).unwrap());
    for round in 0..50i64 {
        let mut bytes = [0u8; 132];
        for i in 0..12 {
            bytes[8 * i..][..8].copy_from_slice(&(i as i64 + 1 + round).to_le_bytes());
        }
        bytes[96..100].copy_from_slice(&1f32.to_le_bytes());
        // SAFETY: the function reads 100 bytes and writes the 32 after them; the CPU has AVX2.
        unsafe { code.call(bytes.as_mut_ptr().cast_const()) };
        let lane = f32::from_le_bytes(bytes[100..104].try_into().unwrap());
        assert_eq!(lane, (78 + 12 * round) as f32);
    }
}
