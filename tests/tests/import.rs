//! The small networks of real architectures against their references (by the tensor IR's interpreter), and the light
//! models, whose weights are splats, as far as import.

use brolga_frontend::onnx::{self, Options};
use brolga_tests::{SmallModel, data, small_model};

fn check(name: &str) {
    let SmallModel { path, inputs, outputs } = small_model(name);
    let graph = onnx::load(path, &Options::default()).unwrap();
    graph.verify().unwrap();
    let inputs: Vec<_> = graph.inputs.iter().map(|i| inputs[&i.name].clone()).collect();
    let found = graph.eval(&inputs).unwrap();
    assert_eq!(found.len(), outputs.len());
    for ((n, _), got) in graph.outputs.iter().zip(&found) {
        let want = &outputs[n];
        assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{name}: {n}");
        let (g, w) = (got.to_f64s(), want.to_f64s());
        let largest = w.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let error = g.iter().zip(&w).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        assert!(
            error <= 1e-4 * largest && g.iter().all(|x| x.is_finite()),
            "{name}: {n}: {error} of {largest}"
        );
    }
}

macro_rules! small {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}
small!(mlp resnet mobilenet efficientnet densenet inception unet convnext vit swin bert bert_dyn gpt2 llama whisper t5
       tcn detector generator video moe);

#[test]
fn symbols_of_bert_dyn_are_batch_and_seq() {
    let graph = onnx::load(small_model("bert_dyn").path, &Options::default()).unwrap();
    let symbols: Vec<&str> = graph.symbols.iter().map(|s| &**s).collect();
    assert_eq!(symbols, ["batch", "seq"]);
    let out = &graph.ty(graph.outputs[0].1).shape;
    assert_eq!(format!("{out:?}"), "[batch, seq, 48]");
}

/// A map is two inputs, of as many elements as it has entries.
#[test]
fn maps_are_keys_and_values() {
    let model = data("classical-models").join("case_dict_strings_float.onnx");
    let types = |g: &brolga_ir::Graph| -> Vec<String> {
        let inputs = g.inputs.iter();
        inputs.map(|i| format!("{}: {}", i.name, g.ty(i.value))).collect()
    };
    let graph = onnx::load(&model, &Options::default()).unwrap();
    assert_eq!(types(&graph), ["m[keys]: str[m_entries]", "m[values]: f32[m_entries]"]);
    let options = Options {
        sizes: vec![("m_entries".into(), 3)],
        ..Options::default()
    };
    let graph = onnx::load(&model, &options).unwrap();
    assert_eq!(types(&graph), ["m[keys]: str[3]", "m[values]: f32[3]"]);
    let ports = onnx::summary(&model).unwrap().inputs;
    let ports: Vec<String> = ports
        .iter()
        .map(|p| format!("{}: {} {:?}", p.name, p.dtype, p.shape))
        .collect();
    assert_eq!(
        ports,
        [r#"m[keys]: string Some(["?"])"#, r#"m[values]: float Some(["?"])"#]
    );
    let findings = onnx::examine(&model, &Options::default()).unwrap().findings;
    let dynamic = findings.iter().filter(|f| f.kind == onnx::Kind::DynamicInput);
    assert_eq!(
        dynamic.map(|f| f.nodes[0].as_str()).collect::<Vec<_>>(),
        ["m[keys]", "m[values]"]
    );
}

#[test]
fn light_models_import_without_making_their_weights() {
    let dir = data("onnx-light").join("light");
    let mut cases = 0;
    for case in std::fs::read_dir(dir).unwrap() {
        let path = case.unwrap().path();
        let graph = onnx::load(path.join("model.onnx"), &Options::default()).unwrap();
        graph.verify().unwrap();
        let dense = graph
            .constants
            .iter()
            .filter(|c| matches!(c.data, brolga_ir::ConstData::Dense(_)));
        let bytes: usize = dense.map(|c| c.to_tensor().bytes().len()).sum();
        assert!(
            bytes < 1 << 20,
            "{}: {bytes} bytes of weights in memory",
            path.display()
        );
        cases += 1;
    }
    assert_eq!(cases, 9);
}
