//! How likely tokens were, as the server tells it: what the logits of the library say, in OpenAI's shapes, whole and streamed.

#![cfg(feature = "serve")]

mod serving;

use brolga::Options;
use brolga::generate::grammar::{Grammar, Grammars};
use brolga::generate::text::Tokenizer;
use brolga::generate::{Generator, Model, Sampling, Settings};
use serde_json::{Value as Json, json};
use serving::{EMMA, folder, server, texts};

/// The library's side.
struct Library {
    model: Model,
    tokenizer: Tokenizer,
    words: Vec<Vec<u8>>,
}

impl Library {
    fn new() -> Library {
        let model = Model::load(folder(), &Options::default(), 1).expect("it loads");
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary).expect("it has one");
        let mut words = tokenizer.bytes().expect("they are known");
        words[0] = b"<|endoftext|>".to_vec();
        Library {
            model,
            tokenizer,
            words,
        }
    }

    /// The tokens behind a prompt, and what logarithms of probabilities the logits before each are, in f64.
    fn logs(
        &self,
        prompt: &str,
        goes_on: bool,
        settings: Settings,
        grammar: Option<Grammar>,
    ) -> Vec<(usize, Vec<f64>)> {
        let prompt = self.tokenizer.encode(prompt, goes_on).expect("it encodes");
        let mut generator = Generator::new(&self.model, None, &prompt, settings).expect("it begins");
        if let Some(grammar) = grammar {
            let grammars = Grammars::of(&self.tokenizer, self.model.facts()).expect("there are");
            generator = generator.held_to(grammars.constraint(&grammar).expect("it is right"));
        }
        let generated: Vec<i64> = generator.map(|t| t.expect("it runs")).collect();
        let all = [&prompt[..], &generated].concat();
        let mut cache = self.model.sequence().expect("there is memory");
        let n = generated.len();
        let logits = self
            .model
            .step(&mut cache, 0, &all[..all.len() - 1], n)
            .expect("it runs");
        let rows = logits.as_slice::<f32>().expect("f32").chunks_exact(logits.shape()[2]);
        let log_softmax = |row: &[f32]| {
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            row.iter().map(|x| f64::from(*x) - sum.ln()).collect()
        };
        generated
            .iter()
            .map(|t| *t as usize)
            .zip(rows.map(log_softmax))
            .collect()
    }

    fn word(&self, token: usize) -> String {
        String::from_utf8_lossy(&self.words[token]).into_owned()
    }
}

fn close(found: &Json, expected: f64) {
    let found = found.as_f64().expect("a number");
    assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
}

/// The likeliest tokens with their logarithms, the likeliest first.
fn best(logs: &[f64], n: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = logs.iter().copied().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(n);
    all
}

fn list(v: &Json) -> &Vec<Json> {
    v.as_array().expect("a list")
}

