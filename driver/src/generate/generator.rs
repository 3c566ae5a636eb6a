//! Tokens behind a prompt, one after the other; and caches that are kept for prompts that begin alike.

use super::cache::{Cache, shared};
use super::continuation::{Continuation, End, Settings};
use super::draft::{Checked, Draft};
use super::hold::Hold;
use super::model::Model;
use crate::{Error, Result};
use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};

/// Tokens of a sequence that are given up for another one which begins alike, rather than all that both have is copied.
const LITTLE: usize = 16;

/// Caches of sequences that ended, the last used first. A prompt that begins as one of them goes on from there: what both have is not
/// computed again.
pub struct Prefixes {
    most: usize,
    caches: Mutex<Vec<Cache>>,
}

impl Prefixes {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Prefixes {
        Prefixes {
            most,
            caches: Mutex::default(),
        }
    }

    /// How many it keeps at most.
    pub fn most(&self) -> usize {
        self.most
    }

    /// A cache with one sequence, which is as much of the beginning of these tokens as any has.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn take(&self, model: &Model, tokens: &[i64]) -> Result<Cache> {
        self.take_beside(model, None, tokens)
    }

    /// The same, of sequences that are not at their end as well.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn take_beside(&self, model: &Model, running: Option<&Cache>, tokens: &[i64]) -> Result<Cache> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cache = self.longest(model, &mut caches, running, tokens)?;
        // Where others parted from these, more will.
        let beside = running
            .into_iter()
            .flat_map(|c| (0..c.len()).map(|slot| c.tokens(slot)));
        let most = caches
            .iter()
            .map(|c| c.tokens(0))
            .chain(beside)
            .map(|t| shared(t, tokens))
            .max();
        if let Some(n) = most.filter(|n| *n > cache.tokens(0).len()) {
            cache.mark(0, n);
        }
        // A text may be told anew behind its prompt, or a prompt asked again.
        cache.mark(0, tokens.len());
        Ok(cache)
    }

    /// A cache with one sequence, which is as much of the beginning of these tokens as can be gone on from.
    fn longest(
        &self,
        model: &Model,
        caches: &mut Vec<Cache>,
        running: Option<&Cache>,
        tokens: &[i64],
    ) -> Result<Cache> {
        let kept = (0..caches.len()).map(|i| (caches[i].common(0, tokens), Reverse(i)));
        let (n, Reverse(i)) = kept.max().unwrap_or((0, Reverse(0)));
        let beside = running
            .into_iter()
            .flat_map(|c| (0..c.len()).map(move |slot| (c, slot)));
        let of = |&(c, slot): &(&Cache, usize)| c.common(slot, tokens);
        if let Some(from) = beside.max_by_key(of).filter(|from| of(from) > n) {
            return copy(model, from, tokens);
        }
        if n == 0 {
            return model.sequence();
        }
        // A sequence that has much of its own stays for those that go on from its end.
        let own = caches[i].tokens(0).len() - n;
        if own > LITTLE.max(n / 16) {
            caches[..=i].rotate_right(1);
            return copy(model, (&caches[0], 0), tokens);
        }
        let mut cache = caches.remove(i);
        cache.truncate(0, n);
        Ok(cache)
    }

    /// Keeps a copy of a sequence of a cache that goes on.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn put_copy(&self, model: &Model, cache: &Cache, slot: usize) -> Result<()> {
        if self.most > 0 {
            self.put(copy(model, (cache, slot), cache.tokens(slot))?);
        }
        Ok(())
    }

    /// Keeps a cache.
    pub fn put(&self, cache: Cache) {
        if cache.is_empty() || cache.tokens(0).is_empty() || self.most == 0 {
            return;
        }
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.insert(0, cache);
        caches.truncate(self.most);
    }
}

/// A cache with one sequence, which is as much of the beginning of these tokens as the other one has.
fn copy(model: &Model, from: (&Cache, usize), tokens: &[i64]) -> Result<Cache> {
    let mut cache = model.cache(1)?;
    cache.begin_as(from, tokens)?;
    Ok(cache)
}

/// An iterator of the tokens behind a prompt. It ends after an error.
pub struct Generator<'m> {
    model: &'m Model,
    prefixes: Option<&'m Prefixes>,
    /// `None` when it was given back.
    cache: Option<Cache>,
    text: Continuation,
    /// Tokens of the prompt that were computed.
    computed: usize,
    /// Logits behind the text, where there are some.
    checked: Option<Checked>,
    draft: Option<Draft<'m>>,
}

