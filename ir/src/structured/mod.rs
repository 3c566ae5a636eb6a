//! Level 2: structured ops and kernels, one form for maps, reductions, contractions, convolutions and pooling (as
//! `linalg.generic` in MLIR): an iteration domain, operands with index maps, a scalar body, a combiner.
//!
//! A [`Kernel`] is a tree of [`Part`]s that share outer parallel dimensions: [`Stage`]s, and [`Loop`]s that run their parts
//! again and again, in order. Intermediate values stay in [`Local`]s, one scalar or small tile for each point of the outer
//! domain; they live across the iterations of a loop, which is how one hands something to the next. Movement operators have
//! vanished into index maps.
//!
//! Invariants (checked by `verify`): index maps have one expression per dimension of what they index; a stage reads only
//! operands and locals written by earlier stages (not by a loop alone, which may run no iteration), and what it writes itself
//! only where it writes it; a body's inputs are the stage's reads, in order; the parallel part of a write map is injective
//! where [`Stage::scatter`] is false; every point of every `out` operand is written.
//!
//! ```text
//! kernel @dense(o0: f32[64, 784] in, o1: f32[784, 512] in, o2: f32[512] in, o3: f32[64, 512] out) outer(64, 512) {
//!   local l0: f32[]
//!   stage reduce(784) {                       // i0, i1 are the outer dims, i2 the reduction
//!     read o0[i0, i2]
//!     read o1[i2, i1]
//!     body (v0: f32, v1: f32) { v2 = mul v0 v1 } -> v2
//!     combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
//!       merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
//!     write l0[]
//!   }
//!   stage { read l0[] … }
//! }
//!
//! kernel @recurrence(o0: f32[8, 3, 16] in, o1: f32[16, 16] in, o2: f32[8, 3, 16] out) outer(3) {
//!   local l0: f32[16]                         // h, the state of a row of the batch
//!   local l1: f32[16]
//!   stage parallel(16) { … write l0[i1] }     // h = 0
//!   loop(8) {                                 // i1 counts its iterations, the dims of the stages inside come after it
//!     stage parallel(16) reduce(16) { read l0[i3] read o1[i2, i3] … write l1[i2] }
//!     stage parallel(16) { read l1[i2] read o0[i1, i0, i2] … write l0[i2] write o2[i1, i0, i2] }
//!   }
//! }
//! ```
//!
//! The module `text` describes the text form, [`interp`] what a kernel means in every detail.

pub mod blocks;
pub mod build;
mod canonical;
pub mod interp;
mod overwrite;
#[cfg(test)]
mod tests;
mod text;
mod verify;

use crate::index::{Bound, Ix};
use crate::scalar::Body;
use crate::schedule::Schedule;
use crate::{DType, Dim, Layout, Number, Symbol, Type};

/// The direction of a kernel operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Read only.
    In,
    /// Written; may be read back by later stages of the same kernel at the same index.
    Out,
    /// Written in part: what no stage writes stays as it was (a piece of a concatenation, a scatter over its operand).
    Part,
}

/// A tensor in memory. Printed `o0`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    /// Type.
    pub ty: Type,
    /// Direction.
    pub role: Role,
    /// How its elements lie in memory.
    pub layout: Layout,
}

/// A value for each point of the outer domain, kept near: a scalar, or a tile over inner extents. Printed `l0`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Local {
    /// Element type.
    pub dtype: DType,
    /// Inner extents; empty for a scalar.
    pub shape: Vec<Dim>,
}

/// What a read or write touches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// A kernel operand.
    Operand(u32),
    /// A kernel-local value.
    Local(u32),
}

/// One input of a stage's body.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Read {
    /// An element.
    Element {
        /// Where from.
        place: Place,
        /// One index a dimension. A `Reg(k)` in it is the value of read `k` of this stage (k smaller; an i64), which is
        /// how a gather is written.
        map: Vec<Ix>,
        /// In-bounds conditions; when one fails the value is `fill`, and nothing is read.
        guard: Vec<Bound>,
        /// The value out of bounds, as bits of the place's dtype, zero-extended.
        fill: u64,
    },
    /// The value of an index expression, as i64.
    Index(Ix),
    /// Whether an index is in bounds, as bool.
    InBounds(Vec<Bound>),
    /// A function of earlier reads (an index that is computed from data); the body has one output.
    Computed(Body, Vec<u32>),
}

/// What must hold of an index that comes from data; where it does not, the kernel reports the check's number and its
/// results are unspecified. A check guards no access: those clamp, or drop what they would write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Check {
    /// Its number among the kernel's: the node that it belongs to, as the call lists them. Several checks may share one.
    pub number: u32,
    /// What must hold; a `Reg(k)` is the value of read `k` of this stage.
    pub bounds: Vec<Bound>,
    /// Where one of these fails, nothing is checked.
    pub guard: Vec<Bound>,
}

/// How values over reduction dimensions are merged into accumulators.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Combine {
    /// Initial accumulators, as bits of their dtypes, zero-extended.
    pub init: Vec<u64>,
    /// `(accumulators…, values…) -> accumulators…`.
    pub body: Body,
    /// True when the order of merging is free (so that partial accumulators may be used and merged with [`Combine::merge`]).
    pub free: bool,
    /// `(accumulators…, accumulators…) -> accumulators…`: merges two partial results.
    pub merge: Body,
}

/// Whether a dimension's points are independent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IterKind {
    /// Independent points.
    Parallel,
    /// Merged by the stage's combiner, or (in a scan) visited in order.
    Reduction,
}

/// One inner iteration dimension of a stage.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IterDim {
    /// Number of points.
    pub extent: Dim,
    /// Its kind.
    pub kind: IterKind,
}

