//! Runs single kernels through the JIT.

#![allow(dead_code, reason = "each test file uses its own part")]

use brolga_codegen::program::compile_kernel;
use brolga_codegen::{Jit, target};
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::interp::{self, BufferData};
use brolga_ir::loops::{Buf, Buffer, Expr, Grain, Kernel, LoopKind, RegInfo, Scope, Stmt};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim, Target, TileKind};
use std::ffi::c_void;

/// The targets that this machine runs.
pub fn targets() -> Vec<Target> {
    Target::CPUS.into_iter().filter(target::runs_here).collect()
}

/// Bytes at a multiple of 64.
pub struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    pub fn new(bytes: &[u8]) -> Aligned {
        let mut v = vec![0xa5; bytes.len() + 64];
        let at = v.as_ptr().align_offset(64);
        v[at..at + bytes.len()].copy_from_slice(bytes);
        Aligned(v, at, bytes.len())
    }
    pub fn bytes(&self) -> &[u8] {
        &self.0[self.1..self.1 + self.2]
    }
    pub fn ptr(&mut self) -> *mut u8 {
        self.0[self.1..].as_mut_ptr()
    }
}

/// Compiles a kernel.
pub fn jit(target: &Target, k: &Kernel) -> (Jit, *const u8) {
    let (jit, id) = Jit::new(target, "t", &k.symbols, |u| compile_kernel(u, k)).unwrap_or_else(|e| panic!("{e}"));
    let at = jit.address(id);
    (jit, at)
}

/// Runs a kernel over buffers, which are its parameters' bytes, in as many pieces as there are workers. Gives the word in
/// which it reports a failed check.
pub fn run(target: &Target, k: &Kernel, buffers: &mut [Vec<u8>], dims: &[i64], workers: u32) -> u32 {
    let (_jit, at) = jit(target, k);
    // SAFETY: the address is a kernel's, which has the signature of the ABI's loop body.
    let body: brolga_abi::Body = unsafe { std::mem::transmute(at) };
    let lookup = |s: &str| {
        let i = k.symbols.iter().position(|x| &**x == s)?;
        Some(dims[i])
    };
    let stride = k.scratch_bytes().eval(&lookup).unwrap();
    let mut scratch = Aligned::new(&vec![0; stride as usize * workers as usize]);
    let mut memory: Vec<Aligned> = buffers.iter().map(|b| Aligned::new(b)).collect();
    let mut args: Vec<*mut u8> = memory.iter_mut().map(Aligned::ptr).collect();
    args.push(dims.as_ptr().cast_mut().cast());
    args.push(scratch.ptr());
    args.push(stride as usize as *mut u8);
    let mut failed = 0u32;
    args.push((&raw mut failed).cast());
    let mut ctx = context(workers);
    args.push((&raw mut ctx).cast());
    let n = match k.parallel() {
        Some((n, _)) => n.as_dim().unwrap().eval(&lookup).unwrap(),
        None => 1,
    };
    let piece = (n + i64::from(workers) - 1) / i64::from(workers);
    for w in 0..i64::from(workers) {
        let (begin, end) = ((w * piece).min(n), ((w + 1) * piece).min(n));
        // SAFETY: the arguments are laid out as the kernel expects, and the test's kernels stay inside their buffers.
        unsafe { body(args.as_mut_ptr().cast::<c_void>(), begin, end, w as u32) };
    }
    for (b, m) in buffers.iter_mut().zip(&memory) {
        b.copy_from_slice(m.bytes());
    }
    failed
}

/// A context whose parallel loops run one iteration after the other, the last first, each on a worker of its own as far as they go.
fn context(workers: u32) -> brolga_abi::Ctx {
    brolga_abi::abi_fn! {
        /// `Ctx::parallel_for`.
        unsafe fn parallel_for(ctx: *mut brolga_abi::Ctx, body: brolga_abi::Body, arg: *mut c_void, n: i64) -> i32 {
            // SAFETY: generated code passes on the context that it was given.
            let workers = i64::from(unsafe { (*ctx).workers });
            for i in (0..n).rev() {
                // SAFETY: the body is to be called with ranges of the loop and numbers of workers.
                unsafe { body(arg, i, i + 1, (i % workers) as u32) };
            }
            0
        }
    }
    brolga_abi::Ctx {
        workers,
        parallel_for: if workers > 1 { Some(parallel_for) } else { None },
        ..brolga_abi::Ctx::new()
    }
}

/// Runs a kernel on every target and on one and three workers, and compares all memory with the interpreter's.
pub fn check(b: &Build, dims: &[i64], inputs: &[Vec<u8>]) {
    check_within(b, dims, inputs, 0.0);
}

