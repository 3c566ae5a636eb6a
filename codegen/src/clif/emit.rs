//! What all functions of one module share ([`Unit`]), and the builder of one function ([`Emit`]).
//!
//! Invariant: a helper function or a tile kernel is defined in a module at most once, when it is first used, so the order
//! of definitions is a function of the program alone.

use super::kernel::tile;
use super::outline::Helper;
use crate::Error;
use crate::listing::Listing;
use crate::target::call_conv;
use crate::x86::{TileKey, cpu};
use brolga_ir::{DType, Dim, Symbol, Target};
use cranelift_codegen::ir::condcodes::IntCC::{self, SignedLessThan};
use cranelift_codegen::ir::{
    self, AbiParam, FuncRef, InstBuilder, MemFlagsData, Signature, StackSlot, StackSlotData, StackSlotKind, Type,
    UserFuncName, Value, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module};
use rustc_hash::FxHashMap;

/// A module under construction and what has been defined in it.
pub struct Unit<'m> {
    pub(crate) module: &'m mut (dyn Module + 'm),
    pub(crate) target: Target,
    pub(crate) prefix: String,
    /// The program's symbols, in the order of `dims`.
    pub(crate) symbols: Vec<Symbol>,
    helpers: FxHashMap<Helper, FuncId>,
    tiles: FxHashMap<TileKey, FuncId>,
    generic_tile: Option<FuncId>,
    /// Where entry functions look whether the CPU fits, when they do.
    cpu: Option<CpuCheck>,
    /// Text of every function, when wanted.
    pub(crate) listings: Option<Vec<Listing>>,
}

impl<'m> Unit<'m> {
    /// A unit over an empty module for `target`. Names of functions begin with `prefix`.
    pub fn new(module: &'m mut (dyn Module + 'm), target: &Target, prefix: &str, symbols: &[Symbol]) -> Unit<'m> {
        Unit {
            module,
            target: target.clone(),
            prefix: prefix.to_owned(),
            symbols: symbols.to_vec(),
            helpers: FxHashMap::default(),
            tiles: FxHashMap::default(),
            generic_tile: None,
            cpu: None,
            listings: None,
        }
    }

    /// Lets every entry function that is defined from now on return `CPU_FEATURES` on a CPU that lacks a feature of the
    /// target, before it runs an instruction that needs one. The CPU is asked once: the answer stands in a word of the
    /// module, which makes this fit for object files only. Others know the CPU before they take code.
    ///
    /// # Errors
    /// When the target has a feature that nobody knows to ask for.
    pub fn check_cpu(&mut self) -> Result<(), Error> {
        let features = self.target.features();
        if features.is_empty() {
            return Ok(());
        }
        let name = format!("{}_cpu", self.prefix);
        let bytes = cpu::probe(features)?;
        let signature = self.signature(&[], Some(types::I32));
        let probe = self.declare(&name, Linkage::Local, &signature)?;
        let fail = |e: cranelift_module::ModuleError| Error::Cranelift {
            function: name.clone(),
            what: e.to_string(),
        };
        self.module
            .define_function_bytes(probe, 32, &bytes, &[])
            .map_err(fail)?;
        let answer = self.module.declare_anonymous_data(true, false).map_err(fail)?;
        let mut data = DataDescription::new();
        data.set_align(4);
        data.define_zeroinit(4);
        self.module.define_data(answer, &data).map_err(fail)?;
        self.cpu = Some(CpuCheck { probe, answer });
        Ok(())
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

    pub(crate) fn helper(&mut self, h: Helper) -> Result<FuncId, Error> {
        if let Some(id) = self.helpers.get(&h) {
            return Ok(*id);
        }
        let id = h.define(self)?;
        self.helpers.insert(h, id);
        Ok(id)
    }

    /// The assembled tile kernel of a key.
    pub(crate) fn tile(&mut self, key: TileKey) -> Result<FuncId, Error> {
        if let Some(id) = self.tiles.get(&key) {
            return Ok(*id);
        }
        let name = crate::x86::symbol(key);
        let bytes = crate::x86::assemble_tile(key)?;
        let signature = self.signature(&[types::I64], None);
        let id = self.declare(&name, Linkage::Local, &signature)?;
        self.module
            .define_function_bytes(id, 32, &bytes, &[])
            .map_err(|e| Error::Cranelift {
                function: name.clone(),
                what: e.to_string(),
            })?;
        if let Some(listings) = &mut self.listings {
            let vir = crate::x86::tile::build(key)?.to_string();
            listings.push(Listing::new(name, vir, &bytes, String::new(), self.target.cpu));
        }
        self.tiles.insert(key, id);
        Ok(id)
    }

    /// The tile kernel that Cranelift compiles, for any CPU.
    pub(crate) fn generic_tile(&mut self) -> Result<FuncId, Error> {
        if let Some(id) = self.generic_tile {
            return Ok(id);
        }
        let id = tile::define_generic(self)?;
        self.generic_tile = Some(id);
        Ok(id)
    }
}

