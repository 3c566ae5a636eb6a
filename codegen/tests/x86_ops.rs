//! Typed operations of the x86 vector IR: each assembled, read back by a disassembler of somebody else's, and run.

#![cfg(target_arch = "x86_64")]

use brolga_codegen::x86::vir::{
    Binary, Comparison, Cond, Dot, Elem, Function, G, K, Level, Logic, Mem, Op, Operand, Scalar, Shift, Type, Unary, V,
};
use brolga_codegen::x86::{Isa, assemble, disassemble};
use expect_test::expect;
use memmap2::MmapMut;

/// What a function of a pointer leaves in 512 bytes.
fn run(f: &Function, memory: &mut [u8; 512]) {
    let bytes = assemble(f).unwrap_or_else(|e| panic!("{e}\n{f}"));
    let mut map = MmapMut::map_anon(bytes.len()).unwrap();
    map.copy_from_slice(&bytes);
    let map = map.make_exec().unwrap();
    // SAFETY: the tests' functions take a pointer to 512 bytes, and stay inside; this CPU has their level.
    let function: extern "sysv64" fn(*mut u8) = unsafe { std::mem::transmute(map.as_ptr()) };
    function(memory.as_mut_ptr());
}

fn levels() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available())
}

fn f32s(memory: &[u8]) -> Vec<f32> {
    memory
        .chunks(4)
        .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
        .collect()
}

fn store(f: &mut Function, ty: Type, p: G, at: i32, src: V) {
    let mem = Mem::at(p, at);
    f.push(Op::Store {
        ty,
        mem,
        src,
        mask: None,
    });
}

/// The instructions between entry and return, without their offsets.
fn listing(isa: Isa, build: impl FnOnce(&mut Function, G)) -> String {
    let mut f = Function::new("f", isa);
    let p = f.param();
    build(&mut f, p);
    f.push(Op::Return);
    let text = disassemble(&assemble(&f).unwrap_or_else(|e| panic!("{e}\n{f}")));
    let lines = text.lines().map(|l| &l[6..]).take_while(|l| *l != "vzeroupper");
    lines.map(|l| format!("{l}\n")).collect()
}

/// One of every operation of two sources that the level has, by element type.
fn all_binary(f: &mut Function, p: G) {
    use Binary::*;
    use Elem::*;
    let table: [(Binary, &[Elem]); 10] = [
        (Add, &[I8, I16, I32, I64, F32, F64]),
        (Sub, &[I8, I16, I32, I64, F32, F64]),
        (Mul, &[I16, I32, F32, F64]),
        (Div, &[F32, F64]),
        (Min, &[I8, U8, I16, U16, I32, U32, F32, F64]),
        (Max, &[I8, U8, I16, U16, I32, U32, F32, F64]),
        (AndNot, &[I32, I64]),
        (Shl, &[I32, I64]),
        (Shr, &[I32, U32, U64]),
        (PairSum, &[I16]),
    ];
    for (op, elems) in table {
        for elem in elems {
            let ty = f.whole(*elem);
            let a = f.load(ty, Mem::at(p, 64), None);
            f.binary(op, ty, a, Operand::Mem(Mem::at(p, 128)));
        }
    }
}

#[test]
fn operations_of_two_sources_are_these() {
    let without_loads = |isa| {
        let text = listing(isa, all_binary);
        let kept = text.lines().filter(|l| !l.starts_with("vmovup"));
        let words: Vec<&str> = kept.map(|l| l.split(' ').next().unwrap()).collect();
        words.join(" ")
    };
    expect![["vpaddb vpaddw vpaddd vpaddq vaddps vaddpd vpsubb vpsubw vpsubd vpsubq vsubps vsubpd vpmullw vpmulld vmulps vmulpd vdivps vdivpd vpminsb vpminub vpminsw vpminuw vpminsd vpminud vminps vminpd vpmaxsb vpmaxub vpmaxsw vpmaxuw vpmaxsd vpmaxud vmaxps vmaxpd vpandn vpandn vpsllvd vpsllvq vpsravd vpsrlvd vpsrlvq vpmaddwd"]]
        .assert_eq(&without_loads(Isa::Avx2));
    expect![["vpaddb vpaddw vpaddd vpaddq vaddps vaddpd vpsubb vpsubw vpsubd vpsubq vsubps vsubpd vpmullw vpmulld vmulps vmulpd vdivps vdivpd vpminsb vpminub vpminsw vpminuw vpminsd vpminud vminps vminpd vpmaxsb vpmaxub vpmaxsw vpmaxuw vpmaxsd vpmaxud vmaxps vmaxpd vpandnd vpandnq vpsllvd vpsllvq vpsravd vpsrlvd vpsrlvq vpmaddwd"]]
        .assert_eq(&without_loads(Isa::Avx512));
}

