//! What follows a prompt, token by token as logits come: which token is chosen, and when there are no more.

use super::hold::Hold;
use super::sampling::{Sampler, Sampling};
use crate::{Error, Result};
use brolga_frontend::safetensors::Facts;

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

/// A prompt and what was chosen behind it.
pub struct Continuation {
    sampler: Sampler,
    max_tokens: usize,
    context: Option<usize>,
    /// Tokens that end it.
    enders: Vec<i64>,
    /// The prompt, and what was generated.
    tokens: Vec<i64>,
    prompt: usize,
    end: Option<End>,
    /// What it is held to.
    hold: Hold,
}

impl Continuation {
    /// Nothing yet, behind a prompt.
    ///
    /// # Errors
    /// When the prompt is empty, or a setting is out of range.
    pub fn new(facts: &Facts, prompt: &[i64], settings: Settings) -> Result<Continuation> {
        settings.sampling.validate().map_err(Error::Option)?;
        if prompt.is_empty() {
            return Err(Error::Option("an empty prompt: there is nothing to go on from".into()));
        }
        let mut new = Continuation {
            sampler: Sampler::new(settings.sampling, prompt.len()),
            max_tokens: settings.max_tokens,
            context: facts.context,
            enders: if settings.ignore_end { vec![] } else { facts.end.clone() },
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            end: None,
            hold: Hold::default(),
        };
        new.measure();
        Ok(new)
    }

    /// The prompt, and what was generated.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// The tokens that were generated.
    pub fn generated(&self) -> &[i64] {
        &self.tokens[self.prompt..]
    }

    /// Why there are no more tokens; `None` while there are.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// How many tokens may follow.
    pub fn left(&self) -> usize {
        let context = self.context.unwrap_or(usize::MAX).saturating_sub(self.tokens.len());
        (self.max_tokens - self.generated().len().min(self.max_tokens)).min(context)
    }

    /// Holds what follows to a form.
    pub fn hold_to(&mut self, hold: impl Into<Hold>) {
        self.hold = hold.into();
    }

    /// Takes logits behind the tokens that there are; the token that was chosen, where it goes on.
    ///
    /// # Errors
    /// When a grammar cannot be followed any further.
    pub fn choose(&mut self, logits: &[f32]) -> Result<Option<i64>> {
        if self.end.is_some() {
            return Ok(None);
        }
        let token = self.next(logits)?;
        if self.enders.contains(&token) {
            self.end = Some(End::Token);
            return Ok(None);
        }
        let whole = self.hold.push(token)?;
        self.tokens.push(token);
        self.measure();
        if whole {
            self.end = Some(End::Token);
        }
        Ok(Some(token))
    }

    fn next(&mut self, logits: &[f32]) -> Result<i64> {
        if self.hold.is_free() {
            return Ok(self.sampler.next(logits, &self.tokens));
        }
        let mut left = logits.to_vec();
        self.hold.mask(&mut left)?;
        Ok(self.sampler.next(&left, &self.tokens))
    }

    /// Ends what is as long as it may be.
    fn measure(&mut self) {
        if self.generated().len() >= self.max_tokens {
            self.end = Some(End::Length);
        } else if self.context.is_some_and(|c| self.tokens.len() >= c) {
            self.end = Some(End::Context);
        }
    }
}
