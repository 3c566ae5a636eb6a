//! An encoder that is served: texts become vectors, the mean of the last hidden state over a text's tokens, of length 1.
//!
//! Texts run one by one, so there is no padding, and the mean is over all tokens.

use super::fields::Fields;
use super::prompts;
use super::refusal::{Refusal, told};
use crate::compile::compile;
use crate::generate::files::Files;
use crate::generate::text::Tokenizer;
use crate::options::Options;
use crate::session::Session;
use crate::source;
use crate::{Error, Result};
use base64::prelude::{BASE64_STANDARD as STANDARD, Engine};
use brolga_frontend::safetensors::Facts;
use brolga_runtime::View;
use serde_json::{Value as Json, json};
use std::path::Path;

/// What an encoder gives.
const HIDDEN: &str = "last_hidden_state";

/// An encoder with its tokenizer.
pub struct Encoder {
    session: Session,
    tokenizer: Tokenizer,
    facts: Facts,
}

impl Encoder {
    /// The encoder of a folder; `None` where the folder is of something else.
    ///
    /// # Errors
    /// When it cannot be read, or does not compile.
    pub fn of(folder: &Path, options: &Options, threads: usize) -> Result<Option<Encoder>> {
        // What a model is shows without what options make of its weights.
        let mut plain = options.clone();
        (plain.folder.weights, plain.folder.lora) = (None, vec![]);
        let (graph, _) = source::folder(folder, &plain)?;
        let inputs: Vec<&str> = graph.inputs.iter().map(|i| i.name.as_str()).collect();
        if inputs != ["input_ids"] || graph.outputs.first().is_none_or(|(name, _)| name != HIDDEN) {
            return Ok(None);
        }
        let (graph, facts) = source::folder(folder, options)?;
        let compiled = compile(&graph, &options.without_sizes())?;
        Ok(Some(Encoder {
            session: compiled.session_with(threads, options.memory_limit)?,
            tokenizer: Tokenizer::of(&Files::of_folder(folder)?, facts.vocabulary)?,
            facts,
        }))
    }

    /// Answers a request for embeddings.
    ///
    /// # Errors
    /// What is wrong with it, or went wrong.
    pub fn answer(&self, name: &str, mut fields: Fields) -> Result<Json, Refusal> {
        let input = fields.needed("input")?;
        let packed = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Refusal::field(
                    "encoding_format",
                    format!("{other}, expected float or base64"),
                ));
            }
        };
        fields.finish()?;
        let texts = prompts::tokens(&self.tokenizer, "input", &input)?;
        for tokens in &texts {
            self.check(tokens)?;
        }
        let mut data = vec![];
        for (index, tokens) in texts.iter().enumerate() {
            let vector = self.embed(tokens).map_err(|e| Refusal::failed(told(&e)))?;
            let embedding = match packed {
                true => STANDARD
                    .encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
                    .into(),
                false => Json::from(vector),
            };
            data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
        }
        let tokens: usize = texts.iter().map(Vec::len).sum();
        Ok(json!({
            "object": "list", "data": data, "model": name, "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        }))
    }

    fn check(&self, tokens: &[i64]) -> Result<(), Refusal> {
        if let Some(context) = self.facts.context.filter(|c| tokens.len() > *c) {
            let message = format!("{} tokens, beyond the model's context of {context}", tokens.len());
            return Err(Refusal {
                code: Some("context_length_exceeded"),
                ..Refusal::field("input", message)
            });
        }
        let vocabulary = self.facts.vocabulary;
        match tokens.iter().find(|t| !(0..vocabulary as i64).contains(*t)) {
            Some(t) => Err(Refusal::field(
                "input",
                format!("token {t}, of a vocabulary of {vocabulary}"),
            )),
            None => Ok(()),
        }
    }

    /// The vector of a text.
    fn embed(&self, tokens: &[i64]) -> Result<Vec<f32>> {
        let hidden = self.session.run(&[View::of(tokens, &[1, tokens.len()])])?;
        let hidden = hidden.first().and_then(|h| h.as_slice::<f32>());
        let hidden = hidden.ok_or_else(|| Error::Option(format!("{HIDDEN} is not f32")))?;
        let size = hidden.len() / tokens.len();
        let mut sum = vec![0f64; size];
        for row in hidden.chunks_exact(size) {
            sum.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x));
        }
        let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Zeros have no direction.
        let scale = if length > 0.0 { length.recip() } else { 0.0 };
        Ok(sum.iter().map(|x| (x * scale) as f32).collect())
    }
}
