//! CPUs: a program as code of this process, as an object, as an image, as text. The one place that calls code generation.

use super::{Backend, Input};
use brolga_abi::{PlanFn, RunFn, ShapesFn};
use brolga_codegen::image::{Image, image};
use brolga_codegen::listing::Listing;
use brolga_codegen::object::object;
use brolga_codegen::{Compiled, Error, Jit, Unit, compile_init, compile_program};
use brolga_ir::Target;
use brolga_ir::program::Program;
use brolga_runtime::{Code, Functions};

/// The back end of CPUs.
pub(crate) struct Native;

impl Backend for Native {
    fn targets(&self) -> &'static [Target] {
        const { &Target::CPUS }
    }

    fn listings(&self, i: Input) -> Result<Vec<Listing>, Error> {
        let (_, made) = object(i.target, i.prefix, &i.program.symbols, None, |unit| {
            unit.keep_listings();
            build(i, unit)?;
            Ok(unit.take_listings())
        })?;
        Ok(made)
    }
}

fn build(i: Input, unit: &mut Unit) -> Result<Compiled, Error> {
    compile_program(unit, i.program, &|s| i.constants.get(&s).copied())
}

/// Code in the memory of this process; it is freed when this is dropped.
struct JitCode {
    functions: Functions,
    _jit: Jit,
}

impl Code for JitCode {
    fn functions(&self) -> Functions {
        self.functions
    }
}

/// Compiles for this process.
pub(crate) fn jit(i: Input) -> Result<Box<dyn Code>, Error> {
    let (jit, made) = Jit::new(i.target, i.prefix, &i.program.symbols, |unit| build(i, unit))?;
    // SAFETY: the back end compiles these three functions with the ABI's signatures and calling convention; the code lives
    // as long as the `Jit` beside them.
    let functions = unsafe {
        Functions {
            run: std::mem::transmute::<*const u8, RunFn>(jit.address(made.run)),
            plan: std::mem::transmute::<*const u8, PlanFn>(jit.address(made.plan)),
            shapes: std::mem::transmute::<*const u8, ShapesFn>(jit.address(made.shapes)),
        }
    };
    Ok(Box::new(JitCode { functions, _jit: jit }))
}

/// An object file, with the weights under `PREFIX_weights` where there are any to embed.
pub(crate) fn object_file(i: Input, weights: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let (bytes, _) = object(i.target, i.prefix, &i.program.symbols, weights, |unit| {
        unit.check_cpu()?;
        build(i, unit)
    })?;
    Ok(bytes)
}

/// A flat image, and the symbols of the kernels in it.
pub(crate) fn flat_image(i: Input) -> Result<(Image, Vec<String>), Error> {
    let (image, made) = image(i.target, i.prefix, &i.program.symbols, |unit| build(i, unit))?;
    let kernels = made.kernels.into_iter().flatten().map(|(name, _)| name).collect();
    Ok((image, kernels))
}

/// The code that evaluates constants.
pub(crate) struct Init {
    /// `NAME_init`, of the signature of `NAME_run`.
    pub run: RunFn,
    _jit: Jit,
}

/// Compiles the initial steps for this process.
pub(crate) fn init(program: &Program, host: &Target) -> Result<Init, Error> {
    let (jit, id) = Jit::new(host, "constants", &program.symbols, |unit| compile_init(unit, program))?;
    // SAFETY: the back end compiles the function with this signature; the code lives as long as the `Jit` beside it.
    let run = unsafe { std::mem::transmute::<*const u8, RunFn>(jit.address(id)) };
    Ok(Init { run, _jit: jit })
}
