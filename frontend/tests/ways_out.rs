//! Errors of imports that tell the way out: the name that was meant, the operator set that is known, where a file belongs.

mod common;

use brolga_frontend::onnx::{self, Kind, Options};
use common::{load, model, value};
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
};

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        name: format!("the_{output}"),
        attribute,
        ..Default::default()
    }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: AttributeType::INTS.into(),
        ints: ints.to_vec(),
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

fn graph(name: &str, node: NodeProto) -> AttributeProto {
    let output = common::value::<i64>(&node.output[0], 1, &[]);
    let g = GraphProto {
        name: name.into(),
        output: vec![output],
        node: vec![node],
        ..Default::default()
    };
    AttributeProto {
        name: name.into(),
        type_: AttributeType::GRAPH.into(),
        g: Some(g).into(),
        ..Default::default()
    }
}

fn image() -> Vec<onnx_protobuf::ValueInfoProto> {
    vec![value("x", 1, &[1, 2, 5, 5]), value("w", 1, &[4, 2, 3, 3])]
}

fn error(m: &ModelProto) -> String {
    load(m, &Options::default())
        .expect_err("a bad model was imported")
        .to_string()
}

/// The findings of an examination that stand in the way: what they say, and the way out.
fn examined(m: &ModelProto) -> Vec<(Kind, String, String)> {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, m.write_to_bytes().expect("it is serialised")).expect("a file is written");
    let found = onnx::examine(&path, &Options::default()).expect("it is a model");
    let all = found.findings.into_iter().filter(|f| f.kind.refuses());
    all.map(|f| (f.kind, f.detail, f.way_out)).collect()
}

#[test]
fn attributes_that_nobody_knows() {
    let conv = |attribute| model(image(), vec![node("Conv", &["x", "w"], "y", attribute)], &["y"]);
    assert!(
        load(
            &conv(vec![ints("pads", &[1; 4]), int("__seen_by", 1)]),
            &Options::default()
        )
        .is_ok()
    );
    let misspelt = conv(vec![ints("pad", &[1; 4])]);
    assert_eq!(
        error(&misspelt),
        "a.onnx: node `the_y`: Conv: it has no attribute `pad`; did you mean `pads`?"
    );
    let found = examined(&misspelt);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].1.contains("did you mean `pads`?") && found[0].2.contains("rename"),
        "{found:?}"
    );

    // Attributes of other operator sets, operators of other domains, and nodes in branches, which nothing may run.
    let sum = model(
        image(),
        vec![node("ReduceMean", &["x"], "y", vec![ints("axes", &[1])])],
        &["y"],
    );
    assert!(error(&sum).contains("no attribute `axes` in operator set 18, only before 18"));
    let mut gelu = node("FastGelu", &["x"], "y", vec![int("alpha", 1)]);
    gelu.domain = "com.microsoft".into();
    let mut m = model(image(), vec![gelu], &["y"]);
    m.opset_import.push(OperatorSetIdProto {
        domain: "com.microsoft".into(),
        version: 1,
        ..Default::default()
    });
    assert!(error(&m).contains("FastGelu: it has no attribute `alpha`; it has none"));
    let branches = vec![
        graph("then_branch", node("Relu", &["x"], "t", vec![])),
        graph("else_branch", node("Softmax", &["x"], "e", vec![int("axes", 1)])),
    ];
    let mut inputs = image();
    inputs.push(value::<i64>("c", 9, &[]));
    let m = model(inputs, vec![node("If", &["c"], "y", branches)], &["y"]);
    assert!(error(&m).contains("the_e`: Softmax: it has no attribute `axes`; did you mean `axis`?"));
}

#[test]
fn attributes_that_a_function_does_not_declare() {
    let function = FunctionProto {
        name: "F".into(),
        domain: "f".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["slope".into()],
        node: vec![node("Relu", &["a"], "b", vec![])],
        opset_import: vec![OperatorSetIdProto {
            version: 18,
            ..Default::default()
        }],
        ..Default::default()
    };
    let called = |name| {
        let mut call = node("F", &["x"], "y", vec![int(name, 1)]);
        call.domain = "f".into();
        let mut m = model(image(), vec![call], &["y"]);
        m.functions = vec![function.clone()];
        m
    };
    assert!(load(&called("slope"), &Options::default()).is_ok());
    let e = error(&called("slop"));
    assert!(
        e.contains("F: the function has no attribute `slop`; did you mean `slope`?"),
        "{e}"
    );
}

