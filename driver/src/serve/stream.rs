//! An answer as server-sent events: `data: {…}` for each piece, `data: [DONE]` at the end.

use super::answer::Answer;
use super::queue::{Event, Events};
use super::refusal::Refusal;
use axum::response::sse;
use futures_core::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What ends a stream.
const DONE: &str = "[DONE]";

/// Events of an answer as they come.
pub struct Pieces {
    answer: Answer,
    events: Events,
    /// What is to be said.
    said: VecDeque<String>,
    ended: bool,
}

impl Pieces {
    /// The events behind the first.
    ///
    /// # Errors
    /// When the first is a failure.
    pub fn new(answer: Answer, events: Events, (text, first): (usize, Event)) -> Result<Pieces, Refusal> {
        let mut pieces = Pieces {
            answer,
            events,
            said: VecDeque::new(),
            ended: false,
        };
        pieces.take(text, first)?;
        Ok(pieces)
    }

    fn take(&mut self, text: usize, event: Event) -> Result<(), Refusal> {
        let said = self.answer.take(text, event)?;
        self.said.extend(said.iter().map(ToString::to_string));
        if self.answer.is_whole() {
            self.said.extend(self.answer.last().map(|last| last.to_string()));
            self.said.push_back(DONE.into());
            self.ended = true;
        }
        Ok(())
    }
}

impl Stream for Pieces {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Poll::Ready(Some(Ok(sse::Event::default().data(said))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let taken = match ready!(self.events.poll_recv(context)) {
                Some((text, event)) => self.take(text, event),
                None => Err(Refusal::lost()),
            };
            if let Err(refusal) = taken {
                self.said.push_back(refusal.json().to_string());
                self.ended = true;
            }
        }
    }
}
