//! What decoders keep of sequences: in fewer bits, in rings where layers see a window, and for prompts that begin alike.

use brolga::generate::{Beams, Cache, Draft, Generator, Model, Prefixes, Settings, beams};
use brolga::instrument::{Instrument, Ran};
use brolga::ir::Tensor;
use brolga::{Options, compile, source};
use brolga_frontend::safetensors::{self, CacheType};
use brolga_tests::{data, run};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

fn folder(family: &str) -> PathBuf {
    data("families").join("families").join(family)
}

/// How a family's small random model is read for texts as long as one wants; with `window` in place of its own, where it has one.
fn folder_options(family: &str, kv: CacheType, window: Option<usize>) -> safetensors::Options {
    let mut options = safetensors::Options {
        kv,
        ..safetensors::Options::default()
    };
    let mut set = |field: &str, n: usize| options.config.push((field.to_owned(), n.to_string()));
    // Scores by the distance of keys have another field.
    match family {
        "baichuan13b" => set("model_max_length", 100_000),
        _ => set("max_position_embeddings", 100_000),
    }
    if let Some(window) = window {
        set("sliding_window", window);
    }
    options
}

fn model(family: &str, kv: CacheType, window: Option<usize>, threads: usize) -> Model {
    let options = Options {
        folder: folder_options(family, kv, window),
        ..Options::default()
    };
    Model::load(folder(family), &options, threads).unwrap_or_else(|e| panic!("{family}: {e}"))
}

/// Tokens that do not repeat soon.
fn text(model: &Model, n: usize, seed: usize) -> Vec<i64> {
    let words = model.facts().vocabulary;
    (0..n)
        .map(|i| ((i * i * 31 + i * 7 + seed * 13 + 3) % words) as i64)
        .collect()
}

/// Logits of the last token of a text, alone and in one go.
fn fresh(model: &Model, tokens: &[i64]) -> Vec<f32> {
    let mut cache = model.sequence().expect("there is memory");
    step(model, &mut cache, 0, tokens)
}

fn step(model: &Model, cache: &mut Cache, slot: usize, tokens: &[i64]) -> Vec<f32> {
    let y = model.step(cache, slot, tokens, 1).unwrap_or_else(|e| panic!("{e}"));
    y.as_slice::<f32>().expect("f32").to_vec()
}

/// The largest difference over the largest logit.
fn error(found: &[f32], wanted: &[f32]) -> f64 {
    let largest = wanted.iter().fold(0f32, |m, x| m.max(x.abs()));
    let wrong = found.iter().zip(wanted).map(|(f, w)| (f - w).abs());
    f64::from(wrong.fold(0f32, f32::max) / largest)
}

/// Shared heads, windows, capped scores, ALiBi, both caches in one model, weights in f16.
const FAMILIES: [(&str, Option<usize>); 8] = [
    ("llama", None),
    ("llama_f16", None),
    ("qwen2", None),
    ("mistral", Some(24)),
    ("gemma2", Some(24)),
    ("gemma3", Some(24)),
    ("phi3", Some(24)),
    ("baichuan13b", None),
];

/// An f16 rounds to 11 bits, 0.05 % at most; an integer by half a step of 127, 0.4 % of the largest of a row, and errors of a few layers add up.
/// What is asked of both is a few times that.
#[test]
fn fewer_bits_compute_nearly_the_same() {
    for (family, window) in FAMILIES {
        let whole = model(family, CacheType::F32, window, 1);
        let tokens = text(&whole, 90, 1);
        let wanted = fresh(&whole, &tokens);
        let bytes = |m: &Model| m.sequence().expect("there is memory").bytes();
        for (kv, most) in [(CacheType::F16, 1e-3), (CacheType::Int8, 2e-2)] {
            let m = model(family, kv, window, 1);
            let found = fresh(&m, &tokens);
            let e = error(&found, &wanted);
            assert!(e > 0.0 && e < most, "{family}, {kv:?}: off by {e}");
            // A scale of 4 bytes beside a row.
            let share = if kv == CacheType::F16 { 2.0 } else { 1.6 };
            assert!(bytes(&m) as f64 * share <= bytes(&whole) as f64, "{family}, {kv:?}");
        }
    }
}

