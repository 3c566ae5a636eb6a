//! What graphs of [`Form::Steps`](super::Form) share: some tokens of several sequences, each behind others, whose keys and values lie in memory
//! that the caller gives and the graph updates; and, of models with an encoder, the keys and values of what it says of a source.
//!
//! ```text
//! input_ids [batch, sequence]     stand behind lengths [batch] others
//! keys.i    [batch, heads, size, capacity]   of the same memory as the output next_keys.i: columns, which scores are computed of side by side
//! values.i  [batch, heads, capacity, size]   of the same memory as the output next_values.i
//! cross_keys.i, cross_values.i    [1, heads, source, size], which graphs of Form::Encoder give and those of Form::Steps only read
//! wanted [batch, wanted]          tokens of this run that results are asked for
//! ```
//!
//! Caches are f32, f16 or integers of 8 bits ([`CacheType`]): those have a scale for each token, `key_scales.i` `[batch, heads, 1, capacity]` and
//! `value_scales.i` `[batch, heads, capacity, 1]`. What is new is rounded once, when it is written.
//!
//! A layer that sees no farther than a window has a ring in place of all tokens: `ring` is its capacity, and a token stands at its position modulo
//! that. Of such models `laps` `[batch]` is an input, the position of what stands first in each ring: `lengths` less its remainder. What a row
//! holds follows from the sequence's last position, so that rows that were written for tokens which were given up are told from others.
//!
//! Invariant: a run is of one source, which all of its sequences share. Attention to it takes them as queries of one batch: what an encoder says
//! is kept once, and read once for all of them.
//!
//! Invariant: a key has its place in the sums of attention by its position, whatever else a run computes.

use super::error::Fail;
use super::net::{Net, One, Scores};
use brolga_ir::{Attr, Build, DType, Dim, Value};

/// Keys that attention reads in steps are a multiple of it: the widest vectors of any CPU, in f32.
const ATTENDED: f64 = 16.0;

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// f32.
    #[default]
    F32,
    /// f16.
    F16,
    /// 8 bits, and a scale for each token of each head.
    Int8,
}

impl CacheType {
    /// Every type.
    pub const ALL: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Int8];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Int8 => "int8",
        }
    }

    /// The type of a name.
    pub fn named(name: &str) -> Option<CacheType> {
        CacheType::ALL.into_iter().find(|t| t.name() == name)
    }

    fn dtype(self) -> DType {
        match self {
            CacheType::F32 => DType::F32,
            CacheType::F16 => DType::F16,
            CacheType::Int8 => DType::I8,
        }
    }
}

/// A run of some tokens.
pub struct Steps {
    /// The tokens, `[batch, queries]`.
    pub ids: Value,
    /// How many of each sequence there are.
    pub queries: Dim,
    /// Positions of the tokens, `[batch, queries]`.
    pub positions: Value,
    cache: Cache,
    /// Tokens that results are asked for.
    wanted: Value,
}

/// Where keys and values are kept between runs.
#[derive(Clone)]
pub struct Cache {
    kv: CacheType,
    /// Of layers that keep all tokens, where there are some.
    whole: Option<Rows>,
    /// Of layers that keep a ring.
    ring: Option<Rows>,
    /// What each layer kept before the run: keys, then values.
    past: Vec<[Side; 2]>,
}

/// What caches of one capacity have in common.
#[derive(Clone)]
struct Rows {
    /// Where tokens of the run are written, `[batch, 1, queries, 1]`.
    places: Value,
    /// Rows that attention reads.
    read: Dim,
    /// What is there, `[batch, 1, queries, read]`, and not behind the query.
    seen: Value,
    /// Positions of what the rows hold, `[batch, 1, queries, read]`, below 0 where they hold nothing.
    held: Value,
}

/// Keys or values that were kept.
#[derive(Clone, Copy)]
struct Side {
    elements: Value,
    /// Of integers.
    scales: Option<Value>,
}

