//! A server that speaks OpenAI's interface: `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`, `GET /v1/models` and
//! `/health`.
//!
//! | module | what stands there |
//! | --- | --- |
//! | `api` | paths, and what is answered |
//! | `fields`, `wishes`, `prompts`, `forms` | what a request says |
//! | `writer`, `encoder` | the model: texts, or embeddings |
//! | `queue`, `engine` | requests that wait; the thread that computes all of them together |
//! | `text`, `drafts` | what is chosen of a text, and told; tokens that a smaller model proposes |
//! | `answer`, `stream`, `logprobs`, `refusal` | answers: whole, in pieces, with how likely tokens were, with what is wrong |
//! | `calling`, `call_grammar`, `calls` | tools that may be called, or have to be; calls in a reply |
//!
//! Invariants: a field that would change an answer is honoured or refused by name; a request that fails takes down no other that is not
//! computed in the same run.

mod answer;
mod api;
mod call_grammar;
mod calling;
mod calls;
mod drafts;
mod encoder;
mod engine;
mod fields;
mod forms;
mod logprobs;
mod prompts;
mod queue;
mod refusal;
mod stream;
mod text;
mod wishes;
mod writer;

use crate::generate::Model;
use crate::options::Options;
use crate::source::{self, Kind};
use crate::{Error, Result};
use api::Shared;
use axum::Router;
use axum::serve::ListenerExt;
use encoder::Encoder;
use engine::Engine;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use writer::Writer;

/// How a server works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the model is called.
    pub name: String,
    /// Sequences that are computed together at most.
    pub slots: usize,
    /// Requests that wait at most.
    pub queue: usize,
    /// Sequences that ended and are kept for prompts that begin alike.
    pub kept: usize,
    /// Bytes that a request may have.
    pub max_body: usize,
    /// What requests have to give as `Authorization: Bearer …`, but for `/health`.
    pub api_key: Option<String>,
    /// A smaller model of the same vocabulary, which proposes tokens that are checked together: one that [`Model::load`] takes.
    pub draft: Option<PathBuf>,
    /// Tokens that it proposes at once.
    pub draft_tokens: usize,
}

impl Settings {
    /// Those of a model that is called so: 4 slots, 64 requests that wait, 8 sequences kept, bodies of 4 MiB; no draft,
    /// or one of 4 tokens.
    pub fn new(name: impl Into<String>) -> Settings {
        Settings {
            name: name.into(),
            slots: 4,
            queue: 64,
            kept: 8,
            max_body: 4 << 20,
            api_key: None,
            draft: None,
            draft_tokens: 4,
        }
    }
}

/// What is served.
enum Served {
    /// A model that writes text.
    Writer(Box<Writer>),
    /// One that gives vectors of texts.
    Encoder(Box<Encoder>),
}

/// A server with its model.
pub struct Server {
    shared: Arc<Shared>,
}

impl Server {
    /// Reads and compiles a model: one that [`Model::load`] takes, or the folder of an encoder.
    ///
    /// # Errors
    /// When it cannot be read, is neither, has no tokenizer, or does not compile; when there are no slots, or the draft does not fit.
    pub fn load(path: impl AsRef<Path>, options: &Options, threads: usize, settings: Settings) -> Result<Server> {
        let path = path.as_ref();
        if settings.slots == 0 {
            return Err(Error::Option("a server without slots computes nothing".into()));
        }
        let encoder = match source::kind(path)? {
            Kind::Folder => Encoder::of(path, options, threads)?,
            _ => None,
        };
        let served = match encoder {
            Some(_) if settings.draft.is_some() => {
                return Err(Error::Option(
                    "an encoder writes no text that a draft could propose".into(),
                ));
            }
            Some(encoder) => Served::Encoder(Box::new(encoder)),
            None => {
                let model = Model::load(path, options, threads)?;
                let mut writer = Writer::new(model)?;
                if let Some(draft) = &settings.draft {
                    // A draft is as its folder has it.
                    let options = Options {
                        folder: Default::default(),
                        ..options.clone()
                    };
                    writer = writer.with_draft(Model::load(draft, &options, threads)?, settings.draft_tokens)?;
                }
                // A server is not started for one answer: what is damaged is told before it listens.
                writer.model.session().check_weights()?;
                Served::Writer(Box::new(writer))
            }
        };
        Ok(Server {
            shared: Arc::new(Shared::new(served, settings)),
        })
    }

    /// Answers requests until `stop` is ready. Those that there are then have their answers before it returns.
    ///
    /// # Errors
    /// When there is no memory for the slots, or the system gives no threads or sockets.
    pub fn run(self, listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let shared = &self.shared;
        let mut engine = match &shared.served {
            Served::Writer(w) => {
                let Settings { slots, kept, .. } = shared.settings;
                let engine = Engine::new(&w.model, &w.tokenizer, slots, kept)?;
                Some(match &w.draft {
                    Some((draft, most)) => engine.with_draft(draft, *most)?,
                    None => engine,
                })
            }
            Served::Encoder(_) => None,
        };
        let router = api::router(shared.clone());
        let answered = std::thread::scope(|scope| {
            if let Some(engine) = &mut engine {
                scope.spawn(|| engine.run(&shared.queue));
            }
            let answered = answer(listener, router, stop);
            shared.queue.close();
            answered
        });
        answered.map_err(|e| Error::Option(format!("the server cannot listen: {e}")))
    }
}

/// Answers on the calling thread: computing is done on others.
fn answer(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Pieces are sent as they come.
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).with_graceful_shutdown(stop).await
    })
}
