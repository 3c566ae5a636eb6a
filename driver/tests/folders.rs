//! Folders of safetensors that are wrong: each error names the file, and the tensor or the field, and the exit status is 2.

mod common;

use common::{Ran, brolga};
use std::fs;
use std::path::Path;

/// A configuration of one small layer.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
    "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 16, "rms_norm_eps": 1e-5, "torch_dtype": "float32",
    "tie_word_embeddings": true, "max_position_embeddings": 32
}"#;

/// The tensors that it speaks of.
const TENSORS: [(&str, &[usize]); 11] = [
    ("model.embed_tokens.weight", &[16, 8]),
    ("model.layers.0.input_layernorm.weight", &[8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 12]),
    ("model.layers.0.mlp.gate_proj.weight", &[12, 8]),
    ("model.layers.0.mlp.up_proj.weight", &[12, 8]),
    ("model.layers.0.post_attention_layernorm.weight", &[8]),
    ("model.layers.0.self_attn.k_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.o_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.v_proj.weight", &[8, 8]),
    ("model.norm.weight", &[8]),
];

/// A file of tensors of ones, whose header is changed before it is written.
fn weights(tensors: &[(&str, &[usize])], change: impl Fn(String) -> String) -> Vec<u8> {
    let (mut entries, mut at) = (vec![], 0);
    for (name, shape) in tensors {
        let n = shape.iter().product::<usize>();
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{at},{}]}}"#,
            at + 4 * n
        ));
        at += 4 * n;
    }
    let header = change(format!("{{{}}}", entries.join(",")));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(1f32.to_le_bytes().repeat(at / 4));
    bytes
}

fn same(header: String) -> String {
    header
}

fn write(folder: &Path, config: &str, weights: &[u8]) {
    fs::write(folder.join("config.json"), config).expect("it can be written");
    fs::write(folder.join("model.safetensors"), weights).expect("it can be written");
}

fn emit(folder: &Path, args: &[&str]) -> Ran {
    brolga(folder, &[&["emit", ".", "--stage", "tensor"], args].concat())
}

/// What reading a folder says, which has to fail.
fn refused(folder: &Path, args: &[&str]) -> String {
    let ran = emit(folder, args);
    assert_eq!(ran.status, 2, "{}", ran.out);
    ran.err
}

fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "the error does not say `{part}`: {error}");
    }
}

