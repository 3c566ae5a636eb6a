//! A loaded Brolga program and everything that it needs to run; nothing that compiles.
//!
//! ```text
//! model.brolga ── Program::open ─▶ Program ── Executor::new ─▶ Executor ── run(inputs) ─▶ outputs
//! compiler ────── Program::new ──┘ (code, weights, Meta)       (arenas, threads, host operators)
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`program`] | code and weights, mapped from an artefact or handed over by a compiler |
//! | `soundness` | whether mapped weights are as they were written |
//! | [`executor`] | checks tensors against the program, plans, runs |
//! | [`pool`] | the threads that parallel loops run on |
//! | [`profile`] | what a profiled run notes |
//! | [`tensor`] | borrowed and owned tensors |
//! | [`memory`] | aligned memory that may fail |
//! | [`host`] | operators that a program calls back for |
//! | [`features`] | what this machine's CPU can do |
//! | `cuda` | with the feature `cuda`: programs on NVIDIA GPUs |
//! | [`error`] | everything that can go wrong |
//!
//! Invariants: a caller's mistake is an [`Error`] that names the tensor, never a panic and never undefined behaviour;
//! `unsafe` stands only in [`program`] (mapping, calling `plan` and `shapes`), `call` (calling `run`, and being
//! called back), [`pool`] (lending a loop body to the threads), [`tensor`] (numbers as bytes) and `cuda` (the driver). A program and an executor are
//! `Send + Sync`, and runs of one executor may overlap.

mod call;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod executor;
pub mod features;
pub mod host;
pub mod memory;
pub mod pool;
pub mod profile;
pub mod program;
mod soundness;
pub mod tensor;

pub use brolga_abi as abi;
pub use brolga_abi::DType;
pub use call::step_hook;
pub use error::Error;
pub use executor::{Executor, Options};
pub use host::HostOps;
pub use memory::AlignedBytes;
pub use pool::Pool;
pub use program::{Code, Functions, Program, Weights};
pub use tensor::{Buffer, Element, View, ViewMut};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
