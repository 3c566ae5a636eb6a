//! The parts of a GGUF file: metadata by key, and where tensors lie. Files stay mapped.
//!
//! Invariant: each tensor lies inside its file, begins where the file's alignment says, is as long as its shape and type say, and overlaps no
//! other. Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3.

use super::value::{Array, Value};
use brolga_ir::ops::BlockFormat;
use brolga_ir::{DType, Source};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Where tensors begin at multiples of, where the file says nothing.
const ALIGNMENT: u64 = 32;

/// The most dimensions of a tensor.
const MOST_RANK: u32 = 4;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elements {
    /// One after the other.
    Plain(DType),
    /// Rows of blocks.
    Blocks(BlockFormat),
}

impl Elements {
    /// Elements and bytes of a block.
    fn block(self) -> [u64; 2] {
        match self {
            Elements::Plain(dtype) => [1, dtype.bytes() as u64],
            Elements::Blocks(format) => [format.elements() as u64, format.bytes() as u64],
        }
    }
}

/// A tensor.
pub struct Info {
    /// How its elements are stored.
    pub elements: Elements,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Byte offset of the first element in the file.
    pub offset: usize,
}

/// A file's parts.
pub struct Parts {
    /// Metadata.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Info>,
}

/// Numbers by which files name types, and their names.
const TYPES: [(u32, &str); 34] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// The elements of a type.
fn elements(number: u32) -> Result<Elements, String> {
    let name = TYPES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name);
    let plain = match name {
        Some("F32") => Some(DType::F32),
        Some("F16") => Some(DType::F16),
        Some("BF16") => Some(DType::BF16),
        _ => None,
    };
    let blocks = || BlockFormat::named(&name?.to_ascii_lowercase()).map(Elements::Blocks);
    plain.map(Elements::Plain).or_else(blocks).ok_or_else(|| {
        let formats = BlockFormat::ALL.map(|f| f.name().to_ascii_uppercase());
        let what = name.map_or_else(|| format!("of the unknown type {number}"), |n| format!("of type {n}"));
        format!("{what}, expected F32, F16, BF16, {}", formats.join(", "))
    })
}

/// What is read of a file, from front to back.
struct Reader<'f> {
    bytes: &'f [u8],
    at: usize,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: u64) -> Result<&[u8], String> {
        if n > self.left() as u64 {
            return Err(format!(
                "{n} bytes at byte {} of {}: the file is cut off, or damaged",
                self.at,
                self.bytes.len()
            ));
        }
        let start = self.at;
        self.at += n as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.try_into().expect("there are so many"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        let at = self.at;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| format!("the text at byte {at} is no UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A number of one of the types, as an integer or a float.
    fn number(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Int(self.array::<1>()?[0].into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => match self.array::<1>()?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                x => return Err(format!("a truth value of {x}, expected 0 or 1")),
            },
            10 => {
                let x = self.u64()?;
                Value::Int(i64::try_from(x).map_err(|_| format!("{x}, which is beyond 2^63"))?)
            }
            11 => Value::Int(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("a value of the unknown type {kind}")),
        })
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.u32()? {
            8 => self.text().map(Value::Text),
            9 => {
                let (kind, n) = (self.u32()?, self.u64()?);
                // Each element has a byte at least.
                if n > self.left() as u64 {
                    return Err(format!(
                        "{n} elements at byte {}: the file is cut off, or damaged",
                        self.at
                    ));
                }
                let numbers = (0..n).map(|_| ());
                Ok(Value::Array(match kind {
                    8 => Array::Texts(numbers.map(|()| self.text()).collect::<Result<_, _>>()?),
                    9 => return Err("an array of arrays, which is not supported".into()),
                    _ => Array::Numbers(numbers.map(|()| self.number(kind)).collect::<Result<_, _>>()?),
                }))
            }
            kind => self.number(kind),
        }
    }
}

