//! Cranelift's instruction set for a [`Target`], and the target of the machine that this runs on.
//!
//! Invariant: the settings are a function of the target and of nothing else, so that the same program gives the same bytes
//! wherever it is compiled; nothing may become a call outside the module (no stack probes, no library calls).

use crate::Error;
use brolga_ir::{Cpu, CpuTarget, Target};
use cranelift_codegen::isa::{self, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::str::FromStr;
use target_lexicon::Triple;

/// What a target's CPU has.
///
/// # Errors
/// For a GPU.
pub fn cpu(target: &Target) -> Result<&CpuTarget, Error> {
    target.cpu().ok_or_else(|| Error::Target {
        name: target.name.to_owned(),
        what: "a GPU, expected a CPU for machine code".into(),
    })
}

/// The instruction set with Brolga's settings.
///
/// # Errors
/// For a triple that Cranelift was not built for.
pub fn isa(target: &Target) -> Result<OwnedTargetIsa, Error> {
    let fail = |what: String| Error::Target {
        name: target.name.to_owned(),
        what,
    };
    let triple = Triple::from_str(cpu(target)?.triple).map_err(|e| fail(e.to_string()))?;
    let mut flags = settings::builder();
    let verify = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", "speed"),
        // Everything that code refers to is in its own module and therefore reached relative to the program counter. With
        // "true" Cranelift would take addresses of local functions from a global offset table, which an image has not.
        ("is_pic", "false"),
        ("enable_verifier", verify),
        ("enable_probestack", "false"),
        ("enable_heap_access_spectre_mitigation", "false"),
        ("enable_table_access_spectre_mitigation", "false"),
        ("unwind_info", "false"),
        ("log2_min_function_alignment", "5"),
    ] {
        flags.set(name, value).map_err(|e| fail(format!("{name}: {e}")))?;
    }
    let mut builder = isa::lookup(triple).map_err(|e| fail(e.to_string()))?;
    for name in cranelift_flags(cpu(target)?.cpu) {
        builder.enable(name).map_err(|e| fail(format!("{name}: {e}")))?;
    }
    builder
        .finish(settings::Flags::new(flags))
        .map_err(|e| fail(e.to_string()))
}

/// The level's features by Cranelift's names.
fn cranelift_flags(cpu: Cpu) -> Vec<&'static str> {
    let v3 = [
        "has_sse3",
        "has_ssse3",
        "has_sse41",
        "has_sse42",
        "has_popcnt",
        "has_avx",
        "has_avx2",
        "has_fma",
        "has_bmi1",
        "has_bmi2",
        "has_lzcnt",
    ];
    match cpu {
        Cpu::X86_64 | Cpu::Aarch64 => vec![],
        Cpu::X86_64V3 => v3.to_vec(),
        Cpu::X86_64V4 => v3
            .into_iter()
            .chain(["has_avx512f", "has_avx512dq", "has_avx512vl"])
            .collect(),
    }
}

/// The calling convention of everything that crosses a module's border: System V on every x86-64 system.
pub fn call_conv(triple: &Triple) -> CallConv {
    match triple.architecture {
        target_lexicon::Architecture::X86_64 => CallConv::SystemV,
        _ => CallConv::triple_default(triple),
    }
}

/// The best target that the CPU of this process runs; `None` on an architecture without one.
pub fn native() -> Option<Target> {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("sse4.2");
        let v4 = v3
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let vnni = v4 && is_x86_feature_detected!("avx512vnni");
        let bf16 = vnni && is_x86_feature_detected!("avx512bf16");
        Some(match (vnni, v4, v3) {
            _ if bf16 && brolga_abi::has_matrices() => Target::x86_64_v4_amx(),
            _ if bf16 => Target::x86_64_v4_bf16(),
            (true, ..) => Target::x86_64_v4_vnni(),
            (_, true, _) => Target::x86_64_v4(),
            (.., true) => Target::x86_64_v3(),
            _ => Target::baseline(),
        })
    }
    #[cfg(target_arch = "aarch64")]
    return Some(Target::aarch64());
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    None
}

/// Whether code for a target runs in this process.
pub fn runs_here(target: &Target) -> bool {
    let native = native();
    let levels = native.as_ref().and_then(Target::cpu).zip(target.cpu());
    levels.is_some_and(|(n, t)| match (n.cpu, t.cpu) {
        (Cpu::Aarch64, t) => t == Cpu::Aarch64,
        (_, Cpu::Aarch64) => false,
        _ => t.features().iter().all(|f| n.features().contains(f)),
    })
}

/// A target by its command-line name, `native` included.
pub fn by_name(name: &str) -> Option<Target> {
    match name {
        "native" => native(),
        _ => Target::by_name(name),
    }
}
