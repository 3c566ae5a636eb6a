//! An ONNX operator on 16-bit floats rounds its result once, whatever it is composed of.

mod common;

use brolga_frontend::onnx::Options;
use brolga_ir::{DType, Number, Tensor};
use common::{load, model, value};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, NodeProto};

/// What one node gives for these operands of a type.
fn run(op: &str, attrs: &[(&str, f32)], dtype: DType, operands: &[(&[usize], &[f64])]) -> Vec<f64> {
    let code = if dtype == DType::F16 { 10 } else { 16 };
    let names: Vec<String> = (0..operands.len()).map(|i| format!("x{i}")).collect();
    let float = |(name, x): &(&str, f32)| AttributeProto {
        name: name.to_string(),
        f: *x,
        type_: AttributeType::FLOAT.into(),
        ..Default::default()
    };
    let node = NodeProto {
        op_type: op.into(),
        input: names.clone(),
        output: vec!["y".into()],
        attribute: attrs.iter().map(float).collect(),
        ..Default::default()
    };
    let inputs = names.iter().zip(operands).map(|(n, (s, _))| value(n, code, s));
    let g = load(&model(inputs.collect(), vec![node], &["y"]), &Options::default()).unwrap();
    let tensor = |(shape, x): &(&[usize], &[f64])| Tensor::from_fn(dtype, shape, |i| Number::Float(x[i]));
    let given: Vec<Tensor> = operands.iter().map(tensor).collect();
    let y = g.eval(&given).unwrap().remove(0);
    assert_eq!(y.dtype(), dtype, "{op}");
    y.to_f64s()
}

#[test]
fn composed_operators_round_once() {
    let f16 = |op, attrs: &[(&str, f32)], operands: &[(&[usize], &[f64])]| run(op, attrs, DType::F16, operands);
    // f16 has no 2049: rounded before the bias is added, each of these would be 2048.
    let (a, b, c): (&[f64], &[f64], &[f64]) = (&[2048.0, 1.0], &[1.0, 1.0], &[1.0]);
    assert_eq!(f16("Gemm", &[], &[(&[1, 2], a), (&[2, 1], b), (&[1], c)]), [2050.0]);
    assert_eq!(
        f16("Conv", &[], &[(&[1, 2, 1], a), (&[1, 2, 1], b), (&[1], c)]),
        [2050.0]
    );
    assert_eq!(
        f16("ConvTranspose", &[], &[(&[1, 2, 1], a), (&[2, 1, 1], b), (&[1], c)]),
        [2050.0]
    );
    assert_eq!(f16("Sum", &[], &[(&[1], &[2048.0]), (&[1], c), (&[1], c)]), [2050.0]);
    // Squares beyond 65504, whose mean or root is not.
    assert_eq!(f16("ReduceL2", &[], &[(&[2], &[300.0, 400.0])]), [500.0]);
    assert_eq!(f16("ReduceMean", &[], &[(&[4], &[60000.0; 4])]), [60000.0]);
    // e^x - 1 keeps its digits.
    let x = -(2f64.powi(-14));
    assert_eq!(f16("Elu", &[("alpha", 1.0)], &[(&[1], &[x])]), [x]);
    // ONNX's own case.
    assert_eq!(
        run("Celu", &[("alpha", 2.0)], DType::BF16, &[(&[1], &[-0.5])]),
        [-0.443359375]
    );
}
