//! Floats of 8 bits and fewer and integers of 4 and 2, as ONNX has them: packed in files, cast, quantised and dequantised.

mod common;

use brolga_frontend::onnx::{self, Options};
use brolga_ir::{ConstData, DType, Graph, Number, Tensor};
use common::{load, model, value};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, Message, NodeProto, TensorProto};

/// ONNX's numbers of the types, and how many bits an element has in a file.
const TYPES: [(i32, DType, usize); 12] = [
    (17, DType::F8E4M3FN, 8),
    (18, DType::F8E4M3FNUZ, 8),
    (19, DType::F8E5M2, 8),
    (20, DType::F8E5M2FNUZ, 8),
    (21, DType::U4, 4),
    (22, DType::I4, 4),
    (23, DType::F4E2M1, 4),
    (24, DType::F8E8M0, 8),
    (25, DType::U2, 2),
    (26, DType::I2, 2),
    (27, DType::F6E2M3, 6),
    (28, DType::F6E3M2, 6),
];

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        type_: AttributeType::INT.into(),
        ..Default::default()
    }
}

fn word(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: s.into(),
        type_: AttributeType::STRING.into(),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec!["y".into()],
        attribute,
        ..Default::default()
    }
}

/// What one node gives for operands.
fn run(op: &str, attributes: Vec<AttributeProto>, operands: &[Tensor]) -> Result<Tensor, String> {
    let names = ["a", "b", "c"];
    let code = |d: DType| match TYPES.iter().find(|(_, t, _)| *t == d) {
        Some((code, ..)) => *code,
        None => match d {
            DType::F32 => 1,
            DType::F16 => 10,
            DType::I32 => 6,
            DType::U8 => 2,
            d => panic!("{d}"),
        },
    };
    let inputs = names
        .iter()
        .zip(operands)
        .map(|(n, t)| value(n, code(t.dtype()), t.shape()));
    let node = node(op, &names[..operands.len()], attributes);
    let mut m = model(inputs.collect(), vec![node], &["y"]);
    m.opset_import[0].version = 25;
    let g = load(&m, &Options::default()).map_err(|e| e.to_string())?;
    Ok(g.eval(operands).map_err(|e| e.to_string())?.remove(0))
}

fn floats(x: &[f64]) -> Tensor {
    Tensor::from_fn(DType::F32, &[x.len()], |i| Number::Float(x[i]))
}

/// Bytes with elements of so many bits, the first in the lowest.
fn pack(t: &Tensor, bits: usize) -> Vec<u8> {
    let mut out = vec![0u8; (t.len() * bits).div_ceil(8)];
    for (i, byte) in t.bytes().iter().enumerate() {
        for b in (0..bits).filter(|b| byte >> b & 1 == 1) {
            out[(i * bits + b) / 8] |= 1 << ((i * bits + b) % 8);
        }
    }
    out
}

/// Elements of every value that a type has, in some order.
fn elements(d: DType, bits: usize, shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    let code = |i: usize| (i * 37 + 11 + i / 64) % (1 << bits);
    let signed = [DType::I4, DType::I2].contains(&d);
    let byte = |c: usize| match signed && c >> (bits - 1) == 1 {
        true => (c as u8) | (0xff << bits),
        false => c as u8,
    };
    let bytes: Vec<u8> = (0..n).map(|i| byte(code(i))).collect();
    Tensor::new(d, shape.to_vec(), bytes).unwrap()
}

/// A model whose initializer is its result, converted to f32.
fn with_initializer(t: TensorProto) -> Graph {
    let mut m = model(vec![], vec![node("Cast", &["w"], vec![int("to", 1)])], &["y"]);
    m.graph
        .as_mut()
        .unwrap()
        .initializer
        .push(TensorProto { name: "w".into(), ..t });
    load(&m, &Options::default()).unwrap()
}

/// Bytes of the constants that a graph reads.
fn constant_bytes(g: &Graph) -> usize {
    let large = g.constants.iter().filter(|c| !matches!(c.data, ConstData::Splat(_)));
    large.map(|c| c.to_tensor().bytes().len()).sum()
}

