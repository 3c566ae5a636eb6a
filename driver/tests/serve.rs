//! The server over HTTP, with the small model in `examples/tiny_llama` and an encoder that is made here: texts are those of the library, alone
//! and together, whole and in pieces; what prompts begin with is computed once. What goes wrong is `serve_refused.rs`.

#![cfg(feature = "serve")]

mod serving;

use brolga::generate::reply::Reply;
use brolga::generate::text::Tokenizer;
use brolga::generate::{Generator, Model};
use brolga::serve::{Server, Settings};
use brolga::{Options, View, compile, source};
use serde_json::{Value as Json, json};
use serving::{EMMA, Running, folder, own, server, streamed, texts};
use std::path::Path;
use std::{fs, thread};

#[test]
fn texts_are_the_librarys() {
    let s = server();
    let asked = json!({ "model": "chatty", "prompt": "Emma was", "max_tokens": 32, "temperature": 0, "user": "me", "seed": null });
    let answer = s.ok("/v1/completions", &asked);
    assert_eq!(texts(&answer), [EMMA]);
    assert_eq!([&answer["object"], &answer["model"]], ["text_completion", "chatty"]);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 32);
    // As drawn by the folder's settings, with the same seed.
    let model = Model::load(folder(), &Options::default(), 1).expect("it loads");
    let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary).expect("it has one");
    let drawn = |prompt: &str, goes_on: bool, seed| {
        let mut settings = brolga::generate::Settings {
            max_tokens: 24,
            sampling: brolga::generate::Sampling::of(model.facts()),
            ..Default::default()
        };
        settings.sampling.seed = seed;
        let prompt = tokenizer.encode(prompt, goes_on).expect("it encodes");
        let generator = Generator::new(&model, None, &prompt, settings).expect("it begins");
        let before = if goes_on { &prompt[..] } else { &[] };
        let reply = Reply::new(generator, &tokenizer, before, &[]);
        reply.map(|p| p.expect("it runs")).collect::<String>()
    };
    let asked = json!({ "prompt": "She had", "max_tokens": 24, "seed": 7, "n": 2 });
    assert_eq!(
        texts(&s.ok("/v1/completions", &asked)),
        [drawn("She had", true, 7), drawn("She had", true, 8)]
    );
    let messages = json!([{ "role": "user", "content": [{ "type": "text", "text": "She had" }] }]);
    let asked = json!({ "messages": messages, "max_completion_tokens": 24, "seed": 9 });
    let answer = s.ok("/v1/chat/completions", &asked);
    assert_eq!(texts(&answer), [drawn("She had\n", false, 9)]);
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    // Tools are for the template.
    let tools = json!([{ "type": "function", "function": { "name": "time", "parameters": {} } }]);
    let mut asked = json!({ "messages": messages, "max_tokens": 24, "seed": 9, "tools": tools, "tool_choice": "none" });
    assert_eq!(texts(&s.ok("/v1/chat/completions", &asked)), texts(&answer));
    asked["tool_choice"] = "auto".into();
    assert_eq!(
        texts(&s.ok("/v1/chat/completions", &asked)),
        [drawn("time She had\n", false, 9)]
    );
}

