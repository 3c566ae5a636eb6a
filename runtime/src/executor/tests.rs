//! A program written by hand in the ABI: `y[batch, 3] = x[batch, 3] + w[3]`, `n = number of positive x` by a host
//! operator, `copy = y` through memory allocated on the way.

mod dynamic;

use std::ffi::c_void;

use brolga_abi::{Body, Ctx, Dim, ErrorCode, HostOp, Input, Meta, Output, abi_fn};

use super::*;
use crate::{Code, Functions, Weights};

abi_fn! {
    unsafe fn plan(dims: *const i64, workers: u32, arena_bytes: *mut u64) -> i32 {
        // SAFETY: the runtime passes two dims and a place for the result.
        unsafe {
            if *dims % 2 != 0 {
                return ErrorCode::Guard.status(1);
            }
            *arena_bytes = 12 * (*dims).cast_unsigned() + u64::from(workers);
        }
        0
    }
}

abi_fn! {
    unsafe fn shapes(dims: *const i64, out: *mut i64) -> i32 {
        // SAFETY: the runtime passes two dims and places for the outputs' four extents.
        unsafe { out.cast::<[i64; 4]>().write([*dims, 3, *dims, 3]) };
        0
    }
}

struct Add {
    x: *const f32,
    y: *mut f32,
    w: *const f32,
}

abi_fn! {
    unsafe fn add(arg: *mut c_void, begin: i64, end: i64, _worker: u32) {
        // SAFETY: `run` passes an `Add`; rows `begin..end` are nobody else's.
        unsafe {
            let Add { x, y, w } = *arg.cast::<Add>();
            for i in 3 * begin as usize..3 * end as usize {
                y.add(i).write(x.add(i).read() + w.add(i % 3).read());
            }
        }
    }
}

abi_fn! {
    unsafe fn run(ctx: *mut Ctx, inputs: *const *const c_void, outputs: *mut *mut c_void) -> i32 {
        // SAFETY: the runtime passes a context, two inputs and three outputs of the shapes in `meta`.
        unsafe {
            let rows = *(*ctx).dims;
            let x = (*inputs).cast::<f32>();
            assert_eq!(x.addr() % 4, 0);
            assert_eq!((*ctx).arena.addr() % 64, 0);
            let bytes = 12 * rows as usize;
            assert!((*ctx).arena_bytes >= bytes as u64);
            let mut arg = Add { x, y: (*ctx).arena.cast(), w: (*ctx).weights.cast() };
            let body: Body = add;
            let arg_pointer = (&raw mut arg).cast();
            match (*ctx).parallel_for {
                Some(parallel_for) => assert_eq!(parallel_for(ctx, body, arg_pointer, rows), 0),
                None => body(arg_pointer, 0, rows, 0),
            }
            std::ptr::copy_nonoverlapping((*ctx).arena, (*outputs).cast(), bytes);
            let copy = (*ctx).alloc.unwrap()(ctx, bytes as u64, 64).cast::<u8>();
            if copy.is_null() {
                (*ctx).error_code = ErrorCode::OutOfMemory as i32;
                (*ctx).error_node = 1;
                return -1;
            }
            std::ptr::copy_nonoverlapping((*ctx).arena, copy, bytes);
            std::ptr::copy_nonoverlapping(copy, (*outputs.add(1)).cast(), bytes);
            let counted = [*outputs.add(2)];
            let host = *(*ctx).host;
            let status = host((*ctx).host_user, 0, ctx, inputs, counted.as_ptr());
            if status != 0 {
                (*ctx).error_code = status;
                (*ctx).error_node = 0;
            }
            status
        }
    }
}

fn meta() -> Meta {
    let rows = |name: &str| Output {
        name: name.into(),
        dtype: DType::F32,
        rank: 2,
        dynamic: false,
        shape: "[batch, 3]".into(),
    };
    let square = vec![Dim::Symbol(0), Dim::Symbol(1)];
    Meta {
        name: "sum".into(),
        symbols: vec!["batch".into(), "seq".into()],
        inputs: vec![
            Input {
                name: "x".into(),
                dtype: DType::F32,
                dims: vec![Dim::Symbol(0), Dim::Const(3)],
                default: None,
            },
            Input {
                name: "mask".into(),
                dtype: DType::U8,
                dims: square,
                default: None,
            },
        ],
        outputs: vec![
            rows("y"),
            rows("copy"),
            Output {
                name: "n".into(),
                dtype: DType::I64,
                rank: 0,
                dynamic: false,
                shape: "[]".into(),
            },
        ],
        guards: vec!["seq > 0".into(), "batch % 2 == 0".into()],
        host_ops: vec![HostOp {
            text: "count_positive".into(),
            node: "count".into(),
            inputs: 1,
            outputs: 1,
        }],
        nodes: vec!["count".into(), "again".into()],
        weights_bytes: 12,
        ..Meta::default()
    }
}

