//! Level 3: loop nests over buffers.
//!
//! A [`Kernel`] is one function: buffers, registers, statements. Loops carry a [`LoopKind`], which is how a schedule shows:
//! `parallel` (CPU workers; its [`Grain`] says from when on), `vector` (lanes in lockstep), `serial`, `unrolled`,
//! and the GPU kinds `block` and `thread`. [`Tile`] is a register-tile contraction.
//!
//! Meaning, as the interpreter defines it:
//! - A register holds one value of its dtype. Assigned inside a vector loop it has one value **per lane**; a register with
//!   [`RegInfo::lanes`] > 1 that is assigned outside has its lanes kept, and inside a vector loop of that many lanes each
//!   lane reads and writes its own ([`Expr::Lane`] picks one afterwards). Statements of a vector loop run lane by lane
//!   in lockstep, one statement after the other.
//! - Registers may be assigned again (accumulators). A register is assigned before it is read on every path.
//! - On a GPU every thread of every block runs the whole body, as the hardware does; a `block` or `thread` loop gives it
//!   its own coordinate. At a barrier it waits for the others of its block; two threads that touch one element between two
//!   barriers (or in two blocks), one of them writing, are a race, which the interpreter reports. The same holds for two
//!   iterations of a parallel loop.
//! - A kernel has one parallel loop, outermost, or it *forks*: parallel loops stand inside of serial ones, one after the other. Such a
//!   kernel runs on the thread that calls it, each parallel loop on all workers, and what stands behind it runs when all its iterations
//!   have. What a step computes for the next one lies in memory of the kernel ([`Scope::Kernel`]).
//! - Loads and stores are in bounds; a guarded load that fails its guard reads nothing and gives the fill value.
//!
//! Invariants (checked by `verify`): variables and registers are defined before use; no `parallel` loop stands inside of another;
//! vector loops have a constant extent of at most 64 and contain no loops, branches, barriers or tiles; stores go to
//! written buffers only. The module `verify` lists what else makes a kernel mean one thing.
//!
//! ```text
//! loops @add_relu(b0: f32[n] in, b1: f32[n] in, b2: f32[n] out) symbols(n) {
//!   for i0 parallel 0..floordiv(n, 16) {
//!     for i1 vector 0..16 {
//!       r0: f32 = load b0[16*i0 + i1]
//!       r1: f32 = load b1[16*i0 + i1]
//!       r2: f32 = add r0 r1
//!       …
//! ```

pub mod interp;
mod moves;
mod overwrite;
mod steer;
pub(crate) mod text;
pub(crate) mod verify;
mod visit;

use crate::index::{Bound, Ix, Reg, Var};
use crate::scalar::Prim;
use crate::{DType, Dim, Symbol, TileKind};
use std::fmt;

pub use moves::Moves;
pub use visit::{for_each_dim_mut, visit, visit_indices, visit_sets};

/// The id of a buffer, printed `b3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Buf(pub u32);

impl fmt::Display for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}
impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a buffer lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// A parameter that is only read.
    In,
    /// A parameter that is written (and may be read back).
    Out,
    /// Scratch of the worker that runs the iteration (CPU), 64-byte aligned; contents do not outlive one iteration of
    /// the parallel loop.
    Worker,
    /// Scratch of a kernel that forks, which all its workers see, 64-byte aligned; contents do not outlive a call of the kernel.
    Kernel,
    /// Shared memory of a GPU block; constant length.
    Shared,
    /// Private to a GPU thread (or a CPU stack slot); constant length.
    Private,
}

/// A buffer: a flat array of elements.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub len: Dim,
    /// Where it lives; parameters come first.
    pub scope: Scope,
}

/// Columns of a panel: how a right operand lies in memory that a [`Tile`] reads, `[batch…, ceil(N/32), K, 32]` or, where steps
/// are interleaved, `[batch…, ceil(N/32), ceil(K/4), 32, 4]`, whatever the target. Everything that knows panels reads this number.
pub const PANEL: i64 = 32;

/// Steps of a block that has a scale, in tiles of such ([`Scales`]).
pub const BLOCK: i64 = 32;

/// The most columns of a [`Tile`] of one row: whole panels, side by side. A row of one panel has too few sums to hide how long an
/// addition takes.
pub const WIDEST: i64 = 4 * PANEL;

/// From when on the workers of a pool are woken for a loop, which costs some microseconds, and how each goes through its iterations.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Grain {
    /// About how many cycles all iterations take.
    pub work: Dim,
    /// With less work than this all iterations run on the calling thread.
    pub least: i64,
    /// A variable of a loop around: where it is odd, a worker had better take its iterations from the last one on, so that what it read
    /// last in one round is what it reads first in the next, from its cache.
    pub turn: Option<Var>,
}

impl Grain {
    /// Worth it whenever there are two iterations.
    pub const ALWAYS: Grain = Grain {
        work: Dim::ZERO,
        least: 0,
        turn: None,
    };
}

