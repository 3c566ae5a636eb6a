//! Random dim expressions mean the same everywhere: in exact arithmetic, in their canonical form, in the loop interpreter,
//! in machine code and in PTX, whatever the signs of dividends and divisors; and `NAME_shapes` says of each whether it has a
//! value, exactly where [`Dim::value`] does.

use crate::machine;
use brolga::runtime::cuda::{Buffer, Launch, Plan, Step, Storage};
use brolga_abi::{Body, ErrorCode, PlanFn, ShapesFn};
use brolga_codegen::program::compile_kernel;
use brolga_codegen::ptx::{self, Arch};
use brolga_codegen::{Jit, compile_program, target};
use brolga_ir::dim::NoValue;
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::interp::BufferData;
use brolga_ir::loops::{self, Buf, Expr, Kernel, LoopKind, RegInfo, Scope, Stmt};
use brolga_ir::program::{Program, Slot, SlotId, Storage as Memory};
use brolga_ir::{DType, Dim, DimOp, Symbol, Target, Type};

const SYMBOLS: [&str; 3] = ["a", "b", "c"];
const OPS: [DimOp; 5] = [DimOp::FloorDiv, DimOp::CeilDiv, DimOp::Mod, DimOp::Min, DimOp::Max];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// An expression as it was written, before anything is simplified.
enum Tree {
    Symbol(usize),
    Number(i64),
    Add(Box<Tree>, Box<Tree>),
    Sub(Box<Tree>, Box<Tree>),
    Mul(Box<Tree>, Box<Tree>),
    Op(DimOp, Box<Tree>, Box<Tree>),
}

impl Tree {
    fn random(r: &mut Random, depth: u32, numbers: &[i64]) -> Tree {
        if depth == 0 || r.below(6) == 0 {
            return match r.below(2) {
                0 => Tree::Symbol(r.below(3) as usize),
                _ => Tree::Number(numbers[r.below(numbers.len() as u64) as usize]),
            };
        }
        let mut child = || Box::new(Tree::random(r, depth - 1, numbers));
        let (x, y) = (child(), child());
        match r.below(8) {
            0 => Tree::Add(x, y),
            1 => Tree::Sub(x, y),
            2 => Tree::Mul(x, y),
            n => Tree::Op(OPS[n as usize - 3], x, y),
        }
    }

    fn dim(&self) -> Dim {
        match self {
            Tree::Symbol(i) => Dim::sym(SYMBOLS[*i]),
            Tree::Number(c) => Dim::Const(*c),
            Tree::Add(x, y) => x.dim() + y.dim(),
            Tree::Sub(x, y) => x.dim() - y.dim(),
            Tree::Mul(x, y) => x.dim() * y.dim(),
            Tree::Op(op, x, y) => Dim::op(*op, x.dim(), y.dim()),
        }
    }

    /// The value in exact arithmetic, as the operations are defined; `None` where one divides by zero or leaves 128 bits.
    fn exact(&self, values: &[i64]) -> Option<i128> {
        let both = |x: &Tree, y: &Tree| Some((x.exact(values)?, y.exact(values)?));
        match self {
            Tree::Symbol(i) => Some(values[*i].into()),
            Tree::Number(c) => Some((*c).into()),
            Tree::Add(x, y) => both(x, y).and_then(|(x, y)| x.checked_add(y)),
            Tree::Sub(x, y) => both(x, y).and_then(|(x, y)| x.checked_sub(y)),
            Tree::Mul(x, y) => both(x, y).and_then(|(x, y)| x.checked_mul(y)),
            Tree::Op(op, x, y) => {
                let (x, y) = both(x, y)?;
                if matches!(op, DimOp::Min | DimOp::Max) {
                    return Some(if *op == DimOp::Min { x.min(y) } else { x.max(y) });
                }
                // The quotient that leaves a remainder of the divisor's sign.
                let floor = x.checked_div_euclid(y)? - i128::from(y < 0 && x.rem_euclid(y) != 0);
                Some(match op {
                    DimOp::FloorDiv => floor,
                    DimOp::CeilDiv => floor + i128::from(x - floor * y != 0),
                    _ => x - floor * y,
                })
            }
        }
    }
}

fn symbols() -> Vec<Symbol> {
    SYMBOLS.iter().map(|s| (*s).into()).collect()
}

fn value(d: &Dim, values: &[i64]) -> Result<i64, NoValue> {
    d.value(&|s| SYMBOLS.iter().position(|x| *x == s).map(|i| values[i]))
}

