//! `brolga explain`, `check-proof`, `why-not`, `equal`, and what `--remarks` says of fusions that were missed.

mod common;

use common::{brolga, json};
use std::path::Path;

const MODEL: &str = r#"graph @model(%0 x: f32[1, 8, 6, 6]) {
  %1 = const f32[8, 8, 3, 3] [WEIGHTS]
  %2 = const f32[8] splat 1.0
  %3 = conv{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}(%0, %1) @"Conv_0"
  %4 = reshape{shape=[1, 8, 1, 1]}(%2)
  %5 = broadcast{shape=[1, 8, 6, 6]}(%4)
  %6 = mul(%3, %5) @"Scale_1"
  %7 = relu(%6) @"Relu_2"
  return y = %7
}"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let weights: Vec<String> = (0..8 * 8 * 9).map(|i| format!("{:?}", i as f32 / 64.0)).collect();
    write(dir.path(), "model.txt", &MODEL.replace("WEIGHTS", &weights.join(", ")));
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("a file is written");
}

#[test]
fn kernels_are_explained_and_proved() {
    let dir = folder();
    let out = brolga(dir.path(), &["explain", "model.txt", "--proof", "model.proof"]);
    assert_eq!(out.status, 0, "{}", out.err);
    assert!(
        out.out.contains("Conv_0") && out.out.contains("by mul-one: "),
        "{}",
        out.out
    );
    let report = json(dir.path(), &["explain", "model.txt", "Relu_2", "--json"]);
    let kernels = report["kernels"].as_array().expect("there are kernels");
    assert!(kernels.iter().any(|k| {
        k["rules"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|r| r["rule"] == "mul-one")
    }));
    let out = brolga(dir.path(), &["check-proof", "model.proof"]);
    assert_eq!(out.status, 0, "{}{}", out.out, out.err);
    assert!(out.out.starts_with("proved: `y`\n"), "{}", out.out);

    // A step that is missing is missed.
    let proof = std::fs::read_to_string(dir.path().join("model.proof")).expect("it was written");
    let step = proof
        .lines()
        .position(|l| l.starts_with("step \"mul-one\""))
        .expect("there is one");
    let lines: Vec<&str> = proof.lines().collect();
    let without: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != step)
        .map(|(_, l)| *l)
        .collect();
    write(dir.path(), "less.proof", &without.join("\n"));
    let out = brolga(dir.path(), &["check-proof", "less.proof"]);
    assert_eq!(out.status, 1);
    assert!(out.out.contains("claim \"y\" does not follow"), "{}", out.out);
    let out = brolga(dir.path(), &["explain", "model.txt", "Relu_3"]);
    assert_eq!(out.status, 2);
    assert!(
        out.err.contains("there is no node `Relu_3`, did you mean `Relu_2`?"),
        "{}",
        out.err
    );
    write(dir.path(), "bad.proof", "graph @g() {\n  return\n}\nstep");
    let out = brolga(dir.path(), &["check-proof", "bad.proof"]);
    assert_eq!(out.status, 2);
    assert!(out.err.contains("bad.proof:4:5: "), "{}", out.err);
}

#[test]
fn a_wrong_rule_does_not_prove_anything() {
    let dir = folder();
    write(dir.path(), "wrong.rules", "rule wrong [exact]\n  (relu ?x) => ?x\n");
    let rules = ["--add-rules", "wrong.rules", "--unchecked-rules"];
    let out = brolga(
        dir.path(),
        &[&["explain", "model.txt", "--proof", "model.proof"], &rules[..]].concat(),
    );
    assert_eq!(out.status, 0, "{}", out.err);
    let out = brolga(dir.path(), &["check-proof", "model.proof"]);
    assert_eq!(out.status, 1, "{}", out.out);
    assert!(out.out.contains("step \"wrong\" exact: "), "{}", out.out);
    assert!(out.out.contains("relu("), "{}", out.out);
}

