//! What a program needs to know of its kernels, whatever their level.

use crate::loops::interp::BufferData;
use crate::text::{Lexer, Result};
use crate::{DType, Dim, Fault, Layout, Symbol, Tensor, Type, loops, structured};
use std::fmt;

/// A parameter of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// Element type.
    pub dtype: DType,
    /// Elements in memory.
    pub elements: Dim,
    /// True when the kernel writes it.
    pub written: bool,
    /// The tensor's type and layout, where the level has tensors.
    pub tensor: Option<(Type, Layout)>,
}

/// A function that a program calls: a structured kernel or a loop nest.
pub trait Callable: Clone + PartialEq + fmt::Display {
    /// Its name.
    fn name(&self) -> &str;
    /// The symbols that its dims use.
    fn symbols(&self) -> &[Symbol];
    /// Its parameters, in the order of a call's arguments.
    fn params(&self) -> Vec<Param>;
    /// How many numbers its checks have; a call names a node for each.
    fn checks(&self) -> u32;
    /// True when its results stay what they are where a parameter that it reads is the same memory as one that it writes.
    fn overwrites(&self, read: usize, written: usize) -> bool;
    /// Checks its invariants.
    ///
    /// # Errors
    /// The first violation.
    fn verify(&self) -> std::result::Result<(), String>;
    /// Reads its text.
    ///
    /// # Errors
    /// Where the text is none.
    fn parse(l: &mut Lexer) -> Result<Self>;
    /// Runs its reference interpreter on memory, one a parameter.
    ///
    /// # Errors
    /// What the interpreter reports.
    fn run(&self, symbols: &dyn Fn(&str) -> Option<i64>, memory: &[BufferData]) -> std::result::Result<(), Fault>;
}

impl Callable for loops::Kernel {
    fn name(&self) -> &str {
        &self.name
    }
    fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }
    fn params(&self) -> Vec<Param> {
        let param = |b: &loops::Buffer| Param {
            dtype: b.dtype,
            elements: b.len.clone(),
            written: b.scope == loops::Scope::Out,
            tensor: None,
        };
        self.params().map(param).collect()
    }
    fn checks(&self) -> u32 {
        self.checks()
    }
    fn overwrites(&self, read: usize, written: usize) -> bool {
        self.overwrites(read, written)
    }
    fn verify(&self) -> std::result::Result<(), String> {
        self.verify()
    }
    fn parse(l: &mut Lexer) -> Result<loops::Kernel> {
        loops::Kernel::parse(l)
    }
    fn run(&self, symbols: &dyn Fn(&str) -> Option<i64>, memory: &[BufferData]) -> std::result::Result<(), Fault> {
        loops::interp::run(self, symbols, memory)
    }
}

impl Callable for structured::Kernel {
    fn name(&self) -> &str {
        &self.name
    }
    fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }
    fn params(&self) -> Vec<Param> {
        let param = |o: &structured::Operand| Param {
            dtype: o.ty.dtype,
            elements: o.elements(),
            written: o.role != structured::Role::In,
            tensor: Some((o.ty.clone(), o.layout.clone())),
        };
        self.operands.iter().map(param).collect()
    }
    fn checks(&self) -> u32 {
        self.checks()
    }
    fn overwrites(&self, read: usize, written: usize) -> bool {
        self.overwrites(read, written)
    }
    fn verify(&self) -> std::result::Result<(), String> {
        self.verify()
    }
    fn parse(l: &mut Lexer) -> Result<structured::Kernel> {
        structured::Kernel::parse(l)
    }
    fn run(&self, symbols: &dyn Fn(&str) -> Option<i64>, memory: &[BufferData]) -> std::result::Result<(), Fault> {
        let fail = |e: String| Fault::new(&self.name, "", e);
        let mut inputs = vec![];
        for (o, m) in self.operands.iter().zip(memory) {
            if o.role != structured::Role::Out {
                let shape: Option<Vec<usize>> = (o.layout.shape(&o.ty.shape))
                    .iter()
                    .map(|d| d.eval(symbols).and_then(|n| usize::try_from(n).ok()))
                    .collect();
                let shape = shape.ok_or_else(|| fail(format!("the type {} has no value", o.ty)))?;
                inputs.push(Tensor::new(o.ty.dtype, shape, m.to_vec()).map_err(fail)?);
            }
        }
        let mut outputs = structured::interp::run(self, symbols, &inputs)?.into_iter();
        for (o, m) in self.operands.iter().zip(memory) {
            if o.role != structured::Role::In
                && let Some(t) = outputs.next()
            {
                m.copy_from(t.bytes()).map_err(fail)?;
            }
        }
        Ok(())
    }
}
