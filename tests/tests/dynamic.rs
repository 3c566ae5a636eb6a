//! Sizes that are not known when a model is compiled: symbols of inputs, and what data tell.

use brolga::Options;
use brolga_frontend::onnx;
use brolga_ir::{DType, Number, Tensor};
use brolga_tests::random::Random;
use brolga_tests::{reference_cases, relative_error, run, small_model};
use std::collections::BTreeMap;

/// Sums of other orders, over the largest magnitude.
const TOLERANCE: f64 = 1e-5;

/// Models whose sizes, branches and iterations data tell, each compiled once and run for several inputs.
#[test]
fn results_are_onnx_runtimes() {
    reference_cases::hold("dynamic", 69);
}

/// Ids below 50, types of 0 and 1 and masks of ones for a batch of sequences.
fn tokens(names: impl Iterator<Item = (String, DType)>, shape: [usize; 2]) -> BTreeMap<String, Tensor> {
    let mut random = Random(7);
    let mut fill = |name: &str| {
        let id = random.below(50) as i128;
        Number::Int(match name {
            n if n.contains("mask") => 1,
            n if n.contains("type") => id % 2,
            _ => id,
        })
    };
    names
        .map(|(name, dtype)| {
            let t = Tensor::from_fn(dtype, &shape, |_| fill(&name));
            (name, t)
        })
        .collect()
}

#[test]
fn one_compilation_serves_all_sizes() {
    let path = small_model("bert_dyn").path;
    let compiled = |sizes: Vec<(String, i64)>| {
        let read = onnx::Options {
            sizes,
            ..onnx::Options::default()
        };
        let graph = onnx::load(&path, &read).unwrap();
        let session = brolga::compile(&graph, &Options::default()).and_then(|c| c.session_with(2, u64::MAX));
        (graph, session.unwrap())
    };
    let (graph, one) = compiled(vec![]);
    for (batch, seq) in [(1, 1), (1, 17), (2, 8), (5, 3), (3, 24)] {
        let inputs = graph.inputs.iter().map(|i| (i.name.clone(), graph.ty(i.value).dtype));
        let inputs = tokens(inputs, [batch, seq]);
        let found = run(&one, &inputs).unwrap();
        let (_, fixed) = compiled(vec![("batch".into(), batch as i64), ("seq".into(), seq as i64)]);
        let expected = run(&fixed, &inputs).unwrap();
        assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            let error = relative_error(found, expected);
            assert!(error < TOLERANCE, "{name} at {batch} x {seq}: {error}");
        }
    }
}
