//! Symbolic extents: what a model demands of them becomes a guard, two of them broadcast when the model runs, and the sizes
//! that exporters compute are followed. Models run on the tensor IR's interpreter; machine code is compared with it elsewhere.

mod common;

use brolga_frontend::onnx::Options;
use brolga_ir::{DType, Graph, Number, Tensor};
use common::{load, value};
use onnx_protobuf::{
    AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
};

/// An f32 input whose extents are numbers or symbols: `x[b, 3]`.
fn input(text: &str) -> ValueInfoProto {
    let (name, dims) = text.trim_end_matches(']').split_once('[').expect("name[dims]");
    let dims: Vec<&str> = dims.split(',').map(str::trim).filter(|d| !d.is_empty()).collect();
    value(name, 1, &dims)
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: 7,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn int(name: &str, value: i64) -> TensorProto {
    TensorProto {
        dims: vec![],
        ..ints(name, &[value])
    }
}

fn float(name: &str, value: f32) -> TensorProto {
    TensorProto {
        dims: vec![],
        ..ones(name, &[]).with(value)
    }
}

trait With {
    fn with(self, value: f32) -> Self;
}
impl With for TensorProto {
    fn with(mut self, value: f32) -> TensorProto {
        self.float_data.fill(value);
        self
    }
}

fn ones(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: vec![1.0; dims.iter().product::<i64>() as usize],
        ..Default::default()
    }
}

/// A node from text: `y = Conv(x, w) strides=2,2 mode=reflect axis:0`; lists of integers with `=`, integers with `:`.
fn node(text: &str) -> NodeProto {
    let (output, call) = text.split_once(" = ").expect("output = call");
    let (call, attrs) = call.split_once(')').expect("a call");
    let (op, operands) = call.split_once('(').expect("a call");
    let attribute = |a: &str| {
        let mut out = AttributeProto::new();
        if let Some((name, n)) = a.split_once(':') {
            out.name = name.into();
            out.type_ = AttributeType::INT.into();
            out.i = n.parse().expect("an integer");
            return out;
        }
        let (name, value) = a.split_once('=').expect("name=value");
        out.name = name.into();
        match value.split(',').map(str::parse).collect::<Result<Vec<i64>, _>>() {
            Ok(list) => (out.type_, out.ints) = (AttributeType::INTS.into(), list),
            Err(_) => (out.type_, out.s) = (AttributeType::STRING.into(), value.as_bytes().into()),
        }
        out
    };
    NodeProto {
        op_type: op.into(),
        input: operands.split(',').map(|s| s.trim().to_string()).collect(),
        output: output.split(',').map(|s| s.trim().to_string()).collect(),
        name: format!("the_{}", output.split(',').next().expect("an output")),
        attribute: attrs.split_whitespace().map(attribute).collect(),
        ..Default::default()
    }
}

/// A model whose result is `y`.
fn model(inputs: &[&str], initializers: Vec<TensorProto>, nodes: &[&str]) -> ModelProto {
    let inputs = inputs.iter().map(|i| input(i)).collect();
    let mut m = common::model(inputs, nodes.iter().map(|n| node(n)).collect(), &["y"]);
    m.graph.mut_or_insert_default().initializer = initializers;
    m
}

fn import(inputs: &[&str], initializers: Vec<TensorProto>, nodes: &[&str]) -> Result<Graph, String> {
    load(&model(inputs, initializers, nodes), &Options::default()).map_err(|e| e.to_string())
}

/// 0, 1, 2 … in a shape.
fn count(shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |i| Number::Float(i as f64))
}

fn run(g: &Graph, shapes: &[&[usize]]) -> Result<Tensor, String> {
    let inputs: Vec<Tensor> = shapes.iter().map(|s| count(s)).collect();
    g.eval(&inputs).map(|mut o| o.remove(0)).map_err(|e| e.to_string())
}

/// What numpy broadcasts two extents to.
fn broadcast(a: usize, b: usize) -> Option<usize> {
    match (a, b) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    }
}

#[test]
fn two_symbols_broadcast_in_every_combination() {
    let g = import(&["p[a, 3]", "q[b, 3]"], vec![], &["y = Sub(p, q)"]).unwrap();
    for (a, b) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
        let found = run(&g, &[&[a, 3], &[b, 3]]);
        let Some(n) = broadcast(a, b) else {
            let e = found.unwrap_err();
            assert!(e.contains("does not hold") && e.contains("the_y"), "{a} {b}: {e}");
            continue;
        };
        let at = |rows: usize, i: usize| if rows == 1 { i % 3 } else { i } as f64;
        let want = Tensor::from_fn(DType::F32, &[n, 3], |i| Number::Float(at(a, i) - at(b, i)));
        assert_eq!(found.unwrap(), want, "{a} {b}");
    }
}

