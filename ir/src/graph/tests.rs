//! Graphs: what the verifier rejects, pruning, evaluation, and the text form.

use super::{ConstData, Constant, Def, Graph, GraphBuilder, Source, Type, Value, base64};
use crate::{Attr, Build, DType, Dim, Guard, Number, Op, Relation, Tensor};
use std::sync::Arc;

struct File {
    name: String,
    bytes: Vec<u8>,
}

impl Source for File {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn name(&self) -> &str {
        &self.name
    }
}

fn file() -> Arc<dyn Source> {
    Arc::new(File {
        name: "a \"b\".bin".into(),
        bytes: (0..64).collect(),
    })
}

fn at_hand(name: &str) -> Option<Arc<dyn Source>> {
    Some(file()).filter(|f| f.name() == name)
}

/// A graph with symbols, every kind of constant and attribute, several results, and odd names.
fn sample() -> Graph {
    let mut g = Graph::new("a model");
    let batch = Dim::sym("batch size");
    let x = g.input("x:0", Type::new(DType::F32, [batch.clone(), Dim::Const(4)]));
    let i = g.input("i", Type::new(DType::I64, [Dim::sym("n")]));
    g.guards
        .push(Guard::new(batch, Relation::Equal, &Dim::sym("n") * 2, "pairs"));
    let w = g.constant(Constant {
        ty: Type::fixed(DType::F32, &[4, 3]),
        data: ConstData::File {
            source: file(),
            offset: 8,
        },
    });
    let mut splats = vec![];
    for (dtype, x) in [
        (DType::F32, Number::Float(-0.1)),
        (DType::F32, Number::Int(7)),
        (DType::U64, Number::Int(u64::MAX as i128)),
        (DType::F64, Number::Float(f64::NEG_INFINITY)),
        (DType::F64, Number::Float(f64::NAN)),
        (DType::Bool, Number::Int(1)),
    ] {
        let ty = Type::fixed(dtype, &[2, 3]);
        splats.push(g.constant(Constant {
            ty,
            data: ConstData::Splat(x),
        }));
    }
    for dtype in DType::ALL {
        for shape in [&[][..], &[3], &[0, 2], &[3, 6]] {
            g.dense(Tensor::from_fn(dtype, shape, |i| match dtype.is_real() {
                true => Number::Float([-0.0, 0.1, f64::INFINITY, 3e-5][i % 4]),
                false => Number::Int(i as i128 - dtype.is_signed() as i128),
            }));
        }
    }
    g.dense(Tensor::new(DType::F32, vec![2], [0, 0, 192, 127, 1, 0, 160, 255]).unwrap());
    g.dense(Tensor::new(DType::Bool, vec![2], [1, 2]).unwrap());
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "layer/0 \"q\"\n".into(),
    };
    let f32s = [Attr::DType(DType::F32), Attr::DType(DType::F32)];
    let axes = [Attr::ints(&[]), Attr::ints(&[]), Attr::ints(&[1]), Attr::ints(&[0])];
    let y = b.call("contract", &[&axes[..], &f32s].concat(), &[x, w]).unwrap();
    let rows = b.type_of(y).shape[0].clone();
    let sum = b.call("reduce", &[Attr::word("sum"), Attr::ints(&[0])], &[y]).unwrap();
    let rate = b
        .call(
            "iota",
            &[Attr::DType(DType::F16), Attr::Dims(vec![&rows + 1]), Attr::Int(0)],
            &[],
        )
        .unwrap();
    let pads = [Attr::dims(&[1]), Attr::dims(&[-1]), Attr::ints(&[0])];
    let mut padded = vec![];
    for fill in [
        f64::from_bits(0x7ff8_0000_0000_0001),
        -f64::NAN,
        f64::NAN,
        1e-300,
        -0.0,
        0.1,
    ] {
        padded.push(
            b.call("pad", &[&pads[..], &[Attr::num(fill)]].concat(), &[rate])
                .unwrap(),
        );
    }
    let top = Op::new("top_k", &[Attr::Int(1), Attr::dims(&[2]), Attr::Bool(true)]).unwrap();
    let top = g.add(top, &[y], &"".into()).unwrap();
    g.outputs = vec![
        ("y".into(), y),
        ("same input".into(), x),
        ("a.constant".into(), w),
        ("top".into(), top[1]),
        ("sum".into(), sum),
        ("i".into(), i),
        ("splat".into(), splats[0]),
        ("padded".into(), padded[0]),
    ];
    g.verify().unwrap();
    g
}