/// How a loop's iterations run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LoopKind {
    /// One after the other.
    Serial,
    /// On the workers of a pool, in any order.
    Parallel(Grain),
    /// In lockstep, as the lanes of vector registers.
    Vector,
    /// One after the other, with the body repeated in code; constant extent.
    Unrolled,
    /// A GPU grid dimension (0 = x, 1 = y, 2 = z).
    Block(u8),
    /// A GPU block dimension; constant extent.
    Thread(u8),
}

/// A register's type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegInfo {
    /// Element type; f16 and bf16 only between a load and a cast, or a cast and a store.
    pub dtype: DType,
    /// 1, or the number of lanes kept across vector loops.
    pub lanes: u32,
}

/// What a register is assigned.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Expr {
    /// A constant's bits, zero-extended (on every lane).
    Const(u64),
    /// An element.
    Load {
        /// From where.
        buffer: Buf,
        /// Flat element index; `Reg` terms are i64 registers.
        index: Ix,
        /// In-bounds conditions, all of which must hold; else the value is `fill` and nothing is read.
        guard: Vec<Bound>,
        /// Bits of the value out of bounds.
        fill: u64,
    },
    /// The value of an index expression, i64.
    Index(Ix),
    /// Whether all bounds hold, bool.
    InBounds(Vec<Bound>),
    /// A primitive; unused operands repeat the first.
    Prim(Prim, [Reg; 3]),
    /// Another register's value.
    Copy(Reg),
    /// One lane of a register with lanes.
    Lane(Reg, u32),
}

/// A register-tile contraction: for `r < rows`, `j < cols`,
/// `C[c + r*c_row + j] (+)= Σ_{p < blocks[0].0} Σ_{q < blocks[1].0} Σ_{t < k}
/// A[a + p*blocks[0].1 + q*blocks[1].1 + r*a_row + t*a_k] * B[b + PANEL*((p*blocks[1].0 + q)*k + t) + j]`,
/// all indices in elements. Where the kind interleaves `s` steps of a panel, the sums over `t` are each filled up to whole groups of
/// them, and `B` is read at `b + PANEL*s*((p*blocks[1].0 + q)*ceil(k/s) + floor(t/s)) + s*j + t mod s`.
///
/// A tile of one row of floats may have the columns of several panels, each of which starts where the steps of the one before end.
///
/// A sum of floats is in f32, to which 16-bit operands are converted, with fused multiply-adds from 0 in the order of `p, q, t`; one
/// of integers is in i32 and wraps. With `accumulate`, what `C` held is added to it at the end.
///
/// Where the kind has scales, [`Scales`] says what is summed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    /// The dtypes of `A`, `B` and `C`, and how many steps of a panel are interleaved.
    pub kind: TileKind,
    /// Left operand.
    pub a: Buf,
    /// Its first element.
    pub a_index: Ix,
    /// Distance between rows.
    pub a_row: Ix,
    /// Distance between steps of the sum; 1 where steps are interleaved.
    pub a_k: Ix,
    /// The outer sums: how many, and the distance in `A`.
    pub blocks: [(Ix, Ix); 2],
    /// Steps of the innermost sum.
    pub k: Ix,
    /// Right operand, in panels of [`PANEL`] columns.
    pub b: Buf,
    /// Its first element.
    pub b_index: Ix,
    /// Result.
    pub c: Buf,
    /// Its first element.
    pub c_index: Ix,
    /// Distance between rows of the result.
    pub c_row: Ix,
    /// Rows, at most `max_rows`.
    pub rows: Ix,
    /// The largest number of rows that occurs.
    pub max_rows: u32,
    /// Columns, at most [`PANEL`]; or [`Tile::panels`] of them.
    pub cols: Ix,
    /// Adds to the result instead of replacing it.
    pub accumulate: bool,
    /// What it fetches for later tiles.
    pub ahead: Option<Ahead>,
    /// The scales, of a kind that has some.
    pub scales: Option<Box<Scales>>,
}

/// Scales of a tile's blocks of [`BLOCK`] steps, which are contiguous in `A` and all in the innermost sum. With `S` the sum of a block's
/// products in i32, and rows and columns counted from the tile's first, the result is from 0 on, block by block,
/// `C = fma(f32(S + offset[r, block]), a[r, block] * b[block, j], C)`, then, where there are minima,
/// `C = fma(minimum[block, j], total[r, block], C)`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Scales {
    /// Of rows, f32: row `r` of a block at `a_index + r + block*a_block`.
    pub a: Buf,
    /// What is added to the sums, i32, at the same places.
    pub offset: Buf,
    /// Where those of the first row and block are.
    pub a_index: Ix,
    /// From a block to the next.
    pub a_block: Ix,
    /// Of columns, f16, in panels: column `j` of a block at `b_index + PANEL*block + j`.
    pub b: Buf,
    /// Where those of the first block are.
    pub b_index: Ix,
    /// What columns have added to each step's value.
    pub minima: Option<Minima>,
}

/// Minima of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Minima {
    /// Of columns, f16, at the places of their scales.
    pub b: Buf,
    /// The sum of a row's values in a block, f32, at the places of its scales.
    pub total: Buf,
}

