//! `brolga ablate`: variants, what differs, results that change, the plot, and what it refuses. Nothing here looks at how long anything takes.

mod common;

use common::{brolga, json, ok};
use serde_json::Value;
use std::path::Path;

/// A convolution, a scale, a product with one, which `algebra` knows, and an activation.
const MODEL: &str = r#"graph @model(%0 x: f32[1, 4, 6, 6]) {
  %1 = const f32[4, 4, 3, 3] splat 0.25
  %2 = const f32[1, 4, 1, 1] dense "AACAPwAAAEAAAEBAAACAQA=="
  %3 = conv{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}(%0, %1) @"Conv_0"
  %4 = broadcast{shape=[1, 4, 6, 6]}(%2)
  %5 = mul(%3, %4) @"Scale_1"
  %6 = const f32[1, 4, 6, 6] splat 1.0
  %7 = mul(%5, %6) @"One_2"
  %8 = relu(%7) @"Relu_3"
  return y = %8
}"#;

/// One operator.
const TANH: &str = "graph @tanh(%0 x: f32[64]) {\n  %1 = tanh(%0) @\"Tanh_0\"\n  return y = %1\n}";

/// A rule that is wrong, and cheap.
const WRONG: &str = "; No law at all.\nrule wrong [exact]\n  (tanh ?x) => (relu ?x)\n";

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    for (name, text) in [("model.txt", MODEL), ("tanh.txt", TANH), ("own.rules", WRONG)] {
        std::fs::write(dir.path().join(name), text).expect("a file is written");
    }
    dir
}

/// The variant of a report of one model whose change is this.
fn variant<'a>(report: &'a Value, kind: &str, what: &str) -> &'a Value {
    let all = report[0]["variants"].as_array().expect("there are variants");
    let found = all.iter().find(|v| v["change"][kind] == what);
    found.unwrap_or_else(|| panic!("no {kind} {what} in {report:#}"))
}

fn predict(dir: &Path, more: &[&str]) -> Value {
    json(
        dir,
        &[&["ablate", "--no-measure", "--json", "--target", "x86-64-v3"][..], more].concat(),
    )
}

#[test]
fn themes_are_off_in_turn_and_on_alone() {
    let dir = folder();
    let report = predict(dir.path(), &["model.txt"]);
    let kernels = |kind: &str, what: &str| variant(&report, kind, what)["kernels"].as_u64().expect("a number");
    assert_eq!(kernels("rules", "all"), 1);
    // The convolution, two products and the activation.
    assert_eq!(kernels("rules", "none"), 4);
    assert_eq!(kernels("alone", "fusion"), 1);
    assert_eq!(variant(&report, "rules", "all")["program"], 0);
    // Nothing in the model is attention, so that it is the same program.
    assert_eq!(variant(&report, "without", "attention")["program"], 0);
    assert_ne!(variant(&report, "without", "algebra")["program"], 0);
    let cost = |kind: &str, what: &str| variant(&report, kind, what)["predicted_s"].as_f64().expect("a number");
    assert!(cost("rules", "all") <= cost("alone", "fusion") && cost("alone", "fusion") < cost("rules", "none"));
    assert!(report[0]["rounds"].is_null() && report[0]["costs"].is_null());
    assert!(variant(&report, "rules", "all")["run_s"].is_null());
    assert_eq!(
        report,
        predict(dir.path(), &["model.txt"]),
        "predictions are always the same"
    );
}

#[test]
fn rules_are_left_out_one_by_one() {
    let dir = folder();
    let report = predict(dir.path(), &["model.txt", "--by", "rule"]);
    let one = variant(&report, "without", "mul-one");
    assert!(one["matches"].as_u64() >= Some(1), "{one}");
    assert!(one["new_nodes"].is_u64());
    let all = report[0]["variants"].as_array().expect("there are variants");
    assert!(
        all.iter().all(|v| v["change"]["alone"].is_null()),
        "rules are not tried alone"
    );
    assert!(all.iter().all(|v| v["change"]["without"] != "fuse"), "fusion stays");
    // Of a file's rules only those are asked about.
    let own = [
        "tanh.txt",
        "--by",
        "rule",
        "--add-rules",
        "own.rules",
        "--unchecked-rules",
    ];
    let report = predict(dir.path(), &own);
    let names: Vec<&Value> = (report[0]["variants"].as_array().expect("there are variants").iter())
        .map(|v| &v["change"]["without"])
        .filter(|w| !w.is_null())
        .collect();
    assert_eq!(names, ["wrong"]);
    let wrong = variant(&report, "without", "wrong");
    assert_eq!(
        [&wrong["matches"], &wrong["new_nodes"]].map(Value::as_u64),
        [Some(1); 2]
    );
}

