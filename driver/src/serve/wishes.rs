//! What requests for a text have in common: how tokens are chosen, how many, what ends a text, how the answer comes.

use super::fields::Fields;
use super::refusal::Refusal;
use crate::generate::{Sampling, Settings};
use brolga_frontend::safetensors::Facts;
use serde_json::Value as Json;
use std::hash::{BuildHasher, RandomState};

/// Texts that a request may ask for at once.
const MOST_CHOICES: usize = 128;

/// Tokens at most where neither the request nor the model says how many.
const MOST_TOKENS: usize = 4096;

/// What a request wishes.
pub struct Wishes {
    /// How tokens are chosen, and how many; of the first text.
    settings: Settings,
    /// Texts that end a text.
    pub stops: Vec<String>,
    /// Texts for each prompt.
    pub n: usize,
    /// Pieces as they come, in place of all at once.
    pub stream: bool,
    /// Says at the end of a stream how many tokens there were.
    pub include_usage: bool,
}

impl Wishes {
    /// Takes its fields. Where they do not say how tokens are chosen the model's folder does, and without a seed another one is drawn for each
    /// request.
    ///
    /// # Errors
    /// When one makes no sense, or asks for what there is not.
    pub fn take(fields: &mut Fields, facts: &Facts, default_tokens: Option<usize>) -> Result<Wishes, Refusal> {
        let own = Sampling::of(facts);
        let sampling = Sampling {
            temperature: fields.number("temperature")?.unwrap_or(own.temperature),
            top_k: fields.count("top_k")?.unwrap_or(own.top_k),
            top_p: fields.number("top_p")?.unwrap_or(own.top_p),
            min_p: fields.number("min_p")?.unwrap_or(own.min_p),
            repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(own.repetition_penalty),
            presence_penalty: fields.number("presence_penalty")?.unwrap_or(own.presence_penalty),
            frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(own.frequency_penalty),
            logit_bias: bias(fields)?,
            seed: fields.bits("seed")?.unwrap_or_else(|| RandomState::new().hash_one(())),
        };
        sampling.validate().map_err(|message| Refusal {
            param: message.split(' ').next().map(str::to_owned),
            ..Refusal::bad(&message)
        })?;
        let longest = facts.context.unwrap_or(MOST_TOKENS);
        let max_tokens = [fields.count("max_completion_tokens")?, fields.count("max_tokens")?];
        let n = fields.count("n")?.unwrap_or(1);
        if n == 0 || n > MOST_CHOICES {
            return Err(Refusal::field("n", format!("{n}, expected 1 to {MOST_CHOICES}")));
        }
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut options = fields.object("stream_options")?;
        let include_usage = options.flag("include_usage")?.unwrap_or(false);
        options.finish()?;
        Ok(Wishes {
            settings: Settings {
                sampling,
                max_tokens: max_tokens
                    .into_iter()
                    .flatten()
                    .next()
                    .or(default_tokens)
                    .unwrap_or(longest),
                ignore_end: fields.flag("ignore_eos")?.unwrap_or(false),
            },
            stops: fields.texts("stop")?,
            n,
            stream,
            include_usage,
        })
    }

    /// The settings of one of its texts: seeds count up from the first.
    pub fn settings(&self, choice: usize) -> Settings {
        let mut settings = self.settings.clone();
        settings.sampling.seed = settings.sampling.seed.wrapping_add(choice as u64);
        settings
    }
}

/// Numbers of tokens and what is added to their logits.
fn bias(fields: &mut Fields) -> Result<Vec<(i64, f32)>, Refusal> {
    let entry = |(token, x): (String, Json)| {
        let bias = token.parse().ok().zip(x.as_f64().map(|x| x as f32));
        bias.ok_or_else(|| {
            Refusal::field(
                "logit_bias",
                format!("`{token}`: {x}, expected a token's number and a bias"),
            )
        })
    };
    fields.object("logit_bias")?.all().into_iter().map(entry).collect()
}