/// A kernel that stores dims.
fn kernel(dims: &[Dim], gpu: bool) -> Kernel {
    let mut body = vec![];
    for (i, d) in (0u32..).zip(dims) {
        body.push(Stmt::Set(Reg(i), Expr::Index(Ix::constant(d.clone()))));
        body.push(Stmt::Store {
            buffer: Buf(0),
            index: Ix::constant(i64::from(i)),
            value: Reg(i),
        });
    }
    if gpu {
        for (var, kind) in [(1, LoopKind::Thread(0)), (0, LoopKind::Block(0))] {
            body = vec![Stmt::For {
                var: Var(var),
                kind,
                extent: Ix::constant(1i64),
                body,
            }];
        }
    }
    Kernel {
        name: "dims".into(),
        symbols: symbols(),
        buffers: vec![loops::Buffer {
            dtype: DType::I64,
            len: Dim::from(dims.len()),
            scope: Scope::Out,
        }],
        regs: vec![
            RegInfo {
                dtype: DType::I64,
                lanes: 1
            };
            dims.len()
        ],
        pooled: false,
        body,
    }
}

fn integers(bytes: &[u8]) -> Vec<i64> {
    bytes
        .chunks(8)
        .map(|c| i64::from_le_bytes(c.try_into().expect("8 bytes")))
        .collect()
}

fn interpreted(k: &Kernel, values: &[i64]) -> Vec<i64> {
    let mut bytes = vec![0u8; 8 * k.regs.len()];
    let lookup = |s: &str| SYMBOLS.iter().position(|x| *x == s).map(|i| values[i]);
    loops::interp::run(k, &lookup, &[BufferData::from(&mut bytes[..])]).unwrap_or_else(|e| panic!("{e}\n{k}"));
    integers(&bytes)
}

fn in_ptx(k: &Kernel, values: &[i64]) -> Vec<i64> {
    let plan = Plan {
        name: "dims".into(),
        module: ptx::print_kernel(k, Arch::Sm80).unwrap_or_else(|e| panic!("{e}\n{k}")),
        entries: vec![ptx::entry_name(k)],
        steps: vec![Step::Launch(Launch {
            entry: 0,
            grid: [1; 3],
            block: [1; 3],
            buffers: vec![0],
            dims: values.to_vec(),
            node: String::new(),
            checks: vec![],
        })],
        outputs: vec![0],
        buffers: vec![Buffer {
            bytes: 8 * k.regs.len() as u64,
            storage: Storage::Output,
        }],
        ..Plan::default()
    };
    integers(&machine::run(&plan, &[]).expect("it checks nothing")[0])
}

/// The kernel's machine code.
struct Compiled {
    _code: Jit,
    body: Body,
    count: usize,
}

impl Compiled {
    fn new(k: &Kernel, target: &Target) -> Compiled {
        let (code, id) = Jit::new(target, "t", &k.symbols, |u| compile_kernel(u, k)).unwrap_or_else(|e| panic!("{e}"));
        Compiled {
            // SAFETY: the address is a kernel's, which has the signature of a loop body.
            body: unsafe { std::mem::transmute::<*const u8, Body>(code.address(id)) },
            _code: code,
            count: k.regs.len(),
        }
    }

    fn run(&self, values: &[i64]) -> Vec<i64> {
        let mut out = vec![0i64; self.count];
        let mut args = [
            out.as_mut_ptr().cast::<u8>(),
            values.as_ptr().cast_mut().cast(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        ];
        // SAFETY: the arguments are the kernel's only buffer, the dims, and scratch that it does not have.
        unsafe { (self.body)(args.as_mut_ptr().cast(), 0, 1, 0) };
        out
    }
}

/// A program with an output of each extent, and its functions.
struct Shapes {
    _code: Jit,
    plan: PlanFn,
    shapes: ShapesFn,
}

impl Shapes {
    fn new(dims: &[Dim], target: &Target) -> Shapes {
        let slot = |(i, d): (u32, &Dim)| Slot::new(Type::new(DType::U8, vec![d.clone()]), Memory::Output(i));
        let program = Program {
            name: "shapes".into(),
            symbols: symbols(),
            guards: vec![],
            strings: vec![],
            lets: vec![],
            aliases: vec![],
            inputs: vec![],
            outputs: (0..dims.len() as u32).map(|i| (format!("y{i}"), SlotId(i))).collect(),
            slots: (0u32..).zip(dims).map(slot).collect(),
            kernels: vec![],
            init: vec![],
            steps: vec![],
            arena: Some(Dim::ZERO),
        };
        let made = Jit::new(target, "shapes", &symbols(), |u| {
            compile_program(u, &program, &|_| None)
        });
        let (code, f) = made.unwrap_or_else(|e| panic!("{e}"));
        // SAFETY: these are the program's functions.
        let (plan, shapes) = unsafe {
            (
                std::mem::transmute::<*const u8, PlanFn>(code.address(f.plan)),
                std::mem::transmute::<*const u8, ShapesFn>(code.address(f.shapes)),
            )
        };
        Shapes {
            _code: code,
            plan,
            shapes,
        }
    }