impl Steps {
    /// Adds the inputs of a decoder with so many heads of keys, and elements of a head; for each layer it is told how far it sees, where it
    /// keeps no more than that.
    ///
    /// # Errors
    /// Never.
    pub fn new(net: &mut Net, windows: &[Option<usize>], [heads, size]: [usize; 2]) -> Result<Steps, Fail> {
        net.enter("cache");
        let [batch, seq, wanted] = ["batch", "sequence", "wanted"].map(Dim::sym);
        let ids = net.input("input_ids", DType::I64, &[batch.clone(), seq.clone()]);
        let lengths = net.input("lengths", DType::I64, std::slice::from_ref(&batch));
        let wanted = net.input("wanted", DType::I64, &[batch.clone(), wanted]);
        net.window = windows.iter().flatten().max().copied();
        let laps = net
            .window
            .map(|_| net.input("laps", DType::I64, std::slice::from_ref(&batch)));
        let mut past = vec![];
        for (i, window) in windows.iter().enumerate() {
            let rows = Dim::sym(if window.is_some() { "ring" } else { "capacity" });
            past.push(["key", "value"].map(|side| Side::input(net, side, i, [heads, size], &rows)));
        }
        let longest = net.call("reduce", &[Attr::word("max"), Attr::axes(&[0])], &[lengths])?;
        let first = net.reshaped(lengths, &[batch.clone(), Dim::ONE])?;
        let places = net.iota(&[batch.clone(), seq.clone()], 1)?;
        let positions = net.map("add", &[places, first])?;
        let own = net.reshaped(positions, &[batch.clone(), Dim::ONE, seq.clone(), Dim::ONE])?;
        let whole = match windows.contains(&None) {
            true => Some(Rows::all(net, own, longest)?),
            false => None,
        };
        let ring = match laps {
            Some(laps) => Some(Rows::ring(net, own, longest, [lengths, laps])?),
            None => None,
        };
        Ok(Steps {
            ids,
            queries: seq,
            positions,
            cache: Cache {
                kv: net.kv,
                whole,
                ring,
                past,
            },
            wanted,
        })
    }

    /// Where keys and values are kept.
    pub fn cache(&self) -> Cache {
        self.cache.clone()
    }

