//! Every operator against its own definition: inference agrees with evaluation on every sample, decompositions with
//! evaluations, graphs of samples verify, and attributes out of all reason are errors.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, all, lookup};
use crate::{Build, DType, Dim, Graph, GraphBuilder, Layout, Number, Tensor, Type, Value};

fn instances() -> impl Iterator<Item = (&'static dyn OpDef, Sample)> {
    all().iter().flat_map(|d| d.samples().into_iter().map(move |s| (*d, s)))
}

/// A graph whose outputs are what `f` adds for operands of the sample's types.
fn graph_of(s: &Sample, f: impl FnOnce(&mut GraphBuilder, &[Value]) -> Vec<Value>) -> Graph {
    let mut graph = Graph::new("sample");
    let types = s.inputs.iter().map(|(dtype, shape)| Type::fixed(*dtype, shape));
    let inputs: Vec<Value> = types
        .enumerate()
        .map(|(i, ty)| graph.input(&format!("x{i}"), ty))
        .collect();
    let mut b = GraphBuilder {
        graph: &mut graph,
        origin: "node".into(),
    };
    let outputs = f(&mut b, &inputs);
    graph.outputs = outputs
        .into_iter()
        .enumerate()
        .map(|(i, v)| (format!("y{i}"), v))
        .collect();
    graph.verify().unwrap();
    graph
}

fn close(accuracy: Accuracy, a: &Tensor, b: &Tensor) -> bool {
    let tolerance = match (accuracy, a.dtype()) {
        (Accuracy::Exact, _) => 0.0,
        (_, DType::F64) => 1e-12,
        (_, DType::F16) => 1e-2,
        (_, DType::BF16) => 3e-2,
        _ => 1e-5,
    };
    let same = |(x, y): (Number, Number)| match (x, y) {
        (Number::Float(x), Number::Float(y)) => {
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * (1.0 + y.abs())
        }
        (x, y) => x == y,
    };
    a.dtype() == b.dtype() && a.shape() == b.shape() && a.iter().zip(b.iter()).all(same)
}

#[test]
fn names_are_unique_and_found() {
    for pair in all().windows(2) {
        assert!(
            pair[0].name() < pair[1].name(),
            "{} and {}",
            pair[0].name(),
            pair[1].name()
        );
    }
    assert_eq!(lookup("softmax").unwrap().name(), "softmax");
    assert!(lookup("soft_max").is_none());
}

/// Operators whose operands have no more than two dimensions.
const OF_RANK_TWO: [&str; 7] = [
    "compress_blocks",
    "decode_blocks",
    "image_decode",
    "image_size",
    "quantize_blocks",
    "tree_leaves",
    "unpack_blocks",
];

#[test]
fn every_operator_has_samples_of_reach() {
    assert!(all().iter().all(|d| !d.samples().is_empty()));
    for def in super::LIST {
        let samples = def.samples();
        let shapes: Vec<&[usize]> = samples.iter().flat_map(|s| s.inputs.iter().map(|i| i.1)).collect();
        if samples[0].inputs.is_empty() {
            continue;
        }
        assert!(
            OF_RANK_TWO.contains(&def.name()) || shapes.iter().any(|s| s.len() >= 3),
            "{} has no sample of rank 3",
            def.name()
        );
        assert!(
            shapes.iter().any(|s| s.contains(&1)),
            "{} has no sample with an extent of 1",
            def.name()
        );
    }
}

#[test]
fn inference_agrees_with_evaluation() {
    for (def, sample) in instances() {
        let op = Op::new(def.name(), &sample.attrs).unwrap();
        let types: Vec<Type> = sample.inputs.iter().map(|(d, s)| Type::fixed(*d, s)).collect();
        let want = op.infer(&types).unwrap_or_else(|e| panic!("{sample:?} of {op:?}: {e}"));
        let found = op
            .eval(&sample.operands(1))
            .unwrap_or_else(|e| panic!("{sample:?} of {op:?}: {e}"));
        let found: Vec<Type> = found.iter().map(|t| Type::fixed(t.dtype(), t.shape())).collect();
        assert_eq!(found, want, "{op:?} of {sample:?}");
    }
}

