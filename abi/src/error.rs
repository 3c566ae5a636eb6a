//! The codes that generated functions return, and their texts in Rust and in C.
//!
//! A status is an `int32_t`: its low 8 bits are the code, the bits above them a detail: for a failed guard of `plan` the
//! guard's index in `Meta::guards`; for a size that is too large its index in `Meta::sizes`, for one with a negative
//! extent that index and 1; for a failed check of the model's data its index in `Meta::checks`; otherwise 0. Invariant: 0 is success, and a code never changes its number.

/// The detail of a status starts at this bit.
pub const DETAIL_SHIFT: u32 = 8;

macro_rules! error_codes {
    ($($name:ident = $code:literal, $c_name:literal, $text:literal;)*) => {
        /// Why a generated function stopped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum ErrorCode {
            $(#[doc = $text] $name = $code,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The name of the code in the C header.
            pub fn c_name(self) -> &'static str {
                match self { $(ErrorCode::$name => $c_name,)* }
            }

            /// One line for people.
            pub fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    Ok = 0, "BROLGA_OK", "success";
    Guard = 1, "BROLGA_ERROR_GUARD", "the dimensions violate an assumption that the program was compiled with";
    OutOfMemory = 2, "BROLGA_ERROR_OUT_OF_MEMORY", "out of memory";
    HostFailed = 3, "BROLGA_ERROR_HOST_FAILED", "a host operator failed";
    HostMissing = 4, "BROLGA_ERROR_HOST_MISSING", "the program calls a host operator that the caller did not supply";
    AbiVersion = 5, "BROLGA_ERROR_ABI_VERSION", "the context has an ABI version that the program does not know";
    BadDims = 6, "BROLGA_ERROR_BAD_DIMS", "a dimension is negative";
    ArenaTooSmall = 7, "BROLGA_ERROR_ARENA_TOO_SMALL", "the arena is smaller than what plan asked for";
    ParallelFailed = 8, "BROLGA_ERROR_PARALLEL_FAILED", "parallel_for reported a failure";
    CheckFailed = 9, "BROLGA_ERROR_CHECK_FAILED", "a check of the model on its data failed";
    IndexOutOfRange = 10, "BROLGA_ERROR_INDEX_OUT_OF_RANGE", "an index in the model's data is out of range";
    CpuFeatures = 11, "BROLGA_ERROR_CPU_FEATURES", "the CPU lacks a feature that the program was compiled for";
    TooLarge = 12, "BROLGA_ERROR_TOO_LARGE", "a size is beyond 64 bits, or undefined because it divides by zero";
    OutputTooSmall = 13, "BROLGA_ERROR_OUTPUT_TOO_SMALL", "an output is larger than the memory that the caller gave for it";
}

impl ErrorCode {
    /// Splits a status into its code and its detail; `None` for a number that no code has.
    pub fn split(status: i32) -> Option<(ErrorCode, u32)> {
        let code = status & ((1 << DETAIL_SHIFT) - 1);
        let found = Self::ALL.iter().copied().find(|&known| known as i32 == code)?;
        Some((found, status.cast_unsigned() >> DETAIL_SHIFT))
    }

    /// The status with this code and a detail, of which the low 24 bits are kept.
    pub fn status(self, detail: u32) -> i32 {
        self as i32 | (detail << DETAIL_SHIFT).cast_signed()
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn a_status_carries_code_and_detail() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::split(code as i32), Some((code, 0)));
            assert_eq!(ErrorCode::split(code.status(7)), Some((code, 7)));
        }
        assert_eq!(ErrorCode::split(0xff), None);
        assert_eq!(ErrorCode::split(-1), None);
    }
}
