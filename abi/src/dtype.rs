//! Element types as they cross the boundary between a program and its caller.
//!
//! Invariant: a code never changes its number; it stands in artefacts and in C headers.

macro_rules! dtypes {
    ($($name:ident = $code:literal, $size:literal, $text:literal, $c:literal;)*) => {
        /// The type of a tensor's elements. Elements are stored whole, little endian, one after the other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DType {
            $(#[doc = concat!("`", $text, "`, ", $size, " bytes; in C `", $c, "`.")] $name = $code,)*
        }

        impl DType {
            /// Every dtype, in the order of their codes.
            pub const ALL: &'static [DType] = &[$(DType::$name),*];

            /// Bytes of one element; also the least alignment of a tensor of this dtype.
            pub const fn size(self) -> usize {
                match self { $(DType::$name => $size,)* }
            }

            /// The name in the text IR and in messages.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$name => $text,)* }
            }

            /// The C type of an element.
            pub const fn c_type(self) -> &'static str {
                match self { $(DType::$name => $c,)* }
            }
        }
    };
}

dtypes! {
    F64 = 1, 8, "f64", "double";
    F32 = 2, 4, "f32", "float";
    F16 = 3, 2, "f16", "uint16_t";
    Bf16 = 4, 2, "bf16", "uint16_t";
    I64 = 5, 8, "i64", "int64_t";
    I32 = 6, 4, "i32", "int32_t";
    I16 = 7, 2, "i16", "int16_t";
    I8 = 8, 1, "i8", "int8_t";
    U64 = 9, 8, "u64", "uint64_t";
    U32 = 10, 4, "u32", "uint32_t";
    U16 = 11, 2, "u16", "uint16_t";
    U8 = 12, 1, "u8", "uint8_t";
    Bool = 13, 1, "bool", "uint8_t";
    F8e4m3fn = 14, 1, "f8e4m3fn", "uint8_t";
    F8e4m3fnuz = 15, 1, "f8e4m3fnuz", "uint8_t";
    F8e5m2 = 16, 1, "f8e5m2", "uint8_t";
    F8e5m2fnuz = 17, 1, "f8e5m2fnuz", "uint8_t";
    F8e8m0 = 18, 1, "f8e8m0", "uint8_t";
    F6e3m2 = 19, 1, "f6e3m2", "uint8_t";
    F6e2m3 = 20, 1, "f6e2m3", "uint8_t";
    F4e2m1 = 21, 1, "f4e2m1", "uint8_t";
    I4 = 22, 1, "i4", "int8_t";
    I2 = 23, 1, "i2", "int8_t";
    U4 = 24, 1, "u4", "uint8_t";
    U2 = 25, 1, "u2", "uint8_t";
    Str = 26, 4, "str", "uint32_t";
}

impl DType {
    /// The dtype with this code.
    pub fn from_code(code: u8) -> Option<DType> {
        Self::ALL.iter().copied().find(|&known| known as u8 == code)
    }

    /// The dtype with this name.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