struct ByHand;

impl Code for ByHand {
    fn functions(&self) -> Functions {
        Functions { run, plan, shapes }
    }
}

struct Count;

impl HostOps for Count {
    fn call(&self, index: u32, dims: &[i64], inputs: &[*const u8], outputs: &[*mut u8]) -> Result<(), String> {
        assert_eq!((index, inputs.len(), outputs.len()), (0, 1, 1));
        match dims[1] {
            7 => return Err("seven is not a sequence".into()),
            8 => panic!("eight"),
            _ => {}
        }
        // SAFETY: `run` passes `x` and the scalar output.
        unsafe {
            let x = std::slice::from_raw_parts(inputs[0].cast::<f32>(), 3 * dims[0] as usize);
            let positive = x.iter().filter(|&&x| x > 0.0).count() as i64;
            outputs[0].cast::<i64>().write_unaligned(positive);
        }
        Ok(())
    }
}

fn program() -> Arc<Program> {
    let weights = [10f32, 20.0, 30.0].map(f32::to_ne_bytes).concat();
    let weights = Weights::Owned(Arc::new(AlignedBytes::copy_of(&weights).unwrap()));
    // SAFETY: the functions above are what `meta` describes.
    Arc::new(unsafe { Program::new(meta(), Box::new(ByHand), weights) }.unwrap())
}

fn executor(threads: usize) -> Executor {
    let options = Options {
        threads,
        host: Some(Arc::new(Count)),
        ..Options::default()
    };
    Executor::with_options(program(), options).unwrap()
}

/// Runs `rows` rows and checks every output.
fn check(executor: &Executor, rows: usize, seq: usize) {
    let x: Vec<f32> = (0..3 * rows).map(|i| i as f32 - 4.0).collect();
    let mask = vec![1u8; rows * seq];
    let (x_shape, mask_shape) = ([rows, 3], [rows, seq]);
    let outputs = executor
        .run(&[View::of(&x, &x_shape), View::of(&mask, &mask_shape)])
        .unwrap();
    let expected: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(i, x)| x + [10.0, 20.0, 30.0][i % 3])
        .collect();
    for output in &outputs[..2] {
        assert_eq!(output.shape(), [rows, 3]);
        assert_eq!(output.as_slice::<f32>().unwrap(), expected);
    }
    let positive = x.iter().filter(|&&x| x > 0.0).count() as i64;
    assert_eq!(outputs[2].as_slice::<i64>(), Some([positive].as_slice()));
    assert_eq!(outputs[2].shape(), [0usize; 0]);
}

/// The message of the error that a run on these inputs gives.
fn refusal(inputs: &[View<'_>]) -> String {
    executor(1).run(inputs).unwrap_err().to_string()
}

#[test]
fn it_runs_serially_and_in_parallel_and_on_nothing() {
    for threads in [1, 2, 3] {
        let executor = executor(threads);
        assert_eq!(executor.workers() as usize, threads);
        for (rows, seq) in [(2, 4), (1000, 1), (0, 3), (4, 0), (2, 4)] {
            check(&executor, rows, seq);
        }
    }
}

#[test]
fn runs_overlap_and_arenas_are_reused() {
    let executor = executor(2);
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let executor = &executor;
            scope.spawn(move || (0..100).for_each(|round| check(executor, 2 * (1 + (caller + round) % 9), 2)));
        }
    });
    assert!(
        executor.arenas.lock().unwrap().len() <= 4,
        "one arena for each run at a time"
    );
    check(&executor, 5000, 1);
    let large = executor
        .arenas
        .lock()
        .unwrap()
        .iter()
        .map(|arena| arena.as_ptr())
        .max()
        .unwrap();
    check(&executor, 5000, 1);
    assert!(
        executor
            .arenas
            .lock()
            .unwrap()
            .iter()
            .any(|arena| arena.as_ptr() == large)
    );
}

