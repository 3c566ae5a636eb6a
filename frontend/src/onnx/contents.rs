//! Files that hold the value of an input or output: a tensor, a sequence of tensors, or an optional (`TensorProto`, `SequenceProto`,
//! `OptionalProto` of onnx-data.proto). What is no tensor is walked here, field by field; its tensors are read as usual.

use super::error::Error;
use super::{Options, model, tensor, wire};
use crate::mapped;
use brolga_ir::{Source, Tensor};
use std::path::Path;
use std::sync::Arc;

/// The value of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// A tensor, or an optional that has one.
    Tensor(Tensor),
    /// A sequence, or an optional that has one.
    Sequence(Vec<Tensor>),
    /// An optional without a value.
    Nothing,
}

impl Contents {
    /// Its tensors.
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Contents::Tensor(t) => std::slice::from_ref(t),
            Contents::Sequence(all) => all,
            Contents::Nothing => &[],
        }
    }
}

/// Reads a file that holds one value, which is declared as a `sequence`, an `optional`, or a tensor of a type ([`super::Port::dtype`]).
///
/// # Errors
/// When the file cannot be read or holds no such value.
pub fn contents_file(path: impl AsRef<Path>, declared: &str, options: &Options) -> Result<Contents, Error> {
    let path = path.as_ref();
    let source = model::map(path)?;
    let fail = |message: String| Error::Model {
        file: path.display().to_string(),
        message,
    };
    match declared {
        "sequence" => {
            sequence(&source, source.bytes(), options).map_err(|e| fail(format!("not an ONNX sequence: {e}")))
        }
        "optional" => optional(&source, options).map_err(|e| fail(format!("not an ONNX optional: {e}"))),
        _ => super::tensor_file(path, options).map(|(_, t)| Contents::Tensor(t)),
    }
}

/// A `SequenceProto`: 3 are its tensors.
fn sequence(source: &Arc<dyn Source>, bytes: &[u8], options: &Options) -> Result<Contents, String> {
    let mut all = vec![];
    for (number, body) in wire::fields(bytes)? {
        match number {
            1 => {}
            3 => all.push(one(source, body, options)?),
            n => return Err(format!("field {n}, expected tensors")),
        }
    }
    Ok(Contents::Sequence(all))
}

/// An `OptionalProto`: 3 is a tensor, 5 a sequence.
fn optional(source: &Arc<dyn Source>, options: &Options) -> Result<Contents, String> {
    let mut found = Contents::Nothing;
    for (number, body) in wire::fields(source.bytes())? {
        found = match number {
            1 => continue,
            3 => Contents::Tensor(one(source, body, options)?),
            5 => sequence(source, body, options)?,
            n => return Err(format!("field {n}, expected a tensor or a sequence of tensors")),
        };
    }
    Ok(found)
}

/// A tensor within another message.
fn one(source: &Arc<dyn Source>, body: &[u8], options: &Options) -> Result<Tensor, String> {
    let source = mapped::bytes(body.to_vec(), source.name());
    let proto = model::parse_tensor(&source)?;
    let mut files = model::Files::new(source, None);
    files.strings = options.strings.clone();
    Ok(tensor::constant(&proto, &mut files, options.memory_limit)?.to_tensor())
}
