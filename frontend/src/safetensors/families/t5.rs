//! T5: an encoder and a decoder whose scores have a learned bias by the distance of keys, and products that are not scaled. Source: Raffel et
//! al., arXiv 1910.10683.

use crate::safetensors::Form;
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::net::{Net, Norm, One, Scores};
use crate::safetensors::steps::{Cache, Source, Steps, attend, attend_shared};
use brolga_ir::{Attr, Build, DType, Dim, Value};

struct T5<'a> {
    words: usize,
    hidden: usize,
    heads: usize,
    head: usize,
    inner: usize,
    activation: &'a str,
    gated: bool,
    norm: Norm,
    buckets: usize,
    farthest: usize,
    layers: usize,
    decoder_layers: usize,
    /// Whether the head is the embedding.
    tied: bool,
    /// Whether what the head takes is divided by the root of its size.
    scaled: bool,
}

/// Builds the graph: `input_ids` and `decoder_input_ids` to `logits`, or either half of it in the forms for generation.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let t5 = T5::of(config)?;
    net.weights
        .may_begin_with(&["encoder.embed_tokens.", "decoder.embed_tokens."]);
    if t5.tied {
        net.weights.may_begin_with(&["lm_head."]);
    }
    match net.form {
        Form::Whole => t5.whole(net),
        Form::Encoder => {
            net.weights.leave(&["decoder.", "lm_head."], &[]);
            t5.encoder_alone(net)
        }
        Form::Steps => {
            let cross = ["EncDecAttention.k.weight", "EncDecAttention.v.weight"];
            net.weights.leave(&["encoder."], &cross);
            t5.steps(net)
        }
    }
}

