//! Brolga's optimiser: the e-graph, extraction, lowering, tiling and the memory plan.
pub mod eqsat;
pub mod fusion;
pub mod decompose;
pub mod pass;
pub mod lower;
pub mod memory;
pub mod canonicalize;
pub mod registry;
