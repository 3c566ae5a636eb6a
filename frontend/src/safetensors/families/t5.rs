//! T5: an encoder and a decoder whose scores have a learned bias by the distance of keys, and products that are not scaled. Source: Raffel et
//! al., arXiv 1910.10683.

use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm, One, Scores};
use brolga_ir::{Attr, Build, DType, Dim, Value};

struct T5<'a> {
    hidden: usize,
    heads: usize,
    head: usize,
    inner: usize,
    activation: &'a str,
    gated: bool,
    norm: Norm,
    buckets: usize,
    farthest: usize,
}

/// Builds the graph: `input_ids` and `decoder_input_ids` to `logits`.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let named = config.word("feed_forward_proj", "relu")?;
    let (gated, activation) = match named.strip_prefix("gated-") {
        Some(rest) => (true, rest),
        None => (false, named),
    };
    // A gate's `gelu` is the approximation.
    let activation = if gated && activation == "gelu" {
        "gelu_new"
    } else {
        activation
    };
    config.without_effect(&["dense_act_fn", "is_gated_act", "n_positions", "output_past"]);
    let t5 = T5 {
        hidden: config.size("d_model")?,
        heads: config.size("num_heads")?,
        head: config.size("d_kv")?,
        inner: config.size("d_ff")?,
        activation,
        gated,
        norm: Norm::Rms {
            eps: config.float("layer_norm_epsilon", 1e-6)?,
            plus: 0.0,
        },
        buckets: config.opt_size("relative_attention_num_buckets")?.unwrap_or(32),
        farthest: config.opt_size("relative_attention_max_distance")?.unwrap_or(128),
    };
    if t5.buckets < 4 || t5.farthest <= t5.buckets / 2 {
        let message = format!("{} for a distance of {}", t5.buckets, t5.farthest);
        return Err(config.wrong("relative_attention_num_buckets", message));
    }
    let words = config.size("vocab_size")?;
    let batch = Dim::sym("batch");
    let (seq, target) = (Dim::sym("sequence"), Dim::sym("decoder_sequence"));
    let ids = net.input("input_ids", DType::I64, &[batch.clone(), seq.clone()]);
    let mask = net.optional_input("attention_mask", DType::I64, &[batch.clone(), seq.clone()]);
    let decoder_ids = net.input("decoder_input_ids", DType::I64, &[batch, target.clone()]);
    net.weights
        .may_begin_with(&["encoder.embed_tokens.", "decoder.embed_tokens."]);
    let seen = match mask {
        Some(m) => Some(net.padding(m)?),
        None => None,
    };

    let mut x = net.embedding(ids, "shared", [words, t5.hidden])?;
    let bias = t5.bias(net, "encoder", &seq, true)?;
    let layers = config.layers("num_layers")?;
    for i in 0..layers {
        let at = format!("encoder.block.{i}.layer");
        let scores = Scores {
            bias: Some(bias),
            mask: seen,
            ..Scores::scaled(1.0)
        };
        x = t5.attention(net, x, None, &format!("{at}.0"), "SelfAttention", &scores)?;
        x = t5.mlp(net, x, &format!("{at}.1"))?;
    }
    let memory = net.norm(x, "encoder.final_layer_norm", t5.norm)?;

    let mut x = net.embedding(decoder_ids, "shared", [words, t5.hidden])?;
    let bias = t5.bias(net, "decoder", &target, false)?;
    let decoder_layers = match config.has("num_decoder_layers") {
        true => config.layers("num_decoder_layers")?,
        false => layers,
    };
    for i in 0..decoder_layers {
        let at = format!("decoder.block.{i}.layer");
        let scores = Scores {
            bias: Some(bias),
            causal: Some(Dim::ZERO),
            ..Scores::scaled(1.0)
        };
        x = t5.attention(net, x, None, &format!("{at}.0"), "SelfAttention", &scores)?;
        let scores = Scores {
            mask: seen,
            ..Scores::scaled(1.0)
        };
        x = t5.attention(net, x, Some(memory), &format!("{at}.1"), "EncDecAttention", &scores)?;
        x = t5.mlp(net, x, &format!("{at}.2"))?;
    }
    let mut x = net.norm(x, "decoder.final_layer_norm", t5.norm)?;
    let tied = config.flag("tie_word_embeddings", true)?;
    // Before it had a field of its own, whether the head was tied told it.
    if config.flag("scale_decoder_outputs", tied)? {
        x = net.map_num("mul", x, 1.0 / (t5.hidden as f64).sqrt())?;
    }
    let name = if tied { "shared" } else { "lm_head" };
    if tied {
        net.weights.may_begin_with(&["lm_head."]);
    }
    let logits = net.linear(x, name, [words, t5.hidden], false)?;
    net.output("logits", logits);
    Ok(())
}

