//! The byte form of [`Meta`]: little endian, fields in the order of the lists below, counts and lengths as `u32`.
//!
//! Invariant: decoding never panics, never reads outside its bytes, and allocates no more than in proportion to them.

use crate::ctx::Alias;
use crate::dtype::DType;
use crate::meta::{Dim, Entries, HostOp, Input, Kernel, Meta, Output};
use std::fmt;

/// The version of the layout; a reader knows exactly one.
pub const FORMAT_VERSION: u32 = 5;

/// Why bytes are not an artefact that this version reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The magic is missing.
    Magic,
    /// Written by another version.
    Version {
        /// The version in the file.
        found: u32,
    },
    /// The file is shorter or longer than it says.
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes the header announces.
        expected: u64,
    },
    /// A checksum does not fit its bytes.
    Checksum {
        /// The part that is damaged.
        part: String,
    },
    /// A part that the format rules out.
    Malformed(String),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(
                f,
                "not a Brolga artefact: it does not begin with the bytes 89 42 52 4f 4c 47 41 0a"
            ),
            Self::Version { found } => {
                write!(
                    f,
                    "artefact format {found}, but this build reads format {FORMAT_VERSION}; compile the model again"
                )
            }
            Self::Length { found, expected } => {
                write!(
                    f,
                    "truncated or overwritten artefact: {found} bytes, the header says {expected}"
                )
            }
            Self::Checksum { part } => write!(f, "damaged artefact: the checksum of {part} does not match its bytes"),
            Self::Malformed(what) => write!(f, "malformed artefact: {what}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// A value with a byte form.
pub(crate) trait Wire: Sized {
    /// Appends the byte form.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads one value.
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError>;
}

/// A cursor over bytes that nobody has checked yet.
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte; `what` names the section in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Decoder { bytes, at: 0, what }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let rest = self.rest();
        if count > rest.len() {
            return Err(self.error(format!("{count} bytes wanted, {} left", rest.len())));
        }
        self.at += count;
        Ok(&rest[..count])
    }

    /// The next `N` bytes, as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// An error that names the section and the byte.
    pub(crate) fn error(&self, message: String) -> FormatError {
        FormatError::Malformed(format!("{} at byte {}: {message}", self.what, self.at))
    }
}

macro_rules! wire_numbers {
    ($($type:ty),*) => {
        $(impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
                Ok(<$type>::from_le_bytes(from.array()?))
            }
        })*
    };
}

wire_numbers!(u8, u32, u64, i64);

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let length = u32::get(from)? as usize;
        let bytes = from.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(from.error(format!("a string is not UTF-8: {error}"))),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        for item in self {
            item.put(out);
        }
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let count = u32::get(from)? as usize;
        // Every item takes a byte at least, so this bounds the loop before anything is read.
        if count > from.rest().len() {
            return Err(from.error(format!("{count} items in {} bytes", from.rest().len())));
        }
        (0..count).map(|_| T::get(from)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(self.is_some()).put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        match u8::get(from)? {
            0 => Ok(None),
            1 => Ok(Some(T::get(from)?)),
            other => Err(from.error(format!("{other} where 0 or 1 was expected"))),
        }
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(from.error(format!("{other} where 0 or 1 was expected"))),
        }
    }
}

impl Wire for [u64; 2] {
    fn put(&self, out: &mut Vec<u8>) {
        self[0].put(out);
        self[1].put(out);
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        Ok([u64::get(from)?, u64::get(from)?])
    }
}

impl Wire for DType {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        let code = u8::get(from)?;
        DType::from_code(code).ok_or_else(|| from.error(format!("{code} is not the code of a dtype")))
    }
}

impl Wire for Dim {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Dim::Const(n) => {
                0u8.put(out);
                n.put(out);
            }
            Dim::Symbol(s) => {
                1u8.put(out);
                s.put(out);
            }
        }
    }
    fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
        match u8::get(from)? {
            0 => Ok(Dim::Const(i64::get(from)?)),
            1 => Ok(Dim::Symbol(u32::get(from)?)),
            other => Err(from.error(format!("{other} is not the kind of an extent"))),
        }
    }
}

/// A field that is missing from a list does not compile.
macro_rules! wire_structs {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $type { $($field),* } = self;
                $($field.put(out);)*
            }
            fn get(from: &mut Decoder<'_>) -> Result<Self, FormatError> {
                Ok($type { $($field: Wire::get(from)?),* })
            }
        })*
    };
}

wire_structs! {
    Meta {
        name, target, features, compiler, key, symbols, inputs, outputs, guards, sizes, checks, names, entries, host_ops, kernels, nodes,
        strings, aliases, weights_bytes, steering_bytes,
    }
    Input { name, dtype, dims, default }
    Output { name, dtype, rank, dynamic, shape }
    HostOp { text, node, inputs, outputs }
    Kernel { name, offset, flops, bytes }
    Entries { run, plan, shapes }
    Alias { input, output }
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    // More than 4 Gi items cannot be written down; a reader would find fewer and say so.
    u32::try_from(count).unwrap_or(u32::MAX).put(out);
}
