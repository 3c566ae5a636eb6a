//! Whether this process may use registers of matrices (AMX), which a system lends to who asks for them.

/// Whether the CPU has registers of matrices with products of bytes and bf16, and the system gives them to this process: it is asked for them
/// when this is called for the first time. Code that uses them runs in no process where this was not true.
///
/// Source: Intel's Software Developer's Manual, volume 1, 13.14; Linux, `Documentation/arch/x86/xstate.rst`.
pub fn has_matrices() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *ANSWER.get_or_init(linux::ask)
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};

    /// `amx-bf16`, `amx-tile` and `amx-int8`, in edx of CPUID 7.0.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;

    pub fn ask() -> bool {
        if __get_cpuid_max(0).0 < 7 || __cpuid_count(7, 0).edx & FEATURES != FEATURES {
            return false;
        }
        let result: i64;
        // SAFETY: the call takes two numbers, changes no memory of this process, and overwrites rcx and r11. A system without the state of
        // these registers, or without the call, gives an error.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        result == 0
    }
}