    /// Scores of attention of the tokens to those before them and themselves, of a decoder that keeps all.
    pub fn scores(&self, scale: f64) -> Scores {
        Scores {
            mask: self.cache.seen(),
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

/// How many rows attention reads, of caches of so many: all up to the newest token of the longest sequence, and as many more as make them whole
/// [`ATTENDED`]. So each key has its place in the sums, however long the other sequences are, and a sequence has the same logits alone and
/// beside others.
fn rows_read(net: &mut Net, name: &str, longest: Value, capacity: &Dim) -> Result<Dim, Fail> {
    let longest = net.reshaped(longest, &[])?;
    let (new, most) = (net.size(&Dim::sym("sequence"))?, net.size(capacity)?);
    let all = net.map("add", &[longest, new])?;
    let all = net.map_num("add", all, ATTENDED - 1.0)?;
    let all = net.map_num("div", all, ATTENDED)?;
    let all = net.map_num("mul", all, ATTENDED)?;
    let all = net.map("min", &[all, most])?;
    net.read(name, all, capacity.clone())
}

impl Rows {
    /// Of layers that keep all tokens: a token stands at its position. `own` are those of the run, `[batch, 1, queries, 1]`.
    fn all(net: &mut Net, own: Value, longest: Value) -> Result<Rows, Fail> {
        let read = rows_read(net, "kept", longest, &Dim::sym("capacity"))?;
        let mut plane = net.shape(own);
        plane[3] = read.clone();
        let held = net.iota(&plane, 3)?;
        let seen = net.map("less_or_equal", &[held, own])?;
        Ok(Rows {
            places: own,
            read,
            seen,
            held,
        })
    }

    /// Of layers that keep a ring. A token's place is how far it is from what stands first, a lap later where it is farther than the ring; and a
    /// row holds what was written to it last.
    fn ring(net: &mut Net, own: Value, longest: Value, [lengths, laps]: [Value; 2]) -> Result<Rows, Fail> {
        let ring = Dim::sym("ring");
        let read = rows_read(net, "ringed", longest, &ring)?;
        let mut plane = net.shape(own);
        let each = [plane[0].clone(), Dim::ONE, Dim::ONE, Dim::ONE];
        let first = net.reshaped(laps, &each)?;
        let around = net.size(&ring)?;
        let ahead = net.map("sub", &[own, first])?;
        let turned = net.map("sub", &[ahead, around])?;
        let beyond = net.map("greater_or_equal", &[ahead, around])?;
        let places = net.map("where", &[beyond, turned, ahead])?;
        // What stands in a row: the last position of this lap, of the next one, or of the one before, that the run has come to.
        let last = net.size(&(&plane[2] - &Dim::ONE))?;
        let last = net.map("add", &[lengths, last])?;
        let last = net.reshaped(last, &each)?;
        plane[3] = read.clone();
        let row = net.iota(&plane, 3)?;
        let here = net.map("add", &[row, first])?;
        let next = net.map("add", &[here, around])?;
        let before = net.map("sub", &[here, around])?;
        let come_to = net.map("less_or_equal", &[here, last])?;
        let held = net.map("where", &[come_to, here, before])?;
        let again = net.map("less_or_equal", &[next, last])?;
        let held = net.map("where", &[again, next, held])?;
        let seen = net.map("less_or_equal", &[held, own])?;
        let none = net.splat(DType::I64, &plane, 0.0)?;
        let there = net.map("greater_or_equal", &[held, none])?;
        let seen = net.map("and", &[seen, there])?;
        Ok(Rows {
            places,
            read,
            seen,
            held,
        })
    }

    /// What is there and lies in a window of each query.
    fn within(&self, net: &mut Net, positions: Value, window: usize) -> One {
        let s = net.shape(positions);
        let own = net.reshaped(positions, &[s[0].clone(), Dim::ONE, s[1].clone(), Dim::ONE])?;
        let first = net.map_num("sub", own, window as f64)?;
        let near = net.map("greater", &[self.held, first])?;
        net.map("and", &[self.seen, near])
    }
}

impl Side {
    /// The inputs of a layer's keys or values.
    fn input(net: &mut Net, side: &str, i: usize, [heads, size]: [usize; 2], rows: &Dim) -> Side {
        let (batch, heads) = (Dim::sym("batch"), Dim::from(heads));
        let of = |size: Dim| match side {
            "key" => [batch.clone(), heads.clone(), size, rows.clone()],
            _ => [batch.clone(), heads.clone(), rows.clone(), size],
        };
        let dtype = net.kv.dtype();
        Side {
            elements: net.input(&format!("{side}s.{i}"), dtype, &of(size.into())),
            scales: (net.kv == CacheType::Int8)
                .then(|| net.input(&format!("{side}_scales.{i}"), DType::F32, &of(Dim::ONE))),
        }
    }
}

/// Rows as integers of 8 bits with a scale along an axis: the largest magnitude is 127.
fn quantized(net: &mut Net, x: Value, axis: usize) -> Result<[Value; 2], Fail> {
    let sizes = net.map("abs", &[x])?;
    let most = net.call("reduce", &[Attr::word("max"), Attr::axes(&[axis])], &[sizes])?;
    // Zeros stay zeros.
    let most = net.map_num("max", most, f64::from(f32::MIN_POSITIVE) * 256.0)?;
    let scale = net.map_num("div", most, 127.0)?;
    let mut shape = net.shape(x);
    shape[axis] = Dim::ONE;
    let scale = net.reshaped(scale, &shape)?;
    let steps = net.map("div", &[x, scale])?;
    let steps = net.map("round", &[steps])?;
    Ok([net.cast(steps, DType::I8)?, scale])
}

impl Cache {
    /// Rows that attention reads where all tokens are kept.
    pub fn keys(&self) -> Dim {
        self.whole.as_ref().map_or(Dim::ZERO, |w| w.read.clone())
    }

    /// What queries see where all tokens are kept, `[batch, 1, queries, keys]`: a shorter sequence does not see what stands in its cache beyond
    /// it.
    pub fn seen(&self) -> Option<Value> {
        self.whole.as_ref().map(|w| w.seen)
    }

    /// What queries at positions `[batch, queries]` see in a window, of a layer that keeps a ring or all.
    ///
    /// # Errors
    /// Never.
    pub fn within(&self, net: &mut Net, positions: Value, window: usize) -> One {
        let rows = self
            .ring
            .as_ref()
            .or(self.whole.as_ref())
            .expect("a decoder has layers");
        rows.within(net, positions, window)
    }

    /// Writes keys and values `[batch, queries, heads, size]` to layer `i`; all that it has then, keys `[batch, heads, size, keys]` and values
    /// `[batch, heads, keys, size]`.
    fn keep(&self, net: &mut Net, [k, v]: [Value; 2], i: usize) -> Result<[Value; 2], Fail> {
        let [keys, values] = self.past[i];
        let k = net.call("transpose", &[Attr::axes(&[0, 2, 3, 1])], &[k])?;
        let v = net.call("transpose", &[Attr::axes(&[0, 2, 1, 3])], &[v])?;
        Ok([
            self.keep_side(net, keys, k, 3, &format!("{i}"))?,
            self.keep_side(net, values, v, 2, &format!("{i}"))?,
        ])
    }

    /// The same of one side, whose tokens lie along `axis`.
    fn keep_side(&self, net: &mut Net, past: Side, new: Value, axis: usize, layer: &str) -> One {
        let name = if axis == 3 { "key" } else { "value" };
        let capacity = net.shape(past.elements)[axis].clone();
        let rows = match capacity == Dim::sym("ring") {
            true => self.ring.as_ref(),
            false => self.whole.as_ref(),
        };
        let rows = rows.expect("there are rows of every capacity that a layer has");
        let write = |net: &mut Net, past: Value, new: Value, name: &str| -> One {
            let shape = net.shape(new);
            let mut at = [shape[0].clone(), Dim::ONE, Dim::ONE, Dim::ONE];
            at[axis] = shape[axis].clone();
            let places = net.reshaped(rows.places, &at)?;
            let places = net.spread(places, &shape)?;
            let attrs = [Attr::Int(axis as i64), Attr::word("none")];
            let next = net.call("scatter_elements", &attrs, &[past, places, new])?;
            net.output(&format!("next_{name}.{layer}"), next);
            net.slice(next, axis, Dim::ZERO, rows.read.clone())
        };
        let elements = format!("{name}s");
        let Some(scales) = past.scales else {
            let new = net.cast(new, self.kv.dtype())?;
            let all = write(net, past.elements, new, &elements)?;
            return net.cast(all, DType::F32);
        };
        let [steps, scale] = quantized(net, new, 5 - axis)?;
        let all = write(net, past.elements, steps, &elements)?;
        let scales = write(net, scales, scale, &format!("{name}_scales"))?;
        let all = net.cast(all, DType::F32)?;
        net.map("mul", &[all, scales])
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
            net.attention_in(q, kept, [[0, 1, 3, 2], [0, 1, 2, 3]], scores)
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
    let y = net.attention_in(q, kept, [[0, 1, 2, 3]; 2], &Scores::scaled(scale))?;
    Ok(net.reshaped(y, &[s[0].clone(), s[1].clone(), &s[2] * &s[3]])?)
}
