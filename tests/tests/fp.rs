//! What `--fp` promises: with `strict` every value that no sum is on the way to has the bits that it has without any rule.

use brolga::passes::eqsat::{Fp, Selection};
use brolga::{Options, compile, tensors};
use brolga_ir::{Graph, Number, Tensor};
use brolga_tests::fuzz::{Words, random_graph_of};
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

#[test]
fn strict_rules_change_no_bit() {
    let mut r = Random(5);
    let mut rounded = 0;
    for n in 0..120 {
        let bytes: Vec<u8> = (0..96).map(|_| r.below(256) as u8).collect();
        let text = random_graph_of(&bytes, &WORDS);
        let g = Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let value = |i: usize| Number::Float(((i * 37 + n) % 101) as f64 / 23.0 - 2.0);
        let inputs: Vec<Tensor> = g
            .inputs
            .iter()
            .map(|i| {
                let shape = g
                    .ty(i.value)
                    .shape
                    .iter()
                    .map(|d| d.as_const().expect("it is known") as usize);
                Tensor::from_fn(g.ty(i.value).dtype, &shape.collect::<Vec<_>>(), value)
            })
            .collect();
        let with = |fp| {
            let rules = Selection {
                fp: Some(fp),
                ..Selection::default()
            };
            outputs(&g, rules, &inputs)
        };
        let plain = outputs(&g, "none".parse().expect("it is a selection"), &inputs);
        for (strict, plain) in with(Fp::Strict).iter().zip(&plain) {
            if let Some(e) = unequal(strict, plain) {
                panic!("{e}\n{g}");
            }
        }
        let differs = |(a, b): (&Tensor, &Tensor)| unequal(a, b).is_some();
        rounded += usize::from(with(Fp::Reassoc).iter().zip(&plain).any(differs));
    }
    assert!(
        rounded > 0,
        "other rules round otherwise in no graph: what does the option choose?"
    );
}
