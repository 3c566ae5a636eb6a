//! Attention with random attributes: its reference evaluation against the kernel that it brings along and against what it
//! decomposes into, on the interpreters of kernels and of loops and as machine code on every CPU level that this machine has.

use brolga::Options;
use brolga_ir::{Attr, Build, DType, Dim, Graph, GraphBuilder, Number, Op, Tensor, Type};
use brolga_tests::every_level::{assert_near, on_every_level};
use brolga_tests::random::Random;
use brolga_tests::targets;

/// Instances that are drawn.
const INSTANCES: usize = 32;

/// Sums in another order, over the largest magnitude of the result: a running maximum rescales the sums of each block of keys.
const TOLERANCE: f64 = 1e-5;

/// A permutation of `n` axes, mostly the identity.
fn order(r: &mut Random, n: usize) -> Vec<usize> {
    let mut p: Vec<usize> = (0..n).collect();
    if r.below(2) == 0 {
        for i in (1..n).rev() {
            p.swap(i, r.below(i + 1));
        }
    }
    p
}

/// A graph of one attention and operands for it, symbolic in queries and keys where `symbolic`.
fn instance(r: &mut Random, symbolic: bool) -> (Graph, Vec<Tensor>) {
    let n = r.below(3);
    let shared: Vec<usize> = (0..n).map(|_| 1 + r.below(3)).collect();
    let mut batch = shared.clone();
    if let Some(last) = batch.last_mut() {
        *last *= r.pick(&[1, 1, 2, 3]);
    }
    let queries = r.pick(&[1, 2, 5, 14, 33]);
    // In one piece, and now and then in blocks, the last of which is cut short.
    let keys = r.pick(&[1, 7, 32, 127, 128, 129, 160, 300, 2100]);
    let (size, out) = (r.pick(&[1, 4, 12, 33]), r.pick(&[1, 3, 16, 40]));
    let logical: Vec<Vec<usize>> = vec![
        [&batch[..], &[queries, size]].concat(),
        [&shared[..], &[keys, size]].concat(),
        [&shared[..], &[keys, out]].concat(),
    ];
    let orders: Vec<Vec<usize>> = (0..4).map(|_| order(r, n + 2)).collect();
    let mut graph = Graph::new("attention");
    let (s, k) = (Dim::sym("queries"), Dim::sym("keys"));
    let named = |operand: usize, axis: usize, extent: usize| match (symbolic && axis == n, operand) {
        (true, 0) => s.clone(),
        (true, _) => k.clone(),
        _ => Dim::from(extent),
    };
    let (mut operands, mut values) = (vec![], vec![]);
    let mut add = |graph: &mut Graph, r: &mut Random, shape: Vec<usize>, dims: Vec<Dim>, hide: bool| {
        let x = Tensor::from_fn(DType::F32, &shape, |_| {
            let never = hide && r.below(3) == 0;
            let x = r.below(1 << 12) as f64 / 1024.0 - 2.0;
            Number::Float(if never { f64::NEG_INFINITY } else { x })
        });
        let name = format!("x{}", values.len());
        values.push(graph.input(&name, Type::new(DType::F32, dims)));
        operands.push(x);
    };
    for (i, (shape, order)) in logical.iter().zip(&orders).enumerate() {
        // Axis `order[l]` of the tensor is the logical axis `l`.
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(l, &a)| back[a] = l);
        let own = back.iter().map(|&l| shape[l]).collect();
        let dims = back.iter().map(|&l| named(i, l, shape[l])).collect();
        add(&mut graph, r, own, dims, false);
    }
    if r.below(2) == 0 {
        let full = [&batch[..], &[queries, keys]].concat();
        let unit: Vec<bool> = full.iter().map(|_| r.below(3) == 0).collect();
        let shape: Vec<usize> = full.iter().zip(&unit).map(|(&d, &u)| if u { 1 } else { d }).collect();
        let dim = |(axis, &d): (usize, &usize)| match (symbolic && !unit[axis], axis) {
            (true, a) if a == n => s.clone(),
            (true, a) if a == n + 1 => k.clone(),
            _ => Dim::from(d),
        };
        let dims = shape.iter().enumerate().map(dim).collect();
        add(&mut graph, r, shape, dims, true);
    }
    if r.below(2) == 0 {
        let full = [&batch[..], &[queries, keys]].concat();
        let shape: Vec<usize> = full.iter().map(|&d| if r.below(3) == 0 { 1 } else { d }).collect();
        let dims = shape
            .iter()
            .zip(&full)
            .enumerate()
            .map(|(axis, (&d, &f))| match (symbolic && d == f, axis) {
                (true, a) if a == n => s.clone(),
                (true, a) if a == n + 1 => k.clone(),
                _ => Dim::from(d),
            });
        let ty = Type::new(DType::Bool, dims.collect::<Vec<Dim>>());
        values.push(graph.input("mask", ty));
        operands.push(Tensor::from_fn(DType::Bool, &shape, |_| {
            Number::Int(i128::from(r.below(3) > 0))
        }));
    }
    let mut attrs: Vec<Attr> = orders.iter().map(|o| Attr::axes(o)).collect();
    attrs.extend([
        Attr::num(r.pick(&[1.0, 0.25, 0.5])),
        Attr::num(r.pick(&[0.0, 0.0, 2.0])),
        Attr::num(r.pick(&[f64::NEG_INFINITY, -1e30, -2.0])),
        Attr::Bool(r.below(2) == 0),
        Attr::dims(&[r.pick(&[0, 3, -1, 100])]),
        Attr::word(r.pick(&["never", "unseen", "undefined"])),
    ]);
    let op = Op::new("attention", &attrs).expect("the attributes are the operator's");
    let mut b = GraphBuilder {
        graph: &mut graph,
        origin: "attention".into(),
    };
    let y = b.op(op, &values).expect("the operands fit");
    graph.outputs = vec![("y".into(), y)];
    (graph, operands)
}