#[test]
fn text_round_trips() {
    let mut g = sample();
    for _ in 0..2 {
        let text = g.to_string();
        let back = Graph::parse(&text, &at_hand).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(back, g);
        assert_eq!(back.to_string(), text);
        for (a, b) in back.constants.iter().zip(&g.constants) {
            assert_eq!(std::mem::discriminant(&a.data), std::mem::discriminant(&b.data));
            assert_eq!(a.to_tensor().bytes(), b.to_tensor().bytes());
        }
        g.prune();
        g.verify().unwrap();
    }
}

#[test]
fn every_operators_samples_round_trip() {
    for def in crate::ops::all() {
        for sample in def.samples() {
            let mut g = Graph::new("sample");
            let inputs: Vec<Value> = sample
                .inputs
                .iter()
                .map(|(dtype, shape)| g.input("x", Type::fixed(*dtype, shape)))
                .collect();
            let op = Op::new(def.name(), &sample.attrs).unwrap();
            let outs = g.add(op, &inputs, &"n".into()).unwrap();
            g.outputs = outs.into_iter().map(|v| ("y".into(), v)).collect();
            let back = Graph::parse(&g.to_string(), &at_hand).unwrap_or_else(|e| panic!("{e}\n{g}"));
            assert_eq!(back, g);
        }
    }
}

#[test]
fn text_by_hand() {
    let text = r#"
        graph @tiny(%0 x: f32[n, 2]) {  // symbols, types and origins may be left out
          %2 = const f32[2] [0.5, -1]
          %1 = reshape{shape=[1, 2]}(%2)
          %3 = broadcast{shape=[n, 2]}(%1) : f32[n, 2] @"bias"
          %4 = transpose{perm=[1, 0]}(%3)
          return y = %3, yt = %4
        }"#;
    let g = Graph::parse(text, &at_hand).unwrap();
    assert_eq!(g.symbols.len(), 1);
    assert_eq!(&*g.nodes[1].origin, "bias");
    let y = g.eval(&[Tensor::from_f32(&[2, 2], &[0.; 4])]).unwrap();
    assert_eq!(y[0].to_f32s(), [0.5, -1., 0.5, -1.]);
    assert_eq!(y[1].to_f32s(), [0.5, 0.5, -1., -1.]);
    assert_eq!(
        g.bind(&[Tensor::from_f32(&[3, 2], &[0.; 6])]).unwrap(),
        [("n".into(), 3)]
    );
    assert!(g.bind(&[Tensor::from_f32(&[3, 1], &[0.; 3])]).is_err());
    assert!(g.bind(&[]).is_err());
}

