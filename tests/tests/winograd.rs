//! Convolutions by minimal filtering, against the same ones by their definition: as an operator of its own with random extents, and
//! as what rules make of convolutions where costs have it so, on every level and every CPU level that this machine has.

use brolga::Options;
use brolga_ir::program::Step;
use brolga_ir::{Attr, DType, Graph, Number, Tensor};
use brolga_tests::every_level::{assert_near, on_every_level};
use brolga_tests::random::Random;
use brolga_tests::targets;
use std::collections::HashMap;

/// Instances that are drawn.
const INSTANCES: usize = 16;

/// Rounding of the transforms, over the largest magnitude of the result: see `ir/src/ops/winograd/minimal.rs`.
const TOLERANCE: f64 = 1e-5;

fn parse(text: &str) -> Graph {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    g.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
    g
}

fn values(r: &mut Random, shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |_| {
        Number::Float(r.below(1 << 12) as f64 / 1024.0 - 2.0)
    })
}

/// What the transforms multiply is what windows sum, in last tiles of any size.
#[test]
fn tiles_hold_what_windows_sum() {
    let mut r = Random(3);
    for _ in 0..INSTANCES {
        let tile = r.pick(&[2, 4]);
        let (n, c, k) = (1 + r.below(2), r.pick(&[1, 3, 16, 33]), r.pick(&[1, 5, 32, 128, 256]));
        let (h, w) = (1 + r.below(9), 1 + r.below(9));
        let around = |d: usize| d.div_ceil(tile) * tile + 2;
        let (rows, columns, products) = (around(h), around(w), (tile + 2) * (tile + 2));
        let inputs = [values(&mut r, &[n, c, rows, columns]), values(&mut r, &[k, c, 3, 3])];
        let head = format!("graph @g(%0 x: f32[{n}, {c}, {rows}, {columns}], %1 w: f32[{k}, {c}, 3, 3])");
        let windows = parse(&format!(
            "{head} {{
              %2 = slice{{starts=[0, 0, 0, 0] sizes=[{n}, {c}, {}, {}] steps=[1, 1, 1, 1]}}(%0)
              %3 = conv{{strides=[1, 1] dilations=[1, 1] pads_low=[0, 0] pads_high=[0, 0] groups=1 acc=f32 out=f32}}(%2, %1)
              return y = %3
            }}",
            h + 2,
            w + 2
        ));
        let tiles = parse(&format!(
            "{head} {{
              %2 = winograd_weights{{tile={tile}}}(%1) : f32[{products}, {c}, {k}]
              %3 = winograd{{tile={tile} extents=[{h}, {w}]}}(%0, %2)
              return y = %3
            }}"
        ));
        let wanted = windows.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{windows}"));
        let reference = tiles.eval(&inputs).unwrap_or_else(|e| panic!("{e}\n{tiles}"));
        assert_near("the reference evaluation", &reference, &wanted, TOLERANCE);
        for (target, rules) in targets()
            .into_iter()
            .flat_map(|t| [(t.clone(), Some("none")), (t, None)])
        {
            let options = Options {
                target,
                rules: rules.map(|r| r.parse().expect("these rules are embedded")),
                ..Options::default()
            };
            on_every_level(&tiles, &inputs, &options, &mut |what, found| {
                assert_near(what, found, &wanted, TOLERANCE);
            });
        }
    }
}

/// Two convolutions, the second with everything that networks put behind one, ragged at both ends, in a batch of 2.
#[test]
fn what_follows_a_convolution_is_part_of_its_kernel() {
    let (n, c, h, w) = (2, 64, 22, 31);
    let mut r = Random(9);
    let mut g = parse(&format!(
        "graph @g(%0 x: f32[{n}, {c}, {h}, {w}], %1 v: f32[{c}, {c}, 3, 3], %2 w: f32[{c}, {c}, 3, 3], %3 b: f32[1, {c}, 1, 1]) {{
          %4 = conv{{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}}(%0, %1)
          %5 = relu(%4)
          %6 = conv{{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}}(%5, %2)
          %7 = broadcast{{shape=[{n}, {c}, {h}, {w}]}}(%3)
          %8 = add(%6, %7)
          %9 = add(%8, %5)
          %10 = gelu(%9)
          %11 = pool{{kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] sizes=[11, 16]}}(%10)
          return y = %11
        }}"
    ));
    let x = values(&mut r, &[n, c, h, w]);
    let weights: Vec<Tensor> = [&[c, c, 3, 3][..], &[c, c, 3, 3], &[1, c, 1, 1]]
        .iter()
        .map(|s| values(&mut r, s))
        .collect();
    let wanted = g
        .eval(&[std::slice::from_ref(&x), &weights[..]].concat())
        .unwrap_or_else(|e| panic!("{e}\n{g}"));
    g = with_constants(&g, &weights);
    for target in targets() {
        let options = Options {
            target,
            rules: Some("approximate".parse().expect("these rules are embedded")),
            ..Options::default()
        };
        let s = on_every_level(&g, std::slice::from_ref(&x), &options, &mut |what, found| {
            assert_near(what, found, &wanted, TOLERANCE);
        });
        let called = |step: &Step| match step {
            Step::Call { kernel, .. } => Some(&*s.kernels[*kernel as usize].name),
            _ => None,
        };
        let runs: Vec<&str> = s.steps.iter().filter_map(called).collect();
        let tiled = runs.iter().filter(|name| name.starts_with("winograd_")).count();
        assert_eq!(tiled, 2, "{runs:?}");
        assert!(
            !runs.iter().any(|name| name.contains("gelu") || name.contains("relu")),
            "{runs:?}"
        );
    }
}

/// The graph with its last inputs as constants.
fn with_constants(g: &Graph, values: &[Tensor]) -> Graph {
    let mut out = Graph::new(&g.name);
    let first = g.inputs.len() - values.len();
    let mut known = HashMap::new();
    for (i, input) in g.inputs.iter().enumerate() {
        let v = match i.checked_sub(first) {
            None => out.input(&input.name, g.ty(input.value).clone()),
            Some(k) => out.dense(values[k].clone()),
        };
        known.insert(input.value, v);
    }
    for node in &g.nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|v| known[v]).collect();
        let outs = out
            .add(node.op.clone(), &inputs, &node.origin)
            .unwrap_or_else(|e| panic!("{e}"));
        known.extend(node.outputs.iter().copied().zip(outs));
    }
    out.outputs = g.outputs.iter().map(|(name, v)| (name.clone(), known[v])).collect();
    out
}

#[test]
fn other_tiles_than_there_are_points_for_are_refused() {
    let text = "graph @g(%0 w: f32[4, 4, 3, 3]) { %1 = winograd_weights{tile=3}(%0) return y = %1 }";
    let e = Graph::parse(text, &|_| None).expect_err("tiles of 3");
    assert!(e.to_string().contains("tile is 3, expected 2 or 4"), "{e}");
    assert!(brolga_ir::Op::new("winograd", &[Attr::Int(3), Attr::dims(&[3, 3])]).is_ok());
}