#[test]
fn decompositions_agree_with_evaluations() {
    let mut checked = 0;
    for (def, sample) in instances() {
        let op = Op::new(def.name(), &sample.attrs).unwrap();
        let mut composite = false;
        let graph = graph_of(&sample, |b, x| {
            let outs = def
                .decompose(&op, b, x)
                .unwrap_or_else(|e| panic!("{op:?} of {sample:?}: {e}"));
            composite = outs.is_some();
            outs.unwrap_or_default()
        });
        if !composite {
            continue;
        }
        checked += 1;
        assert!(
            graph.nodes.iter().all(|n| n.op.name() != def.name()),
            "{op:?} decomposes into itself"
        );
        for seed in 0..4 {
            let operands = sample.operands(seed);
            let want = op.eval(&operands).unwrap();
            let found = graph.eval(&operands).unwrap();
            assert_eq!(found.len(), want.len());
            for (f, w) in found.iter().zip(&want) {
                assert!(
                    close(def.accuracy(), f, w),
                    "{op:?} of {sample:?}: {f:?}, expected {w:?}"
                );
                assert!(
                    w.iter().all(|x| !x.f64().is_nan()),
                    "{op:?} of {sample:?} has a sample result of NaN"
                );
            }
        }
    }
    assert!(checked >= 30, "only {checked} decompositions");
}

#[test]
fn graphs_of_samples_evaluate_as_the_operator() {
    for (def, sample) in instances() {
        let op = Op::new(def.name(), &sample.attrs).unwrap();
        let graph = graph_of(&sample, |b, x| b.graph.add(op.clone(), x, &"node".into()).unwrap());
        let operands = sample.operands(7);
        let (found, want) = (graph.eval(&operands).unwrap(), op.eval(&operands).unwrap());
        assert!(
            found.iter().zip(&want).all(|(f, w)| close(Accuracy::Exact, f, w)),
            "{op:?} of {sample:?}"
        );
    }
}

#[test]
fn symbolic_extents_decompose_as_known_ones() {
    // batch and length are symbols; the decomposition is built once, and run at two sizes.
    let s = |n: &str| Dim::sym(n);
    let ty = Type::new(DType::F32, [s("batch"), s("seq"), Dim::Const(6)]);
    let vector = Type::fixed(DType::F32, &[6]);
    let cases: Vec<(&str, Vec<Attr>, Vec<Type>)> = vec![
        ("softmax", vec![Attr::Int(1), Attr::word("unseen")], vec![ty.clone()]),
        (
            "layer_norm",
            vec![Attr::Int(2), Attr::num(1e-5)],
            vec![ty.clone(), vector.clone(), vector.clone()],
        ),
        (
            "rms_norm",
            vec![Attr::Int(2), Attr::num(1e-5)],
            vec![ty.clone(), vector],
        ),
        (
            "layer_norm",
            vec![Attr::Int(1), Attr::num(1e-5)],
            vec![
                ty.clone(),
                Type::new(DType::F32, &ty.shape[1..]),
                Type::new(DType::F32, &ty.shape[1..]),
            ],
        ),
        (
            "lrn",
            vec![Attr::Int(3), Attr::num(0.5), Attr::num(0.75), Attr::num(1.0)],
            vec![ty.clone()],
        ),
    ];
    for (name, attrs, types) in cases {
        let op = Op::new(name, &attrs).unwrap();
        let mut graph = Graph::new("symbolic");
        let inputs: Vec<Value> = types.iter().map(|t| graph.input("x", t.clone())).collect();
        let mut b = GraphBuilder {
            graph: &mut graph,
            origin: "node".into(),
        };
        let outs = op.def().decompose(&op, &mut b, &inputs).unwrap().unwrap();
        assert_eq!(b.type_of(outs[0]), ty, "{name}");
        graph.outputs = vec![("y".into(), outs[0])];
        graph.verify().unwrap();
        for (batch, seq) in [(2, 5), (1, 3)] {
            let value = |s: &str| Some(if s == "batch" { batch } else { seq });
            let operands: Vec<Tensor> = types
                .iter()
                .map(|t| {
                    let shape: Vec<usize> = t.shape.iter().map(|d| d.eval(&value).unwrap() as usize).collect();
                    Tensor::from_fn(t.dtype, &shape, |i| Number::Float((i * 37 % 23) as f64 / 8.0 - 1.0))
                })
                .collect();
            let (found, want) = (graph.eval(&operands).unwrap(), op.eval(&operands).unwrap());
            assert!(
                close(Accuracy::Rounding, &found[0], &want[0]),
                "{name}: {found:?}, expected {want:?}"
            );
        }
    }
}

