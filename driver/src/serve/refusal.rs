//! Requests that are not answered as they wish, in the shape of OpenAI's errors: `{"error": {"message", "type", "param", "code"}}`.

use crate::Error;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

/// Seconds after which a client may ask again when there is no room.
const RETRY_AFTER: &str = "1";

/// What is told of a panic.
pub const PANICKED: &str = "the computation panicked";

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// What is wrong, and where there is one, the way out.
    pub message: String,
    /// The field that it is about.
    pub param: Option<String>,
    /// A name that programs can tell it by.
    pub code: Option<&'static str>,
}

impl Refusal {
    /// One with a status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A request that makes no sense.
    pub fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that makes no sense, or asks for what there is not.
    pub fn field(name: &str, message: impl std::fmt::Display) -> Refusal {
        Refusal {
            param: Some(name.to_owned()),
            ..Refusal::bad(format!("{name}: {message}"))
        }
    }

    /// What went wrong here.
    pub fn failed(message: impl std::fmt::Display) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message.to_string())
    }

    /// A text that ended without a word.
    pub fn lost() -> Refusal {
        Refusal::failed(PANICKED)
    }

    /// As many requests wait as may.
    pub fn busy() -> Refusal {
        Refusal {
            code: Some("queue_full"),
            ..Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "as many requests wait as may; ask again later",
            )
        }
    }

    /// The body of the answer.
    pub fn json(&self) -> Json {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            s if s.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = answer(self.status, &self.json());
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

/// An answer in JSON.
pub fn answer(status: StatusCode, body: &Json) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}

/// What is wrong, without the paths of this machine's files.
pub fn told(e: &Error) -> String {
    match e {
        Error::File { message, .. } => message.clone(),
        e => e.to_string(),
    }
}
