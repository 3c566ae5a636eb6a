//! Tokens that a smaller model proposes, and that the model checks in one run, several at once.
//!
//! ```text
//! draft     t0 -> t1' t2' t3'             the best ones, one run of the small model each
//! model     t0 t1' t2' t3' -> 4 logits    one run, which reads the weights once
//! chosen    t1 t2 …                       from each logits as without a draft, up to the first that was not proposed
//! ```
//!
//! Invariant: a text is the same with a draft and without, drawn or not: each token is chosen from the same logits by the same draws. Its quality
//! never depends on the draft, only its speed. Source: Y. Leviathan et al., Fast Inference from Transformers via Speculative Decoding,
//! arXiv 2211.17192; here what is drawn is compared with what was proposed, in place of a rejection that keeps the distribution alone.

use super::cache::{Cache, shared};
use super::model::Model;
use crate::{Error, Result};
use brolga_runtime::Buffer;

/// A model that proposes tokens for another one.
pub struct Draft<'m> {
    model: &'m Model,
    cache: Cache,
    /// Tokens that are proposed at once.
    most: usize,
    proposed: usize,
    accepted: usize,
}

impl<'m> Draft<'m> {
    /// A draft of so many tokens at once for a model.
    ///
    /// # Errors
    /// When the vocabularies differ, one of the two has an encoder, no tokens are asked for, or there is no memory.
    pub fn new(draft: &'m Model, model: &Model, most: usize) -> Result<Draft<'m>> {
        check(draft, model, most)?;
        Ok(Draft {
            cache: draft.sequence()?,
            model: draft,
            most,
            proposed: 0,
            accepted: 0,
        })
    }

    /// The best tokens behind these, one after the other, as many as are proposed at once or fewer.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn propose(&mut self, tokens: &[i64], most: usize) -> Result<Vec<i64>> {
        let context = self.model.facts().context.unwrap_or(usize::MAX);
        let most = most.min(self.most).min(context.saturating_sub(tokens.len()));
        let mut proposed = vec![];
        let kept = shared(self.cache.tokens(0), &tokens[..tokens.len() - 1]);
        let kept = self.cache.truncate(0, kept);
        let mut next = tokens[kept..].to_vec();
        while proposed.len() < most {
            let logits = self.model.step(&mut self.cache, 0, &next, 1)?;
            let logits = logits.as_slice::<f32>().expect("logits are f32");
            next = vec![best(logits)];
            proposed.extend(&next);
        }
        self.proposed += proposed.len();
        Ok(proposed)
    }

    /// How many tokens were proposed, and how many of them were chosen.
    pub fn counts(&self) -> [usize; 2] {
        [self.proposed, self.accepted]
    }

    pub(super) fn accept(&mut self) {
        self.accepted += 1;
    }
}

/// Checks that a model can propose so many tokens at once for another one.
///
/// # Errors
/// When the vocabularies differ, one of the two has an encoder, or no tokens are asked for.
pub fn check(draft: &Model, model: &Model, most: usize) -> Result<()> {
    let [small, large] = [draft, model].map(|m| m.facts().vocabulary);
    if small != large {
        return Err(Error::Option(format!(
            "a draft model with a vocabulary of {small}, for one of {large}: their tokens are not the same"
        )));
    }
    if draft.encoder().is_some() || model.encoder().is_some() {
        return Err(Error::Option("a draft for a model with an encoder".into()));
    }
    if most == 0 {
        return Err(Error::Option("a draft of no tokens".into()));
    }
    Ok(())
}

/// The token with the largest logit, the first of equal ones.
pub(crate) fn best(logits: &[f32]) -> i64 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    best.expect("there are tokens") as i64
}

/// Logits behind a text and behind each token that was proposed for it.
pub(super) struct Checked {
    logits: Buffer,
    proposed: Vec<i64>,
    /// How many of them were chosen.
    chosen: usize,
}

impl Checked {
    /// Logits of one more than were proposed, `[1, proposed + 1, vocabulary]`.
    pub(super) fn new(logits: Buffer, proposed: Vec<i64>) -> Checked {
        Checked {
            logits,
            proposed,
            chosen: 0,
        }
    }

    /// The logits behind what was chosen.
    pub(super) fn row(&self) -> &[f32] {
        let all = self.logits.as_slice::<f32>().expect("logits are f32");
        let size = all.len() / (self.proposed.len() + 1);
        &all[self.chosen * size..][..size]
    }

    /// True where the next token was proposed too: there are logits behind it.
    pub(super) fn goes_on(&mut self, token: i64) -> bool {
        let next = self.proposed.get(self.chosen) == Some(&token);
        self.chosen += usize::from(next);
        next
    }
}
