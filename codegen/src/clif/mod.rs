//! Functions as Cranelift's IR.
//!
//! | module | what it is |
//! | --- | --- |
//! | `unit` | what the functions of a module share |
//! | `emit`, `control`, `constants` | the builder of one function; its loops and branches; constants in memory |
//! | `dims` | dims as code, checked or not |
//! | `scalar`, `simd`, `cast` | primitives on one value, and on all lanes of a vector loop; conversions of both |
//! | `vector` | the values of vector loops |
//! | `outline` | functions that others call: `soft_float`, `copy`, `launch`, `evaluator`, tiles |
//! | `cpu` | whether the CPU is the target's |
//! | `kernel` | a loop kernel becomes a function |

mod cast;
mod constants;
mod control;
mod copy;
mod cpu;
mod dims;
mod emit;
mod evaluator;
pub(crate) mod kernel;
mod launch;
mod outline;
mod scalar;
mod simd;
mod soft_float;
mod unit;
mod vector;

pub(crate) use copy::Copy;
pub(crate) use emit::{CONSTANT, Emit, clif, element};
pub(crate) use evaluator::Evaluator;
pub(crate) use launch::Launch;
pub use unit::Unit;
