//! Decoder-only language models: what their families have in common, as one graph of a description.
//!
//! ```text
//! x = embed(input_ids)
//! each layer:  x += attention(norm(x)),  x += mlp(norm(x))        some with norms behind both as well
//! logits = head(norm(x))
//! ```
//!
//! A family is a [`Decoder`] that is filled from its `config.json`; what differs between families is a field here.

use super::Form;
use super::config::Config;
use super::error::Fail;
use super::net::{Net, Norm, One, Scores};
use super::rope::Rope;
use super::steps::{Cache, Steps, attend};
use brolga_ir::{Attr, Build, DType, Dim, Tensor, Value};

/// A model's description.
pub struct Decoder {
    /// The size of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Names of tensors.
    pub names: Names,
    /// A factor of the embedding.
    pub embedding_scale: f64,
    /// Learned positions: how many.
    pub positions: Option<usize>,
    /// All norms.
    pub norm: Norm,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, which several of queries share.
    pub kv_heads: usize,
    /// The size of a head.
    pub head: usize,
    /// What scores are capped at; 0 for nothing.
    pub softcap: f64,
    /// Whether queries and keys of each head have a norm.
    pub head_norms: bool,
    /// Whether keys count less the farther they are, by a slope for each head: ALiBi, in place of rotary embeddings.
    pub alibi: bool,
    /// Kinds of rotary embeddings, which layers name.
    pub ropes: Vec<Rope>,
    /// Each layer's own.
    pub layers: Vec<Layer>,
    /// Biases of the products for queries, keys and values.
    pub qkv_bias: bool,
    /// The bias of the product behind attention.
    pub out_bias: bool,
    /// The size of the inner layer.
    pub inner: usize,
    /// The inner layer's activation.
    pub activation: String,
    /// Biases of the inner layers.
    pub mlp_bias: bool,
    /// Whether matrices are stored as `[in, out]`.
    pub transposed: bool,
    /// What becomes logits of the last layer.
    pub head_kind: Head,
    /// Whether rows of the head are divided by their lengths.
    pub normalised_head: bool,
    /// What logits are capped at; 0 for nothing.
    pub logits_softcap: f64,
}

/// One layer's own.
#[derive(Clone)]
pub struct Layer {
    /// Rotary embeddings, by their place in [`Decoder::ropes`].
    pub rope: Option<usize>,
    /// Keys that a query sees, its own position included.
    pub window: Option<usize>,
    /// A factor of the scores.
    pub scale: f64,
}

