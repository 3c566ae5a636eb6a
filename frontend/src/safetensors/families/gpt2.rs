//! GPT-2: learned positions, layer norms with biases, an inner layer without a gate; matrices are stored as `[in, out]`. Source: Radford et
//! al., "Language Models are Unsupervised Multitask Learners", 2019.

use crate::safetensors::config::Config;
use crate::safetensors::decoder::{Decoder, Head, Layer, Mlp, Names, Projections};
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm};

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    // Masks that were saved with the model.
    net.weights.may_end_with(&[".attn.bias", ".attn.masked_bias"]);
    let root = net.weights.root("transformer.");
    let (hidden, heads) = (config.size("n_embd")?, config.size("n_head")?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.wrong("n_head", format_args!("{heads} for {hidden} elements")));
    }
    let head = hidden / heads;
    config.without_effect(&["n_ctx", "reorder_and_upcast_attn"]);
    let scaled = config.flag("scale_attn_weights", true)?;
    let by_layer = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |i: usize| Layer {
        rope: None,
        window: None,
        scale: (if scaled { 1.0 / (head as f64).sqrt() } else { 1.0 }) / (if by_layer { i as f64 + 1.0 } else { 1.0 }),
    };
    let head_kind = Head::of(config, &["LMHeadModel", "ForCausalLM"], true)?;
    if head_kind != Head::Own {
        net.weights.may_begin_with(&["lm_head."]);
    }
    let d = Decoder {
        hidden,
        vocabulary: config.size("vocab_size")?,
        names: Names {
            embedding: format!("{root}wte"),
            positions: if root.is_empty() { "wpe" } else { "transformer.wpe" },
            layers: format!("{root}h"),
            projections: Projections::Fused("attn.c_attn"),
            out: "attn.c_proj",
            head_norms: [""; 2],
            before_attention: "ln_1",
            after_attention: None,
            before_mlp: "ln_2",
            after_mlp: None,
            mlp: Mlp::Plain(["mlp.c_fc", "mlp.c_proj"]),
            norm: format!("{root}ln_f"),
            head: "lm_head",
        },
        embedding_scale: 1.0,
        positions: Some(config.size("n_positions")?),
        norm: Norm::Layer {
            eps: config.float("layer_norm_epsilon", 1e-5)?,
        },
        heads,
        kv_heads: heads,
        head,
        softcap: 0.0,
        head_norms: false,
        alibi: false,
        ropes: vec![],
        layers: (0..config.layers("n_layer")?).map(layer).collect(),
        qkv_bias: true,
        out_bias: true,
        inner: config.opt_size("n_inner")?.unwrap_or(4 * hidden),
        activation: config.word("activation_function", "gelu_new")?.to_owned(),
        mlp_bias: true,
        transposed: true,
        head_kind,
        normalised_head: false,
        logits_softcap: 0.0,
    };
    d.build(net)
}
