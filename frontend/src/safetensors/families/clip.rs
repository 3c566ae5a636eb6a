//! CLIP's vision tower, of a folder of its own or of the whole model. Source: Radford et al., arXiv 2103.00020.

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
    let whole = config.section("vision_config")?;
    if whole.is_some() {
        // The other tower: who wants texts has them elsewhere.
        config.without_effect(&["text_config", "text_config_dict", "vision_config_dict"]);
        net.weights
            .may_begin_with(&["text_model.", "text_projection.", "logit_scale"]);
    }
    let vision = whole.as_ref().unwrap_or(config);
    tower(config, vision, net)?;
    if let Some(vision) = &whole {
        vision.finish()?;
    }
    Ok(())
}

fn tower(config: &Config, vision: &Config, net: &mut Net) -> Result<(), Fail> {
    let root = "vision_model.";
    net.weights.may_end_with(&["embeddings.position_ids"]);
    let hidden = vision.size("hidden_size")?;
    let patches = Patches::of(vision)?;
    // Only a head of words can be tied.
    vision.without_effect(&["tie_word_embeddings"]);
    config.without_effect(&["tie_word_embeddings"]);
    let norm = Norm::Layer {
        eps: vision.float("layer_norm_eps", 1e-5)?,
    };
    let at = |name: &str| format!("{root}embeddings.{name}");
    let names = Names {
        weight: at("patch_embedding.weight"),
        bias: None,
        token: (at("class_embedding"), vec![hidden]),
        positions: (at("position_embedding.weight"), false),
    };
    let x = patches.sequence(net, &names)?;
    // Its name has been spelt so from the beginning.
    let mut x = net.norm(x, &format!("{root}pre_layrnorm"), norm)?;
    let block = Block {
        hidden,
        heads: vision.size("num_attention_heads")?,
        inner: vision.size("intermediate_size")?,
        activation: vision.word("hidden_act", "quick_gelu")?,
        norm,
        behind: false,
        biases: [true; 3],
        attention: [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
        ],
        mlp: ["mlp.fc1", "mlp.fc2"],
        norms: ["layer_norm1", "layer_norm2"],
    };
    for i in 0..vision.layers("num_hidden_layers")? {
        x = block.layer(net, x, &format!("{root}encoder.layers.{i}"), Scores::scaled(1.0))?;
    }
    let first = net.first(x)?;
    let pooled = net.norm(first, &format!("{root}post_layernorm"), norm)?;
    // The size of the space that both towers project to.
    let field = |c: &Config| c.opt_size("projection_dim");
    let outer = field(config)?;
    let size = if outer.is_some() { outer } else { field(vision)? };
    vision.without_effect(&["projection_dim"]);
    match (net.weights.has("visual_projection.weight"), size) {
        (true, Some(size)) => {
            let y = net.linear(pooled, "visual_projection", [size, hidden], false)?;
            net.output("image_embeds", y);
        }
        _ => net.output("pooler_output", pooled),
    }
    net.output("last_hidden_state", x);
    Ok(())
}
