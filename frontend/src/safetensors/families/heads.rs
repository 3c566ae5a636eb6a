//! What encoders have behind their last layer.

use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, One};
use brolga_ir::Value;

/// What becomes of an encoder's last layer.
#[derive(Clone, Copy, PartialEq)]
pub enum Head {
    /// The hidden state is the result; where the folder has a pooler, it is one, too.
    None,
    /// Logits of the vocabulary.
    Words,
    /// Logits of classes, of whole texts.
    Texts,
    /// Logits of classes, of tokens.
    Tokens,
}

impl Head {
    /// What `architectures` says.
    ///
    /// # Errors
    /// When it is another one.
    pub fn of(config: &Config) -> Result<Head, Fail> {
        let architectures = config.words("architectures")?.unwrap_or_default();
        Ok(match architectures.first().copied().unwrap_or("Model") {
            a if a.ends_with("ForMaskedLM") || a.ends_with("ForPreTraining") => Head::Words,
            a if a.ends_with("ForSequenceClassification") => Head::Texts,
            a if a.ends_with("ForTokenClassification") => Head::Tokens,
            a if a.ends_with("Model") => Head::None,
            a => {
                let known = "…Model, …ForMaskedLM, …ForSequenceClassification or …ForTokenClassification";
                return Err(config.wrong("architectures", format_args!("`{a}`, expected {known}")));
            }
        })
    }
}

/// The number of classes: of `id2label`, or `num_labels`, or 2.
///
/// # Errors
/// When it is none.
pub fn labels(config: &Config) -> Result<usize, Fail> {
    let named = config
        .get("id2label")
        .and_then(|v| v.as_object())
        .map(serde_json::Map::len);
    match named {
        Some(n) => Ok(n),
        None => Ok(config.opt_size("num_labels")?.unwrap_or(2)),
    }
}

/// Logits of a vocabulary: the product with a table, and a bias that lies elsewhere.
///
/// # Errors
/// When `x` has no such last extent.
pub fn vocabulary(net: &mut Net, x: Value, table: &str, bias: &str, [words, hidden]: [usize; 2]) -> One {
    net.enter(table);
    let w = net.weight(&format!("{table}.weight"), &[words, hidden]);
    let y = net.product(x, w, 1)?;
    net.add_vector(y, bias, words)
}