/// A function that asks the CPU, and the word that keeps its answer (0 while it has not been asked).
#[derive(Clone, Copy)]
struct CpuCheck {
    probe: FuncId,
    answer: DataId,
}

/// One function under construction.
pub(crate) struct Emit<'a, 'm> {
    pub b: FunctionBuilder<'a>,
    pub unit: &'a mut Unit<'m>,
    entry: ir::Block,
    refs: FxHashMap<FuncId, FuncRef>,
    /// Values that may be used again, by scope; the first scope is the entry block's.
    pub scopes: Vec<FxHashMap<brolga_ir::index::Ix, Value>>,
    /// Pointer to the values of the symbols.
    pub dims: Option<Value>,
    /// Whether steps of dims that go wrong raise the flag, and whether one has.
    pub check: bool,
    pub flag: Option<Value>,
    symbols: FxHashMap<Symbol, Value>,
    /// Float constants of vector loops that are read from memory where they are used.
    pub constants: Option<Constants>,
}

/// Read-only data with constants of a kernel, each repeated over 16 bytes, for kernels that have more constants than there
/// are registers. Cranelift moves what does not change out of a loop, and would spill it there; so the address is loaded
/// inside the loop, from a stack slot that Cranelift cannot see through, and loads through it stay with their uses. A load
/// becomes an operand of the instruction that uses it when it has no other use: hence one copy a chunk.
pub(crate) struct Constants {
    /// Where the data is.
    pub base: Value,
    /// Offsets of the first copies, by the constants' bits repeated to 64.
    pub offsets: FxHashMap<u64, i32>,
    /// How many copies follow each other.
    pub copies: usize,
    slot: StackSlot,
    entry: Value,
}

impl Emit<'_, '_> {
    /// Whether the CPU lacks something, where it is to be asked; to be used before anything else of an entry function. Only
    /// loads, stores, comparisons and a call: every x86-64 has those. Threads that ask at once store the same answer.
    pub fn cpu_lacks(&mut self) -> Option<Value> {
        let check = self.unit.cpu?;
        let flags = MemFlagsData::trusted();
        let word = self.unit.module.declare_data_in_func(check.answer, self.b.func);
        let word = self.b.ins().symbol_value(types::I64, word);
        let before = self.b.ins().load(types::I32, flags, word, 0);
        let (ask, known) = (self.b.create_block(), self.block(&[types::I32]));
        self.b.ins().brif(before, known, &[before.into()], ask, &[]);
        self.b.switch_to_block(ask);
        self.b.seal_block(ask);
        self.b.set_cold_block(ask);
        let answer = self.call_value(check.probe, &[]);
        self.b.ins().store(flags, answer, word, 0);
        self.b.ins().jump(known, &[answer.into()]);
        self.b.switch_to_block(known);
        self.b.seal_block(known);
        let answer = self.b.block_params(known)[0];
        Some(self.b.ins().icmp_imm_s(IntCC::NotEqual, answer, i64::from(cpu::FITS)))
    }

