//! GGUF files on the command line: one is taken where a folder is, and what is wrong with one is told, with the key or the tensor, and the exit
//! status 2.

#![cfg(feature = "text")]

mod common;

use common::{Ran, brolga};
use std::fs;
use std::path::{Path, PathBuf};

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/gguf/small.gguf")
}

/// A value of metadata: the number of its type, and its bytes.
type Value = (u32, Vec<u8>);

fn text(s: &str) -> Value {
    (8, [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat())
}

fn whole(x: u32) -> Value {
    (4, x.to_le_bytes().to_vec())
}

fn float(x: f32) -> Value {
    (6, x.to_le_bytes().to_vec())
}

/// A tensor: name, extents with the innermost first, type, and where it begins if not behind the one before it.
struct Tensor {
    name: String,
    extents: Vec<u64>,
    kind: u32,
    offset: Option<u64>,
}

/// A file that is written.
struct File {
    version: u32,
    keys: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
    /// Bytes less than there should be.
    cut: usize,
}

impl File {
    /// A model of one small layer.
    fn new() -> File {
        let counts = [
            ("context_length", 32),
            ("embedding_length", 8),
            ("block_count", 1),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ];
        let mut keys = vec![
            ("general.architecture".to_owned(), text("llama")),
            ("llama.attention.layer_norm_rms_epsilon".to_owned(), float(1e-5)),
        ];
        keys.extend(counts.map(|(name, n)| (format!("llama.{name}"), whole(n))));
        let matrices: [(&str, &[u64]); 12] = [
            ("token_embd", &[8, 16]),
            ("output_norm", &[8]),
            ("output", &[8, 16]),
            ("blk.0.attn_norm", &[8]),
            ("blk.0.attn_q", &[8, 8]),
            ("blk.0.attn_k", &[8, 4]),
            ("blk.0.attn_v", &[8, 4]),
            ("blk.0.attn_output", &[8, 8]),
            ("blk.0.ffn_norm", &[8]),
            ("blk.0.ffn_gate", &[8, 12]),
            ("blk.0.ffn_up", &[8, 12]),
            ("blk.0.ffn_down", &[12, 8]),
        ];
        let tensors = matrices.map(|(name, extents)| Tensor {
            name: format!("{name}.weight"),
            extents: extents.to_vec(),
            kind: 0,
            offset: None,
        });
        File {
            version: 3,
            keys,
            tensors: tensors.into(),
            cut: 0,
        }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.keys.retain(|(k, _)| k != key);
        self.keys.push((key.to_owned(), value));
    }

    fn tensor(&mut self, name: &str) -> &mut Tensor {
        let name = format!("{name}.weight");
        self.tensors.iter_mut().find(|t| t.name == name).expect("it is there")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, (kind, value)) in &self.keys {
            out.extend(text(key).1);
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut end = 0;
        for t in &self.tensors {
            out.extend(text(&t.name).1);
            out.extend((t.extents.len() as u32).to_le_bytes());
            t.extents.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(end).to_le_bytes());
            let size = t.extents.iter().fold(4u64, |n, d| n.saturating_mul(*d));
            end = (end + size.min(1 << 12)).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(0.125f32.to_le_bytes().repeat(end as usize / 4));
        out.truncate(out.len() - self.cut);
        out
    }

    fn emit(&self, args: &[&str]) -> Ran {
        let dir = tempfile::tempdir().expect("there is room");
        fs::write(dir.path().join("model.gguf"), self.bytes()).expect("it can be written");
        brolga(
            dir.path(),
            &[&["emit", "model.gguf", "--stage", "tensor"], args].concat(),
        )
    }
}

/// What reading a changed file says, which has to fail.
fn refused(change: impl FnOnce(&mut File)) -> String {
    let mut file = File::new();
    change(&mut file);
    let ran = file.emit(&[]);
    assert_eq!(ran.status, 2, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("model.gguf"), "{}", ran.err);
    ran.err
}

fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "the error does not say `{part}`: {error}");
    }
}

