//! A text behind a prompt, piece by piece as it is generated.

use super::continuation::End;
use super::generator::Generator;
use super::stop::Stops;
use super::text::{TextStream, Tokenizer};
use crate::Result;

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or it came to a text that ends it.
    Stop,
    /// It is as long as it may be.
    Length,
}

impl Finish {
    /// As OpenAI's interface calls it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// The text of tokens that come one after the other, which ends before any of some texts.
pub struct Pieces<'t> {
    stream: TextStream<'t>,
    stops: Stops,
    /// Characters that tokens gave, and that were shown of them.
    given: usize,
    shown: usize,
    stopped: bool,
}

impl<'t> Pieces<'t> {
    /// Nothing yet, behind the text of `before`, which is empty where it is a text of its own.
    pub fn new(tokenizer: &'t Tokenizer, before: &[i64], stops: &[String]) -> Pieces<'t> {
        Pieces {
            stream: tokenizer.stream_behind(before),
            stops: Stops::new(stops),
            given: 0,
            shown: 0,
            stopped: false,
        }
    }

    /// Characters of the whole text so far, that are held back included: where the next token's text begins.
    pub fn given(&self) -> usize {
        self.given
    }

    /// Characters that were shown.
    pub fn shown(&self) -> usize {
        self.shown
    }

    /// True when it came to a text that ends it.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token: what can be shown now, and whether the text ends behind that.
    ///
    /// # Errors
    /// When the tokenizer does not take it.
    pub fn push(&mut self, token: i64) -> Result<(String, bool)> {
        let text = self.stream.push(token)?;
        Ok(self.watch(&text))
    }

    fn watch(&mut self, text: &str) -> (String, bool) {
        self.given += text.chars().count();
        let (shown, stopped) = self.stops.push(text);
        self.shown += shown.chars().count();
        self.stopped |= stopped;
        (shown, stopped)
    }

    /// What was held back, which is a text after all where tokens ended for this reason; and why the text ended.
    ///
    /// # Errors
    /// As [`Pieces::push`].
    pub fn rest(&mut self, end: Option<End>) -> Result<(String, Finish)> {
        let text = self.stream.rest()?;
        let (mut last, stopped) = self.watch(&text);
        if !stopped {
            let held = self.stops.rest();
            self.shown += held.chars().count();
            last += &held;
        }
        let length = matches!(end, Some(End::Length | End::Context)) && !stopped;
        Ok((last, if length { Finish::Length } else { Finish::Stop }))
    }
}

/// An iterator of pieces of text, none of them empty. It ends after an error.
pub struct Reply<'m, 't> {
    generator: Generator<'m>,
    pieces: Pieces<'t>,
    finish: Option<Finish>,
}

impl<'m, 't> Reply<'m, 't> {
    /// The text of what a generator gives, which ends before any of these texts. It goes on behind the text of `before`, which is empty where
    /// the reply is a text of its own.
    pub fn new(generator: Generator<'m>, tokenizer: &'t Tokenizer, before: &[i64], stops: &[String]) -> Reply<'m, 't> {
        Reply {
            generator,
            pieces: Pieces::new(tokenizer, before, stops),
            finish: None,
        }
    }

    /// The tokens behind it.
    pub fn generator(&self) -> &Generator<'m> {
        &self.generator
    }

    /// Why it ended; `None` while it goes on.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    fn advance(&mut self) -> Result<Option<String>> {
        while self.finish.is_none() {
            let Some(token) = self.generator.next() else {
                let (last, finish) = self.pieces.rest(self.generator.end())?;
                self.finish = Some(finish);
                return Ok(Some(last).filter(|l| !l.is_empty()));
            };
            let (piece, stopped) = self.pieces.push(token?)?;
            if stopped {
                self.finish = Some(Finish::Stop);
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

impl Iterator for Reply<'_, '_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        let next = self.advance();
        if next.is_err() {
            self.finish = Some(Finish::Stop);
        }
        next.transpose()
    }
}
