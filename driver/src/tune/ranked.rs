//! Candidates by the cost model alone, for machines that are not here: GPUs.
//!
//! The search is the one that times candidates, and asks a [`Ranked`] instead of a worker, and for the whole model too. What it keeps is
//! predicted to be faster, by more than a margin, and nothing more: its records say so, and so does whoever applies them.

use super::duel::MARGIN;
use super::home::{AtHome, Home};
use super::record::{Outcome, PREDICTED};
use super::worker::{Job, Measure, Measured};
use crate::{Error, Result};
use brolga_ir::Target;
use brolga_ir::schedule::Schedule;
use brolga_passes::cost::{GpuModel, Predictor};
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, to_loops};

/// Whoever says how long things take without running them.
pub struct Ranked {
    machine: Machine,
    model: GpuModel,
    /// Sizes of symbolic dimensions of whole models.
    sizes: Vec<(String, i64)>,
    /// The job, and the seconds of its incumbent.
    job: Option<(Job, f64)>,
}

impl Ranked {
    /// For a GPU; `None` for a CPU, where candidates are timed.
    pub fn of(target: &Target, sizes: &[(String, i64)]) -> Option<Ranked> {
        Some(Ranked {
            machine: Machine::of(target),
            model: GpuModel::of(target)?,
            sizes: sizes.to_vec(),
            job: None,
        })
    }

    fn seconds(&self, job: &Job, schedule: &Schedule) -> Result<f64, String> {
        let predicted = job
            .workload
            .predict(schedule, &job.sizes, &self.machine, &Predictor::Gpu(self.model));
        predicted.ok_or_else(|| format!("{schedule}: it is no schedule for this kernel"))
    }

    fn whole(&self, program: &Structured) -> Result<f64> {
        let loops = to_loops(program, &self.machine).map_err(|e| Error::Option(format!("{}: {e}", program.name)))?;
        let size = |s: &str| self.sizes.iter().find(|(n, _)| n == s).map(|(_, n)| *n);
        Ok(self.model.program(&loops, &size))
    }
}

impl Measure for Ranked {
    fn start(&mut self, job: &Job, incumbent: &Schedule) -> Result<f64, String> {
        let seconds = self.seconds(job, incumbent)?;
        self.job = Some((job.clone(), seconds));
        Ok(seconds)
    }

    fn trial(&mut self, candidate: &Schedule) -> Measured {
        let Some((job, before)) = &self.job else {
            return Measured::lost(Outcome::Refused, "no job was started".into());
        };
        match self.seconds(job, candidate) {
            Err(e) => Measured::lost(Outcome::Refused, e),
            Ok(after) => Measured {
                outcome: match after * (1.0 + MARGIN) < *before {
                    true => Outcome::Faster,
                    false => Outcome::NotFaster,
                },
                check: PREDICTED.into(),
                pairs: vec![(*before, after)],
                compile: 0.0,
            },
        }
    }

    fn take(&mut self, candidate: &Schedule) {
        if let Some((job, _)) = self.job.take()
            && let Ok(seconds) = self.seconds(&job, candidate)
        {
            self.job = Some((job, seconds));
        }
    }
}

impl Home for Ranked {
    fn compare(&mut self, untuned: &Structured, tuned: &Structured) -> Result<AtHome> {
        let (before, after) = (self.whole(untuned)?, self.whole(tuned)?);
        Ok(AtHome {
            kept: after < before,
            ratio: after / before.max(f64::MIN_POSITIVE),
            untuned: before,
        })
    }

    /// Inside of a model a kernel is predicted to take what it takes alone, so the whole model tells.
    fn kernels(&mut self, programs: &[Structured], round: &mut dyn FnMut(&[Vec<f64>]) -> bool) -> Result<()> {
        let none: Vec<Vec<f64>> = programs.iter().map(|p| vec![0.0; p.kernels.len()]).collect();
        round(&none);
        Ok(())
    }
}
