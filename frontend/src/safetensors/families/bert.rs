//! BERT, and RoBERTa and its relatives, which count positions from the padding token's on. Sources: Devlin et al., arXiv 1810.04805; Liu et
//! al., arXiv 1907.11692.

use super::heads::{Head, labels, vocabulary};
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::layer::Block;
use crate::safetensors::net::{Net, Norm, One, Scores};
use brolga_ir::{Attr, Build, DType, Dim, Value};
use serde_json::json;

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let kind = config.word("model_type", "bert")?;
    let roberta = kind != "bert";
    let root = net.weights.root(if roberta { "roberta." } else { "bert." });
    let head = Head::of(config)?;
    config.only("position_embedding_type", &[json!("absolute")])?;
    config.only("is_decoder", &[json!(false)])?;
    // Only a head of words can be tied.
    config.without_effect(&["tie_word_embeddings"]);
    net.weights.may_end_with(&["embeddings.position_ids"]);
    let hidden = config.size("hidden_size")?;
    let norm = Norm::Layer {
        eps: config.float("layer_norm_eps", 1e-12)?,
    };
    let activation = config.word("hidden_act", "gelu")?;
    let block = Block {
        hidden,
        heads: config.size("num_attention_heads")?,
        inner: config.size("intermediate_size")?,
        activation,
        norm,
        behind: true,
        biases: [true; 3],
        attention: [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ],
        mlp: ["intermediate.dense", "output.dense"],
        norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    };
    let shape = [Dim::sym("batch"), Dim::sym("sequence")];
    let ids = net.input("input_ids", DType::I64, &shape);
    let mask = net.optional_input("attention_mask", DType::I64, &shape);
    let types = net.optional_input("token_type_ids", DType::I64, &shape);
    let positions = net.optional_input("position_ids", DType::I64, &shape);
    let words = config.size("vocab_size")?;
    let at = |name: &str| format!("{root}embeddings.{name}");
    let x = net.embedding(ids, &at("word_embeddings"), [words, hidden])?;
    let table = [config.size("type_vocab_size")?, hidden];
    let types = match types {
        Some(types) => types,
        None => net.splat(DType::I64, &[Dim::ONE, Dim::ONE], 0.0)?,
    };
    let types = net.embedding(types, &at("token_type_embeddings"), table)?;
    let positions = match positions {
        Some(p) => p,
        None if roberta => {
            let padding = config
                .get("pad_token_id")
                .and_then(serde_json::Value::as_i64)
                .unwrap_or(1);
            counted(net, ids, padding)?
        }
        None => net.iota(&[Dim::ONE, shape[1].clone()], 1)?,
    };
    let table = [config.size("max_position_embeddings")?, hidden];
    let positions = net.embedding(positions, &at("position_embeddings"), table)?;
    let x = net.map("add", &[x, types])?;
    let x = net.map("add", &[x, positions])?;
    let mut x = net.norm(x, &at("LayerNorm"), norm)?;
    let seen = match mask {
        Some(m) => Some(net.padding(m)?),
        None => None,
    };
    for i in 0..config.layers("num_hidden_layers")? {
        let scores = Scores {
            mask: seen,
            ..Scores::scaled(1.0)
        };
        x = block.layer(net, x, &format!("{root}encoder.layer.{i}"), scores)?;
    }
    let pooler = format!("{root}pooler.dense");
    let pooled = |net: &mut Net, x: Value| -> One {
        let first = net.first(x)?;
        let y = net.linear(first, &pooler, [hidden, hidden], true)?;
        net.map("tanh", &[y])
    };
    match head {
        Head::None => {
            net.output("last_hidden_state", x);
            if net.weights.has(&format!("{pooler}.weight")) {
                let pooled = pooled(net, x)?;
                net.output("pooler_output", pooled);
            }
        }
        Head::Words => {
            // A second objective of training may have been saved as well.
            net.weights.may_begin_with(&[
                &pooler,
                "cls.seq_relationship.",
                "cls.predictions.decoder.",
                "lm_head.decoder.",
            ]);
            let names = match roberta {
                true => ["lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head"],
                false => [
                    "cls.predictions.transform.dense",
                    "cls.predictions.transform.LayerNorm",
                    "cls.predictions.decoder",
                    "cls.predictions",
                ],
            };
            let x = net.linear(x, names[0], [hidden, hidden], true)?;
            let x = net.activation(if roberta { "gelu" } else { activation }, x)?;
            let x = net.norm(x, names[1], norm)?;
            let tied = config.flag("tie_word_embeddings", true)?;
            let table = if tied {
                at("word_embeddings")
            } else {
                names[2].to_owned()
            };
            let logits = vocabulary(net, x, &table, &format!("{}.bias", names[3]), [words, hidden])?;
            net.output("logits", logits);
        }
        Head::Texts => {
            let n = labels(config)?;
            let y = if roberta {
                let first = net.first(x)?;
                let y = net.linear(first, "classifier.dense", [hidden, hidden], true)?;
                let y = net.map("tanh", &[y])?;
                net.linear(y, "classifier.out_proj", [n, hidden], true)?
            } else {
                let y = pooled(net, x)?;
                net.linear(y, "classifier", [n, hidden], true)?
            };
            net.output("logits", y);
        }
        Head::Tokens => {
            net.weights.may_begin_with(&[&pooler]);
            let y = net.linear(x, "classifier", [labels(config)?, hidden], true)?;
            net.output("logits", y);
        }
    }
    Ok(())
}

/// Positions of the tokens that are not padding, counted from the padding token's number on, which padding keeps.
fn counted(net: &mut Net, ids: Value, padding: i64) -> One {
    net.enter("embeddings.position_ids");
    let token = net.map_num("sub", ids, padding as f64)?;
    let token = net.cast(token, DType::Bool)?;
    let token = net.cast(token, DType::I64)?;
    let attrs = [Attr::word("sum"), Attr::Int(1), Attr::Bool(false), Attr::Bool(false)];
    let counted = net.call("scan", &attrs, &[token])?;
    let counted = net.map("mul", &[counted, token])?;
    net.map_num("add", counted, padding as f64)
}
