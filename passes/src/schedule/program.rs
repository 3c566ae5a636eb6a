//! The steps of a program: a call of a structured kernel becomes calls of what its schedule made of it.
//!
//! Packing is a step of its own: an initial one when the operand is constant (a weight has one packed layout, whoever
//! reads it), else right before the first call that needs it.

use super::apply::{Code, Piece, pieces};
use super::choose::{choose, choose_flat};
use super::flat::Flat;
use super::packing::Packing;
use super::{Machine, Part, Schedule, Source, Sources};
use crate::lower::{Structured, sizes};
use brolga_ir::program::{Program, SlotId, Step, Storage};
use brolga_ir::schedule::Knobs;
use brolga_ir::{Dim, loops, structured};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// The program with a schedule for every kernel: its own, or else the one that is chosen.
pub fn chosen(structured: &Structured, machine: &Machine) -> Structured {
    let mut out = structured.clone();
    for k in &mut out.kernels {
        if k.schedule.is_none() {
            k.schedule = Some(choose(k, machine));
        }
    }
    out
}

/// Panels that were made.
struct Panels {
    /// The byte where the operand begins in its memory.
    start: Dim,
    /// What was read beside it: the memory, and where.
    beside: Vec<(SlotId, Dim)>,
    packing: Packing,
    slot: SlotId,
}

/// Schedules every kernel of a structured program: by its own schedule, or else by the one that is chosen.
///
/// # Errors
/// When a kernel's schedule is not legal for it, or for the machine.
pub fn to_loops(structured: &Structured, machine: &Machine) -> Result<Program, String> {
    let (program, _) = schedule(structured, machine).map_err(|e| e.message)?;
    Ok(program)
}

/// Why a kernel has no loops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit {
    /// The kernel, its schedule, and what is wrong with that.
    pub message: String,
    /// Whether it was given to the kernel, and not chosen.
    pub given: bool,
}

/// [`to_loops`], and what its kernels were made of.
///
/// # Errors
/// As there.
pub fn to_loops_with_sources(mut structured: Structured, machine: &Machine) -> Result<(Program, Sources), Unfit> {
    let (program, made) = schedule(&structured, machine)?;
    for (k, chosen) in structured.kernels.iter_mut().zip(made.schedules) {
        k.schedule = k.schedule.take().or(chosen);
    }
    let mut sources = Sources {
        kernels: structured.kernels,
        of: vec![vec![]; program.kernels.len()],
    };
    for (kernel, source) in made.sources {
        sources.note(kernel as usize, source);
    }
    Ok((program, sources))
}

/// What scheduling tells beside the program.
struct Made {
    /// The schedules that were chosen.
    schedules: Vec<Option<Schedule>>,
    /// Loop kernels by their numbers, with what each was made of.
    sources: Vec<(u32, Source)>,
}

fn schedule(structured: &Structured, machine: &Machine) -> Result<(Program, Made), Unfit> {
    let mut s = Scheduler {
        out: Emitter::new(structured),
        machine,
        panels: FxHashMap::default(),
        pieces: vec![None; structured.kernels.len()],
        made: Made {
            schedules: vec![None; structured.kernels.len()],
            sources: vec![],
        },
    };
    s.steps(structured, &structured.init, true)?;
    s.steps(structured, &structured.steps, false)?;
    // Panels of what only the run sizes are such, too.
    sizes::allocate(&mut s.out.program);
    Ok((s.out.program, s.made))
}

struct Scheduler<'m> {
    out: Emitter,
    machine: &'m Machine,
    /// Panels made of memory, by the slot that owns it.
    panels: FxHashMap<SlotId, Vec<Panels>>,
    /// What kernels became.
    pieces: Vec<Option<Arc<[Piece]>>>,
    made: Made,
}

