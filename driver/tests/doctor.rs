//! `brolga doctor`, `--pin`, `--input-shape`, `compile --report`: what is said of a model before and after it is compiled.

mod common;

use common::{arg, brolga, digits, floats, ints, model, node, ok, value};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataLocation, type_proto::Value as TypeValue,
};
use serde_json::Value;
use std::path::Path;

fn write(dir: &Path, name: &str, m: &ModelProto) {
    std::fs::write(dir.join(name), m.write_to_bytes().expect("it is serialised")).expect("a file is written");
}

/// A declared tensor of an element type by ONNX's number.
fn typed(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let mut v = value(name, dims);
    if let Some(TypeValue::TensorType(t)) = &mut v.type_.mut_or_insert_default().value {
        t.elem_type = elem_type;
    }
    v
}

fn attribute(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: AttributeType::GRAPH.into(),
        g: Some(g).into(),
        ..Default::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: AttributeType::INT.into(),
        i,
        ..Default::default()
    }
}

/// A branch of one node from `x`.
fn branch(op: &str, output: &str) -> GraphProto {
    GraphProto {
        name: output.into(),
        node: vec![node(op, &["x"], output)],
        output: vec![ValueInfoProto {
            name: output.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The report on a model as JSON, and the exit status; the text names every subject and way out of it.
fn examined(m: &ModelProto, args: &[&str]) -> (Vec<Value>, i32) {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    write(dir.path(), "m.onnx", m);
    let with = |more: &[&str]| brolga(dir.path(), &[&["doctor", "m.onnx"], more, args].concat());
    let json = with(&["--json"]);
    let report: Value = serde_json::from_str(&json.out).unwrap_or_else(|e| panic!("{e}: {}{}", json.out, json.err));
    let findings = report["findings"].as_array().expect("a list").clone();
    assert_eq!(report["compiles"] == true, json.status == 0, "{}", json.out);
    let text = with(&[]);
    assert_eq!(text.status, json.status);
    for f in &findings {
        for key in ["subject", "detail", "way_out"] {
            let said = f[key].as_str().expect("a text");
            assert!(text.out.contains(said), "`{said}` is not in\n{}", text.out);
        }
    }
    (findings, json.status)
}

/// The findings of a kind.
fn of<'f>(findings: &'f [Value], kind: &str) -> Vec<&'f Value> {
    findings.iter().filter(|f| f["kind"] == kind).collect()
}

#[test]
fn everything_unsupported_is_listed_at_once() {
    // An operator that nobody knows; behind it, an attribute that is refused, which shows only since the type is annotated; beside
    // it an `If` whose condition is unknown, with another operator in a branch.
    let mut split = node("Softmax", &["a"], "b");
    split.attribute = vec![int("axis", 7)];
    let mut choice = node("If", &["c"], "d");
    choice.attribute = vec![
        attribute("then_branch", branch("Nobody", "t")),
        attribute("else_branch", branch("Relu", "e")),
    ];
    let nodes = vec![
        node("Foo", &["x"], "a"),
        split,
        node("Bar", &["x"], "c"),
        choice,
        node("Add", &["b", "d"], "y"),
    ];
    let mut m = model(&[2, 3], nodes, vec![]);
    m.graph.mut_or_insert_default().value_info = vec![value("a", &[2, 3])];
    let (findings, status) = examined(&m, &[]);
    assert_eq!(status, 1);
    let refused: Vec<&str> = of(&findings, "unsupported")
        .iter()
        .map(|f| f["subject"].as_str().expect("a text"))
        .collect();
    assert_eq!(refused, ["Bar", "Foo", "Nobody"]);
    let wrong = of(&findings, "wrong");
    assert_eq!(wrong.len(), 1, "{findings:?}");
    assert_eq!(wrong[0]["nodes"][0], "the_b");
    let unchecked = of(&findings, "unchecked");
    assert!(
        unchecked[0]["nodes"]
            .as_array()
            .is_some_and(|n| n.iter().any(|n| n == "the_y"))
    );

    // What compiling says names the operator in the branch too.
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    m.graph.mut_or_insert_default().node[1].attribute.clear();
    write(dir.path(), "m.onnx", &m);
    let ran = brolga(dir.path(), &["run", "m.onnx"]);
    assert_eq!(ran.status, 2);
    for name in ["Foo", "Bar", "Nobody"] {
        assert!(ran.err.contains(name), "{}", ran.err);
    }
}

#[test]
fn files_that_are_missing_are_named_with_their_tensors() {
    let mut w = floats("w", &[3, 3], &[]);
    w.data_location = DataLocation::EXTERNAL.into();
    w.external_data = vec![StringStringEntryProto {
        key: "location".into(),
        value: "weights.bin".into(),
        ..Default::default()
    }];
    // What follows is looked at, with the type that the weight has.
    let nodes = vec![node("MatMul", &["x", "w"], "h"), node("Foo", &["h"], "y")];
    let (findings, status) = examined(&model(&[2, 3], nodes, vec![w]), &[]);
    assert_eq!(status, 1);
    let missing = of(&findings, "missing-data");
    assert_eq!(missing.len(), 1, "{findings:?}");
    assert_eq!(missing[0]["subject"], "file `weights.bin`");
    assert_eq!(missing[0]["nodes"][0], "w");
    assert_eq!(of(&findings, "unsupported").len(), 1, "{findings:?}");
    assert!(of(&findings, "wrong").is_empty(), "{findings:?}");
}

#[test]
fn dynamic_sizes_say_where_they_come_from() {
    // Rows of `x` that are positive, and a range as long as `n` says.
    let nodes = vec![
        node("NonZero", &["x"], "p"),
        node("Cast", &["p"], "q"),
        node("ReduceSum", &["q"], "s"),
        node("Range", &["zero", "n", "one"], "r"),
        node("Cast", &["r"], "f"),
        node("Add", &["f", "s"], "y"),
    ];
    let scalar = |name: &str, x: i64| TensorProto {
        dims: vec![],
        ..ints(name, &[x])
    };
    let mut m = model(&[-1, 3], nodes, vec![scalar("zero", 0), scalar("one", 1)]);
    let g = m.graph.mut_or_insert_default();
    g.input.push(typed("n", 7, &[]));
    for k in [1, 4] {
        g.node[k].attribute = vec![int("to", 1)];
    }
    g.node[2].attribute = vec![int("keepdims", 0)];
    let (findings, status) = examined(&m, &[]);
    assert_eq!(status, 0, "{findings:?}");
    let input = of(&findings, "dynamic-input");
    assert_eq!(input.len(), 1);
    assert!(
        input[0]["detail"]
            .as_str()
            .is_some_and(|d| d.contains("axis 0 of input `x`"))
    );
    let nodes = of(&findings, "dynamic-node");
    let names: Vec<&Value> = nodes.iter().map(|f| &f["nodes"][0]).collect();
    assert!(
        names.contains(&&Value::from("the_p")) && names.contains(&&Value::from("the_r")),
        "{findings:?}"
    );
    let deciding = of(&findings, "shape-input");
    assert_eq!(deciding.len(), 1, "{findings:?}");
    assert_eq!(deciding[0]["subject"], "input `n`");

    // With what is said there, less is left.
    let (findings, _) = examined(&m, &["--pin", "n=4", "--set", "n=2"]);
    assert!(
        of(&findings, "shape-input").is_empty() && of(&findings, "dynamic-input").is_empty(),
        "{findings:?}"
    );
    assert_eq!(of(&findings, "dynamic-node").len(), 1, "{findings:?}");
}

#[test]
fn what_is_suspicious_is_said_of_a_model_that_compiles() {
    let mut wide = node("Cast", &["x"], "w");
    wide.attribute = vec![int("to", 11)];
    let mut back = node("Cast", &["v"], "y");
    back.attribute = vec![int("to", 1)];
    let nodes = vec![wide, node("Sqrt", &["w"], "v"), back];
    let (findings, status) = examined(&model(&[2, 3], nodes, vec![floats("idle", &[2], &[1.0, 2.0])]), &[]);
    assert_eq!(status, 0, "{findings:?}");
    assert_eq!(of(&findings, "unread")[0]["nodes"], serde_json::json!(["idle"]));
    assert_eq!(of(&findings, "f64")[0]["nodes"], serde_json::json!(["the_w", "the_v"]));
}

/// A product of dequantised bytes and weights of an element type by ONNX's number: float, uint8, int8.
fn product(weights: i32) -> ModelProto {
    let byte = |name: &str, data_type: i32, dims: &[i64], values: &[u8]| TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type,
        raw_data: values.to_vec(),
        ..Default::default()
    };
    let scale = TensorProto {
        dims: vec![],
        ..floats("s", &[1], &[0.02])
    };
    let mut constants = vec![scale, byte("z", 2, &[], &[128])];
    let mut nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q"),
        node("DequantizeLinear", &["q", "s", "z"], "d"),
    ];
    if weights == 1 {
        let values: Vec<f32> = (0..1024).map(|i| i as f32 * 0.01).collect();
        constants.push(floats("w", &[32, 32], &values));
    } else {
        let values: Vec<u8> = (0..=255).cycle().take(1024).collect();
        constants.push(byte("wq", weights, &[32, 32], &values));
        constants.push(byte("zw", weights, &[], &[if weights == 2 { 128 } else { 0 }]));
        nodes.push(node("DequantizeLinear", &["wq", "s", "zw"], "w"));
    }
    nodes.push(node("MatMul", &["d", "w"], "y"));
    model(&[16, 32], nodes, constants)
}

