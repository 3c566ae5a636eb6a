//! What a language model takes: a prompt, and each token behind it, beside what memory gives. Runs of all three are taken in turn, and
//! medians count.

use super::cache::Cache;
use super::model::Model;
use crate::Result;
use crate::machine::Stream;
use brolga_ir::Target;
use std::time::Instant;

/// Prompts and streams that are timed.
const ROUNDS: usize = 5;

/// What was measured with so many threads.
pub struct Measured {
    /// Threads.
    pub threads: usize,
    /// Seconds of the prompt.
    pub prefill: f64,
    /// Seconds of a token behind it.
    pub decode: f64,
    /// Bytes a second that a plain loop reads from memory.
    pub memory: f64,
    /// Bytes of keys and values of all tokens.
    pub cache: usize,
}

impl Measured {
    /// Bytes of weights that decoding reads in a second.
    pub fn weights(&self, model: &Model) -> f64 {
        model.facts().streamed as f64 / self.decode
    }
}

/// Measures a model with a prompt of so many tokens and so many behind it.
///
/// # Errors
/// When both together are beyond the context, or there is no memory.
pub fn measure(model: &Model, target: &Target, threads: usize, [prompt, behind]: [usize; 2]) -> Result<Measured> {
    let words = model.facts().vocabulary.max(1);
    let tokens: Vec<i64> = (0..prompt + behind).map(|i| (i * 7919 % words) as i64).collect();
    model.check(tokens.len(), &tokens)?;
    let mut stream = Stream::new(target, threads)?;
    let (mut prefill, mut decode, mut memory, mut kept) = (vec![], vec![], vec![], 0);
    let seconds = |cache: &mut Cache, tokens: &[i64]| -> Result<f64> {
        let start = Instant::now();
        model.step(cache, 0, tokens, 1)?;
        Ok(start.elapsed().as_secs_f64())
    };
    for round in 0..=ROUNDS {
        let mut cache = model.sequence()?;
        let first = seconds(&mut cache, &tokens[..prompt])?;
        let share = behind.div_ceil(ROUNDS);
        let each = tokens[prompt..].iter().take(share).map(|t| seconds(&mut cache, &[*t]));
        let each = each.collect::<Result<Vec<f64>>>()?;
        kept = cache.bytes();
        let read = stream.sample()?;
        // The first round touches memory for the first time.
        if round > 0 {
            prefill.push(first);
            decode.extend(each);
            memory.push(read);
        }
    }
    Ok(Measured {
        threads,
        prefill: median(&mut prefill),
        decode: median(&mut decode),
        memory: median(&mut memory),
        cache: kept,
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