#[test]
fn bad_text_is_an_error_with_its_place() {
    let body = |lines: &str| format!("graph @g(%0 x: f32[3]) {{\n{lines}\nreturn y = %0\n}}");
    let cases = [
        ("".to_string(), "1:1", "expected `graph`"),
        ("graph x".into(), "1:7", "expected a name that starts with `@`"),
        ("graph @g(%0 x f32[3])".into(), "1:15", "expected `:`"),
        (
            "graph @g(%0 x: f32[3], %0 y: f32[1]) {".into(),
            "1:24",
            "%0 has a definition before",
        ),
        (
            "graph @g(%1 x: f32[3]) {\nreturn y = %1 }".into(),
            "1:1",
            "without gaps",
        ),
        (
            "graph @g(%0 x: f32[n]) symbols(m) { return }".into(),
            "1:1",
            "the symbol `n`",
        ),
        ("graph @g() { return y = %0 }".into(), "1:25", "no definition"),
        ("graph @g() { return } graph".into(), "1:23", "the end of the text"),
        ("graph @g() {".into(), "1:13", "expected an id"),
        (body("%1 = relax(%0)"), "2:6", "there is no operator `relax`"),
        (body("%1 = transpose(%0)"), "2:15", "expected `{`"),
        (body("%1 = transpose{axes=[0]}(%0)"), "2:16", "expected `perm`"),
        (body("%1 = transpose{perm=[0, 1]}(%0)"), "2:6", "perm has 2 entries"),
        (
            body("%1 = transpose{perm=[0]}(%2)"),
            "2:26",
            "%2 has no definition before",
        ),
        (body("%1 = transpose{perm=[0]}(%0) : f32[4]"), "2:32", "infers f32[3]"),
        (
            body("%1, %2 = transpose{perm=[0]}(%0)"),
            "2:1",
            "1 results, found 2 ids",
        ),
        (
            body("%0 = transpose{perm=[0]}(%0)"),
            "2:1",
            "%0 has a definition before",
        ),
        (body("%1 = store(%0) : f32[3] @\"x"), "2:26", "expected a string"),
        (body("%1 = const f32[n] splat 1.0"), "2:12", "expected known extents"),
        (body("%1 = const f32[2] [1.0]"), "2:12", "1 elements"),
        (body("%1 = const i8[1] [200]"), "2:19", "200 does not fit in i8"),
        (body("%1 = const bool[1] [1]"), "2:21", "expected `true` or `false`"),
        (body("%1 = const f32[2] dense \"AAAA\""), "2:12", "3 bytes"),
        (body("%1 = const f32[2] dense \"A?==\""), "2:25", "base64"),
        (body("%1 = const f32[2] file(\"other\", 0)"), "2:24", "no file"),
        (
            body("%1 = const f32[2] file(\"a \\\"b\\\".bin\", 57)"),
            "2:12",
            "which has 64",
        ),
        (
            body("%1 = const f32[2] file(\"a \\\"b\\\".bin\", 18446744073709551615)"),
            "2:12",
            "which has 64",
        ),
        (body("%1 = const f32[2] lazy"), "2:19", "expected `file`"),
        (
            body("%1 = const f32[1099511627776, 1099511627776] splat 0.0"),
            "2:12",
            "memory",
        ),
    ];
    for (text, place, message) in cases {
        let e = Graph::parse(&text, &at_hand).map(|g| g.to_string()).unwrap_err();
        assert_eq!(format!("{}:{}", e.line, e.column), place, "{e}\n{text}");
        assert!(e.message.contains(message), "{e}, expected {message}\n{text}");
    }
}

#[test]
fn cut_text_is_an_error_not_a_panic() {
    let text = sample().to_string();
    let end = text.trim_end().len();
    let cuts = text.char_indices().map(|(i, _)| i).filter(|&i| i < end);
    for i in cuts.step_by(7) {
        assert!(Graph::parse(&text[..i], &at_hand).is_err(), "{}", &text[..i]);
    }
}

#[test]
fn defaults_survive_text_and_pruning() {
    let mut g = Graph::new("g");
    let x = g.input("x", Type::fixed(DType::F32, &[2]));
    for (name, data) in [
        ("a b", ConstData::Dense(Tensor::from_f32(&[2], &[0.5, -1.0]))),
        (
            "k",
            ConstData::File {
                source: file(),
                offset: 4,
            },
        ),
    ] {
        let ty = g.ty(x).clone();
        g.input(name, ty.clone());
        g.defaults.push((name.into(), Constant { ty, data }));
    }
    g.outputs = vec![("y".into(), x)];
    g.verify().unwrap();
    let read = Graph::parse(&g.to_string(), &at_hand).unwrap();
    assert_eq!(read, g, "{g}");
    let mut pruned = g.clone();
    pruned.prune();
    assert_eq!(pruned.defaults.len(), 2);
    let says = |f: &dyn Fn(&mut Graph), want: &str| {
        let mut g = g.clone();
        f(&mut g);
        let message = g.verify().unwrap_err().to_string();
        assert!(message.contains(want), "{message}, expected {want}");
    };
    says(&|g| g.defaults[0].0 = "b".into(), "`b`: there is no such input");
    says(&|g| g.defaults[0].0 = "k".into(), "`k`: a second one");
    says(
        &|g| g.defaults[1].1.ty = Type::fixed(DType::F32, &[3]),
        "it is f32[3], expected f32[2]",
    );
    let beyond = ConstData::File {
        source: file(),
        offset: 60,
    };
    says(&|g| g.defaults[1].1.data = beyond.clone(), "at offset 60");
}

