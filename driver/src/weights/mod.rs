//! Constant evaluation: the initial steps of a program run once, in the compiler, and leave one blob of weights.
//!
//! ```text
//! weight s1 (file) ──┐ init: pack(s1) -> s2        blob: [ s2 | s3 ]   s1 is not in it: only init reads it
//! weight s3 (file) ──┴ main: dense(s0, s2, s3)
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `number` | equal constants are stored and computed once |
//! | `memory` | where constants are while they are computed |
//! | `evaluate` | runs the steps: moves natively, little work by the interpreter, the rest by machine code |
//! | `joined` | weights of several programs in one blob |
//!
//! Only constants that the main steps read are laid out, each at a multiple of 64, those in front that steer the run
//! ([`Program::steering`]) or stand for an input. The layout is known before anything runs
//! ([`Constants::of`]), so the code that reads the constants can be made while they are evaluated. What is allocated keeps to
//! the memory limit; files are read in place.

mod evaluate;
mod joined;
mod memory;
mod number;

use crate::{Error, Result};
use brolga_ir::program::{Program, SlotId, Step, Storage, nested};
use brolga_runtime::Weights;
pub use joined::Joined;
use memory::size;
use number::number;
use rustc_hash::{FxHashMap, FxHashSet};

/// Where constants lie in the blob, and the blob.
#[derive(Clone, Debug)]
pub struct Packed {
    offsets: FxHashMap<SlotId, u64>,
    blob: Weights,
    /// So many bytes at the beginning are of constants that steer the run.
    pub steering_bytes: u64,
    /// Bytes of memory that evaluation took beside the blob.
    pub scratch_bytes: u64,
}

impl Packed {
    /// The byte offset of a constant that the main steps read.
    pub fn offset(&self, slot: SlotId) -> Option<u64> {
        self.offsets.get(&slot).copied()
    }
    /// Where constants lie.
    pub fn offsets(&self) -> &FxHashMap<SlotId, u64> {
        &self.offsets
    }
    /// The blob.
    pub fn bytes(&self) -> &[u8] {
        self.blob.bytes()
    }
    /// The blob, shared.
    pub fn weights(&self) -> Weights {
        self.blob.clone()
    }
}

/// Constants of a program: what computes them, and where they will lie.
pub struct Constants {
    /// The byte offset of each that the main steps read.
    offsets: FxHashMap<SlotId, u64>,
    /// Bytes of the blob.
    bytes: u64,
    /// Bytes at its beginning that steer the run.
    steering: u64,
    /// The initial steps that are needed, each value once.
    steps: Vec<Step>,
    /// The first constant of the same value.
    same: FxHashMap<SlotId, SlotId>,
}

impl Constants {
    /// The constants that the main steps of a program read, and those that are `kept` besides.
    ///
    /// # Errors
    /// When a size is not known, or the model's bytes end before.
    pub fn of(program: &Program, kept: &[SlotId]) -> Result<Constants> {
        let mut used = constants_of(program, &program.steps);
        used.extend(kept);
        let needed = needed_steps(program, &used);
        let same = number(program, &needed, &used)?;
        let mut offsets: FxHashMap<SlotId, u64> = FxHashMap::default();
        let (mut bytes, mut end_of_steering) = (0u64, 0);
        let mut steering = program.steering();
        steering.extend(kept);
        let mut order: Vec<SlotId> = used.iter().copied().collect();
        order.sort_unstable_by_key(|s| (!steering.contains(s), *s));
        for s in order {
            let first = same[&s];
            let at = match offsets.get(&first) {
                Some(&at) => at,
                None => {
                    let at = bytes;
                    bytes = size(program, first)?
                        .checked_next_multiple_of(64)
                        .and_then(|n| n.checked_add(at))
                        .ok_or_else(|| too_large(program, u64::MAX, u64::MAX))?;
                    offsets.insert(first, at);
                    at
                }
            };
            offsets.insert(s, at);
            if steering.contains(&s) {
                end_of_steering = bytes;
            }
        }
        // Steps that only repeat what another computes are left out.
        let is_first = |s: &SlotId| same.get(s) == Some(s);
        let steps = needed
            .into_iter()
            .filter(|s| writes(program, s).iter().any(is_first))
            .cloned()
            .collect();
        Ok(Constants {
            offsets,
            bytes,
            steering: end_of_steering,
            steps,
            same,
        })
    }

    /// The byte offset of a constant that the main steps read.
    pub fn offset(&self, slot: SlotId) -> Option<u64> {
        self.offsets.get(&slot).copied()
    }

    /// Where constants will lie.
    pub fn offsets(&self) -> &FxHashMap<SlotId, u64> {
        &self.offsets
    }

    /// Bytes of the blob.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes at its beginning of constants that steer the run.
    pub fn steering(&self) -> u64 {
        self.steering
    }

    /// The first constant of the same value.
    fn first(&self, s: SlotId) -> SlotId {
        self.same.get(&s).copied().unwrap_or(s)
    }
}

fn too_large(program: &Program, needed: u64, limit: u64) -> Error {
    Error::MemoryLimit {
        model: program.name.clone(),
        needed,
        limit,
    }
}

fn broken(program: &Program, what: String) -> Error {
    Error::Codegen {
        model: program.name.clone(),
        source: brolga_codegen::Error::Program {
            program: program.name.clone(),
            what,
        },
    }
}

fn not_evaluated(program: &Program, step: &Step) -> Error {
    let what = match step {
        Step::Host { op, .. } => format!("`{}` among the initial steps", op.name()),
        _ => "a step that depends on data among the initial ones".into(),
    };
    broken(program, format!("{what}; the compiler runs calls and copies only"))
}

fn is_constant(program: &Program, root: SlotId) -> bool {
    matches!(program.slot(root).storage, Storage::Weight(_) | Storage::Computed)
}

/// The slots whose memory a step itself touches.
fn touched(program: &Program, step: &Step) -> Vec<SlotId> {
    let mut slots = vec![];
    step.for_each_slot(&mut |s| slots.push(program.root(s)));
    slots
}

/// The slots whose memory a step itself writes.
fn writes(program: &Program, step: &Step) -> Vec<SlotId> {
    let (_, slots) = program.accesses(step);
    slots.into_iter().map(|s| program.root(s)).collect()
}

fn constants_of(program: &Program, steps: &[Step]) -> FxHashSet<SlotId> {
    let all = nested(steps).into_iter().flat_map(|s| touched(program, s));
    all.filter(|s| is_constant(program, *s)).collect()
}

/// The initial steps that the used constants depend on, in order.
fn needed_steps<'p>(program: &'p Program, used: &FxHashSet<SlotId>) -> Vec<&'p Step> {
    let mut live = used.clone();
    let mut steps = vec![];
    for step in program.init.iter().rev() {
        if writes(program, step).iter().any(|s| live.contains(s)) {
            live.extend(touched(program, step));
            steps.push(step);
        }
    }
    steps.reverse();
    steps
}