#[test]
fn tensors_are_packed_in_files() {
    // Of more elements than a byte holds, fewer than one, with and without a rest; small ones, and those that stay packed.
    let shapes: [&[usize]; 7] = [&[], &[1], &[3, 5], &[7, 9], &[40, 64], &[33, 35], &[2, 3, 500]];
    for (code, d, bits) in TYPES {
        for shape in shapes {
            let t = elements(d, bits, shape);
            let packed = pack(&t, bits);
            let wide = t.cast(DType::F32);
            let of = |t: TensorProto| TensorProto {
                data_type: code,
                dims: shape.iter().map(|&n| n as i64).collect(),
                ..t
            };
            let raw = of(TensorProto {
                raw_data: packed.clone(),
                ..Default::default()
            });
            let listed = of(TensorProto {
                int32_data: packed.iter().map(|&b| b.into()).collect(),
                ..Default::default()
            });
            for proto in [raw, listed] {
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), proto.write_to_bytes().unwrap()).unwrap();
                let (_, read) = onnx::tensor_file(file.path(), &Options::default()).unwrap();
                assert_eq!(read, t, "{d}{shape:?}");
                let g = with_initializer(proto);
                let y = g.eval(&[]).unwrap().remove(0);
                assert_eq!(y.shape(), shape);
                let same = |(a, b): (Number, Number)| a == b || a.f64().is_nan() && b.f64().is_nan();
                assert!(
                    y.iter().zip(wide.iter()).all(same),
                    "{d}{shape:?}: {y:?}, expected {wide:?}"
                );
                if t.len() > 1024 && bits != 6 {
                    // And where in a byte each element is.
                    let most = packed.len() + 8;
                    assert!(constant_bytes(&g) <= most, "{d}{shape:?}: {} bytes", constant_bytes(&g));
                }
            }
        }
        let short = TensorProto {
            data_type: code,
            dims: vec![5],
            raw_data: vec![0; (5 * bits).div_ceil(8) - 1],
            ..Default::default()
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), short.write_to_bytes().unwrap()).unwrap();
        let e = onnx::tensor_file(file.path(), &Options::default())
            .unwrap_err()
            .to_string();
        assert!(e.contains("bytes of data"), "{e}");
    }
}

#[test]
fn casts_saturate_when_they_are_told_to() {
    let x = floats(&[
        1e6,
        -1e6,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        448.0,
        464.0,
        464.1,
    ]);
    let cast = |code: i64, saturate: i64| {
        let y = run(
            "Cast",
            vec![int("to", code), int("saturate", saturate)],
            std::slice::from_ref(&x),
        )
        .unwrap();
        y.to_f64s()
    };
    // As text, in which all NaN are one.
    let is = |found: Vec<f64>, want: &str| assert_eq!(format!("{found:?}").replace("-NaN", "NaN"), want);
    is(cast(17, 1), "[448.0, -448.0, 448.0, -448.0, NaN, 448.0, 448.0, 448.0]");
    is(cast(17, 0), "[NaN, NaN, NaN, NaN, NaN, 448.0, 448.0, NaN]");
    is(cast(18, 1), "[240.0, -240.0, 240.0, -240.0, NaN, 240.0, 240.0, 240.0]");
    is(cast(18, 0), "[NaN, NaN, NaN, NaN, NaN, NaN, NaN, NaN]");
    is(
        cast(19, 1),
        "[57344.0, -57344.0, 57344.0, -57344.0, NaN, 448.0, 448.0, 448.0]",
    );
    is(cast(19, 0), "[inf, -inf, inf, -inf, NaN, 448.0, 448.0, 448.0]");
    is(cast(20, 0), "[NaN, NaN, NaN, NaN, NaN, 448.0, 448.0, 448.0]");
    is(cast(23, 0)[..4].to_vec(), "[6.0, -6.0, 6.0, -6.0]");
}