/// What every kind of attribute is replaced by.
fn hostile(kind: AttrKind) -> Vec<Attr> {
    let numbers = [i64::MIN, -3, -1, 0, 1, 2, 1 << 40, i64::MAX];
    match kind {
        AttrKind::Int => numbers.into_iter().map(Attr::Int).collect(),
        AttrKind::Bool => vec![Attr::Bool(true), Attr::Bool(false)],
        AttrKind::Ints => {
            let mut all: Vec<Attr> = (0..5).flat_map(|n| numbers.map(|x| Attr::Ints(vec![x; n]))).collect();
            all.extend([Attr::ints(&[1, 0]), Attr::ints(&[0, 1, 2]), Attr::ints(&[3, 1, 0, 2])]);
            all
        }
        AttrKind::Dims => {
            let mut all: Vec<Attr> = (0..5).flat_map(|n| numbers.map(|x| Attr::dims(&vec![x; n]))).collect();
            all.extend((0..5).map(|n| Attr::Dims(vec![Dim::sym("n"); n])));
            all
        }
        AttrKind::Num => [f64::NAN, f64::NEG_INFINITY, -1e300, 0.0].map(Attr::num).to_vec(),
        AttrKind::DType => DType::ALL.map(Attr::DType).to_vec(),
        AttrKind::Word => ["", "sum", "max", "none", "and", "add"].map(Attr::word).to_vec(),
        AttrKind::Layout => {
            let layouts = [
                Ok(Layout::ROW_MAJOR),
                Layout::new(&[0, 2, 1], &[], 0),
                Layout::panels(2, 0, 1),
            ];
            layouts.map(|x| Attr::Layout(x.unwrap())).to_vec()
        }
        AttrKind::Region => {
            let samples = ["if", "while"].iter().flat_map(|name| lookup(name).unwrap().samples());
            samples.flat_map(|s| s.attrs).collect()
        }
    }
}

