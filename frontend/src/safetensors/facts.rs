//! What a folder says of its model beside the graph: how many tokens it is for, and which of them end a text.

use super::config::Config;
use super::{CONFIG, Error, Options, plain};
use serde_json::Value as Json;
use std::path::Path;

/// The file of what generation does where a caller says nothing.
const GENERATION: &str = "generation_config.json";

/// What a folder says of its model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Tokens that a sequence may have, where that is known.
    pub context: Option<usize>,
    /// Tokens that end a text.
    pub end: Vec<i64>,
    /// The token that begins a text.
    pub begin: Option<i64>,
}

/// What a folder says of its model.
///
/// # Errors
/// When `config.json` cannot be read, or a field is wrong.
pub fn facts(folder: impl AsRef<Path>, options: &Options) -> Result<Facts, Error> {
    let folder = folder.as_ref();
    let config = Config::read(&folder.join(CONFIG), &options.config)?;
    let generation = match folder.join(GENERATION) {
        path if path.exists() => Some(Config::read(&path, &[])?),
        _ => None,
    };
    let first = |fields: &[&str]| -> Result<Option<usize>, Error> {
        for field in fields {
            if let Some(n) = config.opt_size(field).map_err(plain)? {
                return Ok(Some(n));
            }
        }
        Ok(None)
    };
    let ids = |field: &str| -> Vec<i64> {
        let said = generation.as_ref().and_then(|g| g.get(field)).or_else(|| config.get(field));
        match said {
            Some(Json::Array(list)) => list.iter().filter_map(Json::as_i64).collect(),
            Some(one) => one.as_i64().into_iter().collect(),
            None => vec![],
        }
    };
    Ok(Facts {
        vocabulary: first(&["padded_vocab_size", "vocab_size"])?.unwrap_or(0),
        context: first(&["max_position_embeddings", "n_positions", "model_max_length", "seq_length"])?,
        end: ids("eos_token_id"),
        begin: ids("bos_token_id").first().copied(),
    })
}
