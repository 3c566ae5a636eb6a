//! Tokenizers and templates of chats, in folders that are made here. The texts that templates give are transformers' (5.24).

#![cfg(feature = "text")]

use brolga::generate::files::Files;
use brolga::generate::text::{ChatTemplate, Ordered, Tokenizer};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

fn folder(files: &[(&str, String)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("it can be written");
    }
    dir
}

fn tokenizer(json: &Json, settings: &Json) -> Tokenizer {
    let dir = folder(&[
        ("tokenizer.json", json.to_string()),
        ("tokenizer_config.json", settings.to_string()),
    ]);
    Tokenizer::of(&Files::of_folder(dir.path()).expect("it reads"), 1000).expect("it is a tokenizer")
}

fn added(id: usize, content: &str, special: bool) -> Json {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special,
    })
}

fn numbered(words: &[&str]) -> Json {
    words
        .iter()
        .enumerate()
        .map(|(i, w)| ((*w).to_owned(), Json::from(i)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Bytes as GPT-2 has them. 1 to 4 are the bytes of an emoji, 5 and 6 those of `é`.
fn bytes() -> Json {
    let words = [
        "<|end|>", "ð", "Ł", "ĺ", "Ģ", "Ã", "©", "h", "i", "hi", "Ġ", "Ġhi", "<|im|>", "©Ã",
    ];
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "h"},
        "added_tokens": [added(0, "<|end|>", true), added(12, "<|im|>", false)], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": numbered(&words), "merges": ["h i", "Ġ hi", "© Ã"],
        },
    })
}

/// Pieces as Llama 2 has them: spaces before words, bytes of what is no piece. 3 to 5 are the bytes of `你`.
fn pieces() -> Json {
    let words = [
        "<unk>", "<s>", "</s>", "<0xE4>", "<0xBD>", "<0xA0>", "▁", "h", "i", "hi", "▁hi",
    ];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": numbered(&words), "merges": ["h i", "▁ hi"],
        },
    })
}

/// Word pieces as BERT has them.
fn word_pieces() -> Json {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "wor", "##ld", ".", "##s"];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(1, "[UNK]", true), added(2, "[CLS]", true), added(3, "[SEP]", true)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": numbered(&words),
        },
    })
}

/// The pieces that a stream gives, and what it held back.
fn streamed(t: &Tokenizer, before: &[i64], tokens: &[i64]) -> Vec<String> {
    let mut stream = t.stream_behind(before);
    let mut out: Vec<String> = tokens.iter().map(|&t| stream.push(t).expect("it decodes")).collect();
    out.push(stream.rest().expect("it decodes"));
    out
}

#[test]
fn texts_become_tokens_and_back() {
    let t = tokenizer(&bytes(), &Json::Null);
    assert_eq!(
        t.encode("hi hi é😀", false).expect("it encodes"),
        [9, 11, 10, 5, 6, 1, 2, 3, 4],
        "neither cut nor padded"
    );
    assert_eq!(t.encode("hi<|end|>", true).expect("it encodes"), [9, 0]);
    assert_eq!(t.decode(&[9, 0, 11, -5, 999, i64::MAX]).expect("it decodes"), "hi hi");
    assert_eq!(
        (t.vocabulary(), t.token("<|end|>"), t.token("nothing")),
        (14, Some(0), None)
    );
    let t = tokenizer(&pieces(), &Json::Null);
    assert_eq!(t.encode("hi hi你", true).expect("it encodes"), [1, 10, 10, 3, 4, 5]);
    assert_eq!(t.encode("hi", false).expect("it encodes"), [10]);
    assert_eq!(t.decode(&[1, 10, 10, 3, 4, 5]).expect("it decodes"), "hi hi你");
    let t = tokenizer(&word_pieces(), &Json::Null);
    assert_eq!(
        t.encode("Hello worlds.", true).expect("it encodes"),
        [2, 4, 5, 6, 8, 7, 3]
    );
    assert_eq!(t.decode(&[2, 4, 5, 6, 8, 7, 3]).expect("it decodes"), "hello worlds.");
}

