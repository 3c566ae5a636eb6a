//! Recurrent layers with random attributes: the reference evaluation, which is written from the definition of each cell, against
//! the interpreters of kernels and of loops and machine code, on every CPU level that this machine has.

use brolga::{Options, compile, levels, tensors};
use brolga_ir::{Attr, Build, DType, Dim, Graph, GraphBuilder, Number, Op, Tensor, Type};
use brolga_tests::every_level::{assert_near, on_every_level};
use brolga_tests::random::Random;
use brolga_tests::targets;

/// Layers that are drawn.
const LAYERS: usize = 48;

/// Sums in another order and functions within a few units in the last place, over the largest magnitude of an output; a state
/// that is handed on carries the error of all steps before it.
const TOLERANCE: f64 = 2e-5;

const ACTIVATIONS: [&str; 11] = [
    "affine",
    "elu",
    "hard_sigmoid",
    "leaky_relu",
    "relu",
    "scaled_tanh",
    "sigmoid",
    "softplus",
    "softsign",
    "tanh",
    "thresholded_relu",
];

/// A number from -1 to below 1.
fn unit(r: &mut Random) -> f64 {
    r.below(1 << 20) as f64 / f64::from(1 << 19) - 1.0
}

/// A layer as a graph, symbolic in time and batch where `symbolic`, and operands for it.
fn layer(r: &mut Random, symbolic: bool) -> (Graph, Vec<Tensor>) {
    let (name, gates, states, functions) = [("lstm", 4, 2, 3), ("gru", 3, 1, 2), ("rnn", 1, 1, 1)][r.below(3)];
    let [lengths, flag, peepholes] = [0; 3].map(|_| r.below(2) == 0);
    let direction = ["forward", "reverse", "bidirectional"][r.below(3)];
    let clip = [f64::INFINITY, 0.75][r.below(2)];
    let mut attrs = vec![Attr::word(direction), Attr::num(clip), Attr::Bool(lengths)];
    if name != "rnn" {
        attrs.push(Attr::Bool(flag));
    }
    if name == "lstm" {
        attrs.push(Attr::Bool(peepholes));
    }
    for _ in 0..functions {
        // Of the usual ones half of the time: the others grow without bounds now and then.
        let word = [ACTIVATIONS[r.below(11)], ["sigmoid", "tanh"][r.below(2)]][r.below(2)];
        let number = |r: &mut Random| Attr::num([1.0, 0.5, 0.25][r.below(3)]);
        attrs.extend([Attr::word(word), number(r), number(r)]);
    }
    let d = if direction == "bidirectional" { 2 } else { 1 };
    let (time, batch) = (r.below(6), 1 + r.below(17));
    let (width, hidden) = (1 + r.below(9), [1, 3, 8, 16, 33, 48][r.below(6)]);
    let mut shapes: Vec<Vec<usize>> = vec![
        vec![time, batch, width],
        vec![d, gates * hidden, width],
        vec![d, gates * hidden, hidden],
        vec![d, 2 * gates * hidden],
    ];
    shapes.extend(vec![vec![d, batch, hidden]; states]);
    if name == "lstm" && peepholes {
        shapes.push(vec![d, 3 * hidden]);
    }
    let scale = 1.0 / (hidden as f64).sqrt();
    let float =
        |r: &mut Random, shape: &[usize]| Tensor::from_fn(DType::F32, shape, |_| Number::Float(unit(r) * scale));
    let mut operands: Vec<Tensor> = shapes.iter().map(|s| float(r, s)).collect();
    if lengths {
        // Some with no steps, some with more than there are.
        operands.push(Tensor::from_fn(DType::I64, &[batch], |_| {
            Number::Int(r.below(time + 2) as i128)
        }));
    }
    let mut graph = Graph::new(name);
    let (t, b) = (Dim::sym("time"), Dim::sym("batch"));
    let extent = |i: usize, axis: usize, n: usize| match (symbolic, i, axis) {
        (true, 0, 0) => t.clone(),
        (true, 0, 1) => b.clone(),
        (true, i, 1) if (4..4 + states).contains(&i) => b.clone(),
        (true, i, 0) if lengths && i + 1 == operands.len() => b.clone(),
        _ => Dim::from(n),
    };
    let mut values = vec![];
    for (i, o) in operands.iter().enumerate() {
        let shape: Vec<Dim> = o
            .shape()
            .iter()
            .enumerate()
            .map(|(axis, &n)| extent(i, axis, n))
            .collect();
        values.push(graph.input(&format!("x{i}"), Type::new(o.dtype(), shape)));
    }
    let op = Op::new(name, &attrs).expect("the attributes are the operator's");
    let mut builder = GraphBuilder {
        graph: &mut graph,
        origin: "layer".into(),
    };
    let results = builder.add(op, &values).expect("the operands fit");
    graph.outputs = results
        .into_iter()
        .enumerate()
        .map(|(i, v)| (format!("y{i}"), v))
        .collect();
    (graph, operands)
}

