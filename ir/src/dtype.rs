//! Element types. Small ones, of fewer than 8 bits or floats of 8, take a byte in memory; only files hold several in one.

use crate::minifloat::{Codes, Minifloat};
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
    /// OCP's 8-bit float of 4 and 3 bits, without infinities. Storage only, as all that follow.
    F8E4M3FN,
    /// The same with one NaN, where -0 would be.
    F8E4M3FNUZ,
    /// OCP's 8-bit float of 5 and 2 bits, with infinities.
    F8E5M2,
    /// The same with one NaN, where -0 would be, and without infinities.
    F8E5M2FNUZ,
    /// OCP's scale: a power of two, or NaN.
    F8E8M0,
    /// OCP's 6-bit float of 3 and 2 bits, in the low bits of a byte; all its codes are numbers.
    F6E3M2,
    /// The one of 2 and 3 bits.
    F6E2M3,
    /// OCP's 4-bit float of 2 and 1 bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, in the low bits of a byte.
    F4E2M1,
    /// 4-bit two's complement, sign-extended.
    I4,
    /// 2-bit two's complement, sign-extended.
    I2,
    /// 4-bit unsigned.
    U4,
    /// 2-bit unsigned.
    U2,
    /// A string: 4 bytes, its number among [`crate::Strings`].
    Str,
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
    /// One in a byte: storage only.
    Small(Small),
}

/// What the byte of an element of a small type holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Small {
    /// The code of a float.
    Float(Minifloat),
    /// Two's complement of so many bits, sign-extended.
    Signed(u8),
    /// An unsigned integer of so many bits.
    Unsigned(u8),
}

impl Small {
    /// Bits of one element where elements are packed, as in files.
    pub const fn bits(self) -> usize {
        match self {
            Small::Float(f) => f.bits() as usize,
            Small::Signed(n) | Small::Unsigned(n) => n as usize,
        }
    }

    /// The integer type that the byte is, which alone can be computed with.
    pub const fn byte(self) -> DType {
        match self {
            Small::Signed(_) => DType::I8,
            Small::Float(_) | Small::Unsigned(_) => DType::U8,
        }
    }

    /// The least and largest integer; `None` for floats.
    pub const fn range(self) -> Option<(i64, i64)> {
        match self {
            Small::Float(_) => None,
            Small::Signed(n) => Some((-1 << (n - 1), (1 << (n - 1)) - 1)),
            Small::Unsigned(n) => Some((0, (1 << n) - 1)),
        }
    }
}

impl DType {
    /// Every dtype of numbers, in declaration order.
    pub const ALL: [DType; 25] = [
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
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F8E8M0,
        DType::F6E3M2,
        DType::F6E2M3,
        DType::F4E2M1,
        DType::I4,
        DType::I2,
        DType::U4,
        DType::U2,
    ];

    /// The floating-point types.
    pub const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

    /// Those of 16 bits.
    pub const HALVES: [DType; 2] = [DType::F16, DType::BF16];

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
            DType::U32 | DType::Str => Format::Unsigned(32),
            DType::U16 => Format::Unsigned(16),
            DType::U8 => Format::Unsigned(8),
            DType::Bool => Format::Bool,
            DType::F8E4M3FN => Format::Small(Small::Float(Minifloat::new(4, 3, 7, Codes::Nan))),
            DType::F8E4M3FNUZ => Format::Small(Small::Float(Minifloat::new(4, 3, 8, Codes::NanForMinusZero))),
            DType::F8E5M2 => Format::Small(Small::Float(Minifloat::new(5, 2, 15, Codes::Ieee))),
            DType::F8E5M2FNUZ => Format::Small(Small::Float(Minifloat::new(5, 2, 16, Codes::NanForMinusZero))),
            DType::F8E8M0 => Format::Small(Small::Float(Minifloat::new(8, 0, 127, Codes::Nan))),
            DType::F6E3M2 => Format::Small(Small::Float(Minifloat::new(3, 2, 3, Codes::Finite))),
            DType::F6E2M3 => Format::Small(Small::Float(Minifloat::new(2, 3, 1, Codes::Finite))),
            DType::F4E2M1 => Format::Small(Small::Float(Minifloat::new(2, 1, 1, Codes::Finite))),
            DType::I4 => Format::Small(Small::Signed(4)),
            DType::I2 => Format::Small(Small::Signed(2)),
            DType::U4 => Format::Small(Small::Unsigned(4)),
            DType::U2 => Format::Small(Small::Unsigned(2)),
        }
    }

    /// What a small type is; `None` for those that can be computed with, and 16-bit floats.
    pub const fn small(self) -> Option<Small> {
        match self.format() {
            Format::Small(s) => Some(s),
            _ => None,
        }
    }

    /// The integer type that elements of a small type are in memory; any other type itself.
    pub const fn stored(self) -> DType {
        match self.small() {
            Some(s) => s.byte(),
            None => self,
        }
    }

    /// Storage size of one element, in bits.
    pub const fn bits(self) -> usize {
        match self.format() {
            Format::F64 => 64,
            Format::F32 => 32,
            Format::Half => 16,
            Format::Signed(n) | Format::Unsigned(n) => n as usize,
            Format::Bool | Format::Small(_) => 8,
        }
    }

    /// Bits of one element in a file, where small ones lie several in a byte.
    pub const fn packed_bits(self) -> usize {
        match self.small() {
            Some(s) => s.bits(),
            None => self.bits(),
        }
    }

    /// Storage size of one element, in bytes.
    pub const fn bytes(self) -> usize {
        self.bits() / 8
    }

    /// True for the floating-point types that have arithmetic, 16-bit ones included.
    pub const fn is_float(self) -> bool {
        matches!(self.format(), Format::F64 | Format::F32 | Format::Half)
    }

    /// True where elements read as [`crate::Number::Float`]: floats, small ones included.
    pub const fn is_real(self) -> bool {
        self.is_float() || matches!(self.format(), Format::Small(Small::Float(_)))
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

    /// True for signed and unsigned integers that have arithmetic; false for `bool` and strings.
    pub const fn is_int(self) -> bool {
        matches!(self.format(), Format::Signed(_) | Format::Unsigned(_)) && !matches!(self, DType::Str)
    }

    /// True for signed integers and floats.
    pub const fn is_signed(self) -> bool {
        match self.format() {
            Format::Unsigned(_) | Format::Bool | Format::Small(Small::Unsigned(_)) => false,
            Format::Small(Small::Float(f)) => f.is_signed(),
            _ => true,
        }
    }

    /// The type in which arithmetic on values of this storage type is done: f32 for floats of 16 bits and fewer, integers of
    /// 8 bits for smaller ones, itself otherwise.
    pub const fn compute(self) -> DType {
        match self.format() {
            Format::Half | Format::Small(Small::Float(_)) => DType::F32,
            Format::Small(s) => s.byte(),
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
            DType::F8E4M3FN => "f8e4m3fn",
            DType::F8E4M3FNUZ => "f8e4m3fnuz",
            DType::F8E5M2 => "f8e5m2",
            DType::F8E5M2FNUZ => "f8e5m2fnuz",
            DType::F8E8M0 => "f8e8m0",
            DType::F6E3M2 => "f6e3m2",
            DType::F6E2M3 => "f6e2m3",
            DType::F4E2M1 => "f4e2m1",
            DType::I4 => "i4",
            DType::I2 => "i2",
            DType::U4 => "u4",
            DType::U2 => "u2",
            DType::Str => "str",
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
            .chain([DType::Str])
            .find(|d| d.name() == s)
            .ok_or_else(|| format!("`{s}` is no dtype"))
    }
}
