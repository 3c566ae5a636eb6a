//! Repeated layers: what is optimised once for all of them computes the same, is as good, and is called by its own names.

use brolga_ir::{Attr, Build, DType, Graph, GraphBuilder, Number, Target, Tensor, Type, Value};
use brolga_passes::canonicalize::Canonicalize;
use brolga_passes::eqsat::account::account;
use brolga_passes::eqsat::{self, EqSat};
use brolga_passes::pass::{Context, TensorPass};
use brolga_tests::random::Random;
use brolga_tests::{SMALL_MODELS, data, mismatch, small_model};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How much more a program may be predicted to take whose layers are optimised once.
const DEARER: f64 = 1.01;

/// Extents of what goes from layer to layer.
const ROWS: usize = 6;
const COLUMNS: usize = 16;

/// A graph after the pass, and what it says of layers.
fn cut(g: &Graph, unfolded: bool) -> (Graph, Option<String>) {
    let mut cx = Context::new(Target::x86_64_v4());
    let pass = EqSat {
        unfolded,
        ..EqSat::default()
    };
    let cut = pass.rewrite(g, &mut cx).unwrap_or_else(|e| panic!("{e}\n{g}"));
    cut.verify().unwrap_or_else(|e| panic!("{e}\n{g}\n{cut}"));
    let says = |r: &String| ["eqsat: folded", "eqsat: not folded"].iter().any(|s| r.starts_with(s));
    let remark = cx.remarks.into_iter().find(says);
    (cut, remark)
}

fn seconds(g: &Graph) -> f64 {
    account(g, &Target::x86_64_v4()).seconds
}

fn tensor(r: &mut Random, shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |_| Number::Float(r.below(41) as f64 / 40.0 - 0.5))
}