/// Names of modules; those of a layer stand behind its own.
pub struct Names {
    /// Token embedding.
    pub embedding: String,
    /// Learned positions.
    pub positions: &'static str,
    /// What layers are numbered behind.
    pub layers: String,
    /// The products before attention.
    pub projections: Projections,
    /// The product behind attention.
    pub out: &'static str,
    /// Norms of heads of queries and keys.
    pub head_norms: [&'static str; 2],
    /// The norm before attention.
    pub before_attention: &'static str,
    /// The norm behind attention.
    pub after_attention: Option<&'static str>,
    /// The norm before the inner layer.
    pub before_mlp: &'static str,
    /// The norm behind the inner layer.
    pub after_mlp: Option<&'static str>,
    /// The inner layer.
    pub mlp: Mlp,
    /// The last norm.
    pub norm: String,
    /// The head.
    pub head: &'static str,
}

/// The products before attention.
pub enum Projections {
    /// Queries, keys, values.
    Apart([&'static str; 3]),
    /// One product, with queries, keys and values behind each other.
    Fused(&'static str),
}

/// The inner layer.
pub enum Mlp {
    /// `down(activation(up(x)))`.
    Plain([&'static str; 2]),
    /// `down(activation(gate(x)) · up(x))`.
    Gated([&'static str; 3]),
    /// The same, with `gate` and `up` behind each other in one product.
    Fused([&'static str; 2]),
}

/// What becomes of the last layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Nothing: the hidden state is the result.
    None,
    /// A product with the embedding.
    Tied,
    /// A product with a matrix of its own.
    Own,
}

impl Head {
    /// The head that `architectures` tells, of a family whose models with one end in one of `with`, and without one in `Model`.
    ///
    /// # Errors
    /// When the architecture is another one.
    pub fn of(config: &Config, with: &[&str], tied: bool) -> Result<Head, Fail> {
        let architectures = config.words("architectures")?.unwrap_or_default();
        let own = if config.flag("tie_word_embeddings", tied)? {
            Head::Tied
        } else {
            Head::Own
        };
        match architectures[..] {
            [] => Ok(own),
            [a] if with.iter().any(|w| a.ends_with(w)) => Ok(own),
            [a] if a.ends_with("Model") => Ok(Head::None),
            _ => {
                let message = format!(
                    "{architectures:?}, expected one that ends in {} or Model",
                    with.join(", ")
                );
                Err(config.wrong("architectures", message))
            }
        }
    }
}

/// What layers share in a run.
struct Run {
    queries: Dim,
    /// Keys that attention reads, of layers that keep all of them.
    keys: Dim,
    /// Hides keys behind the query by their order; where keys are kept, a mask does.
    causal: Option<Dim>,
    /// Positions of the tokens, `[batch, queries]`, the batch perhaps 1.
    positions: Value,
    /// Keys that are no padding.
    seen: Option<Value>,
    /// Cosines and sines of each kind.
    angles: Vec<[Value; 2]>,
    alibi: Option<Value>,
    /// What queries see in windows that layers have.
    windows: Vec<(usize, Value)>,
    /// Where keys and values are kept between runs.
    cache: Option<Cache>,
}

impl Decoder {
    /// Builds the graph, in the form that is asked for.
    ///
    /// # Errors
    /// When heads do not fit, or an activation is not known.
    pub fn build(&self, net: &mut Net) -> Result<(), Fail> {
        match net.form {
            Form::Whole | Form::Encoder => self.whole(net),
            Form::Steps => self.steps(net),
        }
    }

    /// `input_ids` to `logits`, or `last_hidden_state` without a head. Who wants to may give `attention_mask` and `position_ids`, all
    /// `[batch, sequence]`.
    fn whole(&self, net: &mut Net) -> Result<(), Fail> {
        let (batch, seq) = (Dim::sym("batch"), Dim::sym("sequence"));
        let ids = net.input("input_ids", DType::I64, &[batch.clone(), seq.clone()]);
        let mask = net.optional_input("attention_mask", DType::I64, &[batch.clone(), seq.clone()]);
        let positions = net.optional_input("position_ids", DType::I64, &[batch.clone(), seq.clone()]);
        let seen = match mask {
            Some(m) => Some(net.padding(m)?),
            None => None,
        };
        let positions = match positions {
            Some(p) => p,
            None => net.iota(&[Dim::ONE, seq.clone()], 1)?,
        };
        let run = Run {
            keys: seq.clone(),
            queries: seq,
            causal: Some(Dim::ZERO),
            positions,
            seen,
            angles: vec![],
            alibi: None,
            windows: vec![],
            cache: None,
        };
        let x = self.body(net, ids, run)?;
        match self.logits(net, x)? {
            Some(logits) => net.output("logits", logits),
            None => net.output("last_hidden_state", x),
        }
        Ok(())
    }

    /// Some tokens behind those whose keys and values are kept ([`Steps`]), to `logits` `[batch, wanted, vocabulary]`.
    fn steps(&self, net: &mut Net) -> Result<(), Fail> {
        let windows: Vec<Option<usize>> = self.layers.iter().map(|l| l.window.filter(|_| !self.alibi)).collect();
        let steps = Steps::new(net, &windows, [self.kv_heads, self.head])?;
        let cache = steps.cache();
        let run = Run {
            queries: steps.queries.clone(),
            keys: cache.keys(),
            causal: None,
            positions: steps.positions,
            seen: cache.seen(),
            angles: vec![],
            alibi: None,
            windows: vec![],
            cache: Some(cache),
        };
        let x = self.body(net, steps.ids, run)?;
        let x = steps.wanted(net, x)?;
        match self.logits(net, x)? {
            Some(logits) => net.result("logits", logits),
            None => net.result("last_hidden_state", x),
        }
        Ok(())
    }

    /// The layers and the last norm.
    fn body(&self, net: &mut Net, ids: Value, mut run: Run) -> One {
        self.prepare(net, &mut run)?;
        let mut x = self.embed(net, ids, &run)?;
        for i in 0..self.layers.len() {
            x = self.layer(net, x, i, &run)?;
        }
        net.norm(x, &self.names.norm, self.norm)
    }

    /// What layers share: angles, slopes, masks of windows.
    fn prepare(&self, net: &mut Net, run: &mut Run) -> Result<(), Fail> {
        net.enter("positions");
        let keys = run.keys.clone();
        let (positions, given) = (run.positions, !net.shape(run.positions)[0].is(1));
        // In steps each sequence has a length of its own; otherwise the largest position of all counts, as in modelling code.
        let axes: &[usize] = if run.cache.is_some() { &[1] } else { &[0, 1] };
        let length = |net: &mut Net| -> One {
            let n = match given {
                true => {
                    let most = net.call("reduce", &[Attr::word("max"), Attr::axes(axes)], &[positions])?;
                    net.map_num("add", most, 1.0)?
                }
                false => net.size(&keys)?,
            };
            let n = net.cast(n, DType::F32)?;
            let batch = net.shape(n).first().cloned().unwrap_or(Dim::ONE);
            Ok(net.reshaped(n, &[batch, Dim::ONE, Dim::ONE, Dim::ONE])?)
        };
        for rope in &self.ropes {
            run.angles.push(rope.angles(net, positions, &length)?);
        }
        if self.alibi {
            run.alibi = Some(self.slopes(net, &keys)?);
        }
        for window in self.layers.iter().filter_map(|l| l.window) {
            if run.windows.iter().all(|(w, _)| *w != window) {
                let mask = self.window(net, run, window)?;
                run.windows.push((window, mask));
            }
        }
        Ok(())
    }

    /// Keys that each query sees in a window, `[batch or 1, 1, queries, keys]`.
    fn window(&self, net: &mut Net, run: &Run, window: usize) -> One {
        if let Some(cache) = &run.cache {
            return cache.within(net, run.positions, window);
        }
        let row = net.iota(&[Dim::ONE, Dim::ONE, run.queries.clone(), Dim::ONE], 2)?;
        let column = net.iota(&[Dim::ONE, Dim::ONE, run.queries.clone(), run.keys.clone()], 3)?;
        let first = net.map_num("sub", row, window as f64)?;
        let near = net.map("greater", &[column, first])?;
        Ok(net.both(run.seen, Some(near))?.unwrap_or(near))
    }

    /// What ALiBi adds to scores, `[1, heads, 1, keys]`: a softmax does not see what it adds to all keys of a query, so that it is
    /// counted from the first one. Source: Press, Smith and Lewis, arXiv 2108.12409.
    fn slopes(&self, net: &mut Net, keys: &Dim) -> One {
        let powers = |n: usize| (1..=n).map(move |i| 2f64.powf(-8.0 * i as f64 / n as f64));
        let whole = 1 << self.heads.ilog2();
        let rest = powers(2 * whole).step_by(2).take(self.heads - whole);
        let slopes: Vec<f32> = powers(whole).chain(rest).map(|x| x as f32).collect();
        let slopes = net.graph.dense(Tensor::from_f32(&[1, self.heads, 1, 1], &slopes));
        let shape = [Dim::ONE, Dim::from(self.heads), Dim::ONE, keys.clone()];
        let places = net.iota(&shape, 3)?;
        let places = net.cast(places, DType::F32)?;
        net.map("mul", &[places, slopes])
    }

    fn embed(&self, net: &mut Net, ids: Value, run: &Run) -> One {
        let mut x = net.embedding(ids, &self.names.embedding, [self.vocabulary, self.hidden])?;
        if self.embedding_scale != 1.0 {
            x = net.map_num("mul", x, self.embedding_scale)?;
        }
        if let Some(n) = self.positions {
            let p = net.embedding(run.positions, self.names.positions, [n, self.hidden])?;
            x = net.map("add", &[x, p])?;
        }
        Ok(x)
    }

    /// A linear layer, of matrices as they are stored.
    fn linear(&self, net: &mut Net, x: Value, name: &str, [out, inner]: [usize; 2], bias: bool) -> One {
        if !self.transposed {
            return net.linear(x, name, [out, inner], bias);
        }
        net.enter(name);
        let w = net.weight(&format!("{name}.weight"), &[inner, out]);
        let y = net.product(x, w, 0)?;
        match bias {
            true => net.add_vector(y, &format!("{name}.bias"), out),
            false => Ok(y),
        }
    }

    fn layer(&self, net: &mut Net, x: Value, i: usize, run: &Run) -> One {
        let at = |name: &str| format!("{}.{i}.{name}", self.names.layers);
        let y = net.norm(x, &at(self.names.before_attention), self.norm)?;
        let mut y = self.attention(net, y, &at, i, run)?;
        if let Some(name) = self.names.after_attention {
            y = net.norm(y, &at(name), self.norm)?;
        }
        let x = net.map("add", &[x, y])?;
        let y = net.norm(x, &at(self.names.before_mlp), self.norm)?;
        let mut y = self.mlp(net, y, &at)?;
        if let Some(name) = self.names.after_mlp {
            y = net.norm(y, &at(name), self.norm)?;
        }
        net.map("add", &[x, y])
    }

    fn attention(&self, net: &mut Net, x: Value, at: &dyn Fn(&str) -> String, i: usize, run: &Run) -> One {
        let layer = &self.layers[i];
        let (wide, narrow) = (self.heads * self.head, self.kv_heads * self.head);
        let [q, k, v] = match &self.names.projections {
            Projections::Apart(names) => {
                let mut parts = [x; 3];
                for ((part, name), out) in parts.iter_mut().zip(names).zip([wide, narrow, narrow]) {
                    *part = self.linear(net, x, &at(name), [out, self.hidden], self.qkv_bias)?;
                }
                parts
            }
            Projections::Fused(name) => {
                let all = self.linear(net, x, &at(name), [wide + 2 * narrow, self.hidden], self.qkv_bias)?;
                net.split(all, [wide, narrow, narrow])?
            }
        };
        let v = net.heads(v, self.kv_heads, self.head)?;
        let mut sides = [
            net.heads(q, self.heads, self.head)?,
            net.heads(k, self.kv_heads, self.head)?,
        ];
        for (side, norm) in sides.iter_mut().zip(self.names.head_norms) {
            if self.head_norms {
                *side = net.norm(*side, &at(norm), self.norm)?;
            }
            if let Some(rope) = layer.rope {
                *side = rotate(net, *side, run.angles[rope], self.ropes[rope].interleaved)?;
            }
        }
        let window = layer
            .window
            .and_then(|w| run.windows.iter().find(|(n, _)| *n == w))
            .map(|(_, m)| *m);
        let scores = Scores {
            scale: layer.scale,
            softcap: self.softcap,
            causal: run.causal.clone(),
            bias: run.alibi,
            mask: window.or(run.seen),
        };
        let [q, k] = sides;
        let y = attend(net, [q, k, v], &scores, run.cache.as_ref().map(|c| (c, i)))?;
        self.linear(net, y, &at(self.names.out), [self.hidden, wide], self.out_bias)
    }

    fn mlp(&self, net: &mut Net, x: Value, at: &dyn Fn(&str) -> String) -> One {
        let (inner, bias) = (self.inner, self.mlp_bias);
        let (y, down) = match &self.names.mlp {
            Mlp::Plain([up, down]) => {
                let y = self.linear(net, x, &at(up), [inner, self.hidden], bias)?;
                (net.activation(&self.activation, y)?, down)
            }
            Mlp::Gated([gate, up, down]) => {
                let gate = self.linear(net, x, &at(gate), [inner, self.hidden], bias)?;
                let gate = net.activation(&self.activation, gate)?;
                let up = self.linear(net, x, &at(up), [inner, self.hidden], bias)?;
                (net.map("mul", &[gate, up])?, down)
            }
            Mlp::Fused([both, down]) => {
                let both = self.linear(net, x, &at(both), [2 * inner, self.hidden], bias)?;
                let [gate, up] = net.split(both, [inner, inner])?;
                let gate = net.activation(&self.activation, gate)?;
                (net.map("mul", &[gate, up])?, down)
            }
        };
        self.linear(net, y, &at(down), [self.hidden, inner], bias)
    }

    /// Logits of hidden states; `None` without a head.
    fn logits(&self, net: &mut Net, x: Value) -> Result<Option<Value>, Fail> {
        let name = match self.head_kind {
            Head::None => return Ok(None),
            Head::Tied => self.names.embedding.as_str(),
            Head::Own => self.names.head,
        };
        net.enter(name);
        let mut w = net.weight(&format!("{name}.weight"), &[self.vocabulary, self.hidden]);
        if self.normalised_head {
            w = unit_rows(net, w)?;
        }
        let mut y = net.product(x, w, 1)?;
        if self.logits_softcap > 0.0 {
            y = net.map_num("div", y, self.logits_softcap)?;
            y = net.map("tanh", &[y])?;
            y = net.map_num("mul", y, self.logits_softcap)?;
        }
        Ok(Some(y))
    }
}

/// Turns heads `[batch, sequence, heads, size]` by angles.
fn rotate(net: &mut Net, x: Value, [cos, sin]: [Value; 2], interleaved: bool) -> One {
    Ok(net.call("rotary", &[Attr::Bool(interleaved)], &[x, cos, sin])?)
}

/// Rows divided by their lengths, which are at least 1e-12.
fn unit_rows(net: &mut Net, w: Value) -> One {
    let dtype = net.type_of(w).dtype;
    let wide = net.cast(w, DType::F32)?;
    let squares = net.map("mul", &[wide, wide])?;
    let sums = net.call("reduce", &[Attr::word("sum"), Attr::axes(&[1])], &[squares])?;
    let lengths = net.map("sqrt", &[sums])?;
    let lengths = net.map_num("max", lengths, 1e-12)?;
    let rows = net.map("div", &[wide, lengths])?;
    net.cast(rows, dtype)
}