/// Bit by bit: alone, in parts, token by token, beside others, behind a copied beginning, and by any number of threads.
#[test]
fn every_cache_gives_the_same_bits_beside_others() {
    for (family, window) in FAMILIES {
        for kv in CacheType::ALL {
            let m = model(family, kv, window, 1);
            let tokens = text(&m, 75, 2);
            let lengths = [5, 33, 60];
            let mut together = m.cache(4).expect("there is memory");
            for (slot, n) in lengths.into_iter().enumerate() {
                together.begin();
                step(&m, &mut together, slot, &tokens[..n]);
            }
            let mut other = m.sequence().expect("there is memory");
            step(&m, &mut other, 0, &tokens[..50]);
            let slot = together.begin_as((&other, 0), &tokens[..40]).expect("there is memory");
            assert_eq!(together.tokens(slot), &tokens[..40]);
            let lengths = [5, 33, 60, 40];
            for i in 0..12 {
                let next = lengths.map(|n| tokens[n + i]);
                let all = m.step_all(&mut together, &next).unwrap_or_else(|e| panic!("{e}"));
                let rows = all.as_slice::<f32>().expect("f32").chunks_exact(m.facts().vocabulary);
                for (n, row) in lengths.into_iter().zip(rows) {
                    if i % 5 == 0 {
                        assert!(
                            fresh(&m, &tokens[..=n + i]) == row,
                            "{family}, {kv:?}: {n} tokens and {i}"
                        );
                    }
                }
            }
            let three = model(family, kv, window, 3);
            assert!(
                fresh(&m, &tokens) == fresh(&three, &tokens),
                "{family}, {kv:?}: by three threads"
            );
        }
    }
}

/// Tokens of which texts here are made that go around a ring of a window of 100: it has 1152 rows at most.
const AROUND: usize = 2600;

/// Rings go around, in chunks of a prompt and token by token, and say what all tokens at once say, whose windows are masks.
#[test]
fn rings_say_what_windows_say() {
    for family in ["mistral", "gemma2", "gemma3", "phi3", "qwen2_window"] {
        let m = model(family, CacheType::F32, Some(100), 2);
        let tokens = text(&m, AROUND, 3);
        let options = Options {
            folder: folder_options(family, CacheType::F32, Some(100)),
            ..Options::default()
        };
        let graph = source::graph_for(&folder(family), &options).unwrap_or_else(|e| panic!("{family}: {e}"));
        let session = compile(&graph, &options).and_then(|c| c.session());
        let session = session.unwrap_or_else(|e| panic!("{family}: {e}"));
        let n = 1500;
        let ids = Tensor::from_i64(&[1, n], &tokens[..n]);
        let whole = run(&session, &BTreeMap::from([("input_ids".to_owned(), ids)])).unwrap_or_else(|e| panic!("{e}"));
        let whole = whole[0].1.to_f32s();
        let row = |i: usize| &whole[i * m.facts().vocabulary..][..m.facts().vocabulary];
        let mut cache = m.sequence().expect("there is memory");
        step(&m, &mut cache, 0, &tokens[..1130]);
        for i in 1130..1200 {
            let e = error(&step(&m, &mut cache, 0, &tokens[i..=i]), row(i));
            assert!(e < 1e-5, "{family}: token {i} is off by {e}");
        }
        let e = error(&step(&m, &mut cache, 0, &tokens[1200..n]), row(n - 1));
        assert!(e < 1e-5, "{family}: the last token is off by {e}");
    }
}