#[test]
fn streams_are_the_same_in_pieces() {
    let s = server();
    let pairs = [
        (
            "/v1/completions",
            json!({ "prompt": ["She had", "Emma was"], "max_tokens": 24, "seed": 3, "n": 2 }),
            4,
        ),
        (
            "/v1/completions",
            json!({ "prompt": "Emma was", "temperature": 0, "max_tokens": 60, "stop": ["supposed", "zebra"] }),
            1,
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": [{ "role": "user", "content": "Emma was" }], "max_tokens": 24, "seed": 3 }),
            1,
        ),
    ];
    for (path, mut body, n) in pairs {
        let whole = s.ok(path, &body);
        body["stream"] = true.into();
        let events = s.post(path, &body).events();
        assert_eq!(streamed(&events, n), texts(&whole));
        assert!(
            events
                .iter()
                .all(|e| e.get("usage").is_none() && e["id"] == events[0]["id"])
        );
        body["stream_options"] = json!({ "include_usage": true });
        let mut events = s.post(path, &body).events();
        let last = events.pop().expect("there is one");
        assert_eq!(last["choices"], json!([]));
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(last["usage"][count], whole["usage"][count]);
        }
        assert!(events.iter().all(|e| e["usage"].is_null()));
        for (i, choice) in whole["choices"].as_array().expect("choices").iter().enumerate() {
            let mut finish = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == i);
            assert_eq!(
                finish.next_back().expect("it ends")["finish_reason"],
                choice["finish_reason"]
            );
        }
    }
    let stopped = json!({ "prompt": "Emma was", "temperature": 0, "max_tokens": 60, "stop": "supposed" });
    let answer = s.ok("/v1/completions", &stopped);
    assert_eq!(texts(&answer), [" not so very sorry she could have "]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn requests_together_are_as_alone() {
    let s = server();
    let prompts = [
        "Emma was",
        "She had",
        "It was a fine morning, and",
        "Mr. Weston",
        "The house",
        "Emma was not",
    ];
    let body = |prompt: &str, seed: usize| {
        json!({ "prompt": prompt, "max_tokens": 40, "temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": seed, "ignore_eos": true,
            "repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "min_p": 0.01 })
    };
    let alone: Vec<String> = (0..).zip(prompts).map(|(seed, p)| s.text(&body(p, seed))).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let body = &body;
        let asked = (0..)
            .zip(prompts)
            .map(|(seed, p)| scope.spawn(move || s.text(&body(p, seed))));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|t| t.join().expect("it is answered")).collect()
    });
    assert_eq!(together, alone);
    // Of one request, whose texts certainly run together: as many as slots, and more.
    let mut all = body("", 5);
    all["prompt"] = json!(prompts);
    let all = texts(&s.ok("/v1/completions", &all));
    for (prompt, found) in prompts.iter().zip(all) {
        assert_eq!(found, s.text(&body(prompt, 5)));
    }
}

/// A model that proposes tokens changes no text, whatever it is held to, and is refused where it does not fit.
#[test]
fn drafts_change_no_text() {
    let s = Running::start(
        &folder(),
        &Options::default(),
        Settings {
            slots: 2,
            draft: Some(folder()),
            draft_tokens: 3,
            ..Settings::new("tiny")
        },
    );
    let free = server();
    for more in [
        json!({ "temperature": 0 }),
        json!({ "temperature": 1.2, "seed": 3, "stop": "the", "n": 3 }),
        json!({ "temperature": 1.2, "seed": 3, "structured_outputs": { "regex": "([a-z]{3}-){9}" } }),
        json!({ "temperature": 0, "ignore_eos": true, "max_tokens": 1000 }),
    ] {
        let mut body = json!({ "prompt": ["Emma was", "She had", "Mr. Weston"], "max_tokens": 40, "logprobs": 1 });
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("fields").clone());
        let [found, expected] = [&s, free].map(|s| s.ok("/v1/completions", &body));
        assert_eq!(found["choices"], expected["choices"], "{body}");
        let counts = |answer: &Json| answer["usage"]["completion_tokens"].clone();
        assert_eq!(counts(&found), counts(&expected));
    }
    let refused = |model: &Path, draft: &Path, tokens: usize, message: &str| {
        let settings = Settings {
            draft: Some(draft.to_owned()),
            draft_tokens: tokens,
            ..Settings::new("tiny")
        };
        let e = Server::load(model, &Options::default(), 1, settings)
            .err()
            .expect("it does not fit");
        assert!(e.to_string().contains(message), "{e}");
    };
    refused(&folder(), &folder(), 0, "a draft of no tokens");
    refused(&folder(), Path::new("nowhere"), 4, "nowhere");
    refused(encoder().path(), &folder(), 4, "an encoder writes no text");
}

