//! Texts by the small model in `examples/tiny_llama`: the tokens that transformers gives, prefixes that are not computed again, texts that
//! end, chats, artefacts, compressed weights; and prompts that cannot be gone on from.

#![cfg(feature = "text")]

mod common;

use brolga::Options;
use brolga::frontend::safetensors::WeightType;
use brolga::generate::reply::{Finish, Reply};
use brolga::generate::text::Tokenizer;
use brolga::generate::{Draft, End, Generator, Model, Prefixes, Sampling, Settings};
use common::brolga as command;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};

/// What follows "Emma was" by the best token, as transformers 5.24 computes it in f32. The smallest gap between the two best is 0.08.
const EMMA: [i64; 32] = [
    314, 356, 387, 261, 284, 515, 330, 392, 358, 878, 632, 321, 14, 513, 305, 314, 292, 267, 423, 526, 267, 278, 289,
    69, 12, 789, 12, 273, 286, 734, 14, 513,
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama")
}

fn model() -> Model {
    Model::load(folder(), &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"))
}

fn tokenizer(model: &Model) -> Tokenizer {
    Tokenizer::of(model.files(), model.facts().vocabulary).unwrap_or_else(|e| panic!("{e}"))
}

fn greedy(max_tokens: usize) -> Settings {
    Settings {
        max_tokens,
        ..Settings::default()
    }
}

fn tokens(g: Generator) -> Vec<i64> {
    g.map(|t| t.unwrap_or_else(|e| panic!("{e}"))).collect()
}

#[test]
fn the_best_tokens_are_those_of_transformers() {
    let m = model();
    let prompt = tokenizer(&m).encode("Emma was", true).unwrap();
    assert_eq!(prompt, [37, 690, 305]);
    let g = Generator::new(&m, None, &prompt, greedy(32)).unwrap();
    assert_eq!(tokens(g), EMMA);
}

#[test]
fn a_prefix_is_computed_once() {
    let m = model();
    let kept = Prefixes::new(2);
    let t = tokenizer(&m);
    let prompt = t
        .encode(
            "It was a truth that Mr. Weston had long wished to have acknowledged, and",
            true,
        )
        .unwrap();
    let run = |prompt: &[i64], n| {
        let mut g = Generator::new(&m, Some(&kept), prompt, greedy(n)).unwrap();
        let computed = g.computed();
        let all: Vec<i64> = g.by_ref().map(|t| t.unwrap()).collect();
        (computed, all)
    };
    let (computed, first) = run(&prompt, 8);
    assert_eq!(computed, prompt.len());
    // The same again: the last token alone, for its logits.
    assert_eq!(run(&prompt, 8), (1, first.clone()));
    // A conversation that goes on: what was generated counts as well, but for the last token, which was never read.
    let more = t.encode(" It was", false).unwrap();
    let longer = [&prompt[..], &first, &more].concat();
    let (computed, _) = run(&longer, 4);
    assert_eq!(computed, more.len() + 1);
    // Another text with the same beginning computes what is new, and gives what it gives alone.
    let other = [&prompt[..5], &t.encode(" Emma was", false).unwrap()[..]].concat();
    let (computed, found) = run(&other, 8);
    assert_eq!(computed, other.len() - 5);
    assert_eq!(found, tokens(Generator::new(&m, None, &other, greedy(8)).unwrap()));
    // And the first one is still there.
    assert_eq!(run(&prompt, 8), (1, first));
}

/// Drafts that are always right, nearly always, and hardly ever: the texts are the same, best tokens or drawn ones, also where they end early.
#[test]
fn drafts_change_no_text() {
    let m = model();
    let few = Model::load(folder(), &int4(), 1).unwrap_or_else(|e| panic!("{e}"));
    let prompt = tokenizer(&m).encode("It was a fine morning, and", true).unwrap();
    let drawn = Sampling {
        temperature: 1.5,
        seed: 3,
        ..Sampling::default()
    };
    for sampling in [Sampling::default(), drawn] {
        for n in [1, 2, 7, 60] {
            let settings = Settings {
                sampling: sampling.clone(),
                max_tokens: n,
                ignore_end: true,
            };
            let alone = tokens(Generator::new(&m, None, &prompt, settings.clone()).unwrap());
            for (small, most) in [(&m, 4), (&few, 4), (&few, 1), (&m, 9)] {
                let kept = Prefixes::new(1);
                let draft = Draft::new(small, &m, most).unwrap();
                let g = Generator::new(&m, Some(&kept), &prompt, settings.clone()).unwrap();
                let mut g = g.with_draft(draft);
                let found: Vec<i64> = g.by_ref().map(|t| t.unwrap()).collect();
                assert_eq!(found, alone, "{n} tokens, {most} at once, {sampling:?}");
                let [proposed, accepted] = g.draft().unwrap().counts();
                assert!(accepted <= proposed && proposed < n.max(2) * most);
                if sampling.temperature == 0.0 && std::ptr::eq(small, &m) {
                    assert_eq!(proposed, accepted, "its own tokens");
                    // Of each run one token more than was proposed, and of the prompt's.
                    assert!(accepted + accepted.div_ceil(most) + 2 >= n, "{accepted} of {n}");
                }
                drop(g);
                // What is kept is the text, whatever was proposed behind it.
                let again = Generator::new(&m, Some(&kept), &[&prompt[..], &alone].concat(), greedy(1)).unwrap();
                assert!(again.computed() <= 2);
            }
        }
    }
    assert_eq!(
        tokens(
            Generator::new(&m, None, &prompt, greedy(1))
                .unwrap()
                .with_draft(Draft::new(&few, &m, 4).unwrap())
        )
        .len(),
        1
    );
    let refused = Draft::new(&m, &m, 0).err().unwrap().to_string();
    assert!(refused.contains("a draft of no tokens"), "{refused}");
}

#[test]
fn a_draft_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder().display().to_string();
    let run = |more: &[&str]| {
        let args = [&["generate", &folder, "Emma was", "--max-tokens", "24", "--json"], more].concat();
        let ran = command(dir.path(), &args);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let all: Json = serde_json::from_str(&ran.out).unwrap();
        all["tokens"].clone()
    };
    assert_eq!(run(&["--draft", &folder]), run(&[]));
    let ran = command(dir.path(), &["generate", &folder, "Emma", "--draft", "nowhere"]);
    assert!(ran.status == 2 && ran.err.contains("nowhere"), "{}", ran.err);
}

