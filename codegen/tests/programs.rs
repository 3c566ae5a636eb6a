//! Whole programs: entry functions, plan, shapes, constants, host operators, parallel loops, errors; in memory, as an
//! object file and as an image, with what an object file may leave undefined.

mod common;

use brolga_abi::{Body, Ctx, ErrorCode, HostFn, NO_NODE, ParallelFor, PlanFn, RunFn, ShapesFn, abi_fn};
use brolga_codegen::image::image;
use brolga_codegen::object::object;
use brolga_codegen::{Compiled, Jit, Unit, compile_program};
use brolga_ir::graph::Source;
use brolga_ir::program::{Program, SlotId};
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim, Number, Target, Tensor};
use common::*;
use object::{Object, ObjectSymbol};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;

/// y = relu(x + 2w) + 0.5 + (x + 2w), z = w.
const MODEL: &str = r#"program @model(x: s0) -> (y: s8, "the w": s9) symbols(n) arena 64*n {
  guard n == 2*floordiv(n, 2): "rows come in pairs"
  input s0: f32[n, 4] = 0
  weight s1: f32[4] file("ramp.bin", 12)
  computed s2: f32[4]
  weight s3: f32[4] splat 0.5
  temp s4: f32[n, 4] at 0
  view s5: f32[4*n] = s4
  temp s6: f32[4*n] at 16*n
  temp s7: f32[n, 4] at 32*n
  output s8: f32[n, 4] = 0
  output s9: f32[4] = 1
  init {
    call @double(s1, s2)
  }
  call @add(s0, s2, s4) origin("Add_0", "Mul \"1\"")
  host relu(s5) -> (s6) origin("Relu_2")
  call @add(s6, s3, s7)
  host add(s4, s7) -> (s8)
  copy s1 -> s9
}
loops @double(b0: f32[4] in, b1: f32[4] out) {
  for i0 serial 0..4 {
    r0: f32 = load b0[i0]
    r1: f32 = add r0 r0
    store b1[i0] = r1
  }
}
loops @add(b0: f32[4*n] in, b1: f32[4] in, b2: f32[4*n] out) symbols(n) {
  for i0 parallel(4*n from 40000) 0..n {
    for i1 vector 0..4 {
      r0: f32 = load b0[4*i0 + i1]
      r1: f32 = load b1[i1]
      r2: f32 = add r0 r1
      store b2[4*i0 + i1] = r2
    }
  }
}"#;

/// A file of the f32 values 0, 1, 2, ….
struct Ramp(Vec<u8>);

impl Source for Ramp {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn name(&self) -> &str {
        "ramp.bin"
    }
}