#[test]
fn hostile_attributes_and_operands_are_errors_not_panics() {
    // An evaluation beyond this many bytes is legal, and not what is tested.
    let small = |types: &[Type]| {
        let bytes = types.iter().map(|t| t.len().as_const().unwrap_or(0).saturating_mul(8));
        bytes.fold(0, i64::saturating_add) < 1 << 20
    };
    let (mut accepted, mut rejected) = (0, 0);
    for (def, sample) in instances() {
        let types: Vec<Type> = sample.inputs.iter().map(|(d, s)| Type::fixed(*d, s)).collect();
        let mut try_one = |attrs: &[Attr], types: &[Type]| {
            let op = Op::new(def.name(), attrs).unwrap();
            match op.infer(types) {
                Err(e) => {
                    assert!(!e.is_empty());
                    rejected += 1;
                }
                Ok(out) => {
                    accepted += 1;
                    let make = |t: &Type| {
                        let shape = crate::dim::constants(&t.shape)?;
                        Some(Tensor::splat(t.dtype, &shape, Number::Int(1)))
                    };
                    if small(types)
                        && small(&out)
                        && let Some(operands) = types.iter().map(make).collect::<Option<Vec<Tensor>>>()
                    {
                        // Whether the values are good is not asked here, only that nothing panics.
                        let _ = op.eval(&operands);
                    }
                    let mut graph = Graph::new("hostile");
                    let inputs: Vec<Value> = types.iter().map(|t| graph.input("x", t.clone())).collect();
                    let mut b = GraphBuilder {
                        graph: &mut graph,
                        origin: "".into(),
                    };
                    if let Some(outs) = def
                        .decompose(&op, &mut b, &inputs)
                        .unwrap_or_else(|e| panic!("{op:?}: {e}"))
                    {
                        let found: Vec<Type> = outs.iter().map(|&v| b.type_of(v)).collect();
                        assert_eq!(found, out, "{op:?} of {types:?}");
                    }
                }
            }
        };
        for (i, (_, kind)) in def.attrs().iter().enumerate() {
            for a in hostile(*kind) {
                let mut attrs = sample.attrs.clone();
                attrs[i] = a;
                try_one(&attrs, &types);
            }
        }
        for i in 0..types.len() {
            let mut fewer = types.clone();
            fewer.remove(i);
            try_one(&sample.attrs, &fewer);
            let mut more = types.clone();
            more.push(types[i].clone());
            try_one(&sample.attrs, &more);
            for dtype in DType::ALL {
                let mut other = types.clone();
                other[i].dtype = dtype;
                try_one(&sample.attrs, &other);
            }
            for d in 0..types[i].rank() {
                for extent in [Dim::ZERO, Dim::ONE, Dim::Const(9), Dim::sym("n"), Dim::Const(1 << 40)] {
                    let mut other = types.clone();
                    other[i].shape[d] = extent;
                    try_one(&sample.attrs, &other);
                }
                let mut other = types.clone();
                other[i].shape.remove(d);
                try_one(&sample.attrs, &other);
            }
            let mut other = types.clone();
            other[i].shape.push(Dim::Const(2));
            try_one(&sample.attrs, &other);
        }
        try_one(&sample.attrs, &[]);
    }
    assert!(
        accepted > 100 && rejected > 100,
        "{accepted} accepted, {rejected} rejected"
    );
}

fn eval(name: &str, attrs: &[Attr], inputs: &[&Tensor]) -> Vec<f64> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
    Op::new(name, attrs).unwrap().eval(&inputs).unwrap()[0].to_f64s()
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values)
}

fn counting(shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |i| Number::Float(i as f64))
}

#[test]
fn movement_by_hand() {
    let x = counting(&[2, 3]);
    assert_eq!(
        eval("transpose", &[Attr::ints(&[1, 0])], &[&x]),
        [0., 3., 1., 4., 2., 5.]
    );
    let slice = [Attr::dims(&[1, 2]), Attr::dims(&[2, 2]), Attr::ints(&[-1, -2])];
    assert_eq!(eval("slice", &slice, &[&x]), [5., 3., 2., 0.]);
    let pad = [
        Attr::dims(&[0, 1]),
        Attr::dims(&[0, -1]),
        Attr::ints(&[1, 0]),
        Attr::num(9.0),
    ];
    assert_eq!(eval("pad", &pad, &[&x]), [9., 0., 1., 9., 9., 9., 9., 3., 4.]);
    let stretched = eval("broadcast", &[Attr::dims(&[2, 2])], &[&f32s(&[2, 1], &[5., 6.])]);
    assert_eq!(stretched, [5., 5., 6., 6.]);
    let joined = eval("concat", &[Attr::Int(1)], &[&x, &f32s(&[2, 1], &[7., 8.])]);
    assert_eq!(joined, [0., 1., 2., 7., 3., 4., 5., 8.]);
    // -1 counts from the end.
    let index = Tensor::from_i64(&[4], &[-1, 0, 2, -3]);
    assert_eq!(
        eval("gather", &[Attr::Int(1)], &[&x, &index]),
        [2., 0., 2., 0., 5., 3., 5., 3.]
    );
    let index = Tensor::from_i64(&[1, 3], &[1, 0, -1]);
    assert_eq!(eval("gather_elements", &[Attr::Int(0)], &[&x, &index]), [3., 1., 5.]);
    let index = Tensor::from_i64(&[2, 2], &[1, 0, 0, -1]);
    assert_eq!(eval("gather_nd", &[Attr::Int(0)], &[&x, &index]), [3., 2.]);
    let index = Tensor::from_i64(&[2, 1], &[1, 0]);
    assert_eq!(eval("gather_nd", &[Attr::Int(1)], &[&x, &index]), [1., 3.]);
    let iota = [Attr::DType(DType::I32), Attr::dims(&[2, 3]), Attr::Int(1)];
    assert_eq!(eval("iota", &iota, &[]), [0., 1., 2., 0., 1., 2.]);
}

