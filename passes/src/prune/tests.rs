use super::*;
use brolga_ir::{Op, Type};

/// A graph under construction with activations `x` f32 `[3, k]`.
struct Net {
    g: Graph,
    x: Value,
}

/// Small values, none of them zero, but for rows and columns.
fn matrix(rows: usize, columns: usize, zero: impl Fn(usize, usize) -> bool) -> Tensor {
    Tensor::from_fn(DType::F32, &[rows, columns], |i| {
        let (r, c) = (i / columns, i % columns);
        Number::Float(if zero(r, c) {
            0.0
        } else {
            ((i * 7 + 3) % 23) as f64 / 8.0 - 1.4
        })
    })
}

impl Net {
    fn new(k: usize) -> Net {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::fixed(DType::F32, &[3, k]));
        Net { g, x }
    }
    fn call(&mut self, name: &str, attrs: &[Attr], inputs: &[Value]) -> Value {
        let origin = name.into();
        GraphBuilder {
            graph: &mut self.g,
            origin,
        }
        .call(name, attrs, inputs)
        .unwrap()
    }
    /// `x wᵀ` with `w` `[out, in]`.
    fn linear(&mut self, x: Value, w: Tensor) -> Value {
        let w = self.g.dense(w);
        let f32 = || Attr::DType(DType::F32);
        let none = || Attr::axes(&[]);
        let attrs = [none(), none(), Attr::axes(&[1]), Attr::axes(&[1]), f32(), f32()];
        self.call("contract", &attrs, &[x, w])
    }
    fn bias(&mut self, x: Value, b: Tensor) -> Value {
        let shape = self.g.ty(x).shape.clone();
        let b = self.g.dense(b.reshaped(&[1, b.len()]));
        let b = self.call("broadcast", &[Attr::Dims(shape)], &[b]);
        self.call("add", &[], &[x, b])
    }
    /// The graph after the pass, which gives what it gave before.
    fn pruned(mut self, y: Value, lanes: usize) -> (Graph, Vec<String>) {
        self.g.outputs.push(("y".into(), y));
        self.g.verify().unwrap();
        let mut remarks = vec![];
        let pruned = prune(&self.g, lanes, &mut remarks).unwrap();
        pruned.verify().unwrap();
        let shape = dim_of(&self.g, self.x);
        let x = Tensor::from_fn(DType::F32, &shape, |i| Number::Float((i % 11) as f64 / 4.0 - 1.1));
        let [was, is] = [&self.g, &pruned].map(|g| g.eval(std::slice::from_ref(&x)).unwrap().remove(0));
        assert_eq!(was.shape(), is.shape());
        for (a, b) in was.to_f64s().into_iter().zip(is.to_f64s()) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
        }
        (pruned, remarks)
    }
}

fn dim_of(g: &Graph, v: Value) -> Vec<usize> {
    brolga_ir::dim::constants(&g.ty(v).shape).unwrap()
}

/// Extents of the weights of a graph's products, after what is taken of them.
fn weights(g: &Graph) -> Vec<Vec<usize>> {
    let products = g.nodes.iter().filter(|n| matches!(n.op.name(), "contract" | "conv"));
    products.map(|n| dim_of(g, n.inputs[1])).collect()
}

#[test]
fn neurons_without_weights_are_left_out_of_both_products() {
    let mut n = Net::new(8);
    let dead = |i: usize| i == 1 || i >= 4;
    let up = n.linear(n.x, matrix(6, 8, |r, _| dead(r)));
    let act = n.call("silu", &[], &[up]);
    let y = n.linear(act, matrix(8, 6, |_, c| dead(c)));
    let (g, remarks) = n.pruned(y, 1);
    assert_eq!(weights(&g), [[3, 8], [8, 3]]);
    assert_eq!(
        remarks,
        [
            "`contract` leaves out 3 of 6 rows of its weights",
            "`contract` leaves out 3 of 6 columns of its weights"
        ]
    );
}