    /// Makes the data; for the entry block.
    pub fn prepare_constants(&mut self, constants: &[u64], copies: usize) -> Result<(), Error> {
        let mut bytes = vec![];
        let mut offsets = FxHashMap::default();
        for c in constants {
            offsets.insert(*c, bytes.len() as i32);
            bytes.extend(std::iter::repeat_n(c.to_le_bytes(), 2 * copies).flatten());
        }
        let base = self.data(bytes)?;
        let slot = self.slot(8, 3);
        let at = self.slot_addr(slot);
        // In halves: a store of the whole would be forwarded to the loads.
        let low = self.b.ins().ireduce(types::I32, base);
        let high = self.b.ins().ushr_imm_u(base, 32);
        let high = self.b.ins().ireduce(types::I32, high);
        self.b.ins().store(element(), low, at, 0);
        self.b.ins().store(element(), high, at, 4);
        self.constants = Some(Constants {
            base,
            offsets,
            copies,
            slot,
            entry: base,
        });
        Ok(())
    }

    /// Reads the address of the constants at the start of a vector loop's body, and forgets it at its end.
    pub fn constants_in_loop(&mut self, inside: bool) {
        let Some((slot, entry)) = self.constants.as_ref().map(|c| (c.slot, c.entry)) else {
            return;
        };
        let base = if inside {
            let at = self.slot_addr(slot);
            self.b.ins().load(types::I64, element(), at, 0)
        } else {
            entry
        };
        if let Some(c) = &mut self.constants {
            c.base = base;
        }
    }
}

/// A load that needs no checks and whose memory does not change while the function runs.
pub(crate) const CONSTANT: MemFlagsData = MemFlagsData::trusted().with_readonly().with_can_move();

/// A load or store of tensor elements: in bounds, but of any alignment.
pub(crate) fn element() -> MemFlagsData {
    MemFlagsData::new()
        .with_notrap()
        .with_endianness(ir::Endianness::Little)
}

