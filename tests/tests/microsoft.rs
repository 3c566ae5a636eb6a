//! Operators of the domain `com.microsoft` against ONNX Runtime's results.

use brolga::ir::Tensor;
use brolga::{Options, npy};
use brolga_frontend::onnx;
use brolga_tests::{data, run, unequal};
use std::collections::BTreeMap;

#[test]
fn results_are_onnx_runtimes() {
    brolga_tests::reference_cases::hold("microsoft", 200);
}

/// A cache of which a model writes a few rows may be the memory of the next one.
#[test]
fn caches_are_updated_in_place() {
    for name in ["gqa_chunk_buffer", "gqa_step_buffer"] {
        let dir = data("microsoft").join("microsoft").join(name);
        let graph = onnx::load(dir.join("model.onnx"), &onnx::Options::default()).expect("it is imported");
        let inputs = npy::read_npz(&dir.join("in.npz")).expect("the archive holds it");
        let inputs: BTreeMap<String, Tensor> = inputs.into_iter().collect();
        let [apart, in_place] = [vec![], vec![("pk", "nk"), ("pv", "nv")]].map(|pairs| {
            let named = |(i, o): &(&str, &str)| (i.to_string(), o.to_string());
            let options = Options {
                aliases: pairs.iter().map(named).collect(),
                ..Options::default()
            };
            let session = brolga::compile(&graph, &options).and_then(|c| c.session_with(1, u64::MAX));
            let session = session.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(session.meta().aliases.len(), pairs.len(), "{name}");
            run(&session, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"))
        });
        for ((output, found), (_, wanted)) in in_place.iter().zip(&apart) {
            assert_eq!(unequal(found, wanted), None, "{name}: {output}");
        }
    }
}
