//! `MaxPool` with the positions of its maxima, on the tensor IR's interpreter, beside the loop that defines them.

mod common;

use brolga_frontend::onnx::Options;
use brolga_ir::{DType, Graph, Number, Tensor};
use common::{load, model, value};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, NodeProto, ValueInfoProto};

type Lists<'a> = &'a [(&'a str, &'a [i64])];

/// Nodes over `x` (and further inputs) whose results of these names are the model's.
fn import(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, results: &[&str]) -> Result<Graph, String> {
    load(&model(inputs, nodes, results), &Options::default()).map_err(|e| e.to_string())
}

/// A node with lists of integers; a list of one whose name says so is an integer.
fn node(op: &str, operands: &[&str], results: &[&str], attrs: Lists) -> NodeProto {
    let attribute = |(name, list): &(&str, &[i64])| {
        let mut a = AttributeProto::new();
        a.name = (*name).into();
        if ["ceil_mode", "storage_order"].contains(name) {
            (a.type_, a.i) = (AttributeType::INT.into(), list[0]);
        } else {
            (a.type_, a.ints) = (AttributeType::INTS.into(), list.to_vec());
        }
        a
    };
    let names = |l: &[&str]| l.iter().map(|n| n.to_string()).collect();
    NodeProto {
        op_type: op.into(),
        input: names(operands),
        output: names(results),
        attribute: attrs.iter().map(attribute).collect(),
        ..Default::default()
    }
}

fn pool(code: i32, dims: &[&str], attrs: Lists) -> Result<Graph, String> {
    let n = node("MaxPool", &["x"], &["y", "i"], attrs);
    import(vec![value("x", code, dims)], vec![n], &["y", "i"])
}

/// The maxima and their positions by the definition, on results of these spatial extents: the first element of a window
/// is replaced by what is larger.
fn expected(x: &Tensor, sizes: &[usize], attrs: Lists) -> (Vec<f64>, Vec<i64>) {
    let shape = &x.shape()[2..];
    let n = shape.len();
    let list = |name: &str, default: i64| {
        let given = attrs.iter().find(|a| a.0 == name).map(|a| a.1.to_vec());
        given.unwrap_or(vec![default; n])
    };
    let (kernel, strides, dilations, low) = (
        list("kernel_shape", 1),
        list("strides", 1),
        list("dilations", 1),
        list("pads", 0),
    );
    let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
    let (plane, columns) = (shape.iter().product::<usize>(), list("storage_order", 0)[0] == 1);
    let (mut values, mut positions) = (vec![], vec![]);
    for c in 0..x.shape()[0] * x.shape()[1] {
        for o in brolga_ir::indices(sizes) {
            let mut best: Option<(f64, i64)> = None;
            for k in brolga_ir::indices(&kernel) {
                let p: Vec<i64> = (0..n)
                    .map(|a| o[a] as i64 * strides[a] - low[a] + k[a] as i64 * dilations[a])
                    .collect();
                if p.iter().zip(shape).any(|(&p, &n)| !(0..n as i64).contains(&p)) {
                    continue;
                }
                let along = |order: &mut dyn Iterator<Item = usize>| {
                    order.fold(0, |at, a| at * shape[a] + p[a] as usize) + c * plane
                };
                let row_major = along(&mut (0..n));
                let at = if columns { along(&mut (0..n).rev()) } else { row_major };
                let v = x.get(row_major).f64();
                if best.is_none_or(|(b, _)| v > b) {
                    best = Some((v, at as i64));
                }
            }
            let (v, at) = best.expect("a window has an element");
            values.push(v);
            positions.push(at);
        }
    }
    (values, positions)
}