#[test]
fn what_prompts_begin_with_is_computed_once() {
    let s = own(Settings::new("tiny"));
    let kept = |body: &Json| {
        let usage = s.ok("/v1/completions", body)["usage"].take();
        let count = |v: &Json| v.as_u64().expect("a number");
        [
            count(&usage["prompt_tokens"]),
            count(&usage["prompt_tokens_details"]["cached_tokens"]),
        ]
    };
    let prompt = [37, 690, 305, 314, 356, 387, 261, 284];
    let body = |prompt: &[i64], n: usize| json!({ "prompt": prompt, "max_tokens": n, "temperature": 0 });
    assert_eq!(kept(&body(&prompt, 4)), [8, 0]);
    // All but the last, which is computed for its logits.
    assert_eq!(kept(&body(&prompt, 4)), [8, 7]);
    // What was generated counts, but for the last token, which was never read.
    let longer = [&prompt[..], &[515, 330, 392, 358, 878, 632]].concat();
    assert_eq!(kept(&body(&longer, 1)), [14, 11]);
    let other = [&prompt[..3], &[12, 789]].concat();
    assert_eq!(kept(&body(&other, 1)), [5, 3]);
    assert_eq!(
        kept(&json!({ "prompt": [[900, 901, 902], [900, 901, 903]], "max_tokens": 9 })),
        [6, 2],
        "one that runs"
    );
    let none = own(Settings {
        kept: 0,
        ..Settings::new("tiny")
    });
    for _ in 0..2 {
        let usage = none.ok("/v1/completions", &body(&prompt, 4))["usage"].take();
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    }
}

#[test]
fn tokens_are_chosen_as_asked() {
    let s = server();
    let biased = json!({ "prompt": "Emma was", "max_tokens": 3, "temperature": 0, "logit_bias": { "305": 100 } });
    assert_eq!(s.text(&biased), " was was was");
    let ended = json!({ "prompt": "Emma was", "max_tokens": 9, "logit_bias": { "0": 100 } });
    let answer = s.ok("/v1/completions", &ended);
    assert_eq!(
        [&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]],
        ["", "stop"]
    );
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    let none = s.ok("/v1/completions", &json!({ "prompt": "Emma was", "max_tokens": 0 }));
    assert_eq!(
        [&none["choices"][0]["text"], &none["choices"][0]["finish_reason"]],
        ["", "length"]
    );
    let short = s.ok("/v1/completions", &json!({ "prompt": "Emma was", "ignore_eos": true }));
    assert_eq!(short["usage"]["completion_tokens"], 16, "OpenAI's default");
    let chat = json!({ "messages": [{ "role": "user", "content": "Emma" }], "ignore_eos": true });
    let usage = s.ok("/v1/chat/completions", &chat)["usage"].take();
    assert_eq!(usage["total_tokens"], 256, "until the context is full");
    // Without a seed, texts differ.
    let drawn = json!({ "prompt": "Emma was", "max_tokens": 40, "temperature": 1.5 });
    assert_ne!(s.text(&drawn), s.text(&drawn));
}

/// A folder with a small BERT.
fn encoder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room");
    let config = json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2,
        "num_hidden_layers": 1, "vocab_size": 6, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "torch_dtype": "float32",
    });
    let mut shapes: Vec<(String, Vec<usize>)> = [("word", 6), ("position", 16), ("token_type", 2)]
        .map(|(name, rows)| (format!("embeddings.{name}_embeddings.weight"), vec![rows, 8]))
        .into();
    let mut linear = |name: &str, [out, inner]: [usize; 2]| {
        shapes.push((format!("{name}.weight"), vec![out, inner]));
        shapes.push((format!("{name}.bias"), vec![out]));
    };
    for part in ["self.query", "self.key", "self.value", "output.dense"] {
        linear(&format!("encoder.layer.0.attention.{part}"), [8, 8]);
    }
    linear("encoder.layer.0.intermediate.dense", [12, 8]);
    linear("encoder.layer.0.output.dense", [8, 12]);
    for norm in [
        "embeddings",
        "encoder.layer.0.attention.output",
        "encoder.layer.0.output",
    ] {
        for side in ["weight", "bias"] {
            shapes.push((format!("{norm}.LayerNorm.{side}"), vec![8]));
        }
    }
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    for (name, shape) in shapes {
        let from = data.len();
        let n: usize = shape.iter().product();
        data.extend((0..n).flat_map(|i| (((i * 7 + from) as f32).sin() * 0.5).to_le_bytes()));
        header.insert(
            name,
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, data.len()] }),
        );
    }
    let header = Json::from(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null,
        "model": { "type": "WordLevel", "unk_token": "?", "vocab": { "?": 0, "a": 1, "crane": 2, "that": 3, "dances": 4, "sleeps": 5 } },
    });
    fs::write(dir.path().join("config.json"), config.to_string()).expect("it is written");
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("it is written");
    fs::write(dir.path().join("model.safetensors"), file).expect("it is written");
    dir
}