#[test]
fn layers_mean_the_same_on_every_level() {
    let mut random = Random(7);
    for i in 0..LAYERS {
        let (g, inputs) = layer(&mut random, i % 3 == 0);
        let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
        for target in targets() {
            let options = Options {
                target,
                ..Options::default()
            };
            on_every_level(&g, &inputs, &options, &mut |what, found| {
                assert_near(what, found, &wanted, TOLERANCE);
            });
        }
    }
}

/// The decomposition of a layer's steps, for whoever asks for it: a loop of the program.
#[test]
fn steps_decompose_into_a_loop() {
    let mut random = Random(11);
    for i in 0..LAYERS {
        let (g, inputs) = layer(&mut random, i % 3 == 0);
        let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
        let apart = brolga_passes::decompose::decompose_where(&g, |_| true).unwrap_or_else(|e| panic!("{e}\n{g}"));
        apart.verify().unwrap_or_else(|e| panic!("{e}\n{apart}"));
        assert!(
            inputs[0].shape()[0] == 0 || apart.nodes.iter().any(|n| n.op.name() == "while"),
            "{apart}"
        );
        let found = apart.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{apart}"));
        assert_near(&format!("{apart}"), &found, &wanted, TOLERANCE);
    }
}

/// An LSTM or a GRU forwards over one sequence or a few, large enough for workers to share its steps.
fn wide(r: &mut Random, name: &str, hidden: usize, batch: usize) -> (Graph, Vec<Tensor>) {
    let (gates, states, activations) = if name == "lstm" { (4, 2, 3) } else { (3, 1, 2) };
    let (time, width) = (24, 8);
    let mut attrs = vec![
        Attr::word("forward"),
        Attr::num(f64::INFINITY),
        Attr::Bool(false),
        Attr::Bool(false),
    ];
    if name == "lstm" {
        attrs.push(Attr::Bool(false));
    }
    for word in ["sigmoid", "tanh", "tanh"].into_iter().take(activations) {
        attrs.extend([Attr::word(word), Attr::num(1.0), Attr::num(0.0)]);
    }
    let mut shapes = vec![
        vec![time, batch, width],
        vec![1, gates * hidden, width],
        vec![1, gates * hidden, hidden],
        vec![1, 2 * gates * hidden],
    ];
    shapes.extend(vec![vec![1, batch, hidden]; states]);
    let scale = 1.0 / (hidden as f64).sqrt();
    let mut float = |shape: &[usize]| Tensor::from_fn(DType::F32, shape, |_| Number::Float(unit(r) * scale));
    let operands: Vec<Tensor> = shapes.iter().map(|s| float(s)).collect();
    let mut graph = Graph::new(name);
    let values: Vec<_> = (0..)
        .zip(&operands)
        .map(|(i, o): (usize, _)| {
            let shape: Vec<Dim> = o.shape().iter().map(|&n| Dim::from(n)).collect();
            graph.input(&format!("x{i}"), Type::new(o.dtype(), shape))
        })
        .collect();
    let op = Op::new(name, &attrs).expect("the attributes are the operator's");
    let mut builder = GraphBuilder {
        graph: &mut graph,
        origin: "layer".into(),
    };
    let results = builder.add(op, &values).expect("the operands fit");
    let named = results.into_iter().enumerate().map(|(i, v)| (format!("y{i}"), v));
    graph.outputs = named.collect();
    (graph, operands)
}

/// Steps of a single group of sequences are shared by workers, and give the same bits for whatever number of them, and in sessions
/// that run at once.
#[test]
fn workers_share_steps() {
    let mut random = Random(13);
    for (name, hidden, batch) in [("lstm", 168, 1), ("lstm", 160, 5), ("gru", 232, 1)] {
        let (g, inputs) = wide(&mut random, name, hidden, batch);
        let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
        for target in targets() {
            let options = Options {
                target,
                ..Options::default()
            };
            let s = on_every_level(&g, &inputs, &options, &mut |what, found| {
                assert_near(what, found, &wanted, TOLERANCE);
            });
            let p = levels::program(&s, &options).unwrap_or_else(|e| panic!("{e}\n{s}"));
            assert!(p.kernels.iter().any(|k| k.forks()), "{p}");
            let views: Vec<_> = inputs.iter().map(tensors::view).collect();
            let run = |threads: usize| {
                let session = compile(&g, &options).and_then(|c| c.session_with(threads, u64::MAX));
                let session = session.unwrap_or_else(|e| panic!("{e}\n{g}"));
                let all = (0..8).map(|_| {
                    let found = session.run(&views).unwrap_or_else(|e| panic!("{e}\n{g}"));
                    found.iter().map(|o| o.bytes().to_vec()).collect::<Vec<_>>()
                });
                all.collect::<Vec<_>>()
            };
            let alone = run(1);
            assert!(alone.iter().all(|o| *o == alone[0]));
            for threads in [2, 3, 5] {
                assert!(run(threads) == alone, "{threads} threads give other bits than one");
            }
            // Two sessions of one pool: one of them finds it taken.
            std::thread::scope(|scope| {
                let both = [2, 2].map(|threads| {
                    scope.spawn({
                        let run = &run;
                        move || run(threads)
                    })
                });
                for one in both {
                    assert!(
                        one.join().expect("no panic") == alone,
                        "sessions at once give other bits"
                    );
                }
            });
        }
    }
}
