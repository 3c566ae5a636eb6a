//! ViT: an image's patches as a sequence. Source: Dosovitskiy et al., arXiv 2010.11929.

use super::heads::labels;
use super::patches::{Names, Patches};
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::layer::Block;
use crate::safetensors::net::{Net, Norm, Scores};

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let root = net.weights.root("vit.");
    let hidden = config.size("hidden_size")?;
    let patches = Patches::of(config)?;
    // Only a head of words can be tied.
    config.without_effect(&["tie_word_embeddings"]);
    let norm = Norm::Layer {
        eps: config.float("layer_norm_eps", 1e-12)?,
    };
    let at = |name: &str| format!("{root}embeddings.{name}");
    net.weights.may_begin_with(&[&at("mask_token")]);
    let names = Names {
        weight: at("patch_embeddings.projection.weight"),
        bias: Some(at("patch_embeddings.projection.bias")),
        token: (at("cls_token"), vec![1, 1, hidden]),
        positions: (at("position_embeddings"), true),
    };
    let mut x = patches.sequence(net, &names)?;
    let block = Block {
        hidden,
        heads: config.size("num_attention_heads")?,
        inner: config.size("intermediate_size")?,
        activation: config.word("hidden_act", "gelu")?,
        norm,
        behind: false,
        biases: [config.flag("qkv_bias", true)?; 3],
        attention: [
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
            "attention.output.dense",
        ],
        mlp: ["intermediate.dense", "output.dense"],
        norms: ["layernorm_before", "layernorm_after"],
    };
    for i in 0..config.layers("num_hidden_layers")? {
        x = block.layer(net, x, &format!("{root}encoder.layer.{i}"), Scores::scaled(1.0))?;
    }
    let x = net.norm(x, &format!("{root}layernorm"), norm)?;
    let first = net.first(x)?;
    let pooler = format!("{root}pooler.dense");
    let pooled = config.opt_size("pooler_output_size")?.unwrap_or(hidden);
    let activation = config.word("pooler_act", "tanh")?;
    let architectures = config.words("architectures")?.unwrap_or_default();
    match architectures.first().copied().unwrap_or("Model") {
        a if a.ends_with("ForImageClassification") => {
            let y = net.linear(first, "classifier", [labels(config)?, hidden], true)?;
            net.output("logits", y);
        }
        a if a.ends_with("Model") => {
            net.output("last_hidden_state", x);
            if net.weights.has(&format!("{pooler}.weight")) {
                let y = net.linear(first, &pooler, [pooled, hidden], true)?;
                let y = net.activation(activation, y)?;
                net.output("pooler_output", y);
            }
        }
        a => {
            let known = "…Model or …ForImageClassification";
            return Err(config.wrong("architectures", format_args!("`{a}`, expected {known}")));
        }
    }
    Ok(())
}
