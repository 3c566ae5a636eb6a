//! Scheduling: from structured kernels to loop nests.
//!
//! A [`Schedule`] is data: [`choose`] gives the one that a kernel gets when nobody says otherwise, [`space`] lists the legal
//! ones for a tuner, [`apply`] makes loops of a kernel and any schedule, or says why it cannot. A kernel that carries a
//! schedule gets that one ([`to_loops`]), so a record of what was chosen or tuned replays. Nothing below this level
//! decides anything about loops: from when on workers are woken, which loops are repeated in code and where constants
//! stand is written in the loops.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`flat`] | a kernel with flat addresses: what all the others look at |
//! | [`choose`](mod@choose), [`space`](mod@space) | which schedules; every heuristic is in the former |
//! | [`genes`] | schedules as values in places, to be combined |
//! | [`apply`](mod@apply), `parts` | a schedule and a kernel become pieces: loop kernels, copies |
//! | `contraction` | which stages are contractions, for CPUs and GPUs |
//! | `cpu`, `gpu` | the nests of each kind of schedule |
//! | `nest`, `point`, `sums`, `inline` | what nests are built with |
//! | `knobs` | what is settled when a nest stands, one file each |
//! | `stretch` | kernels where only a run tells what broadcasts: two versions |
//! | `packing` | right operands in panels |
//! | `program` | the steps of a program, calling what its kernels became |
//! | `sources` | what loop kernels were made of |

pub mod apply;
pub mod choose;
pub(crate) mod contraction;
mod cpu;
pub mod flat;
pub mod genes;
mod gpu;
mod inline;
mod knobs;
mod nest;
mod packing;
mod parts;
mod point;
mod program;
mod sources;
pub mod space;
mod stretch;
mod sums;

pub use apply::{Code, Piece, apply};
pub use brolga_ir::schedule::Schedule;
use brolga_ir::{CpuTarget, Target};
pub use choose::choose;
pub use packing::Packing;
pub use program::{Unfit, chosen, fits, inlines, to_loops, to_loops_with_sources};
pub use sources::{Part, Source, Sources};
pub use space::space;

/// The machine to schedule for.
#[derive(Clone, PartialEq, Debug)]
pub enum Machine {
    /// A CPU.
    Cpu(CpuTarget),
    /// A GPU.
    Gpu(Gpu),
}

impl Machine {
    /// The machine of a target.
    pub fn of(target: &Target) -> Machine {
        match target.cpu() {
            Some(cpu) => Machine::Cpu(cpu.clone()),
            None => Machine::Gpu(Gpu::default()),
        }
    }
}

/// The plain facts of a GPU that schedules ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gpu {
    /// Bytes of shared memory that the kept rows of a block may have.
    pub shared_bytes: i64,
    /// Blocks from which on it is full.
    pub blocks: i64,
}

impl Default for Gpu {
    /// Common to server GPUs since compute capability 8.0.
    fn default() -> Gpu {
        Gpu {
            shared_bytes: 32 << 10,
            blocks: 96,
        }
    }
}
