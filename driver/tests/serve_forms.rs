//! Replies of the server that are held to a form: JSON by a schema, expressions, grammars, calls of tools that are a must. What cannot be held
//! to is told with its place, and the server lives on.

#![cfg(feature = "serve")]

mod serving;

use brolga::Options;
use brolga::serve::Settings;
use serde_json::{Value as Json, json};
use serving::{EMMA, Running, TEMPLATE, chatty_with, server, streamed, texts};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A person, in JSON.
fn person() -> Json {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 99 },
            "of": { "enum": ["Kellynch", "Hartfield"] },
        },
        "required": ["name", "age", "of"],
        "additionalProperties": false,
    })
}

fn is_person(text: &str) {
    let found: Json = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(found.as_object().expect("an object").len(), 3, "{text}");
    assert!(found["name"].as_str().expect("a name").chars().count() <= 12, "{text}");
    assert!((0..=99).contains(&found["age"].as_i64().expect("an age")), "{text}");
    assert!(
        ["Kellynch", "Hartfield"].contains(&found["of"].as_str().expect("a place")),
        "{text}"
    );
}

fn by_schema(schema: Json) -> Json {
    json!({ "type": "json_schema", "json_schema": { "name": "it", "schema": schema, "strict": true } })
}

fn chat(more: Json) -> Json {
    let mut body = json!({ "messages": [{ "role": "user", "content": "She said:" }], "max_tokens": 150 });
    let fields = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

/// Replies by a schema, streamed and whole, several of one request with a state each, while others that are held to nothing run.
#[test]
fn schemas_beside_free_texts() {
    let s = server();
    let done = AtomicBool::new(false);
    let free = json!({ "prompt": "Emma was", "max_tokens": 32, "temperature": 0 });
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) || n == 0 {
                assert_eq!(s.text(&free), EMMA);
                n += 1;
            }
        });
        // Whatever fails here, the other one ends.
        let asked = scope.spawn(|| {
            let mut body =
                chat(json!({ "response_format": by_schema(person()), "temperature": 1.3, "seed": 4, "n": 5 }));
            let whole = s.ok("/v1/chat/completions", &body);
            texts(&whole).iter().for_each(|t| is_person(t));
            let different = |a: &String| texts(&whole).iter().filter(|b| *b == a).count() < 5;
            assert!(texts(&whole).iter().all(different), "they are drawn");
            body["stream"] = true.into();
            let events = s.post("/v1/chat/completions", &body).events();
            assert_eq!(streamed(&events, 5), texts(&whole));
            assert!(
                whole["choices"]
                    .as_array()
                    .expect("choices")
                    .iter()
                    .all(|c| c["finish_reason"] == "stop")
            );
            // It ends by itself even where tokens that end a text are none.
            let greedy = chat(json!({ "response_format": by_schema(person()), "temperature": 0, "ignore_eos": true }));
            is_person(&texts(&s.ok("/v1/chat/completions", &greedy))[0]);
        });
        let asked = asked.join();
        done.store(true, Ordering::Relaxed);
        beside.join().expect("others go on");
        asked.expect("replies are of the form");
    });
}

#[test]
fn other_forms() {
    let s = server();
    let with = |path: &str, field: &str, form: Json| {
        let mut body = match path {
            "/v1/completions" => json!({ "prompt": "She said:", "max_tokens": 200 }),
            _ => chat(json!({ "max_tokens": 200 })),
        };
        (body[field], body["temperature"]) = (form, 0.into());
        let answer = s.ok(path, &body);
        (
            texts(&answer).remove(0),
            answer["choices"][0]["finish_reason"].as_str().map(str::to_owned),
        )
    };
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let free = with(path, "user", json!("me"));
        assert_eq!(with(path, "response_format", json!({ "type": "text" })), free);
        is_person(&with(path, "response_format", by_schema(person())).0);
        is_person(&with(path, "structured_outputs", json!({ "json": person() })).0);
        let (number, _) = with(path, "structured_outputs", json!({ "regex": "[0-9]{3}-[a-z]{2}" }));
        let (digits, letters) = number.split_once('-').unwrap_or_else(|| panic!("{number}"));
        assert!(
            digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()),
            "{number}"
        );
        assert!(
            letters.len() == 2 && letters.bytes().all(|b| b.is_ascii_lowercase()),
            "{number}"
        );
        let lark = "start: \"Dear \" NAME\nNAME: \"Emma\" | \"Anne\"";
        let (dear, finish) = with(path, "structured_outputs", json!({ "grammar": lark }));
        assert!(["Dear Emma", "Dear Anne"].contains(&&dear[..]), "{dear}");
        assert_eq!(finish.as_deref(), Some("stop"));
        // Any object: the whole of one, or the beginning of a long one.
        let (object, finish) = with(path, "response_format", json!({ "type": "json_object" }));
        match finish.as_deref() {
            Some("stop") => assert!(serde_json::from_str::<Json>(&object).expect("JSON").is_object()),
            _ => assert!(object.starts_with('{'), "{object}"),
        }
    }
}

