//! Beam search: the best texts as a whole, of several that grow side by side.
//!
//! Each step takes the likeliest continuations of all beams together, by the sum of the logarithms of their tokens' probabilities. Those that
//! end are set aside by their score, the sum over a power of their length; the others are the next beams.
//!
//! Texts that are held to a form have a state of it each, which a beam takes along from the one that it went on from. What may not follow has no
//! probability, and those that may keep theirs, as with transformers' `prefix_allowed_tokens_fn`. A text that nothing may follow has ended, and
//! where all have, the search has.
//!
//! Invariant: the tokens are those of transformers' `generate(num_beams=…)` without sampling. Source: `_beam_search` there, with its three ways
//! to stop early.

use super::cache::Cache;
use super::continuation::{End, Settings};
use super::files::{Files, GENERATION};
use super::generator::begin;
use super::hold::Hold;
use super::model::Model;
use super::sampling::Sampler;
use crate::{Error, Result};
use serde_json::Value as Json;

/// When a search ends for which there are as many finished texts as beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Early {
    /// When no beam has a better score than the worst finished text, as long as they are.
    #[default]
    No,
    /// At once.
    Yes,
    /// When no beam could have one, however long it became.
    Never,
}

/// How beams are searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beams {
    /// How many there are; 1 is no search.
    pub width: usize,
    /// Scores are divided by the length to this power: above 0 it favours long texts.
    pub length_penalty: f64,
    /// When the search ends.
    pub early: Early,
}

impl Default for Beams {
    /// One.
    fn default() -> Beams {
        Beams {
            width: 1,
            length_penalty: 1.0,
            early: Early::No,
        }
    }
}

impl Beams {
    /// What a model's files say.
    ///
    /// # Errors
    /// When a field is wrong.
    pub fn of(files: &Files) -> Result<Beams> {
        let Some(text) = files.get(GENERATION) else {
            return Ok(Beams::default());
        };
        let json: Json = serde_json::from_str(text).map_err(|e| files.wrong(GENERATION, e))?;
        let wrong = |field: &str| files.wrong(GENERATION, format!("{field} is {}", json[field]));
        let d = Beams::default();
        Ok(Beams {
            width: match &json["num_beams"] {
                Json::Null => d.width,
                n => n.as_u64().filter(|n| *n > 0).ok_or_else(|| wrong("num_beams"))? as usize,
            },
            length_penalty: match &json["length_penalty"] {
                Json::Null => d.length_penalty,
                x => x.as_f64().ok_or_else(|| wrong("length_penalty"))?,
            },
            early: match &json["early_stopping"] {
                Json::Null | Json::Bool(false) => Early::No,
                Json::Bool(true) => Early::Yes,
                Json::String(s) if s == "never" => Early::Never,
                _ => return Err(wrong("early_stopping")),
            },
        })
    }

