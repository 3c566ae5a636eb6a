//! Functions as Cranelift's IR.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`emit`] | what the functions of a module share, and the builder of one |
//! | [`dims`] | dims as code, checked or not |
//! | [`scalar`], [`simd`] | primitives on one value, and on all lanes of a vector loop |
//! | [`outline`] | functions that others call, each defined when it is first used |
//! | [`kernel`] | a loop kernel becomes a function |

mod dims;
mod emit;
pub(crate) mod kernel;
mod outline;
mod scalar;
mod simd;

pub use emit::Unit;
pub(crate) use emit::{CONSTANT, Emit};
pub(crate) use outline::Helper;