fn model() -> Program {
    let files = |name: &str| {
        let bytes = (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect();
        (name == "ramp.bin").then(|| Arc::new(Ramp(bytes)) as Arc<dyn Source>)
    };
    Program::parse(MODEL, &files).unwrap_or_else(|e| panic!("{e}"))
}

/// Where the constants lie in the weights.
fn layout(s: SlotId) -> Option<u64> {
    match s.0 {
        1 => Some(0),
        2 => Some(64),
        3 => Some(128),
        _ => None,
    }
}

fn build(unit: &mut Unit) -> Result<Compiled, brolga_codegen::Error> {
    compile_program(unit, &model(), &layout)
}

struct Functions {
    run: RunFn,
    plan: PlanFn,
    shapes: ShapesFn,
}

impl Functions {
    /// # Safety
    /// The addresses are those of a program's functions.
    unsafe fn new(run: *const u8, plan: *const u8, shapes: *const u8) -> Functions {
        // SAFETY: as the caller promises.
        unsafe {
            Functions {
                run: std::mem::transmute::<*const u8, RunFn>(run),
                plan: std::mem::transmute::<*const u8, PlanFn>(plan),
                shapes: std::mem::transmute::<*const u8, ShapesFn>(shapes),
            }
        }
    }
}

thread_local! {
    static PARALLEL_CALLS: Cell<u32> = const { Cell::new(0) };
}

abi_fn! {
    unsafe fn in_pieces(ctx: *mut Ctx, body: Body, arg: *mut c_void, n: i64) -> i32 {
        PARALLEL_CALLS.set(PARALLEL_CALLS.get() + 1);
        // SAFETY: a program calls this with its own context and a body that belongs to `arg`.
        unsafe {
            let workers = i64::from((*ctx).workers);
            for w in 0..workers {
                body(arg, w * n / workers, (w + 1) * n / workers, w as u32);
            }
        }
        0
    }
}

abi_fn! {
    unsafe fn relu(_u: *mut c_void, i: u32, ctx: *mut Ctx, ins: *const *const c_void, outs: *const *mut c_void) -> i32 {
        assert_eq!(i, 0);
        // SAFETY: the program passes tensors of 4n elements.
        unsafe {
            let (x, y) = ((*ins).cast::<f32>(), (*outs).cast::<f32>());
            for i in 0..4 * *(*ctx).dims as usize {
                *y.add(i) = (*x.add(i)).max(0.0);
            }
        }
        0
    }
}

abi_fn! {
    unsafe fn add(_u: *mut c_void, i: u32, ctx: *mut Ctx, ins: *const *const c_void, outs: *const *mut c_void) -> i32 {
        assert_eq!(i, 1);
        // SAFETY: the program passes tensors of 4n elements.
        unsafe {
            let (x, z, y) = ((*ins).cast::<f32>(), (*ins.add(1)).cast::<f32>(), (*outs).cast::<f32>());
            for i in 0..4 * *(*ctx).dims as usize {
                *y.add(i) = *x.add(i) + *z.add(i);
            }
        }
        0
    }
}

abi_fn! {
    unsafe fn fails(_u: *mut c_void, _i: u32, _ctx: *mut Ctx, _a: *const *const c_void, _b: *const *mut c_void) -> i32 {
        5
    }
}

/// The weights: what the initial steps make stands between those that the file gives.
fn weights() -> Aligned {
    let mut blob = vec![0u8; 192];
    blob[..16].copy_from_slice(&f32s(&[3.0, 4.0, 5.0, 6.0]));
    blob[64..80].copy_from_slice(&f32s(&[6.0, 8.0, 10.0, 12.0]));
    blob[128..144].copy_from_slice(&f32s(&[0.5; 4]));
    Aligned::new(&blob)
}

/// Runs the model on some rows and compares it with the interpreter.
fn check(f: &Functions, rows: i64, workers: u32, parallel: Option<ParallelFor>) {
    let x = Tensor::from_fn(DType::F32, &[rows as usize, 4], |i| {
        Number::Float(i as f64 * 3.0 - 20.0)
    });
    let want = brolga_ir::program::interp::run(&model(), std::slice::from_ref(&x)).unwrap();
    let mut weights = weights();
    let dims = [rows];
    let mut bytes = 0;
    let mut shape = [0i64; 3];
    // SAFETY: one symbol, three extents.
    unsafe {
        assert_eq!((f.plan)(dims.as_ptr(), workers, &raw mut bytes), 0);
        assert_eq!((f.shapes)(dims.as_ptr(), shape.as_mut_ptr()), 0);
    }
    assert_eq!(bytes, 64 * rows as u64);
    assert_eq!(shape, [rows, 4, 4]);
    let mut arena = Aligned::new(&vec![0; bytes as usize]);
    let host: [HostFn; 2] = [relu, add];
    let mut ctx = Ctx {
        workers,
        weights: weights.ptr(),
        arena: arena.ptr(),
        arena_bytes: bytes,
        dims: dims.as_ptr(),
        parallel_for: parallel,
        host: host.as_ptr(),
        ..Ctx::new()
    };
    let (mut y, mut z) = (vec![0f32; 4 * rows as usize], vec![0f32; 4]);
    let input: Vec<f32> = x.to_f32s();
    let (ins, mut outs) = ([input.as_ptr()], [y.as_mut_ptr(), z.as_mut_ptr()]);
    // SAFETY: all tensors have the sizes that the dims mean.
    let status = unsafe { (f.run)(&raw mut ctx, ins.as_ptr().cast(), outs.as_mut_ptr().cast()) };
    assert_eq!(status, 0);
    assert_eq!(ctx.error_code, 0);
    if bytes > 0 {
        ctx.arena_bytes = bytes - 1;
        // SAFETY: as before.
        let status = unsafe { (f.run)(&raw mut ctx, ins.as_ptr().cast(), outs.as_mut_ptr().cast()) };
        assert_eq!(
            (status, ctx.error_code),
            (ErrorCode::ArenaTooSmall as i32, ErrorCode::ArenaTooSmall as i32)
        );
    }
    assert_eq!(y, want[0].to_f32s());
    assert_eq!(z, want[1].to_f32s());
}

fn jit_functions(target: &Target) -> (Jit, Functions) {
    let (jit, made) = Jit::new(target, "model", &model().symbols, build).unwrap();
    // SAFETY: these are the program's functions.
    let f = unsafe { Functions::new(jit.address(made.run), jit.address(made.plan), jit.address(made.shapes)) };
    (jit, f)
}

#[test]
fn a_program_in_memory() {
    for target in targets() {
        let (_jit, f) = jit_functions(&target);
        for rows in [0, 2, 6] {
            check(&f, rows, 1, None);
        }
        let before = PARALLEL_CALLS.get();
        check(&f, 2, 3, Some(in_pieces));
        assert_eq!(PARALLEL_CALLS.get(), before, "too little work for workers");
        check(&f, 20_000, 3, Some(in_pieces));
        assert_eq!(PARALLEL_CALLS.get(), before + 2);
    }
}

#[test]
fn the_first_error_is_kept() {
    let target = &targets()[0];
    let (_jit, f) = jit_functions(target);
    let run = |dims: &[i64], change: &dyn Fn(&mut Ctx)| {
        let mut weights = weights();
        let mut arena = Aligned::new(&[0; 1024]);
        let mut ctx = Ctx {
            weights: weights.ptr(),
            arena: arena.ptr(),
            arena_bytes: 1024,
            dims: dims.as_ptr(),
            // What an earlier run left.
            error_code: ErrorCode::OutOfMemory as i32,
            error_node: 7,
            ..Ctx::new()
        };
        change(&mut ctx);
        let (x, mut y, mut z) = ([0f32; 16], [0f32; 16], [0f32; 4]);
        let (ins, mut outs) = ([x.as_ptr()], [y.as_mut_ptr(), z.as_mut_ptr()]);
        // SAFETY: there is memory for up to four rows.
        let status = unsafe { (f.run)(&raw mut ctx, ins.as_ptr().cast(), outs.as_mut_ptr().cast()) };
        assert_eq!(status, ctx.error_code);
        (ErrorCode::split(status).unwrap(), ctx.error_node)
    };
    assert_eq!(
        run(&[4], &|c| c.abi_version = 99),
        ((ErrorCode::AbiVersion, 0), NO_NODE)
    );
    assert_eq!(run(&[3], &|_| {}), ((ErrorCode::Guard, 0), NO_NODE));
    assert_eq!(run(&[-2], &|_| {}), ((ErrorCode::BadDims, 0), NO_NODE));
    // Twice, since sizes come modulo 2^64: 16 bytes a row, and the same rows as four.
    assert_eq!(run(&[1 << 60], &|_| {}), ((ErrorCode::TooLarge, 0), NO_NODE));
    assert_eq!(run(&[(1 << 60) + 4], &|_| {}), ((ErrorCode::TooLarge, 0), NO_NODE));
    assert_eq!(
        brolga_codegen::plan::sizes(&model())[0],
        "output `y`, f32[n, 4],",
        "size 0 is the one that is too large"
    );
    assert_eq!(
        run(&[4], &|c| c.arena_bytes = 255),
        ((ErrorCode::ArenaTooSmall, 0), NO_NODE)
    );
    assert_eq!(run(&[4], &|_| {}), ((ErrorCode::HostMissing, 0), 0));
    let host: [HostFn; 2] = [fails, fails];
    assert_eq!(run(&[4], &|c| c.host = host.as_ptr()), ((ErrorCode::HostFailed, 0), 0));
    assert_eq!(
        brolga_codegen::program::nodes(&model().steps)[0].as_ref(),
        "Relu_2",
        "node 0 is the failing one"
    );
}

#[test]
fn an_image_runs_wherever_it_is_mapped() {
    for target in targets() {
        let (image, made) = image(&target, "model", &model().symbols, build).unwrap();
        assert!(made.kernels[0].is_none() && made.kernels[1].is_some());
        let mut map = memmap2::MmapMut::map_anon(image.bytes.len()).unwrap();
        map.copy_from_slice(&image.bytes);
        let map = map.make_exec().unwrap();
        let at = |name: &str| map.as_ptr().wrapping_add(image.offset(name).unwrap() as usize);
        // SAFETY: these are the program's functions.
        let f = unsafe { Functions::new(at("model_run"), at("model_plan"), at("model_shapes")) };
        check(&f, 20_000, 2, Some(in_pieces));
    }
    assert!(
        image(&targets()[0], "model", &[], build).is_err(),
        "symbols are missing"
    );
}

#[test]
fn an_image_carries_its_constants() {
    let k = polynomial(DType::F32, 8, 64);
    let input = f32s(&(0..64).map(|i| i as f32 / 50.0 - 0.5).collect::<Vec<_>>());
    for target in targets() {
        let build = |u: &mut Unit| brolga_codegen::program::compile_kernel(u, &k);
        let (image, _) = image(&target, "t", &[], build).unwrap();
        let mut map = memmap2::MmapMut::map_anon(image.bytes.len()).unwrap();
        map.copy_from_slice(&image.bytes);
        let map = map.make_exec().unwrap();
        let at = map
            .as_ptr()
            .wrapping_add(image.offset("t_polynomial").unwrap() as usize);
        // SAFETY: the symbol is the kernel's, which has the signature of a loop body.
        let body = unsafe { std::mem::transmute::<*const u8, Body>(at) };
        let (mut x, mut y) = (Aligned::new(&input), Aligned::new(&[0; 256]));
        let mut args = [
            x.ptr(),
            y.ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        ];
        // SAFETY: the kernel reads and writes 64 elements.
        unsafe { body(args.as_mut_ptr().cast(), 0, 8, 0) };
        let mut want = [input.clone(), vec![0; 256]];
        run(&target, &k, &mut want, &[], 1);
        assert_eq!(y.bytes(), want[1], "{}", target.name);
        assert!(as_f32s(y.bytes()).iter().all(|v| *v != 0.0));
    }
}

#[test]
fn the_same_program_gives_the_same_bytes() {
    for target in Target::CPUS {
        let name = target.name;
        let bytes = || {
            object(&target, "model", &model().symbols, Some(&[1, 2, 3]), build)
                .unwrap()
                .0
        };
        assert_eq!(bytes(), bytes(), "{name}");
    }
}

/// Every primitive on every dtype in one kernel, as scalars and in lanes.
fn everything() -> Vec<brolga_ir::loops::Kernel> {
    use brolga_ir::loops::{LoopKind, Scope, Stmt};
    let mut out = vec![];
    for lanes in [1, 8] {
        let mut b = Build::new("everything", &[]);
        let mut body = vec![];
        for d in DType::ALL {
            let (x, r) = (b.buffer(d, 64, Scope::Out), b.reg(d));
            body.push(Stmt::Set(r, load(x, affine(&[(0, 1)], 0))));
        }
        for p in Prim::all() {
            for (i, d) in DType::ALL.into_iter().enumerate() {
                let mut dtypes = vec![d; p.arity()];
                let mut regs = vec![brolga_ir::index::Reg(i as u32); p.arity()];
                if p.chooses() {
                    dtypes[0] = DType::Bool;
                    let at = DType::ALL.iter().position(|x| *x == DType::Bool).unwrap();
                    regs[0] = brolga_ir::index::Reg(at as u32);
                }
                let Ok(to) = p.result(&dtypes) else { continue };
                let r = b.reg(to);
                body.push(Stmt::Set(r, prim(p, &regs)));
                let at = DType::ALL.iter().position(|x| *x == to).unwrap();
                body.push(store(brolga_ir::loops::Buf(at as u32), affine(&[(0, 1)], 8), r));
            }
        }
        let kind = if lanes == 1 { LoopKind::Serial } else { LoopKind::Vector };
        b.k.body = vec![each(0, kind, Dim::Const(lanes), body)];
        out.push(b.k);
    }
    out
}

#[test]
fn an_object_leaves_nothing_undefined() {
    for target in Target::CPUS {
        let name = target.name;
        let (bytes, _) = object(&target, "model", &model().symbols, Some(&[7; 100]), |u| {
            for (i, k) in everything().iter().chain([&polynomial(DType::F32, 16, 64)]).enumerate() {
                let k = brolga_ir::loops::Kernel {
                    name: format!("k{i}"),
                    ..k.clone()
                };
                brolga_codegen::program::compile_kernel(u, &k)?;
            }
            build(u)
        })
        .unwrap();
        let file = object::File::parse(&bytes[..]).unwrap();
        let undefined: Vec<_> = file
            .symbols()
            .filter(|s| s.is_undefined())
            .map(|s| s.name().unwrap().to_owned())
            .filter(|s| !s.is_empty())
            .collect();
        assert_eq!(undefined, Vec::<String>::new(), "{name}");
        let mut exported: Vec<_> = file
            .symbols()
            .filter(|s| s.is_global() && s.is_definition())
            .map(|s| s.name().unwrap().to_owned())
            .collect();
        exported.sort();
        exported.retain(|s| !s.starts_with("model_k"));
        assert_eq!(
            exported,
            ["model_plan", "model_run", "model_shapes", "model_weights"],
            "{name}"
        );
    }
}

#[test]
fn listings_show_every_function() {
    for target in Target::CPUS {
        let (_, listings) = object(&target, "model", &model().symbols, None, |u| {
            u.keep_listings();
            build(u)?;
            Ok(u.take_listings())
        })
        .unwrap();
        let names: Vec<&str> = listings.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "model_k1_add",
                "brolga_sizes",
                "model_sizes",
                "model_plan",
                "model_shapes",
                "brolga_launch",
                "brolga_copy",
                "model_run"
            ]
        );
        for l in &listings {
            assert!(
                l.ir.contains("block0") && l.asm.contains("ret") && l.bytes > 0,
                "{} {}",
                l.name,
                l.asm
            );
        }
    }
}

