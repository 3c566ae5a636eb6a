//! TensorProto to [`Constant`]: every element type that the IR has, from raw bytes, typed lists, a range of the model's
//! file, or external data. Elements of fewer than 8 bits lie packed there, the first one in the lowest bits.

use super::model::Files;
use brolga_ir::{ConstData, Constant, DType, Source, Tensor, Type};
use onnx_protobuf::{TensorProto, tensor_proto::DataLocation};
use std::ops::Range;
use std::sync::Arc;

/// The IR's dtype of an ONNX element type.
///
/// # Errors
/// When the IR has no such dtype.
pub fn dtype(code: impl Into<i64>) -> Result<DType, String> {
    let code = code.into();
    Ok(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::Str,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::F8E4M3FN,
        18 => DType::F8E4M3FNUZ,
        19 => DType::F8E5M2,
        20 => DType::F8E5M2FNUZ,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        24 => DType::F8E8M0,
        25 => DType::U2,
        26 => DType::I2,
        27 => DType::F6E2M3,
        28 => DType::F6E3M2,
        _ => return Err(format!("element type {}", type_name(code))),
    })
}

/// ONNX's name of an element type.
pub fn type_name(code: impl Into<i64>) -> String {
    let code = code.into();
    const NAMES: [&str; 29] = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
        "float6e2m3",
        "float6e3m2",
    ];
    match usize::try_from(code).ok().and_then(|c| NAMES.get(c)) {
        Some(n) => n.to_string(),
        None => code.to_string(),
    }
}

/// The constant of a TensorProto. Its error for an element type that the IR lacks begins with `element type`.
///
/// # Errors
/// When the amount of data is not what dtype and shape need, or a range lies outside its file.
pub fn constant(t: &TensorProto, files: &mut Files, limit: u64) -> Result<Constant, String> {
    let (dtype, shape, bytes) = declared(t, limit)?;
    let data = held(t, files, dtype, &shape, packed_bytes(dtype, bytes))?;
    if dtype == DType::Bool && data.bytes().iter().any(|&b| b > 1) {
        return Err("a bool that is neither 0 nor 1".into());
    }
    let whole = dtype.packed_bits() == dtype.bits();
    let data = match data {
        Held::File(source, range) if whole => ConstData::File {
            source,
            offset: range.start,
        },
        Held::Bytes(all) if whole => ConstData::Dense(Tensor::new(dtype, shape.clone(), all)?),
        packed => {
            let all = unpacked(dtype, packed.bytes(), bytes);
            ConstData::Dense(Tensor::new(dtype, shape.clone(), all)?)
        }
    };
    Ok(Constant {
        ty: Type::fixed(dtype, &shape),
        data,
    })
}

/// The elements of a TensorProto as they are packed, in u8 of rank 1, with their type and shape; `None` where a byte holds no
/// whole number of several.
///
/// # Errors
/// See [`constant`].
pub fn packed(t: &TensorProto, files: &mut Files, limit: u64) -> Result<Option<(Constant, DType, Vec<usize>)>, String> {
    let (dtype, shape, bytes) = declared(t, limit)?;
    if dtype.packed_bits() >= 8 || !8usize.is_multiple_of(dtype.packed_bits()) {
        return Ok(None);
    }
    let n = packed_bytes(dtype, bytes);
    let data = match held(t, files, dtype, &shape, n)? {
        Held::File(source, range) => ConstData::File {
            source,
            offset: range.start,
        },
        Held::Bytes(all) => ConstData::Dense(Tensor::new(DType::U8, vec![n], all)?),
    };
    let ty = Type::fixed(DType::U8, &[n]);
    Ok(Some((Constant { ty, data }, dtype, shape)))
}

/// The dtype, the shape, and the number of bytes in memory.
fn declared(t: &TensorProto, limit: u64) -> Result<(DType, Vec<usize>, usize), String> {
    let dtype = dtype(t.data_type)?;
    let (shape, bytes) = extents(&t.dims, dtype)?;
    if bytes as u64 > limit {
        return Err(format!(
            "a tensor {dtype}{shape:?} of {bytes} bytes, over the memory limit of {limit}; raise it with --memory-limit"
        ));
    }
    Ok((dtype, shape, bytes))
}

/// Bytes in a file of elements that have so many in memory.
pub fn packed_bytes(dtype: DType, bytes: usize) -> usize {
    match dtype.small() {
        // Of eight elements, as many bytes as one has bits.
        Some(s) => bytes / 8 * s.bits() + (bytes % 8 * s.bits()).div_ceil(8),
        None => bytes,
    }
}

