//! ONNX operators that the importer composes, beside the loops that define them: sizes that ONNX's own cases do not have, which take
//! other ways (long rows, long transforms, many steps), and operators for which there are none. On the tensor IR's interpreter and as
//! machine code.

use brolga::Options;
use brolga_frontend::onnx;
use brolga_ir::{Attr, DType, Number, Op, Tensor};
use brolga_tests::random::Random;
use brolga_tests::run;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};
use std::collections::BTreeMap;
use std::f64::consts::PI;

/// An attribute's value.
#[derive(Clone, Copy)]
enum Given<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
    Text(&'a str),
}
use Given::{Float, Int, Ints, Text};

/// A model of one node.
struct Case<'a> {
    op: &'a str,
    attrs: &'a [(&'a str, Given<'a>)],
    /// Named operands; an empty name is an omitted one.
    inputs: Vec<(&'a str, Tensor)>,
    /// Small integers that are constants of the model.
    constants: Vec<(&'a str, Vec<i64>)>,
    order: &'a [&'a str],
    results: usize,
    /// How many of the first extents of each operand are symbols.
    symbolic: usize,
}

/// All extents are symbols, or none is.
fn all_if(symbolic: bool) -> usize {
    if symbolic { usize::MAX } else { 0 }
}

fn code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::F64 => 11,
        DType::I64 => 7,
        DType::I32 => 6,
        d => panic!("no test has {d}"),
    }
}

