//! Conversions between the crates' tensors and dtypes: the IR's [`Tensor`], the runtime's [`Buffer`] and [`View`].

use crate::Result;
use brolga_abi::DType as AbiType;
use brolga_ir::{DType, Tensor};
use brolga_runtime::{Buffer, View};

/// The ABI's name of an IR dtype.
pub fn abi_dtype(d: DType) -> AbiType {
    match d {
        DType::F64 => AbiType::F64,
        DType::F32 => AbiType::F32,
        DType::F16 => AbiType::F16,
        DType::BF16 => AbiType::Bf16,
        DType::I64 => AbiType::I64,
        DType::I32 => AbiType::I32,
        DType::I16 => AbiType::I16,
        DType::I8 => AbiType::I8,
        DType::U64 => AbiType::U64,
        DType::U32 => AbiType::U32,
        DType::U16 => AbiType::U16,
        DType::U8 => AbiType::U8,
        DType::Bool => AbiType::Bool,
        DType::F8E4M3FN => AbiType::F8e4m3fn,
        DType::F8E4M3FNUZ => AbiType::F8e4m3fnuz,
        DType::F8E5M2 => AbiType::F8e5m2,
        DType::F8E5M2FNUZ => AbiType::F8e5m2fnuz,
        DType::F8E8M0 => AbiType::F8e8m0,
        DType::F6E3M2 => AbiType::F6e3m2,
        DType::F6E2M3 => AbiType::F6e2m3,
        DType::F4E2M1 => AbiType::F4e2m1,
        DType::I4 => AbiType::I4,
        DType::I2 => AbiType::I2,
        DType::U4 => AbiType::U4,
        DType::U2 => AbiType::U2,
        DType::Str => AbiType::Str,
    }
}

/// The IR's name of an ABI dtype.
pub fn ir_dtype(d: AbiType) -> DType {
    match d {
        AbiType::F64 => DType::F64,
        AbiType::F32 => DType::F32,
        AbiType::F16 => DType::F16,
        AbiType::Bf16 => DType::BF16,
        AbiType::I64 => DType::I64,
        AbiType::I32 => DType::I32,
        AbiType::I16 => DType::I16,
        AbiType::I8 => DType::I8,
        AbiType::U64 => DType::U64,
        AbiType::U32 => DType::U32,
        AbiType::U16 => DType::U16,
        AbiType::U8 => DType::U8,
        AbiType::Bool => DType::Bool,
        AbiType::F8e4m3fn => DType::F8E4M3FN,
        AbiType::F8e4m3fnuz => DType::F8E4M3FNUZ,
        AbiType::F8e5m2 => DType::F8E5M2,
        AbiType::F8e5m2fnuz => DType::F8E5M2FNUZ,
        AbiType::F8e8m0 => DType::F8E8M0,
        AbiType::F6e3m2 => DType::F6E3M2,
        AbiType::F6e2m3 => DType::F6E2M3,
        AbiType::F4e2m1 => DType::F4E2M1,
        AbiType::I4 => DType::I4,
        AbiType::I2 => DType::I2,
        AbiType::U4 => DType::U4,
        AbiType::U2 => DType::U2,
        AbiType::Str => DType::Str,
    }
}

/// A view of an IR tensor.
pub fn view(t: &Tensor) -> View<'_> {
    View {
        dtype: abi_dtype(t.dtype()),
        shape: t.shape(),
        bytes: t.bytes(),
    }
}

/// The tensor of a small type whose bytes are given as the integers that files of NumPy hold; any other one as it is.
///
/// # Errors
/// When a byte is no code of the type.
pub fn typed(t: Tensor, dtype: DType) -> Result<Tensor, String> {
    if dtype.small().is_none() || t.dtype() != dtype.stored() {
        return Ok(t);
    }
    let codes = Tensor::new(dtype, t.shape().to_vec(), t.bytes())?;
    let again = codes.cast(dtype);
    // A format may have several NaNs, of which one is written.
    let is_code = |i: &usize| codes.bytes()[*i] == again.bytes()[*i] || codes.get(*i).f64().is_nan();
    match (0..t.len()).find(|i| !is_code(i)) {
        Some(i) => Err(format!("{} is no {dtype}", t.get(i))),
        None => Ok(codes),
    }
}

/// A tensor of a small type as the integers that its bytes are; any other one as it is.
pub fn untyped(t: &Tensor) -> Tensor {
    match t.dtype().stored() {
        d if d == t.dtype() => t.clone(),
        d => Tensor::new(d, t.shape().to_vec(), t.bytes()).expect("as many bytes"),
    }
}

/// A copy of a buffer as an IR tensor.
pub fn to_tensor(b: &Buffer) -> Tensor {
    Tensor::new(ir_dtype(b.dtype()), b.shape().to_vec(), b.bytes()).expect("a buffer has the bytes of its shape")
}

/// A copy of an IR tensor as a buffer.
///
/// # Errors
/// When there is no memory.
pub fn to_buffer(t: &Tensor) -> Result<Buffer> {
    let mut b = Buffer::zeroed(abi_dtype(t.dtype()), t.shape().to_vec())?;
    b.bytes_mut().copy_from_slice(t.bytes());
    Ok(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_ir::Number;

    #[test]
    fn dtypes_correspond() {
        for d in DType::ALL {
            assert_eq!(ir_dtype(abi_dtype(d)), d);
            assert_eq!(abi_dtype(d).name(), d.name());
            assert_eq!(abi_dtype(d).size(), d.bytes());
        }
    }

    #[test]
    fn small_types_are_bytes_in_files() {
        for d in DType::ALL.into_iter().filter(|d| d.small().is_some()) {
            let t = Tensor::from_fn(d, &[2], |i| Number::Int(i as i128));
            let bytes = untyped(&t);
            assert_eq!(bytes.dtype(), d.stored());
            assert_eq!(typed(bytes, d).unwrap(), t);
        }
        let nan = Tensor::new(DType::U8, vec![1], [0xff]).unwrap();
        assert!(typed(nan.clone(), DType::F8E4M3FN).is_ok());
        assert_eq!(typed(nan, DType::U4).unwrap_err(), "255 is no u4");
        // Only the bytes of the type itself are taken for it.
        let other = Tensor::new(DType::I8, vec![1], [1]).unwrap();
        assert_eq!(typed(other.clone(), DType::U4).unwrap(), other);
    }

    #[test]
    fn tensors_survive_the_way_there_and_back() {
        let t = Tensor::from_i64(&[2, 3], &[1, -2, 3, i64::MAX, 0, 5]);
        assert_eq!(to_tensor(&to_buffer(&t).unwrap()), t);
        assert_eq!(view(&t).shape, [2, 3]);
    }
}
