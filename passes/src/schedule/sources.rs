//! Where loop kernels come from: which structured kernels, by which schedules.
//!
//! Loop kernels that are equal stand in a program once, whatever they were made of, so each has a list.

use brolga_ir::structured;

/// What loop kernels were made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The structured kernels that were scheduled, each with the schedule that it got.
    pub kernels: Vec<structured::Kernel>,
    /// For each loop kernel of the program, what it was made of; each source once.
    pub of: Vec<Vec<Source>>,
}

/// What a loop kernel was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The structured kernel, by its place in [`Sources::kernels`].
    pub kernel: usize,
    /// Its part in it.
    pub part: Part,
}

/// What a loop kernel does of a structured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The piece of this number, in the order in which they run.
    Piece(usize),
    /// It packs an operand for one of the pieces.
    Packing,
}

impl Sources {
    /// The schedules that a loop kernel was made by, each once, with its structured kernel.
    pub fn schedules(&self, kernel: usize) -> impl Iterator<Item = (&structured::Kernel, Part)> {
        let of = self.of.get(kernel).into_iter().flatten();
        of.filter_map(|s| Some((self.kernels.get(s.kernel)?, s.part)))
    }

    /// Notes a source of a loop kernel.
    pub(super) fn note(&mut self, kernel: usize, source: Source) {
        if self.of.len() <= kernel {
            self.of.resize(kernel + 1, vec![]);
        }
        if !self.of[kernel].contains(&source) {
            self.of[kernel].push(source);
        }
    }
}
