//! The sorts of arguments: what functions and predicates of rules take and give, so that a mistake is told where it is written.

use super::rules::VarKind;
use brolga_ir::ops::AttrKind;

/// What an argument of a function or predicate is, as far as a rule's text tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// A stream.
    Stream,
    /// A list of streams.
    List,
    /// Either.
    Streams,
    /// An integer.
    Int,
    /// `true` or `false`.
    Bool,
    /// Integers.
    Ints,
    /// Dims; integers are some.
    Dims,
    /// Integers or dims.
    Entries,
    /// A number; a stream that is one everywhere stands for it, too.
    Num,
    /// An element type.
    DType,
    /// A keyword.
    Word,
    /// A graph or a layout, which no function takes.
    Other,
}

impl Sort {
    /// Whether what is of another sort may stand here.
    pub fn accepts(self, found: Sort) -> bool {
        use Sort::*;
        self == found
            || match self {
                Streams => matches!(found, Stream | List),
                Ints => found == Entries,
                Dims | Entries => matches!(found, Ints | Dims | Entries),
                Num => matches!(found, Int | Stream),
                _ => false,
            }
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Stream => "a stream",
            Sort::List => "a list of streams",
            Sort::Streams => "a stream or a list of streams",
            Sort::Int => "an integer",
            Sort::Bool => "true or false",
            Sort::Ints => "integers such as [0 1]",
            Sort::Dims => "extents such as [2 3]",
            Sort::Entries => "integers or extents such as [0 1]",
            Sort::Num => "a number",
            Sort::DType => "a dtype",
            Sort::Word => "a keyword",
            Sort::Other => "a graph or a layout",
        }
    }
}

impl From<AttrKind> for Sort {
    fn from(kind: AttrKind) -> Sort {
        match kind {
            AttrKind::Int => Sort::Int,
            AttrKind::Bool => Sort::Bool,
            AttrKind::Ints => Sort::Ints,
            AttrKind::Dims => Sort::Dims,
            AttrKind::Num => Sort::Num,
            AttrKind::DType => Sort::DType,
            AttrKind::Word => Sort::Word,
            AttrKind::Region | AttrKind::Layout => Sort::Other,
        }
    }
}

impl From<VarKind> for Sort {
    fn from(kind: VarKind) -> Sort {
        match kind {
            VarKind::Stream => Sort::Stream,
            VarKind::List => Sort::List,
            VarKind::Attr(kind) => kind.into(),
        }
    }
}
