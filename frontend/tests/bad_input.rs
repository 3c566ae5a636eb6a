//! Bad models are errors that name what is wrong, never panics; and what is unusual but right still imports.

mod common;

use brolga_frontend::onnx::{self, Error, Options};
use brolga_ir::{Graph, Tensor};
use common::value;
use onnx_protobuf::{
    AttributeProto, FunctionProto, Message, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
};

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        name: format!("the_{}", outputs[0]),
        ..Default::default()
    }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ..Default::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: domain.into(),
        version,
        ..Default::default()
    }
}

/// A model from `x` [2, 3] to `y`.
fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let mut m = common::model(vec![value("x", 1, &[2, 3])], nodes, &["y"]);
    m.graph.mut_or_insert_default().initializer = initializer;
    m
}

fn load(m: &ModelProto) -> Result<Graph, Error> {
    common::load(m, &Options::default())
}

/// The error's text, which names the file.
fn error(m: &ModelProto) -> String {
    let e = match load(m) {
        Ok(_) => panic!("a bad model was imported"),
        Err(e) => e.to_string(),
    };
    assert!(e.starts_with("a.onnx: "), "{e}");
    e
}

fn run(g: &Graph) -> Vec<f32> {
    let x = Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    g.eval(&[x]).unwrap()[0].to_f32s()
}

#[test]
fn truncated_and_altered_bytes() {
    let weights: Vec<f32> = (0..30).map(|x| x as f32).collect();
    let good = model(
        vec![node("MatMul", &["x", "w"], &["h"]), node("Softmax", &["h"], &["y"])],
        vec![floats("w", &[3, 10], &weights)],
    )
    .write_to_bytes()
    .unwrap();
    assert!(onnx::load_bytes(good.clone(), "a.onnx", &Options::default()).is_ok());
    for n in 0..good.len() {
        assert!(
            onnx::load_bytes(good[..n].to_vec(), "a.onnx", &Options::default()).is_err(),
            "{n} bytes"
        );
    }
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % bytes.len();
            bytes[at] = random() as u8;
        }
        // Some alterations are harmless; none may panic.
        let _ = onnx::load_bytes(bytes, "a.onnx", &Options::default());
        let noise: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        assert!(onnx::load_bytes(noise, "a.onnx", &Options::default()).is_err());
    }
}

