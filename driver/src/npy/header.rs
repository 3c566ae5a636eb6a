//! The header of a `.npy` file: magic, version, length, and a Python dictionary in ASCII or UTF-8.
//!
//! ```text
//! \x93NUMPY 1 0 118 {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//! ```

use brolga_ir::{DType, Tensor};
use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest dictionary that is read: a shape has far fewer digits.
const LONGEST: u64 = 1 << 16;

/// NumPy's names of element types.
const KINDS: [(&str, DType); 12] = [
    ("f8", DType::F64),
    ("f4", DType::F32),
    ("f2", DType::F16),
    ("i8", DType::I64),
    ("i4", DType::I32),
    ("i2", DType::I16),
    ("i1", DType::I8),
    ("u8", DType::U64),
    ("u4", DType::U32),
    ("u2", DType::U16),
    ("u1", DType::U8),
    ("b1", DType::Bool),
];

/// The dtype that stands for another in NumPy's files.
pub fn stored(dtype: DType) -> DType {
    match dtype {
        DType::BF16 => DType::F32,
        d => d.stored(),
    }
}

/// What a header says.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub dtype: DType,
    /// Bytes of an element.
    pub size: usize,
    pub big_endian: bool,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
}

/// The header of a tensor's file; its length is a multiple of 64.
pub(super) fn of(t: &Tensor) -> Vec<u8> {
    let dtype = stored(t.dtype());
    let (kind, _) = KINDS
        .iter()
        .find(|(_, d)| *d == dtype)
        .expect("the others are stored as one of them");
    let order = if dtype.bytes() == 1 { '|' } else { '<' };
    with(&format!("{order}{kind}"), t.shape())
}

/// The header of a file of strings of up to so many characters.
pub(super) fn of_strings(longest: usize, shape: &[usize]) -> Vec<u8> {
    with(&format!("<U{longest}"), shape)
}

fn with(descr: &str, shape: &[usize]) -> Vec<u8> {
    let text = shape_text(shape);
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({text}), }}");
    // Magic, two bytes of version, two of length, the closing line break.
    let before = MAGIC.len() + 4;
    while !(before + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a tensor's rank is small");
    [&MAGIC[..], &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat()
}

fn shape_text(shape: &[usize]) -> String {
    let mut text: String = shape.iter().map(|n| format!("{n}, ")).collect();
    if shape.len() > 1 {
        text.truncate(text.len() - 2);
    }
    text.trim_end().to_owned()
}

impl Header {
    /// Reads a header; what follows it is the data.
    pub fn read(r: &mut impl Read) -> Result<Header, String> {
        let mut start = [0; 8];
        r.read_exact(&mut start).map_err(|e| e.to_string())?;
        if start[..6] != *MAGIC {
            return Err("it does not begin with NumPy's magic number".into());
        }
        let mut length = [0; 4];
        let width = match start[6] {
            1 => 2,
            2 | 3 => 4,
            v => return Err(format!("version {v} of the format, expected 1 to 3")),
        };
        r.read_exact(&mut length[..width]).map_err(|e| e.to_string())?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > LONGEST {
            return Err(format!("a header of {length} bytes, expected at most {LONGEST}"));
        }
        let mut text = String::new();
        let read = r.take(length).read_to_string(&mut text).map_err(|e| e.to_string())?;
        if (read as u64) < length {
            return Err(format!("a header of {read} bytes, expected {length}"));
        }
        Header::parse(&text)
    }

    fn parse(text: &str) -> Result<Header, String> {
        let descr = field(text, "descr")?;
        let fortran_order = match field(text, "fortran_order")? {
            v if v.starts_with("False") => false,
            v if v.starts_with("True") => true,
            v => return Err(format!("the fortran_order `{}`, expected True or False", line(v))),
        };
        let (big_endian, dtype, size) = dtype(descr)?;
        let shape = field(text, "shape")?;
        let inner = shape.strip_prefix('(').and_then(|s| s.split_once(')'));
        let (inner, _) = inner.ok_or_else(|| format!("the shape `{}`, expected a tuple", line(shape)))?;
        let extents = inner.split(',').map(str::trim).filter(|n| !n.is_empty());
        let extent = |n: &str| {
            // Python 2 wrote `3L`.
            let digits = n.strip_suffix('L').unwrap_or(n);
            digits
                .parse()
                .map_err(|_| format!("the extent `{n}` of the shape ({inner})"))
        };
        Ok(Header {
            dtype,
            size,
            big_endian,
            fortran_order,
            shape: extents.map(extent).collect::<Result<_, _>>()?,
        })
    }
}

/// What follows a key of the dictionary.
fn field<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let after = |quote: char| text.split_once(&format!("{quote}{key}{quote}"));
    let found = after('\'').or_else(|| after('"'));
    let value = found.and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
    Ok(value.ok_or_else(|| format!("a header without `{key}`"))?.trim_start())
}

