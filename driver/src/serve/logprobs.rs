//! How likely tokens were, in OpenAI's shapes: of chats a list with an object for each token, of completions lists side by side.
//!
//! Invariant: it is what the model's logits say, before penalties, biases, grammars and temperatures.

use super::fields::Fields;
use super::queue::Told;
use super::refusal::Refusal;
use crate::generate::text::Tokenizer;
use serde_json::{Map, Value as Json, json};

/// Likeliest tokens that a chat may ask for.
const MOST_OF_CHAT: usize = 20;

/// Likeliest tokens that a completion may ask for.
const MOST_OF_COMPLETION: usize = 5;

/// What stands for minus infinity, and for what is no number: JSON has neither.
const NEVER: f32 = -9999.0;

/// How many of the likeliest tokens a chat asks for with each, if it does.
///
/// # Errors
/// When they are too many, or asked for without the others.
pub fn of_chat(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let asked = fields.flag("logprobs")?.unwrap_or(false);
    let best = fields.count("top_logprobs")?.unwrap_or(0);
    if best > 0 && !asked {
        return Err(fields.wrong("top_logprobs", "it needs `logprobs` to be true"));
    }
    at_most(fields, "top_logprobs", best, MOST_OF_CHAT)?;
    Ok(asked.then_some(best))
}

/// How many of the likeliest tokens a completion asks for with each, if it does.
///
/// # Errors
/// When they are too many.
pub fn of_completion(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let best = fields.count("logprobs")?;
    at_most(fields, "logprobs", best.unwrap_or(0), MOST_OF_COMPLETION)?;
    Ok(best)
}

fn at_most(fields: &Fields, name: &str, n: usize, most: usize) -> Result<(), Refusal> {
    match n > most {
        true => Err(fields.wrong(name, format!("{n}, expected 0 to {most}"))),
        false => Ok(()),
    }
}

/// What tokens are called.
pub struct Words {
    /// Bytes of each token; of special ones those of their names.
    all: Vec<Vec<u8>>,
    /// Whether it is known which bytes tokens stand for; if not, these are names.
    known: bool,
}

impl Words {
    /// Those of a tokenizer, for a model of so many tokens.
    pub fn of(tokenizer: &Tokenizer, vocabulary: usize) -> Words {
        let bytes = tokenizer.bytes();
        let known = bytes.is_ok();
        let mut all = bytes.unwrap_or_default();
        all.resize(vocabulary, vec![]);
        for (token, word) in (0..).zip(&mut all).filter(|(_, word)| word.is_empty()) {
            *word = tokenizer.name(token).unwrap_or_default().into_bytes();
        }
        Words { all, known }
    }

    fn bytes(&self, token: i64) -> &[u8] {
        let word = usize::try_from(token).ok().and_then(|t| self.all.get(t));
        word.map_or(&[], |word| &word[..])
    }

    /// A token's text; of one that is a part of a character only, its bytes as OpenAI writes them.
    fn text(&self, token: i64) -> String {
        let bytes = self.bytes(token);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                let hex = bytes.iter().map(|b| format!("\\x{b:02x}"));
                format!("bytes:{}", hex.collect::<String>())
            }
        }
    }

    fn entry(&self, (token, log): (i64, f32)) -> Json {
        let bytes = self.known.then(|| self.bytes(token));
        json!({ "token": self.text(token), "logprob": number(log), "bytes": bytes })
    }

    /// As a chat's answer has it.
    pub fn chat(&self, told: &[Told]) -> Json {
        let entry = |t: &Told| {
            let mut entry = self.entry((t.likelihood.token, t.likelihood.log));
            let best = t.likelihood.best.iter();
            entry["top_logprobs"] = best.map(|one| self.entry(*one)).collect();
            entry
        };
        json!({ "content": told.iter().map(entry).collect::<Vec<_>>(), "refusal": null })
    }

    /// As a completion's answer has it. The token itself is among the likeliest ones, one more where it is none of them.
    pub fn completion(&self, told: &[Told]) -> Json {
        let own = |t: &Told| (t.likelihood.token, t.likelihood.log);
        let best = |t: &Told| {
            let others = t
                .likelihood
                .best
                .iter()
                .filter(|(token, _)| *token != t.likelihood.token);
            let mut all: Vec<(i64, f32)> = others.copied().chain([own(t)]).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let entry = |(token, log): (i64, f32)| (self.text(token), number(log).into());
            all.into_iter().map(entry).collect::<Map<String, Json>>()
        };
        json!({
            "tokens": told.iter().map(|t| self.text(t.likelihood.token)).collect::<Vec<_>>(),
            "token_logprobs": told.iter().map(|t| number(t.likelihood.log)).collect::<Vec<_>>(),
            "top_logprobs": told.iter().map(best).collect::<Vec<_>>(),
            "text_offset": told.iter().map(|t| t.offset).collect::<Vec<_>>(),
        })
    }
}

fn number(log: f32) -> f32 {
    if log.is_finite() { log } else { NEVER }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Likelihood;

    #[test]
    fn tokens_in_both_shapes() {
        let words = Words {
            all: vec![b"<end>".to_vec(), b" a".to_vec(), b"\xc3".to_vec()],
            known: true,
        };
        let told = [Told {
            likelihood: Likelihood {
                token: 2,
                log: -2.0,
                best: vec![(1, -0.5), (0, f32::NEG_INFINITY)],
            },
            offset: 7,
        }];
        let entry = |token: &str, log: f64, bytes: &[u8]| json!({ "token": token, "logprob": log, "bytes": bytes });
        let mut own = entry("bytes:\\xc3", -2.0, b"\xc3");
        own["top_logprobs"] = json!([entry(" a", -0.5, b" a"), entry("<end>", -9999.0, b"<end>")]);
        assert_eq!(words.chat(&told), json!({ "content": [own], "refusal": null }));
        let best = json!({ " a": -0.5, "bytes:\\xc3": -2.0, "<end>": -9999.0 });
        let found = words.completion(&told);
        assert_eq!(
            found,
            json!({ "tokens": ["bytes:\\xc3"], "token_logprobs": [-2.0], "top_logprobs": [best], "text_offset": [7] })
        );
        let order: Vec<&String> = found["top_logprobs"][0]
            .as_object()
            .expect("an object")
            .keys()
            .collect();
        assert_eq!(order, [" a", "bytes:\\xc3", "<end>"]);
    }
}
