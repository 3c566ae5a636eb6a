//! Object files: the exported functions of a program, its local kernels, and its weights where they are embedded.
//!
//! Invariant: nothing is undefined but `mem*`, and the bytes are a function of program, target and weights.

use crate::target::{cpu, isa};
use crate::{Error, Unit};
use brolga_ir::{Symbol, Target};
use cranelift_module::{DataDescription, Linkage, Module};
use cranelift_object::{ObjectBuilder, ObjectModule};

/// The bytes of an object file with what `build` puts into a unit, and `weights` under the symbol `PREFIX_weights`.
///
/// # Errors
/// Those of `build`.
pub fn object<T>(
    target: &Target,
    prefix: &str,
    symbols: &[Symbol],
    weights: Option<&[u8]>,
    build: impl FnOnce(&mut Unit) -> Result<T, Error>,
) -> Result<(Vec<u8>, T), Error> {
    let fail = |what: String| Error::Cranelift {
        function: prefix.to_owned(),
        what,
    };
    let isa = isa(target)?;
    let builder = ObjectBuilder::new(isa.clone(), prefix, cranelift_module::default_libcall_names());
    let mut module = ObjectModule::new(builder.map_err(|e| fail(e.to_string()))?);
    let mut unit = Unit::new(&mut module, isa, cpu(target)?, prefix, symbols);
    let made = build(&mut unit)?;
    unit.finish()?;
    if let Some(bytes) = weights {
        let name = format!("{prefix}_weights");
        let id = module
            .declare_data(&name, Linkage::Export, false, false)
            .map_err(|e| fail(e.to_string()))?;
        let mut data = DataDescription::new();
        data.set_align(64);
        // An empty object has no bytes to stand for; C wants an address all the same.
        data.define(if bytes.is_empty() { vec![0] } else { bytes.to_vec() }.into_boxed_slice());
        module.define_data(id, &data).map_err(|e| fail(e.to_string()))?;
    }
    let bytes = module.finish().emit().map_err(|e| fail(e.to_string()))?;
    Ok((bytes, made))
}