#[test]
fn quantised_products_in_floats_say_why() {
    for (weights, why) in [(1, "operand 1, `w`, is not dequantised"), (2, "operand 1 is uint8")] {
        let (findings, status) = examined(&product(weights), &[]);
        assert_eq!(status, 0, "{findings:?}");
        let floats = of(&findings, "quantised");
        assert_eq!(floats.len(), 1, "{findings:?}");
        let detail = floats[0]["detail"].as_str().expect("a text");
        assert!(detail.contains(why), "{detail}");
    }
    let (findings, _) = examined(&product(3), &[]);
    assert!(of(&findings, "quantised").is_empty(), "{findings:?}");
}

#[test]
fn what_is_no_model_is_an_error() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(dir.path().join("m.onnx"), b"nothing").expect("a file is written");
    let ran = brolga(dir.path(), &["doctor", "m.onnx"]);
    assert!(ran.status == 2 && ran.err.contains("not an ONNX model"), "{}", ran.err);
    write(
        dir.path(),
        "m.onnx",
        &model(&[2, 3], vec![node("Relu", &["x"], "y")], vec![]),
    );
    for (args, why) in [
        (["--pin", "z=1"], "there is no input `z` to pin; there are `x`"),
        (["--pin", "x=1,2"], "2 numbers for f32[2, 3]"),
        (["--input-shape", "x=1"], "is given a shape of rank 1, but has rank 2"),
        (["--input-shape", "z=1"], "there is no input `z` to give a shape"),
    ] {
        for command in ["doctor", "run"] {
            let ran = brolga(dir.path(), &[&[command, "m.onnx"], &args[..]].concat());
            assert!(ran.status == 2 && ran.err.contains(why), "{command}: {}", ran.err);
        }
    }
}