fn int4() -> Options {
    let mut options = Options::default();
    options.folder.weights = Some(WeightType::Int4);
    options
}

/// Bit by bit: what draws tokens must not depend on who else is there.
#[test]
fn sequences_together_have_the_logits_that_they_have_alone() {
    let prompt: Vec<i64> = (0..200).map(|i| (i * 37 + 11) % 1000).collect();
    for weights in [
        None,
        Some(WeightType::F32),
        Some(WeightType::Int8),
        Some(WeightType::Int4),
    ] {
        let mut options = Options::default();
        options.folder.weights = weights;
        let m = Model::load(folder(), &options, 1).unwrap_or_else(|e| panic!("{e}"));
        let lengths = [5, 32, 47, 150];
        let mut together = m.cache(lengths.len()).unwrap();
        for (slot, n) in lengths.into_iter().enumerate() {
            assert_eq!(together.begin(), slot);
            m.step(&mut together, slot, &prompt[..n], 1).unwrap();
        }
        // Alone, and in two parts.
        let mut alone = lengths.map(|n| {
            let mut cache = m.sequence().unwrap();
            m.step(&mut cache, 0, &prompt[..n / 2], 1).unwrap();
            m.step(&mut cache, 0, &prompt[n / 2..n], 1).unwrap();
            cache
        });
        for i in 0..20 {
            let next = lengths.map(|n| prompt[n + i]);
            let all = m.step_all(&mut together, &next).unwrap();
            let rows = all.as_slice::<f32>().unwrap().chunks_exact(m.facts().vocabulary);
            for ((cache, token), row) in alone.iter_mut().zip(next).zip(rows) {
                let own = m.step(cache, 0, &[token], 1).unwrap();
                assert!(own.as_slice::<f32>().unwrap() == row, "{weights:?}, token {i}");
            }
        }
    }
}

#[test]
fn texts_end() {
    let m = model();
    let t = tokenizer(&m);
    let prompt = t.encode("Emma was", true).unwrap();
    let all = t.decode(&EMMA).unwrap();
    assert_eq!(
        all,
        " not so very sorry she could have supposed it. She was not in the least the case, however, to be sure. She"
    );
    let reply = |stops: &[&str], n| {
        let g = Generator::new(&m, None, &prompt, greedy(n)).unwrap();
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut r = Reply::new(g, &t, &prompt, &stops);
        let text: String = r.by_ref().map(|p| p.unwrap()).collect();
        (text, r.finish())
    };
    assert_eq!(reply(&[], 32), (all, Some(Finish::Length)));
    assert_eq!(
        reply(&[". S", "zebra"], 32),
        (
            " not so very sorry she could have supposed it".into(),
            Some(Finish::Stop)
        )
    );
    // Until the context ends; its own end of a text is left out.
    let long = Settings {
        max_tokens: 1000,
        ignore_end: true,
        ..Settings::default()
    };
    let mut g = Generator::new(&m, None, &prompt, long).unwrap();
    assert_eq!(g.by_ref().count() + prompt.len(), 256);
    assert_eq!(g.end(), Some(End::Context));
}

