//! Which memory steers a run: whose contents tell what the run reads and writes, or how long it takes.
//!
//! Steps are steered by what kernels are ([`crate::loops::Kernel::steering`]), by conditions and by sizes that they read; operators of the
//! host are taken to be steered by all of their operands. What reaches such memory through other steps steers as well. So it holds, whatever
//! passes have proven of indices: two runs whose memory differs only in what does not steer read and write the same places, in the
//! same order, and end after the same steps. Where the one is safe, the other is.

use super::{Program, SlotId, Step, nested};
use rustc_hash::FxHashSet;

impl Program {
    /// The slots that steer the main steps, each that owns its memory.
    pub fn steering(&self) -> FxHashSet<SlotId> {
        let steps = nested(&self.steps);
        let mut found: FxHashSet<SlotId> = FxHashSet::default();
        loop {
            let before = found.len();
            for step in steps.iter().rev() {
                self.steered(step, &mut found);
            }
            for alias in &self.aliases {
                let pair = [
                    self.inputs[alias.input as usize].1,
                    self.outputs[alias.output as usize].1,
                ];
                if pair.iter().any(|s| found.contains(&self.root(*s))) {
                    found.extend(pair.map(|s| self.root(s)));
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// Adds what a step is steered by, and what it makes memory of that steers.
    fn steered(&self, step: &Step, found: &mut FxHashSet<SlotId>) {
        let root = |s: &SlotId| self.root(*s);
        match step {
            Step::Call { kernel, args, .. } => {
                let written: Vec<bool> = args.iter().map(|s| found.contains(&root(s))).collect();
                let by = self.kernels[*kernel as usize].steering(&written);
                found.extend(args.iter().zip(by).filter(|(_, by)| *by).map(|(s, _)| root(s)));
            }
            Step::Copy { from, to, .. } if found.contains(&root(to)) => {
                found.insert(root(from));
            }
            Step::Host { inputs, .. } => found.extend(inputs.iter().map(root)),
            Step::Read { from: s, .. } | Step::If { cond: s, .. } | Step::While { cond: s, .. } => {
                found.insert(root(s));
            }
            Step::Copy { .. } | Step::Let(_) | Step::Alloc { .. } | Step::Check { .. } => {}
        }
    }
}
