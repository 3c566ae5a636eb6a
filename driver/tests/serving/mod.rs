//! What the tests of the server share: servers in this process, and a client that sees every byte.

// Each test file uses a part of this.
#![allow(dead_code)]

use brolga::Options;
use brolga::serve::{Server, Settings};
use serde_json::{Value as Json, json};
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// What follows "Emma was" by the best token.
pub const EMMA: &str =
    " not so very sorry she could have supposed it. She was not in the least the case, however, to be sure. She";

/// Messages as lines, and what a reply begins with. Tools are named.
pub const TEMPLATE: &str = "{% if tools %}{% for t in tools %}{{ t.function.name }} {% endfor %}{% endif %}\
    {% for m in messages %}{{ m.content }}{{ '\n' }}{% endfor %}";

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama")
}

/// A server in this process.
pub struct Running {
    pub address: SocketAddr,
    pub stop: Option<oneshot::Sender<()>>,
    pub thread: Option<JoinHandle<brolga::Result<()>>>,
}

impl Running {
    pub fn start(model: &Path, options: &Options, settings: Settings) -> Running {
        let server = Server::load(model, options, 1, settings).unwrap_or_else(|e| panic!("{e}"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let (stop, stopped) = oneshot::channel();
        Running {
            address: listener.local_addr().expect("it listens"),
            stop: Some(stop),
            thread: Some(thread::spawn(move || {
                server.run(listener, async {
                    let _ = stopped.await;
                })
            })),
        }
    }

    /// Asks it to stop.
    pub fn stop(&mut self) {
        let _ = self.stop.take().expect("it is stopped once").send(());
    }

    /// Waits until it has stopped.
    pub fn join(&mut self) {
        let thread = self.thread.take().expect("it is joined once");
        thread
            .join()
            .expect("it does not panic")
            .unwrap_or_else(|e| panic!("{e}"));
    }

    /// Sends a request and leaves the answer to be read.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it is sent");
        // A server that refuses a body need not read it.
        let _ = stream.write_all(body);
        BufReader::new(stream)
    }

    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut all = vec![];
        let mut reader = self.send(method, path, headers, body);
        reader.read_to_end(&mut all).expect("it answers");
        Answer::of(&String::from_utf8(all).expect("answers are text"))
    }

    pub fn post(&self, path: &str, body: &Json) -> Answer {
        self.ask("POST", path, "", body.to_string().as_bytes())
    }

    /// The answer to a request that is right.
    pub fn ok(&self, path: &str, body: &Json) -> Json {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        answer.json()
    }

    /// Posts what is refused with this status, for this field, and a message that has all of these; the error's code.
    pub fn refuses(&self, path: &str, body: &Json, status: u16, param: &str, needles: &[&str]) -> Json {
        let answer = self.post(path, body);
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, error["param"].as_str()),
            (status, Some(param)),
            "{body}: {error}"
        );
        let message = error["message"].as_str().expect("a message");
        assert!(needles.iter().all(|n| message.contains(n)), "{body}: {message}");
        assert_eq!(error["type"], "invalid_request_error");
        error["code"].clone()
    }

    /// The text of the only choice of a completion.
    pub fn text(&self, body: &Json) -> String {
        texts(&self.ok("/v1/completions", body)).remove(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.stop();
        }
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn of(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let body = match head.contains("transfer-encoding: chunked") {
            true => unchunked(body),
            false => body.to_owned(),
        };
        Answer {
            status: status.expect("a status"),
            head,
            body,
        }
    }

    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The events of a stream, whose end is told.
    pub fn events(&self) -> Vec<Json> {
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let data = self.body.lines().filter_map(|l| l.strip_prefix("data: "));
        let mut data: Vec<&str> = data.collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.iter()
            .map(|d| serde_json::from_str(d).expect("events are JSON"))
            .collect()
    }
}

/// The body of chunks, whose sizes count bytes.
pub fn unchunked(mut left: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = left.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        body += &rest[..size];
        left = rest[size..].trim_start_matches("\r\n");
    }
    body
}

/// The texts of an answer.
pub fn texts(answer: &Json) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("a list of choices").iter();
    let text = |c: &Json| {
        c["text"]
            .as_str()
            .or(c["message"]["content"].as_str())
            .map(str::to_owned)
    };
    choices.map(|c| text(c).expect("a text")).collect()
}

/// The texts of a stream's choices.
pub fn streamed(events: &[Json], n: usize) -> Vec<String> {
    let mut all = vec![String::new(); n];
    for c in events
        .iter()
        .flat_map(|e| e["choices"].as_array().expect("a list of choices"))
    {
        let piece = c["text"]
            .as_str()
            .or(c["delta"]["content"].as_str())
            .unwrap_or_default();
        all[c["index"].as_u64().expect("a number") as usize] += piece;
    }
    all
}

/// A copy of the small model with a template of chats.
pub fn chatty() -> tempfile::TempDir {
    chatty_with(TEMPLATE)
}

/// The same with another one.
pub fn chatty_with(template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room");
    let copy = dir.path().join("chatty");
    fs::create_dir(&copy).expect("there is room");
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        fs::copy(folder().join(name), copy.join(name)).expect("it is copied");
    }
    let settings = json!({ "chat_template": template }).to_string();
    fs::write(copy.join("tokenizer_config.json"), settings).expect("it is written");
    dir
}

/// One server for tests that do not mind each other.
pub fn server() -> &'static Running {
    static SERVER: LazyLock<Running> = LazyLock::new(|| {
        let dir = chatty();
        Running::start(&dir.path().join("chatty"), &Options::default(), Settings::new("chatty"))
    });
    &SERVER
}

pub fn own(settings: Settings) -> Running {
    Running::start(&folder(), &Options::default(), settings)
}
