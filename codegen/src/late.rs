//! Steps of `NAME_run` that depend on what only the run tells: sizes, memory for them, blocks.
//!
//! Invariant: a size becomes a symbol only after it was checked: it is not negative, and not above its bound. A dim of such
//! symbols is computed in checked arithmetic where it becomes a name, or the size of memory, so code behind that may compute
//! it again without a check, as in programs whose sizes are all known before (see [`crate::plan`]).

use crate::Error;
use crate::clif::{clif, element};
use crate::program::Run;
use brolga_abi::ErrorCode;
use brolga_abi::ctx::{ALIGN, UNCOUNTABLE, offset};
use brolga_ir::program::{Let, SlotId, Step, Storage};
use brolga_ir::{DType, Dim, Guard, Relation, Symbol};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, StackSlot, Value, types};
use std::sync::Arc;

impl Run<'_, '_, '_> {
    /// The number of the next size that the run checks.
    pub(crate) fn next_size(&mut self) -> u32 {
        self.sizes += 1;
        self.sizes - 1
    }

    fn next_check(&mut self) -> u32 {
        self.checks += 1;
        self.checks - 1
    }

    /// Dims in checked arithmetic, and whether a step of it went wrong.
    fn in_bounds<'d>(&mut self, dims: impl IntoIterator<Item = &'d Dim>) -> Result<(Vec<Value>, Option<Value>), Error> {
        (self.e.check, self.e.again) = (true, true);
        let values = dims.into_iter().map(|d| self.e.dim(d)).collect::<Result<Vec<_>, _>>();
        let wrong = self.e.take_flag();
        (self.e.check, self.e.again) = (false, false);
        Ok((values?, wrong))
    }

    /// Leaves where a size is beyond 64 bits, or one of the extents is negative.
    fn fail_unless_sizes(&mut self, wrong: Option<Value>, extents: &[(&Dim, Value)], number: u32, node: u32) {
        if let Some(wrong) = wrong {
            self.fail_as(wrong, ErrorCode::TooLarge.status(number), node);
        }
        for (_, v) in extents.iter().filter(|(d, _)| !d.is_nonnegative()) {
            let negative = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, *v, 0);
            self.fail_as(negative, ErrorCode::BadDims.status(number + 1), node);
        }
    }

    /// Gives a symbol its value.
    fn bind(&mut self, symbol: &Symbol, v: Value) -> Result<(), Error> {
        let (Some(slot), Some(&at)) = (self.array, self.known.places.get(symbol)) else {
            return Err(self.error(format!("`{symbol}` has no place")));
        };
        self.e.bind(symbol, v, slot, at);
        Ok(())
    }

    pub(crate) fn bind_size(&mut self, l: &Let) -> Result<(), Error> {
        let number = self.next_size();
        let (values, wrong) = self.in_bounds([&l.value])?;
        self.fail_unless_sizes(wrong, &[(&l.value, values[0])], number, brolga_abi::NO_NODE);
        self.bind(&l.symbol, values[0])
    }

    pub(crate) fn read(
        &mut self,
        symbol: &Symbol,
        from: SlotId,
        bound: Option<&Dim>,
        origin: &Arc<str>,
    ) -> Result<(), Error> {
        let v = self.element(from)?;
        let mut bad = self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0);
        if let Some(d) = bound {
            let (values, wrong) = self.in_bounds([d])?;
            let above = self.e.b.ins().icmp(IntCC::SignedGreaterThan, v, values[0]);
            bad = self.e.b.ins().bor(bad, above);
            if let Some(wrong) = wrong {
                bad = self.e.b.ins().bor(bad, wrong);
            }
        }
        let status = ErrorCode::CheckFailed.status(self.next_check());
        let beyond = (self.program.slot(from).ty.dtype == DType::U64)
            .then(|| self.e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0));
        self.fail_with_number(bad, status, origin, (v, beyond));
        self.bind(symbol, v)
    }

    pub(crate) fn check(&mut self, guard: &Guard, origin: &Arc<str>) -> Result<(), Error> {
        let (values, wrong) = self.in_bounds([&guard.left, &guard.right])?;
        let [a, b] = values[..] else {
            unreachable!("two dims have two values")
        };
        let mut bad = match guard.relation {
            Relation::Equal => self.e.b.ins().icmp(IntCC::NotEqual, a, b),
            Relation::AtMost => self.e.b.ins().icmp(IntCC::SignedGreaterThan, a, b),
            Relation::Broadcasts => {
                let other = self.e.b.ins().icmp(IntCC::NotEqual, a, b);
                let stretched = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, a, 1);
                self.e.b.ins().band(other, stretched)
            }
        };
        if let Some(wrong) = wrong {
            bad = self.e.b.ins().bor(bad, wrong);
        }
        let status = ErrorCode::CheckFailed.status(self.next_check());
        self.fail_with_number(bad, status, origin, (a, wrong));
        Ok(())
    }

    /// Leaves where a condition holds, with the number that was found, and whether it is beyond 64 bits.
    fn fail_with_number(
        &mut self,
        cond: Value,
        status: i32,
        origin: &Arc<str>,
        (found, beyond): (Value, Option<Value>),
    ) {
        let open = self.e.begin_if(cond);
        self.e.cold();
        let found = match beyond {
            Some(beyond) => {
                let none = self.e.b.ins().iconst(types::I64, UNCOUNTABLE);
                self.e.b.ins().select(beyond, none, found)
            }
            None => found,
        };
        let flags = MemFlagsData::trusted();
        self.e.b.ins().store(flags, found, self.ctx, offset::ERROR_VALUE);
        self.e.end_if(open);
        let node = self.node(origin);
        self.fail_as(cond, status, node);
    }

    /// The only element of a slot, i64.
    pub(crate) fn element(&mut self, s: SlotId) -> Result<Value, Error> {
        let dtype = self.program.slot(s).ty.dtype;
        if dtype.is_float() {
            return Err(self.error(format!("{s} is {dtype}, expected an integer or a bool")));
        }
        let at = self.slot(s)?;
        let ty = clif(dtype);
        let v = self.e.b.ins().load(ty, element(), at, 0);
        Ok(match dtype {
            _ if ty == types::I64 => v,
            DType::I8 | DType::I16 | DType::I32 => self.e.b.ins().sextend(types::I64, v),
            _ => self.e.b.ins().uextend(types::I64, v),
        })
    }

    /// `while`: the condition is read before each iteration.
    pub(crate) fn repeat(&mut self, cond: SlotId, body: &[Step]) -> Result<(), Error> {
        let [head, inside, exit] = [(); 3].map(|()| self.e.b.create_block());
        self.e.b.ins().jump(head, &[]);
        self.e.b.switch_to_block(head);
        self.e.scopes.push(Default::default());
        let more = self.element(cond)?;
        self.e.b.ins().brif(more, inside, &[], exit, &[]);
        self.e.b.switch_to_block(inside);
        self.e.b.seal_block(inside);
        self.steps(body)?;
        self.e.scopes.pop();
        self.e.b.ins().jump(head, &[]);
        self.e.b.seal_block(head);
        self.e.b.switch_to_block(exit);
        self.e.b.seal_block(exit);
        Ok(())
    }

    /// Where address and capacity of a slot on the heap are kept.
    pub(crate) fn block_of(&self, s: SlotId) -> Result<(StackSlot, i32), Error> {
        let found = self.heap.as_ref().and_then(|(slot, at)| Some((*slot, *at.get(&s)?)));
        found.ok_or_else(|| self.error(format!("{s} is on the heap, and no step gives it memory")))
    }

    /// Makes the places of [`Run::block_of`]; none has memory yet.
    pub(crate) fn prepare_heap(&mut self, steps: &[Step]) {
        let program = self.program;
        let mut at = rustc_hash::FxHashMap::default();
        for s in brolga_ir::program::nested(steps) {
            if let Step::Alloc { slot, .. } = s
                && matches!(program.slot(*slot).storage, Storage::Heap)
            {
                let next = 16 * at.len() as i32;
                at.entry(*slot).or_insert(next);
            }
        }
        if at.is_empty() {
            return;
        }
        let slot = self.e.slot(16 * at.len() as u32, 3);
        // A slot without elements has an address as well, of no memory.
        let (nothing, zero) = (self.e.int(ALIGN as i64), self.e.int(0));
        for i in 0..at.len() as i32 {
            self.e.b.ins().stack_store(types::I64, nothing, slot, 16 * i);
            self.e.b.ins().stack_store(types::I64, zero, slot, 16 * i + 8);
        }
        self.heap = Some((slot, at));
    }

    pub(crate) fn alloc(&mut self, s: SlotId, origin: &Arc<str>) -> Result<(), Error> {
        let (program, number, node) = (self.program, self.next_size(), self.node(origin));
        let slot = program.slot(s);
        let bytes = slot.bytes();
        let (values, wrong) = self.in_bounds(slot.ty.shape.iter().chain([&bytes]))?;
        let Some((&bytes, extents)) = values.split_last() else {
            return Ok(());
        };
        let each: Vec<(&Dim, Value)> = slot.ty.shape.iter().zip(extents.iter().copied()).collect();
        self.fail_unless_sizes(wrong, &each, number, node);
        let flags = MemFlagsData::trusted();
        match &slot.storage {
            Storage::Heap => {
                // What an iteration before got is used again where it is large enough, and doubles where it is not.
                let (block, at) = self.block_of(s)?;
                let have = self.e.b.ins().stack_load(types::I64, types::I64, block, at + 8);
                let small = self.e.b.ins().icmp(IntCC::UnsignedLessThan, have, bytes);
                let open = self.e.begin_if(small);
                let twice = self.e.b.ins().ishl_imm_u(have, 1);
                let size = self.e.b.ins().umax(twice, bytes);
                let address = self.allocate(size, node);
                self.e.b.ins().stack_store(types::I64, address, block, at);
                self.e.b.ins().stack_store(types::I64, size, block, at + 8);
                self.e.end_if(open);
            }
            Storage::Output(i) => {
                let place = 8 * *i as i32;
                let given = self.e.b.ins().load(types::I64, flags, self.outputs, place);
                let none = self.e.b.ins().icmp_imm_s(IntCC::Equal, given, 0);
                let fork = self.e.begin_fork(none, &[]);
                let one = self.e.int(1);
                let size = self.e.b.ins().umax(bytes, one);
                let address = self.allocate(size, node);
                self.e.b.ins().store(flags, address, self.outputs, place);
                self.e.fork_else(&fork, &[]);
                let zero = self.e.int(0);
                let table = self.field(types::I64, offset::OUT_BYTES);
                let told = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, table, 0);
                let have = self.e.either(
                    told,
                    &[types::I64],
                    |e| Ok(vec![e.b.ins().load(types::I64, MemFlagsData::trusted(), table, place)]),
                    |_| Ok(vec![zero]),
                )?[0];
                let small = self.e.b.ins().icmp(IntCC::UnsignedLessThan, have, bytes);
                self.fail_with_number(small, ErrorCode::OutputTooSmall as i32, origin, (bytes, None));
                self.e.end_fork(fork, &[]);
                self.tell(*i, extents);
            }
            _ => {}
        }
        Ok(())
    }

    /// Memory of the context.
    fn allocate(&mut self, bytes: Value, node: u32) -> Value {
        let f = self.field(types::I64, offset::ALLOC);
        let missing = self.e.b.ins().icmp_imm_s(IntCC::Equal, f, 0);
        self.fail_with(missing, ErrorCode::OutOfMemory, node);
        let signature = self.e.unit.signature(&[types::I64; 3], Some(types::I64));
        let signature = self.e.b.import_signature(signature);
        let align = self.e.int(ALIGN as i64);
        let call = self.e.b.ins().call_indirect(signature, f, &[self.ctx, bytes, align]);
        let address = self.e.b.inst_results(call)[0];
        let none = self.e.b.ins().icmp_imm_s(IntCC::Equal, address, 0);
        self.fail_with(none, ErrorCode::OutOfMemory, node);
        address
    }

    /// Writes the extents of an output where the caller wants to know them.
    fn tell(&mut self, output: u32, extents: &[Value]) {
        let ranks = self
            .program
            .outputs
            .iter()
            .map(|(_, s)| self.program.slot(*s).ty.rank());
        let first: usize = ranks.take(output as usize).sum();
        let table = self.field(types::I64, offset::OUT_DIMS);
        let wanted = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, table, 0);
        let open = self.e.begin_if(wanted);
        for (v, at) in extents.iter().zip((8 * first as i32..).step_by(8)) {
            self.e.b.ins().store(MemFlagsData::trusted(), *v, table, at);
        }
        self.e.end_if(open);
    }

    /// Tells the extents of outputs that are known from the start, where the run tells those of others.
    pub(crate) fn tell_known(&mut self) -> Result<(), Error> {
        let program = self.program;
        let late = |s: &SlotId| program.slot(*s).is_late(&self.late);
        if !program.outputs.iter().any(|(_, s)| late(s)) {
            return Ok(());
        }
        let known: Vec<(u32, SlotId)> = (0..)
            .zip(program.outputs.iter().map(|(_, s)| *s))
            .filter(|(_, s)| !late(s))
            .collect();
        for (i, s) in known {
            let extents = program
                .slot(s)
                .ty
                .shape
                .iter()
                .map(|d| self.e.dim(d))
                .collect::<Result<Vec<_>, _>>()?;
            self.tell(i, &extents);
        }
        Ok(())
    }
}
