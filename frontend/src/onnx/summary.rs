//! What a model holds, without importing it: works for models with unsupported operators too.

use super::import::{domain, operator_name};
use super::model::{self, Model};
use super::signature::map_parts;
use super::{Error, ops, tensor};
use onnx_protobuf::{
    GraphProto, NodeProto, TensorProto, ValueInfoProto, tensor_shape_proto::dimension::Value as DimValue,
    type_proto::Value as TypeValue,
};
use std::collections::BTreeMap;
use std::path::Path;

/// A model at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The graph's name.
    pub name: String,
    /// The program that wrote the model, with its version.
    pub producer: String,
    /// Operator sets by domain (empty for ONNX's own).
    pub opsets: Vec<(String, i64)>,
    /// Inputs without an initializer.
    pub inputs: Vec<Port>,
    /// Outputs, as declared.
    pub outputs: Vec<Port>,
    /// Operators of the graph, of its subgraphs and of its functions, sorted by name.
    pub operators: Vec<OperatorCount>,
    /// The number of elements of all initializers.
    pub parameters: u64,
    /// The size of all initializers of supported element types, in bytes.
    pub parameter_bytes: u64,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// ONNX's name of its element type, or what it is instead of a tensor.
    pub dtype: String,
    /// Its extents: numbers, symbols, or `?`; `None` for an unknown rank.
    pub shape: Option<Vec<String>>,
}

/// How often an operator occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorCount {
    /// The operator, with its domain when that is not ONNX's own.
    pub operator: String,
    /// The number of nodes, each function's body counted once.
    pub count: usize,
    /// True when the importer knows it (or it is a function of the model).
    pub supported: bool,
}

/// Reads a model's summary.
///
/// # Errors
/// When the file cannot be read or is no model.
pub fn summary(path: impl AsRef<Path>) -> Result<Summary, Error> {
    let path = path.as_ref();
    let m = Model::parse(model::map(path)?, Some(super::folder(path)))?.proto;
    let mut counts: BTreeMap<String, OperatorCount> = BTreeMap::new();
    let mut add = |n: &NodeProto| {
        let local = |f: &&onnx_protobuf::FunctionProto| f.name == n.op_type && domain(&f.domain) == domain(&n.domain);
        let operator = operator_name(&n.domain, &n.op_type);
        let supported = m.functions.iter().any(|f| local(&f)) || ops::lookup(domain(&n.domain), &n.op_type).is_some();
        let entry = OperatorCount {
            operator: operator.clone(),
            count: 0,
            supported,
        };
        counts.entry(operator).or_insert(entry).count += 1;
    };
    m.functions.iter().for_each(|f| visit(&f.node, &mut add));
    visit(&m.graph.node, &mut add);
    let g: &GraphProto = &m.graph;
    let is_weight = |i: &&ValueInfoProto| g.initializer.iter().any(|t| t.name == i.name);
    let elements = |t: &TensorProto| {
        let dims = t.dims.iter().map(|&d| u64::try_from(d).unwrap_or(0));
        dims.fold(1u64, u64::saturating_mul)
    };
    let size = |t: &TensorProto| match tensor::dtype(t.data_type) {
        Ok(d) if d.small().is_some() => tensor::packed_bytes(d, elements(t) as usize) as u64,
        Ok(d) => elements(t).saturating_mul(d.bytes() as u64),
        Err(_) => 0,
    };
    Ok(Summary {
        name: g.name.clone(),
        producer: format!("{} {}", m.producer_name, m.producer_version).trim().to_string(),
        opsets: m
            .opset_import
            .iter()
            .map(|o| (domain(&o.domain).to_string(), o.version))
            .collect(),
        inputs: g.input.iter().filter(|i| !is_weight(i)).flat_map(ports).collect(),
        outputs: g.output.iter().flat_map(ports).collect(),
        operators: counts.into_values().collect(),
        parameters: g.initializer.iter().map(elements).fold(0, u64::saturating_add),
        parameter_bytes: g.initializer.iter().map(size).fold(0, u64::saturating_add),
    })
}

fn visit(nodes: &[NodeProto], f: &mut dyn FnMut(&NodeProto)) {
    for n in nodes {
        f(n);
        for a in &n.attribute {
            for g in a.g.as_ref().into_iter().chain(&a.graphs) {
                visit(&g.node, f);
            }
        }
    }
}

/// What an input or output is declared as: a map is two tensors.
fn ports(v: &ValueInfoProto) -> Vec<Port> {
    let Some(TypeValue::MapType(m)) = v.type_.as_ref().and_then(|t| t.value.as_ref()) else {
        return vec![port(v)];
    };
    let value = match m.value_type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => tensor::type_name(t.elem_type),
        _ => "unknown".into(),
    };
    let parts = map_parts(&v.name)
        .into_iter()
        .zip([tensor::type_name(m.key_type), value]);
    let part = |(name, dtype)| Port {
        name,
        dtype,
        shape: Some(vec!["?".into()]),
    };
    parts.map(part).collect()
}

fn port(v: &ValueInfoProto) -> Port {
    let (dtype, shape) = match v.type_.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => {
            let dims = t.shape.as_ref().map(|s| {
                let dim = |d: &onnx_protobuf::tensor_shape_proto::Dimension| match &d.value {
                    Some(DimValue::DimValue(n)) => n.to_string(),
                    Some(DimValue::DimParam(p)) if !p.is_empty() => p.clone(),
                    _ => "?".into(),
                };
                s.dim.iter().map(dim).collect()
            });
            (tensor::type_name(t.elem_type), dims)
        }
        Some(TypeValue::SequenceType(_)) => ("sequence".into(), None),
        Some(TypeValue::OptionalType(_)) => ("optional".into(), None),
        Some(TypeValue::SparseTensorType(_)) => ("sparse tensor".into(), None),
        _ => ("unknown".into(), None),
    };
    Port {
        name: v.name.clone(),
        dtype,
        shape,
    }
}
