//! LLaMA 1 to 3, and what shares its shape: Mistral, Qwen 2, 2.5 and 3, SmolLM, TinyLlama. RMS norms before attention and inner layer, rotary
//! embeddings, shared heads of keys and values, SwiGLU. Sources: Touvron et al., arXiv 2302.13971; Jiang et al., "Mistral 7B", arXiv
//! 2310.06825; Qwen team, arXiv 2407.10671 and 2505.09388.

use crate::safetensors::config::Config;
use crate::safetensors::decoder::{Decoder, Head, Layer, Mlp, Names, Projections};
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm};
use crate::safetensors::rope::{Defaults, Rope};

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    net.weights.may_end_with(&["rotary_emb.inv_freq"]);
    describe(config, net)?.build(net)
}

/// The names of the family's tensors.
pub fn names(net: &Net) -> Names {
    let root = net.weights.root("model.");
    Names {
        embedding: format!("{root}embed_tokens"),
        positions: "",
        layers: format!("{root}layers"),
        projections: Projections::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        out: "self_attn.o_proj",
        head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
        before_attention: "input_layernorm",
        after_attention: None,
        before_mlp: "post_attention_layernorm",
        after_mlp: None,
        mlp: Mlp::Gated(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
        norm: format!("{root}norm"),
        head: "lm_head",
    }
}

/// What the fields that the family's members share say.
///
/// # Errors
/// When one is missing or wrong.
pub fn shared(config: &Config, net: &mut Net, eps: f64, tied: bool) -> Result<Decoder, Fail> {
    let (hidden, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let head = match config.opt_size("head_dim")? {
        Some(n) => n,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(config.wrong(
                "num_attention_heads",
                format_args!("{heads} for a hidden_size of {hidden}"),
            ));
        }
    };
    let kv_heads = config.opt_size("num_key_value_heads")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.wrong(
            "num_key_value_heads",
            format_args!("{kv_heads} for {heads} heads of queries"),
        ));
    }
    // The context is for who generates; frequencies ask for it where they depend on it.
    config.without_effect(&["max_position_embeddings"]);
    let head_kind = Head::of(config, &["ForCausalLM"], tied)?;
    if head_kind != Head::Own {
        // A tied head may have been saved as well.
        net.weights.may_begin_with(&["lm_head."]);
    }
    let layer = Layer {
        rope: Some(0),
        window: None,
        scale: 1.0 / (head as f64).sqrt(),
    };
    Ok(Decoder {
        hidden,
        vocabulary: config.size("vocab_size")?,
        names: names(net),
        embedding_scale: 1.0,
        positions: None,
        norm: Norm::Rms {
            eps: config.float("rms_norm_eps", eps)?,
            plus: 0.0,
        },
        heads,
        kv_heads,
        head,
        softcap: 0.0,
        head_norms: false,
        alibi: false,
        ropes: vec![],
        layers: vec![layer; config.layers("num_hidden_layers")?],
        qkv_bias: false,
        out_bias: false,
        inner: config.size("intermediate_size")?,
        activation: config.word("hidden_act", "silu")?.to_owned(),
        mlp_bias: false,
        transposed: false,
        head_kind,
        normalised_head: false,
        logits_softcap: 0.0,
    })
}

/// Gives a window to the layers that `layer_types` names, or else to those that `has` tells.
///
/// # Errors
/// When there are other types, or not as many as layers.
pub fn windows(
    config: &Config,
    d: &mut Decoder,
    window: Option<usize>,
    has: impl Fn(usize) -> bool,
) -> Result<(), Fail> {
    let types = config.words("layer_types")?;
    if let Some(types) = &types
        && types.len() != d.layers.len()
    {
        let message = format!("{} types of layers, expected {}", types.len(), d.layers.len());
        return Err(config.wrong("layer_types", message));
    }
    for (i, layer) in d.layers.iter_mut().enumerate() {
        let slides = match types.as_ref().map(|t| t[i]) {
            None => has(i),
            Some("full_attention") => false,
            Some("sliding_attention") => true,
            Some(other) => return Err(config.wrong("layer_types", format_args!("`{other}` is not supported"))),
        };
        if slides {
            let window = window.ok_or_else(|| config.wrong("sliding_window", "is missing"))?;
            layer.window = Some(window);
        }
    }
    Ok(())
}

fn describe(config: &Config, net: &mut Net) -> Result<Decoder, Fail> {
    let kind = config.word("model_type", "llama")?;
    let mut d = shared(config, net, 1e-6, false)?;
    d.qkv_bias = config.flag("attention_bias", kind == "qwen2")?;
    // Qwen 2 has biases before attention only.
    d.out_bias = d.qkv_bias && kind != "qwen2";
    d.mlp_bias = config.flag("mlp_bias", false)?;
    d.head_norms = kind == "qwen3";
    let theta = match kind {
        "smollm3" => 2e6,
        _ => 1e4,
    };
    d.ropes.push(Rope::of(
        config,
        &Defaults {
            theta,
            head: d.head,
            layer_type: None,
            context: None,
        },
    )?);
    if kind == "smollm3" {
        let every = config.opt_size("no_rope_layer_interval")?.unwrap_or(4);
        let listed = config.floats("no_rope_layers")?;
        for (i, layer) in d.layers.iter_mut().enumerate() {
            // 1 where there is one, in spite of the field's name.
            let turns = listed
                .as_ref()
                .and_then(|l| l.get(i))
                .map_or((i + 1) % every != 0, |x| *x != 0.0);
            layer.rope = turns.then_some(0);
        }
    }
    let window = config.opt_size("sliding_window")?;
    match kind {
        "mistral" => windows(config, &mut d, window, |_| window.is_some())?,
        "llama" => {}
        _ => {
            let used = config.flag("use_sliding_window", false)?;
            let first = config
                .get("max_window_layers")
                .and_then(serde_json::Value::as_u64)
                .unwrap_or(28);
            windows(config, &mut d, window, |i| {
                used && window.is_some() && i as u64 >= first
            })?;
        }
    }
    Ok(d)
}
