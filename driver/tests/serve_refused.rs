//! The server where things go wrong: requests that make no sense, limits, clients that go away, runs that fail, and stops.

#![cfg(feature = "serve")]

mod common;
mod serving;

use brolga::Options;
use brolga::generate::Model;
use brolga::serve::Settings;
use serde_json::{Value as Json, json};
use serving::{Answer, EMMA, Running, folder, own, server, texts};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[test]
fn what_is_wrong_is_told() {
    let s = server();
    let refused = |path: &str, body: &Json, status: u16, param: &str, message: &str| {
        s.refuses(path, body, status, param, &[message])
    };
    let text = |field: &str, value: Json, message: &str| {
        let mut body = json!({ "prompt": "Emma", "max_tokens": 1 });
        body[field] = value;
        refused("/v1/completions", &body, 400, field, message)
    };
    text("temperature", json!(-1), "temperature -1, expected 0 or more");
    text("temperature", json!("hot"), "\"hot\", expected a number");
    text("top_p", json!(0), "expected above 0, at most 1");
    text("max_tokens", json!(-1), "expected a whole number from 0 on");
    text("n", json!(0), "expected 1 to 128");
    text("stop", json!([1]), "expected a text or a list of texts");
    text("stream", json!("yes"), "expected true or false");
    text("logit_bias", json!({ "a": 1 }), "a token's number");
    text("echo", json!(true), "true is not supported");
    text("best_of", json!(2), "2 is not supported");
    text("suffix", json!("the end"), "not supported");
    text("grammar", json!("root"), "this field is not supported");
    text("prompt", json!(""), "it is empty");
    text("prompt", json!([]), "it is empty");
    text("prompt", json!({}), "expected a text");
    text("prompt", json!([5, 5000]), "token 5000, of a vocabulary of 1024");
    let long = text(
        "prompt",
        json!("word ".repeat(300)),
        "beyond the model's context of 256",
    );
    assert_eq!(long, "context_length_exceeded");
    refused("/v1/completions", &json!({}), 400, "prompt", "it is missing");
    refused(
        "/v1/completions",
        &json!({ "prompt": "a", "stream_options": { "what": 1 } }),
        400,
        "stream_options.what",
        "not supported",
    );
    let other = refused(
        "/v1/completions",
        &json!({ "prompt": "a", "model": "gpt" }),
        404,
        "model",
        "there is no model `gpt`",
    );
    assert_eq!(other, "model_not_found");
    let chat = |field: &str, value: Json, message: &str| {
        let mut body = json!({ "messages": [{ "role": "user", "content": "Emma" }], "max_tokens": 1 });
        body[field] = value;
        refused("/v1/chat/completions", &body, 400, field, message)
    };
    chat("messages", json!([]), "a list with a message or more");
    chat("messages", json!(["a"]), "an object with a role");
    let long = json!([{ "role": "user", "content": "word ".repeat(300) }]);
    assert_eq!(
        chat("messages", long, "beyond the model's context"),
        "context_length_exceeded"
    );
    chat("tools", json!([{}]), "a list of functions with names");
    chat("tool_choice", json!("required"), "there is no such tool");
    chat("parallel_tool_calls", json!(false), "not supported");
    chat("reasoning_effort", json!("high"), "not supported");
    refused("/v1/chat/completions", &json!({}), 400, "messages", "it is missing");
    // What is no request at all.
    for (method, path, body, status) in [
        ("POST", "/v1/completions", "{\"prompt\": ", 400),
        ("POST", "/v1/completions", "[]", 400),
        ("POST", "/v1/completions", "", 400),
        ("POST", "/v1/embeddings", "{\"input\": \"a\"}", 400),
        ("GET", "/v1/completions", "", 405),
        ("POST", "/v1/models", "", 405),
        ("POST", "/health", "", 405),
        ("GET", "/", "", 404),
        ("POST", "/v1/chat", "{}", 404),
        ("GET", "/v1/models/gpt", "", 404),
    ] {
        let answer = s.ask(method, path, "", body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let error = &answer.json()["error"];
        assert!(error["message"].is_string() && error.get("param").is_some() && error.get("code").is_some());
    }
    let without = own(Settings::new("tiny")).post(
        "/v1/chat/completions",
        &json!({ "messages": [{ "role": "user", "content": "a" }] }),
    );
    assert_eq!(without.status, 400);
    assert!(without.body.contains("there is no template of chats") && !without.body.contains("examples"));
}

#[test]
fn limits_have_their_status() {
    let s = own(Settings {
        queue: 0,
        max_body: 1000,
        api_key: Some("secret".into()),
        ..Settings::new("tiny")
    });
    let body = json!({ "prompt": "Emma" }).to_string();
    let with = |key: &str, body: &str| s.ask("POST", "/v1/completions", key, body.as_bytes());
    for key in ["", "Authorization: Bearer secreT\r\n", "Authorization: secret\r\n"] {
        let answer = with(key, &body);
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(s.ask("GET", "/v1/models", "", b"").status, 401);
    assert_eq!(s.ask("GET", "/health", "", b"").status, 200);
    let key = "Authorization: Bearer secret\r\n";
    let full = with(key, &body);
    assert_eq!(full.status, 429);
    assert!(full.head.contains("\r\nretry-after: 1"), "{}", full.head);
    assert_eq!(full.json()["error"]["type"], "rate_limit_error");
    let large = with(key, &json!({ "prompt": "a".repeat(1000) }).to_string());
    assert_eq!(large.status, 413);
    assert!(
        large.json()["error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("1000 bytes"))
    );
}

/// Reads an answer's events until there is one with text; false where there is none.
fn has_event(reader: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        if reader.read_line(&mut line).expect("it answers") == 0 {
            return false;
        }
    }
    true
}

/// A text until the context is full.
fn endless(stream: bool) -> Vec<u8> {
    let body =
        json!({ "prompt": "Emma was", "max_tokens": 1000, "ignore_eos": true, "stream": stream, "temperature": 0 });
    body.to_string().into_bytes()
}

#[test]
fn clients_may_go() {
    let s = own(Settings {
        slots: 1,
        queue: 1,
        ..Settings::new("tiny")
    });
    for _ in 0..3 {
        // It may find no place before it is noticed that those before it went.
        while !has_event(&mut s.send("POST", "/v1/completions", "", &endless(true))) {}
        drop(s.send("POST", "/v1/completions", "", &endless(false)));
    }
    // A request that waits behind those that went has its turn.
    let asked = json!({ "prompt": "Emma was", "max_tokens": 32, "temperature": 0 });
    loop {
        let answer = s.post("/v1/completions", &asked);
        if answer.status != 429 {
            assert_eq!(texts(&answer.json()), [EMMA]);
            break;
        }
    }
}

#[test]
fn a_stop_lets_what_runs_finish() {
    let mut s = own(Settings {
        slots: 1,
        ..Settings::new("tiny")
    });
    let mut running = s.send("POST", "/v1/completions", "", &endless(true));
    assert!(has_event(&mut running));
    let mut waiting = s.send("POST", "/v1/completions", "", &endless(false));
    // It is there when another one is answered that was sent later.
    assert_eq!(s.ask("GET", "/health", "", b"").status, 200);
    s.stop();
    let (mut streamed, mut whole) = (String::new(), String::new());
    running.read_to_string(&mut streamed).expect("it is whole");
    assert!(streamed.contains("\"finish_reason\":\"length\"") && streamed.contains("data: [DONE]"));
    waiting.read_to_string(&mut whole).expect("it is whole");
    assert_eq!(Answer::of(&whole).json()["usage"]["total_tokens"], 256);
    s.join();
    assert!(TcpStream::connect(s.address).is_err(), "nobody listens any more");
}

/// Starts the command, asks it something, and ends it as a service manager does.
#[test]
#[cfg(unix)]
fn the_command_serves() {
    use std::process::{Command, Stdio};
    let model = folder().display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_brolga"))
        .args(["serve", &model, "--port", "0", "--threads", "1", "--name", "emma"])
        .env("BROLGA_API_KEY", "secret")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let mut line = || said.next().expect("it goes on").expect("it is text");
    let address = line();
    let address = address.split("listening on http://").nth(1).expect("it says where");
    let s = Running {
        address: address.parse().expect("an address"),
        stop: Some(oneshot::channel().0),
        thread: None,
    };
    let answer = s.ask("GET", "/v1/models", "Authorization: Bearer secret\r\n", b"");
    assert_eq!(answer.json()["data"][0]["id"], "emma");
    assert_eq!(s.ask("GET", "/v1/models", "", b"").status, 401);
    let killed = Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .expect("there is `kill`");
    assert!(killed.success());
    assert!(line().contains("finishing what runs"));
    assert!(child.wait().expect("it ends").success());
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = taken.local_addr().expect("it listens").port().to_string();
    let ran = common::brolga(&folder(), &["serve", ".", "--port", &port]);
    assert!(
        ran.status == 2 && ran.err.contains(&format!("127.0.0.1:{port}: ")),
        "{}",
        ran.err
    );
}

/// Runs that fail for want of memory: long prompts need more of it than short ones.
#[test]
fn a_run_that_fails_is_answered() {
    let dir = tempfile::tempdir().expect("there is room");
    let file = dir.path().join("tiny.brolga");
    let compiled = brolga::generate::model::compile(folder(), &Options::default()).expect("it compiles");
    compiled.write_artefact(&file).expect("there is room");
    let long: Vec<i64> = (0..250).collect();
    let fails = |memory_limit: u64| {
        let options = Options {
            memory_limit,
            ..Options::default()
        };
        let model = Model::load(&file, &options, 1).ok()?;
        let step = |tokens: &[i64]| {
            let mut cache = model.sequence().expect("there is memory");
            model.step(&mut cache, 0, tokens, 1).is_ok()
        };
        (step(&long[..8]) && !step(&long)).then_some(options)
    };
    let options = (12..24)
        .find_map(|bits| fails(1 << bits))
        .expect("there is a limit between both");
    let s = Running::start(&file, &options, Settings::new("tiny"));
    let answer = s.post("/v1/completions", &json!({ "prompt": long, "max_tokens": 1 }));
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert_eq!(answer.json()["error"]["type"], "server_error");
    let asked = json!({ "prompt": "Emma was", "max_tokens": 3, "temperature": 0 });
    assert_eq!(s.text(&asked), " not so very");
}
