//! Bodies in vectors of 256 and 512 bits against the same in 128 bits.
//!
//! `cargo bench -p brolga-benches --bench wide`. A line a body and level of CPU: nanoseconds of both, medians of interleaved
//! rounds on one thread, and how many times faster the wide one is. The maps run over 64 KiB; the rest as sessions.

use brolga::ir::loops::{Buf, Buffer, Expr, Grain, Kernel, LoopKind, RegInfo, Scope, Stmt};
use brolga::ir::{DType, Dim, Graph, Number, Target, Tensor};
use brolga::{Options, Session, View, compile, tensors};
use brolga_codegen::program::compile_kernel;
use brolga_codegen::{Jit, target::runs_here};
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::scalar::{Builder, Inst};
use brolga_ir::target::{Kind, TileFamily};
use std::time::{Duration, Instant};

/// Rounds, in each of which both run for a while.
const ROUNDS: usize = 9;
/// How long each runs in a round.
const ROUND: Duration = Duration::from_millis(20);
/// Elements of the maps: 64 KiB.
const ELEMENTS: i64 = 16 << 10;

const MAPS: [&str; 6] = ["gelu", "exp", "tanh", "sigmoid", "silu", "relu"];

/// Graphs: name, text.
const GRAPHS: [(&str, &str); 4] = [
    (
        "softmax 512 x 128",
        "graph @g(%0 x: f32[512, 128]) symbols() {
          %1 = softmax{axis=1 zeros=never}(%0)
          return y = %1
        }",
    ),
    (
        "layer norm 512 x 768",
        "graph @g(%0 x: f32[512, 768]) symbols() {
          %1 = const f32[768] splat 1.5
          %2 = const f32[768] splat 0.25
          %3 = layer_norm{axis=1 eps=1e-5}(%0, %1, %2)
          return y = %3
        }",
    ),
    (
        "depthwise 3 x 3, 96 x 56 x 56",
        "graph @g(%0 x: f32[1, 96, 56, 56]) symbols() {
          %1 = const f32[96, 1, 3, 3] splat 0.02
          %2 = conv{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=96 acc=f32 out=f32}(%0, %1)
          return y = %2
        }",
    ),
    (
        "max pool 3 x 3 / 2, 64 x 112 x 112",
        "graph @g(%0 x: f32[1, 64, 112, 112]) symbols() {
          %1 = pool{kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] sizes=[56, 56]}(%0)
          return y = %1
        }",
    ),
];

