//! CPUs: a program as code of this process, as an object, as an image, as text. The one place that calls code generation.

use super::{Backend, Input};
use brolga_abi::{Body, Ctx, PlanFn, RunFn, ShapesFn, StepHook};
use brolga_codegen::image::{Image, image};
use brolga_codegen::jit::Placed;
use brolga_codegen::listing::Listing;
use brolga_codegen::object::object;
use brolga_codegen::program::compile_kernel;
use brolga_codegen::{Compiled, Error, Jit, Queue, Unit, compile_program};
use brolga_ir::Target;
use brolga_ir::program::Program;
use brolga_runtime::{Code, Functions};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::thread;

/// The back end of CPUs.
pub(crate) struct Native;

impl Backend for Native {
    fn targets(&self) -> &'static [Target] {
        const { &Target::CPUS }
    }

    fn listings(&self, i: Input) -> Result<Vec<Listing>, Error> {
        let (_, made) = object(i.target, i.prefix, &i.program.symbols, None, |unit| {
            unit.keep_listings();
            build(i, unit, None)?;
            Ok(unit.take_listings())
        })?;
        Ok(made)
    }
}

fn build(i: Input, unit: &mut Unit, queue: Option<&Arc<Queue>>) -> Result<Compiled, Error> {
    if let Some(queue) = queue {
        unit.share(queue);
    }
    compile_program(unit, i.program, &|s| i.constants.get(&s).copied())
}

/// Calls `make`, and has threads help with what it puts into the queue; each does something else first. One thread needs no
/// queue. Code is the same for any number of threads.
pub(crate) fn with_help<T>(
    threads: usize,
    first: &(dyn Fn() + Sync),
    make: impl FnOnce(Option<&Arc<Queue>>) -> T,
) -> T {
    if threads < 2 {
        return make(None);
    }
    /// Whether that succeeds, fails or panics, the helpers go home.
    struct Close<'q>(&'q Queue);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let queue = Arc::new(Queue::default());
    thread::scope(|scope| {
        let _close = Close(&queue);
        for n in 1..threads {
            let help = || {
                first();
                queue.work();
            };
            let thread = thread::Builder::new().name(format!("brolga-compile-{n}"));
            // Threads that the system refuses are done without.
            if thread.spawn_scoped(scope, help).is_err() {
                break;
            }
        }
        make(Some(&queue))
    })
}

/// Code in the memory of this process; it is freed when this is dropped.
pub(crate) struct JitCode {
    functions: Functions,
    kernels: Vec<Option<String>>,
    jit: Jit,
}

impl JitCode {
    /// The symbols of the kernels that are called, by their index in the program; several kernels may be one function.
    pub fn kernels(&self) -> &[Option<String>] {
        &self.kernels
    }

    /// Where its functions are.
    pub fn placed(&self) -> Vec<Placed> {
        self.jit.functions()
    }
}

impl Code for JitCode {
    fn functions(&self) -> Functions {
        self.functions
    }
}

/// Compiles for this process, with those who help with a queue, and with calls of the hook around steps where there is one.
pub(crate) fn jit(i: Input, hook: Option<StepHook>, queue: Option<&Arc<Queue>>) -> Result<JitCode, Error> {
    let (jit, made) = Jit::new(i.target, i.prefix, &i.program.symbols, |unit| {
        if let Some(hook) = hook {
            unit.call_around_steps(hook);
        }
        build(i, unit, queue)
    })?;
    // SAFETY: the back end compiles these three functions with the ABI's signatures and calling convention; the code lives
    // as long as the `Jit` beside them.
    let functions = unsafe {
        Functions {
            run: std::mem::transmute::<*const u8, RunFn>(jit.address(made.run)),
            plan: std::mem::transmute::<*const u8, PlanFn>(jit.address(made.plan)),
            shapes: std::mem::transmute::<*const u8, ShapesFn>(jit.address(made.shapes)),
        }
    };
    let kernels = made.kernels.into_iter().map(|k| k.map(|(symbol, _)| symbol)).collect();
    Ok(JitCode {
        functions,
        kernels,
        jit,
    })
}

/// An object file, with the weights under `PREFIX_weights` where there are any to embed.
pub(crate) fn object_file(i: Input, weights: Option<&[u8]>, threads: usize) -> Result<Vec<u8>, Error> {
    let (bytes, _) = with_help(threads, &|| {}, |queue| {
        object(i.target, i.prefix, &i.program.symbols, weights, |unit| {
            unit.check_cpu()?;
            build(i, unit, queue)
        })
    })?;
    Ok(bytes)
}

/// A flat image, and the symbols of the kernels in it.
pub(crate) fn flat_image(i: Input, threads: usize) -> Result<(Image, Vec<String>), Error> {
    let (image, made) = with_help(threads, &|| {}, |queue| {
        image(i.target, i.prefix, &i.program.symbols, |unit| build(i, unit, queue))
    })?;
    let mut seen = FxHashSet::default();
    let mut kernels: Vec<String> = made.kernels.into_iter().flatten().map(|(name, _)| name).collect();
    // Several kernels may be one function.
    kernels.retain(|name| seen.insert(name.clone()));
    Ok((image, kernels))
}

/// Kernels as functions of this process, by their numbers in the program.
pub(crate) struct Kernels {
    bodies: FxHashMap<u32, Body>,
    _jit: Jit,
}

/// Compiles kernels of a program, each as a function of its own, for this process.
pub(crate) fn kernels(program: &Program, which: &[u32], host: &Target) -> Result<Kernels, Error> {
    let (jit, ids) = Jit::new(host, "constants", &program.symbols, |unit| {
        let kernels = which
            .iter()
            .map(|k| compile_kernel(unit, &program.kernels[*k as usize]));
        kernels.collect::<Result<Vec<_>, _>>()
    })?;
    // SAFETY: a kernel is compiled with the ABI's signature of loop bodies; the code lives as long as the `Jit` beside it.
    let body = |id| unsafe { std::mem::transmute::<*const u8, Body>(jit.address(id)) };
    let bodies = which.iter().zip(ids).map(|(k, id)| (*k, body(id))).collect();
    Ok(Kernels { bodies, _jit: jit })
}

impl Kernels {
    /// One of the kernels that were compiled; it lives as long as this does.
    pub fn body(&self, kernel: u32) -> Body {
        self.bodies[&kernel]
    }

    /// Calls one of the kernels that were compiled, with a pointer for each parameter. Tells the number of the check that
    /// failed, when one did.
    ///
    /// # Safety
    /// The pointers are those of memory as large as the parameters, which the kernel may read and, where it is written,
    /// nobody else uses; `dims` has all symbols, and `scratch` the kernel's bytes for one worker.
    pub unsafe fn call(
        &self,
        kernel: u32,
        params: &[*mut u8],
        dims: &[i64],
        iterations: i64,
        scratch: &mut [u8],
    ) -> Option<u32> {
        let body = self.bodies[&kernel];
        let mut failed = 0u32;
        let mut args = params.to_vec();
        args.extend([dims.as_ptr().cast_mut().cast(), scratch.as_mut_ptr()]);
        // The distance to the next worker's scratch; there is none.
        args.push(std::ptr::null_mut());
        args.push((&raw mut failed).cast());
        // A serial context, for a kernel that forks.
        let mut ctx = Ctx::new();
        args.push((&raw mut ctx).cast());
        // SAFETY: as the caller promises; the arguments stand as the kernel expects them.
        unsafe { body(args.as_mut_ptr().cast(), 0, iterations, 0) };
        failed.checked_sub(1)
    }
}