#[test]
fn the_file_itself_is_right() {
    let ran = File::new().emit(&[]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let mut second = File::new();
    second.version = 2;
    assert_eq!(second.emit(&[]).status, 0);
}

#[test]
fn headers_that_are_wrong() {
    says(&refused(|f| f.version = 1), &["version 1", "expected 2 or 3"]);
    says(&refused(|f| f.version = 3u32.swap_bytes()), &["big-endian"]);
    says(&refused(|f| f.cut = 64), &["blk.0.ffn_down.weight", "cut off"]);
    says(
        &refused(|f| f.keys.push(("llama.a".into(), (99, vec![])))),
        &["`llama.a`", "type 99"],
    );
    says(
        &refused(|f| f.keys.push(("x".into(), (7, vec![7])))),
        &["`x`", "truth value of 7"],
    );
    says(
        &refused(|f| f.keys.push(("x".into(), (8, u64::MAX.to_le_bytes().to_vec())))),
        &["`x`", "cut off"],
    );
    let array = |kind: u32, n: u64| (9, [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat());
    says(
        &refused(|f| f.keys.push(("x".into(), array(4, 1 << 60)))),
        &["`x`", "elements"],
    );
    says(
        &refused(|f| f.keys.push(("x".into(), array(9, 1)))),
        &["`x`", "array of arrays"],
    );
    says(
        &refused(|f| f.keys.push(("general.architecture".into(), text("llama")))),
        &["is there twice"],
    );
    says(
        &refused(|f| f.set("general.alignment", whole(12))),
        &["general.alignment", "multiple of 8"],
    );
    says(
        &refused(|f| f.set("general.alignment", whole(0))),
        &["general.alignment"],
    );
    let mut cut = File::new();
    cut.cut = cut.bytes().len() - 10;
    assert_eq!(cut.emit(&[]).status, 2);
}

#[test]
fn tensors_that_are_wrong() {
    says(
        &refused(|f| f.tensor("output").kind = 10),
        &["`output.weight`", "Q2_K", "expected F32"],
    );
    says(
        &refused(|f| f.tensor("output").kind = 77),
        &["`output.weight`", "unknown type 77"],
    );
    says(
        &refused(|f| f.tensor("output").kind = 2),
        &["`output.weight`", "rows of 8", "blocks of 32"],
    );
    says(
        &refused(|f| f.tensor("output").extents = vec![1 << 40, 1 << 40]),
        &["`output.weight`", "beyond the end"],
    );
    says(
        &refused(|f| f.tensor("output").extents = vec![0, 1 << 63, 1 << 63]),
        &["`output.weight`", "expected elements"],
    );
    says(
        &refused(|f| f.tensor("output").extents = vec![1; 5]),
        &["`output.weight`", "5 dimensions"],
    );
    says(
        &refused(|f| f.tensor("output").offset = Some(u64::MAX - 31)),
        &["`output.weight`", "beyond the end"],
    );
    says(
        &refused(|f| f.tensor("output").offset = Some(4)),
        &["`output.weight`", "multiple of 32"],
    );
    says(
        &refused(|f| f.tensor("output").offset = Some(0)),
        &["`output.weight`", "overlaps", "token_embd"],
    );
    says(
        &refused(|f| f.tensor("output").name = "token_embd.weight".into()),
        &["`token_embd.weight`", "twice"],
    );
    says(
        &refused(|f| f.tensor("blk.0.attn_v").name = "blk.0.attn_w.weight".into()),
        &[
            "missing",
            "blk.0.attn_v.weight",
            "without a use",
            "blk.0.attn_w.weight",
            "metadata",
        ],
    );
    says(
        &refused(|f| f.tensor("blk.0.attn_q").extents = vec![8, 6]),
        &["blk.0.attn_q.weight", "[6, 8]", "[8, 8]"],
    );
    says(
        &refused(|f| f.tensor("token_embd").extents = vec![8]),
        &["token_embd.weight"],
    );
    says(
        &refused(|f| {
            f.tensors.push(Tensor {
                name: "rope_freqs.weight".into(),
                extents: vec![3],
                kind: 0,
                offset: None,
            })
        }),
        &["`rope_freqs.weight`", "[3]", "expected 2 numbers of F32"],
    );
}

#[test]
fn metadata_that_are_wrong() {
    says(
        &refused(|f| f.set("general.architecture", text("mamba"))),
        &["`mamba`", "known are llama, qwen2"],
    );
    says(
        &refused(|f| f.keys.retain(|(k, _)| k != "general.architecture")),
        &["general.architecture", "missing"],
    );
    says(
        &refused(|f| f.keys.retain(|(k, _)| k != "llama.block_count")),
        &["llama.block_count", "missing"],
    );
    says(
        &refused(|f| f.set("general.type", text("adapter"))),
        &["general.type", "adapter"],
    );
    says(
        &refused(|f| f.set("llama.block_count", float(1.5))),
        &["llama.block_count", "1.5"],
    );
    says(
        &refused(|f| f.set("llama.expert_count", whole(8))),
        &["expert_count", "--config llama=null"],
    );
    says(
        &refused(|f| f.set("llama.rope.scaling.type", text("dynamic"))),
        &["rope.scaling.type", "`dynamic`"],
    );
    says(
        &refused(|f| f.set("llama.rope.scaling.type", text("yarn"))),
        &["rope.scaling.factor", "missing"],
    );
    says(
        &refused(|f| f.set("llama.rope.dimension_count", whole(2))),
        &["rope.dimension_count"],
    );
    says(
        &refused(|f| f.set("llama.attention.value_length", whole(2))),
        &["attention.value_length"],
    );
    says(
        &refused(|f| f.set("llama.attention.key_length", whole(1 << 30))),
        &["attention.key_length"],
    );
    says(
        &refused(|f| f.set("llama.attention.causal", (7, vec![0]))),
        &["attention.causal"],
    );
    says(
        &refused(|f| f.set("split.count", whole(3))),
        &["one of 3 files", "-00001-of-00003.gguf"],
    );
    for (key, value) in [
        ("llama.rope.scaling.attn_factor", float(2.0)),
        ("llama.rope.scaling.yarn_ext_factor", float(0.5)),
    ] {
        let error = refused(|f| {
            f.set("llama.rope.scaling.type", text("linear"));
            f.set("llama.rope.scaling.factor", float(2.0));
            f.set(key, value);
        });
        says(&error, &[key]);
    }
    let beside = refused(|f| {
        f.set("llama.rope.scaling.factor", float(4.0));
        f.tensors.push(Tensor {
            name: "rope_freqs.weight".into(),
            extents: vec![2],
            kind: 0,
            offset: None,
        });
    });
    says(&beside, &["llama.rope.scaling.factor"]);
    says(
        &refused(|f| {
            f.set("llama.rope.scaling.type", text("yarn"));
            f.set("llama.rope.scaling.factor", float(2.0));
            f.set("llama.rope.scaling.yarn_ext_factor", float(0.0));
        }),
        &["yarn_ext_factor", "expected 1"],
    );
    says(
        &refused(|f| f.set("llama.logit_scale", float(f32::NAN))),
        &["logit_scale", "NaN"],
    );
    // A key that says nothing, and one that is taken out.
    let mut file = File::new();
    file.set("llama.expert_count", whole(0));
    assert_eq!(file.emit(&[]).status, 0);
    file.set("llama.logit_scale", float(2.0));
    assert_eq!(file.emit(&["--config", "llama.logit_scale=null"]).status, 0);
}

/// Tokenizers that are not known are refused where they are asked for.
#[test]
fn tokenizers_that_are_wrong() {
    let texts = |all: &[&str]| -> Value {
        let mut bytes = [&8u32.to_le_bytes()[..], &(all.len() as u64).to_le_bytes()].concat();
        all.iter().for_each(|t| bytes.extend(text(t).1));
        (9, bytes)
    };
    let refused = |change: &dyn Fn(&mut File)| {
        let mut file = File::new();
        file.set("tokenizer.ggml.model", text("gpt2"));
        file.set("tokenizer.ggml.pre", text("qwen2"));
        file.set("tokenizer.ggml.tokens", texts(&["a", "b", "ab"]));
        file.set("tokenizer.ggml.merges", texts(&["a b"]));
        change(&mut file);
        let dir = tempfile::tempdir().expect("there is room");
        fs::write(dir.path().join("model.gguf"), file.bytes()).expect("it can be written");
        let ran = brolga(dir.path(), &["generate", "model.gguf", "ab", "--max-tokens", "2"]);
        (ran.status, ran.err)
    };
    assert_eq!(refused(&|_| {}).0, 0);
    let none = refused(&|f| f.keys.retain(|(k, _)| !k.starts_with("tokenizer.")));
    assert_eq!(none.0, 2);
    for (key, value, parts) in [
        (
            "model",
            text("rwkv"),
            ["tokenizer.ggml.model", "`rwkv`", "expected gpt2 or llama"],
        ),
        ("pre", text("unheard"), ["tokenizer.ggml.pre", "`unheard`", "llama-bpe"]),
        (
            "merges",
            texts(&["a c"]),
            ["tokenizer.ggml.merges", "`c`", "is no token"],
        ),
        (
            "merges",
            texts(&["ab"]),
            ["tokenizer.ggml.merges", "merge 0", "two texts"],
        ),
        (
            "bos_token_id",
            whole(3),
            ["tokenizer.ggml.bos_token_id", "token 3", "vocabulary of 3"],
        ),
        ("model", text("llama"), ["tokenizer.ggml.scores", "is missing", ""]),
    ] {
        let (status, error) = refused(&|f| f.set(&format!("tokenizer.ggml.{key}"), value.clone()));
        assert_eq!(status, 2, "{error}");
        says(&error, &parts);
    }
}

/// Everything that takes a folder takes a file.
#[test]
fn a_file_is_taken_where_a_folder_is() {
    let dir = tempfile::tempdir().expect("there is room");
    fs::copy(small(), dir.path().join("small.gguf")).expect("it is copied");
    fs::write(
        dir.path().join("text.txt"),
        "Licensed under the Apache License, Version 2.0",
    )
    .expect("it can be written");
    let ran = |args: &[&str]| {
        let ran = brolga(dir.path(), args);
        assert_eq!(ran.status, 0, "{args:?}: {}", ran.err);
        ran.out
    };
    let info = ran(&["info", "small.gguf"]);
    says(
        &info,
        &[
            "GGUF file",
            "family llama",
            "of f32 and q4_0 and q4_1 and q5_0 and q5_1 and q8_0",
            "matrices of",
        ],
    );
    let written = ran(&["generate", "small.gguf", "Licensed under", "--max-tokens", "8"]);
    ran(&["compile", "small.gguf", "--generator", "-o", "small.brolga"]);
    assert_eq!(
        ran(&["generate", "small.brolga", "Licensed under", "--max-tokens", "8"]),
        written
    );
    ran(&["perplexity", "small.gguf", "text.txt"]);
    ran(&["generate", "small.gguf", "Licensed", "--chat", "--max-tokens", "4"]);
    ran(&[
        "bench",
        "small.gguf",
        "--prompt",
        "8",
        "--tokens",
        "2",
        "--threads",
        "1",
    ]);
    ran(&["doctor", "small.gguf"]);
    // An adapter whose only matrix is packed in the file.
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}"#;
    fs::write(dir.path().join("adapter_config.json"), config).expect("it can be written");
    let name = |half: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight");
    let header = serde_json::json!({
        name("A"): {"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 512]},
        name("B"): {"dtype": "F32", "shape": [64, 2], "data_offsets": [512, 1024]},
    });
    let header = header.to_string();
    let size = (header.len() as u64).to_le_bytes();
    let bytes = [&size[..], header.as_bytes(), &[0; 1024]].concat();
    fs::write(dir.path().join("adapter_model.safetensors"), bytes).expect("it can be written");
    let refused = brolga(dir.path(), &["generate", "small.gguf", "a", "--lora", "."]);
    assert_eq!(refused.status, 2);
    says(&refused.err, &["adapters are merged into floats"]);
}

/// A model in several files is its first one.
#[test]
fn files_behind_the_first_are_found() {
    let dir = tempfile::tempdir().expect("there is room");
    let mut first = File::new();
    first.set("split.count", whole(2));
    let mut second = File::new();
    second.keys.clear();
    second.tensors = first.tensors.split_off(6);
    fs::write(dir.path().join("m-00001-of-00002.gguf"), first.bytes()).expect("it can be written");
    let emit = || brolga(dir.path(), &["emit", "m-00001-of-00002.gguf", "--stage", "tensor"]);
    says(&emit().err, &["m-00002-of-00002.gguf"]);
    // So many that nobody has them all: the first that is missing is told.
    let many = "many-00001-of-4611686018427387904.gguf";
    let mut file = File::new();
    file.set("split.count", (10, (1u64 << 62).to_le_bytes().to_vec()));
    fs::write(dir.path().join(many), file.bytes()).expect("it can be written");
    let ran = brolga(dir.path(), &["emit", many, "--stage", "tensor"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
    says(&ran.err, &["many-00002-of-4611686018427387904.gguf"]);
    fs::write(dir.path().join("m-00002-of-00002.gguf"), second.bytes()).expect("it can be written");
    let ran = emit();
    assert_eq!(ran.status, 0, "{}", ran.err);
}
