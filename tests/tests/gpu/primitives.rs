//! Every primitive on its edge values: the printed text, run by the machine, has the bits that the interpreter gives.

use crate::machine;
use brolga::runtime::cuda::{Buffer, Launch, Plan, Step, Storage};
use brolga_codegen::ptx::{self, Arch};
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::interp::BufferData;
use brolga_ir::loops::{self, Buf, Expr, Kernel, LoopKind, RegInfo, Scope, Stmt};
use brolga_ir::scalar::{Prim, Scalar};
use brolga_ir::{DType, Dim, Number};

/// Values of a dtype at which primitives differ, as bits.
fn edges(dtype: DType) -> Vec<u64> {
    let number = |x: Number| Scalar::new(dtype, x).bits;
    if dtype == DType::Bool {
        return vec![0, 1];
    }
    if dtype.is_float() {
        let special = [
            0.0,
            f64::NAN,
            f64::INFINITY,
            f64::MAX,
            1e-310,
            f32::MAX as f64,
            1e-42,
            65520.0,
            9.3e18,
        ];
        let plain = [0.5, 1.0, 1.5, 2.5, 3.7, 127.9, 256.5, 40000.2, 3e9, 1.8e19];
        let all = special.iter().chain(&plain);
        return all
            .flat_map(|&x| [number(Number::Float(x)), number(Number::Float(-x))])
            .collect();
    }
    let bits = dtype.bits() as u32;
    let (least, most) = (-(1i128 << (bits - 1)), (1i128 << bits) - 1);
    let small = [0, 1, -1, 2, -2, 3, 7, -7, 8, 15, 16, 31, 32, 63, 64, 65, 100, -100];
    let large = [least, least + 1, -least - 1, -least, most, most - 1];
    small.iter().chain(&large).map(|&x| number(Number::Int(x))).collect()
}

/// One primitive on all combinations of edge values: the printed text has the interpreter's bits.
#[test]
fn primitives_have_the_bits_of_the_table() {
    let mut tried = 0;
    for p in Prim::all() {
        for t in DType::ALL {
            let mut types = vec![t; p.arity()];
            if p.chooses() {
                types[0] = DType::Bool;
            }
            if let Ok(result) = p.result(&types) {
                primitive(p, t, &types, result);
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried} primitives and dtypes");
}

fn primitive(p: Prim, t: DType, types: &[DType], result: DType) {
    let mut rows: Vec<Vec<u64>> = vec![vec![]];
    for &d in types {
        // A third operand takes every fifth value.
        let values: Vec<u64> = edges(d)
            .into_iter()
            .step_by(if types.len() == 3 && d != DType::Bool { 3 } else { 1 })
            .collect();
        rows = (rows.iter())
            .flat_map(|r| values.iter().map(|&v| [&r[..], &[v]].concat()))
            .collect();
    }
    let n = rows.len();
    let (block, thread) = (Var(0), Var(1));
    let at = &Ix::var(block).scale(&Dim::Const(64)) + &Ix::var(thread);
    let buffer = |dtype, scope| loops::Buffer {
        dtype,
        len: Dim::Const(n as i64),
        scope,
    };
    let mut buffers: Vec<loops::Buffer> = types.iter().map(|&d| buffer(d, Scope::In)).collect();
    buffers.push(buffer(result, Scope::Out));
    let reg = |&dtype: &DType| RegInfo { dtype, lanes: 1 };
    let mut then: Vec<Stmt> = (0..types.len() as u32)
        .map(|i| {
            let e = Expr::Load {
                buffer: Buf(i),
                index: at.clone(),
                guard: vec![],
                fill: 0,
            };
            Stmt::Set(Reg(i), e)
        })
        .collect();
    let last = Reg(types.len() as u32);
    let args = [0, 1, 2].map(|i| if i < types.len() as u32 { Reg(i) } else { Reg(0) });
    then.push(Stmt::Set(last, Expr::Prim(p, args)));
    then.push(Stmt::Store {
        buffer: Buf(last.0),
        index: at.clone(),
        value: last,
    });
    let bounds = vec![Bound {
        index: at,
        extent: Dim::Const(n as i64),
    }];
    let nest = |var, kind, extent: usize, body| Stmt::For {
        var,
        kind,
        extent: Ix::constant(extent as i64),
        body,
    };
    let inner = nest(thread, LoopKind::Thread(0), 64, vec![Stmt::If { bounds, then }]);
    let kernel = Kernel {
        name: "prim".into(),
        symbols: vec![],
        buffers,
        regs: types.iter().chain([&result]).map(reg).collect(),
        pooled: false,
        body: vec![nest(block, LoopKind::Block(0), n.div_ceil(64), vec![inner])],
    };
    let inputs: Vec<Vec<u8>> = (types.iter().enumerate())
        .map(|(i, d)| {
            rows.iter()
                .flat_map(|r| r[i].to_le_bytes()[..d.bytes()].to_vec())
                .collect()
        })
        .collect();
    let mut expected = vec![0u8; n * result.bytes()];
    let mut data: Vec<BufferData> = inputs.iter().map(|b| BufferData::from(&b[..])).collect();
    data.push((&mut expected[..]).into());
    loops::interp::run(&kernel, &|_| None, &data).unwrap_or_else(|e| panic!("{e}"));
    drop(data);
    let gpu_buffer = |bytes: usize, storage| Buffer {
        bytes: bytes as u64,
        storage,
    };
    let mut buffers: Vec<Buffer> = inputs.iter().map(|b| gpu_buffer(b.len(), Storage::Input)).collect();
    buffers.push(gpu_buffer(expected.len(), Storage::Output));
    let plan = Plan {
        name: "prim".into(),
        module: ptx::print_kernel(&kernel, Arch::Sm80).unwrap_or_else(|e| panic!("{e}")),
        entries: vec![ptx::entry_name(&kernel)],
        steps: vec![Step::Launch(Launch {
            entry: 0,
            grid: [n.div_ceil(64) as u32, 1, 1],
            block: [64, 1, 1],
            buffers: (0..=types.len()).collect(),
            dims: vec![],
            node: String::new(),
            checks: vec![],
        })],
        inputs: (0..types.len()).collect(),
        outputs: vec![types.len()],
        buffers,
        ..Plan::default()
    };
    let bytes: Vec<&[u8]> = inputs.iter().map(|b| &b[..]).collect();
    let found = machine::run(&plan, &bytes).expect("there are no checks").remove(0);
    let (f, e) = (found.chunks(result.bytes()), expected.chunks(result.bytes()));
    for (row, (f, e)) in rows.iter().zip(f.zip(e)) {
        let (x, y) = (brolga_ir::decode(result, f), brolga_ir::decode(result, e));
        let nan = result.is_float() && x.f64().is_nan() && y.f64().is_nan();
        assert!(
            nan || f == e,
            "{p:?} of {t} on {row:x?}: {f:x?}, expected {e:x?}\n{}",
            plan.module
        );
    }
}
