//! What a graph gives on every level: the interpreters of kernels and of loops, and machine code with one thread and two.

use crate::relative_error;
use brolga::{Options, compile, levels, tensors};
use brolga_ir::{Graph, Tensor, program};
use brolga_passes::lower::Structured;

/// Runs a graph on every level below its own and calls `check` with a description and the results; the kernels come back.
///
/// # Panics
/// When a level refuses the graph.
pub fn on_every_level(
    g: &Graph,
    inputs: &[Tensor],
    options: &Options,
    check: &mut dyn FnMut(&str, &[Tensor]),
) -> Structured {
    let cpu = options.target.name;
    let s = levels::optimise(g, options)
        .and_then(|(cut, _)| levels::structured(&cut, options))
        .unwrap_or_else(|e| panic!("{e}\n{g}"));
    let p = levels::program(&s, options).unwrap_or_else(|e| panic!("{e}\n{s}"));
    let found = program::interp::run(&s, inputs).unwrap_or_else(|e| panic!("{e}\n{s}"));
    check(&format!("structured for {cpu}\n{s}"), &found);
    let found = program::interp::run(&p, inputs).unwrap_or_else(|e| panic!("{e}\n{p}"));
    check(&format!("loops for {cpu}\n{p}"), &found);
    for threads in [1, 2] {
        let session = compile(g, options).and_then(|c| c.session_with(threads, u64::MAX));
        let session = session.unwrap_or_else(|e| panic!("{e}\n{g}"));
        let views: Vec<_> = inputs.iter().map(tensors::view).collect();
        let found = session.run(&views).unwrap_or_else(|e| panic!("{e}\n{g}"));
        let found: Vec<Tensor> = found.iter().map(tensors::to_tensor).collect();
        check(&format!("compiled for {cpu}, {threads} threads\n{p}"), &found);
    }
    s
}

/// Compares results with those that are wanted, by the largest error over the largest magnitude of each.
///
/// # Panics
/// When one is further off than the tolerance, or their number differs.
pub fn assert_near(what: &str, found: &[Tensor], wanted: &[Tensor], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        let error = relative_error(f, w);
        assert!(
            error <= tolerance,
            "{what}: result {i} is off by {error}: {f:?}, expected {w:?}"
        );
    }
}
