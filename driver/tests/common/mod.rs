//! What the tests of the command line share: starting it, and small ONNX models made here.

// Each test file uses a part of this.
#![allow(dead_code)]

use brolga::ir::Tensor;
use brolga::npy::read_npz;
use onnx_protobuf::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a run of the command line gave.
pub struct Ran {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `brolga` with arguments in a folder.
pub fn brolga(dir: &Path, args: &[&str]) -> Ran {
    brolga_with(dir, args, &[])
}

/// The same with variables of the environment that are paths.
pub fn brolga_with(dir: &Path, args: &[&str], variables: &[(&str, &Path)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_brolga"))
        .args(args)
        .current_dir(dir)
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().copied())
        .output();
    ran(output.expect("the binary was built"))
}

/// The result of a process.
pub fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    Ran {
        // A process that a signal ended has no status.
        status: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Runs `brolga`, which has to succeed.
pub fn ok(dir: &Path, args: &[&str]) -> Ran {
    let ran = brolga(dir, args);
    assert_eq!(ran.status, 0, "{}: {}", args.join(" "), ran.err);
    ran
}

/// What it prints as JSON.
pub fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(dir, args).out).expect("it prints JSON and nothing else")
}

/// A file of tensors of f32, as safetensors have it.
pub fn safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = vec![];
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length[..], header.as_bytes(), &data].concat();
    std::fs::write(path, bytes).expect("a file is written");
}

/// The small model of `examples/tiny_llama` with more words than its tokenizer has: more weights than are checked at once.
pub fn large_llama(folder: &Path) {
    const WORDS: usize = 70_000;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama");
    std::fs::create_dir_all(folder).expect("a folder is made");
    for name in ["generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), folder.join(name)).expect("a file is copied");
    }
    let read = |name: &str| std::fs::read(from.join(name)).expect("it is in the repository");
    let mut config: Value = serde_json::from_slice(&read("config.json")).expect("it is JSON");
    config["vocab_size"] = WORDS.into();
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file is written");
    let bytes = read("model.safetensors");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("it has a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).expect("it is JSON");
    // The table stands in front of the others; what is next to zero goes behind it: rows of zeros would be left out.
    let tensors = header.as_object_mut().expect("it is an object");
    let place = |t: &Value, i: usize| t["data_offsets"][i].as_u64().expect("a place") as usize;
    let table = tensors["model.embed_tokens.weight"].clone();
    let (end, grown) = (place(&table, 1), WORDS * 128 * 2);
    assert_eq!(place(&table, 0), 0);
    tensors.remove("__metadata__");
    for t in tensors.values_mut() {
        let [start, stop] = [0, 1].map(|i| (place(t, i) + grown).wrapping_sub(end));
        t["data_offsets"] = serde_json::json!([start, stop]);
    }
    tensors["model.embed_tokens.weight"] =
        serde_json::json!({ "dtype": table["dtype"], "shape": [WORDS, 128], "data_offsets": [0, grown] });
    let (words, others) = data.split_at(end);
    let small = 0x2000u16.to_le_bytes().repeat((grown - end) / 2);
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let all = [&length[..], header.as_bytes(), words, &small, others].concat();
    std::fs::write(folder.join("model.safetensors"), all).expect("a file is written");
}

/// A LoRA adapter of rank 2 for modules of these shapes, with some numbers in it.
pub fn adapter(folder: &Path, modules: &[(&str, [usize; 2])]) {
    std::fs::create_dir_all(folder).expect("a folder is made");
    let config = serde_json::json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [] });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).expect("a file is written");
    let mut tensors = vec![];
    for (number, (module, [outer, inner])) in modules.iter().enumerate() {
        for (factor, shape) in [("A", [2, *inner]), ("B", [*outer, 2])] {
            let values = (0..shape[0] * shape[1]).map(|i| ((i * 37 + 11 * number) % 17) as f32 / 17.0 - 0.5);
            let name = format!("base_model.model.{module}.lora_{factor}.weight");
            tensors.push((name, shape.to_vec(), values.collect()));
        }
    }
    safetensors(&folder.join("adapter_model.safetensors"), &tensors);
}

/// The folder of small models with an encoder and a decoder, a sound, and references.
pub fn speech_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/encoder-decoder")
}

/// What transformers computes of them.
pub fn references() -> Value {
    let text = std::fs::read_to_string(speech_data().join("references.json")).expect("it is in the repository");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The repository's test images, and the right digits.
pub fn images() -> (Tensor, Vec<i64>) {
    let all = read_npz(&digits().with_extension("npz")).expect("it is in the repository");
    let find = |n: &str| {
        all.iter()
            .find(|(name, _)| name == n)
            .expect("it is in the file")
            .1
            .clone()
    };
    (find("images"), find("labels").to_i64s())
}

/// A .npy file of f32 zeros, which is what a .npz file holds: written by hand.
pub fn zeros_npy(shape: &str, elements: usize) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend(118u16.to_le_bytes());
    npy.extend(format!("{header:<117}\n").bytes());
    npy.extend(vec![0u8; 4 * elements]);
    npy
}

/// Fails for a page that lacks something, or asks somebody for it.
pub fn is_whole_page(page: &str, title: &str) {
    assert!(page.starts_with("<!doctype html>") && page.contains(&format!("<title>{title}</title>")));
    for place in ["BODY", "SCRIPT", "STYLE", "\"DATA\""] {
        assert!(!page.lines().any(|l| l.trim() == place), "{place} is still there");
    }
    assert!(!page.contains("src=") && !page.contains("@import"));
}

/// The model that the README's first command runs.
pub fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.onnx")
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("the test's paths are UTF-8")
}

/// The names of a folder's files, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the folder is there").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A declared f32 tensor; a negative extent is the symbol `n`.
pub fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |d: &i64| Dimension {
        value: Some(match *d {
            d if d < 0 => dimension::Value::DimParam("n".into()),
            d => dimension::Value::DimValue(d),
        }),
        ..Default::default()
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: 1,
        shape: Some(shape).into(),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        type_: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

/// A node called `the_OUTPUT`.
pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        name: format!("the_{output}"),
        ..Default::default()
    }
}

/// An f32 initializer.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ..Default::default()
    }
}

/// An i64 initializer.
pub fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// A model from `x` to `y`.
pub fn model(x: &[i64], nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let output = ValueInfoProto {
        name: "y".into(),
        ..Default::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node: nodes,
        initializer,
        input: vec![value("x", x)],
        output: vec![output],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 18,
            ..Default::default()
        }],
        graph: Some(graph).into(),
        ..Default::default()
    }
}