fn check(g: &Graph, x: &Tensor, attrs: Lists) {
    let found = g.eval(std::slice::from_ref(x)).unwrap();
    let (values, positions) = expected(x, &found[0].shape()[2..], attrs);
    let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<u64>>();
    let what = format!("{} {attrs:?}", x.dtype());
    assert_eq!(found[1].shape(), found[0].shape(), "{what}");
    assert_eq!(bits(&found[0].to_f64s()), bits(&values), "{what}");
    let at: Vec<i64> = found[1].iter().map(|p| p.int() as i64).collect();
    assert_eq!(at, positions, "{what}");
}

/// Values that often repeat, of both signs in signed dtypes.
fn some(dtype: DType, shape: &[usize]) -> Tensor {
    let level = |i: usize| (i * 7919 % 101 * 31 % 11) as f64;
    let least = if dtype == DType::U8 { 0.0 } else { -5.0 };
    Tensor::from_fn(dtype, shape, |i| match (dtype.is_float(), level(i) + least) {
        (true, v) => Number::Float(v),
        (false, v) => Number::Int(v as i128),
    })
}

const TYPES: [(DType, i32); 5] = [
    (DType::F32, 1),
    (DType::F16, 10),
    (DType::F64, 11),
    (DType::I8, 3),
    (DType::U8, 2),
];

#[test]
fn positions_are_those_of_the_first_maxima() {
    let cases: [(&[usize], Lists); 10] = [
        (
            &[2, 3, 9],
            &[
                ("kernel_shape", &[3]),
                ("strides", &[2]),
                ("pads", &[1, 2]),
                ("ceil_mode", &[1]),
            ],
        ),
        (
            &[1, 2, 12],
            &[("kernel_shape", &[5]), ("dilations", &[2]), ("pads", &[3, 4])],
        ),
        (&[2, 2, 6, 7], &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]),
        (&[2, 2, 6, 7], &[("kernel_shape", &[2, 3]), ("storage_order", &[1])]),
        (
            &[1, 2, 7, 8],
            &[
                ("kernel_shape", &[3, 4]),
                ("strides", &[2, 3]),
                ("pads", &[1, 3, 2, 1]),
                ("ceil_mode", &[1]),
            ],
        ),
        (
            &[1, 1, 9, 8],
            &[
                ("kernel_shape", &[3, 3]),
                ("dilations", &[3, 2]),
                ("pads", &[4, 2, 1, 3]),
            ],
        ),
        (
            &[1, 1, 5, 6],
            &[
                ("kernel_shape", &[1, 6]),
                ("strides", &[2, 1]),
                ("pads", &[0, -1, 0, 2]),
            ],
        ),
        (&[1, 1, 1], &[("kernel_shape", &[2]), ("strides", &[2])]),
        (&[1, 1, 1, 1], &[("kernel_shape", &[3, 7]), ("pads", &[2, 6, 2, 6])]),
        (
            &[1, 2, 4, 3, 5],
            &[
                ("kernel_shape", &[2, 3, 2]),
                ("pads", &[1, 1, 0, 0, 2, 1]),
                ("storage_order", &[1]),
            ],
        ),
    ];
    for (shape, attrs) in cases {
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        let dims: Vec<&str> = dims.iter().map(String::as_str).collect();
        for (dtype, code) in TYPES {
            check(&pool(code, &dims, attrs).unwrap(), &some(dtype, shape), attrs);
        }
        let symbols = &["n", "c", "a", "b", "d"][..shape.len()];
        check(&pool(1, symbols, attrs).unwrap(), &some(DType::F32, shape), attrs);
    }
}

