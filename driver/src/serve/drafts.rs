//! Tokens that a smaller model proposes behind all sequences that run: `generate/draft.rs` for several at once.
//!
//! ```text
//! draft     a0 -> a1' a2'     b0 -> b1' b2'      one run of the small model for each token of all sequences
//! model     a0 a1' a2'        b0 b1' b2'         one run for all of them, which gives logits behind each
//! chosen    a1 a2 …           b1                 of each sequence from its logits, up to the first that was not proposed
//! ```
//!
//! Invariants: slot `i` of its cache is the sequence in slot `i` of the engine's, of which it has a beginning; a sequence has the same tokens with
//! a draft and without, since each is chosen from the same logits by the same draws.

use crate::Result;
use crate::generate::cache::shared;
use crate::generate::draft::best;
use crate::generate::{Cache, Model, Prefixes};

/// A model that proposes tokens for an engine's sequences.
pub struct Drafts<'m> {
    model: &'m Model,
    prefixes: Prefixes,
    cache: Cache,
    /// Tokens that are proposed at once.
    most: usize,
}

impl<'m> Drafts<'m> {
    /// A draft of so many tokens at once, for so many slots, which keeps so many sequences that ended.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(model: &'m Model, most: usize, slots: usize, kept: usize) -> Result<Drafts<'m>> {
        Ok(Drafts {
            model,
            prefixes: Prefixes::new(kept),
            cache: model.cache(slots)?,
            most,
        })
    }

    /// What a sequence begins with, kept from others or empty.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn begin(&self, prompt: &[i64]) -> Result<Cache> {
        self.prefixes.take_beside(self.model, Some(&self.cache), prompt)
    }

    /// Computes as many tokens of a prompt as lack, or a chunk of them; true where none lack then.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn read(&self, cache: &mut Cache, prompt: &[i64], chunk: usize) -> Result<bool> {
        // Behind a longer text nothing is proposed.
        if prompt.len() >= self.context() {
            return Ok(true);
        }
        let rest = &prompt[cache.tokens(0).len()..];
        let n = rest.len().min(chunk);
        if n > 0 {
            self.model.step(cache, 0, &rest[..n], 1)?;
        }
        Ok(n == rest.len())
    }

    fn context(&self) -> usize {
        self.model.facts().context.unwrap_or(usize::MAX)
    }

    /// Takes a sequence into the next slot.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn join(&mut self, cache: &Cache) -> Result<()> {
        self.cache.begin_as((cache, 0), cache.tokens(0)).map(drop)
    }

    /// The best tokens behind the texts of all slots, as many behind each: so many at most.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn propose(&mut self, texts: &[&[i64]], most: usize) -> Result<Vec<Vec<i64>>> {
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        let most = most.min(self.most).min(self.context().saturating_sub(longest));
        let mut proposed = vec![vec![]; texts.len()];
        if most == 0 {
            return Ok(proposed);
        }
        for (slot, text) in texts.iter().enumerate() {
            // Where nothing was proposed for a while.
            let missing = &text[self.cache.tokens(slot).len()..text.len() - 1];
            if !missing.is_empty() {
                self.model.step(&mut self.cache, slot, missing, 1)?;
            }
        }
        let mut next: Vec<i64> = texts.iter().filter_map(|t| t.last().copied()).collect();
        for _ in 0..most {
            let logits = self.model.step_all(&mut self.cache, &next)?;
            let logits = logits.as_slice::<f32>().expect("logits are f32");
            next = logits.chunks_exact(self.model.facts().vocabulary).map(best).collect();
            proposed.iter_mut().zip(&next).for_each(|(all, token)| all.push(*token));
        }
        // Where all are chosen, none lacks: sequences go on together, whatever becomes of each.
        self.model.step_all(&mut self.cache, &next)?;
        Ok(proposed)
    }

    /// Forgets what was proposed behind a slot's text and not chosen.
    pub fn cut(&mut self, slot: usize, text: &[i64]) {
        let kept = shared(self.cache.tokens(slot), text);
        self.cache.truncate(slot, kept.min(text.len() - 1));
    }

    /// Ends a slot's sequence, which stays for prompts that begin alike; the last one takes its slot.
    pub fn end(&mut self, slot: usize) {
        // Without memory nothing is kept, and nothing lost but time.
        let _ = self.prefixes.put_copy(self.model, &self.cache, slot);
        self.cache.end(slot);
    }

    /// Keeps a sequence that has no slot.
    pub fn put(&self, cache: Cache) {
        self.prefixes.put(cache);
    }

    /// Ends all sequences, of which none is kept.
    pub fn clear(&mut self) {
        while !self.cache.is_empty() {
            self.cache.end(self.cache.len() - 1);
        }
    }
}
