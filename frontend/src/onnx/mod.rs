//! ONNX models to the tensor IR.
//!
//! | module | what it does |
//! | --- | --- |
//! | `wire`, `model`, `tensor`, `looks` | files: mapping, parsing without copying weights, constants, what no model is |
//! | `import`, `interface`, `order`, `signature` | the walk: names, functions, inputs and outputs, what is unsupported |
//! | `survey`, `doctor` | the walk that goes on behind errors, and what it finds |
//! | `redeclare` | what a caller says of inputs: extents and values |
//! | `builder`, `emit`, `extents` | the graph and what is known of its values; adding nodes; extents that have to agree |
//! | `region` | graphs within graphs, and sizes that data tell |
//! | `contents` | files of values: tensors, sequences, optionals |
//! | `node`, `attributes` | a node as its importer sees it; which attributes operators have |
//! | `symbolic`, `ratio` | shape computations, in integers and in floats |
//! | `ops` | one file per operator or family, and the table of them |
//!
//! Operator-set versions 6 to 28 are read (`attributes` has the newest of each domain); what changed between versions is handled in the operator's file.

mod attributes;
mod builder;
mod contents;
mod doctor;
mod emit;
mod error;
mod extents;
mod import;
mod interface;
mod looks;
mod model;
mod node;
mod ops;
mod order;
mod packed;
mod ratio;
mod redeclare;
mod region;
mod repeat;
mod signature;
mod summary;
mod survey;
mod symbolic;
mod tensor;
mod wire;

pub use contents::{Contents, contents_file};
pub use doctor::{Examination, Finding, Kind, Quantised, examine};
pub use error::{Error, Unsupported};
pub use redeclare::numbers;
pub use summary::{OperatorCount, Port, Summary, summary};

use crate::mapped;
use brolga_ir::{Graph, Source, Strings, Tensor, Type};
use std::path::Path;
use std::sync::Arc;

/// How a model is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that a single value of the model may have.
    pub memory_limit: u64,
    /// Inputs with a value that is known already: they become constants, and are no inputs of the graph. This is the way
    /// to read a model that takes a shape, axes or a number of results as an input.
    pub fixed: Vec<(String, Tensor)>,
    /// The same by a text, whose meaning the input's declared type tells: numbers, or strings, with commas between them, in its shape,
    /// of which at most one extent may be free. Where there is room for one string only, the text is that.
    pub pinned: Vec<(String, String)>,
    /// Extents of inputs, in place of what the model declares.
    pub shapes: Vec<(String, Vec<Extent>)>,
    /// What inputs hold whose declarations leave that open: the types of the tensors of a sequence or an optional (`None` for an
    /// optional without a value), or the type of a tensor of unknown rank. Each tensor of a sequence `s` is an input: `s[0]`, `s[1]`.
    pub holds: Vec<(String, Option<Vec<Type>>)>,
    /// Sizes of symbolic dimensions, which are numbers from the start then. Some models can only be read with one given.
    pub sizes: Vec<(String, i64)>,
    /// Makes inputs that have an initializer, which ONNX takes for a default, constants. What is computed from constants
    /// only is computed once, when the model is compiled.
    pub constant_defaults: bool,
    /// Where strings of `fixed`, and of a file that holds one value, have their numbers; those of a model are its graph's.
    pub strings: Strings,
}

/// An extent that a caller gives an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A number.
    Fixed(i64),
    /// A symbol of this name; the same name is the same symbol.
    Named(String),
    /// A symbol of its own, named after input and axis.
    Free,
}

impl Default for Options {
    /// At most 16 GiB a value, no fixed inputs or sizes.
    fn default() -> Options {
        Options {
            memory_limit: 16 << 30,
            fixed: vec![],
            pinned: vec![],
            shapes: vec![],
            holds: vec![],
            sizes: vec![],
            constant_defaults: false,
            strings: Strings::default(),
        }
    }
}

/// Reads a model file. Weights stay in the file, which is mapped for as long as the graph refers to it.
///
/// # Errors
/// When the file cannot be read, is no valid model, or uses operators that are not supported (all of them are listed).
pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<Graph, Error> {
    let path = path.as_ref();
    import(model::map(path)?, Some(folder(path)), options)
}

/// Reads a model in memory, which may have no external data. `name` stands for the file in errors.
///
/// # Errors
/// See [`load`].
pub fn load_bytes(bytes: Vec<u8>, name: &str, options: &Options) -> Result<Graph, Error> {
    import(mapped::bytes(bytes, name), None, options)
}

fn import(source: Arc<dyn Source>, folder: Option<std::path::PathBuf>, options: &Options) -> Result<Graph, Error> {
    let mut model = model::Model::parse(source, folder)?;
    let graph = import::import(&mut model, options)?;
    tracing::debug!(model = graph.name, nodes = graph.nodes.len(), "imported");
    Ok(graph)
}

fn folder(path: &Path) -> std::path::PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => ".".into(),
    }
}

/// Reads a file that holds one TensorProto (`.pb`): its name, and the tensor.
///
/// # Errors
/// When the file cannot be read or is no tensor of a supported element type.
pub fn tensor_file(path: impl AsRef<Path>, options: &Options) -> Result<(String, Tensor), Error> {
    let path = path.as_ref();
    let source = model::map(path)?;
    let fail = |message: String| Error::Model {
        file: path.display().to_string(),
        message,
    };
    let proto = model::parse_tensor(&source)
        .map_err(|e| fail(format!("not an ONNX tensor: {e}{}", looks::hint(source.bytes()))))?;
    let mut files = model::Files::new(source, Some(folder(path)));
    files.strings = options.strings.clone();
    let c = tensor::constant(&proto, &mut files, options.memory_limit).map_err(fail)?;
    Ok((proto.name, c.to_tensor()))
}