/// Reads a file's header.
///
/// # Errors
/// When it is damaged, of another version, or has a tensor of a type that is not supported: the key or the tensor.
pub fn parse(source: &Arc<dyn Source>) -> Result<Parts, String> {
    let bytes = source.bytes();
    let mut r = Reader { bytes, at: 0 };
    if r.array::<4>()? != MAGIC {
        return Err("it does not begin with `GGUF`".into());
    }
    match r.u32()? {
        2 | 3 => {}
        v if (1..=3).contains(&v.swap_bytes()) => {
            return Err("its numbers are big-endian, expected little-endian".into());
        }
        v => return Err(format!("version {v} of the format, expected 2 or 3")),
    }
    let [tensors, keys] = [r.u64()?, r.u64()?];
    let mut metadata = BTreeMap::new();
    for i in 0..keys {
        let key = r.text().map_err(|e| format!("key {i} of its metadata: {e}"))?;
        let value = r.value().map_err(|e| format!("key `{key}`: {e}"))?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("key `{key}` is there twice"));
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Int(n)) if *n > 0 && n % 8 == 0 => *n as u64,
        Some(v) => {
            return Err(format!("key `general.alignment`: {v}, expected a multiple of 8"));
        }
    };
    let mut found: Vec<(String, Elements, Vec<u64>, u64)> = vec![];
    for i in 0..tensors {
        let name = r.text().map_err(|e| format!("tensor {i}: {e}"))?;
        let (elements, extents, offset) = tensor(&mut r).map_err(|e| format!("tensor `{name}`: {e}"))?;
        found.push((name, elements, extents, offset));
    }
    let first = (r.at as u64).next_multiple_of(alignment);
    placed(found, alignment, first, bytes.len() as u64).map(|tensors| Parts { metadata, tensors })
}

/// What a header says of a tensor behind its name: type, extents as they are stored, innermost first, and offset.
fn tensor(r: &mut Reader<'_>) -> Result<(Elements, Vec<u64>, u64), String> {
    let rank = r.u32()?;
    if rank > MOST_RANK {
        return Err(format!("{rank} dimensions, expected {MOST_RANK} at most"));
    }
    let extents = (0..rank).map(|_| r.u64()).collect::<Result<Vec<_>, _>>()?;
    Ok((elements(r.u32()?)?, extents, r.u64()?))
}

/// Tensors where they lie in a file of so many bytes, whose data begin at `first`.
fn placed(
    found: Vec<(String, Elements, Vec<u64>, u64)>,
    alignment: u64,
    first: u64,
    end: u64,
) -> Result<BTreeMap<String, Info>, String> {
    let mut ranges = vec![];
    let mut tensors = BTreeMap::new();
    for (name, elements, extents, offset) in found {
        let wrong = |what: String| format!("tensor `{name}`: {what}");
        let [each, bytes] = elements.block();
        if extents.contains(&0) {
            return Err(wrong(format!("{extents:?}, expected elements")));
        }
        let row = extents.first().copied().unwrap_or(1);
        if !row.is_multiple_of(each) {
            return Err(wrong(format!(
                "rows of {row} elements, expected whole blocks of {each}"
            )));
        }
        let blocks = extents
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
            .map(|n| n / each);
        let size = blocks.and_then(|n| n.checked_mul(bytes));
        let begin = first.checked_add(offset);
        let stop = begin.zip(size).and_then(|(b, s)| b.checked_add(s));
        let (Some(begin), Some(stop)) = (begin, stop.filter(|s| *s <= end)) else {
            return Err(wrong(format!(
                "{extents:?} at offset {offset} lies beyond the end of the file of {end} bytes: it is cut off, or damaged"
            )));
        };
        if offset % alignment != 0 {
            return Err(wrong(format!("offset {offset}, expected a multiple of {alignment}")));
        }
        let shape = extents.iter().rev().map(|&d| d as usize).collect();
        let info = Info {
            elements,
            shape,
            offset: begin as usize,
        };
        if tensors.insert(name.clone(), info).is_some() {
            return Err(wrong("is there twice".into()));
        }
        ranges.push((begin, stop, name));
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(format!("tensor `{}` overlaps `{}`", pair[1].2, pair[0].2));
        }
    }
    Ok(tensors)
}
