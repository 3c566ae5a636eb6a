//! Brolga's four levels of intermediate representation, with text forms, verifiers and reference interpreters.
//!
//! | level | module | what it is |
//! | --- | --- | --- |
//! | 1 | [`graph`], [`ops`] | tensor IR: an SSA graph of operators over typed tensors with symbolic dimensions |
//! | 2 | [`structured`] | kernels of stages: iteration domains, index maps, scalar bodies, combiners |
//! | 3 | [`loops`] | loop nests over buffers |
//! | 4 | [`program`] | the host side of a model: kernel calls over planned memory |
//!
//! [`scalar`] is the expression language that all levels share; [`Layout`] says how a tensor lies in memory; [`schedule`] is how a kernel of level 2 becomes one of level
//! 3; [`figures`] are what a machine does in a second. Invariant of the crate: no I/O, no e-graph, no code
//! generation; a level never knows the one above it.

pub mod dim;
mod dtype;
mod fault;
pub mod figures;
pub mod graph;
pub mod guard;
pub mod index;
mod layout;
pub mod loops;
mod minifloat;
pub mod ops;
mod plain;
pub mod program;
pub mod scalar;
pub mod schedule;
mod strings;
pub mod structured;
pub mod target;
mod tensor;
pub mod text;

pub use dim::{Dim, DimOp, Symbol};
pub use dtype::{DType, Format, Small};
pub use fault::{Fault, OUT_OF_RANGE};
pub use figures::Figures;
pub use graph::{Build, ConstData, Constant, Def, Graph, GraphBuilder, Node, NodeError, Source, Type, Value};
pub use guard::{Guard, Relation};
pub use layout::{Layout, Places};
pub use minifloat::{Codes, Minifloat};
pub use ops::{Attr, Op};
pub use plain::{is_command, plain};
pub use strings::Strings;
pub use target::{Arch, Cpu, CpuTarget, Target, TileFamily, TileKind, TileShape};
pub use tensor::{Number, Tensor, decode, encode, indices};