#[test]
fn operator_sets_that_are_newer_than_what_is_known() {
    let with = |version| {
        let nodes = vec![node("Relu", &["x"], "h", vec![]), node("Neg", &["h"], "y", vec![])];
        let mut m = model(image(), nodes, &["y"]);
        m.opset_import[0].version = version;
        m
    };
    assert!(load(&with(28), &Options::default()).is_ok());
    let e = error(&with(99));
    assert!(
        e.contains(
            "ai.onnx (operator set version 99, 28 is the newest that is known: convert the model to 28) at the_h"
        ),
        "{e}"
    );
    let found = examined(&with(99));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Kind::Unsupported);
    assert!(found[0].2.contains("convert_version(model, 28)"), "{found:?}");
    // A set that no node is of says nothing.
    let mut m = with(18);
    m.opset_import.push(OperatorSetIdProto {
        domain: "ai.onnx.ml".into(),
        version: 99,
        ..Default::default()
    });
    assert!(load(&m, &Options::default()).is_ok());
    let mut scaler = node("Binarizer", &["h"], "y", vec![]);
    scaler.domain = "ai.onnx.ml".into();
    m.graph.mut_or_insert_default().node[1] = scaler;
    assert!(error(&m).contains("ai.onnx.ml (operator set version 99, 5 is the newest"));
}

#[test]
fn groups_and_limits() {
    for op in ["Conv", "ConvTranspose"] {
        let m = model(image(), vec![node(op, &["x", "w"], "y", vec![int("group", 0)])], &["y"]);
        assert!(error(&m).contains("attribute `group` is 0, expected 1 or more"));
    }
    let shape = TensorProto {
        name: "s".into(),
        dims: vec![1],
        data_type: 7,
        int64_data: vec![1 << 40],
        ..Default::default()
    };
    let mut m = model(image(), vec![node("ConstantOfShape", &["s"], "y", vec![])], &["y"]);
    m.graph.mut_or_insert_default().initializer = vec![shape];
    assert!(error(&m).ends_with("raise it with --memory-limit"));
    assert!(examined(&m)[0].2.contains("--memory-limit"));
}

#[test]
fn files_of_weights_that_are_not_where_they_belong() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let load = |location: &str| {
        let w = TensorProto {
            name: "w".into(),
            dims: vec![3],
            data_type: 1,
            data_location: DataLocation::EXTERNAL.into(),
            external_data: vec![StringStringEntryProto {
                key: "location".into(),
                value: location.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut m = model(
            vec![value("x", 1, &[2, 3])],
            vec![node("Add", &["x", "w"], "y", vec![])],
            &["y"],
        );
        m.graph.mut_or_insert_default().initializer = vec![w];
        let path = dir.path().join("m.onnx");
        std::fs::write(&path, m.write_to_bytes().expect("it is serialised")).expect("a file is written");
        let e = onnx::load(&path, &Options::default()).expect_err("the weights are missing");
        let found = onnx::examine(&path, &Options::default())
            .expect("it is a model")
            .findings;
        let missing = found.into_iter().find(|f| f.kind == Kind::MissingData);
        (e.to_string(), missing.expect("the examination finds it, too").way_out)
    };
    let folder = dir.path().display().to_string();
    let (e, way_out) = load("none.bin");
    assert!(
        e.contains("initializer `w`") && e.contains(&format!("copy it into {folder}")),
        "{e}"
    );
    assert!(way_out.contains("put the file beside the model"), "{way_out}");
    for location in ["../w.bin", "/etc/w.bin"] {
        let (e, way_out) = load(location);
        assert!(e.contains("initializer `w`") && e.contains(location), "{e}");
        assert!(e.contains(&folder) && e.contains("save_as_external_data=True"), "{e}");
        assert!(way_out.contains("save_as_external_data=True"), "{way_out}");
    }
}

#[test]
fn files_that_are_no_models_say_what_they_look_like() {
    let e = |bytes: &[u8]| {
        let e = onnx::load_bytes(bytes.to_vec(), "a.onnx", &Options::default());
        e.expect_err("no model was imported").to_string()
    };
    for (bytes, what) in [
        (&b"import numpy as np\n"[..], "it looks like text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it looks like a PNG image"),
        (b"", "it is empty"),
    ] {
        let e = e(bytes);
        assert!(e.starts_with("a.onnx: not an ONNX model: ") && e.contains(what), "{e}");
    }
    let mut m = model(image(), vec![node("Conv", &["x", "w"], "y", vec![])], &["y"]);
    m.producer_name = "someone".into();
    let bytes = m.write_to_bytes().expect("it is serialised");
    let e = e(&bytes[..bytes.len() - 9]);
    let size = bytes.len() - 9;
    assert!(
        e.contains(&format!("may have been cut off: it has {size} bytes")),
        "{e}"
    );
}

#[test]
fn names_cannot_command_a_terminal() {
    let mut evil = node("Conv", &["x", "w"], "y", vec![int("pad\u{1b}[2J", 0)]);
    evil.name = "a\n\u{1b}[31mb".into();
    let e = error(&model(image(), vec![evil.clone()], &["y"]));
    assert!(
        e.contains(r"node `a\n\u{1b}[31mb`: Conv: it has no attribute `pad\u{1b}[2J`"),
        "{e}"
    );
    evil.op_type = "Bad\u{7}Op".into();
    let e = error(&model(image(), vec![evil], &["y"]));
    assert!(e.contains(r"Bad\u{7}Op at a\n\u{1b}[31mb"), "{e}");
}
