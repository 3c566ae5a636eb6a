//! A language model that keeps keys and values: some tokens behind others, one run after another.

use crate::compile::draft;
use crate::options::Options;
use crate::session::Session;
use crate::{Error, Result, source};
use brolga_abi::Dim;
use brolga_frontend::safetensors::{self, Facts, Form};
use brolga_ir::{ConstData, Constant, Def, Graph};
use brolga_runtime::{Buffer, DType, View, ViewMut};
use std::path::Path;
use std::time::Instant;

/// Rows that a cache has at first.
const FIRST_ROWS: usize = 256;

/// Tokens that are computed at once of a long prompt.
const CHUNK: usize = 512;

/// A compiled language model. Any number of sequences may be computed with it, each with a [`Cache`] of its own.
pub struct Model {
    session: Session,
    /// Layers that keep keys and values.
    layers: usize,
    /// Heads of a cache, and their size.
    kept: [usize; 2],
    vocabulary: usize,
    /// Bytes of weights that each token reads, as they are stored.
    streamed: u64,
    facts: Facts,
}

/// What a model keeps of a sequence: its tokens, and keys and values of each.
pub struct Cache {
    tokens: Vec<i64>,
    /// Keys, then values, of each layer: `[1, heads, rows, size]`.
    sides: Vec<Buffer>,
    rows: usize,
}

impl Cache {
    /// The tokens whose keys and values are kept.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// Forgets all tokens but the first ones.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.sides.iter().map(|b| b.bytes().len()).sum()
    }
}

/// What is known of a model from its graph.
struct Made {
    layers: usize,
    streamed: u64,
}

/// Bytes of constants that anything but a gather reads.
fn streamed(graph: &Graph) -> u64 {
    let mut read = vec![false; graph.constants.len()];
    for node in graph.nodes.iter().filter(|n| n.op.name() != "gather") {
        for v in &node.inputs {
            if let Def::Const(c) = graph.def(*v) {
                read[c as usize] = true;
            }
        }
    }
    let bytes = |c: &Constant| match c.data {
        ConstData::File { .. } => c.ty.len().as_const().unwrap_or(0) as u64 * c.ty.dtype.bytes() as u64,
        _ => 0,
    };
    graph.constants.iter().zip(read).filter(|(_, read)| *read).map(|(c, _)| bytes(c)).sum()
}

impl Model {
    /// Reads and compiles the model of a folder.
    ///
    /// # Errors
    /// When the folder cannot be read, its family does not generate, or it does not compile.
    pub fn load(folder: impl AsRef<Path>, options: &Options, threads: usize) -> Result<Model> {
        let folder = folder.as_ref();
        let mut options = options.clone();
        options.folder.form = Form::Steps { batched: false };
        let start = Instant::now();
        let graph = source::graph_for(folder, &options)?;
        let load = start.elapsed();
        let layers = graph.inputs.iter().filter(|i| i.name.starts_with("keys.")).count();
        for i in 0..layers {
            for side in ["keys", "values"] {
                options.aliases.push((format!("{side}.{i}"), format!("next_{side}.{i}")));
            }
        }
        let mut draft = draft(&graph, &options.without_sizes())?;
        draft.timings.load = load;
        let session = draft.session(threads)?;
        let facts = safetensors::facts(folder, &options.folder)?;
        let made = Made {
            layers,
            streamed: streamed(&graph),
        };
        Model::of(session, made, facts).map_err(|message| Error::file(folder, message))
    }

    fn of(session: Session, made: Made, facts: Facts) -> std::result::Result<Model, String> {
        let meta = session.meta();
        let keys = meta.inputs.iter().find(|i| i.name == "keys.0");
        let kept = match keys.map(|i| &i.dims[..]) {
            Some([_, Dim::Const(heads), _, Dim::Const(size)]) => [*heads as usize, *size as usize],
            _ => return Err("it keeps no keys and values".into()),
        };
        if meta.outputs.first().is_none_or(|o| o.name != "logits") {
            return Err("its first output is not `logits`: a model without a head generates nothing".into());
        }
        Ok(Model {
            layers: made.layers,
            kept,
            vocabulary: facts.vocabulary,
            streamed: made.streamed,
            facts,
            session,
        })
    }

    /// What the folder says of the model.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Bytes of weights that each token reads, as they are stored: all but tables of which it takes rows.
    pub fn streamed(&self) -> u64 {
        self.streamed
    }

