//! Loop IR and programs to machine code (Cranelift, an x86 vector IR) and PTX.

pub mod x86;
