//! Models from files: ONNX, or a printed tensor graph.

use crate::{Error, Result, levels};
use brolga_frontend::onnx;
use brolga_ir::{Graph, Source};
use memmap2::Mmap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file holds, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An ONNX model (or anything else: ONNX files have no magic).
    Onnx,
    /// A compiled artefact.
    Artefact,
    /// A printed tensor graph.
    Text,
}

/// Looks at a file's first bytes.
///
/// # Errors
/// When it cannot be read.
pub fn kind(path: &Path) -> Result<Kind> {
    let mut head = vec![];
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(64).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    Ok(if head.starts_with(&brolga_abi::artefact::MAGIC) {
        Kind::Artefact
    } else if head.starts_with(b"graph @") || head.starts_with(b"//") {
        Kind::Text
    } else {
        Kind::Onnx
    })
}

/// Reads a model. Weights stay in the file, which is mapped for as long as the graph refers to it.
///
/// # Errors
/// When the file is no model, or uses operators that are not supported.
pub fn graph(path: &Path, memory_limit: u64) -> Result<Graph> {
    sized_graph(path, memory_limit, &[])
}

/// [`graph`] with sizes for symbolic dimensions, which are numbers from the start: some models can only be read so.
///
/// # Errors
/// As [`graph`]; when a size contradicts the model, or there is no such dimension.
pub fn sized_graph(path: &Path, memory_limit: u64, sizes: &[(String, i64)]) -> Result<Graph> {
    match kind(path)? {
        Kind::Onnx => {
            let options = onnx::Options {
                memory_limit,
                sizes: sizes.to_vec(),
                ..onnx::Options::default()
            };
            let mut graph = onnx::load(path, &options)?;
            graph.name = name(path);
            Ok(graph)
        }
        Kind::Text => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
            levels::specialise(&parse_graph(&text, path)?, sizes)
        }
        Kind::Artefact => Err(Error::file(
            path,
            "a compiled artefact, expected a model; `brolga run` takes artefacts",
        )),
    }
}

/// A printed tensor graph; files that it names are looked for beside it.
///
/// # Errors
/// When the text is no graph.
pub fn parse_graph(text: &str, path: &Path) -> Result<Graph> {
    Graph::parse(text, &|name| map_beside(path, name)).map_err(|source| Error::Text {
        path: path.to_owned(),
        source,
    })
}

/// The model's name: the file's, without its folder and extension.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned())
}

struct Mapped {
    map: Mmap,
    name: String,
}

impl Source for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Maps the file `name`, as it stands or beside `path`.
pub fn map_beside(path: &Path, name: &str) -> Option<Arc<dyn Source>> {
    let beside: Option<PathBuf> = path.parent().map(|p| p.join(name));
    let file = File::open(name).or_else(|e| beside.map_or(Err(e), File::open)).ok()?;
    // SAFETY: the mapping is private and read-only; as for every mapped file, a process that truncates it while it is in
    // use faults this one, and nothing relies on the bytes staying the same after a check.
    let map = unsafe { Mmap::map(&file) }.ok()?;
    Some(Arc::new(Mapped {
        map,
        name: name.to_owned(),
    }))
}