    /// The same with another number of threads; 0 is one for each core.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn with_threads(self, threads: usize) -> Result<Model> {
        Ok(Model {
            session: self.session.with_threads(threads)?,
            ..self
        })
    }

    /// The session of its steps.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// A cache without tokens.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn cache(&self) -> Result<Cache> {
        let mut cache = Cache {
            tokens: vec![],
            sides: vec![],
            rows: 0,
        };
        self.grow(&mut cache, FIRST_ROWS)?;
        Ok(cache)
    }

    /// Makes room for so many tokens.
    fn grow(&self, cache: &mut Cache, rows: usize) -> Result<()> {
        if rows <= cache.rows {
            return Ok(());
        }
        let rows = rows.next_power_of_two().max(FIRST_ROWS);
        let [heads, size] = self.kept;
        let row = size * size_of::<f32>();
        let used = cache.tokens.len() * row;
        let mut sides = vec![];
        for side in 0..2 * self.layers {
            let mut new = Buffer::zeroed(DType::F32, vec![1, heads, rows, size])?;
            if let Some(old) = cache.sides.get(side) {
                let parts = new.bytes_mut().chunks_exact_mut(rows * row).zip(old.bytes().chunks_exact(cache.rows * row));
                parts.for_each(|(new, old)| new[..used].copy_from_slice(&old[..used]));
            }
            sides.push(new);
        }
        (cache.sides, cache.rows) = (sides, rows);
        Ok(())
    }

    /// A cache of the first tokens of another.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn copy(&self, other: &Cache, tokens: usize) -> Result<Cache> {
        let [heads, size] = self.kept;
        let row = size * size_of::<f32>();
        let tokens = &other.tokens[..tokens.min(other.tokens.len())];
        let mut copy = self.cache()?;
        self.grow(&mut copy, tokens.len())?;
        for (new, old) in copy.sides.iter_mut().zip(&other.sides) {
            let news = new.bytes_mut().chunks_exact_mut(copy.rows * row);
            let olds = old.bytes().chunks_exact(other.rows * row);
            for (new, old) in news.zip(olds).take(heads) {
                new[..tokens.len() * row].copy_from_slice(&old[..tokens.len() * row]);
            }
        }
        copy.tokens = tokens.to_vec();
        Ok(copy)
    }

    /// Checks that a sequence of so many tokens fits, and that these are of the vocabulary.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self, length: usize, tokens: &[i64]) -> Result<()> {
        if let Some(context) = self.facts.context
            && length > context
        {
            return Err(Error::Option(format!("{length} tokens, beyond the model's context of {context}")));
        }
        match tokens.iter().find(|t| !(0..self.vocabulary as i64).contains(*t)) {
            Some(t) => Err(Error::Option(format!("token {t}, of a vocabulary of {}", self.vocabulary))),
            None => Ok(()),
        }
    }

    /// Computes tokens behind those of a cache, and keeps them; logits of the last `shown` of them, `[shown, vocabulary]`.
    ///
    /// # Errors
    /// When there are none, or fewer than are to be shown; when they are not of the vocabulary, or go beyond the context; when there is no
    /// memory.
    pub fn step(&self, cache: &mut Cache, tokens: &[i64], shown: usize) -> Result<Buffer> {
        let all = cache.tokens.len() + tokens.len();
        if shown == 0 || tokens.len() < shown {
            return Err(Error::Option(format!("logits of {shown} tokens of {}", tokens.len())));
        }
        self.check(all, tokens)?;
        self.grow(cache, all)?;
        // What is shown is in the last run.
        let (before, last) = tokens.split_at(tokens.len() - shown);
        let whole = before.len() - before.len() % CHUNK;
        for chunk in before[..whole].chunks(CHUNK) {
            self.run(cache, chunk, 1)?;
        }
        self.run(cache, &[&before[whole..], last].concat(), shown)
    }

    fn run(&self, cache: &mut Cache, tokens: &[i64], shown: usize) -> Result<Buffer> {
        let n = tokens.len();
        let lengths = [cache.tokens.len() as i64];
        let wanted: Vec<i64> = (n - shown..n).map(|i| i as i64).collect();
        let mut logits = Buffer::zeroed(DType::F32, vec![1, shown, self.vocabulary])?;
        let shapes = [[1, n], [1, shown]];
        let inputs = [
            View::of(tokens, &shapes[0]),
            View::of(&lengths, &[1]),
            View::of(&wanted, &shapes[1]),
        ];
        let mut outputs: Vec<ViewMut<'_>> = vec![logits.view_mut()];
        outputs.extend(cache.sides.iter_mut().map(Buffer::view_mut));
        self.session.run_in_place(&inputs, &mut outputs)?;
        cache.tokens.extend_from_slice(tokens);
        Ok(logits)
    }
}