impl Case<'_> {
    fn model(&self) -> ModelProto {
        let attribute = |(name, given): &(&str, Given<'_>)| {
            let mut a = AttributeProto::new();
            a.name = (*name).into();
            match given {
                Int(x) => (a.type_, a.i) = (AttributeType::INT.into(), *x),
                Float(x) => (a.type_, a.f) = (AttributeType::FLOAT.into(), *x),
                Ints(x) => (a.type_, a.ints) = (AttributeType::INTS.into(), x.to_vec()),
                Text(x) => (a.type_, a.s) = (AttributeType::STRING.into(), x.as_bytes().into()),
            }
            a
        };
        let names: Vec<String> = (0..self.results).map(|i| format!("y{i}")).collect();
        let node = NodeProto {
            op_type: self.op.into(),
            name: format!("the_{}", self.op),
            input: self.order.iter().map(|s| s.to_string()).collect(),
            output: names.clone(),
            attribute: self.attrs.iter().map(attribute).collect(),
            ..Default::default()
        };
        let input = |(name, t): &(&str, Tensor)| {
            let dim = |(axis, n): (usize, &usize)| Dimension {
                value: Some(match axis < self.symbolic {
                    true => dimension::Value::DimParam(format!("{name}_{axis}")),
                    false => dimension::Value::DimValue(*n as i64),
                }),
                ..Default::default()
            };
            let shape = TensorShapeProto {
                dim: t.shape().iter().enumerate().map(dim).collect(),
                ..Default::default()
            };
            let tensor = type_proto::Tensor {
                elem_type: code(t.dtype()),
                shape: Some(shape).into(),
                ..Default::default()
            };
            ValueInfoProto {
                name: (*name).into(),
                type_: Some(TypeProto {
                    value: Some(type_proto::Value::TensorType(tensor)),
                    ..Default::default()
                })
                .into(),
                ..Default::default()
            }
        };
        let constant = |(name, values): &(&str, Vec<i64>)| TensorProto {
            name: (*name).into(),
            dims: vec![values.len() as i64],
            data_type: 7,
            int64_data: values.clone(),
            ..Default::default()
        };
        let graph = GraphProto {
            name: "g".into(),
            node: vec![node],
            input: self.inputs.iter().map(input).collect(),
            initializer: self.constants.iter().map(constant).collect(),
            output: names
                .into_iter()
                .map(|name| ValueInfoProto {
                    name,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        ModelProto {
            ir_version: 10,
            opset_import: vec![OperatorSetIdProto {
                version: 20,
                ..Default::default()
            }],
            graph: Some(graph).into(),
            ..Default::default()
        }
    }

    /// What the interpreter gives; machine code gives the same, floats up to a tolerance.
    fn run(&self) -> Vec<Tensor> {
        let bytes = self.model().write_to_bytes().expect("it is serialised");
        let graph = onnx::load_bytes(bytes, "a.onnx", &onnx::Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert!(
            graph
                .nodes
                .iter()
                .all(|n| !matches!(n.op.role(), brolga_ir::ops::Role::Host)),
            "{} needs no host operator",
            self.op
        );
        let inputs: Vec<Tensor> = self.inputs.iter().map(|i| i.1.clone()).collect();
        let expected = graph.eval(&inputs).unwrap_or_else(|e| panic!("{e}"));
        let session = brolga::compile(&graph, &Options::default())
            .and_then(|c| c.session_with(2, u64::MAX))
            .unwrap_or_else(|e| panic!("{e}"));
        let named: BTreeMap<String, Tensor> = self.inputs.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        let found = run(&session, &named).unwrap_or_else(|e| panic!("{e}"));
        for ((name, found), expected) in found.iter().zip(&expected) {
            near(found, expected, &format!("{} {name}", self.op));
        }
        expected
    }
}

/// Checks that floats are near each other, and other numbers equal.
fn near(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(
        (found.dtype(), found.shape()),
        (expected.dtype(), expected.shape()),
        "{what}"
    );
    let tolerance = if expected.dtype() == DType::F64 { 1e-10 } else { 2e-5 };
    for (i, (f, e)) in found.iter().zip(expected.iter()).enumerate() {
        let same = match expected.dtype().is_float() {
            false => f == e,
            true => {
                let (f, e) = (f.f64(), e.f64());
                f == e || f.is_nan() && e.is_nan() || (f - e).abs() <= tolerance * e.abs().max(1.0)
            }
        };
        assert!(same, "{what}: element {i} is {f}, expected {e}");
    }
}

/// Numbers from -2 to 2 in steps of 1/1024.
fn numbers(r: &mut Random, dtype: DType, shape: &[usize]) -> Tensor {
    Tensor::from_fn(dtype, shape, |_| Number::Float(r.below(1 << 12) as f64 / 1024.0 - 2.0))
}

#[test]
fn top_k_is_the_irs() {
    let mut r = Random(1);
    // Pairs, selected ones, all of them by the network; few different values, so that many are equal.
    let shapes: [(&[usize], usize, i64); 8] = [
        (&[3, 40], 7, 1),
        (&[2, 700], 9, 1),
        (&[600, 3], 600, 0),
        (&[2, 1000, 2], 400, 1),
        (&[1, 3000], 1500, -1),
        (&[4, 300], 1, 1),
        (&[2, 5], 0, 1),
        (&[1, 257], 257, 1),
    ];
    for (k, (shape, count, axis)) in shapes.into_iter().enumerate() {
        for (largest, symbolic) in [(true, false), (false, true)] {
            let mut value = |_: usize| match r.below(400) {
                0 => Number::Float(f64::NAN),
                1 => Number::Float(f64::NEG_INFINITY),
                2 => Number::Float(-0.0),
                x => Number::Float((x % 100) as f64 - 50.0),
            };
            let dtype = if k % 2 == 0 { DType::F32 } else { DType::F64 };
            let x = Tensor::from_fn(dtype, shape, &mut value);
            let axis = axis.rem_euclid(shape.len() as i64);
            let attrs = [Attr::Int(axis), Attr::dims(&[count as i64]), Attr::Bool(largest)];
            let expected = Op::new("top_k", &attrs)
                .unwrap()
                .eval(std::slice::from_ref(&x))
                .unwrap();
            let found = Case {
                op: "TopK",
                attrs: &[("axis", Int(axis)), ("largest", Int(largest as i64))],
                inputs: vec![("x", x)],
                constants: vec![("k", vec![count as i64])],
                order: &["x", "k"],
                results: 2,
                symbolic: all_if(symbolic),
            }
            .run();
            near(&found[0], &expected[0], "values");
            near(&found[1], &expected[1], "positions");
        }
    }
}

/// The transform of rows of complex numbers, as it is defined.
fn transformed(x: &[(f64, f64)], n: usize, inverse: bool) -> Vec<(f64, f64)> {
    let sign = if inverse { 1.0 } else { -1.0 };
    let scale = if inverse { 1.0 / n as f64 } else { 1.0 };
    let bin = |k: usize| {
        x.iter().take(n).enumerate().fold((0.0, 0.0), |(re, im), (j, (a, b))| {
            let (sin, cos) = (sign * 2.0 * PI * (j * k % n) as f64 / n as f64).sin_cos();
            (re + (a * cos - b * sin) * scale, im + (a * sin + b * cos) * scale)
        })
    };
    (0..n).map(bin).collect()
}

#[test]
fn transforms_of_every_length() {
    let mut r = Random(2);
    // One contraction, two and three steps, a long one without factors; filled, cut.
    let cases = [
        (1, 1, false),
        (7, 7, true),
        (256, 256, false),
        (257, 257, false),
        (300, 300, true),
        (20, 36, false),
        (36, 20, false),
        (4_620, 4_620, false),
    ];
    for (have, n, symbolic) in cases {
        for (parts, inverse, onesided) in [(1, false, true), (2, false, false), (2, true, false)] {
            let x = numbers(&mut r, DType::F64, &[2, have, parts]);
            let mut constants = vec![("axis", vec![1])];
            if have != n {
                constants.push(("n", vec![n as i64]));
            }
            let found = Case {
                op: "DFT",
                attrs: &[("inverse", Int(inverse as i64)), ("onesided", Int(onesided as i64))],
                inputs: vec![("x", x.clone())],
                constants,
                order: &["x", if have == n { "" } else { "n" }, "axis"],
                results: 1,
                // The number of parts is never a symbol.
                symbolic: 2 * usize::from(symbolic),
            }
            .run()
            .remove(0);
            let bins = if onesided { n / 2 + 1 } else { n };
            let mut expected = vec![];
            for row in x.to_f64s().chunks(have * parts) {
                let row: Vec<(f64, f64)> = row.chunks(parts).map(|c| (c[0], *c.get(1).unwrap_or(&0.0))).collect();
                expected.extend(
                    transformed(&row, n, inverse)
                        .into_iter()
                        .take(bins)
                        .flat_map(|(a, b)| [a, b]),
                );
            }
            let expected = Tensor::from_fn(DType::F64, &[2, bins, 2], |i| Number::Float(expected[i]));
            near(&found, &expected, &format!("{have} as {n}"));
        }
    }
}

#[test]
fn real_signals_from_half_of_their_bins() {
    let mut r = Random(3);
    for n in [1, 2, 9, 64, 300] {
        let x = numbers(&mut r, DType::F64, &[n]).to_f64s();
        let row: Vec<(f64, f64)> = x.iter().map(|&a| (a, 0.0)).collect();
        let bins: Vec<f64> = transformed(&row, n, false)[..n / 2 + 1]
            .iter()
            .flat_map(|b| [b.0, b.1])
            .collect();
        let found = Case {
            op: "DFT",
            attrs: &[("inverse", Int(1)), ("onesided", Int(1))],
            inputs: vec![(
                "x",
                Tensor::from_fn(DType::F64, &[1, n / 2 + 1, 2], |i| Number::Float(bins[i])),
            )],
            constants: vec![("n", vec![n as i64])],
            order: &["x", "n"],
            results: 1,
            symbolic: 0,
        }
        .run();
        near(
            &found[0],
            &Tensor::from_fn(DType::F64, &[1, n, 1], |i| Number::Float(x[i])),
            "the signal",
        );
    }
}

#[test]
fn unique_rows_and_elements() {
    let mut r = Random(4);
    for (shape, axis, sorted) in [
        (&[700][..], None, true),
        (&[30, 20], None, false),
        (&[400, 3], Some(0), true),
        (&[3, 50], Some(1), false),
        (&[0], None, true),
    ] {
        let x = Tensor::from_fn(DType::F32, shape, |_| {
            Number::Float(r.below(if axis.is_some() { 3 } else { 40 }) as f64)
        });
        let mut attrs = vec![("sorted", Int(sorted as i64))];
        attrs.extend(axis.map(|a| ("axis", Int(a as i64))));
        let found = Case {
            op: "Unique",
            attrs: &attrs,
            inputs: vec![("x", x.clone())],
            constants: vec![],
            order: &["x"],
            results: 4,
            symbolic: all_if(sorted),
        }
        .run();
        // Rows as vectors, their first positions and numbers.
        let n = axis.map_or(x.len(), |a| shape[a]);
        let rows: Vec<Vec<i64>> = (0..n)
            .map(|i| {
                let all = brolga_ir::indices(x.shape()).zip(x.iter());
                let mine = all.filter(|(at, _)| axis.is_some_and(|a| at[a] == i));
                match axis {
                    Some(_) => mine.map(|(_, v)| v.f64() as i64).collect(),
                    None => vec![x.get(i).f64() as i64],
                }
            })
            .collect();
        let mut groups: BTreeMap<&Vec<i64>, Vec<usize>> = BTreeMap::new();
        rows.iter()
            .enumerate()
            .for_each(|(i, row)| groups.entry(row).or_default().push(i));
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        if !sorted {
            groups.sort_by_key(|g| g[0]);
        }
        let firsts: Vec<i64> = groups.iter().map(|g| g[0] as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
        let inverse: Vec<i64> = (0..n)
            .map(|i| groups.iter().position(|g| g.contains(&i)).expect("it is in one") as i64)
            .collect();
        assert_eq!(found[1].to_i64s(), firsts, "{shape:?}");
        assert_eq!(found[2].to_i64s(), inverse, "{shape:?}");
        assert_eq!(found[3].to_i64s(), counts, "{shape:?}");
        let index = Tensor::from_i64(&[firsts.len()], &firsts);
        let flat = if axis.is_some() {
            x.clone()
        } else {
            x.reshaped(&[x.len()])
        };
        let take = Op::new("gather", &[Attr::Int(axis.unwrap_or(0) as i64)]).unwrap();
        near(&found[0], &take.eval(&[flat, index]).unwrap()[0], "values");
    }
}

#[test]
fn boxes_that_do_not_overlap_better_ones() {
    let mut r = Random(5);
    for (images, classes, n, most, centred, limit) in [
        (2, 3, 60, 9, false, 0.3),
        (2, 3, 60, 9, true, 0.0),
        (1, 1, 60, 90, false, 0.5),
        (1, 2, 300, 0, false, 0.5),
    ] {
        let boxes = Tensor::from_fn(DType::F32, &[images, n, 4], |_| Number::Float(r.below(64) as f64 / 8.0));
        let scores = Tensor::from_fn(DType::F32, &[images, classes, n], |_| {
            Number::Float(r.below(50) as f64 / 50.0)
        });
        let number = |x: f64| Tensor::from_fn(DType::F32, &[1], |_| Number::Float(x));
        let (overlap, least) = (limit, 0.2);
        let found = Case {
            op: "NonMaxSuppression",
            attrs: &[("center_point_box", Int(centred as i64))],
            inputs: vec![
                ("boxes", boxes.clone()),
                ("scores", scores.clone()),
                ("overlap", number(overlap)),
                ("least", number(least)),
            ],
            constants: vec![("most", vec![most as i64])],
            order: &["boxes", "scores", "most", "overlap", "least"],
            results: 1,
            symbolic: all_if(centred),
        }
        .run();
        let corners = |b: usize, i: usize| {
            let c: Vec<f32> = (0..4).map(|k| boxes.get((b * n + i) * 4 + k).f64() as f32).collect();
            let side = |k: usize| match centred {
                true => (c[k] - c[k + 2] / 2.0, c[k] + c[k + 2] / 2.0),
                false => (c[k].min(c[k + 2]), c[k].max(c[k + 2])),
            };
            (side(0), side(1))
        };
        let ratio = |b: usize, i: usize, j: usize| {
            let ((y0, y1), (x0, x1)) = corners(b, i);
            let ((v0, v1), (u0, u1)) = corners(b, j);
            let (h, w) = (y1.min(v1) - y0.max(v0), x1.min(u1) - x0.max(u0));
            if h <= 0.0 || w <= 0.0 {
                return 0.0;
            }
            h * w / ((y1 - y0) * (x1 - x0) + (v1 - v0) * (u1 - u0) - h * w)
        };
        let mut expected = vec![];
        for (b, c) in (0..images).flat_map(|b| (0..classes).map(move |c| (b, c))) {
            let score = |i: usize| scores.get((b * classes + c) * n + i).f64() as f32;
            let mut order: Vec<usize> = (0..n).filter(|&i| score(i) > least as f32).collect();
            order.sort_by(|&i, &j| score(j).total_cmp(&score(i)));
            let mut kept: Vec<usize> = vec![];
            for i in order {
                if kept.len() < most && kept.iter().all(|&k| ratio(b, i, k) <= overlap as f32) {
                    kept.push(i);
                }
            }
            expected.extend(kept.into_iter().flat_map(|i| [b as i64, c as i64, i as i64]));
        }
        assert_eq!(found[0].to_i64s(), expected);
    }
}

#[test]
fn maxima_of_regions() {
    let mut r = Random(6);
    let x = numbers(&mut r, DType::F32, &[2, 3, 9, 11]);
    let regions = [
        [0.0, 1.0, 2.0, 8.0, 7.0],
        [1.0, 0.4, 0.6, 30.0, 12.2],
        [1.0, 5.0, 5.0, 5.0, 5.0],
        [0.0, -20.0, -20.0, -15.0, -15.0],
    ];
    let rois = Tensor::from_fn(DType::F32, &[4, 5], |i| Number::Float(regions[i / 5][i % 5]));
    let (rows, columns, scale) = (3i64, 2i64, 0.5f32);
    let found = Case {
        op: "MaxRoiPool",
        attrs: &[
            ("pooled_shape", Ints(&[rows, columns])),
            ("spatial_scale", Float(scale)),
        ],
        inputs: vec![("x", x.clone()), ("rois", rois.clone())],
        constants: vec![],
        order: &["x", "rois"],
        results: 1,
        symbolic: 0,
    }
    .run();
    let mut expected = vec![];
    for roi in regions {
        let end = |i: usize| (roi[i] as f32 * scale).round() as i64;
        let part = |from: i64, to: i64, bins: i64, bin: i64, n: i64| {
            let size = (to - from + 1).max(1);
            let (low, high) = (bin * size / bins, ((bin + 1) * size + bins - 1) / bins);
            (from + low).clamp(0, n)..(from + high).clamp(0, n)
        };
        for (c, p, q) in (0..3).flat_map(|c| (0..rows).flat_map(move |p| (0..columns).map(move |q| (c, p, q)))) {
            let (ys, xs) = (part(end(2), end(4), rows, p, 9), part(end(1), end(3), columns, q, 11));
            let mut best = f64::NEG_INFINITY;
            for (i, j) in ys.flat_map(|i| xs.clone().map(move |j| (i, j))) {
                best = best.max(
                    x.get(((roi[0] as usize * 3 + c) * 9 + i as usize) * 11 + j as usize)
                        .f64(),
                );
            }
            expected.push(if best.is_finite() { best } else { 0.0 });
        }
    }
    let shape = [4, 3, rows as usize, columns as usize];
    near(
        &found[0],
        &Tensor::from_fn(DType::F32, &shape, |i| Number::Float(expected[i])),
        "maxima",
    );
}

#[test]
fn overlapping_blocks_are_added() {
    let mut r = Random(7);
    // Blocks, strides, dilations, pads in front: pieces of a stride, more than one, elements apart.
    for (block, stride, dilation, low) in [(6, 2, 1, 0), (5, 3, 1, 2), (3, 2, 4, 1), (2, 7, 1, 0)] {
        let n = 31;
        let count = (n + low - (block - 1) * dilation - 1) / stride + 1;
        let x = numbers(&mut r, DType::F32, &[2, 3 * block, count]);
        let found = Case {
            op: "Col2Im",
            attrs: &[
                ("strides", Ints(&[stride as i64])),
                ("dilations", Ints(&[dilation as i64])),
                ("pads", Ints(&[low as i64, 0])),
            ],
            inputs: vec![("x", x.clone())],
            constants: vec![("image", vec![n as i64]), ("block", vec![block as i64])],
            order: &["x", "image", "block"],
            results: 1,
            symbolic: 0,
        }
        .run();
        let mut expected = vec![0f32; 2 * 3 * n];
        for (plane, k, b) in (0..6).flat_map(|p| (0..block).flat_map(move |k| (0..count).map(move |b| (p, k, b)))) {
            if let Some(at) = (b * stride + k * dilation).checked_sub(low).filter(|at| *at < n) {
                expected[plane * n + at] += x.get((plane * block + k) * count + b).f64() as f32;
            }
        }
        near(&found[0], &Tensor::from_f32(&[2, 3, n], &expected), "sums");
    }
}

/// The determinant by the first row.
fn cofactors(a: &[Vec<f64>]) -> f64 {
    let minor = |k: usize| -> Vec<Vec<f64>> {
        let without = |row: &Vec<f64>| (0..row.len()).filter(|&j| j != k).map(|j| row[j]).collect();
        a[1..].iter().map(without).collect()
    };
    let sign = |k: usize| if k.is_multiple_of(2) { 1.0 } else { -1.0 };
    match a.len() {
        0 => 1.0,
        n => (0..n).map(|k| sign(k) * a[0][k] * cofactors(&minor(k))).sum(),
    }
}

#[test]
fn determinants() {
    let mut r = Random(8);
    for n in [1, 2, 5] {
        // The first column of the first matrix is 0 but for its end, that of the second one everywhere.
        let x = Tensor::from_fn(DType::F64, &[3, n, n], |i| {
            let (matrix, row, column) = (i / (n * n), i / n % n, i % n);
            let hidden = column == 0 && (matrix == 1 || matrix == 0 && row + 1 < n);
            Number::Float(if hidden { 0.0 } else { r.below(9) as f64 - 4.0 })
        });
        let all = x.to_f64s();
        let expected: Vec<f64> = all
            .chunks(n * n)
            .map(|m| cofactors(&m.chunks(n).map(<[f64]>::to_vec).collect::<Vec<_>>()))
            .collect();
        let found = Case {
            op: "Det",
            attrs: &[],
            inputs: vec![("x", x)],
            constants: vec![],
            order: &["x"],
            results: 1,
            symbolic: all_if(n == 5),
        }
        .run();
        near(
            &found[0],
            &Tensor::from_fn(DType::F64, &[3], |i| Number::Float(expected[i])),
            "determinants",
        );
    }
}

/// A node that draws random numbers.
fn drawn(op: &str, attrs: &[(&str, Given<'_>)], operand: Option<Tensor>) -> Vec<f64> {
    let order: &[&str] = if operand.is_some() { &["x"] } else { &[] };
    Case {
        op,
        attrs,
        inputs: operand.into_iter().map(|x| ("x", x)).collect(),
        constants: vec![],
        order,
        results: 1,
        symbolic: 0,
    }
    .run()
    .remove(0)
    .to_f64s()
}

/// The first words of Philox-2x32-10 for the key 0, from the known answers of Random123.
#[test]
fn random_numbers_are_philoxs() {
    let words = (0xff1d_ae59u32, 0x6cd1_0df2u32);
    let attrs = [("shape", Ints(&[3])), ("seed", Float(0.0))];
    let narrow = drawn("RandomUniform", &attrs, None);
    assert_eq!(narrow[0], (words.0 >> 8) as f64 / 2f64.powi(24));
    let wide = drawn("RandomUniform", &[attrs[0], attrs[1], ("dtype", Int(11))], None);
    let bits = (words.0 as u64) << 21 | (words.1 as u64) >> 11;
    assert_eq!(wide[0], bits as f64 / 2f64.powi(53));
}

#[test]
fn random_numbers_are_distributed() {
    const N: usize = 20_000;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let shape = [("shape", Ints(&[N as i64]))];
    let u = drawn(
        "RandomUniform",
        &[shape[0], ("low", Float(-3.0)), ("high", Float(5.0))],
        None,
    );
    assert!(u.iter().all(|x| (-3.0..=5.0).contains(x)));
    assert!((mean(&u) - 1.0).abs() < 0.1, "{}", mean(&u));
    for dtype in [1, 11] {
        let z = drawn(
            "RandomNormal",
            &[
                shape[0],
                ("mean", Float(2.0)),
                ("scale", Float(3.0)),
                ("dtype", Int(dtype)),
            ],
            None,
        );
        let m = mean(&z);
        let deviation = mean(&z.iter().map(|x| (x - m) * (x - m)).collect::<Vec<_>>()).sqrt();
        assert!(
            (m - 2.0).abs() < 0.1 && (deviation - 3.0).abs() < 0.1,
            "{m} {deviation}"
        );
        // Neighbours have nothing to do with each other.
        let pairs: Vec<f64> = z.windows(2).map(|w| (w[0] - m) * (w[1] - m) / 9.0).collect();
        assert!(mean(&pairs).abs() < 0.05, "{}", mean(&pairs));
    }
    let p = Tensor::from_fn(DType::F32, &[N], |i| Number::Float(if i % 2 == 0 { 0.25 } else { 0.0 }));
    let b = drawn("Bernoulli", &[], Some(p));
    assert!(b.iter().skip(1).step_by(2).all(|x| *x == 0.0));
    assert!((mean(&b) - 0.125).abs() < 0.01, "{}", mean(&b));
    // Probabilities of 1/2, 0, 1/3 and 1/6.
    let odds = [3f64.ln(), f64::NEG_INFINITY, 2f64.ln(), 0.0];
    let x = Tensor::from_fn(DType::F32, &[1, 4], |i| Number::Float(odds[i]));
    let classes = drawn("Multinomial", &[("sample_size", Int(N as i64))], Some(x));
    for (class, share) in [0.5, 0.0, 1.0 / 3.0, 1.0 / 6.0].into_iter().enumerate() {
        let found = classes.iter().filter(|c| **c == class as f64).count() as f64 / N as f64;
        assert!((found - share).abs() < 0.02, "class {class}: {found}");
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let x = Tensor::from_fn(DType::F32, &[10_000], |_| Number::Float(1.0));
    let ratio = Tensor::from_fn(DType::F32, &[1], |_| Number::Float(0.25));
    let found = Case {
        op: "Dropout",
        attrs: &[("seed", Int(7))],
        inputs: vec![("x", x), ("ratio", ratio)],
        constants: vec![],
        order: &["x", "ratio", "on"],
        results: 2,
        symbolic: 0,
    };
    let mut model = found.model();
    model.graph.mut_or_insert_default().initializer.push(TensorProto {
        name: "on".into(),
        data_type: 9,
        int32_data: vec![1],
        ..Default::default()
    });
    let bytes = model.write_to_bytes().expect("it is serialised");
    let graph = onnx::load_bytes(bytes, "a.onnx", &onnx::Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let inputs: Vec<Tensor> = found.inputs.iter().map(|i| i.1.clone()).collect();
    let out = graph.eval(&inputs).unwrap();
    let (y, mask) = (out[0].to_f64s(), out[1].to_f64s());
    assert!(y.iter().zip(&mask).all(|(y, m)| if *m == 1.0 {
        (*y - 4.0 / 3.0).abs() < 1e-6
    } else {
        *y == 0.0
    }));
    let kept = mask.iter().sum::<f64>() / mask.len() as f64;
    assert!((kept - 0.75).abs() < 0.02, "{kept}");
}

#[test]
fn samples_beside_an_image() {
    // One row of four elements, read far outside: what each kind of border gives, for both conventions of the corners.
    let x = Tensor::from_f32(&[1, 1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let at = |corners: bool, position: f64| match corners {
        true => position / 1.5 - 1.0,
        false => (2.0 * position + 1.0) / 4.0 - 1.0,
    };
    let cases: [(&str, bool, [f64; 4]); 5] = [
        ("zeros", false, [0.0, 0.5, 2.5, 0.0]),
        ("border", false, [1.0, 1.0, 2.5, 4.0]),
        // 1 2 3 4 4 3 2 1 and 1 2 3 4 3 2 1.
        ("reflection", false, [2.0, 1.0, 2.5, 1.0]),
        ("reflection", true, [3.0, 1.5, 2.5, 2.0]),
        ("border", true, [1.0, 1.0, 2.5, 4.0]),
    ];
    for (mode, corners, expected) in cases {
        let positions = [-2.0, -0.5, 1.5, 7.0];
        let grid = Tensor::from_fn(DType::F32, &[1, 1, 4, 2], |i| {
            Number::Float(if i % 2 == 0 {
                at(corners, positions[i / 2])
            } else if corners {
                -1.0
            } else {
                0.0
            })
        });
        let found = Case {
            op: "GridSample",
            attrs: &[("padding_mode", Text(mode)), ("align_corners", Int(corners as i64))],
            inputs: vec![("x", x.clone()), ("grid", grid)],
            constants: vec![],
            order: &["x", "grid"],
            results: 1,
            symbolic: 0,
        }
        .run();
        let expected = Tensor::from_fn(DType::F32, &[1, 1, 1, 4], |i| Number::Float(expected[i]));
        near(&found[0], &expected, &format!("{mode} {corners}"));
    }
}