fn line(text: &str) -> &str {
    text.split([',', '}', '\n']).next().unwrap_or_default().trim_end()
}

/// The byte order, the type and the size of a `descr`. Strings are four bytes a character.
fn dtype(descr: &str) -> Result<(bool, DType, usize), String> {
    if descr.starts_with('[') {
        return Err("elements of a record type, expected numbers".into());
    }
    let quote = |c: &char| matches!(c, '\'' | '"');
    let name = descr
        .chars()
        .next()
        .filter(quote)
        .and_then(|q| descr[1..].split_once(q));
    let (name, _) = name.ok_or_else(|| format!("the descr `{}`, expected a string", line(descr)))?;
    let (big_endian, kind) = match name.split_at_checked(1) {
        Some((">", kind)) => (true, kind),
        Some(("<" | "|" | "=", kind)) => (cfg!(target_endian = "big") && name.starts_with('='), kind),
        _ => (false, name),
    };
    let kind = if kind == "?" { "b1" } else { kind };
    if let Some(n) = kind.strip_prefix('U') {
        let n: usize = n.parse().map_err(|_| format!("elements of type '{name}'"))?;
        let size = n.checked_mul(4).ok_or_else(|| format!("elements of type '{name}'"))?;
        return Ok((big_endian, DType::Str, size));
    }
    let text = match kind.chars().next() {
        Some('S' | 'a') => Some("bytes; convert them to strings: array.astype('U')"),
        Some('O') => Some("Python objects; convert them to numbers or strings: array.astype('f4'), array.astype('U')"),
        Some('c') => Some("complex numbers, expected real ones"),
        Some('M' | 'm') => Some("dates or times, expected numbers: array.astype('i8')"),
        _ => None,
    };
    if let Some(text) = text {
        return Err(format!("elements of type '{name}': {text}"));
    }
    let (_, dtype) = KINDS
        .iter()
        .find(|(k, _)| *k == kind)
        .ok_or_else(|| format!("elements of type '{name}', expected numbers or booleans"))?;
    Ok((big_endian, *dtype, dtype.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_numpy_writes_and_reads_them() {
        let shape_of = |shape: &[usize]| {
            let t = Tensor::new(DType::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]).unwrap();
            let bytes = of(&t);
            assert_eq!(bytes.len() % 64, 0);
            assert_eq!(Header::read(&mut &bytes[..]).unwrap().shape, shape);
            let text = String::from_utf8(bytes[10..].to_vec()).unwrap();
            text[text.find('(').unwrap()..=text.find(')').unwrap()].to_owned()
        };
        assert_eq!(shape_of(&[]), "()");
        assert_eq!(shape_of(&[5]), "(5,)");
        assert_eq!(shape_of(&[2, 3]), "(2, 3)");
        // Other writers order the keys differently, and leave the last comma out.
        let other = Header::parse(r#"{"shape": (4L, 1,), "fortran_order": True, "descr": ">i2"}"#).unwrap();
        let expected = Header {
            dtype: DType::I16,
            size: 2,
            big_endian: true,
            fortran_order: true,
            shape: vec![4, 1],
        };
        assert_eq!(other, expected);
    }

    #[test]
    fn wrong_headers_say_what_is_wrong() {
        let wrong = |text: &str, message: &str| assert_eq!(Header::parse(text).unwrap_err(), message);
        wrong("{}", "a header without `descr`");
        wrong(
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "elements of a record type, expected numbers",
        );
        wrong(
            "{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",
            "elements of type '<c8': complex numbers, expected real ones",
        );
        wrong(
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
            "the fortran_order `Maybe`, expected True or False",
        );
        wrong(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "the extent `-1` of the shape (-1,)",
        );
        wrong(
            "{'descr': '<f4', 'fortran_order': False, 'shape': 7}",
            "the shape `7`, expected a tuple",
        );
        let read = |bytes: &[u8]| Header::read(&mut &bytes[..]).unwrap_err();
        assert_eq!(read(b"PK\x03\x04data"), "it does not begin with NumPy's magic number");
        assert_eq!(read(b"\x93NUMPY\x09\x00"), "version 9 of the format, expected 1 to 3");
        assert_eq!(read(b"\x93NUMPY\x01\x00\x09\x00{}"), "a header of 2 bytes, expected 9");
        assert_eq!(
            read(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
            "a header of 4294967295 bytes, expected at most 65536"
        );
    }
}