#[test]
fn the_folder_itself_is_right() {
    let dir = tempfile::tempdir().expect("there is room");
    write(dir.path(), CONFIG, &weights(&TENSORS, same));
    let ran = brolga(dir.path(), &["run", ".", "--set", "batch=1", "--set", "sequence=3"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let info = brolga(dir.path(), &["info", "."]);
    says(
        &info.out,
        &["family llama", "11 tensors of f32", "input_ids: i64[batch, sequence]"],
    );
}

/// Blocks whose elements are all the same have no range that integers could be of.
#[test]
fn blocks_of_one_value_keep_it() {
    let dir = tempfile::tempdir().expect("there is room");
    let wide = |shape: &'static [usize]| -> &'static [usize] {
        match shape {
            [8] => &[32],
            [16, _] => &[16, 32],
            _ => &[32, 32],
        }
    };
    let tensors = TENSORS.map(|(name, shape)| (name, wide(shape)));
    let config = CONFIG.replace(
        r#""hidden_size": 8, "intermediate_size": 12"#,
        r#""hidden_size": 32, "intermediate_size": 32"#,
    );
    for value in [0.0f32, 9.0, -0.7, 6e4] {
        let mut bytes = weights(&tensors, same);
        let at = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        // The embedding; what is computed of it is the same for every token.
        bytes[at..at + 4 * 16 * 32].copy_from_slice(&value.to_le_bytes().repeat(16 * 32));
        write(dir.path(), &config, &bytes);
        let run = |args: &[&str]| {
            let ran = brolga(
                dir.path(),
                &[&["run", ".", "--set", "batch=1", "--set", "sequence=2"], args].concat(),
            );
            assert_eq!(ran.status, 0, "{}", ran.err);
        };
        run(&["--output", "whole.npz"]);
        for kind in ["int8", "int4"] {
            // Scales and minima have 11 bits.
            run(&["--weights", kind, "--expect", "whole.npz", "--tolerance", "1e-3"]);
        }
    }
}

/// Neurons whose weights are zero are in no product, rows of zeros that others read are put back, and single zeros change nothing.
#[test]
fn pruned_weights() {
    let dir = tempfile::tempdir().expect("there is room");
    let mut bytes = weights(&TENSORS, same);
    let mut at = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    for (name, shape) in TENSORS {
        let columns = shape.last().copied().unwrap_or(1);
        for i in 0..shape.iter().product::<usize>() {
            let (row, column) = (i / columns, i % columns);
            let zero = match name.split('.').rev().nth(1) {
                Some("gate_proj") => row % 3 == 1,
                Some("up_proj") => row == 1 || row == 2,
                Some("down_proj") => column == 4 || column == 11,
                // Two of each four.
                Some("v_proj" | "o_proj") => (row + column) % 4 < 2,
                _ => false,
            };
            let value = if zero {
                0.0f32
            } else {
                ((i * 7 + 3) % 23) as f32 / 16.0 - 0.7
            };
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            at += 4;
        }
    }
    write(dir.path(), CONFIG, &bytes);
    let run = |args: &[&str]| {
        let sizes = ["run", ".", "--set", "batch=1", "--set", "sequence=4"];
        let ran = brolga(dir.path(), &[&sizes, args].concat());
        assert_eq!(ran.status, 0, "{}", ran.err);
    };
    run(&["--pipeline", "canonicalize,eqsat", "--output", "whole.npz"]);
    run(&["--expect", "whole.npz", "--tolerance", "1e-5"]);
    let ran = emit(dir.path(), &["--remarks", "--pipeline", "canonicalize,prune"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    // Rows 1, 4, 7 and 10 of the gate, 1 and 2 of what it gates, columns 4 and 11.
    says(
        &ran.err,
        &[
            "`model.layers.0.mlp.gate_proj` leaves out 6 of 12 rows",
            "`model.layers.0.mlp.up_proj` leaves out 6 of 12 rows",
            "`model.layers.0.mlp.down_proj` leaves out 6 of 12 columns",
        ],
    );
}

/// What few bits cost is told of each matrix, and as much is computed as without.
#[test]
fn what_few_bits_cost() {
    let dir = tempfile::tempdir().expect("there is room");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny_llama");
    let info = |args: &[&str]| -> serde_json::Value {
        let ran = brolga(dir.path(), &[&["info", folder, "--json"], args].concat());
        assert_eq!(ran.status, 0, "{}", ran.err);
        serde_json::from_str(&ran.out).expect("it is JSON")
    };
    let plain = info(&[]);
    assert_eq!(plain["compressed"], serde_json::json!([]));
    for (kind, errors) in [("int8", 0.001..0.02), ("int4", 0.03..0.15)] {
        let found = info(&["--weights", kind]);
        assert_eq!(found["flops"], plain["flops"]);
        let matrices = found["compressed"].as_array().expect("a list");
        assert!(matrices.len() > 20, "{matrices:?}");
        for m in matrices {
            assert!(m["bytes"].as_u64() < m["stored_bytes"].as_u64(), "{m}");
            assert!(m["error"].as_f64().is_some_and(|e| errors.contains(&e)), "{m}");
        }
    }
}

#[test]
fn headers_that_are_wrong() {
    let dir = tempfile::tempdir().expect("there is room");
    let whole = weights(&TENSORS, same);
    let of = |bytes: &[u8]| {
        write(dir.path(), CONFIG, bytes);
        let e = refused(dir.path(), &[]);
        says(&e, &["model.safetensors"]);
        e
    };
    says(&of(b""), &["0 bytes, expected the 8"]);
    says(&of(b"abc"), &["3 bytes, expected the 8"]);
    says(&of(&whole[..40]), &["cut off"]);
    says(
        &of(&u64::MAX.to_le_bytes()),
        &["a header of 18446744073709551615 bytes"],
    );
    says(
        &of(&whole[..whole.len() - 8]),
        &["tensor `model.norm.weight`", "cut off"],
    );
    says(&of(&[&whole[..], &[0; 4]].concat()), &["bytes of tensors"]);
    says(&of(&weights(&TENSORS, |h| h.replace('{', "["))), &["no JSON object"]);
    says(
        &of(&weights(&TENSORS, |h| h.replacen("[0,512]", "[0,516]", 1))),
        &["`model.embed_tokens.weight`", "bytes 0 to 516"],
    );
    says(
        &of(&weights(&TENSORS, |h| h.replacen("[512,544]", "[508,540]", 1))),
        &["input_layernorm.weight`", "overlaps `model.embed_tokens.weight`"],
    );
    says(
        &of(&weights(&TENSORS, |h| h.replacen("F32", "F31", 1))),
        &["`model.embed_tokens.weight`", "element type F31"],
    );
    says(
        &of(&weights(&TENSORS, |h| {
            h.replacen("[16, 8]", "[18446744073709551615, 8]", 1)
        })),
        &["`model.embed_tokens.weight`"],
    );
    says(
        &of(&weights(&TENSORS, |h| h.replacen("[0,512]", "[512,0]", 1))),
        &["`model.embed_tokens.weight`", "bytes 512 to 0"],
    );
}

#[test]
fn tensors_that_do_not_fit_are_all_listed() {
    let dir = tempfile::tempdir().expect("there is room");
    let mut tensors = TENSORS.to_vec();
    tensors[0].1 = &[15, 8];
    tensors[1].0 = "model.layers.0.other";
    tensors[10].0 = "model.layers.1.other";
    write(dir.path(), CONFIG, &weights(&tensors, same));
    says(
        &refused(dir.path(), &[]),
        &[
            "2 missing",
            "model.layers.0.input_layernorm.weight",
            "model.norm.weight",
            "1 wrong",
            "model.embed_tokens.weight: f32[15, 8] where config.json wants floats of [16, 8]",
            "2 without a use",
            "model.layers.{0..1}.other",
        ],
    );
    let more = CONFIG.replace(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 3"#);
    write(dir.path(), &more, &weights(&TENSORS, same));
    says(
        &refused(dir.path(), &[]),
        &["18 missing", "model.layers.{1..2}.mlp.down_proj.weight"],
    );
    let other = CONFIG.replace(r#""hidden_size": 8"#, r#""hidden_size": 10"#);
    write(dir.path(), &other, &weights(&TENSORS, same));
    says(
        &refused(dir.path(), &[]),
        &[
            "wrong",
            "model.norm.weight: f32[8] where config.json wants floats of [10]",
        ],
    );
}

#[test]
fn configurations_that_are_wrong() {
    let dir = tempfile::tempdir().expect("there is room");
    let bytes = weights(&TENSORS, same);
    let with = |from: &str, to: &str| {
        assert!(CONFIG.contains(from), "{from}");
        write(dir.path(), &CONFIG.replacen(from, to, 1), &bytes);
        refused(dir.path(), &[])
    };
    says(
        &with(r#""llama""#, r#""llamalike""#),
        &[
            "config.json: `model_type`: `llamalike` is not known",
            "gpt2",
            "whisper",
            "--family",
        ],
    );
    says(&with(r#""model_type": "llama","#, ""), &["`model_type`: is missing"]);
    says(&with(r#""hidden_size": 8,"#, ""), &["`hidden_size`: is missing"]);
    says(
        &with(r#""hidden_size": 8"#, r#""hidden_size": -8"#),
        &["`hidden_size`: -8, expected a whole number"],
    );
    says(
        &with(r#""hidden_size": 8"#, r#""hidden_size": "8""#),
        &["`hidden_size`"],
    );
    says(
        &with(r#""num_attention_heads": 2"#, r#""num_attention_heads": 3"#),
        &["`num_attention_heads`: 3 for a hidden_size of 8"],
    );
    says(
        &with(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 1000000"#),
        &["at most 4096 layers"],
    );
    says(
        &with(r#""LlamaForCausalLM""#, r#""LlamaForSequenceClassification""#),
        &["`architectures`", "ForCausalLM"],
    );
    says(
        &with("1e-5", r#"1e-5, "residual_multiplier": 0.5"#),
        &["`residual_multiplier`: 0.5", "--config residual_multiplier=null"],
    );
    says(
        &with("1e-5", r#"1e-5, "hidden_act": "gelu_twice""#),
        &["`model.layers.0.mlp.gate_proj`", "`gelu_twice`", "quick_gelu"],
    );
    says(
        &with("1e-5", r#"1e-5, "rope_scaling": {"type": "warped", "factor": 2}"#),
        &["`rope_scaling.rope_type`: `warped` is not supported", "yarn"],
    );
    says(
        &with("1e-5", r#"1e-5, "rope_scaling": {"type": "linear", "factor": 0}"#),
        &["`rope_scaling.factor`: 0"],
    );
    says(
        &with(
            "1e-5",
            r#"1e-5, "rope_scaling": {"type": "linear", "factor": 2, "wobble": 3}"#,
        ),
        &["`rope_scaling.wobble`: 3"],
    );
    says(&with("1e-5", "1e-5,"), &["no JSON"]);
    // A field that is taken out, and a family that is said, are no errors.
    write(
        dir.path(),
        &CONFIG.replacen("1e-5", r#"1e-5, "residual_multiplier": 0.5"#, 1),
        &bytes,
    );
    assert_eq!(emit(dir.path(), &["--config", "residual_multiplier=null"]).status, 0);
    write(dir.path(), &CONFIG.replacen(r#""llama""#, r#""llamalike""#, 1), &bytes);
    assert_eq!(emit(dir.path(), &["--family", "llama"]).status, 0);
    says(
        &refused(dir.path(), &["--family", "llama", "--with", "token_type_ids"]),
        &["no input `token_type_ids`"],
    );
}

#[test]
fn folders_that_are_none() {
    let dir = tempfile::tempdir().expect("there is room");
    says(&refused(dir.path(), &[]), &["a folder without config.json"]);
    fs::write(dir.path().join("config.json"), CONFIG).expect("it can be written");
    says(
        &refused(dir.path(), &[]),
        &["expected model.safetensors, or model.safetensors.index.json"],
    );
    fs::write(dir.path().join("pytorch_model.bin"), b"").expect("it can be written");
    says(
        &refused(dir.path(), &[]),
        &["the weights in pytorch_model.bin have to be converted"],
    );
    let index = |map: &str| {
        fs::write(dir.path().join("model.safetensors.index.json"), map).expect("it can be written");
        refused(dir.path(), &[])
    };
    says(&index("{}"), &["index.json", "no `weight_map`"]);
    says(
        &index(r#"{"weight_map": {"a": "../b.safetensors"}}"#),
        &["`a`", "without folders"],
    );
    says(&index(r#"{"weight_map": {"a": "b.safetensors"}}"#), &["b.safetensors"]);
    fs::write(dir.path().join("b.safetensors"), weights(&TENSORS, same)).expect("it can be written");
    says(
        &index(r#"{"weight_map": {"a": "b.safetensors"}}"#),
        &["b.safetensors", "does not hold `a`"],
    );
}
