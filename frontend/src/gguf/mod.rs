//! Files in llama.cpp's format GGUF: a model's metadata, its weights, mostly of few bits, and its tokenizer.
//!
//! | module | what it does |
//! | --- | --- |
//! | `file`, `value`, `metadata` | the parts of a file, mapped; values by key |
//! | `architectures` | architectures that are known, and names of tensors |
//! | `describe` | metadata as the fields of a `config.json` |
//! | `tokenizer` | metadata as a `tokenizer.json` |
//!
//! A file is read as the folder that it was made of: its metadata as the fields of a configuration, its tensors under the names that the folder
//! has for them. Families do not know the difference.

mod architectures;
mod describe;
mod file;
mod metadata;
mod tokenizer;
mod value;

pub use file::MAGIC;

use crate::mapped;
use crate::safetensors::{self, Change, Checkpoint, Error, Options, Stored};
use architectures::Architecture;
use brolga_ir::{DType, Graph, Source};
use file::{Elements, Info};
use metadata::Metadata;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of files of a model that lies in several.
const SPLITS: &str = "split.count";

/// A file's tensors, and what they lie in.
type Tensors = BTreeMap<String, (Info, Arc<dyn Source>)>;

fn wrong(path: &Path, message: impl Into<String>) -> Error {
    Error::File {
        file: path.display().to_string(),
        message: message.into(),
    }
}

fn parsed(path: &Path) -> Result<(Metadata, Tensors), Error> {
    let source = mapped::map(path).map_err(|source| Error::Io {
        file: path.display().to_string(),
        source,
    })?;
    parts(path, &source)
}

fn parts(path: &Path, source: &Arc<dyn Source>) -> Result<(Metadata, Tensors), Error> {
    let parts = file::parse(source).map_err(|message| wrong(path, message))?;
    let tensors = parts.tensors.into_iter().map(|(n, info)| (n, (info, source.clone())));
    Ok((
        Metadata::new(path.display().to_string(), parts.metadata),
        tensors.collect(),
    ))
}

/// A file's metadata and its tensors, and those of the files behind the first of several.
fn opened(path: &Path) -> Result<(Metadata, Tensors), Error> {
    let (metadata, mut tensors) = parsed(path)?;
    let count = metadata.count(SPLITS)?.unwrap_or(1);
    for other in others(path, count)? {
        for (name, tensor) in parsed(&other)?.1 {
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(wrong(
                    &other,
                    format!("tensor `{name}` is in another file of the model, too"),
                ));
            }
        }
    }
    Ok((metadata, tensors))
}

/// The files behind the first one of so many: `NAME-00001-of-00003.gguf`.
fn others(path: &Path, count: u64) -> Result<impl Iterator<Item = PathBuf>, Error> {
    let end = move |i: u64| format!("-{i:05}-of-{count:05}.gguf");
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let stem = match count {
        0 | 1 => Some(""),
        _ => name.strip_suffix(&end(1)),
    };
    match stem.map(str::to_owned) {
        Some(stem) => Ok((2..=count).map(move |i| path.with_file_name(format!("{stem}{}", end(i))))),
        None => Err(wrong(
            path,
            format!(
                "one of {count} files of a model; give the first, whose name ends in {}",
                end(1)
            ),
        )),
    }
}

/// Reads a file as the folder that it was made of.
///
/// # Errors
/// When it is damaged, its architecture is not known, or a key is wrong.
pub fn checkpoint(path: &Path) -> Result<Checkpoint, Error> {
    let (metadata, tensors) = opened(path)?;
    described(path, &metadata, tensors)
}

fn described(path: &Path, metadata: &Metadata, mut tensors: Tensors) -> Result<Checkpoint, Error> {
    if let Some(kind) = metadata.text("general.type")?.filter(|k| *k != "model") {
        return Err(metadata.wrong("general.type", format_args!("`{kind}`, expected `model`")));
    }
    let architecture = architectures::find(metadata)?;
    let embedding = tensors.get("token_embd.weight").map(|(info, _)| info.shape.clone());
    let Some(&[vocabulary, _]) = embedding.as_deref() else {
        return Err(wrong(path, "tensor `token_embd.weight` is missing, or no matrix"));
    };
    let mut fields = describe::describe(
        metadata,
        architecture,
        &describe::Facts {
            vocabulary,
            has: &|name| tensors.contains_key(name),
            factors: &|name, n| tensors.get(name).map(|t| numbers(path, name, n, t)).transpose(),
        },
    )?;
    fields.insert("eos_token_id".into(), json!(tokenizer::ends(metadata)?));
    // They are part of the description.
    tensors.retain(|name, _| {
        !matches!(
            &**name,
            "rope_freqs.weight" | "rope_factors_long.weight" | "rope_factors_short.weight"
        )
    });
    let heads =
        ["num_attention_heads", "num_key_value_heads"].map(|n| fields.get(n).and_then(|v| v.as_u64()).unwrap_or(0));
    Ok(Checkpoint {
        described: metadata.file().to_owned(),
        what: "its metadata",
        fields,
        generation: None,
        tensors: tensors
            .into_iter()
            .map(|(name, tensor)| {
                let name = architecture.folder_name(&name);
                let stored = stored(architecture, &name, heads, tensor);
                (name, stored)
            })
            .collect(),
        own_name: Box::new(|name| architecture.file_name(name)),
    })
}

fn stored(architecture: &Architecture, name: &str, heads: [u64; 2], (info, source): (Info, Arc<dyn Source>)) -> Stored {
    let change = architecture.change(name, heads);
    let (dtype, packed) = match info.elements {
        Elements::Plain(dtype) => (dtype, None),
        Elements::Blocks(format) => (DType::U8, Some(format)),
    };
    let mut shape = info.shape;
    if change == Change::Turned {
        shape.reverse();
    }
    Stored {
        dtype,
        packed,
        change,
        shape,
        source,
        offset: info.offset,
    }
}

/// The so many numbers of a vector in f32.
fn numbers(path: &Path, name: &str, n: usize, (info, source): &(Info, Arc<dyn Source>)) -> Result<Vec<f64>, Error> {
    if (info.elements, &info.shape[..]) != (Elements::Plain(DType::F32), &[n]) {
        let message = format!(
            "tensor `{name}`: {:?} of extents {:?}, expected {n} numbers of F32",
            info.elements, info.shape
        );
        return Err(wrong(path, message));
    }
    let bytes = &source.bytes()[info.offset..][..4 * n];
    let one = |b: &[u8]| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(bytes.chunks_exact(4).map(one).collect())
}

/// What a file holds in place of a folder's texts, by their names: `tokenizer.json` and `tokenizer_config.json`.
///
/// # Errors
/// When it is damaged, or its tokenizer is not known.
pub fn texts(path: &Path) -> Result<Vec<(String, String)>, Error> {
    tokenizer::texts(&parsed(path)?.0)
}

/// The graph and the texts of a file in memory.
///
/// # Errors
/// As [`safetensors::load`] and [`texts`].
pub fn load_bytes(bytes: Vec<u8>, name: &str, options: &Options) -> Result<(Graph, Vec<(String, String)>), Error> {
    let path = Path::new(name);
    let (metadata, tensors) = parts(path, &mapped::bytes(bytes, name))?;
    let (graph, _) = safetensors::built(path, described(path, &metadata, tensors)?, options)?;
    Ok((graph, tokenizer::texts(&metadata)?))
}
