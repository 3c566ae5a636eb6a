//! Texts that are held to a form, by the small model in `examples/tiny_llama`: best tokens and drawn ones; forms that cannot be held to.

#![cfg(feature = "grammar")]

mod common;

use brolga::Options;
use brolga::generate::beams::{Beams, Early, search_held};
use brolga::generate::grammar::{Constraint, Grammar, Grammars};
use brolga::generate::text::Tokenizer;
use brolga::generate::{Draft, End, Generator, Model, Sampling, Settings};
use common::brolga as command;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama")
}

struct Writer {
    model: Model,
    tokenizer: Tokenizer,
    grammars: Grammars,
}

impl Writer {
    fn new() -> Writer {
        let model = Model::load(folder(), &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"));
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary).unwrap_or_else(|e| panic!("{e}"));
        let grammars = Grammars::of(&tokenizer, model.facts()).unwrap_or_else(|e| panic!("{e}"));
        Writer {
            model,
            tokenizer,
            grammars,
        }
    }

    /// A text, and why it ended.
    fn text(&self, grammar: &Grammar, sampling: Sampling, draft: bool) -> (String, Option<End>) {
        let prompt = self.tokenizer.encode("She said:", true).unwrap();
        let settings = Settings {
            sampling,
            max_tokens: 120,
            ignore_end: false,
        };
        let constraint = self.grammars.constraint(grammar).unwrap_or_else(|e| panic!("{e}"));
        let mut g = Generator::new(&self.model, None, &prompt, settings)
            .unwrap()
            .held_to(constraint);
        if draft {
            g = g.with_draft(Draft::new(&self.model, &self.model, 3).unwrap());
        }
        let tokens: Vec<i64> = g.by_ref().map(|t| t.unwrap_or_else(|e| panic!("{e}"))).collect();
        (self.tokenizer.decode(&tokens).unwrap(), g.end())
    }

    /// The texts by the best tokens, and by some draws.
    fn texts(&self, grammar: &Grammar) -> Vec<String> {
        let drawn = |seed| Sampling {
            temperature: 1.3,
            seed,
            ..Sampling::default()
        };
        let all = [Sampling::default()].into_iter().chain((0..6).map(drawn));
        let texts = all.map(|sampling| {
            let (text, end) = self.text(grammar, sampling.clone(), false);
            assert_eq!(end, Some(End::Token), "{text}");
            assert_eq!((text.clone(), end), self.text(grammar, sampling, true), "with a draft");
            text
        });
        texts.collect()
    }
}

#[test]
fn json_by_a_schema() {
    let w = Writer::new();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 99 },
            "of": { "enum": ["Kellynch", "Hartfield"] },
        },
        "required": ["name", "age", "of"],
        "additionalProperties": false,
    });
    for text in w.texts(&Grammar::Schema(schema)) {
        let found: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(found.as_object().unwrap().len(), 3, "{text}");
        assert!(found["name"].as_str().unwrap().chars().count() <= 12, "{text}");
        assert!((0..=99).contains(&found["age"].as_i64().unwrap()), "{text}");
        assert!(
            ["Kellynch", "Hartfield"].contains(&found["of"].as_str().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn expressions_and_grammars() {
    let w = Writer::new();
    for text in w.texts(&Grammar::Regex("[0-9]{3}-[a-z]{2}".into())) {
        let (number, word) = text.split_once('-').unwrap_or_else(|| panic!("{text}"));
        assert!(
            number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()),
            "{text}"
        );
        assert!(
            word.len() == 2 && word.bytes().all(|b| b.is_ascii_lowercase()),
            "{text}"
        );
    }
    let lark = "start: greeting \" \" name\ngreeting: \"Dear\" | \"My dear\"\nname: /[A-Z][a-z]{1,6}/ \"!\"\n";
    for text in w.texts(&Grammar::Lark(lark.into())) {
        let name = ["Dear ", "My dear "].iter().find_map(|g| text.strip_prefix(g));
        assert!(name.is_some_and(|n| n.ends_with('!') && n.len() <= 8), "{text}");
    }
}

/// A text's score, and its tokens.
type Scored = (f64, Vec<i64>);

impl Writer {
    /// All texts of a form behind these tokens, with the scores of beams whose lengths are to the power of `penalty`.
    fn all(&self, prompt: &[i64], so_far: Scored, constraint: &Constraint, penalty: f64, out: &mut Vec<Scored>) {
        let (sum, tokens) = so_far;
        let mut cache = self.model.sequence().unwrap();
        let logits = self.model.step(&mut cache, 0, &[prompt, &tokens].concat(), 1).unwrap();
        let logits = logits.as_slice::<f32>().unwrap();
        let total = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let mut left = logits.to_vec();
        constraint.clone().mask(&mut left).unwrap();
        let length = (tokens.len() + 1) as f64;
        for (token, x) in (0..).zip(left).filter(|(_, x)| *x > f32::NEG_INFINITY) {
            let sum = sum + f64::from(x) - total;
            if self.model.facts().end.contains(&token) {
                out.push((sum / length.powf(penalty), tokens.clone()));
                continue;
            }
            let mut constraint = constraint.clone();
            let all = [&tokens[..], &[token]].concat();
            match constraint.push(token).unwrap() {
                true => out.push((sum / length.powf(penalty), all)),
                false => self.all(prompt, (sum, all), &constraint, penalty, out),
            }
        }
    }
}

#[test]
fn beams_find_the_best_text_of_a_form() {
    let w = Writer::new();
    let prompt = w.tokenizer.encode("Was she? ", true).unwrap();
    let settings = Settings {
        max_tokens: 30,
        ..Settings::default()
    };
    for (regex, penalty) in [("yes|no|she", 1.0), ("(a|b){1,2}!?", 0.0), ("o{1,4}h?", 2.0)] {
        let constraint = w.grammars.constraint(&Grammar::Regex(regex.into())).unwrap();
        let mut all = vec![];
        w.all(&prompt, (0.0, vec![]), &constraint, penalty, &mut all);
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        assert!((4..=64).contains(&all.len()), "{} texts", all.len());
        let beams = Beams {
            width: 64,
            length_penalty: penalty,
            early: Early::No,
        };
        let found = search_held(&w.model, &prompt, &beams, &settings, constraint.into()).unwrap();
        assert_eq!((&found.tokens, found.end), (&all[0].1, End::Token), "{regex}");
        assert!((f64::from(found.score) - all[0].0).abs() < 1e-3, "{regex}");
    }
    // A few beams, each with a state of its own, of a form with many texts.
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string", "maxLength": 8 }, "ages": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 99 }, "maxItems": 3 } },
        "required": ["name", "ages"],
        "additionalProperties": false,
    });
    for early in [Early::No, Early::Yes, Early::Never] {
        let beams = Beams {
            width: 4,
            early,
            ..Beams::default()
        };
        let constraint = w.grammars.constraint(&Grammar::Schema(schema.clone())).unwrap();
        let settings = Settings {
            max_tokens: 100,
            ..Settings::default()
        };
        let found = search_held(&w.model, &prompt, &beams, &settings, constraint.into()).unwrap();
        let text = w.tokenizer.decode(&found.tokens).unwrap();
        assert_eq!(found.end, End::Token, "{text}");
        let found: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(found["ages"].is_array() && found["name"].is_string(), "{text}");
    }
}