#[test]
fn completions_have_lists_side_by_side() {
    let (s, library) = (server(), Library::new());
    // Drawn with filters and penalties: the logarithms are of what the model says without them.
    let drawn = Settings {
        max_tokens: 32,
        sampling: Sampling {
            temperature: 1.4,
            top_k: 30,
            top_p: 0.9,
            repetition_penalty: 1.2,
            logit_bias: vec![(305, -4.0)],
            seed: 5,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let greedy = Settings {
        max_tokens: 32,
        ..Settings::default()
    };
    let fields = json!({
        "prompt": "Emma was", "max_tokens": 32, "temperature": 1.4, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.2,
        "logit_bias": { "305": -4 }, "seed": 5,
    });
    let plain = json!({ "prompt": "Emma was", "max_tokens": 32, "temperature": 0 });
    for (mut body, settings, n) in [(plain, greedy, 5), (fields, drawn, 3)] {
        let expected = library.logs("Emma was", true, settings, None);
        let without = s.ok("/v1/completions", &body);
        assert!(without["choices"][0]["logprobs"].is_null());
        for n in [n, 0] {
            body["logprobs"] = n.into();
            let answer = s.ok("/v1/completions", &body);
            assert_eq!(texts(&answer), texts(&without));
            let found = &answer["choices"][0]["logprobs"];
            let text = texts(&answer).remove(0);
            let tokens: Vec<&str> = list(&found["tokens"]).iter().filter_map(Json::as_str).collect();
            assert_eq!(tokens.concat(), text);
            assert_eq!(tokens.len(), expected.len());
            let mut at = 0;
            for (i, (token, logs)) in expected.iter().enumerate() {
                assert_eq!(tokens[i], library.word(*token));
                close(&found["token_logprobs"][i], logs[*token]);
                assert_eq!(found["text_offset"][i], at);
                at += tokens[i].chars().count();
                // The likeliest first, and the token itself.
                let mut all = best(logs, n);
                if !all.iter().any(|(t, _)| t == token) {
                    all.push((*token, logs[*token]));
                }
                let top = found["top_logprobs"][i].as_object().expect("an object");
                let words: Vec<&String> = top.keys().collect();
                assert_eq!(
                    words,
                    all.iter()
                        .map(|(t, _)| library.word(*t))
                        .collect::<Vec<_>>()
                        .iter()
                        .collect::<Vec<_>>()
                );
                for (log, (_, expected)) in top.values().zip(all) {
                    close(log, expected);
                }
            }
        }
    }
}

#[test]
fn chats_have_an_object_for_each_token() {
    let (s, library) = (server(), Library::new());
    let settings = Settings {
        max_tokens: 24,
        sampling: Sampling {
            seed: 9,
            temperature: 1.0,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let regex = "[A-Z][a-z]{2,9}, [0-9]{4}";
    let mut body = json!({
        "messages": [{ "role": "user", "content": "She had" }], "max_tokens": 24, "seed": 9, "temperature": 1.0, "logprobs": true,
    });
    for held in [false, true] {
        // What a grammar leaves is drawn from; how likely it was, the model says without it.
        let grammar = held.then(|| Grammar::Regex(regex.into()));
        if held {
            body["structured_outputs"] = json!({ "regex": regex });
        }
        let expected = library.logs("She had\n", false, settings.clone(), grammar);
        for n in [0, 20] {
            body["top_logprobs"] = n.into();
            let answer = s.ok("/v1/chat/completions", &body);
            let found = &answer["choices"][0]["logprobs"];
            assert!(found["refusal"].is_null() && found.get("refusal").is_some());
            let content = list(&found["content"]);
            assert_eq!(content.len(), expected.len());
            let written: Vec<&str> = content.iter().filter_map(|e| e["token"].as_str()).collect();
            assert_eq!(written.concat(), texts(&answer)[0]);
            for (entry, (token, logs)) in content.iter().zip(&expected) {
                assert_eq!(entry["bytes"], json!(library.words[*token]));
                close(&entry["logprob"], logs[*token]);
                let top = list(&entry["top_logprobs"]);
                assert_eq!(top.len(), n);
                for (one, (token, log)) in top.iter().zip(best(logs, n)) {
                    assert_eq!(
                        [&one["token"], &one["bytes"]],
                        [&json!(library.word(token)), &json!(library.words[token])]
                    );
                    close(&one["logprob"], log);
                }
                let sorted = top
                    .windows(2)
                    .all(|w| w[0]["logprob"].as_f64() >= w[1]["logprob"].as_f64());
                assert!(sorted);
            }
        }
    }
}

/// Chunks have the tokens of their text; together they are the whole, also where a text ends before a token's.
#[test]
fn streams_say_the_same_in_pieces() {
    let s = server();
    let completion = json!({ "prompt": "Emma was", "max_tokens": 60, "temperature": 0, "logprobs": 2 });
    let mut stopped = completion.clone();
    stopped["stop"] = json!(["supposed", "zebra"]);
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"];
    for (mut body, ends) in [(completion, false), (stopped, true)] {
        let whole = s.ok("/v1/completions", &body);
        let (text, logprobs) = (texts(&whole).remove(0), &whole["choices"][0]["logprobs"]);
        body["stream"] = true.into();
        let events = s.post("/v1/completions", &body).events();
        let mut all = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
        for choice in events.iter().map(|e| &e["choices"][0]) {
            if choice["logprobs"].is_null() {
                assert_eq!(choice["text"], "");
                continue;
            }
            for name in lists {
                let more = list(&choice["logprobs"][name]).clone();
                all[name].as_array_mut().expect("a list").extend(more);
            }
            let written: Vec<&str> = list(&choice["logprobs"]["tokens"])
                .iter()
                .filter_map(Json::as_str)
                .collect();
            let shown = choice["text"].as_str().expect("a text");
            assert!(written.concat().starts_with(shown) || ends, "{choice}");
        }
        assert_eq!(all, *logprobs);
        let written: Vec<&str> = list(&logprobs["tokens"]).iter().filter_map(Json::as_str).collect();
        assert!(written.concat().starts_with(&text));
        let last = list(&logprobs["text_offset"])
            .last()
            .and_then(Json::as_u64)
            .expect("one");
        assert!(
            (last as usize) < text.chars().count(),
            "no token is of what was not shown"
        );
        assert!(EMMA.starts_with(&text) || !ends);
    }
    let mut chat = json!({
        "messages": [{ "role": "user", "content": "Emma was" }], "max_tokens": 24, "seed": 3, "logprobs": true, "top_logprobs": 2, "n": 2,
    });
    let whole = s.ok("/v1/chat/completions", &chat);
    chat["stream"] = true.into();
    let events = s.post("/v1/chat/completions", &chat).events();
    for (i, choice) in list(&whole["choices"]).iter().enumerate() {
        let own = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == i);
        let content: Vec<Json> = own
            .filter(|c| !c["logprobs"].is_null())
            .flat_map(|c| list(&c["logprobs"]["content"]).clone())
            .collect();
        assert_eq!(content, *list(&choice["logprobs"]["content"]));
    }
    // Of a call a stream says all, though its text is held back.
    let tools = json!([{ "type": "function", "function": { "name": "time" } }]);
    (chat["tools"], chat["tool_choice"], chat["n"]) = (
        tools,
        json!({ "type": "function", "function": { "name": "time" } }),
        1.into(),
    );
    chat["max_tokens"] = 100.into();
    let events = s.post("/v1/chat/completions", &chat).events();
    let content: Vec<&str> = events
        .iter()
        .filter(|e| !e["choices"][0]["logprobs"].is_null())
        .flat_map(|e| {
            list(&e["choices"][0]["logprobs"]["content"])
                .iter()
                .filter_map(|t| t["token"].as_str())
        })
        .collect();
    assert_eq!(content.concat(), "{\"name\": \"time\", \"parameters\": {}}");
}

#[test]
fn what_is_wrong_is_told() {
    let s = server();
    let chat = |more: Json| (more, "/v1/chat/completions");
    let completion = |more: Json| (more, "/v1/completions");
    for ((more, path), param, needle) in [
        (chat(json!({ "logprobs": 3 })), "logprobs", "true or false"),
        (chat(json!({ "top_logprobs": 3 })), "top_logprobs", "needs `logprobs`"),
        (
            chat(json!({ "logprobs": false, "top_logprobs": 1 })),
            "top_logprobs",
            "needs `logprobs`",
        ),
        (
            chat(json!({ "logprobs": true, "top_logprobs": 21 })),
            "top_logprobs",
            "21, expected 0 to 20",
        ),
        (
            chat(json!({ "logprobs": true, "top_logprobs": "2" })),
            "top_logprobs",
            "whole number",
        ),
        (completion(json!({ "logprobs": 6 })), "logprobs", "6, expected 0 to 5"),
        (completion(json!({ "logprobs": -1 })), "logprobs", "whole number"),
        (completion(json!({ "logprobs": true })), "logprobs", "whole number"),
        (
            completion(json!({ "logprobs": 1, "top_logprobs": 1 })),
            "top_logprobs",
            "not supported",
        ),
    ] {
        let mut body = json!({ "max_tokens": 1 });
        match path {
            "/v1/completions" => body["prompt"] = "Emma".into(),
            _ => body["messages"] = json!([{ "role": "user", "content": "Emma" }]),
        }
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("fields").clone());
        s.refuses(path, &body, 400, param, &[needle]);
    }
    let asked = json!({ "prompt": "Emma was", "max_tokens": 32, "temperature": 0, "logprobs": 1 });
    assert_eq!(s.text(&asked), EMMA);
}
