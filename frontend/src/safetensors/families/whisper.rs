//! Whisper: an encoder of mel spectrograms and a decoder of text. Source: Radford et al., arXiv 2212.04356.

use crate::safetensors::Form;
use crate::safetensors::config::Config;
use crate::safetensors::error::Fail;
use crate::safetensors::layer::Block;
use crate::safetensors::net::{Net, Norm, One, Scores};
use crate::safetensors::steps::{Cache, Source, Steps, attend, attend_shared};
use brolga_ir::{Attr, Build, DType, Dim, Value};

/// Builds the graph: `input_features` `[batch, mels, frames]` and `decoder_input_ids` to `logits`, or either half of it in the forms for
/// generation.
///
/// # Errors
/// When the configuration is wrong or says what is not supported.
pub fn build(config: &Config, net: &mut Net) -> Result<(), Fail> {
    let whisper = Whisper::of(config, net)?;
    let root = whisper.root;
    if whisper.tied {
        net.weights.may_begin_with(&["proj_out."]);
    }
    match net.form {
        Form::Whole => whisper.whole(net),
        Form::Encoder => {
            net.weights.leave(&[&format!("{root}decoder."), "proj_out."], &[]);
            whisper.encoder_alone(net)
        }
        Form::Steps => {
            let cross = [
                "encoder_attn.k_proj.weight",
                "encoder_attn.v_proj.weight",
                "encoder_attn.v_proj.bias",
            ];
            net.weights.leave(&[&format!("{root}encoder.")], &cross);
            whisper.steps(net)
        }
    }
}

/// The products of attention to the encoder's result.
const CROSS: [&str; 4] = [
    "encoder_attn.q_proj",
    "encoder_attn.k_proj",
    "encoder_attn.v_proj",
    "encoder_attn.out_proj",
];

struct Whisper<'a> {
    root: &'static str,
    hidden: usize,
    norm: Norm,
    mels: usize,
    /// Positions of the encoder: every second frame has one.
    frames: usize,
    words: usize,
    /// Positions of the decoder.
    most: usize,
    encoder: Block<'a>,
    encoder_layers: usize,
    decoder: Block<'a>,
    decoder_layers: usize,
    /// Whether the head is the embedding.
    tied: bool,
}