#[test]
fn what_cannot_be_held_to_is_told() {
    let s = server();
    let refused = |body: Json, param: &str, needles: &[&str]| {
        s.refuses("/v1/chat/completions", &body, 400, param, needles);
    };
    let schema = |schema: Json, needles: &[&str]| {
        let param = "response_format.json_schema.schema";
        refused(chat(json!({ "response_format": by_schema(schema) })), param, needles);
    };
    let object =
        |a: Json| json!({ "type": "object", "properties": { "b": { "type": "null" }, "a": a }, "required": ["a"] });
    // Those that nothing fits.
    let never = json!({ "type": "integer", "minimum": 3, "maximum": 1 });
    schema(object(never.clone()), &["#/properties/a: ", "minimum"]);
    schema(object(object(never.clone())), &["#/properties/a/properties/a: "]);
    schema(
        json!({ "allOf": [{ "type": "string" }, { "type": "null" }] }),
        &["#: Unsatisfiable"],
    );
    schema(json!({ "enum": [] }), &["#: Unsatisfiable"]);
    schema(
        json!({ "type": "array", "minItems": 2, "prefixItems": [true, never] }),
        &["#/prefixItems/1: "],
    );
    // Those that say more than texts can be held to, and those that say nothing.
    schema(
        object(json!({ "type": "array", "uniqueItems": true })),
        &["#/properties/a: ", "uniqueItems"],
    );
    schema(object(json!({ "not": {} })), &["#/properties/a: ", "not"]);
    let referred = json!({ "$ref": "#/$defs/x~y", "$defs": { "x~y": { "items": { "type": "colour" } } } });
    schema(referred, &["#/$defs/x~0y/items: ", "colour"]);
    schema(json!({ "$ref": "#/$defs/x", "$defs": {} }), &["#: ", "/$defs/x"]);
    schema(
        json!({ "anyOf": [{ "type": "null" }, { "type": "string", "format": "hue" }] }),
        &["#/anyOf/1: ", "hue"],
    );
    schema(json!({ "properties": { "a": 3 } }), &["#/properties/a: "]);
    schema(
        json!({ "properties": { "a": {} }, "x-guidance": { "b": 1 } }),
        &["#: ", "`b`"],
    );
    schema(json!("object"), &["#: "]);
    // Fields of the wrong form.
    let format = |format: Json, param: &str, needle: &str| {
        refused(chat(json!({ "response_format": format })), param, &[needle]);
    };
    format(json!("json"), "response_format", "expected an object");
    format(json!({}), "response_format.type", "missing");
    format(json!({ "type": "yaml" }), "response_format.type", "yaml, expected");
    format(
        json!({ "type": "text", "what": 1 }),
        "response_format.what",
        "not supported",
    );
    format(
        json!({ "type": "json_schema" }),
        "response_format.json_schema",
        "missing",
    );
    let inner = |inner: Json, param: &str, needle: &str| {
        let param = format!("response_format.json_schema.{param}");
        format(json!({ "type": "json_schema", "json_schema": inner }), &param, needle);
    };
    inner(json!({ "name": "it" }), "schema", "missing");
    inner(json!({ "schema": {}, "strict": 1 }), "strict", "true or false");
    inner(json!({ "schema": {}, "name": 1 }), "name", "expected a text");
    inner(json!({ "schema": {}, "what": 1 }), "what", "not supported");
    let outputs = |outputs: Json, param: &str, needle: &str| {
        refused(chat(json!({ "structured_outputs": outputs })), param, &[needle]);
    };
    outputs(
        json!({ "regex": "[0-9" }),
        "structured_outputs.regex",
        "regular expression",
    );
    outputs(
        json!({ "regex": "[^\\s\\S]" }),
        "structured_outputs.regex",
        "no text fits",
    );
    outputs(
        json!({ "grammar": "start: nothing" }),
        "structured_outputs.grammar",
        "nothing",
    );
    outputs(
        json!({ "json": { "type": "colour" } }),
        "structured_outputs.json",
        "colour",
    );
    outputs(
        json!({ "regex": "a", "grammar": "b" }),
        "structured_outputs",
        "expected one of",
    );
    outputs(json!({}), "structured_outputs", "expected one of");
    outputs(json!({ "choice": ["a"] }), "structured_outputs.choice", "not supported");
    let both = json!({ "response_format": { "type": "json_object" }, "structured_outputs": { "regex": "a" } });
    refused(chat(both), "structured_outputs.regex", &["response_format"]);
    // It lives on.
    let asked = json!({ "prompt": "Emma was", "max_tokens": 32, "temperature": 0 });
    assert_eq!(s.text(&asked), EMMA);
}

