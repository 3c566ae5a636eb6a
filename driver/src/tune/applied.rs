//! Records are applied: kernels of a program get the schedules that were kept for them.
//!
//! A record is for a kernel of exactly this text, on this target and CPU, and its schedule has to be legal there. Whatever is
//! not applied is said, with the reason.

use super::record::{Log, Missing, Place};
use crate::kernels;
use brolga_ir::schedule::Schedule;
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, apply, fits, inlines};
use std::fmt;

/// What became of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The kernel's name in the program.
    pub kernel: String,
    /// The schedule it got, and its time over what it was in the record; or why it got none.
    pub result: Result<(Schedule, f64), Why>,
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
        });
    }
    Ok(out)
}

/// What was applied, in a line.
pub fn summary(all: &[Applied]) -> String {
    let count = |f: &dyn Fn(&Applied) -> bool| all.iter().filter(|a| f(a)).count();
    let tuned = count(&|a| a.result.is_ok());
    let none = count(&|a| a.result == Err(Why::Missing(Missing::None)));
    let foreign = count(&|a| matches!(a.result, Err(Why::Missing(Missing::Target(_) | Missing::Cpu(_)))));
    let illegal = count(&|a| matches!(a.result, Err(Why::Illegal(_) | Why::Own)));
    let mut out = format!("{tuned} of {} kernels are tuned", all.len());
    for (n, what) in [
        (none, "have no record"),
        (foreign, "have records of another machine only"),
        (illegal, "have a record that cannot be applied"),
    ] {
        if n > 0 {
            out += &format!(", {n} {what}");
        }
    }
    out
}
