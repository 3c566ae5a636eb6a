//! Requests that wait for the engine, which takes one text of them after the other.

use crate::generate::grammar::Constraint;
use crate::generate::reply::Finish;
use crate::generate::{Likelihood, Settings};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// One text that a request asks for.
pub struct Wanted {
    /// The tokens before it.
    pub prompt: Arc<[i64]>,
    /// How it is chosen.
    pub settings: Settings,
    /// What it is held to.
    pub constraint: Option<Constraint>,
    /// How many of the likeliest tokens are told with each, where it is told how likely they were.
    pub likeliest: Option<usize>,
    /// Texts that end it.
    pub stops: Vec<String>,
    /// True where it goes on from the prompt's last word, false where it is a text of its own.
    pub goes_on: bool,
}

/// A token that is told beside its text.
#[derive(Clone, Debug)]
pub struct Told {
    /// How likely it was.
    pub likelihood: Likelihood,
    /// Characters of the text before it.
    pub offset: usize,
}

/// What becomes of a text.
#[derive(Debug)]
pub enum Event {
    /// Its prompt is computed, but for so many tokens that were kept from texts before.
    Begun {
        /// Tokens that were kept.
        kept: usize,
    },
    /// More of it.
    Piece {
        /// What is to be shown.
        text: String,
        /// The tokens whose text begins there, where it is told how likely they were.
        tokens: Vec<Told>,
    },
    /// It ended, after so many tokens.
    Ended {
        /// Why.
        finish: Finish,
        /// Tokens that were generated.
        tokens: usize,
    },
    /// It came to nothing.
    Failed(String),
}

/// Where the events of one of a request's texts go.
#[derive(Clone)]
pub struct Sink {
    text: usize,
    events: UnboundedSender<(usize, Event)>,
}

impl Sink {
    /// Sends an event. Where nobody listens any more, [`Sink::gone`] says so.
    pub fn send(&self, event: Event) {
        let _ = self.events.send((self.text, event));
    }

    /// True when who asked has gone away.
    pub fn gone(&self) -> bool {
        self.events.is_closed()
    }
}

/// Events of a request's texts, each with the number of its text.
pub type Events = UnboundedReceiver<(usize, Event)>;

/// Why a request does not come into the queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Closed {
    /// As many wait as may.
    Full,
    /// The server is stopping.
    Stopping,
}

struct Waiting {
    texts: VecDeque<Wanted>,
    sink: Sink,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

/// Requests that wait, at most so many.
pub struct Queue {
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// An empty one.
    pub fn new(most: usize) -> Queue {
        Queue {
            most,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request; dropping what it gives is going away.
    ///
    /// # Errors
    /// When there is no room, or the queue is closed.
    pub fn push(&self, texts: Vec<Wanted>) -> Result<Events, Closed> {
        let mut state = self.state();
        if state.closed {
            return Err(Closed::Stopping);
        }
        state.waiting.retain(|w| !w.sink.gone());
        if state.waiting.len() >= self.most {
            return Err(Closed::Full);
        }
        let (events, receiver) = unbounded_channel();
        state.waiting.push_back(Waiting {
            texts: texts.into(),
            sink: Sink { text: 0, events },
        });
        self.changed.notify_all();
        Ok(receiver)
    }

    /// The next text, and where its events go.
    pub fn pop(&self) -> Option<(Wanted, Sink)> {
        let mut state = self.state();
        state.waiting.retain(|w| !w.sink.gone());
        let first = state.waiting.front_mut()?;
        let sink = first.sink.clone();
        first.sink.text += 1;
        let wanted = first.texts.pop_front();
        if first.texts.is_empty() {
            state.waiting.pop_front();
        }
        wanted.map(|w| (w, sink))
    }

    /// Waits for a request; false when the queue is closed and there will be none.
    pub fn wait(&self) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.waiting.is_empty()
    }

    /// Takes no more requests. Those that wait still have their turn.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            prompt: Arc::from([1]),
            settings: Settings::default(),
            constraint: None,
            likeliest: None,
            stops: vec![],
            goes_on: true,
        }
    }

    #[test]
    fn requests_wait_in_order_for_as_many_as_may() {
        let queue = Queue::new(2);
        let _first = queue.push(vec![wanted(), wanted()]).expect("there is room");
        let second = queue.push(vec![wanted()]).expect("there is room");
        assert_eq!(queue.push(vec![wanted()]).err(), Some(Closed::Full));
        let text = |queue: &Queue| queue.pop().map(|(_, sink)| sink.text);
        assert_eq!(text(&queue), Some(0));
        assert_eq!(
            queue.push(vec![wanted()]).err(),
            Some(Closed::Full),
            "a half of it still waits"
        );
        assert_eq!(text(&queue), Some(1));
        let _third = queue.push(vec![wanted()]).expect("there is room again");
        drop(second);
        let _fourth = queue.push(vec![wanted()]).expect("who has gone does not wait");
        queue.close();
        assert_eq!(queue.push(vec![wanted()]).err(), Some(Closed::Stopping));
        assert!(queue.wait());
        assert_eq!([text(&queue), text(&queue), text(&queue)], [Some(0), Some(0), None]);
        assert!(!queue.wait());
    }
}
