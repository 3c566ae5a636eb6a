//! A program by hand whose output's extents only the run tells: the rows of `x[n, 3]` before the first that begins with 0.

use brolga_abi::{Ctx, Dim, ErrorCode, Input, Meta, Output, abi_fn};
use std::ffi::c_void;

use super::super::*;
use crate::{Code, Functions, Weights};

abi_fn! {
    unsafe fn plan(_dims: *const i64, _workers: u32, arena_bytes: *mut u64) -> i32 {
        // SAFETY: the runtime passes a place for the result.
        unsafe { *arena_bytes = 0 };
        0
    }
}

abi_fn! {
    unsafe fn bounded(dims: *const i64, out: *mut i64) -> i32 {
        // SAFETY: the runtime passes one dim and places for two extents.
        unsafe { out.cast::<[i64; 2]>().write([*dims, 3]) };
        0
    }
}

abi_fn! {
    unsafe fn unbounded(_dims: *const i64, out: *mut i64) -> i32 {
        // SAFETY: the runtime passes places for two extents.
        unsafe { out.cast::<[i64; 2]>().write([-1, 3]) };
        0
    }
}

abi_fn! {
    unsafe fn run(ctx: *mut Ctx, inputs: *const *const c_void, outputs: *mut *mut c_void) -> i32 {
        // SAFETY: the runtime passes a context and the tensors in `meta`.
        unsafe {
            let x = (*inputs).cast::<f32>();
            let rows = (0..*(*ctx).dims as usize).take_while(|i| x.add(3 * i).read() != 0.0).count();
            let bytes = 12 * rows as u64;
            if (*outputs).is_null() {
                *outputs = (*ctx).alloc.unwrap()(ctx, bytes, 64).cast();
                if (*outputs).is_null() {
                    (*ctx).error_code = ErrorCode::OutOfMemory as i32;
                    return ErrorCode::OutOfMemory as i32;
                }
            } else if *(*ctx).out_bytes < bytes {
                (*ctx).error_code = ErrorCode::OutputTooSmall as i32;
                (*ctx).error_value = bytes as i64;
                return ErrorCode::OutputTooSmall as i32;
            }
            std::ptr::copy_nonoverlapping(x.cast::<u8>(), (*outputs).cast(), bytes as usize);
            (*ctx).out_dims.cast::<[i64; 2]>().write([rows as i64, 3]);
            0
        }
    }
}

struct Prefix {
    bounded: bool,
}

impl Code for Prefix {
    fn functions(&self) -> Functions {
        let shapes = if self.bounded { bounded } else { unbounded };
        Functions { run, plan, shapes }
    }
}

fn executor(bounded: bool, memory_limit: u64) -> Executor {
    let dims = vec![Dim::Symbol(0), Dim::Const(3)];
    let meta = Meta {
        name: "prefix".into(),
        symbols: vec!["n".into()],
        inputs: vec![Input {
            name: "x".into(),
            dtype: DType::F32,
            dims,
            default: None,
        }],
        outputs: vec![Output {
            name: "y".into(),
            dtype: DType::F32,
            rank: 2,
            dynamic: true,
            shape: "[k, 3]".into(),
        }],
        ..Meta::default()
    };
    let weights = Weights::Owned(Arc::new(AlignedBytes::copy_of(&[]).unwrap()));
    // SAFETY: the functions above are what `meta` describes.
    let program = unsafe { Program::new(meta, Box::new(Prefix { bounded }), weights) }.unwrap();
    let options = Options {
        threads: 1,
        memory_limit,
        ..Options::default()
    };
    Executor::with_options(Arc::new(program), options).unwrap()
}

const X: [f32; 12] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 8.0, 9.0, 1.0, 1.0, 1.0];
const MANY: u64 = 1 << 20;

#[test]
fn the_run_tells_extents_and_allocates() {
    for bounded in [true, false] {
        let executor = executor(bounded, MANY);
        let outputs = executor.run(&[View::of(&X, &[4, 3])]).unwrap();
        assert_eq!(outputs[0].shape(), [2, 3]);
        assert_eq!(outputs[0].as_slice::<f32>().unwrap(), &X[..6]);
        let none = executor.run(&[View::of(&X[6..], &[2, 3])]).unwrap();
        assert_eq!((none[0].shape(), none[0].bytes().len()), ([0, 3].as_slice(), 0));
    }
}

#[test]
fn the_caller_s_memory_is_used_where_it_is_large_enough() {
    let executor = executor(false, MANY);
    let x = View::of(&X, &[4, 3]);
    let mut y = [7f32; 9];
    let shapes = executor.run_into(&[x], &mut [ViewMut::of(&mut y, &[3, 3])]).unwrap();
    assert_eq!(shapes, [[2, 3]]);
    assert_eq!((&y[..6], &y[6..]), (&X[..6], [7.0; 3].as_slice()));
    let error = executor
        .run_into(&[x], &mut [ViewMut::of(&mut y[..3], &[1, 3])])
        .unwrap_err();
    assert!(error.to_string().contains("24 bytes are needed"), "{error}");
}

#[test]
fn shapes_before_a_run_are_bounds_or_refused() {
    let x = View::of(&X, &[4, 3]);
    assert_eq!(executor(true, MANY).output_shapes(&[x]).unwrap(), [[4, 3]]);
    let error = executor(false, MANY).output_shapes(&[x]).unwrap_err();
    let text = "only a run tells the shape [k, 3] of output `y`, and nothing bounds it";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_the_run_allocates_keeps_to_the_limit() {
    let error = executor(false, 20).run(&[View::of(&X, &[4, 3])]).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}