/// A structured op. Variables `i0…` are the kernel's outer dimensions, then the iterations of the loops around the stage,
/// outermost first, then the stage's own dimensions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stage {
    /// Inner dimensions.
    pub dims: Vec<IterDim>,
    /// Where one of these does not hold, there is no such point: a domain that is shorter at some outer points than at others, as the
    /// last tile of a tensor is.
    pub guard: Vec<Bound>,
    /// The body's inputs.
    pub reads: Vec<Read>,
    /// What is checked at every point, before anything is written there.
    pub checks: Vec<Check>,
    /// Computes the values from the reads.
    pub body: Body,
    /// Merges over the reduction dimensions; `None` when there are none.
    pub combine: Option<Combine>,
    /// One place for each output of the body (or accumulator), with its index map, over parallel variables only (for a
    /// scatter, also `Reg(k)` for read `k`).
    pub writes: Vec<(Place, Vec<Ix>)>,
    /// True when reduction dimensions are visited in order and the accumulators are written at every point (after
    /// merging; the write maps may then use the reduction variables): a scan.
    pub scan: bool,
    /// True when write indices come from data: points are visited in order, writes whose index is out of bounds are
    /// dropped, and a later write wins. A scatter may read what it writes (guarded where an index may be out of bounds),
    /// and sees what earlier points wrote.
    pub scatter: bool,
}

/// One node of a kernel's tree.
#[expect(clippy::large_enum_variant, reason = "nearly every part is a stage")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// A structured op.
    Stage(Stage),
    /// Parts that are run again and again.
    Loop(Loop),
}

/// Parts that run, in order, for each of `extent` iterations, one iteration after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Loop {
    /// The number of iterations.
    pub extent: Dim,
    /// Over outer variables and those of loops, this one's last: where one of these does not hold, an iteration changes nothing that is
    /// read later, and may be left out. Whoever makes the kernel promises it; the interpreter leaves none out.
    pub needed: Vec<Bound>,
    /// What runs in each.
    pub body: Vec<Part>,
}

/// Stages and loops that share outer parallel dimensions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// A name, unique in the program.
    pub name: String,
    /// The symbols that dims use.
    pub symbols: Vec<Symbol>,
    /// Tensors in memory.
    pub operands: Vec<Operand>,
    /// Values kept near.
    pub locals: Vec<Local>,
    /// Extents of the outer parallel dimensions `i0…`.
    pub outer: Vec<Dim>,
    /// How it becomes loops; `None` leaves that to the compiler. It changes nothing of what the kernel means.
    pub schedule: Option<Schedule>,
    /// Stages and loops, in order; for each point of the outer domain they run one after the other.
    pub parts: Vec<Part>,
}

impl Operand {
    /// The number of elements that its memory holds.
    pub fn elements(&self) -> Dim {
        self.layout.elements(&self.ty.shape)
    }
}

impl Kernel {
    /// A kernel that nothing is known of but the tensors that it reads and writes, whose elements lie in rows.
    pub fn of<'t>(read: impl IntoIterator<Item = &'t Type>, written: impl IntoIterator<Item = &'t Type>) -> Kernel {
        let operand = |role| {
            move |ty: &Type| Operand {
                ty: ty.clone(),
                role,
                layout: Layout::ROW_MAJOR,
            }
        };
        let read = read.into_iter().map(operand(Role::In));
        let written = written.into_iter().map(operand(Role::Out));
        Kernel {
            name: String::new(),
            symbols: vec![],
            operands: read.chain(written).collect(),
            locals: vec![],
            outer: vec![],
            schedule: None,
            parts: vec![],
        }
    }

    /// How many numbers the checks of all stages have.
    pub fn checks(&self) -> u32 {
        let stages = self.stages();
        let numbers = stages.iter().flat_map(|s| &s.checks).map(|c| c.number + 1);
        numbers.max().unwrap_or(0)
    }

    /// All stages in the order of the text, those of loops included.
    pub fn stages(&self) -> Vec<&Stage> {
        self.placed().into_iter().map(|(s, _)| s).collect()
    }

    /// All stages in the order of the text, each with the extents of the loops around it, outermost first.
    pub fn placed(&self) -> Vec<(&Stage, Vec<&Dim>)> {
        fn collect<'k>(parts: &'k [Part], around: &mut Vec<&'k Dim>, out: &mut Vec<(&'k Stage, Vec<&'k Dim>)>) {
            for p in parts {
                match p {
                    Part::Stage(s) => out.push((s, around.clone())),
                    Part::Loop(l) => {
                        around.push(&l.extent);
                        collect(&l.body, around, out);
                        around.pop();
                    }
                }
            }
        }
        let mut out = vec![];
        collect(&self.parts, &mut vec![], &mut out);
        out
    }

    /// Calls `f` with every stage in the order of the text.
    pub fn for_each_stage_mut(&mut self, f: &mut dyn FnMut(&mut Stage)) {
        fn each(parts: &mut [Part], f: &mut dyn FnMut(&mut Stage)) {
            for p in parts {
                match p {
                    Part::Stage(s) => f(s),
                    Part::Loop(l) => each(&mut l.body, f),
                }
            }
        }
        each(&mut self.parts, f);
    }

    /// The stages of a kernel without loops.
    pub fn list(&self) -> Option<Vec<&Stage>> {
        let stages = self.parts.iter().map(|p| match p {
            Part::Stage(s) => Some(s),
            Part::Loop(_) => None,
        });
        stages.collect()
    }
}

/// A scalar as the bits that [`Read`] and [`Combine`] hold.
pub fn bits(dtype: DType, x: Number) -> u64 {
    let mut b = [0u8; 8];
    crate::encode(dtype, x, &mut b[..dtype.bytes()]);
    u64::from_le_bytes(b)
}
