//! NVIDIA GPUs: schedules of blocks and threads, printed as PTX, which the driver assembles.

use super::{Backend, Input};
use brolga_codegen::listing::Listing;
use brolga_codegen::{Error, ptx};
use brolga_ir::Target;

/// The back end of GPUs.
pub(crate) struct Ptx;

impl Backend for Ptx {
    fn targets(&self) -> &'static [Target] {
        const { &Target::GPUS }
    }

    fn listings(&self, i: Input) -> Result<Vec<Listing>, Error> {
        let arch = i.target.gpu().ok_or_else(|| Error::Target {
            name: i.target.name.to_owned(),
            what: "a CPU, expected a GPU for PTX".into(),
        })?;
        let asm = ptx::print_program(i.program, arch)?;
        Ok(vec![Listing {
            name: i.prefix.to_owned(),
            ir: String::new(),
            bytes: asm.len(),
            asm,
            refers: vec![],
        }])
    }
}
