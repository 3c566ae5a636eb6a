//! Gemma 1 to 3: a scaled embedding, norms whose scales are stored less 1, GELU gates; from the second on, norms behind attention and inner
//! layer, capped scores, and layers that slide; the third has norms of heads, and rotary embeddings of two kinds. Sources: Gemma team,
//! arXiv 2403.08295, 2408.00118 and 2503.19786.

use super::llama;
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm};
use crate::safetensors::rope::{Defaults, Rope};
use serde_json::json;

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let kind = config.word("model_type", "gemma3_text")?;
    let third = kind.starts_with("gemma3");
    config.only("use_bidirectional_attention", &[json!(false)])?;
    let mut d = llama::shared(config, net, 1e-6, true)?;
    // The embedding is scaled by a number that was rounded as the weights are in training: in f32 it is the root itself.
    d.embedding_scale = f64::from((d.hidden as f64).sqrt() as f32);
    if let Norm::Rms { plus, .. } = &mut d.norm {
        *plus = 1.0;
    }
    // Early configurations name an activation that the models were not trained with; the second name counts.
    let named = config.word("hidden_act", "gelu_pytorch_tanh")?;
    let named = if kind == "gemma" && named == "gelu" {
        "gelu_pytorch_tanh"
    } else {
        named
    };
    d.activation = config.word("hidden_activation", named)?.to_owned();
    d.qkv_bias = config.flag("attention_bias", false)?;
    d.out_bias = d.qkv_bias;
    let defaults = |layer_type, theta| Defaults {
        theta,
        head: d.head,
        layer_type,
        context: None,
    };
    if kind == "gemma" {
        d.ropes = vec![Rope::of(config, &defaults(None, 1e4))?];
        return d.build(net);
    }
    d.names.after_attention = Some("post_attention_layernorm");
    d.names.before_mlp = "pre_feedforward_layernorm";
    d.names.after_mlp = Some("post_feedforward_layernorm");
    let scale = 1.0 / config.float("query_pre_attn_scalar", 256.0)?.sqrt();
    d.layers.iter_mut().for_each(|l| l.scale = scale);
    let caps = if third { [0.0; 2] } else { [50.0, 30.0] };
    // A cap that is null is none, and one that is missing the family's.
    let cap = |field: &str, missing: f64| match config.is_null(field) {
        true => Ok(0.0),
        false => config.float(field, missing),
    };
    d.softcap = cap("attn_logit_softcapping", caps[0])?;
    d.logits_softcap = cap("final_logit_softcapping", caps[1])?;
    // Some folders say it a second time.
    let second = config.opt_size("sliding_window_size")?;
    let window = config.opt_size("sliding_window")?.or(second).or(Some(4096));
    // Every so manieth layer sees all.
    let pattern = config.opt_size("_sliding_window_pattern")?;
    let pattern = config
        .opt_size("sliding_window_pattern")?
        .or(pattern)
        .unwrap_or(if third { 6 } else { 2 });
    if third {
        d.head_norms = true;
        let local = config.float("rope_local_base_freq", 1e4)?;
        // Scaling is for layers that see all.
        let sliding = match config.section("rope_parameters")? {
            Some(s) if s.has("sliding_attention") => Rope::of(config, &defaults(Some("sliding_attention"), local))?,
            _ => Rope::plain(local, d.head),
        };
        d.ropes = vec![Rope::of(config, &defaults(Some("full_attention"), 1e6))?, sliding];
    } else {
        d.ropes = vec![Rope::of(config, &defaults(None, 1e4))?];
    }
    llama::windows(config, &mut d, window, |i| (i + 1) % pattern != 0)?;
    if third {
        d.layers
            .iter_mut()
            .for_each(|l| l.rope = Some(usize::from(l.window.is_some())));
    }
    d.build(net)
}
