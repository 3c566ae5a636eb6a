//! Segments of a sound, window by window: where timestamps say that one ended, the next begins.

use super::mel::{Extractor, Features};
use super::prompt::{Specials, Task};
use super::rules::parts;
use crate::generate::{Cache, Encoded, Model};
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames from a timestamp to the next: the encoder reads two for each of its positions.
const STEP: usize = 2;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The language that is spoken; without one the model tells it.
    pub language: Option<String>,
    /// What is written of it.
    pub task: Option<Task>,
    /// Whether segments have times of their own. Those of sounds that are longer than a window have them always, where the model does.
    pub timestamps: bool,
}

/// A part of a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Seconds from the beginning.
    pub start: f64,
    /// The same of its end.
    pub end: f64,
    /// Its tokens, timestamps included.
    pub tokens: Vec<i64>,
}

/// An iterator of the segments of a sound. It ends after an error.
pub struct Transcriber<'m> {
    model: &'m Model,
    specials: Specials,
    features: Features,
    /// Frames of a window.
    window: usize,
    /// Seconds of a frame.
    frame: f64,
    timestamps: bool,
    cache: Cache,
    /// What each window's tokens begin with.
    prompt: Vec<i64>,
    /// The first window, which was read to tell the language.
    encoded: Option<Arc<Encoded>>,
    /// Where the next window begins.
    at: usize,
    found: VecDeque<Segment>,
}

impl<'m> Transcriber<'m> {
    /// Reads a sound, whose samples have the rate that [`Extractor::of`] tells.
    ///
    /// # Errors
    /// When the model is none of speech, its files contradict it, or it does not do what is wanted.
    pub fn new(model: &'m Model, sound: &[f32], wanted: &Wanted) -> Result<Transcriber<'m>> {
        let none = || Error::Option("a model that does not read sounds; `brolga generate` goes on from a text".into());
        let encoder = model.encoder().filter(|e| !e.reads_tokens()).ok_or_else(none)?;
        let [mels, window] = encoder.extents().ok_or_else(none)?;
        let extractor = Extractor::of(model.files())?;
        if [extractor.mels, extractor.frames()] != [mels, window] {
            return Err(Error::Option(format!(
                "preprocessor_config.json says {} frames of {} bins, and the model reads {window} of {mels}",
                extractor.frames(),
                extractor.mels
            )));
        }
        let specials = Specials::of(model)?;
        if specials.start < 0 || model.facts().end.is_empty() {
            return Err(Error::Option(
                "eos_token_id is missing: nothing ends a transcript".into(),
            ));
        }
        let features = extractor.features(sound)?;
        let timestamps = wanted.timestamps || features.frames > window && specials.no_timestamps.is_some();
        let encoded = encoder.features(&features.window(0, window), mels)?;
        let mut cache = model.sequence()?;
        cache.attend_to(encoded.clone());
        let prompt = specials.prompt(wanted.language.as_deref(), wanted.task, timestamps, |s| {
            let logits = model.step(&mut cache, 0, &[s.start], 1)?;
            let logits = logits.as_slice::<f32>().expect("logits are f32");
            let all = s.languages.iter().map(|(_, token)| *token);
            Ok(best(logits, all))
        })?;
        let longest = model.facts().context.unwrap_or(usize::MAX);
        if prompt.len() >= longest {
            return Err(Error::Option(format!(
                "{} tokens before a transcript, of {longest}",
                prompt.len()
            )));
        }
        model.check(prompt.len(), &prompt)?;
        Ok(Transcriber {
            model,
            frame: extractor.hop as f64 / extractor.rate as f64,
            specials,
            features,
            window,
            timestamps,
            cache,
            prompt,
            encoded: Some(encoded),
            at: 0,
            found: VecDeque::new(),
        })
    }

    /// The language that is spoken, where the model knows several.
    pub fn language(&self) -> Option<&str> {
        self.prompt.iter().find_map(|t| self.specials.language(*t))
    }

    /// Whether segments have times of their own.
    pub fn has_timestamps(&self) -> bool {
        self.timestamps
    }

    /// Seconds that were transcribed, and of all.
    pub fn progress(&self) -> [f64; 2] {
        [self.at.min(self.features.frames), self.features.frames].map(|n| n as f64 * self.frame)
    }

    /// A segment's tokens but for timestamps, which are no text.
    pub fn words(&self, segment: &Segment) -> Vec<i64> {
        let zero = self.specials.first_time().unwrap_or(i64::MAX);
        segment.tokens.iter().copied().filter(|t| *t < zero).collect()
    }

    /// Transcribes the next window.
    fn advance(&mut self) -> Result<()> {
        let encoded = match self.encoded.take() {
            Some(encoded) => encoded,
            None => {
                let encoder = self.model.encoder().expect("it was asked for");
                encoder.features(&self.features.window(self.at, self.window), self.features.mels)?
            }
        };
        self.cache.attend_to(encoded);
        let tokens = self.tokens()?;
        let steps = ((self.features.frames - self.at).min(self.window) / STEP) as i64;
        let zero = self.specials.first_time().filter(|_| self.timestamps);
        let (parts, next) = parts(&tokens, zero.unwrap_or(i64::MAX), steps);
        let (offset, step) = (self.at as f64 * self.frame, STEP as f64 * self.frame);
        let segments = parts.into_iter().map(|p| Segment {
            start: offset + p.start as f64 * step,
            end: offset + p.end as f64 * step,
            tokens: p.tokens,
        });
        self.found.extend(segments.filter(|s| !s.tokens.is_empty()));
        // A whole window ends at its last frame, which may be half a step.
        let whole = (self.features.frames - self.at).min(self.window);
        self.at += match next {
            n if n == steps || n <= 0 => whole,
            n => n as usize * STEP,
        };
        Ok(())
    }

    /// The tokens of a window, by the best one always.
    fn tokens(&mut self) -> Result<Vec<i64>> {
        let facts = self.model.facts();
        let longest = self.specials.longest + self.prompt.len();
        let most = longest.min(facts.context.unwrap_or(usize::MAX)) - self.prompt.len();
        let mut tokens: Vec<i64> = vec![];
        while tokens.len() < most {
            let new = match tokens.last() {
                Some(last) => std::slice::from_ref(last),
                None => &self.prompt,
            };
            let logits = self.model.step(&mut self.cache, 0, new, 1)?;
            let mut logits = logits.as_slice::<f32>().expect("logits are f32").to_vec();
            self.specials
                .restrict(&mut logits, &tokens, facts.end[0], self.timestamps);
            let token = best(&logits, 0..logits.len() as i64);
            if facts.end.contains(&token) {
                break;
            }
            tokens.push(token);
        }
        Ok(tokens)
    }
}

/// The token with the highest logit; of equal ones the first.
fn best(logits: &[f32], tokens: impl Iterator<Item = i64>) -> i64 {
    let known = tokens.filter_map(|t| Some((t, *logits.get(usize::try_from(t).ok()?)?)));
    let better = |best: (i64, f32), one: (i64, f32)| if one.1 > best.1 { one } else { best };
    known.reduce(better).map_or(0, |(token, _)| token)
}

impl Iterator for Transcriber<'_> {
    type Item = Result<Segment>;

    fn next(&mut self) -> Option<Result<Segment>> {
        while self.found.is_empty() && self.at < self.features.frames {
            if let Err(e) = self.advance() {
                self.at = self.features.frames;
                return Some(Err(e));
            }
        }
        self.found.pop_front().map(Ok)
    }
}
