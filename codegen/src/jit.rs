//! Code in the memory of this process.
//!
//! Invariant: the memory is one region, reserved up front so that calls inside it always reach; it is freed when the
//! [`Jit`] is dropped, so nobody may run its functions after that. It is immutable once made, hence shared freely.

use crate::target::{cpu, isa};
use crate::{Error, Unit};
use brolga_ir::{Symbol, Target};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Module};
use std::mem::ManuallyDrop;

/// Address space for one program's code; pages are taken as they are used.
const RESERVE: usize = 256 << 20;

/// Machine code of this process.
pub struct Jit {
    module: ManuallyDrop<JITModule>,
    /// Its functions, and the bytes of each.
    functions: Vec<(FuncId, usize)>,
}

/// Where a function's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its symbol.
    pub name: String,
    /// The address of its first byte.
    pub address: usize,
    /// Bytes of code, and of constants behind it.
    pub bytes: usize,
}

// SAFETY: after `Jit::new` the module is only asked for addresses (through `get_finalized_function`, which reads tables),
// never changed; its interior mutability is a cache of symbols that is not used any more.
unsafe impl Sync for Jit {}

impl Jit {
    /// Compiles what `build` puts into a unit, and makes it executable.
    ///
    /// # Errors
    /// Those of `build`; when the target is not this machine's; when there is no executable memory.
    pub fn new<T>(
        target: &Target,
        prefix: &str,
        symbols: &[Symbol],
        build: impl FnOnce(&mut Unit) -> Result<T, Error>,
    ) -> Result<(Jit, T), Error> {
        if !crate::target::runs_here(target) {
            return Err(Error::Target {
                name: target.name.to_owned(),
                what: format!(
                    "this machine's CPU has no {}; expected code for it or an older level",
                    target.name
                ),
            });
        }
        let isa = isa(target)?;
        let memory = ArenaMemoryProvider::new_with_size(RESERVE).map_err(|e| Error::Memory(e.to_string()))?;
        let mut builder = JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
        builder.memory_provider(Box::new(memory));
        // From here on the memory is freed whichever way this function is left.
        let mut jit = Jit {
            module: ManuallyDrop::new(JITModule::new(builder)),
            functions: vec![],
        };
        let mut unit = Unit::new(&mut *jit.module, isa, cpu(target)?, prefix, symbols);
        let made = build(&mut unit)?;
        unit.finish()?;
        jit.functions = std::mem::take(&mut unit.sizes);
        jit.module
            .finalize_definitions()
            .map_err(|e| Error::Memory(e.to_string()))?;
        Ok((jit, made))
    }

    /// The address of a function that was defined; valid as long as this value lives.
    pub fn address(&self, id: FuncId) -> *const u8 {
        self.module.get_finalized_function(id)
    }

    /// Where all its functions are, in the order in which they were built.
    pub fn functions(&self) -> Vec<Placed> {
        let placed = |(id, bytes): &(FuncId, usize)| Placed {
            name: self
                .module
                .declarations()
                .get_function_decl(*id)
                .linkage_name(*id)
                .into_owned(),
            address: self.address(*id).addr(),
            bytes: *bytes,
        };
        self.functions.iter().map(placed).collect()
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // SAFETY: the module is not used again, and callers promise that none of its functions run any more.
        unsafe {
            ManuallyDrop::take(&mut self.module).free_memory();
        }
    }
}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jit")
    }
}