#[test]
fn encoders_give_embeddings() {
    let dir = encoder();
    let s = Running::start(dir.path(), &Options::default(), Settings::new("bert"));
    let answer = s.ok(
        "/v1/embeddings",
        &json!({ "model": "bert", "input": ["a crane that dances", "a crane"] }),
    );
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 6, "total_tokens": 6 }));
    let numbers = |v: &Json| -> Vec<f32> {
        v.as_array()
            .expect("a list")
            .iter()
            .map(|x| x.as_f64().expect("a number") as f32)
            .collect()
    };
    // The mean of what the session gives of both, padded and with a mask.
    let mut options = Options::default();
    options.folder.with = vec!["attention_mask".into()];
    let graph = source::graph_for(dir.path(), &options).expect("it reads");
    let session = compile(&graph, &options)
        .and_then(|c| c.session())
        .expect("it compiles");
    let ids = [1i64, 2, 3, 4, 1, 2, 0, 0];
    let mask = [1i64, 1, 1, 1, 1, 1, 0, 0];
    let views = [
        ("input_ids", View::of(&ids, &[2, 4])),
        ("attention_mask", View::of(&mask, &[2, 4])),
    ];
    let hidden = session.run_named(&views).expect("it runs");
    let hidden = hidden[0].as_slice::<f32>().expect("f32");
    for (i, n) in [(0, 4), (1, 2)] {
        let mean: Vec<f32> = (0..8)
            .map(|c| (0..n).map(|t| hidden[(i * 4 + t) * 8 + c]).sum::<f32>() / n as f32)
            .collect();
        let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
        let found = numbers(&answer["data"][i]["embedding"]);
        for (x, y) in mean.iter().zip(&found) {
            assert!((x / length - y).abs() < 1e-5, "{mean:?} for {found:?}");
        }
    }
    let packed = s.ok(
        "/v1/embeddings",
        &json!({ "input": [1, 2], "encoding_format": "base64" }),
    );
    let packed = packed["data"][0]["embedding"].as_str().map(str::len);
    assert_eq!(packed, Some(44), "8 numbers are 32 bytes");
    for (body, param) in [
        (json!({}), "input"),
        (json!({ "input": "a ".repeat(17) }), "input"),
        (json!({ "input": [9] }), "input"),
        (json!({ "input": "a", "dimensions": 4 }), "dimensions"),
        (json!({ "input": "a", "encoding_format": "text" }), "encoding_format"),
    ] {
        let answer = s.post("/v1/embeddings", &body);
        assert_eq!(
            (answer.status, answer.json()["error"]["param"].as_str()),
            (400, Some(param)),
            "{}",
            answer.body
        );
    }
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let answer = s.post(path, &json!({ "prompt": "a" }));
        assert!(
            answer.status == 400 && answer.body.contains("this model is an encoder"),
            "{}",
            answer.body
        );
    }
}

#[test]
fn models_are_listed() {
    let s = server();
    assert_eq!(s.ask("GET", "/v1/models", "", b"").json()["data"][0]["id"], "chatty");
    assert_eq!(s.ask("GET", "/v1/models/chatty", "", b"").json()["object"], "model");
    assert_eq!(s.ask("GET", "/health", "", b"").json()["status"], "ok");
}
