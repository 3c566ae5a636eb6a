//! The engine: one thread that computes all sequences, together.
//!
//! It goes in rounds. In each, prompts of waiting texts are computed, in chunks, for as long as there are free slots and less than a chunk's
//! tokens were computed; then one token of every running sequence. A prompt is computed in a cache of its own, which joins the others when it
//! is whole, so that those that run wait for a chunk at most. A sequence that ended leaves at once, and what it kept stays for prompts that
//! begin alike.
//!
//! With a draft (`drafts.rs`) a sequence takes several tokens of a round: those that were proposed and then chosen, and one more. The draft reads
//! a prompt before the model is through with it, a chunk of it at a time as well.
//!
//! Invariant: `running[i]` is the sequence in slot `i` of the cache.

use super::drafts::Drafts;
use super::queue::{Event, Queue, Sink, Wanted};
use super::refusal::{PANICKED, told};
use super::text::Text;
use crate::Result;
use crate::generate::cache::shared;
use crate::generate::text::Tokenizer;
use crate::generate::{Cache, Continuation, Model, Prefixes};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Tokens of prompts that are computed in a round, and at once: as many as [`Model::step`] computes at once.
const CHUNK: usize = 512;

/// The model and its sequences.
pub struct Engine<'m> {
    model: &'m Model,
    tokenizer: &'m Tokenizer,
    prefixes: Prefixes,
    /// Tokens of prompts that are computed in a round, and at once.
    chunk: usize,
    cache: Cache,
    running: Vec<Text<'m>>,
    starting: Option<Starting<'m>>,
    /// What proposes tokens.
    drafts: Option<Drafts<'m>>,
}

/// A sequence whose prompt is not whole yet.
struct Starting<'m> {
    text: Text<'m>,
    /// One sequence: what is computed.
    cache: Cache,
    /// The same of what proposes tokens.
    draft: Option<Cache>,
    /// Tokens that were there before.
    kept: usize,
}

