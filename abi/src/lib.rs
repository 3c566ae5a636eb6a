//! What generated code, a C caller and Brolga's runtime agree on.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`ctx`] | the `repr(C)` context that a program runs in, the signatures of its functions, byte offsets of the fields |
//! | [`error`] | the codes that generated functions return, and their texts |
//! | [`dtype`] | element types as they cross the boundary |
//! | [`meta`] | what a compiled program says of itself: inputs, outputs, symbols, entry points |
//! | [`has_matrices`] | whether this process may run code that uses registers of matrices |
//! | [`artefact`] | the `.brolga` file: code, metadata and packed weights, ready to be memory-mapped |
//! | [`mod@header`] | the C header of a program compiled ahead of time |
//!
//! Invariants: this crate depends on nothing; a layout or a number that generated code relies on is written down once,
//! here; and no reader of this crate trusts a byte that it has not checked.
//!
//! A program with the symbol prefix `NAME` exports three functions and keeps no global state:
//!
//! ```c
//! int32_t NAME_run(brolga_ctx *ctx, const void *const *inputs, void **outputs);
//! int32_t NAME_plan(const int64_t *dims, uint32_t workers, uint64_t *arena_bytes);
//! int32_t NAME_shapes(const int64_t *dims, int64_t *out);
//! ```
//!
//! Their calling convention is System V on every x86-64 system, Windows included, and the platform's C convention
//! elsewhere; [`abi_fn!`] defines a Rust function with it.

pub mod artefact;
mod cpu;
pub mod ctx;
pub mod dtype;
pub mod error;
pub mod header;
pub mod meta;
mod wire;

pub use cpu::has_matrices;
pub use ctx::{
    ABI_VERSION, Alias, AllocFn, Body, Ctx, HostFn, NO_NODE, ParallelFor, PlanFn, RunFn, ShapesFn, StepHook,
};
pub use dtype::DType;
pub use error::ErrorCode;
pub use header::{HeaderWeights, header, symbol_prefix};
pub use meta::{Dim, Entries, HostOp, Input, Kernel, Meta, Output};