#[test]
fn three_symbols_broadcast_to_one_extent_in_any_order() {
    let nodes = [
        "s = Add(p, q)",
        "t = Add(r, q)",
        "u = Add(t, p)",
        "v = Mul(s, r)",
        "y = Add(u, v)",
    ];
    let g = import(&["p[a]", "q[b]", "r[c]"], vec![], &nodes).unwrap();
    for sizes in [[3, 1, 1], [1, 3, 3], [1, 1, 3], [3, 3, 3], [1, 1, 1], [0, 1, 1]] {
        let n = sizes.iter().copied().reduce(|a, b| broadcast(a, b).unwrap()).unwrap();
        let out = run(&g, &[&[sizes[0]], &[sizes[1]], &[sizes[2]]]).unwrap();
        let at = |k: usize, i: usize| if sizes[k] == 1 { 0.0 } else { i as f64 };
        let want = Tensor::from_fn(DType::F32, &[n], |i| {
            let (p, q, r) = (at(0, i), at(1, i), at(2, i));
            Number::Float(r + q + p + (p + q) * r)
        });
        assert_eq!(out, want, "{sizes:?}");
    }
    assert!(run(&g, &[&[2], &[3], &[1]]).is_err());
    assert_eq!(g.ty(g.outputs[0].1).shape.len(), 1);
}

#[test]
fn a_known_extent_and_a_symbol_broadcast() {
    let g = import(&["p[2, 3]", "q[b, n]"], vec![], &["y = Add(p, q)"]).unwrap();
    assert_eq!(format!("{:?}", g.ty(g.outputs[0].1).shape), "[2, 3]");
    for (b, n) in [(1, 1), (2, 1), (1, 3), (2, 3)] {
        assert_eq!(run(&g, &[&[2, 3], &[b, n]]).unwrap().shape(), [2, 3]);
    }
    assert!(run(&g, &[&[2, 3], &[3, 3]]).is_err());
}

#[test]
fn batches_of_products_and_expanded_shapes_broadcast() {
    let g = import(&["p[a, 2, 4]", "q[b, 4, 3]"], vec![], &["y = MatMul(p, q)"]).unwrap();
    for (a, b) in [(1, 3), (3, 1), (3, 3), (1, 1)] {
        let y = run(&g, &[&[a, 2, 4], &[b, 4, 3]]).unwrap();
        assert_eq!(y.shape(), [a.max(b), 2, 3]);
        // The first batch is the same whatever is stretched.
        let first: Vec<f64> = y.to_f64s()[..6].to_vec();
        assert_eq!(first, [42.0, 48.0, 54.0, 114.0, 136.0, 158.0], "{a} {b}");
    }
    assert!(run(&g, &[&[2, 2, 4], &[3, 4, 3]]).is_err());

    let nodes = ["s = Shape(q)", "y = Expand(p, s)"];
    let g = import(&["p[a, 1]", "q[b, 2]"], vec![], &nodes).unwrap();
    for (a, b) in [(1, 3), (3, 1), (3, 3)] {
        let y = run(&g, &[&[a, 1], &[b, 2]]).unwrap();
        assert_eq!(y.shape(), [a.max(b), 2]);
    }
    let g = import(&["p[a, 4]", "q[b, 4]"], vec![], &["y = Einsum(p, q) equation=ij,ij->j"]).unwrap();
    let y = run(&g, &[&[2, 4], &[1, 4]]).unwrap();
    assert_eq!(y.to_f64s(), [0.0, 6.0, 16.0, 30.0]);
}

