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

    #[test]
    fn dtypes_correspond() {
        for d in DType::ALL {
            assert_eq!(ir_dtype(abi_dtype(d)), d);
            assert_eq!(abi_dtype(d).name(), d.name());
            assert_eq!(abi_dtype(d).size(), d.bytes());
        }
    }

    #[test]
    fn tensors_survive_the_way_there_and_back() {
        let t = Tensor::from_i64(&[2, 3], &[1, -2, 3, i64::MAX, 0, 5]);
        assert_eq!(to_tensor(&to_buffer(&t).unwrap()), t);
        assert_eq!(view(&t).shape, [2, 3]);
    }
}
