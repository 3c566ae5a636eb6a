//! The tensors of a folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names. Files stay mapped.
//!
//! Invariant: each tensor lies inside its file, is as long as its shape and element type say, and overlaps no other.
//! Source: <https://huggingface.co/docs/safetensors>, the format: 8 bytes, a header of JSON, the data. The header is read here, not by
//! the crate of the same name, whose errors do not say which tensor is wrong.

use super::Error;
use crate::mapped;
use brolga_ir::ops::BlockFormat;
use brolga_ir::{DType, Source};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

/// The file of a model that lies in one.
const SINGLE: &str = "model.safetensors";

/// The file that says where tensors of several files lie.
const INDEX: &str = "model.safetensors.index.json";

/// The longest header.
const MOST_HEADER: u64 = 100 << 20;

/// What a tensor takes to be what a family wants: files of other formats store some in another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// Rows of each head that lie in pairs, of which the first ones come first and then the second ones.
    Pairs {
        /// Heads.
        heads: usize,
    },
    /// Elements less 1.
    Less1,
    /// The transpose: `shape` is that of what is wanted.
    Turned,
}

/// Where a tensor lies.
#[derive(Clone)]
pub struct Stored {
    /// Element type; u8 for rows of blocks.
    pub dtype: DType,
    /// How elements are packed in blocks.
    pub packed: Option<BlockFormat>,
    /// What it takes to be what a family wants.
    pub change: Change,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// The file.
    pub source: Arc<dyn Source>,
    /// Byte offset of the first element.
    pub offset: usize,
}

impl Stored {
    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        let n = self.shape.iter().map(|&d| d as u64).product::<u64>();
        match self.packed {
            Some(format) => n / format.elements() as u64 * format.bytes() as u64,
            None => n * self.dtype.bytes() as u64,
        }
    }

    /// The name of the type of its elements.
    pub fn type_name(&self) -> String {
        match self.packed {
            Some(format) => format.name().to_owned(),
            None => self.dtype.to_string(),
        }
    }
}

/// The tensors of a model's folder, by name.
///
/// # Errors
/// When there are no weights, or a file is corrupt.
pub fn tensors(folder: &Path) -> Result<BTreeMap<String, Stored>, Error> {
    let index = folder.join(INDEX);
    let single = folder.join(SINGLE);
    if single.exists() {
        file(&single)
    } else if index.exists() {
        sharded(folder, &index)
    } else {
        Err(nothing(folder))
    }
}

/// The tensors of one file.
///
/// # Errors
/// When it cannot be mapped, or is corrupt.
pub fn file(path: &Path) -> Result<BTreeMap<String, Stored>, Error> {
    let source = mapped::map(path).map_err(|e| io(path, e))?;
    header(&source).map_err(|message| wrong(path, message))
}

fn sharded(folder: &Path, index: &Path) -> Result<BTreeMap<String, Stored>, Error> {
    let text = std::fs::read_to_string(index).map_err(|e| io(index, e))?;
    let json: Json = serde_json::from_str(&text).map_err(|e| wrong(index, format!("no JSON: {e}")))?;
    let Some(Json::Object(map)) = json.get("weight_map") else {
        return Err(wrong(index, "it has no `weight_map`"));
    };
    let mut shards: BTreeMap<&str, BTreeMap<String, Stored>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (name, shard) in map {
        let Some(shard) = shard.as_str() else {
            return Err(wrong(
                index,
                format!("the file of `{name}` is {shard}, expected a name"),
            ));
        };
        let mut parts = Path::new(shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(wrong(
                index,
                format!("the file of `{name}` is `{shard}`, expected a name without folders"),
            ));
        }
        let path = folder.join(shard);
        let here = match shards.entry(shard) {
            std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::btree_map::Entry::Vacant(e) => e.insert(file(&path)?),
        };
        let stored = here
            .get(name)
            .ok_or_else(|| wrong(&path, format!("it does not hold `{name}`, which {INDEX} says is there")))?;
        all.insert(name.clone(), stored.clone());
    }
    for (shard, here) in shards {
        for (name, stored) in here {
            if let Some(other) = all.insert(name.clone(), stored.clone())
                && !Arc::ptr_eq(&other.source, &stored.source)
            {
                return Err(wrong(
                    &folder.join(shard),
                    format!("`{name}` stands in another shard, too"),
                ));
            }
        }
    }
    Ok(all)
}

