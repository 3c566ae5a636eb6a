//! The builder of one function.

use super::constants::Constants;
use super::unit::Unit;
use crate::Error;
use brolga_ir::{DType, Dim, Format, Symbol};
use cranelift_codegen::ir::{
    self, FuncRef, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Type, Value, types,
};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{DataDescription, FuncId};
use rustc_hash::FxHashMap;

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
    /// Whether dims are computed again that were computed before, without a check.
    pub again: bool,
    pub flag: Option<Value>,
    symbols: FxHashMap<Symbol, Value>,
    /// Where the values of names are that the function itself gives, see [`Emit::bind`].
    locals: FxHashMap<Symbol, (StackSlot, i32)>,
    /// Float constants of vector loops that are read from memory where they are used.
    pub constants: Option<Constants>,
}

impl<'a, 'm> Emit<'a, 'm> {
    /// A builder that stands in the entry block.
    pub(super) fn new(mut b: FunctionBuilder<'a>, unit: &'a mut Unit<'m>) -> Emit<'a, 'm> {
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
            again: false,
            flag: None,
            symbols: FxHashMap::default(),
            locals: FxHashMap::default(),
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
        let mut data = DataDescription::new();
        data.set_align(64);
        data.define(bytes.into_boxed_slice());
        let id = self.unit.define_data(false, data)?;
        let symbol = self.unit.module.declare_data_in_func(id, self.b.func);
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
        if let Some(&(slot, at)) = self.locals.get(s) {
            return Ok(self.b.ins().stack_load(types::I64, types::I64, slot, at));
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

    /// Gives a name its value, from here on. The value lies in memory, so that many names take no registers.
    pub fn bind(&mut self, s: &Symbol, v: Value, slot: StackSlot, at: i32) {
        self.b.ins().stack_store(types::I64, v, slot, at);
        self.is_at(s, slot, at);
    }

    /// Says where the value of a symbol is, from here on.
    pub fn is_at(&mut self, s: &Symbol, slot: StackSlot, at: i32) {
        self.locals.insert(s.clone(), (slot, at));
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
}

/// A load that needs no checks and whose memory does not change while the function runs.
pub(crate) const CONSTANT: MemFlagsData = MemFlagsData::trusted().with_readonly().with_can_move();

/// A load or store of tensor elements: in bounds, but of any alignment.
pub(crate) fn element() -> MemFlagsData {
    MemFlagsData::new()
        .with_notrap()
        .with_endianness(ir::Endianness::Little)
}

/// The Cranelift type of one element in a register; bools are 0 or 1 in 8 bits.
pub(crate) fn clif(d: DType) -> Type {
    match d.format() {
        Format::F64 => types::F64,
        Format::F32 => types::F32,
        Format::Signed(64) | Format::Unsigned(64) => types::I64,
        Format::Signed(32) | Format::Unsigned(32) => types::I32,
        Format::Half | Format::Signed(16) | Format::Unsigned(16) => types::I16,
        Format::Signed(_) | Format::Unsigned(_) | Format::Bool | Format::Small(_) => types::I8,
    }
}