/// A layer with a window takes no more memory however long a text becomes, and each kind of cache gives the same bits in whatever parts a text
/// comes, alone and beside a short one.
#[test]
fn rings_are_bounded() {
    for family in ["mistral", "gemma3"] {
        for kv in CacheType::ALL {
            let m = model(family, kv, Some(100), 2);
            let tokens = text(&m, AROUND, 3);
            let mut cache = m.cache(2).expect("there is memory");
            cache.begin();
            cache.begin();
            step(&m, &mut cache, 1, &tokens[..20]);
            step(&m, &mut cache, 0, &tokens[..1100]);
            let bytes = cache.bytes();
            step(&m, &mut cache, 0, &tokens[1100..AROUND - 1]);
            // All layers of one have windows, half of those of the other: rows of the others double, and were all to, so would the bytes.
            match family {
                "mistral" => assert_eq!(cache.bytes(), bytes, "{kv:?}"),
                _ => assert!(
                    10 * cache.bytes() < 17 * bytes,
                    "{kv:?}: {} behind {bytes}",
                    cache.bytes()
                ),
            }
            let both = m.step_all(&mut cache, &[tokens[AROUND - 1], tokens[20]]);
            let both = both
                .unwrap_or_else(|e| panic!("{e}"))
                .as_slice::<f32>()
                .expect("f32")
                .to_vec();
            let mut other = m.sequence().expect("there is memory");
            for part in tokens[..AROUND - 1].chunks(333) {
                step(&m, &mut other, 0, part);
            }
            let long = step(&m, &mut other, 0, &tokens[AROUND - 1..]);
            assert!(both == [long, fresh(&m, &tokens[..21])].concat(), "{family}, {kv:?}");
        }
    }
}

/// The greedy tokens behind a prompt, and how many tokens of the prompt were computed.
fn generated(m: &Model, kept: Option<&Prefixes>, prompt: &[i64], n: usize) -> (Vec<i64>, usize) {
    let settings = Settings {
        max_tokens: n,
        ignore_end: true,
        ..Settings::default()
    };
    let mut g = Generator::new(m, kept, prompt, settings).unwrap_or_else(|e| panic!("{e}"));
    let all = g.by_ref().map(|t| t.unwrap_or_else(|e| panic!("{e}"))).collect();
    (all, g.computed())
}

/// What a server or a chat asks of a model with windows, of prompts that are far longer than these: only tokens that are new are computed, and
/// texts are those of a fresh run.
#[test]
fn windows_reuse_what_prompts_have_in_common() {
    for (family, kv) in [
        ("mistral", CacheType::F32),
        ("mistral", CacheType::Int8),
        ("gemma3", CacheType::F16),
    ] {
        let m = model(family, kv, Some(300), 2);
        let kept = Prefixes::new(4);
        let ask = |prompt: &[i64], n: usize, new: usize| {
            let (found, computed) = generated(&m, Some(&kept), prompt, n);
            assert_eq!(computed, new, "{family}, {kv:?}: of a prompt of {}", prompt.len());
            assert_eq!(found, generated(&m, None, prompt, n).0, "{family}, {kv:?}");
            found
        };
        let part = |n, seed| text(&m, n, seed);
        let system = part(1800, 4);
        let with = |parts: &[&[i64]]| [&[&system[..]], parts].concat().concat();
        // A question, the same again, another one.
        let first = with(&[&part(100, 5)]);
        let reply = ask(&first, 40, first.len());
        ask(&first, 40, 1);
        ask(&with(&[&part(80, 6)]), 10, 80);
        // A conversation that goes on: what was generated counts, but for its last token, which was never read.
        let more = [&first[..], &reply, &part(30, 7)].concat();
        ask(&more, 5, 31);
        // A reply that is longer than a ring can be cut back, which is told again, and told otherwise.
        let asked = with(&[&part(60, 8)]);
        ask(&asked, 1500, 60);
        ask(&asked, 1500, 1);
        ask(&[&asked[..], &part(50, 9)].concat(), 3, 51);
        // A question that long: where it parted from others is known from then on.
        let kept_before = with(&[&part(900, 10)]);
        ask(&kept_before, 1, 900);
    }
}