#[test]
fn base64_of_every_length() {
    assert_eq!(base64::encode(b"fooba"), "Zm9vYmE=");
    for n in 0..70u8 {
        let bytes: Vec<u8> = (0..n).map(|i| i.wrapping_mul(37) ^ n).collect();
        assert_eq!(base64::decode(&base64::encode(&bytes)), Some(bytes));
    }
    for bad in ["A", "AA", "AAA", "AB==", "AAB=", "====", "AA=A", "AAAA=", "Ä==="] {
        assert_eq!(base64::decode(bad), None, "{bad}");
    }
}

/// The verifier's message for a graph that `f` has broken.
fn broken(f: impl FnOnce(&mut Graph)) -> String {
    let mut g = sample();
    f(&mut g);
    g.verify().unwrap_err().to_string()
}

#[test]
fn the_verifier_rejects_broken_graphs() {
    let says = |message: String, want: &str| assert!(message.contains(want), "{message}, expected {want}");
    let node = "node `layer/0 \"q\"\n`: ";
    says(broken(|g| g.nodes.swap(0, 1)), "before its definition");
    says(broken(|g| g.nodes[0].inputs[0] = Value(9999)), "before its definition");
    says(
        broken(|g| g.nodes[0].inputs.truncate(1)),
        &format!("{node}contract: 1 operands, expected 2"),
    );
    says(broken(|g| g.nodes[0].outputs.clear()), "0 results, expected 1");
    says(
        broken(|g| g.nodes[1].outputs = g.nodes[0].outputs.clone()),
        "two definitions",
    );
    says(broken(|g| g.nodes[0].outputs[0] = Value(9999)), "does not exist");
    says(
        broken(|g| {
            let y = g.nodes[0].outputs[0].0 as usize;
            g.values[y].ty.shape[1] = Dim::Const(5);
        }),
        "infers",
    );
    says(broken(|g| drop(g.nodes.pop())), "no result of the node");
    says(
        broken(|g| g.outputs[0].1 = Value(9999)),
        "output `y` is %9999, which is not defined",
    );
    says(
        broken(|g| g.inputs[0].value = g.inputs[1].value),
        "not defined by its value",
    );
    says(broken(|g| drop(g.inputs.pop())), "which does not exist");
    says(broken(|g| g.symbols.clear()), "which the graph lacks");
    says(broken(|g| drop(g.constants.pop())), "which does not exist");
    says(broken(|g| g.constants.push(g.constants[0].clone())), "has no value");
    says(
        broken(|g| {
            let (a, b) = (g.outputs[2].1.0 as usize, g.outputs[6].1.0 as usize);
            g.values[b] = g.values[a].clone();
        }),
        "which does not exist",
    );
    says(
        broken(|g| {
            g.constants[0].data = ConstData::File {
                source: file(),
                offset: 17,
            }
        }),
        "48 bytes at offset 17",
    );
    says(
        broken(|g| g.constants[0].data = ConstData::Dense(Tensor::from_f32(&[1], &[0.0]))),
        "with elements of f32[1]",
    );
}

#[test]
fn pruning_keeps_what_outputs_need() {
    let mut g = sample();
    let inputs = [
        Tensor::from_f32(&[2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.]),
        Tensor::from_i64(&[1], &[3]),
    ];
    let want = g.eval(&inputs).unwrap();
    g.prune();
    g.verify().unwrap();
    assert_eq!(g.eval(&inputs).unwrap(), want);
    assert_eq!(g.constants.len(), 2, "the weights and the splat that is an output");
    let names: Vec<&str> = g.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["contract", "reduce", "iota", "pad", "top_k"]);
    assert_eq!(g.inputs.len(), 2);
    assert_eq!(g.guards.len(), 1);
    let mut defs = g.values.iter().map(|v| v.def);
    assert_eq!(defs.next(), Some(Def::Input(0)));
    // A second time changes nothing.
    let once = g.clone();
    g.prune();
    assert_eq!(g, once);
}

