//! ChatGLM 2 and 3: RMS norms, half of each head turned in neighbouring pairs, few heads of keys and values, SwiGLU. Source: Team GLM, arXiv
//! 2406.12793, and the models' code.

use super::llama;
use crate::safetensors::config::Config;
use crate::safetensors::decoder::{Decoder, Head, Layer, Mlp, Names, Projections};
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm};
use crate::safetensors::rope::Rope;
use serde_json::json;

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    net.weights.may_end_with(&["rotary_pos_emb.inv_freq"]);
    for (field, supported) in [
        ("rmsnorm", true),
        ("original_rope", true),
        ("post_layer_norm", true),
        ("apply_residual_connection_post_layernorm", false),
        ("add_bias_linear", false),
        ("interleaved_qkv", false),
    ] {
        config.only(field, &[json!(supported)])?;
    }
    config.only("pre_seq_len", &[json!(null)])?;
    // How products are scaled and rounded on the way; the result is the same.
    config.without_effect(&[
        "apply_query_key_layer_scaling",
        "attention_softmax_in_fp32",
        "fp32_residual_connection",
        "bias_dropout_fusion",
    ]);
    config.without_effect(&["seq_length", "quantization_bit", "vocab_size", "prefix_projection"]);
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let head = config.opt_size("kv_channels")?.unwrap_or(hidden / heads);
    let groups = config.opt_size("multi_query_group_num")?.unwrap_or(1);
    let kv_heads = if config.flag("multi_query_attention", false)? {
        groups
    } else {
        heads
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.wrong(
            "multi_query_group_num",
            format_args!("{kv_heads} for {heads} heads of queries"),
        ));
    }
    let vocabulary = match config.opt_size("padded_vocab_size")? {
        Some(n) => n,
        None => config.size("vocab_size")?,
    };
    let layer = Layer {
        rope: Some(0),
        window: None,
        scale: 1.0 / (head as f64).sqrt(),
    };
    let d = Decoder {
        hidden,
        vocabulary,
        names: Names {
            embedding: "transformer.embedding.word_embeddings".into(),
            layers: "transformer.encoder.layers".into(),
            projections: Projections::Fused("self_attention.query_key_value"),
            out: "self_attention.dense",
            mlp: Mlp::Fused(["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]),
            norm: "transformer.encoder.final_layernorm".into(),
            head: "transformer.output_layer",
            ..llama::names(net)
        },
        embedding_scale: 1.0,
        positions: None,
        norm: Norm::Rms {
            eps: config.float("layernorm_epsilon", 1e-5)?,
            plus: 0.0,
        },
        heads,
        kv_heads,
        head,
        softcap: 0.0,
        head_norms: false,
        alibi: false,
        ropes: vec![Rope::plain(1e4 * config.float("rope_ratio", 1.0)?, head / 2).interleaved()],
        layers: vec![layer; config.layers("num_layers")?],
        qkv_bias: config.flag("add_qkv_bias", false)?,
        out_bias: false,
        inner: config.size("ffn_hidden_size")?,
        activation: "silu".into(),
        mlp_bias: false,
        transposed: false,
        head_kind: Head::of(
            config,
            &["ForConditionalGeneration", "ChatGLMModel", "ForCausalLM"],
            false,
        )?,
        normalised_head: false,
        logits_softcap: 0.0,
    };
    d.build(net)
}