#[test]
fn casts_to_scales_round_as_they_are_told_to() {
    let least = 2f64.powi(-127);
    let x = floats(&[
        1.0,
        1.1,
        1.5,
        1.9,
        3.0,
        0.0,
        f64::INFINITY,
        least,
        1.2 * least,
        1.7e38,
        3e38,
        f64::NAN,
    ]);
    let cast = |mode: &str, saturate: i64| {
        let attributes = vec![int("to", 24), word("round_mode", mode), int("saturate", saturate)];
        run("Cast", attributes, std::slice::from_ref(&x)).map(|y| y.bytes().to_vec())
    };
    // Codes: 127 is 1, 0 the least, 254 the largest (1.7e38), 255 NaN.
    assert_eq!(
        cast("up", 1).unwrap(),
        [127, 128, 128, 128, 129, 0, 254, 0, 1, 254, 254, 255]
    );
    assert_eq!(
        cast("down", 1).unwrap(),
        [127, 127, 127, 127, 128, 0, 254, 0, 0, 253, 254, 255]
    );
    assert_eq!(
        cast("nearest", 1).unwrap(),
        [127, 127, 128, 128, 129, 0, 254, 0, 0, 254, 254, 255]
    );
    assert_eq!(
        cast("nearest", 0).unwrap(),
        [127, 127, 128, 128, 129, 255, 255, 0, 0, 254, 255, 255]
    );
    assert_eq!(
        cast("up", 0).unwrap(),
        [127, 128, 128, 128, 129, 255, 255, 0, 1, 254, 255, 255]
    );
    assert!(cast("sideways", 1).unwrap_err().contains("round_mode `sideways`"));
}

#[test]
fn casts_to_small_integers_keep_the_low_bits() {
    let x = floats(&[-9.0, -8.0, -1.5, 7.9, 8.0, 15.0, 17.0]);
    let cast = |code: i64, x: &Tensor| {
        run("Cast", vec![int("to", code)], std::slice::from_ref(x))
            .unwrap()
            .to_f64s()
    };
    assert_eq!(cast(22, &x), [7.0, -8.0, -1.0, 7.0, -8.0, -1.0, 1.0]);
    assert_eq!(cast(21, &x), [7.0, 8.0, 15.0, 7.0, 8.0, 15.0, 1.0]);
    assert_eq!(cast(26, &x), [-1.0, 0.0, -1.0, -1.0, 0.0, -1.0, 1.0]);
    assert_eq!(cast(25, &x), [3.0, 0.0, 3.0, 3.0, 0.0, 3.0, 1.0]);
    let whole = Tensor::from_fn(DType::I32, &[3], |i| Number::Int([-9, 200, 7][i]));
    assert_eq!(cast(22, &whole), [7.0, -8.0, 7.0]);
    // A float of 8 bits is a float.
    let small = floats(&[-9.0, 8.0]).cast(DType::F8E5M2);
    assert_eq!(cast(22, &small), cast(22, &floats(&[-8.0, 8.0])));
}

#[test]
fn bits_are_kept() {
    let i4 = Tensor::from_fn(DType::I4, &[3], |i| Number::Int([-8, -1, 7][i]));
    let bits = |code: i64, x: &Tensor| run("BitCast", vec![int("to", code)], std::slice::from_ref(x));
    let u4 = bits(21, &i4).unwrap();
    assert_eq!(u4.to_f64s(), [8.0, 15.0, 7.0]);
    assert_eq!(bits(22, &u4).unwrap(), i4);
    assert_eq!(bits(23, &i4).unwrap().to_f64s(), [-0.0, -6.0, 6.0]);
    assert_eq!(bits(22, &bits(23, &i4).unwrap()).unwrap(), i4);
    let f8 = floats(&[1.0]).cast(DType::F8E4M3FN);
    assert_eq!(bits(2, &f8).unwrap().bytes(), [0x38]);
    assert!(bits(25, &i4).unwrap_err().contains("the bits of i4 as u2"));
}