#[test]
fn errors_name_the_model_node() {
    let mut g = Graph::new("g");
    let x = g.input("x", Type::fixed(DType::F32, &[2]));
    let op = Op::new("transpose", &[Attr::ints(&[1])]).unwrap();
    let e = g.add(op, &[x], &"Transpose_7".into()).unwrap_err();
    assert_eq!(e.to_string(), "node `Transpose_7`: transpose: perm: axis 1 for rank 1");
    assert!(Op::new("transpose", &[]).unwrap_err().contains("expected"));
    assert!(Op::new("transposed", &[]).is_err());
    assert!(Op::new("transpose", &[Attr::Int(0)]).is_err());
}

#[test]
fn guards_are_checked_when_inputs_are_bound() {
    let g = sample();
    let inputs = |batch: usize, n: usize| {
        [
            Tensor::from_f32(&[batch, 4], &vec![0.; batch * 4]),
            Tensor::from_i64(&[n], &vec![0; n]),
        ]
    };
    assert!(g.eval(&inputs(4, 2)).is_ok());
    let e = g.eval(&inputs(4, 3)).unwrap_err().to_string();
    assert!(e.contains("2*n"), "{e}");
}

/// Doubles `x` until it is beyond `limit`, then takes one of two ways.
const REGIONS: &str = r#"graph @regions(%0 x: f32[n], %1 limit: f32[]) symbols(n) {
  %2 = const i64[] splat 0
  %3, %4 = while{cond=graph @below(%0 i: i64[], %1 x: f32[n], %2 limit: f32[]) symbols(n) {
      %3 = reduce{kind=max axes=[0]}(%1) : f32[1]
      %4 = reshape{shape=[]}(%3) : f32[]
      %5 = less(%4, %2) : bool[]
      return go = %5
    } body=graph @twice(%0 i: i64[], %1 x: f32[n], %2 limit: f32[]) symbols(n) {
      %3 = const i64[] splat 1
      %4 = add(%0, %3) : i64[]
      %5 = add(%1, %1) : f32[n]
      return i = %4, x = %5
    }}(%2, %0, %1) : i64[], f32[n] @"Loop_0"
  %5 = const i64[] splat 3
  %6 = less(%5, %3) : bool[] @"Less_1"
  %7 = if{then=graph @many(%0 x: f32[n]) symbols(n) {
      %1 = neg(%0) : f32[n]
      return y = %1
    } else=graph @few(%0 x: f32[n]) symbols(n) {
      return y = %0
    }}(%6, %4) : f32[n] @"If_2"
  return steps = %3, y = %7
}
"#;

#[test]
fn regions_run_print_and_get_sizes() {
    let g = Graph::parse(REGIONS, &at_hand).unwrap();
    let again = Graph::parse(&g.to_string(), &at_hand).unwrap();
    assert_eq!(g, again);
    assert_eq!(g.to_string(), again.to_string());
    let fixed = g.substitute(&|s| (s == "n").then_some(Dim::Const(2))).unwrap();
    assert!(fixed.symbols.is_empty() && fixed.nodes.iter().all(|n| n.op.is_concrete()));
    assert!(!g.nodes[0].op.is_concrete());
    for (limit, steps, y) in [(3.0, 1, [1.0, 4.0]), (100.0, 6, [-32.0, -128.0]), (1.0, 0, [0.5, 2.0])] {
        let inputs = [
            Tensor::from_f32(&[2], &[0.5, 2.0]),
            Tensor::scalar(DType::F32, Number::Float(limit)),
        ];
        let want = vec![
            Tensor::scalar(DType::I64, Number::Int(steps)),
            Tensor::from_f32(&[2], &y),
        ];
        assert_eq!(g.eval(&inputs).unwrap(), want);
        assert_eq!(fixed.eval(&inputs).unwrap(), want);
    }
}

