//! From structured kernels to loop nests: each kernel gets a schedule, contractions their packed right operands.
//!
//! Packing is a step of its own: an initial one when the operand is constant (a weight has one packed layout, whoever
//! reads it), else right before the first call that needs it.

use super::{Structured, flat, generic, tile};
use brolga_ir::program::{Program, Slot, SlotId, Step, Storage};
use brolga_ir::{Type, loops, structured};
use rustc_hash::FxHashMap;
use std::sync::Arc;

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
                Step::Call { kernel, args, origin } => {
                    s.kernel(
                        *kernel as usize,
                        &structured.kernels[*kernel as usize],
                        args.clone(),
                        origin,
                        init,
                    );
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
    fn kernel(
        &mut self,
        index: usize,
        kernel: &structured::Kernel,
        mut args: Vec<SlotId>,
        origin: &[Arc<str>],
        init: bool,
    ) {
        let flat = self.flats[index].clone();
        let Some(c) = tile::Contraction::find(&flat) else {
            for k in generic::schedule(&flat, generic::Knobs::default()) {
                self.out.call(k, args.clone(), origin, init);
            }
            return;
        };
        let packing = c.packing(&flat);
        let operand = packing.operand.0 as usize;
        args[operand] = self.panels_of(args[operand], packing, &flat, &kernel.name, origin);
        let knobs = tile::Knobs {
            max_rows: self.options.max_rows,
            resident: self.options.resident,
        };
        self.out.call(c.schedule(&flat, knobs), args, origin, init);
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
        self.out.call(kernel, vec![slot, panels], origin, constant);
        self.panels.insert(key, panels);
        panels
    }
}

/// The scheduled program under construction. Structurally equal kernels stand in it once.
pub(super) struct Emitter {
    pub program: Program,
    /// Kernels by structure (their names cleared).
    known: FxHashMap<loops::Kernel, u32>,
}

impl Emitter {
    /// A program with the slots of a structured one, and no steps.
    pub fn new(structured: &Structured) -> Emitter {
        let program = Program {
            name: structured.name.clone(),
            symbols: structured.symbols.clone(),
            guards: structured.guards.clone(),
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
        }
    }

    /// Adds a call of a kernel.
    pub fn call(&mut self, mut kernel: loops::Kernel, args: Vec<SlotId>, origin: &[Arc<str>], init: bool) {
        let name = std::mem::take(&mut kernel.name);
        let index = match self.known.get(&kernel) {
            Some(&i) => i,
            None => {
                let i = self.program.kernels.len() as u32;
                self.known.insert(kernel.clone(), i);
                kernel.name = if self.program.kernels.iter().any(|k| k.name == name) {
                    format!("{name}_v{i}")
                } else {
                    name
                };
                self.program.kernels.push(kernel);
                i
            }
        };
        let call = Step::Call {
            kernel: index,
            args,
            origin: origin.to_vec(),
        };
        self.step(call, init);
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
