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

/// What an element type is to arithmetic: types of one format differ in how their bits are read, if at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// A float of 16 bits: storage only.
    Half,
    /// Two's complement of so many bits.
    Signed(u16),
    /// An unsigned integer of so many bits.
    Unsigned(u16),
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

    /// The floating-point types.
    pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

    /// What it is to arithmetic.
    pub const fn format(self) -> Format {
        match self {
            DType::F64 => Format::F64,
            DType::F32 => Format::F32,
            DType::F16 | DType::BF16 => Format::Half,
            DType::I64 => Format::Signed(64),
            DType::I32 => Format::Signed(32),
            DType::I16 => Format::Signed(16),
            DType::I8 => Format::Signed(8),
            DType::U64 => Format::Unsigned(64),
            DType::U32 => Format::Unsigned(32),
            DType::U16 => Format::Unsigned(16),
            DType::U8 => Format::Unsigned(8),
            DType::Bool => Format::Bool,
        }
    }

    /// Storage size of one element, in bits.
    pub const fn bits(self) -> usize {
        match self.format() {
            Format::F64 => 64,
            Format::F32 => 32,
            Format::Half => 16,
            Format::Signed(n) | Format::Unsigned(n) => n as usize,
            Format::Bool => 8,
        }
    }

    /// Storage size of one element, in bytes.
    pub const fn bytes(self) -> usize {
        self.bits() / 8
    }

    /// True for the floating-point types, 16-bit ones included.
    pub const fn is_float(self) -> bool {
        matches!(self.format(), Format::F64 | Format::F32 | Format::Half)
    }

    /// True for the floats of 16 bits, which are storage only.
    pub const fn is_half(self) -> bool {
        matches!(self.format(), Format::Half)
    }

    /// The smallest positive float with all its digits; `None` for other types.
    pub fn least_normal(self) -> Option<f64> {
        match self {
            DType::F64 => Some(f64::MIN_POSITIVE),
            DType::F32 | DType::BF16 => Some(f32::MIN_POSITIVE.into()),
            DType::F16 => Some(2f64.powi(-14)),
            _ => None,
        }
    }

    /// The bits of a number as a float of this type of 16 bits, rounded to nearest even; for such types only.
    pub fn to_half(self, x: f32) -> u16 {
        debug_assert!(self.is_half(), "{self} is no float of 16 bits");
        match self {
            DType::F16 => half::f16::from_f32(x).to_bits(),
            _ => half::bf16::from_f32(x).to_bits(),
        }
    }

    /// The value of a float of this type of 16 bits; for such types only.
    pub fn from_half(self, bits: u16) -> f32 {
        debug_assert!(self.is_half(), "{self} is no float of 16 bits");
        match self {
            DType::F16 => half::f16::from_bits(bits).to_f32(),
            _ => half::bf16::from_bits(bits).to_f32(),
        }
    }

    /// True for signed and unsigned integers; false for `bool`.
    pub const fn is_int(self) -> bool {
        matches!(self.format(), Format::Signed(_) | Format::Unsigned(_))
    }

    /// True for signed integers and floats.
    pub const fn is_signed(self) -> bool {
        !matches!(self.format(), Format::Unsigned(_) | Format::Bool)
    }

    /// The type in which arithmetic on values of this storage type is done: f32 for f16 and bf16, itself otherwise.
    pub const fn compute(self) -> DType {
        match self.format() {
            Format::Half => DType::F32,
            _ => self,
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
