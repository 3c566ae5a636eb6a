//! The one place that calls code generation: a program as code of this process, as an object, as an image, as text.

use brolga_abi::{PlanFn, RunFn, ShapesFn};
use brolga_codegen::image::{Image, image};
use brolga_codegen::listing::Listing;
use brolga_codegen::object::object;
use brolga_codegen::{Compiled, Error, Jit, Unit, compile_init, compile_program};
use brolga_ir::Target;
use brolga_ir::program::{Program, SlotId};
use brolga_runtime::{Code, Functions};
use rustc_hash::FxHashMap;

/// A program and all that decides its code.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub program: &'a Program,
    pub target: &'a Target,
    /// The prefix of symbols.
    pub prefix: &'a str,
    /// The bytes of the weights.
    pub weights: &'a [u8],
    /// Where the slots of constants begin in them.
    pub offsets: &'a FxHashMap<SlotId, u64>,
}

impl Input<'_> {
    fn build(self, unit: &mut Unit) -> Result<Compiled, Error> {
        compile_program(unit, self.program, &|s| self.offsets.get(&s).copied())
    }
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
    let (jit, made) = Jit::new(i.target, i.prefix, &i.program.symbols, |unit| i.build(unit))?;
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

/// An object file, with the weights under `PREFIX_weights` where they are to be embedded.
pub(crate) fn object_file(i: Input, embed: bool) -> Result<Vec<u8>, Error> {
    let weights = embed.then_some(i.weights);
    let (bytes, _) = object(i.target, i.prefix, &i.program.symbols, weights, |unit| {
        unit.check_cpu()?;
        i.build(unit)
    })?;
    Ok(bytes)
}

/// A flat image, and the symbols of the kernels in it.
pub(crate) fn flat_image(i: Input) -> Result<(Image, Vec<String>), Error> {
    let (image, made) = image(i.target, i.prefix, &i.program.symbols, |unit| i.build(unit))?;
    let kernels = made.kernels.into_iter().flatten().map(|(name, _)| name).collect();
    Ok((image, kernels))
}

/// CLIF and assembly of every function.
pub(crate) fn listings(i: Input) -> Result<Vec<Listing>, Error> {
    let (_, made) = object(i.target, i.prefix, &i.program.symbols, None, |unit| {
        unit.keep_listings();
        i.build(unit)?;
        Ok(unit.take_listings())
    })?;
    Ok(made)
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
