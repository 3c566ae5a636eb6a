//! DistilBERT: BERT's layers, half as many, without types of tokens. Source: Sanh et al., arXiv 1910.01108.

use super::heads::{Head, labels, vocabulary};
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::layer::Block;
use crate::safetensors::net::{Net, Norm, Scores};
use brolga_ir::{DType, Dim};

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let root = net.weights.root("distilbert.");
    net.weights.may_end_with(&["embeddings.position_ids"]);
    // The table that is made of sines is stored as any other.
    config.without_effect(&["sinusoidal_pos_embds"]);
    // Only a head of words can be tied.
    config.without_effect(&["tie_word_embeddings"]);
    let hidden = config.size("dim")?;
    let norm = Norm::Layer { eps: 1e-12 };
    let activation = config.word("activation", "gelu")?;
    let block = Block {
        hidden,
        heads: config.size("n_heads")?,
        inner: config.size("hidden_dim")?,
        activation,
        norm,
        behind: true,
        biases: [true; 3],
        attention: [
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
        ],
        mlp: ["ffn.lin1", "ffn.lin2"],
        norms: ["sa_layer_norm", "output_layer_norm"],
    };
    let shape = [Dim::sym("batch"), Dim::sym("sequence")];
    let ids = net.input("input_ids", DType::I64, &shape);
    let mask = net.optional_input("attention_mask", DType::I64, &shape);
    let words = config.size("vocab_size")?;
    let at = |name: &str| format!("{root}embeddings.{name}");
    let x = net.embedding(ids, &at("word_embeddings"), [words, hidden])?;
    let positions = net.iota(&[Dim::ONE, shape[1].clone()], 1)?;
    let table = [config.size("max_position_embeddings")?, hidden];
    let positions = net.embedding(positions, &at("position_embeddings"), table)?;
    let x = net.map("add", &[x, positions])?;
    let mut x = net.norm(x, &at("LayerNorm"), norm)?;
    let seen = match mask {
        Some(m) => Some(net.padding(m)?),
        None => None,
    };
    for i in 0..config.layers("n_layers")? {
        let scores = Scores {
            mask: seen,
            ..Scores::scaled(1.0)
        };
        x = block.layer(net, x, &format!("{root}transformer.layer.{i}"), scores)?;
    }
    match Head::of(config)? {
        Head::Words => {
            let x = net.linear(x, "vocab_transform", [hidden, hidden], true)?;
            let x = net.activation(activation, x)?;
            let x = net.norm(x, "vocab_layer_norm", norm)?;
            let tied = config.flag("tie_word_embeddings", true)?;
            if tied {
                net.weights.may_begin_with(&["vocab_projector.weight"]);
            }
            let table = if tied {
                at("word_embeddings")
            } else {
                "vocab_projector".to_owned()
            };
            let logits = vocabulary(net, x, &table, "vocab_projector.bias", [words, hidden])?;
            net.output("logits", logits);
        }
        Head::Texts => {
            let first = net.first(x)?;
            let y = net.linear(first, "pre_classifier", [hidden, hidden], true)?;
            let y = net.activation("relu", y)?;
            let y = net.linear(y, "classifier", [labels(config)?, hidden], true)?;
            net.output("logits", y);
        }
        Head::Tokens => {
            let y = net.linear(x, "classifier", [labels(config)?, hidden], true)?;
            net.output("logits", y);
        }
        Head::None => net.output("last_hidden_state", x),
    }
    Ok(())
}