/// Two tools.
fn tools() -> Json {
    let weather = json!({
        "type": "object",
        "properties": { "city": { "$ref": "#/$defs/city" }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["city", "days"],
        "additionalProperties": false,
        "$defs": { "city": { "enum": ["Bath", "London"] } },
    });
    json!([
        { "type": "function", "function": { "name": "weather", "parameters": weather } },
        { "type": "function", "function": { "name": "time" } },
    ])
}

/// The only call of a reply that is one, which it checks.
fn called(answer: &Json) -> (String, Json) {
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    assert!(choice["message"]["content"].is_null(), "{answer}");
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1);
    let text = |v: &Json| v.as_str().expect("a text").to_owned();
    let arguments: Json = serde_json::from_str(&text(&calls[0]["function"]["arguments"])).expect("JSON");
    let name = text(&calls[0]["function"]["name"]);
    match &name[..] {
        "weather" => {
            assert!(["Bath", "London"].contains(&arguments["city"].as_str().expect("a city")));
            assert!((1..=9).contains(&arguments["days"].as_i64().expect("days")));
        }
        "time" => assert_eq!(arguments, json!({})),
        other => panic!("there is no tool {other}"),
    }
    (name, arguments)
}

fn forced(s: &Running) {
    for seed in 0..4 {
        let asked = |choice: Json, parallel: bool| {
            chat(
                json!({ "tools": tools(), "tool_choice": choice, "parallel_tool_calls": parallel, "seed": seed, "temperature": 1.2 }),
            )
        };
        called(&s.ok("/v1/chat/completions", &asked(json!("required"), false)));
        for name in ["weather", "time"] {
            let choice = json!({ "type": "function", "function": { "name": name } });
            let mut body = asked(choice, true);
            let (found, arguments) = called(&s.ok("/v1/chat/completions", &body));
            assert_eq!(found, name);
            body["stream"] = true.into();
            let events = s.post("/v1/chat/completions", &body).events();
            let mut calls = events.iter().filter_map(|e| e["choices"][0]["delta"].get("tool_calls"));
            let streamed = calls.next().expect("a call")[0]["function"]["arguments"].as_str();
            let streamed: Json = serde_json::from_str(streamed.expect("a text")).expect("JSON");
            assert_eq!((streamed, calls.next()), (arguments, None));
        }
    }
}

#[test]
fn calls_that_are_a_must() {
    let s = server();
    forced(s);
    // Beside a form a reply is a call or of the form.
    let body = |seed: usize| {
        chat(
            json!({ "tools": tools(), "response_format": by_schema(person()), "parallel_tool_calls": false, "seed": seed, "temperature": 1.5 }),
        )
    };
    for seed in 0..6 {
        let answer = s.ok("/v1/chat/completions", &body(seed));
        match answer["choices"][0]["message"].get("tool_calls") {
            Some(_) => drop(called(&answer)),
            None => is_person(&texts(&answer)[0]),
        }
    }
    let refused = |more: Json, param: &str, needle: &str| {
        let mut body = chat(json!({ "tools": tools() }));
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("fields").clone());
        s.refuses("/v1/chat/completions", &body, 400, param, &[needle]);
    };
    let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
    refused(json!({ "tool_choice": named("tide") }), "tool_choice", "no such tool");
    refused(
        json!({ "tool_choice": "required", "tools": [] }),
        "tool_choice",
        "no such tool",
    );
    refused(json!({ "tool_choice": "always" }), "tool_choice", "expected `auto`");
    refused(
        json!({ "tool_choice": { "type": "allowed_tools" } }),
        "tool_choice",
        "expected `auto`",
    );
    refused(
        json!({ "parallel_tool_calls": false }),
        "parallel_tool_calls",
        "not supported",
    );
    refused(
        json!({ "structured_outputs": { "regex": "a" } }),
        "structured_outputs.regex",
        "beside tools",
    );
    let odd = |parameters: Json| json!([tools()[1], { "type": "function", "function": { "name": "odd", "parameters": parameters } }]);
    let unique = json!({ "properties": { "a": { "uniqueItems": true } } });
    refused(
        json!({ "tools": odd(unique), "tool_choice": "required" }),
        "tools[1].function.parameters",
        "#/properties/a: ",
    );
    refused(
        json!({ "tools": odd(json!(3)) }),
        "tools[1].function.parameters",
        "expected the schema",
    );
    forced(s);
}

/// The formats of models whose templates of chats have tags.
#[test]
fn calls_in_the_models_format() {
    for tag in ["<tool_call>", "[TOOL_CALLS]"] {
        let dir = chatty_with(&format!("{{# {tag} #}}{TEMPLATE}"));
        let s = Running::start(&dir.path().join("chatty"), &Options::default(), Settings::new("chatty"));
        forced(&s);
        // A text that ends at once is what was to be written.
        let choice = json!({ "type": "function", "function": { "name": "time" } });
        let stopped = chat(json!({ "tools": tools(), "tool_choice": choice, "temperature": 0, "stop": "time" }));
        let answer = s.ok("/v1/chat/completions", &stopped);
        assert!(texts(&answer)[0].starts_with(tag), "{answer}");
    }
}
