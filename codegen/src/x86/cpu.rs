//! Whether the CPU that code runs on has what the code was compiled for: a function of a few instructions that every
//! x86-64 has, made of the names of the features.
//!
//! ```text
//! "avx2", "bmi2"  -->  cpuid(1).ecx has AVX and OSXSAVE, xgetbv(0) has the state of XMM and YMM,
//!                      cpuid(7).ebx has AVX2 and BMI2
//! ```
//!
//! Source: Intel's Software Developer's Manual, volume 2, CPUID; volume 1, 14.3 and 15.2, for the order of the questions.
//! Invariant: the function touches no memory but its stack.

use super::Error;
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, eax, ebx, ecx, edx, rbx};

/// What [`probe`]'s function returns where everything is there; never 0.
pub const FITS: i32 = 1;

/// What [`probe`]'s function returns where something is missing; never 0.
pub const LACKS: i32 = 2;

/// Bits that must be set, by where CPUID and XGETBV tell them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Bits {
    /// CPUID 1, ecx.
    basic: u32,
    /// CPUID 7.0, ebx.
    extended: u32,
    /// CPUID 8000_0001, ecx.
    amd: u32,
    /// XCR0: register states that the system saves.
    state: u32,
}

impl Bits {
    fn of(feature: &str) -> Option<Bits> {
        let none = Bits::default();
        let basic = |bit: u32| Bits {
            basic: 1 << bit,
            ..none
        };
        // OSXSAVE says that XGETBV may be asked; XMM and YMM.
        let avx = |bits: Bits| Bits {
            basic: bits.basic | 1 << 28 | 1 << 27,
            state: 0b110,
            ..bits
        };
        // Besides, the masks and both parts of ZMM.
        let avx512 = |bit: u32| Bits {
            state: 0b1110_0110,
            ..avx(Bits {
                extended: 1 << bit,
                ..none
            })
        };
        Some(match feature {
            "sse4.2" => basic(20),
            "popcnt" => basic(23),
            "fma" => avx(basic(12)),
            "avx2" => avx(Bits {
                extended: 1 << 5,
                ..none
            }),
            "bmi1" => Bits {
                extended: 1 << 3,
                ..none
            },
            "bmi2" => Bits {
                extended: 1 << 8,
                ..none
            },
            "lzcnt" => Bits { amd: 1 << 5, ..none },
            "avx512f" => avx512(16),
            "avx512dq" => avx512(17),
            "avx512cd" => avx512(28),
            "avx512bw" => avx512(30),
            "avx512vl" => avx512(31),
            _ => return None,
        })
    }

    fn and(self, o: Bits) -> Bits {
        Bits {
            basic: self.basic | o.basic,
            extended: self.extended | o.extended,
            amd: self.amd | o.amd,
            state: self.state | o.state,
        }
    }

    fn assemble(self) -> Result<Vec<u8>, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let mut lacks = a.create_label();
        // CPUID overwrites rbx, which is the caller's.
        a.push(rbx)?;
        for (leaf, bits) in [(1, self.basic), (7, self.extended), (0x8000_0001, self.amd)] {
            if bits == 0 {
                continue;
            }
            // The highest leaf of the range; beyond it an answer means nothing.
            a.mov(eax, leaf & 0x8000_0000u32)?;
            a.cpuid()?;
            a.cmp(eax, leaf as i32)?;
            a.jb(lacks)?;
            a.mov(eax, leaf)?;
            a.xor(ecx, ecx)?;
            a.cpuid()?;
            let found = if leaf == 7 { ebx } else { ecx };
            a.and(found, bits as i32)?;
            a.cmp(found, bits as i32)?;
            a.jne(lacks)?;
            if leaf == 1 && self.state != 0 {
                a.xor(ecx, ecx)?;
                a.xgetbv()?;
                a.and(eax, self.state as i32)?;
                a.cmp(eax, self.state as i32)?;
                a.jne(lacks)?;
            }
        }
        a.mov(edx, FITS)?;
        let mut end = a.create_label();
        a.jmp(end)?;
        a.set_label(&mut lacks)?;
        a.mov(edx, LACKS)?;
        a.set_label(&mut end)?;
        a.mov(eax, edx)?;
        a.pop(rbx)?;
        a.ret()?;
        a.assemble(0)
    }
}

/// A function without arguments that returns [`FITS`] or [`LACKS`].
///
/// # Errors
/// For a feature that is not in the table above.
pub fn probe(features: &[&str]) -> Result<Vec<u8>, Error> {
    let failed = |what: String| Error::Encoding {
        function: "cpu".into(),
        what,
    };
    let mut all = Bits::default();
    for feature in features {
        let bits = Bits::of(feature).ok_or_else(|| failed(format!("no test for the CPU feature `{feature}`")))?;
        all = all.and(bits);
    }
    all.assemble().map_err(|e| failed(e.to_string()))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use brolga_ir::Target;

    fn run(code: &[u8]) -> i32 {
        let mut map = memmap2::MmapMut::map_anon(code.len()).unwrap();
        map.copy_from_slice(code);
        let map = map.make_exec().unwrap();
        // SAFETY: the function takes nothing, returns an i32, and restores what it overwrites.
        unsafe { std::mem::transmute::<*const u8, extern "sysv64" fn() -> i32>(map.as_ptr())() }
    }

    #[test]
    fn it_finds_what_this_machine_has() {
        for name in Target::NAMES {
            let target = Target::by_name(name).unwrap();
            if target.cpu == brolga_ir::Cpu::Aarch64 {
                continue;
            }
            let expected = if crate::target::runs_here(&target) { FITS } else { LACKS };
            assert_eq!(run(&probe(target.features()).unwrap()), expected, "{name}");
        }
    }

    /// Bits that are reserved, and 0 on every machine, each where its register is asked.
    #[test]
    fn it_misses_what_no_machine_has() {
        let none = Bits::default();
        for bits in [
            Bits { basic: 1 << 16, ..none },
            Bits {
                basic: 1 << 27 | 1 << 28,
                state: 1 << 20,
                ..none
            },
            Bits { amd: 1 << 31, ..none },
        ] {
            assert_eq!(run(&bits.assemble().unwrap()), LACKS, "{bits:?}");
        }
        assert_eq!(run(&none.assemble().unwrap()), FITS);
    }

    #[test]
    fn a_feature_without_a_test_is_an_error() {
        assert!(probe(&["avx2", "avx1024"]).is_err());
    }
}
