//! Inputs with an initializer, which is their default; outputs that are listed twice; the empty name, which names nothing.

mod common;

use brolga_frontend::onnx::Options;
use brolga_ir::{Graph, Tensor};
use common::{load, model, value};
use onnx_protobuf::{ModelProto, NodeProto, TensorProto};

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn floats(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 1,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

/// `y = reshape(x + b, s)`, all but `x` with an initializer, all of them inputs.
fn reshaped_sum() -> ModelProto {
    let inputs = vec![value("x", 1, &[4]), value("b", 1, &[4]), value("s", 7, &[2])];
    let nodes = vec![node("Add", &["x", "b"], "t"), node("Reshape", &["t", "s"], "y")];
    let mut m = model(inputs, nodes, &["y"]);
    m.graph.mut_or_insert_default().initializer = vec![floats("b", &[10.0, 20.0, 30.0, 40.0]), ints("s", &[2, 2])];
    m
}

fn import(m: &ModelProto) -> Graph {
    load(m, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn inputs(g: &Graph) -> Vec<&str> {
    g.inputs.iter().map(|i| i.name.as_str()).collect()
}

#[test]
fn initializers_are_defaults_unless_they_decide_shapes() {
    let g = import(&reshaped_sum());
    assert_eq!(inputs(&g), ["x", "b"], "{g}");
    assert_eq!(g.defaults.len(), 1);
    assert_eq!(g.defaults[0].0, "b");
    assert_eq!(g.defaults[0].1.to_tensor().to_f32s(), [10.0, 20.0, 30.0, 40.0]);
    let one = Tensor::from_f32(&[4], &[1.0; 4]);
    assert_eq!(g.eval(&[one.clone(), one]).unwrap()[0].to_f32s(), [2.0; 4]);
    // Old files list every weight as an input.
    let mut old = reshaped_sum();
    old.ir_version = 3;
    assert_eq!(inputs(&import(&old)), ["x"]);
    // And so does who asks for it.
    let constant = Options {
        constant_defaults: true,
        ..Options::default()
    };
    let g = load(&reshaped_sum(), &constant).unwrap();
    assert_eq!((inputs(&g), g.defaults.len()), (vec!["x"], 0));
}

#[test]
fn a_default_of_another_type_is_an_error() {
    let mut m = reshaped_sum();
    m.graph.as_mut().unwrap().input[1] = value("b", 1, &[5]);
    // As a constant it broadcasts with nothing, either.
    m.graph.as_mut().unwrap().initializer[0] = floats("b", &[1.0; 5]);
    assert!(load(&m, &Options::default()).is_err());
}

#[test]
fn an_output_may_be_listed_twice() {
    let mut m = reshaped_sum();
    let output = m.graph.output[0].clone();
    m.graph.as_mut().unwrap().output.push(output);
    let g = import(&m);
    assert_eq!(g.outputs.len(), 2);
    assert_eq!(g.outputs[0], g.outputs[1]);
    let text = g.to_string();
    assert_eq!(Graph::parse(&text, &|_| None).unwrap(), g);
}

/// An operand without a name is one that is left out, whatever else has no name.
#[test]
fn the_empty_name_names_nothing() {
    let mut m = reshaped_sum();
    let g = m.graph.as_mut().unwrap();
    g.node = vec![node("Clip", &["x", "", "b"], "y"), node("Relu", &["x"], "")];
    g.initializer = vec![floats("", &[3.0]), floats("b", &[2.0]), floats("", &[4.0])];
    g.initializer[1].dims = vec![];
    g.input = vec![value("x", 1, &[4])];
    g.output = vec![value("y", 1, &[4])];
    let g = import(&m);
    let x = Tensor::from_f32(&[4], &[-5.0, 1.0, 2.5, 9.0]);
    assert_eq!(g.eval(&[x]).unwrap()[0].to_f32s(), [-5.0, 1.0, 2.0, 2.0]);
}