#[test]
fn every_unsupported_operator_is_listed_with_its_nodes() {
    let mut odd = node("Attend", &["b"], &["c"]);
    odd.domain = "my.domain".into();
    let m = model(
        vec![
            node("Frobnicate", &["x"], &["a"]),
            node("Relu", &["a"], &["b"]),
            odd,
            node("Frobnicate", &["c"], &["y"]),
        ],
        vec![],
    );
    let Err(Error::Unsupported { items, .. }) = load(&m) else {
        panic!()
    };
    let found: Vec<(&str, Vec<&str>)> = items
        .iter()
        .map(|i| (i.operator.as_str(), i.nodes.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        found,
        [
            ("Frobnicate", vec!["the_a", "the_y"]),
            ("my.domain::Attend", vec!["the_c"])
        ]
    );
    let text = error(&m);
    assert!(
        text.contains("Frobnicate at the_a, the_y") && text.contains("my.domain::Attend at the_c"),
        "{text}"
    );
}

#[test]
fn graphs_that_are_none() {
    let e = error(&model(
        vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"])],
        vec![],
    ));
    assert!(e.contains("cycle") && e.contains("the_a"), "{e}");
    let e = error(&model(vec![node("Add", &["x", "w"], &["y"])], vec![]));
    assert!(e.contains("the_y") && e.contains("`w`"), "{e}");
    let e = error(&model(vec![node("Relu", &["x"], &["z"])], vec![]));
    assert!(e.contains("output `y`"), "{e}");
    let e = error(&model(
        vec![node("Relu", &["x"], &["y"]), node("Abs", &["x"], &["y"])],
        vec![],
    ));
    assert!(e.contains("`y` is defined twice"), "{e}");
    let e = error(&model(
        vec![node("Relu", &["x"], &["a"]), node("Abs", &["a"], &["x"])],
        vec![],
    ));
    assert!(e.contains("cycle"), "{e}");
    let e = error(&model(vec![node("Constant", &[], &["x"])], vec![]));
    assert!(e.contains("the_x"), "{e}");
    let w = || floats("w", &[1], &[1.0]);
    let e = error(&model(vec![node("Add", &["x", "w"], &["y"])], vec![w(), w()]));
    assert!(e.contains("`w` is defined twice"), "{e}");
    let e = error(&model(vec![node("Add", &["x"], &["y"])], vec![]));
    assert!(e.contains("the_y") && e.contains("operands"), "{e}");
    let mut m = model(vec![node("Relu", &["x"], &["y"])], vec![]);
    m.opset_import.clear();
    assert!(error(&m).contains("operator set"));
}

#[test]
fn shapes_that_contradict() {
    let e = error(&model(
        vec![node("Add", &["x", "w"], &["y"])],
        vec![floats("w", &[4], &[0.0; 4])],
    ));
    assert!(e.contains("the_y") && e.contains("[2, 3]") && e.contains("[4]"), "{e}");
    let e = error(&model(
        vec![node("MatMul", &["x", "w"], &["y"])],
        vec![floats("w", &[2, 2], &[0.0; 4])],
    ));
    assert!(e.contains("the_y"), "{e}");
    let mut t = node("Softmax", &["x"], &["y"]);
    t.attribute = vec![AttributeProto {
        name: "axis".into(),
        type_: AttributeType::INT.into(),
        i: i64::MAX,
        ..Default::default()
    }];
    assert!(error(&model(vec![t.clone()], vec![])).contains("axis 9223372036854775807"));
    t.attribute[0].i = i64::MIN;
    assert!(error(&model(vec![t.clone()], vec![])).contains("axis -9223372036854775808"));
    t.attribute[0].type_ = AttributeType::FLOAT.into();
    assert!(error(&model(vec![t], vec![])).contains("expected INT"));
}

#[test]
fn constant_indices_out_of_range() {
    // `x` is [2, 3].
    let indices = |dims: &[i64], values: &[i64]| TensorProto {
        name: "i".into(),
        dims: dims.to_vec(),
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    };
    let error = |op: &str, inputs: &[&str], mut initializer: Vec<TensorProto>, i: TensorProto| {
        initializer.push(i);
        error(&model(vec![node(op, inputs, &["y"])], initializer))
    };
    let updates = |dims: &[i64], n: usize| vec![floats("u", dims, &vec![1.0; n])];
    for (found, axis) in [
        (error("Gather", &["x", "i"], vec![], indices(&[2], &[1, 2])), 0),
        (error("Gather", &["x", "i"], vec![], indices(&[], &[-3])), 0),
        (
            error("GatherElements", &["x", "i"], vec![], indices(&[1, 3], &[0, -3, 1])),
            0,
        ),
        (
            error("GatherND", &["x", "i"], vec![], indices(&[2, 2], &[1, 2, 0, 3])),
            1,
        ),
        (
            error(
                "ScatterElements",
                &["x", "i", "u"],
                updates(&[1, 2], 2),
                indices(&[1, 2], &[0, 2]),
            ),
            0,
        ),
        (
            error(
                "ScatterND",
                &["x", "i", "u"],
                updates(&[1], 1),
                indices(&[1, 2], &[0, -4]),
            ),
            1,
        ),
    ] {
        assert!(
            found.contains("the_y") && found.contains(&format!("into axis {axis}")) && found.contains("out of range"),
            "{found}"
        );
    }
}

#[test]
fn data_that_does_not_fit_its_shape() {
    for dims in [
        &[4i64][..],
        &[1 << 40],
        &[1 << 62, 1 << 62],
        &[-1],
        &[0, 1 << 62, 1 << 62],
    ] {
        let e = error(&model(
            vec![node("Add", &["x", "w"], &["y"])],
            vec![floats("w", dims, &[0.0; 3])],
        ));
        assert!(e.contains("initializer `w`"), "{e}");
    }
    let shape = TensorProto {
        name: "s".into(),
        dims: vec![2],
        data_type: 7,
        int64_data: vec![1 << 20, 1 << 14],
        ..Default::default()
    };
    // 64 GiB, from a few bytes.
    let huge = model(vec![node("ConstantOfShape", &["s"], &["y"])], vec![shape]);
    let e = error(&huge);
    assert!(e.contains("the_y") && e.contains("memory limit"), "{e}");
    let more = Options {
        memory_limit: 1 << 40,
        ..Options::default()
    };
    assert!(common::load(&huge, &more).is_ok());
    let mut pieces = floats("w", &[3], &[0.0; 3]);
    pieces.segment = Some(Default::default()).into();
    assert!(error(&model(vec![node("Add", &["x", "w"], &["y"])], vec![pieces])).contains("segment"));
}

#[test]
fn nodes_in_any_order() {
    let m = model(vec![node("Neg", &["a"], &["y"]), node("Relu", &["x"], &["a"])], vec![]);
    assert_eq!(run(&load(&m).unwrap()), [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
}

#[test]
fn external_data() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let bytes: Vec<u8> = [9.0f32, 10.0, 20.0, 30.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    std::fs::write(folder.join("w.bin"), &bytes).unwrap();
    std::fs::write(dir.path().join("outside.bin"), &bytes).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let load = |location: &str, offset: &str, length: &str| {
        let mut w = floats("w", &[3], &[]);
        w.data_location = DataLocation::EXTERNAL.into();
        w.external_data = vec![
            entry("location", location),
            entry("offset", offset),
            entry("length", length),
        ];
        let path = folder.join("m.onnx");
        let m = model(vec![node("Add", &["x", "w"], &["y"])], vec![w]);
        std::fs::write(&path, m.write_to_bytes().unwrap()).unwrap();
        onnx::load(&path, &Options::default())
    };
    let graph = load("w.bin", "4", "12").unwrap();
    assert_eq!(run(&graph), [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
    assert!(matches!(
        graph.constants[0].data,
        brolga_ir::ConstData::File { offset: 4, .. }
    ));
    for (location, offset, length, want) in [
        ("w.bin", "8", "12", "w.bin, which has 16 bytes"),
        ("w.bin", "18446744073709551615", "12", "which has 16 bytes"),
        ("w.bin", "0", "16", "16 bytes of data"),
        ("w.bin", "-4", "12", "offset `-4`"),
        ("none.bin", "0", "12", "none.bin"),
        ("../outside.bin", "0", "12", "inside the model's folder"),
        ("/etc/hostname", "0", "12", "inside the model's folder"),
        ("", "0", "12", "inside the model's folder"),
    ] {
        let e = load(location, offset, length).unwrap_err().to_string();
        assert!(e.contains("m.onnx: initializer `w`") && e.contains(want), "{e}");
    }
    let e = onnx::load(folder.join("no.onnx"), &Options::default()).unwrap_err();
    assert!(matches!(&e, Error::Io { file, .. } if file.ends_with("no.onnx")), "{e}");
}

#[test]
fn functions_of_the_model() {
    let mut leaky = node("LeakyRelu", &["a"], &["b"]);
    leaky.attribute = vec![AttributeProto {
        name: "alpha".into(),
        ref_attr_name: "slope".into(),
        type_: AttributeType::FLOAT.into(),
        ..Default::default()
    }];
    let inner = FunctionProto {
        name: "Inner".into(),
        domain: "f".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["slope".into()],
        node: vec![leaky],
        opset_import: vec![opset("", 18)],
        ..Default::default()
    };
    let mut call = node("Inner", &["n"], &["out"]);
    call.domain = "f".into();
    call.attribute = vec![AttributeProto {
        name: "slope".into(),
        ref_attr_name: "steep".into(),
        type_: AttributeType::FLOAT.into(),
        ..Default::default()
    }];
    let outer = FunctionProto {
        name: "Outer".into(),
        domain: "f".into(),
        input: vec!["in".into()],
        output: vec!["out".into()],
        attribute: vec!["steep".into()],
        node: vec![node("Neg", &["in"], &["n"]), call],
        opset_import: vec![opset("", 18), opset("f", 1)],
        ..Default::default()
    };
    let mut top = node("Outer", &["x"], &["y"]);
    top.domain = "f".into();
    top.attribute = vec![AttributeProto {
        name: "steep".into(),
        f: 0.5,
        type_: AttributeType::FLOAT.into(),
        ..Default::default()
    }];
    let mut m = model(vec![top], vec![]);
    m.opset_import.push(opset("f", 1));
    m.functions = vec![inner, outer];
    let graph = load(&m).unwrap();
    assert_eq!(run(&graph), [-0.5, -1.0, -1.5, -2.0, -2.5, -3.0]);
    assert!(graph.nodes.iter().any(|n| &*n.origin == "the_y/the_out/the_b"));
    // A function that calls itself.
    m.functions[0].node[0] = node("Inner", &["a"], &["b"]);
    m.functions[0].node[0].domain = "f".into();
    assert!(error(&m).contains("calls itself"));
}

#[test]
fn inputs_that_are_fixed_become_constants() {
    let mut m = model(vec![node("Reshape", &["x", "s"], &["y"])], vec![]);
    m.graph.as_mut().unwrap().input.push(value("s", 7, &[2]));
    let open = load(&m).unwrap();
    assert_eq!(format!("{:?}", open.ty(open.outputs[0].1)), "f32[n_the_y, n_the_y_2]");
    let fix = |t: Tensor| {
        let options = Options {
            fixed: vec![("s".into(), t)],
            ..Options::default()
        };
        common::load(&m, &options)
    };
    let graph = fix(Tensor::from_i64(&[2], &[3, -1])).unwrap();
    assert_eq!(graph.inputs.len(), 1);
    assert_eq!(format!("{:?}", graph.ty(graph.outputs[0].1)), "f32[3, 2]");
    assert!(
        fix(Tensor::from_i64(&[1], &[6]))
            .unwrap_err()
            .to_string()
            .contains("input `s`")
    );
}
