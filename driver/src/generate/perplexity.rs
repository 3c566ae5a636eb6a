//! How well a model foretells a text: `exp` of the mean of `-ln p` of its tokens, each behind those before it.

use super::model::Model;
use crate::{Error, Result};

/// Tokens whose logits are there at once.
const ROWS: usize = 64;

/// What a text's tokens cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The sum of `-ln p`.
    pub nats: f64,
    /// Tokens that were foretold: all but the first of each window.
    pub tokens: usize,
}

impl Cost {
    /// `exp` of the mean.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

/// The cost of tokens in windows of so many, which see nothing of each other. `seen` is told how many tokens are done.
///
/// # Errors
/// When there are not two tokens, a window is beyond the context, or a run fails.
pub fn cost(model: &Model, tokens: &[i64], window: usize, mut seen: impl FnMut(usize)) -> Result<Cost> {
    if window < 2 || tokens.len() < 2 {
        let message = format!("{} tokens in windows of {window}: expected two or more", tokens.len());
        return Err(Error::Option(message));
    }
    model.check(window.min(tokens.len()), tokens)?;
    let mut all = Cost { nats: 0.0, tokens: 0 };
    let mut cache = model.sequence()?;
    for (w, part) in tokens.chunks(window).enumerate() {
        cache.truncate(0, 0);
        for at in (0..part.len() - 1).step_by(ROWS) {
            let rows = &part[at..(at + ROWS).min(part.len() - 1)];
            let logits = model.step(&mut cache, 0, rows, rows.len())?;
            let logits = logits.as_slice::<f32>().expect("logits are f32");
            let next = logits.chunks_exact(logits.len() / rows.len()).zip(&part[at + 1..]);
            all.nats += next.map(|(row, token)| surprise(row, *token as usize)).sum::<f64>();
            all.tokens += rows.len();
            seen(w * window + at + rows.len());
        }
    }
    Ok(all)
}

/// `-ln p` of a token.
fn surprise(logits: &[f32], token: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    sum.ln() - f64::from(logits[token] - most)
}