#[test]
fn known_channels_are_guards_of_symbolic_ones() {
    let g = import(&["x[n, c, h, w]"], vec![ones("k", &[2, 3, 1, 1])], &["y = Conv(x, k)"]).unwrap();
    assert_eq!(
        g.guards.iter().map(|g| g.relation_text()).collect::<Vec<_>>(),
        ["c == 3"]
    );
    let y = run(&g, &[&[1, 3, 2, 2]]).unwrap();
    assert_eq!(y.to_f64s(), [12.0, 15.0, 18.0, 21.0, 12.0, 15.0, 18.0, 21.0]);
    let e = run(&g, &[&[1, 4, 2, 2]]).unwrap_err();
    assert!(e.contains("c == 3 (node `the_y`) does not hold: found 4 and 3"), "{e}");

    let parameters = || ["s", "b", "m", "v"].map(|p| ones(p, &[3])).to_vec();
    let nodes = ["y = BatchNormalization(x, s, b, m, v)"];
    let g = import(&["x[n, c, l]"], parameters(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[2, 3, 4]]).unwrap().shape(), [2, 3, 4]);
    assert!(
        run(&g, &[&[2, 1, 4]]).is_err(),
        "one channel does not broadcast to three"
    );

    let nodes = ["y = LayerNormalization(x, s, b)"];
    let g = import(&["x[n, c]"], parameters(), &nodes).unwrap();
    assert!(run(&g, &[&[2, 3]]).is_ok() && run(&g, &[&[2, 4]]).is_err());
    let nodes = ["y = InstanceNormalization(x, s, b)"];
    let g = import(&["x[n, c, l]"], parameters(), &nodes).unwrap();
    assert!(run(&g, &[&[2, 3, 4]]).is_ok() && run(&g, &[&[2, 4, 4]]).is_err());
}

#[test]
fn a_batch_in_a_reshape_is_a_guard() {
    let g = import(&["x[b, 4, 3]"], vec![ints("s", &[1, 12])], &["y = Reshape(x, s)"]).unwrap();
    assert_eq!(g.guards[0].relation_text(), "b == 1");
    assert_eq!(run(&g, &[&[1, 4, 3]]).unwrap(), count(&[1, 12]));
    assert!(run(&g, &[&[2, 4, 3]]).unwrap_err().contains("b == 1"));
    // Sizes that agree for even heights, and for multiples of two symbols.
    let halves = [
        "s = Shape(x) start:1 end:2",
        "h = Div(s, two)",
        "t = Concat(one, h, two) axis:0",
    ];
    let constants = || vec![ints("two", &[2]), ints("one", &[-1]), ints("six", &[6])];
    let nodes = [&halves[..], &["y = Reshape(x, t)"]].concat();
    let g = import(&["x[b, h]"], constants(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[3, 4]]).unwrap(), count(&[3, 2, 2]));
    assert_eq!(run(&g, &[&[0, 4]]).unwrap().shape(), [0, 2, 2]);
    assert!(run(&g, &[&[3, 5]]).is_err());
    let nodes = [&halves[..], &["u = Concat(h, six) axis:0", "y = Reshape(x, u)"]].concat();
    let g = import(&["x[b, h]"], constants(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[3, 4]]).unwrap(), count(&[2, 6]));
    assert!(run(&g, &[&[2, 4]]).is_err());
}

#[test]
fn the_k_of_top_k_is_a_guard() {
    let g = import(&["x[b, n]"], vec![ints("k", &[3])], &["y, i = TopK(x, k)"]).unwrap();
    assert_eq!(g.guards[0].relation_text(), "3 <= n");
    assert_eq!(run(&g, &[&[1, 5]]).unwrap().to_f64s(), [4.0, 3.0, 2.0]);
    assert!(run(&g, &[&[1, 2]]).unwrap_err().contains("3 <= n"));
    // At most as many as there are needs none.
    let nodes = ["n = Shape(x) start:1", "m = Min(n, k)", "y, i = TopK(x, m)"];
    let g = import(&["x[b, n]"], vec![ints("k", &[3])], &nodes).unwrap();
    assert!(g.guards.is_empty());
    assert_eq!(run(&g, &[&[1, 2]]).unwrap().shape(), [1, 2]);
    assert!(import(&["x[b, 2]"], vec![ints("k", &[3])], &["y, i = TopK(x, k)"]).is_err());
}