/// The same, f32 compared within a tolerance on targets without fused multiply-add, where contractions round more often, and of pairs of bf16
/// on those whose instruction adds them in an order of its own.
pub fn check_within(b: &Build, dims: &[i64], inputs: &[Vec<u8>], tolerance: f32) {
    let k = &b.k;
    let lookup = |s: &str| k.symbols.iter().position(|x| &**x == s).map(|i| dims[i]);
    let mut want = inputs.to_vec();
    {
        let data: Vec<BufferData> = k
            .params()
            .zip(&mut want)
            .map(|(p, bytes)| match p.scope {
                Scope::In => BufferData::from(&bytes[..]),
                _ => BufferData::from(&mut bytes[..]),
            })
            .collect();
        interp::run(k, &lookup, &data).unwrap_or_else(|e| panic!("{e:?}"));
    }
    for target in targets() {
        for workers in [1, 3] {
            let mut got = inputs.to_vec();
            run(&target, k, &mut got, dims, workers);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let pairs = k.to_string().contains(TileKind::Bf16Pairs.name());
                let exact = target
                    .cpu()
                    .is_some_and(|c| c.has_fma && !(pairs && c.tile.sums_pairs()));
                if tolerance == 0.0 || exact || k.buffers[i].dtype != DType::F32 {
                    assert_eq!(got, want, "{} on {}, {workers} workers: b{i}", k.name, target.name);
                    continue;
                }
                for (j, (x, y)) in as_f32s(got).iter().zip(as_f32s(want)).enumerate() {
                    let close = (x - y).abs() <= tolerance * y.abs().max(1.0);
                    assert!(close, "{} on {}: b{i}[{j}] is {x}, expected {y}", k.name, target.name);
                }
            }
        }
    }
}

/// Random floats.
pub fn random_f32(n: usize, seed: u64) -> Vec<u8> {
    let mut r = Random(seed);
    f32s(&(0..n).map(|_| r.f32()).collect::<Vec<_>>())
}

/// A small builder of kernels.
pub struct Build {
    pub k: Kernel,
}

impl Build {
    pub fn new(name: &str, symbols: &[&str]) -> Build {
        Build {
            k: Kernel {
                name: name.into(),
                symbols: symbols.iter().map(|s| (*s).into()).collect(),
                buffers: vec![],
                regs: vec![],
                pooled: false,
                body: vec![],
            },
        }
    }
    pub fn buffer(&mut self, dtype: DType, len: impl Into<Dim>, scope: Scope) -> Buf {
        self.k.buffers.push(Buffer {
            dtype,
            len: len.into(),
            scope,
        });
        Buf(self.k.buffers.len() as u32 - 1)
    }
    pub fn reg(&mut self, dtype: DType) -> Reg {
        self.lanes(dtype, 1)
    }
    pub fn lanes(&mut self, dtype: DType, lanes: u32) -> Reg {
        self.k.regs.push(RegInfo { dtype, lanes });
        Reg(self.k.regs.len() as u32 - 1)
    }
}

pub fn load(buffer: Buf, index: Ix) -> Expr {
    Expr::Load {
        buffer,
        index,
        guard: vec![],
        fill: 0,
    }
}

pub fn store(buffer: Buf, index: Ix, value: Reg) -> Stmt {
    Stmt::Store { buffer, index, value }
}

pub fn prim(p: Prim, x: &[Reg]) -> Expr {
    let at = |i: usize| *x.get(i).unwrap_or(&x[0]);
    Expr::Prim(p, [at(0), at(1), at(2)])
}

pub fn each(var: u32, kind: LoopKind, extent: impl Into<Dim>, body: Vec<Stmt>) -> Stmt {
    Stmt::For {
        var: Var(var),
        kind,
        extent: Ix::constant(extent.into()),
        body,
    }
}

/// `Σ coefficient * variable + offset`.
pub fn affine(terms: &[(u32, i64)], offset: i64) -> Ix {
    terms.iter().fold(Ix::constant(offset), |sum, (v, c)| {
        &sum + &Ix::var(Var(*v)).scale(&Dim::Const(*c))
    })
}

/// `y[i] = p(x[i])` for a polynomial with many coefficients, more than a CPU has registers for.
pub fn polynomial(dtype: DType, lanes: i64, n: i64) -> Kernel {
    let mut b = Build::new("polynomial", &[]);
    let (x, y) = (b.buffer(dtype, n, Scope::In), b.buffer(dtype, n, Scope::Out));
    let at = affine(&[(0, lanes), (1, 1)], 0);
    let (v, mut sum) = (b.reg(dtype), b.reg(dtype));
    let mut body = vec![Stmt::Set(v, load(x, at.clone())), Stmt::Set(sum, Expr::Const(0))];
    for i in 0..40 {
        let (c, next) = (b.reg(dtype), b.reg(dtype));
        let value = 1.0 / f64::from(i + 3);
        let bits = match dtype {
            DType::F32 => u64::from((value as f32).to_bits()),
            _ => value.to_bits(),
        };
        body.push(Stmt::Set(c, Expr::Const(bits)));
        let p = match i % 4 {
            0..3 => prim(Prim::Fma, &[sum, v, c]),
            _ => prim(Prim::Mul, &[c, sum]),
        };
        body.push(Stmt::Set(next, p));
        sum = next;
    }
    body.push(store(y, at, sum));
    b.k.body = vec![each(
        0,
        LoopKind::Parallel(Grain::ALWAYS),
        n / lanes,
        vec![each(1, LoopKind::Vector, lanes, body)],
    )];
    b.k
}

pub fn bytes_of(dtype: DType, bits: &[u64]) -> Vec<u8> {
    bits.iter()
        .flat_map(|b| b.to_le_bytes()[..dtype.bytes()].to_vec())
        .collect()
}

pub fn bits_of(dtype: DType, bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(dtype.bytes())
        .map(|c| {
            let mut b = [0; 8];
            b[..c.len()].copy_from_slice(c);
            u64::from_le_bytes(b)
        })
        .collect()
}

pub fn f32s(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn as_f32s(b: &[u8]) -> Vec<f32> {
    b.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

/// A generator of numbers that look random.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    pub fn f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
