//! When memory is in use: the numbers of the first and of the last step that touch it.

use super::{Program, SlotId};

/// The first and the last step of a life, both included.
pub type Life = (usize, usize);

impl<K> Program<K> {
    /// The life of each slot's memory during the main steps, at the slot that owns it; `None` where no step touches it.
    pub fn lives(&self) -> Vec<Option<Life>> {
        let mut lives: Vec<Option<Life>> = vec![None; self.slots.len()];
        for (i, s) in self.steps.iter().enumerate() {
            s.for_each_slot(&mut |s: SlotId| {
                let life = lives[self.root(s).0 as usize].get_or_insert((i, i));
                life.1 = i;
            });
        }
        lives
    }
}
