//! Whether the CPU that code runs on has what the code was compiled for: a function of a few instructions that every
//! x86-64 has, made of the names of the features.
//!
//! ```text
//! "avx2", "bmi2"  -->  cpuid(1).ecx has AVX and OSXSAVE, xgetbv(0) has the state of XMM and YMM,
//!                      cpuid(7).ebx has AVX2 and BMI2
//! ```
//!
//! Source: Intel's Software Developer's Manual, volume 2, CPUID; volume 1, 14.3 and 15.2, for the order of the questions.
//! Invariant: the function touches no memory but its stack. Registers of matrices are asked for as well, since Linux gives them to who asks.
//!
//! Decided: it is written in bytes. iced's assembler by methods, which no other function needs, has one for every
//! instruction and kind of operand: a third of what building iced takes.

use super::Error;

/// What [`probe`]'s function returns where everything is there; never 0.
pub const FITS: i32 = 1;

/// What [`probe`]'s function returns where something is missing; never 0.
pub const LACKS: i32 = 2;

/// The state of matrix registers, in XCR0: their shapes and what is in them.
const MATRICES: u32 = 0b11 << 17;

/// Bits that must be set, by where CPUID and XGETBV tell them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Bits {
    /// CPUID 1, ecx.
    basic: u32,
    /// CPUID 7.0, ebx.
    extended: u32,
    /// CPUID 7.0, ecx.
    further: u32,
    /// CPUID 7.0, edx.
    matrices: u32,
    /// CPUID 7.1, eax.
    later: u32,
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
        // The registers' shapes and what is in them.
        let matrices = |bit: u32| Bits {
            state: MATRICES,
            ..avx(Bits {
                matrices: 1 << bit,
                ..none
            })
        };
        Some(match feature {
            "sse4.2" => basic(20),
            "popcnt" => basic(23),
            "fma" => avx(basic(12)),
            "f16c" => avx(basic(29)),
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
            "avx512vnni" => Bits {
                further: 1 << 11,
                ..avx512(16)
            },
            "avx512bf16" => Bits {
                later: 1 << 5,
                ..avx512(16)
            },
            "amx-bf16" => matrices(22),
            "amx-tile" => matrices(24),
            "amx-int8" => matrices(25),
            _ => return None,
        })
    }

    fn and(self, o: Bits) -> Bits {
        Bits {
            basic: self.basic | o.basic,
            extended: self.extended | o.extended,
            further: self.further | o.further,
            matrices: self.matrices | o.matrices,
            later: self.later | o.later,
            amd: self.amd | o.amd,
            state: self.state | o.state,
        }
    }

    fn assemble(self) -> Vec<u8> {
        // An opcode with the immediate of 32 bits that ends it.
        let with = |opcode: &[u8], immediate: u32| [opcode, &immediate.to_le_bytes()].concat();
        // CPUID overwrites rbx, which is the caller's.
        let mut code = PUSH_RBX.to_vec();
        let mut to_lacks = vec![];
        let registers = [
            (1, 0, [0, 0, self.basic, 0]),
            (7, 0, [0, self.extended, self.further, self.matrices]),
            (7, 1, [self.later, 0, 0, 0]),
            (0x8000_0001u32, 0, [0, 0, self.amd, 0]),
        ];
        for (leaf, part, bits) in registers {
            if bits == [0; 4] {
                continue;
            }
            // The highest leaf of the range; beyond it an answer means nothing.
            code.extend(with(&MOV_EAX, leaf & 0x8000_0000));
            code.extend(CPUID);
            code.extend(with(CMP[0], leaf));
            code.extend(with(&JB, 0));
            to_lacks.push(code.len());
            code.extend(with(&MOV_EAX, leaf));
            match part {
                0 => code.extend(XOR_ECX_ECX),
                part => code.extend(with(&MOV_ECX, part)),
            }
            code.extend(CPUID);
            for (register, bits) in bits.into_iter().enumerate() {
                if bits != 0 {
                    code.extend(with(AND[register], bits));
                    code.extend(with(CMP[register], bits));
                    code.extend(with(&JNE, 0));
                    to_lacks.push(code.len());
                }
            }
            if leaf == 1 && self.state != 0 {
                code.extend(XOR_ECX_ECX);
                code.extend(XGETBV);
                code.extend(with(AND[0], self.state));
                code.extend(with(CMP[0], self.state));
                code.extend(with(&JNE, 0));
                to_lacks.push(code.len());
            }
        }
        if self.state & MATRICES != 0 {
            // Linux lets a process use them that asks for it: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
            code.extend(with(&MOV_EAX, 158));
            code.extend(with(&MOV_EDI, 0x1023));
            code.extend(with(&MOV_ESI, 18));
            code.extend(SYSCALL);
            code.extend(with(CMP[0], 0));
            code.extend(with(&JNE, 0));
            to_lacks.push(code.len());
        }
        let mut leave = |result: i32| {
            code.extend(with(&MOV_EAX, result as u32));
            code.extend(POP_RBX);
            code.extend(RET);
            code.len()
        };
        let lacks = leave(FITS);
        leave(LACKS);
        // A branch ends in its distance, counted from its end.
        for end in to_lacks {
            code[end - 4..end].copy_from_slice(&((lacks - end) as u32).to_le_bytes());
        }
        code
    }
}

