//! Random loop kernels through the JIT against the interpreter.
//!
//! A kernel has a parallel, a serial and an inner loop; its body loads (at strides, with guards, through indices from other
//! loads), computes with random primitives on random dtypes, and stores to a place of its own for every iteration.

mod common;

use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::interp::{self, BufferData};
use brolga_ir::loops::{Buf, Expr, Grain, LoopKind, Scope, Stmt};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim};
use common::*;

const LENGTH: i64 = 96;

struct Generator {
    r: Random,
    b: Build,
    inputs: Vec<(Buf, DType)>,
    /// Registers that may be read, with dtypes.
    live: Vec<(Reg, DType)>,
    /// Accumulators with lanes.
    kept: Vec<(Reg, DType)>,
    body: Vec<Stmt>,
}

impl Generator {
    fn below(&mut self, n: i64) -> i64 {
        (self.r.next() % n as u64) as i64
    }

    fn pick<T: Clone>(&mut self, x: &[T]) -> T {
        x[self.below(x.len() as i64) as usize].clone()
    }

    /// An affine expression of the three loop variables.
    fn linear(&mut self) -> Ix {
        let c = |g: &mut Self| g.pick(&[0, 1, 1, 2, 3, -1, 8, 5]);
        let (a, b, d, e) = (c(self), c(self), c(self), self.below(9) - 4);
        let mut ix = affine(&[(0, a), (1, b), (2, d)], e);
        if self.below(4) == 0 {
            ix = &ix + &Ix::var(Var(1)).scale(&Dim::sym("n"));
        }
        ix
    }

    /// An expression that is inside a buffer for any values of its parts.
    fn inside(&mut self) -> Ix {
        let mut e = self.linear();
        let integers: Vec<Reg> = self
            .live
            .iter()
            .filter(|(_, d)| *d == DType::I64)
            .map(|(r, _)| *r)
            .collect();
        if !integers.is_empty() && self.below(3) == 0 {
            e = &e + &Ix::reg(self.pick(&integers));
        }
        match self.below(4) {
            0 => e.at_most(&Dim::Const(LENGTH - 1)).modulo(&Dim::Const(LENGTH)),
            1 => e.modulo(&Dim::Const(32)).scale(&Dim::Const(3)),
            _ => e.modulo(&Dim::Const(LENGTH)),
        }
    }

    fn guard(&mut self) -> Vec<Bound> {
        (0..1 + self.below(2))
            .map(|_| {
                let extent = match self.below(3) {
                    0 => Dim::sym("n"),
                    _ => Dim::Const(1 + self.below(30)),
                };
                Bound {
                    index: self.linear(),
                    extent,
                }
            })
            .collect()
    }

    fn set(&mut self, d: DType, e: Expr) {
        let r = self.b.reg(d);
        self.body.push(Stmt::Set(r, e));
        self.live.push((r, d));
    }

    fn load(&mut self) {
        let (buffer, d) = self.pick(&self.inputs.clone());
        // Plain affine loads are inside because the loops are short; they are what becomes whole vectors.
        let (index, guard) = match self.below(4) {
            0 => (affine(&[(0, 16), (1, 3), (2, 1)], 7), vec![]),
            1 => {
                let e = self.linear();
                let mut guard = self.guard();
                guard.push(Bound {
                    index: e.clone(),
                    extent: Dim::Const(LENGTH),
                });
                (e, guard)
            }
            2 => (self.inside(), self.guard()),
            _ => (self.inside(), vec![]),
        };
        let fill = self.r.next() & (u64::MAX >> (64 - d.bits())) & if d == DType::Bool { 1 } else { u64::MAX };
        let e = Expr::Load {
            buffer,
            index,
            guard,
            fill,
        };
        self.set(d, e);
    }

    fn prim(&mut self) {
        // A primitive that fits registers which are there.
        for _ in 0..20 {
            let all: Vec<Prim> = Prim::all().collect();
            let p = self.pick(&all);
            let x: Vec<(Reg, DType)> = (0..p.arity()).map(|_| self.pick(&self.live.clone())).collect();
            let dtypes: Vec<DType> = x.iter().map(|x| x.1).collect();
            // The bits of a NaN are anyone's.
            if matches!(p, Prim::Bitcast(_)) && dtypes[0].is_float() {
                continue;
            }
            if let Ok(to) = p.result(&dtypes) {
                let regs: Vec<Reg> = x.iter().map(|x| x.0).collect();
                return self.set(to, prim(p, &regs));
            }
        }
        let (r, d) = self.pick(&self.live.clone());
        self.set(d, Expr::Copy(r));
    }

    fn statement(&mut self) {
        match self.below(10) {
            0..3 => self.load(),
            3 => {
                let e = self.linear();
                self.set(DType::I64, Expr::Index(e));
            }
            4 => {
                let g = self.guard();
                self.set(DType::Bool, Expr::InBounds(g));
            }
            5 => {
                let d = self.pick(&[DType::F32, DType::F64, DType::I32, DType::U8, DType::Bool]);
                let bits = match d {
                    DType::Bool => self.r.next() & 1,
                    DType::F32 => u64::from(self.r.f32().to_bits()),
                    DType::F64 => f64::from(self.r.f32()).to_bits(),
                    _ => self.r.next() & (u64::MAX >> (64 - d.bits())),
                };
                self.set(d, Expr::Const(bits));
            }
            6 if !self.kept.is_empty() => {
                // An accumulator merges with a value of its dtype.
                let (r, d) = self.pick(&self.kept.clone());
                let same: Vec<Reg> = self.live.iter().filter(|x| x.1 == d).map(|x| x.0).collect();
                if same.is_empty() {
                    return self.load();
                }
                let v = self.pick(&same);
                let p = match d {
                    DType::Bool => self.pick(&[Prim::And, Prim::Or, Prim::Xor]),
                    _ => self.pick(&[Prim::Add, Prim::Max, Prim::Sub]),
                };
                self.body.push(Stmt::Set(r, prim(p, &[r, v])));
            }
            _ => self.prim(),
        }
    }
}