#[test]
fn dot_products_are_these() {
    let text = listing(Isa::Avx512, |f, p| {
        let acc = f.zero();
        for (op, elem) in [(Dot::U8I8, Elem::I32), (Dot::I16, Elem::I32), (Dot::Brain, Elem::F32)] {
            let ty = f.whole(elem);
            let a = f.load(ty, Mem::at(p, 64), None);
            let b = Operand::Broadcast(Mem::at(p, 4));
            f.push(Op::Dot { op, ty, acc, a, b });
        }
    });
    expect![[r#"
        vpxord %zmm0,%zmm0,%zmm0
        vmovups 0x40(%rdi),%zmm1
        vpdpbusd 4(%rdi){1to16},%zmm1,%zmm0
        vmovups 0x40(%rdi),%zmm1
        vpdpwssd 4(%rdi){1to16},%zmm1,%zmm0
        vmovups 0x40(%rdi),%zmm1
        vdpbf16ps 4(%rdi){1to16},%zmm1,%zmm0
    "#]]
    .assert_eq(&text);
}

/// Every conversion of lanes, by what follows from Rust's own.
#[test]
fn conversions_convert() {
    use Elem::*;
    type Expected = fn(f64) -> f64;
    let same: Expected = |x| x;
    let cases: [(Elem, Elem, bool, Expected); 27] = [
        (I8, I16, false, same),
        (I8, I32, false, same),
        (U8, I32, false, same),
        (I8, I64, false, same),
        (I16, I32, false, same),
        (U16, I32, false, same),
        (I32, I64, false, same),
        (U32, I64, false, same),
        (I32, I8, false, |x| f64::from(x as i32 as i8)),
        (I32, I16, false, |x| f64::from(x as i32 as i16)),
        (I64, I32, false, |x| f64::from(x as i64 as i32)),
        (F32, F64, false, same),
        (F64, F32, false, |x| f64::from(x as f32)),
        (I32, F32, false, |x| f64::from(x as f32)),
        (I32, F64, false, same),
        (F32, I32, false, |x| x.trunc()),
        (F64, I32, false, |x| x.trunc()),
        (U32, F32, true, |x| f64::from(x as f32)),
        (U32, F64, true, same),
        (F32, U32, true, |x| x.trunc()),
        (I64, F64, true, same),
        (I64, F32, true, |x| f64::from(x as f32)),
        (U64, F32, true, |x| f64::from(x as f32)),
        (F64, I64, true, |x| x.trunc()),
        (F32, I64, true, |x| x.trunc()),
        (F64, U64, true, |x| x.trunc()),
        (F32, U64, true, |x| x.trunc()),
    ];
    let put = |e: Elem, x: f64| -> Vec<u8> {
        match e {
            F16 => unreachable!("not among the cases"),
            F32 => (x as f32).to_le_bytes().to_vec(),
            F64 => x.to_le_bytes().to_vec(),
            _ => (x as i64).to_le_bytes()[..e.bytes() as usize].to_vec(),
        }
    };
    let values = [
        0.0, 1.0, 2.0, 100.0, 77.5, 3.75, 120.0, 64.0, 5.5, 99.0, 31.0, 7.0, 8.0, 9.5, 126.0, 127.0,
    ];
    for isa in levels() {
        for (from, to, only_evex, expected) in cases {
            if only_evex && !isa.is_evex() {
                continue;
            }
            for lanes in [4u8, 8, 16] {
                let (a, b) = (from.by(lanes), to.by(lanes));
                if a.bytes().max(b.bytes()) > isa.bytes()
                    || a.bytes().min(b.bytes()) < 4
                    || a.bits().max(b.bits()) < 128
                {
                    continue;
                }
                let mut f = Function::new("convert", isa);
                let p = f.param();
                let v = f.load(a, Mem::at(p, 0), None);
                let r = f.convert(a, to, Operand::Reg(v));
                store(&mut f, b, p, 256, r);
                f.push(Op::Return);
                let mut memory = [0; 512];
                let negative = !from.is_unsigned() && !to.is_unsigned();
                let signed = |(i, x): (usize, &f64)| if negative && i % 2 == 1 { -*x } else { *x };
                let inputs: Vec<f64> = values.iter().enumerate().map(signed).collect();
                let inputs: Vec<f64> = inputs
                    .iter()
                    .map(|x| if from.is_float() { *x } else { x.trunc() })
                    .collect();
                for (i, x) in inputs.iter().enumerate().take(usize::from(lanes)) {
                    let bytes = put(from, *x);
                    memory[i * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
                }
                run(&f, &mut memory);
                let want: Vec<u8> = inputs
                    .iter()
                    .take(usize::from(lanes))
                    .flat_map(|x| put(to, expected(*x)))
                    .collect();
                assert_eq!(memory[256..][..want.len()], want, "{isa}: {a} to {}", to.name());
            }
        }
    }
}

#[test]
fn lanes_rotate_join_and_part() {
    for isa in levels() {
        for elem in [Elem::I32, Elem::I64] {
            let bytes = elem.bytes() as usize;
            for lanes in [4u8, 8, 16] {
                let ty = elem.by(lanes);
                if ty.bytes() > isa.bytes() || ty.bytes() < 16 {
                    continue;
                }
                for by in 0..lanes {
                    let mut f = Function::new("rotate", isa);
                    let p = f.param();
                    let src = f.load(ty, Mem::at(p, 0), None);
                    let (dst, scratch) = (f.vector(), f.vector());
                    f.push(Op::Rotate {
                        ty,
                        dst,
                        src,
                        by,
                        scratch,
                    });
                    store(&mut f, ty, p, 256, dst);
                    let half = elem.by(lanes / 2);
                    let (high, joined) = (f.vector(), f.vector());
                    f.push(Op::High {
                        ty: half,
                        dst: high,
                        src,
                    });
                    f.push(Op::Join {
                        ty: half,
                        dst: joined,
                        low: high,
                        high: src,
                    });
                    store(&mut f, ty, p, 384, joined);
                    f.push(Op::Return);
                    let mut memory: [u8; 512] = std::array::from_fn(|i| i as u8);
                    let before = memory;
                    run(&f, &mut memory);
                    let lane = |i: usize| &before[i * bytes..][..bytes];
                    let n = usize::from(lanes);
                    for i in 0..n {
                        let at = |first: usize| &memory[first + i * bytes..][..bytes];
                        assert_eq!(at(256), lane((i + usize::from(by)) % n), "{isa} {ty} by {by}");
                        assert_eq!(at(384), lane((i + n / 2) % n), "{isa} {ty}");
                    }
                }
            }
        }
    }
}

#[test]
fn lanes_and_blocks_are_put_together() {
    for isa in levels() {
        for bytes in [16u32, 32, 64].into_iter().filter(|b| *b <= isa.bytes()) {
            for elem in [Elem::U8, Elem::U16, Elem::I32, Elem::I64] {
                for high in [false, true] {
                    let ty = elem.by((bytes / elem.bytes()) as u8);
                    let mut f = Function::new("interleave", isa);
                    let p = f.param();
                    let (a, b) = (f.load(ty, Mem::at(p, 0), None), f.load(ty, Mem::at(p, 64), None));
                    let dst = f.vector();
                    f.push(Op::Interleave { ty, dst, a, b, high });
                    store(&mut f, ty, p, 256, dst);
                    f.push(Op::Return);
                    let mut memory: [u8; 512] = std::array::from_fn(|i| i as u8);
                    run(&f, &mut memory);
                    let width = elem.bytes() as usize;
                    for i in 0..usize::from(ty.lanes) {
                        let (block, within) = (i * width / 16, i % (16 / width));
                        let lane = block * 16 / width + within / 2 + if high { 8 / width } else { 0 };
                        let from = lane * width + if within % 2 == 1 { 64 } else { 0 };
                        let want: Vec<u8> = (from..from + width).map(|i| i as u8).collect();
                        assert_eq!(memory[256 + i * width..][..width], want, "{isa}: lane {i} of {ty}");
                    }
                }
            }
            if bytes == 16 {
                continue;
            }
            let ty = Elem::I32.by((bytes / 4) as u8);
            let blocks = bytes as usize / 16;
            for picked in 0..blocks.pow(4) {
                let pick: [u8; 4] = std::array::from_fn(|i| (picked / blocks.pow(i as u32) % blocks) as u8);
                let mut f = Function::new("blocks", isa);
                let p = f.param();
                let (a, b) = (f.load(ty, Mem::at(p, 0), None), f.load(ty, Mem::at(p, 64), None));
                let dst = f.vector();
                f.push(Op::Blocks { ty, dst, a, b, pick });
                store(&mut f, ty, p, 256, dst);
                f.push(Op::Return);
                let mut memory: [u8; 512] = std::array::from_fn(|i| i as u8);
                run(&f, &mut memory);
                for (i, p) in pick.into_iter().take(blocks).enumerate() {
                    let from = usize::from(p) * 16 + if i < blocks / 2 { 0 } else { 64 };
                    let want: Vec<u8> = (from..from + 16).map(|i| i as u8).collect();
                    assert_eq!(memory[256 + 16 * i..][..16], want, "{isa}: block {i} of {pick:?}");
                }
            }
        }
    }
}

/// Masks of every way to make one, told apart by what they select.
#[test]
fn masks_select() {
    for isa in levels() {
        let mut f = Function::new("masks", isa);
        let p = f.param();
        let ty = Elem::I32.by(8);
        let a = f.load(ty, Mem::at(p, 0), None);
        let b = f.load(ty, Mem::at(p, 32), None);
        let less = f.compare(Comparison::Lt, ty, a, Operand::Reg(b));
        let equal = f.compare(Comparison::Eq, ty, a, Operand::Mem(Mem::at(p, 32)));
        let fill = |f: &mut Function, all| {
            let dst = f.mask();
            f.push(Op::FillMask { dst, all });
            dst
        };
        let (all, none) = (fill(&mut f, true), fill(&mut f, false));
        let either = f.logic(Logic::Or, less, equal);
        let not = f.logic(Logic::AndNot, either, all);
        let splat = |f: &mut Function, value| {
            let (src, dst) = (f.general(), f.mask());
            f.push(Op::Imm { dst: src, value });
            f.push(Op::SplatMask { dst, src });
            dst
        };
        let (yes, no) = (splat(&mut f, 7), splat(&mut f, 0));
        let masks = [less, equal, all, none, either, not, yes, no];
        let mut at = 64;
        let (zero, one) = (f.zero(), f.constant_register(ty, 1));
        for mask in masks {
            let v = f.select(ty, mask, one, zero);
            store(&mut f, ty, p, at, v);
            at += 32;
        }
        // Halves as masks of lanes twice as wide, and whole again.
        let halves = [false, true].map(|high| {
            let dst = f.mask();
            f.push(Op::HalfMask {
                dst,
                src: less,
                high,
                lanes: 4,
            });
            dst
        });
        let wide = Elem::I64.by(4);
        let one = f.constant_register(wide, 1);
        for mask in halves {
            let v = f.select(wide, mask, one, zero);
            store(&mut f, wide, p, at, v);
            at += 32;
        }
        let taken = f.label();
        f.push(Op::BranchNone { mask: none, to: taken });
        store(&mut f, ty, p, 64, zero);
        f.place(taken);
        let done = f.label();
        f.push(Op::BranchNone { mask: less, to: done });
        f.push(Op::Prefetch {
            mem: Mem::at(p, 0),
            into: Level::L1,
        });
        store(&mut f, ty, p, at, a);
        f.place(done);
        f.push(Op::Return);
        let mut memory = [0; 512];
        let numbers: [[i32; 8]; 2] = [[1, -5, 7, 4, 9, 2, 2, -8], [2, -5, 3, 4, 10, -2, 3, 8]];
        for (i, x) in numbers.iter().flatten().enumerate() {
            memory[4 * i..][..4].copy_from_slice(&x.to_le_bytes());
        }
        run(&f, &mut memory);
        let [x, y] = numbers;
        let words = |at: usize| -> [i32; 8] {
            std::array::from_fn(|i| i32::from_le_bytes(memory[at + 4 * i..][..4].try_into().unwrap()))
        };
        let expected: [fn(i32, i32) -> bool; 8] = [
            |x, y| x < y,
            |x, y| x == y,
            |_, _| true,
            |_, _| false,
            |x, y| x <= y,
            |x, y| x > y,
            |_, _| true,
            |_, _| false,
        ];
        for (i, holds) in expected.iter().enumerate() {
            let want: [i32; 8] = std::array::from_fn(|l| i32::from(holds(x[l], y[l])));
            assert_eq!(words(64 + 32 * i), want, "{isa}: mask {i}");
        }
        for high in 0..2 {
            let wide = words(320 + 32 * high);
            let want: Vec<i32> = (0..4).map(|l| i32::from(x[4 * high + l] < y[4 * high + l])).collect();
            assert_eq!([wide[0], wide[2], wide[4], wide[6]], want[..], "{isa}: half {high}");
        }
        assert_eq!(words(384), x, "{isa}: the branch was not to be taken");
    }
}

#[test]
fn masks_of_halves_join() {
    for isa in levels() {
        let lanes = if isa.is_evex() { 8 } else { 4 };
        let mut f = Function::new("join", isa);
        let p = f.param();
        let wide = Elem::I64.by(lanes);
        let half = |f: &mut Function, at: i32| {
            let a = f.load(wide, Mem::at(p, at), None);
            let zero = f.zero();
            f.compare(Comparison::Lt, wide, zero, Operand::Reg(a))
        };
        let (low, high) = (half(&mut f, 0), half(&mut f, wide.bytes() as i32));
        let dst = f.mask();
        f.push(Op::JoinMask { dst, low, high, lanes });
        let ty = Elem::I32.by(2 * lanes);
        let (zero, one) = (f.zero(), f.constant_register(ty, 1));
        let v = f.select(ty, dst, one, zero);
        store(&mut f, ty, p, 256, v);
        f.push(Op::Return);
        let mut memory = [0; 512];
        let numbers: Vec<i64> = (0..2 * i64::from(lanes))
            .map(|i| if i % 3 == 0 { i + 1 } else { -i })
            .collect();
        for (i, x) in numbers.iter().enumerate() {
            memory[8 * i..][..8].copy_from_slice(&x.to_le_bytes());
        }
        run(&f, &mut memory);
        for (i, x) in numbers.iter().enumerate() {
            assert_eq!(memory[256 + 4 * i], u8::from(*x > 0), "{isa}: lane {i}");
        }
    }
}

#[test]
fn gathers_take_lanes_under_the_mask() {
    for isa in levels() {
        for wide in [false, true] {
            let lanes = if wide { isa.bytes() as u8 / 8 } else { 8 };
            let mut f = Function::new("gather", isa);
            let p = f.param();
            let ty = Elem::F32.by(lanes);
            let indices = if wide { Elem::I64.by(lanes) } else { Elem::I32.by(lanes) };
            let index = f.load(indices, Mem::at(p, 0), None);
            let count = f.general();
            f.push(Op::Imm { dst: count, value: 3 });
            let mask: K = f.first_lanes(count, 0);
            let dst = f.vector();
            f.push(Op::Gather {
                ty,
                dst,
                mem: Mem::at(p, 128),
                index,
                scale: 4,
                wide,
                mask,
            });
            store(&mut f, ty, p, 64 + 192, dst);
            f.push(Op::Return);
            let mut memory = [0; 512];
            for i in 0..usize::from(lanes) {
                let bytes = indices.elem.bytes() as usize;
                memory[i * bytes] = (i * i % 11) as u8;
            }
            for i in 0..16usize {
                memory[128 + 4 * i..][..4].copy_from_slice(&(i as f32).to_le_bytes());
            }
            run(&f, &mut memory);
            let got = f32s(&memory[256..256 + 4 * usize::from(lanes)]);
            for (i, x) in got.iter().enumerate() {
                assert_eq!(*x, if i < 3 { (i * i % 11) as f32 } else { 0.0 }, "{isa}, wide {wide}");
            }
        }
    }
}

#[test]
fn lanes_are_inserted_from_memory() {
    for isa in levels() {
        let mut f = Function::new("insert", isa);
        let p = f.param();
        for (elem, lanes, to) in [(Elem::F32, 4u8, 256), (Elem::F64, 2, 272)] {
            let ty = elem.by(lanes);
            let mut v = f.load(elem.by(1), Mem::at(p, 0), None);
            for lane in 1..lanes {
                let (src, dst) = (v, f.vector());
                let mem = Mem::at(p, 24 * i32::from(lane));
                f.push(Op::Insert {
                    ty,
                    dst,
                    src,
                    mem,
                    lane,
                });
                v = dst;
            }
            store(&mut f, ty, p, to, v);
        }
        f.push(Op::Return);
        let mut memory: [u8; 512] = std::array::from_fn(|i| i as u8);
        run(&f, &mut memory);
        for lane in 0..4 {
            assert_eq!(memory[256 + 4 * lane], 24 * lane as u8, "{isa}");
        }
        assert_eq!([memory[272], memory[280], memory[287]], [0, 24, 31], "{isa}");
    }
}

/// Products and sums in every order of registers and memory, many more live than there are registers.
#[test]
fn products_and_sums_with_many_values() {
    for isa in levels() {
        let mut f = Function::new("many", isa);
        let p = f.param();
        let ty = f.whole(Elem::F32);
        let values: Vec<V> = (0..48).map(|i| f.broadcast(ty, Mem::at(p, 4 * i))).collect();
        let mut sum = f.zero();
        for (i, v) in values.iter().enumerate() {
            let (w, mem) = (values[(i + 7) % 48], Operand::Mem(Mem::at(p, 256)));
            let dst = f.vector();
            let (b, c) = match i % 3 {
                0 => (Operand::Reg(w), Operand::Reg(sum)),
                1 => (mem, Operand::Reg(sum)),
                _ => (Operand::Reg(sum), mem),
            };
            f.push(Op::MulAdd { ty, dst, a: *v, b, c });
            sum = f.binary(Binary::Min, ty, dst, Operand::Reg(w));
        }
        store(&mut f, ty, p, 384, sum);
        f.push(Op::Return);
        let mut memory = [0; 512];
        let input: Vec<f32> = (0..96).map(|i| ((i * 37) % 19) as f32 * 0.25 - 1.0).collect();
        for (i, x) in input.iter().enumerate() {
            memory[4 * i..][..4].copy_from_slice(&x.to_le_bytes());
        }
        run(&f, &mut memory);
        let got = f32s(&memory[384..384 + isa.bytes() as usize]);
        for (lane, got) in got.iter().enumerate() {
            let mut sum = 0f32;
            for i in 0..48 {
                let (v, w, m) = (input[i], input[(i + 7) % 48], input[64 + lane]);
                let r = match i % 3 {
                    0 => v.mul_add(w, sum),
                    1 => v.mul_add(m, sum),
                    _ => v.mul_add(sum, m),
                };
                sum = r.min(w);
            }
            assert_eq!(*got, sum, "{isa}: lane {lane}");
        }
    }
}

#[test]
fn what_a_level_has_not_is_an_error() {
    let error = |op: fn(&mut Function, V)| {
        let mut f = Function::new("f", Isa::Avx2);
        let v = f.zero();
        op(&mut f, v);
        f.push(Op::Return);
        assemble(&f).unwrap_err().to_string()
    };
    expect!["f: operation 1: `v1 = mul i64x4 v0, v0`: avx2 has no `mul` of i64x4"].assert_eq(&error(|f, v| {
        f.binary(Binary::Mul, Elem::I64.by(4), v, Operand::Reg(v));
    }));
    expect!["f: operation 1: `v1 = convert u32x8 to f32, v0`: avx2 has no conversion of u32x8 to f32"].assert_eq(
        &error(|f, v| {
            f.convert(Elem::U32.by(8), Elem::F32, Operand::Reg(v));
        }),
    );
    expect!["f: operation 1: `v1 = abs i64x4 v0`: avx2 has no `abs` of i64x4"].assert_eq(&error(|f, v| {
        f.unary(Unary::Abs, Elem::I64.by(4), Operand::Reg(v));
    }));
    expect!["f: operation 1: `v1 = shr i64x4 v0, 3`: avx2 has no `shr` of i64x4"].assert_eq(&error(|f, v| {
        let dst = f.vector();
        let (op, ty) = (Shift::Right, Elem::I64.by(4));
        f.push(Op::Shift {
            op,
            ty,
            dst,
            a: v,
            by: 3,
        });
    }));
}

#[test]
fn a_copy_under_a_condition() {
    let mut f = Function::new("min", Isa::Avx2);
    let p = f.param();
    let (a, b) = (f.load_general(Mem::at(p, 0)), f.load_general(Mem::at(p, 8)));
    f.push(Op::CopyIf {
        cond: Cond::Lt,
        a: b,
        b: Scalar::Reg(a),
        dst: a,
        src: b,
    });
    let v = f.vector();
    let ty = Elem::I64.by(4);
    f.push(Op::SplatGeneral { ty, dst: v, src: a });
    store(&mut f, ty, p, 32, v);
    f.push(Op::Return);
    if !Isa::Avx2.available() {
        return;
    }
    for (x, y) in [(3i64, 5i64), (-3, -5), (1 << 40, -1)] {
        let mut memory = [0; 512];
        memory[..8].copy_from_slice(&x.to_le_bytes());
        memory[8..16].copy_from_slice(&y.to_le_bytes());
        run(&f, &mut memory);
        for lane in 0..4 {
            assert_eq!(memory[32 + 8 * lane..][..8], x.min(y).to_le_bytes());
        }
    }
}