#[test]
fn inputs_by_name_come_in_any_order() {
    let executor = executor(1);
    let (x, mask) = ([1f32; 6], [0u8; 2]);
    let (x, mask) = (View::of(&x, &[2, 3]), View::of(&mask, &[2, 1]));
    let outputs = executor.run_named(&[("mask", mask), ("x", x)]).unwrap();
    assert_eq!(outputs[0].as_slice::<f32>().unwrap()[..3], [11.0, 21.0, 31.0]);
    let message = |inputs: &[(&str, View<'_>)]| executor.run_named(inputs).unwrap_err().to_string();
    assert_eq!(
        message(&[("X", x)]),
        "no input is called `X`; the inputs are `x`, `mask`"
    );
    assert_eq!(message(&[("x", x), ("x", x)]), "input `x` is given twice");
    assert_eq!(message(&[("x", x)]), "input `mask` (u8 [batch, seq]) is missing");
}

#[test]
fn the_callers_tensors_are_filled_whatever_their_alignment() {
    let executor = executor(2);
    let (x, mask) = ([1f32, 2.0, 3.0, 4.0, 5.0, 6.0], [0u8; 2]);
    for shift in 0..4 {
        let mut input = [0u8; 32];
        input[shift..shift + 24].copy_from_slice(View::of(&x, &[2, 3]).bytes);
        let x = View {
            dtype: DType::F32,
            shape: &[2, 3],
            bytes: &input[shift..shift + 24],
        };
        let inputs = [x, View::of(&mask, &[2, 1])];
        assert_eq!(
            executor.output_shapes(&inputs).unwrap(),
            [vec![2, 3], vec![2, 3], vec![]]
        );
        let (mut y, mut copy, mut n) = (vec![0u8; 32], [0f32; 6], [0i64]);
        let y_view = ViewMut {
            dtype: DType::F32,
            shape: &[2, 3],
            bytes: &mut y[shift..shift + 24],
        };
        executor
            .run_into(
                &inputs,
                &mut [y_view, ViewMut::of(&mut copy, &[2, 3]), ViewMut::of(&mut n, &[])],
            )
            .unwrap();
        assert_eq!(copy, [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
        assert_eq!(y[shift..shift + 24], *View::of(&copy, &[6]).bytes);
        assert_eq!(n, [6]);
    }
}

#[test]
fn wrong_inputs_are_named() {
    let (x, mask) = ([1f32; 6], [0u8; 2]);
    let (good_x, good_mask) = (View::of(&x, &[2, 3]), View::of(&mask, &[2, 1]));
    for (inputs, message) in [
        (vec![good_x], "1 inputs given, 2 expected: `x`, `mask`"),
        (vec![good_mask, good_x], "input `x` is u8, expected f32"),
        (
            vec![View::of(&x, &[6]), good_mask],
            "input `x` has shape [6], expected [batch, 3]",
        ),
        (
            vec![View::of(&x, &[3, 2]), good_mask],
            "input `x` has shape [3, 2], expected [batch, 3]",
        ),
        (
            vec![good_x, View::of(&mask, &[1, 2])],
            "input `mask` has 1 along axis 0, but `batch` is 2 by input `x`",
        ),
        (
            vec![View::of(&x[..5], &[2, 3]), good_mask],
            "input `x` has 20 bytes, its shape [2, 3] of f32 needs 24",
        ),
        (
            vec![View::of(&x[..3], &[1, 3]), View::of(&mask[..1], &[1, 1])],
            "program `sum` was compiled assuming batch % 2 == 0, but here batch = 1 (axis 0 of input `x`)",
        ),
        (
            vec![
                View {
                    dtype: DType::F32,
                    shape: &[usize::MAX, 3],
                    bytes: &[],
                },
                good_mask,
            ],
            "input `x` has shape [18446744073709551615, 3], expected [batch, 3]",
        ),
        (
            vec![
                View {
                    dtype: DType::F32,
                    shape: &[1 << 62, 3],
                    bytes: &[],
                },
                good_mask,
            ],
            "input `x` has 0 bytes, its shape [4611686018427387904, 3] of f32 needs 18446744073709551615",
        ),
    ] {
        assert_eq!(refusal(&inputs), message);
    }
}

#[test]
fn wrong_outputs_are_named() {
    let executor = executor(1);
    let (x, mask) = ([1f32; 6], [0u8; 2]);
    let inputs = [View::of(&x, &[2, 3]), View::of(&mask, &[2, 1])];
    let (mut y, mut copy, mut n) = ([0f32; 6], [0f32; 6], [0i64]);
    let error = executor
        .run_into(&inputs, &mut [ViewMut::of(&mut y, &[2, 3])])
        .unwrap_err();
    assert_eq!(error.to_string(), "1 outputs given, 3 expected: `y`, `copy`, `n`");
    let mut outputs = [
        ViewMut::of(&mut y, &[6]),
        ViewMut::of(&mut copy, &[2, 3]),
        ViewMut::of(&mut n, &[]),
    ];
    let error = executor.run_into(&inputs, &mut outputs).unwrap_err();
    assert_eq!(error.to_string(), "output `y` has shape [6], expected [2, 3]");
    outputs[0] = ViewMut {
        dtype: DType::F32,
        shape: &[2, 3],
        bytes: &mut [],
    };
    let error = executor.run_into(&inputs, &mut outputs).unwrap_err();
    assert_eq!(
        error.to_string(),
        "output `y` has 0 bytes, its shape [2, 3] of f32 needs 24"
    );
}

#[test]
fn a_failing_host_operator_ends_the_run_with_its_words() {
    let x = [1f32; 6];
    let mask = [0u8; 16];
    let message = refusal(&[View::of(&x, &[2, 3]), View::of(&mask[..14], &[2, 7])]);
    assert_eq!(
        message,
        "node `count`: a host operator failed: node `count`: seven is not a sequence"
    );
    let message = refusal(&[View::of(&x, &[2, 3]), View::of(&mask, &[2, 8])]);
    assert!(
        message.ends_with("node `count`: the operator's evaluation panicked"),
        "{message}"
    );
    let missing = Executor::new(program(), 1).unwrap_err().to_string();
    assert_eq!(
        missing,
        "node `count` is a host operator (`count_positive`), which this runtime was not given"
    );
}

#[test]
fn memory_is_limited() {
    let (x, mask) = ([1f32; 6], [0u8; 2]);
    let inputs = [View::of(&x, &[2, 3]), View::of(&mask, &[2, 1])];
    // Arena 24 + 1, outputs 24 + 24 + 8, allocated on the way 24.
    let with_limit = |memory_limit| {
        let options = Options {
            threads: 1,
            memory_limit,
            host: Some(Arc::new(Count)),
            record: false,
        };
        Executor::with_options(program(), options)
            .unwrap()
            .run(&inputs)
            .map(|outputs| outputs.len())
    };
    assert_eq!(with_limit(105).unwrap(), 3);
    assert_eq!(with_limit(104).unwrap_err().to_string(), "node `again`: out of memory");
    let message = "program `sum` needs 81 bytes of memory for batch = 2, seq = 1; the limit is 80; raise it with \
        --memory-limit";
    assert_eq!(with_limit(80).unwrap_err().to_string(), message);
}

#[test]
fn what_no_input_tells_is_an_error() {
    let mut meta = meta();
    meta.symbols.push("hidden".into());
    let weights = Weights::Owned(Arc::new(AlignedBytes::zeroed(12).unwrap()));
    // SAFETY: nothing is called, because the executor misses the symbol before.
    let program = unsafe { Program::new(meta, Box::new(ByHand), weights) }.unwrap();
    let options = Options {
        threads: 1,
        host: Some(Arc::new(Count)),
        ..Options::default()
    };
    let executor = Executor::with_options(Arc::new(program), options).unwrap();
    let (x, mask) = ([1f32; 6], [0u8; 2]);
    let error = executor
        .run(&[View::of(&x, &[2, 3]), View::of(&mask, &[2, 1])])
        .unwrap_err();
    assert_eq!(error.to_string(), "no input tells the size of `hidden`");
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    // SAFETY: nothing is called, because the program is refused.
    let error = unsafe { Program::new(meta(), Box::new(ByHand), Weights::Empty) }.unwrap_err();
    assert_eq!(error.to_string(), "program `sum`: 0 bytes of weights, 12 expected");
}
