//! The two forms in which nodes of the model give trees: by names of nodes, and since version 5 by positions.

use super::super::super::super::tensor;
use super::super::*;
use super::forest::{Forest, Next, Split, Test};
use brolga_ir::DType;
use rustc_hash::FxHashMap;

/// Trees whose nodes are named by numbers, with what else the classifier and the regressor have in common.
pub struct Named {
    pub forest: Forest,
    /// Base values.
    pub base: Vec<f64>,
    /// Thresholds and weights are doubles.
    pub double: bool,
}

/// An attribute of floats, or of a tensor.
fn numbers(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, name: &str) -> Result<Option<(DType, Vec<f64>)>, Fail> {
    if let Some(t) = ctx.tensor(&format!("{name}_as_tensor"))? {
        return constant(graph, t).map(Some);
    }
    let floats = ctx.floats(name)?;
    Ok(floats.map(|f| (DType::F32, f.iter().map(|&x| x.into()).collect())))
}

fn constant(graph: &mut Builder<'_>, t: &onnx_protobuf::TensorProto) -> Result<(DType, Vec<f64>), Fail> {
    let c = tensor::constant(t, graph.files, graph.limit)?;
    Ok((c.ty.dtype, c.to_tensor().to_f64s()))
}

fn positions(ctx: &NodeCtx<'_>, name: &str) -> Result<Vec<usize>, Fail> {
    let all = ctx.ints(name)?.unwrap_or_default();
    let position = |&i: &i64| {
        let bad = || Fail::Bad(format!("attribute `{name}` holds {i}"));
        usize::try_from(i).map_err(|_| bad())
    };
    all.iter().map(position).collect()
}

fn same_lengths(what: &str, lengths: &[usize]) -> Result<(), Fail> {
    match lengths.iter().all(|&n| n == lengths[0]) {
        true => Ok(()),
        false => Err(Fail::Bad(format!("attributes of {what} with {lengths:?} elements"))),
    }
}

impl Named {
    /// The trees of a node, whose weights are attributes with this prefix.
    ///
    /// # Errors
    /// When attributes do not fit each other.
    pub fn of(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, prefix: &str) -> Result<Named, Fail> {
        let tree = ctx.ints("nodes_treeids")?.unwrap_or_default();
        let node = ctx.ints("nodes_nodeids")?.unwrap_or_default();
        let yes = ctx.ints("nodes_truenodeids")?.unwrap_or_default();
        let no = ctx.ints("nodes_falsenodeids")?.unwrap_or_default();
        let modes = ctx.strings("nodes_modes")?.unwrap_or_default();
        let nan = ctx.ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
        let features = ctx.ints("nodes_featureids")?.unwrap_or_default();
        let (dtype, thresholds) = numbers(graph, ctx, "nodes_values")?.unwrap_or((DType::F32, vec![]));
        let n = tree.len();
        let lengths = [
            n,
            node.len(),
            yes.len(),
            no.len(),
            modes.len(),
            features.len(),
            thresholds.len(),
        ];
        same_lengths("nodes", &lengths)?;
        // Leaves and splits are numbered apart.
        let mut places: FxHashMap<(i64, i64), Next> = FxHashMap::default();
        let (mut splits, mut leaves) = (0, 0);
        let mut roots: Vec<(i64, Next)> = vec![];
        for i in 0..n {
            let leaf = modes[i] == "LEAF";
            let count = if leaf { &mut leaves } else { &mut splits };
            let next = if leaf { Next::Leaf(*count) } else { Next::Split(*count) };
            *count += 1;
            if places.insert((tree[i], node[i]), next).is_some() {
                return Err(Fail::Bad(format!(
                    "node {} of tree {} is there twice",
                    node[i], tree[i]
                )));
            }
            if roots.last().is_none_or(|r| r.0 != tree[i]) {
                roots.push((tree[i], next));
            }
        }
        let find = |t: i64, n: i64| {
            let none = || Fail::Bad(format!("there is no node {n} of tree {t}"));
            places.get(&(t, n)).copied().ok_or_else(none)
        };
        let mut forest = Forest {
            roots: roots.iter().map(|r| r.1).collect(),
            splits: vec![],
            leaves: vec![vec![]; leaves],
        };
        for i in (0..n).filter(|&i| modes[i] != "LEAF") {
            let t = thresholds[i];
            let test = match modes[i] {
                "BRANCH_LEQ" => Test::AtMost(t),
                "BRANCH_LT" => Test::Below(t),
                "BRANCH_GTE" => Test::AtLeast(t),
                "BRANCH_GT" => Test::Above(t),
                "BRANCH_EQ" => Test::Equal(t),
                "BRANCH_NEQ" => Test::Unequal(t),
                m => return Err(Fail::Bad(format!("mode `{m}` of node {} of tree {}", node[i], tree[i]))),
            };
            let feature = usize::try_from(features[i]).map_err(|_| format!("feature {}", features[i]))?;
            forest.splits.push(Split {
                feature,
                test,
                nan: nan.get(i).is_some_and(|&m| m != 0),
                yes: find(tree[i], yes[i])?,
                no: find(tree[i], no[i])?,
            });
        }
        let ids = positions(ctx, &format!("{prefix}_ids"))?;
        let of_tree = ctx.ints(&format!("{prefix}_treeids"))?.unwrap_or_default();
        let of_node = ctx.ints(&format!("{prefix}_nodeids"))?.unwrap_or_default();
        let (weight_dtype, weights) =
            numbers(graph, ctx, &format!("{prefix}_weights"))?.unwrap_or((DType::F32, vec![]));
        same_lengths("weights", &[ids.len(), of_tree.len(), of_node.len(), weights.len()])?;
        for i in 0..ids.len() {
            match find(of_tree[i], of_node[i])? {
                Next::Leaf(l) => forest.leaves[l].push((ids[i], weights[i])),
                // No way ends there.
                Next::Split(_) => {}
            }
        }
        let base = numbers(graph, ctx, "base_values")?;
        Ok(Named {
            forest,
            base: base.map_or(vec![], |b| b.1),
            double: [dtype, weight_dtype].contains(&DType::F64),
        })
    }

