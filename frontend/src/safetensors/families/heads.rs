//! What encoders have behind their last layer.

use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, One};
use brolga_ir::Value;

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

/// A linear layer with a bias.
///
/// # Errors
/// When `x` has no such last extent.
pub fn last(net: &mut Net, x: Value, name: &str, shape: [usize; 2]) -> One {
    net.linear(x, name, shape, true)
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