#[test]
fn a_row_or_a_column_alone_is_enough() {
    // A gate and what it gates: a zero row of either makes the channel zero, and a zero column makes it useless.
    let mut n = Net::new(8);
    let gate = n.linear(n.x, matrix(6, 8, |r, _| r == 0));
    let gate = n.call("silu", &[], &[gate]);
    let up = n.linear(n.x, matrix(6, 8, |r, _| r == 2));
    let both = n.call("mul", &[], &[gate, up]);
    let y = n.linear(both, matrix(8, 6, |_, c| c == 5));
    let (g, _) = n.pruned(y, 1);
    assert_eq!(weights(&g), [[3, 8], [3, 8], [8, 3]]);
}

#[test]
fn a_bias_that_is_not_zero_keeps_its_channel() {
    let biased = |b: [f32; 4]| {
        let mut n = Net::new(8);
        let up = n.linear(n.x, matrix(4, 8, |r, _| r < 2));
        let up = n.bias(up, Tensor::from_f32(&[4], &b));
        let act = n.call("relu", &[], &[up]);
        let y = n.linear(act, matrix(8, 4, |_, _| false));
        weights(&n.pruned(y, 1).0)
    };
    assert_eq!(biased([0.0, 0.5, 1.0, 1.0]), [[3, 8], [8, 3]]);
    assert_eq!(biased([0.25, 0.5, 1.0, 1.0]), [[4, 8], [8, 4]]);
}

#[test]
fn what_makes_something_of_zero_keeps_its_channel() {
    let mut n = Net::new(8);
    let up = n.linear(n.x, matrix(4, 8, |r, _| r == 1));
    let act = n.call("sigmoid", &[], &[up]);
    let y = n.linear(act, matrix(8, 4, |_, c| c == 3));
    // Column 3 makes channel 3 useless; row 1 stays, for its sigmoid is a half.
    assert_eq!(weights(&n.pruned(y, 1).0), [[3, 8], [8, 3]]);
}

#[test]
fn what_others_read_too_stays() {
    let mut n = Net::new(8);
    let up = n.linear(n.x, matrix(4, 8, |_, _| false));
    let y = n.linear(up, matrix(4, 4, |_, c| c == 3));
    let sum = n.call("add", &[], &[up, y]);
    assert_eq!(weights(&n.pruned(sum, 1).0), [[4, 8], [4, 4]]);
}

#[test]
fn rows_are_put_back_and_columns_taken_out_where_it_pays() {
    let far = |n: usize, rows: fn(usize) -> bool, columns: fn(usize) -> bool| {
        let mut net = Net::new(n);
        let y = net.linear(net.x, matrix(n, n, |r, c| rows(r) || columns(c)));
        net.pruned(y, 1).0
    };
    let odd = |i: usize| i % 2 == 1;
    assert_eq!(weights(&far(256, odd, |_| false)), [[128, 256]]);
    assert_eq!(weights(&far(256, |_| false, odd)), [[256, 128]]);
    assert_eq!(weights(&far(256, odd, odd)), [[128, 128]]);
    // One run of rows is a padding, and of columns a slice.
    let halves = far(256, |r| r >= 100, |c| c < 60);
    assert_eq!(weights(&halves), [[100, 196]]);
    assert!(halves.nodes.iter().all(|n| n.op.name() != "gather"));
    // One row of 256 saves less than it costs to put it back.
    assert_eq!(weights(&far(256, |r| r == 9, |_| false)), [[256, 256]]);
}

#[test]
fn channels_stay_in_whole_vectors() {
    let mut n = Net::new(8);
    let up = n.linear(n.x, matrix(64, 8, |r, _| r % 3 == 0));
    let y = n.linear(up, matrix(8, 64, |_, _| false));
    // 42 live ones.
    let (g, _) = n.pruned(y, 16);
    assert_eq!(weights(&g), [[48, 8], [8, 48]]);
}