#[test]
fn padding_never_wins_and_nan_does_where_it_is_first() {
    const NAN: f64 = f64::NAN;
    const LOW: f64 = f64::NEG_INFINITY;
    let floats = |v: &[f64]| Tensor::from_fn(DType::F32, &[1, 1, v.len()], |i| Number::Float(v[i]));
    let attrs: Lists = &[("kernel_shape", &[3]), ("pads", &[2, 2])];
    for x in [
        &[LOW; 4][..],
        &[NAN, 1.0, 2.0, NAN, NAN, NAN, LOW, LOW, LOW, 3.0, NAN, 1.0],
        &[1.0, NAN, LOW, NAN, 0.0, -0.0, 0.0, NAN, NAN, NAN, NAN],
    ] {
        check(&pool(1, &["1", "1", "w"], attrs).unwrap(), &floats(x), attrs);
    }
    for dtype in [DType::I8, DType::U8] {
        let least = if dtype == DType::I8 { -128 } else { 0 };
        let x = Tensor::from_fn(dtype, &[1, 1, 4], |_| Number::Int(least));
        let code = if dtype == DType::I8 { 3 } else { 2 };
        check(&pool(code, &["1", "1", "4"], attrs).unwrap(), &x, attrs);
    }
}

#[test]
fn a_window_in_the_padding_has_no_position() {
    let message = "in the padding";
    let e = pool(1, &["1", "1", "4"], &[("kernel_shape", &[2]), ("pads", &[2, 0])]).unwrap_err();
    assert!(e.contains(message), "{e}");
    let e = pool(1, &["1", "1", "w"], &[("kernel_shape", &[2]), ("pads", &[2, 0])]).unwrap_err();
    assert!(e.contains(message), "{e}");
    // Taps at -1 and 2 of an extent of 1, which a symbol may have.
    let attrs: Lists = &[("kernel_shape", &[2]), ("dilations", &[3]), ("pads", &[1, 2])];
    let e = pool(1, &["1", "1", "1"], attrs).unwrap_err();
    assert!(e.contains(message), "{e}");
    let g = pool(1, &["1", "1", "w"], attrs).unwrap();
    let e = g.eval(&[some(DType::F32, &[1, 1, 1])]).unwrap_err();
    assert!(e.to_string().contains("3 <= w"), "{e}");
}

#[test]
fn a_long_window_takes_few_steps() {
    let size = |k: i64| {
        let attrs: Lists = &[("kernel_shape", &[k]), ("pads", &[0, k - 1])];
        let g = pool(1, &["1", "1", "4096"], attrs).unwrap();
        g.to_string().lines().count()
    };
    assert!(size(4096) < 3 * size(32), "{} and {}", size(4096), size(32));
}

#[test]
fn unpooling_puts_the_maxima_where_they_were() {
    let attrs: Lists = &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])];
    for (dims, shape) in [
        (["2", "2", "4", "6"], [2, 2, 4, 6]),
        (["n", "c", "4", "6"], [2, 2, 4, 6]),
    ] {
        let nodes = vec![
            node("MaxPool", &["x"], &["y", "i"], attrs),
            node("MaxUnpool", &["y", "i"], &["u"], attrs),
        ];
        let g = import(vec![value("x", 1, &dims)], nodes, &["u"]).unwrap();
        let x = some(DType::F32, &shape);
        let (values, positions) = expected(&x, &[2, 3], attrs);
        let mut want = vec![0.0; x.len()];
        for (v, at) in values.iter().zip(positions) {
            want[at as usize] = *v;
        }
        let u = g.eval(&[x]).unwrap().remove(0);
        assert_eq!((u.shape(), u.to_f64s()), (&shape[..], want));
    }
    // A shape that the pool rounded down from is the one that positions count in.
    let nodes = vec![
        node("Shape", &["x"], &["s"], &[]),
        node("MaxPool", &["x"], &["y", "i"], attrs),
        node("MaxUnpool", &["y", "i", "s"], &["u"], attrs),
    ];
    let g = import(vec![value("x", 1, &["1", "1", "5", "w"])], nodes, &["u"]).unwrap();
    let x = Tensor::from_fn(DType::F32, &[1, 1, 5, 3], |i| Number::Float(i as f64));
    let u = g.eval(&[x]).unwrap().remove(0);
    assert_eq!(u.shape(), [1, 1, 5, 3]);
    let mut want = vec![0.0; 15];
    (want[4], want[10]) = (4.0, 10.0);
    assert_eq!(u.to_f64s(), want);
}
