//! Kernels whose parallel loops stand inside of serial ones, through the JIT against the interpreter of the level, bit for bit.

mod common;

use brolga_abi::{Ctx, ErrorCode};
use brolga_ir::loops::Kernel;
use common::*;
use std::ffi::c_void;

/// A kernel that forks: every round reads what all workers left in the one before, in memory of the kernel, through scratch of each
/// worker; loops around are counted and repeated in code.
#[test]
fn kernels_fork() {
    for (work, least) in [("100", 10), ("10", 100), ("n", 17)] {
        for (vector, turn) in [
            (false, ""),
            (true, ""),
            (false, ", turned by i2"),
            (true, ", turned by i3"),
        ] {
            let (lanes, kind) = if vector { (16, "vector") } else { (3, "serial") };
            let text = format!(
                "loops @fork(b0: f32[{lanes}*n] in, b1: f32[{lanes}*n] out) symbols(n) {{
                   buffer b2: f32[{lanes}] worker
                   buffer b3: f32[2*{lanes}*n] kernel
                   for i0 serial 0..n {{
                     for i1 {kind} 0..{lanes} {{
                       r0: f32 = load b0[{lanes}*i0 + i1]
                       store b3[{lanes}*i0 + i1] = r0
                     }}
                   }}
                   for i2 serial 0..5 {{
                     for i3 unrolled 0..2 {{
                       for i4 parallel({work} from {least}{turn}) 0..n {{
                         for i5 {kind} 0..{lanes} {{
                           r1: f32 = load b3[({lanes}*n)*i3 + {lanes}*i4 + i5]
                           r2: f32 = load b3[({lanes}*n)*i3 + {lanes}*i4 + i5 + {lanes}*i2 - {lanes}] where (i4 + i2 - 1 in 0..n) else f32 0.5
                           r3: f32 = max r1 r2
                           r4: f32 = add r3 r2
                           store b2[i5] = r4
                         }}
                         for i6 {kind} 0..{lanes} {{
                           r5: f32 = load b2[i6]
                           r6: i64 = index i2 + i3 + i4
                           r7: f32 = cast f32 r6
                           r8: f32 = sub r5 r7
                           store b3[({lanes}*n) - ({lanes}*n)*i3 + {lanes}*i4 + i6] = r8
                         }}
                       }}
                     }}
                   }}
                   for i7 serial 0..n {{
                     for i8 {kind} 0..{lanes} {{
                       r9: f32 = load b3[{lanes}*i7 + i8]
                       store b1[{lanes}*i7 + i8] = r9
                     }}
                   }}
                 }}"
            );
            let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e} in {text}"));
            assert_eq!(k.to_string().parse::<Kernel>().as_ref(), Ok(&k));
            let b = Build { k };
            for n in [1usize, 2, 3, 7, 16, 20] {
                check(&b, &[n as i64], &[random_f32(n * lanes, 3), vec![0; 4 * n * lanes]]);
            }
        }
    }
}

/// A caller that cannot run a loop: the kernel ends, and the context says why.
#[test]
fn a_loop_that_cannot_run_ends_the_kernel() {
    brolga_abi::abi_fn! {
        /// `Ctx::parallel_for`.
        unsafe fn refuse(_ctx: *mut Ctx, _body: brolga_abi::Body, _arg: *mut c_void, _n: i64) -> i32 {
            7
        }
    }
    let text = "loops @fork(b0: f32[4] out) {
      for i0 serial 0..2 {
        for i1 parallel 0..4 { r0: f32 = const f32 1.0 store b0[i1] = r0 }
      }
      for i2 serial 0..4 { r1: f32 = const f32 2.0 store b0[i2] = r1 }
    }";
    let k: Kernel = text.parse().unwrap_or_else(|e| panic!("{e}"));
    k.verify().expect("it is a kernel");
    for target in targets() {
        let (_jit, at) = jit(&target, &k);
        // SAFETY: the address is a kernel's, which has the signature of the ABI's loop body.
        let body: brolga_abi::Body = unsafe { std::mem::transmute(at) };
        for (earlier, want) in [
            (0, ErrorCode::ParallelFailed as i32),
            (ErrorCode::OutOfMemory as i32, ErrorCode::OutOfMemory as i32),
        ] {
            let mut ctx = Ctx {
                workers: 2,
                parallel_for: Some(refuse),
                error_code: earlier,
                ..Ctx::new()
            };
            let mut out = [0f32; 4];
            let nothing = std::ptr::null_mut();
            let mut args = [
                out.as_mut_ptr().cast::<c_void>(),
                nothing,
                nothing,
                nothing,
                nothing,
                (&raw mut ctx).cast(),
            ];
            // SAFETY: the arguments are laid out as the kernel expects: its parameter, no dims, no scratch, no checks, the context.
            unsafe { body(args.as_mut_ptr().cast(), 0, 1, 0) };
            assert_eq!((out, ctx.error_code), ([0.0; 4], want), "for {}", target.name);
        }
    }
}