#[test]
fn sizes_are_set_before_the_import() {
    let options = |sizes: &[(&str, i64)]| Options {
        sizes: sizes.iter().map(|(s, n)| (s.to_string(), *n)).collect(),
        ..Options::default()
    };
    // A diagonal needs a number.
    let diagonal = model(&["x[n, n]"], vec![], &["y = Einsum(x) equation=ii->i"]);
    let e = load(&diagonal, &Options::default()).unwrap_err().to_string();
    assert!(e.contains("--set n=N"), "{e}");
    let g = load(&diagonal, &options(&[("n", 3)])).unwrap();
    assert!(g.symbols.is_empty());
    assert_eq!(run(&g, &[&[3, 3]]).unwrap().to_f64s(), [0.0, 4.0, 8.0]);
    let e = load(&diagonal, &options(&[("m", 3)])).unwrap_err().to_string();
    assert!(e.contains("no symbolic dimension `m`; it has `n`"), "{e}");
    let e = load(&diagonal, &options(&[("n", -3)])).unwrap_err().to_string();
    assert!(e.contains("the size -3 of dimension `n`"), "{e}");
    // One of two that broadcast is 1: the other stays free.
    let sum = model(&["p[a, 2]", "q[b, 2]"], vec![], &["y = Add(p, q)"]);
    let g = load(&sum, &options(&[("b", 1)])).unwrap();
    assert!(g.guards.is_empty());
    assert_eq!(run(&g, &[&[3, 2], &[1, 2]]).unwrap().shape(), [3, 2]);
}

#[test]
fn minus_one_is_a_free_dimension() {
    let g = import(&["x[-1, 3]"], vec![], &["y = Neg(x)"]).unwrap();
    assert_eq!(g.symbols.len(), 1);
    assert_eq!(run(&g, &[&[2, 3]]).unwrap().shape(), [2, 3]);
    assert!(
        import(&["x[-2, 3]"], vec![], &["y = Neg(x)"])
            .unwrap_err()
            .contains("-2")
    );
}

#[test]
fn slices_to_the_end_leave_the_extent() {
    let constants = |end: i64| vec![int("z", 0), ints("s", &[0]), ints("e", &[end]), ints("a", &[1])];
    let nodes = ["t = Slice(x, s, e, a)", "y = Add(t, x)"];
    for end in [1_000_000_000, i32::MAX as i64, i64::MAX] {
        let g = import(&["x[b, n]"], constants(end), &nodes).unwrap();
        assert_eq!(format!("{:?}", g.ty(g.outputs[0].1).shape), "[b, n]", "{end}");
        assert_eq!(g.guards.len(), usize::from(end < i32::MAX as i64), "{end}");
        assert_eq!(run(&g, &[&[2, 3]]).unwrap().shape(), [2, 3]);
    }
    // A bound that may cut is one, and what does not fit then is found when the model runs.
    let g = import(&["x[b, n]"], constants(4), &["y = Slice(x, s, e, a)"]).unwrap();
    assert_eq!(run(&g, &[&[1, 3]]).unwrap().shape(), [1, 3]);
    assert_eq!(run(&g, &[&[1, 6]]).unwrap().shape(), [1, 4]);
    let g = import(&["x[b, n]"], constants(4), &nodes).unwrap();
    assert!(run(&g, &[&[1, 3]]).is_ok() && run(&g, &[&[1, 6]]).is_err());
    // A start whose sign only a run tells: the last two, or all but the first.
    let nodes = ["n = Shape(x) start:1", "s2 = Sub(n, e)", "y = Slice(x, s2, big, a)"];
    let mut all = constants(3);
    all.push(ints("big", &[i64::MAX]));
    let g = import(&["x[b, n]"], all, &nodes).unwrap();
    assert_eq!(run(&g, &[&[1, 5]]).unwrap().to_f64s(), [2.0, 3.0, 4.0]);
    assert_eq!(run(&g, &[&[1, 2]]).unwrap().to_f64s(), [1.0]);
}

#[test]
fn negative_steps_on_symbolic_extents() {
    let constants = vec![
        ints("s", &[-1]),
        ints("e", &[i64::MIN]),
        ints("a", &[0]),
        ints("t", &[-2]),
    ];
    let g = import(&["x[n]"], constants, &["y = Slice(x, s, e, a, t)"]).unwrap();
    for n in 0..6usize {
        let want: Vec<f64> = (0..n).rev().step_by(2).map(|i| i as f64).collect();
        assert_eq!(run(&g, &[&[n]]).unwrap().to_f64s(), want);
    }
}

