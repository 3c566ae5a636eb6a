//! Loop kernels scheduled for a GPU to PTX text, for the driver to assemble.
//!
//! Every thread runs the whole body, as at the loop level: `block` and `thread` loops become the hardware's coordinates,
//! `serial` loops labels and branches, `unrolled` ones repetition. An entry's parameters are one pointer for each buffer
//! parameter, in order, then one `s64` for each symbol of the kernel, in order; then, for a kernel with checks, a pointer to
//! a word of 32 bits that becomes the number of a check that fails, plus 1.
//!
//! | module | what it prints |
//! | --- | --- |
//! | `kernel` | the entry, its statements, memory |
//! | `index` | index expressions and dims, in 32 bits where ranges allow |
//! | `scalar` | primitives, each as the table of [`brolga_ir::scalar::Prim`] defines it |
//! | `reg` | typed registers |
//!
//! Invariants: no instruction that could be contracted, flushed or approximated (`.rn` everywhere, never `.ftz` or
//! `.approx`), so that every primitive has the bits that the interpreter gives; the same kernel prints the same text.
//!
//! ```text
//! r2: f32 = fma r0 r1 r2        -->        fma.rn.f32 %f2, %f0, %f1, %f2;
//! ```

mod index;
mod kernel;
mod reg;
mod scalar;

use crate::Error;
use brolga_ir::Dim;
use brolga_ir::loops::{Kernel, LoopKind, Stmt, visit};
use brolga_ir::program::{Program, identifier};
pub use brolga_ir::target::Arch;

/// How a kernel is launched: extents over the kernel's symbols. Nothing is launched when a grid extent is 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [Dim; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
}

/// The launch geometry of a kernel.
pub fn launch(kernel: &Kernel) -> Launch {
    let mut out = Launch {
        grid: [Dim::ONE, Dim::ONE, Dim::ONE],
        block: [1; 3],
    };
    visit(&kernel.body, &mut |s, _| match s {
        Stmt::For {
            kind: LoopKind::Block(d),
            extent,
            ..
        } => out.grid[*d as usize] = extent.offset.clone(),
        Stmt::For {
            kind: LoopKind::Thread(d),
            extent,
            ..
        } => {
            out.block[*d as usize] = extent.as_const().unwrap_or(1) as u32;
        }
        _ => {}
    });
    out
}

/// The name of a kernel's entry.
pub fn entry_name(kernel: &Kernel) -> String {
    identifier(&kernel.name)
}

/// A module with one kernel.
///
/// # Errors
/// When the kernel is not valid, or not scheduled for a GPU.
pub fn print_kernel(kernel: &Kernel, arch: Arch) -> Result<String, Error> {
    let mut out = header(arch);
    out.push_str(&kernel::entry(kernel)?);
    Ok(out)
}

/// A module with all kernels of a program.
///
/// # Errors
/// When a kernel is not valid or not scheduled for a GPU, or two have the same entry name.
pub fn print_program(program: &Program, arch: Arch) -> Result<String, Error> {
    let mut out = header(arch);
    for (i, k) in program.kernels.iter().enumerate() {
        let name = entry_name(k);
        if program.kernels[..i].iter().any(|other| entry_name(other) == name) {
            let what = format!("its entry name `{name}` is also another kernel's");
            return Err(fail(k, what));
        }
        out.push_str(&kernel::entry(k)?);
    }
    Ok(out)
}

fn header(arch: Arch) -> String {
    format!(".version 8.0\n.target {}\n.address_size 64\n", arch.name())
}

fn fail(kernel: &Kernel, what: impl Into<String>) -> Error {
    Error::Kernel {
        kernel: kernel.name.clone(),
        what: what.into(),
    }
}
