//! Texts that come as such or as tokens, one or several.

use super::refusal::{Refusal, told};
use crate::generate::text::Tokenizer;
use serde_json::Value as Json;

/// The tokens of each text of a field: of a text, of a list of texts, or as they are given, one list or several. Those that the tokenizer adds
/// around a text are around each.
///
/// # Errors
/// When it is something else, there is none, or the tokenizer does not take a text.
pub fn tokens(tokenizer: &Tokenizer, name: &str, value: &Json) -> Result<Vec<Vec<i64>>, Refusal> {
    let encode = |text: &str| tokenizer.encode(text, true).map_err(|e| Refusal::field(name, told(&e)));
    let given = |all: &[Json]| all.iter().map(Json::as_i64).collect::<Option<Vec<i64>>>();
    let wrong = || Refusal::field(name, "expected a text, tokens, or a list of either");
    let all = match value {
        Json::String(text) => vec![encode(text)?],
        Json::Array(all) if all.first().is_some_and(Json::is_number) => vec![given(all).ok_or_else(wrong)?],
        Json::Array(all) => {
            let each = all.iter().map(|one| match one {
                Json::String(text) => encode(text),
                Json::Array(tokens) => given(tokens).ok_or_else(wrong),
                _ => Err(wrong()),
            });
            each.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    if all.is_empty() || all.iter().any(Vec::is_empty) {
        return Err(Refusal::field(name, "it is empty: there is nothing to go on from"));
    }
    Ok(all)
}