/// Prompts part from the only one that is kept further back than its ring can be cut: the first one computes all, and those behind it what is new.
#[test]
fn where_prompts_part_is_remembered() {
    let m = model("mistral", CacheType::F32, Some(300), 2);
    let kept = Prefixes::new(1);
    let system = text(&m, 1800, 4);
    let with = |n, seed| [&system[..], &text(&m, n, seed)].concat();
    for (prompt, new) in [
        (with(1300, 5), 3100),
        (with(1200, 6), 3000),
        (with(1400, 7), 1400),
        (with(20, 8), 20),
    ] {
        let (found, computed) = generated(&m, Some(&kept), &prompt, 4);
        assert_eq!(computed, new);
        assert_eq!(found, generated(&m, None, &prompt, 4).0);
    }
}

/// Beams copy rings, and a draft cuts them back; both beyond a lap.
#[test]
fn beams_and_drafts_go_around() {
    for kv in CacheType::ALL {
        let m = model("mistral", kv, Some(100), 1);
        let small = model("mistral", CacheType::F32, None, 1);
        let prompt = text(&m, 1145, 11);
        let settings = |n| Settings {
            max_tokens: n,
            ignore_end: true,
            ..Settings::default()
        };
        let alone = generated(&m, None, &prompt, 60).0;
        let g = Generator::new(&m, None, &prompt, settings(60)).unwrap_or_else(|e| panic!("{e}"));
        let draft = Draft::new(&small, &m, 6).unwrap_or_else(|e| panic!("{e}"));
        let found: Vec<i64> = g
            .with_draft(draft)
            .map(|t| t.unwrap_or_else(|e| panic!("{e}")))
            .collect();
        assert_eq!(found, alone, "{kv:?}: with a draft");
        let beams = Beams {
            width: 3,
            ..Beams::of(m.files()).unwrap_or_else(|e| panic!("{e}"))
        };
        let found = beams::search(&m, &prompt, &beams, &settings(20)).unwrap_or_else(|e| panic!("{e}"));
        let mut score = 0.0;
        let mut cache = m.sequence().expect("there is memory");
        let mut row = step(&m, &mut cache, 0, &prompt);
        for &token in &found.tokens {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|x| (x - most).exp()).sum();
            score += row[token as usize] - most - sum.ln();
            row = step(&m, &mut cache, 0, &[token]);
        }
        let own = found.score * found.tokens.len() as f32;
        assert!(
            (score - own).abs() < 1e-3 * own.abs(),
            "{kv:?}: beams say {own}, and alone it is {score}"
        );
    }
}

/// Keeps the text of loops.
#[derive(Default)]
struct Loops(Mutex<String>);

impl Instrument for Loops {
    fn after(&self, ran: &Ran) {
        if ran.pass.name() == "schedule" {
            *self.0.lock().expect("no panic") += &ran.module.to_string();
        }
    }
}

/// Attention has a kernel that reads what is kept where it lies, with the conversion in it, beside that of tiles for many queries.
#[test]
fn a_token_reads_caches_in_place() {
    for (kv, name) in [
        (CacheType::F32, "f32"),
        (CacheType::F16, "f16"),
        (CacheType::Int8, "i8"),
    ] {
        let loops = Arc::new(Loops::default());
        let options = Options {
            folder: folder_options("llama", kv, None),
            instrument: Some(loops.clone()),
            ..Options::default()
        };
        Model::load(folder("llama"), &options, 1).unwrap_or_else(|e| panic!("{e}"));
        let text = loops.0.lock().expect("no panic").clone();
        let kernels: Vec<&str> = text.split("\nloops @").filter(|k| k.starts_with("attention")).collect();
        // The cache's own size is told by its capacity, that of panels by the keys that are read.
        let in_place = |k: &&&str| {
            let head = k.lines().next().unwrap_or_default();
            let whole = |b: &&str| b.contains(&format!(": {name}[")) && b.contains("capacity");
            head.split(", b").filter(whole).count() >= 2 && !k.contains("  tile ")
        };
        assert!(kernels.iter().filter(in_place).count() >= 1, "{kv:?}: {text}");
        assert!(kernels.iter().any(|k| k.contains("  tile ")), "{kv:?}");
    }
}
