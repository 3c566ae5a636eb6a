//! Models with an encoder and a decoder: texts by T5, by beams, against transformers' tokens; their artefacts, and adapters for both halves; and
//! what such models refuse.

#![cfg(feature = "text")]

mod common;

use brolga::generate::beams::{Beams, Early, search};
use brolga::generate::text::Tokenizer;
use brolga::generate::{End, Generator, Model, Settings};
use brolga::ir::Tensor;
use brolga::{Options, compile, source, tensors};
use common::{adapter, brolga as command, references, speech_data};
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
fn artefacts_hold_both_halves() {
    let dir = tempfile::tempdir().unwrap();
    let folder = speech_data().join("t5").display().to_string();
    common::ok(dir.path(), &["compile", &folder, "--generator", "-o", "t5.brolga"]);
    for args in [&["--beams", "1"][..], &[], &["--beams", "2", "--length-penalty", "2"]] {
        let tokens = |model: &str| {
            let all = [&["generate", model, "no", "--max-tokens", "16", "--json"], args].concat();
            common::json(dir.path(), &all)["tokens"].clone()
        };
        assert_eq!(tokens("t5.brolga"), tokens(&folder), "{args:?}");
    }
    // What both halves read is there once: the table of words, 64 of 24 elements.
    let path = dir.path().join("t5.brolga");
    let c = brolga::generate::model::compile(&folder, &Options::default()).unwrap();
    let own = c.packed.bytes().len() + c.beside[0].packed.bytes().len();
    let good = fs::read(&path).unwrap();
    let artefact = brolga::abi::artefact::Artefact::parse(&good).unwrap();
    assert_eq!(artefact.programs().len(), 2);
    assert!(
        artefact.weights().len() + 64 * 24 * 4 <= own,
        "{} bytes of {own}",
        artefact.weights().len()
    );
    // Damage in the code of either half, and in the weights of either, is found.
    let codes = artefact.programs().iter().map(|p| p.code.start);
    let weights = artefact.weights();
    for at in codes.chain([weights.start, weights.end - 65]) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let ran = command(dir.path(), &["generate", "t5.brolga", "no"]);
        assert_eq!((ran.status, ran.out.as_str()), (2, ""), "byte {at}");
        assert!(ran.err.contains("damaged artefact"), "{}", ran.err);
    }
}

/// In steps, adapters add what they add to the whole graph, to both halves and to what lies between them.
#[test]
fn adapters_are_for_both_halves() {
    let dir = tempfile::tempdir().unwrap();
    let modules = [
        ("encoder.block.0.layer.0.SelfAttention.q", [16, 24]),
        ("encoder.block.1.layer.1.DenseReluDense.wi", [40, 24]),
        ("decoder.block.0.layer.0.SelfAttention.v", [16, 24]),
        ("decoder.block.1.layer.1.EncDecAttention.k", [16, 24]),
        ("decoder.block.0.layer.1.EncDecAttention.v", [16, 24]),
        ("decoder.block.1.layer.2.DenseReluDense.wo", [24, 40]),
    ];
    adapter(&dir.path().join("lora"), &modules);
    let folder = speech_data().join("t5");
    let mut options = Options::default();
    options.folder.lora = vec![(dir.path().join("lora"), 1.0)];
    let prompt = [5, 17, 40, 1];
    let steps = |options: &Options| -> Vec<i64> {
        let model = Model::load(&folder, options, 1).unwrap_or_else(|e| panic!("{e}"));
        let settings = Settings {
            max_tokens: 12,
            ignore_end: true,
            ..Settings::default()
        };
        let all = Generator::new(&model, None, &prompt, settings).unwrap();
        all.map(|t| t.unwrap()).collect()
    };
    let graph = source::graph_for(&folder, &options).unwrap_or_else(|e| panic!("{e}"));
    let session = compile(&graph, &options).and_then(|c| c.session()).unwrap();
    let mut written = vec![0];
    while written.len() <= 12 {
        let source = Tensor::from_i64(&[1, 4], &prompt);
        let before = Tensor::from_i64(&[1, written.len()], &written);
        let out = session.run(&[tensors::view(&source), tensors::view(&before)]).unwrap();
        let logits = out[0].as_slice::<f32>().unwrap();
        let last = &logits[logits.len() - 64..];
        let best = (0..64).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
        written.push(best as i64);
    }
    assert_eq!(steps(&options), written[1..]);
    assert_ne!(steps(&Options::default()), written[1..]);
    // The artefact is compiled with it.
    let lora = dir.path().join("lora").display().to_string();
    let folder = folder.display().to_string();
    let compiled = ["compile", &folder, "--generator", "--lora", &lora, "-o", "t5.brolga"];
    common::ok(dir.path(), &compiled);
    let tokens = |args: &[&str]| {
        let all = [&["generate"], args, &["no", "--max-tokens", "12", "--json"]].concat();
        common::json(dir.path(), &all)["tokens"].clone()
    };
    assert_eq!(tokens(&["t5.brolga"]), tokens(&[&folder, "--lora", &lora]));
    assert_ne!(tokens(&["t5.brolga"]), tokens(&[&folder]));
    // What fits neither half is named, and so is what would add to the head, which is the table of words.
    for module in [
        "decoder.block.7.layer.0.SelfAttention.v",
        "lm_head",
        "encoder.embed_tokens",
    ] {
        adapter(&dir.path().join("other"), &[(module, [64, 24])]);
        let ran = command(dir.path(), &["generate", &folder, "no", "--lora", "other"]);
        assert!(ran.status == 2 && ran.err.contains(module), "{}", ran.err);
    }
}

#[test]
fn what_such_models_refuse() {
    let dir = tempfile::tempdir().unwrap();
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