#[test]
fn quantised_per_tensor_axis_and_block() {
    let x = Tensor::from_fn(DType::F32, &[2, 5], |i| {
        Number::Float([-30.0, -4.0, -2.5, 0.0, 0.6, 1.0, 2.5, 9.0, 70.0, 1e9][i])
    });
    let scalar = |t: DType, x: f64| Tensor::scalar(t, Number::Float(x)).cast(t);
    let q = |attributes: Vec<AttributeProto>, scale: Tensor, zero: Tensor| {
        let y = run("QuantizeLinear", attributes, &[x.clone(), scale, zero.clone()]).unwrap();
        assert_eq!((y.dtype(), y.shape()), (zero.dtype(), x.shape()));
        y.to_f64s()
    };
    let half = scalar(DType::F32, 0.5);
    let whole = |t: DType, x: i128| Tensor::scalar(t, Number::Int(x));
    assert_eq!(
        q(vec![], half.clone(), whole(DType::I4, 1)),
        [-8.0, -7.0, -4.0, 1.0, 2.0, 3.0, 6.0, 7.0, 7.0, 7.0]
    );
    assert_eq!(
        q(vec![], half.clone(), whole(DType::U4, 5)),
        [0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 10.0, 15.0, 15.0, 15.0]
    );
    assert_eq!(
        q(vec![], half.clone(), whole(DType::I2, 0)),
        [-2.0, -2.0, -2.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    );
    assert_eq!(
        q(vec![], half.clone(), whole(DType::U2, 1)),
        [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    );
    let f8 = scalar(DType::F8E4M3FN, 0.0);
    assert_eq!(
        q(vec![], half.clone(), f8.clone()),
        [-60.0, -8.0, -5.0, 0.0, 1.25, 2.0, 5.0, 18.0, 144.0, 448.0]
    );
    let last = |y: Vec<f64>| y[9];
    assert!(last(q(vec![int("saturate", 0)], half.clone(), f8)).is_nan());
    let f4 = scalar(DType::F4E2M1, 0.0);
    assert_eq!(
        q(vec![], half, f4),
        [-6.0, -6.0, -4.0, 0.0, 1.0, 2.0, 4.0, 6.0, 6.0, 6.0]
    );
    // One for each row, and one for each three columns, the last ones fewer.
    let rows = Tensor::from_fn(DType::F32, &[2], |i| Number::Float([1.0, 10.0][i]));
    let zeros = Tensor::from_fn(DType::I4, &[2], |i| Number::Int([0, -2][i]));
    assert_eq!(
        q(vec![int("axis", 0)], rows, zeros),
        [-8.0, -4.0, -2.0, 0.0, 1.0, -2.0, -2.0, -1.0, 5.0, 7.0]
    );
    let blocks = Tensor::from_fn(DType::F32, &[2, 2], |i| Number::Float([10.0, 0.1, 1.0, 100.0][i]));
    let zeros = Tensor::from_fn(DType::U4, &[2, 2], |i| Number::Int([8, 0, 1, 2][i]));
    let attributes = || vec![int("axis", 1), int("block_size", 3)];
    let found = q(attributes(), blocks.clone(), zeros.clone());
    assert_eq!(found, [5.0, 8.0, 8.0, 0.0, 6.0, 2.0, 3.0, 10.0, 3.0, 15.0]);
    // And back.
    let codes = Tensor::from_fn(DType::U4, &[2, 5], |i| Number::Int(found[i] as i128));
    let back = run("DequantizeLinear", attributes(), &[codes, blocks, zeros])
        .unwrap()
        .to_f64s();
    let want = [-30.0, 0.0, 0.0, 0.0, 0.6, 1.0, 2.0, 9.0, 100.0, 1300.0];
    assert!(back.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{back:?}");
}

#[test]
fn dequantised_by_scales_of_8_bits() {
    let x = floats(&[0.5, -6.0, 3.0, 1.5]).cast(DType::F4E2M1);
    let scale = floats(&[4.0, 0.25]).cast(DType::F8E8M0);
    let attributes = |more: Vec<AttributeProto>| [vec![int("axis", 0), int("block_size", 2)], more].concat();
    let y = run(
        "DequantizeLinear",
        attributes(vec![int("output_dtype", 1)]),
        &[x.clone(), scale.clone()],
    )
    .unwrap();
    assert_eq!((y.dtype(), y.to_f64s()), (DType::F32, vec![2.0, -24.0, 0.75, 0.375]));
    let e = run("DequantizeLinear", attributes(vec![]), &[x, scale.clone()]).unwrap_err();
    assert!(e.contains("output_dtype"), "{e}");
    // The way there, in f32.
    let attributes = attributes(vec![int("output_dtype", 23)]);
    let y = run("QuantizeLinear", attributes, &[floats(&[2.0, -24.0, 0.75, 0.4]), scale]).unwrap();
    assert_eq!((y.dtype(), y.to_f64s()), (DType::F4E2M1, vec![0.5, -6.0, 3.0, 1.5]));
}

/// Integers of a type with a number of elements that stays packed, as an initializer.
fn initializer(name: &str, code: i32, t: &Tensor, bits: usize) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: code,
        dims: t.shape().iter().map(|&n| n as i64).collect(),
        raw_data: if bits == 0 { t.bytes().to_vec() } else { pack(t, bits) },
        ..Default::default()
    }
}

#[test]
fn products_read_weights_as_they_are_packed() {
    const DEPTH: usize = 64;
    const COLUMNS: usize = 48;
    // How scales lie: for blocks of the axis that is summed, for each column, one for all; and for what products do not take.
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Scales {
        Blocks(usize),
        Columns,
        One,
        Depth,
    }
    let by_types = TYPES
        .iter()
        .filter(|(_, d, _)| [DType::U4, DType::I4, DType::U2, DType::I2].contains(d));
    for &(code, d, bits) in by_types {
        for scales in [
            Scales::Blocks(16),
            Scales::Blocks(32),
            Scales::Columns,
            Scales::One,
            Scales::Depth,
        ] {
            for (op, by_column) in [("MatMul", false), ("MatMul", true), ("Gemm", true), ("Gemm", false)] {
                for zeros in [false, true] {
                    let shape = if by_column { [COLUMNS, DEPTH] } else { [DEPTH, COLUMNS] };
                    let depth_axis = usize::from(by_column);
                    let w = elements(d, bits, &shape);
                    let mut own = shape.to_vec();
                    let mut attributes = vec![int("axis", depth_axis as i64)];
                    match scales {
                        Scales::Blocks(n) => {
                            own[depth_axis] /= n;
                            attributes.push(int("block_size", n as i64));
                        }
                        Scales::Columns => {
                            own = vec![COLUMNS];
                            attributes = vec![int("axis", 1 - depth_axis as i64)];
                        }
                        Scales::One => own = vec![],
                        Scales::Depth => own = vec![DEPTH],
                    }
                    let s = Tensor::from_fn(DType::F32, &own, |i| Number::Float(0.25 + (i % 7) as f64 / 8.0));
                    let z = elements(d, bits, &own);
                    // The weight of a column at a depth.
                    let weight = |k: usize, n: usize| {
                        let at = if by_column { n * DEPTH + k } else { k * COLUMNS + n };
                        let p = match scales {
                            Scales::Blocks(size) if by_column => n * (DEPTH / size) + k / size,
                            Scales::Blocks(size) => k / size * COLUMNS + n,
                            Scales::Columns => n,
                            Scales::One => 0,
                            Scales::Depth => k,
                        };
                        let zero = if zeros { z.get(p).f64() } else { 0.0 };
                        (w.get(at).f64() - zero) * s.get(p).f64()
                    };
                    let x = Tensor::from_fn(DType::F32, &[3, DEPTH], |i| {
                        Number::Float((i * 11 % 19) as f64 / 4.0 - 2.0)
                    });
                    let want = Tensor::from_fn(DType::F32, &[3, COLUMNS], |p| {
                        let (m, n) = (p / COLUMNS, p % COLUMNS);
                        Number::Float((0..DEPTH).map(|k| x.get(m * DEPTH + k).f64() * weight(k, n)).sum())
                    });
                    let named = |n: NodeProto, out: &str| NodeProto {
                        output: vec![out.into()],
                        ..n
                    };
                    let operands: &[&str] = if zeros { &["w", "s", "z"] } else { &["w", "s"] };
                    let mut nodes = vec![named(node("DequantizeLinear", operands, attributes), "d")];
                    if op == "MatMul" && by_column {
                        nodes.push(named(node("Transpose", &["d"], vec![]), "t"));
                        nodes.push(node(op, &["x", "t"], vec![]));
                    } else {
                        let flag = if by_column { vec![int("transB", 1)] } else { vec![] };
                        nodes.push(node(op, &["x", "d"], flag));
                    }
                    let mut m = model(vec![value("x", 1, &[3, DEPTH])], nodes, &["y"]);
                    m.opset_import[0].version = 25;
                    m.graph.as_mut().unwrap().initializer = vec![
                        initializer("w", code, &w, bits),
                        initializer("s", 1, &s, 0),
                        initializer("z", code, &z, bits),
                    ];
                    let g = load(&m, &Options::default()).unwrap();
                    let what = format!("{op} {d} {scales:?} {by_column} {zeros}");
                    let y = g.eval(std::slice::from_ref(&x)).unwrap().remove(0);
                    assert_eq!(y.shape(), want.shape(), "{what}");
                    let near = |(a, b): (f64, f64)| (a - b).abs() < 1e-3;
                    let same = y.to_f64s().into_iter().zip(want.to_f64s()).all(near);
                    assert!(same, "{what}: {y:?}, expected {want:?}");
                    let packed = g.nodes.iter().any(|n| n.op.name() == "packed_product");
                    assert_eq!(packed, scales != Scales::Depth, "{what}");
                }
            }
        }
    }
}
