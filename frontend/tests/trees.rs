//! Trees that are wrong are errors that say how; trees as large as they come import.

mod common;

use brolga_frontend::onnx::Options;
use brolga_ir::{Graph, Tensor};
use common::value;
use onnx_protobuf::{AttributeProto, ModelProto, NodeProto, OperatorSetIdProto, attribute_proto::AttributeType};

/// A node of a tree: its feature and threshold, and where it leads (`None`: a leaf that weighs its own number).
type Row = (i64, f32, Option<[i64; 2]>);

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        type_: kind.into(),
        ..Default::default()
    }
}

fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto {
        ints: values,
        ..attribute(name, AttributeType::INTS)
    }
}

fn floats(name: &str, values: Vec<f32>) -> AttributeProto {
    AttributeProto {
        floats: values,
        ..attribute(name, AttributeType::FLOATS)
    }
}

/// A regressor of one tree on `x [2, 3]`.
fn model(tree: &[Row]) -> ModelProto {
    let all = |f: &dyn Fn(&Row) -> i64| tree.iter().map(f).collect::<Vec<i64>>();
    let leaves: Vec<i64> = (0..tree.len() as i64)
        .filter(|&i| tree[i as usize].2.is_none())
        .collect();
    let modes = tree.iter().map(|r| {
        if r.2.is_some() {
            b"BRANCH_LEQ".to_vec()
        } else {
            b"LEAF".to_vec()
        }
    });
    let node = NodeProto {
        op_type: "TreeEnsembleRegressor".into(),
        domain: "ai.onnx.ml".into(),
        name: "forest".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        attribute: vec![
            ints("nodes_treeids", vec![0; tree.len()]),
            ints("nodes_nodeids", (0..tree.len() as i64).collect()),
            ints("nodes_featureids", all(&|r| r.0)),
            floats("nodes_values", tree.iter().map(|r| r.1).collect()),
            AttributeProto {
                strings: modes.collect(),
                ..attribute("nodes_modes", AttributeType::STRINGS)
            },
            ints("nodes_truenodeids", all(&|r| r.2.map_or(0, |w| w[0]))),
            ints("nodes_falsenodeids", all(&|r| r.2.map_or(0, |w| w[1]))),
            ints("target_ids", vec![0; leaves.len()]),
            ints("target_treeids", vec![0; leaves.len()]),
            floats("target_weights", leaves.iter().map(|&l| l as f32).collect()),
            ints("target_nodeids", leaves),
            AttributeProto {
                i: 1,
                ..attribute("n_targets", AttributeType::INT)
            },
        ],
        ..Default::default()
    };
    let mut m = common::model(vec![value("x", 1, &[2, 3])], vec![node], &["y"]);
    m.opset_import.push(OperatorSetIdProto {
        domain: "ai.onnx.ml".into(),
        version: 3,
        ..Default::default()
    });
    m
}

fn run(g: &Graph) -> Vec<f32> {
    let x = Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    g.eval(&[x]).unwrap()[0].to_f32s()
}

fn load(tree: &[Row]) -> Result<Graph, String> {
    common::load(&model(tree), &Options::default()).map_err(|e| e.to_string())
}

#[test]
fn leaves_are_reached() {
    let tree = [
        (1, 2.5, Some([1, 2])),
        (0, 0.0, None),
        (2, 6.0, Some([3, 4])),
        (0, 0.0, None),
        (0, 0.0, None),
    ];
    assert_eq!(run(&load(&tree).unwrap()), [1.0, 3.0]);
    assert_eq!(run(&load(&[(0, 0.0, None)]).unwrap()), [0.0, 0.0]);
}

#[test]
fn wrong_trees_are_errors() {
    let says = |tree: &[Row], wanted: &str| {
        let e = load(tree).expect_err(wanted);
        assert!(e.contains("`forest`") && e.contains(wanted), "{e}");
    };
    let leaf = (0, 0.0, None);
    says(&[(0, 0.0, Some([0, 1])), leaf], "lead back to it");
    says(
        &[(0, 0.0, Some([1, 2])), (1, 0.0, Some([0, 2])), leaf],
        "lead back to it",
    );
    says(&[(0, 0.0, Some([1, 7])), leaf], "no node 7 of tree 0");
    says(&[(3, 0.0, Some([1, 2])), leaf, leaf], "4 is larger than 3");
    says(&[(-1, 0.0, Some([1, 2])), leaf, leaf], "feature -1");
}

/// As deep as it has nodes: nothing recurses.
#[test]
fn a_chain_is_a_tree() {
    let n = 20_000;
    let mut tree: Vec<Row> = (0..n).map(|i| (0, -1.0, Some([n, i + 1]))).collect();
    tree.push((0, 0.0, None));
    let found = load(&tree).unwrap();
    assert_eq!(run(&found), [n as f32, n as f32]);
}
