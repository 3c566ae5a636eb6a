//! NumPy's `.npy` and `.npz` files.
//!
//! A `.npz` file is a zip archive of `.npy` files, and one of those is a header, a Python dictionary, before the bytes
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//! Invariant: tensors are little endian and row-major; a file in another byte order or in Fortran order is converted
//! when it is read. bfloat16, which NumPy lacks, is written as f32; small types (8 bits and fewer) as the integers that
//! their bytes are. Strings are NumPy's `<U`, and have their numbers in the [`Strings`] of the [`Strings::scope`] around the caller.

use crate::{Error, Result, tensors};
use brolga_abi::artefact::OutputFile;
use brolga_ir::{DType, Strings, Tensor};
use header::Header;
pub use header::stored;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

mod header;

/// Reads a `.npy` file.
///
/// # Errors
/// When it cannot be read, or holds a dtype that the IR lacks.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    read_array(BufReader::new(file)).map_err(|e| Error::file(path, format!("not a .npy file of numbers: {e}")))
}

/// Reads the arrays of a `.npz` file, in the file's order.
///
/// # Errors
/// When it cannot be read, or an array's dtype is none of the IR's.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bad = |e: zip::result::ZipError| Error::file(path, format!("not a .npz file: {e}"));
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let mut arrays = vec![];
    for i in 0..zip.len() {
        let entry = zip.by_index(i).map_err(bad)?;
        let Some(name) = entry.name().strip_suffix(".npy") else {
            continue;
        };
        let name = name.to_owned();
        let array = read_array(entry).map_err(|e| Error::file(path, format!("array `{name}`: {e}")))?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// Writes arrays into a `.npz` file, as [`OutputFile`] puts it there. Names must differ.
///
/// # Errors
/// When it cannot be written.
pub fn write_npz(path: &Path, arrays: &[(String, Tensor)]) -> Result<()> {
    let store = || -> std::io::Result<()> {
        let mut file = OutputFile::create(path)?;
        write_arrays(&mut file, arrays)?;
        file.commit().map(|_| ())
    };
    store().map_err(|e| Error::io(path, e))
}

fn write_arrays(file: impl Write + Seek, arrays: &[(String, Tensor)]) -> std::io::Result<()> {
    let mut zip = ZipWriter::new(file);
    // Larger entries need fields of 64 bits, which readers know; the others stay as they were.
    const SMALL: u64 = u32::MAX as u64 - (1 << 16);
    for (name, tensor) in arrays {
        let widened;
        let tensor = match stored(tensor.dtype()) {
            d if d == tensor.dtype() => tensor,
            d if tensor.dtype().small().is_none() => {
                widened = tensor.cast(d);
                &widened
            }
            _ => {
                widened = tensors::untyped(tensor);
                &widened
            }
        };
        let texts = match tensor.dtype() {
            DType::Str => Some(string_bytes(tensor).map_err(std::io::Error::other)?),
            _ => None,
        };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(tensor.bytes().len() as u64 > SMALL);
        // A slash in the name would be a folder in the archive.
        zip.start_file(format!("{name}.npy"), options)?;
        match texts {
            Some((longest, bytes)) => {
                zip.write_all(&header::of_strings(longest, tensor.shape()))?;
                zip.write_all(&bytes)?;
            }
            None => {
                zip.write_all(&header::of(tensor))?;
                zip.write_all(tensor.bytes())?;
            }
        }
    }
    zip.finish()?;
    Ok(())
}

/// The characters of the longest of a tensor's strings, and all of them in UTF-32, filled up with zeros.
fn string_bytes(t: &Tensor) -> Result<(usize, Vec<u8>), String> {
    let texts = match t.is_empty() {
        true => vec![],
        false => Strings::current()?.texts(t)?,
    };
    let longest = texts.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
    let mut bytes = vec![];
    for s in texts {
        let fill = std::iter::repeat_n('\0', longest - s.chars().count());
        bytes.extend(s.chars().chain(fill).flat_map(|c| u32::from(c).to_le_bytes()));
    }
    Ok((longest, bytes))
}

/// Strings of such bytes as a tensor.
fn strings_of(bytes: &[u8], size: usize, shape: &[usize], big_endian: bool) -> Result<Tensor, String> {
    let text = |e: &[u8]| {
        let codes = e.chunks_exact(4).map(|c| {
            let c = [c[0], c[1], c[2], c[3]];
            if big_endian {
                u32::from_be_bytes(c)
            } else {
                u32::from_le_bytes(c)
            }
        });
        let text: Option<String> = codes.map(char::from_u32).collect();
        let text = text.ok_or("a string that is not Unicode")?;
        Ok(text.trim_end_matches('\0').to_owned())
    };
    let count: usize = shape.iter().product();
    let texts: Vec<String> = match size {
        0 => vec![String::new(); count],
        n => bytes.chunks_exact(n).map(text).collect::<Result<_, String>>()?,
    };
    match texts.is_empty() {
        true => Tensor::new(DType::Str, shape.to_vec(), vec![]),
        false => Strings::current()?.tensor(shape, &texts),
    }
}

/// The most bytes that are taken on the header's word alone; beyond, memory grows with what is there.
const TRUSTED: usize = 1 << 24;

fn read_array(mut r: impl Read) -> Result<Tensor, String> {
    let header = Header::read(&mut r)?;
    let (dtype, shape) = (header.dtype, header.shape);
    let size = shape
        .iter()
        .try_fold(header.size, |n, &d| n.checked_mul(d))
        .ok_or_else(|| format!("shape {shape:?} is too large"))?;
    let mut bytes = Vec::with_capacity(size.min(TRUSTED));
    r.take(size as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() < size {
        return Err(format!("{} bytes of data, expected {size}", bytes.len()));
    }
    bytes.truncate(size);
    if dtype == DType::Str {
        if header.fortran_order && shape.len() > 1 {
            bytes = row_major(&bytes, &shape, header.size);
        }
        return strings_of(&bytes, header.size, &shape, header.big_endian);
    }
    if header.big_endian {
        bytes.chunks_exact_mut(dtype.bytes()).for_each(<[u8]>::reverse);
    }
    if header.fortran_order && shape.len() > 1 {
        bytes = row_major(&bytes, &shape, dtype.bytes());
    }
    Tensor::new(dtype, shape, bytes)
}

/// Column-major elements in row-major order.
fn row_major(from: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut strides = vec![size; shape.len()];
    for d in 1..shape.len() {
        strides[d] = strides[d - 1] * shape[d - 1];
    }
    brolga_ir::indices(shape)
        .flat_map(|index| {
            let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
            from[at..at + size].iter().copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::{DType, Number};

    #[test]
    fn every_dtype_survives_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.npz");
        let arrays: Vec<(String, Tensor)> = DType::ALL
            .into_iter()
            .filter(|d| stored(*d) == *d)
            .map(|d| {
                let t = Tensor::from_fn(d, &[2, 0, 3], |_| Number::Int(0));
                let u = Tensor::from_fn(d, &[2, 3], |i| Number::Int((i % 2) as i128));
                [(format!("{d}_empty"), t), (d.to_string(), u)]
            })
            .collect::<Vec<_>>()
            .concat();
        write_npz(&path, &arrays).unwrap();
        assert_eq!(read_npz(&path).unwrap(), arrays);
    }

    #[test]
    fn other_orders_are_converted() {
        let header = |descr: &str, fortran: &str| {
            let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (2, 3), }}");
            while !(text.len() + 11).is_multiple_of(64) {
                text.push(' ');
            }
            text.push('\n');
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes
        };
        let expected = Tensor::from_fn(DType::I16, &[2, 3], |i| Number::Int(i as i128));
        let mut columns = header("<i2", "True");
        [0i16, 3, 1, 4, 2, 5]
            .iter()
            .for_each(|x| columns.extend(x.to_le_bytes()));
        assert_eq!(read_array(&columns[..]).unwrap(), expected);
        let mut big = header(">i2", "False");
        (0..6i16).for_each(|x| big.extend(x.to_be_bytes()));
        assert_eq!(read_array(&big[..]).unwrap(), expected);
        big.pop();
        assert!(
            read_array(&big[..])
                .unwrap_err()
                .contains("11 bytes of data, expected 12")
        );
        assert!(read_array(&header("<c8", "False")[..]).is_err());
    }
}
