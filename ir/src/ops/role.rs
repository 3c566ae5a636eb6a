//! What an operator is to a kernel: the facts that fusion, lowering and the cost model ask of it.
//!
//! Every role carries what its lowering needs, so that an operator whose file forgets one does not compile. Index maps are
//! written over the point `at` of the result, one expression a dimension.

use super::{Combine, Op};
use crate::index::{Bound, Ix};
use crate::scalar::Function;
use crate::structured;
use crate::{Dim, Graph, Number, Type};
use std::fmt;

/// What an operator is to a kernel.
#[derive(Clone, Copy)]
pub enum Role {
    /// The cut between kernels.
    Store,
    /// Element-wise: a scalar function of its operands' elements at the same point.
    Map(&'static Function),
    /// An index map of its operand.
    Move(&'static dyn Movement),
    /// A row-major reshape: free on a tensor in memory, an index map with divisions on a stream.
    Reshape(&'static dyn Movement),
    /// A value made of indices only.
    Source(&'static dyn Source),
    /// Reads its first operand at positions that its second holds.
    Gather(&'static dyn Gather),
    /// Reduces rows: all elements along some axes.
    Rows(&'static dyn Rows),
    /// Reduces windows of its operand.
    Window(&'static dyn Window),
    /// Sums products of two operands: a contraction or convolution.
    Contract(&'static dyn Products),
    /// Put together in memory by several stages, and stored at once.
    Assemble(&'static dyn Assemble),
    /// Decomposed into others before kernels are formed.
    Composite,
    /// A tree of stages that it brings along, over tensors and what moves their elements, stored at once.
    Tree(&'static dyn TreeKernel),
    /// A kernel of its own, over tensors in memory in any layout.
    Own(&'static dyn OwnKernel),
    /// No kernel is worth writing for it: it runs as its reference evaluation.
    Host,
    /// It runs regions: steps of the program that are taken or repeated.
    Region(&'static dyn Control),
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Store => "store",
            Role::Map(_) => "map",
            Role::Move(_) => "move",
            Role::Reshape(_) => "reshape",
            Role::Source(_) => "source",
            Role::Gather(_) => "gather",
            Role::Rows(_) => "rows",
            Role::Window(_) => "window",
            Role::Contract(_) => "contract",
            Role::Assemble(_) => "assemble",
            Role::Composite => "composite",
            Role::Tree(_) => "tree",
            Role::Own(_) => "own",
            Role::Host => "host",
            Role::Region(_) => "region",
        })
    }
}

impl Role {
    /// The index map of a movement or reshape.
    pub fn movement(self) -> Option<&'static dyn Movement> {
        match self {
            Role::Move(m) | Role::Reshape(m) => Some(m),
            _ => None,
        }
    }
    /// The scalar function of an element-wise operator.
    pub fn function(self) -> Option<&'static Function> {
        match self {
            Role::Map(f) => Some(f),
            _ => None,
        }
    }
    /// True when it is no part of a kernel: a step of its own, over tensors in memory.
    pub fn is_step(self) -> bool {
        match self {
            Role::Own(own) => !own.is_fused(),
            _ => self.is_opaque(),
        }
    }
    /// True when nothing looks inside: it has a kernel of its own, its reference evaluation or regions.
    pub fn is_opaque(self) -> bool {
        matches!(self, Role::Own(_) | Role::Host | Role::Region(_))
    }
    /// True when lowering has a kernel for it, and needs no decomposition.
    pub fn brings_kernel(self) -> bool {
        self.is_opaque() || matches!(self, Role::Tree(_))
    }
    /// True when every element of the result is an element of an operand, unchanged, or a fill.
    pub fn only_moves(self) -> bool {
        match self {
            Role::Store | Role::Move(_) | Role::Reshape(_) | Role::Gather(_) => true,
            Role::Assemble(a) => a.only_moves(),
            _ => false,
        }
    }
    /// True when it takes elements of any type, since it moves them, or says itself of which types it computes.
    pub fn stores_only(self) -> bool {
        self.only_moves() || matches!(self, Role::Map(_) | Role::Region(_))
    }
    /// True when it may be given strings: what only moves, and what says itself what it takes.
    pub fn takes_strings(self) -> bool {
        self.only_moves() || matches!(self, Role::Map(_) | Role::Region(_) | Role::Host)
    }
    /// True when the result holds all operands as they are, and fills: who computes one can do so in the result.
    pub fn embeds(self, op: &Op) -> bool {
        match self {
            Role::Move(m) => m.embeds(op),
            Role::Assemble(a) => a.embeds(),
            _ => false,
        }
    }
    /// True when every element of the result is one of the first operand's.
    pub fn keeps_signs(self) -> bool {
        self.keeps_splat() || matches!(self, Role::Gather(_) | Role::Store)
    }
    /// True when the result has one value everywhere where the operand has.
    pub fn keeps_splat(self) -> bool {
        self.movement().is_some_and(|m| !m.fills())
    }
}

/// Where an operand is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// One index expression a dimension of the operand.
    pub at: Vec<Ix>,
    /// Where these do not hold, there is no such element.
    pub guard: Vec<Bound>,
}

impl Access {
    /// A read that is never out of bounds.
    pub fn of(at: Vec<Ix>) -> Access {
        Access { at, guard: vec![] }
    }
}

/// A movement of one operand.
pub trait Movement: Sync {
    /// Where the element of the result at a point comes from; what is not there is filled.
    fn source(&self, op: &Op, from: &Type, to: &Type, at: &[Ix]) -> Access;
    /// True when consecutive elements of the result are not so in the operand.
    fn strides(&self, op: &Op, from: &Type) -> bool {
        let _ = (op, from);
        false
    }
    /// True when a result may have elements that are not the operand's.
    fn fills(&self) -> bool {
        false
    }
    /// The elements that are not the operand's.
    fn fill(&self, op: &Op) -> Number {
        let _ = op;
        Number::Int(0)
    }
    /// For a transpose: the axis of the operand that each axis of the result is.
    fn permutation(&self, op: &Op) -> Option<Vec<usize>> {
        let _ = op;
        None
    }
    /// True when elements of the operand are repeated, so that the result in memory is only larger.
    fn spreads(&self) -> bool {
        false
    }
    /// True when the result holds the operand, with fills around it: who computes the operand can do so in the result.
    fn embeds(&self, op: &Op) -> bool {
        let _ = op;
        false
    }
}

/// A value made of indices and dims only.
pub trait Source: Sync {
    /// The element at a point: that of the first alternative whose bound holds, which the last one's always does.
    fn element(&self, op: &Op, at: &[Ix]) -> Vec<(Option<Bound>, Ix)>;
    /// True when reading it from memory is worth no array: an index is at hand wherever it is read.
    fn is_index(&self) -> bool;
}

/// A coordinate in the operand of a gather, or in the result of a scatter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Coordinate {
    /// An expression of the point.
    At(Ix),
    /// What the indices hold at this point of theirs.
    Indexed(Vec<Ix>),
}

/// Reads at positions that come from data.
pub trait Gather: Sync {
    /// Where the element at a point is read in the first operand, one coordinate a dimension; the second one holds the
    /// indices.
    ///
    /// # Errors
    /// When the number of coordinates is not known.
    fn coordinates(&self, op: &Op, inputs: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String>;
}

/// What a reduction of rows keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merge {
    /// The elements combined.
    Fold(Combine),
    /// The position along the only axis of the largest (or smallest) element, the first such or the last.
    Position {
        /// Of the largest.
        max: bool,
        /// Of equal ones the last.
        last: bool,
    },
}

/// A reduction of all elements along some axes.
pub trait Rows: Sync {
    /// The axes of the operand that are reduced.
    fn axes(&self, op: &Op, operand: &Type) -> Vec<usize>;
    /// What is kept; `None` for an operator that is decomposed into such reductions.
    fn merge(&self, op: &Op) -> Option<Merge>;
    /// Arithmetic operations on an element of the operand.
    fn operations(&self) -> f64;
}

/// Facts of an operator over windows that decide how fast its loops are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowShape {
    /// Some taps may be out of bounds.
    pub padded: bool,
    /// How channels take part.
    pub channels: Channels,
}

/// Which channels a window operator reads for one of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channels {
    /// All.
    All,
    /// Those of its group.
    Group,
    /// One.
    One,
}

/// A reduction of windows of one operand.
pub trait Window: Sync {
    /// The extents of a window.
    fn extents(&self, op: &Op) -> Vec<Dim>;
    /// Where the operand is read for a point of the result (variables from 0) and a tap (variables from the result's rank).
    fn access(&self, op: &Op, operand: &Type, out: &Type) -> Access;
    /// How taps are combined.
    fn combine(&self, op: &Op) -> Combine;
    /// What decides how fast it is.
    fn shape(&self, op: &Op) -> WindowShape;
}

/// Both sides of a sum of products.
pub struct Sides {
    /// Where the operands are read for a point of the result (variables from 0) and a term (variables from the result's
    /// rank).
    pub reads: [Access; 2],
    /// The extents of the terms.
    pub extents: Vec<Dim>,
}

/// A sum of products of two operands.
pub trait Products: Sync {
    /// The reads and the terms.
    fn sides(&self, op: &Op, inputs: &[Type], out: &Type) -> Sides;
    /// The number of products in one sum.
    fn depth(&self, op: &Op, inputs: &[Type]) -> Dim;
    /// What decides how fast it is, for one over windows; `None` for a matrix product.
    fn window(&self, op: &Op, inputs: &[Type]) -> Option<WindowShape>;
}

/// How a result is put together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Assembly {
    /// The operands behind each other along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Running combinations along an axis.
    Scan {
        /// The axis.
        axis: usize,
        /// How elements are combined.
        combine: Combine,
        /// An element is not part of its own result.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    },
    /// The first operand, with the elements of the third put at positions that the second holds.
    Scatter {
        /// How an element is combined with what was there; `None` replaces it.
        combine: Option<Combine>,
    },
}

/// An operator whose result is put together in memory.
pub trait Assemble: Sync {
    /// How.
    fn assembly(&self, op: &Op) -> Assembly;
    /// Where the element of a scatter's updates at a point goes, one coordinate a dimension of the result.
    ///
    /// # Errors
    /// When the number of coordinates is not known.
    fn coordinates(&self, op: &Op, inputs: &[Type], at: &[Ix]) -> Result<Vec<Coordinate>, String> {
        let _ = (op, inputs);
        Ok(at.iter().cloned().map(Coordinate::At).collect())
    }
    /// True when every element of the result is an element of an operand.
    fn only_moves(&self) -> bool {
        false
    }
    /// True when the result holds all operands as they are: who computes one can do so in the result.
    fn embeds(&self) -> bool {
        false
    }
}

/// A kernel that an operator brings along.
pub struct OwnStages {
    /// The kernel: operands that are read, then the results, in order. It has no name, and no symbols yet.
    pub kernel: structured::Kernel,
    /// Which of the operator's operands each operand that is read is; one may be several.
    pub operands: Vec<usize>,
}

/// What a kernel that an operator brings along does.
pub struct OwnWork {
    /// Products that register tiles add up.
    pub products: Dim,
    /// Cycles of arithmetic beside these, were it done on vectors of 128 bits.
    pub cycles: Dim,
}

/// An operator that brings its kernel along. Index maps are logical, so that operands lie as their makers and the costs of reading
/// them have it: a stage reads well along its innermost dimension.
pub trait OwnKernel: Sync {
    /// The kernel for operands and results of these types.
    ///
    /// # Errors
    /// When the attributes do not fit.
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String>;
    /// True for an operator of one result that the last stage alone writes: what is element-wise behind it joins that stage, and
    /// where it has a decomposition too, costs decide.
    fn is_fused(&self) -> bool {
        false
    }
    /// What its first stage reads windows of, for one over images; see [`Products::window`].
    fn window(&self, op: &Op, inputs: &[Type]) -> Option<WindowShape> {
        let _ = (op, inputs);
        None
    }
    /// What the kernel does; asked of an operator that is fused.
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork {
        let _ = (op, inputs);
        OwnWork {
            products: Dim::ZERO,
            cycles: Dim::ZERO,
        }
    }
}

/// An operator whose kernel is a tree of stages. Its decomposition may be faster: costs decide.
pub trait TreeKernel: Sync {
    /// The kernel: one operand that is read for each of the operator's, and the result's. It has no name, and no symbols yet.
    ///
    /// # Errors
    /// When the attributes do not fit.
    fn kernel(&self, op: &Op, inputs: &[Type], result: &Type) -> Result<structured::Kernel, String>;
    /// What the kernel does.
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork;
    /// Whether elements of an operand may be computed of others where they are read: their prologue.
    fn may_compute(&self, operand: usize) -> bool {
        let _ = operand;
        false
    }
}

/// How an operator runs its regions.
#[derive(Clone, Copy)]
pub enum Regions<'o> {
    /// One of two, by the first operand; both take the others.
    Choose {
        /// Where it is true.
        then: &'o Graph,
        /// Where it is not.
        other: &'o Graph,
    },
    /// One again and again, as long as the other gives true: both take the state, which starts as the first operands and
    /// is in the end the results, and then the other operands.
    Repeat {
        /// Whether to go on.
        cond: &'o Graph,
        /// The next state.
        body: &'o Graph,
    },
}

/// An operator with regions.
pub trait Control: Sync {
    /// Its regions, and how they run.
    fn regions<'o>(&self, op: &'o Op) -> Regions<'o>;
}