/// A kernel, its inputs, and the dtypes of its buffers.
fn generate(seed: u64) -> (Build, Vec<Vec<u8>>, Vec<DType>) {
    let mut g = Generator {
        r: Random(seed),
        b: Build::new("random", &["n"]),
        inputs: vec![],
        live: vec![],
        kept: vec![],
        body: vec![],
    };
    let mut buffers = vec![];
    let mut dtypes = vec![];
    for _ in 0..3 {
        let d = g.pick(&DType::ALL);
        let buffer = g.b.buffer(d, LENGTH, Scope::In);
        g.inputs.push((buffer, d));
        dtypes.push(d);
        buffers.push(
            (0..LENGTH as usize * d.bytes())
                .map(|_| {
                    if d == DType::Bool {
                        g.r.next() as u8 & 1
                    } else {
                        g.r.next() as u8
                    }
                })
                .collect::<Vec<u8>>(),
        );
    }
    let lanes = g.pick(&[1, 2, 3, 4, 5, 8, 16]);
    let kind = g.pick(&[
        LoopKind::Vector,
        LoopKind::Vector,
        LoopKind::Vector,
        LoopKind::Serial,
        LoopKind::Unrolled,
    ]);
    let (outer, middle) = (1 + g.below(4), g.below(4));
    g.b.k.pooled = g.pick(&[false, true]);
    let mut before = vec![];
    if kind == LoopKind::Vector && lanes > 1 {
        for _ in 0..g.below(3) {
            let d = g.pick(&[DType::F32, DType::I32, DType::Bool, DType::I64, DType::I8]);
            let r = g.b.lanes(d, lanes as u32);
            before.push(Stmt::Set(r, Expr::Const(g.r.next() & 1)));
            g.kept.push((r, d));
        }
    }
    g.load();
    for _ in 0..4 + g.below(20) {
        g.statement();
    }
    let mut stores = vec![];
    let iterations = outer * middle.max(1) * lanes;
    for _ in 0..1 + g.below(3) {
        let (r, d) = g.pick(&g.live.clone());
        let out = g.b.buffer(d, 2 * iterations, Scope::Out);
        let m = middle.max(1);
        let mut index = match g.below(3) {
            // Straight, backwards, or apart; each iteration has its own place.
            0 => affine(&[(0, m * lanes), (1, lanes), (2, 1)], iterations),
            1 => affine(&[(0, m * lanes), (1, lanes), (2, -1)], lanes - 1),
            _ => affine(&[(0, 2 * m * lanes), (1, 2 * lanes), (2, 2)], 0),
        };
        if g.below(4) == 0 {
            index = index.modulo(&Dim::Const(2 * iterations));
        }
        stores.push(store(out, index, r));
        dtypes.push(d);
        buffers.push(vec![0; 2 * iterations as usize * d.bytes()]);
    }
    let mut after = vec![];
    for (r, d) in g.kept.clone() {
        let out = g.b.buffer(d, outer * lanes, Scope::Out);
        let v = g.b.reg(d);
        for l in 0..lanes {
            after.push(Stmt::Set(v, Expr::Lane(r, l as u32)));
            after.push(store(out, affine(&[(0, lanes)], l), v));
        }
        dtypes.push(d);
        buffers.push(vec![0; (outer * lanes) as usize * d.bytes()]);
    }
    let mut inner = std::mem::take(&mut g.body);
    inner.extend(stores);
    let mut body = before;
    body.push(each(1, LoopKind::Serial, middle, vec![each(2, kind, lanes, inner)]));
    body.extend(after);
    g.b.k.body = vec![each(0, LoopKind::Parallel(Grain::ALWAYS), outer, body)];
    (g.b, buffers, dtypes)
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

#[test]
fn random_kernels_agree_with_the_interpreter() {
    let mut ran = 0;
    for seed in 0..400 {
        let (b, inputs, dtypes) = generate(seed);
        let k = &b.k;
        let n = 1 + seed as i64 % 13;
        let lookup = |s: &str| (s == "n").then_some(n);
        let mut want = inputs.clone();
        let data: Vec<BufferData> = k
            .params()
            .zip(&mut want)
            .map(|(p, bytes)| match p.scope {
                Scope::In => BufferData::from(&bytes[..]),
                _ => BufferData::from(&mut bytes[..]),
            })
            .collect();
        interp::run(k, &lookup, &data).unwrap_or_else(|e| panic!("seed {seed}: {e:?}\n{k}"));
        for target in targets() {
            let mut got = inputs.clone();
            run(&target, k, &mut got, &[n], 2);
            for (i, d) in dtypes.iter().enumerate() {
                let (got, want) = (bits_of(*d, &got[i]), bits_of(*d, &want[i]));
                for (j, (x, y)) in got.iter().zip(&want).enumerate() {
                    let name = target.name;
                    assert!(
                        same(*d, *x, *y),
                        "seed {seed} on {name}: b{i}[{j}] is {x:#x}, expected {y:#x}\n{k}"
                    );
                }
            }
        }
        ran += 1;
    }
    assert_eq!(ran, 400);
}