impl Scales {
    /// Every buffer, with its element type and what it holds.
    pub fn buffers(&self) -> impl Iterator<Item = (Buf, DType, &'static str)> {
        let minima = self.minima.iter();
        let more = minima.flat_map(|m| [(m.b, DType::F16, "minima"), (m.total, DType::F32, "totals")]);
        [
            (self.a, DType::F32, "scales of rows"),
            (self.offset, DType::I32, "offsets"),
            (self.b, DType::F16, "scales of columns"),
        ]
        .into_iter()
        .chain(more)
    }
}

/// Tiles that read the same panel one after the other fetch the next panel meanwhile, each a part of it, so that it is in cache when
/// the first tile needs it. It changes no result, and may be left out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ahead {
    /// Which part.
    pub turn: Ix,
    /// Of how many.
    pub of: Ix,
}

impl Tile {
    /// The panels that are read: more than one in a tile of a single row of floats, whose columns are a constant number of whole panels.
    pub fn panels(&self) -> i64 {
        let whole = self.cols.as_const().filter(|n| n % PANEL == 0 && *n > PANEL);
        whole.map_or(1, |n| n / PANEL)
    }
    /// The most columns that such a tile may have.
    pub fn most_cols(&self) -> i64 {
        match self.max_rows {
            1 if self.kind.interleave() == 1 => WIDEST,
            _ => PANEL,
        }
    }
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stmt {
    /// `for var kind 0..extent { body }`.
    For {
        /// The loop variable.
        var: Var,
        /// How iterations run.
        kind: LoopKind,
        /// Number of iterations (none when negative).
        extent: Ix,
        /// The body.
        body: Vec<Stmt>,
    },
    /// Assigns a register.
    Set(Reg, Expr),
    /// Writes an element of a buffer.
    Store {
        /// To where.
        buffer: Buf,
        /// Flat element index.
        index: Ix,
        /// The value, of the buffer's dtype.
        value: Reg,
    },
    /// Runs the body when all bounds hold (used by scatters and ragged GPU grids).
    If {
        /// The condition.
        bounds: Vec<Bound>,
        /// Runs when it holds.
        then: Vec<Stmt>,
    },
    /// Reports the check of this number where a bool is false: an index from data names no element. The kernel runs on, and
    /// its results are unspecified.
    Check {
        /// See [`crate::structured::Check::number`].
        number: u32,
        /// True where all is well.
        holds: Reg,
    },
    /// Waits for all threads of the block.
    Barrier,
    /// A register-tile contraction.
    Tile(Box<Tile>),
}

/// One function over buffers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// Its name, unique in the program.
    pub name: String,
    /// Symbols that dims use, in the program's order.
    pub symbols: Vec<Symbol>,
    /// Buffers, parameters first.
    pub buffers: Vec<Buffer>,
    /// Registers.
    pub regs: Vec<RegInfo>,
    /// True where float constants of vector loops stand in memory: there are more of them than registers to spare.
    pub pooled: bool,
    /// Statements.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// A buffer's declaration.
    pub fn buffer(&self, b: Buf) -> &Buffer {
        &self.buffers[b.0 as usize]
    }
    /// A register's type.
    pub fn reg(&self, r: Reg) -> RegInfo {
        self.regs[r.0 as usize]
    }
    /// The parameters: the buffers that a caller passes, in order.
    pub fn params(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers
            .iter()
            .take_while(|b| matches!(b.scope, Scope::In | Scope::Out))
    }
    /// True where parallel loops stand inside of serial ones.
    pub fn forks(&self) -> bool {
        let mut parallel = false;
        visit(&self.body, &mut |s, _| {
            if let Stmt::For { kind, .. } = s {
                parallel |= matches!(kind, LoopKind::Parallel(_));
            }
        });
        parallel && self.parallel().is_none()
    }
    /// The extent of the outermost parallel loop, when there is one, and from when on it is worth the workers.
    pub fn parallel(&self) -> Option<(&Ix, &Grain)> {
        match self.body.last() {
            Some(Stmt::For {
                kind: LoopKind::Parallel(grain),
                extent,
                ..
            }) => Some((extent, grain)),
            _ => None,
        }
    }
    /// How many numbers the kernel's checks have.
    pub fn checks(&self) -> u32 {
        let mut numbers = 0;
        visit(&self.body, &mut |s, _| {
            if let Stmt::Check { number, .. } = s {
                numbers = numbers.max(number + 1);
            }
        });
        numbers
    }
    /// Bytes of scratch for each worker, each buffer aligned to 64. What belongs to the kernel lies in that of the first one.
    pub fn scratch_bytes(&self) -> Dim {
        self.buffers
            .iter()
            .filter(|b| matches!(b.scope, Scope::Worker | Scope::Kernel))
            .fold(Dim::ZERO, |n, b| {
                let bytes = &b.len * b.dtype.bytes() as i64;
                &n + &(&(&bytes + 63).floor_div(&Dim::Const(64)) * 64)
            })
    }
}