fn main() {
    println!(
        "{:36} {:10} {:>11} {:>11} {:>6}",
        "body", "level", "ns 128 bits", "ns wide", "times"
    );
    for wide in Target::CPUS
        .into_iter()
        .rev()
        .filter(|t| runs_here(t) && narrow(t).is_some())
    {
        let narrow = narrow(&wide).expect("it was asked before");
        let own = wide.cpu().and_then(|c| c.body_lanes()).map_or(4, i64::from);
        for name in MAPS {
            // The number of lanes that is best for 128 bits.
            let (few, own) = if name == "relu" { (16, 16) } else { (8, own) };
            let (mut a, mut b) = (Map::new(&narrow, name, few), Map::new(&wide, name, own));
            line(name, &wide, [&mut || a.run(), &mut || b.run()]);
        }
        for (name, text) in GRAPHS {
            let graph = match Graph::parse(text, &|_| None) {
                Ok(graph) => graph,
                Err(e) => panic!("{name}: {e}"),
            };
            let session = |target: &Target| {
                let options = Options {
                    target: target.clone(),
                    ..Options::default()
                };
                let compiled = compile(&graph, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
                compiled
                    .session_with(1, options.memory_limit)
                    .unwrap_or_else(|e| panic!("{name}: {e}"))
            };
            let (a, b) = (session(&narrow), session(&wide));
            let inputs = inputs(&a);
            let views: Vec<View> = inputs.iter().map(tensors::view).collect();
            let run = |s: &Session| {
                s.run(&views).expect("the inputs fit");
            };
            line(name, &wide, [&mut || run(&a), &mut || run(&b)]);
        }
    }
}

/// The same CPU with 128-bit vectors only; none for one that has no others.
fn narrow(target: &Target) -> Option<Target> {
    let mut cpu = target.cpu()?.clone();
    cpu.body_lanes()?;
    cpu.tile = TileFamily::Generic;
    Some(Target {
        kind: Kind::Cpu(cpu),
        ..target.clone()
    })
}

fn line(name: &str, target: &Target, bodies: [&mut dyn FnMut(); 2]) {
    let mut times = [vec![], vec![]];
    let mut bodies = bodies;
    for _ in 0..ROUNDS {
        for (body, times) in bodies.iter_mut().zip(&mut times) {
            body();
            let (start, mut runs) = (Instant::now(), 0u32);
            while start.elapsed() < ROUND {
                body();
                runs += 1;
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(runs));
        }
    }
    let [narrow, wide] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    println!(
        "{name:36} {:10} {narrow:>11.0} {wide:>11.0} {:>6.2}",
        target.name,
        narrow / wide
    );
}

fn inputs(session: &Session) -> Vec<Tensor> {
    let one = |input: &brolga::abi::Input| {
        let shape = input.shape().expect("there are no symbols");
        Tensor::from_fn(tensors::ir_dtype(input.dtype), &shape, |i| {
            Number::Float((i % 17) as f64 / 17.0 - 0.5)
        })
    };
    session.inputs().iter().map(one).collect()
}

/// A function over 64 KiB.
struct Map {
    _jit: Jit,
    body: brolga::abi::Body,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Map {
    fn new(target: &Target, name: &str, lanes: i64) -> Map {
        let k = kernel(name, lanes);
        let (jit, id) = Jit::new(target, "bench", &[], |u| compile_kernel(u, &k)).unwrap_or_else(|e| panic!("{e}"));
        // SAFETY: the address is a kernel's, which has the signature of the ABI's loop body.
        let body: brolga::abi::Body = unsafe { std::mem::transmute(jit.address(id)) };
        let x = (0..ELEMENTS).map(|i| (i % 401) as f32 / 50.0 - 4.0).collect();
        let y = vec![0.0; ELEMENTS as usize];
        Map { _jit: jit, body, x, y }
    }

    fn run(&mut self) {
        let mut failed = 0u32;
        let mut args: [*mut u8; 6] = [
            self.x.as_mut_ptr().cast(),
            self.y.as_mut_ptr().cast(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw mut failed).cast(),
        ];
        // SAFETY: the kernel reads and writes the elements of its two buffers, which are there.
        unsafe { (self.body)(args.as_mut_ptr().cast(), 0, 1, 0) };
    }
}

/// `y[i] = f(x[i])`, so many lanes at once.
fn kernel(name: &str, lanes: i64) -> Kernel {
    let mut b = Builder::new(&[DType::F32]);
    let x = b.input(0);
    let result = b.call(name, &[x], None).unwrap_or_else(|e| panic!("{e}"));
    let body = b.finish(&[result]);
    let buffer = |scope| Buffer {
        dtype: DType::F32,
        len: Dim::Const(ELEMENTS),
        scope,
    };
    let at = &Ix::var(Var(1)).scale(&Dim::Const(lanes)) + &Ix::var(Var(2));
    let load = Expr::Load {
        buffer: Buf(0),
        index: at.clone(),
        guard: vec![],
        fill: 0,
    };
    let mut stmts = vec![Stmt::Set(Reg(0), load)];
    for (i, inst) in (1..).zip(&body.insts) {
        stmts.push(Stmt::Set(
            Reg(i),
            match inst {
                Inst::Const(_, bits) => Expr::Const(*bits),
                Inst::Prim(p, args) => Expr::Prim(*p, args.map(|v| Reg(v.0))),
            },
        ));
    }
    stmts.push(Stmt::Store {
        buffer: Buf(1),
        index: at,
        value: Reg(body.outputs[0].0),
    });
    let each = |var, kind, extent: i64, body| Stmt::For {
        var: Var(var),
        kind,
        extent: Ix::constant(extent),
        body,
    };
    let vector = each(2, LoopKind::Vector, lanes, stmts);
    let serial = each(1, LoopKind::Serial, ELEMENTS / lanes, vec![vector]);
    Kernel {
        name: name.into(),
        symbols: vec![],
        buffers: vec![buffer(Scope::In), buffer(Scope::Out)],
        regs: body
            .dtypes()
            .into_iter()
            .map(|dtype| RegInfo { dtype, lanes: 1 })
            .collect(),
        pooled: true,
        body: vec![each(0, LoopKind::Parallel(Grain::ALWAYS), 1, vec![serial])],
    }
}
