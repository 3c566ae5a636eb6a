//! Choices that are all gone through, the last one first: of the cases of a proof, and of small instances.

/// The choices of a case, which are gone through in order.
#[derive(Default)]
pub(super) struct Choices {
    /// What was chosen, of how many.
    made: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    /// One of `n`, at least 1.
    pub fn choose(&mut self, n: usize) -> usize {
        if self.at == self.made.len() {
            self.made.push((0, n));
        }
        self.at += 1;
        self.made[self.at - 1].0
    }

    /// Starts the case from its first choice.
    pub fn restart(&mut self) {
        self.at = 0;
    }

    /// Goes on to the next case; false behind the last.
    pub fn next(&mut self) -> bool {
        self.made.truncate(self.at);
        while let Some((chosen, n)) = self.made.pop() {
            if chosen + 1 < n {
                self.made.push((chosen + 1, n));
                return true;
            }
        }
        false
    }
}