#[test]
fn draws_depend_on_the_seed_alone() {
    let m = model();
    let prompt = tokenizer(&m).encode("She had", true).unwrap();
    let drawn = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            top_p: 0.95,
            seed,
            ..Sampling::default()
        };
        tokens(Generator::new(&m, None, &prompt, Settings { sampling, ..greedy(24) }).unwrap())
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn artefacts_carry_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tiny.brolga");
    let c = brolga::generate::model::compile(folder(), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    c.write_artefact(&file).unwrap();
    let m = Model::load(&file, &Options::default(), 2).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(m.facts(), model().facts());
    let prompt = tokenizer(&m).encode("Emma was", true).unwrap();
    assert_eq!(tokens(Generator::new(&m, None, &prompt, greedy(32)).unwrap()), EMMA);
    let ran = command(dir.path(), &["generate", "tiny.brolga", "Emma", "--weights", "int4"]);
    assert!(
        ran.status == 2 && ran.err.contains("an artefact is compiled already"),
        "{}",
        ran.err
    );
    // One that does not generate says how to make one that does.
    let ran = command(
        dir.path(),
        &["compile", &folder().display().to_string(), "-o", "whole.brolga"],
    );
    assert_eq!(ran.status, 0, "{}", ran.err);
    let ran = command(dir.path(), &["generate", "whole.brolga", "Emma"]);
    assert!(
        ran.status == 2 && ran.err.contains("brolga compile FOLDER --generator"),
        "{}",
        ran.err
    );
}

/// Against transformers 5.24 in f32: 66 tokens of a window of 256, and 62 of windows of 16.
#[test]
fn texts_cost_what_they_cost_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let text = "She was not so very sorry that he had been sent for. It was a fine morning, and Mr. Weston, who had always been fond of a \
        walk, was persuaded to go with them to the Abbey; but Emma could not think of it without a sigh.";
    fs::write(dir.path().join("text.txt"), text).unwrap();
    let model = folder().display().to_string();
    let run = |args: &[&str]| {
        command(
            dir.path(),
            &[&["perplexity", model.as_str(), "text.txt"], args].concat(),
        )
    };
    for (window, perplexity, tokens) in [("512", 9.956382054910659, 66), ("16", 11.822881280233787, 62)] {
        let ran = run(&["--window", window, "--json", "--weights", "f32"]);
        let json: Json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        assert_eq!(json["tokens"], tokens);
        let found = json["perplexity"].as_f64().unwrap();
        assert!((found / perplexity - 1.0).abs() < 1e-5, "{found} for {perplexity}");
    }
    let ran = run(&["--window", "1"]);
    assert!(
        ran.status == 2 && ran.err.contains("in windows of 1: expected two or more"),
        "{}",
        ran.err
    );
}

#[test]
fn few_bits_write_nearly_the_same() {
    let logits = |weights| {
        let mut options = Options::default();
        options.folder.weights = weights;
        let m = Model::load(folder(), &options, 1).unwrap_or_else(|e| panic!("{e}"));
        let mut cache = m.sequence().unwrap();
        let prompt = tokenizer(&m).encode("Emma was not in the", true).unwrap();
        let y = m.step(&mut cache, 0, &prompt, prompt.len()).unwrap();
        // As few rows, which have a kernel of their own.
        cache.truncate(0, prompt.len() - 1);
        let last = m.step(&mut cache, 0, &prompt[prompt.len() - 1..], 1).unwrap();
        (
            y.as_slice::<f32>().unwrap().to_vec(),
            last.as_slice::<f32>().unwrap().to_vec(),
            m.facts().streamed,
        )
    };
    let (whole, _, bytes) = logits(Some(WeightType::F32));
    let largest = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
    // The folder has bf16, which products in f32 read as it is. A matrix whose inner dimension has no whole blocks, of 344, stays as it is.
    // Of what the largest logit is: half a step of 8 bits is 0.4 % of a weight, of 4 bits 7 %, and errors of 26 products add up.
    for (kind, least, share) in [
        (WeightType::Bf16, 0.02, 1.0),
        (WeightType::F16, 0.002, 1.0),
        (WeightType::Int8, 0.03, 0.68),
        (WeightType::Int4, 0.3, 0.52),
    ] {
        let (found, last, fewer) = logits(Some(kind));
        let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max) / largest;
        let error = off(&found, &whole);
        assert!(error > 0.0 && error < least, "{kind:?} is off by {error}");
        assert!(
            off(&last, &found[found.len() - last.len()..]) < 1e-4,
            "{kind:?}: one row and many differ"
        );
        assert!(
            fewer as f64 <= share * bytes as f64,
            "{kind:?} reads {fewer} of {bytes} bytes"
        );
    }
}