#[test]
fn forms_that_cannot_be_held_to() {
    let w = Writer::new();
    let refused = |grammar: &Grammar, needles: &[&str]| {
        let e = w
            .grammars
            .constraint(grammar)
            .err()
            .expect("it cannot be held to")
            .to_string();
        assert!(needles.iter().all(|n| e.contains(n)), "{e}");
    };
    let schema = json!({ "type": "object", "properties": { "a": { "type": "array", "uniqueItems": true } } });
    refused(
        &Grammar::Schema(schema),
        &["JSON schema", "#/properties/a: ", "uniqueItems"],
    );
    refused(
        &Grammar::Schema(json!({ "type": "colour" })),
        &["JSON schema", "colour"],
    );
    refused(&Grammar::Regex("[0-9".into()), &["regular expression"]);
    refused(
        &Grammar::Regex("[^\\s\\S]".into()),
        &["regular expression", "no text fits"],
    );
    refused(&Grammar::Lark("start: nothing".into()), &["grammar", "nothing"]);
}

#[test]
fn the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let folder = folder().display().to_string();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("yes.json", r#"{"enum": ["yes", "no"]}"#);
    write("odd.json", r#"{"enum": "#);
    write("yes.lark", "start: \"yes\" | \"no\"");
    let run = |more: &[&str]| command(dir.path(), &[&["generate", &folder, "Was she? "], more].concat());
    for (args, expected) in [
        (["--json-schema", "yes.json"], ["\"yes\"", "\"no\""]),
        (["--grammar", "yes.lark"], ["yes", "no"]),
        (["--regex", "(yes|no)"], ["yes", "no"]),
    ] {
        let beams = run(&[&args[..], &["--beams", "3", "--temperature", "0"]].concat());
        assert!(
            beams.status == 0 && expected.contains(&beams.out.trim()),
            "{} {}",
            beams.out,
            beams.err
        );
        let ran = run(&args);
        assert!(
            ran.status == 0 && expected.contains(&ran.out.trim()),
            "{} {}",
            ran.out,
            ran.err
        );
    }
    for (args, needle) in [
        (&["--json-schema", "odd.json"][..], "odd.json"),
        (&["--grammar", "nowhere.lark"], "nowhere.lark"),
        (&["--regex", "yes", "--grammar", "yes.lark"], "cannot be used with"),
        (&["--draft", &folder, "--beams", "2", "--temperature", "0"], "beams"),
    ] {
        let ran = run(args);
        assert!(ran.status == 2 && ran.err.contains(needle), "{}", ran.err);
    }
}
