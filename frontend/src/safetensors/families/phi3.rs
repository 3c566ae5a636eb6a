//! Phi-3: LLaMA's shape with fused products. Source: Abdin et al., arXiv 2404.14219.

use super::llama;
use crate::safetensors::config::Config;
use crate::safetensors::decoder::{Mlp, Projections};
use crate::safetensors::error::Fail;
use crate::safetensors::net::Net;
use crate::safetensors::rope::{Defaults, Rope};

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    net.weights.may_end_with(&["rotary_emb.inv_freq"]);
    let mut d = llama::shared(config, net, 1e-5, false)?;
    d.names.projections = Projections::Fused("self_attn.qkv_proj");
    d.names.mlp = Mlp::Fused(["mlp.gate_up_proj", "mlp.down_proj"]);
    d.ropes.push(Rope::of(
        config,
        &Defaults {
            theta: 1e4,
            head: d.head,
            layer_type: None,
            context: None,
        },
    )?);
    let window = config.opt_size("sliding_window")?;
    llama::windows(config, &mut d, window, |_| window.is_some())?;
    d.build(net)
}
