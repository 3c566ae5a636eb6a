//! The summary of a model, and tensors in files of their own.

use brolga_frontend::onnx::{self, Options};
use onnx_protobuf::{Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

#[test]
fn a_summary_counts_what_is_unsupported_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = |op: &str, domain: &str| NodeProto {
        op_type: op.into(),
        domain: domain.into(),
        ..Default::default()
    };
    let mut m = ModelProto {
        producer_name: "me".into(),
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        ..Default::default()
    };
    let g = m.graph.mut_or_insert_default();
    g.name = "g".into();
    g.node = vec![
        node("Relu", ""),
        node("Relu", "ai.onnx"),
        node("Frobnicate", ""),
        node("Relu", "other"),
    ];
    g.initializer = vec![TensorProto {
        dims: vec![3, 5],
        data_type: 10,
        ..Default::default()
    }];
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, m.write_to_bytes().unwrap()).unwrap();
    let s = onnx::summary(&path).unwrap();
    let found: Vec<(&str, usize, bool)> = s
        .operators
        .iter()
        .map(|o| (o.operator.as_str(), o.count, o.supported))
        .collect();
    assert_eq!(
        found,
        [("Frobnicate", 1, false), ("Relu", 2, true), ("other::Relu", 1, false)]
    );
    assert_eq!((s.producer.as_str(), s.parameters, s.parameter_bytes), ("me", 15, 30));
    assert_eq!(s.opsets, [(String::new(), 17)]);
}

#[test]
fn tensors_of_every_storage_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.pb");
    let read = |t: &TensorProto| {
        std::fs::write(&path, t.write_to_bytes().unwrap()).unwrap();
        onnx::tensor_file(&path, &Options::default())
    };
    let values: Vec<f32> = (0..40).map(|x| x as f32 - 7.5).collect();
    let mut t = TensorProto {
        name: "t".into(),
        dims: vec![8, 5],
        data_type: 1,
        ..Default::default()
    };
    t.float_data = values.clone();
    let (name, listed) = read(&t).unwrap();
    assert_eq!(
        (name.as_str(), listed.shape(), listed.to_f32s()),
        ("t", &[8, 5][..], values.clone())
    );
    t.float_data.clear();
    t.raw_data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(read(&t).unwrap().1, listed);
    // Halves are stored as their bits in a list of i32.
    t.raw_data.clear();
    t.data_type = 10;
    t.int32_data = vec![0x3c00; 40];
    assert_eq!(read(&t).unwrap().1.to_f32s(), [1.0; 40]);
    t.data_type = 8;
    let e = read(&t).unwrap_err().to_string();
    assert!(e.contains("t.pb") && e.contains("string"), "{e}");
    std::fs::write(&path, [0x0b, 0xff]).unwrap();
    assert!(
        onnx::tensor_file(&path, &Options::default())
            .unwrap_err()
            .to_string()
            .contains("not an ONNX tensor")
    );
}