const HEAD: &str = include_str!("../../tests/programs/head.ir");
const POWERS: &str = include_str!("../../tests/programs/powers.ir");

/// A program of the tests with a memory plan: temporaries at these offsets.
fn planned(text: &str, arena: &str, places: &[(&str, &str)]) -> Program {
    let mut text = text.replacen("symbols(n) {", &format!("symbols(n) arena {arena} {{"), 1);
    for (slot, to) in places {
        assert!(text.contains(slot), "{slot}");
        text = text.replacen(slot, to, 1);
    }
    let p = Program::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}"));
    p.verify().unwrap_or_else(|e| panic!("{e}"));
    p
}

fn head() -> Program {
    let places = [
        ("s2: f32[n + 4]", "s2: f32[n + 4] at 0"),
        ("s5: f32[k]", "s5: f32[k] at 4*n + 16"),
        ("s10: f32[twice]", "s10: f32[twice] at 8*n + 16"),
    ];
    planned(HEAD, "16*n + 16", &places)
}

fn powers() -> Program {
    let places = [
        ("s5: f32[n]", "s5: f32[n] at 0"),
        ("s6: f32[n]", "s6: f32[n] at 4*n"),
        ("s7: i32[1]", "s7: i32[1] at 8*n"),
        ("s8: i32[1]", "s8: i32[1] at 8*n + 4"),
        ("s9: bool[]", "s9: bool[] at 8*n + 8"),
        ("temp s11", "heap s11"),
    ];
    planned(POWERS, "8*n + 64", &places)
}

