//! What a folder says of its model beside the graph: how many tokens it is for, and which of them end a text.

use super::config::Config;
use super::{Error, plain};
use serde_json::Value as Json;

/// What a folder says of its model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Tokens that a sequence may have, where that is known.
    pub context: Option<usize>,
    /// Tokens that end a text.
    pub end: Vec<i64>,
    /// The token that a decoder begins with, of models with an encoder.
    pub start: Option<i64>,
    /// How tokens are chosen where a caller says nothing: fields of `generation_config.json` and their numbers.
    pub sampling: Vec<(String, f64)>,
    /// Bytes of weights that each run reads, as they are kept: all but tables of which it takes rows.
    pub streamed: u64,
    /// The farthest that a layer sees which keeps no more than that, in steps.
    pub window: Option<usize>,
}

/// What a folder says of its model, by its configuration and its settings of generation.
///
/// # Errors
/// When a field is wrong.
pub fn facts(config: &Config, generation: Option<&Config>) -> Result<Facts, Error> {
    let first = |fields: &[&str]| -> Result<Option<usize>, Error> {
        for field in fields {
            if let Some(n) = config.opt_size(field).map_err(plain)? {
                return Ok(Some(n));
            }
        }
        Ok(None)
    };
    let either = |field: &str| generation.and_then(|g| g.get(field)).or_else(|| config.get(field));
    Ok(Facts {
        vocabulary: first(&["padded_vocab_size", "vocab_size"])?.unwrap_or(0),
        // Scores by the distance of keys have no limit, whatever texts a model was trained with.
        context: match config.has("relative_attention_num_buckets") {
            true => None,
            false => first(&[
                "max_target_positions",
                "max_position_embeddings",
                "n_positions",
                "model_max_length",
                "seq_length",
            ])?,
        },
        start: either("decoder_start_token_id").and_then(Json::as_i64),
        end: match either("eos_token_id") {
            Some(Json::Array(list)) => list.iter().filter_map(Json::as_i64).collect(),
            Some(one) => one.as_i64().into_iter().collect(),
            None => vec![],
        },
        sampling: sampling(generation),
        streamed: 0,
        window: None,
    })
}

/// Fields that say how tokens are drawn, where they are drawn.
fn sampling(generation: Option<&Config>) -> Vec<(String, f64)> {
    let draws = |g: &Config| g.get("do_sample").and_then(Json::as_bool) == Some(true);
    let number = |g: &Config, field: &str| Some((field.to_owned(), g.get(field)?.as_f64()?));
    let Some(g) = generation else { return vec![] };
    let drawn: &[&str] = if draws(g) {
        &["temperature", "top_k", "top_p", "min_p"]
    } else {
        &[]
    };
    // The default of a temperature is 1.
    let warm = draws(g) && !g.has("temperature");
    let fields = drawn.iter().chain(&["repetition_penalty"]).filter_map(|f| number(g, f));
    fields.chain(warm.then(|| ("temperature".to_owned(), 1.0))).collect()
}