#[test]
fn ranges_count_up_to_sizes_in_floats() {
    let constants = || {
        vec![
            float("zero", 0.0),
            float("one", 1.0),
            float("half", 0.5),
            float("z", 0.0),
            int("i", 0),
        ]
    };
    let size = ["s = Shape(x)", "d = Gather(s, i)", "f = Cast(d) to:1"];
    let nodes = [&size[..], &["y = Range(zero, f, one)"]].concat();
    let g = import(&["x[n]"], constants(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[4]]).unwrap(), count(&[4]));
    let nodes = [&size[..], &["h = Mul(f, half)", "y = Range(zero, h, half)"]].concat();
    let g = import(&["x[n]"], constants(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[3]]).unwrap().to_f64s(), [0.0, 0.5, 1.0]);
    // A size that goes through floats and back.
    let nodes = [
        &size[..],
        &[
            "h = Mul(f, half)",
            "l = Floor(h)",
            "c = Cast(l) to:7",
            "u = Unsqueeze(c, a)",
            "y = Slice(x, b, u, a)",
        ],
    ]
    .concat();
    let more = || [constants(), vec![ints("a", &[0]), ints("b", &[0])]].concat();
    let g = import(&["x[n]"], more(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[5]]).unwrap(), count(&[2]));
    // A step of 0, known or not before the model runs.
    let nodes = [&size[..], &["y = Range(zero, f, z)"]].concat();
    assert!(
        import(&["x[n]"], constants(), &nodes)
            .unwrap_err()
            .contains("a step of 0")
    );
    let e = import(&["x[n]"], constants(), &["y = Range(one, one, z)"]).unwrap_err();
    assert!(e.contains("a step of 0"), "{e}");
    let e = import(&["x[n]"], constants(), &["y = Range(i, i, i)"]).unwrap_err();
    assert!(e.contains("a step of 0"), "{e}");
    let nodes = ["s = Shape(x)", "d = Gather(s, i)", "y = Range(i, d, d)"];
    let g = import(&["x[n]"], constants(), &nodes).unwrap();
    assert_eq!(run(&g, &[&[3]]).unwrap().to_f64s(), [0.0]);
    assert!(run(&g, &[&[0]]).unwrap_err().contains("1 <= n"));
    let nodes = [
        "s = Shape(x)",
        "d = Gather(s, i)",
        "e = Sub(d, d)",
        "y = Range(i, d, e)",
    ];
    assert!(
        import(&["x[n]"], constants(), &nodes)
            .unwrap_err()
            .contains("a step of 0")
    );
}

#[test]
fn pads_of_symbolic_extents_copy() {
    let source = |mode: &str, i: i64, n: i64| match mode {
        "edge" => i.clamp(0, n - 1),
        "wrap" => i.rem_euclid(n),
        _ if n == 1 => 0,
        _ => (n - 1) - (i.rem_euclid(2 * n - 2) - (n - 1)).abs(),
    };
    for mode in ["edge", "wrap", "reflect"] {
        let nodes = [format!("y = Pad(x, p) mode={mode}")];
        let g = import(&["x[n]"], vec![ints("p", &[2, 1])], &[&nodes[0]]).unwrap();
        for n in 1..6 {
            let want: Vec<f64> = (-2..n + 1).map(|i| source(mode, i, n) as f64).collect();
            assert_eq!(run(&g, &[&[n as usize]]).unwrap().to_f64s(), want, "{mode} of {n}");
        }
        assert!(run(&g, &[&[0]]).unwrap_err().contains("1 <= n"));
    }
}

