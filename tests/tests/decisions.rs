//! What could be decided about a program otherwise than the extraction does: each alternative can be taken, costs what it was said
//! to, and gives a program that computes the same.

use brolga::levels::{Module, Walk};
use brolga::{Options, source};
use brolga_ir::{Graph, Target, Tensor};
use brolga_passes::eqsat::account::account;
use brolga_passes::eqsat::{Alternative, Decide, Decided, Decision};
use brolga_tests::{SMALL_MODELS, mismatch, run, small_model};
use std::sync::Arc;

/// Alternatives of a model that are tried here: some of those that are told, far apart.
const TRIED: usize = 6;

fn graph(name: &str) -> Graph {
    let options = Options::default();
    source::graph(&small_model(name).path, options.memory_limit).expect("it is imported")
}

/// A graph after the passes, what was decided about it, and what else could be.
fn cut(graph: &Graph, decisions: Vec<Decision>, explore: bool) -> (Graph, Vec<Decided>, Vec<Alternative>) {
    let options = Options {
        target: Target::x86_64_v4(),
        ..Options::default()
    };
    let decide: Arc<dyn Decide> = Arc::new(decisions);
    let walk = Walk::decided(Module::Tensor(graph.clone()), &options, Some(decide), explore).expect("it is valid");
    let (decided, alternatives) = (walk.decisions().to_vec(), walk.alternatives().to_vec());
    let Module::Tensor(g) = walk.module else {
        panic!("it went no further down")
    };
    (g, decided, alternatives)
}

/// Some of many, evenly.
fn some<T>(all: Vec<T>, n: usize) -> impl Iterator<Item = T> {
    let step = all.len().div_ceil(n).max(1);
    all.into_iter().step_by(step)
}

#[test]
fn alternatives_cost_what_is_said() {
    let (mut compared, mut exactly, mut kinds) = (0, 0, vec![]);
    for name in SMALL_MODELS {
        let g = graph(name);
        let (best, _, alternatives) = cut(&g, vec![], true);
        let cost = |g: &Graph| account(g, &Target::x86_64_v4()).seconds;
        let base = cost(&best);
        // Where there are images, layouts are chosen anew for other kernels. Constants that are computed when the model is compiled cost
        // a little in the search, and nothing here.
        let images = alternatives.iter().any(|a| a.decisions[0].is_layout());
        let most = if images { 1e-6 + 0.05 * base } else { 5e-8 };
        for a in some(alternatives, 4 * TRIED) {
            for d in &a.decisions {
                kinds.push(d.to_string().split(' ').next().expect("a word").to_owned());
            }
            let (other, decided, _) = cut(&g, a.decisions.clone(), false);
            let refused: Vec<String> = decided
                .iter()
                .filter(|d| d.result.is_err())
                .map(ToString::to_string)
                .collect();
            if a.decisions.len() == 1 {
                assert!(refused.is_empty(), "{name}: {}", refused.join("\n"));
            }
            if a.decisions.len() > 1 || a.decisions[0].is_layout() {
                continue;
            }
            let (told, found) = (a.seconds, cost(&other) - base);
            compared += 1;
            exactly += usize::from(!images && told > 2.0 * most);
            assert!(
                (told - found).abs() < most,
                "{name}: {}: {told:e} s told, {found:e} s found",
                a.decisions[0]
            );
        }
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds, ["compute", "inline", "keep", "last", "rows"]);
    assert!(compared > 100 && exactly > 30, "{compared} compared, {exactly} exactly");
}

#[test]
fn alternatives_compute_the_same() {
    for name in ["efficientnet", "gpt2", "unet", "swin"] {
        let model = small_model(name);
        let (inputs, expected) = (&model.inputs, &model.outputs);
        let g = graph(name);
        let (_, _, alternatives) = cut(&g, vec![], true);
        for a in some(alternatives, TRIED) {
            let options = Options::default();
            let decide: Arc<dyn Decide> = Arc::new(a.decisions.clone());
            let walk = Walk::decided(Module::Tensor(g.clone()), &options, Some(decide), false).expect("it is valid");
            let kernels = walk.kernels().expect("kernels").module;
            let compiled = brolga::compile::compile_module(kernels, &options).expect("code");
            let session = compiled.session().expect("it runs");
            for (output, found) in run(&session, inputs).expect("results") {
                let expected: &Tensor = &expected[&output];
                if let Some(bad) = mismatch(&found, expected, 1e-3, 1e-4) {
                    panic!("{name}: {:?}: `{output}`: {bad}", a.decisions);
                }
            }
        }
    }
}