impl<'a> T5<'a> {
    fn of(config: &'a Config) -> Result<T5<'a>, Fail> {
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
        let layers = config.layers("num_layers")?;
        let tied = config.flag("tie_word_embeddings", true)?;
        let t5 = T5 {
            words: config.size("vocab_size")?,
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
            layers,
            decoder_layers: match config.has("num_decoder_layers") {
                true => config.layers("num_decoder_layers")?,
                false => layers,
            },
            tied,
            // Before it had a field of its own, whether the head was tied told it.
            scaled: config.flag("scale_decoder_outputs", tied)?,
        };
        if t5.buckets < 4 || t5.farthest <= t5.buckets / 2 {
            let message = format!("{} for a distance of {}", t5.buckets, t5.farthest);
            return Err(config.wrong("relative_attention_num_buckets", message));
        }
        Ok(t5)
    }

    fn whole(&self, net: &mut Net) -> Result<(), Fail> {
        let batch = Dim::sym("batch");
        let (seq, target) = (Dim::sym("sequence"), Dim::sym("decoder_sequence"));
        let ids = net.input("input_ids", DType::I64, &[batch.clone(), seq.clone()]);
        let mask = net.optional_input("attention_mask", DType::I64, &[batch.clone(), seq]);
        let decoder_ids = net.input("decoder_input_ids", DType::I64, &[batch, target.clone()]);
        let seen = match mask {
            Some(m) => Some(net.padding(m)?),
            None => None,
        };
        let memory = self.encoder(net, ids, seen)?;
        let positions = net.iota(&[Dim::ONE, target.clone()], 1)?;
        let bias = self.bias(net, "decoder", positions, &target, false)?;
        let scores = Scores {
            bias: Some(bias),
            causal: Some(Dim::ZERO),
            ..Scores::scaled(1.0)
        };
        let x = self.decoder(net, decoder_ids, &scores, None, &|_| Source::Encoded(memory), seen)?;
        let logits = self.logits(net, x)?;
        net.output("logits", logits);
        Ok(())
    }

    fn encoder_alone(&self, net: &mut Net) -> Result<(), Fail> {
        let ids = net.input("input_ids", DType::I64, &[Dim::ONE, Dim::sym("source")]);
        let memory = self.encoder(net, ids, None)?;
        for i in 0..self.decoder_layers {
            let at = format!("decoder.block.{i}.layer.1.EncDecAttention");
            let sides = [self.heads(net, memory, &at, "k")?, self.heads(net, memory, &at, "v")?];
            Source::output(net, sides, i)?;
        }
        Ok(())
    }

    fn steps(&self, net: &mut Net) -> Result<(), Fail> {
        let steps = Steps::new(net, &vec![None; self.decoder_layers], [self.heads, self.head])?;
        let sources = Source::inputs(net, self.decoder_layers, [self.heads, self.head]);
        let cache = steps.cache();
        let bias = self.bias(net, "decoder", steps.positions, &cache.keys(), false)?;
        let scores = Scores {
            bias: Some(bias),
            ..steps.scores(1.0)
        };
        let x = self.decoder(net, steps.ids, &scores, Some(&cache), &|i| sources[i], None)?;
        let x = steps.wanted(net, x)?;
        let logits = self.logits(net, x)?;
        net.result("logits", logits);
        Ok(())
    }

    fn encoder(&self, net: &mut Net, ids: Value, seen: Option<Value>) -> One {
        let tokens = net.shape(ids)[1].clone();
        let mut x = net.embedding(ids, "shared", [self.words, self.hidden])?;
        let positions = net.iota(&[Dim::ONE, tokens.clone()], 1)?;
        let bias = self.bias(net, "encoder", positions, &tokens, true)?;
        let scores = Scores {
            bias: Some(bias),
            mask: seen,
            ..Scores::scaled(1.0)
        };
        for i in 0..self.layers {
            let at = format!("encoder.block.{i}.layer");
            x = self.attend(net, x, &format!("{at}.0"), &scores, None)?;
            x = self.mlp(net, x, &format!("{at}.1"))?;
        }
        net.norm(x, "encoder.final_layer_norm", self.norm)
    }

    /// Layers of the decoder; `seen` are tokens of the source that are no padding.
    fn decoder(
        &self,
        net: &mut Net,
        ids: Value,
        scores: &Scores,
        cache: Option<&Cache>,
        source: &dyn Fn(usize) -> Source,
        seen: Option<Value>,
    ) -> One {
        let mut x = net.embedding(ids, "shared", [self.words, self.hidden])?;
        for i in 0..self.decoder_layers {
            let at = format!("decoder.block.{i}.layer");
            x = self.attend(net, x, &format!("{at}.0"), scores, cache.map(|c| (c, i)))?;
            x = self.attend_source(net, x, source(i), &format!("{at}.1"), seen)?;
            x = self.mlp(net, x, &format!("{at}.2"))?;
        }
        net.norm(x, "decoder.final_layer_norm", self.norm)
    }

    fn logits(&self, net: &mut Net, mut x: Value) -> One {
        if self.scaled {
            x = net.map_num("mul", x, 1.0 / (self.hidden as f64).sqrt())?;
        }
        let name = if self.tied { "shared" } else { "lm_head" };
        net.linear(x, name, [self.words, self.hidden], false)
    }

    /// A product of the module `at`, as heads.
    fn heads(&self, net: &mut Net, x: Value, at: &str, which: &str) -> One {
        let v = net.linear(
            x,
            &format!("{at}.{which}"),
            [self.heads * self.head, self.hidden],
            false,
        )?;
        net.heads(v, self.heads, self.head)
    }

    /// `x` plus attention of its norm to itself, and to what layer `cache.1` of a cache has.
    fn attend(&self, net: &mut Net, x: Value, at: &str, scores: &Scores, cache: Option<(&Cache, usize)>) -> One {
        let y = net.norm(x, &format!("{at}.layer_norm"), self.norm)?;
        let at = format!("{at}.SelfAttention");
        let q = self.heads(net, y, &at, "q")?;
        let [k, v] = [self.heads(net, y, &at, "k")?, self.heads(net, y, &at, "v")?];
        let y = attend(net, [q, k, v], scores, cache)?;
        let y = net.linear(y, &format!("{at}.o"), [self.hidden, self.heads * self.head], false)?;
        net.map("add", &[x, y])
    }

    /// `x` plus attention of its norm to what the encoder says.
    fn attend_source(&self, net: &mut Net, x: Value, source: Source, at: &str, seen: Option<Value>) -> One {
        let y = net.norm(x, &format!("{at}.layer_norm"), self.norm)?;
        let at = format!("{at}.EncDecAttention");
        let q = self.heads(net, y, &at, "q")?;
        let y = match source {
            Source::Encoded(memory) => {
                let [k, v] = [self.heads(net, memory, &at, "k")?, self.heads(net, memory, &at, "v")?];
                let scores = Scores {
                    mask: seen,
                    ..Scores::scaled(1.0)
                };
                net.attention(q, k, v, &scores)?
            }
            Source::Kept(kept) => attend_shared(net, q, kept, 1.0)?,
        };
        let y = net.linear(y, &format!("{at}.o"), [self.hidden, self.heads * self.head], false)?;
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

    /// The learned bias of scores of queries at `positions` `[batch, queries]`, `[batch, heads, queries, keys]`: near distances have a row each,
    /// far ones share rows by their logarithm.
    fn bias(&self, net: &mut Net, side: &str, positions: Value, keys: &Dim, both: bool) -> One {
        let name = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias");
        net.enter(&name);
        let mut plane = net.shape(positions);
        plane.push(Dim::ONE);
        let query = net.reshaped(positions, &plane)?;
        plane[2] = keys.clone();
        let (query, key) = (net.spread(query, &plane)?, net.iota(&plane, 2)?);
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
        Ok(net.call("transpose", &[Attr::axes(&[0, 3, 1, 2])], &[bias])?)
    }
}