thread_local! {
    /// What `allocate` gave, and how much is left.
    static BLOCKS: std::cell::RefCell<Vec<Aligned>> = const { std::cell::RefCell::new(vec![]) };
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

abi_fn! {
    unsafe fn allocate(_ctx: *mut Ctx, bytes: u64, align: u64) -> *mut c_void {
        assert!(align <= 64 && bytes > 0);
        if bytes > LEFT.get() {
            return std::ptr::null_mut();
        }
        LEFT.set(LEFT.get() - bytes);
        let mut block = Aligned::new(&vec![0xa5; bytes as usize]);
        let at = block.ptr();
        BLOCKS.with_borrow_mut(|b| b.push(block));
        at.cast()
    }
}

/// What a run leaves: the status with its detail and the node and number of the error, or extents and the outputs' bytes.
type Ran = Result<(Vec<i64>, Vec<Vec<u8>>), (ErrorCode, u32, u32, i64)>;

/// Runs a program of one symbol; outputs have `room` bytes where that is given, else the run allocates them.
fn ran(
    p: &Program,
    target: &Target,
    n: i64,
    inputs: &[Tensor],
    room: &[Option<usize>],
    workers: u32,
    left: u64,
) -> Ran {
    let (jit, made) = Jit::new(target, "late", &p.symbols, |u| compile_program(u, p, &|_| None)).unwrap();
    // SAFETY: these are the program's functions.
    let f = unsafe { Functions::new(jit.address(made.run), jit.address(made.plan), jit.address(made.shapes)) };
    let mut bytes = 0;
    // SAFETY: one symbol.
    assert_eq!(unsafe { (f.plan)([n].as_ptr(), workers, &raw mut bytes) }, 0);
    let mut arena = Aligned::new(&vec![0xff; bytes as usize]);
    let ranks = p.outputs.iter().map(|(_, s)| p.slot(*s).ty.rank());
    let (mut extents, dims) = (vec![-7; ranks.sum()], [n]);
    let out_bytes: Vec<u64> = room.iter().map(|r| r.unwrap_or(0) as u64).collect();
    LEFT.set(left);
    BLOCKS.with_borrow_mut(Vec::clear);
    let mut ctx = Ctx {
        workers,
        arena: arena.ptr(),
        arena_bytes: bytes,
        dims: dims.as_ptr(),
        parallel_for: Some(in_pieces),
        alloc: Some(allocate),
        out_dims: extents.as_mut_ptr(),
        out_bytes: out_bytes.as_ptr(),
        ..Ctx::new()
    };
    let mut own: Vec<Option<Aligned>> = room.iter().map(|r| r.map(|n| Aligned::new(&vec![0; n]))).collect();
    let ins: Vec<*const u8> = inputs.iter().map(|t| t.bytes().as_ptr()).collect();
    let null = std::ptr::null_mut();
    let mut outs: Vec<*mut u8> = own.iter_mut().map(|o| o.as_mut().map_or(null, Aligned::ptr)).collect();
    // SAFETY: all tensors have the sizes that the dims mean, or the run is told how large they are.
    let status = unsafe { (f.run)(&raw mut ctx, ins.as_ptr().cast(), outs.as_mut_ptr().cast()) };
    assert_eq!(ctx.dims, dims.as_ptr());
    if status != 0 {
        let (code, detail) = ErrorCode::split(status).unwrap();
        return Err((code, detail, ctx.error_node, ctx.error_value));
    }
    let mut rest = &extents[..];
    let outputs = p.outputs.iter().zip(&outs).map(|((_, s), at)| {
        let ty = &p.slot(*s).ty;
        let (own, others) = rest.split_at(ty.rank());
        rest = others;
        let bytes = own.iter().product::<i64>() as usize * ty.dtype.bytes();
        // SAFETY: the run says that the output has these extents.
        unsafe { std::slice::from_raw_parts(*at, bytes) }.to_vec()
    });
    let outputs = outputs.collect();
    Ok((extents, outputs))
}

fn numbers(n: usize) -> Tensor {
    Tensor::from_fn(DType::F32, &[n], |i| Number::Float(i as f64 + 1.0))
}

/// Runs a program as the interpreter does, and compares.
fn agree(p: &Program, target: &Target, n: i64, inputs: &[Tensor], room: &[Option<usize>], workers: u32) {
    let want = brolga_ir::program::interp::run(p, inputs).unwrap_or_else(|e| panic!("{e}"));
    let (extents, outputs) = ran(p, target, n, inputs, room, workers, 1 << 24).unwrap();
    let shapes: Vec<i64> = want.iter().flat_map(|t| t.shape().iter().map(|d| *d as i64)).collect();
    assert_eq!(extents, shapes);
    for (found, want) in outputs.iter().zip(&want) {
        assert_eq!(found, want.bytes());
    }
}

#[test]
fn sizes_that_only_the_run_tells() {
    for target in targets() {
        let p = head();
        for (n, k) in [(5, 3), (5, 5), (1, 1), (90_000, 80_001)] {
            let inputs = [numbers(n), Tensor::splat(DType::I64, &[], Number::Int(k as i128))];
            agree(&p, &target, n as i64, &inputs, &[None, Some(8 * n)], 3);
            agree(&p, &target, n as i64, &inputs, &[Some(8 * k), Some(8 * n)], 1);
        }
        let fails = |k: i128, room: &[Option<usize>], left: u64| {
            let inputs = [numbers(5), Tensor::splat(DType::I64, &[], Number::Int(k))];
            ran(&p, &target, 5, &inputs, room, 1, left).unwrap_err()
        };
        let room = [None, Some(40)];
        assert_eq!(fails(6, &room, 1000), (ErrorCode::CheckFailed, 0, 0, 6));
        assert_eq!(fails(-3, &room, 1000), (ErrorCode::CheckFailed, 0, 0, -3));
        assert_eq!(fails(0, &room, 1000), (ErrorCode::CheckFailed, 1, 1, 1));
        assert_eq!(fails(3, &room, 23), (ErrorCode::OutOfMemory, 0, 3, 0));
        assert_eq!(
            fails(3, &[Some(23), Some(40)], 0),
            (ErrorCode::OutputTooSmall, 0, 3, 24)
        );
        let names = brolga_codegen::program::nodes(&p.steps);
        let names: Vec<&str> = names.iter().map(|n| &**n).collect();
        assert_eq!(names, ["Shape_0", "Check_1", "Mul_2", "Concat_3"]);
        let checks = [
            "expected a size from 0 to n",
            "expected 1 <= k (something is kept), where data tell k at node `Shape_0`",
        ];
        assert_eq!(brolga_codegen::program::checks(&p.steps), checks);
    }
}

#[test]
fn shapes_tell_the_largest_extents() {
    let shapes = |p: &Program, n: i64| {
        let (jit, made) = Jit::new(&targets()[0], "late", &p.symbols, |u| compile_program(u, p, &|_| None)).unwrap();
        // SAFETY: these are the program's functions.
        let f = unsafe { Functions::new(jit.address(made.run), jit.address(made.plan), jit.address(made.shapes)) };
        let mut out = [0i64; 2];
        // SAFETY: one symbol, two extents.
        let status = unsafe { (f.shapes)([n].as_ptr(), out.as_mut_ptr()) };
        (status, out)
    };
    assert_eq!(shapes(&head(), 7), (0, [14, 14]));
    assert_eq!(shapes(&powers(), 7), (0, [7, -1]));
}

#[test]
fn branches_and_loops() {
    for target in targets() {
        let p = powers();
        for (k, again) in [(0, true), (1, true), (9, true), (4, false)] {
            let inputs = [
                numbers(3),
                Tensor::splat(DType::I32, &[1], Number::Int(k)),
                Tensor::splat(DType::Bool, &[], Number::Int(again.into())),
            ];
            agree(&p, &target, 3, &inputs, &[Some(12), None], 1);
            // One block for the number, one for the output, and for the loop's one that is used again.
            let blocks = BLOCKS.with_borrow(Vec::len);
            assert_eq!(blocks, 1 + usize::from(k > 0) + usize::from(k > 0 && again));
        }
        let inputs = [
            numbers(3),
            Tensor::splat(DType::I32, &[1], Number::Int(-1)),
            Tensor::splat(DType::Bool, &[], Number::Int(1)),
        ];
        let e = ran(&p, &target, 3, &inputs, &[Some(12), None], 1, 1000).unwrap_err();
        assert_eq!(e, (ErrorCode::CheckFailed, 0, 0, -1));
    }
}

#[test]
fn sizes_beyond_64_bits_fail_where_they_become_known() {
    let text = HEAD
        .replace("s1 <= n origin", "s1 origin")
        .replace("let twice = 2*k", "let twice = k*k");
    let text = text
        .replace("view s4: f32[k] = s2 + 16", "heap s4: f32[k]")
        .replace("call @double(s4, s5)", "alloc s4 call @fill(s4) call @double(s4, s5)");
    let text = text
        + "\nloops @fill(b0: f32[k] out) symbols(k) { for i0 serial 0..k { r0: f32 = const f32 1.0 store b0[i0] = r0 } }";
    let p = planned(
        &text,
        "4*n + 16",
        &[
            ("s2: f32[n + 4]", "s2: f32[n + 4] at 0"),
            ("temp s5", "heap s5"),
            ("temp s10", "heap s10"),
        ],
    );
    let sizes = brolga_codegen::plan::sizes(&p);
    let at = |what: &str| sizes.iter().position(|s| s.starts_with(what)).unwrap() as u32;
    let fails = |k: i64| {
        let inputs = [numbers(5), Tensor::splat(DType::I64, &[], Number::Int(k.into()))];
        ran(&p, &targets()[0], 5, &inputs, &[None, Some(40)], 1, 1000).unwrap_err()
    };
    assert_eq!(fails(1 << 33), (ErrorCode::TooLarge, at("`twice`, k*k,"), NO_NODE, 0));
    assert_eq!(fails((1 << 31) - 1), (ErrorCode::OutOfMemory, 0, 2, 0));
    let all = sizes[at("`twice`") as usize..].join(" ");
    assert!(
        all.contains("a value of node `Mul_2`, f32[k],") && all.contains("a position in"),
        "{all}"
    );
}

#[test]
fn late_programs_are_the_same_in_objects_and_images() {
    for p in [head(), powers()] {
        for target in targets() {
            let build = |u: &mut Unit| compile_program(u, &p, &|_| None);
            let bytes = || object(&target, "late", &p.symbols, None, build).unwrap().0;
            assert_eq!(bytes(), bytes());
            let again = Program::parse(&p.to_string(), &|_| None).unwrap();
            let (other, _) = object(&target, "late", &again.symbols, None, |u| {
                compile_program(u, &again, &|_| None)
            })
            .unwrap();
            assert_eq!(bytes(), other, "through text");
            image(&target, "late", &p.symbols, build).unwrap();
        }
    }
}

/// A chain of copies of rows to temporaries of sizes in no order, as the memory plan places them: blocks one behind the
/// other, each end a name.
fn chain(n: i64) -> Program {
    let (mut slots, mut lets, mut steps) = (String::new(), String::new(), String::new());
    for i in 1..=n {
        let ty = format!("f32[a + {i}, b + {}]", n - i);
        let at = if i == 1 {
            "0".to_string()
        } else {
            format!("end.{}", i - 1)
        };
        let before = if i == 1 {
            String::new()
        } else {
            format!("end.{} + ", i - 1)
        };
        let bytes = format!("{before}4*a*b + {}*a + {}*b + {}", 4 * (n - i), 4 * i, 4 * i * (n - i));
        lets += &format!("  let end.{i} = {bytes}\n");
        slots += &format!("  temp s{i}: {ty} at {at}\n");
        steps += &format!("  copy s0 -> s{i} rows(a, 4*b, 0, 4*b + {})\n", 4 * (n - i));
    }
    let text = format!(
        "program @chain(x: s0) -> () symbols(a, b) arena end.{n} {{\n{lets}  input s0: f32[a, b] = 0\n{slots}{steps}}}"
    );
    let p = Program::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    p.verify().unwrap_or_else(|e| panic!("{e}"));
    p
}

#[test]
fn code_is_linear_in_the_number_of_temporaries() {
    let lines = |n: i64| {
        let p = chain(n);
        let (_, listings) = object(&targets()[0], "chain", &p.symbols, None, |u| {
            u.keep_listings();
            compile_program(u, &p, &|_| None)?;
            Ok(u.take_listings())
        })
        .unwrap();
        ["chain_plan", "chain_run"].map(|f| {
            let listing = listings.iter().find(|l| l.name == f).unwrap();
            listing.ir.lines().count()
        })
    };
    let (few, many) = (lines(50), lines(200));
    for (few, many) in few.iter().zip(&many) {
        assert!(
            *many < 5 * few,
            "{few} lines of CLIF for 50 temporaries, {many} for 200"
        );
    }
}
