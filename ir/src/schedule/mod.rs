//! Schedules: how a structured kernel becomes loop nests, as data.
//!
//! A schedule says everything that may be decided about a kernel's loops and nothing about what the kernel means: any legal
//! schedule gives the same results (a sum in another order gives them up to rounding). `brolga-passes` chooses schedules,
//! lists the legal ones and applies them; a structured kernel may carry the one that it is to get
//! ([`crate::structured::Kernel::schedule`]), so that what was chosen or tuned is replayed from text.
//!
//! Schedules speak of the *flat* kernel: outer dimensions of extent 1 are gone and those that stride as one are merged, so
//! "outer dimension 0" is the first that is left.
//!
//! ```text
//! tile{left=0, rows=14, order=panel, lanes=16, direct=true, ahead=false, pairs=false, resident=0, grain=40000, unroll=48, constants=8}
//! points{along=1, lanes=16, outside=1, chunk=0, across=0, inline=[], grain=40000, unroll=48, constants=8}
//! rows{lanes=8, outside=1, inline=[l1], grain=40000, unroll=48, constants=8}
//! tree{rows=14, stages=[tile, 8, 16], grain=40000, unroll=48, constants=8}
//! tree{rows=1, stages=[16, shared, 16], grain=40000, unroll=48, constants=8}
//! in-order{unroll=48, constants=8}
//! copy{grain=40000}
//! split{copy{grain=40000}, points{…}}
//! versions{points{…}, points{…}}
//! gpu-tile{left=0, rows=64, columns=64, depth=16, row-threads=16, column-threads=16}
//! gpu-points{threads=256, inline=[]}
//! gpu-rows{lanes=128, slots=1, inline=[l0]}
//! gpu-in-order{}
//! ```

mod text;

use std::sync::Arc;

/// How a kernel becomes loops. The module's header shows the text of each.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Schedule {
    /// A contraction on register tiles.
    Tile(Tile),
    /// Points of the outer domain, vectors of them side by side; what a point reduces or scans is done in order.
    Points(Points),
    /// Rows: vectors along the innermost dimension of every stage.
    Rows(Rows),
    /// The kernel's tree as it is, for some points of the innermost outer dimension together: each stage on register tiles, or
    /// on vectors point by point.
    Tree(Tree),
    /// A scatter: every point in order, in one task.
    InOrder(InOrder),
    /// A stage that only copies rows of memory: no kernel, a step of the program.
    Copy(Copy),
    /// Stages that share nothing become kernels of their own, one schedule each.
    Split(Vec<Schedule>),
    /// Two versions of a kernel, of which a run takes one. Where reads are stretched by a broadcast in some runs only: one for runs where none
    /// is, and one for the others. Of a tree: one for runs with few points for its tiles, and one for the others.
    Versions(Box<[Schedule; 2]>),
    /// A contraction on block tiles of a GPU.
    GpuTile(GpuTile),
    /// A point of the outer domain a thread.
    GpuPoints(GpuPoints),
    /// A row of the outer domain for a team of threads.
    GpuRows(GpuRows),
    /// A scatter on a GPU: one thread.
    GpuInOrder(GpuInOrder),
}

impl Schedule {
    /// The knobs of a kernel for a CPU.
    pub fn knobs_mut(&mut self) -> Option<&mut Knobs> {
        match self {
            Schedule::Tile(t) => Some(&mut t.knobs),
            Schedule::Points(p) => Some(&mut p.knobs),
            Schedule::Rows(r) => Some(&mut r.knobs),
            Schedule::Tree(s) => Some(&mut s.knobs),
            Schedule::InOrder(s) => Some(&mut s.knobs),
            Schedule::Copy(_) | Schedule::Split(_) | Schedule::Versions(_) => None,
            Schedule::GpuTile(_) | Schedule::GpuPoints(_) | Schedule::GpuRows(_) | Schedule::GpuInOrder(_) => None,
        }
    }
}

/// What is settled of the statements of a CPU kernel when its nest stands, as named numbers in the order in which they are
/// applied. Which knobs there are, and what each does, the passes know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Knobs(pub Vec<(Arc<str>, i64)>);

