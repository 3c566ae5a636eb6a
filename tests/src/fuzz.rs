//! What fuzzing calls: the ONNX importer, the reader of GGUF files, the text parsers, and machine code beside the interpreter, of models as imported and of
//! random valid graphs.
//!
//! The targets of `fuzz/` (cargo-fuzz, a workspace of its own) and the smoke in the test suite call the same functions. Each takes any
//! bytes and panics on a defect only: bad input is an error.

use crate::{exact_outputs, unequal};
use brolga::fuzz::generate::random_graph;
use brolga::{Options, compile, tensors};
use brolga_frontend::{gguf, onnx, safetensors};
use brolga_ir::{DType, Graph, Number, Tensor};
use brolga_passes::eqsat::rules::RuleSet;
use brolga_passes::module::Module;
use brolga_passes::registry::Pipeline;

/// Memory that an imported value may have: what a few bytes ask for is not given.
const MEMORY: u64 = 16 << 20;

/// Elements that all values of a model may have for its interpretation.
const ELEMENTS: usize = 1 << 12;

/// What symbols of a model are.
const SIZE: i64 = 3;

/// A target: its name, as the folder of its regression inputs has it, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [
    ("onnx", import),
    ("gguf", gguf),
    ("model", model),
    ("text", text),
    ("graph", graph),
];

/// Imports bytes as an ONNX model; what is imported is valid.
///
/// # Panics
/// On a defect.
pub fn import(bytes: &[u8]) {
    imported(bytes);
}

/// Reads bytes as a GGUF file; what is read is valid.
///
/// # Panics
/// On a defect.
pub fn gguf(bytes: &[u8]) {
    let read = gguf::load_bytes(bytes.to_vec(), "fuzz.gguf", &safetensors::Options::default());
    if let Ok((g, _)) = read {
        g.verify()
            .unwrap_or_else(|e| panic!("an invalid graph was read: {e}\n{g}"));
    }
}

fn imported(bytes: &[u8]) -> Option<Graph> {
    let options = onnx::Options {
        memory_limit: MEMORY,
        ..onnx::Options::default()
    };
    let g = onnx::load_bytes(bytes.to_vec(), "fuzz.onnx", &options).ok()?;
    g.verify()
        .unwrap_or_else(|e| panic!("an invalid graph was imported: {e}\n{g}"));
    Some(g)
}

/// Imports bytes as an ONNX model, and compares its machine code with the interpreter: results of operators that are exact bit for
/// bit. Models with inner graphs are left out, since nobody knows whether a loop ends, and those of strings.
///
/// # Panics
/// Where they differ, or the graph does not compile.
pub fn model(bytes: &[u8]) {
    let Some(g) = imported(bytes) else { return };
    let inner = g.nodes.iter().any(|n| n.op.regions().next().is_some());
    if inner || g.values.iter().any(|v| v.ty.dtype == DType::Str) {
        return;
    }
    let mut elements = 0usize;
    for v in &g.values {
        let mut extents = v.ty.shape.iter().map(|d| d.eval(&|_| Some(SIZE)));
        let len = extents.try_fold(1usize, |a, n| a.checked_mul(usize::try_from(n?).ok()?));
        match len.and_then(|n| elements.checked_add(n)) {
            Some(sum) if sum <= ELEMENTS => elements = sum,
            _ => return,
        }
    }
    // What has to be the same bit for bit is not rewritten by rules that round.
    let rules = exact_outputs(&g).contains(&true).then_some("exact");
    compare(&g, rules, &g.to_string());
}

/// Reads bytes as the text of every language: IR of all levels, rules, pipelines. What is read prints as text that reads back and
/// prints the same.
///
/// # Panics
/// On a defect.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(m) = Module::parse(text, &|_| None) {
        let printed = m.to_string();
        let again = Module::parse(&printed, &|_| None).unwrap_or_else(|e| panic!("{e}: is not read back:\n{printed}"));
        assert_eq!(printed, again.to_string(), "printed twice");
        // A verdict, and no panic.
        let _ = m.verify();
    }
    let _ = RuleSet::parse("fuzz.rules", text);
    let _ = Pipeline::parse(text);
}

/// Makes a valid graph by the bytes, and compares its machine code with the interpreter, bit for bit.
///
/// # Panics
/// Where they differ, or the graph does not compile.
pub fn graph(bytes: &[u8]) {
    let text = random_graph(bytes);
    let g = Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    compare(&g, None, &text);
}

/// Runs a graph on the interpreter and as machine code made with these rules, and compares what they give.
fn compare(g: &Graph, rules: Option<&str>, text: &str) {
    let inputs: Vec<Tensor> = g
        .inputs
        .iter()
        .enumerate()
        .map(|(k, i)| {
            let ty = g.ty(i.value);
            let extent = |d: &brolga_ir::Dim| d.eval(&|_| Some(SIZE)).expect("symbols have a size") as usize;
            let shape: Vec<usize> = ty.shape.iter().map(extent).collect();
            let value = |i: usize| ((i * 7 + k * 3) % 23) as i128 - 11;
            Tensor::from_fn(ty.dtype, &shape, |i| match ty.dtype {
                DType::Bool => Number::from(i % 3 == 0),
                d if d.is_real() => Number::Float(value(i) as f64 / 4.0),
                d if d.is_signed() => Number::Int(value(i)),
                _ => Number::Int(value(i) + 11),
            })
        })
        .collect();
    let exact = exact_outputs(g);
    let options = Options {
        rules: rules.map(|r| r.parse().expect("these rules are embedded")),
        ..Options::default()
    };
    let wanted = g.eval(&inputs);
    let session = compile(g, &options).and_then(|c| c.session_with(1, u64::MAX));
    let session = session.unwrap_or_else(|e| panic!("{e}\n{text}"));
    let views: Vec<_> = inputs.iter().map(tensors::view).collect();
    let found = session.run(&views);
    let (found, wanted) = match (found, wanted) {
        (Ok(found), Ok(wanted)) => (found, wanted),
        // Both refuse the data.
        (Err(_), Err(_)) => return,
        // Machine code computes nothing, and checks no index, of elements that nobody reads.
        (Ok(_), Err(e)) if e.message.contains("out of range") => return,
        // The interpreter has every value in memory, of what is empty in the end too.
        (Ok(_), Err(e)) if e.message.contains("too large to evaluate") => return,
        (Ok(_), Err(e)) => panic!("only the interpreter fails: {e}\n{text}"),
        (Err(e), Ok(_)) => panic!("only machine code fails: {e}\n{text}"),
    };
    for (i, (f, w)) in found.iter().zip(&wanted).enumerate() {
        let f = tensors::to_tensor(f);
        if f.dtype() != w.dtype() || f.shape() != w.shape() {
            panic!("output {i}: {f:?}, expected {w:?}\n{text}");
        }
        if exact[i]
            && let Some(e) = unequal(&f, w)
        {
            panic!("output {i}: {e}\n{text}");
        }
    }
}
