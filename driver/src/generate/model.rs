//! A compiled language model: tokens behind those of sequences whose keys and values are kept.

use super::cache::{CHUNK, Cache, Kept};
use super::encoder::Encoder;
use super::files::{Files, KIND};
use crate::compile::{Compiled, Draft, draft};
use crate::options::Options;
use crate::session::Session;
use crate::source::{self, Kind};
use crate::{Error, Result};
use brolga_abi::Meta;
use brolga_frontend::safetensors::{Facts, Form};
use brolga_ir::Graph;
use brolga_runtime::{Buffer, DType, View, ViewMut};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A compiled language model. Any number of sequences may be computed with it, in a [`Cache`] each or together in one.
pub struct Model {
    session: Session,
    /// What caches keep of a token.
    kept: Arc<Kept>,
    facts: Facts,
    files: Files,
    /// Of a model whose decoder attends to what an encoder says.
    encoder: Option<Encoder>,
}

/// Caches are updated where they are.
fn aliases(graph: &Graph) -> Vec<(String, String)> {
    let next = |name: &str| (name.to_owned(), format!("next_{name}"));
    let all = graph.inputs.iter().map(|i| next(&i.name));
    all.filter(|(_, next)| graph.outputs.iter().any(|(n, _)| n == next))
        .collect()
}

/// Compiles the model of a folder or of a GGUF file for generation. An artefact of it carries all that [`Model::load`] needs.
///
/// # Errors
/// When the folder cannot be read, its family does not generate, or it does not compile.
pub fn compile(folder: impl AsRef<Path>, options: &Options) -> Result<Compiled> {
    let folder = folder.as_ref();
    let (draft, facts) = drafted(folder, options)?;
    let attends = attends(&draft.meta);
    let mut compiled = draft.finish()?;
    if attends {
        let encoder = Encoder::draft(folder, options)?.finish()?;
        compiled.timings += encoder.timings;
        compiled.beside.push(encoder);
    }
    let texts = Files::of_folder(folder)?.texts(&facts);
    compiled.texts = texts
        .into_iter()
        .map(|(name, body)| (KIND.to_owned(), name, body))
        .collect();
    Ok(compiled)
}

/// Whether a program is that of a decoder that attends to what an encoder says.
fn attends(meta: &Meta) -> bool {
    meta.inputs.iter().any(|i| i.name.starts_with("cross_keys."))
}

fn drafted(folder: &Path, options: &Options) -> Result<(Draft, Facts)> {
    let mut options = options.clone();
    options.folder.form = Form::Steps;
    let start = Instant::now();
    let (graph, facts) = source::folder(folder, &options)?;
    let load = start.elapsed();
    options.aliases.extend(aliases(&graph));
    let mut draft = draft(&graph, &options.without_sizes())?;
    draft.timings.load = load;
    Ok((draft, facts))
}

impl Model {
    /// Reads and compiles the model of a folder or of a GGUF file, or opens an artefact that [`compile()`] made.
    ///
    /// # Errors
    /// When it cannot be read, does not generate, or does not compile.
    pub fn load(path: impl AsRef<Path>, options: &Options, threads: usize) -> Result<Model> {
        let path = path.as_ref();
        let (session, files, facts, encoder) = match source::kind(path)? {
            Kind::Folder => {
                let (draft, facts) = drafted(path, options)?;
                let encoder = attends(&draft.meta).then(|| Encoder::draft(path, options)?.session(threads));
                let encoder = encoder.transpose()?;
                (draft.session(threads)?, Files::of_folder(path)?, facts, encoder)
            }
            Kind::Artefact => {
                if options.folder != Default::default() || !options.sizes.is_empty() {
                    let message = "an artefact is compiled already; --family, --config, --with, --lora, --weights, --kv and --set are for its folder";
                    return Err(Error::file(path, message));
                }
                source::as_declared(path, options)?;
                let (files, facts) = Files::of_artefact(path)?;
                let how = Session::options().threads(threads).memory_limit(options.memory_limit);
                let mut sessions = how.open_all(path)?.into_iter();
                let session = sessions.next().expect("an artefact has a program");
                let encoder = sessions.next();
                if attends(session.meta()) != encoder.is_some() {
                    let message = "it has a decoder without its encoder, or an encoder of nothing";
                    return Err(Error::file(path, message));
                }
                (session, files, facts, encoder)
            }
            _ => {
                return Err(Error::file(
                    path,
                    "expected a folder of safetensors, a GGUF file, or an artefact of one",
                ));
            }
        };
        let model = Model::of(session, files, facts).map_err(|message| Error::file(path, message))?;
        Ok(Model {
            encoder: encoder.map(Encoder::of),
            ..model
        })
    }