impl<'a> Whisper<'a> {
    fn of(config: &'a Config, net: &Net) -> Result<Whisper<'a>, Fail> {
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
        Ok(Whisper {
            root: net.weights.root("model."),
            hidden,
            norm,
            mels: config.size("num_mel_bins")?,
            frames: config.size("max_source_positions")?,
            words: config.size("vocab_size")?,
            most: config.size("max_target_positions")?,
            encoder: block("encoder_attention_heads", "encoder_ffn_dim")?,
            encoder_layers: config.layers("encoder_layers")?,
            decoder: block("decoder_attention_heads", "decoder_ffn_dim")?,
            decoder_layers: config.layers("decoder_layers")?,
            tied: config.flag("tie_word_embeddings", true)?,
        })
    }

    fn whole(&self, net: &mut Net) -> Result<(), Fail> {
        let batch = Dim::sym("batch");
        let features = self.features(net, batch.clone());
        let target = Dim::sym("decoder_sequence");
        let ids = net.input("decoder_input_ids", DType::I64, &[batch, target.clone()]);
        let memory = self.encode(net, features)?;
        let positions = net.iota(&[Dim::ONE, target], 1)?;
        let causal = Scores {
            causal: Some(Dim::ZERO),
            ..Scores::scaled(self.decoder.scale()?)
        };
        let x = self.decode(net, [ids, positions], &causal, None, &|_| Source::Encoded(memory))?;
        let logits = self.logits(net, x)?;
        net.output("logits", logits);
        Ok(())
    }

    fn encoder_alone(&self, net: &mut Net) -> Result<(), Fail> {
        let features = self.features(net, Dim::ONE);
        let memory = self.encode(net, features)?;
        for i in 0..self.decoder_layers {
            let at = format!("{}decoder.layers.{i}", self.root);
            let sides = [
                self.decoder.heads(net, memory, &at, CROSS, 1)?,
                self.decoder.heads(net, memory, &at, CROSS, 2)?,
            ];
            Source::output(net, sides, i)?;
        }
        Ok(())
    }

    fn steps(&self, net: &mut Net) -> Result<(), Fail> {
        let heads = [self.decoder.heads, self.decoder.head()?];
        let steps = Steps::new(net, &vec![None; self.decoder_layers], heads)?;
        let sources = Source::inputs(net, self.decoder_layers, heads);
        let scores = steps.scores(self.decoder.scale()?);
        let read = [steps.ids, steps.positions];
        let x = self.decode(net, read, &scores, Some(&steps.cache()), &|i| sources[i])?;
        let x = steps.wanted(net, x)?;
        let logits = self.logits(net, x)?;
        net.result("logits", logits);
        Ok(())
    }

    fn features(&self, net: &mut Net, batch: Dim) -> Value {
        let shape = [batch, self.mels.into(), (2 * self.frames).into()];
        net.input("input_features", DType::F32, &shape)
    }

    fn encode(&self, net: &mut Net, features: Value) -> One {
        let (at, hidden) = (format!("{}encoder", self.root), self.hidden);
        let x = convolution(net, features, &format!("{at}.conv1"), [hidden, self.mels], 1)?;
        let x = convolution(net, x, &format!("{at}.conv2"), [hidden, hidden], 2)?;
        let x = net.call("transpose", &[Attr::axes(&[0, 2, 1])], &[x])?;
        let positions = net.vector(&format!("{at}.embed_positions.weight"), &[self.frames, hidden])?;
        let mut x = net.map("add", &[x, positions])?;
        for i in 0..self.encoder_layers {
            x = self
                .encoder
                .layer(net, x, &format!("{at}.layers.{i}"), Scores::scaled(1.0))?;
        }
        net.norm(x, &format!("{at}.layer_norm"), self.norm)
    }

    fn decode(
        &self,
        net: &mut Net,
        [ids, positions]: [Value; 2],
        scores: &Scores,
        cache: Option<&Cache>,
        source: &dyn Fn(usize) -> Source,
    ) -> One {
        let at = format!("{}decoder", self.root);
        let x = net.embedding(ids, &format!("{at}.embed_tokens"), [self.words, self.hidden])?;
        let positions = net.embedding(positions, &format!("{at}.embed_positions"), [self.most, self.hidden])?;
        let mut x = net.map("add", &[x, positions])?;
        for i in 0..self.decoder_layers {
            let at = format!("{at}.layers.{i}");
            x = self.attend(net, x, &at, scores, cache.map(|c| (c, i)))?;
            x = self.attend_source(net, x, source(i), &at)?;
            let y = net.norm(x, &format!("{at}.final_layer_norm"), self.norm)?;
            let y = self.decoder.mlp(net, y, &at)?;
            x = net.map("add", &[x, y])?;
        }
        net.norm(x, &format!("{at}.layer_norm"), self.norm)
    }

    /// `x` plus attention of its norm to itself, and to what layer `cache.1` of a cache has.
    fn attend(&self, net: &mut Net, x: Value, at: &str, scores: &Scores, cache: Option<(&Cache, usize)>) -> One {
        let block = &self.decoder;
        let y = net.norm(x, &format!("{at}.self_attn_layer_norm"), self.norm)?;
        let q = block.heads(net, y, at, block.attention, 0)?;
        let k = block.heads(net, y, at, block.attention, 1)?;
        let v = block.heads(net, y, at, block.attention, 2)?;
        let y = attend(net, [q, k, v], scores, cache)?;
        let y = block.out(net, y, at, block.attention)?;
        net.map("add", &[x, y])
    }

    /// `x` plus attention of its norm to what the encoder says.
    fn attend_source(&self, net: &mut Net, x: Value, source: Source, at: &str) -> One {
        let block = &self.decoder;
        let y = net.norm(x, &format!("{at}.encoder_attn_layer_norm"), self.norm)?;
        let y = match source {
            Source::Encoded(memory) => block.attend(net, y, memory, at, CROSS, Scores::scaled(1.0))?,
            Source::Kept(kept) => {
                let q = block.heads(net, y, at, CROSS, 0)?;
                let y = attend_shared(net, q, kept, block.scale()?)?;
                block.out(net, y, at, CROSS)?
            }
        };
        net.map("add", &[x, y])
    }

    fn logits(&self, net: &mut Net, x: Value) -> One {
        let name = match self.tied {
            true => format!("{}decoder.embed_tokens", self.root),
            false => "proj_out".to_owned(),
        };
        net.linear(x, &name, [self.words, self.hidden], false)
    }
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
