//! A model at one of the levels: what passes take and give.

use crate::lower::Structured;
use brolga_ir::program::Program;
use brolga_ir::text::ParseError;
use brolga_ir::{Graph, NodeError, Source};
use std::fmt;
use std::sync::Arc;

/// A level of the IR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// The tensor graph.
    Tensor,
    /// Structured kernels.
    Structured,
    /// Loop nests.
    Loops,
    /// Loop nests with steps and the memory plan.
    Program,
}

impl Level {
    /// Every level, from the top.
    pub const ALL: [Level; 4] = [Level::Tensor, Level::Structured, Level::Loops, Level::Program];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Tensor => "a tensor graph",
            Level::Structured => "structured kernels",
            Level::Loops => "loop nests",
            Level::Program => "loop nests with a memory plan",
        })
    }
}

/// A model at one of the levels. Printed, it is the text of its level.
#[derive(Clone)]
pub enum Module {
    /// A tensor graph.
    Tensor(Graph),
    /// A program of structured kernels.
    Structured(Structured),
    /// A program of loop nests; with a memory plan, when it has an arena.
    Loops(Program),
}

impl Module {
    /// The level that it is at.
    pub fn level(&self) -> Level {
        match self {
            Module::Tensor(_) => Level::Tensor,
            Module::Structured(_) => Level::Structured,
            Module::Loops(p) if p.arena.is_none() => Level::Loops,
            Module::Loops(_) => Level::Program,
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        match self {
            Module::Tensor(g) => &g.name,
            Module::Structured(p) => &p.name,
            Module::Loops(p) => &p.name,
        }
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        match self {
            Module::Tensor(g) => Size {
                operations: operations(g),
                kernels: None,
            },
            Module::Structured(p) => Size::of(p),
            Module::Loops(p) => Size::of(p),
        }
    }

    /// Checks the invariants of its level.
    ///
    /// # Errors
    /// The first violation.
    pub fn verify(&self) -> Result<(), NodeError> {
        let fail = |message| NodeError {
            node: String::new(),
            message,
        };
        match self {
            Module::Tensor(g) => g.verify(),
            Module::Structured(p) => p.verify().map_err(fail),
            Module::Loops(p) => p.verify().map_err(fail),
        }
    }

    /// Reads the text of any level; files that it names are asked of `find`.
    ///
    /// # Errors
    /// Where the text is none.
    pub fn parse(text: &str, find: &dyn Fn(&str) -> Option<Arc<dyn Source>>) -> Result<Module, ParseError> {
        let starts = |word: &str| text.lines().any(|l| l.starts_with(word));
        // Kernels are of one level only, each with its keyword at the start of a line.
        Ok(if starts("graph @") {
            Module::Tensor(Graph::parse(text, find)?)
        } else if starts("kernel @") {
            Module::Structured(Program::parse(text, find)?)
        } else if starts("program @") || starts("loops @") {
            Module::Loops(Program::parse(text, find)?)
        } else {
            Module::Tensor(Graph::parse(text, find)?)
        })
    }
}

/// How large a module is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Operations of a tensor graph, those of its regions too; steps of a program.
    pub operations: usize,
    /// Kernels, below the tensor graph.
    pub kernels: Option<usize>,
}

impl Size {
    fn of<K>(p: &Program<K>) -> Size {
        Size {
            operations: p.init.len() + p.steps.len(),
            kernels: Some(p.kernels.len()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match self.kernels {
            None => f.write_str(&many(self.operations, "node")),
            Some(kernels) => write!(f, "{}, {}", many(kernels, "kernel"), many(self.operations, "step")),
        }
    }
}

fn operations(g: &Graph) -> usize {
    let inside = g.nodes.iter().flat_map(|n| n.op.regions());
    g.nodes.len() + inside.map(|r| operations(r.graph())).sum::<usize>()
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Module::Tensor(g) => g.fmt(f),
            Module::Structured(p) => p.fmt(f),
            Module::Loops(p) => p.fmt(f),
        }
    }
}