#[test]
fn attention_means_the_same_on_every_level() {
    let mut random = Random(5);
    let mut whole = 0;
    for i in 0..INSTANCES {
        let (g, inputs) = instance(&mut random, i % 3 == 0);
        let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
        // Without rules it is its own kernel; with them, what is cheaper.
        for (target, own) in targets().into_iter().flat_map(|t| [(t.clone(), true), (t, false)]) {
            let options = Options {
                target,
                rules: own.then(|| "none".parse().expect("these rules are embedded")),
                ..Options::default()
            };
            let s = on_every_level(&g, &inputs, &options, &mut |what, found| {
                assert_near(what, found, &wanted, TOLERANCE);
            });
            let trees = s.kernels.iter().filter(|k| k.name.starts_with("attention")).count();
            assert!(!own || trees == 1, "{s}");
            whole += trees;
        }
    }
    assert!(whole > INSTANCES, "{whole} kernels of attention");
}

/// Causal attention of 2 heads as a graph, and operands for it.
fn causal(queries: usize, keys: usize, offset: i64) -> (Graph, Vec<Tensor>) {
    let mut random = Random(17);
    let mut graph = Graph::new("attention");
    let (mut operands, mut values) = (vec![], vec![]);
    for (i, (rows, size)) in [(queries, 8), (keys, 8), (keys, 12)].into_iter().enumerate() {
        let shape = [2, rows, size];
        operands.push(Tensor::from_fn(DType::F32, &shape, |_| {
            Number::Float(random.below(1 << 12) as f64 / 1024.0 - 2.0)
        }));
        let dims: Vec<Dim> = shape.iter().map(|&n| Dim::from(n)).collect();
        values.push(graph.input(&format!("x{i}"), Type::new(DType::F32, dims)));
    }
    let mut attrs = vec![Attr::axes(&[0, 1, 2]); 4];
    attrs.extend([
        Attr::num(0.5),
        Attr::num(0.0),
        Attr::num(f64::NEG_INFINITY),
        Attr::Bool(true),
    ]);
    attrs.extend([Attr::dims(&[offset]), Attr::word("unseen")]);
    let op = Op::new("attention", &attrs).expect("the attributes are the operator's");
    let mut b = GraphBuilder {
        graph: &mut graph,
        origin: "attention".into(),
    };
    let y = b.op(op, &values).expect("the operands fit");
    graph.outputs = vec![("y".into(), y)];
    (graph, operands)
}

#[test]
fn blocks_that_no_query_of_a_tile_sees_are_left_out() {
    for (queries, keys, offset) in [
        (256, 256, 0),
        (150, 260, 110),
        (258, 258, -1),
        (130, 256, 300),
        (200, 300, -500),
    ] {
        let (g, inputs) = causal(queries, keys, offset);
        let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
        for target in targets() {
            let options = Options {
                target,
                rules: Some("none".parse().expect("these rules are embedded")),
                ..Options::default()
            };
            let s = on_every_level(&g, &inputs, &options, &mut |what, found| {
                assert_near(what, found, &wanted, TOLERANCE);
            });
            assert!(s.to_string().contains(") where ("), "{s}");
        }
    }
    // What nobody sees is not even multiplied by zero: the last block of values.
    let (g, mut inputs) = causal(256, 256, 0);
    let values = inputs[2].clone();
    inputs[2] = Tensor::from_fn(DType::F32, values.shape(), |i| match i / 12 % 256 {
        0..128 => values.get(i),
        _ => Number::Float(f64::NAN),
    });
    let options = Options {
        rules: Some("none".parse().expect("these rules are embedded")),
        ..Options::default()
    };
    let session = brolga::compile(&g, &options).and_then(|c| c.session_with(1, u64::MAX));
    let session = session.unwrap_or_else(|e| panic!("{e}"));
    let views: Vec<_> = inputs.iter().map(brolga::tensors::view).collect();
    let found = brolga::tensors::to_tensor(&session.run(&views).expect("it runs")[0]);
    // Rows of the tile in the middle may have been computed with both blocks.
    let number = |row: usize| (0..12).all(|c| !found.get(row * 12 + c).f64().is_nan());
    assert!((0..100).chain(256..356).all(number), "{found:?}");
    assert!(!(129..256).any(number), "{found:?}");
}
