//! Brolga's optimiser: from a tensor graph to a program of loop kernels.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`pass`], [`registry`] | what a pass is, the table of all, pipelines as text |
//! | [`module`] | a model at one of the levels: what passes take and give |
//! | [`mod@canonicalize`], [`mod@decompose`], [`mod@prune`], [`mod@specialise`] | passes over the tensor IR |
//! | [`descend`] | the passes that go down a level |
//! | [`bufferize`] | what lies in the memory of what |
//! | [`eqsat`] | the e-graph pass: rules as text, saturation, extraction, the checker of rules |
//! | [`proof`] | that a program computes what a model says, step by step, and the check of that |
//! | [`fusion`] | which operators can share a kernel, and why not |
//! | [`lower`] | cut graphs to structured kernels |
//! | [`schedule`] | structured kernels to loop nests, for CPUs and GPUs: schedules as data |
//! | [`memory`] | the arena's plan |
//! | [`cost`] | what a loop kernel does and takes, told from its loops |
//!
//! Invariant: no I/O and no code generation; what is fused is decided by rules and extraction only.

pub mod bufferize;
pub mod canonicalize;
mod closure;
pub mod cost;
pub mod decompose;
pub mod descend;
pub mod eqsat;
pub mod fusion;
pub mod lower;
pub mod memory;
pub mod module;
pub mod pass;
pub mod proof;
pub mod prune;
pub mod registry;
pub mod schedule;
pub mod specialise;