#[test]
fn tokens_that_settings_call_special_have_no_text() {
    let t = tokenizer(&bytes(), &Json::Null);
    assert_eq!(t.decode(&[9, 12]).expect("it decodes"), "hi<|im|>");
    let special = json!({"added_tokens_decoder": {"12": {"content": "<|im|>", "special": true}, "13": {"content": "none", "special": true}}});
    let t = tokenizer(&bytes(), &special);
    assert_eq!(t.decode(&[9, 12]).expect("it decodes"), "hi");
    assert_eq!(t.vocabulary(), 14, "what the tokenizer does not have is not added");
}

#[test]
fn characters_come_whole() {
    let t = tokenizer(&bytes(), &Json::Null);
    assert_eq!(
        streamed(&t, &[], &[9, 11, 1, 2, 3, 4, 9]),
        ["hi", " hi", "", "", "", "😀", "hi", ""]
    );
    assert_eq!(
        streamed(&t, &[], &[5, 13, 6]),
        ["", "", "éé", ""],
        "a token of two halves"
    );
    assert_eq!(
        streamed(&t, &[], &[9, 1, 2]),
        ["hi", "", "", "\u{fffd}"],
        "a half at the end"
    );
    assert_eq!(streamed(&t, &[], &[9, 0, 12]), ["hi", "", "<|im|>", ""]);
    assert_eq!(streamed(&t, &[], &[-1, 999]), ["", "", ""]);
    // What never becomes one is not held back forever.
    assert!(streamed(&t, &[], &[1; 100])[..100].iter().any(|p| !p.is_empty()));
    let t = tokenizer(&pieces(), &Json::Null);
    assert_eq!(
        streamed(&t, &[], &[10, 10, 3, 4, 5, 3, 4, 5, 10]),
        ["hi", " hi", "", "", "你", "", "", "你", " hi", ""]
    );
    assert_eq!(
        streamed(&t, &[], &[10, 3, 4, 5, 3]),
        ["hi", "", "", "你", "", "\u{fffd}"]
    );
    // The first word has no space, one behind a special token has.
    assert_eq!(streamed(&t, &[], &[1, 10, 2, 10]), ["", "hi", "", " hi", ""]);
    assert_eq!(
        streamed(&t, &[1, 10], &[10, 9]),
        [" hi", "hi", ""],
        "a text that goes on"
    );
}

#[test]
fn streams_are_what_decoding_at_once_gives() {
    let mut state = 1u64;
    let mut below = |n: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((state >> 33) % n) as i64
    };
    for (json, n) in [(bytes(), 14), (word_pieces(), 9)] {
        let t = tokenizer(&json, &Json::Null);
        for _ in 0..300 {
            let length = below(12);
            let tokens: Vec<i64> = (0..length).map(|_| below(n)).collect();
            assert_eq!(
                streamed(&t, &[], &tokens).concat(),
                t.decode(&tokens).expect("it decodes"),
                "{tokens:?}"
            );
        }
    }
}

/// What is wrong with a folder's tokenizer, without the folder's path.
fn refused(files: &[(&str, String)], vocabulary: usize) -> String {
    let dir = folder(files);
    let files = Files::of_folder(dir.path()).expect("it reads");
    let error = Tokenizer::of(&files, vocabulary)
        .err()
        .expect("it is refused")
        .to_string();
    error
        .strip_prefix(&format!("{}/", dir.path().display()))
        .expect("it names the file")
        .to_owned()
}

