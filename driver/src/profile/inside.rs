//! What structured kernels take inside of a model: for whoever compares schedules there, where caches and threads are as they will be.

use super::steps;
use crate::compile::draft_module;
use crate::levels::Module;
use crate::{Error, Options, Result, Session};
use brolga_passes::lower::Structured;
use brolga_runtime::View;

/// A model whose runs tell what each of its structured kernels takes; nothing of one that is copies, or shares its code with others.
pub struct Inside {
    session: Session,
    /// The structured kernel that a step is of, by the step's number; none where it is of several, or of none.
    kernels: Vec<Option<usize>>,
    count: usize,
}

impl Inside {
    /// Compiles a model, to be run by so many threads (0 is one for each core).
    ///
    /// # Errors
    /// As compiling it.
    pub fn new(program: &Structured, options: &Options, threads: usize) -> Result<Inside> {
        let mut draft = draft_module(Module::Structured(program.clone()), options)?;
        let sources = draft.sources.take().unwrap_or_default();
        let (session, steps) =
            draft.recorded(threads, |compiled, _| Ok(steps::of(&compiled.program, None, &|_| None)))?;
        let kernel = |loops: u32| {
            let mut all = sources.of.get(loops as usize)?.iter().map(|s| s.kernel);
            let first = all.next()?;
            all.all(|k| k == first).then_some(first)
        };
        Ok(Inside {
            kernels: steps.iter().map(|s| s.kernel.and_then(kernel)).collect(),
            session,
            count: program.kernels.len(),
        })
    }

    /// The session that runs.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs on inputs by name; the seconds of all calls of each structured kernel, by its index.
    ///
    /// # Errors
    /// As [`Session::run_named`].
    pub fn run(&self, inputs: &[(&str, View<'_>)]) -> Result<Vec<f64>> {
        let recorder = self.session.executor().recorder();
        let recorder = recorder.ok_or_else(|| Error::Option("the session records nothing".into()))?;
        recorder.take();
        self.session.run_named(inputs)?;
        let mut seconds = vec![0.0; self.count];
        for span in recorder.take().iter().flat_map(|r| &r.steps) {
            if let Some(kernel) = self.kernels.get(span.step as usize).copied().flatten() {
                seconds[kernel] += span.ns() as f64 * 1e-9;
            }
        }
        Ok(seconds)
    }
}
