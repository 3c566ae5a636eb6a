//! Loop IR and programs to machine code (Cranelift, an x86 vector IR) and PTX.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`target`] | Cranelift's settings for a target; the target of this machine |
//! | [`program`] | a program becomes `NAME_run`; one function a kernel |
//! | [`plan`] | `NAME_plan` and `NAME_shapes`, which check every size before anything runs |
//! | [`queue`] | functions on their way to machine code, by one thread or several |
//! | [`jit`], [`object`], [`image`] | the same code in memory, in an object file, in an artefact |
//! | [`listing`] | CLIF and assembly as text |
//! | `clif` | functions as Cranelift's IR |
//! | [`x86`] | the x86 vector IR: register tiles |
//! | [`ptx`] | GPU kernels as PTX text |
//!
//! Three printers of loops (`clif`, `x86`, `ptx`), and what links their functions to programs.
//!
//! Everything is written once against `cranelift_module::Module`. Invariants: the same program gives the same bytes; no
//! generated instruction traps and no generated code calls anything outside its module; this crate knows no tensor
//! operator.

mod clif;
pub mod image;
pub mod jit;
mod late;
pub mod listing;
pub mod object;
pub mod plan;
pub mod program;
pub mod ptx;
pub mod queue;
mod rare;
mod sharing;
mod stored;
mod table;
pub mod target;
mod told;
pub mod x86;

use thiserror::Error as ThisError;

pub use clif::Unit;
pub use jit::Jit;
pub use program::{Compiled, compile_program};
pub use queue::Queue;

/// Why code could not be made.
#[derive(Debug, ThisError)]
pub enum Error {
    /// The target is none of Cranelift's.
    #[error("target `{name}`: {what}")]
    Target {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A kernel that this back end cannot compile.
    #[error("kernel `{kernel}`: {what}")]
    Kernel {
        /// The kernel.
        kernel: String,
        /// What was found and what was expected.
        what: String,
    },
    /// A program that this back end cannot compile.
    #[error("program `{program}`: {what}")]
    Program {
        /// The program.
        program: String,
        /// What was found and what was expected.
        what: String,
    },
    /// Cranelift refused a function.
    #[error("function `{function}`: {what}")]
    Cranelift {
        /// The function.
        function: String,
        /// Cranelift's words.
        what: String,
    },
    /// A tile kernel could not be assembled.
    #[error(transparent)]
    Tile(#[from] x86::Error),
    /// Object code that cannot become an image.
    #[error("code image: {0}")]
    Image(String),
    /// Executable memory could not be had.
    #[error("executable memory: {0}")]
    Memory(String),
}
