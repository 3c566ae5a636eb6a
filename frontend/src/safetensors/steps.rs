//! What graphs of [`Form::Steps`](super::Form) share: some tokens of several sequences, each behind others, whose keys and values lie in memory
//! that the caller gives and the graph updates; and, of models with an encoder, the keys and values of what it says of a source.
//!
//! ```text
//! input_ids [batch, sequence]     stand behind lengths [batch] others
//! keys.i, values.i                [batch, heads, capacity, size], of the same memory as the outputs next_keys.i and next_values.i
//! cross_keys.i, cross_values.i    [1, heads, source, size], which graphs of Form::Encoder give and those of Form::Steps only read
//! wanted [batch, wanted]          tokens of this run that results are asked for
//! ```
//!
//! Invariant: a run is of one source, which all of its sequences share. Attention to it takes them as queries of one batch: what an encoder says
//! is kept once, and read once for all of them.

use super::error::Fail;
use super::net::{Net, One, Scores};
use brolga_ir::{Attr, Build, DType, Dim, Value};

/// Keys that attention reads in steps are a multiple of it: the widest vectors of any CPU, in f32.
const ATTENDED: f64 = 16.0;

/// A run of some tokens.
pub struct Steps {
    /// The tokens, `[batch, queries]`.
    pub ids: Value,
    /// How many of each sequence there are.
    pub queries: Dim,
    /// Tokens before those of this run, in the longest sequence.
    pub past: Dim,
    /// Positions of the tokens, `[batch, queries]`.
    pub positions: Value,
    /// Keys that a query may see, `[batch, 1, queries, keys]`: a shorter sequence does not see what stands in its cache beyond it.
    pub seen: Value,
    cache: Cache,
    /// Tokens that results are asked for.
    wanted: Value,
}

/// Where keys and values are kept between runs.
#[derive(Clone)]
pub struct Cache {
    /// The rows of a layer's cache that are written, `[batch, heads, queries, size]`.
    rows: Value,
    /// Keys of the longest sequence, those of this run included.
    keys: Dim,
    /// The caches of each layer before the run.
    past: Vec<[Value; 2]>,
}

impl Steps {
    /// Adds the inputs of a decoder of so many layers, heads of keys, and elements of a head.
    ///
    /// # Errors
    /// Never.
    pub fn new(net: &mut Net, layers: usize, [heads, size]: [usize; 2]) -> Result<Steps, Fail> {
        net.enter("cache");
        let [batch, seq, capacity, wanted] = ["batch", "sequence", "capacity", "wanted"].map(Dim::sym);
        let ids = net.input("input_ids", DType::I64, &[batch.clone(), seq.clone()]);
        let lengths = net.input("lengths", DType::I64, std::slice::from_ref(&batch));
        let wanted = net.input("wanted", DType::I64, &[batch.clone(), wanted]);
        let kept = [batch.clone(), heads.into(), capacity.clone(), size.into()];
        let past: Vec<[Value; 2]> = (0..layers)
            .map(|i| ["keys", "values"].map(|side| net.input(&format!("{side}.{i}"), DType::F32, &kept)))
            .collect();
        let longest = net.call("reduce", &[Attr::word("max"), Attr::axes(&[0])], &[lengths])?;
        let before = tokens_before(net, longest, &seq, &capacity)?;
        let first = net.reshaped(lengths, &[batch.clone(), Dim::ONE])?;
        let places = net.iota(&[batch.clone(), seq.clone()], 1)?;
        let positions = net.map("add", &[places, first])?;
        let own = net.reshaped(positions, &[batch.clone(), Dim::ONE, seq.clone(), Dim::ONE])?;
        let rows = net.spread(own, &[batch.clone(), heads.into(), seq.clone(), size.into()])?;
        let keys = &before + &seq;
        let all = net.iota(&[batch, Dim::ONE, seq.clone(), keys.clone()], 3)?;
        let seen = net.map("less_or_equal", &[all, own])?;
        Ok(Steps {
            ids,
            queries: seq,
            past: before,
            positions,
            seen,
            cache: Cache { rows, keys, past },
            wanted,
        })
    }

    /// Where keys and values are kept.
    pub fn cache(&self) -> Cache {
        self.cache.clone()
    }

    /// Scores of attention of the tokens to those before them and themselves.
    pub fn scores(&self, scale: f64) -> Scores {
        Scores {
            causal: Some(self.past.clone()),
            mask: Some(self.seen),
            ..Scores::scaled(scale)
        }
    }

    /// Rows of `x` `[batch, queries, hidden]` that results are asked for.
    ///
    /// # Errors
    /// When `x` is none of this run's.
    pub fn wanted(&self, net: &mut Net, x: Value) -> One {
        net.enter("wanted");
        let mut shape = net.shape(self.wanted);
        let hidden = net.shape(x)[2].clone();
        let rows = net.reshaped(self.wanted, &[shape[0].clone(), shape[1].clone(), Dim::ONE])?;
        shape.push(hidden);
        let rows = net.spread(rows, &shape)?;
        Ok(net.call("gather_elements", &[Attr::Int(1)], &[x, rows])?)
    }
}

