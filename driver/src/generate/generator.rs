//! Tokens behind a prompt, one after the other; and caches that are kept for prompts that begin alike.

use super::cache::{Cache, shared};
use super::model::Model;
use super::sampling::{Sampler, Sampling};
use crate::{Error, Result};
use brolga_runtime::Buffer;
use std::sync::{Mutex, PoisonError};

/// How much is generated, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens at most; the context ends a text, too.
    pub max_tokens: usize,
    /// Goes on behind tokens that end a text.
    pub ignore_end: bool,
}

impl Default for Settings {
    /// Greedy, at most 256 tokens.
    fn default() -> Settings {
        Settings {
            sampling: Sampling::default(),
            max_tokens: 256,
            ignore_end: false,
        }
    }
}

/// Why there are no more tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended the text.
    Token,
    /// As many as were asked for.
    Length,
    /// The context is full.
    Context,
}

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

    /// A cache with one sequence, which is as much of the beginning of these tokens as any has.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn take(&self, model: &Model, tokens: &[i64]) -> Result<Cache> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let has = |c: &Cache| shared(c.tokens(0), tokens);
        let best = (0..caches.len()).max_by_key(|&i| (has(&caches[i]), std::cmp::Reverse(i)));
        let Some((i, n)) = best.map(|i| (i, has(&caches[i]))).filter(|(_, n)| *n > 0) else {
            return model.sequence();
        };
        // A sequence that has much of its own stays for those that go on from its end.
        if caches[i].tokens(0).len() > 2 * n && caches.len() < self.most {
            let mut cache = model.cache(1)?;
            cache.begin_as((&caches[i], 0), tokens)?;
            return Ok(cache);
        }
        let mut cache = caches.remove(i);
        cache.truncate(0, n);
        Ok(cache)
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

/// An iterator of the tokens behind a prompt. It ends after an error.
pub struct Generator<'m> {
    model: &'m Model,
    prefixes: Option<&'m Prefixes>,
    /// `None` when it was given back.
    cache: Option<Cache>,
    sampler: Sampler,
    settings: Settings,
    /// The prompt, and what was generated.
    tokens: Vec<i64>,
    prompt: usize,
    /// Tokens of the prompt that were computed.
    computed: usize,
    logits: Option<Buffer>,
    end: Option<End>,
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
        let computed = tokens.len() - cache.tokens(0).len();
        let logits = model.step(&mut cache, 0, &tokens[tokens.len() - computed..], 1)?;
        Ok(Generator {
            model,
            // What is kept behind a source is of no use behind another.
            prefixes: prefixes.filter(|_| model.encoder().is_none()),
            cache: Some(cache),
            sampler: Sampler::new(settings.sampling.clone(), tokens.len()),
            settings,
            prompt: tokens.len(),
            tokens,
            computed,
            logits: Some(logits),
            end: None,
        })
    }

    /// The tokens that were generated.
    pub fn generated(&self) -> &[i64] {
        &self.tokens[self.prompt..]
    }

    /// How many tokens of the prompt were computed; the others were kept from texts before.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Why there are no more tokens; `None` while there are.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    fn advance(&mut self) -> Result<Option<i64>> {
        let full = self.model.facts().context.is_some_and(|c| self.tokens.len() >= c);
        if self.generated().len() >= self.settings.max_tokens {
            self.end = Some(End::Length);
        } else if full {
            self.end = Some(End::Context);
        }
        let (None, Some(cache)) = (self.end, &mut self.cache) else {
            return Ok(None);
        };
        let logits = match self.logits.take() {
            Some(logits) => logits,
            None => self.model.step(cache, 0, &self.tokens[self.tokens.len() - 1..], 1)?,
        };
        let logits = logits.as_slice::<f32>().expect("logits are f32");
        let token = self.sampler.next(logits, &self.tokens);
        if !self.settings.ignore_end && self.model.facts().end.contains(&token) {
            self.end = Some(End::Token);
            return Ok(None);
        }
        self.tokens.push(token);
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
