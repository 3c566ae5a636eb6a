//! Models from files: ONNX, folders of safetensors, GGUF files, or the printed text of any level.

use crate::levels::{self, Module};
use crate::options::Options;
use crate::pins::Pin;
use crate::{Error, Result};
use brolga_frontend::safetensors::{self, Facts};
use brolga_frontend::{gguf, mapped, onnx};
use brolga_ir::{Graph, Source, plain};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file holds, by its first bytes; or that it is a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An ONNX model (or anything else: ONNX files have no magic).
    Onnx,
    /// A folder with a `config.json` and weights in safetensors, or a GGUF file, which is read as one.
    Folder,
    /// A compiled artefact.
    Artefact,
    /// A printed tensor graph.
    Text,
    /// A printed program, of structured kernels or of loop nests.
    Program,
}

/// Looks at how a file begins.
///
/// # Errors
/// When it cannot be read.
pub fn kind(path: &Path) -> Result<Kind> {
    let io = |e| Error::io(path, e);
    if path.is_dir() {
        return match path.join(safetensors::CONFIG).is_file() {
            true => Ok(Kind::Folder),
            false => Err(Error::file(
                path,
                "a folder without config.json; a model's folder has that, and its weights in model.safetensors",
            )),
        };
    }
    let mut head = vec![];
    let mut file = File::open(path).map_err(io)?;
    file.by_ref().take(64).read_to_end(&mut head).map_err(io)?;
    if head.starts_with(b"//") {
        // What the text is stands behind its comments.
        file.read_to_end(&mut head).map_err(io)?;
    }
    if head.starts_with(&brolga_abi::artefact::MAGIC) {
        return Ok(Kind::Artefact);
    }
    if head.starts_with(&gguf::MAGIC) {
        return Ok(Kind::Folder);
    }
    let mut lines = head.split(|b| *b == b'\n');
    let first = lines.find(|l| !l.starts_with(b"//") && !l.trim_ascii().is_empty());
    Ok(match first.unwrap_or_default() {
        // A kernel alone is no program, which its parser says best.
        l if [&b"program @"[..], b"kernel @", b"loops @"]
            .iter()
            .any(|k| l.starts_with(k)) =>
        {
            Kind::Program
        }
        l if l.starts_with(b"graph @") || head.starts_with(b"//") => Kind::Text,
        _ => Kind::Onnx,
    })
}

/// Reads a model at whatever level it is. A tensor graph has the options' sizes then.
///
/// # Errors
/// When the file is no model, what its text says is not valid, or sizes are given that are none of the model's.
pub fn model(path: &Path, options: &Options) -> Result<Module> {
    if kind(path)? != Kind::Program {
        return graph_for(path, options).map(Module::Tensor);
    }
    let text = text(path)?;
    parse(&text, path, options)
}

/// The text of a file.
///
/// # Errors
/// When it cannot be read, or is no text.
pub fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        ErrorKind::InvalidData => Error::file(path, "it is no text: its bytes are not UTF-8"),
        _ => Error::io(path, e),
    })
}

/// The model of a printed text of any level; files that it names are looked for beside it. A tensor graph has the options'
/// sizes then.
///
/// # Errors
/// As [`model`].
pub fn parse(text: &str, path: &Path, options: &Options) -> Result<Module> {
    let module = Module::parse(text, &|name| map_beside(path, name)).map_err(|source| Error::Text {
        path: path.to_owned(),
        source,
    })?;
    as_declared(path, options)?;
    if let Module::Tensor(graph) = &module {
        return levels::specialise(graph, &options.sizes).map(Module::Tensor);
    }
    if !options.sizes.is_empty() {
        return Err(Error::file(
            path,
            "a program is lowered already; sizes are set when it is made of a tensor graph",
        ));
    }
    // Texts are edited by hand; below this level nothing checks what a program says.
    module.verify().map_err(|e| Error::file(path, e.message))?;
    Ok(module)
}

/// Reads a tensor graph. Weights stay in the file, which is mapped for as long as the graph refers to it.
///
/// # Errors
/// When it is no model, or uses what is not supported.
pub fn graph(path: &Path, memory_limit: u64) -> Result<Graph> {
    graph_for(
        path,
        &Options {
            memory_limit,
            ..Options::default()
        },
    )
}

