//! TensorProto to [`Constant`]: every element type that the IR has, from raw bytes, typed lists, a range of the model's
//! file, or external data.

use super::model::Files;
use brolga_ir::{ConstData, Constant, DType, Source, Tensor, Type};
use onnx_protobuf::{TensorProto, tensor_proto::DataLocation};
use std::sync::Arc;

/// The IR's dtype of an ONNX element type.
///
/// # Errors
/// When the IR has no such dtype.
pub fn dtype(code: i32) -> Result<DType, String> {
    Ok(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        _ => return Err(format!("element type {}", type_name(code))),
    })
}

/// ONNX's name of an element type.
pub fn type_name(code: i32) -> String {
    const NAMES: [&str; 27] = [
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
    ];
    match NAMES.get(code as usize) {
        Some(n) => n.to_string(),
        None => code.to_string(),
    }
}

/// The constant of a TensorProto. Its error for an element type that the IR lacks begins with `element type`.
///
/// # Errors
/// When the amount of data is not what dtype and shape need, or a range lies outside its file.
pub fn constant(t: &TensorProto, files: &mut Files, limit: u64) -> Result<Constant, String> {
    let dtype = dtype(t.data_type)?;
    let (shape, bytes) = extents(&t.dims, dtype)?;
    if bytes as u64 > limit {
        return Err(format!(
            "a tensor {dtype}{shape:?} of {bytes} bytes, over the memory limit of {limit}"
        ));
    }
    let ty = Type::fixed(dtype, &shape);
    let file = |source: Arc<dyn Source>, offset: usize, len: usize| -> Result<Constant, String> {
        let range = offset.checked_add(len).and_then(|end| source.bytes().get(offset..end));
        let Some(range) = range else {
            return Err(format!(
                "data at bytes {offset}+{len} of {}, which has {} bytes",
                source.name(),
                source.bytes().len()
            ));
        };
        if len != bytes {
            return Err(format!("{len} bytes of data for {dtype}{shape:?}, which has {bytes}"));
        }
        if dtype == DType::Bool && range.iter().any(|&b| b > 1) {
            return Err("a bool that is neither 0 nor 1".into());
        }
        Ok(Constant {
            ty: ty.clone(),
            data: ConstData::File { source, offset },
        })
    };
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
        return file(source, offset, number("length")?.unwrap_or(bytes));
    }
    if let Some(s) = t.segment.as_ref() {
        let (begin, end) = (s.begin as usize, s.end as usize);
        return file(files.source.clone(), begin, end.saturating_sub(begin));
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
    if dtype == DType::Bool && data.iter().any(|&b| b > 1) {
        return Err("a bool that is neither 0 nor 1".into());
    }
    Ok(Constant {
        ty,
        data: ConstData::Dense(Tensor::new(dtype, shape, data)?),
    })
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
        DType::I8 | DType::U8 => t.int32_data.iter().map(|&x| x as u8).collect(),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            t.int32_data.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect()
        }
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