/// What is wrong with a folder without weights.
fn nothing(folder: &Path) -> Error {
    let other = [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "flax_model.msgpack",
    ];
    let found = other.iter().find(|f| folder.join(f).exists());
    let hint = match found {
        Some(f) => format!(
            "; the weights in {f} have to be converted: load the model in transformers, and save it with save_pretrained"
        ),
        None => String::new(),
    };
    wrong(folder, format!("expected {SINGLE}, or {INDEX} and its files{hint}"))
}

/// The tensors that a file's header lists.
fn header(source: &Arc<dyn Source>) -> Result<BTreeMap<String, Stored>, String> {
    let bytes = source.bytes();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!(
            "{} bytes, expected the 8 of a safetensors header's length",
            bytes.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > MOST_HEADER.min(rest.len() as u64) {
        let of = rest.len();
        return Err(format!(
            "a header of {length} bytes in a file with {of} behind its length: no safetensors file, or cut off"
        ));
    }
    let (text, data) = rest.split_at(length as usize);
    let fields: Map<String, Json> =
        serde_json::from_slice(text).map_err(|e| format!("its header is no JSON object: {e}"))?;
    let first = 8 + length as usize;
    let mut ranges = vec![];
    let mut tensors = BTreeMap::new();
    for (name, entry) in fields {
        if name == "__metadata__" {
            continue;
        }
        let (dtype, shape, [begin, end]) = tensor(&entry).map_err(|e| format!("tensor `{name}`: {e}"))?;
        if end > data.len() as u64 {
            let of = data.len();
            return Err(format!(
                "tensor `{name}`: bytes {begin} to {end} of {of}: the file is cut off, or its header wrong"
            ));
        }
        ranges.push((begin, end, name.clone()));
        let offset = first + begin as usize;
        let source = source.clone();
        tensors.insert(
            name,
            Stored {
                dtype,
                packed: None,
                change: Change::None,
                shape,
                source,
                offset,
            },
        );
    }
    ranges.sort_unstable();
    let mut last = (0, "the header");
    for (begin, end, name) in &ranges {
        if *begin != last.0 {
            let what = if *begin < last.0 {
                "overlaps"
            } else {
                "leaves a gap behind"
            };
            return Err(format!(
                "tensor `{name}`: bytes {begin} to {end}: it {what} `{}`, which ends at {}",
                last.1, last.0
            ));
        }
        last = (*end, name);
    }
    if last.0 != data.len() as u64 {
        return Err(format!("{} bytes of tensors, and {} of data", last.0, data.len()));
    }
    Ok(tensors)
}

/// What a header says of a tensor: its type, and where it lies in the data.
fn tensor(entry: &Json) -> Result<(DType, Vec<usize>, [u64; 2]), String> {
    let name = entry.get("dtype").and_then(Json::as_str).ok_or("it has no `dtype`")?;
    let dtype = dtype(name).ok_or_else(|| format!("element type {name}, which is not supported"))?;
    let list = |field: &str| -> Option<Vec<u64>> { entry.get(field)?.as_array()?.iter().map(Json::as_u64).collect() };
    let shape = list("shape").ok_or("`shape` is no list of extents")?;
    let offsets = list("data_offsets").and_then(|l| <[u64; 2]>::try_from(l).ok());
    let [begin, end] = offsets.ok_or("`data_offsets` is no pair of offsets")?;
    let size = shape.iter().try_fold(dtype.bytes() as u64, |n, &d| n.checked_mul(d));
    if size.is_none() || end.checked_sub(begin) != size {
        return Err(format!("bytes {begin} to {end} for {name} {shape:?}"));
    }
    let shape = shape.iter().map(|&d| d as usize).collect();
    Ok((dtype, shape, [begin, end]))
}

fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "BOOL" => DType::Bool,
        "U8" => DType::U8,
        "I8" => DType::I8,
        "U16" => DType::U16,
        "I16" => DType::I16,
        "U32" => DType::U32,
        "I32" => DType::I32,
        "U64" => DType::U64,
        "I64" => DType::I64,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "F32" => DType::F32,
        "F64" => DType::F64,
        _ => return None,
    })
}

fn io(path: &Path, source: std::io::Error) -> Error {
    let file = path.display().to_string();
    Error::Io { file, source }
}

fn wrong(path: &Path, message: impl Into<String>) -> Error {
    Error::File {
        file: path.display().to_string(),
        message: message.into(),
    }
}