#[test]
fn scatters_by_hand() {
    let x = f32s(&[4], &[1., 2., 3., 4.]);
    // In order: the last update of an element stays.
    let index = Tensor::from_i64(&[3, 1], &[1, -1, 1]);
    let updates = f32s(&[3], &[10., 20., 30.]);
    let with = |word: &str| eval("scatter_nd", &[Attr::word(word)], &[&x, &index, &updates]);
    assert_eq!(with("none"), [1., 30., 3., 20.]);
    assert_eq!(with("add"), [1., 42., 3., 24.]);
    assert_eq!(with("mul"), [1., 600., 3., 80.]);
    assert_eq!(with("max"), [1., 30., 3., 20.]);
    assert_eq!(with("min"), [1., 2., 3., 4.]);
    let data = f32s(&[2, 2], &[1., 2., 3., 4.]);
    let index = Tensor::from_i64(&[1, 2], &[1, 0]);
    let attrs = [Attr::Int(0), Attr::word("add")];
    assert_eq!(
        eval(
            "scatter_elements",
            &attrs,
            &[&data, &index, &f32s(&[1, 2], &[10., 20.])]
        ),
        [1., 22., 13., 4.]
    );
}

#[test]
fn indices_out_of_range_are_errors() {
    let (x, u) = (f32s(&[2, 3], &[0.; 6]), f32s(&[1, 1], &[0.]));
    let says = |name: &str, attrs: &[Attr], inputs: &[&Tensor]| {
        let inputs: Vec<Tensor> = inputs.iter().map(|&t| t.clone()).collect();
        Op::new(name, attrs).unwrap().eval(&inputs).unwrap_err()
    };
    let index = |shape: &[usize], i: i64| Tensor::from_i64(shape, &vec![i; shape.iter().product()]);
    let along = "along axis 1 is out of range, expected -3 to 2";
    for i in [3, -4, i64::MAX, i64::MIN] {
        let wide = index(&[1, 1], i);
        let add = [Attr::Int(1), Attr::word("add")];
        assert_eq!(
            says("gather", &[Attr::Int(1)], &[&x, &wide]),
            format!("index {i} {along}")
        );
        assert_eq!(
            says("gather_elements", &[Attr::Int(1)], &[&x, &wide]),
            format!("index {i} {along}")
        );
        assert_eq!(
            says("scatter_elements", &add, &[&x, &wide, &u]),
            format!("index {i} {along}")
        );
    }
    let pair = Tensor::from_i64(&[1, 2], &[1, 3]);
    assert_eq!(
        says("gather_nd", &[Attr::Int(0)], &[&x, &pair]),
        format!("index 3 {along}")
    );
    let none = [Attr::word("none")];
    assert_eq!(
        says("scatter_nd", &none, &[&x, &pair, &f32s(&[1], &[0.])]),
        format!("index 3 {along}")
    );
}