/// `If` on whether an input is 16000.
fn by_rate() -> ModelProto {
    let mut choice = node("If", &["c"], "y");
    choice.attribute = vec![
        attribute("then_branch", branch("Relu", "t")),
        attribute("else_branch", branch("Nobody", "e")),
    ];
    let rate = TensorProto {
        dims: vec![],
        ..ints("rate", &[16000])
    };
    let mut m = model(&[2, 3], vec![node("Equal", &["sr", "rate"], "c"), choice], vec![rate]);
    m.graph.mut_or_insert_default().input.push(typed("sr", 7, &[]));
    m
}

#[test]
fn a_pinned_input_settles_branches() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    write(dir.path(), "m.onnx", &by_rate());
    assert_eq!(brolga(dir.path(), &["doctor", "m.onnx"]).status, 1);
    assert_eq!(brolga(dir.path(), &["doctor", "m.onnx", "--pin", "sr=8000"]).status, 1);
    for command in [
        &["doctor", "m.onnx"][..],
        &["run", "m.onnx"],
        &["info", "m.onnx"],
        &["emit", "m.onnx", "--stage", "tensor"],
        &["compile", "m.onnx", "-o", "m.brolga"],
        &["opt", "m.onnx", "--passes", "canonicalize", "-o", "m.txt"],
    ] {
        let ran = ok(dir.path(), &[command, &["--pin", "sr=16000"]].concat());
        assert!(!ran.out.contains("not supported:"), "{}", ran.out);
    }
    let file = brolga::ir::Tensor::from_i64(&[], &[16000]);
    brolga::npy::write_npz(&dir.path().join("sr.npz"), &[("sr".into(), file)]).expect("a file is written");
    // What has been read already takes no values.
    for command in [&["run", "m.brolga"][..], &["run", "m.txt"]] {
        let ran = brolga(dir.path(), &[command, &["--pin", "sr=16000"]].concat());
        assert!(
            ran.status == 2 && ran.err.contains("has been read already"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn extents_of_inputs_are_fixed_and_freed() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut m = model(&[2, 3], vec![node("Relu", &["x"], "y")], vec![]);
    m.graph.mut_or_insert_default().output = vec![value("y", &[2, 3])];
    write(dir.path(), "m.onnx", &m);
    let x = brolga::ir::Tensor::from_f32(&[5, 3], &[-1.0; 15]);
    brolga::npy::write_npz(&dir.path().join("x.npz"), &[("x".into(), x)]).expect("a file is written");
    let run = |shape: &str| {
        brolga(
            dir.path(),
            &["run", "m.onnx", "--inputs", "x.npz", "--input-shape", shape],
        )
    };
    assert_eq!(brolga(dir.path(), &["run", "m.onnx", "--inputs", "x.npz"]).status, 2);
    for shape in ["x=?,3", "x=rows,3", "x=5,3", "x=?,?"] {
        let ran = run(shape);
        assert_eq!(ran.status, 0, "{shape}: {}", ran.err);
    }
    assert_eq!(run("x=4,3").status, 2);
    let text = ok(
        dir.path(),
        &["emit", "m.onnx", "--stage", "tensor", "--input-shape", "x=rows,?"],
    )
    .out;
    assert!(text.contains("x: f32[rows, x_1]"), "{text}");
}

#[test]
fn compiling_says_what_became_of_every_node() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let ran = ok(
        dir.path(),
        &["compile", arg(&model), "-o", "m.o", "--report", "--no-host-ops"],
    );
    assert!(
        ran.out.contains("calls of kernels") && ran.out.contains("/8/Flatten, /9/Gemm, /10/Relu"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("operators on the host: 0"), "{}", ran.out);
    let json = ok(dir.path(), &["compile", arg(&model), "-o", "m.o", "--report", "--json"]).out;
    let report: Value = serde_json::from_str(&json).expect("JSON");
    let calls = report["report"]["calls"].as_array().expect("a list");
    let all: Vec<&Value> = calls
        .iter()
        .flat_map(|k| k["nodes"].as_array().expect("a list"))
        .chain(report["report"]["merged"].as_array().expect("a list"))
        .collect();
    for name in ["/1/BatchNormalization", "/2/Relu", "/12/Gemm"] {
        assert!(all.iter().any(|n| *n == name), "{name} is not in {json}");
    }
}

#[test]
fn operators_of_the_host_are_named_or_refused() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let text = "graph @m(%0 x: f32[4, 8]) {\n  %1, %2 = top_k{axis=1 k=[3] largest=true}(%0) @\"best\"\n  \
        return v = %1, i = %2\n}\n";
    std::fs::write(dir.path().join("m.txt"), text).expect("a file is written");
    for (output, said) in [
        ("m.o", "the caller has to supply operators of the host"),
        ("m.brolga", "operators run on the host"),
    ] {
        let ran = ok(dir.path(), &["compile", "m.txt", "-o", output, "--report"]);
        assert!(
            ran.err.contains("warning:") && ran.err.contains(said) && ran.err.contains("`top_k` at best"),
            "{}",
            ran.err
        );
        assert!(ran.out.contains("operators on the host: 1"), "{}", ran.out);
        let refused = brolga(dir.path(), &["compile", "m.txt", "-o", "refused.o", "--no-host-ops"]);
        assert!(
            refused.status == 2 && refused.err.contains("`top_k` at best"),
            "{}",
            refused.err
        );
        assert!(!dir.path().join("refused.o").exists());
    }
}

#[test]
fn question_marks_are_extents_of_their_own() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let mut x = value("x", &[-1, -1]);
    if let Some(TypeValue::TensorType(t)) = &mut x.type_.mut_or_insert_default().value {
        for d in &mut t.shape.mut_or_insert_default().dim {
            d.value = Some(onnx_protobuf::tensor_shape_proto::dimension::Value::DimParam(
                "?".into(),
            ));
        }
    }
    let mut m = model(&[1], vec![node("Relu", &["x"], "y")], vec![]);
    m.graph.mut_or_insert_default().input = vec![x];
    write(dir.path(), "m.onnx", &m);
    let text = ok(dir.path(), &["emit", "m.onnx", "--stage", "tensor"]).out;
    assert!(text.contains("x: f32[x_0, x_1]"), "{text}");
}
