//! Every primitive on every dtype, as scalars and in vector loops, on every level of CPU that runs here, against the
//! evaluator that defines them.

mod common;

use brolga_ir::index::Reg;
use brolga_ir::loops::{Kernel, LoopKind, Scope, Stmt};
use brolga_ir::scalar::{Prim, Scalar, eval_prim};
use brolga_ir::{DType, Target};
use common::*;

/// Operand dtypes of a primitive over `t`; empty where it is not defined.
fn operands(p: Prim, t: DType) -> Vec<DType> {
    let mut x = vec![t; p.arity()];
    if p == Prim::Select {
        x[0] = DType::Bool;
    }
    if p.result(&x).is_ok() { x } else { vec![] }
}

/// Values of a dtype where something special happens.
fn special(d: DType) -> Vec<u64> {
    let mut out: Vec<u64> = match d {
        DType::Bool => vec![0, 1],
        DType::F64 => [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            0.3,
            -0.7,
            3.0,
            1e300,
            -1e300,
            1e-300,
            5e-324,
            -3e-310,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            4503599627370495.5,
            9007199254740993.0,
            127.6,
            -128.5,
            255.9,
            32767.5,
            2147483647.5,
            -2147483649.0,
            4294967295.5,
            9.3e18,
            -9.3e18,
            1.9e19,
            65504.0,
            65520.0,
            6e-8,
            0.1,
            1.0000000000000002,
        ]
        .map(f64::to_bits)
        .to_vec(),
        DType::F32 => [
            0.0f32,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            0.3,
            -0.7,
            3.0,
            1e38,
            -1e38,
            1e-38,
            1e-45,
            -3e-40,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            8388607.5,
            16777216.0,
            127.6,
            -128.5,
            255.9,
            32767.5,
            2147483500.0,
            -2147483904.0,
            4294967000.0,
            9.3e18,
            -9.3e18,
            1.9e19,
            65504.0,
            65520.0,
            6e-8,
            3e-8,
            0.1,
            1.0000001,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            2049.0,
            2051.0,
            6.1e-5,
        ]
        .map(|x| u64::from(x.to_bits()))
        .to_vec(),
        DType::F16 | DType::BF16 => vec![
            0, 0x8000, 0x3c00, 0xbc00, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7e01, 0x3f80, 0x7f80, 0xff80,
            0x7f81, 0x4248, 0x5640, 0xd640, 0x80, 0x7f,
        ],
        _ => {
            let top = 1u64 << (d.bits() - 1);
            let mask = u64::MAX >> (64 - d.bits());
            [
                0,
                1,
                2,
                3,
                7,
                8,
                31,
                32,
                63,
                64,
                100,
                0xaa,
                top,
                top - 1,
                top + 1,
                mask,
                mask - 1,
                mask - 6,
                0x1234_5678_9abc_def0,
                0x8000_0000_0000_0401,
                0x7fff_ffbf_ffff_ffff,
                16777217,
                0xffff_ff80,
            ]
            .map(|x: u64| x & mask)
            .to_vec()
        }
    };
    let mut random = Random(d.bits() as u64);
    let mask = u64::MAX >> (64 - d.bits());
    if d != DType::Bool {
        out.extend((0..40).map(|_| random.next() & mask));
    }
    out
}

/// Operand tuples: every pair of special values, the third operand going round.
fn cases(x: &[DType]) -> Vec<Vec<u64>> {
    let values: Vec<Vec<u64>> = x.iter().map(|d| special(*d)).collect();
    let mut out = vec![];
    for (i, a) in values[0].iter().enumerate() {
        let second = values.get(1).map_or(&[0][..], |v| v);
        for (j, b) in second.iter().enumerate() {
            let mut tuple = vec![*a];
            if x.len() > 1 {
                tuple.push(*b);
            }
            if x.len() > 2 {
                tuple.push(values[2][(7 * i + 3 * j) % values[2].len()]);
            }
            out.push(tuple);
        }
    }
    out
}

