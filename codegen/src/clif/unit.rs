//! What all functions of one module share.
//!
//! Invariant: the order of definitions is a function of the program alone.

use super::cpu::CpuCheck;
use super::emit::Emit;
use crate::Error;
use crate::listing::Listing;
use crate::target::call_conv;
use brolga_ir::{CpuTarget, Symbol};
use cranelift_codegen::ir::{AbiParam, Signature, Type, UserFuncName};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module};
use rustc_hash::FxHashMap;
use std::borrow::Cow;

/// A module under construction and what has been defined in it.
pub struct Unit<'m> {
    pub(crate) module: &'m mut (dyn Module + 'm),
    pub(crate) target: CpuTarget,
    pub(crate) prefix: String,
    /// The program's symbols, in the order of `dims`.
    pub(crate) symbols: Vec<Symbol>,
    /// Functions that others call, by name.
    pub(super) outlined: FxHashMap<Cow<'static, str>, FuncId>,
    /// Where entry functions look whether the CPU fits, when they do.
    pub(super) cpu: Option<CpuCheck>,
    /// Text of every function, when wanted.
    pub(crate) listings: Option<Vec<Listing>>,
}

impl<'m> Unit<'m> {
    /// A unit over an empty module for `target`. Names of functions begin with `prefix`.
    pub fn new(module: &'m mut (dyn Module + 'm), target: &CpuTarget, prefix: &str, symbols: &[Symbol]) -> Unit<'m> {
        Unit {
            module,
            target: target.clone(),
            prefix: prefix.to_owned(),
            symbols: symbols.to_vec(),
            outlined: FxHashMap::default(),
            cpu: None,
            listings: None,
        }
    }

    /// Keeps CLIF and assembly of every function that is compiled from now on.
    pub fn keep_listings(&mut self) {
        self.listings.get_or_insert_default();
    }

    /// The texts kept so far, in the order of definition.
    pub fn take_listings(&mut self) -> Vec<Listing> {
        self.listings.take().unwrap_or_default()
    }

    /// The signature of a function in the ABI's calling convention.
    pub(crate) fn signature(&self, params: &[Type], result: Option<Type>) -> Signature {
        let mut s = Signature::new(call_conv(self.module.isa().triple()));
        s.params.extend(params.iter().map(|t| AbiParam::new(*t)));
        s.returns.extend(result.map(AbiParam::new));
        s
    }

    pub(crate) fn declare(&mut self, name: &str, linkage: Linkage, signature: &Signature) -> Result<FuncId, Error> {
        self.module
            .declare_function(name, linkage, signature)
            .map_err(|e| Error::Cranelift {
                function: name.to_owned(),
                what: e.to_string(),
            })
    }

    /// Builds and compiles a declared function; `build` starts in the entry block, which has the parameters.
    pub(crate) fn define(
        &mut self,
        id: FuncId,
        build: impl FnOnce(&mut Emit) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut ctx = self.module.make_context();
        let decl = self.module.declarations().get_function_decl(id);
        let name = decl.linkage_name(id).into_owned();
        ctx.func.signature = decl.signature.clone();
        ctx.func.name = UserFuncName::user(0, id.as_u32());
        let mut frontend = FunctionBuilderContext::new();
        let config = self.module.target_config();
        {
            let mut e = Emit::new(FunctionBuilder::new(&mut ctx.func, &mut frontend), self);
            build(&mut e)?;
            e.b.seal_all_blocks();
            e.b.finalize(config);
        }
        let clif = self.listings.is_some().then(|| ctx.func.display().to_string());
        ctx.set_disasm(clif.is_some());
        self.module
            .define_function(id, &mut ctx)
            .map_err(|e| Error::Cranelift {
                function: name.clone(),
                what: match e {
                    cranelift_module::ModuleError::Compilation(c) => {
                        cranelift_codegen::print_errors::pretty_error(&ctx.func, c)
                    }
                    other => other.to_string(),
                },
            })?;
        if let (Some(listings), Some(clif)) = (&mut self.listings, clif) {
            let code = ctx.compiled_code();
            let vcode = code.and_then(|c| c.vcode.clone()).unwrap_or_default();
            let bytes = code.map_or(&[][..], |c| c.code_buffer());
            listings.push(Listing::new(name, clif, bytes, vcode, self.target.cpu));
        }
        Ok(())
    }
}