#[test]
fn a_window_larger_than_the_input_counts_as_the_division_truncates() {
    let pool = |extent: &str, attrs: &str| {
        import(
            &[&format!("x[1, 1, {extent}]")],
            vec![],
            &[&format!("y = MaxPool(x) {attrs}")],
        )
    };
    // What ONNX Runtime 1.32 gives: kernel, stride, the results' extents of inputs of 1, 2 and 3; -1 is an error.
    for (k, s, extents) in [
        (2, 2, [1, 1, 1]),
        (3, 2, [0, 1, 1]),
        (4, 2, [0, 0, 1]),
        (5, 2, [-1, 0, 0]),
        (3, 3, [1, 1, 1]),
        (2, 1, [0, 1, 2]),
        (3, 1, [-1, 0, 1]),
        (4, 3, [0, 1, 1]),
    ] {
        for (n, want) in (1usize..).zip(extents) {
            for ceil in ["", " ceil_mode:1"] {
                let attrs = format!("kernel_shape={k} strides={s}{ceil}");
                let found = pool(&n.to_string(), &attrs).and_then(|g| run(&g, &[&[1, 1, n]]));
                // Rounded up, a second window may start on the last element.
                let more = n as i64 > k && (n as i64 - k) % s != 0 && !ceil.is_empty();
                match usize::try_from(want + i64::from(more)) {
                    Ok(want) => assert_eq!(found.unwrap().shape(), [1, 1, want], "{k} {s} {n}{ceil}"),
                    Err(_) => assert!(
                        found.unwrap_err().contains("larger than the padded input"),
                        "{k} {s} {n}"
                    ),
                }
                // A symbolic extent is the same where there is a result.
                let symbolic = run(&pool("w", &attrs).unwrap(), &[&[1, 1, n]]);
                match usize::try_from(want + i64::from(more)) {
                    Ok(want) if want > 0 || s == 1 => {
                        assert_eq!(symbolic.unwrap().shape(), [1, 1, want], "{k} {s} {n}{ceil}");
                    }
                    _ => assert!(symbolic.unwrap_err().contains("does not hold"), "{k} {s} {n}"),
                }
            }
        }
    }
    let nodes = [
        "t = AveragePool(x) kernel_shape=2 strides=2",
        "y = GlobalAveragePool(t)",
    ];
    for extent in ["1", "w"] {
        let g = import(&[&format!("x[1, 2, {extent}]")], vec![], &nodes).unwrap();
        assert_eq!(run(&g, &[&[1, 2, 1]]).unwrap().to_f64s(), [0.0, 1.0]);
    }
    // A convolution has no window that is larger.
    let e = import(&["x[1, 1, 2]"], vec![ones("k", &[1, 1, 3])], &["y = Conv(x, k)"]).unwrap_err();
    assert!(e.contains("larger than the padded input"), "{e}");
    let g = import(&["x[1, 1, w]"], vec![ones("k", &[1, 1, 3])], &["y = Conv(x, k)"]).unwrap();
    assert_eq!(run(&g, &[&[1, 1, 3]]).unwrap().to_f64s(), [3.0]);
    assert!(run(&g, &[&[1, 1, 2]]).unwrap_err().contains("3 <= w"));
    let g = import(
        &["x[1, 1, w]"],
        vec![ones("k", &[1, 1, 3])],
        &["y = Conv(x, k) pads=1,1"],
    )
    .unwrap();
    assert!(g.guards.is_empty(), "a padded convolution demands nothing");
}

#[test]
fn messages_are_short_and_name_the_symbol() {
    // A height that eight steps of pooling make long.
    let mut nodes: Vec<String> = (0..8)
        .map(|i| {
            let from = if i == 0 { "x".into() } else { format!("t{}", i - 1) };
            format!("t{i} = MaxPool({from}) kernel_shape=3,3 strides=2,2 pads=0,1,1,0")
        })
        .collect();
    nodes.push("y = Reshape(t7, s)".into());
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let e = import(&["x[1, 1, h, 7]"], vec![ints("s", &[1, -1, 0, 0, 0])], &nodes).unwrap_err();
    assert!(e.len() < 250, "{} characters: {e}", e.len());
    let e = import(
        &["x[1, c, 4]"],
        vec![],
        &["y = GroupNormalization(x, x, x) num_groups:2"],
    )
    .unwrap_err();
    assert!(e.contains("--set c=N"), "{e}");
}

/// A `Squeeze` without axes takes what a name stands for only where the output is declared so, and would not be a number then that has a
/// name.
#[test]
fn squeezes_take_names_where_outputs_say_so() {
    let squeeze = |input: &str, output: &str| {
        let mut m = model(&[input], vec![], &["y = Squeeze(x)"]);
        let graph = m.graph.as_mut().expect("a graph");
        graph.output = vec![self::input(output)];
        load(&m, &Options::default()).expect("a graph")
    };
    let rank = |g: &Graph| g.ty(g.outputs[0].1).rank();
    assert_eq!(rank(&squeeze("x[n, 1, 12]", "y[n, 12]")), 2);
    let taken = squeeze("x[n, 1, 12]", "y[12]");
    assert_eq!((rank(&taken), taken.guards.len()), (1, 1));
    let named = squeeze("x[n, 1, 12]", "y[m]");
    assert_eq!((rank(&named), named.guards.len()), (2, 0));
    // What something before has demanded to be 1 is taken.
    let mut m = model(
        &["x[n, 12]"],
        vec![ints("t", &[1, 12])],
        &["z = Reshape(x, t)", "y = Squeeze(x)"],
    );
    let graph = m.graph.as_mut().expect("a graph");
    graph.output = vec![self::input("y[m]"), self::input("z[1, 12]")];
    let demanded = load(&m, &Options::default()).expect("a graph");
    assert_eq!((rank(&demanded), demanded.guards.len()), (1, 1));
}
