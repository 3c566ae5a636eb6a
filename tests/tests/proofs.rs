//! Proofs: what the optimiser did to a model is a derivation, which a checker that knows nothing of e-graphs follows.

use brolga::ir::{Graph, Target};
use brolga::passes::eqsat::EqSat;
use brolga::passes::eqsat::derive::Derivation;
use brolga::passes::eqsat::journal::{Reason, Step};
use brolga::passes::eqsat::rules::RuleSet;
use brolga::passes::eqsat::usual;
use brolga::passes::eqsat::why::{Answer, why_not};
use brolga::passes::proof::{Check, Fault, Proof, check};
use brolga::{Options, levels, source};
use brolga_tests::{SMALL_MODELS, small_model};
use std::collections::BTreeSet;

const CHECK: Check = Check {
    seed: 1,
    threads: 2,
    sizes: vec![],
};

/// A small model as the e-graph pass is given it.
fn canonical(name: &str) -> Graph {
    let options = Options {
        pipeline: Some("canonicalize".into()),
        ..Options::default()
    };
    let g = source::graph(&small_model(name).path, options.memory_limit).expect("it is imported");
    levels::optimise(&g, &options).expect("it is valid").0
}

fn derive(g: &Graph, set: &RuleSet) -> Derivation {
    Derivation::new(g, set, &EqSat::default(), &Target::x86_64_v4()).expect("the rules are sound")
}

/// A proof that was printed and read.
fn proof(what: &str, g: &Graph, d: &Derivation) -> Proof {
    let proof = d.proof(g).unwrap_or_else(|e| panic!("{what}: {e}"));
    let text = proof.to_string();
    let read = Proof::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
    assert_eq!(read.to_string(), text, "{what}");
    read
}

#[test]
fn what_is_done_to_small_models_is_proved() {
    let mut bad = vec![];
    for name in SMALL_MODELS {
        let g = canonical(name);
        let d = derive(&g, usual());
        let proof = proof(name, &g, &d);
        let checked = check(&proof, &CHECK);
        for f in checked.faults {
            let step = match &f {
                Fault::Step(k, _) => proof.steps[*k].to_string(),
                _ => String::new(),
            };
            bad.push(format!("{name}: {f:?} {step}"));
        }
        let kernels = d.kernels(&g);
        assert!(kernels.iter().any(|k| !k.constant && !k.nodes.is_empty()), "{name}");
    }
    assert!(bad.is_empty(), "{}:\n{}", bad.len(), bad.join("\n"));
}

/// A text's graph, and the rules that prove something about it.
fn small() -> (Graph, Derivation, Proof) {
    let text = r#"graph @g(%0 x: f32[2, 3]) {
      %1 = const f32[2, 3] splat 1.0
      %2 = mul(%0, %1) @"Mul_0"
      %3 = transpose{perm=[1, 0]}(%2) @"Transpose_1"
      %4 = transpose{perm=[1, 0]}(%3) @"Transpose_2"
      %5 = relu(%4) @"Relu_3"
      return y = %5
    }"#;
    let g = Graph::parse(text, &|_| None).expect("it is a graph");
    let d = derive(&g, usual());
    let proof = proof("small", &g, &d);
    (g, d, proof)
}

#[test]
fn a_kernel_is_explained() {
    let (g, d, proof) = small();
    assert_eq!(check(&proof, &CHECK).faults, []);
    let kernels = d.kernels(&g);
    assert_eq!(kernels.len(), 1);
    let rules: Vec<&str> = kernels[0].rules.iter().map(|(name, _)| &**name).collect();
    assert!(
        rules.contains(&"mul-one") && rules.contains(&"transpose-identity"),
        "{rules:?}"
    );
    let operators: Vec<&str> = kernels[0].operators.iter().map(|o| o.name()).collect();
    assert_eq!(operators, ["relu"]);
    assert!(kernels[0].nodes.iter().any(|n| &**n == "Relu_3"));
}

/// A rule that was applied to something is not said to match nowhere.
#[test]
fn what_was_applied_is_known_to_be() {
    for name in ["bert", "resnet", "llama", "mobilenet"] {
        let g = canonical(name);
        let d = derive(&g, usual());
        // Others were applied to what rules made.
        let of_the_model = |s: &&Step| s.is_news && s.sides.iter().any(|(left, _)| d.journal.sources.contains(left));
        let applied: BTreeSet<usize> = (d.journal.steps.iter().filter(of_the_model))
            .filter_map(|s| match s.reason {
                Reason::Rule(at) => Some(at),
                _ => None,
            })
            .collect();
        assert!(!applied.is_empty(), "{name}");
        for rule in applied {
            let all: Vec<Answer> = (0..g.nodes.len())
                .map(|n| why_not(&d, &g, usual(), rule, &[n]))
                .collect();
            let known = |a: &Answer| !matches!(a, Answer::Pattern { .. } | Answer::Condition(_));
            assert!(all.iter().any(known), "{name}: {}", usual().rules[rule].name);
        }
    }
}

#[test]
fn a_false_step_is_found() {
    let (_, _, proof) = small();
    for k in 0..proof.steps.len() {
        // A side that is another value of its type.
        let mut wrong = proof.clone();
        let (left, right) = wrong.steps[k].sides[0];
        let ty = wrong.terms.ty(left).clone();
        let relu = wrong
            .terms
            .nodes
            .iter()
            .find(|n| n.op.name() == "relu")
            .expect("there is one");
        let other = match ty == *wrong.terms.ty(relu.outputs[0]) {
            true => relu.outputs[0],
            false => {
                let op = brolga::ir::Op::new("neg", &[]).expect("it is an operator");
                wrong.terms.add(op, &[right], &"".into()).expect("it is typed")[0]
            }
        };
        wrong.steps[k].sides[0].1 = other;
        let faults = check(&wrong, &CHECK).faults;
        assert!(
            faults.iter().any(|f| matches!(f, Fault::Step(at, _) if *at == k)),
            "{faults:?}"
        );
    }
}

#[test]
fn a_claim_needs_its_steps() {
    let (_, _, proof) = small();
    assert!(proof.steps.len() > 1);
    for k in 0..proof.steps.len() {
        let mut less = proof.clone();
        less.steps.remove(k);
        assert_eq!(check(&less, &CHECK).faults, [Fault::Claim(proof.claims[0].clone())]);
    }
}

#[test]
fn mistakes_in_proofs_have_a_place() {
    let (_, _, proof) = small();
    let text = proof.to_string();
    let error = |text: &str| Proof::parse(text, &|_| None).expect_err("it is wrong").to_string();
    let line = text.lines().count();
    assert!(error(&(text.clone() + "stop")).starts_with(&format!("{}:1: found `stop`", line + 1)));
    assert!(error(&text.replace(" exact:", " perhaps:")).contains("found `perhaps`, expected `exact`"));
    assert!(error(&format!("{text}claim \"z\": %0 = %99")).contains("%99 has no definition"));
}
