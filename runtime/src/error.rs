//! Everything that can go wrong when a program is loaded or run. Each message names the place, what was found and what
//! was expected.

use std::path::PathBuf;

use brolga_abi::artefact::FormatError;
use brolga_abi::{DType, ErrorCode};

/// Why a program could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not an artefact that this build reads.
    #[error("{}: {source}", path.display())]
    Artefact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// Compiled for another kind of machine.
    #[error("{}: compiled for {found}, this machine is {expected}", path.display())]
    Target {
        /// The file.
        path: PathBuf,
        /// The target triple in the artefact.
        found: String,
        /// This machine's architecture.
        expected: &'static str,
    },
    /// Compiled for a CPU with something that this one lacks.
    #[error("{}: needs the CPU feature(s) {features}, which this CPU lacks; compile for this CPU", path.display())]
    CpuFeatures {
        /// The file.
        path: PathBuf,
        /// The missing features.
        features: String,
    },
    /// A program's parts do not fit each other.
    #[error("program `{program}`: {reason}")]
    Program {
        /// The program's name.
        program: String,
        /// What does not fit.
        reason: String,
    },
    /// The program calls host operators, but the executor was given none.
    #[error("node `{node}` is a host operator (`{op}`), which this runtime was not given")]
    NoHostOps {
        /// The first node that needs one.
        node: String,
        /// Its operator.
        op: String,
    },
    /// Too many or too few tensors.
    #[error("{found} {what}s given, {expected} expected: {names}")]
    Count {
        /// `input` or `output`.
        what: &'static str,
        /// How many were given.
        found: usize,
        /// How many the program has.
        expected: usize,
        /// Their names.
        names: String,
    },
    /// A name that the program does not have.
    #[error("no input is called `{name}`; the inputs are {names}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The program's names.
        names: String,
    },
    /// An input was not given.
    #[error("input `{name}` ({expected}) is missing")]
    MissingInput {
        /// Its name.
        name: String,
        /// Its dtype and shape.
        expected: String,
    },
    /// An input was given twice.
    #[error("input `{name}` is given twice")]
    DuplicateInput {
        /// Its name.
        name: String,
    },
    /// Another element type.
    #[error("{tensor} is {found}, expected {expected}")]
    DType {
        /// Which tensor.
        tensor: String,
        /// The dtype given.
        found: DType,
        /// The program's dtype.
        expected: DType,
    },
    /// Another number of dimensions, or another extent.
    #[error("{tensor} has shape {found}, expected {expected}")]
    Shape {
        /// Which tensor.
        tensor: String,
        /// The shape given.
        found: String,
        /// The program's shape.
        expected: String,
    },
    /// Two extents that must be equal are not.
    #[error("{tensor} has {found} along axis {axis}, but `{symbol}` is {expected} by {first}")]
    Symbol {
        /// The tensor that disagrees.
        tensor: String,
        /// The axis that disagrees.
        axis: usize,
        /// The extent given.
        found: i64,
        /// The symbol.
        symbol: String,
        /// Its value.
        expected: i64,
        /// The tensor that gave it.
        first: String,
    },
    /// An output of a size that nothing bounds before a run.
    #[error("only a run tells the shape {shape} of output `{output}`, and nothing bounds it")]
    UnknownShape {
        /// The output.
        output: String,
        /// Its shape, in terms of the symbols.
        shape: String,
    },
    /// A symbol that no input gives a value.
    #[error("no input tells the size of `{symbol}`")]
    UnboundSymbol {
        /// The symbol.
        symbol: String,
    },
    /// The bytes do not fit the shape.
    #[error("{tensor} has {found} bytes, its shape {shape} of {dtype} needs {expected}")]
    Bytes {
        /// Which tensor.
        tensor: String,
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: u64,
        /// Its shape.
        shape: String,
        /// Its dtype.
        dtype: DType,
    },
    /// The dims violate something that the program was compiled for.
    #[error("program `{program}` was compiled assuming {guard}, but here {dims}")]
    Guard {
        /// The program's name.
        program: String,
        /// What was assumed.
        guard: String,
        /// The values of the symbols.
        dims: String,
    },
    /// The dims make a tensor, a position in one or the arena larger than can be counted, or smaller than nothing.
    #[error("program `{program}`: {size} {problem} for {dims}")]
    Size {
        /// The program's name.
        program: String,
        /// What has the size.
        size: String,
        /// What is wrong with it.
        problem: &'static str,
        /// The values of the symbols.
        dims: String,
    },
    /// A run would need more than it may have.
    #[error(
        "program `{program}` needs {needed} bytes of memory for {dims}; the limit is {limit}; raise it with --memory-limit"
    )]
    MemoryLimit {
        /// The program's name.
        program: String,
        /// Arena and outputs, in bytes.
        needed: u64,
        /// The limit, in bytes.
        limit: u64,
        /// The values of the symbols.
        dims: String,
    },
    /// The system has no more memory.
    #[error("out of memory: {bytes} bytes were not to be had")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// The program stopped.
    #[error("{}{code}{detail}", node.as_ref().map(|node| format!("node `{node}`: ")).unwrap_or_default())]
    Run {
        /// Why.
        code: ErrorCode,
        /// The model's node, where the program knows it.
        node: Option<String>,
        /// More, beginning with `: `, or nothing.
        detail: String,
    },
    /// The program returned a number that is no status.
    #[error("program `{program}`: `{function}` returned {status}, which is no status of this ABI")]
    Status {
        /// The program's name.
        program: String,
        /// The function.
        function: &'static str,
        /// What it returned.
        status: i32,
    },
}