    /// The number of targets that have weights.
    pub fn targets(&self) -> usize {
        self.forest.leaves.iter().flatten().map(|w| w.0 + 1).max().unwrap_or(0)
    }

    /// True when some leaf weighs a target.
    pub fn weighs(&self, target: usize) -> bool {
        self.forest.leaves.iter().flatten().any(|w| w.0 == target)
    }

    /// True when no weight is negative.
    pub fn all_positive(&self) -> bool {
        self.forest.leaves.iter().flatten().all(|w| w.1 >= 0.0)
    }
}

/// The trees of a `TreeEnsemble`.
///
/// # Errors
/// When attributes do not fit each other.
pub fn indexed(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Forest, Fail> {
    let mut tensor = |name: &str| match ctx.tensor(name)? {
        Some(t) => constant(graph, t).map(|c| c.1),
        None => Err(Fail::Bad(format!("attribute `{name}` is missing"))),
    };
    let (modes, thresholds, weights) = (tensor("nodes_modes")?, tensor("nodes_splits")?, tensor("leaf_weights")?);
    let sets = match ctx.tensor("membership_values")? {
        Some(_) => tensor("membership_values")?,
        None => vec![],
    };
    // Sets end with NaN.
    let mut sets = sets.split(|x| x.is_nan());
    let features = positions(ctx, "nodes_featureids")?;
    let targets = positions(ctx, "leaf_targetids")?;
    let [yes, no] = ["nodes_truenodeids", "nodes_falsenodeids"].map(|n| positions(ctx, n));
    let [yes_leaf, no_leaf] = ["nodes_trueleafs", "nodes_falseleafs"].map(|n| positions(ctx, n));
    let (yes, no, yes_leaf, no_leaf) = (yes?, no?, yes_leaf?, no_leaf?);
    let nan = ctx.ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let n = features.len();
    let ways = [yes.len(), no.len(), yes_leaf.len(), no_leaf.len()];
    same_lengths("nodes", &[&[n, modes.len(), thresholds.len()][..], &ways].concat())?;
    same_lengths("leaves", &[targets.len(), weights.len()])?;
    let way = |i: usize, is_leaf: usize| match is_leaf {
        0 if i < n => Ok(Next::Split(i)),
        1 if i < weights.len() => Ok(Next::Leaf(i)),
        _ => Err(Fail::Bad(format!("a way to node or leaf {i}, which is not there"))),
    };
    let mut forest = Forest {
        leaves: targets.iter().zip(&weights).map(|(&t, &w)| vec![(t, w)]).collect(),
        ..Forest::default()
    };
    for i in 0..n {
        let t = thresholds[i];
        let test = match modes[i] as i64 {
            0 => Test::AtMost(t),
            1 => Test::Below(t),
            2 => Test::AtLeast(t),
            3 => Test::Above(t),
            4 => Test::Equal(t),
            5 => Test::Unequal(t),
            6 => Test::Among(
                sets.next()
                    .ok_or("fewer sets than nodes that ask for members")?
                    .to_vec(),
            ),
            m => return Err(Fail::Bad(format!("mode {m} of node {i}"))),
        };
        forest.splits.push(Split {
            feature: features[i],
            test,
            nan: nan.get(i).is_some_and(|&m| m != 0),
            yes: way(yes[i], yes_leaf[i])?,
            no: way(no[i], no_leaf[i])?,
        });
    }
    for r in positions(ctx, "tree_roots")? {
        forest.roots.push(way(r, 0)?);
    }
    Ok(forest)
}
