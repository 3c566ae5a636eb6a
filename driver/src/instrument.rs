//! Who watches passes while they run: shown the module before and after each, with what it took and what it counted.
//!
//! Invariant: an instrument sees and changes nothing, and its own time is none of a pass's.

use brolga_passes::module::{Module, Size};
use brolga_passes::pass::{Counts, Pass};
use std::time::Duration;

/// Who watches.
pub trait Instrument: Send + Sync {
    /// A pass is about to run on a module.
    fn before(&self, _pass: &dyn Pass, _module: &Module) {}
    /// A pass has run, and what it gave is valid as far as that is checked.
    fn after(&self, _ran: &Ran) {}
}

/// A pass that has run.
pub struct Ran<'a> {
    /// The pass.
    pub pass: &'a dyn Pass,
    /// How large the module was before it.
    pub before: Size,
    /// The module behind it.
    pub module: &'a Module,
    /// How long it took, with the check of its result where there is one.
    pub took: Duration,
    /// What it counted.
    pub counts: &'a Counts,
}