#[test]
fn reductions_by_hand() {
    let nan = f32::NAN;
    let x = f32s(&[2, 3], &[1., nan, 3., -0.0, 0.0, -5.]);
    let reduce = |kind: &str, x: &Tensor| eval("reduce", &[Attr::word(kind), Attr::ints(&[1])], &[x]);
    assert!(reduce("max", &x)[0].is_nan() && reduce("min", &x)[0].is_nan());
    assert_eq!(reduce("max", &x)[1].to_bits(), 0.0f64.to_bits());
    assert_eq!(reduce("max", &f32s(&[1, 0], &[])), [f64::NEG_INFINITY]);
    assert_eq!(reduce("prod", &f32s(&[1, 0], &[])), [1.0]);
    let bytes = Tensor::from_fn(DType::I8, &[1, 3], |_| Number::Int(100));
    assert_eq!(reduce("sum", &bytes), [44.0]);
    // 2048 + 1 is no f16, but its sum in f32 is kept until the end.
    let half = Tensor::from_fn(DType::F16, &[1, 3], |i| {
        Number::Float(if i == 0 { 2048.0 } else { 1.0 })
    });
    assert_eq!(reduce("sum", &half), [2050.0]);
    let arg = |kind: &str, last| eval("arg_reduce", &[Attr::word(kind), Attr::Int(1), Attr::Bool(last)], &[&x]);
    assert_eq!(arg("max", false), [1., 0.]);
    assert_eq!(arg("max", true), [1., 1.]);
    assert_eq!(arg("min", false), [1., 2.]);
    let scan = |exclusive, reverse| {
        let attrs = [
            Attr::word("sum"),
            Attr::Int(0),
            Attr::Bool(exclusive),
            Attr::Bool(reverse),
        ];
        eval("scan", &attrs, &[&f32s(&[3], &[1., 2., 4.])])
    };
    assert_eq!(scan(false, false), [1., 3., 7.]);
    assert_eq!(scan(true, false), [0., 1., 3.]);
    assert_eq!(scan(false, true), [7., 6., 4.]);
    assert_eq!(scan(true, true), [6., 4., 0.]);
    let top = |largest| {
        let attrs = [Attr::Int(0), Attr::dims(&[3]), Attr::Bool(largest)];
        let x = f32s(&[4], &[2., nan, 5., 2.]);
        Op::new("top_k", &attrs).unwrap().eval(&[x]).unwrap()[1].to_i64s()
    };
    assert_eq!(top(true), [1, 2, 0]);
    assert_eq!(top(false), [0, 3, 2]);
}

#[test]
fn contractions_by_hand() {
    let contract = |attrs: [&[i64]; 4], acc, out, l: &Tensor, r: &Tensor| {
        let [lb, rb, lc, rc] = attrs.map(Attr::ints);
        eval(
            "contract",
            &[lb, rb, lc, rc, Attr::DType(acc), Attr::DType(out)],
            &[l, r],
        )
    };
    let (f, i) = (DType::F32, DType::I32);
    let a = counting(&[2, 3]);
    assert_eq!(contract([&[], &[], &[1], &[1]], f, f, &a, &a), [5., 14., 14., 50.]);
    assert_eq!(contract([&[0], &[0], &[1], &[1]], f, f, &a, &a), [5., 50.]);
    assert_eq!(contract([&[1], &[1], &[], &[]], f, f, &a, &a)[8..], [4., 10., 10., 25.]);
    let u = Tensor::from_fn(DType::U8, &[2], |_| Number::Int(255));
    let s = Tensor::from_fn(DType::I8, &[2], |_| Number::Int(-128));
    assert_eq!(contract([&[], &[], &[0], &[0]], i, i, &u, &s), [-65280.]);
    assert_eq!(contract([&[], &[], &[0], &[0]], i, DType::I8, &u, &s), [0.]);
}

