//! What the tests of imports share: models built by hand, and their import.

use brolga_frontend::onnx::{self, Error, Options};
use brolga_ir::Graph;
use onnx_protobuf::{
    GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// A model of these nodes; of its outputs only the names are declared.
pub fn model(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, outputs: &[&str]) -> ModelProto {
    let output = |name: &&str| ValueInfoProto {
        name: (*name).into(),
        ..Default::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node: nodes,
        input: inputs,
        output: outputs.iter().map(output).collect(),
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

/// Imports a model as the file `a.onnx`; what is imported is valid.
pub fn load(m: &ModelProto, options: &Options) -> Result<Graph, Error> {
    let graph = onnx::load_bytes(m.write_to_bytes().expect("it is serialised"), "a.onnx", options)?;
    graph
        .verify()
        .unwrap_or_else(|e| panic!("an invalid graph was imported: {e}"));
    Ok(graph)
}

/// A tensor of an element type by ONNX's number; an extent that is no number is a symbol.
pub fn value<D: ToString>(name: &str, elem_type: i32, dims: &[D]) -> ValueInfoProto {
    let dim = |d: &D| {
        let d = d.to_string();
        Dimension {
            value: Some(match d.parse() {
                Ok(n) => dimension::Value::DimValue(n),
                Err(_) => dimension::Value::DimParam(d),
            }),
            ..Default::default()
        }
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type,
        shape: Some(shape).into(),
        ..Default::default()
    };
    let ty = TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        type_: Some(ty).into(),
        ..Default::default()
    }
}
