//! The question whether the CPU is the target's, asked by the generated code itself.

use super::emit::Emit;
use super::unit::Unit;
use crate::Error;
use crate::x86::cpu;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage};

/// A function that asks the CPU, and the word that keeps its answer (0 while it has not been asked).
#[derive(Clone, Copy)]
pub(super) struct CpuCheck {
    probe: FuncId,
    answer: DataId,
}

impl Unit<'_> {
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
        let bytes = cpu::probe(features, self.target.triple)?;
        let signature = self.signature(&[], Some(types::I32));
        let probe = self.declare(&name, Linkage::Local, &signature)?;
        self.define_bytes(probe, bytes)?;
        let mut data = DataDescription::new();
        data.set_align(4);
        data.define_zeroinit(4);
        let answer = self.define_data(true, data)?;
        self.cpu = Some(CpuCheck { probe, answer });
        Ok(())
    }
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
}
