//! The modules behind every pass on the way from a graph to its program.

use crate::Result;
use crate::instrument::{Instrument, Ran};
use crate::levels::{Level, Module, Walk};
use crate::options::Options;
use brolga_ir::Graph;
use brolga_passes::pass::Counts;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Keeps every module.
#[derive(Default)]
struct Keep(Mutex<Vec<Trace>>);

impl Instrument for Keep {
    fn after(&self, ran: &Ran) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Trace {
            name: ran.pass.name().to_owned(),
            options: ran.pass.options(),
            module: ran.module.clone(),
            counts: ran.counts.clone(),
        });
    }
}

/// What every pass makes of a graph, down to a planned program.
///
/// # Errors
/// When a pass fails.
pub fn trace(g: &Graph, options: &Options) -> Result<Vec<Trace>> {
    let keep = Arc::new(Keep::default());
    let options = Options {
        instrument: Some(keep.clone()),
        reproducers: None,
        sizes: vec![],
        ..options.clone()
    };
    Walk::new(Module::Tensor(g.clone()), &options)?.down(Level::Program)?;
    let traced = std::mem::take(&mut *keep.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(traced)
}
