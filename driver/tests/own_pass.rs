//! The example of a pass in a crate of one's own, whose sources are included: it is built here, its pass is checked as
//! docs/writing-passes.md says, and what it prints is looked at.

#[path = "../../examples/own_pass/src/main.rs"]
#[allow(dead_code)]
mod own_pass;

use brolga::ir::{Graph, Target, Tensor};
use brolga::levels::Module;
use brolga::passes::pass::{Context, NoFiles, Pass, TensorPass};
use brolga::passes::registry::{Pipeline, Registry};
use own_pass::bf16_weights::Bf16Weights;
use std::path::Path;

const PRODUCT: &str = "contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}";

/// A product with a matrix of numbers that bf16 rounds, beside one that is too small and one number everywhere.
fn model() -> Graph {
    let text = format!(
        "graph @model(%0 x: f32[2, 3]) {{
  %1 = const f32[3, 2] [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
  %2 = {PRODUCT}(%0, %1)
  %3 = const f32[2, 1] [0.7, 0.8]
  %4 = {PRODUCT}(%2, %3)
  %5 = const f32[1, 8] splat 0.9
  %6 = {PRODUCT}(%4, %5)
  return y = %6
}}"
    );
    Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn it_rounds_matrices_that_are_large_enough() {
    let (before, mut cx) = (model(), Context::new(Target::baseline()));
    let after = Bf16Weights { least: 6 }
        .rewrite(&before, &mut cx)
        .unwrap_or_else(|e| panic!("{e}"));
    after.verify().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(cx.counts.get("matrices rounded"), 1);
    assert_eq!(cx.remarks, ["bf16-weights: f32[3, 2] is kept in bf16"]);
    let text = after.to_string();
    assert!(
        text.contains("const bf16[3, 2]") && text.contains("const f32[2, 1]"),
        "{text}"
    );
    assert!(!text.contains("const f32[3, 2]"), "what nothing reads is gone: {text}");

    let x = [Tensor::from_f32(&[2, 3], &[1.0, -2.0, 0.5, 0.25, 3.0, -1.0])];
    let run = |g: &Graph| g.eval(&x).unwrap_or_else(|e| panic!("{e}"))[0].to_f32s();
    let (exact, rounded) = (run(&before), run(&after));
    assert_ne!(exact, rounded);
    for (a, b) in exact.iter().zip(&rounded) {
        assert!((a - b).abs() <= 0.01 * a.abs().max(1.0), "{a} became {b}");
    }
}

#[test]
fn its_option_is_read_and_printed() {
    let registry = Registry::default().with::<Bf16Weights>();
    let parse = |text: &str| Pipeline::parse_in(text, &NoFiles, &registry);
    let text = "canonicalize,bf16-weights{least=6},eqsat";
    let pipeline = parse(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pipeline.to_string(), text);
    assert_eq!(
        parse("bf16-weights{least=1024}")
            .unwrap_or_else(|e| panic!("{e}"))
            .to_string(),
        "bf16-weights"
    );
    let wrong = parse("bf16-weights{most=6}").err().expect("there is no such option");
    assert!(
        wrong.to_string().contains("there is no option `most`, expected least"),
        "{wrong}"
    );
    let wrong = parse("bf16-weights{least=few}").err().expect("it is no number");
    assert!(wrong.to_string().contains("`least=few`: expected a number"), "{wrong}");

    // Levels go down only.
    let mut cx = Context::new(Target::baseline());
    let lowered = parse("eqsat,lower").unwrap_or_else(|e| panic!("{e}")).passes;
    let module = (lowered.iter()).try_fold(Module::Tensor(model()), |m, pass| pass.run(m, &mut cx));
    let refused = Pass::run(
        &Bf16Weights::default(),
        module.unwrap_or_else(|e| panic!("{e}")),
        &mut cx,
    );
    let refused = refused.err().expect("it takes tensor graphs").to_string();
    assert!(refused.contains("expected a tensor graph"), "{refused}");
}

#[test]
fn the_example_compiles_and_runs_a_model() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/digits.onnx");
    let report = own_pass::report(&model, &[0.5; 64]).unwrap_or_else(|e| panic!("{e}"));
    let numbers = |line: &str| -> Vec<f64> {
        let line = report
            .lines()
            .find(|l| l.starts_with(line))
            .unwrap_or_else(|| panic!("{report}"));
        let words = line.split([' ', ',']).filter_map(|w| w.parse().ok());
        words.collect()
    };
    assert_eq!(numbers("matrices rounded:"), [2.0], "{report}");
    assert_eq!(report.matches(" = cast{to=f32}(").count(), 2, "{report}");
    let bytes = numbers("weights:");
    assert!(bytes[0] < 0.75 * bytes[1], "{report}");
    let error = numbers("largest error:")[0];
    assert!(error > 0.0 && error < 0.02, "{report}");
}

/// The manifest is read by cargo, and the crates that it names are there.
#[test]
fn its_manifest_names_what_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/own_pass");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = std::process::Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(&folder)
        .output()
        .expect("cargo runs this test");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("it prints JSON");
    let dependencies = metadata["packages"][0]["dependencies"].as_array().expect("a list");
    assert!(!dependencies.is_empty());
    for dependency in dependencies {
        let path = dependency["path"].as_str().expect("a path");
        let manifest = std::fs::read_to_string(Path::new(path).join("Cargo.toml")).expect("it is there");
        let name = dependency["name"].as_str().expect("a name");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{path} is not {name}");
    }
}