/// The order in which a contraction's tiles are visited.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// All panels for one group of rows: the right operand stays in cache.
    Panel,
    /// All rows for one panel: a panel stays in cache.
    Row,
}

/// See [`Schedule::Tile`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    /// Which of the product's two reads is the left operand; the other is packed.
    pub left: i64,
    /// Rows of a tile.
    pub rows: i64,
    /// What is visited innermost.
    pub order: Order,
    /// Lanes of the epilogue's vectors.
    pub lanes: i64,
    /// Whether tiles write the result themselves, without an epilogue.
    pub direct: bool,
    /// Whether tiles that read the same panel one after the other fetch the next one meanwhile.
    pub ahead: bool,
    /// Whether steps of bf16 are summed by pairs ([`TileKind::Bf16Pairs`](crate::TileKind::Bf16Pairs)).
    pub pairs: bool,
    /// Of [`Order::Row`]: about how many rows of the left operand are to stay in L2 while all panels pass, before the next ones; 0: all.
    pub resident: i64,
    /// The rest.
    pub knobs: Knobs,
}

/// See [`Schedule::Points`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Points {
    /// The outer dimension that lanes run along.
    pub along: i64,
    /// Points of a vector.
    pub lanes: i64,
    /// How many of the other outer dimensions the parallel loop takes; the rest run inside it.
    pub outside: i64,
    /// Points of the vectors' dimension that one task takes; 0 does not cut it.
    pub chunk: i64,
    /// How many points of the innermost of the dimensions that run inside are computed side by side, in a loop within that over
    /// the vectors, so that what only the vectors move is read once for all of them; 0 leaves that loop outside.
    pub across: i64,
    /// Locals that are computed again wherever they are read.
    pub inline: Vec<u32>,
    /// The rest.
    pub knobs: Knobs,
}

/// See [`Schedule::Rows`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rows {
    /// Elements of a vector.
    pub lanes: i64,
    /// How many of the outer dimensions the parallel loop takes; the rest run inside it.
    pub outside: i64,
    /// Locals that are computed again wherever they are read.
    pub inline: Vec<u32>,
    /// The rest.
    pub knobs: Knobs,
}

/// See [`Schedule::Tree`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tree {
    /// Points of the innermost outer dimension that go through the tree together: the rows of its tiles. With 1 it is a
    /// dimension like the others.
    pub rows: i64,
    /// How each stage runs, in the order of the text.
    pub stages: Vec<Way>,
    /// The rest.
    pub knobs: Knobs,
}

/// How a stage of a tree runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// On register tiles, its right operand in panels.
    Tile,
    /// The same, and the workers share its columns: the tree runs on one thread but for such stages.
    Shared,
    /// Point by point, on vectors of so many lanes along its innermost dimension.
    Lanes(i64),
    /// What tiles do, with the same bits, point by point: its right operand is read where it lies, so many columns at once.
    Columns(i64),
}

/// See [`Schedule::InOrder`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InOrder {
    /// The rest; there is no parallel loop.
    pub knobs: Knobs,
}

/// See [`Schedule::Copy`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Copy {
    /// Cycles of work from which on the workers copy.
    pub grain: i64,
}

/// See [`Schedule::GpuTile`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GpuTile {
    /// Which of the product's two reads is the left operand.
    pub left: i64,
    /// Rows that a block computes.
    pub rows: i64,
    /// Columns that a block computes.
    pub columns: i64,
    /// Steps of the sum that are staged in shared memory at once.
    pub depth: i64,
    /// Threads along the rows; each computes `rows / row_threads` of them.
    pub row_threads: i64,
    /// Threads along the columns.
    pub column_threads: i64,
}

/// See [`Schedule::GpuPoints`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GpuPoints {
    /// Threads of a block.
    pub threads: i64,
    /// Locals that are computed again wherever they are read.
    pub inline: Vec<u32>,
}

/// See [`Schedule::GpuRows`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GpuRows {
    /// Threads of a row, a power of two.
    pub lanes: i64,
    /// Rows of a block.
    pub slots: i64,
    /// Locals that are computed again wherever they are read; the others that are rows stand in shared memory.
    pub inline: Vec<u32>,
}

/// See [`Schedule::GpuInOrder`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GpuInOrder;
