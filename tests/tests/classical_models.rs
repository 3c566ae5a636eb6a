//! Models of `ai.onnx.ml`: what the exporters of scikit-learn and LightGBM write, and small ones by hand for every mode, transform and
//! special case, compiled and run against ONNX Runtime: with one thread and two, without rules, by the reference evaluation of the graph,
//! and on the interpreters.

use brolga::{Options, source};
use brolga_ir::{Graph, Strings, Tensor, ops};
use brolga_tests::every_level::on_every_level;
use brolga_tests::{data, npz, relative_error};
use std::collections::BTreeMap;
use std::path::Path;

/// The largest error over the largest magnitude of the reference, which was summed in another order.
const TOLERANCE: f64 = 5e-5;

/// A model, its inputs and reference outputs by name.
struct Case {
    graph: Graph,
    /// The numbers of strings in inputs and outputs.
    strings: Strings,
    inputs: Vec<Tensor>,
    outputs: BTreeMap<String, Tensor>,
}

impl Case {
    fn read(dir: &Path, name: &str) -> Case {
        let graph = source::graph(&dir.join(format!("{name}.onnx")), Options::default().memory_limit);
        let graph = graph.unwrap_or_else(|e| panic!("{e}"));
        let strings = Strings::new(&graph.strings);
        let file = |kind: &str| strings.scope(|| npz(&dir.join(format!("{name}.{kind}.npz"))));
        let given = file("in");
        Case {
            inputs: graph.inputs.iter().map(|i| given[&i.name].clone()).collect(),
            outputs: file("ref"),
            strings,
            graph,
        }
    }

    fn check(&self, what: &str, found: &[Tensor]) {
        assert_eq!(found.len(), self.outputs.len(), "{what}");
        for ((name, _), found) in self.graph.outputs.iter().zip(found) {
            let wanted = &self.outputs[name];
            let near = match wanted.dtype().is_float() {
                true => relative_error(found, wanted) <= TOLERANCE,
                false => found == wanted,
            };
            assert!(near, "{what}: output `{name}` is {found:?}, expected {wanted:?}");
        }
    }
}

/// The names of all models that start so, or of those that do not.
fn names(prefix: &str, with: bool) -> Vec<String> {
    let entries = std::fs::read_dir(data("classical-models"))
        .expect("it was unpacked")
        .flatten();
    let files = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = files
        .filter_map(|f| Some(f.strip_suffix(".onnx")?.to_owned()))
        .collect();
    names.retain(|n| n.starts_with(prefix) == with);
    names.sort();
    names
}

fn hold(names: &[String]) {
    let dir = data("classical-models");
    for name in names {
        let case = Case::read(&dir, name);
        let found = case.strings.scope(|| case.graph.eval(&case.inputs));
        let found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        case.check(&format!("{name}, evaluated"), &found);
        for pipeline in [None, Some("canonicalize,eqsat{rules=none}".to_owned())] {
            let options = Options {
                pipeline,
                ..Options::default()
            };
            case.strings.scope(|| {
                on_every_level(&case.graph, &case.inputs, &options, &mut |what, found| {
                    case.check(&format!("{name}, {what}"), found);
                })
            });
        }
    }
}

#[test]
fn exports_of_trained_models() {
    let names = names("case_", false);
    assert!(names.len() >= 35, "{} models", names.len());
    hold(&names);
}

#[test]
fn modes_transforms_and_special_cases() {
    let names = names("case_", true);
    assert!(names.len() >= 190, "{} models", names.len());
    hold(&names);
}

/// A negative key has no column in a sparse result.
#[test]
fn negative_keys_of_sparse_maps() {
    let Case { graph, inputs, .. } = Case::read(&data("classical-models"), "case_castmap_number_sparse_to_float");
    let negative: Vec<i64> = inputs[0].to_i64s().iter().map(|k| k - 1).collect();
    let given = [Tensor::from_i64(inputs[0].shape(), &negative), inputs[1].clone()];
    assert!(negative.contains(&-1));
    let e = graph.eval(&given).expect_err("-1 is no column");
    assert!(e.to_string().contains("vector"), "{e}");
    let session = brolga::compile(&graph, &Options::default()).and_then(brolga::Compiled::session);
    let session = session.unwrap_or_else(|e| panic!("{e}"));
    let views: Vec<_> = given.iter().map(brolga::tensors::view).collect();
    let e = session.run(&views).expect_err("-1 is no column").to_string();
    assert!(e.contains("node `vector`") && e.contains("out of range"), "{e}");
}

/// Nothing of `ai.onnx.ml` needs a host but numbers as strings and strings as numbers, so that object files stand alone.
#[test]
fn no_host_operators() {
    let dir = data("classical-models");
    // Neighbours are found by ONNX's TopK.
    for name in names("k_neighbors", false) {
        if name.starts_with("case_castmap_text") {
            continue;
        }
        let case = Case::read(&dir, &name);
        for node in &case.graph.nodes {
            let role = ops::lookup(node.op.name())
                .expect("the graph's operators are known")
                .role();
            assert!(!matches!(role, ops::Role::Host), "{name}: `{}`", node.op.name());
        }
    }
}