impl<'m> Engine<'m> {
    /// An engine of so many slots, which keeps so many sequences that ended.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(model: &'m Model, tokenizer: &'m Tokenizer, slots: usize, kept: usize) -> Result<Engine<'m>> {
        Ok(Engine {
            model,
            tokenizer,
            prefixes: Prefixes::new(kept),
            chunk: CHUNK,
            cache: model.cache(slots)?,
            running: vec![],
            starting: None,
            drafts: None,
        })
    }

    /// The same with a model that proposes so many tokens at once.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn with_draft(self, model: &'m Model, most: usize) -> Result<Engine<'m>> {
        let drafts = Drafts::new(model, most, self.cache.slots(), self.prefixes.most())?;
        Ok(Engine {
            drafts: Some(drafts),
            ..self
        })
    }

    /// Computes what the queue has until it is closed and nothing runs any more.
    pub fn run(&mut self, queue: &Queue) {
        while !self.is_idle() || queue.wait() {
            self.guarded_round(queue);
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.starting.is_none()
    }

    /// A round, whose failure ends what runs and nothing else.
    fn guarded_round(&mut self, queue: &Queue) {
        match catch_unwind(AssertUnwindSafe(|| self.round(queue))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.fail(&told(&e)),
            Err(_) => self.fail(PANICKED),
        }
    }

    fn round(&mut self, queue: &Queue) -> Result<()> {
        let mut computed = 0;
        while computed < self.chunk && self.running.len() < self.cache.slots() {
            if self.starting.is_none() {
                self.starting = queue.pop().and_then(|(wanted, sink)| self.start(wanted, sink));
            }
            match self.starting.take() {
                Some(starting) => computed += self.prefill(starting)?,
                None => break,
            }
        }
        self.leave(|text| text.sink.gone());
        if self.running.is_empty() {
            return Ok(());
        }
        let proposed = self.propose()?;
        let n = 1 + proposed[0].len();
        let texts = self.running.iter().zip(&proposed);
        let tokens = texts.flat_map(|(text, proposed)| text.tokens.tokens().last().into_iter().chain(proposed));
        let tokens: Vec<i64> = tokens.copied().collect();
        let logits = self.model.step_several(&mut self.cache, &tokens, n)?;
        let logits = logits.as_slice::<f32>().expect("logits are f32");
        let size = self.model.facts().vocabulary;
        let rows = logits.chunks_exact(size * n).map(|rows| rows.chunks_exact(size));
        let texts = self.running.iter_mut().zip(&proposed).zip(rows);
        let ended: Vec<bool> = texts
            .map(|((text, proposed), rows)| text.advance(rows, proposed))
            .collect();
        if n > 1 {
            self.cut();
        }
        let mut ended = ended.into_iter();
        self.leave(|_| ended.next() == Some(true));
        Ok(())
    }

    /// What is proposed behind each sequence, as many tokens behind each.
    fn propose(&mut self) -> Result<Vec<Vec<i64>>> {
        let Some(drafts) = &mut self.drafts else {
            return Ok(vec![vec![]; self.running.len()]);
        };
        let texts: Vec<&[i64]> = self.running.iter().map(|text| text.tokens.tokens()).collect();
        // No sequence goes beyond the context, and one at least has a use for all.
        let context = self.model.facts().context.unwrap_or(usize::MAX);
        let longest = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        let texts_left = self.running.iter().map(|text| text.tokens.left());
        let wanted = texts_left.map(|left| left.saturating_sub(1)).max();
        drafts.propose(&texts, wanted.unwrap_or(0).min(context - longest))
    }

    /// Forgets what was proposed and not chosen.
    fn cut(&mut self) {
        for (slot, text) in self.running.iter().enumerate() {
            let tokens = text.tokens.tokens();
            let kept = shared(self.cache.tokens(slot), tokens);
            self.cache.truncate(slot, kept);
            if let Some(drafts) = &mut self.drafts {
                drafts.cut(slot, tokens);
            }
        }
    }

    /// What a text begins with, kept from others or empty; `None` where it cannot begin.
    fn start(&self, wanted: Wanted, sink: Sink) -> Option<Starting<'m>> {
        let prompt = &wanted.prompt[..];
        let begin = || -> Result<(Continuation, Cache, Option<Cache>)> {
            let mut tokens = Continuation::new(self.model.facts(), prompt, wanted.settings.clone())?;
            if let Some(constraint) = &wanted.constraint {
                tokens.hold_to(constraint.clone());
            }
            self.model.check(prompt.len(), prompt)?;
            // The last token is computed for its logits.
            let before = &prompt[..prompt.len() - 1];
            let cache = self.prefixes.take_beside(self.model, Some(&self.cache), before)?;
            let draft = self.drafts.as_ref().map(|d| d.begin(before)).transpose()?;
            Ok((tokens, cache, draft))
        };
        match begin() {
            Ok((tokens, cache, draft)) => {
                let kept = cache.tokens(0).len();
                Some(Starting {
                    text: Text::new(tokens, self.tokenizer, &wanted, sink),
                    cache,
                    draft,
                    kept,
                })
            }
            Err(e) => {
                sink.send(Event::Failed(told(&e)));
                None
            }
        }
    }

    /// Computes a chunk of a prompt, and its first token where that was the last; how many tokens that were.
    fn prefill(&mut self, mut starting: Starting<'m>) -> Result<usize> {
        if starting.text.sink.gone() {
            self.give_up(starting);
            return Ok(0);
        }
        let done = starting.cache.tokens(0).len();
        let prompt = starting.text.tokens.tokens();
        let rest = &prompt[done..];
        // One prompt that fails is not the others' fault.
        let read = match (&self.drafts, &mut starting.draft) {
            (Some(drafts), Some(cache)) => drafts.read(cache, &prompt[..prompt.len() - 1], self.chunk),
            _ => Ok(true),
        };
        let (n, whole) = (rest.len().min(self.chunk), rest.len() <= self.chunk);
        let logits = match read {
            // The draft computed a chunk, and is not through with what the model would be.
            Ok(false) if whole => {
                self.starting = Some(starting);
                return Ok(self.chunk);
            }
            Ok(_) => self.model.step(&mut starting.cache, 0, &rest[..n], 1),
            Err(e) => Err(e),
        };
        let logits = match logits {
            Ok(logits) => logits,
            Err(e) => {
                starting.text.sink.send(Event::Failed(told(&e)));
                return Ok(n);
            }
        };
        if !whole {
            self.starting = Some(starting);
            return Ok(n);
        }
        starting.text.sink.send(Event::Begun { kept: starting.kept });
        let row = logits.as_slice::<f32>().expect("logits are f32");
        if starting.text.advance([row].into_iter(), &[]) {
            self.give_up(starting);
            return Ok(n);
        }
        let cache = &starting.cache;
        self.cache.begin_as((cache, 0), cache.tokens(0))?;
        if let (Some(drafts), Some(cache)) = (&mut self.drafts, &starting.draft) {
            drafts.join(cache)?;
        }
        self.running.push(starting.text);
        Ok(n)
    }

    /// Keeps what was computed of a sequence that does not run.
    fn give_up(&self, starting: Starting<'m>) {
        self.prefixes.put(starting.cache);
        if let (Some(drafts), Some(cache)) = (&self.drafts, starting.draft) {
            drafts.put(cache);
        }
    }

    /// Ends the sequences that it is true of.
    fn leave(&mut self, ends: impl FnMut(&Text<'m>) -> bool) {
        let ended: Vec<bool> = self.running.iter().map(ends).collect();
        // From the last one on: the one that takes an ended one's slot stays.
        for slot in (0..ended.len()).rev().filter(|&slot| ended[slot]) {
            // Without memory nothing is kept, and nothing lost but time.
            let _ = self.prefixes.put_copy(self.model, &self.cache, slot);
            self.cache.end(slot);
            if let Some(drafts) = &mut self.drafts {
                drafts.end(slot);
            }
            self.running.swap_remove(slot);
        }
    }

    /// Ends all sequences: what a failed run left is not to be gone on from.
    fn fail(&mut self, message: &str) {
        let starting = self.starting.take().map(|s| s.text);
        for text in self.running.drain(..).chain(starting) {
            text.sink.send(Event::Failed(message.to_owned()));
        }
        while !self.cache.is_empty() {
            self.cache.end(self.cache.len() - 1);
        }
        if let Some(drafts) = &mut self.drafts {
            drafts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Events;
    use super::super::writer::Writer;
    use super::*;
    use crate::Options;
    use crate::generate::{Generator, Sampling, Settings};
    use std::sync::Arc;

    fn writer() -> Writer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny_llama");
        let model = Model::load(folder, &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"));
        Writer::new(model).unwrap_or_else(|e| panic!("{e}"))
    }

    fn wanted(prompt: &[i64], max_tokens: usize) -> Wanted {
        Wanted {
            prompt: Arc::from(prompt),
            settings: Settings {
                max_tokens,
                ignore_end: true,
                ..Settings::default()
            },
            constraint: None,
            likeliest: None,
            stops: vec![],
            goes_on: true,
        }
    }

    fn push(queue: &Queue, prompt: &[i64], max_tokens: usize) -> Events {
        queue.push(vec![wanted(prompt, max_tokens)]).expect("there is room")
    }

    /// The text that events tell of, and how many tokens its prompt had from others.
    fn text(mut events: Events) -> Result<(String, usize), String> {
        let (mut text, mut found) = (String::new(), 0);
        while let Some((_, event)) = events.blocking_recv() {
            match event {
                Event::Begun { kept } => found = kept,
                Event::Piece { text: piece, .. } => text += &piece,
                Event::Ended { .. } => return Ok((text, found)),
                Event::Failed(message) => return Err(message),
            }
        }
        Err("it was given up".into())
    }

    fn alone(w: &Writer, prompt: &[i64], n: usize) -> String {
        let settings = wanted(prompt, n).settings;
        let all = Generator::new(&w.model, None, prompt, settings).expect("it begins");
        let all: Vec<i64> = all.map(|t| t.expect("it runs")).collect();
        w.tokenizer.decode(&all).expect("it decodes")
    }

    /// Prompts that begin alike, of which the third has to wait for a slot; long ones come in between.
    #[test]
    fn sequences_come_and_go() {
        let w = writer();
        let mut engine = Engine::new(&w.model, &w.tokenizer, 2, 4).expect("there is memory");
        let queue = Queue::new(8);
        let prompts = ["Emma was", "Emma was not in the", "She had", "Emma was not"]
            .map(|p| w.tokenizer.encode(p, true).expect("it encodes"));
        let lengths = [20, 3, 12, 7];
        let asked: Vec<Events> = prompts.iter().zip(lengths).map(|(p, n)| push(&queue, p, n)).collect();
        let mut most = 0;
        queue.close();
        while !engine.is_idle() || queue.wait() {
            engine.guarded_round(&queue);
            most = most.max(engine.running.len());
            let lengths = engine.running.iter().map(|t| t.tokens.tokens().len() - 1);
            let kept = (0..engine.cache.len()).map(|slot| engine.cache.tokens(slot).len());
            assert!(lengths.eq(kept), "a sequence and its slot");
        }
        assert_eq!(most, 2);
        let found: Vec<_> = asked.into_iter().map(|e| text(e).expect("it ends")).collect();
        for ((found, prompt), n) in found.iter().zip(&prompts).zip(lengths) {
            assert_eq!(found.0, alone(&w, prompt, n));
        }
        // Of one that runs, of none, of one that ended or runs: all but what is new and the last token.
        let kept = found.iter().map(|f| f.1).collect::<Vec<_>>();
        assert_eq!(kept, [0, prompts[0].len(), 0, prompts[3].len() - 1]);
    }

    /// With a draft that proposes what is chosen, and with one that is often wrong: texts are the same, best tokens and drawn ones.
    #[test]
    fn drafts_change_no_text() {
        let w = writer();
        let mut options = Options::default();
        options.folder.weights = Some(brolga_frontend::safetensors::WeightType::Int4);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny_llama");
        let rough = Model::load(folder, &options, 1).unwrap_or_else(|e| panic!("{e}"));
        let prompts = ["Emma was", "Emma was not in the", "She had", "Emma was not"]
            .map(|p| w.tokenizer.encode(p, true).expect("it encodes"));
        let lengths = [40, 3, 200, 300];
        let run = |draft: Option<(&Model, usize)>, temperature: f32| {
            let mut engine = Engine::new(&w.model, &w.tokenizer, 2, 4).expect("there is memory");
            if let Some((model, most)) = draft {
                engine = engine.with_draft(model, most).expect("there is memory");
            }
            // Prompts are longer than that.
            engine.chunk = 3;
            let queue = Queue::new(8);
            let asked = prompts.iter().zip(lengths).map(|(p, n)| {
                let mut wanted = wanted(p, n);
                (wanted.settings.sampling.temperature, wanted.settings.sampling.seed) = (temperature, n as u64);
                queue.push(vec![wanted]).expect("there is room")
            });
            let asked: Vec<Events> = asked.collect();
            queue.close();
            let mut rounds = 0;
            while !engine.is_idle() || queue.wait() {
                engine.guarded_round(&queue);
                rounds += 1;
                let lengths = engine.running.iter().map(|t| t.tokens.tokens().len() - 1);
                let kept = (0..engine.cache.len()).map(|slot| engine.cache.tokens(slot).len());
                assert!(lengths.eq(kept), "a sequence and its slot");
            }
            let texts: Vec<_> = asked.into_iter().map(|e| text(e).expect("it ends")).collect();
            (texts, rounds)
        };
        for temperature in [0.0, 1.0] {
            let (expected, most) = run(None, temperature);
            for (model, n, less) in [
                (&w.model, 4, temperature == 0.0),
                (&rough, 3, false),
                (&w.model, 1, false),
            ] {
                let (texts, rounds) = run(Some((model, n)), temperature);
                assert_eq!(texts, expected);
                assert!(rounds < most, "{rounds} of {most}");
                assert!(!less || rounds * 4 < most + 40, "{rounds} of {most}");
            }
        }
    }

    /// Texts of two grammars in the same rounds, each with a state of its own, beside one of none.
    #[test]
    fn texts_of_forms_beside_others() {
        use crate::generate::grammar::{Grammar, Grammars};
        let w = writer();
        let grammars = Grammars::of(&w.tokenizer, w.model.facts()).expect("there are");
        let mut engine = Engine::new(&w.model, &w.tokenizer, 4, 0).expect("there is memory");
        let queue = Queue::new(8);
        let free = push(&queue, &[37, 690, 305], 40);
        let held = |regex: &str, seed: u64| {
            let mut wanted = wanted(&[37, 690, 305], 60);
            wanted.settings.sampling = Sampling {
                temperature: 1.5,
                seed,
                ..Sampling::default()
            };
            wanted.constraint = Some(grammars.constraint(&Grammar::Regex(regex.into())).expect("it is right"));
            queue.push(vec![wanted]).expect("there is room")
        };
        let asked = [held("[0-9]{12}", 1), held("[0-9]{12}", 2), held("([a-z]{3}-){5}", 1)];
        engine.guarded_round(&queue);
        assert_eq!(engine.running.len(), 4, "they run together");
        queue.close();
        engine.run(&queue);
        let [a, b, c] = asked.map(|events| text(events).expect("it ends").0);
        for digits in [&a, &b] {
            assert!(
                digits.len() == 12 && digits.bytes().all(|d| d.is_ascii_digit()),
                "{digits}"
            );
        }
        assert_ne!(a, b);
        let words: Vec<&str> = c.split('-').collect();
        let letters = |w: &&str| w.len() == 3 && w.bytes().all(|b| b.is_ascii_lowercase());
        assert!(words.len() == 6 && words[..5].iter().all(letters), "{c}");
        assert_eq!(text(free), Ok((alone(&w, &[37, 690, 305], 40), 0)));
    }

    #[test]
    fn long_prompts_let_others_run() {
        let w = writer();
        let mut engine = Engine::new(&w.model, &w.tokenizer, 3, 0).expect("there is memory");
        engine.chunk = 64;
        let queue = Queue::new(8);
        let short = push(&queue, &[37, 690, 305], 20);
        engine.guarded_round(&queue);
        let long: Vec<i64> = (0..200).map(|i| 300 + i).collect();
        let asked = [push(&queue, &long, 4), push(&queue, &long[1..], 4)];
        let mut tokens = vec![];
        while !engine.is_idle() {
            engine.guarded_round(&queue);
            let done = |s: &Starting| s.cache.tokens(0).len();
            tokens.push((engine.running.len(), engine.starting.as_ref().map_or(0, done)));
        }
        // Chunks of the one that starts beside those that run; what is left of a round begins the next.
        assert_eq!(tokens[..4], [(1, 64), (1, 128), (1, 192), (2, 64)]);
        assert_eq!(tokens.len(), 18, "the short one goes on in every round");
        assert_eq!(text(short), Ok((alone(&w, &[37, 690, 305], 20), 0)));
        for (events, prompt) in asked.into_iter().zip([&long[..], &long[1..]]) {
            assert_eq!(text(events), Ok((alone(&w, prompt, 4), 0)));
        }
    }

    #[test]
    fn who_goes_away_ends_the_sequence() {
        let w = writer();
        let mut engine = Engine::new(&w.model, &w.tokenizer, 1, 1).expect("there is memory");
        let queue = Queue::new(8);
        let first = push(&queue, &[37, 690, 305], 200);
        let second = push(&queue, &[37, 690], 200);
        let third = push(&queue, &[37, 690, 305, 314], 1);
        engine.guarded_round(&queue);
        assert_eq!(engine.running.len(), 1);
        drop((first, second));
        queue.close();
        engine.run(&queue);
        assert_eq!(text(third), Ok((alone(&w, &[37, 690, 305, 314], 1), 3)));
    }

    #[test]
    fn a_panic_ends_what_runs_and_nothing_else() {
        let w = writer();
        let mut engine = Engine::new(&w.model, &w.tokenizer, 2, 1).expect("there is memory");
        let queue = Queue::new(8);
        let [gone, stays] = [200, 201].map(|n| push(&queue, &[37, 690, 305], n));
        engine.guarded_round(&queue);
        assert_eq!(engine.running.len(), 2);
        // Slots that are lost panic when a sequence leaves.
        engine.cache.end(1);
        engine.cache.end(0);
        drop(gone);
        engine.guarded_round(&queue);
        assert!(engine.is_idle());
        assert_eq!(text(stays), Err(PANICKED.to_owned()));
        let next = push(&queue, &[37, 690, 305], 3);
        queue.close();
        engine.run(&queue);
        assert_eq!(text(next), Ok((alone(&w, &[37, 690, 305], 3), 0)));
        // A run that fails without a panic.
        let queue = Queue::new(1);
        let fails = push(&queue, &[37, 690, 305], 200);
        engine.guarded_round(&queue);
        engine.cache.end(0);
        engine.guarded_round(&queue);
        assert_eq!(text(fails), Err("1 tokens for 0 sequences".into()));
    }
}
