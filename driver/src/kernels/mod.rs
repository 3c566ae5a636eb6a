//! Kernels of models as things of their own: what is looked at, timed, searched and recorded.
//!
//! A [`Workload`] is a structured kernel with what its time depends on beside its sizes: which operands are constants of the
//! model, whose packing costs no run anything. Its text reads back, and its [`Workload::key`] is the same on every platform.
//!
//! ```text
//! kernel @kernel(o0: f32[n0, 784] in, o1: f32[784, 512] in, o2: f32[n0, 512] out) symbols(n0) outer(n0, 512) {
//!   stage reduce(784) { … }
//! }
//! constant o1
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`rig`] | a workload by schedules as machine code, run on memory of its own |

pub mod rig;

use crate::{Error, Result};
use brolga_abi::artefact::checksum;
use brolga_ir::program::{Program, Slot, SlotId, Step, Storage, nested};
use brolga_ir::schedule::Schedule;
use brolga_ir::structured::{Kernel, Role};
use brolga_ir::text::ParseError;
use brolga_ir::{Dim, Symbol};
use brolga_passes::cost;
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, to_loops};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A kernel in its canonical form ([`Kernel::canonical`]), and which of its operands are constants.
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    kernel: Kernel,
    constants: Vec<bool>,
}

impl Workload {
    /// The workload of a kernel whose operands of these numbers are constants, and the kernel's symbols in the order of the
    /// workload's.
    ///
    /// # Errors
    /// When the kernel is not valid; when there is no such operand, or it is written, or its size is no number.
    pub fn new(kernel: &Kernel, constants: &[u32]) -> Result<(Workload, Vec<Symbol>), String> {
        kernel.verify()?;
        let (canonical, symbols) = kernel.canonical();
        // Renamed symbols may stand in another order; the text's is the order of all.
        let kernel: Kernel = canonical.to_string().parse().map_err(|e: ParseError| e.to_string())?;
        let mut flags = vec![false; kernel.operands.len()];
        for &c in constants {
            let Some(o) = kernel.operands.get(c as usize) else {
                return Err(format!(
                    "constant o{c}: the kernel has {} operands",
                    kernel.operands.len()
                ));
            };
            if o.role != Role::In {
                return Err(format!("constant o{c}: the kernel writes it"));
            }
            if o.elements().as_const().is_none() {
                return Err(format!(
                    "constant o{c}: its size is {}, expected a number",
                    o.elements()
                ));
            }
            flags[c as usize] = true;
        }
        let workload = Workload {
            kernel,
            constants: flags,
        };
        Ok((workload, symbols))
    }

    /// Reads a workload's text, or that of a kernel of a model, and what schedule stands in it.
    ///
    /// # Errors
    /// Where the text is none, or the kernel not valid.
    pub fn parse(text: &str) -> Result<(Workload, Option<Schedule>), String> {
        let is_constant = |l: &&str| l.trim_start().starts_with("constant o");
        let mut constants = vec![];
        for line in text.lines().filter(is_constant) {
            for word in line.trim().trim_start_matches("constant").split(',') {
                let number = word.trim().strip_prefix('o').and_then(|n| n.parse().ok());
                constants.push(number.ok_or_else(|| format!("`{}`: expected an operand such as o1", word.trim()))?);
            }
        }
        let kernel: Vec<&str> = text.lines().filter(|l| !is_constant(l)).collect();
        let kernel: Kernel = kernel.join("\n").parse().map_err(|e: ParseError| e.to_string())?;
        let (workload, _) = Workload::new(&kernel, &constants)?;
        Ok((workload, kernel.schedule))
    }

