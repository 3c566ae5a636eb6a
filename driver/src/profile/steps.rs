//! The steps of a program: what each is, does, and comes from.

use brolga_ir::program::{Program, SlotId, Step as Inner};
use brolga_passes::cost::{Work, copied, work};
use brolga_runtime::profile::RunRecord;
use rustc_hash::FxHashMap;
use std::fmt;

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A call of a kernel.
    Kernel,
    /// A copy of memory.
    Copy,
    /// An operator on the host.
    Host,
    /// A size gets its name.
    Let,
    /// A size is read from memory.
    Read,
    /// Memory is given to a value.
    Alloc,
    /// A branch; what it takes beside its blocks.
    If,
    /// A loop; what it takes beside its block.
    While,
    /// A check of sizes.
    Check,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kernel => "kernel",
            Kind::Copy => "copy",
            Kind::Host => "host",
            Kind::Let => "let",
            Kind::Read => "read",
            Kind::Alloc => "alloc",
            Kind::If => "if",
            Kind::While => "while",
            Kind::Check => "check",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A step of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is.
    pub kind: Kind,
    /// The kernel's name, or the host operator's, or the kind's.
    pub name: String,
    /// The kernel's index in the program.
    pub kernel: Option<u32>,
    /// The model's nodes that it comes from.
    pub nodes: Vec<String>,
    /// The step around it.
    pub parent: Option<u32>,
    /// What it does in one call, where all sizes are known before it runs.
    pub work: Option<Work>,
    /// Bytes of constants among those that it reads.
    pub constants: f64,
    /// How often a run calls it, on average.
    pub calls: f64,
}

/// The steps of a program, by their numbers.
pub(super) fn of(program: &Program, sizes: &dyn Fn(&str) -> Option<i64>) -> Vec<Step> {
    let mut all = Steps {
        program,
        sizes,
        works: FxHashMap::default(),
        out: vec![],
    };
    all.block(&program.steps, None);
    all.out
}

struct Steps<'p> {
    program: &'p Program,
    sizes: &'p dyn Fn(&str) -> Option<i64>,
    /// What kernels do.
    works: FxHashMap<u32, Option<Work>>,
    out: Vec<Step>,
}

impl Steps<'_> {
    fn block(&mut self, steps: &[Inner], parent: Option<u32>) {
        for s in steps {
            let number = self.out.len() as u32;
            let mut step = self.step(s);
            step.parent = parent;
            self.out.push(step);
            s.blocks().into_iter().for_each(|b| self.block(b, Some(number)));
        }
    }

    fn step(&mut self, s: &Inner) -> Step {
        let plain = |kind: Kind, nodes: &[&str]| Step {
            kind,
            name: kind.name().to_owned(),
            kernel: None,
            nodes: nodes
                .iter()
                .filter(|n| !n.is_empty())
                .map(|n| (*n).to_owned())
                .collect(),
            parent: None,
            work: None,
            constants: 0.0,
            calls: 0.0,
        };
        match s {
            Inner::Call {
                kernel, args, origin, ..
            } => {
                let work = *self.works.entry(*kernel).or_insert_with(|| {
                    let of = work(&self.program.kernels[*kernel as usize], self.sizes);
                    of.exact.then_some(of)
                });
                let constants: f64 = args.iter().map(|s| self.constant_bytes(*s)).sum();
                Step {
                    name: self.program.kernels[*kernel as usize].name.clone(),
                    kernel: Some(*kernel),
                    nodes: origin.iter().map(|n| n.to_string()).collect(),
                    work,
                    constants: work.map_or(0.0, |w| constants.min(w.bytes_read)),
                    ..plain(Kind::Kernel, &[])
                }
            }
            Inner::Copy { from, rows, .. } => {
                let work = match rows {
                    Some(rows) => copied(rows, self.sizes),
                    None => match self.bytes(*from) {
                        Some(bytes) => Work {
                            bytes_read: bytes,
                            bytes_written: bytes,
                            ..Work::NONE
                        },
                        None => Work {
                            exact: false,
                            ..Work::NONE
                        },
                    },
                };
                Step {
                    work: work.exact.then_some(work),
                    constants: self.constant_bytes(*from).min(work.bytes_read),
                    ..plain(Kind::Copy, &[])
                }
            }
            Inner::Host { op, origin, .. } => Step {
                name: op.name().to_owned(),
                ..plain(Kind::Host, &[origin])
            },
            Inner::Let(_) => plain(Kind::Let, &[]),
            Inner::Read { origin, .. } => plain(Kind::Read, &[origin]),
            Inner::Alloc { origin, .. } => plain(Kind::Alloc, &[origin]),
            Inner::If { .. } => plain(Kind::If, &[]),
            Inner::While { .. } => plain(Kind::While, &[]),
            Inner::Check { origin, .. } => plain(Kind::Check, &[origin]),
        }
    }

    fn bytes(&self, slot: SlotId) -> Option<f64> {
        let bytes = self.program.slot(slot).bytes();
        bytes.value(self.sizes).ok().map(|n| n as f64)
    }

    fn constant_bytes(&self, slot: SlotId) -> f64 {
        use brolga_ir::program::Storage;
        match self.program.slot(self.program.root(slot)).storage {
            Storage::Weight(_) | Storage::Computed => self.bytes(slot).unwrap_or(0.0),
            _ => 0.0,
        }
    }
}

/// Counts how often each step was called in a run.
pub(super) fn count_calls(steps: &mut [Step], records: &[RunRecord]) {
    for span in records.iter().flat_map(|r| &r.steps) {
        if let Some(step) = steps.get_mut(span.step as usize) {
            step.calls += 1.0;
        }
    }
    for step in steps {
        step.calls /= records.len().max(1) as f64;
    }
}
