//! Lowering and code of programs with many temporaries of different symbolic sizes: both are to be linear.
//!
//! `cargo bench -p brolga-benches --bench symbolic_arena [-- NAME]`. A chain of kernels, each of which adds a row to a
//! tensor or takes a column from it, so that no two sizes are
//! in order for all values of the symbols.

use brolga::{Options, compile};
use brolga_ir::Graph;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fmt::Write;
use std::hint::black_box;

/// A chain of `n` operators.
fn chain(n: u64) -> Graph {
    let mut text = String::from("graph @chain(%0 x: f32[n, m]) symbols(n, m) {\n");
    for i in 1..=n / 2 {
        let (from, padded, cut) = (2 * i - 2, 2 * i - 1, 2 * i);
        let _ = writeln!(
            text,
            "  %{padded} = pad{{low=[0, 0] high=[1, 0] interior=[0, 0] fill=0.0}}(%{from})"
        );
        let _ = writeln!(
            text,
            "  %{cut} = slice{{starts=[0, 0] sizes=[n + {i}, m - {i}] steps=[1, 1]}}(%{padded})"
        );
    }
    let _ = writeln!(text, "  return y = %{}\n}}", n / 2 * 2);
    Graph::parse(&text, &|_| None).expect("the text is a graph")
}

fn symbolic_arena(c: &mut Criterion) {
    let mut group = c.benchmark_group("symbolic_arena");
    group.sample_size(10);
    let options = Options {
        rules: Some("none".parse().expect("these rules are embedded")),
        verify: false,
        ..Options::default()
    };
    for n in [250, 500, 1000] {
        let graph = chain(n);
        group.throughput(Throughput::Elements(n));
        group.bench_with_input(BenchmarkId::from_parameter(n), &graph, |b, graph| {
            b.iter(|| {
                let compiled = compile(graph, &options).expect("it compiles");
                black_box(compiled.object(brolga::output::WeightsIn::Object).expect("it has code"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, symbolic_arena);
criterion_main!(benches);