/// [`graph`] as options want it: with their sizes for symbolic dimensions, and with defaults or constants for inputs that have
/// an initializer.
///
/// # Errors
/// As [`graph`]; when a size contradicts the model, or there is no such dimension.
pub fn graph_for(path: &Path, compile: &Options) -> Result<Graph> {
    match kind(path)? {
        Kind::Onnx => {
            no_folder(path, compile)?;
            let mut graph = onnx::load(path, &reading(compile)?)?;
            graph.name = name(path);
            Ok(graph)
        }
        Kind::Folder => Ok(folder(path, compile)?.0),
        Kind::Text => {
            let text = text(path)?;
            let graph = parse_graph(&text, path)?;
            as_declared(path, compile)?;
            levels::specialise(&graph, &compile.sizes)
        }
        Kind::Artefact => Err(Error::file(
            path,
            "a compiled artefact, expected a model; `brolga run` takes artefacts",
        )),
        Kind::Program => Err(Error::file(
            path,
            "a program, expected a tensor graph: symbols have their sizes and operators their kernels there already",
        )),
    }
}

/// The model of a folder of safetensors or of a GGUF file with the options' sizes, and what else it says of it.
///
/// # Errors
/// As [`graph`]; when an option is for models of other kinds.
pub fn folder(path: &Path, compile: &Options) -> Result<(Graph, Facts)> {
    settled(
        path,
        compile,
        "an ONNX model is read; a folder's are those of its family",
    )?;
    let (graph, facts) = safetensors::read(path, &compile.folder)?;
    Ok((levels::specialise(&graph, &compile.sizes)?, facts))
}

/// How an ONNX model is read for these options.
///
/// # Errors
/// When strings that an input is pinned to are not as many as their shape says.
pub fn reading(compile: &Options) -> Result<onnx::Options> {
    let mut read = onnx::Options {
        memory_limit: compile.memory_limit,
        sizes: compile.sizes.clone(),
        shapes: compile.shapes.clone(),
        constant_defaults: compile.constant_defaults,
        ..onnx::Options::default()
    };
    for (name, pin) in &compile.pins {
        match pin {
            Pin::Text(text) => read.pinned.push((name.clone(), text.clone())),
            Pin::Tensor(t) => read.fixed.push((name.clone(), t.clone())),
            Pin::Strings(shape, texts) => {
                let t = read.strings.tensor(shape, texts);
                let t = t.map_err(|e| Error::Option(format!("input `{}`: {e}", plain(name))))?;
                read.fixed.push((name.clone(), t));
            }
        }
    }
    Ok(read)
}

/// Checks that no input is given a value or extents, and that no default becomes a constant, where a model has been read already.
///
/// # Errors
/// When it is asked for.
pub fn as_declared(path: &Path, options: &Options) -> Result<()> {
    no_folder(path, options)?;
    settled(path, options, "an ONNX model is read; this one has been read already")
}

/// Checks that nothing is said of a folder, where the model is none.
fn no_folder(path: &Path, options: &Options) -> Result<()> {
    match options.folder == safetensors::Options::default() {
        true => Ok(()),
        false => Err(Error::file(
            path,
            "--family, --config, --with, --lora, --weights and --kv are for folders of safetensors and GGUF files",
        )),
    }
}

fn settled(path: &Path, options: &Options, when: &str) -> Result<()> {
    let shapes = options.shapes.iter().map(|s| &s.0);
    if let Some(name) = options.pins.iter().map(|p| &p.0).chain(shapes).next() {
        let message = format!("values and shapes of inputs (of `{name}`) are settled when {when}");
        return Err(Error::file(path, message));
    }
    if options.constant_defaults {
        let message = format!("defaults become constants when {when}");
        return Err(Error::file(path, message));
    }
    Ok(())
}

/// Checks that no symbolic dimension is given a size, where a model has been compiled already.
///
/// # Errors
/// When one is.
pub fn without_sizes(path: &Path, options: &Options) -> Result<()> {
    match options.sizes.first() {
        Some((symbol, _)) => {
            let message = format!("an artefact is compiled already; sizes (of `{symbol}`) are set when it is compiled");
            Err(Error::file(path, message))
        }
        None => Ok(()),
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

/// Maps the file `name`, as it stands or beside `path`.
pub fn map_beside(path: &Path, name: &str) -> Option<Arc<dyn Source>> {
    let beside: Option<PathBuf> = path.parent().map(|p| p.join(name));
    let here = mapped::map_as(Path::new(name), name);
    here.or_else(|e| beside.map_or(Err(e), |path| mapped::map_as(&path, name)))
        .ok()
}