/// What a layer computes of what goes into it and what it has of its own.
#[derive(Clone, Copy)]
enum Step {
    /// Multiplied by a matrix of the layer.
    Product(usize),
    /// An operator of one operand.
    Unary(&'static str, usize),
    /// An operator of two values.
    Binary(&'static str, usize, usize),
    /// With a row of the layer, which is one of a few.
    Row(&'static str, usize),
    /// With an input of the layer.
    Input(&'static str, usize),
    /// Plus a value that is made outside, of an input or a row of the first layer.
    Outside(usize),
}

/// What is drawn of a model.
struct Drawn {
    layers: usize,
    steps: Vec<Step>,
    /// A value in every layer that is a result.
    inner: Option<usize>,
    /// The layer whose end is read from outside.
    tapped: Option<usize>,
    /// The layer that has one operation more.
    other: Option<usize>,
    /// What is outside is made of a row of the first layer, in place of an input.
    row: bool,
}

impl Drawn {
    fn new(r: &mut Random) -> Drawn {
        let mut steps = vec![];
        // What goes in, what all layers read, and the steps.
        for n in 2..4 + r.below(5) {
            let (a, b) = (r.below(n), r.below(n));
            steps.push(match r.below(13) {
                0..3 => Step::Product(a),
                3 => Step::Unary(r.pick(&["relu", "tanh", "neg", "sigmoid"]), a),
                4 | 5 => Step::Binary(r.pick(&["add", "sub", "mul"]), a, b),
                6 | 7 => Step::Row(r.pick(&["add", "sub", "mul"]), a),
                8 => Step::Input(r.pick(&["add", "mul"]), a),
                9 | 10 => Step::Input("mul", 1),
                _ => Step::Outside(a),
            });
        }
        // Often what equals what is outside, in the first layer.
        if r.below(3) == 0 {
            let own = if r.below(2) == 0 {
                Step::Input("mul", 1)
            } else {
                Step::Row("mul", 1)
            };
            let last = 1 + steps.len();
            steps.extend([own, Step::Binary("add", last, last + 1), Step::Outside(last + 2)]);
        }
        steps.push(Step::Product(1 + steps.len()));
        let maybe = |r: &mut Random, n: usize| (r.below(4) == 0).then(|| r.below(n));
        let layers = 3 + r.below(4);
        Drawn {
            layers,
            inner: maybe(r, steps.len()),
            tapped: maybe(r, layers),
            other: maybe(r, layers),
            row: r.below(2) == 0,
            steps,
        }
    }

    fn graph(&self, r: &mut Random) -> Graph {
        let mut g = Graph::new("layered");
        let ty = || Type::fixed(DType::F32, &[ROWS, COLUMNS]);
        let (mut x, shared) = (g.input("x", ty()), g.input("s", ty()));
        let own: Vec<Value> = (0..self.layers).map(|k| g.input(&format!("p{k}"), ty())).collect();
        let rows: Vec<Tensor> = (0..2).map(|_| tensor(r, &[1, COLUMNS])).collect();
        let (mut outputs, mut tapped) = (vec![], None);
        let built = |g: &mut Graph, origin: String, name: &str, attrs: &[Attr], inputs: &[Value]| {
            let mut b = GraphBuilder {
                graph: g,
                origin: origin.into(),
            };
            b.call(name, attrs, inputs).expect("the types fit")
        };
        let shared = built(&mut g, "shared".into(), "exp", &[], &[shared]);
        // What rules find equal to the product of an operation in the first layer.
        let mut outside = built(&mut g, "outside".into(), "neg", &[], &[shared]);
        outside = built(&mut g, "outside".into(), "neg", &[], &[outside]);
        let first = match self.row {
            true => {
                let row = g.dense(rows[0].clone());
                built(&mut g, "outside".into(), "broadcast", &[Attr::Dims(ty().shape)], &[row])
            }
            false => own[0],
        };
        outside = built(&mut g, "outside".into(), "mul", &[], &[outside, first]);
        for (k, &own) in own.iter().enumerate() {
            let mut values = vec![x, shared];
            for (i, step) in self.steps.iter().enumerate() {
                let origin = format!("layer {k} step {i}");
                let v = match *step {
                    Step::Product(a) => {
                        let w = g.dense(tensor(r, &[COLUMNS, COLUMNS]));
                        let (none, f) = (|| Attr::ints(&[]), Attr::DType(DType::F32));
                        let attrs = [none(), none(), Attr::ints(&[1]), Attr::ints(&[0]), f.clone(), f];
                        built(&mut g, origin, "contract", &attrs, &[values[a], w])
                    }
                    Step::Unary(op, a) => built(&mut g, origin, op, &[], &[values[a]]),
                    Step::Binary(op, a, b) => built(&mut g, origin, op, &[], &[values[a], values[b]]),
                    Step::Row(op, a) => {
                        let which = if k == 0 { i % rows.len() } else { r.below(rows.len()) };
                        let row = g.dense(rows[which].clone());
                        let shape = Attr::Dims(ty().shape);
                        let row = built(&mut g, origin.clone(), "broadcast", &[shape], &[row]);
                        built(&mut g, origin, op, &[], &[values[a], row])
                    }
                    Step::Input(op, a) => built(&mut g, origin, op, &[], &[values[a], own]),
                    Step::Outside(a) => built(&mut g, origin, "add", &[], &[values[a], outside]),
                };
                values.push(v);
            }
            if let Some(i) = self.inner {
                outputs.push((format!("inner{k}"), values[2 + i]));
            }
            let mut last = values[values.len() - 1];
            if self.other == Some(k) {
                last = built(&mut g, format!("layer {k} other"), "tanh", &[], &[last]);
            }
            x = built(&mut g, format!("layer {k} end"), "add", &[], &[x, last]);
            if self.tapped == Some(k) {
                tapped = Some(x);
            }
        }
        if let Some(v) = tapped {
            let y = built(&mut g, "tap".into(), "sigmoid", &[], &[v]);
            outputs.push(("tapped".into(), y));
        }
        outputs.push(("y".into(), x));
        g.outputs = outputs;
        g.prune();
        g
    }
}

fn agree(g: &Graph, cut: &Graph, r: &mut Random) {
    let inputs: Vec<Tensor> = g.inputs.iter().map(|_| tensor(r, &[ROWS, COLUMNS])).collect();
    let (expected, found) = (g.eval(&inputs).expect("results"), cut.eval(&inputs).expect("results"));
    for (name, (e, f)) in g.outputs.iter().map(|o| &o.0).zip(expected.iter().zip(&found)) {
        if let Some(bad) = mismatch(f, e, 1e-3, 1e-4) {
            panic!("`{name}`: {bad}\n{g}\n{cut}");
        }
    }
}

#[test]
fn random_layers_compute_the_same() {
    let mut r = Random(7);
    let (mut folded, mut refused, mut both) = (0, 0, [0.0; 2]);
    for _ in 0..400 {
        let g = Drawn::new(&mut r).graph(&mut r);
        let (once, remark) = cut(&g, false);
        let Some(remark) = remark else { continue };
        agree(&g, &once, &mut r);
        if remark.contains("reads what is made outside") {
            refused += 1;
        }
        if !remark.starts_with("eqsat: folded") {
            continue;
        }
        folded += 1;
        let each = cut(&g, true).0;
        both[0] += seconds(&once);
        both[1] += seconds(&each);
    }
    assert!(folded > 60 && refused > 10, "{folded} folded, {refused} refused");
    // Layers of these graphs multiply what all of them share, `s`: each by itself, their products are one (theme `merge`), which
    // one layer for all does not see.
    const SHARED: f64 = 1.02;
    assert!(
        both[0] < SHARED * both[1],
        "all together {} times as dear",
        both[0] / both[1]
    );
}

/// Layers as they often are: two products, a row for each, what is added at the end.
fn plain(layers: usize) -> Drawn {
    Drawn {
        layers,
        steps: vec![
            Step::Product(0),
            Step::Row("add", 2),
            Step::Unary("relu", 3),
            Step::Product(4),
        ],
        inner: None,
        tapped: None,
        other: None,
        row: false,
    }
}

fn origins(g: &Graph) -> BTreeSet<Arc<str>> {
    g.nodes.iter().map(|n| n.origin.clone()).collect()
}

#[test]
fn layers_keep_their_own_names() {
    let mut r = Random(3);
    let g = plain(5).graph(&mut r);
    let (once, remark) = cut(&g, false);
    let (each, none) = cut(&g, true);
    let remark = remark.expect("layers are alike");
    assert_eq!(
        remark,
        "eqsat: folded: 5 × 6 operations (nodes \"layer 0 step 0\" to \"layer 4 end\")"
    );
    assert_eq!(none, None);
    assert_eq!(origins(&once), origins(&each));
    assert_eq!(eqsat::kernels(&once), eqsat::kernels(&each));
    agree(&g, &once, &mut r);
}

/// What an end of a layer is read for from outside, what is a result in every layer, and what is in one only.
#[test]
fn ends_and_results_of_layers_are_read() {
    let mut r = Random(4);
    let whole = "eqsat: folded: 6 × 6 operations";
    let drawn = [
        (Some(2), None, None, Some(whole)),
        (Some(5), Some(1), None, Some(whole)),
        (None, Some(0), None, Some(whole)),
        (None, None, Some(0), Some("eqsat: folded: 5 × 6 operations")),
        (None, None, Some(5), Some("eqsat: folded: 5 × 6 operations")),
    ];
    for (tapped, inner, other, says) in drawn {
        let g = Drawn {
            tapped,
            inner,
            other,
            ..plain(6)
        }
        .graph(&mut r);
        let (once, remark) = cut(&g, false);
        let starts = |r: &String| says.is_some_and(|s| r.starts_with(s));
        let drawn = (tapped, inner, other);
        assert!(
            remark.as_ref().is_some_and(starts),
            "{drawn:?}: {remark:?}, expected {says:?}"
        );
        agree(&g, &once, &mut r);
    }
}

/// Two rows that are equal in the first layer only cancel each other there, and nowhere else.
#[test]
fn constants_that_are_equal_in_one_layer_only_are_told_apart() {
    let mut r = Random(9);
    let mut g = Graph::new("rows");
    let mut x = g.input("x", Type::fixed(DType::F32, &[ROWS, COLUMNS]));
    let equal = tensor(&mut r, &[ROWS, COLUMNS]);
    for k in 0..5 {
        let w = g.dense(tensor(&mut r, &[COLUMNS, COLUMNS]));
        let a = g.dense(equal.clone());
        let b = if k == 0 {
            equal.clone()
        } else {
            tensor(&mut r, &[ROWS, COLUMNS])
        };
        let b = g.dense(b);
        let mut built = GraphBuilder {
            graph: &mut g,
            origin: format!("layer {k}").into(),
        };
        let (none, f) = (|| Attr::ints(&[]), Attr::DType(DType::F32));
        let attrs = [none(), none(), Attr::ints(&[1]), Attr::ints(&[0]), f.clone(), f];
        let mut call =
            |name: &str, attrs: &[Attr], inputs: &[Value]| built.call(name, attrs, inputs).expect("the types fit");
        let h = call("contract", &attrs, &[x, w]);
        let (p, q) = (call("mul", &[], &[h, a]), call("mul", &[], &[h, b]));
        let d = call("sub", &[], &[p, q]);
        x = call("add", &[], &[x, d]);
    }
    g.outputs.push(("y".into(), x));
    let (once, remark) = cut(&g, false);
    let why = "eqsat: not folded: a constant of \"layer 0\" equals another one in one layer only";
    assert_eq!(remark.as_deref(), Some(why));
    agree(&g, &once, &mut r);
}

/// What is outside of the layers is what it is, whatever it equals in the first one.
#[test]
fn what_layers_read_from_outside_is_the_same_in_all() {
    let mut r = Random(10);
    for row in [false, true] {
        let own = match row {
            true => Step::Row("mul", 1),
            false => Step::Input("mul", 1),
        };
        let g = Drawn {
            steps: vec![own, Step::Outside(2), Step::Binary("mul", 0, 3), Step::Product(4)],
            row,
            ..plain(5)
        }
        .graph(&mut r);
        let (once, remark) = cut(&g, false);
        let reads = remark.unwrap_or_default();
        assert!(
            reads.starts_with("eqsat: not folded: \"layer 0 step 1\" reads"),
            "{reads}"
        );
        agree(&g, &once, &mut r);
    }
}

#[test]
fn models_are_as_good_as_without() {
    let small = SMALL_MODELS.iter().map(|name| small_model(name).path);
    let light = std::fs::read_dir(data("onnx-light").join("light")).expect("it was unpacked");
    let light = light.flatten().map(|e| e.path().join("model.onnx"));
    let (mut folded, mut bad) = (0, vec![]);
    for path in small.chain(light) {
        let Ok(g) = brolga::source::graph(&path, brolga::Options::default().memory_limit) else {
            continue;
        };
        let g = Canonicalize::default()
            .rewrite(&g, &mut Context::new(Target::x86_64_v4()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (once, Some(remark)) = cut(&g, false) else { continue };
        if !remark.starts_with("eqsat: folded") {
            continue;
        }
        let each = cut(&g, true).0;
        folded += 1;
        if seconds(&once) > DEARER * seconds(&each) || eqsat::kernels(&once) > eqsat::kernels(&each) {
            bad.push(format!(
                "{}: {remark}: {} times as dear",
                path.display(),
                seconds(&once) / seconds(&each)
            ));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(folded >= 3, "{folded} models have layers that are alike");
}
