//! Weights of 4 bits are no larger in an artefact than in the model's file, whatever reads them, and give what ordinary ones do.

mod common;

use brolga::ir::{DType, Number, Tensor};
use brolga::{Options, compile, tensors};
use brolga_frontend::onnx;
use common::{floats, ints, model, node};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, Message, NodeProto, TensorProto};

const DEPTH: usize = 256;
const COLUMNS: usize = 192;
const BLOCK: usize = 32;

/// The number at a place of the weights: a code of 4 bits and its block's scale.
fn code(k: usize, n: usize) -> i64 {
    ((k * 5 + n * 3 + k / 9) % 16) as i64 - 8
}

fn scale(block: usize, n: usize) -> f32 {
    ((block + n) % 5 + 1) as f32 / 16.0
}

/// Weights of 4 bits as initializers `w` and `s`, and the node that makes numbers of them.
fn weights() -> (Vec<TensorProto>, NodeProto) {
    let codes: Vec<i64> = (0..DEPTH * COLUMNS).map(|i| code(i / COLUMNS, i % COLUMNS)).collect();
    let bytes = codes.chunks(2).map(|c| (c[0] & 15 | (c[1] & 15) << 4) as u8);
    let w = TensorProto {
        name: "w".into(),
        data_type: 22,
        dims: vec![DEPTH as i64, COLUMNS as i64],
        raw_data: bytes.collect(),
        ..Default::default()
    };
    let rows = DEPTH / BLOCK;
    let scales: Vec<f32> = (0..rows * COLUMNS).map(|i| scale(i / COLUMNS, i % COLUMNS)).collect();
    let int = |name: &str, i: i64| AttributeProto {
        name: name.into(),
        i,
        type_: AttributeType::INT.into(),
        ..Default::default()
    };
    let dequantise = NodeProto {
        attribute: vec![int("axis", 0), int("block_size", BLOCK as i64)],
        ..node("DequantizeLinear", &["w", "s"], "d")
    };
    (
        vec![w, floats("s", &[rows as i64, COLUMNS as i64], &scales)],
        dequantise,
    )
}

/// What a model of these nodes gives for `x`, and the bytes of its constants.
fn run(x: &Tensor, nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> (Tensor, usize) {
    let extents: Vec<i64> = x.shape().iter().map(|&n| n as i64).collect();
    let mut m = model(&extents, nodes, initializers);
    m.opset_import[0].version = 21;
    let bytes = m.write_to_bytes().expect("it is serialised");
    let g = onnx::load_bytes(bytes, "a.onnx", &onnx::Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let wanted = g.eval(std::slice::from_ref(x)).expect("it is evaluated").remove(0);
    let compiled = compile(&g, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let size = compiled.packed.bytes().len();
    let session = compiled.session_with(1, u64::MAX).expect("it is loaded");
    let found = session.run(&[tensors::view(x)]).expect("it runs").remove(0);
    let found = tensors::to_tensor(&found);
    let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
    assert!(
        found.to_f64s().into_iter().zip(wanted.to_f64s()).all(near),
        "{found:?}, expected {wanted:?}"
    );
    (found, size)
}

#[test]
fn weights_of_4_bits_stay_as_small_as_they_are() {
    let (initializers, dequantise) = weights();
    // Half a byte each, a scale for 32 of them, and what shifts.
    let most = DEPTH * COLUMNS / 2 + DEPTH / BLOCK * COLUMNS * 4 + 1024;
    let x = |shape: &[usize]| Tensor::from_fn(DType::F32, shape, |i| Number::Float((i * 7 % 13) as f64 / 8.0 - 0.75));
    for rows in [1, 5, 40] {
        let x = x(&[rows, DEPTH]);
        let nodes = vec![dequantise.clone(), node("MatMul", &["x", "d"], "y")];
        let (y, size) = run(&x, nodes, initializers.clone());
        assert!(
            size <= most,
            "a product of {rows} rows: {size} bytes, expected at most {most}"
        );
        for (m, n) in [(0, 0), (rows - 1, COLUMNS - 1), (rows / 2, 77)] {
            let term = |k: usize| x.get(m * DEPTH + k).f64() * code(k, n) as f64 * f64::from(scale(k / BLOCK, n));
            let want: f64 = (0..DEPTH).map(term).sum();
            let found = y.get(m * COLUMNS + n).f64();
            assert!(
                (found - want).abs() < 1e-3 * want.abs().max(1.0),
                "{found}, expected {want}"
            );
        }
    }
    // Arithmetic and sums unpack as they read.
    let nodes = vec![dequantise.clone(), node("Add", &["x", "d"], "y")];
    let (_, size) = run(&x(&[1, COLUMNS]), nodes, initializers.clone());
    assert!(size <= most, "a sum: {size} bytes, expected at most {most}");
    let nodes = vec![
        dequantise,
        node("Mul", &["x", "d"], "p"),
        node("ReduceSum", &["p", "axes"], "y"),
    ];
    let more = [initializers, vec![ints("axes", &[0])]].concat();
    let (_, size) = run(&x(&[DEPTH, 1]), nodes, more);
    assert!(size <= most, "a reduction: {size} bytes, expected at most {most}");
}
