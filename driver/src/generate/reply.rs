//! A text behind a prompt, piece by piece as it is generated.

use super::generator::{End, Generator};
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

/// An iterator of pieces of text, none of them empty. It ends after an error.
pub struct Reply<'m, 't> {
    generator: Generator<'m>,
    stream: TextStream<'t>,
    stops: Stops,
    finish: Option<Finish>,
}

impl<'m, 't> Reply<'m, 't> {
    /// The text of what a generator gives, which ends before any of these texts. It goes on behind the text of `before`, which is empty where
    /// the reply is a text of its own.
    pub fn new(generator: Generator<'m>, tokenizer: &'t Tokenizer, before: &[i64], stops: &[String]) -> Reply<'m, 't> {
        Reply {
            generator,
            stream: tokenizer.stream_behind(before),
            stops: Stops::new(stops),
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
                // What was held back is a text after all.
                let rest = self.stream.rest()?;
                let (mut last, stopped) = self.stops.push(&rest);
                if !stopped {
                    last += &self.stops.rest();
                }
                let length = matches!(self.generator.end(), Some(End::Length | End::Context)) && !stopped;
                self.finish = Some(if length { Finish::Length } else { Finish::Stop });
                return Ok(Some(last).filter(|l| !l.is_empty()));
            };
            let (piece, stopped) = self.stops.push(&self.stream.push(token?)?);
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
