//! Files: mapping a model and its external data, and parsing it with the weights left where they are.
//!
//! Invariant: every range that a file names is checked against the mapped file before a constant refers to it, and an
//! external-data location never leads out of the model's folder.

use super::{Error, looks, wire};
use crate::mapped;
use brolga_ir::{Source, Strings};
use onnx_protobuf::{Message, ModelProto, TensorProto};
use rustc_hash::FxHashMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The way out of a place where external data may not lie.
const SAVE_AGAIN: &str =
    "put the file there and save the model again, with onnx.save_model(..., save_as_external_data=True)";

/// Maps a file.
///
/// # Errors
/// When it cannot be opened or mapped, or is no regular file.
pub fn map(path: &Path) -> Result<Arc<dyn Source>, Error> {
    mapped::map(path).map_err(|source| Error::Io {
        file: path.display().to_string(),
        source,
    })
}

/// A parsed model, its weights still in the file.
pub struct Model {
    /// The model, with large payloads replaced by segments of `source` (see [`wire`]).
    pub proto: ModelProto,
    /// The model's file.
    pub files: Files,
}

/// The model's file and the external-data files that it names.
pub struct Files {
    /// The model's own file.
    pub source: Arc<dyn Source>,
    /// The folder of external data; `None` for a model in memory.
    folder: Option<PathBuf>,
    external: FxHashMap<String, Arc<dyn Source>>,
    /// The numbers of the strings that were read.
    pub strings: Strings,
}

impl Model {
    /// Parses a model.
    ///
    /// # Errors
    /// When the bytes are no model.
    pub fn parse(source: Arc<dyn Source>, folder: Option<PathBuf>) -> Result<Model, Error> {
        let fail = |message: String| Error::Model {
            file: source.name().to_string(),
            message,
        };
        let none = |e: String| {
            let hint = match looks::hint(source.bytes()) {
                // What begins as a model does, and ends within something.
                hint if hint.is_empty() && wire::begins_as_model(source.bytes()) => format!(
                    "; it begins as a model does, and may have been cut off: it has {} bytes",
                    source.bytes().len()
                ),
                hint => hint,
            };
            fail(format!("not an ONNX model: {e}{hint}"))
        };
        let reduced = wire::reduce_model(source.bytes()).map_err(none)?;
        let proto = ModelProto::parse_from_bytes(&reduced).map_err(|e| none(e.to_string()))?;
        if proto.graph.is_none() {
            return Err(none("it has no graph".into()));
        }
        Ok(Model {
            proto,
            files: Files::new(source, folder),
        })
    }
}

/// Parses a TensorProto with its payload left in the source.
///
/// # Errors
/// When the bytes are no tensor.
pub fn parse_tensor(source: &Arc<dyn Source>) -> Result<TensorProto, String> {
    let reduced = wire::reduce_tensor(source.bytes())?;
    TensorProto::parse_from_bytes(&reduced).map_err(|e| e.to_string())
}

impl Files {
    /// The files of a model.
    pub fn new(source: Arc<dyn Source>, folder: Option<PathBuf>) -> Files {
        Files {
            source,
            folder,
            external: FxHashMap::default(),
            strings: Strings::default(),
        }
    }

    /// The file of a tensor's external data, mapped once.
    ///
    /// # Errors
    /// When the location is not a path inside the model's folder, or the file cannot be mapped.
    pub fn external(&mut self, location: &str) -> Result<Arc<dyn Source>, String> {
        if let Some(s) = self.external.get(location) {
            return Ok(s.clone());
        }
        let folder = self
            .folder
            .as_deref()
            .ok_or("external data in a model that has no folder")?;
        let relative = Path::new(location);
        let inside = relative
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside {
            return Err(format!(
                "external data at `{location}`, expected a path inside the model's folder, {}: {SAVE_AGAIN}",
                folder.display()
            ));
        }
        let path = folder.join(relative);
        // A symbolic link may still lead out of the folder.
        let fail = |e: std::io::Error| {
            let way_out = match e.kind() {
                ErrorKind::NotFound => format!("; it was written with the model: copy it into {}", folder.display()),
                _ => String::new(),
            };
            format!("external data {}: {e}{way_out}", path.display())
        };
        let real = path.canonicalize().map_err(fail)?;
        if !real.starts_with(folder.canonicalize().map_err(fail)?) {
            return Err(format!(
                "external data at `{location}` lies outside the model's folder: {SAVE_AGAIN}"
            ));
        }
        let source = map(&path).map_err(|e| format!("external data {e}"))?;
        self.external.insert(location.to_string(), source.clone());
        Ok(source)
    }
}
