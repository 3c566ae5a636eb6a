//! Element types. A buffer's size is counted in bits ([`DType::bits`]), so that types smaller than a byte fit in later.

use std::fmt;
use std::str::FromStr;

/// The type of one element of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16: storage only; arithmetic on it is in f32.
    F16,
    /// bfloat16: storage only; arithmetic on it is in f32.
    BF16,
    /// 64-bit two's complement.
    I64,
    /// 32-bit two's complement.
    I32,
    /// 16-bit two's complement.
    I16,
    /// 8-bit two's complement.
    I8,
    /// 64-bit unsigned.
    U64,
    /// 32-bit unsigned.
    U32,
    /// 16-bit unsigned.
    U16,
    /// 8-bit unsigned.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every dtype, in declaration order.
    pub const ALL: [DType; 13] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U64,
        DType::U32,
        DType::U16,
        DType::U8,
        DType::Bool,
    ];

    /// Storage size of one element, in bits.
    pub const fn bits(self) -> usize {
        match self {
            DType::F64 | DType::I64 | DType::U64 => 64,
            DType::F32 | DType::I32 | DType::U32 => 32,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 16,
            DType::I8 | DType::U8 | DType::Bool => 8,
        }
    }

    /// Storage size of one element, in bytes.
    pub const fn bytes(self) -> usize {
        self.bits() / 8
    }

    /// True for the floating-point types, 16-bit ones included.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }

    /// True for signed and unsigned integers; false for `bool`.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    /// True for signed integers and floats.
    pub const fn is_signed(self) -> bool {
        !matches!(self, DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::Bool)
    }

    /// The type in which arithmetic on values of this storage type is done: f32 for f16 and bf16, itself otherwise.
    pub const fn compute(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            d => d,
        }
    }

    /// The name in every text form: `f32`, `i64`, `bool`, …
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::I16 => "i16",
            DType::I8 => "i8",
            DType::U64 => "u64",
            DType::U32 => "u32",
            DType::U16 => "u16",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;
    fn from_str(s: &str) -> Result<DType, String> {
        DType::ALL
            .into_iter()
            .find(|d| d.name() == s)
            .ok_or_else(|| format!("`{s}` is no dtype"))
    }
}
