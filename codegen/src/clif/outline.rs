//! Functions that others call: each is local to its module, and is defined in it when it is first used.

use super::unit::Unit;
use crate::Error;
use cranelift_module::FuncId;
use std::borrow::Cow;

/// A function that stands apart, because it is too long to repeat at every use or not Cranelift's.
pub(crate) trait Outline {
    /// Its name in the module. Two of one name are the same function.
    fn name(&self) -> Cow<'static, str>;

    /// Defines it under that name.
    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error>;
}

impl Unit<'_> {
    /// A function, defined unless it is already.
    pub(crate) fn outline(&mut self, f: &impl Outline) -> Result<FuncId, Error> {
        let name = f.name();
        if let Some(id) = self.outlined.get(&name) {
            return Ok(*id);
        }
        let id = f.define(self, &name)?;
        self.outlined.insert(name, id);
        Ok(id)
    }
}
