//! The modules behind every pass on the way from a graph to its program.

use crate::caught::caught;
use crate::instrument::{Instrument, Ran};
use crate::levels::{Level, Module, Walk};
use crate::options::Options;
use crate::{Error, Result};
use brolga_ir::Graph;
use brolga_passes::pass::{Counts, Pass};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A pass that has run.
#[derive(Clone)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// Its options, as a pipeline writes them.
    pub options: String,
    /// The module behind it.
    pub module: Module,
    /// What it counted.
    pub counts: Counts,
}

/// The passes that have run, and the one that failed.
#[derive(Clone, Default)]
pub struct Traced {
    /// Those that gave a module.
    pub steps: Vec<Trace>,
    /// The name of the one behind them that gave none, and why.
    pub failed: Option<(String, String)>,
}

/// Keeps every module.
#[derive(Default)]
struct Keep(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    steps: Vec<Trace>,
    /// The pass that runs.
    running: String,
}

impl Keep {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instrument for Keep {
    fn before(&self, pass: &dyn Pass, _: &Module) {
        self.kept().running = pass.name().to_owned();
    }

    fn after(&self, ran: &Ran) {
        self.kept().steps.push(Trace {
            name: ran.pass.name().to_owned(),
            options: ran.pass.options(),
            module: ran.module.clone(),
            counts: ran.counts.clone(),
        });
    }
}

/// What every pass makes of a graph, down to a planned program, or to where one fails or panics.
///
/// # Errors
/// When the pipeline's text is wrong.
pub fn trace(g: &Graph, options: &Options) -> Result<Traced> {
    let keep = Arc::new(Keep::default());
    let options = Options {
        instrument: Some(keep.clone()),
        reproducers: None,
        sizes: vec![],
        ..options.clone()
    };
    let walk = || {
        Walk::new(Module::Tensor(g.clone()), &options)?
            .down(Level::Program)
            .map(|_| ())
    };
    let walked = caught(walk);
    let kept = std::mem::take(&mut *keep.kept());
    let failed = match walked {
        Ok(Ok(())) => None,
        Ok(Err(Error::Passes { source, .. })) => Some((source.pass.to_owned(), source.error.to_string())),
        Ok(Err(e)) => return Err(e),
        Err(panicked) => Some((kept.running, panicked)),
    };
    Ok(Traced {
        steps: kept.steps,
        failed,
    })
}