    fn of(session: Session, files: Files, facts: Facts) -> std::result::Result<Model, String> {
        let meta = session.meta();
        let kept = Kept::of(meta, facts.window)?;
        if meta.outputs.first().is_none_or(|o| o.name != "logits") {
            return Err("its first output is not `logits`: a model without a head generates nothing".into());
        }
        Ok(Model {
            kept: Arc::new(kept),
            facts,
            files,
            session,
            encoder: None,
        })
    }

    /// The encoder that its decoder attends to.
    pub fn encoder(&self) -> Option<&Encoder> {
        self.encoder.as_ref()
    }

    /// What the folder says of the model.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The token that its decoder begins with, of a model with an encoder.
    ///
    /// # Errors
    /// When the folder does not say.
    pub fn start(&self) -> Result<i64> {
        let message = "decoder_start_token_id is missing: neither generation_config.json nor config.json says what a decoder begins with";
        self.facts.start.ok_or_else(|| Error::Option(message.into()))
    }

    /// What it has beside its graph and weights.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The same with another number of threads; 0 is one for each core.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn with_threads(self, threads: usize) -> Result<Model> {
        Ok(Model {
            session: self.session.with_threads(threads)?,
            encoder: self.encoder.map(|e| e.with_threads(threads)).transpose()?,
            ..self
        })
    }

    /// The session of its steps.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// A cache of so many slots, without sequences.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn cache(&self, slots: usize) -> Result<Cache> {
        Cache::new(slots, self.kept.clone())
    }

    /// A cache of one sequence, without tokens.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn sequence(&self) -> Result<Cache> {
        let mut cache = self.cache(1)?;
        cache.begin();
        Ok(cache)
    }

    /// Checks that a sequence of so many tokens fits, and that these are of the vocabulary.
    ///
    /// # Errors
    /// When not.
    pub fn check(&self, length: usize, tokens: &[i64]) -> Result<()> {
        if let Some(context) = self.facts.context
            && length > context
        {
            return Err(Error::Option(format!(
                "{length} tokens, beyond the model's context of {context}"
            )));
        }
        let vocabulary = self.facts.vocabulary;
        match tokens.iter().find(|t| !(0..vocabulary as i64).contains(*t)) {
            Some(t) => Err(Error::Option(format!("token {t}, of a vocabulary of {vocabulary}"))),
            None => Ok(()),
        }
    }

    /// Computes tokens behind those of a sequence, and keeps them; logits of the last `shown` of them, `[1, shown, vocabulary]`.
    ///
    /// # Errors
    /// When there are none, or fewer than are to be shown; when they are not of the vocabulary, or go beyond the context; when there is no
    /// memory.
    pub fn step(&self, cache: &mut Cache, slot: usize, tokens: &[i64], shown: usize) -> Result<Buffer> {
        let all = cache.tokens(slot).len() + tokens.len();
        if shown == 0 || tokens.len() < shown {
            return Err(Error::Option(format!("logits of {shown} tokens of {}", tokens.len())));
        }
        self.check(all, tokens)?;
        cache.reserve(all)?;
        let hidden = tokens.len() - shown;
        let (mut rows, mut done) = (vec![], 0);
        for chunk in tokens.chunks(CHUNK) {
            done += chunk.len();
            let own = done.saturating_sub(hidden).min(chunk.len());
            let logits = self.run(cache, slot..slot + 1, chunk, own.max(1))?;
            if own == shown {
                return Ok(logits);
            }
            if own > 0 {
                rows.extend_from_slice(logits.bytes());
            }
        }
        let mut all = Buffer::zeroed(DType::F32, vec![1, shown, self.facts.vocabulary])?;
        all.bytes_mut().copy_from_slice(&rows);
        Ok(all)
    }

    /// Computes one token behind each sequence, and keeps them; logits `[sequences, 1, vocabulary]`.
    ///
    /// # Errors
    /// As [`Model::step`].
    pub fn step_all(&self, cache: &mut Cache, tokens: &[i64]) -> Result<Buffer> {
        self.step_several(cache, tokens, 1)
    }

    /// Computes `n` tokens behind each sequence, those of the first one first, and keeps them; logits `[sequences, n, vocabulary]`.
    ///
    /// # Errors
    /// As [`Model::step`]; when they are more than are computed at once.
    pub fn step_several(&self, cache: &mut Cache, tokens: &[i64], n: usize) -> Result<Buffer> {
        if tokens.len() != cache.len() * n {
            return Err(Error::Option(format!(
                "{} tokens for {} sequences",
                tokens.len(),
                cache.len()
            )));
        }
        if !(1..=CHUNK).contains(&n) {
            return Err(Error::Option(format!("{n} tokens at once, expected 1 to {CHUNK}")));
        }
        let longest = (0..cache.len()).map(|s| cache.tokens(s).len() + n).max().unwrap_or(0);
        self.check(longest, tokens)?;
        cache.reserve(longest)?;
        self.run(cache, 0..cache.len(), tokens, n)
    }

    /// Runs as many tokens of each of these sequences.
    fn run(&self, cache: &mut Cache, slots: Range<usize>, tokens: &[i64], shown: usize) -> Result<Buffer> {
        let batch = slots.len();
        let n = tokens.len() / batch.max(1);
        slots.clone().for_each(|slot| cache.prepare(slot, n));
        let lengths: Vec<i64> = slots.clone().map(|s| cache.tokens(s).len() as i64).collect();
        let wanted: Vec<i64> = (0..batch).flat_map(|_| n - shown..n).map(|i| i as i64).collect();
        let mut logits = Buffer::zeroed(DType::F32, vec![batch, shown, self.facts.vocabulary])?;
        let shapes = [[batch, n], [batch, shown]];
        let mut inputs = vec![
            View::of(tokens, &shapes[0]),
            View::of(&lengths, &shapes[0][..1]),
            View::of(&wanted, &shapes[1]),
        ];
        let laps: Vec<i64> = slots.clone().filter_map(|slot| cache.lap(slot)).collect();
        if !laps.is_empty() {
            inputs.push(View::of(&laps, &shapes[0][..1]));
        }
        let encoded = cache.encoded().cloned();
        match (&encoded, &self.encoder) {
            (Some(encoded), Some(_)) => inputs.extend(encoded.views()),
            (None, None) => {}
            (None, Some(_)) => return Err(Error::Option("the decoder has nothing that an encoder says".into())),
            (Some(_), None) => return Err(Error::Option("a model without an encoder attends to no source".into())),
        }
        let kept = cache.shapes(batch);
        let mut outputs: Vec<ViewMut<'_>> = vec![logits.view_mut()];
        outputs.extend(cache.views(slots.clone(), &kept));
        self.session.run_in_place(&inputs, &mut outputs)?;
        for (slot, own) in slots.zip(tokens.chunks(n.max(1))) {
            cache.extend(slot, own);
        }
        Ok(logits)
    }
}
