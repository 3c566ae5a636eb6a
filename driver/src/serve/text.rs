//! A text that the engine computes: which tokens are chosen, and what is told of them.

use super::queue::{Event, Sink, Told, Wanted};
use super::refusal::told;
use crate::Result;
use crate::generate::reply::{Finish, Pieces};
use crate::generate::text::Tokenizer;
use crate::generate::{Continuation, Likelihood};

/// A text on its way.
pub struct Text<'m> {
    /// The prompt, and what was chosen.
    pub tokens: Continuation,
    pieces: Pieces<'m>,
    /// How many of the likeliest tokens are told with each, where it is told how likely they were.
    likeliest: Option<usize>,
    /// Tokens whose text was not shown yet, where it is.
    told: Vec<Told>,
    /// Where its events go.
    pub sink: Sink,
}

impl<'m> Text<'m> {
    /// Nothing yet behind the prompt of what is wanted.
    pub fn new(tokens: Continuation, tokenizer: &'m Tokenizer, wanted: &Wanted, sink: Sink) -> Text<'m> {
        let before = if wanted.goes_on { &wanted.prompt[..] } else { &[] };
        Text {
            tokens,
            pieces: Pieces::new(tokenizer, before, &wanted.stops),
            likeliest: wanted.likeliest,
            told: vec![],
            sink,
        }
    }

    /// Takes logits behind its tokens, and behind each of those that were proposed as long as they are chosen; true when it ended.
    pub fn advance<'l>(&mut self, rows: impl Iterator<Item = &'l [f32]>, proposed: &[i64]) -> bool {
        let mut proposed = proposed.iter();
        for row in rows {
            if self.step(row) {
                return true;
            }
            if proposed.next() != self.tokens.tokens().last() {
                break;
            }
        }
        false
    }

    /// Takes logits; true when it ended.
    fn step(&mut self, logits: &[f32]) -> bool {
        match self.next(logits) {
            Ok(None) => false,
            Ok(Some(finish)) => {
                let tokens = self.tokens.generated().len();
                self.sink.send(Event::Ended { finish, tokens });
                true
            }
            Err(e) => {
                self.sink.send(Event::Failed(told(&e)));
                true
            }
        }
    }

    fn next(&mut self, logits: &[f32]) -> Result<Option<Finish>> {
        if let Some(token) = self.tokens.choose(logits)? {
            if let Some(best) = self.likeliest {
                self.told.push(Told {
                    likelihood: Likelihood::of(logits, token, best),
                    offset: self.pieces.given(),
                });
            }
            let (piece, stopped) = self.pieces.push(token)?;
            self.show(piece, stopped);
            if stopped {
                return Ok(Some(Finish::Stop));
            }
        }
        if self.tokens.end().is_none() {
            return Ok(None);
        }
        let (rest, finish) = self.pieces.rest(self.tokens.end())?;
        self.show(rest, true);
        Ok(Some(finish))
    }

    /// Shows a piece with the tokens whose text begins in what is shown, and at the end all that are left, but for those of a text that ended it.
    fn show(&mut self, text: String, ended: bool) {
        let shown = self.pieces.shown();
        let n = match ended && !self.pieces.stopped() {
            true => self.told.len(),
            false => self.told.iter().take_while(|t| t.offset < shown).count(),
        };
        let tokens: Vec<Told> = self.told.drain(..n).collect();
        if !text.is_empty() || !tokens.is_empty() {
            self.sink.send(Event::Piece { text, tokens });
        }
    }
}
