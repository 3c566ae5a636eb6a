//! Back ends: what each kind of machine needs, from scheduled programs on.
//!
//! | module | makes |
//! | --- | --- |
//! | `native` | loops over vectors and register tiles; machine code in this process, objects, images |
//! | `ptx` | grids of blocks of threads; PTX |
//!
//! Adding one is a module here, its targets in [`brolga_ir::Target`], and a row of [`BACKENDS`].

pub(crate) mod native;
mod ptx;

use brolga_codegen::Error;
use brolga_codegen::listing::Listing;
use brolga_ir::Target;
use brolga_ir::program::{Program, SlotId};
use rustc_hash::FxHashMap;

/// A program and all that decides its code.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The program, scheduled for the target.
    pub program: &'a Program,
    /// The machine.
    pub target: &'a Target,
    /// The prefix of symbols.
    pub prefix: &'a str,
    /// Where constants lie in the weights.
    pub constants: &'a FxHashMap<SlotId, u64>,
}

/// A kind of machine that programs are made for.
pub trait Backend: Sync {
    /// The targets that it is for.
    fn targets(&self) -> &'static [Target];

    /// The program's code as text, one listing for each function or module.
    ///
    /// # Errors
    /// When the code cannot be made.
    fn listings(&self, input: Input) -> Result<Vec<Listing>, Error>;
}

/// Every back end.
pub const BACKENDS: [&dyn Backend; 2] = [&native::Native, &ptx::Ptx];

/// The back end of a target.
pub fn of(target: &Target) -> &'static dyn Backend {
    let names = |b: &&dyn Backend| b.targets().iter().any(|t| t.name == target.name);
    let found = BACKENDS.into_iter().find(names);
    found.expect("every target has a back end, see the test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_one_back_end() {
        for target in Target::all() {
            let mine = BACKENDS.iter().filter(|b| b.targets().contains(&target)).count();
            assert_eq!(mine, 1, "{}", target.name);
        }
    }
}