impl<'m> Generator<'m> {
    /// Computes a prompt, but for what a kept cache has of it. Of a model with an encoder the prompt is what the encoder reads, and what is
    /// generated is a text of its own.
    ///
    /// # Errors
    /// When the prompt is empty or beyond the context, a setting is out of range, or there is no memory.
    pub fn new(model: &'m Model, prefixes: Option<&'m Prefixes>, prompt: &[i64], settings: Settings) -> Result<Self> {
        settings.sampling.validate().map_err(Error::Option)?;
        let (mut cache, tokens) = begin(model, prefixes, prompt)?;
        let text = Continuation::new(model.facts(), &tokens, settings)?;
        let computed = tokens.len() - cache.tokens(0).len();
        let logits = model.step(&mut cache, 0, &tokens[tokens.len() - computed..], 1)?;
        Ok(Generator {
            model,
            // What is kept behind a source is of no use behind another.
            prefixes: prefixes.filter(|_| model.encoder().is_none()),
            cache: Some(cache),
            text,
            computed,
            checked: Some(Checked::new(logits, vec![])),
            draft: None,
        })
    }

    /// The same tokens, of which a smaller model proposes some that are checked together.
    pub fn with_draft(mut self, draft: Draft<'m>) -> Self {
        self.draft = Some(draft);
        self
    }

    /// The same, held to a form.
    pub fn held_to(mut self, hold: impl Into<Hold>) -> Self {
        self.text.hold_to(hold);
        self
    }

    /// What proposes tokens.
    pub fn draft(&self) -> Option<&Draft<'m>> {
        self.draft.as_ref()
    }

    /// The tokens that were generated.
    pub fn generated(&self) -> &[i64] {
        self.text.generated()
    }

    /// How many tokens of the prompt were computed; the others were kept from texts before.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Why there are no more tokens; `None` while there are.
    pub fn end(&self) -> Option<End> {
        self.text.end()
    }

    fn advance(&mut self) -> Result<Option<i64>> {
        let (None, Some(cache)) = (self.text.end(), &mut self.cache) else {
            return Ok(None);
        };
        let mut checked = match self.checked.take() {
            Some(checked) => checked,
            None => {
                let tokens = self.text.tokens();
                let proposed = match &mut self.draft {
                    Some(draft) => draft.propose(tokens, self.text.left().saturating_sub(1))?,
                    None => vec![],
                };
                let new = &tokens[cache.tokens(0).len()..];
                let logits = self
                    .model
                    .step(cache, 0, &[new, &proposed].concat(), proposed.len() + 1)?;
                Checked::new(logits, proposed)
            }
        };
        let Some(token) = self.text.choose(checked.row())? else {
            cache.truncate(0, self.text.tokens().len());
            return Ok(None);
        };
        if checked.goes_on(token) {
            self.draft.iter_mut().for_each(Draft::accept);
            self.checked = Some(checked);
        } else {
            // Behind another token nothing that was proposed is of use.
            cache.truncate(0, self.text.tokens().len() - 1);
        }
        Ok(Some(token))
    }
}

/// A cache with one sequence, and the tokens that generating goes on from, of which it has some, but not the last one.
pub(super) fn begin(model: &Model, prefixes: Option<&Prefixes>, prompt: &[i64]) -> Result<(Cache, Vec<i64>)> {
    let Some((_, before)) = prompt.split_last() else {
        return Err(Error::Option("an empty prompt: there is nothing to go on from".into()));
    };
    if let Some(encoder) = model.encoder() {
        model.check(0, prompt)?;
        let mut cache = model.sequence()?;
        cache.attend_to(encoder.tokens(prompt)?);
        return Ok((cache, vec![model.start()?]));
    }
    model.check(prompt.len(), prompt)?;
    // The last token is computed for its logits.
    let cache = match prefixes {
        Some(p) => p.take(model, before)?,
        None => model.sequence()?,
    };
    Ok((cache, prompt.to_vec()))
}

impl Iterator for Generator<'_> {
    type Item = Result<i64>;

    fn next(&mut self) -> Option<Result<i64>> {
        let next = self.advance();
        if next.is_err() {
            // What a failed run left is not to be gone on from.
            self.cache = None;
        }
        next.transpose()
    }
}

impl Drop for Generator<'_> {
    fn drop(&mut self) {
        if let (Some(prefixes), Some(cache)) = (self.prefixes, self.cache.take()) {
            prefixes.put(cache);
        }
    }
}
