//! The paths that the server answers.

use super::answer::now;
use super::encoder::Encoder;
use super::fields::Fields;
use super::queue::{Closed, Queue};
use super::refusal::{Refusal, answer};
use super::stream::Pieces;
use super::writer::{Prepared, Writer};
use super::{Served, Settings};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// What every request sees.
pub struct Shared {
    pub served: Served,
    pub settings: Settings,
    /// Requests for texts.
    pub queue: Queue,
    /// Room for requests for embeddings.
    pub room: Semaphore,
    /// Since when it runs.
    created: u64,
}

impl Shared {
    pub fn new(served: Served, settings: Settings) -> Shared {
        Shared {
            queue: Queue::new(settings.queue),
            room: Semaphore::new(settings.queue),
            created: now(),
            served,
            settings,
        }
    }

    fn writer(&self) -> Result<&Writer, Refusal> {
        match &self.served {
            Served::Writer(writer) => Ok(writer),
            Served::Encoder(_) => Err(Refusal::bad(
                "this model is an encoder: it writes no text; /v1/embeddings gives vectors of texts",
            )),
        }
    }

    fn encoder(&self) -> Result<&Encoder, Refusal> {
        match &self.served {
            Served::Encoder(encoder) => Ok(encoder),
            Served::Writer(_) => Err(Refusal::bad(
                "this model writes text and has no embeddings; serve the folder of an encoder (BERT, RoBERTa, DistilBERT)",
            )),
        }
    }

    /// A request's fields, but for the model, which has to be the one that there is.
    fn fields(&self, body: Result<Bytes, BytesRejection>) -> Result<Fields, Refusal> {
        let body = body.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the body has more than {} bytes", self.settings.max_body);
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            _ => Refusal::bad(e.body_text()),
        })?;
        let mut fields = Fields::read(&body)?;
        if let Some(name) = fields.text("model")? {
            self.named(&name)?;
        }
        Ok(fields)
    }

    fn named(&self, name: &str) -> Result<(), Refusal> {
        if name == self.settings.name {
            return Ok(());
        }
        let message = format!("there is no model `{name}`; this server has `{}`", self.settings.name);
        Err(Refusal {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Refusal::new(StatusCode::NOT_FOUND, message)
        })
    }

    fn model(&self) -> Json {
        json!({ "id": self.settings.name, "object": "model", "created": self.created, "owned_by": "brolga" })
    }
}

/// The paths, and what is answered to others.
pub fn router(shared: Arc<Shared>) -> Router {
    let keyed = middleware::from_fn_with_state(shared.clone(), with_key);
    let largest = DefaultBodyLimit::max(shared.settings.max_body);
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(keyed)
        .route("/health", get(health).fallback(wrong_method))
        .layer(largest)
        .with_state(shared)
}

type Body = Result<Bytes, BytesRejection>;

async fn chat(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Refusal> {
    texts(shared, body, Writer::chat).await
}

async fn completion(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Refusal> {
    texts(shared, body, Writer::completion).await
}

/// Answers a request for texts.
async fn texts(
    shared: Arc<Shared>,
    body: Body,
    prepare: fn(&Writer, &str, Fields) -> Result<Prepared, Refusal>,
) -> Result<Response, Refusal> {
    let of = shared.clone();
    let prepared = aside(move || prepare(of.writer()?, &of.settings.name, of.fields(body)?)).await?;
    let Prepared {
        texts,
        answer: mut reply,
        stream,
    } = prepared;
    let mut events = shared.queue.push(texts).map_err(|closed| match closed {
        Closed::Full => Refusal::busy(),
        Closed::Stopping => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
    })?;
    let first = next(&mut events).await?;
    if stream {
        return Ok(Sse::new(Pieces::new(reply, events, first)?).into_response());
    }
    reply.take(first.0, first.1)?;
    while !reply.is_whole() {
        let (text, event) = next(&mut events).await?;
        reply.take(text, event)?;
    }
    Ok(answer(StatusCode::OK, &reply.whole()))
}

async fn next<T>(events: &mut mpsc::UnboundedReceiver<T>) -> Result<T, Refusal> {
    events.recv().await.ok_or_else(Refusal::lost)
}

async fn embeddings(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Refusal> {
    let of = shared.clone();
    let _room = shared.room.try_acquire().map_err(|_| Refusal::busy())?;
    let found = aside(move || of.encoder()?.answer(&of.settings.name, of.fields(body)?)).await?;
    Ok(answer(StatusCode::OK, &found))
}

/// Computes what takes long beside the threads that answer.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Refusal::lost()))
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, &json!({ "object": "list", "data": [shared.model()] }))
}

async fn model(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Result<Response, Refusal> {
    shared.named(&name)?;
    Ok(answer(StatusCode::OK, &shared.model()))
}

async fn health() -> Response {
    answer(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn unknown(request: Request) -> Refusal {
    let message = format!("there is no path {}", request.uri().path());
    Refusal::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method(request: Request) -> Refusal {
    let message = format!("{} is not for {}", request.method(), request.uri().path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// Lets requests through that have the key, where there is one.
async fn with_key(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
    match &shared.settings.api_key {
        Some(key) if !given.is_some_and(|given| same(given, key)) => Refusal {
            code: Some("invalid_api_key"),
            ..Refusal::new(
                StatusCode::UNAUTHORIZED,
                "expected `Authorization: Bearer KEY` with the server's key",
            )
        }
        .into_response(),
        _ => next.run(request).await,
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