/// Tokens before those of a run, of so many in the longest sequence, and as many more as make the keys that attention reads whole
/// [`ATTENDED`]: so each key has its place in the sums, however long the other sequences are, and a sequence has the same logits alone
/// and beside others.
fn tokens_before(net: &mut Net, longest: Value, seq: &Dim, capacity: &Dim) -> Result<Dim, Fail> {
    let longest = net.reshaped(longest, &[])?;
    let (new, most) = (net.size(seq)?, net.size(&(capacity - seq))?);
    let all = net.map("add", &[longest, new])?;
    let all = net.map_num("add", all, ATTENDED - 1.0)?;
    let all = net.map_num("div", all, ATTENDED)?;
    let all = net.map_num("mul", all, ATTENDED)?;
    let past = net.map("sub", &[all, new])?;
    let past = net.map("min", &[past, most])?;
    net.read("past", past, capacity - seq)
}

impl Cache {
    /// Keys of the longest sequence, those of this run included.
    pub fn keys(&self) -> Dim {
        self.keys.clone()
    }

    /// Writes keys and values `[batch, queries, heads, size]` to layer `i`; all that it has then, `[batch, heads, keys, size]`.
    fn keep(&self, net: &mut Net, new: [Value; 2], i: usize) -> Result<[Value; 2], Fail> {
        let mut all = new;
        for ((side, past), name) in all.iter_mut().zip(self.past[i]).zip(["next_keys", "next_values"]) {
            let rows = net.call("transpose", &[Attr::axes(&[0, 2, 1, 3])], &[*side])?;
            let attrs = [Attr::Int(2), Attr::word("none")];
            let next = net.call("scatter_elements", &attrs, &[past, self.rows, rows])?;
            net.output(&format!("{name}.{i}"), next);
            *side = net.slice(next, 2, Dim::ZERO, self.keys())?;
        }
        Ok(all)
    }
}

/// What a layer of a decoder attends to beside its own tokens.
#[derive(Clone, Copy)]
pub enum Source {
    /// An encoder's result, `[batch, source, hidden]`.
    Encoded(Value),
    /// Keys and values of it, `[1, heads, source, size]`.
    Kept([Value; 2]),
}

impl Source {
    /// The inputs that a decoder of so many layers reads.
    pub fn inputs(net: &mut Net, layers: usize, [heads, size]: [usize; 2]) -> Vec<Source> {
        let shape = [Dim::ONE, heads.into(), Dim::sym("source"), size.into()];
        let one = |net: &mut Net, i| {
            ["cross_keys", "cross_values"].map(|s| net.input(&format!("{s}.{i}"), DType::F32, &shape))
        };
        (0..layers).map(|i| Source::Kept(one(net, i))).collect()
    }

    /// Keys and values `[1, source, heads, size]` of layer `i` as outputs.
    ///
    /// # Errors
    /// Never.
    pub fn output(net: &mut Net, sides: [Value; 2], i: usize) -> Result<(), Fail> {
        for (side, name) in sides.into_iter().zip(["cross_keys", "cross_values"]) {
            let rows = net.call("transpose", &[Attr::axes(&[0, 2, 1, 3])], &[side])?;
            net.output(&format!("{name}.{i}"), rows);
        }
        Ok(())
    }
}

/// Attention of queries to keys and values, all `[batch, tokens, heads, size]`, and to what a cache has of the same layer before them; as
/// `[batch, queries, heads · size]`.
///
/// # Errors
/// When extents do not fit.
pub fn attend(net: &mut Net, [q, k, v]: [Value; 3], scores: &Scores, cache: Option<(&Cache, usize)>) -> One {
    match cache {
        Some((cache, i)) => {
            let kept = cache.keep(net, [k, v], i)?;
            net.attention_in(q, kept, [0, 1, 2, 3], scores)
        }
        None => net.attention(q, k, v, scores),
    }
}

/// Attention of queries `[batch, queries, heads, size]` to keys and values that all sequences share, as `[batch, queries, heads · size]`.
///
/// # Errors
/// When extents do not fit.
pub fn attend_shared(net: &mut Net, q: Value, kept: [Value; 2], scale: f64) -> One {
    let s = net.shape(q);
    let q = net.reshaped(q, &[Dim::ONE, &s[0] * &s[1], s[2].clone(), s[3].clone()])?;
    let y = net.attention_in(q, kept, [0, 1, 2, 3], &Scores::scaled(scale))?;
    Ok(net.reshaped(y, &[s[0].clone(), s[1].clone(), &s[2] * &s[3]])?)
}
