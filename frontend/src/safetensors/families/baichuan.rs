//! Baichuan: LLaMA's shape with one product for queries, keys and values; 7B with rotary embeddings, 13B with ALiBi. Source: Yang et al.,
//! "Baichuan 2", arXiv 2309.10305, and the models' code.

use super::llama;
use crate::safetensors::config::Config;
use crate::safetensors::decoder::Projections;
use crate::safetensors::error::Fail;
use crate::safetensors::net::Net;
use crate::safetensors::rope::Rope;

/// Rows of the second version's head, whose lengths do not count.
const NORMALISED: usize = 125_696;

/// Builds the graph.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    net.weights.may_end_with(&["rotary_emb.inv_freq"]);
    // Only the larger one has no table of positions.
    let alibi = !config.has("max_position_embeddings");
    let mut d = llama::shared(config, net, 1e-6, false)?;
    d.names.projections = Projections::Fused("self_attn.W_pack");
    d.normalised_head = d.vocabulary == NORMALISED;
    d.alibi = alibi;
    match alibi {
        true => d.layers.iter_mut().for_each(|l| l.rope = None),
        false => d.ropes.push(Rope::plain(1e4, d.head)),
    }
    d.build(net)
}
