//! Qwen 1: LLaMA's shape with one product for queries, keys and values, and names of its own. Source: Bai et al., arXiv 2309.16609.

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
    net.weights.may_end_with(&["rotary_emb.inv_freq"]);
    let root = net.weights.root("transformer.");
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let head = config.opt_size("kv_channels")?.unwrap_or(hidden / heads);
    config.only("rotary_pct", &[json!(1.0), json!(1)])?;
    config.only("no_bias", &[json!(true)])?;
    config.only("scale_attn_weights", &[json!(true)])?;
    // Both act beyond the context that the model was trained with, `seq_length`, which generation stays in.
    config.without_effect(&[
        "use_dynamic_ntk",
        "use_logn_attn",
        "seq_length",
        "max_position_embeddings",
    ]);
    config.without_effect(&[
        "softmax_in_fp32",
        "use_cache_quantization",
        "use_cache_kernel",
        "apply_residual_connection_post_layernorm",
    ]);
    let layer = Layer {
        rope: Some(0),
        window: None,
        scale: 1.0 / (head as f64).sqrt(),
    };
    let inner = config.size("intermediate_size")?;
    let d = Decoder {
        hidden,
        vocabulary: config.size("vocab_size")?,
        names: Names {
            embedding: format!("{root}wte"),
            layers: format!("{root}h"),
            projections: Projections::Fused("attn.c_attn"),
            out: "attn.c_proj",
            before_attention: "ln_1",
            before_mlp: "ln_2",
            // The gate is the second one.
            mlp: Mlp::Gated(["mlp.w2", "mlp.w1", "mlp.c_proj"]),
            norm: format!("{root}ln_f"),
            ..llama::names(net)
        },
        embedding_scale: 1.0,
        positions: None,
        norm: Norm::Rms {
            eps: config.float("layer_norm_epsilon", 1e-6)?,
            plus: 0.0,
        },
        heads,
        kv_heads: heads,
        head,
        softcap: 0.0,
        head_norms: false,
        alibi: false,
        ropes: vec![Rope::plain(config.float("rotary_emb_base", 1e4)?, head)],
        layers: vec![layer; config.layers("num_hidden_layers")?],
        qkv_bias: true,
        out_bias: false,
        inner: inner / 2,
        activation: "silu".into(),
        mlp_bias: false,
        transposed: false,
        head_kind: Head::of(config, &["LMHeadModel", "ForCausalLM"], false)?,
        normalised_head: false,
        logits_softcap: 0.0,
    };
    d.build(net)
}