/// `n` elements, each in a byte of its own.
fn unpacked(dtype: DType, packed: &[u8], n: usize) -> Vec<u8> {
    let bits = dtype.packed_bits();
    let signed = dtype.stored() == DType::I8;
    let byte = |i: usize| u16::from(packed.get(i).copied().unwrap_or(0));
    let element = |i: usize| {
        let at = i * bits;
        let both = byte(at / 8) | byte(at / 8 + 1) << 8;
        let high = ((both >> (at % 8)) as u8) << (8 - bits);
        match signed {
            true => (high as i8 >> (8 - bits)) as u8,
            false => high >> (8 - bits),
        }
    };
    (0..n).map(element).collect()
}

/// Where a tensor's bytes are.
enum Held {
    File(Arc<dyn Source>, Range<usize>),
    Bytes(Vec<u8>),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Held::File(source, range) => &source.bytes()[range.clone()],
            Held::Bytes(bytes) => bytes,
        }
    }
}

/// The `bytes` bytes of a tensor as the file has them.
fn held(t: &TensorProto, files: &mut Files, dtype: DType, shape: &[usize], bytes: usize) -> Result<Held, String> {
    let file = |what: &str, source: Arc<dyn Source>, offset: usize, len: usize| -> Result<Held, String> {
        let range = offset.checked_add(len).map(|end| offset..end);
        let Some(range) = range.filter(|r| r.end <= source.bytes().len()) else {
            return Err(format!(
                "{what} at bytes {offset}+{len} of {}, which has {} bytes: it is not whole, or another file",
                source.name(),
                source.bytes().len()
            ));
        };
        if len != bytes {
            return Err(format!("{len} bytes of data for {dtype}{shape:?}, which has {bytes}"));
        }
        Ok(Held::File(source, range))
    };
    if dtype == DType::Str {
        let texts: Result<Vec<&str>, _> = t.string_data.iter().map(|s| std::str::from_utf8(s)).collect();
        let texts = texts.map_err(|e| format!("a string that is not UTF-8: {e}"))?;
        let tensor = files.strings.tensor(shape, &texts)?;
        return Ok(Held::Bytes(tensor.bytes().to_vec()));
    }
    if t.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
        let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(v) => v
                .parse::<usize>()
                .map(Some)
                .map_err(|_| format!("external data with {key} `{v}`, expected a number of bytes")),
        };
        let source = files.external(entry("location").unwrap_or(""))?;
        let offset = number("offset")?.unwrap_or(0);
        return file("external data", source, offset, number("length")?.unwrap_or(bytes));
    }
    if let Some(s) = t.segment.as_ref() {
        let (begin, end) = (s.begin as usize, s.end as usize);
        return file("data", files.source.clone(), begin, end.saturating_sub(begin));
    }
    let data = if !t.raw_data.is_empty() || bytes == 0 {
        t.raw_data.clone()
    } else {
        typed(t, dtype)
    };
    if data.len() != bytes {
        return Err(format!(
            "{} bytes of data for {dtype}{shape:?}, which has {bytes}",
            data.len()
        ));
    }
    Ok(Held::Bytes(data))
}

/// The elements of the typed list that holds the dtype, as bytes.
fn typed(t: &TensorProto, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => t.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => t.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => t.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U64 => t.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => t.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        DType::I32 => t.int32_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bool => t.int32_data.iter().map(|&x| (x != 0) as u8).collect(),
        // Their list is read before.
        DType::Str => vec![],
        DType::I8 | DType::U8 => t.int32_data.iter().map(|&x| x as u8).collect(),
        // Bytes of the packed form, one in each.
        d if d.small().is_some() => t.int32_data.iter().map(|&x| x as u8).collect(),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            t.int32_data.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect()
        }
        d => unreachable!("{d} is a small type"),
    }
}

/// The extents of a shape in a file, and the number of bytes of its elements.
///
/// # Errors
/// When an extent is negative or the number of bytes does not fit.
pub fn extents(dims: &[i64], dtype: DType) -> Result<(Vec<usize>, usize), String> {
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let shape = shape.ok_or_else(|| format!("a shape {dims:?} with a negative extent"))?;
    // Checked without zero extents, so that [0, 2^60, 2^60] does not pass either.
    let bytes = shape
        .iter()
        .filter(|&&d| d > 0)
        .try_fold(dtype.bytes(), |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| format!("a shape {dims:?} of more elements than memory has bytes"))?;
    let bytes = if shape.contains(&0) { 0 } else { bytes };
    Ok((shape, bytes))
}