    /// What `NAME_shapes` writes or returns; `NAME_plan` has to agree.
    fn run(&self, values: &[i64], count: usize) -> Result<Vec<i64>, i32> {
        let (mut out, mut bytes) = (vec![0i64; count], 0u64);
        // SAFETY: there is a value for each symbol, and a place for each extent.
        let (shapes, plan) = unsafe {
            (
                (self.shapes)(values.as_ptr(), out.as_mut_ptr()),
                (self.plan)(values.as_ptr(), 1, &raw mut bytes),
            )
        };
        assert_eq!(shapes, plan, "for {values:?}");
        if shapes == 0 { Ok(out) } else { Err(shapes) }
    }
}

/// What `NAME_shapes` should say.
fn expected(dims: &[Dim], values: &[i64]) -> Result<Vec<i64>, i32> {
    let mut number = 0;
    let mut out = vec![];
    for d in dims {
        out.push(match value(d, values) {
            Ok(n) if d.as_const().is_some() => n,
            Err(_) => return Err(ErrorCode::TooLarge.status(number)),
            Ok(n) if n < 0 => return Err(ErrorCode::BadDims.status(number + 1)),
            Ok(n) => n,
        });
        number += u32::from(d.as_const().is_none());
    }
    Ok(out)
}

/// Draws expressions over numbers, and compares everything on values of the symbols; gives how many values there were.
fn draw(seed: u64, depth: u32, numbers: &[i64], values: &[i64]) -> usize {
    let mut r = Random(seed);
    let target = target::native().expect("this machine is a target");
    let mut compared = 0;
    for _ in 0..40 {
        let trees: Vec<Tree> = (0..8).map(|_| Tree::random(&mut r, depth, numbers)).collect();
        let all: Vec<(&Tree, Dim)> = trees.iter().map(|t| (t, t.dim())).collect();
        // What no symbols save is refused before there is code.
        let all: Vec<(&Tree, Dim)> = all.into_iter().filter(|(_, d)| !d.is_too_large()).collect();
        let dims: Vec<Dim> = all.iter().map(|(_, d)| d.clone()).collect();
        let compiled = Compiled::new(&kernel(&dims, false), &target);
        let each: Vec<Shapes> = dims
            .iter()
            .map(|d| Shapes::new(std::slice::from_ref(d), &target))
            .collect();
        let together = Shapes::new(&dims, &target);
        for _ in 0..12 {
            let at: Vec<i64> = (0..3).map(|_| values[r.below(values.len() as u64) as usize]).collect();
            let code = compiled.run(&at);
            // PTX leaves open what a division by zero gives.
            let valued: Vec<Dim> = dims.iter().filter(|d| value(d, &at).is_ok()).cloned().collect();
            let gpu = kernel(&valued, true);
            let mut text = in_ptx(&gpu, &at).into_iter();
            for (i, (tree, d)) in all.iter().enumerate() {
                let found = value(d, &at);
                if let (Ok(v), Some(exact)) = (&found, tree.exact(&at)) {
                    assert_eq!(i128::from(*v), exact, "{d} at {at:?}");
                }
                if let Ok(v) = found {
                    assert_eq!(
                        interpreted(&kernel(&dims[i..=i], false), &at),
                        [v],
                        "interpreted {d} at {at:?}"
                    );
                    assert_eq!(code[i], v, "machine code of {d} at {at:?}");
                    assert_eq!(text.next(), Some(v), "PTX of {d} at {at:?}\n{gpu}");
                    compared += 1;
                }
                let one = &dims[i..=i];
                assert_eq!(each[i].run(&at, 1), expected(one, &at), "shape [{d}] at {at:?}");
            }
            assert_eq!(
                together.run(&at, dims.len()),
                expected(&dims, &at),
                "{dims:?} at {at:?}"
            );
        }
    }
    compared
}

#[test]
fn small_dims_mean_the_same_everywhere() {
    let numbers = [-7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 13];
    let compared = draw(1, 3, &numbers, &[0, 1, 2, 3, 4, 5, 7, 12, 31]);
    assert!(compared > 2_000, "{compared} values");
}

#[test]
fn large_dims_have_a_value_or_none_everywhere() {
    let (most, big) = (i64::MAX, 1i64 << 32);
    let numbers = [
        -1,
        1,
        2,
        -2,
        3,
        63,
        big,
        -big,
        most,
        -most,
        i64::MIN,
        1 << 61,
        (1 << 61) + 1,
    ];
    let values = [
        0,
        1,
        2,
        big - 1,
        big,
        1 << 31,
        1 << 61,
        (1 << 61) + 1,
        1 << 62,
        most - 1,
        most,
    ];
    let compared = draw(2, 2, &numbers, &values);
    assert!(compared > 1_000, "{compared} values");
}