const PUSH_RBX: [u8; 1] = [0x53];
const POP_RBX: [u8; 1] = [0x5b];
const RET: [u8; 1] = [0xc3];
const CPUID: [u8; 2] = [0x0f, 0xa2];
const XGETBV: [u8; 3] = [0x0f, 0x01, 0xd0];
const XOR_ECX_ECX: [u8; 2] = [0x31, 0xc9];
const MOV_EAX: [u8; 1] = [0xb8];
const MOV_ECX: [u8; 1] = [0xb9];
const MOV_ESI: [u8; 1] = [0xbe];
const MOV_EDI: [u8; 1] = [0xbf];
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Of eax, ebx, ecx and edx, with what follows.
const AND: [&[u8]; 4] = [&[0x25], &[0x81, 0xe3], &[0x81, 0xe1], &[0x81, 0xe2]];
const CMP: [&[u8]; 4] = [&[0x3d], &[0x81, 0xfb], &[0x81, 0xf9], &[0x81, 0xfa]];
const JB: [u8; 2] = [0x0f, 0x82];
const JNE: [u8; 2] = [0x0f, 0x85];

/// A function without arguments that returns [`FITS`] or [`LACKS`], on systems of a triple.
///
/// # Errors
/// For a feature that is not in the table above, and matrices on a system other than Linux, of which nobody knows how to ask for them.
pub fn probe(features: &[&str], triple: &str) -> Result<Vec<u8>, Error> {
    let mut all = Bits::default();
    for feature in features {
        let bits = Bits::of(feature).ok_or_else(|| Error::Encoding {
            function: "cpu".into(),
            what: format!("no test for the CPU feature `{feature}`"),
        })?;
        all = all.and(bits);
    }
    if all.state & MATRICES != 0 && !triple.contains("linux") {
        return Err(Error::Encoding {
            function: "cpu".into(),
            what: format!("matrices (AMX) are there on Linux only, not on {triple}; take the target x86-64-v4+bf16"),
        });
    }
    Ok(all.assemble())
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
        for target in Target::CPUS {
            let cpu = target.cpu().unwrap();
            if cpu.cpu == brolga_ir::Cpu::Aarch64 {
                continue;
            }
            let expected = if crate::target::runs_here(&target) { FITS } else { LACKS };
            assert_eq!(
                run(&probe(cpu.features(), cpu.triple).unwrap()),
                expected,
                "{}",
                target.name
            );
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
            Bits {
                further: 1 << 15,
                ..none
            },
            Bits { amd: 1 << 31, ..none },
        ] {
            assert_eq!(run(&bits.assemble()), LACKS, "{bits:?}");
        }
        assert_eq!(run(&none.assemble()), FITS);
    }

    /// The bytes above, read by somebody else.
    #[test]
    fn its_bytes_are_these_instructions() {
        let all = Bits {
            basic: 1,
            extended: 2,
            state: 4,
            ..Bits::default()
        };
        expect_test::expect![[r#"
            0000: push %rbx
            0001: mov $0,%eax
            0006: cpuid
            0008: cmp $1,%eax
            000d: jb 0x0000000000000077
            0013: mov $1,%eax
            0018: xor %ecx,%ecx
            001a: cpuid
            001c: and $1,%ecx
            0022: cmp $1,%ecx
            0028: jne 0x0000000000000077
            002e: xor %ecx,%ecx
            0030: xgetbv
            0033: and $4,%eax
            0038: cmp $4,%eax
            003d: jne 0x0000000000000077
            0043: mov $0,%eax
            0048: cpuid
            004a: cmp $7,%eax
            004f: jb 0x0000000000000077
            0055: mov $7,%eax
            005a: xor %ecx,%ecx
            005c: cpuid
            005e: and $2,%ebx
            0064: cmp $2,%ebx
            006a: jne 0x0000000000000077
            0070: mov $1,%eax
            0075: pop %rbx
            0076: ret
            0077: mov $2,%eax
            007c: pop %rbx
            007d: ret
        "#]]
        .assert_eq(&super::super::assemble::disassemble(&all.assemble()));
    }

    /// What Linux is asked for, behind all that the CPU is.
    #[test]
    fn matrices_are_asked_for() {
        let code = probe(&["amx-tile"], "x86_64-unknown-linux-gnu").unwrap();
        let text = super::super::assemble::disassemble(&code);
        let lines: Vec<&str> = text.lines().map(|l| l.split_once(": ").unwrap().1).collect();
        let at = lines
            .iter()
            .position(|l| *l == "syscall")
            .expect("a call of the system");
        assert_eq!(
            lines[at - 3..at],
            ["mov $0x9E,%eax", "mov $0x1023,%edi", "mov $0x12,%esi"]
        );
        assert_eq!(lines[at + 1], "cmp $0,%eax");
        let e = probe(&["amx-tile"], "x86_64-pc-windows-msvc").unwrap_err().to_string();
        assert!(e.contains("on Linux only") && e.contains("x86-64-v4+bf16"), "{e}");
    }

    #[test]
    fn a_feature_without_a_test_is_an_error() {
        assert!(probe(&["avx2", "avx1024"], "x86_64-unknown-linux-gnu").is_err());
    }
}