/// What a rule makes is no less made by it where it is made at compile time; a class that is left out is told.
#[test]
fn constants_of_kernels_are_explained() {
    let dir = folder();
    let product = "contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}";
    write(
        dir.path(),
        "chain.txt",
        &format!(
            "graph @chain(%0 x: f32[32, 64]) {{
  %1 = const f32[64, 256] splat 0.02
  %2 = const f32[256, 64] splat 0.01
  %3 = {product}(%0, %1) @\"up\"
  %4 = {product}(%3, %2) @\"down\"
  return y = %4
}}"
        ),
    );
    write(
        dir.path(),
        "chain.rules",
        "rule two-products [approximate]
  (contract [] [] [1] [0] ?t ?t (contract [] [] [1] [0] ?t ?t ?x ?a) ?b)
  => (contract [] [] [1] [0] ?t ?t ?x (contract [] [] [1] [0] ?t ?t ?a ?b))
  if (has-rank ?x 2) (has-rank ?a 2) (has-rank ?b 2) (is-constant ?a) (is-constant ?b)",
    );
    let rules = ["chain.txt", "--add-rules", "chain.rules"];
    let fast = [&["explain"], &rules[..], &["--fp", "fast"]].concat();
    let out = brolga(dir.path(), &fast);
    assert_eq!(out.status, 0, "{}", out.err);
    assert!(
        out.out.contains("  reads what is made at compile time by two-products"),
        "{}",
        out.out
    );
    assert!(!out.out.contains("as the model has it"), "{}", out.out);
    let report = json(dir.path(), &[&fast[..], &["--json"]].concat());
    let constants = report["kernels"][0]["constants"].as_array().expect("a list");
    assert!(constants.iter().any(|c| c["rule"] == "two-products"), "{report}");
    assert_eq!(report["kernels"][0]["rules"], serde_json::json!([]));
    let why = [&["why-not", "two-products"], &rules[..1], &["down"], &rules[1..]].concat();
    let out = brolga(dir.path(), &why);
    assert_eq!(out.status, 2);
    assert!(out.err.contains("of a class that --fp leaves out"), "{}", out.err);
}

#[test]
fn why_a_rule_did_nothing() {
    let dir = folder();
    let why = |rule: &str, node: &str| {
        let out = brolga(dir.path(), &["why-not", rule, "model.txt", node]);
        assert_eq!(out.status, 0, "{}", out.err);
        out.out
    };
    assert!(why("mul-one", "Scale_1").contains("the program uses what it made"));
    let text = why("neg-neg", "Relu_2");
    assert!(
        text.contains("expected (neg (neg ?x))") && text.contains("found relu"),
        "{text}"
    );
    let text = why("conv-pads", "Conv_0");
    assert!(!text.contains("pattern does not match"), "{text}");
    let report = json(dir.path(), &["why-not", "neg-neg", "model.txt", "Relu_2", "--json"]);
    assert_eq!(report["answer"], "pattern");
    let out = brolga(dir.path(), &["why-not", "conv-scael", "model.txt", "Relu_2"]);
    assert_eq!(out.status, 2);
    assert!(out.err.contains("did you mean `conv-scale`?"), "{}", out.err);
    let out = brolga(
        dir.path(),
        &["why-not", "conv-scale", "model.txt", "Relu_2", "--fp", "strict"],
    );
    assert_eq!(out.status, 2);
    assert!(out.err.contains("the rule `conv-scale` is not used"), "{}", out.err);
}

#[test]
fn models_are_equal_by_rules() {
    let dir = folder();
    write(
        dir.path(),
        "a.txt",
        "graph @a(%0 x: f32[4]) {
  %1 = const f32[4] splat 2.0
  %2 = mul(%0, %1)
  %3 = const f32[4] splat 0.5
  %4 = mul(%2, %3)
  %5 = neg(%4)
  %6 = neg(%5)
  return y = %6
}",
    );
    write(dir.path(), "b.txt", "graph @b(%0 x: f32[4]) {\n  return y = %0\n}");
    let out = brolga(dir.path(), &["equal", "a.txt", "b.txt", "--proof", "equal.proof"]);
    assert_eq!(out.status, 0, "{}{}", out.out, out.err);
    assert!(
        out.out.starts_with("equal by ") && out.out.contains("mul-splats"),
        "{}",
        out.out
    );
    let out = brolga(dir.path(), &["check-proof", "equal.proof"]);
    assert_eq!(out.status, 0, "{}{}", out.out, out.err);
    let out = brolga(dir.path(), &["equal", "a.txt", "b.txt", "--fp", "strict"]);
    assert_eq!(out.status, 1, "{}", out.err);
    assert!(
        out.out.starts_with("not shown to be equal: y\nsaturated"),
        "{}",
        out.out
    );
    let out = brolga(dir.path(), &["equal", "a.txt", "model.txt"]);
    assert_eq!(out.status, 2);
    assert!(out.err.contains("inputs of other types"), "{}", out.err);
}

#[test]
fn remarks_say_what_was_not_fused() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    write(
        dir.path(),
        "model.txt",
        "graph @m(%0 x: f32[64, 64], %1 w: f32[64, 64]) {
  %2 = relu(%0) @\"Relu_0\"
  %3 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%2, %1) @\"MatMul_1\"
  return y = %3
}",
    );
    let out = brolga(dir.path(), &["opt", "model.txt", "--remarks"]);
    assert_eq!(out.status, 0, "{}", out.err);
    assert!(
        out.err.contains("not fused: \"Relu_0\" into \"MatMul_1\", at most "),
        "{}",
        out.err
    );
}
