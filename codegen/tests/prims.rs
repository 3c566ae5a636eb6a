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
    if p.chooses() {
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

/// A primitive with its operands' values, as a kernel.
struct Case {
    p: Prim,
    t: DType,
    x: Vec<DType>,
    to: DType,
    lanes: i64,
    fixed: Option<usize>,
    tuples: Vec<Vec<u64>>,
}

impl Case {
    fn new(p: Prim, t: DType, lanes: i64, fixed: Option<usize>) -> Option<Case> {
        let x = operands(p, t);
        if x.is_empty() {
            return None;
        }
        let to = p.result(&x).unwrap();
        let mut tuples = cases(&x);
        while !tuples.len().is_multiple_of(lanes.max(1) as usize) {
            tuples.push(tuples[0].clone());
        }
        Some(Case {
            p,
            t,
            x,
            to,
            lanes,
            fixed,
            tuples,
        })
    }

    fn kernel(&self) -> Kernel {
        kernel(
            self.p,
            &self.x,
            self.to,
            self.lanes,
            self.fixed,
            self.tuples.len() as i64,
        )
    }

    /// The operands' bytes, then room for the result.
    fn buffers(&self) -> Vec<Vec<u8>> {
        let operand = |(i, d): (usize, &DType)| bytes_of(*d, &self.tuples.iter().map(|t| t[i]).collect::<Vec<_>>());
        let mut buffers: Vec<Vec<u8>> = self.x.iter().enumerate().map(operand).collect();
        buffers.push(vec![0; self.tuples.len() * self.to.bytes()]);
        buffers
    }
}

fn check(target: &Target, p: Prim, t: DType, lanes: i64, fixed: Option<usize>) {
    let Some(case) = Case::new(p, t, lanes, fixed) else {
        return;
    };
    let mut buffers = case.buffers();
    run(target, &case.kernel(), &mut buffers, &[], 1);
    case.compare(target, buffers.last().unwrap());
}

impl Case {
    fn compare(&self, target: &Target, got: &[u8]) {
        let Case {
            p,
            t,
            x,
            to,
            lanes,
            fixed,
            tuples,
        } = self;
        let (p, t, to, lanes, fixed) = (*p, *t, *to, *lanes, *fixed);
        let got = bits_of(to, got);
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

/// Operands that the compiler knows, which it may use for shorter code.
#[test]
fn an_operand_that_is_a_constant() {
    use Prim::*;
    let all = targets();
    for target in [&all[0], &all[all.len() - 1]] {
        for p in [Min, Max, Div, Rem, Shl, Shr, Mul, Lt] {
            for t in DType::ALL {
                let x = operands(p, t);
                if x.is_empty() {
                    continue;
                }
                let to = p.result(&x).unwrap();
                let values = special(t);
                let floats = [0.0, -0.0, 1.0, -2.5, f64::NAN, f64::INFINITY];
                let constants: Vec<u64> = match t {
                    DType::F32 => floats.iter().map(|c| u64::from((*c as f32).to_bits())).collect(),
                    DType::F64 => floats.iter().map(|c| c.to_bits()).collect(),
                    DType::Bool => vec![0, 1],
                    _ => values
                        .iter()
                        .copied()
                        .take(16)
                        .step_by(3)
                        .chain([u64::MAX >> (64 - t.bits())])
                        .collect(),
                };
                for (i, c) in constants.iter().enumerate() {
                    let (lanes, first) = (if i % 2 == 0 { 8 } else { 1 }, i % 3 == 0);
                    let mut values = values.clone();
                    values.resize(values.len().next_multiple_of(8), 0);
                    let n = values.len() as i64;
                    let mut b = Build::new("constant", &[]);
                    let (input, out) = (b.buffer(t, n, Scope::In), b.buffer(to, n, Scope::Out));
                    let (v, k, r) = (b.reg(t), b.reg(t), b.reg(to));
                    let at = affine(&[(0, lanes), (1, 1)], 0);
                    let order = if first { [k, v] } else { [v, k] };
                    let body = vec![
                        Stmt::Set(v, load(input, at.clone())),
                        Stmt::Set(k, brolga_ir::loops::Expr::Const(*c)),
                        Stmt::Set(r, prim(p, &order)),
                        store(out, at, r),
                    ];
                    let kind = if lanes == 1 { LoopKind::Serial } else { LoopKind::Vector };
                    b.k.body = vec![each(0, LoopKind::Serial, n / lanes, vec![each(1, kind, lanes, body)])];
                    let mut buffers = vec![bytes_of(t, &values), vec![0; values.len() * to.bytes()]];
                    run(target, &b.k, &mut buffers, &[], 1);
                    for (v, got) in values.iter().zip(bits_of(to, &buffers[1])) {
                        let [a, z] = if first { [*c, *v] } else { [*v, *c] };
                        let args = [a, z].map(|bits| Scalar { dtype: t, bits });
                        let want = eval_prim(p, t, &args).bits;
                        assert!(
                            same(to, got, want),
                            "{} {p:?} of {t}: {a:#x} {z:#x} gave {got:#x}, not {want:#x}",
                            target.name
                        );
                    }
                }
            }
        }
    }
}

/// The same on AArch64, through an object file, a C program and an emulator.
#[test]
fn aarch64_under_an_emulator() {
    use std::fmt::Write as _;
    use std::process::Command;
    let missing = ["aarch64-linux-gnu-gcc", "qemu-aarch64"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        println!("skipped: no {tool}");
        return;
    }
    let target = Target::aarch64();
    let cases: Vec<Case> = [0, 8, 3]
        .into_iter()
        .flat_map(|lanes| {
            Prim::all().flat_map(move |p| DType::ALL.into_iter().filter_map(move |t| Case::new(p, t, lanes, None)))
        })
        .collect();
    let (mut data, mut declarations, mut calls) = (vec![], String::new(), String::new());
    let mut largest = 0;
    for (i, c) in cases.iter().enumerate() {
        let buffers = c.buffers();
        let (out, ins) = buffers.split_last().unwrap();
        let mut args = String::new();
        for b in ins {
            data.resize(data.len().next_multiple_of(64), 0u8);
            let _ = write!(args, "(char *)t_weights + {}, ", data.len());
            data.extend_from_slice(b);
        }
        largest = largest.max(out.len());
        let _ = writeln!(declarations, "void t_p{i}(void *, long, long, int);");
        let _ = writeln!(
            calls,
            "  {{ char *a[] = {{ {args}out, 0, 0, 0 }}; t_p{i}(a, 0, 1, 0); fwrite(out, 1, {}, stdout); }}",
            out.len()
        );
    }
    let main = format!(
        "#include <stdio.h>\nextern const char t_weights[];\nstatic char out[{largest}] __attribute__((aligned(64)));\n\
         {declarations}int main(void) {{\n{calls}  return 0;\n}}\n"
    );
    let (object, ()) = brolga_codegen::object::object(&target, "t", &[], Some(&data), |u| {
        for (i, c) in cases.iter().enumerate() {
            let k = Kernel {
                name: format!("p{i}"),
                ..c.kernel()
            };
            brolga_codegen::program::compile_kernel(u, &k)?;
        }
        Ok(())
    })
    .unwrap();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aarch64-prims");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name);
    std::fs::write(file("prims.o"), object).unwrap();
    std::fs::write(file("main.c"), main).unwrap();
    let cc = Command::new("aarch64-linux-gnu-gcc")
        .args(["-static", "-O1", "-o"])
        .args([file("prims"), file("main.c"), file("prims.o")])
        .output()
        .unwrap();
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    let run = Command::new("qemu-aarch64").arg(file("prims")).output().unwrap();
    assert!(run.status.success(), "{:?}", run.status);
    let mut rest = &run.stdout[..];
    for c in &cases {
        let (now, then) = rest.split_at(c.tuples.len() * c.to.bytes());
        c.compare(&target, now);
        rest = then;
    }
    assert!(cases.len() > 900 && rest.is_empty());
}