/// `out[i] = p(x[i], y[i], z[i])`, with `lanes` lanes; operands in `fixed` are the same on every lane.
fn kernel(p: Prim, x: &[DType], to: DType, lanes: i64, fixed: Option<usize>, n: i64) -> Kernel {
    let mut b = Build::new("prims", &[]);
    let ins: Vec<_> = x.iter().map(|d| b.buffer(*d, n, Scope::In)).collect();
    let out = b.buffer(to, n, Scope::Out);
    let regs: Vec<Reg> = x.iter().map(|d| b.reg(*d)).collect();
    let result = b.reg(to);
    let at = affine(&[(0, lanes.max(1)), (1, 1)], 0);
    let start = affine(&[(0, lanes.max(1))], 0);
    let mut body: Vec<Stmt> = ins
        .iter()
        .zip(&regs)
        .enumerate()
        .map(|(i, (buf, r))| {
            Stmt::Set(
                *r,
                load(*buf, if fixed == Some(i) { start.clone() } else { at.clone() }),
            )
        })
        .collect();
    body.push(Stmt::Set(result, prim(p, &regs)));
    body.push(store(out, at, result));
    let (kind, inner) = if lanes == 0 {
        (LoopKind::Serial, 1)
    } else {
        (LoopKind::Vector, lanes)
    };
    b.k.body = vec![each(0, LoopKind::Serial, n / inner, vec![each(1, kind, inner, body)])];
    b.k
}

fn same(d: DType, a: u64, b: u64) -> bool {
    let nan = |x: u64| match d {
        DType::F64 => f64::from_bits(x).is_nan(),
        DType::F32 => f32::from_bits(x as u32).is_nan(),
        DType::F16 => x & 0x7fff > 0x7c00,
        DType::BF16 => x & 0x7fff > 0x7f80,
        _ => false,
    };
    a == b || nan(a) && nan(b)
}

fn check(target: &Target, p: Prim, t: DType, lanes: i64, fixed: Option<usize>) {
    let x = operands(p, t);
    if x.is_empty() {
        return;
    }
    let to = p.result(&x).unwrap();
    let mut tuples = cases(&x);
    while !tuples.len().is_multiple_of(lanes.max(1) as usize) {
        tuples.push(tuples[0].clone());
    }
    let k = kernel(p, &x, to, lanes, fixed, tuples.len() as i64);
    let mut buffers: Vec<Vec<u8>> = x
        .iter()
        .enumerate()
        .map(|(i, d)| bytes_of(*d, &tuples.iter().map(|t| t[i]).collect::<Vec<_>>()))
        .collect();
    buffers.push(vec![0; tuples.len() * to.bytes()]);
    run(target, &k, &mut buffers, &[], 1);
    let got = bits_of(to, buffers.last().unwrap());
    for (n, got) in got.iter().enumerate() {
        let args: Vec<Scalar> = x
            .iter()
            .enumerate()
            .map(|(i, d)| {
                let n = if fixed == Some(i) {
                    n - n % lanes.max(1) as usize
                } else {
                    n
                };
                Scalar {
                    dtype: *d,
                    bits: tuples[n][i],
                }
            })
            .collect();
        let want = eval_prim(p, t, &args).bits;
        assert!(
            same(to, *got, want),
            "{} {p:?} of {t}, {lanes} lanes, fixed {fixed:?}: {:x?} gave {got:#x}, expected {want:#x}",
            target.name,
            args.iter().map(|a| a.bits).collect::<Vec<_>>()
        );
    }
}

fn check_all(target: &Target, lanes: i64) {
    let mut checked = 0;
    for p in Prim::all() {
        for t in DType::ALL {
            check(target, p, t, lanes, None);
            checked += usize::from(!operands(p, t).is_empty());
        }
    }
    assert!(checked > 300, "{checked} primitives");
}

#[test]
fn scalars() {
    for target in targets() {
        check_all(&target, 0);
    }
}

#[test]
fn sixteen_lanes() {
    for target in targets() {
        check_all(&target, 16);
    }
}

#[test]
fn eight_lanes() {
    for target in targets() {
        check_all(&target, 8);
    }
}

#[test]
fn odd_numbers_of_lanes() {
    let all = targets();
    let (first, last) = (&all[0], &all[all.len() - 1]);
    check_all(first, 3);
    check_all(last, 5);
}

#[test]
fn an_operand_that_is_the_same_on_every_lane() {
    for target in targets() {
        for p in Prim::all() {
            for t in DType::ALL {
                for i in 0..p.arity() {
                    if p.arity() > 1 {
                        check(&target, p, t, 4, Some(i));
                    }
                }
            }
        }
    }
}