#[test]
fn windows_by_hand() {
    let x = counting(&[1, 1, 2, 3]);
    let window = |low: &[i64], high: &[i64]| {
        [
            Attr::ints(&[1, 1]),
            Attr::ints(&[1, 1]),
            Attr::dims(low),
            Attr::dims(high),
        ]
    };
    let float = [Attr::DType(DType::F32), Attr::DType(DType::F32)];
    let w = f32s(&[1, 1, 2, 2], &[1., 10., 100., 1000.]);
    let conv = |low: &[i64], high: &[i64]| {
        let mut attrs = window(low, high).to_vec();
        attrs.push(Attr::Int(1));
        attrs.extend(float.clone());
        eval("conv", &attrs, &[&x, &w])
    };
    assert_eq!(conv(&[0, 0], &[0, 0]), [4310., 5421.]);
    assert_eq!(conv(&[0, 1], &[0, -1]), [3000., 4310.]);
    let mut attrs = window(&[0, 0], &[0, 0]).to_vec();
    attrs.extend([Attr::ints(&[0, 0]), Attr::Int(1)]);
    attrs.extend(float);
    let spread = eval("conv_transpose", &attrs, &[&f32s(&[1, 1, 1, 2], &[1., 2.]), &w]);
    assert_eq!(spread, [1., 12., 20., 100., 1200., 2000.]);
    let mut attrs = vec![Attr::word("max"), Attr::ints(&[2, 2])];
    attrs.extend(window(&[1, 0], &[0, 1]));
    attrs.push(Attr::dims(&[3, 3]));
    assert_eq!(eval("pool", &attrs, &[&x]), [1., 2., 2., 4., 5., 5., 4., 5., 5.]);
}

#[test]
fn norms_by_hand() {
    let x = f32s(&[1, 4], &[1., 3., 5., 7.]);
    let (one, zero) = (f32s(&[4], &[1.; 4]), f32s(&[4], &[0.; 4]));
    let near = |found: Vec<f64>, want: [f64; 4]| {
        found
            .iter()
            .zip(want)
            .for_each(|(f, w)| assert!((f - w).abs() < 1e-5, "{found:?}, expected {want:?}"))
    };
    let a = 1.0 / 5f64.sqrt();
    let axis = [Attr::Int(1), Attr::num(0.0)];
    near(eval("layer_norm", &axis, &[&x, &one, &zero]), [-3. * a, -a, a, 3. * a]);
    near(
        eval("rms_norm", &axis, &[&x, &one]),
        [1., 3., 5., 7.].map(|v: f64| v / 21f64.sqrt()),
    );
    let groups = [Attr::Int(2), Attr::num(0.0)];
    near(eval("group_norm", &groups, &[&x, &one, &zero]), [-1., 1., -1., 1.]);
    let four = f32s(&[4], &[4.; 4]);
    near(
        eval("batch_norm", &[Attr::num(0.0)], &[&x, &one, &zero, &one, &four]),
        [0., 1., 2., 3.],
    );
    let lrn = [Attr::Int(2), Attr::num(2.0), Attr::num(1.0), Attr::num(0.0)];
    near(eval("lrn", &lrn, &[&x]), [1. / 10., 3. / 34., 5. / 74., 7. / 49.]);
    let e: Vec<f64> = [1f64, 3., 5., 7.].iter().map(|v| v.exp()).collect();
    let sum: f64 = e.iter().sum();
    near(
        eval("softmax", &[Attr::Int(1), Attr::word("never")], &[&x]),
        [e[0] / sum, e[1] / sum, e[2] / sum, e[3] / sum],
    );
    near(
        eval("log_softmax", &[Attr::Int(1)], &[&x]),
        [1., 3., 5., 7.].map(|v| v - sum.ln()),
    );
}