    /// The workload of a file: [`Workload::parse`].
    ///
    /// # Errors
    /// As there; when the file cannot be read.
    pub fn read(path: &Path) -> Result<(Workload, Option<Schedule>)> {
        let text = crate::source::text(path)?;
        Workload::parse(&text).map_err(|e| Error::file(path, e))
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Whether an operand is a constant of the model.
    pub fn is_constant(&self, operand: usize) -> bool {
        self.constants[operand]
    }

    /// The numbers of the operands that are constants.
    pub fn constants(&self) -> Vec<u32> {
        let all = (0..).zip(&self.constants);
        all.filter(|(_, c)| **c).map(|(i, _)| i).collect()
    }

    /// What it is known by: 128 bits of its text, in hexadecimal.
    pub fn key(&self) -> String {
        let text = self.to_string();
        // The number counts the forms that texts have had.
        let sum = |word: &str| checksum(format!("{word} 1\n{text}").as_bytes());
        format!("{:016x}{:016x}", sum("workload"), sum("kernel"))
    }

    /// A program of this kernel alone: constants are computed, everything else is temporary. It is for scheduling only: nothing
    /// writes its operands.
    pub fn program(&self, schedule: Option<Schedule>) -> Structured {
        let mut kernel = self.kernel.clone();
        kernel.schedule = schedule;
        let slot = |(o, constant): (&brolga_ir::structured::Operand, &bool)| Slot {
            ty: o.ty.clone(),
            storage: if *constant {
                Storage::Computed
            } else {
                Storage::Temp(None)
            },
            layout: o.layout.clone(),
        };
        let count = kernel.operands.len() as u32;
        Program {
            name: kernel.name.clone(),
            symbols: kernel.symbols.clone(),
            guards: vec![],
            strings: vec![],
            lets: vec![],
            aliases: vec![],
            inputs: vec![],
            outputs: vec![],
            slots: kernel.operands.iter().zip(&self.constants).map(slot).collect(),
            steps: vec![Step::Call {
                kernel: 0,
                args: (0..count).map(SlotId).collect(),
                origin: vec![],
                checks: vec!["".into(); kernel.checks() as usize],
            }],
            kernels: vec![kernel],
            init: vec![],
            arena: None,
        }
    }

    /// Seconds that a call by this schedule takes, as the cost model predicts it for these values of the kernel's symbols; `None` where
    /// the schedule is none for it.
    pub fn predict(&self, by: &Schedule, sizes: &[i64], machine: &Machine, model: &cost::Predictor) -> Option<f64> {
        let program = to_loops(&self.program(Some(by.clone())), machine).ok()?;
        let size = |s: &str| self.kernel.symbols.iter().position(|x| **x == *s).map(|i| sizes[i]);
        Some(model.program(&program, &size)).filter(|s| *s > 0.0)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kernel)?;
        let constants = self.constants();
        if !constants.is_empty() {
            let names: Vec<String> = constants.iter().map(|c| format!("o{c}")).collect();
            writeln!(f, "constant {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// A kernel of a model, as a workload.
#[derive(Clone, Debug)]
pub struct Found {
    /// The workload.
    pub workload: Workload,
    /// The number of the kernel in the program.
    pub kernel: usize,
    /// Its name there.
    pub name: String,
    /// The program's symbols, in the order of the workload's.
    pub symbols: Vec<Symbol>,
    /// How many steps call it.
    pub calls: usize,
    /// The model nodes that it came from, each once.
    pub nodes: Vec<Arc<str>>,
    /// True where a call's result lies over an operand, so that no local can be computed again where it is read.
    pub in_place: bool,
}

/// The kernels that a program's runs call, in the order of their first calls. What a run does not call is computed once.
///
/// # Errors
/// When a kernel is not valid.
pub fn of_program(program: &Structured) -> Result<Vec<Found>, String> {
    let mut out: Vec<Found> = vec![];
    let calls = || {
        nested(&program.steps).into_iter().filter_map(|s| match s {
            Step::Call {
                kernel, args, origin, ..
            } => Some((*kernel as usize, args, origin)),
            _ => None,
        })
    };
    let root = |s: &SlotId| &program.slot(program.root(*s)).storage;
    let is_constant = |s: &SlotId| matches!(root(s), Storage::Weight(_) | Storage::Computed);
    for (kernel, args, origin) in calls() {
        let nodes = |f: &mut Found| {
            for o in origin {
                if !f.nodes.contains(o) {
                    f.nodes.push(o.clone());
                }
            }
        };
        let k = &program.kernels[kernel];
        let in_place = overlaps(program, k, args);
        if let Some(f) = out.iter_mut().find(|f| f.kernel == kernel) {
            f.calls += 1;
            f.in_place |= in_place;
            nodes(f);
            continue;
        }
        let known = |i: usize| k.operands[i].elements().as_const().is_some() && k.operands[i].role == Role::In;
        // A constant in every call.
        let constant = |i: usize| known(i) && calls().all(|(n, args, _)| n != kernel || is_constant(&args[i]));
        let constants: Vec<u32> = (0..args.len()).filter(|&i| constant(i)).map(|i| i as u32).collect();
        let (workload, symbols) = Workload::new(k, &constants).map_err(|e| format!("kernel @{}: {e}", k.name))?;
        let mut found = Found {
            workload,
            kernel,
            name: k.name.clone(),
            symbols,
            calls: 1,
            nodes: vec![],
            in_place,
        };
        nodes(&mut found);
        out.push(found);
    }
    Ok(out)
}

/// True when a call reads memory that it writes.
fn overlaps(program: &Structured, kernel: &Kernel, args: &[SlotId]) -> bool {
    let roots = |read: bool| {
        let of = args
            .iter()
            .zip(&kernel.operands)
            .filter(move |(_, o)| (o.role == Role::In) == read);
        of.map(|(s, _)| program.root(*s))
    };
    roots(true).any(|r| roots(false).any(|w| w == r))
}

/// The values of a workload's symbols, by those of the model's.
///
/// # Errors
/// Which symbol has no value.
pub fn sizes(symbols: &[Symbol], given: &dyn Fn(&str) -> Option<i64>) -> Result<Vec<i64>, String> {
    let value =
        |s: &Symbol| given(s).ok_or_else(|| format!("the dimension `{s}` has no size; give it one with --at {s}=N"));
    symbols.iter().map(value).collect()
}

/// The bytes of an operand or a slot where the symbols have these values.
pub(crate) fn number(d: &Dim, symbols: &[Symbol], sizes: &[i64]) -> Result<i64, String> {
    let lookup = |s: &str| symbols.iter().position(|x| **x == *s).map(|i| sizes[i]);
    d.value(&lookup).map_err(|e| e.to_string())
}