#[test]
fn what_is_wrong_with_a_tokenizer_is_told() {
    let whole = bytes().to_string();
    assert!(refused(&[], 100).starts_with("tokenizer.json: there is none; where there is a `tokenizer.model`"));
    // At any byte where a character ends.
    for at in (0..whole.len()).step_by(41).filter(|&at| whole.is_char_boundary(at)) {
        let message = refused(&[("tokenizer.json", whole[..at].to_owned())], 100);
        assert!(message.starts_with("tokenizer.json: "), "{message}");
    }
    for text in [
        "[]",
        "{}",
        "null",
        "{\"version\": \"1.0\", \"model\": {\"type\": \"What\"}}",
    ] {
        assert!(refused(&[("tokenizer.json", text.into())], 100).starts_with("tokenizer.json: "));
    }
    let mut empty = bytes();
    empty["model"]["vocab"] = json!({});
    empty["model"]["merges"] = json!([]);
    empty["added_tokens"] = json!([]);
    assert_eq!(
        refused(&[("tokenizer.json", empty.to_string())], 100),
        "tokenizer.json: it has no tokens"
    );
    // The crate panics at this one.
    let mut damaged = pieces();
    damaged["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "not base64"});
    assert_eq!(
        refused(&[("tokenizer.json", damaged.to_string())], 100),
        "tokenizer.json: a part of it is damaged"
    );
    let few = refused(&[("tokenizer.json", whole.clone())], 13);
    assert_eq!(
        few,
        "tokenizer.json: token `©Ã` has the number 13, and the model 13 tokens"
    );
    let settings = refused(
        &[("tokenizer.json", whole), ("tokenizer_config.json", "{\"a\": ".into())],
        100,
    );
    assert!(settings.starts_with("tokenizer_config.json: EOF"), "{settings}");
}

const CHATML: &str = "{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {%- for tool in tools %}
        {{- tool | tojson + '\n' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\n{\"name\": \"' + call.name + '\", \"arguments\": ' + call.arguments | tojson + '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}";

const LLAMA: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
    {% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
    {% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
    {{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}\
    {% if loop.index0 == 0 and system_message != false %}\
    {% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}\
    {% else %}{% set content = message['content'] %}{% endif %}\
    {% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
    {% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
    {% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}\
    {% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

fn template(settings: &Json) -> Result<ChatTemplate, String> {
    let dir = folder(&[("tokenizer_config.json", settings.to_string())]);
    let template = ChatTemplate::of(&Files::of_folder(dir.path()).expect("it reads"));
    template.map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

/// A template beside special tokens, one of which is an object.
fn family(text: &str) -> ChatTemplate {
    let settings = json!({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null, "chat_template": text});
    template(&settings).expect("it is a template")
}

fn say(role: &str, text: &str) -> Json {
    json!({"role": role, "content": text})
}

#[test]
fn chats_without_tools() {
    let chat = [
        say("system", "be brief"),
        say("user", " hi "),
        say("assistant", "hello\n"),
        say("user", "bye"),
    ];
    let text = |template: &str, chat: &[Json]| family(template).render(chat, None).map_err(|e| e.to_string());
    assert_eq!(
        text(CHATML, &chat).as_deref(),
        Ok(
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n hi <|im_end|>\n<|im_start|>assistant\nhello\n<|im_end|>\n\
            <|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
        )
    );
    assert_eq!(
        text(LLAMA, &chat).as_deref(),
        Ok("<s>[INST] <<SYS>>\nbe brief\n<</SYS>>\n\n hi [/INST] hello </s><s>[INST] bye [/INST]")
    );
    assert_eq!(
        text(GEMMA, &chat[1..]).as_deref(),
        Ok(
            "<s><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nhello<end_of_turn>\n<start_of_turn>user\nbye<end_of_turn>\n\
            <start_of_turn>model\n"
        )
    );
    let refused = text(GEMMA, &chat).expect_err("it has no system messages");
    assert!(
        refused.ends_with("tokenizer_config.json: its template of chats, line 1: System role not supported"),
        "{refused}"
    );
    let refused = text(LLAMA, &[say("user", "a"), say("user", "b")]).expect_err("roles do not alternate");
    assert!(
        refused.contains("Conversation roles must alternate user/assistant"),
        "{refused}"
    );
    let refused = text(LLAMA, &[]).expect_err("there is no message");
    assert!(refused.contains("tokenizer_config.json: "), "{refused}");
}

#[test]
fn chats_with_tools_keep_the_order_of_fields() {
    // As a server is sent it: content that is null, text in parts, arguments as text.
    let body = r#"{
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "weather?"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"days\": 2, \"city\": \"Zürich\"}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "sun"}, {"role": "tool", "content": "rain"}
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "It's <the> weather", "parameters": {}}}]
    }"#;
    let body = Ordered::parse(body).expect("it is JSON");
    let (messages, tools) = (body.get("messages").expect("they are there").items(), body.get("tools"));
    let off = [("enable_thinking", Ordered::from(&json!(false)))];
    assert_eq!(
        family(CHATML)
            .render_with(&messages, tools.as_ref(), true, &off)
            .expect("it renders"),
        "<|im_start|>system\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"It's <the> weather\", \
         \"parameters\": {}}}\n<|im_end|>\n<|im_start|>user\nweather?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \
         \"arguments\": {\"days\": 2, \"city\": \"Zürich\"}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nsun\n</tool_response>\n\
         <tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
    let named = json!({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]});
    let named = template(&named).expect("they are templates");
    assert_eq!(named.render(&[], None).expect("it renders"), "plain");
    assert_eq!(
        named.render_with(&[], tools.as_ref(), true, &[]).expect("it renders"),
        "1 tools"
    );
}

#[test]
fn templates_have_what_transformers_gives_them() {
    let text = |template: &str| {
        let chat = [json!({"role": "user", "content": "q", "name": null, "thinking": "hm"})];
        family(template).render(&chat, None).map_err(|e| e.to_string())
    };
    for (template, wanted) in [
        (
            "{{ tools is none }} {{ documents is none }} {{ nothing is defined }}",
            "True True False",
        ),
        ("{{ strftime_now('%Y') | length }}", "4"),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "013",
        ),
        (
            "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
            "2",
        ),
        (
            "{%- for m in messages %}\n  {%- generation %}\n{{ m.content }}\n  {% endgeneration %}\n{%- endfor %}",
            "q\n",
        ),
        (
            "{{ 'name' in messages[0] }} {{ messages[0].reasoning_content }}",
            "False hm",
        ),
        (
            "{{ [1e-7, 1e16, 1.0, 0.1, true, none, \"'<é>\\n\"] | tojson }}",
            "[1e-07, 1e+16, 1.0, 0.1, true, null, \"'<é>\\n\"]",
        ),
        ("{{ 'é😀' | tojson(ensure_ascii=true) }}", "\"\\u00e9\\ud83d\\ude00\""),
        (
            "{{ {'b': [1, {}], 'a': []} | tojson(indent=2) }}",
            "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": []\n}",
        ),
        (
            "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}",
            "{\"a\":2,\"b\":1}",
        ),
        (
            "{{ 'a,b'.split(',')[-1] }}{{ ' a '.strip() }}{{ 'abc'.removesuffix('c') }}{{ {'k': 1}.items() | list }}",
            "baab[('k', 1)]",
        ),
        ("{{ none }}{{ true }}{{ {'a': none} }}", "NoneTrue{'a': None}"),
        ("{{ '<&>' }}\n{# no #}\n  {% if true %}\nx\n  {% endif %}\n", "<&>\nx\n"),
    ] {
        assert_eq!(text(template).as_deref(), Ok(wanted), "{template}");
    }
    for template in [
        "{{ nothing.more }}",
        "{{ 'a' + none }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ strftime_now('%!') }}",
        "{{ 1 | tojson(what=1) }}",
        "{{ 1 | tojson(indent=-1) }}",
        "{{ 1 | tojson(separators=1) }}",
    ] {
        let message = text(template).expect_err(template);
        assert!(message.contains("its template of chats"), "{message}");
    }
}

#[test]
fn what_is_wrong_with_a_template_is_told() {
    let none = template(&json!({"eos_token": "</s>"})).err().expect("there is none");
    assert!(
        none.starts_with("tokenizer_config.json: there is no template of chats"),
        "{none}"
    );
    let wrong = template(&json!({"chat_template": "a\n{% if %}"}))
        .err()
        .expect("it is none");
    assert!(
        wrong.starts_with("tokenizer_config.json: its template of chats, line 2: "),
        "{wrong}"
    );
    for open in ["{% generation", "{%", "{{", "{% generation %}", "{#"] {
        let _ = template(&json!({"chat_template": open}));
    }
    assert!(template(&json!({"chat_template": [{"name": "rag", "template": "x"}]})).is_err());
    let dir = folder(&[
        (
            "tokenizer_config.json",
            json!({"chat_template": "settings"}).to_string(),
        ),
        ("special_tokens_map.json", json!({"bos_token": "<b>"}).to_string()),
        ("chat_template.jinja", "file {{ bos_token }}{{ eos_token }}".into()),
    ]);
    let both = ChatTemplate::of(&Files::of_folder(dir.path()).expect("it reads")).expect("it is a template");
    assert_eq!(both.render(&[], None).expect("it renders"), "file <b>");
}
