//! From structured kernels to loop nests: each kernel gets a schedule, contractions their packed right operands.
//!
//! Packing is a step of its own: an initial one when the operand is constant (a weight has one packed layout, whoever
//! reads it), else right before the first call that needs it.

use super::{Structured, flat, generic, stretch, tile};
use brolga_ir::program::{Program, Slot, SlotId, Step, Storage};
use brolga_ir::{Dim, Type, loops, structured};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Up to this many parts of a kernel are kernels of their own; of more, those that only copy rows are steps, which cost no
/// code.
const FEW_PARTS: usize = 16;

/// What schedules may assume of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Rows of a register tile.
    pub max_rows: i64,
    /// Bytes of a right operand that stay in cache beside the rest: about half of L2.
    pub resident: i64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_rows: 14,
            resident: 512 << 10,
        }
    }
}

/// Schedules every kernel of a structured program.
pub fn to_loops(structured: &Structured, options: Options) -> Program {
    let mut s = Scheduler {
        out: Emitter::new(structured),
        options,
        panels: FxHashMap::default(),
        flats: structured.kernels.iter().map(flat::Flat::new).collect(),
    };
    for (steps, init) in [(&structured.init, true), (&structured.steps, false)] {
        for step in steps {
            match step {
                Step::Call {
                    kernel,
                    args,
                    origin,
                    checks,
                } => {
                    let source = Source { origin, checks, init };
                    s.kernel(*kernel as usize, &structured.kernels[*kernel as usize], args, source);
                }
                other => s.out.step(other.clone(), init),
            }
        }
    }
    s.out.program
}

struct Scheduler {
    out: Emitter,
    options: Options,
    /// Panels made of a slot.
    panels: FxHashMap<(SlotId, tile::Packing), SlotId>,
    flats: Vec<flat::Flat>,
}

impl Scheduler {
    fn kernel(&mut self, index: usize, kernel: &structured::Kernel, args: &[SlotId], source: Source) {
        let flat = self.flats[index].clone();
        let Some(c) = tile::Contraction::find(&flat) else {
            let Some(plain) = stretch::plain(kernel, &flat) else {
                self.parts(&flat, args, source, None);
                return;
            };
            self.parts(&plain.flat, args, source, Some(&(&Dim::ONE - &plain.stretches)));
            self.parts(&flat, args, source, Some(&plain.stretches));
            return;
        };
        let packing = c.packing(&flat);
        let operand = packing.operand.0 as usize;
        let mut args = args.to_vec();
        args[operand] = self.panels_of(args[operand], packing, &flat, &kernel.name, source.origin);
        let knobs = tile::Knobs {
            max_rows: self.options.max_rows,
            resident: self.options.resident,
        };
        self.out.call(c.schedule(&flat, knobs), args, source);
    }

    /// The kernels of what is no contraction; where `runs` is 0, they have no iterations.
    fn parts(&mut self, flat: &flat::Flat, args: &[SlotId], source: Source, runs: Option<&Dim>) {
        let parts = generic::parts(flat);
        let many = parts.len() > FEW_PARTS && !source.init && runs.is_none();
        for part in parts {
            let args = part.args(args);
            if many && let Some((read, written, rows)) = generic::as_copy(&part.flat) {
                let copy = Step::Copy {
                    from: args[read.0 as usize],
                    to: args[written.0 as usize],
                    rows: Some(rows),
                };
                self.out.step(copy, false);
                continue;
            }
            let mut kernel = generic::schedule(&part, generic::Knobs::default());
            if let (Some(runs), [loops::Stmt::For { extent, .. }]) = (runs, &mut kernel.body[..]) {
                *extent = extent.scale(runs);
            }
            self.out.call(kernel, args, source);
        }
    }

    /// The slot of an operand's panels, packed when first needed.
    fn panels_of(
        &mut self,
        slot: SlotId,
        packing: tile::Packing,
        flat: &flat::Flat,
        name: &str,
        origin: &[Arc<str>],
    ) -> SlotId {
        let root = self.out.program.root(slot);
        let key = (
            root,
            tile::Packing {
                operand: loops::Buf(0),
                ..packing.clone()
            },
        );
        if let Some(&s) = self.panels.get(&key) {
            return s;
        }
        let constant = matches!(
            self.out.program.slot(root).storage,
            Storage::Weight(_) | Storage::Computed
        );
        let operand = &flat.buffers[packing.operand.0 as usize];
        let ty = Type::new(operand.dtype, packing.shape());
        let storage = if constant {
            Storage::Computed
        } else {
            Storage::Temp(None)
        };
        self.out.program.slots.push(Slot {
            ty,
            storage,
            packed: true,
        });
        let panels = SlotId(self.out.program.slots.len() as u32 - 1);
        let kernel = tile::pack(&packing, operand, format!("pack_{name}"), flat.symbols.clone());
        let source = Source {
            origin,
            checks: &[],
            init: constant,
        };
        self.out.call(kernel, vec![slot, panels], source);
        self.panels.insert(key, panels);
        panels
    }
}

/// The structured call that loop kernels come from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// The model nodes behind it.
    pub origin: &'a [Arc<str>],
    /// The nodes of its checks.
    pub checks: &'a [Arc<str>],
    /// True for an initial step.
    pub init: bool,
}

/// The scheduled program under construction. Structurally equal kernels stand in it once.
pub(super) struct Emitter {
    pub program: Program,
    /// Kernels by structure (their names cleared).
    known: FxHashMap<loops::Kernel, u32>,
    /// Names that kernels have.
    names: FxHashSet<String>,
}

impl Emitter {
    /// A program with the slots of a structured one, and no steps.
    pub fn new(structured: &Structured) -> Emitter {
        let program = Program {
            name: structured.name.clone(),
            symbols: structured.symbols.clone(),
            guards: structured.guards.clone(),
            lets: structured.lets.clone(),
            inputs: structured.inputs.clone(),
            outputs: structured.outputs.clone(),
            slots: structured.slots.clone(),
            kernels: vec![],
            init: vec![],
            steps: vec![],
            arena: None,
        };
        Emitter {
            program,
            known: FxHashMap::default(),
            names: FxHashSet::default(),
        }
    }

    /// Adds a call of a kernel.
    pub fn call(&mut self, mut kernel: loops::Kernel, args: Vec<SlotId>, source: Source) {
        // A part of a kernel may have the first of its checks only, or none.
        let checks = source.checks[..kernel.checks() as usize].to_vec();
        let name = std::mem::take(&mut kernel.name);
        let index = match self.known.get(&kernel) {
            Some(&i) => i,
            None => {
                let i = self.program.kernels.len() as u32;
                self.known.insert(kernel.clone(), i);
                kernel.name = if self.names.contains(&name) {
                    format!("{name}_v{i}")
                } else {
                    name
                };
                self.names.insert(kernel.name.clone());
                self.program.kernels.push(kernel);
                i
            }
        };
        let call = Step::Call {
            kernel: index,
            args,
            origin: source.origin.to_vec(),
            checks,
        };
        self.step(call, source.init);
    }

    /// Appends a step: to those that the compiler runs once, or to those of every inference.
    pub fn step(&mut self, step: Step, init: bool) {
        let steps = if init {
            &mut self.program.init
        } else {
            &mut self.program.steps
        };
        steps.push(step);
    }
}
