//! What this machine's CPU can do, by the names that Rust gives to CPU features.

/// The architecture that this build runs on, as it begins a target triple.
pub const ARCH: &str = std::env::consts::ARCH;

macro_rules! detect {
    ($detect:ident, $name:expr, $($feature:tt)*) => {
        match $name {
            $($feature => std::arch::$detect!($feature),)*
            _ => false,
        }
    };
}

/// Whether this CPU has the feature. A name that this build does not know counts as absent: then the code that needs it
/// is refused instead of tried.
pub fn has(feature: &str) -> bool {
    if ["amx-tile", "amx-int8", "amx-bf16"].contains(&feature) {
        return brolga_abi::has_matrices();
    }
    #[cfg(target_arch = "x86_64")]
    return detect!(
        is_x86_feature_detected, feature, "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2"
        "avx" "avx2" "fma" "f16c" "movbe" "avxvnni" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma"
        "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16" "gfni" "vaes"
    );
    #[cfg(target_arch = "aarch64")]
    return detect!(
        is_aarch64_feature_detected, feature, "neon" "fp16" "dotprod" "bf16" "i8mm" "lse" "rdm" "fhm" "sve" "sve2"
    );
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return {
        let _ = feature;
        false
    };
}

/// Whether code for this target triple can run here. The operating system does not matter: code in an artefact calls
/// nothing outside itself, and its calling convention is the same everywhere.
pub fn runs(triple: &str) -> bool {
    triple.split('-').next() == Some(ARCH)
}

#[cfg(test)]
mod tests {
    #[test]
    fn unknown_features_are_absent() {
        assert!(!super::has("avx1024"));
        #[cfg(target_arch = "x86_64")]
        assert!(super::has("sse2"));
        #[cfg(target_arch = "aarch64")]
        assert!(super::has("neon"));
    }

    #[test]
    fn the_architecture_decides() {
        assert!(super::runs(&format!("{}-unknown-linux-gnu", super::ARCH)));
        assert!(!super::runs("riscv32i-unknown-none-elf"));
        assert!(!super::runs(""));
    }
}