impl T5<'_> {
    /// `x` plus attention of its norm, to itself or to the encoder's result.
    fn attention(&self, net: &mut Net, x: Value, to: Option<Value>, at: &str, name: &str, scores: &Scores) -> One {
        let y = net.norm(x, &format!("{at}.layer_norm"), self.norm)?;
        let wide = self.heads * self.head;
        let to = to.unwrap_or(y);
        let mut parts = [y, to, to];
        for (part, which) in parts.iter_mut().zip(["q", "k", "v"]) {
            let v = net.linear(*part, &format!("{at}.{name}.{which}"), [wide, self.hidden], false)?;
            *part = net.heads(v, self.heads, self.head)?;
        }
        let [q, k, v] = parts;
        let y = net.attention(q, k, v, scores)?;
        let y = net.linear(y, &format!("{at}.{name}.o"), [self.hidden, wide], false)?;
        net.map("add", &[x, y])
    }

    fn mlp(&self, net: &mut Net, x: Value, at: &str) -> One {
        let y = net.norm(x, &format!("{at}.layer_norm"), self.norm)?;
        let at = format!("{at}.DenseReluDense");
        let shape = [self.inner, self.hidden];
        let y = if self.gated {
            let gate = net.linear(y, &format!("{at}.wi_0"), shape, false)?;
            let gate = net.activation(self.activation, gate)?;
            let up = net.linear(y, &format!("{at}.wi_1"), shape, false)?;
            net.map("mul", &[gate, up])?
        } else {
            let y = net.linear(y, &format!("{at}.wi"), shape, false)?;
            net.activation(self.activation, y)?
        };
        let y = net.linear(y, &format!("{at}.wo"), [self.hidden, self.inner], false)?;
        net.map("add", &[x, y])
    }

    /// The learned bias of scores, `[1, heads, tokens, tokens]`: near distances have a row each, far ones share rows by their logarithm.
    fn bias(&self, net: &mut Net, side: &str, tokens: &Dim, both: bool) -> One {
        let name = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias");
        net.enter(&name);
        let plane = [tokens.clone(), tokens.clone()];
        let (query, key) = (net.iota(&plane, 0)?, net.iota(&plane, 1)?);
        let distance = net.map("sub", &[key, query])?;
        let buckets = if both { self.buckets / 2 } else { self.buckets };
        let zero = net.splat(DType::I64, &plane, 0.0)?;
        let back = net.map("sub", &[zero, distance])?;
        let away = match both {
            true => net.map("max", &[distance, back])?,
            false => net.map_num("max", back, 0.0)?,
        };
        let exact = buckets / 2;
        let near = net.map_num("sub", away, exact as f64)?;
        let near = net.map("less", &[near, zero])?;
        // What is near is not used here; 1 keeps its logarithm finite.
        let far = net.map_num("max", away, 1.0)?;
        let far = net.cast(far, DType::F32)?;
        let far = net.map_num("div", far, exact as f64)?;
        let far = net.map("log", &[far])?;
        let far = net.map_num("div", far, (self.farthest as f64 / exact as f64).ln())?;
        let far = net.map_num("mul", far, (buckets - exact) as f64)?;
        let far = net.cast(far, DType::I64)?;
        let far = net.map_num("add", far, exact as f64)?;
        let far = net.map_num("min", far, (buckets - 1) as f64)?;
        let mut rows = net.map("where", &[near, away, far])?;
        if both {
            let ahead = net.map("greater", &[distance, zero])?;
            let ahead = net.cast(ahead, DType::I64)?;
            let ahead = net.map_num("mul", ahead, buckets as f64)?;
            rows = net.map("add", &[rows, ahead])?;
        }
        let bias = net.embedding(rows, &name, [self.buckets, self.heads])?;
        let bias = net.call("transpose", &[Attr::axes(&[2, 0, 1])], &[bias])?;
        Ok(net.reshaped(bias, &[Dim::ONE, self.heads.into(), tokens.clone(), tokens.clone()])?)
    }
}
