//! Whisper: an encoder of mel spectrograms and a decoder of text. Source: Radford et al., arXiv 2212.04356.

use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::layer::Block;
use crate::safetensors::net::{Net, Norm, One, Scores};
use brolga_ir::{Attr, Build, DType, Dim, Value};

/// Builds the graph: `input_features` `[batch, mels, frames]` and `decoder_input_ids` to `logits`.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let root = net.weights.root("model.");
    let hidden = config.size("d_model")?;
    let norm = Norm::Layer { eps: 1e-5 };
    let block = |heads, inner| -> Result<Block<'_>, Fail> {
        Ok(Block {
            hidden,
            heads: config.size(heads)?,
            inner: config.size(inner)?,
            activation: config.word("activation_function", "gelu")?,
            norm,
            behind: false,
            biases: [true, false, true],
            attention: [
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.out_proj",
            ],
            mlp: ["fc1", "fc2"],
            norms: ["self_attn_layer_norm", "final_layer_norm"],
        })
    };
    config.only("scale_embedding", &[false.into()])?;
    // Layers of the encoder, as some versions say it.
    config.without_effect(&[
        "num_hidden_layers",
        "median_filter_width",
        "apply_spec_augment",
        "use_weighted_layer_sum",
    ]);
    let (mels, frames) = (config.size("num_mel_bins")?, config.size("max_source_positions")?);
    let batch = Dim::sym("batch");
    let features = net.input(
        "input_features",
        DType::F32,
        &[batch.clone(), mels.into(), (2 * frames).into()],
    );
    let target = Dim::sym("decoder_sequence");
    let ids = net.input("decoder_input_ids", DType::I64, &[batch, target.clone()]);

    let x = convolution(net, features, &format!("{root}encoder.conv1"), [hidden, mels], 1)?;
    let x = convolution(net, x, &format!("{root}encoder.conv2"), [hidden, hidden], 2)?;
    let x = net.call("transpose", &[Attr::axes(&[0, 2, 1])], &[x])?;
    let positions = net.vector(&format!("{root}encoder.embed_positions.weight"), &[frames, hidden])?;
    let mut x = net.map("add", &[x, positions])?;
    let encoder = block("encoder_attention_heads", "encoder_ffn_dim")?;
    for i in 0..config.layers("encoder_layers")? {
        x = encoder.layer(net, x, &format!("{root}encoder.layers.{i}"), Scores::scaled(1.0))?;
    }
    let memory = net.norm(x, &format!("{root}encoder.layer_norm"), norm)?;

    let words = config.size("vocab_size")?;
    let table = format!("{root}decoder.embed_tokens");
    let x = net.embedding(ids, &table, [words, hidden])?;
    let positions = net.iota(&[Dim::ONE, target], 1)?;
    let most = config.size("max_target_positions")?;
    let positions = net.embedding(positions, &format!("{root}decoder.embed_positions"), [most, hidden])?;
    let mut x = net.map("add", &[x, positions])?;
    let decoder = block("decoder_attention_heads", "decoder_ffn_dim")?;
    for i in 0..config.layers("decoder_layers")? {
        x = layer(net, &decoder, x, memory, &format!("{root}decoder.layers.{i}"))?;
    }
    let x = net.norm(x, &format!("{root}decoder.layer_norm"), norm)?;
    let name = match config.flag("tie_word_embeddings", true)? {
        true => {
            net.weights.may_begin_with(&["proj_out."]);
            table.as_str()
        }
        false => "proj_out",
    };
    let logits = net.linear(x, name, [words, hidden], false)?;
    net.output("logits", logits);
    Ok(())
}

/// A layer of the decoder: attention to what is before, to the encoder's result, and an inner layer.
fn layer(net: &mut Net, block: &Block<'_>, x: Value, memory: Value, at: &str) -> One {
    let y = net.norm(x, &format!("{at}.self_attn_layer_norm"), block.norm)?;
    let causal = Scores {
        causal: Some(Dim::ZERO),
        ..Scores::scaled(1.0)
    };
    let y = block.attend(net, y, y, at, block.attention, causal)?;
    let x = net.map("add", &[x, y])?;
    let y = net.norm(x, &format!("{at}.encoder_attn_layer_norm"), block.norm)?;
    let names = [
        "encoder_attn.q_proj",
        "encoder_attn.k_proj",
        "encoder_attn.v_proj",
        "encoder_attn.out_proj",
    ];
    let y = block.attend(net, y, memory, at, names, Scores::scaled(1.0))?;
    let x = net.map("add", &[x, y])?;
    let y = net.norm(x, &format!("{at}.final_layer_norm"), block.norm)?;
    let y = block.mlp(net, y, at)?;
    net.map("add", &[x, y])
}

/// A convolution of 3 frames, with a GELU.
fn convolution(net: &mut Net, x: Value, name: &str, [out, channels]: [usize; 2], stride: i64) -> One {
    net.enter(name);
    let weight = net.vector(&format!("{name}.weight"), &[out, channels, 3])?;
    let one = || Attr::Dims(vec![Dim::ONE]);
    let f32 = || Attr::DType(DType::F32);
    let attrs = [
        Attr::Ints(vec![stride]),
        Attr::Ints(vec![1]),
        one(),
        one(),
        Attr::Int(1),
        f32(),
        f32(),
    ];
    let y = net.call("conv", &attrs, &[x, weight])?;
    let bias = net.vector(&format!("{name}.bias"), &[out])?;
    let bias = net.reshaped(bias, &[out.into(), Dim::ONE])?;
    let y = net.map("add", &[y, bias])?;
    net.activation("gelu", y)
}