#[test]
fn regions_that_do_not_run_may_contradict_sizes() {
    let text = r#"graph @rows(%0 x: f32[n, 2], %1 most: i64[], %2 any: bool[]) symbols(n) {
  %3 = const i64[] splat 0
  %4 = const f32[2] splat 0
  %5, %6 = while{cond=graph @cond(%0 i: i64[], %1 s: f32[2], %2 x: f32[n, 2], %3 most: i64[]) symbols(n) {
      %4 = less(%0, %3) : bool[]
      return go = %4
    } body=graph @body(%0 i: i64[], %1 s: f32[2], %2 x: f32[n, 2], %3 most: i64[]) symbols(n) {
      %4 = const i64[] splat 1
      %5 = add(%0, %4) : i64[]
      %6 = gather{axis=0}(%2, %0) : f32[2]
      %7 = add(%1, %6) : f32[2]
      return i = %5, s = %7
    }}(%3, %4, %0, %1) : i64[], f32[2] @"Loop_0"
  %7 = if{then=graph @then(%0 s: f32[2], %1 x: f32[n, 2]) symbols(n) {
      %2 = const i64[] splat 0
      %3 = gather{axis=0}(%1, %2) : f32[2]
      return y = %3
    } else=graph @else(%0 s: f32[2], %1 x: f32[n, 2]) symbols(n) {
      return y = %0
    }}(%2, %6, %0) : f32[2] @"If_1"
  return y = %7
}
"#;
    let g = Graph::parse(text, &at_hand).unwrap();
    let run = |rows: &[f32], most: i128, any: bool| {
        g.eval(&[
            Tensor::from_f32(&[rows.len() / 2, 2], rows),
            Tensor::scalar(DType::I64, Number::Int(most)),
            Tensor::scalar(DType::Bool, Number::Int(any.into())),
        ])
    };
    let rows = [1.0, 2.0, 4.0, 8.0];
    assert_eq!(run(&rows, 2, false).unwrap(), [Tensor::from_f32(&[2], &[5.0, 10.0])]);
    assert_eq!(run(&rows, 0, true).unwrap(), [Tensor::from_f32(&[2], &[1.0, 2.0])]);
    assert_eq!(run(&[], 0, false).unwrap(), [Tensor::from_f32(&[2], &[0.0, 0.0])]);
    for (most, any, place) in [(1, false, "Loop_0"), (0, true, "If_1")] {
        let e = run(&[], most, any).unwrap_err();
        assert_eq!(e.node, place, "{e}");
    }
}

#[test]
fn regions_nest_to_a_limit() {
    let open = "%1 = if{then=graph @t(%0 c: bool[]) { ";
    let close = " return y = %1 } else=graph @e(%0 c: bool[]) { return y = %0 }}(%0, %0)";
    let deep = |n: usize| {
        let body = (0..n).fold("%1 = not(%0)".to_owned(), |body, _| format!("{open}{body}{close}"));
        let text = format!("graph @g(%0 c: bool[]) {{ {body} return y = %1 }}");
        Graph::parse(&text, &at_hand)
    };
    assert!(deep(3).is_ok());
    let e = deep(2000).unwrap_err().to_string();
    assert!(e.contains("nested deeper than 64"), "{e}");
}

#[test]
fn regions_that_do_not_fit_are_refused() {
    for (found, changed, expected) in [
        (
            "%2 limit: f32[]) symbols(n) {\n      %3 = const",
            "%2 limit: f64[]) symbols(n) {\n      %3 = const",
            "region `body` takes",
        ),
        (
            "return go = %5",
            "return go = %4",
            "a condition of f32[], expected bool[]",
        ),
        (
            "return i = %4, x = %5",
            "return i = %0, x = %5, z = %5",
            "region `body` gives",
        ),
        (
            "return i = %4, x = %5",
            "return i = %9, x = %5",
            "%9 has no definition before",
        ),
        (
            "      %1 = neg(%0) : f32[n]\n",
            "      %1 = reshape{shape=[1, n]}(%0)\n",
            "expected equal types",
        ),
        (
            "f32[n]) symbols(n) {\n      return y = %0",
            "f32[n]) symbols(n, m) {\n      return y = %0",
            "has the symbol `m`, which the graph lacks",
        ),
    ] {
        assert!(REGIONS.contains(found), "{found}");
        let e = Graph::parse(&REGIONS.replacen(found, changed, 1), &at_hand).unwrap_err();
        assert!(e.to_string().contains(expected), "{e}");
    }
}
