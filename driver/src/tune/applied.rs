//! Records are applied: graphs are decided about as they were, kernels get the schedules that were kept for them.
//!
//! A record is for a kernel or a graph of exactly this text, on this target and CPU, and its schedule has to be legal there. Whatever
//! is not applied is said, with the reason.

use super::programs;
use super::record::{Line, Log, Missing, Place};
use crate::kernels;
use brolga_ir::schedule::Schedule;
use brolga_ir::{Graph, Target};
use brolga_passes::eqsat::{Decide, Decided, Decision};
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, apply, fits, inlines};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What became of the records of a model.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tuned {
    /// Of kernels, in the order of their first calls.
    pub kernels: Vec<Applied>,
    /// Of decisions about the whole program.
    pub decided: Vec<Decided>,
    /// Why what was recorded about the whole program was not looked at.
    pub elsewhere: Option<Missing>,
}

/// What became of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The kernel's name in the program.
    pub kernel: String,
    /// The schedule it got, and its time over what it was in the record; or why it got none.
    pub result: Result<(Schedule, f64), Why>,
    /// Whether the record is the cost model's word, and nothing was timed.
    pub predicted: bool,
}

/// Why a kernel got no schedule.
#[derive(Clone, PartialEq, Debug)]
pub enum Why {
    /// There is none in the log.
    Missing(Missing),
    /// The kernel carries its own.
    Own,
    /// It is not legal for the kernel, or for this machine.
    Illegal(String),
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = &self.kernel;
        match &self.result {
            Ok((s, ratio)) if self.predicted => {
                write!(f, "kernel @{kernel}: {s} (predicted to take {ratio:.2} of the time)")
            }
            Ok((s, ratio)) => write!(f, "kernel @{kernel}: tuned, {s} (took {ratio:.2} of the time)"),
            Err(Why::Missing(Missing::None)) => write!(f, "kernel @{kernel}: no record"),
            Err(Why::Missing(Missing::Target(t))) => {
                write!(f, "kernel @{kernel}: not applied: its records are for {t}")
            }
            Err(Why::Missing(Missing::Cpu(c))) => write!(
                f,
                "kernel @{kernel}: not applied: its records were made on another CPU, {c}"
            ),
            Err(Why::Own) => write!(f, "kernel @{kernel}: not applied: it carries a schedule of its own"),
            Err(Why::Illegal(e)) => write!(
                f,
                "kernel @{kernel}: not applied: its record is not legal any more: {e}"
            ),
        }
    }
}

/// Gives the kernels of a program that its runs call the schedules of a log.
///
/// # Errors
/// When a kernel is not valid.
pub fn apply_log(program: &mut Structured, log: &Log, here: &Place, machine: &Machine) -> Result<Vec<Applied>, String> {
    let mut out = vec![];
    for found in kernels::of_program(program)? {
        let kernel = &mut program.kernels[found.kernel];
        let result = match (&kernel.schedule, log.best(&found.workload.key(), here)) {
            (Some(_), Ok(_)) => Err(Why::Own),
            (_, Err(missing)) => Err(Why::Missing(missing)),
            (None, Ok(kept)) => {
                let schedule: Result<Schedule, _> = kept.schedule.parse();
                let legal = schedule.map_err(|e| e.to_string()).and_then(|s| {
                    if !fits(&s, machine) {
                        return Err("it is for another kind of machine".into());
                    }
                    if found.in_place && inlines(&s) {
                        return Err("it computes locals again, but a result lies over an operand".into());
                    }
                    apply(kernel, &s).map(|_| s)
                });
                legal.map(|s| (s, kept.ratio)).map_err(Why::Illegal)
            }
        };
        if let Ok((s, _)) = &result {
            kernel.schedule = Some(s.clone());
        }
        out.push(Applied {
            kernel: found.name,
            result,
            predicted: here.predicted(),
        });
    }
    Ok(out)
}

impl fmt::Display for Tuned {
    /// What was applied, in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: &dyn Fn(&Applied) -> bool| self.kernels.iter().filter(|a| is(a)).count();
        let tuned = count(&|a| a.result.is_ok());
        let none = count(&|a| a.result == Err(Why::Missing(Missing::None)));
        let foreign = count(&|a| matches!(a.result, Err(Why::Missing(Missing::Target(_) | Missing::Cpu(_)))));
        let illegal = count(&|a| matches!(a.result, Err(Why::Illegal(_) | Why::Own)));
        write!(f, "{tuned} of {} kernels are tuned", self.kernels.len())?;
        for (n, what) in [
            (none, "have no record"),
            (foreign, "have records of another machine only"),
            (illegal, "have a record that cannot be applied"),
        ] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        let taken = self.decided.iter().filter(|d| d.result.is_ok()).count();
        match (&self.elsewhere, self.decided.len()) {
            (Some(_), _) => f.write_str("; what was decided about the program was for another machine"),
            (None, 0) => Ok(()),
            (None, all) => write!(f, "; {taken} of {all} decisions about the program are taken"),
        }
    }
}

/// Records that decide about graphs.
pub struct Recorded {
    log: Arc<Log>,
    here: Place,
    /// Why there was nothing to take for the last graph that there are records about.
    elsewhere: Mutex<Option<Missing>>,
}

impl Recorded {
    /// The decisions of a log for this machine; `None` where it has none for any.
    pub fn of(log: &Arc<Log>, target: &Target) -> Option<Arc<Recorded>> {
        let any = log.lines.iter().any(|l| matches!(l, Line::Graph(..)));
        any.then(|| {
            Arc::new(Recorded {
                log: log.clone(),
                here: Place::here(target, 0),
                elsewhere: Mutex::new(None),
            })
        })
    }

    /// Why nothing was taken though there are records.
    pub fn elsewhere(&self) -> Option<Missing> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Decide for Recorded {
    fn decisions(&self, graph: &Graph) -> Vec<Decision> {
        let key = programs::key(graph);
        match self.log.choice(&key, &self.here) {
            Ok(c) => c.decisions.iter().filter_map(|d| d.parse().ok()).collect(),
            Err(Missing::None) => vec![],
            Err(missing) => {
                *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = Some(missing);
                vec![]
            }
        }
    }

    fn accepts(&self, graph: &Graph, cut: &Graph) -> bool {
        let key = programs::key(graph);
        match self.log.choice(&key, &self.here) {
            Ok(c) => c.program == programs::key(cut),
            Err(_) => true,
        }
    }
}
