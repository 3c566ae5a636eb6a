//! Typed virtual registers, and the text under construction.

use brolga_ir::{DType, Format};
use std::fmt;

/// A register class of PTX.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Class {
    /// A bool.
    Pred,
    /// A 16-bit float.
    B16,
    /// An integer of up to 32 bits; narrower ones stand in it sign- or zero-extended.
    B32,
    /// A 64-bit integer, or an address.
    B64,
    F32,
    F64,
}

impl Class {
    pub const ALL: [Class; 6] = [Class::Pred, Class::B16, Class::B32, Class::B64, Class::F32, Class::F64];

    /// The class that holds a dtype.
    pub const fn of(dtype: DType) -> Class {
        match dtype.format() {
            Format::Bool => Class::Pred,
            Format::Half => Class::B16,
            Format::Signed(64) | Format::Unsigned(64) => Class::B64,
            Format::F32 => Class::F32,
            Format::F64 => Class::F64,
            Format::Signed(_) | Format::Unsigned(_) | Format::Small(_) => Class::B32,
        }
    }

    /// The type in declarations, `mov` and `selp`.
    pub const fn ty(self) -> &'static str {
        match self {
            Class::Pred => "pred",
            Class::B16 => "b16",
            Class::B32 => "b32",
            Class::B64 => "b64",
            Class::F32 => "f32",
            Class::F64 => "f64",
        }
    }

    /// The prefix of register names.
    pub const fn prefix(self) -> &'static str {
        match self {
            Class::Pred => "%p",
            Class::B16 => "%h",
            Class::B32 => "%r",
            Class::B64 => "%rd",
            Class::F32 => "%f",
            Class::F64 => "%fd",
        }
    }
}

/// A register, printed `%f3`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct R {
    pub class: Class,
    n: u32,
}

impl fmt::Display for R {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.class.prefix(), self.n)
    }
}

/// Instructions, and the registers that they use. What holds for the whole kernel (parameters, dims) goes to `head`,
/// which runs before `body`.
#[derive(Default)]
pub(super) struct Asm {
    pub head: String,
    pub body: String,
    counts: [u32; 6],
    labels: u32,
}

impl Asm {
    /// A new register.
    pub fn reg(&mut self, class: Class) -> R {
        let n = &mut self.counts[class as usize];
        *n += 1;
        R { class, n: *n - 1 }
    }

    /// A new register for a value of a dtype.
    pub fn of(&mut self, dtype: DType) -> R {
        self.reg(Class::of(dtype))
    }

    /// The number of a new label.
    pub fn label(&mut self) -> u32 {
        self.labels += 1;
        self.labels - 1
    }

    /// Appends an instruction.
    pub fn put(&mut self, instruction: fmt::Arguments) {
        line(&mut self.body, instruction);
    }

    /// Appends an instruction to the head.
    pub fn put_head(&mut self, instruction: fmt::Arguments) {
        line(&mut self.head, instruction);
    }

    /// Appends a label.
    pub fn place(&mut self, label: fmt::Arguments) {
        self.body.push_str(&format!("{label}:\n"));
    }

    /// The declarations of all registers.
    pub fn declarations(&self) -> String {
        let one = |c: Class| match self.counts[c as usize] {
            0 => String::new(),
            n => format!("\t.reg .{} {}<{n}>;\n", c.ty(), c.prefix()),
        };
        Class::ALL.into_iter().map(one).collect()
    }
}

fn line(out: &mut String, instruction: fmt::Arguments) {
    out.push_str(&format!("\t{instruction};\n"));
}

/// Appends an instruction: `put!(asm, "add.s32 {d}, {a}, {b}")`.
macro_rules! put {
    ($asm:expr, $($arg:tt)*) => { $asm.put(format_args!($($arg)*)) };
}
pub(super) use put;
