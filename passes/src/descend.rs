//! The passes that go down a level.
//!
//! ```text
//! tensor graph ─ lower ─▶ structured kernels ─ choose ─▶ … with schedules ─ schedule ─▶ loop nests ─ plan-memory ─▶ … with a plan
//! ```
//!
//! `choose` may be left out: `schedule` chooses for kernels without a schedule. With it, the schedules stand in the printed
//! kernels, where they can be read, edited and replayed.

use crate::module::{Level, Module};
use crate::pass::{Context, Pass, PassError, Setting, Settings};
use crate::schedule::{Machine, chosen, to_loops_with_sources};
use crate::{lower, memory};
use brolga_ir::ops::Role;
use brolga_ir::program::Storage;

/// `lower`: a graph whose kernels are chosen becomes structured kernels.
///
/// ```text
/// %1 = relu(%0)                kernel @relu_0(o0: f32[4] in, o1: f32[4] out) outer(4) { stage { … } }
/// %2 = store(%1)      -->      call @relu_0(s0, s1)
/// ```
#[derive(Clone, Default, Debug)]
pub struct Lower;

impl Settings for Lower {
    const NAME: &'static str = "lower";
    const SUMMARY: &'static str = "makes structured kernels of a graph whose kernels are chosen";
    const SETTINGS: &'static [Setting<Lower>] = &[];
}

impl Pass for Lower {
    fn name(&self) -> &'static str {
        Lower::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        let Module::Tensor(g) = &m else {
            return Err(PassError::level(Lower::NAME, Level::Tensor, &m));
        };
        // Where nothing is stored, kernels are not chosen yet.
        let is_early = g.nodes.iter().all(|n| !matches!(n.op.role(), Role::Store));
        let program = lower::to_structured(g).map_err(|e| PassError {
            refused: is_early,
            ..PassError::at(Lower::NAME, e)
        })?;
        cx.counts.add("kernels", program.kernels.len());
        Ok(Module::Structured(program))
    }
}

/// `choose`: every structured kernel gets the schedule that it has anyway, for all to see.
///
/// ```text
/// kernel @relu_0(…) outer(4) {          kernel @relu_0(…) outer(4) {
///   stage { … }                  -->      schedule points{along=0, lanes=4, …}
/// }                                       stage { … } }
/// ```
#[derive(Clone, Default, Debug)]
pub struct Choose;

impl Settings for Choose {
    const NAME: &'static str = "choose";
    const SUMMARY: &'static str = "writes the schedule that is chosen for each structured kernel into it";
    const SETTINGS: &'static [Setting<Choose>] = &[];
}

impl Pass for Choose {
    fn name(&self) -> &'static str {
        Choose::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        match &m {
            Module::Structured(s) => Ok(Module::Structured(chosen(s, &Machine::of(&cx.target)))),
            _ => Err(PassError::level(Choose::NAME, Level::Structured, &m)),
        }
    }
}

/// `schedule`: structured kernels become loop nests, each by its own schedule or else by the chosen one.
///
/// ```text
/// kernel @relu_0(…) outer(4) {          loops @relu_0(…) {
///   stage { … }                  -->      for i1 parallel(… from 40000) 0..1 { … } }
/// }
/// ```
#[derive(Clone, Default, Debug)]
pub struct ScheduleKernels;

impl Settings for ScheduleKernels {
    const NAME: &'static str = "schedule";
    const SUMMARY: &'static str =
        "makes loop nests of structured kernels, by their schedules or the ones that are chosen";
    const SETTINGS: &'static [Setting<ScheduleKernels>] = &[];
}

impl Pass for ScheduleKernels {
    fn name(&self) -> &'static str {
        ScheduleKernels::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        let Module::Structured(s) = m else {
            return Err(PassError::level(ScheduleKernels::NAME, Level::Structured, &m));
        };
        let loops = to_loops_with_sources(s, &Machine::of(&cx.target));
        let (program, sources) = loops.map_err(|e| PassError {
            refused: e.given,
            ..PassError::new(ScheduleKernels::NAME, e.message)
        })?;
        cx.sources = Some(sources);
        cx.counts.add("kernels scheduled", program.kernels.len());
        Ok(Module::Loops(program))
    }
}

/// `plan-memory`: every temporary gets an offset in one arena.
///
/// ```text
/// temp s4: f32[64]             temp s4: f32[64] at 0
/// temp s5: f32[64]      -->    temp s5: f32[64] at 256
/// ```
#[derive(Clone, Default, Debug)]
pub struct PlanMemory;

impl Settings for PlanMemory {
    const NAME: &'static str = "plan-memory";
    const SUMMARY: &'static str = "places temporaries in one arena";
    const SETTINGS: &'static [Setting<PlanMemory>] = &[];
}

impl Pass for PlanMemory {
    fn name(&self) -> &'static str {
        PlanMemory::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        match m {
            Module::Loops(mut p) if p.arena.is_none() => {
                // All that can be wrong is that the model is too large.
                memory::plan(&mut p).map_err(|e| PassError::new(PlanMemory::NAME, e).refused())?;
                let temporaries = p.slots.iter().filter(|s| matches!(s.storage, Storage::Temp(_)));
                cx.counts.add("temporaries placed", temporaries.count());
                Ok(Module::Loops(p))
            }
            m => Err(PassError::level(PlanMemory::NAME, Level::Loops, &m)),
        }
    }
}
