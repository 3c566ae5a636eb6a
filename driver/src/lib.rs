//! Brolga's front door: an ONNX file becomes a [`Session`] to run, or an object file, an archive, a shared library or an
//! artefact to ship.
//!
//! ```
//! # fn main() -> Result<(), brolga::Error> {
//! use brolga::{Session, View};
//!
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits/digits.onnx");
//! let session = Session::load(model)?;
//! let image = [0.0f32; 64];
//! let outputs = session.run(&[View::of(&image, &[1, 1, 8, 8])])?;
//! assert_eq!(outputs[0].shape(), [1, 10]);
//! let scores = outputs[0].as_slice::<f32>().expect("the model's output is f32");
//! assert!(scores.iter().all(|s| s.is_finite()));
//! # Ok(())
//! # }
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`backend`] | kinds of machines: their targets and listings |
//! | [`session`] | load, run, share between threads, drop |
//! | [`options`], [`mod@compile`] | how a model is compiled, and what compiling gives |
//! | [`Specialise`] | versions of a session's model for sizes that were seen |
//! | [`levels`] | the way down through the levels: pipelines of passes |
//! | [`ablate`] | what a model costs without parts of the rules |
//! | [`egraph`] | e-graphs: in files, the cheapest terms of such, and what a program was chosen from |
//! | [`instrument`], [`reproducer`] | who watches passes while they run; files that show a pass failing again |
//! | [`mod@bisect`], [`mod@reduce`], [`fuzz`] | where results become wrong; smaller models that still show something; random models |
//! | [`output`] | object files, archives, shared libraries, artefacts, C headers |
//! | [`weights`] | constant evaluation: packing and merging weights, straight into the blob that is shipped |
//! | [`doctor`], [`report`] | what keeps a model from being compiled; what became of its nodes |
//! | [`explain`] | what rules did to a model, and why they did no more |
//! | [`profile`], [`perf_map`] | what each kernel of a model takes; names of kernels for `perf` |
//! | [`pins`] | values and extents that inputs are given before a model is read |
//! | [`machine`] | this machine's figures: measured, kept, read |
//! | [`kernels`] | kernels of models as things of their own, to be timed |
//! | [`cache`] | artefacts by what they were made of, for models that are loaded again and again |
//! | [`generate`] | text from language models |
//! | `serve` | with the feature `serve` (on by default): a server that speaks OpenAI's interface |
//! | `speech` | with the feature `audio` (on by default): text from speech |
//! | [`host`] | host operators by their reference evaluation |
//! | [`tune`] | better schedules, searched on the machine |
//! | [`shell`] | commands that are shown |
//! | [`random`] | inputs of runs whose results nobody looks at |
//! | [`tensors`], [`npy`] | conversions between the crates' tensors; `.npy` and `.npz` files |
//! | `cuda` | with the feature `cuda` (on by default): models on NVIDIA GPUs |
//! | [`error`] | everything that can go wrong |
//!
//! Invariant: this is the only crate that knows all the others.

pub mod ablate;
pub mod aligned;
mod archive;
pub mod backend;
pub mod bisect;
pub mod cache;
mod caught;
pub mod compile;
pub mod compression;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod doctor;
pub mod draw;
pub mod egraph;
pub mod error;
pub mod explain;
pub mod fuzz;
pub mod generate;
pub mod host;
mod identity;
pub mod instrument;
pub mod kernels;
pub mod levels;
pub mod machine;
pub mod npy;
pub mod options;
pub mod output;
mod page;
pub mod perf_map;
pub mod pins;
pub mod profile;
pub mod random;
pub mod reduce;
pub mod report;
pub mod reproducer;
#[cfg(feature = "serve")]
pub mod serve;
pub mod session;
pub mod shell;
pub mod source;
#[cfg(feature = "audio")]
pub mod speech;
pub mod tensors;
pub mod tune;
mod verdicts;
mod versions;
pub mod weights;

pub use brolga_abi as abi;
pub use brolga_codegen as codegen;
pub use brolga_frontend as frontend;
pub use brolga_ir as ir;
pub use brolga_passes as passes;
pub use brolga_runtime as runtime;

pub use brolga_runtime::{Buffer, DType, Element, View, ViewMut};
pub use compile::{Compiled, compile, compile_file};
pub use error::Error;
pub use generate::Generator;
pub use options::{Options, Timings};
pub use session::{Session, SessionOptions};
pub use versions::Specialise;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
