//! What `--fp` promises: with `strict` every value that no sum is on the way to has the bits that it has without any rule.

use brolga::fuzz::generate::{Words, random_graph_of};
use brolga::passes::eqsat::{Fp, Selection};
use brolga::{Options, compile, tensors};
use brolga_ir::{Graph, Number, Tensor};
use brolga_tests::random::Random;
use brolga_tests::unequal;

/// Operators that round, movements, numbers, and reductions that choose.
const WORDS: Words = Words {
    ty: "f32",
    binary: &["add", "sub", "mul", "div", "max"],
    unary: &["exp", "tanh", "sigmoid", "neg", "reciprocal", "sqrt", "abs"],
    folds: &["max", "min"],
    numbers: &["0.5", "3.0", "0.1", "1.0", "0.0"],
    products: false,
    layers: false,
};

/// The outputs of a graph that was compiled with some rules.
fn outputs(g: &Graph, rules: Selection, inputs: &[Tensor]) -> Vec<Tensor> {
    let options = Options {
        rules: Some(rules),
        ..Options::default()
    };
    let session = compile(g, &options).and_then(|c| c.session_with(1, u64::MAX));
    let session = session.unwrap_or_else(|e| panic!("{e}\n{g}"));
    let views: Vec<_> = inputs.iter().map(tensors::view).collect();
    let found = session.run(&views).unwrap_or_else(|e| panic!("{e}\n{g}"));
    found.iter().map(tensors::to_tensor).collect()
}

/// The outputs with the rules of a class.
fn with(fp: Fp, g: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let rules = Selection {
        fp: Some(fp),
        ..Selection::default()
    };
    outputs(g, rules, inputs)
}

/// The outputs without rules.
fn plain(g: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    outputs(g, "none".parse().expect("it is a selection"), inputs)
}

fn parse(text: &str) -> Graph {
    Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn strict_rules_change_no_bit() {
    let mut r = Random(5);
    for n in 0..120 {
        let bytes: Vec<u8> = (0..96).map(|_| r.below(256) as u8).collect();
        let g = parse(&random_graph_of(&bytes, &WORDS));
        let value = |i: usize| Number::Float(((i * 37 + n) % 101) as f64 / 23.0 - 2.0);
        let inputs: Vec<Tensor> = g
            .inputs
            .iter()
            .map(|i| {
                let extents = g.ty(i.value).shape.iter().map(|d| d.as_const().expect("it is known"));
                let shape: Vec<usize> = extents.map(|d| d as usize).collect();
                Tensor::from_fn(g.ty(i.value).dtype, &shape, value)
            })
            .collect();
        for (strict, plain) in with(Fp::Strict, &g, &inputs).iter().zip(&plain(&g, &inputs)) {
            if let Some(e) = unequal(strict, plain) {
                panic!("{e}\n{g}");
            }
        }
    }
}

/// (x·0.1)·3 is rounded twice, x·0.3 once.
#[test]
fn other_rules_round_otherwise() {
    let g = parse(
        "graph @g(%0 x: f32[64]) {
          %1 = const f32[64] splat 0.1
          %2 = const f32[64] splat 3.0
          %3 = mul(%0, %1)
          %4 = mul(%3, %2)
          return y = %4
        }",
    );
    let inputs = [Tensor::from_fn(g.ty(g.inputs[0].value).dtype, &[64], |i| {
        Number::Float(i as f64 / 7.0)
    })];
    let plain = plain(&g, &inputs);
    let differs = |fp| unequal(&with(fp, &g, &inputs)[0], &plain[0]).is_some();
    assert!(!differs(Fp::Strict));
    assert!(differs(Fp::Reassoc) && differs(Fp::Fast));
}
