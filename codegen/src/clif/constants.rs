//! Float constants that vector loops read from memory where they are used.

use super::emit::{Emit, element};
use crate::Error;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value, types};
use rustc_hash::FxHashMap;

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