#[test]
fn a_table_has_a_row_for_each_variant() {
    let dir = folder();
    let args = [
        "ablate",
        "model.txt",
        "tanh.txt",
        "--no-measure",
        "--target",
        "x86-64-v3",
    ];
    let ran = ok(dir.path(), &args);
    for row in [
        "model\n",
        "tanh\n",
        "\nall ",
        "\nnone ",
        "\n-merge ",
        "\nmerge alone ",
        "\nfusion alone ",
    ] {
        assert!(format!("\n{}", ran.out).contains(row), "no {row:?} in {}", ran.out);
    }
    assert!(
        ran.err.contains("model: -merge"),
        "progress goes to standard error: {}",
        ran.err
    );
}

#[test]
fn programs_are_run_in_turn_and_plotted() {
    let dir = folder();
    let args = [
        "ablate",
        "model.txt",
        "--rounds",
        "7",
        "--threads",
        "1",
        "--plot",
        "plot.svg",
        "--json",
    ];
    let report = json(dir.path(), &args);
    assert_eq!(report[0]["rounds"], 7);
    let none = variant(&report, "rules", "none");
    let number = |v: &Value| v.as_f64().expect("a number");
    let ratio = &none["ratio"];
    assert!(number(&ratio["low"]) <= number(&ratio["median"]) && number(&ratio["median"]) <= number(&ratio["high"]));
    assert_eq!(ratio["confidence"], 1.0 - 2.0 / 128.0);
    assert!(number(&none["passes_s"]["median"]) <= number(&none["compile_s"]));
    assert!(none["different"].is_null(), "{none}");
    assert!(
        variant(&report, "without", "attention")["ratio"].is_null(),
        "it is the same program"
    );
    let plot = std::fs::read_to_string(dir.path().join("plot.svg")).expect("the plot is there");
    assert!(plot.starts_with("<svg") && plot.contains(">-merge</text>"), "{plot}");
}

#[test]
fn results_that_change_are_told() {
    let dir = folder();
    let args = [
        "ablate",
        "tanh.txt",
        "--add-rules",
        "own.rules",
        "--unchecked-rules",
        "--rounds",
        "1",
    ];
    let ran = brolga(dir.path(), &args);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(
        ran.err.contains("results of `-own` are not those of all rules"),
        "{}",
        ran.err
    );
    assert!(
        ran.out.contains("\n-own "),
        "the table is there all the same: {}",
        ran.out
    );
    let wide = brolga(dir.path(), &[&args[..], &["--tolerance", "1e9"]].concat());
    assert_eq!(wide.status, 0, "{}", wide.err);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = folder();
    for (args, words) in [
        (
            &["model.txt", "--rules", "none"][..],
            "rules=none has no rules to switch off",
        ),
        (&["model.txt", "--by", "operator"], "expected theme or rule"),
        (&["model.txt", "--rounds", "0"], "expected a number from 1 to 1000"),
        (&["model.txt", "--seconds", "0"], "expected a number above 0"),
        (&["model.txt", "--no-measure", "--rounds", "3"], "cannot be used with"),
        (
            &["model.txt", "tanh.txt", "--inputs", "x.npz"],
            "inputs are those of one model",
        ),
        (&["model.txt", "--plot", "-"], "standard output has the table"),
        (&["no.txt"], "no.txt"),
        (&[], "MODEL"),
    ] {
        let ran = brolga(dir.path(), &[&["ablate"][..], args].concat());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
}