impl Scheduler<'_> {
    fn steps(&mut self, structured: &Structured, steps: &[Step], init: bool) -> Result<(), Unfit> {
        for step in steps {
            match step {
                Step::Call {
                    kernel,
                    args,
                    origin,
                    checks,
                } => {
                    let source = Call { origin, checks, init };
                    let (index, kernel) = (*kernel as usize, &structured.kernels[*kernel as usize]);
                    self.call(index, kernel, args, source).map_err(|message| Unfit {
                        message,
                        given: kernel.schedule.is_some(),
                    })?;
                    self.forget_written(structured, step);
                }
                Step::If { cond, then, other } => {
                    let (cond, then) = (*cond, self.block(structured, then)?);
                    let other = self.block(structured, other)?;
                    self.out.step(Step::If { cond, then, other }, init);
                }
                Step::While { cond, body } => {
                    let (cond, body) = (*cond, self.block(structured, body)?);
                    self.out.step(Step::While { cond, body }, init);
                }
                other => {
                    self.out.step(other.clone(), init);
                    self.forget_written(structured, step);
                }
            }
        }
        Ok(())
    }

    /// The steps of a block. Panels that it makes are not there behind it, where it may not have run; and what it writes may
    /// have been packed before.
    fn block(&mut self, structured: &Structured, steps: &[Step]) -> Result<Vec<Step>, Unfit> {
        self.forget_panels();
        let outside = std::mem::take(&mut self.out.program.steps);
        self.steps(structured, steps, false)?;
        self.forget_panels();
        Ok(std::mem::replace(&mut self.out.program.steps, outside))
    }

    /// Forgets panels of what a step has written: the state of a loop, an operand that a result lies over.
    fn forget_written(&mut self, structured: &Structured, step: &Step) {
        let mut forget = |s: &SlotId| {
            let root = structured.root(*s);
            self.panels.remove(&root);
            let keeps = |p: &Panels| p.beside.iter().all(|(r, _)| *r != root);
            self.panels.values_mut().for_each(|all| all.retain(keeps));
        };
        match step {
            Step::Call { kernel, args, .. } => {
                let operands = &structured.kernels[*kernel as usize].operands;
                let written = args
                    .iter()
                    .zip(operands)
                    .filter(|(_, o)| o.role != structured::Role::In);
                written.for_each(|(s, _)| forget(s));
            }
            Step::Copy { to, .. } => forget(to),
            Step::Host { outputs, .. } => outputs.iter().for_each(forget),
            _ => {}
        }
    }

    /// Forgets all panels but those that are packed before the run.
    fn forget_panels(&mut self) {
        let program = &self.out.program;
        self.panels.retain(|_, panels| {
            panels.retain(|p| matches!(program.slot(p.slot).storage, Storage::Computed));
            !panels.is_empty()
        });
    }

    fn pieces(&mut self, index: usize, kernel: &structured::Kernel) -> Result<Arc<[Piece]>, String> {
        if let Some(known) = &self.pieces[index] {
            return Ok(known.clone());
        }
        let flat = Flat::new(kernel);
        let made = match &kernel.schedule {
            Some(s) if !fits(s, self.machine) => Err(format!(
                "kernel @{}: its schedule {s} is for another kind of machine",
                kernel.name
            )),
            Some(s) => {
                pieces(kernel, &flat, s).map_err(|e| format!("kernel @{}: its schedule is not legal: {e}", kernel.name))
            }
            None => {
                let s = choose_flat(kernel, &flat, self.machine);
                let made = pieces(kernel, &flat, &s)
                    .map_err(|e| format!("kernel @{}: the chosen schedule {s}: {e}", kernel.name));
                self.made.schedules[index] = Some(s);
                made
            }
        };
        let made: Arc<[Piece]> = made?.into();
        self.pieces[index] = Some(made.clone());
        Ok(made)
    }

    fn call(&mut self, index: usize, kernel: &structured::Kernel, args: &[SlotId], source: Call) -> Result<(), String> {
        if kernel.schedule.as_ref().is_some_and(inlines) && self.shares(kernel, args) {
            return Err(format!(
                "kernel @{}: its schedule computes locals again where they are read, but its result lies over an operand",
                kernel.name
            ));
        }
        for (n, piece) in self.pieces(index, kernel)?.iter().enumerate() {
            let mut args: Vec<SlotId> = piece.params.iter().map(|&i| args[i]).collect();
            match &piece.code {
                Code::Loops(k) => {
                    let made = self.out.call(k, args, source);
                    self.note(made, index, Part::Piece(n));
                }
                Code::Packed {
                    kernel: k,
                    operands,
                    knobs,
                } => {
                    let given = args.clone();
                    for (i, packing) in operands {
                        let beside = packing.beside().iter().map(|b| b.operand.0 as usize);
                        let read = [*i].into_iter().chain(beside);
                        let read: Vec<(SlotId, &structured::Operand)> =
                            read.map(|i| (given[i], &kernel.operands[piece.params[i]])).collect();
                        args[*i] = self.panels_of(&read, packing, k, (index, knobs), source.origin);
                    }
                    let made = self.out.call(k, args, source);
                    self.note(made, index, Part::Piece(n));
                }
                Code::Copy { from, to, rows } => {
                    let copy = Step::Copy {
                        from: args[*from],
                        to: args[*to],
                        rows: Some(rows.clone()),
                    };
                    self.out.step(copy, source.init);
                }
            }
        }
        Ok(())
    }

    /// Notes what a loop kernel was made of.
    fn note(&mut self, made: u32, kernel: usize, part: Part) {
        self.made.sources.push((made, Source { kernel, part }));
    }

    /// True when a call reads memory that it writes.
    fn shares(&self, kernel: &structured::Kernel, args: &[SlotId]) -> bool {
        let owners = |role: fn(structured::Role) -> bool| {
            let of = args.iter().zip(&kernel.operands).filter(move |(_, o)| role(o.role));
            of.map(|(s, _)| self.out.program.root(*s))
        };
        let mut read = owners(|r| r == structured::Role::In);
        read.any(|r| owners(|r| r != structured::Role::In).any(|w| w == r))
    }

    /// The slot of an operand's panels, packed when first needed; what is read beside it follows it.
    fn panels_of(
        &mut self,
        read: &[(SlotId, &structured::Operand)],
        packing: &Packing,
        reader: &loops::Kernel,
        (index, knobs): (usize, &Knobs),
        origin: &[Arc<str>],
    ) -> SlotId {
        let mut places = read.iter().map(|(slot, _)| self.out.program.place(*slot));
        let (root, start) = places.next().expect("an operand is read");
        let beside: Vec<(SlotId, Dim)> = places.collect();
        let mut known = self.panels.get(&root).into_iter().flatten();
        if let Some(p) = known.find(|p| p.start == start && p.packing == *packing && p.beside == beside) {
            return p.slot;
        }
        let mut made = packing.slot(packing.dtype(read[0].1.ty.dtype), Storage::Temp(None));
        // Under extents that only a run tells, a constant is packed in the run.
        let is_constant = |root: SlotId| {
            let owner = &self.out.program.slot(root).storage;
            matches!(owner, Storage::Weight(_) | Storage::Computed)
        };
        let constant = [root].into_iter().chain(beside.iter().map(|b| b.0)).all(is_constant)
            && made.ty.shape.iter().all(|d| d.as_const().is_some());
        if constant {
            made.storage = Storage::Computed;
        }
        self.out.program.slots.push(made);
        let panels = SlotId(self.out.program.slots.len() as u32 - 1);
        let source = Call {
            origin,
            checks: &[],
            init: constant,
        };
        let operands: Vec<&structured::Operand> = read.iter().map(|r| r.1).collect();
        let mut kernel = packing.kernel(&operands, reader, knobs);
        if constant {
            // Nothing of the run is known when constants are packed.
            let inputs = &self.out.program.symbols;
            kernel.symbols.retain(|s| inputs.contains(s));
        }
        let args = read.iter().map(|r| r.0).chain([panels]).collect();
        let made = self.out.call(&kernel, args, source);
        self.note(made, index, Part::Packing);
        self.panels.entry(root).or_default().push(Panels {
            start,
            beside,
            packing: packing.clone(),
            slot: panels,
        });
        panels
    }
}