/// Keys and values in fewer bits foretell a text as well, but for a thousandth in f16 and a hundredth in integers; artefacts carry what they keep.
#[test]
fn caches_of_fewer_bits_foretell_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder().display().to_string();
    let text = "She was not so very sorry that he had been sent for. It was a fine morning, and Mr. Weston, who had always been fond of a walk, was \
        persuaded to go with them to the Abbey; but Emma could not think of it without a sigh.";
    fs::write(dir.path().join("text.txt"), text).unwrap();
    let perplexity = |kv: &str| {
        let ran = command(dir.path(), &["perplexity", &folder, "text.txt", "--json", "--kv", kv]);
        let json: Json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
        json["perplexity"].as_f64().unwrap()
    };
    let whole = perplexity("f32");
    for (kv, most) in [("f16", 1e-3), ("int8", 1e-2)] {
        let off = (perplexity(kv) / whole - 1.0).abs();
        assert!(off > 0.0 && off < most, "{kv}: off by {off}");
    }
    let ran = command(
        dir.path(),
        &["compile", &folder, "--generator", "--kv", "int8", "-o", "small.brolga"],
    );
    assert_eq!(ran.status, 0, "{}", ran.err);
    let text = |model: &str, more: &[&str]| {
        let ran = command(
            dir.path(),
            &[&["generate", model, "Emma was", "--max-tokens", "20"], more].concat(),
        );
        assert_eq!(ran.status, 0, "{}", ran.err);
        ran.out
    };
    assert_eq!(text("small.brolga", &[]), text(&folder, &["--kv", "int8"]));
    for (args, why) in [
        (
            vec!["generate", "small.brolga", "Emma", "--kv", "f16"],
            "an artefact is compiled already",
        ),
        (
            vec!["run", folder.as_str(), "--kv", "f16"],
            "--kv is for models that generate",
        ),
        (
            vec!["generate", folder.as_str(), "Emma", "--kv", "int4"],
            "expected one of f32, f16, int8",
        ),
    ] {
        let ran = command(dir.path(), &args);
        assert!(ran.status == 2 && ran.err.contains(why), "{}", ran.err);
    }
}

#[test]
fn prompts_that_cannot_be_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let model = folder().display().to_string();
    let refused = |args: &[&str]| {
        let ran = command(dir.path(), &[&["generate", model.as_str()], args].concat());
        assert_eq!(ran.status, 2, "{}", ran.out);
        ran.err
    };
    assert!(refused(&[""]).contains("an empty prompt"));
    assert!(refused(&[&"word ".repeat(300)]).contains("beyond the model's context of 256"));
    assert!(refused(&["a", "--top-p", "2"]).contains("top_p 2, expected above 0, at most 1"));
    assert!(refused(&["a", "--weights", "int3"]).contains("int3: expected one of f32, bf16, f16, int8, int4"));
    assert!(refused(&["a", "--chat"]).contains("there is no template of chats"));
    // Tokenizers that do not fit.
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(folder().join(name), copy.join(name)).unwrap();
    }
    let with = |text: Option<&str>| {
        match text {
            Some(t) => fs::write(copy.join("tokenizer.json"), t).unwrap(),
            None => fs::remove_file(copy.join("tokenizer.json")).unwrap(),
        }
        let ran = command(dir.path(), &["generate", "copy", "a"]);
        assert_eq!(ran.status, 2, "{}", ran.out);
        ran.err
    };
    let own = fs::read_to_string(folder().join("tokenizer.json")).unwrap();
    assert!(with(Some(&own[..own.len() / 2])).contains("tokenizer.json"));
    let mut json: Json = serde_json::from_str(&own).unwrap();
    json["model"]["vocab"]["zebra"] = 5000.into();
    let e = with(Some(&json.to_string()));
    assert!(
        e.contains("tokenizer.json: token `zebra` has the number 5000, and the model 1024 tokens"),
        "{e}"
    );
    assert!(with(None).contains("tokenizer.json: there is none"));
}

#[test]
fn a_chat_goes_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        fs::copy(folder().join(name), copy.join(name)).unwrap();
    }
    let template = "{% for m in messages %}{{ m.content }}{{ '\n' }}{% endfor %}";
    fs::write(
        copy.join("tokenizer_config.json"),
        json!({ "chat_template": template }).to_string(),
    )
    .unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_brolga"))
        .args(["chat", "copy", "--temperature", "0", "--max-tokens", "5"])
        .current_dir(dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = "Emma was silent.\n/retry\n/nonsense\n/clear\nEmma was silent.\n";
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), said.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    let replies: Vec<&str> = text.split_inclusive('\n').collect();
    assert!(!text.trim().is_empty());
    // Asked again, and with the conversation forgotten, the model says the same.
    let third = text.len() / 3;
    assert_eq!(text[..third], text[third..2 * third], "{replies:?}");
    assert_eq!(text[..third], text[2 * third..], "{replies:?}");
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("/nonsense is no command")
    );
}