impl<'a, 'm> Emit<'a, 'm> {
    fn new(mut b: FunctionBuilder<'a>, unit: &'a mut Unit<'m>) -> Emit<'a, 'm> {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        Emit {
            b,
            unit,
            entry,
            refs: FxHashMap::default(),
            scopes: vec![FxHashMap::default()],
            dims: None,
            check: false,
            flag: None,
            symbols: FxHashMap::default(),
            constants: None,
        }
    }

    /// The function's parameters.
    pub fn params(&self) -> Vec<Value> {
        self.b.block_params(self.entry).to_vec()
    }

    pub fn func_ref(&mut self, id: FuncId) -> FuncRef {
        *self
            .refs
            .entry(id)
            .or_insert_with(|| self.unit.module.declare_func_in_func(id, self.b.func))
    }

    /// Calls a function of the module; the result, when it has one.
    pub fn call(&mut self, id: FuncId, args: &[Value]) -> Option<Value> {
        let f = self.func_ref(id);
        let call = self.b.ins().call(f, args);
        self.b.inst_results(call).first().copied()
    }

    /// Calls a function of the module that has a result.
    pub fn call_value(&mut self, id: FuncId, args: &[Value]) -> Value {
        self.call(id, args).expect("the callee has a result")
    }

    /// The address of new read-only data.
    pub fn data(&mut self, bytes: Vec<u8>) -> Result<Value, Error> {
        let module = &mut self.unit.module;
        let fail = |e: cranelift_module::ModuleError| Error::Cranelift {
            function: self.unit.prefix.clone(),
            what: e.to_string(),
        };
        let id = module.declare_anonymous_data(false, false).map_err(fail)?;
        let mut data = DataDescription::new();
        data.set_align(64);
        data.define(bytes.into_boxed_slice());
        module.define_data(id, &data).map_err(fail)?;
        let symbol = module.declare_data_in_func(id, self.b.func);
        Ok(self.b.ins().symbol_value(types::I64, symbol))
    }

    pub fn int(&mut self, x: i64) -> Value {
        self.b.ins().iconst(types::I64, x)
    }

    pub fn type_of(&self, v: Value) -> Type {
        self.b.func.dfg.value_type(v)
    }

    /// The integer that a value is known to be.
    pub fn known(&self, v: Value) -> Option<i64> {
        let inst = self.b.func.dfg.value_def(v).inst()?;
        match self.b.func.dfg.insts[inst] {
            ir::InstructionData::UnaryImm { imm, .. } => Some(imm.bits()),
            _ => None,
        }
    }

    pub fn slot(&mut self, bytes: u32, align_shift: u8) -> StackSlot {
        self.b
            .create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, align_shift))
    }

    pub fn slot_addr(&mut self, slot: StackSlot) -> Value {
        self.b.ins().stack_addr(types::I64, slot, 0)
    }

    /// A new block that takes values of these types.
    pub fn block(&mut self, params: &[Type]) -> ir::Block {
        let block = self.b.create_block();
        for t in params {
            self.b.append_block_param(block, *t);
        }
        block
    }

    /// The value of a symbol; loads stand in the entry block's scope when first asked for there.
    pub fn symbol(&mut self, s: &Symbol) -> Result<Value, Error> {
        if let Some(v) = self.symbols.get(s) {
            return Ok(*v);
        }
        let (Some(at), Some(base)) = (self.unit.symbols.iter().position(|x| x == s), self.dims) else {
            return Err(Error::Program {
                program: self.unit.prefix.clone(),
                what: format!("symbol `{s}` is not among {:?}", self.unit.symbols),
            });
        };
        let v = self.b.ins().load(types::I64, CONSTANT, base, 8 * at as i32);
        if self.scopes.len() == 1 {
            self.symbols.insert(s.clone(), v);
        }
        Ok(v)
    }

    /// Computes dims now, in the entry block, so that every later use finds them there.
    pub fn prepare_dims<'d>(&mut self, dims: impl IntoIterator<Item = &'d Dim>) -> Result<(), Error> {
        for d in dims {
            if d.as_const().is_none() {
                self.dim(d)?;
            }
        }
        Ok(())
    }

    /// Opens `for i in from..to` with carried values; the code that follows is the body, until [`Emit::end_loop`].
    pub fn begin_loop(&mut self, from: Value, to: Value, carried: &[Value]) -> Loop {
        let types: Vec<Type> = carried.iter().map(|v| self.type_of(*v)).collect();
        let head = self.block(&[types::I64]);
        for t in &types {
            self.b.append_block_param(head, *t);
        }
        let exit = self.block(&types);
        let certain = matches!((self.known(from), self.known(to)), (Some(a), Some(b)) if a < b);
        if certain {
            self.b.ins().jump(head, &args(Some(from), carried));
        } else {
            let some = self.b.ins().icmp(SignedLessThan, from, to);
            let (enter, skip) = (args(Some(from), carried), args(None, carried));
            self.b.ins().brif(some, head, &enter, exit, &skip);
        }
        self.b.switch_to_block(head);
        let params = self.b.block_params(head).to_vec();
        self.scopes.push(FxHashMap::default());
        Loop {
            head,
            exit,
            to,
            i: params[0],
            carried: params[1..].to_vec(),
        }
    }

    /// Closes a loop; `next` are the carried values of the next iteration, the result is what they are after the last.
    pub fn end_loop(&mut self, l: Loop, next: &[Value]) -> Vec<Value> {
        self.scopes.pop();
        let i = self.b.ins().iadd_imm_s(l.i, 1);
        let more = self.b.ins().icmp(SignedLessThan, i, l.to);
        let (again, done) = (args(Some(i), next), args(None, next));
        self.b.ins().brif(more, l.head, &again, l.exit, &done);
        self.b.seal_block(l.head);
        self.b.switch_to_block(l.exit);
        self.b.seal_block(l.exit);
        self.b.block_params(l.exit).to_vec()
    }

    /// A whole loop: `body` gets the index and the carried values, and gives the next ones.
    pub fn counted(
        &mut self,
        from: Value,
        to: Value,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Result<Vec<Value>, Error>,
    ) -> Result<Vec<Value>, Error> {
        let l = self.begin_loop(from, to, carried);
        let next = body(self, l.i, &l.carried)?;
        Ok(self.end_loop(l, &next))
    }

    /// Opens `if cond { then }`; the code that follows is `then`, until [`Emit::end_if`].
    pub fn begin_if(&mut self, cond: Value) -> If {
        let (yes, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(cond, yes, &[], done, &[]);
        self.b.switch_to_block(yes);
        self.b.seal_block(yes);
        self.scopes.push(FxHashMap::default());
        If { done }
    }

    /// Closes what [`Emit::begin_if`] opened.
    pub fn end_if(&mut self, i: If) {
        self.scopes.pop();
        self.b.ins().jump(i.done, &[]);
        self.b.switch_to_block(i.done);
        self.b.seal_block(i.done);
    }

    /// Opens `if cond { then } else { other }` that gives values of these types; the code that follows is `then`.
    pub fn begin_fork(&mut self, cond: Value, types: &[Type]) -> Fork {
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        let done = self.block(types);
        self.b.ins().brif(cond, yes, &[], no, &[]);
        self.b.seal_block(yes);
        self.b.seal_block(no);
        self.b.switch_to_block(yes);
        self.scopes.push(FxHashMap::default());
        Fork { no, done }
    }

    /// Ends `then` with its values and starts `other`.
    pub fn fork_else(&mut self, f: &Fork, values: &[Value]) {
        self.b.ins().jump(f.done, &args(None, values));
        self.b.switch_to_block(f.no);
        self.scopes.pop();
        self.scopes.push(FxHashMap::default());
    }

    /// Ends `other` with its values; the result are the values of the arm that ran.
    pub fn end_fork(&mut self, f: Fork, values: &[Value]) -> Vec<Value> {
        self.scopes.pop();
        self.b.ins().jump(f.done, &args(None, values));
        self.b.switch_to_block(f.done);
        self.b.seal_block(f.done);
        self.b.block_params(f.done).to_vec()
    }

    /// Says of the code that follows, an arm of a conditional, that it hardly ever runs.
    pub fn cold(&mut self) {
        if let Some(block) = self.b.current_block() {
            self.b.set_cold_block(block);
        }
    }

    /// Both arms as closures.
    pub fn either(
        &mut self,
        cond: Value,
        types: &[Type],
        then: impl FnOnce(&mut Self) -> Result<Vec<Value>, Error>,
        other: impl FnOnce(&mut Self) -> Result<Vec<Value>, Error>,
    ) -> Result<Vec<Value>, Error> {
        let f = self.begin_fork(cond, types);
        let a = then(self)?;
        self.fork_else(&f, &a);
        let b = other(self)?;
        Ok(self.end_fork(f, &b))
    }
}

/// An open loop.
pub(crate) struct Loop {
    head: ir::Block,
    exit: ir::Block,
    to: Value,
    /// The index.
    pub i: Value,
    /// The carried values at the start of the iteration.
    pub carried: Vec<Value>,
}

/// An open conditional.
pub(crate) struct If {
    done: ir::Block,
}

/// An open conditional with two arms.
pub(crate) struct Fork {
    no: ir::Block,
    done: ir::Block,
}

fn args(first: Option<Value>, rest: &[Value]) -> Vec<ir::BlockArg> {
    first.into_iter().chain(rest.iter().copied()).map(Into::into).collect()
}

/// The Cranelift type of one element in a register; bools are 0 or 1 in 8 bits.
pub(crate) fn clif(d: DType) -> Type {
    match d {
        DType::F64 => types::F64,
        DType::F32 => types::F32,
        DType::I64 | DType::U64 => types::I64,
        DType::I32 | DType::U32 => types::I32,
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => types::I16,
        DType::I8 | DType::U8 | DType::Bool => types::I8,
    }
}
