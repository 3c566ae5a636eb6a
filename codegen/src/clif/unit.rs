//! What all functions of one module share.
//!
//! Invariant: the order of definitions is a function of the program alone, whether functions are compiled as they are built or
//! by other threads as well ([`Unit::share`]).

use super::cpu::CpuCheck;
use super::emit::Emit;
use crate::Error;
use crate::listing::Listing;
use crate::queue::{Code, Compiler, Definition, Job, Queue};
use crate::target::call_conv;
use brolga_abi::StepHook;
use brolga_ir::{CpuTarget, Symbol};
use cranelift_codegen::ir::{AbiParam, Function, Signature, Type, UserFuncName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, ModuleRelocTarget};
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::sync::Arc;

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
    /// What `NAME_run` calls around each step, when it does.
    pub(crate) hook: Option<StepHook>,
    /// Functions that are in the module, and their bytes.
    pub(crate) sizes: Vec<(FuncId, usize)>,
    isa: OwnedTargetIsa,
    /// Where functions wait for whoever compiles them, when it is not done at once.
    queue: Option<Arc<Queue>>,
    compiler: Compiler,
    /// What functions are built with, one for each that is open.
    builders: Vec<FunctionBuilderContext>,
}

impl<'m> Unit<'m> {
    /// A unit over an empty module for `target`. Names of functions begin with `prefix`.
    pub(crate) fn new(
        module: &'m mut (dyn Module + 'm),
        isa: OwnedTargetIsa,
        target: &CpuTarget,
        prefix: &str,
        symbols: &[Symbol],
    ) -> Unit<'m> {
        Unit {
            module,
            isa,
            target: target.clone(),
            prefix: prefix.to_owned(),
            symbols: symbols.to_vec(),
            outlined: FxHashMap::default(),
            cpu: None,
            listings: None,
            hook: None,
            sizes: vec![],
            queue: None,
            compiler: Compiler::new(),
            builders: vec![],
        }
    }

    /// Lets the threads that work on a queue help to compile what is built from now on. The queue is this unit's alone, and
    /// whoever made it closes it where the unit comes to nothing.
    pub fn share(&mut self, queue: &Arc<Queue>) {
        self.queue = Some(queue.clone());
    }

    /// Lets `NAME_run` call a function of this process around each step: its address stands in the code, which is of no use
    /// anywhere else.
    pub fn call_around_steps(&mut self, hook: StepHook) {
        self.hook = Some(hook);
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
        let decl = self.module.declarations().get_function_decl(id);
        let name = decl.linkage_name(id).into_owned();
        let mut function = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), decl.signature.clone());
        let mut builder = self.builders.pop().unwrap_or_default();
        let config = self.module.target_config();
        {
            let mut e = Emit::new(FunctionBuilder::new(&mut function, &mut builder), self);
            build(&mut e)?;
            e.b.seal_all_blocks();
            e.b.finalize(config);
        }
        self.builders.push(builder);
        let clif = self.listings.is_some().then(|| function.display().to_string());
        let job = Job {
            id,
            name: name.clone(),
            function,
            isa: self.isa.clone(),
            listed: clif.is_some(),
        };
        if let (Some(queue), None) = (&self.queue, &clif) {
            queue.push(job);
            return Ok(());
        }
        let mut code = self.compiler.compile(job)?;
        if let (Some(listings), Some(clif)) = (&mut self.listings, clif) {
            let text = code.text.take().unwrap_or_default();
            let mut listing = Listing::new(name, clif, &code.bytes, text, self.target.cpu);
            for r in &code.relocations {
                if let ModuleRelocTarget::User { namespace: 0, index } = r.name {
                    let id = FuncId::from_u32(index);
                    let decl = self.module.declarations().get_function_decl(id);
                    let symbol = decl.linkage_name(id).into_owned();
                    if !listing.refers.contains(&symbol) {
                        listing.refers.push(symbol);
                    }
                }
            }
            listings.push(listing);
        }
        self.put(Definition::Function(code))
    }

    /// Defines a function by its machine code, which refers to nothing.
    pub(crate) fn define_bytes(&mut self, id: FuncId, bytes: Vec<u8>) -> Result<(), Error> {
        self.put(Definition::Function(Code {
            id,
            alignment: 32,
            bytes,
            relocations: vec![],
            text: None,
        }))
    }

    /// Declares data without a name, and defines them.
    pub(crate) fn define_data(&mut self, writable: bool, data: DataDescription) -> Result<DataId, Error> {
        let id = self.module.declare_anonymous_data(writable, false);
        let id = id.map_err(|e| Error::Cranelift {
            function: self.prefix.clone(),
            what: e.to_string(),
        })?;
        self.put(Definition::Data(id, data))?;
        Ok(id)
    }

    fn put(&mut self, made: Definition) -> Result<(), Error> {
        match &self.queue {
            Some(queue) => {
                queue.push_made(made);
                Ok(())
            }
            None => self.put_into_module(&made),
        }
    }

    fn put_into_module(&mut self, made: &Definition) -> Result<(), Error> {
        let defined = match made {
            Definition::Function(c) => {
                self.sizes.push((c.id, c.bytes.len()));
                self.module
                    .define_function_bytes(c.id, c.alignment, &c.bytes, &c.relocations)
            }
            Definition::Data(id, data) => self.module.define_data(*id, data),
        };
        defined.map_err(|e| {
            let function = match made {
                Definition::Function(c) => {
                    let decl = self.module.declarations().get_function_decl(c.id);
                    decl.linkage_name(c.id).into_owned()
                }
                Definition::Data(..) => self.prefix.clone(),
            };
            Error::Cranelift {
                function,
                what: e.to_string(),
            }
        })
    }

    /// Puts everything into the module, once all functions are built.
    ///
    /// # Errors
    /// What Cranelift refuses.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let Some(queue) = self.queue.take() else {
            return Ok(());
        };
        queue.finish()?.iter().try_for_each(|made| self.put_into_module(made))
    }
}
