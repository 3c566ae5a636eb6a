//! When memory is in use: the first and the last step that need it.
//!
//! Steps have the numbers of their order in the text, blocks between the step that they belong to and the next one. Lives
//! are whole ranges: what an arm of an `if` writes and what follows reads lives while the other arm runs, too. What a
//! `while` reads that was there before it, and what it leaves behind, is carried: it lives throughout the loop. What only
//! steps of the loop touch is written anew before it is read in each iteration, as the verifier sees to, and lives there.

use super::{Program, Step};

/// The first and the last step of a life, both included.
pub type Life = (usize, usize);

impl<K> Program<K> {
    /// The life of each slot's memory during the main steps, at the slot that owns it; `None` where no step touches it.
    pub fn lives(&self) -> Vec<Option<Life>> {
        let mut lives = Lives {
            program: self,
            next: 0,
            lives: vec![None; self.slots.len()],
        };
        lives.block(&self.steps);
        lives.lives
    }
}

struct Lives<'p, K> {
    program: &'p Program<K>,
    /// The number of the next step.
    next: usize,
    lives: Vec<Option<Life>>,
}

impl<K> Lives<'_, K> {
    fn block(&mut self, steps: &[Step]) {
        for s in steps {
            let start = self.next;
            self.next += 1;
            s.for_each_slot(&mut |s| {
                let life = self.lives[self.program.root(s).0 as usize].get_or_insert((start, start));
                life.1 = start;
            });
            s.blocks().into_iter().for_each(|b| self.block(b));
            if let Step::While { .. } = s {
                let end = self.next - 1;
                let carried = |l: &&mut Life| l.0 <= start && start <= l.1;
                self.lives.iter_mut().flatten().filter(carried).for_each(|l| l.1 = end);
            }
        }
    }
}