    /// The score of a text of so many tokens.
    fn score(&self, sum: f32, tokens: usize) -> f32 {
        sum / (tokens as f64).powf(self.length_penalty) as f32
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The best text's tokens, without one that ends it.
    pub tokens: Vec<i64>,
    /// Its score.
    pub score: f32,
    /// Why it ended.
    pub end: End,
}

/// A text that grows.
#[derive(Clone, Default)]
struct Beam {
    /// The beam that it went on from.
    from: usize,
    /// What was generated.
    tokens: Vec<i64>,
    /// The sum of the logarithms of their probabilities.
    sum: f32,
    /// What holds it to a form.
    hold: Hold,
    /// True where nothing may follow.
    whole: bool,
}

impl Beam {
    /// The beam that a token makes of one; `ends` are tokens that end a text.
    fn with(&self, from: usize, token: i64, sum: f32, ends: &[i64]) -> Result<Beam> {
        let mut beam = Beam {
            from,
            tokens: [&self.tokens[..], &[token]].concat(),
            sum,
            hold: self.hold.clone(),
            whole: true,
        };
        beam.whole = ends.contains(&token) || beam.hold.push(token)?;
        Ok(beam)
    }
}

/// Searches the best text behind a prompt; of a model with an encoder the prompt is what the encoder reads.
///
/// # Errors
/// As of [`Generator::new`](super::Generator::new); when tokens are to be drawn, or there are more beams than tokens.
pub fn search(model: &Model, prompt: &[i64], beams: &Beams, settings: &Settings) -> Result<Found> {
    search_held(model, prompt, beams, settings, Hold::default())
}

/// The same of texts that are held to a form.
///
/// # Errors
/// As of [`search`]; when a grammar cannot be followed any further.
pub fn search_held(model: &Model, prompt: &[i64], beams: &Beams, settings: &Settings, hold: Hold) -> Result<Found> {
    let facts = model.facts();
    settings.sampling.validate().map_err(Error::Option)?;
    if settings.sampling.temperature > 0.0 {
        let message = "beams take the best tokens and draw none: temperature 0, or one beam";
        return Err(Error::Option(message.into()));
    }
    if !(1..=facts.vocabulary).contains(&beams.width) {
        let message = format!("{} beams, expected 1 to {}", beams.width, facts.vocabulary);
        return Err(Error::Option(message));
    }
    let (first, prompt) = begin(model, None, prompt)?;
    let left = facts.context.map_or(usize::MAX, |c| c - prompt.len());
    let most = settings.max_tokens.min(left);
    let ends: &[i64] = if settings.ignore_end { &[] } else { &facts.end };
    let held = !hold.is_free();
    // Even where all ways of a beam to end are among them, as many go on as there are beams.
    let looked_at = beams.width * (1 + ends.len()).max(2);
    let mut side = Side::new(model, &first, beams.width)?;
    let mut logits = side.start(&prompt)?;
    let mut sampler = Sampler::new(settings.sampling.clone(), prompt.len());
    let mut running = vec![Beam {
        hold,
        ..Beam::default()
    }];
    let mut finished: Vec<(f32, Beam)> = vec![];
    for n in 1..=most {
        let mut next = vec![];
        for (i, (beam, row)) in running
            .iter_mut()
            .zip(logits.chunks_exact_mut(facts.vocabulary))
            .enumerate()
        {
            log_softmax(row);
            row.copy_from_slice(sampler.adjusted(row, &[&prompt[..], &beam.tokens].concat()));
            beam.hold.mask(row)?;
            let may_follow = |p: &f32| !(p.is_nan() || held && *p == f32::NEG_INFINITY);
            let known = row.iter().enumerate().filter(|(_, p)| may_follow(p));
            next.extend(known.map(|(token, p)| (p + beam.sum, i, token)));
        }
        // The best first; of equal ones the first.
        let order =
            |a: &(f32, usize, usize), b: &(f32, usize, usize)| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)));
        if next.len() > looked_at {
            next.select_nth_unstable_by(looked_at, order);
            next.truncate(looked_at);
        }
        next.sort_unstable_by(order);
        let next = next.into_iter();
        let next = next.map(|(sum, from, token)| running[from].with(from, token as i64, sum, ends));
        let next: Vec<Beam> = next.collect::<Result<_>>()?;
        let done = next.iter().take(beams.width).filter(|b| b.whole || n == most);
        finished.extend(done.map(|b| (beams.score(b.sum, n), b.clone())));
        finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        finished.truncate(beams.width);
        running = next.into_iter().filter(|b| !b.whole).take(beams.width).collect();
        let best = running.iter().map(|b| b.sum).fold(f32::NEG_INFINITY, f32::max);
        let full = finished.len() == beams.width;
        let length = match beams.early {
            Early::Never if beams.length_penalty > 0.0 => most,
            _ => n,
        };
        let hopeless = full && finished.iter().all(|(score, _)| beams.score(best, length) <= *score);
        if n == most || running.is_empty() || hopeless || full && beams.early == Early::Yes {
            break;
        }
        logits = side.go_on(&prompt, &running)?;
    }
    let Some((score, mut best)) = finished.into_iter().next() else {
        return Err(Error::Option("a text of no tokens".into()));
    };
    let end = match (best.whole, most < settings.max_tokens) {
        (true, _) => End::Token,
        (false, true) => End::Context,
        (false, false) => End::Length,
    };
    if best.tokens.last().is_some_and(|t| ends.contains(t)) {
        best.tokens.pop();
    }
    Ok(Found {
        tokens: best.tokens,
        score,
        end,
    })
}

/// Beams side by side in a cache; another takes its place where beams go on from others.
struct Side<'m> {
    model: &'m Model,
    now: Cache,
    spare: Cache,
}

impl<'m> Side<'m> {
    /// For so many beams, which attend to what the sequences of another cache attend to.
    fn new(model: &'m Model, like: &Cache, width: usize) -> Result<Side<'m>> {
        let mut caches = [model.cache(width)?, model.cache(width)?];
        if let Some(encoded) = like.encoded() {
            caches.iter_mut().for_each(|c| c.attend_to(encoded.clone()));
        }
        let [now, spare] = caches;
        Ok(Side { model, now, spare })
    }

    /// Logits behind the prompt.
    fn start(&mut self, prompt: &[i64]) -> Result<Vec<f32>> {
        let slot = self.now.begin();
        let logits = self.model.step(&mut self.now, slot, prompt, 1)?;
        Ok(logits.as_slice::<f32>().expect("logits are f32").to_vec())
    }

    /// Logits behind each beam.
    fn go_on(&mut self, prompt: &[i64], beams: &[Beam]) -> Result<Vec<f32>> {
        let stays = self.now.len() == beams.len() && beams.iter().enumerate().all(|(i, b)| b.from == i);
        if !stays {
            for slot in (0..self.spare.len()).rev() {
                self.spare.end(slot);
            }
            for b in beams {
                let (_, before) = b.tokens.split_last().expect("a beam has a token");
                self.spare.begin_as((&self.now, b.from), &[prompt, before].concat())?;
            }
            std::mem::swap(&mut self.now, &mut self.spare);
        }
        let last: Vec<i64> = beams.iter().filter_map(|b| b.tokens.last().copied()).collect();
        let logits = self.model.step_all(&mut self.now, &last)?;
        Ok(logits.as_slice::<f32>().expect("logits are f32").to_vec())
    }
}

/// Logarithms of probabilities.
fn log_softmax(row: &mut [f32]) {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| (x - most).exp()).sum();
    let log = sum.ln();
    row.iter_mut().for_each(|x| *x = *x - most - log);
}
