//! Models with an encoder and a decoder: texts by T5, by beams, against transformers' tokens; and what such models refuse.

#![cfg(feature = "text")]

mod common;

use brolga::Options;
use brolga::generate::beams::{Beams, Early, search};
use brolga::generate::text::Tokenizer;
use brolga::generate::{End, Generator, Model, Settings};
use common::{brolga as command, references, speech_data};
use serde_json::Value as Json;
use std::fs;
use std::path::{Path, PathBuf};

fn load(name: &str) -> Model {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folder = match name {
        "tiny_llama" => examples.join(name),
        _ => speech_data().join(name),
    };
    Model::load(folder, &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"))
}

fn beams(case: &Json) -> Beams {
    Beams {
        width: case["num_beams"].as_u64().unwrap() as usize,
        length_penalty: case["length_penalty"].as_f64().unwrap_or(1.0),
        early: match &case["early_stopping"] {
            Json::Bool(true) => Early::Yes,
            Json::String(_) => Early::Never,
            _ => Early::No,
        },
    }
}

#[test]
fn beams_find_what_transformers_finds() {
    let cases = references()["beams"].as_array().unwrap().clone();
    assert!(cases.len() >= 20);
    for name in ["t5", "tiny_llama"] {
        let model = load(name);
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary).unwrap();
        for case in cases.iter().filter(|c| c["model"] == name) {
            let wanted: Vec<i64> = serde_json::from_value(case["tokens"].clone()).unwrap();
            let prompt = tokenizer.encode(case["prompt"].as_str().unwrap(), true).unwrap();
            let mut settings = Settings {
                max_tokens: 16,
                ..Settings::default()
            };
            settings.sampling.repetition_penalty = case["repetition_penalty"].as_f64().unwrap_or(1.0) as f32;
            let found = search(&model, &prompt, &beams(case), &settings).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(found.tokens, wanted, "{case}");
            assert_eq!(found.end == End::Token, wanted.len() < 16, "{case}");
            if case["num_beams"] == 1 {
                let all = Generator::new(&model, None, &prompt, settings).unwrap();
                assert_eq!(all.map(|t| t.unwrap()).collect::<Vec<_>>(), wanted, "{case}");
            }
        }
    }
}

#[test]
fn the_command_searches_as_the_folder_says() {
    let folder = speech_data().join("t5").display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let all = [&["generate", &folder, "no", "--max-tokens", "16", "--json"], args].concat();
        let ran = command(dir.path(), &all);
        let json: Json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        (ran.status, json)
    };
    let of = |wanted: &dyn Fn(&Json) -> bool| {
        let all = references();
        let all = all["beams"].as_array().unwrap();
        let found = all
            .iter()
            .find(|c| c["model"] == "t5" && c["prompt"] == "no" && wanted(c));
        found.unwrap()["tokens"].clone()
    };
    let own = run(&[]);
    let said = run(&["--beams", "3", "--length-penalty", "0.8", "--early-stopping", "true"]);
    assert_eq!(own.1["tokens"], said.1["tokens"]);
    let never = ["--beams", "3", "--early-stopping", "never", "--length-penalty", "1.5"];
    assert_eq!(run(&never).1["tokens"], of(&|c| c["early_stopping"] == "never"));
    let negative = ["--beams", "4", "--early-stopping", "false", "--length-penalty", "-1"];
    assert_eq!(run(&negative).1["tokens"], of(&|c| c["length_penalty"] == -1.0));
    assert_eq!(run(&["--beams", "1"]).1["tokens"], of(&|c| c["num_beams"] == 1));
    let (status, json) = run(&["--temperature", "1"]);
    assert_eq!(status, 2);
    assert!(json["error"].as_str().unwrap().contains("draw none"), "{json}");
    let (status, json) = run(&["--beams", "65"]);
    assert_eq!(status, 2);
    assert!(
        json["error"].as_str().unwrap().contains("65 beams, expected 1 to 64"),
        "{json}"
    );
}

#[test]
fn what_such_models_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let folder = speech_data().join("t5").display().to_string();
    let ran = command(dir.path(), &["compile", &folder, "--generator", "-o", "t5.brolga"]);
    assert!(
        ran.status == 2 && ran.err.contains("is no artefact that generates"),
        "{}",
        ran.err
    );
    // Without a token to begin with.
    let copy: PathBuf = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(speech_data().join("t5").join(name), copy.join(name)).unwrap();
    }
    let ran = command(
        dir.path(),
        &["generate", "copy", "no", "--config", "decoder_start_token_id=null"],
    );
    assert!(
        ran.status == 2 && ran.err.contains("decoder_start_token_id is missing"),
        "{}",
        ran.err
    );
    let ran = command(dir.path(), &["generate", "copy", "no", "--max-tokens", "4"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
}