#[test]
fn a_matrix_of_zeros_stays_a_matrix() {
    let mut n = Net::new(8);
    let up = n.linear(n.x, matrix(4, 8, |_, _| true));
    let y = n.linear(up, matrix(8, 4, |_, _| false));
    assert_eq!(weights(&n.pruned(y, 1).0), [[1, 8], [8, 1]]);
}

#[test]
fn filters_and_turns() {
    let mut n = Net::new(36);
    let image = n.call("reshape", &[Attr::dims(&[3, 4, 3, 3])], &[n.x]);
    let conv = |n: &mut Net, x: Value, [o, i]: [usize; 2], zero: fn(usize, usize) -> bool| {
        let w = matrix(o, i * 9, |r, c| zero(r, c / 9)).reshaped(&[o, i, 3, 3]);
        let w = n.g.dense(w);
        let (ones, pads) = (Attr::ints(&[1, 1]), Attr::dims(&[1, 1]));
        let f32 = || Attr::DType(DType::F32);
        let attrs = [ones.clone(), ones, pads.clone(), pads, Attr::Int(1), f32(), f32()];
        n.call("conv", &attrs, &[x, w])
    };
    let c = conv(&mut n, image, [6, 4], |o, _| o == 2);
    let c = n.call("relu", &[], &[c]);
    let c = conv(&mut n, c, [5, 6], |o, i| i == 4 || o == 0);
    let t = n.call("transpose", &[Attr::ints(&[0, 2, 3, 1])], &[c]);
    let t = n.call("reshape", &[Attr::dims(&[27, 5])], &[t]);
    let y = n.linear(t, matrix(7, 5, |_, _| false));
    let (g, _) = n.pruned(y, 1);
    assert_eq!(weights(&g), [vec![4, 4, 3, 3], vec![4, 4, 3, 3], vec![7, 4]]);
}

#[test]
fn weights_in_blocks() {
    let mut n = Net::new(32);
    let product = |n: &mut Net, x: Value, w: Tensor| {
        let w = n.g.dense(w);
        let origin: std::sync::Arc<str> = "w".into();
        let mut b = GraphBuilder {
            graph: &mut n.g,
            origin,
        };
        let q = b
            .add(Op::new("quantize_blocks", &[Attr::Int(128)]).unwrap(), &[x])
            .unwrap();
        let w = b
            .add(Op::new("compress_blocks", &[Attr::Int(8), Attr::Int(1)]).unwrap(), &[w])
            .unwrap();
        b.call("block_product", &[Attr::Int(8)], &[q[0], q[1], q[2], w[0], w[1]])
            .unwrap()
    };
    let x = n.x;
    let up = product(&mut n, x, matrix(96, 32, |r, _| r < 40));
    let act = n.call("silu", &[], &[up]);
    let y = product(&mut n, act, matrix(32, 96, |_, c| c < 40));
    // 56 live ones, in blocks of 32; a block that loses a zero has other scales.
    n.g.outputs.push(("y".into(), y));
    let pruned = prune(&n.g, 16, &mut vec![]).unwrap();
    pruned.verify().unwrap();
    let compressed: Vec<_> = pruned
        .nodes
        .iter()
        .filter(|n| n.op.name() == "compress_blocks")
        .collect();
    let shapes: Vec<_> = compressed.iter().map(|n| dim_of(&pruned, n.inputs[0])).collect();
    assert_eq!(shapes, [[64, 32], [32, 64]]);
    let x = Tensor::from_fn(DType::F32, &[3, 32], |i| Number::Float((i % 11) as f64 / 4.0 - 1.1));
    let [was, is] = [&n.g, &pruned].map(|g| g.eval(std::slice::from_ref(&x)).unwrap().remove(0).to_f64s());
    let most = was.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(was.iter().zip(&is).all(|(a, b)| (a - b).abs() < 1e-2 * most));
}
