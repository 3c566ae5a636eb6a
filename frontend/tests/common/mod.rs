//! What the tests of imports share: declarations of models built by hand.

use onnx_protobuf::{
    TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

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
