//! What `emit --stage clif` and `emit --stage asm` print: each function's CLIF (vector IR for tile kernels) and assembly.

use brolga_ir::Cpu;

/// One function as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its symbol.
    pub name: String,
    /// CLIF, or vector IR for an assembled kernel.
    pub ir: String,
    /// Assembly.
    pub asm: String,
    /// Bytes of machine code and its constants.
    pub bytes: usize,
    /// The symbols of the functions that it refers to, each once.
    pub refers: Vec<String>,
}

impl Listing {
    /// `vcode` is Cranelift's own assembly text, used where there is no disassembler.
    pub(crate) fn new(name: String, ir: String, bytes: &[u8], vcode: String, cpu: Cpu) -> Listing {
        let asm = if cpu == Cpu::Aarch64 {
            vcode
        } else {
            crate::x86::disassemble(bytes)
        };
        Listing {
            name,
            ir,
            asm,
            bytes: bytes.len(),
            refers: vec![],
        }
    }
}