/// Whether a schedule computes locals again where they are read: not for calls whose result lies over an operand.
pub fn inlines(s: &Schedule) -> bool {
    match s {
        Schedule::Split(parts) => parts.iter().any(inlines),
        Schedule::Versions(both) => both.iter().any(inlines),
        Schedule::Points(s) => !s.inline.is_empty(),
        Schedule::Rows(s) => !s.inline.is_empty(),
        Schedule::GpuPoints(s) => !s.inline.is_empty(),
        Schedule::GpuRows(s) => !s.inline.is_empty(),
        Schedule::Tile(_)
        | Schedule::Tree(_)
        | Schedule::InOrder(_)
        | Schedule::Copy(_)
        | Schedule::GpuTile(_)
        | Schedule::GpuInOrder(_) => false,
    }
}

/// Whether a schedule is for this kind of machine.
pub fn fits(s: &Schedule, machine: &Machine) -> bool {
    let gpu = match s {
        Schedule::Split(parts) => return parts.iter().all(|p| fits(p, machine)),
        Schedule::Versions(both) => return both.iter().all(|p| fits(p, machine)),
        Schedule::GpuTile(_) | Schedule::GpuPoints(_) | Schedule::GpuRows(_) | Schedule::GpuInOrder(_) => true,
        Schedule::Tile(_) | Schedule::Points(_) | Schedule::Rows(_) | Schedule::Tree(_) => false,
        Schedule::InOrder(_) | Schedule::Copy(_) => false,
    };
    gpu == matches!(machine, Machine::Gpu(_))
}

/// The structured call that loop kernels come from.
#[derive(Clone, Copy)]
struct Call<'a> {
    /// The model nodes behind it.
    origin: &'a [Arc<str>],
    /// The nodes of its checks.
    checks: &'a [Arc<str>],
    /// True for an initial step.
    init: bool,
}

/// The scheduled program under construction. Structurally equal kernels stand in it once.
struct Emitter {
    program: Program,
    /// Kernels by structure (their names cleared).
    known: FxHashMap<loops::Kernel, u32>,
    /// Names that kernels have.
    names: FxHashSet<String>,
}

impl Emitter {
    /// A program with the slots of a structured one, and no steps.
    fn new(structured: &Structured) -> Emitter {
        let program = Program {
            name: structured.name.clone(),
            symbols: structured.symbols.clone(),
            guards: structured.guards.clone(),
            strings: structured.strings.clone(),
            lets: structured.lets.clone(),
            aliases: structured.aliases.clone(),
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

    /// Adds a call of a kernel, and tells the kernel's number.
    fn call(&mut self, kernel: &loops::Kernel, args: Vec<SlotId>, source: Call) -> u32 {
        // A part of a kernel may have the first of its checks only, or none.
        let checks = source.checks[..kernel.checks() as usize].to_vec();
        let mut kernel = kernel.clone();
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
        index
    }

    /// Appends a step: to those that the compiler runs once, or to those of every inference.
    fn step(&mut self, step: Step, init: bool) {
        let steps = if init {
            &mut self.program.init
        } else {
            &mut self.program.steps
        };
        steps.push(step);
    }
}
